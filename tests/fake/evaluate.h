/* What a model computes, through the public calls, and how far two models are apart. */
#ifndef MFT_EVALUATE_H
#define MFT_EVALUATE_H

#include <stddef.h>
#include <stdint.h>

/* Of the same 24 tokens at every call, ids below the vocabulary's size. */
typedef struct mft_logits {
    float *values; /* [24][n_vocab]; release with free */
    size_t n;
} mft_logits;

mft_logits mft_evaluate(const char *path, uint32_t n_threads);

/* The mean squared difference relative to that of `want` from 0; 0 only for the same bits. */
double mft_nmse(mft_logits got, mft_logits want);

/* The same of the models at two paths. */
double mft_nmse_of(const char *got, const char *want, uint32_t n_threads);

#endif
