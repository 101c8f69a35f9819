/* Watching an engine from other threads: see the part "watching" of moeflux.h. Owns a ring of the
 * last evaluations, which the engine's thread fills at the end of each run of the forward pass, and
 * has the experts' places and choices watched (experts/watch.h). The engine's thread waits for
 * nobody; who reads copies, and drops what was overwritten meanwhile. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "engine_int.h"
#include "session/session.h"

#define N_WORDS (sizeof(mf_evaluation) / sizeof(uint64_t))

struct mfi_engine_watch {
    mfi_watch *experts;
    const mfi_plan *plan;
    const mfi_store *store, *host_store; /* host_store: NULL without a device */
    bool copies;                         /* its reads are copies to a device */
    mfi_store_stats before, host_before;
    uint64_t end_ns; /* of the evaluation before; 0: there was none */
    _Atomic uint64_t n_stored;
    _Atomic uint64_t ring[MFI_WATCH_EVALUATIONS][N_WORDS];
};

_Static_assert(sizeof(mf_evaluation) % sizeof(uint64_t) == 0, "an evaluation is words");

uint64_t mfi_engine_watch_bytes(const mfi_shape *shape)
{
    return sizeof(mfi_engine_watch) +
           mfi_watch_bytes(shape->n_layers, shape->n_experts, shape->top_k);
}

mf_status mfi_engine_watch_open(mfi_engine_watch **out, const mfi_plan *plan, mf_error *err)
{
    const mfi_shape *s = &plan->program.shape;
    mfi_watch_config config = {s->n_layers, s->n_experts, s->top_k,
                               plan->expert_bytes_total / plan->n_experts_total};
    mfi_engine_watch *w = calloc(1, sizeof *w);
    if (!w)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory to watch the engine");
    w->plan = plan;
    mf_status status = mfi_watch_open(&w->experts, &config, err);
    if (status != MF_OK) {
        free(w);
        return status;
    }
    *out = w;
    return MF_OK;
}

void mfi_engine_watch_close(mfi_engine_watch **watch)
{
    if (!*watch)
        return;
    mfi_watch_close(&(*watch)->experts);
    free(*watch);
    *watch = NULL;
}

mfi_watch *mfi_engine_watch_experts(mfi_engine_watch *w)
{
    return w->experts;
}

void mfi_engine_watch_begin(mfi_engine_watch *w, const mfi_store *store, bool copies,
                            const mfi_store *host_store)
{
    w->store = store;
    w->copies = copies;
    w->host_store = host_store;
    mfi_store_stats_get(store, &w->before);
    if (host_store)
        mfi_store_stats_get(host_store, &w->host_before);
}

/* ---- the engine's thread ---- */

/* Counters that were set back since begin from nothing. */
static uint64_t since(uint64_t now, uint64_t before)
{
    return now >= before ? now - before : now;
}

static void store_evaluation(mfi_engine_watch *w, const mf_evaluation *e)
{
    uint64_t words[N_WORDS], at = e->number;
    memcpy(words, e, sizeof words);
    for (size_t i = 0; i < N_WORDS; i++)
        atomic_store_explicit(&w->ring[at % MFI_WATCH_EVALUATIONS][i], words[i],
                              memory_order_release);
    atomic_store_explicit(&w->n_stored, at + 1, memory_order_release);
}

