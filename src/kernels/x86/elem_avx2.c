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

void mfi_avx2_silu_mul(const float *gate, const float *up, uint32_t n, float *y)
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

void mfi_avx2_glu_clamped(const float *gate, const float *up, float alpha, float limit, uint32_t n,
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

void mfi_avx2_sigmoid_mul(float *y, const float *g, uint32_t n)
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

/* 32 codes as bytes. */
static inline __m256i bytes_of(const __m256i code[4])
{
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(code[0], code[1]),
                                             _mm256_packs_epi32(code[2], code[3]));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* The sum of eight lanes. */
static inline int32_t sum8(__m256i v)
{
    __m128i m = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_add_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(m, _mm_shuffle_epi32(m, 0xb1)));
}

/* The 16-bit form of block b, whose 8-bit form is there. */
static void quantize_rest(const float *in, uint32_t b, const mfi_q8 *to)
{
    const float d = to->d[b], fine = d / 255;
    int8_t *lo = to->lo + (size_t)b * MFI_Q8_BLOCK;
    int16_t *h = to->h_lo + (size_t)2 * b;
    __m256i code[4];
    if (fine > 0) {
        for (int i = 0; i < 4; i++) {
            const __m128i q = _mm_loadl_epi64((const __m128i *)(to->q + b * MFI_Q8_BLOCK + 8 * i));
            __m256 v =
                _mm256_fnmadd_ps(_mm256_set1_ps(d), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)),
                                 _mm256_loadu_ps(in + 8 * i));
            v = _mm256_div_ps(v, _mm256_set1_ps(fine));
            v = _mm256_max_ps(_mm256_set1_ps(-127), _mm256_min_ps(v, _mm256_set1_ps(127)));
            code[i] = _mm256_cvtps_epi32(v);
        }
    } else {
        code[0] = code[1] = code[2] = code[3] = _mm256_setzero_si256();
    }
    _mm256_storeu_si256((__m256i *)lo, bytes_of(code));
    h[0] = (int16_t)sum8(_mm256_add_epi32(code[0], code[1]));
    h[1] = (int16_t)sum8(_mm256_add_epi32(code[2], code[3]));
    to->d_fine[b] = fine;
    to->s_fine[b] = fine * (float)(255 * (to->h[2 * b] + to->h[2 * b + 1]) + h[0] + h[1]);
}

void mfi_avx2_quantize_q8(const float *x, uint32_t n, const mfi_q8 *to)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    int8_t *q = to->q;
    int16_t *h = to->h;
    MFI_ASSERT(n % MFI_Q8_BLOCK == 0);
    for (uint32_t b = 0; b < n / MFI_Q8_BLOCK; b++, x += MFI_Q8_BLOCK, q += MFI_Q8_BLOCK, h += 2) {
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
            h[0] = h[1] = 0;
            to->d[b] = to->s[b] = scale == 0 ? 0 : NAN;
            if (to->lo)
                quantize_rest(x, b, to);
            continue;
        }
        for (int i = 0; i < 4; i++) {
            code[i] = _mm256_cvtps_epi32(_mm256_div_ps(v[i], _mm256_set1_ps(scale)));
            code[i] = _mm256_min_epi32(code[i], _mm256_set1_epi32(127));
            code[i] = _mm256_max_epi32(code[i], _mm256_set1_epi32(-127));
        }
        _mm256_storeu_si256((__m256i *)q, bytes_of(code));
        h[0] = (int16_t)sum8(_mm256_add_epi32(code[0], code[1]));
        h[1] = (int16_t)sum8(_mm256_add_epi32(code[2], code[3]));
        to->d[b] = scale;
        to->s[b] = scale * (float)(h[0] + h[1]);
        if (to->lo)
            quantize_rest(x, b, to);
    }
}

/* What the levels above take as it is. */
#define AVX2_ENTRIES                                                                               \
    .matmul_f32 = mfi_avx2_matmul_f32, .matmul_cols = mfi_avx2_matmul_cols,                        \
    .matmul_t = mfi_avx2_matmul_t, .quantize_q8 = mfi_avx2_quantize_q8,                            \
    .get_row = mfi_ref_get_row, ELEM_ENTRIES, .silu_mul = mfi_avx2_silu_mul,                       \
    .glu_clamped = mfi_avx2_glu_clamped, .sigmoid_mul = mfi_avx2_sigmoid_mul,                      \
    .attend = mfi_avx2_attend, .store_row = mfi_avx2_store_row, .conv_silu = mfi_avx2_conv_silu,   \
    .gdn_step = mfi_avx2_gdn_step, .route = mfi_ref_route

const mfi_kernels mfi_avx2_kernels = {
    .isa = MFI_ISA_AVX2, .matmul_q8 = mfi_avx2_matmul_q8, AVX2_ENTRIES};

const mfi_kernels mfi_avxvnni_kernels = {
    .isa = MFI_ISA_AVX_VNNI, .matmul_q8 = mfi_avxvnni_matmul_q8, AVX2_ENTRIES};
