/* Importance matrices: the sums against ones computed here from hidden states, collecting that
 * changes no bit of the answer, and rounding that is better where it matters. */
#include "fake/model_files.h"
#include "fake/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "format/format.h"
#include "quant/quant.h"

enum { N_IDS = 96, PIECE = 40 };

static const char *pocket(void)
{
    return mft_source("models/pocket-dictionary");
}

static mf_engine *open_engine(bool collect)
{
    mf_error err;
    mf_engine *engine = NULL;
    mf_engine_options o;
    mf_engine_options_default(&o);
    o.model_path = pocket();
    o.activations = MF_ACTIVATIONS_F32;
    o.ctx = 64;
    o.chunk = 16;
    o.n_threads = 2;
    o.collect_imatrix = collect;
    mft_ok(mf_engine_open(&engine, &o, &err), &err);
    return engine;
}

static int32_t *some_ids(mf_engine *engine, size_t *n)
{
    static const char text[] =
        "<|im_start|>user\nwhat does raster font mean<|im_end|>\n<|im_start|>assistant\nRaster "
        "font "
        "(noun): the font that is displayed on a computer "
        "screen.<|im_end|>\n<|im_start|>user\nGive "
        "me an example of the word fallen.<|im_end|>\n<|im_start|>assistant\nFor example: Fallen "
        "leaves covered the forest floor.<|im_end|>\n";
    mf_error err;
    int32_t *ids;
    mft_ok(
        mf_tokenizer_encode(mf_engine_tokenizer(engine), text, strlen(text), false, &ids, n, &err),
        &err);
    assert_true(*n > PIECE);
    return ids;
}

typedef struct hidden {
    float *rows; /* [n][width] of layer 0: the embeddings */
    size_t n, width;
} hidden;

static bool take_hidden(void *user, size_t layer, size_t index, const float *row, size_t width)
{
    hidden *h = user;
    (void)index;
    if (layer > 0)
        return true;
    h->rows = realloc(h->rows, (h->n + 1) * width * sizeof *row);
    memcpy(h->rows + h->n * width, row, width * sizeof *row);
    h->n++;
    h->width = width;
    return true;
}

static float *read_floats(const mfi_catalog *c, const char *name, uint64_t n)
{
    mf_error err;
    uint32_t id = mfi_catalog_find(c, name);
    if (id == MFI_TENSOR_NONE)
        fail_msg("no tensor %s", name);
    const mfi_tensor *t = mfi_catalog_tensor(c, id);
    uint64_t cols = mfi_tensor_cols(t), rows = mfi_tensor_rows(t), len = mfi_tensor_bytes(t, 0);
    assert_int_equal(rows * cols, n);
    char *raw = malloc(len);
    float *out = malloc(n * sizeof *out);
    mft_ok(mfi_file_read(mfi_catalog_file(c, t->file[0]), raw, len, t->offset[0], &err), &err);
    for (uint64_t r = 0; r < rows; r++) {
        const void *planes[MFI_MAX_PLANES] = {raw + r * mfi_quant_row_bytes(t->type, 0, cols)};
        mfi_dequant_row(t->type, planes, cols, out + r * cols);
    }
    free(raw);
    return out;
}

static const char *collect(void)
{
    mf_error err;
    size_t n;
    const char *path = mft_fresh("imatrix.gguf");
    mf_engine *engine = open_engine(true);
    int32_t *ids = some_ids(engine, &n);
    mft_ok(mf_imatrix_collect(engine, ids, n, PIECE, &err), &err);
    mft_ok(mf_imatrix_write(engine, path, "a text", &err), &err);
    assert_int_equal(mf_imatrix_write(engine, path, NULL, &err), MF_ERR_ARGUMENT); /* exists */
    mf_free(ids);
    mf_engine_close(&engine);
    return path;
}

