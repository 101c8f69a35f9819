/* DeepSeek-V2 and what grew from it: DeepSeek-V3 (R1, V3.1, Cogito v2 671B), Kimi-K2 and
 * GLM-4.7-Flash. Latent attention in every layer; the first layers dense, the others with routed
 * experts and shared ones that are added as they are. V2 routes by softmax, the others by sigmoids
 * with a correction bias. llama.cpp has one architecture for all of them. Name tables and the
 * reading of the configuration; no arithmetic. */
#include <stdio.h>
#include <string.h>

#include "model/config.h"
#include "model/recipes.h"

static const char *const v2_types[] = {"deepseek_v2", NULL};
static const char *const v3_types[] = {"deepseek_v3", "kimi_k2", NULL};
static const char *const glm_types[] = {"glm4_moe_lite", NULL};

/* ---- configuration ---- */

/* Which layers are dense, where config.json lists them one by one (transformers 5 writes it so). */
static mf_status read_layer_types(mfi_model *model, const mfi_config *c, const mfi_json *types,
                                  mf_error *err)
{
    mfi_shape *s = &model->shape;
    if (mfi_json_typeof(types) != MFI_JSON_ARRAY || mfi_json_len(types) < s->n_layers)
        return mfi_fail(err, MF_ERR_FORMAT,
                        "%s: config.json: mlp_layer_types must be given for %u layers", c->path,
                        s->n_layers);
    for (uint32_t i = 0; i < s->n_layers; i++) {
        const char *type = mfi_json_str(mfi_json_at(types, i), NULL);
        bool dense = type && strcmp(type, "dense") == 0;
        if (!dense && (!type || strcmp(type, "sparse") != 0))
            return mfi_fail(err, MF_ERR_UNSUPPORTED,
                            "%s: config.json: mlp_layer_types: '%s' (known: dense, sparse)",
                            c->path, type ? type : "?");
        if (dense)
            model->ffn[i] = MFI_FFN_DENSE;
    }
    return mfi_config_u32(c, "intermediate_size", -1, 1, 1 << 22, &s->dense_width, err);
}

static mf_status read_dense(mfi_model *model, const mfi_config *c, mf_error *err)
{
    const mfi_json *types = c->gguf_arch ? NULL : mfi_config_get(c, "mlp_layer_types");
    if (mfi_json_typeof(types) != MFI_JSON_NULL)
        return read_layer_types(model, c, types, err);
    MFI_TRY(mfi_config_dense(c, model, err));
    if (model->arch != &mfi_arch_glm4_moe_lite || mfi_config_has(c, "first_k_dense_replace"))
        return MF_OK;
    model->ffn[0] = MFI_FFN_DENSE; /* the family's default */
    return mfi_config_u32(c, "intermediate_size", -1, 1, 1 << 22, &model->shape.dense_width, err);
}

static mf_status read_layers(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    MFI_TRY(mfi_config_experts(c, s, "moe_intermediate_size", err));
    MFI_TRY(mfi_config_routing(c, s, err));
    MFI_TRY(mfi_config_shared(c, model, err));
    MFI_TRY(read_dense(model, c, err));
    model->omit[MFI_ROLE_SHARED_GATE] = model->omit[MFI_ROLE_SHARED_UP] =
        model->omit[MFI_ROLE_SHARED_DOWN] = s->shared_width == 0;
    /* DeepSeek-V2's modelling code takes a group for as good as its best expert, V3's adds two. */
    s->routing.group_best = s->routing.score == MFI_SCORE_SOFTMAX ? 1 : 2;
    return MF_OK;
}

static mf_status read_v2(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    s->routing = (mfi_routing){.score = MFI_SCORE_SOFTMAX, .scale = 1};
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_latent(c, model, err));
    s->rope_pairs = true; /* rope_interleave is V3's */
    /* DeepSeek's own code would then not scale, others do. */
    MFI_TRY(mfi_config_require(c, "norm_topk_prob", false, err));
    MFI_TRY(read_layers(model, c, err));
    const char *method = mfi_json_str(mfi_config_get(c, "topk_method"), NULL);
    if (!method || strcmp(method, "greedy") == 0)
        s->routing.n_groups = 0;
    else if (strcmp(method, "group_limited_greedy") != 0)
        return mfi_fail(err, MF_ERR_UNSUPPORTED,
                        "%s: config.json: topk_method '%s' (known here: greedy, "
                        "group_limited_greedy)",
                        c->path, method);
    model->omit[MFI_ROLE_ROUTER_CORRECTION] = true;
    return MF_OK;
}

