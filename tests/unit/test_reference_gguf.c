/* GGUF models against llama.cpp: logits within the oracle's limits, argmax where its gap is wide
 * enough.
 *
 * With float activations the comparison is with llama.cpp on the same weights decoded to float32
 * (f32_activations), or with its plain logits where the weights are F32: NMSE at most 1e-6 for F32
 * files, 1e-5 otherwise. With 8-bit activations it is with llama.cpp's own, which quantises
 * differently: at most four times what it moves itself by doing so, and at least 1e-3. */
#include "fake/support.h"
#include "fake/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "os/file.h"

typedef struct capture {
    float *logits;
    size_t n_vocab;
} capture;

static bool take_logits(void *user, size_t index, const float *row, size_t n)
{
    capture *c = user;
    memcpy(c->logits + index * n, row, n * sizeof *row);
    return true;
}

/* Unpacks an .xz of the oracle into this test's folder. */
static const char *unpack(const char *name, const char *as)
{
    const char *packed = mft_oracle(name);
    assert_non_null(packed);
    const char *path = mft_unxz(packed, as);
    assert_non_null(path);
    return path;
}

static mfi_json *expected_of(const char *name)
{
    mf_error err;
    mfi_json *root = NULL;
    const char *path = mft_oracle(name);
    assert_non_null(path);
    mft_ok(mfi_json_parse_file(path, 64 * 1024 * 1024, &root, &err), &err);
    return root;
}

static size_t ids_of(const mfi_json *expected, int32_t *ids, size_t cap)
{
    const mfi_json *list = mfi_json_get(expected, "input_ids");
    size_t n = mfi_json_len(list);
    assert_true(n > 0 && n <= cap);
    for (size_t i = 0; i < n; i++) {
        int64_t v;
        assert_true(mfi_json_i64(mfi_json_at(list, i), &v));
        ids[i] = (int32_t)v;
    }
    return n;
}

/* NMSE over all positions that the oracle gives logits for. */
static double nmse(const capture *c, const mfi_json *logits)
{
    double diff = 0, ref = 0;
    assert_true(mfi_json_len(logits) > 0);
    for (size_t i = 0; i < mfi_json_len(logits); i++) {
        const char *key;
        const mfi_json *row = mfi_json_member(logits, i, &key);
        size_t pos = strtoul(key, NULL, 10);
        assert_int_equal(mfi_json_len(row), c->n_vocab);
        for (size_t j = 0; j < c->n_vocab; j++) {
            double want = 0, got = c->logits[pos * c->n_vocab + j];
            assert_true(mfi_json_f64(mfi_json_at(row, j), &want));
            diff += (got - want) * (got - want);
            ref += want * want;
        }
    }
    return diff / ref;
}

static void check_argmax(const capture *c, const mfi_json *expected, const mfi_json *gaps, size_t n,
                         double least_gap)
{
    const mfi_json *argmax = mfi_json_get(expected, "argmax");
    for (size_t t = 0; t < n; t++) {
        const float *row = c->logits + t * c->n_vocab;
        int64_t want;
        double gap = 0;
        size_t best = 0;
        for (size_t j = 1; j < c->n_vocab; j++)
            if (row[j] > row[best])
                best = j;
        assert_true(mfi_json_i64(mfi_json_at(argmax, t), &want));
        mfi_json_f64(mfi_json_at(gaps, t), &gap);
        if ((int64_t)best != want && gap > least_gap)
            fail_msg("position %zu: token %zu instead of %lld (gap %g)", t, best, (long long)want,
                     gap);
    }
}

static void eval(const char *path, mf_activations activations, const int32_t *ids, size_t n,
                 capture *c)
{
    mf_error err;
    mf_engine *engine = NULL;
    mf_session *session = NULL;
    mf_model_info info;
    mf_engine_options o;
    mf_engine_options_default(&o);
    o.model_path = path;
    o.activations = activations;
    o.n_threads = 1;
    mft_ok(mf_engine_open(&engine, &o, &err), &err);
    mft_ok(mf_session_open(&session, engine, &err), &err);
    mf_engine_info(engine, &info);
    c->n_vocab = info.n_vocab;
    c->logits = calloc(n * info.n_vocab, sizeof *c->logits);
    mf_eval_outputs out = {sizeof out, take_logits, NULL, c};
    mft_ok(mf_session_eval(session, ids, n, &out, &err), &err);
    mf_session_close(&session);
    mf_engine_close(&engine);
}

