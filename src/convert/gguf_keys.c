/* Metadata of GGUF files; see gguf_keys.h. Called by the converter's driver once a file. The keys
 * are those that llama.cpp's loader asks for (docs/formats.md). A source that is GGUF itself hands
 * on its tokenizer and its general keys byte for byte. */
#include "convert/gguf_keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/gguf_read.h"

#define HEADER_BYTES      24
#define KEY_BYTES_MAX     65535
#define QUANT_VERSION     2
#define N_ROPE_SECTIONS   4
#define QUANTISED(target) ((target)->type.kind == MFI_Q_GGML)

typedef struct keys {
    mfi_gguf_out *out;
    const char *arch;
    char name[160];
} keys;

static const char *own(keys *k, const char *suffix)
{
    snprintf(k->name, sizeof k->name, "%s.%s", k->arch, suffix);
    return k->name;
}

static void put_u32(keys *k, const char *suffix, uint32_t value)
{
    mfi_gguf_key_u32(k->out, own(k, suffix), value);
}

static void put_f32(keys *k, const char *suffix, float value)
{
    mfi_gguf_key_f32(k->out, own(k, suffix), value);
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
    mfi_gguf_array(k->out, own(k, "attention.recurrent_layers"), MFI_GGUF_UINT32, s->n_layers);
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
    const mfi_json *meta = mfi_catalog_meta(model->catalog);
    if (meta)
        list = mfi_json_get(meta, own(k, "rope.dimension_sections"));
    for (size_t i = 0; i < mfi_json_len(list) && i < N_ROPE_SECTIONS; i++) {
        int64_t v;
        if (mfi_json_i64(mfi_json_at(list, i), &v) && v >= 0 && v <= MFI_MAX_HEAD_DIM)
            sections[i] = (int32_t)v;
    }
    mfi_gguf_array(k->out, own(k, "rope.dimension_sections"), MFI_GGUF_INT32, N_ROPE_SECTIONS);
    for (size_t i = 0; i < N_ROPE_SECTIONS; i++)
        mfi_gguf_put_i32(k->out, sections[i]);
}

static void put_arch(keys *k, const mfi_model *model)
{
    const mfi_shape *s = &model->shape;
    put_u32(k, "block_count", s->n_layers);
    put_u32(k, "context_length", model->ctx_model);
    put_u32(k, "embedding_length", s->hidden);
    put_u32(k, "vocab_size", s->n_vocab);
    /* Of dense layers, which there are none of; readers want some number. */
    put_u32(k, "feed_forward_length", s->expert_width * s->top_k);
    put_u32(k, "attention.head_count", s->n_head);
    put_u32(k, "attention.head_count_kv", s->n_kv_head);
    put_u32(k, "attention.key_length", s->head_dim);
    put_u32(k, "attention.value_length", s->head_dim);
    put_f32(k, "attention.layer_norm_rms_epsilon", s->eps);
    put_f32(k, "rope.freq_base", (float)s->rope.theta);
    put_u32(k, "rope.dimension_count", s->n_rot);
    put_u32(k, "expert_count", s->n_experts);
    put_u32(k, "expert_used_count", s->top_k);
    put_u32(k, "expert_feed_forward_length", s->expert_width);
    if (s->shared_width)
        put_u32(k, "expert_shared_feed_forward_length", s->shared_width);
    if (s->gdn_v_heads)
        put_hybrid(k, model);
    if (model->arch == &mfi_arch_qwen3_5_moe)
        put_sections(k, model);
}

/* ---- from another GGUF file ---- */

static bool handed_on(const char *key)
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

static mf_status hand_on(mfi_gguf_reader *r, mfi_gguf_out *out)
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
        if (status == MF_OK && handed_on(key.data))
            status = mfi_gguf_key_copy(out, key.data, (mfi_gguf_type)type, r->file, begin,
                                       r->at - begin, r->err);
    }
    mfi_buf_free(&key);
    return status;
}

static mf_status copy_keys(mfi_gguf_out *out, const mfi_catalog *catalog, mf_error *err)
{
    mfi_gguf_reader *r = calloc(1, sizeof *r);
    if (!r)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory to read metadata");
    r->file = mfi_catalog_file(catalog, 0);
    r->err = err;
    mf_status status = hand_on(r, out);
    free(r);
    return status;
}

mf_status mfi_gk_model(mfi_gguf_out *out, const mfi_model *model, const mfi_gp_target *target,
                       mf_error *err)
{
    keys k = {.out = out, .arch = model->arch->gguf_arch};
    mfi_gguf_key_str(out, "general.architecture", k.arch);
    mfi_gguf_key_str(out, "general.type", "model");
    mfi_gguf_key_u32(out, "general.file_type", target->file_type);
    if (QUANTISED(target))
        mfi_gguf_key_u32(out, "general.quantization_version", QUANT_VERSION);
    put_arch(&k, model);
    if (mfi_catalog_meta(model->catalog))
        return copy_keys(out, model->catalog, err);
    return mfi_gk_vocab(out, model, err);
}
