/* `moeflux tokenize`: text to ids, whole or line by line. Lines are read in batches; with several
 * threads each encodes a run of consecutive lines into its own buffer, and the main thread writes
 * the buffers in order, so the output doesn't depend on the number of threads. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/limits.h"
#include "cli.h"
#include "input.h"
#include "output.h"
#include "signals.h"

#define BATCH_BYTES_PER_THREAD ((size_t)256 << 10)
#define TEXT_MAX_BYTES         ((size_t)1 << 30)

/* One thread's share of a batch. */
typedef struct worker {
    pthread_t thread;
    const mf_tokenizer *tokenizer;
    const char *name; /* of the input */
    bool special;
    const char *text; /* whole lines */
    size_t len;
    uint64_t n_lines; /* done; the failing one comes after them */
    mfi_buf out, line;
    int code;
    mf_error err;
} worker;

static void put_id(mfi_buf *out, int32_t id)
{
    char digits[12];
    size_t n = sizeof digits;
    uint32_t v = (uint32_t)id;
    do {
        digits[--n] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    mfi_buf_append(out, digits + n, sizeof digits - n);
}

static void put_ids(mfi_buf *out, const int32_t *ids, size_t n_ids, const char *separator)
{
    for (size_t i = 0; i < n_ids; i++) {
        if (i)
            mfi_buf_str(out, separator);
        put_id(out, ids[i]);
    }
}

static mf_status encode_line(worker *w, const char *line, size_t len)
{
    mf_status status = mfi_json_scan(line, len, w->name, &w->err);
    if (status)
        return status;
    mfi_json_span value = mfi_json_root(line, len);
    if (mfi_json_span_type(value) != MFI_JSON_STRING) {
        snprintf(w->err.message, sizeof w->err.message, "not a JSON string");
        return MF_ERR_FORMAT;
    }
    w->line.len = 0;
    if (!mfi_json_span_str(value, &w->line) || w->line.failed)
        return MF_ERR_NO_MEMORY;
    int32_t *ids;
    size_t n_ids;
    status = mf_tokenizer_encode(w->tokenizer, w->line.data ? w->line.data : "", w->line.len,
                                 w->special, &ids, &n_ids, &w->err);
    if (status)
        return status;
    mfi_buf_str(&w->out, "[");
    put_ids(&w->out, ids, n_ids, ",");
    mfi_buf_str(&w->out, "]\n");
    mf_free(ids);
    return w->out.failed ? MF_ERR_NO_MEMORY : MF_OK;
}

static void *encode_lines(void *user)
{
    worker *w = user;
    const char *p = w->text, *end = w->text + w->len;
    while (p < end && !cli_signal_code()) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        size_t len = (size_t)((newline ? newline : end) - p);
        w->err.message[0] = 0;
        mf_status status = encode_line(w, p, len);
        if (status) {
            w->code = status == MF_ERR_NO_MEMORY ? CLI_EXIT_ROOM : CLI_EXIT_RUNTIME;
            if (!w->err.message[0])
                snprintf(w->err.message, sizeof w->err.message, "%s", mf_status_text(status));
            break;
        }
        w->n_lines++;
        p += newline ? len + 1 : len;
    }
    return NULL;
}

/* Cuts the batch at line ends into about equal parts. */
static void share(worker *workers, size_t n, const char *text, size_t len)
{
    const char *p = text, *end = text + len;
    for (size_t i = 0; i < n; i++) {
        const char *cut = i + 1 == n ? end : text + len / n * (i + 1);
        if (cut < p)
            cut = p;
        const char *newline = cut < end ? memchr(cut, '\n', (size_t)(end - cut)) : NULL;
        cut = newline ? newline + 1 : end;
        workers[i].text = p;
        workers[i].len = (size_t)(cut - p);
        workers[i].n_lines = 0;
        workers[i].out.len = 0;
        p = cut;
    }
}

