/* EIO from real reads: tried once more a request, and then an error with file and offset. Reader
 * threads meet it in this program's own preadv and its like, which stand before the C library's;
 * the kernel's ring in a file that really fails: this process's memory, where nothing is mapped. */
#include "fake/support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/rng.h"
#include "io/direct.h"
#include "io/io.h"

#ifdef __linux__

enum { LEN = 3 << 20, PAGE = 4096 };

/* While armed, reads of any file at or behind the offset fail, so many times: the program reads no
 * other meanwhile. */
static atomic_bool armed;
static atomic_int failures_left, n_failed;
static atomic_llong failing_from;

static bool fails(off_t offset, size_t len)
{
    if (!atomic_load(&armed) || offset + (off_t)len <= atomic_load(&failing_from) ||
        atomic_load(&failures_left) == 0)
        return false;
    atomic_fetch_sub(&failures_left, 1);
    atomic_fetch_add(&n_failed, 1);
    errno = EIO;
    return true;
}

ssize_t pread(int fd, void *dst, size_t len, off_t offset)
{
    return fails(offset, len) ? -1 : syscall(SYS_pread64, fd, dst, len, offset);
}

static size_t total(const struct iovec *iov, int n)
{
    size_t sum = 0;
    for (int i = 0; i < n; i++)
        sum += iov[i].iov_len;
    return sum;
}

ssize_t preadv(int fd, const struct iovec *iov, int n, off_t offset)
{
    return fails(offset, total(iov, n)) ? -1
                                        : syscall(SYS_preadv, fd, iov, (long)n, (long)offset, 0L);
}

ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t offset, int flags)
{
    return fails(offset, total(iov, n))
               ? -1
               : syscall(SYS_preadv2, fd, iov, (long)n, (long)offset, 0L, flags);
}

/* ---- reader threads ---- */

static void read_once(bool direct, int n_failures, mf_status want)
{
    char path[512];
    mf_error err;
    mfi_file file;
    const mfi_file *list[] = {&file};
    mfi_io *io = NULL;
    mfi_rng rng = {5};
    unsigned char *bytes = malloc(LEN), *dst = aligned_alloc(PAGE, LEN);
    for (size_t i = 0; i < LEN; i++)
        bytes[i] = (unsigned char)mfi_rng_next(&rng);
    snprintf(path, sizeof path, "%s/data", mft_tmpdir());
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_int_equal(write(fd, bytes, LEN), LEN);
    close(fd);
    mft_ok(mfi_file_open(&file, path, &err), &err);
    mfi_io_options options = {2, 4 << 20, direct};
    mft_ok(mfi_io_threads_open(&io, list, 1, &options, &err), &err);
    mfi_io_req req = {.file = 0, .offset = 0, .len = LEN, .dst = dst};
    mfi_io_req *reqs[] = {&req};
    mfi_io_stats stats;
    atomic_store(&n_failed, 0);
    atomic_store(&failing_from, LEN / 2);
    atomic_store(&failures_left, n_failures);
    atomic_store(&armed, true);
    io->submit(io, reqs, 1);
    assert_ptr_equal(io->wait(io), &req);
    atomic_store(&armed, false);
    assert_int_equal(req.status, want);
    if (want == MF_OK) {
        assert_memory_equal(dst, bytes, LEN);
        assert_int_equal(atomic_load(&n_failed), n_failures);
        io->stats(io, &stats);
        assert_int_equal(stats.direct_bytes, direct ? LEN : 0);
    } else {
        /* Not a third time; the piece behind it may have failed meanwhile. */
        assert_in_range(atomic_load(&n_failed), 2, 3);
        assert_non_null(strstr(req.error.message, path));
        assert_non_null(strstr(req.error.message, "at offset 1048576: ")); /* of the piece */
    }
    io->close(io);
    mfi_file_close(&file);
    unlink(path);
    free(dst);
    free(bytes);
}

static void threads_try_once_more(void **state)
{
    (void)state;
    read_once(false, 1, MF_OK);
    read_once(false, 1000000, MF_ERR_IO);
}

/* Whether files of the test's folder can be read past the page cache. */
static bool can_be_direct(void)
{
    char path[512];
    mf_error err;
    mfi_file file;
    mfi_direct direct;
    snprintf(path, sizeof path, "%s/probe", mft_tmpdir());
    close(open(path, O_CREAT | O_WRONLY, 0600));
    mft_ok(mfi_file_open(&file, path, &err), &err);
    mfi_direct_open(&direct, &file);
    bool can = direct.fd >= 0;
    mfi_direct_close(&direct);
    mfi_file_close(&file);
    unlink(path);
    return can;
}

static void direct_threads_try_once_more(void **state)
{
    (void)state;
    if (!can_be_direct())
        mft_skip("%s can't be read past the page cache", mft_tmpdir());
    read_once(true, 1, MF_OK);
    read_once(true, 1000000, MF_ERR_IO);
}

/* ---- the ring ---- */

/* Reads a page of this process's memory, where nothing is mapped; `mend` maps it before the reader
 * looks at what came back. */
static mf_status read_memory(uint64_t *place, bool mend, char *dst, mf_error *err)
{
    mf_error fault;
    mfi_io *io = NULL;
    char path[] = "/proc/self/mem";
    mfi_file file = {.fd = open(path, O_RDONLY | O_CLOEXEC), .path = path};
    const mfi_file *list[] = {&file};
    mfi_io_options options = {2, 1 << 20, false};
    assert_true(file.fd >= 0);
    mf_status status = mfi_io_uring_open(&io, list, 1, &options, &fault);
    if (status == MF_ERR_UNSUPPORTED)
        mft_skip("%s", fault.message);
    mft_ok(status, &fault);
    mfi_io_uring_pretend(io, true, true);
    char *at = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(at != MAP_FAILED);
    munmap(at, PAGE); /* nobody maps anything until it was read */
    *place = (uintptr_t)at;
    mfi_io_req req = {.file = 0, .offset = (uintptr_t)at, .len = PAGE, .dst = dst};
    mfi_io_req *reqs[] = {&req};
    io->submit(io, reqs, 1);
    usleep(20000); /* the kernel has read by now; if not, it reads what is well */
    if (mend) {
        assert_ptr_equal(mmap(at, PAGE, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
                         at);
        memset(at, 7, PAGE);
    }
    assert_ptr_equal(io->wait(io), &req);
    if (mend)
        munmap(at, PAGE);
    *err = req.error;
    status = req.status;
    io->close(io);
    close(file.fd);
    return status;
}

static void the_ring_tries_once_more(void **state)
{
    (void)state;
    mf_error err;
    uint64_t at;
    char place[64], dst[PAGE] = {0}, sevens[PAGE];
    assert_int_equal(read_memory(&at, false, dst, &err), MF_ERR_IO);
    snprintf(place, sizeof place, "at offset %llu: ", (unsigned long long)at);
    assert_non_null(strstr(err.message, "/proc/self/mem"));
    assert_non_null(strstr(err.message, place));
    assert_non_null(strstr(err.message, strerror(EIO)));
    mft_ok(read_memory(&at, true, dst, &err), &err);
    memset(sevens, 7, PAGE);
    assert_memory_equal(dst, sevens, PAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_try_once_more),
        cmocka_unit_test(direct_threads_try_once_more),
        cmocka_unit_test(the_ring_tries_once_more),
    };
    return mft_run(tests);
}

#else

int main(void)
{
    return 77; /* skipped: these faults are made by Linux's means */
}

#endif
