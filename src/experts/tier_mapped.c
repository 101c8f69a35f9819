/* The files' mapping as a tier; see tier_mapped.h. Owns nothing but its lists; borrows ranges and
 * mover. One thread calls it. Allocates at open.
 *
 * A copy starts as soon as it is asked for. Copies end in the order they were started, so what is
 * under way is a queue. */
#include "experts/tier_mapped.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/clock.h"

typedef struct tier {
    mfi_io base;
    const mfi_mapped_range *ranges;
    uint32_t n_ranges;
    mfi_mover mover;
    mfi_io_req *copying, **copying_tail;
    mfi_io_req *done, **done_tail; /* to be handed back */
    uint64_t n_copies, bytes;
} tier;

static void finish(tier *t, mfi_io_req *req, mf_status status)
{
    req->status = status;
    req->done_ns = mfi_clock_ns();
    req->next = NULL;
    *t->done_tail = req;
    t->done_tail = &req->next;
}

/* The last range that begins at or before a place. */
static const mfi_mapped_range *range_before(const tier *t, uint32_t file, uint64_t offset)
{
    uint32_t begin = 0, end = t->n_ranges;
    while (begin < end) {
        uint32_t mid = begin + (end - begin) / 2;
        const mfi_mapped_range *r = &t->ranges[mid];
        if (r->file < file || (r->file == file && r->offset <= offset))
            begin = mid + 1;
        else
            end = mid;
    }
    return begin ? &t->ranges[begin - 1] : NULL;
}

static mf_status start(tier *t, mfi_io_req *req)
{
    const mfi_mapped_range *r = range_before(t, req->file, req->offset);
    uint64_t at = r ? req->offset - r->offset : 0;
    if (!r || r->file != req->file || at > r->len || req->len > r->len - at)
        return mfi_fail(&req->error, MF_ERR_TENSOR_BOUNDS,
                        "file %" PRIu32 ", offset %" PRIu64 ": %" PRIu64
                        " bytes are not inside any range that the device can copy from",
                        req->file, req->offset, req->len);
    return t->mover.copy(t->mover.ctx, req->dst, r->at + at, req->len, &req->n_taken, &req->error);
}

static void tier_submit(mfi_io *io, mfi_io_req *const *reqs, uint32_t n)
{
    tier *t = (tier *)io;
    for (uint32_t i = 0; i < n; i++) {
        mf_status status = start(t, reqs[i]);
        if (status != MF_OK) {
            finish(t, reqs[i], status);
            continue;
        }
        t->n_copies++;
        t->bytes += reqs[i]->len;
        reqs[i]->next = NULL;
        *t->copying_tail = reqs[i];
        t->copying_tail = &reqs[i]->next;
    }
}

/* Hands back requests whose copies have ended; waits for the first of them if wanted. */
static void advance(tier *t, bool wait)
{
    uint64_t n_ended = 0;
    mf_error err;
    if (!t->copying)
        return;
    mf_status status =
        t->mover.copied(t->mover.ctx, wait ? t->copying->n_taken : 0, &n_ended, &err);
    while (t->copying && (status != MF_OK || t->copying->n_taken <= n_ended)) {
        mfi_io_req *req = t->copying;
        t->copying = req->next;
        if (status != MF_OK)
            req->error = err;
        finish(t, req, status);
    }
    if (!t->copying)
        t->copying_tail = &t->copying;
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

static mfi_io_req *tier_poll(mfi_io *io)
{
    tier *t = (tier *)io;
    if (!t->done)
        advance(t, false);
    return take_done(t);
}

static mfi_io_req *tier_wait(mfi_io *io)
{
    tier *t = (tier *)io;
    if (!t->done)
        advance(t, true);
    return take_done(t);
}

static void tier_stats(const mfi_io *io, mfi_io_stats *stats)
{
    const tier *t = (const tier *)io;
    *stats = (mfi_io_stats){.n_reads = t->n_copies, .bytes = t->bytes};
}

static void tier_close(mfi_io *io)
{
    while (tier_wait(io))
        ;
    free(io);
}

mf_status mfi_tier_mapped_open(mfi_io **io, const mfi_mapped_range *ranges, uint32_t n,
                               const mfi_mover *mover, mf_error *err)
{
    tier *t = calloc(1, sizeof *t);
    if (!t)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a tier of experts");
    *t = (tier){.base = {.submit = tier_submit,
                         .poll = tier_poll,
                         .wait = tier_wait,
                         .stats = tier_stats,
                         .close = tier_close},
                .ranges = ranges,
                .n_ranges = n,
                .mover = *mover};
    t->copying_tail = &t->copying;
    t->done_tail = &t->done;
    *io = &t->base;
    return MF_OK;
}
