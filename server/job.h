/* A job: a request for answers, on its way from the desk, which reads it, to the engine's thread,
 * which evaluates it. */
#ifndef SRV_JOB_H
#define SRV_JOB_H

#include "base/json.h"
#include "moeflux/moeflux.h"
#include "reply.h"

typedef struct srv_job srv_job;
typedef struct srv_choice srv_choice;

typedef enum srv_finish {
    SRV_FINISH_STOP,
    SRV_FINISH_STRING, /* a stop string */
    SRV_FINISH_LENGTH,
    SRV_FINISH_CALLS
} srv_finish;

/* How a protocol says what comes. Called on the engine's thread. What has come so far is in the
 * choice; streams send what lies behind the choice's marks and move them. */
typedef struct srv_protocol {
    void (*delta)(srv_job *job, srv_choice *choice);      /* streams: more has come */
    void (*choice_end)(srv_job *job, srv_choice *choice); /* streams: it has ended */
    void (*end)(srv_job *job);                            /* all have; answers or ends the stream */
    /* in the middle of a stream, or in the background */
    void (*stream_error)(srv_job *job, const char *message);
    void (*begun)(srv_job *job); /* it has left the queue; NULL: nobody needs to know */
} srv_protocol;

typedef struct srv_call {
    uint32_t number; /* as mf_output has it */
    bool whole;
    bool broken; /* a stream began it, and it turned out to be none: the text says what it was */
    mfi_buf name, id, arguments;
    /* the marks */
    bool begun_sent;
    size_t arguments_sent;
} srv_call;

/* A token's log-probability, with those of the best, as JSON in the protocol's form. */
typedef void (*srv_logprob_fn)(srv_choice *choice, mf_token_logprob chosen,
                               const mf_token_logprob *top, size_t n_top);

struct srv_choice {
    srv_job *job;
    uint32_t index;
    const int32_t *ids; /* [n_ids] of the prompt */
    size_t n_ids;
    /* what has come */
    mfi_buf text, reasoning, logprobs;
    srv_call *calls; /* [n_calls] */
    size_t n_calls, calls_cap;
    size_t n_tokens, n_reasoning_tokens;
    bool in_reasoning, out_of_memory;
    /* the marks: what a stream has sent */
    size_t text_sent, reasoning_sent, logprobs_sent;
    size_t calls_sent; /* whose end was sent, too */
    bool begun_sent;
    int open_block; /* for protocols with blocks: which is open, -1: none */
    uint32_t n_blocks;
    size_t block_from; /* where its text began */
    /* completions: offsets of tokens in the text */
    mfi_buf lp_tokens, lp_values, lp_tops, lp_offsets;
    size_t text_offset;
    /* the end */
    bool done;
    srv_finish finish;
    mf_generate_result result;
    /* on the engine */
    uint32_t slot; /* while it runs */
    bool begun;    /* it has its session; else what that holds is being kept */
    mf_generation *generation;
    mf_output *output;
    size_t n_echoed; /* prompt tokens whose log-probabilities are known */
    uint64_t started_ns, first_ns, last_ns;
    srv_choice *next; /* in the queue */
};

struct srv_job {
    srv_exchange *x;
    void *server;
    const srv_protocol *protocol;
    char id[48];
    const char *call_prefix; /* of calls' ids; static storage */
    int64_t created_s;
    /* what is wanted */
    bool stream, include_usage, timings_per_token;
    bool background;   /* nobody waits: its exchange has no connection, and the store the answer */
    mfi_buf prompts;   /* int32_t, one prompt behind the other */
    size_t *prompt_at; /* [n_prompts + 1] */
    size_t n_prompts, n_each;
    mf_sampling sampling;
    mf_logit_bias *bias;
    int64_t max_tokens;
    bool ignore_eos;
    mf_grammar *grammar;
    char **stop; /* [n_stop] */
    size_t n_stop;
    bool logprobs;
    uint32_t n_top;
    srv_logprob_fn on_logprob;
    bool take_apart; /* reasoning and calls are taken out of the text */
    bool echo;
    bool schema;        /* the answer is JSON under a grammar */
    bool forced_calls;  /* the answer is JSON that stands for calls */
    const char **tools; /* names of those the model was told of, in tool_names */
    size_t n_tools;
    mfi_buf tool_names;
    bool one_call;      /* the answer ends with its first call */
    bool count_only;    /* the prompt is counted, and may be longer than the context */
    bool hide_thinking; /* Anthropic's: its text isn't sent */
    size_t held_bytes;  /* what the protocol's data hold until the end */
    void *protocol_data;
    void (*free_data)(void *protocol_data);
    /* the answers */
    srv_choice *choices; /* [n_choices] */
    size_t n_choices, n_done;
    bool failed;
    mf_stats stats_before;
    uint64_t queued_ns, started_ns, first_ns;
};

srv_job *srv_job_new(srv_exchange *x, void *server, const char *id_prefix);
void srv_job_free(srv_job *job); /* lets go of the exchange */
/* Makes the choices, n_each for every prompt. False: out of memory. */
bool srv_job_make_choices(srv_job *job);
size_t srv_job_prompt_tokens(const srv_job *job);
void srv_choice_release(srv_choice *choice); /* what it has on the engine */

/* ---- what comes from the engine; see choice.c ---- */

mf_status srv_choice_begin(srv_choice *choice, mf_session *session, mf_error *err);
/* Adds the log-probability of a prompt's token. */
void srv_choice_end(srv_choice *choice); /* the generation is over: takes its result */

#endif
