/* Engines on the fake Metal device, for tests. */
#ifndef MFT_METAL_RIG_H
#define MFT_METAL_RIG_H

#include "metal/fake/fake_metal.h"
#include "fake/timelines.h"

/* The device of the module that engines open, as after a reset; skips the test where the build has
 * none, or a real one. */
mft_metal_state *mft_metal_device(void);

/* The same as it is, or NULL. */
mft_metal_state *mft_metal_find(void);
/* It, for timelines.h: finds no fault, and nothing is left of an engine that was closed. */
extern const mft_device_case mft_metal_case;

/* What an evaluation gave. */
typedef struct mft_metal_run {
    float *logits; /* [n_ids][n_vocab]; release with free */
    size_t n, n_vocab;
    mf_stats stats;
} mft_metal_run;

/* Options for `path` on the device: a context of 128, chunks of 16. */
mf_engine_options mft_metal_options(const char *path);
/* Opens, evaluates n_ids tokens and closes; asserts that the device found no fault and that nothing
 * is left of it. */
mf_status mft_metal_eval(const mf_engine_options *options, uint32_t n_ids, mft_metal_run *run,
                         mf_error *err);

#endif
