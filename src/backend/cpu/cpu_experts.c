/* Routed experts: those that are in memory now, each for all tokens that chose it, and the sum at
 * the end.
 *
 * EXPERTS may run several times for one layer, with other experts each time, as they arrive; every
 * (token, rank) pair has an output row of its own, and COMBINE adds them in rank order. So neither
 * order of arrival nor grouping changes a bit. Workers share the rows of every expert's matrices:
 * each reads its own part of the weights once for all tokens. */
#include <string.h>

#include "backend/cpu/cpu_int.h"

#define EXPERT_GRAIN 32 /* rows: whole blocks of the 8-bit form belong to one worker */
#define PIECE        64 /* elements taken apart or widened at a time */

static mfi_mat expert_mat(const mfi_expert_mat *m, const uint8_t *data)
{
    mfi_mat mat = {.type = m->type, .rows = m->rows, .cols = m->cols};
    for (uint32_t p = 0; p < mfi_quant_n_planes(m->type); p++)
        mat.planes[p] = data + m->offset[p];
    return mat;
}

/* A matrix whose rows are read next, from `row` on: it is fetched while another is multiplied. */
typedef struct coming {
    const mfi_expert_mat *m; /* NULL: not known */
    const uint8_t *data;
    uint32_t row;
} coming;

/* y[p][..] for the outputs [begin, end) of a matrix, n rows from row `row` of buffer `src` on. */
static void multiply(const mfi_cpu *cpu, const mfi_expert_mat *m, const uint8_t *data, coming next,
                     uint32_t x_bits, uint32_t src, uint32_t row, uint32_t n, float *y, size_t ldy,
                     uint32_t begin, uint32_t end)
{
    mfi_mat mat = expert_mat(m, data), after;
    if (next.m) {
        after = expert_mat(next.m, next.data);
        mat.next = &after;
        mat.next_row = next.row;
    }
    uint32_t ldx = m->transposed ? m->rows : m->cols;
    if (x_bits) {
        mfi_q8 x = mfi_cpu_form(cpu, src, row, ldx, x_bits);
        cpu->k->matmul_q8(&mat, &x, n, y, ldy, begin, end);
        return;
    }
    (m->transposed ? cpu->k->matmul_cols : cpu->k->matmul_f32)(&mat, mfi_cpu_row(cpu, src, row),
                                                               ldx, n, y, ldy, begin, end);
}

/* y[begin, end) += the matrix's bias, if it has one. */
static void add_bias(const mfi_cpu *cpu, const mfi_expert_mat *m, const uint8_t *data, float *y,
                     uint32_t begin, uint32_t end)
{
    float wide[PIECE];
    for (uint32_t at = begin, n; m->n_bias && at < end; at += n) {
        n = MFI_MIN(end - at, PIECE);
        const void *from = data + m->bias_offset + (size_t)at * (m->bias_type.bits / 8);
        mfi_dequant_row(m->bias_type, &from, n, wide);
        cpu->k->add(y + at, wide, n);
    }
}

static const mfi_expert_layout *layout_of(const mfi_cpu_job *j)
{
    return &j->cpu->p->experts[j->op->layer];
}

