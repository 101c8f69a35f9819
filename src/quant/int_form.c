/* The integer form of each type in plain C; see quant/int_form.h. Called by the plain products
 * and by the plan's choice of activations, on any thread. The layouts are told in quant/ggml_*.c.
 */
#include "quant/int_form.h"

#include <string.h>

#include "quant/ggml_decode.h"

enum { Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q2_K = 10, Q3_K = 11, Q4_K = 12 };
enum { Q5_K = 13, Q6_K = 14, IQ4_NL = 20, IQ4_XS = 23, MXFP4 = 39 };

bool mfi_int_form_of(mfi_qtype type, mfi_int_form *form)
{
    static const struct {
        bool known;
        mfi_int_form form;
    } ggml[] = {
        [Q4_0] = {true, {.offset = 8}},
        [Q4_1] = {true, {.min = true}},
        [Q5_0] = {true, {.offset = 16}},
        [Q5_1] = {true, {.min = true}},
        [Q8_0] = {true, {.offset = 128, .wide = true}},
        [Q2_K] = {true, {.halves = true, .min = true}},
        [Q3_K] = {true, {.offset = 4, .halves = true}},
        [Q4_K] = {true, {.min = true}},
        [Q5_K] = {true, {.min = true}},
        [Q6_K] = {true, {.offset = 32, .halves = true}},
        [IQ4_NL] = {true, {.offset = 128, .wide = true}},
        [IQ4_XS] = {true, {.offset = 128, .wide = true}},
        [MXFP4] = {true, {.offset = 12}},
    };
    switch (type.kind) {
    case MFI_Q_MLX:
        *form = (mfi_int_form){.min = true, .wide = type.bits == 8};
        return true;
    case MFI_Q_MXFP4:
        *form = ggml[MXFP4].form;
        return true;
    case MFI_Q_GGML:
        if (type.bits >= MFI_ARRAY_LEN(ggml) || !ggml[type.bits].known)
            return false;
        *form = ggml[type.bits].form;
        return true;
    default:
        return false;
    }
}

static float load_float(uint32_t kind, const void *floats, uint32_t i)
{
    const uint8_t *base = floats;
    uint16_t h;
    float f;
    if (kind == MFI_Q_F32) {
        memcpy(&f, base + (size_t)i * 4, 4);
        return f;
    }
    memcpy(&h, base + (size_t)i * 2, 2);
    return kind == MFI_Q_F16 ? mfi_f16_to_f32(h) : mfi_bf16_to_f32(h);
}

static void mlx(mfi_qtype type, const void *const planes[3], uint32_t n, mfi_int_codes *out)
{
    const uint8_t *p = planes[0];
    const uint32_t bits = type.bits, mask = (1u << bits) - 1;
    for (uint32_t i = 0; i < n; i += 8, p += bits) { /* 8 codes are `bits` whole bytes */
        uint64_t v = 0;
        for (uint32_t j = 0; j < bits; j++)
            v |= (uint64_t)p[j] << (8 * j);
        for (uint32_t j = 0; j < 8; j++)
            out->code[i + j] = (uint8_t)(v >> (j * bits) & mask);
    }
    for (uint32_t b = 0; b < n / 32; b++) {
        out->scale[b] = load_float(type.scale, planes[1], b * 32 / type.group);
        out->min[b] = load_float(type.scale, planes[2], b * 32 / type.group);
    }
}

/* Element i of the first 16 bytes' low nibbles, 16 + i of their high ones. */
static void nibbles(const uint8_t *q, const int8_t *table, int offset, uint8_t code[32])
{
    for (int i = 0; i < 16; i++) {
        int lo = q[i] & 15, hi = q[i] >> 4;
        code[i] = (uint8_t)((table ? table[lo] : lo) + offset);
        code[i + 16] = (uint8_t)((table ? table[hi] : hi) + offset);
    }
}

static void mxfp4_planes(const void *const planes[3], uint32_t n, mfi_int_codes *out)
{
    const uint8_t *q = planes[0], *e = planes[1];
    const uint32_t nan = 0x7fc00000;
    for (uint32_t b = 0; b < n / 32; b++, q += 16) {
        for (int i = 0; i < 16; i++) {
            out->code[32 * b + 2 * (uint32_t)i] = (uint8_t)(mfi_e2m1_doubled[q[i] & 15] + 12);
            out->code[32 * b + 2 * (uint32_t)i + 1] = (uint8_t)(mfi_e2m1_doubled[q[i] >> 4] + 12);
        }
        out->scale[b] = mfi_e8m0_half(e[b]);
        if (e[b] == 255)
            memcpy(&out->scale[b], &nan, sizeof nan);
    }
}

