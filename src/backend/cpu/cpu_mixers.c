/* Token mixers: gated attention over the KV cache, and Gated DeltaNet in its recurrent form.
 * Workers share heads (or channels, or tokens where those are independent); a head's tokens run in
 * order on one worker, so neither chunking nor the number of workers changes a bit. */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu_int.h"

/* ---- attention ---- */

/* A head of q (w[0]) or of k (w[1]), in place; the sines follow the cosines. */
static void prep_head(const mfi_cpu_job *j, uint32_t weight, const float *cosines, float *x)
{
    const mfi_cpu *cpu = j->cpu;
    const mfi_shape *s = &cpu->p->shape;
    bool norm = j->op->w[weight] != MFI_WEIGHT_NONE, after = j->op->n & MFI_PREP_NORM_AFTER;
    const float *w = norm ? mfi_cpu_vector(cpu, j->op->w[weight]) : NULL;
    if (norm && !after)
        cpu->k->rmsnorm(x, w, s->eps, s->head_dim, x);
    if (!(j->op->n & MFI_PREP_UNROTATED))
        cpu->k->rope_half(x, s->n_rot, cosines, cosines + s->n_rot / 2);
    if (norm && after)
        cpu->k->rmsnorm(x, w, s->eps, s->head_dim, x);
}

static void prep_token(const mfi_cpu_job *j, uint32_t t)
{
    const mfi_cpu *cpu = j->cpu;
    const mfi_shape *s = &cpu->p->shape;
    const mfi_op *op = j->op;
    uint32_t hd = s->head_dim, stride = hd * (s->attn_gate ? 2 : 1), kvw = s->n_kv_head * hd;
    const float *cosines = mfi_cpu_row(cpu, op->src[3], t);
    float *q = mfi_cpu_row(cpu, op->src[0], t), *key = mfi_cpu_row(cpu, op->src[1], t);
    for (uint32_t h = 0; h < s->n_head; h++, q += stride)
        prep_head(j, 0, cosines, q);
    const mfi_layer_state *st = &cpu->p->state[op->layer];
    uint32_t pos = mfi_step_pos(j->step, t);
    size_t row = st->kv_ring ? pos % st->kv_ring : pos;
    float *cache = mfi_step_seq(j->step, t)->mem[op->layer].kv + row * 2 * kvw;
    memcpy(cache, key, kvw * sizeof *cache);
    for (uint32_t h = 0; h < s->n_kv_head; h++, cache += hd)
        prep_head(j, 1, cosines, cache);
    memcpy(cache, mfi_cpu_row(cpu, op->src[2], t), kvw * sizeof *cache);
}

static void prep_tokens(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    uint32_t begin, end;
    mfi_pool_range(j->n_rows, 1, worker, n_workers, &begin, &end);
    for (uint32_t t = begin; t < end; t++)
        prep_token(j, t);
}

void mfi_cpu_attn_prep(const mfi_cpu_job *job)
{
    mfi_cpu_dispatch(job, prep_tokens, job->n_rows);
}

/* Later tokens look back further, so (token, head) units are dealt round rather than in ranges. */
static void attn_units(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    const mfi_cpu *cpu = j->cpu;
    const mfi_shape *s = &cpu->p->shape;
    uint32_t hd = s->head_dim, stride = hd * (s->attn_gate ? 2 : 1), kvw = s->n_kv_head * hd;
    const float *sinks = j->op->n ? mfi_cpu_vector(cpu, j->op->w[0]) : NULL;
    const mfi_layer_state *st = &cpu->p->state[j->op->layer];
    float scale = s->attn_scale;
    for (uint32_t u = worker; u < j->n_rows * s->n_head; u += n_workers) {
        uint32_t t = u / s->n_head, h = u % s->n_head;
        uint32_t kv_head = h / (s->n_head / s->n_kv_head);
        const float *kv = mfi_step_seq(j->step, t)->mem[j->op->layer].kv;
        const float *q = mfi_cpu_row(cpu, j->op->src[0], t) + (size_t)h * stride;
        float *out = mfi_cpu_row(cpu, j->op->dst[0], t) + (size_t)h * hd;
        /* What the token sees ends with itself. */
        uint32_t end = mfi_step_pos(j->step, t) + 1,
                 n_kv = st->window ? MFI_MIN(end, st->window) : end;
        uint32_t ring = st->kv_ring ? st->kv_ring : end;
        cpu->k->attend_ring(q, kv + (size_t)kv_head * hd, 2 * (size_t)kvw,
                            kv + kvw + (size_t)kv_head * hd, 2 * (size_t)kvw, (end - n_kv) % ring,
                            n_kv, ring, hd, hd, scale, sinks ? sinks[h] : -INFINITY, out);
        if (s->attn_gate)
            cpu->k->sigmoid_mul(out, q + hd, hd);
    }
}

