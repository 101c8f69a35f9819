#!/usr/bin/env python3
"""Holds families against mlx-lm: converts tiny checkpoints with it (4 bits, groups of 32), lets both
compute the logits of a prompt in float32, and compares them.

    python3 tools/mlx_families.py --moeflux build/moeflux ORACLE/hf/mixtral ORACLE/hf/olmoe ...

Needs mlx (the CPU package will do) and mlx-lm. The limit is 2e-4 of the logits' standard deviation.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.utils import load_model, quantize_model, save_model

LIMIT = 2e-4


def with_old_keys(source, folder):
    """mlx-lm wants some keys where config.json files had them before transformers 5."""
    config = json.load(open(os.path.join(source, "config.json")))
    rope = config.get("rope_parameters", {})
    config.setdefault("rope_theta", rope.get("rope_theta"))
    config.setdefault("rope_scaling", None if rope.get("rope_type", "default") == "default" else rope)
    config.setdefault("mlp_bias", False)
    config.setdefault("shared_intermediate_size", 0)
    if "num_local_experts" in config:
        config.setdefault("num_experts", config["num_local_experts"])
    config["head_dim"] = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    json.dump(config, open(os.path.join(folder, "config.json"), "w"))
    os.symlink(os.path.abspath(os.path.join(source, "model.safetensors")), os.path.join(folder, "model.safetensors"))


def compare(moeflux, source, work):
    plain, quantised = os.path.join(work, "plain"), os.path.join(work, "mlx")
    os.mkdir(plain)
    os.mkdir(quantised)
    with_old_keys(source, plain)
    model, config = load_model(Path(plain), lazy=False)
    model.set_dtype(mx.float32)
    model, config = quantize_model(model, config, 32, 4)
    save_model(quantised, model)
    json.dump(config, open(os.path.join(quantised, "config.json"), "w"))
    ids = [(i * 37 + 11) % 200 for i in range(48)]
    want = np.array(model(mx.array([ids]))[0].astype(mx.float32))
    ids_path, out = os.path.join(work, "ids"), os.path.join(work, "logits")
    open(ids_path, "w").write(" ".join(map(str, ids)))
    subprocess.run([moeflux, "logits", "-m", quantised, "--ids", ids_path, "-o", out, "--activations", "f32",
                    "--no-progress"], check=True)
    return float(np.abs(np.fromfile(out, "<f4").reshape(want.shape) - want).max() / want.std())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--moeflux", default="build/moeflux")
    args = parser.parse_args()
    failed = False
    for source in args.models:
        with tempfile.TemporaryDirectory() as work:
            error = compare(args.moeflux, source, work)
        failed |= not error <= LIMIT
        print(f"{os.path.basename(os.path.normpath(source))}: logits off by {error:.2g} of their spread", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
