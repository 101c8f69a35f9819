/* Choosing experts. One version for all levels: a few hundred logits a token and layer are cheap,
 * and what they decide is discontinuous, so it should not differ between levels more than it must.
 */
#include "kernels/ref/ref.h"

#include <math.h>

#include "base/limits.h"

void mfi_ref_route_softmax(const float *logits, uint32_t n, uint32_t top_k, bool normalize,
                           uint16_t *ids, float *weights)
{
    float p[MFI_MAX_EXPERTS], max = -INFINITY, sum = 0, sum_chosen = 0;
    MFI_ASSERT(n <= MFI_MAX_EXPERTS && top_k <= n && top_k <= MFI_MAX_TOP_K);
    for (uint32_t i = 0; i < n; i++)
        max = MFI_MAX(max, logits[i]);
    for (uint32_t i = 0; i < n; i++) {
        p[i] = expf(logits[i] - max);
        sum += p[i];
    }
    /* Insertion into a short sorted list. An element passes only what is smaller, so the earlier of
     * two equal ones stays ahead; a NaN passes nothing, and is passed by nothing but room. */
    uint32_t n_chosen = 0;
    for (uint32_t i = 0; i < n; i++) {
        float weight = p[i] / sum;
        if (n_chosen == top_k && !(weight > weights[top_k - 1]))
            continue;
        uint32_t at = n_chosen < top_k ? n_chosen++ : top_k - 1;
        for (; at > 0 && weight > weights[at - 1]; at--) {
            weights[at] = weights[at - 1];
            ids[at] = ids[at - 1];
        }
        weights[at] = weight;
        ids[at] = (uint16_t)i;
    }
    if (!normalize)
        return;
    for (uint32_t i = 0; i < top_k; i++)
        sum_chosen += weights[i];
    for (uint32_t i = 0; i < top_k; i++)
        weights[i] /= sum_chosen;
}
