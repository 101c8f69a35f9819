/* Writes the files beside the weights; see sidecar.h. Called by the converter's driver, on its
 * thread.
 *
 * config.json keeps the text of every member as it stands, so that no number changes its form. */
#include "convert/sidecar.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_BYTES_MAX (64 * MFI_MIB)
#define COPY_BYTES       (64 * MFI_KIB)

static mf_status no_memory(mf_error *err, const char *dir, const char *name)
{
    return mfi_fail(err, MF_ERR_NO_MEMORY, "%s/%s: out of memory", dir, name);
}

mf_status mfi_cv_write_text(const mfi_buf *text, const char *dir, const char *name, mf_error *err)
{
    char *path = mfi_path_join(dir, name);
    if (!path || text->failed) {
        free(path);
        return no_memory(err, dir, name);
    }
    mfi_out out;
    mf_status status = mfi_out_create(&out, path, text->len, err);
    if (status == MF_OK) {
        status = mfi_out_write(&out, text->data, text->len, 0, err);
        if (status == MF_OK)
            status = mfi_out_finish(&out, err);
        else
            mfi_out_close(&out);
    }
    free(path);
    return status;
}

/* ---- config.json ---- */

static void put_quantization(const mfi_mp *plan, const char *key, mfi_buf *out)
{
    mfi_buf_fmt(out,
                "  \"%s\": {\n    \"group_size\": %" PRIu32 ",\n    \"bits\": %" PRIu32
                ",\n    \"mode\": \"affine\"",
                key, plan->group, plan->bits);
    for (uint32_t i = 0; i < plan->gp.n_tensors; i++) {
        const mfi_gp_tensor *t = &plan->gp.tensors[i];
        if (t->type.kind != MFI_Q_MLX ||
            (t->type.bits == plan->bits && t->type.group == plan->group))
            continue;
        mfi_buf_str(out, ",\n    ");
        mfi_json_put_str(out, t->name, strlen(t->name));
        mfi_buf_fmt(out, ": {\"group_size\": %u, \"bits\": %u}", t->type.group, t->type.bits);
    }
    mfi_buf_str(out, "\n  }");
}

static bool left_out(mfi_json_span key)
{
    /* The vision part isn't converted; the rest is written anew. */
    return mfi_json_span_is(key, "vision_config") || mfi_json_span_is(key, "quantization") ||
           mfi_json_span_is(key, "quantization_config");
}

/* The members of an object but those left out; the text model's own are looked through as well. */
static void put_members(mfi_json_span object, const char *model_type, mfi_buf *out)
{
    mfi_json_span key, value;
    for (mfi_json_iter it = mfi_json_span_iter(object); mfi_json_object_next(&it, &key, &value);) {
        if (left_out(key))
            continue;
        mfi_buf_fmt(out, "  %.*s: ", (int)key.len, key.text);
        if (model_type && mfi_json_span_is(key, "model_type")) {
            mfi_buf_fmt(out, "\"%s\"", model_type);
        } else if (mfi_json_span_is(key, "text_config") &&
                   mfi_json_span_type(value) == MFI_JSON_OBJECT) {
            mfi_buf_str(out, "{\n");
            put_members(value, NULL, out);
            if (out->len > 2 && out->data[out->len - 2] == ',')
                out->len -= 2; /* the last comma */
            mfi_buf_str(out, "\n  }");
        } else {
            mfi_buf_append(out, value.text, value.len);
        }
        mfi_buf_str(out, ",\n");
    }
}

/* root: of config.json; empty: of none, and whatever is asked for is lacking. */
static void put_asked(const mfi_model *model, mfi_json_span root, mfi_buf *out)
{
    for (size_t i = 0; i < MFI_ARRAY_LEN(model->arch->mlx.asks); i++) {
        const char *key = model->arch->mlx.asks[i].key;
        if (key && !(root.text && mfi_json_span_get(root, key).text))
            mfi_buf_fmt(out, "  \"%s\": %s,\n", key, model->arch->mlx.asks[i].value);
    }
}

