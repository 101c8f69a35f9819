/* POST /v1/messages and /v1/messages/count_tokens, Anthropic's protocol. Reading a request is the
 * desk's, writing answers the engine's thread's. */
#include <stdlib.h>
#include <string.h>

#include "chat.h"
#include "say.h"

enum { BLOCK_NONE = -1, BLOCK_TEXT, BLOCK_THINKING, BLOCK_CALL };

/* ---- answers ---- */

static const char *stop_reason(const srv_choice *c)
{
    static const char *const names[] = {"end_turn", "stop_sequence", "max_tokens", "tool_use"};
    bool full = c->finish == SRV_FINISH_LENGTH && c->result.stop == MF_STOP_CONTEXT;
    return full ? "model_context_window_exceeded" : names[c->finish];
}

static void put_stop(const srv_job *job, const srv_choice *c, mfi_buf *out)
{
    mfi_buf_fmt(out, "\"stop_reason\":\"%s\",\"stop_sequence\":", stop_reason(c));
    srv_put_stop_string(job, c, out);
}

static void put_usage(const srv_job *job, mfi_buf *out)
{
    size_t prompt = srv_prompt_tokens(job), cached = srv_cached_tokens(job);
    mfi_buf_fmt(out,
                "\"usage\":{\"input_tokens\":%zu,\"cache_creation_input_tokens\":0,"
                "\"cache_read_input_tokens\":%zu,\"output_tokens\":%zu,"
                "\"output_tokens_details\":{\"thinking_tokens\":%zu}}",
                prompt - cached, cached, srv_answer_tokens(job), srv_reasoning_tokens(job));
}

static void put_message_head(const srv_job *job, mfi_buf *out)
{
    const srv_server *server = job->server;
    mfi_buf_fmt(out,
                "{\"id\":\"%s\",\"type\":\"message\",\"role\":\"assistant\",\"model\":", job->id);
    mfi_json_put_str(out, server->model, strlen(server->model));
}

static void send_start(srv_job *job, srv_choice *c)
{
    mfi_buf out = {0};
    if (c->begun_sent)
        return;
    c->begun_sent = true;
    if (c->generation) /* or it has ended, and left its result */
        mf_generation_result(c->generation, &c->result, NULL);
    mfi_buf_str(&out, "{\"type\":\"message_start\",\"message\":");
    put_message_head(job, &out);
    mfi_buf_str(&out, ",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,");
    put_usage(job, &out);
    mfi_buf_str(&out, "}}");
    srv_send(job, "message_start", &out);
    pthread_mutex_lock(&job->x->lock);
    job->x->ping = "event: ping\ndata: {\"type\":\"ping\"}\n\n"; /* not before a message */
    pthread_mutex_unlock(&job->x->lock);
}

static void close_block(srv_job *job, srv_choice *c)
{
    mfi_buf out = {0};
    if (c->open_block == BLOCK_NONE)
        return;
    if (c->open_block == BLOCK_THINKING) {
        mfi_buf signature = {0};
        mfi_buf_fmt(&signature,
                    "{\"type\":\"content_block_delta\",\"index\":%u,\"delta\":"
                    "{\"type\":\"signature_delta\",\"signature\":\"\"}}",
                    c->n_blocks - 1);
        srv_send(job, "content_block_delta", &signature);
    }
    mfi_buf_fmt(&out, "{\"type\":\"content_block_stop\",\"index\":%u}", c->n_blocks - 1);
    srv_send(job, "content_block_stop", &out);
    c->open_block = BLOCK_NONE;
}

static void open_block(srv_job *job, srv_choice *c, int kind)
{
    mfi_buf out = {0};
    if (c->open_block == kind)
        return;
    close_block(job, c);
    mfi_buf_fmt(
        &out, "{\"type\":\"content_block_start\",\"index\":%u,\"content_block\":%s}", c->n_blocks++,
        kind == BLOCK_TEXT ? "{\"type\":\"text\",\"text\":\"\"}"
                           : "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}");
    srv_send(job, "content_block_start", &out);
    c->open_block = kind;
}

