#!/usr/bin/env python3
"""What a device's backend computes, held against what others and the CPU compute. Runs where a device
is; needs numpy, the program, and the outside evidence.

  gpu_evidence.py BUILD ORACLE -o REPORT.json [--device cuda|metal] [--models DIR]

Every model of ORACLE/hf: logits and hidden states against transformers', greedy choices with forced
tokens; the same bytes for other chunks of the prompt and for budgets of device memory. Every GGUF
model (unpacked on the way): against the CPU in float32. Exit status 1 if anything is off.
"""
import argparse
import glob
import json
import lzma
import os
import subprocess
import sys
import tempfile

import numpy as np

SPREAD = 2e-4   # of the reference's standard deviation, docs/numerics.md
AGAINST_CPU = 2e-4


def read_tensors(path):
    with open(path, "rb") as f:
        n = int.from_bytes(f.read(8), "little")
        head, data = json.loads(f.read(n)), f.read()
    types = {"I32": np.int32, "F32": np.float32}
    return {k: np.frombuffer(data[v["data_offsets"][0]:v["data_offsets"][1]], types[v["dtype"]])
            .reshape(v["shape"]) for k, v in head.items() if k != "__metadata__"}


class Runner:
    def __init__(self, program, folder, device):
        self.program, self.folder, self.device = program, folder, device

    def run(self, *args):
        out = subprocess.run([self.program, *args], capture_output=True, text=True, timeout=300)
        if out.returncode != 0:
            raise RuntimeError(f"{' '.join(args[:4])}: exit {out.returncode}: {out.stderr.strip()[-300:]}")
        return out.stdout

    def logits(self, model, ids, hidden, *args):
        id_file, out = os.path.join(self.folder, "ids"), os.path.join(self.folder, "out")
        with open(id_file, "w", encoding="ascii") as f:
            f.write(" ".join(str(i) for i in ids))
        more = ["--hidden", out + ".hidden"] if hidden else []
        for path in (out, out + ".hidden"):
            if os.path.exists(path):
                os.unlink(path)
        self.run("logits", "-m", model, "--ids", id_file, "-o", out, "--no-progress", *more, *args)
        got = np.fromfile(out, np.float32).reshape(len(ids), -1)
        return got, (np.fromfile(out + ".hidden", np.float32) if hidden else None)

    def plan(self, model, *args):
        return json.loads(self.run("plan", "-m", model, "--json", "--device", self.device, *args))


def off(got, want):
    error = np.abs(got.astype(np.float64) - want).max() / want.astype(np.float64).std()
    return float(error) if np.isfinite(error) else float("inf")


def identity(run, model, ids, whole):
    """Other chunks and budgets: bytes must be the same. Returns the variants that were tried."""
    tried, args = [], ["-c", "128"]
    for chunk in ("1", "7", "20", "33"):
        tried.append((f"chunk {chunk}", [*args, "--chunk", chunk]))
    plan = run.plan(model, *args, "--chunk", "16")
    floor = plan["vram_floor_bytes"]
    for more in (0, 3):
        vram = floor + more * plan["slot_bytes"]
        tried.append((f"{more} slots above the least", [*args, "--chunk", "16", "--vram", str(vram)]))
    tried.append(("least memory", [*args, "--chunk", "9", "--vram", str(floor), "--memory",
                                   str(plan["floor_bytes"] + (8 << 20))]))
    if run.device == "cuda": # tiers below the device; where the host has a slot for each nothing is exclusive
        few = str(floor + 3 * plan["slot_bytes"])
        tried.append(("experts in the files' mapping", [*args, "--chunk", "16", "--vram", few, "--host-tier", "mapped"]))
        for tiers in ("inclusive", "exclusive"):
            least = run.plan(model, *args, "--chunk", "9", "--vram", few)["floor_bytes"]
            tried.append((f"{tiers} tiers", [*args, "--chunk", "9", "--vram", few, "--tiers", tiers, "--memory",
                                             str(least + (8 << 20))]))
    differ = []
    for name, extra in tried:
        got, _ = run.logits(model, ids, False, "--device", run.device, *extra)
        if got.tobytes() != whole.tobytes():
            differ.append(f"{name}: off by {np.abs(got - whole).max():.3g}")
    return [name for name, _ in tried], differ


