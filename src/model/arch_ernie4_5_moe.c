/* ERNIE 4.5 MoE, from llama.cpp's files: plain attention; dense layers first, and between layers
 * with experts where there is an interval; experts chosen by softmax with a correction, and shared
 * ones. The reading of the configuration; no arithmetic. */
#include "model/config.h"
#include "model/recipes.h"

static const char *const no_model_types[] = {NULL};

static mf_status read_config(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    uint32_t interval;
    model->omit[MFI_ROLE_ROUTER_CORRECTION] =
        !mfi_config_has_layer_tensor(model, "exp_probs_b.bias");
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_attention(c, s, err));
    MFI_TRY(mfi_config_rope(c, s, 1e4, MFI_ROPE_WHOLE, err));
    MFI_TRY(mfi_config_experts(c, s, "moe_intermediate_size", err));
    MFI_TRY(mfi_config_shared(c, model, err));
    MFI_TRY(mfi_config_dense(c, model, err));
    MFI_TRY(mfi_config_u32(c, "moe_layer_interval", 1, 1, MFI_MAX_LAYERS, &interval, err));
    for (uint32_t i = 0; i < s->n_layers; i++)
        if ((i + 1) % interval != 0)
            model->ffn[i] = MFI_FFN_DENSE;
    return interval == 1
               ? MF_OK
               : mfi_config_u32(c, "intermediate_size", -1, 1, 1 << 22, &s->dense_width, err);
}

static const mfi_evidence evidence[] = {
    MFI_EVIDENCE_GGUF,
};

const mfi_arch mfi_arch_ernie4_5_moe = {
    .name = "ernie4_5_moe",
    .model_types = no_model_types,
    .gguf_arch = "ernie4_5-moe",
    .begin = MFI_RECIPE(mfi_ops_begin, mfi_names_begin),
    .mixer = {[MFI_MIXER_ATTN] = MFI_RECIPE(mfi_ops_attn, mfi_names_gguf_attn_paired)},
    .ffn = {[MFI_FFN_MOE] = MFI_RECIPE(mfi_ops_moe, mfi_names_gguf_moe),
            [MFI_FFN_MOE_SHARED] = MFI_RECIPE(mfi_ops_moe_shared, mfi_names_gguf_moe_shared),
            [MFI_FFN_DENSE] = MFI_RECIPE(mfi_ops_dense, mfi_names_gguf_dense)},
    .head = MFI_RECIPE(mfi_ops_head, mfi_names_head_plain),
    .experts = &mfi_experts_mlp,
    .read_config = read_config,
    .evidence = evidence,
    .n_evidence = MFI_ARRAY_LEN(evidence),
};
