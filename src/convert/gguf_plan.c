/* Makes the plan of a GGUF file; see gguf_plan.h. Called once a conversion, on its thread. Names
 * and orders come from the families' tables (model/); which types stand where is decided here. */
#include "convert/gguf_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { Q4_0 = 2, Q8_0 = 8, Q4_K = 12, Q6_K = 14 };

#define F(kind, bits)                                                                              \
    {                                                                                              \
        MFI_Q_##kind, bits, 0, 0                                                                   \
    }
#define G(type)                                                                                    \
    {                                                                                              \
        MFI_Q_GGML, type, 0, 0                                                                     \
    }

/* The output matrix decides between neighbours in the vocabulary: the 4-bit types give it 6, as
 * llama.cpp does. The gates' matrices are too small to save on. */
static const mfi_gp_target targets[] = {
    {"f32", F(F32, 32), F(F32, 32), F(F32, 32), 0},
    {"f16", F(F16, 16), F(F16, 16), F(F16, 16), 1},
    {"bf16", F(BF16, 16), F(BF16, 16), F(BF16, 16), 32},
    {"q8_0", G(Q8_0), G(Q8_0), G(Q8_0), 7},
    {"q6_k", G(Q6_K), G(Q6_K), G(Q8_0), 18},
    {"q4_k", G(Q4_K), G(Q6_K), G(Q8_0), 14},
    {"q4_0", G(Q4_0), G(Q6_K), G(Q8_0), 2},
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

/* What llama.cpp keeps in float32 (routers, gates of the shared expert) stays so. */
static mfi_qtype type_of(const planner *p, const mfi_weight_src *w, mfi_role role)
{
    if (w->load != MFI_LOAD_MATRIX || role == MFI_ROLE_ROUTER || role == MFI_ROLE_SHARED_SCALE)
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

static mf_status add_weight(planner *p, const char *prefix, const mfi_name_rule *rule,
                            const mfi_weight_src *w)
{
    const mfi_shape *s = &p->model->shape;
    const mfi_name *name = &rule->gguf[0];
    mfi_gp_tensor *t = mfi_gp_begun(p->plan, prefix, name->name);
    if (!t) {
        MFI_TRY(append(p, prefix, name->name, &t));
        t->type = type_of(p, w, rule->role);
        t->vector = w->load != MFI_LOAD_MATRIX && w->rows == 1;
        t->cols = t->vector ? 1 : w->cols;
    }
    MFI_ASSERT(t->n_parts < MFI_GP_PARTS);
    t->parts[t->n_parts++] = (mfi_gp_part){*w, mfi_gp_target_map(s, name->map)};
    t->rows += t->vector ? w->cols : w->rows;
    t->n_dims = t->vector || t->rows == 1 ? 1 : 2;
    t->dims[0] = t->rows == 1 && !t->vector ? t->cols : t->rows;
    t->dims[1] = t->cols;
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

static mf_status add_experts(planner *p, const char *prefix, uint32_t layer)
{
    static const char *const names[MFI_EXPERT_PROJS] = {
        "ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight"};
    const mfi_shape *s = &p->model->shape;
    for (uint32_t proj = 0; proj < MFI_EXPERT_PROJS; proj++) {
        mfi_gp_tensor *t;
        MFI_TRY(append(p, prefix, names[proj], &t));
        mfi_gp_set_experts(t, s, layer, (mfi_expert_proj)proj);
        t->type = fitting(p->target->type, t->cols);
    }
    return MF_OK;
}

const mfi_expert_src *mfi_gp_expert(const mfi_model *model, const mfi_gp_tensor *t, uint32_t s)
{
    size_t at = (size_t)t->layer * model->shape.n_experts + s;
    return &model->experts[at * MFI_EXPERT_PROJS + t->proj];
}

void mfi_gp_count_bytes(mfi_gp *plan, const mfi_model *model)
{
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const mfi_gp_tensor *t = &plan->tensors[i];
        uint32_t id = t->n_parts ? t->parts[0].src.tensor : mfi_gp_expert(model, t, 0)->tensor;
        mfi_qtype type = mfi_catalog_tensor(model->catalog, id)->type;
        plan->in_bytes += (uint64_t)t->n_slices * t->rows * mfi_quant_row_bytes(type, 0, t->cols);
    }
}

/* What isn't written yet, and what the file can't say, because readers take it from the
 * architecture. */
static mf_status check_sayable(const planner *p)
{
    static const mfi_arch *const archs[] = {&mfi_arch_qwen2_moe, &mfi_arch_qwen3_moe,
                                            &mfi_arch_qwen3_next, &mfi_arch_qwen3_5_moe};
    size_t i = 0;
    while (i < MFI_ARRAY_LEN(archs) && archs[i] != p->model->arch)
        i++;
    if (i == MFI_ARRAY_LEN(archs))
        return mfi_fail(p->err, MF_ERR_UNSUPPORTED,
                        "%s: GGUF of family %s can't be written (can: qwen2_moe, qwen3_moe, "
                        "qwen3_next, qwen3_5_moe)",
                        mfi_catalog_path(p->model->catalog), p->model->family);
    bool norm = p->model->arch != &mfi_arch_qwen2_moe;
    if (p->model->shape.routing.normalize != norm)
        return mfi_fail(p->err, MF_ERR_UNSUPPORTED,
                        "%s: norm_topk_prob is %s, but readers of GGUF take %s for granted in "
                        "family %s",
                        mfi_catalog_path(p->model->catalog), norm ? "false" : "true",
                        norm ? "true" : "false", p->model->family);
    return MF_OK;
}

mf_status mfi_gp_open(mfi_gp *plan, const mfi_model *model, const mfi_gp_target *target,
                      mf_error *err)
{
    *plan = (mfi_gp){0};
    planner p = {plan, model, target, err};
    MFI_TRY(check_sayable(&p));
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
