/* Makes the plan of a GGUF file; see gguf_plan.h. Called once a conversion, on its thread. Names
 * and orders come from the families' tables (model/); which types stand where is decided here. */
#include "convert/gguf_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { Q4_0 = 2, Q8_0 = 8, Q4_K = 12, Q6_K = 14, MXFP4 = 39 };

#define F(kind, bits)                                                                              \
    {                                                                                              \
        MFI_Q_##kind, bits, 0, 0                                                                   \
    }
#define G(type)                                                                                    \
    {                                                                                              \
        MFI_Q_GGML, type, 0, 0                                                                     \
    }

/* The output matrix decides between neighbours in the vocabulary: the 4-bit types give it 6, as
 * llama.cpp does. The gates' matrices are too small to save on. mxfp4 is for experts, the rest
 * takes q8_0, as in llama.cpp's files of gpt-oss. */
static const mfi_gp_target targets[] = {
    {"f32", F(F32, 32), F(F32, 32), F(F32, 32), F(F32, 32), 0},
    {"f16", F(F16, 16), F(F16, 16), F(F16, 16), F(F16, 16), 1},
    {"bf16", F(BF16, 16), F(BF16, 16), F(BF16, 16), F(BF16, 16), 32},
    {"q8_0", G(Q8_0), G(Q8_0), G(Q8_0), G(Q8_0), 7},
    {"q6_k", G(Q6_K), G(Q6_K), G(Q8_0), G(Q6_K), 18},
    {"q4_k", G(Q4_K), G(Q6_K), G(Q8_0), G(Q4_K), 14},
    {"q4_0", G(Q4_0), G(Q6_K), G(Q8_0), G(Q4_0), 2},
    {"mxfp4", G(Q8_0), G(Q8_0), G(Q8_0), G(MXFP4), 38},
};

const mfi_gp_target *mfi_gp_find_target(const char *name)
{
    for (size_t i = 0; i < MFI_ARRAY_LEN(targets); i++)
        if (strcmp(targets[i].name, name) == 0)
            return &targets[i];
    return NULL;
}

typedef struct planner {
    mfi_gp *plan;
    const mfi_model *model;
    const mfi_gp_target *target;
    mf_error *err;
} planner;

/* Rows that aren't whole blocks: K types give way to q8_0, and that to f16. */
static mfi_qtype fitting(mfi_qtype type, uint32_t cols)
{
    static const mfi_qtype q8_0 = G(Q8_0);
    if (!mfi_quant_cols_ok(type, cols))
        type = q8_0;
    return mfi_quant_cols_ok(type, cols) ? type : mfi_qtype_float(MFI_Q_F16);
}

static bool is_matrix(const mfi_weight_src *w)
{
    return w->load == MFI_LOAD_MATRIX || w->load == MFI_LOAD_DECODED;
}

/* What llama.cpp keeps in float32 (routers, gates of the shared expert) stays so. */
static mfi_qtype type_of(const planner *p, const mfi_weight_src *w, mfi_role role)
{
    if (!is_matrix(w) || role == MFI_ROLE_ROUTER || role == MFI_ROLE_SHARED_SCALE)
        return mfi_qtype_float(MFI_Q_F32);
    bool head = role == MFI_ROLE_LM_HEAD || (role == MFI_ROLE_EMBED && p->model->tied);
    bool gate = role == MFI_ROLE_GDN_A || role == MFI_ROLE_GDN_B;
    mfi_qtype type = head ? p->target->head : gate ? p->target->gates : p->target->type;
    return fitting(type, w->cols);
}

mfi_gp_tensor *mfi_gp_append(mfi_gp *plan, const char *prefix, const char *name)
{
    if (plan->n_tensors == plan->cap_tensors) {
        uint32_t cap = plan->cap_tensors ? 2 * plan->cap_tensors : 256;
        mfi_gp_tensor *grown = realloc(plan->tensors, cap * sizeof *grown);
        if (!grown)
            return NULL;
        plan->tensors = grown;
        plan->cap_tensors = cap;
    }
    mfi_gp_tensor *t = &plan->tensors[plan->n_tensors++];
    *t = (mfi_gp_tensor){.n_slices = 1};
    snprintf(t->name, sizeof t->name, "%s%s", prefix, name);
    return t;
}

static mf_status append(planner *p, const char *prefix, const char *name, mfi_gp_tensor **out)
{
    *out = mfi_gp_append(p->plan, prefix, name);
    return *out ? MF_OK
                : mfi_fail(p->err, MF_ERR_NO_MEMORY, "%s: no memory for the plan",
                           mfi_catalog_path(p->model->catalog));
}

