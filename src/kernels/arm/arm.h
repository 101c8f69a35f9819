/* The ARM levels. Nothing of a level but its table may be used before mfi_cpu_has() has said that
 * the machine has it. */
#ifndef MFI_KERNELS_ARM_ARM_H
#define MFI_KERNELS_ARM_ARM_H

#include "kernels/kernels.h"

void mfi_neon_matmul_f32(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                         size_t ldy, uint32_t row0, uint32_t row1);
void mfi_neon_matmul_q8(const mfi_mat *w, const mfi_q8 *x, uint32_t n_tok, float *y, size_t ldy,
                        uint32_t row0, uint32_t row1);
void mfi_i8mm_matmul_q8(const mfi_mat *w, const mfi_q8 *x, uint32_t n_tok, float *y, size_t ldy,
                        uint32_t row0, uint32_t row1);
/* The same for types without an integer form (matmul_f32_neon.c). */
void mfi_neon_block_q8(const mfi_mat *w, const mfi_q8 *x, uint32_t n_tok, float *y, size_t ldy,
                       uint32_t row0, uint32_t row1);
void mfi_neon_quantize_q8(const float *x, uint32_t n, const mfi_q8 *to);

extern const mfi_kernels mfi_neon_kernels, mfi_i8mm_kernels;

#endif
