/* POST /v1/completions, OpenAI's older protocol: texts or token ids are continued as they are, and
 * may be echoed with their log-probabilities, which is what evaluation suites use. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fields.h"
#include "say.h"

#include "base/utf8.h"

/* ---- answers ---- */

static void comma(mfi_buf *out)
{
    mfi_buf_str(out, out->len ? "," : "");
}

/* {" the":-0.1,...}; tokens of the same text count once, the best. */
static void put_tops(const srv_server *server, const mf_token_logprob *top, size_t n_top,
                     mfi_buf *out)
{
    mfi_buf texts[MF_TOP_LOGPROBS] = {{0}};
    size_t n_put = 0;
    mfi_buf_str(out, "{");
    for (size_t i = 0; i < n_top; i++) {
        bool seen = false;
        srv_token_text(server, top[i].id, &texts[i]);
        for (size_t k = 0; k < i; k++)
            seen |= texts[k].len == texts[i].len &&
                    (!texts[i].len || memcmp(texts[k].data, texts[i].data, texts[i].len) == 0);
        if (seen)
            continue;
        mfi_buf_str(out, n_put++ ? "," : "");
        srv_put_text(&texts[i], 0, out);
        mfi_buf_str(out, ":");
        srv_put_logprob((double)top[i].logprob, out);
    }
    mfi_buf_str(out, "}");
    for (size_t i = 0; i < n_top; i++)
        mfi_buf_free(&texts[i]);
}

/* Not a number: the first token of a prompt, which nothing foretells. */
static void on_logprob(srv_choice *c, mf_token_logprob chosen, const mf_token_logprob *top,
                       size_t n_top)
{
    const srv_server *server = c->job->server;
    mfi_buf text = {0};
    srv_token_text(server, chosen.id, &text);
    comma(&c->lp_tokens);
    srv_put_text(&text, 0, &c->lp_tokens);
    comma(&c->lp_offsets);
    mfi_buf_fmt(&c->lp_offsets, "%zu", c->text_offset);
    c->text_offset += srv_characters(text.data, text.len);
    mfi_buf_free(&text);
    comma(&c->lp_values);
    comma(&c->lp_tops);
    if (isnan(chosen.logprob)) {
        mfi_buf_str(&c->lp_values, "null");
        mfi_buf_str(&c->lp_tops, "null");
        return;
    }
    srv_put_logprob((double)chosen.logprob, &c->lp_values);
    put_tops(server, top, n_top, &c->lp_tops);
    c->out_of_memory |=
        c->lp_tokens.failed || c->lp_values.failed || c->lp_tops.failed || c->lp_offsets.failed;
}

static const char *list(const mfi_buf *buf)
{
    return buf->len ? buf->data : "";
}

static void put_choice(const srv_job *job, srv_choice *c, size_t from, const char *finish,
                       mfi_buf *out)
{
    mfi_buf_fmt(out, "{\"index\":%u,\"text\":", c->index);
    srv_put_text(&c->text, from, out);
    mfi_buf_str(out, ",\"logprobs\":");
    if (job->logprobs) {
        mfi_buf_fmt(out,
                    "{\"tokens\":[%s],\"token_logprobs\":[%s],\"top_logprobs\":[%s],"
                    "\"text_offset\":[%s]}",
                    list(&c->lp_tokens), list(&c->lp_values), list(&c->lp_tops),
                    list(&c->lp_offsets));
        c->lp_tokens.len = c->lp_values.len = c->lp_tops.len = c->lp_offsets.len = 0;
    } else {
        mfi_buf_str(out, "null");
    }
    mfi_buf_fmt(out, ",\"finish_reason\":%s%s%s,\"stop_reason\":", finish ? "\"" : "",
                finish ? finish : "null", finish ? "\"" : "");
    srv_put_stop_string(job, c, out); /* vLLM's */
    mfi_buf_str(out, "}");
}

static void put_head(const srv_job *job, mfi_buf *out)
{
    const srv_server *server = job->server;
    mfi_buf_fmt(out, "{\"id\":\"%s\",\"object\":\"text_completion\",\"created\":%lld,\"model\":",
                job->id, (long long)job->created_s);
    mfi_json_put_str(out, server->model, strlen(server->model));
    mfi_buf_fmt(out, ",\"system_fingerprint\":\"moeflux-%s\",\"choices\":[", mf_version());
}

static void send(srv_job *job, srv_choice *c, const char *finish)
{
    mfi_buf out = {0};
    put_head(job, &out);
    put_choice(job, c, c->text_sent, finish, &out);
    c->text_sent = c->text.len;
    mfi_buf_fmt(&out, "]%s}", job->include_usage ? ",\"usage\":null" : "");
    srv_send(job, NULL, &out);
}

