/* Tiny models of family deepseek_v3 with seeded random weights, written byte by byte without the
 * engine's own code. Every matrix is made as FP8 in blocks of 128 x 128, and stored so or decoded
 * to float32: the same numbers either way. */
#ifndef MFT_TINY_LATENT_H
#define MFT_TINY_LATENT_H

#include "base/defs.h"

typedef struct mft_latent {
    uint32_t n_layers, n_dense, hidden, n_vocab, n_head;
    uint32_t q_rank; /* 0: queries aren't compressed */
    uint32_t kv_rank, nope, rope, v_dim;
    uint32_t n_experts, top_k, width, n_shared, dense_width, n_groups, n_groups_used;
    bool fp8;    /* else float32 */
    bool split;  /* kv_b as MLX splits it, keys transposed; float32 only */
    bool halves; /* rotated pairs are i and i + rope/2, else neighbours; float32 only */
    bool mtp;    /* a layer for multi-token prediction behind the others */
    uint64_t seed;
} mft_latent;

void mft_latent_default(mft_latent *spec); /* 3 layers, everything small and unequal */

/* Writes a key and raw JSON value in front of config.json's others, or over the one that is there.
 */
void mft_latent_set(const char *dir, const char *key, const char *value);
/* Writes config.json and model.safetensors into a fresh folder. */
const char *mft_latent_write(const mft_latent *spec);

/* E4M3 by its definition, and the nearest of its 254 finite codes. */
float mft_e4m3(uint8_t code);
uint8_t mft_to_e4m3(double value);

#endif
