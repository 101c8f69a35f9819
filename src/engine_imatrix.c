/* Importance matrices: while tokens are evaluated, the squares of what enters every matrix are
 * summed by column, routed experts each on their own; then the sums are written
 * (convert/imatrix_file.h has the layout). Runs on the engine's thread: the tap is called between
 * ops, never beside a worker.
 *
 * Matrices that one op multiplies have one input, so the sums are kept by op. The output matrix is
 * left out, as llama.cpp does it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convert/gguf_write.h"
#include "engine_int.h"

struct mfi_imatrix {
    const mfi_model *model;
    const mfi_program *program;
    float *sums; /* all of them */
    uint64_t n_sums;
    uint64_t *op_at;     /* [n_ops] where a MATMUL's [cols] begin; UINT64_MAX: not collected */
    uint64_t *expert_at; /* [n_layers] [n_experts][hidden], then [n_experts][expert_width] */
    uint64_t *counts;    /* [n_layers][n_experts] rows that an expert has seen */
    uint64_t n_rows;     /* that everything else has seen */
    uint32_t n_chunks, chunk;
};

/* ---- memory ---- */

static uint64_t expert_sums(const mfi_shape *s)
{
    return (uint64_t)s->n_experts * ((uint64_t)s->hidden + s->expert_width);
}

uint64_t mfi_imatrix_bytes(const mfi_model *model)
{
    const mfi_shape *s = &model->shape;
    uint64_t gdn_v = (uint64_t)s->gdn_v_heads * s->gdn_v_dim;
    uint64_t attn = (uint64_t)s->n_head * (s->latent_kv ? s->v_dim : s->head_dim) + s->latent_q;
    uint64_t layer = 4 * (uint64_t)s->hidden + MFI_MAX(attn, gdn_v) + s->shared_width;
    layer = (layer + expert_sums(s)) * sizeof(float) + (s->n_experts + 64) * sizeof(uint64_t);
    return layer * s->n_layers + 64 * MFI_KIB;
}

mf_status mfi_imatrix_open(mfi_imatrix **imatrix, const mfi_model *model,
                           const mfi_program *program, mf_error *err)
{
    const mfi_shape *s = &program->shape;
    mfi_imatrix *m = calloc(1, sizeof *m);
    if (!m)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for an importance matrix");
    *m = (mfi_imatrix){.model = model, .program = program};
    m->op_at = calloc(program->n_ops, sizeof *m->op_at);
    m->expert_at = calloc(s->n_layers, sizeof *m->expert_at);
    m->counts = calloc((size_t)s->n_layers * s->n_experts, sizeof *m->counts);
    for (uint32_t i = 0; m->op_at && i < program->n_ops; i++) {
        const mfi_op *op = &program->ops[i];
        m->op_at[i] = UINT64_MAX;
        if (op->code == MFI_OP_MATMUL && i < program->head_first) {
            m->op_at[i] = m->n_sums;
            m->n_sums += program->weights[op->w[0]].cols;
        }
    }
    for (uint32_t i = 0; m->expert_at && i < s->n_layers; i++) {
        m->expert_at[i] = m->n_sums;
        m->n_sums += expert_sums(s);
    }
    m->sums = calloc(m->n_sums, sizeof *m->sums);
    if (!m->op_at || !m->expert_at || !m->counts || !m->sums) {
        mfi_imatrix_close(&m);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for an importance matrix");
    }
    *imatrix = m;
    return MF_OK;
}

void mfi_imatrix_close(mfi_imatrix **imatrix)
{
    mfi_imatrix *m = *imatrix;
    if (!m)
        return;
    free(m->op_at);
    free(m->expert_at);
    free(m->counts);
    free(m->sums);
    free(m);
    *imatrix = NULL;
}

/* ---- collecting ---- */

static void add_squares(float *sums, const float *row, uint32_t cols)
{
    for (uint32_t c = 0; c < cols; c++)
        sums[c] += row[c] * row[c];
}

static void tap_matmul(mfi_imatrix *m, uint32_t op, const mfi_step *step, mfi_backend *backend)
{
    uint32_t src = m->program->ops[op].src[0], width = m->program->bufs[src].width;
    const float *rows = backend->view(backend, (mfi_buf_id)src);
    for (uint32_t t = 0; t < step->n_tok; t++)
        add_squares(m->sums + m->op_at[op], rows + (size_t)t * width,
                    m->program->weights[m->program->ops[op].w[0]].cols);
}

/* The experts of one run: their inputs are their tokens' rows, the inputs of `down` the
 * activations. */
