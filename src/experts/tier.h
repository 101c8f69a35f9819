/* A tier of memory between the drive and a device, as a reader: the device's store reads experts
 * "from" it like from a drive.
 *
 * Below it is another store, of slots in host memory that a device can copy from. A request names a
 * layer (its file) and an expert (its offset): the tier takes a reference in the store below, which
 * reads what is missing, and copies the whole slot to the request's memory when it is there. So
 * both tiers are the same store code, and what is in host memory costs a copy, the rest a read and
 * a copy. */
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
} mfi_mover;

typedef struct mfi_tier_stats {
    uint64_t n_copies, bytes;
} mfi_tier_stats;

/* `below` and the mover are borrowed and must outlive the tier. At most n_held references in the
 * store below are held at one time; more requests wait. */
mf_status mfi_tier_open(mfi_io **io, mfi_store *below, const mfi_mover *mover, uint32_t n_held,
                        mf_error *err);
void mfi_tier_stats_get(const mfi_io *io, mfi_tier_stats *stats);

/* The table that a store over a tier has: every expert is one piece, its slot. *parts is allocated
 * and the caller's. */
mf_status mfi_tier_table(const mfi_expert_table *below, mfi_expert_table *table,
                         mfi_expert_part **parts, mf_error *err);

#endif
