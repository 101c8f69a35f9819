/* The Metal kernels that go over rows, against double precision: norms, rotary tables, sums,
 * activations, and what joins the experts. */
#include "rig.h"

#include <math.h>
#include <string.h>

#include "op/op.h"
#include "op/rope.h"

static float *random_copy(mfi_rng *rng, size_t n, float deviation)
{
    return rig_copy(mft_random_floats(rng, n, deviation), n * sizeof(float));
}

static void each_case(void (*one)(mfi_rng *rng, uint32_t i), uint32_t n, uint64_t seed)
{
    for (uint32_t i = 0; i < n; i++) {
        mfi_rng rng;
        mft_seed(&rng, seed + i);
        one(&rng, i);
        mft_guard_free();
    }
}

/* ---- norms ---- */

static void one_norm(mfi_rng *rng, uint32_t i)
{
    static const uint16_t sizes[] = {1, 31, 32, 127, 128, 129, 300, 1024, 1500, 2048};
    mfi_metal_rmsnorm a = {.n = sizes[i % 10],
                           .n_tok = mft_between(rng, 1, 5),
                           .by_head = i / 10 % 2,
                           .eps = i % 3 ? 1e-6f : 0.1f};
    a.ldx = a.n + mft_below(rng, 3);
    a.ldy = a.n + mft_below(rng, 3);
    const float *x = random_copy(rng, (size_t)a.ldx * 6, i % 4 ? 1 : 1e-4f);
    const float *w = random_copy(rng, a.n, 1);
    uint32_t *rows = rig_alloc(a.n_tok * sizeof *rows);
    size_t bytes = (size_t)a.ldy * a.n_tok * sizeof(float);
    float *y = rig_alloc(bytes);
    for (uint32_t t = 0; t < a.n_tok; t++)
        rows[t] = a.by_head ? mft_below(rng, 6) : t;
    rig r = {{(void *)x, (void *)w, rows, y}, {0, 0, 0, bytes}};
    mfi_metal_call call = mfi_metal_rmsnorm_call(&a);
    rig_run(&r, &call, &a);
    for (uint32_t t = 0; t < a.n_tok; t++) {
        const float *in = x + (size_t)rows[t] * a.ldx;
        double sq = 0;
        for (uint32_t k = 0; k < a.n; k++)
            sq += (double)in[k] * (double)in[k];
        for (uint32_t k = 0; k < a.n; k++) {
            double want = in[k] / sqrt(sq / a.n + (double)a.eps) * (double)w[k];
            rig_near("norm", y[(size_t)t * a.ldy + k], want, 2e-6 * fabs(want) + 1e-12, k);
        }
    }
}

static void norms(void **state)
{
    (void)state;
    each_case(one_norm, 40, 100);
}

/* ---- rotary tables ---- */

static void one_table(mfi_rng *rng, uint32_t i)
{
    mfi_rope rope = {.kind = i % 2 ? MFI_ROPE_YARN : MFI_ROPE_PLAIN,
                     .theta = i % 3 ? 1e4 : 5e6,
                     .factor = 4,
                     .original_ctx = 4096,
                     .beta_fast = 32,
                     .beta_slow = 1,
                     .attn_factor = 1.1};
    mfi_metal_rope_table a = {.n_tok = 7, .n_pairs = mft_between(rng, 1, 130), .factor = 1.1f};
    double freq[130];
    uint64_t *turns = rig_alloc(a.n_pairs * sizeof *turns);
    uint32_t *pos = rig_alloc(a.n_tok * sizeof *pos);
    a.ldy = 2 * a.n_pairs + mft_below(rng, 2);
    size_t bytes = (size_t)a.ldy * a.n_tok * sizeof(float);
    float *y = rig_alloc(bytes);
    mfi_rope_frequencies(&rope, 2 * a.n_pairs, freq);
    for (uint32_t k = 0; k < a.n_pairs; k++)
        turns[k] = mfi_metal_turns(freq[k]);
    for (uint32_t t = 0; t < a.n_tok; t++)
        pos[t] = t == 0 ? 0 : mft_below(rng, t < 3 ? 50 : MFI_MAX_CTX);
    rig r = {{turns, pos, y}, {0, 0, bytes}};
    mfi_metal_call call = mfi_metal_rope_table_call(&a);
    rig_run(&r, &call, &a);
    for (uint32_t t = 0; t < a.n_tok; t++)
        for (uint32_t k = 0; k < a.n_pairs; k++) {
            double angle = pos[t] * freq[k];
            rig_near("cosine", y[(size_t)t * a.ldy + k], 1.1 * cos(angle), 2.5e-7, k);
            rig_near("sine", y[(size_t)t * a.ldy + a.n_pairs + k], 1.1 * sin(angle), 2.5e-7, k);
        }
}

