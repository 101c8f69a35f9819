/* Element-wise kernels and scalar helpers of every level: against double precision, at the ends of
 * the float range, and for the same bits however a range is cut. */
#include "fake/support.h"

#include <math.h>
#include <string.h>

#include "fake/kernel_case.h"

#define MAX_N 300

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

/* Distance in units of the last place of `want`, counted as for a normal number at least. */
static double ulps(float got, double want)
{
    if (!isfinite(got) || fabs(want) > 3.4028235677973366e38)
        return (double)got == (double)(float)want ? 0 : INFINITY;
    int exp;
    frexp(want, &exp);
    return fabs((double)got - want) / ldexp(1, (exp > -125 ? exp : -125) - 24);
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* Every sign, exponent and many fractions, through silu and sigmoid. */
static void activations(void **state)
{
    (void)state;
    float x[64], y[64], one[64];
    for (uint32_t i = 0; i < 64; i++)
        one[i] = 1;
    for (uint32_t level = 0; level < mft_n_levels(); level++) {
        const mfi_kernels *k = mft_level(level);
        double worst_silu = 0, worst_sigmoid = 0;
        for (uint64_t u = 0; u < (uint64_t)1 << 32; u += 64 * 4099) {
            for (uint32_t i = 0; i < 64; i++) {
                uint32_t v = (uint32_t)u + i * 4099;
                memcpy(&x[i], &v, sizeof v);
                if (!isfinite(x[i]))
                    x[i] = 0;
            }
            k->silu_mul(x, one, 64, y);
            for (uint32_t i = 0; i < 64; i++) {
                /* Below -88.7 exp(-x) is infinite as a float: the result is 0 for what would be
                 * a number below 1e-36. */
                double want = x[i] < -88.7f ? 0 : silu((double)x[i]);
                if (x[i] < -88.7f)
                    assert_true(fabsf(y[i]) < 1e-36f);
                else
                    worst_silu = fmax(worst_silu, ulps(y[i], want));
            }
            memcpy(y, one, sizeof y);
            k->sigmoid_mul(y, x, 64);
            for (uint32_t i = 0; i < 64; i++) {
                if (x[i] < -87)
                    assert_true(y[i] >= 0 && y[i] < 2e-38f);
                else
                    worst_sigmoid = fmax(worst_sigmoid, ulps(y[i], sigmoid((double)x[i])));
            }
        }
        if (worst_silu > 3 || worst_sigmoid > 3)
            fail_msg("level %u: silu %.2f ulp, sigmoid %.2f ulp", level, worst_silu, worst_sigmoid);
    }
}

static void activations_at_the_ends(void **state)
{
    (void)state;
    for (uint32_t level = 0; level < mft_n_levels(); level++) {
        const mfi_kernels *k = mft_level(level);
        float x[8] = {INFINITY, -INFINITY, NAN, 3e38f, -3e38f, 0, -0.0f, 1e-40f};
        float one[8] = {1, 1, 1, 1, 1, 1, 1, 1}, y[8];
        k->silu_mul(x, one, 8, y);
        assert_true(y[0] == INFINITY && isnan(y[1]) && isnan(y[2])); /* -inf * 0 */
        assert_true(y[3] == 3e38f && y[4] == 0);
        assert_int_equal(bits_of(y[5]), 0);
        assert_int_equal(bits_of(y[6]), 0x80000000);
        assert_true(y[7] == 5e-41f || ulps(y[7], 5e-41) <= 1);
        memcpy(y, one, sizeof y);
        k->sigmoid_mul(y, x, 8);
        assert_true(y[0] == 1 && y[1] == 0 && isnan(y[2]) && y[3] == 1 && y[4] == 0);
        assert_true(y[5] == 0.5f && y[6] == 0.5f && y[7] == 0.5f);
    }
}

/* gpt-oss's activation, against its definition in double; whole, in two parts and in place the same
 * bits; at the limits and beyond; a NaN stays one. */
static void clamped_glu(void **state)
{
    (void)state;
    mfi_rng rng;
    for (uint32_t i = 0; i < 200; i++) {
        mft_seed(&rng, 7000 + i);
        uint32_t n = mft_between(&rng, 1, 70), cut = mft_below(&rng, n + 1);
        float *gate = mft_random_floats(&rng, n, 8), *up = mft_random_floats(&rng, n, 8);
        float *a = mft_floats(n, MFT_AT_END), *b = mft_floats(n, MFT_AT_START);
        for (uint32_t level = 0; level < mft_n_levels(); level++) {
            const mfi_kernels *k = mft_level(level);
            k->glu_clamped(gate, up, 1.702f, 7, n, a);
            for (uint32_t j = 0; j < n; j++) {
                double g = fmin((double)gate[j], 7), u = fmin(fmax((double)up[j], -7), 7);
                double want = (u + 1) * g / (1 + exp(-(double)1.702f * g));
                /* u + 1 may cancel: the error is relative to 1. */
                assert_true(fabs((double)a[j] - want) <= 1e-6 * (fabs(want) + fabs(g)));
            }
            k->glu_clamped(gate, up, 1.702f, 7, cut, b);
            k->glu_clamped(gate + cut, up + cut, 1.702f, 7, n - cut, b + cut);
            assert_memory_equal(a, b, n * sizeof *a);
            memcpy(b, gate, n * sizeof *b);
            k->glu_clamped(b, up, 1.702f, 7, n, b);
            assert_memory_equal(a, b, n * sizeof *a);
        }
        mft_guard_free();
    }
    for (uint32_t level = 0; level < mft_n_levels(); level++) {
        float g[8] = {INFINITY, 7, 1e30f, -INFINITY, NAN, 1, 1, -1e30f};
        float u[8] = {-INFINITY, 7, 1e30f, 1, 1, NAN, INFINITY, 0}, y[8];
        mft_level(level)->glu_clamped(g, u, 1.702f, 7, 8, y);
        assert_true(y[0] < -41.9f && y[0] > -42); /* (-7 + 1) * 7 */
        assert_true(y[1] == y[2] && y[1] > 55.9f);
        assert_true(isnan(y[4]) && isnan(y[5]));
        assert_true(y[6] > 6.7f && y[6] < 6.8f); /* 8 * 0.846 */
        assert_true(y[7] == 0);
    }
}

/* Whole, in two parts, and in place: the same bits. */
static void activations_cut(void **state)
{
    (void)state;
    mfi_rng rng;
    for (uint32_t i = 0; i < 200; i++) {
        mft_seed(&rng, 100 + i);
        uint32_t n = mft_between(&rng, 1, 70), cut = mft_below(&rng, n + 1);
        float *gate = mft_random_floats(&rng, n, 5), *up = mft_random_floats(&rng, n, 5);
        float *a = mft_floats(n, MFT_AT_END), *b = mft_floats(n, MFT_AT_START);
        for (uint32_t level = 0; level < mft_n_levels(); level++) {
            const mfi_kernels *k = mft_level(level);
            k->silu_mul(gate, up, n, a);
            k->silu_mul(gate, up, cut, b);
            k->silu_mul(gate + cut, up + cut, n - cut, b + cut);
            assert_memory_equal(a, b, n * sizeof *a);
            memcpy(b, gate, n * sizeof *b);
            k->silu_mul(b, up, n, b);
            assert_memory_equal(a, b, n * sizeof *a);
            memcpy(b, up, n * sizeof *b);
            k->silu_mul(gate, b, n, b);
            assert_memory_equal(a, b, n * sizeof *a);
            for (uint32_t j = 0; j < n; j++)
                assert_true(ulps(a[j], silu((double)gate[j]) * (double)up[j]) <= 4);
            memcpy(a, up, n * sizeof *a);
            memcpy(b, up, n * sizeof *b);
            k->sigmoid_mul(a, gate, n);
            k->sigmoid_mul(b, gate, cut);
            k->sigmoid_mul(b + cut, gate + cut, n - cut);
            assert_memory_equal(a, b, n * sizeof *a);
            for (uint32_t j = 0; j < n; j++)
                assert_true(ulps(a[j], sigmoid((double)gate[j]) * (double)up[j]) <= 4);
        }
        mft_guard_free();
    }
}

/* The documented order: lane i % 16, then pairs. Written out another way than the kernels do it. */
static float sum_squares(const float *x, uint32_t n)
{
    float lane[16];
    for (uint32_t j = 0; j < 16; j++) {
        lane[j] = 0;
        for (uint32_t i = j; i < n; i += 16) {
            volatile float square = x[i] * x[i];
            lane[j] += square;
        }
    }
    for (uint32_t half = 8; half > 0; half /= 2)
        for (uint32_t j = 0; j < half; j++)
            lane[j] += lane[j + half];
    return lane[0];
}

static void norms(void **state)
{
    (void)state;
    mfi_rng rng;
    for (uint32_t i = 0; i < 200; i++) {
        mft_seed(&rng, 300 + i);
        uint32_t n = i < 70 ? i + 1 : mft_between(&rng, 1, MAX_N);
        float *x = mft_random_floats(&rng, n, i % 3 ? 2 : 1e-4f);
        float *w = mft_random_floats(&rng, n, 1);
        float *y[MFI_N_ISA], *l2[MFI_N_ISA];
        double sum = 0;
        for (uint32_t j = 0; j < n; j++)
            sum += (double)x[j] * (double)x[j];
        float factor = 1 / sqrtf(sum_squares(x, n) / (float)n + 1e-6f);
        for (uint32_t level = 0; level < mft_n_levels(); level++) {
            const mfi_kernels *k = mft_level(level);
            y[level] = mft_floats(n, MFT_AT_END);
            l2[level] = mft_floats(n, MFT_AT_END);
            k->rmsnorm(x, w, 1e-6f, n, y[level]);
            memcpy(l2[level], x, n * sizeof *x);
            k->l2norm(l2[level], 1e-6f, 0.25f, n, l2[level]); /* in place */
            for (uint32_t j = 0; j < n; j++) {
                double want = (double)x[j] / sqrt(sum / n + (double)1e-6f) * (double)w[j];
                assert_true(fabs((double)y[level][j] - want) <= fabs(want) * 1e-6);
                assert_true(y[level][j] == x[j] * factor * w[j]);
                want = (double)x[j] / sqrt(sum + (double)1e-6f) * 0.25;
                assert_true(fabs((double)l2[level][j] - want) <= fabs(want) * 1e-6);
            }
            assert_memory_equal(y[level], y[0], n * sizeof *x);
            assert_memory_equal(l2[level], l2[0], n * sizeof *x);
        }
        mft_guard_free();
    }
}

static void sums_and_rotations(void **state)
{
    (void)state;
    mfi_rng rng;
    for (uint32_t i = 0; i < 200; i++) {
        mft_seed(&rng, 600 + i);
        uint32_t n = mft_between(&rng, 1, 80), n_rot = n / 2 * 2;
        float a = mft_normal(&rng);
        float *x = mft_random_floats(&rng, n, 1), *y0 = mft_random_floats(&rng, n, 1);
        float *cosines = mft_floats(n_rot / 2, MFT_AT_END), *y = mft_floats(n, MFT_AT_END);
        float *sines = mft_floats(n_rot / 2, MFT_AT_END);
        for (uint32_t j = 0; j < n_rot / 2; j++) {
            cosines[j] = (float)cos(j * 0.7 + i);
            sines[j] = (float)sin(j * 0.7 + i);
        }
        for (uint32_t level = 0; level < mft_n_levels(); level++) {
            const mfi_kernels *k = mft_level(level);
            memcpy(y, y0, n * sizeof *y);
            k->add(y, x, n);
            for (uint32_t j = 0; j < n; j++)
                assert_true(y[j] == y0[j] + x[j]);
            memcpy(y, y0, n * sizeof *y);
            k->axpy(y, a, x, n);
            for (uint32_t j = 0; j < n; j++) {
                volatile float product = a * x[j];
                assert_true(y[j] == y0[j] + product);
            }
            memcpy(y, y0, n * sizeof *y);
            k->rope_half(y, n_rot, cosines, sines);
            for (uint32_t j = 0; j < n_rot / 2; j++) {
                double angle = j * 0.7 + i, u = (double)y0[j], v = (double)y0[j + n_rot / 2];
                assert_true(fabs((double)y[j] - (u * cos(angle) - v * sin(angle))) < 1e-6);
                assert_true(fabs((double)y[j + n_rot / 2] - (u * sin(angle) + v * cos(angle))) <
                            1e-6);
            }
            if (n_rot < n)
                assert_true(y[n_rot] == y0[n_rot]);
        }
        mft_guard_free();
    }
}

static void scalar_helpers(void **state)
{
    (void)state;
    for (double x = -110; x < 110; x += 0.0371) {
        float f = (float)x;
        assert_true(ulps(mfi_softplus(f), log1p(exp((double)f))) <= 3);
        if (x > -87)
            assert_true(ulps(mfi_sigmoid(f), sigmoid((double)f)) <= 3);
    }
    assert_true(mfi_softplus(3e38f) == 3e38f);
    assert_true(mfi_softplus(-3e38f) == 0);
    assert_true(mfi_softplus(INFINITY) == INFINITY);
    assert_true(mfi_softplus(-INFINITY) == 0);
    assert_true(isnan(mfi_softplus(NAN)));
    assert_true(mfi_softplus(-20) > 2.06e-9f && mfi_softplus(-20) < 2.07e-9f); /* not 0 */
    assert_true(mfi_sigmoid(-INFINITY) == 0 && mfi_sigmoid(INFINITY) == 1);
    assert_true(isnan(mfi_sigmoid(NAN)));
}

/* A level that lacks an entry would fail only where a model uses it. */
static void tables_are_whole(void **state)
{
    (void)state;
    for (uint32_t level = 0; level < mft_n_levels(); level++) {
        const mfi_kernels *k = mft_level(level);
        void (*entries[(sizeof *k - offsetof(mfi_kernels, matmul_f32)) / sizeof(void (*)(void))])(
            void);
        memcpy(entries, (const char *)k + offsetof(mfi_kernels, matmul_f32), sizeof entries);
        for (size_t i = 0; i < MFI_ARRAY_LEN(entries); i++)
            if (!entries[i])
                fail_msg("level %s has no entry %zu", mfi_isa_name(k->isa), i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations),     cmocka_unit_test(activations_at_the_ends),
        cmocka_unit_test(activations_cut), cmocka_unit_test(clamped_glu),
        cmocka_unit_test(norms),           cmocka_unit_test(sums_and_rotations),
        cmocka_unit_test(scalar_helpers),  cmocka_unit_test(tables_are_whole),
    };
    return mft_run(tests);
}
