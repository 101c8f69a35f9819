/* Opening a model: which family, which shape, which tensors. Called once by the engine, on its thread.
 * Knows names only through the family's tables; does no arithmetic on weights. */
#include "model/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const mfi_arch *const archs[] = {&mfi_arch_qwen3_5_moe};

/* What text models put in front of their names: alone, as part of a multimodal checkpoint, and as MLX
 * conversions of those have it. lm_head stands outside it. */
static const struct {
    const char *body, *head;
} prefixes[] = {
    {"model.language_model.", ""},
    {"language_model.model.", "language_model."},
    {"model.", ""},
};

typedef struct binder {
    mfi_model *model;
    const char *body, *head;
    uint8_t *bound;  /* [n_tensors] */
    bool mlx_names;  /* experts under switch_mlp: norms have their 1 added already */
} binder;

mf_status mfi_config_u32(const mfi_json *config, const char *key, int64_t fallback, uint32_t min,
                         uint32_t max, uint32_t *out, mf_error *err)
{
    const mfi_json *v = mfi_json_get(config, key);
    int64_t n = fallback;
    if (!v || mfi_json_typeof(v) == MFI_JSON_NULL) {
        if (fallback < 0)
            return mfi_fail(err, MF_ERR_FORMAT, "config.json: %s is missing", key);
    } else if (!mfi_json_i64(v, &n)) {
        return mfi_fail(err, MF_ERR_FORMAT, "config.json: %s is not an integer", key);
    }
    if (n < (int64_t)min || n > (int64_t)max)
        return mfi_fail(err, MF_ERR_FORMAT,
                        "config.json: %s is %" PRId64 "; from %u to %u is possible", key, n, min, max);
    *out = (uint32_t)n;
    return MF_OK;
}

/* ---- family ---- */

const mfi_arch *const *mfi_model_archs(size_t *n)
{
    *n = MFI_ARRAY_LEN(archs);
    return archs;
}

static const mfi_arch *find_arch(const char *model_type)
{
    for (size_t i = 0; i < MFI_ARRAY_LEN(archs); i++)
        for (const char *const *t = archs[i]->model_types; *t; t++)
            if (strcmp(*t, model_type) == 0)
                return archs[i];
    return NULL;
}

static mf_status unknown_family(const char *path, const char *model_type, mf_error *err)
{
    char known[256] = "";
    for (size_t i = 0; i < MFI_ARRAY_LEN(archs); i++) {
        strncat(known, i ? ", " : "", sizeof known - strlen(known) - 1);
        strncat(known, archs[i]->name, sizeof known - strlen(known) - 1);
    }
    return mfi_fail(err, MF_ERR_UNSUPPORTED,
                    "%s: config.json: model_type '%s' is not a known family (known: %s)", path,
                    model_type, known);
}

/* Finds the family and the part of config.json that describes the text model. */
static mf_status recognise(mfi_model *model, const mfi_json **text, mf_error *err)
{
    const char *path = mfi_catalog_path(model->catalog);
    const mfi_json *config = mfi_catalog_config(model->catalog);
    const mfi_json *nested = mfi_json_get(config, "text_config");
    const char *type = mfi_json_str(mfi_json_get(config, "model_type"), NULL);
    const char *nested_type = mfi_json_str(mfi_json_get(nested, "model_type"), NULL);
    const char *decisive = nested_type ? nested_type : type;
    if (!decisive)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: config.json: model_type is missing", path);
    model->arch = find_arch(decisive);
    if (!model->arch)
        return unknown_family(path, decisive, err);
    *text = nested && mfi_json_typeof(nested) == MFI_JSON_OBJECT ? nested : config;
    snprintf(model->family, sizeof model->family, "%s", model->arch->name);
    snprintf(model->reason, sizeof model->reason, "config.json: %smodel_type is %.64s",
             nested_type ? "text_config." : "", decisive);
    return MF_OK;
}

