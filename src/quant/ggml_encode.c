/* Encoding rows as GGML blocks and as narrower floats. Pure functions on the caller's memory; any
 * thread. Called by the converter. The layout of a block is the format's (docs/formats.md).
 *
 * q8_0 and, without importance, q4_0 are rounded to nearest as the format's reference does.
 * Everything else is a search: codes follow from a scale, the best scale from the codes by weighted
 * least squares; so a handful of scales is tried, and the one with the least weighted squared error
 * is kept. The weight of an element is its column's importance, or 1.
 *
 * Sums run in eight lanes that are added in one order, so that the compiler can use any vector
 * width and the bytes don't depend on it. */
#include <math.h>
#include <string.h>

#include "quant/ggml_decode.h"
#include "quant/quant.h"

#define LANES   8
#define Q4_0    2
#define Q8_0    8
#define Q4_K    12
#define Q6_K    14
#define MXFP4   39
#define SUPER   256 /* elements of a K block */
#define N_SUB4  8   /* of 32, in q4_K */
#define N_SUB6  16  /* of 16, in q6_K */
#define N_ROUND 3   /* of refining a K block as a whole */

bool mfi_quant_can_encode(mfi_qtype type)
{
    return mfi_qtype_is_float(type) ||
           (type.kind == MFI_Q_GGML &&
            (type.bits == Q4_0 || type.bits == Q8_0 || type.bits == Q4_K || type.bits == Q6_K ||
             type.bits == MXFP4));
}

static void store16(uint8_t *at, uint16_t v)
{
    at[0] = (uint8_t)v;
    at[1] = (uint8_t)(v >> 8);
}

static float lane_sum(const float acc[LANES])
{
    return ((acc[0] + acc[4]) + (acc[2] + acc[6])) + ((acc[1] + acc[5]) + (acc[3] + acc[7]));
}

/* Rounds to nearest without a call; |v| < 2^22. */
static inline float nearest(float v)
{
    return (v + 12582912.0f) - 12582912.0f;
}

static inline float clamp(float v, float lo, float hi)
{
    v = v < lo ? lo : v;
    return v > hi ? hi : v;
}

/* The float that an f16 scale decodes to. */
static float as_f16(float v)
{
    return mfi_f16_to_f32(mfi_f32_to_f16(v));
}

/* 1/v, or 0 where that is no use: quotients by it then give code 0. */
static float inverse(float v)
{
    float r = 1 / v;
    return isfinite(r) ? r : 0;
}

/* ---- q8_0: 32 bytes, one scale ---- */

static void encode_q8_0(const float *x, uint8_t *out)
{
    float largest = 0;
    for (int i = 0; i < 32; i++)
        largest = fmaxf(largest, fabsf(x[i]));
    float scale = largest / 127, inv = inverse(scale);
    store16(out, mfi_f32_to_f16(scale));
    for (int i = 0; i < 32; i++)
        out[2 + i] = (uint8_t)(int8_t)roundf(x[i] * inv);
}

/* ---- q4_0: 32 nibbles that stand for -8..7, one scale ---- */

/* The element of largest magnitude with its sign: it gets code -8, which has no counterpart. */
static float extreme(const float *x, int n)
{
    float e = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(e))
            e = x[i];
    return e;
}

/* Sums over codes clamp(nearest(x * inv), lo, hi): of w x q and w q q. n is a multiple of LANES. */
static void symmetric_sums(const float *x, const float *w, int n, float inv, float lo, float hi,
                           float *sum_xq, float *sum_qq)
{
    float xq[LANES] = {0}, qq[LANES] = {0};
    for (int i = 0; i < n; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            float q = clamp(nearest(x[i + l] * inv), lo, hi), wq = w[i + l] * q;
            xq[l] += wq * x[i + l];
            qq[l] += wq * q;
        }
    }
    *sum_xq = lane_sum(xq);
    *sum_qq = lane_sum(qq);
}

/* The scale of least weighted error for codes lo..hi, lo = -hi - 1; 0 if all is zero. The error of
 * codes q with their best scale is sum(w x x) - sum(w x q)^2 / sum(w q q), so the last is what
 * counts.
 */
