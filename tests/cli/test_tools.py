"""The commands around models: convert, imatrix, synth and what all commands share.

  test_tools.py [-v] [Tools]

Environment as for test_cli.py.
"""
import json
import os
import pty
import struct
import subprocess
import unittest

import test_cli
from test_cli import BIN, COMMANDS, MODEL, SANITIZED, TIMEOUT_S, Case, clean_env
from test_inspect import gguf


def n_threads(pid):
    try:
        return len(os.listdir("/proc/%d/task" % pid))
    except OSError:
        return 0


class Tools(Case):
    def most_threads(self, *args):
        """Runs a command; the most threads it was seen to have."""
        with open(self.path("stdout"), "wb") as out:
            p = subprocess.Popen([BIN, *args], stdout=out, stderr=subprocess.DEVNULL, env=clean_env())
        most = 0
        while p.poll() is None:
            most = max(most, n_threads(p.pid))
        self.assertEqual(p.returncode, 0)
        with open(self.path("stdout"), "rb") as out:
            return most, out.read()

    def test_version_everywhere(self):
        want = self.cli("--version").stdout
        for command in COMMANDS:
            self.assertEqual(self.cli(command, "--version").stdout, want)

    def test_threads_everywhere(self):
        for command in COMMANDS:
            self.assertIn(b"whole number from 1", self.cli(command, "-t", "0", code=2).stderr)
        for args in (("families", "-t", "3"), ("completion", "bash", "--threads", "3")):
            self.assertEqual(self.cli(*args).stdout, self.cli(*args[:-2]).stdout)

    # ---- pack ----

    def test_pack(self):
        self.usage("pack", "a", says="OUT is missing")
        self.usage("pack", says="MODEL is missing")
        source, out = self.path("m.gguf"), self.path("out")
        self.synth(source)
        self.cli("pack", source, out, "--verify", "--no-progress")
        self.assertEqual(sorted(os.listdir(out)), ["metadata.gguf", "model.mfpack"])
        with open(self.path("ids"), "w", encoding="ascii") as f:
            f.write("1 5 9 200 7")
        for model, name in ((source, "a"), (out, "b")):
            self.cli("logits", "-m", model, "--ids", self.path("ids"), "-o", self.path(name), "--no-progress")
        with open(self.path("a"), "rb") as a, open(self.path("b"), "rb") as b:
            self.assertEqual(a.read(), b.read())
        self.assertEqual(self.cli("tokenize", "-m", source, "-p", "a word").stdout,
                         self.cli("tokenize", "-m", out, "-p", "a word").stdout)
        self.cli("pack", "--verify", out, "--no-progress")
        weights = os.path.join(out, "model.mfpack")
        with open(weights, "r+b") as f:
            f.seek(-1, os.SEEK_END)
            f.truncate()
        p = self.cli("pack", "--verify", out, "--no-progress", code=3)
        self.assertIn(b"model.mfpack: offset 24", p.stderr)
        self.assertIn(b"exists already", self.cli("pack", source, out, "--no-progress", code=1).stderr)

    # ---- synth ----

    def synth(self, out, *args, shape="tiny", code=0):
        return self.cli("synth", "--arch", "qwen3_moe", "--shape", shape, "--quant", "q4_0", "-o", out,
                        "--no-progress", *args, code=code)

    def test_synth_threads(self):
        files = []
        for n in ("1", "4"):
            path = self.path("t" + n + ".gguf")
            most, _ = self.most_threads("synth", "--arch", "qwen3_moe", "--shape", "tiny", "--quant", "q8_0", "-o", path,
                                        "-t", n, "--no-progress")
            self.assertLessEqual(most, int(n) + SANITIZED) # ThreadSanitizer has one of its own
            self.assertGreaterEqual(most, 1 if n == "1" else 2)
            with open(path, "rb") as f:
                files.append(f.read())
        self.assertEqual(files[0], files[1])

    def test_synth_names(self):
        for args, says in ((("--arch", "gemma", "--shape", "tiny"), "deepseek_v3"),
                           (("--arch", "gpt_oss", "--shape", "7b"), "20b, 120b"),
                           (("--shape", "gpt-oss-7b"), "gpt-oss-120b"),
                           (("--arch", "qwen3_moe", "--shape", "tiny", "--layers", "77"), "4")):
            self.usage("synth", *args, "--quant", "q4_0", "-o", self.path("x"), says=says)
        self.usage("synth", "--arch", "qwen3_moe", "--shape", "tiny", "--quant", "q9", "-o", self.path("x"), says="mxfp4")
        self.usage("synth", "--arch", "qwen3_moe", "--shape", "tiny", "--quant", "q4_0", "-o", "-", says="-o -")
        self.assertEqual(os.listdir(self.dir), [])
        # A whole name, in any case.
        self.synth(self.path("a.gguf"))
        self.cli("synth", "--shape", "QWEN3-MoE-Tiny", "--quant", "Q4_0", "-o", self.path("b.gguf"), "--no-progress")
        with open(self.path("a.gguf"), "rb") as a, open(self.path("b.gguf"), "rb") as b:
            self.assertEqual(a.read(), b.read())
        self.cli("synth", "--shape", "gpt-oss-20b", "--quant", "MXFP4", "--layers", "2", "-o", self.path("no/c.gguf"), code=(1, 3))
        self.usage("synth", "--shape", "gpt-oss-20b", "--quant", "mxfp4", "--layers", "25", "-o", self.path("c"), says="24")

    # ---- inspect ----

    def test_tensor_as_json(self):
        model = self.write("m.gguf", gguf([("x", [1.0, -2.5])], general_architecture="?"))
        p = self.cli("inspect", model, "--tensor", "x", "--f32", self.path("out"), "--json")
        d = json.loads(p.stdout)
        self.assertEqual((d["tensor"], d["type"], d["shape"], d["elements"], d["dtype"]), ("x", "f32", [2], 2, "float32"))
        p = self.cli("inspect", model, "--tensor", "x", "--f32", "-", "-t", "3")
        self.assertEqual(p.stdout, struct.pack("<2f", 1.0, -2.5))
        self.usage("inspect", model, "--tensor", "x", "--f32", "-", "--json", says="--json")
        self.assertFalse(os.path.exists("-"))

    def test_no_numbers_on_a_terminal(self):
        model = self.write("m.gguf", gguf([("x", [1.0])], general_architecture="?"))
        master, slave = pty.openpty()
        try:
            p = subprocess.run([BIN, "inspect", model, "--tensor", "x", "--f32", "-"], stdout=slave, stderr=subprocess.PIPE,
                               timeout=TIMEOUT_S, env=clean_env())
            self.assertEqual(p.returncode, 2)
            self.assertIn(b"terminal", p.stderr)
        finally:
            os.close(master)
            os.close(slave)

    def test_tensor_threads(self):
        self.synth(self.path("m.gguf"), "--layers", "1")
        name = "token_embd.weight"
        outs = []
        for n in ("1", "4"):
            most, out = self.most_threads("inspect", self.path("m.gguf"), "--tensor", name, "--f32", "/dev/stdout", "-t", n)
            outs.append(out)
            self.assertLessEqual(most, int(n) + SANITIZED)
            self.assertGreaterEqual(most, 1 if n == "1" else 2)
        self.assertEqual(outs[0], outs[1])
        self.assertEqual(len(outs[0]), 4 * 16384 * 1024)

    def test_later_shard(self):
        def text(s):
            return struct.pack("<Q", len(s)) + s
        def shard(no):
            head = b"GGUF" + struct.pack("<IQQ", 3, 0, 3)
            head += text(b"general.architecture") + struct.pack("<I", 8) + text(b"?")
            head += text(b"split.no") + struct.pack("<IH", 2, no) + text(b"split.count") + struct.pack("<IH", 2, 2)
            return head + b"\0" * (-len(head) % 32)
        self.write("m-00001-of-00002.gguf", shard(0))
        late = self.write("m-00002-of-00002.gguf", shard(1))
        for command in ("inspect", "plan"):
            p = self.cli(command, "-m", late, code=3)
            self.one_line(p, "open the first")
            self.assertIn(b"m-00001-of-00002.gguf", p.stderr)


