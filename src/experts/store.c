/* The expert store; see store.h. Owns the slots' states, the requests to the reader, and the table
 * from expert to slot; borrows the slots' memory, the reader and the trace. One thread calls it;
 * completions are taken in acquire, poll, wait and close only. After open it allocates nothing.
 *
 * A load is queued first and submitted when its slot has no older reads under way (they still write
 * into its memory) and enough requests are free. Both hold at once unless references were given
 * back before their loads completed, so the queue is nearly always empty. It can't get stuck: there
 * are enough requests for all that n_refs_max references can wait for, and older reads always land.
 */
#include "experts/store_int.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

/* ---- slots and their experts ---- */

static uint32_t expert_key(const mfi_store *store, uint32_t layer, uint32_t expert)
{
    MFI_ASSERT(layer < store->config.table.n_layers && expert < store->config.table.n_experts);
    return layer * store->config.table.n_experts + expert;
}

static char *slot_memory(const mfi_store *store, uint32_t s)
{
    return (char *)store->config.slots + (uint64_t)s * store->config.slot_stride;
}

static void set_place(const mfi_store *store, uint32_t key, mfi_place place)
{
    if (store->config.places)
        atomic_store_explicit(&store->config.places[key], (uint8_t)place, memory_order_relaxed);
}

static void tell_move(const mfi_store *store, uint32_t key, const void *data)
{
    uint32_t n = store->config.table.n_experts;
    if (store->moved)
        store->moved(store->moved_user, key / n, key % n, data);
}

/* Nobody finds the slot's expert there any more. */
static void forget_key(mfi_store *store, uint32_t key)
{
    if (store->slots[store->slot_of[key]].state == SLOT_READY)
        tell_move(store, key, NULL);
    store->slot_of[key] = NONE;
    set_place(store, key, MFI_PLACE_NONE);
}

/* Empties a hint's slot. Its reads may be under way still: it is the last to be taken. */
static void drop_hint(mfi_store *store, uint32_t i)
{
    uint32_t s = store->hints[i];
    expert_slot *slot = &store->slots[s];
    if (slot->state == SLOT_HINTED)
        store->stats.hints_dropped++;
    else
        store->stats.hints_wasted++;
    forget_key(store, slot->key);
    slot->key = NONE;
    slot->generation++;
    slot->state = SLOT_EMPTY;
    slot->hint = false;
    store->n_hints--;
    memmove(store->hints + i, store->hints + i + 1, (store->n_hints - i) * sizeof *store->hints);
    memmove(store->free_slots + 1, store->free_slots,
            store->n_free_slots * sizeof *store->free_slots);
    store->free_slots[0] = s;
    store->n_free_slots++;
}

static bool may_go_ready(void *ctx, uint32_t s)
{
    const expert_slot *slot = &((mfi_store *)ctx)->slots[s];
    return slot->n_pins == 0 && slot->state == SLOT_READY;
}

static bool may_go_abandoned(void *ctx, uint32_t s)
{
    return ((mfi_store *)ctx)->slots[s].n_pins == 0;
}

/* The slot given up last that still is, or NONE: what a tier above got last it keeps longest. */
static uint32_t take_given(mfi_store *store)
{
    while (store->n_given > 0) {
        uint32_t s = store->given[--store->n_given];
        store->slots[s].listed = false;
        if (store->slots[s].given && may_go_ready(store, s))
            return s;
    }
    return NONE;
}

/* With slots for hints left alone as long as any other can be had. */
uint32_t mfi_store_take_slot(mfi_store *store, bool quiet)
{
    if (store->n_free_slots > 0 && store->n_free_slots + store->n_hints > store->n_hints_kept &&
        !(quiet && store->slots[store->free_slots[store->n_free_slots - 1]].n_under_way > 0))
        return store->free_slots[--store->n_free_slots];
    const mfi_policy_ops *ops = store->config.policy;
    uint32_t s = take_given(store);
    if (s == NONE)
        s = ops->victim(store->policy, may_go_ready, store);
    if (s == NONE && quiet)
        return NONE;
    if (s == NONE)
        s = ops->victim(store->policy, may_go_abandoned, store);
    if (s == NONE) {
        if (store->n_free_slots == 0 && store->n_hints > 0)
            drop_hint(store, store->n_hints - 1);
        return store->n_free_slots > 0 ? store->free_slots[--store->n_free_slots] : NONE;
    }
    MFI_ASSERT(s < store->config.n_slots);
    MFI_ASSERT(store->slots[s].n_pins == 0 && store->slots[s].key != NONE);
    forget_key(store, store->slots[s].key);
    if (store->slots[s].state == SLOT_READY)
        store->stats.n_ready--;
    store->slots[s].given = false;
    store->stats.evictions++;
    return s;
}

