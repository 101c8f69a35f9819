/* A tier of memory between the drive and a device; see tier.h. Owns its references in the store
 * below; borrows that store and the mover. One thread calls it: requests advance in submit, poll
 * and wait only. Allocates at open.
 *
 * A request waits in a queue, then holds a reference until the expert is in host memory (reading),
 * then until its copy has ended (copying). Copies end in the order they were started, so those are
 * a queue as well; and so are fetches of what the device's slots held before. */
#include "experts/tier.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define NONE UINT32_MAX

typedef struct held {
    mfi_io_req *req; /* NULL: of a fetch */
    mfi_expert_ref ref;
    uint64_t ticket;
} held;

/* Copies, or fetches, in the order they end. */
typedef struct ring {
    held *held; /* [n_held_max] */
    uint32_t first, n;
} ring;

typedef struct tier {
    mfi_io base;
    mfi_store *below;
    mfi_mover mover;
    uint32_t n_held_max;
    mfi_io_req *head, **tail; /* not begun */
    held *reading;            /* [n_held_max] */
    uint32_t n_reading;
    ring copying, fetching;
    mfi_tier_slots device; /* n_slots 0: inclusive */
    uint32_t *key_at; /* [device.n_slots] layer * n_experts + expert that a slot got, or NONE */
    uint32_t n_experts;
    mfi_io_req *done, **done_tail; /* to be handed back */
    mfi_tier_stats stats;
} tier;

static void finish(tier *t, mfi_io_req *req, mf_status status)
{
    req->status = status;
    req->done_ns = mfi_clock_ns();
    req->next = NULL;
    *t->done_tail = req;
    t->done_tail = &req->next;
}

static void put(const tier *t, ring *r, held h)
{
    MFI_ASSERT(r->n < t->n_held_max);
    r->held[(r->first + r->n++) % t->n_held_max] = h;
}

static void drop_first(const tier *t, ring *r)
{
    r->first = (r->first + 1) % t->n_held_max;
    r->n--;
}

/* What the slot at dst is known to have. */
static uint32_t *key_at(const tier *t, const void *dst)
{
    uint64_t s = ((uintptr_t)dst - (uintptr_t)t->device.slots) / t->device.slot_stride;
    MFI_ASSERT(s < t->device.n_slots);
    return &t->key_at[s];
}

/* The reference's expert is there: its copy starts. */
static void start_copy(tier *t, held h)
{
    mf_status status = t->mover.copy(t->mover.ctx, h.req->dst, mfi_store_data(t->below, &h.ref),
                                     h.req->len, &h.ticket, &h.req->error);
    if (status != MF_OK) {
        mfi_store_release(t->below, &h.ref, 1);
        finish(t, h.req, status);
        return;
    }
    t->stats.n_copies++;
    t->stats.bytes += h.req->len;
    put(t, &t->copying, h);
}

/* What the device's slot held goes back into the store below, unless it is there. */
static void bring_back(tier *t, const mfi_io_req *req)
{
    uint32_t *at = key_at(t, req->dst), key = *at;
    held h = {0};
    void *to;
    *at = NONE;
    if (key == NONE)
        return;
    uint32_t layer = key / t->n_experts, expert = key % t->n_experts;
    if (mfi_store_cached(t->below, layer, (uint16_t)expert)) {
        mfi_store_take_back(t->below, layer, expert);
        return;
    }
    if (t->fetching.n == t->n_held_max || !mfi_store_adopt(t->below, layer, expert, &h.ref, &to))
        return;
    if (t->mover.fetch(t->mover.ctx, to, req->dst, req->len, &h.ticket, NULL) != MF_OK) {
        mfi_store_adopted(t->below, &h.ref, false);
        return;
    }
    t->stats.n_fetches++;
    t->stats.fetched_bytes += req->len;
    put(t, &t->fetching, h);
}

/* The store below has what was fetched; waits for the first if wanted. */
static void take_fetched(tier *t, bool wait)
{
    uint64_t n_ended = 0;
    if (t->fetching.n == 0)
        return;
    uint64_t ticket = wait ? t->fetching.held[t->fetching.first].ticket : 0;
    mf_status status = t->mover.fetched(t->mover.ctx, ticket, &n_ended, NULL);
    while (t->fetching.n > 0) {
        held *h = &t->fetching.held[t->fetching.first];
        if (status == MF_OK && h->ticket > n_ended)
            break;
        mfi_store_adopted(t->below, &h->ref, status == MF_OK);
        drop_first(t, &t->fetching);
    }
}

/* Copies what has arrived in host memory; what failed to is handed back. */
static void take_read(tier *t)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < t->n_reading; i++) {
        held h = t->reading[i];
        mf_status status = mfi_store_poll(t->below, &h.ref, 1, &h.req->error);
        if (status != MF_OK) {
            mfi_store_release(t->below, &h.ref, 1);
            finish(t, h.req, status);
        } else if (h.ref.ready) {
            start_copy(t, h);
        } else {
            t->reading[kept++] = h;
        }
    }
    t->n_reading = kept;
}

/* The device has an expert: who is below needn't keep it. */
static void arrived(tier *t, const held *h)
{
    if (t->device.n_slots == 0)
        return;
    *key_at(t, h->req->dst) = h->ref.layer * t->n_experts + h->ref.expert;
    mfi_store_give_up(t->below, h->ref.layer, h->ref.expert);
}