/* Newer config.json have some things elsewhere than where mlx-lm looks for them. */
static void put_older_names(const mfi_model *model, mfi_json_span root, mfi_buf *out)
{
    put_asked(model, root, out);
    mfi_json_span local = mfi_json_span_get(root, "num_local_experts");
    if (local.text && !mfi_json_span_get(root, "num_experts").text)
        mfi_buf_fmt(out, "  \"num_experts\": %.*s,\n", (int)local.len, local.text);
    static const char *const keys[] = {"rope_theta", "partial_rotary_factor"};
    mfi_json_span rope = mfi_json_span_get(root, "rope_parameters"), type = {0};
    if (rope.text && mfi_json_span_type(rope) == MFI_JSON_OBJECT)
        type = mfi_json_span_get(rope, "rope_type");
    if (type.text && !mfi_json_span_is(type, "default") &&
        !mfi_json_span_get(root, "rope_scaling").text)
        mfi_buf_fmt(out, "  \"rope_scaling\": %.*s,\n", (int)rope.len, rope.text);
    for (size_t i = 0; i < MFI_ARRAY_LEN(keys); i++) {
        if (!rope.text || mfi_json_span_type(rope) != MFI_JSON_OBJECT)
            return;
        mfi_json_span value = mfi_json_span_get(rope, keys[i]);
        if (value.text && !mfi_json_span_get(root, keys[i]).text)
            mfi_buf_fmt(out, "  \"%s\": %.*s,\n", keys[i], (int)value.len, value.text);
    }
}

static mf_status put_source(const mfi_model *model, const char *path, mfi_buf *out, mf_error *err)
{
    char *text = NULL;
    size_t len;
    if (mfi_catalog_meta(model->catalog)) {
        mfi_buf said = {0};
        mf_status status = mfi_model_say_config(model, &said, err);
        mfi_buf_append(out, said.data ? said.data : "", said.len);
        put_asked(model, (mfi_json_span){0}, out);
        mfi_buf_free(&said);
        return status;
    }
    mf_status status = mfi_file_read_all(path, CONFIG_BYTES_MAX, &text, &len, err);
    if (status == MF_OK)
        status = mfi_json_scan(text, len, path, err);
    if (status == MF_OK && mfi_json_span_type(mfi_json_root(text, len)) != MFI_JSON_OBJECT)
        status = mfi_fail(err, MF_ERR_FORMAT, "%s: not an object", path);
    if (status == MF_OK) {
        mfi_json_span root = mfi_json_root(text, len);
        bool nested = mfi_json_span_get(root, "text_config").text != NULL;
        put_members(root, nested ? NULL : model->arch->mlx.model_type, out);
        if (!nested)
            put_older_names(model, root, out);
    }
    free(text);
    return status;
}

mf_status mfi_cv_write_config(const mfi_mp *plan, const mfi_model *model, const char *in_path,
                              const char *out_path, mf_error *err)
{
    mfi_buf out = {0};
    char *path = mfi_path_join(in_path, "config.json");
    if (!path)
        return no_memory(err, in_path, "config.json");
    mfi_buf_str(&out, "{\n");
    mf_status status = put_source(model, path, &out, err);
    put_quantization(plan, "quantization", &out);
    mfi_buf_str(&out, ",\n");
    put_quantization(plan, "quantization_config", &out);
    mfi_buf_str(&out, "\n}\n");
    if (status == MF_OK)
        status = mfi_cv_write_text(&out, out_path, "config.json", err);
    mfi_buf_free(&out);
    free(path);
    return status;
}

/* ---- the index ---- */

mf_status mfi_cv_write_index(const mfi_mp *plan, const char *out_path, mf_error *err)
{
    if (plan->n_shards < 2)
        return MF_OK;
    uint64_t total = 0;
    for (uint32_t s = 0; s < plan->n_shards; s++)
        total += plan->shards[s].bytes;
    mfi_buf out = {0};
    mfi_buf_fmt(&out, "{\n  \"metadata\": {\"total_size\": %" PRIu64 "},\n  \"weight_map\": {\n",
                total);
    const char *comma = "    ";
    for (uint32_t s = 0; s < plan->n_shards; s++) {
        const mfi_mp_shard *shard = &plan->shards[s];
        for (uint32_t i = 0; i < shard->n_entries; i++) {
            mfi_buf_str(&out, comma);
            mfi_json_put_str(&out, shard->entries[i].name, strlen(shard->entries[i].name));
            mfi_buf_fmt(&out, ": \"%s\"", shard->name);
            comma = ",\n    ";
        }
    }
    mfi_buf_str(&out, "\n  }\n}\n");
    mf_status status = mfi_cv_write_text(&out, out_path, "model.safetensors.index.json", err);
    mfi_buf_free(&out);
    return status;
}

