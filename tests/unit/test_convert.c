/* The converter: against hashes of mlx-lm's own conversions, against the weights that went in, and
 * its promise that the output appears whole or not at all. */
#include "fake/support.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/rng.h"
#include "convert/convert.h"
#include "fake/model_files.h"
#include "fake/stored.h"

static const uint32_t widths[] = {2, 3, 4, 5, 6, 8};

static mf_convert_options options_for(const char *in, const char *out)
{
    mf_convert_options o;
    mf_convert_options_default(&o);
    o.in_path = in;
    o.out_path = out;
    return o;
}

/* ---- mlx-lm's own conversion ---- */

typedef struct stored { /* a tensor as the file has it */
    char name[200];
    uint32_t id, plane;
} stored;

static int by_name(const void *a, const void *b)
{
    return strcmp(((const stored *)a)->name, ((const stored *)b)->name);
}

static uint64_t fnv1a(uint64_t h, const void *data, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ ((const unsigned char *)data)[i]) * 0x100000001b3u;
    return h;
}

static uint64_t hash_of(const mfi_catalog *c)
{
    uint32_t n = mfi_catalog_n_tensors(c), n_stored = 0;
    stored *all = calloc(3 * n, sizeof *all);
    for (uint32_t id = 0; id < n; id++) {
        const char *name = mfi_catalog_name(c, id);
        static const char *const suffixes[] = {"weight", "scales", "biases"};
        for (uint32_t k = 0; k < mfi_quant_n_planes(mfi_catalog_tensor(c, id)->type); k++) {
            stored *s = &all[n_stored++];
            *s = (stored){.id = id, .plane = k};
            size_t stem = strlen(name) - (k ? strlen("weight") : 0);
            snprintf(s->name, sizeof s->name, "%.*s%s", (int)stem, name, k ? suffixes[k] : "");
        }
    }
    qsort(all, n_stored, sizeof *all, by_name);
    uint64_t h = 0xcbf29ce484222325u;
    for (uint32_t i = 0; i < n_stored; i++) {
        const mfi_tensor *t = mfi_catalog_tensor(c, all[i].id);
        unsigned char *data = mft_read_plane(c, t, all[i].plane);
        h = fnv1a(h, all[i].name, strlen(all[i].name));
        h = fnv1a(h, data, mfi_tensor_bytes(t, all[i].plane));
        free(data);
    }
    free(all);
    return h;
}

/* Converts to each width and group that the file says a hash of; `all`, or one group a width. */
static void compare_hashes(const char *in, const char *hashes, bool all)
{
    FILE *f = fopen(mft_source(hashes), "r");
    assert_non_null(f);
    uint32_t bits, group;
    unsigned long long want;
    int n = 0;
    for (; fscanf(f, "%u %u %llx", &bits, &group, &want) == 3; n++) {
        mf_convert_options o = options_for(in, mft_fresh("mlx"));
        mf_error err;
        if (!all && (n + n / 3) % 3 != 0)
            continue;
        o.bits = bits;
        o.group_size = group;
        /* Small buffers and shards must not show in the tensors. */
        o.memory_bytes = n % 2 ? 64 * MFI_KIB : 0;
        mft_ok(mfi_convert(&o, n % 3 ? MFI_GIB : 100 * MFI_KIB, &err), &err);
        mfi_catalog *c = mft_catalog_open(o.out_path);
        if (hash_of(c) != want)
            fail_msg("%s, %u bits, group %u: not what mlx-lm writes", in, bits, group);
        assert_true(!all || (n % 3 ? mfi_catalog_n_files(c) == 1 : mfi_catalog_n_files(c) > 2));
        mfi_catalog_close(&c);
    }
    fclose(f);
    assert_int_equal(n, 3 * MFI_ARRAY_LEN(widths));
}

static void same_bytes_as_mlx_lm(void **state)
{
    (void)state;
    if (!mft_oracle("hf/qwen3_5_moe_text"))
        mft_skip("no oracle");
    compare_hashes(mft_oracle("hf/qwen3_5_moe_text"), "tests/data/mlx-convert/qwen3_5_moe_text.txt",
                   true);
    static const char *const others[] = {"qwen3_next", "qwen3_moe",  "qwen2_moe",  "mixtral",
                                         "olmoe",      "glm4_moe",   "granitemoe", "dots1",
                                         "minimax_m2", "deepseek_v2"};
    for (size_t i = 0; i < MFI_ARRAY_LEN(others); i++) {
        char in[64], hashes[96];
        snprintf(in, sizeof in, "hf/%s", others[i]);
        snprintf(hashes, sizeof hashes, "tests/data/mlx-convert/%s.txt", others[i]);
        compare_hashes(mft_oracle(in), hashes, false);
    }
}

