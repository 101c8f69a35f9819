/* From logits to a token; see sampler.h.
 *
 * Owns the copied options, the generator's state, the counts of the penalty window and the scratch
 * for one draw. Called by a session on its thread. Allocates at open only, reads no clock, and
 * knows neither model nor tokenizer.
 *
 * The candidates are a heap that is popped best first, only as far as the draw needs it: sorting a
 * vocabulary of 248,000 for every token would cost more than all the rest here. Probabilities are
 * weights exp((logit - best) / temperature) in double, not normalised: everything is relative to
 * the sum of those that top-k left. */
#include "sample/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"

#define LANES 16
#define BLOCK 256 /* values that are looked at together */

typedef struct candidate {
    float logit;
    int32_t id;
} candidate;

struct mfi_sampler {
    mf_sampling opt; /* opt.bias points at our copy */
    uint32_t n_vocab;
    mfi_rng rng;
    float *logits;     /* [n_vocab]: after bias and penalties, where there are any */
    candidate *heap;   /* [n_vocab] */
    uint32_t *counts;  /* [n_vocab]: occurrences in the window */
    int32_t *window;   /* ring of the last repeat_last_n tokens; NULL if that is -1 or 0 */
    uint32_t n_window; /* filled */
    uint32_t next;     /* the oldest once it is full */
};

void mf_sampling_default(mf_sampling *sampling)
{
    *sampling = (mf_sampling){
        .struct_size = sizeof *sampling,
        .temperature = 0.8f,
        .top_k = 40,
        .top_p = 0.95f,
        .min_p = 0.05f,
        .repeat_penalty = 1.0f,
        .repeat_last_n = 64,
    };
}

static mf_status check_bias(const mf_sampling *s, uint32_t n_vocab, mf_error *err)
{
    if (s->n_bias && !s->bias)
        return mfi_fail(err, MF_ERR_ARGUMENT, "bias: %zu entries but no list", s->n_bias);
    if (s->n_bias > MFI_MAX_VOCAB)
        return mfi_fail(err, MF_ERR_ARGUMENT, "bias: %zu entries; at most %u are accepted",
                        s->n_bias, MFI_MAX_VOCAB);
    for (size_t i = 0; i < s->n_bias; i++) {
        if (s->bias[i].id < 0 || (uint32_t)s->bias[i].id >= n_vocab)
            return mfi_fail(err, MF_ERR_ARGUMENT, "bias: token %d is not in a vocabulary of %u",
                            s->bias[i].id, n_vocab);
        if (isnan(s->bias[i].bias) || s->bias[i].bias == INFINITY)
            return mfi_fail(err, MF_ERR_ARGUMENT,
                            "bias: %g for token %d is neither finite nor minus infinity",
                            (double)s->bias[i].bias, s->bias[i].id);
    }
    return MF_OK;
}

static mf_status check_options(const mf_sampling *s, uint32_t n_vocab, mf_error *err)
{
    if (s->struct_size != sizeof *s)
        return mfi_fail(err, MF_ERR_ARGUMENT, "struct_size: sampling options of another version");
    if (n_vocab == 0 || n_vocab > MFI_MAX_VOCAB)
        return mfi_fail(err, MF_ERR_ARGUMENT, "n_vocab: %u is not between 1 and %u", n_vocab,
                        MFI_MAX_VOCAB);
    if (!isfinite(s->temperature))
        return mfi_fail(err, MF_ERR_ARGUMENT, "temperature: must be finite");
    if (s->top_k < 0)
        return mfi_fail(err, MF_ERR_ARGUMENT, "top_k: %d is negative (0 is off)", s->top_k);
    /* Written so that NaN fails. */
    if (!(s->top_p >= 0 && s->top_p <= 1))
        return mfi_fail(err, MF_ERR_ARGUMENT, "top_p: %g is not between 0 and 1", (double)s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1))
        return mfi_fail(err, MF_ERR_ARGUMENT, "min_p: %g is not between 0 and 1", (double)s->min_p);
    if (!(s->repeat_penalty > 0) || !isfinite(s->repeat_penalty))
        return mfi_fail(err, MF_ERR_ARGUMENT, "repeat_penalty: %g is not above 0 (1 is off)",
                        (double)s->repeat_penalty);
    if (!isfinite(s->presence_penalty))
        return mfi_fail(err, MF_ERR_ARGUMENT, "presence_penalty: must be finite");
    if (!isfinite(s->frequency_penalty))
        return mfi_fail(err, MF_ERR_ARGUMENT, "frequency_penalty: must be finite");
    if (s->repeat_last_n < -1 || s->repeat_last_n > MFI_MAX_REPEAT_LAST_N)
        return mfi_fail(err, MF_ERR_ARGUMENT, "repeat_last_n: %d is not between -1 (all) and %d",
                        s->repeat_last_n, MFI_MAX_REPEAT_LAST_N);
    return check_bias(s, n_vocab, err);
}

