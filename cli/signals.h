/* SIGINT and SIGTERM as a flag that loops and callbacks poll. */
#ifndef MOEFLUX_CLI_SIGNALS_H
#define MOEFLUX_CLI_SIGNALS_H

#include <stdbool.h>

/* The first SIGINT or SIGTERM sets the flag and interrupts blocking reads and writes; a second one
 * of the same kind kills at once. SIGPIPE and SIGXFSZ are ignored: the write's errno tells. */
void cli_signals_install(void);

/* The exit code that the pending signal asks for (130, 143), or 0. */
int cli_signal_code(void);

#endif