/* What mlx has quantised already: through mx.dequantize. */
static void quantised_input(void **state)
{
    (void)state;
    compare_hashes(mft_source("tests/data/mlx-tiny/q4g32"), "tests/data/mlx-convert/q4g32.txt",
                   false);
    compare_hashes(mft_source("tests/data/mlx-tiny/mixed-q3g32"),
                   "tests/data/mlx-convert/mixed-q3g32.txt", false);
}

/* ---- a model made here ---- */

/* One key head of 8, three value heads of 16: 48 columns, no whole groups. */
enum { HIDDEN = 64, WIDTH = 32, EXPERTS = 3, VOCAB = 10, V = 48, CONV = 2 * 8 + V, LAYERS = 2 };

typedef struct maker {
    FILE *data;
    char header[32768];
    size_t len;
    uint64_t at;
    mfi_rng rng;
    mfi_qkind kind;
} maker;

/* Appends a tensor of random values; skip names it away. */
static void put(maker *m, const char *skip, const char *name, uint32_t n_dims, ...)
{
    if (skip && strcmp(skip, name) == 0)
        return;
    va_list args;
    va_start(args, n_dims);
    uint64_t n = 1;
    m->len += (size_t)snprintf(m->header + m->len, sizeof m->header - m->len,
                               "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", m->len > 1 ? "," : "",
                               name, m->kind == MFI_Q_F32 ? "F32" : "F16");
    for (uint32_t d = 0; d < n_dims; d++) {
        uint32_t dim = va_arg(args, uint32_t);
        n *= dim;
        m->len += (size_t)snprintf(m->header + m->len, sizeof m->header - m->len, "%s%u",
                                   d ? "," : "", dim);
    }
    va_end(args);
    size_t width = m->kind == MFI_Q_F32 ? 4 : 2;
    m->len += (size_t)snprintf(m->header + m->len, sizeof m->header - m->len,
                               "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)m->at,
                               (unsigned long long)(m->at + n * width));
    assert_true(m->len < sizeof m->header - 512);
    m->at += n * width;
    for (uint64_t i = 0; i < n; i++) {
        float f = (float)(mfi_rng_unit(&m->rng) * 2 - 1);
        uint16_t h = mfi_f32_to_f16(f);
        fwrite(m->kind == MFI_Q_F32 ? (void *)&f : (void *)&h, width, 1, m->data);
    }
}

static void put_layer(maker *m, const char *skip, const char *prefix, int layer, bool fused)
{
    char name[128];
#define NAME(suffix) (snprintf(name, sizeof name, "%slayers.%d.%s", prefix, layer, suffix), name)
    put(m, skip, NAME("input_layernorm.weight"), 1, HIDDEN);
    put(m, skip, NAME("post_attention_layernorm.weight"), 1, HIDDEN);
    put(m, skip, NAME("linear_attn.norm.weight"), 1, 16);
    put(m, skip, NAME("linear_attn.A_log"), 1, 3);
    put(m, skip, NAME("linear_attn.dt_bias"), 1, 3);
    put(m, skip, NAME("linear_attn.conv1d.weight"), 3, CONV, 1, 4);
    put(m, skip, NAME("linear_attn.in_proj_qkv.weight"), 2, CONV, HIDDEN);
    put(m, skip, NAME("linear_attn.in_proj_z.weight"), 2, V, HIDDEN);
    put(m, skip, NAME("linear_attn.in_proj_a.weight"), 2, 3, HIDDEN);
    put(m, skip, NAME("linear_attn.in_proj_b.weight"), 2, 3, HIDDEN);
    put(m, skip, NAME("linear_attn.out_proj.weight"), 2, HIDDEN, V);
    put(m, skip, NAME("mlp.gate.weight"), 2, EXPERTS, HIDDEN);
    put(m, skip, NAME("mlp.shared_expert_gate.weight"), 2, 1, HIDDEN);
    put(m, skip, NAME("mlp.shared_expert.gate_proj.weight"), 2, WIDTH, HIDDEN);
    put(m, skip, NAME("mlp.shared_expert.up_proj.weight"), 2, WIDTH, HIDDEN);
    put(m, skip, NAME("mlp.shared_expert.down_proj.weight"), 2, HIDDEN, WIDTH);
    if (fused) {
        put(m, skip, NAME("mlp.experts.gate_up_proj"), 3, EXPERTS, 2 * WIDTH, HIDDEN);
        put(m, skip, NAME("mlp.experts.down_proj"), 3, EXPERTS, HIDDEN, WIDTH);
    }
    for (int e = EXPERTS - 1; e >= 0 && !fused; e--) {
        char suffix[64];
        snprintf(suffix, sizeof suffix, "mlp.experts.%d.gate_proj.weight", e);
        put(m, skip, NAME(suffix), 2, WIDTH, HIDDEN);
        snprintf(suffix, sizeof suffix, "mlp.experts.%d.up_proj.weight", e);
        put(m, skip, NAME(suffix), 2, WIDTH, HIDDEN);
        snprintf(suffix, sizeof suffix, "mlp.experts.%d.down_proj.weight", e);
        put(m, skip, NAME(suffix), 2, HIDDEN, WIDTH);
    }
#undef NAME
}

