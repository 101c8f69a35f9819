/* The ternary GGML types: 256 elements of -1, 0 or 1 under one scale. Called through
 * mfi_ggml_decoder on any thread; no state. */
#include "quant/ggml_decode.h"

/* Digit n of a byte that holds digits to the base 3 as a fraction of 256: multiplied by 3^n, what
 * is below the point times 3 has the digit above it. The product wraps, which drops higher digits.
 */
static float digit(uint8_t byte, int n)
{
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    uint8_t fraction = (uint8_t)(byte * power[n]);
    return (float)((fraction * 3 >> 8) - 1);
}

/* n_bytes bytes of n_digits each: the first digits of all, then the second ones, ... */
static float *digits(const uint8_t *bytes, int n_bytes, int n_digits, float d, float *out)
{
    for (int n = 0; n < n_digits; n++)
        for (int i = 0; i < n_bytes; i++)
            *out++ = d * digit(bytes[i], n);
    return out;
}

/* 54 bytes: 32 and 16 bytes of five digits, 4 bytes of four, scale. */
void mfi_ggml_tq1_0(const uint8_t *block, float *out)
{
    float d = mfi_load_f16(block + 52);
    out = digits(block, 32, 5, d, out);
    out = digits(block + 32, 16, 5, d, out);
    digits(block + 48, 4, 4, d, out);
}

/* 66 bytes: codes of two bits for -1, 0, 1 (and 2, which no encoder writes), scale. 32 bytes hold
 * 128 elements: bits 0-1 the first 32, 2-3 the next, ... */
void mfi_ggml_tq2_0(const uint8_t *block, float *out)
{
    float d = mfi_load_f16(block + 64);
    for (int s = 0; s < 8; s++)
        for (int i = 0; i < 32; i++)
            *out++ = d * (float)((block[s / 4 * 32 + i] >> s % 4 * 2 & 3) - 1);
}
