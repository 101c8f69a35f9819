#!/usr/bin/env python3
"""Time from starting the process to the first byte of the answer, with a warm page cache.

    bench/first_byte.py [--bin build/moeflux] [--model FOLDER] [--runs 20]

The clock starts just before the process is spawned and stops when the first byte of standard output
arrives, so process start, dynamic linking, reading headers and tokenizer, planning, loading the
resident weights, the prompt of 32 tokens and its expert reads are all in it. Before each run all
files of the model are read once. Processor time is that of the whole run, which ends with the first
token; it tells what other jobs on the machine added to the time on the clock.
"""
import argparse
import os
import time

import benchlib

PROMPT = "I would like to know what a lighthouse is and what kind of thing it is; can you tell me?"
PROMPT_TOKENS = 32
CASES = [("default budget", []), ("18M", ["--memory", "18M", "-c", "512"])]


def first_byte_ms(command):
    out_r, out_w = os.pipe()
    null = os.open(os.devnull, os.O_WRONLY)
    actions = [(os.POSIX_SPAWN_DUP2, out_w, 1), (os.POSIX_SPAWN_DUP2, null, 2),
               (os.POSIX_SPAWN_CLOSE, out_r), (os.POSIX_SPAWN_CLOSE, out_w)]
    start = time.monotonic_ns()
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
    os.close(out_w)
    first = os.read(out_r, 1)
    end = time.monotonic_ns()
    while os.read(out_r, 1 << 16):
        pass
    os.close(out_r)
    os.close(null)
    _, status, usage = os.wait4(pid, 0)
    if status or not first:
        raise SystemExit(f"{benchlib.shown(command)}: status {status}")
    return (end - start) / 1e6, (usage.ru_utime + usage.ru_stime) * 1e3


def case(name, command, runs, **more):
    wall, cpu = ([round(run[i], 2) for run in runs] for i in (0, 1))
    print(f"{name}: {benchlib.summary(wall)}, processor time {benchlib.summary(cpu)}")
    return {"case": name, "command": benchlib.shown(command), "ms": benchlib.summary(wall),
            "cpu_ms": benchlib.summary(cpu), **more, "runs_ms": wall, "runs_cpu_ms": cpu}


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    benchlib.add_arguments(ap, "first-byte.json")
    ap.add_argument("--model", default=benchlib.SHIPPED)
    ap.add_argument("--runs", type=int, default=20)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--wait", type=float, default=5, help="seconds to wait for a quiet machine")
    args = ap.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:args.threads])

    base = [args.bin, "run", "-m", args.model, "-t", str(args.threads), "--temp", "0",
            "-p", PROMPT, "-n", "1"]
    n = benchlib.run_json(base + ["--json", "--no-progress"])["prompt_tokens"]
    if n != PROMPT_TOKENS:
        raise SystemExit(f"the prompt has {n} tokens with this model, not {PROMPT_TOKENS}")
    bare = [args.bin, "--version"]
    cases = [case("--version, for comparison", bare, [first_byte_ms(bare) for _ in range(args.runs)])]
    for name, options in CASES:
        busy, runs = [], []
        for _ in range(args.runs):
            benchlib.warm(args.model)
            busy.append(benchlib.settle(args.wait))
            runs.append(first_byte_ms(base + options))
        cases.append(case(name, base + options, runs, busy_before=busy))
    benchlib.record(args, "process start to first output byte",
                    f"warm page cache, prompt of {PROMPT_TOKENS} tokens, {args.threads} cores, "
                    f"median of {args.runs}", model=benchlib.model_name(args.model), cases=cases)


if __name__ == "__main__":
    main()
