/* Opening a model: which family, which shape. Called once by the engine, on its thread. What its
 * tensors are called is bind.c's; no arithmetic on weights here. */
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"

const mfi_arch *const mfi_archs[] = {
    &mfi_arch_qwen3_5_moe,   &mfi_arch_qwen3_next, &mfi_arch_qwen3_moe,    &mfi_arch_qwen2_moe,
    &mfi_arch_mixtral,       &mfi_arch_olmoe,      &mfi_arch_glm4_moe,     &mfi_arch_minimax_m2,
    &mfi_arch_granitemoe,    &mfi_arch_dots1,      &mfi_arch_deepseek_v3,  &mfi_arch_deepseek_v2,
    &mfi_arch_glm4_moe_lite, &mfi_arch_deepseek,   &mfi_arch_gpt_oss,      &mfi_arch_ernie4_5_moe,
    &mfi_arch_hunyuan_moe,   &mfi_arch_exaone_moe, &mfi_arch_bailing_moe2, &mfi_arch_bailing_moe,
};
const uint32_t mfi_n_archs = MFI_ARRAY_LEN(mfi_archs);

static const mfi_arch *find_arch(const char *type, bool gguf)
{
    for (size_t i = 0; i < mfi_n_archs; i++) {
        if (gguf && strcmp(mfi_archs[i]->gguf_arch, type) == 0)
            return mfi_archs[i];
        for (const char *const *t = mfi_archs[i]->model_types; !gguf && *t; t++)
            if (strcmp(*t, type) == 0)
                return mfi_archs[i];
    }
    return NULL;
}

/* A word of a list, each word once. */
static void add_word(mfi_buf *list, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = list->data; list->len && (at = strstr(at, word)); at += len)
        if ((at == list->data || at[-1] == ' ') && (at[len] == 0 || at[len] == ','))
            return;
    mfi_buf_fmt(list, "%s%s", list->len ? ", " : "", word);
}

static mf_status unknown_family(const char *path, const char *what, const char *type, bool gguf,
                                mf_error *err)
{
    mfi_buf known = {0};
    for (size_t i = 0; i < mfi_n_archs; i++) {
        if (gguf)
            add_word(&known, mfi_archs[i]->gguf_arch);
        for (const char *const *t = mfi_archs[i]->model_types; !gguf && *t; t++)
            add_word(&known, *t);
    }
    mf_status status =
        mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: %s '%s' is not a known family (known: %s)", path,
                 what, type, known.failed ? "" : known.data);
    mfi_buf_free(&known);
    return status;
}

static mf_status recognise_gguf(mfi_model *model, mfi_config *c, mf_error *err)
{
    const mfi_json *meta = mfi_catalog_meta(model->catalog);
    const char *type = mfi_json_str(mfi_json_get(meta, "general.architecture"), NULL);
    if (!type)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: metadata general.architecture is missing",
                        c->path);
    model->arch = find_arch(type, true);
    if (!model->arch)
        return unknown_family(c->path, "general.architecture", type, true, err);
    c->root = meta;
    c->gguf_arch = model->arch->gguf_arch;
    snprintf(model->reason, sizeof model->reason, "general.architecture is %.64s", type);
    return MF_OK;
}

/* Finds the family and the part of config.json that describes the text model. */
static mf_status recognise_hf(mfi_model *model, mfi_config *c, mf_error *err)
{
    const mfi_json *config = mfi_catalog_config(model->catalog);
    const mfi_json *nested = mfi_json_get(config, "text_config");
    const char *type = mfi_json_str(mfi_json_get(config, "model_type"), NULL);
    const char *nested_type = mfi_json_str(mfi_json_get(nested, "model_type"), NULL);
    const char *decisive = nested_type ? nested_type : type;
    if (!decisive)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: config.json: model_type is missing", c->path);
    model->arch = find_arch(decisive, false);
    if (!model->arch)
        return unknown_family(c->path, "config.json: model_type", decisive, false, err);
    c->root = mfi_json_typeof(nested) == MFI_JSON_OBJECT ? nested : config;
    snprintf(model->reason, sizeof model->reason, "config.json: %smodel_type is %.64s",
             nested_type ? "text_config." : "", decisive);
    return MF_OK;
}

