/* Conversations into prompts; see chat.h. On the desk's thread. */
#include "chat.h"

#include <stdlib.h>
#include <string.h>

void srv_chat_free(srv_chat *chat)
{
    mfi_buf *bufs[] = {&chat->messages,     &chat->tools,       &chat->vars,    &chat->tool_name,
                       &chat->strict_calls, &chat->loose_calls, &chat->prefill, &chat->names};
    for (size_t i = 0; i < MFI_ARRAY_LEN(bufs); i++)
        mfi_buf_free(bufs[i]);
}

/* ---- messages ---- */

void srv_chat_message(srv_chat *chat, const char *role, const char *content, size_t len)
{
    mfi_buf_str(&chat->messages, chat->n_messages++ ? ",{\"role\":" : "{\"role\":");
    mfi_json_put_str(&chat->messages, role, strlen(role));
    mfi_buf_str(&chat->messages, ",\"content\":");
    mfi_json_put_str(&chat->messages, content, len);
}

void srv_chat_message_end(srv_chat *chat)
{
    mfi_buf_str(&chat->messages, "}");
}

static bool is(const mfi_json *v, const char *text)
{
    const char *have = mfi_json_str(v, NULL);
    return have && strcmp(have, text) == 0;
}

bool srv_content_text(srv_fields *f, const mfi_json *content, const char *param, mfi_buf *out)
{
    static const char *const kinds[] = {"text", "input_text", "output_text", "refusal"};
    size_t len;
    const char *text = mfi_json_str(content, &len);
    if (text)
        mfi_buf_append(out, text, len);
    if (text || mfi_json_typeof(content) == MFI_JSON_NULL)
        return true;
    if (mfi_json_typeof(content) != MFI_JSON_ARRAY)
        return srv_refuse(f, param, "%s: neither a text nor an array of parts", param);
    for (size_t i = 0; i < mfi_json_len(content); i++) {
        const mfi_json *part = mfi_json_at(content, i), *kind = mfi_json_get(part, "type");
        bool known = false;
        for (size_t k = 0; k < MFI_ARRAY_LEN(kinds); k++)
            known |= is(kind, kinds[k]);
        const char *name = is(kind, "refusal") ? "refusal" : "text";
        text = mfi_json_str(mfi_json_get(part, name), &len);
        if (!known || !text)
            return srv_refuse(f, param, "%s: part %zu is no text; this model reads nothing else",
                              param, i);
        mfi_buf_append(out, text, len);
    }
    return true;
}

void srv_put_call(mfi_buf *out, const char *id, const char *name, const mfi_json *arguments)
{
    size_t len;
    const char *text = mfi_json_str(arguments, &len);
    mf_error err;
    mfi_buf_str(out, "{\"id\":");
    mfi_json_put_str(out, id, strlen(id));
    mfi_buf_str(out, ",\"type\":\"function\",\"function\":{\"name\":");
    mfi_json_put_str(out, name, strlen(name));
    mfi_buf_str(out, ",\"arguments\":");
    /* Templates want the object, protocols send its text. */
    if (text && mfi_json_scan(text, len, "arguments", &err) == MF_OK)
        mfi_buf_append(out, text, len);
    else if (text && !len)
        mfi_buf_str(out, "{}");
    else if (arguments)
        mfi_json_put(out, arguments);
    else
        mfi_buf_str(out, "{}");
    mfi_buf_str(out, "}}");
}

static bool put_calls(srv_fields *f, srv_chat *chat, const mfi_json *calls)
{
    mfi_buf_str(&chat->messages, ",\"tool_calls\":[");
    for (size_t i = 0; i < mfi_json_len(calls); i++) {
        const mfi_json *call = mfi_json_at(calls, i), *function = mfi_json_get(call, "function");
        const char *name = mfi_json_str(mfi_json_get(function, "name"), NULL);
        const char *id = mfi_json_str(mfi_json_get(call, "id"), NULL);
        if (!name)
            return srv_refuse(f, "messages", "messages: a tool call has no function name");
        mfi_buf_str(&chat->messages, i ? "," : "");
        srv_put_call(&chat->messages, id ? id : "", name, mfi_json_get(function, "arguments"));
    }
    mfi_buf_str(&chat->messages, "]");
    return true;
}

