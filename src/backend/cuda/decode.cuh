/* Decoding weights on the device, eight columns at a time: what mfi_dequant_row_wide gives, to the
 * bit, but where a type says otherwise. Layouts: src/quant. Blocks lie at even addresses, MXFP4's
 * at any. */
#ifndef MFI_BACKEND_CUDA_DECODE_CUH
#define MFI_BACKEND_CUDA_DECODE_CUH

#include <cuda_fp16.h>

#include "backend/cuda/cuda_kernels.h"

#define MFI_DEV static __device__ __forceinline__

MFI_DEV uint32_t ld16(const uint8_t *p)
{
    return *(const uint16_t *)p;
}

MFI_DEV uint32_t ld32(const uint8_t *p) /* at an even address */
{
    return ld16(p) | ld16(p + 2) << 16;
}

MFI_DEV float half_at(const uint8_t *p)
{
    return __half2float(__ushort_as_half(*(const uint16_t *)p));
}

/* An integer below 2^23 as a float, without the slow conversion. */
MFI_DEV float small_float(uint32_t v)
{
    return __int_as_float(0x4b000000 | v) - 8388608.0f;
}

MFI_DEV float load_float(uint32_t kind, const uint8_t *base, uint64_t i)
{
    if (kind == MFI_CUDA_F32)
        return ((const float *)base)[i];
    uint32_t h = ((const uint16_t *)base)[i];
    return kind == MFI_CUDA_F16 ? __half2float(__ushort_as_half((unsigned short)h))
                                : __int_as_float(h << 16);
}

#define EACH8(i) _Pragma("unroll") for (int i = 0; i < 8; i++)

/* Types that have get(): eight columns of a row. Those that products take as a parameter say whether
 * all their values are exact in the matrix units' 11 bits. */

/* ---- floats ---- */

template <int KIND> struct dec_float {
    static const bool exact = KIND != MFI_CUDA_F32;
    MFI_DEV void get(const mfi_cuda_mat &m, const uint8_t *const p[3], uint32_t row, uint32_t col,
                     float w[8])
    {
        const uint32_t size = KIND == MFI_CUDA_F32 ? 4 : 2;
        const uint8_t *at = p[0] + row * m.row_bytes[0] + (uint64_t)col * size;
        uint32_t left = m.cols - col;
        if (left >= 8 && ((uintptr_t)at & 15) == 0) {
            if (KIND == MFI_CUDA_F32) {
                float4 a = ((const float4 *)at)[0], b = ((const float4 *)at)[1];
                w[0] = a.x, w[1] = a.y, w[2] = a.z, w[3] = a.w;
                w[4] = b.x, w[5] = b.y, w[6] = b.z, w[7] = b.w;
                return;
            }
            uint4 v = *(const uint4 *)at;
            uint32_t u[4] = {v.x, v.y, v.z, v.w};
            EACH8(i)
            {
                uint32_t h = u[i / 2] >> (i % 2 * 16) & 0xffff;
                w[i] = KIND == MFI_CUDA_F16 ? __half2float(__ushort_as_half((unsigned short)h))
                                            : __int_as_float(h << 16);
            }
            return;
        }
        EACH8(i) w[i] = i < left ? load_float(KIND, at, i) : 0;
    }
};

/* ---- GGML ---- */

MFI_DEV float nibble(uint32_t v, int i) /* i-th of eight */
{
    return small_float(v >> 4 * i & 15);
}

/* Scale and minimum of sub-block s, six bits each; see quant/ggml_decode.h. */
MFI_DEV void scale_min(const uint8_t *p, int s, float *scale, float *min)
{
    uint32_t sc, m;
    if (s < 4) {
        sc = p[s] & 63;
        m = p[s + 4] & 63;
    } else {
        sc = (p[s + 4] & 15) | (p[s - 4] >> 6) << 4;
        m = p[s + 4] >> 4 | (p[s] >> 6) << 4;
    }
    *scale = small_float(sc);
    *min = small_float(m);
}

/* q4_K; the product with the scale isn't rounded on its own. Aligned to 4. */
MFI_DEV void q4_k(const uint8_t *b, int i8, float w[8])
{
    int s = i8 / 4;
    float scale, min;
    uint32_t dm = *(const uint32_t *)b;
    const uint32_t *q = (const uint32_t *)(b + 16 + s / 2 * 32 + i8 % 4 * 8);
    uint32_t lo = q[0] >> s % 2 * 4, hi = q[1] >> s % 2 * 4;
    scale_min(b + 4, s, &scale, &min);
    scale *= __half2float(__ushort_as_half((unsigned short)dm));
    min *= __half2float(__ushort_as_half((unsigned short)(dm >> 16)));
    EACH8(i) w[i] = fmaf(scale, small_float((i < 4 ? lo : hi) >> i % 4 * 8 & 15), -min);
}

