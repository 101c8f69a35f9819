/* Encoding GGML blocks: q8_0 and q4_0 to the bit of llama.cpp's quantiser, the searched types
 * within what their codes allow and better than plain rounding, and importance that does what it
 * says. */
#include "fake/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/rng.h"
#include "quant/quant.h"

enum { Q4_0 = 2, Q8_0 = 8, Q4_K = 12, Q6_K = 14, MXFP4 = 39, SUPER = 256 };

static mfi_qtype ggml(uint8_t type)
{
    return (mfi_qtype){MFI_Q_GGML, type, 0, 0};
}

static void round_trip(mfi_qtype type, const float *x, const float *w, uint64_t n, float *y)
{
    uint64_t bytes = mfi_quant_row_bytes(type, 0, n);
    uint8_t *row = malloc(bytes + 16);
    memset(row + bytes, 0xee, 16);
    mfi_quant_encode_row(type, x, w, n, row);
    for (int i = 0; i < 16; i++)
        assert_int_equal(row[bytes + (uint64_t)i], 0xee);
    const void *planes[MFI_MAX_PLANES] = {row};
    mfi_dequant_row(type, planes, n, y);
    free(row);
}

static double weighted_error(const float *x, const float *y, const float *w, uint64_t n)
{
    double sum = 0;
    for (uint64_t i = 0; i < n; i++)
        sum += (w ? w[i] : 1) * ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
    return sum;
}

/* Bell-shaped, as weights are. */
static void fill(float *x, uint64_t n, uint64_t seed, float scale)
{
    mfi_rng rng = {seed};
    for (uint64_t i = 0; i < n; i++) {
        double sum = -6;
        for (int k = 0; k < 12; k++)
            sum += mfi_rng_unit(&rng);
        x[i] = (float)sum * scale;
    }
}

/* Bytes of ggml's quantize_row_{q8_0,q4_0} (ggml 0.26, and gguf-py 0.19) for these 64 values. */
static void test_reference_bytes(void **state)
{
    (void)state;
    static const uint8_t q8[] = {
        0xc9, 0x20, 0x85, 0x18, 0xad, 0x40, 0xd4, 0x67, 0xfc, 0x91, 0x24, 0xb9, 0x4b, 0xe0,
        0x73, 0x08, 0x9d, 0x30, 0xc4, 0x57, 0xec, 0x7f, 0x14, 0xa9, 0x3c, 0xd0, 0x63, 0xf8,
        0x8d, 0x20, 0xb5, 0x47, 0xdc, 0x6f, 0xa3, 0x20, 0x04, 0x95, 0x2d, 0xbe, 0x56, 0xe7,
        0x7f, 0x10, 0xa2, 0x39, 0xcb, 0x62, 0xf4, 0x85, 0x1d, 0xae, 0x46, 0xd7, 0x6f, 0x00,
        0x91, 0x29, 0xba, 0x52, 0xe3, 0x7b, 0x0c, 0x9e, 0x35, 0xc7, 0x5e, 0xf0};
    static const uint8_t q4[] = {0xc0, 0xb0, 0xcf, 0x37, 0x9d, 0x04, 0x7b, 0xe2, 0x48,
                                 0xbf, 0x26, 0x9d, 0xf3, 0x6a, 0xd1, 0x48, 0xae, 0x15,
                                 0x9a, 0xb0, 0x48, 0xbf, 0x15, 0x8c, 0xf3, 0x5a, 0xc0,
                                 0x37, 0xae, 0x04, 0x7b, 0xe2, 0x59, 0xcf, 0x26, 0x9d};
    float x[64];
    uint8_t out[sizeof q8];
    for (int i = 0; i < 64; i++)
        x[i] = (float)((i * 37) % 64 - 31) * 0.0371f;
    mfi_quant_encode_row(ggml(Q8_0), x, NULL, 64, out);
    assert_memory_equal(out, q8, sizeof q8);
    mfi_quant_encode_row(ggml(Q4_0), x, NULL, 64, out);
    assert_memory_equal(out, q4, sizeof q4);
}

