/* What other threads see of an engine: the ring of choices against what was put in, while it is
 * overwritten too, recent use by its definition, and an engine's evaluations against its own
 * counters. That places are right is part of the store's simulation (test_store.c). */
#include "fake/support.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "experts/watch.h"

#define N_LAYERS  6
#define N_EXPERTS 40
#define TOP_K     4

static mfi_watch *open_watch(uint32_t n_layers, uint32_t top_k)
{
    mfi_watch_config config = {n_layers, N_EXPERTS, top_k, 1000};
    mfi_watch *w = NULL;
    mf_error err;
    mft_ok(mfi_watch_open(&w, &config, &err), &err);
    return w;
}

/* The experts of a choice, which say by themselves which one it is. */
static uint32_t ids_of(uint64_t number, uint16_t *ids)
{
    for (uint16_t i = 0; i < TOP_K; i++) /* distinct, since N_EXPERTS / TOP_K = 10 */
        ids[i] = (uint16_t)(i * 10 + (number / N_LAYERS / (uint64_t[]){1, 10, 100, 1000}[i]) % 10);
    return (uint32_t)(number % N_LAYERS);
}

static void put(mfi_watch *w, uint64_t number)
{
    uint16_t ids[TOP_K];
    uint32_t layer = ids_of(number, ids);
    /* In another order than that of the numbers. */
    uint16_t turned[TOP_K] = {ids[2], ids[0], ids[3], ids[1]};
    mfi_watch_choice(w, layer, turned, TOP_K);
}

/* The number of the first choice of a replay whose every choice follows the one before, whole. */
static uint64_t check_run(const mfi_replay *r)
{
    uint64_t first = 0;
    assert_int_equal(r->n_keys, r->n_steps * TOP_K);
    for (size_t s = 0; s < r->n_steps; s++) {
        const uint32_t *keys = r->keys + s * TOP_K;
        uint64_t token = 0, scale = 1, number;
        assert_int_equal(r->step_end[s], (s + 1) * TOP_K);
        for (uint32_t i = 0; i < TOP_K; i++, scale *= 10)
            token += (keys[i] % N_EXPERTS - i * 10) * scale;
        number = token * N_LAYERS + keys[0] / N_EXPERTS;
        if (s == 0)
            first = number;
        if (number != (first + s) % (10000 * N_LAYERS))
            fail_msg("choice %zu is number %llu, not %llu", s, (unsigned long long)number,
                     (unsigned long long)(first + s));
    }
    return first;
}

static void choices_come_back(void **state)
{
    (void)state;
    mfi_watch *w = open_watch(N_LAYERS, TOP_K);
    mfi_replay r;
    mf_error err;
    assert_int_equal(mfi_watch_replay(w, &r, &err), MF_ERR_STATE);
    const uint64_t most = (uint64_t)N_LAYERS * MFI_WATCH_TOKENS, at[] = {1, 2, 700, most, 50001};
    uint64_t n = 0;
    for (size_t i = 0; i < MFI_ARRAY_LEN(at); i++) {
        while (n < at[i])
            put(w, n++);
        mft_ok(mfi_watch_replay(w, &r, &err), &err);
        assert_int_equal(r.n_steps, MFI_MIN(n, most + MFI_MAX_TOP_K / TOP_K));
        assert_int_equal(check_run(&r) + r.n_steps, n);
        assert_int_equal(r.n_tokens, (r.n_steps + N_LAYERS - 1) / N_LAYERS);
        assert_true(r.n_layers == N_LAYERS && r.n_experts == N_EXPERTS && r.top_k == TOP_K);
        mfi_replay_close(&r);
    }
    mfi_watch_close(&w);
}

/* By the definition, from all choices there were. */
static void use_is_as_defined(void **state)
{
    (void)state;
    mfi_rng rng = {4711};
    uint16_t ids[300][TOP_K];
    float use[2 * N_EXPERTS];
    mf_error err;
    mfi_watch *w = open_watch(2, TOP_K);
    mft_ok(mfi_watch_use(w, use, &err), &err);
    for (uint32_t i = 0; i < 2 * N_EXPERTS; i++)
        assert_true(use[i] == 0);
    for (uint32_t t = 0; t < 300; t++) {
        for (uint32_t i = 0; i < TOP_K; i++)
            ids[t][i] = (uint16_t)(i * 10 + mfi_rng_below(&rng, 10));
        mfi_watch_choice(w, 1, ids[t], TOP_K);
    }
    mft_ok(mfi_watch_use(w, use, &err), &err);
    for (uint32_t e = 0; e < N_EXPERTS; e++) {
        double chose = 0, all = 0;
        for (uint32_t t = 0; t < 300; t++) {
            double weight = pow(0.5, (299 - t) / 64.0);
            all += weight;
            for (uint32_t i = 0; i < TOP_K; i++)
                chose += ids[t][i] == e ? weight : 0;
        }
        assert_true(use[e] == 0); /* of the other layer */
        assert_true(fabs(use[N_EXPERTS + e] - chose / all) < 1e-4);
    }
    mfi_watch_close(&w);
}

