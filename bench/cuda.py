#!/usr/bin/env python3
"""Speed on a CUDA device, against what its links allow, and beside llama.cpp.

    bench/cuda.py --part NAME [--bin build/moeflux] [--models /dev/shm] [--drive /tmp] [--peer llama-bench]

Parts, each some minutes at most, with a result of its own (bench/results/cuda-NAME.json):
    copies    queued copies at the sizes that the others need (bench/cuda_copies.cu, built with nvcc)
    resident  Qwen3-30B-A3B's shape, q4_k, all of it on the device: decoding and a prompt of 2,048, in turns
              with llama.cpp's llama-bench on the same file if --peer names it
    quarter   the same with a quarter of the experts on the device, the others in pinned slots, in the files'
              mapping, and computed by the CPU
    exclusive the same with less host memory than all experts take: both kinds of tiers
    oss       gpt-oss-120b's shape, mxfp4, with 16 GB of the device's memory: from the files' mapping, which is
              pinned in --models, and from slots of which host and device together have one for each expert
    cold      Qwen3-30B-A3B's shape from a file in --drive that is in no cache, with little of either memory
Models are made by `moeflux synth` in --models (a folder in memory) and kept; oss removes the other one first.

Every figure has beside it, a decoded token: the bytes on each link (drive, up to the device, down from it), the
time that the device waited (stall), and the bound: the largest of the copied bytes at the rate measured for
queued copies of that size, the read bytes at the drive's rate, and the time that a token takes with
everything on the device. The first --skip tokens, which fill the slots, don't count.
"""
import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time

import benchlib
import streaming

SHAPES = {"30b": (["--arch", "qwen3_moe", "--shape", "30b-a3b", "--quant", "q4_k"], "moeflux-30b.gguf"),
          "oss": (["--arch", "gpt_oss", "--shape", "120b", "--quant", "mxfp4"], "moeflux-oss.gguf")}
PROMPT = "the old lighthouse stood over the quiet harbour before the bright winter morning"


def say(*words):
    print(*words, flush=True)


def run(command, timeout_s=None):
    begin = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:2])}: exit {done.returncode}: {done.stderr.strip()[-400:]}")
    return done.stdout, time.monotonic() - begin


def model(args, name):
    """The file of a shape, made if it isn't there."""
    options, file = SHAPES[name]
    given = args.m30 if name == "30b" else args.oss
    path = given or os.path.join(args.models, file)
    if not os.path.exists(path):
        _, took = run([args.bin, "synth", *options, "-o", path, "--no-progress"])
        args.facts[f"synth_{name}_s"] = round(took, 1)
        say(f"made {file}: {os.path.getsize(path) / 1e9:.1f} GB in {took:.0f} s")
    return path


def plan(args, path, *options):
    return json.loads(run([args.bin, "plan", "-m", path, "--json", "--device", "cuda", *options])[0])


def vram_for(args, path, n_slots, *options):
    """Bytes of device memory with which a plan has so many slots."""
    got = plan(args, path, *options)
    want = got["vram_total_bytes"] - (got["slots"] - n_slots) * got["slot_bytes"]
    for _ in range(4): # what isn't slots may change with it
        got = plan(args, path, "--vram", str(want), *options)
        if got["slots"] == n_slots:
            break
        want += (n_slots - got["slots"]) * got["slot_bytes"]
    return want


def piece_rates(args, path, sizes):
    """Measured rates of copies; {} where that can't be built."""
    sizes = [str(s) for s in sorted(set(sizes))]
    if not args.copies:
        args.copies = os.path.join(tempfile.gettempdir(), "moeflux-cuda-copies")
        source = os.path.join(benchlib.TOP, "bench", "cuda_copies.cu")
        run(["nvcc", "-O2", "-o", args.copies, source])
    return json.loads(run([args.copies, path, *sizes])[0])


