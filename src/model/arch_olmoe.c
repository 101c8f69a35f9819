/* OLMoE: queries and keys normed over all heads at once, routed experts whose weights are not
 * renormalised. Name table and the reading of the configuration; no arithmetic. */
#include "model/config.h"
#include "model/recipes.h"

static const char *const model_types[] = {"olmoe", NULL};

static const mfi_name_rule moe_names[] = {
    MFI_VECTOR(NORM_FFN, HIDDEN, "post_attention_layernorm.weight", "ffn_norm.weight"),
    MFI_MATRIX(ROUTER, EXPERTS, HIDDEN, "mlp.gate.weight", "ffn_gate_inp.weight"),
};

static mf_status read_config(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    s->eps = 1e-5f;
    s->routing.normalize = false;
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_bias(c, model, false, err));
    double clip = 0;
    MFI_TRY(mfi_config_number(c, mfi_config_get(c, "clip_qkv"), "clip_qkv", 0, 1e30, &clip, err));
    if (clip != 0)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: clip_qkv %g (known: none)", c->path, clip);
    MFI_TRY(mfi_config_attention(c, s, err));
    MFI_TRY(mfi_config_rope(c, s, 1e4, MFI_ROPE_WHOLE, err));
    MFI_TRY(mfi_config_experts(c, s, "intermediate_size", err));
    return c->gguf_arch ? MF_OK : mfi_config_routing(c, s, err); /* llama.cpp reads none of it */
}

static const mfi_evidence evidence[] = {
    MFI_EVIDENCE_FLOATS,
    MFI_EVIDENCE_MLX_CONVERTED,
    MFI_EVIDENCE_GGUF,
};

const mfi_arch mfi_arch_olmoe = {
    .name = "olmoe",
    .model_types = model_types,
    .gguf_arch = "olmoe",
    .begin = MFI_RECIPE(mfi_ops_begin, mfi_names_begin),
    .mixer = {[MFI_MIXER_ATTN] = MFI_RECIPE(mfi_ops_attn_wide_norm, mfi_names_attn_wide_norm)},
    .ffn = {[MFI_FFN_MOE] = MFI_RECIPE(mfi_ops_moe, moe_names)},
    .head = MFI_RECIPE(mfi_ops_head, mfi_names_head_plain),
    .experts = &mfi_experts_mlp,
    .read_config = read_config,
    .evidence = evidence,
    .n_evidence = MFI_ARRAY_LEN(evidence),
};
