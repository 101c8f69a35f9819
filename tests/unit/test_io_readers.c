/* Reader threads and the kernel's ring on real files, through the page cache and past it: right
 * bytes, failures with their place, little page cache left. */
#include "fake/support.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/rng.h"
#include "io/direct.h"
#include "io/io.h"

enum { N_FILES = 3 };

/* The reader a test runs with; its state. */
typedef struct reader {
    const char *name;
    mf_status (*open)(mfi_io **io, const mfi_file *const *files, uint32_t n_files,
                      const mfi_io_options *options, mf_error *err);
    void (*pretend)(mfi_io *io, bool no_dontcache, bool no_mincore);
    bool direct;
} reader;

static reader readers[] = {
    {"threads", mfi_io_threads_open, mfi_io_threads_pretend, false},
    {"threads, direct", mfi_io_threads_open, mfi_io_threads_pretend, true},
    {"ring", mfi_io_uring_open, mfi_io_uring_pretend, false},
    {"ring, direct", mfi_io_uring_open, mfi_io_uring_pretend, true},
};

/* Skips where the system has no ring, as in many containers. */
static mfi_io *open_reader(const reader *r, const mfi_file *const *files, uint32_t n_files,
                           uint32_t n_readers, uint64_t page_cache_bytes)
{
    mf_error err;
    mfi_io *io = NULL;
    mfi_io_options options = {n_readers, page_cache_bytes, r->direct};
    mf_status status = r->open(&io, files, n_files, &options, &err);
    if (status == MF_ERR_UNSUPPORTED)
        mft_skip("%s: %s", r->name, err.message);
    mft_ok(status, &err);
    return io;
}

typedef struct fixture {
    mfi_file files[N_FILES];
    const mfi_file *list[N_FILES];
    unsigned char *bytes[N_FILES];
    size_t len[N_FILES];
} fixture;

/* Writes a file of random bytes and drops it from the page cache. */
static void make_file(fixture *f, int i, size_t len, uint64_t seed)
{
    char path[512];
    snprintf(path, sizeof path, "%s/data%d-%d", mft_tmpdir(), (int)seed, i);
    mfi_rng rng = {seed * 1000 + (uint64_t)i};
    f->len[i] = len;
    f->bytes[i] = malloc(len + 8);
    for (size_t k = 0; k < len; k += 8) {
        uint64_t v = mfi_rng_next(&rng);
        memcpy(f->bytes[i] + k, &v, 8);
    }
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, f->bytes[i], len), len);
    fsync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
    mf_error err;
    mft_ok(mfi_file_open(&f->files[i], path, &err), &err);
    f->list[i] = &f->files[i];
}

static void free_files(fixture *f, int n)
{
    for (int i = 0; i < n; i++) {
        unlink(f->files[i].path);
        mfi_file_close(&f->files[i]);
        free(f->bytes[i]);
    }
}

typedef struct job {
    mfi_io_req req;
    bool pending;
} job;

static void check_done(const fixture *f, mfi_io_req *req)
{
    job *j = (job *)req;
    assert_true(j->pending);
    j->pending = false;
    if (req->status != MF_OK)
        fail_msg("%s", req->error.message);
    assert_memory_equal(req->dst, f->bytes[req->file] + req->offset, req->len);
    assert_true(req->done_ns > 0);
    memset(req->dst, 0, req->len);
}

