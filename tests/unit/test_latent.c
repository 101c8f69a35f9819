/* Latent attention's ways of being stored: FP8 in blocks, kv_b whole and split, files from before
 * it was split, layers for multi-token prediction. Each is held against another way of storing the
 * same numbers, or against the oracle. */
#include "fake/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/rng.h"
#include "fake/gguf_files.h"
#include "fake/model_files.h"
#include "fake/tensors.h"
#include "fake/tiny_latent.h"
#include "format/format.h"
#include "model/model.h"

#define N_IDS 40

typedef struct run {
    float *logits; /* [n][n_vocab] */
    size_t n_vocab;
} run;

static bool take_logits(void *user, size_t index, const float *row, size_t n)
{
    run *r = user;
    memcpy(r->logits + index * n, row, n * sizeof *row);
    return true;
}

static run eval(const char *path, const int32_t *ids, size_t n)
{
    mf_error err;
    mf_engine *engine = NULL;
    mf_session *session = NULL;
    mf_engine_options o;
    mf_model_info info;
    run r = {0};
    mf_engine_options_default(&o);
    o.model_path = path;
    o.activations = MF_ACTIVATIONS_F32;
    o.n_threads = 2;
    o.chunk = 16;
    mft_ok(mf_engine_open(&engine, &o, &err), &err);
    mft_ok(mf_session_open(&session, engine, &err), &err);
    mf_engine_info(engine, &info);
    r.n_vocab = info.n_vocab;
    r.logits = malloc(n * r.n_vocab * sizeof *r.logits);
    assert_non_null(r.logits);
    mf_eval_outputs out = {sizeof out, take_logits, NULL, &r};
    mft_ok(mf_session_eval(session, ids, n, &out, &err), &err);
    mf_session_close(&session);
    mf_engine_close(&engine);
    return r;
}

static void some_ids(int32_t *ids, uint32_t n_vocab)
{
    mfi_rng rng = {99};
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (int32_t)mfi_rng_below(&rng, n_vocab);
}

/* The largest difference, relative to the deviation of b. */
static double apart(const run *a, const run *b, size_t n_tok)
{
    size_t n = n_tok * b->n_vocab;
    double sum = 0, sq = 0, most = 0;
    assert_int_equal(a->n_vocab, b->n_vocab);
    for (size_t i = 0; i < n; i++) {
        assert_true(isfinite(a->logits[i]));
        sum += b->logits[i];
        sq += (double)b->logits[i] * b->logits[i];
        most = fmax(most, fabs((double)a->logits[i] - b->logits[i]));
    }
    return most / sqrt(sq / (double)n - sum / (double)n * (sum / (double)n));
}

/* Two ways of storing one model. */
static void same_model(const mft_latent *a, const mft_latent *b, const char *what)
{
    int32_t ids[N_IDS];
    some_ids(ids, a->n_vocab);
    run x = eval(mft_latent_write(a), ids, N_IDS), y = eval(mft_latent_write(b), ids, N_IDS);
    double e = apart(&x, &y, N_IDS);
    printf("  %s: %.2g of their spread apart\n", what, e);
    if (!(e <= 2e-5))
        fail_msg("%s: logits are %g of their spread apart", what, e);
    free(x.logits);
    free(y.logits);
}

/* Heads that begin at a scale's rows stay FP8; others are decoded. */
static void fp8(void **state)
{
    (void)state;
    static const uint32_t dims[][2] = {{24, 20}, {128, 128}, {128, 256}, {192, 256}, {64, 64}};
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++) {
        char what[64];
        mft_latent a;
        mft_latent_default(&a);
        a.nope = dims[i][0];
        a.v_dim = dims[i][1];
        a.hidden = 136; /* a block and a bit */
        a.seed = i + 1;
        mft_latent b = a;
        a.fp8 = true;
        snprintf(what, sizeof what, "fp8, heads of %u and %u", a.nope, a.v_dim);
        same_model(&a, &b, what);
    }
}

