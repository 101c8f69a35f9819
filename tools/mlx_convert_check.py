#!/usr/bin/env python3
"""Compares what `moeflux convert` wrote with mlx-lm's own conversion, bit by bit.

Usage: mlx_convert_check.py FLOAT_MODEL CONVERTED     (needs the Python packages mlx and mlx-lm)
       mlx_convert_check.py FLOAT_MODEL --hashes

mlx-lm's model class takes the float weights (of qwen3_5_moe experts stacked first, which it doesn't do
itself; weights that mlx has quantised it dequantises), quantises them by its own rules with the bits and
group of CONVERTED, and every tensor must be the same. Then CONVERTED is loaded by mlx-lm. Meant for
conversions without --dense-bits.

With --hashes there is nothing of ours: prints "bits group hash" for every width and group, the hash
being FNV-1a (64 bits) over the tensors in the order of their names: the name, then the bytes.
"""
import contextlib
import glob
import json
import os
import re
import sys
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import dequantize_model, load_model, quantize_model
from mlx_lm.utils import _get_classes as get_classes


def load_folder(path):
    weights = {}
    for name in sorted(glob.glob(os.path.join(path, "model*.safetensors"))):
        weights.update(mx.load(name))
    with open(os.path.join(path, "config.json")) as f:
        return weights, json.load(f)


def stack_experts(weights):
    """One tensor an expert -> gate_up_proj [E, 2I, H] and down_proj [E, H, I]."""
    experts = {}
    for name in list(weights):
        m = re.fullmatch(r"(.*\.mlp\.experts)\.(\d+)\.(\w+)_proj\.weight", name)
        if m:
            experts.setdefault(m[1], {})[(m[3], int(m[2]))] = weights.pop(name)
    for prefix, parts in experts.items():
        n = 1 + max(e for _, e in parts)
        gate, up, down = (mx.stack([parts[kind, e] for e in range(n)]) for kind in ("gate", "up", "down"))
        weights[prefix + ".gate_up_proj"] = mx.concatenate([gate, up], axis=1)
        weights[prefix + ".down_proj"] = down
    return weights


def same(a, b):
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return raw(a) == raw(b)


def raw(a):
    word = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32}[a.dtype.size]
    return bytes(memoryview(mx.contiguous(mx.view(a, word))))


def fnv1a(chunks):
    h = 0xcbf29ce484222325
    for chunk in chunks:
        for byte in chunk:
            h = (h ^ byte) * 0x100000001b3 & 0xffffffffffffffff
    return h


def routers_8bit(path, module):
    """mlx-lm's own rule for most families; the others give routers what all get."""
    if path.endswith(("mlp.gate", "shared_expert_gate", "block_sparse_moe.gate", "router.layer")):
        return {"group_size": 64, "bits": 8}
    return True


def converted(path, group, bits):
    """mlx-lm's own conversion: the tensors and the quantization section."""
    weights, config = load_folder(path)
    if "quantization" in config:
        model = dequantize_model(load_model(Path(path))[0])
    else:
        # Where mlx-lm looks for them; newer configurations have them elsewhere.
        for key in ("rope_theta", "partial_rotary_factor"):
            config.setdefault(key, config.get("rope_parameters", {}).get(key))
        config.setdefault("num_experts", config.get("num_local_experts"))
        for key, value in (("rope_scaling", config.get("rope_parameters")), ("shared_intermediate_size", 0)):
            config.setdefault(key, value if key != "rope_scaling" or value.get("rope_type") != "default" else None)
        model_class, args_class = get_classes({**config, "model_type": config["model_type"].removesuffix("_text")})
        model = model_class(args_class.from_dict(json.loads(json.dumps(config))))
        if "qwen3_5" in config["model_type"]:
            weights = stack_experts(weights)
        model.load_weights(list(model.sanitize(weights).items()))
    with contextlib.redirect_stdout(sys.stderr):
        model, config = quantize_model(model, {}, group, bits, quant_predicate=routers_8bit)
    return dict(tree_flatten(model.parameters())), config["quantization"]


def meaning(quantization):
    """The section without overrides that say what holds anyway."""
    standard = {k: v for k, v in quantization.items() if not isinstance(v, dict)}
    return standard, {k: v for k, v in quantization.items() if isinstance(v, dict)
                      and {**standard, **v} != standard}


def print_hashes(path):
    for bits in (2, 3, 4, 5, 6, 8):
        for group in (32, 64, 128):
            tensors, _ = converted(path, group, bits)
            h = fnv1a(chunk for name in sorted(tensors) for chunk in (name.encode(), raw(tensors[name])))
            print(f"{bits} {group} {h:016x}")


def main():
    mx.set_default_device(mx.cpu)
    if sys.argv[2] == "--hashes":
        return print_hashes(sys.argv[1])
    ours, config = load_folder(sys.argv[2])
    quantization = config["quantization"]
    want, want_quantization = converted(sys.argv[1], quantization["group_size"], quantization["bits"])

    faults = [f"missing: {name}" for name in sorted(want.keys() - ours.keys())]
    faults += [f"too many: {name}" for name in sorted(ours.keys() - want.keys())]
    faults += [f"differs: {name}" for name in sorted(want.keys() & ours.keys())
               if not same(want[name], ours[name])]
    if meaning(want_quantization) != meaning(quantization) or config["quantization_config"] != quantization:
        faults.append("config.json: another quantization")
    print("\n".join(faults[:20]))
    loaded, _ = load_model(Path(sys.argv[2]))
    logits = loaded(mx.array([[1, 2, 3]]))
    assert mx.all(mx.isfinite(logits)).item()
    print(f"{len(want)} tensors, {len(faults)} faults; mlx-lm loads it")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
