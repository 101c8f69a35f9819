/* Log-probabilities; see logprobs.h. Called by generating, on its thread; has no state.
 * log softmax(x)_i = x_i - max(x) - log(sum_k exp(x_k - max(x))), summed up in double. */
#include "sample/logprobs.h"

#include <math.h>

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

size_t mfi_logprobs(const float *logits, uint32_t n, int32_t id, mf_token_logprob *chosen,
                    mf_token_logprob *top, size_t n_top)
{
    size_t found = 0;
    float best = -INFINITY;
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (isnan(logits[i]))
            continue;
        best = logits[i] > best ? logits[i] : best;
        found = insert(top, found, n_top, (mf_token_logprob){(int32_t)i, logits[i]});
    }
    for (uint32_t i = 0; i < n; i++)
        if (!isnan(logits[i]))
            sum += exp((double)logits[i] - (double)best);
    double rest = (double)best + log(sum);
    for (size_t i = 0; i < found; i++)
        top[i].logprob = (float)((double)top[i].logprob - rest);
    float own = logits[id];
    *chosen = (mf_token_logprob){id, isnan(own) ? -INFINITY : (float)((double)own - rest)};
    return found;
}
