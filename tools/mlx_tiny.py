#!/usr/bin/env python3
"""Writes tests/data/mlx-tiny: small quantised models with the logits that mlx-lm computes for them.

Usage: mlx_tiny.py [OUT_DIR]     (needs the Python packages mlx and mlx-lm)

The models are random ones of several families, quantised by mlx and saved in mlx-lm's layout. The logits
come from mlx-lm's own model class, loaded from the folder that was written, with everything that is not
packed widened to float32: it shares no code with the engine that is held against them.
"""
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map_with_path, tree_unflatten
from mlx_lm.models.base import create_attention_mask
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import _get_classes as get_classes
from mlx_lm.utils import load_model

SEED = 4
N_TOKENS = 24

TEXT = {
    "attention_bias": False, "attn_output_gate": True, "bos_token_id": None, "dtype": "bfloat16",
    "eos_token_id": 1, "full_attention_interval": 4, "head_dim": 16, "hidden_act": "silu",
    "hidden_size": 64,
    "layer_types": ["linear_attention"] * 3 + ["full_attention"],
    "linear_conv_kernel_dim": 4, "linear_key_head_dim": 16, "linear_num_key_heads": 2,
    "linear_num_value_heads": 4, "linear_value_head_dim": 16, "max_position_embeddings": 1024,
    "model_type": "qwen3_5_moe_text", "moe_intermediate_size": 32, "norm_topk_prob": True,
    "num_attention_heads": 4, "num_experts": 8, "num_experts_per_tok": 2, "num_hidden_layers": 4,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
    "rope_parameters": {"partial_rotary_factor": 0.25, "rope_theta": 10000.0, "rope_type": "default"},
    "shared_expert_intermediate_size": 32, "tie_word_embeddings": False, "vocab_size": 64,
}


def wrapped():
    """As the published multimodal checkpoints have it: the text model's settings one level down."""
    return {"architectures": ["Qwen3_5MoeForConditionalGeneration"], "model_type": "qwen3_5_moe",
            "text_config": dict(TEXT), "tie_word_embeddings": False}


def flat():
    return {**TEXT, "architectures": ["Qwen3_5MoeForCausalLM"], "model_type": "qwen3_5_moe",
            "tie_word_embeddings": True}


COMMON = {
    "attention_bias": False, "bos_token_id": None, "dtype": "bfloat16", "eos_token_id": 1, "hidden_act": "silu",
    "hidden_size": 64, "max_position_embeddings": 1024, "num_attention_heads": 4, "num_hidden_layers": 3,
    "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "tie_word_embeddings": False, "vocab_size": 64,
    "moe_intermediate_size": 32, "num_experts_per_tok": 2,
}
EXPERTS = {"decoder_sparse_step": 1, "mlp_only_layers": [], "num_experts": 8, "norm_topk_prob": True,
           "intermediate_size": 64, "num_key_value_heads": 2}


def qwen3_moe():
    return {**COMMON, **EXPERTS, "model_type": "qwen3_moe", "head_dim": 16}


def qwen2_moe():
    return {**COMMON, **EXPERTS, "model_type": "qwen2_moe", "num_attention_heads": 4, "num_key_value_heads": 4,
            "norm_topk_prob": False, "shared_expert_intermediate_size": 64}


def qwen3_next():
    delta = {key: TEXT[key] for key in TEXT if key.startswith("linear_")}
    return {**COMMON, **EXPERTS, **delta, "model_type": "qwen3_next", "num_hidden_layers": 4, "head_dim": 16,
            "full_attention_interval": 4, "partial_rotary_factor": 0.25, "shared_expert_intermediate_size": 32}


def deepseek_v3():
    return {**COMMON, "model_type": "deepseek_v3", "intermediate_size": 64, "n_routed_experts": 8, "n_shared_experts": 1,
            "first_k_dense_replace": 1, "kv_lora_rank": 32, "q_lora_rank": 64, "qk_nope_head_dim": 32,
            "qk_rope_head_dim": 16, "v_head_dim": 32, "num_key_value_heads": 4, "n_group": 4, "topk_group": 2,
            "moe_layer_freq": 1, "norm_topk_prob": True, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
            "topk_method": "noaux_tc"}


def gpt_oss():
    return {**COMMON, "model_type": "gpt_oss", "attention_bias": True, "num_local_experts": 8, "intermediate_size": 32,
            "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 64, "num_hidden_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}


