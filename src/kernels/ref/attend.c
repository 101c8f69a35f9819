/* Attention over the KV cache, and the rows of that cache in its types, in plain C. Called through
 * the kernel table on any thread; each call works on queries that share keys and values. */
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

static void load_row(const mfi_attn *a, mfi_qtype type, const void *base, uint32_t j, uint32_t n,
                     float *out)
{
    const void *row = (const char *)base + (a->ring ? j % a->ring : j) * a->row_bytes;
    mfi_dequant_row(type, &row, n, out);
}

/* What has been summed of one query, relative to the largest score so far. */
typedef struct state {
    float max, sum;
} state;

/* Positions [begin, end) of one block. */
static void attend_block(const mfi_attn *a, const float *q, uint32_t begin, uint32_t end, state *s,
                         float *out)
{
    float p[MFI_ATTN_BLOCK], row[MFI_ATTN_DIM_MAX], max = s->max;
    for (uint32_t j = begin; j < end; j++) {
        float dot = 0;
        load_row(a, a->type_k, a->k, j, a->dim, row);
        for (uint32_t i = 0; i < a->dim; i++)
            dot += q[i] * row[i];
        p[j - begin] = a->scale * dot;
        max = MFI_MAX(max, p[j - begin]);
    }
    if (max > s->max) { /* what was summed so far was relative to the old maximum */
        const float shrink = expf(s->max - max);
        s->sum *= shrink;
        for (uint32_t i = 0; i < a->dim_v; i++)
            out[i] *= shrink;
        s->max = max;
    }
    for (uint32_t j = begin; j < end; j++) {
        const float weight = expf(p[j - begin] - s->max);
        load_row(a, a->type_v, a->v, j, a->dim_v, row);
        s->sum += weight;
        for (uint32_t i = 0; i < a->dim_v; i++)
            out[i] += weight * row[i];
    }
}

void mfi_ref_attend(const mfi_attn *a)
{
    MFI_ASSERT(a->dim <= MFI_ATTN_DIM_MAX && a->dim_v <= MFI_ATTN_DIM_MAX);
    for (uint32_t t = 0; t < a->n_tok; t++) {
        const uint32_t end = a->pos + t + 1;
        const uint32_t begin = a->window && a->window < end ? end - a->window : 0;
        for (uint32_t h = 0; h < a->n_heads; h++) {
            const float *q = a->q + t * a->ldq_tok + h * a->ldq;
            float *out = a->out + t * a->ldo_tok + h * a->ldo;
            state s = {a->sinks ? a->sinks[h] : -INFINITY, 0};
            s.sum = s.max == -INFINITY ? 0 : 1; /* exp(sink - max) */
            memset(out, 0, a->dim_v * sizeof *out);
            for (uint32_t j = begin, next; j < end; j = next) {
                next = MFI_MIN(j / MFI_ATTN_BLOCK * MFI_ATTN_BLOCK + MFI_ATTN_BLOCK, end);
                attend_block(a, q, j, next, &s, out);
            }
            for (uint32_t i = 0; i < a->dim_v; i++)
                out[i] /= s.sum;
        }
    }
}

/* A block of 32 as q8_0. */
static void store_q8_0(const float *x, uint8_t *out)
{
    uint32_t max = 0; /* by bits, so that a NaN is larger than anything */
    for (int i = 0; i < 32; i++) {
        uint32_t u;
        memcpy(&u, &x[i], sizeof u);
        max = MFI_MAX(max, u & 0x7fffffff);
    }
    float d;
    memcpy(&d, &max, sizeof d);
    uint16_t half = mfi_f32_to_f16(d / 127);
    d = mfi_f16_to_f32(half);
    if (!isfinite(d))
        half = 0x7e00;
    memcpy(out, &half, sizeof half);
    for (int i = 0; i < 32; i++) {
        float code = d > 0 && isfinite(d) ? x[i] / d : 0;
        out[2 + i] = (uint8_t)(int8_t)lrintf(MFI_MAX(-127.0f, MFI_MIN(code, 127.0f)));
    }
}

void mfi_ref_store_row(const float *x, uint32_t n, mfi_qtype type, void *row)
{
    uint8_t *out = row;
    if (type.kind == MFI_Q_F32) {
        memcpy(out, x, n * sizeof *x);
        return;
    }
    if (type.kind == MFI_Q_F16) {
        for (uint32_t i = 0; i < n; i++) {
            const uint16_t h = mfi_f32_to_f16(x[i]);
            memcpy(out + 2 * (size_t)i, &h, sizeof h);
        }
        return;
    }
    MFI_ASSERT(mfi_qtype_equal(type, MFI_KV_Q8_0) && n % 32 == 0);
    for (uint32_t i = 0; i < n; i += 32, out += 34)
        store_q8_0(x + i, out);
}
