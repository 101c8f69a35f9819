/* The forward pass; see forward.h. Runs on the engine's thread. Expert outputs land in a row of
 * their own for every (token, rank) and are summed in rank order by the program, so that what is
 * cached and when reads finish never reaches the arithmetic. */
#include "forward/forward_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "op/op_bytes.h"

/* Pairs that are computed in one go while reads are under way: a reader without threads goes on
 * only as far as it is asked (io.h), and slots come free as their experts are done. */
#define PAIRS_BETWEEN_POLLS 32
/* Choices for each expert of a layer from which on a step wants nearly all of them: 98 % if every
 * token draws anew. */
#define CHOICES_MANY 4
#define TOKENS_AHEAD 32

/* ---- experts that a device still reads ---- */

mf_status mfi_forward_reclaim(mfi_forward *f, bool wait, mf_error *err)
{
    uint64_t n_passed = 0;
    if (f->n_deferred == 0)
        return MF_OK;
    MFI_TRY(f->backend->device->unified->passed(
        f->backend, wait ? f->deferred[f->first_deferred].ticket : 0, &n_passed, err));
    while (f->n_deferred > 0 && f->deferred[f->first_deferred].ticket <= n_passed) {
        mfi_store_release(f->store, &f->deferred[f->first_deferred].ref, 1);
        f->first_deferred = (f->first_deferred + 1) % f->n_held_max;
        f->n_deferred--;
    }
    return MF_OK;
}

/* After a failure, and at the end: all of them, when nothing runs any more. */
static void drop_deferred(mfi_forward *f)
{
    if (f->deferred)
        (void)f->backend->sync(f->backend, NULL);
    for (; f->n_deferred > 0; f->n_deferred--) {
        mfi_store_release(f->store, &f->deferred[f->first_deferred].ref, 1);
        f->first_deferred = (f->first_deferred + 1) % f->n_held_max;
    }
}

mf_status mfi_forward_open(mfi_forward **forward, const mfi_plan *plan, mfi_backend *backend,
                           mfi_store *store, mf_error *err)
{
    const mfi_shape *s = &plan->program.shape;
    size_t pairs = (size_t)plan->chunk * s->top_k, experts = s->n_experts;
    mfi_forward *f = calloc(1, sizeof *f);
    if (!f)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the forward pass");
    *f = (mfi_forward){.plan = plan,
                       .p = &plan->program,
                       .backend = backend,
                       .store = store,
                       .n_held_max = mfi_plan_held_max(plan)};
    f->pairs = calloc(pairs, sizeof *f->pairs);
    f->pair_of = calloc(pairs, sizeof *f->pair_of);
    f->count = calloc(experts, sizeof *f->count);
    f->first = calloc(experts, sizeof *f->first);
    f->wanted = calloc(experts, sizeof *f->wanted);
    f->refs = calloc(f->n_held_max, sizeof *f->refs);
    f->work = calloc(f->n_held_max, sizeof *f->work);
    if (backend->device && backend->device->unified)
        f->deferred = calloc(f->n_held_max, sizeof *f->deferred);
    f->score = calloc(experts, sizeof *f->score);
    f->tokens = calloc(plan->chunk, sizeof *f->tokens);
    f->seq_of = calloc(plan->chunk, sizeof *f->seq_of);
    f->head_rows = calloc(plan->chunk, sizeof *f->head_rows);
    f->seqs = calloc(plan->n_sessions, sizeof *f->seqs);
    if (!f->pairs || !f->pair_of || !f->count || !f->first || !f->wanted || !f->refs || !f->work ||
        (!f->deferred && backend->device && backend->device->unified) || !f->score || !f->tokens ||
        !f->seq_of || !f->head_rows || !f->seqs) {
        mfi_forward_close(&f);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the lists of %zu choices", pairs);
    }
    mfi_forward_look_open(f);
    *forward = f;
    return MF_OK;
}

void mfi_forward_close(mfi_forward **forward)
{
    mfi_forward *f = *forward;
    if (!f)
        return;
    drop_deferred(f);
    mfi_forward_look_close(f);
    free(f->found);
    free(f->pairs);
    free(f->pair_of);
    free(f->count);
    free(f->first);
    free(f->wanted);
    free(f->refs);
    free(f->deferred);
    free(f->work);
    free(f->score);
    free(f->tokens);
    free(f->seq_of);
    free(f->head_rows);
    free(f->seqs);
    free(f);
    *forward = NULL;
}

