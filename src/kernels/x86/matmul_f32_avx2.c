/* Matrix products from float activations, AVX2. Called through the kernel table on any thread.
 *
 * Column c of a row adds w * x to lane c % 16 with one fma, in rising order of c; at the end the
 * lanes are added pairwise. MLX weights are fma(q, scale, bias). */
#include <immintrin.h>
#include <string.h>

#include "kernels/x86/simd_avx2.h"
#include "kernels/x86/tile_avx2.h"
#include "kernels/x86/x86.h"

ALWAYS_INLINE __m256 load_weights(uint32_t kind, const uint8_t *row, uint32_t c)
{
    if (kind == MFI_Q_F32)
        return _mm256_loadu_ps((const float *)(row + (size_t)c * 4));
    __m128i half = _mm_loadu_si128((const __m128i *)(row + (size_t)c * 2));
    if (kind == MFI_Q_F16)
        return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* The last n < 16 columns, by way of zero-padded copies. */
ALWAYS_INLINE void float_tail(uint32_t kind, const uint8_t *row, const float *x, uint32_t c,
                              uint32_t n, __m256 acc[2])
{
    uint8_t w_pad[64] = {0};
    float x_pad[16] = {0};
    size_t el = kind == MFI_Q_F32 ? 4 : 2;
    memcpy(w_pad, row + c * el, n * el);
    memcpy(x_pad, x + c, n * sizeof *x);
    for (uint32_t h = 0; h < 2; h++)
        acc[h] = _mm256_fmadd_ps(load_weights(kind, w_pad, h * 8), _mm256_loadu_ps(x_pad + h * 8),
                                 acc[h]);
}

ALWAYS_INLINE void float_tile(const tile_args *a, uint32_t row, uint32_t tok, const uint32_t n_r,
                              const uint32_t n_t, const uint32_t kind)
{
    const uint32_t cols = a->w->cols;
    const size_t row_bytes = (size_t)cols * (kind == MFI_Q_F32 ? 4 : 2);
    const uint8_t *w = (const uint8_t *)a->w->planes[0] + row * row_bytes;
    const float *x = a->x + tok * a->ldx;
    __m256 acc[4][4][2];

    MFI_UNROLL(4)
    for (uint32_t r = 0; r < n_r; r++)
        MFI_UNROLL(4)
    for (uint32_t t = 0; t < n_t; t++)
        acc[r][t][0] = acc[r][t][1] = _mm256_setzero_ps();
    uint32_t c = 0;
    for (; cols - c >= 16; c += 16) {
        MFI_UNROLL(4)
        for (uint32_t r = 0; r < n_r; r++) {
            __m256 lo = load_weights(kind, w + r * row_bytes, c);
            __m256 hi = load_weights(kind, w + r * row_bytes, c + 8);
            MFI_UNROLL(4)
            for (uint32_t t = 0; t < n_t; t++) {
                const float *in = x + t * a->ldx + c;
                acc[r][t][0] = _mm256_fmadd_ps(lo, _mm256_loadu_ps(in), acc[r][t][0]);
                acc[r][t][1] = _mm256_fmadd_ps(hi, _mm256_loadu_ps(in + 8), acc[r][t][1]);
            }
        }
    }
    MFI_UNROLL(4)
    for (uint32_t r = 0; r < n_r; r++)
        MFI_UNROLL(4)
    for (uint32_t t = 0; t < n_t; t++) {
        if (c < cols)
            float_tail(kind, w + r * row_bytes, x + t * a->ldx, c, cols - c, acc[r][t]);
        a->y[(tok + t) * a->ldy + row + r] = add_lanes16(acc[r][t][0], acc[r][t][1]);
    }
}

/* Where octet k of 32 codes is loaded from with 8 bytes, which must not reach beyond the 4 * bits
 * bytes that 32 codes take. */
#define OCTET_AT(bits, k) ((k) * (bits) < 4 * (bits)-8 ? (k) * (bits) : 4 * (bits)-8)
/* The pair of bytes, of the 8 loaded, that holds code i of octet k, to the bottom of lane i. */
#define PAIR(bits, k, i) ((k) * (bits)-OCTET_AT(bits, k) + (i) * (bits) / 8)
#define LAST(bits, k, i) (PAIR(bits, k, i) < 7 ? PAIR(bits, k, i) + 1 : -1)
#define LANE(bits, k, i) (char)PAIR(bits, k, i), (char)LAST(bits, k, i), -1, -1

/* Octet k of the 32 codes at p as floats. */
ALWAYS_INLINE __m256 load_codes(const uint32_t bits, const uint8_t *p, const int k)
{
    const int b = (int)bits;
    int32_t word;
    __m256i v;
    if (bits == 8)
        return _mm256_cvtepi32_ps(
            _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8 * k))));
    if (bits == 4) {
        memcpy(&word, p + 4 * k, 4);
        v = _mm256_srlv_epi32(_mm256_set1_epi32(word),
                              _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    } else if (bits == 2) {
        const int s = k % 2 * 16;
        memcpy(&word, p + k / 2 * 4, 4);
        v = _mm256_srlv_epi32(
            _mm256_set1_epi32(word),
            _mm256_setr_epi32(s, s + 2, s + 4, s + 6, s + 8, s + 10, s + 12, s + 14));
    } else {
        int64_t eight;
        memcpy(&eight, p + OCTET_AT(b, k), 8);
        v = _mm256_shuffle_epi8(_mm256_set1_epi64x(eight),
                                _mm256_setr_epi8(LANE(b, k, 0), LANE(b, k, 1), LANE(b, k, 2),
                                                 LANE(b, k, 3), LANE(b, k, 4), LANE(b, k, 5),
                                                 LANE(b, k, 6), LANE(b, k, 7)));
        v = _mm256_srlv_epi32(v, _mm256_setr_epi32(0, b % 8, 2 * b % 8, 3 * b % 8, 4 * b % 8,
                                                   5 * b % 8, 6 * b % 8, 7 * b % 8));
    }
    return _mm256_cvtepi32_ps(_mm256_and_si256(v, _mm256_set1_epi32((1 << bits) - 1)));
}

