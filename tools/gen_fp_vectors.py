#!/usr/bin/env python3
"""Writes tests/data/fp8 and tests/data/mxfp4: small tensors in the layouts of DeepSeek's FP8 and
gpt-oss's MXFP4 checkpoints, and what they stand for.

Usage: gen_fp_vectors.py [OUT_DIR]     (needs the Python packages torch and safetensors)

FP8 is widened by torch, which has the type. MXFP4 is decoded here by its definition (OCP Microscaling
Formats 1.0: E2M1 elements, an E8M0 exponent for each 32), in double precision.
"""
import json
import math
import os
import sys

import torch
from safetensors.torch import save_file

BLOCK = 128
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def fp8_pair(gen, lead, rows, cols, dtype):
    """Random codes, all 256 among them, and the scales of their blocks; with the values."""
    codes = torch.randint(0, 256, (*lead, rows, cols), dtype=torch.uint8, generator=gen)
    codes.view(-1)[:256] = torch.arange(256, dtype=torch.uint8)
    blocks = (*lead, math.ceil(rows / BLOCK), math.ceil(cols / BLOCK))
    scales = (torch.rand(blocks, generator=gen) * 0.01 + 1e-5).to(dtype)
    wide = scales.float().repeat_interleave(BLOCK, -2).repeat_interleave(BLOCK, -1)
    weight = codes.view(torch.float8_e4m3fn)
    return weight, scales, weight.float() * wide[..., :rows, :cols]


def write(folder, config, tensors, expected):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=1)
        f.write("\n")
    save_file(tensors, os.path.join(folder, "model.safetensors"))
    save_file(expected, os.path.join(folder, "expected.safetensors"))


def fp8(out):
    gen = torch.Generator().manual_seed(1)
    tensors, expected = {}, {}
    for name, scale_name, lead, rows, cols, dtype in (
        ("l.proj.weight", "l.proj.weight_scale_inv", (), 130, 141, torch.float32),
        ("l.bf16.weight", "l.bf16.weight_scale_inv", (), 7, 260, torch.bfloat16),
        ("l.experts.down_proj", "l.experts.down_proj_scale_inv", (2,), 128, 40, torch.float32),
    ):
        tensors[name], tensors[scale_name], expected[name] = fp8_pair(gen, lead, rows, cols, dtype)
    tensors["l.gate.weight"] = torch.randn(3, 5, generator=gen).to(torch.bfloat16)
    expected["l.gate.weight"] = tensors["l.gate.weight"].float()
    config = {"quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3",
                                      "quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]}}
    write(os.path.join(out, "fp8"), config, tensors, expected)


def mxfp4(out):
    gen = torch.Generator().manual_seed(2)
    blocks = torch.randint(0, 256, (3, 5, 4, 16), dtype=torch.uint8, generator=gen)
    scales = torch.randint(100, 150, (3, 5, 4), dtype=torch.uint8, generator=gen)
    # Subnormal products, the smallest and the largest exponents, and NaN.
    scales.view(-1)[:8] = torch.tensor([0, 1, 2, 3, 252, 253, 254, 255], dtype=torch.uint8)
    values = []
    for block, e in zip(blocks.view(-1, 16).tolist(), scales.view(-1).tolist()):
        for byte in block:
            for code in (byte & 15, byte >> 4):
                magnitude = math.ldexp(E2M1[code & 7], e - 127) if e < 255 else math.nan
                values.append(-magnitude if code & 8 else magnitude)
    name = "l.mlp.experts.gate_up_proj"
    expected = torch.tensor(values, dtype=torch.float64).to(torch.float32).view(3, 5, 128)
    bias = torch.randn(3, 5, generator=gen).to(torch.bfloat16)
    config = {"quantization_config": {"modules_to_not_convert": ["lm_head"],
                                      "quant_method": "mxfp4"}}
    write(os.path.join(out, "mxfp4"), config,
          {name + "_blocks": blocks, name + "_scales": scales, name + "_bias": bias},
          {name: expected, name + "_bias": bias.float()})


if __name__ == "__main__":
    directory = sys.argv[1] if len(sys.argv) > 1 else "tests/data"
    fp8(directory)
    mxfp4(directory)
