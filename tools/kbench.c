/* Kernel speeds: bytes of weights read a second for one token, arithmetic for several, per type and
 * level, beside ceilings that are measured first: what the threads can read, add and multiply at
 * all. Products with one token alternate with plain reads of as many bytes, and the ratio is the
 * median of the pairs, so that it means something on a machine that isn't idle. */
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
#include "os/vmem.h"
#include "quant/int_form.h"

#define MAX_TOK   256
#define MAX_PAIRS 4096

typedef struct bench {
    uint32_t rows, cols, n_threads;
    double seconds;         /* of each measurement */
    size_t pool_bytes;      /* more than the caches, so that weights come from memory */
    const char *type, *isa; /* only names that contain this; only this level */
    bool others;
    mfi_pool *workers;
    mfi_vmem pool;
    float *x, *y; /* [MAX_TOK][cols], [MAX_TOK][rows] */
    mfi_q8 q8;
} bench;

static void *take(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!p) {
        perror("kbench");
        exit(1);
    }
    memset(p, 0, bytes);
    return p;
}

static double seconds_now(void)
{
    return (double)mfi_clock_ns() * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* ---- ceilings ---- */

typedef struct span {
    const char *p;
    size_t bytes;
} span;

#define OPS_ROUNDS 20000

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void read_avx2(const char *p, size_t bytes)
{
    __m256i sum[4] = {0};
    for (size_t i = 0; i < bytes / 128 * 128; i += 128)
        for (int j = 0; j < 4; j++)
            sum[j] = _mm256_xor_si256(sum[j], _mm256_loadu_si256((const __m256i *)(p + i) + j));
    for (int j = 0; j < 4; j++)
        __asm__ volatile("" ::"x"(sum[j])); /* or it would not be read */
}

/* Rounds of ten independent operations. */
__attribute__((target("avx512f,avx512vnni"))) static void ops_avx512(bool integer)
{
    __m512i dot[10];
    __m512 sum[10];
    for (int j = 0; j < 10; j++) {
        dot[j] = _mm512_set1_epi32(j);
        sum[j] = _mm512_set1_ps((float)j);
    }
    for (int i = 0; i < OPS_ROUNDS; i++) {
#pragma GCC unroll 10
        for (int j = 0; j < 10; j++) {
            if (integer)
                dot[j] = _mm512_dpbusd_epi32(dot[j], dot[j], dot[j]);
            else
                sum[j] = _mm512_fmadd_ps(sum[j], sum[j], sum[j]);
        }
    }
    for (int j = 0; j < 10; j++)
        __asm__ volatile("" ::"v"(dot[j]), "v"(sum[j]));
}

__attribute__((target("avx2,fma"))) static void ops_avx2(bool integer)
{
    __m256i dot[10];
    __m256 sum[10];
    for (int j = 0; j < 10; j++) {
        dot[j] = _mm256_set1_epi32(j);
        sum[j] = _mm256_set1_ps((float)j);
    }
    for (int i = 0; i < OPS_ROUNDS; i++) {
#pragma GCC unroll 10
        for (int j = 0; j < 10; j++) {
            if (integer)
                dot[j] = _mm256_maddubs_epi16(dot[j], dot[j]);
            else
                sum[j] = _mm256_fmadd_ps(sum[j], sum[j], sum[j]);
        }
    }
    for (int j = 0; j < 10; j++)
        __asm__ volatile("" ::"x"(dot[j]), "x"(sum[j]));
}
#endif

static void read_plain(const char *bytes, size_t n)
{
    uint64_t sum[8] = {0};
    for (size_t i = 0; i < n / 64; i++)
        for (int j = 0; j < 8; j++)
            sum[j] += ((const uint64_t *)(const void *)bytes)[8 * i + (size_t)j];
    for (int j = 0; j < 8; j++)
        __asm__ volatile("" ::"r"(sum[j]));
}

static void read_part(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const span *s = ctx;
    size_t part = s->bytes / n_workers / 128 * 128;
#if defined(__x86_64__)
    if (mfi_cpu_has(MFI_ISA_AVX2)) {
        read_avx2(s->p + worker * part, part);
        return;
    }
#endif
    read_plain(s->p + worker * part, part);
}

static double time_read(const bench *b, const char *p, size_t bytes)
{
    span s = {p, bytes};
    double start = seconds_now();
    mfi_pool_run(b->workers, read_part, &s);
    return seconds_now() - start;
}

static double read_bandwidth(const bench *b)
{
    double best = 0, end = seconds_now() + 4 * b->seconds;
    while (seconds_now() < end)
        best = MFI_MAX(best, (double)b->pool_bytes / time_read(b, b->pool.base, b->pool_bytes));
    return best;
}

#if defined(__x86_64__)
typedef struct ops_job {
    bool wide, integer;
} ops_job;

static void run_ops(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const ops_job *job = ctx;
    (void)worker, (void)n_workers;
    if (job->wide)
        ops_avx512(job->integer);
    else
        ops_avx2(job->integer);
}

static double ops_rate(const bench *b, bool wide, bool integer)
{
    ops_job job = {wide, integer};
    double best = 1e9, end = seconds_now() + b->seconds;
    do {
        double start = seconds_now();
        mfi_pool_run(b->workers, run_ops, &job);
        best = MFI_MIN(best, seconds_now() - start);
    } while (seconds_now() < end);
    return 2.0 * OPS_ROUNDS * 10 * (wide ? 16 : 8) * (integer ? 4 : 1) * b->n_threads / best;
}
#endif

static void do_nothing(void *ctx, uint32_t worker, uint32_t n_workers)
{
    (void)ctx, (void)worker, (void)n_workers;
}

/* What sharing out an op costs: runs of nothing, the median and the best. */
static void print_barrier(const bench *b)
{
    enum { N = 1001 };
    static double ns[N];
    for (int i = 0; i < N; i++) {
        const uint64_t start = mfi_clock_ns();
        mfi_pool_run(b->workers, do_nothing, NULL);
        ns[i] = (double)(mfi_clock_ns() - start);
    }
    qsort(ns, N, sizeof *ns, by_value);
    printf("\nbarrier of %u threads: %.0f ns, at best %.0f\n", b->n_threads, ns[N / 2], ns[0]);
}

static void print_ceilings(const bench *b)
{
    printf("rows %u, cols %u, threads %u; read %.1f GB/s", b->rows, b->cols, b->n_threads,
           read_bandwidth(b) * 1e-9);
#if defined(__x86_64__)
    if (mfi_cpu_has(MFI_ISA_AVX512))
        printf("; avx512: fma %.0f GFLOP/s, vnni %.0f GOP/s", ops_rate(b, true, false) * 1e-9,
               ops_rate(b, true, true) * 1e-9);
    if (mfi_cpu_has(MFI_ISA_AVX2))
        printf("; avx2: fma %.0f GFLOP/s, maddubs %.0f GOP/s", ops_rate(b, false, false) * 1e-9,
               ops_rate(b, false, true) * 1e-9);
#endif
    printf("\n");
}

/* ---- products ---- */

static uint64_t matrix_bytes(const bench *b, mfi_qtype type)
{
    uint64_t bytes = 0;
    for (uint32_t p = 0; p < mfi_quant_n_planes(type); p++)
        bytes += mfi_quant_plane_bytes(type, p, b->rows, b->cols);
    return bytes;
}

/* A matrix at a changing place of the pool, whose bytes are any weights. */
static mfi_mat matrix_at(const bench *b, mfi_qtype type, uint32_t index)
{
    mfi_mat w = {.type = type, .rows = b->rows, .cols = b->cols};
    uint64_t bytes = matrix_bytes(b, type), n_places = b->pool_bytes / bytes;
    const char *at = (const char *)b->pool.base + index % (n_places ? n_places : 1) * bytes;
    for (uint32_t p = 0; p < mfi_quant_n_planes(type); p++) {
        w.planes[p] = at;
        at += mfi_quant_plane_bytes(type, p, b->rows, b->cols);
    }
    return w;
}

typedef struct product {
    const bench *b;
    const mfi_kernels *k;
    const mfi_mat *w;
    int bits; /* of activations: 0 (floats), 8, 16 */
    uint32_t n_tok;
} product;

static void product_rows(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const product *p = ctx;
    const bench *b = p->b;
    uint32_t begin, end;
    mfi_pool_range(b->rows, 16, worker, n_workers, &begin, &end);
    if (begin == end)
        return;
    mfi_q8 x = b->q8;
    if (p->bits < 16)
        x.lo = NULL;
    if (p->bits)
        p->k->matmul_q8(p->w, &x, p->n_tok, b->y, b->rows, begin, end);
    else
        p->k->matmul_f32(p->w, b->x, b->cols, p->n_tok, b->y, b->rows, begin, end);
}

static double time_once(const bench *b, const mfi_kernels *k, mfi_qtype type, int bits,
                        uint32_t n_tok, uint32_t index)
{
    const mfi_mat w = matrix_at(b, type, index);
    product p = {b, k, &w, bits, n_tok};
    double start = seconds_now();
    mfi_pool_run(b->workers, product_rows, &p);
    return seconds_now() - start;
}

/* Seconds of one product, the best of the tries; weights from memory for each. */
static double time_product(const bench *b, const mfi_kernels *k, mfi_qtype type, int bits,
                           uint32_t n_tok)
{
    double best = 1e9, end = seconds_now() + b->seconds;
    for (uint32_t i = 0; i < 3 || seconds_now() < end; i++)
        best = MFI_MIN(best, time_once(b, k, type, bits, n_tok, i));
    return best;
}

/* Products with one token beside reads of as many bytes: the median of the ratios of their times.
 */
static double read_ratio(const bench *b, const mfi_kernels *k, mfi_qtype type, int bits)
{
    static double ratio[MAX_PAIRS];
    uint32_t n = 0;
    double end = seconds_now() + b->seconds;
    for (uint32_t i = 0; n < 3 || (n < MAX_PAIRS && seconds_now() < end); i += 2) {
        const mfi_mat w = matrix_at(b, type, i + 1);
        double read = time_read(b, w.planes[0], matrix_bytes(b, type));
        ratio[n++] = read / time_once(b, k, type, bits, 1, i);
    }
    qsort(ratio, n, sizeof *ratio, by_value);
    return ratio[n / 2];
}

/* Those whose rows can have this many columns. */
static size_t list_types(uint32_t cols, mfi_qtype types[80])
{
    static const uint8_t bits[] = {2, 3, 4, 5, 6, 8};
    size_t n = 0, kept = 0;
    for (int kind = MFI_Q_F32; kind <= MFI_Q_BF16; kind++)
        types[n++] = mfi_qtype_float((mfi_qkind)kind);
    for (size_t i = 0; i < MFI_ARRAY_LEN(bits); i++)
        types[n++] = (mfi_qtype){MFI_Q_MLX, bits[i], MFI_Q_BF16, 64};
    for (uint8_t number = 0; number < 64; number++)
        if (mfi_ggml_decoder(number))
            types[n++] = (mfi_qtype){.kind = MFI_Q_GGML, .bits = number};
    types[n++] = (mfi_qtype){MFI_Q_FP8, 8, MFI_Q_F32, 0};
    types[n++] = (mfi_qtype){.kind = MFI_Q_MXFP4};
    for (size_t i = 0; i < n; i++)
        if (mfi_quant_cols_ok(types[i], cols))
            types[kept++] = types[i];
    return kept;
}

static void bench_type(const bench *b, mfi_qtype type, const char *name, int bits)
{
    const double flop = 2.0 * b->rows * b->cols;
    double plain = 0;
    for (int isa = 0; isa < MFI_N_ISA; isa++) {
        if (!mfi_cpu_has((mfi_isa)isa) ||
            (b->isa && strcmp(b->isa, mfi_isa_name((mfi_isa)isa)) != 0))
            continue;
        const mfi_kernels *k = mfi_kernels_get((mfi_isa)isa);
        double t1 = time_product(b, k, type, bits, 1), ratio = read_ratio(b, k, type, bits);
        double t8 = time_product(b, k, type, bits, 8), t64 = time_product(b, k, type, bits, 64);
        if (isa == MFI_ISA_C)
            plain = t64;
        printf("%-32s %-8s %-3s %8.2f %6.2f %8.1f %8.1f %8.1f", name, mfi_isa_name(k->isa),
               bits == 16 ? "q16"
               : bits     ? "q8"
                          : "f32",
               (double)matrix_bytes(b, type) / t1 * 1e-9, ratio, flop / t1 * 1e-9,
               8 * flop / t8 * 1e-9, 64 * flop / t64 * 1e-9);
        if (plain > 0)
            printf(" %7.1f", plain / t64);
        printf("\n");
        fflush(stdout);
    }
}

static void bench_products(const bench *b)
{
    mfi_qtype types[80];
    size_t n_types = list_types(b->cols, types);
    printf("%-32s %-8s %-3s %8s %6s %8s %8s %8s %7s\n", "weights", "level", "x", "GB/s 1", "/read",
           "GF/s 1", "GF/s 8", "GF/s 64", "/c 64");
    for (size_t i = 0; i < n_types; i++) {
        char name[64];
        mfi_quant_name(types[i], name, sizeof name);
        mfi_int_form form;
        int most = mfi_qtype_is_float(types[i]) ? 0 : mfi_int_form_of(types[i], &form) ? 16 : 8;
        for (int bits = 0; bits <= most; bits += 8)
            if (!b->type || strstr(name, b->type))
                bench_type(b, types[i], name, bits);
    }
}

/* n_heads heads of n_tok tokens over about 1000 positions of a cache with four such groups; the
 * pool's bytes are values of every type. */
static void attend(const mfi_kernels *k, const bench *b, mfi_qtype type, uint32_t n_tok,
                   uint32_t n_heads, uint32_t dim, uint32_t dim_v)
{
    const size_t head = (size_t)mfi_quant_row_bytes(type, 0, dim);
    const bool latent = dim != dim_v;
    mfi_attn a = {.q = b->x, .out = b->y, .ldq = dim, .ldq_tok = (size_t)n_heads * dim};
    a.ldo = dim_v;
    a.ldo_tok = (size_t)n_heads * dim_v;
    a.n_heads = n_heads;
    a.n_tok = n_tok;
    a.pos = 1000 - n_tok;
    a.k = b->pool.base;
    a.v = (const char *)a.k + (latent ? 0 : 4 * head);
    a.row_bytes = latent ? head : 8 * head;
    a.type_k = a.type_v = type;
    a.dim = dim;
    a.dim_v = dim_v;
    a.scale = 0.1f;
    k->attend(&a);
}

/* The other entries, by number. */
#define N_OTHERS 21
static const char *run_other(const bench *b, const mfi_kernels *k, int which)
{
    static uint16_t ids[8];
    float *p = b->pool.base, *x = b->x, *y = b->y;
    switch (which) {
    case 0:
        k->quantize_q8(x, 2048, &b->q8);
        return "quantize_q8 2048";
    case 1:
        k->rmsnorm(x, x + 2048, 1e-6f, 2048, y);
        return "rmsnorm 2048";
    case 2:
        k->l2norm(x, 1e-6f, 1, 128, y);
        return "l2norm 128";
    case 3:
        k->silu_mul(x, x + 2048, 2048, y);
        return "silu_mul 2048";
    case 4:
        memcpy(y, x, 2048 * sizeof *y); /* else y shrinks to subnormal numbers */
        k->sigmoid_mul(y, x, 2048);
        return "sigmoid_mul 2048";
    case 5:
        k->add(y, x, 2048);
        return "add 2048";
    case 6:
        k->axpy(y, 0.5f, x, 2048);
        return "axpy 2048";
    case 7:
        k->rope_half(y, 64, x, x + 32);
        return "rope_half 64";
    case 8:
        attend(k, b, MFI_KV_Q8_0, 1, 8, 128, 128);
        return "attend 8 x 1000 x 128 q8_0";
    case 9:
        k->conv_silu(p, p + 65536, x, 8192, 4, 0, 8192, y);
        return "conv_silu 8192 x 4";
    case 10:
        k->gdn_step(p, x, x + 128, x + 256, 0.9f, 0.5f, 128, 128, y);
        return "gdn_step 128 x 128";
    case 11:
        k->route(&(mfi_routing){.normalize = true, .scale = 1}, x, NULL, 256, 8, ids, y);
        return "route 8 of 256";
    case 12: /* what latent attention is made of, at DeepSeek-V3's sizes */
        attend(k, b, mfi_qtype_float(MFI_Q_F32), 1, 8, 576, 512);
        return "attend 8 x 1000 x 576";
    case 13:
    case 14:
    case 15: {
        static const mfi_qtype types[] = {
            {MFI_Q_BF16, 16, 0, 0}, {MFI_Q_FP8, 8, MFI_Q_F32, 0}, {MFI_Q_MLX, 4, MFI_Q_BF16, 64}};
        static const char *const names[] = {"matmul_t 128 x 512 bf16", "matmul_t 128 x 512 fp8",
                                            "matmul_t 128 x 512 mlx 4"};
        mfi_mat w = {.type = types[which - 13],
                     .rows = 128,
                     .cols = 512,
                     .planes = {p, p + 65536, p + 131072}};
        k->matmul_t(&w, x, 128, 1, y, 512, 0, 128);
        return names[which - 13];
    }
    case 16:
        attend(k, b, mfi_qtype_float(MFI_Q_F32), 1, 8, 128, 128);
        return "attend 8 x 1000 x 128";
    case 17:
        attend(k, b, mfi_qtype_float(MFI_Q_F16), 1, 8, 128, 128);
        return "attend 8 x 1000 x 128 f16";
    case 18:
        attend(k, b, mfi_qtype_float(MFI_Q_F32), 8, 8, 128, 128);
        return "attend 64 x 1000 x 128";
    case 19:
        attend(k, b, mfi_qtype_float(MFI_Q_F32), 1, 1, 128, 128);
        return "attend 1 x 1000 x 128";
    default: {
        mfi_mat w = {.type = {MFI_Q_MLX, 4, MFI_Q_BF16, 64},
                     .rows = 1,
                     .cols = 2048,
                     .planes = {p, p + 65536, p + 131072}};
        k->get_row(&w, 0, y);
        return "get_row 2048";
    }
    }
}

static void bench_others(const bench *b)
{
    /* Plain small numbers, lest infinities and NaN change the pace. */
    float *p = b->pool.base;
    mfi_rng rng = {1};
    for (size_t i = 0; i < 1 << 20; i++)
        p[i] = (float)(mfi_rng_unit(&rng) - 0.5) * 0.125f;
    printf("\n%-32s", "ns a call");
    for (int isa = 0; isa < MFI_N_ISA; isa++)
        if (mfi_cpu_has((mfi_isa)isa))
            printf(" %9s", mfi_isa_name((mfi_isa)isa));
    for (int which = 0; which < N_OTHERS; which++) {
        const char *name = "";
        for (int isa = 0; isa < MFI_N_ISA; isa++) {
            if (!mfi_cpu_has((mfi_isa)isa))
                continue;
            const mfi_kernels *k = mfi_kernels_get((mfi_isa)isa);
            double best = 1e9, end = seconds_now() + b->seconds;
            while (seconds_now() < end) {
                double start = seconds_now();
                for (int i = 0; i < 16; i++)
                    name = run_other(b, k, which);
                best = MFI_MIN(best, (seconds_now() - start) / 16);
            }
            if (isa == 0)
                printf("\n%-32s", name);
            printf(" %9.0f", best * 1e9);
        }
    }
    printf("\n");
}

static void set_up(bench *b)
{
    /* Bytes 0x3c..0x3f are sane numbers in every float type and codes in all others. */
    mfi_rng rng = {1};
    for (size_t i = 0; i < b->pool_bytes / 8; i++)
        ((uint64_t *)b->pool.base)[i] =
            (mfi_rng_next(&rng) & 0x0303030303030303u) | 0x3c3c3c3c3c3c3c3cu;
    size_t cols = MFI_MAX(b->cols, 8192u), rows = MFI_MAX(b->rows, 8192u);
    b->x = take(sizeof(float) * MAX_TOK * cols);
    b->y = take(sizeof(float) * MAX_TOK * rows);
    b->q8.q = take(MAX_TOK * cols);
    b->q8.d = take(sizeof(float) * MAX_TOK * cols / MFI_Q8_BLOCK);
    b->q8.s = take(sizeof(float) * MAX_TOK * cols / MFI_Q8_BLOCK);
    for (size_t i = 0; i < MAX_TOK * cols; i++)
        b->x[i] = (float)(mfi_rng_unit(&rng) - 0.5);
    b->q8.lo = take(MAX_TOK * cols);
    b->q8.d_fine = take(sizeof(float) * MAX_TOK * cols / MFI_Q8_BLOCK);
    b->q8.s_fine = take(sizeof(float) * MAX_TOK * cols / MFI_Q8_BLOCK);
    b->q8.h_lo = take(sizeof(int16_t) * MAX_TOK * cols / MFI_Q8_HALF);
    b->q8.h = take(sizeof(int16_t) * MAX_TOK * cols / MFI_Q8_HALF);
    mfi_kernels_get(mfi_cpu_isa())->quantize_q8(b->x, MAX_TOK * b->cols, &b->q8);
}

static const char usage[] =
    "usage: kbench [--rows N] [--cols N] [--seconds S] [--pool MIB] [--threads N] [--type NAME]\n"
    "              [--isa LEVEL] [--products]\n";

static bool parse(bench *b, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(name, "--products") == 0) {
            b->others = false;
            continue;
        }
        if (!value)
            return false;
        i++;
        if (strcmp(name, "--rows") == 0)
            b->rows = (uint32_t)strtoul(value, NULL, 10);
        else if (strcmp(name, "--cols") == 0)
            b->cols = (uint32_t)strtoul(value, NULL, 10);
        else if (strcmp(name, "--seconds") == 0)
            b->seconds = strtod(value, NULL);
        else if (strcmp(name, "--pool") == 0)
            b->pool_bytes = strtoul(value, NULL, 10) * MFI_MIB;
        else if (strcmp(name, "--threads") == 0)
            b->n_threads = (uint32_t)strtoul(value, NULL, 10);
        else if (strcmp(name, "--type") == 0)
            b->type = value;
        else if (strcmp(name, "--isa") == 0)
            b->isa = value;
        else
            return false;
    }
    return b->rows > 0 && b->cols >= 128 && b->cols % 128 == 0 && b->pool_bytes >= 8 * MFI_MIB &&
           (uint64_t)b->rows * b->cols * 4 <= b->pool_bytes;
}