static mfi_load load_of(const char *dir, mfi_role role)
{
    mf_error err;
    mfi_catalog *catalog = NULL;
    mfi_model *model = NULL;
    mft_ok(mfi_format_open(&catalog, dir, &err), &err);
    mft_ok(mfi_model_open(&model, catalog, &err), &err);
    mfi_load load = model->weights[(size_t)MFI_N_ROLES + role].load;
    mfi_model_close(&model);
    mfi_catalog_close(&catalog);
    return load;
}

static void fp8_kv_b(void **state)
{
    (void)state;
    mft_latent s;
    mft_latent_default(&s);
    s.fp8 = true;
    const char *dir = mft_latent_write(&s);
    assert_int_equal(load_of(dir, MFI_ROLE_LATENT_K), MFI_LOAD_DECODED);
    assert_int_equal(load_of(dir, MFI_ROLE_LATENT_V), MFI_LOAD_DECODED);
    assert_int_equal(load_of(dir, MFI_ROLE_LATENT_KV_A), MFI_LOAD_MATRIX);
    s.nope = s.v_dim = 128;
    dir = mft_latent_write(&s);
    assert_int_equal(load_of(dir, MFI_ROLE_LATENT_K), MFI_LOAD_MATRIX);
    assert_int_equal(load_of(dir, MFI_ROLE_LATENT_V), MFI_LOAD_MATRIX);
}

static void split_kv_b(void **state)
{
    (void)state;
    mft_latent a;
    mft_latent_default(&a);
    mft_latent b = a;
    b.split = true;
    same_model(&a, &b, "kv_b split");
    a.q_rank = b.q_rank = 0;
    same_model(&a, &b, "kv_b split, queries not compressed");
    b.split = false;
    b.halves = true;
    same_model(&a, &b, "pairs half a head apart, queries not compressed");
    a.q_rank = b.q_rank = 40;
    same_model(&a, &b, "pairs half a head apart");
}

/* ---- what can't be ---- */

static void refused(const char *path, mf_status status, const char *word)
{
    mf_error err = {0};
    mfi_catalog *catalog = NULL;
    mfi_model *model = NULL;
    mft_ok(mfi_format_open(&catalog, path, &err), &err);
    assert_int_equal(mfi_model_open(&model, catalog, &err), status);
    assert_null(model);
    if (!strstr(err.message, word))
        fail_msg("no \"%s\" in: %s", word, err.message);
    mfi_catalog_close(&catalog);
}

static void impossible(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value;
        mf_status status;
        const char *word;
    } cases[] = {
        {"kv_lora_rank", "null", MF_ERR_FORMAT, "kv_lora_rank"},
        {"kv_lora_rank", "0", MF_ERR_FORMAT, "kv_lora_rank"},
        {"kv_lora_rank", "1025", MF_ERR_FORMAT, "kv_lora_rank"},
        {"kv_lora_rank", "1020", MF_ERR_LIMIT, "at most 1024"},
        {"kv_lora_rank", "55", MF_ERR_TENSOR_SHAPE, "kv_a_proj_with_mqa"},
        {"q_lora_rank", "41", MF_ERR_TENSOR_SHAPE, "q_a_proj"},
        {"q_lora_rank", "null", MF_ERR_TENSOR_MISSING, "q_proj"},
        {"q_lora_rank", "4294967336", MF_ERR_FORMAT, "q_lora_rank"},
        {"qk_nope_head_dim", "1020", MF_ERR_LIMIT, "at most 1024"},
        {"qk_nope_head_dim", "23", MF_ERR_TENSOR_SHAPE, "q_b_proj"},
        {"qk_rope_head_dim", "7", MF_ERR_FORMAT, "rotary"},
        {"v_head_dim", "21", MF_ERR_TENSOR_SHAPE, "kv_b_proj"},
        {"num_attention_heads", "4", MF_ERR_TENSOR_SHAPE, "q_b_proj"},
        {"topk_method", "\"greedy\"", MF_ERR_UNSUPPORTED, "topk_method 'greedy'"},
        {"scoring_func", "\"tanh\"", MF_ERR_UNSUPPORTED, "tanh"},
        {"n_group", "5", MF_ERR_FORMAT, "groups"},
        {"rope_interleave", "3", MF_ERR_FORMAT, "rope_interleave"},
        {"mlp_layer_types", "[\"dense\",\"sparse\"]", MF_ERR_FORMAT, "3 layers"},
        {"mlp_layer_types", "[\"dense\",\"odd\",\"sparse\"]", MF_ERR_UNSUPPORTED, "'odd'"},
        {"mlp_layer_types", "[\"sparse\",\"sparse\",\"sparse\"]", MF_ERR_TENSOR_MISSING,
         "layers.0.mlp.gate"},
        {"mlp_layer_types", "[\"dense\",\"dense\",\"dense\"]", MF_ERR_UNSUPPORTED, "no layer"},
    };
    mft_latent s;
    mft_latent_default(&s);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *dir = mft_latent_write(&s);
        mft_latent_set(dir, cases[i].key, cases[i].value);
        refused(dir, cases[i].status, cases[i].word);
    }
    const char *v2 = mft_latent_write(&s);
    mft_latent_set(v2, "model_type", "\"deepseek_v2\"");
    mft_latent_set(v2, "scoring_func", "\"softmax\"");
    refused(v2, MF_ERR_UNSUPPORTED, "norm_topk_prob");
    mft_latent_set(v2, "norm_topk_prob", "false");
    refused(v2, MF_ERR_UNSUPPORTED, "topk_method 'noaux_tc'");
}

