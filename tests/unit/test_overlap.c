/* Reading and computing at the same time, seen from between them: a tap after every op notes what
 * was computed and how many reads were under way. Hits are computed first, everything that needs no
 * missing expert while reads are under way, each expert when it is there; and a chunk reads each
 * expert that it chose once. */
#include "fake/rig.h"
#include "fake/support.h"
#include "fake/tiny_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NOTES 4096

typedef struct note { /* of one op that ran */
    uint8_t code;
    uint16_t layer;
    uint32_t n_work, n_under_way;
    uint64_t n_misses; /* of the store up to then */
} note;

typedef struct watcher {
    mft_rig *rig;
    note notes[MAX_NOTES];
    uint32_t n;
} watcher;

static void watch(void *user, uint32_t op, const mfi_step *step, mfi_backend *backend)
{
    watcher *w = user;
    mfi_store_stats stats;
    const mfi_op *o = &mft_rig_program(w->rig)->ops[op];
    (void)backend;
    assert_true(w->n < MAX_NOTES);
    mfi_store_stats_get(mft_rig_store(w->rig), &stats);
    w->notes[w->n++] = (note){o->code, o->layer, o->code == MFI_OP_EXPERTS ? step->n_work : 0,
                              mft_io_fake_stats_get(mft_rig_io(w->rig)).n_under_way, stats.misses};
}

static void model_of(mft_tiny *spec)
{
    mft_tiny_default(spec);
    spec->n_layers = 3;
    spec->n_experts = 16;
    spec->top_k = 6;
    spec->shared = 32;
}

static void open_watched(watcher *w, mft_rig_options *o, uint32_t latency)
{
    mft_tiny spec;
    model_of(&spec);
    mft_rig_default(o, mft_tiny_write(&spec));
    o->n_slots = 24; /* half of all */
    o->fake_io = true;
    o->fake = (mft_io_fake_config){.seed = 5, .latency_min = latency, .latency_max = 3 * latency};
    *w = (watcher){.rig = mft_rig_open(o)};
    mfi_forward_tap(mft_rig_forward(w->rig), watch, w);
}

static uint64_t misses_of(const watcher *w)
{
    mfi_store_stats stats;
    mfi_store_stats_get(mft_rig_store(w->rig), &stats);
    return stats.misses;
}

/* Notes of one evaluation: in every layer, what the hits are is known from the counters. */
static void check_layers(const watcher *w, uint64_t misses_before, uint32_t top_k,
                         uint32_t *n_mixed, uint32_t *n_waits)
{
    uint64_t misses = misses_before;
    for (uint32_t i = 0; i < w->n; i++) {
        if (w->notes[i].code != MFI_OP_ROUTE)
            continue;
        uint32_t k = i + 1, n_done = 0;
        /* The shared expert: all that is missing has been asked for. */
        assert_int_equal(w->notes[k].code, MFI_OP_MATMUL);
        uint32_t n_missing = (uint32_t)(w->notes[k].n_misses - misses);
        misses = w->notes[k].n_misses;
        assert_true(n_missing <= top_k);
        for (; w->notes[k].code != MFI_OP_EXPERTS; k++)
            assert_true((w->notes[k].n_under_way > 0) == (n_missing > 0));
        for (uint32_t run = 0; w->notes[k].code == MFI_OP_EXPERTS; k++, run++) {
            assert_true(w->notes[k].n_work > 0);
            if (run == 0 && n_missing > 0 && n_missing < top_k) {
                /* The hits, and no read has come to its end yet: latencies are long. */
                assert_int_equal(w->notes[k].n_work, top_k - n_missing);
                assert_true(w->notes[k].n_under_way >= n_missing);
                (*n_mixed)++;
            }
            n_done += w->notes[k].n_work;
            if (n_done < top_k) { /* nobody waited for what comes last */
                assert_true(w->notes[k].n_under_way > 0);
                (*n_waits)++;
            }
        }
        assert_int_equal(n_done, top_k);
        assert_int_equal(w->notes[k].code, MFI_OP_COMBINE);
        assert_int_equal(w->notes[k].n_under_way, 0);
    }
}

