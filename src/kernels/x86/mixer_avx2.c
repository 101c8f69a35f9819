/* The gated delta rule and its convolution, AVX2. Called through the kernel table on any thread;
 * each call works on one head or one range of channels. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels/x86/simd_avx2.h"
#include "kernels/x86/x86.h"

/* Tap j of 8 channels from c on, for kernels of 4 taps: a transposition. */
ALWAYS_INLINE void load_taps4(const float *w, __m256 taps[4])
{
    __m256 a = _mm256_loadu_ps(w), b = _mm256_loadu_ps(w + 8);
    __m256 c = _mm256_loadu_ps(w + 16), d = _mm256_loadu_ps(w + 24);
    /* Channels 0 and 4, 1 and 5, ... in the halves of one vector. */
    __m256 t0 = _mm256_permute2f128_ps(a, c, 0x20), t1 = _mm256_permute2f128_ps(a, c, 0x31);
    __m256 t2 = _mm256_permute2f128_ps(b, d, 0x20), t3 = _mm256_permute2f128_ps(b, d, 0x31);
    a = _mm256_unpacklo_ps(t0, t1);
    b = _mm256_unpackhi_ps(t0, t1);
    c = _mm256_unpacklo_ps(t2, t3);
    d = _mm256_unpackhi_ps(t2, t3);
    taps[0] = _mm256_shuffle_ps(a, c, 0x44);
    taps[1] = _mm256_shuffle_ps(a, c, 0xee);
    taps[2] = _mm256_shuffle_ps(b, d, 0x44);
    taps[3] = _mm256_shuffle_ps(b, d, 0xee);
}

void mfi_avx2_conv_silu(float *state, const float *w, const float *x, uint32_t n_ch,
                        uint32_t kernel, uint32_t c0, uint32_t c1, float *y)
{
    const __m256i index = _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                                             _mm256_set1_epi32((int)kernel));
    uint32_t c = c0;
    for (; kernel == 4 && c1 - c >= 8; c += 8) {
        __m256 taps[4], sum = _mm256_setzero_ps();
        load_taps4(w + (size_t)c * 4, taps);
        MFI_UNROLL(4)
        for (uint32_t j = 0; j < 4; j++) {
            __m256 in = _mm256_loadu_ps((j < 3 ? state + (size_t)j * n_ch : x) + c);
            if (j > 0)
                _mm256_storeu_ps(state + (size_t)(j - 1) * n_ch + c, in);
            sum = _mm256_fmadd_ps(taps[j], in, sum);
        }
        _mm256_storeu_ps(y + c, silu8(sum));
    }
    for (; c < c1; c += 8) { /* other kernels, and what is left over */
        const float *taps = w + (size_t)c * kernel;
        __m256i mask = first_lanes(c1 - c);
        __m256 fmask = _mm256_castsi256_ps(mask), zero = _mm256_setzero_ps(), sum = zero;
        for (uint32_t j = 0; j < kernel; j++) {
            const float *from = j + 1 < kernel ? state + (size_t)j * n_ch : x;
            __m256 in = _mm256_maskload_ps(from + c, mask);
            __m256 tap = _mm256_mask_i32gather_ps(zero, taps + j, index, fmask, 4);
            if (j > 0) /* shift */
                _mm256_maskstore_ps(state + (size_t)(j - 1) * n_ch + c, mask, in);
            sum = _mm256_fmadd_ps(tap, in, sum);
        }
        _mm256_maskstore_ps(y + c, mask, silu8(sum));
    }
}

/* The delta rule for 8 * n_vec columns of S, or for the first lanes of one vector of them. The
 * decay is multiplied in twice rather than written back between. */
ALWAYS_INLINE void gdn_columns(float *s, const float *q, const float *k, const float *v, float g,
                               float beta, uint32_t dk, uint32_t dv, float *out, const int n_vec,
                               const bool whole, __m256i mask)
{
#define LOAD(p)     (whole ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, mask))
#define STORE(p, v) (whole ? _mm256_storeu_ps(p, v) : _mm256_maskstore_ps(p, mask, v))
    const __m256 decay = _mm256_set1_ps(g);
    __m256 delta[4], sum[4];
    MFI_UNROLL(4)
    for (int j = 0; j < n_vec; j++)
        delta[j] = sum[j] = _mm256_setzero_ps();
    for (uint32_t i = 0; i < dk; i++) {
        const float *row = s + (size_t)i * dv;
        __m256 ki = _mm256_set1_ps(k[i]);
        MFI_UNROLL(4)
        for (int j = 0; j < n_vec; j++)
            delta[j] = _mm256_fmadd_ps(_mm256_mul_ps(LOAD(row + 8 * j), decay), ki, delta[j]);
    }
    MFI_UNROLL(4)
    for (int j = 0; j < n_vec; j++)
        delta[j] = _mm256_mul_ps(_mm256_set1_ps(beta), _mm256_sub_ps(LOAD(v + 8 * j), delta[j]));
    for (uint32_t i = 0; i < dk; i++) {
        float *row = s + (size_t)i * dv;
        __m256 ki = _mm256_set1_ps(k[i]), qi = _mm256_set1_ps(q[i]);
        MFI_UNROLL(4)
        for (int j = 0; j < n_vec; j++) {
            __m256 next = _mm256_mul_ps(LOAD(row + 8 * j), decay);
            next = _mm256_fmadd_ps(ki, delta[j], next);
            STORE(row + 8 * j, next);
            sum[j] = _mm256_fmadd_ps(next, qi, sum[j]);
        }
    }
    MFI_UNROLL(4)
    for (int j = 0; j < n_vec; j++)
        STORE(out + 8 * j, sum[j]);
#undef LOAD
#undef STORE
}

void mfi_avx2_gdn_step(float *s, const float *q, const float *k, const float *v, float g,
                       float beta, uint32_t dk, uint32_t dv, float *out)
{
    const __m256i none = _mm256_setzero_si256();
    uint32_t j = 0;
    MFI_ASSERT(dv <= MFI_GDN_DIM_MAX);
    for (; dv - j >= 32; j += 32)
        gdn_columns(s + j, q, k, v + j, g, beta, dk, dv, out + j, 4, true, none);
    for (; dv - j >= 8; j += 8)
        gdn_columns(s + j, q, k, v + j, g, beta, dk, dv, out + j, 1, true, none);
    if (j < dv)
        gdn_columns(s + j, q, k, v + j, g, beta, dk, dv, out + j, 1, false, first_lanes(dv - j));
}