static void test_floats(void **state)
{
    (void)state;
    float x[5] = {1, -2.5f, 65504, 1.00390625f, 0}, y[5];
    round_trip(mfi_qtype_float(MFI_Q_F32), x, NULL, 5, y);
    assert_memory_equal(x, y, sizeof x);
    round_trip(mfi_qtype_float(MFI_Q_F16), x, NULL, 5, y);
    assert_memory_equal(x, y, sizeof x);
    round_trip(mfi_qtype_float(MFI_Q_BF16), x, NULL, 5, y);
    assert_true(y[0] == 1 && y[1] == -2.5f && y[2] == 65536 && y[3] == 1 && y[4] == 0);
}

/* No element is further off than its block's step allows: half a step for q8_0, a whole one for
 * q4_0 (the largest of the sign that has no code -8). */
static void test_bounds(void **state)
{
    (void)state;
    enum { N = 4096 };
    static float x[N], y[N];
    for (uint64_t seed = 1; seed <= 3; seed++) {
        fill(x, N, seed, seed == 3 ? 1e-5f : 0.05f);
        for (int t = 0; t < 2; t++) {
            round_trip(ggml(t ? Q4_0 : Q8_0), x, NULL, N, y);
            for (int b = 0; b < N; b += 32) {
                float largest = 0;
                for (int i = b; i < b + 32; i++)
                    largest = fmaxf(largest, fabsf(x[i]));
                /* f16 rounds the scale: 2^-11 of the value, or half of its smallest step a code. */
                float slack = largest * 0x1p-10f + (t ? 8 : 127) * 0x1p-25f;
                float bound = t ? largest / 8 : largest / 127 / 2;
                for (int i = b; i < b + 32; i++)
                    if (fabsf(x[i] - y[i]) > bound + slack)
                        fail_msg("seed %d type %d element %d: %g became %g", (int)seed, t, i,
                                 (double)x[i], (double)y[i]);
            }
        }
    }
}

/* Plain rounding between the least and the greatest of 32, with exact scales: what a search must
 * beat although its scales have six bits. */
static double naive_q4_error(const float *x, int n)
{
    double sum = 0;
    for (int b = 0; b < n; b += 32) {
        float lo = 0, hi = 0;
        for (int i = b; i < b + 32; i++) {
            lo = fminf(lo, x[i]);
            hi = fmaxf(hi, x[i]);
        }
        float step = (hi - lo) / 15;
        for (int i = b; i < b + 32; i++) {
            double e = (double)x[i] - (roundf((x[i] - lo) / step) * step + lo);
            sum += e * e;
        }
    }
    return sum;
}

static double naive_q6_error(const float *x, int n)
{
    double sum = 0;
    for (int b = 0; b < n; b += 16) {
        float largest = 0;
        for (int i = b; i < b + 16; i++)
            largest = fmaxf(largest, fabsf(x[i]));
        float step = largest / 31;
        for (int i = b; i < b + 16; i++) {
            double e = (double)x[i] - roundf(x[i] / step) * step;
            sum += e * e;
        }
    }
    return sum;
}

static void test_search(void **state)
{
    (void)state;
    enum { N = 64 * SUPER };
    static float x[N], y[N];
    for (uint64_t seed = 10; seed < 13; seed++) {
        fill(x, N, seed, seed == 12 ? 30 : 0.03f);
        if (seed == 11) /* shifted, so that minima matter */
            for (int i = 0; i < N; i++)
                x[i] -= 0.05f;
        round_trip(ggml(Q4_K), x, NULL, N, y);
        double ratio = weighted_error(x, y, NULL, N) / naive_q4_error(x, N);
        if (!(ratio < 0.92))
            fail_msg("seed %d: q4_K has %.3f of plain rounding's squared error", (int)seed, ratio);
        round_trip(ggml(Q6_K), x, NULL, N, y);
        ratio = weighted_error(x, y, NULL, N) / naive_q6_error(x, N);
        if (!(ratio < 1))
            fail_msg("seed %d: q6_K has %.3f of plain rounding's squared error", (int)seed, ratio);
    }
}

