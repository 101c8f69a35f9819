/* Delta rule, convolution and routing of every level, against their definitions in
 * double precision and between guard pages. */
#include "fake/support.h"

#include <math.h>
#include <string.h>

#include "base/limits.h"
#include "fake/kernel_case.h"

static void delta_rule(void **state)
{
    (void)state;
    static const uint16_t dims[] = {1, 5, 8, 9, 31, 32, 40, 64, 128};
    mfi_rng rng;
    for (uint32_t i = 0; i < 60; i++) {
        mft_seed(&rng, 1000 + i);
        uint32_t dk = dims[mft_below(&rng, 9)], dv = dims[i % 9];
        float *s0 = mft_random_floats(&rng, (size_t)dk * dv, 1);
        float *q = mft_random_floats(&rng, dk, 0.1f), *k = mft_random_floats(&rng, dk, 0.1f);
        float *v = mft_random_floats(&rng, dv, 1);
        for (uint32_t level = 0; level < mft_n_levels(); level++) {
            float *s = mft_floats((size_t)dk * dv, level ? MFT_AT_END : MFT_AT_START);
            float *out = mft_floats(dv, MFT_AT_END);
            double state64[128 * 128];
            memcpy(s, s0, (size_t)dk * dv * sizeof *s);
            for (uint32_t j = 0; j < dk * dv; j++)
                state64[j] = (double)s0[j];
            for (int step = 0; step < 3; step++) {
                float g = 0.3f + 0.3f * (float)step, beta = 0.9f - 0.4f * (float)step;
                mft_level(level)->gdn_step(s, q, k, v, g, beta, dk, dv, out);
                for (uint32_t j = 0; j < dv; j++) {
                    double m = 0, o = 0;
                    for (uint32_t a = 0; a < dk; a++)
                        m += (state64[a * dv + j] *= (double)g) * (double)k[a];
                    for (uint32_t a = 0; a < dk; a++) {
                        state64[a * dv + j] += (double)k[a] * (double)beta * ((double)v[j] - m);
                        o += state64[a * dv + j] * (double)q[a];
                    }
                    assert_true(fabs((double)out[j] - o) <= 3e-6);
                }
                for (uint32_t j = 0; j < dk * dv; j++)
                    assert_true(fabs((double)s[j] - state64[j]) <= 2e-6);
            }
        }
        mft_guard_free();
    }
}

/* A sequence through the kernel, in changing ranges of channels, against a plain convolution of the
 * whole sequence; then the bits against those of one range. */
static void convolution(void **state)
{
    (void)state;
    enum { STEPS = 7, MAX_CH = 45 };
    mfi_rng rng;
    for (uint32_t i = 0; i < 120; i++) {
        mft_seed(&rng, 2000 + i);
        uint32_t n_ch = mft_between(&rng, 1, MAX_CH), kernel = i % 3 ? 4 : mft_between(&rng, 1, 6);
        float *w = mft_random_floats(&rng, (size_t)n_ch * kernel, 1);
        float *x = mft_random_floats(&rng, (size_t)STEPS * n_ch, 1);
        for (uint32_t level = 0; level < mft_n_levels(); level++) {
            const mfi_kernels *k = mft_level(level);
            float *old = mft_floats((size_t)(kernel - 1) * n_ch, MFT_AT_END);
            float *whole = mft_floats((size_t)(kernel - 1) * n_ch, MFT_AT_START);
            float *y = mft_floats(n_ch, MFT_AT_END), *y2 = mft_floats(n_ch, MFT_AT_END);
            for (uint32_t t = 0; t < STEPS; t++) {
                for (uint32_t c = 0, n; c < n_ch; c += n) {
                    n = mft_between(&rng, 1, n_ch - c);
                    k->conv_silu(old, w, x + t * n_ch, n_ch, kernel, c, c + n, y);
                }
                k->conv_silu(whole, w, x + t * n_ch, n_ch, kernel, 0, n_ch, y2);
                assert_memory_equal(y, y2, n_ch * sizeof *y);
                assert_memory_equal(old, whole, (size_t)(kernel - 1) * n_ch * sizeof *y);
                for (uint32_t c = 0; c < n_ch; c++) {
                    double sum = 0;
                    for (uint32_t j = 0; j < kernel; j++) {
                        int64_t at = (int64_t)t + j - (kernel - 1);
                        if (at >= 0)
                            sum += (double)w[c * kernel + j] * (double)x[(size_t)at * n_ch + c];
                    }
                    assert_true(fabs((double)y[c] - sum / (1 + exp(-sum))) <= 2e-6);
                }
            }
            for (uint32_t j = 0; j + 1 < kernel; j++)
                assert_memory_equal(old + (size_t)j * n_ch,
                                    x + (size_t)(STEPS - kernel + 1 + j) * n_ch, n_ch * sizeof *x);
        }
        mft_guard_free();
    }
}

