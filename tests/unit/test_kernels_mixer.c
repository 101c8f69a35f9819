/* Attention, delta rule, convolution and routing of every level, against their definitions in
 * double precision and between guard pages. */
#include "fake/support.h"

#include <math.h>
#include <string.h>

#include "base/limits.h"
#include "fake/kernel_case.h"

static double weighted_dot(const float *a, const float *b, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* Plain softmax over all positions at once. */
static void naive_attend(const float *q, const float *k, size_t ldk, const float *v, size_t ldv,
                         uint32_t n_kv, uint32_t dim, uint32_t dim_v, double scale, double *out)
{
    double max = -INFINITY, sum = 0;
    memset(out, 0, dim_v * sizeof *out);
    for (uint32_t j = 0; j < n_kv; j++)
        max = fmax(max, scale * weighted_dot(q, k + j * ldk, dim));
    for (uint32_t j = 0; j < n_kv; j++) {
        double p = exp(scale * weighted_dot(q, k + j * ldk, dim) - max);
        sum += p;
        for (uint32_t i = 0; i < dim_v; i++)
            out[i] += p * (double)v[j * ldv + i];
    }
    for (uint32_t i = 0; i < dim_v; i++)
        out[i] /= sum;
}

static void attention(void **state)
{
    (void)state;
    static const uint16_t dims[] = {1, 7, 8, 16, 17, 64, 72, 100, 128, 192, 256, 576, 1024};
    static const uint16_t lengths[] = {1, 2, 63, 64, 65, 128, 129, 200};
    mfi_rng rng;
    for (uint32_t i = 0; i < 104; i++) {
        mft_seed(&rng, i);
        uint32_t dim = dims[i % 13], dim_v = dims[mft_below(&rng, 13)];
        uint32_t n_kv = lengths[i % 8];
        size_t ldk = dim + mft_below(&rng, 3), ldv = dim_v + mft_below(&rng, 3);
        /* From even weights to one that takes all; the largest scores come late, so that what was
         * summed must shrink. */
        float scale = (i % 3 ? 1.0f : 20.0f) / sqrtf((float)dim);
        float *q = mft_random_floats(&rng, dim, 1);
        float *k = mft_random_floats(&rng, ldk * (n_kv - 1) + dim, 1);
        float *v = mft_random_floats(&rng, ldv * (n_kv - 1) + dim_v, 1);
        if (i % 2)
            for (uint32_t j = 0; j < dim; j++)
                k[(n_kv - 1) * ldk + j] = q[j] * 2;
        double want[1024];
        naive_attend(q, k, ldk, v, ldv, n_kv, dim, dim_v, (double)scale, want);
        for (uint32_t level = 0; level < mft_n_levels(); level++) {
            float *out = mft_floats(dim_v, MFT_AT_END);
            mft_level(level)->attend(q, k, ldk, v, ldv, n_kv, dim, dim_v, scale, out);
            for (uint32_t j = 0; j < dim_v; j++)
                if (!(fabs((double)out[j] - want[j]) <= 1e-4))
                    fail_msg("level %u, dim %u, %u, n_kv %u: [%u] %g, not %g (seed %u)", level, dim,
                             dim_v, n_kv, j, (double)out[j], want[j], i);
        }
        mft_guard_free();
    }
}

/* Rows in a ring, with a sink: against the definition over rows in order, whose softmax has one
 * more logit with a value of nothing. Then the bits: the same wherever the ring ends, and without a
 * sink those of `attend`. */
static void attention_in_a_ring(void **state)
{
    (void)state;
    static const uint16_t dims[] = {1, 7, 8, 17, 64, 72, 128};
    mfi_rng rng;
    for (uint32_t i = 0; i < 150; i++) {
        mft_seed(&rng, 5000 + i);
        uint32_t dim = dims[i % 7], dim_v = dims[mft_below(&rng, 7)];
        uint32_t n_kv = mft_between(&rng, 1, 200), ring = n_kv + mft_below(&rng, 40);
        uint32_t first = mft_below(&rng, ring);
        size_t ldk = dim + mft_below(&rng, 3), ldv = dim_v + mft_below(&rng, 3);
        float scale = (i % 3 ? 1.0f : 20.0f) / sqrtf((float)dim);
        float sink = i % 5 == 0 ? -INFINITY : (float)mft_below(&rng, 9) - 4;
        float *q = mft_random_floats(&rng, dim, 1);
        float *k = mft_random_floats(&rng, ldk * n_kv, 1);
        float *v = mft_random_floats(&rng, ldv * n_kv, 1);
        float *ring_k = mft_floats(ldk * (ring - 1) + dim, MFT_AT_END);
        float *ring_v = mft_floats(ldv * (ring - 1) + dim_v, MFT_AT_END);
        for (uint32_t j = 0; j < n_kv; j++) {
            size_t row = (first + j) % ring;
            memcpy(ring_k + row * ldk, k + j * ldk, dim * sizeof *k);
            memcpy(ring_v + row * ldv, v + j * ldv, dim_v * sizeof *v);
        }
        double want[1024], rest = 0, max = -INFINITY;
        naive_attend(q, k, ldk, v, ldv, n_kv, dim, dim_v, (double)scale, want);
        for (uint32_t j = 0; j < n_kv; j++)
            max = fmax(max, (double)scale * weighted_dot(q, k + j * ldk, dim));
        for (uint32_t j = 0; j < n_kv; j++)
            rest += exp((double)scale * weighted_dot(q, k + j * ldk, dim) - max);
        double share = rest / (rest + exp((double)sink - max));
        for (uint32_t level = 0; level < mft_n_levels(); level++) {
            const mfi_kernels *kern = mft_level(level);
            float *out = mft_floats(dim_v, MFT_AT_END), *same = mft_floats(dim_v, MFT_AT_END);
            kern->attend_ring(q, ring_k, ldk, ring_v, ldv, first, n_kv, ring, dim, dim_v, scale,
                              sink, out);
            for (uint32_t j = 0; j < dim_v; j++)
                if (!(fabs((double)out[j] - want[j] * share) <= 1e-4))
                    fail_msg("level %u, dim %u, %u, %u rows of %u from %u, sink %g: [%u] %g, not "
                             "%g (seed %u)",
                             level, dim, dim_v, n_kv, ring, first, (double)sink, j, (double)out[j],
                             want[j] * share, 5000 + i);
            kern->attend_ring(q, k, ldk, v, ldv, 0, n_kv, n_kv, dim, dim_v, scale, sink, same);
            assert_memory_equal(out, same, dim_v * sizeof *out);
            kern->attend(q, k, ldk, v, ldv, n_kv, dim, dim_v, scale, same);
            assert_true(sink != -INFINITY || memcmp(out, same, dim_v * sizeof *out) == 0);
        }
        mft_guard_free();
    }
}

/* Scores far beyond what exp can take, and one that is not a number. */
static void attention_extremes(void **state)
{
    (void)state;
    for (uint32_t level = 0; level < mft_n_levels(); level++) {
        const mfi_kernels *kern = mft_level(level);
        float q[2] = {1, 0}, k[130][2] = {{0}}, v[130][1], out[1];
        for (int j = 0; j < 130; j++) {
            k[j][0] = j == 100 ? 1e30f : (float)j * -1e28f;
            v[j][0] = (float)j;
        }
        kern->attend(q, k[0], 2, v[0], 1, 130, 2, 1, 1, out);
        assert_true(out[0] == 100);
        kern->attend(q, k[0], 2, v[0], 1, 100, 2, 1, 1, out);
        assert_true(out[0] == 0);
        k[70][0] = NAN;
        kern->attend(q, k[0], 2, v[0], 1, 130, 2, 1, 1, out);
        assert_true(isnan(out[0]));
        /* A sink that takes all, one that gets nothing, and one that is not a number. */
        kern->attend_ring(q, k[0], 2, v[0], 1, 1, 60, 100, 2, 1, 1, 1e30f, out);
        assert_true(out[0] == 0);
        kern->attend_ring(q, k[0], 2, v[0], 1, 1, 60, 100, 2, 1, 1, -3e38f, out);
        assert_true(out[0] == 1);
        kern->attend_ring(q, k[0], 2, v[0], 1, 1, 60, 100, 2, 1, 1, NAN, out);
        assert_true(isnan(out[0]));
    }
}

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
    enum { STEPS = 7, MAX_CH = 45, MAX_KERNEL = 6 };
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
        cmocka_unit_test(attention),          cmocka_unit_test(attention_in_a_ring),
        cmocka_unit_test(attention_extremes), cmocka_unit_test(delta_rule),
        cmocka_unit_test(convolution),        cmocka_unit_test(routing),
        cmocka_unit_test(routing_extremes),
    };
    return mft_run(tests);
}
