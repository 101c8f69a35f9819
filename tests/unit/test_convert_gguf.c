/* Conversion to GGUF: what is computed from the file is, to the bit, what is computed from its
 * source; the file keeps the promises of every output. That llama.cpp reads it, too, is checked by
 * tools/llama_compare.py. */
#include "fake/evaluate.h"
#include "fake/model_files.h"
#include "fake/support.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/limits.h"
#include "format/format.h"
#include "quant/quant.h"

static mf_convert_options options_for(const char *in, const char *out, const char *type)
{
    mf_convert_options o;
    mf_convert_options_default(&o);
    o.in_path = in;
    o.out_path = out;
    o.type = type;
    o.n_threads = 2;
    return o;
}

static const char *convert(const char *in, const char *type)
{
    mf_error err;
    const char *out = mft_fresh("m.gguf");
    mf_convert_options o = options_for(in, out, type);
    mft_ok(mf_convert(&o, &err), &err);
    return out;
}

/* ---- what is computed ---- */

/* Every tensor of two GGUF files has the same bytes. */
static void assert_same_tensors(const char *path_a, const char *path_b)
{
    mf_error err;
    mfi_catalog *a = NULL, *b = NULL;
    mft_ok(mfi_format_open(&a, path_a, &err), &err);
    mft_ok(mfi_format_open(&b, path_b, &err), &err);
    assert_int_equal(mfi_catalog_n_tensors(a), mfi_catalog_n_tensors(b));
    for (uint32_t id = 0; id < mfi_catalog_n_tensors(a); id++) {
        const char *name = mfi_catalog_name(a, id);
        uint32_t other = mfi_catalog_find(b, name);
        assert_int_not_equal(other, MFI_TENSOR_NONE);
        const mfi_tensor *ta = mfi_catalog_tensor(a, id), *tb = mfi_catalog_tensor(b, other);
        uint64_t len = mfi_tensor_bytes(ta, 0);
        assert_int_equal(len, mfi_tensor_bytes(tb, 0));
        assert_int_equal(ta->n_dims, tb->n_dims);
        char *da = malloc(len + 1), *db = malloc(len + 1);
        mft_ok(mfi_file_read(mfi_catalog_file(a, 0), da, len, ta->offset[0], &err), &err);
        mft_ok(mfi_file_read(mfi_catalog_file(b, 0), db, len, tb->offset[0], &err), &err);
        if (memcmp(da, db, len) != 0)
            fail_msg("%s differs", name);
        free(da);
        free(db);
    }
    mfi_catalog_close(&a);
    mfi_catalog_close(&b);
}

static const char *const families[] = {"qwen2_moe", "qwen3_moe", "qwen3_next", "qwen3_5_moe_text"};

static const char *family(size_t i)
{
    char name[64];
    snprintf(name, sizeof name, "hf/%s", families[i]);
    return mft_oracle(name);
}

/* The weights of the checkpoints are bfloat16, so these types hold them exactly: same bits. Their
 * rows are shorter than 256, so the K types fall back to q8_0; it and q4_0 come near. */
static void test_same_bits(void **state)
{
    (void)state;
    static const struct {
        const char *type;
        double limit;
    } types[] = {{"f32", 0}, {"bf16", 0}, {"q8_0", 0.02}};
    if (!family(0))
        mft_skip("no oracle");
    for (size_t f = 0; f < 4; f++) {
        mft_logits want = mft_evaluate(family(f), 2);
        for (size_t t = 0; t < 3; t++) {
            mft_logits got = mft_evaluate(convert(family(f), types[t].type), 2);
            double e = mft_nmse(got, want);
            printf("  %s %s: NMSE %.2g\n", families[f], types[t].type, e);
            if (!(e <= types[t].limit))
                fail_msg("%s as %s: NMSE %g", families[f], types[t].type, e);
            free(got.values);
        }
        free(want.values);
    }
}

/* From GGUF to GGUF: the same file as in one step where the step between loses nothing, and the
 * tokenizer's keys come along. */
static void test_from_gguf(void **state)
{
    (void)state;
    if (!family(0))
        mft_skip("no oracle");
    for (size_t f = 0; f < 4; f++) {
        const char *exact = convert(family(f), "bf16");
        assert_same_tensors(convert(exact, "f32"), convert(family(f), "f32"));
        assert_same_tensors(convert(exact, "q4_0"), convert(family(f), "q4_0"));
    }
}

static const char *pocket(void)
{
    return mft_source("models/pocket-dictionary");
}

static const char *meta_str(const mfi_json *meta, const char *key)
{
    return mfi_json_str(mfi_json_get(meta, key), NULL);
}

