/* The sampler against a naive one (full sort, normalised probabilities), against the chi-square
 * distribution, and at its edges. */
#include "fake/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sample/sampler.h"

#define MAX_VOCAB 1500

static float random_logit(mfi_rng *rng)
{
    switch (mfi_rng_below(rng, 24)) {
    case 0:
        return -INFINITY;
    case 1:
        return NAN;
    case 2: /* ties */
        return 2.5f;
    default:
        return (float)(mfi_rng_unit(rng) * 16 - 8);
    }
}

/* ---- the naive sampler ---- */

typedef struct naive {
    double p;
    float logit;
    int id;
} naive;

static int naive_order(const void *a, const void *b)
{
    const naive *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static float naive_logit(const mf_sampling *o, const float *logits, int id, const int32_t *history,
                         int n_history)
{
    float l = logits[id];
    for (size_t i = 0; i < o->n_bias; i++)
        if (o->bias[i].id == id)
            l += o->bias[i].bias;
    int begin = 0, count = 0;
    if (o->repeat_last_n >= 0 && n_history > o->repeat_last_n)
        begin = n_history - o->repeat_last_n;
    for (int i = begin; i < n_history; i++)
        count += history[i] == id;
    if (count) {
        l = l > 0 ? l / o->repeat_penalty : l * o->repeat_penalty;
        l -= (float)count * o->frequency_penalty;
        l -= o->presence_penalty;
    }
    return l;
}

/* Fills all [n] with what can be drawn, best first, probabilities summing to 1; returns how many.
 */
static int naive_distribution(const mf_sampling *o, const float *logits, int n_vocab,
                              const int32_t *history, int n_history, naive *all)
{
    int n = 0;
    for (int i = 0; i < n_vocab; i++) {
        float l = naive_logit(o, logits, i, history, n_history);
        if (!isnan(l) && l != -INFINITY)
            all[n++] = (naive){0, l, i};
    }
    qsort(all, (size_t)n, sizeof *all, naive_order);
    if (o->top_k && n > o->top_k)
        n = o->top_k;
    if (n == 0)
        return 0;
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += all[i].p =
            exp(((double)all[i].logit - (double)all[0].logit) / (double)o->temperature);
    double cumulative = 0;
    int m = 0;
    for (; m < n; m++) {
        if (m && o->top_p < 1 && cumulative >= (double)o->top_p)
            break;
        all[m].p /= sum;
        cumulative += all[m].p;
    }
    for (n = m, m = 1; m < n && all[m].p >= (double)o->min_p * all[0].p; m++)
        ;
    sum = 0;
    for (int i = 0; i < m; i++)
        sum += all[i].p;
    for (int i = 0; i < m; i++)
        all[i].p /= sum;
    return m;
}

static int naive_greedy(const mf_sampling *o, const float *logits, int n_vocab,
                        const int32_t *history, int n_history)
{
    int best = -1;
    float value = 0;
    for (int i = 0; i < n_vocab; i++) {
        float l = naive_logit(o, logits, i, history, n_history);
        if (!isnan(l) && (best < 0 || l > value))
            best = i, value = l;
    }
    return best < 0 ? 0 : best;
}

static int naive_next(const mf_sampling *o, mfi_rng *rng, const float *logits, int n_vocab,
                      const int32_t *history, int n_history)
{
    if (o->temperature <= 0)
        return naive_greedy(o, logits, n_vocab, history, n_history);
    naive all[MAX_VOCAB];
    int n = naive_distribution(o, logits, n_vocab, history, n_history, all);
    if (n == 0)
        return naive_greedy(o, logits, n_vocab, history, n_history);
    double u = mfi_rng_unit(rng), sum = 0;
    for (int i = 0; i < n; i++) {
        sum += all[i].p;
        if (sum > u)
            return all[i].id;
    }
    return all[n - 1].id;
}

/* ---- tests ---- */

static void random_options(mf_sampling *o, mfi_rng *rng, mf_logit_bias *bias, uint32_t n_vocab)
{
    mf_sampling_default(o);
    o->temperature = mfi_rng_below(rng, 4) ? (float)(0.2 + 2 * mfi_rng_unit(rng)) : 0;
    o->top_k = mfi_rng_below(rng, 2) ? 0 : 1 + (int32_t)mfi_rng_below(rng, 2 * n_vocab);
    o->top_p = mfi_rng_below(rng, 2) ? 1 : (float)mfi_rng_unit(rng);
    o->min_p = mfi_rng_below(rng, 2) ? 0 : (float)(mfi_rng_unit(rng) * 0.3);
    if (mfi_rng_below(rng, 2)) {
        o->repeat_penalty = (float)(0.5 + mfi_rng_unit(rng));
        o->presence_penalty = (float)(mfi_rng_unit(rng) * 2 - 1);
        o->frequency_penalty = (float)(mfi_rng_unit(rng) * 2 - 1);
    }
    o->repeat_last_n = (int32_t)mfi_rng_below(rng, 12) - 1;
    o->seed = mfi_rng_next(rng);
    o->n_bias = mfi_rng_below(rng, 4);
    for (size_t i = 0; i < o->n_bias; i++) {
        bias[i].id = (int32_t)mfi_rng_below(rng, n_vocab);
        bias[i].bias = mfi_rng_below(rng, 3) ? (float)(mfi_rng_unit(rng) * 4 - 2) : -INFINITY;
    }
    o->bias = o->n_bias ? bias : NULL;
}

static void agrees_with_naive(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 1500; seed++) {
        mfi_rng rng = {seed};
        uint32_t n_vocab =
            1 + (uint32_t)mfi_rng_below(&rng, mfi_rng_below(&rng, 2) ? 20 : MAX_VOCAB);
        mf_sampling o;
        mf_logit_bias bias[4];
        random_options(&o, &rng, bias, n_vocab);
        mfi_rng naive_rng = {o.seed};
        mf_error err;
        mfi_sampler *s;
        mft_ok(mfi_sampler_open(&s, &o, n_vocab, &err), &err);
        int32_t history[24];
        for (int step = 0; step < 24; step++) {
            float logits[MAX_VOCAB], copy[MAX_VOCAB];
            for (uint32_t i = 0; i < n_vocab; i++)
                logits[i] = random_logit(&rng);
            memcpy(copy, logits, sizeof copy);
            int32_t id = mfi_sampler_next(s, logits);
            int32_t want = naive_next(&o, &naive_rng, logits, (int)n_vocab, history, step);
            if (id != want)
                fail_msg("seed %d step %d vocabulary %u: token %d, naive %d", (int)seed, step,
                         n_vocab, id, want);
            assert_memory_equal(copy, logits, n_vocab * sizeof *logits);
            /* Some other token at times, as a prompt would bring. */
            history[step] = mfi_rng_below(&rng, 2) ? id : (int32_t)mfi_rng_below(&rng, n_vocab);
            mfi_sampler_accept(s, history[step]);
        }
        mfi_sampler_close(&s);
        assert_null(s);
    }
}

