/* Staged output on POSIX systems; see out.h. Called by the converter on its thread. */
#include "os/out.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/file.h"

static mf_status fail_errno(mf_error *err, const char *path, const char *verb, int e)
{
    /* EFBIG is the limit on file sizes: for the caller the same as a drive that ends there. */
    bool full = e == ENOSPC || e == EDQUOT || e == EFBIG;
    return mfi_fail(err, full ? MF_ERR_DISK_FULL : MF_ERR_IO, "%s: can't %s: %s", path, verb,
                    strerror(e));
}

/* ---- files ---- */

static int reserve(int fd, uint64_t bytes)
{
#ifdef __linux__
    if (bytes == 0)
        return 0;
    int r;
    do {
        r = fallocate(fd, 0, 0, (off_t)bytes);
    } while (r != 0 && errno == EINTR);
    /* A file system that can't reserve finds out while writing. */
    return r == 0 || errno == EOPNOTSUPP || errno == ENOSYS ? 0 : errno;
#else
    (void)fd, (void)bytes;
    return 0;
#endif
}

mf_status mfi_out_create(mfi_out *out, const char *path, uint64_t bytes, mf_error *err)
{
    if (bytes > INT64_MAX)
        return mfi_fail(err, MF_ERR_LIMIT, "%s: %" PRIu64 " bytes are too many", path, bytes);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return fail_errno(err, path, "create", errno);
    char *copy = strdup(path);
    if (!copy) {
        close(fd);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    }
    *out = (mfi_out){fd, copy};
    int e = reserve(fd, bytes);
    if (e) {
        mf_status status = fail_errno(err, path, "reserve space", e);
        mfi_out_close(out);
        return status;
    }
    return MF_OK;
}

mf_status mfi_out_resize(mfi_out *out, uint64_t bytes, mf_error *err)
{
    if (bytes > INT64_MAX)
        return mfi_fail(err, MF_ERR_LIMIT, "%s: %" PRIu64 " bytes are too many", out->path, bytes);
    int e = reserve(out->fd, bytes);
    if (e)
        return fail_errno(err, out->path, "reserve space", e);
    int r;
    do {
        r = ftruncate(out->fd, (off_t)bytes);
    } while (r != 0 && errno == EINTR);
    return r == 0 ? MF_OK : fail_errno(err, out->path, "set the size", errno);
}

mf_status mfi_out_write(mfi_out *out, const void *src, size_t len, uint64_t offset, mf_error *err)
{
    const char *p = src;
    while (len > 0) {
        ssize_t n = pwrite(out->fd, p, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) /* a write of nothing without an error is a drive that takes no more */
            return fail_errno(err, out->path, "write", n < 0 ? errno : ENOSPC);
        p += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return MF_OK;
}

mf_status mfi_out_finish(mfi_out *out, mf_error *err)
{
    mf_status status = MF_OK;
    if (fsync(out->fd) != 0)
        status = fail_errno(err, out->path, "flush", errno);
    int fd = out->fd;
    out->fd = -1;
    if (close(fd) != 0 && status == MF_OK)
        status = fail_errno(err, out->path, "close", errno);
    mfi_out_close(out);
    return status;
}

void mfi_out_close(mfi_out *out)
{
    if (out->path && out->fd >= 0)
        close(out->fd);
    free(out->path);
    *out = (mfi_out){.fd = -1};
}

/* ---- staging ---- */

mf_status mfi_stage_open(mfi_stage *stage, const char *final, mf_error *err)
{
    size_t len = strlen(final);
    while (len > 1 && final[len - 1] == '/')
        len--;
    if (len == 0)
        return mfi_fail(err, MF_ERR_ARGUMENT, "the output path is empty");
    mfi_stage s = {strndup(final, len), malloc(len + sizeof ".tmp-XXXXXX")};
    mf_status status = MF_OK;
    struct stat st;
    if (!s.final || !s.dir) {
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", final);
    } else if (lstat(s.final, &st) == 0) {
        status = mfi_fail(err, MF_ERR_ARGUMENT, "%s: exists already", s.final);
    } else {
        snprintf(s.dir, len + sizeof ".tmp-XXXXXX", "%s.tmp-XXXXXX", s.final);
        if (!mkdtemp(s.dir)) {
            status = fail_errno(err, s.final, "make a folder beside it", errno);
        } else {
            /* mkdtemp's folder is private; this one is to be as any other. Asking for the umask
             * would change it for all threads, so it is seen from a folder made inside. */
            char *probe = mfi_path_join(s.dir, "p");
            if (probe && mkdir(probe, 0777) == 0) {
                if (stat(probe, &st) == 0)
                    (void)!chmod(s.dir, st.st_mode & 07777);
                rmdir(probe);
            }
            free(probe);
        }
    }
    if (status != MF_OK) {
        free(s.final);
        free(s.dir);
        return status;
    }
    *stage = s;
    return MF_OK;
}

static mf_status sync_folder(const char *path, mf_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(err, path, "open", errno);
    /* Some file systems can't flush a folder and say so: nothing more can be done there. */
    int e = fsync(fd) != 0 && errno != EINVAL ? errno : 0;
    close(fd);
    return e ? fail_errno(err, path, "flush", e) : MF_OK;
}

/* rename, but never onto something that exists: plain rename replaces an empty folder. */
static int rename_new(const char *from, const char *to)
{
#ifdef RENAME_NOREPLACE
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return errno;
#endif
    struct stat st;
    if (lstat(to, &st) == 0)
        return EEXIST;
    return rename(from, to) == 0 ? 0 : errno;
}

/* Flushes the folder that a file is in, if that can be done. */
static void sync_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    mf_error ignored;
    char *dir = !slash ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (dir)
        (void)sync_folder(dir, &ignored);
    free(dir);
}

