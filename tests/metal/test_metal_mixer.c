/* Gated DeltaNet's and the router's Metal kernels: against double precision and the plain C level;
 * the same bits for any cut of the tokens; groups of choices against the order that the host makes.
 */
#include "rig.h"

#include <math.h>
#include <string.h>

static float *random_copy(mfi_rng *rng, size_t n, float deviation)
{
    return rig_copy(mft_random_floats(rng, n, deviation), n * sizeof(float));
}

/* ---- the convolution ---- */

static void one_conv(mfi_rng *rng)
{
    mfi_metal_conv a = {
        .n_ch = mft_between(rng, 1, 150), .n_taps = mft_between(rng, 1, 5), .n_tok = 9};
    a.ldx = a.n_ch + mft_below(rng, 3);
    uint32_t rows = a.n_taps - 1;
    size_t x_bytes = (size_t)a.ldx * a.n_tok * 4, state_bytes = (size_t)rows * a.n_ch * 4;
    float *x = random_copy(rng, x_bytes / 4, 1), *again = rig_copy(x, x_bytes);
    float *state = random_copy(rng, state_bytes / 4, 1), *other = rig_copy(state, state_bytes);
    const float *old = rig_copy(x, x_bytes), *before = rig_copy(state, state_bytes);
    const float *w = random_copy(rng, (size_t)a.n_ch * a.n_taps, 1);
    rig r = {{state, (void *)w, x}, {state_bytes, 0, x_bytes}};
    mfi_metal_call call = mfi_metal_conv_call(&a);
    rig_run(&r, &call, &a);
    for (uint32_t c = 0; c < a.n_ch; c++)
        for (uint32_t t = 0; t < a.n_tok; t++) {
            double sum = 0;
            for (uint32_t j = 0; j < a.n_taps; j++) {
                uint32_t at = t + j; /* the state's rows, then the tokens */
                double in = at < rows ? before[at * a.n_ch + c] : old[(at - rows) * a.ldx + c];
                sum += w[c * a.n_taps + j] * in;
            }
            rig_near("convolution", x[t * a.ldx + c], sum / (1 + exp(-sum)), 3e-6, c);
        }
    for (uint32_t j = 0; j < rows; j++)
        for (uint32_t c = 0; c < a.n_ch; c++) {
            uint32_t at = a.n_tok + j;
            float want = at < rows ? before[at * a.n_ch + c] : old[(at - rows) * a.ldx + c];
            rig_near("convolution's state", state[j * a.n_ch + c], (double)want, 0, c);
        }
    for (uint32_t t = 0; t < 9; t += 4) { /* in pieces */
        a.n_tok = MFI_MIN(4, 9 - t);
        rig piece = {{other, (void *)w, again + (size_t)t * a.ldx},
                     {state_bytes, 0, (size_t)a.ldx * a.n_tok * 4}};
        rig_run(&piece, &call, &a);
    }
    assert_memory_equal(again, x, x_bytes);
    assert_memory_equal(other, state, state_bytes);
}

static void convolution(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 10; i++) {
        mfi_rng rng;
        mft_seed(&rng, 100 + i);
        one_conv(&rng);
        mft_guard_free();
    }
}

/* ---- the delta rule ---- */

enum { QKV, Z, B, A, NEG_EXP_A, DT, NORM, STATE, OUT };

typedef struct gdn_case {
    mfi_metal_gdn g;
    float *in[STATE];
    size_t state_bytes;
    float *state;
} gdn_case;

