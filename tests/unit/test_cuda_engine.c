/* Engines on a CUDA device: experts that the device looks up itself while some of them are in no
 * slot (the same bits and books as where the host stops at every router, which an engine that times
 * its ops does; what a token waits for), and timelines. Needs a device; skipped without. */
#include "fake/support.h"
#include "fake/timelines.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "forward/forward_int.h"
#include "session/session.h"

/* Prompts of many tokens and of few, then tokens by themselves, some of them again and again so
 * that spans get long, and others. */
static void evaluate(mft_world *w, float logits[MFT_MORE * MFT_VOCAB])
{
    mf_error err;
    int32_t same = 3;
    mf_session_reset(w->session);
    mft_timeline_eval(w->session, 0, 20);
    mft_timeline_eval(w->session, 20, 3);
    for (int i = 0; i < 30; i++)
        mft_ok(mf_session_eval(w->session, &same, 1, NULL, &err), &err);
    mft_timeline_go_on(w->session, 23, logits);
}

/* ---- looking up ---- */

static void any_slots(void **state)
{
    (void)state;
    float want[MFT_MORE * MFT_VOCAB], got[MFT_MORE * MFT_VOCAB];
    for (int model = 0; model <= MFT_LATENT; model++) {
        uint32_t all = mft_timeline_n_experts(model);
        const uint32_t n_slots[] = {all, 4, 5, 9, all / 3, all / 2, all - 9, all - 2, all - 1};
        for (size_t i = 0; i < MFI_ARRAY_LEN(n_slots); i++) {
            mft_world w;
            mf_engine_options o = mft_timeline_options(model, n_slots[i]);
            mft_world_open(&w, &o);
            assert_int_equal(mft_world_stats(&w).n_slots, n_slots[i]);
            evaluate(&w, i ? got : want);
            mft_world_close(&w);
            if (i && memcmp(want, got, sizeof want) != 0)
                fail_msg("model %d: logits differ with %u of %u slots", model, n_slots[i], all);
        }
    }
}

static void twice(mft_world *w)
{
    float logits[MFT_MORE * MFT_VOCAB];
    evaluate(w, logits);
    evaluate(w, logits);
}

static void same_books(void **state)
{
    (void)state;
    uint32_t all = mft_timeline_n_experts(MFT_RECURRENT);
    const uint32_t n_slots[] = {all * 2 / 3, all / 3};
    for (size_t i = 0; i < MFI_ARRAY_LEN(n_slots); i++) {
        mft_books books;
        mf_engine_options o = mft_timeline_options(MFT_RECURRENT, n_slots[i]);
        mft_same_books(&o, twice, &books);
        free(books.trace);
    }
}

/* Every wait of the forward pass for the device, counted on the way. */
static uint32_t n_waits;
static mfi_lookup_ops real_lookup;
static mf_status (*real_sync)(mfi_backend *b, mf_error *err);

static mf_status count_stopped(mfi_backend *b, uint32_t *layer, mf_error *err)
{
    n_waits++;
    return real_lookup.stopped(b, layer, err);
}

static mf_status count_sync(mfi_backend *b, mf_error *err)
{
    n_waits++;
    return real_sync(b, err);
}

static void count_waits(mft_world *w, mfi_lookup_ops *counting)
{
    mfi_forward *f = mfi_engine_session_host(w->engine)->forward;
    assert_non_null(f->lookup);
    real_lookup = *counting = *f->lookup;
    counting->stopped = count_stopped;
    f->lookup = counting;
    real_sync = f->backend->sync;
    f->backend->sync = count_sync;
}

/* A token whose experts are all in slots waits once, as where every expert has one; one that lacks
 * an expert in one layer waits twice. */
static void waits(void **state)
{
    (void)state;
    mf_engine_options o =
        mft_timeline_options(MFT_RECURRENT, mft_timeline_n_experts(MFT_RECURRENT) * 3 / 4);
    int n_full = 0, n_one = 0;
    enum { N_SAME = 30 };
    mfi_lookup_ops counting;
    mft_world w;
    mft_world_open(&w, &o);
    count_waits(&w, &counting);
    for (int32_t id = 0; id < MFT_VOCAB; id++) {
        mf_error err;
        mf_session_reset(w.session);
        for (int i = 0; i < N_SAME + 1;
             i++) { /* the same state and token in the end: spans get long */
            int32_t same = 1;
            if (i == N_SAME)
                same = id;
            else
                mf_session_reset(w.session);
            uint64_t misses = mft_world_stats(&w).expert_misses;
            n_waits = 0;
            mft_ok(mf_session_eval(w.session, &same, 1, NULL, &err), &err);
            misses = mft_world_stats(&w).expert_misses - misses;
            if (i < N_SAME - 1 || misses > 1)
                continue;
            assert_int_equal(n_waits, 1 + misses);
            n_full += misses == 0;
            n_one += misses == 1;
        }
    }
    printf("%d tokens missed nothing, %d one expert\n", n_full, n_one);
    assert_true(n_full > 0 && n_one > 0);
    mft_world_close(&w);
}

int main(void)
{
    mf_error err;
    mfi_device_facts facts;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_slots),
        cmocka_unit_test(same_books),
        cmocka_unit_test(waits),
        cmocka_unit_test(mft_timeline_copied),
        cmocka_unit_test(mft_timeline_gone_back),
        cmocka_unit_test(mft_timeline_saved),
        cmocka_unit_test(mft_timeline_kept),
    };
    if (mfi_backend_cuda_facts(0, &facts, &err) != MF_OK) {
        printf("skipped: %s\n", err.message);
        return 77;
    }
    printf("on %s\n", facts.name);
    mft_timelines_on(&(mft_device_case){.device = "cuda", .n_models = MFT_LATENT + 1});
    return mft_run(tests);
}
