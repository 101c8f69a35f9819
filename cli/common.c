/* Reporting and the way to an open engine, shared by the commands. Main thread only. Owns the name
 * that messages begin with. */
#include "cli.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "paths.h"
#include "signals.h"

#define CHAT_CHECKPOINTS 4 /* a conversation is changed near its end, if at all */

static const char *command_name = ""; /* set once by main */
static char *drives_path;             /* the same; NULL: measurements aren't kept */

void cli_set_command(const char *name)
{
    command_name = name;
}

void cli_set_cache(cli_env_fn env)
{
    drives_path = cli_user_path(env, "XDG_CACHE_HOME", ".cache", "drives");
}

static void print_message(const char *fmt, va_list args)
{
    fprintf(stderr, "moeflux%s%s: ", *command_name ? " " : "", command_name);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
}

int cli_error(int code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    print_message(fmt, args);
    va_end(args);
    return code;
}

int cli_usage_error(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    print_message(fmt, args);
    va_end(args);
    fprintf(stderr, "try 'moeflux%s%s --help'\n", *command_name ? " " : "", command_name);
    return CLI_EXIT_USAGE;
}

void cli_lower(const char *text, char *out, size_t cap)
{
    size_t n = 0;
    for (; text[n] && n + 1 < cap; n++)
        out[n] = (char)(text[n] >= 'A' && text[n] <= 'Z' ? text[n] - 'A' + 'a' : text[n]);
    out[n] = 0;
}

int cli_exit_code(mf_status status, cli_phase phase)
{
    switch (status) {
    case MF_OK:
        return CLI_EXIT_OK;
    case MF_ERR_NO_MEMORY:
    case MF_ERR_DISK_FULL:
    case MF_ERR_BUDGET:
        return CLI_EXIT_ROOM;
    case MF_ERR_IO:
    case MF_ERR_FILE_CHANGED:
    case MF_ERR_FILE_TRUNCATED:
        return phase == CLI_OPENING ? CLI_EXIT_MODEL : CLI_EXIT_IO;
    case MF_ERR_FILE_MISSING:
    case MF_ERR_FORMAT:
    case MF_ERR_UNSUPPORTED:
    case MF_ERR_TENSOR_MISSING:
    case MF_ERR_TENSOR_BOUNDS:
    case MF_ERR_TENSOR_SHAPE:
    case MF_ERR_EMPTY_MANIFEST:
        return CLI_EXIT_MODEL;
    case MF_ERR_ARGUMENT: /* while opening, only the user's options can be meant */
        return phase == CLI_OPENING ? CLI_EXIT_USAGE : CLI_EXIT_RUNTIME;
    case MF_ERR_LIMIT:
        return phase == CLI_OPENING ? CLI_EXIT_MODEL : CLI_EXIT_RUNTIME;
    case MF_ERR_CANCELLED:
    case MF_ERR_STATE:
    case MF_ERR_CONTEXT:
    case MF_ERR_DEVICE:
        break;
    }
    return CLI_EXIT_RUNTIME;
}

int cli_report(mf_status status, const mf_error *err, cli_phase phase)
{
    if (status == MF_OK)
        return CLI_EXIT_OK;
    if (status == MF_ERR_CANCELLED && cli_signal_code())
        return cli_error(cli_signal_code(), "interrupted");
    return cli_error(cli_exit_code(status, phase), "%s",
                     err->message[0] ? err->message : mf_status_text(status));
}

static mf_cache_type cache_type(const char *name)
{
    if (name && strcmp(name, "f16") == 0)
        return MF_CACHE_F16;
    return name && strcmp(name, "q8_0") == 0 ? MF_CACHE_Q8_0 : MF_CACHE_F32;
}

void cli_engine_options(const cli_args *args, uint32_t ctx, cli_progress *progress,
                        mf_engine_options *options)
{
    mf_engine_options_default(options);
    options->model_path = args->model;
    options->memory_bytes = args->memory;
    options->ctx = args->ctx ? (uint32_t)args->ctx : ctx;
    options->n_threads = (uint32_t)args->threads;
    options->n_io_threads = (uint32_t)args->io_threads;
    options->chunk = (uint32_t)args->chunk;
    if (args->command == CLI_PERPLEXITY)
        options->n_logit_rows = CLI_PERPLEXITY_ROWS;
    if (args->activations && strcmp(args->activations, "f32") == 0)
        options->activations = MF_ACTIVATIONS_F32;
    else if (args->activations && strcmp(args->activations, "q8") == 0)
        options->activations = MF_ACTIVATIONS_Q8;
    else if (args->activations && strcmp(args->activations, "q16") == 0)
        options->activations = MF_ACTIVATIONS_Q16;
    options->cache_type_k = cache_type(args->cache_type_k);
    options->cache_type_v = cache_type(args->cache_type_v);
    options->isa = args->isa;
    options->device = args->device;
    options->vram_bytes = args->vram;
    options->host_tier = args->host_tier;
    options->tiers = args->tiers;
    options->miss = args->miss;
    options->io = args->io;
    options->direct = args->direct;
    options->io_cache_path = drives_path;
    options->policy = args->policy;
    options->hints = args->hints;
    options->streaming = args->streaming;
    options->mirror_path = args->mirror;
    options->trace_path = args->trace;
    options->prefix_dir = args->kv_dir;
    options->prefix_disk_bytes = args->kv_disk;
    bool talks = args->command == CLI_CHAT || args->command == CLI_SERVE;
    options->n_checkpoints = talks ? CHAT_CHECKPOINTS : 0;
    options->stats_path = args->stats;
    options->grammars = cli_wants_grammar(args);
    options->progress = cli_progress_update;
    options->progress_user = progress;
}

int cli_template_open(const cli_args *args, mf_template **chat_template)
{
    mf_error err = {0};
    if (!args->chat_template)
        return CLI_EXIT_OK;
    return cli_report(mf_template_open(chat_template, args->chat_template, &err), &err,
                      CLI_OPENING);
}

int cli_engine_open(const cli_args *args, uint32_t ctx, cli_progress *progress, mf_engine **engine)
{
    mf_engine_options options;
    mf_error err = {0};
    cli_engine_options(args, ctx, progress, &options);
    if (drives_path && !cli_make_folders(drives_path)) /* then the next start measures again */
        options.io_cache_path = NULL;
    mf_status status = mf_engine_open(engine, &options, &err);
    cli_progress_clear(progress);
    if (status == MF_OK && args->memory) {
        /* The library answers for what it took itself; what was read before is ours. */
        mf_stats stats = {.struct_size = sizeof stats};
        mf_engine_stats(*engine, &stats);
        if (stats.peak_bytes > args->memory) {
            mf_engine_close(engine);
            return cli_error(CLI_EXIT_ROOM,
                             "reading the input took more than --memory: at least %" PRIu64 "M",
                             stats.peak_bytes / MFI_MIB + 1);
        }
    }
    return cli_report(status, &err, CLI_OPENING);
}

int cli_engine_close(mf_engine **engine, int code)
{
    mf_error err = {0};
    mf_status status = *engine ? mf_engine_flush(*engine, &err) : MF_OK;
    if (*engine) {
        mf_model_info info = {.struct_size = sizeof info};
        mf_engine_info(*engine, &info);
        if (info.mirror_failure[0])
            fprintf(stderr, "moeflux: the mirror was given up: %s\n", info.mirror_failure);
    }
    mf_engine_close(engine);
    return code ? code : cli_report(status, &err, CLI_RUNNING);
}
