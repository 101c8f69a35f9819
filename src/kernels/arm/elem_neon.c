/* Element-wise kernels, 8-bit activations and the tables of the ARM levels. Called through the
 * tables, on any thread. Incomplete vectors go through copies, so that an element's bits don't
 * depend on how a caller cuts its range. Attention, convolution, the delta rule, routing and the
 * transposed products are the C functions. */
#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "kernels/arm/arm.h"
#include "kernels/arm/simd_neon.h"
#include "kernels/elem_tmpl.h"
#include "kernels/ref/ref.h"

typedef struct pair4 {
    float32x4_t a, b;
} pair4;

/* The first n < 4 of both arrays, and zeros. */
static pair4 load_part(const float *a, const float *b, uint32_t n)
{
    float room[2][4] = {0};
    memcpy(room[0], a, n * sizeof *a);
    memcpy(room[1], b, n * sizeof *b);
    return (pair4){vld1q_f32(room[0]), vld1q_f32(room[1])};
}

static void store_part(float *y, float32x4_t v, uint32_t n)
{
    float room[4];
    vst1q_f32(room, v);
    memcpy(y, room, n * sizeof *y);
}

static inline float32x4_t silu_mul4(float32x4_t gate, float32x4_t up)
{
    return vmulq_f32(vdivq_f32(gate, one_plus_exp_neg(gate)), up);
}

static void silu_mul(const float *gate, const float *up, uint32_t n, float *y)
{
    uint32_t i = 0;
    for (; n - i >= 4; i += 4)
        vst1q_f32(y + i, silu_mul4(vld1q_f32(gate + i), vld1q_f32(up + i)));
    if (i < n) {
        const pair4 p = load_part(gate + i, up + i, n - i);
        store_part(y + i, silu_mul4(p.a, p.b), n - i);
    }
}

static inline float32x4_t glu_clamped4(float32x4_t gate, float32x4_t up, float alpha, float limit)
{
    const float32x4_t most = vdupq_n_f32(limit), g = vminq_f32(gate, most);
    const float32x4_t u = vmaxq_f32(vminq_f32(up, most), vdupq_n_f32(-limit));
    const float32x4_t v = vdivq_f32(g, one_plus_exp_neg(vmulq_f32(vdupq_n_f32(alpha), g)));
    return vmulq_f32(vaddq_f32(u, vdupq_n_f32(1)), v);
}

static void glu_clamped(const float *gate, const float *up, float alpha, float limit, uint32_t n,
                        float *y)
{
    uint32_t i = 0;
    for (; n - i >= 4; i += 4)
        vst1q_f32(y + i, glu_clamped4(vld1q_f32(gate + i), vld1q_f32(up + i), alpha, limit));
    if (i < n) {
        const pair4 p = load_part(gate + i, up + i, n - i);
        store_part(y + i, glu_clamped4(p.a, p.b, alpha, limit), n - i);
    }
}

static inline float32x4_t sigmoid_mul4(float32x4_t y, float32x4_t g)
{
    return vmulq_f32(y, vdivq_f32(vdupq_n_f32(1), one_plus_exp_neg(g)));
}

static void sigmoid_mul(float *y, const float *g, uint32_t n)
{
    uint32_t i = 0;
    for (; n - i >= 4; i += 4)
        vst1q_f32(y + i, sigmoid_mul4(vld1q_f32(y + i), vld1q_f32(g + i)));
    if (i < n) {
        const pair4 p = load_part(y + i, g + i, n - i);
        store_part(y + i, sigmoid_mul4(p.a, p.b), n - i);
    }
}

/* ---- 8-bit activations ---- */