MFI_DEV void q5_k(const uint8_t *b, int i8, float w[8])
{
    int s = i8 / 4;
    float scale, min;
    uint32_t dm = *(const uint32_t *)b;
    const uint32_t *q = (const uint32_t *)(b + 48 + s / 2 * 32 + i8 % 4 * 8);
    const uint32_t *h = (const uint32_t *)(b + 16 + i8 % 4 * 8);
    uint32_t lo = q[0] >> s % 2 * 4, hi = q[1] >> s % 2 * 4, h0 = h[0] >> s, h1 = h[1] >> s;
    scale_min(b + 4, s, &scale, &min);
    scale *= __half2float(__ushort_as_half((unsigned short)dm));
    min *= __half2float(__ushort_as_half((unsigned short)(dm >> 16)));
    EACH8(i)
    {
        uint32_t v = (i < 4 ? lo : hi) >> i % 4 * 8 & 15;
        v |= ((i < 4 ? h0 : h1) >> i % 4 * 8 & 1) << 4;
        w[i] = fmaf(scale, small_float(v), -min);
    }
}

MFI_DEV void q6_k(const uint8_t *b, int i8, float w[8])
{
    int s = i8 / 2, half = i8 % 2 * 8;
    const uint8_t *low = b + s / 8 * 64 + s % 4 * 16 + half;
    const uint8_t *high = b + 128 + s / 8 * 32 + s % 2 * 16 + half;
    int ls = s / 4 % 2 * 4, hs = s / 2 % 4 * 2;
    uint32_t l0 = ld32(low) >> ls, l1 = ld32(low + 4) >> ls;
    uint32_t h0 = ld32(high) >> hs, h1 = ld32(high + 4) >> hs;
    float scale = half_at(b + 208) * (float)(int8_t)b[192 + s];
    EACH8(i)
    {
        uint32_t v = ((i < 4 ? l0 : l1) >> i % 4 * 8 & 15) |
                     ((i < 4 ? h0 : h1) >> i % 4 * 8 & 3) << 4;
        w[i] = scale * (small_float(v) - 32.0f);
    }
}

MFI_DEV void q8_0(const uint8_t *b, int i8, float w[8])
{
    float d = half_at(b);
    uint32_t lo = ld32(b + 2 + 8 * i8) ^ 0x80808080, hi = ld32(b + 6 + 8 * i8) ^ 0x80808080;
    EACH8(i) w[i] = (small_float((i < 4 ? lo : hi) >> i % 4 * 8 & 255) - 128.0f) * d;
}

/* ---- four-bit floats ---- */

/* Twice the value of a code. */
MFI_DEV float e2m1_doubled(uint32_t code)
{
    uint32_t m = code & 7;
    float v = small_float(m < 4 ? m : (m & 1 ? 3 : 2) << (m / 2 - 1));
    return code & 8 ? -v : v;
}

MFI_DEV float e8m0_half(uint32_t e)
{
    return __int_as_float(e < 2 ? 0x200000 << e : (e - 1) << 23);
}

/* ---- types of several planes ---- */

template <int BITS> struct dec_mlx {
    MFI_DEV void get(const mfi_cuda_mat &m, const uint8_t *const p[3], uint32_t row, uint32_t col,
                     float w[8])
    {
        const uint8_t *at = p[0] + row * m.row_bytes[0] + (uint64_t)(col / 8) * BITS;
        uint32_t g = col / m.type.group;
        float scale = load_float(m.type.scale, p[1] + row * m.row_bytes[1], g);
        float bias = load_float(m.type.scale, p[2] + row * m.row_bytes[2], g);
        if (BITS == 4) {
            uint32_t v = *(const uint32_t *)at;
            EACH8(i) w[i] = nibble(v, i) * scale + bias;
        } else if (BITS == 8) {
            uint32_t v0 = ((const uint32_t *)at)[0], v1 = ((const uint32_t *)at)[1];
            EACH8(i) w[i] = small_float((i < 4 ? v0 : v1) >> i % 4 * 8 & 255) * scale + bias;
        } else {
            uint64_t v = 0;
#pragma unroll
            for (int j = 0; j < BITS; j++)
                v |= (uint64_t)at[j] << 8 * j;
            EACH8(i) w[i] = small_float((uint32_t)(v >> i * BITS) & ((1u << BITS) - 1)) * scale +
                            bias;
        }
    }
};

struct dec_mxfp4 {
    MFI_DEV void get(const mfi_cuda_mat &m, const uint8_t *const p[3], uint32_t row, uint32_t col,
                     float w[8])
    {
        const uint8_t *at = p[0] + row * m.row_bytes[0] + col / 2;
        uint32_t e = p[1][row * m.row_bytes[1] + col / 32], v;
        v = ((uintptr_t)at & 3) == 0
                ? *(const uint32_t *)at
                : at[0] | at[1] << 8 | at[2] << 16 | (uint32_t)at[3] << 24;
        float d = e == 255 ? __int_as_float(0x7fc00000) : e8m0_half(e);
        EACH8(i) w[i] = d * e2m1_doubled(v >> 4 * i & 15);
    }
};

#endif
