/* When reading ahead is worth it: a judge who sees what each evaluation cost. Hints can only fill
 * the time in which the drive has nothing to do while somebody will wait for it, and a drive that
 * is busy anyway is slowed down by guesses. Pure: no clock, no I/O. */
#ifndef MFI_EXPERTS_HINTS_H
#define MFI_EXPERTS_HINTS_H

#include "base/status.h"

#define MFI_HINT_WINDOW 16 /* evaluations that are looked at together */

typedef struct mfi_hint_facts { /* of one evaluation */
    uint64_t wall_ns, stall_ns;
    uint64_t reading_ns;             /* with reads under way */
    uint64_t bytes_read, hint_bytes; /* all, hints included; of them the hints' */
    uint64_t hints_useful, hints_late, hints_wasted;
} mfi_hint_facts;

typedef struct mfi_hint_judge {
    double drive_rate; /* bytes a second, measured; 0: not known, and hints stay off */
    bool on;
    double idle_share;  /* of the time, that the drive had nothing to do before they were on */
    uint32_t n;         /* evaluations in `sum` */
    uint32_t n_idle;    /* windows that hints stay off yet */
    mfi_hint_facts sum; /* of this window */
} mfi_hint_judge;

/* After each evaluation: whether hints should be given from now on. */
bool mfi_hint_judge_run(mfi_hint_judge *judge, const mfi_hint_facts *facts);

#endif
