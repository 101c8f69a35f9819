/* EXPERTS on a CUDA device. What is to be done comes as lists in device memory: tiles of pairs with
 * their slots, the token of each pair, the pair of each choice. Either the step brings them, where
 * experts are streamed, or ROUTE has made them there. Called on the engine's thread. */
#include <string.h>

#include "backend/cuda/cuda_int.h"

bool mfi_cuda_small_tiles(const mfi_cuda *c, uint32_t n_tok)
{
    const mfi_shape *s = &c->p->shape;
    return (uint64_t)n_tok * s->top_k <= (uint64_t)s->n_experts * MFI_CUDA_TILE_SMALL;
}

uint32_t mfi_cuda_n_items(const mfi_cuda *c, uint32_t n_tok)
{
    const mfi_shape *s = &c->p->shape;
    uint32_t pairs = n_tok * s->top_k;
    uint32_t tile = mfi_cuda_small_tiles(c, n_tok) ? MFI_CUDA_TILE_SMALL : MFI_CUDA_TILE;
    return MFI_MIN(pairs, s->n_experts) + pairs / tile;
}

/* The lists of a few pairs, by value. */
static mf_status put_few(mfi_cuda *c, const mfi_step *step, uint32_t *n_items, mf_error *err)
{
    mfi_cuda_lists l = {.n_items = step->n_work, .n_pairs = c->p->shape.top_k};
    for (uint32_t i = 0; i < l.n_items; i++)
        l.item[i] = (mfi_cuda_item){step->work[i].data, step->work[i].first, step->work[i].n};
    for (uint32_t i = 0; i < l.n_pairs; i++) {
        l.x_row[i] = step->pairs[i].token;
        l.pair_of[i] = step->pair_of[i];
    }
    MFI_CUDA_TRY(mfi_cuda_put_lists(&l, c->items, c->x_row, c->pair_of, c->stream));
    *n_items = l.n_items;
    return MF_OK;
}

mf_status mfi_cuda_take_work(mfi_cuda *c, const mfi_step *step, uint32_t *n_items, mf_error *err)
{
    uint32_t tile = mfi_cuda_small_tiles(c, step->n_tok) ? MFI_CUDA_TILE_SMALL : MFI_CUDA_TILE;
    uint32_t n_pairs = step->n_tok * c->p->shape.top_k, n = 0;
    if (step->n_tok == 1 && n_pairs <= MFI_CUDA_LIST_MAX) /* experts are distinct: a pair each */
        return put_few(c, step, n_items, err);
    MFI_CUDA_TRY(cudaEventSynchronize(c->lists)); /* the last ones may be under way */
    for (uint32_t i = 0; i < step->n_work; i++)
        for (uint32_t at = 0; at < step->work[i].n; at += tile) {
            MFI_ASSERT(n < c->n_items_max);
            c->host_items[n++] = (mfi_cuda_item){step->work[i].data, step->work[i].first + at,
                                                 MFI_MIN(step->work[i].n - at, tile)};
        }
    for (uint32_t i = 0; i < n_pairs; i++)
        c->host_rows[i] = step->pairs[i].token;
    uint32_t *pair_of = c->host_rows + (size_t)c->p->chunk * c->p->shape.top_k;
    memcpy(pair_of, step->pair_of, n_pairs * sizeof *pair_of);
    MFI_CUDA_TRY(cudaMemcpyAsync(c->items, c->host_items, n * sizeof *c->items,
                                 cudaMemcpyHostToDevice, c->stream));
    MFI_CUDA_TRY(cudaMemcpyAsync(c->x_row, c->host_rows, n_pairs * sizeof *c->x_row,
                                 cudaMemcpyHostToDevice, c->stream));
    MFI_CUDA_TRY(cudaMemcpyAsync(c->pair_of, pair_of, n_pairs * sizeof *c->pair_of,
                                 cudaMemcpyHostToDevice, c->stream));
    MFI_CUDA_TRY(cudaEventRecord(c->lists, c->stream));
    *n_items = n;
    return MF_OK;
}

/* A product of the items with a projection; y are rows by pair. */
static mfi_cuda_mm product_of(const mfi_cuda *c, const mfi_expert_layout *l, uint32_t proj,
                              const mfi_step *step, uint32_t n_items)
{
    const mfi_expert_mat *m = &l->proj[proj];
    mfi_cuda_mm mm = {.n_mats = 1,
                      .n_tok = step->n_tok,
                      .items = c->items,
                      .n_items = n_items,
                      .split = c->split,
                      .small_tiles = mfi_cuda_small_tiles(c, step->n_tok),
                      .mat = {mfi_cuda_mat_of(m->type, m->rows, m->cols)}};
    for (uint32_t p = 0; p < mfi_quant_n_planes(m->type); p++)
        mm.mat[0].plane[p] = (const uint8_t *)(uintptr_t)m->offset[p];
    mm.bias[0] = m->n_bias > 0;
    memcpy(&mm.bias_type[0], &m->bias_type, sizeof mm.bias_type[0]);
    mm.bias_offset[0] = m->bias_offset;
    return mm;
}