static void put_optional(srv_chat *chat, const mfi_json *message, const char *from, const char *to)
{
    size_t len;
    const char *text = mfi_json_str(mfi_json_get(message, from), &len);
    if (!text)
        return;
    mfi_buf_fmt(&chat->messages, ",\"%s\":", to);
    mfi_json_put_str(&chat->messages, text, len);
}

static bool put_message(srv_fields *f, srv_chat *chat, const mfi_json *message)
{
    static const char *const roles[] = {"system",    "developer", "user",
                                        "assistant", "tool",      "function"};
    const char *role = mfi_json_str(mfi_json_get(message, "role"), NULL);
    const mfi_json *calls = mfi_json_get(message, "tool_calls");
    bool known = false;
    mfi_buf text = {0};
    for (size_t i = 0; role && i < MFI_ARRAY_LEN(roles); i++)
        known |= strcmp(role, roles[i]) == 0;
    if (!known)
        return srv_refuse(f, "messages",
                          "messages: a role is none of system, developer, user, "
                          "assistant and tool");
    if (strcmp(role, "developer") == 0)
        role = "system";
    if (strcmp(role, "function") == 0)
        role = "tool";
    bool ok = srv_content_text(f, mfi_json_get(message, "content"), "messages", &text);
    if (ok) {
        srv_chat_message(chat, role, srv_text_of(&text), text.len);
        put_optional(chat, message, "name", "name");
        put_optional(chat, message, "tool_call_id", "tool_call_id");
        const char *reasoning =
            mfi_json_has(message, "reasoning_content") ? "reasoning_content" : "reasoning";
        put_optional(chat, message, reasoning, "reasoning_content");
        if (mfi_json_typeof(calls) != MFI_JSON_NULL && mfi_json_typeof(calls) != MFI_JSON_ARRAY)
            ok = srv_refuse(f, "messages", "messages: tool_calls are no array");
        else if (mfi_json_len(calls))
            ok = put_calls(f, chat, calls);
        srv_chat_message_end(chat);
    }
    chat->messages.failed |= text.failed;
    mfi_buf_free(&text);
    return ok;
}

bool srv_chat_tool_result(srv_fields *f, srv_chat *chat, const char *id, bool failed,
                          const mfi_json *content, const char *param)
{
    mfi_buf text = {0};
    if (failed)
        mfi_buf_str(&text, "Error: ");
    bool ok = srv_content_text(f, content, param, &text);
    if (ok) {
        srv_chat_message(chat, "tool", srv_text_of(&text), text.len);
        mfi_buf_str(&chat->messages, ",\"tool_call_id\":");
        mfi_json_put_str(&chat->messages, id, strlen(id));
        srv_chat_message_end(chat);
    }
    chat->messages.failed |= text.failed;
    mfi_buf_free(&text);
    return ok;
}

bool srv_chat_openai_messages(srv_fields *f, srv_chat *chat)
{
    const mfi_json *list = srv_field(f, "messages", MFI_JSON_ARRAY);
    size_t n = mfi_json_len(list);
    bool go_on = false;
    if (f->refused)
        return false;
    if (!n)
        return srv_refuse(f, "messages", "messages: at least one is needed");
    srv_field_bool(f, "continue_final_message", &go_on);
    if (go_on && is(mfi_json_get(mfi_json_at(list, n - 1), "role"), "assistant")) {
        const mfi_json *last = mfi_json_get(mfi_json_at(list, --n), "content");
        chat->has_prefill = true;
        if (!srv_content_text(f, last, "messages", &chat->prefill))
            return false;
    }
    for (size_t i = 0; i < n; i++)
        if (!put_message(f, chat, mfi_json_at(list, i)))
            return false;
    return !f->refused;
}

