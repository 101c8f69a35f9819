/* POST /v1/chat/completions, OpenAI's chat protocol with llama.cpp's additions. Reading a request
 * is the desk's, writing answers the engine's thread's. */
#include <stdlib.h>
#include <string.h>

#include "chat.h"
#include "say.h"

static const char *finish_name(srv_finish finish)
{
    static const char *const names[] = {"stop", "stop", "length", "tool_calls"};
    return names[finish];
}

/* ---- answers ---- */

static void on_logprob(srv_choice *c, mf_token_logprob chosen, const mf_token_logprob *top,
                       size_t n_top)
{
    const srv_server *server = c->job->server;
    mfi_buf *out = &c->logprobs;
    mfi_buf_str(out, out->len > c->logprobs_sent ? "," : "");
    srv_put_logprobs(server, chosen, top, n_top, out);
    c->out_of_memory |= out->failed;
}

static void put_call(const srv_call *call, mfi_buf *out)
{
    mfi_buf_str(out, "\"id\":");
    srv_put_text(&call->id, 0, out);
    mfi_buf_str(out, ",\"type\":\"function\",\"function\":{\"name\":");
    srv_put_text(&call->name, 0, out);
    mfi_buf_str(out, ",\"arguments\":");
    srv_put_text(&call->arguments, 0, out);
    mfi_buf_str(out, "}");
}

static void put_head(const srv_job *job, const char *object, mfi_buf *out)
{
    const srv_server *server = job->server;
    mfi_buf_fmt(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", job->id,
                object, (long long)job->created_s);
    mfi_json_put_str(out, server->model, strlen(server->model));
    mfi_buf_fmt(out, ",\"system_fingerprint\":\"moeflux-%s\"", mf_version());
}

static void chunk_begin(srv_job *job, const srv_choice *c, mfi_buf *out)
{
    put_head(job, "chat.completion.chunk", out);
    mfi_buf_fmt(out, ",\"choices\":[{\"index\":%u,\"delta\":{", c->index);
}

static void chunk_end(srv_job *job, srv_choice *c, const char *finish, mfi_buf *out)
{
    mfi_buf_str(out, "},\"logprobs\":");
    if (c->logprobs.len > c->logprobs_sent) {
        mfi_buf_fmt(out, "{\"content\":[%s],\"refusal\":null}",
                    c->logprobs.data + c->logprobs_sent);
        c->logprobs_sent = c->logprobs.len;
    } else {
        mfi_buf_str(out, "null");
    }
    mfi_buf_fmt(out, ",\"finish_reason\":%s%s%s,\"stop_reason\":", finish ? "\"" : "",
                finish ? finish : "null", finish ? "\"" : "");
    srv_put_stop_string(job, c, out); /* vLLM's */
    mfi_buf_str(out, "}]");
    if (job->include_usage)
        mfi_buf_str(out, ",\"usage\":null");
    if (job->timings_per_token) {
        mfi_buf_str(out, ",");
        srv_put_timings(job, out);
    }
    mfi_buf_str(out, "}");
    srv_send(job, NULL, out);
}

static void send_role(srv_job *job, srv_choice *c)
{
    mfi_buf out = {0};
    if (c->begun_sent)
        return;
    c->begun_sent = true;
    put_head(job, "chat.completion.chunk", &out);
    mfi_buf_fmt(&out,
                ",\"choices\":[{\"index\":%u,\"delta\":{\"role\":\"assistant\",\"content\":null},"
                "\"logprobs\":null,\"finish_reason\":null}]%s}",
                c->index, job->include_usage ? ",\"usage\":null" : "");
    srv_send(job, NULL, &out);
}

static void send_text(srv_job *job, srv_choice *c, const char *name, const mfi_buf *text,
                      size_t *sent)
{
    mfi_buf out = {0};
    if (text->len == *sent)
        return;
    chunk_begin(job, c, &out);
    mfi_buf_fmt(&out, "\"%s\":", name);
    srv_put_text(text, *sent, &out);
    *sent = text->len;
    chunk_end(job, c, NULL, &out);
}