static void enqueue(mfi_store *store, uint32_t s)
{
    expert_slot *slot = &store->slots[s];
    slot->state = SLOT_QUEUED;
    slot->next_queued = NONE;
    if (store->queue_head == NONE)
        store->queue_head = s;
    else
        store->slots[store->queue_tail].next_queued = s;
    store->queue_tail = s;
}

void mfi_store_set_key(mfi_store *store, uint32_t s, uint32_t key)
{
    expert_slot *slot = &store->slots[s];
    store->slot_of[key] = s;
    set_place(store, key, MFI_PLACE_LOADING);
    slot->key = key;
    slot->generation++;
    slot->n_left = 0;
}

static void assign(mfi_store *store, uint32_t s, uint32_t key)
{
    mfi_store_set_key(store, s, key);
    if (store->slots[s].state != SLOT_QUEUED) /* a load that never started leaves its place */
        enqueue(store, s);
    store->config.policy->filled(store->policy, s, key);
}

/* A failed slot is free again once nobody refers to it. Reads of it may be under way still: a new
 * load waits for them. */
static void free_failed(mfi_store *store, uint32_t s)
{
    expert_slot *slot = &store->slots[s];
    store->free_reqs[store->n_free_reqs++] = slot->failed_req;
    slot->failed_req = NONE;
    slot->state = SLOT_EMPTY;
    store->free_slots[store->n_free_slots++] = s;
}

/* ---- loads ---- */

static bool lies_before(const mfi_expert_part *a, const mfi_expert_part *b)
{
    return a->file != b->file ? a->file < b->file : a->offset < b->offset;
}

/* The reads of an expert: its parts in the order of the drive, neighbours there and in the slot as
 * one. Offsets in `dst` are relative to the slot. */
