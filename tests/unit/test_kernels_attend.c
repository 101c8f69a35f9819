/* Attention of every level and rows of the KV cache: against the definition in double precision
 * over what the rows say, for the same bits in every cut and on the x86 levels, between guard
 * pages.
 */
#include "fake/support.h"

#include <math.h>
#include <string.h>

#include "fake/kernel_case.h"

#define N_CASES (MFT_SANITIZED ? 9 : 60)

typedef struct attn_case {
    mfi_attn a;
    mfi_qtype type, type_v;
    size_t head_bytes, v_bytes;
    uint8_t *cache;
    float *out;
    size_t n_out;
} attn_case;

static const mfi_kernels *best(void)
{
    return mft_level(mft_n_levels() - 1);
}

static uint32_t rows_of(const mfi_attn *a)
{
    return a->ring ? a->ring : a->pos + a->n_tok;
}

/* Random numbers as a row; now and then a key that looks like a query, so that one weight takes
 * all and what was summed before must shrink. */
static void fill_row(mfi_rng *rng, attn_case *c, uint32_t row)
{
    const mfi_attn *a = &c->a;
    float x[1024];
    uint8_t *at = c->cache + row * a->row_bytes;
    bool like = mft_below(rng, 50) == 0;
    for (uint32_t i = 0; i < a->dim; i++)
        x[i] = like ? a->q[i] * 2 : mft_normal(rng);
    best()->store_row(x, a->dim, c->type, at);
    for (uint32_t i = 0; i < a->dim_v; i++)
        x[i] = mft_normal(rng);
    best()->store_row(x, a->dim_v, c->type_v, at + c->head_bytes);
}

static attn_case make_case(mfi_rng *rng, uint32_t i, bool windows)
{
    static const uint16_t any[] = {1, 7, 8, 17, 64, 72, 100, 128, 192, 256, 576, 1024};
    static const uint16_t whole[] = {32, 64, 96, 128, 192, 256, 576, 1024};
    const mfi_qtype types[] = {mfi_qtype_float(MFI_Q_F32), mfi_qtype_float(MFI_Q_F16), MFI_KV_Q8_0};
    attn_case c = {.type = types[i % 3], .type_v = types[i / 3 % 3]};
    mfi_attn *a = &c.a;
    a->type_k = c.type;
    a->type_v = c.type_v;
    a->dim = i % 3 == 2 ? whole[mft_below(rng, 8)] : any[mft_below(rng, 12)];
    a->dim_v = i / 3 % 3 == 2 ? whole[mft_below(rng, 8)] : any[mft_below(rng, 12)];
    a->n_heads = mft_between(rng, 1, i % 5 ? 9 : 70);
    a->n_tok = mft_between(rng, 1, i % 4 ? 5 : 20);
    a->pos = mft_below(rng, i % 7 ? 150 : 3);
    if (windows) {
        a->window = mft_between(rng, 1, 130);
        a->ring = mft_below(rng, 3) ? a->window - 1 + a->n_tok + mft_below(rng, 9) : 0;
    }
    a->scale = (i % 3 ? 1.0f : 20.0f) / sqrtf((float)a->dim);
    a->ldq = a->dim + mft_below(rng, 3);
    a->ldq_tok = a->ldq * a->n_heads + mft_below(rng, 3);
    a->ldo = a->dim_v + mft_below(rng, 3);
    a->ldo_tok = a->ldo * a->n_heads + mft_below(rng, 3);
    a->q =
        mft_random_floats(rng, a->ldq_tok * (a->n_tok - 1) + a->ldq * (a->n_heads - 1) + a->dim, 1);
    c.n_out = a->ldo_tok * (a->n_tok - 1) + a->ldo * (a->n_heads - 1) + a->dim_v;
    float *sinks = mft_floats(a->n_heads, MFT_AT_END);
    for (uint32_t h = 0; h < a->n_heads; h++)
        sinks[h] = h % 3 == 2 ? -INFINITY : (float)mft_below(rng, 9) - 4;
    a->sinks = i % 2 ? sinks : NULL;
    c.head_bytes = (size_t)mfi_quant_row_bytes(c.type, 0, a->dim);
    c.v_bytes = (size_t)mfi_quant_row_bytes(c.type_v, 0, a->dim_v);
    /* Floats lie at multiples of 4, q8_0 anywhere. */
    a->row_bytes = c.head_bytes + c.v_bytes + 4 * (size_t)mft_below(rng, 3);
    c.cache =
        mft_guard_alloc(a->row_bytes * (rows_of(a) - 1) + c.head_bytes + c.v_bytes, MFT_AT_END);
    for (uint32_t row = 0; row < rows_of(a); row++)
        fill_row(rng, &c, row);
    a->k = c.cache;
    a->v = c.cache + c.head_bytes;
    return c;
}

