/* Gated DeltaNet of the CUDA backend on random shapes, against double precision; and the same bits
 * for any chunks of a prompt, down to single tokens. Needs a device (skipped without). */
#include "fake/kernel_case.h"
#include "fake/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"

#define N_TOK 150

typedef struct gdn_case {
    uint32_t k_heads, v_heads, k_dim, v_dim, kernel;
    bool tiled;
} gdn_case;

enum { TAPS, NEG_EXP_A, DT, NORM, N_WEIGHTS };

typedef struct gdn {
    gdn_case is;
    uint32_t n_ch;
    mfi_program p;
    mfi_program_weight weights[N_WEIGHTS];
    mfi_expert_layout experts;
    mfi_layer_state state;
    mfi_layer_mem mem;
    uint32_t layer_end;
    uint64_t state_bytes;
    mfi_backend *b;
    float *x[MFI_N_BUFS], *w[N_WEIGHTS];
    double *conv; /* [N_TOK][n_ch] */
} gdn;

/* The last is never run: logits are looked at after it. */
static mfi_op gdn_ops[3] = {
    {.code = MFI_OP_GDN_CONV, .n = 1, .src = {MFI_BUF_QKV}, .dst = {MFI_BUF_QKV}, .w = {TAPS}},
    {.code = MFI_OP_GDN,
     .n = 1,
     .src = {MFI_BUF_QKV, MFI_BUF_Z, MFI_BUF_B, MFI_BUF_A},
     .dst = {MFI_BUF_O},
     .w = {NEG_EXP_A, DT, NORM}},
};

static const uint32_t inputs[] = {MFI_BUF_QKV, MFI_BUF_Z, MFI_BUF_B, MFI_BUF_A};

static void place(mfi_program *p, uint32_t buf, uint32_t width)
{
    p->bufs[buf] = (mfi_program_buf){.width = width, .rows = N_TOK, .offset = p->scratch_bytes};
    p->scratch_bytes += mfi_align_up((uint64_t)N_TOK * width * sizeof(float), 64);
}

static void weight(gdn *it, uint32_t w, uint32_t rows, uint32_t cols)
{
    it->weights[w] = (mfi_program_weight){
        .type = {.kind = MFI_Q_F32}, .rows = rows, .cols = cols, .offset = {it->p.dense_bytes}};
    it->p.dense_bytes += mfi_align_up((uint64_t)rows * cols * sizeof(float), 64);
}

/* A program of one layer's convolution and delta rule. */
static void make(gdn *it, mfi_rng *rng)
{
    const gdn_case *is = &it->is;
    mfi_program *p = &it->p;
    it->n_ch = 2 * is->k_heads * is->k_dim + is->v_heads * is->v_dim;
    p->shape = (mfi_shape){.n_layers = 1,
                           .n_experts = 1,
                           .top_k = 1,
                           .n_head = 1,
                           .n_kv_head = 1,
                           .head_dim = 2,
                           .eps = 1e-6f,
                           .gdn_k_heads = is->k_heads,
                           .gdn_v_heads = is->v_heads,
                           .gdn_k_dim = is->k_dim,
                           .gdn_v_dim = is->v_dim,
                           .conv_kernel = is->kernel,
                           .gdn_tiled = is->tiled};
    p->chunk = N_TOK;
    p->n_logit_rows = 1;
    p->ctx = N_TOK;
    p->ops = gdn_ops;
    p->n_ops = MFI_ARRAY_LEN(gdn_ops);
    it->layer_end = 2;
    p->layer_end = &it->layer_end;
    weight(it, TAPS, it->n_ch, is->kernel);
    weight(it, NEG_EXP_A, 1, is->v_heads);
    weight(it, DT, 1, is->v_heads);
    weight(it, NORM, 1, is->v_dim);
    p->weights = it->weights;
    p->n_weights = N_WEIGHTS;
    p->experts = &it->experts;
    p->state = &it->state;
    it->state_bytes = sizeof(float) * ((uint64_t)(is->kernel - 1) * it->n_ch +
                                       (uint64_t)is->v_heads * is->k_dim * is->v_dim);
    place(p, MFI_BUF_QKV, it->n_ch);
    place(p, MFI_BUF_Z, is->v_heads * is->v_dim);
    place(p, MFI_BUF_B, is->v_heads);
    place(p, MFI_BUF_A, is->v_heads);
    place(p, MFI_BUF_O, is->v_heads * is->v_dim);
    for (size_t i = 0; i < MFI_ARRAY_LEN(inputs); i++)
        it->x[inputs[i]] = mft_random_floats(rng, (size_t)N_TOK * p->bufs[inputs[i]].width,
                                             inputs[i] == MFI_BUF_QKV ? 2 : 1);
    for (uint32_t w = 0; w < N_WEIGHTS; w++)
        it->w[w] = mft_random_floats(rng, (size_t)it->weights[w].rows * it->weights[w].cols, 1);
    /* From heads that hardly forget to such that keep nothing. */
    for (uint32_t h = 0; h < is->v_heads; h++)
        it->w[NEG_EXP_A][h] = -(h % 2 ? 16 : 0.02f) * fabsf(it->w[NEG_EXP_A][h]);
}

