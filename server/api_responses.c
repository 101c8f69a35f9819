/* POST /v1/responses, OpenAI's newer protocol. Reading a request is the desk's, writing answers the
 * engine's thread's; requests are read in responses_input.c, what was stored is shown in
 * api_stored.c. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "responses.h"
#include "say.h"

/* ---- items: the parts of an answer ---- */

typedef enum kind { REASONING, MESSAGE, CALL } kind;

static const char *const prefixes[] = {"rs", "msg", "fc"};

static void put_id(const srv_job *job, kind k, uint32_t index, mfi_buf *out)
{
    mfi_buf_fmt(out, "\"id\":\"%s_%s%u\"", prefixes[k], job->id + strlen("resp_"), index);
}

/* ,"logprobs":[...] of what lies from `from` on in what was sent; each has a comma before it. */
static void put_logprobs(const srv_choice *c, size_t from, mfi_buf *out)
{
    mfi_buf_str(out, ",\"logprobs\":[");
    if (c->logprobs_sent > from)
        mfi_buf_append(out, c->logprobs.data + from + 1, c->logprobs_sent - from - 1);
    mfi_buf_str(out, "]");
}

static void put_text_part(const srv_choice *c, kind k, size_t from, bool empty, mfi_buf *out)
{
    const srv_responses *r = c->job->protocol_data;
    const mfi_buf none = {0};
    const mfi_buf *text = k == MESSAGE ? &c->text : &c->reasoning;
    mfi_buf_fmt(out, "{\"type\":\"%s\",\"text\":", k == MESSAGE ? "output_text" : "reasoning_text");
    srv_put_text(empty ? &none : text, empty ? 0 : from, out);
    if (k == MESSAGE) {
        mfi_buf_str(out, ",\"annotations\":[]");
        put_logprobs(c, empty ? c->logprobs_sent : r->logprobs_from, out);
    }
    mfi_buf_str(out, "}");
}

/* An item with its text from `from` on; empty: as it begins. */
static void put_item(const srv_job *job, const srv_choice *c, kind k, uint32_t index, size_t from,
                     const srv_call *call, bool empty, mfi_buf *out)
{
    const char *status = empty                                       ? "in_progress"
                         : c->done && c->finish == SRV_FINISH_LENGTH ? "incomplete"
                                                                     : "completed";
    mfi_buf_str(out, "{");
    put_id(job, k, index, out);
    if (k == REASONING) {
        mfi_buf_str(out, ",\"type\":\"reasoning\",\"summary\":[],\"content\":[");
        if (!empty)
            put_text_part(c, k, from, false, out);
        mfi_buf_str(out, "]");
    } else if (k == MESSAGE) {
        mfi_buf_str(out, ",\"type\":\"message\",\"role\":\"assistant\",\"content\":[");
        if (!empty)
            put_text_part(c, k, from, false, out);
        mfi_buf_str(out, "]");
    } else {
        mfi_buf_str(out, ",\"type\":\"function_call\",\"call_id\":");
        srv_put_text(&call->id, 0, out);
        mfi_buf_str(out, ",\"name\":");
        srv_put_text(&call->name, 0, out);
        mfi_buf_str(out, ",\"arguments\":");
        if (empty)
            mfi_buf_str(out, "\"\"");
        else
            srv_put_text(&call->arguments, 0, out);
        status = empty ? "in_progress" : call->broken ? "incomplete" : "completed";
    }
    mfi_buf_fmt(out, ",\"status\":\"%s\"}", status);
}

/* ---- the response ---- */

static void put_usage(const srv_job *job, mfi_buf *out)
{
    size_t prompt = srv_prompt_tokens(job), answer = srv_answer_tokens(job);
    mfi_buf_fmt(out,
                "\"usage\":{\"input_tokens\":%zu,\"input_tokens_details\":{\"cached_tokens\":%zu,"
                "\"cache_write_tokens\":0},"
                "\"output_tokens\":%zu,\"output_tokens_details\":{\"reasoning_tokens\":%zu},"
                "\"total_tokens\":%zu}",
                prompt, srv_cached_tokens(job), answer, srv_reasoning_tokens(job), prompt + answer);
}

