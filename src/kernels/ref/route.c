/* Choosing experts. One version for all levels: a few hundred logits a token and layer are cheap,
 * and what they decide is discontinuous, so it should not differ between levels more than it must.
 */
#include "kernels/ref/ref.h"

#include <math.h>

#include "base/limits.h"

static void softmax(const float *logits, uint32_t n, float *p)
{
    float max = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < n; i++)
        max = MFI_MAX(max, logits[i]);
    for (uint32_t i = 0; i < n; i++) {
        p[i] = expf(logits[i] - max);
        sum += p[i];
    }
    for (uint32_t i = 0; i < n; i++)
        p[i] /= sum;
}

static void score_all(const mfi_routing *r, const float *logits, uint32_t n, float *score)
{
    if (r->score == MFI_SCORE_SOFTMAX)
        softmax(logits, n, score);
    for (uint32_t i = 0; r->score != MFI_SCORE_SOFTMAX && i < n; i++)
        score[i] = r->score == MFI_SCORE_SIGMOID ? mfi_sigmoid(logits[i]) : logits[i];
}

/* A short list, the largest first. An element passes only what is smaller, so the earlier of two
 * equal ones stays ahead; a NaN passes nothing, and is passed by nothing but room. */
typedef struct best {
    float value[MFI_MAX_TOP_K];
    uint16_t *id; /* [most] */
    uint32_t n, most;
} best;

static void consider(best *b, float value, uint32_t id)
{
    if (b->n == b->most && !(value > b->value[b->most - 1]))
        return;
    uint32_t at = b->n < b->most ? b->n++ : b->most - 1;
    for (; at > 0 && value > b->value[at - 1]; at--) {
        b->value[at] = b->value[at - 1];
        b->id[at] = b->id[at - 1];
    }
    b->value[at] = value;
    b->id[at] = (uint16_t)id;
}

/* What the choice goes by. */
static inline float choice(const float *score, const float *correction, uint32_t i)
{
    return correction ? score[i] + correction[i] : score[i];
}

static void choose_groups(const mfi_routing *r, const float *score, const float *correction,
                          uint32_t n, bool *used)
{
    uint32_t size = n / r->n_groups;
    uint16_t groups[MFI_MAX_EXPERT_GROUPS];
    best b = {.id = groups, .most = r->n_groups_used};
    for (uint32_t g = 0; g < r->n_groups; g++) {
        float first = -INFINITY, second = -INFINITY;
        for (uint32_t i = g * size; i < (g + 1) * size; i++) {
            float value = choice(score, correction, i);
            second = value > first ? first : value > second ? value : second;
            first = value > first ? value : first;
        }
        used[g] = false;
        consider(&b, r->group_best > 1 && size > 1 ? first + second : first, g);
    }
    for (uint32_t k = 0; k < b.n; k++)
        used[groups[k]] = true;
}

void mfi_ref_route(const mfi_routing *r, const float *logits, const float *correction, uint32_t n,
                   uint32_t top_k, uint16_t *ids, float *weights)
{
    float score[MFI_MAX_EXPERTS];
    uint32_t n_groups = MFI_MAX(r->n_groups, 1), size = n / n_groups;
    bool used[MFI_MAX_EXPERT_GROUPS] = {true};
    best b = {.id = ids, .most = top_k};
    MFI_ASSERT(n <= MFI_MAX_EXPERTS && top_k <= n && top_k <= MFI_MAX_TOP_K);
    MFI_ASSERT(n_groups == 1 || (n_groups <= MFI_MAX_EXPERT_GROUPS && size * n_groups == n &&
                                 r->n_groups_used <= n_groups && size * r->n_groups_used >= top_k));
    score_all(r, logits, n, score);
    if (n_groups > 1)
        choose_groups(r, score, correction, n, used);
    for (uint32_t i = 0; i < n; i++)
        if (used[i / size])
            consider(&b, choice(score, correction, i), i);
    for (uint32_t k = 0; k < top_k; k++)
        weights[k] = score[ids[k]];
    if (r->score == MFI_SCORE_SOFTMAX_CHOSEN)
        softmax(weights, top_k, weights);
    /* Sigmoids can all vanish, a softmax can't: 1e-20 is DeepSeek-V3's guard. */
    float sum = r->score == MFI_SCORE_SIGMOID ? 1e-20f : 0;
    for (uint32_t k = 0; k < top_k; k++)
        sum += weights[k];
    for (uint32_t k = 0; k < top_k; k++)
        weights[k] = (r->normalize ? weights[k] / sum : weights[k]) * r->scale;
}
