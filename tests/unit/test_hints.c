/* Hints: what is read ahead for the next layer. They never evict, wait for demand reads, are
 * dropped when they turn out wrong, are counted, and don't show in a bit of the answer; and when
 * they are on by themselves. */
#include "experts/hints.h"
#include "fake/rig.h"
#include "fake/support.h"
#include "fake/tiny_model.h"

#include <stdlib.h>
#include <string.h>

enum { N_LAYERS = 2, N_EXPERTS = 8, N_SLOTS = 6, EXPERT = 16 };

typedef struct world {
    mfi_expert_part parts[N_LAYERS * N_EXPERTS];
    uint32_t model_layer[N_LAYERS];
    unsigned char bytes[N_LAYERS * N_EXPERTS * EXPERT], slots[N_SLOTS * EXPERT];
    mft_io_fake_file file;
    mfi_io *io;
    mfi_store *store;
    mf_error err;
} world;

static void open_world(world *w, uint32_t latency, uint32_t n_hints)
{
    memset(w, 0, sizeof *w);
    for (uint32_t i = 0; i < N_LAYERS * N_EXPERTS; i++) {
        w->parts[i] = (mfi_expert_part){.offset = EXPERT * i, .len = EXPERT};
        memset(w->bytes + EXPERT * i, 'a' + (int)i, EXPERT);
    }
    w->file = (mft_io_fake_file){.bytes = w->bytes, .len = sizeof w->bytes};
    mft_io_fake_config fake = {.files = &w->file,
                               .n_files = 1,
                               .n_reqs_max = 2 * N_SLOTS,
                               .latency_min = latency,
                               .latency_max = latency};
    mft_ok(mft_io_fake_open(&w->io, &fake, &w->err), &w->err);
    mfi_store_config config = {.table = {N_LAYERS, N_EXPERTS, 1, EXPERT, w->parts, w->model_layer},
                               .slots = w->slots,
                               .slot_stride = EXPERT,
                               .n_slots = N_SLOTS,
                               .policy = &mfi_policy_lru,
                               .io = w->io,
                               .n_refs_max = 4,
                               .n_hints_max = 3};
    mft_ok(mfi_store_open(&w->store, &config, &w->err), &w->err);
    mfi_store_hints_set(w->store, n_hints);
}

static void close_world(world *w)
{
    mfi_store_close(&w->store);
    w->io->close(w->io);
}

static mfi_store_stats stats_of(const world *w)
{
    mfi_store_stats stats;
    mfi_store_stats_get(w->store, &stats);
    return stats;
}

static uint32_t under_way(const world *w)
{
    return mft_io_fake_stats_get(w->io).n_under_way;
}

/* Has an expert read (or finds it), looks at its bytes, gives it back. */
static void use(world *w, uint32_t layer, uint16_t e)
{
    mfi_expert_ref ref;
    mft_ok(mfi_store_acquire(w->store, layer, &e, 1, &ref, &w->err), &w->err);
    mft_ok(mfi_store_wait(w->store, &ref, 1, &w->err), &w->err);
    assert_memory_equal(mfi_store_data(w->store, &ref), w->bytes + EXPERT * (layer * N_EXPERTS + e),
                        EXPERT);
    mfi_store_release(w->store, &ref, 1);
}

static void polls(world *w, int n)
{
    while (n-- > 0)
        mft_ok(mfi_store_poll(w->store, NULL, 0, &w->err), &w->err);
}

static void demand_goes_first(void **state)
{
    (void)state;
    static world w;
    open_world(&w, 10, 3);
    mfi_expert_ref ref;
    const uint16_t wanted = 0, guesses[] = {4, 5, 6, 7};
    mft_ok(mfi_store_acquire(w.store, 0, &wanted, 1, &ref, &w.err), &w.err);
    mfi_store_hint(w.store, 1, guesses, 4);
    assert_int_equal(under_way(&w), 1); /* the demand alone */
    mft_ok(mfi_store_wait(w.store, &ref, 1, &w.err), &w.err);
    assert_int_equal(under_way(&w), 2); /* hints, two at a time */
    polls(&w, 12);
    assert_int_equal(under_way(&w), 1); /* the third; there is no room for a fourth */
    assert_int_equal(stats_of(&w).hint_bytes, 3 * EXPERT);
    mfi_store_release(w.store, &ref, 1);
    close_world(&w);
}

