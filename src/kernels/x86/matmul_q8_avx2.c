/* Matrix products of MLX weights with 8-bit activations, AVX2. Called through the kernel table on
 * any thread.
 *
 * Per block of 32 columns the integer products go to 8 lanes of int32, exactly; each lane is
 * converted and added to its float sum by fma(lane, d_x * scale, sum). Per group bias * (sum of the
 * blocks' s) is added to one further sum. At the end the lanes are added pairwise, then that. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels/x86/simd_avx2.h"
#include "kernels/x86/tile_avx2.h"
#include "kernels/x86/x86.h"

/* 32 codes: as bytes in `lo` up to 6 bits, as 16-bit numbers in both at 8 bits. */
typedef struct codes32 {
    __m256i lo, hi;
} codes32;

/* Lane pairs of bytes that hold code i of an octet loaded from `at`, see octets(). */
#define BYTE_OF(bits, k, at, i) ((k) * (bits) - (at) + (i) * (bits) / 8)
#define NEXT_OF(bits, k, at, i) (BYTE_OF(bits, k, at, i) < 7 ? BYTE_OF(bits, k, at, i) + 1 : -1)
#define PAIR_OF(bits, k, at, i) (char)BYTE_OF(bits, k, at, i), (char)NEXT_OF(bits, k, at, i)
#define PAIRS_OF(bits, k, at)                                                                      \
    PAIR_OF(bits, k, at, 0), PAIR_OF(bits, k, at, 1), PAIR_OF(bits, k, at, 2),                     \
        PAIR_OF(bits, k, at, 3), PAIR_OF(bits, k, at, 4), PAIR_OF(bits, k, at, 5),                 \
        PAIR_OF(bits, k, at, 6), PAIR_OF(bits, k, at, 7)

/* Codes of octets k and k + 2 (3, 5 or 6 bits) as 16-bit numbers. An octet is `bits` bytes; the 8
 * bytes that are loaded for it stay within the 4 * bits bytes of the block. Each code is moved to
 * the top of its lane by a multiplication, since there is no 16-bit shift by lane. */
ALWAYS_INLINE __m256i octets(const int bits, const uint8_t *p, const int k)
{
    const int last = 4 * bits - 8;
    const int at0 = k * bits; /* k < 2 */
    const int at1 = (k + 2) * bits < last ? (k + 2) * bits : last;
    __m256i v = _mm256_set_m128i(_mm_loadl_epi64((const __m128i *)(p + at1)),
                                 _mm_loadl_epi64((const __m128i *)(p + at0)));
    v = _mm256_shuffle_epi8(v,
                            _mm256_setr_epi8(PAIRS_OF(bits, k, at0), PAIRS_OF(bits, k + 2, at1)));
#define TO_TOP(i) (short)(1 << (16 - bits - (i)*bits % 8))
    const __m128i to_top = _mm_setr_epi16(TO_TOP(0), TO_TOP(1), TO_TOP(2), TO_TOP(3), TO_TOP(4),
                                          TO_TOP(5), TO_TOP(6), TO_TOP(7));
#undef TO_TOP
    v = _mm256_mullo_epi16(v, _mm256_set_m128i(to_top, to_top));
    return _mm256_srli_epi16(v, 16 - bits);
}

ALWAYS_INLINE codes32 load_codes(const uint32_t bits, const uint8_t *p)
{
    const __m128i *at = (const __m128i *)p;
    __m256i v;
    switch (bits) {
    case 2: /* a byte to a lane, then its codes to the lane's bytes */
        v = _mm256_cvtepu8_epi32(_mm_loadl_epi64(at));
        v = _mm256_or_si256(v, _mm256_slli_epi32(v, 12));
        v = _mm256_or_si256(v, _mm256_slli_epi32(v, 6));
        return (codes32){_mm256_and_si256(v, _mm256_set1_epi8(3)), v};
    case 4:
        v = _mm256_cvtepu8_epi16(_mm_loadu_si128(at));
        v = _mm256_or_si256(v, _mm256_slli_epi16(v, 4));
        return (codes32){_mm256_and_si256(v, _mm256_set1_epi8(15)), v};
    case 8:
        return (codes32){_mm256_cvtepu8_epi16(_mm_loadu_si128(at)),
                         _mm256_cvtepu8_epi16(_mm_loadu_si128(at + 1))};
    default:
        v = _mm256_packus_epi16(octets((int)bits, p, 0), octets((int)bits, p, 1));
        return (codes32){v, v};
    }
}

/* Products of 32 codes and activations in 8 sums. Codes of at most 6 bits can't saturate the 16-bit
 * sums of two: 2 * 63 * 127. */