static void many_random_reads(const reader *r, uint32_t n_readers, uint64_t page_cache_bytes,
                              uint64_t seed)
{
    fixture f;
    for (int i = 0; i < N_FILES; i++)
        make_file(&f, i, (size_t)3000000 + 77777u * (unsigned)i, seed);
    mfi_io *io = open_reader(r, f.list, N_FILES, n_readers, page_cache_bytes);
    assert_null(io->poll(io));
    assert_null(io->wait(io));

    enum { N_JOBS = 32, MAX_LEN = 1 << 21, STRIDE = MAX_LEN + 4096, ROUNDS = 600 };
    static job jobs[N_JOBS];
    memset(jobs, 0, sizeof jobs);
    char *memory = aligned_alloc(4096, (size_t)N_JOBS * STRIDE);
    mfi_rng rng = {seed};
    uint64_t n_reads = 0, bytes = 0;
    uint32_t n_pending = 0;
    for (int round = 0; round < ROUNDS; round++) {
        mfi_io_req *batch[N_JOBS];
        uint32_t n = 0, want = (uint32_t)mfi_rng_below(&rng, N_JOBS);
        for (uint32_t i = 0; i < N_JOBS && n < want; i++) {
            if (jobs[i].pending)
                continue;
            mfi_io_req *req = &jobs[i].req;
            req->file = (uint32_t)mfi_rng_below(&rng, N_FILES);
            uint64_t max = mfi_rng_below(&rng, 20) ? 9000 : MAX_LEN;
            req->len = mfi_rng_below(&rng, max);
            req->offset = mfi_rng_below(&rng, f.len[req->file] - req->len + 1);
            req->dst = memory + (size_t)i * STRIDE;
            if (mfi_rng_below(&rng, 4)) /* as direct reads want it */
                req->dst = (char *)req->dst + req->offset % 4096;
            req->cookie = i;
            jobs[i].pending = true;
            batch[n++] = req;
            bytes += req->len;
        }
        io->submit(io, batch, n);
        n_reads += n;
        n_pending += n;
        uint32_t n_take = (uint32_t)mfi_rng_below(&rng, n_pending + 1);
        while (n_take-- > 0) {
            mfi_io_req *req = mfi_rng_below(&rng, 2) ? io->poll(io) : io->wait(io);
            if (!req)
                continue;
            check_done(&f, req);
            n_pending--;
        }
    }
    for (; n_pending > 0; n_pending--)
        check_done(&f, io->wait(io));
    assert_null(io->wait(io));
    mfi_io_stats stats;
    io->stats(io, &stats);
    assert_int_equal(stats.n_reads, n_reads);
    assert_int_equal(stats.bytes, bytes);
    mfi_direct direct;
    mfi_direct_open(&direct, f.list[0]);
    if (r->direct && direct.fd >= 0)
        assert_true(stats.direct_bytes > bytes / 2 && stats.direct_bytes < bytes);
    else
        assert_int_equal(stats.direct_bytes, 0);
    mfi_direct_close(&direct);
    io->close(io);
    free(memory);
    free_files(&f, N_FILES);
}

static void random_reads(void **state)
{
    const reader *r = *state;
    many_random_reads(r, 1, 1 << 20, 1);
    many_random_reads(r, 4, 0, 2);
    many_random_reads(r, 8, 64 << 20, 3);
}

static void a_file_cut_short_is_an_error(void **state)
{
    fixture f;
    make_file(&f, 0, 100000, 10);
    mfi_io *io = open_reader(*state, f.list, 1, 2, 0);
    char *dst = aligned_alloc(4096, 102400);
    mfi_io_req req = {.file = 0, .offset = 0, .len = 100000, .dst = dst};
    mfi_io_req *list[] = {&req};
    io->submit(io, list, 1);
    assert_ptr_equal(io->wait(io), &req);
    mft_ok(req.status, &req.error);

    assert_int_equal(truncate(f.files[0].path, 50000), 0);
    io->submit(io, list, 1);
    assert_ptr_equal(io->wait(io), &req);
    assert_int_equal(req.status, MF_ERR_FILE_TRUNCATED);
    assert_int_equal(req.error.status, MF_ERR_FILE_TRUNCATED);
    assert_non_null(strstr(req.error.message, f.files[0].path));
    if (!strstr(req.error.message, "offset 50000"))
        fail_msg("%s", req.error.message);

    /* What is still there can be read, with the same request. */
    req.len = 50000;
    io->submit(io, list, 1);
    assert_ptr_equal(io->wait(io), &req);
    mft_ok(req.status, &req.error);
    assert_memory_equal(dst, f.bytes[0], 50000);

    req.offset = UINT64_MAX - 10;
    io->submit(io, list, 1);
    assert_ptr_equal(io->wait(io), &req);
    assert_int_equal(req.status, MF_ERR_FILE_TRUNCATED);
    io->close(io);
    free(dst);
    free_files(&f, 1);
}

static void other_failures_name_the_place(void **state)
{
    const reader *r = *state;
    fixture f;
    make_file(&f, 0, 1000, 11);
    mf_error err;
    mfi_io *io = open_reader(r, f.list, 1, 1, 0);
    mfi_io_req req = {.file = 0, .offset = 0, .len = 512, .dst = NULL}; /* EFAULT */
    mfi_io_req *list[] = {&req};
    io->submit(io, list, 1);
    assert_ptr_equal(io->wait(io), &req);
    assert_int_equal(req.status, MF_ERR_IO);
    assert_non_null(strstr(req.error.message, f.files[0].path));
    assert_non_null(strstr(req.error.message, "at offset 0:"));
    io->close(io);
    free_files(&f, 1);
    assert_int_equal(r->open(&io, NULL, 0, &(mfi_io_options){.n_readers = 0}, &err), MF_ERR_LIMIT);
    assert_int_equal(r->open(&io, NULL, 0, &(mfi_io_options){.n_readers = 100000}, &err),
                     MF_ERR_LIMIT);
}

