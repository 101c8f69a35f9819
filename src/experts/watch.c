/* Watching the experts; see watch.h. Owns the places that stores keep and the ring of choices.
 * Written by the engine's thread alone, read by any; neither waits for the other.
 *
 * The ring: a choice's experts are stored first, then the count of all that were ever stored. Each
 * of them is stored with release, after the count of the choice before; so a reader that sees one
 * of them sees at least that count when it looks again, and knows what was overwritten. */
#include "experts/watch.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#define STEP_BIT 0x80000000u /* the first expert of a choice */

struct mfi_watch {
    mfi_watch_config config;
    size_t n_keys, cap;
    mfi_places *places; /* [2][n_keys]: the host's, a device's */
    _Atomic uint32_t *ring;
    _Atomic uint64_t n_stored;
};

_Static_assert((uint64_t)MFI_MAX_LAYERS *MFI_MAX_EXPERTS < STEP_BIT, "keys leave a bit");
_Static_assert(MFI_WATCH_CHOICES > 2 * MFI_MAX_TOP_K, "a choice doesn't fill the ring");

/* Places for some hundred tokens, as many as there is a use for. */
static size_t ring_cap(uint32_t n_layers, uint32_t top_k)
{
    uint64_t wanted = (uint64_t)n_layers * top_k * MFI_WATCH_TOKENS + 2 * MFI_MAX_TOP_K;
    return (size_t)MFI_MIN(wanted, MFI_WATCH_CHOICES);
}

/* A replay copies the choices and, for the bound, looks ahead from each of them: 4 + 8 bytes for
 * its list, 8 + 16 for the bound. */
#define ANSWER_BYTES 36

uint64_t mfi_watch_bytes(uint32_t n_layers, uint32_t n_experts, uint32_t top_k)
{
    uint64_t keys = (uint64_t)n_layers * n_experts;
    return ring_cap(n_layers, top_k) * (sizeof(uint32_t) + ANSWER_BYTES) +
           keys * (2 * sizeof(mfi_places) + 32) + 64 * MFI_KIB;
}

mf_status mfi_watch_open(mfi_watch **out, const mfi_watch_config *config, mf_error *err)
{
    mfi_watch *w = calloc(1, sizeof *w);
    if (!w)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory to watch experts");
    MFI_ASSERT(config->n_layers <= MFI_MAX_LAYERS && config->n_experts <= MFI_MAX_EXPERTS);
    w->config = *config;
    w->n_keys = (size_t)config->n_layers * config->n_experts;
    w->cap = ring_cap(config->n_layers, config->top_k);
    w->places = calloc(2 * w->n_keys, sizeof *w->places);
    w->ring = calloc(w->cap, sizeof *w->ring);
    if (!w->places || !w->ring) {
        mfi_watch_close(&w);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory to watch %zu experts",
                        (size_t)config->n_layers * config->n_experts);
    }
    *out = w;
    return MF_OK;
}

void mfi_watch_close(mfi_watch **watch)
{
    if (!*watch)
        return;
    free((*watch)->places);
    free((*watch)->ring);
    free(*watch);
    *watch = NULL;
}

mfi_places *mfi_watch_places(mfi_watch *w, bool device)
{
    return w->places + (device ? w->n_keys : 0);
}

void mfi_watch_choice(mfi_watch *w, uint32_t layer, const uint16_t *ids, uint32_t n)
{
    uint64_t n_before = atomic_load_explicit(&w->n_stored, memory_order_relaxed);
    size_t at = (size_t)(n_before % w->cap);
    MFI_ASSERT(layer < w->config.n_layers && n <= MFI_MAX_TOP_K);
    for (uint32_t i = 0; i < n; i++) {
        atomic_store_explicit(&w->ring[at],
                              (layer * w->config.n_experts + ids[i]) | (i ? 0 : STEP_BIT),
                              memory_order_release);
        at = at + 1 == w->cap ? 0 : at + 1;
    }
    atomic_store_explicit(&w->n_stored, n_before + n, memory_order_release);
}

/* ---- reading ---- */

mfi_place mfi_watch_place(const mfi_watch *w, bool device, uint32_t layer, uint32_t expert)
{
    size_t key = (size_t)layer * w->config.n_experts + expert;
    MFI_ASSERT(key < w->n_keys);
    return (mfi_place)atomic_load_explicit(&w->places[(device ? w->n_keys : 0) + key],
                                           memory_order_relaxed);
}