static void put_text(const char *dir, const char *name, const char *text)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

#define SHAPE_BUT_EXPERTS                                                                          \
    "\"num_hidden_layers\": 2, \"hidden_size\": 64, \"vocab_size\": 10, "                          \
    "\"num_attention_heads\": 2, \"head_dim\": 16, \"num_experts_per_tok\": 2, "                   \
    "\"moe_intermediate_size\": 32, \"shared_expert_intermediate_size\": 32, "                     \
    "\"linear_num_key_heads\": 1, \"linear_num_value_heads\": 3, \"linear_key_head_dim\": 8, "     \
    "\"linear_value_head_dim\": 16, \"rms_norm_eps\": 1e-06"
#define TEXT_CONFIG "\"num_experts\": 3, " SHAPE_BUT_EXPERTS ", \"tie_word_embeddings\": "
#define EXPERTS_CONFIG(n)                                                                          \
    "{\"model_type\": \"qwen3_5_moe_text\", \"num_experts\": " n ", " SHAPE_BUT_EXPERTS "}"

typedef struct spec {
    bool nested, fused;
    mfi_qkind kind;
    const char *skip;   /* a tensor to leave out */
    const char *extra;  /* a tensor to add */
    const char *config; /* instead of the usual one */
} spec;

static const char *make_model(spec s)
{
    const char *dir = mft_fresh("in");
    assert_int_equal(mkdir(dir, 0755), 0);
    const char *prefix = s.nested ? "model.language_model." : "model.";
    char path[1024], name[128];
    static maker m;
    m = (maker){.rng = {77}, .kind = s.kind ? s.kind : MFI_Q_F16, .header = "{", .len = 1};
    m.data = tmpfile();
    snprintf(name, sizeof name, "%sembed_tokens.weight", prefix);
    put(&m, s.skip, name, 2, VOCAB, HIDDEN);
    snprintf(name, sizeof name, "%snorm.weight", prefix);
    put(&m, s.skip, name, 1, HIDDEN);
    put(&m, s.skip, "lm_head.weight", 2, VOCAB, HIDDEN);
    for (int layer = 0; layer < LAYERS; layer++)
        put_layer(&m, s.skip, prefix, layer, s.fused);
    if (s.nested) {
        put(&m, s.skip, "model.visual.patch_embed.proj.weight", 5, 4, 3, 2, 2, 2);
        put(&m, s.skip, "mtp.fc.weight", 2, 4, 4);
    }
    if (s.extra)
        put(&m, NULL, s.extra, 1, 4);
    m.header[m.len++] = '}';
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    FILE *f = fopen(path, "wb");
    uint64_t len = m.len;
    fwrite(&len, 8, 1, f); /* the tests run on little-endian machines */
    fwrite(m.header, 1, m.len, f);
    rewind(m.data);
    for (int c; (c = getc(m.data)) != EOF;)
        putc(c, f);
    fclose(f);
    fclose(m.data);
    put_text(dir, "config.json",
             s.config   ? s.config
             : s.nested ? "{\"model_type\": \"qwen3_5_moe\", \"vision_config\": {\"depth\": 1}, "
                          "\"odd\": 1.50, \"text_config\": {" TEXT_CONFIG "false}}"
                        : "{\"model_type\": \"qwen3_5_moe_text\", " TEXT_CONFIG "true}");
    put_text(dir, "tokenizer.json", "{\"a\": 1}");
    put_text(dir, "LICENSE.Some", "free");
    put_text(dir, "chat_template.jinja", "{{ x }}");
    put_text(dir, "README.md", "# r");
    put_text(dir, "training.log", "not copied");
    char inside[600];
    snprintf(inside, sizeof inside, "%s/additional_chat_templates", dir);
    assert_int_equal(mkdir(inside, 0755), 0);
    put_text(inside, "tool_use.jinja", "{{ tools }}");
    put_text(inside, "notes.txt", "not copied");
    return dir;
}