bool srv_chat_vars(srv_fields *f, srv_chat *chat, const char *effort)
{
    static const char *const ours[] = {"tools", "messages", "documents", "add_generation_prompt"};
    const mfi_json *kwargs = srv_field(f, "chat_template_kwargs", MFI_JSON_OBJECT);
    for (size_t i = 0; i < mfi_json_len(kwargs); i++) {
        const char *key = NULL;
        const mfi_json *v = mfi_json_member(kwargs, i, &key);
        bool skip = false;
        for (size_t k = 0; k < MFI_ARRAY_LEN(ours); k++)
            skip |= strcmp(key, ours[k]) == 0;
        if (skip)
            continue;
        mfi_buf_str(&chat->vars, ",");
        mfi_json_put_str(&chat->vars, key, strlen(key));
        mfi_buf_str(&chat->vars, ":");
        mfi_json_put(&chat->vars, v);
    }
    if (effort && !mfi_json_has(kwargs, "reasoning_effort")) {
        mfi_buf_str(&chat->vars, ",\"reasoning_effort\":");
        mfi_json_put_str(&chat->vars, effort, strlen(effort));
    }
    if (effort && strcmp(effort, "none") == 0 && !mfi_json_has(kwargs, "enable_thinking"))
        mfi_buf_str(&chat->vars, ",\"enable_thinking\":false");
    return !f->refused;
}

/* ---- tools ---- */

bool srv_chat_tool_choice(srv_fields *f, srv_chat *chat)
{
    const mfi_json *v = mfi_json_get(f->body, "tool_choice"), *type = mfi_json_get(v, "type");
    const mfi_json *function = mfi_json_get(v, "function"), *name = NULL, *mode = v;
    if (is(type, "allowed_tools")) {
        const mfi_json *in =
            mfi_json_has(v, "allowed_tools") ? mfi_json_get(v, "allowed_tools") : v;
        chat->allowed = mfi_json_get(in, "tools");
        mode = mfi_json_get(in, "mode");
        if (mfi_json_typeof(chat->allowed) != MFI_JSON_ARRAY)
            return srv_refuse(f, "tool_choice", "tool_choice: allowed_tools without its tools");
        if (mfi_json_len(chat->allowed) > MFI_MAX_SERVED_TOOLS)
            return srv_refuse(f, "tool_choice", "tool_choice: more than %d allowed tools",
                              MFI_MAX_SERVED_TOOLS);
    } else if (is(type, "function") || function) {
        name = mfi_json_get(function ? function : v, "name");
    } else if (type) {
        mode = type;
    }
    const char *text = mfi_json_str(name, NULL);
    if (text) {
        chat->tool_choice = SRV_TOOLS_NAMED;
        mfi_buf_str(&chat->tool_name, text);
    } else if (is(mode, "none")) {
        chat->tool_choice = SRV_TOOLS_NONE;
    } else if (is(mode, "required")) {
        chat->tool_choice = SRV_TOOLS_REQUIRED;
    } else if (mfi_json_typeof(mode) != MFI_JSON_NULL && !is(mode, "auto")) {
        return srv_refuse(f, "tool_choice",
                          "tool_choice: none of none, auto, required, a named function and "
                          "allowed_tools");
    }
    return true;
}

bool srv_chat_one_call(srv_fields *f, srv_job *job, const mfi_json *choice)
{
    bool parallel = true;
    srv_field_bool(f, "parallel_tool_calls", &parallel);
    if (!srv_member_bool(f, choice, "disable_parallel_tool_use", "tool_choice", &job->one_call))
        return false;
    job->one_call |= !parallel;
    return !f->refused;
}

static bool allowed(const srv_chat *chat, const char *name)
{
    for (size_t i = 0; i < mfi_json_len(chat->allowed); i++) {
        const mfi_json *tool = mfi_json_at(chat->allowed, i);
        const mfi_json *function = mfi_json_get(tool, "function");
        if (is(mfi_json_get(function ? function : tool, "name"), name))
            return true;
    }
    return !chat->allowed;
}

static void put_call_schema(mfi_buf *out, const char *name, const mfi_json *arguments)
{
    mfi_buf_str(out, out->len ? "," : "");
    mfi_buf_str(out, "{\"type\":\"object\",\"properties\":{\"name\":{\"const\":");
    mfi_json_put_str(out, name, strlen(name));
    mfi_buf_str(out, "},\"arguments\":");
    if (mfi_json_typeof(arguments) == MFI_JSON_OBJECT)
        mfi_json_put(out, arguments);
    else
        mfi_buf_str(out, "{\"type\":\"object\"}");
    mfi_buf_str(out, "},\"required\":[\"name\",\"arguments\"],\"additionalProperties\":false}");
}

