#!/usr/bin/env python3
"""Holds GGUF files that `moeflux convert` writes against llama.cpp.

Converts a model to every GGUF type, lets llama.cpp load each file and continue prompts greedily, and
checks that moeflux, given the same tokens, finds each of them the best choice, too. Where it doesn't,
the gap between its two best logits says whether that is a near-tie. Also compares what the K quantisers
and llama.cpp's lose of random weights.

The peer is llama.cpp 0.6.0-dev inside the Python package xllamacpp (a prebuilt CPU wheel; what was recorded used this one):

    python3 -m venv peer && peer/bin/pip install xllamacpp==2026.10.11549 numpy gguf==0.19.0
    peer/bin/python tools/llama_compare.py --bin build/moeflux models/pocket-dictionary ORACLE/hf/qwen3_moe ...

MODEL,KEY=JSON,... changes config.json first (KEY may name a member of an object: rope_parameters.truncate), for what llama.cpp takes otherwise
than the models' own code: dots1 has as many key as query heads there (num_key_value_heads repeats them); it rounds YaRN's ramp, and rates DeepSeek-V2's groups by their two best experts instead of the best. What was
recorded of all families:

    tools/llama_compare.py --types f32 q8_0 q4_k --result bench/results/gguf-families.json ORACLE/hf/{mixtral,olmoe,...} \
        ORACLE/hf/deepseek_v2,topk_method='"greedy"' ORACLE/hf/gpt_oss,rope_parameters.truncate=true

A model folder without a tokenizer gets a made-up one for the comparison, since the peer needs one.
"""
import argparse
import ctypes
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bench"))
import benchlib

TYPES = ["f32", "bf16", "f16", "q8_0", "q6_k", "q4_k", "q4_0"] # and mxfp4, which is for its own
QUANT_NUMBERS = {"q4_0": (2, 32, 18), "q8_0": (8, 32, 34), "q4_k": (12, 256, 144), "q6_k": (14, 256, 210)}
# Float32 leaves no room but for a tie. The peer rounds activations to 16 bits for 16-bit weights and to its own
# 8-bit blocks for quantised ones; with the random weights of a tiny model, whose logits lie close together and
# whose routers are often undecided, that turns a token here and there.
TIE = 1e-3
LEAST_AGREEMENT = 0.85
LOGPROB_TIE = 1e-3 # the same for the forced comparison, where a router's choice may turn, too
N_PROBS = 20


