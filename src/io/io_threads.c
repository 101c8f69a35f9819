/* Reader threads behind io.h. Owns the readers, the queue of requests and the list of those that
 * finished; one mutex guards them all. Requests are caller-owned links: submit, poll and wait
 * allocate nothing, except that submit starts readers as the first requests come. The engine's
 * caller is one thread; files are only read. Readers take requests piece by piece, so that a long
 * one keeps all of them busy; direct pieces where the options and the request allow them.
 *
 * Page cache: what comes because of us goes again with each piece. Linux 6.14 does that itself
 * (RWF_DONTCACHE), filesystem by filesystem; elsewhere page_cache.h does. */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "io/sources.h"

#define STACK_BYTES ((size_t)256 << 10)

typedef struct io_threads {
    mfi_io base;
    mfi_sources sources;
    uint32_t n_threads;
    atomic_bool no_dontcache; /* the system or a filesystem refused RWF_DONTCACHE */

    pthread_mutex_t lock; /* guards everything below, and the sources' maps */
    pthread_cond_t work, done;
    mfi_req_list queue, finished;
    uint32_t n_queued;    /* pieces that no reader has taken */
    uint32_t n_under_way; /* requests submitted and not handed back */
    uint32_t n_started, n_idle;
    bool stop;
    mfi_io_stats stats;

    pthread_t threads[]; /* [n_threads] */
} io_threads;

/* A part of a request, and where it goes. */
typedef struct piece {
    mfi_io_req *req;
    uint64_t offset, len;
    char *dst;
    bool direct;
} piece;

typedef struct tally { /* of a piece */
    uint64_t dropped_bytes, direct_bytes;
} tally;

/* ---- reading, on a reader's thread ---- */

/* EIO is tried once more, a request: drives and network filesystems do recover. */
static bool may_retry(io_threads *t, mfi_io_req *req)
{
    pthread_mutex_lock(&t->lock);
    bool first = !req->retried;
    req->retried = true;
    pthread_mutex_unlock(&t->lock);
    return first;
}

/* Reads exactly the piece. */
static mf_status read_piece(io_threads *t, piece p, mf_error *err)
{
    uint32_t source = p.req->file;
    const mfi_file *file = t->sources.files[source];
    while (p.len > 0) {
        bool quiet = !atomic_load_explicit(&t->no_dontcache, memory_order_relaxed);
        ssize_t n = quiet ? mfi_file_read_quietly(file, p.dst, (size_t)p.len, p.offset)
                          : pread(file->fd, p.dst, (size_t)p.len, (off_t)p.offset);
        if (n > 0) {
            p.dst += n;
            p.len -= (uint64_t)n;
            p.offset += (uint64_t)n;
        } else if (n == 0) {
            return mfi_sources_fail(&t->sources, source, p.offset, p.len, 0, err);
        } else if (quiet && (errno == EOPNOTSUPP || errno == ENOSYS)) {
            atomic_store_explicit(&t->no_dontcache, true, memory_order_relaxed);
            return MF_ERR_UNSUPPORTED; /* for the caller, who looks at the page cache first */
        } else if (errno != EINTR) {
            int error = errno;
            if (error != EIO || !may_retry(t, p.req))
                return mfi_sources_fail(&t->sources, source, p.offset, p.len, error, err);
        }
    }
    return MF_OK;
}

/* The same where we have to look after the page cache ourselves. */
static mf_status read_piece_and_drop(io_threads *t, piece p, tally *sum, mf_error *err)
{
    const mfi_file *file = t->sources.files[p.req->file];
    mfi_page_run runs[MFI_PAGE_RUNS];
    pthread_mutex_lock(&t->lock);
    void *map = mfi_sources_map(&t->sources, p.req->file);
    pthread_mutex_unlock(&t->lock);
    uint32_t n = mfi_page_missing(file, map, t->sources.page_bytes, p.offset, p.len, runs);
    mf_status status = read_piece(t, p, err);
    sum->dropped_bytes += mfi_page_drop(file, runs, n); /* a failed read leaves pages, too */
    return status;
}

