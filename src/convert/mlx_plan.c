/* Makes the plan of an MLX folder; see mlx_plan.h. Called once a conversion, on its thread. Names
 * and orders come from the families' tables (model/): MLX keeps Hugging Face's but for prefixes and
 * stacked experts. Which types stand where is decided here, as mlx-lm decides it. */
#include "convert/mlx_plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLANE_NAME_BYTES (MFI_GP_NAME_BYTES + 8) /* with ".weight" */

typedef struct planner {
    mfi_mp *plan;
    const mfi_model *model;
    mf_error *err;
} planner;

static mf_status no_memory(const planner *p)
{
    return mfi_fail(p->err, MF_ERR_NO_MEMORY, "%s: no memory for the plan",
                    mfi_catalog_path(p->model->catalog));
}

/* ---- types ---- */

static bool is_matrix(const mfi_weight_src *w)
{
    return w->load == MFI_LOAD_MATRIX || w->load == MFI_LOAD_DECODED;
}

/* The float type that goes on with a source: its own, that of its scales, or what MLX computes in.
 */
static mfi_qkind float_of(mfi_qtype source)
{
    if (mfi_qtype_is_float(source))
        return (mfi_qkind)source.kind;
    return source.kind == MFI_Q_MLX ? (mfi_qkind)source.scale : MFI_Q_BF16;
}

/* How a matrix is stored: quantised if its rows are whole groups. Routers take groups of 64 where
 * they fit, as mlx-lm writes them whatever the group of the rest. */
static mfi_qtype matrix_type(const planner *p, mfi_qtype source, uint32_t cols, uint32_t bits,
                             bool router)
{
    uint32_t group = p->plan->group;
    mfi_qkind kind = float_of(source);
    if (cols % group != 0)
        return mfi_qtype_float(kind);
    if (router) {
        bits = 8;
        group = cols % 64 == 0 ? 64 : group;
    }
    return (mfi_qtype){MFI_Q_MLX, (uint8_t)bits, (uint8_t)kind, (uint8_t)group};
}

static mfi_qtype type_of(const planner *p, const mfi_weight_src *w, mfi_role role)
{
    mfi_qtype source = mfi_catalog_tensor(p->model->catalog, w->tensor)->type;
    bool router = role == MFI_ROLE_ROUTER || role == MFI_ROLE_SHARED_SCALE;
    if (!is_matrix(w) || (role == MFI_ROLE_ROUTER && p->model->arch->mlx.float_router))
        return mfi_qtype_float(float_of(source));
    return matrix_type(p, source, w->cols, p->plan->dense_bits, router);
}

/* ---- tensors ---- */

static void cut_weight(char *name)
{
    size_t n = strlen(name), suffix = strlen(".weight");
    if (n > suffix && strcmp(name + n - suffix, ".weight") == 0)
        name[n - suffix] = 0;
}

/* Of two forms that MLX reads the one that the source has, so that nothing must be transposed. */
static const mfi_name *form_of(const mfi_name_rule *rule, const mfi_weight_src *w)
{
    bool second = rule->hf[1].name && rule->hf[1].map == w->map && rule->hf[0].map != w->map;
    return &rule->hf[second];
}

/* What files have that are not as Hugging Face's: GGUF's A_log is -exp of it. Norms get the 1 that
 * MLX's have, unless the source has it already. */
static void set_transform(const planner *p, mfi_gp_tensor *t, const mfi_name_rule *rule,
                          mfi_gp_part *part)
{
    bool gguf = mfi_catalog_meta(p->model->catalog) != NULL;
    if (rule->load != MFI_LOAD_F32_NEG_EXP)
        return;
    part->src.load = MFI_LOAD_F32;
    t->log_neg = gguf;
}

static mf_status add_weight(planner *p, const char *prefix, const mfi_name_rule *rule,
                            const mfi_weight_src *w)
{
    char name[MFI_GP_NAME_BYTES];
    const mfi_shape *s = &p->model->shape;
    bool matrix = is_matrix(w);
    const mfi_name *hf = form_of(rule, w);
    snprintf(name, sizeof name, "%s", hf->name);
    if (matrix)
        cut_weight(name);
    mfi_gp_tensor *t = mfi_gp_begun(&p->plan->gp, prefix, name);
    if (!t) {
        t = mfi_gp_append(&p->plan->gp, prefix, name);
        if (!t)
            return no_memory(p);
        t->type = type_of(p, w, rule->role);
        t->vector = !matrix && w->rows == 1;
        t->cols = t->vector ? 1 : w->cols;
    }
    MFI_ASSERT(t->n_parts < MFI_GP_PARTS);
    mfi_gp_part *part = &t->parts[t->n_parts++];
    *part = (mfi_gp_part){*w, mfi_gp_target_map(s, hf->map)};
    set_transform(p, t, rule, part);
    t->rows += t->vector ? w->cols : w->rows;
    t->n_dims = t->vector ? 1 : rule->cols == MFI_DIM_CONV ? 3 : 2;
    t->dims[0] = t->rows;
    t->dims[1] = t->cols;
    t->dims[2] = 1; /* convolution taps are [C][k][1] */
    if (hf == &rule->hf[1] &&
        (rule->role == MFI_ROLE_LATENT_K || rule->role == MFI_ROLE_LATENT_V)) {
        t->n_dims = 3; /* a matrix a head */
        t->dims[0] = s->n_head;
        t->dims[1] = t->rows / s->n_head;
        t->dims[2] = t->cols;
    }
    return MF_OK;
}

