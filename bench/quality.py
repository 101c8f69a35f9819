#!/usr/bin/env python3
"""Exact answers to a model's eval.jsonl: float and quantised weights, float and 8-bit activations.

    bench/quality.py FLOAT_MODEL [--bin build/moeflux] [--eval FILE]

FLOAT_MODEL is the bfloat16 checkpoint that models/pocket-dictionary was converted from. Hugging Face
transformers' counts on the same file are in results/pocket-dictionary-hf.json (tools/hf_eval.py).
"""
import argparse
import concurrent.futures
import os

import benchlib


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    benchlib.add_arguments(ap, "quality.json")
    ap.add_argument("float_model")
    ap.add_argument("--eval", default=os.path.join(benchlib.SHIPPED, "eval.jsonl"))
    ap.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    args = ap.parse_args()

    cases = [("bf16", args.float_model, ["--activations", "f32"]),
             ("shipped", benchlib.SHIPPED, ["--activations", "f32"]),
             ("shipped", benchlib.SHIPPED, ["--activations", "q8"]),
             ("shipped", benchlib.SHIPPED, []),
             ("shipped", benchlib.SHIPPED, ["--memory", "18M", "-c", "512"])]

    def run(case):
        name, model, options = case
        command = [args.bin, "eval", "-m", model, args.eval, "--json", "--no-progress", "-t", "1"]
        result = {"weights": name, "options": " ".join(options),
                  **benchlib.run_json(command + options)}
        print(result, flush=True)
        return result

    # The answers don't depend on the number of threads, so: one each, side by side.
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        runs = list(pool.map(run, cases))
    benchlib.record(args, "exact answers to eval.jsonl",
                    "greedy, chat template, an answer counts if its bytes equal the expected ones",
                    eval=os.path.basename(args.eval), runs=runs)


if __name__ == "__main__":
    main()
