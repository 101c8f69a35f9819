/* The expert store in simulation: hundreds of seeds of random layouts, latencies, orders, short
 * reads and errors, held against a naive model; and the same over reader threads. Failures print
 * their seed. */
#include "fake/support.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "experts/store.h"
#include "fake/io_fake.h"

/* ---- counting allocations ---- */

#if defined(__GLIBC__) && !MFT_SANITIZED
#define COUNTS_ALLOCATIONS 1
static _Thread_local uint64_t n_allocations;
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
void *malloc(size_t n)
{
    n_allocations++;
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t size)
{
    n_allocations++;
    return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n)
{
    n_allocations++;
    return __libc_realloc(p, n);
}
#else
#define COUNTS_ALLOCATIONS 0
static uint64_t n_allocations;
#endif

/* ---- a world: files with experts in them ---- */

enum {
    MAX_KEYS = 96,
    MAX_SLOTS = 40,
    MAX_GROUPS = 4,
    MAX_N = 8,
    N_FILES = 3,
    FILE_BYTES = 1 << 20
};

#define sim_true(sim, cond)                                                                        \
    do {                                                                                           \
        if (!(cond))                                                                               \
            fail_msg("seed %llu, step %u: not true: %s", (unsigned long long)(sim)->seed,          \
                     (sim)->step, #cond);                                                          \
    } while (0)

typedef struct group {
    mfi_expert_ref refs[MAX_N];
    uint32_t n;
} group;

typedef struct sim {
    uint64_t seed;
    uint32_t step;
    mfi_rng rng;
    bool abandon; /* references are given back early, too, and there are hints */
    uint32_t n_layers, n_experts, n_parts, n_slots, slot_stride;
    mfi_expert_part parts[MAX_KEYS * MFI_MAX_PARTS];
    uint32_t model_layer[MAX_KEYS];
    unsigned char *slots;
    mfi_io *io;
    mfi_store *store;
    mfi_places places[MAX_KEYS]; /* as the store tells them */
    const void *where[MAX_KEYS]; /* the same of what can be used, and where */
    group groups[MAX_GROUPS];
    uint32_t n_held;
    uint64_t n_refs, n_errors;
    /* the naive model, exact while nothing is abandoned and nothing fails */
    uint64_t used[MAX_KEYS]; /* time of last use; 0: not in a slot */
    uint32_t pins[MAX_KEYS];
    uint64_t time, hits, misses, evictions, bytes, n_reads;
    mfi_store_stats stats; /* at the end */
} sim;

static unsigned char *file_bytes[N_FILES];
static mfi_file files[N_FILES];

static void make_files(void)
{
    mfi_rng rng = {77};
    for (int f = 0; f < N_FILES && !file_bytes[f]; f++) {
        char path[512];
        snprintf(path, sizeof path, "%s/experts%d", mft_tmpdir(), f);
        file_bytes[f] = malloc(FILE_BYTES);
        for (size_t i = 0; i < FILE_BYTES; i += 8) {
            uint64_t v = mfi_rng_next(&rng);
            memcpy(file_bytes[f] + i, &v, 8);
        }
        int fd = open(path, O_CREAT | O_WRONLY, 0600);
        assert_int_equal(write(fd, file_bytes[f], FILE_BYTES), FILE_BYTES);
        close(fd);
        mf_error err;
        mft_ok(mfi_file_open(&files[f], path, &err), &err);
    }
}

/* Parts are laid out one after the other in a random order in the slot and in another on the drive,
 * with gaps here and there and some parts unused. */
static void make_table(sim *s)
{
    uint64_t at[N_FILES] = {0};
    uint32_t len[MFI_MAX_PARTS], slot_offset[MFI_MAX_PARTS], order[MFI_MAX_PARTS];
    uint32_t end = 0, n_used = 0;
    for (uint32_t i = 0; i < s->n_parts; i++) {
        order[i] = i;
        len[i] = mfi_rng_below(&s->rng, 5) ? 1 + (uint32_t)mfi_rng_below(&s->rng, 300) : 0;
        n_used += len[i] > 0;
    }
    if (n_used == 0)
        len[0] = 100;
    bool shuffle = mfi_rng_below(&s->rng, 2);
    for (uint32_t i = s->n_parts; shuffle && i > 1; i--) {
        uint32_t k = (uint32_t)mfi_rng_below(&s->rng, i), swap = order[i - 1];
        order[i - 1] = order[k];
        order[k] = swap;
    }
    for (uint32_t i = 0; i < s->n_parts; i++) {
        slot_offset[order[i]] = end;
        end += len[order[i]] + (mfi_rng_below(&s->rng, 4) == 0) * 16;
    }
    s->slot_stride = end + (uint32_t)mfi_rng_below(&s->rng, 64);
    for (uint32_t key = 0; key < s->n_layers * s->n_experts; key++) {
        uint32_t file = (uint32_t)mfi_rng_below(&s->rng, N_FILES);
        for (uint32_t i = 0; i < s->n_parts; i++) {
            if (mfi_rng_below(&s->rng, 6) == 0)
                file = (uint32_t)mfi_rng_below(&s->rng, N_FILES);
            at[file] += (mfi_rng_below(&s->rng, 4) == 0) * mfi_rng_below(&s->rng, 100);
            s->parts[key * s->n_parts + i] = (mfi_expert_part){
                .offset = at[file], .file = file, .len = len[i], .slot_offset = slot_offset[i]};
            at[file] += len[i];
            sim_true(s, at[file] <= FILE_BYTES);
        }
    }
}

/* Reads that an expert takes: a part that continues another, on the drive and in the slot, takes
 * none. */
static uint32_t expected_reads(const sim *s, uint32_t key, uint64_t *bytes)
{
    const mfi_expert_part *p = s->parts + key * s->n_parts;
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_parts; i++) {
        bool continues = false;
        for (uint32_t k = 0; k < s->n_parts; k++)
            continues |= p[k].len > 0 && p[k].file == p[i].file &&
                         p[k].offset + p[k].len == p[i].offset &&
                         p[k].slot_offset + p[k].len == p[i].slot_offset;
        n += p[i].len > 0 && !continues;
        *bytes += p[i].len;
    }
    return n;
}