/* As it can be stored: with where status and output stand in `out`. */
static srv_answer put_response(const srv_job *job, const char *status, const char *error,
                               mfi_buf *out)
{
    const srv_server *server = job->server;
    const srv_responses *r = job->protocol_data;
    bool cut = strcmp(status, "incomplete") == 0;
    bool ended = strcmp(status, "in_progress") != 0 && strcmp(status, "queued") != 0;
    mfi_buf_fmt(out, "{\"id\":\"%s\",\"object\":\"response\",\"created_at\":%lld,\"status\":\"",
                job->id, (long long)job->created_s);
    srv_answer answer = {.id = job->id,
                         .response = out,
                         .input = &r->input,
                         .output_len = r->items.len,
                         .status_at = out->len,
                         .status_len = strlen(status)};
    mfi_buf_fmt(out, "%s\"", status);
    if (strcmp(status, "completed") == 0)
        mfi_buf_fmt(out, ",\"completed_at\":%lld", (long long)time(NULL));
    mfi_buf_fmt(out, ",\"background\":%s,\"error\":%s%s%s", job->background ? "true" : "false",
                error ? "{\"code\":\"server_error\",\"message\":" : "null", error ? error : "",
                error ? "}" : "");
    mfi_buf_fmt(out,
                *r->conversation ? ",\"conversation\":{\"id\":\"%s\"}" : ",\"conversation\":null",
                r->conversation);
    mfi_buf_fmt(out, ",\"incomplete_details\":%s,\"max_output_tokens\":",
                cut ? "{\"reason\":\"max_output_tokens\"}" : "null");
    if (job->max_tokens >= 0)
        mfi_buf_fmt(out, "%lld", (long long)job->max_tokens);
    else
        mfi_buf_str(out, "null");
    mfi_buf_str(out, ",\"model\":");
    mfi_json_put_str(out, server->model, strlen(server->model));
    mfi_buf_str(out, ",\"output\":[");
    answer.output_at = out->len;
    mfi_buf_append(out, srv_text_of(&r->items), r->items.len);
    mfi_buf_str(out, "],\"previous_response_id\":");
    mfi_buf_fmt(out, *r->previous ? "\"%s\"" : "null", r->previous);
    mfi_buf_fmt(out, ",\"store\":%s,\"truncation\":\"disabled\",%s\"top_logprobs\":%u,",
                r->store ? "true" : "false", srv_text_of(&r->said), job->n_top);
    mfi_buf_str(out, "\"temperature\":");
    out->failed |= r->said.failed || r->items.failed;
    mfi_json_put_f64(out, (double)job->sampling.temperature);
    mfi_buf_str(out, ",\"top_p\":");
    mfi_json_put_f64(out, (double)job->sampling.top_p);
    mfi_buf_str(out, ",");
    if (!ended) {
        mfi_buf_str(out, "\"usage\":null}");
    } else {
        put_usage(job, out);
        mfi_buf_str(out, ",");
        srv_put_timings(job, out);
        mfi_buf_str(out, "}");
    }
    return answer;
}

/* A whole answer; who gets it may ask for it at once. */
static void put_end(const srv_job *job, const char *status, const char *error, mfi_buf *out)
{
    const srv_responses *r = job->protocol_data;
    srv_server *server = job->server;
    const srv_answer answer = put_response(job, status, error, out);
    if (r->store && !job->background)
        srv_store_add(&server->store, &answer);
}

/* The end of an answer in the background. What became of it can be asked for, whatever it was. */
static void keep_end(srv_job *job, const char *status, const char *error)
{
    srv_responses *r = job->protocol_data;
    srv_store *store = &((srv_server *)job->server)->store;
    mfi_buf out = {0};
    srv_answer answer = put_response(job, status, error, &out);
    bool kept = srv_store_finish(store, &answer);
    if (!kept) {
        mfi_buf_free(&out);
        mfi_buf_free(&r->items);
        answer = put_response(job, "failed", "\"the answer is too long to be stored\"", &out);
        kept = srv_store_finish(store, &answer);
    }
    if (!kept)
        srv_store_status(store, job->id, "failed", true);
    mfi_buf_free(&out);
}

/* ---- streams ---- */

static void event_begin(srv_job *job, const char *name, mfi_buf *out)
{
    srv_responses *r = job->protocol_data;
    mfi_buf_fmt(out, "{\"type\":\"%s\",\"sequence_number\":%llu", name,
                (unsigned long long)r->sequence++);
}

static void event_end(srv_job *job, const char *name, mfi_buf *out)
{
    mfi_buf_str(out, "}");
    srv_send(job, name, out);
}

static void send_response(srv_job *job, const char *name, const char *status, const char *error)
{
    mfi_buf out = {0}, response = {0};
    if (strcmp(status, "in_progress") == 0)
        put_response(job, status, error, &response);
    else
        put_end(job, status, error, &response);
    event_begin(job, name, &out);
    mfi_buf_str(&out, ",\"response\":");
    mfi_buf_append(&out, srv_text_of(&response), response.len);
    out.failed |= response.failed;
    mfi_buf_free(&response);
    event_end(job, name, &out);
}