static void routing(void **state)
{
    (void)state;
    mfi_rng rng;
    for (uint32_t i = 0; i < 200; i++) {
        mft_seed(&rng, 3000 + i);
        uint32_t n = i % 10 == 9 ? MFI_MAX_EXPERTS : mft_between(&rng, 1, 300);
        uint32_t top_k = mft_between(&rng, 1, MFI_MIN(n, i % 2 ? 8u : MFI_MAX_TOP_K));
        float *logits = mft_random_floats(&rng, n, 3);
        if (i % 4 == 0) /* many equal ones */
            for (uint32_t j = 0; j < n; j++)
                logits[j] = rintf(logits[j] / 3);
        uint16_t ids[MFI_MAX_TOP_K];
        float weights[MFI_MAX_TOP_K];
        for (uint32_t level = 0; level < mft_n_levels(); level++) {
            for (int normalize = 0; normalize < 2; normalize++) {
                double all = 0, chosen = 0;
                bool taken[MFI_MAX_EXPERTS] = {false};
                mfi_routing how = {.normalize = normalize, .scale = 1};
                mft_level(level)->route(&how, logits, NULL, n, top_k, ids, weights);
                for (uint32_t j = 0; j < n; j++)
                    all += exp((double)logits[j]);
                for (uint32_t r = 0; r < top_k; r++) {
                    /* The best of what is left, the first of equals. */
                    uint32_t best = 0;
                    while (taken[best])
                        best++;
                    for (uint32_t j = best + 1; j < n; j++)
                        if (!taken[j] && logits[j] > logits[best])
                            best = j;
                    taken[best] = true;
                    chosen += exp((double)logits[best]);
                    assert_int_equal(ids[r], best);
                }
                for (uint32_t r = 0; r < top_k; r++) {
                    double want = exp((double)logits[ids[r]]) / (normalize ? chosen : all);
                    assert_true(fabs((double)weights[r] - want) <= want * 3e-6);
                }
            }
        }
        mft_guard_free();
    }
}

/* Whatever comes in, the ids are distinct and in range. */
static void routing_extremes(void **state)
{
    (void)state;
    static const float values[] = {INFINITY, -INFINITY, NAN, 3e38f, -3e38f, 0};
    for (uint32_t level = 0; level < mft_n_levels(); level++) {
        for (uint32_t pattern = 0; pattern < 6 * 6 * 6; pattern++) {
            float logits[12], weights[8];
            uint16_t ids[8];
            uint32_t seen = 0;
            for (uint32_t j = 0; j < 12; j++)
                logits[j] = values[(j % 3 == 0   ? pattern
                                    : j % 3 == 1 ? pattern / 6
                                                 : pattern / 36) %
                                   6];
            mfi_routing how = {.score = pattern % 3, .normalize = true, .scale = 1};
            mft_level(level)->route(&how, logits, NULL, 12, 8, ids, weights);
            for (uint32_t r = 0; r < 8; r++) {
                assert_true(ids[r] < 12);
                assert_false(seen >> ids[r] & 1);
                seen |= 1u << ids[r];
            }
        }
        float finite[3] = {3e38f, -3e38f, -INFINITY}, weights[3];
        uint16_t ids[3];
        mfi_routing softmax = {.normalize = true, .scale = 1};
        mft_level(level)->route(&softmax, finite, NULL, 3, 3, ids, weights);
        assert_true(ids[0] == 0 && ids[1] == 1 && ids[2] == 2);
        assert_true(weights[0] == 1 && weights[1] == 0 && weights[2] == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delta_rule),
        cmocka_unit_test(convolution),
        cmocka_unit_test(routing),
        cmocka_unit_test(routing_extremes),
    };
    return mft_run(tests);
}
