/* Direct reads; see direct.h. Pure but for opening the file; called by the readers, on whatever
 * thread reads. */
#include "io/direct.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"

#if defined(__linux__) && !defined(STATX_DIOALIGN)
#define STATX_DIOALIGN 0x00002000U /* Linux 6.1 */
#endif

#ifdef __linux__

/* The alignment that the file wants. The fields are newer than the headers of some systems: they
 * follow stx_mnt_id, at the places the kernel has had them since 6.1. */
static bool ask_alignment(int fd, uint32_t *mem, uint32_t *offset)
{
    struct statx sx;
    memset(&sx, 0, sizeof sx);
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) != 0)
        return false;
    if (!(sx.stx_mask & STATX_DIOALIGN)) { /* an older kernel, which takes pages everywhere */
        *mem = *offset = MFI_DIRECT_ALIGN_MAX;
        return true;
    }
    memcpy(mem, (const char *)&sx + 152, sizeof *mem);
    memcpy(offset, (const char *)&sx + 156, sizeof *offset);
    return true;
}

static bool usable(uint32_t align)
{
    return align > 0 && align <= MFI_DIRECT_ALIGN_MAX && (align & (align - 1)) == 0;
}

void mfi_direct_open(mfi_direct *direct, const mfi_file *file)
{
    *direct = (mfi_direct){.fd = -1};
    int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT);
    struct stat st;
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && (uint64_t)st.st_dev == file->dev &&
        (uint64_t)st.st_ino == file->ino &&
        ask_alignment(fd, &direct->mem_align, &direct->offset_align) && usable(direct->mem_align) &&
        usable(direct->offset_align))
        direct->fd = fd;
    else
        close(fd);
}

#else

void mfi_direct_open(mfi_direct *direct, const mfi_file *file)
{
    (void)file; /* F_NOCACHE, which every file has, does what there is to do */
    *direct = (mfi_direct){.fd = -1};
}

#endif

void mfi_direct_close(mfi_direct *direct)
{
    if (direct->fd >= 0)
        close(direct->fd);
    direct->fd = -1;
}

bool mfi_direct_fits(const mfi_direct *direct, uint64_t offset, const void *dst)
{
    return direct->fd >= 0 && (((uintptr_t)dst - offset) & (direct->mem_align - 1)) == 0;
}

bool mfi_direct_plan(const mfi_direct *direct, uint64_t offset, uint64_t len, void *dst,
                     void *edges, mfi_direct_read *r)
{
    if (!mfi_direct_fits(direct, offset, dst))
        return false;
    uint64_t align = direct->offset_align, end = offset + len;
    uint64_t begin = offset & ~(align - 1), whole_end = end & ~(align - 1);
    *r = (mfi_direct_read){
        .offset = begin, .head = offset - begin, .len = len, .dst = dst, .edges = edges};
    uint64_t at = begin;
    if (r->head > 0) { /* the first block, of which a part is wanted: maybe all there is */
        r->iov[r->n_iov++] = (struct iovec){edges, align};
        at += align;
    }
    if (at < whole_end) {
        char *to = (char *)dst + (at - offset);
        r->iov[r->n_iov++] = (struct iovec){to, whole_end - at};
        at = whole_end;
    }
    r->middle = at - begin;
    if (at < end) {
        r->tail = end - at;
        r->iov[r->n_iov++] = (struct iovec){(char *)edges + align, align};
    }
    return true;
}

uint64_t mfi_direct_finish(const mfi_direct_read *r, uint64_t n)
{
    if (n <= r->head)
        return 0;
    uint64_t got = MFI_MIN(n - r->head, r->len);
    if (r->head > 0)
        memcpy(r->dst, r->edges + r->head, MFI_MIN(got, r->iov[0].iov_len - r->head));
    if (r->tail > 0 && n > r->middle)
        memcpy(r->dst + r->len - r->tail, r->iov[r->n_iov - 1].iov_base,
               MFI_MIN(n - r->middle, r->tail));
    return got;
}
