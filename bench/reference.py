#!/usr/bin/env python3
"""How far logits are from other implementations: what the reference tests print, recorded.

    bench/reference.py [--bin build/moeflux] [--tests build/tests]

The build must know the oracle (-DMF_ORACLE_DIR=...), or there is nothing to record.
"""
import argparse
import os
import re
import subprocess

import benchlib


def output_of(args, name):
    done = subprocess.run([os.path.join(args.tests, name)], capture_output=True, text=True,
                          check=False)
    if done.returncode:
        raise SystemExit(f"{name}: exit {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return done.stdout


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    benchlib.add_arguments(ap, "reference.json")
    ap.add_argument("--tests", default=os.path.join(benchlib.TOP, "build", "tests"))
    args = ap.parse_args()

    text = output_of(args, "test_reference")
    spread = [{"family": family, "weights": weights, "kernels": level, "error_of_spread": float(error)}
              for family, weights, level, error in re.findall(
                  r"^  (\w+), (.+), kernels (\w+)\n  logits off by ([\d.e+-]+)", text, re.M)]
    gguf, name = [], ""
    for line in output_of(args, "test_reference_gguf").splitlines():
        found = re.match(r"  (f32|q8) activations: NMSE ([\d.e+-]+)", line)
        if found:
            gguf.append({"model": name, "activations": found.group(1), "nmse": float(found.group(2))})
        elif re.match(r"[\w.-]+$", line):
            name = line
    if not spread or not gguf:
        raise SystemExit("nothing compared: is there an oracle?")
    print(f"safetensors: at most {max(r['error_of_spread'] for r in spread):.2g} of the spread")
    for mode in ("f32", "q8"):
        print(f"gguf {mode}: NMSE at most {max(r['nmse'] for r in gguf if r['activations'] == mode):.2g}")
    benchlib.record(args, "logits against other implementations",
                    "safetensors: largest error over the standard deviation of the reference's logits "
                    "(transformers, mlx-lm), float activations; gguf: normalised mean square error "
                    "against llama.cpp", safetensors=spread, gguf=gguf)


if __name__ == "__main__":
    main()
