/* What bounds decoding: products with one token beside reading alone.
 *
 *   decodebench calls TYPE ROWS COLS POOL_MIB ROUNDS THREADS
 *   decodebench tokens MODEL TOKENS ROUNDS [THREADS]
 *
 * `calls`: matrices of one type (TYPE:16 for activations of 16 bits) in a pool of huge pages, in
 * random order, each cut into the threads' ranges as the backend does it, all threads starting
 * together: by loads alone, by loads behind fetches as far ahead as the kernels' (to the
 * second-level cache, a panel of 16 rows), by loads in the kernels' own order behind such fetches
 * (256 columns of 16 rows, row after row, then the next 256), by the kernels, and by the kernels on
 * one matrix that stays in the caches. Of every call the slowest thread's time counts, and
 * quartiles of calls are printed: a call takes some ten microseconds, so that what preempts it
 * spoils only a few.
 *
 * `tokens`: one token after another by the kernels, and by kernels that only read: the same rows of
 * the same weights, op after op, with the same threads and barriers, and loads and nothing else
 * where a product with quantised weights would be; outputs are numbers made of what was read, so
 * that routing stays as uneven as it is with random weights. The rest, products with float weights
 * and attention too, is computed in both. Rounds of both take turns in one process, on the same
 * memory, with sweeps over a buffer of 256 MiB between them: `moeflux bench` calls the best of
 * those the ceiling.
 *
 * Both print one JSON object. The linker puts this file's mfi_kernels_get and mfi_pool_run in the
 * place of the engine's (--wrap). */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/clock.h"
#include "base/pool.h"
#include "base/rng.h"
#include "kernels/kernels.h"
#include "kernels/unroll.h"
#include "moeflux/moeflux.h"
#include "os/vmem.h"
#include "quant/int_form.h"

#define SWEEP_BYTES ((size_t)256 << 20)
#define ROUNDS_MAX  64
#define PANEL_ROWS  16
#define PANEL_COLS  256
#define SHORT_COLS  768 /* up to here the kernels fetch two panels ahead */

const mfi_kernels *__real_mfi_kernels_get(mfi_isa isa);
const mfi_kernels *__wrap_mfi_kernels_get(mfi_isa isa);
void __real_mfi_pool_run(mfi_pool *pool, mfi_pool_fn fn, void *ctx);
void __wrap_mfi_pool_run(mfi_pool *pool, mfi_pool_fn fn, void *ctx);

/* Of the process: kernels take no context. Written between tokens only. */
static bool only_read;
static bool wide; /* AVX-512 is there; asking each time would be a trap in a virtual machine */
static uint64_t n_runs; /* of the pool */
static const mfi_kernels *real;
static mfi_kernels table;

static void check(mf_status status, const mf_error *err)
{
    if (status == MF_OK)
        return;
    fprintf(stderr, "decodebench: %s\n", err->message);
    exit(1);
}

static void *take(size_t bytes)
{
    void *p = calloc(1, bytes);
    if (!p) {
        perror("decodebench");
        exit(1);
    }
    return p;
}

/* ---- reading ---- */

/* Loads, and `ahead` bytes before them fetches to the second-level cache; 0: none. */
#if defined(__x86_64__)
__attribute__((target("avx512f"))) static uint64_t read_avx512(const char *p, size_t n,
                                                               size_t ahead)
{
    __m512i sum[8];
    for (int k = 0; k < 8; k++)
        sum[k] = _mm512_setzero_si512();
    for (size_t i = 0; i + 512 <= n && !ahead; i += 512) {
        MFI_UNROLL(8)
        for (int k = 0; k < 8; k++)
            sum[k] = _mm512_xor_si512(sum[k], _mm512_loadu_si512(p + i + 64 * k));
    }
    for (size_t i = 0; i + 512 <= n && ahead; i += 512) {
        MFI_UNROLL(8)
        for (int k = 0; k < 8; k++) {
            __builtin_prefetch(p + i + ahead + 64 * k, 0, 2);
            sum[k] = _mm512_xor_si512(sum[k], _mm512_loadu_si512(p + i + 64 * k));
        }
    }
    for (int k = 1; k < 8; k++)
        sum[0] = _mm512_xor_si512(sum[0], sum[k]);
    return (uint64_t)_mm512_reduce_or_epi64(sum[0]);
}
#endif

