/* Hunyuan-A13B, from llama.cpp's files: queries and keys normed after they are rotated; experts
 * whose weights are renormalised, and a shared one in every layer. The reading of the
 * configuration; no arithmetic. */
#include <string.h>

#include "model/config.h"
#include "model/recipes.h"

static const char *const no_model_types[] = {NULL};

static mf_status read_config(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    model->omit[MFI_ROLE_ROUTER_CORRECTION] = true;
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_attention(c, s, err));
    MFI_TRY(mfi_config_rope(c, s, 1e4, MFI_ROPE_WHOLE, err));
    MFI_TRY(mfi_config_experts(c, s, "moe_intermediate_size", err));
    MFI_TRY(mfi_config_shared(c, model, err));
    if (s->shared_width > 0)
        return MF_OK;
    memset(model->ffn, MFI_FFN_MOE_SHARED, s->n_layers); /* as wide as "dense" then */
    return mfi_config_u32(c, "intermediate_size", -1, 1, 1 << 20, &s->shared_width, err);
}

static const mfi_evidence evidence[] = {
    MFI_EVIDENCE_GGUF,
};

const mfi_arch mfi_arch_hunyuan_moe = {
    .name = "hunyuan_moe",
    .model_types = no_model_types,
    .gguf_arch = "hunyuan-moe",
    .begin = MFI_RECIPE(mfi_ops_begin, mfi_names_begin),
    .mixer = {[MFI_MIXER_ATTN] = MFI_RECIPE(mfi_ops_attn_norm_after, mfi_names_gguf_attn)},
    .ffn = {[MFI_FFN_MOE_SHARED] = MFI_RECIPE(mfi_ops_moe_shared, mfi_names_gguf_moe_shared)},
    .head = MFI_RECIPE(mfi_ops_head, mfi_names_head_plain),
    .experts = &mfi_experts_mlp,
    .read_config = read_config,
    .evidence = evidence,
    .n_evidence = MFI_ARRAY_LEN(evidence),
};
