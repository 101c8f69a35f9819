/* Products with transposed rows, in plain C: what multi-head latent attention needs. Called through
 * the kernel table on any thread; each call works on one head. Nothing is allocated. */
#include "kernels/ref/ref.h"

#include <string.h>

#include "kernels/walk.h"

void mfi_ref_matmul_t(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                      size_t ldy, uint32_t row0, uint32_t n_rows)
{
    mfi_walk walk = mfi_walk_of(w);
    for (uint32_t c = 0, n; c < w->cols; c += n) {
        n = MFI_MIN(w->cols - c, MFI_WALK_COLS);
        for (uint32_t t = 0; t < n_tok; t++)
            memset(y + t * ldy + c, 0, n * sizeof *y);
        for (uint32_t r = 0; r < n_rows; r++) {
            float row[MFI_WALK_COLS];
            const void *at[3];
            mfi_walk_at(&walk, row0 + r, c / MFI_WALK_COLS, at);
            mfi_dequant_row_wide(w->type, at, n, row);
            for (uint32_t t = 0; t < n_tok; t++) {
                float a = x[t * ldx + r], *out = y + t * ldy + c;
                for (uint32_t i = 0; i < n; i++)
                    out[i] += a * row[i];
            }
        }
    }
}
