/* Timelines on the fake Metal device, whose state lies in memory that the host sees as well:
 * copied, gone back to, saved, loaded and kept in a folder, they go on with the same bits. The
 * device keeps the host off what it is at, so that a wait that was forgotten is a fault. */
#include "fake/support.h"
#include "fake/oss_model.h"
#include "fake/tiny_model.h"
#include "base/buf.h"
#include "metal/fake/metal_rig.h"
#include "os/out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_VOCAB = 80, N_PROMPT = 40, N_MORE = 3, N_IDS = 60 };

typedef struct world {
    mf_engine *engine;
    mf_session *session;
} world;

static int32_t ids[N_IDS];

/* Recurrent layers and attention; attention with windows, whose keys lie in rings. */
enum { RECURRENT, WINDOWS, N_MODELS };
static int model;

static const char *folder(void)
{
    static char path[N_MODELS][512];
    if (path[model][0])
        return path[model];
    mft_tiny tiny;
    mft_oss oss;
    mft_tiny_default(&tiny);
    mft_oss_default(&oss);
    tiny.n_vocab = oss.n_vocab = N_VOCAB;
    snprintf(path[model], sizeof path[model], "%s",
             model == WINDOWS ? mft_oss_write(&oss) : mft_tiny_write(&tiny));
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (i * 37 + 5) % N_VOCAB;
    return path[model];
}

/* Every expert in a slot: nobody waits but for logits. */
static mf_engine_options options(uint32_t n_slots)
{
    mf_engine_options o = mft_metal_options(folder());
    o.n_checkpoints = 4;
    o.n_sessions = 2;
    if (n_slots)
        o.vram_bytes = mft_metal_plan_number(&o, "vram_total_bytes") -
                       (mft_metal_plan_number(&o, "slots") - n_slots) *
                           mft_metal_plan_number(&o, "slot_bytes");
    return o;
}

static void open_world(world *w, const mf_engine_options *o)
{
    mf_error err;
    *w = (world){0};
    mft_ok(mf_engine_open(&w->engine, o, &err), &err);
    mft_ok(mf_session_open(&w->session, w->engine, &err), &err);
}

