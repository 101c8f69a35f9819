/* The expert store: experts on the drive, some of them in slots of memory.
 *
 * The only state machine of the streaming path. A slot goes EMPTY -> LOADING -> READY -> EMPTY; its
 * generation counts reuses. Slots are pinned while somebody holds a reference; pinned slots are
 * never victims, LOADING ones only when all references were given back early and no other slot can
 * go: then the reads of the new expert start once the old ones have landed, and those completions
 * are dropped as stale. Left alone, such a load completes and its slot is READY for later. A
 * request for an expert that is LOADING joins that load and counts as a hit: it costs no read. The
 * store does no arithmetic on weights and knows neither format nor backend: it gets a table of byte
 * ranges, memory for the slots, a reader and a policy.
 *
 * Hints: experts that may be wanted soon are read ahead, into slots that are kept empty for them
 * and that the policy doesn't know. A wrong hint costs the cache nothing; a right one becomes
 * cached, and the next one takes what a miss would have taken. Their reads begin only while
 * no demand read is under way, a few at a time; what turns out not to be wanted is dropped. A
 * reference to a hinted expert takes the load over and counts as a miss: the cache didn't have it.
 *
 * Owned by one thread. Allocates at open only. A failed read fails the reference that waits for it,
 * with layer, expert, file and offset in the message; the slot is emptied and the store stays
 * usable. */
#ifndef MFI_EXPERTS_STORE_H
#define MFI_EXPERTS_STORE_H

#include "base/limits.h"
#include "experts/policy.h"
#include "experts/trace.h"
#include "io/io.h"

/* One contiguous piece of an expert: where it lies on the drive, where in the slot. */
typedef struct mfi_expert_part {
    uint64_t offset; /* in the file */
    uint32_t file;
    uint32_t len;
    uint32_t slot_offset;
} mfi_expert_part;

/* Parts of all experts: those of (layer, expert) are parts[(layer * n_experts + expert) * n_parts
 * ..], n_parts of them; len 0 marks an unused one. A layer without experts has unused parts only,
 * and nobody asks for it. */
typedef struct mfi_expert_table {
    uint32_t n_layers, n_experts, n_parts;
    uint64_t slot_bytes;
    const mfi_expert_part *parts;
    const uint32_t
        *model_layer; /* [n_layers] the model's number of each layer, for messages and traces */
} mfi_expert_table;

typedef struct mfi_store mfi_store;

/* Where an expert is, for other threads to see; stored and read relaxed. */
typedef enum mfi_place { MFI_PLACE_NONE, MFI_PLACE_LOADING, MFI_PLACE_READY } mfi_place;
typedef _Atomic uint8_t mfi_places;

typedef struct mfi_store_config {
    mfi_expert_table table; /* copied shallowly: parts and model_layer must outlive the store */
    void *slots;            /* n_slots * slot_stride bytes */
    uint64_t slot_stride;   /* >= slot_bytes */
    uint32_t n_slots;
    const mfi_policy_ops *policy;
    mfi_io *io;           /* not owned; used by the store alone while it is open */
    mfi_trace *trace;     /* may be NULL; not owned */
    mfi_places *places;   /* [n_layers * n_experts] kept up to date; may be NULL; not owned */
    uint32_t n_refs_max;  /* references held at one time */
    uint32_t n_hints_max; /* hints at one time, and slots kept empty for them: below n_slots */
} mfi_store_config;

mf_status mfi_store_open(mfi_store **store, const mfi_store_config *config, mf_error *err);
/* Waits for reads under way. No reference may be held. */
void mfi_store_close(mfi_store **store);

/* A reference to one expert: pinned from acquire until release. Caller-owned, opaque but for
 * `ready`. */
typedef struct mfi_expert_ref {
    uint32_t slot;
    uint32_t generation;
    uint16_t layer, expert;
    bool ready; /* set by acquire (a hit) or by wait/poll */
} mfi_expert_ref;

/* Takes references on n distinct experts of a layer and submits reads for the missing ones at once;
 * hits are pinned before any victim is chosen, so that one call never evicts its own hits. n plus
 * the references already held must not exceed n_slots (asserted). Never blocks. */
mf_status mfi_store_acquire(mfi_store *store, uint32_t layer, const uint16_t *experts, uint32_t n,
                            mfi_expert_ref *refs, mf_error *err);

/* Collects finished reads without blocking and sets `ready` in refs[0..n). */
mf_status mfi_store_poll(mfi_store *store, mfi_expert_ref *refs, uint32_t n, mf_error *err);

/* Blocks until at least one of refs[0..n) that was not ready is; the time counts as stall. Returns
 * at once if all are ready. On failure refs stay held and must be released. */
