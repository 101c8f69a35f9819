/* Attention of query heads that share keys and values, in blocks of positions. Template; the
 * including file defines
 *   ATTN_TILE                     queries whose sums are kept side by side
 *   attn_f, ATTN_LANES            a vector of floats
 *   attn_load(p), attn_store(p, v), attn_load_n(p, n), attn_store_n(p, n, v)  all or n <= lanes
 *   attn_set1(x), attn_fma(a, b, sum), attn_max(a, b): b if either is a NaN
 *   attn_exp(v)                   as exp8
 *   attn_top(v)                   the largest lane
 * A block's keys are transposed and its values brought together, as floats, a piece of columns at a
 * time, once for up to 64 queries; then a score is one chain of fma over columns, a value one over
 * positions. So no output depends on which queries share a block, and every level gives the same
 * bits. */
#ifndef MFI_KERNELS_X86_ATTEND_TMPL_H
#define MFI_KERNELS_X86_ATTEND_TMPL_H

#include <math.h>
#include <string.h>

#include "kernels/x86/kv_avx2.h"

#define ATTN_QUERIES 64 /* that share a block once it is unpacked */
#define ATTN_PAIR    (2 * ATTN_LANES)

/* Successive queries that see the same positions [low, high) of a block. */
typedef struct attn_run {
    uint32_t begin, end, low, high;
} attn_run;

typedef struct attn_group {
    const mfi_attn *a;
    uint32_t n;
    const float *q[ATTN_QUERIES];
    float *out[ATTN_QUERIES];
    float max[ATTN_QUERIES], sum[ATTN_QUERIES], shrink[ATTN_QUERIES];
    attn_run runs[ATTN_QUERIES];
    uint32_t n_runs;
    kv_block block;
    _Alignas(64) float p[ATTN_QUERIES][MFI_ATTN_BLOCK]; /* scores, then weights */
    _Alignas(64) float piece[KV_PIECE * MFI_ATTN_BLOCK];
} attn_group;

/* Scores of n_q queries at two vectors of positions from `at` on: what n columns add. */
ALWAYS_INLINE void score_tile(attn_group *g, uint32_t i, uint32_t at, uint32_t c, uint32_t n,
                              const int n_q)
{
    const float *q[ATTN_TILE], *k = g->piece + at;
    attn_f acc[ATTN_TILE][2];
    MFI_UNROLL(8)
    for (int t = 0; t < n_q; t++) {
        float *p = g->p[i + (uint32_t)t] + at;
        q[t] = g->q[i + (uint32_t)t] + c;
        acc[t][0] = c ? attn_load(p) : attn_set1(0);
        acc[t][1] = c ? attn_load(p + ATTN_LANES) : attn_set1(0);
    }
    for (uint32_t d = 0; d < n; d++, k += MFI_ATTN_BLOCK) {
        const attn_f lo = attn_load(k), hi = attn_load(k + ATTN_LANES);
        MFI_UNROLL(8)
        for (int t = 0; t < n_q; t++) {
            const attn_f x = attn_set1(q[t][d]);
            acc[t][0] = attn_fma(x, lo, acc[t][0]);
            acc[t][1] = attn_fma(x, hi, acc[t][1]);
        }
    }
    MFI_UNROLL(8)
    for (int t = 0; t < n_q; t++) {
        float *p = g->p[i + (uint32_t)t] + at;
        attn_store(p, acc[t][0]);
        attn_store(p + ATTN_LANES, acc[t][1]);
    }
}

static void score_run(attn_group *g, const attn_run *run, uint32_t c, uint32_t n)
{
    for (uint32_t at = run->low / ATTN_PAIR * ATTN_PAIR; at < run->high; at += ATTN_PAIR) {
        uint32_t i = run->begin;
        for (; run->end - i >= ATTN_TILE; i += ATTN_TILE)
            score_tile(g, i, at, c, n, ATTN_TILE);
        for (; ATTN_TILE > 4 && run->end - i >= 4; i += 4)
            score_tile(g, i, at, c, n, 4);
        for (; run->end - i >= 2; i += 2)
            score_tile(g, i, at, c, n, 2);
        if (i < run->end)
            score_tile(g, i, at, c, n, 1);
    }
}

/* The sum of a block's weights, in 16 lanes. */
ALWAYS_INLINE float weight_sum(const float *p)
{
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int j = 0; j < MFI_ATTN_BLOCK; j += 8)
        sum[j / 8 % 2] = _mm256_add_ps(sum[j / 8 % 2], _mm256_loadu_ps(p + j));
    return add_lanes16(sum[0], sum[1]);
}

