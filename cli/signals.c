/* Turns signals into flags. Owns them, the only mutable globals of the command line: a handler has
 * no other way to speak. Installed once by main; polled from any thread; never exits by itself but
 * for a SIGINT that nobody heeds, so that half-written files are removed on the ordinary way out.
 */
#include "signals.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

#define INTERRUPTS_MAX 3 /* unheeded ones */

static _Atomic int pending; /* number of the first signal, 0: none */
static _Atomic int interrupts, resized, continued;
static int wake[2] = {-1, -1}; /* a byte for each signal, so that no wait misses one */

static void note(int signal_number)
{
    int none = 0;
    atomic_compare_exchange_strong(&pending, &none, signal_number);
}

static void note_and_wake(int signal_number)
{
    int error = errno;
    note(signal_number);
    (void)!write(wake[1], "", 1);
    errno = error;
}

static void note_interactive(int signal_number)
{
    int error = errno;
    if (signal_number == SIGWINCH) {
        resized = 1;
    } else if (signal_number == SIGCONT) {
        continued = 1;
    } else if (signal_number == SIGINT) {
        note(SIGINT);
        if (atomic_fetch_add(&interrupts, 1) + 1 >= INTERRUPTS_MAX) {
            signal(SIGINT, SIG_DFL);
            raise(SIGINT);
        }
    } else {
        pending = signal_number;
    }
    (void)!write(wake[1], "", 1); /* full means that a wake-up is on its way */
    errno = error;
}

static void handle(int signal_number, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags}, before;
    sigemptyset(&action.sa_mask);
    /* A parent that ignores them (nohup, background jobs of sh) means it. */
    if (sigaction(signal_number, NULL, &before) == 0 && before.sa_handler == SIG_IGN)
        return;
    sigaction(signal_number, &action, NULL);
}

void cli_signals_install(void)
{
    /* No SA_RESTART: a read from a terminal must come back. SA_RESETHAND: the second one kills. */
    handle(SIGINT, note, SA_RESETHAND);
    handle(SIGTERM, note, SA_RESETHAND);
    handle(SIGHUP, note, SA_RESETHAND);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

int cli_signal_code(void)
{
    int number = pending;
    return number ? 128 + number : 0;
}

static bool open_wake(void)
{
    if (wake[0] < 0 && pipe(wake) != 0)
        return false;
    for (int i = 0; i < 2; i++) {
        fcntl(wake[i], F_SETFL, O_NONBLOCK);
        fcntl(wake[i], F_SETFD, FD_CLOEXEC);
    }
    return true;
}

int cli_signals_fd(void)
{
    if (!open_wake())
        return -1;
    handle(SIGINT, note_and_wake, SA_RESETHAND);
    handle(SIGTERM, note_and_wake, SA_RESETHAND);
    handle(SIGHUP, note_and_wake, SA_RESETHAND);
    return wake[0];
}

bool cli_signals_interactive(void)
{
    if (!open_wake())
        return false;
    handle(SIGINT, note_interactive, 0);
    handle(SIGTERM, note_interactive, SA_RESETHAND);
    handle(SIGHUP, note_interactive, SA_RESETHAND);
    handle(SIGWINCH, note_interactive, SA_RESTART);
    handle(SIGCONT, note_interactive, SA_RESTART);
    return true;
}

bool cli_signal_take_interrupt(void)
{
    int interrupt = SIGINT;
    bool came = atomic_exchange(&interrupts, 0) > 0;
    atomic_compare_exchange_strong(&pending, &interrupt, 0);
    return came;
}

bool cli_signal_take_resize(void)
{
    return atomic_exchange(&resized, 0) != 0;
}

bool cli_signal_take_continue(void)
{
    return atomic_exchange(&continued, 0) != 0;
}

bool cli_signals_wait(int fd)
{
    char bytes[64];
    struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}, {.fd = wake[0], .events = POLLIN}};
    if (wake[0] < 0)
        return true;
    while (read(wake[0], bytes, sizeof bytes) > 0)
        ;
    if (cli_signal_code() || resized || continued)
        return false;
    while (poll(fds, 2, -1) < 0 && errno == EINTR && !cli_signal_code() && !resized && !continued)
        ;
    return fds[0].revents != 0 && !cli_signal_code();
}
