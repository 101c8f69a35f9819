/* Attention, AVX2, and rows of the KV cache in its types. Called through the kernel table on any
 * thread; the arithmetic is the template's. */
#include "kernels/ref/ref.h"
#include "kernels/x86/simd_avx2.h"
#include "kernels/x86/x86.h"

#define ATTN_TILE  4
#define ATTN_LANES 8
typedef __m256 attn_f;
#define attn_load(p)          _mm256_loadu_ps(p)
#define attn_store(p, v)      _mm256_storeu_ps(p, v)
#define attn_load_n(p, n)     _mm256_maskload_ps(p, first_lanes(n))
#define attn_store_n(p, n, v) _mm256_maskstore_ps(p, first_lanes(n), v)
#define attn_set1(x)          _mm256_set1_ps(x)
#define attn_fma(a, b, sum)   _mm256_fmadd_ps(a, b, sum)
#define attn_max(a, b)        _mm256_max_ps(a, b)
#define attn_exp(v)           exp8(v)

static inline float attn_top(__m256 v)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

#include "kernels/x86/attend_tmpl.h"

void mfi_avx2_attend(const mfi_attn *a)
{
    attend_all(a);
}

/* A block of 32 as q8_0. */
static void store_q8_0(const float *x, uint8_t *out)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i max = _mm256_setzero_si256(), code[4];
    for (int i = 0; i < 4; i++) /* by bits, so that a NaN is larger than anything */
        max = _mm256_max_epi32(
            max, _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(x + 8 * i)), magnitude));
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    uint16_t half = _cvtss_sh(_mm_cvtss_f32(_mm_castsi128_ps(m)) / 127, _MM_FROUND_TO_NEAREST_INT);
    const float d = _cvtsh_ss(half);
    if (!isfinite(d))
        half = 0x7e00;
    memcpy(out, &half, sizeof half);
    for (int i = 0; i < 4; i++) {
        __m256 v = _mm256_div_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(d));
        v = _mm256_max_ps(_mm256_set1_ps(-127), _mm256_min_ps(v, _mm256_set1_ps(127)));
        code[i] = d > 0 && isfinite(d) ? _mm256_cvtps_epi32(v) : _mm256_setzero_si256();
    }
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(code[0], code[1]),
                                             _mm256_packs_epi32(code[2], code[3]));
    _mm256_storeu_si256(
        (__m256i *)(void *)(out + 2),
        _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
}

void mfi_avx2_store_row(const float *x, uint32_t n, mfi_qtype type, void *row)
{
    uint8_t *out = row;
    uint32_t i = 0;
    if (type.kind == MFI_Q_F32) {
        memcpy(out, x, n * sizeof *x);
        return;
    }
    for (; type.kind == MFI_Q_F16 && n - i >= 8; i += 8)
        _mm_storeu_si128((__m128i *)(void *)(out + 2 * (size_t)i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
    if (type.kind == MFI_Q_F16) {
        mfi_ref_store_row(x + i, n - i, type, out + 2 * (size_t)i);
        return;
    }
    MFI_ASSERT(mfi_qtype_equal(type, MFI_KV_Q8_0) && n % 32 == 0);
    for (; i < n; i += 32, out += 34)
        store_q8_0(x + i, out);
}
