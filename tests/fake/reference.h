/* Checkpoints with what others computed of them (expected.safetensors), on any device. */
#ifndef MFT_REFERENCE_H
#define MFT_REFERENCE_H

#include "moeflux/moeflux.h"

/* How far rows may be off, in spreads (standard deviations) of what is compared. */
#define MFT_REFERENCE_LIMIT 2e-4

/* Families that the oracle has in hf/, computed by Hugging Face transformers. */
#define MFT_REFERENCE_HF(X)                                                                        \
    X("qwen3_5_moe_text")                                                                          \
    X("qwen3_next")                                                                                \
    X("qwen3_moe")                                                                                 \
    X("qwen2_moe")                                                                                 \
    X("mixtral")                                                                                   \
    X("olmoe")                                                                                     \
    X("glm4_moe")                                                                                  \
    X("minimax_m2")                                                                                \
    X("granitemoe")                                                                                \
    X("dots1")                                                                                     \
    X("deepseek_v3")                                                                               \
    X("deepseek_v2")                                                                               \
    X("glm4_moe_lite")                                                                             \
    X("gpt_oss")

/* Such a family's folder; without an oracle the test is skipped. */
const char *mft_reference_hf(const char *family);

/* The folder's model with activations in float32, a context of 128 and chunks of 16; isa and device
 * as in mf_engine_options. */
void mft_reference_open(mf_engine **engine, mf_session **session, const char *path, const char *isa,
                        const char *device);
double mft_spread(const float *v, size_t n);
double mft_worst(const float *a, const float *b, size_t n); /* the largest difference */

/* Logits, hidden states layer by layer, and greedy continuation. */
void mft_reference_check(const char *folder, const char *isa, const char *device);

#endif
