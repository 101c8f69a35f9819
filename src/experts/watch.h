/* What other threads may see of the experts while the engine works: where each one is, and which
 * were chosen of late.
 *
 * The engine's thread writes, with plain stores that wait for nobody; any thread reads, and may see
 * some experts a moment later than others. Places are kept by the stores (store.h), a byte an
 * expert; choices in a ring, which a reader copies and then checks for what was overwritten
 * meanwhile. Allocates at open, and where something is asked. */
#ifndef MFI_EXPERTS_WATCH_H
#define MFI_EXPERTS_WATCH_H

#include "experts/replay.h"
#include "experts/store.h"

typedef struct mfi_watch mfi_watch;

typedef struct mfi_watch_config {
    uint32_t n_layers, n_experts, top_k;
    uint64_t expert_bytes;
} mfi_watch_config;

/* What it takes, with all that a question takes at its time. */
uint64_t mfi_watch_bytes(uint32_t n_layers, uint32_t n_experts, uint32_t top_k);
mf_status mfi_watch_open(mfi_watch **watch, const mfi_watch_config *config, mf_error *err);
void mfi_watch_close(mfi_watch **watch);

/* ---- the engine's thread ---- */

/* For a store (mfi_store_config.places): the one of the host's slots, or of a device's. */
mfi_places *mfi_watch_places(mfi_watch *watch, bool device);
/* A token's choice in a layer: n of its experts, at most MFI_MAX_TOP_K. */
void mfi_watch_choice(mfi_watch *watch, uint32_t layer, const uint16_t *ids, uint32_t n);

/* ---- any thread ---- */

/* Of an expert: its place in the host's memory or a device's. */
mfi_place mfi_watch_place(const mfi_watch *watch, bool device, uint32_t layer, uint32_t expert);

/* How much each was used of late, [n_layers * n_experts]: the part of its layer's tokens that chose
 * it, where a token counts half as much as one that came MFI_WATCH_HALF_LIFE tokens later. */
mf_status mfi_watch_use(const mfi_watch *watch, float *use, mf_error *err);

/* The last choices as a trace to replay. MF_ERR_STATE if there was none yet. */
mf_status mfi_watch_replay(const mfi_watch *watch, mfi_replay *replay, mf_error *err);

#endif
