/* `moeflux perplexity`: how well a model foresees a text, window by window, and how far its
 * predictions are from those that another evaluation kept. Runs on the main thread; what it sums up
 * is in ppl.c, how it is shown in ppl_report.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "input.h"
#include "kl_base.h"
#include "output.h"
#include "ppl_report.h"
#include "signals.h"

#define TEXT_MAX_BYTES ((size_t)1 << 30)
#define WINDOW_TOKENS  512 /* as llama.cpp has it */

typedef struct job {
    const cli_args *args;
    const char *compare, *save; /* paths of bases, or NULL */
    mf_engine *engine;
    mf_session *session;
    cli_progress progress;
    cli_output shown; /* standard output */
    mf_model_info info;
    int32_t *ids; /* [n_ids] the whole text */
    size_t n_ids;
    int32_t *prefix; /* what begins every text, or nothing */
    size_t n_prefix;
    uint32_t n_ctx, n_chunks, chunk;
    int32_t *window;  /* [n_ctx] the window evaluated, with the prefix */
    cli_kl_base base; /* compared with */
    cli_outfile file; /* kept in */
    cli_output rows;
    uint16_t *row;
    double *chunk_ppl; /* [n_chunks] after each */
    cli_ppl sums;
    mf_error row_err; /* why a row wasn't taken */
} job;

/* ---- the tokens ---- */

/* Nothing, with what is put around it: what goes before it is the whole, or its beginning. */
static int take_prefix(job *j)
{
    mf_error err = {0};
    const mf_tokenizer *tokenizer = mf_engine_tokenizer(j->engine);
    mf_status status = MF_OK;
    if (tokenizer)
        status = mf_tokenizer_encode(tokenizer, "", 0, true, &j->prefix, &j->n_prefix, &err);
    j->n_prefix = MFI_MIN(j->n_prefix, 1u);
    return cli_report(status, &err, CLI_RUNNING);
}

static int encode_text(job *j)
{
    mf_error err = {0};
    mfi_buf text = {0};
    const mf_tokenizer *tokenizer = mf_engine_tokenizer(j->engine);
    int32_t *plain = NULL;
    size_t n_plain = 0;
    if (!tokenizer)
        return cli_error(CLI_EXIT_MODEL, "%s has no tokenizer", j->args->model);
    int code = cli_read_all(j->args->file, TEXT_MAX_BYTES, &text);
    mf_status status = MF_OK;
    if (!code)
        status = mf_tokenizer_encode(tokenizer, text.data, text.len, false, &plain, &n_plain, &err);
    mfi_buf_free(&text);
    if (!code)
        code = cli_report(status, &err, CLI_RUNNING);
    if (!code) {
        j->n_ids = j->n_prefix + n_plain;
        j->ids = malloc((j->n_ids + 1) * sizeof *j->ids);
        if (!j->ids)
            code = cli_error(CLI_EXIT_ROOM, "out of memory");
    }
    if (!code && j->n_prefix)
        j->ids[0] = j->prefix[0];
    if (!code && n_plain)
        memcpy(j->ids + j->n_prefix, plain, n_plain * sizeof *plain);
    mf_free(plain);
    for (size_t i = 0; !code && i < j->n_ids; i++)
        if ((uint32_t)j->ids[i] >= j->info.n_vocab)
            code = cli_error(CLI_EXIT_MODEL,
                             "token %zu of the text is %d; the model has ids from 0 to %u", i,
                             j->ids[i], j->info.n_vocab - 1);
    return code;
}

/* The text's tokens against those of the base, which they were asked to be. */
static int check_text(const job *j)
{
    const size_t n = (size_t)j->base.n_chunks * j->base.n_ctx;
    if (j->n_ids >= n && memcmp(j->ids, j->base.tokens, n * sizeof *j->ids) == 0)
        return CLI_EXIT_OK;
    return cli_error(CLI_EXIT_RUNTIME, "%s was not made of the text in %s with this tokenizer",
                     j->compare, j->args->file);
}

/* Which windows there are, of which tokens. */
static int take_tokens(job *j)
{
    int code = take_prefix(j);
    if (!code && (j->args->file || !j->compare))
        code = encode_text(j);
    if (code)
        return code;
    if (j->compare) {
        if (j->base.n_vocab != j->info.n_vocab)
            return cli_error(CLI_EXIT_RUNTIME, "%s is of a vocabulary of %u, the model's has %u",
                             j->compare, j->base.n_vocab, j->info.n_vocab);
        j->n_chunks = j->base.n_chunks;
        code = j->args->file ? check_text(j) : CLI_EXIT_OK;
    } else {
        if (j->n_ids < 2 * (size_t)j->n_ctx)
            return cli_error(CLI_EXIT_RUNTIME,
                             "%s has %zu tokens; windows of %u want %zu at least (-c makes them "
                             "smaller)",
                             j->args->file, j->n_ids, j->n_ctx, 2 * (size_t)j->n_ctx);
        j->n_chunks = (uint32_t)MFI_MIN(j->n_ids / j->n_ctx, (size_t)INT32_MAX);
    }
    if (!code && CLI_GIVEN(j->args, chunks) && j->args->chunks >= 0)
        j->n_chunks = (uint32_t)MFI_MIN((int64_t)j->n_chunks, j->args->chunks);
    return code;
}

