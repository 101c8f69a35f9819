/* Reads past the page cache (O_DIRECT): straight from the drive into the reader's memory, a fifth
 * of the processor's time of a buffered read.
 *
 * The drive wants whole blocks at aligned places. The blocks at a read's ends that are wanted in
 * part go to two small buffers beside; all others land where they are wanted, without a copy. That
 * needs a destination as far from an aligned address as the offset is from an aligned one. */
#ifndef MFI_IO_DIRECT_H
#define MFI_IO_DIRECT_H

#include <sys/uio.h>

#include "os/file.h"

#define MFI_DIRECT_ALIGN_MAX 4096 /* a file that wants more is read through the page cache */

typedef struct mfi_direct {
    int fd;                           /* -1: this file can't be read directly */
    uint32_t offset_align, mem_align; /* powers of two */
} mfi_direct;

/* Opens the same file for direct reads, with the alignment that the system tells (statx). Where
 * that is impossible fd is -1, and that is no failure. */
void mfi_direct_open(mfi_direct *direct, const mfi_file *file);
void mfi_direct_close(mfi_direct *direct);

/* One read as preadv takes it. */
typedef struct mfi_direct_read {
    struct iovec iov[3];
    int n_iov;
    uint64_t offset;             /* where it begins in the file, aligned */
    uint64_t head, middle, tail; /* bytes before what is wanted; then wanted and whole; then
                                    wanted of the last block. `middle` counts from `offset` */
    uint64_t len;                /* wanted */
    char *dst, *edges;
} mfi_direct_read;

/* True if reads of bytes at `offset` to `dst` can go past the page cache. */
bool mfi_direct_fits(const mfi_direct *direct, uint64_t offset, const void *dst);

/* Plans the read of [offset, offset + len) to dst; `edges` has room for two blocks, aligned to
 * MFI_DIRECT_ALIGN_MAX. False where mfi_direct_fits says so. */
bool mfi_direct_plan(const mfi_direct *direct, uint64_t offset, uint64_t len, void *dst,
                     void *edges, mfi_direct_read *read);

/* After `n` bytes arrived: puts the ends in place and returns how many of the wanted bytes are
 * there, counted from the first. */
uint64_t mfi_direct_finish(const mfi_direct_read *read, uint64_t n);

#endif