static void check_bytes(const sim *s, uint32_t key, const unsigned char *data)
{
    for (uint32_t i = 0; i < s->n_parts; i++) {
        const mfi_expert_part *p = &s->parts[key * s->n_parts + i];
        sim_true(s, memcmp(data + p->slot_offset, file_bytes[p->file] + p->offset, p->len) == 0);
    }
}

static void check_data(const sim *s, const mfi_expert_ref *ref)
{
    const unsigned char *data = mfi_store_data(s->store, ref);
    sim_true(s, data == s->slots + (size_t)ref->slot * s->slot_stride);
    check_bytes(s, ref->layer * s->n_experts + ref->expert, data);
}

static void moved(void *user, uint32_t layer, uint32_t expert, const void *data)
{
    sim *s = user;
    const void **where = &s->where[layer * s->n_experts + expert];
    sim_true(s, (data == NULL) != (*where == NULL)); /* each move once */
    *where = data;
}

/* What others are told is what the store itself finds. */
static void check_places(sim *s)
{
    uint32_t n_ready = 0;
    for (uint32_t key = 0; key < s->n_layers * s->n_experts; key++) {
        bool cached =
            mfi_store_cached(s->store, key / s->n_experts, (uint16_t)(key % s->n_experts));
        sim_true(s, cached == (s->places[key] != MFI_PLACE_NONE));
        n_ready += s->places[key] == MFI_PLACE_READY;
        sim_true(s, (s->where[key] != NULL) == (s->places[key] == MFI_PLACE_READY));
        if (s->where[key])
            check_bytes(s, key, s->where[key]);
    }
    mfi_store_stats_get(s->store, &s->stats);
    sim_true(s, n_ready >= s->stats.n_ready); /* hints that are there aren't counted */
    sim_true(s, s->abandon || n_ready == s->stats.n_ready);
}

/* ---- the model ---- */