void mfi_forward_read_ahead(mfi_forward *f, uint32_t n)
{
    f->n_ahead = n;
}

void mfi_forward_on_layer(mfi_forward *f, bool (*tick)(void *user, uint32_t n_layers), void *user)
{
    f->tick = tick;
    f->tick_user = user;
}

uint64_t mfi_forward_n_tokens(const mfi_forward *f)
{
    return f->n_tokens;
}

void mfi_forward_n_tokens_reset(mfi_forward *f)
{
    f->n_tokens = f->n_on_cpu = 0;
}

void mfi_forward_tap(mfi_forward *f, mfi_tap_fn tap, void *user)
{
    f->tap = tap;
    f->tap_user = user;
}

void mfi_forward_on_run(mfi_forward *f, mfi_run_fn on_run, void *user)
{
    f->on_run = on_run;
    f->on_run_user = user;
}

void mfi_forward_watch(mfi_forward *f, mfi_watch *watch)
{
    f->watch = watch;
}

void mfi_forward_time_ops(mfi_forward *f, mfi_op_time *times)
{
    f->times = times;
}

/* Runs op i by itself, for those who watch ops; nobody taps the head. */
static mf_status run_watched(mfi_forward *f, uint32_t i, const mfi_step *step, mf_error *err)
{
    uint64_t begin_ns = mfi_clock_ns();
    MFI_TRY(f->backend->run(f->backend, i, 1, step, err));
    MFI_TRY(f->backend->sync(f->backend, err));
    if (f->times) {
        mfi_op_time *t = &f->times[i];
        t->ns += mfi_clock_ns() - begin_ns;
        t->bytes += mfi_op_bytes(f->p, &f->p->ops[i], step);
        t->n_runs++;
    }
    if (f->tap && i < f->p->head_first)
        f->tap(f->tap_user, i, step, f->backend);
    return MF_OK;
}

/* Runs ops [first, first + n): all arithmetic, which is timed here. */
mf_status mfi_forward_ops(mfi_forward *f, uint32_t first, uint32_t n, const mfi_step *step,
                          mf_error *err)
{
    uint64_t begin_ns = mfi_clock_ns();
    bool watched = f->tap || f->times;
    mf_status status = MF_OK;
    if (!watched)
        status = f->backend->run(f->backend, first, n, step, err);
    for (uint32_t i = first; watched && status == MF_OK && i < first + n; i++)
        status = run_watched(f, i, step, err);
    f->arith_ns += mfi_clock_ns() - begin_ns;
    return status;
}

/* Waits for what was run. */
static mf_status sync_ops(mfi_forward *f, mf_error *err)
{
    uint64_t begin_ns = mfi_clock_ns();
    mf_status status = f->backend->sync(f->backend, err);
    f->arith_ns += mfi_clock_ns() - begin_ns;
    return status == MF_OK ? mfi_forward_reclaim(f, false, err) : status;
}

/* ---- routing ---- */

/* Groups the step's choices by expert (counting sort: tokens stay in order within an expert) and
 * lists the experts, cached ones first: they can be computed at once, and using them before
 * anything is read means that no read evicts them first. */
static void group_choices(mfi_forward *f, uint32_t layer, const mfi_step *step, const uint16_t *ids)
{
    uint32_t top_k = f->p->shape.top_k, n_experts = f->p->shape.n_experts;
    memset(f->count, 0, n_experts * sizeof *f->count);
    for (uint32_t i = 0; i < step->n_tok * top_k; i++) {
        MFI_ASSERT(ids[i] < n_experts);
        f->count[ids[i]]++;
    }
    f->n_wanted = 0;
    uint32_t at = 0, n_cached = 0;
    for (uint32_t cached = 2; cached-- > 0;) {
        for (uint32_t e = 0; e < n_experts; e++)
            if (f->count[e] &&
                (f->found || mfi_store_cached(f->store, layer, (uint16_t)e)) == (cached == 1))
                f->wanted[f->n_wanted++] = (uint16_t)e;
        n_cached = cached ? f->n_wanted : n_cached;
    }
    f->cached = n_cached == f->n_wanted;
    for (uint32_t i = 0; i < f->n_wanted; i++) {
        f->first[f->wanted[i]] = at;
        at += f->count[f->wanted[i]];
        f->count[f->wanted[i]] = 0; /* counted up again below */
    }
    for (uint32_t t = 0; t < step->n_tok; t++)
        for (uint32_t r = 0; r < top_k; r++) {
            uint32_t e = ids[t * top_k + r], p = f->first[e] + f->count[e]++;
            f->pairs[p] = (mfi_pair){(uint16_t)t, (uint16_t)r};
            f->pair_of[t * top_k + r] = p;
        }
    f->next = f->n_held = 0;
}

