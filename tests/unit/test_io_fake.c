/* The fake reader keeps the interface's promises and repeats itself from a seed. */
#include "fake/support.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "fake/io_fake.h"

enum { N_REQS = 20, LEN = 5000 };

static unsigned char bytes[LEN];

static void fill(void)
{
    mfi_rng rng = {5};
    for (size_t i = 0; i < LEN; i++)
        bytes[i] = (unsigned char)mfi_rng_next(&rng);
}

/* Runs requests through and writes the order in which they finished. */
static mft_io_fake_stats run(const mft_io_fake_file *file, uint64_t seed, double error_chance,
                             uint32_t order[N_REQS], uint32_t *n_failed)
{
    mft_io_fake_config config = {.files = file,
                                 .n_files = 1,
                                 .n_reqs_max = N_REQS,
                                 .seed = seed,
                                 .latency_min = 0,
                                 .latency_max = 9,
                                 .short_chance = 0.5,
                                 .error_chance = error_chance};
    mf_error err;
    mfi_io *io = NULL;
    mft_ok(mft_io_fake_open(&io, &config, &err), &err);
    static unsigned char memory[N_REQS][LEN];
    static mfi_io_req reqs[N_REQS];
    mfi_io_req *list[N_REQS];
    mfi_rng rng = {seed};
    for (uint32_t i = 0; i < N_REQS; i++) {
        uint64_t len = 1 + mfi_rng_below(&rng, 1000);
        reqs[i] = (mfi_io_req){
            .offset = mfi_rng_below(&rng, LEN - len), .len = len, .dst = memory[i], .cookie = i};
        list[i] = &reqs[i];
    }
    io->submit(io, list, N_REQS);
    *n_failed = 0;
    for (uint32_t i = 0; i < N_REQS; i++) {
        mfi_io_req *req = io->wait(io);
        assert_non_null(req);
        order[i] = (uint32_t)req->cookie;
        if (req->status == MF_OK) {
            assert_memory_equal(req->dst, bytes + req->offset, req->len);
        } else {
            assert_int_equal(req->status, MF_ERR_IO);
            (*n_failed)++;
        }
    }
    assert_null(io->wait(io));
    mft_io_fake_stats stats = mft_io_fake_stats_get(io);
    io->close(io);
    return stats;
}

static void seeds_repeat(void **state)
{
    (void)state;
    fill();
    const mft_io_fake_file file = {.bytes = bytes, .len = LEN};
    uint64_t n_reordered = 0, n_short = 0;
    uint32_t n_failed = 0, n_different = 0;
    for (uint64_t seed = 0; seed < 50; seed++) {
        uint32_t a[N_REQS], b[N_REQS], c[N_REQS], failed_a, failed_b, failed_c;
        mft_io_fake_stats s = run(&file, seed, 0.1, a, &failed_a);
        mft_io_fake_stats again = run(&file, seed, 0.1, b, &failed_b);
        assert_memory_equal(a, b, sizeof a);
        assert_int_equal(failed_a, failed_b);
        assert_int_equal(failed_a, s.n_failed);
        assert_int_equal(s.steps, again.steps);
        run(&file, seed + 1000, 0.0, c, &failed_c);
        assert_int_equal(failed_c, 0);
        n_different += memcmp(a, c, sizeof a) != 0;
        n_reordered += s.n_reordered;
        n_short += s.n_short;
        n_failed += failed_a;
    }
    assert_true(n_different > 45);
    assert_true(n_reordered > 100);
    assert_true(n_short > 100);
    assert_in_range(n_failed, 50, 200);
}

static void files_are_read_too(void **state)
{
    (void)state;
    fill();
    char path[512];
    snprintf(path, sizeof path, "%s/fake", mft_tmpdir());
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_int_equal(write(fd, bytes, LEN), LEN);
    close(fd);
    mf_error err;
    mfi_file f;
    mft_ok(mfi_file_open(&f, path, &err), &err);
    const mft_io_fake_file file = {.file = &f};
    uint32_t order[N_REQS], n_failed;
    run(&file, 3, 0.0, order, &n_failed);
    mfi_file_close(&f);
}

static void planted_errors(void **state)
{
    (void)state;
    fill();
    const mft_io_fake_file file = {.bytes = bytes, .len = LEN};
    mft_io_fake_config config = {.files = &file, .n_files = 1, .n_reqs_max = 2, .seed = 1};
    mf_error err;
    mfi_io *io = NULL;
    mft_ok(mft_io_fake_open(&io, &config, &err), &err);
    unsigned char dst[100];
    mfi_io_req req = {.offset = 500, .len = 100, .dst = dst};
    mfi_io_req *list[] = {&req};
    for (uint32_t times = 0; times < 3; times++) {
        mft_io_fake_plant(io, 0, 599, times);
        io->submit(io, list, 1);
        assert_ptr_equal(io->wait(io), &req);
        assert_int_equal(req.status, times < 2 ? MF_OK : MF_ERR_IO);
    }
    assert_non_null(strstr(req.error.message, "offset 500"));
    mft_io_fake_plant(io, 0, 600, 2);
    io->submit(io, list, 1);
    assert_ptr_equal(io->wait(io), &req);
    assert_int_equal(req.status, MF_OK);
    req.offset = LEN - 99;
    io->submit(io, list, 1);
    assert_ptr_equal(io->wait(io), &req);
    assert_int_equal(req.status, MF_ERR_FILE_TRUNCATED);
    io->close(io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seeds_repeat),
        cmocka_unit_test(files_are_read_too),
        cmocka_unit_test(planted_errors),
    };
    return mft_run(tests);
}