/* Hands back requests whose copies have ended; waits for the first of them if wanted. */
static void take_copied(tier *t, bool wait)
{
    uint64_t n_ended = 0;
    if (t->copying.n == 0)
        return;
    mf_error err;
    uint64_t ticket = wait ? t->copying.held[t->copying.first].ticket : 0;
    mf_status status = t->mover.copied(t->mover.ctx, ticket, &n_ended, &err);
    while (t->copying.n > 0) {
        held *h = &t->copying.held[t->copying.first];
        if (status == MF_OK && h->ticket > n_ended)
            break;
        if (status != MF_OK)
            h->req->error = err;
        mfi_store_release(t->below, &h->ref, 1);
        if (status == MF_OK)
            arrived(t, h);
        finish(t, h->req, status);
        drop_first(t, &t->copying);
    }
}

static void begin(tier *t)
{
    while (t->head && t->n_reading + t->copying.n < t->n_held_max) {
        held h = {.req = t->head};
        uint16_t expert = (uint16_t)h.req->offset;
        t->head = h.req->next;
        if (!t->head)
            t->tail = &t->head;
        mf_status status =
            mfi_store_acquire(t->below, h.req->file, &expert, 1, &h.ref, &h.req->error);
        MFI_ASSERT(status == MF_OK); /* it never fails: failures show where they are waited for */
        if (t->device.n_slots > 0)   /* once this one is held, so that it doesn't make the room */
            bring_back(t, h.req);
        if (h.ref.ready)
            start_copy(t, h);
        else
            t->reading[t->n_reading++] = h;
    }
}

static void advance(tier *t, bool wait)
{
    take_fetched(t, false);
    take_read(t);
    take_copied(t, wait);
    begin(t);
}

static mfi_io_req *take_done(tier *t)
{
    mfi_io_req *req = t->done;
    if (req) {
        t->done = req->next;
        if (!t->done)
            t->done_tail = &t->done;
    }
    return req;
}

static void tier_submit(mfi_io *io, mfi_io_req *const *reqs, uint32_t n)
{
    tier *t = (tier *)io;
    for (uint32_t i = 0; i < n; i++) {
        reqs[i]->next = NULL;
        *t->tail = reqs[i];
        t->tail = &reqs[i]->next;
    }
    advance(t, false);
}

static mfi_io_req *tier_poll(mfi_io *io)
{
    tier *t = (tier *)io;
    if (!t->done)
        advance(t, false);
    return take_done(t);
}

/* Waits for the drive only while nothing is being copied: a copy is the shorter wait, and after it
 * what was read meanwhile can start. */
static mfi_io_req *tier_wait(mfi_io *io)
{
    tier *t = (tier *)io;
    advance(t, false);
    while (!t->done && (t->n_reading || t->copying.n || t->head)) {
        if (t->copying.n == 0 && t->fetching.n > 0) { /* one that is waited for may be among them */
            take_fetched(t, true);
        } else if (t->copying.n == 0) {
            mfi_expert_ref ref = t->reading[0].ref; /* any error shows at take_read */
            (void)mfi_store_wait(t->below, &ref, 1, NULL);
        }
        advance(t, true);
    }
    return take_done(t);
}

static void tier_stats(const mfi_io *io, mfi_io_stats *stats)
{
    const tier *t = (const tier *)io;
    *stats = (mfi_io_stats){.n_reads = t->stats.n_copies, .bytes = t->stats.bytes};
}

void mfi_tier_stats_get(const mfi_io *io, mfi_tier_stats *stats)
{
    *stats = ((const tier *)io)->stats;
}

bool mfi_tier_spare(void *io, uint32_t layer, uint32_t expert)
{
    return mfi_store_cached(((const tier *)io)->below, layer, (uint16_t)expert);
}

static void tier_close(mfi_io *io)
{
    tier *t = (tier *)io;
    while (tier_wait(io))
        ;
    while (t->fetching.n > 0)
        take_fetched(t, true);
    free(t->reading);
    free(t->copying.held);
    free(t->fetching.held);
    free(t->key_at);
    free(t);
}

mf_status mfi_tier_open(mfi_io **io, mfi_store *below, const mfi_mover *mover, uint32_t n_held,
                        const mfi_tier_slots *exclusive, mf_error *err)
{
    MFI_ASSERT(n_held > 0);
    tier *t = calloc(1, sizeof *t);
    if (!t)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a tier of experts");
    *t = (tier){.base = {.submit = tier_submit,
                         .poll = tier_poll,
                         .wait = tier_wait,
                         .stats = tier_stats,
                         .close = tier_close},
                .below = below,
                .mover = *mover,
                .n_held_max = n_held,
                .n_experts = mfi_store_n_experts(below),
                .reading = calloc(n_held, sizeof *t->reading),
                .copying.held = calloc(n_held, sizeof *t->copying.held),
                .fetching.held = calloc(n_held, sizeof *t->fetching.held)};
    t->tail = &t->head;
    t->done_tail = &t->done;
    if (exclusive)
        t->key_at = malloc(exclusive->n_slots * sizeof *t->key_at);
    if (!t->reading || !t->copying.held || !t->fetching.held || (exclusive && !t->key_at)) {
        tier_close(&t->base);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a tier of experts");
    }
    if (exclusive) {
        t->device = *exclusive;
        memset(t->key_at, 0xff, exclusive->n_slots * sizeof *t->key_at);
    }
    *io = &t->base;
    return MF_OK;
}

mf_status mfi_tier_table(const mfi_expert_table *below, mfi_expert_table *table,
                         mfi_expert_part **parts, mf_error *err)
{
    size_t n = (size_t)below->n_layers * below->n_experts;
    *parts = calloc(n, sizeof **parts);
    if (!*parts)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the table of %zu experts", n);
    for (size_t i = 0; i < n; i++)
        (*parts)[i] = (mfi_expert_part){.file = (uint32_t)(i / below->n_experts),
                                        .offset = i % below->n_experts,
                                        .len = (uint32_t)below->slot_bytes};
    *table = *below;
    table->n_parts = 1;
    table->parts = *parts;
    return MF_OK;
}