/* An earlier role began it. */
mfi_gp_tensor *mfi_gp_begun(const mfi_gp *plan, const char *prefix, const char *name)
{
    char full[MFI_GP_NAME_BYTES];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    for (uint32_t i = plan->n_tensors, n = 0; i-- > 0 && n < MFI_N_ROLES; n++)
        if (strcmp(plan->tensors[i].name, full) == 0)
            return &plan->tensors[i];
    return NULL;
}

static bool is_tiled(mfi_row_map map)
{
    return map == MFI_MAP_TILED_QKV || map == MFI_MAP_TILED_V || map == MFI_MAP_TILED_HEADS ||
           map == MFI_MAP_TILED_COLS;
}

/* Tiled value heads may be bound tiled already. */
mfi_row_map mfi_gp_target_map(const mfi_shape *s, mfi_row_map map)
{
    return is_tiled(map) && (s->gdn_tiled || s->gdn_k_heads == s->gdn_v_heads) ? MFI_MAP_NONE : map;
}

/* A matrix a head. Of kv_b the keys' part is written by latent, and stands by key where it isn't
 * split. */
static void set_heads(const planner *p, mfi_gp_tensor *t, mfi_role role)
{
    const mfi_shape *s = &p->model->shape;
    mfi_weight_src *src = &t->parts[0].src;
    if (role == MFI_ROLE_LATENT_K && src->map == MFI_MAP_KVB_K) {
        t->gather = MFI_GP_TRANSPOSED;
        t->in_rows = t->cols = s->nope_dim;
        t->in_cols = t->rows = s->latent_kv;
        t->step = 1;
        t->n_slices = s->n_head;
        t->type = fitting(p->target->type, t->cols);
    }
    t->n_dims = 3;
    t->dims[0] = s->n_head;
    t->dims[1] = role == MFI_ROLE_LATENT_K ? s->latent_kv : s->v_dim;
    t->dims[2] = t->cols;
}

static mf_status add_weight(planner *p, const char *prefix, const mfi_name_rule *rule,
                            const mfi_weight_src *w)
{
    const mfi_shape *s = &p->model->shape;
    const mfi_name *name = &rule->gguf[0];
    mfi_gp_tensor *t = mfi_gp_begun(p->plan, prefix, name->name);
    if (!t) {
        MFI_TRY(append(p, prefix, name->name, &t));
        t->type = type_of(p, w, rule->role);
        t->vector = !is_matrix(w) && w->rows == 1;
        t->cols = t->vector ? 1 : w->cols;
    }
    MFI_ASSERT(t->n_parts < MFI_GP_PARTS);
    t->parts[t->n_parts++] = (mfi_gp_part){*w, mfi_gp_target_map(s, name->map)};
    t->rows += t->vector ? w->cols : w->rows;
    t->n_dims = t->vector || t->rows == 1 ? 1 : 2;
    t->dims[0] = t->rows == 1 && !t->vector ? t->cols : t->rows;
    t->dims[1] = t->cols;
    if (rule->role == MFI_ROLE_LATENT_K || rule->role == MFI_ROLE_LATENT_V)
        set_heads(p, t, rule->role);
    return MF_OK;
}

static mf_status add_recipe(planner *p, const mfi_recipe *recipe, const char *prefix,
                            const mfi_weight_src *weights)
{
    for (uint32_t i = 0; i < recipe->n_names; i++) {
        const mfi_name_rule *rule = &recipe->names[i];
        if ((rule->role == MFI_ROLE_LM_HEAD && p->model->tied) || p->model->omit[rule->role])
            continue;
        MFI_TRY(add_weight(p, prefix, rule, &weights[rule->role]));
    }
    return MF_OK;
}

void mfi_gp_set_experts(mfi_gp_tensor *t, const mfi_shape *s, uint32_t layer, mfi_expert_proj proj)
{
    t->rows = proj == MFI_EXPERT_DOWN ? s->hidden : s->expert_width;
    t->cols = proj == MFI_EXPERT_DOWN ? s->expert_width : s->hidden;
    t->n_dims = 3;
    t->dims[0] = t->n_slices = s->n_experts;
    t->dims[1] = t->rows;
    t->dims[2] = t->cols;
    t->layer = layer;
    t->proj = proj;
}

/* Gate and up may alternate, and be stored with inputs as rows. */
static void set_interleaved(const mfi_model *m, mfi_gp_tensor *t)
{
    bool down = t->proj == MFI_EXPERT_DOWN;
    uint32_t times = down ? 1 : 2;
    if (!m->interleaved || (down && !m->transposed))
        return;
    t->gather = m->transposed ? MFI_GP_TRANSPOSED : MFI_GP_SOME_ROWS;
    t->in_rows = m->transposed ? t->cols : times * t->rows;
    t->in_cols = m->transposed ? times * t->rows : t->cols;
    t->first = t->proj == MFI_EXPERT_UP;
    t->step = times;
}

