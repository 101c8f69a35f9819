/* `moeflux run`: answers one prompt. The answer streams to standard output; with --json it is
 * collected and standard output gets one object. What it cost is said by summary.c. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "answer.h"
#include "cli.h"
#include "input.h"
#include "logprobs.h"
#include "output.h"
#include "signals.h"
#include "summary.h"

#define PROMPT_MAX_BYTES ((size_t)256 << 20)

typedef struct job {
    const cli_args *args;
    mf_engine *engine;
    mf_template *template; /* of --chat-template; NULL: the model's */
    mf_grammar *grammar;   /* NULL: answers may be anything */
    cli_progress progress;
    cli_output out;
    mfi_buf prompt; /* as given */
    int32_t *ids;   /* [n_ids] */
    size_t n_ids;
    cli_answer answer;
    mfi_buf logprobs;
    cli_run_facts facts;
} job;

static bool on_token(void *user, int32_t id, const char *bytes, size_t len)
{
    job *j = user;
    (void)id;
    cli_progress_clear(&j->progress);
    if (!j->facts.has_prompt_stats) {
        j->facts.prompt_stats.struct_size = sizeof j->facts.prompt_stats;
        mf_engine_stats(j->engine, &j->facts.prompt_stats);
        j->facts.has_prompt_stats = true;
    }
    return cli_answer_token(&j->answer, bytes, len) && !cli_signal_code();
}

static void on_logprobs(void *user, mf_token_logprob chosen, const mf_token_logprob *top,
                        size_t n_top)
{
    job *j = user;
    cli_logprobs_put(&j->logprobs, mf_engine_tokenizer(j->engine), chosen, top, n_top);
}

static int read_prompt(job *j)
{
    const cli_args *args = j->args;
    if (args->prompt && args->file)
        return cli_usage_error("--prompt and --file can't be combined");
    if (!args->prompt && !args->file)
        return cli_usage_error(
            "a prompt is required: -p TEXT, -f FILE, or -f - for standard input");
    if (args->system && args->raw)
        return cli_usage_error("--system-prompt needs the chat template, which --raw turns off");
    if (args->chat_template && args->raw)
        return cli_usage_error("--chat-template and --raw can't be combined");
    if (CLI_GIVEN(args, logprobs) && !args->json)
        return cli_usage_error("--logprobs needs --json, which has them");
    if (args->prompt) {
        mfi_buf_str(&j->prompt, args->prompt);
        return j->prompt.failed ? cli_error(CLI_EXIT_ROOM, "out of memory") : CLI_EXIT_OK;
    }
    int code = cli_read_all(args->file, PROMPT_MAX_BYTES, &j->prompt);
    if (!code && j->prompt.len && j->prompt.data[j->prompt.len - 1] == '\n')
        j->prompt.data[--j->prompt.len] = 0;
    return code;
}

/* The prompt as the model shall see it, through the chat template. */
static int encode_chat(job *j, const mf_tokenizer *tokenizer)
{
    const mf_chat_options options = {
        .struct_size = sizeof options, .chat_template = j->template, .now = j->args->now};
    mf_chat_message messages[2];
    mf_rendering rendered = {0};
    size_t n = 0;
    mf_error err = {0};
    if (strlen(j->prompt.data) != j->prompt.len)
        return cli_error(CLI_EXIT_RUNTIME, "the prompt has a NUL byte at offset %zu",
                         strlen(j->prompt.data));
    if (j->args->system)
        messages[n++] = (mf_chat_message){.role = "system", .content = j->args->system};
    messages[n++] = (mf_chat_message){.role = "user", .content = j->prompt.data};
    mf_status status = mf_chat_render(tokenizer, messages, n, &options, &rendered, &err);
    if (status == MF_OK)
        status = mf_rendering_encode(&rendered, 0, tokenizer, &j->ids, &j->n_ids, &err);
    mf_rendering_free(&rendered);
    return cli_report(status, &err, CLI_RUNNING);
}

/* A prompt far longer than the context is refused before it is encoded, which would take more
 * memory than the plan knows of. Normalisation may shorten a text to a third. */
static int check_length(const job *j, const mf_tokenizer *tokenizer)
{
    mf_model_info info = {.struct_size = sizeof info};
    size_t longest = 1, len;
    mf_engine_info(j->engine, &info);
    for (int32_t id = 0; id < mf_tokenizer_n_vocab(tokenizer); id++) {
        mf_tokenizer_piece(tokenizer, id, true, &len);
        longest = len > longest ? len : longest;
    }
    if (j->prompt.len / 3 / longest > info.ctx)
        return cli_error(CLI_EXIT_RUNTIME,
                         "a prompt of %zu bytes doesn't fit %u positions (a larger context: -c)",
                         j->prompt.len, info.ctx);
    return CLI_EXIT_OK;
}