/* ---- reading back ---- */

/* Row `row` of what `name` of the output came from, as it was stored in the input. */
static void source_row(const mfi_catalog *in, const char *name, uint64_t row,
                       uint64_t rows_of_expert, uint64_t cols, float *out)
{
    char text[256], source[300] = "";
    assert_int_equal(strncmp(name, "language_model.", 15), 0);
    snprintf(text, sizeof text, "%s", name + 15);
    char *at = strstr(text, "switch_mlp."), *proj = at ? at + 11 : NULL;
    uint32_t id = MFI_TENSOR_NONE;
    static const char *const wrappers[] = {"", "language_model."};
    for (int w = 0; w < 2 && id == MFI_TENSOR_NONE; w++) {
        /* "model.layers..." is "model.language_model.layers..." in multimodal checkpoints. */
        bool inner = strncmp(text, "model.", 6) == 0;
        int stem = at ? (int)(at - text) - 6 : (int)strlen(text) - 6;
        uint64_t e = row / rows_of_expert, r = row % rows_of_expert;
        if (!inner) {
            id = mfi_catalog_find(in, text);
        } else if (!at) {
            snprintf(source, sizeof source, "model.%s%s", wrappers[w], text + 6);
            id = mfi_catalog_find(in, source);
        } else {
            snprintf(source, sizeof source, "model.%s%.*sexperts.%d.%s", wrappers[w], stem,
                     text + 6, (int)e, proj);
            if ((id = mfi_catalog_find(in, source)) != MFI_TENSOR_NONE) {
                row = r;
                break;
            }
            bool down = strncmp(proj, "down", 4) == 0;
            snprintf(source, sizeof source, "model.%s%.*sexperts.%s", wrappers[w], stem, text + 6,
                     down ? "down_proj" : "gate_up_proj");
            if ((id = mfi_catalog_find(in, source)) == MFI_TENSOR_NONE)
                continue;
            if (!down)
                row = e * 2 * rows_of_expert + (proj[0] == 'u' ? rows_of_expert : 0) + r;
        }
    }
    if (id == MFI_TENSOR_NONE)
        fail_msg("%s: comes from nowhere", name);
    const mfi_tensor *t = mfi_catalog_tensor(in, id);
    unsigned char *data = mft_read_plane(in, t, 0);
    const void *planes[] = {data + row * cols * t->type.bits / 8};
    mfi_dequant_row(t->type, planes, cols, out);
    free(data);
}

static bool is_centred(const char *name)
{
    return strstr(name, "_layernorm.weight") || strstr(name, "_norm.weight") ||
           strcmp(name, "language_model.model.norm.weight") == 0;
}

static uint32_t code_at(const unsigned char *row, uint64_t i, uint32_t bits)
{
    uint32_t code = 0;
    for (uint32_t b = 0; b < bits; b++)
        code |= (uint32_t)(row[(i * bits + b) / 8] >> (i * bits + b) % 8 & 1) << b;
    return code;
}

static void check_quantised_row(const mfi_tensor *t, unsigned char *const planes[], uint64_t row,
                                const float *x, const char *name)
{
    uint64_t cols = mfi_tensor_cols(t);
    double ulp = t->type.scale == MFI_Q_F32 ? 1e-6 : t->type.scale == MFI_Q_F16 ? 0x1p-11 : 0x1p-8;
    for (uint64_t i = 0; i < cols; i++) {
        const unsigned char *at[3];
        for (uint32_t k = 0; k < 3; k++)
            at[k] = planes[k] + row * mfi_quant_row_bytes(t->type, k, cols);
        uint64_t g = i / t->type.group, width = t->type.scale == MFI_Q_F32 ? 4 : 2;
        float scale, bias;
        mfi_qtype narrow = mfi_qtype_float((mfi_qkind)t->type.scale);
        mfi_dequant_row(narrow, (const void *[]){at[1] + g * width}, 1, &scale);
        mfi_dequant_row(narrow, (const void *[]){at[2] + g * width}, 1, &bias);
        uint32_t code = code_at(at[0], i, t->type.bits);
        bool end = code == 0 || code == (1u << t->type.bits) - 1;
        double back = (double)code * (double)scale + (double)bias, step = fabs((double)scale);
        double allowed = step * (end ? 1.01 : 0.501) + (double)code * step * ulp + 1e-7;
        if (fabs(back - (double)x[i]) > allowed)
            fail_msg("%s: row %d, column %d: %g became %g, step %g", name, (int)row, (int)i,
                     (double)x[i], back, step);
    }
}