static gdn_case make_gdn(mfi_rng *rng, uint32_t i)
{
    static const uint16_t k_dims[] = {64, 128, 16, 40, 1}, v_dims[] = {64, 128, 33, 1, 256, 300};
    gdn_case c = {.g = {.k_heads = mft_between(rng, 1, 2),
                        .k_dim = k_dims[i % 5],
                        .v_dim = v_dims[i % 6],
                        .n_tok = mft_between(rng, 1, 6),
                        .tiled = i % 2,
                        .eps = 1e-6f}};
    mfi_metal_gdn *g = &c.g;
    g->v_heads = g->k_heads * mft_between(rng, 1, 2);
    g->q_scale = 1 / sqrtf((float)g->k_dim);
    g->ld_qkv = 2 * g->k_heads * g->k_dim + g->v_heads * g->v_dim + 1;
    g->ld_z = g->v_heads * g->v_dim + 2;
    g->ldo = g->v_heads * g->v_dim + 3;
    g->ld_b = g->v_heads + 1;
    g->ld_a = g->v_heads + 2;
    const size_t sizes[STATE] = {(size_t)g->ld_qkv * g->n_tok,
                                 (size_t)g->ld_z * g->n_tok,
                                 (size_t)g->ld_b * g->n_tok,
                                 (size_t)g->ld_a * g->n_tok,
                                 g->v_heads,
                                 g->v_heads,
                                 g->v_dim};
    for (int k = 0; k < STATE; k++)
        c.in[k] = random_copy(rng, sizes[k], 1);
    for (uint32_t h = 0; h < g->v_heads; h++)
        c.in[NEG_EXP_A][h] = -expf(c.in[NEG_EXP_A][h]);
    size_t n = (size_t)g->v_heads * g->k_dim * g->v_dim;
    c.state_bytes = n * sizeof(float);
    c.state = random_copy(rng, n, 0.3f);
    return c;
}

static double unit(const float *x, uint32_t n)
{
    double sq = 1e-6;
    for (uint32_t i = 0; i < n; i++)
        sq += (double)x[i] * (double)x[i];
    return 1 / sqrt(sq);
}

/* A token of a head, by the formulas of kernels.h's gdn_step. */
static void naive_step(const gdn_case *c, uint32_t t, uint32_t h, double *s, double *out)
{
    const mfi_metal_gdn *g = &c->g;
    const uint32_t dk = g->k_dim, dv = g->v_dim;
    const uint32_t k_head = g->tiled ? h % g->k_heads : h / (g->v_heads / g->k_heads);
    const float *row = c->in[QKV] + (size_t)t * g->ld_qkv, *q = row + (size_t)k_head * dk;
    const float *k = q + (size_t)g->k_heads * dk;
    const float *v = row + (size_t)2 * g->k_heads * dk + (size_t)h * dv;
    const double x = (double)c->in[A][t * g->ld_a + h] + (double)c->in[DT][h];
    const double decay = exp(c->in[NEG_EXP_A][h] * log1p(exp(x)));
    const double beta = 1 / (1 + exp(-(double)c->in[B][t * g->ld_b + h]));
    const double uq = unit(q, dk) / sqrt(dk), uk = unit(k, dk);
    double sq = 0;
    for (uint32_t j = 0; j < dv; j++) {
        double m = 0;
        for (uint32_t i = 0; i < dk; i++) {
            s[i * dv + j] *= decay;
            m += s[i * dv + j] * k[i] * uk;
        }
        out[j] = 0;
        for (uint32_t i = 0; i < dk; i++) {
            s[i * dv + j] += k[i] * uk * beta * (v[j] - m);
            out[j] += s[i * dv + j] * q[i] * uq;
        }
        sq += out[j] * out[j];
    }
    for (uint32_t j = 0; j < dv; j++) {
        double z = c->in[Z][(size_t)t * g->ld_z + (size_t)h * dv + j];
        out[j] *= z / (1 + exp(-z)) / sqrt(sq / dv + (double)g->eps) * (double)c->in[NORM][j];
    }
}

/* Tokens [first, first + n) on a state. */
static void run_gdn(const gdn_case *c, uint32_t first, uint32_t n, float *state, float *out)
{
    mfi_metal_gdn g = c->g;
    rig r = {{c->in[QKV] + (size_t)first * g.ld_qkv, c->in[Z] + (size_t)first * g.ld_z,
              c->in[B] + (size_t)first * g.ld_b, c->in[A] + (size_t)first * g.ld_a,
              c->in[NEG_EXP_A], c->in[DT], c->in[NORM], state, out + (size_t)first * g.ldo},
             {0}};
    g.n_tok = n;
    r.out_bytes[STATE] = c->state_bytes;
    r.out_bytes[OUT] = (size_t)n * g.ldo * sizeof *out;
    mfi_metal_call call = mfi_metal_gdn_call(&g);
    rig_run(&r, &call, &g);
}

