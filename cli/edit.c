/* Reading lines: chooses between the editor and plain reads, and keeps the history file. Main
 * thread only. */
#include "edit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "history.h"
#include "signals.h"

#define LINE_MAX_BYTES ((size_t)64 << 20)

struct cli_edit {
    bool tty; /* standard input is one */
    bool eof;
    cli_editor *editor; /* NULL: plain reads */
    char *history_path;
    mfi_buf buf; /* read and not given away yet begins at `taken` */
    size_t taken;
};

#ifndef MF_HAVE_LIBEDIT
cli_editor *cli_editor_open(void)
{
    return NULL;
}

void cli_editor_close(cli_editor *editor)
{
    (void)editor;
}

cli_line cli_editor_read(cli_editor *editor, const char *prompt, mfi_buf *line)
{
    (void)editor;
    (void)prompt;
    (void)line;
    return CLI_LINE_END;
}

void cli_editor_remember(cli_editor *editor, const char *text, size_t len)
{
    (void)editor;
    (void)text;
    (void)len;
}
#endif

static void take_entry(void *user, const char *text, size_t len)
{
    cli_editor_remember(user, text, len);
}

cli_edit *cli_edit_open(bool simple, const char *history_path)
{
    cli_edit *e = calloc(1, sizeof *e);
    if (!e) {
        cli_error(CLI_EXIT_ROOM, "out of memory");
        return NULL;
    }
    e->tty = isatty(STDIN_FILENO) == 1;
    if (!simple && e->tty && isatty(STDOUT_FILENO) == 1)
        e->editor = cli_editor_open();
    if (e->editor && history_path) {
        e->history_path = strdup(history_path);
        cli_history_load(history_path, take_entry, e->editor);
    }
    return e;
}

void cli_edit_close(cli_edit *e)
{
    if (!e)
        return;
    cli_editor_close(e->editor);
    free(e->history_path);
    mfi_buf_free(&e->buf);
    free(e);
}

void cli_edit_remember(cli_edit *e, const char *text, size_t len)
{
    if (e->editor)
        cli_editor_remember(e->editor, text, len);
    if (e->history_path && !cli_history_append(e->history_path, text, len)) {
        fprintf(stderr, "history: cannot write %s: %s\n", e->history_path, strerror(errno));
        free(e->history_path);
        e->history_path = NULL;
    }
}

/* Reads once; CLI_LINE: there may be more. */
static cli_line read_some(cli_edit *e)
{
    char chunk[4096];
    if (!cli_signals_wait(STDIN_FILENO)) {
        (void)cli_signal_take_resize(); /* of no interest here */
        (void)cli_signal_take_continue();
        return cli_signal_code() ? CLI_LINE_INTERRUPT : CLI_LINE;
    }
    ssize_t n = read(STDIN_FILENO, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR)
        return cli_signal_code() ? CLI_LINE_INTERRUPT : CLI_LINE;
    if (n < 0) {
        cli_error(CLI_EXIT_RUNTIME, "cannot read standard input: %s", strerror(errno));
        return CLI_LINE_FAILED;
    }
    e->eof = n == 0;
    mfi_buf_append(&e->buf, chunk, (size_t)n);
    if (!e->buf.failed && e->buf.len - e->taken <= LINE_MAX_BYTES)
        return CLI_LINE;
    cli_error(CLI_EXIT_ROOM, e->buf.failed ? "out of memory" : "a line is too long");
    return CLI_LINE_FAILED;
}

static cli_line read_plain(cli_edit *e, mfi_buf *line)
{
    mfi_buf *buf = &e->buf;
    size_t searched = e->taken;
    for (;;) {
        const char *newline =
            buf->len > searched ? memchr(buf->data + searched, '\n', buf->len - searched) : NULL;
        if (newline || (e->eof && buf->len > e->taken)) {
            size_t end = newline ? (size_t)(newline - buf->data) : buf->len;
            mfi_buf_append(line, buf->data + e->taken, end - e->taken);
            e->taken = newline ? end + 1 : end;
            return CLI_LINE;
        }
        if (e->eof)
            break;
        if (e->taken) { /* what is left is less than a line */
            memmove(buf->data, buf->data + e->taken, buf->len - e->taken);
            buf->len -= e->taken;
            e->taken = 0;
        }
        searched = buf->len;
        cli_line got = read_some(e);
        if (got == CLI_LINE_INTERRUPT)
            buf->len = 0; /* the terminal threw away its part of the line, too */
        if (got != CLI_LINE)
            return got;
    }
    e->eof = !e->tty; /* a terminal goes on after Ctrl-D */
    return CLI_LINE_END;
}

cli_line cli_edit_read(cli_edit *e, const char *prompt, mfi_buf *line)
{
    line->len = 0;
    mfi_buf_append(line, "", 0);
    if (e->editor)
        return cli_editor_read(e->editor, prompt, line);
    if (e->tty)
        fputs(prompt, stderr);
    return read_plain(e, line);
}
