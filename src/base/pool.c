/* Compute workers; see pool.h. Owns the worker threads; the thread that calls mfi_pool_run works
 * along as worker 0, so one thread at a time may call it. Between runs a worker spins for a moment
 * (the gap between two operations is shorter than a wake-up), then sleeps on a condition variable.
 * With fewer processors than workers nobody spins: it would take the processor from those that
 * work. After open it allocates nothing and can't fail. */
#include "base/pool.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#endif

#include "base/clock.h"
#include "base/limits.h"

/* Kernels use less than 48 KiB. Less than a huge page, or a system that is set to give them to
 * everybody would make every stack 2 MiB. */
#define STACK_BYTES ((size_t)512 << 10)
#define SPIN_NS     50000 /* about what a sleep and a wake-up cost together */
#define CACHE_LINE  128   /* two lines: processors prefetch them in pairs */

typedef struct pool_worker {
    mfi_pool *pool;
    pthread_t thread;
    uint32_t index;
} pool_worker;

/* Sleeping is a pair of flags, each written by one side before it reads the other's, both
 * sequentially consistent: who is about to sleep counts itself in, then looks once more for work;
 * who brings work publishes it, then looks for sleepers. One of the two always sees the other. */
struct mfi_pool {
    /* Written before `epoch` is raised and read after, so they need no atomics of their own. */
    mfi_pool_fn fn;
    void *ctx;
    bool stop;
    bool spin;
    uint32_t n_workers, n_started;
    pool_worker *workers; /* [n_workers]; [0] is the caller and has no thread */

    _Alignas(CACHE_LINE) atomic_uint epoch;  /* raised once a run */
    atomic_uint n_sleeping;                  /* workers that need a wake-up */
    _Alignas(CACHE_LINE) atomic_uint n_left; /* workers that haven't finished this run */
    atomic_bool caller_sleeps;

    _Alignas(CACHE_LINE) pthread_mutex_t lock; /* guards the sleeps only */
    pthread_cond_t work, done;
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Processors this process may use; the base layer can't ask os/machine. */
static uint32_t count_cpus(void)
{
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return (uint32_t)CPU_COUNT(&set);
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (uint32_t)n : 1;
}

/* Spins until *value differs from (`until_equal` false) or equals `ref`; false if that took too
 * long. */
static bool spin_on(atomic_uint *value, unsigned ref, bool until_equal)
{
    uint64_t end = 0;
    for (uint32_t i = 0;; i++) {
        if ((atomic_load_explicit(value, memory_order_acquire) == ref) == until_equal)
            return true;
        if (i % 64 == 63) {
            uint64_t now = mfi_clock_ns();
            if (end == 0)
                end = now + SPIN_NS;
            else if (now >= end)
                return false;
        }
        relax();
    }
}

static void await_work(mfi_pool *pool, unsigned seen)
{
    if (pool->spin && spin_on(&pool->epoch, seen, false))
        return;
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->n_sleeping, 1);
    while (atomic_load(&pool->epoch) == seen)
        pthread_cond_wait(&pool->work, &pool->lock);
    atomic_fetch_sub(&pool->n_sleeping, 1);
    pthread_mutex_unlock(&pool->lock);
}

static void await_done(mfi_pool *pool)
{
    if (pool->spin && spin_on(&pool->n_left, 0, true))
        return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->caller_sleeps, true);
    while (atomic_load(&pool->n_left) != 0)
        pthread_cond_wait(&pool->done, &pool->lock);
    atomic_store(&pool->caller_sleeps, false);
    pthread_mutex_unlock(&pool->lock);
}

static void publish(mfi_pool *pool)
{
    atomic_fetch_add(&pool->epoch, 1);
    if (atomic_load(&pool->n_sleeping) > 0) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->work);
        pthread_mutex_unlock(&pool->lock);
    }
}

static void *worker_main(void *arg)
{
    pool_worker *worker = arg;
    mfi_pool *pool = worker->pool;
    /* No run starts before the last one ended, so this worker never misses an epoch. */
    for (unsigned seen = 0;; seen++) {
        await_work(pool, seen);
        if (pool->stop)
            return NULL;
        pool->fn(pool->ctx, worker->index, pool->n_workers);
        if (atomic_fetch_sub(&pool->n_left, 1) == 1 && atomic_load(&pool->caller_sleeps)) {
            pthread_mutex_lock(&pool->lock);
            pthread_cond_signal(&pool->done);
            pthread_mutex_unlock(&pool->lock);
        }
    }
}

/* Signals stay with the application's threads. Returns an errno. */
static int start_workers(mfi_pool *pool)
{
    sigset_t all, before;
    pthread_attr_t attr;
    int e = pthread_attr_init(&attr);
    if (e != 0)
        return e;
    pthread_attr_setstacksize(&attr, MFI_MAX(STACK_BYTES, (size_t)PTHREAD_STACK_MIN));
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (uint32_t i = 1; i < pool->n_workers && e == 0; i++) {
        pool->workers[i] = (pool_worker){.pool = pool, .index = i};
        e = pthread_create(&pool->workers[i].thread, &attr, worker_main, &pool->workers[i]);
        if (e == 0)
            pool->n_started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return e;
}

mf_status mfi_pool_open(mfi_pool **out, uint32_t n_workers, mf_error *err)
{
    if (n_workers == 0)
        return mfi_fail(err, MF_ERR_ARGUMENT, "no compute threads asked for");
    if (n_workers > MFI_MAX_THREADS)
        return mfi_fail(err, MF_ERR_LIMIT, "%u compute threads; at most %d are possible", n_workers,
                        MFI_MAX_THREADS);
    mfi_pool *pool = NULL;
    if (posix_memalign((void **)&pool, CACHE_LINE, sizeof *pool) != 0)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory for compute threads");
    memset(pool, 0, sizeof *pool);
    pool->n_workers = n_workers;
    pool->spin = n_workers <= count_cpus();
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->workers = calloc(n_workers, sizeof *pool->workers);
    int e = pool->workers ? start_workers(pool) : -1;
    if (e != 0) {
        uint32_t n_started = pool->n_started;
        mfi_pool_close(&pool);
        if (e < 0)
            return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory for %u compute threads",
                            n_workers);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "can't start compute thread %u of %u: %s",
                        n_started + 1, n_workers, strerror(e));
    }
    *out = pool;
    return MF_OK;
}

void mfi_pool_close(mfi_pool **pool_ref)
{
    mfi_pool *pool = *pool_ref;
    if (!pool)
        return;
    pool->stop = true;
    publish(pool);
    for (uint32_t i = 1; i <= pool->n_started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free(pool->workers);
    free(pool);
    *pool_ref = NULL;
}

uint32_t mfi_pool_size(const mfi_pool *pool)
{
    return pool->n_workers;
}

void mfi_pool_run(mfi_pool *pool, mfi_pool_fn fn, void *ctx)
{
    if (pool->n_workers > 1) {
        MFI_ASSERT(atomic_load(&pool->n_left) == 0); /* not reentrant */
        pool->fn = fn;
        pool->ctx = ctx;
        atomic_store(&pool->n_left, pool->n_workers - 1);
        publish(pool);
    }
    fn(ctx, 0, pool->n_workers);
    if (pool->n_workers > 1)
        await_done(pool);
}
