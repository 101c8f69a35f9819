/* Attention's Metal kernels against the definition in double precision: preparing queries, keys and
 * latents; attending with windows, rings, sinks and gates; the same bits for any number of tokens.
 */
#include "rig.h"

#include <math.h>
#include <string.h>

static uint32_t pick(mfi_rng *rng, const uint16_t *of, uint32_t n)
{
    return of[mft_below(rng, n)];
}

static float *random_copy(mfi_rng *rng, size_t n, float deviation)
{
    return rig_copy(mft_random_floats(rng, n, deviation), n * sizeof(float));
}

/* ---- attending ---- */

typedef struct attn_case {
    mfi_metal_attn a;
    float *q, *kv, *sinks;
    uint32_t n_kv_head;
} attn_case;

static attn_case make_case(mfi_rng *rng, uint32_t i)
{
    static const uint16_t dims[] = {1, 7, 16, 40, 64, 72, 128, 130, 192, 256, 300, 576, 1024};
    static const uint16_t groups[] = {1, 2, 4, 5, 8, 11};
    attn_case c = {.n_kv_head = mft_between(rng, 1, 3)};
    bool latent = i % 4 == 3;
    mfi_metal_attn *a = &c.a;
    a->dim = pick(rng, dims, 13);
    a->dim_v = latent ? mft_between(rng, 1, a->dim) : a->dim;
    a->group = pick(rng, groups, 6);
    if (latent)
        c.n_kv_head = 1;
    a->n_head = a->group * c.n_kv_head;
    a->k_stride = latent ? 0 : a->dim;
    a->v_stride = latent ? 0 : a->dim_v;
    a->v_offset = latent ? 0 : c.n_kv_head * a->dim;
    a->row = latent ? a->dim : 2 * a->v_offset;
    a->n_tok = mft_between(rng, 1, i % 3 ? 7 : 20);
    a->pos = mft_below(rng, i % 5 ? 200 : 3);
    if (i % 2) {
        a->window = mft_between(rng, 1, 130);
        a->ring = mft_below(rng, 3) ? a->window - 1 + a->n_tok + mft_below(rng, 9) : 0;
    }
    a->gated = !latent && i % 6 == 0;
    a->with_sinks = i % 3 == 1;
    a->scale = (i % 7 ? 1.0f : 8.0f) / sqrtf((float)a->dim);
    a->q_stride = a->dim * (a->gated ? 2 : 1);
    a->ldq = a->q_stride * a->n_head + mft_below(rng, 3);
    a->ldo = a->dim_v * a->n_head + mft_below(rng, 3);
    c.q = random_copy(rng, (size_t)a->ldq * a->n_tok, 1);
    c.kv = random_copy(rng, (size_t)a->row * (a->ring ? a->ring : a->pos + a->n_tok), 1);
    c.sinks = rig_floats(a->n_head);
    for (uint32_t h = 0; h < a->n_head; h++)
        c.sinks[h] = h % 3 == 2 ? -INFINITY : (float)mft_below(rng, 9) - 4;
    return c;
}

static const float *row_at(const attn_case *c, uint32_t pos)
{
    return c->kv + (size_t)(c->a.ring ? pos % c->a.ring : pos) * c->a.row;
}

static void naive(const attn_case *c, uint32_t t, uint32_t h, double *want)
{
    const mfi_metal_attn *a = &c->a;
    const float *q = c->q + (size_t)t * a->ldq + (size_t)h * a->q_stride;
    const uint32_t end = a->pos + t + 1, begin = a->window && a->window < end ? end - a->window : 0;
    static double score[512];
    double max = a->with_sinks ? (double)c->sinks[h] : -INFINITY, sum;
    for (uint32_t j = begin; j < end; j++) {
        const float *key = row_at(c, j) + (size_t)(h / a->group) * a->k_stride;
        score[j] = 0;
        for (uint32_t i = 0; i < a->dim; i++)
            score[j] += (double)q[i] * (double)key[i] * (double)a->scale;
        max = fmax(max, score[j]);
    }
    sum = a->with_sinks ? exp((double)c->sinks[h] - max) : 0;
    memset(want, 0, a->dim_v * sizeof *want);
    for (uint32_t j = begin; j < end; j++) {
        const float *v = row_at(c, j) + a->v_offset + (size_t)(h / a->group) * a->v_stride;
        sum += exp(score[j] - max);
        for (uint32_t i = 0; i < a->dim_v; i++)
            want[i] += exp(score[j] - max) * (double)v[i];
    }
    for (uint32_t i = 0; i < a->dim_v; i++) {
        want[i] /= sum;
        if (a->gated)
            want[i] /= 1 + exp(-(double)q[a->dim + i]);
    }
}

