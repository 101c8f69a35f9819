/* Parts of answers; see say.h. On the engine's thread. */
#include "say.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/utf8.h"

#define LEAST (-9999.0) /* what OpenAI has for minus infinity */

size_t srv_prompt_tokens(const srv_job *job)
{
    return srv_job_prompt_tokens(job);
}

size_t srv_cached_tokens(const srv_job *job)
{
    return job->echo ? 0 : job->choices[0].result.n_cached;
}

size_t srv_answer_tokens(const srv_job *job)
{
    size_t n = 0;
    for (size_t i = 0; i < job->n_choices; i++)
        n += job->choices[i].n_tokens;
    return n;
}

size_t srv_reasoning_tokens(const srv_job *job)
{
    size_t n = 0;
    for (size_t i = 0; i < job->n_choices; i++)
        n += job->choices[i].n_reasoning_tokens;
    return n;
}

void srv_put_usage(const srv_job *job, mfi_buf *out)
{
    size_t prompt = srv_prompt_tokens(job), answer = srv_answer_tokens(job);
    mfi_buf_fmt(out,
                "\"usage\":{\"prompt_tokens\":%zu,\"completion_tokens\":%zu,\"total_tokens\":%zu,"
                "\"prompt_tokens_details\":{\"cached_tokens\":%zu},"
                "\"completion_tokens_details\":{\"reasoning_tokens\":%zu}}",
                prompt, answer, prompt + answer, srv_cached_tokens(job), srv_reasoning_tokens(job));
}

static void put_rate(mfi_buf *out, const char *name, size_t n, uint64_t ns)
{
    double ms = (double)ns / 1e6;
    mfi_buf_fmt(out, ",\"%s_n\":%zu,\"%s_ms\":%.3f,\"%s_per_token_ms\":%.3f,\"%s_per_second\":%.3f",
                name, n, name, ms, name, n ? ms / (double)n : 0, name,
                ms > 0 ? 1e3 * (double)n / ms : 0);
}

void srv_put_timings(const srv_job *job, mfi_buf *out)
{
    const srv_server *server = job->server;
    const mf_generate_result *r = &job->choices[0].result;
    uint64_t now = mfi_clock_ns(), first = job->first_ns ? job->first_ns : now;
    mf_stats s = {.struct_size = sizeof s};
    const mf_stats *b = &job->stats_before;
    mf_engine_stats(server->engine, &s);
    mfi_buf_fmt(out, "\"timings\":{\"cache_n\":%zu", srv_cached_tokens(job));
    put_rate(out, "prompt", job->echo ? job->choices[0].n_echoed : r->n_prompt_done,
             first - job->started_ns);
    put_rate(out, "predicted", srv_answer_tokens(job), now - first);
    mfi_buf_fmt(out,
                "},\"experts\":{\"hits\":%" PRIu64 ",\"misses\":%" PRIu64 ",\"bytes_read\":%" PRIu64
                ",\"stall_ms\":%.3f}",
                s.expert_hits - b->expert_hits, s.expert_misses - b->expert_misses,
                s.expert_bytes_read - b->expert_bytes_read,
                (double)(s.stall_ns - b->stall_ns) / 1e6);
}

void srv_put_valid(const char *text, size_t len, mfi_buf *out)
{
    for (size_t at = 0, n; at < len; at += n ? n : 1) {
        uint32_t cp;
        n = mfi_utf8_decode(text + at, text + len, &cp);
        mfi_buf_append(out, n ? text + at : "\xef\xbf\xbd", n ? n : 3);
    }
}

size_t srv_characters(const char *text, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)text[i] & 0xc0) != 0x80;
    return n;
}

void srv_token_text(const srv_server *server, int32_t id, mfi_buf *out)
{
    size_t len;
    const char *piece = mf_tokenizer_piece(server->tokenizer, id, true, &len);
    srv_put_valid(piece, len, out);
}

void srv_put_logprob(double logprob, mfi_buf *out)
{
    mfi_json_put_f64(out, isfinite(logprob) ? logprob : LEAST);
}

