/* `moeflux template`: renders a chat template with variables given as JSON, one object or one a
 * line. Needs no weights and no tokenizer. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "cli.h"
#include "input.h"
#include "output.h"
#include "signals.h"

#define VARS_MAX_BYTES ((size_t)256 << 20)
#define BATCH_BYTES    ((size_t)64 << 10)

typedef struct job {
    const cli_args *args;
    mf_template *template;
    cli_output out;
    const char *name; /* of the input */
    mfi_buf line;     /* what a line gives */
    uint64_t n_lines, n_failed;
} job;

/* Renders one line into j->line; a line that can't be rendered is told, with its number. */
static int render_line(job *j, const char *text, size_t len)
{
    mf_rendering rendered = {0};
    mf_error err = {0};
    j->n_lines++;
    j->line.len = 0;
    mf_status status = mf_template_render(j->template, text, len, j->args->now, &rendered, &err);
    if (status == MF_OK) {
        mfi_json_put_str(&j->line, rendered.text, rendered.len);
        mfi_buf_str(&j->line, "\n");
        mf_rendering_free(&rendered);
        return CLI_EXIT_OK;
    }
    j->n_failed++;
    mfi_buf_str(&j->line, "null\n");
    cli_output_flush(&j->out); /* so that what went well stands before the message */
    return cli_error(status == MF_ERR_NO_MEMORY ? CLI_EXIT_ROOM : CLI_EXIT_RUNTIME,
                     "%s, line %llu: %s", j->name, (unsigned long long)j->n_lines,
                     err.message[0] ? err.message : mf_status_text(status));
}

/* Whole lines, each with its newline but perhaps the last. */
static int render_batch(job *j, const char *text, size_t len)
{
    const char *end = text + len;
    for (const char *p = text; p < end;) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((newline ? newline : end) - p);
        int code = render_line(j, p, n);
        if (code && !(j->args->keep_going && code == CLI_EXIT_RUNTIME))
            return code;
        if (j->line.failed)
            return cli_error(CLI_EXIT_ROOM, "out of memory");
        if (!cli_output_write(&j->out, j->line.data, j->line.len))
            return CLI_EXIT_RUNTIME; /* closing it says why */
        if (cli_signal_code())
            return cli_signal_code();
        p += newline ? n + 1 : n;
    }
    return CLI_EXIT_OK;
}

static int render_lines(job *j)
{
    cli_lines lines;
    const char *text;
    size_t len = 0;
    int code = cli_lines_open(&lines, j->args->file ? j->args->file : "-");
    if (code)
        return code;
    j->name = lines.name;
    do {
        code = cli_lines_next(&lines, BATCH_BYTES, &text, &len);
        if (!code && len)
            code = render_batch(j, text, len);
    } while (!code && len);
    cli_lines_close(&lines);
    return code || !j->n_failed ? code : CLI_EXIT_RUNTIME;
}

static int render_whole(job *j)
{
    mfi_buf vars = {0};
    mf_rendering rendered = {0};
    mf_error err = {0};
    int code = cli_read_all(j->args->file ? j->args->file : "-", VARS_MAX_BYTES, &vars);
    if (!code) {
        mf_status status =
            mf_template_render(j->template, vars.data, vars.len, j->args->now, &rendered, &err);
        if (status == MF_OK)
            cli_output_write(&j->out, rendered.text, rendered.len);
        else
            code = cli_error(status == MF_ERR_NO_MEMORY ? CLI_EXIT_ROOM : CLI_EXIT_RUNTIME, "%s",
                             err.message[0] ? err.message : mf_status_text(status));
        mf_rendering_free(&rendered);
    }
    mfi_buf_free(&vars);
    return code;
}

int cli_template(const cli_args *args)
{
    job j = {.args = args};
    mf_error err = {0};
    /* A model from the environment is no contradiction to a file named here. */
    const char *path = args->chat_template ? args->chat_template : args->model;
    if (!path)
        return cli_usage_error("-m DIR or --chat-template FILE is required");
    if (args->keep_going && !args->jsonl)
        return cli_usage_error("--keep-going is for --jsonl");
    int code = cli_report(mf_template_open(&j.template, path, &err), &err, CLI_OPENING);
    if (code)
        return code;
    cli_output_open(&j.out, STDOUT_FILENO, "standard output");
    code = args->jsonl ? render_lines(&j) : render_whole(&j);
    int write_code = cli_output_close(&j.out);
    mf_template_close(&j.template);
    mfi_buf_free(&j.line);
    return write_code ? write_code : code;
}
