/* SIGINT and SIGTERM as a flag that loops and callbacks poll. */
#ifndef MOEFLUX_CLI_SIGNALS_H
#define MOEFLUX_CLI_SIGNALS_H

#include <stdbool.h>

/* The first SIGINT or SIGTERM sets the flag and interrupts blocking reads and writes; a second one
 * of the same kind kills at once. SIGPIPE and SIGXFSZ are ignored: the write's errno tells. */
void cli_signals_install(void);

/* The exit code that the pending signal asks for (130, 143), or 0. */
int cli_signal_code(void);

/* ---- for programs that talk with people ---- */

/* From now on SIGINT may come any number of times and is taken note of by
 * cli_signal_take_interrupt; only a third one while nobody does kills. Returns false if the system
 * has no pipe for it. */
bool cli_signals_interactive(void);

/* A descriptor that can be read from once a signal came, for those who poll; -1 on failure. Nobody
 * reads from it. */
int cli_signals_fd(void);

/* True if SIGINT came since the last call; it isn't pending any more then. */
bool cli_signal_take_interrupt(void);

/* The same for SIGWINCH and SIGCONT. */
bool cli_signal_take_resize(void);
bool cli_signal_take_continue(void);

/* Waits until fd can be read (true) or a signal has come (false). Without interactive signals it
 * doesn't wait: the read does. */
bool cli_signals_wait(int fd);

#endif
