/* Binding: every role of the recipes to a tensor of the catalog, every expert's matrices to rows of
 * one. Called once while a model is opened. Knows names only through the family's tables; after it
 * nobody sees a name. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"

/* What text models put in front of their names: alone, as part of a multimodal checkpoint, and as
 * MLX conversions of those have it. lm_head stands outside it. */
static const struct {
    const char *body, *head;
} prefixes[] = {
    {"model.language_model.", ""},
    {"language_model.model.", "language_model."},
    {"model.", ""},
};

typedef struct binder {
    mfi_model *model;
    const char *body, *head; /* prefixes; "" in GGUF */
    const char *layers;      /* "layers." or "blk." */
    uint8_t *bound;          /* [n_tensors] */
    bool gguf;
    bool transformed; /* norms have their 1 added already: MLX (experts under switch_mlp), GGUF */
} binder;

/* ---- weights ---- */
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
                    "%s: tensor %s has shape [%s], but config.json asks for %" PRIu64
                    " rows of %" PRIu64,
                    tensor_path(b, t), mfi_catalog_name(b->model->catalog, id), dims, rows, cols);
}

static mf_status wrong_type(const binder *b, uint32_t id, const char *want, mf_error *err)
{
    const mfi_tensor *t = mfi_catalog_tensor(b->model->catalog, id);
    char name[64];
    mfi_quant_name(t->type, name, sizeof name);
    return mfi_fail(err, MF_ERR_TENSOR_SHAPE, "%s: tensor %s is %s, but must be %s",
                    tensor_path(b, t), mfi_catalog_name(b->model->catalog, id), name, want);
}

/* The tensor of a rule: the first of its names that is there. The others are looked up too, so that
 * a second copy counts as known. */
static uint32_t find_rule(binder *b, const mfi_name_rule *rule, const char *prefix,
                          mfi_row_map *map, char *first, size_t cap)
{
    const mfi_name *names = b->gguf ? rule->gguf : rule->hf;
    uint32_t found = MFI_TENSOR_NONE;
    for (uint32_t i = 0; i < 2 && names[i].name; i++) {
        char name[256];
        snprintf(name, sizeof name, "%s%s", prefix, names[i].name);
        if (i == 0)
            snprintf(first, cap, "%s", name);
        uint32_t id = lookup(b, name);
        if (found == MFI_TENSOR_NONE && id != MFI_TENSOR_NONE) {
            found = id;
            *map = names[i].map;
        }
    }
    return found;
}

static bool is_tiled(mfi_row_map map)
{
    return map == MFI_MAP_TILED_QKV || map == MFI_MAP_TILED_V || map == MFI_MAP_TILED_HEADS ||
           map == MFI_MAP_TILED_COLS;
}

/* Whether a map moves whole rows of FP8's scales; then it can do so in stored form. */
static bool keeps_blocks(const mfi_shape *s, mfi_row_map map, uint32_t rows)
{
    for (uint32_t r = 0, src; r < rows;) {
        uint32_t run = MFI_MIN(mfi_map_source(s, map, r, &src), rows - r);
        if (src % MFI_FP8_BLOCK != 0 || (run % MFI_FP8_BLOCK != 0 && r + run < rows))
            return false;
        r += run;
    }
    return true;
}

static mf_status check_matrix(const binder *b, uint32_t id, mfi_row_map map, uint64_t rows,
                              uint64_t cols, mf_error *err)
{
    const mfi_tensor *t = mfi_catalog_tensor(b->model->catalog, id);
    uint64_t t_rows = mfi_map_tensor_rows(&b->model->shape, map, rows);
    if (mfi_tensor_rows(t) != t_rows || mfi_tensor_cols(t) != cols)
        return wrong_shape(b, id, t_rows, cols, err);
    if (!mfi_quant_multiplies(t->type))
        return wrong_type(b, id, "of a type that can be multiplied", err);
    if (map == MFI_MAP_TILED_COLS && t->type.kind == MFI_Q_FP8)
        return wrong_type(b, id, "of a type whose columns can be moved", err);
    return MF_OK;
}

