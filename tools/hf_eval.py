#!/usr/bin/env python3
"""Counts the questions that Hugging Face transformers answers exactly: the reference for ours.

Greedy, ChatML without a system prompt, stop at an end token. A batch holds prompts of one length
only, so that nothing is padded on the left. Each answer is written as a JSON line; at the end the
count is printed and, with --result, recorded.

    hf_eval.py MODEL_FOLDER --dtype float32 --out answers.jsonl --result result.json
"""
import argparse
import json
import os
import sys
import time

import torch
import transformers


def load(path, dtype):
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype))
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    return model.eval(), tokenizer


def batches_of(items, size):
    """Groups by prompt length, then cuts into batches; order inside a group is file order."""
    by_length = {}
    for item in items:
        by_length.setdefault(len(item["ids"]), []).append(item)
    for length in sorted(by_length):
        group = by_length[length]
        for i in range(0, len(group), size):
            yield group[i:i + size]


def answers_of(model, tokenizer, batch, max_tokens, ends):
    ids = torch.tensor([item["ids"] for item in batch])
    with torch.no_grad():
        # do_sample False and the neutral values: what generation_config.json says must not matter.
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                             temperature=None, top_p=None, top_k=None, num_beams=1,
                             repetition_penalty=1.0, max_new_tokens=max_tokens,
                             eos_token_id=ends, pad_token_id=ends[0])
    for item, row in zip(batch, out[:, ids.shape[1]:].tolist()):
        n = next((i for i, token in enumerate(row) if token in ends), None)
        item["stopped"] = n is not None
        item["tokens"] = row[:n]
        item["got"] = tokenizer.decode(row[:n], skip_special_tokens=False)
        item["ok"] = item["stopped"] and item["got"] == item["answer"]


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("model")
    ap.add_argument("--eval", help="questions; default: eval.jsonl of the model")
    ap.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    ap.add_argument("--batch", type=int, default=32)
    ap.add_argument("--max-tokens", type=int, default=128)
    ap.add_argument("--limit", type=int, default=0)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--out", help="answers, one JSON object a line")
    ap.add_argument("--result", help="JSON file that gains an entry for this run")
    args = ap.parse_args()
    torch.set_num_threads(args.threads)

    model, tokenizer = load(args.model, args.dtype)
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    with open(args.eval or os.path.join(args.model, "eval.jsonl"), encoding="utf-8") as f:
        items = [json.loads(line) for line in f]
    items = items[:args.limit] if args.limit else items
    for item in items:
        prompt = f"<|im_start|>user\n{item['question']}<|im_end|>\n<|im_start|>assistant\n"
        item["ids"] = tokenizer.encode(prompt, add_special_tokens=False)

    begin, done = time.monotonic(), 0
    for batch in batches_of(items, args.batch):
        answers_of(model, tokenizer, batch, args.max_tokens, ends)
        done += len(batch)
        print(f"{done}/{len(items)} {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    correct = sum(item["ok"] for item in items)
    if args.out:
        with open(args.out, "w", encoding="utf-8") as f:
            for item in items:
                f.write(json.dumps(item, ensure_ascii=False) + "\n")
    entry = {"model": os.path.basename(os.path.normpath(args.model)), "engine": "transformers",
             "transformers": transformers.__version__, "torch": torch.__version__.split("+")[0],
             "weights": "bfloat16", "compute": args.dtype, "decoding": "greedy",
             "max_tokens": args.max_tokens, "batch": args.batch,
             "correct": correct, "total": len(items)}
    print(json.dumps(entry))
    if args.result:
        runs = []
        if os.path.exists(args.result):
            with open(args.result, encoding="utf-8") as f:
                runs = json.load(f)["runs"]
        runs = [r for r in runs if (r["model"], r["compute"]) != (entry["model"], args.dtype)]
        with open(args.result, "w", encoding="utf-8") as f:
            json.dump({"runs": runs + [entry]}, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