static void tap_experts(mfi_imatrix *m, const mfi_op *op, const mfi_step *step,
                        mfi_backend *backend)
{
    const mfi_shape *s = &m->program->shape;
    const float *in = backend->view(backend, (mfi_buf_id)op->src[0]);
    const float *mid = backend->view(backend, MFI_BUF_EG);
    const uint16_t *ids = backend->view(backend, MFI_BUF_IDS);
    uint32_t in_width = m->program->bufs[op->src[0]].width, width = s->expert_width;
    float *in_sums = m->sums + m->expert_at[op->layer];
    float *mid_sums = in_sums + (size_t)s->n_experts * s->hidden;
    for (uint32_t i = 0; i < step->n_work; i++) {
        const mfi_expert_work *w = &step->work[i];
        for (uint32_t p = w->first; p < w->first + w->n; p++) {
            uint32_t t = step->pairs[p].token;
            uint32_t e = ids[t * s->top_k + step->pairs[p].rank];
            add_squares(in_sums + (size_t)e * s->hidden, in + (size_t)t * in_width, s->hidden);
            add_squares(mid_sums + (size_t)e * width, mid + (size_t)p * width, width);
            m->counts[(size_t)op->layer * s->n_experts + e]++;
        }
    }
}

void mfi_imatrix_tap(void *user, uint32_t op, const mfi_step *step, mfi_backend *backend)
{
    mfi_imatrix *m = user;
    if (m->program->ops[op].code == MFI_OP_EMBED)
        m->n_rows += step->n_tok;
    else if (m->op_at[op] != UINT64_MAX)
        tap_matmul(m, op, step, backend);
    else if (m->program->ops[op].code == MFI_OP_EXPERTS)
        tap_experts(m, &m->program->ops[op], step, backend);
}

void mfi_imatrix_count(mfi_imatrix *m, uint32_t chunk)
{
    m->chunk = chunk;
    m->n_chunks++;
}

/* ---- writing ---- */

#define NAME_BYTES (MFI_GGUF_NAME_BYTES_MAX + 1)

/* One weight: two tensors. */
typedef struct item {
    char sums_name[NAME_BYTES], counts_name[NAME_BYTES];
    const float *sums;      /* [n][cols] */
    const uint64_t *counts; /* [n]; NULL: n_rows each */
    uint32_t n, cols;
    mfi_row_map columns; /* in which order the model's file has them, if not in that of the sums */
} item;

typedef struct writer {
    const mfi_imatrix *m;
    item *items;
    mfi_gguf_tensor *tensors; /* [2 * n] */
    uint32_t n;
    float *row; /* [widest] */
} writer;

static void add_item(writer *w, uint32_t layer, const char *name, const item *what)
{
    item *it = &w->items[w->n];
    *it = *what;
    snprintf(it->sums_name, NAME_BYTES, "blk.%u.%.32s.in_sum2", layer, name);
    snprintf(it->counts_name, NAME_BYTES, "blk.%u.%.32s.counts", layer, name);
    for (uint32_t i = 0; i < w->n; i++) /* two roles in one tensor */
        if (strcmp(w->items[i].sums_name, it->sums_name) == 0)
            return;
    w->n++;
}

static const mfi_name *gguf_name(const mfi_model *model, uint32_t layer, mfi_role role)
{
    const mfi_recipe *recipes[] = {&model->arch->mixer[model->mixer[layer]],
                                   &model->arch->ffn[model->ffn[layer]]};
    for (size_t r = 0; r < 2; r++)
        for (uint32_t i = 0; i < recipes[r]->n_names; i++)
            if (recipes[r]->names[i].role == role)
                return &recipes[r]->names[i].gguf[0];
    return NULL;
}

/* The role of a program weight of a layer: the program has them in the order of roles. */
static mfi_role role_of(const mfi_imatrix *m, uint32_t layer, uint32_t weight)
{
    uint32_t at = 0;
    for (uint32_t row = 0; row <= layer + 1; row++)
        for (uint32_t role = 0; role < MFI_N_ROLES; role++) {
            const mfi_weight_src *src = &m->model->weights[(size_t)row * MFI_N_ROLES + role];
            if (src->tensor == MFI_TENSOR_NONE || (role == MFI_ROLE_LM_HEAD && m->model->tied))
                continue;
            if (at++ == weight)
                return (mfi_role)role;
        }
    return MFI_ROLE_NONE;
}

static void add_matmul(writer *w, uint32_t op_index)
{
    const mfi_imatrix *m = w->m;
    const mfi_op *op = &m->program->ops[op_index];
    const mfi_shape *s = &m->program->shape;
    for (uint32_t i = 0; i < op->n; i++) {
        const mfi_name *name = gguf_name(m->model, op->layer, role_of(m, op->layer, op->w[i]));
        if (!name)
            continue;
        bool tiled = name->map == MFI_MAP_TILED_COLS && !s->gdn_tiled;
        item it = {.sums = m->sums + m->op_at[op_index],
                   .n = 1,
                   .cols = m->program->weights[op->w[i]].cols,
                   .columns = tiled ? MFI_MAP_TILED_COLS : MFI_MAP_NONE};
        add_item(w, op->layer, name->name, &it);
    }
}