static const int32_t *chunk_tokens(const job *j, uint32_t chunk)
{
    return (j->compare ? j->base.tokens : j->ids) + (size_t)chunk * j->n_ctx;
}

/* ---- windows ---- */

/* The row after the token at `index` of the window's second half. */
static bool on_logits(void *user, size_t index, const float *logits, size_t n_vocab)
{
    job *j = user;
    const uint32_t next = (uint32_t)chunk_tokens(j, j->chunk)[j->n_ctx / 2 + index + 1];
    const uint32_t n = (uint32_t)n_vocab;
    double log_sum;
    uint32_t top;
    if (cli_signal_code())
        return false;
    if (!cli_ppl_log_sum(logits, n, &log_sum, &top)) {
        mfi_fail(&j->row_err, MF_ERR_FORMAT, "window %u: logits of token %zu are not all numbers",
                 j->chunk + 1, j->n_ctx / 2 + index);
        return false;
    }
    if (j->compare && cli_kl_base_next(&j->base, &j->row_err) != MF_OK)
        return false;
    cli_ppl_add(&j->sums, logits, n, log_sum, top, next, j->compare ? j->base.row : NULL);
    if (!j->save)
        return true;
    cli_kl_encode(logits, n, log_sum, next, j->row);
    return cli_output_write(&j->rows, j->row, cli_kl_row_words(n) * sizeof *j->row);
}

static int run_window(job *j)
{
    const uint32_t half = j->n_ctx / 2;
    const mf_eval_outputs outputs = {
        .struct_size = sizeof outputs, .on_logits = on_logits, .user = j};
    mf_error err = {0};
    memcpy(j->window, chunk_tokens(j, j->chunk), j->n_ctx * sizeof *j->window);
    if (j->n_prefix)
        j->window[0] = j->prefix[0];
    mf_session_reset(j->session);
    mf_status status = mf_session_eval(j->session, j->window, half, NULL, &err);
    if (status == MF_OK)
        status =
            mf_session_eval(j->session, j->window + half, cli_kl_rows(j->n_ctx), &outputs, &err);
    cli_progress_clear(&j->progress);
    if (j->row_err.message[0])
        return cli_error(CLI_EXIT_RUNTIME, "%s", j->row_err.message);
    if (j->save && j->rows.error)
        return CLI_EXIT_RUNTIME; /* told when it is closed */
    return cli_report(status, &err, CLI_RUNNING);
}

static int show(job *j, mfi_buf *text)
{
    if (text->failed)
        return cli_error(CLI_EXIT_ROOM, "out of memory");
    cli_output_write(&j->shown, text->data, text->len);
    const bool ok = cli_output_flush(&j->shown);
    mfi_buf_free(text);
    return ok ? CLI_EXIT_OK : CLI_EXIT_RUNTIME; /* told when it is closed */
}

static int run_windows(job *j)
{
    int code = CLI_EXIT_OK;
    for (j->chunk = 0; !code && j->chunk < j->n_chunks; j->chunk++) {
        mfi_buf text = {0};
        code = run_window(j);
        if (code)
            break;
        j->chunk_ppl[j->chunk] = cli_ppl_figures_of(&j->sums).ppl.value;
        if (!j->args->json)
            cli_ppl_put_chunk(&j->sums, j->chunk, &text);
        code = show(j, &text);
    }
    return code;
}

/* ---- the whole ---- */

static int open_save(job *j)
{
    const uint32_t numbers[3] = {j->n_ctx, j->info.n_vocab, j->n_chunks};
    int code = cli_outfile_open(&j->file, j->save);
    if (code)
        return code;
    cli_output_open(&j->rows, j->file.fd, j->save);
    cli_output_write(&j->rows, "_logits_", 8);
    cli_output_write(&j->rows, numbers, sizeof numbers);
    cli_output_write(&j->rows, j->ids, (size_t)j->n_chunks * j->n_ctx * sizeof *j->ids);
    return CLI_EXIT_OK;
}

