/* Decoders of the GGML block types: one function a type, a whole block a call. For quant/ only;
 * others ask for one by type number (mfi_ggml_decoder). Pure functions on the caller's memory,
 * which needs no alignment. A product or sum is rounded once, in the order written: it is part of
 * the format that every reader gets the same bits. */
#ifndef MFI_QUANT_GGML_DECODE_H
#define MFI_QUANT_GGML_DECODE_H

#include <string.h>

#include "quant/quant.h"

/* ggml_legacy.c */
mfi_block_decoder mfi_ggml_q4_0, mfi_ggml_q4_1, mfi_ggml_q5_0, mfi_ggml_q5_1, mfi_ggml_q8_0,
    mfi_ggml_q1_0, mfi_ggml_q2_0;
/* ggml_k.c */
mfi_block_decoder mfi_ggml_q2_k, mfi_ggml_q3_k, mfi_ggml_q4_k, mfi_ggml_q5_k, mfi_ggml_q6_k;
/* ggml_iq.c */
mfi_block_decoder mfi_ggml_iq1_s, mfi_ggml_iq1_m, mfi_ggml_iq2_xxs, mfi_ggml_iq2_xs, mfi_ggml_iq2_s,
    mfi_ggml_iq3_xxs, mfi_ggml_iq3_s, mfi_ggml_iq4_nl, mfi_ggml_iq4_xs;
/* ggml_ternary.c */
mfi_block_decoder mfi_ggml_tq1_0, mfi_ggml_tq2_0;
/* ggml_fp4.c */
mfi_block_decoder mfi_ggml_mxfp4, mfi_ggml_nvfp4;

/* What a code of E2M1 stands for, times two; 2^(e - 127) of an E8M0 exponent, halved. */
extern const int8_t mfi_e2m1_doubled[16];
float mfi_e8m0_half(uint8_t e);

static inline uint16_t mfi_load16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t mfi_load32(const uint8_t *p)
{
    return mfi_load16(p) | (uint32_t)mfi_load16(p + 2) << 16;
}

static inline float mfi_load_f16(const uint8_t *p)
{
    return mfi_f16_to_f32(mfi_load16(p));
}

#endif