/* Scores to weights relative to the maximum so far; what isn't seen gets 0. */
static void weigh(attn_group *g, uint32_t i, uint32_t low, uint32_t high)
{
    float *p = g->p[i], max = g->max[i];
    const attn_f scale = attn_set1(g->a->scale);
    attn_f top = attn_set1(max);
    for (uint32_t j = 0; j < low; j++)
        p[j] = -INFINITY;
    for (uint32_t j = high; j < MFI_ATTN_BLOCK; j++)
        p[j] = -INFINITY;
    for (uint32_t j = 0; j < MFI_ATTN_BLOCK; j += ATTN_LANES) {
        const attn_f s = attn_load(p + j) * scale;
        attn_store(p + j, s);
        top = attn_max(top, s);
    }
    max = attn_top(top);
    g->shrink[i] = g->max[i] == max ? 1 : expf(g->max[i] - max);
    g->max[i] = max;
    for (uint32_t j = 0; j < MFI_ATTN_BLOCK; j += ATTN_LANES)
        attn_store(p + j, attn_exp(attn_load(p + j) - attn_set1(max)));
    g->sum[i] = g->sum[i] * g->shrink[i] + weight_sum(p);
}

/* out[c ..] = out * shrink + sum of p[j] * v[j] over a run's positions: n_v vectors of columns of
 * n_q queries, or the first n lanes of one. */
ALWAYS_INLINE void value_tile(attn_group *g, uint32_t i, const attn_run *run, uint32_t c,
                              uint32_t at, uint32_t n, const int n_q, const int n_v,
                              const bool whole)
{
    attn_f acc[ATTN_TILE][2];
    const float *v = g->piece + run->low * KV_PIECE + at, *p = g->p[i];
    MFI_UNROLL(8)
    for (int t = 0; t < n_q; t++) {
        const attn_f shrink = attn_set1(g->shrink[i + (uint32_t)t]);
        const float *out = g->out[i + (uint32_t)t] + c + at;
        MFI_UNROLL(2)
        for (int k = 0; k < n_v; k++)
            acc[t][k] = (whole ? attn_load(out + k * ATTN_LANES) : attn_load_n(out, n)) * shrink;
    }
    for (uint32_t j = run->low; j < run->high; j++, v += KV_PIECE) {
        attn_f value[2];
        MFI_UNROLL(2)
        for (int k = 0; k < n_v; k++)
            value[k] = attn_load(v + k * ATTN_LANES);
        MFI_UNROLL(8)
        for (int t = 0; t < n_q; t++) {
            const attn_f weight = attn_set1(p[t * MFI_ATTN_BLOCK + (int)j]);
            MFI_UNROLL(2)
            for (int k = 0; k < n_v; k++)
                acc[t][k] = attn_fma(weight, value[k], acc[t][k]);
        }
    }
    MFI_UNROLL(8)
    for (int t = 0; t < n_q; t++) {
        float *out = g->out[i + (uint32_t)t] + c + at;
        MFI_UNROLL(2)
        for (int k = 0; k < n_v; k++) {
            if (whole)
                attn_store(out + k * ATTN_LANES, acc[t][k]);
            else
                attn_store_n(out, n, acc[t][k]);
        }
    }
}

/* Columns [c, c + n) of n_q queries. */
ALWAYS_INLINE void value_queries(attn_group *g, uint32_t i, const attn_run *run, uint32_t c,
                                 uint32_t n, const int n_q)
{
    uint32_t at = 0;
    for (; n - at >= ATTN_PAIR; at += ATTN_PAIR)
        value_tile(g, i, run, c, at, 0, n_q, 2, true);
    for (; n - at >= ATTN_LANES; at += ATTN_LANES)
        value_tile(g, i, run, c, at, 0, n_q, 1, true);
    if (at < n)
        value_tile(g, i, run, c, at, n - at, n_q, 1, false);
}

static void value_run(attn_group *g, const attn_run *run, uint32_t c, uint32_t n)
{
    uint32_t i = run->begin;
    for (; run->end - i >= ATTN_TILE; i += ATTN_TILE)
        value_queries(g, i, run, c, n, ATTN_TILE);
    for (; ATTN_TILE > 4 && run->end - i >= 4; i += 4)
        value_queries(g, i, run, c, n, 4);
    for (; run->end - i >= 2; i += 2)
        value_queries(g, i, run, c, n, 2);
    if (i < run->end)
        value_queries(g, i, run, c, n, 1);
}

