/* Replay of traces: by hand, against the store's own count of hits on a real run's trace in
 * tests/cli, and the bound against trying everything. */
#include "fake/support.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/rng.h"
#include "experts/replay.h"

static const char header[] = "{\"schema\":1,\"model\":\"m\",\"layers\":2,\"experts\":4,"
                             "\"top_k\":2,\"expert_bytes\":100}\n";

static void parse(mfi_replay *r, const char *text)
{
    mf_error err;
    mft_ok(mfi_replay_parse(r, text, strlen(text), "trace", &err), &err);
}

static uint64_t hits(const mfi_replay *r, const mfi_policy_ops *ops, uint32_t n_slots)
{
    uint64_t n = 0;
    mf_error err;
    mft_ok(ops ? mfi_replay_run(r, ops, n_slots, &n, &err) : mfi_replay_bound(r, n_slots, &n, &err),
           &err);
    return n;
}

/* Experts a b c d in one layer: a b | b c | a b, with room for two and for three. */
static void by_hand(void **state)
{
    (void)state;
    char text[1000];
    snprintf(text, sizeof text, "%s%s%s%s", header,
             "{\"layer\":1,\"pos\":0,\"ids\":[0,1],\"hit\":[0,0]}\n",
             "{\"layer\":1,\"pos\":1,\"ids\":[1,2],\"hit\":[1,0]}\n",
             "{\"layer\":1,\"pos\":2,\"ids\":[0,1],\"hit\":[0,1]}\n{\"layer\":1,\"po");
    mfi_replay r;
    parse(&r, text); /* the last line was cut off */
    assert_int_equal(r.n_layers, 2);
    assert_int_equal(r.expert_bytes, 100);
    assert_int_equal(r.n_steps, 3);
    assert_int_equal(r.n_tokens, 3);
    assert_int_equal(r.n_keys, 6);
    /* Two: b hits, c displaces a; then b hits and a displaces c. Three: b, a, b. */
    assert_int_equal(hits(&r, &mfi_policy_lru, 2), 2);
    assert_int_equal(hits(&r, NULL, 2), 2);
    assert_int_equal(hits(&r, &mfi_policy_lru, 3), 3);
    assert_int_equal(hits(&r, &mfi_policy_lru, 100), 3);
    uint64_t n;
    mf_error err;
    assert_int_equal(mfi_replay_run(&r, &mfi_policy_lru, 1, &n, &err), MF_ERR_ARGUMENT);
    assert_int_equal(mfi_replay_bound(&r, 1, &n, &err), MF_ERR_ARGUMENT);
    mfi_replay_close(&r);
}

/* The same choices as tokens of one pass: a b c, then a b; and as lines of two passes. */
static void a_pass_wants_an_expert_once(void **state)
{
    (void)state;
    char text[1000];
    snprintf(text, sizeof text, "%s%s%s%s%s", header,
             "{\"pass\":1,\"layer\":1,\"pos\":0,\"ids\":[1,0]}\n",
             "{\"pass\":1,\"layer\":1,\"pos\":1,\"ids\":[2,1]}\n",
             "{\"pass\":1,\"layer\":0,\"pos\":0,\"ids\":[1,0]}\n",
             "{\"pass\":2,\"layer\":0,\"pos\":2,\"ids\":[0,1]}\n");
    mfi_replay r;
    parse(&r, text);
    const uint32_t keys[] = {4, 5, 6, 0, 1, 0, 1};
    assert_int_equal(r.n_steps, 3);
    assert_int_equal(r.n_tokens, 2);
    assert_int_equal(r.n_keys, MFI_ARRAY_LEN(keys));
    assert_memory_equal(r.keys, keys, sizeof keys);
    for (uint32_t n_slots = 2; n_slots < 6; n_slots++) { /* fewer than a step wants, and more */
        assert_int_equal(hits(&r, &mfi_policy_lru, n_slots), 2);
        assert_int_equal(hits(&r, &mfi_policy_odds, n_slots), 2);
        assert_int_equal(hits(&r, NULL, n_slots), 2);
    }
    mfi_replay_close(&r);
}

