#!/usr/bin/env python3
"""Streaming under a budget, against what the drive and the processors allow, and beside llama.cpp.

    moeflux synth --arch qwen3_moe --shape 30b-a3b --quant q4_k -o /tmp/30b.gguf
    bench/streaming.py /tmp/30b.gguf [--budgets 4G,8G,12G] [--full 20G] [--bin build/moeflux] [--peer PYTHON]

Each run is a process of its own in a control group whose limit is its budget (version 2, or 1; without
the right to make one it is said in the result), after the file left the page cache, with another prompt
each time. Of each decoded token --stats tells the times and --trace the misses of every layer. They are
held against
    bound   the sum over layers of: dense part + max(missing bytes / bandwidth, expert arithmetic)
    floor   max(all bytes read / bandwidth, all arithmetic)
with the bandwidth measured while the run is stopped every few tokens (those tokens don't count), and before and after
it, by direct reads of the size that experts' parts have, 16 at a time, into huge pages as slots have them, and the arithmetic that the run itself took, shared evenly by the layers. --full is a
budget that holds all experts; then waiting and the rest are what streaming costs. With --text repeat
answers are made of eight words, so that tokens choose again what was chosen lately ("repeated": the share
of choices that the token before made as well). --add keeps the runs that the result already has, so that
a measurement can be spread over quiet moments; "others" is the part of all processors that other programs
used during a run. The peer is llama.cpp
as the Python package xllamacpp has it (tools/llama_compare.py says how to install it), without weight
repacking, in a group of --peer-budget; it may need minutes a token.
"""
import argparse
import concurrent.futures
import ctypes
import json
import mmap
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import benchlib

WORDS = ("the a lighthouse boat harbour winter harvest miller compass river lake anchor stood went saw near over "
         "under with small old bright quiet and then before every morning evening").split()
QUEUE = 16
HUGE = 2 << 20


# ---- the machine ----

class Group:
    """A control group with a limit; does nothing where none can be made."""

    def __init__(self, limit):
        self.path = None
        with open("/proc/self/cgroup", encoding="ascii") as f:
            lines = [line.strip().split(":", 2) for line in f]
        for number, controllers, own in lines:
            self.v2 = number == "0"
            if not self.v2 and "memory" not in controllers.split(","):
                continue
            base = "/sys/fs/cgroup" if self.v2 else "/sys/fs/cgroup/memory"
            # In version 2 a group that has processes can't have controllers for groups below it: beside our own.
            for place in [own, os.path.dirname(own)] if self.v2 else [own]:
                path = os.path.join(base + place.rstrip("/"), f"moeflux-bench-{os.getpid()}")
                try:
                    os.mkdir(path)
                    self.put(path, "memory.max" if self.v2 else "memory.limit_in_bytes", limit)
                    self.path = path
                    return
                except OSError:
                    if os.path.isdir(path):
                        os.rmdir(path)

    @staticmethod
    def put(path, name, value):
        with open(os.path.join(path, name), "w", encoding="ascii") as f:
            f.write(str(value))

    def enter(self):
        if self.path:
            self.put(self.path, "cgroup.procs", 0)

    def peak(self):
        if not self.path:
            return None
        name = "memory.peak" if self.v2 else "memory.max_usage_in_bytes"
        try:
            with open(os.path.join(self.path, name), encoding="ascii") as f:
                return int(f.read())
        except FileNotFoundError: # version 2 before Linux 5.19
            return None

    def remove(self):
        for _ in range(500 if self.path else 0):
            try:
                os.rmdir(self.path)
                return
            except OSError:
                time.sleep(0.02)


class Others:
    """What part of the processors' time other programs use, from here until share()."""

    def __init__(self):
        self.begin = self.now()

    @staticmethod
    def now():
        with open("/proc/stat", encoding="ascii") as f:
            v = [int(x) / os.sysconf("SC_CLK_TCK") for x in f.readline().split()[1:9]]
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return sum(v), v[3] + v[4], children.ru_utime + children.ru_stime

    def share(self):
        total, idle, own = (b - a for a, b in zip(self.begin, self.now()))
        return round(max(total - idle - own, 0) / total, 2)