static void open_device(gdn *it)
{
    mf_error err;
    mfi_device_facts facts;
    void *host;
    mft_ok(mfi_backend_cuda_open(&it->b, 0, &facts, &err), &err);
    mft_ok(it->b->alloc(it->b, MFI_MEM_DENSE, it->p.dense_bytes, &host, &err), &err);
    mft_ok(it->b->alloc(it->b, MFI_MEM_SCRATCH, it->p.scratch_bytes, &host, &err), &err);
    mft_ok(it->b->prepare(it->b, &it->p, &err), &err);
    for (uint32_t w = 0; w < N_WEIGHTS; w++)
        mft_ok(it->b->write(it->b, MFI_MEM_DENSE, it->weights[w].offset[0], it->w[w],
                            sizeof(float) * it->weights[w].rows * it->weights[w].cols, &err),
               &err);
    mft_ok(it->b->device->state_alloc(it->b, it->state_bytes, (void **)&it->mem.recurrent, &err),
           &err);
}

/* All tokens, `chunk` at a time. */
static void evaluate(gdn *it, uint32_t chunk, float *out)
{
    static const int32_t tokens[N_TOK];
    static const uint16_t seq_of[N_TOK];
    mf_error err;
    mft_ok(it->b->device->state_clear(it->b, it->mem.recurrent, it->state_bytes, &err), &err);
    for (uint32_t at = 0; at < N_TOK; at += chunk) {
        uint32_t n = MFI_MIN(chunk, N_TOK - at);
        mfi_seq seq = {0, n, at, &it->mem};
        mfi_step step = {.n_tok = n, .tokens = tokens, .seqs = &seq, .n_seqs = 1, .seq_of = seq_of};
        for (size_t i = 0; i < MFI_ARRAY_LEN(inputs); i++) {
            const mfi_program_buf *b = &it->p.bufs[inputs[i]];
            mft_ok(it->b->write(it->b, MFI_MEM_SCRATCH, b->offset,
                                it->x[inputs[i]] + (size_t)at * b->width,
                                sizeof(float) * n * b->width, &err),
                   &err);
        }
        mft_ok(it->b->run(it->b, 0, 2, &step, &err), &err);
        mft_ok(it->b->sync(it->b, &err), &err);
        mft_ok(it->b->read(it->b, MFI_BUF_O, 0, n, out + (size_t)at * it->p.bufs[MFI_BUF_O].width,
                           &err),
               &err);
    }
}

/* What the delta rule sees, in double precision. */
static void convolve(gdn *it)
{
    uint32_t kernel = it->is.kernel;
    it->conv = calloc((size_t)N_TOK * it->n_ch, sizeof *it->conv);
    for (uint32_t t = 0; t < N_TOK; t++)
        for (uint32_t c = 0; c < it->n_ch; c++) {
            double sum = 0;
            for (uint32_t j = 0; j < kernel; j++)
                if (t + j + 1 >= kernel)
                    sum += (double)it->w[TAPS][(size_t)c * kernel + j] *
                           it->x[MFI_BUF_QKV][(size_t)(t + j + 1 - kernel) * it->n_ch + c];
            it->conv[(size_t)t * it->n_ch + c] = sum / (1 + exp(-sum));
        }
}

static double length(const double *x, uint32_t n)
{
    double sq = 0;
    for (uint32_t i = 0; i < n; i++)
        sq += x[i] * x[i];
    return sqrt(sq + 1e-6);
}