/* What enters layer 0's first projections is the normed embedding, whatever came before. */
static void test_sums(void **state)
{
    (void)state;
    mf_error err;
    mfi_catalog *im = NULL, *model = NULL;
    mft_ok(mfi_format_open(&im, collect(), &err), &err);
    mft_ok(mfi_format_open(&model, pocket(), &err), &err);

    size_t n;
    hidden h = {0};
    mf_session *session;
    mf_engine *engine = open_engine(false);
    mf_model_info info;
    mf_engine_info(engine, &info);
    int32_t *ids = some_ids(engine, &n);
    mft_ok(mf_session_open(&session, engine, &err), &err);
    for (size_t at = 0; at < n; at += 64) {
        mf_eval_outputs out = {sizeof out, NULL, take_hidden, &h};
        mf_session_reset(session);
        mft_ok(mf_session_eval(session, ids + at, n - at < 64 ? n - at : 64, &out, &err), &err);
    }
    assert_int_equal(h.n, n);
    float *norm =
        read_floats(model, "language_model.model.layers.0.input_layernorm.weight", h.width);
    float *sums = read_floats(im, "blk.0.attn_qkv.weight.in_sum2", h.width);
    float *count = read_floats(im, "blk.0.attn_qkv.weight.counts", 1);
    assert_true(count[0] == (float)n);
    for (size_t c = 0; c < h.width; c++) {
        double want = 0;
        for (size_t t = 0; t < n; t++) {
            const float *x = h.rows + t * h.width;
            double square = 0;
            for (size_t i = 0; i < h.width; i++)
                square += (double)x[i] * x[i];
            double v = x[c] * norm[c] / sqrt(square / (double)h.width + 1e-6);
            want += v * v;
        }
        if (!(fabs(sums[c] - want) <= 1e-4 * want))
            fail_msg("column %zu: %g, but %g is right", c, (double)sums[c], want);
    }
    /* Every token chose top_k experts in every layer. */
    for (uint32_t layer = 0; layer < info.n_layers; layer++) {
        char name[64];
        double total = 0;
        snprintf(name, sizeof name, "blk.%u.ffn_down_exps.weight.counts", layer);
        float *counts = read_floats(im, name, info.n_experts);
        for (uint32_t e = 0; e < info.n_experts; e++)
            total += counts[e];
        assert_true(total == (double)(n * info.top_k));
        free(counts);
    }
    free(norm);
    free(sums);
    free(count);
    free(h.rows);
    mf_free(ids);
    mf_session_close(&session);
    mf_engine_close(&engine);
    mfi_catalog_close(&im);
    mfi_catalog_close(&model);
}

static float *last_logits(bool collecting, uint32_t *n_vocab)
{
    mf_error err;
    size_t n;
    mf_session *session;
    mf_model_info info;
    mf_engine *engine = open_engine(collecting);
    mf_engine_info(engine, &info);
    *n_vocab = info.n_vocab;
    int32_t *ids = some_ids(engine, &n);
    mft_ok(mf_session_open(&session, engine, &err), &err);
    mft_ok(mf_session_eval(session, ids, 50, NULL, &err), &err);
    float *logits = malloc(*n_vocab * sizeof *logits);
    memcpy(logits, mf_session_logits(session), *n_vocab * sizeof *logits);
    mf_free(ids);
    mf_session_close(&session);
    mf_engine_close(&engine);
    return logits;
}

static void test_same_answer(void **state)
{
    (void)state;
    uint32_t n;
    float *with = last_logits(true, &n), *without = last_logits(false, &n);
    assert_memory_equal(with, without, n * sizeof *with);
    free(with);
    free(without);
}

static double weighted_error(const float *a, const float *b, const float *sums, const float *counts,
                             uint32_t n, uint32_t rows, uint32_t cols)
{
    double total = 0;
    for (uint32_t e = 0; e < n; e++)
        for (uint64_t i = 0; i < (uint64_t)rows * cols && counts[e] > 0; i++) {
            uint64_t at = (uint64_t)e * rows * cols + i;
            double d = (double)a[at] - b[at];
            total += d * d * sums[e * cols + i % cols] / counts[e];
        }
    return total;
}

static mfi_catalog *convert(const char *type, const char *imatrix)
{
    mf_error err;
    const char *path = mft_fresh("m.gguf");
    mfi_catalog *c = NULL;
    mf_convert_options o;
    mf_convert_options_default(&o);
    o.in_path = pocket();
    o.out_path = path;
    o.type = type;
    o.imatrix_path = imatrix;
    o.n_threads = 2;
    mft_ok(mf_convert(&o, &err), &err);
    mft_ok(mfi_format_open(&c, path, &err), &err);
    return c;
}

