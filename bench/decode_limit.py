#!/usr/bin/env python3
"""What bounds decoding on the CPU: products with one token beside reading alone.

    bench/decode_limit.py [--tool build/tests/decodebench] [--before decodebench] [--model GGUF]

For each type of weights and each shape of a matrix of Qwen3-30B-A3B: GB/s of calls that read a range by loads alone, by
loads behind fetches (which is how whoever computes between the loads has to read), of loads behind fetches in the kernels'
own order (panels of 16 rows), of the kernels, and of the kernels when the matrix is in the caches; quartiles of calls, which take some ten microseconds each, so that they mean something
on a machine that others use as well. --before is another build of the tool, which takes turns with
this one, try for try. --model adds whole tokens: the kernels' and those of kernels that only read, in
turns in one process, beside what so many barriers cost. tools/decodebench.c says how it is done."""
import argparse
import statistics

import benchlib

TYPES = ("q4_k", "mlx4", "q8_0:16", "mxfp4") # :16: activations of 16 bits, which q8_0 has unless told otherwise
SHAPES = ((768, 2048), (2048, 768), (4096, 2048), (2048, 4096)) # gate and up, down, q, o
WAYS = ("loads", "fetched", "panels", "kernels", "cached")


def turns(args, kind, rows, cols):
    """Medians of all tries of each build, and of the pairs' ratios."""
    tools = {"before": args.before, "now": args.tool}
    tries = {build: [] for build in tools}
    for _ in range(args.tries):
        for build, tool in tools.items():
            tries[build].append(one_try(args, tool, kind, rows, cols))
    result = {"type": kind, "rows": int(rows), "cols": int(cols)}
    for build, runs in tries.items():
        result[build] = {way: round(statistics.median(t[way] for t in runs), 2) for way in WAYS}
        result[build]["kernels_of_loads"] = round(statistics.median(t["kernels"] / t["loads"] for t in runs), 3)
    pairs = [now["kernels"] / before["kernels"] for before, now in zip(tries["before"], tries["now"])]
    result["now_over_before"] = benchlib.summary(pairs)
    print(f"{kind} {rows} x {cols}: before {result['before']}, now {result['now']}", flush=True)
    return {**result, "tries": tries}


def one_try(args, tool, kind, rows, cols):
    got = benchlib.run_json([tool, "calls", kind, rows, cols, str(args.pool), str(args.rounds), str(args.threads)])
    return {way: got[way + "_gb_s"][1] for way in WAYS}


def calls(args, kind, rows, cols):
    """The best of some tries by what the loads got: the others had less of the memory for themselves. All are kept:
    the processor's own rate, which is what `cached` shows, differs from try to try."""
    if args.before:
        return turns(args, kind, rows, cols)
    tries = [benchlib.run_json([args.tool, "calls", kind, rows, cols, str(args.pool), str(args.rounds),
                                str(args.threads)]) for _ in range(args.tries)]
    best = dict(max(tries, key=lambda t: t["loads_gb_s"][1]))
    rate = {way: best[way + "_gb_s"][1] for way in WAYS}
    for way in ("loads", "fetched", "panels", "cached"):
        best["kernels_of_" + way] = round(rate["kernels"] / rate[way], 3)
    print(f"{kind} {rows} x {cols}:", ", ".join(f"{way} {rate[way]:.1f}" for way in WAYS), "GB/s", flush=True)
    best["tries"] = [{way: t[way + "_gb_s"][1] for way in WAYS} for t in tries]
    return best


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    benchlib.add_arguments(ap, "decode-limit.json")
    ap.add_argument("--tool", default="build/tests/decodebench")
    ap.add_argument("--before", help="another build of the tool: medians of all tries, in turns")
    ap.add_argument("--model", help="decode this as well; it has to fit in memory")
    ap.add_argument("--shapes", default=",".join(f"{r}x{c}" for r, c in SHAPES), help="ROWSxCOLUMNS,...")
    ap.add_argument("--types", default=",".join(TYPES))
    ap.add_argument("--pool", type=int, default=400, help="MiB of matrices; default 400")
    ap.add_argument("--rounds", type=int, default=5, help="of 200 calls; default 5")
    ap.add_argument("--tries", type=int, default=3)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--tokens", type=int, default=32)
    args = ap.parse_args()
    busy = benchlib.busy(1)
    results = [calls(args, kind, rows, cols) for kind in args.types.split(",")
               for rows, cols in (shape.split("x") for shape in args.shapes.split(","))]
    content = {"busy_before": busy, "results": results}
    if args.model:
        content["tokens"] = benchlib.run_json([args.tool, "tokens", args.model, str(args.tokens), "8",
                                               str(args.threads)])
    benchlib.record(args, "What bounds decoding on the CPU",
                    ("GB/s of the middle call, medians of " if args.before else
                     "GB/s of the fastest quarter, the middle and the slowest quarter of calls, of the best of ") +
                    f"{args.tries} tries; {args.threads} threads, each its range of a matrix, in random order from a pool "
                    f"of {args.pool} MiB in huge pages", **content)


if __name__ == "__main__":
    main()