/* What is new of a call: its head with the first arguments, or more of them. */
static void send_call(srv_job *job, srv_choice *c, const srv_call *call)
{
    mfi_buf out = {0};
    chunk_begin(job, c, &out);
    mfi_buf_fmt(&out, "\"tool_calls\":[{\"index\":%zu,", (size_t)(call - c->calls));
    if (!call->begun_sent) {
        put_call(call, &out);
    } else {
        mfi_buf_str(&out, "\"function\":{\"arguments\":");
        srv_put_text(&call->arguments, call->arguments_sent, &out);
        mfi_buf_str(&out, "}");
    }
    mfi_buf_str(&out, "}]");
    chunk_end(job, c, NULL, &out);
}

static void send_calls(srv_job *job, srv_choice *c, bool begun)
{
    for (srv_call *call; (call = srv_next_call(c, begun));) {
        if (!call->begun_sent || call->arguments.len > call->arguments_sent)
            send_call(job, c, call);
        if (!srv_call_sent(c, call))
            return;
    }
}

static void delta(srv_job *job, srv_choice *c)
{
    send_role(job, c);
    send_calls(job, c, true); /* its end comes before what follows it */
    send_text(job, c, "reasoning_content", &c->reasoning, &c->reasoning_sent);
    send_text(job, c, "content", &c->text, &c->text_sent);
    send_calls(job, c, false);
}

static void choice_end(srv_job *job, srv_choice *c)
{
    mfi_buf out = {0};
    delta(job, c);
    chunk_begin(job, c, &out);
    chunk_end(job, c, finish_name(c->finish), &out);
}

static void put_choice(const srv_job *job, const srv_choice *c, mfi_buf *out)
{
    mfi_buf_fmt(out, "%s{\"index\":%u,\"message\":{\"role\":\"assistant\",\"content\":",
                c->index ? "," : "", c->index);
    if (c->text.len || !c->n_calls)
        srv_put_text(&c->text, 0, out);
    else
        mfi_buf_str(out, "null");
    mfi_buf_str(out, ",\"refusal\":null");
    if (c->reasoning.len) {
        mfi_buf_str(out, ",\"reasoning_content\":");
        srv_put_text(&c->reasoning, 0, out);
    }
    for (size_t i = 0; i < c->n_calls; i++) {
        mfi_buf_str(out, i ? ",{" : ",\"tool_calls\":[{");
        put_call(&c->calls[i], out);
        mfi_buf_str(out, "}");
    }
    mfi_buf_str(out, c->n_calls ? "]}" : "}");
    mfi_buf_str(out, ",\"logprobs\":");
    if (job->logprobs)
        mfi_buf_fmt(out, "{\"content\":[%s],\"refusal\":null}",
                    c->logprobs.data ? c->logprobs.data : "");
    else
        mfi_buf_str(out, "null");
    mfi_buf_fmt(out, ",\"finish_reason\":\"%s\",\"stop_reason\":", finish_name(c->finish));
    srv_put_stop_string(job, c, out);
    mfi_buf_str(out, "}");
}

static void end(srv_job *job)
{
    mfi_buf out = {0};
    put_head(job, job->stream ? "chat.completion.chunk" : "chat.completion", &out);
    mfi_buf_str(&out, ",\"choices\":[");
    for (size_t i = 0; !job->stream && i < job->n_choices; i++)
        put_choice(job, &job->choices[i], &out);
    mfi_buf_str(&out, "],");
    srv_openai_end(job, &out);
}

static const srv_protocol protocol = {delta, choice_end, end, srv_openai_stream_error, NULL};

/* ---- requests ---- */

/* Tools of other kinds than functions are not for this server, and ignored. */
static bool take_tools(srv_fields *f, srv_chat *chat)
{
    if (f->refused || !srv_chat_tool_choice(f, chat))
        return false;
    const mfi_json *list = srv_field(f, "tools", MFI_JSON_ARRAY);
    for (size_t i = 0; i < mfi_json_len(list); i++) {
        const mfi_json *tool = mfi_json_at(list, i), *fn = mfi_json_get(tool, "function");
        const char *kind = mfi_json_str(mfi_json_get(tool, "type"), NULL);
        if (kind && strcmp(kind, "function") != 0)
            continue;
        if (!srv_chat_tool(f, chat, fn, "parameters"))
            return false;
    }
    return !f->refused;
}