static void test_rounding(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t n, rows, cols;
        double limit; /* of the weighted error, what may be left */
    } weights[] = {{"blk.0.ssm_out.weight", 1, 256, 256, 0.7},
                   {"blk.3.attn_output.weight", 1, 256, 256, 1},
                   {"blk.2.ffn_gate_exps.weight", 32, 128, 256, 1}};
    mf_error err;
    const char *path = collect();
    mfi_catalog *im = NULL, *exact = convert("f32", NULL);
    mft_ok(mfi_format_open(&im, path, &err), &err);
    mfi_catalog *plain = convert("q4_0", NULL), *better = convert("q4_0", path);
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
        uint32_t n = weights[i].n, rows = weights[i].rows, cols = weights[i].cols;
        uint64_t all = (uint64_t)n * rows * cols;
        char name[96];
        snprintf(name, sizeof name, "%s.in_sum2", weights[i].name);
        float *sums = read_floats(im, name, (uint64_t)n * cols);
        snprintf(name, sizeof name, "%s.counts", weights[i].name);
        float *counts = read_floats(im, name, n);
        float *x = read_floats(exact, weights[i].name, all);
        float *a = read_floats(plain, weights[i].name, all);
        float *b = read_floats(better, weights[i].name, all);
        double ratio = weighted_error(x, b, sums, counts, n, rows, cols) /
                       weighted_error(x, a, sums, counts, n, rows, cols);
        printf("  %s: %.3f of the weighted error\n", weights[i].name, ratio);
        if (!(ratio < weights[i].limit))
            fail_msg("%s: %.3f of the weighted error is left", weights[i].name, ratio);
        free(sums);
        free(counts);
        free(x);
        free(a);
        free(b);
    }
    mfi_catalog_close(&plain);
    mfi_catalog_close(&better);
    mfi_catalog_close(&im);
    mfi_catalog_close(&exact);
}

static void test_refusals(void **state)
{
    (void)state;
    mf_error err;
    int32_t id = 5;
    mf_engine *engine = open_engine(false);
    assert_int_equal(mf_imatrix_collect(engine, &id, 1, 0, &err), MF_ERR_STATE);
    assert_int_equal(mf_imatrix_write(engine, mft_fresh("none.gguf"), NULL, &err), MF_ERR_STATE);
    mf_engine_close(&engine);
    /* An importance matrix of another model. */
    const char *other = mft_oracle("hf/qwen3_5_moe_text");
    if (!other)
        return;
    mf_convert_options o;
    mf_convert_options_default(&o);
    o.in_path = other;
    o.out_path = mft_fresh("other.gguf");
    o.type = "q4_0";
    o.imatrix_path = collect();
    assert_int_equal(mf_convert(&o, &err), MF_ERR_TENSOR_SHAPE);
    assert_non_null(strstr(err.message, "in_sum2"));
}

static const char *collect_ids(const char *model)
{
    mf_error err;
    mf_engine *engine = NULL;
    const char *path = mft_fresh("ids.gguf");
    mf_engine_options o;
    mf_engine_options_default(&o);
    o.model_path = model;
    o.activations = MF_ACTIVATIONS_F32;
    o.ctx = 64;
    o.n_threads = 2;
    o.collect_imatrix = true;
    mft_ok(mf_engine_open(&engine, &o, &err), &err);
    int32_t ids[N_IDS];
    for (int i = 0; i < N_IDS; i++)
        ids[i] = i * 37 % 251;
    mft_ok(mf_imatrix_collect(engine, ids, N_IDS, PIECE, &err), &err);
    mft_ok(mf_imatrix_write(engine, path, NULL, &err), &err);
    mf_engine_close(&engine);
    return path;
}

/* The columns are in the order of GGUF's weights (tiled value heads) whatever the model came from.
 */
static void test_any_source(void **state)
{
    (void)state;
    static const char *const families[] = {"hf/qwen3_5_moe_text", "hf/qwen3_next", "hf/qwen2_moe"};
    mf_error err;
    if (!mft_oracle(families[0]))
        mft_skip("no oracle");
    for (size_t f = 0; f < 3; f++) {
        mf_convert_options o;
        mf_convert_options_default(&o);
        const char *in = mft_oracle(families[f]);
        o.in_path = in;
        o.out_path = mft_fresh("f32.gguf");
        o.type = "f32";
        mft_ok(mf_convert(&o, &err), &err);
        mft_same_file(collect_ids(in), collect_ids(o.out_path));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),     cmocka_unit_test(test_same_answer),
        cmocka_unit_test(test_rounding), cmocka_unit_test(test_any_source),
        cmocka_unit_test(test_refusals),
    };
    return mft_run(tests);
}