def decode(args, path, *options, n=None):
    """Decodes and says what a token took and moved."""
    n = n or args.n
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as stats:
        command = [args.bin, "run", "-m", path, "--device", "cuda", "-c", "2048", "-p", PROMPT, "-n", str(n), "--temp", "0",
                   "--ignore-eos", "--no-progress", "--json", "--stats", stats.name, *options]
        out, took = run(command)
        lines = [json.loads(line) for line in stats]
    whole, head = json.loads(out), lines[0]
    lines = [x for x in lines[1:] if x["tokens"] == 1 and x["pos"] > 0][args.skip:]
    wall = sum(x["wall_ns"] + x["between_ns"] for x in lines) / 1e9
    each = {key: sum(x.get(key, 0) for x in lines) / len(lines)
            for key in ("wall_ns", "stall_ns", "arithmetic_ns", "other_ns", "between_ns", "hits", "misses", "host_hits",
                        "bytes_read", "reading_ns", "bytes_copied", "copying_ns", "bytes_fetched")}
    got = {"how": benchlib.shown(command), "process_s": round(took, 1), "tokens": len(lines),
           "tokens_s": round(len(lines) / wall, 2), "ms_per_token": round(1e3 * wall / len(lines), 3),
           "slots": head["slots"], "on_cpu": whole["experts"]["on_cpu"], "budget_bytes": whole["memory"]["budget_bytes"],
           "peak_bytes": whole["memory"]["peak_bytes"], "per_token": {k: round(v) for k, v in each.items()},
           "drive_reading_share": round(sum(x["reading_ns"] for x in lines) / 1e9 / wall, 4),
           "wall_ms": [round(x["wall_ns"] / 1e6, 2) for x in lines]}
    return got


def hold_against(got, rate, device_ms, drive=None):
    """The bound, and what of it was reached."""
    t = got["per_token"]
    terms = {"copies_ms": t["bytes_copied"] / rate / 1e6 if rate else 0, "device_ms": device_ms or 0,
             "drive_ms": t["bytes_read"] / drive * 1e3 if drive else 0}
    bound = max(terms.values())
    got.update({"bound": {k: round(v, 3) for k, v in terms.items()}, "copy_rate_gbs": rate,
                "bound_tokens_s": round(1e3 / bound, 2) if bound else None,
                "of_bound": round(bound / got["ms_per_token"], 3)})
    say(f"    {got['tokens_s']} tokens/s, {got['of_bound']:.2f} of a bound of {got['bound_tokens_s']}; a token: "
        f"{t['bytes_copied'] / 1e6:.1f} MB up, {t['bytes_fetched'] / 1e6:.1f} down, {t['bytes_read'] / 1e6:.1f} from the "
        f"drive, stall {t['stall_ns'] / 1e6:.2f} ms")
    return got


def rate_of(rates, size, kind="up"):
    return next((p[kind] for p in rates["pieces"] if p["bytes"] == size), 0)


# ---- parts ----

def part_copies(args):
    path = model(args, "30b")
    return {"rates": piece_rates(args, path, [1 << 18, 1 << 19, 884736, 1 << 20, 2658304, 4406400, 1 << 23, 13236480, 1 << 24])}


def part_resident(args):
    path, rounds = model(args, "30b"), []
    for i in range(args.rounds):
        entry = {}
        for name, p, n in (("prompt", "2048", "0"), ("decode", "0", "128")):
            out, _ = run([args.bin, "bench", "-m", path, "--device", "cuda", "-p", p, "-n", n, "-r", "3", "-o", "json",
                          "--no-progress"])
            entry[name] = json.loads(out)
        if args.peer:
            out, _ = run([args.peer, "-m", path, "-p", "2048", "-n", "128", "-r", "3", "-ngl", "99", "-fa", "1", "-o", "json"])
            entry["llama_cpp"] = json.loads(out)
        rounds.append(entry)
        say(f"    round {i}:", *(f"{name} {x['avg_ts']:.1f}" for name in entry for x in entry[name] if "avg_ts" in x))
    got = decode(args, path)
    say(f"    by --stats: {got['tokens_s']} tokens/s")
    return {"rounds": rounds, "decode": got}


