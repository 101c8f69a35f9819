#!/usr/bin/env python3
"""Prompts one after another in one process under a budget, beside llama.cpp.

    moeflux synth --arch qwen3_moe --shape 30b-a3b --quant q4_k -o /tmp/30b.gguf
    bench/prompt_again.py /tmp/30b.gguf [--budget 8G] [--peer PYTHON] [--bin build/moeflux]

The first prompt after a start finds nothing in memory and reads nearly all experts; it is what bench/streaming.py
times. Later ones find what fits. Each side runs in a control group of the budget, after the file left the page
cache: a first prompt of random tokens, then --prompts more. llama.cpp (see tools/llama_compare.py) maps the file and
gets other tokens each time, without weight repacking; `moeflux bench` takes the same ones again, which makes no
difference where 256 tokens choose every expert, as they do here.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import benchlib
import streaming


def peer_main(path, n_tokens, n_prompts, n_threads):
    """In a process of its own, under the peer's Python; a line for each prompt."""
    import peer
    p = peer.Peer(path, n_tokens + 64, n_threads, warmup=False)
    for _ in range(n_prompts):
        p.say(str(p.ask(n_tokens, 1)["prompt_per_second"]))
    peer.leave()


def run_peer(args):
    streaming.drop_caches(args.model)
    group, others = streaming.Group(streaming.bytes_of(args.budget)), streaming.Others()
    done = subprocess.run([args.peer, os.path.abspath(__file__), "--peer-main", args.model, str(args.tokens),
                           str(args.prompts + 1), str(args.threads)], capture_output=True, text=True, check=False,
                          preexec_fn=group.enter)
    group.remove()
    return {"exit": done.returncode, "group_limit": bool(group.path), "others": others.share(),
            "tokens_s": [round(float(x), 2) for x in done.stdout.split()]}


def run_moeflux(args):
    with tempfile.TemporaryDirectory() as folder:
        stats = os.path.join(folder, "stats")
        streaming.drop_caches(args.model)
        before = streaming.bandwidth(args.model, args.read, 1)
        group, others = streaming.Group(streaming.bytes_of(args.budget)), streaming.Others()
        done = subprocess.run([args.bin, "bench", "-m", args.model, "--memory", args.budget, "-p", str(args.tokens), "-n", "0",
                               "-r", str(args.prompts), "-t", str(args.threads), "--stats", stats, "--no-progress", "-o",
                               "json"], capture_output=True, text=True, check=False, preexec_fn=group.enter)
        others = others.share()
        peak = group.peak()
        group.remove()
        if done.returncode:
            raise SystemExit(f"exit {done.returncode}: {done.stderr.strip()}")
        after = streaming.bandwidth(args.model, args.read, 1)
        with open(stats, encoding="utf-8") as f:
            header, *lines = [json.loads(line) for line in f]
    prompts, at = [], 0
    while at < len(lines): # chunks of one prompt follow each other, positions growing
        end = at + 1
        while end < len(lines) and lines[end]["pos"] > 0:
            end += 1
        total = {k: sum(x[k] for x in lines[at:end]) for k in ("tokens", "wall_ns", "arithmetic_ns", "stall_ns", "other_ns",
                                                              "bytes_read")}
        prompts.append({"tokens_s": round(total["tokens"] / total["wall_ns"] * 1e9, 2),
                        "gb_read": round(total["bytes_read"] / 1e9, 2),
                        **{k[:-3] + "_s": round(total[k] / 1e9, 2) for k in ("wall_ns", "arithmetic_ns", "stall_ns", "other_ns")}})
        at = end
    return {"group_limit": bool(group.path), "group_peak_mib": peak and peak >> 20, "others": others,
            "slots": header["slots"], "drive_gb_s": [round(before / 1e9, 3), round(after / 1e9, 3)], "prompts": prompts}


def main():
    if sys.argv[1:2] == ["--peer-main"]:
        peer_main(sys.argv[2], *map(int, sys.argv[3:6]))
    ap = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    benchlib.add_arguments(ap, "prompt-again.json")
    ap.add_argument("model")
    ap.add_argument("--budget", default="8G")
    ap.add_argument("--tokens", type=int, default=256)
    ap.add_argument("--prompts", type=int, default=2, help="after the first")
    ap.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    ap.add_argument("--read", type=int, default=884736, help="bytes of a read, for the drive's bandwidth")
    ap.add_argument("--peer", help="a Python that has xllamacpp")
    ap.add_argument("--note", default="", help="what else is worth knowing, kept with the result")
    args = ap.parse_args()
    out = {"moeflux": run_moeflux(args), "llama_cpp": None}
    for side in ("moeflux", "llama_cpp"):
        if side == "llama_cpp" and args.peer:
            out[side] = run_peer(args)
        print(side, json.dumps(out[side]), flush=True)
        benchlib.record(args, "prompts one after another under a budget", __doc__.strip(), note=args.note,
                        model=benchlib.model_name(args.model), budget=args.budget, tokens=args.tokens, **out)


if __name__ == "__main__":
    main()
