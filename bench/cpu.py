#!/usr/bin/env python3
"""Prompts and decoding on the CPU beside llama.cpp, on models of a published shape.

    bench/cpu.py [--bin build/moeflux] [--peer PYTHON] [--dir /tmp/bench] [--layers N] [--runs 5]

Makes models with random weights of Qwen3-30B-A3B's shape in --dir, outside the tree: GGUF files of
each type with `moeflux synth`, and a folder of MLX 4-bit safetensors. The engines take turns, run for
run, each in a process of its own, so that what else the machine does hits both alike; `moeflux bench`
measures in every turn what the threads can read of memory at best. The peer is llama.cpp as the
Python package xllamacpp has it (tools/llama_compare.py says how to install it), given random token
ids of the same number, its own timings taken; without --peer only moeflux runs. MLX folders have no
peer.
"""
import argparse
import json
import os
import random
import statistics
import struct
import subprocess
import sys

import benchlib

SHAPE = {"arch": "qwen3_moe", "shape": "30b-a3b"}
N_LAYERS, HIDDEN, N_VOCAB, N_EXPERTS, WIDTH = 48, 2048, 151936, 128, 768
N_HEAD, N_KV_HEAD, HEAD_DIM = 32, 4, 128
GROUP = 64
CASES = ["q4_k", "mlx4", "q8_0", "mxfp4"]


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


def model_of(args, case):
    name = f"{SHAPE['shape']}-{args.layers}-{case}"
    path = os.path.join(args.dir, name if case == "mlx4" else name + ".gguf")
    if os.path.exists(path):
        return path
    os.makedirs(args.dir, exist_ok=True)
    print(f"making {name}", file=sys.stderr, flush=True)
    if case == "mlx4":
        write_mlx(path, args.layers)
    else:
        subprocess.run([args.bin, "synth", "--arch", SHAPE["arch"], "--shape", SHAPE["shape"],
                        "--quant", case, "--layers", str(args.layers), "-o", path, "--no-progress"],
                       check=True)
    return path


# ---- engines ----

def run_moeflux(args, path):
    rows = benchlib.run_json([args.bin, "bench", "-m", path, "-p", str(args.prompt), "-n",
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


def peer_main(path, n_prompt, n_gen, n_threads):
    """In a process of its own, under the peer's Python."""
    import xllamacpp as x
    p = x.CommonParams()
    p.model.path = path
    p.n_ctx, p.n_parallel, p.n_gpu_layers = n_prompt + n_gen + 64, 1, 0
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = n_threads
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    server = x.Server(p)
    rng = random.Random(2)
    timings = None
    for _ in range(2): # the first run warms up
        ids = [rng.randrange(100, 100000) for _ in range(n_prompt)]
        reply = server.handle_completions({"prompt": ids, "n_predict": n_gen, "max_tokens": n_gen,
                                           "temperature": 0, "ignore_eos": True,
                                           "cache_prompt": False, "timings_per_token": True})
        timings = reply.get("timings")
    out.write(json.dumps(timings) + "\n")
    out.flush()
    os._exit(0) # the server's threads needn't end in order


def run_peer(args, path):
    done = subprocess.run([args.peer, os.path.abspath(__file__), "--peer-main", path,
                           str(args.prompt), str(args.gen), str(args.threads)],
                          capture_output=True, text=True, check=True)
    t = json.loads(done.stdout)
    if not t or t["prompt_n"] < args.prompt - 1:
        raise SystemExit(f"{path}: the peer's timings are missing or of another prompt: {t}")
    return {"prompt_tokens_s": round(t["prompt_per_second"], 2),
            "decode_tokens_s": round(t["predicted_per_second"], 2)}


def measure(args, case):
    path = model_of(args, case)
    result = {"case": case, "layers": args.layers, "moeflux": [], "llama_cpp": []}
    for _ in range(args.runs):
        busy = benchlib.settle(args.wait)
        result["moeflux"].append({**run_moeflux(args, path), "busy_before": busy})
        if args.peer and case != "mlx4":
            result["llama_cpp"].append(run_peer(args, path))
    for key in ("prompt_tokens_s", "decode_tokens_s", "decode_of_ceiling"):
        result[key] = benchlib.summary([r[key] for r in result["moeflux"]])
        if result["llama_cpp"] and key != "decode_of_ceiling":
            pairs = [a[key] / b[key] for a, b in zip(result["moeflux"], result["llama_cpp"])]
            result[key + "_over_llama_cpp"] = round(statistics.median(pairs), 2)
    print(case, {k: v for k, v in result.items() if isinstance(v, (dict, float))}, flush=True)
    if not args.keep and case != "mlx4":
        os.unlink(path)
    return result


def main():
    if sys.argv[1:2] == ["--peer-main"]:
        peer_main(sys.argv[2], *map(int, sys.argv[3:6]))
    ap = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    benchlib.add_arguments(ap, "cpu.json")
    ap.add_argument("--peer", help="a Python that has xllamacpp")
    ap.add_argument("--dir", default="/tmp/bench", help="where models are made")
    ap.add_argument("--cases", default=",".join(CASES))
    ap.add_argument("--layers", type=int, default=N_LAYERS)
    ap.add_argument("--prompt", type=int, default=512)
    ap.add_argument("--gen", type=int, default=64)
    ap.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--wait", type=float, default=60, help="seconds to wait for an idle machine")
    ap.add_argument("--keep", action="store_true", help="keep the GGUF files that were made")
    args = ap.parse_args()
    results = [measure(args, case) for case in args.cases.split(",")]
    benchlib.record(args, "Prompts and decoding on the CPU beside llama.cpp",
                    f"random weights of {SHAPE['shape']}'s shape, {args.layers} of {N_LAYERS} layers; "
                    f"{args.prompt} tokens of prompt, {args.gen} decoded, {args.threads} threads; "
                    "tokens a second, medians of runs that took turns; ratios are medians of pairs",
                    results=results)


if __name__ == "__main__":
    main()