/* A piece past the page cache. MF_ERR_UNSUPPORTED, for the caller, if that can't be. */
static mf_status read_piece_direct(io_threads *t, piece p, mf_error *err)
{
    _Alignas(MFI_DIRECT_ALIGN_MAX) char edges[2 * MFI_DIRECT_ALIGN_MAX];
    uint32_t source = p.req->file;
    const mfi_direct *direct = &t->sources.direct[source];
    mfi_direct_read read;
    while (p.len > 0) {
        if (!mfi_direct_plan(direct, p.offset, p.len, p.dst, edges, &read))
            return MF_ERR_UNSUPPORTED;
        ssize_t n = preadv(direct->fd, read.iov, read.n_iov, (off_t)read.offset);
        int error = errno;
        uint64_t got = n > 0 ? mfi_direct_finish(&read, (uint64_t)n) : 0;
        if (n >= 0 && got == 0)
            return mfi_sources_fail(&t->sources, source, p.offset, p.len, 0, err);
        if (n < 0 && (error == EINVAL || error == EOPNOTSUPP))
            return MF_ERR_UNSUPPORTED;
        if (n < 0 && error != EINTR && (error != EIO || !may_retry(t, p.req)))
            return mfi_sources_fail(&t->sources, source, p.offset, p.len, error, err);
        p.dst += got;
        p.offset += got;
        p.len -= got;
    }
    return MF_OK;
}

static mf_status read_any(io_threads *t, piece p, tally *sum, mf_error *err)
{
    mf_status status = p.direct ? read_piece_direct(t, p, err) : MF_ERR_UNSUPPORTED;
    if (status == MF_OK)
        sum->direct_bytes += p.len;
    if (status != MF_ERR_UNSUPPORTED)
        return status;
    /* What was to be read directly is longer than the page cache may grow. */
    for (uint64_t left = p.len; left > 0; left -= p.len, p.offset += p.len, p.dst += p.len) {
        p.len = mfi_sources_piece(&t->sources, p.offset, left, false);
        status = MF_ERR_UNSUPPORTED;
        if (!atomic_load_explicit(&t->no_dontcache, memory_order_relaxed))
            status = read_piece(t, p, err);
        if (status == MF_ERR_UNSUPPORTED)
            status = read_piece_and_drop(t, p, sum, err);
        MFI_TRY(status);
    }
    return MF_OK;
}

/* ---- queues; the lock is held ---- */

/* The next piece of a request that has one. */
static piece next_piece(const io_threads *t, mfi_io_req *req, uint64_t at)
{
    piece p = {.req = req, .offset = req->offset + at, .dst = (char *)req->dst + at};
    p.direct = mfi_direct_fits(&t->sources.direct[req->file], p.offset, p.dst);
    p.len = mfi_sources_piece(&t->sources, p.offset, req->len - at, p.direct);
    return p;
}

/* Pieces of a request that weren't taken. */
static uint32_t count_pieces(const io_threads *t, mfi_io_req *req)
{
    uint32_t n = 0;
    for (uint64_t at = req->n_taken; at < req->len; n++)
        at += next_piece(t, req, at).len;
    return n;
}

static void finish(io_threads *t, mfi_io_req *req)
{
    req->done_ns = mfi_clock_ns();
    t->stats.n_reads++;
    if (req->status == MF_OK)
        t->stats.bytes += req->len;
    mfi_req_push(&t->finished, req);
    pthread_cond_signal(&t->done);
}

/* Of a request's failures the one at the lowest offset is told (done_ns holds that until the
 * request is finished); what no reader has taken nobody will. */
static void fail_piece(io_threads *t, const piece *p, mf_status status, const mf_error *err)
{
    mfi_io_req *req = p->req;
    if (req->status != MF_OK && p->offset > req->done_ns)
        return;
    req->done_ns = p->offset;
    req->status = status;
    req->error = *err;
    if (req->n_taken < req->len) {
        MFI_ASSERT(t->queue.head == req);
        t->n_queued -= count_pieces(t, req);
        mfi_req_pop(&t->queue);
        req->n_taken = req->len;
    }
}

/* Takes the oldest request's next piece, serves it without the lock, and lists the request as done
 * if it was the last. */
static void serve_one(io_threads *t)
{
    mfi_io_req *req = t->queue.head;
    piece p = next_piece(t, req, req->n_taken);
    req->n_taken += p.len;
    req->n_pieces++;
    t->n_queued--;
    if (req->n_taken == req->len)
        mfi_req_pop(&t->queue);
    pthread_mutex_unlock(&t->lock);
    tally sum = {0};
    mf_error err;
    mf_status status = read_any(t, p, &sum, &err);
    pthread_mutex_lock(&t->lock);
    t->stats.dropped_bytes += sum.dropped_bytes;
    t->stats.direct_bytes += sum.direct_bytes;
    if (status != MF_OK)
        fail_piece(t, &p, status, &err);
    if (--req->n_pieces == 0 && req->n_taken == req->len)
        finish(t, req);
}

