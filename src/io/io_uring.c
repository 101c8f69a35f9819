/* The kernel's ring behind io.h: no thread of ours reads. Owns the ring, the pieces under way and
 * the lists of requests that wait and that are finished. One thread submits and collects: the ring
 * is touched in submit, poll, wait and close only, so a request of many pieces goes on only as far
 * as its owner calls; the store polls between two experts. After open nothing is allocated.
 *
 * Where the build or the system has no io_uring, opening fails with MF_ERR_UNSUPPORTED and the
 * reader threads do the work. */
#include "io/sources.h"

#ifdef MF_HAVE_LIBURING

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#ifndef RWF_DONTCACHE
#define RWF_DONTCACHE 0x80 /* Linux 6.14 */
#endif

/* Threads of the kernel's that read into fresh memory, beside ours that compute. */
#define ASYNC_WORKERS 2

/* A part of a request, and what has been read of it. */
typedef struct piece {
    mfi_io_req *req;
    uint64_t offset, len, done;
    char *dst;
    bool direct, quiet; /* how the read under way goes; neither: pages are dropped after it */
    mfi_direct_read read;
    struct iovec iov; /* of a buffered read */
    mfi_page_run runs[MFI_PAGE_RUNS];
    uint32_t n_runs;
} piece;

typedef struct io_uring_reader {
    mfi_io base;
    struct io_uring ring;
    mfi_sources sources;
    bool no_dontcache; /* system or filesystem refused RWF_DONTCACHE */
    uint32_t depth, n_free;
    piece *pieces;  /* [depth] */
    uint32_t *free; /* [depth], a stack */
    char *edges;    /* [depth][2][MFI_DIRECT_ALIGN_MAX] */
    mfi_req_list queue, finished;
    uint32_t n_under_way; /* requests submitted and not handed back */
    mfi_io_stats stats;
} io_uring_reader;

static void finish(io_uring_reader *u, mfi_io_req *req)
{
    req->done_ns = mfi_clock_ns();
    u->stats.n_reads++;
    if (req->status == MF_OK)
        u->stats.bytes += req->len;
    mfi_req_push(&u->finished, req);
}

/* ---- one read ---- */

/* Prepares the read of what is missing of a piece. The ring has room: it is as deep as there are
 * pieces. */
static void prepare(io_uring_reader *u, piece *p)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    MFI_ASSERT(sqe);
    const mfi_file *file = u->sources.files[p->req->file];
    const mfi_direct *direct = &u->sources.direct[p->req->file];
    uint64_t at = p->offset + p->done, left = p->len - p->done;
    char *dst = p->dst + p->done, *edges;
    edges = u->edges + (size_t)(p - u->pieces) * 2 * MFI_DIRECT_ALIGN_MAX;
    p->n_runs = 0;
    p->quiet = false;
    p->direct = mfi_direct_plan(direct, at, left, dst, edges, &p->read);
    if (p->direct) {
        io_uring_prep_readv(sqe, direct->fd, p->read.iov, (unsigned)p->read.n_iov, p->read.offset);
    } else {
        p->quiet = !u->no_dontcache;
        if (!p->quiet)
            p->n_runs = mfi_page_missing(file, mfi_sources_map(&u->sources, p->req->file),
                                         u->sources.page_bytes, at, left, p->runs);
        p->iov = (struct iovec){dst, (size_t)left};
        io_uring_prep_readv2(sqe, file->fd, &p->iov, 1, at, p->quiet ? RWF_DONTCACHE : 0);
    }
    io_uring_sqe_set_data(sqe, p);
    /* Finding memory takes longer than some reads, and would hold up who submits. */
    if (p->req->fresh)
        sqe->flags |= IOSQE_ASYNC;
}

