/* Matrix products of float weights from float activations, AVX-512. Called through the kernel table
 * on any thread. A vector is the 16 lanes that the order of accumulation knows: column c of a row
 * adds w * x to lane c % 16 with one fma, in rising order of c; at the end the lanes are added
 * pairwise. So the bits are those of AVX2, whose kernels all other types take.
 *
 * One token streams the weights, four rows at a time; several share tiles of 4 rows by 4 tokens. */
#include <immintrin.h>
#include <string.h>

#include "kernels/x86/simd_avx2.h"
#include "kernels/x86/x86.h"

#define ROWS 4
#define TOKS 4
/* Rows that stay in the second-level cache while all tokens pass over them. */
#define TILE_ROWS 32

typedef struct operands {
    const uint8_t *w; /* of the first row */
    size_t row_bytes;
    const float *x;
    size_t ldx;
    uint32_t cols;
    float *y; /* of the first row and token */
    size_t ldy;
} operands;

/* Columns [c, c + 16) of a row as floats, or those of them that are there and zeros. */
ALWAYS_INLINE __m512 load_weights(const uint8_t *row, uint32_t c, __mmask16 some,
                                  const mfi_qkind kind)
{
    if (kind == MFI_Q_F32)
        return _mm512_maskz_loadu_ps(some, (const float *)(const void *)row + c);
    const __m256i half = _mm256_maskz_loadu_epi16(some, row + 2 * (size_t)c);
    return kind == MFI_Q_F16
               ? _mm512_cvtph_ps(half)
               : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

ALWAYS_INLINE void step(const operands *o, uint32_t c, __mmask16 some, __m512 acc[ROWS][TOKS],
                        const uint32_t n_r, const uint32_t n_t, const mfi_qkind kind)
{
    __m512 x[TOKS];
    MFI_UNROLL(4)
    for (uint32_t t = 0; t < n_t; t++)
        x[t] = _mm512_maskz_loadu_ps(some, o->x + t * o->ldx + c);
    MFI_UNROLL(4)
    for (uint32_t r = 0; r < n_r; r++) {
        const __m512 w = load_weights(o->w + r * o->row_bytes, c, some, kind);
        MFI_UNROLL(4)
        for (uint32_t t = 0; t < n_t; t++)
            acc[r][t] = _mm512_fmadd_ps(w, x[t], acc[r][t]);
    }
}

ALWAYS_INLINE float add_lanes(__m512 v)
{
    return add_lanes16(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
}

ALWAYS_INLINE void tile(const operands *o, const uint32_t n_r, const uint32_t n_t,
                        const mfi_qkind kind)
{
    __m512 acc[ROWS][TOKS];
    uint32_t c = 0;
    MFI_UNROLL(16)
    for (uint32_t i = 0; i < ROWS * TOKS; i++)
        acc[i / TOKS][i % TOKS] = _mm512_setzero_ps();
    for (; o->cols - c >= 16; c += 16)
        step(o, c, 0xffff, acc, n_r, n_t, kind);
    if (c < o->cols)
        step(o, c, (__mmask16)(0xffff >> (16 - (o->cols - c))), acc, n_r, n_t, kind);
    MFI_UNROLL(4)
    for (uint32_t r = 0; r < n_r; r++) {
        MFI_UNROLL(4)
        for (uint32_t t = 0; t < n_t; t++)
            o->y[t * o->ldy + r] = add_lanes(acc[r][t]);
    }
}

/* n rows of n_t tokens. */
ALWAYS_INLINE void rows(operands o, uint32_t n, const uint32_t n_t, const mfi_qkind kind)
{
    uint32_t r = 0;
    for (; n - r >= ROWS; r += ROWS, o.w += ROWS * o.row_bytes, o.y += ROWS)
        tile(&o, ROWS, n_t, kind);
    for (; r < n; r++, o.w += o.row_bytes, o.y++)
        tile(&o, 1, n_t, kind);
}

ALWAYS_INLINE void product(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                           size_t ldy, uint32_t row, uint32_t row1, const mfi_qkind kind)
{
    const size_t row_bytes = (size_t)w->cols * (kind == MFI_Q_F32 ? 4 : 2);
    for (uint32_t n, t; row < row1; row += n) {
        operands o = {.w = (const uint8_t *)w->planes[0] + row * row_bytes,
                      .row_bytes = row_bytes,
                      .x = x,
                      .ldx = ldx,
                      .cols = w->cols,
                      .y = y + row,
                      .ldy = ldy};
        n = MFI_MIN(row1 - row, TILE_ROWS);
        for (t = 0; n_tok - t >= TOKS; t += TOKS, o.x += TOKS * ldx, o.y += TOKS * ldy)
            rows(o, n, TOKS, kind);
        for (; n_tok - t >= 2; t += 2, o.x += 2 * ldx, o.y += 2 * ldy)
            rows(o, n, 2, kind);
        if (t < n_tok)
            rows(o, n, 1, kind);
    }
}

void mfi_avx512_matmul_f32(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                           size_t ldy, uint32_t row0, uint32_t row1)
{
    switch (w->type.kind) {
    case MFI_Q_F32:
        product(w, x, ldx, n_tok, y, ldy, row0, row1, MFI_Q_F32);
        break;
    case MFI_Q_F16:
        product(w, x, ldx, n_tok, y, ldy, row0, row1, MFI_Q_F16);
        break;
    case MFI_Q_BF16:
        product(w, x, ldx, n_tok, y, ldy, row0, row1, MFI_Q_BF16);
        break;
    default:
        mfi_avx2_matmul_f32(w, x, ldx, n_tok, y, ldy, row0, row1);
    }
}
