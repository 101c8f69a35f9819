/* The K types: 256 elements in sub-blocks of 16 or 32 whose scales (and minima) are small integers
 * times the block's own half floats. Called through mfi_ggml_decoder on any thread; no state. */
#include "quant/ggml_decode.h"

/* 84 bytes: [0] 16 pairs of nibbles: scale, minimum of 16 elements each; [16] codes of two bits,
 * [80] scale, [82] minimum. 32 bytes hold 128 elements: bits 0-1 the first 32, 2-3 the next, ... */
void mfi_ggml_q2_k(const uint8_t *block, float *out)
{
    float d = mfi_load_f16(block + 80), dmin = mfi_load_f16(block + 82);
    for (int s = 0; s < 16; s++) {
        const uint8_t *q = block + 16 + s / 8 * 32 + s % 2 * 16;
        int shift = s / 2 % 4 * 2;
        float scale = d * (float)(block[s] & 15), min = dmin * (float)(block[s] >> 4);
        for (int i = 0; i < 16; i++)
            *out++ = scale * (float)(q[i] >> shift & 3) - min;
    }
}

/* 110 bytes: [0] third bits: bit j of byte i is element 32 j + i; [32] codes of two bits as in
 * q2_K; [96] 16 scales of six bits; [108] scale. A third bit that is clear takes 4 off. */
void mfi_ggml_q3_k(const uint8_t *block, float *out)
{
    float d = mfi_load_f16(block + 108);
    for (int s = 0; s < 16; s++) {
        const uint8_t *q = block + 32 + s / 8 * 32 + s % 2 * 16, *high = block + s % 2 * 16;
        int shift = s / 2 % 4 * 2, bit = s / 2;
        float scale = d * (float)(mfi_ggml_q3_scale(block + 96, s) - 32);
        for (int i = 0; i < 16; i++)
            *out++ = scale * (float)((q[i] >> shift & 3) - (high[i] >> bit & 1 ? 0 : 4));
    }
}

/* 144 bytes: scale, minimum, [4] sub-scales and minima, [16] nibbles: 32 bytes hold 64 elements,
 * the first 32 in the low ones. */
void mfi_ggml_q4_k(const uint8_t *block, float *out)
{
    float d = mfi_load_f16(block), dmin = mfi_load_f16(block + 2), scale, min;
    for (int s = 0; s < 8; s++) {
        const uint8_t *q = block + 16 + s / 2 * 32;
        int shift = s % 2 * 4;
        mfi_ggml_scale_min(block + 4, s, &scale, &min);
        scale *= d;
        min *= dmin;
        for (int i = 0; i < 32; i++)
            *out++ = scale * (float)(q[i] >> shift & 15) - min;
    }
}

/* 176 bytes: as q4_K, with fifth bits at [16]: bit s of byte i is element 32 s + i. */
void mfi_ggml_q5_k(const uint8_t *block, float *out)
{
    float d = mfi_load_f16(block), dmin = mfi_load_f16(block + 2), scale, min;
    const uint8_t *high = block + 16;
    for (int s = 0; s < 8; s++) {
        const uint8_t *q = block + 48 + s / 2 * 32;
        int shift = s % 2 * 4;
        mfi_ggml_scale_min(block + 4, s, &scale, &min);
        scale *= d;
        min *= dmin;
        for (int i = 0; i < 32; i++)
            *out++ = scale * (float)((q[i] >> shift & 15) | (high[i] >> s & 1) << 4) - min;
    }
}

/* 210 bytes: [0] low nibbles: 64 bytes hold 128 elements, the first 64 in the low ones; [128] high
 * bit pairs: 32 bytes hold 128 elements as in q2_K; [192] 16 signed scales; [208] scale. */
void mfi_ggml_q6_k(const uint8_t *block, float *out)
{
    float d = mfi_load_f16(block + 208);
    for (int s = 0; s < 16; s++) {
        const uint8_t *low = block + s / 8 * 64 + s % 4 * 16;
        const uint8_t *high = block + 128 + s / 8 * 32 + s % 2 * 16;
        int low_shift = s / 4 % 2 * 4, high_shift = s / 2 % 4 * 2;
        float scale = d * (float)(int8_t)block[192 + s];
        for (int i = 0; i < 16; i++) {
            int code = (low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4;
            *out++ = scale * (float)(code - 32);
        }
    }
}