/* Every tensor of the output against what it came from. */
static void check_output(const mfi_catalog *in, const mfi_catalog *out)
{
    static float x[4096], got[4096];
    for (uint32_t id = 0; id < mfi_catalog_n_tensors(out); id++) {
        const mfi_tensor *t = mfi_catalog_tensor(out, id);
        const char *name = mfi_catalog_name(out, id);
        unsigned char *planes[3];
        uint64_t rows = mfi_tensor_rows(t), cols = mfi_tensor_cols(t);
        uint64_t rows_of_expert = t->n_dims == 3 ? t->dims[1] : rows;
        if (strstr(name, "conv1d")) {
            assert_int_equal(t->dims[2], 1);
            assert_int_equal(t->dims[1], 4);
            rows = 1;
            cols = (uint64_t)t->dims[0] * 4;
        }
        for (uint32_t k = 0; k < mfi_quant_n_planes(t->type); k++)
            planes[k] = mft_read_plane(out, t, k);
        assert_true(cols <= MFI_ARRAY_LEN(x));
        for (uint64_t row = 0; row < rows; row++) {
            source_row(in, name, row, rows_of_expert, cols, x);
            if (t->type.kind == MFI_Q_MLX) {
                check_quantised_row(t, planes, row, x, name);
                continue;
            }
            const void *p[] = {planes[0] + row * cols * t->type.bits / 8};
            mfi_dequant_row(t->type, p, cols, got);
            for (uint64_t i = 0; i < cols; i++) {
                float want = is_centred(name) ? x[i] + 1 : x[i];
                if (is_centred(name) && t->type.kind == MFI_Q_F16)
                    want = mfi_f16_to_f32(mfi_f32_to_f16(want));
                if (got[i] != want)
                    fail_msg("%s: %g, should be %g", name, (double)got[i], (double)want);
            }
        }
        for (uint32_t k = 0; k < mfi_quant_n_planes(t->type); k++)
            free(planes[k]);
    }
}

static mfi_qtype type_of(const mfi_catalog *c, const char *name)
{
    uint32_t id = mfi_catalog_find(c, name);
    if (id == MFI_TENSOR_NONE)
        fail_msg("%s: not in the output", name);
    return mfi_catalog_tensor(c, id)->type;
}

#define LAYER "language_model.model.layers.1."

static void keeps_the_weights(void **state)
{
    (void)state;
    for (int variant = 0; variant < 8; variant++) {
        spec s = {.nested = variant & 1,
                  .fused = variant & 2,
                  .kind = variant & 4 ? MFI_Q_F32 : MFI_Q_F16};
        const char *in_path = make_model(s);
        mfi_catalog *in = mft_catalog_open(in_path);
        for (size_t w = 0; w < MFI_ARRAY_LEN(widths); w++) {
            mf_convert_options o = options_for(in_path, mft_fresh("out"));
            mf_error err;
            o.bits = widths[w];
            o.dense_bits = widths[(w + 2) % 6];
            o.group_size = 32;
            mft_ok(mf_convert(&o, &err), &err);
            mfi_catalog *out = mft_catalog_open(o.out_path);
            /* Per layer 16 and 3 for the experts, embedding, norm, and the head unless it is tied.
             */
            assert_int_equal(mfi_catalog_n_tensors(out), LAYERS * 19 + 2 + (s.nested ? 1 : 0));
            check_output(in, out);
            const mfi_qtype dense = {MFI_Q_MLX, (uint8_t)o.dense_bits, (uint8_t)s.kind, 32};
            const mfi_qtype expert = {MFI_Q_MLX, (uint8_t)o.bits, (uint8_t)s.kind, 32};
            const mfi_qtype router = {MFI_Q_MLX, 8, (uint8_t)s.kind, 64};
            assert_true(
                mfi_qtype_equal(type_of(out, LAYER "linear_attn.in_proj_qkv.weight"), dense));
            assert_true(
                mfi_qtype_equal(type_of(out, "language_model.model.embed_tokens.weight"), dense));
            assert_true(
                mfi_qtype_equal(type_of(out, LAYER "mlp.switch_mlp.up_proj.weight"), expert));
            assert_true(mfi_qtype_equal(type_of(out, LAYER "mlp.gate.weight"), router));
            assert_int_equal(type_of(out, LAYER "linear_attn.out_proj.weight").kind, s.kind);
            mfi_catalog_close(&out);
        }
        mfi_catalog_close(&in);
    }
}

