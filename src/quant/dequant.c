/* Scalar decoding of every weight type: the plain reference that kernels are held against, and the
 * conversions between float widths. Pure functions on the caller's memory; any thread. Reads no
 * byte past the n elements asked for, and needs no alignment. */
#include <string.h>

#include "quant/ggml_decode.h"

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static uint16_t load16(const void *base, uint64_t i)
{
    uint16_t v;
    memcpy(&v, (const uint8_t *)base + i * sizeof v, sizeof v);
    return v;
}

float mfi_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exp = (h >> 10) & 0x1f;
    uint32_t frac = h & 0x3ff;

    if (exp == 0x1f) /* a NaN becomes a quiet one, as the hardware does it */
        return float_of(sign | 0x7f800000 | (frac ? 0x400000 | frac << 13 : 0));
    if (exp == 0) { /* zero or frac * 2^-24, which a float holds exactly */
        float f = (float)frac * 0x1p-24f;
        return float_of(sign | bits_of(f));
    }
    return float_of(sign | (exp + 112) << 23 | frac << 13);
}

/* Drops `shift` low bits of v, rounding to nearest, ties to even. */
static uint32_t round_off(uint32_t v, uint32_t shift)
{
    uint32_t half = (uint32_t)1 << (shift - 1);
    uint32_t odd = (v >> shift) & 1;
    return (v + half - 1 + odd) >> shift;
}

uint16_t mfi_f32_to_f16(float f)
{
    uint32_t u = bits_of(f);
    uint32_t sign = (u >> 16) & 0x8000;
    uint32_t mag = u & 0x7fffffff;

    if (mag > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (mag >> 13 & 0x3ff));
    if (mag >= 0x477ff000) /* 65520 and more round to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (mag >= 0x38800000) /* normal: a carry out of the fraction raises the exponent rightly */
        return (uint16_t)(sign | (round_off(mag, 13) - (112u << 10)));
    if (mag < 0x33000000) /* below 2^-25 */
        return (uint16_t)sign;
    uint32_t exp = mag >> 23;
    uint32_t frac = (mag & 0x7fffff) | 0x800000;
    return (uint16_t)(sign | round_off(frac, 126 - exp));
}

uint16_t mfi_f32_to_bf16(float f)
{
    uint32_t u = bits_of(f);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40); /* stays a NaN although its low bits go */
    return (uint16_t)round_off(u, 16);
}

/* A float rounded to a scale type and widened again. */
static float round_to(mfi_qkind kind, float f)
{
    switch (kind) {
    case MFI_Q_F16:
        return mfi_f16_to_f32(mfi_f32_to_f16(f));
    case MFI_Q_BF16:
        return mfi_bf16_to_f32(mfi_f32_to_bf16(f));
    default:
        return f;
    }
}

static float load_float(mfi_qkind kind, const void *base, uint64_t i)
{
    float f;
    switch (kind) {
    case MFI_Q_F16:
        return mfi_f16_to_f32(load16(base, i));
    case MFI_Q_BF16:
        return mfi_bf16_to_f32(load16(base, i));
    default:
        memcpy(&f, (const uint8_t *)base + i * sizeof f, sizeof f);
        return f;
    }
}

/* Element i of a stream of `bits`-wide codes, lowest bit first; at most two bytes hold it. */
static uint32_t load_code(const uint8_t *stream, uint64_t i, uint32_t bits)
{
    uint64_t bit = i * bits;
    uint32_t shift = bit & 7;
    uint32_t v = stream[bit >> 3];
    if (shift + bits > 8)
        v |= (uint32_t)stream[(bit >> 3) + 1] << 8;
    return (v >> shift) & ((1u << bits) - 1);
}

static void mlx_row(mfi_qtype type, const void *const planes[], uint64_t n, float *out)
{
    for (uint64_t i = 0; i < n; i++) {
        float scale = load_float(type.scale, planes[1], i / type.group);
        float bias = load_float(type.scale, planes[2], i / type.group);
        float product = (float)load_code(planes[0], i, type.bits) * scale;
        out[i] = round_to(type.scale, round_to(type.scale, product) + bias);
    }
}

static void ggml_row(mfi_qtype type, const uint8_t *blocks, uint64_t n, float *out)
{
    uint32_t n_elements = 1, n_bytes = 0;
    mfi_block_decoder *decode = mfi_ggml_decoder(type.bits);
    MFI_ASSERT(mfi_ggml_block(type.bits, &n_elements, &n_bytes) && n % n_elements == 0);
    for (uint64_t i = 0; i < n; i += n_elements, blocks += n_bytes)
        decode(blocks, out + i);
}

float mfi_e4m3_to_f32(uint8_t b)
{
    if ((b & 0x7f) == 0x7f)
        return float_of(0x7fc00000 | (uint32_t)(b & 0x80) << 24);
    /* The bits of a half whose exponent is biased by 8 more. */
    return mfi_f16_to_f32((uint16_t)((b & 0x80) << 8 | (b & 0x7f) << 7)) * 256;
}

static void fp8_row(mfi_qtype type, const uint8_t *codes, const void *scales, uint64_t n,
                    float *out)
{
    for (uint64_t i = 0; i < n; i++)
        out[i] = mfi_e4m3_to_f32(codes[i]) * load_float(type.scale, scales, i / MFI_FP8_BLOCK);
}

static void mxfp4_row(const uint8_t *codes, const uint8_t *exponents, uint64_t n, float *out)
{
    MFI_ASSERT(n % 32 == 0);
    for (uint64_t b = 0; b < n / 32; b++, codes += 16, out += 32) {
        float d = exponents[b] == 255 ? float_of(0x7fc00000) : mfi_e8m0_half(exponents[b]);
        for (int i = 0; i < 16; i++) {
            out[2 * i] = d * (float)mfi_e2m1_doubled[codes[i] & 15];
            out[2 * i + 1] = d * (float)mfi_e2m1_doubled[codes[i] >> 4];
        }
    }
}

void mfi_dequant_row_wide(mfi_qtype type, const void *const planes[], uint64_t n, float *out)
{
    if (type.kind != MFI_Q_MLX) {
        mfi_dequant_row(type, planes, n, out);
        return;
    }
    for (uint64_t i = 0; i < n; i++) {
        float scale = load_float(type.scale, planes[1], i / type.group);
        float bias = load_float(type.scale, planes[2], i / type.group);
        out[i] = (float)load_code(planes[0], i, type.bits) * scale + bias;
    }
}

void mfi_dequant_row(mfi_qtype type, const void *const planes[], uint64_t n, float *out)
{
    switch (type.kind) {
    case MFI_Q_MLX:
        mlx_row(type, planes, n, out);
        break;
    case MFI_Q_GGML:
        ggml_row(type, planes[0], n, out);
        break;
    case MFI_Q_FP8:
        fp8_row(type, planes[0], planes[1], n, out);
        break;
    case MFI_Q_MXFP4:
        mxfp4_row(planes[0], planes[1], n, out);
        break;
    default:
        MFI_ASSERT(mfi_qtype_is_float(type));
        for (uint64_t i = 0; i < n; i++)
            out[i] = load_float(type.kind, planes[0], i);
    }
}