static void send_delta(srv_job *job, const srv_choice *c, const char *type, const char *member,
                       const mfi_buf *text, size_t from)
{
    mfi_buf out = {0};
    mfi_buf_fmt(&out,
                "{\"type\":\"content_block_delta\",\"index\":%u,\"delta\":{\"type\":\"%s\","
                "\"%s\":",
                c->n_blocks - 1, type, member);
    srv_put_text(text, from, &out);
    mfi_buf_str(&out, "}}");
    srv_send(job, "content_block_delta", &out);
}

static void open_call(srv_job *job, srv_choice *c, const srv_call *call)
{
    mfi_buf out = {0};
    close_block(job, c);
    mfi_buf_fmt(&out,
                "{\"type\":\"content_block_start\",\"index\":%u,\"content_block\":"
                "{\"type\":\"tool_use\",\"id\":",
                c->n_blocks++);
    srv_put_text(&call->id, 0, &out);
    mfi_buf_str(&out, ",\"name\":");
    srv_put_text(&call->name, 0, &out);
    mfi_buf_str(&out, ",\"input\":{}}}");
    srv_send(job, "content_block_start", &out);
    c->open_block = BLOCK_CALL;
}

static void send_calls(srv_job *job, srv_choice *c, bool begun)
{
    for (srv_call *call; (call = srv_next_call(c, begun));) {
        if (!call->begun_sent)
            open_call(job, c, call);
        if (call->arguments.len > call->arguments_sent)
            send_delta(job, c, "input_json_delta", "partial_json", &call->arguments,
                       call->arguments_sent);
        if (!srv_call_sent(c, call))
            return;
        close_block(job, c);
    }
}

static void delta(srv_job *job, srv_choice *c)
{
    send_start(job, c);
    send_calls(job, c, true); /* its end comes before what follows it */
    if (c->reasoning.len > c->reasoning_sent) {
        open_block(job, c, BLOCK_THINKING);
        if (!job->hide_thinking)
            send_delta(job, c, "thinking_delta", "thinking", &c->reasoning, c->reasoning_sent);
        c->reasoning_sent = c->reasoning.len;
    }
    if (c->text.len > c->text_sent) {
        open_block(job, c, BLOCK_TEXT);
        send_delta(job, c, "text_delta", "text", &c->text, c->text_sent);
        c->text_sent = c->text.len;
    }
    send_calls(job, c, false);
}

static void choice_end(srv_job *job, srv_choice *c)
{
    mfi_buf out = {0}, stop = {0};
    delta(job, c);
    close_block(job, c);
    mfi_buf_str(&out, "{\"type\":\"message_delta\",\"delta\":{");
    put_stop(job, c, &out);
    mfi_buf_str(&out, "},");
    put_usage(job, &out);
    mfi_buf_str(&out, "}");
    srv_send(job, "message_delta", &out);
    mfi_buf_str(&stop, "{\"type\":\"message_stop\"}");
    srv_send(job, "message_stop", &stop);
}

static void put_block(mfi_buf *out, bool *first, const char *type, const char *member,
                      const mfi_buf *text, const char *rest)
{
    if (!text->len)
        return;
    mfi_buf_fmt(out, "%s{\"type\":\"%s\",\"%s\":", *first ? "" : ",", type, member);
    srv_put_text(text, 0, out);
    mfi_buf_fmt(out, "%s}", rest);
    *first = false;
}

static void end(srv_job *job)
{
    const srv_choice *c = &job->choices[0];
    mfi_buf out = {0};
    bool first = true;
    if (job->stream) {
        srv_stream_end(job->x);
        return;
    }
    put_message_head(job, &out);
    mfi_buf_str(&out, ",\"content\":[");
    if (job->hide_thinking && c->reasoning.len) {
        mfi_buf_str(&out, "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}");
        first = false;
    } else {
        put_block(&out, &first, "thinking", "thinking", &c->reasoning, ",\"signature\":\"\"");
    }
    put_block(&out, &first, "text", "text", &c->text, "");
    for (size_t i = 0; i < c->n_calls; i++) {
        const srv_call *call = &c->calls[i];
        mfi_buf_fmt(&out, "%s{\"type\":\"tool_use\",\"id\":", first ? "" : ",");
        srv_put_text(&call->id, 0, &out);
        mfi_buf_str(&out, ",\"name\":");
        srv_put_text(&call->name, 0, &out);
        mfi_buf_fmt(&out, ",\"input\":%s}", call->arguments.len ? call->arguments.data : "{}");
        first = false;
    }
    mfi_buf_str(&out, "],");
    put_stop(job, c, &out);
    mfi_buf_str(&out, ",");
    put_usage(job, &out);
    mfi_buf_str(&out, ",");
    srv_put_timings(job, &out);
    mfi_buf_str(&out, "}");
    srv_reply_buf(job->x, 200, SRV_JSON, &out);
}