static void files_beside_the_weights(void **state)
{
    (void)state;
    for (int nested = 0; nested < 2; nested++) {
        mf_convert_options o = options_for(make_model((spec){.nested = nested}), mft_fresh("out"));
        mf_error err;
        mft_ok(mf_convert(&o, &err), &err);
        assert_int_equal(mft_n_entries(o.out_path), 7); /* config, weights, and 5 copied */
        char path[1024], *text;
        size_t len;
        snprintf(path, sizeof path, "%s/additional_chat_templates", o.out_path);
        assert_int_equal(mft_n_entries(path), 1);
        snprintf(path, sizeof path, "%s/additional_chat_templates/tool_use.jinja", o.out_path);
        mft_ok(mfi_file_read_all(path, 100, &text, &len, &err), &err);
        assert_string_equal(text, "{{ tools }}");
        free(text);
        snprintf(path, sizeof path, "%s/LICENSE.Some", o.out_path);
        mft_ok(mfi_file_read_all(path, 100, &text, &len, &err), &err);
        assert_string_equal(text, "free");
        free(text);
        snprintf(path, sizeof path, "%s/config.json", o.out_path);
        mft_ok(mfi_file_read_all(path, 1 << 20, &text, &len, &err), &err);
        assert_non_null(strstr(text, "1e-06")); /* numbers as they were */
        free(text);
        mfi_json *root;
        mft_ok(mfi_json_parse_file(path, 1 << 20, &root, &err), &err);
        assert_string_equal(mfi_json_str(mfi_json_get(root, "model_type"), NULL), "qwen3_5_moe");
        assert_false(mfi_json_has(root, "vision_config"));
        assert_int_equal(mfi_json_has(root, "text_config"), nested);
        for (int i = 0; i < 2; i++) {
            const mfi_json *q = mfi_json_get(root, i ? "quantization_config" : "quantization");
            const mfi_json *gate = mfi_json_get(q, LAYER "mlp.gate");
            int64_t bits = 0, group = 0, gate_bits = 0;
            assert_true(mfi_json_i64(mfi_json_get(q, "bits"), &bits));
            assert_true(mfi_json_i64(mfi_json_get(q, "group_size"), &group));
            assert_true(mfi_json_i64(mfi_json_get(gate, "bits"), &gate_bits));
            assert_int_equal(bits, 4);
            assert_int_equal(group, 64);
            assert_int_equal(gate_bits, 8);
        }
        mfi_json_free(&root);
        struct stat a, b; /* as any folder, not as mkdtemp's */
        const char *other = mft_fresh("folder");
        assert_int_equal(mkdir(other, 0777), 0);
        assert_int_equal(stat(o.out_path, &a), 0);
        assert_int_equal(stat(other, &b), 0);
        assert_int_equal(a.st_mode, b.st_mode);
    }
}

/* Reads a float tensor of a model by its name in MLX's layout. */
static float *read_floats(const mfi_catalog *c, const char *name, uint64_t *n)
{
    const mfi_tensor *t = mfi_catalog_tensor(c, mfi_catalog_find(c, name));
    uint64_t rows = mfi_tensor_rows(t), cols = mfi_tensor_cols(t);
    unsigned char *planes[3];
    *n = rows * cols;
    float *x = calloc(*n, sizeof *x);
    for (uint32_t k = 0; k < mfi_quant_n_planes(t->type); k++)
        planes[k] = mft_read_plane(c, t, k);
    for (uint64_t r = 0; r < rows; r++) {
        const void *p[3] = {0};
        for (uint32_t k = 0; k < mfi_quant_n_planes(t->type); k++)
            p[k] = planes[k] + r * mfi_quant_row_bytes(t->type, k, cols);
        mfi_dequant_row(t->type, p, cols, x + r * cols);
    }
    for (uint32_t k = 0; k < mfi_quant_n_planes(t->type); k++)
        free(planes[k]);
    return x;
}

/* MLX's own layout (stacked experts, norms with the 1 in them) in, the same again out: nothing is
 * added a second time. */
