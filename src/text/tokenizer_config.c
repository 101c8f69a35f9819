/* tokenizer_config.json, chat_template.jinja and additional_chat_templates/: the chat templates and
 * the named special tokens.
 *
 * Runs inside mf_tokenizer_open; all of them may be missing. */
#include "base/limits.h"
#include "os/file.h"
#include "text/tokenizer_int.h"

#include <stdlib.h>
#include <string.h>

static mf_status no_memory(mf_error *err)
{
    return mfi_fail(err, MF_ERR_NO_MEMORY, "tokenizer_config.json: out of memory");
}

/* Puts a copy of the string behind a span in place of *out, which stays if it isn't one. */
static mf_status copy_string(mfi_json_span span, char **out, size_t *len, mf_error *err)
{
    mfi_buf text = {0};
    if (!span.text || mfi_json_span_type(span) != MFI_JSON_STRING)
        return MF_OK;
    mfi_buf_append(&text, "", 0);
    if (!mfi_json_span_str(span, &text) || text.failed) {
        mfi_buf_free(&text);
        return no_memory(err);
    }
    free(*out);
    *out = text.data;
    *len = text.len;
    return MF_OK;
}

/* A string, or a list of {"name", "template"} of which "default" and "tool_use" count. */
static mf_status read_template(mf_tokenizer *tokenizer, mfi_json_span value, mf_error *err)
{
    mfi_json_span tools = {0};
    if (value.text && mfi_json_span_type(value) == MFI_JSON_ARRAY) {
        mfi_json_iter it = mfi_json_span_iter(value);
        mfi_json_span entry, found = {0};
        while (mfi_json_array_next(&it, &entry)) {
            if (mfi_json_span_type(entry) != MFI_JSON_OBJECT)
                continue;
            mfi_json_span name = mfi_json_span_get(entry, "name");
            if (name.text && mfi_json_span_is(name, "default"))
                found = mfi_json_span_get(entry, "template");
            if (name.text && mfi_json_span_is(name, "tool_use"))
                tools = mfi_json_span_get(entry, "template");
        }
        value = found;
    }
    MFI_TRY(copy_string(tools, &tokenizer->tool_template, &tokenizer->tool_template_len, err));
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
    if (status == MF_OK && !tokenizer->chat_template && !tokenizer->tool_template)
        status = read_template(tokenizer, mfi_json_span_get(root, "chat_template"), err);
    free(json);
    return status;
}

/* A template in a file of its own, if it is there. */
static mf_status read_file(const char *dir, const char *name, char **out, size_t *len,
                           mf_error *err)
{
    char *path = mfi_path_join(dir, name);
    if (!path)
        return no_memory(err);
    mf_status status = MF_OK;
    if (mfi_file_exists(path))
        status = mfi_file_read_all(path, MFI_MAX_TEMPLATE_BYTES, out, len, err);
    free(path);
    return status;
}

mf_status mfi_tokenizer_read_config(mf_tokenizer *t, const char *dir, mf_error *err)
{
    /* Files of their own win, as in transformers. */
    MFI_TRY(read_file(dir, "chat_template.jinja", &t->chat_template, &t->chat_template_len, err));
    MFI_TRY(read_file(dir, "additional_chat_templates/tool_use.jinja", &t->tool_template,
                      &t->tool_template_len, err));
    char *config = mfi_path_join(dir, "tokenizer_config.json");
    mf_status status = config ? MF_OK : no_memory(err);
    if (status == MF_OK && mfi_file_exists(config))
        status = read_config(t, config, err);
    free(config);
    return status;
}
