/* Output that is taken up again where an earlier try ended: a staging folder of a known name, and a
 * file in it that one process at a time may have. POSIX; called by writers of large outputs. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/file.h"
#include "os/out.h"

static mf_status fail_errno(mf_error *err, const char *path, const char *what, int e)
{
    return mfi_fail(err, e == ENOSPC || e == EDQUOT ? MF_ERR_DISK_FULL : MF_ERR_IO,
                    "%s: can't %s: %s", path, what, strerror(e));
}

mf_status mfi_stage_resume(mfi_stage *stage, const char *final, mf_error *err)
{
    static const char ending[] = ".part";
    size_t len = strlen(final);
    while (len > 1 && final[len - 1] == '/')
        len--;
    if (len == 0)
        return mfi_fail(err, MF_ERR_ARGUMENT, "the output path is empty");
    mfi_stage s = {strndup(final, len), malloc(len + sizeof ending)};
    mf_status status = MF_OK;
    struct stat st;
    if (!s.final || !s.dir) {
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", final);
    } else if (lstat(s.final, &st) == 0) {
        status = mfi_fail(err, MF_ERR_ARGUMENT, "%s: exists already", s.final);
    } else {
        snprintf(s.dir, len + sizeof ending, "%s%s", s.final, ending);
        if (mkdir(s.dir, 0777) != 0 && errno != EEXIST)
            status = fail_errno(err, s.dir, "make", errno);
        else if (lstat(s.dir, &st) != 0 || !S_ISDIR(st.st_mode))
            status = mfi_fail(err, MF_ERR_ARGUMENT, "%s: is in the way: no folder", s.dir);
    }
    if (status != MF_OK) {
        free(s.final);
        free(s.dir);
        return status;
    }
    *stage = s;
    return MF_OK;
}

void mfi_stage_leave(mfi_stage *stage)
{
    free(stage->dir);
    free(stage->final);
    *stage = (mfi_stage){0};
}

mf_status mfi_stage_remove(const mfi_stage *stage, const char *name, mf_error *err)
{
    char *path = mfi_path_join(stage->dir, name);
    if (!path)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", stage->dir);
    mf_status status = MF_OK;
    if (remove(path) != 0 && errno != ENOENT)
        status = fail_errno(err, path, "remove", errno);
    free(path);
    return status;
}

mf_status mfi_out_resume(mfi_out *out, const char *path, mf_error *err)
{
    *out = (mfi_out){.fd = -1};
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0)
        return fail_errno(err, path, "open", errno);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int e = errno;
        close(fd);
        if (e == EWOULDBLOCK)
            return mfi_fail(err, MF_ERR_STATE, "%s: another process is writing it", path);
        return fail_errno(err, path, "lock", e);
    }
    char *copy = strdup(path);
    if (!copy) {
        close(fd);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    }
    *out = (mfi_out){fd, copy};
    return MF_OK;
}
