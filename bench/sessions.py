#!/usr/bin/env python3
"""Eight streams beside one, and a prompt that is sent again.

    bench/sessions.py MODEL... [--bin build/moeflux] [--sessbench build/tests/sessbench] [--share 0.42]

MODELs are best synthetic ones of the Qwen3-30B-A3B shape, whole or cut to some layers, one of each routing (moeflux
synth --arch qwen3_moe --shape 30b-a3b --layers 12 --quant q4_k --routing skewed -o MODEL); --share of their experts
have slots, as in 8 GB of the whole model. Experts are read past the page cache. One stream and N take turns, in engines
with the same budget: the single one has no other sessions' KV to pay for. --policy lru adds the same N
under another policy. pass_ms says where the time of a pass went. Then, unless --prefix is 0, a prefix is evaluated
by the first model and sent again with some new tokens: to its session, to another one, and to a new engine that
reads it from the drive.
"""
import argparse
import json
import os
import shutil
import subprocess
import tempfile

import benchlib


def sessbench(args, model, *words):
    return benchlib.run_json([args.sessbench, words[0], model] + [str(w) for w in words[1:]])


def budget(args, model, n_sessions, ctx):
    """Room for all that isn't experts, and for the wanted share of those."""
    plan = benchlib.run_json([args.bin, "plan", "-m", model, "--json", "-c", str(ctx), "--chunk",
                              "64", "-t", str(args.threads)])
    memory = {item["item"]: item["bytes"] for item in plan["memory"]}
    fixed = sum(b for k, b in memory.items() if k not in ("slots_bytes", "kv_bytes"))
    kv = memory["kv_bytes"] * n_sessions
    return int(fixed + kv + args.share * plan["experts_total"] * plan["slot_bytes"])


def together(args, model):
    """One stream and several of a model, in turns."""
    memory = budget(args, model, args.streams, args.prompt + 2 * args.tokens + 8)
    cases = [{"streams": n, "prompts": prompts, "policy": policy, "runs": []} for n, prompts, policy in
             [(1, "own", "auto"), (args.streams, "own", "auto"), (args.streams, "same", "auto")] +
             [(args.streams, "own", policy) for policy in args.policy]]
    for _ in range(args.runs):
        for case in cases:
            case["runs"].append({"busy_before": round(benchlib.busy(0.3), 2),
                                 **sessbench(args, model, "streams", memory, case["streams"], args.prompt, args.tokens,
                                             args.threads, case["policy"], case["prompts"])})
    for case in cases:
        for key in ("tokens_per_s", "bytes_read_per_token", "stall_ms_per_token"):
            case[key] = benchlib.summary([r[key] for r in case["runs"]])
        case["pass_ms"] = {part: benchlib.summary([r["pass_ms"][part] for r in case["runs"]])["median"]
                           for part in case["runs"][0]["pass_ms"]}
    ratios = {f"{many['prompts']} prompts, {many['policy']}": {
        key: round(many[key]["median"] / max(cases[0][key]["median"], 1e-9), 3)
        for key in ("bytes_read_per_token", "tokens_per_s")} for many in cases[1:]}
    print(f"{benchlib.model_name(model)}: {args.streams} streams beside one:", ratios)
    for case in cases:
        print(f"  {case['streams']} streams, {case['prompts']} prompts, {case['policy']}: ms a pass", case["pass_ms"])
    return {"model": benchlib.model_name(model), "ratios": ratios, "streams": cases}


def resend(args, model):
    memory, runs = budget(args, model, 2, args.prefix + args.new), []
    for _ in range(args.resend_runs):
        kv = tempfile.mkdtemp(prefix="moeflux-kv-")
        try:
            runs.append({"busy_before": round(benchlib.busy(0.3), 2),
                         **sessbench(args, model, "resend", memory, args.prefix, args.new, args.threads, kv)})
        finally:
            shutil.rmtree(kv)
    shares = {key: round(sum(r[key] for r in runs) / sum(r["first_s"] for r in runs), 5)
              for key in ("same_session_s", "other_session_s", "disk_s")}
    print("first token of a resent prefix, of its first evaluation's time:", shares)
    return {"model": benchlib.model_name(model), "shares_of_first": shares, "runs": runs}


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    benchlib.add_arguments(ap, "sessions.json")
    ap.add_argument("models", nargs="+")
    ap.add_argument("--sessbench", default=os.path.join(benchlib.TOP, "build", "tests", "sessbench"))
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--streams", type=int, default=8)
    ap.add_argument("--prompt", type=int, default=32)
    ap.add_argument("--tokens", type=int, default=32)
    ap.add_argument("--prefix", type=int, default=8000)
    ap.add_argument("--resend-runs", type=int, default=1)
    ap.add_argument("--new", type=int, default=16)
    ap.add_argument("--share", type=float, default=0.42)
    ap.add_argument("--policy", action="append", default=[], help="measured for N streams, too; may be repeated")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--only", choices=["resend"], help="leave the streams out")
    ap.add_argument("--add", action="store_true", help="keep what the result file has of other models, or of what isn't "
                    "measured now")
    args = ap.parse_args()
    names = ", ".join(benchlib.model_name(m) for m in args.models)
    how = f"{names}; slots for {args.share:.0%} of the experts, {args.threads} threads"
    content = {"models": [], "resent": None}
    if args.add and os.path.exists(args.result):
        with open(args.result, encoding="utf-8") as f:
            old = json.load(f)
        content = {key: old[key] for key in content}
        how = old["how"] + "; then " + how
    if not args.only:
        how += (f"; prompts of {args.prompt} random tokens, then {args.tokens} passes of decoding, 1 and {args.streams} "
                "streams taking turns")
        new = [together(args, model) for model in args.models]
        content["models"] = [m for m in content["models"] if m["model"] not in [n["model"] for n in new]] + new
    if args.prefix:
        how += f"; a prefix of {args.prefix} random tokens, sent again with {args.new} new ones"
        content["resent"] = resend(args, args.models[0])
    benchlib.record(args, "streams together, and prompts sent again", how, **content)


if __name__ == "__main__":
    main()
