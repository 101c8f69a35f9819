/* Mixtral: Mistral's attention and routed experts, weights by the softmax of the chosen. In GGUF it
 * is the architecture "llama" with experts, rotated pairs side by side. Name table and the reading
 * of the configuration; no arithmetic. */
#include "model/config.h"
#include "model/recipes.h"

static const char *const model_types[] = {"mixtral", NULL};

static const mfi_name_rule moe_names[] = {
    MFI_VECTOR(NORM_FFN, HIDDEN, "post_attention_layernorm.weight", "ffn_norm.weight"),
    MFI_RESAVED(ROUTER, EXPERTS, HIDDEN, MATRIX, "block_sparse_moe.gate.weight", "mlp.gate.weight",
                "ffn_gate_inp.weight"),
};

static mf_status read_config(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_attention(c, s, err));
    MFI_TRY(mfi_config_rope(c, s, 1e6, MFI_ROPE_WHOLE, err));
    if (!c->gguf_arch) /* llama.cpp has none in this architecture */
        MFI_TRY(mfi_config_window(c, model, 0, err));
    mfi_config_no_bias(model);
    return mfi_config_experts(c, s, "intermediate_size", err);
}

static const mfi_evidence evidence[] = {
    MFI_EVIDENCE_FLOATS,
    MFI_EVIDENCE_MLX_CONVERTED,
    MFI_EVIDENCE_GGUF,
};

const mfi_arch mfi_arch_mixtral = {
    .name = "mixtral",
    .model_types = model_types,
    .gguf_arch = "llama",
    .begin = MFI_RECIPE(mfi_ops_begin, mfi_names_begin),
    .mixer = {[MFI_MIXER_ATTN] = MFI_RECIPE(mfi_ops_attn, mfi_names_attn_paired),
              [MFI_MIXER_WINDOW] = MFI_RECIPE(mfi_ops_attn, mfi_names_attn_paired)},
    .ffn = {[MFI_FFN_MOE] = MFI_RECIPE(mfi_ops_moe, moe_names)},
    .head = MFI_RECIPE(mfi_ops_head, mfi_names_head_plain),
    .experts = &mfi_experts_sparse,
    .read_config = read_config,
    .evidence = evidence,
    .n_evidence = MFI_ARRAY_LEN(evidence),
};