/* Gives work to the kernel while there is some and pieces are free; never waits for it. */
static void pump(io_uring_reader *u)
{
    while (u->queue.head && u->n_free > 0) {
        mfi_io_req *req = u->queue.head;
        uint64_t offset = req->offset + req->n_taken, left = req->len - req->n_taken;
        char *dst = (char *)req->dst + req->n_taken;
        bool direct = mfi_direct_fits(&u->sources.direct[req->file], offset, dst);
        piece *p = &u->pieces[u->free[--u->n_free]];
        *p = (piece){.req = req,
                     .offset = offset,
                     .len = mfi_sources_piece(&u->sources, offset, left, direct),
                     .dst = dst};
        req->n_taken += p->len;
        req->n_pieces++;
        if (req->n_taken == req->len)
            mfi_req_pop(&u->queue);
        prepare(u, p);
    }
    if (io_uring_sq_ready(&u->ring) > 0)
        io_uring_submit(&u->ring); /* what it leaves goes with the next one */
}

/* ---- completions ---- */

/* Of a request's failures the one at the lowest offset is told (done_ns holds that until the
 * request is finished); what hasn't been asked for never will be. */
static void fail_piece(io_uring_reader *u, piece *p, int error)
{
    mfi_io_req *req = p->req;
    uint64_t at = p->offset + p->done, left = req->offset + req->len - at;
    if (req->status != MF_OK && at > req->done_ns)
        return;
    req->done_ns = at;
    req->status = mfi_sources_fail(&u->sources, req->file, at, left, error, &req->error);
    if (req->n_taken < req->len) {
        MFI_ASSERT(u->queue.head == req);
        mfi_req_pop(&u->queue);
        req->n_taken = req->len;
    }
}

/* What a read that failed asks for: true if it was prepared once more. */
static bool again(io_uring_reader *u, piece *p, int error)
{
    bool refused = error == EOPNOTSUPP || error == ENOSYS || error == EINVAL;
    if (p->direct && refused) {
        mfi_direct_close(&u->sources.direct[p->req->file]); /* the pieces under way end buffered */
    } else if (p->quiet && refused) {
        u->no_dontcache = true;
    } else if (error == EIO && !p->req->retried) {
        p->req->retried = true; /* drives and network filesystems do recover */
    } else if (error != EINTR && error != EAGAIN) {
        return false;
    }
    prepare(u, p);
    return true;
}

static void complete(io_uring_reader *u, piece *p, int32_t result)
{
    u->stats.dropped_bytes += mfi_page_drop(u->sources.files[p->req->file], p->runs, p->n_runs);
    if (result < 0 && again(u, p, -result))
        return;
    uint64_t got = result <= 0 ? 0
                   : p->direct ? mfi_direct_finish(&p->read, (uint64_t)result)
                               : (uint64_t)result;
    p->done += got;
    if (p->direct)
        u->stats.direct_bytes += got;
    if (got > 0 && p->done < p->len && p->req->status == MF_OK) {
        prepare(u, p);
        return;
    }
    if (p->done < p->len)
        fail_piece(u, p, result < 0 ? -result : 0);
    mfi_io_req *req = p->req;
    u->free[u->n_free++] = (uint32_t)(p - u->pieces);
    if (--req->n_pieces == 0 && req->n_taken == req->len)
        finish(u, req);
}

static void reap(io_uring_reader *u)
{
    struct io_uring_cqe *cqe;
    while (io_uring_peek_cqe(&u->ring, &cqe) == 0) {
        piece *p = io_uring_cqe_get_data(cqe);
        int32_t result = cqe->res;
        io_uring_cqe_seen(&u->ring, cqe);
        complete(u, p, result);
    }
    pump(u);
}

/* ---- the interface ---- */

static void ring_submit(mfi_io *io, mfi_io_req *const *reqs, uint32_t n)
{
    io_uring_reader *u = (io_uring_reader *)io;
    for (uint32_t i = 0; i < n; i++) {
        mfi_io_req *req = reqs[i];
        req->status = mfi_sources_begin(&u->sources, req);
        req->n_taken = 0;
        req->n_pieces = 0;
        req->retried = false;
        u->n_under_way++;
        if (req->len == 0 || req->status != MF_OK)
            finish(u, req);
        else
            mfi_req_push(&u->queue, req);
    }
    pump(u);
}