static void draws_follow_the_distribution(void **state)
{
    (void)state;
    enum { N = 12, DRAWS = 40000 };
    const float logits[N] = {0.3f, -1, 2, 1.5f, 0, -3, 2, 0.7f, -0.2f, 1, -8, 0.9f};
    for (int variant = 0; variant < 4; variant++) {
        mf_sampling o;
        mf_sampling_default(&o);
        o.temperature = variant & 1 ? 1.3f : 0.7f;
        o.top_k = variant & 2 ? 7 : 0;
        o.top_p = variant & 2 ? 0.93f : 1;
        o.min_p = variant == 3 ? 0.2f : 0;
        o.seed = 20 + (uint64_t)variant;
        naive all[MAX_VOCAB];
        int n = naive_distribution(&o, logits, N, NULL, 0, all);
        int seen[N] = {0};
        mfi_sampler *s;
        mf_error err;
        mft_ok(mfi_sampler_open(&s, &o, N, &err), &err);
        for (int i = 0; i < DRAWS; i++)
            seen[mfi_sampler_next(s, logits)]++;
        mfi_sampler_close(&s);
        double chi2 = 0;
        int total = 0;
        for (int i = 0; i < n; i++) {
            double want = all[i].p * DRAWS;
            chi2 += (seen[all[i].id] - want) * (seen[all[i].id] - want) / want;
            total += seen[all[i].id];
        }
        assert_int_equal(total, DRAWS); /* nothing outside */
        /* 99.99 % quantile for 11 degrees of freedom: 37.4; for fewer it is lower. */
        if (chi2 > 37.4)
            fail_msg("variant %d: chi-square %g over %d tokens", variant, chi2, n);
    }
}

