/* The same weights give the same bits from Hugging Face's folder and from the BF16 GGUF that
 * convert writes of it, which has llama.cpp's norms, decays and head order. */
#include "fake/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_IDS 40

typedef struct capture {
    float *logits;
    size_t n_vocab, n;
} capture;

static bool take_logits(void *user, size_t index, const float *row, size_t n)
{
    capture *c = user;
    if (!c->logits) {
        c->n_vocab = n;
        c->logits = calloc(c->n * n, sizeof *c->logits);
    }
    memcpy(c->logits + index * n, row, n * sizeof *row);
    return true;
}

static capture logits_of(const char *path)
{
    mf_error err;
    mf_engine *engine = NULL;
    mf_session *session = NULL;
    int32_t ids[N_IDS];
    capture c = {.n = N_IDS};
    mf_engine_options o;
    mf_engine_options_default(&o);
    o.model_path = path;
    o.activations = MF_ACTIVATIONS_F32;
    o.n_threads = 1;
    o.ctx = 64;
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (i * 37 + 11) % 200;
    mft_ok(mf_engine_open(&engine, &o, &err), &err);
    mft_ok(mf_session_open(&session, engine, &err), &err);
    mf_eval_outputs out = {sizeof out, take_logits, NULL, &c};
    mft_ok(mf_session_eval(session, ids, N_IDS, &out, &err), &err);
    mf_session_close(&session);
    mf_engine_close(&engine);
    return c;
}

static void check_family(const char *family)
{
    mf_error err;
    char name[128], path[512];
    snprintf(name, sizeof name, "hf/%s", family);
    const char *folder = mft_oracle(name);
    if (!folder)
        mft_skip("no oracle %s", name);
    snprintf(path, sizeof path, "%s/%s.gguf", mft_tmpdir(), family);
    mf_convert_options o;
    mf_convert_options_default(&o);
    o.in_path = folder;
    o.out_path = path;
    o.type = "bf16";
    mft_ok(mf_convert(&o, &err), &err);
    capture a = logits_of(folder), b = logits_of(path);
    assert_int_equal(a.n_vocab, b.n_vocab);
    if (memcmp(a.logits, b.logits, N_IDS * a.n_vocab * sizeof *a.logits) != 0)
        fail_msg("%s: safetensors and GGUF give different logits", family);
    free(a.logits);
    free(b.logits);
}

static void qwen3_5_moe(void **state)
{
    (void)state;
    check_family("qwen3_5_moe_text");
}

static void qwen3_next(void **state)
{
    (void)state;
    check_family("qwen3_next");
}

static void qwen3_moe(void **state)
{
    (void)state;
    check_family("qwen3_moe");
}

static void qwen2_moe(void **state)
{
    (void)state;
    check_family("qwen2_moe");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qwen3_5_moe),
        cmocka_unit_test(qwen3_next),
        cmocka_unit_test(qwen3_moe),
        cmocka_unit_test(qwen2_moe),
    };
    return mft_run(tests);
}
