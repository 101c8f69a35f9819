/* The mirror's files: a second copy of the model, found by the names of the first and compared with
 * it. Called once at open, on the engine's thread. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine_int.h"

/* Headers lie at the front of all formats, the last tensor at the end. */
#define FRONT_BYTES MFI_MIB
#define BACK_BYTES  (64 * MFI_KIB)
#define BLOCK_BYTES ((size_t)64 * MFI_KIB)

/* The copy of the file at `path`, below `mirror` or beside it; NULL if out of memory. */
static char *copy_path(const char *mirror, const char *path, uint32_t n_files)
{
    const char *name = strrchr(path, '/');
    struct stat st;
    name = name ? name + 1 : path;
    if (stat(mirror, &st) == 0 && S_ISDIR(st.st_mode))
        return mfi_path_join(mirror, name);
    const char *slash = strrchr(mirror, '/');
    if (n_files == 1)
        return strdup(mirror);
    char *folder = slash ? strndup(mirror, (size_t)(slash - mirror) + 1) : strdup(".");
    char *out = folder ? mfi_path_join(folder, name) : NULL;
    free(folder);
    return out;
}

static mf_status compare(const mfi_file *a, const mfi_file *b, uint64_t at, uint64_t end,
                         char *blocks, mf_error *err)
{
    for (size_t n; at < end; at += n) {
        n = (size_t)MFI_MIN(end - at, BLOCK_BYTES);
        MFI_TRY(mfi_file_read(a, blocks, n, at, err));
        MFI_TRY(mfi_file_read(b, blocks + BLOCK_BYTES, n, at, err));
        if (memcmp(blocks, blocks + BLOCK_BYTES, n) != 0)
            return mfi_fail(err, MF_ERR_FORMAT, "%s: no copy of %s: other bytes from %llu on",
                            b->path, a->path, (unsigned long long)at);
    }
    return MF_OK;
}

static mf_status check(const mfi_file *a, const mfi_file *b, mf_error *err)
{
    if (a->dev == b->dev && a->ino == b->ino)
        return mfi_fail(err, MF_ERR_ARGUMENT, "%s: the model's own file can't be its mirror",
                        b->path);
    if (a->size != b->size)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: no copy of %s: %llu bytes, not %llu", b->path,
                        a->path, (unsigned long long)b->size, (unsigned long long)a->size);
    char *blocks = malloc(2 * BLOCK_BYTES);
    if (!blocks)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory to compare %s", b->path);
    uint64_t front = MFI_MIN(a->size, FRONT_BYTES);
    uint64_t back = MFI_MAX(front, a->size - MFI_MIN(a->size, BACK_BYTES));
    mf_status status = compare(a, b, 0, front, blocks, err);
    if (status == MF_OK)
        status = compare(a, b, back, a->size, blocks, err);
    free(blocks);
    return status;
}

mf_status mfi_mirror_files_open(mfi_file **out, const char *mirror, const mfi_file *const *files,
                                uint32_t n, mf_error *err)
{
    mfi_file *copies = calloc(n, sizeof *copies);
    if (!copies)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a mirror of %u files", n);
    mf_status status = MF_OK;
    for (uint32_t i = 0; i < n; i++)
        copies[i].fd = -1;
    for (uint32_t i = 0; i < n && status == MF_OK; i++) {
        char *path = copy_path(mirror, files[i]->path, n);
        if (!path)
            status = mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a path");
        else
            status = mfi_file_open(&copies[i], path, err);
        free(path);
        if (status == MF_OK)
            status = check(files[i], &copies[i], err);
    }
    *out = copies;
    if (status != MF_OK)
        mfi_mirror_files_close(out, n);
    return status;
}

void mfi_mirror_files_close(mfi_file **files, uint32_t n)
{
    for (uint32_t i = 0; *files && i < n; i++)
        if ((*files)[i].fd >= 0)
            mfi_file_close(&(*files)[i]);
    free(*files);
    *files = NULL;
}