static void closing_waits_for_reads(void **state)
{
    fixture f;
    make_file(&f, 0, 8 << 20, 12);
    for (int round = 0; round < 5; round++) {
        mfi_io *io = open_reader(*state, f.list, 1, 3, 0);
        char *dst = aligned_alloc(4096, 8 << 20);
        mfi_io_req reqs[8];
        mfi_io_req *list[8];
        for (uint32_t i = 0; i < 8; i++) {
            reqs[i] = (mfi_io_req){
                .offset = (uint64_t)i << 20, .len = 1 << 20, .dst = dst + ((size_t)i << 20)};
            list[i] = &reqs[i];
        }
        io->submit(io, list, 8);
        io->close(io);
        assert_memory_equal(dst, f.bytes[0], 8 << 20);
        free(dst);
    }
    free_files(&f, 1);
}

/* Pages of the file that are in memory, asked through a mapping of our own. */
static uint64_t resident_bytes(const fixture *f, int i)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = (f->len[i] + page - 1) / page, count = 0;
    void *map = mmap(NULL, f->len[i], PROT_READ, MAP_SHARED, f->files[i].fd, 0);
    assert_true(map != MAP_FAILED);
    unsigned char *vec = malloc(n);
    assert_int_equal(mincore(map, f->len[i], vec), 0);
    for (size_t k = 0; k < n; k++)
        count += vec[k] & 1;
    free(vec);
    munmap(map, f->len[i]);
    return count * page;
}

/* How to keep the page cache small: what the system offers, and what older ones do. */
static const struct {
    bool no_dontcache, no_mincore;
    const char *name;
} ways[] = {
    {false, false, "this system's way"}, {true, false, "mincore"}, {true, true, "dropping all"}};

static void page_cache_stays_small(void **state)
{
    const reader *r = *state;
    enum { LEN = 32 << 20, PIECE = 1 << 20, N_THREADS = 4, N_JOBS = 8, LARGE_FOLIO = 64 << 10 };
    fixture f;
    make_file(&f, 0, LEN, 20);
    if (resident_bytes(&f, 0) > LEN / 8) { /* tmpfs and the like */
        free_files(&f, 1);
        mft_skip("the filesystem of %s keeps files in memory", mft_tmpdir());
    }
    const uint64_t bounds[] = {N_THREADS * MFI_IO_READER_CACHE_BYTES, 4 << 20};
    for (size_t k = 0; k < 2 * MFI_ARRAY_LEN(ways); k++) {
        uint64_t bound = bounds[k % 2];
        mfi_io *io = open_reader(r, f.list, 1, N_THREADS, bound);
        r->pretend(io, ways[k / 2].no_dontcache, ways[k / 2].no_mincore);
        mfi_rng rng = {k};
        char *memory = malloc((size_t)N_JOBS * 2 * PIECE);
        mfi_io_req reqs[N_JOBS];
        uint64_t total = 0, most = 0;
        for (int round = 0; total < 2ull * LEN; round++) {
            mfi_io_req *list[N_JOBS];
            for (uint32_t i = 0; i < N_JOBS; i++) {
                uint64_t len = 1 + mfi_rng_below(&rng, round % 2 ? 2 * PIECE : 20000);
                /* Apart from each other, as experts are. */
                uint64_t first = i * (uint64_t)(LEN / N_JOBS);
                reqs[i] = (mfi_io_req){.offset = first + mfi_rng_below(&rng, LEN / N_JOBS - len),
                                       .len = len,
                                       .dst = memory + (size_t)i * 2 * PIECE};
                list[i] = &reqs[i];
                total += len;
            }
            io->submit(io, list, N_JOBS);
            for (uint32_t i = 0; i < N_JOBS; i++) {
                uint64_t resident = resident_bytes(&f, 0); /* others are being read */
                most = resident > most ? resident : most;
                mfi_io_req *req = io->wait(io);
                mft_ok(req->status, &req->error);
                assert_memory_equal(req->dst, f.bytes[0] + req->offset, req->len);
            }
        }
        print_message("%s: at most %llu KiB of %d resident, bound %llu KiB\n", ways[k / 2].name,
                      (unsigned long long)most >> 10, LEN >> 10, (unsigned long long)bound >> 10);
        /* What another reader is just copying from can't be dropped: a page, or with filesystems
         * that cache in larger folios one of these, at each end of a read. */
        uint64_t shared = (uint64_t)N_THREADS * 2 * LARGE_FOLIO;
        assert_true(most <= bound + shared);
        io->close(io);
        assert_true(resident_bytes(&f, 0) <= shared);
        free(memory);
    }
    free_files(&f, 1);
}

