#!/usr/bin/env python3
"""Holds `moeflux perplexity` against llama.cpp.

    peer/bin/python tools/perplexity_compare.py --bin build/moeflux [--ctx 32] [--chunks 2] MODEL.gguf...

Cuts a text into windows as both do and asks llama.cpp (the Python package xllamacpp; tools/llama_compare.py says how to install it) for the
log-probabilities of all tokens after each scored position. From these come its perplexity, and a base file in the form
that llama-perplexity writes; moeflux gives its perplexity of the same text, and compares itself with that base. A model
folder is converted to F32 first. Files in F32 are to agree closely; of others llama.cpp rounds activations in its own way,
and moeflux is asked for float ones (--activations says otherwise).
"""
import argparse
import json
import lzma
import math
import os
import subprocess
import sys
import tempfile

import numpy as np

import llama_compare
from llama_compare import benchlib

FLOAT_BOUND = 1e-4 # of the mean log-probability, and of KL, where both compute in float32
TEXT = ("A lighthouse is a tower that guides ships at night. What is a river? A river is water that runs to "
        "the sea between two banks. The bridge over it was built of stone, long before anybody wrote it down. ")


def peer_rows(peer, window, scored, n_vocab, plain):
    """Log-probabilities [len(scored)][n_vocab]. What it goes on with is token `plain`: a part of a character is held back,
    and its row with it. The bias for that comes after the probabilities were taken."""
    rows = np.full((len(scored), n_vocab), -np.inf)
    for row, position in zip(rows, scored):
        reply = peer.ask(prompt=window[:position + 1], max_tokens=1, temperature=0, logprobs=n_vocab,
                         logit_bias=[[plain, 1000]])
        if "error" in reply:
            raise SystemExit(f"the peer says: {reply['error']}")
        for top in reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
            row[top["id"]] = top["logprob"]
        if not np.isfinite(row).all() or abs(np.exp(row).sum() - 1) > 1e-3:
            raise SystemExit("the peer's log-probabilities are not of the whole vocabulary")
    return rows


def write_base(path, n_ctx, windows, rows):
    """As llama-perplexity writes it: 16 bits between the best and 16 below it."""
    n_vocab = rows[0].shape[1]
    with open(path, "wb") as f:
        f.write(b"_logits_" + np.array([n_ctx, n_vocab, len(windows)], "<u4").tobytes())
        f.write(np.array(windows, "<i4").tobytes())
        for window_rows in rows:
            for row in window_rows:
                most, least = row.max(), max(row.min(), row.max() - 16)
                step = (most - least) / 65535
                codes = np.zeros((n_vocab + 1) // 2 * 2, "<u2")
                codes[:n_vocab] = np.rint((np.maximum(row, least) - least) / step)
                f.write(np.array([step, least], "<f4").tobytes() + codes.tobytes())


def n_vocab_of(args, path, work):
    ids = os.path.join(work, "one")
    open(ids, "w").write("1")
    out = subprocess.run([args.bin, "logits", "-m", path, "--ids", ids, "-o", os.path.join(work, "row"), "--json",
                          "--no-progress"], check=True, capture_output=True, text=True)
    return json.loads(out.stdout)["logits"][1]


def perplexity(args, path, *options):
    return benchlib.run_json([args.bin, "perplexity", "-m", path, "-c", str(args.ctx), "--chunks", str(args.chunks),
                              "--json", "--no-progress", "--activations", args.activations, *options])


def compare(args, path, work):
    text = os.path.join(work, "text")
    open(text, "w").write(TEXT * (args.ctx * (args.chunks + 2) // 16))
    ids = llama_compare.tokenize(args.bin, path, open(text).read())
    windows = [ids[i * args.ctx:(i + 1) * args.ctx] for i in range(args.chunks)]
    scored = range(args.ctx // 2, args.ctx - 1)
    n_vocab = n_vocab_of(args, path, work)
    peer = llama_compare.Peer(path)
    plain = llama_compare.tokenize(args.bin, path, "a")[0]
    rows = [peer_rows(peer, window, scored, n_vocab, plain) for window in windows]
    peer.close()
    nll = -np.concatenate([r[np.arange(len(scored)), w[args.ctx // 2 + 1:]] for r, w in zip(rows, windows)])
    base = os.path.join(work, "base")
    write_base(base, args.ctx, windows, rows)
    own, against = perplexity(args, path, "-f", text), perplexity(args, path, "-f", text, "--kl", base)
    return {"scored": len(nll), "llama_cpp": {"ppl": round(math.exp(nll.mean()), 5),
                                              "error": round(float(math.exp(nll.mean()) * nll.std(ddof=1) / math.sqrt(len(nll))), 5)},
            "moeflux": {"ppl": round(own["ppl"], 5), "error": round(own["ppl_error"], 5)},
            "ln_ppl_difference": float(f"{math.log(own['ppl']) - nll.mean():.3g}"),
            "kld": float(f"{against['kld']:.3g}"), "same_top": against["same_top"]}


def ready(args, model, work):
    """A GGUF file of the model's."""
    path = os.path.join(work, "model.gguf")
    if model.endswith(".xz"):
        open(path, "wb").write(lzma.open(model).read())
        return path
    if os.path.isfile(model):
        return model
    subprocess.run([args.bin, "convert", model, path, "--quant", "f32", "--no-progress"], check=True)
    return path


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    benchlib.add_arguments(ap, "perplexity-llama.json")
    ap.add_argument("--ctx", type=int, default=32)
    ap.add_argument("--chunks", type=int, default=2)
    ap.add_argument("--activations", default="f32")
    ap.add_argument("models", nargs="+")
    args = ap.parse_args()
    results, failed = [], False
    for model in args.models:
        with tempfile.TemporaryDirectory(prefix="perplexity-compare-") as work:
            path = ready(args, model, work)
            result = {"model": benchlib.model_name(model), **compare(args, path, work)}
        in_float = os.path.isdir(model) or "F32" in model
        result["bound"] = FLOAT_BOUND if in_float else None
        if in_float and max(abs(result["ln_ppl_difference"]), result["kld"]) > FLOAT_BOUND:
            failed = True
        print(result, flush=True)
        results.append(result)
    benchlib.record(args, "Perplexity and KL divergence beside llama.cpp",
                    f"windows of {args.ctx}, {args.chunks} of them; kld: KL(llama.cpp || moeflux) from a base file "
                    f"in llama-perplexity's form; activations {args.activations}", results=results)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