/* One query by the definition: a plain softmax over all that it sees, with the sink's logit. */
static void naive(const attn_case *c, uint32_t t, uint32_t h, double *want)
{
    const mfi_attn *a = &c->a;
    const float *q = a->q + t * a->ldq_tok + h * a->ldq;
    const uint32_t end = a->pos + t + 1, begin = a->window && a->window < end ? end - a->window : 0;
    static double score[512];
    float row[1024];
    double max = a->sinks ? (double)a->sinks[h] : -INFINITY, sum = 0;
    for (uint32_t j = begin; j < end; j++) {
        const void *at = (const char *)a->k + (a->ring ? j % a->ring : j) * a->row_bytes;
        mfi_dequant_row(c->type, &at, a->dim, row);
        score[j] = 0;
        for (uint32_t i = 0; i < a->dim; i++)
            score[j] += (double)q[i] * (double)row[i] * (double)a->scale;
        max = fmax(max, score[j]);
    }
    sum = a->sinks ? exp((double)a->sinks[h] - max) : 0;
    memset(want, 0, a->dim_v * sizeof *want);
    for (uint32_t j = begin; j < end; j++) {
        const void *at = (const char *)a->v + (a->ring ? j % a->ring : j) * a->row_bytes;
        mfi_dequant_row(c->type_v, &at, a->dim_v, row);
        sum += exp(score[j] - max);
        for (uint32_t i = 0; i < a->dim_v; i++)
            want[i] += exp(score[j] - max) * (double)row[i];
    }
    for (uint32_t i = 0; i < a->dim_v; i++)
        want[i] /= sum;
}

/* All queries at once, then each alone: the same bits. */
static void run_level(const mfi_kernels *k, attn_case *c)
{
    mfi_attn one = c->a;
    c->out = mft_floats(c->n_out, MFT_AT_END);
    c->a.out = c->out;
    k->attend(&c->a);
    one.n_heads = one.n_tok = 1;
    one.out = mft_floats(c->a.dim_v, MFT_AT_END);
    for (uint32_t i = 0; i < c->a.n_tok * c->a.n_heads; i++) {
        const uint32_t t = i / c->a.n_heads, h = i % c->a.n_heads;
        one.q = c->a.q + t * c->a.ldq_tok + h * c->a.ldq;
        one.pos = c->a.pos + t;
        one.sinks = c->a.sinks ? c->a.sinks + h : NULL;
        k->attend(&one);
        assert_memory_equal(one.out, c->out + t * c->a.ldo_tok + h * c->a.ldo,
                            c->a.dim_v * sizeof *one.out);
    }
}

static void check_values(const attn_case *c, uint32_t level, uint32_t i)
{
    double want[1024];
    for (uint32_t q = 0; q < c->a.n_tok * c->a.n_heads; q++) {
        const uint32_t t = q / c->a.n_heads, h = q % c->a.n_heads;
        const float *out = c->out + t * c->a.ldo_tok + h * c->a.ldo;
        naive(c, t, h, want);
        for (uint32_t d = 0; d < c->a.dim_v; d++)
            if (!(fabs((double)out[d] - want[d]) <= 1e-4))
                fail_msg("level %u, case %u (seed %llu): token %u, head %u, [%u] %g, not %g", level,
                         i, (unsigned long long)mft_last_seed(), t, h, d, (double)out[d], want[d]);
    }
}

