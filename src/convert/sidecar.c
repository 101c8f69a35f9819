/* Writes the files beside the weights; see sidecar.h. Called by the converter's driver, on its
 * thread.
 *
 * config.json keeps the text of every member as it stands, so that no number changes its form. */
#include "convert/sidecar.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_BYTES_MAX (64 * MFI_MIB)

static mf_status no_memory(mf_error *err, const char *dir, const char *name)
{
    return mfi_fail(err, MF_ERR_NO_MEMORY, "%s/%s: out of memory", dir, name);
}

static mf_status write_text(const mfi_buf *text, const char *dir, const char *name, mf_error *err)
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

static void put_quantization(const mfi_cv_plan *plan, const char *key, mfi_buf *out)
{
    mfi_buf_fmt(out,
                "  \"%s\": {\n    \"group_size\": %" PRIu32 ",\n    \"bits\": %" PRIu32
                ",\n    \"mode\": \"affine\"",
                key, plan->group, plan->bits);
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const mfi_cv_tensor *t = &plan->tensors[i];
        if (t->op != MFI_CV_OP_QUANTISE ||
            (t->out.bits == plan->bits && t->out.group == plan->group))
            continue;
        mfi_buf_str(out, ",\n    ");
        mfi_json_put_str(out, t->name, strlen(t->name));
        mfi_buf_fmt(out, ": {\"group_size\": %u, \"bits\": %u}", t->out.group, t->out.bits);
    }
    mfi_buf_str(out, "\n  }");
}

static bool left_out(mfi_json_span key)
{
    /* The vision part isn't converted; the rest is written anew. */
    return mfi_json_span_is(key, "vision_config") || mfi_json_span_is(key, "quantization") ||
           mfi_json_span_is(key, "quantization_config");
}

static void put_config(const mfi_cv_plan *plan, mfi_json_span root, mfi_buf *out)
{
    bool nested = mfi_json_span_get(root, "text_config").text != NULL;
    mfi_json_span key, value;
    mfi_buf_str(out, "{\n");
    for (mfi_json_iter it = mfi_json_span_iter(root); mfi_json_object_next(&it, &key, &value);) {
        if (left_out(key))
            continue;
        mfi_buf_fmt(out, "  %.*s: ", (int)key.len, key.text);
        if (!nested && mfi_json_span_is(key, "model_type"))
            mfi_buf_str(out, "\"" MFI_CV_MODEL_TYPE "\"");
        else
            mfi_buf_append(out, value.text, value.len);
        mfi_buf_str(out, ",\n");
    }
    put_quantization(plan, "quantization", out);
    mfi_buf_str(out, ",\n");
    put_quantization(plan, "quantization_config", out);
    mfi_buf_str(out, "\n}\n");
}

mf_status mfi_cv_write_config(const mfi_cv_plan *plan, const char *in_path, const char *out_path,
                              mf_error *err)
{
    char *path = mfi_path_join(in_path, "config.json"), *text = NULL;
    if (!path)
        return no_memory(err, in_path, "config.json");
    size_t len;
    mf_status status = mfi_file_read_all(path, CONFIG_BYTES_MAX, &text, &len, err);
    if (status == MF_OK)
        status = mfi_json_scan(text, len, path, err);
    if (status == MF_OK && mfi_json_span_type(mfi_json_root(text, len)) != MFI_JSON_OBJECT)
        status = mfi_fail(err, MF_ERR_FORMAT, "%s: not an object", path);
    if (status == MF_OK) {
        mfi_buf out = {0};
        put_config(plan, mfi_json_root(text, len), &out);
        status = write_text(&out, out_path, "config.json", err);
        mfi_buf_free(&out);
    }
    free(text);
    free(path);
    return status;
}

/* ---- the index ---- */

mf_status mfi_cv_write_index(const mfi_cv_plan *plan, const char *out_path, mf_error *err)
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
        const mfi_cv_shard *shard = &plan->shards[s];
        for (uint32_t i = 0; i < shard->n_entries; i++) {
            mfi_buf_str(&out, comma);
            mfi_json_put_str(&out, shard->entries[i].name, strlen(shard->entries[i].name));
            mfi_buf_fmt(&out, ": \"%s\"", shard->name);
            comma = ",\n    ";
        }
    }
    mfi_buf_str(&out, "\n  }\n}\n");
    mf_status status = write_text(&out, out_path, "model.safetensors.index.json", err);
    mfi_buf_free(&out);
    return status;
}

/* ---- copies ---- */

typedef struct copier {
    const char *in_path, *out_path;
    const mfi_cv_buffers *buffers;
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

static mf_status copy_bytes(const mfi_file *in, mfi_out *out, const mfi_cv_buffers *buffers,
                            mf_error *err)
{
    for (uint64_t at = 0, n; at < in->size; at += n) {
        n = MFI_MIN(in->size - at, buffers->bytes);
        MFI_TRY(mfi_file_read(in, buffers->base, n, at, err));
        MFI_TRY(mfi_out_write(out, buffers->base, n, at, err));
    }
    return MF_OK;
}

static mf_status copy_file(void *ctx, const char *name, mf_error *err)
{
    const copier *c = ctx;
    if (!is_copied(name))
        return MF_OK;
    char *from = mfi_path_join(c->in_path, name), *to = mfi_path_join(c->out_path, name);
    mf_status status = from && to ? MF_OK : no_memory(err, c->in_path, name);
    mfi_file in = {.fd = -1};
    mfi_out out = {.fd = -1};
    if (status == MF_OK)
        status = mfi_file_open(&in, from, err);
    if (status == MF_OK)
        status = mfi_out_create(&out, to, in.size, err);
    if (status == MF_OK)
        status = copy_bytes(&in, &out, c->buffers, err);
    if (status == MF_OK)
        status = mfi_out_finish(&out, err);
    mfi_out_close(&out);
    mfi_file_close(&in);
    free(from);
    free(to);
    return status;
}

mf_status mfi_cv_copy_files(const char *in_path, const char *out_path,
                            const mfi_cv_buffers *buffers, mf_error *err)
{
    copier c = {in_path, out_path, buffers};
    return mfi_dir_each_file(in_path, copy_file, &c, err);
}