static void hints_are_counted(void **state)
{
    (void)state;
    static world w;
    open_world(&w, 10, 3);
    const uint16_t guesses[] = {1, 2, 3}, wanted[] = {1, 3};
    mfi_store_hint(w.store, 1, guesses, 3);
    polls(&w, 11); /* 1 and 2 are there; 3 has begun */
    assert_true(mfi_store_cached(w.store, 1, 1));
    mfi_store_settle(w.store, 1, wanted, 2);
    assert_false(mfi_store_cached(w.store, 1, 2));
    use(&w, 1, 1);
    use(&w, 1, 3);
    mfi_store_stats s = stats_of(&w);
    assert_int_equal(s.hints_useful, 1);
    assert_int_equal(s.hints_late, 1);
    assert_int_equal(s.hints_wasted, 1);
    assert_int_equal(s.hits, 0); /* the cache had nothing */
    assert_int_equal(s.misses, 2);
    assert_int_equal(s.bytes_read, 3 * EXPERT);
    assert_int_equal(s.hint_bytes, 3 * EXPERT);
    assert_int_equal(s.n_ready, 2);
    use(&w, 1, 1); /* now it is cached as any other */
    assert_int_equal(stats_of(&w).hits, 1);
    /* Those that nothing was read of cost nothing. */
    mfi_store_hint(w.store, 0, guesses, 3);
    mfi_store_hints_set(w.store, 0);
    s = stats_of(&w);
    assert_int_equal(s.hints_dropped, 1);
    assert_int_equal(s.hints_wasted, 3);
    assert_int_equal(mfi_store_hints_room(w.store), 0);
    mfi_store_hint(w.store, 0, guesses, 3);
    assert_false(mfi_store_cached(w.store, 0, 1));
    close_world(&w);
}

/* Whatever is hinted, the cache loses no more than demand alone would have taken from it. */
static void nothing_is_evicted_for_a_hint(void **state)
{
    (void)state;
    static world w;
    open_world(&w, 1, 2);
    for (uint16_t e = 0; e < 4; e++) /* all that is the cache's: two slots are for hints */
        use(&w, 0, e);
    for (uint16_t i = 0; i < 20; i++) {
        const uint16_t guesses[] = {i % 8, (i + 1) % 8, (i + 2) % 8};
        mfi_store_hint(w.store, 1, guesses, 3);
        polls(&w, 5);
        mfi_store_settle(w.store, 1, NULL, 0);
    }
    mfi_store_stats s = stats_of(&w);
    assert_int_equal(s.evictions, 0);
    assert_int_equal(s.hints_wasted, 40);
    for (uint16_t e = 0; e < 4; e++)
        use(&w, 0, e);
    assert_int_equal(stats_of(&w).hits, 4);
    /* One that was wanted counts as a miss, and takes what a miss would have taken: once. */
    const uint16_t guess = 5;
    mfi_store_hint(w.store, 1, &guess, 1);
    polls(&w, 5);
    use(&w, 1, 5);
    mfi_store_hint(w.store, 1, (const uint16_t[]){6, 7}, 2);
    polls(&w, 5);
    s = stats_of(&w);
    assert_int_equal(s.evictions, 1);
    assert_int_equal(s.n_ready, 4);
    assert_false(mfi_store_cached(w.store, 0, 0)); /* the one used longest ago */
    close_world(&w);
}

/* A failed hint is nobody's failure; who wants the expert asks again, and is told. */
static void a_failed_hint_is_forgotten(void **state)
{
    (void)state;
    static world w;
    open_world(&w, 3, 2);
    const uint16_t e = 2;
    mft_io_fake_plant(w.io, 0, EXPERT * (N_EXPERTS + 2), 2);
    mfi_store_hint(w.store, 1, &e, 1);
    polls(&w, 20);
    assert_false(mfi_store_cached(w.store, 1, 2));
    assert_int_equal(stats_of(&w).failures, 0);
    use(&w, 1, 2);
    close_world(&w);
}