static mf_status add_recipe(planner *p, const mfi_recipe *recipe, const char *prefix,
                            const mfi_weight_src *weights)
{
    for (uint32_t i = 0; i < recipe->n_names; i++) {
        const mfi_name_rule *rule = &recipe->names[i];
        char head[64];
        snprintf(head, sizeof head, "%s", p->model->arch->mlx.root ? p->model->arch->mlx.root : "");
        if ((rule->role == MFI_ROLE_LM_HEAD && p->model->tied) || p->model->omit[rule->role])
            continue;
        MFI_TRY(add_weight(p, rule->role == MFI_ROLE_LM_HEAD ? head : prefix, rule,
                           &weights[rule->role]));
    }
    return MF_OK;
}

static mf_status add_experts(planner *p, const char *prefix, uint32_t layer)
{
    static const char *const projs[MFI_EXPERT_PROJS] = {"gate_proj", "up_proj", "down_proj"};
    for (uint32_t proj = 0; proj < MFI_EXPERT_PROJS; proj++) {
        char name[MFI_GP_NAME_BYTES];
        snprintf(name, sizeof name, "%s.%s", p->model->arch->experts->stacked, projs[proj]);
        mfi_gp_tensor *t = mfi_gp_append(&p->plan->gp, prefix, name);
        if (!t)
            return no_memory(p);
        mfi_gp_set_experts(t, &p->model->shape, layer, (mfi_expert_proj)proj);
        uint32_t id = mfi_gp_expert(p->model, t, 0)->tensor;
        t->type = matrix_type(p, mfi_catalog_tensor(p->model->catalog, id)->type, t->cols,
                              p->plan->bits, false);
    }
    return MF_OK;
}

static mf_status add_tensors(planner *p)
{
    const mfi_model *model = p->model;
    const char *root = model->arch->mlx.root ? model->arch->mlx.root : "";
    char outside[64], prefix[96];
    snprintf(outside, sizeof outside, "%smodel.", root);
    MFI_TRY(add_recipe(p, &model->arch->begin, outside, model->weights));
    for (uint32_t layer = 0; layer < model->shape.n_layers; layer++) {
        const mfi_weight_src *weights = model->weights + (size_t)(1 + layer) * MFI_N_ROLES;
        snprintf(prefix, sizeof prefix, "%slayers.%" PRIu32 ".", outside, layer);
        MFI_TRY(add_recipe(p, &model->arch->mixer[model->mixer[layer]], prefix, weights));
        MFI_TRY(add_recipe(p, &model->arch->ffn[model->ffn[layer]], prefix, weights));
        if (mfi_model_routed(model, layer))
            MFI_TRY(add_experts(p, prefix, layer));
    }
    return add_recipe(p, &model->arch->head, outside, model->weights);
}

/* ---- shards ---- */

static uint64_t plane_bytes(const mfi_gp_tensor *t, uint32_t plane)
{
    return (uint64_t)t->n_slices * t->rows * mfi_quant_row_bytes(t->type, plane, t->cols);
}

static const char *dtype_name(mfi_qkind kind)
{
    return kind == MFI_Q_F32 ? "F32" : kind == MFI_Q_F16 ? "F16" : "BF16";
}

static void set_entry(const mfi_gp_tensor *t, uint32_t plane, char *name, mfi_st_entry *e)
{
    static const char *const suffixes[] = {".weight", ".scales", ".biases"};
    bool quantised = t->type.kind == MFI_Q_MLX;
    bool matrix = t->n_parts == 0 || is_matrix(&t->parts[0].src);
    mfi_qkind kind = (mfi_qkind)(quantised ? t->type.scale : t->type.kind);
    snprintf(name, PLANE_NAME_BYTES, "%s%s", t->name, matrix ? suffixes[plane] : "");
    *e = (mfi_st_entry){.name = name, .n_dims = t->n_dims};
    memcpy(e->dims, t->dims, sizeof e->dims);
    e->dtype = quantised && plane == 0 ? "U32" : dtype_name(kind);
    e->elem_bytes = kind == MFI_Q_F32 || (quantised && plane == 0) ? 4 : 2;
    if (quantised)
        e->dims[t->n_dims - 1] = plane == 0 ? (uint32_t)((uint64_t)t->cols * t->type.bits / 32)
                                            : t->cols / t->type.group;
}

