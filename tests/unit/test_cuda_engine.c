/* Engines on a CUDA device: experts that the device looks up itself while some of them are in no
 * slot (the same bits and books as where the host stops at every router, which an engine that times
 * its ops does; what a token waits for), and timelines that are copied, gone back to, saved and
 * kept in a folder. Needs a device; skipped without. */
#include "fake/support.h"
#include "fake/oss_model.h"
#include "fake/tiny_latent.h"
#include "fake/tiny_model.h"
#include "metal/fake/metal_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "forward/forward_int.h"
#include "session/session.h"

enum { N_VOCAB = 64, N_PROMPT = 40, N_MORE = 5, N_IDS = 60 };

/* Recurrent layers and attention; attention with windows, whose keys lie in rings; latent
 * attention, behind a layer without experts. */
enum { RECURRENT, WINDOWS, LATENT, N_MODELS };
static int model;
static int32_t ids[N_IDS];

static const char *folder(void)
{
    static char path[N_MODELS][512];
    if (path[model][0])
        return path[model];
    mft_tiny tiny;
    mft_oss oss;
    mft_latent latent;
    mft_tiny_default(&tiny);
    mft_oss_default(&oss);
    mft_latent_default(&latent);
    tiny.n_vocab = oss.n_vocab = latent.n_vocab = N_VOCAB;
    tiny.n_layers = 6;
    tiny.interval = 2;
    tiny.n_experts = 16;
    tiny.top_k = 2;
    oss.n_layers = 5;
    latent.n_layers = 6;
    snprintf(path[model], sizeof path[model], "%s",
             model == WINDOWS  ? mft_oss_write(&oss)
             : model == LATENT ? mft_latent_write(&latent)
                               : mft_tiny_write(&tiny));
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (i * 37 + 5) % N_VOCAB;
    return path[model];
}

/* n_slots 0: all; else all but so many fewer as are left of `n_slots`. */
static mf_engine_options options(uint32_t n_slots)
{
    mf_engine_options o;
    mf_engine_options_default(&o);
    o.model_path = folder();
    o.device = "cuda";
    o.ctx = 128;
    o.chunk = 16;
    o.policy = "lru";
    o.n_checkpoints = 4;
    o.n_sessions = 2;
    if (n_slots)
        o.vram_bytes = mft_metal_plan_number(&o, "vram_total_bytes") -
                       (mft_metal_plan_number(&o, "slots") - n_slots) *
                           mft_metal_plan_number(&o, "slot_bytes");
    return o;
}

static uint32_t n_experts(void)
{
    mf_engine_options o = options(0);
    return (uint32_t)mft_metal_plan_number(&o, "slots");
}

typedef struct world {
    mf_engine *engine;
    mf_session *session;
} world;

static void open_world(world *w, const mf_engine_options *o)
{
    mf_error err;
    *w = (world){0};
    mft_ok(mf_engine_open(&w->engine, o, &err), &err);
    mft_ok(mf_session_open(&w->session, w->engine, &err), &err);
}

static void close_world(world *w)
{
    mf_session_close(&w->session);
    mf_engine_close(&w->engine);
}

static mf_stats stats_of(const world *w)
{
    mf_stats stats = {.struct_size = sizeof stats};
    mf_engine_stats(w->engine, &stats);
    return stats;
}

static void eval(mf_session *s, uint32_t from, uint32_t n)
{
    mf_error err;
    mft_ok(mf_session_eval(s, ids + from, n, NULL, &err), &err);
}

/* Goes on by some tokens one by one. */
static void go_on(mf_session *s, uint32_t from, float logits[N_MORE * N_VOCAB])
{
    for (uint32_t i = 0; i < N_MORE; i++) {
        eval(s, from + i, 1);
        memcpy(logits + (size_t)i * N_VOCAB, mf_session_logits(s), N_VOCAB * sizeof *logits);
    }
}

/* Prompts of many tokens and of few, then tokens by themselves, some of them again and again so
 * that spans get long, and others. */
static void evaluate(world *w, float logits[N_MORE * N_VOCAB])
{
    mf_error err;
    int32_t same = 3;
    mf_session_reset(w->session);
    eval(w->session, 0, 20);
    eval(w->session, 20, 3);
    for (int i = 0; i < 30; i++)
        mft_ok(mf_session_eval(w->session, &same, 1, NULL, &err), &err);
    go_on(w->session, 23, logits);
}

static void expect(float logits[N_MORE * N_VOCAB])
{
    world w;
    mf_engine_options o = options(0);
    open_world(&w, &o);
    eval(w.session, 0, N_PROMPT);
    go_on(w.session, N_PROMPT, logits);
    close_world(&w);
}

