/* Answers taken apart; see answer.h. Used by `run` and `chat` on the main thread, from the
 * callbacks of generating. */
#include "answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"

/* ---- showing ---- */

static void show(cli_answer *a, const char *bytes, size_t len)
{
    if (!a->show || !len)
        return;
    if (a->progress)
        cli_progress_clear(a->progress);
    if (a->last_reasoning) {
        fputs(a->last_reasoning == '\n' ? "" : "\n", stderr);
        a->last_reasoning = 0;
    }
    a->last = bytes[len - 1];
    cli_output_write(a->show, bytes, len);
    cli_output_flush(a->show);
}

/* Dimmed on a terminal. */
static void show_reasoning(cli_answer *a, const char *bytes, size_t len)
{
    bool dim = isatty(STDERR_FILENO) == 1;
    if (!a->show || !len)
        return;
    if (a->progress)
        cli_progress_clear(a->progress);
    a->last_reasoning = bytes[len - 1];
    fputs(dim ? "\033[2m" : "", stderr);
    fwrite(bytes, 1, len, stderr);
    fputs(dim ? "\033[0m" : "", stderr);
    fflush(stderr);
}

/* ---- parts ---- */

static void append(cli_answer *a, mfi_buf *to, const char *bytes, size_t len)
{
    for (size_t i = 0; a->no_nul && i < len; i++)
        if (bytes[i])
            mfi_buf_append(to, &bytes[i], 1);
    if (!a->no_nul)
        mfi_buf_append(to, bytes, len);
    a->failed = a->failed || to->failed;
}

static cli_call *call_of(cli_answer *a, uint32_t number)
{
    if (a->n_calls && a->calls[a->n_calls - 1].number == number)
        return &a->calls[a->n_calls - 1];
    if (a->n_calls == a->cap) {
        size_t cap = a->cap ? 2 * a->cap : 4;
        cli_call *grown = realloc(a->calls, cap * sizeof *grown);
        if (!grown) {
            a->failed = true;
            return NULL;
        }
        a->calls = grown;
        a->cap = cap;
    }
    a->calls[a->n_calls] = (cli_call){.number = number};
    return &a->calls[a->n_calls++];
}

static void free_call(cli_call *call)
{
    mfi_buf_free(&call->name);
    mfi_buf_free(&call->id);
    mfi_buf_free(&call->arguments);
}

static void put_function(const cli_call *call, mfi_buf *out)
{
    mfi_buf_str(out, "{\"name\":");
    mfi_json_put_str(out, call->name.data ? call->name.data : "", call->name.len);
    mfi_buf_str(out, ",\"arguments\":");
    mfi_buf_append(out, call->arguments.data, call->arguments.len);
    mfi_buf_str(out, "}");
}

/* A whole call is shown on a line. */
static void show_call(cli_answer *a, const cli_call *call)
{
    mfi_buf line = {0};
    mfi_buf_str(&line, a->last && a->last != '\n' ? "\n" : "");
    put_function(call, &line);
    mfi_buf_str(&line, "\n");
    a->failed = a->failed || line.failed;
    if (!line.failed)
        show(a, line.data, line.len);
    mfi_buf_free(&line);
}

static void on_call_part(cli_answer *a, mf_output_kind kind, uint32_t number, const char *bytes,
                         size_t len)
{
    cli_call *call = call_of(a, number);
    if (!call)
        return;
    if (kind == MF_OUTPUT_CALL_NAME)
        append(a, &call->name, bytes, len);
    else if (kind == MF_OUTPUT_CALL_ID)
        append(a, &call->id, bytes, len);
    else if (kind == MF_OUTPUT_CALL_ARGUMENTS)
        append(a, &call->arguments, bytes, len);
    else
        show_call(a, call);
}