static void close_world(world *w, const mft_metal_state *d)
{
    mf_session_close(&w->session);
    mf_engine_close(&w->engine);
    assert_string_equal(d->fault, "");
    assert_int_equal(d->n_objects, 0);
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

static void expect(uint32_t n_slots, float logits[N_MORE * N_VOCAB])
{
    world w;
    mf_engine_options o = options(n_slots);
    const mft_metal_state *d = mft_metal_device();
    open_world(&w, &o);
    eval(w.session, 0, N_PROMPT);
    go_on(w.session, N_PROMPT, logits);
    close_world(&w, d);
}

static void copied(void **state)
{
    (void)state;
    float want[N_MORE * N_VOCAB], got[N_MORE * N_VOCAB];
    mf_error err;
    world w;
    for (int i = 0; i < 4; i++) {
        mf_session *other = NULL;
        uint32_t n_slots = i % 2 ? 6 : 0;
        model = i / 2;
        expect(n_slots, want);
        mf_engine_options o = options(n_slots);
        const mft_metal_state *d = mft_metal_device();
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
        assert_int_equal(mf_session_copy(other, w.session, 7, &err), MF_ERR_STATE);
        mf_session_close(&other);
        close_world(&w, d);
    }
    model = RECURRENT;
}

static bool append(void *user, const char *text, size_t len)
{
    mfi_buf_append(user, text, len);
    return true;
}

/* Bytes of the host that the plan has for recurrent state and checkpoints. */
static uint64_t planned_state(const mf_engine_options *o)
{
    static const char key[] = "{\"item\":\"state_bytes\",\"bytes\":";
    mf_error err;
    mfi_buf text = {0};
    mft_ok(mf_plan_write(o, true, append, &text, &err), &err);
    mfi_buf_append(&text, "", 1);
    const char *at = strstr(text.data, key);
    assert_non_null(at);
    uint64_t n = strtoull(at + sizeof key - 1, NULL, 10);
    mfi_buf_free(&text);
    return n;
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
    expect(0, want);
    mf_engine_options o = options(0);
    const mft_metal_state *d = mft_metal_device();
    mf_engine_options none = o;
    none.n_checkpoints = 0;
    /* Counted, two sessions' with logits, and none of the device's. */
    uint64_t more = planned_state(&o) - planned_state(&none);
    assert_true(more >= 2 * 4 * N_VOCAB * sizeof(float) && more % (2 * 4 * 4096) == 0);
    assert_int_equal(mft_metal_plan_number(&o, "vram_total_bytes"),
                     mft_metal_plan_number(&none, "vram_total_bytes"));
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
    close_world(&w, d);
}

static void save_and_load(void)
{
    float want[N_MORE * N_VOCAB], got[N_MORE * N_VOCAB];
    char path[600];
    mf_error err;
    world w;
    snprintf(path, sizeof path, "%s/state", mft_tmpdir());
    expect(0, want);
    mf_engine_options o = options(0);
    const mft_metal_state *d = mft_metal_device();
    open_world(&w, &o);
    eval(w.session, 0, N_PROMPT);
    mft_ok(mf_session_save(w.session, path, &err), &err);
    close_world(&w, d);
    o = options(6); /* a budget changes nothing */
    d = mft_metal_device();
    open_world(&w, &o);
    eval(w.session, 9, 4); /* it is replaced */
    mft_ok(mf_session_load(w.session, path, &err), &err);
    assert_int_equal(mf_session_length(w.session), N_PROMPT);
    go_on(w.session, N_PROMPT, got);
    assert_memory_equal(got, want, sizeof want);
    close_world(&w, d);
    /* Bits of another device are another timeline. */
    o = options(0);
    o.device = NULL;
    o.activations = MF_ACTIVATIONS_F32;
    open_world(&w, &o);
    assert_int_equal(mf_session_load(w.session, path, &err), MF_ERR_STATE);
    mf_session_close(&w.session);
    mf_engine_close(&w.engine);
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
    expect(0, want);
    for (int i = 0; i < 2; i++) {
        mf_session *other = NULL;
        mf_engine_options o = options(0);
        o.prefix_dir = dir;
        const mft_metal_state *d = mft_metal_device();
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
        close_world(&w, d);
    }
}

static mf_status count_file(void *ctx, const char *name, mf_error *err)
{
    (void)err;
    *(int *)ctx += strstr(name, ".mfx") != NULL;
    return MF_OK;
}

static int n_kept_files(const char *dir)
{
    int n = 0;
    mf_error err;
    mft_ok(mfi_dir_each_file(dir, count_file, &n, &err), &err);
    return n;
}

/* Nothing of a device that is lost is saved, and no file goes because of it. */
static void lost(void **state)
{
    (void)state;
    mf_error err;
    world w;
    char path[600], dir[600];
    size_t n_kept;
    snprintf(path, sizeof path, "%s/lost", mft_tmpdir());
    snprintf(dir, sizeof dir, "%s/kept", mft_tmpdir());
    mf_engine_options o = options(0);
    o.prefix_dir = dir;
    mft_metal_state *d = mft_metal_device();
    open_world(&w, &o);
    eval(w.session, 0, N_PROMPT);
    mft_ok(mf_session_keep(w.session, &err), &err);
    int n_files = n_kept_files(dir);
    assert_true(n_files > 0);
    mf_session_reset(w.session);
    d->lose = 1;
    assert_int_equal(mf_session_eval(w.session, ids, 1, NULL, &err), MF_ERR_DEVICE);
    assert_int_equal(mf_session_save(w.session, path, &err), MF_ERR_DEVICE);
    assert_int_equal(mf_session_restore(w.session, ids, N_PROMPT + N_MORE, &n_kept, &err),
                     MF_ERR_DEVICE);
    assert_int_equal(n_kept_files(dir), n_files);
    close_world(&w, d);
    d = mft_metal_device();
    open_world(&w, &o);
    mft_ok(mf_session_restore(w.session, ids, N_PROMPT + N_MORE, &n_kept, &err), &err);
    assert_int_equal(n_kept, N_PROMPT);
    close_world(&w, d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copied),           cmocka_unit_test(gone_back), cmocka_unit_test(saved),
        cmocka_unit_test(kept_in_a_folder), cmocka_unit_test(lost),
    };
    return mft_run(tests);
}
