/* Files: open once, read at offsets, know whether they changed. */
#ifndef MFI_OS_FILE_H
#define MFI_OS_FILE_H

#include <sys/types.h>

#include "base/status.h"

typedef struct mfi_file {
    int fd; /* -1 when closed */
    uint64_t size;
    uint64_t dev, ino, mtime_ns; /* identity at open */
    char *path;
} mfi_file;

/* Opens a regular file for reading; the kernel is told not to read ahead. MF_ERR_FILE_MISSING,
 * MF_ERR_IO (with the reason). */
mf_status mfi_file_open(mfi_file *file, const char *path, mf_error *err);
void mfi_file_close(mfi_file *file);

/* Reads exactly len bytes at offset. A file that ends earlier is MF_ERR_FILE_TRUNCATED with path
 * and offset; EINTR and short reads are retried. What the page cache didn't hold before it doesn't
 * hold afterwards, either; on systems that can't do that, nothing of the range. Thread-safe. */
mf_status mfi_file_read(const mfi_file *file, void *dst, size_t len, uint64_t offset,
                        mf_error *err);

/* One pread that leaves the page cache as it was, with errno EOPNOTSUPP or ENOSYS where system or
 * filesystem can't do that. */
ssize_t mfi_file_read_quietly(const mfi_file *file, void *dst, size_t len, uint64_t offset);

/* MF_ERR_FILE_CHANGED if size, modification time or identity behind the descriptor differ from
 * those at open. */
mf_status mfi_file_check(const mfi_file *file, mf_error *err);

/* The whole file in a new NUL-terminated buffer (release with free). MF_ERR_LIMIT if over
 * max_bytes. */
mf_status mfi_file_read_all(const char *path, uint64_t max_bytes, char **text, size_t *len,
                            mf_error *err);

bool mfi_file_exists(const char *path);
/* dir + "/" + name in a new string, or NULL if out of memory. */
char *mfi_path_join(const char *dir, const char *name);

#endif
