/* Reader threads behind io.h. Owns the readers, the queue of requests and the list of those that
 * finished; one mutex guards them all. Requests are caller-owned links: submit, poll and wait
 * allocate nothing, except that submit starts readers as the first requests come. The engine's
 * caller is one thread; files are only read. Reads go in pieces, direct ones where the
 * options and the request allow them.
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
    uint32_t n_queued, n_under_way; /* under way: submitted and not handed back */
    uint32_t n_started, n_idle;
    bool stop;
    mfi_io_stats stats;

    pthread_t threads[]; /* [n_threads] */
} io_threads;

/* ---- reading, on a reader's thread ---- */

/* Reads exactly [offset, offset + len). EIO is tried once more: drives and network filesystems do
 * recover. `retried` is the request's. */
static mf_status read_piece(io_threads *t, uint32_t source, char *dst, uint64_t len,
                            uint64_t offset, bool *retried, mf_error *err)
{
    const mfi_file *file = t->sources.files[source];
    while (len > 0) {
        bool quiet = !atomic_load_explicit(&t->no_dontcache, memory_order_relaxed);
        ssize_t n = quiet ? mfi_file_read_quietly(file, dst, (size_t)len, offset)
                          : pread(file->fd, dst, (size_t)len, (off_t)offset);
        if (n > 0) {
            dst += n;
            len -= (uint64_t)n;
            offset += (uint64_t)n;
        } else if (n == 0) {
            return mfi_sources_fail(&t->sources, source, offset, len, 0, err);
        } else if (quiet && (errno == EOPNOTSUPP || errno == ENOSYS)) {
            atomic_store_explicit(&t->no_dontcache, true, memory_order_relaxed);
            return MF_ERR_UNSUPPORTED; /* for the caller, who looks at the page cache first */
        } else if (errno == EIO && !*retried) {
            *retried = true;
        } else if (errno != EINTR) {
            return mfi_sources_fail(&t->sources, source, offset, len, errno, err);
        }
    }
    return MF_OK;
}

/* The same where we have to look after the page cache ourselves. */
static mf_status read_piece_and_drop(io_threads *t, uint32_t file, char *dst, uint64_t len,
                                     uint64_t offset, bool *retried, uint64_t *dropped_bytes,
                                     mf_error *err)
{
    const mfi_sources *s = &t->sources;
    mfi_page_run runs[MFI_PAGE_RUNS];
    pthread_mutex_lock(&t->lock);
    void *map = mfi_sources_map(&t->sources, file);
    pthread_mutex_unlock(&t->lock);
    uint32_t n = mfi_page_missing(s->files[file], map, s->page_bytes, offset, len, runs);
    mf_status status = read_piece(t, file, dst, len, offset, retried, err);
    *dropped_bytes += mfi_page_drop(s->files[file], runs, n); /* a failed read leaves pages, too */
    return status;
}

/* A piece past the page cache. MF_ERR_UNSUPPORTED, for the caller, if that can't be. */
static mf_status read_piece_direct(io_threads *t, uint32_t file, char *dst, uint64_t len,
                                   uint64_t offset, char *edges, bool *retried, mf_error *err)
{
    const mfi_direct *direct = &t->sources.direct[file];
    mfi_direct_read read;
    while (len > 0) {
        if (!mfi_direct_plan(direct, offset, len, dst, edges, &read))
            return MF_ERR_UNSUPPORTED;
        ssize_t n = preadv(direct->fd, read.iov, read.n_iov, (off_t)read.offset);
        uint64_t got = n > 0 ? mfi_direct_finish(&read, (uint64_t)n) : 0;
        if (n >= 0 && got == 0)
            return mfi_sources_fail(&t->sources, file, offset, len, 0, err);
        if (n < 0 && (errno == EINVAL || errno == EOPNOTSUPP))
            return MF_ERR_UNSUPPORTED;
        if (n < 0 && errno == EIO && !*retried)
            *retried = true;
        else if (n < 0 && errno != EINTR)
            return mfi_sources_fail(&t->sources, file, offset, len, errno, err);
        dst += got;
        offset += got;
        len -= got;
    }
    return MF_OK;
}

typedef struct tally { /* of one request */
    uint64_t dropped_bytes, direct_bytes;
} tally;

static mf_status read_request(io_threads *t, mfi_io_req *req, tally *sum)
{
    _Alignas(MFI_DIRECT_ALIGN_MAX) char edges[2 * MFI_DIRECT_ALIGN_MAX];
    MFI_TRY(mfi_sources_begin(&t->sources, req));
    bool direct = mfi_direct_fits(&t->sources.direct[req->file], req->offset, req->dst);
    uint64_t at = 0;
    bool retried = false;
    while (at < req->len) {
        char *dst = (char *)req->dst + at;
        uint64_t offset = req->offset + at;
        uint64_t len = mfi_sources_piece(&t->sources, offset, req->len - at, direct);
        mf_status status = MF_ERR_UNSUPPORTED;
        if (direct) {
            status =
                read_piece_direct(t, req->file, dst, len, offset, edges, &retried, &req->error);
            if (status == MF_OK)
                sum->direct_bytes += len;
            direct = status == MF_OK;
            if (status == MF_ERR_UNSUPPORTED)
                continue; /* the same and all others in buffered pieces */
        } else if (!atomic_load_explicit(&t->no_dontcache, memory_order_relaxed)) {
            status = read_piece(t, req->file, dst, len, offset, &retried, &req->error);
        }
        if (status == MF_ERR_UNSUPPORTED)
            status = read_piece_and_drop(t, req->file, dst, len, offset, &retried,
                                         &sum->dropped_bytes, &req->error);
        if (status != MF_OK)
            return status;
        at += len;
    }
    return MF_OK;
}

/* ---- queues; the lock is held ---- */

/* Takes the oldest request, serves it without the lock, and lists it as done. */
static void serve_one(io_threads *t)
{
    mfi_io_req *req = mfi_req_pop(&t->queue);
    t->n_queued--;
    pthread_mutex_unlock(&t->lock);
    tally sum = {0};
    req->status = read_request(t, req, &sum);
    req->done_ns = mfi_clock_ns();
    pthread_mutex_lock(&t->lock);
    t->stats.n_reads++;
    t->stats.dropped_bytes += sum.dropped_bytes;
    t->stats.direct_bytes += sum.direct_bytes;
    if (req->status == MF_OK)
        t->stats.bytes += req->len;
    mfi_req_push(&t->finished, req);
    pthread_cond_signal(&t->done);
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

/* Starts readers while there are more requests than idle ones. A reader that can't be started is no
 * failure: others serve its requests, at worst the caller in poll and wait. */
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
        MFI_ASSERT(reqs[i]->file < t->sources.n);
        mfi_req_push(&t->queue, reqs[i]);
    }
    t->n_queued += n;
    t->n_under_way += n;
    start_readers(t);
    for (uint32_t i = 0; i < MFI_MIN(n, t->n_idle); i++)
        pthread_cond_signal(&t->work);
    pthread_mutex_unlock(&t->lock);
}

/* Without a single reader the caller has to work itself; otherwise nothing. */
static void help(io_threads *t)
{
    if (t->n_started == 0 && t->queue.head && !t->finished.head)
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