static void put_tool(mfi_buf *out, const char *name, const char *description,
                     const mfi_json *schema)
{
    mfi_buf_str(out, out->len ? "," : "");
    mfi_buf_str(out, "{\"type\":\"function\",\"function\":{\"name\":");
    mfi_json_put_str(out, name, strlen(name));
    if (description) {
        mfi_buf_str(out, ",\"description\":");
        mfi_json_put_str(out, description, strlen(description));
    }
    mfi_buf_str(out, ",\"parameters\":");
    if (mfi_json_typeof(schema) == MFI_JSON_OBJECT)
        mfi_json_put(out, schema);
    else
        mfi_buf_str(out, "{\"type\":\"object\",\"properties\":{}}");
    mfi_buf_str(out, "}}");
}

bool srv_chat_tool(srv_fields *f, srv_chat *chat, const mfi_json *function, const char *schema_name)
{
    const char *name = mfi_json_str(mfi_json_get(function, "name"), NULL);
    const char *description = mfi_json_str(mfi_json_get(function, "description"), NULL);
    const mfi_json *schema = mfi_json_get(function, schema_name);
    bool strict = false;
    if (++chat->n_named > MFI_MAX_SERVED_TOOLS)
        return srv_refuse(f, "tools", "tools: more than %d functions", MFI_MAX_SERVED_TOOLS);
    if (!name || !*name)
        return srv_refuse(f, "tools", "tools: a function has no name");
    if (!srv_member_bool(f, function, "strict", "tools", &strict))
        return false;
    if (!allowed(chat, name))
        return true;
    put_tool(&chat->tools, name, description, schema);
    chat->n_tools++;
    mfi_buf_append(&chat->names, name, strlen(name) + 1);
    bool wanted =
        chat->tool_choice == SRV_TOOLS_REQUIRED ||
        (chat->tool_choice == SRV_TOOLS_NAMED && strcmp(name, srv_text_of(&chat->tool_name)) == 0);
    if (wanted) {
        chat->strict |= strict;
        put_call_schema(&chat->strict_calls, name, schema);
        put_call_schema(&chat->loose_calls, name, NULL);
    }
    return true;
}

/* The grammar of a call. A schema that can't be followed is given up unless that was asked for: the
 * arguments are then any object. */
static bool force_calls(srv_fields *f, srv_job *job, const srv_chat *chat)
{
    const mfi_buf *schemas[] = {&chat->strict_calls, &chat->loose_calls};
    mf_error err = {0};
    mf_status status = MF_ERR_NO_MEMORY;
    if (!chat->strict_calls.len)
        return srv_refuse(f, "tool_choice", "tool_choice: there is no such tool to call");
    for (size_t i = 0; i < (chat->strict ? 1u : 2u) && status != MF_OK; i++) {
        mfi_buf text = {0};
        mfi_buf_fmt(&text, "{\"anyOf\":[%s]}", srv_text_of(schemas[i]));
        if (!text.failed)
            status = mf_grammar_open_json_schema(&job->grammar, text.data, text.len, &err);
        mfi_buf_free(&text);
    }
    if (status != MF_OK)
        return srv_refuse(f, "tools", "tools: %s", err.message);
    job->forced_calls = true;
    return true;
}

/* ---- the prompt ---- */

static bool has_tools(const srv_chat *chat)
{
    return chat->n_tools && chat->tool_choice != SRV_TOOLS_NONE;
}

bool srv_chat_render(srv_fields *f, srv_server *server, srv_chat *chat, mf_rendering *rendering)
{
    mfi_buf messages = {0}, vars = {0};
    mf_error err = {0};
    bool tools = has_tools(chat);
    mfi_buf_str(&messages, "[");
    mfi_buf_append(&messages, srv_text_of(&chat->messages), chat->messages.len);
    mfi_buf_str(&messages, "]");
    mfi_buf_fmt(&vars, "{\"tools\":%s", tools ? "[" : "null");
    if (tools)
        mfi_buf_append(&vars, chat->tools.data, chat->tools.len);
    mfi_buf_str(&vars, tools ? "]" : "");
    mfi_buf_append(&vars, srv_text_of(&chat->vars), chat->vars.len);
    mfi_buf_str(&vars, "}");
    const mf_chat_options options = {.struct_size = sizeof options,
                                     .chat_template = server->chat_template,
                                     .vars_json = vars.data,
                                     .messages_json = messages.data,
                                     .now = server->options->now};
    bool failed = messages.failed || vars.failed || chat->messages.failed || chat->tools.failed ||
                  chat->vars.failed;
    mf_status status = failed
                           ? MF_ERR_NO_MEMORY
                           : mf_chat_render(server->tokenizer, NULL, 0, &options, rendering, &err);
    mfi_buf_free(&messages);
    mfi_buf_free(&vars);
    if (status != MF_OK)
        return srv_refuse(f, "messages", "%s", err.message[0] ? err.message : "out of memory");
    return true;
}

