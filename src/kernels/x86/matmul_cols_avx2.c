/* Products with transposed float matrices, AVX2. Called through the kernel table on any thread;
 * each call owns a range of output columns.
 *
 * Four rows of the matrix are added to the outputs at a time: the weights stream by in the order
 * they are stored, and the outputs are loaded and stored once for four. An output's sum runs over
 * the rows in order, one fma each, so neither the range nor the number of tokens changes a bit. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels/x86/simd_avx2.h"
#include "kernels/x86/x86.h"

#define ROWS 4

ALWAYS_INLINE __m256 load8(const char *p, const mfi_qkind kind)
{
    if (kind == MFI_Q_F32)
        return _mm256_loadu_ps((const float *)(const void *)p);
    __m128i half = _mm_loadu_si128((const __m128i *)(const void *)p);
    return kind == MFI_Q_F16
               ? _mm256_cvtph_ps(half)
               : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

static float load1(const char *p, mfi_qtype type)
{
    float wide;
    const void *from = p;
    mfi_dequant_row(type, &from, 1, &wide);
    return wide;
}

/* y[c] += sum over n_rows rows of w[r][c] * x[r], n columns; n_rows is a constant. */
ALWAYS_INLINE void add_weighted(const char *w, size_t row_bytes, mfi_qtype type, const float *x,
                                uint32_t n, float *y, const mfi_qkind kind, const uint32_t n_rows)
{
    const size_t element = kind == MFI_Q_F32 ? 4 : 2;
    __m256 factor[ROWS];
    uint32_t c = 0;
    for (uint32_t r = 0; r < n_rows; r++)
        factor[r] = _mm256_set1_ps(x[r]);
    for (; n - c >= 8; c += 8) {
        __m256 sum = _mm256_loadu_ps(y + c);
        MFI_UNROLL(4)
        for (uint32_t r = 0; r < n_rows; r++)
            sum = _mm256_fmadd_ps(load8(w + r * row_bytes + c * element, kind), factor[r], sum);
        _mm256_storeu_ps(y + c, sum);
    }
    for (; c < n; c++)
        for (uint32_t r = 0; r < n_rows; r++)
            y[c] = fmaf(load1(w + r * row_bytes + c * element, type), x[r], y[c]);
}

ALWAYS_INLINE void product(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                           size_t ldy, uint32_t col0, uint32_t n, const mfi_qkind kind)
{
    const size_t element = kind == MFI_Q_F32 ? 4 : 2, row_bytes = w->cols * element;
    const char *base = (const char *)w->planes[0] + col0 * element;
    uint32_t r = 0;
    for (; w->rows - r >= ROWS; r += ROWS)
        for (uint32_t t = 0; t < n_tok; t++)
            add_weighted(base + r * row_bytes, row_bytes, w->type, x + t * ldx + r, n,
                         y + t * ldy + col0, kind, ROWS);
    for (; r < w->rows; r++)
        for (uint32_t t = 0; t < n_tok; t++)
            add_weighted(base + r * row_bytes, row_bytes, w->type, x + t * ldx + r, n,
                         y + t * ldy + col0, kind, 1);
}

void mfi_avx2_matmul_cols(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                          size_t ldy, uint32_t col0, uint32_t col1)
{
    MFI_ASSERT(mfi_qtype_is_float(w->type) && col1 <= w->cols);
    for (uint32_t t = 0; t < n_tok; t++)
        memset(y + t * ldy + col0, 0, (col1 - col0) * sizeof *y);
    if (w->type.kind == MFI_Q_F32)
        product(w, x, ldx, n_tok, y, ldy, col0, col1 - col0, MFI_Q_F32);
    else if (w->type.kind == MFI_Q_F16)
        product(w, x, ldx, n_tok, y, ldy, col0, col1 - col0, MFI_Q_F16);
    else
        product(w, x, ldx, n_tok, y, ldy, col0, col1 - col0, MFI_Q_BF16);
}