/* Gives each tensor its shard, all its planes in one; a tensor over the limit gets one of its own.
 * Returns how many planes there are. */
static mf_status assign_shards(planner *p, uint64_t shard_bytes, size_t *n_planes)
{
    mfi_mp *plan = p->plan;
    uint64_t filled = 0;
    plan->places = calloc(plan->gp.n_tensors + 1u, sizeof *plan->places);
    if (!plan->places)
        return no_memory(p);
    for (uint32_t i = 0; i < plan->gp.n_tensors; i++) {
        const mfi_gp_tensor *t = &plan->gp.tensors[i];
        uint64_t bytes = 0;
        for (uint32_t k = 0; k < mfi_quant_n_planes(t->type); k++, ++*n_planes)
            bytes += plane_bytes(t, k);
        if (plan->n_shards == 0 || (filled && filled + bytes > shard_bytes)) {
            plan->n_shards++;
            filled = 0;
        }
        filled += bytes;
        plan->places[i].shard = plan->n_shards - 1;
    }
    if (plan->n_shards > MFI_MAX_FILES)
        return mfi_fail(p->err, MF_ERR_LIMIT, "%s: would be %" PRIu32 " files; at most %d can be",
                        mfi_catalog_path(p->model->catalog), plan->n_shards, MFI_MAX_FILES);
    return MF_OK;
}

static mf_status fill_shards(planner *p, size_t n_planes)
{
    mfi_mp *plan = p->plan;
    plan->shards = calloc(plan->n_shards, sizeof *plan->shards);
    plan->names = calloc(n_planes, PLANE_NAME_BYTES);
    if (!plan->shards || !plan->names)
        return no_memory(p);
    for (uint32_t i = 0; i < plan->gp.n_tensors; i++) {
        mfi_mp_shard *shard = &plan->shards[plan->places[i].shard];
        plan->places[i].entry = shard->n_entries;
        shard->n_entries += mfi_quant_n_planes(plan->gp.tensors[i].type);
    }
    for (uint32_t s = 0; s < plan->n_shards; s++) {
        mfi_mp_shard *shard = &plan->shards[s];
        shard->entries = calloc(shard->n_entries, sizeof *shard->entries);
        if (!shard->entries)
            return no_memory(p);
        if (plan->n_shards == 1)
            snprintf(shard->name, sizeof shard->name, "model.safetensors");
        else
            snprintf(shard->name, sizeof shard->name,
                     "model-%05" PRIu32 "-of-%05" PRIu32 ".safetensors", s + 1, plan->n_shards);
    }
    char *name = plan->names;
    for (uint32_t i = 0; i < plan->gp.n_tensors; i++) {
        const mfi_gp_tensor *t = &plan->gp.tensors[i];
        mfi_mp_shard *shard = &plan->shards[plan->places[i].shard];
        for (uint32_t k = 0; k < mfi_quant_n_planes(t->type); k++, name += PLANE_NAME_BYTES) {
            set_entry(t, k, name, &shard->entries[plan->places[i].entry + k]);
            shard->bytes += plane_bytes(t, k);
        }
    }
    return MF_OK;
}

mf_status mfi_mp_open(mfi_mp *plan, const mfi_model *model, uint32_t bits, uint32_t dense_bits,
                      uint32_t group, uint64_t shard_bytes, mf_error *err)
{
    *plan = (mfi_mp){.gp.mlx = true, .bits = bits, .dense_bits = dense_bits, .group = group};
    planner p = {plan, model, err};
    size_t n_planes = 0;
    if (model->arch->expert_bias)
        return mfi_fail(err, MF_ERR_UNSUPPORTED,
                        "%s: MLX folders of family %s can't be written: its experts have biases, "
                        "which would be lost",
                        mfi_catalog_path(model->catalog), model->family);
    if (!*model->arch->model_types)
        return mfi_fail(
            err, MF_ERR_UNSUPPORTED,
            "%s: MLX folders of family %s can't be written: it is known from GGUF alone",
            mfi_catalog_path(model->catalog), model->family);
    MFI_TRY(add_tensors(&p));
    mfi_gp_count_bytes(&plan->gp, model);
    MFI_TRY(assign_shards(&p, shard_bytes, &n_planes));
    return fill_shards(&p, n_planes);
}

void mfi_mp_close(mfi_mp *plan)
{
    for (uint32_t s = 0; s < plan->n_shards && plan->shards; s++)
        free(plan->shards[s].entries);
    free(plan->shards);
    free(plan->places);
    free(plan->names);
    mfi_gp_close(&plan->gp);
    *plan = (mfi_mp){0};
}