static void mlx_input(void **state)
{
    (void)state;
    const char *first = mft_fresh("first");
    mf_error err;
    mf_convert_options o = options_for(make_model((spec){.nested = true}), first);
    mft_ok(mf_convert(&o, &err), &err);
    o = options_for(first, mft_fresh("second"));
    o.bits = 8;
    o.group_size = 32;
    mft_ok(mf_convert(&o, &err), &err);
    mfi_catalog *a = mft_catalog_open(first), *b = mft_catalog_open(o.out_path);
    assert_int_equal(mfi_catalog_n_tensors(a), mfi_catalog_n_tensors(b));
    for (uint32_t id = 0; id < mfi_catalog_n_tensors(a); id++) {
        const char *name = mfi_catalog_name(a, id);
        uint64_t n, m;
        float *x = read_floats(a, name, &n), *y = read_floats(b, name, &m);
        assert_int_equal(n, m);
        bool quantised = type_of(b, name).kind == MFI_Q_MLX;
        for (uint64_t i = 0; i < n; i++) /* 8 bits of groups that 4 bits filled are near enough */
            if (quantised ? fabsf(x[i] - y[i]) > 0.01f : x[i] != y[i])
                fail_msg("%s: %g became %g", name, (double)x[i], (double)y[i]);
        free(x);
        free(y);
    }
    assert_int_equal(type_of(b, LAYER "mlp.switch_mlp.up_proj.weight").bits, 8);
    assert_int_equal(type_of(b, LAYER "mlp.switch_mlp.up_proj.weight").group, 32);
    mfi_catalog_close(&a);
    mfi_catalog_close(&b);
}

/* ---- failing ---- */

/* Expects a failure that names `part`, and no trace of it. */
static void fails(const mf_convert_options *o, mf_status status, const char *part)
{
    struct stat st;
    bool there = lstat(o->out_path, &st) == 0;
    size_t before = mft_n_entries(mft_tmpdir());
    mf_error err = {0};
    mf_status got = mfi_convert(o, 20000, &err);
    if (got != status)
        fail_msg("%s: expected %s, got %s: %s", part, mf_status_name(status), mf_status_name(got),
                 err.message);
    if (!strstr(err.message, part))
        fail_msg("\"%s\" doesn't name %s", err.message, part);
    assert_int_equal(mft_n_entries(mft_tmpdir()), before);
    assert_int_equal(lstat(o->out_path, &st) == 0, there);
}

static void unsuitable_input_is_refused(void **state)
{
    (void)state;
    const struct {
        spec spec;
        mf_status status;
        const char *part;
    } cases[] = {
        {{.config = "{\"model_type\": \"no_such\"}"}, MF_ERR_UNSUPPORTED, "'no_such'"},
        {{.config = "{}"}, MF_ERR_FORMAT, "model_type"},
        {{.config = "{\"model_type\": \"qwen3_5_moe_text\", " SHAPE_BUT_EXPERTS "}"},
         MF_ERR_FORMAT,
         "num_experts"},
        {{.config = EXPERTS_CONFIG("2")}, MF_ERR_TENSOR_SHAPE, "mlp.gate.weight"},
        {{.skip = "model.layers.1.mlp.experts.2.up_proj.weight"},
         MF_ERR_TENSOR_MISSING,
         "layers.1.mlp.experts.2.up_proj"},
        {{.skip = "model.norm.weight"}, MF_ERR_TENSOR_MISSING, "model.norm.weight"},
        {{.nested = true, .skip = "lm_head.weight"}, MF_ERR_TENSOR_MISSING, "lm_head.weight"},
        {{.extra = "model.layers.0.mlp.surprise"}, MF_ERR_UNSUPPORTED, "mlp.surprise"},
        {{.config = "{\"model_type\": \"qwen3_5_moe_text\", \"num_experts\": 3, " SHAPE_BUT_EXPERTS
                    ", \"quantization_config\": {\"quant_method\": \"gptq\"}}"},
         MF_ERR_UNSUPPORTED,
         "gptq"},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        mf_convert_options o = options_for(make_model(cases[i].spec), mft_fresh("out"));
        fails(&o, cases[i].status, cases[i].part);
    }
    mf_convert_options o = options_for(mft_fresh("nowhere"), mft_fresh("out"));
    fails(&o, MF_ERR_FILE_MISSING, "nowhere");
}

