/* The arithmetic of `moeflux perplexity` on rows small enough to work out by hand. */
#include "fake/support.h"

#include <math.h>
#include <string.h>

#include "kl_base.h"
#include "ppl.h"

#define NEAR(found, wanted, delta) assert_true(fabs((found) - (wanted)) <= (delta))

static void test_log_sum(void **state)
{
    (void)state;
    double log_sum;
    uint32_t top;
    /* e^0 + e^ln3 + e^-inf = 4; the first of two best */
    const float a[] = {0, logf(3), -INFINITY}, ties[] = {1, 2, 2}, far[] = {500, 500};
    assert_true(cli_ppl_log_sum(a, 3, &log_sum, &top));
    NEAR(log_sum, log(4), 1e-6);
    assert_int_equal(top, 1);
    assert_true(cli_ppl_log_sum(ties, 3, &log_sum, &top));
    assert_int_equal(top, 1);
    assert_true(cli_ppl_log_sum(far, 2, &log_sum, &top));
    NEAR(log_sum, 500 + log(2), 1e-4);
    const float bad[][3] = {
        {0, NAN, 1}, {NAN, 0, 1}, {0, INFINITY, 1}, {-INFINITY, -INFINITY, -INFINITY}};
    for (size_t i = 0; i < MFI_ARRAY_LEN(bad); i++)
        assert_false(cli_ppl_log_sum(bad[i], 3, &log_sum, &top));
}

/* Rows are kept to half a step; what lies more than 16 below the best as that, but for what came.
 */
static void test_rows(void **state)
{
    (void)state;
    const float logits[] = {3, -40, 2.5f, -12.9f, -60};
    const double log_sum = 3 + log(1 + exp(-0.5));
    uint16_t row[10];
    float scale[2];
    assert_int_equal(cli_kl_row_words(5), 10);
    for (uint32_t next = 0; next < 5; next += 4) {
        const double lowest = next == 4 ? -60 : -13;
        cli_kl_encode(logits, 5, log_sum, next, row);
        memcpy(scale, row, sizeof scale);
        NEAR(scale[0], (3 - lowest) / 65535, 1e-9);
        NEAR(scale[1], lowest - log_sum, 1e-5);
        for (uint32_t i = 0; i < 5; i++) {
            const double wanted = fmax((double)logits[i], lowest) - log_sum;
            NEAR(cli_kl_logprob(scale, row, i), wanted, 0.51 * scale[0] + 1e-5);
        }
        assert_int_equal(row[9], 0);
    }
    const float flat[] = {-7, -7};
    cli_kl_encode(flat, 2, -7 + log(2), 1, row);
    memcpy(scale, row, sizeof scale);
    assert_true(scale[0] == 0);
    NEAR(cli_kl_logprob(scale, row, 1), -log(2), 1e-6);
    const float below[] = {0, -1e30f}; /* no step is wider than 512 / 65535 */
    cli_kl_encode(below, 2, 0, 1, row);
    memcpy(scale, row, sizeof scale);
    NEAR(scale[1], -512, 1e-3);
}

/* Three tokens of a vocabulary of two. P(0) is 3/4, 1/2, 1/4 here and 1/2, 3/4, 1/4 in the base;
 * tokens 0, 0, 1 come. */
static void test_figures(void **state)
{
    (void)state;
    static const double here[] = {0.75, 0.5, 0.25}, base[] = {0.5, 0.75, 0.25};
    static const uint32_t next[] = {0, 0, 1};
    float klds[3], dps[3];
    cli_ppl p = {.klds = klds, .dps = dps};
    for (int i = 0; i < 3; i++) {
        const float a[] = {(float)log(here[i]), (float)log(1 - here[i])};
        const float b[] = {(float)log(base[i]), (float)log(1 - base[i])};
        uint16_t row[6];
        double log_sum;
        uint32_t top;
        assert_true(cli_ppl_log_sum(a, 2, &log_sum, &top));
        cli_kl_encode(b, 2, 0, next[i], row);
        cli_ppl_add(&p, a, 2, log_sum, top, next[i], row);
    }
    const cli_ppl_figures f = cli_ppl_figures_of(&p);
    /* nll: ln 4/3, ln 2, ln 4/3; base: ln 2, ln 4/3, ln 4/3 */
    const double a = log(4. / 3), b = log(2.);
    const double mean = (2 * a + b) / 3, var = (2 * a * a + b * b) / 3 - mean * mean;
    const double cov = (2 * a * b + a * a) / 3 - mean * mean; /* -var / 2 */
    NEAR(f.ppl.value, exp(mean), 1e-5);
    NEAR(f.ppl.error, exp(mean) * sqrt(var / 2), 1e-5);
    NEAR(f.base.value, exp(mean), 1e-4);
    NEAR(f.log_ratio.value, 0, 1e-4);
    NEAR(f.log_ratio.error, sqrt((2 * var - 2 * cov) / 2), 1e-4);
    NEAR(f.correlation, -0.5, 1e-3);
    /* KL: ln(4/3)/2 and 3/4 ln(3/2) - 1/4 ln 2, and 0 */
    const double k0 = 0.5 * log(4. / 3), k1 = 0.75 * log(1.5) - 0.25 * log(2);
    NEAR(klds[0], k0, 1e-5);
    NEAR(klds[1], k1, 1e-5);
    NEAR(f.kld.value, (k0 + k1) / 3, 1e-5);
    NEAR(dps[0], 0.25, 1e-5);
    NEAR(dps[1], -0.25, 1e-5);
    NEAR(f.dp.value, 0, 1e-5);
    NEAR(f.rms_dp.value, sqrt(0.125 / 3), 1e-5);
    /* The best: 0, a tie for the first, 1; of the base a tie for the first, 0, 1. */
    assert_int_equal(p.n_same_top, 3);
    NEAR(f.same_top.value, 1, 0);
}

static void test_quantiles(void **state)
{
    (void)state;
    float v[] = {3, -1, 0, 1, 2};
    cli_sort_floats(v, 5);
    NEAR(cli_quantile(v, 5, 0), -1, 0);
    NEAR(cli_quantile(v, 5, 1), 3, 0);
    NEAR(cli_quantile(v, 5, 0.5), 1, 0);
    NEAR(cli_quantile(v, 5, 0.1), -0.6, 1e-12);
    NEAR(cli_quantile(v, 1, 0.9), -1, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log_sum),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_figures),
        cmocka_unit_test(test_quantiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