/* Gives `from` the final name. That the name survives a power cut can't be promised if flushing its
 * folder fails, but it is there. */
static mf_status take_name(const char *from, const char *final, mf_error *err)
{
    int e = rename_new(from, final);
    if (e == EEXIST)
        return mfi_fail(err, MF_ERR_ARGUMENT, "%s: exists already", final);
    if (e)
        return fail_errno(err, final, "rename", e);
    sync_parent(final);
    return MF_OK;
}

mf_status mfi_stage_commit(mfi_stage *stage, mf_error *err)
{
    MFI_TRY(sync_folder(stage->dir, err));
    MFI_TRY(take_name(stage->dir, stage->final, err));
    free(stage->dir);
    stage->dir = NULL;
    return MF_OK;
}

mf_status mfi_stage_commit_file(mfi_stage *stage, const char *name, mf_error *err)
{
    char *from = mfi_path_join(stage->dir, name);
    if (!from)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", stage->final);
    mf_status status = take_name(from, stage->final, err);
    free(from);
    return status; /* closing the stage removes the folder */
}

static mf_status remove_file(void *ctx, const char *name, mf_error *err)
{
    (void)err;
    char *path = mfi_path_join(ctx, name);
    if (path)
        unlink(path);
    free(path);
    return MF_OK;
}

/* The folders in a folder, with the files in them. */
static void remove_folders(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        struct stat st;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISDIR(st.st_mode))
            continue;
        char *inner = mfi_path_join(path, entry->d_name);
        if (inner) {
            (void)mfi_dir_each_file(inner, remove_file, inner, NULL);
            rmdir(inner);
        }
        free(inner);
    }
    if (dir)
        closedir(dir);
}

void mfi_stage_close(mfi_stage *stage)
{
    if (stage->dir) {
        (void)mfi_dir_each_file(stage->dir, remove_file, stage->dir, NULL);
        remove_folders(stage->dir);
        rmdir(stage->dir);
    }
    free(stage->dir);
    free(stage->final);
    *stage = (mfi_stage){0};
}

mf_status mfi_dir_create(const char *path, mf_error *err)
{
    return mkdir(path, 0777) == 0 ? MF_OK : fail_errno(err, path, "make", errno);
}

bool mfi_dir_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

mf_status mfi_dir_each_file(const char *path,
                            mf_status (*fn)(void *ctx, const char *name, mf_error *), void *ctx,
                            mf_error *err)
{
    DIR *dir = opendir(path);
    if (!dir)
        return fail_errno(err, path, "list", errno);
    mf_status status = MF_OK;
    struct dirent *entry;
    while (status == MF_OK && (errno = 0, entry = readdir(dir))) {
        struct stat st;
        if (fstatat(dirfd(dir), entry->d_name, &st, 0) == 0 && S_ISREG(st.st_mode))
            status = fn(ctx, entry->d_name, err);
    }
    if (status == MF_OK && errno)
        status = fail_errno(err, path, "list", errno);
    closedir(dir);
    return status;
}

/* ---- files beside others ---- */

mf_status mfi_out_beside(mfi_out *out, const char *final, uint64_t bytes, mf_error *err)
{
    size_t len = strlen(final);
    char *path = malloc(len + sizeof ".tmp-XXXXXX");
    if (bytes > INT64_MAX || !path) {
        free(path);
        return mfi_fail(err, MF_ERR_LIMIT, "%s: no memory, or %" PRIu64 " bytes are too many",
                        final, bytes);
    }
    memcpy(path, final, len);
    memcpy(path + len, ".tmp-XXXXXX", sizeof ".tmp-XXXXXX");
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0) {
        int e = errno;
        free(path);
        return fail_errno(err, final, "write beside it", e);
    }
    *out = (mfi_out){fd, path};
    int e = reserve(fd, bytes);
    if (e == 0)
        return MF_OK;
    mfi_out_discard(out);
    return fail_errno(err, final, "reserve space", e);
}

mf_status mfi_out_settle(mfi_out *out, mf_error *err)
{
    if (fsync(out->fd) != 0)
        return fail_errno(err, out->path, "flush", errno);
#ifdef POSIX_FADV_DONTNEED
    posix_fadvise(out->fd, 0, 0, POSIX_FADV_DONTNEED);
#endif
    return MF_OK;
}

mf_status mfi_out_publish(mfi_out *out, const char *final, mf_error *err)
{
    mf_status status = mfi_out_settle(out, err);
    int fd = out->fd;
    out->fd = -1;
    if (close(fd) != 0 && status == MF_OK)
        status = fail_errno(err, out->path, "close", errno);
    if (status == MF_OK && rename(out->path, final) != 0)
        status = fail_errno(err, final, "give it its name", errno);
    if (status != MF_OK)
        unlink(out->path);
    mfi_out_close(out);
    if (status == MF_OK)
        sync_parent(final);
    return status;
}

void mfi_out_discard(mfi_out *out)
{
    if (out->path)
        unlink(out->path);
    mfi_out_close(out);
}
