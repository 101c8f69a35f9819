/* Decoding of the commoner block types, FP8 and MXFP4, AVX2: to the bit what mfi_dequant_row gives,
 * so products and sums are rounded one by one, without fma. Called by matmul_block_avx2.c on any
 * thread. The layouts are told in quant/ggml_*.c. */
#include <immintrin.h>
#include <string.h>

#include "kernels/x86/simd_avx2.h"
#include "kernels/x86/x86.h"
#include "quant/ggml_decode.h"

ALWAYS_INLINE __m128i load(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}

ALWAYS_INLINE __m256 half_at(const uint8_t *p)
{
    return _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(mfi_load16(p))));
}

/* The low and high nibbles of 16 bytes; bits of all bytes moved down by `by`. */
ALWAYS_INLINE __m128i low_nibbles(__m128i v)
{
    return _mm_and_si128(v, _mm_set1_epi8(15));
}

ALWAYS_INLINE __m128i shifted(__m128i v, int by, char mask)
{
    return _mm_and_si128(_mm_srl_epi16(v, _mm_cvtsi32_si128(by)), _mm_set1_epi8(mask));
}

ALWAYS_INLINE __m128i high_nibbles(__m128i v)
{
    return shifted(v, 4, 15);
}

/* 16 signed codes as floats. */
ALWAYS_INLINE __m256 first8(__m128i codes)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
}

ALWAYS_INLINE __m256 last8(__m128i codes)
{
    return first8(_mm_srli_si128(codes, 8));
}

/* scale * code of 16 codes. */
ALWAYS_INLINE void emit(__m128i codes, __m256 scale, float *out)
{
    _mm256_storeu_ps(out, _mm256_mul_ps(first8(codes), scale));
    _mm256_storeu_ps(out + 8, _mm256_mul_ps(last8(codes), scale));
}

/* scale * code + offset. */
ALWAYS_INLINE void emit_plus(__m128i codes, __m256 scale, __m256 offset, float *out)
{
    _mm256_storeu_ps(out, _mm256_add_ps(_mm256_mul_ps(first8(codes), scale), offset));
    _mm256_storeu_ps(out + 8, _mm256_add_ps(_mm256_mul_ps(last8(codes), scale), offset));
}

/* ---- 32 elements ---- */

ALWAYS_INLINE void q4_0(const uint8_t *b, float *out)
{
    const __m128i q = load(b + 2), eight = _mm_set1_epi8(8);
    const __m256 d = half_at(b);
    emit(_mm_sub_epi8(low_nibbles(q), eight), d, out);
    emit(_mm_sub_epi8(high_nibbles(q), eight), d, out + 16);
}

ALWAYS_INLINE void q4_1(const uint8_t *b, float *out)
{
    const __m128i q = load(b + 4);
    const __m256 d = half_at(b), min = half_at(b + 2);
    emit_plus(low_nibbles(q), d, min, out);
    emit_plus(high_nibbles(q), d, min, out + 16);
}

/* 16 where the bit of the element is set, for elements 0-15 and 16-31. */
ALWAYS_INLINE __m256i fifth_bits(uint32_t bits)
{
    const __m256i byte =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    __m256i v = _mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), byte);
    v = _mm256_cmpeq_epi8(_mm256_and_si256(v, bit), bit);
    return _mm256_and_si256(v, _mm256_set1_epi8(16));
}

ALWAYS_INLINE void q5_0(const uint8_t *b, float *out)
{
    const __m128i q = load(b + 6), sixteen = _mm_set1_epi8(16);
    const __m256i high = fifth_bits(mfi_load32(b + 2));
    const __m256 d = half_at(b);
    __m128i lo = _mm_or_si128(low_nibbles(q), _mm256_castsi256_si128(high));
    __m128i hi = _mm_or_si128(high_nibbles(q), _mm256_extracti128_si256(high, 1));
    emit(_mm_sub_epi8(lo, sixteen), d, out);
    emit(_mm_sub_epi8(hi, sixteen), d, out + 16);
}

ALWAYS_INLINE void q5_1(const uint8_t *b, float *out)
{
    const __m128i q = load(b + 8);
    const __m256i high = fifth_bits(mfi_load32(b + 4));
    const __m256 d = half_at(b), min = half_at(b + 2);
    emit_plus(_mm_or_si128(low_nibbles(q), _mm256_castsi256_si128(high)), d, min, out);
    emit_plus(_mm_or_si128(high_nibbles(q), _mm256_extracti128_si256(high, 1)), d, min, out + 16);
}

ALWAYS_INLINE void q8_0(const uint8_t *b, float *out)
{
    const __m256 d = half_at(b);
    emit(load(b + 2), d, out);
    emit(load(b + 18), d, out + 16);
}

/* Values of nibbles from a table. */
ALWAYS_INLINE void looked_up(const int8_t table[16], const uint8_t *q, __m256 d, float *out)
{
    const __m128i values = load((const uint8_t *)table), v = load(q);
    emit(_mm_shuffle_epi8(values, low_nibbles(v)), d, out);
    emit(_mm_shuffle_epi8(values, high_nibbles(v)), d, out + 16);
}

