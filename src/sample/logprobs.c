/* Log-probabilities; see moeflux.h. Called by generating, and by whoever evaluates a prompt for
 * them, on their threads; has no state.
 * log softmax(x)_i = x_i - max(x) - log(sum_k exp(x_k - max(x))), summed up in double of terms in
 * float, which keeps the logarithm of the sum to 2e-7: less than what a float's logarithm is
 * rounded by. A vocabulary of 150,000 is gone through for each token, so the loops are written for
 * the compiler to make vectors of. */
#include <math.h>
#include <string.h>

#include "base/defs.h"
#include "moeflux/moeflux.h"

#define LANES 16
#define BLOCK 128u

/* Puts a logit at its place among the n best so far, of at most n_top. */
static size_t insert(mf_token_logprob *top, size_t n, size_t n_top, mf_token_logprob one)
{
    if (n == n_top) {
        if (!n || !(one.logprob > top[n - 1].logprob))
            return n;
        n--;
    }
    size_t at = n;
    for (; at && one.logprob > top[at - 1].logprob; at--)
        top[at] = top[at - 1];
    top[at] = one;
    return n + 1;
}

/* max(v), NaN left out; -INFINITY for none. */
static float max_of(const float *v, uint32_t n)
{
    float best[LANES], most = -INFINITY;
    for (uint32_t j = 0; j < LANES; j++)
        best[j] = -INFINITY;
    uint32_t i = 0;
    for (; n - i >= LANES; i += LANES)
        for (uint32_t j = 0; j < LANES; j++)
            best[j] = v[i + j] > best[j] ? v[i + j] : best[j];
    for (; i < n; i++)
        most = v[i] > most ? v[i] : most;
    for (uint32_t j = 0; j < LANES; j++)
        most = best[j] > most ? best[j] : most;
    return most;
}

/* Fills top with the best of the logits; returns how many. Whole blocks are passed by that have
 * nothing better than the last of them. */
static size_t best_of(const float *v, uint32_t n, mf_token_logprob *top, size_t n_top)
{
    size_t found = 0;
    for (uint32_t at = 0; n_top && at < n; at += BLOCK) {
        uint32_t end = MFI_MIN(at + BLOCK, n);
        if (found == n_top && !(max_of(v + at, end - at) > top[n_top - 1].logprob))
            continue;
        for (uint32_t i = at; i < end; i++)
            if (!isnan(v[i]))
                found = insert(top, found, n_top, (mf_token_logprob){(int32_t)i, v[i]});
    }
    return found;
}

/* exp(x) for -87 <= x <= 0, 2 ulp off at most. exp(x) = 2^k exp(r), k = round(x / ln 2), |r| <=
 * ln 2 / 2, exp(r) by its Taylor polynomial of degree 7. */
static inline float exp_of(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: to add it is to round to a whole number */
    float shifted = x * 1.44269504f + magic, k = shifted - magic;
    float r = x - k * 0.693359375f + k * 2.12194440e-4f; /* ln 2 in two parts */
    float y = 1 / 5040.0f;
    y = y * r + 1 / 720.0f;
    y = y * r + 1 / 120.0f;
    y = y * r + 1 / 24.0f;
    y = y * r + 1 / 6.0f;
    y = y * r + 0.5f;
    y = y * r + 1;
    y = y * r + 1;
    uint32_t bits;
    float scale;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23; /* the last bits of the sum are k */
    memcpy(&scale, &bits, sizeof scale);
    return y * scale;
}

/* What is below -87, and NaN, counts as exp(-87): nothing beside the 1 that every sum has. */
static double sum_of(const float *v, uint32_t n, float best)
{
    double sum[4] = {0};
    for (uint32_t at = 0; at < n; at += BLOCK) {
        uint32_t len = MFI_MIN(BLOCK, n - at);
        float e[BLOCK];
        for (uint32_t j = 0; j < BLOCK; j++)
            e[j] = -87.0f;
        for (uint32_t j = 0; j < len; j++)
            e[j] = v[at + j] - best > e[j] ? v[at + j] - best : e[j];
        for (uint32_t j = 0; j < BLOCK; j++)
            e[j] = exp_of(e[j]);
        for (uint32_t j = 0; j < BLOCK; j += 4)
            for (uint32_t lane = 0; lane < 4; lane++)
                sum[lane] += (double)e[j + lane];
    }
    return sum[0] + sum[1] + sum[2] + sum[3];
}

/* Where the best is infinite there are no differences to sum up: tokens at plus infinity share all
 * of it, and where nothing is above minus infinity nothing can come. */
static double infinite_rest(const float *v, uint32_t n, float best)
{
    uint32_t sharing = 0;
    for (uint32_t i = 0; i < n; i++)
        sharing += v[i] == best;
    return best > 0 ? log(sharing) : INFINITY;
}

static float logprob_of(float logit, float best, double rest)
{
    if (isnan(logit))
        return -INFINITY;
    if (isinf(best))
        return logit == best ? (float)-rest : -INFINITY;
    return (float)((double)logit - rest);
}

size_t mf_logprobs(const float *logits, uint32_t n_vocab, int32_t id, mf_token_logprob *chosen,
                   mf_token_logprob *top, size_t n_top)
{
    float best = max_of(logits, n_vocab);
    size_t found = best_of(logits, n_vocab, top, n_top);
    double rest = isinf(best) ? infinite_rest(logits, n_vocab, best)
                              : (double)best + log(sum_of(logits, n_vocab, best));
    for (size_t i = 0; i < found; i++)
        top[i].logprob = logprob_of(top[i].logprob, best, rest);
    *chosen = (mf_token_logprob){id, logprob_of(logits[id], best, rest)};
    return found;
}