static mf_status read_shape(mfi_model *model, const mfi_json *text, mf_error *err)
{
    const mfi_json *config = mfi_catalog_config(model->catalog);
    mfi_shape *s = &model->shape;
    MFI_TRY(mfi_config_u32(text, "num_hidden_layers", -1, 1, MFI_MAX_LAYERS, &s->n_layers, err));
    MFI_TRY(mfi_config_u32(text, "hidden_size", -1, 1, 1 << 20, &s->hidden, err));
    MFI_TRY(mfi_config_u32(text, "vocab_size", -1, 1, MFI_MAX_VOCAB, &s->n_vocab, err));
    MFI_TRY(mfi_config_u32(text, "max_position_embeddings", 32768, 1, MFI_MAX_CTX,
                           &model->ctx_model, err));
    if (!mfi_json_bool(mfi_json_get(text, "tie_word_embeddings"), &model->tied))
        mfi_json_bool(mfi_json_get(config, "tie_word_embeddings"), &model->tied);
    model->mixer = calloc(s->n_layers, sizeof *model->mixer);
    if (!model->mixer)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for %u layers", s->n_layers);
    return model->arch->read_config(model, text, err);
}

/* ---- binding ---- */

static uint32_t lookup(binder *b, const char *name)
{
    uint32_t id = mfi_catalog_find(b->model->catalog, name);
    if (id != MFI_TENSOR_NONE)
        b->bound[id] = 1;
    return id;
}

static const char *tensor_path(const binder *b, const mfi_tensor *t)
{
    return mfi_catalog_file(b->model->catalog, t->file[0])->path;
}

static mf_status missing(const binder *b, const char *name, mf_error *err)
{
    return mfi_fail(err, MF_ERR_TENSOR_MISSING, "%s: tensor %s is missing (family %s needs it)",
                    mfi_catalog_path(b->model->catalog), name, b->model->family);
}

static mf_status wrong_shape(const binder *b, uint32_t id, uint64_t rows, uint64_t cols,
                             mf_error *err)
{
    const mfi_tensor *t = mfi_catalog_tensor(b->model->catalog, id);
    char dims[80] = "";
    for (uint32_t i = 0; i < t->n_dims; i++) {
        size_t n = strlen(dims);
        snprintf(dims + n, sizeof dims - n, "%s%u", i ? ", " : "", t->dims[i]);
    }
    return mfi_fail(err, MF_ERR_TENSOR_SHAPE,
                    "%s: tensor %s has shape [%s], but config.json asks for %" PRIu64 " rows of %" PRIu64,
                    tensor_path(b, t), mfi_catalog_name(b->model->catalog, id), dims,
                    rows, cols);
}

static mf_status wrong_type(const binder *b, uint32_t id, const char *want, mf_error *err)
{
    const mfi_tensor *t = mfi_catalog_tensor(b->model->catalog, id);
    char name[64];
    mfi_quant_name(t->type, name, sizeof name);
    return mfi_fail(err, MF_ERR_TENSOR_SHAPE, "%s: tensor %s is %s, but must be %s",
                    tensor_path(b, t), mfi_catalog_name(b->model->catalog, id), name,
                    want);
}

static mf_status bind_weight(binder *b, const mfi_name_rule *rule, const char *name,
                             mfi_weight_src *out, mf_error *err)
{
    const mfi_shape *s = &b->model->shape;
    uint32_t id = lookup(b, name);
    if (id == MFI_TENSOR_NONE)
        return missing(b, name, err);
    const mfi_tensor *t = mfi_catalog_tensor(b->model->catalog, id);
    uint64_t rows = mfi_dim_value(s, rule->rows), cols = mfi_dim_value(s, rule->cols);
    uint64_t t_rows = mfi_tensor_rows(t), t_cols = mfi_tensor_cols(t);
    mfi_load load = rule->load;
    if (load == MFI_LOAD_MATRIX) {
        if (t_rows != rows || t_cols != cols)
            return wrong_shape(b, id, rows, cols, err);
        if (!mfi_quant_multiplies(t->type))
            return wrong_type(b, id, "of a type that can be multiplied", err);
    } else {
        /* Convolution taps come as [C, 1, k] or [C, k, 1]: the same bytes. */
        if (t_rows * t_cols != rows * cols || (rows > 1 && t->dims[0] != rows))
            return wrong_shape(b, id, rows, cols, err);
        if (!mfi_qtype_is_float(t->type))
            return wrong_type(b, id, "float", err);
        if (load == MFI_LOAD_F32_PLUS1 && b->mlx_names)
            load = MFI_LOAD_F32;
    }
    *out = (mfi_weight_src){id, (uint32_t)rows, (uint32_t)cols, load};
    return MF_OK;
}

