/* Metadata of GGUF files; see gguf_keys.h. Called by the converter's driver once a file. The keys
 * are those that llama.cpp's loader asks for (docs/formats.md). A source that is GGUF itself hands
 * on its tokenizer, its general keys and those of its architecture byte for byte. */
#include "convert/gguf_keys.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/gguf_read.h"
#include "format/meta_array.h"

#define HEADER_BYTES      24
#define KEY_BYTES_MAX     65535
#define QUANT_VERSION     2
#define N_ROPE_SECTIONS   4
#define QUANTISED(target) ((target)->type.kind == MFI_Q_GGML)

typedef struct keys {
    mfi_gguf_out *out;
    const mfi_model *model;
    const char *arch;
    char name[160];
} keys;

/* What the source's metadata say of its storage, or what isn't taken along. */
static bool is_written(const mfi_model *model, const char *suffix)
{
    static const char *const always[] = {"block_count", "nextn_predict_layers"};
    static const char *const latent[] = {"attention.head_count_kv", "attention.key_length",
                                         "attention.value_length", "attention.key_length_mla",
                                         "attention.value_length_mla"};
    for (size_t i = 0; i < MFI_ARRAY_LEN(always); i++)
        if (strcmp(suffix, always[i]) == 0)
            return true;
    for (size_t i = 0; i < MFI_ARRAY_LEN(latent) && model->shape.latent_kv; i++)
        if (strcmp(suffix, latent[i]) == 0)
            return true;
    return false;
}

/* The key's name, NULL if it comes with the source's metadata. */
static const char *own(keys *k, const char *suffix)
{
    mfi_meta_array array;
    const mfi_catalog *c = k->model->catalog;
    snprintf(k->name, sizeof k->name, "%s.%s", k->arch, suffix);
    bool said = mfi_json_typeof(mfi_json_get(mfi_catalog_meta(c), k->name)) != MFI_JSON_NULL ||
                (mfi_catalog_meta(c) && mfi_catalog_meta_array(c, k->name, &array));
    return said && !is_written(k->model, suffix) ? NULL : k->name;
}

static void put_u32(keys *k, const char *suffix, uint32_t value)
{
    const char *name = own(k, suffix);
    if (name)
        mfi_gguf_key_u32(k->out, name, value);
}

static void put_f32(keys *k, const char *suffix, double value)
{
    const char *name = own(k, suffix);
    if (name)
        mfi_gguf_key_f32(k->out, name, (float)value);
}

static void put_bool(keys *k, const char *suffix, bool value)
{
    const char *name = own(k, suffix);
    if (name)
        mfi_gguf_key_bool(k->out, name, value);
}

static void put_str(keys *k, const char *suffix, const char *value)
{
    const char *name = own(k, suffix);
    if (name)
        mfi_gguf_key_str(k->out, name, value);
}

/* ---- a hybrid's layers ---- */

/* Every how many layers attention comes, if that is all there is to say; else 0. */
static uint32_t attention_interval(const mfi_model *model)
{
    uint32_t n = model->shape.n_layers, interval = 0;
    for (uint32_t i = 0; i < n && !interval; i++)
        if (model->mixer[i] == MFI_MIXER_ATTN)
            interval = i + 1;
    for (uint32_t i = 0; i < n && interval; i++)
        if ((model->mixer[i] == MFI_MIXER_ATTN) != ((i + 1) % interval == 0))
            interval = 0;
    return interval;
}

static void put_hybrid(keys *k, const mfi_model *model)
{
    const mfi_shape *s = &model->shape;
    uint32_t interval = attention_interval(model);
    put_u32(k, "ssm.conv_kernel", s->conv_kernel);
    put_u32(k, "ssm.state_size", s->gdn_k_dim);
    put_u32(k, "ssm.group_count", s->gdn_k_heads);
    put_u32(k, "ssm.time_step_rank", s->gdn_v_heads);
    put_u32(k, "ssm.inner_size", s->gdn_v_dim * s->gdn_v_heads);
    if (interval) {
        put_u32(k, "full_attention_interval", interval);
        return;
    }
    const char *name = own(k, "attention.recurrent_layers");
    if (!name)
        return;
    mfi_gguf_array(k->out, name, MFI_GGUF_UINT32, s->n_layers);
    for (uint32_t i = 0; i < s->n_layers; i++)
        mfi_gguf_put_u32(k->out, model->mixer[i] == MFI_MIXER_GDN);
}

/* How the rotary pairs are shared out over a picture's axes; all the same for text, but llama.cpp
 * wants to be told. */