/* When all slots are held, hints make room for demand. */
static void demand_takes_slots_of_hints(void **state)
{
    (void)state;
    static world w;
    open_world(&w, 2, 3);
    mfi_expert_ref refs[4], last[2];
    const uint16_t a[] = {0, 1, 2, 3}, b[] = {4, 5};
    mft_ok(mfi_store_acquire(w.store, 0, a, 2, refs, &w.err), &w.err);
    mft_ok(mfi_store_acquire(w.store, 1, a, 2, refs + 2, &w.err), &w.err);
    mfi_store_hint(w.store, 1, b, 2);
    assert_true(mfi_store_cached(w.store, 1, 4) && mfi_store_cached(w.store, 1, 5));
    mfi_store_release(w.store, refs + 3, 1);
    mft_ok(mfi_store_acquire(w.store, 0, a + 2, 1, last, &w.err), &w.err);
    while (!last[0].ready)
        mft_ok(mfi_store_wait(w.store, last, 1, &w.err), &w.err);
    assert_memory_equal(mfi_store_data(w.store, last), w.bytes + 2 * EXPERT, EXPERT);
    mfi_store_release(w.store, refs, 3);
    mfi_store_release(w.store, last, 1);
    close_world(&w);
}

/* ---- in the forward pass ---- */

static void same_answers(void **state)
{
    (void)state;
    mft_tiny spec;
    mft_rig_options o;
    mf_error err;
    int32_t ids[48];
    uint64_t useful = 0, bytes = 0;
    mft_tiny_default(&spec);
    spec.n_layers = 4;
    spec.n_experts = 16;
    spec.top_k = 3;
    mft_rig_default(&o, mft_tiny_write(&spec));
    for (uint32_t i = 0; i < 48; i++)
        ids[i] = (int32_t)(i * 31 % spec.n_vocab);
    size_t n = (size_t)48 * spec.n_vocab;
    float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
    o.chunk = 1;
    mft_rig *rig = mft_rig_open(&o);
    mft_ok(mft_rig_eval(rig, ids, 48, want, &err), &err);
    mft_rig_close(rig);
    for (uint32_t k = 0; k < 24; k++) {
        o.fake_io = true;
        o.fake = (mft_io_fake_config){.seed = k + 1, .latency_max = 1 + 4 * (k % 4)};
        o.n_slots = 20 + k;
        o.n_hints = 1 + k % 6;
        o.chunk = k % 3 ? 1 : 9;
        o.n_threads = 1 + k % 2;
        rig = mft_rig_open(&o);
        mft_ok(mft_rig_eval(rig, ids, 48, got, &err), &err);
        assert_memory_equal(want, got, n * sizeof *want);
        mfi_store_stats s;
        mfi_store_stats_get(mft_rig_store(rig), &s);
        useful += s.hints_useful + s.hints_late;
        bytes += s.hint_bytes;
        mft_rig_close(rig);
    }
    assert_true(useful > 100 && bytes > 0); /* the next layer's router guesses better than nobody */
    free(want);
    free(got);
}

/* Chunks that want nearly every expert anyhow read ahead without hints being on; shorter ones
 * don't. */