/* Tokens [first, first + n) of the case, as the host calls it. */
static float *attend(const attn_case *c, uint32_t first, uint32_t n)
{
    mfi_metal_attn a = c->a;
    rig r = {{c->q + (size_t)first * a.ldq, c->kv, c->sinks}, {0}};
    size_t bytes = (size_t)n * a.ldo * sizeof(float);
    float *out = rig_alloc(bytes);
    a.pos += first;
    a.n_tok = n;
    a.n_blocks = mfi_metal_attn_blocks(a.pos, n, a.window);
    r.buffer[MFI_METAL_ATTN_OUT - 1] = out;
    if (n > MFI_METAL_ATTN_SPLIT_TOK) {
        mfi_metal_call call = mfi_metal_attn_walk_call(&a);
        r.out_bytes[MFI_METAL_ATTN_OUT - 1] = bytes;
        rig_run(&r, &call, &a);
        return out;
    }
    uint64_t part_bytes = mfi_metal_attn_partial_bytes(n, a.n_head, a.n_blocks, a.dim_v);
    mfi_metal_call part = mfi_metal_attn_part_call(&a), merge = mfi_metal_attn_merge_call(&a);
    r.buffer[MFI_METAL_ATTN_PARTIAL - 1] = rig_alloc(part_bytes);
    memset(r.buffer[MFI_METAL_ATTN_PARTIAL - 1], 0xff, part_bytes);
    r.out_bytes[MFI_METAL_ATTN_PARTIAL - 1] = part_bytes;
    rig_run(&r, &part, &a);
    r.out_bytes[MFI_METAL_ATTN_PARTIAL - 1] = 0;
    r.out_bytes[MFI_METAL_ATTN_OUT - 1] = bytes;
    rig_run(&r, &merge, &a);
    return out;
}

static void one_attention(mfi_rng *rng, uint32_t i)
{
    attn_case c = make_case(rng, i);
    const mfi_metal_attn *a = &c.a;
    const float *all = attend(&c, 0, a->n_tok);
    static double want[1024];
    for (uint32_t t = 0; t < a->n_tok; t += 1 + a->n_tok / 3)
        for (uint32_t h = 0; h < a->n_head; h++) {
            naive(&c, t, h, want);
            for (uint32_t d = 0; d < a->dim_v; d++)
                rig_near("attention", all[(size_t)t * a->ldo + h * a->dim_v + d], want[d],
                         a->scale * sqrt(a->dim) * 2e-5, d);
        }
    for (uint32_t t = 0, n; t < a->n_tok; t += n) {
        n = mft_between(rng, 1, 6);
        n = MFI_MIN(n, a->n_tok - t);
        const float *few = attend(&c, t, n);
        for (uint32_t k = 0; k < n; k++)
            if (memcmp(few + (size_t)k * a->ldo, all + (size_t)(t + k) * a->ldo,
                       (size_t)a->n_head * a->dim_v * sizeof *few) != 0)
                fail_msg("case %u, seed %llu: other bits for token %u among %u", i,
                         (unsigned long long)mft_last_seed(), t + k, n);
    }
    mft_guard_free();
}

static void attention(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < (MFT_SANITIZED ? 14 : 28); i++) {
        mfi_rng rng;
        mft_seed(&rng, 7000 + i);
        one_attention(&rng, i);
    }
}

/* ---- preparing ---- */