/* Brings the inputs of an expert's tokens together; with one token there is nothing to bring. */
static void gather_pairs(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    const mfi_cpu *cpu = j->cpu;
    uint32_t hidden = cpu->p->shape.hidden;
    for (uint32_t i = 0; i < j->step->n_work; i++) {
        const mfi_expert_work *w = &j->step->work[i];
        uint32_t begin, end;
        mfi_pool_range(w->n, 1, worker, n_workers, &begin, &end);
        for (uint32_t p = w->first + begin; p < w->first + end; p++) {
            uint32_t t = j->step->pairs[p].token;
            if (layout_of(j)->in_bits) {
                const uint32_t bits = layout_of(j)->in_bits;
                mfi_q8 from = mfi_cpu_form(cpu, j->op->src[0], t, hidden, bits);
                mfi_q8 to = mfi_cpu_form(cpu, MFI_BUF_EX, p, hidden, bits);
                memcpy(to.q, from.q, hidden);
                memcpy(to.d, from.d, hidden / MFI_Q8_BLOCK * sizeof(float));
                memcpy(to.s, from.s, hidden / MFI_Q8_BLOCK * sizeof(float));
                memcpy(to.h, from.h, hidden / MFI_Q8_HALF * sizeof(int16_t));
                if (bits < 16)
                    continue;
                memcpy(to.lo, from.lo, hidden);
                memcpy(to.d_fine, from.d_fine, hidden / MFI_Q8_BLOCK * sizeof(float));
                memcpy(to.s_fine, from.s_fine, hidden / MFI_Q8_BLOCK * sizeof(float));
                memcpy(to.h_lo, from.h_lo, hidden / MFI_Q8_HALF * sizeof(int16_t));
            } else {
                memcpy(mfi_cpu_row(cpu, MFI_BUF_EX, p), mfi_cpu_row(cpu, j->op->src[0], t),
                       hidden * sizeof(float));
            }
        }
    }
}

/* Gate and up of n pairs, outputs [begin, end) of each, into EG and EU. */
static void two_products(const mfi_cpu_job *j, const mfi_expert_work *w, coming next, uint32_t src,
                         uint32_t row, uint32_t begin, uint32_t end)
{
    const mfi_cpu *cpu = j->cpu;
    const mfi_expert_layout *l = layout_of(j);
    const uint32_t bufs[2] = {MFI_BUF_EG, MFI_BUF_EU};
    uint32_t width = cpu->p->shape.expert_width;
    for (uint32_t proj = 0; proj < 2; proj++) {
        const mfi_expert_mat *m = &l->proj[proj];
        float *y = mfi_cpu_row(cpu, bufs[proj], w->first);
        coming then =
            proj == MFI_EXPERT_GATE ? (coming){&l->proj[MFI_EXPERT_UP], w->data, begin} : next;
        multiply(cpu, m, w->data, then, l->in_bits, src, row, w->n, y, width, begin, end);
        for (uint32_t p = 0; p < w->n; p++)
            add_bias(cpu, m, w->data, y + (size_t)p * width, begin, end);
    }
    for (uint32_t p = w->first; p < w->first + w->n; p++) {
        float *g = mfi_cpu_row(cpu, MFI_BUF_EG, p) + begin;
        mfi_cpu_glu_row(cpu, g, mfi_cpu_row(cpu, MFI_BUF_EU, p) + begin, end - begin, g);
    }
}

/* The same where one matrix has both, output by output in turn: into EU, then taken apart. */
static void one_product(const mfi_cpu_job *j, const mfi_expert_work *w, coming next, uint32_t src,
                        uint32_t row, uint32_t begin, uint32_t end)
{
    const mfi_cpu *cpu = j->cpu;
    const mfi_expert_layout *l = layout_of(j);
    const mfi_expert_mat *m = &l->proj[MFI_EXPERT_GATE];
    uint32_t width = 2 * cpu->p->shape.expert_width;
    float *y = mfi_cpu_row(cpu, MFI_BUF_EU, w->first);
    next.row *= 2;
    multiply(cpu, m, w->data, next, l->in_bits, src, row, w->n, y, width, 2 * begin, 2 * end);
    for (uint32_t p = 0; p < w->n; p++, y += width) {
        float *out = mfi_cpu_row(cpu, MFI_BUF_EG, w->first + p), gate[PIECE], up[PIECE];
        add_bias(cpu, m, w->data, y, 2 * begin, 2 * end);
        for (uint32_t at = begin, n; at < end; at += n) {
            n = MFI_MIN(end - at, PIECE);
            for (uint32_t i = 0; i < n; i++) {
                gate[i] = y[2 * (at + i)];
                up[i] = y[2 * (at + i) + 1];
            }
            mfi_cpu_glu_row(cpu, gate, up, n, out + at);
        }
    }
}

