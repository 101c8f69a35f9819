/* Decoding every other type on the device, and any type chosen at run time: for one source file,
 * matmul_any.cu, which has the lists of the IQ types. */
#ifndef MFI_BACKEND_CUDA_DECODE_ANY_CUH
#define MFI_BACKEND_CUDA_DECODE_ANY_CUH

#include "backend/cuda/decode.cuh"

/* The code of eight 4-bit elements: i and i + 16 of a block share a byte. */
MFI_DEV void split_nibbles(const uint8_t *q, int i8, uint32_t v[8])
{
    EACH8(i) v[i] = q[i8 % 2 * 8 + i] >> i8 / 2 * 4 & 15;
}

MFI_DEV void q4_legacy(const uint8_t *b, int i8, bool min, float w[8])
{
    uint32_t v[8];
    float d = half_at(b), m = min ? half_at(b + 2) : 0;
    split_nibbles(b + (min ? 4 : 2), i8, v);
    EACH8(i) w[i] = min ? d * (float)v[i] + m : d * (float)((int)v[i] - 8);
}

MFI_DEV void q5_legacy(const uint8_t *b, int i8, bool min, float w[8])
{
    uint32_t v[8];
    const uint8_t *rest = b + (min ? 4 : 2);
    float d = half_at(b), m = min ? half_at(b + 2) : 0;
    uint32_t high = ld32(rest) >> 8 * i8;
    split_nibbles(rest + 4, i8, v);
    EACH8(i)
    {
        uint32_t code = v[i] | (high >> i & 1) << 4;
        w[i] = min ? d * (float)code + m : d * (float)((int)code - 16);
    }
}

MFI_DEV void q2_k(const uint8_t *b, int i8, float w[8])
{
    int s = i8 / 2, shift = s / 2 % 4 * 2;
    const uint8_t *q = b + 16 + s / 8 * 32 + s % 2 * 16 + i8 % 2 * 8;
    float scale = half_at(b + 80) * (float)(b[s] & 15), min = half_at(b + 82) * (float)(b[s] >> 4);
    EACH8(i) w[i] = scale * (float)(q[i] >> shift & 3) - min;
}

MFI_DEV void q3_k(const uint8_t *b, int i8, float w[8])
{
    int s = i8 / 2, shift = s / 2 % 4 * 2, bit = s / 2;
    const uint8_t *q = b + 32 + s / 8 * 32 + s % 2 * 16 + i8 % 2 * 8;
    const uint8_t *high = b + s % 2 * 16 + i8 % 2 * 8, *p = b + 96;
    int code = (p[s % 8] >> s / 8 * 4 & 15) | (p[8 + s % 4] >> s / 4 * 2 & 3) << 4;
    float scale = half_at(b + 108) * (float)(code - 32);
    EACH8(i) w[i] = scale * (float)((q[i] >> shift & 3) - (high[i] >> bit & 1 ? 0 : 4));
}

MFI_DEV void q1_0(const uint8_t *b, int i8, float w[8])
{
    float d = half_at(b);
    EACH8(i) w[i] = b[2 + i8] >> i & 1 ? d : -d;
}

MFI_DEV void q2_0(const uint8_t *b, int i8, float w[8])
{
    float d = half_at(b);
    EACH8(i) w[i] = (float)((b[2 + i8 * 2 + i / 4] >> 2 * (i % 4) & 3) - 1) * d;
}

MFI_DEV float digit(uint8_t byte, int n)
{
    const int power = n == 0 ? 1 : n == 1 ? 3 : n == 2 ? 9 : n == 3 ? 27 : 81;
    uint8_t fraction = (uint8_t)(byte * power);
    return (float)((fraction * 3 >> 8) - 1);
}

MFI_DEV void tq1_0(const uint8_t *b, int i8, float w[8])
{
    float d = half_at(b + 52);
    EACH8(i)
    {
        int e = i8 * 8 + i;
        w[i] = d * (e < 160   ? digit(b[e % 32], e / 32)
                    : e < 240 ? digit(b[32 + (e - 160) % 16], (e - 160) / 16)
                              : digit(b[48 + (e - 240) % 4], (e - 240) / 4));
    }
}