static void same_seed_same_tokens(void **state)
{
    (void)state;
    enum { N = 300, STEPS = 200 };
    int32_t first[STEPS];
    int n_other = 0;
    for (int run = 0; run < 3; run++) {
        mf_sampling o;
        mf_sampling_default(&o);
        o.temperature = 1.5f;
        o.seed = run == 2 ? 2 : 1;
        mfi_sampler *s;
        mf_error err;
        mft_ok(mfi_sampler_open(&s, &o, N, &err), &err);
        mfi_rng rng = {99};
        for (int step = 0; step < STEPS; step++) {
            float logits[N];
            for (int i = 0; i < N; i++)
                logits[i] = (float)mfi_rng_unit(&rng) * 4;
            int32_t id = mfi_sampler_next(s, logits);
            if (run == 0)
                first[step] = id;
            else if (run == 1)
                assert_int_equal(id, first[step]);
            else
                n_other += id != first[step];
        }
        mfi_sampler_close(&s);
    }
    assert_true(n_other > STEPS / 2);
}

static int32_t next_of(const mf_sampling *o, const float *logits, uint32_t n)
{
    mfi_sampler *s;
    mf_error err;
    mft_ok(mfi_sampler_open(&s, o, n, &err), &err);
    int32_t id = mfi_sampler_next(s, logits);
    mfi_sampler_close(&s);
    return id;
}

/* Of any number of values, with ties, NaN and infinities, the first of the largest. */
static void argmax_is_the_first(void **state)
{
    (void)state;
    mfi_rng rng = {41};
    float v[MAX_VOCAB];
    for (int round = 0; round < 400; round++) {
        uint32_t n = 1 + (uint32_t)mfi_rng_below(&rng, MAX_VOCAB), best = UINT32_MAX;
        uint32_t kind = (uint32_t)mfi_rng_below(&rng, 4);
        for (uint32_t i = 0; i < n; i++)
            v[i] = kind == 0                       ? NAN
                   : kind == 1                     ? -INFINITY
                   : mfi_rng_below(&rng, 300) == 0 ? 9
                                                   : random_logit(&rng);
        if (kind < 2 && mfi_rng_below(&rng, 2))
            v[mfi_rng_below(&rng, n)] = kind == 0 ? -INFINITY : NAN;
        for (uint32_t i = n; i-- > 0;)
            if (!isnan(v[i]) && (best == UINT32_MAX || v[i] >= v[best]))
                best = i;
        assert_int_equal(mfi_argmax(v, n), best == UINT32_MAX ? 0 : best);
    }
}

static void odd_logits(void **state)
{
    (void)state;
    mf_sampling o;
    mf_sampling_default(&o);
    const float all_nan[3] = {NAN, NAN, NAN};
    const float one[4] = {NAN, -INFINITY, -INFINITY, -1e30f};
    const float infinite[5] = {1, INFINITY, NAN, INFINITY, 3e38f};
    const float nothing[3] = {NAN, -INFINITY, -INFINITY};
    for (int greedy = 0; greedy < 2; greedy++) {
        o.temperature = greedy ? 0 : 1e-30f;
        assert_int_equal(next_of(&o, all_nan, 3), 0);
        assert_int_equal(next_of(&o, one, 4), 3);
        assert_int_equal(next_of(&o, nothing, 3), 1);
    }
    assert_int_equal(next_of(&o, infinite, 5), 1);
    o.temperature = 1;
    int seen[5] = {0};
    for (o.seed = 0; o.seed < 200; o.seed++)
        seen[next_of(&o, infinite, 5)]++;
    assert_true(seen[1] > 60 && seen[3] > 60);
    assert_int_equal(seen[1] + seen[3], 200);
    assert_int_equal(mfi_argmax(infinite, 5), 1);
    assert_int_equal(mfi_argmax(all_nan, 3), 0);
    assert_int_equal(mfi_argmax(one, 4), 3);
}

static void forbidden_tokens(void **state)
{
    (void)state;
    const float logits[3] = {INFINITY, 5, 4};
    const mf_logit_bias bias[] = {{0, -INFINITY}, {1, -2}};
    mf_sampling o;
    mf_sampling_default(&o);
    o.temperature = 0;
    o.bias = bias;
    o.n_bias = 2;
    assert_int_equal(next_of(&o, logits, 3), 2);
}