/* Hits are pinned first, then each miss takes an empty slot or the oldest unpinned expert's. */
static void model_acquire(sim *s, uint32_t layer, const uint16_t *experts, uint32_t n,
                          bool hit[MAX_N])
{
    uint32_t n_keys = s->n_layers * s->n_experts;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t key = layer * s->n_experts + experts[i];
        hit[i] = s->used[key] != 0;
        s->pins[key]++;
        if (hit[i])
            s->used[key] = ++s->time;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (hit[i]) {
            s->hits++;
            continue;
        }
        uint32_t n_used = 0, oldest = MAX_KEYS;
        for (uint32_t k = 0; k < n_keys; k++) {
            n_used += s->used[k] != 0;
            if (s->used[k] && !s->pins[k] && (oldest == MAX_KEYS || s->used[k] < s->used[oldest]))
                oldest = k;
        }
        if (n_used == s->n_slots) {
            s->used[oldest] = 0;
            s->evictions++;
        }
        s->used[layer * s->n_experts + experts[i]] = ++s->time;
        s->n_reads += expected_reads(s, layer * s->n_experts + experts[i], &s->bytes);
        s->misses++;
    }
}

/* ---- steps ---- */

static void acquire(sim *s, group *g)
{
    uint32_t room = MFI_MIN(MAX_N, MFI_MIN(s->n_slots - s->n_held, s->n_experts));
    if (room == 0)
        return;
    uint32_t n = 1 + (uint32_t)mfi_rng_below(&s->rng, room);
    uint32_t layer = (uint32_t)mfi_rng_below(&s->rng, s->n_layers);
    uint16_t experts[MAX_N];
    for (uint32_t i = 0; i < n;) {
        /* Low numbers are asked for more often. */
        experts[i] = (uint16_t)mfi_rng_below(&s->rng, 1 + mfi_rng_below(&s->rng, s->n_experts));
        bool again = false;
        for (uint32_t k = 0; k < i; k++)
            again |= experts[k] == experts[i];
        i += !again;
    }
    bool hit[MAX_N];
    model_acquire(s, layer, experts, n, hit);
    mfi_store_trace(s->store, s->step, layer, s->step, experts, n);
    mf_error err;
    mf_status status = mfi_store_acquire(s->store, layer, experts, n, g->refs, &err);
    sim_true(s, status == MF_OK);
    g->n = n;
    s->n_held += n;
    s->n_refs += n;
    for (uint32_t i = 0; i < n; i++) {
        sim_true(s, g->refs[i].layer == layer && g->refs[i].expert == experts[i]);
        sim_true(s, g->refs[i].slot < s->n_slots);
        if (g->refs[i].ready)
            check_data(s, &g->refs[i]);
    }
    mfi_store_stats stats;
    mfi_store_stats_get(s->store, &stats);
    sim_true(s, stats.hits + stats.misses == s->n_refs);
    if (!s->abandon) {
        sim_true(s, stats.hits == s->hits && stats.misses == s->misses);
        sim_true(s, stats.evictions == s->evictions);
        sim_true(s, stats.bytes_read == s->bytes);
        for (uint32_t i = 0; i < n; i++)
            sim_true(s, !g->refs[i].ready || hit[i]);
    }
}

static void release(sim *s, group *g)
{
    for (uint32_t i = 0; i < g->n; i++)
        s->pins[g->refs[i].layer * s->n_experts + g->refs[i].expert]--;
    mfi_store_release(s->store, g->refs, g->n);
    s->n_held -= g->n;
    g->n = 0;
}

/* A failure names a layer and an expert of the group, and the place in a file. */
static void check_failure(sim *s, const group *g, mf_status status, const mf_error *err)
{
    sim_true(s, status == MF_ERR_IO && err->status == MF_ERR_IO);
    bool named = false;
    for (uint32_t i = 0; i < g->n; i++) {
        char want[64];
        snprintf(want, sizeof want, "layer %u, expert %u: fake: ", s->model_layer[g->refs[i].layer],
                 g->refs[i].expert);
        named |= !g->refs[i].ready && strncmp(err->message, want, strlen(want)) == 0;
    }
    sim_true(s, named);
    sim_true(s, strstr(err->message, "offset ") != NULL);
    s->n_errors++;
}