MFI_DEV void tq2_0(const uint8_t *b, int i8, float w[8])
{
    float d = half_at(b + 64);
    int s = i8 / 4;
    const uint8_t *q = b + s / 4 * 32 + i8 % 4 * 8;
    EACH8(i) w[i] = d * (float)((q[i] >> s % 4 * 2 & 3) - 1);
}

MFI_DEV void mxfp4(const uint8_t *b, int i8, float w[8])
{
    uint32_t v[8];
    float d = e8m0_half(b[0]);
    split_nibbles(b + 1, i8, v);
    EACH8(i) w[i] = d * e2m1_doubled(v[i]);
}

MFI_DEV float ue4m3_half(uint32_t b)
{
    uint32_t exp = b >> 3 & 15;
    float frac = (float)(b & 7);
    if (b == 0x7f)
        return 0;
    if (exp == 0)
        return frac * 0.0009765625f;
    return (1 + frac / 8) * __int_as_float((exp + 119) << 23);
}

MFI_DEV void nvfp4(const uint8_t *b, int i8, float w[8])
{
    float d = ue4m3_half(b[i8 / 2]);
    const uint8_t *q = b + 4 + 8 * (i8 / 2);
    EACH8(i) w[i] = d * e2m1_doubled(q[i] >> i8 % 2 * 4 & 15);
}

/* ---- IQ ---- */

/* Filled when the backend opens; quant/ggml_iq_tables.c has them. */
static __device__ uint16_t mfi_dev_iq2_xxs[256], mfi_dev_iq2_xs[512], mfi_dev_iq2_s[1024],
    mfi_dev_iq1[2048], mfi_dev_iq3_xxs[256], mfi_dev_iq3_s[512];

MFI_DEV uint32_t even_signs(uint32_t seven)
{
    return seven | (uint32_t)(__popc(seven) & 1) << 7;
}

MFI_DEV void emit8(uint32_t entry, uint32_t signs, float d, float w[8])
{
    EACH8(i)
    {
        uint32_t code = entry >> 2 * i & 3;
        float v = d * (code == 0 ? 8.0f : code == 1 ? 25.0f : code == 2 ? 43.0f : 0.0f);
        w[i] = signs >> i & 1 ? -v : v;
    }
}

MFI_DEV void iq2_xxs(const uint8_t *b, int i8, float w[8])
{
    const uint8_t *index = b + 2 + 8 * (i8 / 4);
    int i = i8 % 4;
    uint32_t rest = ld32(index + 4);
    float db = half_at(b) * (0.5f + (float)(rest >> 28)) * 0.25f;
    emit8(mfi_dev_iq2_xxs[index[i]], even_signs(rest >> 7 * i & 127), db, w);
}

MFI_DEV void iq2_xs(const uint8_t *b, int g, float w[8])
{
    uint32_t v = ld16(b + 2 + 2 * g), scale = b[66 + g / 4] >> g / 2 % 2 * 4 & 15;
    emit8(mfi_dev_iq2_xs[v & 511], even_signs(v >> 9),
          half_at(b) * (0.5f + (float)scale) * 0.25f, w);
}

MFI_DEV void iq2_s(const uint8_t *b, int g, float w[8])
{
    uint32_t index = b[2 + g] | (b[66 + g / 4] >> g % 4 * 2 & 3u) << 8;
    uint32_t scale = b[74 + g / 4] >> g / 2 % 2 * 4 & 15;
    emit8(mfi_dev_iq2_s[index], b[34 + g], half_at(b) * (0.5f + (float)scale) * 0.25f, w);
}

