/* The command line's one table: commands and options. Parsing, defaults from the environment and
 * the help texts are all made from it. */
#ifndef MOEFLUX_CLI_OPTIONS_H
#define MOEFLUX_CLI_OPTIONS_H

#include "base/buf.h"
#include "moeflux/moeflux.h"

typedef enum cli_command_id {
    CLI_RUN,
    CLI_LOGITS,
    CLI_TOKENIZE,
    CLI_PLAN,
    CLI_EVAL,
    CLI_CONVERT,
    CLI_IMATRIX,
    CLI_SYNTH,
    CLI_CHAT,
    CLI_TEMPLATE,
    CLI_FAMILIES,
    CLI_COMPLETION,
    CLI_INSPECT,
    CLI_TRACE,
    CLI_REPLAY,
    CLI_BENCH,
    CLI_DEVICES,
    CLI_PERPLEXITY,
    CLI_SERVE,
    CLI_TOP,
    CLI_PACK,
    CLI_N_COMMANDS
} cli_command_id;

typedef struct cli_command {
    const char *name;
    const char *usage;         /* what follows "moeflux NAME" */
    const char *summary;       /* one line */
    const char *notes;         /* paragraphs and examples, or NULL */
    const char *positional[2]; /* names of the arguments that are not options, or NULL */
    size_t n_required;         /* of them */
} cli_command;

extern const cli_command cli_commands[CLI_N_COMMANDS];

/* What exit codes mean; ends with a NULL text. */
typedef struct cli_exit_text {
    int code;
    const char *text;
} cli_exit_text;

extern const cli_exit_text cli_exit_texts[];

#define CLI_MAN_DATE "November 23, 2026" /* of the manual page */

typedef enum cli_kind {
    CLI_FLAG,   /* bool */
    CLI_STRING, /* const char * */
    CLI_INT,    /* int64_t, in lo..hi */
    CLI_FLOAT,  /* double, in lo..hi */
    CLI_SIZE,   /* uint64_t bytes */
    CLI_CHOICE, /* const char *, one of `choices` */
    CLI_SEED,   /* uint64_t; -1 leaves it unset */
    CLI_BIAS,   /* one more in args->bias */
    CLI_TEXTS,  /* cli_texts: one more */
    CLI_TIME    /* const char *, like 2025-03-09T14:05:07 */
} cli_kind;

#define CLI_MAX_NAMES 3

typedef struct cli_option {
    const char *names[CLI_MAX_NAMES]; /* with their dashes, short first */
    cli_kind kind;
    uint32_t commands; /* bits 1 << cli_command_id: who accepts it */
    uint32_t required; /* bits: who can't do without */
    bool env;          /* MOEFLUX_ARG_<LONG_NAME> gives a default */
    bool any_case;     /* CHOICE: written either way */
    size_t offset;     /* of its value in cli_args */
    double lo, hi;
    const char *choices; /* "f32|q8|auto" */
    const char *arg;     /* how help calls the argument; NULL for flags */
    const char *help;
    const char *fallback; /* what holds without it, for help; may be NULL */
} cli_option;

extern const cli_option cli_options[];
extern const size_t cli_n_options;
#define CLI_MAX_OPTIONS     192 /* rows of the table */
#define CLI_MAX_REPETITIONS 1000

typedef struct cli_texts {
    const char **at; /* [n] */
    size_t n;
} cli_texts;

typedef struct cli_args {
    cli_command_id command;
    bool given[CLI_MAX_OPTIONS]; /* by index in cli_options */
    const char *positional[2];
    size_t n_positional;
    bool help, version, raw, json, jsonl, special, ignore_eos, no_progress;
    bool keep_going, simple_io, no_history;
    bool kl_divergence, ops, verify;
    const char *model, *prompt, *file, *system, *ids, *output, *hidden, *trace, *stats, *tensor,
        *f32;
    const char *activations, *isa, *io, *direct, *hints, *host_tier, *tiers, *miss, *streaming,
        *mirror, *quant, *group_size, *dense_bits, *imatrix;
    const char *cache_type_k, *cache_type_v;
    const char *policy, *cache, *svg, *device;
    const char *kl, *kl_base;
    const char *arch, *shape, *routing, *chat_template, *now, *form;
    const char *reasoning_format;
    const char *save, *load, *kv_dir;
    const char *grammar, *grammar_file, *json_schema, *json_schema_file;
    int64_t predict, limit, ctx, threads, io_threads, chunk, layers;
    int64_t top_k, repeat_last_n;
    int64_t n_prompt, n_gen, repetitions, chunks;
    double temp, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty;
    uint64_t seed, memory, kv_disk, vram;
    mf_logit_bias *bias;
    size_t n_bias;
    cli_texts stop;
    int64_t logprobs;
    /* serve */
    const char *host, *unix_path, *api_key_file, *alias;
    cli_texts allow_host, cors_origin;
    int64_t port, parallel, queue, max_connections;
    int64_t request_timeout, idle_timeout, write_timeout, ping_interval, drain_timeout;
    uint64_t max_body;
    /* top */
    const char *url;
    double interval;
    bool once;
} cli_args;

/* True if the option whose value is `member` was given on the command line or by the environment.
 */
#define CLI_GIVEN(args, member) cli_given((args), offsetof(cli_args, member))
bool cli_given(const cli_args *args, size_t offset);

typedef const char *(*cli_env_fn)(const char *name);

/* Fills *args from the arguments after the command's name and from the environment below them (env
 * may be NULL). False with a one-line message (no trailing newline) in *message. In both cases
 * cli_args_free is due. Required options are not checked when --help was asked for. */
bool cli_parse(cli_args *args, cli_command_id command, int argc, const char *const *argv,
               cli_env_fn env, mfi_buf *message);
void cli_args_free(cli_args *args);

/* The option of that name (with its dashes) which the command accepts, or NULL. */
const cli_option *cli_option_find(const char *name, size_t len, cli_command_id command);
/* The name closest to a mistyped one among those that the command accepts, or NULL. */
const char *cli_option_suggest(const char *name, cli_command_id command);

/* CLI_N_COMMANDS if there is none of that name. */
cli_command_id cli_command_find(const char *name);
/* The command closest to a mistyped name, or NULL. */
const char *cli_command_suggest(const char *name);

/* Help texts, ready to print. */
void cli_help_command(cli_command_id command, mfi_buf *out);
void cli_help_all(mfi_buf *out);

/* The manual page (mdoc), of all commands. */
void cli_man_page(mfi_buf *out);

/* A completion script for "bash", "zsh" or "fish"; false for another shell. */
bool cli_completion_script(const char *shell, mfi_buf *out);

/* "MOEFLUX_ARG_CTX_SIZE" for --ctx-size; empty if the option takes none. */
void cli_env_name(const cli_option *option, char name[64]);

#endif
