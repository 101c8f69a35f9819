/* Engines on a device and their timelines; see timelines.h. */
#include "fake/timelines.h"
#include "fake/oss_model.h"
#include "fake/support.h"
#include "fake/tiny_latent.h"
#include "fake/tiny_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"

static mft_device_case on;
static int32_t ids[MFT_IDS];

void mft_timelines_on(const mft_device_case *device)
{
    on = *device;
    for (int i = 0; i < MFT_IDS; i++)
        ids[i] = (i * 37 + 5) % MFT_VOCAB;
}

static const char *folder(mft_timeline_model model)
{
    static char path[MFT_LATENT + 1][512];
    if (path[model][0])
        return path[model];
    mft_tiny tiny;
    mft_oss oss;
    mft_latent latent;
    mft_tiny_default(&tiny);
    mft_oss_default(&oss);
    mft_latent_default(&latent);
    tiny.n_vocab = oss.n_vocab = latent.n_vocab = MFT_VOCAB;
    tiny.n_layers = 6;
    tiny.interval = 2;
    tiny.n_experts = 16;
    tiny.top_k = 2;
    oss.n_layers = 5;
    latent.n_layers = 6;
    snprintf(path[model], sizeof path[model], "%s",
             model == MFT_WINDOWS  ? mft_oss_write(&oss)
             : model == MFT_LATENT ? mft_latent_write(&latent)
                                   : mft_tiny_write(&tiny));
    return path[model];
}

static bool append(void *user, const char *text, size_t len)
{
    mfi_buf_append(user, text, len);
    return true;
}

uint64_t mft_plan_number(const mf_engine_options *options, const char *key)
{
    mf_error err;
    mfi_buf text = {0};
    mfi_json *root = NULL;
    int64_t n = -1;
    mf_status status = mf_plan_write(options, true, append, &text, &err);
    if (!text.len) /* what doesn't fit is written, too */
        mft_ok(status, &err);
    mft_ok(mfi_json_parse(text.data, text.len, "the plan", &root, &err), &err);
    assert_true(mfi_json_i64(mfi_json_get(root, key), &n));
    mfi_json_free(&root);
    mfi_buf_free(&text);
    return (uint64_t)n;
}

mf_engine_options mft_timeline_options(mft_timeline_model model, uint32_t n_slots)
{
    mf_engine_options o;
    if (on.prepare)
        on.prepare();
    mf_engine_options_default(&o);
    o.model_path = folder(model);
    o.device = on.device;
    o.ctx = 128;
    o.chunk = 16;
    o.n_threads = 2;
    o.policy = "lru";
    o.n_checkpoints = 4;
    o.n_sessions = 2;
    if (n_slots)
        o.vram_bytes = mft_plan_number(&o, "vram_total_bytes") -
                       (mft_plan_number(&o, "slots") - n_slots) * mft_plan_number(&o, "slot_bytes");
    return o;
}

uint32_t mft_timeline_n_experts(mft_timeline_model model)
{
    mf_engine_options o = mft_timeline_options(model, 0);
    return (uint32_t)mft_plan_number(&o, "slots");
}

void mft_world_open(mft_world *w, const mf_engine_options *o)
{
    mf_error err;
    *w = (mft_world){0};
    mft_ok(mf_engine_open(&w->engine, o, &err), &err);
    mft_ok(mf_session_open(&w->session, w->engine, &err), &err);
}

void mft_world_close(mft_world *w)
{
    mf_session_close(&w->session);
    mf_engine_close(&w->engine);
    if (on.closed)
        on.closed();
}

mf_stats mft_world_stats(const mft_world *w)
{
    mf_stats stats = {.struct_size = sizeof stats};
    mf_engine_stats(w->engine, &stats);
    return stats;
}

const int32_t *mft_timeline_ids(void)
{
    return ids;
}

void mft_timeline_eval(mf_session *s, uint32_t from, uint32_t n)
{
    mf_error err;
    mft_ok(mf_session_eval(s, ids + from, n, NULL, &err), &err);
}