static uint32_t plan_reads(const mfi_store *store, uint32_t key, mfi_io_req *const *reqs)
{
    const mfi_expert_table *table = &store->config.table;
    const mfi_expert_part *parts = table->parts + (uint64_t)key * table->n_parts;
    const mfi_expert_part *sorted[MFI_MAX_PARTS];
    uint32_t n = 0, n_reads = 0;
    for (uint32_t i = 0; i < table->n_parts; i++) {
        if (parts[i].len == 0)
            continue;
        uint32_t at = n++;
        for (; at > 0 && lies_before(&parts[i], sorted[at - 1]); at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = &parts[i];
    }
    uint64_t slot_end = 0;
    for (uint32_t i = 0; i < n; i++) {
        const mfi_expert_part *part = sorted[i];
        mfi_io_req *last = n_reads ? reqs[n_reads - 1] : NULL;
        if (last && last->file == part->file && last->offset + last->len == part->offset &&
            slot_end == part->slot_offset) {
            last->len += part->len;
        } else {
            mfi_io_req *req = reqs[n_reads++];
            req->file = part->file;
            req->offset = part->offset;
            req->len = part->len;
            req->cookie = part->slot_offset;
        }
        slot_end = (uint64_t)part->slot_offset + part->len;
    }
    return n_reads;
}

/* Puts a queued load's reads into the batch. */
static void start_load(mfi_store *store, uint32_t s)
{
    expert_slot *slot = &store->slots[s];
    mfi_io_req *reqs[MFI_MAX_PARTS];
    for (uint32_t i = 0; i < store->config.table.n_parts; i++)
        reqs[i] = &store->reqs[store->free_reqs[store->n_free_reqs - 1 - i]];
    uint32_t n_reads = plan_reads(store, slot->key, reqs);
    store->n_free_reqs -= n_reads;
    for (uint32_t i = 0; i < n_reads; i++) {
        reqs[i]->dst = slot_memory(store, s) + reqs[i]->cookie;
        reqs[i]->cookie = (uint64_t)slot->generation << 32 | s;
        reqs[i]->fresh = !slot->touched;
        store->stats.bytes_read += reqs[i]->len;
        store->batch[store->n_batch++] = reqs[i];
    }
    MFI_ASSERT(n_reads > 0);
    slot->n_left = n_reads;
    slot->n_under_way = n_reads;
    slot->touched = true;
    slot->state = SLOT_LOADING;
}

static void submit_batch(mfi_store *store)
{
    if (store->n_batch == 0)
        return;
    if (store->n_reading == 0)
        store->reading_from_ns = store->last_done_ns = mfi_clock_ns();
    store->n_reading += store->n_batch;
    store->config.io->submit(store->config.io, store->batch, store->n_batch);
    store->n_batch = 0;
}

/* A request came back. */
static void count_done(mfi_store *store, const mfi_io_req *req)
{
    store->last_done_ns = MFI_MAX(store->last_done_ns, req->done_ns);
    if (--store->n_reading == 0)
        store->stats.reading_ns += store->last_done_ns - store->reading_from_ns;
}

/* Two experts keep a drive busy, and little is in the way of the next demand. */
#define HINTS_AT_ONCE 2

/* Starts hints while no demand read is under way. */

static void pump_hints(mfi_store *store)
{
    uint32_t n_reads = 0, n_loading = 0;
    for (uint32_t i = 0; i < store->n_hints; i++) {
        const expert_slot *slot = &store->slots[store->hints[i]];
        n_reads += slot->state == SLOT_LOADING ? slot->n_under_way : 0;
        n_loading += slot->state == SLOT_LOADING;
    }
    if (store->n_reading > n_reads)
        return;
    for (uint32_t i = 0; i < store->n_hints && n_loading < store->n_hints_at_once; i++) {
        expert_slot *slot = &store->slots[store->hints[i]];
        if (slot->state != SLOT_HINTED || slot->n_under_way > 0 ||
            store->n_free_reqs < store->config.table.n_parts)
            continue;
        uint64_t before = store->stats.bytes_read;
        start_load(store, store->hints[i]);
        store->stats.hint_bytes += store->stats.bytes_read - before;
        n_loading++;
    }
    submit_batch(store);
}

/* Submits what can be, in order. A slot that waits for older reads lets others pass. */
static void pump(mfi_store *store)
{
    uint32_t *link = &store->queue_head, tail = NONE;
    while (*link != NONE && store->n_free_reqs >= store->config.table.n_parts) {
        uint32_t s = *link;
        if (store->slots[s].n_under_way > 0) {
            tail = s;
            link = &store->slots[s].next_queued;
        } else {
            *link = store->slots[s].next_queued;
            start_load(store, s);
        }
    }
    if (*link == NONE)
        store->queue_tail = tail;
    submit_batch(store);
    if (store->n_hints > 0 && store->queue_head == NONE)
        pump_hints(store);
}

static uint32_t hint_of(const mfi_store *store, uint32_t s)
{
    uint32_t i = 0;
    while (store->hints[i] != s)
        i++;
    return i;
}

static void fail_load(mfi_store *store, uint32_t s, mfi_io_req *req)
{
    expert_slot *slot = &store->slots[s];
    const mfi_expert_table *table = &store->config.table;
    mfi_fail(&req->error, req->status, "layer %u, expert %u: %s",
             table->model_layer[slot->key / table->n_experts], slot->key % table->n_experts,
             req->error.message);
    forget_key(store, slot->key);
    slot->key = NONE;
    slot->state = SLOT_FAILED;
    slot->failed_req = (uint32_t)(req - store->reqs);
    store->config.policy->emptied(store->policy, s);
    store->stats.failures++;
    if (slot->n_pins == 0)
        free_failed(store, s);
}

void mfi_store_landed(mfi_store *store, uint32_t s)
{
    expert_slot *slot = &store->slots[s];
    slot->state = SLOT_READY;
    set_place(store, slot->key, MFI_PLACE_READY);
    tell_move(store, slot->key, slot_memory(store, s));
    store->stats.n_ready += !slot->hint;
}

/* Its expert is read after all. */
void mfi_store_reload(mfi_store *store, uint32_t s)
{
    enqueue(store, s);
    pump(store);
}

static void complete(mfi_store *store, mfi_io_req *req)
{
    uint32_t s = (uint32_t)req->cookie, generation = (uint32_t)(req->cookie >> 32);
    MFI_ASSERT(s < store->config.n_slots && store->slots[s].n_under_way > 0);
    expert_slot *slot = &store->slots[s];
    slot->n_under_way--;
    count_done(store, req);
    bool current = slot->generation == generation && slot->state == SLOT_LOADING;
    if (current && req->status != MF_OK && slot->hint) {
        drop_hint(store, hint_of(store, s)); /* who wants it asks again, and is told */
        current = false;
    }
    if (current && req->status != MF_OK) {
        fail_load(store, s, req); /* keeps the request */
        return;
    }
    store->free_reqs[store->n_free_reqs++] = (uint32_t)(req - store->reqs);
    if (current) {
        if (--slot->n_left == 0)
            mfi_store_landed(store, s);
    } else if (slot->generation != generation) {
        store->stats.stale_completions++;
    }
}

/* Takes what is finished and starts what that made possible. */
static void collect(mfi_store *store, mfi_io_req *first)
{
    mfi_io *io = store->config.io;
    bool any = false;
    for (mfi_io_req *req = first ? first : io->poll(io); req; req = io->poll(io)) {
        complete(store, req);
        any = true;
    }
    if (any && (store->queue_head != NONE || store->n_hints > 0))
        pump(store);
}

/* ---- hints ---- */

void mfi_store_hints_set(mfi_store *store, uint32_t n)
{
    MFI_ASSERT(n <= store->config.n_hints_max);
    while (store->n_hints > n)
        drop_hint(store, store->n_hints - 1);
    store->n_hints_kept = n;
}

uint32_t mfi_store_hints_room(const mfi_store *store)
{
    return store->n_hints_kept;
}

void mfi_store_hints_at_once(mfi_store *store, uint32_t n)
{
    store->n_hints_at_once = n ? n : HINTS_AT_ONCE;
}

bool mfi_store_hints_reading(const mfi_store *store)
{
    for (uint32_t i = 0; i < store->n_hints; i++)
        if (store->slots[store->hints[i]].state != SLOT_READY)
            return true;
    return false;
}

/* An empty slot for a hint, or NONE. Where the cache has grown into those kept for hints (each hint
 * that was wanted became a part of it) it gives one back, as it would have for a miss. */
static uint32_t take_hint_slot(mfi_store *store)
{
    const mfi_policy_ops *ops = store->config.policy;
    if (store->n_hints == store->n_hints_kept)
        return NONE;
    if (store->n_free_slots > 0)
        return store->free_slots[--store->n_free_slots];
    uint32_t s = ops->victim(store->policy, may_go_ready, store);
    if (s == NONE)
        return NONE;
    ops->emptied(store->policy, s);
    forget_key(store, store->slots[s].key);
    store->stats.n_ready--;
    store->stats.evictions++;
    return s;
}

void mfi_store_hint(mfi_store *store, uint32_t layer, const uint16_t *experts, uint32_t n)
{
    collect(store, NULL);
    while (store->n_hints > 0)
        drop_hint(store, store->n_hints - 1);
    /* What is listed and there already is not to make room for the rest. */
    for (uint32_t i = 0; i < n; i++) {
        uint32_t s = store->slot_of[expert_key(store, layer, experts[i])];
        if (s != NONE)
            store->slots[s].n_pins++;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t key = expert_key(store, layer, experts[i]);
        if (store->slot_of[key] != NONE)
            continue;
        uint32_t s = take_hint_slot(store);
        if (s == NONE)
            break;
        mfi_store_set_key(store, s, key);
        store->slots[s].state = SLOT_HINTED;
        store->slots[s].hint = true;
        store->hints[store->n_hints++] = s;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t s = store->slot_of[expert_key(store, layer, experts[i])];
        if (s != NONE && !store->slots[s].hint)
            store->slots[s].n_pins--;
    }
    pump(store);
}

void mfi_store_settle(mfi_store *store, uint32_t layer, const uint16_t *experts, uint32_t n)
{
    for (uint32_t i = store->n_hints; i-- > 0;) {
        uint32_t key = store->slots[store->hints[i]].key, k = 0;
        while (k < n && expert_key(store, layer, experts[k]) != key)
            k++;
        if (k == n)
            drop_hint(store, i);
    }
    if (store->config.policy->visit)
        store->config.policy->visit(store->policy, layer, experts, n);
}

/* Makes a hint somebody's: an expert as any other. */
static void take_over(mfi_store *store, uint32_t s)
{
    expert_slot *slot = &store->slots[s];
    uint32_t i = hint_of(store, s);
    store->n_hints--;
    memmove(store->hints + i, store->hints + i + 1, (store->n_hints - i) * sizeof *store->hints);
    slot->hint = false;
    if (slot->state == SLOT_READY) {
        store->stats.hints_useful++;
        store->stats.n_ready++;
    } else {
        store->stats.hints_late++;
    }
    if (slot->state == SLOT_HINTED)
        enqueue(store, s);
    store->config.policy->filled(store->policy, s, slot->key);
}

/* ---- references ---- */

mf_status mfi_store_acquire(mfi_store *store, uint32_t layer, const uint16_t *experts, uint32_t n,
                            mfi_expert_ref *refs, mf_error *err)
{
    (void)err; /* failures show where they are waited for */
    MFI_ASSERT(n <= store->config.n_slots && store->n_refs <= store->config.n_slots - n);
    MFI_ASSERT(n <= store->config.n_refs_max && store->n_refs <= store->config.n_refs_max - n);
    collect(store, NULL);
    store->n_refs += n;
    uint32_t n_misses = 0, n_hinted = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t s = store->slot_of[expert_key(store, layer, experts[i])];
        refs[i] = (mfi_expert_ref){.slot = s, .layer = (uint16_t)layer, .expert = experts[i]};
        if (s == NONE) {
            n_misses++;
            continue;
        }
        store->slots[s].n_pins++;
        refs[i].generation = store->slots[s].generation;
        refs[i].ready = store->slots[s].state == SLOT_READY;
        if (store->slots[s].hint) {
            take_over(store, s);
            n_hinted++;
        } else if (store->slots[s].given) {
            mfi_store_take_back(store, layer, experts[i]);
        } else {
            store->config.policy->touched(store->policy, s);
        }
    }
    store->stats.hits += n - n_misses - n_hinted;
    store->stats.misses += n_misses + n_hinted;
    if (n_misses + n_hinted == 0)
        return MF_OK;
    for (uint32_t i = 0; i < n; i++) {
        if (refs[i].slot != NONE)
            continue;
        uint32_t key = expert_key(store, layer, experts[i]);
        MFI_ASSERT(store->slot_of[key] == NONE); /* the experts of a call are distinct */
        uint32_t s = mfi_store_take_slot(store, false);
        MFI_ASSERT(s != NONE); /* some slot is not pinned */
        assign(store, s, key);
        store->slots[s].n_pins = 1;
        refs[i].slot = s;
        refs[i].generation = store->slots[s].generation;
    }
    pump(store);
    return MF_OK;
}