/* Copies the last choices, whole ones, oldest first; *first: where they begin in keys [cap].
 * Returns where they end. */
static size_t copy_ring(const mfi_watch *w, uint32_t *keys, size_t *first)
{
    uint64_t end = atomic_load_explicit(&w->n_stored, memory_order_acquire);
    uint64_t begin = end > w->cap ? end - w->cap : 0;
    size_t n = (size_t)(end - begin), i = 0;
    for (size_t k = 0; k < n; k++)
        keys[k] = atomic_load_explicit(&w->ring[(begin + k) % w->cap], memory_order_acquire);
    /* What was stored meanwhile, and the choice that is being stored. */
    uint64_t good = atomic_load_explicit(&w->n_stored, memory_order_acquire) + MFI_MAX_TOP_K;
    good = good > w->cap ? good - w->cap : 0;
    if (good > begin)
        i = (size_t)MFI_MIN(good - begin, (uint64_t)n);
    while (i < n && !(keys[i] & STEP_BIT))
        i++;
    *first = i;
    return n;
}

/* From the last choice back to the first; w[layer] is what the next one counts. */
static void sum_use(const mfi_watch *w, const uint32_t *keys, size_t first, size_t n, float *use,
                    float *weight, float *total)
{
    const float fade = exp2f(-1.0f / MFI_WATCH_HALF_LIFE);
    for (size_t i = n; i > first; i--) {
        uint32_t key = keys[i - 1] & ~STEP_BIT, layer = key / w->config.n_experts;
        use[key] += weight[layer];
        if (keys[i - 1] & STEP_BIT) {
            total[layer] += weight[layer];
            weight[layer] *= fade;
        }
    }
}

mf_status mfi_watch_use(const mfi_watch *w, float *use, mf_error *err)
{
    uint32_t n_layers = w->config.n_layers, n_experts = w->config.n_experts;
    uint32_t *keys = malloc(w->cap * sizeof *keys);
    float *weight = malloc(2 * n_layers * sizeof *weight), *total = weight + n_layers;
    size_t first;
    if (!keys || !weight) {
        free(keys);
        free(weight);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for %zu choices", w->cap);
    }
    for (size_t i = 0; i < w->n_keys; i++)
        use[i] = 0;
    for (uint32_t i = 0; i < n_layers; i++) {
        weight[i] = 1;
        total[i] = 0;
    }
    size_t n = copy_ring(w, keys, &first);
    sum_use(w, keys, first, n, use, weight, total);
    for (size_t i = 0; i < w->n_keys; i++)
        use[i] = use[i] > 0 ? use[i] / total[i / n_experts] : 0;
    free(keys);
    free(weight);
    return MF_OK;
}

/* As a trace has them: in the order of their numbers within a choice. */
static void make_replay(mfi_replay *r, size_t first, size_t n)
{
    for (size_t i = first; i < n; i++) {
        uint32_t key = r->keys[i] & ~STEP_BIT;
        if (r->keys[i] & STEP_BIT && r->n_keys > 0)
            r->step_end[r->n_steps++] = r->n_keys;
        size_t begin = r->n_steps ? r->step_end[r->n_steps - 1] : 0, at = r->n_keys++;
        for (; at > begin && r->keys[at - 1] > key; at--)
            r->keys[at] = r->keys[at - 1];
        r->keys[at] = key;
    }
    r->step_end[r->n_steps++] = r->n_keys;
    mfi_replay_count_tokens(r);
}

mf_status mfi_watch_replay(const mfi_watch *w, mfi_replay *replay, mf_error *err)
{
    mfi_replay r = {.n_layers = w->config.n_layers,
                    .n_experts = w->config.n_experts,
                    .top_k = w->config.top_k,
                    .expert_bytes = w->config.expert_bytes,
                    .keys = malloc(w->cap * sizeof *r.keys),
                    .step_end = malloc((w->cap + 1) * sizeof *r.step_end)};
    size_t first = 0, n = 0;
    mf_status status = MF_OK;
    if (!r.keys || !r.step_end)
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for %zu choices", w->cap);
    else
        n = copy_ring(w, r.keys, &first);
    if (status == MF_OK && first == n)
        status = mfi_fail(err, MF_ERR_STATE, "no expert was chosen yet");
    if (status != MF_OK) {
        mfi_replay_close(&r);
        return status;
    }
    make_replay(&r, first, n);
    *replay = r;
    return MF_OK;
}
