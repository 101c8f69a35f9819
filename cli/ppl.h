/* The arithmetic of `moeflux perplexity`: what rows of logits say about the tokens that follow, and
 * how far they are from a base's. Sums and their standard errors as llama.cpp has them. */
#ifndef MOEFLUX_CLI_PPL_H
#define MOEFLUX_CLI_PPL_H

#include "base/defs.h"

typedef struct cli_estimate {
    double value, error; /* standard error */
} cli_estimate;

/* Sums over scored tokens. nll: minus the log-probability of the token that came. */
typedef struct cli_ppl {
    uint64_t n;
    double nll, nll2;
    /* With a base: its nll and their product; KL(base || this); dp: probability of the token that
     * came, here less there. */
    double base, base2, both;
    double kld, kld2, dp, dp2, dp4;
    uint64_t n_same_top;
    float *klds, *dps; /* [n] the caller's; may be NULL without a base */
} cli_ppl;

/* The log of the sum of exponentials, and the best token (the lowest id on ties); false if a logit
 * is NaN, or all or the best are infinite. */
bool cli_ppl_log_sum(const float *logits, uint32_t n_vocab, double *log_sum, uint32_t *top);

/* Adds a token. base: a row as in kl_base.h, or NULL. */
void cli_ppl_add(cli_ppl *p, const float *logits, uint32_t n_vocab, double log_sum, uint32_t top,
                 uint32_t next, const uint16_t *base);

/* All of n > 0 tokens. Those about a base are 0 without one. */
typedef struct cli_ppl_figures {
    cli_estimate ppl, base, ratio, log_ratio, difference, kld, dp, rms_dp, same_top;
    double correlation; /* of the logarithms; 0 if one of them doesn't vary */
} cli_ppl_figures;

cli_ppl_figures cli_ppl_figures_of(const cli_ppl *p);

/* Between the neighbours in order; values are sorted, n > 0. */
double cli_quantile(const float *values, size_t n, double fraction);
void cli_sort_floats(float *values, size_t n);

#endif