/* ---- looking ahead ---- */

/* Lists the likeliest experts, at most n: each by the tokens that seem to want it, and how much. */
static uint32_t likeliest(mfi_forward *f, const uint16_t *ids, uint32_t n_tok, uint16_t *list,
                          uint32_t n)
{
    uint32_t top_k = f->p->shape.top_k, n_experts = f->p->shape.n_experts, n_listed = 0;
    memset(f->score, 0, n_experts * sizeof *f->score);
    for (uint32_t i = 0; i < n_tok * top_k; i++)
        f->score[ids[i]] += top_k - i % top_k;
    while (n_listed < n) {
        uint32_t best = 0;
        for (uint32_t e = 1; e < n_experts; e++)
            best = f->score[e] > f->score[best] ? e : best;
        if (f->score[best] == 0)
            break;
        f->score[best] = 0;
        list[n_listed++] = (uint16_t)best;
    }
    return n_listed;
}

/* Has the store read ahead what the next layer's router would choose now: its input lacks only this
 * layer's experts and that layer's mixer. Once a layer, when there is nothing better to do. Of many
 * tokens the first few tell well enough what is wanted by somebody. */
static mf_status look_ahead(mfi_forward *f, uint32_t layer, const mfi_step *whole, mf_error *err)
{
    mfi_step few = *whole, *step = &few;
    uint16_t list[MFI_MAX_HINTS + MFI_MAX_TOP_K];
    const mfi_program *p = f->p;
    uint32_t room = mfi_store_hints_room(f->store);
    if (f->looked_ahead || room == 0 || f->tap || layer + 1 == p->shape.n_layers)
        return MF_OK;
    f->looked_ahead = true;
    uint32_t first = p->hint_first[layer + 1], n = p->hint_first[layer + 2] - first;
    if (n == 0)
        return MF_OK;
    /* Some of them are cached, and need no room. */
    uint32_t most = MFI_MIN(room + p->shape.top_k, (uint32_t)MFI_ARRAY_LEN(list));
    if (f->many) {
        step->n_tok = MFI_MIN(step->n_tok, TOKENS_AHEAD);
        most = MFI_ARRAY_LEN(list);
    }
    MFI_TRY(mfi_forward_ops(f, first, n, step, err));
    MFI_TRY(sync_ops(f, err));
    const uint16_t *ids = f->backend->view(f->backend, MFI_BUF_HINTS);
    n = likeliest(f, ids, step->n_tok, list, most);
    mfi_store_hint(f->store, layer + 1, list, n);
    return MF_OK;
}

/* The same ops, with a look after the reader between two of them while it reads ahead. */
static mf_status run_ops_reading(mfi_forward *f, uint32_t first, uint32_t n, const mfi_step *step,
                                 mf_error *err)
{
    if (mfi_store_hints_room(f->store) == 0)
        return mfi_forward_ops(f, first, n, step, err);
    for (uint32_t i = first; i < first + n; i++) {
        MFI_TRY(mfi_store_poll(f->store, NULL, 0, err));
        MFI_TRY(mfi_forward_ops(f, i, 1, step, err));
    }
    return MF_OK;
}

/* ---- experts ---- */

/* Where a device still reads all of them, the first that it is done with is waited for. */
mf_status mfi_forward_acquire(mfi_forward *f, uint32_t layer, mf_error *err)
{
    if (f->next < f->n_wanted)
        MFI_TRY(mfi_forward_reclaim(f, f->n_held == 0 && f->n_deferred == f->n_held_max, err));
    uint32_t n = MFI_MIN(f->n_wanted - f->next, f->n_held_max - f->n_held - f->n_deferred);
    if (n == 0)
        return MF_OK;
    MFI_TRY(mfi_store_acquire(f->store, layer, f->wanted + f->next, n, f->refs + f->n_held, err));
    f->next += n;
    f->n_held += n;
    return MF_OK;
}

/* Lists held experts that are in memory and moves their references to the front: all of them, or,
 * while others are being read, some. */
