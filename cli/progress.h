/* Progress of long steps on standard error: a line that is rewritten on a terminal, else a line
 * each 10 % once the step has taken a second. */
#ifndef MOEFLUX_CLI_PROGRESS_H
#define MOEFLUX_CLI_PROGRESS_H

#include "base/buf.h"

typedef struct cli_progress {
    bool quiet, tty;
    bool line_open; /* a line without its newline stands on the terminal */
    char what[64];  /* the step shown */
    uint64_t done;  /* of it, last heard */
    uint64_t start_ns, shown_ns;
    unsigned tenths; /* already printed, when not a terminal */
} cli_progress;

void cli_progress_init(cli_progress *progress, bool quiet);

/* An mf_progress_fn; `user` is a cli_progress. False once a signal came. */
bool cli_progress_update(void *user, const char *what, const char *unit, uint64_t done,
                         uint64_t total);

/* Takes the line off the terminal, before anything else is written there. */
void cli_progress_clear(cli_progress *progress);

/* One line without its end: what, amount, rate, time left. */
void cli_progress_line(mfi_buf *out, const char *what, const char *unit, uint64_t done,
                       uint64_t total, uint64_t elapsed_ns);

#endif