static float symmetric_search(const float *x, const float *w, int n, float lo)
{
    float e = extreme(x, n), best = -1, scale = 0, hi = -lo - 1;
    if (e == 0)
        return 0;
    for (int k = -9; k <= 14; k += 2) { /* four times the work gains 0.2 % */
        /* Round the code of the largest element: -lo with its sign, or, with k > 9, hi. */
        float top = k <= 9 ? lo + 0.1f * (float)k : hi + 0.1f * (float)(k - 12);
        float inv = top / e, xq, qq;
        if (!isfinite(inv))
            continue;
        symmetric_sums(x, w, n, inv, lo, hi, &xq, &qq);
        if (qq > 0 && xq != 0 && xq * xq / qq > best) {
            best = xq * xq / qq;
            scale = xq / qq;
        }
    }
    return best < 0 ? e / lo : scale;
}

static void pack_q4_0(const float *x, float inv, uint8_t *out)
{
    for (int i = 0; i < 16; i++) {
        /* Truncating x + 8.5 rounds halves up, as the reference does it. */
        uint8_t a = (uint8_t)clamp(x[i] * inv + 8.5f, 0, 15.5f);
        uint8_t b = (uint8_t)clamp(x[i + 16] * inv + 8.5f, 0, 15.5f);
        out[2 + i] = (uint8_t)(a | b << 4);
    }
}

static void encode_q4_0(const float *x, const float *w, uint8_t *out)
{
    float scale = w ? symmetric_search(x, w, 32, -8) : extreme(x, 32) / -8;
    store16(out, mfi_f32_to_f16(scale));
    pack_q4_0(x, inverse(w ? as_f16(scale) : scale), out);
}

/* ---- q6_K: 256 codes -32..31, int8 scales of 16, one f16 ---- */

typedef struct q6_fit {
    float d;
    float sc[N_SUB6];
} q6_fit;

/* Scales in units of d; d is rounded to f16 first. */
static void q6_set(q6_fit *fit, float d, const float scales[N_SUB6])
{
    fit->d = as_f16(d);
    float inv = inverse(fit->d);
    for (int s = 0; s < N_SUB6; s++)
        fit->sc[s] = clamp(nearest(scales[s] * inv), -128, 127);
}

static float q6_code(float x, float inv)
{
    return clamp(nearest(x * inv), -32, 31);
}

/* The weighted error of a fit, and the d that would suit its codes better. */
static float q6_error(const q6_fit *fit, const float *x, const float *w, float *better)
{
    float err[LANES] = {0}, xv[LANES] = {0}, vv[LANES] = {0};
    for (int s = 0; s < N_SUB6; s++) {
        float inv = inverse(fit->d * fit->sc[s]), sc = fit->sc[s];
        for (int i = s * 16; i < s * 16 + 16; i += LANES) {
            for (int l = 0; l < LANES; l++) {
                float v = q6_code(x[i + l], inv) * sc, e = fit->d * v - x[i + l];
                err[l] += w[i + l] * e * e;
                xv[l] += w[i + l] * x[i + l] * v;
                vv[l] += w[i + l] * v * v;
            }
        }
    }
    float sum_vv = lane_sum(vv);
    *better = sum_vv > 0 ? lane_sum(xv) / sum_vv : fit->d;
    return lane_sum(err);
}

static void q6_pack(const q6_fit *fit, const float *x, uint8_t *out)
{
    uint8_t *ql = out, *qh = out + 128;
    memset(out, 0, 192);
    for (int i = 0; i < SUPER; i++) {
        float inv = inverse(fit->d * fit->sc[i / 16]);
        uint8_t q = (uint8_t)(q6_code(x[i], inv) + 32);
        int half = i / 128, quarter = i % 128 / 32, l = i % 32;
        ql[half * 64 + (quarter & 1) * 32 + l] |= (uint8_t)((q & 15) << (quarter & 2 ? 4 : 0));
        qh[half * 32 + l] |= (uint8_t)((q >> 4) << (2 * quarter));
    }
    for (int s = 0; s < N_SUB6; s++)
        out[192 + s] = (uint8_t)(int8_t)fit->sc[s];
    store16(out + 208, mfi_f32_to_f16(fit->d));
}