def tiers(args, path, vram, runs, rates, device_ms):
    made = plan(args, path, "--vram", str(vram), "-c", "2048")
    result = {"plan": made}
    for name, piece, kind, options in runs:
        say("  " + name)
        try:
            got = decode(args, path, "--vram", str(vram), *options)
        except (SystemExit, subprocess.TimeoutExpired) as e:
            say(f"    {e}")
            result[name] = {"failed": str(e)}
            continue
        result[name] = hold_against(got, rate_of(rates, piece, kind), device_ms)
    return result


def part_quarter(args):
    path = model(args, "30b")
    whole = plan(args, path, "-c", "2048")
    slot, part = whole["slot_bytes"], whole["slot_bytes"] // 3
    rates = piece_rates(args, path, [slot, part])
    resident = decode(args, path)
    say(f"  on the device: {resident['tokens_s']} tokens/s")
    vram = vram_for(args, path, whole["experts_total"] // 4, "-c", "2048", "--memory", "40G")
    runs = [("slots", slot, "up", ["--memory", "40G", "--host-tier", "slots"]),
            ("mapped", part, "mapped", ["--memory", "40G", "--host-tier", "mapped"]),
            ("cpu", slot, "up", ["--memory", "40G", "--miss", "cpu"])]
    return {"rates": rates, "resident": resident,
            **tiers(args, path, vram, runs, rates, resident["ms_per_token"])}


def part_exclusive(args):
    path = model(args, "30b")
    whole = plan(args, path, "-c", "2048")
    slot, total = whole["slot_bytes"], whole["experts_total"]
    rates = piece_rates(args, path, [slot])
    vram = vram_for(args, path, total // 4, "-c", "2048", "--memory", "40G")
    floor = plan(args, path, "-c", "2048", "--vram", str(vram))["floor_bytes"]
    memory = ["--memory", str(floor + (total - total // 4 + 300) * slot)]
    runs = [(kind, slot, "up", [*memory, "--tiers", kind]) for kind in ("exclusive", "inclusive")]
    return {"rates": rates, **tiers(args, path, vram, runs, rates, None)}


def part_oss(args):
    other = os.path.join(args.models, SHAPES["30b"][1])
    for path in (other, args.m30 if args.remove else None):
        if path and os.path.exists(path):
            os.unlink(path)
    path = model(args, "oss")
    one = plan(args, path, "-c", "2048", "--vram", "16G", "--memory", "40G")
    slot, part = one["slot_bytes"], one["slot_bytes"] // 3
    rates = piece_rates(args, path, [slot, part])
    resident = None
    try:
        resident = decode(args, path, "--memory", "20G")
        say(f"  on the device: {resident['tokens_s']} tokens/s")
    except (SystemExit, subprocess.TimeoutExpired) as e:
        say(f"  on the device: {e}")
    device_ms = resident["ms_per_token"] if resident else None
    memory = str(one["floor_bytes"] + (one["experts_total"] - one["slots"] + 100) * slot)
    runs = [("mapped", part, "mapped", ["--memory", "70G", "--host-tier", "mapped"]),
            ("exclusive slots", slot, "up", ["--memory", memory, "--tiers", "exclusive"])]
    return {"rates": rates, "resident": resident, **tiers(args, path, 16 << 30, runs, rates, device_ms)}


def part_cold(args):
    path = os.path.join(args.drive, "moeflux-cold.gguf")
    start = time.monotonic()
    if not os.path.exists(path):
        begin = time.monotonic()
        if args.m30 and os.path.exists(args.m30):
            run(["cp", args.m30, path])
        else:
            run([args.bin, "synth", *SHAPES["30b"][0], "-o", path, "--no-progress"])
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        say(f"  written in {time.monotonic() - begin:.0f} s")
    made = plan(args, path, "-c", "2048", "--vram", "7G", "--memory", "4G")
    part = made["slot_bytes"] // 3
    runs = []
    for options in (["--direct-io", "auto"], ["--direct-io", "on"], ["--direct-io", "on", "--host-tier", "slots", "--tiers", "inclusive"]):
        begin = time.monotonic()
        if runs and begin - start + runs[-1]["seconds"] > args.limit:
            say(f"    {' '.join(options)}: not run, {args.limit} s are over")
            continue
        streaming.drop_caches(path)
        before = streaming.bandwidth(path, part, 2)
        streaming.drop_caches(path)
        try:
            got = decode(args, path, "--vram", "7G", "--memory", "4G", *options, n=min(args.n, 56))
        except (SystemExit, subprocess.TimeoutExpired) as e:
            say(f"    {e}")
            runs.append({"failed": str(e), "seconds": time.monotonic() - begin})
            continue
        streaming.drop_caches(path)
        drive = (before + streaming.bandwidth(path, part, 2)) / 2
        t = got["per_token"]
        got["drive_bytes_s"] = {"ceiling": round(drive), "reached": round(t["bytes_read"] * got["tokens_s"])}
        got["drive_busy"] = round(t["bytes_read"] * got["tokens_s"] / drive, 3)
        hold_against(got, None, None, drive)
        say(f"    drive: reads under way {got['drive_reading_share']:.3f} of the time, {got['drive_busy']:.3f} of its measured "
            f"{drive / 1e9:.2f} GB/s")
        got["seconds"] = round(time.monotonic() - begin, 1)
        runs.append(got)
    if not args.keep:
        os.unlink(path)
    return {"plan": made, "runs": runs}


PARTS = {"copies": part_copies, "resident": part_resident, "quarter": part_quarter, "exclusive": part_exclusive,
         "oss": part_oss, "cold": part_cold}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    benchlib.add_arguments(parser, "cuda-PART.json")
    parser.add_argument("--commit", default=benchlib.commit(), help="that --bin was built from; default: this tree's")
    parser.add_argument("--part", action="append", choices=sorted(PARTS), required=True)
    parser.add_argument("--models", default="/dev/shm", help="folder for models, in memory; default /dev/shm")
    parser.add_argument("--drive", default=tempfile.gettempdir(), help="folder on a drive, for cold")
    parser.add_argument("--m30", help="the Qwen3-30B-A3B file, if it is there already")
    parser.add_argument("--oss", help="the gpt-oss-120b file, if it is there already")
    parser.add_argument("--remove", action="store_true", help="oss may remove --m30's file for room")
    parser.add_argument("--keep", action="store_true", help="cold leaves its file on the drive")
    parser.add_argument("--peer", help="llama.cpp's llama-bench, built with CUDA")
    parser.add_argument("--copies", help="bench/cuda_copies.cu, built; default: it is built here")
    parser.add_argument("--limit", type=int, default=150, help="cold begins no run that may end later (s); default 150")
    parser.add_argument("--rounds", type=int, default=2, help="of resident; default 2")
    parser.add_argument("-n", type=int, default=160, help="tokens to decode; default 160")
    parser.add_argument("--skip", type=int, default=24, help="of them, the first that don't count; default 24")
    args = parser.parse_args()
    result = args.result
    for part in args.part:
        say(part)
        args.facts = {}
        begin = time.monotonic()
        content = PARTS[part](args)
        gpu = None
        if shutil.which("nvidia-smi"):
            gpu = run(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"])[0].strip()
        args.result = result.replace("PART", part)
        benchlib.record(args, f"bench/cuda.py --part {part}: see its text", __doc__.split("\n\n")[-1].strip(), gpu=gpu,
                        seconds=round(time.monotonic() - begin, 1), facts=args.facts, **content)
        say(f"  {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
