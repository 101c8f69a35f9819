/* The GGML types of four-bit floats (E2M1). Called through mfi_ggml_decoder on any thread; no
 * state. Scales are halved and the codes' values doubled, which makes those integers. */
#include "quant/ggml_decode.h"

const int8_t mfi_e2m1_doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

float mfi_e8m0_half(uint8_t e)
{
    /* 2^(e - 128), subnormal for 0 and 1 */
    uint32_t u = e < 2 ? (uint32_t)0x200000 << e : (uint32_t)(e - 1) << 23;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Half of an E4M3 number without its sign bit; the code of NaN counts as zero. */
static float ue4m3_half(uint8_t b)
{
    int exp = b >> 3 & 15;
    float frac = (float)(b & 7);
    if (b == 0x7f)
        return 0;
    if (exp == 0)
        return frac * 0x1p-10f;
    uint32_t u = (uint32_t)(exp - 8 + 127) << 23; /* 2^(exp - 7) / 2 */
    float power;
    memcpy(&power, &u, sizeof power);
    return (1 + frac / 8) * power;
}

/* 17 bytes: exponent, nibbles: element i low, element i + 16 high. */
void mfi_ggml_mxfp4(const uint8_t *block, float *out)
{
    float d = mfi_e8m0_half(block[0]);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)mfi_e2m1_doubled[block[1 + i] & 15];
        out[i + 16] = d * (float)mfi_e2m1_doubled[block[1 + i] >> 4];
    }
}

/* 36 bytes: four scales, then eight bytes of nibbles for each 16 elements: element i low, i + 8
 * high. */
void mfi_ggml_nvfp4(const uint8_t *block, float *out)
{
    for (int s = 0; s < 4; s++, out += 16) {
        float d = ue4m3_half(block[s]);
        const uint8_t *q = block + 4 + 8 * s;
        for (int i = 0; i < 8; i++) {
            out[i] = d * (float)mfi_e2m1_doubled[q[i] & 15];
            out[i + 8] = d * (float)mfi_e2m1_doubled[q[i] >> 4];
        }
    }
}