/* ---- copies ---- */

typedef struct copier {
    const char *in_path, *out_path;
    unsigned char *buffer; /* [COPY_BYTES] */
} copier;

static bool is_copied(const char *name)
{
    static const char *const names[] = {
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "tiktoken.model",
        "vocab.json",
        "merges.txt",
        "special_tokens_map.json",
        "added_tokens.json",
        "generation_config.json",
        "chat_template.jinja",
        "chat_template.json",
    };
    static const char *const prefixes[] = {"LICENSE", "LICENCE", "COPYING", "NOTICE", "README"};
    for (size_t i = 0; i < MFI_ARRAY_LEN(names); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    for (size_t i = 0; i < MFI_ARRAY_LEN(prefixes); i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}

static mf_status copy_bytes(const mfi_file *in, mfi_out *out, unsigned char *buffer, mf_error *err)
{
    for (uint64_t at = 0, n; at < in->size; at += n) {
        n = MFI_MIN(in->size - at, (uint64_t)COPY_BYTES);
        MFI_TRY(mfi_file_read(in, buffer, n, at, err));
        MFI_TRY(mfi_out_write(out, buffer, n, at, err));
    }
    return MF_OK;
}

static mf_status copy_any(void *ctx, const char *name, mf_error *err)
{
    const copier *c = ctx;
    char *from = mfi_path_join(c->in_path, name), *to = mfi_path_join(c->out_path, name);
    mf_status status = from && to ? MF_OK : no_memory(err, c->in_path, name);
    mfi_file in = {.fd = -1};
    mfi_out out = {.fd = -1};
    if (status == MF_OK)
        status = mfi_file_open(&in, from, err);
    if (status == MF_OK)
        status = mfi_out_create(&out, to, in.size, err);
    if (status == MF_OK)
        status = copy_bytes(&in, &out, c->buffer, err);
    if (status == MF_OK)
        status = mfi_out_finish(&out, err);
    mfi_out_close(&out);
    mfi_file_close(&in);
    free(from);
    free(to);
    return status;
}

static mf_status copy_file(void *ctx, const char *name, mf_error *err)
{
    return is_copied(name) ? copy_any(ctx, name, err) : MF_OK;
}

static mf_status copy_template(void *ctx, const char *name, mf_error *err)
{
    size_t len = strlen(name);
    bool is_template = len > 6 && strcmp(name + len - 6, ".jinja") == 0;
    return is_template ? copy_any(ctx, name, err) : MF_OK;
}

static mf_status copy_templates(copier *c, mf_error *err)
{
    static const char folder[] = "additional_chat_templates";
    char *from = mfi_path_join(c->in_path, folder), *to = mfi_path_join(c->out_path, folder);
    copier inside = {from, to, c->buffer};
    mf_status status = from && to ? MF_OK : no_memory(err, c->in_path, folder);
    if (status == MF_OK && mfi_dir_exists(from)) {
        status = mfi_dir_create(to, err);
        if (status == MF_OK)
            status = mfi_dir_each_file(from, copy_template, &inside, err);
    }
    free(from);
    free(to);
    return status;
}

mf_status mfi_cv_copy_file(const char *in_path, const char *out_path, const char *name,
                           mf_error *err)
{
    copier c = {in_path, out_path, malloc(COPY_BYTES)};
    if (!c.buffer)
        return no_memory(err, in_path, name);
    mf_status status = copy_any(&c, name, err);
    free(c.buffer);
    return status;
}

mf_status mfi_cv_copy_files(const char *in_path, const char *out_path, mf_error *err)
{
    copier c = {in_path, out_path, malloc(COPY_BYTES)};
    if (!c.buffer)
        return no_memory(err, in_path, "");
    mf_status status = mfi_dir_each_file(in_path, copy_file, &c, err);
    if (status == MF_OK)
        status = copy_templates(&c, err);
    free(c.buffer);
    return status;
}