/* The part of block [j0, j0 + 64) that query i of all sees. */
static attn_run seen_by(const mfi_attn *a, uint32_t query, uint32_t j0)
{
    const uint32_t end = a->pos + query / a->n_heads + 1;
    const uint32_t begin = a->window && a->window < end ? end - a->window : 0;
    const uint32_t stop = MFI_MIN(end, j0 + MFI_ATTN_BLOCK);
    attn_run run = {0, 0, begin > j0 ? begin - j0 : 0, stop > j0 ? stop - j0 : 0};
    return run;
}

/* Who sees what of a block; the positions that anybody sees become the block's. */
static void list_runs(attn_group *g, uint32_t first, uint32_t j0)
{
    uint32_t low = MFI_ATTN_BLOCK, high = 0;
    g->n_runs = 0;
    for (uint32_t i = 0; i < g->n; i++) {
        attn_run run = seen_by(g->a, first + i, j0);
        attn_run *last = &g->runs[g->n_runs ? g->n_runs - 1 : 0];
        if (run.low >= run.high)
            continue;
        low = MFI_MIN(low, run.low);
        high = MFI_MAX(high, run.high);
        if (g->n_runs && last->end == i && last->low == run.low && last->high == run.high) {
            last->end++;
            continue;
        }
        run.begin = i;
        run.end = i + 1;
        g->runs[g->n_runs++] = run;
    }
    kv_block_set(&g->block, g->a, j0, low, high);
}

static void one_block(attn_group *g)
{
    const mfi_attn *a = g->a;
    for (uint32_t c = 0, n; c < a->dim; c += n) {
        n = MFI_MIN(a->dim - c, KV_PIECE);
        kv_keys(&g->block, a, c, n, g->piece);
        for (uint32_t r = 0; r < g->n_runs; r++)
            score_run(g, &g->runs[r], c, n);
    }
    for (uint32_t r = 0; r < g->n_runs; r++)
        for (uint32_t i = g->runs[r].begin; i < g->runs[r].end; i++)
            weigh(g, i, g->runs[r].low, g->runs[r].high);
    for (uint32_t c = 0, n; c < a->dim_v; c += n) {
        n = MFI_MIN(a->dim_v - c, KV_PIECE);
        kv_values(&g->block, a, c, n, g->piece);
        for (uint32_t r = 0; r < g->n_runs; r++)
            value_run(g, &g->runs[r], c, n);
    }
}

/* Queries [first, first + n) of all, counted token by token. */
static void attend_group(attn_group *g, const mfi_attn *a, uint32_t first, uint32_t n)
{
    g->a = a;
    g->n = n;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t t = (first + i) / a->n_heads, h = (first + i) % a->n_heads;
        g->q[i] = a->q + t * a->ldq_tok + h * a->ldq;
        g->out[i] = a->out + t * a->ldo_tok + h * a->ldo;
        g->max[i] = a->sinks ? a->sinks[h] : -INFINITY;
        g->sum[i] = g->max[i] == -INFINITY ? 0 : 1; /* exp(sink - max) */
        memset(g->out[i], 0, a->dim_v * sizeof(float));
    }
    const uint32_t low = seen_by(a, first, 0).low;
    const uint32_t end = a->pos + (first + n - 1) / a->n_heads + 1;
    for (uint32_t j0 = low / MFI_ATTN_BLOCK * MFI_ATTN_BLOCK; j0 < end; j0 += MFI_ATTN_BLOCK) {
        list_runs(g, first, j0);
        one_block(g);
    }
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t c = 0; c < a->dim_v; c++)
            g->out[i][c] /= g->sum[i];
}

static void attend_all(const mfi_attn *a)
{
    const uint32_t all = a->n_tok * a->n_heads;
    attn_group g;
    MFI_ASSERT(all > 0 && a->dim <= MFI_ATTN_DIM_MAX && a->dim_v <= MFI_ATTN_DIM_MAX);
    memset(g.p, 0, sizeof g.p); /* what isn't seen is computed with, then thrown away */
    memset(g.piece, 0, sizeof g.piece);
    for (uint32_t i = 0, n; i < all; i += n) {
        n = MFI_MIN(all - i, ATTN_QUERIES);
        attend_group(&g, a, i, n);
    }
}

#endif