/* Sets `ready`, counts references that became it just now and those that still wait. A failed one
 * is reported after all were looked at, the first in order. */
static mf_status update(const mfi_store *store, mfi_expert_ref *refs, uint32_t n, uint32_t *n_new,
                        uint32_t *n_waiting, mf_error *err)
{
    const expert_slot *failed = NULL;
    *n_new = *n_waiting = 0;
    for (uint32_t i = 0; i < n; i++) {
        const expert_slot *slot = &store->slots[refs[i].slot];
        MFI_ASSERT(slot->generation == refs[i].generation && slot->n_pins > 0);
        if (refs[i].ready)
            continue;
        if (slot->state == SLOT_READY) {
            refs[i].ready = true;
            (*n_new)++;
        } else {
            (*n_waiting)++;
            if (slot->state == SLOT_FAILED && !failed)
                failed = slot;
        }
    }
    if (!failed)
        return MF_OK;
    const mfi_io_req *req = &store->reqs[failed->failed_req];
    return mfi_fail(err, req->status, "%s", req->error.message);
}

mf_status mfi_store_poll(mfi_store *store, mfi_expert_ref *refs, uint32_t n, mf_error *err)
{
    uint32_t n_new, n_waiting;
    collect(store, NULL);
    return update(store, refs, n, &n_new, &n_waiting, err);
}