static void *reader_main(void *arg)
{
    io_threads *t = arg;
    pthread_mutex_lock(&t->lock);
    for (;;) {
        if (t->queue.head) {
            serve_one(t);
        } else if (t->stop) {
            break;
        } else {
            t->n_idle++;
            pthread_cond_wait(&t->work, &t->lock);
            t->n_idle--;
        }
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

/* Starts readers while there are more pieces than idle ones. A reader that can't be started is no
 * failure: others serve its pieces, at worst the caller in poll and wait. */
static void start_readers(io_threads *t)
{
    if (t->n_started == t->n_threads || t->n_queued <= t->n_idle)
        return;
    uint32_t n = MFI_MIN(t->n_threads - t->n_started, t->n_queued - t->n_idle);
    pthread_attr_t attr;
    if (pthread_attr_init(&attr) != 0)
        return;
    pthread_attr_setstacksize(&attr, MFI_MAX(STACK_BYTES, (size_t)PTHREAD_STACK_MIN));
    sigset_t all, before; /* signals stay with the application's threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (n-- > 0 && pthread_create(&t->threads[t->n_started], &attr, reader_main, t) == 0)
        t->n_started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
}

/* ---- the interface ---- */

static void io_submit(mfi_io *io, mfi_io_req *const *reqs, uint32_t n)
{
    io_threads *t = (io_threads *)io;
    pthread_mutex_lock(&t->lock);
    for (uint32_t i = 0; i < n; i++) {
        mfi_io_req *req = reqs[i];
        req->status = mfi_sources_begin(&t->sources, req);
        req->n_taken = 0;
        req->n_pieces = 0;
        req->retried = false;
        if (req->len == 0 || req->status != MF_OK) {
            finish(t, req);
            continue;
        }
        mfi_req_push(&t->queue, req);
        t->n_queued += count_pieces(t, req);
    }
    t->n_under_way += n;
    start_readers(t);
    for (uint32_t i = 0; i < MFI_MIN(t->n_queued, t->n_idle); i++)
        pthread_cond_signal(&t->work);
    pthread_mutex_unlock(&t->lock);
}

/* Without a single reader the caller has to work itself; otherwise nothing. */
static void help(io_threads *t)
{
    while (t->n_started == 0 && t->queue.head && !t->finished.head)
        serve_one(t);
}

static mfi_io_req *take_done(io_threads *t)
{
    mfi_io_req *req = mfi_req_pop(&t->finished);
    if (req)
        t->n_under_way--;
    return req;
}

static mfi_io_req *io_poll(mfi_io *io)
{
    io_threads *t = (io_threads *)io;
    pthread_mutex_lock(&t->lock);
    help(t);
    mfi_io_req *req = take_done(t);
    pthread_mutex_unlock(&t->lock);
    return req;
}

static mfi_io_req *io_wait(mfi_io *io)
{
    io_threads *t = (io_threads *)io;
    pthread_mutex_lock(&t->lock);
    help(t);
    while (!t->finished.head && t->n_under_way > 0)
        pthread_cond_wait(&t->done, &t->lock);
    mfi_io_req *req = take_done(t);
    pthread_mutex_unlock(&t->lock);
    return req;
}

static void io_stats(const mfi_io *io, mfi_io_stats *stats)
{
    io_threads *t = (io_threads *)io; /* the lock isn't part of what const promises */
    pthread_mutex_lock(&t->lock);
    *stats = t->stats;
    pthread_mutex_unlock(&t->lock);
}

static void io_close(mfi_io *io)
{
    io_threads *t = (io_threads *)io;
    pthread_mutex_lock(&t->lock);
    while (t->n_started == 0 && t->queue.head)
        serve_one(t);
    t->stop = true;
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->lock);
    for (uint32_t i = 0; i < t->n_started; i++)
        pthread_join(t->threads[i], NULL);
    pthread_cond_destroy(&t->done);
    pthread_cond_destroy(&t->work);
    pthread_mutex_destroy(&t->lock);
    mfi_sources_close(&t->sources);
    free(t);
}

mf_status mfi_io_threads_open(mfi_io **io, const mfi_file *const *files, uint32_t n_files,
                              const mfi_io_options *options, mf_error *err)
{
    mfi_sources sources = {0};
    MFI_TRY(mfi_sources_open(&sources, files, n_files, options, err));
    io_threads *t = calloc(1, sizeof *t + options->n_readers * sizeof *t->threads);
    if (!t) {
        mfi_sources_close(&sources);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory for %u reader threads",
                        options->n_readers);
    }
    t->base = (mfi_io){io_submit, io_poll, io_wait, io_stats, io_close};
    t->sources = sources;
    t->n_threads = options->n_readers;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->work, NULL);
    pthread_cond_init(&t->done, NULL);
    *io = &t->base;
    return MF_OK;
}

void mfi_io_threads_pretend(mfi_io *io, bool no_dontcache, bool no_mincore)
{
    io_threads *t = (io_threads *)io;
    atomic_store(&t->no_dontcache, no_dontcache);
    t->sources.no_mincore = no_mincore;
}