static uint32_t count_ready(const group *g)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->n; i++)
        n += g->refs[i].ready;
    return n;
}

/* Waits until all is there, checking data as it comes; on failure gives everything back. */
static void finish(sim *s, group *g)
{
    while (count_ready(g) < g->n) {
        uint32_t before = count_ready(g);
        mf_error err;
        mf_status status = mfi_store_wait(s->store, g->refs, g->n, &err);
        if (status != MF_OK) {
            check_failure(s, g, status, &err);
            /* Asking again gives the same answer. */
            sim_true(s, mfi_store_poll(s->store, g->refs, g->n, &err) == status);
            release(s, g);
            return;
        }
        sim_true(s, count_ready(g) > before);
    }
    for (uint32_t i = 0; i < g->n; i++)
        check_data(s, &g->refs[i]);
}

/* What nobody need want: nothing that is held changes by it. */
static void give_hints(sim *s)
{
    uint16_t experts[MAX_N];
    uint32_t n = (uint32_t)mfi_rng_below(&s->rng, MAX_N);
    uint32_t layer = (uint32_t)mfi_rng_below(&s->rng, s->n_layers);
    for (uint32_t i = 0; i < n; i++)
        experts[i] = (uint16_t)mfi_rng_below(&s->rng, s->n_experts);
    switch (mfi_rng_below(&s->rng, 4)) {
    case 0:
        mfi_store_hints_set(s->store, (uint32_t)mfi_rng_below(&s->rng, MFI_MIN(s->n_slots, 7)));
        break;
    case 1:
        mfi_store_settle(s->store, layer, experts, n);
        break;
    default:
        mfi_store_hint(s->store, layer, experts, n);
    }
}

static void one_step(sim *s)
{
    group *g = &s->groups[mfi_rng_below(&s->rng, MAX_GROUPS)];
    mf_error err;
    if (s->abandon && mfi_rng_below(&s->rng, 8) == 0)
        give_hints(s);
    switch (mfi_rng_below(&s->rng, 6)) {
    case 0:
    case 1:
        if (g->n == 0)
            acquire(s, g);
        break;
    case 2: {
        mf_status status = mfi_store_poll(s->store, g->refs, g->n, &err);
        if (status != MF_OK) {
            check_failure(s, g, status, &err);
            release(s, g);
        }
        break;
    }
    case 3:
        finish(s, g);
        break;
    default:
        if (!s->abandon || mfi_rng_below(&s->rng, 3))
            finish(s, g);
        release(s, g);
    }
    /* What is held stays as it is, whatever happens to the rest. */
    for (uint32_t k = 0; k < MAX_GROUPS; k++) {
        for (uint32_t i = 0; i < s->groups[k].n; i++) {
            const mfi_expert_ref *ref = &s->groups[k].refs[i];
            if (ref->ready)
                check_data(s, ref);
            if (ref->ready)
                sim_true(s, s->places[ref->layer * s->n_experts + ref->expert] == MFI_PLACE_READY);
        }
    }
    check_places(s);
}

static void run(sim *s, mfi_trace *trace, uint32_t n_steps)
{
    mfi_store_config config = {
        .table = {s->n_layers, s->n_experts, s->n_parts, s->slot_stride, s->parts, s->model_layer},
        .slots = s->slots,
        .slot_stride = s->slot_stride,
        .n_slots = s->n_slots,
        .policy = &mfi_policy_lru,
        .io = s->io,
        .trace = trace,
        .places = s->places,
        .n_refs_max = MFI_MIN(s->n_slots, MAX_GROUPS * MAX_N),
        .n_hints_max = s->abandon ? MFI_MIN(s->n_slots, 7) - 1 : 0,
    };
    mf_error err;
    uint64_t n_before = n_allocations;
    mft_ok(mfi_store_open(&s->store, &config, &err), &err);
    mfi_store_on_move(s->store, moved, s);
    if (COUNTS_ALLOCATIONS)
        sim_true(s, n_allocations > n_before);
    n_before = n_allocations;
    for (s->step = 0; s->step < n_steps; s->step++)
        one_step(s);
    for (uint32_t k = 0; k < MAX_GROUPS; k++)
        release(s, &s->groups[k]);
    if (mfi_rng_below(&s->rng, 4)) { /* otherwise close has to wait */
        do {
            mft_ok(mfi_store_poll(s->store, NULL, 0, &err), &err);
            mfi_store_stats_get(s->store, &s->stats);
        } while (s->stats.misses - s->stats.evictions - s->stats.failures != s->stats.n_ready);
        sim_true(s, s->stats.n_ready <= s->n_slots);
    }
    sim_true(s, n_allocations == n_before);
    mfi_store_stats_get(s->store, &s->stats);
    mfi_store_close(&s->store);
    assert_null(s->store);
    assert_null(s->io->poll(s->io));
}

