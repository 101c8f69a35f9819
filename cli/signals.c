/* Turns SIGINT and SIGTERM into a flag. Owns the flag, the only mutable global of the command line:
 * a handler has no other way to speak. Installed once by main; polled from any thread; never exits
 * by itself, so that half-written files are removed on the ordinary way out. */
#include "signals.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t pending; /* number of the first signal, 0: none */

static void note(int signal_number)
{
    if (!pending)
        pending = signal_number;
}

void cli_signals_install(void)
{
    /* No SA_RESTART: a read from a terminal must come back. SA_RESETHAND: the second one kills. */
    struct sigaction action = {.sa_handler = note, .sa_flags = SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    static const int numbers[] = {SIGINT, SIGTERM};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        /* A parent that ignores them (nohup, background jobs of sh) means it. */
        struct sigaction before;
        if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler == SIG_IGN)
            continue;
        sigaction(numbers[i], &action, NULL);
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

int cli_signal_code(void)
{
    return pending ? 128 + (int)pending : 0;
}