/* Listed layer by layer, the kinds are what they are by number. */
static void layer_types(void **state)
{
    (void)state;
    mft_latent s;
    mft_latent_default(&s);
    int32_t ids[N_IDS];
    some_ids(ids, s.n_vocab);
    const char *dir = mft_latent_write(&s);
    run a = eval(dir, ids, N_IDS);
    mft_latent_set(dir, "first_k_dense_replace", "0");
    mft_latent_set(dir, "mlp_layer_types", "[\"dense\",\"sparse\",\"sparse\"]");
    run b = eval(dir, ids, N_IDS);
    assert_memory_equal(a.logits, b.logits, N_IDS * a.n_vocab * sizeof *a.logits);
    free(a.logits);
    free(b.logits);
}

/* ---- GGUF from before kv_b was split ---- */

static void *bytes_of(const mfi_catalog *c, const char *name, size_t *len)
{
    mf_error err;
    uint32_t id = mfi_catalog_find(c, name);
    assert_true(id != MFI_TENSOR_NONE);
    const mfi_tensor *t = mfi_catalog_tensor(c, id);
    mfi_extent e = mfi_tensor_extent(t, 0, 0, mfi_tensor_rows(t));
    void *data = malloc(e.len);
    assert_non_null(data);
    *len = e.len;
    mft_ok(mfi_file_read(mfi_catalog_file(c, e.file), data, e.len, e.offset, &err), &err);
    return data;
}

/* The oracle's has one head of 128 and 128 columns over a latent of 512: the rows of its key, which
 * stand transposed, then those of its value. */
static void put_whole_kv_b(mft_gguf *g, const mfi_catalog *c, int layer)
{
    char name[64];
    size_t len;
    snprintf(name, sizeof name, "blk.%d.attn_k_b.weight", layer);
    float *k = bytes_of(c, name, &len), *whole = malloc(2 * len);
    assert_non_null(whole);
    assert_int_equal(len, 512 * 128 * 4);
    for (int l = 0; l < 512; l++)
        for (int d = 0; d < 128; d++)
            whole[d * 512 + l] = k[l * 128 + d];
    free(k);
    snprintf(name, sizeof name, "blk.%d.attn_v_b.weight", layer);
    float *v = bytes_of(c, name, &len);
    memcpy(whole + 512 * 128, v, len);
    free(v);
    snprintf(name, sizeof name, "blk.%d.attn_kv_b.weight", layer);
    mft_gguf_tensor(g, name, 0, 2, (const uint64_t[]){512, 256}, whole, 2 * len);
    free(whole);
}

