/* Reads files and standard input; see input.h. Called by commands on the main thread. A signal ends
 * a blocking read with that signal's exit code. */
#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "signals.h"

#define READ_BYTES     ((size_t)64 << 10)
#define LINE_MAX_BYTES ((size_t)1 << 30)

static int read_failed(const char *name)
{
    if (errno == EINTR && cli_signal_code())
        return cli_signal_code();
    return cli_error(CLI_EXIT_RUNTIME, "cannot read %s: %s", name, strerror(errno));
}

static int open_input(const char *path, int *fd, const char **name)
{
    bool is_stdin = strcmp(path, "-") == 0;
    *name = is_stdin ? "standard input" : path;
    *fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    return *fd < 0 ? read_failed(path) : CLI_EXIT_OK;
}

static void close_input(int fd)
{
    if (fd > STDIN_FILENO)
        close(fd);
}

/* Appends one read; *n is 0 at the end. */
static int read_some(int fd, const char *name, mfi_buf *out, size_t *n)
{
    char chunk[READ_BYTES];
    ssize_t got;
    do {
        got = read(fd, chunk, sizeof chunk);
    } while (got < 0 && errno == EINTR && !cli_signal_code());
    if (got < 0)
        return read_failed(name);
    mfi_buf_append(out, chunk, (size_t)got);
    *n = (size_t)got;
    return out->failed ? cli_error(CLI_EXIT_ROOM, "%s: out of memory", name) : CLI_EXIT_OK;
}

int cli_read_all(const char *path, size_t max_bytes, mfi_buf *out)
{
    int fd;
    const char *name;
    size_t n = 1;
    int code = open_input(path, &fd, &name);
    if (code)
        return code;
    mfi_buf_append(out, "", 0); /* an empty input is an empty text, not NULL */
    while (!code && n) {
        code = read_some(fd, name, out, &n);
        if (!code && out->len > max_bytes)
            code = cli_error(CLI_EXIT_RUNTIME, "%s is longer than %zu bytes", name, max_bytes);
    }
    close_input(fd);
    return code;
}

int cli_lines_open(cli_lines *lines, const char *path)
{
    *lines = (cli_lines){.fd = -1};
    return open_input(path, &lines->fd, &lines->name);
}

int cli_lines_next(cli_lines *lines, size_t min_bytes, const char **text, size_t *len)
{
    mfi_buf *buf = &lines->buf;
    /* What is left is less than a line, so moving it is cheap. */
    if (lines->taken) {
        memmove(buf->data, buf->data + lines->taken, buf->len - lines->taken);
        buf->len -= lines->taken;
        lines->taken = 0;
    }
    size_t whole_len = 0; /* up to and with the last newline */
    while (!lines->eof && (buf->len < min_bytes || !whole_len)) {
        size_t n;
        int code = read_some(lines->fd, lines->name, buf, &n);
        if (code)
            return code;
        lines->eof = n == 0;
        for (size_t i = 0; i < n; i++) {
            if (buf->data[buf->len - 1 - i] == '\n') {
                whole_len = buf->len - i;
                break;
            }
        }
        if (!whole_len && buf->len > LINE_MAX_BYTES)
            return cli_error(CLI_EXIT_RUNTIME, "%s: a line is longer than %zu bytes", lines->name,
                             LINE_MAX_BYTES);
    }
    *text = buf->data;
    *len = lines->eof ? buf->len : whole_len;
    lines->taken = *len;
    return CLI_EXIT_OK;
}

void cli_lines_close(cli_lines *lines)
{
    close_input(lines->fd);
    mfi_buf_free(&lines->buf);
}