mf_status mfi_store_wait(mfi_store *store, mfi_expert_ref *refs, uint32_t n, mf_error *err);

/* Keeps n slots for hints from now on, at most n_hints_max; 0 drops all hints and keeps none. */
void mfi_store_hints_set(mfi_store *store, uint32_t n);
uint32_t mfi_store_hints_room(const mfi_store *store); /* as set */
/* How many experts are read ahead at one time; 0, as from the start: two, since a guess may be
 * wrong and demand isn't to wait for it. */
void mfi_store_hints_at_once(mfi_store *store, uint32_t n);
/* Whether any hint's reads have yet to end. */
bool mfi_store_hints_reading(const mfi_store *store);

/* Experts of a layer that may be wanted next, the likeliest first: those that aren't in slots are
 * read ahead, as many as there is room for. Older hints are dropped. Never blocks. */
void mfi_store_hint(mfi_store *store, uint32_t layer, const uint16_t *experts, uint32_t n);

/* Says which experts of the layer are wanted, all of them, before they are acquired: other hints
 * are dropped, and the policy learns it. */
void mfi_store_settle(mfi_store *store, uint32_t layer, const uint16_t *experts, uint32_t n);

/* True if the expert is in a slot or on its way into one. */
bool mfi_store_cached(const mfi_store *store, uint32_t layer, uint16_t expert);

/* Writes one token's choice to the trace, if there is one, with what is in slots now; so before
 * acquire. ids in rank order; `pass` counts evaluations. */
void mfi_store_trace(const mfi_store *store, uint64_t pass, uint32_t layer, uint64_t pos,
                     const uint16_t *ids, uint32_t n);

/* For a tier above that has a copy of its own (store_tiers.c). An expert in a slot that nobody
 * holds is given up: it stays as long as its slot isn't needed, and is the first to go. Taken back,
 * or used, it is as it was. Where it isn't in a slot nothing happens. */
void mfi_store_give_up(mfi_store *store, uint32_t layer, uint32_t expert);
void mfi_store_take_back(mfi_store *store, uint32_t layer, uint32_t expert);
/* Takes an expert in that is nowhere here, as LOADING: the caller writes to `data` and says when it
 * is done, and holds *ref, one of n_refs_max, until then. False: no slot can go now. */
bool mfi_store_adopt(mfi_store *store, uint32_t layer, uint32_t expert, mfi_expert_ref *ref,
                     void **data);
/* Gives the reference back; !good: what was written is of no use, and it is read. */
void mfi_store_adopted(mfi_store *store, mfi_expert_ref *ref, bool good);

uint32_t mfi_store_n_experts(const mfi_store *store); /* of a layer */

/* The slot's memory; the reference must be ready. */
const void *mfi_store_data(const mfi_store *store, const mfi_expert_ref *ref);

/* Gives references back, ready or not. */
void mfi_store_release(mfi_store *store, mfi_expert_ref *refs, uint32_t n);

typedef struct mfi_store_stats {
    uint64_t hits, misses; /* of references taken; a miss starts a load */
    uint64_t evictions;    /* experts that gave their slot up, ready or not */
    uint64_t failures;   /* loads that failed; misses + adopted - evictions - failures = experts in
                            slots */
    uint64_t bytes_read; /* asked of the reader */
    uint64_t adopted;    /* experts that a tier above brought back */
    uint64_t stall_ns;
    uint64_t reading_ns;        /* with reads under way, as far as completions were seen */
    uint64_t stale_completions; /* dropped: their slot had moved on */
    uint64_t hint_bytes;        /* of bytes_read, those of hints */
    uint64_t hints_useful;      /* wanted, and there */
    uint64_t hints_late;        /* wanted, and not there yet */
    uint64_t hints_wasted;      /* not wanted, and read or being read */
    uint64_t hints_dropped;     /* not wanted or no longer possible, before anything was read */
    uint32_t n_ready;           /* slots that hold an expert now */
} mfi_store_stats;
/* Calls `moved` when an expert can be used in its slot, which has its memory at `data`, and when it
 * can't any more (NULL): inside of calls that collect reads or take references, or give them back.
 * NULL: nobody is called. */
typedef void (*mfi_moved_fn)(void *user, uint32_t layer, uint32_t expert, const void *data);
void mfi_store_on_move(mfi_store *store, mfi_moved_fn moved, void *user);

/* Hits that never came here: a device that has every expert looks them up itself. */
void mfi_store_count_hits(mfi_store *store, uint64_t n);
/* Time that its users waited for experts in a store below. */
void mfi_store_count_stall(mfi_store *store, uint64_t ns);
void mfi_store_stats_get(const mfi_store *store, mfi_store_stats *stats);
void mfi_store_stats_reset(mfi_store *store);

#endif
