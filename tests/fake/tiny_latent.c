/* Tiny random models with latent attention; see tiny_latent.h. */
#include "fake/tiny_latent.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "fake/model_files.h"
#include "fake/support.h"

#define BLOCK 128

void mft_latent_default(mft_latent *s)
{
    *s = (mft_latent){.n_layers = 3,
                      .n_dense = 1,
                      .hidden = 72,
                      .n_vocab = 61,
                      .n_head = 3,
                      .q_rank = 40,
                      .kv_rank = 56,
                      .nope = 24,
                      .rope = 8,
                      .v_dim = 20,
                      .n_experts = 12,
                      .top_k = 3,
                      .width = 40,
                      .n_shared = 1,
                      .dense_width = 88,
                      .n_groups = 4,
                      .n_groups_used = 2,
                      .seed = 1};
}

float mft_e4m3(uint8_t code)
{
    int exp = code >> 3 & 15, frac = code & 7;
    double v = exp ? ldexp(8 + frac, exp - 10) : ldexp(frac, -9);
    return (float)(code & 128 ? -v : v);
}

uint8_t mft_to_e4m3(double value)
{
    double v = fmin(fabs(value), 448);
    int exp; /* of v as a fraction from 1/2 to 1; of the smallest normal numbers: -5 */
    frexp(v, &exp);
    exp = v == 0 || exp < -5 ? -5 : exp;
    int steps = (int)lrint(ldexp(v, 4 - exp)); /* of the last place */
    int code = (exp + 6) * 8 + steps - 8;
    return (uint8_t)(value < 0 ? code | 128 : code);
}

typedef struct maker {
    const mft_latent *spec;
    mfi_rng rng;
    mft_tensor_list *t;
} maker;

/* Takes over data. */
static void add(maker *m, const char *name, const char *dtype, uint64_t d0, uint64_t d1,
                uint64_t d2, void *data)
{
    mft_tensor *t = mft_add_tensor(m->t, name, dtype);
    const uint64_t dims[3] = {d0, d1, d2};
    assert_non_null(data);
    memcpy(t->dims, dims, sizeof dims);
    t->n_dims = d2 ? 3 : d1 ? 2 : 1;
    t->data = data;
}

static double normal(mfi_rng *rng)
{
    double sum = 0;
    for (int i = 0; i < 6; i++)
        sum += mfi_rng_unit(rng) - 0.5;
    return sum * 1.41421356;
}

static void vector(maker *m, const char *name, uint64_t n, double mean, double deviation)
{
    float *data = malloc(n * sizeof *data);
    for (uint64_t i = 0; i < n; i++)
        data[i] = (float)(mean + deviation * normal(&m->rng));
    add(m, name, "F32", n, 0, 0, data);
}

/* Codes and scales of a matrix whose outputs are about as large as its inputs. */
static float *draw(maker *m, uint64_t rows, uint64_t cols, uint8_t **codes, float **scales)
{
    uint64_t wide = (cols + BLOCK - 1) / BLOCK, high = (rows + BLOCK - 1) / BLOCK;
    float *data = malloc(rows * cols * sizeof *data);
    *codes = malloc(rows * cols);
    *scales = malloc(wide * high * sizeof **scales);
    assert_true(data && *codes && *scales);
    for (uint64_t i = 0; i < wide * high; i++)
        (*scales)[i] = (float)((0.7 + mfi_rng_unit(&m->rng)) / (100 * sqrt((double)cols)));
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t c = 0; c < cols; c++) {
            uint64_t i = r * cols + c;
            (*codes)[i] = mft_to_e4m3(100 * normal(&m->rng));
            data[i] = mft_e4m3((*codes)[i]) * (*scales)[r / BLOCK * wide + c / BLOCK];
        }
    return data;
}

static void matrix(maker *m, const char *name, uint64_t rows, uint64_t cols)
{
    uint8_t *codes;
    float *scales, *data = draw(m, rows, cols, &codes, &scales);
    char scale_name[128];
    if (m->spec->fp8) {
        snprintf(scale_name, sizeof scale_name, "%s_scale_inv", name);
        add(m, name, "F8_E4M3", rows, cols, 0, codes);
        add(m, scale_name, "F32", (rows + BLOCK - 1) / BLOCK, (cols + BLOCK - 1) / BLOCK, 0,
            scales);
        free(data);
    } else {
        add(m, name, "F32", rows, cols, 0, data);
        free(codes);
        free(scales);
    }
}

/* A matrix whose rows come in heads of `nope`, which are left alone, and `rope` that are rotated.
 */