void mfi_cpu_attn(const mfi_cpu_job *job)
{
    mfi_cpu_dispatch(job, attn_units, job->n_rows * job->cpu->p->shape.n_head);
}

/* ---- Gated DeltaNet ---- */

#define CONV_GRAIN 16 /* channels: a cache line */

static uint32_t gdn_channels(const mfi_shape *s)
{
    return 2 * s->gdn_k_heads * s->gdn_k_dim + s->gdn_v_heads * s->gdn_v_dim;
}

static void conv_channels(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    const mfi_shape *s = &j->cpu->p->shape;
    uint32_t begin, end, n_ch = gdn_channels(s);
    mfi_pool_range(n_ch, CONV_GRAIN, worker, n_workers, &begin, &end);
    for (uint32_t t = 0; t < j->n_rows; t++) {
        float *x = mfi_cpu_row(j->cpu, j->op->src[0], t);
        j->cpu->k->conv_silu(mfi_step_seq(j->step, t)->mem[j->op->layer].recurrent,
                             mfi_cpu_vector(j->cpu, j->op->w[0]), x, n_ch, s->conv_kernel, begin,
                             end, x);
    }
}

void mfi_cpu_gdn_conv(const mfi_cpu_job *job)
{
    mfi_cpu_dispatch(job, conv_channels, gdn_channels(&job->cpu->p->shape) / CONV_GRAIN);
}

/* One value head over all tokens of the step, in order within each sequence. */
static void gdn_head(const mfi_cpu_job *j, uint32_t head)
{
    const mfi_cpu *cpu = j->cpu;
    const mfi_kernels *k = cpu->k;
    const mfi_shape *s = &cpu->p->shape;
    const mfi_op *op = j->op;
    uint32_t dk = s->gdn_k_dim, dv = s->gdn_v_dim;
    uint32_t k_head =
        s->gdn_tiled ? head % s->gdn_k_heads : head / (s->gdn_v_heads / s->gdn_k_heads);
    size_t at = (size_t)(s->conv_kernel - 1) * gdn_channels(s) + (size_t)head * dk * dv;
    float neg_exp_a = mfi_cpu_vector(cpu, op->w[0])[head], dt = mfi_cpu_vector(cpu, op->w[1])[head];
    float q_scale = (float)(1.0 / sqrt((double)dk));
    float q[MFI_GDN_DIM_MAX], key[MFI_GDN_DIM_MAX];
    for (uint32_t t = 0; t < j->n_rows; t++) {
        const float *qkv = mfi_cpu_row(cpu, op->src[0], t);
        const float *v = qkv + (size_t)2 * s->gdn_k_heads * dk + (size_t)head * dv;
        const float *z = mfi_cpu_row(cpu, op->src[1], t) + (size_t)head * dv;
        float *out = mfi_cpu_row(cpu, op->dst[0], t) + (size_t)head * dv;
        k->l2norm(qkv + (size_t)k_head * dk, 1e-6f, q_scale, dk, q);
        k->l2norm(qkv + (size_t)(s->gdn_k_heads + k_head) * dk, 1e-6f, 1.0f, dk, key);
        float g = expf(neg_exp_a * mfi_softplus(mfi_cpu_row(cpu, op->src[3], t)[head] + dt));
        float beta = mfi_sigmoid(mfi_cpu_row(cpu, op->src[2], t)[head]);
        float *state = mfi_step_seq(j->step, t)->mem[op->layer].recurrent + at;
        k->gdn_step(state, q, key, v, g, beta, dk, dv, out);
        k->rmsnorm(out, mfi_cpu_vector(cpu, op->w[2]), s->eps, dv, out);
        k->silu_mul(z, out, dv, out);
    }
}

static void gdn_heads(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    uint32_t begin, end;
    mfi_pool_range(j->cpu->p->shape.gdn_v_heads, 1, worker, n_workers, &begin, &end);
    for (uint32_t h = begin; h < end; h++)
        gdn_head(j, h);
}

void mfi_cpu_gdn(const mfi_cpu_job *job)
{
    mfi_cpu_dispatch(job, gdn_heads, job->cpu->p->shape.gdn_v_heads);
}