static uint32_t list_ready(mfi_forward *f)
{
    uint32_t n = 0, n_pairs = 0, n_ready = 0;
    for (uint32_t i = 0; i < f->n_held; i++)
        n_ready += f->refs[i].ready;
    bool reading = n_ready < f->n_held || f->next < f->n_wanted ||
                   (f->many && mfi_store_hints_reading(f->store));
    for (uint32_t i = 0; i < f->n_held && !(reading && n_pairs >= PAIRS_BETWEEN_POLLS); i++) {
        mfi_expert_ref ref = f->refs[i];
        uint32_t e = ref.expert;
        if (!ref.ready)
            continue;
        f->refs[i] = f->refs[n];
        f->refs[n] = ref;
        f->work[n++] = (mfi_expert_work){mfi_store_data(f->store, &ref), f->first[e], f->count[e]};
        n_pairs += f->count[e];
    }
    return n;
}

static bool all_ready(const mfi_forward *f)
{
    bool all = f->next == f->n_wanted;
    for (uint32_t i = 0; i < f->n_held; i++)
        all &= f->refs[i].ready;
    return all;
}

/* Gives back the first n references, whose experts were computed; where a device reads slots in
 * place, when it has. */
static mf_status release_first(mfi_forward *f, uint32_t n, mf_error *err)
{
    uint64_t ticket;
    if (f->deferred) {
        MFI_TRY(f->backend->device->unified->mark(f->backend, &ticket, err));
        for (uint32_t i = 0; i < n; i++)
            f->deferred[(f->first_deferred + f->n_deferred++) % f->n_held_max] =
                (deferred){f->refs[i], ticket};
    } else {
        mfi_store_release(f->store, f->refs, n);
    }
    f->n_held -= n;
    memmove(f->refs, f->refs + n, f->n_held * sizeof *f->refs);
    return MF_OK;
}

/* Computes all experts of the layer as they arrive; `op` is the EXPERTS op. */
mf_status mfi_forward_run_experts(mfi_forward *f, uint32_t op, mfi_step *step, mf_error *err)
{
    uint32_t layer = f->p->ops[op].layer;
    while (f->n_held > 0 || f->next < f->n_wanted) {
        MFI_TRY(mfi_forward_acquire(f, layer, err));
        MFI_TRY(mfi_store_poll(f->store, f->refs, f->n_held, err));
        if (f->many && all_ready(f)) /* the drive would have nothing to do */
            MFI_TRY(look_ahead(f, layer, step, err));
        uint32_t n = list_ready(f);
        if (n == 0) {
            MFI_TRY(look_ahead(f, layer, step, err));
            MFI_TRY(mfi_store_wait(f->store, f->refs, f->n_held, err));
            n = list_ready(f);
        }
        step->work = f->work;
        step->n_work = n;
        uint64_t before_ns = f->arith_ns;
        MFI_TRY(mfi_forward_ops(f, op, 1, step, err));
        f->experts_ns += f->arith_ns - before_ns;
        MFI_TRY(release_first(f, n, err));
    }
    return look_ahead(f, layer, step, err);
}

/* The same where all of them were found at open. */
static mf_status run_found(mfi_forward *f, uint32_t op, mfi_step *step, mf_error *err)
{
    const uint64_t *found = f->found + (size_t)f->p->ops[op].layer * f->p->shape.n_experts;
    uint64_t before_ns = f->arith_ns;
    for (uint32_t at = 0, n; at < f->n_wanted; at += n) {
        n = MFI_MIN(f->n_wanted - at, f->n_held_max);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t e = f->wanted[at + i];
            f->work[i] =
                (mfi_expert_work){(const void *)(uintptr_t)found[e], f->first[e], f->count[e]};
        }
        step->work = f->work;
        step->n_work = n;
        MFI_TRY(mfi_forward_ops(f, op, 1, step, err));
    }
    f->experts_ns += f->arith_ns - before_ns;
    mfi_store_count_hits(f->store, f->n_wanted);
    return MF_OK;
}

void mfi_forward_choices(mfi_forward *f, uint32_t layer, const mfi_step *step, const uint16_t *ids)
{
    uint32_t top_k = f->p->shape.top_k;
    for (uint32_t t = 0; t < step->n_tok; t++)
        mfi_store_trace(f->store, f->n_passes, layer, mfi_step_pos(step, t),
                        ids + (size_t)t * top_k, top_k);
    for (uint32_t t = 0; f->watch && t < step->n_tok; t++)
        mfi_watch_choice(f->watch, layer, ids + (size_t)t * top_k, top_k);
    group_choices(f, layer, step, ids);
    f->looked_ahead = false;
    if (!f->found)
        mfi_store_settle(f->store, layer, f->wanted, f->n_wanted);
}

