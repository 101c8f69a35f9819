/* The IQ types: groups of 8 or 4 magnitudes are entries of a list (ggml_iq_tables.h), with signs
 * beside them; IQ4 has a curve of 16 values instead. Called through mfi_ggml_decoder on any thread;
 * no state. */
#include "quant/ggml_decode.h"
#include "quant/ggml_iq_tables.h"

/* Eight signs from seven stored: the last makes the number of minus signs even. */
static uint32_t even_signs(uint32_t seven)
{
    return seven | (uint32_t)__builtin_parity(seven) << 7;
}

/* Eight elements: levels of a grid of two-bit codes, with signs, times d. */
static float *emit8(uint16_t entry, uint32_t signs, float d, float *out)
{
    static const float level[4] = {8, 25, 43, 0};
    for (int i = 0; i < 8; i++) {
        float v = d * level[entry >> 2 * i & 3];
        *out++ = signs >> i & 1 ? -v : v;
    }
    return out;
}

/* 66 bytes: scale, then 8 bytes for each 32 elements: four grid indices of 8 bits; four times seven
 * signs and on top the four-bit scale. */
void mfi_ggml_iq2_xxs(const uint8_t *block, float *out)
{
    float d = mfi_load_f16(block);
    for (int s = 0; s < 8; s++) {
        const uint8_t *index = block + 2 + 8 * s;
        uint32_t rest = mfi_load32(index + 4);
        float db = d * (0.5f + (float)(rest >> 28)) * 0.25f;
        for (int i = 0; i < 4; i++)
            out = emit8(mfi_iq2_xxs_grid[index[i]], even_signs(rest >> 7 * i & 127), db, out);
    }
}

/* 74 bytes: scale, [2] for each 8 elements 9 bits of index and seven signs, [66] nibbles: scales of
 * 16 elements each. */
void mfi_ggml_iq2_xs(const uint8_t *block, float *out)
{
    float d = mfi_load_f16(block);
    for (int g = 0; g < 32; g++) {
        uint32_t v = mfi_load16(block + 2 + 2 * g);
        uint32_t scale = block[66 + g / 4] >> g / 2 % 2 * 4 & 15;
        float db = d * (0.5f + (float)scale) * 0.25f;
        out = emit8(mfi_iq2_xs_grid[v & 511], even_signs(v >> 9), db, out);
    }
}

/* 82 bytes: scale, [2] low 8 bits of the index of each 8 elements, [34] their signs, [66] the high
 * two bits of four indices, [74] nibbles: scales of 16 elements each. */
void mfi_ggml_iq2_s(const uint8_t *block, float *out)
{
    float d = mfi_load_f16(block);
    for (int g = 0; g < 32; g++) {
        uint32_t index = block[2 + g] | (block[66 + g / 4] >> g % 4 * 2 & 3u) << 8;
        uint32_t scale = block[74 + g / 4] >> g / 2 % 2 * 4 & 15;
        float db = d * (0.5f + (float)scale) * 0.25f;
        out = emit8(mfi_iq2_s_grid[index], block[34 + g], db, out);
    }
}

/* Four elements: levels of a grid of three-bit codes. */
static float *emit4(uint16_t entry, const float level[8], uint32_t signs, float d, float *out)
{
    for (int i = 0; i < 4; i++) {
        float v = d * level[entry >> 3 * i & 7];
        *out++ = signs >> i & 1 ? -v : v;
    }
    return out;
}

/* 98 bytes: scale, [2] an index for each 4 elements, [66] for each 32 elements four times seven
 * signs and on top the four-bit scale. */
void mfi_ggml_iq3_xxs(const uint8_t *block, float *out)
{
    static const float level[8] = {4, 12, 20, 28, 36, 44, 52, 62};
    float d = mfi_load_f16(block);
    for (int s = 0; s < 8; s++) {
        const uint8_t *index = block + 2 + 8 * s;
        uint32_t rest = mfi_load32(block + 66 + 4 * s);
        float db = d * (0.5f + (float)(rest >> 28)) * 0.5f;
        for (int i = 0; i < 4; i++) {
            uint32_t signs = even_signs(rest >> 7 * i & 127);
            out = emit4(mfi_iq3_xxs_grid[index[2 * i]], level, signs, db, out);
            out = emit4(mfi_iq3_xxs_grid[index[2 * i + 1]], level, signs >> 4, db, out);
        }
    }
}