static mf_status check_vector(const binder *b, uint32_t id, uint64_t rows, uint64_t cols,
                              mf_error *err)
{
    /* Convolution taps come as [C, 1, k] or [C, k, 1]: the same bytes. */
    const mfi_tensor *t = mfi_catalog_tensor(b->model->catalog, id);
    if (mfi_tensor_rows(t) * mfi_tensor_cols(t) != rows * cols || (rows > 1 && t->dims[0] != rows))
        return wrong_shape(b, id, rows, cols, err);
    return mfi_qtype_is_float(t->type) ? MF_OK : wrong_type(b, id, "float", err);
}

static mf_status bind_weight(binder *b, const mfi_name_rule *rule, const char *prefix,
                             mfi_weight_src *out, mf_error *err)
{
    const mfi_shape *s = &b->model->shape;
    char name[256];
    mfi_row_map map = MFI_MAP_NONE;
    uint32_t id = find_rule(b, rule, prefix, &map, name, sizeof name);
    if (id == MFI_TENSOR_NONE)
        return missing(b, name, err);
    uint32_t rows = mfi_dim_value(s, rule->rows), cols = mfi_dim_value(s, rule->cols);
    mfi_load load = rule->load;
    if (map == MFI_MAP_KVB_K) { /* a head's rows by key, not by latent */
        rows = s->n_head * s->nope_dim;
        cols = s->latent_kv;
    }
    if (load == MFI_LOAD_MATRIX)
        MFI_TRY(check_matrix(b, id, map, rows, cols, err));
    else
        MFI_TRY(check_vector(b, id, rows, cols, err));
    if ((load == MFI_LOAD_F32_PLUS1 && b->transformed) || (load == MFI_LOAD_F32_NEG_EXP && b->gguf))
        load = MFI_LOAD_F32;
    if (load == MFI_LOAD_MATRIX &&
        mfi_catalog_tensor(b->model->catalog, id)->type.kind == MFI_Q_FP8 &&
        !keeps_blocks(s, map, rows))
        load = MFI_LOAD_DECODED; /* heads don't begin where scales do */
    if (is_tiled(map) && (s->gdn_tiled || s->gdn_k_heads == s->gdn_v_heads))
        map = MFI_MAP_NONE; /* left tiled, or the same either way */
    *out = (mfi_weight_src){id, rows, cols, load, map};
    return MF_OK;
}

static mf_status bind_layer(binder *b, const mfi_recipe *recipe, uint32_t layer, mf_error *err)
{
    mfi_weight_src *row = b->model->weights + (size_t)(1 + layer) * MFI_N_ROLES;
    char prefix[96];
    snprintf(prefix, sizeof prefix, "%s%s%u.", b->body, b->layers, layer);
    for (uint32_t i = 0; i < recipe->n_names; i++)
        if (!b->model->omit[recipe->names[i].role])
            MFI_TRY(bind_weight(b, &recipe->names[i], prefix, &row[recipe->names[i].role], err));
    return MF_OK;
}

static mf_status bind_outside(binder *b, const mfi_recipe *recipe, mf_error *err)
{
    mfi_weight_src *weights = b->model->weights;
    for (uint32_t i = 0; i < recipe->n_names; i++) {
        const mfi_name_rule *rule = &recipe->names[i];
        bool head = rule->role == MFI_ROLE_LM_HEAD;
        if (head && b->model->tied) {
            char name[256];
            mfi_row_map map;
            weights[MFI_ROLE_LM_HEAD] = weights[MFI_ROLE_EMBED];
            find_rule(b, rule, b->head, &map, name, sizeof name); /* a tied copy may be there */
            continue;
        }
        MFI_TRY(bind_weight(b, rule, head ? b->head : b->body, &weights[rule->role], err));
    }
    return MF_OK;
}

/* Tiled value heads are put in order while loading, so that the same weights give the same bits
 * from every format. That needs the columns of the output projection moved, which blocks wider than
 * a head don't allow: then all stays tiled, and the op knows. */
