#!/usr/bin/env python3
"""Eight streams beside one, and a prompt that is sent again.

    bench/sessions.py MODEL [--bin build/moeflux] [--sessbench build/tests/sessbench] [--share 0.37]

MODEL is best a synthetic one of the Qwen3-30B-A3B shape, whole or cut to some layers (moeflux synth
--arch qwen3_moe --shape 30b-a3b --layers 12 --quant q4_k -o MODEL); --share of its experts have slots, as
in 8 GB of the whole model. Experts are read past the page cache. One stream and N take turns, in engines
with the same budget: the single one has no other sessions' KV to pay for. --policy lru adds the same N
under another policy. Then, unless --prefix is 0, a prefix is evaluated and sent again with some new tokens:
to its session, to another one, and to a new engine that reads it from the drive.
"""
import argparse
import os
import shutil
import subprocess
import tempfile

import benchlib


def sessbench(args, *words):
    return benchlib.run_json([args.sessbench, words[0], args.model] + [str(w) for w in words[1:]])


def budget(args, n_sessions, ctx):
    """Room for all that isn't experts, and for the wanted share of those."""
    plan = benchlib.run_json([args.bin, "plan", "-m", args.model, "--json", "-c", str(ctx), "--chunk",
                              "64", "-t", str(args.threads)])
    memory = {item["item"]: item["bytes"] for item in plan["memory"]}
    fixed = sum(b for k, b in memory.items() if k not in ("slots_bytes", "kv_bytes"))
    kv = memory["kv_bytes"] * n_sessions
    return int(fixed + kv + args.share * plan["experts_total"] * plan["slot_bytes"])


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    benchlib.add_arguments(ap, "sessions.json")
    ap.add_argument("model")
    ap.add_argument("--sessbench", default=os.path.join(benchlib.TOP, "build", "tests", "sessbench"))
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--streams", type=int, default=8)
    ap.add_argument("--prompt", type=int, default=32)
    ap.add_argument("--tokens", type=int, default=32)
    ap.add_argument("--prefix", type=int, default=8000)
    ap.add_argument("--new", type=int, default=16)
    ap.add_argument("--share", type=float, default=0.42)
    ap.add_argument("--policy", action="append", default=[], help="measured for N streams, too; may be repeated")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--only", choices=["resend"], help="leave the streams out")
    args = ap.parse_args()

    memory = budget(args, args.streams, args.prompt + 2 * args.tokens + 8)
    cases = [{"streams": n, "prompts": prompts, "policy": policy, "runs": []} for n, prompts, policy in
             [(1, "own", "auto"), (args.streams, "own", "auto"), (args.streams, "same", "auto")] +
             [(args.streams, "own", policy) for policy in args.policy]]
    for _ in range(args.runs if cases else 0):
        for case in cases:
            n = case["streams"]
            case["runs"].append({"busy_before": round(benchlib.busy(0.3), 2),
                                 **sessbench(args, "streams", memory, n, args.prompt, args.tokens, args.threads,
                                             case["policy"], case["prompts"])})
    for case in cases:
        for key in ("tokens_per_s", "bytes_read_per_token", "stall_ms_per_token"):
            case[key] = benchlib.summary([r[key] for r in case["runs"]])
    one, ratios = cases[0] if cases else None, {}
    for many in cases[1:]:
        ratios[f"{many['prompts']} prompts, {many['policy']}"] = {
            key: round(many[key]["median"] / max(one[key]["median"], 1e-9), 3)
            for key in ("bytes_read_per_token", "tokens_per_s")}
    print(f"{args.streams} streams beside one:", ratios)

    resent = []
    memory = budget(args, 2, max(args.prefix, 1) + args.new)
    for _ in range(max(args.runs // 3, 1) if args.prefix else 0):
        kv = tempfile.mkdtemp(prefix="moeflux-kv-")
        try:
            resent.append(sessbench(args, "resend", memory, args.prefix, args.new, args.threads, kv))
        finally:
            shutil.rmtree(kv)
    shares = {key: round(sum(r[key] for r in resent) / sum(r["first_s"] for r in resent), 5)
              for key in ("same_session_s", "other_session_s", "disk_s")} if resent else {}
    print("first token of a resent prefix, of its first evaluation's time:", shares)
    benchlib.record(args, "streams together, and prompts sent again",
                    f"{benchlib.model_name(args.model)}; prompts of {args.prompt} random tokens, then {args.tokens} passes "
                    f"of decoding, slots for {args.share:.0%} of the experts, {args.threads} threads, 1 and {args.streams} "
                    f"streams taking turns; then a prefix of {args.prefix} tokens, sent again with {args.new} new ones",
                    streams=cases, ratios=ratios, resent=resent, shares_of_first=shares)


if __name__ == "__main__":
    main()