/* Without the closing brace. */
static void put_token_logprob(const srv_server *server, mf_token_logprob one, mfi_buf *out)
{
    mfi_buf text = {0};
    size_t len;
    const char *piece = mf_tokenizer_piece(server->tokenizer, one.id, true, &len);
    srv_token_text(server, one.id, &text);
    mfi_buf_str(out, "{\"token\":");
    srv_put_text(&text, 0, out);
    mfi_buf_str(out, ",\"logprob\":");
    srv_put_logprob((double)one.logprob, out);
    mfi_buf_str(out, ",\"bytes\":[");
    for (size_t i = 0; i < len; i++)
        mfi_buf_fmt(out, "%s%u", i ? "," : "", (unsigned)(unsigned char)piece[i]);
    mfi_buf_str(out, "]");
    out->failed |= text.failed;
    mfi_buf_free(&text);
}

void srv_put_logprobs(const srv_server *server, mf_token_logprob chosen,
                      const mf_token_logprob *top, size_t n_top, mfi_buf *out)
{
    put_token_logprob(server, chosen, out);
    mfi_buf_str(out, ",\"top_logprobs\":[");
    for (size_t i = 0; i < n_top; i++) {
        mfi_buf_str(out, i ? "," : "");
        put_token_logprob(server, top[i], out);
        mfi_buf_str(out, "}");
    }
    mfi_buf_str(out, "]}");
}

void srv_put_text(const mfi_buf *text, size_t from, mfi_buf *out)
{
    mfi_json_put_str(out, text->data ? text->data + from : "", text->len - from);
}

srv_call *srv_next_call(srv_choice *c, bool begun)
{
    srv_call *call = c->calls_sent < c->n_calls ? &c->calls[c->calls_sent] : NULL;
    if (!call || (begun && !call->begun_sent))
        return NULL;
    return call->arguments.len > call->arguments_sent || call->whole || call->broken ? call : NULL;
}

bool srv_call_sent(srv_choice *c, srv_call *call)
{
    call->begun_sent = true;
    call->arguments_sent = call->arguments.len;
    if (!call->whole && !call->broken)
        return false;
    c->calls_sent++;
    return true;
}

void srv_put_stop_string(const srv_job *job, const srv_choice *c, mfi_buf *out)
{
    if (c->done && c->finish == SRV_FINISH_STRING && c->result.stop_string < job->n_stop)
        mfi_json_put_str(out, job->stop[c->result.stop_string],
                         strlen(job->stop[c->result.stop_string]));
    else
        mfi_buf_str(out, "null");
}

void srv_send(srv_job *job, const char *event, mfi_buf *text)
{
    mfi_buf frame = {0};
    if (event)
        mfi_buf_fmt(&frame, "event: %s\n", event);
    mfi_buf_str(&frame, "data: ");
    mfi_buf_append(&frame, text->data ? text->data : "", text->len);
    mfi_buf_str(&frame, "\n\n");
    if (frame.failed || text->failed)
        atomic_store(&job->x->gone, true); /* a stream with a hole is worse than none */
    else
        srv_stream_write(job->x, frame.data, frame.len);
    mfi_buf_free(&frame);
    mfi_buf_free(text);
}

void srv_openai_end(srv_job *job, mfi_buf *out)
{
    srv_put_usage(job, out);
    mfi_buf_str(out, ",");
    srv_put_timings(job, out);
    mfi_buf_str(out, "}");
    if (!job->stream) {
        srv_reply_buf(job->x, 200, SRV_JSON, out);
        return;
    }
    if (job->include_usage)
        srv_send(job, NULL, out);
    mfi_buf_free(out);
    srv_stream_write(job->x, "data: [DONE]\n\n", 14);
    srv_stream_end(job->x);
}

void srv_openai_stream_error(srv_job *job, const char *message)
{
    mfi_buf out = {0};
    srv_put_error(&out, SRV_OPENAI, &(srv_error){.status = 500, .message = message}, job->x->id);
    srv_send(job, NULL, &out);
    srv_stream_end(job->x);
}