ALWAYS_INLINE void iq4_nl(const uint8_t *b, float *out)
{
    looked_up(mfi_iq4_curve, b + 2, half_at(b), out);
}

ALWAYS_INLINE void mxfp4(const uint8_t *b, float *out)
{
    looked_up(mfi_e2m1_doubled, b + 1, _mm256_set1_ps(mfi_e8m0_half(b[0])), out);
}

/* ---- 256 elements ---- */

ALWAYS_INLINE __m256 scaled(__m256 d, float factor)
{
    return _mm256_mul_ps(d, _mm256_set1_ps(factor));
}

ALWAYS_INLINE __m256 negative(__m256 v)
{
    return _mm256_xor_ps(v, _mm256_set1_ps(-0.0f));
}

ALWAYS_INLINE void q2_k(const uint8_t *b, float *out)
{
    const __m256 d = half_at(b + 80), dmin = half_at(b + 82);
    for (int s = 0; s < 16; s++) {
        __m128i q = load(b + 16 + s / 8 * 32 + s % 2 * 16);
        emit_plus(shifted(q, s / 2 % 4 * 2, 3), scaled(d, (float)(b[s] & 15)),
                  negative(scaled(dmin, (float)(b[s] >> 4))), out + 16 * s);
    }
}

ALWAYS_INLINE void q3_k(const uint8_t *b, float *out)
{
    const __m256 d = half_at(b + 108);
    for (int s = 0; s < 16; s++) {
        __m128i low = shifted(load(b + 32 + s / 8 * 32 + s % 2 * 16), s / 2 % 4 * 2, 3);
        __m128i high = shifted(load(b + s % 2 * 16), s / 2, 1);
        __m128i codes = _mm_or_si128(low, _mm_slli_epi16(high, 2));
        emit(_mm_sub_epi8(codes, _mm_set1_epi8(4)),
             scaled(d, (float)(mfi_ggml_q3_scale(b + 96, s) - 32)), out + 16 * s);
    }
}

/* q4_K and, with fifth bits, q5_K. */
ALWAYS_INLINE void q45_k(const uint8_t *b, const uint8_t *nibbles, const uint8_t *fifth, float *out)
{
    const __m256 d = half_at(b), dmin = half_at(b + 2);
    for (int s = 0; s < 8; s++) {
        float scale, min;
        mfi_ggml_scale_min(b + 4, s, &scale, &min);
        const __m256 dl = scaled(d, scale), ml = negative(scaled(dmin, min));
        for (int h = 0; h < 2; h++) {
            __m128i codes = shifted(load(nibbles + s / 2 * 32 + 16 * h), s % 2 * 4, 15);
            if (fifth) {
                __m128i high = shifted(load(fifth + 16 * h), s, 1);
                codes = _mm_or_si128(codes, _mm_slli_epi16(high, 4));
            }
            emit_plus(codes, dl, ml, out + 32 * s + 16 * h);
        }
    }
}

ALWAYS_INLINE void q4_k(const uint8_t *b, float *out)
{
    q45_k(b, b + 16, NULL, out);
}

ALWAYS_INLINE void q5_k(const uint8_t *b, float *out)
{
    q45_k(b, b + 48, b + 16, out);
}

ALWAYS_INLINE void q6_k(const uint8_t *b, float *out)
{
    const __m256 d = half_at(b + 208);
    for (int s = 0; s < 16; s++) {
        __m128i low = shifted(load(b + s / 8 * 64 + s % 4 * 16), s / 4 % 2 * 4, 15);
        __m128i high = shifted(load(b + 128 + s / 8 * 32 + s % 2 * 16), s / 2 % 4 * 2, 3);
        __m128i codes = _mm_or_si128(low, _mm_slli_epi16(high, 4));
        emit(_mm_sub_epi8(codes, _mm_set1_epi8(32)), scaled(d, (float)(int8_t)b[192 + s]),
             out + 16 * s);
    }
}

ALWAYS_INLINE void iq4_xs(const uint8_t *b, float *out)
{
    const __m256 d = half_at(b);
    uint32_t high = mfi_load16(b + 2);
    for (int s = 0; s < 8; s++) {
        int scale = (int)((b[4 + s / 2] >> s % 2 * 4 & 15) | (high >> 2 * s & 3) << 4);
        looked_up(mfi_iq4_curve, b + 8 + 16 * s, scaled(d, (float)(scale - 32)), out + 32 * s);
    }
}

/* ---- rows ---- */

/* Defines decode_<name>: whole blocks, one after the other. */
#define ROW_OF(name, n_elements, n_bytes)                                                          \
    static void decode_##name(const void *const planes[3], uint32_t n, float *out)                 \
    {                                                                                              \
        const uint8_t *b = planes[0];                                                              \
        for (uint32_t i = 0; i < n; i += (n_elements), b += (n_bytes))                             \
            name(b, out + i);                                                                      \
    }

