/* Replaying a trace (trace.h) offline: what a cache of some size would have hit.
 *
 * A step is what one pass wants of one layer, for one token or many: each expert once, all of them
 * at once as far as there are slots, and then none of them goes for another. That is what the store
 * does. A trace whose lines don't say their pass has a step a line. */
#ifndef MFI_EXPERTS_REPLAY_H
#define MFI_EXPERTS_REPLAY_H

#include <stddef.h>

#include "experts/policy.h"

typedef struct mfi_replay {
    uint32_t n_layers, n_experts, top_k;
    uint64_t expert_bytes; /* 0: the trace doesn't say */
    uint32_t *keys;        /* [n_keys] layer * n_experts + expert, steps one after the other */
    size_t *step_end;      /* [n_steps] index after a step's last key */
    size_t n_keys, n_steps;
    size_t n_tokens; /* lines of the layer that has most */
} mfi_replay;

/* Reads a trace. MF_ERR_FORMAT names the line. A last line that was cut off is left out. */
mf_status mfi_replay_open(mfi_replay *replay, const char *path, mf_error *err);
mf_status mfi_replay_parse(mfi_replay *replay, const char *text, size_t len, const char *what,
                           mf_error *err);
void mfi_replay_close(mfi_replay *replay);
/* Counts n_tokens where every step is one token's, for who made the rest. */
void mfi_replay_count_tokens(mfi_replay *replay);

/* Hits of a cache of n_slots (at least top_k) under a policy. */
mf_status mfi_replay_run(const mfi_replay *replay, const mfi_policy_ops *policy, uint32_t n_slots,
                         uint64_t *hits, mf_error *err);

/* The most hits that any policy could have had, knowing what comes: it gives up what is wanted last
 * (Belady 1966). */
mf_status mfi_replay_bound(const mfi_replay *replay, uint32_t n_slots, uint64_t *hits,
                           mf_error *err);

#endif
