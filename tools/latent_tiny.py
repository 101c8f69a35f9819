#!/usr/bin/env python3
"""Writes tests/data/latent-tiny: small models of DeepSeek's kind and what others compute for them.

Usage: latent_tiny.py [OUT_DIR]     (needs the Python packages mlx, mlx-lm, torch, transformers, safetensors)

Random weights; logits, hidden states and greedy tokens by mlx-lm's or transformers' own model class,
loaded from the folder that was written, in float32. They share no code with the engine that is held
against them. What they have that the larger references lack: kv_b split and quantised (mlx-lm's DeepSeek-V3),
kv_b whole and quantised (its DeepSeek-V2), queries that aren't compressed (V2-Lite), and DeepSeekMoE, from
before latent attention.
"""
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import torch
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.models import deepseek, deepseek_v2, deepseek_v3
from safetensors.torch import load_file, save_file
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM

from mlx_tiny import reference

SEED = 11
N_TOKENS = 24
N_VOCAB = 64

COMMON = {
    "attention_bias": False, "bos_token_id": 1, "eos_token_id": 2, "first_k_dense_replace": 1, "hidden_act": "silu",
    "hidden_size": 64, "intermediate_size": 96, "kv_lora_rank": 32, "max_position_embeddings": 1024,
    "moe_intermediate_size": 32, "moe_layer_freq": 1, "n_routed_experts": 8, "num_attention_heads": 4,
    "num_experts_per_tok": 2, "num_hidden_layers": 3, "num_key_value_heads": 4, "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
    "tie_word_embeddings": False, "v_head_dim": 32, "vocab_size": N_VOCAB,
}
YARN = {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 0.707, "mscale_all_dim": 0.707,
        "original_max_position_embeddings": 64, "type": "yarn"}
V3 = {**COMMON, "model_type": "deepseek_v3", "n_group": 2, "topk_group": 1, "n_shared_experts": 1, "q_lora_rank": 32,
      "norm_topk_prob": True, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
      "num_nextn_predict_layers": 0, "rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}}
V2 = {**COMMON, "model_type": "deepseek_v2", "n_group": 1, "topk_group": 1, "n_shared_experts": 2, "q_lora_rank": None,
      "norm_topk_prob": False, "routed_scaling_factor": 1.0, "scoring_func": "softmax", "topk_method": "greedy",
      "rope_scaling": YARN}
V1 = {k: v for k, v in COMMON.items() if not k.startswith(("qk_", "kv_", "v_head"))}
V1 = {**V1, "model_type": "deepseek", "n_shared_experts": 2, "num_key_value_heads": 2, "norm_topk_prob": False,
      "scoring_func": "softmax", "rope_scaling": None}


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w") as f:
        json.dump(dict(sorted(value.items())), f, indent=1)
        f.write("\n")


def mlx_model(module, config):
    """A random model, quantised to 4 bits in groups of 32; routers stay as they are, as mlx-lm has it."""
    model = module.Model(module.ModelArgs.from_dict(json.loads(json.dumps(config))))

    def draw(path, p):
        normal = mx.random.normal(p.shape)
        if path.endswith("e_score_correction_bias"):
            return 0.1 * normal
        if path.endswith("norm.weight"):
            return (1 + 0.2 * normal).astype(mx.bfloat16)
        wide = 3.0 if path.endswith("mlp.gate.weight") else 1.5
        return (normal * wide * p.shape[-1] ** -0.5).astype(mx.bfloat16)
    model.update(tree_map_with_path(draw, model.parameters()))
    nn.quantize(model, 32, 4, class_predicate=lambda _, m: hasattr(m, "to_quantized"))
    config["quantization"] = {"group_size": 32, "bits": 4, "mode": "affine"}
    return model


def make_mlx(folder, module, config):
    os.makedirs(folder, exist_ok=True)
    config = dict(config)
    model = mlx_model(module, config)
    mx.save_safetensors(os.path.join(folder, "model.safetensors"), dict(tree_flatten(model.parameters())),
                        metadata={"format": "mlx"})
    write_json(folder, "config.json", config)
    expected = reference(Path(folder), mx.random.randint(3, N_VOCAB, (N_TOKENS,)))[0]
    mx.save_safetensors(os.path.join(folder, "expected.safetensors"), expected)
    print(f"{folder}: spread {mx.std(expected['logits']).item():.3g}")


def make_hf(folder, config):
    os.makedirs(folder, exist_ok=True)
    torch.manual_seed(SEED)
    made = DeepseekV2Config(**{k: v for k, v in config.items() if k != "model_type"})
    model = DeepseekV2ForCausalLM(made).to(torch.bfloat16)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("norm.weight"):
                p.copy_(1 + 0.2 * torch.randn(p.shape))
            else:
                wide = 3.0 if name.endswith("gate.weight") else 1.5
                p.copy_(torch.randn(p.shape) * wide * p.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    os.remove(os.path.join(folder, "generation_config.json"))
    write_json(folder, "config.json", config)
    model = DeepseekV2ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    ids = torch.randint(3, N_VOCAB, (1, N_TOKENS))
    with torch.no_grad():
        out = model(ids, output_hidden_states=True)
        greedy = model.generate(ids[:, :N_TOKENS // 2], max_new_tokens=N_TOKENS // 2, min_new_tokens=N_TOKENS // 2,
                                do_sample=False)
    save_file({"input_ids": ids[0].int(), "logits": out.logits[0].contiguous(),
               "hidden_states": torch.stack([h[0] for h in out.hidden_states]).contiguous(),
               "greedy_ids": greedy[0].int()}, os.path.join(folder, "expected.safetensors"))
    names = sorted(load_file(os.path.join(folder, "model.safetensors")))
    assert "model.layers.1.mlp.experts.0.gate_proj.weight" in names, names
    print(f"{folder}: spread {out.logits.std().item():.3g}")


README = """# Small models of DeepSeek's kind

Written by `tools/latent_tiny.py` with mlx {mlx} (CPU), mlx-lm {mlx_lm} and transformers {transformers}, seed {seed}. Random
weights; 3 layers (hf: 2), the first dense, 8 experts of width 32, 2 of them used.

* `mlx-v3`: DeepSeek-V3 as mlx-lm converts it, 4 bits in groups of 32: kv_b split in two, the keys' part transposed.
* `mlx-v2`: DeepSeek-V2 as mlx-lm converts it, the same bits: kv_b whole; queries not compressed.
* `mlx-v1`: DeepSeekMoE as mlx-lm converts it, the same bits: plain attention.
* `hf-v2-lite`: DeepSeek-V2-Lite's layout in bfloat16: queries not compressed, YaRN with mscale 0.707.

`expected.safetensors` is as in `mlx-tiny`, computed in float32.
"""


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else "tests/data/latent-tiny"
    mx.set_default_device(mx.cpu)
    mx.random.seed(SEED)
    make_mlx(os.path.join(out, "mlx-v3"), deepseek_v3, V3)
    make_mlx(os.path.join(out, "mlx-v2"), deepseek_v2, V2)
    make_mlx(os.path.join(out, "mlx-v1"), deepseek, V1)
    make_hf(os.path.join(out, "hf-v2-lite"), {**V2, "num_hidden_layers": 2})
    with open(os.path.join(out, "README.md"), "w") as f:
        f.write(README.format(mlx=mx.__version__, mlx_lm=version("mlx-lm"), transformers=version("transformers"),
                              seed=SEED))


if __name__ == "__main__":
    main()
