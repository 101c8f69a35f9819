#!/usr/bin/env python3
"""What an importance matrix is worth: GGUF types with and without one. Needs numpy.

    bench/imatrix.py FLOAT_MODEL [--bin build/moeflux] [--tokens 4096]

Collects an importance matrix from the second half of eval.jsonl (questions and answers in ChatML), converts
FLOAT_MODEL with and without it, and takes on the first half

    weights_kl   mean KL(bf16 || f32), in nats: the float model and the quantised one, activations in float
    correct      exact answers of the first 300

docs/numerics.md has the figures.
"""
import argparse
import json
import os
import shutil
import subprocess
import tempfile

import activations_kl
import benchlib

TYPES = ("q4_0", "q4_k", "q6_k")
HALF = 300


def chatml(item):
    return f"<|im_start|>user\n{item['question']}<|im_end|>\n<|im_start|>assistant\n{item['answer']}<|im_end|>\n"


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    benchlib.add_arguments(ap, "imatrix.json")
    ap.add_argument("float_model")
    ap.add_argument("--eval", default=os.path.join(benchlib.SHIPPED, "eval.jsonl"))
    ap.add_argument("--tokens", type=int, default=4096)
    args = ap.parse_args()
    args.tmp = tempfile.mkdtemp(prefix="imatrix-")
    runs = []
    try:
        with open(args.eval, encoding="utf-8") as f:
            items = [json.loads(line) for line in f]
        text, matrix = os.path.join(args.tmp, "text"), os.path.join(args.tmp, "imatrix.gguf")
        with open(text, "w", encoding="utf-8") as f:
            f.write("".join(map(chatml, items[HALF:])))
        subprocess.run([args.bin, "imatrix", "-m", args.float_model, "-f", text, "-o", matrix, "--no-progress"],
                       check=True, capture_output=True)
        # read_ids takes the first tokens, which are of the first half as long as these are fewer.
        sequences = activations_kl.read_ids(args, args.tokens)
        reference = activations_kl.log_softmax(args, args.float_model, sequences, "f32")
        for kind in TYPES:
            for options in ([], ["--imatrix", matrix]):
                model = os.path.join(args.tmp, "model.gguf")
                subprocess.run([args.bin, "convert", args.float_model, model, "--quant", kind, "--no-progress"] + options,
                               check=True, capture_output=True)
                kl = activations_kl.compare(reference, activations_kl.log_softmax(args, model, sequences, "f32"))
                answers = benchlib.run_json([args.bin, "eval", "-m", model, args.eval, "--json", "--no-progress",
                                             "--limit", str(HALF)])
                runs.append({"weights": kind, "imatrix": bool(options), "weights_kl": kl,
                             "correct": answers["correct"], "total": answers["total"]})
                print(runs[-1], flush=True)
                os.unlink(model)
    finally:
        shutil.rmtree(args.tmp)
    benchlib.record(args, "importance matrices: KL divergence of quantised weights from bfloat16, nats, and exact answers",
                    f"matrix from the second half of eval.jsonl in ChatML; KL over {args.tokens} tokens of the first, answers to "
                    f"the first {HALF} questions", model=benchlib.model_name(args.float_model), runs=runs)


if __name__ == "__main__":
    main()