mf_status mfi_store_wait(mfi_store *store, mfi_expert_ref *refs, uint32_t n, mf_error *err)
{
    uint32_t n_new, n_waiting;
    collect(store, NULL);
    mf_status status = update(store, refs, n, &n_new, &n_waiting, err);
    if (status != MF_OK || n_new > 0 || n_waiting == 0)
        return status;
    uint64_t begin_ns = mfi_clock_ns();
    do {
        mfi_io_req *req = store->config.io->wait(store->config.io);
        MFI_ASSERT(req); /* a load that is waited for has reads under way */
        collect(store, req);
        status = update(store, refs, n, &n_new, &n_waiting, err);
    } while (status == MF_OK && n_new == 0);
    store->stats.stall_ns += mfi_clock_ns() - begin_ns;
    return status;
}

const void *mfi_store_data(const mfi_store *store, const mfi_expert_ref *ref)
{
    MFI_ASSERT(ref->ready && store->slots[ref->slot].generation == ref->generation);
    return slot_memory(store, ref->slot);
}

void mfi_store_release(mfi_store *store, mfi_expert_ref *refs, uint32_t n)
{
    MFI_ASSERT(n <= store->n_refs);
    store->n_refs -= n;
    for (uint32_t i = 0; i < n; i++) {
        expert_slot *slot = &store->slots[refs[i].slot];
        MFI_ASSERT(slot->generation == refs[i].generation && slot->n_pins > 0);
        slot->n_pins--;
        if (slot->n_pins == 0 && slot->state == SLOT_FAILED)
            free_failed(store, refs[i].slot);
        refs[i].ready = false;
    }
    if (store->queue_head != NONE) /* a failed load gave its request back */
        pump(store);
}