static int allocate(job *j)
{
    const size_t n_rows = (size_t)j->n_chunks * cli_kl_rows(j->n_ctx);
    j->window = malloc(j->n_ctx * sizeof *j->window);
    j->chunk_ppl = malloc(j->n_chunks * sizeof *j->chunk_ppl);
    j->row = malloc(cli_kl_row_words(j->info.n_vocab) * sizeof *j->row);
    bool ok = j->window && j->chunk_ppl && j->row;
    if (j->compare) {
        j->sums.klds = malloc(n_rows * sizeof *j->sums.klds);
        j->sums.dps = malloc(n_rows * sizeof *j->sums.dps);
        ok = ok && j->sums.klds && j->sums.dps;
    }
    return ok ? CLI_EXIT_OK : cli_error(CLI_EXIT_ROOM, "no memory for %zu scored tokens", n_rows);
}

static int evaluate(job *j)
{
    mf_error err = {0};
    mfi_buf text = {0};
    int code = allocate(j);
    if (!code && j->save)
        code = open_save(j);
    if (!code)
        code = cli_report(mf_session_open(&j->session, j->engine, &err), &err, CLI_OPENING);
    if (code)
        return code;
    fprintf(stderr,
            "perplexity: calculating perplexity over %u chunks, n_ctx=%u, batch_size=%u, "
            "n_seq=1\n",
            j->n_chunks, j->n_ctx, j->info.chunk);
    if (j->compare && !j->args->json)
        cli_ppl_put_head(&text);
    code = show(j, &text);
    if (!code)
        code = run_windows(j);
    if (j->save) {
        const int write_code = cli_output_close(&j->rows);
        code = write_code ? write_code : code;
    }
    if (code)
        return code;
    if (j->args->json)
        cli_ppl_put_json(&(cli_ppl_facts){&j->info, j->n_ctx, j->n_chunks, j->chunk_ppl}, &j->sums,
                         &text);
    else
        cli_ppl_put_end(&j->sums, &text);
    code = show(j, &text);
    return code || !j->save ? code : cli_outfile_commit(&j->file);
}

/* What is compared with what, and in which windows. */
static int take_options(job *j)
{
    const cli_args *args = j->args;
    mf_error err = {0};
    if (args->kl && (args->kl_divergence || args->kl_base))
        return cli_usage_error("--kl BASE is --kl-divergence with --kl-divergence-base BASE: give "
                               "one of both");
    if (args->kl_divergence && !args->kl_base)
        return cli_usage_error("--kl-divergence: compared with what? --kl-divergence-base FILE");
    j->compare = args->kl ? args->kl : args->kl_divergence ? args->kl_base : NULL;
    j->save = j->compare ? NULL : args->kl_base;
    if (!j->compare && !args->file)
        return cli_usage_error("-f FILE is missing: the text to foresee");
    if (j->save && strcmp(j->save, "-") == 0)
        return cli_usage_error("--kl-divergence-base -: standard output has the report; name a "
                               "file");
    if (args->chunks == 0 && CLI_GIVEN(args, chunks))
        return cli_usage_error("--chunks 0 leaves nothing to measure");
    if (j->compare && cli_kl_base_open(&j->base, j->compare, &err) != MF_OK)
        return cli_error(CLI_EXIT_RUNTIME, "%s", err.message);
    j->n_ctx = args->ctx ? (uint32_t)args->ctx : j->compare ? j->base.n_ctx : WINDOW_TOKENS;
    if (j->n_ctx < CLI_KL_MIN_CTX)
        return cli_usage_error("--ctx-size %u: windows have %d tokens at least", j->n_ctx,
                               CLI_KL_MIN_CTX);
    if (j->compare && j->n_ctx != j->base.n_ctx)
        return cli_usage_error("--ctx-size %u: %s was made with %u", j->n_ctx, j->compare,
                               j->base.n_ctx);
    return CLI_EXIT_OK;
}

int cli_perplexity(const cli_args *args)
{
    job j = {.args = args};
    cli_progress_init(&j.progress, args->no_progress);
    cli_output_open(&j.shown, 1, "standard output");
    int code = take_options(&j);
    if (!code)
        code = cli_engine_open(args, j.n_ctx, &j.progress, &j.engine);
    if (!code) {
        j.info.struct_size = sizeof j.info;
        mf_engine_info(j.engine, &j.info);
        code = take_tokens(&j);
    }
    if (!code)
        code = evaluate(&j);
    const int shown = cli_output_close(&j.shown);
    mf_session_close(&j.session);
    code = cli_engine_close(&j.engine, code);
    cli_outfile_close(&j.file);
    cli_kl_base_close(&j.base);
    mf_free(j.prefix);
    free(j.ids);
    free(j.window);
    free(j.row);
    free(j.chunk_ppl);
    free(j.sums.klds);
    free(j.sums.dps);
    return shown ? shown : code;
}
