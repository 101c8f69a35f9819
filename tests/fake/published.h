/* Published models, headers only: pieces of the layouts that several have, and the comparison of
 * what a plan counts with what was worked out by hand from the published config.json. */
#ifndef MFT_PUBLISHED_H
#define MFT_PUBLISHED_H

#include "fake/header_model.h"
#include "plan/plan.h"

/* In bytes. KV is float32; vectors (norms, biases, corrections) are widened to float32 when loaded.
 */
typedef struct mft_hand {
    uint64_t expert_bytes;    /* of one, with its biases */
    uint64_t token_bytes;     /* experts that a token chooses, all layers */
    uint64_t experts_bytes;   /* all there are */
    uint64_t dense_bytes;     /* resident */
    uint64_t kv_bytes;        /* of a position, all layers that keep every one */
    uint64_t window_kv_bytes; /* of a position, all layers with a window */
    uint64_t window;          /* in positions */
    uint64_t state_bytes;     /* recurrent, of a sequence */
} mft_hand;

/* KV of a context computed in chunks. */
uint64_t mft_kv_by_hand(const mft_hand *hand, uint64_t ctx, uint64_t chunk);

/* A plan on a machine that has memory for every model. */
mf_status mft_published_plan(mfi_plan *plan, const mfi_model *model, mfi_plan_options options,
                             mf_error *err);

/* The model opened; release both. */
mfi_model *mft_published_open(const mft_headers *headers);

/* Its smallest budget, and what the plan counts there, are what the hand says. */
void mft_published_check(const mfi_model *model, const mft_hand *hand);

/* ---- pieces of layouts; "model." before all names ---- */

void mft_add_outside(mft_headers *h, uint32_t n_vocab, uint32_t hidden, bool tied);
/* Both norms and the projections of layer i. */
void mft_add_attention(mft_headers *h, mfi_qtype type, uint32_t i, uint32_t hidden, uint32_t q,
                       uint32_t kv);
void mft_add_qkv_biases(mft_headers *h, uint32_t i, uint32_t q, uint32_t kv);
/* "mlp." + what + gate_proj and so on. */
void mft_add_glu(mft_headers *h, mfi_qtype type, uint32_t i, const char *what, uint32_t width,
                 uint32_t hidden);
/* A router and its experts. */
void mft_add_experts(mft_headers *h, mfi_qtype type, uint32_t i, uint32_t n, uint32_t width,
                     uint32_t hidden);

#endif