static mf_status bind_layer(binder *b, const mfi_recipe *recipe, uint32_t layer, mf_error *err)
{
    mfi_weight_src *row = b->model->weights + (size_t)(1 + layer) * MFI_N_ROLES;
    for (uint32_t i = 0; i < recipe->n_names; i++) {
        const mfi_name_rule *rule = &recipe->names[i];
        char name[256];
        snprintf(name, sizeof name, "%slayers.%u.%s", b->body, layer, rule->name);
        MFI_TRY(bind_weight(b, rule, name, &row[rule->role], err));
    }
    return MF_OK;
}

static mf_status bind_outside(binder *b, const mfi_recipe *recipe, mf_error *err)
{
    for (uint32_t i = 0; i < recipe->n_names; i++) {
        const mfi_name_rule *rule = &recipe->names[i];
        bool head = rule->role == MFI_ROLE_LM_HEAD;
        char name[256];
        if (head && b->model->tied) {
            b->model->weights[MFI_ROLE_LM_HEAD] = b->model->weights[MFI_ROLE_EMBED];
            snprintf(name, sizeof name, "%s%s", b->head, rule->name);
            lookup(b, name); /* a tied copy may be there; it is the same matrix */
            continue;
        }
        snprintf(name, sizeof name, "%s%s", head ? b->head : b->body, rule->name);
        MFI_TRY(bind_weight(b, rule, name, &b->model->weights[rule->role], err));
    }
    return MF_OK;
}

/* ---- experts ---- */

static const char *const proj_names[MFI_EXPERT_PROJS] = {"gate_proj", "up_proj", "down_proj"};

static mf_status check_expert_tensor(binder *b, uint32_t id, uint64_t n, uint64_t rows,
                                     uint64_t cols, mf_error *err)
{
    const mfi_tensor *t = mfi_catalog_tensor(b->model->catalog, id);
    if (mfi_tensor_rows(t) != n * rows || mfi_tensor_cols(t) != cols)
        return wrong_shape(b, id, n * rows, cols, err);
    if (!mfi_quant_multiplies(t->type))
        return wrong_type(b, id, "of a type that can be multiplied", err);
    return MF_OK;
}

static void proj_shape(const mfi_shape *s, uint32_t proj, uint32_t *rows, uint32_t *cols)
{
    *rows = proj == MFI_EXPERT_DOWN ? s->hidden : s->expert_width;
    *cols = proj == MFI_EXPERT_DOWN ? s->expert_width : s->hidden;
}

/* All experts of a projection in one tensor: [E, rows, cols]. */
static mf_status bind_stacked(binder *b, uint32_t layer, const char *folder, mf_error *err)
{
    const mfi_shape *s = &b->model->shape;
    mfi_expert_src *out = b->model->experts + (size_t)layer * s->n_experts * MFI_EXPERT_PROJS;
    for (uint32_t p = 0; p < MFI_EXPERT_PROJS; p++) {
        char name[256];
        snprintf(name, sizeof name, "%slayers.%u.mlp.%s.%s.weight", b->body, layer, folder,
                 proj_names[p]);
        uint32_t id = lookup(b, name), rows, cols;
        if (id == MFI_TENSOR_NONE)
            return missing(b, name, err);
        proj_shape(s, p, &rows, &cols);
        MFI_TRY(check_expert_tensor(b, id, s->n_experts, rows, cols, err));
        for (uint32_t e = 0; e < s->n_experts; e++)
            out[e * MFI_EXPERT_PROJS + p] = (mfi_expert_src){id, e * rows};
    }
    return MF_OK;
}

