/* An answer as it comes: callbacks of generating, on the engine's thread. Collects; protocols say
 * it in their own words. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "job.h"
#include "server_int.h"

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

static void drop_call(srv_choice *c)
{
    srv_call *call = &c->calls[--c->n_calls];
    mfi_buf_free(&call->name);
    mfi_buf_free(&call->id);
    mfi_buf_free(&call->arguments);
}

static void on_part(void *user, mf_output_kind kind, uint32_t number, const char *bytes, size_t len)
{
    srv_choice *c = user;
    srv_call *call;
    c->in_reasoning = kind == MF_OUTPUT_REASONING;
    switch (kind) {
    case MF_OUTPUT_TEXT:
        append(c, &c->text, bytes, len);
        return;
    case MF_OUTPUT_REASONING:
        append(c, &c->reasoning, bytes, len);
        return;
    case MF_OUTPUT_CALL_BROKEN:
        if (c->n_calls && c->calls[c->n_calls - 1].number == number)
            drop_call(c);
        append(c, &c->text, bytes, len);
        return;
    default:
        break;
    }
    if (!(call = call_of(c, number)))
        return;
    if (kind == MF_OUTPUT_CALL_NAME)
        append(c, &call->name, bytes, len);
    else if (kind == MF_OUTPUT_CALL_ID)
        append(c, &call->id, bytes, len);
    else if (kind == MF_OUTPUT_CALL_ARGUMENTS)
        append(c, &call->arguments, bytes, len);
    else
        call->whole = true;
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
    if (job->stream && !job->forced_calls)
        job->protocol->delta(job, c);
    return !atomic_load(&job->x->gone) && !c->out_of_memory;
}

mf_status srv_choice_begin(srv_choice *c, mf_session *session, mf_error *err)
{
    srv_job *job = c->job;
    srv_server *server = job->server;
    mf_generate_options options;
    size_t kept = 0;
    if (job->echo) /* evaluated already, for its log-probabilities */
        kept = c->n_ids;
    else
        MFI_TRY(mf_session_restore(session, c->ids, c->n_ids, &kept, err));
    if (job->take_apart) {
        const mf_output_options output = {.struct_size = sizeof output,
                                          .tokenizer = server->tokenizer,
                                          .chat_template = server->chat_template,
                                          .prompt = c->ids,
                                          .n_prompt = c->n_ids,
                                          .on_part = on_part,
                                          .user = c};
        MFI_TRY(mf_output_open(&c->output, &output, err));
    }
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

/* Takes one object {"name":...,"arguments":...} for a call. */
static void take_call(srv_choice *c, const mfi_json *object)
{
    size_t len = 0;
    const char *name = mfi_json_str(mfi_json_get(object, "name"), &len);
    srv_call *call = name ? new_call(c, (uint32_t)c->n_calls) : NULL;
    if (!call)
        return;
    mfi_buf_append(&call->name, name, len);
    mfi_json_put(&call->arguments, mfi_json_get(object, "arguments"));
    call->whole = true;
}

/* An answer that its grammar made into a call. One that was cut off is none, and stays text. */
static void take_forced(srv_choice *c)
{
    mfi_json *root = NULL;
    const char *text = c->text.data ? c->text.data : "";
    if (c->result.incomplete || mfi_json_parse(text, c->text.len, "calls", &root, NULL) != MF_OK)
        return;
    take_call(c, root);
    mfi_json_free(&root);
    c->text.len = 0;
}

/* A call that the answer's end cut off is none. */
static void drop_open_call(srv_choice *c)
{
    if (c->n_calls && !c->calls[c->n_calls - 1].whole)
        drop_call(c);
}

void srv_choice_end(srv_choice *c)
{
    srv_job *job = c->job;
    if (c->generation)
        mf_generation_result(c->generation, &c->result, NULL);
    if (c->output && mf_output_end(c->output, NULL) != MF_OK)
        c->out_of_memory = true;
    if (job->forced_calls)
        take_forced(c);
    drop_open_call(c);
    for (size_t i = 0; i < c->n_calls; i++)
        if (!c->calls[i].id.len)
            mfi_buf_fmt(&c->calls[i].id, "call_%.16s%u%zu", job->id + strcspn(job->id, "-_") + 1,
                        c->index, i);
    c->finish = c->n_calls                         ? SRV_FINISH_CALLS
                : c->result.stop == MF_STOP_STRING ? SRV_FINISH_STRING
                : c->result.stop == MF_STOP_LENGTH || c->result.stop == MF_STOP_CONTEXT
                    ? SRV_FINISH_LENGTH
                    : SRV_FINISH_STOP;
    srv_choice_release(c);
    c->done = true;
    if (job->stream && !atomic_load(&job->x->gone))
        job->protocol->choice_end(job, c);
}
