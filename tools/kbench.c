/* Kernel speeds: bytes of weights read a second for one token, arithmetic for several, per type and
 * level, beside what one core can read at all. One thread. Usage: kbench [rows cols [seconds
 * [pool_mib]]] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "kernels/kernels.h"
#include "os/vmem.h"

#define MAX_TOK 64

typedef struct bench {
    uint32_t rows, cols;
    double seconds;    /* of each measurement */
    size_t pool_bytes; /* more than the caches, so that weights come from memory */
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

/* Best of the sweeps over the pool with eight sums of words. */
static double read_bandwidth(const bench *b)
{
    const uint64_t *p = b->pool.base;
    double best = 0, end = seconds_now() + 4 * b->seconds;
    while (seconds_now() < end) {
        uint64_t sum[8] = {0};
        double start = seconds_now();
        for (size_t i = 0; i < b->pool_bytes / 8; i += 8)
            for (int j = 0; j < 8; j++)
                sum[j] += p[i + j];
        double rate = (double)b->pool_bytes / (seconds_now() - start);
        for (int j = 0; j < 8; j++)
            __asm__ volatile("" ::"r"(sum[j])); /* or it would not be read */
        best = MFI_MAX(best, rate);
    }
    return best;
}

/* A matrix at a changing place of the pool, whose bytes are any weights. */
static mfi_mat matrix_at(const bench *b, mfi_qtype type, uint32_t index, uint64_t *bytes)
{
    mfi_mat w = {.type = type, .rows = b->rows, .cols = b->cols};
    *bytes = 0;
    for (uint32_t p = 0; p < mfi_quant_n_planes(type); p++)
        *bytes += mfi_quant_plane_bytes(type, p, b->rows, b->cols);
    uint64_t n_places = b->pool_bytes / *bytes;
    const char *at = (const char *)b->pool.base + index % (n_places ? n_places : 1) * *bytes;
    for (uint32_t p = 0; p < mfi_quant_n_planes(type); p++) {
        w.planes[p] = at;
        at += mfi_quant_plane_bytes(type, p, b->rows, b->cols);
    }
    return w;
}

/* Seconds of one product, the best of the tries; weights from memory for each. */
static double time_product(const bench *b, const mfi_kernels *k, mfi_qtype type, bool q8,
                           uint32_t n_tok)
{
    double best = 1e9, end = seconds_now() + b->seconds;
    for (uint32_t i = 0; i < 3 || seconds_now() < end; i++) {
        uint64_t bytes;
        mfi_mat w = matrix_at(b, type, i, &bytes);
        double start = seconds_now();
        if (q8)
            k->matmul_q8(&w, &b->q8, n_tok, b->y, b->rows, 0, b->rows);
        else
            k->matmul_f32(&w, b->x, b->cols, n_tok, b->y, b->rows, 0, b->rows);
        best = MFI_MIN(best, seconds_now() - start);
    }
    return best;
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

static void bench_products(const bench *b)
{
    mfi_qtype types[80];
    size_t n_types = list_types(b->cols, types);
    printf("%-32s %-5s %-4s %10s %9s %9s %9s\n", "weights", "level", "x", "GB/s n=1", "GF/s n=1",
           "GF/s n=8", "GF/s n=64");
    for (size_t i = 0; i < n_types; i++) {
        for (int q8 = 0; q8 <= !mfi_qtype_is_float(types[i]); q8++) {
            for (int isa = 0; isa < MFI_N_ISA; isa++) {
                if (!mfi_cpu_has((mfi_isa)isa))
                    continue;
                const mfi_kernels *k = mfi_kernels_get((mfi_isa)isa);
                uint64_t bytes;
                char name[64];
                double flop = 2.0 * b->rows * b->cols;
                double t1 = time_product(b, k, types[i], q8, 1);
                double t8 = time_product(b, k, types[i], q8, 8);
                double t64 = time_product(b, k, types[i], q8, 64);
                matrix_at(b, types[i], 0, &bytes);
                mfi_quant_name(types[i], name, sizeof name);
                printf("%-32s %-5s %-4s %10.2f %9.2f %9.2f %9.2f\n", name, mfi_isa_name(k->isa),
                       q8 ? "q8" : "f32", (double)bytes / t1 * 1e-9, flop / t1 * 1e-9,
                       8 * flop / t8 * 1e-9, 64 * flop / t64 * 1e-9);
                fflush(stdout);
            }
        }
    }
}

/* The other entries, by number. */
#define N_OTHERS 13
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
        k->attend(x, p, 512, p + 256, 512, 1000, 256, 256, 0.0625f, y);
        return "attend 1000 x 256";
    case 9:
        k->conv_silu(p, p + 65536, x, 8192, 4, 0, 8192, y);
        return "conv_silu 8192 x 4";
    case 10:
        k->gdn_step(p, x, x + 128, x + 256, 0.9f, 0.5f, 128, 128, y);
        return "gdn_step 128 x 128";
    case 11:
        k->route_softmax(x, 256, 8, true, ids, y);
        return "route_softmax 8 of 256";
    default: {
        mfi_mat w = {{MFI_Q_MLX, 4, MFI_Q_BF16, 64}, 1, 2048, {p, p + 65536, p + 131072}};
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
    b->q8.h = take(sizeof(int16_t) * MAX_TOK * cols / MFI_Q8_HALF);
    mfi_kernels_get(mfi_cpu_isa())->quantize_q8(b->x, MAX_TOK * b->cols, &b->q8);
}

int main(int argc, char **argv)
{
    bench b = {.rows = 2048, .cols = 2048, .seconds = 0.1, .pool_bytes = 256 * MFI_MIB};
    mf_error err;
    if (argc >= 3) {
        b.rows = (uint32_t)strtoul(argv[1], NULL, 10);
        b.cols = (uint32_t)strtoul(argv[2], NULL, 10);
    }
    if (argc >= 4)
        b.seconds = strtod(argv[3], NULL);
    if (argc >= 5)
        b.pool_bytes = strtoul(argv[4], NULL, 10) * MFI_MIB;
    if (b.rows == 0 || b.cols < 128 || b.cols % 128 || b.pool_bytes < 8 * MFI_MIB ||
        (uint64_t)b.rows * b.cols * 4 > b.pool_bytes) {
        fprintf(stderr, "kbench: cols must be a multiple of 128, and the matrix as floats fit the "
                        "pool of at least 8 MiB\n");
        return 2;
    }
    if (mfi_vmem_alloc(&b.pool, b.pool_bytes, &err) != MF_OK) {
        fprintf(stderr, "kbench: %s\n", err.message);
        return 1;
    }
    set_up(&b);
    printf("rows %u, cols %u, one thread; reading alone: %.1f GB/s\n", b.rows, b.cols,
           read_bandwidth(&b) * 1e-9);
    bench_products(&b);
    bench_others(&b);
    free(b.x);
    free(b.y);
    free(b.q8.q);
    free(b.q8.d);
    free(b.q8.s);
    free(b.q8.h);
    mfi_vmem_release(&b.pool);
    return 0;
}
