/* Experts on two tiers, without a device: a store of few "device" slots over a store of host slots
 * over a fake drive with seeded latency, reordering and errors, and a mover that copies late. What
 * arrives must be the drive's bytes, whatever the sizes of the two; failures name the expert and
 * leave both usable. */
#include "fake/io_fake.h"
#include "fake/support.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "experts/tier_mapped.h"

#define N_LAYERS  3
#define N_EXPERTS 11
#define BYTES     1000

/* Copies that end only when somebody looks often enough. */
typedef struct late_mover {
    struct {
        void *dst;
        const void *src;
        uint64_t len;
    } queue[64];
    uint64_t n_started, n_ended;
    /* The other way; a copy brings all fetches that were started before to their end. */
    struct {
        void *dst;
        char bytes[BYTES];
    } back[64];
    uint64_t n_fetches, n_fetched;
    mfi_rng rng;
    bool fail, fail_fetch;
} late_mover;

static mf_status late_copy(void *ctx, void *dst, const void *src, uint64_t len, uint64_t *ticket,
                           mf_error *err)
{
    late_mover *m = ctx;
    if (m->fail)
        return mfi_fail(err, MF_ERR_DEVICE, "the mover was told to fail");
    assert_true(m->n_started - m->n_ended < MFI_ARRAY_LEN(m->queue));
    m->queue[m->n_started % MFI_ARRAY_LEN(m->queue)].dst = dst;
    m->queue[m->n_started % MFI_ARRAY_LEN(m->queue)].src = src;
    m->queue[m->n_started % MFI_ARRAY_LEN(m->queue)].len = len;
    memset(dst, 0xee, len); /* nobody may look before the end */
    *ticket = ++m->n_started;
    return MF_OK;
}

static mf_status late_copied(void *ctx, uint64_t ticket, uint64_t *n_ended, mf_error *err)
{
    late_mover *m = ctx;
    (void)err;
    assert_true(ticket <= m->n_started);
    uint64_t until = m->n_ended + mfi_rng_below(&m->rng, 2);
    until = MFI_MAX(ticket, until);
    for (until = MFI_MIN(until, m->n_started); m->n_ended < until; m->n_ended++) {
        size_t at = m->n_ended % MFI_ARRAY_LEN(m->queue);
        memcpy(m->queue[at].dst, m->queue[at].src, m->queue[at].len);
    }
    *n_ended = m->n_ended;
    return MF_OK;
}

/* What is read is what lies there now: a later copy to that place waits. */
static mf_status late_fetch(void *ctx, void *dst, const void *src, uint64_t len, uint64_t *ticket,
                            mf_error *err)
{
    late_mover *m = ctx;
    if (m->fail_fetch)
        return mfi_fail(err, MF_ERR_DEVICE, "the mover was told to fail");
    assert_true(m->n_fetches - m->n_fetched < MFI_ARRAY_LEN(m->back) && len <= BYTES);
    m->back[m->n_fetches % MFI_ARRAY_LEN(m->back)].dst = dst;
    memcpy(m->back[m->n_fetches % MFI_ARRAY_LEN(m->back)].bytes, src, len);
    memset(dst, 0xdd, len); /* nobody may look before the end */
    *ticket = ++m->n_fetches;
    return MF_OK;
}

static mf_status late_fetched(void *ctx, uint64_t ticket, uint64_t *n_ended, mf_error *err)
{
    late_mover *m = ctx;
    (void)err;
    assert_true(ticket <= m->n_fetches);
    uint64_t until = m->n_fetched + mfi_rng_below(&m->rng, 2);
    until = MFI_MAX(ticket, until);
    for (until = MFI_MIN(until, m->n_fetches); m->n_fetched < until; m->n_fetched++) {
        size_t at = m->n_fetched % MFI_ARRAY_LEN(m->back);
        memcpy(m->back[at].dst, m->back[at].bytes, BYTES);
    }
    *n_ended = m->n_fetched;
    return MF_OK;
}

typedef struct two_tiers {
    unsigned char bytes[N_LAYERS * N_EXPERTS * BYTES];
    mft_io_fake_file file;
    mfi_io *drive, *tier;
    mfi_store *host, *device;
    mfi_expert_part parts[N_LAYERS * N_EXPERTS], *tier_parts;
    uint32_t layers[N_LAYERS];
    late_mover mover;
    char host_slots[N_LAYERS * N_EXPERTS][BYTES], device_slots[N_LAYERS * N_EXPERTS][BYTES];
} two_tiers;

static uint8_t byte_of(uint32_t key, uint32_t i)
{
    return (uint8_t)(key * 37 + i * 11 + i / 251);
}