static void put_sections(keys *k, const mfi_model *model)
{
    int32_t sections[N_ROPE_SECTIONS] = {11, 11, 10, 0}; /* of the published models */
    const mfi_json *config = mfi_catalog_config(model->catalog);
    const mfi_json *text = mfi_json_get(config, "text_config");
    const mfi_json *rope = mfi_json_get(text ? text : config, "rope_parameters");
    const mfi_json *list = mfi_json_get(rope, "mrope_section");
    const char *name = own(k, "rope.dimension_sections");
    if (!name)
        return;
    for (size_t i = 0; i < mfi_json_len(list) && i < N_ROPE_SECTIONS; i++) {
        int64_t v;
        if (mfi_json_i64(mfi_json_at(list, i), &v) && v >= 0 && v <= MFI_MAX_HEAD_DIM)
            sections[i] = (int32_t)v;
    }
    mfi_gguf_array(k->out, name, MFI_GGUF_INT32, N_ROPE_SECTIONS);
    for (size_t i = 0; i < N_ROPE_SECTIONS; i++)
        mfi_gguf_put_i32(k->out, sections[i]);
}

/* ---- attention ---- */

/* Heads as they are in the latent space, and beside them those of the model. */
static void put_latent(keys *k, const mfi_shape *s)
{
    put_u32(k, "attention.head_count_kv", 1);
    put_u32(k, "attention.key_length", s->latent_kv + s->n_rot);
    put_u32(k, "attention.value_length", s->latent_kv);
    put_u32(k, "attention.key_length_mla", s->nope_dim + s->n_rot);
    put_u32(k, "attention.value_length_mla", s->v_dim);
    put_u32(k, "attention.kv_lora_rank", s->latent_kv);
    if (s->latent_q)
        put_u32(k, "attention.q_lora_rank", s->latent_q);
}

static void put_rope(keys *k, const mfi_shape *s)
{
    const mfi_rope *r = &s->rope;
    put_f32(k, "rope.freq_base", r->theta);
    put_u32(k, "rope.dimension_count", s->n_rot);
    if (r->kind != MFI_ROPE_LINEAR && r->kind != MFI_ROPE_YARN)
        return;
    put_str(k, "rope.scaling.type", r->kind == MFI_ROPE_YARN ? "yarn" : "linear");
    put_f32(k, "rope.scaling.factor", r->factor);
    if (r->kind == MFI_ROPE_LINEAR)
        return;
    put_u32(k, "rope.scaling.original_context_length", r->original_ctx);
    put_f32(k, "rope.scaling.yarn_beta_fast", r->beta_fast);
    put_f32(k, "rope.scaling.yarn_beta_slow", r->beta_slow);
    if (r->exact)
        put_bool(k, "rope.scaling.yarn_truncate", false);
    double usual = mfi_rope_mscale(r->factor, 1);
    if (s->latent_kv && r->mscale_all_dim > 0)
        put_f32(k, "rope.scaling.yarn_log_multiplier", 0.1 * r->mscale_all_dim);
    else if (fabs(r->attn_factor / usual - 1) > 1e-6)
        put_f32(k, "rope.scaling.attn_factor", r->attn_factor / usual);
}

/* The divisor whose reciprocal is this very number. */
static float divisor(float scale)
{
    float d = 1 / scale, up = nextafterf(d, INFINITY), down = nextafterf(d, 0);
    return 1 / d == scale ? d : 1 / up == scale ? up : down;
}

static void put_scales(keys *k, const mfi_shape *s)
{
    put_f32(k, "attention.scale", (double)s->attn_scale);
    put_f32(k, "embedding_scale", (double)s->embed_scale);
    put_f32(k, "residual_scale", (double)s->residual_scale);
    put_f32(k, "logit_scale", (double)divisor(s->logit_scale));
}

/* ---- experts ---- */

enum { GATING_SOFTMAX = 1, GATING_SIGMOID = 2 };

/* Families whose files say how they route. */
static void put_routing(keys *k, const mfi_model *model)
{
    const mfi_shape *s = &model->shape;
    const mfi_routing *r = &s->routing;
    uint32_t n_dense = 0;
    bool said = model->arch->mlx.float_router;
    if (said || r->score == MFI_SCORE_SIGMOID)
        put_u32(k, "expert_gating_func",
                r->score == MFI_SCORE_SIGMOID ? GATING_SIGMOID : GATING_SOFTMAX);
    if (!said)
        return;
    while (n_dense < s->n_layers && model->ffn[n_dense] == MFI_FFN_DENSE)
        n_dense++;
    put_u32(k, "leading_dense_block_count", n_dense);
    put_u32(k, "expert_shared_count", s->shared_width / s->expert_width);
    put_f32(k, "expert_weights_scale", (double)r->scale);
    put_bool(k, "expert_weights_norm", r->normalize);
    if (r->n_groups > 1) {
        put_u32(k, "expert_group_count", r->n_groups);
        put_u32(k, "expert_group_used_count", r->n_groups_used);
    }
}

static void put_experts(keys *k, const mfi_model *model)
{
    const mfi_shape *s = &model->shape;
    put_u32(k, "expert_count", s->n_experts);
    put_u32(k, "expert_used_count", s->top_k);
    put_u32(k, "expert_feed_forward_length", s->expert_width);
    if (s->shared_width)
        put_u32(k, "expert_shared_feed_forward_length", s->shared_width);
    /* Of dense layers; where there are none some families take it for the experts'. */
    put_u32(k, "feed_forward_length", s->dense_width ? s->dense_width : s->expert_width);
    put_routing(k, model);
}

