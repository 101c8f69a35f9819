/* dots.llm1: queries and keys normed per head, a first dense layer, then experts routed by sigmoids
 * with a correction, and shared ones. Names are those of others; the reading of the configuration;
 * no arithmetic. */
#include <string.h>

#include "model/config.h"
#include "model/recipes.h"

static const char *const model_types[] = {"dots1", NULL};

/* Said layer by layer, or by the number of the first layer with a window; llama.cpp has none. */
static mf_status read_windows(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    uint32_t first;
    if (c->gguf_arch)
        return MF_OK;
    if (mfi_config_has(c, "layer_types"))
        return mfi_config_windows(c, model, 1, err);
    MFI_TRY(mfi_config_u32(c, "max_window_layers", 62, 0, MFI_MAX_LAYERS, &first, err));
    if (first >= s->n_layers || mfi_config_is_null(c, "sliding_window"))
        return MF_OK;
    memset(model->mixer + first, MFI_MIXER_WINDOW, s->n_layers - first);
    return mfi_config_u32(c, "sliding_window", 4096, 1, MFI_MAX_CTX, &s->window, err);
}

static mf_status read_config(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    s->routing.score = MFI_SCORE_SIGMOID;
    s->routing.group_best = 2;
    s->routing.normalize = false; /* where the file doesn't say */
    model->omit[MFI_ROLE_ROUTER_CORRECTION] =
        c->gguf_arch && !mfi_config_has_layer_tensor(model, "exp_probs_b.bias");
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_bias(c, model, false, err));
    MFI_TRY(read_windows(model, c, err));
    MFI_TRY(mfi_config_attention(c, s, err));
    MFI_TRY(mfi_config_rope(c, s, 1e4, MFI_ROPE_WHOLE, err));
    MFI_TRY(mfi_config_experts(c, s, "moe_intermediate_size", err));
    MFI_TRY(mfi_config_routing(c, s, err));
    MFI_TRY(mfi_config_shared(c, model, err));
    return mfi_config_dense(c, model, err);
}

static const mfi_evidence evidence[] = {
    MFI_EVIDENCE_FLOATS,
    MFI_EVIDENCE_MLX_CONVERTED,
    MFI_EVIDENCE_GGUF,
};

const mfi_arch mfi_arch_dots1 = {
    .name = "dots1",
    .model_types = model_types,
    .gguf_arch = "dots1",
    .mlx = {.float_router = true},
    .begin = MFI_RECIPE(mfi_ops_begin, mfi_names_begin),
    .mixer = {[MFI_MIXER_ATTN] = MFI_RECIPE(mfi_ops_attn, mfi_names_attn_norm),
              [MFI_MIXER_WINDOW] = MFI_RECIPE(mfi_ops_attn, mfi_names_attn_norm)},
    .ffn = {[MFI_FFN_MOE] = MFI_RECIPE(mfi_ops_moe, mfi_names_deepseek_moe),
            [MFI_FFN_MOE_SHARED] = MFI_RECIPE(mfi_ops_moe_shared, mfi_names_deepseek_moe),
            [MFI_FFN_DENSE] = MFI_RECIPE(mfi_ops_dense, mfi_names_deepseek_dense)},
    .head = MFI_RECIPE(mfi_ops_head, mfi_names_head_plain),
    .experts = &mfi_experts_mlp_kept,
    .read_config = read_config,
    .evidence = evidence,
    .n_evidence = MFI_ARRAY_LEN(evidence),
};
