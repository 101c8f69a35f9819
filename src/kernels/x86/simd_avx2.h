/* Pieces that the AVX2 kernels share: partial loads, sums of lanes, exp. Static inline only. */
#ifndef MFI_KERNELS_X86_SIMD_AVX2_H
#define MFI_KERNELS_X86_SIMD_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#include "kernels/unroll.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Mask of the first n lanes; n may be 8 or more. */
static inline __m256i first_lanes(uint32_t n)
{
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(n < 8 ? n : 8)), index);
}

/* The pairwise sum of mfi_add_lanes, from lanes 0-7 and 8-15. */
static inline float add_lanes16(__m256 lo, __m256 hi)
{
    __m256 a = _mm256_add_ps(lo, hi);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

/* exp of 8 floats. x = n * ln 2 + r with |r| <= ln 2 / 2, exp(r) by its Taylor polynomial of degree
 * 7 (truncation below 6e-9, relative), times 2^n in two steps so that results may be subnormal. At
 * most 1.0 ulp off for normal results, measured over all floats; 0 and infinity where exp under-
 * and overflows, NaN for NaN. */
static inline __m256 exp8(__m256 x)
{
    /* min and max return their second operand if one is a NaN. */
    x = _mm256_min_ps(_mm256_set1_ps(89.0f), x);
    x = _mm256_max_ps(_mm256_set1_ps(-105.0f), x);
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(0x1.715476p+0f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    /* ln 2 in two parts; the first has so few bits that n times it is exact. */
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e4p-1f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.7f7d1cp-20f), r);
    __m256 p = _mm256_set1_ps(1.0f / 5040);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    __m256i e = _mm256_cvtps_epi32(n);
    __m256i half = _mm256_srai_epi32(e, 1);
    __m256i rest = _mm256_sub_epi32(e, half);
    const __m256i one = _mm256_set1_epi32(127);
    __m256 f0 = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, one), 23));
    __m256 f1 = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, one), 23));
    return _mm256_mul_ps(_mm256_mul_ps(p, f0), f1);
}

/* 1 + exp(-x). */
static inline __m256 one_plus_exp_neg(__m256 x)
{
    return _mm256_add_ps(_mm256_set1_ps(1), exp8(_mm256_xor_ps(x, _mm256_set1_ps(-0.0f))));
}

static inline __m256 silu8(__m256 x)
{
    return _mm256_div_ps(x, one_plus_exp_neg(x));
}

#endif
