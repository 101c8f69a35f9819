#!/usr/bin/env python3
"""Hits of cache policies on traces: a real model's, and synthetic ones with known reuse.

    bench/policies.py [--bin build/moeflux] [--work FOLDER]

The real trace is models/pocket-dictionary on forty questions of its eval.jsonl and 200 tokens beyond; the synthetic
ones are Qwen3-30B-A3B's shape, six layers of it, with uniform and with skewed routing (`moeflux synth --help`).
Nothing is timed: the counts are the same on every machine.
"""
import argparse
import json
import os
import subprocess
import tempfile

import benchlib

SIZES = "5%,10%,20%,30%,40%,50%,60%,80%,100%"


def trace(binary, model, prompt, n, path):
    subprocess.run([binary, "trace", "-m", model, "-p", prompt, "--raw", "--ignore-eos", "-n", str(n), "-s", "1",
                    "-o", path, "--chunk", "1", "--no-progress"], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    benchlib.add_arguments(ap, "policies.json")
    ap.add_argument("--work", help="folder for models of 2 GB")
    args = ap.parse_args()
    with open(os.path.join(benchlib.SHIPPED, "eval.jsonl")) as f:
        questions = "\n".join(json.loads(line)["question"] for line, _ in zip(f, range(40)))
    runs = []
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        path = os.path.join(work, "trace")
        cases = [("pocket-dictionary", benchlib.SHIPPED, questions, 200)]
        for routing in ("uniform", "skewed"):
            model = os.path.join(work, routing + ".gguf")
            subprocess.run([args.bin, "synth", "--arch", "qwen3_moe", "--shape", "30b-a3b", "--quant", "q4_k",
                            "--layers", "6", "--routing", routing, "-o", model, "--no-progress"], check=True)
            cases.append((routing + " 30b-a3b, 6 layers", model, "the house", 250))
        for name, model, prompt, n in cases:
            trace(args.bin, model, prompt, n, path)
            runs.append({"trace": name, **json.loads(subprocess.check_output(
                [args.bin, "replay", path, "--cache", SIZES, "--json"]))})
            print(name, flush=True)
            subprocess.run([args.bin, "replay", path, "--cache", SIZES], check=True)
    benchlib.record(args, "cache hits by policy and size, and the bound of all policies",
                    "moeflux replay on recorded traces, one token at a time", runs=runs)


if __name__ == "__main__":
    main()