static void stream_error(srv_job *job, const char *message)
{
    mfi_buf out = {0};
    srv_put_error(&out, SRV_ANTHROPIC, &(srv_error){.status = 500, .message = message}, job->x->id);
    srv_send(job, "error", &out);
    srv_stream_end(job->x);
}

static const srv_protocol protocol = {delta, choice_end, end, stream_error, NULL};

/* ---- requests ---- */

static bool is(const mfi_json *block, const char *type)
{
    const char *have = mfi_json_str(mfi_json_get(block, "type"), NULL);
    return have && strcmp(have, type) == 0;
}

/* The results of calls are messages of their own, before what the user says. */
static bool put_results(srv_fields *f, srv_chat *chat, const mfi_json *content)
{
    for (size_t i = 0; i < mfi_json_len(content); i++) {
        const mfi_json *block = mfi_json_at(content, i);
        const char *id = mfi_json_str(mfi_json_get(block, "tool_use_id"), NULL);
        if (!is(block, "tool_result"))
            continue;
        bool failed = false;
        if (!id)
            return srv_refuse(f, "messages", "messages: a tool_result has no tool_use_id");
        if (!srv_member_bool(f, block, "is_error", "messages", &failed) ||
            !srv_chat_tool_result(f, chat, id, failed, mfi_json_get(block, "content"), "messages"))
            return false;
    }
    return true;
}

typedef struct parts {
    mfi_buf text, thinking, calls;
    bool has_text;
} parts;

static bool take_block(srv_fields *f, const mfi_json *block, parts *p)
{
    size_t len;
    const char *text = mfi_json_str(mfi_json_get(block, "text"), &len);
    const char *thinking = mfi_json_str(mfi_json_get(block, "thinking"), NULL);
    const char *id = mfi_json_str(mfi_json_get(block, "id"), NULL);
    const char *name = mfi_json_str(mfi_json_get(block, "name"), NULL);
    if (is(block, "text") && text) {
        mfi_buf_append(&p->text, text, len);
        p->has_text = true;
    } else if (is(block, "thinking") && thinking) {
        mfi_buf_str(&p->thinking, thinking);
    } else if (is(block, "tool_use") && name) {
        mfi_buf_str(&p->calls, p->calls.len ? "," : "");
        srv_put_call(&p->calls, id ? id : "", name, mfi_json_get(block, "input"));
    } else if (!is(block, "tool_result") && !is(block, "redacted_thinking")) {
        const char *type = mfi_json_str(mfi_json_get(block, "type"), NULL);
        return srv_refuse(f, "messages",
                          "messages: a block of type '%.40s' is none that this model can read, "
                          "which is text only",
                          type ? type : "");
    }
    return true;
}

static bool put_parts(srv_chat *chat, const char *role, const parts *p, bool had_results)
{
    if (had_results && !p->has_text)
        return true;
    srv_chat_message(chat, role, srv_text_of(&p->text), p->text.len);
    if (p->thinking.len) {
        mfi_buf_str(&chat->messages, ",\"reasoning_content\":");
        srv_put_text(&p->thinking, 0, &chat->messages);
    }
    if (p->calls.len)
        mfi_buf_fmt(&chat->messages, ",\"tool_calls\":[%s]", p->calls.data);
    srv_chat_message_end(chat);
    return true;
}