static void send_item(srv_job *job, srv_choice *c, const char *name, kind k, const srv_call *call,
                      bool empty)
{
    srv_responses *r = job->protocol_data;
    mfi_buf out = {0}, item = {0};
    uint32_t index = c->n_blocks - 1;
    put_item(job, c, k, index, c->block_from, call, empty, &item);
    event_begin(job, name, &out);
    mfi_buf_fmt(&out, ",\"output_index\":%u,\"item\":%s", index, item.data ? item.data : "null");
    out.failed |= item.failed;
    event_end(job, name, &out);
    if (!empty) {
        mfi_buf_str(&r->items, r->items.len ? "," : "");
        mfi_buf_append(&r->items, item.data, item.len);
    }
    mfi_buf_free(&item);
}

/* ...,"item_id":...,"output_index":...,"content_index":0 */
static void part_begin(srv_job *job, const srv_choice *c, const char *name, kind k, mfi_buf *out)
{
    event_begin(job, name, out);
    mfi_buf_fmt(out, ",\"item_id\":\"%s_%s%u\",\"output_index\":%u", prefixes[k],
                job->id + strlen("resp_"), c->n_blocks - 1, c->n_blocks - 1);
    if (k != CALL)
        mfi_buf_str(out, ",\"content_index\":0");
}

static void send_part(srv_job *job, srv_choice *c, const char *name, kind k, bool empty)
{
    mfi_buf out = {0};
    part_begin(job, c, name, k, &out);
    mfi_buf_str(&out, ",\"part\":");
    put_text_part(c, k, c->block_from, empty, &out);
    event_end(job, name, &out);
}

static void send_text(srv_job *job, srv_choice *c, const char *name, kind k, const char *member,
                      size_t from, size_t logprobs_from)
{
    mfi_buf out = {0};
    part_begin(job, c, name, k, &out);
    mfi_buf_fmt(&out, ",\"%s\":", member);
    srv_put_text(k == MESSAGE ? &c->text : &c->reasoning, from, &out);
    if (k == MESSAGE)
        put_logprobs(c, logprobs_from, &out);
    event_end(job, name, &out);
}

static void close_item(srv_job *job, srv_choice *c)
{
    if (c->open_block < 0)
        return;
    const srv_responses *r = job->protocol_data;
    kind k = (kind)c->open_block;
    send_text(job, c, k == MESSAGE ? "response.output_text.done" : "response.reasoning_text.done",
              k, "text", c->block_from, r->logprobs_from);
    send_part(job, c, "response.content_part.done", k, false);
    send_item(job, c, "response.output_item.done", k, NULL, false);
    c->open_block = -1;
}

/* Log-probabilities are those of the text's tokens: what came since the last look goes if it was
 * reasoning or a call that grew by it, and waits if nothing did. */
static void settle_logprobs(srv_choice *c)
{
    srv_responses *r = c->job->protocol_data;
    size_t other = c->reasoning.len + c->n_calls;
    if (c->n_calls)
        other += c->calls[c->n_calls - 1].arguments.len;
    if (c->text.len > r->text_seen)
        r->logprobs_kept = c->logprobs.len;
    else if (other > r->other_seen)
        c->logprobs.len = r->logprobs_kept;
    r->text_seen = c->text.len;
    r->other_seen = other;
}

void srv_responses_logprob(srv_choice *c, mf_token_logprob chosen, const mf_token_logprob *top,
                           size_t n_top)
{
    const srv_server *server = c->job->server;
    srv_responses *r = c->job->protocol_data;
    mfi_buf *out = &c->logprobs;
    settle_logprobs(c);                         /* what the token before this one was */
    if (c->in_reasoning || r->was_in_reasoning) /* its end may be told with the text behind it */
        out->len = r->logprobs_kept;
    r->was_in_reasoning = c->in_reasoning;
    mfi_buf_str(out, ",");
    srv_put_logprobs(server, chosen, top, n_top, out);
    c->out_of_memory |= out->failed;
}

