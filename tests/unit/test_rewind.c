/* Going back and copying: whatever a timeline was before, mf_session_sync keeps what it says it
 * keeps, and what follows gives the same bits as a session that saw nothing else; with checkpoints
 * also where layers are recurrent or have windows. */
#include "fake/support.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rng.h"
#include "fake/oss_model.h"
#include "fake/tiny_latent.h"
#include "fake/tiny_model.h"

enum { CTX = 96, CHUNK = 8, N_CHECKPOINTS = 6, ROUNDS = 30 };

typedef struct bench {
    mf_engine *engine;
    mf_session *session, *fresh, *copy;
    uint32_t n_vocab;
    mfi_rng rng;
    uint64_t seed;
} bench;

static void open_bench(bench *b, const char *folder, uint32_t n_checkpoints)
{
    mf_error err = {0};
    mf_engine_options o;
    mf_model_info info = {.struct_size = sizeof info};
    mf_engine_options_default(&o);
    *b = (bench){.seed = (uint64_t)time(NULL)};
    b->rng.state = b->seed;
    o.model_path = folder;
    o.ctx = CTX;
    o.chunk = CHUNK;
    o.n_threads = 1;
    o.n_sessions = 3;
    o.n_checkpoints = n_checkpoints;
    mft_ok(mf_engine_open(&b->engine, &o, &err), &err);
    mft_ok(mf_session_open(&b->session, b->engine, &err), &err);
    mft_ok(mf_session_open(&b->fresh, b->engine, &err), &err);
    mft_ok(mf_session_open(&b->copy, b->engine, &err), &err);
    mf_engine_info(b->engine, &info);
    b->n_vocab = info.n_vocab;
}

static void close_bench(bench *b)
{
    mf_session_close(&b->session);
    mf_session_close(&b->fresh);
    mf_session_close(&b->copy);
    mf_engine_close(&b->engine);
}

static uint32_t below(bench *b, uint32_t n)
{
    return (uint32_t)mfi_rng_below(&b->rng, n);
}

static void same_logits(const bench *b, mf_session *got, const int32_t *ids, size_t n)
{
    mf_error err = {0};
    assert_int_equal(mf_session_length(got), n);
    assert_memory_equal(mf_session_tokens(got), ids, n * sizeof *ids);
    mf_session_reset(b->fresh);
    mft_ok(mf_session_eval(b->fresh, ids, n, NULL, &err), &err);
    if (memcmp(mf_session_logits(got), mf_session_logits(b->fresh), b->n_vocab * sizeof(float)))
        fail_msg("seed %llu: other logits than of a fresh session after %zu tokens",
                 (unsigned long long)b->seed, n);
}

/* Syncs and evaluates the rest, in one go or token by token. */
static size_t go_to(bench *b, const int32_t *ids, size_t n)
{
    mf_error err = {0};
    size_t kept = 999, at;
    mft_ok(mf_session_sync(b->session, ids, n, &kept, &err), &err);
    assert_true(kept <= n);
    assert_int_equal(kept, mf_session_length(b->session));
    if (kept == n)
        assert_non_null(mf_session_logits(b->session));
    at = kept;
    if (at < n && below(b, 2)) {
        size_t some = 1 + below(b, (uint32_t)(n - at));
        mft_ok(mf_session_eval(b->session, ids + at, some, NULL, &err), &err);
        at += some;
    }
    for (; at < n; at++)
        mft_ok(mf_session_eval(b->session, ids + at, 1, NULL, &err), &err);
    return kept;
}

/* Timelines that branch off earlier ones anywhere; a copy now and then. */
static void wander(const char *folder, uint32_t n_checkpoints, bool cuts)
{
    bench b;
    mf_error err = {0};
    int32_t ids[CTX];
    size_t n = 0, n_went_back = 0, n_copied = 0;
    open_bench(&b, folder, n_checkpoints);
    print_message("seed %llu\n", (unsigned long long)b.seed);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        size_t branch = n ? below(&b, (uint32_t)n + 1) : 0;
        size_t to = 1 + below(&b, CTX - 1);
        for (size_t i = branch; i < CTX; i++)
            ids[i] = (int32_t)below(&b, b.n_vocab);
        size_t kept = go_to(&b, ids, to);
        if (cuts) /* but for the last token, whose logits are wanted */
            assert_true(kept + 1 >= MFI_MIN(branch, to));
        n_went_back += kept > 0 && kept < n;
        same_logits(&b, b.session, ids, to);
        n = to;
        size_t part = below(&b, (uint32_t)n) + 1;
        mf_status status = mf_session_copy(b.copy, b.session, part, &err);
        if (cuts || part == n)
            mft_ok(status, &err);
        else if (status != MF_OK)
            assert_int_equal(status, MF_ERR_STATE);
        if (status != MF_OK || part + 1 > CTX)
            continue;
        n_copied += part < n;
        if (!mf_session_logits(b.copy) || below(&b, 2)) {
            int32_t more[CTX];
            memcpy(more, ids, part * sizeof *ids);
            more[part] = 3;
            mft_ok(mf_session_eval(b.copy, more + part, 1, NULL, &err), &err);
            same_logits(&b, b.copy, more, part + 1);
        } else {
            same_logits(&b, b.copy, ids, part);
        }
    }
    if (n_checkpoints > 1 || cuts)
        assert_true(n_went_back > 0);
    assert_true(n_copied > 0 || !cuts);
    close_bench(&b);
}

static void attention(void **state)
{
    (void)state;
    mft_latent s;
    mft_latent_default(&s);
    wander(mft_latent_write(&s), N_CHECKPOINTS, true);
}

