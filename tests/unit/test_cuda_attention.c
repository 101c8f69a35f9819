/* Attention of the CUDA backend on random shapes, against double precision; and the same bits for
 * any chunks of a prompt, down to single tokens. Needs a device (skipped without). */
#include "fake/kernel_case.h"
#include "fake/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"

#define N_TOK 150

typedef struct attention_case {
    uint32_t n_head, n_kv_head, dim, window;
    bool sinks, gate;
} attention_case;

typedef struct attention {
    attention_case is;
    mfi_program p;
    mfi_program_weight sinks;
    mfi_expert_layout experts;
    mfi_layer_state state;
    mfi_layer_mem mem;
    uint32_t layer_end;
    uint64_t kv_bytes;
    mfi_backend *b;
    float *q, *k, *v, *weights;
} attention;

/* The last is never run: logits are looked at after it. */
static mfi_op attention_ops[3] = {
    {.code = MFI_OP_ATTN_PREP,
     .n = MFI_PREP_UNROTATED,
     .src = {MFI_BUF_Q, MFI_BUF_K, MFI_BUF_V, MFI_BUF_ROPE},
     .w = {MFI_WEIGHT_NONE, MFI_WEIGHT_NONE}},
    {.code = MFI_OP_ATTN, .src = {MFI_BUF_Q}, .dst = {MFI_BUF_O}},
};

static void place(mfi_program *p, uint32_t buf, uint32_t width)
{
    p->bufs[buf] = (mfi_program_buf){.width = width, .rows = N_TOK, .offset = p->scratch_bytes};
    p->scratch_bytes += mfi_align_up((uint64_t)N_TOK * width * sizeof(float), 64);
}

/* A program of one attention over a cache of its own. */
static void make(attention *it)
{
    const attention_case *is = &it->is;
    mfi_program *p = &it->p;
    uint32_t kv_width = is->n_kv_head * is->dim;
    p->shape = (mfi_shape){.n_layers = 1,
                           .n_experts = 1,
                           .top_k = 1,
                           .n_head = is->n_head,
                           .n_kv_head = is->n_kv_head,
                           .head_dim = is->dim,
                           .attn_gate = is->gate,
                           .attn_scale = 1 / sqrtf((float)is->dim)};
    p->chunk = N_TOK;
    p->n_logit_rows = 1;
    p->ctx = N_TOK;
    p->ops = attention_ops;
    p->n_ops = MFI_ARRAY_LEN(attention_ops);
    attention_ops[1].n = is->sinks;
    it->layer_end = 2;
    p->layer_end = &it->layer_end;
    it->sinks = (mfi_program_weight){.type = {.kind = MFI_Q_F32}, .rows = 1, .cols = is->n_head};
    p->weights = &it->sinks;
    p->n_weights = 1;
    p->dense_bytes = is->n_head * sizeof(float);
    p->experts = &it->experts;
    it->state = (mfi_layer_state){.kv_pos_bytes = (uint64_t)2 * kv_width * sizeof(float),
                                  .window = is->window};
    p->state = &it->state;
    it->kv_bytes = it->state.kv_pos_bytes * (N_TOK + 64);
    place(p, MFI_BUF_Q, is->n_head * is->dim * (is->gate ? 2 : 1));
    place(p, MFI_BUF_K, kv_width);
    place(p, MFI_BUF_V, kv_width);
    place(p, MFI_BUF_ROPE, 1);
    place(p, MFI_BUF_O, is->n_head * is->dim);
}

static void open_device(attention *it)
{
    mf_error err;
    mfi_device_facts facts;
    void *host;
    mft_ok(mfi_backend_cuda_open(&it->b, 0, &facts, &err), &err);
    mft_ok(it->b->alloc(it->b, MFI_MEM_DENSE, it->p.dense_bytes, &host, &err), &err);
    mft_ok(it->b->alloc(it->b, MFI_MEM_SCRATCH, it->p.scratch_bytes, &host, &err), &err);
    mft_ok(it->b->prepare(it->b, &it->p, &err), &err);
    mft_ok(it->b->write(it->b, MFI_MEM_DENSE, 0, it->weights, it->p.dense_bytes, &err), &err);
    mft_ok(it->b->device->state_alloc(it->b, it->kv_bytes, &it->mem.kv, &err), &err);
}

static void send(attention *it, uint32_t buf, const float *rows, uint32_t first, uint32_t n)
{
    mf_error err;
    uint64_t bytes = it->p.bufs[buf].width * sizeof(float);
    mft_ok(it->b->write(it->b, MFI_MEM_SCRATCH, it->p.bufs[buf].offset,
                        rows + first * it->p.bufs[buf].width, n * bytes, &err),
           &err);
}