MFI_DEV void iq3_xxs(const uint8_t *b, int i8, float w[8])
{
    int s = i8 / 4, k = i8 % 4;
    const uint8_t *index = b + 2 + 8 * s + 2 * k;
    uint32_t rest = ld32(b + 66 + 4 * s), signs = even_signs(rest >> 7 * k & 127);
    float db = half_at(b) * (0.5f + (float)(rest >> 28)) * 0.5f;
    uint32_t first = mfi_dev_iq3_xxs[index[0]], second = mfi_dev_iq3_xxs[index[1]];
    EACH8(i)
    {
        uint32_t code = (i < 4 ? first : second) >> 3 * (i % 4) & 7;
        float v = db * (code == 7 ? 62.0f : (float)(4 + 8 * code));
        w[i] = signs >> i & 1 ? -v : v;
    }
}

MFI_DEV void iq3_s(const uint8_t *b, int i8, float w[8])
{
    uint32_t signs = b[74 + i8];
    int scale = b[106 + i8 / 8] >> i8 / 4 % 2 * 4 & 15;
    float db = half_at(b) * (float)(1 + 2 * scale);
    EACH8(i)
    {
        int g = 2 * i8 + i / 4;
        uint32_t entry = mfi_dev_iq3_s[b[2 + g] | (b[66 + g / 8] >> g % 8 & 1u) << 8];
        float v = db * (float)(1 + 2 * (entry >> 3 * (i % 4) & 7));
        w[i] = signs >> i & 1 ? -v : v;
    }
}

MFI_DEV void emit_shifted(uint32_t entry, bool down, float d, float w[8])
{
    float delta = down ? -0.125f : 0.125f;
    EACH8(i) w[i] = d * ((float)((int)(entry >> 2 * i & 3) - 1) + delta);
}

MFI_DEV void iq1_s(const uint8_t *b, int g, float w[8])
{
    uint32_t high = ld16(b + 34 + g / 4 * 2), index = b[2 + g] | (high >> g % 4 * 3 & 7) << 8;
    float dl = half_at(b) * (float)(2 * (high >> 12 & 7) + 1);
    emit_shifted(mfi_dev_iq1[index], high >> 15, dl, w);
}

MFI_DEV void iq1_m(const uint8_t *b, int g, float w[8])
{
    uint32_t half = 0;
#pragma unroll
    for (int i = 0; i < 4; i++)
        half |= (uint32_t)(b[49 + 2 * i] >> 4) << 4 * i;
    float d = __half2float(__ushort_as_half((unsigned short)half));
    uint32_t high = b[32 + g / 2] >> g % 2 * 4 & 15;
    uint32_t scale = ld16(b + 48 + g / 8 * 2) >> g / 2 % 4 * 3 & 7;
    emit_shifted(mfi_dev_iq1[b[g] | (high & 7) << 8], high >> 3, d * (float)(2 * scale + 1), w);
}

static __device__ const int8_t iq4_curve[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                1,    13,   25,  38,  53,  69,  89,  113};

MFI_DEV void iq4_nl(const uint8_t *b, int i8, float w[8])
{
    uint32_t v[8];
    float d = half_at(b);
    split_nibbles(b + 2, i8, v);
    EACH8(i) w[i] = d * (float)iq4_curve[v[i]];
}

MFI_DEV void iq4_xs(const uint8_t *b, int i8, float w[8])
{
    uint32_t v[8], high = ld16(b + 2);
    int s = i8 / 4;
    int scale = (int)((b[4 + s / 2] >> s % 2 * 4 & 15) | (high >> 2 * s & 3) << 4);
    float dl = half_at(b) * (float)(scale - 32);
    split_nibbles(b + 8 + 16 * s, i8 % 4, v);
    EACH8(i) w[i] = dl * (float)iq4_curve[v[i]];
}

MFI_DEV float e4m3(uint32_t b)
{
    if ((b & 0x7f) == 0x7f)
        return __int_as_float(0x7fc00000);
    return __half2float(__ushort_as_half((unsigned short)((b & 0x80) << 8 | (b & 0x7f) << 7))) *
           256;
}