mf_status mfi_sampler_open(mfi_sampler **sampler, const mf_sampling *sampling, uint32_t n_vocab,
                           mf_error *err)
{
    MFI_TRY(check_options(sampling, n_vocab, err));
    mfi_sampler *s = calloc(1, sizeof *s);
    if (!s)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a sampler");
    s->opt = *sampling;
    s->opt.bias = NULL;
    s->n_vocab = n_vocab;
    s->rng.state = sampling->seed;
    s->logits = malloc(n_vocab * sizeof *s->logits);
    s->heap = malloc(n_vocab * sizeof *s->heap);
    s->counts = calloc(n_vocab, sizeof *s->counts);
    bool ok = s->logits && s->heap && s->counts;
    if (sampling->repeat_last_n > 0) {
        s->window = malloc((size_t)sampling->repeat_last_n * sizeof *s->window);
        ok = ok && s->window;
    }
    if (sampling->n_bias) {
        mf_logit_bias *bias = malloc(sampling->n_bias * sizeof *bias);
        ok = ok && bias;
        if (bias)
            memcpy(bias, sampling->bias, sampling->n_bias * sizeof *bias);
        s->opt.bias = bias;
    }
    if (!ok) {
        mfi_sampler_close(&s);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a sampler over %u tokens", n_vocab);
    }
    *sampler = s;
    return MF_OK;
}

void mfi_sampler_close(mfi_sampler **sampler)
{
    mfi_sampler *s = *sampler;
    if (!s)
        return;
    free(s->logits);
    free(s->heap);
    free(s->counts);
    free(s->window);
    free((void *)s->opt.bias);
    free(s);
    *sampler = NULL;
}

void mfi_sampler_accept(mfi_sampler *s, int32_t id)
{
    MFI_ASSERT(id >= 0 && (uint32_t)id < s->n_vocab);
    if (s->opt.repeat_last_n == 0)
        return;
    if (s->window) {
        uint32_t size = (uint32_t)s->opt.repeat_last_n;
        if (s->n_window == size)
            s->counts[s->window[s->next]]--;
        else
            s->n_window++;
        s->window[s->next] = id;
        s->next = s->next + 1 == size ? 0 : s->next + 1;
    }
    s->counts[id]++;
}

/* The largest of BLOCK values, in lanes that compilers keep in registers; a NaN is larger than
 * none, -INFINITY if all are. */
static float block_max(const float *v)
{
    float most[LANES];
    for (uint32_t j = 0; j < LANES; j++)
        most[j] = -INFINITY;
    for (uint32_t i = 0; i < BLOCK; i += LANES)
        for (uint32_t j = 0; j < LANES; j++)
            most[j] = v[i + j] > most[j] ? v[i + j] : most[j];
    for (uint32_t n = LANES / 2; n > 0; n /= 2)
        for (uint32_t j = 0; j < n; j++)
            most[j] = most[j + n] > most[j] ? most[j + n] : most[j];
    return most[0];
}

uint32_t mfi_argmax(const float *v, uint32_t n)
{
    uint32_t at = 0, end = n - n % BLOCK;
    float best = -INFINITY;
    for (uint32_t i = 0; i < end; i += BLOCK) {
        float most = block_max(v + i);
        at = most > best ? i : at;
        best = most > best ? most : best;
    }
    for (uint32_t i = end; i < n; i++) {
        at = v[i] > best ? i : at;
        best = v[i] > best ? v[i] : best;
    }
    while (at < n && !(v[at] == best))
        at++;
    return at < n ? at : 0;
}

/* Whether logits are drawn from as they come. */
static bool unadjusted(const mfi_sampler *s)
{
    return s->opt.n_bias == 0 && s->opt.repeat_penalty == 1 && s->opt.presence_penalty == 0 &&
           s->opt.frequency_penalty == 0;
}

static void adjust(mfi_sampler *s, const float *logits)
{
    memcpy(s->logits, logits, s->n_vocab * sizeof *logits);
    for (size_t i = 0; i < s->opt.n_bias; i++)
        s->logits[s->opt.bias[i].id] += s->opt.bias[i].bias;
    float repeat = s->opt.repeat_penalty;
    float presence = s->opt.presence_penalty, frequency = s->opt.frequency_penalty;
    if (repeat == 1 && presence == 0 && frequency == 0)
        return;
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        if (!s->counts[i])
            continue;
        /* Dividing a negative logit would raise it. */
        float l = s->logits[i];
        l = l > 0 ? l / repeat : l * repeat;
        s->logits[i] = l - (float)s->counts[i] * frequency - presence;
    }
}

/* The order of candidates: higher logit first, lower id on ties. A total order: no NaN comes here.
 */
