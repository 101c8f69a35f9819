/* An answer as it comes: callbacks of generating, on the engine's thread. Collects; protocols say
 * it in their own words. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "job.h"
#include "server_int.h"

/* What an answer that must be a call is read as; no marker can end it within a string. */
#define FORCED_NOTATION "mistral-list"
#define FORCED_BEGIN    "[TOOL_CALLS]["
#define FORCED_END      "]"

/* ---- parts ---- */

static void append(srv_choice *c, mfi_buf *to, const char *bytes, size_t len)
{
    mfi_buf_append(to, bytes, len);
    c->out_of_memory = c->out_of_memory || to->failed;
}

static srv_call *new_call(srv_choice *c, uint32_t number)
{
    if (c->n_calls == c->calls_cap) {
        size_t cap = c->calls_cap ? 2 * c->calls_cap : 4;
        srv_call *grown = realloc(c->calls, cap * sizeof *grown);
        if (!grown) {
            c->out_of_memory = true;
            return NULL;
        }
        c->calls = grown;
        c->calls_cap = cap;
    }
    c->calls[c->n_calls] = (srv_call){.number = number};
    return &c->calls[c->n_calls++];
}

static srv_call *call_of(srv_choice *c, uint32_t number)
{
    if (c->n_calls && c->calls[c->n_calls - 1].number == number)
        return &c->calls[c->n_calls - 1];
    return new_call(c, number);
}

/* Mistral's templates want nine letters and digits. */
static void name_call(srv_choice *c, srv_call *call)
{
    const srv_job *job = c->job;
    const char *random = job->id + strcspn(job->id, "-_") + 1;
    size_t number = (size_t)(call - c->calls);
    if (call->id.len)
        return;
    if (strncmp(((const srv_server *)job->server)->notation, "mistral", 7) == 0)
        mfi_buf_fmt(&call->id, "%.5s%02x%02x", random, c->index & 0xff, (unsigned)number & 0xff);
    else
        mfi_buf_fmt(&call->id, "%s%.16s%u%zu", job->call_prefix, random, c->index, number);
    c->out_of_memory = c->out_of_memory || call->id.failed;
}

static void drop_call(srv_choice *c)
{
    srv_call *call = &c->calls[--c->n_calls];
    mfi_buf_free(&call->name);
    mfi_buf_free(&call->id);
    mfi_buf_free(&call->arguments);
}

/* It was none. One that a stream has begun can't be taken back. */
static void break_call(srv_choice *c, uint32_t number)
{
    if (!c->n_calls || c->calls[c->n_calls - 1].number != number)
        return;
    if (c->calls[c->n_calls - 1].begun_sent)
        c->calls[c->n_calls - 1].broken = true;
    else
        drop_call(c);
}

static bool has_calls(const srv_choice *c)
{
    for (size_t i = 0; i < c->n_calls; i++)
        if (c->calls[i].whole)
            return true;
    return false;
}

/* Text. What an answer that must be a call was told to begin with is no part of it. */
static void put_text(srv_choice *c, const char *bytes, size_t len)
{
    size_t n = c->job->forced_calls && !c->text.len ? strlen(FORCED_BEGIN) : 0;
    if (n && len >= n && memcmp(bytes, FORCED_BEGIN, n) == 0) {
        bytes += n;
        len -= n;
    }
    append(c, &c->text, bytes, len);
}

static void on_part(void *user, mf_output_kind kind, uint32_t number, const char *bytes, size_t len)
{
    srv_choice *c = user;
    srv_call *call;
    if (c->job->one_call && has_calls(c)) /* a token may hold more than the call's end */
        return;
    c->in_reasoning = kind == MF_OUTPUT_REASONING;
    switch (kind) {
    case MF_OUTPUT_TEXT:
        put_text(c, bytes, len);
        return;
    case MF_OUTPUT_REASONING:
        append(c, &c->reasoning, bytes, len);
        return;
    case MF_OUTPUT_CALL_BROKEN:
        break_call(c, number);
        put_text(c, bytes, len);
        return;
    default:
        break;
    }
    if (!(call = call_of(c, number)))
        return;
    if (kind == MF_OUTPUT_CALL_NAME)
        append(c, &call->name, bytes, len);
    else if (kind == MF_OUTPUT_CALL_ID && !call->arguments.len) /* later ones come too late */
        append(c, &call->id, bytes, len);
    if (kind != MF_OUTPUT_CALL_ARGUMENTS && kind != MF_OUTPUT_CALL_END)
        return;
    name_call(c, call);
    append(c, &call->arguments, bytes, len);
    call->whole = kind == MF_OUTPUT_CALL_END;
}