static void rotate(double *x, uint32_t n_rot, bool neighbours, const float *cosines)
{
    for (uint32_t i = 0; i < n_rot / 2; i++) {
        uint32_t p = neighbours ? 2 * i : i, q = neighbours ? 2 * i + 1 : i + n_rot / 2;
        double a = x[p], b = x[q], c = cosines[i], s = cosines[n_rot / 2 + i];
        x[p] = a * c - b * s;
        x[q] = b * c + a * s;
    }
}

static void norm(double *x, uint32_t n, const float *w, double eps)
{
    double sq = 0;
    for (uint32_t i = 0; i < n; i++)
        sq += x[i] * x[i];
    for (uint32_t i = 0; i < n; i++)
        x[i] *= w[i] / sqrt(sq / n + eps);
}

static void prepared(const mfi_metal_prep *a, const float *in, const float *w, const float *cosines,
                     double *x)
{
    for (uint32_t i = 0; i < a->head_dim; i++)
        x[i] = in[i];
    if (w && !a->norm_after)
        norm(x, a->head_dim, w, a->eps);
    if (!a->unrotated)
        rotate(x, a->n_rot, false, cosines);
    if (w && a->norm_after)
        norm(x, a->head_dim, w, a->eps);
}

static void close_to(const char *what, const float *got, const double *want, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        rig_near(what, got[i], want[i], 1e-5 * (1 + fabs(want[i])), i);
}

static void one_prep(mfi_rng *rng, uint32_t i)
{
    static const uint16_t dims[] = {2, 6, 32, 64, 80, 128};
    mfi_metal_prep a = {.n_head = mft_between(rng, 1, 7),
                        .n_kv_head = mft_between(rng, 1, 3),
                        .head_dim = pick(rng, dims, 6),
                        .n_tok = mft_between(rng, 1, 5),
                        .pos = mft_below(rng, 20),
                        .unrotated = i % 5 == 4,
                        .norm_after = i % 3 == 2,
                        .q_normed = i % 2,
                        .k_normed = i % 4 < 2,
                        .eps = 1e-5f};
    uint32_t kvw = a.n_kv_head * a.head_dim;
    a.n_rot = i % 2 ? a.head_dim : a.head_dim / 4 * 2;
    a.ring = i % 2 ? a.n_tok + mft_below(rng, 3) : 0;
    a.q_stride = a.head_dim * mft_between(rng, 1, 2);
    a.ldq = a.q_stride * a.n_head;
    a.ldk = kvw + 1;
    a.ldv = kvw + 2;
    a.ldr = a.n_rot + 1;
    uint32_t rows = a.ring ? a.ring : a.pos + a.n_tok;
    float *q = random_copy(rng, (size_t)a.ldq * a.n_tok, 1);
    const float *k = random_copy(rng, (size_t)a.ldk * a.n_tok, 1);
    const float *v = random_copy(rng, (size_t)a.ldv * a.n_tok, 1);
    const float *rope = random_copy(rng, (size_t)a.ldr * a.n_tok, 0.5f);
    const float *qw = random_copy(rng, a.head_dim, 1), *kw = random_copy(rng, a.head_dim, 1);
    const float *old = rig_copy(q, (size_t)a.ldq * a.n_tok * sizeof *q);
    size_t kv_bytes = (size_t)rows * 2 * kvw * sizeof(float);
    float *kv = rig_alloc(kv_bytes);
    rig r = {{q, (void *)k, (void *)v, (void *)rope, (void *)qw, (void *)kw, kv},
             {(size_t)a.ldq * a.n_tok * sizeof *q, 0, 0, 0, 0, 0, kv_bytes}};
    mfi_metal_call call = mfi_metal_prep_call(&a);
    rig_run(&r, &call, &a);
    for (uint32_t t = 0; t < a.n_tok; t++) {
        double want[128];
        const float *cosines = rope + (size_t)t * a.ldr;
        const float *row = kv + (size_t)(a.ring ? (a.pos + t) % a.ring : a.pos + t) * 2 * kvw;
        for (uint32_t h = 0; h < a.n_head; h++) {
            size_t at = (size_t)t * a.ldq + (size_t)h * a.q_stride;
            prepared(&a, old + at, a.q_normed ? qw : NULL, cosines, want);
            close_to("query", q + at, want, a.head_dim);
        }
        for (uint32_t h = 0; h < a.n_kv_head; h++) {
            prepared(&a, k + (size_t)t * a.ldk + h * a.head_dim, a.k_normed ? kw : NULL, cosines,
                     want);
            close_to("key", row + h * a.head_dim, want, a.head_dim);
        }
        assert_memory_equal(row + kvw, v + (size_t)t * a.ldv, kvw * sizeof *v);
    }
    mft_guard_free();
}