bool mfi_store_cached(const mfi_store *store, uint32_t layer, uint16_t expert)
{
    return store->slot_of[expert_key(store, layer, expert)] != NONE;
}

static bool is_cached(const mfi_store *store, uint32_t key)
{
    uint32_t s = store->slot_of[key];
    return s != NONE && !store->slots[s].hint;
}

void mfi_store_trace(const mfi_store *store, uint64_t pass, uint32_t layer, uint64_t pos,
                     const uint16_t *ids, uint32_t n)
{
    if (!store->config.trace)
        return;
    uint8_t hit[MFI_MAX_TOP_K];
    MFI_ASSERT(n <= MFI_MAX_TOP_K);
    for (uint32_t i = 0; i < n; i++)
        hit[i] = is_cached(store, expert_key(store, layer, ids[i]));
    mfi_trace_choice(store->config.trace, pass, store->config.table.model_layer[layer], pos, ids,
                     hit, n);
}

void mfi_store_on_move(mfi_store *store, mfi_moved_fn moved, void *user)
{
    store->moved = moved;
    store->moved_user = user;
}

void mfi_store_count_hits(mfi_store *store, uint64_t n)
{
    store->stats.hits += n;
}

void mfi_store_count_stall(mfi_store *store, uint64_t ns)
{
    store->stats.stall_ns += ns;
}

void mfi_store_stats_get(const mfi_store *store, mfi_store_stats *stats)
{
    *stats = store->stats;
    if (store->n_reading > 0)
        stats->reading_ns += mfi_clock_ns() - store->reading_from_ns;
}

void mfi_store_stats_reset(mfi_store *store)
{
    store->stats = (mfi_store_stats){.n_ready = store->stats.n_ready};
    if (store->n_reading > 0)
        store->reading_from_ns = mfi_clock_ns();
}

/* ---- open and close ---- */

