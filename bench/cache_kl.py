#!/usr/bin/env python3
"""What a KV cache in f16 or q8_0 costs. Needs numpy.

    bench/cache_kl.py [--bin build/moeflux] [--tokens 4096]

Evaluates the same tokens (as activations_kl.py does) with the shipped model, float activations, and
takes over all positions mean KL(f32 cache || that type) in nats, softmax over the whole vocabulary in
double precision: for keys and values, and for each alone.
"""
import argparse
import os
import shutil
import tempfile

import activations_kl
import benchlib

TYPES = [("f16", "f16"), ("q8_0", "q8_0"), ("q8_0", "f32"), ("f32", "q8_0")]


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    benchlib.add_arguments(ap, "cache-kl.json")
    ap.add_argument("--eval", default=os.path.join(benchlib.SHIPPED, "eval.jsonl"))
    ap.add_argument("--tokens", type=int, default=4 * activations_kl.SEQUENCE)
    args = ap.parse_args()
    args.float_model = benchlib.SHIPPED # whose tokenizer it is
    args.tmp = tempfile.mkdtemp(prefix="cache-kl-")
    runs = []
    try:
        sequences = activations_kl.read_ids(args, args.tokens)
        exact = activations_kl.log_softmax(args, benchlib.SHIPPED, sequences, "f32")
        for keys, values in TYPES:
            got = activations_kl.log_softmax(args, benchlib.SHIPPED, sequences, "f32", "-ctk", keys,
                                             "-ctv", values)
            runs.append({"keys": keys, "values": values, **activations_kl.compare(exact, got)})
            print(runs[-1], flush=True)
    finally:
        shutil.rmtree(args.tmp)
    benchlib.record(args, "KL divergence of KV caches in f16 and q8_0, nats",
                    f"{args.tokens} tokens of eval.jsonl in ChatML, in sequences of "
                    f"{activations_kl.SEQUENCE}, float activations; softmax over the whole vocabulary",
                    runs=runs)


if __name__ == "__main__":
    main()
