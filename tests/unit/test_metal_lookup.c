/* Experts that the device looks up itself while some of them are in no slot, on the fake Metal
 * device: what a token takes in command buffers and waits, the same bits and the same books as
 * where the host stops at every router (an engine that times its ops does), and failures in the
 * middle of a span. */
#include "fake/support.h"
#include "fake/model_files.h"
#include "metal/fake/metal_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "experts/replay.h"
#include "session/session.h"

enum { N_TOTAL = 96 /* experts */ };

static mf_engine_options options(uint32_t n_slots)
{
    return mft_timeline_options(MFT_RECURRENT, n_slots);
}

static mf_status put(mft_world *w, const int32_t *ids, size_t n, float *logits, mf_error *err)
{
    mf_status status = mf_session_eval(w->session, ids, n, NULL, err);
    if (status == MF_OK && logits)
        memcpy(logits, mf_session_logits(w->session), MFT_VOCAB * sizeof *logits);
    return status;
}

/* A prompt and tokens by themselves, from the beginning; logits [n][MFT_VOCAB] of the latter. */
static void decode(mft_world *w, uint32_t n_prompt, uint32_t n, float *logits)
{
    mf_error err;
    int32_t ids[32];
    mf_session_reset(w->session);
    for (uint32_t i = 0; i < n_prompt; i++)
        ids[i] = (int32_t)((i * 29 + 3) % MFT_VOCAB);
    if (n_prompt)
        mft_ok(put(w, ids, n_prompt, NULL, &err), &err);
    for (uint32_t i = 0; i < n; i++) {
        int32_t id = (int32_t)((i * 23 + 11) % MFT_VOCAB);
        mft_ok(put(w, &id, 1, logits + (size_t)i * MFT_VOCAB, &err), &err);
    }
}

/* Until nothing is missing. */
static void warm(mft_world *w, uint32_t n, float *logits)
{
    uint64_t misses;
    int tries = 0;
    do {
        misses = mft_world_stats(w).expert_misses;
        decode(w, 0, n, logits);
        assert_true(++tries < 10);
    } while (mft_world_stats(w).expert_misses > misses);
}

/* ---- what a token takes ---- */

enum { N_WARM = 5 };

/* With fewer slots than experts a token that finds all of its own takes what it takes where every
 * expert has a slot: two command buffers, and one wait. */
static void full_hit(void **state)
{
    (void)state;
    mft_metal_state *d = mft_metal_device();
    static const uint32_t n_slots[] = {N_TOTAL, 70};
    float logits[2][N_WARM * MFT_VOCAB];
    for (int i = 0; i < 2; i++) {
        mft_world w;
        mf_engine_options o = options(n_slots[i]);
        mft_world_open(&w, &o);
        warm(&w, N_WARM, logits[i]);
        assert_int_equal(mft_world_stats(&w).n_slots, n_slots[i]);
        uint64_t sent = d->n_sent, waits = d->n_waits;
        mf_stats before = mft_world_stats(&w);
        decode(&w, 0, N_WARM, logits[i]);
        mf_stats after = mft_world_stats(&w);
        assert_int_equal(d->n_sent - sent, 2 * N_WARM);
        assert_int_equal(d->n_waits - waits, N_WARM);
        assert_int_equal(after.expert_misses, before.expert_misses);
        assert_int_equal(after.expert_hits - before.expert_hits, N_WARM * 6 * 2);
        mft_world_close(&w);
    }
    assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
}

/* A token that misses in one layer waits once more. The layer's experts are a command buffer for
 * what stands before them, and one or two (those in slots, those that were read); pass and head
 * come again. */
static void one_miss(void **state)
{
    (void)state;
    mft_metal_state *d = mft_metal_device();
    mf_engine_options o = options(70);
    float logits[N_WARM * MFT_VOCAB];
    int n_found = 0;
    mft_world w;
    mft_world_open(&w, &o);
    for (int32_t id = 0; id < MFT_VOCAB && n_found < 3; id++) {
        mf_error err;
        warm(&w, N_WARM, logits);
        uint64_t sent = d->n_sent, waits = d->n_waits, misses = mft_world_stats(&w).expert_misses;
        mft_ok(put(&w, &id, 1, NULL, &err), &err);
        misses = mft_world_stats(&w).expert_misses - misses;
        sent = d->n_sent - sent;
        waits = d->n_waits - waits;
        if (misses == 0)
            assert_true(sent == 2 && waits == 1);
        if (misses != 1)
            continue;
        n_found++;
        assert_int_equal(waits, 2);
        assert_in_range(sent, 2 + 4, 2 + 5);
    }
    assert_int_equal(n_found, 3);
    mft_world_close(&w);
}

