/* Tiny checkpoints against what others computed of them; see reference.h. */
#include "fake/support.h"
#include "fake/reference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake/tensors.h"

typedef struct capture {
    float *logits, *hidden; /* [tokens][vocab], [layers + 1][tokens][hidden] */
    size_t n_tokens;
} capture;

static bool take_logits(void *user, size_t index, const float *row, size_t n)
{
    capture *c = user;
    memcpy(c->logits + index * n, row, n * sizeof *row);
    return true;
}

static bool take_hidden(void *user, size_t layer, size_t index, const float *row, size_t n)
{
    capture *c = user;
    memcpy(c->hidden + (layer * c->n_tokens + index) * n, row, n * sizeof *row);
    return true;
}

double mft_spread(const float *v, size_t n)
{
    double sum = 0, sq = 0;
    for (size_t i = 0; i < n; i++) {
        sum += v[i];
        sq += (double)v[i] * v[i];
    }
    return sqrt(sq / (double)n - sum / (double)n * (sum / (double)n));
}

double mft_worst(const float *a, const float *b, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]);
        most = d > most || isnan(d) ? d : most;
    }
    return most;
}

void mft_reference_open(mf_engine **engine, mf_session **session, const char *path, const char *isa,
                        const char *device)
{
    mf_error err;
    mf_engine_options o;
    mf_engine_options_default(&o);
    o.model_path = path;
    o.activations = MF_ACTIVATIONS_F32;
    o.isa = isa;
    o.device = device;
    o.ctx = 128;
    o.n_threads = 2;
    o.chunk = 16;
    o.n_logit_rows = 3;
    mft_ok(mf_engine_open(engine, &o, &err), &err);
    mft_ok(mf_session_open(session, *engine, &err), &err);
}

static void compare_forward(mf_engine *engine, mf_session *session, const mft_tensors *x)
{
    mf_error err;
    mf_model_info info;
    size_t n_ids, n_logits, n_hidden;
    const int32_t *ids = mft_tensors_get(x, "input_ids", "I32", &n_ids);
    const float *logits = mft_tensors_get(x, "logits", "F32", &n_logits);
    const float *hidden = mft_tensors_get(x, "hidden_states", "F32", &n_hidden);
    assert_non_null(ids);
    assert_non_null(logits);
    assert_non_null(hidden);
    mf_engine_info(engine, &info);
    assert_int_equal(n_logits, n_ids * info.n_vocab);
    assert_int_equal(n_hidden, (info.n_layers + 1) * n_ids * info.hidden);
    capture c = {malloc(n_logits * sizeof(float)), malloc(n_hidden * sizeof(float)), n_ids};
    mf_eval_outputs out = {sizeof out, take_logits, take_hidden, &c};
    mft_ok(mf_session_eval(session, ids, n_ids, &out, &err), &err);
    size_t per_layer = n_ids * info.hidden;
    for (size_t layer = 0; layer <= info.n_layers; layer++) {
        const float *want = hidden + layer * per_layer;
        double e =
            mft_worst(c.hidden + layer * per_layer, want, per_layer) / mft_spread(want, per_layer);
        if (!(e <= MFT_REFERENCE_LIMIT))
            fail_msg("hidden states after layer %zu: off by %.3g of their spread", layer, e);
    }
    double e = mft_worst(c.logits, logits, n_logits) / mft_spread(logits, n_logits);
    printf("  logits off by %.2g of their spread at most\n", e);
    if (!(e <= MFT_REFERENCE_LIMIT))
        fail_msg("logits: off by %.3g of their spread", e);
    free(c.logits);
    free(c.hidden);
}

/* Feeds the reference's tokens and looks at what would be chosen: one near-tie then doesn't spoil
 * what follows. */
static void compare_greedy(mf_session *session, const mft_tensors *x, uint32_t n_vocab)
{
    mf_error err;
    size_t n;
    const int32_t *ids = mft_tensors_get(x, "greedy_ids", "I32", &n);
    assert_non_null(ids);
    mf_session_reset(session);
    mft_ok(mf_session_eval(session, ids, n / 2, NULL, &err), &err);
    for (size_t i = n / 2; i < n; i++) {
        const float *logits = mf_session_logits(session);
        uint32_t best = 0;
        for (uint32_t j = 1; j < n_vocab; j++)
            if (logits[j] > logits[best])
                best = j;
        if ((int32_t)best != ids[i] && logits[best] - logits[ids[i]] >= 1e-3f)
            fail_msg("token %zu: %u instead of %d", i, best, ids[i]);
        if (i + 1 < n)
            mft_ok(mf_session_eval(session, &ids[i], 1, NULL, &err), &err);
    }
}

const char *mft_reference_hf(const char *family)
{
    char name[128];
    snprintf(name, sizeof name, "hf/%s", family);
    const char *folder = mft_oracle(name);
    if (!folder)
        mft_skip("no oracle %s", name);
    return folder;
}

void mft_reference_check(const char *folder, const char *isa, const char *device)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/expected.safetensors", folder);
    mft_tensors x;
    mft_tensors_open(&x, path);
    mf_engine *engine = NULL;
    mf_session *session = NULL;
    mf_model_info info;
    mft_reference_open(&engine, &session, folder, isa, device);
    mf_engine_info(engine, &info);
    printf("  %s, %s, kernels %s\n", info.family, info.weights, info.isa);
    compare_forward(engine, session, &x);
    compare_greedy(session, &x, info.n_vocab);
    mf_session_close(&session);
    mf_engine_close(&engine);
    mft_tensors_close(&x);
}
