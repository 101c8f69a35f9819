/* `moeflux bench`: tokens a second of prompts and of decoding, in the form of llama-bench, beside
 * what the memory could deliver at best. Random tokens go through mf_session_eval, as llama-bench
 * does it: what is measured is the model, not the sampler. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/pool.h"
#include "base/rng.h"
#include "bench_ops.h"
#include "cli.h"
#include "output.h"
#include "signals.h"

#define CEILING_BYTES  ((size_t)256 << 20)
#define CEILING_SWEEPS 12

typedef struct test {
    uint32_t n_prompt, n_gen;
    uint64_t ns[CLI_MAX_REPETITIONS];
    uint32_t n_runs;
    mf_stats stats;    /* of the measured runs */
    cli_bench_ops ops; /* of them */
} test;

typedef struct job {
    const cli_args *args;
    mf_engine *engine;
    mf_session *session;
    cli_progress progress;
    mf_model_info info;
    int32_t *ids;   /* [the longer of both] */
    double ceiling; /* bytes a second */
    test tests[2];
    uint32_t n_tests;
} job;

/* ---- what memory delivers ---- */

static void read_part(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const uint64_t *words = ctx;
    const size_t part = CEILING_BYTES / n_workers / 128 * 16; /* in words */
    uint64_t sum[16] = {0};
    words += worker * part;
    for (size_t i = 0; i < part; i += 16)
        for (int k = 0; k < 16; k++)
            sum[k] ^= words[i + (size_t)k];
    for (int k = 0; k < 16; k++)
        __asm__ volatile("" ::"r"(sum[k])); /* or it would not be read */
}

/* The best of some sweeps over more than the caches hold, with as many threads as compute. */
static int measure_ceiling(job *j, uint32_t n_threads)
{
    mf_error err = {0};
    mfi_pool *pool = NULL;
    char *mem = malloc(CEILING_BYTES);
    if (!mem)
        return cli_error(CLI_EXIT_ROOM, "no memory to measure reading with");
    memset(mem, 1, CEILING_BYTES);
    mf_status status = mfi_pool_open(&pool, n_threads, &err);
    for (int i = 0; status == MF_OK && i < CEILING_SWEEPS; i++) {
        uint64_t start = mfi_clock_ns();
        mfi_pool_run(pool, read_part, mem);
        double rate = (double)CEILING_BYTES * 1e9 / (double)(mfi_clock_ns() - start);
        j->ceiling = MFI_MAX(j->ceiling, rate);
    }
    mfi_pool_close(&pool);
    free(mem);
    return cli_report(status, &err, CLI_OPENING);
}

/* ---- runs ---- */

/* Evaluates the test's tokens once: a prompt as a whole, then answers one by one. */
static int run_once(job *j, const test *t, uint64_t *ns)
{
    mf_error err = {0};
    mf_status status = MF_OK;
    mf_session_reset(j->session);
    const uint64_t start = mfi_clock_ns();
    if (t->n_prompt)
        status = mf_session_eval(j->session, j->ids, t->n_prompt, NULL, &err);
    for (uint32_t i = 0; status == MF_OK && i < t->n_gen; i++) {
        if (cli_signal_code())
            return cli_signal_code();
        status = mf_session_eval(j->session, j->ids + i, 1, NULL, &err);
    }
    *ns = mfi_clock_ns() - start;
    cli_progress_clear(&j->progress);
    return cli_report(status, &err, CLI_RUNNING);
}

static int run_test(job *j, test *t)
{
    uint64_t ns;
    int code = run_once(j, t, &ns); /* brings the experts in, and the clocks up */
    mf_engine_stats_reset(j->engine);
    for (t->n_runs = 0; !code && t->n_runs < (uint32_t)j->args->repetitions; t->n_runs++)
        code = run_once(j, t, &t->ns[t->n_runs]);
    t->stats.struct_size = sizeof t->stats;
    mf_engine_stats(j->engine, &t->stats);
    t->ops.n = mf_engine_op_times(j->engine, t->ops.op, CLI_BENCH_OPS);
    if (t->ops.n > CLI_BENCH_OPS)
        return cli_error(CLI_EXIT_RUNTIME, "more than %d kinds of ops", CLI_BENCH_OPS);
    t->ops.stall_ns = t->stats.stall_ns;
    t->ops.n_tokens = (uint64_t)(t->n_prompt + t->n_gen) * t->n_runs;
    for (uint32_t i = 0; i < t->n_runs; i++)
        t->ops.total_ns += t->ns[i];
    return code;
}

static int prepare(job *j)
{
    const uint32_t most = (uint32_t)MFI_MAX(j->args->n_prompt, j->args->n_gen);
    mf_error err = {0};
    mfi_rng rng = {1};
    j->info.struct_size = sizeof j->info;
    mf_engine_info(j->engine, &j->info);
    j->ids = malloc(most * sizeof *j->ids);
    if (!j->ids)
        return cli_error(CLI_EXIT_ROOM, "out of memory");
    for (uint32_t i = 0; i < most; i++)
        j->ids[i] = (int32_t)mfi_rng_below(&rng, j->info.n_vocab);
    if (j->args->n_prompt)
        j->tests[j->n_tests++].n_prompt = (uint32_t)j->args->n_prompt;
    if (j->args->n_gen)
        j->tests[j->n_tests++].n_gen = (uint32_t)j->args->n_gen;
    mf_status status = mf_session_open(&j->session, j->engine, &err);
    if (status == MF_OK && j->args->ops)
        status = mf_engine_time_ops(j->engine, true, &err);
    return cli_report(status, &err, CLI_OPENING);
}