static void one_gdn(mfi_rng *rng, uint32_t i)
{
    gdn_case c = make_gdn(rng, i);
    const mfi_metal_gdn *g = &c.g;
    size_t n = (size_t)g->k_dim * g->v_dim, out_bytes = (size_t)g->ldo * g->n_tok * 4;
    float *state = rig_copy(c.state, c.state_bytes), *cut = rig_copy(c.state, c.state_bytes);
    float *out = rig_alloc(out_bytes), *pieces = rig_alloc(out_bytes);
    double *s = mft_guard_alloc(n * sizeof *s, MFT_AT_END), want[300];
    run_gdn(&c, 0, g->n_tok, state, out);
    for (uint32_t h = 0; h < g->v_heads; h++) {
        for (size_t k = 0; k < n; k++)
            s[k] = c.state[h * n + k];
        for (uint32_t t = 0; t < g->n_tok; t++) {
            naive_step(&c, t, h, s, want);
            for (uint32_t j = 0; j < g->v_dim; j++)
                rig_near("delta rule", out[(size_t)t * g->ldo + h * g->v_dim + j], want[j],
                         3e-5 * (1 + fabs(want[j])), j);
        }
        for (size_t k = 0; k < n; k++)
            rig_near("delta rule's state", state[h * n + k], s[k], 1e-5 * (1 + fabs(s[k])), k);
    }
    for (uint32_t t = 0; t < g->n_tok; t += 2)
        run_gdn(&c, t, MFI_MIN(2, g->n_tok - t), cut, pieces);
    assert_memory_equal(cut, state, c.state_bytes);
    assert_memory_equal(pieces, out, out_bytes);
}

static void delta_rule(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < (MFT_SANITIZED ? 10 : 30); i++) {
        mfi_rng rng;
        mft_seed(&rng, 200 + i);
        one_gdn(&rng, i);
        mft_guard_free();
    }
}

/* ---- routers ---- */

static void one_route(mfi_rng *rng, uint32_t i)
{
    static const uint16_t sizes[] = {1, 4, 31, 32, 33, 64, 128, 160, 256, 512, 4096};
    mfi_metal_route a = {.score = i % 3,
                         .n = sizes[i / 3 % 11],
                         .corrected = i % 2,
                         .normalize = i % 5 > 1,
                         .scale = i % 4 ? 1 : 2.5f};
    a.n_tok = i % 7 ? mft_between(rng, 1, 6) : 1;
    a.list = a.n_tok == 1;
    a.top_k = mft_between(rng, 1, MFI_MIN(a.n, i % 10 ? 10u : 64u));
    if (a.n % 8 == 0 && i % 4 == 1) {
        a.n_groups = 8;
        a.n_groups_used = mft_between(rng, 1, 8);
        a.group_best = 1 + i / 4 % 2;
        a.top_k = MFI_MIN(a.top_k, a.n / 8 * a.n_groups_used);
    }
    a.ld = a.n + 1;
    a.ldw = a.top_k + 1;
    float *logits = random_copy(rng, (size_t)a.ld * a.n_tok, 2);
    const float *correction = random_copy(rng, a.n, 0.3f);
    if (i % 6 == 2 && a.n > 4) { /* ties: the earlier one */
        for (uint32_t e = 0; e < a.n; e++)
            logits[e] = (float)(e % 3);
    }
    size_t ids_bytes = (size_t)a.n_tok * a.top_k * 2, weight_bytes = (size_t)a.n_tok * a.ldw * 4;
    uint16_t *ids = rig_alloc(ids_bytes), want_ids[64];
    float *weights = rig_alloc(weight_bytes), want[64];
    uint64_t *slots = rig_alloc(a.n * sizeof *slots);
    mfi_metal_item *items = rig_alloc(a.top_k * sizeof *items);
    uint32_t *x_row = rig_alloc(a.top_k * 4), *pair_of = rig_alloc(a.top_k * 4);
    for (uint32_t e = 0; e < a.n; e++)
        slots[e] =
            i % 2 && mft_below(rng, 2 * a.top_k) == 0 ? MFI_METAL_NOWHERE : mfi_rng_next(rng);
    a.layer = i;
    rig r = {{logits, (void *)correction, ids, weights, slots, items, x_row, pair_of},
             {0, 0, ids_bytes, weight_bytes, 0, a.top_k * sizeof *items, a.top_k * 4, a.top_k * 4}};
    mfi_metal_call call = mfi_metal_route_call(&a);
    rig_run(&r, &call, &a);
    mfi_routing routing = {(mfi_score)a.score, a.n_groups,       a.n_groups_used,
                           a.group_best,       a.normalize != 0, a.scale};
    for (uint32_t t = 0; t < a.n_tok; t++) {
        mft_level(0)->route(&routing, logits + (size_t)t * a.ld, a.corrected ? correction : NULL,
                            a.n, a.top_k, want_ids, want);
        assert_memory_equal(ids + (size_t)t * a.top_k, want_ids, a.top_k * 2);
        for (uint32_t k = 0; k < a.top_k; k++)
            rig_near("weight", weights[(size_t)t * a.ldw + k], (double)want[k],
                     3e-6 * fabs((double)want[k]), k);
    }
    bool nowhere = false;
    for (uint32_t k = 0; a.list && k < a.top_k; k++) {
        assert_true(items[k].slot == slots[ids[k]] && items[k].first == k && items[k].n == 1);
        assert_true(x_row[k] == 0 && pair_of[k] == k);
        nowhere |= slots[ids[k]] == MFI_METAL_NOWHERE;
    }
    assert_int_equal(rig_stop(), nowhere ? i + 1 : 0);
}