/* A block of 32 elements. */
static void legacy(uint32_t type, const uint8_t *p, uint8_t code[32], float *scale, float *min)
{
    const bool q5 = type == Q5_0 || type == Q5_1, with_min = type == Q4_1 || type == Q5_1;
    const uint8_t *fifth = p + (with_min ? 4 : 2);
    *scale = type == MXFP4 ? mfi_e8m0_half(p[0]) : mfi_load_f16(p);
    if (with_min)
        *min = mfi_load_f16(p + 2);
    if (type == Q8_0) {
        for (int i = 0; i < 32; i++)
            code[i] = p[2 + i] ^ 0x80;
    } else if (type == MXFP4) {
        nibbles(p + 1, mfi_e2m1_doubled, 12, code);
    } else if (type == IQ4_NL) {
        nibbles(p + 2, mfi_iq4_curve, 128, code);
    } else {
        nibbles(fifth + (q5 ? 4 : 0), NULL, 0, code);
        for (int i = 0; q5 && i < 32; i++)
            code[i] |= (uint8_t)((mfi_load32(fifth) >> i & 1) << 4);
    }
}

/* Codes of two bits as q2_K and q3_K have them: element i of 256. */
static uint8_t two_bits(const uint8_t *q, int i)
{
    return q[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
}

static void q2_k(const uint8_t *p, mfi_int_codes *out)
{
    for (int s = 0; s < 16; s++) {
        out->scale[s] = mfi_load_f16(p + 80) * (float)(p[s] & 15);
        out->min[s] = -(mfi_load_f16(p + 82) * (float)(p[s] >> 4));
    }
    for (int i = 0; i < 256; i++)
        out->code[i] = two_bits(p + 16, i);
}

static void q3_k(const uint8_t *p, mfi_int_codes *out)
{
    for (int s = 0; s < 16; s++)
        out->scale[s] = mfi_load_f16(p + 108) * (float)(mfi_ggml_q3_scale(p + 96, s) - 32);
    for (int i = 0; i < 256; i++)
        out->code[i] = (uint8_t)(two_bits(p + 32, i) | (p[i % 32] >> i / 32 & 1) << 2);
}

static void q45_k(const uint8_t *p, const uint8_t *q, const uint8_t *fifth, mfi_int_codes *out)
{
    for (int s = 0; s < 8; s++) {
        float scale, min;
        mfi_ggml_scale_min(p + 4, s, &scale, &min);
        out->scale[s] = mfi_load_f16(p) * scale;
        out->min[s] = -(mfi_load_f16(p + 2) * min);
    }
    for (int i = 0; i < 256; i++)
        out->code[i] = (uint8_t)((q[i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15) |
                                 (fifth ? (fifth[i % 32] >> i / 32 & 1) << 4 : 0));
}

static void q6_k(const uint8_t *p, mfi_int_codes *out)
{
    for (int s = 0; s < 16; s++)
        out->scale[s] = mfi_load_f16(p + 208) * (float)(int8_t)p[192 + s];
    for (int i = 0; i < 256; i++)
        out->code[i] = (uint8_t)((p[i / 128 * 64 + i % 64] >> i / 64 % 2 * 4 & 15) |
                                 two_bits(p + 128, i) << 4);
}

static void iq4_xs(const uint8_t *p, mfi_int_codes *out)
{
    for (int s = 0; s < 8; s++) {
        int scale = (p[4 + s / 2] >> s % 2 * 4 & 15) | (mfi_load16(p + 2) >> 2 * s & 3) << 4;
        out->scale[s] = mfi_load_f16(p) * (float)(scale - 32);
        nibbles(p + 8 + 16 * s, mfi_iq4_curve, 128, out->code + 32 * s);
    }
}

void mfi_int_unpack(mfi_qtype type, const void *const planes[3], uint32_t n, mfi_int_codes *out)
{
    const uint8_t *p = planes[0];
    uint32_t n_elements = 0, n_bytes = 0;
    if (type.kind == MFI_Q_MLX) {
        mlx(type, planes, n, out);
        return;
    }
    if (type.kind == MFI_Q_MXFP4) {
        mxfp4_planes(planes, n, out);
        return;
    }
    MFI_ASSERT(mfi_ggml_block(type.bits, &n_elements, &n_bytes));
    if (n_elements == 32) {
        for (uint32_t b = 0; b < n / 32; b++, p += n_bytes)
            legacy(type.bits, p, out->code + 32 * b, &out->scale[b], &out->min[b]);
        return;
    }
    MFI_ASSERT(n == 256);
    switch (type.bits) {
    case Q2_K:
        q2_k(p, out);
        break;
    case Q3_K:
        q3_k(p, out);
        break;
    case Q4_K:
        q45_k(p, p + 16, NULL, out);
        break;
    case Q5_K:
        q45_k(p, p + 48, p + 16, out);
        break;
    case Q6_K:
        q6_k(p, out);
        break;
    default:
        iq4_xs(p, out);
    }
}
