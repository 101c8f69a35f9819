#!/usr/bin/env python3
"""Reading ahead by the next layer's router, on and off in turns.

    bench/hints.py --budget 19M models/pocket-dictionary --budget 4G MODEL.gguf [--bin build/moeflux] [--pairs 5]

Decoding under a budget past the page cache, another prompt each time; both ways see the same prompt.
For each way: the time of a token and its parts, what was read, how many guesses were right. The ratio
is the median over the pairs.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile

import benchlib

PROMPTS = ["What is a lighthouse?", "What is an anchor?", "Explain the word harvest.", "What does a miller do?",
           "What is the difference between a lake and a river?", "What is a compass for?", "What is winter?"]
KEYS = ("wall_ns", "arithmetic_ns", "stall_ns", "other_ns", "reading_ns", "bytes_read", "hint_bytes", "hints_useful",
        "hints_late", "hints_wasted", "hits", "misses")


def run(args, model, budget, prompt, hints):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "stats")
        subprocess.run([args.bin, "run", "-m", model, "-p", prompt, "--memory", budget, "-c", "512", "-n",
                        str(args.tokens + 1), "--temp", "0", "--ignore-eos", "--no-progress", "--direct-io", "on",
                        "--hints", hints, "--stats", path], check=True, capture_output=True)
        with open(path, encoding="utf-8") as f:
            lines = [json.loads(line) for line in f]
    decode = [x for x in lines[1:] if x["tokens"] == 1][-args.tokens:]
    return {"reader": lines[0]["reader"], **{k: round(statistics.fmean(x[k] for x in decode), 1) for k in KEYS}}


def measure(args, model, budget):
    runs = {"off": [], "on": []}
    for i in range(args.pairs):
        for way in (("off", "on") if i % 2 else ("on", "off")):
            runs[way].append(run(args, model, budget, PROMPTS[i % len(PROMPTS)], way))
    on = runs["on"]
    right = sum(x["hints_useful"] + x["hints_late"] for x in on)
    out = {"model": benchlib.model_name(model), "budget": budget,
           "token_ms": {way: round(statistics.median(x["wall_ns"] for x in r) / 1e6, 2) for way, r in runs.items()},
           "on_over_off": round(statistics.median(b["wall_ns"] / a["wall_ns"] for a, b in zip(runs["off"], on)), 3),
           "bytes_on_over_off": round(sum(x["bytes_read"] for x in on) /
                                      max(sum(x["bytes_read"] for x in runs["off"]), 1), 3),
           "guesses_right": round(right / max(right + sum(x["hints_wasted"] for x in on), 1), 3), "runs": runs}
    print({k: v for k, v in out.items() if k != "runs"}, flush=True)
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    benchlib.add_arguments(ap, "hints.json")
    ap.add_argument("models", nargs="+")
    ap.add_argument("--budget", action="append", required=True, help="one for each model")
    ap.add_argument("--pairs", type=int, default=5)
    ap.add_argument("--tokens", type=int, default=24)
    ap.add_argument("--note", default="", help="what else is worth knowing, kept with the result")
    args = ap.parse_args()
    if len(args.models) != len(args.budget):
        ap.error("as many budgets as models")
    benchlib.record(args, "reading ahead by the next layer's router", __doc__.strip(), note=args.note,
                    busy_before=round(benchlib.busy(1), 2),
                    cases=[measure(args, m, b) for m, b in zip(args.models, args.budget)])


if __name__ == "__main__":
    main()
