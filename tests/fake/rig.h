/* The engine put together by hand, so that a test can choose what the plan would choose: how many
 * slots, which reader, which faults. */
#ifndef MFT_RIG_H
#define MFT_RIG_H

#include "fake/io_fake.h"
#include "base/rng.h"
#include "forward/forward.h"

typedef struct mft_rig_options {
    const char *folder;
    uint32_t n_slots; /* 0: every expert */
    uint32_t n_hints; /* experts read ahead at one time */
    /* Not 0: slots are a device's, as far as stores go, over so many of the host's. */
    uint32_t n_host_slots;
    bool exclusive; /* of such tiers */
    bool miss_cpu;  /* what "the device" lacks is computed by a second CPU backend */
    uint32_t chunk, n_threads, ctx;
    mf_activations activations;
    mf_cache_type cache_type[2]; /* of keys, of values */
    mfi_isa isa;
    bool fake_io;            /* else reader threads */
    mft_io_fake_config fake; /* files are filled in */
} mft_rig_options;

typedef struct mft_rig mft_rig;

void mft_rig_default(mft_rig_options *options, const char *folder);
mft_rig *mft_rig_open(const mft_rig_options *options);
void mft_rig_close(mft_rig *rig);
const mfi_shape *mft_rig_shape(const mft_rig *rig);
mfi_store *mft_rig_store(mft_rig *rig);
mfi_io *mft_rig_io(mft_rig *rig);
mfi_forward *mft_rig_forward(mft_rig *rig);
const mfi_program *mft_rig_program(const mft_rig *rig);

/* Evaluates n tokens from an empty state in chunks; logits [n][vocab] may be NULL. */
mf_status mft_rig_eval(mft_rig *rig, const int32_t *ids, uint32_t n, float *logits, mf_error *err);

/* Evaluates tokens (at most a chunk) at a position of the state as it is; the last one's logits. */
mf_status mft_rig_step(mft_rig *rig, const int32_t *ids, uint32_t n, uint32_t pos, mf_error *err);
const float *mft_rig_logits(const mft_rig *rig); /* [n_vocab], until the next evaluation */

#endif