static void send_more(srv_job *job, srv_choice *c, kind k, const mfi_buf *text, size_t *sent)
{
    srv_responses *r = job->protocol_data;
    size_t logprobs_from = c->logprobs_sent;
    if (text->len == *sent)
        return;
    if (c->open_block != (int)k) {
        close_item(job, c);
        c->n_blocks++;
        c->open_block = (int)k;
        c->block_from = *sent;
        r->logprobs_from = logprobs_from;
        send_item(job, c, "response.output_item.added", k, NULL, true);
        send_part(job, c, "response.content_part.added", k, true);
    }
    if (k == MESSAGE)
        c->logprobs_sent = r->logprobs_kept;
    send_text(job, c, k == MESSAGE ? "response.output_text.delta" : "response.reasoning_text.delta",
              k, "delta", *sent, logprobs_from);
    *sent = text->len;
}

static void send_arguments(srv_job *job, srv_choice *c, const srv_call *call, bool done)
{
    const char *name =
        done ? "response.function_call_arguments.done" : "response.function_call_arguments.delta";
    mfi_buf out = {0};
    part_begin(job, c, name, CALL, &out);
    mfi_buf_fmt(&out, ",\"%s\":", done ? "arguments" : "delta");
    srv_put_text(&call->arguments, done ? 0 : call->arguments_sent, &out);
    if (done) {
        mfi_buf_str(&out, ",\"name\":");
        srv_put_text(&call->name, 0, &out);
    }
    event_end(job, name, &out);
}

static void send_calls(srv_job *job, srv_choice *c, bool begun)
{
    for (srv_call *call; (call = srv_next_call(c, begun));) {
        if (!call->begun_sent) {
            close_item(job, c);
            c->n_blocks++;
            c->open_block = CALL;
            send_item(job, c, "response.output_item.added", CALL, call, true);
        }
        if (call->arguments.len > call->arguments_sent)
            send_arguments(job, c, call, false);
        if (!srv_call_sent(c, call))
            return;
        if (call->whole)
            send_arguments(job, c, call, true);
        send_item(job, c, "response.output_item.done", CALL, call, false);
        c->open_block = -1;
    }
}

static void send_created(srv_job *job, srv_choice *c)
{
    if (c->begun_sent)
        return;
    c->begun_sent = true;
    send_response(job, "response.created", "in_progress", NULL);
    send_response(job, "response.in_progress", "in_progress", NULL);
}

static void delta(srv_job *job, srv_choice *c)
{
    send_created(job, c);
    settle_logprobs(c);
    send_calls(job, c, true); /* its end comes before what follows it */
    send_more(job, c, REASONING, &c->reasoning, &c->reasoning_sent);
    send_more(job, c, MESSAGE, &c->text, &c->text_sent);
    send_calls(job, c, false);
}

static void choice_end(srv_job *job, srv_choice *c)
{
    delta(job, c);
    close_item(job, c);
}

/* What was asked and answered is the conversation's, unless that was dropped meanwhile. */
static void extend_conversation(const srv_job *job)
{
    const srv_responses *r = job->protocol_data;
    srv_server *server = job->server;
    mfi_buf items = {0};
    bool fits;
    if (!*r->conversation)
        return;
    size_t from = r->new_at + (r->input.len > r->new_at && r->input.data[r->new_at] == ',');
    mfi_buf_append(&items, srv_text_of(&r->input) + from, r->input.len - from);
    mfi_buf_str(&items, items.len && r->items.len ? "," : "");
    mfi_buf_append(&items, srv_text_of(&r->items), r->items.len);
    items.failed |= r->input.failed || r->items.failed;
    srv_conversation_append(&server->conversations, r->conversation, &items, &fits);
    mfi_buf_free(&items);
}

static void end(srv_job *job)
{
    srv_responses *r = job->protocol_data;
    srv_choice *c = &job->choices[0];
    bool cut = c->finish == SRV_FINISH_LENGTH;
    const char *status = cut ? "incomplete" : "completed";
    mfi_buf out = {0};
    if (job->stream) {
        extend_conversation(job);
        send_response(job, cut ? "response.incomplete" : "response.completed", status, NULL);
        srv_stream_end(job->x);
    } else {
        uint32_t n = 0;
        settle_logprobs(c);
        c->logprobs_sent = r->logprobs_kept;
        if (c->reasoning.len)
            put_item(job, c, REASONING, n++, 0, NULL, false, &r->items);
        if (c->text.len || !c->n_calls) {
            mfi_buf_str(&r->items, n ? "," : "");
            put_item(job, c, MESSAGE, n++, 0, NULL, false, &r->items);
        }
        for (size_t i = 0; i < c->n_calls; i++) {
            mfi_buf_str(&r->items, n ? "," : "");
            put_item(job, c, CALL, n++, 0, &c->calls[i], false, &r->items);
        }
        extend_conversation(job);
        if (job->background) {
            keep_end(job, status, NULL);
            return;
        }
        put_end(job, status, NULL, &out);
        srv_reply_buf(job->x, 200, SRV_JSON, &out);
    }
}

