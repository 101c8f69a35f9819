/* The judge of hints; see hints.h. Called by the engine, on its thread. */
#include "experts/hints.h"

#define STALL_SHARE_MIN 0.05 /* of the time: less isn't worth reading ahead for */
#define IDLE_SHARE_MIN  0.1  /* of the time, without a read under way: the drive has slack */
#define USEFUL_MIN      0.5  /* of the hints that were read */
#define IDLE_WINDOWS    64   /* after guesses that were mostly wrong */

static void add(mfi_hint_facts *sum, const mfi_hint_facts *f)
{
    sum->wall_ns += f->wall_ns;
    sum->stall_ns += f->stall_ns;
    sum->reading_ns += f->reading_ns;
    sum->bytes_read += f->bytes_read;
    sum->hint_bytes += f->hint_bytes;
    sum->hints_useful += f->hints_useful;
    sum->hints_late += f->hints_late;
    sum->hints_wasted += f->hints_wasted;
}

/* Wrong guesses cost the drive the part that they are of all bytes; right ones can spare no more
 * than the part of the time in which it had nothing to do without them. */
static bool pays(const mfi_hint_judge *j)
{
    const mfi_hint_facts *s = &j->sum;
    double right = (double)(s->hints_useful + s->hints_late), wrong = (double)s->hints_wasted;
    if (right + wrong == 0 || s->bytes_read == 0)
        return true;
    double wrong_share = wrong / (right + wrong);
    return wrong_share <= 1 - USEFUL_MIN &&
           wrong_share * (double)s->hint_bytes <= j->idle_share * (double)s->bytes_read;
}

static bool judge_window(mfi_hint_judge *j)
{
    const mfi_hint_facts *s = &j->sum;
    double wall_ns = (double)s->wall_ns;
    if (j->n_idle > 0) {
        j->n_idle--;
        return false;
    }
    if (j->on) {
        if (!pays(j))
            j->n_idle = IDLE_WINDOWS;
        return j->n_idle == 0;
    }
    j->idle_share = 1 - (double)s->reading_ns / wall_ns;
    return j->idle_share > IDLE_SHARE_MIN && (double)s->stall_ns > STALL_SHARE_MIN * wall_ns;
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
