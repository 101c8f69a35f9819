/* Where the columns of a row lie in the planes of a matrix of any type: what the products that
 * decode stretches of columns walk along. Static inline only, so each level gets its own copy. */
#ifndef MFI_KERNELS_WALK_H
#define MFI_KERNELS_WALK_H

#include "kernels/kernels.h"

#define MFI_WALK_COLS 256 /* columns of a step: whole groups, blocks and scales of every type */

typedef struct mfi_walk {
    const uint8_t *base[3];
    size_t row_bytes[3], step_bytes[3]; /* of a row, and of MFI_WALK_COLS columns */
    uint32_t rows_per_row[3], n_planes;
} mfi_walk;

static inline mfi_walk mfi_walk_of(const mfi_mat *w)
{
    mfi_walk walk = {.n_planes = mfi_quant_n_planes(w->type)};
    for (uint32_t p = 0; p < walk.n_planes; p++) {
        walk.base[p] = w->planes[p];
        walk.row_bytes[p] = mfi_quant_row_bytes(w->type, p, w->cols);
        walk.step_bytes[p] = mfi_quant_row_bytes(w->type, p, MFI_WALK_COLS);
        walk.rows_per_row[p] = mfi_quant_rows_per_row(w->type, p);
    }
    return walk;
}

/* The planes at column step * MFI_WALK_COLS of a row. */
static inline void mfi_walk_at(const mfi_walk *walk, uint32_t row, uint32_t step, const void *at[3])
{
    for (uint32_t p = 0; p < walk->n_planes; p++)
        at[p] = walk->base[p] + row / walk->rows_per_row[p] * walk->row_bytes[p] +
                step * walk->step_bytes[p];
}

#endif