/* 110 bytes: scale, [2] low 8 bits of the index of each 4 elements, [66] their ninth bits, [74]
 * signs, [106] nibbles: scales of 32 elements each. */
void mfi_ggml_iq3_s(const uint8_t *block, float *out)
{
    static const float level[8] = {1, 3, 5, 7, 9, 11, 13, 15};
    float d = mfi_load_f16(block);
    for (int g = 0; g < 64; g++) {
        uint32_t index = block[2 + g] | (block[66 + g / 8] >> g % 8 & 1u) << 8;
        int scale = block[106 + g / 16] >> g / 8 % 2 * 4 & 15;
        float db = d * (float)(1 + 2 * scale);
        out = emit4(mfi_iq3_s_grid[index], level, block[74 + g / 2] >> g % 2 * 4, db, out);
    }
}

/* Eight elements of -1, 0, 1, all moved by an eighth up or down. */
static float *emit_shifted(uint16_t entry, bool down, float d, float *out)
{
    float delta = down ? -0.125f : 0.125f;
    for (int i = 0; i < 8; i++)
        *out++ = d * ((float)((entry >> 2 * i & 3) - 1) + delta);
    return out;
}

/* 50 bytes: scale, [2] low 8 bits of the index of each 8 elements, [34] for each 32 elements four
 * times three high bits, a scale of three bits, and the direction of the shift. */
void mfi_ggml_iq1_s(const uint8_t *block, float *out)
{
    float d = mfi_load_f16(block);
    for (int g = 0; g < 32; g++) {
        uint32_t high = mfi_load16(block + 34 + g / 4 * 2);
        uint32_t index = block[2 + g] | (high >> g % 4 * 3 & 7) << 8;
        float dl = d * (float)(2 * (high >> 12 & 7) + 1);
        out = emit_shifted(mfi_iq1_grid[index], high >> 15, dl, out);
    }
}

/* 56 bytes: [0] low 8 bits of the index of each 8 elements, [32] a nibble for each: three high bits
 * and the direction of the shift, [48] four 16-bit words of four three-bit scales, for 16 elements
 * each; their top nibbles make the half float that scales all. */
void mfi_ggml_iq1_m(const uint8_t *block, float *out)
{
    uint32_t half = 0;
    for (int i = 0; i < 4; i++)
        half |= (uint32_t)(block[49 + 2 * i] >> 4) << 4 * i;
    float d = mfi_f16_to_f32((uint16_t)half);
    for (int g = 0; g < 32; g++) {
        uint32_t high = block[32 + g / 2] >> g % 2 * 4 & 15;
        uint32_t scale = mfi_load16(block + 48 + g / 8 * 2) >> g / 2 % 4 * 3 & 7;
        float dl = d * (float)(2 * scale + 1);
        out = emit_shifted(mfi_iq1_grid[block[g] | (high & 7) << 8], high >> 3, dl, out);
    }
}

const int8_t mfi_iq4_curve[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                  1,    13,   25,  38,  53,  69,  89,  113};

/* 18 bytes: scale, nibbles: element i low, element i + 16 high. */
void mfi_ggml_iq4_nl(const uint8_t *block, float *out)
{
    float d = mfi_load_f16(block);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)mfi_iq4_curve[block[2 + i] & 15];
        out[i + 16] = d * (float)mfi_iq4_curve[block[2 + i] >> 4];
    }
}

/* 136 bytes: scale, [2] eight times two high bits of a scale, [4] nibbles: the low ones, [8] for
 * each 32 elements 16 bytes as in iq4_nl. */
void mfi_ggml_iq4_xs(const uint8_t *block, float *out)
{
    float d = mfi_load_f16(block);
    uint32_t high = mfi_load16(block + 2);
    for (int s = 0; s < 8; s++, out += 32) {
        const uint8_t *q = block + 8 + 16 * s;
        int scale = (int)((block[4 + s / 2] >> s % 2 * 4 & 15) | (high >> 2 * s & 3) << 4);
        float dl = d * (float)(scale - 32);
        for (int i = 0; i < 16; i++) {
            out[i] = dl * (float)mfi_iq4_curve[q[i] & 15];
            out[i + 16] = dl * (float)mfi_iq4_curve[q[i] >> 4];
        }
    }
}
