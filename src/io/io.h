/* Reading bytes into memory, asynchronously.
 *
 * Requests are owned by the caller and stay where they are from submit until they are handed back.
 * Completions are handed back at named points only (poll, wait), on the caller's thread, in
 * whatever order they finished. One thread submits and collects. A completed request has read
 * exactly `len` bytes or carries a failure: short reads and EINTR are retried inside, EIO once
 * more.
 *
 * Two implementations share this interface: a pool of reader threads (io_threads.c) and, in the
 * tests, a fake with seeded latency, reordering, short reads and errors (tests/fake/io_fake.c). */
#ifndef MFI_IO_IO_H
#define MFI_IO_IO_H

#include "os/file.h"

typedef struct mfi_io_req {
    /* set by the caller */
    uint32_t file; /* index into the files given at open */
    uint64_t offset, len;
    void *dst;
    uint64_t cookie;
    /* set on completion */
    mf_status status;
    mf_error error;   /* names file and offset, if status is a failure */
    uint64_t done_ns; /* clock at completion */
    /* the implementation's */
    struct mfi_io_req *next;
} mfi_io_req;

typedef struct mfi_io_stats {
    uint64_t n_reads, bytes;
    uint64_t
        dropped_bytes; /* page cache that we dropped, where the system doesn't do that itself */
} mfi_io_stats;

typedef struct mfi_io mfi_io;
struct mfi_io { /* first member of every implementation */
    void (*submit)(mfi_io *io, mfi_io_req *const *reqs, uint32_t n); /* never blocks */
    /* Takes one completed request, or NULL if none is finished. */
    mfi_io_req *(*poll)(mfi_io *io);
    /* Waits until one is finished; NULL only if nothing is under way. */
    mfi_io_req *(*wait)(mfi_io *io);
    void (*stats)(const mfi_io *io, mfi_io_stats *stats);
    void (*close)(mfi_io *io); /* waits for what is under way */
};

/* Page cache that a reader needs at least. */
#define MFI_IO_READER_CACHE_BYTES (64 * MFI_KIB)

/* Readers in threads. `files[i]` must outlive the engine. page_cache_bytes,
 * MFI_IO_READER_CACHE_BYTES a reader or more, bounds the page cache that our buffered reads take
 * while they last; afterwards it holds what it held before. Readers start lazily and sleep when
 * idle. */
mf_status mfi_io_threads_open(mfi_io **io, const mfi_file *const *files, uint32_t n_files,
                              uint32_t n_threads, uint64_t page_cache_bytes, mf_error *err);
/* For tests, before the first read: behaves as on a system that lacks RWF_DONTCACHE, mincore. */
void mfi_io_threads_pretend(mfi_io *io, bool no_dontcache, bool no_mincore);

#endif
