/* Token mixers: gated attention over the KV cache, and Gated DeltaNet in its recurrent form.
 * Workers share heads (or channels, or tokens where those are independent); a head's tokens run in
 * order on one worker, so neither chunking nor the number of workers changes a bit. */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu_int.h"

/* ---- attention ---- */

#define ATTN_QUERIES 64 /* that go over the cache together */

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
    const mfi_layer_state *st = &cpu->p->state[op->layer];
    uint32_t hd = s->head_dim, stride = hd * (s->attn_gate ? 2 : 1), kvw = s->n_kv_head * hd;
    const float *cosines = mfi_cpu_row(cpu, op->src[3], t);
    float *q = mfi_cpu_row(cpu, op->src[0], t), *key = mfi_cpu_row(cpu, op->src[1], t);
    uint32_t pos = mfi_step_pos(j->step, t);
    size_t row = st->kv_ring ? pos % st->kv_ring : pos;
    uint8_t *cache = mfi_step_seq(j->step, t)->mem[op->layer].kv;
    cache += row * st->kv_pos_bytes;
    for (uint32_t h = 0; h < s->n_head; h++, q += stride)
        prep_head(j, 0, cosines, q);
    for (uint32_t h = 0; h < s->n_kv_head; h++)
        prep_head(j, 1, cosines, key + (size_t)h * hd);
    cpu->k->store_row(key, kvw, cpu->p->kv_type[0], cache);
    cpu->k->store_row(mfi_cpu_row(cpu, op->src[2], t), kvw, cpu->p->kv_type[1],
                      cache + mfi_quant_row_bytes(cpu->p->kv_type[0], 0, kvw));
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

/* Later tokens look back further, so units are dealt round rather than in ranges. */
void mfi_cpu_attn_deal(const mfi_cpu_job *j, uint32_t n_shared, uint32_t n_groups, uint32_t worker,
                       uint32_t n_workers, mfi_cpu_attn_fn *fn)
{
    const uint64_t all = (uint64_t)j->n_rows * n_shared * n_groups;
    const uint64_t each = MFI_MIN((all + n_workers - 1) / n_workers, (uint64_t)ATTN_QUERIES);
    const uint32_t heads = (uint32_t)MFI_MIN(each, (uint64_t)n_shared);
    const uint32_t tokens = (uint32_t)(each / heads);
    uint32_t unit = 0;
    for (uint32_t i = 0; i < j->step->n_seqs; i++) {
        const mfi_seq *seq = &j->step->seqs[i];
        for (uint32_t t = seq->row; t < seq->row + seq->n; t += tokens)
            for (uint32_t g = 0; g < n_groups; g++)
                for (uint32_t h = 0; h < n_shared; h += heads)
                    if (unit++ % n_workers == worker)
                        fn(j, t, MFI_MIN(seq->row + seq->n - t, tokens), g * n_shared + h,
                           MFI_MIN(n_shared - h, heads));
    }
}

mfi_attn mfi_cpu_attn_of(const mfi_cpu_job *j, uint32_t t, uint32_t n_t, uint32_t h, uint32_t n_h,
                         uint32_t stride, uint32_t out_stride)
{
    const mfi_cpu *cpu = j->cpu;
    const mfi_layer_state *st = &cpu->p->state[j->op->layer];
    return (mfi_attn){.q = mfi_cpu_row(cpu, j->op->src[0], t) + (size_t)h * stride,
                      .out = mfi_cpu_row(cpu, j->op->dst[0], t) + (size_t)h * out_stride,
                      .ldq = stride,
                      .ldq_tok = cpu->p->bufs[j->op->src[0]].width,
                      .ldo = out_stride,
                      .ldo_tok = cpu->p->bufs[j->op->dst[0]].width,
                      .n_heads = n_h,
                      .n_tok = n_t,
                      .pos = mfi_step_pos(j->step, t),
                      .k = mfi_step_seq(j->step, t)->mem[j->op->layer].kv,
                      .row_bytes = (size_t)st->kv_pos_bytes,
                      .ring = st->kv_ring,
                      .window = st->window,
                      .type_k = cpu->p->kv_type[0],
                      .type_v = cpu->p->kv_type[1],
                      .scale = cpu->p->shape.attn_scale};
}

static void attn_unit(const mfi_cpu_job *j, uint32_t t, uint32_t n_t, uint32_t h, uint32_t n_h)
{
    const mfi_cpu *cpu = j->cpu;
    const mfi_shape *s = &cpu->p->shape;
    const uint32_t hd = s->head_dim, kv_head = h / (s->n_head / s->n_kv_head);
    mfi_attn a = mfi_cpu_attn_of(j, t, n_t, h, n_h, hd * (s->attn_gate ? 2 : 1), hd);
    a.v = (const uint8_t *)a.k + mfi_quant_row_bytes(a.type_k, 0, s->n_kv_head * hd) +
          mfi_quant_row_bytes(a.type_v, 0, kv_head * hd);
    a.k = (const uint8_t *)a.k + mfi_quant_row_bytes(a.type_k, 0, kv_head * hd);
    a.dim = a.dim_v = hd;
    a.sinks = j->op->n ? mfi_cpu_vector(cpu, j->op->w[0]) + h : NULL;
    cpu->k->attend(&a);
    for (uint32_t i = 0; s->attn_gate && i < n_t * n_h; i++)
        cpu->k->sigmoid_mul(a.out + i / n_h * a.ldo_tok + i % n_h * a.ldo,
                            a.q + i / n_h * a.ldq_tok + i % n_h * a.ldq + hd, hd);
}

static void attn_units(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const mfi_cpu_job *j = ctx;
    const mfi_shape *s = &j->cpu->p->shape;
    mfi_cpu_attn_deal(j, s->n_head / s->n_kv_head, s->n_kv_head, worker, n_workers, attn_unit);
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
