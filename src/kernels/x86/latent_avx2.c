/* Products with transposed rows, and attention of several heads over one cache, AVX2. Called
 * through the kernel table on any thread. What is shared between tokens or heads is only what is
 * loaded: every output is computed by the same operations in the same order for any number of them.
 */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels/walk.h"
#include "kernels/x86/simd_avx2.h"
#include "kernels/x86/x86.h"

/* ---- transposed products ---- */

#define T_ROWS 12 /* rows that are decoded at a time */

/* y[0, 8 * n_vec) = (begin ? 0 : y) + sum_r x[r] * block[r], by one fma each, in order; block has
 * rows of MFI_WALK_COLS. */
ALWAYS_INLINE void add_rows(const float *block, uint32_t n_rows, const float *x, float *y,
                            bool begin, const int n_vec)
{
    __m256 acc[8];
#pragma GCC unroll 8
    for (int i = 0; i < n_vec; i++)
        acc[i] = begin ? _mm256_setzero_ps() : _mm256_loadu_ps(y + 8 * i);
    for (uint32_t r = 0; r < n_rows; r++) {
        __m256 a = _mm256_broadcast_ss(x + r);
#pragma GCC unroll 8
        for (int i = 0; i < n_vec; i++)
            acc[i] = _mm256_fmadd_ps(a, _mm256_loadu_ps(block + r * MFI_WALK_COLS + 8 * i), acc[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < n_vec; i++)
        _mm256_storeu_ps(y + 8 * i, acc[i]);
}

static void add_rows_tail(const float *block, uint32_t n_rows, const float *x, float *y, bool begin,
                          uint32_t n_left)
{
    __m256i mask = first_lanes(n_left);
    __m256 acc = begin ? _mm256_setzero_ps() : _mm256_maskload_ps(y, mask);
    for (uint32_t r = 0; r < n_rows; r++)
        acc = _mm256_fmadd_ps(_mm256_broadcast_ss(x + r),
                              _mm256_maskload_ps(block + r * MFI_WALK_COLS, mask), acc);
    _mm256_maskstore_ps(y, mask, acc);
}

/* All columns of a decoded block for one token. */
static void add_block(const float *block, uint32_t n_rows, uint32_t n, const float *x, float *y,
                      bool begin)
{
    uint32_t c = 0;
    for (; n - c >= 64; c += 64)
        add_rows(block + c, n_rows, x, y + c, begin, 8);
    for (; n - c >= 8; c += 8)
        add_rows(block + c, n_rows, x, y + c, begin, 1);
    if (c < n)
        add_rows_tail(block + c, n_rows, x, y + c, begin, n - c);
}

static void widen_half(uint32_t kind, const uint8_t *p, uint32_t n, float *out)
{
    uint32_t i = 0;
    for (; n - i >= 8; i += 8) {
        __m128i half = _mm_loadu_si128((const __m128i *)(p + 2 * i));
        __m256 f = kind == MFI_Q_F16
                       ? _mm256_cvtph_ps(half)
                       : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
        _mm256_storeu_ps(out + i, f);
    }
    for (; i < n; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, 2);
        out[i] = kind == MFI_Q_F16 ? mfi_f16_to_f32(h) : mfi_bf16_to_f32(h);
    }
}

static float scale_at(uint32_t kind, const uint8_t *p, uint32_t i)
{
    uint16_t h;
    float f;
    if (kind == MFI_Q_F32) {
        memcpy(&f, p + 4 * i, 4);
        return f;
    }
    memcpy(&h, p + 2 * i, 2);
    return kind == MFI_Q_F16 ? mfi_f16_to_f32(h) : mfi_bf16_to_f32(h);
}

/* Octet k of the 32 codes at p as floats. It is loaded with 8 bytes, which don't reach beyond the 4
 * * bits that the codes take. */
ALWAYS_INLINE __m256 octet(const uint8_t *p, uint32_t bits, uint32_t k)
{
    const uint32_t at = MFI_MIN(k * bits, 4 * bits - 8);
    const __m256i low = _mm256_mul_epu32(_mm256_set1_epi64x(bits), _mm256_setr_epi64x(0, 1, 2, 3));
    const __m256i high = _mm256_add_epi64(low, _mm256_set1_epi64x(4 * bits));
    const __m256i mask = _mm256_set1_epi64x((1 << bits) - 1);
    uint64_t word;
    memcpy(&word, p + at, 8);
    __m256i v = _mm256_set1_epi64x((long long)(word >> 8 * (k * bits - at)));
    __m256 lo = _mm256_castsi256_ps(_mm256_and_si256(_mm256_srlv_epi64(v, low), mask));
    __m256 hi = _mm256_castsi256_ps(_mm256_and_si256(_mm256_srlv_epi64(v, high), mask));
    v = _mm256_castps_si256(_mm256_shuffle_ps(lo, hi, _MM_SHUFFLE(2, 0, 2, 0)));
    return _mm256_cvtepi32_ps(_mm256_permute4x64_epi64(v, _MM_SHUFFLE(3, 1, 2, 0)));
}

static void decode_mlx(mfi_qtype type, const void *const at[3], uint32_t n, float *out)
{
    const uint8_t *codes = at[0];
    for (uint32_t i = 0; i < n; i += 32, codes += 4 * type.bits) {
        __m256 scale = _mm256_set1_ps(scale_at(type.scale, at[1], i / type.group));
        __m256 bias = _mm256_set1_ps(scale_at(type.scale, at[2], i / type.group));
        for (uint32_t k = 0; k < 4; k++)
            _mm256_storeu_ps(out + i + 8 * k,
                             _mm256_fmadd_ps(octet(codes, type.bits, k), scale, bias));
    }
}

static void decode(const mfi_mat *w, mfi_avx2_decoder *fast, const void *const at[3], uint32_t n,
                   float *out)
{
    if (w->type.kind == MFI_Q_F32)
        memcpy(out, at[0], n * sizeof *out);
    else if (w->type.kind == MFI_Q_F16 || w->type.kind == MFI_Q_BF16)
        widen_half(w->type.kind, at[0], n, out);
    else if (w->type.kind == MFI_Q_MLX)
        decode_mlx(w->type, at, n, out);
    else if (fast)
        fast(at, n, out);
    else
        mfi_dequant_row(w->type, at, n, out);
}

void mfi_avx2_matmul_t(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                       size_t ldy, uint32_t row0, uint32_t n_rows)
{
    mfi_walk walk = mfi_walk_of(w);
    mfi_avx2_decoder *fast = mfi_avx2_decoder_of(w->type);
    float block[T_ROWS][MFI_WALK_COLS];
    for (uint32_t c = 0, n; c < w->cols; c += n) {
        n = MFI_MIN(w->cols - c, MFI_WALK_COLS);
        for (uint32_t r0 = 0; r0 < n_rows; r0 += T_ROWS) {
            uint32_t n_r = MFI_MIN(n_rows - r0, T_ROWS);
            for (uint32_t r = 0; r < n_r; r++) {
                const void *at[3];
                mfi_walk_at(&walk, row0 + r0 + r, c / MFI_WALK_COLS, at);
                decode(w, fast, at, n, block[r]);
            }
            for (uint32_t t = 0; t < n_tok; t++)
                add_block(block[0], n_r, n, x + t * ldx + r0, y + t * ldy + c, r0 == 0);
        }
    }
}

/* ---- attention ---- */

#define HEADS 8 /* whose sums are kept side by side */

typedef struct heads {
    const float *q;
    size_t ldq;
    uint32_t n, dim;
    float scale;
    float p[HEADS][MFI_ATTN_BLOCK]; /* scores, then weights */
    float max[HEADS], sum[HEADS], shrink[HEADS];
} heads;

/* The last dim % 16 products of one score: lanes as in whole vectors. */
ALWAYS_INLINE void dot_tail(const float *a, const float *b, uint32_t n, __m256 acc[2])
{
    __m256i mask = first_lanes(n);
    acc[0] = _mm256_fmadd_ps(_mm256_maskload_ps(a, mask), _mm256_maskload_ps(b, mask), acc[0]);
    if (n > 8) {
        mask = first_lanes(n - 8);
        acc[1] = _mm256_fmadd_ps(_mm256_maskload_ps(a + 8, mask), _mm256_maskload_ps(b + 8, mask),
                                 acc[1]);
    }
}

/* Scores of n_h heads at n_k positions: 16 lanes each, added pairwise. */
ALWAYS_INLINE void scores(heads *h, uint32_t head, uint32_t at, const float *k, size_t ldk,
                          const int n_h, const int n_k)
{
    const float *q = h->q + head * h->ldq;
    __m256 acc[2][2][2];
    uint32_t i = 0, dim = h->dim;
#pragma GCC unroll 2
    for (int a = 0; a < n_h; a++)
#pragma GCC unroll 2
        for (int b = 0; b < n_k; b++)
            acc[a][b][0] = acc[a][b][1] = _mm256_setzero_ps();
    for (; dim - i >= 16; i += 16) {
#pragma GCC unroll 2
        for (int b = 0; b < n_k; b++) {
            __m256 lo = _mm256_loadu_ps(k + b * ldk + i), hi = _mm256_loadu_ps(k + b * ldk + i + 8);
#pragma GCC unroll 2
            for (int a = 0; a < n_h; a++) {
                const float *in = q + a * h->ldq + i;
                acc[a][b][0] = _mm256_fmadd_ps(lo, _mm256_loadu_ps(in), acc[a][b][0]);
                acc[a][b][1] = _mm256_fmadd_ps(hi, _mm256_loadu_ps(in + 8), acc[a][b][1]);
            }
        }
    }
#pragma GCC unroll 2
    for (int a = 0; a < n_h; a++)
#pragma GCC unroll 2
        for (int b = 0; b < n_k; b++) {
            if (i < dim)
                dot_tail(k + b * ldk + i, q + a * h->ldq + i, dim - i, acc[a][b]);
            h->p[head + (uint32_t)a][at + (uint32_t)b] =
                h->scale * add_lanes16(acc[a][b][0], acc[a][b][1]);
        }
}

static void score_block(heads *h, const float *k, size_t ldk, uint32_t n)
{
    uint32_t j = 0;
    for (; n - j >= 2; j += 2, k += 2 * ldk) {
        uint32_t i = 0;
        for (; h->n - i >= 2; i += 2)
            scores(h, i, j, k, ldk, 2, 2);
        if (i < h->n)
            scores(h, i, j, k, ldk, 1, 2);
    }
    for (uint32_t i = 0; j < n && i < h->n; i++)
        scores(h, i, j, k, ldk, 1, 1);
}

/* Scores to weights relative to the maximum so far; the unused end of a block gets 0. */
static void weigh_block(heads *h, uint32_t n)
{
    for (uint32_t i = 0; i < h->n; i++) {
        float *p = h->p[i], max = h->max[i];
        for (uint32_t j = n; j < MFI_ATTN_BLOCK; j++)
            p[j] = -INFINITY;
        for (uint32_t j = 0; j < n; j++)
            max = MFI_MAX(max, p[j]);
        h->shrink[i] = h->max[i] == max ? 1 : expf(h->max[i] - max);
        h->max[i] = max;
        __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
        for (int j = 0; j < MFI_ATTN_BLOCK; j += 8) {
            __m256 e = exp8(_mm256_sub_ps(_mm256_loadu_ps(p + j), _mm256_set1_ps(max)));
            _mm256_storeu_ps(p + j, e);
            sum[j / 8 % 2] = _mm256_add_ps(sum[j / 8 % 2], e);
        }
        h->sum[i] = h->sum[i] * h->shrink[i] + add_lanes16(sum[0], sum[1]);
    }
}

/* out[0, 8 * n_vec) = out * shrink + sum_j p[j] * v[j]. */
ALWAYS_INLINE void add_values(float *out, float shrink, const float *p, const float *v, size_t ldv,
                              uint32_t n, const int n_vec)
{
    __m256 acc[8];
#pragma GCC unroll 8
    for (int i = 0; i < n_vec; i++)
        acc[i] = _mm256_mul_ps(_mm256_loadu_ps(out + 8 * i), _mm256_set1_ps(shrink));
    for (uint32_t j = 0; j < n; j++) {
        __m256 weight = _mm256_broadcast_ss(p + j);
#pragma GCC unroll 8
        for (int i = 0; i < n_vec; i++)
            acc[i] = _mm256_fmadd_ps(weight, _mm256_loadu_ps(v + j * ldv + 8 * i), acc[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < n_vec; i++)
        _mm256_storeu_ps(out + 8 * i, acc[i]);
}

static void add_values_tail(float *out, float shrink, const float *p, const float *v, size_t ldv,
                            uint32_t n, uint32_t n_left)
{
    __m256i mask = first_lanes(n_left);
    __m256 acc = _mm256_mul_ps(_mm256_maskload_ps(out, mask), _mm256_set1_ps(shrink));
    for (uint32_t j = 0; j < n; j++)
        acc =
            _mm256_fmadd_ps(_mm256_broadcast_ss(p + j), _mm256_maskload_ps(v + j * ldv, mask), acc);
    _mm256_maskstore_ps(out, mask, acc);
}

/* A strip of columns for all heads, so that the block's part of it stays in the first cache. */
static void value_block(const heads *h, const float *v, size_t ldv, uint32_t n, uint32_t dim_v,
                        float *out, size_t ldo)
{
    uint32_t c = 0;
    for (; dim_v - c >= 64; c += 64)
        for (uint32_t i = 0; i < h->n; i++)
            add_values(out + i * ldo + c, h->shrink[i], h->p[i], v + c, ldv, n, 8);
    for (; dim_v - c >= 8; c += 8)
        for (uint32_t i = 0; i < h->n; i++)
            add_values(out + i * ldo + c, h->shrink[i], h->p[i], v + c, ldv, n, 1);
    for (uint32_t i = 0; c < dim_v && i < h->n; i++)
        add_values_tail(out + i * ldo + c, h->shrink[i], h->p[i], v + c, ldv, n, dim_v - c);
}

static void attend_heads(heads *h, const float *k, size_t ldk, const float *v, size_t ldv,
                         uint32_t n_kv, uint32_t dim_v, float *out, size_t ldo)
{
    for (uint32_t i = 0; i < h->n; i++) {
        h->max[i] = -INFINITY;
        h->sum[i] = 0;
        memset(out + i * ldo, 0, dim_v * sizeof *out);
    }
    for (uint32_t j0 = 0; j0 < n_kv; j0 += MFI_ATTN_BLOCK) {
        uint32_t n = MFI_MIN(n_kv - j0, MFI_ATTN_BLOCK);
        score_block(h, k + j0 * ldk, ldk, n);
        weigh_block(h, n);
        value_block(h, v + j0 * ldv, ldv, n, dim_v, out, ldo);
    }
    for (uint32_t i = 0; i < h->n; i++)
        for (uint32_t c = 0; c < dim_v; c++)
            out[i * ldo + c] /= h->sum[i];
}

void mfi_avx2_attend_shared(const float *q, size_t ldq, uint32_t n_q, const float *k, size_t ldk,
                            const float *v, size_t ldv, uint32_t n_kv, uint32_t dim, uint32_t dim_v,
                            float scale, float *out, size_t ldo)
{
    MFI_ASSERT(n_kv > 0 && dim <= MFI_ATTN_DIM_MAX && dim_v <= MFI_ATTN_DIM_MAX);
    for (uint32_t i = 0; i < n_q; i += HEADS) {
        heads h = {.q = q + i * ldq, .ldq = ldq, .dim = dim, .scale = scale};
        h.n = MFI_MIN(n_q - i, HEADS);
        attend_heads(&h, k, ldk, v, ldv, n_kv, dim_v, out + i * ldo, ldo);
    }
}
