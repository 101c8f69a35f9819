/* Tiny random models; see tiny_model.h. */
#include "fake/support.h"
#include "fake/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const mft_tiny_keys[] = {"model_type",
                                     "num_hidden_layers",
                                     "hidden_size",
                                     "vocab_size",
                                     "max_position_embeddings",
                                     "num_attention_heads",
                                     "num_key_value_heads",
                                     "head_dim",
                                     "linear_num_key_heads",
                                     "linear_num_value_heads",
                                     "linear_key_head_dim",
                                     "linear_value_head_dim",
                                     "linear_conv_kernel_dim",
                                     "num_experts",
                                     "num_experts_per_tok",
                                     "moe_intermediate_size",
                                     "shared_expert_intermediate_size",
                                     "full_attention_interval",
                                     "tie_word_embeddings",
                                     "rms_norm_eps",
                                     "rope_parameters",
                                     "layer_types",
                                     "hidden_act",
                                     "attention_bias",
                                     "attn_output_gate",
                                     "mlp_only_layers",
                                     "sliding_window",
                                     "n_group",
                                     "topk_group",
                                     "routed_scaling_factor",
                                     "quantization",
                                     "text_config",
                                     NULL};

void mft_tiny_default(mft_tiny *s)
{
    *s = (mft_tiny){.n_layers = 2,
                    .hidden = 24,
                    .n_vocab = 50,
                    .n_head = 4,
                    .n_kv_head = 2,
                    .head_dim = 10,
                    .n_rot = 4,
                    .k_heads = 2,
                    .v_heads = 4,
                    .k_dim = 6,
                    .v_dim = 5,
                    .conv = 4,
                    .n_experts = 6,
                    .top_k = 2,
                    .width = 18,
                    .shared = 14,
                    .interval = 2,
                    .ctx = 256,
                    .seed = 1};
}

static uint32_t up_to(mfi_rng *rng, uint32_t most)
{
    return 1 + (uint32_t)mfi_rng_below(rng, most);
}

/* Often a size at which vectors, blocks or grains just end. */
static uint32_t width(mfi_rng *rng)
{
    static const uint32_t borders[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96};
    return mfi_rng_below(rng, 2) ? borders[mfi_rng_below(rng, MFI_ARRAY_LEN(borders))]
                                 : up_to(rng, 80);
}

void mft_tiny_random(mft_tiny *s, mfi_rng *rng)
{
    *s = (mft_tiny){.n_layers = up_to(rng, 3),
                    .hidden = width(rng),
                    .n_vocab = width(rng),
                    .n_kv_head = up_to(rng, 3),
                    .head_dim = 1 + up_to(rng, 33),
                    .k_heads = up_to(rng, 3),
                    .k_dim = up_to(rng, 33),
                    .v_dim = up_to(rng, 33),
                    .conv = up_to(rng, 5),
                    .n_experts = up_to(rng, 9),
                    .width = width(rng),
                    .shared = width(rng),
                    .interval = up_to(rng, 3),
                    .ctx = 128,
                    .bf16 = mfi_rng_below(rng, 2),
                    .fused = mfi_rng_below(rng, 2),
                    .tied = mfi_rng_below(rng, 2),
                    .seed = mfi_rng_next(rng)};
    s->n_head = s->n_kv_head * up_to(rng, 3);
    s->v_heads = s->k_heads * up_to(rng, 3);
    s->n_rot = 2 * up_to(rng, s->head_dim / 2);
    s->top_k = mfi_rng_below(rng, 3) ? up_to(rng, s->n_experts) : s->n_experts;
}

void mft_tiny_describe(const mft_tiny *s, char *text, size_t cap)
{
    snprintf(
        text, cap,
        "%u layers, hidden %u, vocab %u, heads %u/%u of %u (rot %u), delta %u/%u of %u/%u, conv "
        "%u, top-%u of %u, widths %u and %u, interval %u, %s, %s, %s",
        s->n_layers, s->hidden, s->n_vocab, s->n_head, s->n_kv_head, s->head_dim, s->n_rot,
        s->k_heads, s->v_heads, s->k_dim, s->v_dim, s->conv, s->top_k, s->n_experts, s->width,
        s->shared, s->interval, s->bf16 ? "bf16" : "f32", s->fused ? "fused" : "each",
        s->tied ? "tied" : "untied");
}

/* ---- tensors ---- */