static void recurrent(void **state)
{
    (void)state;
    mft_tiny s;
    mft_tiny_default(&s);
    wander(mft_tiny_write(&s), N_CHECKPOINTS, false);
    wander(mft_tiny_write(&s), 1, false);
    wander(mft_tiny_write(&s), 0, false);
}

static void windowed(void **state)
{
    (void)state;
    mft_oss s;
    mft_oss_default(&s);
    wander(mft_oss_write(&s), N_CHECKPOINTS, false);
    wander(mft_oss_write(&s), 0, false);
}

/* Where exactly one can go back to: the end of the last turn and of every chunk of the prompt. */
static void places(void **state)
{
    (void)state;
    bench b;
    mf_error err = {0};
    size_t kept;
    int32_t ids[CTX], other[CTX];
    mft_tiny s;
    mft_tiny_default(&s);
    open_bench(&b, mft_tiny_write(&s), N_CHECKPOINTS);
    for (uint32_t i = 0; i < CTX; i++)
        ids[i] = (int32_t)below(&b, b.n_vocab);
    mft_ok(mf_session_eval(b.session, ids, 20, NULL, &err), &err); /* 8, 16, 20 */
    for (uint32_t i = 20; i < 30; i++)
        mft_ok(mf_session_eval(b.session, ids + i, 1, NULL, &err), &err);
    mft_ok(mf_session_eval(b.session, ids + 30, 4, NULL, &err), &err); /* 30 and 34 */
    mft_ok(mf_session_eval(b.session, ids + 34, 1, NULL, &err), &err);
    static const uint32_t expected[][2] = {{35, 35}, {34, 34}, {33, 30}, {29, 20},
                                           {20, 20}, {19, 16}, {9, 8},   {7, 0}};
    for (size_t i = 0; i < MFI_ARRAY_LEN(expected); i++) {
        uint32_t same = expected[i][0];
        memcpy(other, ids, sizeof ids);
        other[same] = (ids[same] + 1) % (int32_t)b.n_vocab;
        mft_ok(mf_session_sync(b.session, other, same + 1, &kept, &err), &err);
        assert_int_equal(kept, expected[i][1]);
    }
    /* A checkpoint's state can be copied, another can't. */
    mft_ok(mf_session_eval(b.session, ids, 20, NULL, &err), &err);
    mft_ok(mf_session_copy(b.copy, b.session, 16, &err), &err);
    mft_ok(mf_session_eval(b.copy, ids + 16, 9, NULL, &err), &err);
    same_logits(&b, b.copy, ids, 25);
    assert_int_equal(mf_session_copy(b.copy, b.session, 17, &err), MF_ERR_STATE);
    same_logits(&b, b.copy, ids, 25);
    assert_int_equal(mf_session_copy(b.copy, b.session, 21, &err), MF_ERR_ARGUMENT);
    assert_int_equal(mf_session_copy(b.copy, b.copy, 16, &err), MF_ERR_ARGUMENT);
    mf_session_reset(b.session);
    /* A turn asked again: its prompt's logits are still there. */
    mft_ok(mf_session_eval(b.session, ids, 20, NULL, &err), &err);
    mft_ok(mf_session_eval(b.session, ids + 20, 1, NULL, &err), &err);
    mft_ok(mf_session_sync(b.session, ids, 20, &kept, &err), &err);
    assert_int_equal(kept, 20);
    same_logits(&b, b.session, ids, 20);
    close_bench(&b);
}

static bool cancel_now(void *user, const char *what, const char *unit, uint64_t done,
                       uint64_t total)
{
    (void)what, (void)unit, (void)done, (void)total;
    return !*(bool *)user;
}

/* A cancelled evaluation costs what it had begun, no more. */
static void cancelled(void **state)
{
    (void)state;
    mf_error err = {0};
    bool cancel = false;
    size_t kept;
    int32_t ids[40];
    mft_tiny s;
    bench b = {0};
    mf_engine_options o;
    mf_engine_options_default(&o);
    mft_tiny_default(&s);
    o.model_path = mft_tiny_write(&s);
    o.ctx = CTX;
    o.chunk = CHUNK;
    o.n_threads = 1;
    o.n_sessions = 2;
    o.n_checkpoints = 2;
    o.progress = cancel_now;
    o.progress_user = &cancel;
    mft_ok(mf_engine_open(&b.engine, &o, &err), &err);
    mft_ok(mf_session_open(&b.session, b.engine, &err), &err);
    mft_ok(mf_session_open(&b.fresh, b.engine, &err), &err);
    b.n_vocab = s.n_vocab;
    for (uint32_t i = 0; i < 40; i++)
        ids[i] = (int32_t)((i * 7 + 3) % s.n_vocab);
    mft_ok(mf_session_eval(b.session, ids, 8, NULL, &err), &err);
    cancel = true;
    assert_int_equal(mf_session_eval(b.session, ids + 8, 32, NULL, &err), MF_ERR_CANCELLED);
    cancel = false;
    mft_ok(mf_session_sync(b.session, ids, 40, &kept, &err), &err);
    assert_int_equal(kept, 8); /* the cancelled chunk had ended, but nobody answers for it */
    mft_ok(mf_session_eval(b.session, ids + 8, 32, NULL, &err), &err);
    same_logits(&b, b.session, ids, 40);
    mf_session_close(&b.session);
    mf_session_close(&b.fresh);
    mf_engine_close(&b.engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention), cmocka_unit_test(recurrent), cmocka_unit_test(windowed),
        cmocka_unit_test(places),    cmocka_unit_test(cancelled),
    };
    return mft_run(tests);
}
