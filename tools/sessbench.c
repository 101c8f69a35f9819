/* Several streams on one engine, and prompts that are sent again: what bench/sessions.py measures.
 *
 *   sessbench streams MODEL MEMORY_BYTES N_STREAMS PROMPT TOKENS THREADS POLICY own|same
 *   sessbench resend MODEL MEMORY_BYTES PREFIX NEW THREADS KV_DIR
 *
 * Prints one JSON object. Prompts are pseudo-random ids, each stream's own or the same for all;
 * seeds differ. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rng.h"
#include "moeflux/moeflux.h"

#define STREAMS_MAX     64
#define EVALUATIONS_MAX 128 /* that are remembered */

static void check(mf_status status, const mf_error *err)
{
    if (status == MF_OK)
        return;
    fprintf(stderr, "sessbench: %s\n", err->message);
    exit(1);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint32_t number(const char *text)
{
    return (uint32_t)strtoul(text, NULL, 10);
}

static mf_engine *open_engine(char **argv, uint32_t n_sessions, uint32_t ctx, uint32_t threads,
                              const char *policy, const char *kv_dir)
{
    mf_error err = {0};
    mf_engine *engine = NULL;
    mf_engine_options o;
    mf_engine_options_default(&o);
    o.model_path = argv[2];
    o.memory_bytes = strtoull(argv[3], NULL, 10);
    o.ctx = ctx;
    o.n_sessions = n_sessions;
    o.n_threads = threads;
    o.policy = policy;
    o.prefix_dir = kv_dir;
    o.direct = "on"; /* a model cut to a few layers would stay in the page cache */
    o.watched = true;
    check(mf_engine_open(&engine, &o, &err), &err);
    return engine;
}

static int32_t *random_ids(const mf_engine *engine, uint64_t seed, size_t n)
{
    mf_model_info info = {.struct_size = sizeof info};
    mfi_rng rng = {seed};
    int32_t *ids = malloc(n * sizeof *ids);
    mf_engine_info(engine, &info);
    for (size_t i = 0; ids && i < n; i++)
        ids[i] = (int32_t)mfi_rng_below(&rng, info.n_vocab);
    return ids;
}

/* Steps until every stream decodes, or to the end. Returns how many steps. */
static size_t step_all(mf_engine *engine, mf_generation *const *g, uint32_t n, bool to_the_end)
{
    mf_error err = {0};
    size_t n_steps = 0;
    for (;;) {
        size_t n_running, n_waiting = 0;
        check(mf_engine_step(engine, g, n, &n_running, &err), &err);
        n_steps++;
        for (uint32_t i = 0; i < n; i++) {
            mf_generate_result r;
            check(mf_generation_result(g[i], &r, &err), &err);
            n_waiting += r.n_prompt_done < r.n_prompt;
        }
        if (n_running == 0 || (!to_the_end && n_waiting == 0))
            return n_steps;
    }
}

/* Where the time of the last n passes went, in ms a pass. */
static void print_passes(const mf_engine *engine, size_t n)
{
    mf_evaluation last[EVALUATIONS_MAX];
    size_t have = mf_engine_evaluations(engine, last, n < EVALUATIONS_MAX ? n : EVALUATIONS_MAX);
    double wall = 0, arithmetic = 0, experts = 0, stall = 0, other = 0, chosen = 0;
    for (size_t i = 0; i < have; i++) {
        wall += (double)last[i].wall_ns;
        arithmetic += (double)last[i].arithmetic_ns;
        experts += (double)last[i].experts_ns;
        stall += (double)last[i].stall_ns;
        other += (double)last[i].other_ns;
        chosen += (double)(last[i].hits + last[i].misses);
    }
    double ms = 1e6 * (double)(have ? have : 1);
    printf(",\"pass_ms\":{\"wall\":%.3f,\"arithmetic\":%.3f,\"experts\":%.3f,\"stall\":%.3f,"
           "\"other\":%.3f},\"experts_per_pass\":%.1f",
           wall / ms, arithmetic / ms, experts / ms, stall / ms, other / ms, chosen / ms * 1e6);
}

static int streams(char **argv)
{
    mf_error err = {0};
    uint32_t n = number(argv[4]), n_prompt = number(argv[5]), n_tokens = number(argv[6]);
    bool same = strcmp(argv[9], "same") == 0;
    mf_session *sessions[STREAMS_MAX] = {0};
    mf_generation *g[STREAMS_MAX] = {0};
    int32_t *prompts[STREAMS_MAX] = {0};
    if (n == 0 || n > STREAMS_MAX)
        return 2;
    mf_engine *engine =
        open_engine(argv, n, n_prompt + 2 * n_tokens + 8, number(argv[7]), argv[8], NULL);
    for (uint32_t i = 0; i < n; i++) {
        mf_generate_options o;
        mf_generate_options_default(&o);
        o.prompt = prompts[i] = random_ids(engine, same ? 1 : i + 1, n_prompt);
        o.n_prompt = n_prompt;
        o.max_tokens = 2 * n_tokens; /* those that came first go on while others begin */
        o.ignore_eos = true;
        o.sampling.seed = i;
        check(mf_session_open(&sessions[i], engine, &err), &err);
        check(mf_generation_begin(&g[i], sessions[i], &o, &err), &err);
    }
    double begin = now_s();
    step_all(engine, g, n, false);
    double decode = now_s();
    mf_engine_stats_reset(engine);
    size_t n_running;
    for (uint32_t i = 0; i < n_tokens; i++)
        check(mf_engine_step(engine, g, n, &n_running, &err), &err);
    double end = now_s();
    mf_stats s = {.struct_size = sizeof s};
    mf_engine_stats(engine, &s);
    printf("{\"streams\":%u,\"slots\":%u,\"experts\":%u,\"prompt_s\":%.3f,\"decode_s\":%.3f,"
           "\"tokens\":%llu,\"tokens_per_s\":%.3f,\"bytes_read_per_token\":%.0f,"
           "\"stall_ms_per_token\":%.3f,\"peak_bytes\":%llu",
           n, s.n_slots, s.n_experts_total, decode - begin, end - decode,
           (unsigned long long)s.tokens_evaluated, (double)s.tokens_evaluated / (end - decode),
           (double)s.expert_bytes_read / (double)s.tokens_evaluated,
           (double)s.stall_ns / 1e6 / (double)s.tokens_evaluated, (unsigned long long)s.peak_bytes);
    print_passes(engine, n_tokens);
    printf("}\n");
    for (uint32_t i = 0; i < n; i++) {
        mf_generation_end(&g[i]);
        mf_session_close(&sessions[i]);
        free(prompts[i]);
    }
    mf_engine_close(&engine);
    return n_running == n ? 0 : 1;
}

/* Time to the first logits of a prompt whose beginning may be known; *restore_s: of it, what went
 * into getting the beginning. */
static double first_token(mf_session *session, const int32_t *ids, size_t n, size_t *n_kept,
                          double *restore_s)
{
    mf_error err = {0};
    double begin = now_s();
    check(mf_session_restore(session, ids, n, n_kept, &err), &err);
    *restore_s = now_s() - begin;
    check(mf_session_eval(session, ids + *n_kept, n - *n_kept, NULL, &err), &err);
    return now_s() - begin;
}

static int resend(char **argv)
{
    mf_error err = {0};
    uint32_t n_prefix = number(argv[4]), n_new = number(argv[5]), threads = number(argv[6]);
    size_t n = n_prefix + n_new, kept[4];
    double restore[4];
    mf_session *a = NULL, *b = NULL;
    mf_engine *engine = open_engine(argv, 2, (uint32_t)n, threads, NULL, argv[7]);
    int32_t *ids = random_ids(engine, 1, n);
    check(mf_session_open(&a, engine, &err), &err);
    check(mf_session_open(&b, engine, &err), &err);
    double first = first_token(a, ids, n_prefix, &kept[0], &restore[0]);
    double begin = now_s();
    check(mf_session_keep(a, &err), &err);
    double write = now_s() - begin;
    double same = first_token(a, ids, n, &kept[1], &restore[1]);
    ids[n_prefix] ^= 1; /* other new tokens */
    double other = first_token(b, ids, n, &kept[2], &restore[2]);
    mf_session_close(&a);
    mf_session_close(&b);
    mf_engine_close(&engine);
    engine = open_engine(argv, 2, (uint32_t)n, threads, NULL, argv[7]);
    check(mf_session_open(&a, engine, &err), &err);
    double disk = first_token(a, ids, n, &kept[3], &restore[3]);
    printf("{\"prefix\":%u,\"new\":%u,\"first_s\":%.3f,\"write_s\":%.3f,\"same_session_s\":%.4f,"
           "\"other_session_s\":%.4f,\"disk_s\":%.4f,\"restore_s\":[%.4f,%.4f,%.4f],"
           "\"kept\":[%zu,%zu,%zu,%zu]}\n",
           n_prefix, n_new, first, write, same, other, disk, restore[1], restore[2], restore[3],
           kept[0], kept[1], kept[2], kept[3]);
    mf_session_close(&a);
    mf_engine_close(&engine);
    free(ids);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 10 && strcmp(argv[1], "streams") == 0)
        return streams(argv);
    if (argc == 8 && strcmp(argv[1], "resend") == 0)
        return resend(argv);
    fprintf(stderr, "usage: see the head of tools/sessbench.c\n");
    return 2;
}