static void make_world(sim *s, uint64_t seed)
{
    make_files();
    memset(s, 0, sizeof *s);
    s->seed = seed;
    s->rng.state = seed;
    s->n_layers = 1 + (uint32_t)mfi_rng_below(&s->rng, 4);
    s->n_experts = 1 + (uint32_t)mfi_rng_below(&s->rng, MAX_KEYS / 4);
    s->n_parts = 1 + (uint32_t)mfi_rng_below(&s->rng, MFI_MAX_PARTS);
    s->n_slots = 1 + (uint32_t)mfi_rng_below(&s->rng, MAX_SLOTS);
    for (uint32_t i = 0; i < s->n_layers; i++)
        s->model_layer[i] = 2 * i + 3;
    make_table(s);
    s->slots = malloc((size_t)s->n_slots * s->slot_stride);
}

static void open_fake(sim *s, double error_chance)
{
    static mft_io_fake_file fake_files[N_FILES];
    for (int f = 0; f < N_FILES; f++)
        fake_files[f] = (mft_io_fake_file){.bytes = file_bytes[f], .len = FILE_BYTES};
    mft_io_fake_config config = {
        .files = fake_files,
        .n_files = N_FILES,
        .n_reqs_max = (MAX_GROUPS * MAX_N + 6) * MFI_MAX_PARTS,
        .seed = s->seed,
        .latency_max = 1 + (uint32_t)mfi_rng_below(&s->rng, 200),
        .short_chance = 0.3,
        .error_chance = error_chance,
    };
    mf_error err;
    mft_ok(mft_io_fake_open(&s->io, &config, &err), &err);
}

static void close_world(sim *s)
{
    s->io->close(s->io);
    free(s->slots);
}

/* ---- tests ---- */

static void follows_the_model(void **state)
{
    (void)state;
    static sim s;
    uint64_t hits = 0, evictions = 0;
    for (uint64_t seed = 0; seed < 300; seed++) {
        make_world(&s, seed);
        open_fake(&s, 0);
        run(&s, NULL, 200);
        mfi_io_stats io_stats;
        s.io->stats(s.io, &io_stats);
        sim_true(&s, io_stats.n_reads == s.n_reads);
        sim_true(&s, io_stats.bytes == s.bytes);
        sim_true(&s, s.stats.failures == 0 && s.stats.stale_completions == 0);
        evictions += s.stats.evictions;
        hits += s.stats.hits;
        close_world(&s);
    }
    assert_true(evictions > 1000);
    assert_true(hits > 1000);
}

static void survives_abandoning_and_errors(void **state)
{
    (void)state;
    static sim s;
    uint64_t stale = 0, failures = 0, n_errors = 0, n_ready = 0, useful = 0, late = 0, wasted = 0;
    for (uint64_t seed = 1000; seed < 1400; seed++) {
        make_world(&s, seed);
        s.abandon = true;
        open_fake(&s, seed % 4 == 0 ? 0 : 0.05);
        run(&s, NULL, 250);
        stale += s.stats.stale_completions;
        failures += s.stats.failures;
        n_errors += s.n_errors;
        n_ready += s.stats.n_ready;
        useful += s.stats.hints_useful;
        late += s.stats.hints_late;
        wasted += s.stats.hints_wasted;
        mft_io_fake_stats fake = mft_io_fake_stats_get(s.io);
        sim_true(&s, s.stats.failures <= fake.n_failed);
        sim_true(&s, seed % 4 != 0 || fake.n_failed == 0);
        close_world(&s);
    }
    print_message("%llu stale completions, %llu failed loads, %llu of them seen, %llu ready\n",
                  (unsigned long long)stale, (unsigned long long)failures,
                  (unsigned long long)n_errors, (unsigned long long)n_ready);
    assert_true(stale > 500);
    assert_true(n_errors > 500);
    assert_true(failures > n_errors);
    print_message("hints: %llu useful, %llu late, %llu wasted\n", (unsigned long long)useful,
                  (unsigned long long)late, (unsigned long long)wasted);
    assert_true(useful > 10 && late > 100 && wasted > 100);
}