static void test_importance(void **state)
{
    (void)state;
    enum { N = 64 * SUPER };
    static float x[N], w[N], plain[N], weighted[N];
    static const uint8_t types[] = {Q4_0, Q4_K, Q6_K};
    fill(x, N, 20, 0.05f);
    mfi_rng rng = {21};
    for (int i = 0; i < N; i++) /* a few columns matter a hundred times more than most */
        w[i] = mfi_rng_below(&rng, 16) == 0 ? 100 : (float)mfi_rng_unit(&rng);
    for (size_t t = 0; t < sizeof types; t++) {
        round_trip(ggml(types[t]), x, NULL, N, plain);
        round_trip(ggml(types[t]), x, w, N, weighted);
        double ratio = weighted_error(x, weighted, w, N) / weighted_error(x, plain, w, N);
        if (!(ratio < 0.8))
            fail_msg("%s: importance leaves %.3f of the weighted error", mfi_ggml_name(types[t]),
                     ratio);
        /* Columns that were never seen have no preference: as without importance. */
        static float zero[N];
        round_trip(ggml(types[t]), x, zero, N, weighted);
        assert_memory_equal(plain, weighted, sizeof plain);
    }
}

/* Values that tempt a division by zero or an overflow. */
static void test_extremes(void **state)
{
    (void)state;
    static const uint8_t types[] = {Q4_0, Q8_0, Q4_K, Q6_K};
    static const float values[] = {0, -0.0f, 1e-38f, -1e-30f, 1e-8f, 1, -1, 60000, -60000, 3e38f};
    float x[SUPER], y[SUPER];
    for (size_t t = 0; t < sizeof types; t++) {
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            for (int kind = 0; kind < 3; kind++) { /* everywhere, one, two signs */
                for (int i = 0; i < SUPER; i++)
                    x[i] = kind == 0              ? values[v]
                           : kind == 1 && i != 77 ? 0
                           : i & 1                ? -values[v]
                                                  : values[v];
                round_trip(ggml(types[t]), x, NULL, SUPER, y);
                if (!(fabsf(values[v]) < 1e6f))
                    continue; /* its scale is beyond f16: the caller finds that out */
                for (int i = 0; i < SUPER; i++)
                    if (!(fabsf(x[i] - y[i]) <= fabsf(values[v]) * 0.14f + 3e-6f))
                        fail_msg("%s: %g became %g", mfi_ggml_name(types[t]), (double)x[i],
                                 (double)y[i]);
            }
        }
    }
}

/* Numbers that are MXFP4 already keep their values, whatever power they were stored with; others
 * become the nearest of the sixteen. */
static void test_mxfp4(void **state)
{
    (void)state;
    static const float e2m1[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    mfi_rng rng = {21};
    float x[SUPER], y[SUPER];
    for (int exp = -120; exp <= 120; exp++) {
        for (int i = 0; i < SUPER; i++) {
            uint32_t code = (uint32_t)mfi_rng_below(&rng, i < 64 ? 3 : 8);
            x[i] = ldexpf(mfi_rng_below(&rng, 2) ? e2m1[code] : -e2m1[code], exp);
        }
        round_trip(ggml(MXFP4), x, NULL, SUPER, y);
        for (int i = 0; i < SUPER; i++)
            if (x[i] != y[i])
                fail_msg("2^%d: %g became %g", exp, (double)x[i], (double)y[i]);
    }
    for (int n = 0; n < 1000; n++) {
        float most = 0;
        for (int i = 0; i < 32; i++) {
            x[i] = (float)mfi_rng_unit(&rng) - 0.5f;
            most = fmaxf(most, fabsf(x[i]));
        }
        round_trip(ggml(MXFP4), x, NULL, 32, y);
        float unit = ldexpf(1, (int)floorf(log2f(most)) - 2);
        for (int i = 0; i < 32; i++) {
            float best = INFINITY;
            for (int k = 0; k < 8; k++)
                best = fminf(best, fabsf(fabsf(x[i]) - e2m1[k] * unit));
            assert_true(fabsf(x[i] - y[i]) <= best * 1.0001f);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_bytes), cmocka_unit_test(test_floats),
        cmocka_unit_test(test_bounds),          cmocka_unit_test(test_search),
        cmocka_unit_test(test_importance),      cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_mxfp4),
    };
    return mft_run(tests);
}