static void tables(void **state)
{
    (void)state;
    each_case(one_table, 24, 200);
}

/* ---- sums and activations ---- */

static void one_add(mfi_rng *rng, uint32_t i)
{
    mfi_metal_add a = {.n = mft_between(rng, 1, 600),
                       .n_tok = mft_between(rng, 1, 4),
                       .factor = i % 2 ? 1 : 0.22f};
    a.ldx = i % 3 ? a.n + 1 : 0;
    a.ldy = a.n + mft_below(rng, 3);
    size_t bytes = (size_t)a.ldy * a.n_tok * sizeof(float);
    const float *x = random_copy(rng, a.ldx ? (size_t)a.ldx * a.n_tok : a.n, 1);
    float *y = random_copy(rng, (size_t)a.ldy * a.n_tok, 1), *old = rig_copy(y, bytes);
    rig r = {{(void *)x, y}, {0, bytes}};
    mfi_metal_call call = mfi_metal_add_call(&a);
    rig_run(&r, &call, &a);
    for (uint32_t t = 0; t < a.n_tok; t++)
        for (uint32_t k = 0; k < a.n; k++) {
            /* A rounding for the product, and one for the sum: the bits of every backend. */
            volatile float more = a.factor * x[(size_t)t * a.ldx + k];
            rig_near("sum", y[(size_t)t * a.ldy + k], old[(size_t)t * a.ldy + k] + more, 0, k);
        }
    mfi_metal_scale s = {.n = bytes / sizeof(float), .factor = 0.3f};
    rig scaled = {{old}, {bytes}};
    float *before = rig_copy(old, bytes);
    call = mfi_metal_scale_call(&s);
    rig_run(&scaled, &call, &s);
    for (size_t k = 0; k < s.n; k++)
        rig_near("scaled", old[k], before[k] * 0.3f, 0, k);
}

static void sums(void **state)
{
    (void)state;
    each_case(one_add, 12, 300);
}

static double glu(const mfi_metal_glu *a, double g, double u)
{
    if (a->kind == MFI_METAL_GLU_SILU)
        return g / (1 + exp(-g)) * u;
    g = fmin(g, (double)a->limit);
    u = fmax(fmin(u, (double)a->limit), -(double)a->limit);
    return (u + 1) * (g / (1 + exp(-(double)a->alpha * g)));
}

static void one_glu(mfi_rng *rng, uint32_t i)
{
    mfi_metal_glu a = {.n = mft_between(rng, 1, 300),
                       .n_tok = mft_between(rng, 1, 4),
                       .interleaved = i % 2,
                       .kind = i % 3 ? MFI_METAL_GLU_SILU : MFI_METAL_GLU_CLAMPED,
                       .alpha = 1.702f,
                       .limit = 2};
    a.ldg = a.n * (1 + a.interleaved) + 1;
    a.ldu = a.n + 2;
    a.ldy = a.n + 3;
    size_t bytes = (size_t)a.ldy * a.n_tok * sizeof(float);
    float *gate = random_copy(rng, (size_t)a.ldg * a.n_tok, i % 4 ? 2 : 40);
    const float *up = random_copy(rng, (size_t)a.ldu * a.n_tok, 2);
    float *y = rig_alloc(bytes);
    rig r = {{gate, (void *)up, y}, {0, 0, bytes}};
    mfi_metal_call call = mfi_metal_glu_call(&a);
    rig_run(&r, &call, &a);
    for (uint32_t t = 0; t < a.n_tok; t++)
        for (uint32_t k = 0; k < a.n; k++) {
            const float *g = gate + (size_t)t * a.ldg;
            double u = a.interleaved ? g[2 * k + 1] : up[(size_t)t * a.ldu + k];
            double want = glu(&a, a.interleaved ? g[2 * k] : g[k], u);
            rig_near("glu", y[(size_t)t * a.ldy + k], want, 1e-6 * (1 + fabs(want)), k);
        }
    if (!a.interleaved) { /* in place, as the experts' kernels use it */
        rig place = {{gate, (void *)up, gate}, {(size_t)a.ldg * a.n_tok * 4}};
        a.ldy = a.ldg;
        rig_run(&place, &call, &a);
        for (uint32_t t = 0; t < a.n_tok; t++)
            assert_memory_equal(gate + (size_t)t * a.ldg, y + (size_t)t * (a.n + 3), a.n * 4);
    }
}

