/* The plain C level: every entry of the table, in the most readable form that is still usable where
 * no faster level exists. These functions are the specification. */
#ifndef MFI_KERNELS_REF_REF_H
#define MFI_KERNELS_REF_REF_H

#include "kernels/kernels.h"

void mfi_ref_matmul_f32(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                        size_t ldy, uint32_t row0, uint32_t row1);
void mfi_ref_matmul_q8(const mfi_mat *w, const mfi_q8 *x, uint32_t n_tok, float *y, size_t ldy,
                       uint32_t row0, uint32_t row1);
void mfi_ref_matmul_cols(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                         size_t ldy, uint32_t col0, uint32_t col1);
void mfi_ref_quantize_q8(const float *x, uint32_t n, const mfi_q8 *to);
void mfi_ref_get_row(const mfi_mat *w, uint32_t row, float *out);
void mfi_ref_silu_mul(const float *gate, const float *up, uint32_t n, float *y);
void mfi_ref_glu_clamped(const float *gate, const float *up, float alpha, float limit, uint32_t n,
                         float *y);
void mfi_ref_sigmoid_mul(float *y, const float *g, uint32_t n);
void mfi_ref_attend(const mfi_attn *a);
void mfi_ref_store_row(const float *x, uint32_t n, mfi_qtype type, void *row);
void mfi_ref_matmul_t(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                      size_t ldy, uint32_t row0, uint32_t n_rows);
void mfi_ref_conv_silu(float *state, const float *w, const float *x, uint32_t n_ch, uint32_t kernel,
                       uint32_t c0, uint32_t c1, float *y);
void mfi_ref_gdn_step(float *s, const float *q, const float *k, const float *v, float g, float beta,
                      uint32_t dk, uint32_t dv, float *out);
void mfi_ref_route(const mfi_routing *r, const float *logits, const float *correction, uint32_t n,
                   uint32_t top_k, uint16_t *ids, float *weights);

extern const mfi_kernels mfi_ref_kernels;

#endif
