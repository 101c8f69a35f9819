/* Makes the converter's plan; see plan.h. Called once a conversion, on its thread; reads the
 * catalog, never a tensor's bytes. */
#include "convert/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct planner {
    mfi_cv_plan *plan;
    const mfi_catalog *catalog;
    const mfi_json *text; /* the text model's part of config.json */
    uint32_t n_experts;
    bool tied, baked;
    bool has_embedding, has_norm, has_head;
    mf_error *err;
} planner;

static mf_status no_memory(const planner *p)
{
    return mfi_fail(p->err, MF_ERR_NO_MEMORY, "%s: no memory for the plan",
                    mfi_catalog_path(p->catalog));
}

static mf_status refuse(const planner *p, mf_status status, const char *name, const char *why)
{
    return mfi_fail(p->err, status, "%s: tensor %.200s: %s", mfi_catalog_path(p->catalog), name,
                    why);
}

/* ---- config ---- */

static mf_status read_config(planner *p)
{
    const mfi_json *config = mfi_catalog_config(p->catalog);
    const char *path = mfi_catalog_path(p->catalog);
    const char *type = mfi_json_str(mfi_json_get(config, "model_type"), NULL);
    if (!type)
        return mfi_fail(p->err, MF_ERR_FORMAT, "%s/config.json: no model_type", path);
    if (!mfi_cv_supports(type))
        return mfi_fail(p->err, MF_ERR_UNSUPPORTED,
                        "%s: can't convert model type \"%.80s\"; supported are " MFI_CV_SUPPORTED,
                        path, type);
    const mfi_json *nested = mfi_json_get(config, "text_config");
    p->text = nested ? nested : config;
    if (mfi_json_has(config, "quantization") || mfi_json_has(config, "quantization_config") ||
        mfi_json_has(p->text, "quantization_config"))
        return mfi_fail(p->err, MF_ERR_UNSUPPORTED,
                        "%s: is quantised already; converting needs float weights", path);
    if (!mfi_json_bool(mfi_json_get(p->text, "tie_word_embeddings"), &p->tied))
        mfi_json_bool(mfi_json_get(config, "tie_word_embeddings"), &p->tied);
    int64_t n = 0;
    if (!mfi_json_i64(mfi_json_get(p->text, "num_experts"), &n) || n < 1 || n > MFI_MAX_EXPERTS)
        return mfi_fail(p->err, MF_ERR_FORMAT,
                        "%s/config.json: num_experts must be between 1 and %d", path,
                        MFI_MAX_EXPERTS);
    p->n_experts = (uint32_t)n;
    return MF_OK;
}

/* ---- tensors ---- */

static char *joined(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    char *s = malloc(n + m + 1);
    if (s) {
        memcpy(s, a, n);
        memcpy(s + n, b, m + 1);
    }
    return s;
}

/* How a matrix is stored: quantised if its rows are whole groups. Routers take groups of 64 where
 * they fit, as mlx-lm writes them whatever the group of the rest. */
static void set_encoding(const planner *p, mfi_cv_tensor *t, mfi_cv_kind kind)
{
    const mfi_cv_plan *plan = p->plan;
    t->op = kind == MFI_CV_NORM && !p->baked ? MFI_CV_OP_ADD_ONE : MFI_CV_OP_COPY;
    t->out = t->in;
    if (kind < MFI_CV_MATRIX || t->cols % plan->group != 0)
        return;
    bool expert = kind == MFI_CV_EXPERT || kind == MFI_CV_EXPERTS || kind == MFI_CV_GATE_UP;
    uint32_t bits = expert ? plan->bits : plan->dense_bits, group = plan->group;
    if (kind == MFI_CV_ROUTER) {
        bits = 8;
        group = t->cols % 64 == 0 ? 64 : group;
    }
    t->op = MFI_CV_OP_QUANTISE;
    t->out = (mfi_qtype){MFI_Q_MLX, (uint8_t)bits, t->in.kind, (uint8_t)group};
}

static mf_status set_plane_names(const planner *p, mfi_cv_tensor *t, mfi_cv_kind kind)
{
    static const char *const suffixes[] = {".weight", ".scales", ".biases"};
    /* Names of matrices have no ".weight" yet. */
    if (kind < MFI_CV_MATRIX) {
        t->plane_names[0] = joined(t->name, "");
        return t->plane_names[0] ? MF_OK : no_memory(p);
    }
    for (uint32_t i = 0; i < (t->op == MFI_CV_OP_QUANTISE ? 3 : 1); i++) {
        t->plane_names[i] = joined(t->name, suffixes[i]);
        if (!t->plane_names[i])
            return no_memory(p);
    }
    return MF_OK;
}