static void delta(srv_job *job, srv_choice *c)
{
    if (c->text.len > c->text_sent)
        send(job, c, NULL);
}

static const char *finish_name(const srv_choice *c)
{
    return c->finish == SRV_FINISH_LENGTH ? "length" : "stop";
}

static void choice_end(srv_job *job, srv_choice *c)
{
    send(job, c, finish_name(c));
}

static void end(srv_job *job)
{
    mfi_buf out = {0};
    put_head(job, &out);
    for (size_t i = 0; !job->stream && i < job->n_choices; i++) {
        mfi_buf_str(&out, i ? "," : "");
        put_choice(job, &job->choices[i], 0, finish_name(&job->choices[i]), &out);
    }
    mfi_buf_str(&out, "],");
    srv_openai_end(job, &out);
}

static const srv_protocol protocol = {delta, choice_end, end, srv_openai_stream_error, NULL};

/* ---- requests ---- */

/* A text, texts, ids, or lists of ids. */
static bool take_prompts(srv_fields *f, srv_server *server, srv_job *job)
{
    const mfi_json *v = mfi_json_get(f->body, "prompt");
    size_t len, n = mfi_json_len(v);
    const char *text = mfi_json_str(v, &len);
    int64_t id;
    if (text)
        return srv_add_prompt_text(f, server, job, text, len, true, "prompt");
    if (mfi_json_typeof(v) != MFI_JSON_ARRAY || !n)
        return srv_refuse(f, "prompt", "prompt: neither a text nor a list of texts or token ids");
    if (mfi_json_i64(mfi_json_at(v, 0), &id))
        return srv_add_prompt_ids(f, server, job, v, "prompt");
    if (n > MFI_MAX_SERVED_CHOICES)
        return srv_refuse(f, "prompt", "prompt: more than %d of them", MFI_MAX_SERVED_CHOICES);
    for (size_t i = 0; i < n; i++) {
        const mfi_json *one = mfi_json_at(v, i);
        text = mfi_json_str(one, &len);
        if (!text && mfi_json_typeof(one) != MFI_JSON_ARRAY)
            return srv_refuse(f, "prompt", "prompt: element %zu is no text and no list of ids", i);
        if (text ? !srv_add_prompt_text(f, server, job, text, len, true, "prompt")
                 : !srv_add_prompt_ids(f, server, job, one, "prompt"))
            return false;
    }
    return true;
}

static bool take_rest(srv_fields *f, srv_job *job)
{
    const mfi_json *so = srv_field(f, "stream_options", MFI_JSON_OBJECT);
    const mfi_json *schema = mfi_json_get(f->body, "json_schema");
    const char *suffix = srv_field_str(f, "suffix", NULL);
    int64_t n = 1, best_of = 1, top = 0;
    srv_field_bool(f, "stream", &job->stream);
    srv_member_bool(f, so, "include_usage", "stream_options", &job->include_usage);
    srv_field_bool(f, "ignore_eos", &job->ignore_eos);
    srv_field_bool(f, "echo", &job->echo);
    job->max_tokens = 16; /* the protocol's default */
    srv_field_i64(f, "max_tokens", -1, INT64_MAX, &job->max_tokens);
    srv_field_i64(f, "n", 1, MFI_MAX_SERVED_CHOICES, &n);
    job->n_each = (size_t)n;
    if (srv_field_i64(f, "best_of", 1, INT32_MAX, &best_of) && best_of > n)
        return srv_refuse(f, "best_of", "best_of: more than n isn't offered");
    if (suffix && *suffix)
        return srv_refuse(f, "suffix", "suffix isn't offered");
    job->logprobs = srv_field_i64(f, "logprobs", 0, MF_TOP_LOGPROBS, &top);
    job->n_top = (uint32_t)top;
    job->on_logprob = on_logprob;
    if (mfi_json_typeof(schema) == MFI_JSON_OBJECT)
        return srv_take_schema(f, job, schema, "json_schema");
    return !f->refused && srv_take_grammar(f, job);
}

void srv_completions(srv_server *server, srv_exchange *x, const mfi_json *body)
{
    srv_fields f = {.x = x, .body = body};
    srv_job *job = srv_job_new(x, server, "cmpl-");
    if (!job) {
        srv_reply_error(x, 500, NULL, NULL, "out of memory");
        return;
    }
    job->protocol = &protocol;
    if (srv_take_sampling(&f, server, job) && srv_take_stop(&f, job, "stop") &&
        take_rest(&f, job) && take_prompts(&f, server, job))
        srv_submit(server, job);
    else
        srv_job_free(job);
}
