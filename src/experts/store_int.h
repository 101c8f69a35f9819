/* The store's inside, shared by its C files only. */
#ifndef MFI_EXPERTS_STORE_INT_H
#define MFI_EXPERTS_STORE_INT_H

#include "experts/store.h"

#define NONE UINT32_MAX

typedef enum slot_state {
    SLOT_EMPTY,
    SLOT_QUEUED,  /* LOADING for the outside: assigned, reads not submitted yet */
    SLOT_LOADING, /* reads under way */
    SLOT_READY,
    SLOT_HINTED, /* assigned to a hint whose reads haven't begun */
    SLOT_FAILED  /* holds no expert; waits for references to be given back */
} slot_state;

typedef struct expert_slot {
    uint32_t key; /* layer * n_experts + expert; NONE if empty or failed */
    uint32_t generation;
    uint32_t n_pins;
    uint32_t n_left;      /* reads of this load that haven't completed */
    uint32_t n_under_way; /* reads into this memory of any load; never reset */
    uint32_t failed_req;  /* the request that holds the message, or NONE */
    uint32_t next_queued;
    slot_state state;
    bool touched; /* something was read into its memory */
    bool hint;    /* nobody asked for it yet; not the policy's */
    bool given;   /* given up: the first to go; not the policy's */
    bool listed;  /* among those given up */
} expert_slot;

struct mfi_store {
    mfi_store_config config;
    mfi_policy *policy;
    expert_slot *slots;             /* [n_slots] */
    uint32_t *slot_of;              /* [n_layers * n_experts], NONE if not in a slot */
    uint32_t *free_slots;           /* [n_slots], a stack */
    mfi_io_req *reqs;               /* [n_reqs] */
    uint32_t *free_reqs;            /* [n_reqs], a stack */
    mfi_io_req **batch;             /* [n_reqs], to be submitted together */
    uint32_t *hints;                /* [n_hints_max] slots of hints, the likeliest first */
    uint32_t n_hints, n_hints_kept; /* there are; slots kept for them */
    uint32_t n_hints_at_once;       /* of them, whose reads may be under way */
    uint32_t *given; /* [n_slots] a stack of slots given up; some were taken back meanwhile */
    uint32_t n_given;
    uint32_t n_spared; /* spare victims since the last that the policy chose among all */
    uint32_t n_free_slots, n_reqs, n_free_reqs, n_batch;
    uint32_t queue_head, queue_tail;
    uint32_t n_refs;    /* held */
    uint32_t n_reading; /* requests under way */
    uint64_t reading_from_ns, last_done_ns;
    mfi_moved_fn moved; /* may be NULL */
    void *moved_user;
    mfi_store_stats stats;
};

/* store.c. A slot for a new expert; NONE where all of them are held. quiet: only one that nothing
 * is read into any more. */
uint32_t mfi_store_take_slot(mfi_store *store, bool quiet);
void mfi_store_set_key(mfi_store *store, uint32_t slot, uint32_t key);
/* All of the slot's expert is there. */
void mfi_store_landed(mfi_store *store, uint32_t slot);
/* What was to come from elsewhere is read. */
void mfi_store_reload(mfi_store *store, uint32_t slot);

#endif