/* Appends a tensor with n sources yet to be set; dims, type and op follow the first source. */
static mf_status append(planner *p, const char *name, uint32_t n_sources, mfi_cv_tensor **out)
{
    mfi_cv_plan *plan = p->plan;
    if (plan->n_tensors == plan->cap_tensors) {
        uint32_t cap = plan->cap_tensors ? 2 * plan->cap_tensors : 256;
        mfi_cv_tensor *grown = realloc(plan->tensors, cap * sizeof *grown);
        if (!grown)
            return no_memory(p);
        plan->tensors = grown;
        plan->cap_tensors = cap;
    }
    mfi_cv_tensor *t = &plan->tensors[plan->n_tensors];
    *t = (mfi_cv_tensor){.name = joined(name, ""),
                         .sources = calloc(n_sources, sizeof *t->sources),
                         .n_sources = n_sources,
                         .n_slices = 1};
    plan->n_tensors++;
    *out = t;
    return t->name && t->sources ? MF_OK : no_memory(p);
}

static mf_status add_whole(planner *p, uint32_t id, const mfi_cv_name *name)
{
    const mfi_tensor *in = mfi_catalog_tensor(p->catalog, id);
    mfi_cv_tensor *t;
    MFI_TRY(append(p, name->out, 1, &t));
    t->sources[0] = id;
    t->in = in->type;
    t->n_dims = in->n_dims;
    memcpy(t->dims, in->dims, sizeof t->dims);
    t->slice_rows = mfi_tensor_rows(in);
    t->cols = mfi_tensor_cols(in);
    if (name->kind == MFI_CV_CONV && in->n_dims == 3 && in->dims[1] == 1) {
        t->dims[1] = in->dims[2]; /* the same bytes */
        t->dims[2] = 1;
    }
    set_encoding(p, t, name->kind);
    return set_plane_names(p, t, name->kind);
}

/* Finds expert e of the same kind as `name`, the input's name of some expert. */
static mf_status find_expert(planner *p, const char *in_name, const mfi_cv_name *name, uint32_t e,
                             uint32_t *id)
{
    char other[512];
    int n = snprintf(other, sizeof other, "%.*s%" PRIu32 "%s", (int)name->head, in_name, e,
                     in_name + name->tail);
    if (n < 0 || (size_t)n >= sizeof other)
        return refuse(p, MF_ERR_LIMIT, in_name, "name too long");
    *id = mfi_catalog_find(p->catalog, other);
    if (*id == MFI_TENSOR_NONE)
        return refuse(p, MF_ERR_TENSOR_MISSING, other, "missing, but other experts are there");
    return MF_OK;
}

/* Stacks the experts of one projection when its first one comes by. */
static mf_status add_experts(planner *p, uint32_t id, const char *in_name, const mfi_cv_name *name)
{
    if (name->expert >= p->n_experts)
        return refuse(p, MF_ERR_FORMAT, in_name, "beyond num_experts");
    uint32_t first_id;
    if (name->expert != 0)
        return find_expert(p, in_name, name, 0, &first_id);
    const mfi_tensor *first = mfi_catalog_tensor(p->catalog, id);
    mfi_cv_tensor *t;
    MFI_TRY(append(p, name->out, p->n_experts, &t));
    for (uint32_t e = 0; e < p->n_experts; e++) {
        MFI_TRY(find_expert(p, in_name, name, e, &t->sources[e]));
        const mfi_tensor *in = mfi_catalog_tensor(p->catalog, t->sources[e]);
        if (in->n_dims != 2 || in->dims[0] != first->dims[0] || in->dims[1] != first->dims[1] ||
            !mfi_qtype_equal(in->type, first->type))
            return refuse(p, MF_ERR_TENSOR_SHAPE, mfi_catalog_name(p->catalog, t->sources[e]),
                          "not a matrix like that of expert 0");
    }
    t->in = first->type;
    t->n_dims = 3;
    t->dims[0] = t->n_slices = p->n_experts;
    t->dims[1] = first->dims[0];
    t->dims[2] = first->dims[1];
    t->slice_rows = first->dims[0];
    t->cols = first->dims[1];
    set_encoding(p, t, name->kind);
    return set_plane_names(p, t, name->kind);
}

/* Splits [E][2r][c] into gate and up. */
static mf_status add_gate_up(planner *p, uint32_t id, const char *in_name, const mfi_cv_name *name)
{
    const mfi_tensor *in = mfi_catalog_tensor(p->catalog, id);
    if (in->n_dims != 3 || in->dims[0] != p->n_experts || in->dims[1] % 2 != 0)
        return refuse(p, MF_ERR_TENSOR_SHAPE, in_name, "not [num_experts][2 * width][hidden]");
    size_t stem = strlen(name->out) - strlen("gate_proj");
    for (int up = 0; up < 2; up++) {
        char out[MFI_CV_NAME_BYTES];
        snprintf(out, sizeof out, "%.*s%s", (int)stem, name->out, up ? "up_proj" : "gate_proj");
        mfi_cv_tensor *t;
        MFI_TRY(append(p, out, 1, &t));
        t->sources[0] = id;
        t->in = in->type;
        t->n_dims = 3;
        memcpy(t->dims, in->dims, sizeof t->dims);
        t->dims[1] /= 2;
        t->n_slices = in->dims[0];
        t->slice_rows = t->dims[1];
        t->row_stride = in->dims[1];
        t->first_row = up ? t->dims[1] : 0;
        t->cols = in->dims[2];
        set_encoding(p, t, name->kind);
        MFI_TRY(set_plane_names(p, t, name->kind));
    }
    return MF_OK;
}