/* All tokens, `chunk` at a time. */
static void attend(attention *it, uint32_t chunk, float *out)
{
    static const int32_t tokens[N_TOK];
    static const uint16_t seq_of[N_TOK];
    mf_error err;
    mft_ok(it->b->device->state_clear(it->b, it->mem.kv, it->kv_bytes, &err), &err);
    for (uint32_t at = 0; at < N_TOK; at += chunk) {
        uint32_t n = MFI_MIN(chunk, N_TOK - at);
        mfi_seq seq = {0, n, at, &it->mem};
        mfi_step step = {.n_tok = n, .tokens = tokens, .seqs = &seq, .n_seqs = 1, .seq_of = seq_of};
        send(it, MFI_BUF_Q, it->q, at, n);
        send(it, MFI_BUF_K, it->k, at, n);
        send(it, MFI_BUF_V, it->v, at, n);
        mft_ok(it->b->run(it->b, 0, 2, &step, &err), &err);
        mft_ok(it->b->sync(it->b, &err), &err);
        mft_ok(it->b->read(it->b, MFI_BUF_O, 0, n, out + at * it->p.bufs[MFI_BUF_O].width, &err),
               &err);
    }
}

/* One head of a token, in double precision: how far it is off, of the largest value there is. */
static double off_by(const attention *it, uint32_t t, uint32_t h, const float *got)
{
    const attention_case *is = &it->is;
    uint32_t kv_width = is->n_kv_head * is->dim, g = h / (is->n_head / is->n_kv_head);
    uint32_t from = is->window && t >= is->window ? t - is->window + 1 : 0;
    const float *q =
        it->q + t * it->p.bufs[MFI_BUF_Q].width + (size_t)h * is->dim * (is->gate ? 2 : 1);
    double score[N_TOK], max = is->sinks ? it->weights[h] : -INFINITY, sum = 0, off = 0, most = 0;
    for (uint32_t j = from; j <= t; j++) {
        score[j] = 0;
        for (uint32_t c = 0; c < is->dim; c++)
            score[j] += (double)q[c] * it->k[j * kv_width + g * is->dim + c];
        score[j] *= it->p.shape.attn_scale;
        max = fmax(max, score[j]);
    }
    for (uint32_t j = from; j <= t; j++)
        sum += score[j] = exp(score[j] - max);
    sum += is->sinks ? exp(it->weights[h] - max) : 0;
    for (uint32_t c = 0; c < is->dim; c++) {
        double v = 0;
        for (uint32_t j = from; j <= t; j++) {
            v += score[j] / sum * it->v[j * kv_width + g * is->dim + c];
            most = fmax(most, fabs((double)it->v[j * kv_width + g * is->dim + c]));
        }
        if (is->gate)
            v /= 1 + exp(-(double)q[is->dim + c]);
        double d = fabs(v - got[h * is->dim + c]);
        off = d <= off ? off : d; /* also where it is no number */
    }
    return off / most;
}

static void one_case(attention_case is, uint64_t seed)
{
    static const uint32_t chunks[] = {1, 3, 4, 7, 33, 64};
    mfi_rng rng;
    mft_seed(&rng, seed);
    attention it = {.is = is};
    make(&it);
    it.q = mft_random_floats(&rng, (size_t)N_TOK * it.p.bufs[MFI_BUF_Q].width, 2);
    it.k = mft_random_floats(&rng, (size_t)N_TOK * it.p.bufs[MFI_BUF_K].width, 1);
    it.v = mft_random_floats(&rng, (size_t)N_TOK * it.p.bufs[MFI_BUF_V].width, 1);
    it.weights = mft_random_floats(&rng, is.n_head, 1);
    open_device(&it);
    size_t width = it.p.bufs[MFI_BUF_O].width, n = N_TOK * width;
    float *all = calloc(n, sizeof *all), *some = calloc(n, sizeof *some);
    attend(&it, N_TOK, all);
    for (uint32_t t = 0; t < N_TOK; t += 29)
        for (uint32_t h = 0; h < is.n_head; h += 3) {
            double off = off_by(&it, t, h, all + t * width);
            if (!(off < 4e-6))
                fail_msg("%u heads of %u, seed %llu: head %u of token %u is off by %g", is.n_head,
                         is.dim, (unsigned long long)mft_last_seed(), h, t, off);
        }
    for (size_t i = 0; i < MFI_ARRAY_LEN(chunks); i++) {
        attend(&it, chunks[i], some);
        if (memcmp(all, some, n * sizeof *all) != 0)
            fail_msg("%u heads of %u, seed %llu: other bits in chunks of %u", is.n_head, is.dim,
                     (unsigned long long)mft_last_seed(), chunks[i]);
    }
    it.b->device->state_free(it.b, it.mem.kv);
    it.b->close(it.b);
    free(all);
    free(some);
    mft_guard_free();
}

static void attention_cases(void **state)
{
    static const attention_case cases[] = {
        {32, 4, 128, 0, false, false}, {8, 1, 64, 37, true, false},  {6, 6, 80, 0, false, true},
        {24, 2, 96, 0, true, false},   {4, 2, 256, 70, false, true}, {5, 1, 30, 0, false, false},
        {40, 2, 128, 0, false, false},
    };
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++)
        one_case(cases[i], 2000 + i);
}

int main(void)
{
    mf_error err;
    mfi_device_facts facts;
    const struct CMUnitTest tests[] = {cmocka_unit_test(attention_cases)};
    if (mfi_backend_cuda_facts(0, &facts, &err) != MF_OK) {
        printf("skipped: %s\n", err.message);
        return 77;
    }
    printf("on %s\n", facts.name);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