/* Levels of this machine, or the others; of each, whether its kernels were ever seen to run. */
static void print_levels(const char *which, bool here)
{
    printf("%s:", which);
    for (int isa = 0; isa < MFI_N_ISA; isa++)
        if (mfi_cpu_has((mfi_isa)isa) == here)
            printf(" %s%s", mfi_isa_name((mfi_isa)isa),
                   mfi_isa_verified((mfi_isa)isa) ? "" : " (unverified)");
    printf("\n");
}

int main(int argc, char **argv)
{
    bench b = {.rows = 2048,
               .cols = 2048,
               .n_threads = 1,
               .seconds = 0.1,
               .pool_bytes = 256 * MFI_MIB,
               .others = true};
    mf_error err;
    if (!parse(&b, argc, argv)) {
        fprintf(stderr,
                "%scols must be a multiple of 128, and the matrix as floats fit the pool of "
                "at least 8 MiB\n",
                usage);
        return 2;
    }
    if (mfi_vmem_alloc(&b.pool, b.pool_bytes, &err) != MF_OK ||
        mfi_pool_open(&b.workers, b.n_threads, &err) != MF_OK) {
        fprintf(stderr, "kbench: %s\n", err.message);
        return 1;
    }
    set_up(&b);
    print_levels("levels here", true);
    print_levels("levels elsewhere", false);
    print_ceilings(&b);
    bench_products(&b);
    if (b.others)
        bench_others(&b);
    if (b.others)
        print_barrier(&b);
    mfi_pool_close(&b.workers);
    free(b.x);
    free(b.y);
    free(b.q8.q);
    free(b.q8.d);
    free(b.q8.s);
    free(b.q8.h);
    free(b.q8.lo);
    free(b.q8.d_fine);
    free(b.q8.s_fine);
    free(b.q8.h_lo);
    mfi_vmem_release(&b.pool);
    return 0;
}
