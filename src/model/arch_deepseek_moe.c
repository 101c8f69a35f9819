/* DeepSeekMoE (deepseek-moe-16b), before latent attention: plain attention, a first dense layer,
 * then experts routed by softmax and shared ones that are added as they are. Names are those of
 * others; the reading of the configuration; no arithmetic. */
#include "model/config.h"
#include "model/recipes.h"

static const char *const model_types[] = {"deepseek", NULL};

static mf_status read_config(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    s->routing.normalize = false;
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_attention(c, s, err));
    MFI_TRY(mfi_config_rope(c, s, 1e4, MFI_ROPE_WHOLE, err));
    MFI_TRY(mfi_config_experts(c, s, "moe_intermediate_size", err));
    MFI_TRY(mfi_config_routing(c, s, err));
    if (c->gguf_arch) { /* llama.cpp takes these two for granted */
        s->routing.score = MFI_SCORE_SOFTMAX;
        s->routing.normalize = false;
    }
    MFI_TRY(mfi_config_shared(c, model, err));
    model->omit[MFI_ROLE_ROUTER_CORRECTION] = true;
    mfi_config_no_bias(model);
    return mfi_config_dense(c, model, err);
}

static const mfi_evidence evidence[] = {
    {MFI_FORMAT_FLOATS,
     "the tiny MLX model's weights decoded by other code: logits, every layer's hidden states and "
     "greedy tokens of mlx-lm"},
    {MFI_FORMAT_MLX,
     "a tiny 4-bit model: logits, every layer's hidden states and greedy tokens of mlx-lm"},
    MFI_EVIDENCE_GGUF,
};

const mfi_arch mfi_arch_deepseek = {
    .name = "deepseek",
    .model_types = model_types,
    .gguf_arch = "deepseek",
    .mlx = {.float_router = true},
    .begin = MFI_RECIPE(mfi_ops_begin, mfi_names_begin),
    .mixer = {[MFI_MIXER_ATTN] = MFI_RECIPE(mfi_ops_attn, mfi_names_attn_paired)},
    .ffn = {[MFI_FFN_MOE_SHARED] = MFI_RECIPE(mfi_ops_moe_shared, mfi_names_deepseek_moe),
            [MFI_FFN_DENSE] = MFI_RECIPE(mfi_ops_dense, mfi_names_deepseek_dense)},
    .head = MFI_RECIPE(mfi_ops_head, mfi_names_head_plain),
    .experts = &mfi_experts_mlp,
    .read_config = read_config,
    .evidence = evidence,
    .n_evidence = MFI_ARRAY_LEN(evidence),
};