static void encode_q6_k(const float *x, const float *w, uint8_t *out)
{
    float scales[N_SUB6];
    for (int s = 0; s < N_SUB6; s++)
        scales[s] = symmetric_search(x + s * 16, w + s * 16, 16, -32);
    q6_fit best, fit;
    float d = extreme(scales, N_SUB6) / -128, better;
    q6_set(&best, d, scales);
    float least = q6_error(&best, x, w, &better);
    for (int r = 0; r < N_ROUND; r++) {
        q6_set(&fit, better, scales);
        float err = q6_error(&fit, x, w, &better);
        if (err < least) {
            least = err;
            best = fit;
        }
    }
    q6_pack(&best, x, out);
}

/* ---- q4_K: 256 codes 0..15, 6-bit scales and minima of 32, two f16 ---- */

/* What a sub-block's sums are over: fixed ones first. */
typedef struct q4_sums {
    float w, x, xx; /* sum of w, w x, w x x */
    float q, qq, xq;
} q4_sums;

static void q4_fixed_sums(const float *x, const float *w, q4_sums *s)
{
    float sw[LANES] = {0}, sx[LANES] = {0}, sxx[LANES] = {0};
    for (int i = 0; i < 32; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            float wx = w[i + l] * x[i + l];
            sw[l] += w[i + l];
            sx[l] += wx;
            sxx[l] += wx * x[i + l];
        }
    }
    s->w = lane_sum(sw);
    s->x = lane_sum(sx);
    s->xx = lane_sum(sxx);
}

static void q4_code_sums(const float *x, const float *w, float inv, float min, q4_sums *s)
{
    float sq[LANES] = {0}, sqq[LANES] = {0}, sxq[LANES] = {0};
    for (int i = 0; i < 32; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            float q = clamp(nearest((x[i + l] + min) * inv), 0, 15), wq = w[i + l] * q;
            sq[l] += wq;
            sqq[l] += wq * q;
            sxq[l] += wq * x[i + l];
        }
    }
    s->q = lane_sum(sq);
    s->qq = lane_sum(sqq);
    s->xq = lane_sum(sxq);
}

/* Scale and minimum (scale q - min) of least error for the codes behind the sums; neither may be
 * negative. False if there are none. */
static bool q4_solve(const q4_sums *s, float *scale, float *min)
{
    double det = (double)s->w * s->qq - (double)s->q * s->q;
    if (!(s->qq > 0))
        return false;
    *scale = *min = 0;
    if (det > 0) {
        *scale = (float)(((double)s->w * s->xq - (double)s->x * s->q) / det);
        *min = (float)(((double)s->q * s->xq - (double)s->qq * s->x) / det);
    }
    if (det <= 0 || *min < 0) {
        *min = 0;
        *scale = s->xq / s->qq;
    }
    return *scale > 0 && isfinite(*scale) && isfinite(*min);
}

static double q4_sub_error(const q4_sums *s, float scale, float min)
{
    double a = scale, m = min;
    return a * a * s->qq + m * m * s->w + s->xx - 2 * a * m * s->q - 2 * a * s->xq + 2 * m * s->x;
}

static void q4_search(const float *x, const float *w, float *scale, float *min)
{
    float lo = 0, hi = x[0];
    for (int i = 0; i < 32; i++) {
        lo = fminf(lo, x[i]);
        hi = fmaxf(hi, x[i]);
    }
    *min = -lo;
    *scale = (hi - lo) / 15;
    if (!(hi > lo)) { /* all the same, and not positive */
        *scale = 0;
        return;
    }
    q4_sums s;
    double least = INFINITY;
    q4_fixed_sums(x, w, &s);
    for (int k = -10; k <= 10; k += 2) {
        float inv = (15 + 0.12f * (float)k) / (hi - lo), m = -lo, a;
        for (int pass = 0; pass < 2 && isfinite(inv); pass++) {
            q4_code_sums(x, w, inv, m, &s);
            if (!q4_solve(&s, &a, &m))
                break;
            double err = q4_sub_error(&s, a, m);
            if (err < least) {
                least = err;
                *scale = a;
                *min = m;
            }
            inv = inverse(a);
        }
    }
}