static void works_over_reader_threads(void **state)
{
    (void)state;
    static sim s;
    const mfi_file *list[N_FILES];
    for (uint64_t seed = 5000; seed < 5030; seed++) {
        make_world(&s, seed);
        for (int f = 0; f < N_FILES; f++)
            list[f] = &files[f];
        s.abandon = seed % 2;
        mf_error err;
        mft_ok(mfi_io_threads_open(&s.io, list, N_FILES,
                                   &(mfi_io_options){1 + seed % 4, 64 << 10, false}, &err),
               &err);
        /* The readers' start allocates: it is over when the first reads are. */
        static mfi_io_req reqs[64];
        mfi_io_req *batch[64];
        for (uint32_t i = 0; i < 64; i++) {
            reqs[i] = (mfi_io_req){0};
            batch[i] = &reqs[i];
        }
        s.io->submit(s.io, batch, 64);
        while (s.io->wait(s.io))
            ;
        run(&s, NULL, 200);
        close_world(&s);
    }
}

/* A layout by hand: 2 layers of 4 experts, one part of 16 bytes, one file. */
typedef struct small {
    mfi_expert_part parts[8];
    uint32_t model_layer[2];
    unsigned char bytes[128], slots[3 * 16];
    mft_io_fake_file file;
    mfi_io *io;
    mfi_store *store;
    mf_error err;
} small;

static void open_small(small *s, uint32_t n_slots, uint32_t latency)
{
    memset(s, 0, sizeof *s);
    for (uint32_t i = 0; i < 8; i++) {
        s->parts[i] = (mfi_expert_part){.offset = 16 * i, .len = 16};
        memset(s->bytes + 16 * i, 'a' + (int)i, 16);
    }
    s->model_layer[0] = 3;
    s->model_layer[1] = 7;
    s->file = (mft_io_fake_file){.bytes = s->bytes, .len = sizeof s->bytes};
    mft_io_fake_config fake = {.files = &s->file,
                               .n_files = 1,
                               .n_reqs_max = n_slots,
                               .latency_min = latency,
                               .latency_max = latency};
    mft_ok(mft_io_fake_open(&s->io, &fake, &s->err), &s->err);
    mfi_store_config config = {.table = {2, 4, 1, 16, s->parts, s->model_layer},
                               .slots = s->slots,
                               .slot_stride = 16,
                               .n_slots = n_slots,
                               .policy = &mfi_policy_lru,
                               .io = s->io,
                               .n_refs_max = n_slots};
    mft_ok(mfi_store_open(&s->store, &config, &s->err), &s->err);
}

static void close_small(small *s)
{
    mfi_store_close(&s->store);
    s->io->close(s->io);
}