/* Dense layers come first, so the last layer is routed if any is. */
static bool has_correction(const mfi_model *model)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%u.exp_probs_b.bias", model->shape.n_layers - 1);
    return mfi_config_has_tensor(model, name);
}

/* llama.cpp's deepseek2: V2's routing where nothing else is said, but for the first files of
 * GLM-4.7-Flash, which are known by their vocabulary. */
static mf_status read_gguf(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    bool glm = s->n_vocab == 154880;
    s->routing = (mfi_routing){.score = glm ? MFI_SCORE_SIGMOID : MFI_SCORE_SOFTMAX, .scale = 1};
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_latent(c, model, err));
    MFI_TRY(read_layers(model, c, err));
    model->omit[MFI_ROLE_ROUTER_CORRECTION] = !has_correction(model);
    if (s->routing.score == MFI_SCORE_SOFTMAX)
        snprintf(model->family, sizeof model->family, "%s", mfi_arch_deepseek_v2.name);
    else if (glm)
        snprintf(model->family, sizeof model->family, "%s", mfi_arch_glm4_moe_lite.name);
    return MF_OK;
}

static mf_status read_v3(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    if (c->gguf_arch)
        return read_gguf(model, c, err);
    /* The scale is transformers' default. */
    s->routing = (mfi_routing){.score = MFI_SCORE_SIGMOID,
                               .normalize = true,
                               .scale = model->arch == &mfi_arch_glm4_moe_lite ? 1.8f : 2.5f};
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_latent(c, model, err));
    const char *method = mfi_json_str(mfi_config_get(c, "topk_method"), NULL);
    if (method && strcmp(method, "noaux_tc") != 0)
        return mfi_fail(err, MF_ERR_UNSUPPORTED,
                        "%s: config.json: topk_method '%s' (known here: noaux_tc)", c->path,
                        method);
    return read_layers(model, c, err);
}

/* ---- what it was compared with ---- */

static const mfi_evidence evidence[] = {
    MFI_EVIDENCE_FLOATS,
    {MFI_FORMAT_FP8, "the same tiny model, quantised so and decoded again by other code"},
    {MFI_FORMAT_MLX, "tiny 4-bit models: logits of mlx-lm"},
    {"GGUF", "tiny F32 models: logits of llama.cpp"},
};

#define DEEPSEEK(name_, types_, read_)                                                             \
    {                                                                                              \
        .name = name_, .model_types = types_, .gguf_arch = "deepseek2",                            \
        .mlx = {.float_router = true}, .begin = MFI_RECIPE(mfi_ops_begin, mfi_names_begin),        \
        .mixer = {[MFI_MIXER_LATENT] = MFI_RECIPE(mfi_ops_latent, mfi_names_latent),               \
                  [MFI_MIXER_LATENT_DIRECT] =                                                      \
                      MFI_RECIPE(mfi_ops_latent_direct, mfi_names_latent)},                        \
        .ffn = {[MFI_FFN_MOE] = MFI_RECIPE(mfi_ops_moe, mfi_names_deepseek_moe),                   \
                [MFI_FFN_MOE_SHARED] = MFI_RECIPE(mfi_ops_moe_shared, mfi_names_deepseek_moe),     \
                [MFI_FFN_DENSE] = MFI_RECIPE(mfi_ops_dense, mfi_names_deepseek_dense)},            \
        .head = MFI_RECIPE(mfi_ops_head, mfi_names_head_plain), .experts = &mfi_experts_mlp,       \
        .read_config = read_, .evidence = evidence, .n_evidence = MFI_ARRAY_LEN(evidence),         \
    }

const mfi_arch mfi_arch_deepseek_v3 = DEEPSEEK("deepseek_v3", v3_types, read_v3);
const mfi_arch mfi_arch_deepseek_v2 = DEEPSEEK("deepseek_v2", v2_types, read_v2);
const mfi_arch mfi_arch_glm4_moe_lite = DEEPSEEK("glm4_moe_lite", glm_types, read_v3);