/* Its schema lies a level deeper, or where llama.cpp has it. */
static bool take_format(srv_fields *f, srv_job *job)
{
    const mfi_json *format = srv_field(f, "response_format", MFI_JSON_OBJECT);
    const mfi_json *in = mfi_json_get(format, "json_schema");
    return srv_take_format(f, job, format, mfi_json_has(in, "schema") ? in : format,
                           "response_format");
}

static bool take_logprobs(srv_fields *f, srv_job *job)
{
    int64_t top = 0;
    srv_field_bool(f, "logprobs", &job->logprobs);
    if (srv_field_i64(f, "top_logprobs", 0, MF_TOP_LOGPROBS, &top) && top && !job->logprobs)
        return srv_refuse(f, "top_logprobs", "top_logprobs: needs logprobs to be true");
    job->n_top = (uint32_t)top;
    job->on_logprob = on_logprob;
    return !f->refused;
}

static bool take_rest(srv_fields *f, srv_job *job)
{
    const mfi_json *so = srv_field(f, "stream_options", MFI_JSON_OBJECT);
    int64_t n = 1;
    srv_field_bool(f, "stream", &job->stream);
    srv_member_bool(f, so, "include_usage", "stream_options", &job->include_usage);
    srv_field_bool(f, "timings_per_token", &job->timings_per_token);
    srv_field_bool(f, "ignore_eos", &job->ignore_eos);
    srv_chat_one_call(f, job, NULL);
    if (!srv_field_i64(f, "max_completion_tokens", -1, INT64_MAX, &job->max_tokens))
        srv_field_i64(f, "max_tokens", -1, INT64_MAX, &job->max_tokens);
    srv_field_i64(f, "n", 1, MFI_MAX_SERVED_CHOICES, &n);
    job->n_each = (size_t)n;
    return !f->refused;
}

void srv_chat_completions(srv_server *server, srv_exchange *x, const mfi_json *body)
{
    srv_fields f = {.x = x, .body = body};
    srv_chat chat = {0};
    srv_job *job = srv_job_new(x, server, "chatcmpl-");
    if (!job) {
        srv_reply_error(x, 500, NULL, NULL, "out of memory");
        return;
    }
    job->protocol = &protocol;
    bool ok = srv_take_sampling(&f, server, job) && srv_take_stop(&f, job, "stop") &&
              take_rest(&f, job) && take_logprobs(&f, job) && take_format(&f, job) &&
              srv_take_grammar(&f, job) && take_tools(&f, &chat) &&
              srv_chat_openai_messages(&f, &chat) &&
              srv_chat_vars(&f, &chat, srv_field_str(&f, "reasoning_effort", NULL)) && !f.refused &&
              srv_chat_prompt(&f, server, job, &chat);
    srv_chat_free(&chat);
    if (ok)
        srv_submit(server, job);
    else
        srv_job_free(job);
}

/* POST /apply-template: the text that would be the prompt. */
void srv_apply_template(srv_server *server, srv_exchange *x, const mfi_json *body)
{
    srv_fields f = {.x = x, .body = body};
    srv_chat chat = {0};
    mf_rendering rendering = {0};
    bool ok = take_tools(&f, &chat) && srv_chat_openai_messages(&f, &chat) &&
              srv_chat_vars(&f, &chat, srv_field_str(&f, "reasoning_effort", NULL)) && !f.refused &&
              srv_chat_render(&f, server, &chat, &rendering);
    if (ok) {
        mfi_buf out = {0};
        mfi_buf_str(&out, "{\"prompt\":");
        mfi_json_put_str(&out, rendering.text, rendering.len);
        mfi_buf_str(&out, "}");
        srv_reply_buf(x, 200, SRV_JSON, &out);
    }
    mf_rendering_free(&rendering);
    srv_chat_free(&chat);
}
