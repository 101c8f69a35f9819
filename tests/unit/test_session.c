/* A timeline that goes on, is changed and is rebuilt: mf_session_sync keeps what it says it keeps,
 * the counter of evaluated tokens shows that nothing was evaluated twice, and the logits are the
 * same bytes as those of a session that saw all tokens at once. */
#include "fake/support.h"

#include "fake/oss_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_IDS 40

typedef struct bench {
    mf_engine *engine;
    mf_session *session;
    mf_model_info info;
    int32_t ids[N_IDS], other[N_IDS]; /* other: differs from ids from the middle on */
} bench;

static uint32_t n_ticks;

static bool count_ticks(void *user, const char *what, const char *unit, uint64_t done,
                        uint64_t total)
{
    (void)what;
    (void)unit;
    assert_true(done <= total);
    n_ticks++;
    return !*(bool *)user;
}

static bool cancel;

static bool try_open(bench *b, const char *folder, mf_error *err)
{
    mf_engine_options o;
    mf_engine_options_default(&o);
    *b = (bench){.info.struct_size = sizeof b->info};
    o.model_path = folder;
    o.ctx = 64;
    o.chunk = 16;
    o.n_threads = 2;
    o.progress = count_ticks;
    o.progress_user = &cancel;
    cancel = false;
    if (mf_engine_open(&b->engine, &o, err) != MF_OK)
        return false;
    mft_ok(mf_session_open(&b->session, b->engine, err), err);
    mf_engine_info(b->engine, &b->info);
    for (uint32_t i = 0; i < N_IDS; i++) {
        b->ids[i] = (int32_t)((i * 37 + 5) % b->info.n_vocab);
        b->other[i] = i < N_IDS / 2 ? b->ids[i] : (int32_t)((i * 41 + 7) % b->info.n_vocab);
    }
    return true;
}

static void close_bench(bench *b)
{
    mf_session_close(&b->session);
    mf_engine_close(&b->engine);
}

static uint64_t evaluated(const bench *b)
{
    mf_stats stats = {.struct_size = sizeof stats};
    mf_engine_stats(b->engine, &stats);
    return stats.tokens_evaluated;
}

/* Syncs and evaluates the rest; gives how many tokens were evaluated. */
static size_t go_to(bench *b, const int32_t *ids, size_t n)
{
    mf_error err = {0};
    size_t kept = 999;
    uint64_t before = evaluated(b);
    mft_ok(mf_session_sync(b->session, ids, n, &kept, &err), &err);
    assert_int_equal(kept, mf_session_length(b->session));
    assert_true(kept <= n);
    assert_int_equal(evaluated(b), before);
    mft_ok(mf_session_eval(b->session, ids + kept, n - kept, NULL, &err), &err);
    assert_int_equal(mf_session_length(b->session), n);
    assert_memory_equal(mf_session_tokens(b->session), ids, n * sizeof *ids);
    assert_int_equal(evaluated(b) - before, n - kept);
    return n - kept;
}

/* Logits after ids[0..n) in a session that never saw anything else. */
static float *fresh(bench *b, const int32_t *ids, size_t n)
{
    mf_error err = {0};
    size_t bytes = b->info.n_vocab * sizeof(float);
    float *copy = malloc(bytes);
    mf_session_reset(b->session);
    mft_ok(mf_session_eval(b->session, ids, n, NULL, &err), &err);
    memcpy(copy, mf_session_logits(b->session), bytes);
    return copy;
}

static void same_logits(bench *b, const float *want)
{
    assert_non_null(mf_session_logits(b->session));
    assert_memory_equal(mf_session_logits(b->session), want, b->info.n_vocab * sizeof *want);
}

static void conversation(const char *folder, bool recurrent)
{
    bench b;
    mf_error err = {0};
    if (!try_open(&b, folder, &err))
        mft_skip("%s", err.message);
    float *want_ids = fresh(&b, b.ids, N_IDS), *want_other = fresh(&b, b.other, N_IDS);
    assert_memory_not_equal(want_ids, want_other, b.info.n_vocab * sizeof(float));
    mf_session_reset(b.session);
    /* It grows: only what is new. */
    assert_int_equal(go_to(&b, b.ids, 11), 11);
    assert_int_equal(go_to(&b, b.ids, 12), 1);
    assert_int_equal(go_to(&b, b.ids, N_IDS), N_IDS - 12);
    same_logits(&b, want_ids);
    assert_int_equal(go_to(&b, b.ids, N_IDS), 0);
    same_logits(&b, want_ids);
    /* It changes: a recurrent state starts over, KV is cut. */
    assert_int_equal(go_to(&b, b.other, N_IDS), recurrent ? N_IDS : N_IDS / 2);
    same_logits(&b, want_other);
    /* It is shorter: the last token is evaluated for its logits. */
    assert_int_equal(go_to(&b, b.other, N_IDS / 2), recurrent ? N_IDS / 2 : 1);
    assert_int_equal(go_to(&b, b.ids, N_IDS), N_IDS / 2);
    same_logits(&b, want_ids);
    free(want_ids);
    free(want_other);
    close_bench(&b);
}