def repeat_kv_heads(folder, n_old, n_new, head_dim):
    """The same model with each key/value head as often as there are queries that share it."""
    path = os.path.join(folder, "model.safetensors")
    data = open(path, "rb").read()
    end = 8 + int.from_bytes(data[:8], "little")
    header, parts, at = json.loads(data[8:end]), [], 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, stop = entry["data_offsets"]
        raw = data[end + begin:end + stop]
        if re.search(r"self_attn\.[kv]_proj\.", name):
            rows = np.frombuffer(raw, np.uint8).reshape(n_old, -1)
            raw = np.repeat(rows, n_new // n_old, axis=0).tobytes()
            entry["shape"][0] = n_new * head_dim
        entry["data_offsets"] = [at, at + len(raw)]
        at += len(raw)
        parts.append(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    open(path, "wb").write(len(text).to_bytes(8, "little") + text + b"".join(parts))


def change_config(folder, changes):
    path = os.path.join(folder, "config.json")
    config = json.load(open(path))
    for change in changes:
        key, value = change.split("=", 1)
        *outer, last = key.split(".")
        members = config
        for name in outer:
            members = members[name]
        if key == "num_key_value_heads":
            repeat_kv_heads(folder, config[key], int(value), config["head_dim"])
        members[last] = json.loads(value)
    json.dump(config, open(path, "w"))


def with_tokenizer(model, changes, work):
    """The model's folder, or a copy with a tokenizer whose every token is a word: only ids are given to it."""
    if os.path.isfile(model) or os.path.exists(os.path.join(model, "tokenizer.json")):
        return model
    folder = os.path.join(work, "model")
    shutil.copytree(model, folder, copy_function=shutil.copyfile)
    change_config(folder, changes)
    n_vocab = json.load(open(os.path.join(folder, "config.json")))["vocab_size"]
    vocab = {f"w{i}.": i for i in range(n_vocab)}
    pattern = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
               "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")
    json.dump({
        "version": "1.0", "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
        "post_processor": None, "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocab, "merges": []}},
        open(os.path.join(folder, "tokenizer.json"), "w"))
    return folder


def end_tokens(model):
    """Ids that end a text; a GGUF file's are in the file it came from."""
    config = json.load(open(os.path.join(model, "config.json")))
    ids = config.get("text_config", config).get("eos_token_id", config.get("eos_token_id", []))
    return ids if isinstance(ids, list) else [ids]


def prompts_of(model, n):
    """Token ids to start from, and the answers wanted, where there are any."""
    questions = os.path.join(model, "eval.jsonl")
    if os.path.exists(questions):
        return [json.loads(line) for line in open(questions)][:n]
    rng = np.random.default_rng(1)
    n_vocab = json.load(open(os.path.join(model, "config.json")))["vocab_size"]
    return [{"ids": [int(i) for i in rng.integers(3, n_vocab, 24)]} for _ in range(min(n, 4))]


def peer_main(path):
    """Runs in a process of its own: requests on standard input, results on standard output."""
    import xllamacpp as x
    p = x.CommonParams()
    p.model.path = path
    p.n_ctx, p.n_parallel, p.n_gpu_layers, p.warmup = 1024, 1, 0, False
    p.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    p.cache_type_k = p.cache_type_v = x.ggml_type.GGML_TYPE_F32
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1 # barriers cost too much on a busy machine
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    server = x.Server(p)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            out.write(json.dumps(server.handle_completions(request)) + "\n")
        except Exception as e:  # the tool reports it
            out.write(json.dumps({"error": str(e)}) + "\n")
        out.flush()


class Peer:
    def __init__(self, path):
        self.process = subprocess.Popen([sys.executable, __file__, "--peer", path], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline() or '{"error": "nothing: it did not load the file"}')

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def moeflux_logits(moeflux, model, ids, work, activations):
    ids_path, out = os.path.join(work, "ids"), os.path.join(work, "logits")
    open(ids_path, "w").write(" ".join(map(str, ids)))
    if os.path.exists(out):
        os.unlink(out)
    subprocess.run([moeflux, "logits", "-m", model, "--ids", ids_path, "-o", out, "--activations", activations,
                    "--no-progress"], check=True)
    return np.fromfile(out, "<f4").reshape(len(ids), -1)


def tokenize(moeflux, model, text):
    out = subprocess.run([moeflux, "tokenize", "-m", model, "-p", text], check=True, capture_output=True, text=True)
    return [int(i) for i in out.stdout.split()]


def log_softmax(row):
    row = row.astype(np.float64) - row.max()
    return row - np.log(np.exp(row).sum())


def judge(row, chosen, gaps):
    """Notes the gap to moeflux's best choice, and the peer's between its two best, if it isn't the peer's."""
    if int(row.argmax()) != chosen["id"]:
        top = [t["logprob"] for t in chosen["top_logprobs"]]
        gaps.append({"moeflux": round(float(row.max() - row[chosen["id"]]), 4),
                     "peer": round(float(top[0] - top[1]), 4)})


def compare(moeflux, path, source, prompts, n_predict, work):
    """One file: greedy tokens of the peer, judged by moeflux with float and with 8-bit activations."""
    peer = Peer(path)
    result = {"tokens": 0, "answers": 0, "answers_right": 0}
    ties = {a: [] for a in ("f32", "q8")}
    differences = []
    for p in prompts:
        ids = p.get("ids") or tokenize(
            moeflux, source, f"<|im_start|>user\n{p['question']}<|im_end|>\n<|im_start|>assistant\n")
        goes_on = "answer" not in p # the peer is told to ignore the end token: it forbids it
        reply = peer.ask(prompt=ids, max_tokens=n_predict, temperature=0, logprobs=N_PROBS, ignore_eos=goes_on)
        if "error" in reply:
            raise RuntimeError(f"{path}: the peer says: {reply['error']}")
        choice = reply["choices"][0]
        content = choice["logprobs"]["content"]
        new = [t["id"] for t in content]
        if not goes_on:
            result["answers"] += 1
            result["answers_right"] += choice["text"] == p["answer"]
        result["tokens"] += len(new)
        for activations, gaps in ties.items():
            logits = moeflux_logits(moeflux, path, ids + new, work, activations)
            for i, token in enumerate(content):
                row = logits[len(ids) + i - 1]
                if activations == "f32":
                    own = log_softmax(row)
                    differences += [abs(own[t["id"]] - t["logprob"]) for t in token["top_logprobs"]]
                if goes_on:
                    row = row.copy()
                    row[end_tokens(source)] = -np.inf
                judge(row, token, gaps)
    peer.close()
    for activations, gaps in ties.items():
        result[f"other_choices_{activations}"] = gaps
    others = min(len(gaps) for gaps in ties.values())
    result["agreement"] = round(1 - others / result["tokens"], 4)
    result["logprob_difference_mean"] = float(f"{np.mean(differences):.3g}")
    result["logprob_difference_max"] = float(f"{np.max(differences):.3g}")
    exact = path.endswith("/f32.gguf")
    widest = max((g["moeflux"] for g in ties["f32"]), default=0)
    result["ok"] = bool(widest < TIE and max(differences) < LOGPROB_TIE if exact else
                        result["agreement"] >= LEAST_AGREEMENT)
    return result


def quantisers(library, moeflux, work):
    """RMSE of moeflux's quantisers over that of the peer's, on a tiny model's worth of random weights."""
    import gguf
    peer = ctypes.CDLL(library)
    peer.ggml_quantize_chunk.restype = ctypes.c_size_t
    results = {}
    source = os.path.join(work, "f32.gguf")
    for name, (number, block, size) in QUANT_NUMBERS.items():
        ours = {t.name: t for t in gguf.GGUFReader(os.path.join(work, f"{name}.gguf")).tensors}
        ratios = []
        for t in gguf.GGUFReader(source).tensors:
            if int(ours[t.name].tensor_type) != number:
                continue
            x = np.ascontiguousarray(t.data, np.float32).reshape(-1, t.shape[0])
            theirs = np.zeros((x.shape[0], x.shape[1] // block * size), np.uint8)
            peer.ggml_quantize_chunk(number, x.ctypes.data_as(ctypes.c_void_p), theirs.ctypes.data_as(ctypes.c_void_p),
                                     ctypes.c_int64(0), ctypes.c_int64(x.shape[0]), ctypes.c_int64(x.shape[1]), None)
            kind = gguf.GGMLQuantizationType(number)
            a = gguf.quants.dequantize(ours[t.name].data.reshape(theirs.shape), kind)
            b = gguf.quants.dequantize(theirs, kind)
            ratios.append(float(np.sqrt(((a - x) ** 2).mean() / ((b - x) ** 2).mean())))
        if ratios:
            results[name] = {"tensors": len(ratios), "rmse_over_llama_cpp_mean": round(float(np.mean(ratios)), 4),
                             "worst": round(max(ratios), 4)}
    return results


def peer_library():
    import xllamacpp
    return glob.glob(os.path.join(os.path.dirname(xllamacpp.__file__), "*.so"))[0]


def peer_name():
    import xllamacpp
    version = ctypes.CDLL(peer_library()).llama_version
    version.restype = ctypes.c_char_p
    return f"llama.cpp {version().decode()} (xllamacpp {xllamacpp.__version__})"


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--peer":
        return peer_main(sys.argv[2])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    benchlib.add_arguments(parser, "gguf-roundtrip.json")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--types", nargs="+", default=TYPES)
    parser.add_argument("--prompts", type=int, default=10)
    parser.add_argument("--predict", type=int, default=32)
    args = parser.parse_args()
    library, models = peer_library(), {}
    failed = False
    for model in args.models:
        name = os.path.basename(os.path.normpath(model))
        model, *changes = model.split(",")
        models[name] = {}
        with tempfile.TemporaryDirectory() as work:
            source = with_tokenizer(model, changes, work)
            for kind in args.types:
                path = os.path.join(work, f"{kind}.gguf")
                subprocess.run([args.bin, "convert", source, path, "--quant", kind, "--no-progress"], check=True)
                try:
                    result = compare(args.bin, path, source, prompts_of(model, args.prompts), args.predict, work)
                except RuntimeError as e:
                    result = {"error": str(e).replace(work, ""), "ok": False}
                models[name][kind] = result
                failed |= not result["ok"]
                print(name, kind, json.dumps(result), flush=True)
            if result["ok"] and set(args.types) >= {"f32", *QUANT_NUMBERS}:
                models[name]["quantisers"] = quantisers(library, args.bin, work)
                print(name, json.dumps(models[name]["quantisers"]), flush=True)
    benchlib.record(args, "GGUF files written by convert, in llama.cpp and in moeflux",
                    f"greedy tokens of the peer, at most {args.predict} a prompt, judged by moeflux on the same tokens; "
                    f"log-probabilities of the peer's {N_PROBS} likeliest tokens at each, float activations",
                    peer=peer_name(), models=models)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