/* Gate and up fused in one tensor [E, 2 * width, hidden], down in another. */
static mf_status bind_fused(binder *b, uint32_t layer, uint32_t gate_up, mf_error *err)
{
    const mfi_shape *s = &b->model->shape;
    mfi_expert_src *out = b->model->experts + (size_t)layer * s->n_experts * MFI_EXPERT_PROJS;
    char name[256];
    snprintf(name, sizeof name, "%slayers.%u.mlp.experts.down_proj", b->body, layer);
    uint32_t down = lookup(b, name);
    if (down == MFI_TENSOR_NONE)
        return missing(b, name, err);
    MFI_TRY(check_expert_tensor(b, gate_up, s->n_experts, 2 * (uint64_t)s->expert_width, s->hidden, err));
    MFI_TRY(check_expert_tensor(b, down, s->n_experts, s->hidden, s->expert_width, err));
    for (uint32_t e = 0; e < s->n_experts; e++) {
        mfi_expert_src *src = out + (size_t)e * MFI_EXPERT_PROJS;
        src[MFI_EXPERT_GATE] = (mfi_expert_src){gate_up, e * 2 * s->expert_width};
        src[MFI_EXPERT_UP] = (mfi_expert_src){gate_up, e * 2 * s->expert_width + s->expert_width};
        src[MFI_EXPERT_DOWN] = (mfi_expert_src){down, e * s->hidden};
    }
    return MF_OK;
}

static mf_status bind_each(binder *b, uint32_t layer, mf_error *err)
{
    const mfi_shape *s = &b->model->shape;
    mfi_expert_src *out = b->model->experts + (size_t)layer * s->n_experts * MFI_EXPERT_PROJS;
    for (uint32_t e = 0; e < s->n_experts; e++) {
        for (uint32_t p = 0; p < MFI_EXPERT_PROJS; p++) {
            char name[256];
            snprintf(name, sizeof name, "%slayers.%u.mlp.experts.%u.%s.weight", b->body, layer, e,
                     proj_names[p]);
            uint32_t id = lookup(b, name), rows, cols;
            if (id == MFI_TENSOR_NONE)
                return missing(b, name, err);
            proj_shape(s, p, &rows, &cols);
            MFI_TRY(check_expert_tensor(b, id, 1, rows, cols, err));
            out[e * MFI_EXPERT_PROJS + p] = (mfi_expert_src){id, 0};
        }
    }
    return MF_OK;
}

/* The store lays all experts of a layer out alike, so their types must agree. */
static mf_status check_uniform(binder *b, uint32_t layer, mf_error *err)
{
    const mfi_shape *s = &b->model->shape;
    const mfi_catalog *c = b->model->catalog;
    const mfi_expert_src *src = b->model->experts + (size_t)layer * s->n_experts * MFI_EXPERT_PROJS;
    for (uint32_t e = 1; e < s->n_experts; e++)
        for (uint32_t p = 0; p < MFI_EXPERT_PROJS; p++) {
            uint32_t id = src[e * MFI_EXPERT_PROJS + p].tensor;
            if (!mfi_qtype_equal(mfi_catalog_tensor(c, id)->type,
                                 mfi_catalog_tensor(c, src[p].tensor)->type))
                return wrong_type(b, id, "of the same type as the layer's other experts", err);
        }
    return MF_OK;
}

static mf_status bind_experts(binder *b, uint32_t layer, mf_error *err)
{
    char name[256];
    snprintf(name, sizeof name, "%slayers.%u.mlp.experts.gate_up_proj", b->body, layer);
    uint32_t fused = lookup(b, name);
    if (b->mlx_names)
        MFI_TRY(bind_stacked(b, layer, "switch_mlp", err));
    else if (fused != MFI_TENSOR_NONE)
        MFI_TRY(bind_fused(b, layer, fused, err));
    else
        MFI_TRY(bind_each(b, layer, err));
    return check_uniform(b, layer, err);
}