void mft_timeline_go_on(mf_session *s, uint32_t from, float logits[MFT_MORE * MFT_VOCAB])
{
    for (uint32_t i = 0; i < MFT_MORE; i++) {
        mft_timeline_eval(s, from + i, 1);
        memcpy(logits + (size_t)i * MFT_VOCAB, mf_session_logits(s), MFT_VOCAB * sizeof *logits);
    }
}

static void expect(mft_timeline_model model, float logits[MFT_MORE * MFT_VOCAB])
{
    mft_world w;
    mf_engine_options o = mft_timeline_options(model, 0);
    mft_world_open(&w, &o);
    mft_timeline_eval(w.session, 0, MFT_PROMPT);
    mft_timeline_go_on(w.session, MFT_PROMPT, logits);
    mft_world_close(&w);
}

void mft_timeline_copied(void **state)
{
    (void)state;
    float want[MFT_MORE * MFT_VOCAB], got[MFT_MORE * MFT_VOCAB];
    mf_error err;
    for (int i = 0; i < 2 * on.n_models; i++) {
        mft_world w;
        mf_session *other = NULL;
        expect(i / 2, want);
        mf_engine_options o = mft_timeline_options(i / 2, i % 2 ? 6 : 0);
        mft_world_open(&w, &o);
        mft_ok(mf_session_open(&other, w.engine, &err), &err);
        mft_timeline_eval(w.session, 0, MFT_PROMPT);
        mft_ok(mf_session_copy(other, w.session, MFT_PROMPT, &err), &err);
        assert_memory_equal(mf_session_logits(other), mf_session_logits(w.session),
                            MFT_VOCAB * sizeof(float));
        mft_timeline_go_on(w.session, MFT_PROMPT, got); /* one doesn't touch the other */
        assert_memory_equal(got, want, sizeof want);
        mft_timeline_go_on(other, MFT_PROMPT, got);
        assert_memory_equal(got, want, sizeof want);
        if (i / 2 != MFT_LATENT) /* whose keys are all there still */
            assert_int_equal(mf_session_copy(other, w.session, 7, &err), MF_ERR_STATE);
        mf_session_close(&other);
        mft_world_close(&w);
    }
}

/* Back to where a prompt ended, and from there on another way and the same. */
void mft_timeline_gone_back(void **state)
{
    (void)state;
    float want[MFT_MORE * MFT_VOCAB], got[MFT_MORE * MFT_VOCAB];
    mf_error err;
    mft_world w;
    size_t n_kept;
    int32_t other[MFT_PROMPT + 5];
    expect(MFT_RECURRENT, want);
    mf_engine_options o = mft_timeline_options(MFT_RECURRENT, 0);
    mft_world_open(&w, &o);
    mft_timeline_eval(w.session, 0, MFT_PROMPT); /* three chunks, and a checkpoint behind each */
    mft_timeline_go_on(w.session, MFT_PROMPT, got);
    assert_memory_equal(got, want, sizeof want);
    memcpy(other, ids, sizeof other);
    mft_ok(mf_session_sync(w.session, other, MFT_PROMPT + 1, &n_kept, &err), &err);
    assert_int_equal(n_kept, MFT_PROMPT);
    mft_timeline_go_on(w.session, MFT_PROMPT, got);
    assert_memory_equal(got, want, sizeof want);
    other[35] ^= 1; /* behind the second chunk's end */
    mft_ok(mf_session_sync(w.session, other, MFT_PROMPT + 1, &n_kept, &err), &err);
    assert_int_equal(n_kept, 32);
    mft_timeline_eval(w.session, 32, MFT_PROMPT - 32);
    mft_timeline_go_on(w.session, MFT_PROMPT, got);
    assert_memory_equal(got, want, sizeof want);
    mft_world_close(&w);
}

