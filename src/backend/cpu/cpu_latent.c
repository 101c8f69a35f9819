/* Multi-head latent attention (arXiv 2405.04434, 2.1) in its absorbed form. The cache has, for a
 * position, one normed latent and one rotated key for all heads. Queries are taken into the latent
 * space and attend there; what comes out is taken to the values' space. So no key and no value is
 * ever made, and a token costs the same operations in the same order alone as in a prompt.
 *
 * The two products with kv_b are done head by head on the weights as stored: expanding them would
 * cost 4 bytes an element, and a prompt's chunk decodes each row once for all its tokens anyway.
 * Workers share heads, or tokens and heads. */
#include <string.h>

#include "backend/cpu/cpu_int.h"

static void rotate(const mfi_cpu *cpu, float *x, const float *cosines)
{
    uint32_t n_rot = cpu->p->shape.n_rot;
    if (cpu->p->shape.rope_pairs)
        cpu->k->rope_pairs(x, n_rot, cosines, cosines + n_rot / 2);
    else
        cpu->k->rope_half(x, n_rot, cosines, cosines + n_rot / 2);
}

static void prep_tokens(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    const mfi_cpu *cpu = j->cpu;
    const mfi_shape *s = &cpu->p->shape;
    const mfi_op *op = j->op;
    uint32_t begin, end, width = s->latent_kv + s->n_rot;
    mfi_pool_range(j->n_rows, 1, worker, n_workers, &begin, &end);
    for (uint32_t t = begin; t < end; t++) {
        const float *cosines = mfi_cpu_row(cpu, op->src[2], t);
        float *kva = mfi_cpu_row(cpu, op->src[1], t);
        float *q = mfi_cpu_row(cpu, op->src[0], t) + s->nope_dim;
        uint8_t *cache = mfi_step_seq(j->step, t)->mem[op->layer].kv;
        cache += (size_t)mfi_step_pos(j->step, t) * cpu->p->state[op->layer].kv_pos_bytes;
        cpu->k->rmsnorm(kva, mfi_cpu_vector(cpu, op->w[0]), s->latent_eps, s->latent_kv, kva);
        rotate(cpu, kva + s->latent_kv, cosines);
        cpu->k->store_row(kva, width, cpu->p->kv_type[0], cache);
        for (uint32_t h = 0; h < s->n_head; h++, q += s->head_dim)
            rotate(cpu, q, cosines);
    }
}

void mfi_cpu_latent_prep(const mfi_cpu_job *job)
{
    mfi_cpu_dispatch(job, prep_tokens, job->n_rows);
}

/* score = q_nope . (W_k latent) = (W_k^T q_nope) . latent */
static void absorb_heads(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    const mfi_cpu *cpu = j->cpu;
    const mfi_shape *s = &cpu->p->shape;
    const mfi_mat *w = &cpu->mats[j->op->w[0]];
    uint32_t begin, end, src = j->op->src[0], dst = j->op->dst[0];
    uint32_t kv = s->latent_kv, width = kv + s->n_rot;
    size_t ldq = cpu->p->bufs[src].width, ldy = cpu->p->bufs[dst].width;
    mfi_pool_range(s->n_head, 1, worker, n_workers, &begin, &end);
    for (uint32_t h = begin; h < end; h++) {
        const float *q = mfi_cpu_row(cpu, src, 0) + (size_t)h * s->head_dim;
        float *y = mfi_cpu_row(cpu, dst, 0) + (size_t)h * width;
        if (j->op->n) /* y[h * kv ...] is where the head begins */
            cpu->k->matmul_f32(w, q, ldq, j->n_rows, y - (size_t)h * kv, ldy, h * kv, (h + 1) * kv);
        else
            cpu->k->matmul_t(w, q, ldq, j->n_rows, y, ldy, h * s->nope_dim, s->nope_dim);
        for (uint32_t t = 0; t < j->n_rows; t++)
            memcpy(y + t * ldy + kv, q + t * ldq + s->nope_dim, s->n_rot * sizeof *y);
    }
}

void mfi_cpu_latent_absorb(const mfi_cpu_job *job)
{
    mfi_cpu_dispatch(job, absorb_heads, job->cpu->p->shape.n_head);
}

static void attn_unit(const mfi_cpu_job *j, uint32_t t, uint32_t n_t, uint32_t h, uint32_t n_h)
{
    const mfi_shape *s = &j->cpu->p->shape;
    mfi_attn a = mfi_cpu_attn_of(j, t, n_t, h, n_h, s->latent_kv + s->n_rot, s->latent_kv);
    a.v = a.k;
    a.dim = s->latent_kv + s->n_rot;
    a.dim_v = s->latent_kv;
    j->cpu->k->attend(&a);
}

static void attn_units(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    mfi_cpu_attn_deal(j, j->cpu->p->shape.n_head, 1, worker, n_workers, attn_unit);
}

void mfi_cpu_latent_attn(const mfi_cpu_job *job)
{
    mfi_cpu_dispatch(job, attn_units, job->n_rows * job->cpu->p->shape.n_head);
}

/* sum_j p_j (W_v latent_j) = W_v (sum_j p_j latent_j) */
static void expand_heads(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    const mfi_cpu *cpu = j->cpu;
    const mfi_shape *s = &cpu->p->shape;
    uint32_t begin, end, src = j->op->src[0], dst = j->op->dst[0];
    mfi_pool_range(s->n_head, 1, worker, n_workers, &begin, &end);
    for (uint32_t h = begin; h < end; h++)
        cpu->k->matmul_f32(&cpu->mats[j->op->w[0]],
                           mfi_cpu_row(cpu, src, 0) + (size_t)h * s->latent_kv,
                           cpu->p->bufs[src].width, j->n_rows, mfi_cpu_row(cpu, dst, 0),
                           cpu->p->bufs[dst].width, h * s->v_dim, (h + 1) * s->v_dim);
}

void mfi_cpu_latent_expand(const mfi_cpu_job *job)
{
    mfi_cpu_dispatch(job, expand_heads, job->cpu->p->shape.n_head);
}