/* As they were, but for a head's sizes, which had the plain names then. */
static void put_keys(mft_gguf *g, const mfi_json *meta)
{
    for (size_t i = 0; i < mfi_json_len(meta); i++) {
        const char *key;
        const mfi_json *v = mfi_json_member(meta, i, &key);
        const char *text = mfi_json_str(v, NULL);
        double number;
        bool flag;
        bool fraction =
            strstr(key, "freq_base") || strstr(key, "epsilon") || strstr(key, "weights_scale");
        if (strstr(key, "tokenizer") || strstr(key, ".key_length") || strstr(key, ".value_length"))
            continue;
        if (text)
            mft_gguf_str(g, key, text);
        else if (mfi_json_bool(v, &flag))
            mft_gguf_bool(g, key, flag);
        else if (mfi_json_f64(v, &number) && fraction)
            mft_gguf_f32(g, key, (float)number);
        else if (mfi_json_f64(v, &number))
            mft_gguf_u32(g, key, (uint32_t)number);
    }
    mft_gguf_u32(g, "deepseek2.attention.key_length", 192);
    mft_gguf_u32(g, "deepseek2.attention.value_length", 128);
}

static void put_tensors(mft_gguf *g, const mfi_catalog *c)
{
    for (uint32_t id = 0; id < mfi_catalog_n_tensors(c); id++) {
        const mfi_tensor *t = mfi_catalog_tensor(c, id);
        const char *name = mfi_catalog_name(c, id);
        uint64_t dims[MFI_MAX_DIMS];
        size_t len;
        if (strstr(name, "attn_k_b") || strstr(name, "attn_v_b"))
            continue;
        for (uint32_t d = 0; d < t->n_dims; d++)
            dims[d] = t->dims[t->n_dims - 1 - d];
        void *data = bytes_of(c, name, &len);
        mft_gguf_tensor(g, name, 0, t->n_dims, dims, data, len);
        free(data);
    }
    for (int layer = 0; layer < 2; layer++)
        put_whole_kv_b(g, c, layer);
}

static void whole_kv_b_gguf(void **state)
{
    (void)state;
    mf_error err;
    mfi_catalog *c = NULL;
    mft_gguf g = {0};
    const char *path = mft_unpack("gguf/archs/deepseek2.gguf", mft_folder()), *dir = mft_folder();
    if (!path)
        mft_skip("no oracle gguf, or no xz");
    char first[512];
    snprintf(first, sizeof first, "%s", path);
    mft_ok(mfi_format_open(&c, first, &err), &err);
    put_keys(&g, mfi_catalog_meta(c));
    put_tensors(&g, c);
    mfi_catalog_close(&c);
    mft_gguf_write(&g, dir, "old.gguf");
    mft_ok(mfi_format_open(&c, first, &err), &err);
    put_keys(&g, mfi_catalog_meta(c));
    mft_gguf_f32(&g, "deepseek2.attention.temperature_scale", 0.1f);
    put_tensors(&g, c);
    mfi_catalog_close(&c);
    mft_gguf_write(&g, dir, "warm.gguf");
    refused(mft_path(dir, "warm.gguf"), MF_ERR_UNSUPPORTED, "temperature_scale");
    int32_t ids[N_IDS];
    some_ids(ids, 128);
    run a = eval(mft_path(dir, "old.gguf"), ids, N_IDS), b = eval(first, ids, N_IDS);
    double e = apart(&a, &b, N_IDS);
    printf("  kv_b whole in GGUF: %.2g of their spread apart\n", e);
    assert_true(e <= 2e-5);
    free(a.logits);
    free(b.logits);
}

/* The layer behind the others changes nothing, and is told of. */
static bool collect(void *user, const char *bytes, size_t len)
{
    mfi_buf_append(user, bytes, len);
    return true;
}

