/* Matrix products with 8-bit activations, AVX-512 with VNNI: 16 rows a panel. Called through the
 * kernel table on any thread. The arithmetic is told in quant/int_form.h. */
#include <immintrin.h>

#include "kernels/kernels.h"
#include "kernels/x86/x86.h"

#define PANEL_ROWS   16
#define PANEL_TOKS   8
#define PANEL_SIGNED 0
#define PANEL_FLIP   0u
#define PANEL_INLINE static inline __attribute__((always_inline))

typedef uint32_t panel_u __attribute__((vector_size(64)));
typedef int32_t panel_i __attribute__((vector_size(64)));
typedef float panel_f __attribute__((vector_size(64)));

/* The 16 bytes of rows r, r + 4, r + 8 and r + 12, a row to a 128-bit lane. */
PANEL_INLINE __m512i four_rows(const uint8_t *p, size_t stride)
{
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)p));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + 4 * stride)), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + 8 * stride)), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + 12 * stride)), 3);
}

PANEL_INLINE void panel_slab(const uint8_t *p, size_t stride, panel_u v[4])
{
    __asm__("" : "+r"(p)); /* else addresses of all slabs are kept, and spilt */
    const __m512i a = four_rows(p, stride), b = four_rows(p + stride, stride);
    const __m512i c = four_rows(p + 2 * stride, stride), d = four_rows(p + 3 * stride, stride);
    const __m512i ab0 = _mm512_unpacklo_epi32(a, b), ab1 = _mm512_unpackhi_epi32(a, b);
    const __m512i cd0 = _mm512_unpacklo_epi32(c, d), cd1 = _mm512_unpackhi_epi32(c, d);
    v[0] = (panel_u)_mm512_unpacklo_epi64(ab0, cd0);
    v[1] = (panel_u)_mm512_unpackhi_epi64(ab0, cd0);
    v[2] = (panel_u)_mm512_unpacklo_epi64(ab1, cd1);
    v[3] = (panel_u)_mm512_unpackhi_epi64(ab1, cd1);
}

PANEL_INLINE panel_f panel_half(panel_u v)
{
    return (panel_f)_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)v));
}

PANEL_INLINE panel_u panel_lookup(const int8_t table[16], panel_u v)
{
    const __m512i t = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table));
    return (panel_u)_mm512_shuffle_epi8(t, (__m512i)v);
}

/* The eight bits from each of four places of a lane, to its bytes. */
PANEL_INLINE panel_u places(panel_u v, int a, int b, int c, int d)
{
    const long long low = a | b << 8 | c << 16 | (long long)d << 24;
    const __m512i at = _mm512_set1_epi64(low | (low + 0x20202020) << 32);
    return (panel_u)_mm512_multishift_epi64_epi8(at, (__m512i)v);
}

PANEL_INLINE panel_u panel_spread(panel_u v, const uint32_t bits)
{
    const int b = (int)bits;
    return places(v, 0, b, 2 * b, 3 * b) & ((1u << bits) - 1) * 0x01010101u;
}

PANEL_INLINE void panel_pairs(panel_u v, panel_u *a, panel_u *b)
{
    *a = places(v, 0, 4, 8, 12) & 0x0f0f0f0fu;
    *b = places(v, 16, 20, 24, 28) & 0x0f0f0f0fu;
}

PANEL_INLINE panel_u panel_funnel(panel_u a, panel_u b, const uint32_t n)
{
    return a >> n | b << (32 - n);
}

PANEL_INLINE panel_i panel_dot4(panel_i sum, panel_u codes, uint32_t x, bool wide)
{
    (void)wide;
    return (panel_i)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)codes, _mm512_set1_epi32((int)x));
}

PANEL_INLINE panel_i panel_dot2(panel_i sum, uint32_t a, uint32_t b)
{
    return (panel_i)_mm512_dpwssd_epi32((__m512i)sum, _mm512_set1_epi32((int)a),
                                        _mm512_set1_epi32((int)b));
}

PANEL_INLINE panel_f panel_fma(panel_f a, panel_f b, panel_f sum)
{
    return (panel_f)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
}

PANEL_INLINE panel_f panel_load(const float *p, uint32_t n)
{
    return (panel_f)_mm512_maskz_loadu_ps((__mmask16)(0xffff >> (16 - n)), p);
}

PANEL_INLINE void panel_store(float *p, uint32_t n, panel_f v)
{
    _mm512_mask_storeu_ps(p, (__mmask16)(0xffff >> (16 - n)), (__m512)v);
}

#include "kernels/panel_tmpl.h"

#include "kernels/x86/rows_avx512.h"
#include "kernels/x86/whole_avx512.h"

#define PANEL_DOT_ROWS(type, cols, lo) rows_of(type, cols, (lo) != NULL)
#define PANEL_WHOLE_ROWS(type, cols, lo) whole_of(type, cols, (lo) != NULL)
#include "kernels/int_tmpl.h"

void mfi_avx512_matmul_q8(const mfi_mat *w, const mfi_q8 *x, uint32_t n_tok, float *y, size_t ldy,
                          uint32_t row0, uint32_t row1)
{
    mfi_int_form form;
    MFI_ASSERT(w->cols % MFI_Q8_BLOCK == 0);
    if (mfi_int_form_of(w->type, &form))
        int_rows(w, x, n_tok, y, ldy, row0, row1);
    else
        mfi_avx2_block_q8(w, x, n_tok, y, ldy, row0, row1);
}