def drop_caches(path):
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def bandwidth(path, size, seconds):
    """Bytes a second of direct reads of `size` at random places, QUEUE under way, into huge pages as slots have them: a
    read into small pages is split where the drive takes few pieces of memory a request, and takes more than twice as long."""
    size = max(size // 4096, 1) * 4096
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    n = os.fstat(fd).st_size // 4096 - size // 4096
    rng = random.Random(time.monotonic_ns())
    ready = threading.Barrier(QUEUE)
    buffers = mmap.mmap(-1, -(-size * QUEUE // HUGE) * HUGE + HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    buffers.madvise(mmap.MADV_HUGEPAGE)
    first = -ctypes.addressof(ctypes.c_char.from_buffer(buffers)) % HUGE

    def reader(number):
        memory, done = memoryview(buffers)[first + number * size:][:size], 0
        memory[:] = bytes(size)
        ready.wait()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            done += os.preadv(fd, [memory], rng.randrange(n) * 4096)
        return done / (time.monotonic() - end + seconds)

    with concurrent.futures.ThreadPoolExecutor(QUEUE) as pool:
        rate = sum(pool.map(reader, range(QUEUE)))
    os.close(fd)
    return rate


class Pauses:
    """Stops a process now and then to measure the drive: virtual drives are faster and slower by the second. The
    evaluation that was stopped is of no use; `stopped` has the positions of those that began before a pause ended."""

    def __init__(self, args, process, stats, every):
        self.args, self.process, self.stats, self.every = args, process, stats, every
        self.rates, self.stopped = [], set()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def decoded(self):
        """Positions of the tokens decoded so far."""
        try:
            with open(self.stats, encoding="utf-8") as f:
                return [x["pos"] for x in map(json.loads, list(f)[1:]) if x["tokens"] == 1]
        except (OSError, json.JSONDecodeError):
            return []

    def watch(self):
        due = 2
        while self.process.poll() is None:
            time.sleep(0.02)
            if len(self.decoded()) < due:
                continue
            self.process.send_signal(signal.SIGSTOP)
            time.sleep(0.02) # what it has under way
            last = self.decoded()[-1]
            self.stopped.add(last + 1)
            self.rates.append(bandwidth(self.args.model, self.args.read, 0.4))
            self.process.send_signal(signal.SIGCONT)
            due += self.every


def bytes_of(text):
    scale = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return int(float(text[:-1]) * scale[text[-1]]) if text[-1] in scale else int(text)


# ---- moeflux ----

def prompt_of(args, seed):
    """Words that make about as many tokens as asked; never the same twice."""
    rng = random.Random(seed)
    words = [rng.choice(WORDS) for _ in range(args.prompt * 2)]

    def count(n):
        done = subprocess.run([args.bin, "tokenize", "-m", args.model, "-p", " ".join(words[:n])], capture_output=True,
                              text=True, check=True)
        return len(done.stdout.split())
    low, high = 1, len(words)
    while low < high:
        mid = (low + high) // 2
        low, high = (mid + 1, high) if count(mid) < args.prompt else (low, mid)
    return " ".join(words[:low])


def read_trace(trace, first):
    """Of tokens from position `first` on: the misses of each layer, and the share of choices that repeat."""
    misses, chosen, repeated = {}, {}, []
    with open(trace, encoding="utf-8") as f:
        next(f)
        for line in f:
            x = json.loads(line)
            before = chosen.get(x["layer"], [])
            chosen[x["layer"]] = x["ids"]
            if x["pos"] >= first:
                misses.setdefault(x["pos"], []).append(len(x["hit"]) - sum(x["hit"]))
                repeated.append(len(set(before) & set(x["ids"])) / len(x["ids"]))
    return misses, round(statistics.fmean(repeated), 3)


def judge(lines, misses, expert_bytes, n_layers, rate):
    """Time of the decoded tokens against bound and floor; milliseconds a token."""
    decode = [x for x in lines if x["tokens"] == 1 and x["pos"] in misses][1:]
    bound, floor, wall = [], [], []
    for x in decode:
        dense = (x["arithmetic_ns"] - x["experts_ns"]) / n_layers
        experts = x["experts_ns"] / n_layers
        reads = [n * expert_bytes / rate * 1e9 for n in misses[x["pos"]]]
        dense_only = n_layers - len(reads)
        bound.append(sum(dense + max(r, experts * n_layers / len(reads)) for r in reads) + dense_only * dense)
        floor.append(max(sum(reads), x["arithmetic_ns"]))
        wall.append(x["wall_ns"])
    mean = {key: round(statistics.fmean(x[key] for x in decode) / 1e6, 2)
            for key in ("wall_ns", "arithmetic_ns", "experts_ns", "stall_ns", "other_ns", "between_ns", "reading_ns")}
    return {"tokens": len(decode), "ms": mean, "other_share": round(mean["other_ns"] / mean["wall_ns"], 4),
            "mb_read": round(statistics.fmean(x["bytes_read"] for x in decode) / 1e6, 1),
            "time_over_bound": round(sum(wall) / sum(bound), 3), "time_over_floor": round(sum(wall) / sum(floor), 3),
            "time_over_arithmetic": round(sum(wall) / sum(x["arithmetic_ns"] for x in decode), 3),
            "drive_used": round(sum(x["bytes_read"] for x in decode) / (sum(wall) / 1e9) / rate, 3)}


def run_moeflux(args, budget, seed, options):
    with tempfile.TemporaryDirectory() as folder:
        stats, trace = os.path.join(folder, "stats"), os.path.join(folder, "trace")
        prompt = prompt_of(args, seed)
        drop_caches(args.model)
        group = Group(bytes_of(budget))
        if args.text == "repeat":
            options = [*options, "--grammar", 'root ::= ("' + '" | "'.join(f" {w}" for w in WORDS[1:9]) + '")*']
        command = [args.bin, "run", "-m", args.model, "--memory", budget, "-c", str(args.prompt + args.tokens + 64),
                   "--raw", "-p", prompt, "-n", str(args.tokens + 1), "--temp", "0", "--ignore-eos", "--json",
                   "--no-progress", "--stats", stats, "--trace", trace, "-t", str(args.threads), *options]
        before = bandwidth(args.model, args.read, args.drive_seconds)
        others = Others()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              preexec_fn=group.enter) as process:
            pauses = Pauses(args, process, stats, args.pause)
            stdout, stderr = process.communicate()
            pauses.thread.join()
        others = others.share()
        peak = group.peak()
        group.remove()
        if process.returncode:
            raise SystemExit(f"{budget}: exit {process.returncode}: {stderr.strip()}")
        rates = [before, *pauses.rates, bandwidth(args.model, args.read, args.drive_seconds)]
        rate = statistics.fmean(pauses.rates)
        out = json.loads(stdout)
        with open(stats, encoding="utf-8") as f:
            header, *lines = [json.loads(line) for line in f]
        expert_bytes = out["experts"]["total_bytes"] / out["experts"]["total"]
        chunks = [x for x in lines if x["tokens"] > 1]
        prompt_facts = {"tokens": out["prompt_tokens"],
                        "tokens_s": round(out["timings"]["prompt_per_second"], 2),
                        "gb_read": round(sum(x["bytes_read"] for x in chunks) / 1e9, 2),
                        **{key[:-3] + "_s": round(sum(x[key] for x in chunks) / 1e9, 2)
                           for key in ("wall_ns", "arithmetic_ns", "stall_ns", "other_ns")}}
        misses, repeated = read_trace(trace, out["prompt_tokens"])
        for pos in pauses.stopped:
            misses.pop(pos, None)
        decode = judge(lines, misses, expert_bytes, header["layers"], rate)
        return {"budget": budget, "text": args.text, "repeated": repeated, "others": others,
                "group_limit": bool(group.path), "group_peak_mib": peak and peak >> 20,
                "peak_mib": out["memory"]["peak_bytes"] >> 20, "slots": header["slots"], "reader": header["reader"],
                "direct": header["direct"], "policy": header["policy"], "chunk": out["model"]["chunk"],
                "drive_gb_s": round(rate / 1e9, 3),
                "drive_all_gb_s": [round(x / 1e9, 3) for x in rates],
                "drive_ceiling_gb_s": header["drive_bytes_per_second"] and round(header["drive_bytes_per_second"] / 1e9, 3),
                "hint_mb": round(sum(x["hint_bytes"] for x in lines if x["tokens"] == 1) / 1e6, 1), "decode_tokens_s": round(1e3 / decode["ms"]["wall_ns"], 3),
                "prompt": prompt_facts, "decode": decode}


# ---- llama.cpp ----

def peer_main(path, n_prompt, n_gen, n_threads):
    """In a process of its own, under the peer's Python."""
    import peer
    p = peer.Peer(path, n_prompt + n_gen + 64, n_threads, warmup=False)
    p.say(json.dumps(p.ask(n_prompt, n_gen)))
    peer.leave()


def run_peer(args):
    drop_caches(args.model)
    group = Group(bytes_of(args.peer_budget))
    others = Others()
    command = [args.peer, os.path.abspath(__file__), "--peer-main", args.model, str(args.prompt),
               str(args.peer_tokens), str(args.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=group.enter)
    group.remove()
    facts = {"budget": args.peer_budget, "group_limit": bool(group.path), "others": others.share()}
    if done.returncode or not done.stdout.strip():
        return {"failed": done.returncode, **facts}
    t = json.loads(done.stdout)
    return {**facts, "prompt_tokens_s": round(t["prompt_per_second"], 3),
            "decode_tokens_s": round(t["predicted_per_second"], 4)}


# ---- all of it ----

def save(args, plan, runs, peers):
    table = {}
    for run in runs:
        key = f"{run['budget']}, hints {run['hints']}, {run['text']} text"
        row = table.setdefault(key, {"decode_tokens_s": [], "prompt_tokens_s": [], "time_over_bound": [],
                                     "time_over_floor": [], "time_over_arithmetic": [], "other_share": []})
        row["decode_tokens_s"].append(run["decode_tokens_s"])
        row["prompt_tokens_s"].append(run["prompt"]["tokens_s"])
        for name in ("time_over_bound", "time_over_floor", "time_over_arithmetic", "other_share"):
            row[name].append(run["decode"][name])
    table = {key: {name: benchlib.summary(v) for name, v in row.items()} for key, row in table.items()}
    benchlib.record(args, "streaming under a budget", __doc__.strip(), note=args.note,
                    model=benchlib.model_name(args.model), layers=plan["layers"], read_bytes=args.read, table=table,
                    runs=runs, llama_cpp=peers)


def main():
    if sys.argv[1:2] == ["--peer-main"]:
        peer_main(sys.argv[2], *map(int, sys.argv[3:6]))
    ap = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    benchlib.add_arguments(ap, "streaming.json")
    ap.add_argument("model")
    ap.add_argument("--budgets", default="4G,8G,12G")
    ap.add_argument("--full", help="a budget that holds all experts")
    ap.add_argument("--hints", default="off,on", help="settings that take turns")
    ap.add_argument("--runs", type=int, default=3)
    ap.add_argument("--prompt", type=int, default=256)
    ap.add_argument("--tokens", type=int, default=64)
    ap.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    ap.add_argument("--pause", type=int, default=5, help="tokens between two measurements of the drive")
    ap.add_argument("--drive-seconds", type=float, default=2)
    ap.add_argument("--read", type=int, help="bytes of a read; default: a third of an expert")
    ap.add_argument("--peer", help="a Python that has xllamacpp")
    ap.add_argument("--peer-budget", default="8G")
    ap.add_argument("--peer-tokens", type=int, default=8)
    ap.add_argument("--wait", type=float, default=60, help="seconds to wait for an idle machine")
    ap.add_argument("--text", choices=("free", "repeat"), default="free", help="what answers are made of")
    ap.add_argument("--add", action="store_true", help="keep the runs that the result already has")
    ap.add_argument("--note", default="", help="what else is worth knowing, kept with the result")
    args = ap.parse_args()
    plan = benchlib.run_json([args.bin, "plan", "-m", args.model, "--json"])
    args.read = args.read or plan["expert_bytes_total"] // plan["experts_total"] // 3
    runs, peers = [], []
    if args.add and os.path.exists(args.result):
        with open(args.result, encoding="utf-8") as f:
            earlier = json.load(f)
        runs, peers = earlier["runs"], earlier["llama_cpp"]
    for _ in range(args.runs):
        for budget in args.budgets.split(",") * bool(args.budgets) + ([args.full] if args.full else []):
            for hints in ["off"] if budget == args.full else args.hints.split(","):
                busy = benchlib.settle(args.wait)
                run = run_moeflux(args, budget, len(runs), ["--hints", hints])
                runs.append({"hints": hints, "busy_before": busy, **run})
                print(json.dumps({k: v for k, v in runs[-1].items() if not isinstance(v, dict)} |
                                 {k: runs[-1]["decode"][k] for k in ("time_over_bound", "time_over_floor", "other_share",
                                                                     "mb_read")} |
                                 {"prompt_tokens_s": runs[-1]["prompt"]["tokens_s"]}), flush=True)
                save(args, plan, runs, peers)
        if args.peer:
            peers.append(run_peer(args))
            print(json.dumps(peers[-1]), flush=True)
            save(args, plan, runs, peers)


if __name__ == "__main__":
    main()