static void prediction_layer(void **state)
{
    (void)state;
    mft_latent a;
    mft_latent_default(&a);
    mft_latent b = a;
    b.mtp = true;
    same_model(&a, &b, "a layer for multi-token prediction");
    mf_error err;
    mfi_buf out = {0};
    mft_ok(mf_inspect_write(mft_latent_write(&b), false, collect, &out, &err), &err);
    assert_non_null(strstr(out.data, "multi-token prediction"));
    out.len = 0;
    mft_ok(mf_inspect_write(mft_latent_write(&a), false, collect, &out, &err), &err);
    assert_null(strstr(out.data, "multi-token prediction"));
    out.len = 0;
    mft_ok(mf_inspect_write(mft_latent_write(&b), true, collect, &out, &err), &err);
    assert_non_null(strstr(out.data, "\"mtp_layers\":1,"));
    mfi_buf_free(&out);
}

/* ---- the oracle's model as FP8 ---- */

/* The test's own encoder: every code comes back, and what lies between goes to the nearer one. */
static void e4m3_codes(void **state)
{
    (void)state;
    for (int c = 0; c < 126; c++) {
        double a = (double)mft_e4m3((uint8_t)c), b = (double)mft_e4m3((uint8_t)(c + 1));
        assert_int_equal(mft_to_e4m3(a), c);
        assert_int_equal(mft_to_e4m3(-b), (c + 1) | 128);
        assert_int_equal(mft_to_e4m3(0.6 * a + 0.4 * b), c);
        assert_int_equal(mft_to_e4m3(0.4 * a + 0.6 * b), c + 1);
    }
}

static bool is_fp8_name(const char *name)
{
    return strstr(name, "_proj") != NULL; /* not embeddings, norms, routers, head */
}

typedef struct parts {
    mft_tensor list[2048];
    char names[2048][112];
    size_t n;
} parts;

static void put(parts *p, const char *name, const char *dtype, uint64_t d0, uint64_t d1, void *data)
{
    assert_true(p->n < 2048 && data);
    snprintf(p->names[p->n], sizeof p->names[0], "%s", name);
    p->list[p->n] = (mft_tensor){.name = p->names[p->n],
                                 .dtype = dtype,
                                 .n_dims = d1 ? 2 : 1,
                                 .dims = {d0, d1},
                                 .data = data};
    p->n++;
}

static float *widened(const mft_tensors *t, const char *name, uint64_t n)
{
    size_t words;
    float *out = malloc(n * sizeof *out);
    const uint16_t *half = mft_tensors_get(t, name, "BF16", &words);
    assert_non_null(out);
    if (!half) {
        const float *f = mft_tensors_get(t, name, "F32", &words);
        assert_non_null(f);
        memcpy(out, f, n * sizeof *out);
        return out;
    }
    for (uint64_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)half[i] << 16;
        memcpy(&out[i], &bits, 4);
    }
    return out;
}

/* Rounds `v` to FP8 as DeepSeek does: each block's largest magnitude becomes 448. */
static void to_fp8(float *v, uint64_t rows, uint64_t cols, uint8_t *codes, float *scales)
{
    uint64_t wide = (cols + 127) / 128;
    for (uint64_t b = 0; b < (rows + 127) / 128 * wide; b++) {
        uint64_t r0 = b / wide * 128, c0 = b % wide * 128;
        double most = 0;
        for (int pass = 0; pass < 2; pass++) {
            for (uint64_t r = r0; r < rows && r < r0 + 128; r++)
                for (uint64_t c = c0; c < cols && c < c0 + 128; c++) {
                    float *x = &v[r * cols + c];
                    if (pass == 0) {
                        most = fmax(most, fabs((double)*x));
                        continue;
                    }
                    codes[r * cols + c] = mft_to_e4m3((double)*x / (double)scales[b]);
                    *x = mft_e4m3(codes[r * cols + c]) * scales[b];
                }
            scales[b] = (float)(most / 448);
        }
    }
}