/* 16 codes as bytes. */
static void store_codes(int8_t *to, const int32x4_t code[4])
{
    const int16x8_t low = vcombine_s16(vmovn_s32(code[0]), vmovn_s32(code[1]));
    const int16x8_t high = vcombine_s16(vmovn_s32(code[2]), vmovn_s32(code[3]));
    vst1q_s8(to, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}

static int32_t sum16(const int32x4_t code[4])
{
    return vaddvq_s32(vaddq_s32(vaddq_s32(code[0], code[1]), vaddq_s32(code[2], code[3])));
}

/* The 16-bit form of block b, whose 8-bit form is there. */
static void quantize_rest(const float *in, uint32_t b, const mfi_q8 *to)
{
    const float d = to->d[b], fine = d / 255;
    const int8_t *q = to->q + (size_t)b * MFI_Q8_BLOCK;
    int8_t *lo = to->lo + (size_t)b * MFI_Q8_BLOCK;
    const int16_t *h = to->h + (size_t)2 * b;
    int32_t sum[2] = {0};
    if (fine > 0) {
        const float32x4_t most = vdupq_n_f32(127), step = vdupq_n_f32(fine);
        for (int part = 0; part < 2; part++) {
            int32x4_t code[4];
            for (int i = 0; i < 4; i++) {
                const int at = 16 * part + 4 * i;
                const float32x4_t had = {q[at], q[at + 1], q[at + 2], q[at + 3]};
                float32x4_t rest = vfmsq_n_f32(vld1q_f32(in + at), had, d);
                rest = vdivq_f32(rest, step);
                rest = vmaxq_f32(vminq_f32(rest, most), vnegq_f32(most));
                code[i] = vcvtnq_s32_f32(rest);
            }
            store_codes(lo + 16 * part, code);
            sum[part] = sum16(code);
        }
    } else {
        memset(lo, 0, MFI_Q8_BLOCK);
    }
    to->d_fine[b] = fine;
    to->s_fine[b] = fine * (float)(255 * (h[0] + h[1]) + sum[0] + sum[1]);
    to->h_lo[(size_t)2 * b] = (int16_t)sum[0];
    to->h_lo[(size_t)2 * b + 1] = (int16_t)sum[1];
}

void mfi_neon_quantize_q8(const float *x, uint32_t n, const mfi_q8 *to)
{
    MFI_ASSERT(n % MFI_Q8_BLOCK == 0);
    for (uint32_t b = 0; b < n / MFI_Q8_BLOCK; b++, x += MFI_Q8_BLOCK) {
        int8_t *q = to->q + (size_t)b * MFI_Q8_BLOCK;
        uint32x4_t max = vdupq_n_u32(0);
        int32_t sum[2] = {0};
        for (int i = 0; i < MFI_Q8_BLOCK; i += 4) /* by bits: a NaN is larger than anything */
            max = vmaxq_u32(
                max, vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x + i)), vdupq_n_u32(0x7fffffff)));
        const uint32_t most = vmaxvq_u32(max);
        float d;
        memcpy(&d, &most, sizeof d);
        d /= 127;
        if (d == 0 || !isfinite(d)) {
            memset(q, 0, MFI_Q8_BLOCK);
            d = d == 0 ? 0 : NAN;
        } else {
            for (int part = 0; part < 2; part++) {
                int32x4_t code[4];
                for (int i = 0; i < 4; i++) {
                    const float32x4_t v = vld1q_f32(x + 16 * part + 4 * i);
                    code[i] = vcvtnq_s32_f32(vdivq_f32(v, vdupq_n_f32(d)));
                    code[i] = vmaxq_s32(vminq_s32(code[i], vdupq_n_s32(127)), vdupq_n_s32(-127));
                }
                store_codes(q + 16 * part, code);
                sum[part] = sum16(code);
            }
        }
        to->d[b] = d;
        to->s[b] = d * (float)(sum[0] + sum[1]);
        to->h[(size_t)2 * b] = (int16_t)sum[0];
        to->h[(size_t)2 * b + 1] = (int16_t)sum[1];
        if (to->lo)
            quantize_rest(x, b, to);
    }
}

/* ---- tables ---- */

#define NEON_ENTRIES                                                                               \
    .matmul_f32 = mfi_neon_matmul_f32, .matmul_t = mfi_ref_matmul_t,                               \
    .matmul_cols = mfi_ref_matmul_cols, .quantize_q8 = mfi_neon_quantize_q8,                       \
    .get_row = mfi_ref_get_row, ELEM_ENTRIES, .silu_mul = silu_mul, .glu_clamped = glu_clamped,    \
    .sigmoid_mul = sigmoid_mul, .attend = mfi_ref_attend, .store_row = mfi_ref_store_row,          \
    .conv_silu = mfi_ref_conv_silu, .gdn_step = mfi_ref_gdn_step, .route = mfi_ref_route

const mfi_kernels mfi_neon_kernels = {
    .isa = MFI_ISA_NEON, .matmul_q8 = mfi_neon_matmul_q8, NEON_ENTRIES};

const mfi_kernels mfi_i8mm_kernels = {
    .isa = MFI_ISA_I8MM, .matmul_q8 = mfi_i8mm_matmul_q8, NEON_ENTRIES};
