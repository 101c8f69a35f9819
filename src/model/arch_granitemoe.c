/* Granite 3 MoE: Llama's attention and routed experts (in GGUF also with a shared one), with
 * multipliers of embedding, scores, residual stream and logits. GGUF has rotated pairs side by
 * side. Name table and the reading of the configuration; no arithmetic. */
#include "model/config.h"
#include "model/recipes.h"

static const char *const model_types[] = {"granitemoe", NULL};

static const mfi_name_rule attn_names[] = {
    MFI_VECTOR(NORM_MIXER, HIDDEN, "input_layernorm.weight", "attn_norm.weight"),
    MFI_MATRIX_PAIRED(ATTN_Q, Q, HIDDEN, "self_attn.q_proj.weight", "attn_q.weight"),
    MFI_MATRIX_PAIRED(ATTN_K, KV, HIDDEN, "self_attn.k_proj.weight", "attn_k.weight"),
    MFI_MATRIX(ATTN_V, KV, HIDDEN, "self_attn.v_proj.weight", "attn_v.weight"),
    MFI_MATRIX(ATTN_O, HIDDEN, ATTN, "self_attn.o_proj.weight", "attn_output.weight"),
};

#define ROUTED                                                                                     \
    MFI_VECTOR(NORM_FFN, HIDDEN, "post_attention_layernorm.weight", "ffn_norm.weight"),            \
        MFI_MATRIX(ROUTER, EXPERTS, HIDDEN, "block_sparse_moe.router.layer.weight",                \
                   "ffn_gate_inp.weight")

static const mfi_name_rule moe_names[] = {ROUTED};

/* Hugging Face's files have the first two as one tensor, in a family of their own. */
static const mfi_name_rule shared_names[] = {
    ROUTED,
    MFI_MATRIX(SHARED_GATE, SHARED, HIDDEN, "shared_mlp.gate_proj.weight", "ffn_gate_shexp.weight"),
    MFI_MATRIX(SHARED_UP, SHARED, HIDDEN, "shared_mlp.up_proj.weight", "ffn_up_shexp.weight"),
    MFI_MATRIX(SHARED_DOWN, HIDDEN, SHARED, "shared_mlp.output_linear.weight",
               "ffn_down_shexp.weight"),
};

static mf_status read_config(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_require(c, "attention_bias", false, err));
    MFI_TRY(mfi_config_require(c, "rope_finetuned", true, err)); /* false: no rotation at all */
    MFI_TRY(mfi_config_attention(c, s, err));
    MFI_TRY(mfi_config_rope(c, s, 1e4, 1.0, err));
    MFI_TRY(mfi_config_scales(c, s, err));
    MFI_TRY(mfi_config_experts(c, s, "intermediate_size", err));
    return mfi_config_shared(c, model, err);
}

static const mfi_evidence evidence[] = {
    {"safetensors: bfloat16, float16, float32", "a tiny model: logits, every layer's hidden states "
                                                "and greedy tokens of Hugging Face transformers"},
    {"MLX: affine, 2, 3, 4, 5, 6 or 8 bits, also mixed",
     "a tiny model as mlx-lm converts it, 4 bits: its logits (tools/mlx_families.py)"},
    {"GGUF", "a tiny F32 model with a shared expert: logits of llama.cpp"},
};

static const mfi_expert_names experts = {
    .each = "block_sparse_moe.experts",
    .proj = {"w1", "w3", "w2"},
    .stacked = "block_sparse_moe.switch_mlp",
    .fused = "block_sparse_moe.input_linear.weight",
    .fused_down = "block_sparse_moe.output_linear.weight",
};

const mfi_arch mfi_arch_granitemoe = {
    .name = "granitemoe",
    .model_types = model_types,
    .gguf_arch = "granitemoe",
    .begin = MFI_RECIPE(mfi_ops_begin, mfi_names_begin),
    .mixer = {[MFI_MIXER_ATTN] = MFI_RECIPE(mfi_ops_attn, attn_names)},
    .ffn = {[MFI_FFN_MOE] = MFI_RECIPE(mfi_ops_moe, moe_names),
            [MFI_FFN_MOE_SHARED] = MFI_RECIPE(mfi_ops_moe_shared, shared_names)},
    .head = MFI_RECIPE(mfi_ops_head_scaled, mfi_names_head_plain),
    .experts = &experts,
    .read_config = read_config,
    .evidence = evidence,
    .n_evidence = MFI_ARRAY_LEN(evidence),
};
