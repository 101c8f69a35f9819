#!/usr/bin/env python3
"""Tokens a second, all experts in memory and streamed, beside the speed of the kernels.

    bench/throughput.py FLOAT_MODEL [--bin build/moeflux] [--kbench build/tests/kbench] [--runs 7]

A prompt of 256 tokens, then 128 tokens of decoding, greedy, warm page cache; the cases take turns, so
that what else the machine does hits them all alike. kbench times the kernels alone on one thread.
"""
import argparse
import os
import re
import statistics
import subprocess

import benchlib

TEXT = "The lighthouse stood on the rocks at the end of the bay, and its lamp was lit at dusk. "
PROMPT_TOKENS = 256
DECODE_TOKENS = 128


def make_prompt(args):
    """Ids can't be given to run, so: as many words as give the number of tokens."""
    words = (TEXT * 40).split()
    for n in range(100, len(words)):
        text = " ".join(words[:n])
        done = subprocess.run([args.bin, "tokenize", "-m", benchlib.SHIPPED, "-p", text],
                              capture_output=True, text=True, check=True)
        if len(done.stdout.split()) >= PROMPT_TOKENS:
            return text
    raise SystemExit("no prompt of that length")


def run_case(args, model, options, text):
    benchlib.warm(model)
    busy = benchlib.settle(args.wait)
    command = [args.bin, "run", "-m", model, "-t", str(args.threads), "-c", "512", "--temp", "0",
               "--raw", "--ignore-eos", "-n", str(DECODE_TOKENS), "--json", "--no-progress",
               "-p", text] + options
    r = benchlib.run_json(command)
    return {"prompt_tokens": r["prompt_tokens"],
            "prompt_per_second": round(r["timings"]["prompt_per_second"], 1),
            "decode_per_second": round(r["timings"]["decode_per_second"], 1),
            "bytes_read_per_token": round(r["experts"]["bytes_read_per_token"]),
            "stall_ms_per_token": round(r["experts"]["stall_ns_per_token"] / 1e6, 3),
            "slots": r["experts"]["slots"], "experts": r["experts"]["total"],
            "peak_mib": round(r["memory"]["peak_bytes"] / (1 << 20), 1),
            "activations": r["model"]["activations"], "chunk": r["model"]["chunk"],
            "busy_before": busy}


def kernels(args):
    """Median over three passes of what kbench prints for weights at the best level."""
    rows, reading = {}, []
    for _ in range(3):
        benchlib.settle(args.wait)
        out = subprocess.run([args.kbench, "--products", "--seconds", "0.05"], capture_output=True, text=True,
                             check=True).stdout
        reading.append(float(re.search(r"read ([\d.]+) GB/s", out).group(1)))
        for line in out.splitlines():
            m = re.match(r"(\S.*?)\s{2,}([\w-]+)\s+(f32|q8)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)",
                         line)
            if m and m.group(2) != "c":
                rows.setdefault((m.group(1), m.group(2), m.group(3)), []).append(
                    [float(v) for v in m.groups()[3:]])
    return {"shape": "2048 x 2048, one thread, weights from memory", "reading_alone_gb_s": reading,
            "products": [{"weights": w, "level": level, "activations": x,
                          "gb_s_1_token": statistics.median(v[0] for v in runs),
                          "of_reading_1_token": statistics.median(v[1] for v in runs),
                          "gflop_s_64_tokens": statistics.median(v[4] for v in runs),
                          "runs_gb_s_1_token": [v[0] for v in runs]}
                         for (w, level, x), runs in rows.items()]}


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    benchlib.add_arguments(ap, "throughput.json")
    ap.add_argument("float_model")
    ap.add_argument("--kbench", default=os.path.join(benchlib.TOP, "build", "tests", "kbench"))
    ap.add_argument("--no-kernels", action="store_true", help="leave kbench out, which takes minutes")
    ap.add_argument("--runs", type=int, default=7)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--wait", type=float, default=5, help="seconds to wait for a quiet machine")
    args = ap.parse_args()

    text = make_prompt(args)
    cases = [("shipped, all in memory", benchlib.SHIPPED, []),
             ("shipped, 18M", benchlib.SHIPPED, ["--memory", "18M"]),
             ("bf16, all in memory", args.float_model, []),
             ("bf16, 34M", args.float_model, ["--memory", "34M"])]
    results = [{"case": name, "options": " ".join(options), "runs": []}
               for name, _, options in cases]
    for _ in range(args.runs):
        for result, (_, model, options) in zip(results, cases):
            result["runs"].append(run_case(args, model, options, text))
    for result in results:
        for key in ("prompt_per_second", "decode_per_second", "bytes_read_per_token",
                    "stall_ms_per_token"):
            result[key] = benchlib.summary([r[key] for r in result["runs"]])
        print(result["case"], "prompt", result["prompt_per_second"], "decode",
              result["decode_per_second"])
    benchlib.record(args, "tokens a second, and the speed of the kernels",
                    f"raw prompt of {PROMPT_TOKENS} tokens, then {DECODE_TOKENS}, greedy, context 512, "
                    f"{args.threads} threads, warm page cache, median of {args.runs}, cases taking turns",
                    cases=results, kernels=None if args.no_kernels else kernels(args))


if __name__ == "__main__":
    main()
