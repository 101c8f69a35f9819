/* What a run cost, for people (standard error) and as JSON. */
#ifndef MOEFLUX_CLI_SUMMARY_H
#define MOEFLUX_CLI_SUMMARY_H

#include "answer.h"
#include "base/buf.h"
#include "moeflux/moeflux.h"

typedef struct cli_run_facts {
    mf_generate_result result;
    uint64_t seed;
    const mfi_buf *logprobs; /* inside of an array; NULL: not wanted */
    bool has_prompt_stats;
    mf_stats prompt_stats; /* when the first token came; the rest is decoding */
    mf_stats stats;        /* at the end */
    mf_model_info info;
} cli_run_facts;

/* Reads the engine's counters into the facts. */
void cli_run_facts_take(cli_run_facts *facts, const mf_engine *engine);

void cli_summary_print(const cli_run_facts *facts);

/* The whole object, with its newline. */
void cli_summary_json(const cli_run_facts *facts, const cli_answer *answer, mfi_buf *out);

const char *cli_stop_name(mf_stop stop);

#endif
