/* EXPERTS on a Metal device. What is to be done comes as lists: tiles of pairs with their slots,
 * the token of each pair, the pair of each choice. Either the step brings them, where experts are
 * streamed, or ROUTE has made them on the device. Called on the engine's thread. */
#include <string.h>

#include "backend/metal/metal_int.h"

static uint32_t n_items_max(const mfi_program *p)
{
    const mfi_shape *s = &p->shape;
    return MFI_MAX(mfi_metal_group_items(p->chunk, s->top_k, s->n_experts, MFI_METAL_TILE),
                   s->top_k);
}

static uint64_t x_row_offset(const mfi_program *p)
{
    return mfi_align_up(n_items_max(p) * sizeof(mfi_metal_item), 64);
}

static uint64_t pair_of_offset(const mfi_program *p)
{
    uint64_t pairs = (uint64_t)p->chunk * p->shape.top_k;
    return x_row_offset(p) + mfi_align_up(pairs * sizeof(uint32_t), 64);
}

uint64_t mfi_metal_work_bytes(const mfi_program *p)
{
    return pair_of_offset(p) + (uint64_t)p->chunk * p->shape.top_k * sizeof(uint32_t);
}

mfi_metal_work mfi_metal_work_of(mfi_metal *m)
{
    const mfi_metal_buf *buf = &m->own_work;
    if (!m->own_lists) {
        mfi_metal_use(m, m->works, m->work_at);
        buf = &m->works[m->work_at].buf;
    }
    return (mfi_metal_work){mfi_metal_at(buf, 0), mfi_metal_at(buf, x_row_offset(m->p)),
                            mfi_metal_at(buf, pair_of_offset(m->p))};
}

/* Writes the step's lists where the device reads none. */
static mf_status take_work(mfi_metal *m, const mfi_step *step, mf_error *err)
{
    uint32_t n_pairs = step->n_tok * m->p->shape.top_k, n = 0, max = n_items_max(m->p);
    MFI_TRY(mfi_metal_take(m, m->works, &m->work_at, err));
    char *to = m->works[m->work_at].buf.host;
    mfi_metal_item *items = (mfi_metal_item *)(void *)to;
    const mfi_metal_buf *slots = &m->mem[MFI_MEM_SLOTS];
    for (uint32_t i = 0; i < step->n_work; i++) {
        const mfi_expert_work *w = &step->work[i];
        uint64_t at = (uintptr_t)w->data - (uintptr_t)slots->host;
        MFI_ASSERT(at < slots->len);
        for (uint32_t k = 0; k < w->n; k += MFI_METAL_TILE) {
            MFI_ASSERT(n < max);
            items[n++] = (mfi_metal_item){MFI_METAL_SLOT(0, at), w->first + k,
                                          MFI_MIN(w->n - k, MFI_METAL_TILE)};
        }
    }
    uint32_t *x_row = (uint32_t *)(void *)(to + x_row_offset(m->p));
    for (uint32_t i = 0; i < n_pairs; i++)
        x_row[i] = step->pairs[i].token;
    memcpy(to + pair_of_offset(m->p), step->pair_of, n_pairs * sizeof(uint32_t));
    m->n_items = n;
    m->own_lists = false;
    return MF_OK;
}

/* ---- products ---- */

static void add_proj(mfi_metal_mm *mm, uint32_t i, const mfi_expert_mat *m)
{
    mm->mat[i] = mfi_metal_mat_of(m->type, m->rows, m->cols);
    for (uint32_t p = 0; p < mfi_quant_n_planes(m->type); p++)
        mm->mat[i].offset[p] = m->offset[p];
    mm->bias_kind[i] = m->n_bias ? m->bias_type.kind : 0;
    mm->bias_offset[i] = m->bias_offset;
}

/* About one pair an item. */
static bool few(const mfi_metal *m, const mfi_step *step)
{
    return step->n_tok * m->p->shape.top_k <= m->p->shape.n_experts;
}