void mfi_engine_watch_run(mfi_engine_watch *w, const mfi_run_facts *run)
{
    mfi_store_stats now, host = {0};
    const mfi_store_stats *was = &w->before;
    mfi_store_stats_get(w->store, &now);
    if (w->host_store)
        mfi_store_stats_get(w->host_store, &host);
    uint64_t stall_ns = since(now.stall_ns, was->stall_ns), known_ns = run->arith_ns + stall_ns;
    uint64_t bytes = since(now.bytes_read, was->bytes_read);
    mf_evaluation e = {.number = atomic_load_explicit(&w->n_stored, memory_order_relaxed),
                       .pos = run->pos,
                       .n_tokens = run->n_tok,
                       .n_sequences = run->n_seqs,
                       .begin_ns = run->begin_ns,
                       .between_ns = w->end_ns ? run->begin_ns - w->end_ns : 0,
                       .wall_ns = run->wall_ns,
                       .arithmetic_ns = run->arith_ns,
                       .experts_ns = run->experts_ns,
                       .stall_ns = stall_ns,
                       .other_ns = run->wall_ns > known_ns ? run->wall_ns - known_ns : 0,
                       .hits = since(now.hits, was->hits),
                       .misses = since(now.misses, was->misses),
                       .evictions = since(now.evictions, was->evictions),
                       .bytes_read =
                           w->copies ? since(host.bytes_read, w->host_before.bytes_read) : bytes,
                       .bytes_copied = w->copies ? bytes : 0,
                       .reading_ns = w->copies ? since(host.reading_ns, w->host_before.reading_ns)
                                               : since(now.reading_ns, was->reading_ns),
                       .hint_bytes = since(now.hint_bytes, was->hint_bytes),
                       .hints_useful = since(now.hints_useful, was->hints_useful),
                       .hints_late = since(now.hints_late, was->hints_late),
                       .hints_wasted = since(now.hints_wasted, was->hints_wasted),
                       .hints_dropped = since(now.hints_dropped, was->hints_dropped)};
    store_evaluation(w, &e);
    w->before = now;
    w->host_before = host;
    w->end_ns = run->begin_ns + run->wall_ns;
}

/* ---- any thread ---- */

size_t mf_engine_evaluations(const mf_engine *engine, mf_evaluation *list, size_t n_max)
{
    const mfi_engine_watch *w = mfi_engine_watch_of(engine);
    if (!w)
        return 0;
    uint64_t end = atomic_load_explicit(&w->n_stored, memory_order_acquire), words[N_WORDS];
    size_t n = MFI_MIN(MFI_MIN(n_max, (size_t)MFI_WATCH_EVALUATIONS), (size_t)end);
    for (size_t k = 0; k < n; k++) {
        uint64_t at = end - n + k;
        for (size_t i = 0; i < N_WORDS; i++)
            words[i] =
                atomic_load_explicit(&w->ring[at % MFI_WATCH_EVALUATIONS][i], memory_order_acquire);
        memcpy(&list[k], words, sizeof words);
    }
    /* What was overwritten meanwhile, or is being. */
    uint64_t good = atomic_load_explicit(&w->n_stored, memory_order_acquire) + 1;
    size_t old = 0;
    while (old < n && end - n + old + MFI_WATCH_EVALUATIONS < good)
        old++;
    memmove(list, list + old, (n - old) * sizeof *list);
    return n - old;
}

static mf_expert_tier tier_of(const mfi_engine_watch *w, uint32_t layer, uint32_t expert)
{
    mfi_place device = mfi_watch_place(w->experts, true, layer, expert);
    mfi_place host = mfi_watch_place(w->experts, false, layer, expert);
    if (w->plan->program.experts[layer].bytes == 0)
        return MF_EXPERT_ABSENT;
    if (device == MFI_PLACE_READY)
        return MF_EXPERT_DEVICE;
    if (host == MFI_PLACE_READY || w->plan->in_place.experts)
        return MF_EXPERT_HOST;
    return device == MFI_PLACE_LOADING || host == MFI_PLACE_LOADING ? MF_EXPERT_LOADING
                                                                    : MF_EXPERT_DRIVE;
}

static mf_status watched(const mf_engine *engine, const mfi_engine_watch **w, mf_error *err)
{
    *w = mfi_engine_watch_of(engine);
    return *w ? MF_OK : mfi_fail(err, MF_ERR_STATE, "the engine was not opened to be watched");
}

mf_status mf_engine_experts(const mf_engine *engine, uint8_t *tiers, float *use, mf_error *err)
{
    const mfi_engine_watch *w;
    MFI_TRY(watched(engine, &w, err));
    uint32_t n_layers = w->plan->program.shape.n_layers, n = w->plan->program.shape.n_experts;
    MFI_TRY(mfi_watch_use(w->experts, use, err));
    for (uint32_t layer = 0; layer < n_layers; layer++)
        for (uint32_t e = 0; e < n; e++)
            tiers[(size_t)layer * n + e] = (uint8_t)tier_of(w, layer, e);
    return MF_OK;
}

mf_status mfi_engine_replay(const mf_engine *engine, mfi_replay *replay, mf_error *err)
{
    const mfi_engine_watch *w;
    MFI_TRY(watched(engine, &w, err));
    return mfi_watch_replay(w->experts, replay, err);
}