/* A tensor inside the text layers that nothing bound would be left out of the sums: refuse. What stands
 * elsewhere (vision tower, multi-token prediction) belongs to other parts. */
static mf_status check_all_bound(binder *b, mf_error *err)
{
    const mfi_catalog *c = b->model->catalog;
    char layers[64];
    snprintf(layers, sizeof layers, "%slayers.", b->body);
    for (uint32_t id = 0; id < mfi_catalog_n_tensors(c); id++) {
        const char *name = mfi_catalog_name(c, id);
        if (b->bound[id])
            continue;
        b->model->n_ignored++;
        if (strncmp(name, layers, strlen(layers)) != 0 || strstr(name, "rotary_emb.inv_freq"))
            continue;
        return mfi_fail(err, MF_ERR_UNSUPPORTED,
                        "%s: tensor %s has no place in family %s; without it the result would be wrong",
                        mfi_catalog_path(c), name, b->model->family);
    }
    return MF_OK;
}

static void find_prefix(binder *b)
{
    for (size_t i = 0; i < MFI_ARRAY_LEN(prefixes); i++) {
        char name[64];
        snprintf(name, sizeof name, "%sembed_tokens.weight", prefixes[i].body);
        b->body = prefixes[i].body;
        b->head = prefixes[i].head;
        if (mfi_catalog_find(b->model->catalog, name) != MFI_TENSOR_NONE)
            break; /* otherwise the last one stays, and what is missing is reported by its name */
    }
    char name[128];
    snprintf(name, sizeof name, "%slayers.0.mlp.switch_mlp.gate_proj.weight", b->body);
    b->mlx_names = mfi_catalog_find(b->model->catalog, name) != MFI_TENSOR_NONE;
}

static mf_status bind(mfi_model *model, mf_error *err)
{
    const mfi_shape *s = &model->shape;
    size_t n_weights = (size_t)(1 + s->n_layers) * MFI_N_ROLES;
    model->weights = malloc(n_weights * sizeof *model->weights);
    model->experts = calloc((size_t)s->n_layers * s->n_experts * MFI_EXPERT_PROJS, sizeof *model->experts);
    binder b = {.model = model, .bound = calloc(mfi_catalog_n_tensors(model->catalog) + 1u, 1)};
    mf_status status = MF_OK;
    if (!model->weights || !model->experts || !b.bound)
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "no memory to bind %u tensors",
                          mfi_catalog_n_tensors(model->catalog));
    if (status == MF_OK) {
        for (size_t i = 0; i < n_weights; i++)
            model->weights[i] = (mfi_weight_src){.tensor = MFI_TENSOR_NONE};
        find_prefix(&b);
        status = bind_outside(&b, &model->arch->begin, err);
    }
    if (status == MF_OK)
        status = bind_outside(&b, &model->arch->head, err);
    for (uint32_t i = 0; status == MF_OK && i < s->n_layers; i++) {
        status = bind_layer(&b, &model->arch->mixer[model->mixer[i]], i, err);
        if (status == MF_OK)
            status = bind_layer(&b, &model->arch->ffn, i, err);
        if (status == MF_OK)
            status = bind_experts(&b, i, err);
    }
    if (status == MF_OK)
        status = check_all_bound(&b, err);
    free(b.bound);
    return status;
}

mf_status mfi_model_open(mfi_model **out, const mfi_catalog *catalog, mf_error *err)
{
    mfi_model *model = calloc(1, sizeof *model);
    if (!model)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a model description");
    model->catalog = catalog;
    const mfi_json *text = NULL;
    mf_status status = recognise(model, &text, err);
    if (status == MF_OK)
        status = read_shape(model, text, err);
    if (status == MF_OK)
        status = bind(model, err);
    if (status != MF_OK) {
        mfi_model_close(&model);
        return status;
    }
    *out = model;
    return MF_OK;
}

void mfi_model_close(mfi_model **model)
{
    if (!*model)
        return;
    free((*model)->mixer);
    free((*model)->weights);
    free((*model)->experts);
    free(*model);
    *model = NULL;
}
