/* Ops over rows: embedding, norms, products, sums, routing. Workers share the rows of a weight
 * (products) or the tokens (everything else); no worker writes what another reads within an op. */
#include <math.h>

#include "backend/cpu/cpu_int.h"

#define MATMUL_GRAIN 16 /* rows: a panel of the integer products, a cache line of outputs */

static void scale_row(float *x, uint32_t n, float factor)
{
    for (uint32_t i = 0; factor != 1 && i < n; i++)
        x[i] *= factor;
}

static void embed_rows(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    const mfi_mat *w = &j->cpu->mats[j->op->w[0]];
    uint32_t begin, end;
    mfi_pool_range(j->n_rows, 1, worker, n_workers, &begin, &end);
    for (uint32_t t = begin; t < end; t++) {
        float *row = mfi_cpu_row(j->cpu, j->op->dst[0], t);
        j->cpu->k->get_row(w, (uint32_t)j->step->tokens[t], row);
        scale_row(row, w->cols, j->cpu->p->shape.embed_scale);
    }
}

void mfi_cpu_embed(const mfi_cpu_job *job)
{
    mfi_cpu_dispatch(job, embed_rows, job->n_rows);
}

static void rope_rows(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    uint32_t begin, end, half = j->cpu->p->shape.n_rot / 2;
    double factor = j->cpu->p->shape.rope.attn_factor;
    mfi_pool_range(j->n_rows, 1, worker, n_workers, &begin, &end);
    for (uint32_t t = begin; t < end; t++) {
        float *cosines = mfi_cpu_row(j->cpu, j->op->dst[0], t), *sines = cosines + half;
        uint32_t pos = mfi_step_pos(j->step, t);
        for (uint32_t i = 0; i < half; i++) {
            /* In double: at a million positions a float angle is off by a tenth of a radian. */
            double angle = (double)pos * j->cpu->inv_freq[i];
            cosines[i] = (float)(cos(angle) * factor);
            sines[i] = (float)(sin(angle) * factor);
        }
    }
}

void mfi_cpu_rope_table(const mfi_cpu_job *job)
{
    mfi_cpu_dispatch(job, rope_rows, job->n_rows);
}

static void rmsnorm_rows(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    const mfi_cpu *cpu = j->cpu;
    uint32_t begin, end;
    float eps = j->op->n ? cpu->p->shape.latent_eps : cpu->p->shape.eps;
    mfi_pool_range(j->n_rows, 1, worker, n_workers, &begin, &end);
    for (uint32_t t = begin; t < end; t++) {
        uint32_t from = j->op->head ? j->step->head_rows[t] : t;
        cpu->k->rmsnorm(mfi_cpu_row(cpu, j->op->src[0], from), mfi_cpu_vector(cpu, j->op->w[0]),
                        eps, cpu->mats[j->op->w[0]].cols, mfi_cpu_row(cpu, j->op->dst[0], t));
    }
}

void mfi_cpu_rmsnorm(const mfi_cpu_job *job)
{
    mfi_cpu_dispatch(job, rmsnorm_rows, job->n_rows);
}

static void quantize_rows(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    uint32_t begin, end, cols = j->op->w[0];
    mfi_pool_range(j->n_rows, 1, worker, n_workers, &begin, &end);
    for (uint32_t t = begin; t < end; t++) {
        mfi_q8 q = mfi_cpu_forms(j->cpu, j->op->src[0], t, cols);
        j->cpu->k->quantize_q8(mfi_cpu_row(j->cpu, j->op->src[0], t), cols, &q);
    }
}

void mfi_cpu_quantize(const mfi_cpu_job *job)
{
    mfi_cpu_dispatch(job, quantize_rows, job->n_rows);
}

/* Weight i of the op and this worker's rows of it. */
static mfi_mat weight_of(const mfi_cpu_job *j, uint32_t i, uint32_t worker, uint32_t n_workers,
                         uint32_t *begin, uint32_t *end)
{
    mfi_mat w = j->cpu->mats[j->op->w[i]];
    mfi_pool_range(w.rows, MATMUL_GRAIN, worker, n_workers, begin, end);
    return w;
}