static void on_part(void *user, mf_output_kind kind, uint32_t call, const char *bytes, size_t len)
{
    cli_answer *a = user;
    switch (kind) {
    case MF_OUTPUT_CALL_BROKEN:
        if (call_of(a, call))
            free_call(&a->calls[--a->n_calls]);
        /* fallthrough */
    case MF_OUTPUT_TEXT:
        append(a, &a->text, bytes, len);
        show(a, bytes, len);
        break;
    case MF_OUTPUT_REASONING:
        append(a, &a->reasoning, bytes, len);
        show_reasoning(a, bytes, len);
        break;
    default:
        on_call_part(a, kind, call, bytes, len);
        break;
    }
}

/* ---- an answer ---- */

static void forget(cli_answer *a)
{
    mf_output_close(&a->output);
    while (a->n_calls)
        free_call(&a->calls[--a->n_calls]);
    a->text.len = a->reasoning.len = 0;
    a->last = a->last_reasoning = 0;
}

int cli_answer_begin(cli_answer *a, const cli_args *args, const mf_tokenizer *tokenizer,
                     const mf_template *chat_template, const int32_t *prompt, size_t n_prompt)
{
    static const char *const none_offered[] = {NULL};
    const mf_output_options options = {.struct_size = sizeof options,
                                       .tokenizer = tokenizer,
                                       .chat_template = chat_template,
                                       .prompt = prompt,
                                       .n_prompt = n_prompt,
                                       .tools = a->tools ? NULL : none_offered,
                                       .on_part = on_part,
                                       .user = a};
    mf_error err = {0};
    bool none = args->reasoning_format && strcmp(args->reasoning_format, "none") == 0;
    forget(a);
    /* Under a schema the answer is that document, whatever stands in it. */
    if (none || args->raw || args->json_schema || args->json_schema_file)
        return CLI_EXIT_OK;
    return cli_report(mf_output_open(&a->output, &options, &err), &err, CLI_RUNNING);
}

bool cli_answer_token(cli_answer *a, const char *bytes, size_t len)
{
    if (!a->output) {
        append(a, &a->text, bytes, len);
        show(a, bytes, len);
    }
    return !a->failed && !(a->show && a->show->error);
}

bool cli_answer_end(cli_answer *a)
{
    if (a->output && mf_output_end(a->output, NULL) != MF_OK)
        a->failed = true;
    mf_output_close(&a->output);
    if (a->last_reasoning && a->last_reasoning != '\n')
        fputs("\n", stderr);
    a->last_reasoning = 0;
    return !a->failed;
}

void cli_answer_free(cli_answer *a)
{
    forget(a);
    mfi_buf_free(&a->text);
    mfi_buf_free(&a->reasoning);
    free(a->calls);
    *a = (cli_answer){0};
}

void cli_answer_put_calls(const cli_answer *a, mfi_buf *out)
{
    mfi_buf_str(out, "[");
    for (size_t i = 0; i < a->n_calls; i++) {
        const cli_call *call = &a->calls[i];
        mfi_buf_str(out, i ? ",{" : "{");
        if (call->id.len) {
            mfi_buf_str(out, "\"id\":");
            mfi_json_put_str(out, call->id.data, call->id.len);
            mfi_buf_str(out, ",");
        }
        mfi_buf_str(out, "\"type\":\"function\",\"function\":");
        put_function(call, out);
        mfi_buf_str(out, "}");
    }
    mfi_buf_str(out, "]");
}

void cli_answer_put_json(const cli_answer *a, mfi_buf *out)
{
    mfi_buf_str(out, "\"text\":");
    mfi_json_put_str(out, a->text.data ? a->text.data : "", a->text.len);
    mfi_buf_str(out, ",\"reasoning\":");
    if (a->reasoning.len)
        mfi_json_put_str(out, a->reasoning.data, a->reasoning.len);
    else
        mfi_buf_str(out, "null");
    mfi_buf_str(out, ",\"tool_calls\":");
    cli_answer_put_calls(a, out);
}
