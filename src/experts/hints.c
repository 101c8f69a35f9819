/* The judge of hints; see hints.h. Called by the engine, on its thread. */
#include "experts/hints.h"

#define STALL_SHARE_MIN 0.05 /* of the time: less isn't worth reading ahead for */
#define DRIVE_SHARE_ON  0.7  /* of what the drive can do: below it has slack */
#define DRIVE_SHARE_OFF 0.85 /* with hints: above they are in the way */
#define USEFUL_MIN      0.5  /* of the hints that were read */
#define IDLE_WINDOWS    64   /* after guesses that were mostly wrong */

static void add(mfi_hint_facts *sum, const mfi_hint_facts *f)
{
    sum->wall_ns += f->wall_ns;
    sum->stall_ns += f->stall_ns;
    sum->bytes_read += f->bytes_read;
    sum->hints_useful += f->hints_useful;
    sum->hints_late += f->hints_late;
    sum->hints_wasted += f->hints_wasted;
}

static bool judge_window(mfi_hint_judge *j)
{
    const mfi_hint_facts *s = &j->sum;
    double wall_ns = (double)s->wall_ns;
    double drive = (double)s->bytes_read * 1e9 / wall_ns / j->drive_rate;
    double right = (double)(s->hints_useful + s->hints_late);
    if (j->n_idle > 0) {
        j->n_idle--;
        return false;
    }
    if (j->on && right < USEFUL_MIN * (right + (double)s->hints_wasted)) {
        j->n_idle = IDLE_WINDOWS;
        return false;
    }
    if (j->on)
        return drive < DRIVE_SHARE_OFF;
    return drive < DRIVE_SHARE_ON && (double)s->stall_ns > STALL_SHARE_MIN * wall_ns;
}

bool mfi_hint_judge_run(mfi_hint_judge *j, const mfi_hint_facts *facts)
{
    add(&j->sum, facts);
    if (++j->n < MFI_HINT_WINDOW)
        return j->on;
    j->on = j->drive_rate > 0 && j->sum.wall_ns > 0 && judge_window(j);
    j->n = 0;
    j->sum = (mfi_hint_facts){0};
    return j->on;
}
