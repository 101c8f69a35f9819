/* Tiny models of family gpt_oss, their experts quantised to MXFP4 and stored as published, or
 * decoded again to bfloat16 and stored as transformers does. Both layouts hold the same numbers.
 * Written byte by byte without the engine's own code. */
#ifndef MFT_OSS_MODEL_H
#define MFT_OSS_MODEL_H

#include "base/defs.h"
#include "base/rng.h"
#include "fake/model_files.h"

typedef struct mft_oss {
    uint32_t n_layers, hidden, n_vocab, n_head, n_kv_head, head_dim, n_experts, top_k, width;
    uint32_t window, ctx;
    bool mxfp4;
    bool exact;       /* not MXFP4: the experts as they are, not quantised and decoded */
    const char *from; /* a folder of bfloat16 weights; NULL: random ones */
    uint64_t seed;
} mft_oss;

void mft_oss_default(mft_oss *spec); /* 3 layers, hidden 64, window 8 */

/* Release with mft_free_tensors. */
mft_tensor_list *mft_oss_make(const mft_oss *spec);
/* `key` (may be NULL) gets this raw JSON value instead, or none if that is NULL. */
void mft_oss_write_config(const char *dir, const mft_oss *spec, const char *key, const char *value);
/* Both, into a fresh folder. */
const char *mft_oss_write(const mft_oss *spec);

#endif