ALWAYS_INLINE void mlx_tile(const tile_args *a, uint32_t row, uint32_t tok, const uint32_t n_r,
                            const uint32_t n_t, const uint32_t bits)
{
    const uint32_t n_blocks = a->w->cols / 32;
    const size_t row_bytes = (size_t)n_blocks * bits * 4;
    const uint8_t *w = (const uint8_t *)a->w->planes[0] + row * row_bytes;
    const float *x = a->x + tok * a->ldx;
    float scale[4][TILE_BLOCKS], bias[4][TILE_BLOCKS];
    __m256 acc[4][4][2];

    MFI_UNROLL(4)
    for (uint32_t r = 0; r < n_r; r++)
        MFI_UNROLL(4)
    for (uint32_t t = 0; t < n_t; t++)
        acc[r][t][0] = acc[r][t][1] = _mm256_setzero_ps();
    for (uint32_t b0 = 0; b0 < n_blocks; b0 += TILE_BLOCKS) {
        const uint32_t n_b = MFI_MIN(n_blocks - b0, TILE_BLOCKS);
        tile_load_scales(a->w, row, n_r, b0, n_b, scale, bias);
        for (uint32_t b = 0; b < n_b; b++, w += 4 * bits, x += 32) {
            MFI_UNROLL(4)
            for (uint32_t r = 0; r < n_r; r++) {
                const __m256 s = _mm256_broadcast_ss(&scale[r][b]);
                const __m256 o = _mm256_broadcast_ss(&bias[r][b]);
                _mm_prefetch((const char *)w + (n_r + r) * row_bytes, _MM_HINT_T0);
                MFI_UNROLL(4)
                for (int k = 0; k < 4; k++) {
                    __m256 v = _mm256_fmadd_ps(load_codes(bits, w + r * row_bytes, k), s, o);
                    MFI_UNROLL(4)
                    for (uint32_t t = 0; t < n_t; t++)
                        acc[r][t][k & 1] = _mm256_fmadd_ps(
                            v, _mm256_loadu_ps(x + t * a->ldx + 8 * k), acc[r][t][k & 1]);
                }
            }
        }
    }
    MFI_UNROLL(4)
    for (uint32_t r = 0; r < n_r; r++)
        MFI_UNROLL(4)
    for (uint32_t t = 0; t < n_t; t++)
        a->y[(tok + t) * a->ldy + row + r] = add_lanes16(acc[r][t][0], acc[r][t][1]);
}

TILE_SET(f32_tiles, float_tile, MFI_Q_F32);
TILE_SET(f16_tiles, float_tile, MFI_Q_F16);
TILE_SET(bf16_tiles, float_tile, MFI_Q_BF16);
TILE_SET(mlx2_tiles, mlx_tile, 2);
TILE_SET(mlx3_tiles, mlx_tile, 3);
TILE_SET(mlx4_tiles, mlx_tile, 4);
TILE_SET(mlx5_tiles, mlx_tile, 5);
TILE_SET(mlx6_tiles, mlx_tile, 6);
TILE_SET(mlx8_tiles, mlx_tile, 8);

static const tile_set *const float_sets[] = {
    [MFI_Q_F32] = &f32_tiles, [MFI_Q_F16] = &f16_tiles, [MFI_Q_BF16] = &bf16_tiles};
static const tile_set *const mlx_sets[9] = {
    [2] = &mlx2_tiles, [3] = &mlx3_tiles, [4] = &mlx4_tiles,
    [5] = &mlx5_tiles, [6] = &mlx6_tiles, [8] = &mlx8_tiles};

void mfi_avx2_matmul_f32(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                         size_t ldy, uint32_t row0, uint32_t row1)
{
    bool mlx = w->type.kind == MFI_Q_MLX;
    if (!mlx && !mfi_qtype_is_float(w->type)) {
        mfi_avx2_block_f32(w, x, ldx, n_tok, y, ldy, row0, row1);
        return;
    }
    MFI_ASSERT(!mlx || w->type.bits <= 8);
    const tile_set *set = mlx ? mlx_sets[w->type.bits] : float_sets[w->type.kind];
    tile_args args = {.w = w, .x = x, .ldx = ldx, .y = y, .ldy = ldy};
    tile_run(set, &args, n_tok, row0, row1);
}