static void activations(void **state)
{
    (void)state;
    each_case(one_glu, 24, 400);
}

/* ---- the sum of experts ---- */

static void one_combine(mfi_rng *rng, uint32_t i)
{
    mfi_metal_combine a = {.hidden = mft_between(rng, 1, 300),
                           .top_k = mft_between(rng, 1, 6),
                           .n_tok = mft_between(rng, 1, 5),
                           .how = i % 3,
                           .factor = i % 2 ? 1 : 0.22f};
    uint32_t n_pairs = a.n_tok * a.top_k;
    a.ld_res = a.hidden + 1;
    a.ld_sum = a.hidden + 2;
    a.ldy = a.hidden + 3;
    a.ldw = a.top_k + 1;
    a.ldg = 2;
    size_t res_bytes = (size_t)a.ld_res * a.n_tok * 4, sum_bytes = (size_t)a.ld_sum * a.n_tok * 4;
    float *res = random_copy(rng, res_bytes / 4, 1), *sum = random_copy(rng, sum_bytes / 4, 1);
    const float *res_old = rig_copy(res, res_bytes), *sum_old = rig_copy(sum, sum_bytes);
    const float *y = random_copy(rng, (size_t)a.ldy * n_pairs, 1);
    const float *w = random_copy(rng, (size_t)a.ldw * a.n_tok, 1);
    const float *gate = random_copy(rng, (size_t)a.ldg * a.n_tok, 1);
    uint32_t *pair_of = rig_alloc(n_pairs * sizeof *pair_of);
    for (uint32_t p = 0; p < n_pairs; p++)
        pair_of[p] = n_pairs - 1 - p;
    rig r = {{res, sum, (void *)y, (void *)w, (void *)gate, pair_of}, {res_bytes, sum_bytes}};
    mfi_metal_call call = mfi_metal_combine_call(&a);
    rig_run(&r, &call, &a);
    for (uint32_t t = 0; t < a.n_tok; t++)
        for (uint32_t k = 0; k < a.hidden; k++) {
            double all = sum_old[(size_t)t * a.ld_sum + k];
            all *= a.how == MFI_COMBINE_GATED    ? 1 / (1 + exp(-(double)gate[t * a.ldg]))
                   : a.how == MFI_COMBINE_SHARED ? 1
                                                 : 0;
            for (uint32_t e = 0; e < a.top_k; e++)
                all += (double)w[t * a.ldw + e] *
                       (double)y[(size_t)pair_of[t * a.top_k + e] * a.ldy + k];
            double want = res_old[(size_t)t * a.ld_res + k] + (double)a.factor * all;
            rig_near("sum of experts", sum[(size_t)t * a.ld_sum + k], all, 2e-6, k);
            rig_near("residual stream", res[(size_t)t * a.ld_res + k], want, 2e-6, k);
        }
}

static void experts_joined(void **state)
{
    (void)state;
    each_case(one_combine, 18, 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norms),       cmocka_unit_test(tables),         cmocka_unit_test(sums),
        cmocka_unit_test(activations), cmocka_unit_test(experts_joined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
