#!/usr/bin/env python3
"""What 8-bit activations cost beside what the weights' own quantisation costs. Needs numpy.

    bench/activations_kl.py FLOAT_MODEL [--bin build/moeflux] [--tokens 4096] [--only q4_k]

Converts FLOAT_MODEL to every width, evaluates the same tokens (questions and answers of eval.jsonl in
ChatML, in sequences of 1,024) and takes, over all positions and in nats,

    activations  mean KL(f32 || q8): the same weights, activations in float and in 8 bits
    fine         mean KL(f32 || q16): the same in 16 bits
    default      the same with the engine's own choice, which may differ from weight to weight
    weights      mean KL(bf16 || f32): the float model and the quantised one, activations in float

with the softmax over the whole vocabulary in double precision; and the share of positions whose
likeliest token is the same. docs/numerics.md says what follows from it.
"""
import argparse
import json
import os
import shutil
import subprocess
import tempfile

import numpy as np

import benchlib

SEQUENCE = 1024
# name, options of convert. The second part keeps 8 bits outside the experts, as the shipped model.
CONVERSIONS = [(f"mlx{bits} group 64", ["--quant", f"mlx{bits}"]) for bits in (8, 6, 5, 4, 3, 2)] + [
    (f"mlx{bits} group 128, dense mlx8",
     ["--quant", f"mlx{bits}", "--dense-bits", "8", "--group-size", "128"]) for bits in (6, 5, 3, 2)] + [
    (f"gguf {name}", ["--quant", name]) for name in ("q8_0", "q6_k", "q4_k", "q4_0")]


def read_ids(args, n_tokens):
    """Token ids of whole dialogues, one after the other, cut into sequences."""
    with open(args.eval, encoding="utf-8") as f:
        items = [json.loads(line) for line in f]
    lines = "".join(json.dumps(f"<|im_start|>user\n{i['question']}<|im_end|>\n<|im_start|>assistant\n"
                               f"{i['answer']}<|im_end|>\n") + "\n" for i in items)
    done = subprocess.run([args.bin, "tokenize", "-m", args.float_model, "--jsonl"], input=lines,
                          capture_output=True, text=True, check=True)
    ids = [i for line in done.stdout.splitlines() for i in json.loads(line)]
    if len(ids) < n_tokens:
        raise SystemExit(f"only {len(ids)} tokens in {args.eval}")
    return [ids[i:i + SEQUENCE] for i in range(0, n_tokens, SEQUENCE)]


def log_softmax(args, model, sequences, activations, *options):
    """Log-probabilities [tokens][vocab]."""
    rows = []
    for ids in sequences:
        ids_path, out = os.path.join(args.tmp, "ids"), os.path.join(args.tmp, "logits")
        with open(ids_path, "w", encoding="utf-8") as f:
            f.write(" ".join(map(str, ids)))
        subprocess.run([args.bin, "logits", "-m", model, "--ids", ids_path, "-o", out,
                        "--activations", activations, *options, "--no-progress"],
                       check=True, capture_output=True)
        logits = np.fromfile(out, dtype="<f4").reshape(len(ids), -1).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        rows.append(logits.astype(np.float32))
    return np.concatenate(rows)


def compare(p, q):
    """Mean KL(p || q) and its standard error, and the share of equal best tokens."""
    kl = np.empty(len(p))
    for at in range(0, len(p), 256):
        a, b = p[at:at + 256].astype(np.float64), q[at:at + 256].astype(np.float64)
        kl[at:at + 256] = (np.exp(a) * (a - b)).sum(axis=1)
    return {"kl_mean": float(f"{kl.mean():.3g}"),
            "kl_error": float(f"{kl.std() / np.sqrt(len(kl)):.2g}"),
            "kl_p99": float(f"{np.quantile(kl, 0.99):.3g}"),
            "same_top": round(float((p.argmax(axis=1) == q.argmax(axis=1)).mean()), 4)}


def measure(args, name, model, sequences, reference):
    f32 = log_softmax(args, model, sequences, "f32")
    q8 = log_softmax(args, model, sequences, "q8")
    fine = log_softmax(args, model, sequences, "q16")
    auto = log_softmax(args, model, sequences, "auto")
    run = {"weights": name, "activations_kl": compare(f32, q8), "fine_kl": compare(f32, fine),
           "default_kl": compare(f32, auto),
           "weights_kl": compare(reference, f32), "weights_and_default_kl": compare(reference, auto)}
    run["ratio"] = float(f"{run['activations_kl']['kl_mean'] / run['weights_kl']['kl_mean']:.3g}")
    shown = "   ".join(f"{key[:-3]} {run[key]['kl_mean']:.3g}, same top {run[key]['same_top']:.4f}"
                       for key in ("activations_kl", "fine_kl", "default_kl", "weights_kl"))
    print(f"{name}: {shown}   ratio {run['ratio']:.3g}", flush=True)
    return run


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    benchlib.add_arguments(ap, "activations-kl.json")
    ap.add_argument("float_model")
    ap.add_argument("--eval", default=os.path.join(benchlib.SHIPPED, "eval.jsonl"))
    ap.add_argument("--tokens", type=int, default=4 * SEQUENCE)
    ap.add_argument("--only", help="conversions whose names contain this, and not the shipped model")
    args = ap.parse_args()
    conversions = [c for c in CONVERSIONS if not args.only or args.only in c[0]]
    if not conversions:
        ap.error(f"--only {args.only}: none of " + ", ".join(name for name, _ in CONVERSIONS))
    args.tmp = tempfile.mkdtemp(prefix="activations-kl-")
    try:
        sequences = read_ids(args, args.tokens)
        reference = log_softmax(args, args.float_model, sequences, "f32")
        runs = []
        if not args.only:
            runs.append(measure(args, "shipped (mlx4 group 128, dense mlx8)", benchlib.SHIPPED,
                                sequences, reference))
        for name, options in conversions:
            model = os.path.join(args.tmp, "model.gguf" if name.startswith("gguf") else "model")
            subprocess.run([args.bin, "convert", args.float_model, model, "--no-progress"] + options,
                           check=True, capture_output=True)
            runs.append(measure(args, name, model, sequences, reference))
            os.unlink(model) if model.endswith(".gguf") else shutil.rmtree(model)
    finally:
        shutil.rmtree(args.tmp)
    benchlib.record(args, "KL divergence of 8-bit activations and of quantised weights, nats",
                    f"{args.tokens} tokens of eval.jsonl in ChatML, in sequences of {SEQUENCE}; "
                    "softmax over the whole vocabulary; ratio: activations_kl / weights_kl",
                    model=benchlib.model_name(args.float_model), runs=runs)


if __name__ == "__main__":
    main()