static void a_planted_error_names_its_expert(void **state)
{
    (void)state;
    static small s;
    open_small(&s, 3, 5);
    mfi_expert_ref refs[2];
    mft_io_fake_plant(s.io, 0, 16 * 6 + 3, 2); /* layer 1, expert 2 */
    mft_ok(mfi_store_acquire(s.store, 1, (const uint16_t[]){1, 2}, 2, refs, &s.err), &s.err);
    mf_status status = MF_OK;
    while (status == MF_OK)
        status = mfi_store_wait(s.store, refs, 2, &s.err);
    assert_int_equal(status, MF_ERR_IO);
    assert_string_equal(s.err.message,
                        "layer 7, expert 2: fake: reading 16 bytes at offset 96: injected");
    assert_false(refs[1].ready);
    /* The other one is unharmed. */
    while (!refs[0].ready)
        mft_ok(mfi_store_wait(s.store, refs, 1, &s.err), &s.err);
    assert_memory_equal(mfi_store_data(s.store, &refs[0]), s.bytes + 80, 16);
    mfi_store_release(s.store, refs, 2);
    /* Next time it works. */
    mft_ok(mfi_store_acquire(s.store, 1, (const uint16_t[]){1, 2}, 2, refs, &s.err), &s.err);
    assert_true(refs[0].ready);
    mft_ok(mfi_store_wait(s.store, refs, 2, &s.err), &s.err);
    assert_memory_equal(mfi_store_data(s.store, &refs[1]), s.bytes + 96, 16);
    mfi_store_stats stats;
    mfi_store_stats_get(s.store, &stats);
    assert_int_equal(stats.hits, 1);
    assert_int_equal(stats.misses, 3);
    assert_int_equal(stats.failures, 1);
    assert_int_equal(stats.evictions, 0);
    assert_int_equal(stats.n_ready, 2);
    assert_int_equal(stats.bytes_read, 48);
    mfi_store_stats_reset(s.store);
    mfi_store_stats_get(s.store, &stats);
    assert_int_equal(stats.misses + stats.hits + stats.bytes_read, 0);
    assert_int_equal(stats.n_ready, 2);
    mfi_store_release(s.store, refs, 2);
    close_small(&s);
}

/* One slot: an abandoned load keeps the memory until its read has landed. */
static void a_reused_slot_waits_for_the_old_read(void **state)
{
    (void)state;
    static small s;
    open_small(&s, 1, 10);
    mfi_expert_ref ref;
    mft_ok(mfi_store_acquire(s.store, 0, (const uint16_t[]){0}, 1, &ref, &s.err), &s.err);
    mfi_store_release(s.store, &ref, 1);
    mft_ok(mfi_store_acquire(s.store, 0, (const uint16_t[]){1}, 1, &ref, &s.err), &s.err);
    assert_int_equal(mft_io_fake_stats_get(s.io).n_under_way, 1);
    mft_ok(mfi_store_wait(s.store, &ref, 1, &s.err), &s.err);
    assert_true(ref.ready);
    assert_memory_equal(mfi_store_data(s.store, &ref), "bbbbbbbbbbbbbbbb", 16);
    mfi_store_stats stats;
    mfi_store_stats_get(s.store, &stats);
    assert_int_equal(stats.stale_completions, 1);
    assert_int_equal(stats.evictions, 1);
    mfi_store_release(s.store, &ref, 1);
    /* Left alone, an abandoned load completes. */
    mft_ok(mfi_store_acquire(s.store, 1, (const uint16_t[]){3}, 1, &ref, &s.err), &s.err);
    mfi_store_release(s.store, &ref, 1);
    for (int i = 0; i < 50; i++)
        mft_ok(mfi_store_poll(s.store, NULL, 0, &s.err), &s.err);
    mft_ok(mfi_store_acquire(s.store, 1, (const uint16_t[]){3}, 1, &ref, &s.err), &s.err);
    assert_true(ref.ready);
    mfi_store_release(s.store, &ref, 1);
    close_small(&s);
}

/* An abandoned load that is older than everything else keeps its slot while a READY one can go. */
static void ready_slots_go_before_loading_ones(void **state)
{
    (void)state;
    static small s;
    open_small(&s, 2, 10);
    mfi_expert_ref ref;
    mft_io_fake_plant(s.io, 0, 0, 1); /* the retry makes it slower than the next */
    mft_ok(mfi_store_acquire(s.store, 0, (const uint16_t[]){0}, 1, &ref, &s.err), &s.err);
    mfi_store_release(s.store, &ref, 1);
    mft_ok(mfi_store_acquire(s.store, 0, (const uint16_t[]){1}, 1, &ref, &s.err), &s.err);
    mft_ok(mfi_store_wait(s.store, &ref, 1, &s.err), &s.err);
    mfi_store_release(s.store, &ref, 1);
    assert_int_equal(mft_io_fake_stats_get(s.io).n_under_way, 1);
    mft_ok(mfi_store_acquire(s.store, 0, (const uint16_t[]){2}, 1, &ref, &s.err), &s.err);
    mft_ok(mfi_store_wait(s.store, &ref, 1, &s.err), &s.err);
    mfi_store_release(s.store, &ref, 1);
    mft_ok(mfi_store_acquire(s.store, 0, (const uint16_t[]){0}, 1, &ref, &s.err), &s.err);
    mfi_store_stats stats;
    mfi_store_stats_get(s.store, &stats);
    assert_int_equal(stats.hits, 1);
    assert_int_equal(stats.misses, 3);
    assert_int_equal(stats.stale_completions, 0);
    mfi_store_release(s.store, &ref, 1);
    close_small(&s);
}