static void gate_up(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    const mfi_cpu *cpu = j->cpu;
    const mfi_expert_layout *l = layout_of(j);
    uint32_t width = cpu->p->shape.expert_width, begin, end;
    mfi_pool_range(width, EXPERT_GRAIN, worker, n_workers, &begin, &end);
    if (begin == end)
        return;
    for (uint32_t i = 0; i < j->step->n_work; i++) {
        const mfi_expert_work *w = &j->step->work[i];
        bool gathered = j->n_rows > 1;
        uint32_t src = gathered ? (uint32_t)MFI_BUF_EX : j->op->src[0],
                 row = gathered ? w->first : 0;
        coming next = {0};
        if (i + 1 < j->step->n_work)
            next = (coming){&l->proj[MFI_EXPERT_GATE], w[1].data, begin};
        (l->interleaved ? one_product : two_products)(j, w, next, src, row, begin, end);
        for (uint32_t p = w->first; l->mid_bits && p < w->first + w->n; p++) {
            mfi_q8 q = mfi_cpu_form(cpu, MFI_BUF_EG, p, width, l->mid_bits);
            q = mfi_q8_from(q, begin);
            cpu->k->quantize_q8(mfi_cpu_row(cpu, MFI_BUF_EG, p) + begin, end - begin, &q);
        }
    }
}

static void down(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    const mfi_cpu *cpu = j->cpu;
    const mfi_expert_layout *l = layout_of(j);
    const mfi_expert_mat *m = &l->proj[MFI_EXPERT_DOWN];
    uint32_t hidden = cpu->p->shape.hidden, begin, end;
    mfi_pool_range(hidden, EXPERT_GRAIN, worker, n_workers, &begin, &end);
    if (begin == end)
        return;
    for (uint32_t i = 0; i < j->step->n_work; i++) {
        const mfi_expert_work *w = &j->step->work[i];
        float *y = mfi_cpu_row(cpu, j->op->dst[0], w->first);
        coming next = {0};
        if (i + 1 < j->step->n_work)
            next = (coming){m, w[1].data, begin};
        multiply(cpu, m, w->data, next, l->mid_bits, MFI_BUF_EG, w->first, w->n, y, hidden, begin,
                 end);
        for (uint32_t p = 0; p < w->n; p++)
            add_bias(cpu, m, w->data, y + (size_t)p * hidden, begin, end);
    }
}

void mfi_cpu_experts(const mfi_cpu_job *job)
{
    const mfi_shape *s = &job->cpu->p->shape;
    if (job->step->n_work == 0)
        return;
    if (job->n_rows > 1)
        mfi_cpu_dispatch(job, gather_pairs, job->n_rows);
    mfi_cpu_dispatch(job, gate_up, s->expert_width / EXPERT_GRAIN);
    mfi_cpu_dispatch(job, down, s->hidden / EXPERT_GRAIN);
}

/* Shared expert first (if there is one), then the routed ones in rank order, then the residual
 * stream. */
static void combine_rows(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    const mfi_cpu *cpu = j->cpu;
    const mfi_op *op = j->op;
    uint32_t begin, end, top_k = cpu->p->shape.top_k, hidden = cpu->p->shape.hidden;
    mfi_pool_range(j->n_rows, 1, worker, n_workers, &begin, &end);
    for (uint32_t t = begin; t < end; t++) {
        float *sum = mfi_cpu_row(cpu, op->src[2], t);
        const float *weights = mfi_cpu_row(cpu, op->src[1], t);
        bool gated = op->n == MFI_COMBINE_GATED;
        float shared = gated ? mfi_sigmoid(mfi_cpu_row(cpu, op->src[3], t)[0]) : 1;
        for (uint32_t i = 0; i < hidden; i++)
            sum[i] = op->n == MFI_COMBINE_ROUTED ? 0 : sum[i] * shared;
        for (uint32_t r = 0; r < top_k; r++)
            cpu->k->axpy(sum, weights[r],
                         mfi_cpu_row(cpu, op->src[0], j->step->pair_of[t * top_k + r]), hidden);
        mfi_cpu_add_residual(cpu, mfi_cpu_row(cpu, op->dst[0], t), sum, hidden);
    }
}

void mfi_cpu_combine(const mfi_cpu_job *job)
{
    mfi_cpu_dispatch(job, combine_rows, job->n_rows);
}
