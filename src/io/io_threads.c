/* Reader threads behind io.h. Owns the readers, the queue of requests and the list of those that
 * finished; one mutex guards them all. Requests are caller-owned links: submit, poll and wait
 * allocate nothing, except that submit starts readers as the first requests come. The engine's
 * caller is one thread; files are only read. It never changes what a request reads: buffered pread,
 * in pieces.
 *
 * Page cache: where the system can say so (RWF_NOWAIT), bytes that come at once were cached before
 * us and stay. Everything else is ours: its pages go to a ring, and the oldest are dropped once
 * more than page_cache_bytes gathered, the rest at close. What readers are reading just now (a
 * piece each) comes on top. */
#include "io/io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"

#define STACK_BYTES ((size_t)256 << 10)
#define PIECE_BYTES ((uint64_t)1 << 20) /* larger ones read no faster, and each is slack */
#define N_OURS      4096

typedef struct cache_range {
    uint32_t file;
    uint64_t begin, end; /* bytes, on page borders */
} cache_range;

typedef struct io_threads {
    mfi_io base;
    const mfi_file **files; /* [n_files]; the array is ours, the files aren't */
    uint32_t n_files, n_threads;
    uint64_t page_bytes, page_cache_bytes;
    atomic_bool no_nowait; /* the system or a filesystem refused RWF_NOWAIT */

    pthread_mutex_t lock; /* guards everything below */
    pthread_cond_t work, done;
    mfi_io_req *queue_head, *queue_tail, *done_head, *done_tail;
    uint32_t n_queued, n_under_way; /* under way: submitted and not handed back */
    uint32_t n_started, n_idle;
    bool stop;
    mfi_io_stats stats;
    uint64_t ours_bytes;
    uint32_t ours_first, n_ours;
    cache_range ours[N_OURS]; /* a ring, oldest first */

    pthread_t threads[]; /* [n_threads] */
} io_threads;

/* ---- page cache ---- */

static void drop(const io_threads *t, const cache_range *range)
{
#ifdef POSIX_FADV_DONTNEED
    posix_fadvise(t->files[range->file]->fd, (off_t)range->begin,
                  (off_t)(range->end - range->begin), POSIX_FADV_DONTNEED);
#else
    (void)t, (void)range;
#endif
}

static cache_range pop_oldest(io_threads *t)
{
    cache_range range = t->ours[t->ours_first];
    t->ours_first = (t->ours_first + 1) % N_OURS;
    t->n_ours--;
    t->ours_bytes -= range.end - range.begin;
    t->stats.dropped_bytes += range.end - range.begin;
    return range;
}

/* Dropping leaves partly covered pages alone, so ranges are widened to page borders. A page that
 * two ranges share is counted twice: more is dropped, never less. */
static void note_ours(io_threads *t, uint32_t file, uint64_t offset, uint64_t len)
{
#ifdef POSIX_FADV_DONTNEED
    cache_range range = {file, offset & ~(t->page_bytes - 1),
                         mfi_align_up(offset + len, t->page_bytes)};
    cache_range oldest;
    pthread_mutex_lock(&t->lock);
    if (t->n_ours == N_OURS) {
        oldest = pop_oldest(t);
        pthread_mutex_unlock(&t->lock);
        drop(t, &oldest);
        pthread_mutex_lock(&t->lock);
    }
    /* Another reader may have filled the place meanwhile: then this range goes at once. */
    if (t->n_ours == N_OURS) {
        t->stats.dropped_bytes += range.end - range.begin;
        pthread_mutex_unlock(&t->lock);
        drop(t, &range);
        return;
    }
    t->ours[(t->ours_first + t->n_ours++) % N_OURS] = range;
    t->ours_bytes += range.end - range.begin;
    while (t->ours_bytes > t->page_cache_bytes) {
        oldest = pop_oldest(t);
        pthread_mutex_unlock(&t->lock);
        drop(t, &oldest);
        pthread_mutex_lock(&t->lock);
    }
    pthread_mutex_unlock(&t->lock);
#else
    (void)t, (void)file, (void)offset, (void)len; /* F_NOCACHE leaves nothing behind */
#endif
}

/* ---- reading, on a reader's thread ---- */

/* The bytes at the range's begin that the page cache holds, copied to dst. Asked once a piece: the
 * question itself makes the kernel read ahead what was missing, so a second answer would count our
 * own pages. */
static uint64_t read_cached(io_threads *t, int fd, void *dst, uint64_t len, uint64_t offset)
{
#if defined(__linux__) && defined(RWF_NOWAIT)
    if (atomic_load_explicit(&t->no_nowait, memory_order_relaxed))
        return 0;
    struct iovec iov = {dst, (size_t)len};
    ssize_t n = preadv2(fd, &iov, 1, (off_t)offset, RWF_NOWAIT);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        atomic_store_explicit(&t->no_nowait, true, memory_order_relaxed);
    return n > 0 ? (uint64_t)n : 0;
#else
    (void)t, (void)fd, (void)dst, (void)len, (void)offset;
    return 0;
#endif
}

/* Reads exactly [offset, offset + len). EIO is tried once more: drives and network filesystems do
 * recover. `retried` is the request's. */
static mf_status read_piece(const mfi_file *file, char *dst, uint64_t len, uint64_t offset,
                            bool *retried, mf_error *err)
{
    while (len > 0) {
        ssize_t n = pread(file->fd, dst, (size_t)len, (off_t)offset);
        if (n > 0) {
            dst += n;
            len -= (uint64_t)n;
            offset += (uint64_t)n;
        } else if (n == 0) {
            return mfi_fail(err, MF_ERR_FILE_TRUNCATED,
                            "%s: ends before offset %" PRIu64 ", where %" PRIu64
                            " bytes are needed",
                            file->path, offset + len, len);
        } else if (errno == EIO && !*retried) {
            *retried = true;
        } else if (errno != EINTR) {
            return mfi_fail(err, MF_ERR_IO,
                            "%s: reading %" PRIu64 " bytes at offset %" PRIu64 ": %s", file->path,
                            len, offset, strerror(errno));
        }
    }
    return MF_OK;
}