/* ---- reports ---- */

static const char *name_of(const test *t, char name[16])
{
    const uint32_t n = t->n_prompt ? t->n_prompt : t->n_gen;
    mfi_buf text = {0};
    mfi_buf_fmt(&text, "%s%u", t->n_prompt ? "pp" : "tg", n);
    memcpy(name, text.data ? text.data : "", MFI_MIN(text.len + 1, 15u));
    name[15] = 0;
    mfi_buf_free(&text);
    return name;
}

/* The ops of a test, ready to be shown. */
static const cli_bench_ops *ops_of(const job *j, test *t, char name[16])
{
    t->ops.ceiling = j->ceiling;
    t->ops.test = name_of(t, name);
    return &t->ops;
}

typedef struct figures {
    double ns, ns_dev, ts, ts_dev; /* means and sample deviations */
    double gb_s;                   /* weights that decoding went through; 0 for a prompt */
} figures;

static figures figures_of(const job *j, const test *t)
{
    figures f = {0};
    const double n = t->n_runs, tokens = t->n_prompt + t->n_gen;
    for (uint32_t i = 0; i < t->n_runs; i++) {
        f.ns += (double)t->ns[i] / n;
        f.ts += tokens * 1e9 / (double)t->ns[i] / n;
    }
    for (uint32_t i = 0; i < t->n_runs && n > 1; i++) {
        const double ts = tokens * 1e9 / (double)t->ns[i];
        f.ns_dev += ((double)t->ns[i] - f.ns) * ((double)t->ns[i] - f.ns) / (n - 1);
        f.ts_dev += (ts - f.ts) * (ts - f.ts) / (n - 1);
    }
    f.ns_dev = sqrt(f.ns_dev);
    f.ts_dev = sqrt(f.ts_dev);
    if (t->n_gen)
        f.gb_s = f.ts * (double)j->info.token_bytes * 1e-9;
    return f;
}

/* "CPU", or the device's kind in capitals, as llama-bench has it. */
static const char *backend_of(const job *j, char name[16])
{
    snprintf(name, 16, "%s", j->info.device[0] ? j->info.isa : "cpu");
    for (char *p = name; *p; p++)
        if (*p >= 'a' && *p <= 'z')
            *p = (char)(*p - 'a' + 'A');
    return name;
}

static void put_markdown(job *j, mfi_buf *out)
{
    char name[16], backend[16];
    bool cpu = !j->info.device[0];
    mfi_buf_str(out, "| model | size | backend | threads | test | t/s | GB/s | of ");
    mfi_buf_fmt(out, j->ceiling > 0 ? "%.1f |\n" : "- |\n", j->ceiling * 1e-9);
    mfi_buf_str(out, "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |\n");
    for (uint32_t i = 0; i < j->n_tests; i++) {
        const figures f = figures_of(j, &j->tests[i]);
        mfi_buf_fmt(out, "| %s %s | %.2f GiB | %s %s%s | %u | %s | %.2f ± %.2f | ", j->info.family,
                    j->info.weights, (double)j->info.weight_bytes / 0x1p30, backend_of(j, backend),
                    cpu ? j->info.isa : j->info.device,
                    cpu && !j->info.isa_verified ? ", unverified" : "", j->info.n_threads,
                    name_of(&j->tests[i], name), f.ts, f.ts_dev);
        if (f.gb_s > 0 && j->ceiling > 0)
            mfi_buf_fmt(out, "%.2f | %.0f %% |\n", f.gb_s, 100e9 * f.gb_s / j->ceiling);
        else if (f.gb_s > 0)
            mfi_buf_fmt(out, "%.2f | - |\n", f.gb_s);
        else
            mfi_buf_str(out, "- | - |\n");
    }
    for (uint32_t i = 0; j->args->ops && i < j->n_tests; i++)
        cli_bench_ops_markdown(ops_of(j, &j->tests[i], name), out);
}

