/* Reading bytes into memory, asynchronously.
 *
 * Requests are owned by the caller and stay where they are from submit until they are handed back.
 * Completions are handed back at named points only (poll, wait), on the caller's thread, in
 * whatever order they finished. One thread submits and collects. A completed request has read
 * exactly `len` bytes or carries a failure: short reads and EINTR are retried inside, EIO once
 * more.
 *
 * Three implementations share this interface: a pool of reader threads (io_threads.c), the kernel's
 * ring (io_uring.c) and, in the tests, a fake with seeded latency, reordering, short reads and
 * errors (tests/fake/io_fake.c). */
#ifndef MFI_IO_IO_H
#define MFI_IO_IO_H

#include "os/file.h"

typedef struct mfi_io_req {
    /* set by the caller */
    uint32_t file; /* index into the files given at open */
    uint64_t offset, len;
    void *dst;
    uint64_t cookie;
    bool fresh; /* nothing was ever read to dst: the system has to find memory for it first */
    /* set on completion */
    mf_status status;
    mf_error error;   /* names file and offset, if status is a failure */
    uint64_t done_ns; /* clock at completion */
    /* the implementation's */
    struct mfi_io_req *next;
    uint64_t n_taken; /* bytes that pieces were made of */
    uint32_t n_pieces;
    bool retried;
} mfi_io_req;

typedef struct mfi_io_stats {
    uint64_t n_reads, bytes;
    uint64_t direct_bytes; /* of them past the page cache */
    uint64_t mirror_bytes; /* of them from a mirror (io_mirror.h) */
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

typedef struct mfi_io_options {
    uint32_t n_readers;        /* threads, or reads under way at one time */
    uint64_t page_cache_bytes; /* that buffered reads take while they last, at least
                                  MFI_IO_READER_CACHE_BYTES a reader; afterwards the page cache
                                  holds what it held before */
    bool direct;               /* past the page cache, where file and destination allow it
                                  (direct.h); the rest is buffered */
} mfi_io_options;

/* Both: files[i] must outlive the reader.
 *
 * Reader threads start lazily and sleep when idle. The ring reads without threads; it fails with
 * MF_ERR_UNSUPPORTED where the system or the build has none (containers often forbid it). */
mf_status mfi_io_threads_open(mfi_io **io, const mfi_file *const *files, uint32_t n_files,
                              const mfi_io_options *options, mf_error *err);
mf_status mfi_io_uring_open(mfi_io **io, const mfi_file *const *files, uint32_t n_files,
                            const mfi_io_options *options, mf_error *err);

/* For tests, before the first read: behaves as on a system that lacks RWF_DONTCACHE, mincore. */
void mfi_io_threads_pretend(mfi_io *io, bool no_dontcache, bool no_mincore);
void mfi_io_uring_pretend(mfi_io *io, bool no_dontcache, bool no_mincore);

#endif
