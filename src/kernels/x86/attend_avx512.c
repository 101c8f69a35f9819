/* Attention, AVX-512. Called through the kernel table on any thread; the arithmetic is the
 * template's, and its bits are those of AVX2. */
#include "kernels/x86/simd_avx2.h"
#include "kernels/x86/x86.h"

#define ATTN_TILE  8
#define ATTN_LANES 16
typedef __m512 attn_f;
#define attn_load(p)          _mm512_loadu_ps(p)
#define attn_store(p, v)      _mm512_storeu_ps(p, v)
#define attn_load_n(p, n)     _mm512_maskz_loadu_ps((__mmask16)(0xffff >> (16 - (n))), p)
#define attn_store_n(p, n, v) _mm512_mask_storeu_ps(p, (__mmask16)(0xffff >> (16 - (n))), v)
#define attn_set1(x)          _mm512_set1_ps(x)
#define attn_fma(a, b, sum)   _mm512_fmadd_ps(a, b, sum)
#define attn_max(a, b)        _mm512_max_ps(a, b)
#define attn_top(v)           _mm512_reduce_max_ps(v)

/* exp8 on 16 lanes, operation by operation. */
static inline __m512 attn_exp(__m512 x)
{
    x = _mm512_min_ps(_mm512_set1_ps(89.0f), x);
    x = _mm512_max_ps(_mm512_set1_ps(-105.0f), x);
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p+0f)),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e4p-1f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.7f7d1cp-20f), r);
    __m512 p = _mm512_set1_ps(1.0f / 5040);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    const __m512i e = _mm512_cvtps_epi32(n), half = _mm512_srai_epi32(e, 1);
    const __m512i rest = _mm512_sub_epi32(e, half), one = _mm512_set1_epi32(127);
    const __m512 f0 = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(half, one), 23));
    const __m512 f1 = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(rest, one), 23));
    return _mm512_mul_ps(_mm512_mul_ps(p, f0), f1);
}

#include "kernels/x86/attend_tmpl.h"

void mfi_avx512_attend(const mfi_attn *a)
{
    attend_all(a);
}