static mf_status add_tensor(planner *p, uint32_t id)
{
    const char *in_name = mfi_catalog_name(p->catalog, id);
    const mfi_tensor *in = mfi_catalog_tensor(p->catalog, id);
    mfi_cv_name name = mfi_cv_map(in_name);
    if (name.kind == MFI_CV_DROP || (name.kind == MFI_CV_HEAD && p->tied))
        return MF_OK;
    if (name.kind == MFI_CV_UNKNOWN)
        return refuse(p, MF_ERR_UNSUPPORTED, in_name, "not known in this family");
    if (in->type.kind == MFI_Q_MLX)
        return refuse(p, MF_ERR_UNSUPPORTED, in_name, "is quantised already");
    if (!mfi_qtype_is_float(in->type))
        return refuse(p, MF_ERR_UNSUPPORTED, in_name, "not bf16, f16 or f32");
    uint32_t want = name.kind == MFI_CV_EXPERTS || name.kind == MFI_CV_GATE_UP ? 3 : 2;
    if (name.kind >= MFI_CV_MATRIX && in->n_dims != want)
        return refuse(p, MF_ERR_TENSOR_SHAPE, in_name, "wrong number of dimensions");
    p->has_embedding |= strcmp(name.out, "language_model.model.embed_tokens") == 0;
    p->has_norm |= strcmp(name.out, "language_model.model.norm.weight") == 0;
    p->has_head |= name.kind == MFI_CV_HEAD;
    if (name.kind == MFI_CV_EXPERT)
        return add_experts(p, id, in_name, &name);
    if (name.kind == MFI_CV_GATE_UP)
        return add_gate_up(p, id, in_name, &name);
    if (name.kind == MFI_CV_EXPERTS && in->dims[0] != p->n_experts)
        return refuse(p, MF_ERR_TENSOR_SHAPE, in_name, "not [num_experts][rows][columns]");
    return add_whole(p, id, &name);
}

/* MLX's own float checkpoints have 1 added to their norms already; what tells them apart is the
 * layout of the convolutions, to mlx-lm as to us. */
static bool is_baked(const mfi_catalog *catalog)
{
    bool any = false;
    for (uint32_t id = 0; id < mfi_catalog_n_tensors(catalog); id++) {
        if (mfi_cv_map(mfi_catalog_name(catalog, id)).kind != MFI_CV_CONV)
            continue;
        const mfi_tensor *t = mfi_catalog_tensor(catalog, id);
        if (t->n_dims != 3 || t->dims[2] != 1)
            return false;
        any = true;
    }
    return any;
}

static mf_status check_complete(const planner *p)
{
    const char *missing = !p->has_embedding          ? "model.embed_tokens.weight"
                          : !p->has_norm             ? "model.norm.weight"
                          : !p->has_head && !p->tied ? "lm_head.weight"
                                                     : NULL;
    return missing ? refuse(p, MF_ERR_TENSOR_MISSING, missing, "missing") : MF_OK;
}

/* One input tensor may not be written twice under one name ("model.norm",
 * "language_model.model.norm"). */