static void save_and_load(mft_timeline_model model)
{
    float want[MFT_MORE * MFT_VOCAB], got[MFT_MORE * MFT_VOCAB];
    char path[600];
    mf_error err;
    mft_world w;
    snprintf(path, sizeof path, "%s/state%d", mft_tmpdir(), model);
    expect(model, want);
    mf_engine_options o = mft_timeline_options(model, 0);
    mft_world_open(&w, &o);
    mft_timeline_eval(w.session, 0, MFT_PROMPT);
    mft_ok(mf_session_save(w.session, path, &err), &err);
    mft_world_close(&w);
    o = mft_timeline_options(model, 6); /* a budget changes nothing */
    mft_world_open(&w, &o);
    mft_timeline_eval(w.session, 9, 4); /* it is replaced */
    mft_ok(mf_session_load(w.session, path, &err), &err);
    assert_int_equal(mf_session_length(w.session), MFT_PROMPT);
    mft_timeline_go_on(w.session, MFT_PROMPT, got);
    assert_memory_equal(got, want, sizeof want);
    mft_world_close(&w);
    /* Bits of another device are another timeline. */
    o = mft_timeline_options(model, 0);
    o.device = NULL;
    o.activations = MF_ACTIVATIONS_F32;
    mft_world_open(&w, &o);
    assert_int_equal(mf_session_load(w.session, path, &err), MF_ERR_STATE);
    mft_world_close(&w);
}

void mft_timeline_saved(void **state)
{
    (void)state;
    for (int model = 0; model < on.n_models; model++)
        save_and_load(model);
}

void mft_timeline_kept(void **state)
{
    (void)state;
    float want[MFT_MORE * MFT_VOCAB], got[MFT_MORE * MFT_VOCAB];
    char dir[600];
    mf_error err;
    mft_world w;
    size_t n_kept;
    snprintf(dir, sizeof dir, "%s/kept", mft_tmpdir());
    expect(MFT_RECURRENT, want);
    for (int i = 0; i < 2; i++) {
        mf_session *other = NULL;
        mf_engine_options o = mft_timeline_options(MFT_RECURRENT, 0);
        o.prefix_dir = dir;
        mft_world_open(&w, &o);
        mft_ok(mf_session_restore(w.session, ids, MFT_PROMPT + MFT_MORE, &n_kept, &err), &err);
        assert_int_equal(n_kept, i ? MFT_PROMPT : 0);
        if (!i) {
            mft_timeline_eval(w.session, 0, MFT_PROMPT);
            mft_ok(mf_session_keep(w.session, &err), &err);
        }
        /* The engine's other session finds it in memory. */
        mft_ok(mf_session_open(&other, w.engine, &err), &err);
        mft_ok(mf_session_restore(other, ids, MFT_PROMPT + MFT_MORE, &n_kept, &err), &err);
        assert_int_equal(n_kept, MFT_PROMPT);
        mft_timeline_go_on(other, MFT_PROMPT, got);
        assert_memory_equal(got, want, sizeof want);
        mft_timeline_go_on(w.session, MFT_PROMPT, got);
        assert_memory_equal(got, want, sizeof want);
        mf_session_close(&other);
        mft_world_close(&w);
    }
}

void mft_same_books(const mf_engine_options *options, void (*evaluate)(mft_world *w),
                    mft_books *books)
{
    mft_books both[2];
    mf_engine_options o = *options;
    o.trace_path = mft_path(mft_tmpdir(), "trace");
    for (int timed = 0; timed < 2; timed++) {
        mf_error err;
        mft_world w;
        mft_world_open(&w, &o);
        if (timed)
            mft_ok(mf_engine_time_ops(w.engine, true, &err), &err);
        evaluate(&w);
        both[timed].stats = mft_world_stats(&w);
        mft_world_close(&w);
        both[timed].trace = (char *)mft_read(o.trace_path, &both[timed].len);
    }
    assert_int_equal(both[0].len, both[1].len);
    assert_memory_equal(both[0].trace, both[1].trace, both[0].len);
    assert_int_equal(both[0].stats.expert_hits, both[1].stats.expert_hits);
    assert_int_equal(both[0].stats.expert_misses, both[1].stats.expert_misses);
    assert_int_equal(both[0].stats.expert_evictions, both[1].stats.expert_evictions);
    free(both[1].trace);
    *books = both[0];
}
