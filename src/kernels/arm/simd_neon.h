/* Pieces that the NEON kernels share: sums of lanes, exp. Static inline only. */
#ifndef MFI_KERNELS_ARM_SIMD_NEON_H
#define MFI_KERNELS_ARM_SIMD_NEON_H

#include <arm_neon.h>

/* Lanes 0-3, 4-7, 8-11 and 12-15 of a sum. */
typedef struct lanes16 {
    float32x4_t v[4];
} lanes16;

/* The pairwise sum of mfi_add_lanes. */
static inline float add_lanes16(lanes16 s)
{
    const float32x4_t a = vaddq_f32(vaddq_f32(s.v[0], s.v[2]), vaddq_f32(s.v[1], s.v[3]));
    const float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
}

/* exp of 4 floats, as x86/simd_avx2.h has it: the same steps, the same roundings. Minimum and
 * maximum give NaN for NaN. */
static inline float32x4_t exp4(float32x4_t x)
{
    x = vmaxq_f32(vminq_f32(x, vdupq_n_f32(89.0f)), vdupq_n_f32(-105.0f));
    const float32x4_t n = vrndnq_f32(vmulq_f32(x, vdupq_n_f32(0x1.715476p+0f)));
    float32x4_t r = vfmsq_f32(x, n, vdupq_n_f32(0x1.62e4p-1f));
    r = vfmsq_f32(r, n, vdupq_n_f32(0x1.7f7d1cp-20f));
    float32x4_t p = vdupq_n_f32(1.0f / 5040);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 720), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 120), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 24), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 6), p, r);
    p = vfmaq_f32(vdupq_n_f32(0.5f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
    /* Times 2^n in two steps, so that results may be subnormal. */
    const int32x4_t e = vcvtnq_s32_f32(n), half = vshrq_n_s32(e, 1), one = vdupq_n_s32(127);
    const int32x4_t f0 = vshlq_n_s32(vaddq_s32(half, one), 23);
    const int32x4_t f1 = vshlq_n_s32(vaddq_s32(vsubq_s32(e, half), one), 23);
    return vmulq_f32(vmulq_f32(p, vreinterpretq_f32_s32(f0)), vreinterpretq_f32_s32(f1));
}

/* 1 + exp(-x). */
static inline float32x4_t one_plus_exp_neg(float32x4_t x)
{
    return vaddq_f32(vdupq_n_f32(1), exp4(vnegq_f32(x)));
}

#endif
