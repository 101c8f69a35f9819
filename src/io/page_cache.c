/* Keeping the page cache as it was; see page_cache.h. Called by the readers, on whatever thread
 * reads; holds no state. Never reads a byte of a file. */
#include "io/page_cache.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The kernel tells only owners and those who may write; to others it says that all is cached. */
void *mfi_page_map(const mfi_file *file)
{
    struct stat st;
    if (file->size == 0 || fstat(file->fd, &st) != 0 ||
        (st.st_uid != geteuid() && access(file->path, W_OK) != 0))
        return MAP_FAILED;
    return mmap(NULL, (size_t)file->size, PROT_NONE, MAP_SHARED, file->fd, 0);
}

uint32_t mfi_page_missing(const mfi_file *file, void *map, uint64_t page_bytes, uint64_t offset,
                          uint64_t len, mfi_page_run runs[MFI_PAGE_RUNS])
{
    uint64_t begin = offset & ~(page_bytes - 1), end = mfi_align_up(offset + len, page_bytes);
    unsigned char vec[MFI_PAGE_READ_BYTES_MAX / 4096 + 1];
    runs[0] = (mfi_page_run){begin, end};
    if (map == MAP_FAILED || end > mfi_align_up(file->size, page_bytes) ||
        (end - begin) / page_bytes > sizeof vec ||
        mincore((char *)map + begin, (size_t)(end - begin), (void *)vec) != 0)
        return 1;
    uint32_t n = 0;
    bool in_run = false;
    for (uint64_t at = begin; at < end; at += page_bytes) {
        bool edge = at == begin || at + page_bytes == end;
        bool drops = edge || !(vec[(at - begin) / page_bytes] & 1);
        if (drops && !in_run && n < MFI_PAGE_RUNS)
            runs[n++].begin = at;
        if (drops)
            runs[n - 1].end = at + page_bytes;
        in_run = drops;
    }
    return n;
}

uint64_t mfi_page_drop(const mfi_file *file, const mfi_page_run *runs, uint32_t n)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n; i++) {
#ifdef POSIX_FADV_DONTNEED
        posix_fadvise(file->fd, (off_t)runs[i].begin, (off_t)(runs[i].end - runs[i].begin),
                      POSIX_FADV_DONTNEED);
#endif
        bytes += runs[i].end - runs[i].begin; /* elsewhere F_NOCACHE leaves nothing behind */
    }
    return bytes;
}