static void check_table(const mfi_store_config *config)
{
    const mfi_expert_table *table = &config->table;
    MFI_ASSERT(table->n_layers > 0 && table->n_layers <= MFI_MAX_LAYERS);
    MFI_ASSERT(table->n_experts > 0 && table->n_experts <= MFI_MAX_EXPERTS);
    MFI_ASSERT(table->n_parts > 0 && table->n_parts <= MFI_MAX_PARTS);
    MFI_ASSERT(config->n_slots > 0 && config->n_slots < NONE && config->n_refs_max > 0);
    MFI_ASSERT(config->slot_stride >= table->slot_bytes && config->n_hints_max < config->n_slots);
    for (uint32_t key = 0; key < table->n_layers * table->n_experts; key++) {
        for (uint32_t i = 0; i < table->n_parts; i++) {
            const mfi_expert_part *part = &table->parts[(uint64_t)key * table->n_parts + i];
            MFI_ASSERT((uint64_t)part->slot_offset + part->len <= table->slot_bytes);
        }
    }
}

static void free_store(mfi_store *store)
{
    if (store->policy)
        store->config.policy->close(&store->policy);
    free(store->slots);
    free(store->slot_of);
    free(store->free_slots);
    free(store->hints);
    free(store->given);
    free(store->reqs);
    free(store->free_reqs);
    free(store->batch);
    free(store);
}

mf_status mfi_store_open(mfi_store **out, const mfi_store_config *config, mf_error *err)
{
    check_table(config);
    uint32_t n_keys = config->table.n_layers * config->table.n_experts;
    uint64_t n_refs = MFI_MIN(config->n_refs_max, config->n_slots); /* no more can be held */
    uint64_t n_reqs = (n_refs + config->n_hints_max) * config->table.n_parts;
    if (n_reqs >= NONE)
        return mfi_fail(err, MF_ERR_LIMIT, "%u references to experts are too many",
                        config->n_refs_max);
    mfi_store *store = calloc(1, sizeof *store);
    if (!store)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory for the expert store");
    store->config = *config;
    store->n_reqs = store->n_free_reqs = (uint32_t)n_reqs;
    store->n_free_slots = config->n_slots;
    store->n_hints_at_once = HINTS_AT_ONCE;
    store->queue_head = store->queue_tail = NONE;
    store->slots = calloc(config->n_slots, sizeof *store->slots);
    store->slot_of = calloc(n_keys, sizeof *store->slot_of);
    store->free_slots = calloc(config->n_slots, sizeof *store->free_slots);
    store->hints = calloc(config->n_hints_max + 1u, sizeof *store->hints);
    store->given = calloc(config->n_slots, sizeof *store->given);
    store->reqs = calloc(n_reqs, sizeof *store->reqs);
    store->free_reqs = calloc(n_reqs, sizeof *store->free_reqs);
    store->batch = calloc(n_reqs, sizeof *store->batch);
    mf_status status = MF_OK;
    if (!store->slots || !store->slot_of || !store->free_slots || !store->hints || !store->given ||
        !store->reqs || !store->free_reqs || !store->batch)
        status =
            mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory for %u expert slots", config->n_slots);
    else
        status = config->policy->open(&store->policy, config->n_slots, config->table.n_layers,
                                      config->table.n_experts, err);
    if (status != MF_OK) {
        free_store(store);
        return status;
    }
    for (uint32_t i = 0; i < config->n_slots; i++) {
        store->slots[i] = (expert_slot){.key = NONE, .failed_req = NONE, .next_queued = NONE};
        store->free_slots[i] = config->n_slots - 1 - i; /* the first are taken first */
    }
    for (uint32_t i = 0; i < n_keys; i++)
        store->slot_of[i] = NONE;
    for (uint32_t i = 0; i < store->n_reqs; i++)
        store->free_reqs[i] = i;
    *out = store;
    return MF_OK;
}

void mfi_store_close(mfi_store **store_ref)
{
    mfi_store *store = *store_ref;
    if (!store)
        return;
    MFI_ASSERT(store->n_refs == 0);
    store->queue_head = NONE; /* nobody waits for these any more */
    for (mfi_io_req *req; (req = store->config.io->wait(store->config.io)) != NULL;)
        complete(store, req);
    free_store(store);
    *store_ref = NULL;
}