typedef struct q4_fit {
    float d, dmin;
    float sc[N_SUB4], m[N_SUB4];
} q4_fit;

/* The weighted error of one sub-block with what is stored of it; adds to the sums that d and dmin
 * of the whole follow from: v = sc q, x = d v - dmin m. */
static float q4_stored_error(const q4_fit *fit, int s, float sc, float m, const float *x,
                             const float *w, double sums[5])
{
    float scale = fit->d * sc, min = fit->dmin * m, inv = inverse(scale);
    float err[LANES] = {0}, sw[LANES] = {0}, sv[LANES] = {0}, svv[LANES] = {0}, sxv[LANES] = {0};
    float sx[LANES] = {0};
    for (int i = s * 32; i < s * 32 + 32; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            float q = clamp(nearest((x[i + l] + min) * inv), 0, 15), wi = w[i + l];
            float e = scale * q - min - x[i + l], wq = wi * q;
            err[l] += wi * e * e;
            sw[l] += wi;
            sx[l] += wi * x[i + l];
            sv[l] += wq;
            svv[l] += wq * q;
            sxv[l] += wq * x[i + l];
        }
    }
    if (sums) {
        sums[0] += (double)lane_sum(svv) * sc * sc;
        sums[1] += (double)lane_sum(sv) * sc * m;
        sums[2] += (double)lane_sum(sw) * m * m;
        sums[3] += (double)lane_sum(sxv) * sc;
        sums[4] += (double)lane_sum(sx) * m;
    }
    return lane_sum(err);
}

/* Picks scales and minima for d and dmin: the nearest, or a neighbour with less error. Returns the
 * error and what d and dmin suit the codes better. */
static float q4_set(q4_fit *fit, const float scales[N_SUB4], const float mins[N_SUB4],
                    const float *x, const float *w, float *d, float *dmin)
{
    float inv_d = inverse(fit->d), inv_m = inverse(fit->dmin), total = 0;
    double sums[5] = {0};
    for (int s = 0; s < N_SUB4; s++) {
        float sc = clamp(nearest(scales[s] * inv_d), 0, 63);
        float m = clamp(nearest(mins[s] * inv_m), 0, 63), least = INFINITY;
        for (int k = 0; k < 9; k++) {
            float a = clamp(sc + (float)(k % 3 - 1), 0, 63);
            float b = clamp(m + (float)(k / 3 - 1), 0, 63);
            float err = q4_stored_error(fit, s, a, b, x, w, NULL);
            if (err < least) {
                least = err;
                fit->sc[s] = a;
                fit->m[s] = b;
            }
        }
        total += q4_stored_error(fit, s, fit->sc[s], fit->m[s], x, w, sums);
    }
    *d = fit->d;
    *dmin = fit->dmin;
    double det = sums[0] * sums[2] - sums[1] * sums[1];
    if (det > 0) {
        *d = (float)((sums[3] * sums[2] - sums[1] * sums[4]) / det);
        *dmin = (float)((sums[3] * sums[1] - sums[0] * sums[4]) / det);
    } else if (sums[0] > 0) {
        *d = (float)(sums[3] / sums[0]);
    }
    return total;
}

static void q4_pack(const q4_fit *fit, const float *x, uint8_t *out)
{
    uint8_t *scales = out + 4, *codes = out + 16;
    store16(out, mfi_f32_to_f16(fit->d));
    store16(out + 2, mfi_f32_to_f16(fit->dmin));
    memset(scales, 0, 140);
    for (int s = 0; s < N_SUB4; s++) {
        uint8_t sc = (uint8_t)fit->sc[s], m = (uint8_t)fit->m[s];
        if (s < 4) {
            scales[s] |= sc;
            scales[s + 4] |= m;
        } else {
            scales[s + 4] |= (uint8_t)((sc & 15) | (m & 15) << 4);
            scales[s - 4] |= (uint8_t)((sc >> 4) << 6);
            scales[s] |= (uint8_t)((m >> 4) << 6);
        }
        float min = fit->dmin * fit->m[s], inv = inverse(fit->d * fit->sc[s]);
        for (int i = 0; i < 32; i++) {
            uint8_t q = (uint8_t)clamp(nearest((x[s * 32 + i] + min) * inv), 0, 15);
            codes[s / 2 * 32 + i] |= (uint8_t)(q << (s % 2 ? 4 : 0));
        }
    }
}