def experts_mxfp4(path):
    """As gpt-oss is converted: what isn't an expert takes 8 bits."""
    return {"group_size": 32, "bits": 4, "mode": "mxfp4"} if ".experts." in path else None


def routers_8bit(path):
    return 8 if path.endswith(("mlp.gate", "shared_expert_gate")) else None


def mixed(path):
    """Every width somewhere, so that a reader which takes the default for all can't pass."""
    widths = {"mlp.gate": 8, "shared_expert_gate": 8, "embed_tokens": 6, "switch_mlp.down_proj": 6,
              "switch_mlp.up_proj": 4, "in_proj_qkv": 5, "q_proj": 8, "o_proj": 2, "v_proj": 5}
    return next((bits for end, bits in widths.items() if path.endswith(end)), None)


VARIANTS = {
    "q4g32": (wrapped, 4, 32, routers_8bit),
    "mixed-q3g32": (flat, 3, 32, mixed),
    "qwen3_moe-q4g32": (qwen3_moe, 4, 32, routers_8bit),
    "qwen2_moe-q6g32": (qwen2_moe, 6, 32, routers_8bit),
    "qwen3_next-q5g32": (qwen3_next, 5, 32, routers_8bit),
    "deepseek_v3-q4g32": (deepseek_v3, 4, 32, routers_8bit),
    "gpt_oss-mxfp4-q8": (gpt_oss, 8, 32, experts_mxfp4),
}

README = """# Small quantised models with mlx-lm's logits

Written by `tools/mlx_tiny.py` with mlx {mlx} (CPU) and mlx-lm {mlx_lm}, seed {seed}. Random weights: hidden size 64,
2 to 4 layers, 8 experts of width 32, 2 of them used, a vocabulary of 64, affine quantisation in groups of 32
but for gpt_oss's experts.
The first two are Qwen3.5-MoE text models with 3 Gated DeltaNet layers and 1 of gated full attention and one shared expert.

* `q4g32`: 4 bits; routers and shared-expert gates 8. `text_config` one level down, as in multimodal checkpoints; separate lm_head.
* `mixed-q3g32`: 3 bits, with 2, 4, 5, 6 and 8 by module. Flat config; embeddings tied to the head.
* `qwen3_moe-q4g32`, `qwen2_moe-q6g32`, `qwen3_next-q5g32`, `deepseek_v3-q4g32`: the family, then width and group.
* `gpt_oss-mxfp4-q8`: experts in mode mxfp4, all else 8 bits, sinks, windows longer than the prompt.

Each has `config.json` and `model.safetensors` in mlx-lm's layout (bfloat16 scales, biases and norms; float32 `A_log`) and
`expected.safetensors`:

| tensor | type, shape | meaning |
|---|---|---|
| `input_ids` | int32 [{n}] | the prompt |
| `logits` | float32 [{n}, 64] | the logits at every position, all tokens in one pass |
| `hidden_states` | float32 [layers + 1, {n}, 64] | after the embedding, then after each layer; the last is after the final norm |
| `greedy_ids` | int32 [{n}] | the first {half} prompt ids, then greedy tokens produced one at a time through the cache |

All arithmetic is float32: scales, biases and norms are widened, which is exact. Feeding the prompt one token at a time
through the cache changes the logits by at most {step:.1e}; their standard deviation is about {spread:.2g}.
The smallest gap between the router logits of the last expert chosen and the first left out is {gap:.1e}.
"""


def random_parameters(model):
    """Draws every parameter away from its initial value, so that a term left out shows."""
    def draw(path, p):
        normal = mx.random.normal(p.shape)
        if path.endswith("A_log"):
            return mx.random.uniform(-1.0, 1.5, p.shape)
        if path.endswith("dt_bias"):
            return (normal * 0.5 - 1).astype(mx.bfloat16)
        if path.endswith("e_score_correction_bias"):
            return normal * 0.05
        if path.endswith("norm.weight"):
            return (1 + 0.2 * normal).astype(mx.bfloat16)
        if path.endswith("conv1d.weight"):
            return (normal * 0.5).astype(mx.bfloat16)
        wide = 3.0 if path.endswith("mlp.gate.weight") else 1.5
        return (normal * wide * p.shape[-1] ** -0.5).astype(mx.bfloat16)
    model.update(tree_map_with_path(draw, model.parameters()))