static void long_chunks_read_ahead(void **state)
{
    (void)state;
    enum { N = 48, AHEAD = 5 };
    static const uint32_t chunks[] = {1, 9, 24, 48};
    mft_tiny spec;
    mft_rig_options o;
    mf_error err;
    int32_t ids[N];
    mft_tiny_default(&spec);
    spec.n_layers = 4;
    spec.n_experts = 16;
    spec.top_k = 3; /* 22 tokens choose 4 experts for each */
    mft_rig_default(&o, mft_tiny_write(&spec));
    for (uint32_t i = 0; i < N; i++)
        ids[i] = (int32_t)(i * 31 % spec.n_vocab);
    size_t n = (size_t)N * spec.n_vocab;
    float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
    for (size_t i = 0; i < MFI_ARRAY_LEN(chunks); i++) {
        o.fake_io = true;
        o.fake = (mft_io_fake_config){.seed = i + 1, .latency_max = 3};
        o.n_slots = 30;
        o.n_hints = AHEAD;
        o.chunk = chunks[i];
        mft_rig *rig = mft_rig_open(&o);
        mfi_store *store = mft_rig_store(rig);
        mfi_store_hints_set(store, 0);
        mfi_forward_read_ahead(mft_rig_forward(rig), AHEAD);
        mft_ok(mft_rig_eval(rig, ids, N, i ? got : want, &err), &err);
        assert_memory_equal(want, i ? got : want, n * sizeof *want);
        mfi_store_stats s;
        mfi_store_stats_get(store, &s);
        assert_int_equal(mfi_store_hints_room(store), 0);
        uint64_t wanted = s.hints_useful + s.hints_late;
        assert_true(chunks[i] * spec.top_k < 4 * spec.n_experts ? s.hint_bytes == 0
                                                                : wanted >= 3 * (N / chunks[i]));
        assert_true(s.hints_wasted <= wanted / 4);
        mft_rig_close(rig);
    }
    free(want);
    free(got);
}

/* ---- auto ---- */

static bool after(mfi_hint_judge *j, int n, mfi_hint_facts f)
{
    bool on = false;
    while (n-- > 0)
        on = mfi_hint_judge_run(j, &f);
    return on;
}

static void on_only_with_slack(void **state)
{
    (void)state;
    mfi_hint_judge j = {.drive_rate = 1e9};
    /* A token of 10 ms: half of it waiting, a quarter of it nothing is read. */
    mfi_hint_facts slack = {
        .wall_ns = 10000000, .stall_ns = 5000000, .reading_ns = 7500000, .bytes_read = 8000000};
    mfi_hint_facts busy = slack, calm = slack, guessed = slack;
    busy.reading_ns = 9500000;
    calm.stall_ns = 100000;
    assert_false(after(&j, MFI_HINT_WINDOW - 1, slack)); /* nothing is known yet */
    assert_true(after(&j, 1, slack));
    /* A fifth of what is read is guessed wrong, and a quarter of the time was idle; then more. */
    guessed.hint_bytes = 6000000;
    guessed.hints_useful = 8;
    guessed.hints_wasted = 3;
    assert_true(after(&j, 4 * MFI_HINT_WINDOW, guessed));
    guessed.hints_wasted = 5;
    assert_false(after(&j, MFI_HINT_WINDOW, guessed));
    assert_false(after(&j, 4 * MFI_HINT_WINDOW, slack)); /* given up for long */
    j = (mfi_hint_judge){.drive_rate = 1e9};
    assert_false(after(&j, 4 * MFI_HINT_WINDOW, busy)); /* the drive has no time for it */
    assert_false(after(&j, 4 * MFI_HINT_WINDOW, calm)); /* nobody waits */
    j = (mfi_hint_judge){0};
    assert_false(after(&j, 4 * MFI_HINT_WINDOW, slack)); /* a drive that wasn't measured */
    /* Guesses that are mostly wrong are given up whatever they cost. */
    j = (mfi_hint_judge){.drive_rate = 1e9};
    assert_true(after(&j, MFI_HINT_WINDOW, slack));
    mfi_hint_facts wrong = slack;
    wrong.hint_bytes = 1000;
    wrong.hints_useful = 1;
    wrong.hints_wasted = 4;
    assert_false(after(&j, MFI_HINT_WINDOW, wrong));
    assert_false(after(&j, 4 * MFI_HINT_WINDOW, slack));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(demand_goes_first),
        cmocka_unit_test(hints_are_counted),
        cmocka_unit_test(nothing_is_evicted_for_a_hint),
        cmocka_unit_test(a_failed_hint_is_forgotten),
        cmocka_unit_test(demand_takes_slots_of_hints),
        cmocka_unit_test(same_answers),
        cmocka_unit_test(long_chunks_read_ahead),
        cmocka_unit_test(on_only_with_slack),
    };
    return mft_run(tests);
}