/* Both folders from one checkpoint: in FP8, and what that says as float32. */
static void write_fp8_pair(const char *folder, const char *fp8_dir, const char *f32_dir)
{
    mft_tensors t;
    parts *a = calloc(1, sizeof *a), *b = calloc(1, sizeof *b);
    assert_true(a && b);
    mft_tensors_open(&t, mft_path(folder, "model.safetensors"));
    for (size_t i = 0; i < mfi_json_len(t.header); i++) {
        const char *name;
        const mfi_json *shape = mfi_json_get(mfi_json_member(t.header, i, &name), "shape");
        int64_t d0, d1 = 0;
        if (!shape)
            continue;
        assert_true(mfi_json_i64(mfi_json_at(shape, 0), &d0));
        mfi_json_i64(mfi_json_at(shape, 1), &d1);
        uint64_t rows = (uint64_t)d0, cols = (uint64_t)d1, n = rows * (cols ? cols : 1);
        float *v = widened(&t, name, n);
        if (is_fp8_name(name)) {
            char scale_name[112];
            uint8_t *codes = malloc(n);
            uint64_t high = (rows + 127) / 128, wide = (cols + 127) / 128;
            float *scales = malloc(high * wide * sizeof *scales);
            assert_true(codes && scales);
            to_fp8(v, rows, cols, codes, scales);
            snprintf(scale_name, sizeof scale_name, "%s_scale_inv", name);
            put(a, name, "F8_E4M3", rows, cols, codes);
            put(a, scale_name, "F32", high, wide, scales);
        } else {
            float *copy = malloc(n * sizeof *copy);
            assert_non_null(copy);
            memcpy(copy, v, n * sizeof *copy);
            put(a, name, "F32", rows, cols, copy);
        }
        put(b, name, "F32", rows, cols, v);
    }
    mft_tensors_close(&t);
    mft_write_tensors(fp8_dir, "model.safetensors", a->list, a->n);
    mft_write_tensors(f32_dir, "model.safetensors", b->list, b->n);
    for (size_t i = 0; i < a->n; i++)
        free((void *)a->list[i].data);
    for (size_t i = 0; i < b->n; i++)
        free((void *)b->list[i].data);
    free(a);
    free(b);
}

static void fp8_oracle(void **state)
{
    (void)state;
    const char *folder = mft_oracle("hf/deepseek_v3");
    if (!folder)
        mft_skip("no oracle hf/deepseek_v3");
    char source[512];
    snprintf(source, sizeof source, "%s", folder);
    const char *fp8_dir = mft_folder(), *f32_dir = mft_folder();
    write_fp8_pair(source, fp8_dir, f32_dir);
    size_t len;
    char *config = (char *)mft_read(mft_path(source, "config.json"), &len);
    mft_write(f32_dir, "config.json", config, len);
    mfi_buf with = {0};
    mfi_buf_str(&with, "{\"quantization_config\":{\"quant_method\":\"fp8\",\"fmt\":\"e4m3\","
                       "\"weight_block_size\":[128,128]},");
    mfi_buf_append(&with, config + 1, len - 1); /* after its brace */
    mft_write(fp8_dir, "config.json", with.data, with.len);
    mft_tensors x;
    size_t n;
    mft_tensors_open(&x, mft_path(source, "expected.safetensors"));
    const int32_t *ids = mft_tensors_get(&x, "input_ids", "I32", &n);
    run a = eval(fp8_dir, ids, n), b = eval(f32_dir, ids, n);
    double e = apart(&a, &b, n);
    printf("  fp8 and its decoded form: %.2g of their spread apart\n", e);
    assert_true(e <= 2e-5);
    run c = {(float *)mft_tensors_get(&x, "logits", "F32", &len), a.n_vocab};
    double coarse = apart(&a, &c, n); /* it is FP8: not the model that it was made from */
    assert_true(coarse > 1e-3);
    mft_tensors_close(&x);
    mfi_buf_free(&with);
    free(config);
    free(a.logits);
    free(b.logits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(e4m3_codes),       cmocka_unit_test(fp8),
        cmocka_unit_test(fp8_kv_b),         cmocka_unit_test(split_kv_b),
        cmocka_unit_test(prediction_layer), cmocka_unit_test(fp8_oracle),
        cmocka_unit_test(whole_kv_b_gguf),  cmocka_unit_test(impossible),
        cmocka_unit_test(layer_types),
    };
    return mft_run(tests);
}
