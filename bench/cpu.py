#!/usr/bin/env python3
"""Prompts and decoding on the CPU beside llama.cpp and beside memory, on models of a published shape.

    bench/cpu.py [--bin build/moeflux] [--peer PYTHON] [--cases q4_k,q8_0:24] [--layers N] [--minutes 12]

Makes models with random weights of Qwen3-30B-A3B's shape in --dir, outside the tree: GGUF files of
each type with `moeflux synth`, and a folder of MLX 4-bit safetensors. --layers, or a number after a
case, cuts them to what fits: 48 of Q4_K are 17.3 GB, which have to fit in memory beside 4 GB; the file's pages needn't, but then it is
read again by each process.

Pairs: the engines take turns, run for run, each in a process of its own, so that what else the machine
does hits both alike; who begins changes from pair to pair. `moeflux bench` measures in every turn what
the threads can read of memory at best: decoding's share of that ceiling is of one process and one
minute, and what is reported is the median of the pairs, 5 unless --minutes for a case ends them
earlier (a pair of the whole model takes about 130 s, most of it loading). The peer is llama.cpp as the Python
package xllamacpp has it (tools/llama_compare.py says how to install it), with its repacking of weights unless
--no-repack, load time left out. Both get random token ids of the same number, and both decode from the
first position on: prompt and decoding are requests of their own. Without --peer only moeflux runs. MLX
folders have no peer; --before is another build of moeflux that takes turns with this one. Their prompts are compared with those of Q4_K, taken in the same run if both are
among --cases.
"""
import argparse
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import time

import benchlib

SHAPE = {"arch": "qwen3_moe", "shape": "30b-a3b"}
N_LAYERS, HIDDEN, N_VOCAB, N_EXPERTS, WIDTH = 48, 2048, 151936, 128, 768
N_HEAD, N_KV_HEAD, HEAD_DIM = 32, 4, 128
GROUP = 64
CASES = {"q4_k": 4.5, "mlx4": 4.5, "q8_0": 8.5, "mxfp4": 4.5} # bits a weight, about


# ---- models ----