static bool ends_with(const mf_rendering *r, const char *text)
{
    size_t len = r->len, n = strlen(text);
    while (len && r->text[len - 1] == '\n')
        len--;
    return len >= n && memcmp(r->text + len - n, text, n) == 0;
}

/* What the answer is told to have begun with: the end of thinking where it must be JSON, and the
 * marker of a call where it must be one. */
static void put_tail(const srv_server *server, const srv_job *job, const mf_rendering *r,
                     mfi_buf *tail)
{
    if (job->grammar && ends_with(r, "<think>"))
        mfi_buf_str(tail, "\n</think>\n\n");
    if (job->forced_calls && strcmp(server->notation, "hermes") == 0)
        mfi_buf_str(tail, "<tool_call>\n");
}

static bool encode(srv_fields *f, srv_server *server, srv_job *job, const srv_chat *chat,
                   const mf_rendering *r)
{
    mfi_buf tail = {0};
    int32_t *ids = NULL;
    size_t n = 0;
    mf_error err = {0};
    if (!job->count_only && srv_too_long(server, r->len))
        return srv_refuse_context(f, server, r->len / server->longest_token);
    put_tail(server, job, r, &tail);
    mf_text_span *spans = calloc(r->n_spans + 2, sizeof *spans);
    bool ok = spans && !tail.failed && !chat->prefill.failed;
    if (ok) {
        if (r->n_spans)
            memcpy(spans, r->spans, r->n_spans * sizeof *spans);
        spans[r->n_spans] = (mf_text_span){srv_text_of(&tail), tail.len, false};
        spans[r->n_spans + 1] =
            (mf_text_span){srv_text_of(&chat->prefill), chat->prefill.len, true};
        mf_status status = mf_tokenizer_encode_spans(server->tokenizer, spans, r->n_spans + 2,
                                                     false, &ids, &n, &err);
        ok = status == MF_OK && srv_add_prompt_tokens(f, server, job, ids, n, "messages");
    }
    if (!ok)
        srv_refuse(f, "messages", "%s", err.message[0] ? err.message : "out of memory");
    free(spans);
    mf_free(ids);
    mfi_buf_free(&tail);
    return ok;
}

/* The job outlives the request. */
static bool keep_names(srv_fields *f, srv_job *job, srv_chat *chat)
{
    job->tool_names = chat->names;
    chat->names = (mfi_buf){0};
    job->tools = calloc(chat->n_tools + 1, sizeof *job->tools);
    if (!job->tools || job->tool_names.failed)
        return srv_refuse(f, "tools", "out of memory");
    const char *name = job->tool_names.data;
    for (size_t n = has_tools(chat) ? chat->n_tools : 0; job->n_tools < n; name += strlen(name) + 1)
        job->tools[job->n_tools++] = name;
    return true;
}

bool srv_chat_prompt(srv_fields *f, srv_server *server, srv_job *job, srv_chat *chat)
{
    mf_rendering rendering = {0};
    bool forced = chat->tool_choice == SRV_TOOLS_REQUIRED || chat->tool_choice == SRV_TOOLS_NAMED;
    if (forced && job->grammar)
        return srv_refuse(f, "tool_choice",
                          "a call and a format can't both be forced upon one answer");
    if (forced && !force_calls(f, job, chat))
        return false;
    if (!srv_chat_render(f, server, chat, &rendering))
        return false;
    bool ok = encode(f, server, job, chat, &rendering);
    mf_rendering_free(&rendering);
    bool in_notation = !job->grammar || (!job->schema && !job->forced_calls && chat->n_tools);
    job->take_apart = job->forced_calls || (in_notation && !server->options->raw_reasoning);
    return ok && keep_names(f, job, chat);
}