/* Reads begin; what stands between routing and experts is computed meanwhile. */
mf_status mfi_forward_experts(mfi_forward *f, uint32_t after_route, uint32_t op, mfi_step *step,
                              mf_error *err)
{
    step->pairs = f->pairs;
    step->pair_of = f->pair_of;
    if (f->found) {
        MFI_TRY(mfi_forward_ops(f, after_route, op - after_route, step, err));
        return run_found(f, op, step, err);
    }
    mf_status status = MF_OK;
    bool missing = mfi_forward_misses(f, step);
    if (missing)
        status = mfi_forward_missing(f, after_route, op, step, err);
    else
        status = mfi_forward_acquire(f, f->p->ops[op].layer, err);
    if (status == MF_OK && !missing)
        status = mfi_forward_ops(f, after_route, op - after_route, step, err);
    if (status == MF_OK && !missing)
        status = mfi_forward_run_experts(f, op, step, err);
    if (status != MF_OK) {
        drop_deferred(f); /* waits: what is held is read by then, too */
        mfi_store_release(f->store, f->refs, f->n_held);
        f->n_held = 0;
    }
    return status;
}

uint32_t mfi_forward_experts_of(const mfi_forward *f, uint32_t route)
{
    uint32_t op = route + 1;
    while (f->p->ops[op].code != MFI_OP_EXPERTS)
        op++;
    MFI_ASSERT(op < f->p->head_first);
    return op;
}

mf_status mfi_forward_ticked(const mfi_forward *f, uint32_t layer, mf_error *err)
{
    if (f->tick && !f->tick(f->tick_user, layer + 1))
        return mfi_fail(err, MF_ERR_CANCELLED, "cancelled in layer %u", layer);
    return MF_OK;
}

/* The same without stops: nothing is ever missing. */
static mf_status run_settled(mfi_forward *f, uint32_t first, uint32_t end, mfi_step *step,
                             mf_error *err)
{
    uint32_t n_routed = 0, layer = 0;
    for (uint32_t i = first; i < end; i++) {
        n_routed += f->p->ops[i].code == MFI_OP_EXPERTS;
        layer = f->p->ops[i].layer;
    }
    if (first == end)
        return MF_OK;
    MFI_TRY(mfi_forward_ops(f, first, end - first, step, err));
    mfi_store_count_hits(f->store, (uint64_t)n_routed * step->n_tok * f->p->shape.top_k);
    return mfi_forward_ticked(f, layer, err);
}

/* Runs ops [first, end), stopping at every router. */
static mf_status run_span(mfi_forward *f, uint32_t first, uint32_t end, mfi_step *step,
                          mf_error *err)
{
    if (f->settled)
        return run_settled(f, first, end, step, err);
    uint32_t start = first;
    for (uint32_t i = first; i < end; i++) {
        if (f->p->ops[i].code != MFI_OP_ROUTE)
            continue;
        uint32_t experts = mfi_forward_experts_of(f, i), layer = f->p->ops[i].layer;
        MFI_TRY(run_ops_reading(f, start, i + 1 - start, step, err));
        MFI_TRY(sync_ops(f, err));
        mfi_forward_choices(f, layer, step, f->backend->view(f->backend, MFI_BUF_IDS));
        MFI_TRY(mfi_forward_experts(f, i + 1, experts, step, err));
        MFI_TRY(mfi_forward_ticked(f, layer, err));
        start = i = experts + 1;
    }
    if (start < end)
        MFI_TRY(mfi_forward_ops(f, start, end - start, step, err));
    return MF_OK;
}

/* Where each expert of a layer is, read if it isn't there yet. */
static mf_status settle_layer(mfi_forward *f, uint32_t layer, uint64_t *slots, mf_error *err)
{
    uint32_t n_experts = f->p->shape.n_experts;
    mf_status status = MF_OK;
    for (uint32_t e = 0, n; status == MF_OK && e < n_experts; e += n) {
        n = MFI_MIN(n_experts - e, f->n_held_max);
        for (uint32_t i = 0; i < n; i++)
            f->wanted[i] = (uint16_t)(e + i);
        MFI_TRY(mfi_store_acquire(f->store, layer, f->wanted, n, f->refs, err));
        for (uint32_t i = 0; status == MF_OK && i < n; i++) {
            if (!f->refs[i].ready)
                status = mfi_store_wait(f->store, &f->refs[i], 1, err);
            if (status == MF_OK)
                slots[e + i] = (uint64_t)(uintptr_t)mfi_store_data(f->store, &f->refs[i]);
        }
        mfi_store_release(f->store, f->refs, n);
    }
    return status;
}