def mlx_tensors(n_layers):
    """(name, dtype, shape) of every tensor; matrices as weight, scales, biases."""
    def matrix(name, *dims):
        yield name + ".weight", "U32", [*dims[:-1], dims[-1] // 8]
        yield name + ".scales", "BF16", [*dims[:-1], dims[-1] // GROUP]
        yield name + ".biases", "BF16", [*dims[:-1], dims[-1] // GROUP]
    yield from matrix("model.embed_tokens", N_VOCAB, HIDDEN)
    yield from matrix("lm_head", N_VOCAB, HIDDEN)
    yield "model.norm.weight", "BF16", [HIDDEN]
    for i in range(n_layers):
        p = f"model.layers.{i}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield p + norm + ".weight", "BF16", [HIDDEN]
        for norm in ("q_norm", "k_norm"):
            yield p + f"self_attn.{norm}.weight", "BF16", [HEAD_DIM]
        yield from matrix(p + "self_attn.q_proj", N_HEAD * HEAD_DIM, HIDDEN)
        yield from matrix(p + "self_attn.k_proj", N_KV_HEAD * HEAD_DIM, HIDDEN)
        yield from matrix(p + "self_attn.v_proj", N_KV_HEAD * HEAD_DIM, HIDDEN)
        yield from matrix(p + "self_attn.o_proj", HIDDEN, N_HEAD * HEAD_DIM)
        yield from matrix(p + "mlp.gate", N_EXPERTS, HIDDEN)
        yield from matrix(p + "mlp.switch_mlp.gate_proj", N_EXPERTS, WIDTH, HIDDEN)
        yield from matrix(p + "mlp.switch_mlp.up_proj", N_EXPERTS, WIDTH, HIDDEN)
        yield from matrix(p + "mlp.switch_mlp.down_proj", N_EXPERTS, HIDDEN, WIDTH)


def write_mlx(folder, n_layers):
    """Random codes; scales and biases that keep values small and their mean at zero."""
    os.makedirs(folder)
    size = {"U32": 4, "BF16": 2}
    bf16 = {"scales": 0x3b00, "biases": 0xbc70, "weight": 0x3f80} # 2^-9, -7.5 times that, 1 for norms
    header, at = {}, 0
    for name, dtype, shape in mlx_tensors(n_layers):
        n = size[dtype]
        for dim in shape:
            n *= dim
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = random.Random(1)
    noise = rng.randbytes(1 << 20)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in header.items():
            left = tensor["data_offsets"][1] - tensor["data_offsets"][0]
            if tensor["dtype"] == "U32":
                while left:
                    start = rng.randrange(0, 1 << 16) * 4
                    piece = noise[start:start + left]
                    f.write(piece)
                    left -= len(piece)
            else:
                f.write(struct.pack("<H", bf16[name.rsplit(".", 1)[1]]) * (left // 2))
    quantization = {"group_size": GROUP, "bits": 4}
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
        json.dump({"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"],
                   "hidden_size": HIDDEN, "num_hidden_layers": n_layers, "vocab_size": N_VOCAB,
                   "num_attention_heads": N_HEAD, "num_key_value_heads": N_KV_HEAD,
                   "head_dim": HEAD_DIM, "num_experts": N_EXPERTS, "num_experts_per_tok": 8,
                   "moe_intermediate_size": WIDTH, "intermediate_size": 6144, "norm_topk_prob": True,
                   "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "max_position_embeddings": 40960,
                   "decoder_sparse_step": 1, "mlp_only_layers": [], "tie_word_embeddings": False,
                   "hidden_act": "silu", "attention_bias": False,
                   "quantization": quantization, "quantization_config": quantization}, f)


def model_of(args, case, n_layers):
    name = f"{SHAPE['shape']}-{n_layers}-{case}"
    path = os.path.join(args.dir, name if case == "mlx4" else name + ".gguf")
    if os.path.exists(path):
        return path
    os.makedirs(args.dir, exist_ok=True)
    print(f"making {name}", file=sys.stderr, flush=True)
    if case == "mlx4":
        write_mlx(path, n_layers)
    else:
        subprocess.run([args.bin, "synth", "--arch", SHAPE["arch"], "--shape", SHAPE["shape"],
                        "--quant", case, "--layers", str(n_layers), "-o", path, "--no-progress"],
                       check=True)
    return path


# ---- engines ----

def run_moeflux(args, path, program):
    rows = benchlib.run_json([program, "bench", "-m", path, "-p", str(args.prompt), "-n",
                              str(args.gen), "-r", "1", "-t", str(args.threads), "-o", "json",
                              "--no-progress"])
    run = {"ceiling_gb_s": rows[0]["ceiling_gb_s"], "isa": rows[0]["isa"],
           "activations": rows[0]["activations"]}
    for row in rows:
        key = "prompt" if row["n_prompt"] else "decode"
        run[key + "_tokens_s"] = round(row["avg_ts"], 2)
        if row["n_gen"]:
            run["decode_gb_s"] = row["gb_s"]
            run["decode_of_ceiling"] = round(row["gb_s"] / row["ceiling_gb_s"], 3)
    return run


def peer_main(path, n_prompt, n_gen, n_threads, repack):
    """In a process of its own, under the peer's Python."""
    import peer
    p = peer.Peer(path, n_prompt + n_gen + 64, n_threads, repack=bool(repack), seed=2)
    result = {"load_s": round(p.load_s, 1)}
    p.ask(min(n_prompt, 64) or 1, min(n_gen, 8) or 1) # warms up
    if n_prompt:
        result["prompt"] = p.ask(n_prompt, 1)
    if n_gen:
        result["decode"] = p.ask(1, n_gen)
    p.say(json.dumps(result))
    peer.leave()


def run_peer(args, path):
    done = subprocess.run([args.peer, os.path.abspath(__file__), "--peer-main", path,
                           str(args.prompt), str(args.gen), str(args.threads), str(int(args.repack))],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the peer: exit {done.returncode}: {done.stderr.strip()[-500:]}")
    r = json.loads(done.stdout)
    run = {"load_s": r["load_s"]}
    if args.prompt:
        if r["prompt"].get("prompt_n", 0) < args.prompt - 1:
            raise SystemExit(f"{path}: the peer's timings are missing or of another prompt: {r}")
        run["prompt_tokens_s"] = round(r["prompt"]["prompt_per_second"], 2)
    if args.gen:
        if r["decode"].get("predicted_n", 0) < args.gen - 1:
            raise SystemExit(f"{path}: the peer's timings are missing or of other tokens: {r}")
        run["decode_tokens_s"] = round(r["decode"]["predicted_per_second"], 2)
    return run


def bytes_of(path):
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(path, name)) for name in os.listdir(path))


def check_room(case, n_layers):
    """What doesn't fit is streamed, which is another measurement."""
    layer = 3 * N_EXPERTS * HIDDEN * WIDTH + 2 * HIDDEN * HEAD_DIM * (N_HEAD + N_KV_HEAD)
    size = (n_layers * layer + 2 * N_VOCAB * HIDDEN) * CASES[case] / 8
    with open("/proc/meminfo", encoding="ascii") as f:
        available = int(re.search(r"MemAvailable: +(\d+) kB", f.read()).group(1)) << 10
    if size + (4 << 30) > available:
        raise SystemExit(f"{n_layers} layers of {case} have {size / 1e9:.1f} GB and {available / 1e9:.1f} GB are "
                         f"there: fewer layers ({case}:N)")


def take_pair(args, path, result, i):
    busy = benchlib.settle(args.wait)
    peer = args.peer and result["case"] != "mlx4"
    for engine in ("moeflux", "before", "llama_cpp")[::1 if i % 2 == 0 else -1]:
        if engine == "moeflux":
            result["moeflux"].append({**run_moeflux(args, path, args.bin), "busy_before": busy})
        elif engine == "before" and args.before:
            result["before"].append(run_moeflux(args, path, args.before))
        elif peer:
            result["llama_cpp"].append(run_peer(args, path))


def measure(args, case):
    case, _, n_layers = case.partition(":")
    n_layers = int(n_layers or args.layers)
    check_room(case, n_layers)
    path = model_of(args, case, n_layers)
    result = {"case": case, "layers": n_layers, "bytes": bytes_of(path), "moeflux": [], "before": [], "llama_cpp": []}
    start, longest = time.monotonic(), 0.0
    for i in range(args.runs):
        begin = time.monotonic()
        if i and begin - start + longest > args.minutes * 60:
            break
        take_pair(args, path, result, i)
        longest = max(longest, time.monotonic() - begin)
    result["pairs"] = len(result["moeflux"])
    for key in ("prompt_tokens_s", "decode_tokens_s", "decode_of_ceiling", "ceiling_gb_s"):
        if key not in result["moeflux"][0]:
            continue
        result[key] = benchlib.summary([r[key] for r in result["moeflux"]])
        if result["before"]:
            pairs = [a[key] / b[key] for a, b in zip(result["moeflux"], result["before"])]
            result["before_" + key] = benchlib.summary([r[key] for r in result["before"]])
            result[key + "_over_before"] = benchlib.summary(pairs)
        if result["llama_cpp"] and key in result["llama_cpp"][0]:
            pairs = [a[key] / b[key] for a, b in zip(result["moeflux"], result["llama_cpp"])]
            result["llama_cpp_" + key] = benchlib.summary([r[key] for r in result["llama_cpp"]])
            result[key + "_over_llama_cpp"] = benchlib.summary(pairs)
    print(case, {k: v for k, v in result.items() if isinstance(v, (dict, float, int))}, flush=True)
    if not args.keep:
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    return result


def main():
    if sys.argv[1:2] == ["--peer-main"]:
        peer_main(sys.argv[2], *map(int, sys.argv[3:7]))
    ap = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    benchlib.add_arguments(ap, "cpu.json")
    ap.add_argument("--peer", help="a Python that has xllamacpp")
    ap.add_argument("--before", help="another build of moeflux, in turns with --bin")
    ap.add_argument("--dir", default="/tmp/bench", help="where models are made")
    ap.add_argument("--cases", default=",".join(CASES))
    ap.add_argument("--layers", type=int, default=N_LAYERS)
    ap.add_argument("--prompt", type=int, default=512)
    ap.add_argument("--gen", type=int, default=64)
    ap.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    ap.add_argument("--runs", type=int, default=5, help="pairs of a case, at most; default 5")
    ap.add_argument("--minutes", type=float, default=12,
                    help="no pair of a case begins that would end later; default 12")
    ap.add_argument("--no-repack", dest="repack", action="store_false",
                    help="the peer's weights as they are in the file")
    ap.add_argument("--wait", type=float, default=20, help="seconds to wait for an idle machine")
    ap.add_argument("--keep", action="store_true", help="keep the models that were made")
    ap.add_argument("--add", action="store_true", help="keep the result file's other cases")
    args = ap.parse_args()
    unknown = {c for c in args.cases.split(",") if c.partition(":")[0] not in CASES}
    if unknown:
        ap.error(f"--cases {','.join(sorted(unknown))}: none of {','.join(CASES)}")
    results = {}
    if args.add and os.path.exists(args.result):
        with open(args.result, encoding="utf-8") as f:
            results = {r["case"]: r for r in json.load(f)["results"]}
    for case in args.cases.split(","): # kept case by case: the next may end the machine's memory
        result = measure(args, case)
        results[result["case"]] = {**result, "commit": args.commit}
        record(args, list(results.values()))


def record(args, results):
    prompts = {r["case"]: r["prompt_tokens_s"]["median"] for r in results if "prompt_tokens_s" in r}
    ratio = {}
    if "mlx4" in prompts and "q4_k" in prompts:
        ratio["mlx4_prompt_over_q4_k"] = round(prompts["mlx4"] / prompts["q4_k"], 3)
    benchlib.record(args, "Prompts and decoding on the CPU beside llama.cpp",
                    f"random weights of {SHAPE['shape']}'s shape, as many of its {N_LAYERS} layers as said; "
                    f"{args.prompt} tokens of prompt, {args.gen} decoded, {args.threads} threads; "
                    "tokens a second; medians of runs that took turns, ratios of pairs; the peer "
                    + ("repacks its weights" if args.repack else "takes its weights as they are"),
                    results=results, **ratio)


if __name__ == "__main__":
    main()
