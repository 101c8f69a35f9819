#!/usr/bin/env python3
"""What the ops of a decoded token cost at a published shape, the Gated DeltaNet's among them.

    bench/op_shares.py [--bin build/moeflux] [--shapes qwen3_5_moe/35b-a3b/40]

Makes two models of each shape with random weights in --dir, of 4 and of 8 layers (one layer in four
has attention, the others a Gated DeltaNet), and decodes with both, in turns, with `bench --ops`.
What the second takes more is four layers; so the time of an op in the whole model is that of the
first and as many times the difference as there are layers left."""
import argparse
import os
import statistics
import subprocess

import benchlib

CUTS = (4, 8)


def model_of(args, arch, shape, n_layers):
    path = os.path.join(args.dir, f"{shape}-{n_layers}-{args.quant}.gguf")
    if not os.path.exists(path):
        os.makedirs(args.dir, exist_ok=True)
        subprocess.run([args.bin, "synth", "--arch", arch, "--shape", shape, "--quant", args.quant, "--layers",
                        str(n_layers), "-o", path, "--no-progress"], check=True)
    return path


def decode(args, path):
    """ns a token by op, and of whole tokens."""
    row = benchlib.run_json([args.bin, "bench", "-m", path, "-p", "0", "-n", str(args.gen), "-r", "1", "-t",
                             str(args.threads), "--ops", "-o", "json", "--no-progress"])[0]
    return {**{op["op"]: op["ns"] / args.gen for op in row["ops"]}, "all": row["ops_total_ns"] / args.gen}


def measure(args, name):
    arch, shape, n_layers = name.split("/")
    paths = [model_of(args, arch, shape, n) for n in CUTS]
    runs = [[decode(args, path) for path in paths] for _ in range(args.runs)]
    more = (int(n_layers) - CUTS[0]) / (CUTS[1] - CUTS[0])
    whole = {}
    for op in runs[0][0]:
        few, many = (statistics.median(run[i].get(op, 0) for run in runs) for i in range(2))
        whole[op] = few + more * (many - few)
    result = {"shape": name, "quant": args.quant, "token_ms": round(whole["all"] / 1e6, 3),
              "share": {op: round(ns / whole["all"], 4) for op, ns in whole.items() if op != "all"},
              "runs_ns": [{str(n): run[i] for i, n in enumerate(CUTS)} for run in runs]}
    print(result["shape"], result["token_ms"], "ms", result["share"], flush=True)
    for path in paths if not args.keep else ():
        os.unlink(path)
    return result


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    benchlib.add_arguments(ap, "op-shares.json")
    ap.add_argument("--shapes", default="qwen3_5_moe/35b-a3b/40", help="ARCH/SHAPE/LAYERS,...")
    ap.add_argument("--quant", default="q4_k")
    ap.add_argument("--gen", type=int, default=64)
    ap.add_argument("--runs", type=int, default=3)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--dir", default="/tmp/bench", help="where models are made")
    ap.add_argument("--keep", action="store_true", help="keep the models that were made")
    args = ap.parse_args()
    results = [measure(args, name) for name in args.shapes.split(",")]
    benchlib.record(args, "What the ops of a decoded token cost",
                    f"medians of {args.runs} runs of {args.gen} tokens on {args.threads} threads with models of 4 and 8 layers, "
                    "in turns; shares of the whole model's token, as many layers added as it has", results=results)


if __name__ == "__main__":
    main()
