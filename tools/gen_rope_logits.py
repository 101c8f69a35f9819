#!/usr/bin/env python3
"""Writes tests/data/rope_logits.inc: what Hugging Face transformers gives for the oracle's Mixtral when
its rotary frequencies are scaled in each of the supported ways.

    python3 tools/gen_rope_logits.py ORACLE/hf/mixtral > tests/data/rope_logits.inc

Needs torch and transformers (5.17 was used). Float32 arithmetic, eager attention, 64 tokens in one pass;
the logits of the last one are kept.
"""
import json
import os
import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM

VARIANTS = {
    "yarn": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 32},
    "yarn, told more": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0,
                        "original_max_position_embeddings": 32, "attention_factor": 1.3, "beta_fast": 8},
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.0},
    "llama3": {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
}


def main():
    source = os.path.abspath(sys.argv[1])
    print("/* Made by tools/gen_rope_logits.py. */")
    for name, parameters in VARIANTS.items():
        with tempfile.TemporaryDirectory() as folder:
            config = json.load(open(os.path.join(source, "config.json")))
            config.update(rope_parameters=parameters, head_dim=32)
            json.dump(config, open(os.path.join(folder, "config.json"), "w"))
            os.symlink(os.path.join(source, "model.safetensors"), os.path.join(folder, "model.safetensors"))
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
            ids = torch.tensor([[(i * 37 + 11) % 200 for i in range(64)]])
            with torch.no_grad():
                logits = model(ids).logits[0, -1].tolist()
        text = json.dumps(parameters, separators=(",", ":")).replace('"', '\\"')
        print('{"%s",\n "%s",\n {' % (name, text))
        for i in range(0, len(logits), 8):
            print("     " + " ".join("%.7gf," % x if "." in "%.7g" % x or "e" in "%.7g" % x else "%.7g.0f," % x
                                     for x in logits[i:i + 8]))
        print(" }},")


if __name__ == "__main__":
    main()