@unittest.skipUnless(os.path.isdir(MODEL), "no model folder at " + MODEL)
class WithModel(Case):
    most_threads = Tools.most_threads

    def test_convert_any_case_and_threads(self):
        trees = []
        for quant, n in (("mlx6", "1"), ("MLX6", "3")):
            out = self.path(quant)
            most, _ = self.most_threads("convert", MODEL, out, "--quant", quant, "-t", n, "--no-progress")
            self.assertLessEqual(most, int(n) + SANITIZED)
            self.assertGreaterEqual(most, 1 if n == "1" else 2)
            with open(os.path.join(out, "model.safetensors"), "rb") as f:
                trees.append(f.read())
        self.assertEqual(trees[0], trees[1])

    def test_gguf_there_and_back(self):
        """Into GGUF and from it into an MLX folder: config.json, tokenizer and template come from the metadata."""
        self.cli("convert", MODEL, self.path("m.gguf"), "--quant", "Q8_0", "--no-progress")
        self.cli("convert", self.path("m.gguf"), self.path("mlx"), "--quant", "mlx8", "--no-progress")
        for text in ("a b  c\n\n1234 it's", "Stra\u00dfe \u4f60\u597d <|im_end|> \U0001f600"):
            want = self.cli("tokenize", "-m", MODEL, "-p", text).stdout
            self.assertEqual(self.cli("tokenize", "-m", self.path("mlx"), "-p", text).stdout, want)
        variables = json.dumps({"messages": [{"role": "user", "content": "hi"}], "add_generation_prompt": True})
        want = self.cli("template", "-m", MODEL, stdin=variables.encode()).stdout
        for model in ("m.gguf", "mlx"):
            self.assertEqual(self.cli("template", "-m", self.path(model), "-t", "2", stdin=variables.encode()).stdout, want)
        args = ("-p", "What is a lighthouse?", "--temp", "0", "--activations", "f32")
        self.assertEqual(self.cli("run", "-m", self.path("mlx"), *args).stdout,
                         self.cli("run", "-m", self.path("m.gguf"), *args).stdout)

    def test_logits_to_standard_output(self):
        ids = self.write("ids", "1 2 3")
        self.cli("logits", "-m", MODEL, "--ids", ids, "-o", self.path("out"), "--no-progress")
        p = self.cli("logits", "-m", MODEL, "--ids", ids, "-o", "-", "--no-progress")
        with open(self.path("out"), "rb") as f:
            self.assertEqual(f.read(), p.stdout)
        self.usage("logits", "-m", MODEL, "--ids", ids, "-o", "-", "--json", says="--json")
        self.usage("logits", "-m", MODEL, "--ids", ids, "-o", self.path("x"), "--hidden", "-", says="--hidden -")

    def test_imatrix_without_a_name(self):
        text = self.write("text", "A lighthouse is a tower. " * 8)
        p = subprocess.run([BIN, "imatrix", "-m", MODEL, "-f", text, "--no-progress", "-c", "64"], cwd=self.dir,
                           capture_output=True, timeout=TIMEOUT_S, env=clean_env())
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertIn(b"wrote imatrix.gguf", p.stderr)
        with open(self.path("imatrix.gguf"), "rb") as f:
            self.assertEqual(f.read(4), b"GGUF")
        self.usage("imatrix", "-m", MODEL, "-f", text, "-o", "-", says="-o -")

    def test_unknown_command_in_a_piped_chat(self):
        question = "what does stump mean"
        args = ("chat", "-m", MODEL, "--temp", "0", "--no-progress")
        p = self.cli(*args, stdin=("/frobnicate now\n%s\n" % question).encode(), code=1)
        self.assertIn(b"no command /frobnicate", p.stderr)
        self.assertEqual(p.stdout, self.cli(*args, stdin=question.encode()).stdout)
        self.assertIn(b"tree", p.stdout)


if __name__ == "__main__":
    test_cli.main()