static two_tiers *open_two(uint32_t n_host, uint32_t n_device, uint64_t seed, bool exclusive)
{
    mf_error err;
    two_tiers *t = calloc(1, sizeof *t);
    for (uint32_t key = 0; key < N_LAYERS * N_EXPERTS; key++)
        for (uint32_t i = 0; i < BYTES; i++)
            t->bytes[key * BYTES + i] = byte_of(key, i);
    t->file = (mft_io_fake_file){.bytes = t->bytes, .len = sizeof t->bytes};
    mft_io_fake_config fake = {.files = &t->file,
                               .n_files = 1,
                               .n_reqs_max = 1024,
                               .seed = seed,
                               .latency_max = 5,
                               .short_chance = 0.2};
    mft_ok(mft_io_fake_open(&t->drive, &fake, &err), &err);
    for (uint32_t key = 0; key < N_LAYERS * N_EXPERTS; key++)
        t->parts[key] = (mfi_expert_part){.offset = (uint64_t)key * BYTES, .len = BYTES};
    for (uint32_t i = 0; i < N_LAYERS; i++)
        t->layers[i] = i;
    t->mover.rng.state = seed;
    mfi_tier_slots slots = {t->device_slots, BYTES, n_device};
    mfi_mover mover = {&t->mover, late_copy, late_copied, late_fetch, late_fetched};
    mfi_store_config below = {.table = {N_LAYERS, N_EXPERTS, 1, BYTES, t->parts, t->layers},
                              .slots = t->host_slots,
                              .slot_stride = BYTES,
                              .n_slots = n_host,
                              .policy = &mfi_policy_lru,
                              .io = t->drive,
                              .n_refs_max = n_host};
    mft_ok(mfi_store_open(&t->host, &below, &err), &err);
    mft_ok(mfi_tier_open(&t->tier, t->host, &mover, exclusive ? n_host / 2 : n_host,
                         exclusive ? &slots : NULL, &err),
           &err);
    mfi_store_config above = below;
    mft_ok(mfi_tier_table(&below.table, &above.table, &t->tier_parts, &err), &err);
    above.slots = t->device_slots;
    above.n_slots = n_device;
    above.io = t->tier;
    above.n_refs_max = n_device;
    mft_ok(mfi_store_open(&t->device, &above, &err), &err);
    return t;
}

static two_tiers *open_tiers(uint32_t n_host, uint32_t n_device, uint64_t seed)
{
    return open_two(n_host, n_device, seed, false);
}

static void close_tiers(two_tiers *t)
{
    mfi_store_close(&t->device);
    t->tier->close(t->tier);
    mfi_store_close(&t->host);
    t->drive->close(t->drive);
    free(t->tier_parts);
    free(t);
}

/* Some distinct experts of a layer. */
static uint32_t choose(mfi_rng *rng, uint32_t most, uint16_t *experts)
{
    uint32_t n = 1 + (uint32_t)mfi_rng_below(rng, most), got = 0;
    bool taken[N_EXPERTS] = {false};
    while (got < n) {
        uint16_t e = (uint16_t)mfi_rng_below(rng, N_EXPERTS);
        if (!taken[e])
            experts[got++] = e;
        taken[e] = true;
    }
    return n;
}

static void look(const two_tiers *t, const mfi_expert_ref *ref)
{
    const uint8_t *data = mfi_store_data(t->device, ref);
    uint32_t key = (uint32_t)ref->layer * N_EXPERTS + ref->expert;
    for (uint32_t i = 0; i < BYTES; i++)
        if (data[i] != byte_of(key, i))
            fail_msg("layer %u, expert %u: byte %u is %u", ref->layer, ref->expert, i, data[i]);
}

static void sizes_of(bool exclusive)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        mf_error err;
        mfi_rng rng = {seed};
        uint32_t n_host = (exclusive ? 2 : 1) + (uint32_t)mfi_rng_below(&rng, 12);
        uint32_t n_device = 1 + (uint32_t)mfi_rng_below(&rng, 12);
        two_tiers *t = open_two(n_host, n_device, seed, exclusive);
        for (int round = 0; round < 60; round++) {
            uint16_t experts[N_EXPERTS];
            mfi_expert_ref refs[N_EXPERTS];
            uint32_t layer = (uint32_t)mfi_rng_below(&rng, N_LAYERS);
            uint32_t n = choose(&rng, MFI_MIN(n_device, N_EXPERTS), experts);
            mft_ok(mfi_store_acquire(t->device, layer, experts, n, refs, &err), &err);
            for (uint32_t i = 0; i < n && round % 5 != 4; i++) { /* some are given back early */
                while (!refs[i].ready)
                    mft_ok(mfi_store_wait(t->device, &refs[i], 1, &err), &err);
                look(t, &refs[i]);
            }
            mfi_store_release(t->device, refs, n);
        }
        mfi_store_stats above, below;
        mfi_tier_stats moved;
        mfi_store_stats_get(t->device, &above);
        mfi_store_stats_get(t->host, &below);
        mfi_tier_stats_get(t->tier, &moved);
        /* Every miss above is a reference below; what is copied is what is asked for. */
        assert_true(below.hits + below.misses <= above.misses);
        assert_true(moved.bytes == moved.n_copies * BYTES);
        assert_true(below.bytes_read == below.misses * BYTES);
        uint64_t in_slots = below.misses + below.adopted - below.evictions;
        assert_true(in_slots >= below.n_ready && in_slots <= n_host); /* some are on their way */
        assert_int_equal(below.adopted, moved.n_fetches);
        assert_true(moved.fetched_bytes == moved.n_fetches * BYTES);
        assert_true(exclusive || moved.n_fetches == 0);
        close_tiers(t);
    }
}

