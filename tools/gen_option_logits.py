#!/usr/bin/env python3
"""Writes tests/data/option_logits.inc: what Hugging Face transformers gives for the oracle's models when a
member of their config.json is another, or missing.

    python3 tools/gen_option_logits.py ORACLE/hf > tests/data/option_logits.inc

Needs torch and transformers (5.23 was used). Float32 arithmetic, eager attention, 64 tokens in one pass;
the logits of the last one are kept.
"""
import json
import os
import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM

WINDOWS = ["full_attention", "sliding_attention", "full_attention"]
# Family, and the members that are changed; those that are MISSING are taken out.
MISSING = object()
OPTIONS = [
    ("mixtral", {"sliding_window": 8}),
    ("mixtral", {"rope_parameters": MISSING}),
    ("qwen3_moe", {"use_sliding_window": True, "sliding_window": 8}),
    ("qwen3_moe", {"rope_parameters": MISSING}),
    ("qwen2_moe", {"use_sliding_window": True, "sliding_window": 8, "layer_types": MISSING}),
    ("dots1", {"sliding_window": 8, "layer_types": WINDOWS}),
    ("qwen3_moe", {"partial_rotary_factor": 0.5}),
    ("deepseek_v3", {"routed_scaling_factor": MISSING}),
    ("deepseek_v2", {"rope_interleave": False}),
    ("glm4_moe_lite", {"routed_scaling_factor": MISSING}),
    ("granitemoe", {"attention_multiplier": MISSING}),
    ("gpt_oss", {"swiglu_alpha": 1.0}),
    ("gpt_oss", {"rope_parameters": MISSING}),
]


def text_of(members):
    """C text: each member as key, = and JSON; nothing behind the = where it is missing."""
    pairs = [key + "=" + ("" if value is MISSING else json.dumps(value, separators=(",", ":")))
             for key, value in members.items()]
    return ";".join(pairs).replace('"', '\\"')


def logits_of(source, members):
    with tempfile.TemporaryDirectory() as folder:
        config = json.load(open(os.path.join(source, "config.json")))
        for key, value in members.items():
            config.pop(key, None)
            if value is not MISSING:
                config[key] = value
        json.dump(config, open(os.path.join(folder, "config.json"), "w"))
        os.symlink(os.path.join(source, "model.safetensors"), os.path.join(folder, "model.safetensors"))
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        ids = torch.tensor([[(i * 37 + 11) % 200 for i in range(64)]])
        with torch.no_grad():
            return model(ids).logits[0, -1].tolist()


def main():
    oracle = os.path.abspath(sys.argv[1])
    print("/* Made by tools/gen_option_logits.py. */")
    for family, members in OPTIONS:
        logits = logits_of(os.path.join(oracle, family), members)
        print('{"%s",\n "%s",\n {' % (family, text_of(members)))
        for i in range(0, len(logits), 8):
            print("     " + " ".join("%.7gf," % x if "." in "%.7g" % x or "e" in "%.7g" % x else "%.7g.0f," % x
                                     for x in logits[i:i + 8]))
        print(" }},")


if __name__ == "__main__":
    main()