static mf_status multiply(mfi_metal *m, const mfi_expert_mat *mat, mfi_metal_mm *mm, uint32_t src,
                          uint32_t dst, const mfi_step *step, mf_error *err)
{
    mfi_metal_work work = mfi_metal_work_of(m);
    mfi_metal_ref slots = mfi_metal_at(&m->mem[MFI_MEM_SLOTS], 0);
    const mfi_metal_ref bufs[] = {slots,
                                  slots,
                                  slots,
                                  mfi_metal_row(m, src, 0),
                                  mfi_metal_row(m, dst, 0),
                                  work.items,
                                  work.x_row,
                                  mfi_metal_at(&m->tables, 0)};
    mm->n_tok = step->n_tok;
    mm->n_items = m->n_items;
    mm->ldx = m->p->bufs[src].width;
    mm->ldy = m->p->bufs[dst].width;
    mfi_metal_call call =
        mat->transposed ? mfi_metal_mm_cols_call(mm) : mfi_metal_mm_call(mm, few(m, step));
    return mfi_metal_encode(m->device, &call, mm, bufs, err);
}

static uint32_t glu_kind(const mfi_shape *s)
{
    return s->glu == MFI_GLU_CLAMPED ? MFI_METAL_GLU_CLAMPED : MFI_METAL_GLU_SILU;
}

static mf_status activate(mfi_metal *m, bool interleaved, const mfi_step *step, mf_error *err)
{
    const mfi_shape *s = &m->p->shape;
    uint32_t gate = interleaved ? MFI_BUF_EU : MFI_BUF_EG;
    /* Rows of experts that are done or still to come are changed too, and nobody reads them. */
    mfi_metal_glu a = {.n = s->expert_width,
                       .n_tok = step->n_tok * s->top_k,
                       .ldg = m->p->bufs[gate].width,
                       .ldu = m->p->bufs[MFI_BUF_EU].width,
                       .ldy = m->p->bufs[MFI_BUF_EG].width,
                       .interleaved = interleaved,
                       .kind = glu_kind(s),
                       .alpha = s->glu_alpha,
                       .limit = s->glu_limit};
    const mfi_metal_ref bufs[] = {mfi_metal_row(m, gate, 0), mfi_metal_row(m, MFI_BUF_EU, 0),
                                  mfi_metal_row(m, MFI_BUF_EG, 0)};
    mfi_metal_call call = mfi_metal_glu_call(&a);
    return mfi_metal_encode(m->device, &call, &a, bufs, err);
}

/* Gate and up into EG: at once where both are alike, else one after the other. */
static mf_status gate_up(mfi_metal *m, const mfi_op *op, const mfi_expert_layout *l,
                         const mfi_step *step, mf_error *err)
{
    const mfi_shape *s = &m->p->shape;
    const mfi_expert_mat *gate = &l->proj[MFI_EXPERT_GATE], *up = &l->proj[MFI_EXPERT_UP];
    mfi_metal_mm mm = {0};
    add_proj(&mm, 0, gate);
    if (!l->interleaved && !gate->transposed && !up->transposed &&
        mfi_qtype_equal(gate->type, up->type)) {
        add_proj(&mm, 1, up);
        mm.glu = glu_kind(s);
        mm.glu_alpha = s->glu_alpha;
        mm.glu_limit = s->glu_limit;
        return multiply(m, gate, &mm, op->src[0], MFI_BUF_EG, step, err);
    }
    MFI_TRY(
        multiply(m, gate, &mm, op->src[0], l->interleaved ? MFI_BUF_EU : MFI_BUF_EG, step, err));
    if (!l->interleaved) {
        mm = (mfi_metal_mm){0};
        add_proj(&mm, 0, up);
        MFI_TRY(multiply(m, up, &mm, op->src[0], MFI_BUF_EU, step, err));
    }
    return activate(m, l->interleaved, step, err);
}

mf_status mfi_metal_experts(mfi_metal *m, const mfi_op *op, const mfi_step *step, mf_error *err)
{
    const mfi_expert_layout *l = &m->p->experts[op->layer];
    const mfi_expert_mat *down = &l->proj[MFI_EXPERT_DOWN];
    mfi_metal_mm mm = {.by_pair = true};
    if (!mfi_metal_looks(m, op))
        MFI_TRY(take_work(m, step, err));
    if (m->n_items == 0)
        return MF_OK;
    MFI_TRY(gate_up(m, op, l, step, err));
    add_proj(&mm, 0, down);
    return multiply(m, down, &mm, MFI_BUF_EG, op->dst[0], step, err);
}