static bool put_message(srv_fields *f, srv_chat *chat, const mfi_json *message, bool last)
{
    const char *role = mfi_json_str(mfi_json_get(message, "role"), NULL);
    const mfi_json *content = mfi_json_get(message, "content");
    size_t len, before = chat->n_messages;
    const char *text = mfi_json_str(content, &len);
    parts p = {{0}, {0}, {0}, false};
    bool known =
        role && (!strcmp(role, "user") || !strcmp(role, "assistant") || !strcmp(role, "system"));
    if (!known)
        return srv_refuse(f, "messages", "messages: a role is neither user nor assistant");
    if (!text && mfi_json_typeof(content) != MFI_JSON_ARRAY)
        return srv_refuse(f, "messages", "messages: a content is neither a text nor blocks");
    bool ok = put_results(f, chat, content);
    for (size_t i = 0; ok && i < mfi_json_len(content); i++)
        ok = take_block(f, mfi_json_at(content, i), &p);
    if (text)
        mfi_buf_append(&p.text, text, len);
    p.has_text |= text != NULL;
    if (ok && last && strcmp(role, "assistant") == 0 && !p.calls.len) {
        chat->has_prefill = true; /* the answer goes on with it */
        mfi_buf_append(&chat->prefill, srv_text_of(&p.text), p.text.len);
    } else if (ok) {
        put_parts(chat, role, &p, chat->n_messages > before);
    }
    chat->messages.failed |= p.text.failed || p.thinking.failed || p.calls.failed;
    mfi_buf_free(&p.text);
    mfi_buf_free(&p.thinking);
    mfi_buf_free(&p.calls);
    return ok;
}

static bool take_messages(srv_fields *f, srv_chat *chat)
{
    const mfi_json *list = srv_field(f, "messages", MFI_JSON_ARRAY);
    const mfi_json *system = mfi_json_get(f->body, "system");
    size_t n = mfi_json_len(list);
    mfi_buf text = {0};
    if (f->refused)
        return false;
    if (!n)
        return srv_refuse(f, "messages", "messages: at least one is needed");
    bool ok = srv_content_text(f, system, "system", &text);
    if (ok && text.len) {
        srv_chat_message(chat, "system", text.data, text.len);
        srv_chat_message_end(chat);
    }
    chat->messages.failed |= text.failed;
    mfi_buf_free(&text);
    for (size_t i = 0; ok && i < n; i++)
        ok = put_message(f, chat, mfi_json_at(list, i), i + 1 == n);
    return ok;
}

/* Tools that a server of Anthropic's runs itself have a type of their own and are ignored. */
static bool take_tools(srv_fields *f, srv_chat *chat)
{
    const mfi_json *choice = srv_field(f, "tool_choice", MFI_JSON_OBJECT);
    const char *name = mfi_json_str(mfi_json_get(choice, "name"), NULL);
    if (f->refused)
        return false;
    if (is(choice, "any"))
        chat->tool_choice = SRV_TOOLS_REQUIRED;
    else if (is(choice, "none"))
        chat->tool_choice = SRV_TOOLS_NONE;
    else if (is(choice, "tool") && name)
        chat->tool_choice = SRV_TOOLS_NAMED;
    else if (choice && !is(choice, "auto"))
        return srv_refuse(f, "tool_choice", "tool_choice: none of auto, any, tool and none");
    if (chat->tool_choice == SRV_TOOLS_NAMED)
        mfi_buf_str(&chat->tool_name, name);
    const mfi_json *list = srv_field(f, "tools", MFI_JSON_ARRAY);
    for (size_t i = 0; i < mfi_json_len(list); i++) {
        const mfi_json *tool = mfi_json_at(list, i);
        if (mfi_json_has(tool, "type") && !is(tool, "custom"))
            continue;
        if (!srv_chat_tool(f, chat, tool, "input_schema"))
            return false;
    }
    return !f->refused;
}

/* thinking: {"type": "enabled" | "disabled" | "adaptive" | "between_tools", "display": ...}; its
 * budget_tokens is checked, not kept to: max_tokens ends an answer. */