typedef struct writer {
    mfi_watch *watch;
    _Atomic bool stop;
} writer;

static void *write_on(void *user)
{
    writer *me = user;
    for (uint64_t n = 0; !atomic_load_explicit(&me->stop, memory_order_relaxed); n++)
        put(me->watch, n);
    return NULL;
}

/* Nobody waits for anybody, and what is read is whole. */
static void read_while_written(void **state)
{
    (void)state;
    pthread_t thread;
    mf_error err;
    writer me = {.watch = open_watch(N_LAYERS, TOP_K)};
    assert_int_equal(pthread_create(&thread, NULL, write_on, &me), 0);
    for (uint32_t n_read = 0; n_read < 40;) {
        mfi_replay r;
        float use[N_LAYERS * N_EXPERTS];
        mft_ok(mfi_watch_use(me.watch, use, &err), &err);
        if (mfi_watch_replay(me.watch, &r, &err) != MF_OK)
            continue; /* everything was overwritten meanwhile, or nothing is there yet */
        check_run(&r);
        n_read++;
        mfi_replay_close(&r);
    }
    atomic_store(&me.stop, true);
    pthread_join(thread, NULL);
    mfi_watch_close(&me.watch);
}

/* ---- an engine ---- */

static mf_engine *open_engine(bool watched, const char *streaming)
{
    mf_engine_options o;
    mf_engine *engine = NULL;
    mf_error err;
    mf_engine_options_default(&o);
    o.model_path = MF_SOURCE_DIR "/models/pocket-dictionary";
    o.memory_bytes = 96 * MFI_MIB;
    o.ctx = 256;
    o.n_threads = 2;
    o.watched = watched;
    o.streaming = streaming;
    mft_ok(mf_engine_open(&engine, &o, &err), &err);
    return engine;
}

static void evaluate(mf_engine *engine, uint32_t n_tokens)
{
    mf_session *session = NULL;
    mf_error err;
    mft_ok(mf_session_open(&session, engine, &err), &err);
    for (uint32_t i = 0; i < n_tokens; i++) {
        int32_t ids[] = {(int32_t)(i * 37 % 500), 11};
        mft_ok(mf_session_eval(session, ids, i ? 1 : 2, NULL, &err), &err);
    }
    mf_session_close(&session);
}

static void check_evaluations(const mf_evaluation *list, size_t n, const mf_stats *stats)
{
    uint64_t hits = 0, misses = 0, bytes = 0, tokens = 0, stall_ns = 0;
    for (size_t i = 0; i < n; i++) {
        const mf_evaluation *e = &list[i];
        assert_int_equal(e->number, i);
        assert_int_equal(e->n_sequences, 1);
        assert_int_equal(e->pos, i ? i + 1 : 0);
        assert_true(e->wall_ns >= e->arithmetic_ns && e->arithmetic_ns >= e->experts_ns);
        assert_int_equal(e->wall_ns, e->arithmetic_ns + e->stall_ns + e->other_ns);
        if (i)
            assert_int_equal(e->begin_ns,
                             list[i - 1].begin_ns + list[i - 1].wall_ns + e->between_ns);
        hits += e->hits;
        misses += e->misses;
        bytes += e->bytes_read;
        tokens += e->n_tokens;
        stall_ns += e->stall_ns;
    }
    assert_int_equal(hits, stats->expert_hits);
    assert_int_equal(misses, stats->expert_misses);
    assert_int_equal(bytes, stats->expert_bytes_read);
    assert_int_equal(stall_ns, stats->stall_ns);
    assert_int_equal(tokens, stats->tokens_evaluated);
    assert_true(misses > 0 && hits > 0);
}