ALWAYS_INLINE __m256i dot32(const uint32_t bits, codes32 w, const int8_t *x)
{
    const __m128i *at = (const __m128i *)x;
    if (bits == 8)
        return _mm256_add_epi32(
            _mm256_madd_epi16(w.lo, _mm256_cvtepi8_epi16(_mm_loadu_si128(at))),
            _mm256_madd_epi16(w.hi, _mm256_cvtepi8_epi16(_mm_loadu_si128(at + 1))));
    __m256i pairs = _mm256_maddubs_epi16(w.lo, _mm256_loadu_si256((const __m256i *)x));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* sum += bias * s of n blocks, block i in lane i % 8; bias is zero from n on. */
ALWAYS_INLINE __m256 add_offsets(__m256 sum, const float *bias, const float *s, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 8) {
        __m256 in = _mm256_maskload_ps(s + i, first_lanes(n - i));
        sum = _mm256_fmadd_ps(_mm256_loadu_ps(bias + i), in, sum);
    }
    return sum;
}

ALWAYS_INLINE void q8_tile(const tile_args *a, uint32_t row, uint32_t tok, const uint32_t n_r,
                           const uint32_t n_t, const uint32_t bits)
{
    const uint32_t n_blocks = a->w->cols / MFI_Q8_BLOCK;
    const size_t row_bytes = (size_t)n_blocks * bits * 4, cols = a->w->cols;
    const uint8_t *w = (const uint8_t *)a->w->planes[0] + row * row_bytes;
    const int8_t *q = a->q8->q + tok * cols;
    const float *d = a->q8->d + (size_t)tok * n_blocks, *s = a->q8->s + (size_t)tok * n_blocks;
    float scale[4][TILE_BLOCKS], bias[4][TILE_BLOCKS];
    __m256 acc[4][4], offset[4][4];

#pragma GCC unroll 4
    for (uint32_t r = 0; r < n_r; r++)
#pragma GCC unroll 4
        for (uint32_t t = 0; t < n_t; t++)
            acc[r][t] = offset[r][t] = _mm256_setzero_ps();
    for (uint32_t b0 = 0; b0 < n_blocks; b0 += TILE_BLOCKS) {
        const uint32_t n_b = MFI_MIN(n_blocks - b0, TILE_BLOCKS);
        tile_load_scales(a->w, row, n_r, b0, n_b, scale, bias);
#pragma GCC unroll 4
        for (uint32_t r = 0; r < n_r; r++)
#pragma GCC unroll 4
            for (uint32_t t = 0; t < n_t; t++)
                offset[r][t] =
                    add_offsets(offset[r][t], bias[r], s + (size_t)t * n_blocks + b0, n_b);
        for (uint32_t b = 0; b < n_b; b++, w += 4 * bits, q += MFI_Q8_BLOCK, d++) {
#pragma GCC unroll 4
            for (uint32_t r = 0; r < n_r; r++) {
                const codes32 codes = load_codes(bits, w + r * row_bytes);
                const __m256 factor = _mm256_broadcast_ss(&scale[r][b]);
                _mm_prefetch((const char *)w + (n_r + r) * row_bytes, _MM_HINT_T0);
#pragma GCC unroll 4
                for (uint32_t t = 0; t < n_t; t++) {
                    __m256 dot = _mm256_cvtepi32_ps(dot32(bits, codes, q + t * cols));
                    __m256 dx = _mm256_broadcast_ss(d + (size_t)t * n_blocks);
                    acc[r][t] = _mm256_fmadd_ps(dot, _mm256_mul_ps(dx, factor), acc[r][t]);
                }
            }
        }
    }
#pragma GCC unroll 4
    for (uint32_t r = 0; r < n_r; r++)
#pragma GCC unroll 4
        for (uint32_t t = 0; t < n_t; t++)
            a->y[(tok + t) * a->ldy + row + r] = add_lanes16(acc[r][t], offset[r][t]);
}

TILE_SET(q8_2_tiles, q8_tile, 2);
TILE_SET(q8_3_tiles, q8_tile, 3);
TILE_SET(q8_4_tiles, q8_tile, 4);
TILE_SET(q8_5_tiles, q8_tile, 5);
TILE_SET(q8_6_tiles, q8_tile, 6);
TILE_SET(q8_8_tiles, q8_tile, 8);

static const tile_set *const q8_sets[9] = {[2] = &q8_2_tiles, [3] = &q8_3_tiles, [4] = &q8_4_tiles,
                                           [5] = &q8_5_tiles, [6] = &q8_6_tiles, [8] = &q8_8_tiles};

void mfi_avx2_matmul_q8(const mfi_mat *w, const mfi_q8 *x, uint32_t n_tok, float *y, size_t ldy,
                        uint32_t row0, uint32_t row1)
{
    MFI_ASSERT(w->cols % MFI_Q8_BLOCK == 0);
    if (w->type.kind != MFI_Q_MLX) {
        mfi_avx2_block_q8(w, x, n_tok, y, ldy, row0, row1);
        return;
    }
    MFI_ASSERT(w->type.bits <= 8);
    tile_args args = {.w = w, .q8 = x, .y = y, .ldy = ldy};
    tile_run(q8_sets[w->type.bits], &args, n_tok, row0, row1);
}
