"""Whether a pack pays: how fast experts come from the drive out of a GGUF file, an MLX folder and the
packs made of them, through the page cache and past it.

  pack.py [--bin build/moeflux] [--layers N] [--tokens N] [--rounds N] [--work DIR]

Makes a cut model of the Qwen3-30B-A3B shape (experts of 2.6 MB, uniform routing) as GGUF (three pieces an
expert) and as MLX 4-bit folder (nine), packs both, and evaluates the same tokens one by one with a budget
that holds hardly any expert. The rate is bytes of experts over the time in which reads were under way, from
--stats. Everything is dropped from the page cache before each run; rounds are interleaved, and a ratio is
taken within a round. Needs about 3 GB in --work, which it removes.
"""
import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import tempfile

import benchlib

SOURCES = ("gguf", "mlx")


def files(path):
    if os.path.isfile(path):
        return [path]
    return [os.path.join(path, name) for name in os.listdir(path)]


def drop(path):
    for name in files(path):
        fd = os.open(name, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def call(args, *command):
    done = subprocess.run([args.bin, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]}: exit {done.returncode}: {done.stderr.strip()}")


def smallest(args, model):
    """The smallest budget that the plan accepts, to 16 MiB."""
    low, high = 0, 256
    while high - low > 1:
        mid = (low + high) // 2
        done = subprocess.run([args.bin, "plan", "-m", model, "--memory", f"{mid * 16}M", "--json", "-c", "1024",
                               "--chunk", "1"], capture_output=True, check=False)
        low, high = (low, mid) if done.returncode == 0 else (mid, high)
    return high * 16


def measure(args, model, memory, direct):
    drop(model)
    stats = os.path.join(args.work, "stats")
    if os.path.exists(stats):
        os.remove(stats)
    call(args, "logits", "-m", model, "--ids", os.path.join(args.work, "ids"), "-o", "/dev/null", "--chunk", "1",
         "-c", "1024", "--memory", f"{memory}M", "--direct-io", direct, "--stats", stats, "--no-progress")
    with open(stats, encoding="utf-8") as f:
        lines = [json.loads(line) for line in f]
    head, tokens = lines[0], lines[1:]
    n = sum(t["bytes_read"] for t in tokens)
    return {"rate": n / sum(t["reading_ns"] for t in tokens), "bytes": n, "reader": head["reader"],
            "slots": head["slots"], "experts": head["experts"] * head["layers"], "direct": head["direct"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    benchlib.add_arguments(parser, "pack.json")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", help="folder for the models; default: a new one in $TMPDIR")
    args = parser.parse_args()
    args.work = tempfile.mkdtemp(prefix="moeflux-pack-", dir=args.work)
    try:
        run(args)
    finally:
        shutil.rmtree(args.work)


def run(args):
    paths = {"gguf": os.path.join(args.work, "m.gguf"), "mlx": os.path.join(args.work, "mlx")}
    call(args, "synth", "--shape", "qwen3-30b-a3b", "--quant", "q4_k", "--layers", str(args.layers), "-o", paths["gguf"],
         "--no-progress")
    call(args, "convert", paths["gguf"], paths["mlx"], "--quant", "mlx4", "--no-progress")
    for source in SOURCES:
        paths[source + " pack"] = os.path.join(args.work, source + ".pack")
        call(args, "pack", paths[source], paths[source + " pack"], "--no-progress")
    draw = random.Random(1)
    with open(os.path.join(args.work, "ids"), "w", encoding="ascii") as f:
        f.write(" ".join(str(draw.randrange(100000)) for _ in range(args.tokens)))
    memory = {s: max(smallest(args, paths[s]), smallest(args, paths[s + " pack"])) for s in SOURCES}
    runs, ratios, facts = {}, {}, {}
    for turn in range(args.rounds):
        for direct in ("off", "on"):
            for source in SOURCES:
                pair = [source, source + " pack"]
                rate = {}
                for model in pair if turn % 2 == 0 else reversed(pair):
                    m = measure(args, paths[model], memory[source], direct)
                    rate[model] = m["rate"]
                    facts[f"{model}, direct {direct}"] = {k: m[k] for k in ("reader", "direct", "slots", "experts", "bytes")}
                    runs.setdefault(f"{model}, direct {direct}", []).append(round(m["rate"], 3))
                ratio = rate[pair[1]] / rate[pair[0]]
                ratios.setdefault(f"{source}, direct {direct}", []).append(round(ratio, 3))
                print(f"{turn} {source} direct {direct}: {rate[pair[0]]:.2f} -> {rate[pair[1]]:.2f} GB/s", flush=True)
    for name, values in ratios.items():
        print(f"{name}: pack / source {statistics.median(values):.2f}")
    benchlib.record(args, "reads of experts from a source and from its pack",
                    f"qwen3_moe 30b-a3b, {args.layers} layer(s), {args.tokens} tokens one by one, cold page cache; GB/s of "
                    "experts while reads were under way; ratios within a round",
                    memory_mib=memory, facts=facts, gb_per_s=runs, pack_to_source=ratios,
                    median_ratio={k: benchlib.summary(v) for k, v in ratios.items()})


if __name__ == "__main__":
    main()
