/* Tiny gpt-oss models; see oss_model.h. */
#include "fake/support.h"
#include "fake/oss_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake/tensors.h"

void mft_oss_default(mft_oss *s)
{
    *s = (mft_oss){.n_layers = 3,
                   .hidden = 64,
                   .n_vocab = 50,
                   .n_head = 4,
                   .n_kv_head = 2,
                   .head_dim = 10,
                   .n_experts = 6,
                   .top_k = 2,
                   .width = 96,
                   .window = 8,
                   .ctx = 256,
                   .mxfp4 = true,
                   .seed = 1};
}

typedef struct maker {
    const mft_oss *spec;
    mft_tensor_list *t;
    mft_tensors source; /* of spec->from */
    mfi_rng rng;
} maker;

static float wide(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint16_t narrow(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return (uint16_t)(bits >> 16);
}

/* n values: the source's, or uniform with this deviation. */
static uint16_t *values(maker *m, const char *name, size_t n, double deviation)
{
    uint16_t *out = malloc(n * sizeof *out);
    assert_non_null(out);
    if (m->spec->from) {
        const mfi_json *entry = mfi_json_get(m->source.header, name);
        const mfi_json *offsets = mfi_json_get(entry, "data_offsets");
        int64_t begin = 0, end = 0;
        assert_string_equal(mfi_json_str(mfi_json_get(entry, "dtype"), NULL), "BF16");
        assert_true(mfi_json_i64(mfi_json_at(offsets, 0), &begin));
        assert_true(mfi_json_i64(mfi_json_at(offsets, 1), &end));
        assert_int_equal(end - begin, n * sizeof *out);
        memcpy(out, m->source.data + begin, n * sizeof *out);
        return out;
    }
    for (size_t i = 0; i < n; i++)
        out[i] = narrow((float)((2 * mfi_rng_unit(&m->rng) - 1) * 1.7320508 * deviation));
    return out;
}

static void put(maker *m, const char *name, const char *dtype, const void *data, int n_dims,
                const uint64_t *dims)
{
    mft_tensor *t = mft_add_tensor(m->t, name, dtype);
    t->data = data;
    t->n_dims = n_dims;
    memcpy(t->dims, dims, (size_t)n_dims * sizeof *dims);
}

static void plain(maker *m, const char *name, uint64_t rows, uint64_t cols, double deviation)
{
    uint64_t n = rows ? rows * cols : cols;
    put(m, name, "BF16", values(m, name, n, deviation), rows ? 2 : 1,
        rows ? (const uint64_t[2]){rows, cols} : (const uint64_t[1]){cols});
}

static void matrix(maker *m, const char *name, uint64_t rows, uint64_t cols)
{
    plain(m, name, rows, cols, 1 / sqrt((double)cols));
}

static void vector(maker *m, const char *name, uint64_t n)
{
    plain(m, name, 0, n, 0.3);
}

static const float e2m1[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};

/* 32 values to codes and a power of two, the largest of which is met within its binade (OCP's
 * microscaling formats); what they decode to replaces them. */
static uint8_t quantise(float *x, uint8_t *codes)
{
    float most = 0;
    int exponent;
    for (int i = 0; i < 32; i++)
        most = fmaxf(most, fabsf(x[i]));
    frexpf(most, &exponent); /* most = [0.5, 1) * 2^exponent */
    exponent = most > 0 ? exponent - 1 - 2 : -127;
    float scale = ldexpf(1, exponent);
    for (int i = 0; i < 32; i++) {
        int best = 0;
        for (int c = 1; c < 8; c++)
            if (fabsf(fabsf(x[i]) / scale - e2m1[c]) < fabsf(fabsf(x[i]) / scale - e2m1[best]))
                best = c;
        codes[i] = (uint8_t)(best | (x[i] < 0 ? 8 : 0));
        x[i] = (x[i] < 0 ? -1.0f : 1.0f) * e2m1[best] * scale;
    }
    return (uint8_t)(exponent + 127);
}

/* A tensor [n_experts][inputs][outputs] of experts, in either layout. */
static void experts(maker *m, const char *name, uint64_t inputs, uint64_t outputs)
{
    uint64_t n_experts = m->spec->n_experts, n = n_experts * inputs * outputs;
    uint16_t *half = values(m, name, n, 1 / sqrt((double)inputs));
    uint8_t *blocks = malloc(n / 2), *scales = malloc(n / 32);
    assert_non_null(blocks);
    assert_non_null(scales);
    for (uint64_t e = 0; e < n_experts && !m->spec->exact; e++)
        for (uint64_t o = 0; o < outputs; o++)
            for (uint64_t b = 0; b < inputs / 32; b++) {
                float x[32];
                uint8_t codes[32];
                uint64_t block = (e * outputs + o) * (inputs / 32) + b;
                for (uint64_t i = 0; i < 32; i++)
                    x[i] = wide(half[(e * inputs + b * 32 + i) * outputs + o]);
                scales[block] = quantise(x, codes);
                for (uint64_t i = 0; i < 16; i++)
                    blocks[block * 16 + i] = (uint8_t)(codes[2 * i] | codes[2 * i + 1] << 4);
                for (uint64_t i = 0; i < 32; i++)
                    half[(e * inputs + b * 32 + i) * outputs + o] = narrow(x[i]);
            }
    if (!m->spec->mxfp4) {
        put(m, name, "BF16", half, 3, (const uint64_t[3]){n_experts, inputs, outputs});
        free(blocks);
        free(scales);
        return;
    }
    char full[96];
    snprintf(full, sizeof full, "%.80s_blocks", name);
    put(m, full, "U8", blocks, 4, (const uint64_t[4]){n_experts, outputs, inputs / 32, 16});
    snprintf(full, sizeof full, "%.80s_scales", name);
    put(m, full, "U8", scales, 3, (const uint64_t[3]){n_experts, outputs, inputs / 32});
    free(half);
}

static void layer(maker *m, uint32_t i)
{
    const mft_oss *s = m->spec;
    uint64_t q = (uint64_t)s->n_head * s->head_dim, kv = (uint64_t)s->n_kv_head * s->head_dim;
    vector(m, mft_in_layer(i, "input_layernorm.weight"), s->hidden);
    matrix(m, mft_in_layer(i, "self_attn.q_proj.weight"), q, s->hidden);
    matrix(m, mft_in_layer(i, "self_attn.k_proj.weight"), kv, s->hidden);
    matrix(m, mft_in_layer(i, "self_attn.v_proj.weight"), kv, s->hidden);
    matrix(m, mft_in_layer(i, "self_attn.o_proj.weight"), s->hidden, q);
    vector(m, mft_in_layer(i, "self_attn.q_proj.bias"), q);
    vector(m, mft_in_layer(i, "self_attn.k_proj.bias"), kv);
    vector(m, mft_in_layer(i, "self_attn.v_proj.bias"), kv);
    vector(m, mft_in_layer(i, "self_attn.o_proj.bias"), s->hidden);
    vector(m, mft_in_layer(i, "self_attn.sinks"), s->n_head);
    vector(m, mft_in_layer(i, "post_attention_layernorm.weight"), s->hidden);
    matrix(m, mft_in_layer(i, "mlp.router.weight"), s->n_experts, s->hidden);
    vector(m, mft_in_layer(i, "mlp.router.bias"), s->n_experts);
    experts(m, mft_in_layer(i, "mlp.experts.gate_up_proj"), s->hidden, 2 * (uint64_t)s->width);
    plain(m, mft_in_layer(i, "mlp.experts.gate_up_proj_bias"), s->n_experts, 2 * (uint64_t)s->width,
          0.3);
    experts(m, mft_in_layer(i, "mlp.experts.down_proj"), s->width, s->hidden);
    plain(m, mft_in_layer(i, "mlp.experts.down_proj_bias"), s->n_experts, s->hidden, 0.3);
}

mft_tensor_list *mft_oss_make(const mft_oss *s)
{
    maker m = {.spec = s, .t = calloc(1, sizeof *m.t), .rng = {s->seed}};
    assert_non_null(m.t);
    if (s->from)
        mft_tensors_open(&m.source, mft_path(s->from, "model.safetensors"));
    plain(&m, "model.embed_tokens.weight", s->n_vocab, s->hidden, 1);
    vector(&m, "model.norm.weight", s->hidden);
    matrix(&m, "lm_head.weight", s->n_vocab, s->hidden);
    for (uint32_t i = 0; i < s->n_layers; i++)
        layer(&m, i);
    if (s->from)
        mft_tensors_close(&m.source);
    return m.t;
}

/* ---- config.json ---- */

void mft_oss_write_config(const char *dir, const mft_oss *s, const char *key, const char *value)
{
    static const char *const keys[] = {"model_type", "attention_bias", "rope_scaling",
                                       "quantization_config", "layer_types"};
    const struct {
        const char *key;
        uint32_t value;
    } numbers[] = {{"num_hidden_layers", s->n_layers},
                   {"hidden_size", s->hidden},
                   {"vocab_size", s->n_vocab},
                   {"max_position_embeddings", s->ctx},
                   {"num_attention_heads", s->n_head},
                   {"num_key_value_heads", s->n_kv_head},
                   {"head_dim", s->head_dim},
                   {"num_local_experts", s->n_experts},
                   {"num_experts_per_tok", s->top_k},
                   {"experts_per_token", s->top_k},
                   {"intermediate_size", s->width},
                   {"sliding_window", s->window},
                   {"rope_theta", 150000}};
    const char *const texts[] = {
        "\"gpt_oss\"", "true",
        "{\"rope_type\":\"yarn\",\"factor\":32.0,\"original_max_position_embeddings\":64,"
        "\"beta_fast\":32.0,\"beta_slow\":1.0,\"truncate\":false}",
        s->mxfp4 ? "{\"quant_method\":\"mxfp4\"}" : NULL, NULL};
    FILE *f = fopen(mft_path(dir, "config.json"), "w");
    assert_non_null(f);
    fputs("{\"architectures\":[\"GptOssForCausalLM\"]", f);
    for (size_t i = 0; i < MFI_ARRAY_LEN(numbers); i++)
        if (!key || strcmp(numbers[i].key, key) != 0)
            fprintf(f, ",\n\"%s\":%u", numbers[i].key, numbers[i].value);
    for (size_t i = 0; i < MFI_ARRAY_LEN(keys); i++)
        if (texts[i] && (!key || strcmp(keys[i], key) != 0))
            fprintf(f, ",\n\"%s\":%s", keys[i], texts[i]);
    if (key && value)
        fprintf(f, ",\n\"%s\":%s", key, value);
    fputs("}\n", f);
    assert_int_equal(fclose(f), 0);
}

const char *mft_oss_write(const mft_oss *spec)
{
    const char *dir = mft_folder();
    mft_tensor_list *t = mft_oss_make(spec);
    mft_write_tensors(dir, "model.safetensors", t->list, t->n);
    mft_oss_write_config(dir, spec, NULL, NULL);
    mft_free_tensors(t);
    return dir;
}