static mfi_io_req *take_done(io_uring_reader *u)
{
    mfi_io_req *req = mfi_req_pop(&u->finished);
    if (req)
        u->n_under_way--;
    return req;
}

static mfi_io_req *ring_poll(mfi_io *io)
{
    io_uring_reader *u = (io_uring_reader *)io;
    if (!u->finished.head)
        reap(u);
    return take_done(u);
}

static mfi_io_req *ring_wait(mfi_io *io)
{
    io_uring_reader *u = (io_uring_reader *)io;
    reap(u);
    while (!u->finished.head && u->n_under_way > 0) {
        int n = io_uring_submit_and_wait(&u->ring, 1);
        /* Want of memory passes and signals end; anything else is a ring that we broke. */
        MFI_ASSERT(n >= 0 || n == -EINTR || n == -EAGAIN || n == -EBUSY || n == -ENOMEM);
        reap(u);
    }
    return take_done(u);
}

static void ring_stats(const mfi_io *io, mfi_io_stats *stats)
{
    *stats = ((const io_uring_reader *)io)->stats;
}

static void free_reader(io_uring_reader *u)
{
    free(u->edges);
    free(u->free);
    free(u->pieces);
    mfi_sources_close(&u->sources);
    free(u);
}

static void ring_close(mfi_io *io)
{
    io_uring_reader *u = (io_uring_reader *)io;
    while (ring_wait(io) != NULL)
        ;
    io_uring_queue_exit(&u->ring);
    free_reader(u);
}

static mf_status open_ring(io_uring_reader *u, mf_error *err)
{
    int error = -io_uring_queue_init(u->depth, &u->ring, 0);
    if (error == ENOMEM)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for an I/O ring of %u reads", u->depth);
    if (error)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "this system gives no I/O ring: %s",
                        strerror(error));
    unsigned workers[2] = {ASYNC_WORKERS, ASYNC_WORKERS};
    io_uring_register_iowq_max_workers(&u->ring,
                                       workers); /* else the kernel takes its own number */
    return MF_OK;
}

mf_status mfi_io_uring_open(mfi_io **io, const mfi_file *const *files, uint32_t n_files,
                            const mfi_io_options *options, mf_error *err)
{
    io_uring_reader *u = calloc(1, sizeof *u);
    if (!u)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory for an I/O ring");
    mf_status status = mfi_sources_open(&u->sources, files, n_files, options, err);
    if (status != MF_OK) {
        free_reader(u);
        return status;
    }
    u->base = (mfi_io){ring_submit, ring_poll, ring_wait, ring_stats, ring_close};
    u->depth = u->n_free = options->n_readers;
    u->pieces = calloc(u->depth, sizeof *u->pieces);
    u->free = calloc(u->depth, sizeof *u->free);
    u->edges = aligned_alloc(MFI_DIRECT_ALIGN_MAX, (size_t)u->depth * 2 * MFI_DIRECT_ALIGN_MAX);
    if (!u->pieces || !u->free || !u->edges)
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory for an I/O ring");
    if (status == MF_OK)
        status = open_ring(u, err);
    if (status != MF_OK) {
        free_reader(u);
        return status;
    }
    for (uint32_t i = 0; i < u->depth; i++)
        u->free[i] = i;
    *io = &u->base;
    return MF_OK;
}

void mfi_io_uring_pretend(mfi_io *io, bool no_dontcache, bool no_mincore)
{
    io_uring_reader *u = (io_uring_reader *)io;
    u->no_dontcache = no_dontcache;
    u->sources.no_mincore = no_mincore;
}

#else

mf_status mfi_io_uring_open(mfi_io **io, const mfi_file *const *files, uint32_t n_files,
                            const mfi_io_options *options, mf_error *err)
{
    (void)io, (void)files, (void)n_files, (void)options;
    return mfi_fail(err, MF_ERR_UNSUPPORTED, "built without liburing");
}

void mfi_io_uring_pretend(mfi_io *io, bool no_dontcache, bool no_mincore)
{
    (void)io, (void)no_dontcache, (void)no_mincore;
}

#endif
