/* Vectors of eight rows for the templates of the integer products: what AVX2 and AVX-VNNI share.
 * The including file has defined PANEL_INLINE and the panel_ types. */
#ifndef MFI_KERNELS_X86_INT_AVX2_H
#define MFI_KERNELS_X86_INT_AVX2_H

#include <immintrin.h>

#include "kernels/kernels.h"
#include "kernels/x86/simd_avx2.h"

#define PANEL_ROWS   8
#define PANEL_TOKS   4
#define PANEL_INLINE ALWAYS_INLINE

typedef uint32_t panel_u __attribute__((vector_size(32)));
typedef int32_t panel_i __attribute__((vector_size(32)));
typedef float panel_f __attribute__((vector_size(32)));

/* The 16 bytes of rows r and r + 4, a row to a 128-bit lane. */
PANEL_INLINE __m256i two_rows(const uint8_t *p, size_t stride)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)p)),
                                   _mm_loadu_si128((const __m128i *)(p + 4 * stride)), 1);
}

PANEL_INLINE void panel_slab(const uint8_t *p, size_t stride, panel_u v[4])
{
    __asm__("" : "+r"(p)); /* else addresses of all slabs are kept, and spilt */
    const __m256i a = two_rows(p, stride), b = two_rows(p + stride, stride);
    const __m256i c = two_rows(p + 2 * stride, stride), d = two_rows(p + 3 * stride, stride);
    const __m256i ab0 = _mm256_unpacklo_epi32(a, b), ab1 = _mm256_unpackhi_epi32(a, b);
    const __m256i cd0 = _mm256_unpacklo_epi32(c, d), cd1 = _mm256_unpackhi_epi32(c, d);
    v[0] = (panel_u)_mm256_unpacklo_epi64(ab0, cd0);
    v[1] = (panel_u)_mm256_unpackhi_epi64(ab0, cd0);
    v[2] = (panel_u)_mm256_unpacklo_epi64(ab1, cd1);
    v[3] = (panel_u)_mm256_unpackhi_epi64(ab1, cd1);
}

PANEL_INLINE panel_f panel_half(panel_u v)
{
    const __m256i packed = _mm256_packus_epi32((__m256i)v, (__m256i)v);
    return (panel_f)_mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
}

PANEL_INLINE panel_u panel_lookup(const int8_t table[16], panel_u v)
{
    const __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
    return (panel_u)_mm256_shuffle_epi8(t, (__m256i)v);
}

PANEL_INLINE panel_u panel_spread(panel_u v, const uint32_t bits)
{
    const uint32_t mask = (1u << bits) - 1;
    return (v & mask) | (v << (8 - bits) & mask << 8) | (v << (16 - 2 * bits) & mask << 16) |
           (v << (24 - 3 * bits) & mask << 24);
}

PANEL_INLINE void panel_pairs(panel_u v, panel_u *a, panel_u *b)
{
    const __m256i even = (__m256i)(v & 0x0f0f0f0fu), odd = (__m256i)(v >> 4 & 0x0f0f0f0fu);
    const __m256 low = _mm256_castsi256_ps(_mm256_unpacklo_epi8(even, odd));
    const __m256 high = _mm256_castsi256_ps(_mm256_unpackhi_epi8(even, odd));
    *a = (panel_u)_mm256_shuffle_ps(low, high, 0x88);
    *b = (panel_u)_mm256_shuffle_ps(low, high, 0xdd);
}

PANEL_INLINE panel_u panel_funnel(panel_u a, panel_u b, const uint32_t n)
{
    return a >> n | b << (32 - n);
}

PANEL_INLINE panel_f panel_fma(panel_f a, panel_f b, panel_f sum)
{
    return (panel_f)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
}

PANEL_INLINE panel_f panel_load(const float *p, uint32_t n)
{
    return (panel_f)_mm256_maskload_ps(p, first_lanes(n));
}

PANEL_INLINE void panel_store(float *p, uint32_t n, panel_f v)
{
    _mm256_maskstore_ps(p, first_lanes(n), (__m256)v);
}

#endif