static mf_status read_request(io_threads *t, mfi_io_req *req, uint64_t *cached_bytes)
{
    const mfi_file *file = t->files[req->file];
    uint64_t at = 0;
    bool retried = false;
    uint64_t end;
    if (mfi_add_overflow(req->offset, req->len, &end) || end > INT64_MAX - t->page_bytes)
        return mfi_fail(&req->error, MF_ERR_FILE_TRUNCATED,
                        "%s: no %" PRIu64 " bytes at offset %" PRIu64, file->path, req->len,
                        req->offset);
    while (at < req->len) {
        char *dst = (char *)req->dst + at;
        uint64_t offset = req->offset + at;
        uint64_t len = MFI_MIN(PIECE_BYTES, req->len - at);
        uint64_t cached = read_cached(t, file->fd, dst, len, offset);
        *cached_bytes += cached;
        mf_status status = MF_OK;
        if (cached < len) {
            status = read_piece(file, dst + cached, len - cached, offset + cached, &retried,
                                &req->error);
            /* Also after a failure: a part may have been read. */
            note_ours(t, req->file, offset + cached, len - cached);
        }
        if (status != MF_OK)
            return status;
        at += len;
    }
    return MF_OK;
}

/* ---- queues; the lock is held ---- */

static void push(mfi_io_req **head, mfi_io_req **tail, mfi_io_req *req)
{
    req->next = NULL;
    if (*head)
        (*tail)->next = req;
    else
        *head = req;
    *tail = req;
}

static mfi_io_req *pop(mfi_io_req **head)
{
    mfi_io_req *req = *head;
    if (req) {
        *head = req->next;
        req->next = NULL;
    }
    return req;
}

/* Takes the oldest request, serves it without the lock, and lists it as done. */
static void serve_one(io_threads *t)
{
    mfi_io_req *req = pop(&t->queue_head);
    t->n_queued--;
    pthread_mutex_unlock(&t->lock);
    uint64_t cached_bytes = 0;
    req->error.status = MF_OK;
    req->error.message[0] = 0;
    req->status = read_request(t, req, &cached_bytes);
    req->done_ns = mfi_clock_ns();
    pthread_mutex_lock(&t->lock);
    t->stats.n_reads++;
    t->stats.cached_bytes += cached_bytes;
    if (req->status == MF_OK)
        t->stats.bytes += req->len;
    push(&t->done_head, &t->done_tail, req);
    pthread_cond_signal(&t->done);
}

static void *reader_main(void *arg)
{
    io_threads *t = arg;
    pthread_mutex_lock(&t->lock);
    for (;;) {
        if (t->queue_head) {
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
        MFI_ASSERT(reqs[i]->file < t->n_files);
        push(&t->queue_head, &t->queue_tail, reqs[i]);
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
    if (t->n_started == 0 && t->queue_head && !t->done_head)
        serve_one(t);
}

static mfi_io_req *take_done(io_threads *t)
{
    mfi_io_req *req = pop(&t->done_head);
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
    while (!t->done_head && t->n_under_way > 0)
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
    while (t->n_started == 0 && t->queue_head)
        serve_one(t);
    t->stop = true;
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->lock);
    for (uint32_t i = 0; i < t->n_started; i++)
        pthread_join(t->threads[i], NULL);
    while (t->n_ours > 0) {
        cache_range range = pop_oldest(t);
        drop(t, &range);
    }
    pthread_cond_destroy(&t->done);
    pthread_cond_destroy(&t->work);
    pthread_mutex_destroy(&t->lock);
    free(t->files);
    free(t);
}

/* The kernel shall read what is asked for and no more. */
static void advise(const mfi_file *file)
{
#if defined(__APPLE__)
    fcntl(file->fd, F_NOCACHE, 1);
    fcntl(file->fd, F_RDAHEAD, 0);
#elif defined(POSIX_FADV_RANDOM)
    posix_fadvise(file->fd, 0, 0, POSIX_FADV_RANDOM);
#else
    (void)file;
#endif
}

mf_status mfi_io_threads_open(mfi_io **io, const mfi_file *const *files, uint32_t n_files,
                              uint32_t n_threads, uint64_t page_cache_bytes, mf_error *err)
{
    if (n_threads == 0 || n_threads > MFI_MAX_IO_THREADS)
        return mfi_fail(err, MF_ERR_LIMIT, "%u reader threads; 1 to %d are possible", n_threads,
                        MFI_MAX_IO_THREADS);
    if (n_files > MFI_MAX_FILES)
        return mfi_fail(err, MF_ERR_LIMIT, "%u files; at most %d can be read", n_files,
                        MFI_MAX_FILES);
    io_threads *t = calloc(1, sizeof *t + n_threads * sizeof *t->threads);
    const mfi_file **copy = calloc(n_files ? n_files : 1, sizeof *copy);
    if (!t || !copy) {
        free(t);
        free(copy);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory for %u reader threads", n_threads);
    }
    t->base = (mfi_io){io_submit, io_poll, io_wait, io_stats, io_close};
    t->files = copy;
    t->n_files = n_files;
    t->n_threads = n_threads;
    t->page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    t->page_cache_bytes = page_cache_bytes;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->work, NULL);
    pthread_cond_init(&t->done, NULL);
    for (uint32_t i = 0; i < n_files; i++) {
        copy[i] = files[i];
        advise(files[i]);
    }
    *io = &t->base;
    return MF_OK;
}
