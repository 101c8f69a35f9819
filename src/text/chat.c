/* Conversations into text with a chat template, and that text into tokens.
 *
 * Makes the variables that transformers passes to a template and renders it; encodes by where each
 * byte came from. Any thread; the tree of a model's own template lives for one call. */
#include "text/chat.h"
#include "text/tokenizer_int.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

bool mf_tokenizer_has_chat_template(const mf_tokenizer *tokenizer)
{
    return tokenizer->chat_template || tokenizer->tool_template;
}

void mf_rendering_free(mf_rendering *rendering)
{
    if (!rendering)
        return;
    free(rendering->text);
    free(rendering->spans);
    *rendering = (mf_rendering){0};
}

/* ---- the variables ---- */

static mf_status check_text(const char *text, size_t i, const char *what, mf_error *err)
{
    if (!text)
        return mfi_fail(err, MF_ERR_ARGUMENT, "message %zu has no %s", i, what);
    size_t len = strlen(text), bad = mfi_utf8_check(text, len);
    if (bad < len)
        return mfi_fail(err, MF_ERR_ARGUMENT, "message %zu: %s is not UTF-8 at byte %zu", i, what,
                        bad);
    return MF_OK;
}

/* What a template calls the reasoning of earlier turns. */
static const char *reasoning_name(const mf_tokenizer *files)
{
    const char *source = files->chat_template ? files->chat_template : files->tool_template;
    bool usual = !source || strstr(source, "reasoning_content") || !strstr(source, ".thinking");
    return usual ? "reasoning_content" : "thinking";
}

static mf_status put_answer_parts(mfi_buf *vars, const mf_chat_message *m, size_t i,
                                  const char *name, mf_error *err)
{
    if (m->reasoning) {
        MFI_TRY(check_text(m->reasoning, i, "reasoning", err));
        mfi_buf_fmt(vars, ",\"%s\":", name);
        mfi_json_put_str(vars, m->reasoning, strlen(m->reasoning));
    }
    if (m->tool_calls) {
        size_t len = strlen(m->tool_calls);
        MFI_TRY(mfi_json_scan(m->tool_calls, len, "tool_calls", err));
        if (mfi_json_span_type(mfi_json_root(m->tool_calls, len)) != MFI_JSON_ARRAY)
            return mfi_fail(err, MF_ERR_FORMAT, "message %zu: tool_calls is no array", i);
        mfi_buf_str(vars, ",\"tool_calls\":");
        mfi_buf_append(vars, m->tool_calls, len);
    }
    return MF_OK;
}

static mf_status put_messages(mfi_buf *vars, const mf_chat_message *messages, size_t n,
                              const char *name, mf_error *err)
{
    mfi_buf_str(vars, "\"messages\":[");
    for (size_t i = 0; i < n; i++) {
        MFI_TRY(check_text(messages[i].role, i, "role", err));
        MFI_TRY(check_text(messages[i].content, i, "content", err));
        mfi_buf_str(vars, i ? ",{\"role\":" : "{\"role\":");
        mfi_json_put_str(vars, messages[i].role, strlen(messages[i].role));
        mfi_buf_str(vars, ",\"content\":");
        mfi_json_put_str(vars, messages[i].content, strlen(messages[i].content));
        MFI_TRY(put_answer_parts(vars, &messages[i], i, name, err));
        mfi_buf_str(vars, "}");
    }
    mfi_buf_str(vars, "]");
    return MF_OK;
}

static mf_status put_messages_json(mfi_buf *vars, const char *json, mf_error *err)
{
    MFI_TRY(mfi_json_scan(json, strlen(json), "messages", err));
    if (mfi_json_span_type(mfi_json_root(json, strlen(json))) != MFI_JSON_ARRAY)
        return mfi_fail(err, MF_ERR_FORMAT, "messages: not an array");
    mfi_buf_str(vars, "\"messages\":");
    mfi_buf_str(vars, json);
    return MF_OK;
}

