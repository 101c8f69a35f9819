#!/usr/bin/env python3
"""What a prompt reads under streaming, by the length of its chunks, the cache and the policy.

    bench/prompt_reads.py [--bin build/moeflux]

Twelve layers of 128 experts, top-8, uniform routing (the worst case), replayed with `moeflux replay`: chunks are
passes. Figures are in bytes of all experts; of the whole 30B-A3B in Q4_K these are 16.3 GB. The scratch of a chunk
is counted as what it is there, cache that isn't: 0.24 MB a token (7.5 % of the experts for 2048 tokens in a model of
so few layers would be wrong; it is taken from the whole model's). Nothing is timed.
"""
import argparse
import json
import os
import random
import subprocess
import tempfile

import benchlib

LAYERS, EXPERTS, TOP_K = 12, 128, 8
CACHED = {"4 GB": 0.17, "8 GB": 0.42, "12 GB": 0.66} # with chunks of 512
CHUNKS = (64, 128, 256, 512, 1024, 2048)
PROMPTS = (256, 512, 2048, 8192)
TOKEN_SCRATCH = 0.24e6 / 16.3e9


def write(path, n_tokens, chunk, rng):
    header = {"schema": 1, "model": "uniform", "layers": LAYERS, "experts": EXPERTS, "top_k": TOP_K, "expert_bytes": 1}
    with open(path, "w", encoding="utf-8") as f:
        f.write(json.dumps(header) + "\n")
        for at in range(0, n_tokens, chunk):
            for layer in range(LAYERS):
                for pos in range(at, min(at + chunk, n_tokens)):
                    f.write(json.dumps({"pass": at // chunk + 1, "layer": layer, "pos": pos,
                                        "ids": rng.sample(range(EXPERTS), TOP_K)}) + "\n")


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    benchlib.add_arguments(ap, "prompt-reads.json")
    args = ap.parse_args()
    rng, rows = random.Random(1), []
    with tempfile.TemporaryDirectory() as work:
        path = os.path.join(work, "trace")
        for n in PROMPTS:
            for chunk in [c for c in CHUNKS if c <= n]:
                write(path, n, chunk, rng)
                for budget, part in CACHED.items():
                    slots = int((part + (512 - chunk) * TOKEN_SCRATCH) * LAYERS * EXPERTS)
                    out = json.loads(subprocess.check_output([args.bin, "replay", path, "--cache", str(slots), "--json"]))
                    point = out["sweep"][0]
                    row = {"prompt": n, "chunk": chunk, "budget": budget,
                           **{p: round((out["choices"] - point[p + "_hits"]) / (LAYERS * EXPERTS), 3)
                              for p in ("lru", "odds", "bound")}}
                    rows.append(row)
                    print(row, flush=True)
    benchlib.record(args, "what a prompt reads, in bytes of all experts", __doc__.strip().split("\n\n")[-1].replace("\n", " "),
                    rows=rows)


if __name__ == "__main__":
    main()