mf_status mfi_forward_settle(mfi_forward *f, mf_progress_fn progress, void *user, mf_error *err)
{
    const mfi_program *p = f->p;
    size_t n = (size_t)p->shape.n_layers * p->shape.n_experts;
    MFI_ASSERT(f->plan->n_slots == f->plan->n_experts_total);
    uint64_t *slots = calloc(n, sizeof *slots);
    if (!slots)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the places of %zu experts", n);
    mf_status status = MF_OK;
    uint64_t done = 0;
    for (uint32_t layer = 0; status == MF_OK && layer < p->shape.n_layers; layer++) {
        if (p->experts[layer].bytes == 0)
            continue;
        status = settle_layer(f, layer, slots + (size_t)layer * p->shape.n_experts, err);
        done += p->shape.n_experts * f->plan->slot_stride;
        if (status == MF_OK && progress &&
            !progress(user, "loading", "bytes", done, f->plan->n_slots * f->plan->slot_stride))
            status = mfi_fail(err, MF_ERR_CANCELLED, "cancelled while experts were loaded");
    }
    if (status == MF_OK && f->backend->device) {
        status = f->backend->device->bind_experts(f->backend, slots, err);
        f->settled = status == MF_OK;
    } else if (status == MF_OK) {
        f->found = slots;
        return MF_OK;
    }
    free(slots);
    return status;
}

/* ---- outputs ---- */

static mf_status give_hidden(mfi_forward *f, mfi_buf_id buf, size_t layer, uint32_t n,
                             const mf_eval_outputs *outputs, size_t index0, mf_error *err)
{
    MFI_TRY(f->backend->sync(f->backend, err));
    const float *rows = f->backend->view(f->backend, buf);
    uint32_t hidden = f->p->shape.hidden;
    for (uint32_t t = 0; t < n; t++)
        if (!outputs->on_hidden(outputs->user, layer, index0 + t, rows + (size_t)t * hidden,
                                hidden))
            return mfi_fail(err, MF_ERR_CANCELLED, "cancelled while hidden states were written");
    return MF_OK;
}

/* The head on n_rows of f->head_rows, a few at a time. */
static mf_status run_head(mfi_forward *f, mfi_step *step, uint32_t n_rows,
                          const mf_eval_outputs *outputs, size_t index0, mf_error *err)
{
    const mfi_program *p = f->p;
    uint32_t n_vocab = p->shape.n_vocab;
    for (uint32_t row = 0; row < n_rows; row += step->n_head) {
        step->head_rows = f->head_rows + row;
        step->n_head = MFI_MIN(n_rows - row, p->n_logit_rows);
        MFI_TRY(mfi_forward_ops(f, p->head_first, p->n_ops - p->head_first, step, err));
        MFI_TRY(sync_ops(f, err));
        if (outputs && outputs->on_hidden)
            MFI_TRY(give_hidden(f, MFI_BUF_HN, p->shape.n_layers, step->n_head, outputs,
                                index0 + row, err));
        const float *logits = f->backend->view(f->backend, MFI_BUF_LOGITS);
        for (uint32_t i = 0; outputs && outputs->on_logits && i < step->n_head; i++)
            if (!outputs->on_logits(outputs->user, index0 + row + i, logits + (size_t)i * n_vocab,
                                    n_vocab))
                return mfi_fail(err, MF_ERR_CANCELLED, "cancelled while logits were written");
    }
    return MF_OK;
}

