/* The files of a reader; see sources.h. Called by the readers, at open and close and on whatever
 * thread reads. Allocates at open only. */
#include "io/sources.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/limits.h"

mf_status mfi_sources_open(mfi_sources *s, const mfi_file *const *files, uint32_t n,
                           const mfi_io_options *options, mf_error *err)
{
    if (options->n_readers == 0 || options->n_readers > MFI_MAX_IO_THREADS)
        return mfi_fail(err, MF_ERR_LIMIT, "%u readers; 1 to %d are possible", options->n_readers,
                        MFI_MAX_IO_THREADS);
    if (n > MFI_MAX_FILES)
        return mfi_fail(err, MF_ERR_LIMIT, "%u files; at most %d can be read", n, MFI_MAX_FILES);
    size_t room = n ? n : 1;
    s->files = calloc(room, sizeof *s->files);
    s->direct = calloc(room, sizeof *s->direct);
    s->maps = calloc(room, sizeof *s->maps);
    if (!s->files || !s->direct || !s->maps) {
        mfi_sources_close(s);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory for a reader of %u files", n);
    }
    for (uint32_t i = 0; i < n; i++) {
        s->files[i] = files[i];
        s->direct[i].fd = -1;
        if (options->direct)
            mfi_direct_open(&s->direct[i], files[i]);
    }
    s->n = n;
    s->page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t piece = options->page_cache_bytes / options->n_readers & ~(s->page_bytes - 1);
    s->piece_bytes = MFI_MAX(MFI_MIN(piece, MFI_PAGE_READ_BYTES_MAX), MFI_IO_READER_CACHE_BYTES);
    return MF_OK;
}

void mfi_sources_close(mfi_sources *s)
{
    for (uint32_t i = 0; i < s->n; i++) {
        mfi_direct_close(&s->direct[i]);
        if (s->maps[i] && s->maps[i] != MAP_FAILED)
            munmap(s->maps[i], (size_t)s->files[i]->size);
    }
    free(s->maps);
    free(s->direct);
    free(s->files);
    *s = (mfi_sources){0};
}

void *mfi_sources_map(mfi_sources *s, uint32_t file)
{
    if (!s->maps[file])
        s->maps[file] = s->no_mincore ? MAP_FAILED : mfi_page_map(s->files[file]);
    return s->maps[file];
}

mf_status mfi_sources_begin(const mfi_sources *s, mfi_io_req *req)
{
    uint64_t end;
    MFI_ASSERT(req->file < s->n);
    req->error.status = MF_OK;
    req->error.message[0] = 0;
    if (mfi_add_overflow(req->offset, req->len, &end) || end > INT64_MAX - s->page_bytes)
        return mfi_fail(&req->error, MF_ERR_FILE_TRUNCATED,
                        "%s: no %" PRIu64 " bytes at offset %" PRIu64, s->files[req->file]->path,
                        req->len, req->offset);
    return MF_OK;
}

uint64_t mfi_sources_piece(const mfi_sources *s, uint64_t offset, uint64_t left, bool direct)
{
    uint64_t most = direct ? MFI_PAGE_READ_BYTES_MAX : s->piece_bytes;
    return MFI_MIN(most - offset % s->page_bytes, left);
}

mf_status mfi_sources_fail(const mfi_sources *s, uint32_t file, uint64_t offset, uint64_t len,
                           int error, mf_error *err)
{
    const char *path = s->files[file]->path;
    if (!error)
        return mfi_fail(err, MF_ERR_FILE_TRUNCATED,
                        "%s: ends at offset %" PRIu64 ", where %" PRIu64 " more bytes are needed",
                        path, offset, len);
    return mfi_fail(err, MF_ERR_IO, "%s: reading %" PRIu64 " bytes at offset %" PRIu64 ": %s", path,
                    len, offset, strerror(error));
}