static bool take_thinking(srv_fields *f, srv_job *job, srv_chat *chat)
{
    const mfi_json *thinking = srv_field(f, "thinking", MFI_JSON_OBJECT);
    const mfi_json *budget = mfi_json_get(thinking, "budget_tokens");
    const mfi_json *display = mfi_json_get(thinking, "display");
    const char *how = mfi_json_str(display, NULL);
    int64_t n;
    if (!thinking)
        return !f->refused;
    if (is(thinking, "enabled"))
        mfi_buf_str(&chat->vars, ",\"enable_thinking\":true");
    else if (is(thinking, "disabled"))
        mfi_buf_str(&chat->vars, ",\"enable_thinking\":false");
    else if (!is(thinking, "adaptive") && !is(thinking, "between_tools"))
        return srv_refuse(f, "thinking",
                          "thinking: its type is none of enabled, disabled, adaptive and "
                          "between_tools");
    if (mfi_json_typeof(budget) != MFI_JSON_NULL && (!mfi_json_i64(budget, &n) || n < 1))
        return srv_refuse(f, "thinking", "thinking: its budget_tokens is no number of tokens");
    job->hide_thinking = how && strcmp(how, "omitted") == 0;
    if (mfi_json_typeof(display) != MFI_JSON_NULL && !job->hide_thinking &&
        (!how || strcmp(how, "summarized") != 0))
        return srv_refuse(f, "thinking", "thinking: its display is neither summarized nor omitted");
    return true;
}

static bool takes_effort(const mfi_json *effort)
{
    static const char *const efforts[] = {"low", "medium", "high", "xhigh", "max"};
    const char *text = mfi_json_str(effort, NULL);
    for (size_t i = 0; text && i < MFI_ARRAY_LEN(efforts); i++)
        if (strcmp(text, efforts[i]) == 0)
            return true;
    return mfi_json_typeof(effort) == MFI_JSON_NULL;
}

/* output_config: {"format": {"type": "json_schema", "schema": ...}, "effort": ...}. */
static bool take_output_config(srv_fields *f, srv_job *job, srv_chat *chat)
{
    const mfi_json *config = srv_field(f, "output_config", MFI_JSON_OBJECT);
    const mfi_json *format = mfi_json_get(config, "format");
    const mfi_json *schema = mfi_json_get(format, "schema");
    const char *effort = mfi_json_str(mfi_json_get(config, "effort"), NULL);
    if (f->refused)
        return false;
    if (mfi_json_typeof(format) != MFI_JSON_NULL && (!is(format, "json_schema") || !schema))
        return srv_refuse(f, "output_config",
                          "output_config: its format is no json_schema with a schema");
    if (schema && !srv_take_schema(f, job, schema, "output_config"))
        return false;
    if (!takes_effort(mfi_json_get(config, "effort")))
        return srv_refuse(f, "output_config",
                          "output_config: its effort is none of low, medium, high, xhigh and max");
    return srv_chat_vars(f, chat, effort);
}

static bool take_chat(srv_fields *f, srv_server *server, srv_job *job)
{
    srv_chat chat = {0};
    bool ok = take_tools(f, &chat) && take_messages(f, &chat) && take_thinking(f, job, &chat) &&
              take_output_config(f, job, &chat) && srv_take_grammar(f, job) &&
              srv_chat_prompt(f, server, job, &chat);
    srv_chat_free(&chat);
    return ok;
}

void srv_messages(srv_server *server, srv_exchange *x, const mfi_json *body)
{
    srv_fields f = {.x = x, .body = body};
    srv_job *job = srv_job_new(x, server, "msg_");
    if (!job) {
        srv_reply_error(x, 500, NULL, NULL, "out of memory");
        return;
    }
    job->protocol = &protocol;
    job->call_prefix = "toolu_";
    bool ok = srv_take_sampling(&f, server, job) && srv_take_stop(&f, job, "stop_sequences");
    srv_field_bool(&f, "stream", &job->stream);
    srv_field_i64(&f, "max_tokens", 1, INT64_MAX, &job->max_tokens);
    srv_chat_one_call(&f, job, mfi_json_get(body, "tool_choice"));
    if (ok && !f.refused && take_chat(&f, server, job))
        srv_submit(server, job);
    else
        srv_job_free(job);
}

void srv_count_tokens(srv_server *server, srv_exchange *x, const mfi_json *body)
{
    srv_fields f = {.x = x, .body = body};
    srv_job *job = srv_job_new(x, server, "msg_");
    mfi_buf out = {0};
    if (!job) {
        srv_reply_error(x, 500, NULL, NULL, "out of memory");
        return;
    }
    job->count_only = true;
    if (take_chat(&f, server, job)) {
        mfi_buf_fmt(&out, "{\"input_tokens\":%zu}", srv_prompt_tokens(job));
        srv_reply_buf(x, 200, SRV_JSON, &out);
    }
    srv_job_free(job);
}