static void decide_tiling(binder *b)
{
    mfi_shape *s = &b->model->shape;
    const mfi_recipe *gdn = &b->model->arch->mixer[MFI_MIXER_GDN];
    for (uint32_t layer = 0; layer < s->n_layers; layer++) {
        char prefix[96], name[256];
        if (b->model->mixer[layer] != MFI_MIXER_GDN)
            continue;
        snprintf(prefix, sizeof prefix, "%s%s%u.", b->body, b->layers, layer);
        for (uint32_t i = 0; i < gdn->n_names; i++) {
            mfi_row_map map = MFI_MAP_NONE;
            uint32_t id = find_rule(b, &gdn->names[i], prefix, &map, name, sizeof name);
            if (id != MFI_TENSOR_NONE && map == MFI_MAP_TILED_COLS &&
                !mfi_quant_cols_ok(mfi_catalog_tensor(b->model->catalog, id)->type, s->gdn_v_dim))
                s->gdn_tiled = s->gdn_k_heads != s->gdn_v_heads;
        }
    }
}

/* ---- experts ---- */

/* n experts of `rows` rows, which are read `slice` rows at a time. */
static mf_status check_expert_tensor(binder *b, uint32_t id, uint64_t n, uint64_t rows,
                                     uint64_t cols, uint64_t slice, mf_error *err)
{
    const mfi_tensor *t = mfi_catalog_tensor(b->model->catalog, id);
    if (mfi_tensor_rows(t) != n * rows || mfi_tensor_cols(t) != cols)
        return wrong_shape(b, id, n * rows, cols, err);
    if (n * rows > UINT32_MAX)
        return mfi_fail(err, MF_ERR_LIMIT, "%s: tensor %s has more than %u rows", tensor_path(b, t),
                        mfi_catalog_name(b->model->catalog, id), UINT32_MAX);
    if (!mfi_quant_multiplies(t->type))
        return wrong_type(b, id, "of a type that can be multiplied", err);
    for (uint32_t p = 0; p < mfi_quant_n_planes(t->type); p++)
        if (slice != n * rows && slice % mfi_quant_rows_per_row(t->type, p) != 0)
            return wrong_type(b, id, "of a type whose rows can be taken apart here", err);
    return MF_OK;
}

static void proj_shape(const mfi_shape *s, uint32_t proj, uint32_t *rows, uint32_t *cols)
{
    *rows = proj == MFI_EXPERT_DOWN ? s->hidden : s->expert_width;
    *cols = proj == MFI_EXPERT_DOWN ? s->expert_width : s->hidden;
}

/* A tensor of a layer whose name has three parts; `name` becomes it whole. */
static uint32_t lookup_part(binder *b, uint32_t layer, const char *first, const char *second,
                            const char *third, char *name, size_t cap)
{
    snprintf(name, cap, "%s%s%u.%s%s%s", b->body, b->layers, layer, first, second, third);
    return lookup(b, name);
}

/* All experts of a projection in one tensor: [E, rows, cols]. */
static mf_status bind_stacked(binder *b, uint32_t layer, const char *before, const char *after,
                              mf_error *err)
{
    static const char *const projs[MFI_EXPERT_PROJS] = {"gate", "up", "down"};
    const mfi_shape *s = &b->model->shape;
    mfi_expert_src *out = b->model->experts + (size_t)layer * s->n_experts * MFI_EXPERT_PROJS;
    for (uint32_t p = 0; p < MFI_EXPERT_PROJS; p++) {
        char name[256];
        uint32_t id = lookup_part(b, layer, before, projs[p], after, name, sizeof name), rows, cols;
        if (id == MFI_TENSOR_NONE)
            return missing(b, name, err);
        proj_shape(s, p, &rows, &cols);
        MFI_TRY(check_expert_tensor(b, id, s->n_experts, rows, cols, rows, err));
        for (uint32_t e = 0; e < s->n_experts; e++)
            out[e * MFI_EXPERT_PROJS + p] = (mfi_expert_src){id, e * rows};
    }
    return MF_OK;
}

/* Gate and up fused in one tensor [E, 2 * width, hidden], down in another. */
static mf_status bind_fused(binder *b, uint32_t layer, uint32_t gate_up, const char *down_name,
                            mf_error *err)
{
    const mfi_shape *s = &b->model->shape;
    mfi_expert_src *out = b->model->experts + (size_t)layer * s->n_experts * MFI_EXPERT_PROJS;
    char name[256];
    uint32_t down = lookup_part(b, layer, down_name, "", "", name, sizeof name);
    if (down == MFI_TENSOR_NONE)
        return missing(b, name, err);
    MFI_TRY(check_expert_tensor(b, gate_up, s->n_experts, 2 * (uint64_t)s->expert_width, s->hidden,
                                s->expert_width, err));
    MFI_TRY(check_expert_tensor(b, down, s->n_experts, s->hidden, s->expert_width, s->hidden, err));
    for (uint32_t e = 0; e < s->n_experts; e++) {
        mfi_expert_src *src = out + (size_t)e * MFI_EXPERT_PROJS;
        src[MFI_EXPERT_GATE] = (mfi_expert_src){gate_up, e * 2 * s->expert_width};
        src[MFI_EXPERT_UP] = (mfi_expert_src){gate_up, e * 2 * s->expert_width + s->expert_width};
        src[MFI_EXPERT_DOWN] = (mfi_expert_src){down, e * s->hidden};
    }
    return MF_OK;
}

