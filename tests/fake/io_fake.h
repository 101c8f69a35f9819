/* A reader behind io.h for tests: memory or files in place of a drive, and everything that a drive
 * may do decided by a seed. Time is virtual: each poll is one step, wait steps until something is
 * finished.
 *
 * Requests finish in any order after random latencies. Bytes arrive in random pieces (short reads,
 * retried inside), the rest of the destination holds garbage until then, so that early use shows.
 * Failures come by chance or where they are planted. Nothing is allocated after open. */
#ifndef MFT_IO_FAKE_H
#define MFT_IO_FAKE_H

#include "io/io.h"

typedef struct mft_io_fake_file {
    const mfi_file *file;       /* read with pread if not NULL, else: */
    const unsigned char *bytes; /* [len] */
    uint64_t len;
} mft_io_fake_file;

typedef struct mft_io_fake_config {
    const mft_io_fake_file *files; /* [n_files]; must outlive the fake */
    uint32_t n_files;
    uint32_t n_reqs_max; /* under way at one time; more is asserted against */
    uint64_t seed;
    uint32_t latency_min, latency_max; /* steps */
    double short_chance;               /* that an attempt gives only a part */
    double error_chance;               /* that a request fails with MF_ERR_IO */
} mft_io_fake_config;

mf_status mft_io_fake_open(mfi_io **io, const mft_io_fake_config *config, mf_error *err);

/* The next `times` attempts on a request covering this byte fail with EIO; each request tries
 * twice. */
void mft_io_fake_plant(mfi_io *io, uint32_t file, uint64_t offset, uint32_t times);

typedef struct mft_io_fake_stats {
    uint64_t n_failed, n_short, n_retried, n_reordered, steps;
    uint32_t n_under_way, n_under_way_most;
} mft_io_fake_stats;
mft_io_fake_stats mft_io_fake_stats_get(const mfi_io *io);

#endif