/* Where something is missing in every layer, the host stops at every router as if nothing was
 * looked up: spans get no longer than one router. */
static void all_missing(void **state)
{
    (void)state;
    mft_metal_state *d = mft_metal_device();
    float logits[12 * MFT_VOCAB];
    uint64_t sent[2], waits[2];
    for (int timed = 0; timed < 2; timed++) {
        mf_error err;
        mft_world w;
        mf_engine_options o = options(2);
        mft_world_open(&w, &o);
        if (timed)
            mft_ok(mf_engine_time_ops(w.engine, true, &err), &err);
        sent[timed] = d->n_sent;
        waits[timed] = d->n_waits;
        decode(&w, 0, 12, logits);
        sent[timed] = d->n_sent - sent[timed];
        waits[timed] = d->n_waits - waits[timed];
        mft_world_close(&w);
    }
    /* A stop a router, the head's wait, and up to one for each expert whose slot is read over. */
    assert_true(waits[0] <= 12 * (6 + 1 + 6 * 2));
    assert_true(sent[0] < sent[1]);
}

/* ---- the same answers, the same books ---- */

/* Slots from the fewest to all; prompts of several chunks, tokens by themselves, early and late
 * completion, both orders of threads. */
static void any_slots(void **state)
{
    (void)state;
    mft_metal_state *d = mft_metal_device();
    enum { N_PROMPT = 20, N = 6 };
    float want[N * MFT_VOCAB], got[N * MFT_VOCAB];
    static const uint32_t n_slots[] = {N_TOTAL, 2, 3, 6, 13, 27, 44, 61, 82, 95};
    for (size_t i = 0; i < MFI_ARRAY_LEN(n_slots); i++) {
        mft_world w;
        mf_engine_options o = options(n_slots[i]);
        d->looks = 1 + i % 4;
        d->backward = i % 3 == 1;
        mft_world_open(&w, &o);
        assert_int_equal(mft_world_stats(&w).n_slots, n_slots[i]);
        decode(&w, N_PROMPT, N, i ? got : want);
        mft_world_close(&w);
        if (i && memcmp(want, got, sizeof want) != 0)
            fail_msg("logits differ with %u slots", n_slots[i]);
    }
}

static void two_answers(mft_world *w)
{
    float logits[8 * MFT_VOCAB];
    decode(w, 18, 8, logits);
    decode(w, 3, 8, logits);
}

/* Trace, hits, misses and evictions are those of an engine that stops at every router, and the
 * replay of the trace hits as often. */
static void same_books(void **state)
{
    (void)state;
    static const char *const policies[] = {"lru", "odds"};
    static const uint32_t n_slots[] = {60, 30};
    for (size_t i = 0; i < MFI_ARRAY_LEN(policies); i++) {
        mf_error err;
        mfi_replay replay;
        mft_books books;
        uint64_t hits = 0;
        mf_engine_options o = options(n_slots[i]);
        o.policy = policies[i];
        mft_same_books(&o, two_answers, &books);
        mft_ok(mfi_replay_parse(&replay, books.trace, books.len, "trace", &err), &err);
        mft_ok(mfi_replay_run(&replay, mfi_policy_named(policies[i]), n_slots[i], &hits, &err),
               &err);
        mfi_replay_close(&replay);
        assert_int_equal(books.stats.expert_hits, hits);
        free(books.trace);
    }
}

/* How far a pass is never goes back, wherever its spans end. */
typedef struct ticks {
    uint32_t n, last;
} ticks;

static bool tick(void *user, uint32_t n_layers)
{
    ticks *t = user;
    assert_true(n_layers > t->last && n_layers <= 6);
    t->last = n_layers;
    t->n++;
    return true;
}

static void layers_in_order(void **state)
{
    (void)state;
    mf_engine_options o = options(60);
    mft_world w;
    mft_world_open(&w, &o);
    mfi_forward *forward = mfi_engine_session_host(w.engine)->forward;
    for (int32_t id = 1; id < 12; id++) { /* at first everything is missing, later a part is */
        mf_error err;
        ticks seen = {0};
        mfi_forward_on_layer(forward, tick, &seen);
        mft_ok(put(&w, &id, 1, NULL, &err), &err);
        assert_int_equal(seen.last, 6);
    }
    mft_world_close(&w);
}