/* ---- looking up ---- */

static void any_slots(void **state)
{
    (void)state;
    float want[N_MORE * N_VOCAB], got[N_MORE * N_VOCAB];
    for (model = 0; model < N_MODELS; model++) {
        uint32_t all = n_experts();
        const uint32_t n_slots[] = {all, 4, 5, 9, all / 3, all / 2, all - 9, all - 2, all - 1};
        for (size_t i = 0; i < MFI_ARRAY_LEN(n_slots); i++) {
            world w;
            mf_engine_options o = options(n_slots[i]);
            open_world(&w, &o);
            assert_int_equal(stats_of(&w).n_slots, n_slots[i]);
            evaluate(&w, i ? got : want);
            close_world(&w);
            if (i && memcmp(want, got, sizeof want) != 0)
                fail_msg("model %d: logits differ with %u of %u slots", model, n_slots[i], all);
        }
    }
    model = RECURRENT;
}

static void same_books(void **state)
{
    (void)state;
    float logits[N_MORE * N_VOCAB];
    const uint32_t n_slots[] = {n_experts() * 2 / 3, n_experts() / 3};
    for (size_t i = 0; i < MFI_ARRAY_LEN(n_slots); i++) {
        char *text[2];
        size_t len[2];
        mf_stats stats[2];
        for (int timed = 0; timed < 2; timed++) {
            mf_error err;
            world w;
            mf_engine_options o = options(n_slots[i]);
            o.trace_path = mft_path(mft_tmpdir(), "trace");
            open_world(&w, &o);
            if (timed)
                mft_ok(mf_engine_time_ops(w.engine, true, &err), &err);
            evaluate(&w, logits);
            evaluate(&w, logits);
            stats[timed] = stats_of(&w);
            close_world(&w);
            text[timed] = (char *)mft_read(o.trace_path, &len[timed]);
        }
        assert_int_equal(len[0], len[1]);
        assert_memory_equal(text[0], text[1], len[0]);
        assert_int_equal(stats[0].expert_hits, stats[1].expert_hits);
        assert_int_equal(stats[0].expert_misses, stats[1].expert_misses);
        assert_int_equal(stats[0].expert_evictions, stats[1].expert_evictions);
        free(text[0]);
        free(text[1]);
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

static void count_waits(world *w, mfi_lookup_ops *counting)
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
    mf_engine_options o = options(n_experts() * 3 / 4);
    int n_full = 0, n_one = 0;
    enum { N_SAME = 30 };
    mfi_lookup_ops counting;
    world w;
    open_world(&w, &o);
    count_waits(&w, &counting);
    for (int32_t id = 0; id < N_VOCAB; id++) {
        mf_error err;
        mf_session_reset(w.session);
        for (int i = 0; i < N_SAME + 1;
             i++) { /* the same state and token in the end: spans get long */
            int32_t same = 1;
            if (i == N_SAME)
                same = id;
            else
                mf_session_reset(w.session);
            uint64_t misses = stats_of(&w).expert_misses;
            n_waits = 0;
            mft_ok(mf_session_eval(w.session, &same, 1, NULL, &err), &err);
            misses = stats_of(&w).expert_misses - misses;
            if (i < N_SAME - 1 || misses > 1)
                continue;
            assert_int_equal(n_waits, 1 + misses);
            n_full += misses == 0;
            n_one += misses == 1;
        }
    }
    printf("%d tokens missed nothing, %d one expert\n", n_full, n_one);
    assert_true(n_full > 0 && n_one > 0);
    close_world(&w);
}

/* ---- timelines ---- */

static void copied(void **state)
{
    (void)state;
    float want[N_MORE * N_VOCAB], got[N_MORE * N_VOCAB];
    mf_error err;
    for (model = 0; model < N_MODELS; model++)
        for (uint32_t n_slots = 0; n_slots <= 6; n_slots += 6) {
            world w;
            mf_session *other = NULL;
            expect(want);
            mf_engine_options o = options(n_slots);
            open_world(&w, &o);
            mft_ok(mf_session_open(&other, w.engine, &err), &err);
            eval(w.session, 0, N_PROMPT);
            mft_ok(mf_session_copy(other, w.session, N_PROMPT, &err), &err);
            assert_memory_equal(mf_session_logits(other), mf_session_logits(w.session),
                                N_VOCAB * sizeof(float));
            go_on(w.session, N_PROMPT, got); /* one doesn't touch the other */
            assert_memory_equal(got, want, sizeof want);
            go_on(other, N_PROMPT, got);
            assert_memory_equal(got, want, sizeof want);
            mf_session_close(&other);
            close_world(&w);
        }
    model = RECURRENT;
}

/* Back to where a prompt ended, and from there on another way and the same. */
static void gone_back(void **state)
{
    (void)state;
    float want[N_MORE * N_VOCAB], got[N_MORE * N_VOCAB];
    mf_error err;
    world w;
    size_t n_kept;
    int32_t other[N_PROMPT + 5];
    expect(want);
    mf_engine_options o = options(0);
    open_world(&w, &o);
    eval(w.session, 0, N_PROMPT); /* three chunks, and a checkpoint behind each */
    go_on(w.session, N_PROMPT, got);
    assert_memory_equal(got, want, sizeof want);
    memcpy(other, ids, sizeof other);
    mft_ok(mf_session_sync(w.session, other, N_PROMPT + 1, &n_kept, &err), &err);
    assert_int_equal(n_kept, N_PROMPT);
    go_on(w.session, N_PROMPT, got);
    assert_memory_equal(got, want, sizeof want);
    other[35] ^= 1; /* behind the second chunk's end */
    mft_ok(mf_session_sync(w.session, other, N_PROMPT + 1, &n_kept, &err), &err);
    assert_int_equal(n_kept, 32);
    eval(w.session, 32, N_PROMPT - 32);
    go_on(w.session, N_PROMPT, got);
    assert_memory_equal(got, want, sizeof want);
    close_world(&w);
}

static void save_and_load(void)
{
    float want[N_MORE * N_VOCAB], got[N_MORE * N_VOCAB];
    char path[600];
    mf_error err;
    world w;
    snprintf(path, sizeof path, "%s/state%d", mft_tmpdir(), model);
    expect(want);
    mf_engine_options o = options(0);
    open_world(&w, &o);
    eval(w.session, 0, N_PROMPT);
    mft_ok(mf_session_save(w.session, path, &err), &err);
    close_world(&w);
    o = options(6); /* a budget changes nothing */
    open_world(&w, &o);
    eval(w.session, 9, 4); /* it is replaced */
    mft_ok(mf_session_load(w.session, path, &err), &err);
    assert_int_equal(mf_session_length(w.session), N_PROMPT);
    go_on(w.session, N_PROMPT, got);
    assert_memory_equal(got, want, sizeof want);
    close_world(&w);
    /* Bits of another device are another timeline. */
    o = options(0);
    o.device = NULL;
    o.activations = MF_ACTIVATIONS_F32;
    open_world(&w, &o);
    assert_int_equal(mf_session_load(w.session, path, &err), MF_ERR_STATE);
    close_world(&w);
}

static void saved(void **state)
{
    (void)state;
    for (model = 0; model < N_MODELS; model++)
        save_and_load();
    model = RECURRENT;
}

static void kept_in_a_folder(void **state)
{
    (void)state;
    float want[N_MORE * N_VOCAB], got[N_MORE * N_VOCAB];
    char dir[600];
    mf_error err;
    world w;
    size_t n_kept;
    snprintf(dir, sizeof dir, "%s/kept", mft_tmpdir());
    expect(want);
    for (int i = 0; i < 2; i++) {
        mf_session *other = NULL;
        mf_engine_options o = options(0);
        o.prefix_dir = dir;
        open_world(&w, &o);
        mft_ok(mf_session_restore(w.session, ids, N_PROMPT + N_MORE, &n_kept, &err), &err);
        assert_int_equal(n_kept, i ? N_PROMPT : 0);
        if (!i) {
            eval(w.session, 0, N_PROMPT);
            mft_ok(mf_session_keep(w.session, &err), &err);
        }
        /* The engine's other session finds it in memory. */
        mft_ok(mf_session_open(&other, w.engine, &err), &err);
        mft_ok(mf_session_restore(other, ids, N_PROMPT + N_MORE, &n_kept, &err), &err);
        assert_int_equal(n_kept, N_PROMPT);
        go_on(other, N_PROMPT, got);
        assert_memory_equal(got, want, sizeof want);
        go_on(w.session, N_PROMPT, got);
        assert_memory_equal(got, want, sizeof want);
        mf_session_close(&other);
        close_world(&w);
    }
}

int main(void)
{
    mf_error err;
    mfi_device_facts facts;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_slots),        cmocka_unit_test(same_books), cmocka_unit_test(waits),
        cmocka_unit_test(copied),           cmocka_unit_test(gone_back),  cmocka_unit_test(saved),
        cmocka_unit_test(kept_in_a_folder),
    };
    if (mfi_backend_cuda_facts(0, &facts, &err) != MF_OK) {
        printf("skipped: %s\n", err.message);
        return 77;
    }
    printf("on %s\n", facts.name);
    return mft_run(tests);
}
