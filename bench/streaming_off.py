#!/usr/bin/env python3
"""What streaming costs where all experts fit: tokens at a full budget, with streaming on and off.

    moeflux synth --arch qwen3_moe --shape 30b-a3b --quant q4_k -o /tmp/30b.gguf
    bench/streaming_off.py /tmp/30b.gguf --memory 20G [--bin build/moeflux]

On, each expert is read when it is first wanted and the store is asked for it every time; off (`--streaming off`),
all are read before the first token and looked up in a table, which leaves nothing but arithmetic. Both decode the
same tokens, after a run of them that isn't counted, so that nothing is read any more; processes take turns. `ratio`
is time on / time off of tokens: the sum over places of the shortest of all repetitions, which other programs
disturbed least, and of medians. `other` is the time of the store's part of a token on, as --stats has it.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile

import benchlib
import streaming


def run(args, mode):
    with tempfile.TemporaryDirectory() as folder:
        stats = os.path.join(folder, "stats")
        streaming.drop_caches(args.model)
        others = streaming.Others()
        done = subprocess.run([args.bin, "bench", "-m", args.model, "--memory", args.memory, "-p", "0", "-n", str(args.tokens),
                               "-r", str(args.repetitions), "-t", str(args.threads), "--streaming", mode, "--direct-io", "on",
                               "--stats", stats, "--no-progress", "-o", "json"], capture_output=True, text=True, check=False)
        others = others.share()
        if done.returncode:
            raise SystemExit(f"{mode}: exit {done.returncode}: {done.stderr.strip()}")
        with open(stats, encoding="utf-8") as f:
            header, *lines = [json.loads(line) for line in f]
    lines = lines[-args.tokens * args.repetitions:]
    if sum(x["misses"] for x in lines):
        raise SystemExit("the budget doesn't hold all experts")
    by_place = [lines[i::args.tokens] for i in range(args.tokens)]
    return {"mode": mode, "others": others, "slots": header["slots"], "tokens": args.tokens, "repetitions": args.repetitions,
            "wall_ms": [[round(x["wall_ns"] / 1e6, 3) for x in place] for place in by_place],  # [place][repetition]
            "store_ms": [[round((x["other_ns"] + x["stall_ns"]) / 1e6, 4) for x in place] for place in by_place],
            "shortest_ms": [round(min(x["wall_ns"] for x in place) / 1e6, 3) for place in by_place],
            "median_ms": [round(statistics.median(x["wall_ns"] for x in place) / 1e6, 3) for place in by_place],
            "other_share": round(sum(x["other_ns"] + x["stall_ns"] for x in lines) / sum(x["wall_ns"] for x in lines), 5),
            # Of the least disturbed: what a token's store costs when it isn't interrupted.
            "other_ms": round(statistics.fmean(min(x["other_ns"] + x["stall_ns"] for x in place) for place in by_place) / 1e6, 4)}


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    benchlib.add_arguments(ap, "streaming-off.json")
    ap.add_argument("model")
    ap.add_argument("--memory", default="20G")
    ap.add_argument("--tokens", type=int, default=24)
    ap.add_argument("--repetitions", type=int, default=6)
    ap.add_argument("--runs", type=int, default=1, help="pairs")
    ap.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    ap.add_argument("--note", default="", help="what else is worth knowing, kept with the result")
    args = ap.parse_args()
    pairs = []
    for i in range(args.runs):
        pair = {mode: run(args, mode) for mode in (("on", "off") if i % 2 == 0 else ("off", "on"))}
        pair["ratio_shortest"] = round(sum(pair["on"]["shortest_ms"]) / sum(pair["off"]["shortest_ms"]), 4)
        pair["ratio_median"] = round(sum(pair["on"]["median_ms"]) / sum(pair["off"]["median_ms"]), 4)
        pairs.append(pair)
        print(json.dumps({k: v for k, v in pair.items() if not isinstance(v, dict)} |
                         {k: [pair[m][k] for m in ("on", "off")] for k in ("others", "other_share", "other_ms")} |
                         {"ms": [round(statistics.fmean(pair[m]["shortest_ms"]), 2) for m in ("on", "off")]}), flush=True)
        benchlib.record(args, "a full budget with streaming on and off", __doc__.strip(), note=args.note,
                        model=benchlib.model_name(args.model), pairs=pairs,
                        ratio_shortest=benchlib.summary([p["ratio_shortest"] for p in pairs]),
                        ratio_median=benchlib.summary([p["ratio_median"] for p in pairs]))


if __name__ == "__main__":
    main()
