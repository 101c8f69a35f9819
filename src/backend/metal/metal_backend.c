/* The Metal backend: opening, what is prepared for a program, spans of ops as command buffers, and
 * what the host sees of buffers. The module's only entry is here. Called by forward and the engine,
 * on one thread. Allocates at open and prepare, and for sequences, not in runs. */
#include <stdlib.h>
#include <string.h>

#include "backend/metal/metal_int.h"
#include "backend/metal/metal_module.h"

_Static_assert((int)MFI_METAL_F32 == MFI_Q_F32 && (int)MFI_METAL_F16 == MFI_Q_F16 &&
                   (int)MFI_METAL_BF16 == MFI_Q_BF16 && (int)MFI_METAL_MLX == MFI_Q_MLX &&
                   (int)MFI_METAL_GGML == MFI_Q_GGML && (int)MFI_METAL_FP8 == MFI_Q_FP8 &&
                   (int)MFI_METAL_MXFP4 == MFI_Q_MXFP4,
               "kernels number types as quant does");

/* ---- what the host sees ---- */

/* In place: who looks has waited. */
static const void *view(mfi_backend *b, mfi_buf_id buf)
{
    const mfi_metal *m = (const mfi_metal *)b;
    return m->mem[MFI_MEM_SCRATCH].host + m->p->bufs[buf].offset;
}

static mf_status read_rows(mfi_backend *b, mfi_buf_id buf, uint32_t row, uint32_t n_rows, void *dst,
                           mf_error *err)
{
    const mfi_metal *m = (const mfi_metal *)b;
    const mfi_program_buf *pb = &m->p->bufs[buf];
    MFI_ASSERT(row + n_rows <= pb->rows);
    MFI_TRY(mfi_metal_sync(b, err));
    memcpy(dst, (const float *)view(b, buf) + (size_t)row * pb->width,
           (size_t)n_rows * pb->width * sizeof(float));
    return MF_OK;
}

/* ---- preparing ---- */

static mf_status check_limits(const mfi_program *p, mf_error *err)
{
    const mfi_shape *s = &p->shape;
    if (s->n_experts > MFI_METAL_MAX_GROUPED)
        return mfi_fail(err, MF_ERR_LIMIT, "%u experts a layer: Metal kernels take at most %u",
                        s->n_experts, MFI_METAL_MAX_GROUPED);
    if (s->head_dim > MFI_MAX_HEAD_DIM || s->latent_kv + s->n_rot > MFI_MAX_HEAD_DIM ||
        s->gdn_k_dim > MFI_MAX_HEAD_DIM || s->gdn_v_dim > MFI_MAX_HEAD_DIM)
        return mfi_fail(err, MF_ERR_LIMIT, "heads of %u, %u and %u elements: at most %u",
                        s->head_dim, s->gdn_k_dim, s->gdn_v_dim, MFI_MAX_HEAD_DIM);
    return MF_OK;
}

static mf_status fill_weights(mfi_metal *m, mf_error *err)
{
    const mfi_program *p = m->p;
    m->weights = calloc(p->n_weights, sizeof *m->weights);
    if (!m->weights)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for %u weight descriptors", p->n_weights);
    for (uint32_t i = 0; i < p->n_weights; i++) {
        const mfi_program_weight *w = &p->weights[i];
        MFI_ASSERT(w->x_bits == 0);
        m->weights[i].mat = mfi_metal_mat_of(w->type, w->rows, w->cols);
        for (uint32_t k = 0; !w->in_place && k < mfi_quant_n_planes(w->type); k++)
            m->weights[i].plane[k] = mfi_metal_at(&m->mem[MFI_MEM_DENSE], w->offset[k]);
    }
    return MF_OK;
}

/* Bytes of what is allocated here, beside what the plan has us allocate. */
typedef struct own {
    uint64_t freq, tables, step, work, partial, slots, chosen, stop;
} own;