/* One token of a head, whose state is s[k_dim][v_dim]. */
static void rule(const gdn *it, uint32_t t, uint32_t h, double *s, double *out)
{
    const gdn_case *is = &it->is;
    uint32_t dk = is->k_dim, dv = is->v_dim;
    uint32_t k_head = is->tiled ? h % is->k_heads : h / (is->v_heads / is->k_heads);
    const double *row = it->conv + (size_t)t * it->n_ch, *q = row + (size_t)k_head * dk;
    const double *k = q + (size_t)is->k_heads * dk;
    const double *v = row + (size_t)2 * is->k_heads * dk + (size_t)h * dv;
    double of_q = 1 / (length(q, dk) * sqrt(dk)), of_k = 1 / length(k, dk), sq = 0;
    size_t at = (size_t)t * is->v_heads + h;
    double soft = log1p(exp((double)it->x[MFI_BUF_A][at] + it->w[DT][h]));
    double decay = exp(it->w[NEG_EXP_A][h] * soft), beta = 1 / (1 + exp(-it->x[MFI_BUF_B][at]));
    for (uint32_t j = 0; j < dv; j++) {
        double m = 0;
        out[j] = 0;
        for (uint32_t i = 0; i < dk; i++)
            m += (s[i * dv + j] *= decay) * k[i] * of_k;
        for (uint32_t i = 0; i < dk; i++) {
            s[i * dv + j] += k[i] * of_k * beta * (v[j] - m);
            out[j] += s[i * dv + j] * q[i] * of_q;
        }
        sq += out[j] * out[j];
    }
    const float *z = it->x[MFI_BUF_Z] + at * dv;
    for (uint32_t j = 0; j < dv; j++)
        out[j] *= it->w[NORM][j] / sqrt(sq / dv + it->p.shape.eps) * z[j] / (1 + exp(-z[j]));
}

static void check_head(const gdn *it, uint32_t h, const float *got)
{
    uint32_t dv = it->is.v_dim;
    double *s = calloc((size_t)it->is.k_dim * dv, sizeof *s), *out = calloc(dv, sizeof *out);
    double most = 0, off = 0;
    for (uint32_t t = 0; t < N_TOK; t++) {
        rule(it, t, h, s, out);
        for (uint32_t j = 0; j < dv; j++) {
            double d = fabs(out[j] - got[((size_t)t * it->is.v_heads + h) * dv + j]);
            off = d <= off ? off : d; /* also where it is no number */
            most = fmax(most, fabs(out[j]));
        }
    }
    free(s);
    free(out);
    if (!(off < 1e-5 * most))
        fail_msg("%u heads of %u x %u, seed %llu: head %u is off by %g of %g", it->is.v_heads,
                 it->is.k_dim, dv, (unsigned long long)mft_last_seed(), h, off, most);
}

static void one_case(gdn_case is, uint64_t seed)
{
    static const uint32_t chunks[] = {1, 3, 7, 33, 64};
    mfi_rng rng;
    mft_seed(&rng, seed);
    gdn it = {.is = is};
    make(&it, &rng);
    convolve(&it);
    open_device(&it);
    size_t n = (size_t)N_TOK * it.p.bufs[MFI_BUF_O].width;
    float *all = calloc(n, sizeof *all), *some = calloc(n, sizeof *some);
    evaluate(&it, N_TOK, all);
    for (uint32_t h = 0; h < is.v_heads; h += 5)
        check_head(&it, h, all);
    for (size_t i = 0; i < MFI_ARRAY_LEN(chunks); i++) {
        evaluate(&it, chunks[i], some);
        if (memcmp(all, some, n * sizeof *all) != 0)
            fail_msg("%u heads of %u x %u, seed %llu: other bits in chunks of %u", is.v_heads,
                     is.k_dim, is.v_dim, (unsigned long long)mft_last_seed(), chunks[i]);
    }
    it.b->device->state_free(it.b, it.mem.recurrent);
    it.b->close(it.b);
    free(all);
    free(some);
    free(it.conv);
    mft_guard_free();
}

static void gdn_cases(void **state)
{
    static const gdn_case cases[] = {
        {16, 32, 128, 128, 4, false}, {2, 6, 64, 48, 4, true},  {3, 6, 32, 112, 4, false},
        {2, 4, 30, 20, 4, false},     {1, 7, 64, 65, 3, false}, {4, 4, 128, 16, 2, true},
    };
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++)
        one_case(cases[i], 3000 + i);
}

int main(void)
{
    mf_error err;
    mfi_device_facts facts;
    const struct CMUnitTest tests[] = {cmocka_unit_test(gdn_cases)};
    if (mfi_backend_cuda_facts(0, &facts, &err) != MF_OK) {
        printf("skipped: %s\n", err.message);
        return 77;
    }
    printf("on %s\n", facts.name);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
