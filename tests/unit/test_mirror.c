/* Reads shared with a mirror: both sides are used, bytes are right, a mirror
 * that fails is given up without harm, and what fails on the files themselves is told. */
#include "io/io_mirror.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "fake/io_fake.h"
#include "fake/support.h"

enum { FILE_BYTES = 1 << 16, N_REQS = 64, READ = 512 };

typedef struct world {
    unsigned char bytes[FILE_BYTES], got[N_REQS][READ];
    mft_io_fake_file files[2];
    mfi_io *inner, *io;
    mfi_io_req reqs[N_REQS];
    mf_error err;
} world;

/* The mirror's file has only so many bytes. */
static void open_world(world *w, uint64_t seed, uint64_t mirror_len)
{
    memset(w, 0, sizeof *w);
    mfi_rng rng = {seed};
    for (uint32_t i = 0; i < FILE_BYTES; i++)
        w->bytes[i] = (unsigned char)mfi_rng_next(&rng);
    w->files[0] = (mft_io_fake_file){.bytes = w->bytes, .len = FILE_BYTES};
    w->files[1] = (mft_io_fake_file){.bytes = w->bytes, .len = mirror_len};
    mft_io_fake_config config = {.files = w->files,
                                 .n_files = 2,
                                 .n_reqs_max = N_REQS,
                                 .seed = seed,
                                 .latency_max = 20,
                                 .short_chance = 0.3};
    mft_ok(mft_io_fake_open(&w->inner, &config, &w->err), &w->err);
    mft_ok(mfi_io_mirror_open(&w->io, w->inner, 1, &w->err), &w->err);
}

static void submit(world *w, mfi_rng *rng)
{
    mfi_io_req *list[N_REQS];
    for (uint32_t i = 0; i < N_REQS; i++) {
        uint64_t offset = mfi_rng_below(rng, FILE_BYTES - READ);
        w->reqs[i] = (mfi_io_req){.offset = offset, .len = READ, .dst = w->got[i], .cookie = i};
        list[i] = &w->reqs[i];
    }
    w->io->submit(w->io, list, N_REQS);
}

/* Takes everything back, some by asking and some by waiting; all must be well. */
static void collect(world *w, mfi_rng *rng)
{
    uint32_t n = 0;
    while (n < N_REQS) {
        mfi_io_req *req = mfi_rng_below(rng, 2) ? w->io->poll(w->io) : w->io->wait(w->io);
        if (!req)
            continue;
        n++;
        mft_ok(req->status, &req->error);
        assert_int_equal(req->file, 0); /* as it was given */
        assert_memory_equal(w->got[req->cookie], w->bytes + req->offset, READ);
    }
    assert_null(w->io->wait(w->io));
}

static void both_sides_read(void **state)
{
    (void)state;
    static world w;
    uint64_t bytes = 0, mirror_bytes = 0;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        mfi_rng rng = {seed + 1000};
        mfi_io_stats stats;
        open_world(&w, seed, FILE_BYTES);
        for (int round = 0; round < 4; round++) {
            submit(&w, &rng);
            collect(&w, &rng);
        }
        w.io->stats(w.io, &stats);
        assert_int_equal(stats.bytes, 4 * N_REQS * READ);
        bytes += stats.bytes;
        mirror_bytes += stats.mirror_bytes;
        assert_null(mfi_io_mirror_failure(w.io));
        w.io->close(w.io);
    }
    assert_in_range(mirror_bytes, bytes / 10,
                    bytes / 10 * 9); /* over all: a busy machine's clock jumps */
}

static void a_failing_mirror_is_given_up(void **state)
{
    (void)state;
    static world w;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        mfi_rng rng = {seed};
        mfi_io_stats before, after;
        open_world(&w, seed, FILE_BYTES / 2);
        submit(&w, &rng);
        collect(&w, &rng);
        assert_non_null(mfi_io_mirror_failure(w.io));
        assert_int_equal(mfi_io_mirror_failure(w.io)->status, MF_ERR_FILE_TRUNCATED);
        w.io->stats(w.io, &before);
        uint64_t n_failed = mft_io_fake_stats_get(w.inner).n_failed;
        assert_true(n_failed > 0);
        submit(&w, &rng);
        collect(&w, &rng);
        w.io->stats(w.io, &after);
        assert_int_equal(after.mirror_bytes, before.mirror_bytes); /* nobody asks it again */
        assert_int_equal(mft_io_fake_stats_get(w.inner).n_failed, n_failed);
        w.io->close(w.io);
    }
}

static void own_failures_are_told(void **state)
{
    (void)state;
    static world w;
    mfi_rng rng = {7};
    uint32_t n_failed = 0;
    open_world(&w, 7, 0); /* a mirror that is of no use from the start */
    mft_io_fake_plant(w.inner, 0, FILE_BYTES / 2, 2);
    w.reqs[0] = (mfi_io_req){.offset = FILE_BYTES / 2, .len = READ, .dst = w.got[0]};
    mfi_io_req *one = &w.reqs[0];
    w.io->submit(w.io, &one, 1);
    mfi_io_req *req = w.io->wait(w.io);
    n_failed += req->status != MF_OK;
    assert_int_equal(n_failed, 1);
    assert_int_equal(req->status, MF_ERR_IO);
    submit(&w, &rng);
    collect(&w, &rng);
    w.io->close(w.io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_sides_read),
        cmocka_unit_test(a_failing_mirror_is_given_up),
        cmocka_unit_test(own_failures_are_told),
    };
    return mft_run(tests);
}
