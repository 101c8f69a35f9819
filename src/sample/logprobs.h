/* How likely a token was: the logarithm of the softmax of unchanged logits. */
#ifndef MFI_SAMPLE_LOGPROBS_H
#define MFI_SAMPLE_LOGPROBS_H

#include "base/defs.h"
#include "moeflux/moeflux.h"

/* Fills top with the n_top most likely of logits [n], best first, the lower id on ties, and *chosen
 * with token `id`; returns how many of top there are. NaN logits count as -INFINITY and are never
 * among the best. Allocates nothing. */
size_t mfi_logprobs(const float *logits, uint32_t n, int32_t id, mf_token_logprob *chosen,
                    mf_token_logprob *top, size_t n_top);

#endif