static void check_f32(const char *path, const mfi_json *expected, bool float_file)
{
    int32_t ids[512];
    size_t n = ids_of(expected, ids, 512);
    const mfi_json *f32 = mfi_json_get(expected, "f32_activations");
    const mfi_json *reference = f32 ? f32 : expected;
    double limit = float_file ? 1e-6 : 1e-5;
    capture c;
    eval(path, MF_ACTIVATIONS_F32, ids, n, &c);
    double e = nmse(&c, mfi_json_get(reference, "logits"));
    printf("  f32 activations: NMSE %.2g\n", e);
    if (!(e <= limit))
        fail_msg("%s: NMSE %g with float activations", path, e);
    const mfi_json *gaps = mfi_json_get(reference, "top2_gap");
    check_argmax(&c, reference, gaps ? gaps : mfi_json_get(expected, "top2_gap"), n, 0.02);
    free(c.logits);
}

static void check_q8(const char *path, const mfi_json *expected)
{
    int32_t ids[512];
    size_t n = ids_of(expected, ids, 512);
    double moved = 0;
    mfi_json_f64(mfi_json_get(mfi_json_get(expected, "f32_activations"), "nmse_to_logits"), &moved);
    double limit = 4 * moved > 1e-3 ? 4 * moved : 1e-3;
    capture c;
    eval(path, MF_ACTIVATIONS_Q8, ids, n, &c);
    double e = nmse(&c, mfi_json_get(expected, "logits"));
    printf("  q8 activations: NMSE %.2g of %.2g\n", e, limit);
    if (!(e <= limit))
        fail_msg("%s: NMSE %g with 8-bit activations", path, e);
    free(c.logits);
}

static void check(const char *folder, const char *name, bool float_file)
{
    char packed[128], expected_name[128], file[128];
    snprintf(packed, sizeof packed, "gguf/%s/%s.gguf.xz", folder, name);
    snprintf(expected_name, sizeof expected_name, "gguf/%s/%s.expected.json", folder, name);
    snprintf(file, sizeof file, "%s.gguf", name);
    const char *path = unpack(packed, file);
    assert_non_null(path);
    printf("%s\n", name);
    mfi_json *expected = expected_of(expected_name);
    check_f32(path, expected, float_file);
    if (!float_file)
        check_q8(path, expected);
    mfi_json_free(&expected);
    remove(path);
}

static void need_oracle(void)
{
    if (!mft_oracle("gguf") || system("command -v xz >/dev/null") != 0)
        mft_skip("no oracle gguf, or no xz");
}

static void architectures(void **state)
{
    static const char *const names[] = {
        "qwen2moe",
        "qwen3moe",
        "qwen3next",
        "qwen35moe",
        "qwen35moe-gqa",
        "llama",
        "olmoe",
        "glm4moe",
        "minimax-m2",
        "granitemoe",
        "dots1",
        "deepseek2",
        "deepseek2-grouped",
        "deepseek2-softmax",
        "deepseek",
        "gpt-oss",
        "gpt-oss-gqa",
        "ernie4_5-moe",
        "hunyuan-moe",
        "exaone-moe",
        "bailingmoe",
        "bailingmoe2",
        "bailingmoe2-grouped",
    };
    (void)state;
    need_oracle();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        check("archs", names[i], true);
}

static void quantised_models(void **state)
{
    static const char *const names[] = {
        "BF16",  "F16",  "IQ1_S",  "IQ2_S", "IQ2_XXS", "IQ3_S",  "IQ3_XXS", "IQ4_XS", "MXFP4_MOE",
        "NVFP4", "Q2_K", "Q3_K_M", "Q4_0",  "Q4_K_M",  "Q5_K_M", "Q6_K",    "Q8_0"};
    (void)state;
    need_oracle();
    check("models", "qwen3moe-F32", true);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char name[64];
        snprintf(name, sizeof name, "qwen3moe-%s", names[i]);
        check("models", name, false);
    }
}

/* The shards give the bits of the whole file. */
static void split_model(void **state)
{
    (void)state;
    need_oracle();
    char whole[512], first[512] = "";
    snprintf(whole, sizeof whole, "%s", unpack("gguf/models/qwen3moe-Q4_0.gguf.xz", "whole.gguf"));
    for (int i = 3; i >= 1; i--) {
        char name[96], file[64];
        snprintf(file, sizeof file, "qwen3moe-Q4_0-0000%d-of-00003.gguf", i);
        snprintf(name, sizeof name, "gguf/split/%s.xz", file);
        const char *path = unpack(name, file);
        assert_non_null(path);
        snprintf(first, sizeof first, "%s", path);
    }
    mfi_json *expected = expected_of("gguf/models/qwen3moe-Q4_0.expected.json");
    int32_t ids[512];
    size_t n = ids_of(expected, ids, 512);
    capture a, b;
    eval(whole, MF_ACTIVATIONS_F32, ids, n, &a);
    eval(first, MF_ACTIVATIONS_F32, ids, n, &b);
    assert_memory_equal(a.logits, b.logits, n * a.n_vocab * sizeof(float));
    free(a.logits);
    free(b.logits);
    mfi_json_free(&expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(architectures),
        cmocka_unit_test(quantised_models),
        cmocka_unit_test(split_model),
    };
    return mft_run(tests);
}
