/* The x86 levels. Nothing of a level but its table may be used before mfi_cpu_has() has said that
 * the machine has it. */
#ifndef MFI_KERNELS_X86_X86_H
#define MFI_KERNELS_X86_X86_H

#include "kernels/kernels.h"

void mfi_avx2_matmul_f32(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                         size_t ldy, uint32_t row0, uint32_t row1);
void mfi_avx512_matmul_f32(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                           size_t ldy, uint32_t row0, uint32_t row1);
void mfi_avx2_matmul_cols(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                          size_t ldy, uint32_t col0, uint32_t col1);
void mfi_avx2_matmul_q8(const mfi_mat *w, const mfi_q8 *x, uint32_t n_tok, float *y, size_t ldy,
                        uint32_t row0, uint32_t row1);
void mfi_avxvnni_matmul_q8(const mfi_mat *w, const mfi_q8 *x, uint32_t n_tok, float *y, size_t ldy,
                           uint32_t row0, uint32_t row1);
void mfi_avx512_matmul_q8(const mfi_mat *w, const mfi_q8 *x, uint32_t n_tok, float *y, size_t ldy,
                          uint32_t row0, uint32_t row1);
/* The same for types that these have no tiles for (matmul_block_avx2.c). */
void mfi_avx2_block_f32(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                        size_t ldy, uint32_t row0, uint32_t row1);
void mfi_avx2_block_q8(const mfi_mat *w, const mfi_q8 *x, uint32_t n_tok, float *y, size_t ldy,
                       uint32_t row0, uint32_t row1);
/* n elements, to the bit as mfi_dequant_row (decode_avx2.c); NULL: there is none for the type. */
typedef void mfi_avx2_decoder(const void *const planes[3], uint32_t n, float *out);
mfi_avx2_decoder *mfi_avx2_decoder_of(mfi_qtype type);
void mfi_avx2_quantize_q8(const float *x, uint32_t n, const mfi_q8 *to);
void mfi_avx2_silu_mul(const float *gate, const float *up, uint32_t n, float *y);
void mfi_avx2_glu_clamped(const float *gate, const float *up, float alpha, float limit, uint32_t n,
                          float *y);
void mfi_avx2_sigmoid_mul(float *y, const float *g, uint32_t n);
void mfi_avx2_attend(const mfi_attn *a);
void mfi_avx512_attend(const mfi_attn *a);
void mfi_avx2_store_row(const float *x, uint32_t n, mfi_qtype type, void *row);
void mfi_avx2_matmul_t(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                       size_t ldy, uint32_t row0, uint32_t n_rows);
void mfi_avx2_conv_silu(float *state, const float *w, const float *x, uint32_t n_ch,
                        uint32_t kernel, uint32_t c0, uint32_t c1, float *y);
void mfi_avx2_gdn_step(float *s, const float *q, const float *k, const float *v, float g,
                       float beta, uint32_t dk, uint32_t dv, float *out);

extern const mfi_kernels mfi_avx2_kernels, mfi_avxvnni_kernels, mfi_avx512_kernels;

#endif