static void routers(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 99; i++) {
        mfi_rng rng;
        mft_seed(&rng, 300 + i);
        one_route(&rng, i);
        mft_guard_free();
    }
}

/* ---- groups ---- */

static void one_group(mfi_rng *rng, uint32_t i)
{
    mfi_metal_group a = {.n_tok = mft_between(rng, 1, i % 3 ? 40 : 3),
                         .n_experts = i % 5 ? mft_between(rng, 1, 200) : MFI_METAL_MAX_GROUPED,
                         .tile = i % 2 ? MFI_METAL_TILE : mft_between(rng, 1, 5)};
    a.top_k = mft_between(rng, 1, MFI_MIN(a.n_experts, 8));
    uint32_t n = a.n_tok * a.top_k, hot = i % 4 == 0 ? MFI_MIN(a.n_experts, a.top_k) : a.n_experts;
    a.n_items = mfi_metal_group_items(a.n_tok, a.top_k, a.n_experts, a.tile);
    uint16_t *ids = rig_alloc(n * sizeof *ids);
    uint64_t *slots = rig_alloc(a.n_experts * sizeof *slots);
    mfi_metal_item *items = rig_alloc(a.n_items * sizeof *items);
    uint32_t *x_row = rig_alloc(n * 4), *pair_of = rig_alloc(n * 4);
    for (uint32_t t = 0; t < a.n_tok; t++) { /* distinct for a token */
        uint32_t first = mft_below(rng, hot);
        for (uint32_t k = 0; k < a.top_k; k++)
            ids[t * a.top_k + k] = (uint16_t)((first + k) % hot);
    }
    for (uint32_t e = 0; e < a.n_experts; e++)
        slots[e] = i % 2 && mft_below(rng, n) == 0 ? MFI_METAL_NOWHERE : mfi_rng_next(rng);
    a.layer = i;
    memset(items, 0xff, a.n_items * sizeof *items);
    rig r = {{ids, slots, items, x_row, pair_of}, {0, 0, a.n_items * sizeof *items, n * 4, n * 4}};
    mfi_metal_call call = mfi_metal_group_call(&a);
    rig_run(&r, &call, &a);
    uint32_t pair = 0, item = 0;
    bool nowhere = false;
    for (uint32_t e = 0; e < a.n_experts; e++) {
        uint32_t first = pair;
        for (uint32_t c = 0; c < n; c++)
            if (ids[c] == e) {
                assert_int_equal(pair_of[c], pair);
                assert_int_equal(x_row[pair++], c / a.top_k);
            }
        nowhere |= first < pair && slots[e] == MFI_METAL_NOWHERE;
        for (; first < pair; first += a.tile, item++) {
            assert_true(item < a.n_items && items[item].slot == slots[e]);
            assert_int_equal(items[item].first, first);
            assert_int_equal(items[item].n, MFI_MIN(pair - first, a.tile));
        }
    }
    assert_int_equal(pair, n);
    assert_int_equal(rig_stop(), nowhere ? i + 1 : 0);
    for (; item < a.n_items; item++)
        assert_int_equal(items[item].n, 0);
}

static void groups(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 20; i++) {
        mfi_rng rng;
        mft_seed(&rng, 400 + i);
        one_group(&rng, i);
        mft_guard_free();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolution),
        cmocka_unit_test(delta_rule),
        cmocka_unit_test(routers),
        cmocka_unit_test(groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