static int encode_prompt(job *j)
{
    const mf_tokenizer *tokenizer = mf_engine_tokenizer(j->engine);
    mf_error err = {0};
    if (!tokenizer)
        return cli_error(CLI_EXIT_MODEL, "%s has no tokenizer", j->args->model);
    bool chat = !j->args->raw && (j->template || mf_tokenizer_has_chat_template(tokenizer));
    if (j->args->system && !chat)
        return cli_error(CLI_EXIT_MODEL, "%s has no chat template for --system-prompt",
                         j->args->model);
    int code = check_length(j, tokenizer);
    if (!code && chat)
        code = encode_chat(j, tokenizer);
    else if (!code)
        code = cli_report(mf_tokenizer_encode(tokenizer, j->prompt.data, j->prompt.len, true,
                                              &j->ids, &j->n_ids, &err),
                          &err, CLI_RUNNING);
    if (!code && !j->n_ids)
        code = cli_error(CLI_EXIT_RUNTIME, "the prompt is empty: there is nothing to continue");
    return code;
}

static int begin_answer(job *j)
{
    j->answer.show = j->args->json ? NULL : &j->out;
    j->answer.progress = &j->progress;
    return cli_answer_begin(&j->answer, j->args, mf_engine_tokenizer(j->engine), j->template,
                            j->ids, j->n_ids);
}

/* Generates; a stop for a signal or for standard output is no failure of the library. */
static int generate(job *j)
{
    mf_session *session = NULL;
    mf_generate_options options;
    mf_error err = {0};
    mf_generate_options_default(&options);
    options.prompt = j->ids;
    options.n_prompt = j->n_ids;
    options.max_tokens = j->args->predict;
    options.ignore_eos = j->args->ignore_eos;
    options.grammar = j->grammar;
    options.stop = j->args->stop.at;
    options.n_stop = j->args->stop.n;
    if (CLI_GIVEN(j->args, logprobs)) {
        options.on_logprobs = on_logprobs;
        options.n_top_logprobs = (uint32_t)j->args->logprobs;
        j->facts.logprobs = &j->logprobs;
    }
    options.on_token = on_token;
    options.user = j;
    int code = cli_choose_sampling(j->args, j->engine, &options.sampling);
    if (!code)
        code = begin_answer(j);
    if (code)
        return code;
    options.output = j->answer.output;
    j->facts.seed = options.sampling.seed;
    j->facts.result.struct_size = sizeof j->facts.result;
    mf_status status = mf_session_open(&session, j->engine, &err);
    if (status)
        return cli_report(status, &err, CLI_OPENING);
    status = mf_session_generate(session, &options, &j->facts.result, &err);
    mf_session_close(&session);
    cli_progress_clear(&j->progress);
    if (!cli_answer_end(&j->answer))
        return cli_error(CLI_EXIT_ROOM, "out of memory");
    return cli_report(status, &err, CLI_RUNNING);
}

/* Ends standard output and gives the summary. */
static int finish(job *j)
{
    int code;
    cli_run_facts_take(&j->facts, j->engine);
    if (j->args->json) {
        mfi_buf text = {0};
        cli_summary_json(&j->facts, &j->answer, &text);
        if (text.failed || j->logprobs.failed)
            j->out.error = ENOMEM;
        cli_output_write(&j->out, text.data, text.len);
        mfi_buf_free(&text);
    } else if (j->answer.last && j->answer.last != '\n') {
        cli_output_write(&j->out, "\n", 1);
    }
    code = cli_output_close(&j->out);
    cli_summary_print(&j->facts);
    if (!code)
        code = cli_signal_code();
    if (!code && j->facts.result.incomplete)
        code = cli_error(CLI_EXIT_RUNTIME,
                         "the answer was cut off where its grammar allows no end: incomplete");
    return code;
}

int cli_trace(const cli_args *args)
{
    cli_args traced = *args;
    traced.trace = args->output;
    return cli_run(&traced);
}

int cli_run(const cli_args *args)
{
    job j = {.args = args};
    cli_progress_init(&j.progress, args->no_progress);
    int code = cli_grammar_open(args, &j.grammar);
    if (!code)
        code = read_prompt(&j);
    if (!code)
        code = cli_template_open(args, &j.template);
    if (!code)
        code = cli_engine_open(args, 0, &j.progress, &j.engine);
    if (!code)
        code = encode_prompt(&j);
    if (!code) {
        cli_output_open(&j.out, STDOUT_FILENO, "standard output");
        code = generate(&j);
        if (!code) {
            code = finish(&j);
        } else if (j.answer.last && j.answer.last != '\n' && cli_output_write(&j.out, "\n", 1)) {
            cli_output_close(&j.out);
        }
    }
    free(j.out.data);
    mf_free(j.ids);
    code = cli_engine_close(&j.engine, code);
    mf_template_close(&j.template);
    mf_grammar_close(&j.grammar);
    cli_answer_free(&j.answer);
    mfi_buf_free(&j.logprobs);
    mfi_buf_free(&j.prompt);
    return code;
}