static own measure(const mfi_program *p, uint32_t ctx)
{
    const mfi_shape *s = &p->shape;
    uint32_t dim_v = s->latent_kv ? s->latent_kv : s->head_dim;
    return (own){
        .freq = s->n_rot / 2 * sizeof(uint64_t),
        .tables = MFI_METAL_N_TABLES * sizeof(uint16_t),
        .step = (2 * (uint64_t)p->chunk + MFI_MAX(p->chunk, p->n_logit_rows)) * 4,
        .work = mfi_metal_work_bytes(p),
        .partial = mfi_metal_attn_partial_bytes(MFI_MIN(p->chunk, MFI_METAL_ATTN_SPLIT_TOK),
                                                s->n_head, mfi_metal_attn_blocks(0, ctx, 0), dim_v),
        .slots = mfi_metal_slots_bytes(p),
        .chosen = mfi_metal_chosen_bytes(p),
        .stop = sizeof(uint32_t)};
}

static uint64_t own_bytes(const mfi_program *p, uint32_t ctx)
{
    own o = measure(p, ctx);
    const uint64_t once[] = {o.freq, o.tables, o.work, o.partial, o.slots, o.chosen, o.stop};
    uint64_t sum = MFI_METAL_RING *
                   (MFI_MAX(o.step, MFI_METAL_BUF_LEAST) + MFI_MAX(o.work, MFI_METAL_BUF_LEAST));
    for (size_t i = 0; i < MFI_ARRAY_LEN(once); i++)
        sum += MFI_MAX(once[i], MFI_METAL_BUF_LEAST);
    return sum;
}

static mf_status fill_numbers(mfi_metal *m, const own *o, mf_error *err)
{
    const mfi_shape *s = &m->p->shape;
    double *freq = calloc(s->n_rot / 2 + 1, sizeof *freq);
    if (!freq)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for rotary frequencies");
    mfi_rope_frequencies(&s->rope, s->n_rot, freq);
    mf_status status = mfi_metal_buf_alloc(m->device, o->freq, false, &m->freq, err);
    for (uint32_t i = 0; status == MF_OK && i < s->n_rot / 2; i++)
        ((uint64_t *)(void *)m->freq.host)[i] = mfi_metal_turns(freq[i]);
    free(freq);
    MFI_TRY(status);
    MFI_TRY(mfi_metal_buf_alloc(m->device, o->tables, false, &m->tables, err));
    mfi_metal_fill_tables((uint16_t *)(void *)m->tables.host);
    return MF_OK;
}

static mf_status alloc_lists(mfi_metal *m, const own *o, mf_error *err)
{
    for (uint32_t i = 0; i < MFI_METAL_RING; i++) {
        MFI_TRY(mfi_metal_buf_alloc(m->device, o->step, false, &m->steps[i].buf, err));
        MFI_TRY(mfi_metal_buf_alloc(m->device, o->work, false, &m->works[i].buf, err));
    }
    MFI_TRY(mfi_metal_buf_alloc(m->device, o->work, false, &m->own_work, err));
    MFI_TRY(mfi_metal_buf_alloc(m->device, o->slots, false, &m->slots, err));
    mfi_metal_slots_clear(m);
    MFI_TRY(mfi_metal_buf_alloc(m->device, o->chosen, false, &m->chosen, err));
    MFI_TRY(mfi_metal_buf_alloc(m->device, o->stop, false, &m->stop, err));
    mfi_metal_stop_by(m->device, &m->stop);
    return mfi_metal_buf_alloc(m->device, o->partial, false, &m->partial, err);
}

static mf_status prepare(mfi_backend *b, const mfi_program *p, mf_error *err)
{
    mfi_metal *m = (mfi_metal *)b;
    MFI_ASSERT(!m->p && m->mem[MFI_MEM_DENSE].handle && m->mem[MFI_MEM_SCRATCH].handle);
    MFI_TRY(check_limits(p, err));
    MFI_TRY(mfi_metal_compile(m->device, mfi_metal_source, mfi_metal_source_bytes, err));
    m->p = p;
    own o = measure(p, p->ctx);
    MFI_TRY(fill_weights(m, err));
    MFI_TRY(fill_numbers(m, &o, err));
    return alloc_lists(m, &o, err);
}