/* ---- what can go wrong ---- */

/* All experts at once, and nobody to see what is chosen; or no room for them. */
static void streaming_off(void **state)
{
    (void)state;
    mft_metal_device();
    static const char *const says[] = {"--vram", "at least", "MiB more"};
    mf_engine *engine = NULL;
    mf_error err;
    mf_engine_options o = options(N_TOTAL);
    o.streaming = "off";
    o.trace_path = mft_path(mft_tmpdir(), "trace");
    assert_int_equal(mf_engine_open(&engine, &o, &err), MF_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "trace"));
    o.trace_path = NULL;
    mft_ok(mf_engine_open(&engine, &o, &err), &err);
    mf_stats stats = {.struct_size = sizeof stats};
    mf_engine_stats(engine, &stats);
    assert_int_equal(stats.expert_misses, N_TOTAL);
    mf_engine_close(&engine);
    o = options(60);
    o.streaming = "off";
    assert_int_equal(mf_engine_open(&engine, &o, &err), MF_ERR_BUDGET);
    for (size_t i = 0; i < MFI_ARRAY_LEN(says); i++)
        assert_non_null(strstr(err.message, says[i]));
}

/* Whichever command buffer of whichever span is lost, the request ends with one error. */
static void lost(void **state)
{
    (void)state;
    mft_metal_state *d = mft_metal_device();
    mf_engine_options o = options(60);
    float logits[N_WARM * MFT_VOCAB];
    bool ended = false;
    for (int n = 1; !ended; n += 1 + n / 3) {
        mf_error err;
        mft_world w;
        mf_status status = MF_OK;
        mft_world_open(&w, &o);
        decode(&w, 0, N_WARM, logits); /* spans are long by now, and something will be missing */
        d->lose = n;
        for (int32_t id = 1; id < 9 && status == MF_OK; id++)
            status = put(&w, &id, 1, NULL, &err);
        ended = d->lose > 0;
        d->lose = 0;
        if (!ended) {
            assert_int_equal(status, MF_ERR_DEVICE);
            assert_non_null(strstr(err.message, "Metal: a command buffer was lost"));
            mf_session_reset(w.session);
            int32_t id = 1;
            assert_int_not_equal(put(&w, &id, 1, NULL, &err), MF_OK);
        }
        mft_world_close(&w);
    }
}

/* A kernel that can't be had in the middle of a span, or in the head behind one, fails that request
 * and no other: nothing stays stopped. */
static void broken(void **state)
{
    (void)state;
    mft_metal_state *d = mft_metal_device();
    static const char *const kernels[] = {"mfi_combine",  "mfi_group", "mfi_rmsnorm",
                                          "mfi_mm_f32_1", "mfi_route", "mfi_mm_f32_8"};
    mf_engine_options o = options(70);
    float want[N_WARM * MFT_VOCAB], got[N_WARM * MFT_VOCAB];
    for (size_t k = 0; k < MFI_ARRAY_LEN(kernels); k++) {
        mf_error err;
        mft_world w;
        int32_t ids[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
        int n_failed = 0;
        mft_world_open(&w, &o);
        d->broken_kernel = kernels[k];
        for (int i = 0; i < 4; i++) {
            mf_session_reset(w.session);
            mf_status status = put(&w, ids, 12, NULL, &err);
            if (status == MF_OK)
                status = put(&w, ids, 1, NULL, &err);
            if (status == MF_OK)
                continue;
            n_failed++;
            assert_int_equal(status, MF_ERR_DEVICE);
            assert_non_null(strstr(err.message, kernels[k]));
        }
        d->broken_kernel = NULL;
        decode(&w, 12, N_WARM, k ? got : want);
        if (k)
            assert_memory_equal(want, got, sizeof want);
        assert_true(n_failed >= 3); /* the first pass misses everything, and groups nothing */
        mft_world_close(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_hit),      cmocka_unit_test(one_miss),
        cmocka_unit_test(all_missing),   cmocka_unit_test(any_slots),
        cmocka_unit_test(same_books),    cmocka_unit_test(lost),
        cmocka_unit_test(broken),        cmocka_unit_test(layers_in_order),
        cmocka_unit_test(streaming_off),
    };
    mft_timelines_on(&mft_metal_case);
    return mft_run(tests);
}