/* Expects MF_ERR_ARGUMENT whose message begins with the option's name. */
static void refused(const mf_sampling *o, uint32_t n_vocab, const char *name)
{
    mf_error err = {0};
    mfi_sampler *s = (mfi_sampler *)&err;
    assert_int_equal(mfi_sampler_open(&s, o, n_vocab, &err), MF_ERR_ARGUMENT);
    assert_ptr_equal(s, &err); /* untouched */
    if (strncmp(err.message, name, strlen(name)) != 0 || err.message[strlen(name)] != ':')
        fail_msg("expected \"%s: ...\", got \"%s\"", name, err.message);
}

#define REFUSED(field, value)                                                                      \
    do {                                                                                           \
        mf_sampling o_;                                                                            \
        mf_sampling_default(&o_);                                                                  \
        o_.field = (value);                                                                        \
        refused(&o_, 10, #field);                                                                  \
    } while (0)

static void invalid_options_are_named(void **state)
{
    (void)state;
    REFUSED(struct_size, 3);
    REFUSED(temperature, NAN);
    REFUSED(temperature, INFINITY);
    REFUSED(top_k, -1);
    REFUSED(top_p, 1.01f);
    REFUSED(top_p, -0.1f);
    REFUSED(top_p, NAN);
    REFUSED(min_p, 2);
    REFUSED(min_p, NAN);
    REFUSED(repeat_penalty, 0);
    REFUSED(repeat_penalty, NAN);
    REFUSED(repeat_penalty, INFINITY);
    REFUSED(presence_penalty, NAN);
    REFUSED(frequency_penalty, INFINITY);
    REFUSED(repeat_last_n, -2);
    REFUSED(repeat_last_n, 1 << 20);
    mf_sampling o;
    mf_sampling_default(&o);
    refused(&o, 0, "n_vocab");
    o.n_bias = 1;
    refused(&o, 10, "bias");
    const mf_logit_bias bad[] = {{10, 0}, {-1, 0}, {0, NAN}, {0, INFINITY}};
    for (size_t i = 0; i < 4; i++) {
        o.bias = &bad[i];
        refused(&o, 10, "bias");
    }
}

/* A mask comes before top-k: what it leaves is what the sampler chooses among. */
static void mask_comes_first(void **state)
{
    (void)state;
    float logits[70];
    uint32_t mask[3] = {0};
    mf_sampling o;
    mf_error err;
    for (int i = 0; i < 70; i++)
        logits[i] = (float)i;
    mask[0] = 1u << 5 | 1u << 6;
    mask[2] = 1u << 2; /* 66 */
    for (int mode = 0; mode < 4; mode++) {
        mfi_sampler *s = NULL;
        bool seen[70] = {false};
        const mf_logit_bias bias[] = {{66, -INFINITY}, {69, 100}};
        mf_sampling_default(&o);
        o.temperature = mode == 0 ? 0 : 50;
        o.top_k = mode == 2 ? 2 : 0;
        o.top_p = 1;
        o.min_p = 0;
        o.bias = bias;
        o.n_bias = mode == 3 ? 2 : 0;
        mft_ok(mfi_sampler_open(&s, &o, 70, &err), &err);
        for (int i = 0; i < 300; i++)
            seen[mfi_sampler_next_of(s, logits, mask)] = true;
        for (int i = 0; i < 70; i++)
            assert_int_equal(seen[i], (i == 5 && (mode == 1 || mode == 3)) ||
                                          (i == 6 && mode > 0) || (i == 66 && mode < 3));
        const uint32_t none[3] = {0}, only_66[3] = {0, 0, 1u << 2};
        assert_int_equal(mfi_sampler_next_of(s, logits, none), -1);
        assert_int_equal(mfi_sampler_next_of(s, logits, only_66), mode == 3 ? -1 : 66);
        mfi_sampler_close(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mask_comes_first),
        cmocka_unit_test(agrees_with_naive),
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(same_seed_same_tokens),
        cmocka_unit_test(argmax_is_the_first),
        cmocka_unit_test(odd_logits),
        cmocka_unit_test(forbidden_tokens),
        cmocka_unit_test(invalid_options_are_named),
    };
    return mft_run(tests);
}
