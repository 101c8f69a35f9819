/* Shows progress; see progress.h. Called by library callbacks and commands on the main thread.
 * Writes to standard error only; failures to write are ignored, since there is nobody left to tell.
 * Uses no colour, so NO_COLOR has nothing to turn off. */
#include "progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "signals.h"
#include "size.h"

#define SECOND_NS       1000000000u
#define TTY_INTERVAL_NS 100000000u /* 10 Hz */

void cli_progress_init(cli_progress *progress, bool quiet)
{
    *progress = (cli_progress){.quiet = quiet, .tty = isatty(STDERR_FILENO) == 1};
}

void cli_progress_clear(cli_progress *progress)
{
    if (progress->line_open)
        fputs("\r\033[K", stderr);
    progress->line_open = false;
}

static void put_amount(mfi_buf *out, const char *unit, double amount)
{
    if (strcmp(unit, "bytes") == 0)
        cli_put_size(out, amount);
    else
        mfi_buf_fmt(out, amount < 10 && amount != (double)(uint64_t)amount ? "%.1f %s" : "%.0f %s",
                    amount, unit);
}

void cli_progress_line(mfi_buf *out, const char *what, const char *unit, uint64_t done,
                       uint64_t total, uint64_t elapsed_ns)
{
    mfi_buf_fmt(out, "%s: ", what);
    if (total)
        mfi_buf_fmt(out, "%3.0f %%, ", 100.0 * (double)done / (double)total);
    put_amount(out, unit, (double)done);
    if (total) {
        mfi_buf_str(out, " of ");
        put_amount(out, unit, (double)total);
    }
    if (!elapsed_ns || !done)
        return;
    double per_second = (double)done * SECOND_NS / (double)elapsed_ns;
    mfi_buf_str(out, ", ");
    put_amount(out, unit, per_second);
    mfi_buf_str(out, "/s");
    if (done < total) {
        double left = (double)(total - done) / per_second;
        if (left < 360000)
            mfi_buf_fmt(out, ", %u:%02u left", (unsigned)left / 60, (unsigned)left % 60);
    }
}

/* Whether to print now; keeps the pace. */
static bool due(cli_progress *progress, uint64_t now_ns, uint64_t done, uint64_t total)
{
    if (progress->tty) {
        if (now_ns - progress->shown_ns < TTY_INTERVAL_NS)
            return false;
        progress->shown_ns = now_ns;
        return true;
    }
    if (!total || now_ns - progress->start_ns < SECOND_NS)
        return false;
    unsigned tenths = (unsigned)(10.0 * (double)done / (double)total);
    if (tenths <= progress->tenths)
        return false;
    progress->tenths = tenths;
    return true;
}

bool cli_progress_update(void *user, const char *what, const char *unit, uint64_t done,
                         uint64_t total)
{
    cli_progress *progress = user;
    if (cli_signal_code())
        return false;
    if (progress->quiet)
        return true;
    uint64_t now_ns = mfi_clock_ns();
    if (strncmp(progress->what, what, sizeof progress->what - 1) != 0 || done < progress->done) {
        snprintf(progress->what, sizeof progress->what, "%s", what);
        progress->start_ns = now_ns;
        progress->tenths = 0;
    }
    progress->done = done;
    if (due(progress, now_ns, done, total)) {
        mfi_buf line = {0};
        cli_progress_line(&line, what, unit, done, total, now_ns - progress->start_ns);
        if (!line.failed)
            fprintf(stderr, progress->tty ? "\r%s\033[K" : "%s\n", line.data);
        progress->line_open = progress->tty;
        mfi_buf_free(&line);
    }
    return true;
}
