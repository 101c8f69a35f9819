/* From logits to a token: a pure function of logits, options, history and the generator's state.
 *
 * Order: bias, penalties, mask, then greedy (temperature <= 0: highest logit, lowest id on ties),
 * or top-k, temperature, softmax, top-p, min-p, draw. Ties in the sorted order go to the lower id.
 * The draw is by inverse cumulative sum in that order, so the same seed gives the same tokens
 * everywhere that the logits are the same bits. NaN logits are never chosen. Allocates at open
 * only. */
#ifndef MFI_SAMPLE_SAMPLER_H
#define MFI_SAMPLE_SAMPLER_H

#include "base/rng.h"
#include "base/status.h"

typedef struct mfi_sampler mfi_sampler;

/* Checks and copies the options: MF_ERR_ARGUMENT names the one that is out of range. */
mf_status mfi_sampler_open(mfi_sampler **sampler, const mf_sampling *sampling, uint32_t n_vocab,
                           mf_error *err);
void mfi_sampler_close(mfi_sampler **sampler);

/* Notes a token of the timeline (prompt or answer) for the penalties. */
void mfi_sampler_accept(mfi_sampler *sampler, int32_t id);
/* The next token; does not accept it. logits [n_vocab] are not changed. */
int32_t mfi_sampler_next(mfi_sampler *sampler, const float *logits);
/* The same among the tokens whose bit is set in mask [(n_vocab + 31) / 32]: others are none of the
 * top k. -1 if none of them can be drawn. */
int32_t mfi_sampler_next_of(mfi_sampler *sampler, const float *logits, const uint32_t *mask);

/* Index of the largest value, the lowest on ties, NaN never; 0 if all are NaN. */
uint32_t mfi_argmax(const float *v, uint32_t n);

#endif
