/* Products with transposed matrices, in plain C. Called through the kernel table on any thread;
 * each call owns a range of output columns. gpt-oss's experts are stored so where they are floats:
 * [expert][input][output]. */
#include "kernels/ref/ref.h"

#include <string.h>

#define PIECE 64 /* columns widened at a time */

void mfi_ref_matmul_cols(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                         size_t ldy, uint32_t col0, uint32_t col1)
{
    MFI_ASSERT(mfi_qtype_is_float(w->type) && col1 <= w->cols);
    const char *base = w->planes[0];
    size_t element = w->type.bits / 8;
    for (uint32_t t = 0; t < n_tok; t++)
        memset(y + t * ldy + col0, 0, (col1 - col0) * sizeof *y);
    for (uint32_t r = 0; r < w->rows; r++)
        for (uint32_t c = col0; c < col1; c += PIECE) {
            uint32_t n = MFI_MIN(col1 - c, PIECE);
            const void *from = base + ((size_t)r * w->cols + c) * element;
            float wide[PIECE];
            mfi_dequant_row(w->type, &from, n, wide);
            for (uint32_t t = 0; t < n_tok; t++)
                for (uint32_t i = 0; i < n; i++)
                    y[t * ldy + c + i] += wide[i] * x[t * ldx + r];
        }
}