static void stream_error(srv_job *job, const char *message)
{
    mfi_buf text = {0};
    mfi_json_put_str(&text, message, strlen(message));
    if (job->background) {
        keep_end(job, "failed", text.data ? text.data : "null");
    } else {
        send_created(job, &job->choices[0]);
        send_response(job, "response.failed", "failed", text.data ? text.data : "null");
        srv_stream_end(job->x);
    }
    mfi_buf_free(&text);
}

static void begun(srv_job *job)
{
    if (job->background)
        srv_store_status(&((srv_server *)job->server)->store, job->id, "in_progress", false);
}

static const srv_protocol protocol = {delta, choice_end, end, stream_error, begun};

static void free_data(void *data)
{
    srv_responses *r = data;
    mfi_buf_free(&r->items);
    mfi_buf_free(&r->said);
    mfi_buf_free(&r->input);
    free(r);
}

/* A job that was read; NULL: refused. */
static srv_job *read_job(srv_server *server, srv_exchange *x, const mfi_json *body, bool count_only)
{
    srv_fields f = {.x = x, .body = body};
    srv_chat chat = {0};
    srv_job *job = srv_job_new(x, server, "resp_");
    srv_responses *r = job ? calloc(1, sizeof *r) : NULL;
    if (!r) {
        srv_job_free(job);
        srv_reply_error(x, 500, NULL, NULL, "out of memory");
        return NULL;
    }
    job->protocol = &protocol;
    job->protocol_data = r;
    job->free_data = free_data;
    job->count_only = count_only;
    bool ok =
        srv_responses_read(&f, server, job, &chat, r) && srv_chat_prompt(&f, server, job, &chat);
    srv_chat_free(&chat);
    job->held_bytes = r->input.len;
    if (ok)
        return job;
    srv_job_free(job);
    return NULL;
}

/* Stores the answer that is to come; on failure the request is answered. */
static bool begin_stored(srv_server *server, srv_job *job, srv_exchange *own, mfi_buf *out)
{
    const srv_answer answer = put_response(job, "queued", NULL, out);
    if (!own || out->failed) {
        srv_reply_error(job->x, 500, NULL, NULL, "out of memory");
        return false;
    }
    switch (srv_store_begin(&server->store, &answer, own)) {
    case SRV_BEGUN:
        return true;
    case SRV_BEGUN_TOO_LONG:
        srv_reply_error(job->x, 400, NULL, "background",
                        "background: the conversation is too long to be stored meanwhile");
        return false;
    default:
        srv_reply_error(job->x, 503, NULL, NULL,
                        "the answers in the background take all there is for them");
        return false;
    }
}

/* The job goes on with an exchange of its own, and who asked is answered at once. */
static void submit_background(srv_server *server, srv_job *job)
{
    srv_exchange *x = job->x; /* the desk holds it, too */
    mfi_buf out = {0};
    if (!srv_prepare(server, job))
        return;
    srv_exchange *own = srv_exchange_new(x->wake, x->came_ns);
    if (begin_stored(server, job, own, &out)) {
        srv_request_move_charge(&x->request, &own->request, job->prompts.len + job->held_bytes);
        x->submitted = true; /* that lets go of its place once it is over */
        job->x = own;
        srv_exchange_release(x);
        srv_worker_add(server, job);
        srv_reply_buf(x, 200, SRV_JSON, &out);
        return;
    }
    srv_exchange_release(own);
    srv_job_free(job);
    mfi_buf_free(&out);
}

void srv_responses_route(srv_server *server, srv_exchange *x, const mfi_json *body)
{
    srv_job *job = read_job(server, x, body, false);
    if (job && job->background)
        submit_background(server, job);
    else if (job)
        srv_submit(server, job);
}

/* POST /v1/responses/input_tokens: how long its prompt would be. */
void srv_responses_count(srv_server *server, srv_exchange *x, const mfi_json *body)
{
    srv_job *job = read_job(server, x, body, true);
    mfi_buf out = {0};
    if (!job)
        return;
    mfi_buf_fmt(&out, "{\"object\":\"response.input_tokens\",\"input_tokens\":%zu}",
                srv_prompt_tokens(job));
    srv_reply_buf(x, 200, SRV_JSON, &out);
    srv_job_free(job);
}