def quantize(model, config, bits, group, width_of):
    config["quantization"] = {"group_size": group, "bits": bits, "mode": "affine"}

    def predicate(path, module):
        if not hasattr(module, "to_quantized"):
            return False
        width = width_of(path)
        if width is None:
            return True
        config["quantization"][path] = width if isinstance(width, dict) else {"group_size": group, "bits": width}
        return config["quantization"][path]

    nn.quantize(model, group, bits, class_predicate=predicate)
    config["quantization_config"] = config["quantization"]


def reference(folder, ids):
    """Logits, states and greedy tokens of what lies in the folder, in float32."""
    model, _ = load_model(folder)
    model.update(tree_unflatten([(k, v if v.dtype in (mx.uint8, mx.uint32) else v.astype(mx.float32))
                                 for k, v in tree_flatten(model.parameters())]))
    text = getattr(model, "language_model", model).model
    gaps, states = [], []

    logits = model(ids[None])[0]
    for layer in text.layers:
        if not hasattr(layer.mlp, "top_k"): # dense, or the router is no module of its own
            continue
        k = layer.mlp.top_k
        inner = layer.mlp.gate

        def gate(x, inner=inner, k=k):
            out = inner(x)
            ordered = mx.sort(out, axis=-1)
            gaps.append(mx.min(ordered[..., -k] - ordered[..., -k - 1]).item())
            return out
        object.__setattr__(layer.mlp, "gate", gate)
    h = text.embed_tokens(ids[None])
    states.append(h[0])
    for i, layer in enumerate(text.layers):
        latent = hasattr(getattr(layer, "self_attn", None), "kv_lora_rank")
        h = layer(h, mask=None if getattr(layer, "is_linear", False) else
                  create_attention_mask(h, None, return_array=latent))
        states.append(h[0])
    states[-1] = text.norm(h)[0]

    cache, stepped = make_prompt_cache(model), []
    for i in range(len(ids)):
        stepped.append(model(ids[None, i:i + 1], cache=cache)[0, -1])
    step = mx.max(mx.abs(mx.stack(stepped) - logits)).item()

    half = len(ids) // 2
    cache, greedy = make_prompt_cache(model), ids[:half].tolist()
    out = model(ids[None, :half], cache=cache)
    while len(greedy) < len(ids):
        greedy.append(mx.argmax(out[0, -1]).item())
        out = model(mx.array([[greedy[-1]]]), cache=cache)
    expected = {"input_ids": ids.astype(mx.int32), "logits": logits, "hidden_states": mx.stack(states),
                "greedy_ids": mx.array(greedy, dtype=mx.int32)}
    return expected, step, min(gaps, default=float("inf")), mx.std(logits).item()


def make(folder, make_config, bits, group, width_of):
    config = make_config()
    model_class, args_class = get_classes(config)
    model = model_class(args_class.from_dict(json.loads(json.dumps(config))))
    random_parameters(model)
    quantize(model, config, bits, group, width_of)
    os.makedirs(folder, exist_ok=True)
    mx.save_safetensors(os.path.join(folder, "model.safetensors"), dict(tree_flatten(model.parameters())),
                        metadata={"format": "mlx"})
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(dict(sorted(config.items())), f, indent=1)
        f.write("\n")
    ids = mx.random.randint(2, TEXT["vocab_size"], (N_TOKENS,))
    expected, step, gap, spread = reference(Path(folder), ids)
    mx.save_safetensors(os.path.join(folder, "expected.safetensors"), expected)
    print(f"{folder}: step {step:.2e} gap {gap:.2e} spread {spread:.3g}")
    return step, gap, spread


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else "tests/data/mlx-tiny"
    mx.set_default_device(mx.cpu)
    mx.random.seed(SEED)
    figures = [make(os.path.join(out, name), *variant) for name, variant in VARIANTS.items()]
    with open(os.path.join(out, "README.md"), "w") as f:
        f.write(README.format(mlx=mx.__version__, mlx_lm=version("mlx-lm"), seed=SEED, n=N_TOKENS,
                              half=N_TOKENS // 2, step=max(f[0] for f in figures),
                              gap=min(f[1] for f in figures),
                              spread=sum(f[2] for f in figures) / len(figures)))


if __name__ == "__main__":
    main()
