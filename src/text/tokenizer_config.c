/* tokenizer_config.json and chat_template.jinja: the chat template and the named special tokens.
 *
 * Runs inside mf_tokenizer_open; both files may be missing. */
#include "os/file.h"
#include "text/tokenizer_int.h"

#include <stdlib.h>
#include <string.h>

#define TEMPLATE_FILE_BYTES_MAX ((uint64_t)1 << 20)

static mf_status no_memory(mf_error *err)
{
    return mfi_fail(err, MF_ERR_NO_MEMORY, "tokenizer_config.json: out of memory");
}

/* A copy of the string behind a span; NULL in *out if it isn't one. */
static mf_status copy_string(mfi_json_span span, char **out, size_t *len, mf_error *err)
{
    mfi_buf text = {0};
    *out = NULL;
    if (!span.text || mfi_json_span_type(span) != MFI_JSON_STRING)
        return MF_OK;
    mfi_buf_append(&text, "", 0);
    if (!mfi_json_span_str(span, &text) || text.failed) {
        mfi_buf_free(&text);
        return no_memory(err);
    }
    *out = text.data;
    *len = text.len;
    return MF_OK;
}

/* A string, or a list of {"name", "template"} of which "default" counts. */
static mf_status read_template(mf_tokenizer *tokenizer, mfi_json_span value, mf_error *err)
{
    if (value.text && mfi_json_span_type(value) == MFI_JSON_ARRAY) {
        mfi_json_iter it = mfi_json_span_iter(value);
        mfi_json_span entry, found = {0};
        while (mfi_json_array_next(&it, &entry))
            if (mfi_json_span_type(entry) == MFI_JSON_OBJECT &&
                mfi_json_span_is(mfi_json_span_get(entry, "name"), "default"))
                found = mfi_json_span_get(entry, "template");
        value = found;
    }
    return copy_string(value, &tokenizer->chat_template, &tokenizer->chat_template_len, err);
}

/* "<s>" or {"content": "<s>", ...} */
static mf_status read_named(mf_tokenizer *tokenizer, mfi_json_span root, mf_error *err)
{
    static const char *const names[] = {
#define NAME(name) #name,
        MFI_TOKEN_NAMES(NAME)
#undef NAME
    };
    for (size_t i = 0; i < MFI_N_NAMED_TOKENS; i++) {
        size_t len;
        mfi_json_span value = mfi_json_span_get(root, names[i]);
        if (value.text && mfi_json_span_type(value) == MFI_JSON_OBJECT)
            value = mfi_json_span_get(value, "content");
        MFI_TRY(copy_string(value, &tokenizer->named[i], &len, err));
    }
    return MF_OK;
}

static mf_status read_config(mf_tokenizer *tokenizer, const char *path, mf_error *err)
{
    char *json;
    size_t len;
    MFI_TRY(mfi_file_read_all(path, MFI_MAX_JSON_BYTES, &json, &len, err));
    mf_status status = mfi_json_scan_any_int(json, len, path, err);
    mfi_json_span root = status == MF_OK ? mfi_json_root(json, len) : (mfi_json_span){0};
    if (status == MF_OK && mfi_json_span_type(root) != MFI_JSON_OBJECT)
        status = mfi_fail(err, MF_ERR_FORMAT, "%s: not an object", path);
    if (status == MF_OK)
        status = read_named(tokenizer, root, err);
    if (status == MF_OK && !tokenizer->chat_template)
        status = read_template(tokenizer, mfi_json_span_get(root, "chat_template"), err);
    free(json);
    return status;
}

mf_status mfi_tokenizer_read_config(mf_tokenizer *tokenizer, const char *dir, mf_error *err)
{
    char *config = mfi_path_join(dir, "tokenizer_config.json");
    char *jinja = mfi_path_join(dir, "chat_template.jinja");
    mf_status status = MF_OK;
    if (!config || !jinja)
        status = no_memory(err);
    /* The file of its own wins, as in transformers. */
    if (status == MF_OK && mfi_file_exists(jinja))
        status = mfi_file_read_all(jinja, TEMPLATE_FILE_BYTES_MAX, &tokenizer->chat_template,
                                   &tokenizer->chat_template_len, err);
    if (status == MF_OK && mfi_file_exists(config))
        status = read_config(tokenizer, config, err);
    free(config);
    free(jinja);
    return status;
}