/* ---- running ---- */

/* Tokens, positions and head rows for those ops that read them. */
static mf_status write_step(mfi_metal *m, const mfi_step *step, mf_error *err)
{
    MFI_TRY(mfi_metal_take(m, m->steps, &m->step_at, err));
    uint32_t *to = (uint32_t *)(void *)m->steps[m->step_at].buf.host, chunk = m->p->chunk;
    memcpy(to, step->tokens, step->n_tok * sizeof *to);
    for (uint32_t t = 0; t < step->n_tok; t++)
        to[chunk + t] = mfi_step_pos(step, t);
    if (step->n_head)
        memcpy(to + 2 * (size_t)chunk, step->head_rows, step->n_head * sizeof *to);
    return MF_OK;
}

static mf_status run(mfi_backend *b, uint32_t first, uint32_t n, const mfi_step *step,
                     mf_error *err)
{
    mfi_metal *m = (mfi_metal *)b;
    bool written = false;
    MFI_ASSERT(first + n <= m->p->n_ops && step->n_tok > 0 && step->n_tok <= m->p->chunk);
    for (uint32_t i = first; i < first + n; i++) {
        const mfi_op *op = &m->p->ops[i];
        bool reads = op->head || op->code == MFI_OP_EMBED || op->code == MFI_OP_ROPE_TABLE;
        if (reads && !written)
            MFI_TRY(write_step(m, step, err));
        written |= reads;
        MFI_TRY(mfi_metal_op(m, op, step, err));
    }
    return n ? mfi_metal_send(m, err) : MF_OK; /* it computes while the host goes on */
}

/* ---- open and close ---- */

static void close_backend(mfi_backend *b)
{
    mfi_metal *m = (mfi_metal *)b;
    (void)mfi_metal_sync(b, NULL);
    for (uint32_t i = 0; i < m->n_state; i++)
        mfi_metal_buf_free(m->device, &m->state[i]);
    for (uint32_t i = 0; i < MFI_METAL_RING; i++) {
        mfi_metal_buf_free(m->device, &m->steps[i].buf);
        mfi_metal_buf_free(m->device, &m->works[i].buf);
    }
    mfi_metal_buf *const rest[] = {&m->freq,  &m->tables, &m->partial, &m->own_work,
                                   &m->slots, &m->chosen, &m->stop};
    for (size_t i = 0; i < MFI_ARRAY_LEN(rest); i++)
        mfi_metal_buf_free(m->device, rest[i]);
    for (size_t i = 0; i < MFI_N_MEM_KINDS; i++)
        mfi_metal_buf_free(m->device, &m->mem[i]);
    mfi_metal_device_close(&m->device);
    free(m->state);
    free(m->weights);
    free(m);
}

static mf_status open_backend(mfi_backend **backend, uint32_t index, mfi_device_facts *facts,
                              mf_error *err)
{
    mfi_metal *m = calloc(1, sizeof *m);
    if (!m)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the Metal backend");
    mf_status status = mfi_metal_device_open(&m->device, index, facts, err);
    if (status != MF_OK) {
        free(m);
        return status;
    }
    facts->own_bytes = own_bytes;
    m->base = (mfi_backend){.name = "metal",
                            .device = &mfi_metal_device_ops,
                            .alloc = mfi_metal_alloc,
                            .write = mfi_metal_write,
                            .read = read_rows,
                            .view = view,
                            .prepare = prepare,
                            .run = run,
                            .sync = mfi_metal_sync,
                            .close = close_backend};
    *backend = &m->base;
    return MF_OK;
}

/* ---- the module ---- */

#define EXPORT __attribute__((visibility("default")))

EXPORT uint64_t mfi_metal_module_layout(void);
EXPORT const mfi_device_module *mfi_metal_module_v1(void);

uint64_t mfi_metal_module_layout(void)
{
    return mfi_device_layout();
}

const mfi_device_module *mfi_metal_module_v1(void)
{
    static const mfi_device_module module = {mfi_metal_device_facts, open_backend};
    return &module;
}