static void preparing(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 30; i++) {
        mfi_rng rng;
        mft_seed(&rng, 8000 + i);
        one_prep(&rng, i);
    }
}

static void one_latent(mfi_rng *rng, uint32_t i)
{
    mfi_metal_latent a = {.n_head = mft_between(rng, 1, 6),
                          .nope = mft_between(rng, 1, 40),
                          .n_rot = 2 * mft_between(rng, 1, 33),
                          .latent = mft_between(rng, 1, 100),
                          .n_tok = mft_between(rng, 1, 4),
                          .pos = mft_below(rng, 9),
                          .pairs = i % 2,
                          .eps = 1e-6f};
    a.head_dim = a.nope + a.n_rot;
    a.ldq = a.n_head * a.head_dim + 1;
    a.ldk = a.latent + a.n_rot + 2;
    a.ldr = a.n_rot;
    a.ldy = a.n_head * (a.latent + a.n_rot) + 3;
    size_t q_bytes = (size_t)a.ldq * a.n_tok * sizeof(float);
    float *q = random_copy(rng, (size_t)a.ldq * a.n_tok, 1);
    const float *old = rig_copy(q, q_bytes);
    const float *kva = random_copy(rng, (size_t)a.ldk * a.n_tok, 1);
    const float *rope = random_copy(rng, (size_t)a.ldr * a.n_tok, 0.5f);
    const float *w = random_copy(rng, a.latent, 1);
    uint32_t row = a.latent + a.n_rot;
    size_t kv_bytes = (size_t)(a.pos + a.n_tok) * row * sizeof(float);
    size_t y_bytes = (size_t)a.ldy * a.n_tok * sizeof(float);
    float *kv = rig_alloc(kv_bytes), *y = rig_alloc(y_bytes);
    rig r = {{q, (void *)kva, (void *)rope, (void *)w, kv}, {q_bytes, 0, 0, 0, kv_bytes}};
    mfi_metal_call call = mfi_metal_latent_prep_call(&a);
    rig_run(&r, &call, &a);
    rig tail = {{q, y}, {0, y_bytes}};
    call = mfi_metal_latent_tail_call(&a);
    rig_run(&tail, &call, &a);
    for (uint32_t t = 0; t < a.n_tok; t++) {
        double want[200];
        const float *cosines = rope + (size_t)t * a.ldr;
        for (uint32_t h = 0; h < a.n_head; h++) {
            size_t at = (size_t)t * a.ldq + (size_t)h * a.head_dim;
            for (uint32_t k = 0; k < a.head_dim; k++)
                want[k] = old[at + k];
            rotate(want + a.nope, a.n_rot, a.pairs, cosines);
            close_to("latent query", q + at, want, a.head_dim);
            assert_memory_equal(y + (size_t)t * a.ldy + h * row + a.latent, q + at + a.nope,
                                a.n_rot * sizeof *q);
        }
        for (uint32_t k = 0; k < row; k++)
            want[k] = kva[(size_t)t * a.ldk + k];
        norm(want, a.latent, w, a.eps);
        rotate(want + a.latent, a.n_rot, a.pairs, cosines);
        close_to("latent", kv + (size_t)(a.pos + t) * row, want, row);
    }
    mft_guard_free();
}

static void latents(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 20; i++) {
        mfi_rng rng;
        mft_seed(&rng, 9000 + i);
        one_latent(&rng, i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention),
        cmocka_unit_test(preparing),
        cmocka_unit_test(latents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