static void encode_q4_k(const float *x, const float *w, uint8_t *out)
{
    float scales[N_SUB4], mins[N_SUB4], d = 0, dmin = 0, least = INFINITY;
    for (int s = 0; s < N_SUB4; s++) {
        q4_search(x + s * 32, w + s * 32, &scales[s], &mins[s]);
        d = fmaxf(d, scales[s] / 63);
        dmin = fmaxf(dmin, mins[s] / 63);
    }
    q4_fit best = {0}, fit = {0};
    for (int r = 0; r < N_ROUND; r++) {
        fit.d = as_f16(fmaxf(d, 0));
        fit.dmin = as_f16(fmaxf(dmin, 0));
        float err = q4_set(&fit, scales, mins, x, w, &d, &dmin);
        if (err < least || r == 0) {
            least = err;
            best = fit;
        }
    }
    q4_pack(&best, x, out);
}

/* ---- MXFP4 ---- */

/* The exponent takes the largest value to 4..7 halves of E2M1's range, so that what is a block of
 * such numbers already keeps every value. Ties go to the smaller code, as llama.cpp has it. */
static void encode_mxfp4(const float *x, uint8_t *out)
{
    float most = 0;
    int exp = 0;
    for (int i = 0; i < 32; i++)
        most = fmaxf(most, fabsf(x[i]));
    (void)frexpf(most, &exp);                       /* most is in [2^(exp - 1), 2^exp) */
    int e = most > 0 && exp > -124 ? exp + 124 : 0; /* 127 + floor(log2) - 2 */
    float half = mfi_e8m0_half((uint8_t)e);
    out[0] = (uint8_t)e;
    memset(out + 1, 0, 16);
    for (int i = 0; i < 32; i++) {
        int best = 0;
        for (int code = 1; code < 16; code++)
            if (fabsf((float)mfi_e2m1_doubled[code] * half - x[i]) <
                fabsf((float)mfi_e2m1_doubled[best] * half - x[i]))
                best = code;
        out[1 + i % 16] |= (uint8_t)(best << (i < 16 ? 0 : 4));
    }
}

/* ---- rows ---- */

static void encode_float(mfi_qkind kind, const float *x, uint64_t n, uint8_t *out)
{
    if (kind == MFI_Q_F32) {
        memcpy(out, x, n * sizeof *x);
        return;
    }
    for (uint64_t i = 0; i < n; i++)
        store16(out + 2 * i, kind == MFI_Q_F16 ? mfi_f32_to_f16(x[i]) : mfi_f32_to_bf16(x[i]));
}

void mfi_quant_encode_row(mfi_qtype type, const float *x, const float *importance, uint64_t n,
                          void *out)
{
    uint32_t block = 0, bytes = 0;
    MFI_ASSERT(mfi_quant_can_encode(type) && mfi_quant_cols_ok(type, n));
    if (type.kind != MFI_Q_GGML) {
        encode_float((mfi_qkind)type.kind, x, n, out);
        return;
    }
    MFI_ASSERT(mfi_ggml_block(type.bits, &block, &bytes));
    float weights[SUPER];
    for (int i = 0; i < SUPER; i++)
        weights[i] = 1;
    uint8_t *at = out;
    for (uint64_t i = 0; i < n; i += block, at += bytes) {
        bool weighted = false; /* a block whose columns were never seen has no preference */
        for (uint32_t k = 0; importance && k < block; k++)
            weighted |= importance[i + k] > 0;
        const float *w = weighted ? importance + i : weights;
        if (type.bits == Q8_0)
            encode_q8_0(x + i, at);
        else if (type.bits == Q4_0)
            encode_q4_0(x + i, weighted ? w : NULL, at);
        else if (type.bits == MXFP4)
            encode_mxfp4(x + i, at);
        else if (type.bits == Q4_K)
            encode_q4_k(x + i, w, at);
        else
            encode_q6_k(x + i, w, at);
    }
}