/* The step of some runs; returns how many head rows they want. */
static uint32_t make_step(mfi_forward *f, mfi_step *step, const mfi_run *runs, uint32_t n_runs)
{
    uint32_t n_head = 0;
    *step = (mfi_step){.tokens = f->tokens, .seqs = f->seqs, .n_seqs = n_runs, .seq_of = f->seq_of};
    MFI_ASSERT(n_runs > 0 && n_runs <= f->plan->n_sessions);
    for (uint32_t i = 0; i < n_runs; i++) {
        const mfi_run *run = &runs[i];
        uint32_t row = step->n_tok;
        MFI_ASSERT(run->n > 0 && run->n <= f->plan->chunk - row);
        f->seqs[i] = (mfi_seq){row, run->n, run->pos, run->mem};
        memcpy(f->tokens + row, run->tokens, run->n * sizeof *f->tokens);
        for (uint32_t t = 0; t < run->n; t++)
            f->seq_of[row + t] = (uint16_t)i;
        step->n_tok += run->n;
        for (uint32_t t = 0; run->want == MFI_WANT_ALL && t < run->n; t++)
            f->head_rows[n_head++] = row + t;
        if (run->want == MFI_WANT_LAST)
            f->head_rows[n_head++] = row + run->n - 1;
    }
    return n_head;
}

/* `outputs`: NULL, or of every row of the one sequence there is. */
static mf_status run_all(mfi_forward *f, mfi_step *step, uint32_t n_head,
                         const mf_eval_outputs *outputs, size_t index0, mf_error *err)
{
    const mfi_program *p = f->p;
    if ((!outputs || !outputs->on_hidden) && mfi_forward_looks(f, step)) {
        bool head = !outputs && n_head > 0;
        step->head_rows = f->head_rows;
        step->n_head = head ? n_head : 0;
        MFI_TRY(mfi_forward_look(f, step, head, err));
        if (head)
            return MF_OK;
    } else if (!outputs || !outputs->on_hidden) {
        MFI_TRY(run_span(f, 0, p->head_first, step, err));
    } else {
        /* Stop after the embedding and after each layer to hand out the residual stream. */
        uint32_t at = 0;
        while (p->ops[at].code == MFI_OP_EMBED || p->ops[at].code == MFI_OP_ROPE_TABLE)
            at++;
        MFI_TRY(run_span(f, 0, at, step, err));
        MFI_TRY(give_hidden(f, MFI_BUF_RES, 0, step->n_tok, outputs, index0, err));
        for (uint32_t layer = 0; layer < p->shape.n_layers; layer++) {
            MFI_TRY(run_span(f, at, p->layer_end[layer], step, err));
            at = p->layer_end[layer];
            if (layer + 1 < p->shape.n_layers) /* the last row comes after the final norm */
                MFI_TRY(give_hidden(f, MFI_BUF_RES, layer + 1, step->n_tok, outputs, index0, err));
        }
    }
    return run_head(f, step, n_head, outputs, index0, err);
}

mf_status mfi_forward_run(mfi_forward *f, const mfi_run *runs, uint32_t n_runs,
                          const mf_eval_outputs *outputs, size_t index0, mf_error *err)
{
    mfi_step step;
    uint64_t begin_ns = mfi_clock_ns();
    uint32_t n_head = make_step(f, &step, runs, n_runs);
    bool all = runs[0].want == MFI_WANT_ALL;
    MFI_ASSERT(all ? n_runs == 1 : n_head <= f->p->n_logit_rows);
    f->n_tokens += step.n_tok;
    f->n_passes++;
    f->arith_ns = f->experts_ns = 0;
    uint32_t hints = mfi_store_hints_room(f->store);
    f->many =
        f->n_ahead > 0 && step.n_tok * f->p->shape.top_k >= CHOICES_MANY * f->p->shape.n_experts;
    if (f->many) {
        mfi_store_hints_set(f->store, f->n_ahead);
        mfi_store_hints_at_once(f->store, f->n_ahead);
    }
    mf_status status = run_all(f, &step, n_head, all ? outputs : NULL, index0, err);
    if (f->many) {
        mfi_store_hints_set(f->store, hints);
        mfi_store_hints_at_once(f->store, 0);
    }
    if (status != MF_OK)
        return status;
    if (n_head > 0)
        f->last_row = all ? step.n_head - 1 : 0;
    mfi_run_facts facts = {runs[0].pos, step.n_tok,   n_runs, begin_ns, mfi_clock_ns() - begin_ns,
                           f->arith_ns, f->experts_ns};
    return f->on_run ? f->on_run(f->on_run_user, &facts, err) : MF_OK;
}

const float *mfi_forward_logits(const mfi_forward *f, uint32_t i)
{
    const float *rows = f->backend->view(f->backend, MFI_BUF_LOGITS);
    return rows + (size_t)(f->last_row + i) * f->p->shape.n_vocab;
}
