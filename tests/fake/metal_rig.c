/* Engines on the fake Metal device; see metal/fake/metal_rig.h. */
#include "fake/support.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "metal/fake/metal_rig.h"

#ifndef MF_METAL_MODULE
#define MF_METAL_MODULE ""
#endif

mft_metal_state *mft_metal_device(void)
{
    void *so = MF_METAL_MODULE[0] ? dlopen(MF_METAL_MODULE, RTLD_NOW | RTLD_LOCAL) : NULL;
    mft_metal_state *(*get)(void) = NULL;
    void (*reset)(void) = NULL;
    if (so) {
        *(void **)&get = dlsym(so, MFT_METAL_STATE);
        *(void **)&reset = dlsym(so, MFT_METAL_RESET);
    }
    if (!get || !reset)
        mft_skip("built without the fake Metal device (-DMF_METAL=FAKE)");
    reset(); /* what a test that failed has left is forgotten */
    return get();
}

mft_metal_state *mft_metal_find(void)
{
    void *so = MF_METAL_MODULE[0] ? dlopen(MF_METAL_MODULE, RTLD_NOW | RTLD_LOCAL) : NULL;
    mft_metal_state *(*get)(void) = NULL;
    if (so)
        *(void **)&get = dlsym(so, MFT_METAL_STATE);
    return get ? get() : NULL;
}

static void prepare(void)
{
    (void)mft_metal_device();
}

static void closed(void)
{
    const mft_metal_state *d = mft_metal_find();
    assert_string_equal(d->fault, "");
    assert_int_equal(d->n_objects, 0);
}

const mft_device_case mft_metal_case = {"metal", MFT_LATENT, prepare, closed};

mf_engine_options mft_metal_options(const char *path)
{
    mf_engine_options o;
    mf_engine_options_default(&o);
    o.model_path = path;
    o.device = "metal";
    o.ctx = 128;
    o.chunk = 16;
    o.n_threads = 2;
    return o;
}

static bool take_logits(void *user, size_t index, const float *row, size_t n)
{
    mft_metal_run *run = user;
    memcpy(run->logits + index * n, row, n * sizeof *row);
    return true;
}

static mf_status evaluate(mf_engine *engine, uint32_t n_ids, mft_metal_run *run, mf_error *err)
{
    mf_session *session = NULL;
    mf_model_info info;
    mf_engine_info(engine, &info);
    *run = (mft_metal_run){.n_vocab = info.n_vocab, .n = (size_t)n_ids * info.n_vocab};
    run->logits = calloc(run->n, sizeof *run->logits);
    int32_t *ids = calloc(n_ids, sizeof *ids);
    for (uint32_t i = 0; i < n_ids; i++)
        ids[i] = (int32_t)((i * 67 + 5) % info.n_vocab);
    mf_eval_outputs out = {sizeof out, take_logits, NULL, run};
    mf_status status = mf_session_open(&session, engine, err);
    if (status == MF_OK)
        status = mf_session_eval(session, ids, n_ids, &out, err);
    mf_engine_stats(engine, &run->stats);
    mf_session_close(&session);
    free(ids);
    return status;
}

mf_status mft_metal_eval(const mf_engine_options *options, uint32_t n_ids, mft_metal_run *run,
                         mf_error *err)
{
    mf_engine *engine = NULL;
    const mft_metal_state *d = mft_metal_find(); /* CPU runs go through here, too */
    *run = (mft_metal_run){0};
    mf_status status = mf_engine_open(&engine, options, err);
    if (status == MF_OK)
        status = evaluate(engine, n_ids, run, err);
    mf_engine_close(&engine);
    if (d) {
        assert_string_equal(d->fault, "");
        assert_int_equal(d->n_objects, 0);
        assert_int_equal(d->buffer_bytes, 0);
        assert_int_equal(d->wired_bytes, 0);
    }
    if (status != MF_OK) {
        free(run->logits);
        run->logits = NULL;
    }
    return status;
}