/* The rows' first, second ... `step` bytes, 16 rows at a time; meanwhile the 16 that begin `ahead`
 * bytes further are fetched. */
static inline __attribute__((always_inline)) uint64_t panels(const char *p, size_t n_rows,
                                                             size_t row_bytes, size_t step,
                                                             size_t ahead)
{
    uint64_t sum[8] = {0}, word[8];
    const char *fetched = p + ahead, *upto = fetched;
    for (size_t i = 0; i + PANEL_ROWS <= n_rows; i += PANEL_ROWS)
        for (size_t c = 0; c < row_bytes; c += step)
            for (size_t r = 0; r < PANEL_ROWS; r++) {
                const char *from = p + (i + r) * row_bytes + c;
                for (upto += step; fetched < upto; fetched += 64)
                    __builtin_prefetch(fetched, 0, 2);
                for (size_t k = 0; k < step; k += sizeof word) {
                    memcpy(word, from + MFI_MIN(k, step - sizeof word), sizeof word);
                    for (int j = 0; j < 8; j++)
                        sum[j] ^= word[j];
                }
            }
    for (int j = 1; j < 8; j++)
        sum[0] ^= sum[j];
    return sum[0];
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static uint64_t panels_avx512(const char *p, size_t n_rows,
                                                                 size_t row_bytes, size_t step,
                                                                 size_t ahead)
{
    return panels(p, n_rows, row_bytes, step, ahead);
}
#endif

static uint64_t read_panels(const char *p, size_t n_rows, size_t row_bytes, uint32_t cols)
{
    const size_t step = row_bytes * PANEL_COLS / cols;
    const size_t ahead = PANEL_ROWS * row_bytes * (cols <= SHORT_COLS ? 2 : 1);
#if defined(__x86_64__)
    if (wide)
        return panels_avx512(p, n_rows, row_bytes, step, ahead);
#endif
    return panels(p, n_rows, row_bytes, step, ahead);
}

static uint64_t read_plain(const char *p, size_t n, size_t ahead)
{
    uint64_t sum[16] = {0}, word[16];
    for (size_t i = 0; i + sizeof word <= n; i += sizeof word) {
        for (size_t k = 0; ahead && k < sizeof word; k += 64)
            __builtin_prefetch(p + i + ahead + k, 0, 2);
        memcpy(word, p + i, sizeof word);
        for (int k = 0; k < 16; k++)
            sum[k] += word[k];
    }
    for (int k = 1; k < 16; k++)
        sum[0] += sum[k];
    return sum[0];
}

static uint64_t read_bytes(const char *p, size_t n, size_t ahead)
{
#if defined(__x86_64__)
    if (wide)
        return read_avx512(p, n, ahead);
#endif
    return read_plain(p, n, ahead);
}

/* The rows' bytes in the order of addresses; every output is a number in [-1, 1). */
static void read_rows(const mfi_mat *w, float *y, uint32_t row0, uint32_t row1)
{
    uint64_t sum = 0;
    for (uint32_t p = 0; p < mfi_quant_n_planes(w->type); p++) {
        const size_t bytes = mfi_quant_row_bytes(w->type, p, w->cols);
        const uint32_t per = mfi_quant_rows_per_row(w->type, p);
        const size_t begin = row0 / per * bytes, end = (row1 + per - 1) / per * bytes;
        sum ^= read_bytes((const char *)w->planes[p] + begin, end - begin, 0);
    }
    const uint32_t seed = (uint32_t)(sum ^ sum >> 32);
    for (uint32_t r = row0; r < row1; r++) /* cheap: it is no part of reading */
        y[r] = (float)(int32_t)((seed + r) * 2654435761u) * 0x1p-31f;
}

static void matmul_q8(const mfi_mat *w, const mfi_q8 *x, uint32_t n_tok, float *y, size_t ldy,
                      uint32_t row0, uint32_t row1)
{
    if (only_read && n_tok == 1)
        read_rows(w, y, row0, row1);
    else
        real->matmul_q8(w, x, n_tok, y, ldy, row0, row1);
}

const mfi_kernels *__wrap_mfi_kernels_get(mfi_isa isa)
{
    real = __real_mfi_kernels_get(isa);
    table = *real;
    table.matmul_q8 = matmul_q8;
    return &table;
}

void __wrap_mfi_pool_run(mfi_pool *pool, mfi_pool_fn fn, void *ctx)
{
    n_runs++;
    __real_mfi_pool_run(pool, fn, ctx);
}

static void sweep_part(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const size_t part = SWEEP_BYTES / n_workers / 512 * 512;
    volatile uint64_t sum = read_bytes((const char *)ctx + worker * part, part, 0);
    (void)sum;
}

/* ---- calls ---- */

#define THREADS_MAX 64
#define CALLS       200 /* of one way of reading, before the next has its turn */
typedef enum way { LOADS, FETCHED, PANELS, KERNELS, CACHED, N_WAYS } way;

typedef struct calls {
    mfi_qtype type;
    uint32_t rows, cols, n_threads, n_rounds, n_mats;
    bool fine;      /* activations of 16 bits */
    uint64_t bytes; /* of a matrix */
    const mfi_kernels *k;
    mfi_vmem pool;
    mfi_q8 x;
    float *y;
    uint64_t *ns; /* [N_WAYS][n_rounds * CALLS][n_threads] */
    atomic_uint n_ready;
} calls;

typedef struct caller {
    calls *c;
    uint32_t index;
    pthread_t thread;
} caller;

static mfi_mat matrix(const calls *c, uint64_t index)
{
    mfi_mat w = {.type = c->type, .rows = c->rows, .cols = c->cols};
    const char *at = (const char *)c->pool.base + index * c->bytes;
    for (uint32_t p = 0; p < mfi_quant_n_planes(c->type); p++) {
        w.planes[p] = at;
        at += mfi_quant_plane_bytes(c->type, p, c->rows, c->cols);
    }
    return w;
}

/* The ranges of all planes, by loads, by loads with fetches a panel ahead, or the first plane by
 * panels (of MLX's types and MXFP4's the others are an eighth of it). */
static void load_range(const calls *c, const mfi_mat *w, uint32_t row0, uint32_t row1, way how)
{
    for (uint32_t p = 0; p < mfi_quant_n_planes(c->type); p++) {
        const size_t bytes = mfi_quant_row_bytes(c->type, p, c->cols);
        const uint32_t per = mfi_quant_rows_per_row(c->type, p);
        const char *from = (const char *)w->planes[p] + row0 / per * bytes;
        const size_t n = (row1 + per - 1) / per * bytes - row0 / per * bytes;
        volatile uint64_t sum;
        if (how == PANELS && p == 0)
            sum = read_panels(from, row1 - row0, bytes, c->cols);
        else
            sum = read_bytes(from, n, how == LOADS ? 0 : PANEL_ROWS / per * bytes);
        (void)sum;
    }
}

static void call(const calls *c, way how, uint64_t index, uint64_t then, uint32_t worker)
{
    uint32_t row0, row1;
    mfi_mat w = matrix(c, how == CACHED ? 0 : index), next = matrix(c, how == CACHED ? 0 : then);
    mfi_pool_range(c->rows, PANEL_ROWS, worker, c->n_threads, &row0, &row1);
    w.next = &next;
    w.next_row = row0;
    if (row0 == row1)
        return;
    if (how == LOADS || how == FETCHED || how == PANELS)
        load_range(c, &w, row0, row1, how);
    else
        c->k->matmul_q8(&w, &c->x, 1, c->y, c->rows, row0, row1);
}

static void *call_all(void *arg)
{
    const caller *me = arg;
    calls *c = me->c;
    mfi_rng rng = {5}; /* the same matrices in every thread */
    uint64_t then = mfi_rng_below(&rng, c->n_mats);
    unsigned all = 0;
    for (uint32_t round = 0; round < c->n_rounds; round++)
        for (uint32_t how = 0; how < N_WAYS; how++)
            for (uint32_t i = 0; i < CALLS; i++) {
                const uint64_t index = then;
                then = mfi_rng_below(&rng, c->n_mats);
                all += c->n_threads;
                atomic_fetch_add(&c->n_ready, 1);
                while ((int)(atomic_load(&c->n_ready) - all) < 0)
                    ;
                const uint64_t start = mfi_clock_ns();
                call(c, (way)how, index, then, me->index);
                const size_t at = ((size_t)how * c->n_rounds + round) * CALLS + i;
                c->ns[at * c->n_threads + me->index] = mfi_clock_ns() - start;
            }
    return NULL;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* GB/s of the fastest quarter, the middle, and the slowest quarter of the calls. */
static void put_calls(const calls *c, const char *name, way how)
{
    const size_t n = (size_t)c->n_rounds * CALLS;
    double *rate = take(n * sizeof *rate);
    for (size_t i = 0; i < n; i++) {
        uint64_t ns = 1;
        for (uint32_t t = 0; t < c->n_threads; t++)
            ns = MFI_MAX(ns, c->ns[(how * n + i) * c->n_threads + t]);
        rate[i] = (double)c->bytes / (double)ns;
    }
    qsort(rate, n, sizeof *rate, by_value);
    printf(", \"%s\": [%.2f, %.2f, %.2f]", name, rate[n - 1 - n / 4], rate[n / 2], rate[n / 4]);
    free(rate);
}

/* Any bytes are weights, but halves that are not numbers cost time that real ones don't. */
static void fill_pool(calls *c)
{
    uint8_t *p = c->pool.base;
    for (size_t i = 0; i < c->pool.committed; i++)
        p[i] = (uint8_t)(i * 31 >> 5 & 0x2b);
}

static void quantize_input(calls *c)
{
    mfi_rng rng = {9};
    float *x = take(c->cols * sizeof *x);
    for (uint32_t i = 0; i < c->cols; i++)
        x[i] = (float)mfi_rng_unit(&rng) - 0.5f;
    c->x = (mfi_q8){.q = take(c->cols),
                    .d = take(c->cols / MFI_Q8_BLOCK * sizeof(float)),
                    .s = take(c->cols / MFI_Q8_BLOCK * sizeof(float)),
                    .h = take(c->cols / MFI_Q8_HALF * sizeof(int16_t))};
    if (c->fine) { /* 16 bits */
        c->x.lo = take(c->cols);
        c->x.d_fine = take(c->cols / MFI_Q8_BLOCK * sizeof(float));
        c->x.s_fine = take(c->cols / MFI_Q8_BLOCK * sizeof(float));
        c->x.h_lo = take(c->cols / MFI_Q8_HALF * sizeof(int16_t));
    }
    c->k->quantize_q8(x, c->cols, &c->x);
    free(x);
}

static bool type_named(const char *name, mfi_qtype *type)
{
    static const struct {
        const char *name;
        mfi_qtype type;
    } types[] = {{"q4_k", {.kind = MFI_Q_GGML, .bits = 12}},
                 {"q8_0", {.kind = MFI_Q_GGML, .bits = 8}},
                 {"mxfp4", {.kind = MFI_Q_GGML, .bits = 39}},
                 {"mxfp4_planes", {.kind = MFI_Q_MXFP4, .bits = 4}},
                 {"mlx4", {MFI_Q_MLX, 4, MFI_Q_BF16, 64}},
                 {"mlx4_f16", {MFI_Q_MLX, 4, MFI_Q_F16, 64}},
                 {"mlx4_32", {MFI_Q_MLX, 4, MFI_Q_BF16, 32}}};
    for (size_t i = 0; i < MFI_ARRAY_LEN(types); i++)
        if (strcspn(name, ":") == strlen(types[i].name) &&
            strncmp(name, types[i].name, strlen(types[i].name)) == 0) {
            *type = types[i].type;
            return true;
        }
    return false;
}

static int run_calls(char **argv)
{
    static calls c;
    static caller callers[THREADS_MAX];
    mf_error err = {0};
    const size_t pool = strtoul(argv[5], NULL, 10) * MFI_MIB;
    c.rows = (uint32_t)strtoul(argv[3], NULL, 10);
    c.cols = (uint32_t)strtoul(argv[4], NULL, 10);
    c.n_rounds = (uint32_t)strtoul(argv[6], NULL, 10);
    c.n_threads = (uint32_t)strtoul(argv[7], NULL, 10);
    c.fine = strchr(argv[2], ':') != NULL;
    if (!type_named(argv[2], &c.type) || c.rows == 0 || c.cols == 0 || c.cols % 256 ||
        !c.n_rounds || !c.n_threads || c.n_threads > THREADS_MAX)
        return 2;
    for (uint32_t p = 0; p < mfi_quant_n_planes(c.type); p++)
        c.bytes += mfi_quant_plane_bytes(c.type, p, c.rows, c.cols);
    c.n_mats = (uint32_t)(pool / c.bytes);
    if (c.n_mats == 0)
        return 2;
    c.k = __real_mfi_kernels_get(mfi_cpu_isa());
    check(mfi_vmem_alloc(&c.pool, pool, &err), &err);
    fill_pool(&c);
    quantize_input(&c);
    c.y = take(c.rows * sizeof *c.y);
    c.ns = take(sizeof *c.ns * N_WAYS * c.n_rounds * CALLS * c.n_threads);
    for (uint32_t i = 0; i < c.n_threads; i++) {
        callers[i] = (caller){.c = &c, .index = i};
        if (i && pthread_create(&callers[i].thread, NULL, call_all, &callers[i]) != 0)
            check(mfi_fail(&err, MF_ERR_NO_MEMORY, "no thread"), &err);
    }
    call_all(&callers[0]);
    for (uint32_t i = 1; i < c.n_threads; i++)
        pthread_join(callers[i].thread, NULL);
    printf("{\"type\": \"%s\", \"rows\": %u, \"cols\": %u, \"threads\": %u, \"calls\": %u", argv[2],
           c.rows, c.cols, c.n_threads, c.n_rounds * CALLS);
    put_calls(&c, "loads_gb_s", LOADS);
    put_calls(&c, "fetched_gb_s", FETCHED);
    put_calls(&c, "panels_gb_s", PANELS);
    put_calls(&c, "kernels_gb_s", KERNELS);
    put_calls(&c, "cached_gb_s", CACHED);
    printf("}\n");
    return 0; /* what is left goes with the process */
}

/* ---- tokens ---- */

typedef struct bench {
    mf_engine *engine;
    mf_session *session;
    mfi_pool *workers;
    char *sweep;
    int32_t *ids;
    uint32_t n_tokens;
} bench;

/* Milliseconds a token. */
static double decode(bench *b, bool reads)
{
    mf_error err = {0};
    only_read = reads;
    mf_session_reset(b->session);
    uint64_t start = mfi_clock_ns();
    for (uint32_t i = 0; i < b->n_tokens; i++)
        check(mf_session_eval(b->session, b->ids + i, 1, NULL, &err), &err);
    double ms = (double)(mfi_clock_ns() - start) * 1e-6 / b->n_tokens;
    only_read = false;
    return ms;
}

/* GB/s, the best of some. */
static double sweep(const bench *b)
{
    double best = 0;
    for (int i = 0; i < 6; i++) {
        uint64_t start = mfi_clock_ns();
        mfi_pool_run(b->workers, sweep_part, b->sweep);
        double rate = (double)SWEEP_BYTES / (double)(mfi_clock_ns() - start);
        best = MFI_MAX(best, rate);
    }
    return best;
}

static void do_nothing(void *ctx, uint32_t worker, uint32_t n_workers)
{
    (void)ctx, (void)worker, (void)n_workers;
}

/* What a token spends on beginning and ending the ops' runs: so many of them do nothing. */
static void put_barriers(bench *b)
{
    enum { N = 20001 };
    static double ns[N];
    n_runs = 0;
    decode(b, false);
    const double runs = (double)n_runs / b->n_tokens;
    for (int i = 0; i < N; i++) {
        const uint64_t start = mfi_clock_ns();
        __real_mfi_pool_run(b->workers, do_nothing, NULL);
        ns[i] = (double)(mfi_clock_ns() - start);
    }
    qsort(ns, N, sizeof *ns, by_value);
    printf(", \"runs_a_token\": %.1f, \"barrier_ns\": [%.0f, %.0f, %.0f], \"barriers_ms\": %.4f",
           runs, ns[N / 4], ns[N / 2], ns[N * 3 / 4], runs * ns[N / 2] * 1e-6);
}

static void open_all(bench *b, const char *model, uint32_t n_threads)
{
    mf_error err = {0};
    mf_engine_options o;
    mf_model_info info = {.struct_size = sizeof info};
    mfi_rng rng = {1};
    mf_engine_options_default(&o);
    o.model_path = model;
    o.ctx = b->n_tokens;
    o.n_threads = n_threads;
    check(mf_engine_open(&b->engine, &o, &err), &err);
    check(mf_session_open(&b->session, b->engine, &err), &err);
    mf_engine_info(b->engine, &info);
    check(mfi_pool_open(&b->workers, info.n_threads, &err), &err);
    b->ids = take(b->n_tokens * sizeof *b->ids);
    b->sweep = take(SWEEP_BYTES);
    memset(b->sweep, 1, SWEEP_BYTES);
    for (uint32_t i = 0; i < b->n_tokens; i++)
        b->ids[i] = (int32_t)mfi_rng_below(&rng, info.n_vocab);
    printf("{\"threads\": %u, \"token_bytes\": %llu", info.n_threads,
           (unsigned long long)info.token_bytes);
}

static void put_list(const char *name, const double *v, uint32_t n)
{
    printf(", \"%s\": [", name);
    for (uint32_t i = 0; i < n; i++)
        printf("%s%.3f", i ? ", " : "", v[i]);
    printf("]");
}

static int run_tokens(int argc, char **argv)
{
    bench b = {0};
    double kernels[ROUNDS_MAX], reads[ROUNDS_MAX], sweeps[ROUNDS_MAX];
    const uint32_t n = (uint32_t)strtoul(argv[4], NULL, 10);
    b.n_tokens = (uint32_t)strtoul(argv[3], NULL, 10);
    if (n == 0 || n > ROUNDS_MAX || b.n_tokens == 0)
        return 2;
    open_all(&b, argv[2], argc > 5 ? (uint32_t)strtoul(argv[5], NULL, 10) : 0);
    decode(&b, false); /* brings the experts in */
    decode(&b, true);
    for (uint32_t i = 0; i < n; i++) {
        sweeps[i] = sweep(&b);
        kernels[i] = decode(&b, false);
        reads[i] = decode(&b, true);
    }
    put_list("kernels_ms", kernels, n);
    put_list("reads_ms", reads, n);
    put_list("sweep_gb_s", sweeps, n);
    put_barriers(&b);
    printf("}\n");
    mfi_pool_close(&b.workers);
    mf_session_close(&b.session);
    mf_engine_close(&b.engine);
    free(b.ids);
    free(b.sweep);
    return 0;
}

int main(int argc, char **argv)
{
    int code = 2;
    wide = mfi_cpu_has(MFI_ISA_AVX512);
    if (argc == 8 && strcmp(argv[1], "calls") == 0)
        code = run_calls(argv);
    else if ((argc == 5 || argc == 6) && strcmp(argv[1], "tokens") == 0)
        code = run_tokens(argc, argv);
    if (code == 2)
        fprintf(stderr, "usage: decodebench calls TYPE ROWS COLS POOL_MIB ROUNDS THREADS\n"
                        "       decodebench tokens MODEL TOKENS ROUNDS [THREADS]\n");
    return code;
}
