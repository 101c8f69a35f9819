/* Hyper-parameters of routers, shared experts and dense layers, for families whose files say them.
 * Called while a model is opened; pure look-ups. */
#include "model/config.h"

#include <string.h>

/* llama.cpp's expert_gating_func. */
enum { GATING_NONE, GATING_SOFTMAX, GATING_SIGMOID, GATING_SOFTMAX_CHOSEN };

static mf_status read_score(const mfi_config *c, mfi_routing *r, mf_error *err)
{
    uint32_t func;
    MFI_TRY(mfi_config_u32(c, "gating_func", GATING_NONE, 0, UINT16_MAX, &func, err));
    const char *name = mfi_json_str(mfi_config_get(c, "scoring_func"), NULL);
    if (name && strcmp(name, "softmax") == 0)
        func = GATING_SOFTMAX;
    else if (name && (strcmp(name, "sigmoid") == 0 || strcmp(name, "noaux_tc") == 0)) /* dots1 */
        func = GATING_SIGMOID;
    else if (name)
        return mfi_fail(err, MF_ERR_UNSUPPORTED,
                        "%s: config.json: scoring_func '%s' (known: softmax, sigmoid)", c->path,
                        name);
    switch (func) {
    case GATING_NONE:
        return MF_OK;
    case GATING_SOFTMAX:
        r->score = MFI_SCORE_SOFTMAX;
        return MF_OK;
    case GATING_SIGMOID:
        r->score = MFI_SCORE_SIGMOID;
        return MF_OK;
    case GATING_SOFTMAX_CHOSEN:
        r->score = MFI_SCORE_SOFTMAX_CHOSEN;
        return MF_OK;
    }
    return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: expert_gating_func %u (known: 1 to 3)", c->path,
                    func);
}

mf_status mfi_config_routing(const mfi_config *c, mfi_shape *s, mf_error *err)
{
    mfi_routing *r = &s->routing;
    double scale = (double)r->scale;
    MFI_TRY(read_score(c, r, err));
    MFI_TRY(mfi_config_flag(c, "norm_topk_prob", &r->normalize, err));
    MFI_TRY(mfi_config_number(c, mfi_config_get(c, "routed_scaling_factor"),
                              "routed_scaling_factor", 0, 1e6, &scale, err));
    r->scale = scale == 0 && c->gguf_arch ? 1 : (float)scale; /* 0: llama.cpp's way to say none */
    return c->gguf_arch ? MF_OK : mfi_config_groups(c, s, err);
}

mf_status mfi_config_groups(const mfi_config *c, mfi_shape *s, mf_error *err)
{
    mfi_routing *r = &s->routing;
    MFI_TRY(mfi_config_u32(c, "n_group", 0, 0, MFI_MAX_EXPERT_GROUPS, &r->n_groups, err));
    if (r->n_groups < 2)
        return MF_OK;
    MFI_TRY(mfi_config_u32(c, "topk_group", -1, 1, r->n_groups, &r->n_groups_used, err));
    if (s->n_experts % r->n_groups != 0 || s->n_experts / r->n_groups * r->n_groups_used < s->top_k)
        return mfi_fail(err, MF_ERR_FORMAT,
                        "%s: top-%u of %u experts from %u of %u groups is impossible", c->path,
                        s->top_k, s->n_experts, r->n_groups_used, r->n_groups);
    return MF_OK;
}

mf_status mfi_config_shared(const mfi_config *c, mfi_model *model, mf_error *err)
{
    mfi_shape *s = &model->shape;
    uint32_t n;
    MFI_TRY(mfi_config_u32(c, "n_shared_experts", 0, 0, MFI_MAX_EXPERTS, &n, err));
    uint64_t width = (uint64_t)n * s->expert_width;
    if (width > 1 << 20)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: %u shared experts of %u are impossible", c->path,
                        n, s->expert_width);
    s->shared_width = (uint32_t)width;
    if (c->gguf_arch)
        MFI_TRY(mfi_config_u32(c, "shared_expert_intermediate_size", s->shared_width, 0, 1 << 20,
                               &s->shared_width, err));
    if (s->shared_width > 0)
        memset(model->ffn, MFI_FFN_MOE_SHARED, s->n_layers);
    return MF_OK;
}

mf_status mfi_config_sparse(const mfi_config *c, mfi_model *model, mf_error *err)
{
    mfi_shape *s = &model->shape;
    const mfi_json *only = mfi_config_get(c, "mlp_only_layers");
    uint32_t step, n_dense = 0;
    if (c->gguf_arch)
        return MF_OK;
    MFI_TRY(mfi_config_u32(c, "decoder_sparse_step", 1, 1, MFI_MAX_LAYERS, &step, err));
    for (uint32_t i = 0; i < s->n_layers; i++)
        if ((i + 1) % step != 0)
            model->ffn[i] = MFI_FFN_DENSE;
    for (size_t j = 0; j < mfi_json_len(only); j++) {
        int64_t layer;
        if (!mfi_json_i64(mfi_json_at(only, j), &layer))
            return mfi_fail(err, MF_ERR_FORMAT,
                            "%s: config.json: mlp_only_layers has what is no layer", c->path);
        if (layer >= 0 && layer < (int64_t)s->n_layers) /* others are there in published files */
            model->ffn[layer] = MFI_FFN_DENSE;
    }
    for (uint32_t i = 0; i < s->n_layers; i++)
        n_dense += model->ffn[i] == MFI_FFN_DENSE;
    if (n_dense == 0)
        return MF_OK;
    if (!model->arch->ffn[MFI_FFN_DENSE].ops)
        return mfi_fail(err, MF_ERR_UNSUPPORTED,
                        "%s: config.json: mlp_only_layers or decoder_sparse_step make %u layers "
                        "dense, which family %s isn't known to have",
                        c->path, n_dense, model->arch->name);
    return mfi_config_u32(c, "intermediate_size", -1, 1, 1 << 22, &s->dense_width, err);
}

mf_status mfi_config_dense(const mfi_config *c, mfi_model *model, mf_error *err)
{
    mfi_shape *s = &model->shape;
    uint32_t n, freq;
    MFI_TRY(mfi_config_u32(c, "first_k_dense_replace", 0, 0, s->n_layers, &n, err));
    MFI_TRY(mfi_config_u32(c, "moe_layer_freq", 1, 1, 1, &freq, err));
    memset(model->ffn, MFI_FFN_DENSE, n);
    if (n > 0)
        MFI_TRY(mfi_config_u32(c, "intermediate_size", -1, 1, 1 << 22, &s->dense_width, err));
    return MF_OK;
}
