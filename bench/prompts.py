#!/usr/bin/env python3
"""Prompts under streaming: what chunks, policies and reading ahead make of their time and reads.

    moeflux synth --arch qwen3_moe --shape 30b-a3b --quant q4_k --layers 12 -o /tmp/12.gguf
    bench/prompts.py /tmp/12.gguf [--budgets 1.5G,2.5G,3.5G] [--prompts 256,512,2048] [--vary chunk=auto,512]...

For the whole model budgets of 4G, 8G and 12G are of interest; of a cut one those that leave slots for the same
part of its experts (17 %, 42 % and 66 %; the plan tells). Every variant sees the same prompt, past the page
cache, in turns. --vary names an option of `run` and its values; several make their product.
"""
import argparse
import itertools
import json
import os
import statistics
import subprocess
import tempfile

import benchlib
import streaming


def variants(args):
    lists = []
    for item in args.vary or ["chunk=auto"]:
        name, values = item.split("=", 1)
        lists.append([(name, v) for v in values.split(",")])
    return [dict(x) for x in itertools.product(*lists)]


def run(args, budget, prompt, options):
    with tempfile.TemporaryDirectory() as folder:
        stats = os.path.join(folder, "stats")
        words = [w for k, v in options.items() if v != "auto" or k != "chunk" for w in ("--" + k, v)]
        done = subprocess.run([args.bin, "run", "-m", args.model, "--memory", budget, "-c", str(args.ctx), "--raw",
                               "-p", prompt, "-n", "1", "--temp", "0", "--ignore-eos", "--no-progress", "--json",
                               "--direct-io", "on", "--stats", stats, "-t", str(args.threads), *words],
                              capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{budget} {options}: exit {done.returncode}: {done.stderr.strip()}")
        out = json.loads(done.stdout)
        with open(stats, encoding="utf-8") as f:
            header, *lines = [json.loads(line) for line in f]
    lines = [x for x in lines if x["tokens"] > 1]
    total = {key: sum(x[key] for x in lines) for key in ("wall_ns", "arithmetic_ns", "experts_ns", "stall_ns", "other_ns",
                                                         "reading_ns", "bytes_read", "hits", "misses", "hint_bytes",
                                                         "hints_wasted")}
    n = out["prompt_tokens"]
    return {"tokens": n, "chunks": len(lines), "chunk": out["model"]["chunk"], "slots": header["slots"],
            "tokens_s": round(n / (total["wall_ns"] / 1e9), 2), "gb_read": round(total["bytes_read"] / 1e9, 3),
            "hit_share": round(total["hits"] / max(total["hits"] + total["misses"], 1), 3),
            "hint_gb": round(total["hint_bytes"] / 1e9, 3), "hints_wasted": total["hints_wasted"],
            **{k[:-3] + "_s": round(total[k] / 1e9, 3) for k in ("wall_ns", "arithmetic_ns", "experts_ns", "stall_ns",
                                                               "other_ns", "reading_ns")}}


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    benchlib.add_arguments(ap, "prompts.json")
    ap.add_argument("model")
    ap.add_argument("--budgets", default="1.5G,2.5G,3.5G")
    ap.add_argument("--prompts", default="256,512,2048")
    ap.add_argument("--vary", action="append", help="OPTION=VALUE,VALUE")
    ap.add_argument("--runs", type=int, default=3)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--note", default="", help="what else is worth knowing, kept with the result")
    args = ap.parse_args()
    cases = []
    lengths = [int(x) for x in args.prompts.split(",")]
    args.ctx = max(lengths) + 64
    for budget in args.budgets.split(","):
        for length in lengths:
            args.prompt = length
            ways = [{"options": v, "runs": []} for v in variants(args)]
            for i in range(args.runs):
                prompt = streaming.prompt_of(args, i * 1000 + length)
                for way in ways if i % 2 == 0 else reversed(ways):
                    way["runs"].append({"busy_before": round(benchlib.busy(0.2), 2),
                                        **run(args, budget, prompt, way["options"])})
            for way in ways:
                way["median"] = {k: statistics.median(r[k] for r in way["runs"]) for k in way["runs"][0]}
                # Against the first way, with the same prompt.
                way["time_ratio"] = round(statistics.median(
                    r["wall_s"] / f["wall_s"] for r, f in zip(way["runs"], ways[0]["runs"])), 3)
                m = way["median"]
                print(budget, length, way["options"], {k: m[k] for k in ("chunk", "slots", "tokens_s", "gb_read", "hit_share",
                                                                       "wall_s", "arithmetic_s", "stall_s", "other_s",
                                                                       "hint_gb")},
                      "time", way["time_ratio"], flush=True)
            cases.append({"budget": budget, "prompt": length, "ways": ways})
    benchlib.record(args, "prompts under streaming", __doc__.strip().split("\n\n")[-1].replace("\n", " "),
                    model=benchlib.model_name(args.model), note=args.note, cases=cases)


if __name__ == "__main__":
    main()
