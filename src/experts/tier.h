/* A tier of memory between the drive and a device, as a reader: the device's store reads experts
 * "from" it like from a drive.
 *
 * Below it is another store, of slots in host memory that a device can copy from. A request names a
 * layer (its file) and an expert (its offset): the tier takes a reference in the store below, which
 * reads what is missing, and copies the whole slot to the request's memory when it is there. So
 * both tiers are the same store code, and what is in host memory costs a copy, the rest a read and
 * a copy.
 *
 * Inclusive, an expert may be in both. Exclusive, the two hold as many as they have slots together:
 * what the device got gives its slot in the store below up, and what a request's memory held
 * before, which the device's store has dropped, is fetched back into a slot there, if it isn't
 * there still. A request's memory must be one of the device's slots then. Slots to spare below keep
 * copies of what the device has: where the device's store gives those up first (mfi_tier_spare),
 * next to nothing is fetched. */
#ifndef MFI_EXPERTS_TIER_H
#define MFI_EXPERTS_TIER_H

#include "experts/store.h"

/* Copies into a device's memory. */
typedef struct mfi_mover {
    void *ctx;
    /* Starts a copy; copies end in order, *ticket counts them from 1. */
    mf_status (*copy)(void *ctx, void *dst, const void *src, uint64_t len, uint64_t *ticket,
                      mf_error *err);
    /* How many have ended, at least `ticket`: waits for that one. */
    mf_status (*copied)(void *ctx, uint64_t ticket, uint64_t *n_ended, mf_error *err);
    /* The same from the device's memory to the host's. A copy that starts later, to where this one
     * reads, waits for it. */
    mf_status (*fetch)(void *ctx, void *dst, const void *src, uint64_t len, uint64_t *ticket,
                       mf_error *err);
    mf_status (*fetched)(void *ctx, uint64_t ticket, uint64_t *n_ended, mf_error *err);
} mfi_mover;

typedef struct mfi_tier_stats {
    uint64_t n_copies, bytes;
    uint64_t n_fetches, fetched_bytes; /* back from the device */
} mfi_tier_stats;

/* The device's slots, where the tiers are exclusive. */
typedef struct mfi_tier_slots {
    const void *slots;
    uint64_t slot_stride;
    uint32_t n_slots;
} mfi_tier_slots;

/* `below` and the mover are borrowed and must outlive the tier. At most n_held references in the
 * store below are held at one time; more requests wait. exclusive: NULL, or the device's slots; as
 * many references again may be held then. */
mf_status mfi_tier_open(mfi_io **io, mfi_store *below, const mfi_mover *mover, uint32_t n_held,
                        const mfi_tier_slots *exclusive, mf_error *err);
void mfi_tier_stats_get(const mfi_io *io, mfi_tier_stats *stats);

/* Whether the store below has the expert, as mfi_store_config.spare: `io` is a tier's. */
bool mfi_tier_spare(void *io, uint32_t layer, uint32_t expert);

/* The table that a store over a tier has: every expert is one piece, its slot. *parts is allocated
 * and the caller's. */
mf_status mfi_tier_table(const mfi_expert_table *below, mfi_expert_table *table,
                         mfi_expert_part **parts, mf_error *err);

#endif