static void check_case(mfi_rng *rng, uint32_t i, bool windows)
{
    attn_case c = make_case(rng, i, windows);
    float *x86 = NULL;
    for (uint32_t level = 0; level < mft_n_levels(); level++) {
        run_level(mft_level(level), &c);
        check_values(&c, level, i);
        if (x86)
            assert_memory_equal(c.out, x86, c.n_out * sizeof *x86);
        x86 = level > 0 ? c.out : NULL;
    }
    mft_guard_free();
}

static void attention(void **state)
{
    (void)state;
    mfi_rng rng;
    for (uint32_t i = 0; i < N_CASES; i++) {
        mft_seed(&rng, i);
        check_case(&rng, i, false);
    }
}

static void windows_and_rings(void **state)
{
    (void)state;
    mfi_rng rng;
    for (uint32_t i = 0; i < N_CASES; i++) {
        mft_seed(&rng, 5000 + i);
        check_case(&rng, i, true);
    }
}

/* A ring changes no bit. */
static void where_a_ring_ends(void **state)
{
    (void)state;
    mfi_rng rng;
    for (uint32_t i = 0; i < N_CASES / 2; i++) {
        mft_seed(&rng, 6000 + i);
        attn_case c = make_case(&rng, i, true), plain = c;
        if (!c.a.ring)
            continue;
        const uint32_t n = c.a.pos + c.a.n_tok;
        uint8_t *rows = mft_guard_alloc(n * c.a.row_bytes, MFT_AT_END);
        for (uint32_t j = n > c.a.ring ? n - c.a.ring : 0; j < n; j++)
            memcpy(rows + j * c.a.row_bytes, c.cache + j % c.a.ring * c.a.row_bytes,
                   c.head_bytes + c.v_bytes);
        plain.a.ring = 0;
        plain.a.k = rows;
        plain.a.v = rows + c.head_bytes;
        for (uint32_t level = 0; level < mft_n_levels(); level++) {
            run_level(mft_level(level), &c);
            run_level(mft_level(level), &plain);
            assert_memory_equal(c.out, plain.out, c.n_out * sizeof *c.out);
        }
        mft_guard_free();
    }
}

/* Scores far beyond what exp can take, sinks that take all or nothing, numbers that are none. */
static void extremes(void **state)
{
    (void)state;
    for (uint32_t level = 0; level < mft_n_levels(); level++) {
        const mfi_kernels *kern = mft_level(level);
        float q[2] = {1, 0}, kv[130][3] = {{0}}, out[1], sink;
        mfi_attn a = {.q = q, .out = out, .n_heads = 1, .n_tok = 1, .scale = 1};
        a.type_k = a.type_v = mfi_qtype_float(MFI_Q_F32);
        a.k = kv[0];
        a.v = &kv[0][2];
        a.row_bytes = sizeof kv[0];
        a.dim = 2;
        a.dim_v = 1;
        for (int j = 0; j < 130; j++) {
            kv[j][0] = j == 100 ? 1e30f : (float)j * -1e28f;
            kv[j][2] = (float)j;
        }
        a.pos = 129;
        kern->attend(&a);
        assert_true(out[0] == 100);
        a.pos = 99;
        kern->attend(&a);
        assert_true(out[0] == 0);
        kv[70][0] = NAN;
        kern->attend(&a);
        assert_true(isnan(out[0]));
        a.window = 29; /* from position 71 on */
        kern->attend(&a);
        assert_true(out[0] == 71);
        a.window = 0;
        kv[70][0] = 0;
        a.sinks = &sink;
        sink = 1e30f;
        kern->attend(&a);
        assert_true(out[0] == 0);
        sink = -3e38f;
        a.window = 29;
        kern->attend(&a);
        assert_true(out[0] == 71);
        sink = NAN;
        kern->attend(&a);
        assert_true(isnan(out[0]));
    }
}