/* The most hits of steps from `at` on with this set cached, by trying every set that can follow. */
static uint32_t try_all(const mfi_replay *r, size_t at, uint32_t cached, uint32_t n_slots)
{
    if (at == r->n_steps)
        return 0;
    uint32_t wanted = 0, best = 0, total = r->n_layers * r->n_experts;
    for (size_t k = at ? r->step_end[at - 1] : 0; k < r->step_end[at]; k++)
        wanted |= 1u << r->keys[k];
    for (uint32_t next = 0; next < 1u << total; next++) {
        /* all that is wanted, and else only what was there */
        if ((next & wanted) != wanted || (next & ~(wanted | cached)) != 0 ||
            (uint32_t)__builtin_popcount(next) > n_slots)
            continue;
        uint32_t n = try_all(r, at + 1, next, n_slots);
        best = n > best ? n : best;
    }
    return best + (uint32_t)__builtin_popcount(wanted & cached);
}

static void random_trace(mfi_replay *r, mfi_rng *rng, uint32_t n_steps)
{
    mfi_buf text = {0};
    mfi_buf_str(&text, header);
    for (uint32_t i = 0; i < n_steps; i++) {
        uint32_t a = (uint32_t)mfi_rng_below(rng, 4),
                 b = (a + 1 + (uint32_t)mfi_rng_below(rng, 3)) % 4;
        mfi_buf_fmt(&text, "{\"layer\":%u,\"pos\":%u,\"ids\":[%u,%u],\"hit\":[0,0]}\n", i % 2,
                    i / 2, a, b);
    }
    parse(r, text.data);
    mfi_buf_free(&text);
}

static void the_bound_is_the_best(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 30; seed++) {
        mfi_rng rng = {seed};
        mfi_replay r;
        random_trace(&r, &rng, 5);
        for (uint32_t n_slots = 2; n_slots <= 6; n_slots++) {
            uint64_t want = try_all(&r, 0, 0, n_slots), got = hits(&r, NULL, n_slots);
            if (want != got)
                fail_msg("seed %d, %u slots: %d hits, not %d", (int)seed, n_slots, (int)got,
                         (int)want);
        }
        mfi_replay_close(&r);
    }
}

static void no_policy_passes_the_bound(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        mfi_rng rng = {seed + 1000};
        mfi_replay r;
        random_trace(&r, &rng, 300);
        uint64_t before = 0;
        for (uint32_t n_slots = 2; n_slots <= 8; n_slots++) {
            uint64_t most = hits(&r, NULL, n_slots);
            assert_true(hits(&r, &mfi_policy_lru, n_slots) <= most);
            assert_true(hits(&r, &mfi_policy_lfu, n_slots) <= most);
            assert_true(hits(&r, &mfi_policy_odds, n_slots) <= most);
            assert_true(most >= before);
            before = most;
        }
        assert_int_equal(before, r.n_keys - 8); /* with room for all, each misses once */
        mfi_replay_close(&r);
    }
}

static void bad_lines(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "x\n",
                                      "[1]\n",
                                      "{}\n",
                                      "{\"schema\":2,\"layers\":2,\"experts\":4,\"top_k\":2}\n",
                                      "{\"schema\":1,\"layers\":2,\"experts\":4,\"top_k\":5}\n",
                                      "{\"schema\":1,\"layers\":2000,\"experts\":4,\"top_k\":2}\n"};
    static const char *const bad_second[] = {"{\"layer\":2,\"ids\":[0,1]}\n",
                                             "{\"layer\":0,\"ids\":[0,4]}\n",
                                             "{\"layer\":0,\"ids\":[1,1]}\n",
                                             "{\"layer\":0,\"ids\":[0,1,2]}\n",
                                             "{\"layer\":0,\"ids\":[]}\n",
                                             "{\"layer\":0,\"ids\":3}\n",
                                             "{\"layer\":0}\n"};
    mfi_replay r;
    mf_error err;
    char text[1000];
    for (size_t i = 0; i < MFI_ARRAY_LEN(bad); i++)
        assert_int_equal(mfi_replay_parse(&r, bad[i], strlen(bad[i]), "t", &err), MF_ERR_FORMAT);
    for (size_t i = 0; i < MFI_ARRAY_LEN(bad_second); i++) {
        snprintf(text, sizeof text, "%s%s", header, bad_second[i]);
        assert_int_equal(mfi_replay_parse(&r, text, strlen(text), "t", &err), MF_ERR_FORMAT);
        assert_non_null(strstr(err.message, "t: line 2 "));
    }
    assert_int_equal(mfi_replay_open(&r, "/nonexistent", &err), MF_ERR_FILE_MISSING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_hand),
        cmocka_unit_test(a_pass_wants_an_expert_once),
        cmocka_unit_test(the_bound_is_the_best),
        cmocka_unit_test(no_policy_passes_the_bound),
        cmocka_unit_test(bad_lines),
    };
    return mft_run(tests);
}