static void matmul_rows(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    const mfi_cpu *cpu = j->cpu;
    uint32_t src = j->op->src[0];
    for (uint32_t i = 0; i < j->op->n; i++) {
        uint32_t begin, end, next_end;
        mfi_mat mat = weight_of(j, i, worker, n_workers, &begin, &end), after;
        const mfi_mat *w = &mat;
        if (i + 1 < j->op->n) {
            after = weight_of(j, i + 1, worker, n_workers, &mat.next_row, &next_end);
            mat.next = mat.next_row < next_end ? &after : NULL;
        }
        float *y = mfi_cpu_row(cpu, j->op->dst[i], 0);
        size_t ldy = cpu->p->bufs[j->op->dst[i]].width;
        if (begin == end)
            continue;
        const uint32_t bits = cpu->p->weights[j->op->w[i]].x_bits;
        if (bits) {
            mfi_q8 x = mfi_cpu_form(cpu, src, 0, w->cols, bits);
            cpu->k->matmul_q8(w, &x, j->n_rows, y, ldy, begin, end);
        } else {
            cpu->k->matmul_f32(w, mfi_cpu_row(cpu, src, 0), cpu->p->bufs[src].width, j->n_rows, y,
                               ldy, begin, end);
        }
    }
}

void mfi_cpu_matmul(const mfi_cpu_job *job)
{
    uint32_t rows = 0;
    for (uint32_t i = 0; i < job->op->n; i++)
        rows += job->cpu->mats[job->op->w[i]].rows;
    mfi_cpu_dispatch(job, matmul_rows, rows / MATMUL_GRAIN);
}

static void bias_rows(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    uint32_t begin, end;
    mfi_pool_range(j->n_rows, 1, worker, n_workers, &begin, &end);
    for (uint32_t t = begin; t < end; t++)
        for (uint32_t i = 0; i < j->op->n; i++)
            j->cpu->k->add(mfi_cpu_row(j->cpu, j->op->dst[i], t),
                           mfi_cpu_vector(j->cpu, j->op->w[i]), j->cpu->mats[j->op->w[i]].cols);
}

void mfi_cpu_bias(const mfi_cpu_job *job)
{
    mfi_cpu_dispatch(job, bias_rows, job->n_rows);
}

static void add_rows(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    uint32_t begin, end;
    mfi_pool_range(j->n_rows, 1, worker, n_workers, &begin, &end);
    for (uint32_t t = begin; t < end; t++)
        mfi_cpu_add_residual(j->cpu, mfi_cpu_row(j->cpu, j->op->dst[0], t),
                             mfi_cpu_row(j->cpu, j->op->src[0], t),
                             j->cpu->p->bufs[j->op->dst[0]].width);
}

void mfi_cpu_add(const mfi_cpu_job *job)
{
    mfi_cpu_dispatch(job, add_rows, job->n_rows);
}

static void scale_rows(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    uint32_t begin, end, buf = j->op->dst[0];
    mfi_pool_range(j->n_rows, 1, worker, n_workers, &begin, &end);
    for (uint32_t t = begin; t < end; t++)
        scale_row(mfi_cpu_row(j->cpu, buf, t), j->cpu->p->bufs[buf].width,
                  j->cpu->p->shape.logit_scale);
}

void mfi_cpu_scale(const mfi_cpu_job *job)
{
    mfi_cpu_dispatch(job, scale_rows, job->n_rows);
}

static void glu_rows(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    uint32_t begin, end;
    mfi_pool_range(j->n_rows, 1, worker, n_workers, &begin, &end);
    for (uint32_t t = begin; t < end; t++)
        mfi_cpu_glu_row(j->cpu, mfi_cpu_row(j->cpu, j->op->src[0], t),
                        mfi_cpu_row(j->cpu, j->op->src[1], t), j->cpu->p->bufs[j->op->dst[0]].width,
                        mfi_cpu_row(j->cpu, j->op->dst[0], t));
}

void mfi_cpu_glu(const mfi_cpu_job *job)
{
    mfi_cpu_dispatch(job, glu_rows, job->n_rows);
}

static void route_rows(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    const mfi_shape *s = &j->cpu->p->shape;
    uint16_t *ids = (uint16_t *)mfi_cpu_row(j->cpu, j->op->dst[0], 0);
    const float *correction =
        j->op->w[0] == MFI_WEIGHT_NONE ? NULL : mfi_cpu_vector(j->cpu, j->op->w[0]);
    uint32_t begin, end;
    mfi_pool_range(j->n_rows, 1, worker, n_workers, &begin, &end);
    for (uint32_t t = begin; t < end; t++)
        j->cpu->k->route(&s->routing, mfi_cpu_row(j->cpu, j->op->src[0], t), correction,
                         s->n_experts, s->top_k, ids + (size_t)t * s->top_k,
                         mfi_cpu_row(j->cpu, j->op->dst[1], t));
}

void mfi_cpu_route(const mfi_cpu_job *job)
{
    mfi_cpu_dispatch(job, route_rows, job->n_rows);
}
