"""`moeflux inspect`: GGUF files written here by the format's description, and the model.

  test_inspect.py [-v] [Inspect]

Environment as for test_cli.py.
"""
import json
import os
import struct
import unittest

import test_cli
from test_cli import MODEL, Case


def gguf(tensors, **strings):
    """A GGUF file: strings as metadata (_ for . in keys), (name, floats) as float32 tensors."""
    def text(s):
        return struct.pack("<Q", len(s)) + s.encode()
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(strings))
    for key, value in strings.items():
        head += text(key.replace("_", ".")) + struct.pack("<I", 8) + text(value)
    data = b""
    for name, floats in tensors:
        head += text(name) + struct.pack("<IQIQ", 1, len(floats), 0, len(data))
        data += struct.pack("<%df" % len(floats), *floats)
        data += b"\0" * (-len(data) % 32)
    return head + b"\0" * (-len(head) % 32) + data


class Inspect(Case):
    FLOATS = [1.0, -2.5, 3e38, 1e-45, 0.0]

    def setUp(self):
        super().setUp()
        self.model = self.write("m.gguf", gguf([("x.weight", self.FLOATS), ("y", [0.5] * 16)],
                                               general_architecture="unheard-of", note="a\nb" * 100))

    def test_unknown_family(self):
        for args in (["-m", self.model], [self.model], ["-m", self.dir]):
            text = self.cli("inspect", *args).stdout.decode()
            self.assertIn("family  none", text)
            self.assertIn("unheard-of", text)
            self.assertRegex(text, r"(?m)^  x\.weight +f32 +\[5\] +20 .* 0:\d+$")
            self.assertLess(max(map(len, text.splitlines())), 400)  # the long note is cut

    def test_json(self):
        d = json.loads(self.cli("inspect", self.model, "--json").stdout)
        self.assertEqual((d["format"], d["family"], d["bytes_by_role"]), ("gguf", None, None))
        self.assertIn("unheard-of", d["family_reason"])
        self.assertEqual(d["metadata"]["note"], "a\nb" * 100)
        self.assertEqual(d["total_bytes"], 20 + 64)
        self.assertEqual([t["name"] for t in d["tensors"]], ["x.weight", "y"])
        plane = d["tensors"][0]["planes"][0]
        with open(self.model, "rb") as f:
            f.seek(plane["offset"])
            self.assertEqual(f.read(plane["bytes"]), struct.pack("<5f", *self.FLOATS))

    def test_tensor(self):
        out = self.path("out")
        p = self.cli("inspect", self.model, "--tensor", "x.weight", "--f32", out)
        self.assertEqual(p.stdout, b"")
        with open(out, "rb") as f:
            self.assertEqual(f.read(), struct.pack("<5f", *self.FLOATS))
        p = self.cli("inspect", self.model, "--tensor", "y", "--f32", "/dev/stdout")
        self.assertEqual(p.stdout, struct.pack("<16f", *[0.5] * 16))

    def test_tensor_failures(self):
        before = sorted(os.listdir(self.dir))
        p = self.cli("inspect", self.model, "--tensor", "z", "--f32", self.path("out"), code=3)
        self.one_line(p, "no tensor z")
        self.assertEqual(sorted(os.listdir(self.dir)), before)
        self.cli("inspect", self.model, "--tensor", "y", "--f32", "/dev/full", code=4)
        self.cli("inspect", self.model, "--tensor", "y", "--f32", self.path("no/out"), code=1)
        self.usage("inspect", self.model, "--tensor", "y", says="--f32")
        self.usage("inspect", self.model, "--f32", "y", says="--tensor")
        self.usage("inspect", says="--model")
        self.usage("inspect", self.model, "-m", self.model, says="twice")
        self.one_line(self.cli("inspect", self.path("none"), code=3), "none")
        with open("/dev/full", "wb") as full:
            self.cli("inspect", self.model, stdout=full, code=4)

    def test_broken(self):
        with open(self.model, "rb") as f:
            whole = f.read()
        cut = self.write("cut", whole[:-70])
        self.one_line(self.cli("inspect", cut, code=3), "offset")
        late = self.write("late", whole[:40])
        self.one_line(self.cli("inspect", late, code=3), "offset")

    @unittest.skipUnless(os.path.isdir(MODEL), "no model folder at " + MODEL)
    def test_known_family(self):
        d = json.loads(self.cli("inspect", "-m", MODEL, "--json").stdout)
        self.assertEqual(d["format"], "safetensors")
        self.assertIn(d["family"], d["family_reason"])
        self.assertEqual(sum(d["bytes_by_role"].values()), d["total_bytes"])
        self.assertEqual(sum(d["bytes_by_type"].values()), d["total_bytes"])
        self.assertEqual(sum(t["bytes"] for t in d["tensors"]), d["total_bytes"])
        for role in ("embedding", "mixer", "router", "experts"):
            self.assertGreater(d["bytes_by_role"][role], 0)
        name = next(t["name"] for t in d["tensors"] if t["role"] == "experts")
        shape = next(t["shape"] for t in d["tensors"] if t["name"] == name)
        self.cli("inspect", MODEL, "--tensor", name, "--f32", self.path("f"))
        n = 1
        for dim in shape:
            n *= dim
        self.assertEqual(os.path.getsize(self.path("f")), 4 * n)


if __name__ == "__main__":
    test_cli.main()
