/* Random matrices and vectors for kernel tests, and what they mean in double precision. All memory
 * is guarded (fake/guard.h) and released by mft_guard_free. */
#ifndef MFT_KERNEL_CASE_H
#define MFT_KERNEL_CASE_H

#include "base/rng.h"
#include "fake/guard.h"
#include "kernels/kernels.h"

/* A number generator whose seed is printed when a test fails: mft_seed() at the start of each case.
 */
void mft_seed(mfi_rng *rng, uint64_t seed);
uint64_t mft_last_seed(void);

uint32_t mft_below(mfi_rng *rng, uint32_t n);
uint32_t mft_between(mfi_rng *rng, uint32_t low, uint32_t high); /* both included */
/* Roughly normal, deviation 1. */
float mft_normal(mfi_rng *rng);
float *mft_floats(size_t n, mft_place place);
float *mft_random_floats(mfi_rng *rng, size_t n, float deviation);

/* Every type that kernels multiply with. */
#define MFT_N_MLX   (6 * 3 * 3)
#define MFT_N_TYPES (3 + MFT_N_MLX + 25 + 2 + 1)
mfi_qtype mft_type(uint32_t i); /* floats, MLX, GGML, FP8, MXFP4 */

/* Random weights; MLX: all codes occur, scales about `scale`, biases so that the mean is about 0.
 * All other quantised types: random bits under scales of about `scale`. */
mfi_mat mft_random_mat(mfi_rng *rng, mfi_qtype type, uint32_t rows, uint32_t cols, float scale);
/* Parts of an element: w = product + offset (MLX; others: w and 0). Floats and MLX are decoded bit
 * by bit, other types by mfi_dequant_row, which has tests of its own. */
void mft_element(const mfi_mat *w, uint32_t row, uint32_t col, double *product, double *offset);
uint32_t mft_code(const mfi_mat *w, uint32_t row, uint32_t col);

/* Kernels of the levels of this machine: 0 .. mft_n_levels() - 1; 0 is plain C. */
uint32_t mft_n_levels(void);
const mfi_kernels *mft_level(uint32_t i);

#endif