static void put(const mfi_cuda *c, mfi_cuda_mm *mm, uint32_t src, uint32_t dst)
{
    mm->x = mfi_cuda_row(c, src);
    mm->ldx = c->p->bufs[src].width;
    mm->y[0] = mfi_cuda_row(c, dst);
    mm->ldy[0] = c->p->bufs[dst].width;
}

static void add_glu(const mfi_cuda *c, mfi_cuda_mm *mm)
{
    const mfi_shape *s = &c->p->shape;
    mm->glu = s->glu == MFI_GLU_CLAMPED ? MFI_CUDA_GLU_CLAMPED : MFI_CUDA_GLU_SILU;
    mm->glu_alpha = s->glu_alpha;
    mm->glu_limit = s->glu_limit;
}

static cudaError_t multiply(const mfi_expert_mat *m, const mfi_cuda_mm *mm, cudaStream_t s)
{
    return m->transposed ? mfi_cuda_matmul_cols(mm, s) : mfi_cuda_matmul(mm, s);
}

/* Gate and up into EG: at once where both are of one type, else one after the other. */
static mf_status gate_up(mfi_cuda *c, const mfi_op *op, const mfi_expert_layout *l,
                         const mfi_step *step, uint32_t n_items, mf_error *err)
{
    const mfi_shape *s = &c->p->shape;
    const mfi_expert_mat *gate = &l->proj[MFI_EXPERT_GATE], *up = &l->proj[MFI_EXPERT_UP];
    uint32_t n_pairs = step->n_tok * s->top_k, width = s->expert_width;
    mfi_cuda_mm mm = product_of(c, l, MFI_EXPERT_GATE, step, n_items), other, glu = {0};
    mm.x_row = c->x_row;
    put(c, &mm, op->src[0], l->interleaved ? MFI_BUF_EU : MFI_BUF_EG);
    add_glu(c, &glu);
    if (!l->interleaved) {
        other = product_of(c, l, MFI_EXPERT_UP, step, n_items);
        other.x_row = c->x_row;
        put(c, &other, op->src[0], MFI_BUF_EU);
    }
    if (!l->interleaved && !gate->transposed && mfi_qtype_equal(gate->type, up->type)) {
        mm.mat[1] = other.mat[0];
        mm.bias[1] = other.bias[0];
        mm.bias_type[1] = other.bias_type[0];
        mm.bias_offset[1] = other.bias_offset[0];
        mm.n_mats = 2;
        add_glu(c, &mm);
        MFI_CUDA_TRY(mfi_cuda_matmul(&mm, c->stream));
        return MF_OK;
    }
    MFI_CUDA_TRY(multiply(gate, &mm, c->stream));
    if (!l->interleaved)
        MFI_CUDA_TRY(multiply(up, &other, c->stream));
    /* Rows of experts that are done or still to come are changed too, and nobody reads them. */
    const float *eg = mfi_cuda_row(c, MFI_BUF_EG), *eu = mfi_cuda_row(c, MFI_BUF_EU);
    uint32_t ldg = c->p->bufs[MFI_BUF_EG].width, ldu = c->p->bufs[MFI_BUF_EU].width;
    MFI_CUDA_TRY(mfi_cuda_glu(l->interleaved ? eu : eg, l->interleaved ? ldu : ldg, eu, ldu,
                              l->interleaved, glu.glu, glu.glu_alpha, glu.glu_limit, width, n_pairs,
                              mfi_cuda_row(c, MFI_BUF_EG), ldg, c->stream));
    return MF_OK;
}

mf_status mfi_cuda_experts(mfi_cuda *c, const mfi_op *op, const mfi_op **combine,
                           const mfi_step *step, mf_error *err)
{
    const mfi_expert_layout *l = &c->p->experts[op->layer];
    const mfi_expert_mat *last = &l->proj[MFI_EXPERT_DOWN];
    uint32_t n_items = mfi_cuda_n_items(c, step->n_tok), top_k = c->p->shape.top_k;
    bool found = mfi_cuda_looks(c, op);
    if (!found)
        MFI_TRY(mfi_cuda_take_work(c, step, &n_items, err));
    else if (step->n_tok == 1)
        n_items = top_k;
    if (n_items == 0)
        return MF_OK;
    MFI_TRY(gate_up(c, op, l, step, n_items, err));
    mfi_cuda_mm mm = product_of(c, l, MFI_EXPERT_DOWN, step, n_items);
    mm.n_x = step->n_tok * top_k;
    put(c, &mm, MFI_BUF_EG, op->dst[0]);
    if (combine && found && step->n_tok == 1 && !last->transposed &&
        mfi_cuda_down_fits(&mm, top_k)) {
        mfi_cuda_combine sum = mfi_cuda_combine_of(c, *combine, 1);
        *combine = NULL;
        MFI_CUDA_TRY(mfi_cuda_down(&mm, &sum, c->stream));
        return MF_OK;
    }
    MFI_CUDA_TRY(multiply(last, &mm, c->stream));
    return MF_OK;
}