static void rotated(maker *m, const char *name, uint64_t rows, uint64_t cols, uint64_t nope)
{
    uint64_t rope = m->spec->rope, head = nope + rope;
    if (!m->spec->halves) {
        matrix(m, name, rows, cols);
        return;
    }
    uint8_t *codes;
    float *scales, *data = draw(m, rows, cols, &codes, &scales);
    float *moved = malloc(rows * cols * sizeof *moved);
    assert_true(moved && !m->spec->fp8);
    for (uint64_t r = 0; r < rows; r++) {
        uint64_t at = r % head, to = r;
        if (at >= nope)
            to = r - at + nope + (at - nope) / 2 + (at - nope) % 2 * (rope / 2);
        memcpy(moved + to * cols, data + r * cols, cols * sizeof *moved);
    }
    add(m, name, "F32", rows, cols, 0, moved);
    free(data);
    free(codes);
    free(scales);
}

static void kv_b(maker *m, uint32_t layer)
{
    const mft_latent *s = m->spec;
    uint64_t rows = (uint64_t)s->n_head * (s->nope + s->v_dim), kv = s->kv_rank;
    if (!s->split) {
        matrix(m, mft_in_layer(layer, "self_attn.kv_b_proj.weight"), rows, kv);
        return;
    }
    uint8_t *codes;
    float *scales, *data = draw(m, rows, kv, &codes, &scales);
    float *k = malloc(s->n_head * s->nope * kv * sizeof *k);
    float *v = malloc(s->n_head * s->v_dim * kv * sizeof *v);
    assert_true(k && v && !s->fp8);
    for (uint64_t h = 0; h < s->n_head; h++) {
        const float *head = data + h * (s->nope + s->v_dim) * kv;
        for (uint64_t l = 0; l < kv; l++)
            for (uint64_t d = 0; d < s->nope; d++)
                k[(h * kv + l) * s->nope + d] = head[d * kv + l];
        memcpy(v + h * s->v_dim * kv, head + s->nope * kv, s->v_dim * kv * sizeof *v);
    }
    add(m, mft_in_layer(layer, "self_attn.embed_q.weight"), "F32", s->n_head, kv, s->nope, k);
    add(m, mft_in_layer(layer, "self_attn.unembed_out.weight"), "F32", s->n_head, s->v_dim, kv, v);
    free(data);
    free(codes);
    free(scales);
}

static void attention(maker *m, uint32_t i)
{
    const mft_latent *s = m->spec;
    uint64_t q = (uint64_t)s->n_head * (s->nope + s->rope);
    vector(m, mft_in_layer(i, "input_layernorm.weight"), s->hidden, 1, 0.2);
    if (s->q_rank) {
        matrix(m, mft_in_layer(i, "self_attn.q_a_proj.weight"), s->q_rank, s->hidden);
        vector(m, mft_in_layer(i, "self_attn.q_a_layernorm.weight"), s->q_rank, 1, 0.2);
        rotated(m, mft_in_layer(i, "self_attn.q_b_proj.weight"), q, s->q_rank, s->nope);
    } else {
        rotated(m, mft_in_layer(i, "self_attn.q_proj.weight"), q, s->hidden, s->nope);
    }
    rotated(m, mft_in_layer(i, "self_attn.kv_a_proj_with_mqa.weight"), s->kv_rank + s->rope,
            s->hidden, s->kv_rank);
    vector(m, mft_in_layer(i, "self_attn.kv_a_layernorm.weight"), s->kv_rank, 1, 0.2);
    kv_b(m, i);
    matrix(m, mft_in_layer(i, "self_attn.o_proj.weight"), s->hidden,
           (uint64_t)s->n_head * s->v_dim);
}

static void gated(maker *m, uint32_t layer, const char *where, uint64_t width)
{
    static const char *const names[] = {"gate", "up", "down"};
    for (int p = 0; p < 3; p++)
        matrix(m, mft_in_layer(layer, "mlp.%s%s_proj.weight", where, names[p]),
               p == 2 ? m->spec->hidden : width, p == 2 ? width : m->spec->hidden);
}

static void feed_forward(maker *m, uint32_t i)
{
    const mft_latent *s = m->spec;
    vector(m, mft_in_layer(i, "post_attention_layernorm.weight"), s->hidden, 1, 0.2);
    if (i < s->n_dense) {
        gated(m, i, "", s->dense_width);
        return;
    }
    /* Routers stay floats in FP8 checkpoints. */
    float *gate = malloc((size_t)s->n_experts * s->hidden * sizeof *gate);
    assert_non_null(gate);
    for (uint32_t k = 0; k < s->n_experts * s->hidden; k++)
        gate[k] = (float)(normal(&m->rng) * 2 / sqrt((double)s->hidden));
    add(m, mft_in_layer(i, "mlp.gate.weight"), "F32", s->n_experts, s->hidden, 0, gate);
    vector(m, mft_in_layer(i, "mlp.gate.e_score_correction_bias"), s->n_experts, 0, 0.1);
    if (s->n_shared)
        gated(m, i, "shared_experts.", (uint64_t)s->n_shared * s->width);
    for (uint32_t e = 0; e < s->n_experts; e++) {
        char where[32];
        snprintf(where, sizeof where, "experts.%u.", e);
        gated(m, i, where, s->width);
    }
}

