/* Locks on POSIX systems; see lock.h. Called by the prefix cache on the engine's thread. */
#include "os/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

mf_status mfi_lock_take(int *fd, const char *path, mf_error *err)
{
    int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0)
        return mfi_fail(err, MF_ERR_IO, "%s: can't open: %s", path, strerror(errno));
    int r;
    do {
        r = flock(lock, LOCK_EX | LOCK_NB);
    } while (r != 0 && errno == EINTR);
    if (r != 0) {
        int e = errno;
        close(lock);
        return e == EWOULDBLOCK
                   ? mfi_fail(err, MF_ERR_STATE, "%s: another engine uses this folder", path)
                   : mfi_fail(err, MF_ERR_IO, "%s: can't lock: %s", path, strerror(e));
    }
    *fd = lock;
    return MF_OK;
}

void mfi_lock_drop(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

bool mfi_file_remove(const char *path)
{
    return unlink(path) == 0 || errno == ENOENT;
}

void mfi_file_touch(const char *path)
{
    (void)!utimensat(AT_FDCWD, path, NULL, 0);
}
