/* Decoders of the GGML block types: one function a type, a whole block a call, and the parts of the
 * layouts that faster decoders need as well. Everybody else asks by type number (mfi_ggml_decoder).
 * Pure functions on the caller's memory, which needs no alignment. A product or sum is rounded
 * once, in the order written: it is part of the format that every reader gets the same bits. */
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

extern const int8_t mfi_iq4_curve[16];

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

/* Scale and minimum of sub-block s, six bits each, from the 12 bytes that q4_K and q5_K have: bytes
 * 0-3 and 4-7 hold the first four of each in their low six bits; the low four bits of the others
 * are in bytes 8-11, the high two on top of the first eight bytes. */
static inline void mfi_ggml_scale_min(const uint8_t *p, int s, float *scale, float *min)
{
    int sc, m;
    if (s < 4) {
        sc = p[s] & 63;
        m = p[s + 4] & 63;
    } else {
        sc = (p[s + 4] & 15) | (p[s - 4] >> 6) << 4;
        m = p[s + 4] >> 4 | (p[s] >> 6) << 4;
    }
    *scale = (float)sc;
    *min = (float)m;
}

/* Scale s of the 16 that q3_K has in 12 bytes, as a number of six bits: the low four are nibble s /
 * 8 of byte s % 8, the high two are bits 2 (s / 4) of byte 8 + s % 4. */
static inline int mfi_ggml_q3_scale(const uint8_t *p, int s)
{
    return (p[s % 8] >> s / 8 * 4 & 15) | (p[8 + s % 4] >> s / 4 * 2 & 3) << 4;
}

#endif
