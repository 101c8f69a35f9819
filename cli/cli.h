/* What the files of the command line share: exit codes, reporting, one function a command.
 *
 * The command line includes the public header and base/ only. Environment variables are read in
 * main.c and nowhere else. */
#ifndef MOEFLUX_CLI_H
#define MOEFLUX_CLI_H

#include "base/defs.h"
#include "moeflux/moeflux.h"
#include "options.h"
#include "progress.h"

/* Also listed by `moeflux --help`. */
enum {
    CLI_EXIT_OK = 0,
    CLI_EXIT_RUNTIME = 1, /* also: the reader of standard output went away */
    CLI_EXIT_USAGE = 2,
    CLI_EXIT_MODEL = 3, /* missing, invalid or unsupported */
    CLI_EXIT_ROOM = 4,  /* not enough memory or disk space */
    CLI_EXIT_IO = 5,    /* reading the model failed after it was opened */
    CLI_EXIT_SIGINT = 130,
    CLI_EXIT_SIGTERM = 143
};

/* Rows of logits that `perplexity` has computed at once: the head's weights are read that much less
 * often. */
#define CLI_PERPLEXITY_ROWS 16

/* Before or after the model was opened: a file that ends too early is an invalid model in the first
 * case and a failing drive (or somebody's truncate) in the second. */
typedef enum cli_phase { CLI_OPENING, CLI_RUNNING } cli_phase;

int cli_exit_code(mf_status status, cli_phase phase);

/* Prints "moeflux COMMAND: message" on stderr. Returns `code`, so that `return cli_error(...)`
 * works. */
int cli_error(int code, const char *fmt, ...) MFI_PRINTF(2, 3);

/* The same for command lines that can't be followed: adds where to find help, returns 2. */
int cli_usage_error(const char *fmt, ...) MFI_PRINTF(1, 2);

/* Reports a failure of the library; an operation that a signal cancelled gives that signal's code.
 */
int cli_report(mf_status status, const mf_error *err, cli_phase phase);

/* Names the command in messages from now on; static storage. */
void cli_set_command(const char *name);
/* Where measurements of drives are kept from now on. */
void cli_set_cache(cli_env_fn env);

/* Copies a choice in lower case; cut to cap bytes with the NUL. */
void cli_lower(const char *text, char *out, size_t cap);

/* The options that all commands with an engine share, from the command line. `ctx`: positions
 * wanted when the user names none, 0: the plan's choice. */
void cli_engine_options(const cli_args *args, uint32_t ctx, cli_progress *progress,
                        mf_engine_options *options);

/* Opens the engine or reports why not. */
int cli_engine_open(const cli_args *args, uint32_t ctx, cli_progress *progress, mf_engine **engine);

/* Closes it (which may be NULL). Returns `code`, or if that is 0 what became of trace and
 * statistics. */
int cli_engine_close(mf_engine **engine, int code);

/* The template of --chat-template, checked before a model is opened; NULL without the option. */
int cli_template_open(const cli_args *args, mf_template **chat_template);

/* The model's sampling defaults with the command line's wishes over them. Draws and prints a seed
 * where one is needed and none is named. Returns the exit code. */
int cli_choose_sampling(const cli_args *args, const mf_engine *engine, mf_sampling *sampling);

/* The grammar that the options ask for; *grammar stays NULL if they ask for none. Returns the exit
 * code. */
int cli_grammar_open(const cli_args *args, mf_grammar **grammar);
bool cli_wants_grammar(const cli_args *args);

/* Each returns the exit code. */
int cli_run(const cli_args *args);
int cli_logits(const cli_args *args);
int cli_tokenize(const cli_args *args);
int cli_plan(const cli_args *args);
int cli_eval(const cli_args *args);
int cli_convert(const cli_args *args);
int cli_pack(const cli_args *args);
int cli_inspect(const cli_args *args);
int cli_imatrix(const cli_args *args);
int cli_synth(const cli_args *args);
int cli_chat_run(const cli_args *args, cli_env_fn env);
int cli_template(const cli_args *args);
int cli_families(const cli_args *args);
int cli_devices(const cli_args *args);
int cli_completion(const cli_args *args);
int cli_trace(const cli_args *args);
int cli_replay(const cli_args *args);
int cli_bench(const cli_args *args);
int cli_perplexity(const cli_args *args);
int cli_serve(const cli_args *args, cli_env_fn env);
int cli_top(const cli_args *args, cli_env_fn env);

#endif