def check_hf(run, folder, result):
    want = read_tensors(os.path.join(folder, "expected.safetensors"))
    ids = want["input_ids"]
    whole, hidden = run.logits(folder, ids, True, "--device", run.device, "-c", "128")
    result["logits_off"] = off(whole, want["logits"])
    rows = hidden.reshape(want["hidden_states"].shape)
    result["hidden_off"] = max(off(a, b) for a, b in zip(rows, want["hidden_states"]))
    greedy = want["greedy_ids"]
    got, _ = run.logits(folder, greedy, False, "--device", run.device, "-c", "128", "--chunk", "1")
    half = len(greedy) // 2
    wrong = [i for i in range(half, len(greedy))
             if got[i - 1].max() - got[i - 1][greedy[i]] >= 1e-3]
    result["greedy_wrong"] = len(wrong)
    result["identity_tried"], result["identity_differs"] = identity(run, folder, ids, whole)
    return (result["logits_off"] <= SPREAD and result["hidden_off"] <= SPREAD and not wrong and
            not result["identity_differs"])


def check_gguf(run, path, result):
    ids = [(i * 37 + 11) % 120 for i in range(48)]
    cpu, _ = run.logits(path, ids, False, "--activations", "f32")
    whole, _ = run.logits(path, ids, False, "--device", run.device, "-c", "64")
    result["against_cpu"] = off(whole, cpu)
    got, _ = run.logits(path, ids, False, "--device", run.device, "-c", "64", "--chunk", "5")
    result["identity_differs"] = [] if got.tobytes() == whole.tobytes() else ["chunk 5"]
    return result["against_cpu"] <= AGAINST_CPU and not result["identity_differs"]


def one(report, kind, name, check, *args):
    result = {"kind": kind, "name": name}
    try:
        result["passed"] = bool(check(*args, result))
    except (RuntimeError, subprocess.TimeoutExpired, OSError, ValueError, KeyError) as e:
        unsupported = "no family" in str(e) or "not supported" in str(e) or "unknown arch" in str(e)
        result["passed"], result["error"] = False, str(e)
        if unsupported:
            result["passed"], result["skipped"] = True, True
    print(("ok    " if result["passed"] else "FAIL  ") + json.dumps(result)[:400], flush=True)
    report.append(result)


def text_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("oracle")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--models", default="")
    parser.add_argument("--commit", default="")
    parser.add_argument("--device", default="cuda", choices=("cuda", "metal"))
    args = parser.parse_args()
    program = os.path.join(args.build, "moeflux")
    with tempfile.TemporaryDirectory() as folder:
        run, report = Runner(program, folder, args.device), []
        devices = json.loads(run.run("devices", "--json"))
        print(devices)
        if not any(d["device"].startswith(args.device) for d in devices["devices"]):
            sys.exit("there is no device: " + devices.get("why_no_more", ""))
        for path in sorted(glob.glob(os.path.join(args.oracle, "hf", "*", "expected.safetensors"))):
            model = os.path.dirname(path)
            one(report, "hf", os.path.basename(model), check_hf, run, model)
        for path in sorted(glob.glob(os.path.join(args.models, "*", "expected.safetensors"))):
            model = os.path.dirname(path)
            one(report, "mlx", os.path.basename(model), check_hf, run, model)
        for path in sorted(glob.glob(os.path.join(args.oracle, "gguf", "*", "*.gguf.xz"))):
            name = os.path.basename(path)[:-3]
            unpacked = os.path.join(folder, name)
            with lzma.open(path) as f, open(unpacked, "wb") as g:
                g.write(f.read())
            one(report, "gguf", name, check_gguf, run, unpacked)
            os.unlink(unpacked)
    if args.device == "cuda":
        facts = {"gpu": text_of("nvidia-smi", "--query-gpu=name,driver_version,memory.total",
                                "--format=csv,noheader"),
                 "nvcc": text_of("nvcc", "--version").splitlines()[-1:]}
    else:
        facts = {"cpu": text_of("sysctl", "-n", "machdep.cpu.brand_string"),
                 "system": text_of("sw_vers").splitlines(),
                 "compiler": text_of("cc", "--version").splitlines()[:1]}
    facts.update(commit=args.commit, version=run.run("--version").strip(), devices=devices)
    with open(args.output, "w", encoding="utf-8") as f:
        json.dump({"facts": facts, "results": report}, f, indent=1)
        f.write("\n")
    failed = [r["name"] for r in report if not r["passed"]]
    print(f"{len(report)} models, {sum('skipped' in r for r in report)} of families that aren't known; "
          f"failed: {failed}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
