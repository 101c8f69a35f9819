/* Products of the CUDA backend, every type of weights, against double precision; and the same bits
 * for any number of tokens. Needs a device (skipped without); what programs of whole models give is
 * held by tools/gpu_evidence.py. */
#include "fake/kernel_case.h"
#include "fake/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"

#define MAX_TOK 70

/* The second is never run: logits are looked at after the last. */
static mfi_op product_ops[2] = {
    {.code = MFI_OP_MATMUL, .n = 1, .src = {MFI_BUF_H}, .dst = {MFI_BUF_Y}}};
static mfi_layer_mem layer_mem;

typedef struct product {
    mfi_program p;
    mfi_program_weight w;
    mfi_expert_layout experts;
    mfi_layer_state state;
    uint32_t layer_end;
} product;

/* A program of one product. */
static void make(product *it, const mfi_mat *m)
{
    *it = (product){.layer_end = 1};
    it->w = (mfi_program_weight){.type = m->type, .rows = m->rows, .cols = m->cols};
    mfi_program *p = &it->p;
    p->shape = (mfi_shape){.n_layers = 1, .n_experts = 1, .top_k = 1, .n_head = 1, .head_dim = 1};
    p->chunk = MAX_TOK;
    p->n_logit_rows = 1;
    p->ctx = 128;
    p->ops = product_ops;
    p->n_ops = MFI_ARRAY_LEN(product_ops);
    p->layer_end = &it->layer_end;
    p->weights = &it->w;
    p->n_weights = 1;
    p->experts = &it->experts;
    p->state = &it->state;
    for (uint32_t k = 0; k < mfi_quant_n_planes(m->type); k++) {
        it->w.offset[k] = p->dense_bytes;
        p->dense_bytes += mfi_align_up(mfi_quant_plane_bytes(m->type, k, m->rows, m->cols), 64);
    }
    p->bufs[MFI_BUF_H] = (mfi_program_buf){.width = m->cols, .rows = MAX_TOK};
    p->bufs[MFI_BUF_Y] = (mfi_program_buf){
        .width = m->rows, .rows = MAX_TOK, .offset = mfi_align_up(MAX_TOK * m->cols * 4, 64)};
    p->scratch_bytes = p->bufs[MFI_BUF_Y].offset + MAX_TOK * m->rows * 4;
}

static mfi_backend *open_for(const product *it, const mfi_mat *m, const float *x)
{
    mf_error err;
    mfi_backend *b = NULL;
    mfi_device_facts facts;
    void *host;
    mft_ok(mfi_backend_cuda_open(&b, 0, &facts, &err), &err);
    mft_ok(b->alloc(b, MFI_MEM_DENSE, it->p.dense_bytes, &host, &err), &err);
    mft_ok(b->alloc(b, MFI_MEM_SCRATCH, it->p.scratch_bytes, &host, &err), &err);
    mft_ok(b->prepare(b, &it->p, &err), &err);
    for (uint32_t k = 0; k < mfi_quant_n_planes(m->type); k++)
        mft_ok(b->write(b, MFI_MEM_DENSE, it->w.offset[k], m->planes[k],
                        mfi_quant_plane_bytes(m->type, k, m->rows, m->cols), &err),
               &err);
    mft_ok(b->write(b, MFI_MEM_SCRATCH, 0, x, MAX_TOK * m->cols * sizeof *x, &err), &err);
    return b;
}

/* y of the first n tokens, after the output was spoilt. */
static void multiply(mfi_backend *b, const product *it, uint32_t n, float *y)
{
    mf_error err;
    static const int32_t tokens[MAX_TOK];
    static const uint16_t seq_of[MAX_TOK];
    mfi_seq seq = {0, n, 0, &layer_mem};
    mfi_step step = {.n_tok = n, .tokens = tokens, .seqs = &seq, .n_seqs = 1, .seq_of = seq_of};
    size_t bytes = (size_t)MAX_TOK * it->w.rows * sizeof *y;
    memset(y, 0xff, bytes);
    mft_ok(b->write(b, MFI_MEM_SCRATCH, it->p.bufs[MFI_BUF_Y].offset, y, bytes, &err), &err);
    mft_ok(b->run(b, 0, 1, &step, &err), &err);
    mft_ok(b->sync(b, &err), &err);
    mft_ok(b->read(b, MFI_BUF_Y, 0, MAX_TOK, y, &err), &err);
}

/* The bound in docs/numerics.md. */
static void check(const mfi_mat *m, const float *x, const float *y, const char *name)
{
    for (uint32_t r = 0; r < m->rows; r++) {
        for (uint32_t t = 0; t < MAX_TOK; t += 23) {
            double sum = 0, size = 0;
            for (uint32_t c = 0; c < m->cols; c++) {
                double scaled, offset;
                mft_element(m, r, c, &scaled, &offset);
                sum += (scaled + offset) * x[t * m->cols + c];
                size += (fabs(scaled) + fabs(offset)) * fabs((double)x[t * m->cols + c]);
            }
            double bound = ldexp(size, -24) * (48 + m->cols / 16.0),
                   off = fabs(sum - y[t * m->rows + r]);
            if (!(off <= bound))
                fail_msg("%s, %u x %u, seed %llu: row %u, token %u: %g instead of %g, bound %g",
                         name, m->rows, m->cols, (unsigned long long)mft_last_seed(), r, t,
                         y[t * m->rows + r], sum, bound);
        }
    }
}

static void one_type(mfi_qtype type, uint64_t seed)
{
    static const uint32_t counts[] = {1, 2, 7, 8, 9, 16, 17, 64};
    mfi_rng rng;
    char name[64];
    mft_seed(&rng, seed);
    mfi_quant_name(type, name, sizeof name);
    bool any = mfi_qtype_is_float(type) || type.kind == MFI_Q_FP8;
    uint32_t rows = mft_between(&rng, 1, 150);
    uint32_t cols = any ? mft_between(&rng, 1, 700) : 256 * mft_between(&rng, 1, 5);
    if (!any && type.kind == MFI_Q_MLX)
        cols -= 128 * mft_below(&rng, 2);
    mfi_mat m = mft_random_mat(&rng, type, rows, cols, 0.1f);
    float *x = mft_random_floats(&rng, (size_t)MAX_TOK * cols, 1);
    size_t n = (size_t)MAX_TOK * rows;
    float *all = calloc(n, sizeof *all), *few = calloc(n, sizeof *few);
    product it;
    make(&it, &m);
    mfi_backend *b = open_for(&it, &m, x);
    multiply(b, &it, MAX_TOK, all);
    check(&m, x, all, name);
    for (size_t i = 0; i < MFI_ARRAY_LEN(counts); i++) {
        multiply(b, &it, counts[i], few);
        if (memcmp(few, all, (size_t)counts[i] * rows * sizeof *few) != 0)
            fail_msg("%s, %u x %u, seed %llu: other bits with %u tokens than with %u", name, rows,
                     cols, (unsigned long long)mft_last_seed(), counts[i], MAX_TOK);
    }
    b->close(b);
    free(all);
    free(few);
    mft_guard_free();
}

static void products(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < MFT_N_TYPES; i++)
        one_type(mft_type(i), 1000 + i);
}

int main(void)
{
    mf_error err;
    mfi_device_facts facts;
    const struct CMUnitTest tests[] = {cmocka_unit_test(products)};
    if (mfi_backend_cuda_facts(0, &facts, &err) != MF_OK) {
        printf("skipped: %s\n", err.message);
        return 77;
    }
    printf("on %s\n", facts.name);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
