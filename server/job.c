/* Jobs and their parts; see job.h. Made by the desk, used up by the engine's thread; one thread at
 * a time. */
#include "job.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/random.h>
#include <unistd.h>

srv_job *srv_job_new(srv_exchange *x, void *server, const char *id_prefix)
{
    srv_job *job = calloc(1, sizeof *job);
    uint64_t random[2] = {0};
    if (!job)
        return NULL;
    if (getentropy(random, sizeof random) != 0)
        random[0] = x->came_ns;
    snprintf(job->id, sizeof job->id, "%s%016" PRIx64 "%08" PRIx64, id_prefix, random[0],
             random[1] >> 32);
    srv_exchange_hold(x);
    job->x = x;
    job->server = server;
    job->created_s = (int64_t)time(NULL);
    job->max_tokens = -1;
    job->n_each = 1;
    job->call_prefix = "call_";
    return job;
}

static void free_calls(srv_choice *c)
{
    for (size_t i = 0; i < c->n_calls; i++) {
        mfi_buf_free(&c->calls[i].name);
        mfi_buf_free(&c->calls[i].id);
        mfi_buf_free(&c->calls[i].arguments);
    }
    free(c->calls);
    c->calls = NULL;
    c->n_calls = 0;
}

void srv_choice_release(srv_choice *c)
{
    mf_generation_end(&c->generation);
    mf_output_close(&c->output);
}

static void free_choice(srv_choice *c)
{
    mfi_buf *bufs[] = {&c->text,      &c->reasoning, &c->logprobs,  &c->lp_tokens,
                       &c->lp_values, &c->lp_tops,   &c->lp_offsets};
    srv_choice_release(c);
    free_calls(c);
    for (size_t i = 0; i < MFI_ARRAY_LEN(bufs); i++)
        mfi_buf_free(bufs[i]);
}

void srv_job_free(srv_job *job)
{
    if (!job)
        return;
    for (size_t i = 0; i < job->n_choices; i++)
        free_choice(&job->choices[i]);
    for (size_t i = 0; i < job->n_stop; i++)
        free(job->stop[i]);
    free(job->stop);
    free(job->tools);
    mfi_buf_free(&job->tool_names);
    free(job->choices);
    free(job->prompt_at);
    free(job->bias);
    if (job->free_data)
        job->free_data(job->protocol_data);
    mf_grammar_close(&job->grammar);
    mfi_buf_free(&job->prompts);
    srv_exchange_release(job->x);
    free(job);
}

bool srv_job_make_choices(srv_job *job)
{
    size_t n = job->n_prompts * job->n_each;
    job->choices = calloc(n, sizeof *job->choices);
    if (!job->choices)
        return false;
    job->n_choices = n;
    for (size_t i = 0; i < n; i++) {
        srv_choice *c = &job->choices[i];
        size_t p = i / job->n_each;
        c->job = job;
        c->index = (uint32_t)i;
        c->ids = (const int32_t *)(const void *)job->prompts.data + job->prompt_at[p];
        c->n_ids = job->prompt_at[p + 1] - job->prompt_at[p];
        c->open_block = -1;
        c->result.struct_size = sizeof c->result;
    }
    return true;
}

size_t srv_job_prompt_tokens(const srv_job *job)
{
    return job->prompt_at[job->n_prompts];
}