static void options_are_checked(void **state)
{
    (void)state;
    const char *in = make_model((spec){0});
    mf_convert_options o = options_for(in, mft_fresh("out"));
#define REFUSED(field, value)                                                                      \
    do {                                                                                           \
        mf_convert_options bad = o;                                                                \
        bad.field = (value);                                                                       \
        fails(&bad, MF_ERR_ARGUMENT, #field);                                                      \
    } while (0)
    REFUSED(bits, 7);
    REFUSED(bits, 0);
    REFUSED(bits, 16);
    REFUSED(dense_bits, 1);
    REFUSED(group_size, 16);
    REFUSED(struct_size, 8);
    REFUSED(in_path, NULL);
#undef REFUSED
    mf_convert_options small = o;
    small.memory_bytes = 1000;
    fails(&small, MF_ERR_BUDGET, "1000");
    small.memory_bytes = 65536;
    mf_error err;
    mft_ok(mf_convert(&small, &err), &err);
    fails(&small, MF_ERR_ARGUMENT, "exists already"); /* now it does */
    o.out_path = mft_fresh("missing/out");
    mf_status status = mf_convert(&o, &err);
    assert_int_equal(status, MF_ERR_IO);
}

static void bad_values_are_refused(void **state)
{
    (void)state;
    const char *in = make_model((spec){0});
    mfi_catalog *c = mft_catalog_open(in);
    const mfi_tensor *t =
        mfi_catalog_tensor(c, mfi_catalog_find(c, "model.layers.1.mlp.experts.2.up_proj.weight"));
    char path[1024];
    snprintf(path, sizeof path, "%s/model.safetensors", in);
    FILE *f = fopen(path, "r+b");
    fseek(f, (long)t->offset[0] + 5 * HIDDEN * 2, SEEK_SET);
    fwrite("\x00\x7e", 2, 1, f); /* NaN in row 5 */
    fclose(f);
    mfi_catalog_close(&c);
    mf_convert_options o = options_for(in, mft_fresh("out"));
    fails(&o, MF_ERR_FORMAT, "experts.2.up_proj.weight: row 5");
}

typedef struct stopper {
    int calls, stop_at;
    uint64_t last, total;
    const char *dir;
    size_t n_seen; /* entries of the folder when stopped */
} stopper;

static bool on_progress(void *user, const char *what, const char *unit, uint64_t done,
                        uint64_t total)
{
    stopper *s = user;
    assert_string_equal(unit, "bytes");
    assert_non_null(what);
    assert_true(done <= total && done >= s->last);
    s->last = done;
    s->total = total;
    if (++s->calls == s->stop_at) {
        s->n_seen = mft_n_entries(s->dir);
        return false;
    }
    if (s->stop_at)
        usleep(250000); /* longer than the callback's interval, so that the next block reports */
    return true;
}

static void cancelling_leaves_nothing(void **state)
{
    (void)state;
    stopper s = {.dir = mft_tmpdir()};
    mf_convert_options o = options_for(make_model((spec){0}), mft_fresh("out"));
    o.progress = on_progress;
    o.progress_user = &s;
    for (int stop_at = 1; stop_at <= 3; stop_at++) {
        s = (stopper){.dir = mft_tmpdir(), .stop_at = stop_at};
        size_t before = mft_n_entries(mft_tmpdir());
        fails(&o, MF_ERR_CANCELLED, "cancelled");
        assert_int_equal(s.calls, stop_at);
        assert_int_equal(s.n_seen, before + 1); /* there was something to remove */
        if (stop_at > 1)
            assert_true(s.last > 0 && s.last < s.total);
    }
    s = (stopper){.dir = mft_tmpdir()};
    mf_error err;
    mft_ok(mf_convert(&o, &err), &err);
    assert_true(s.last == s.total && s.total > 0);
}

static void full_drive_leaves_nothing(void **state)
{
    (void)state;
    mf_convert_options o = options_for(make_model((spec){0}), mft_fresh("out"));
    struct rlimit old, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    static const rlim_t sizes[] = {0, 100, 3000, 18000};
    for (size_t i = 0; i < MFI_ARRAY_LEN(sizes); i++) {
        limit = old;
        limit.rlim_cur = sizes[i];
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        struct stat st;
        mf_error err;
        size_t before = mft_n_entries(mft_tmpdir());
        mf_status status = mf_convert(&o, &err);
        setrlimit(RLIMIT_FSIZE, &old); /* cmocka writes, too */
        if (status != MF_ERR_DISK_FULL)
            fail_msg("limit %d: %s", (int)sizes[i], mf_status_name(status));
        assert_int_equal(mft_n_entries(mft_tmpdir()), before);
        assert_int_equal(stat(o.out_path, &st), -1);
    }
    signal(SIGXFSZ, handler);
    mf_error err;
    mft_ok(mf_convert(&o, &err), &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bytes_as_mlx_lm),
        cmocka_unit_test(quantised_input),
        cmocka_unit_test(keeps_the_weights),
        cmocka_unit_test(files_beside_the_weights),
        cmocka_unit_test(mlx_input),

        cmocka_unit_test(unsuitable_input_is_refused),
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(bad_values_are_refused),
        cmocka_unit_test(cancelling_leaves_nothing),
        cmocka_unit_test(full_drive_leaves_nothing),
    };
    return mft_run(tests);
}