static bool before(candidate a, candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/* Restores the heap below `at`. best: the first in order is on top, otherwise the last. */
static void sift_down(candidate *heap, uint32_t n, uint32_t at, bool best)
{
    candidate moved = heap[at];
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= n)
            break;
        if (child + 1 < n && before(heap[child + 1], heap[child]) == best)
            child++;
        if (before(heap[child], moved) != best)
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

static void heapify(candidate *heap, uint32_t n, bool best)
{
    for (uint32_t i = n / 2; i-- > 0;)
        sift_down(heap, n, i, best);
}

/* Takes a candidate among the k best, of which the heap has n; returns how many it has then. Once
 * they are k the last of them is on top. */
static uint32_t offer(mfi_sampler *s, candidate c, uint32_t n, uint32_t k)
{
    if (!(c.logit > -INFINITY))
        return n;
    if (n < k) {
        s->heap[n++] = c;
        if (n == k && k < s->n_vocab)
            heapify(s->heap, n, false);
    } else if (c.logit > s->heap[0].logit) { /* equal loses: its id is higher */
        s->heap[0] = c;
        sift_down(s->heap, n, 0, false);
    }
    return n;
}

/* Fills the heap with the top_k candidates (all if 0), best on top; returns how many. Tokens that
 * can't be drawn (NaN, minus infinity) are none. */
static uint32_t gather(mfi_sampler *s, const float *logits)
{
    uint32_t k = s->opt.top_k ? MFI_MIN((uint32_t)s->opt.top_k, s->n_vocab) : s->n_vocab;
    uint32_t n = 0;
    for (uint32_t at = 0; at < s->n_vocab; at += BLOCK) {
        uint32_t end = MFI_MIN(at + BLOCK, s->n_vocab);
        /* Once there are k, nearly all blocks have none that comes in. */
        if (n == k && end - at == BLOCK && !(block_max(logits + at) > s->heap[0].logit))
            continue;
        for (uint32_t i = at; i < end; i++)
            n = offer(s, (candidate){logits[i], (int32_t)i}, n, k);
    }
    heapify(s->heap, n, true);
    return n;
}

static double weight(const mfi_sampler *s, float logit, float best)
{
    if (logit == best) /* also where both are infinite */
        return 1;
    return exp(((double)logit - (double)best) / (double)s->opt.temperature);
}

/* Moves the best of the first n to heap[n - 1]. */
static candidate pop(candidate *heap, uint32_t n)
{
    candidate top = heap[0];
    heap[0] = heap[n - 1];
    heap[n - 1] = top;
    sift_down(heap, n - 1, 0, true);
    return top;
}

/* Pops candidates until top-p is reached or min-p fails; returns the number popped and their sum.
 * At least one stays. */
static uint32_t nucleus(mfi_sampler *s, uint32_t n, float best, double *kept)
{
    double total = 0, sum = 0;
    for (uint32_t i = 0; i < n; i++)
        total += weight(s, s->heap[i].logit, best);
    uint32_t m = 0;
    while (m < n && (m == 0 || sum < (double)s->opt.top_p * total)) {
        double w = weight(s, s->heap[0].logit, best);
        if (w < (double)s->opt.min_p)
            break;
        pop(s->heap, n - m++);
        sum += w;
    }
    *kept = sum;
    return m;
}

/* The same without top-p: which candidates stay needs no order, so none is popped yet. */
static double min_p_sum(const mfi_sampler *s, uint32_t n, float best)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        double w = weight(s, s->heap[i].logit, best);
        sum += w < (double)s->opt.min_p ? 0 : w;
    }
    return sum;
}

static int32_t draw(mfi_sampler *s, uint32_t n)
{
    float best = s->heap[0].logit;
    double kept;
    uint32_t popped = 0;
    if (s->opt.top_p < 1)
        popped = nucleus(s, n, best, &kept);
    else
        kept = min_p_sum(s, n, best);
    double target = mfi_rng_unit(&s->rng) * kept;
    double sum = 0;
    candidate last = {0};
    for (uint32_t i = 0; i < (popped ? popped : n); i++) {
        candidate c = popped ? s->heap[n - 1 - i] : pop(s->heap, n - i);
        double w = weight(s, c.logit, best);
        /* Rounding may leave the target just above the sum of all: the last that counts wins. */
        if (i > 0 && (w < (double)s->opt.min_p || w == 0))
            break;
        last = c;
        sum += w;
        if (sum > target)
            break;
    }
    return last.id;
}

static int32_t choose(mfi_sampler *s, const float *logits)
{
    uint32_t n = s->opt.temperature > 0 ? gather(s, logits) : 0;
    if (n == 0) /* greedy, or nothing can be drawn */
        return (int32_t)mfi_argmax(logits, s->n_vocab);
    return draw(s, n);
}

int32_t mfi_sampler_next(mfi_sampler *s, const float *logits)
{
    if (unadjusted(s))
        return choose(s, logits);
    adjust(s, logits);
    return choose(s, s->logits);
}

int32_t mfi_sampler_next_of(mfi_sampler *s, const float *logits, const uint32_t *mask)
{
    adjust(s, logits);
    for (uint32_t i = 0; i < s->n_vocab; i++)
        if (!(mask[i >> 5] >> (i & 31) & 1))
            s->logits[i] = -INFINITY;
    int32_t id = choose(s, s->logits);
    return s->logits[id] > -INFINITY ? id : -1;
}