struct dec_fp8 {
    MFI_DEV void get(const mfi_cuda_mat &m, const uint8_t *const p[3], uint32_t row, uint32_t col,
                     float w[8])
    {
        const uint8_t *at = p[0] + row * m.row_bytes[0] + col;
        uint32_t left = m.cols - col;
        EACH8(i) w[i] = i < left ? e4m3(at[i]) * load_float(m.type.scale,
                                                            p[1] + row / 128 * m.row_bytes[1],
                                                            (col + i) / 128)
                                 : 0;
    }
};

/* ---- any type, chosen at run time ---- */

static __device__ __noinline__ void ggml_any(uint32_t type, const uint8_t *b, int i8, float w[8])
{
    switch (type) {
    case 2: q4_legacy(b, i8, false, w); break;
    case 3: q4_legacy(b, i8, true, w); break;
    case 6: q5_legacy(b, i8, false, w); break;
    case 7: q5_legacy(b, i8, true, w); break;
    case 8: q8_0(b, i8, w); break;
    case 10: q2_k(b, i8, w); break;
    case 11: q3_k(b, i8, w); break;
    case 12: q4_k(b, i8, w); break;
    case 13: q5_k(b, i8, w); break;
    case 14: q6_k(b, i8, w); break;
    case 16: iq2_xxs(b, i8, w); break;
    case 17: iq2_xs(b, i8, w); break;
    case 18: iq3_xxs(b, i8, w); break;
    case 19: iq1_s(b, i8, w); break;
    case 20: iq4_nl(b, i8, w); break;
    case 21: iq3_s(b, i8, w); break;
    case 22: iq2_s(b, i8, w); break;
    case 23: iq4_xs(b, i8, w); break;
    case 29: iq1_m(b, i8, w); break;
    case 34: tq1_0(b, i8, w); break;
    case 35: tq2_0(b, i8, w); break;
    case 39: mxfp4(b, i8, w); break;
    case 40: nvfp4(b, i8, w); break;
    case 41: q1_0(b, i8, w); break;
    default: q2_0(b, i8, w); break; /* 42; mfi_cuda_takes refuses others */
    }
}

static __device__ __noinline__ void mlx_any(const mfi_cuda_mat &m, const uint8_t *const p[3],
                                            uint32_t row, uint32_t col, float w[8])
{
    switch (m.type.bits) {
    case 2: dec_mlx<2>::get(m, p, row, col, w); break;
    case 3: dec_mlx<3>::get(m, p, row, col, w); break;
    case 4: dec_mlx<4>::get(m, p, row, col, w); break;
    case 5: dec_mlx<5>::get(m, p, row, col, w); break;
    case 6: dec_mlx<6>::get(m, p, row, col, w); break;
    default: dec_mlx<8>::get(m, p, row, col, w); break;
    }
}

struct dec_any {
    static const bool exact = false;
    MFI_DEV void get(const mfi_cuda_mat &m, const uint8_t *const p[3], uint32_t row, uint32_t col,
                     float w[8])
    {
        switch (m.type.kind) {
        case MFI_CUDA_F32: dec_float<MFI_CUDA_F32>::get(m, p, row, col, w); break;
        case MFI_CUDA_F16: dec_float<MFI_CUDA_F16>::get(m, p, row, col, w); break;
        case MFI_CUDA_BF16: dec_float<MFI_CUDA_BF16>::get(m, p, row, col, w); break;
        case MFI_CUDA_MLX: mlx_any(m, p, row, col, w); break;
        case MFI_CUDA_FP8: dec_fp8::get(m, p, row, col, w); break;
        case MFI_CUDA_MXFP4: dec_mxfp4::get(m, p, row, col, w); break;
        default:
            ggml_any(m.type.bits,
                     p[0] + row * m.row_bytes[0] + (uint64_t)(col / m.n_elements) * m.n_bytes,
                     (int)(col % m.n_elements / 8), w);
        }
    }
};

#endif