static void add_experts(writer *w, uint32_t layer)
{
    static const char *const names[MFI_EXPERT_PROJS] = {
        "ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight"};
    const mfi_shape *s = &w->m->program->shape;
    const float *in = w->m->sums + w->m->expert_at[layer];
    for (uint32_t p = 0; p < MFI_EXPERT_PROJS; p++) {
        bool down = p == MFI_EXPERT_DOWN;
        item it = {.sums = down ? in + (size_t)s->n_experts * s->hidden : in,
                   .counts = w->m->counts + (size_t)layer * s->n_experts,
                   .n = s->n_experts,
                   .cols = down ? s->expert_width : s->hidden};
        add_item(w, layer, names[p], &it);
    }
}

static mf_status list_items(writer *w, mf_error *err)
{
    const mfi_program *p = w->m->program;
    uint32_t n = p->shape.n_layers * MFI_EXPERT_PROJS, widest = 1;
    for (uint32_t i = 0; i < p->n_ops; i++)
        n += p->ops[i].code == MFI_OP_MATMUL ? p->ops[i].n : 0;
    w->items = calloc(n, sizeof *w->items);
    w->tensors = calloc(2 * (size_t)n, sizeof *w->tensors);
    if (!w->items || !w->tensors)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the list of weights");
    for (uint32_t i = 0; i < p->n_ops; i++) {
        if (w->m->op_at[i] != UINT64_MAX)
            add_matmul(w, i);
        else if (p->ops[i].code == MFI_OP_EXPERTS)
            add_experts(w, p->ops[i].layer);
    }
    for (uint32_t i = 0; i < w->n; i++) {
        const item *it = &w->items[i];
        mfi_qtype f32 = mfi_qtype_float(MFI_Q_F32);
        w->tensors[2 * i] = (mfi_gguf_tensor){it->sums_name, f32, 2, {it->n, it->cols}, 0, 0};
        w->tensors[2 * i + 1] = (mfi_gguf_tensor){it->counts_name, f32, 2, {it->n, 1}, 0, 0};
        widest = MFI_MAX(widest, it->cols);
    }
    w->row = malloc(widest * sizeof *w->row);
    return w->row ? MF_OK : mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a row");
}

static mf_status write_item(const writer *w, uint32_t i, mfi_gguf_out *out, mf_error *err)
{
    const item *it = &w->items[i];
    for (uint32_t s = 0; s < it->n; s++) {
        const float *sums = it->sums + (size_t)s * it->cols;
        for (uint32_t c = 0; c < it->cols; c++) {
            uint32_t to = c;
            if (it->columns == MFI_MAP_TILED_COLS)
                mfi_map_source(&w->m->program->shape, it->columns, c, &to);
            w->row[to] = sums[c];
        }
        float count = (float)(it->counts ? it->counts[s] : w->m->n_rows);
        MFI_TRY(mfi_gguf_write(out, w->row, it->cols * sizeof *w->row,
                               w->tensors[2 * i].offset + (uint64_t)s * it->cols * sizeof *w->row,
                               err));
        MFI_TRY(mfi_gguf_write(out, &count, sizeof count,
                               w->tensors[2 * i + 1].offset + s * sizeof count, err));
    }
    return MF_OK;
}

static mf_status write_file(writer *w, mfi_gguf_out *out, const char *dataset, mf_error *err)
{
    mfi_gguf_key_str(out, "general.type", "imatrix");
    mfi_gguf_array(out, "imatrix.datasets", MFI_GGUF_STRING, 1);
    mfi_gguf_put_str(out, dataset, strlen(dataset));
    mfi_gguf_key_u32(out, "imatrix.chunk_count", w->m->n_chunks);
    mfi_gguf_key_u32(out, "imatrix.chunk_size", w->m->chunk);
    MFI_TRY(mfi_gguf_layout(out, w->tensors, 2 * w->n, err));
    for (uint32_t i = 0; i < w->n; i++)
        MFI_TRY(write_item(w, i, out, err));
    return mfi_gguf_finish(out, err);
}

mf_status mfi_imatrix_write(const mfi_imatrix *m, const char *path, const char *dataset,
                            mf_error *err)
{
    writer w = {.m = m};
    mfi_gguf_out out = {.out.fd = -1};
    mf_status status = list_items(&w, err);
    if (status == MF_OK)
        status = mfi_gguf_create(&out, path, err);
    if (status == MF_OK)
        status = write_file(&w, &out, dataset, err);
    mfi_gguf_close(&out);
    free(w.items);
    free(w.tensors);
    free(w.row);
    return status;
}
