/* A tier of memory between the drive and a device; see tier.h. Owns its references in the store
 * below; borrows that store and the mover. One thread calls it: requests advance in submit, poll
 * and wait only. Allocates at open.
 *
 * A request waits in a queue, then holds a reference until the expert is in host memory (reading),
 * then until its copy has ended (copying). Copies end in the order they were started, so those are
 * a queue as well. */
#include "experts/tier.h"

#include <stdlib.h>

#include "base/clock.h"

typedef struct held {
    mfi_io_req *req;
    mfi_expert_ref ref;
    uint64_t ticket;
} held;

typedef struct tier {
    mfi_io base;
    mfi_store *below;
    mfi_mover mover;
    uint32_t n_held_max;
    mfi_io_req *head, **tail; /* not begun */
    held *reading, *copying;  /* [n_held_max] each; copying is a ring */
    uint32_t n_reading, first, n_copying;
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
    t->copying[(t->first + t->n_copying++) % t->n_held_max] = h;
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

/* Hands back requests whose copies have ended; waits for the first of them if wanted. */
static void take_copied(tier *t, bool wait)
{
    uint64_t n_ended = 0;
    if (t->n_copying == 0)
        return;
    mf_error err;
    mf_status status =
        t->mover.copied(t->mover.ctx, wait ? t->copying[t->first].ticket : 0, &n_ended, &err);
    while (t->n_copying > 0) {
        held *h = &t->copying[t->first];
        if (status == MF_OK && h->ticket > n_ended)
            break;
        if (status != MF_OK)
            h->req->error = err;
        mfi_store_release(t->below, &h->ref, 1);
        finish(t, h->req, status);
        t->first = (t->first + 1) % t->n_held_max;
        t->n_copying--;
    }
}

static void begin(tier *t)
{
    while (t->head && t->n_reading + t->n_copying < t->n_held_max) {
        held h = {.req = t->head};
        uint16_t expert = (uint16_t)h.req->offset;
        t->head = h.req->next;
        if (!t->head)
            t->tail = &t->head;
        mf_status status =
            mfi_store_acquire(t->below, h.req->file, &expert, 1, &h.ref, &h.req->error);
        MFI_ASSERT(status == MF_OK); /* it never fails: failures show where they are waited for */
        if (h.ref.ready)
            start_copy(t, h);
        else
            t->reading[t->n_reading++] = h;
    }
}

static void advance(tier *t, bool wait)
{
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
    while (!t->done && (t->n_reading || t->n_copying || t->head)) {
        if (t->n_copying == 0) {
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

static void tier_close(mfi_io *io)
{
    tier *t = (tier *)io;
    while (tier_wait(io))
        ;
    free(t->reading);
    free(t->copying);
    free(t);
}

mf_status mfi_tier_open(mfi_io **io, mfi_store *below, const mfi_mover *mover, uint32_t n_held,
                        mf_error *err)
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
                .reading = calloc(n_held, sizeof *t->reading),
                .copying = calloc(n_held, sizeof *t->copying)};
    t->tail = &t->head;
    t->done_tail = &t->done;
    if (!t->reading || !t->copying) {
        tier_close(&t->base);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a tier of experts");
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
