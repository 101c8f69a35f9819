/* An answer, taken apart as it comes: text, reasoning, tool calls. */
#ifndef MOEFLUX_CLI_ANSWER_H
#define MOEFLUX_CLI_ANSWER_H

#include "base/buf.h"
#include "cli.h"
#include "output.h"

typedef struct cli_call {
    uint32_t number;
    mfi_buf name, id, arguments;
} cli_call;

typedef struct cli_answer {
    mf_output *output; /* NULL: the answer is left as it is written */
    mfi_buf text, reasoning;
    cli_call *calls; /* [n_calls] */
    size_t n_calls, cap;
    bool failed;
    bool tools;  /* the model was told of some */
    bool no_nul; /* NUL bytes are dropped: messages are C strings */
    /* Where it is shown: text and calls there, reasoning on standard error. NULL: nowhere. */
    cli_output *show;
    cli_progress *progress; /* taken off the screen before anything is shown; NULL: there is none */
    char last, last_reasoning; /* byte shown, 0: none */
} cli_answer;

/* Begins an answer to the prompt, forgetting the one before. Returns the exit code with the failure
 * reported. */
int cli_answer_begin(cli_answer *answer, const cli_args *args, const mf_tokenizer *tokenizer,
                     const mf_template *chat_template, const int32_t *prompt, size_t n_prompt);
/* What on_token gets; answers that are taken apart have had the token already. False: stop. */
bool cli_answer_token(cli_answer *answer, const char *bytes, size_t len);
/* The answer is over: shows what was held back. False: out of memory. */
bool cli_answer_end(cli_answer *answer);
void cli_answer_free(cli_answer *answer);

/* The calls as templates take them, [{"id":...,"type":"function","function":{"name":...,
 * "arguments":{...}}}]. */
void cli_answer_put_calls(const cli_answer *answer, mfi_buf *out);
/* "text":...,"reasoning":...,"tool_calls":[...] */
void cli_answer_put_json(const cli_answer *answer, mfi_buf *out);

#endif
