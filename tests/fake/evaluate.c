/* Logits of a model, and their distance; see evaluate.h. */
#include "fake/support.h"
#include "fake/evaluate.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { N_IDS = 24 };

static bool take_logits(void *user, size_t index, const float *row, size_t n)
{
    mft_logits *l = user;
    l->values = realloc(l->values, (index + 1) * n * sizeof *row);
    memcpy(l->values + index * n, row, n * sizeof *row);
    l->n = (index + 1) * n;
    return true;
}

mft_logits mft_evaluate(const char *path, uint32_t n_threads)
{
    mf_error err;
    mf_engine *engine;
    mf_session *session;
    mf_model_info info;
    mf_engine_options o;
    mf_engine_options_default(&o);
    o.model_path = path;
    o.activations = MF_ACTIVATIONS_F32;
    o.ctx = 64;
    o.n_threads = n_threads;
    mft_ok(mf_engine_open(&engine, &o, &err), &err);
    mft_ok(mf_session_open(&session, engine, &err), &err);
    mf_engine_info(engine, &info);
    int32_t ids[N_IDS];
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (int32_t)((uint32_t)(i * 67 + 5) % info.n_vocab);
    mft_logits l = {0};
    mf_eval_outputs out = {sizeof out, take_logits, NULL, &l};
    mft_ok(mf_session_eval(session, ids, N_IDS, &out, &err), &err);
    mf_session_close(&session);
    mf_engine_close(&engine);
    return l;
}

double mft_nmse(mft_logits got, mft_logits want)
{
    double d = 0, s = 0;
    assert_int_equal(got.n, want.n);
    for (size_t i = 0; i < got.n; i++) {
        double w = want.values[i], g = got.values[i];
        d += (g - w) * (g - w);
        s += w * w;
    }
    assert_true(s > 0 && isfinite(s));
    return memcmp(got.values, want.values, got.n * sizeof *got.values) == 0 ? 0 : d / s + 1e-30;
}

double mft_nmse_of(const char *got, const char *want, uint32_t n_threads)
{
    mft_logits a = mft_evaluate(got, n_threads), b = mft_evaluate(want, n_threads);
    double e = mft_nmse(a, b);
    free(a.values);
    free(b.values);
    return e;
}