static mf_status add_bias(planner *p, const char *prefix, uint32_t layer, mfi_expert_proj proj)
{
    static const char *const names[MFI_EXPERT_PROJS] = {"ffn_gate_exps.bias", "ffn_up_exps.bias",
                                                        "ffn_down_exps.bias"};
    const mfi_model *m = p->model;
    const mfi_shape *s = &m->shape;
    bool both = m->interleaved && proj != MFI_EXPERT_DOWN;
    mfi_expert_proj from = both ? MFI_EXPERT_GATE : proj;
    uint32_t id = m->expert_bias[layer * MFI_EXPERT_PROJS + from];
    if (id == MFI_TENSOR_NONE)
        return MF_OK;
    mfi_gp_tensor *t;
    MFI_TRY(append(p, prefix, names[proj], &t));
    t->type = mfi_qtype_float(MFI_Q_F32);
    t->n_dims = 2;
    t->dims[0] = t->rows = t->in_rows = s->n_experts;
    t->dims[1] = t->cols = proj == MFI_EXPERT_DOWN ? s->hidden : s->expert_width;
    t->step = both ? 2 : 1;
    t->first = both && proj == MFI_EXPERT_UP;
    t->in_cols = t->step * t->cols;
    t->gather = MFI_GP_SOME_COLUMNS;
    t->n_parts = 1;
    t->parts[0].src = (mfi_weight_src){.tensor = id, .rows = t->rows, .cols = t->in_cols};
    return MF_OK;
}

static mf_status add_experts(planner *p, const char *prefix, uint32_t layer)
{
    static const char *const names[MFI_EXPERT_PROJS] = {
        "ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight"};
    const mfi_shape *s = &p->model->shape;
    for (uint32_t proj = 0; proj < MFI_EXPERT_PROJS; proj++) {
        mfi_gp_tensor *t;
        MFI_TRY(append(p, prefix, names[proj], &t));
        mfi_gp_set_experts(t, s, layer, (mfi_expert_proj)proj);
        t->type = fitting(p->target->experts, t->cols);
        set_interleaved(p->model, t);
        MFI_TRY(add_bias(p, prefix, layer, (mfi_expert_proj)proj));
    }
    return MF_OK;
}

const mfi_expert_src *mfi_gp_expert(const mfi_model *model, const mfi_gp_tensor *t, uint32_t s)
{
    size_t at = (size_t)t->layer * model->shape.n_experts + s;
    bool both = model->interleaved && t->proj == MFI_EXPERT_UP;
    return &model->experts[at * MFI_EXPERT_PROJS + (both ? MFI_EXPERT_GATE : t->proj)];
}

void mfi_gp_count_bytes(mfi_gp *plan, const mfi_model *model)
{
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const mfi_gp_tensor *t = &plan->tensors[i];
        uint32_t id = t->n_parts ? t->parts[0].src.tensor : mfi_gp_expert(model, t, 0)->tensor;
        mfi_qtype type = mfi_catalog_tensor(model->catalog, id)->type;
        uint32_t rows = t->gather ? t->in_rows : t->rows;
        plan->in_bytes +=
            (uint64_t)t->n_slices * rows * mfi_quant_row_bytes(type, 0, mfi_gp_in_cols(t));
    }
}

mf_status mfi_gp_open(mfi_gp *plan, const mfi_model *model, const mfi_gp_target *target,
                      mf_error *err)
{
    *plan = (mfi_gp){0};
    planner p = {plan, model, target, err};
    MFI_TRY(add_recipe(&p, &model->arch->begin, "", model->weights));
    for (uint32_t layer = 0; layer < model->shape.n_layers; layer++) {
        const mfi_weight_src *weights = model->weights + (size_t)(1 + layer) * MFI_N_ROLES;
        char prefix[32];
        snprintf(prefix, sizeof prefix, "blk.%u.", layer);
        MFI_TRY(add_recipe(&p, &model->arch->mixer[model->mixer[layer]], prefix, weights));
        MFI_TRY(add_recipe(&p, &model->arch->ffn[model->ffn[layer]], prefix, weights));
        if (mfi_model_routed(model, layer))
            MFI_TRY(add_experts(&p, prefix, layer));
    }
    MFI_TRY(add_recipe(&p, &model->arch->head, "", model->weights));
    mfi_gp_count_bytes(plan, model);
    return MF_OK;
}

void mfi_gp_close(mfi_gp *plan)
{
    free(plan->tensors);
    *plan = (mfi_gp){0};
}
