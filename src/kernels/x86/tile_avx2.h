/* How a matrix product is cut into tiles; the template of the two matmul files. A tile is n_r rows
 * by n_t tokens whose sums are held in registers. Every shape does the same operations in the same
 * order for each of its outputs, so the cut changes no bit. */
#ifndef MFI_KERNELS_X86_TILE_AVX2_H
#define MFI_KERNELS_X86_TILE_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/x86/simd_avx2.h"

/* Rows that stay in the second-level cache while all tokens pass over them. */
#define TILE_ROWS 32

/* What a tile is computed from; x or q8 is used. */
typedef struct tile_args {
    const mfi_mat *w;
    const float *x; /* [n_tok][ldx] */
    size_t ldx;
    const mfi_q8 *q8;
    float *y; /* [n_tok][ldy] */
    size_t ldy;
} tile_args;

typedef void (*tile_fn)(const tile_args *a, uint32_t row, uint32_t tok);

/* The shapes: rows x tokens. */
typedef struct tile_set {
    tile_fn r4t1, r1t1, r2t2, r1t2, r1t4;
} tile_set;

/* Defines the five shapes of `body(args, row, tok, n_r, n_t, ...)` and their set `name`. */
#define TILE_SET(name, body, ...)                                                                  \
    static void name##_r4t1(const tile_args *a, uint32_t row, uint32_t tok)                        \
    {                                                                                              \
        body(a, row, tok, 4, 1, __VA_ARGS__);                                                      \
    }                                                                                              \
    static void name##_r1t1(const tile_args *a, uint32_t row, uint32_t tok)                        \
    {                                                                                              \
        body(a, row, tok, 1, 1, __VA_ARGS__);                                                      \
    }                                                                                              \
    static void name##_r2t2(const tile_args *a, uint32_t row, uint32_t tok)                        \
    {                                                                                              \
        body(a, row, tok, 2, 2, __VA_ARGS__);                                                      \
    }                                                                                              \
    static void name##_r1t2(const tile_args *a, uint32_t row, uint32_t tok)                        \
    {                                                                                              \
        body(a, row, tok, 1, 2, __VA_ARGS__);                                                      \
    }                                                                                              \
    static void name##_r1t4(const tile_args *a, uint32_t row, uint32_t tok)                        \
    {                                                                                              \
        body(a, row, tok, 1, 4, __VA_ARGS__);                                                      \
    }                                                                                              \
    static const tile_set name = {name##_r4t1, name##_r1t1, name##_r2t2, name##_r1t2, name##_r1t4}

static inline void tile_rows(const tile_args *a, uint32_t row, uint32_t end, uint32_t tok,
                             tile_fn several, uint32_t n_r, tile_fn one)
{
    for (; end - row >= n_r; row += n_r)
        several(a, row, tok);
    for (; row < end; row++)
        one(a, row, tok);
}

static inline void tile_run(const tile_set *set, const tile_args *a, uint32_t n_tok, uint32_t row0,
                            uint32_t row1)
{
    for (uint32_t row = row0, end; row < row1; row = end) {
        uint32_t tok = 0;
        end = row + MFI_MIN(row1 - row, TILE_ROWS);
        for (; n_tok - tok >= 4; tok += 4)
            tile_rows(a, row, end, tok, set->r1t4, 1, set->r1t4);
        for (; n_tok - tok >= 2; tok += 2)
            tile_rows(a, row, end, tok, set->r2t2, 2, set->r1t2);
        if (tok < n_tok)
            tile_rows(a, row, end, tok, set->r4t1, 4, set->r1t1);
    }
}

/* Blocks of 32 columns whose scales and biases a tile holds as floats. */
#define TILE_BLOCKS 32

/* Eight scales or biases at p. */
static inline __m256 tile_load8(uint32_t kind, const uint8_t *p)
{
    if (kind == MFI_Q_F32)
        return _mm256_loadu_ps((const float *)p);
    __m128i half = _mm_loadu_si128((const __m128i *)p);
    if (kind == MFI_Q_F16)
        return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* Scales or biases of n_blocks blocks from first_block on, which begins a group; then zeros up to a
 * multiple of 8. */
static inline void tile_widen(mfi_qtype type, const uint8_t *row, uint32_t first_block,
                              uint32_t n_blocks, float out[TILE_BLOCKS])
{
    const uint32_t shift = type.group >> 6; /* 1, 2 or 4 blocks a group */
    const size_t el = type.scale == MFI_Q_F32 ? 4 : 2;
    const __m256i spread =
        _mm256_srlv_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32((int)shift));
    const uint8_t *p = row + (first_block >> shift) * el;
    for (uint32_t i = 0; i < n_blocks; i += 8u << shift, p += 8 * el) {
        uint32_t n = (n_blocks - i) >> shift;
        __m256i from = spread;
        __m256 f;
        if (n >= 8) {
            f = tile_load8(type.scale, p);
        } else {
            uint8_t pad[32] = {0};
            memcpy(pad, p, n * el);
            f = tile_load8(type.scale, pad);
        }
        for (uint32_t j = i; j < i + (8u << shift) && j < n_blocks; j += 8) {
            _mm256_storeu_ps(out + j, _mm256_permutevar8x32_ps(f, from));
            from = _mm256_add_epi32(from, _mm256_set1_epi32(8 >> shift));
        }
    }
}

/* Scales and biases of n_r rows from `row` on. Not inlined: it would crowd the tile's inner loop
 * out of registers. */
static __attribute__((noinline, unused)) void tile_load_scales(const mfi_mat *w, uint32_t row,
                                                               uint32_t n_r, uint32_t first_block,
                                                               uint32_t n_blocks,
                                                               float scale[][TILE_BLOCKS],
                                                               float bias[][TILE_BLOCKS])
{
    const size_t row_bytes = mfi_quant_row_bytes(w->type, 1, w->cols);
    /* Those of the next tile, beside its weights, which the inner loop fetches ahead. */
    const size_t ahead = n_r * row_bytes + mfi_quant_row_bytes(w->type, 1, first_block * 32);
    for (uint32_t r = 0; r < n_r; r++) {
        size_t at = (row + r) * row_bytes;
        _mm_prefetch((const char *)w->planes[1] + at + ahead, _MM_HINT_T0);
        _mm_prefetch((const char *)w->planes[2] + at + ahead, _MM_HINT_T0);
        tile_widen(w->type, (const uint8_t *)w->planes[1] + at, first_block, n_blocks, scale[r]);
        tile_widen(w->type, (const uint8_t *)w->planes[2] + at, first_block, n_blocks, bias[r]);
    }
}

#endif