/* Pages that were cached before belong to somebody else. */
static void foreign_pages_stay(void **state)
{
    const reader *r = *state;
    enum { LEN = 8 << 20 };
    fixture f;
    make_file(&f, 0, LEN, 21);
    if (resident_bytes(&f, 0) > LEN / 8) {
        free_files(&f, 1);
        mft_skip("the filesystem of %s keeps files in memory", mft_tmpdir());
    }
    char *dst = malloc(LEN);
    for (size_t k = 0; k < 2; k++) {
        mfi_io_stats stats;
        assert_int_equal(pread(f.files[0].fd, dst, LEN / 2, 0), LEN / 2); /* warms one half */
        mfi_io *io = open_reader(r, f.list, 1, 2, MFI_MIB);
        r->pretend(io, ways[k].no_dontcache, ways[k].no_mincore);
        uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), before = resident_bytes(&f, 0);
        assert_true(before >= LEN / 2);
        mfi_io_req req = {.offset = LEN / 8, .len = LEN / 2, .dst = dst};
        mfi_io_req *list[] = {&req};
        io->submit(io, list, 1);
        assert_ptr_equal(io->wait(io), &req);
        mft_ok(req.status, &req.error);
        io->stats(io, &stats);
        io->close(io);
        assert_memory_equal(dst, f.bytes[0] + LEN / 8, LEN / 2);
        /* Border pages of pieces may go, and some by themselves where memory is short: by far less
         * than the 3 MiB of ours that were read. Of the missing MiB nothing may come. */
        uint64_t borders = k == 0 ? 0 : LEN / 2 / (MFI_MIB / 2) * 2 * page;
        uint64_t after = resident_bytes(&f, 0), slack = LEN / 16;
        assert_true(after <= before + slack && after + borders + slack >= before);
        if (k == 1 && stats.direct_bytes == 0) /* the missing part, and borders */
            assert_in_range(stats.dropped_bytes, LEN / 8, LEN / 8 + borders + slack);
    }
    free(dst);
    free_files(&f, 1);
}

/* Headers and text files go another way than weights. */
static void plain_reads_leave_nothing(void **state)
{
    (void)state;
    enum { LEN = 4 << 20 };
    fixture f;
    mf_error err;
    make_file(&f, 0, LEN, 22);
    if (resident_bytes(&f, 0) > LEN / 8) {
        free_files(&f, 1);
        mft_skip("the filesystem of %s keeps files in memory", mft_tmpdir());
    }
    char *dst = malloc(LEN);
    mft_ok(mfi_file_read(&f.files[0], dst, LEN / 3, 7, &err), &err);
    assert_memory_equal(dst, f.bytes[0] + 7, LEN / 3);
    assert_int_equal(resident_bytes(&f, 0), 0);
    free(dst);
    free_files(&f, 1);
}

int main(void)
{
    static const struct {
        const char *name;
        CMUnitTestFunction run;
    } cases[] = {
        {"random_reads", random_reads},
        {"a_file_cut_short_is_an_error", a_file_cut_short_is_an_error},
        {"other_failures_name_the_place", other_failures_name_the_place},
        {"closing_waits_for_reads", closing_waits_for_reads},
        {"page_cache_stays_small", page_cache_stays_small},
        {"foreign_pages_stay", foreign_pages_stay},
    };
    enum { N_CASES = MFI_ARRAY_LEN(cases), N_READERS = MFI_ARRAY_LEN(readers) };
    struct CMUnitTest tests[N_CASES * N_READERS + 1];
    static char names[N_CASES * N_READERS][80];
    for (int i = 0; i < N_CASES * N_READERS; i++) {
        reader *r = &readers[i % N_READERS];
        snprintf(names[i], sizeof names[i], "%s: %s", cases[i / N_READERS].name, r->name);
        tests[i] = (struct CMUnitTest){names[i], cases[i / N_READERS].run, NULL, NULL, r};
    }
    tests[N_CASES * N_READERS] = (struct CMUnitTest)cmocka_unit_test(plain_reads_leave_nothing);
    return mft_run(tests);
}