typedef struct maker {
    const mft_tiny *spec;
    mft_tensor_list *t;
    mfi_rng rng;
} maker;

/* Uniform values of a deviation that keeps activations near 1. */
static void add(maker *m, const char *name, int n_dims, const uint64_t dims[3], double deviation)
{
    size_t n = 1;
    mft_tensor *t = mft_add_tensor(m->t, name, m->spec->bf16 ? "BF16" : "F32");
    t->n_dims = n_dims;
    for (int d = 0; d < n_dims; d++) {
        t->dims[d] = dims[d];
        n *= dims[d];
    }
    unsigned char *data = malloc(n * 4 + 4);
    assert_non_null(data);
    for (size_t k = 0; k < n; k++) {
        float v = (float)((2 * mfi_rng_unit(&m->rng) - 1) * 1.7320508 * deviation);
        uint32_t bits;
        memcpy(&bits, &v, 4);
        if (m->spec->bf16) {
            uint16_t top = (uint16_t)(bits >> 16);
            memcpy(data + 2 * k, &top, 2);
        } else {
            memcpy(data + 4 * k, &bits, 4);
        }
    }
    t->data = data;
}

static void matrix(maker *m, const char *name, uint64_t rows, uint64_t cols)
{
    add(m, name, 2, (const uint64_t[3]){rows, cols}, 1 / sqrt((double)cols));
}

static void vector(maker *m, const char *name, uint64_t n)
{
    add(m, name, 1, (const uint64_t[3]){n}, 0.2);
}

static void mixer(maker *m, uint32_t i)
{
    const mft_tiny *s = m->spec;
    vector(m, mft_in_layer(i, "input_layernorm.weight"), s->hidden);
    if ((i + 1) % s->interval == 0) {
        matrix(m, mft_in_layer(i, "self_attn.q_proj.weight"), 2 * s->n_head * s->head_dim,
               s->hidden);
        matrix(m, mft_in_layer(i, "self_attn.k_proj.weight"), s->n_kv_head * s->head_dim,
               s->hidden);
        matrix(m, mft_in_layer(i, "self_attn.v_proj.weight"), s->n_kv_head * s->head_dim,
               s->hidden);
        matrix(m, mft_in_layer(i, "self_attn.o_proj.weight"), s->hidden, s->n_head * s->head_dim);
        vector(m, mft_in_layer(i, "self_attn.q_norm.weight"), s->head_dim);
        vector(m, mft_in_layer(i, "self_attn.k_norm.weight"), s->head_dim);
        return;
    }
    uint64_t v = s->v_heads * s->v_dim, qkv = 2 * s->k_heads * s->k_dim + v;
    matrix(m, mft_in_layer(i, "linear_attn.in_proj_qkv.weight"), qkv, s->hidden);
    matrix(m, mft_in_layer(i, "linear_attn.in_proj_z.weight"), v, s->hidden);
    matrix(m, mft_in_layer(i, "linear_attn.in_proj_b.weight"), s->v_heads, s->hidden);
    matrix(m, mft_in_layer(i, "linear_attn.in_proj_a.weight"), s->v_heads, s->hidden);
    add(m, mft_in_layer(i, "linear_attn.conv1d.weight"), 3, (const uint64_t[3]){qkv, 1, s->conv},
        0.5);
    vector(m, mft_in_layer(i, "linear_attn.A_log"), s->v_heads);
    vector(m, mft_in_layer(i, "linear_attn.dt_bias"), s->v_heads);
    vector(m, mft_in_layer(i, "linear_attn.norm.weight"), s->v_dim);
    matrix(m, mft_in_layer(i, "linear_attn.out_proj.weight"), s->hidden, v);
}

static void experts(maker *m, uint32_t i)
{
    static const char *const projs[] = {"gate_proj", "up_proj", "down_proj"};
    const mft_tiny *s = m->spec;
    if (s->fused) {
        add(m, mft_in_layer(i, "mlp.experts.gate_up_proj"), 3,
            (const uint64_t[3]){s->n_experts, 2 * s->width, s->hidden}, 1 / sqrt(s->hidden));
        add(m, mft_in_layer(i, "mlp.experts.down_proj"), 3,
            (const uint64_t[3]){s->n_experts, s->hidden, s->width}, 1 / sqrt(s->width));
        return;
    }
    for (uint32_t e = 0; e < s->n_experts; e++)
        for (int p = 0; p < 3; p++)
            matrix(m, mft_in_layer(i, "mlp.experts.%u.%s.weight", e, projs[p]),
                   p == 2 ? s->hidden : s->width, p == 2 ? s->width : s->hidden);
}