static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static mf_status check_unique(const planner *p)
{
    const mfi_cv_plan *plan = p->plan;
    const char **names = malloc((plan->n_tensors + 1u) * sizeof *names);
    if (!names)
        return no_memory(p);
    for (uint32_t i = 0; i < plan->n_tensors; i++)
        names[i] = plan->tensors[i].name;
    qsort(names, plan->n_tensors, sizeof *names, by_name);
    mf_status status = MF_OK;
    for (uint32_t i = 1; i < plan->n_tensors && status == MF_OK; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            status = refuse(p, MF_ERR_FORMAT, names[i], "there twice, under different prefixes");
    free(names);
    return status;
}

/* ---- shards ---- */

static uint64_t plane_bytes(const mfi_cv_tensor *t, uint32_t plane)
{
    return t->n_slices * t->slice_rows * mfi_quant_row_bytes(t->out, plane, t->cols);
}

static const char *dtype_name(mfi_qkind kind)
{
    return kind == MFI_Q_F32 ? "F32" : kind == MFI_Q_F16 ? "F16" : "BF16";
}

static void set_entry(mfi_cv_tensor *t, uint32_t plane, mfi_st_entry *e)
{
    bool quantised = t->op == MFI_CV_OP_QUANTISE;
    mfi_qkind kind = (mfi_qkind)(quantised ? t->out.scale : t->out.kind);
    *e = (mfi_st_entry){.name = t->plane_names[plane], .n_dims = t->n_dims};
    memcpy(e->dims, t->dims, sizeof e->dims);
    e->dtype = quantised && plane == 0 ? "U32" : dtype_name(kind);
    e->elem_bytes = kind == MFI_Q_F32 || (quantised && plane == 0) ? 4 : 2;
    if (quantised && plane == 0)
        e->dims[t->n_dims - 1] = (uint32_t)(t->cols * t->out.bits / 32);
    else if (quantised)
        e->dims[t->n_dims - 1] = (uint32_t)(t->cols / t->out.group);
}

/* Gives each tensor its shard, all its planes in one; a tensor over the limit gets one of its own.
 */
static mf_status assign_shards(planner *p, uint64_t shard_bytes)
{
    mfi_cv_plan *plan = p->plan;
    uint64_t filled = 0;
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        mfi_cv_tensor *t = &plan->tensors[i];
        uint64_t bytes = 0;
        for (uint32_t k = 0; k < mfi_quant_n_planes(t->out); k++)
            bytes += plane_bytes(t, k);
        if (plan->n_shards == 0 || (filled && filled + bytes > shard_bytes)) {
            plan->n_shards++;
            filled = 0;
        }
        filled += bytes;
        t->shard = plan->n_shards - 1;
        plan->in_bytes += t->n_slices * t->slice_rows * mfi_quant_row_bytes(t->in, 0, t->cols);
    }
    if (plan->n_shards > MFI_MAX_FILES)
        return mfi_fail(p->err, MF_ERR_LIMIT, "%s: would be %" PRIu32 " files; at most %d can be",
                        mfi_catalog_path(p->catalog), plan->n_shards, MFI_MAX_FILES);
    plan->shards = calloc(plan->n_shards, sizeof *plan->shards);
    return plan->shards ? MF_OK : no_memory(p);
}

static mf_status fill_shards(planner *p)
{
    mfi_cv_plan *plan = p->plan;
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        mfi_cv_tensor *t = &plan->tensors[i];
        mfi_cv_shard *shard = &plan->shards[t->shard];
        t->entry = shard->n_entries;
        shard->n_entries += mfi_quant_n_planes(t->out);
    }
    for (uint32_t s = 0; s < plan->n_shards; s++) {
        mfi_cv_shard *shard = &plan->shards[s];
        shard->entries = calloc(shard->n_entries, sizeof *shard->entries);
        if (!shard->entries)
            return no_memory(p);
        if (plan->n_shards == 1)
            snprintf(shard->name, sizeof shard->name, "model.safetensors");
        else
            snprintf(shard->name, sizeof shard->name,
                     "model-%05" PRIu32 "-of-%05" PRIu32 ".safetensors", s + 1, plan->n_shards);
    }
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        mfi_cv_tensor *t = &plan->tensors[i];
        for (uint32_t k = 0; k < mfi_quant_n_planes(t->out); k++) {
            set_entry(t, k, &plan->shards[t->shard].entries[t->entry + k]);
            plan->shards[t->shard].bytes += plane_bytes(t, k);
        }
    }
    return MF_OK;
}

mf_status mfi_cv_plan_open(mfi_cv_plan *plan, const mfi_catalog *catalog, uint32_t bits,
                           uint32_t dense_bits, uint32_t group, uint64_t shard_bytes, mf_error *err)
{
    *plan = (mfi_cv_plan){.bits = bits, .dense_bits = dense_bits, .group = group};
    planner p = {.plan = plan, .catalog = catalog, .err = err};
    MFI_TRY(read_config(&p));
    p.baked = is_baked(catalog);
    for (uint32_t id = 0; id < mfi_catalog_n_tensors(catalog); id++)
        MFI_TRY(add_tensor(&p, id));
    MFI_TRY(check_complete(&p));
    MFI_TRY(check_unique(&p));
    MFI_TRY(assign_shards(&p, shard_bytes));
    return fill_shards(&p);
}

void mfi_cv_plan_close(mfi_cv_plan *plan)
{
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        free(plan->tensors[i].name);
        free(plan->tensors[i].sources);
        for (uint32_t k = 0; k < MFI_MAX_PLANES; k++)
            free(plan->tensors[i].plane_names[k]);
    }
    free(plan->tensors);
    for (uint32_t s = 0; s < plan->n_shards && plan->shards; s++)
        free(plan->shards[s].entries);
    free(plan->shards);
    *plan = (mfi_cv_plan){0};
}
