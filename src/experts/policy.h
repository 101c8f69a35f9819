/* Which cached expert goes when room is needed: pure, no clock, no I/O, replayable.
 *
 * A policy sees accesses and answers with victims. It knows slots by number; which may go is the
 * store's word (pinned and loading slots may not). Experts it knows by key, layer * n_experts +
 * expert. */
#ifndef MFI_EXPERTS_POLICY_H
#define MFI_EXPERTS_POLICY_H

#include "base/status.h"

typedef struct mfi_policy mfi_policy;

typedef struct mfi_policy_ops {
    const char *name; /* "lru" */
    mf_status (*open)(mfi_policy **policy, uint32_t n_slots, uint32_t n_layers, uint32_t n_experts,
                      mf_error *err);
    void (*close)(mfi_policy **policy);
    /* A layer's experts are about to be asked for: these, all of them. May be NULL. Where nobody
     * says it, a layer's first use after another layer's is one. */
    void (*visit)(mfi_policy *policy, uint32_t layer, const uint16_t *experts, uint32_t n);
    void (*filled)(mfi_policy *policy, uint32_t slot, uint32_t key); /* an expert was put there */
    /* One was put there that isn't used: a tier above had it, and has lost it. NULL: as filled. */
    void (*returned)(mfi_policy *policy, uint32_t slot, uint32_t key);
    void (*touched)(mfi_policy *policy, uint32_t slot); /* it was used again */
    void (*emptied)(mfi_policy *policy, uint32_t slot); /* it was dropped (failed read) */
    /* The slot to give up among those with may_go(ctx, slot), or UINT32_MAX. */
    uint32_t (*victim)(mfi_policy *policy, bool (*may_go)(void *ctx, uint32_t slot), void *ctx);
} mfi_policy_ops;

extern const mfi_policy_ops mfi_policy_lru; /* least recently used; all operations O(1) amortised */
/* Least frequently used, of those the least recently: counts are kept for all experts, cached or
 * not, and halved now and then, so that what was popular long ago goes. O(log n). */
extern const mfi_policy_ops mfi_policy_lfu;
/* The least likely to be wanted when its layer comes again, by what the run itself shows, and the
 * later that is, the sooner. O(layers). */
extern const mfi_policy_ops mfi_policy_odds;

/* By name; NULL if there is none of that name. */
const mfi_policy_ops *mfi_policy_named(const char *name);

#endif