/* Inputs and outputs of an expert's matrix, of GATE and UP together where they alternate. */
static void stored_shape(const mfi_model *m, uint32_t proj, uint32_t *rows, uint32_t *cols)
{
    uint32_t outputs, inputs;
    proj_shape(&m->shape, proj, &outputs, &inputs);
    if (m->interleaved && proj == MFI_EXPERT_GATE)
        outputs *= 2;
    *rows = m->transposed ? inputs : outputs;
    *cols = m->transposed ? outputs : inputs;
}

/* Gate and up alternate in [E, 2 * width, hidden]; floats are stored transposed, [E, hidden, 2 *
 * width], and so is down. */
static mf_status bind_interleaved(binder *b, uint32_t layer, uint32_t gate_up,
                                  const char *down_name, mf_error *err)
{
    mfi_model *m = b->model;
    const mfi_shape *s = &m->shape;
    mfi_expert_src *out = m->experts + (size_t)layer * s->n_experts * MFI_EXPERT_PROJS;
    char name[256];
    uint32_t down = lookup_part(b, layer, down_name, "", "", name, sizeof name);
    const uint32_t ids[MFI_EXPERT_PROJS] = {gate_up, MFI_TENSOR_NONE, down};
    if (ids[MFI_EXPERT_DOWN] == MFI_TENSOR_NONE)
        return missing(b, name, err);
    bool transposed = mfi_qtype_is_float(mfi_catalog_tensor(m->catalog, gate_up)->type);
    if (m->interleaved && m->transposed != transposed)
        return wrong_type(b, gate_up, "of the same kind as in the layers before", err);
    m->interleaved = true;
    m->transposed = transposed;
    for (uint32_t p = 0; p < MFI_EXPERT_PROJS; p++) {
        uint32_t rows, cols;
        stored_shape(m, p, &rows, &cols);
        if (ids[p] != MFI_TENSOR_NONE) {
            const mfi_tensor *t = mfi_catalog_tensor(m->catalog, ids[p]);
            MFI_TRY(check_expert_tensor(b, ids[p], s->n_experts, rows, cols, rows, err));
            if (transposed != mfi_qtype_is_float(t->type))
                return wrong_type(b, ids[p], transposed ? "float" : "quantised", err);
        }
        for (uint32_t e = 0; e < s->n_experts; e++)
            out[(size_t)e * MFI_EXPERT_PROJS + p] =
                (mfi_expert_src){ids[p], ids[p] == MFI_TENSOR_NONE ? 0 : e * rows};
    }
    return MF_OK;
}

/* Biases of the experts' matrices: a row an expert. */
static mf_status bind_expert_bias(binder *b, uint32_t layer, mf_error *err)
{
    static const char *const hf[] = {"mlp.experts.gate_up_proj_bias", NULL,
                                     "mlp.experts.down_proj_bias"};
    static const char *const gguf[] = {"ffn_gate_exps.bias", "ffn_up_exps.bias",
                                       "ffn_down_exps.bias"};
    static const char *const mlx[] = {"mlp.experts.gate_proj.bias", "mlp.experts.up_proj.bias",
                                      "mlp.experts.down_proj.bias"};
    const mfi_shape *s = &b->model->shape;
    for (uint32_t p = 0; p < MFI_EXPERT_PROJS; p++) {
        char name[256];
        uint32_t n, cols;
        const char *own = b->gguf ? gguf[p] : b->model->interleaved ? hf[p] : mlx[p];
        if (!own)
            continue;
        uint32_t id = lookup_part(b, layer, own, "", "", name, sizeof name);
        if (id == MFI_TENSOR_NONE)
            return missing(b, name, err);
        proj_shape(s, p, &n, &cols);
        n *= b->model->interleaved && p == MFI_EXPERT_GATE ? 2 : 1;
        const mfi_tensor *t = mfi_catalog_tensor(b->model->catalog, id);
        if (mfi_tensor_rows(t) != s->n_experts || mfi_tensor_cols(t) != n)
            return wrong_shape(b, id, s->n_experts, n, err);
        if (!mfi_qtype_is_float(t->type))
            return wrong_type(b, id, "float", err);
        b->model->expert_bias[layer * MFI_EXPERT_PROJS + p] = id;
    }
    return MF_OK;
}

