/* The compute pool: every worker once a run, everything visible after it, ranges that tile. */
#include "fake/support.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/limits.h"
#include "base/pool.h"
#include "base/rng.h"

typedef struct count_job {
    uint32_t calls[MFI_MAX_THREADS]; /* plain: the barrier must order them */
    uint32_t n_workers;
    uint64_t sum; /* written by worker 0 before the next run only */
} count_job;

static void count(void *ctx, uint32_t worker, uint32_t n_workers)
{
    count_job *job = ctx;
    job->calls[worker]++;
    if (worker == 0)
        job->n_workers = n_workers;
}

static void every_worker_runs_once_a_run(void **state)
{
    (void)state;
    const uint32_t sizes[] = {1, 2, 3, 7, 16};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        mf_error err;
        mfi_pool *pool = NULL;
        mft_ok(mfi_pool_open(&pool, sizes[s], &err), &err);
        assert_int_equal(mfi_pool_size(pool), sizes[s]);
        count_job job = {0};
        const uint32_t n_runs = 500;
        for (uint32_t run = 0; run < n_runs; run++) {
            mfi_pool_run(pool, count, &job);
            for (uint32_t w = 0; w < sizes[s]; w++)
                assert_int_equal(job.calls[w], run + 1);
        }
        assert_int_equal(job.n_workers, sizes[s]);
        for (uint32_t w = sizes[s]; w < MFI_MAX_THREADS; w++)
            assert_int_equal(job.calls[w], 0);
        mfi_pool_close(&pool);
        assert_null(pool);
    }
}

typedef struct scale_job {
    uint64_t *v;
    uint32_t n, grain;
} scale_job;

static void step(void *ctx, uint32_t worker, uint32_t n_workers)
{
    scale_job *job = ctx;
    uint32_t begin, end;
    mfi_pool_range(job->n, job->grain, worker, n_workers, &begin, &end);
    for (uint32_t i = begin; i < end; i++)
        job->v[i] = job->v[i] * 3 + i;
}

/* Chained runs: each reads what other workers wrote in the run before (the grain changes). Pauses
 * of all lengths between them cover spinning and sleeping workers. */
static void runs_see_each_other(void **state)
{
    (void)state;
    enum { N = 1000, RUNS = 400 };
    mfi_rng rng = {12};
    mf_error err;
    mfi_pool *pool = NULL;
    mft_ok(mfi_pool_open(&pool, 2, &err), &err);
    static uint64_t v[N], want[N];
    memset(v, 0, sizeof v);
    memset(want, 0, sizeof want);
    for (uint32_t run = 0; run < RUNS; run++) {
        scale_job job = {v, N, 1 + (uint32_t)mfi_rng_below(&rng, 600)};
        mfi_pool_run(pool, step, &job);
        for (uint32_t i = 0; i < N; i++)
            want[i] = want[i] * 3 + i;
        assert_memory_equal(v, want, sizeof v);
        if (run % 8 == 0) {
            struct timespec ts = {0, (long)mfi_rng_below(&rng, 200000)};
            nanosleep(&ts, NULL);
        }
    }
    mfi_pool_close(&pool);
}

static void slow_worker(void *ctx, uint32_t worker, uint32_t n_workers)
{
    if (worker == n_workers - 1) {
        struct timespec ts = {0, 2000000};
        nanosleep(&ts, NULL);
    }
    atomic_fetch_add((atomic_uint *)ctx, 1);
}

static void the_caller_waits_for_the_slowest(void **state)
{
    (void)state;
    mf_error err;
    mfi_pool *pool = NULL;
    mft_ok(mfi_pool_open(&pool, 4, &err), &err);
    for (unsigned run = 1; run <= 10; run++) {
        static atomic_uint n_done;
        mfi_pool_run(pool, slow_worker, &n_done);
        assert_int_equal(atomic_load(&n_done), 4 * run);
    }
    mfi_pool_close(&pool);
}

static void ranges_tile(void **state)
{
    (void)state;
    mfi_rng rng = {99};
    for (int round = 0; round < 2000; round++) {
        uint32_t n = (uint32_t)mfi_rng_below(&rng, round % 2 ? 50 : UINT32_MAX);
        uint32_t grain = 1 + (uint32_t)mfi_rng_below(&rng, 64);
        uint32_t n_workers = 1 + (uint32_t)mfi_rng_below(&rng, MFI_MAX_THREADS);
        uint32_t at = 0;
        for (uint32_t w = 0; w < n_workers; w++) {
            uint32_t begin, end;
            mfi_pool_range(n, grain, w, n_workers, &begin, &end);
            assert_true(begin <= end);
            if (begin < end) {
                assert_int_equal(begin, at);
                assert_int_equal(begin % grain, 0);
                at = end;
            }
        }
        assert_int_equal(at, n);
    }
}

static void bad_sizes_are_refused(void **state)
{
    (void)state;
    mf_error err;
    mfi_pool *pool = NULL;
    assert_int_equal(mfi_pool_open(&pool, 0, &err), MF_ERR_ARGUMENT);
    assert_int_equal(mfi_pool_open(&pool, MFI_MAX_THREADS + 1, &err), MF_ERR_LIMIT);
    assert_null(pool);
    mfi_pool_close(&pool);
    for (int i = 0; i < 50; i++) { /* closing at once, workers hardly started */
        mft_ok(mfi_pool_open(&pool, 3, &err), &err);
        mfi_pool_close(&pool);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_worker_runs_once_a_run),
        cmocka_unit_test(runs_see_each_other),
        cmocka_unit_test(the_caller_waits_for_the_slowest),
        cmocka_unit_test(ranges_tile),
        cmocka_unit_test(bad_sizes_are_refused),
    };
    return mft_run(tests);
}