static void engine_tells(void **state)
{
    (void)state;
    mf_engine *engine = open_engine(true, NULL);
    mf_evaluation list[MFI_WATCH_EVALUATIONS + 1];
    mf_stats stats = {.struct_size = sizeof stats};
    mf_model_info info = {.struct_size = sizeof info};
    mf_replay *replay = NULL;
    mf_error err;
    assert_int_equal(mf_engine_evaluations(engine, list, MFI_ARRAY_LEN(list)), 0);
    assert_int_equal(mf_replay_recent(&replay, engine, &err), MF_ERR_STATE);
    evaluate(engine, 40);
    mf_engine_stats(engine, &stats);
    mf_engine_info(engine, &info);
    assert_int_equal(mf_engine_evaluations(engine, list, MFI_ARRAY_LEN(list)), 40);
    check_evaluations(list, 40, &stats);
    assert_int_equal(mf_engine_evaluations(engine, list, 3), 3); /* the last */
    assert_true(list[0].number == 37 && list[2].number == 39);

    size_t n = (size_t)info.n_layers * info.n_experts, n_host = 0;
    uint8_t *tiers = malloc(n);
    float *use = malloc(n * sizeof *use);
    mft_ok(mf_engine_experts(engine, tiers, use, &err), &err);
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        assert_true(tiers[i] == MF_EXPERT_DRIVE || tiers[i] == MF_EXPERT_HOST);
        assert_true(use[i] == 0 || tiers[i] == MF_EXPERT_HOST); /* there is a slot for each */
        n_host += tiers[i] == MF_EXPERT_HOST;
        sum += use[i];
    }
    assert_int_equal(n_host, stats.expert_misses - stats.expert_evictions);
    assert_true(fabs(sum - info.n_layers * info.top_k) < 1e-3); /* a token chooses top_k a layer */
    free(tiers);
    free(use);

    mf_replay_info ri = {.struct_size = sizeof ri};
    uint64_t hits = 0;
    mft_ok(mf_replay_recent(&replay, engine, &err), &err);
    mf_replay_info_get(replay, &ri);
    assert_int_equal(ri.n_tokens, 41);
    assert_int_equal(ri.n_choices, 41 * info.n_layers * info.top_k);
    mft_ok(mf_replay_hits(replay, "lru", info.n_slots, &hits, &err), &err);
    assert_int_equal(ri.n_choices - hits, stats.expert_misses); /* as many as were chosen ever */
    mf_replay_close(&replay);
    evaluate(engine, MFI_WATCH_EVALUATIONS + 5);
    assert_int_equal(mf_engine_evaluations(engine, list, MFI_ARRAY_LEN(list)),
                     MFI_WATCH_EVALUATIONS - 1); /* the next one's place may be written to */
    assert_int_equal(list[MFI_WATCH_EVALUATIONS - 2].number, 40 + MFI_WATCH_EVALUATIONS + 4);
    mf_engine_close(&engine);
}

/* What opening has read is in the engine's counters, and no evaluation's. */
static void first_after_all_were_read(void **state)
{
    (void)state;
    mf_engine *engine = open_engine(true, "off");
    mf_stats stats = {.struct_size = sizeof stats};
    mf_evaluation e;
    evaluate(engine, 1);
    mf_engine_stats(engine, &stats);
    assert_int_equal(stats.expert_misses, stats.n_experts_total);
    assert_int_equal(mf_engine_evaluations(engine, &e, 1), 1);
    assert_true(e.misses == 0 && e.bytes_read == 0 && e.reading_ns == 0 && e.stall_ns == 0);
    assert_true(e.hits > 0);
    mf_engine_close(&engine);
}

static void unwatched(void **state)
{
    (void)state;
    mf_engine *engine = open_engine(false, NULL);
    mf_evaluation one;
    mf_replay *replay = NULL;
    uint8_t tiers[1];
    float use[1];
    mf_error err;
    evaluate(engine, 1);
    assert_int_equal(mf_engine_evaluations(engine, &one, 1), 0);
    assert_int_equal(mf_engine_experts(engine, tiers, use, &err), MF_ERR_STATE);
    assert_int_equal(mf_replay_recent(&replay, engine, &err), MF_ERR_STATE);
    mf_engine_close(&engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices_come_back),  cmocka_unit_test(use_is_as_defined),
        cmocka_unit_test(read_while_written), cmocka_unit_test(engine_tells),
        cmocka_unit_test(unwatched),          cmocka_unit_test(first_after_all_were_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