static void write_config(const char *dir, const mft_latent *s)
{
    FILE *f = fopen(mft_path(dir, "config.json"), "w");
    assert_non_null(f);
    fprintf(f,
            "{\"model_type\":\"deepseek_v3\",\"num_hidden_layers\":%u,\"hidden_size\":%u,"
            "\"vocab_size\":%u,\"max_position_embeddings\":4096,\"num_attention_heads\":%u,"
            "\"num_key_value_heads\":%u,\"q_lora_rank\":",
            s->n_layers, s->hidden, s->n_vocab, s->n_head, s->n_head);
    fprintf(f, s->q_rank ? "%u" : "null", s->q_rank);
    fprintf(f,
            ",\"kv_lora_rank\":%u,\"qk_nope_head_dim\":%u,\"qk_rope_head_dim\":%u,"
            "\"v_head_dim\":%u,\"n_routed_experts\":%u,\"num_experts_per_tok\":%u,"
            "\"moe_intermediate_size\":%u,\"n_shared_experts\":%u,\"intermediate_size\":%u,",
            s->kv_rank, s->nope, s->rope, s->v_dim, s->n_experts, s->top_k, s->width, s->n_shared,
            s->dense_width);
    fprintf(f,
            "\"n_group\":%u,\"topk_group\":%u,\"first_k_dense_replace\":%u,"
            "\"routed_scaling_factor\":2.5,\"norm_topk_prob\":true,\"scoring_func\":\"sigmoid\","
            "\"topk_method\":\"noaux_tc\",\"rms_norm_eps\":1e-6,\"rope_theta\":10000,"
            "\"num_nextn_predict_layers\":%d,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":40,"
            "\"mscale\":1.0,\"mscale_all_dim\":1.0,\"beta_fast\":32,\"beta_slow\":1,"
            "\"original_max_position_embeddings\":64}",
            s->n_groups, s->n_groups_used, s->n_dense, s->mtp);
    if (s->halves)
        fputs(",\"rope_interleave\":false", f);
    if (s->fp8)
        fputs(",\"quantization_config\":{\"quant_method\":\"fp8\",\"fmt\":\"e4m3\","
              "\"activation_scheme\":\"dynamic\",\"weight_block_size\":[128,128]}",
              f);
    fputs("}\n", f);
    assert_int_equal(fclose(f), 0);
}

void mft_latent_set(const char *dir, const char *key, const char *value)
{
    char path[512], quoted[96];
    size_t len;
    snprintf(path, sizeof path, "%s", mft_path(dir, "config.json"));
    char *text = (char *)mft_read(path, &len);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    char *old = memmem(text, len, quoted, strlen(quoted));
    size_t before = old ? (size_t)(old - text) : 1, after = before;
    if (old) { /* up to the comma, brace or bracket that ends a plain value */
        after += strlen(quoted);
        after += strcspn(old + strlen(quoted), ",}\n");
    }
    fwrite(text, 1, before, f);
    fprintf(f, "%s%s%s", quoted, value, old ? "" : ",");
    fwrite(text + after, 1, len - after, f);
    assert_int_equal(fclose(f), 0);
    free(text);
}

const char *mft_latent_write(const mft_latent *s)
{
    const char *dir = mft_folder();
    maker made = {.spec = s, .rng = {s->seed}, .t = calloc(1, sizeof *made.t)}, *m = &made;
    assert_non_null(made.t);
    float *embed = malloc((size_t)s->n_vocab * s->hidden * sizeof *embed);
    float *head = malloc((size_t)s->n_vocab * s->hidden * sizeof *head);
    assert_true(embed && head);
    for (uint32_t i = 0; i < s->n_vocab * s->hidden; i++) {
        embed[i] = (float)normal(&m->rng);
        head[i] = (float)(normal(&m->rng) / sqrt((double)s->hidden));
    }
    add(m, "model.embed_tokens.weight", "F32", s->n_vocab, s->hidden, 0, embed);
    add(m, "lm_head.weight", "F32", s->n_vocab, s->hidden, 0, head);
    vector(m, "model.norm.weight", s->hidden, 1, 0.2);
    for (uint32_t i = 0; i < s->n_layers; i++) {
        attention(m, i);
        feed_forward(m, i);
    }
    if (s->mtp) {
        uint32_t i = s->n_layers;
        vector(m, mft_in_layer(i, "enorm.weight"), s->hidden, 1, 0.2);
        vector(m, mft_in_layer(i, "hnorm.weight"), s->hidden, 1, 0.2);
        matrix(m, mft_in_layer(i, "eh_proj.weight"), s->hidden, 2 * s->hidden);
        vector(m, mft_in_layer(i, "shared_head.norm.weight"), s->hidden, 1, 0.2);
    }
    mft_write_tensors(dir, "model.safetensors", m->t->list, m->t->n);
    write_config(dir, s);
    mft_free_tensors(m->t);
    return dir;
}
