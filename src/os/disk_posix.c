/* Room on drives, on POSIX systems; see disk.h. Called by writers of large files before they begin.
 */
#include "os/disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

mf_status mfi_disk_free(const char *path, uint64_t *bytes, mf_error *err)
{
    struct statvfs fs;
    const char *slash = strrchr(path, '/');
    char *folder = !slash          ? strdup(".")
                   : slash == path ? strdup("/")
                                   : strndup(path, (size_t)(slash - path));
    if (!folder)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    int r, e;
    do {
        r = statvfs(folder, &fs);
        e = errno;
    } while (r != 0 && e == EINTR);
    mf_status status = MF_OK;
    if (r != 0)
        status = mfi_fail(err, e == ENOENT || e == ENOTDIR ? MF_ERR_FILE_MISSING : MF_ERR_IO,
                          "%s: %s", folder, strerror(e));
    else if (mfi_mul_overflow(fs.f_bavail, fs.f_frsize, bytes))
        *bytes = UINT64_MAX;
    free(folder);
    return status;
}