static mf_status bind_each(binder *b, uint32_t layer, mf_error *err)
{
    const mfi_expert_names *names = b->model->arch->experts;
    const mfi_shape *s = &b->model->shape;
    mfi_expert_src *out = b->model->experts + (size_t)layer * s->n_experts * MFI_EXPERT_PROJS;
    for (uint32_t e = 0; e < s->n_experts; e++) {
        for (uint32_t p = 0; p < MFI_EXPERT_PROJS; p++) {
            char name[256], own[96];
            snprintf(own, sizeof own, "%s.%u.%s", names->each, e, names->proj[p]);
            uint32_t id = lookup_part(b, layer, own, ".weight", "", name, sizeof name), rows, cols;
            if (id == MFI_TENSOR_NONE)
                return missing(b, name, err);
            proj_shape(s, p, &rows, &cols);
            MFI_TRY(check_expert_tensor(b, id, 1, rows, cols, rows, err));
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
            if (id != MFI_TENSOR_NONE &&
                !mfi_qtype_equal(mfi_catalog_tensor(c, id)->type,
                                 mfi_catalog_tensor(c, src[p].tensor)->type))
                return wrong_type(b, id, "of the same type as the layer's other experts", err);
        }
    return MF_OK;
}

static mf_status bind_experts(binder *b, uint32_t layer, mf_error *err)
{
    const mfi_expert_names *names = b->model->arch->experts;
    const char *fused = b->gguf ? "ffn_gate_up_exps.weight" : names->fused;
    const char *down = b->gguf ? "ffn_down_exps.weight" : names->fused_down;
    char name[256], stacked[96];
    snprintf(stacked, sizeof stacked, "%s.", names->stacked);
    uint32_t id = lookup_part(b, layer, fused, "", "", name, sizeof name);
    if (id == MFI_TENSOR_NONE && !b->gguf && names->resaved) {
        id = lookup_part(b, layer, names->resaved, "", "", name, sizeof name);
        down = names->resaved_down;
    }
    if (id != MFI_TENSOR_NONE && b->model->arch->interleaved && !b->gguf)
        MFI_TRY(bind_interleaved(b, layer, id, down, err));
    else if (id != MFI_TENSOR_NONE)
        MFI_TRY(bind_fused(b, layer, id, down, err));
    else if (b->gguf)
        MFI_TRY(bind_stacked(b, layer, "ffn_", "_exps.weight", err));
    else if (lookup_part(b, layer, stacked, "gate", "_proj.weight", name, sizeof name) !=
             MFI_TENSOR_NONE)
        MFI_TRY(bind_stacked(b, layer, stacked, "_proj.weight", err));
    else
        MFI_TRY(bind_each(b, layer, err));
    if (b->model->arch->expert_bias)
        MFI_TRY(bind_expert_bias(b, layer, err));
    return check_uniform(b, layer, err);
}

/* The layer that a tensor belongs to, UINT32_MAX if to none. */
static uint32_t layer_of(const binder *b, const char *name)
{
    char prefix[96];
    int n = snprintf(prefix, sizeof prefix, "%s%s", b->body, b->layers);
    if (strncmp(name, prefix, (size_t)n) != 0)
        return UINT32_MAX;
    return (uint32_t)MFI_MIN(strtoul(name + n, NULL, 10), UINT32_MAX);
}

/* A tensor inside the text layers that nothing bound would be left out of the sums: refuse. What
 * stands elsewhere (vision tower, multi-token prediction) belongs to other parts; layers behind the
 * last are multi-token prediction. */
static mf_status check_all_bound(binder *b, mf_error *err)
{
    const mfi_catalog *c = b->model->catalog;
    uint32_t n_layers = b->model->shape.n_layers;
    for (uint32_t id = 0; id < mfi_catalog_n_tensors(c); id++) {
        const char *name = mfi_catalog_name(c, id);
        if (b->bound[id] || mfi_tensor_rows(mfi_catalog_tensor(c, id)) == 0)
            continue; /* without elements it changes nothing */
        b->model->n_ignored++;
        uint32_t layer = layer_of(b, name);
        if (layer >= n_layers && layer - n_layers < MFI_MAX_LAYERS) /* not UINT32_MAX */
            b->model->n_mtp_layers = MFI_MAX(b->model->n_mtp_layers, layer + 1 - n_layers);
        bool elsewhere = layer == UINT32_MAX && !b->gguf; /* GGUF has text models only */
        if (elsewhere || (layer >= n_layers && layer != UINT32_MAX) ||
            strstr(name, "rotary_emb.inv_freq"))
            continue;
        return mfi_fail(
            err, MF_ERR_UNSUPPORTED,
            "%s: tensor %s has no place in family %s; without it the result would be wrong",
            mfi_catalog_path(c), name, b->model->family);
    }
    return MF_OK;
}

static void find_prefix(binder *b)
{
    char name[128];
    b->gguf = b->transformed = mfi_catalog_meta(b->model->catalog) != NULL;
    b->body = b->head = "";
    b->layers = b->gguf ? "blk." : "layers.";
    for (size_t i = 0; !b->gguf && i < MFI_ARRAY_LEN(prefixes); i++) {
        snprintf(name, sizeof name, "%sembed_tokens.weight", prefixes[i].body);
        b->body = prefixes[i].body;
        b->head = prefixes[i].head;
        if (mfi_catalog_find(b->model->catalog, name) != MFI_TENSOR_NONE)
            break; /* otherwise the last one stays, and what is missing is reported by its name */
    }
    for (uint32_t i = 0; i < b->model->shape.n_layers && !b->transformed; i++) {
        snprintf(name, sizeof name, "%slayers.%u.mlp.switch_mlp.gate_proj.weight", b->body, i);
        b->transformed = mfi_catalog_find(b->model->catalog, name) != MFI_TENSOR_NONE;
    }
}

mf_status mfi_model_bind(mfi_model *model, mf_error *err)
{
    const mfi_shape *s = &model->shape;
    size_t n_weights = (size_t)(1 + s->n_layers) * MFI_N_ROLES;
    model->weights = malloc(n_weights * sizeof *model->weights);
    model->experts =
        calloc((size_t)s->n_layers * s->n_experts * MFI_EXPERT_PROJS, sizeof *model->experts);
    size_t n_bias = (size_t)s->n_layers * MFI_EXPERT_PROJS;
    model->expert_bias = malloc(n_bias * sizeof *model->expert_bias);
    for (size_t i = 0; model->expert_bias && i < n_bias; i++)
        model->expert_bias[i] = MFI_TENSOR_NONE;
    binder b = {.model = model, .bound = calloc(mfi_catalog_n_tensors(model->catalog) + 1u, 1)};
    mf_status status = MF_OK;
    if (!model->weights || !model->experts || !model->expert_bias || !b.bound)
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "no memory to bind %u tensors",
                          mfi_catalog_n_tensors(model->catalog));
    if (status == MF_OK) {
        for (size_t i = 0; i < n_weights; i++)
            model->weights[i] = (mfi_weight_src){.tensor = MFI_TENSOR_NONE};
        find_prefix(&b);
        decide_tiling(&b);
        status = bind_outside(&b, &model->arch->begin, err);
    }
    if (status == MF_OK)
        status = bind_outside(&b, &model->arch->head, err);
    for (uint32_t i = 0; status == MF_OK && i < s->n_layers; i++) {
        status = bind_layer(&b, &model->arch->mixer[model->mixer[i]], i, err);
        if (status == MF_OK)
            status = bind_layer(&b, &model->arch->ffn[model->ffn[i]], i, err);
        if (status == MF_OK && mfi_model_routed(model, i))
            status = bind_experts(&b, i, err);
    }
    if (status == MF_OK)
        status = check_all_bound(&b, err);
    free(b.bound);
    return status;
}