static void put_json_test(const job *j, test *t, mfi_buf *out)
{
    char name[16], backend[16];
    const figures f = figures_of(j, t);
    mfi_buf_str(out, "  {\"model_filename\": ");
    mfi_json_put_str(out, j->args->model, strlen(j->args->model));
    mfi_buf_fmt(out, ", \"model_type\": \"%s %s\", \"model_size\": %llu, ", j->info.family,
                j->info.weights, (unsigned long long)j->info.weight_bytes);
    mfi_buf_fmt(out,
                "\"backends\": \"%s\", \"isa\": \"%s\", \"isa_verified\": %s, "
                "\"activations\": \"%s\", \"type_k\": \"%s\", \"type_v\": \"%s\", "
                "\"n_batch\": %u, \"n_ubatch\": %u, \"n_threads\": %u, ",
                backend_of(j, backend), j->info.isa, j->info.isa_verified ? "true" : "false",
                j->info.activations, j->info.cache_type_k, j->info.cache_type_v, j->info.chunk,
                j->info.chunk, j->info.n_threads);
    mfi_buf_fmt(out,
                "\"n_prompt\": %u, \"n_gen\": %u, \"n_depth\": 0, \"avg_ns\": %.0f, "
                "\"stddev_ns\": %.0f, \"avg_ts\": %.6f, \"stddev_ts\": %.6f, ",
                t->n_prompt, t->n_gen, f.ns, f.ns_dev, f.ts, f.ts_dev);
    mfi_buf_fmt(out, "\"token_bytes\": %llu, \"gb_s\": %.3f, \"ceiling_gb_s\": ",
                (unsigned long long)j->info.token_bytes, f.gb_s);
    mfi_buf_fmt(out, j->ceiling > 0 ? "%.3f" : "null", j->ceiling * 1e-9);
    mfi_buf_fmt(out, ", \"expert_bytes_read\": %llu, \"stall_ns\": %llu, ",
                (unsigned long long)t->stats.expert_bytes_read,
                (unsigned long long)t->stats.stall_ns);
    mfi_buf_str(out, "\"samples_ns\": [");
    for (uint32_t i = 0; i < t->n_runs; i++)
        mfi_buf_fmt(out, "%s%llu", i ? ", " : "", (unsigned long long)t->ns[i]);
    mfi_buf_str(out, "], \"samples_ts\": [");
    for (uint32_t i = 0; i < t->n_runs; i++)
        mfi_buf_fmt(out, "%s%.6f", i ? ", " : "",
                    (t->n_prompt + t->n_gen) * 1e9 / (double)t->ns[i]);
    mfi_buf_str(out, "]");
    if (j->args->ops)
        cli_bench_ops_json(ops_of(j, t, name), out);
    mfi_buf_str(out, "}");
}

static void put_json(job *j, mfi_buf *out)
{
    mfi_buf_str(out, "[\n");
    for (uint32_t i = 0; i < j->n_tests; i++) {
        put_json_test(j, &j->tests[i], out);
        mfi_buf_str(out, i + 1 < j->n_tests ? ",\n" : "\n]\n");
    }
}

static void put_csv(job *j, mfi_buf *out)
{
    char name[16];
    mfi_buf_str(out, "model_type,model_size,isa,activations,n_threads,n_prompt,n_gen,avg_ns,"
                     "stddev_ns,avg_ts,stddev_ts,token_bytes,gb_s,ceiling_gb_s\n");
    for (uint32_t i = 0; i < j->n_tests; i++) {
        const test *t = &j->tests[i];
        const figures f = figures_of(j, t);
        mfi_buf_fmt(out, "\"%s %s\",%llu,%s,%s,%u,%u,%u,%.0f,%.0f,%.6f,%.6f,%llu,%.3f,%.3f\n",
                    j->info.family, j->info.weights, (unsigned long long)j->info.weight_bytes,
                    j->info.isa, j->info.activations, j->info.n_threads, t->n_prompt, t->n_gen,
                    f.ns, f.ns_dev, f.ts, f.ts_dev, (unsigned long long)j->info.token_bytes, f.gb_s,
                    j->ceiling * 1e-9);
    }
    if (j->args->ops)
        cli_bench_ops_csv_head(out);
    for (uint32_t i = 0; j->args->ops && i < j->n_tests; i++)
        cli_bench_ops_csv(ops_of(j, &j->tests[i], name), out);
}

static int report(job *j)
{
    mfi_buf out = {0};
    const char *form = j->args->form ? j->args->form : "md";
    if (strcmp(form, "json") == 0)
        put_json(j, &out);
    else if (strcmp(form, "csv") == 0)
        put_csv(j, &out);
    else
        put_markdown(j, &out);
    int code = cli_print(&out);
    mfi_buf_free(&out);
    return code;
}

int cli_bench(const cli_args *args)
{
    job j = {.args = args};
    if (!args->n_prompt && !args->n_gen)
        return cli_usage_error("--n-prompt 0 and --n-gen 0 leave nothing to measure");
    cli_progress_init(&j.progress, args->no_progress);
    const uint32_t ctx = (uint32_t)MFI_MAX(args->n_prompt, args->n_gen);
    int code = cli_engine_open(args, ctx, &j.progress, &j.engine);
    if (!code)
        code = prepare(&j);
    for (uint32_t i = 0; !code && i < j.n_tests; i++)
        code = run_test(&j, &j.tests[i]);
    mf_session_close(&j.session);
    code = cli_engine_close(&j.engine, code);
    if (!code && !j.info.device[0]) /* a device's memory isn't what these threads read */
        code = measure_ceiling(&j, j.info.n_threads);
    if (!code)
        code = report(&j);
    free(j.ids);
    return code;
}
