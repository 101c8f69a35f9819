/* Tiny models of family qwen3_5_moe of any shape, with seeded random weights, written byte by byte
 * without the engine's own code. */
#ifndef MFT_TINY_MODEL_H
#define MFT_TINY_MODEL_H

#include "base/defs.h"
#include "base/rng.h"
#include "fake/model_files.h"

typedef struct mft_tiny {
    uint32_t n_layers, hidden, n_vocab, n_head, n_kv_head, head_dim, n_rot;
    uint32_t k_heads, v_heads, k_dim, v_dim, conv;
    uint32_t n_experts, top_k, width, shared;
    uint32_t interval; /* every interval-th layer is attention */
    uint32_t ctx;
    bool bf16;  /* else float32 */
    bool fused; /* experts in stacked tensors, gate and up as one; else one tensor each */
    bool tied;
    uint64_t seed;
} mft_tiny;

void mft_tiny_default(mft_tiny *spec);              /* 2 layers, everything small and unequal */
void mft_tiny_random(mft_tiny *spec, mfi_rng *rng); /* any possible shape, odd ones preferred */
void mft_tiny_describe(const mft_tiny *spec, char *text, size_t cap); /* for messages */

/* Release with mft_free_tensors. */
mft_tensor_list *mft_tiny_make(const mft_tiny *spec);
/* Writes config.json; `key` (may be NULL) gets this raw JSON value instead, or none if that is
 * NULL. */
void mft_tiny_write_config(const char *dir, const mft_tiny *spec, const char *key,
                           const char *value);
/* The keys of config.json, NULL-terminated. */
extern const char *const mft_tiny_keys[];

/* Both, into a fresh folder. */
const char *mft_tiny_write(const mft_tiny *spec);

#endif
