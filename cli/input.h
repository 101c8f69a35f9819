/* Reading what commands are given: whole texts, and lines. */
#ifndef MOEFLUX_CLI_INPUT_H
#define MOEFLUX_CLI_INPUT_H

#include "base/buf.h"

/* Appends the whole of a file, or of standard input for "-", to *out; at most max_bytes. Returns
 * the exit code, with the failure reported. */
int cli_read_all(const char *path, size_t max_bytes, mfi_buf *out);

typedef struct cli_lines {
    int fd;
    const char *name; /* for messages */
    mfi_buf buf;      /* what was read and not consumed begins at `taken` */
    size_t taken;
    bool eof;
} cli_lines;

/* "-" is standard input; `path` must live as long as the reader. */
int cli_lines_open(cli_lines *lines, const char *path);

/* Reads on until at least min_bytes or the end is buffered, and gives all whole lines of it: *text,
 * *len, which end with a newline except at the end of the input; *len is 0 there. Valid until the
 * next call. */
int cli_lines_next(cli_lines *lines, size_t min_bytes, const char **text, size_t *len);
void cli_lines_close(cli_lines *lines);

#endif