static void any_sizes(void **state)
{
    (void)state;
    sizes_of(false);
    sizes_of(true);
}

static void ask(two_tiers *t, uint32_t layer, uint16_t e)
{
    mf_error err;
    mfi_expert_ref ref;
    mft_ok(mfi_store_acquire(t->device, layer, &e, 1, &ref, &err), &err);
    while (!ref.ready)
        mft_ok(mfi_store_wait(t->device, &ref, 1, &err), &err);
    look(t, &ref);
    mfi_store_release(t->device, &ref, 1);
}

/* Two tiers that have room for all experts together read each of them once. */
static void exclusive_holds_all(void **state)
{
    (void)state;
    for (uint32_t exclusive = 0; exclusive < 2; exclusive++) {
        enum { ALL = N_LAYERS * N_EXPERTS, ABOVE = 12, SPARE = 3 };
        two_tiers *t = open_two(ALL - ABOVE + SPARE, ABOVE, 3, exclusive);
        mfi_rng rng = {17};
        mfi_store_stats below;
        mfi_tier_stats moved;
        for (int i = 0; i < ALL; i++)
            ask(t, (uint32_t)i / N_EXPERTS, (uint16_t)(i % N_EXPERTS));
        for (int i = 0; i < 500; i++)
            ask(t, (uint32_t)mfi_rng_below(&rng, N_LAYERS),
                (uint16_t)mfi_rng_below(&rng, N_EXPERTS));
        mfi_store_stats_get(t->host, &below);
        mfi_tier_stats_get(t->tier, &moved);
        if (exclusive)
            assert_int_equal(below.bytes_read, ALL * BYTES);
        else
            assert_true(below.bytes_read > 2 * ALL * BYTES);
        assert_true((moved.n_fetches > 0) == (exclusive == 1));
        close_tiers(t);
    }
}

/* What can't be fetched is read. */
static void failed_fetches(void **state)
{
    (void)state;
    two_tiers *t = open_two(6, 4, 5, true);
    mfi_rng rng = {5};
    t->mover.fail_fetch = true;
    for (int i = 0; i < 300; i++)
        ask(t, (uint32_t)mfi_rng_below(&rng, N_LAYERS), (uint16_t)mfi_rng_below(&rng, N_EXPERTS));
    mfi_tier_stats moved;
    mfi_tier_stats_get(t->tier, &moved);
    assert_int_equal(moved.n_fetches, 0);
    close_tiers(t);
}

/* The files' mapping as the tier: parts are copied from where they lie, and nothing beside. */
static void mapped(void **state)
{
    (void)state;
    mf_error err;
    two_tiers *t = open_tiers(1, 5, 21);
    /* The first layer's file range, and another of all the rest; expert 4 of layer 1 in neither. */
    const mfi_mapped_range ranges[] = {{0, 0, (N_EXPERTS + 4) * BYTES, (const char *)t->bytes},
                                       {0, (N_EXPERTS + 5) * BYTES,
                                        sizeof t->bytes - (N_EXPERTS + 5) * BYTES,
                                        (const char *)t->bytes + (N_EXPERTS + 5) * BYTES}};
    mfi_mover mover = {&t->mover, late_copy, late_copied, NULL, NULL};
    mfi_io *io;
    mft_ok(mfi_tier_mapped_open(&io, ranges, 2, &mover, &err), &err);
    mfi_store_close(&t->device);
    mfi_store_config above = {.table = {N_LAYERS, N_EXPERTS, 1, BYTES, t->parts, t->layers},
                              .slots = t->device_slots,
                              .slot_stride = BYTES,
                              .n_slots = 5,
                              .policy = &mfi_policy_lru,
                              .io = io,
                              .n_refs_max = 5};
    mft_ok(mfi_store_open(&t->device, &above, &err), &err);
    mfi_rng rng = {8};
    for (int i = 0; i < 200; i++) {
        uint32_t layer = (uint32_t)mfi_rng_below(&rng, N_LAYERS);
        uint16_t e = (uint16_t)mfi_rng_below(&rng, N_EXPERTS);
        if (layer != 1 || e != 4)
            ask(t, layer, e);
    }
    mfi_expert_ref ref;
    uint16_t outside = 4;
    mft_ok(mfi_store_acquire(t->device, 1, &outside, 1, &ref, &err), &err);
    assert_int_equal(mfi_store_wait(t->device, &ref, 1, &err), MF_ERR_TENSOR_BOUNDS);
    assert_non_null(strstr(err.message, "layer 1, expert 4: file 0, offset 15000: 1000 bytes"));
    mfi_store_release(t->device, &ref, 1);
    ask(t, 0, 0);
    mfi_store_stats stats;
    mfi_io_stats copies;
    mfi_store_stats_get(t->device, &stats);
    io->stats(io, &copies);
    assert_int_equal(stats.bytes_read, copies.bytes + BYTES); /* the one outside */
    close_tiers(t);
    io->close(io);
}