/* Sizes that GGUF leaves to the tensors. */
static mf_status read_gguf_sizes(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    uint32_t mtp;
    MFI_TRY(mfi_config_u32(c, "mtp_layers", 0, 0, s->n_layers - 1, &mtp, err));
    s->n_layers -= mtp; /* they stand behind the others and are left alone */
    uint32_t embed = mfi_catalog_find(model->catalog, "token_embd.weight");
    if (embed == MFI_TENSOR_NONE)
        return mfi_fail(err, MF_ERR_TENSOR_MISSING, "%s: tensor token_embd.weight is missing",
                        c->path);
    uint64_t rows = mfi_tensor_rows(mfi_catalog_tensor(model->catalog, embed));
    if (rows == 0 || rows > MFI_MAX_VOCAB)
        return mfi_fail(err, MF_ERR_TENSOR_SHAPE,
                        "%s: tensor token_embd.weight has no possible vocabulary", c->path);
    s->n_vocab = (uint32_t)rows;
    model->tied = mfi_catalog_find(model->catalog, "output.weight") == MFI_TENSOR_NONE;
    return mfi_config_require(c, "causal", true, err);
}

/* What a family doesn't say; all layers are attention and routed experts. */
static void set_defaults(mfi_model *model)
{
    mfi_shape *s = &model->shape;
    s->embed_scale = s->residual_scale = s->logit_scale = 1;
    s->rope.attn_factor = 1;
    s->routing =
        (mfi_routing){.score = MFI_SCORE_SOFTMAX, .group_best = 2, .normalize = true, .scale = 1};
}

mf_status mfi_model_read_shape(mfi_model *model, const mfi_config *c, const mfi_json *outer_root,
                               mf_error *err)
{
    mfi_shape *s = &model->shape;
    MFI_TRY(mfi_config_u32(c, "num_hidden_layers", -1, 1, MFI_MAX_LAYERS, &s->n_layers, err));
    MFI_TRY(mfi_config_u32(c, "hidden_size", -1, 1, 1 << 20, &s->hidden, err));
    MFI_TRY(mfi_config_u32(c, "max_position_embeddings", 32768, 1, MFI_MAX_CTX, &model->ctx_model,
                           err));
    if (c->gguf_arch) {
        MFI_TRY(read_gguf_sizes(model, c, err));
    } else {
        MFI_TRY(mfi_config_u32(c, "vocab_size", -1, 1, MFI_MAX_VOCAB, &s->n_vocab, err));
        mfi_config outer = *c;
        outer.root = outer_root;
        MFI_TRY(mfi_config_flag(&outer, "tie_word_embeddings", &model->tied, err));
        MFI_TRY(mfi_config_flag(c, "tie_word_embeddings", &model->tied, err));
    }
    model->mixer = calloc(s->n_layers, sizeof *model->mixer);
    model->ffn = calloc(s->n_layers, sizeof *model->ffn);
    if (!model->mixer || !model->ffn)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for %u layers", s->n_layers);
    set_defaults(model);
    MFI_TRY(model->arch->read_config(model, c, err));
    if (!model->arch->ffn[MFI_FFN_DENSE].ops)
        MFI_TRY(mfi_config_sparse(c, model, err)); /* which refuses what says otherwise */
    if (s->attn_scale == 0)
        s->attn_scale = (float)(1.0 / sqrt((double)s->head_dim));
    if (mfi_model_n_routed(model) == 0)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: no layer has routed experts", c->path);
    return MF_OK;
}

mf_status mfi_model_open(mfi_model **out, const mfi_catalog *catalog, mf_error *err)
{
    mfi_model *model = calloc(1, sizeof *model);
    if (!model)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a model description");
    model->catalog = catalog;
    mfi_config c = {.path = mfi_catalog_path(catalog)};
    mf_status status =
        mfi_catalog_meta(catalog) ? recognise_gguf(model, &c, err) : recognise_hf(model, &c, err);
    if (status == MF_OK) {
        snprintf(model->family, sizeof model->family, "%s", model->arch->name);
        status = mfi_model_read_shape(model, &c, mfi_catalog_config(catalog), err);
    }
    if (status == MF_OK)
        status = mfi_model_bind(model, err);
    if (status != MF_OK) {
        mfi_model_close(&model);
        return status;
    }
    *out = model;
    return MF_OK;
}

uint32_t mfi_model_n_routed(const mfi_model *model)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < model->shape.n_layers; i++)
        n += mfi_model_routed(model, i);
    return n;
}

void mfi_model_close(mfi_model **model)
{
    if (!*model)
        return;
    free((*model)->mixer);
    free((*model)->ffn);
    free((*model)->weights);
    free((*model)->experts);
    free((*model)->expert_bias);
    free(*model);
    *model = NULL;
}
