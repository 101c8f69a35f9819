/* Vectors of four rows for the templates of the integer products: what both ARM levels share. The
 * including file defines what multiplies. */
#ifndef MFI_KERNELS_ARM_INT_NEON_H
#define MFI_KERNELS_ARM_INT_NEON_H

#include <arm_neon.h>

#include "kernels/arm/arm.h"

#define PANEL_ROWS   4
#define PANEL_TOKS   8
#define PANEL_INLINE static inline __attribute__((always_inline))

typedef uint32_t panel_u __attribute__((vector_size(16)));
typedef int32_t panel_i __attribute__((vector_size(16)));
typedef float panel_f __attribute__((vector_size(16)));

PANEL_INLINE void panel_slab(const uint8_t *p, size_t stride, panel_u v[4])
{
    const uint32x4_t a = vreinterpretq_u32_u8(vld1q_u8(p));
    const uint32x4_t b = vreinterpretq_u32_u8(vld1q_u8(p + stride));
    const uint32x4_t c = vreinterpretq_u32_u8(vld1q_u8(p + 2 * stride));
    const uint32x4_t d = vreinterpretq_u32_u8(vld1q_u8(p + 3 * stride));
    const uint64x2_t ab0 = (uint64x2_t)vtrn1q_u32(a, b), ab1 = (uint64x2_t)vtrn2q_u32(a, b);
    const uint64x2_t cd0 = (uint64x2_t)vtrn1q_u32(c, d), cd1 = (uint64x2_t)vtrn2q_u32(c, d);
    v[0] = (panel_u)vtrn1q_u64(ab0, cd0);
    v[1] = (panel_u)vtrn1q_u64(ab1, cd1);
    v[2] = (panel_u)vtrn2q_u64(ab0, cd0);
    v[3] = (panel_u)vtrn2q_u64(ab1, cd1);
}

PANEL_INLINE panel_f panel_half(panel_u v)
{
    return (panel_f)vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32((uint32x4_t)v)));
}

PANEL_INLINE panel_u panel_lookup(const int8_t table[16], panel_u v)
{
    return (panel_u)vqtbl1q_s8(vld1q_s8(table), (uint8x16_t)v);
}

PANEL_INLINE panel_u panel_spread(panel_u v, const uint32_t bits)
{
    const uint32_t mask = (1u << bits) - 1;
    return (v & mask) | (v << (8 - bits) & mask << 8) | (v << (16 - 2 * bits) & mask << 16) |
           (v << (24 - 3 * bits) & mask << 24);
}

PANEL_INLINE void panel_pairs(panel_u v, panel_u *a, panel_u *b)
{
    const uint8x16_t even = (uint8x16_t)(v & 0x0f0f0f0fu), odd = (uint8x16_t)(v >> 4 & 0x0f0f0f0fu);
    const uint32x4_t low = vreinterpretq_u32_u8(vzip1q_u8(even, odd));
    const uint32x4_t high = vreinterpretq_u32_u8(vzip2q_u8(even, odd));
    *a = (panel_u)vuzp1q_u32(low, high);
    *b = (panel_u)vuzp2q_u32(low, high);
}

PANEL_INLINE panel_u panel_funnel(panel_u a, panel_u b, const uint32_t n)
{
    return a >> n | b << (32 - n);
}

PANEL_INLINE panel_i panel_dot2(panel_i sum, uint32_t a, uint32_t b)
{
    return sum + ((int16_t)a * (int16_t)b + (int16_t)(a >> 16) * (int16_t)(b >> 16));
}

PANEL_INLINE panel_f panel_fma(panel_f a, panel_f b, panel_f sum)
{
    return (panel_f)vfmaq_f32((float32x4_t)sum, (float32x4_t)a, (float32x4_t)b);
}

PANEL_INLINE panel_f panel_load(const float *p, uint32_t n)
{
    panel_f v = {0};
    if (n >= PANEL_ROWS)
        return (panel_f)vld1q_f32(p);
    for (uint32_t i = 0; i < n; i++)
        v[i] = p[i];
    return v;
}

PANEL_INLINE void panel_store(float *p, uint32_t n, panel_f v)
{
    if (n >= PANEL_ROWS)
        vst1q_f32(p, (float32x4_t)v);
    for (uint32_t i = 0; n < PANEL_ROWS && i < n; i++)
        p[i] = v[i];
}

#endif
