"""Where it computes: `devices`, `--device`, `--vram`. What needs a device is tools/gpu_evidence.py's.

  test_devices.py [-v]

Environment as for test_cli.py; needs the model.
"""
import json
import os
import unittest

import test_cli
from test_cli import MODEL, Case

PLAN = ["plan", "-m", MODEL]


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

    def test_without_a_device(self):
        listed = self.listed()
        if len(listed["devices"]) > 1:
            self.skipTest("there is a device")
        self.one_line(self.cli(*PLAN, "--device", "cuda", code=3), "no CUDA: ")
        self.one_line(self.cli(*PLAN, "--device", "metal", code=3), "no Metal: ")
        self.assertIn("no Metal: ", listed["why_no_more"])
        plan = json.loads(self.cli(*PLAN, "--json", "--device", "auto").stdout)
        self.assertNotIn("device", plan)


if __name__ == "__main__":
    test_cli.main()
