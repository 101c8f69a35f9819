/* What every reader has in common: the files it reads, how requests on them are cut into pieces,
 * and what is said when a read fails. Not thread-safe: a reader with threads guards the maps
 * itself; everything else is read-only while reads are under way, but for a direct descriptor that
 * proves useless. */
#ifndef MFI_IO_SOURCES_H
#define MFI_IO_SOURCES_H

#include "io/direct.h"
#include "io/io.h"
#include "io/page_cache.h"

typedef struct mfi_sources {
    const mfi_file **files; /* [n]; the array is ours, the files aren't */
    mfi_direct *direct;     /* [n] */
    void **maps; /* [n] for mincore, never touched; NULL: not asked yet, MAP_FAILED: can't */
    uint32_t n;
    uint64_t page_bytes, piece_bytes; /* piece: of a buffered read */
    bool no_mincore;                  /* tests: as if it told nothing */
} mfi_sources;

/* MF_ERR_LIMIT for options out of range. Closing one that failed to open, or is zeroed, is fine. */
mf_status mfi_sources_open(mfi_sources *s, const mfi_file *const *files, uint32_t n,
                           const mfi_io_options *options, mf_error *err);
void mfi_sources_close(mfi_sources *s);

/* The file's mapping, which says what is cached, or MAP_FAILED. */
void *mfi_sources_map(mfi_sources *s, uint32_t file);

/* Begins a request: no error yet, and MF_ERR_FILE_TRUNCATED for a range that no file can have. */
mf_status mfi_sources_begin(const mfi_sources *s, mfi_io_req *req);

/* Bytes of the next piece of a read of `left` bytes at `offset`. */
uint64_t mfi_sources_piece(const mfi_sources *s, uint64_t offset, uint64_t left, bool direct);

/* The failure of reading `len` bytes at `offset`: errno, or 0 where the file ended. */
mf_status mfi_sources_fail(const mfi_sources *s, uint32_t file, uint64_t offset, uint64_t len,
                           int error, mf_error *err);

/* ---- lists of requests, first in, first out ---- */

typedef struct mfi_req_list {
    mfi_io_req *head, *tail; /* tail: of a list that isn't empty */
} mfi_req_list;

static inline void mfi_req_push(mfi_req_list *list, mfi_io_req *req)
{
    req->next = NULL;
    if (list->head)
        list->tail->next = req;
    else
        list->head = req;
    list->tail = req;
}

static inline mfi_io_req *mfi_req_pop(mfi_req_list *list)
{
    mfi_io_req *req = list->head;
    if (req) {
        list->head = req->next;
        req->next = NULL;
    }
    return req;
}

#endif
