"""Where it computes: `devices`, `--device`, `--vram`. What needs a device is tools/gpu_evidence.py's.

  test_devices.py [-v]

Environment as for test_cli.py; needs the model. MOEFLUX_METAL: folder with the tests' Metal module, on a
device that isn't there.
"""
import json
import os
import shutil
import subprocess
import unittest

import test_cli
from test_cli import MODEL, Case

PLAN = ["plan", "-m", MODEL]
METAL = os.environ.get("MOEFLUX_METAL") or ""


@unittest.skipUnless(os.path.isdir(MODEL), "no model folder at " + MODEL)
class Devices(Case):
    def listed(self):
        return json.loads(self.cli("devices", "--json").stdout)

    def test_list(self):
        listed = self.listed()
        self.assertEqual(listed["devices"][0], {"device": "cpu"})
        self.assertTrue(len(listed["devices"]) > 1 or listed["why_no_more"].startswith("no CUDA: "))
        self.assertIn(b"cpu\n", self.cli("devices").stdout)

    def test_cpu_is_the_default(self):
        plans = [json.loads(self.cli(*PLAN, "--json", "--memory", "64M", *more).stdout)
                 for more in ((), ("--device", "cpu"))]
        self.assertNotIn("device", plans[0])
        for key in ("slots", "isa", "activations", "chunk"):
            self.assertEqual(plans[0][key], plans[1][key])

    def test_refused(self):
        self.one_line(self.cli(*PLAN, "--device", "tpu", code=2), "unknown device 'tpu'")
        self.one_line(self.cli(*PLAN, "--device", "cuda:x", code=2), "unknown device 'cuda:x'")
        self.one_line(self.cli(*PLAN, "--device", "cuda:99", code=2), "no device 'cuda:99'")
        self.one_line(self.cli(*PLAN, "--device", "metal:99", code=2), "no device 'metal:99'")
        self.one_line(self.cli(*PLAN, "--device", "metals", code=2), "unknown device 'metals'")
        self.one_line(self.cli(*PLAN, "--vram", "1G", code=2), "memory of a device is set, and none is used")

    def test_tiers_refused(self):
        for option, value in (("--host-tier", "mapped"), ("--host-tier", "slots"), ("--tiers", "exclusive")):
            self.one_line(self.cli(*PLAN, option, value, code=2), "tiers of experts are for devices with memory of their own")
        for value in ("copy", "cpu"):
            self.one_line(self.cli(*PLAN, "--miss", value, code=2), "misses are copied, or computed by the CPU, for devices")
        self.assertIn(b"'drop' is not one of auto|copy|cpu", self.cli(*PLAN, "--miss", "drop", code=2).stderr)
        self.cli(*PLAN, "--miss", "auto", "--tiers", "auto", "--host-tier", "auto", "--memory", "64M")

    def test_broken_module(self):
        """One that is there and can't be loaded says why; one that isn't there is nothing special."""
        if "no CUDA: libmoeflux-cuda.so can't be opened;" not in self.listed().get("why_no_more", ""):
            self.skipTest("there is a module")
        with open(self.path("libmoeflux-cuda.so"), "wb") as f:
            f.write(b"no module")
        folder = os.path.dirname(f.name)
        listed = json.loads(self.cli("devices", "--json", env={"LD_LIBRARY_PATH": folder}).stdout)
        self.assertIn("no CUDA: libmoeflux-cuda.so can't be opened: ", listed["why_no_more"])
        shutil.copy(test_cli.BIN, folder)
        beside = subprocess.run([os.path.join(folder, os.path.basename(test_cli.BIN)), "devices", "--json"], capture_output=True)
        if beside.returncode == 0: # else the program needs a library beside itself
            self.assertIn("can't be opened: %s: " % f.name, json.loads(beside.stdout)["why_no_more"])

    def test_without_a_device(self):
        listed = self.listed()
        if len(listed["devices"]) > 1:
            self.skipTest("there is a device")
        self.one_line(self.cli(*PLAN, "--device", "cuda", code=3), "no CUDA: ")
        self.one_line(self.cli(*PLAN, "--device", "metal", code=3), "no Metal: ")
        self.assertIn("no Metal: ", listed["why_no_more"])
        plan = json.loads(self.cli(*PLAN, "--json", "--device", "auto").stdout)
        self.assertNotIn("device", plan)


@unittest.skipUnless(os.path.isdir(MODEL), "no model folder at " + MODEL)
@unittest.skipIf(test_cli.SANITIZED, "the system's Objective-C leaks, and its threads aren't known")
@unittest.skipUnless(METAL, "built without the tests' Metal device")
class Metal(Case):
    """From the command line to the kernels' text, whatever the budget."""

    def metal(self, *args, **more):
        return self.cli(*args, "--device", "metal", env={"LD_LIBRARY_PATH": METAL}, **more)

    def run_with(self, *args):
        got = json.loads(self.metal("run", "-m", MODEL, "-p", "cat", "-n", "3", "--temp", "0", "--no-progress",
                                    "--json", *args).stdout)
        self.assertEqual(got["model"]["isa"], "metal")
        return got

    def test_listed(self):
        listed = json.loads(self.cli("devices", "--json", env={"LD_LIBRARY_PATH": METAL}).stdout)["devices"]
        self.assertIn("metal:0", [d["device"] for d in listed])

    def test_budgets(self):
        plan = json.loads(self.metal(*PLAN, "--json").stdout)
        whole = self.run_with()
        self.assertEqual(whole["experts"]["slots"], whole["experts"]["total"])
        bytes_less = (plan["slots"] - 90) * plan["slot_bytes"]
        got = self.run_with("--vram", str(plan["vram_total_bytes"] - bytes_less), "--chunk", "3")
        self.assertLess(got["experts"]["slots"], whole["experts"]["slots"])
        self.assertEqual(got["text"], whole["text"])
        self.one_line(self.metal("run", "-m", MODEL, "-p", "cat", "--vram", "40M", code=4),
                      "the least that works with these options is --vram ")

    def test_states(self):
        """A conversation goes on in another process without being evaluated again."""
        def turn(*args):
            p = self.metal("chat", "-m", MODEL, "--temp", "0", "-n", "2", "-c", "256", "--jsonl", *args,
                           stdin=b'"cat"\n')
            return json.loads(p.stdout), p.stderr.decode()
        one, _ = turn("--save", self.path("talk"))
        two, err = turn("--load", self.path("talk"))
        self.assertNotIn("anew", err)
        self.assertEqual(two["reused_tokens"], one["context_tokens"])


if __name__ == "__main__":
    test_cli.main()