static void recurrent(void **state)
{
    (void)state;
    conversation(mft_source("tests/data/mlx-tiny/q4g32"), true);
}

static void attention_only(void **state)
{
    (void)state;
    const char *folder = mft_oracle("hf/qwen3_moe");
    if (!folder)
        mft_skip("no oracle hf/qwen3_moe");
    conversation(folder, false);
}

/* Windows of 8 in rings of 8 - 1 + 16 = 23 rows. After 40 tokens the rows of positions from 17 on
 * are left, so that a timeline can be cut down to 24 tokens (the next one looks back to 17), not to
 * 23; that stays so however short it has become. */
static void windowed(void **state)
{
    (void)state;
    bench b;
    mf_error err = {0};
    mft_oss s;
    mft_oss_default(&s);
    if (!try_open(&b, mft_oss_write(&s), &err))
        fail_msg("%s", err.message);
    int32_t at24[N_IDS], at23[N_IDS];
    memcpy(at24, b.ids, sizeof at24);
    memcpy(at23, b.ids, sizeof at23);
    for (uint32_t i = 24; i < N_IDS; i++)
        at24[i] = b.ids[i] ^ 1;
    for (uint32_t i = 23; i < N_IDS; i++)
        at23[i] = b.ids[i] ^ 1;
    float *want = fresh(&b, b.ids, N_IDS), *want24 = fresh(&b, at24, N_IDS);
    float *want23 = fresh(&b, at23, N_IDS);
    mf_session_reset(b.session);
    assert_int_equal(go_to(&b, b.ids, N_IDS), N_IDS);
    assert_int_equal(go_to(&b, at24, N_IDS), N_IDS - 24);
    same_logits(&b, want24);
    assert_int_equal(go_to(&b, at23, N_IDS), N_IDS);
    same_logits(&b, want23);
    assert_int_equal(go_to(&b, b.ids, N_IDS), N_IDS);
    same_logits(&b, want);
    assert_int_equal(go_to(&b, at24, 26), 2);
    assert_int_equal(go_to(&b, at23, 25), 25);
    /* 23 tokens fit the ring: nothing is written over, and every cut is possible. */
    mf_session_reset(b.session);
    assert_int_equal(go_to(&b, b.ids, 23), 23);
    assert_int_equal(go_to(&b, b.ids, 3), 1);
    assert_int_equal(go_to(&b, b.ids, N_IDS), N_IDS - 3);
    same_logits(&b, want);
    free(want);
    free(want24);
    free(want23);
    close_bench(&b);
}

static void too_long(void **state)
{
    (void)state;
    bench b;
    mf_error err = {0};
    int32_t many[65] = {0};
    size_t kept = 999;
    if (!try_open(&b, mft_source("tests/data/mlx-tiny/q4g32"), &err))
        fail_msg("%s", err.message);
    float *want = fresh(&b, b.ids, N_IDS);
    assert_int_equal(mf_session_sync(b.session, many, 65, &kept, &err), MF_ERR_CONTEXT);
    assert_int_equal(kept, 999);
    assert_int_equal(mf_session_length(b.session), N_IDS);
    same_logits(&b, want);
    free(want);
    close_bench(&b);
}

/* Cancelling between chunks breaks the session; sync mends it. */
static void cancelled(void **state)
{
    (void)state;
    bench b;
    mf_error err = {0};
    size_t kept = 999;
    if (!try_open(&b, mft_source("tests/data/mlx-tiny/q4g32"), &err))
        fail_msg("%s", err.message);
    float *want = fresh(&b, b.ids, N_IDS);
    mf_session_reset(b.session);
    cancel = true;
    n_ticks = 0;
    assert_int_equal(mf_session_eval(b.session, b.ids, N_IDS, NULL, &err), MF_ERR_CANCELLED);
    assert_true(n_ticks > 0);
    cancel = false;
    assert_int_equal(mf_session_eval(b.session, b.ids, 1, NULL, &err), MF_ERR_STATE);
    mft_ok(mf_session_sync(b.session, b.ids, N_IDS, &kept, &err), &err);
    assert_int_equal(kept, 0);
    assert_int_equal(go_to(&b, b.ids, N_IDS), N_IDS);
    same_logits(&b, want);
    free(want);
    close_bench(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recurrent), cmocka_unit_test(attention_only), cmocka_unit_test(windowed),
        cmocka_unit_test(too_long),  cmocka_unit_test(cancelled),
    };
    return mft_run(tests);
}
