/* Fixed compute workers that run one function together: static ranges, one barrier at the end.
 *
 * The thread that calls mfi_pool_run is worker 0. Workers spin for a moment between runs, then
 * sleep. Which worker does what depends on (worker, n_workers) only, and kernels make no output
 * depend on the split, so results don't depend on the number of threads. */
#ifndef MFI_BASE_POOL_H
#define MFI_BASE_POOL_H

#include "base/status.h"

typedef struct mfi_pool mfi_pool;
typedef void (*mfi_pool_fn)(void *ctx, uint32_t worker, uint32_t n_workers);

mf_status mfi_pool_open(mfi_pool **pool, uint32_t n_workers, mf_error *err);
void mfi_pool_close(mfi_pool **pool);
uint32_t mfi_pool_size(const mfi_pool *pool);
/* Runs fn on all workers; returns when all have finished. Not reentrant. Allocates nothing. */
void mfi_pool_run(mfi_pool *pool, mfi_pool_fn fn, void *ctx);

/* The part of [0, n) that is worker's, in multiples of `grain` but for the last. */
static inline void mfi_pool_range(uint32_t n, uint32_t grain, uint32_t worker, uint32_t n_workers,
                                  uint32_t *begin, uint32_t *end)
{
    uint64_t blocks = ((uint64_t)n + grain - 1) / grain;
    uint64_t b0 = blocks * worker / n_workers * grain;
    uint64_t b1 = blocks * (worker + 1) / n_workers * grain;
    *begin = (uint32_t)(b0 < n ? b0 : n);
    *end = (uint32_t)(b1 < n ? b1 : n);
}

#endif