/* The model that ships: MLX-quantised, with a tokenizer, rows of whole super-blocks and not. */
static void test_pocket(void **state)
{
    (void)state;
    mf_error err;
    const char *f32 = convert(pocket(), "f32"), *q4 = convert(pocket(), "q4_k");
    mft_logits want = mft_evaluate(pocket(), 2), exact = mft_evaluate(f32, 2),
               coarse = mft_evaluate(q4, 2);
    double e = mft_nmse(exact, want), e4 = mft_nmse(coarse, want);
    printf("  f32: NMSE %.2g, q4_k: NMSE %.2g\n", e, e4);
    assert_true(
        e == 0); /* the same bits: q * scale + bias in float is what the engine multiplies with */
    assert_true(e4 < 0.15);
    free(want.values);
    free(exact.values);
    free(coarse.values);

    mfi_catalog *c = NULL;
    mft_ok(mfi_format_open(&c, q4, &err), &err);
    const mfi_json *meta = mfi_catalog_meta(c);
    int64_t n;
    assert_string_equal(meta_str(meta, "general.architecture"), "qwen35moe");
    assert_string_equal(meta_str(meta, "tokenizer.ggml.model"), "gpt2");
    assert_string_equal(meta_str(meta, "tokenizer.ggml.pre"), "qwen35");
    assert_non_null(strstr(meta_str(meta, "tokenizer.chat_template"), "<|im_start|>assistant"));
    assert_true(mfi_json_i64(mfi_json_get(meta, "tokenizer.ggml.eos_token_id"), &n) && n == 8191);
    assert_true(mfi_json_i64(mfi_json_get(meta, "qwen35moe.full_attention_interval"), &n) &&
                n == 4);
    mfi_meta_array tokens, merges;
    assert_true(mfi_catalog_meta_array(c, "tokenizer.ggml.tokens", &tokens));
    assert_true(mfi_catalog_meta_array(c, "tokenizer.ggml.merges", &merges));
    assert_int_equal(tokens.n, 8192);
    assert_int_equal(merges.n, 7933);
    static const struct {
        const char *name;
        mfi_qtype type;
    } types[] = {{"token_embd.weight", {MFI_Q_GGML, 14, 0, 0}},
                 {"blk.0.ffn_gate_exps.weight", {MFI_Q_GGML, 12, 0, 0}},
                 {"blk.0.ffn_down_exps.weight", {MFI_Q_GGML, 8, 0, 0}}, /* rows of 128 */
                 {"blk.0.ssm_alpha.weight", {MFI_Q_GGML, 8, 0, 0}},
                 {"blk.0.ffn_gate_inp.weight", {MFI_Q_F32, 32, 0, 0}},
                 {"blk.0.ssm_conv1d.weight", {MFI_Q_F32, 32, 0, 0}}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        uint32_t id = mfi_catalog_find(c, types[i].name);
        assert_int_not_equal(id, MFI_TENSOR_NONE);
        assert_true(mfi_qtype_equal(mfi_catalog_tensor(c, id)->type, types[i].type));
    }
    mfi_catalog_close(&c);

    const char *again = convert(f32, "q8_0"); /* hands the tokenizer on */
    assert_same_tensors(again, convert(pocket(), "q8_0"));
    mft_ok(mfi_format_open(&c, again, &err), &err);
    assert_true(mfi_catalog_meta_array(c, "tokenizer.ggml.tokens", &tokens));
    assert_int_equal(tokens.n, 8192);
    assert_string_equal(meta_str(mfi_catalog_meta(c), "tokenizer.ggml.pre"), "qwen35");
    mfi_catalog_close(&c);
}

static void test_threads_and_memory(void **state)
{
    (void)state;
    mf_error err;
    const char *a = mft_fresh("t1.gguf"), *b = mft_fresh("t5.gguf");
    mf_convert_options o = options_for(pocket(), a, "q4_0");
    o.n_threads = 1;
    o.memory_bytes = 40000; /* a row or two at a time */
    mft_ok(mf_convert(&o, &err), &err);
    o.out_path = b;
    o.n_threads = 5;
    o.memory_bytes = 0;
    mft_ok(mf_convert(&o, &err), &err);
    mft_same_file(a, b);
}

/* ---- refusals ---- */

static bool cancel_later(void *user, const char *what, const char *unit, uint64_t done,
                         uint64_t total)
{
    (void)what, (void)unit, (void)total;
    (void)user;
    return done == 0;
}

static void test_refusals(void **state)
{
    (void)state;
    mf_error err;
    size_t before = mft_n_entries(mft_tmpdir());
    const char *out = mft_fresh("no.gguf");

    mf_convert_options o = options_for(pocket(), out, "q5_k");
    assert_int_equal(mf_convert(&o, &err), MF_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "q4_k"));

    o = options_for(pocket(), out, "q8_0");
    o.memory_bytes = 1000;
    assert_int_equal(mf_convert(&o, &err), MF_ERR_BUDGET);

    o = options_for(pocket(), out, "q8_0");
    o.imatrix_path = mft_source("models/pocket-dictionary");
    assert_int_equal(mf_convert(&o, &err), MF_ERR_FORMAT);
    assert_non_null(strstr(err.message, "importance matrix"));

    o = options_for(pocket(), out, "q8_0");
    o.progress = cancel_later;
    assert_int_equal(mf_convert(&o, &err), MF_ERR_CANCELLED);

    struct rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_IGN);
    small = old;
    small.rlim_cur = 1 << 20;
    setrlimit(RLIMIT_FSIZE, &small);
    o.progress = NULL;
    mf_status status = mf_convert(&o, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(status, MF_ERR_DISK_FULL);

    assert_int_equal(mft_n_entries(mft_tmpdir()), before);

    mft_ok(mf_convert(&o, &err), &err);
    assert_int_equal(mf_convert(&o, &err), MF_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "exists already"));
    assert_int_equal(mft_n_entries(mft_tmpdir()), before + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits), cmocka_unit_test(test_from_gguf),
        cmocka_unit_test(test_pocket),    cmocka_unit_test(test_threads_and_memory),
        cmocka_unit_test(test_refusals),
    };
    return mft_run(tests);
}
