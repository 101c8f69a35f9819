#!/usr/bin/env python3
"""Whether streams should take turns: experts read a token by schedules of eight streams, replayed.

    bench/schedules.py [--bin build/moeflux] [--work FOLDER] [--streams 8]

Traces as in bench/policies.py, of Qwen3-30B-A3B's shape with six layers, skewed and uniform. A schedule evaluates
`together` streams a pass, `tokens` passes long, before the next group has its turn; 8 together is what the server does,
1 with many tokens keeps a stream's own experts cached for a while, and lets the others wait as long. Nothing is
timed: the counts are the same on every machine.
"""
import argparse
import json
import os
import random
import subprocess
import tempfile

import benchlib
import policies

SIZES = "20%,37%,43%,60%"


def passes(streams, together, tokens):
    """Lists of (stream, token), one a pass; all streams come equally far."""
    n = min(map(len, streams)) // tokens * tokens
    for first in range(0, n, tokens):
        for group in range(0, len(streams), together):
            for t in range(first, first + tokens):
                yield [(s, t) for s in range(group, group + together)]


def replay(args, header, streams, together, tokens, path):
    """Experts read a token, by size and policy."""
    with open(path, "w", encoding="utf-8") as f:
        f.write(json.dumps(header) + "\n")
        for number, rows in enumerate(passes(streams, together, tokens)):
            for layer in sorted(streams[0][0]):
                for s, t in rows:
                    f.write(json.dumps({"pass": number + 1, "layer": layer, "pos": t, "ids": streams[s][t][layer]}) + "\n")
    out = json.loads(subprocess.check_output([args.bin, "replay", path, "--cache", SIZES, "--json"]))
    return {"streams": len(streams), "together": together, "tokens": tokens, "read": {
        size: {key: round(policies.misses(out, i, key + "_hits"), 2) for key in ("lru", "odds", "bound")}
        for i, size in enumerate(SIZES.split(","))}}


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    benchlib.add_arguments(ap, "schedules.json")
    ap.add_argument("--work", help="folder for a model of 2.5 GB")
    ap.add_argument("--streams", type=int, default=8)
    ap.add_argument("--tokens", type=int, default=256, help="of each stream")
    args = ap.parse_args()
    runs = []
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        model, path = os.path.join(work, "skewed.gguf"), os.path.join(work, "trace")
        subprocess.run([args.bin, "synth", "--arch", "qwen3_moe", "--shape", "30b-a3b", "--quant", "q4_0", "--layers", "6",
                        "--routing", "skewed", "-o", model, "--no-progress"], check=True)
        traced = [policies.trace(args, model, "the house", args.tokens, seed, path) for seed in range(args.streams)]
        header = traced[0][0]
        rng = random.Random(1)
        cases = {"skewed": [t for _, t in traced], "uniform": [[
            {layer: rng.sample(range(header["experts"]), header["top_k"]) for layer in range(header["layers"])}
            for _ in range(args.tokens)] for _ in range(args.streams)]}
        for name, streams in cases.items():
            one = replay(args, header, streams[:1], 1, 1, path)
            rows = [replay(args, header, streams, m, k, path) for m, k in
                    [(args.streams, 1), (4, 8), (4, 32), (2, 8), (2, 32), (1, 1), (1, 4), (1, 8), (1, 16), (1, 32), (1, 64)]]
            runs.append({"routing": name, "one": one, "schedules": rows})
            print(name, "one stream:", {size: x["odds"] for size, x in one["read"].items()})
            for r in rows:
                print("  %d together, %2d tokens: " % (r["together"], r["tokens"]) + "  ".join(
                    "%s %.1f (%.2f; bound %.1f)" % (size, x["odds"], x["odds"] / one["read"][size]["odds"], x["bound"])
                    for size, x in r["read"].items()), flush=True)
    benchlib.record(args, "experts read a token by schedules of several streams",
                    __doc__.strip().split("\n\n")[-1].replace("\n", " "), runs=runs)


if __name__ == "__main__":
    main()
