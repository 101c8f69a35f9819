/* Products with transposed rows, AVX2. Called through the kernel table on any thread. What is
 * shared between tokens is only what is loaded: every output is computed by the same operations in
 * the same order for any number of them. */
#include <immintrin.h>
#include <string.h>

#include "kernels/walk.h"
#include "kernels/x86/simd_avx2.h"
#include "kernels/x86/x86.h"

#define T_ROWS 12 /* rows that are decoded at a time */

/* y[0, 8 * n_vec) = (begin ? 0 : y) + sum_r x[r] * block[r], by one fma each, in order; block has
 * rows of MFI_WALK_COLS. */
ALWAYS_INLINE void add_rows(const float *block, uint32_t n_rows, const float *x, float *y,
                            bool begin, const int n_vec)
{
    __m256 acc[8];
    MFI_UNROLL(8)
    for (int i = 0; i < n_vec; i++)
        acc[i] = begin ? _mm256_setzero_ps() : _mm256_loadu_ps(y + 8 * i);
    for (uint32_t r = 0; r < n_rows; r++) {
        __m256 a = _mm256_broadcast_ss(x + r);
        MFI_UNROLL(8)
        for (int i = 0; i < n_vec; i++)
            acc[i] = _mm256_fmadd_ps(a, _mm256_loadu_ps(block + r * MFI_WALK_COLS + 8 * i), acc[i]);
    }
    MFI_UNROLL(8)
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