ROW_OF(q4_0, 32, 18)
ROW_OF(q4_1, 32, 20)
ROW_OF(q5_0, 32, 22)
ROW_OF(q5_1, 32, 24)
ROW_OF(q8_0, 32, 34)
ROW_OF(q2_k, 256, 84)
ROW_OF(q3_k, 256, 110)
ROW_OF(q4_k, 256, 144)
ROW_OF(q5_k, 256, 176)
ROW_OF(q6_k, 256, 210)
ROW_OF(iq4_nl, 32, 18)
ROW_OF(iq4_xs, 256, 136)
ROW_OF(mxfp4, 32, 17)

/* The safetensors form: nibbles in the order of elements, exponents in a plane of their own. */
static void decode_mxfp4_planes(const void *const planes[3], uint32_t n, float *out)
{
    const uint8_t *codes = planes[0], *exponents = planes[1];
    const __m128i values = load((const uint8_t *)mfi_e2m1_doubled);
    for (uint32_t i = 0; i < n; i += 32, codes += 16, exponents++) {
        uint32_t nan = 0x7fc00000;
        float d;
        if (*exponents == 255)
            memcpy(&d, &nan, sizeof d);
        else
            d = mfi_e8m0_half(*exponents);
        __m128i v = load(codes);
        __m128i low = _mm_shuffle_epi8(values, low_nibbles(v));
        __m128i high = _mm_shuffle_epi8(values, high_nibbles(v));
        emit(_mm_unpacklo_epi8(low, high), _mm256_set1_ps(d), out + i);
        emit(_mm_unpackhi_epi8(low, high), _mm256_set1_ps(d), out + i + 16);
    }
}

/* Eight E4M3 numbers by way of halves, whose exponent is biased by 8 more. */
ALWAYS_INLINE __m256 e4m3(const uint8_t *p)
{
    const __m128i rest = _mm_set1_epi16(0x7f);
    __m128i v = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)p));
    __m128i magnitude = _mm_and_si128(v, rest);
    __m128i half =
        _mm_or_si128(_mm_slli_epi16(_mm_andnot_si128(rest, v), 8), _mm_slli_epi16(magnitude, 7));
    __m128i nan = _mm_and_si128(_mm_cmpeq_epi16(magnitude, rest), _mm_set1_epi16(0x7e00));
    return _mm256_mul_ps(_mm256_cvtph_ps(_mm_or_si128(half, nan)), _mm256_set1_ps(256));
}

ALWAYS_INLINE void fp8(const uint32_t scale_kind, const void *const planes[3], uint32_t n,
                       float *out)
{
    const uint8_t *codes = planes[0], *scales = planes[1];
    for (uint32_t c = 0; c < n; c += MFI_FP8_BLOCK) {
        uint32_t end = MFI_MIN(n, c + MFI_FP8_BLOCK), i = c;
        float scale;
        if (scale_kind == MFI_Q_F32)
            memcpy(&scale, scales + c / MFI_FP8_BLOCK * 4, 4);
        else if (scale_kind == MFI_Q_F16)
            scale = mfi_load_f16(scales + c / MFI_FP8_BLOCK * 2);
        else
            scale = mfi_bf16_to_f32(mfi_load16(scales + c / MFI_FP8_BLOCK * 2));
        const __m256 s = _mm256_set1_ps(scale);
        for (; end - i >= 8; i += 8)
            _mm256_storeu_ps(out + i, _mm256_mul_ps(e4m3(codes + i), s));
        if (i < end) {
            uint8_t pad[8] = {0};
            memcpy(pad, codes + i, end - i);
            _mm256_maskstore_ps(out + i, first_lanes(end - i), _mm256_mul_ps(e4m3(pad), s));
        }
    }
}

static void decode_fp8_f32(const void *const planes[3], uint32_t n, float *out)
{
    fp8(MFI_Q_F32, planes, n, out);
}

static void decode_fp8_f16(const void *const planes[3], uint32_t n, float *out)
{
    fp8(MFI_Q_F16, planes, n, out);
}

static void decode_fp8_bf16(const void *const planes[3], uint32_t n, float *out)
{
    fp8(MFI_Q_BF16, planes, n, out);
}

mfi_avx2_decoder *mfi_avx2_decoder_of(mfi_qtype type)
{
    static mfi_avx2_decoder *const ggml[] = {
        [2] = decode_q4_0,   [3] = decode_q4_1,  [6] = decode_q5_0,    [7] = decode_q5_1,
        [8] = decode_q8_0,   [10] = decode_q2_k, [11] = decode_q3_k,   [12] = decode_q4_k,
        [13] = decode_q5_k,  [14] = decode_q6_k, [20] = decode_iq4_nl, [23] = decode_iq4_xs,
        [39] = decode_mxfp4,
    };
    switch (type.kind) {
    case MFI_Q_GGML:
        return type.bits < MFI_ARRAY_LEN(ggml) ? ggml[type.bits] : NULL;
    case MFI_Q_MXFP4:
        return decode_mxfp4_planes;
    case MFI_Q_FP8:
        return type.scale == MFI_Q_F32   ? decode_fp8_f32
               : type.scale == MFI_Q_F16 ? decode_fp8_f16
                                         : decode_fp8_bf16;
    default:
        return NULL;
    }
}
