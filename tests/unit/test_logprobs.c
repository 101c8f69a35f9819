/* Log-probabilities against the formula in long double, and the best tokens against a full search:
 * vocabularies around the sizes of a block, logits from nearly alike to far apart, with NaN, minus
 * infinity and ties. */
#include "fake/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/defs.h"
#include "base/rng.h"
#include "moeflux/moeflux.h"

#define N_MAX 3000

static float random_logit(mfi_rng *rng, double spread)
{
    switch (mfi_rng_below(rng, 24)) {
    case 0:
        return -INFINITY;
    case 1:
        return NAN;
    case 2: /* ties */
        return (float)(0.4 * spread);
    default:
        return (float)((mfi_rng_unit(rng) - 0.5) * spread);
    }
}

static long double rest_of(const float *v, uint32_t n)
{
    long double best = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < n; i++)
        best = v[i] > (float)best ? (long double)v[i] : best;
    for (uint32_t i = 0; i < n; i++)
        sum += isnan(v[i]) ? 0 : expl((long double)v[i] - best);
    return best + logl(sum);
}

static bool near(float got, long double want)
{
    if (isinf(want))
        return isinf(got) && got < 0;
    return fabsl((long double)got - want) <= 3e-7L + 1.2e-7L * fabsl(want);
}

/* The next of the best, in order: higher first, the lower id on ties. -1: none is left. */
static int64_t next_best(const float *v, uint32_t n, int64_t after)
{
    int64_t best = -1;
    for (uint32_t i = 0; i < n; i++) {
        bool left = after < 0 || v[i] < v[after] || (v[i] == v[after] && (int64_t)i > after);
        if (!isnan(v[i]) && left && (best < 0 || v[i] > v[best]))
            best = i;
    }
    return best;
}

static void random_logits(void **state)
{
    (void)state;
    static const double spreads[] = {1e-3, 1, 20, 200, 1e5};
    static const uint32_t sizes[] = {1, 15, 16, 17, 127, 128, 129, 1000, N_MAX};
    float v[N_MAX];
    for (uint32_t t = 0; t < 400; t++) {
        mfi_rng rng = {t};
        uint32_t n = sizes[t % MFI_ARRAY_LEN(sizes)];
        double spread = spreads[t / 2 % MFI_ARRAY_LEN(spreads)];
        for (uint32_t i = 0; i < n; i++)
            v[i] = random_logit(&rng, spread);
        v[mfi_rng_below(&rng, n)] = (float)(spread / 2); /* one at least is a number */
        mf_token_logprob chosen, top[MF_TOP_LOGPROBS];
        size_t n_top = mfi_rng_below(&rng, MF_TOP_LOGPROBS + 1);
        int32_t id = (int32_t)mfi_rng_below(&rng, n);
        size_t found = mf_logprobs(v, n, id, &chosen, top, n_top);
        long double rest = rest_of(v, n);
        bool ok = chosen.id == id &&
                  near(chosen.logprob, isnan(v[id]) ? -INFINITY : (long double)v[id] - rest);
        int64_t at = -1;
        for (size_t i = 0; i < found && ok; i++) {
            at = next_best(v, n, at);
            ok = at == top[i].id && near(top[i].logprob, (long double)v[at] - rest);
        }
        ok = ok && (found == n_top || next_best(v, n, found ? at : -1) < 0);
        if (!ok)
            fprintf(stderr, "trial %u: %u logits, spread %g, %zu of %zu best\n", t, n, spread,
                    found, n_top);
        assert_true(ok);
    }
}

/* A sum of many small terms: all of a large vocabulary alike is -log(n). */
static void many_alike(void **state)
{
    (void)state;
    const uint32_t n = 250000;
    float *v = malloc(n * sizeof *v);
    mf_token_logprob chosen, top[3];
    assert_true(v != NULL);
    for (uint32_t i = 0; i < n; i++)
        v[i] = -3.25f;
    assert_true(mf_logprobs(v, n, 77, &chosen, top, 3) == 3);
    assert_true(near(chosen.logprob, -logl(n)) && top[0].id == 0 && top[1].id == 1 &&
                top[2].id == 2);
    v[n - 1] = 0; /* and 249,999 that are together as likely as nothing beside it, or as much */
    for (uint32_t i = 0; i + 1 < n; i++)
        v[i] = -logf((float)(n - 1));
    assert_true(mf_logprobs(v, n, (int32_t)n - 1, &chosen, top, 1) == 1);
    assert_true(near(chosen.logprob, -logl(2)) && top[0].id == (int32_t)n - 1);
    free(v);
}

/* Logits without a finite one among them: nothing is NaN, and what shares everything shares it. */
static void infinite(void **state)
{
    (void)state;
    float v[300];
    mf_token_logprob chosen, top[3];
    for (uint32_t n = 1; n <= MFI_ARRAY_LEN(v); n = n * 3 + 1) {
        for (uint32_t i = 0; i < n; i++)
            v[i] = -INFINITY;
        size_t found = mf_logprobs(v, n, (int32_t)n - 1, &chosen, top, 3);
        assert_true(found == MFI_MIN(n, 3u) && chosen.logprob == -INFINITY);
        for (size_t i = 0; i < found; i++)
            assert_true(top[i].id == (int32_t)i && top[i].logprob == -INFINITY);
        v[n / 2] = INFINITY;
        assert_true(mf_logprobs(v, n, (int32_t)(n / 2), &chosen, top, 3) == MFI_MIN(n, 3u));
        assert_true(chosen.logprob == 0 && top[0].id == (int32_t)(n / 2) && top[0].logprob == 0);
        for (uint32_t i = 0; i < n; i++)
            v[i] = NAN;
        assert_true(mf_logprobs(v, n, 0, &chosen, top, 3) == 0 && chosen.logprob == -INFINITY);
    }
    for (uint32_t i = 0; i < MFI_ARRAY_LEN(v); i++)
        v[i] = NAN;
    v[7] = v[270] = INFINITY; /* in two blocks */
    v[9] = 2;
    assert_true(mf_logprobs(v, 300, 9, &chosen, top, 3) == 3 && chosen.logprob == -INFINITY);
    assert_true(top[0].id == 7 && near(top[0].logprob, -logl(2)) && top[1].id == 270 &&
                near(top[1].logprob, -logl(2)) && top[2].id == 9 && top[2].logprob == -INFINITY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_logits),
        cmocka_unit_test(many_alike),
        cmocka_unit_test(infinite),
    };
    return mft_run(tests);
}