static void put_arch(keys *k, const mfi_model *model)
{
    const mfi_shape *s = &model->shape;
    put_u32(k, "block_count", s->n_layers);
    put_u32(k, "context_length", model->ctx_model);
    put_u32(k, "embedding_length", s->hidden);
    put_u32(k, "vocab_size", s->n_vocab);
    put_u32(k, "attention.head_count", s->n_head);
    if (s->latent_kv) {
        put_latent(k, s);
    } else {
        put_u32(k, "attention.head_count_kv", s->n_kv_head);
        put_u32(k, "attention.key_length", s->head_dim);
        put_u32(k, "attention.value_length", s->head_dim);
    }
    put_f32(k, "attention.layer_norm_rms_epsilon", (double)s->eps);
    if (s->window)
        put_u32(k, "attention.sliding_window", s->window);
    put_rope(k, s);
    if (model->arch == &mfi_arch_granitemoe)
        put_scales(k, s);
    put_experts(k, model);
    if (s->gdn_v_heads)
        put_hybrid(k, model);
    if (model->arch == &mfi_arch_qwen3_5_moe)
        put_sections(k, model);
}

/* ---- from another GGUF file ---- */

static bool handed_on(const mfi_model *model, const char *key)
{
    static const char *const not [] = {"general.architecture",
                                       "general.type",
                                       "general.file_type",
                                       "general.alignment",
                                       "general.quantization_version",
                                       "general.quantized_by"};
    for (size_t i = 0; i < MFI_ARRAY_LEN(not ); i++)
        if (strcmp(key, not [i]) == 0)
            return false;
    size_t n = strlen(model->arch->gguf_arch);
    if (strncmp(key, model->arch->gguf_arch, n) == 0 && key[n] == '.')
        return !is_written(model, key + n + 1);
    return strncmp(key, "general.", 8) == 0 || strncmp(key, "tokenizer.", 10) == 0;
}

static mf_status skip_value(mfi_gguf_reader *r, uint32_t type, uint32_t *element)
{
    uint64_t n = 1;
    *element = type;
    if (type == MFI_GGUF_ARRAY) {
        MFI_TRY(mfi_gguf_u32(r, element));
        MFI_TRY(mfi_gguf_u64(r, &n));
    }
    uint32_t width = mfi_gguf_type_bytes(*element);
    uint64_t bytes;
    if (width) {
        if (mfi_mul_overflow(n, width, &bytes))
            return mfi_gguf_fail(r, MF_ERR_FORMAT, r->at, "an array's size overflows");
        return mfi_gguf_skip(r, bytes);
    }
    for (uint64_t i = 0; i < n; i++) { /* strings: the reader refused all else when it was opened */
        MFI_TRY(mfi_gguf_u64(r, &bytes));
        MFI_TRY(mfi_gguf_skip(r, bytes));
    }
    return MF_OK;
}

static mf_status hand_on(mfi_gguf_reader *r, const mfi_model *model, mfi_gguf_out *out)
{
    uint64_t n_keys;
    mfi_buf key = {0};
    mf_status status = mfi_gguf_skip(r, HEADER_BYTES - sizeof n_keys);
    if (status == MF_OK)
        status = mfi_gguf_u64(r, &n_keys);
    for (uint64_t i = 0; status == MF_OK && i < n_keys; i++) {
        uint32_t type = 0, element;
        status = mfi_gguf_name(r, KEY_BYTES_MAX, &key);
        if (status == MF_OK)
            status = mfi_gguf_u32(r, &type);
        uint64_t begin = r->at;
        if (status == MF_OK)
            status = skip_value(r, type, &element);
        if (status == MF_OK && handed_on(model, key.data))
            status = mfi_gguf_key_copy(out, key.data, (mfi_gguf_type)type, r->file, begin,
                                       r->at - begin, r->err);
    }
    mfi_buf_free(&key);
    return status;
}

static mf_status copy_keys(mfi_gguf_out *out, const mfi_model *model, mf_error *err)
{
    mfi_gguf_reader *r = calloc(1, sizeof *r);
    if (!r)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory to read metadata");
    r->file = mfi_catalog_file(model->catalog, 0);
    r->err = err;
    mf_status status = hand_on(r, model, out);
    free(r);
    return status;
}

mf_status mfi_gk_model(mfi_gguf_out *out, const mfi_model *model, const mfi_gp_target *target,
                       mf_error *err)
{
    keys k = {.out = out, .model = model, .arch = model->arch->gguf_arch};
    mfi_gguf_key_str(out, "general.architecture", k.arch);
    mfi_gguf_key_str(out, "general.type", "model");
    mfi_gguf_key_u32(out, "general.file_type", target->file_type);
    if (QUANTISED(target))
        mfi_gguf_key_u32(out, "general.quantization_version", QUANT_VERSION);
    put_arch(&k, model);
    if (mfi_catalog_meta(model->catalog))
        return copy_keys(out, model, err);
    return mfi_gk_vocab(out, model, err);
}
