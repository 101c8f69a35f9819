/* The plain GGML block types: 32 to 128 codes under one scale, some with a minimum. Called through
 * mfi_ggml_decoder on any thread; no state. In the 32-element types byte i holds element i in its
 * low nibble and element i + 16 in its high one. */
#include "quant/ggml_decode.h"

/* 18 bytes: scale, 16 bytes of nibbles. */
void mfi_ggml_q4_0(const uint8_t *block, float *out)
{
    float d = mfi_load_f16(block);
    const uint8_t *q = block + 2;
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((q[i] & 15) - 8);
        out[i + 16] = d * (float)((q[i] >> 4) - 8);
    }
}

/* 20 bytes: scale, minimum, 16 bytes of nibbles. */
void mfi_ggml_q4_1(const uint8_t *block, float *out)
{
    float d = mfi_load_f16(block), min = mfi_load_f16(block + 2);
    const uint8_t *q = block + 4;
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)(q[i] & 15) + min;
        out[i + 16] = d * (float)(q[i] >> 4) + min;
    }
}

/* 22 bytes: scale, the fifth bits of all elements, 16 bytes of nibbles. */
void mfi_ggml_q5_0(const uint8_t *block, float *out)
{
    float d = mfi_load_f16(block);
    uint32_t high = mfi_load32(block + 2);
    const uint8_t *q = block + 6;
    for (int i = 0; i < 16; i++) {
        int lo = (int)((q[i] & 15) | (high >> i & 1) << 4);
        int hi = (int)((q[i] >> 4) | (high >> (i + 16) & 1) << 4);
        out[i] = d * (float)(lo - 16);
        out[i + 16] = d * (float)(hi - 16);
    }
}

/* 24 bytes: scale, minimum, fifth bits, nibbles. */
void mfi_ggml_q5_1(const uint8_t *block, float *out)
{
    float d = mfi_load_f16(block), min = mfi_load_f16(block + 2);
    uint32_t high = mfi_load32(block + 4);
    const uint8_t *q = block + 8;
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((q[i] & 15) | (high >> i & 1) << 4) + min;
        out[i + 16] = d * (float)((q[i] >> 4) | (high >> (i + 16) & 1) << 4) + min;
    }
}

/* 34 bytes: scale, 32 signed bytes. */
void mfi_ggml_q8_0(const uint8_t *block, float *out)
{
    float d = mfi_load_f16(block);
    for (int i = 0; i < 32; i++)
        out[i] = (float)(int8_t)block[2 + i] * d;
}

/* 18 bytes: scale, 128 bits: 1 for the scale, 0 for minus the scale. */
void mfi_ggml_q1_0(const uint8_t *block, float *out)
{
    float d = mfi_load_f16(block);
    for (int i = 0; i < 128; i++)
        out[i] = block[2 + i / 8] >> i % 8 & 1 ? d : -d;
}

/* 18 bytes: scale, 64 codes of two bits for -1, 0, 1, 2. */
void mfi_ggml_q2_0(const uint8_t *block, float *out)
{
    float d = mfi_load_f16(block);
    for (int i = 0; i < 64; i++)
        out[i] = (float)((block[2 + i / 4] >> 2 * (i % 4) & 3) - 1) * d;
}
