/* What reads do to the page cache, for systems that can't read past it: what was there before a
 * read stays, what came with it goes again.
 *
 * mincore() says before a read which of its pages are missing, and these are dropped after it. Its
 * first and last page are dropped in any case: a neighbour may be reading them, too, and take them
 * for foreign. (Asking by RWF_NOWAIT doesn't work: the question starts the read, and what a fast
 * drive has delivered by the time of the answer counts as cached.) */
#ifndef MFI_IO_PAGE_CACHE_H
#define MFI_IO_PAGE_CACHE_H

#include "os/file.h"

#define MFI_PAGE_RUNS           8 /* of missing pages in a read that are told apart */
#define MFI_PAGE_READ_BYTES_MAX ((uint64_t)1 << 20) /* of one read; larger ones are no faster */

typedef struct mfi_page_run {
    uint64_t begin, end; /* bytes, on page borders */
} mfi_page_run;

/* The file's mapping for mincore, never touched: size bytes, or MAP_FAILED where the system
 * wouldn't tell us the truth. Unmapped by the caller. */
void *mfi_page_map(const mfi_file *file);

/* Lists the runs that shall be dropped after reading [offset, offset + len), len at most
 * MFI_PAGE_READ_BYTES_MAX; the last one takes in what is left when there are more. Where nothing
 * can be known, that is everything. `map` is mfi_page_map's, page_bytes the system's. */
uint32_t mfi_page_missing(const mfi_file *file, void *map, uint64_t page_bytes, uint64_t offset,
                          uint64_t len, mfi_page_run runs[MFI_PAGE_RUNS]);

/* Drops the runs and returns their bytes. */
uint64_t mfi_page_drop(const mfi_file *file, const mfi_page_run *runs, uint32_t n);

#endif
