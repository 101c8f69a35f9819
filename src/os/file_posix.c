/* Files on POSIX systems; see file.h. Reads are pread: the descriptor has no position to share. */
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#if defined(__linux__) && !defined(RWF_DONTCACHE)
#define RWF_DONTCACHE 0x80 /* Linux 6.14 */
#endif

#define PIECE_BYTES ((size_t)256 << 10) /* what is in the page cache while it is read */

static uint64_t mtime_ns(const struct stat *st)
{
#ifdef __APPLE__
    return (uint64_t)st->st_mtimespec.tv_sec * 1000000000u + (uint64_t)st->st_mtimespec.tv_nsec;
#else
    return (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec;
#endif
}

static mf_status fail_errno(mf_error *err, const char *path, const char *verb)
{
    int e = errno;
    mf_status status = e == ENOENT || e == ENOTDIR ? MF_ERR_FILE_MISSING : MF_ERR_IO;
    return mfi_fail(err, status, "%s: can't %s: %s", path, verb, strerror(e));
}

/* The kernel shall read what is asked for and no more: pages read ahead would be nobody's to drop.
 */
static void advise(int fd)
{
#if defined(__APPLE__)
    fcntl(fd, F_NOCACHE, 1);
    fcntl(fd, F_RDAHEAD, 0);
#elif defined(POSIX_FADV_RANDOM)
    posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
#else
    (void)fd;
#endif
}

mf_status mfi_file_open(mfi_file *file, const char *path, mf_error *err)
{
    /* O_NONBLOCK: a FIFO in the folder must not hang us; it has no effect on regular files. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return fail_errno(err, path, "open");
    struct stat st;
    if (fstat(fd, &st) != 0) {
        mf_status status = fail_errno(err, path, "stat");
        close(fd);
        return status;
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return mfi_fail(err, MF_ERR_FORMAT, "%s: not a regular file", path);
    }
    char *copy = strdup(path);
    if (!copy) {
        close(fd);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    }
    advise(fd);
    *file = (mfi_file){.fd = fd,
                       .size = (uint64_t)st.st_size,
                       .dev = (uint64_t)st.st_dev,
                       .ino = (uint64_t)st.st_ino,
                       .mtime_ns = mtime_ns(&st),
                       .path = copy};
    return MF_OK;
}

void mfi_file_close(mfi_file *file)
{
    if (file->path) {
        close(file->fd);
        free(file->path);
    }
    *file = (mfi_file){.fd = -1};
}

ssize_t mfi_file_read_quietly(const mfi_file *file, void *dst, size_t len, uint64_t offset)
{
#ifdef RWF_DONTCACHE
    struct iovec iov = {dst, len};
    return preadv2(file->fd, &iov, 1, (off_t)offset, RWF_DONTCACHE);
#else
    (void)file, (void)dst, (void)len, (void)offset;
    errno = ENOSYS;
    return -1;
#endif
}

static void drop(const mfi_file *file, uint64_t begin, uint64_t end)
{
#ifdef POSIX_FADV_DONTNEED
    begin &= ~(uint64_t)4095; /* partly covered pages would stay */
    posix_fadvise(file->fd, (off_t)begin, (off_t)(mfi_align_up(end, 65536) - begin),
                  POSIX_FADV_DONTNEED);
#else
    (void)file, (void)begin, (void)end; /* F_NOCACHE leaves nothing behind */
#endif
}

mf_status mfi_file_read(const mfi_file *file, void *dst, size_t len, uint64_t offset, mf_error *err)
{
    char *p = dst;
    size_t left = len;
    uint64_t at = offset;
    bool quiet = true;
    mf_status status = MF_OK;
    while (left > 0 && status == MF_OK) {
        size_t piece = MFI_MIN(left, PIECE_BYTES);
        ssize_t n = quiet ? mfi_file_read_quietly(file, p, piece, at)
                          : pread(file->fd, p, piece, (off_t)at);
        if (n > 0) {
            if (!quiet)
                drop(file, at, at + (uint64_t)n);
            p += n;
            left -= (size_t)n;
            at += (uint64_t)n;
        } else if (n == 0) {
            status = mfi_fail(err, MF_ERR_FILE_TRUNCATED,
                              "%s: ends at offset %" PRIu64
                              ", but %zu bytes are needed at offset %" PRIu64,
                              file->path, at, len, offset);
        } else if (quiet && (errno == EOPNOTSUPP || errno == ENOSYS)) {
            quiet = false;
        } else if (errno != EINTR) {
            status = mfi_fail(err, MF_ERR_IO, "%s: reading %zu bytes at offset %" PRIu64 ": %s",
                              file->path, left, at, strerror(errno));
        }
    }
    return status;
}

mf_status mfi_file_check(const mfi_file *file, mf_error *err)
{
    struct stat st;
    if (fstat(file->fd, &st) != 0)
        return fail_errno(err, file->path, "stat");
    if ((uint64_t)st.st_size != file->size)
        return mfi_fail(err, MF_ERR_FILE_CHANGED,
                        "%s: size changed from %" PRIu64 " to %" PRIu64 " bytes while open",
                        file->path, file->size, (uint64_t)st.st_size);
    if (mtime_ns(&st) != file->mtime_ns || (uint64_t)st.st_ino != file->ino ||
        (uint64_t)st.st_dev != file->dev)
        return mfi_fail(err, MF_ERR_FILE_CHANGED, "%s: was modified while open", file->path);
    return MF_OK;
}

mf_status mfi_file_read_all(const char *path, uint64_t max_bytes, char **text, size_t *len,
                            mf_error *err)
{
    mfi_file file;
    MFI_TRY(mfi_file_open(&file, path, err));
    mf_status status = MF_OK;
    char *data = NULL;
    if (file.size > max_bytes)
        status =
            mfi_fail(err, MF_ERR_LIMIT, "%s: %" PRIu64 " bytes; at most %" PRIu64 " are accepted",
                     path, file.size, max_bytes);
    else if (!(data = malloc((size_t)file.size + 1)))
        status =
            mfi_fail(err, MF_ERR_NO_MEMORY, "%s: no memory for %" PRIu64 " bytes", path, file.size);
    else
        status = mfi_file_read(&file, data, (size_t)file.size, 0, err);
    if (status == MF_OK) {
        data[file.size] = 0;
        *text = data;
        *len = (size_t)file.size;
    } else {
        free(data);
    }
    mfi_file_close(&file);
    return status;
}

bool mfi_file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

char *mfi_path_join(const char *dir, const char *name)
{
    size_t d = strlen(dir), n = strlen(name);
    while (d > 1 && dir[d - 1] == '/')
        d--;
    char *path = malloc(d + n + 2);
    if (path) {
        memcpy(path, dir, d);
        path[d] = '/';
        memcpy(path + d + 1, name, n + 1);
    }
    return path;
}
