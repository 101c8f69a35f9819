/* Guarded memory; see guard.h. */
#include "fake/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_REGIONS 256

static struct {
    void *base;
    size_t bytes;
} regions[MAX_REGIONS];
static size_t n_regions;

void *mft_guard_alloc(size_t bytes, mft_place place)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t inner = (bytes + 1 + page - 1) / page * page;
    char *base = mmap(NULL, inner + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (n_regions == MAX_REGIONS || base == MAP_FAILED ||
        mprotect(base + page, inner, PROT_READ | PROT_WRITE) != 0) {
        perror("mft_guard_alloc");
        abort();
    }
    regions[n_regions].base = base;
    regions[n_regions++].bytes = inner + 2 * page;
    switch (place) {
    case MFT_AT_START:
        return base + page;
    case MFT_ODD:
        return base + page + 1;
    default:
        return base + page + inner - bytes;
    }
}

void mft_guard_free(void)
{
    while (n_regions > 0) {
        n_regions--;
        munmap(regions[n_regions].base, regions[n_regions].bytes);
    }
}
