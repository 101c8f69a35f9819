/* Element-wise kernels, 8-bit activations and the table of the AVX2 level. Called through the
 * table, on any thread. Incomplete vectors go through masks, so that an element's bits don't depend
 * on how a caller cuts its range. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels/elem_tmpl.h"
#include "kernels/ref/ref.h"
#include "kernels/x86/simd_avx2.h"
#include "kernels/x86/x86.h"

static void silu_mul(const float *gate, const float *up, uint32_t n, float *y)
{
    uint32_t i = 0;
    for (; n - i >= 8; i += 8) {
        __m256 v = silu8(_mm256_loadu_ps(gate + i));
        _mm256_storeu_ps(y + i, _mm256_mul_ps(v, _mm256_loadu_ps(up + i)));
    }
    if (i < n) {
        __m256i mask = first_lanes(n - i);
        __m256 v = silu8(_mm256_maskload_ps(gate + i, mask));
        _mm256_maskstore_ps(y + i, mask, _mm256_mul_ps(v, _mm256_maskload_ps(up + i, mask)));
    }
}

/* min and max return their second operand if one is a NaN. */
static __m256 glu_clamped8(__m256 gate, __m256 up, __m256 alpha, __m256 limit)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 g = _mm256_min_ps(limit, gate);
    __m256 u = _mm256_max_ps(_mm256_xor_ps(limit, sign), _mm256_min_ps(limit, up));
    __m256 v = _mm256_div_ps(g, one_plus_exp_neg(_mm256_mul_ps(alpha, g)));
    return _mm256_mul_ps(_mm256_add_ps(u, _mm256_set1_ps(1)), v);
}

static void glu_clamped(const float *gate, const float *up, float alpha, float limit, uint32_t n,
                        float *y)
{
    const __m256 a = _mm256_set1_ps(alpha), l = _mm256_set1_ps(limit);
    uint32_t i = 0;
    for (; n - i >= 8; i += 8)
        _mm256_storeu_ps(y + i,
                         glu_clamped8(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i), a, l));
    if (i < n) {
        __m256i mask = first_lanes(n - i);
        __m256 g = _mm256_maskload_ps(gate + i, mask), u = _mm256_maskload_ps(up + i, mask);
        _mm256_maskstore_ps(y + i, mask, glu_clamped8(g, u, a, l));
    }
}

static void sigmoid_mul(float *y, const float *g, uint32_t n)
{
    const __m256 one = _mm256_set1_ps(1);
    uint32_t i = 0;
    for (; n - i >= 8; i += 8) {
        __m256 v = _mm256_div_ps(one, one_plus_exp_neg(_mm256_loadu_ps(g + i)));
        _mm256_storeu_ps(y + i, _mm256_mul_ps(_mm256_loadu_ps(y + i), v));
    }
    if (i < n) {
        __m256i mask = first_lanes(n - i);
        __m256 v = _mm256_div_ps(one, one_plus_exp_neg(_mm256_maskload_ps(g + i, mask)));
        _mm256_maskstore_ps(y + i, mask, _mm256_mul_ps(_mm256_maskload_ps(y + i, mask), v));
    }
}

static void quantize_q8(const float *x, uint32_t n, int8_t *q, float *d, float *s)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    MFI_ASSERT(n % MFI_Q8_BLOCK == 0);
    for (uint32_t b = 0; b < n / MFI_Q8_BLOCK; b++, x += MFI_Q8_BLOCK, q += MFI_Q8_BLOCK) {
        __m256 v[4];
        __m256i max = _mm256_setzero_si256(), code[4];
        for (int i = 0; i < 4; i++) { /* by bits, so that a NaN is larger than anything */
            v[i] = _mm256_loadu_ps(x + 8 * i);
            max = _mm256_max_epi32(max, _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude));
        }
        __m128i m = _mm_max_epi32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
        m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
        m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
        float scale = _mm_cvtss_f32(_mm_castsi128_ps(m)) / 127;
        if (scale == 0 || !isfinite(scale)) {
            memset(q, 0, MFI_Q8_BLOCK);
            d[b] = s[b] = scale == 0 ? 0 : NAN;
            continue;
        }
        __m256i sum = _mm256_setzero_si256();
        for (int i = 0; i < 4; i++) {
            code[i] = _mm256_cvtps_epi32(_mm256_div_ps(v[i], _mm256_set1_ps(scale)));
            code[i] = _mm256_min_epi32(code[i], _mm256_set1_epi32(127));
            code[i] = _mm256_max_epi32(code[i], _mm256_set1_epi32(-127));
            sum = _mm256_add_epi32(sum, code[i]);
        }
        __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(code[0], code[1]),
                                           _mm256_packs_epi32(code[2], code[3]));
        bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i *)q, bytes);
        m = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        m = _mm_add_epi32(m, _mm_shuffle_epi32(m, 0x4e));
        m = _mm_add_epi32(m, _mm_shuffle_epi32(m, 0xb1));
        d[b] = scale;
        s[b] = scale * (float)_mm_cvtsi128_si32(m);
    }
}

const mfi_kernels mfi_avx2_kernels = {
    .isa = MFI_ISA_AVX2,
    .matmul_f32 = mfi_avx2_matmul_f32,
    .matmul_q8 = mfi_avx2_matmul_q8,
    .matmul_cols = mfi_avx2_matmul_cols,
    .quantize_q8 = quantize_q8,
    .get_row = mfi_ref_get_row,
    ELEM_ENTRIES,
    .silu_mul = silu_mul,
    .glu_clamped = glu_clamped,
    .sigmoid_mul = sigmoid_mul,
    .attend = mfi_avx2_attend,
    .attend_shared = mfi_avx2_attend_shared,
    .matmul_t = mfi_avx2_matmul_t,
    .attend_ring = mfi_avx2_attend_ring,
    .conv_silu = mfi_avx2_conv_silu,
    .gdn_step = mfi_avx2_gdn_step,
    .route = mfi_ref_route,
};