/* ---- tokens ---- */

static void on_logprobs(void *user, mf_token_logprob chosen, const mf_token_logprob *top,
                        size_t n_top)
{
    srv_choice *c = user;
    c->job->on_logprob(c, chosen, top, n_top);
}

static bool on_token(void *user, int32_t id, const char *bytes, size_t len)
{
    srv_choice *c = user;
    srv_job *job = c->job;
    uint64_t now = mfi_clock_ns();
    (void)id;
    if (!c->output)
        append(c, &c->text, bytes, len);
    c->n_tokens++;
    c->n_reasoning_tokens += c->in_reasoning;
    srv_metrics_token(&((srv_server *)job->server)->metrics, c, now);
    if (!c->first_ns)
        c->first_ns = now;
    c->last_ns = now;
    if (!job->first_ns)
        job->first_ns = now;
    if (job->stream)
        job->protocol->delta(job, c);
    return !atomic_load(&job->x->gone) && !c->out_of_memory && !(job->one_call && has_calls(c));
}

/* An answer that must be a call is JSON: an element of a list of calls, in one of the notations. */
static mf_status open_output(srv_choice *c, mf_error *err)
{
    const srv_job *job = c->job;
    const srv_server *server = job->server;
    mf_output_options o = {.struct_size = sizeof o,
                           .tokenizer = server->tokenizer,
                           .chat_template = server->chat_template,
                           .prompt = c->ids,
                           .n_prompt = c->n_ids,
                           .tools = job->tools,
                           .n_tools = job->n_tools,
                           .on_part = on_part,
                           .user = c};
    if (job->forced_calls) {
        o.notation = FORCED_NOTATION;
        o.prompt = NULL;
        o.n_prompt = 0;
    }
    if (job->take_apart)
        MFI_TRY(mf_output_open(&c->output, &o, err));
    if (job->forced_calls)
        mf_output_push(c->output, FORCED_BEGIN, strlen(FORCED_BEGIN));
    return MF_OK;
}

mf_status srv_choice_begin(srv_choice *c, mf_session *session, mf_error *err)
{
    srv_job *job = c->job;
    mf_generate_options options;
    size_t kept = 0;
    if (job->echo) /* evaluated already, for its log-probabilities */
        kept = c->n_ids;
    else
        MFI_TRY(mf_session_restore(session, c->ids, c->n_ids, &kept, err));
    MFI_TRY(open_output(c, err));
    mf_generate_options_default(&options);
    options.prompt = c->ids + kept;
    options.n_prompt = c->n_ids - kept;
    options.max_tokens = job->max_tokens;
    options.ignore_eos = job->ignore_eos;
    options.grammar = job->grammar;
    options.sampling = job->sampling;
    options.sampling.seed += c->index;
    options.on_token = on_token;
    options.user = c;
    options.output = c->output;
    options.stop = (const char *const *)job->stop;
    options.n_stop = job->n_stop;
    options.on_logprobs = job->logprobs ? on_logprobs : NULL;
    options.n_top_logprobs = job->logprobs ? job->n_top : 0;
    return mf_generation_begin(&c->generation, session, &options, err);
}

/* ---- the end ---- */

/* What the model wrote is over. */
static void end_output(srv_choice *c)
{
    if (!c->output)
        return;
    if (c->job->forced_calls && !c->result.incomplete)
        mf_output_push(c->output, FORCED_END, strlen(FORCED_END));
    if (mf_output_end(c->output, NULL) != MF_OK)
        c->out_of_memory = true;
    if (c->n_calls && !c->calls[c->n_calls - 1].whole && !c->calls[c->n_calls - 1].broken)
        drop_call(c);
}

void srv_choice_end(srv_choice *c)
{
    srv_job *job = c->job;
    if (c->generation)
        mf_generation_result(c->generation, &c->result, NULL);
    end_output(c);
    c->finish = has_calls(c)                       ? SRV_FINISH_CALLS
                : c->result.stop == MF_STOP_STRING ? SRV_FINISH_STRING
                : c->result.stop == MF_STOP_LENGTH || c->result.stop == MF_STOP_CONTEXT
                    ? SRV_FINISH_LENGTH
                    : SRV_FINISH_STOP;
    srv_choice_release(c);
    c->done = true;
    if (job->stream && !atomic_load(&job->x->gone))
        job->protocol->choice_end(job, c);
}
