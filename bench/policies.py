#!/usr/bin/env python3
"""Hits of cache policies on traces: of one stream and of eight that are evaluated together.

    bench/policies.py [--bin build/moeflux] [--work FOLDER] [--streams 8]

The real traces are models/pocket-dictionary on questions and answers of its eval.jsonl, forty of them a stream;
the others Qwen3-30B-A3B's shape, six layers of it, with skewed routing (`moeflux synth --help`), each stream with
a seed of its own, and with choices drawn uniformly. What a stream chooses doesn't depend on its company, so streams
are traced one by one and put together afterwards, a token of each a pass. Nothing is timed: the counts are the
same on every machine.
"""
import argparse
import json
import os
import random
import subprocess
import tempfile

import benchlib

SIZES = "5%,10%,20%,30%,37%,40%,50%,60%,80%,100%"


def trace(args, model, prompt, n, seed, path):
    """(header, one dict of layer to ids a token)"""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as f:
        f.write(prompt)
        f.flush()
        subprocess.run([args.bin, "trace", "-m", model, "-f", f.name, "--raw", "--ignore-eos", "-n", str(n), "-s",
                        str(seed), "-o", path, "--no-progress"], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
    tokens = {}
    with open(path, encoding="utf-8") as f:
        header = json.loads(next(f))
        for line in f:
            x = json.loads(line)
            tokens.setdefault(x["pos"], {})[x["layer"]] = x["ids"]
    os.remove(path)
    return header, [tokens[pos] for pos in sorted(tokens)]


def replay(args, header, streams, path):
    """Passes of one token of each stream."""
    n = min(map(len, streams))
    with open(path, "w", encoding="utf-8") as f:
        f.write(json.dumps(header) + "\n")
        for t in range(n):
            for layer in sorted(streams[0][t]):
                for s in streams:
                    f.write(json.dumps({"pass": t + 1, "layer": layer, "pos": t, "ids": s[t][layer]}) + "\n")
    out = json.loads(subprocess.check_output([args.bin, "replay", path, "--cache", SIZES, "--json"]))
    return {"streams": len(streams), "tokens_a_stream": n, **out}


def misses(run, i, key):
    """Experts read a token."""
    return (run["choices"] - run["sweep"][i][key]) / run["tokens"]


def judge(name, one, many):
    rows = []
    print(f"{name}: experts read a token, by one stream and {many['streams']}")
    for i, point in enumerate(one["sweep"]):
        row = {"cached": round(point["cache"] / (one["layers"] * one["experts"]), 3)}
        for key in ("lru_hits", "lfu_hits", "odds_hits", "bound_hits"):
            a, b = misses(one, i, key), misses(many, i, key)
            row[key[:-5]] = {"one": round(a, 2), "many": round(b, 2), "ratio": round(b / max(a, 1e-9), 3)}
        rows.append(row)
        print(f"  {row['cached']:.0%} " + "  ".join(f"{k} {v['one']:.1f} {v['many']:.1f} ({v['ratio']:.2f})"
                                                  for k, v in row.items() if k != "cached"), flush=True)
    return {"trace": name, "experts_read_a_token": rows, "one": one, "many": many}


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    benchlib.add_arguments(ap, "policies.json")
    ap.add_argument("--work", help="folder for a model of 2.5 GB")
    ap.add_argument("--streams", type=int, default=8)
    args = ap.parse_args()
    with open(os.path.join(benchlib.SHIPPED, "eval.jsonl"), encoding="utf-8") as f:
        pairs = [json.loads(line) for line in f]
    runs = []
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        path = os.path.join(work, "trace")
        texts = ["\n".join(x["question"] + "\n" + x["answer"] for x in pairs[s::args.streams][:40])
                 for s in range(args.streams)]
        traced = [trace(args, benchlib.SHIPPED, text, 1, 1, path) for text in texts]
        cases = [("pocket-dictionary", traced[0][0], [t for _, t in traced])]
        model = os.path.join(work, "skewed.gguf")
        subprocess.run([args.bin, "synth", "--arch", "qwen3_moe", "--shape", "30b-a3b", "--quant", "q4_0",
                        "--layers", "6", "--routing", "skewed", "-o", model, "--no-progress"], check=True)
        traced = [trace(args, model, "the house", 300, seed, path) for seed in range(args.streams)]
        header = traced[0][0]
        cases.append(("skewed 30b-a3b, 6 layers", header, [t for _, t in traced]))
        rng = random.Random(1)
        cases.append(("uniform 30b-a3b, 6 layers", header,
                      [[{layer: rng.sample(range(header["experts"]), header["top_k"])
                         for layer in range(header["layers"])} for _ in range(300)] for _ in range(args.streams)]))
        for name, header, streams in cases:
            runs.append(judge(name, replay(args, header, streams[:1], path), replay(args, header, streams, path)))
    benchlib.record(args, "cache hits by policy and size, of one stream and of several, and the bound of all policies",
                    __doc__.strip().split("\n\n")[-1].replace("\n", " "), runs=runs)


if __name__ == "__main__":
    main()