/* A second reference to a loading expert costs no second read. */
static void a_loading_expert_is_joined(void **state)
{
    (void)state;
    static small s;
    open_small(&s, 3, 10);
    mfi_expert_ref a, b;
    mft_ok(mfi_store_acquire(s.store, 0, (const uint16_t[]){2}, 1, &a, &s.err), &s.err);
    mft_ok(mfi_store_acquire(s.store, 0, (const uint16_t[]){2}, 1, &b, &s.err), &s.err);
    assert_int_equal(a.slot, b.slot);
    assert_false(b.ready);
    assert_int_equal(mft_io_fake_stats_get(s.io).n_under_way, 1);
    mfi_store_release(s.store, &a, 1);
    mft_ok(mfi_store_wait(s.store, &b, 1, &s.err), &s.err);
    assert_memory_equal(mfi_store_data(s.store, &b), "cccccccccccccccc", 16);
    mfi_store_stats stats;
    mfi_store_stats_get(s.store, &stats);
    assert_int_equal(stats.hits, 1);
    assert_int_equal(stats.misses, 1);
    assert_int_equal(stats.bytes_read, 16);
    assert_true(stats.stall_ns > 0);
    mfi_store_release(s.store, &b, 1);
    close_small(&s);
}

static void choices_are_traced(void **state)
{
    (void)state;
    char path[512];
    snprintf(path, sizeof path, "%s/trace", mft_tmpdir());
    static sim s;
    uint32_t n_lines = 0, n_hits = 0;
    for (uint64_t seed = 9000; seed < 9010; seed++) {
        make_world(&s, seed);
        open_fake(&s, 0);
        mf_error err;
        mfi_trace *trace = NULL;
        mft_ok(mfi_trace_open(&trace, path, "m", 9, s.n_experts, MAX_N, 1000, &err), &err);
        run(&s, trace, 200);
        mft_ok(mfi_trace_close(&trace, &err), &err);
        uint64_t hits = 0, misses = 0;
        char line[1000];
        FILE *f = fopen(path, "r");
        assert_non_null(fgets(line, sizeof line, f));
        while (fgets(line, sizeof line, f)) {
            unsigned pass, layer, pos;
            int end = 0;
            assert_int_equal(sscanf(line, "{\"pass\":%u,\"layer\":%u,\"pos\":%u,\"ids\":[%n", &pass,
                                    &layer, &pos, &end),
                             3);
            assert_true(layer >= 3 && layer % 2 == 1); /* the model's number */
            char *hit = strstr(line + end, "],\"hit\":[");
            assert_non_null(hit);
            for (char *p = hit + 9; *p != ']'; p++) {
                hits += *p == '1';
                misses += *p == '0';
            }
            n_lines++;
        }
        fclose(f);
        n_hits += (uint32_t)hits;
        assert_int_equal(hits, s.stats.hits);
        assert_int_equal(misses, s.stats.misses);
        close_world(&s);
    }
    assert_true(n_lines > 100 && n_hits > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_model),
        cmocka_unit_test(survives_abandoning_and_errors),
        cmocka_unit_test(works_over_reader_threads),
        cmocka_unit_test(a_planted_error_names_its_expert),
        cmocka_unit_test(a_reused_slot_waits_for_the_old_read),
        cmocka_unit_test(ready_slots_go_before_loading_ones),
        cmocka_unit_test(a_loading_expert_is_joined),
        cmocka_unit_test(choices_are_traced),
    };
    return mft_run(tests);
}
