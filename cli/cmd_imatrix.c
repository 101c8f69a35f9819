/* `moeflux imatrix`: evaluates a text and writes which columns of the weights it made matter. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"
#include "input.h"

#define TEXT_MAX_BYTES ((size_t)1 << 30)
#define PIECE_TOKENS   512 /* as llama.cpp has it */

static int encode(const cli_args *args, const mf_engine *engine, const mfi_buf *text, int32_t **ids,
                  size_t *n_ids)
{
    mf_error err = {0};
    const mf_tokenizer *tokenizer = mf_engine_tokenizer(engine);
    if (!tokenizer)
        return cli_error(CLI_EXIT_MODEL, "%s has no tokenizer", args->model);
    mf_status status =
        mf_tokenizer_encode(tokenizer, text->data, text->len, false, ids, n_ids, &err);
    if (status == MF_OK && *n_ids == 0)
        return cli_error(CLI_EXIT_RUNTIME, "%s: no text", args->file);
    return cli_report(status, &err, CLI_RUNNING);
}

/* Where the matrix goes. */
static const char *output(const cli_args *args)
{
    return args->output ? args->output : "imatrix.gguf";
}

static int collect(const cli_args *args, mf_engine *engine, const mfi_buf *text)
{
    mf_error err = {0};
    int32_t *ids = NULL;
    size_t n_ids = 0;
    uint32_t piece = args->ctx ? (uint32_t)args->ctx : PIECE_TOKENS;
    int code = encode(args, engine, text, &ids, &n_ids);
    if (!code)
        code = cli_report(mf_imatrix_collect(engine, ids, n_ids, piece, &err), &err, CLI_RUNNING);
    if (!code)
        code =
            cli_report(mf_imatrix_write(engine, output(args), args->file, &err), &err, CLI_RUNNING);
    mf_free(ids);
    return code;
}

int cli_imatrix(const cli_args *args)
{
    mf_engine *engine = NULL;
    mf_engine_options options;
    mf_error err = {0};
    mfi_buf text = {0};
    cli_progress progress;
    struct stat st;
    if (strcmp(output(args), "-") == 0)
        return cli_usage_error("-o -: a GGUF file is not written in order; name a file");
    if (lstat(output(args), &st) == 0)
        return cli_error(CLI_EXIT_RUNTIME, "%s exists already", output(args));
    int code = cli_read_all(args->file, TEXT_MAX_BYTES, &text);
    if (!code) {
        cli_progress_init(&progress, args->no_progress);
        cli_engine_options(args, PIECE_TOKENS, &progress, &options);
        options.collect_imatrix = true;
        code = cli_report(mf_engine_open(&engine, &options, &err), &err, CLI_OPENING);
        if (!code)
            code = collect(args, engine, &text);
        cli_progress_clear(&progress);
    }
    if (!code && !args->output)
        fprintf(stderr, "wrote %s\n", output(args));
    code = cli_engine_close(&engine, code);
    mfi_buf_free(&text);
    return code;
}