mft_tensor_list *mft_tiny_make(const mft_tiny *s)
{
    maker m = {.spec = s, .t = calloc(1, sizeof *m.t), .rng = {s->seed}};
    assert_non_null(m.t);
    add(&m, "model.embed_tokens.weight", 2, (const uint64_t[3]){s->n_vocab, s->hidden}, 1);
    vector(&m, "model.norm.weight", s->hidden);
    if (!s->tied)
        matrix(&m, "lm_head.weight", s->n_vocab, s->hidden);
    for (uint32_t i = 0; i < s->n_layers; i++) {
        mixer(&m, i);
        vector(&m, mft_in_layer(i, "post_attention_layernorm.weight"), s->hidden);
        matrix(&m, mft_in_layer(i, "mlp.gate.weight"), s->n_experts, s->hidden);
        matrix(&m, mft_in_layer(i, "mlp.shared_expert.gate_proj.weight"), s->shared, s->hidden);
        matrix(&m, mft_in_layer(i, "mlp.shared_expert.up_proj.weight"), s->shared, s->hidden);
        matrix(&m, mft_in_layer(i, "mlp.shared_expert.down_proj.weight"), s->hidden, s->shared);
        matrix(&m, mft_in_layer(i, "mlp.shared_expert_gate.weight"), 1, s->hidden);
        experts(&m, i);
    }
    return m.t;
}

/* ---- config.json ---- */

static void put_value(FILE *f, const mft_tiny *s, const char *key)
{
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
                   {"linear_num_key_heads", s->k_heads},
                   {"linear_num_value_heads", s->v_heads},
                   {"linear_key_head_dim", s->k_dim},
                   {"linear_value_head_dim", s->v_dim},
                   {"linear_conv_kernel_dim", s->conv},
                   {"num_experts", s->n_experts},
                   {"num_experts_per_tok", s->top_k},
                   {"moe_intermediate_size", s->width},
                   {"shared_expert_intermediate_size", s->shared},
                   {"full_attention_interval", s->interval}};
    for (size_t i = 0; i < MFI_ARRAY_LEN(numbers); i++)
        if (strcmp(numbers[i].key, key) == 0)
            fprintf(f, "%u", numbers[i].value);
    if (strcmp(key, "model_type") == 0)
        fputs("\"qwen3_5_moe_text\"", f);
    else if (strcmp(key, "tie_word_embeddings") == 0)
        fputs(s->tied ? "true" : "false", f);
    else if (strcmp(key, "rms_norm_eps") == 0)
        fputs("1e-6", f);
    else if (strcmp(key, "rope_parameters") == 0)
        fprintf(
            f, "{\"rope_type\":\"default\",\"rope_theta\":10000.0,\"partial_rotary_factor\":%.17g}",
            s->n_rot == s->head_dim ? 1.0 : (s->n_rot + 0.5) / s->head_dim);
    else if (strcmp(key, "hidden_act") == 0)
        fputs("\"silu\"", f);
}

void mft_tiny_write_config(const char *dir, const mft_tiny *s, const char *key, const char *value)
{
    FILE *f = fopen(mft_path(dir, "config.json"), "w");
    assert_non_null(f);
    fputs("{\"schema\":0", f);
    for (const char *const *k = mft_tiny_keys; *k; k++) {
        bool given = key && strcmp(*k, key) == 0;
        if (given && value)
            fprintf(f, ",\n\"%s\":%s", *k, value);
        char *text = NULL;
        size_t len = 0;
        FILE *mem = open_memstream(&text, &len);
        put_value(mem, s, *k);
        fclose(mem);
        if (!given && len)
            fprintf(f, ",\n\"%s\":%s", *k, text);
        free(text);
    }
    fputs("}\n", f);
    assert_int_equal(fclose(f), 0);
}

const char *mft_tiny_write(const mft_tiny *spec)
{
    const char *dir = mft_folder();
    mft_tensor_list *t = mft_tiny_make(spec);
    mft_write_tensors(dir, "model.safetensors", t->list, t->n);
    mft_tiny_write_config(dir, spec, NULL, NULL);
    mft_free_tensors(t);
    return dir;
}
