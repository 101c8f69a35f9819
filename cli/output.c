/* Buffered writing to a descriptor; see output.h. Used by all commands on the main thread. Reports
 * its own failures; never closes descriptors it did not open. */
#include "output.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "signals.h"

#define OUTPUT_BUF_BYTES ((size_t)64 << 10)

void cli_output_open(cli_output *out, int fd, const char *name)
{
    *out = (cli_output){.fd = fd, .name = name, .data = malloc(OUTPUT_BUF_BYTES)};
    if (!out->data)
        out->error = ENOMEM;
}

static bool write_all(cli_output *out, const char *p, size_t len)
{
    while (len && !out->error) {
        ssize_t n = write(out->fd, p, len);
        if (n >= 0) {
            p += n;
            len -= (size_t)n;
        } else if (errno == EINTR) {
            if (cli_signal_code())
                out->error = EINTR;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            struct pollfd ready = {.fd = out->fd, .events = POLLOUT};
            if (poll(&ready, 1, -1) < 0 && cli_signal_code())
                out->error = EINTR;
        } else {
            out->error = errno;
        }
    }
    return !out->error;
}

bool cli_output_flush(cli_output *out)
{
    size_t len = out->len;
    out->len = 0;
    return write_all(out, out->data, len);
}

bool cli_output_write(cli_output *out, const void *bytes, size_t len)
{
    if (out->error)
        return false;
    if (len > OUTPUT_BUF_BYTES - out->len) {
        if (!cli_output_flush(out))
            return false;
        if (len >= OUTPUT_BUF_BYTES)
            return write_all(out, bytes, len);
    }
    if (len)
        memcpy(out->data + out->len, bytes, len);
    out->len += len;
    return true;
}

int cli_write_failed(const char *name, int error)
{
    switch (error) {
    case EPIPE:
        return CLI_EXIT_RUNTIME;
    case EINTR:
        if (cli_signal_code())
            return cli_signal_code();
        break;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case ENOMEM:
        return cli_error(CLI_EXIT_ROOM, "cannot write %s: %s", name, strerror(error));
    default:
        break;
    }
    return cli_error(CLI_EXIT_RUNTIME, "cannot write %s: %s", name, strerror(error));
}

int cli_output_close(cli_output *out)
{
    cli_output_flush(out);
    free(out->data);
    out->data = NULL;
    return out->error ? cli_write_failed(out->name, out->error) : CLI_EXIT_OK;
}

int cli_print(const mfi_buf *text)
{
    if (text->failed)
        return cli_error(CLI_EXIT_ROOM, "out of memory");
    cli_output out;
    cli_output_open(&out, STDOUT_FILENO, "standard output");
    cli_output_write(&out, text->data, text->len);
    return cli_output_close(&out);
}
