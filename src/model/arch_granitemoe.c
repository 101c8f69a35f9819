/* Granite 3 MoE: Llama's attention and routed experts (in GGUF also with a shared one), with
 * multipliers of embedding, scores, residual stream and logits. GGUF has rotated pairs side by
 * side. Name table and the reading of the configuration; no arithmetic. */
#include "model/config.h"
#include "model/recipes.h"

static const char *const model_types[] = {"granitemoe", NULL};

#define ROUTED                                                                                     \
    MFI_VECTOR(NORM_FFN, HIDDEN, "post_attention_layernorm.weight", "ffn_norm.weight"),            \
        MFI_RESAVED(ROUTER, EXPERTS, HIDDEN, MATRIX, "block_sparse_moe.router.layer.weight",       \
                    "block_sparse_moe.router.weight", "ffn_gate_inp.weight")

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
    MFI_TRY(mfi_config_bias(c, model, true, err));
    MFI_TRY(mfi_config_require(c, "rope_finetuned", true, err)); /* false: no rotation at all */
    MFI_TRY(mfi_config_attention(c, s, err));
    MFI_TRY(mfi_config_rope(c, s, 1e4, MFI_ROPE_WHOLE, err));
    s->attn_scale = c->gguf_arch ? 0 : 1; /* where the file doesn't say */
    MFI_TRY(mfi_config_scales(c, s, err));
    MFI_TRY(mfi_config_experts(c, s, "intermediate_size", err));
    return mfi_config_shared(c, model, err);
}

static const mfi_evidence evidence[] = {
    MFI_EVIDENCE_FLOATS,
    MFI_EVIDENCE_MLX_CONVERTED,
    {"GGUF", "a tiny F32 model with a shared expert: logits of llama.cpp"},
};

static const mfi_expert_names experts = {
    .each = "block_sparse_moe.experts",
    .proj = {"w1", "w3", "w2"},
    .stacked = "block_sparse_moe.switch_mlp",
    .fused = "block_sparse_moe.input_linear.weight",
    .fused_down = "block_sparse_moe.output_linear.weight",
    .resaved = "block_sparse_moe.experts.gate_up_proj",
    .resaved_down = "block_sparse_moe.experts.down_proj",
};

const mfi_arch mfi_arch_granitemoe = {
    .name = "granitemoe",
    .model_types = model_types,
    .gguf_arch = "granitemoe",
    .begin = MFI_RECIPE(mfi_ops_begin, mfi_names_begin),
    .mixer = {[MFI_MIXER_ATTN] = MFI_RECIPE(mfi_ops_attn, mfi_names_attn_paired)},
    .ffn = {[MFI_FFN_MOE] = MFI_RECIPE(mfi_ops_moe, moe_names),
            [MFI_FFN_MOE_SHARED] = MFI_RECIPE(mfi_ops_moe_shared, shared_names)},
    .head = MFI_RECIPE(mfi_ops_head_scaled, mfi_names_head_plain),
    .experts = &experts,
    .read_config = read_config,
    .evidence = evidence,
    .n_evidence = MFI_ARRAY_LEN(evidence),
};
