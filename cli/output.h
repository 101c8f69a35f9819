/* Writing what commands produce, with every error noticed: a buffered writer on a descriptor, and
 * files that appear whole or not at all. */
#ifndef MOEFLUX_CLI_OUTPUT_H
#define MOEFLUX_CLI_OUTPUT_H

#include "base/buf.h"

/* ---- buffered writer ---- */

typedef struct cli_output {
    int fd;
    const char *name; /* for messages */
    int error;        /* errno of the first failure; later writes do nothing */
    char *data;       /* [OUTPUT_BUF_BYTES] */
    size_t len;
} cli_output;

/* `name` must live as long as the writer. Without memory the writer starts out failed. */
void cli_output_open(cli_output *out, int fd, const char *name);

/* False once writing failed; a signal that arrives while a write blocks is such a failure. */
bool cli_output_write(cli_output *out, const void *bytes, size_t len);
bool cli_output_flush(cli_output *out);

/* Flushes, releases the buffer (not the descriptor) and reports a failure on stderr. Returns the
 * exit code: 0; 4 when the disk is full; the signal's; 1 otherwise, silently when the reader has
 * gone. */
int cli_output_close(cli_output *out);

/* The exit code for errno of a failed write, reported on stderr. */
int cli_write_failed(const char *name, int error);

/* Writes a text to standard output and closes. */
int cli_print(const mfi_buf *text);

/* ---- whole files ---- */

typedef struct cli_outfile {
    int fd;         /* -1: not open */
    char *path;     /* where it shall be */
    char *tmp_path; /* where it is until committed; NULL: written in place (a device, a pipe) */
    bool committed;
} cli_outfile;

/* Opens for writing: a fresh file beside `path`, or `path` itself if it is there and no regular
 * file; "-" is standard output unless that is a terminal. Returns the exit code, with the failure
 * reported. */
int cli_outfile_open(cli_outfile *file, const char *path);

/* Closes the file and gives it its name. */
int cli_outfile_commit(cli_outfile *file);

/* Releases; what wasn't committed is removed. Zeroed or closed files are allowed. */
void cli_outfile_close(cli_outfile *file);

/* Removes it also if it was committed. */
void cli_outfile_discard(cli_outfile *file);

#endif