/* Encodes one batch and writes what came out up to the first bad line. */
static int encode_batch(worker *workers, size_t n, const char *text, size_t len, uint64_t *n_lines,
                        cli_output *out)
{
    size_t n_started = 1; /* the first is this thread */
    share(workers, n, text, len);
    while (n_started < n && workers[n_started].len &&
           pthread_create(&workers[n_started].thread, NULL, encode_lines, &workers[n_started]) == 0)
        n_started++;
    encode_lines(&workers[0]);
    for (size_t i = 1; i < n_started; i++)
        pthread_join(workers[i].thread, NULL);
    for (size_t i = n_started; i < n; i++) /* a thread that couldn't be had */
        encode_lines(&workers[i]);
    for (size_t i = 0; i < n; i++) {
        if (!cli_output_write(out, workers[i].out.data, workers[i].out.len))
            return CLI_EXIT_RUNTIME; /* closing it says why */
        *n_lines += workers[i].n_lines;
        if (cli_signal_code())
            return cli_signal_code();
        if (workers[i].code) {
            cli_output_flush(out);
            return cli_error(workers[i].code, "%s, line %llu: %s", workers[i].name,
                             (unsigned long long)*n_lines + 1, workers[i].err.message);
        }
    }
    return CLI_EXIT_OK;
}

static size_t n_workers(const cli_args *args)
{
    if (args->threads)
        return (size_t)args->threads;
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : MFI_MIN((size_t)n, (size_t)MFI_MAX_THREADS);
}

static int tokenize_lines(const cli_args *args, const mf_tokenizer *tokenizer, cli_output *out)
{
    static worker workers[MFI_MAX_THREADS]; /* too large for a stack */
    size_t n = n_workers(args), len = 0;
    uint64_t n_lines = 0;
    const char *text;
    cli_lines lines;
    int code = cli_lines_open(&lines, args->file ? args->file : "-");
    if (code)
        return code;
    for (size_t i = 0; i < n; i++) {
        workers[i].tokenizer = tokenizer;
        workers[i].name = lines.name;
        workers[i].special = args->special;
    }
    do {
        code = cli_lines_next(&lines, n * BATCH_BYTES_PER_THREAD, &text, &len);
        if (!code && len)
            code = encode_batch(workers, n, text, len, &n_lines, out);
    } while (!code && len);
    for (size_t i = 0; i < n; i++) {
        mfi_buf_free(&workers[i].out);
        mfi_buf_free(&workers[i].line);
    }
    cli_lines_close(&lines);
    return code;
}

static int tokenize_text(const cli_args *args, const mf_tokenizer *tokenizer, cli_output *out)
{
    mfi_buf text = {0}, line = {0};
    mf_error err = {0};
    int code = CLI_EXIT_OK;
    if (args->prompt)
        mfi_buf_str(&text, args->prompt);
    else
        code = cli_read_all(args->file ? args->file : "-", TEXT_MAX_BYTES, &text);
    if (!code && text.failed)
        code = cli_error(CLI_EXIT_ROOM, "out of memory");
    int32_t *ids = NULL;
    size_t n_ids = 0;
    if (!code)
        code = cli_report(
            mf_tokenizer_encode(tokenizer, text.data, text.len, args->special, &ids, &n_ids, &err),
            &err, CLI_RUNNING);
    if (!code) {
        put_ids(&line, ids, n_ids, " ");
        mfi_buf_str(&line, "\n");
        if (line.failed)
            code = cli_error(CLI_EXIT_ROOM, "out of memory");
        else
            cli_output_write(out, line.data, line.len);
        mf_free(ids);
    }
    mfi_buf_free(&line);
    mfi_buf_free(&text);
    return code;
}

int cli_tokenize(const cli_args *args)
{
    mf_tokenizer *tokenizer = NULL;
    mf_error err = {0};
    cli_output out;
    if (args->prompt && (args->file || args->jsonl))
        return cli_usage_error("--prompt can't be combined with %s",
                               args->file ? "--file" : "--jsonl");
    int code = cli_report(mf_tokenizer_open(&tokenizer, args->model, &err), &err, CLI_OPENING);
    if (code)
        return code;
    cli_output_open(&out, STDOUT_FILENO, "standard output");
    code =
        args->jsonl ? tokenize_lines(args, tokenizer, &out) : tokenize_text(args, tokenizer, &out);
    int write_code = cli_output_close(&out);
    mf_tokenizer_close(&tokenizer);
    return write_code ? write_code : code;
}