/* The caller's own variables, and null for what transformers always passes. */
static mf_status put_others(mfi_buf *vars, const char *json, mf_error *err)
{
    static const char *const always[] = {"tools", "documents"};
    static const char *const ours[] = {"messages", "add_generation_prompt"};
    bool given[MFI_ARRAY_LEN(always)] = {false};
    if (json) {
        mfi_json_span key, value, root = mfi_json_root(json, strlen(json));
        MFI_TRY(mfi_json_scan(json, strlen(json), "variables", err));
        if (mfi_json_span_type(root) != MFI_JSON_OBJECT)
            return mfi_fail(err, MF_ERR_FORMAT, "variables: not an object");
        mfi_json_iter it = mfi_json_span_iter(root);
        while (mfi_json_object_next(&it, &key, &value)) {
            bool skip = false;
            for (size_t i = 0; i < MFI_ARRAY_LEN(ours); i++)
                skip |= mfi_json_span_is(key, ours[i]);
            for (size_t i = 0; i < MFI_ARRAY_LEN(always); i++)
                given[i] |= mfi_json_span_is(key, always[i]);
            if (skip)
                continue;
            mfi_buf_str(vars, ",");
            mfi_buf_append(vars, key.text, key.len);
            mfi_buf_str(vars, ":");
            mfi_buf_append(vars, value.text, value.len);
        }
    }
    for (size_t i = 0; i < MFI_ARRAY_LEN(always); i++)
        if (!given[i])
            mfi_buf_fmt(vars, ",\"%s\":null", always[i]);
    return MF_OK;
}

static mf_status make_vars(mfi_buf *vars, const mf_chat_message *messages, size_t n,
                           const mf_chat_options *options, const char *name, mf_error *err)
{
    mfi_buf_str(vars, "{");
    if (options->messages_json)
        MFI_TRY(put_messages_json(vars, options->messages_json, err));
    else
        MFI_TRY(put_messages(vars, messages, n, name, err));
    mfi_buf_fmt(vars, ",\"add_generation_prompt\":%s",
                options->no_generation_prompt ? "false" : "true");
    MFI_TRY(put_others(vars, options->vars_json, err));
    mfi_buf_str(vars, "}");
    return vars->failed ? mfi_fail(err, MF_ERR_NO_MEMORY, "chat: out of memory") : MF_OK;
}

/* ---- rendering ---- */

mf_status mf_chat_render(const mf_tokenizer *tokenizer, const mf_chat_message *messages,
                         size_t n_messages, const mf_chat_options *options, mf_rendering *rendering,
                         mf_error *err)
{
    const mf_chat_options defaults = {.struct_size = sizeof defaults};
    if (!tokenizer || (!messages && n_messages) || !rendering)
        return mfi_fail(err, MF_ERR_ARGUMENT, "mf_chat_render: NULL argument");
    if (!options)
        options = &defaults;
    if (options->struct_size < sizeof *options)
        return mfi_fail(err, MF_ERR_ARGUMENT, "mf_chat_render: struct_size is not set");
    mfi_chat_trees own = {0};
    mfi_buf vars = {0};
    const char *name = reasoning_name(
        options->chat_template ? mfi_template_files(options->chat_template) : tokenizer);
    mf_status status = make_vars(&vars, messages, n_messages, options, name, err);
    if (status == MF_OK && !options->chat_template)
        status = mfi_chat_trees_parse(&own, tokenizer, "the model", err);
    if (status == MF_OK)
        status = mfi_chat_trees_render(
            options->chat_template ? mfi_template_trees(options->chat_template) : &own, tokenizer,
            vars.data, vars.len, options->now, rendering, err);
    mfi_chat_trees_free(&own);
    mfi_buf_free(&vars);
    return status;
}

mf_status mf_rendering_encode(const mf_rendering *rendering, size_t from,
                              const mf_tokenizer *tokenizer, int32_t **ids, size_t *n_ids,
                              mf_error *err)
{
    if (!rendering || !rendering->text || from > rendering->len || !tokenizer || !ids || !n_ids)
        return mfi_fail(err, MF_ERR_ARGUMENT, "mf_rendering_encode: bad argument");
    mf_text_span *spans = malloc((rendering->n_spans + 1) * sizeof *spans);
    size_t n = 0;
    if (!spans)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "chat: out of memory");
    for (size_t i = 0; i < rendering->n_spans; i++) {
        mf_text_span span = rendering->spans[i];
        size_t skipped = MFI_MIN(from, span.len);
        from -= skipped;
        span.text += skipped;
        span.len -= skipped;
        if (span.len)
            spans[n++] = span;
    }
    mf_status status = mf_tokenizer_encode_spans(tokenizer, spans, n, false, ids, n_ids, err);
    free(spans);
    return status;
}