/* A token's value that is not a number never reaches the tokens before it. */
static void nothing_from_later_tokens(void **state)
{
    (void)state;
    for (uint32_t level = 0; level < mft_n_levels(); level++) {
        float q[3][2] = {{1, 0}, {0, 1}, {1, 1}}, kv[3][3] = {{1, 2, 3}, {2, 1, 4}, {1, 1, NAN}};
        float out[3];
        mfi_attn a = {.q = q[0], .out = out, .n_heads = 1, .n_tok = 3, .scale = 1};
        a.type_k = a.type_v = mfi_qtype_float(MFI_Q_F32);
        a.ldq_tok = 2;
        a.ldo_tok = 1;
        a.k = kv[0];
        a.v = &kv[0][2];
        a.row_bytes = sizeof kv[0];
        a.dim = 2;
        a.dim_v = 1;
        mft_level(level)->attend(&a);
        assert_true(out[0] == 3 && out[1] > 3 && out[1] < 4 && isnan(out[2]));
    }
}

/* Rows of every type: what they say is near to what they were made from, the same bits everywhere,
 * and numbers that are none stay so. */
static void rows(void **state)
{
    (void)state;
    const mfi_qtype types[] = {mfi_qtype_float(MFI_Q_F32), mfi_qtype_float(MFI_Q_F16), MFI_KV_Q8_0};
    mfi_rng rng;
    for (uint32_t i = 0; i < 90; i++) {
        mft_seed(&rng, 7000 + i);
        const mfi_qtype type = types[i % 3];
        const uint32_t n = i % 3 == 2 ? 32 * mft_between(&rng, 1, 9) : mft_between(&rng, 1, 70);
        const float size = i % 10 == 9 ? 1e-6f : i % 10 == 8 ? 1e4f : 1;
        float *x = mft_random_floats(&rng, n, size), max = 0, back[300];
        const size_t bytes = (size_t)mfi_quant_row_bytes(type, 0, n);
        uint8_t *first = NULL;
        for (uint32_t j = 0; j < n; j++)
            max = fmaxf(max, fabsf(x[j]));
        for (uint32_t level = 0; level < mft_n_levels(); level++) {
            uint8_t *row = mft_guard_alloc(bytes, MFT_AT_END);
            mft_level(level)->store_row(x, n, type, row);
            first = first ? first : row;
            assert_memory_equal(row, first, bytes);
        }
        mfi_dequant_row(type, (const void *const[]){first}, n, back);
        /* Half a step; a half has 11 bits, and none below 2^-24, nor has q8_0's scale. */
        const float step = i % 3 == 2 ? max / 127 * 1.01f : i % 3 == 1 ? max * 0x1p-10f : 0;
        for (uint32_t j = 0; j < n; j++)
            assert_true(fabsf(back[j] - x[j]) <= step / 2 + (i % 3 ? 0x1p-25f * 130 : 0));
        for (uint32_t bad = 0; bad < 3; bad++) {
            float keep = x[0];
            x[0] = bad == 0 ? NAN : bad == 1 ? INFINITY : -1e38f;
            for (uint32_t level = 0; level < mft_n_levels(); level++) {
                uint8_t *row = mft_guard_alloc(bytes, MFT_AT_END);
                mft_level(level)->store_row(x, n, type, row);
                mfi_dequant_row(type, (const void *const[]){row}, n, back);
                assert_true(i % 3 == 0 ? !(fabsf(back[0]) < 1e37f) : !isfinite(back[0]));
            }
            x[0] = keep;
        }
        mft_guard_free();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention),
        cmocka_unit_test(windows_and_rings),
        cmocka_unit_test(where_a_ring_ends),
        cmocka_unit_test(extremes),
        cmocka_unit_test(nothing_from_later_tokens),
        cmocka_unit_test(rows),
    };
    return mft_run(tests);
}