/* What the host has costs a copy and no read. */
static void host_hits_read_nothing(void **state)
{
    (void)state;
    mf_error err;
    two_tiers *t = open_tiers(N_LAYERS * N_EXPERTS, 2, 7);
    mfi_store_stats below;
    for (int pass = 0; pass < 3; pass++)
        for (uint16_t e = 0; e < N_EXPERTS; e++) {
            mfi_expert_ref ref;
            mft_ok(mfi_store_acquire(t->device, 1, &e, 1, &ref, &err), &err);
            while (!ref.ready)
                mft_ok(mfi_store_wait(t->device, &ref, 1, &err), &err);
            look(t, &ref);
            mfi_store_release(t->device, &ref, 1);
        }
    mfi_store_stats_get(t->host, &below);
    assert_int_equal(below.misses, N_EXPERTS);
    assert_int_equal(below.hits, 2 * N_EXPERTS);
    close_tiers(t);
}

static void failed_copies(void **state)
{
    (void)state;
    mf_error err;
    two_tiers *t = open_tiers(3, 3, 9);
    mfi_expert_ref ref;
    uint16_t e = 5;
    t->mover.fail = true;
    mft_ok(mfi_store_acquire(t->device, 2, &e, 1, &ref, &err), &err);
    mf_status status = MF_OK;
    while (status == MF_OK && !ref.ready)
        status = mfi_store_wait(t->device, &ref, 1, &err);
    assert_int_equal(status, MF_ERR_DEVICE);
    assert_non_null(strstr(err.message, "layer 2, expert 5"));
    mfi_store_release(t->device, &ref, 1);
    t->mover.fail = false;
    mft_ok(mfi_store_acquire(t->device, 2, &e, 1, &ref, &err), &err);
    while (!ref.ready)
        mft_ok(mfi_store_wait(t->device, &ref, 1, &err), &err);
    look(t, &ref);
    mfi_store_release(t->device, &ref, 1);
    close_tiers(t);
}

/* The drive's failure reaches who asked the device's store, and the next try works. */
static void failed_reads(void **state)
{
    (void)state;
    mf_error err;
    two_tiers *t = open_tiers(2, 2, 11);
    mfi_expert_ref ref;
    uint16_t e = 3;
    mft_io_fake_plant(t->drive, 0, (1 * N_EXPERTS + 3) * BYTES, 2);
    mft_ok(mfi_store_acquire(t->device, 1, &e, 1, &ref, &err), &err);
    mf_status status = MF_OK;
    while (status == MF_OK && !ref.ready)
        status = mfi_store_wait(t->device, &ref, 1, &err);
    assert_int_equal(status, MF_ERR_IO);
    assert_non_null(strstr(err.message, "layer 1, expert 3"));
    mfi_store_release(t->device, &ref, 1);
    mft_ok(mfi_store_acquire(t->device, 1, &e, 1, &ref, &err), &err);
    while (!ref.ready)
        mft_ok(mfi_store_wait(t->device, &ref, 1, &err), &err);
    look(t, &ref);
    mfi_store_release(t->device, &ref, 1);
    close_tiers(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(any_sizes),
                                       cmocka_unit_test(host_hits_read_nothing),
                                       cmocka_unit_test(failed_copies),
                                       cmocka_unit_test(failed_reads),
                                       cmocka_unit_test(exclusive_holds_all),
                                       cmocka_unit_test(failed_fetches),
                                       cmocka_unit_test(mapped)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