static void experts_are_computed_as_they_come(void **state)
{
    (void)state;
    static watcher w;
    mft_rig_options o;
    mf_error err;
    uint32_t n_mixed = 0, n_waits = 0;
    open_watched(&w, &o, 40);
    for (uint32_t pos = 0; pos < 40; pos++) {
        int32_t id = (int32_t)(pos * 7 % mft_rig_shape(w.rig)->n_vocab);
        uint64_t before = misses_of(&w);
        w.n = 0;
        mft_ok(mft_rig_step(w.rig, &id, 1, pos, &err), &err);
        check_layers(&w, before, mft_rig_shape(w.rig)->top_k, &n_mixed, &n_waits);
    }
    assert_true(n_mixed > 10); /* or nothing was tested */
    assert_true(n_waits > 50);
    mft_rig_close(w.rig);
}

/* One chunk over few slots: as many loads as experts chosen, all bytes once, and work in pieces
 * while reads are under way. */
static void a_chunk_reads_what_it_chose_once(void **state)
{
    (void)state;
    static watcher w;
    mft_rig_options o;
    mf_error err;
    mft_tiny spec;
    model_of(&spec);
    mft_rig_default(&o, mft_tiny_write(&spec));
    o.fake_io = true;
    o.fake = (mft_io_fake_config){.seed = 9, .latency_min = 1, .latency_max = 30};
    for (uint32_t n_slots = spec.top_k; n_slots <= 3 * spec.n_experts; n_slots += 7) {
        int32_t ids[64];
        uint32_t pairs[3] = {0}, works[3] = {0};
        mfi_store_stats stats;
        o.n_slots = n_slots;
        w = (watcher){.rig = mft_rig_open(&o)};
        mfi_forward_tap(mft_rig_forward(w.rig), watch, &w);
        for (int i = 0; i < 64; i++)
            ids[i] = (int32_t)((uint32_t)(i * 13) % mft_rig_shape(w.rig)->n_vocab);
        mft_ok(mft_rig_step(w.rig, ids, 64, 0, &err), &err);
        mfi_store_stats_get(mft_rig_store(w.rig), &stats);
        for (uint32_t i = 0; i < w.n; i++) {
            if (w.notes[i].code != MFI_OP_EXPERTS)
                continue;
            works[w.notes[i].layer] += w.notes[i].n_work;
            pairs[w.notes[i].layer]++;
        }
        uint32_t n_chosen = works[0] + works[1] + works[2];
        assert_true(n_chosen > 3 * spec.top_k && n_chosen <= 3 * spec.n_experts);
        assert_int_equal(stats.hits, 0); /* nothing was there, nothing came twice */
        assert_int_equal(stats.misses, n_chosen);
        uint64_t expert_bytes = 3ull * spec.hidden * spec.width * (spec.bf16 ? 2 : 4);
        assert_int_equal(stats.bytes_read, n_chosen * expert_bytes);
        for (int layer = 0; layer < 3; layer++)
            assert_true(pairs[layer] > 1); /* not all in one go at the end */
        mft_rig_close(w.rig);
    }
}

/* The time of a run is told, and arithmetic is a part of it. */
static mf_status count_run(void *user, const mfi_run_facts *facts, mf_error *err)
{
    uint64_t *sums = user;
    assert_int_equal(facts->n_tok, 3);
    assert_true(facts->arith_ns > 0 && facts->arith_ns <= facts->wall_ns);
    sums[0]++;
    sums[1] = facts->pos;
    return sums[0] < 3 ? MF_OK : mfi_fail(err, MF_ERR_FILE_CHANGED, "no more");
}

static void runs_are_told(void **state)
{
    (void)state;
    mft_tiny spec;
    mft_rig_options o;
    mf_error err;
    uint64_t sums[2] = {0};
    int32_t ids[] = {1, 2, 3};
    model_of(&spec);
    mft_rig_default(&o, mft_tiny_write(&spec));
    mft_rig *rig = mft_rig_open(&o);
    mfi_forward_on_run(mft_rig_forward(rig), count_run, sums);
    mft_ok(mft_rig_step(rig, ids, 3, 0, &err), &err);
    mft_ok(mft_rig_step(rig, ids, 3, 3, &err), &err);
    assert_int_equal(sums[0], 2);
    assert_int_equal(sums[1], 3);
    assert_int_equal(mft_rig_step(rig, ids, 3, 6, &err), MF_ERR_FILE_CHANGED);
    mft_rig_close(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_are_computed_as_they_come),
        cmocka_unit_test(a_chunk_reads_what_it_chose_once),
        cmocka_unit_test(runs_are_told),
    };
    return mft_run(tests);
}
