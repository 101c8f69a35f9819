/* Products of the Metal kernels, every type of weights, against double precision; the same bits for
 * any number of tokens; experts' items, latent heads, transposed matrices, embeddings. */
#include "rig.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOK 70

typedef struct product {
    mfi_mat m;
    char name[64];
    const float *x; /* [MAX_TOK][cols] */
    rig r;
    mfi_metal_mm a;
} product;

static product random_product(mfi_rng *rng, mfi_qtype type)
{
    product it = {0};
    bool any = mfi_qtype_is_float(type) || type.kind == MFI_Q_FP8;
    uint32_t rows = mft_between(rng, 1, 21);
    uint32_t cols = any ? mft_between(rng, 1, 300) : 256 * mft_between(rng, 1, 2);
    if (!any && type.kind == MFI_Q_MLX)
        cols -= 128 * mft_below(rng, 2);
    mfi_quant_name(type, it.name, sizeof it.name);
    it.m = mft_random_mat(rng, type, rows, cols, 0.1f);
    it.x = rig_copy(mft_random_floats(rng, (size_t)MAX_TOK * cols, 1), MAX_TOK * cols * 4u);
    rig_planes(&it.r, &it.m);
    it.r.buffer[MFI_METAL_MM_X - 1] = (void *)it.x;
    it.r.buffer[MFI_METAL_MM_TABLES - 1] = rig_tables();
    it.a = (mfi_metal_mm){.mat = {mfi_metal_mat_of(type, rows, cols)}, .ldx = cols, .ldy = rows};
    return it;
}

/* Parts of every element, [rows][cols][2]. */
static double *elements(const mfi_mat *m)
{
    double *w = mft_guard_alloc((size_t)m->rows * m->cols * 2 * sizeof *w, MFT_AT_END);
    for (uint32_t r = 0; r < m->rows; r++)
        for (uint32_t c = 0; c < m->cols; c++) {
            double *at = w + ((size_t)r * m->cols + c) * 2;
            mft_element(m, r, c, at, at + 1);
        }
    return w;
}

/* What a row gives with x, and the bound in docs/numerics.md. */
static double exact(const double *w, uint32_t cols, uint32_t row, const float *x, double *bound)
{
    double sum = 0, size = 0;
    for (uint32_t c = 0; c < cols; c++) {
        const double *at = w + ((size_t)row * cols + c) * 2;
        sum += (at[0] + at[1]) * x[c];
        size += (fabs(at[0]) + fabs(at[1])) * fabs((double)x[c]);
    }
    *bound = ldexp(size, -24) * (6 + cols / 16.0);
    return sum;
}

static void multiply(product *it, uint32_t n_tok, float *y)
{
    it->a.n_tok = n_tok;
    it->r.buffer[MFI_METAL_MM_Y - 1] = y;
    it->r.out_bytes[MFI_METAL_MM_Y - 1] = (size_t)n_tok * it->m.rows * sizeof *y;
    mfi_metal_call call = mfi_metal_mm_call(&it->a, false);
    rig_run(&it->r, &call, &it->a);
}

static void one_type(mfi_qtype type, uint64_t seed)
{
    static const uint32_t counts[] = {1, 2, 7, 8, 9, 17};
    mfi_rng rng;
    mft_seed(&rng, seed);
    product it = random_product(&rng, type);
    uint32_t rows = it.m.rows, n_all = MFT_SANITIZED ? 10 : seed % 5 == 0 ? MAX_TOK : 19;
    float *all = rig_floats((size_t)n_all * rows);
    const double *w = elements(&it.m);
    multiply(&it, n_all, all);
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t t = 0; t < n_all; t += 9) {
            double bound, want = exact(w, it.m.cols, r, it.x + (size_t)t * it.m.cols, &bound);
            rig_near(it.name, all[t * rows + r], want, bound, t * rows + r);
        }
    for (size_t i = 0; i < MFI_ARRAY_LEN(counts) && counts[i] <= n_all; i++) {
        float *few = rig_floats((size_t)counts[i] * rows);
        multiply(&it, counts[i], few);
        if (memcmp(few, all, (size_t)counts[i] * rows * sizeof *few) != 0)
            fail_msg("%s, seed %llu: other bits with %u tokens", it.name,
                     (unsigned long long)mft_last_seed(), counts[i]);
    }
    mft_guard_free();
}

static void products(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < MFT_N_TYPES; i++)
        one_type(mft_type(i), 1000 + i);
}

/* ---- experts ---- */

#define N_EXPERTS 3
#define N_PAIRS   23

/* Two matrices with biases an expert, in slots of two buffers; pairs in items of any size. */
typedef struct experts {
    double *w[N_EXPERTS][2]; /* elements() */
    float *bias[N_EXPERTS][2];
    uint8_t *slots;
    uint64_t slot_bytes;
    mfi_metal_item *items;
    uint32_t n_items, *x_row;
    uint32_t expert_of[N_PAIRS];
    const float *x; /* [N_PAIRS][cols] */
    rig r;
    mfi_metal_mm a;
} experts;

static void fill_slots(mfi_rng *rng, experts *e, mfi_qtype type, uint32_t rows, uint32_t cols)
{
    uint64_t at = 0;
    for (int k = 0; k < 2; k++) {
        e->a.mat[k] = mfi_metal_mat_of(type, rows, cols);
        for (uint32_t p = 0; p < mfi_quant_n_planes(type); p++) {
            e->a.mat[k].offset[p] = at;
            at = mfi_align_up(at + mfi_quant_plane_bytes(type, p, rows, cols), 4);
        }
        e->a.bias_offset[k] = at;
        e->a.bias_kind[k] = MFI_METAL_F32;
        at += (uint64_t)rows * 4;
    }
    e->slot_bytes = at;
    e->slots = rig_alloc(at * N_EXPERTS);
    for (int i = 0; i < N_EXPERTS; i++)
        for (int k = 0; k < 2; k++) {
            uint8_t *slot = e->slots + (uint64_t)i * at;
            mfi_mat m = mft_random_mat(rng, type, rows, cols, 0.1f);
            e->w[i][k] = elements(&m);
            for (uint32_t p = 0; p < mfi_quant_n_planes(type); p++)
                memcpy(slot + e->a.mat[k].offset[p], m.planes[p],
                       mfi_quant_plane_bytes(type, p, rows, cols));
            e->bias[i][k] = mft_random_floats(rng, rows, 0.3f);
            memcpy(slot + e->a.bias_offset[k], e->bias[i][k], rows * 4u);
        }
}

/* The last item's slot is in a buffer that this product doesn't work on. */
static void fill_items(mfi_rng *rng, experts *e, uint32_t most)
{
    uint32_t n = 0;
    e->items = rig_alloc((N_PAIRS + 2) * sizeof *e->items);
    for (uint32_t p = 0; p < N_PAIRS;) {
        uint32_t expert = mft_below(rng, N_EXPERTS);
        uint32_t k = mft_between(rng, 1, most);
        k = MFI_MIN(k, N_PAIRS - p);
        e->items[n++] = (mfi_metal_item){MFI_METAL_SLOT(3, expert * e->slot_bytes), p, k};
        for (; k > 0; k--)
            e->expert_of[p++] = expert;
    }
    e->items[n++] = (mfi_metal_item){MFI_METAL_SLOT(3, 0), 5, 0};
    e->items[n++] = (mfi_metal_item){MFI_METAL_SLOT(2, 0), 0, N_PAIRS};
    e->n_items = n;
    e->x_row = rig_alloc(N_PAIRS * 4);
    for (uint32_t p = 0; p < N_PAIRS; p++)
        e->x_row[p] = mft_below(rng, N_PAIRS);
}

static experts random_experts(mfi_rng *rng, mfi_qtype type, uint32_t rows, uint32_t cols,
                              uint32_t most)
{
    experts e = {0};
    fill_slots(rng, &e, type, rows, cols);
    fill_items(rng, &e, most);
    e.x = rig_copy(mft_random_floats(rng, (size_t)N_PAIRS * cols, 1), N_PAIRS * cols * 4u);
    for (int i = 0; i < 3; i++)
        e.r.buffer[i] = e.slots;
    e.r.buffer[MFI_METAL_MM_X - 1] = (void *)e.x;
    e.r.buffer[MFI_METAL_MM_ITEMS - 1] = e.items;
    e.r.buffer[MFI_METAL_MM_X_ROW - 1] = e.x_row;
    e.r.buffer[MFI_METAL_MM_TABLES - 1] = rig_tables();
    e.a.ldx = cols;
    e.a.ldy = rows;
    e.a.n_items = e.n_items;
    e.a.slot_buffer = 3;
    return e;
}

static float *run_experts(experts *e, bool few)
{
    size_t n = (size_t)N_PAIRS * e->a.ldy;
    float *y = rig_floats(n);
    memset(y, 0xff, n * sizeof *y);
    e->r.buffer[MFI_METAL_MM_Y - 1] = y;
    e->r.out_bytes[MFI_METAL_MM_Y - 1] = n * sizeof *y;
    mfi_metal_call call = mfi_metal_mm_call(&e->a, few);
    rig_run(&e->r, &call, &e->a);
    return y;
}

static double glu(uint32_t kind, double alpha, double limit, double g, double u)
{
    if (kind == MFI_METAL_GLU_SILU)
        return g / (1 + exp(-g)) * u;
    g = fmin(g, limit);
    u = fmax(fmin(u, limit), -limit);
    return (u + 1) * (g / (1 + exp(-alpha * g)));
}

/* Values are near 1, and so are the derivatives of what joins them. */
static void check_experts(const experts *e, const char *name, const float *y)
{
    for (uint32_t p = 0; p < N_PAIRS; p++)
        for (uint32_t r = 0; r < e->a.ldy; r++) {
            const float *x = e->x + (size_t)(e->a.by_pair ? p : e->x_row[p]) * e->a.ldx;
            uint32_t i = e->expert_of[p];
            double bound, more, want = exact(e->w[i][0], e->a.ldx, r, x, &bound) + e->bias[i][0][r];
            bound += ldexp(fabs(want), -23);
            if (e->a.glu) {
                double up = exact(e->w[i][1], e->a.ldx, r, x, &more) + e->bias[i][1][r];
                bound = (bound + more + ldexp(8, -24)) * (2 + fabs(up) + fabs(want)) * 2;
                want = glu(e->a.glu, e->a.glu_alpha, e->a.glu_limit, want, up);
            }
            rig_near(name, y[p * e->a.ldy + r], want, bound, p * e->a.ldy + r);
        }
}

static void items_of_experts(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < MFT_N_TYPES; i += i < 3 || i > 56 ? 1 : 9) {
        mfi_rng rng;
        char name[64];
        mft_seed(&rng, 3000 + i);
        mfi_qtype type = mft_type(i);
        mfi_quant_name(type, name, sizeof name);
        uint32_t cols = mfi_qtype_is_float(type) ? mft_between(&rng, 1, 150) : 256;
        experts e =
            random_experts(&rng, type, mft_between(&rng, 1, 13), cols, mft_between(&rng, 1, 12));
        e.a.by_pair = i % 2;
        for (e.a.glu = MFI_METAL_GLU_NONE; e.a.glu <= MFI_METAL_GLU_CLAMPED; e.a.glu++) {
            e.a.glu_alpha = 1.702f;
            e.a.glu_limit = 0.9f;
            const float *few = run_experts(&e, true), *many = run_experts(&e, false);
            check_experts(&e, name, many);
            assert_memory_equal(few, many, (size_t)N_PAIRS * e.a.ldy * sizeof *few);
        }
        mft_guard_free();
    }
}

static void stored_by_inputs(void **state)
{
    (void)state;
    for (uint32_t kind = MFI_Q_F32; kind <= MFI_Q_BF16; kind++) {
        mfi_rng rng;
        mft_seed(&rng, 4000 + kind);
        uint32_t rows = mft_between(&rng, 1, 90), cols = mft_between(&rng, 1, 90);
        experts e = random_experts(&rng, mfi_qtype_float((mfi_qkind)kind), rows, cols, 7);
        e.a.ldx = rows; /* x has room for cols floats a row at least */
        e.x = rig_copy(mft_random_floats(&rng, (size_t)N_PAIRS * rows, 1), N_PAIRS * rows * 4u);
        e.r.buffer[MFI_METAL_MM_X - 1] = (void *)e.x;
        e.a.ldy = cols;
        e.a.bias_kind[0] = 0;
        float *y = rig_floats((size_t)N_PAIRS * cols);
        e.r.buffer[MFI_METAL_MM_Y - 1] = y;
        e.r.out_bytes[MFI_METAL_MM_Y - 1] = (size_t)N_PAIRS * cols * sizeof *y;
        mfi_metal_call call = mfi_metal_mm_cols_call(&e.a);
        rig_run(&e.r, &call, &e.a);
        for (uint32_t p = 0; p < N_PAIRS; p++)
            for (uint32_t c = 0; c < cols; c++) {
                double sum = 0, size = 0;
                for (uint32_t r = 0; r < rows; r++) {
                    double in = e.x[(size_t)e.x_row[p] * rows + r];
                    double w = e.w[e.expert_of[p]][0][((size_t)r * cols + c) * 2];
                    sum += w * in;
                    size += fabs(w * in);
                }
                rig_near("cols", y[p * cols + c], sum, ldexp(size, -24) * (6 + rows), c);
            }
        mft_guard_free();
    }
}

/* ---- heads ---- */

static void latent_heads(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < MFT_N_TYPES; i += 7) {
        enum { HEADS = 3, TOK = 6 };
        mfi_rng rng;
        mft_seed(&rng, 5000 + i);
        mfi_qtype type = mft_type(i);
        uint32_t head_rows = type.kind == MFI_Q_FP8 ? 64 : mft_between(&rng, 1, 40), cols = 256;
        mfi_mat m = mft_random_mat(&rng, type, head_rows * HEADS, cols, 0.1f);
        rig r = {0};
        rig_planes(&r, &m);
        r.buffer[MFI_METAL_MM_TABLES - 1] = rig_tables();
        for (int transposed = 0; transposed < 2; transposed++) {
            uint32_t n_in = transposed ? head_rows : cols, n_out = transposed ? cols : head_rows;
            uint32_t ldx = HEADS * (n_in + 3), ldy = HEADS * (n_out + 5);
            const float *x =
                rig_copy(mft_random_floats(&rng, (size_t)TOK * ldx, 1), (size_t)TOK * ldx * 4);
            float *y = rig_floats((size_t)TOK * ldy);
            mfi_metal_mm a = {.mat = {mfi_metal_mat_of(type, m.rows, cols)},
                              .ldx = ldx,
                              .ldy = ldy,
                              .n_tok = TOK,
                              .head_rows = head_rows,
                              .head_x = n_in + 3,
                              .head_y = n_out + 5};
            mfi_metal_call call =
                transposed ? mfi_metal_mm_t_call(&a, HEADS) : mfi_metal_mm_call(&a, false);
            r.buffer[MFI_METAL_MM_X - 1] = (void *)x;
            r.buffer[MFI_METAL_MM_Y - 1] = y;
            r.out_bytes[MFI_METAL_MM_Y - 1] = (size_t)TOK * ldy * sizeof *y;
            rig_run(&r, &call, &a);
            for (uint32_t t = 0; t < TOK; t++)
                for (uint32_t h = 0; h < HEADS; h++)
                    for (uint32_t o = 0; o < n_out; o += 3) {
                        double sum = 0, size = 0, scaled, offset;
                        for (uint32_t k = 0; k < n_in; k++) {
                            double in = x[t * ldx + h * (n_in + 3) + k];
                            mft_element(&m, h * head_rows + (transposed ? k : o),
                                        transposed ? o : k, &scaled, &offset);
                            sum += (scaled + offset) * in;
                            size += (fabs(scaled) + fabs(offset)) * fabs(in);
                        }
                        double steps = transposed ? 6.0 + n_in : 6 + n_in / 16.0;
                        rig_near(transposed ? "transposed" : "heads",
                                 y[t * ldy + h * (n_out + 5) + o], sum, ldexp(size, -24) * steps,
                                 o);
                    }
        }
        mft_guard_free();
    }
}

static void embeddings(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < MFT_N_TYPES; i++) {
        mfi_rng rng;
        mft_seed(&rng, 6000 + i);
        mfi_qtype type = mft_type(i);
        uint32_t rows = mft_between(&rng, 1, 9),
                 cols = mfi_qtype_is_float(type) || type.kind == MFI_Q_FP8
                            ? mft_between(&rng, 1, 700)
                            : 256 * mft_between(&rng, 1, 3);
        mfi_mat m = mft_random_mat(&rng, type, rows, cols, 0.1f);
        rig r = {0};
        int32_t *tokens = rig_alloc(4 * sizeof *tokens);
        float *y = rig_floats((size_t)4 * cols);
        rig_planes(&r, &m);
        for (int t = 0; t < 4; t++)
            tokens[t] = (int32_t)mft_below(&rng, rows);
        mfi_metal_embed a = {
            .mat = mfi_metal_mat_of(type, rows, cols), .ldy = cols, .n_tok = 4, .scale = 3};
        r.buffer[MFI_METAL_EMBED_TOKENS - 1] = tokens;
        r.buffer[MFI_METAL_EMBED_Y - 1] = y;
        r.buffer[MFI_METAL_EMBED_TABLES - 1] = rig_tables();
        r.out_bytes[MFI_METAL_EMBED_Y - 1] = (size_t)4 * cols * sizeof *y;
        mfi_metal_call call = mfi_metal_embed_call(&a);
        rig_run(&r, &call, &a);
        for (uint32_t t = 0; t < 4; t++)
            for (uint32_t c = 0; c < cols; c++) {
                double scaled, offset;
                mft_element(&m, (uint32_t)tokens[t], c, &scaled, &offset);
                rig_near("embedding", y[t * cols + c], 3 * (scaled + offset),
                         ldexp(fabs(scaled) + fabs(offset), -20), t * cols + c);
            }
        mft_guard_free();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products),         cmocka_unit_test(items_of_experts),
        cmocka_unit_test(stored_by_inputs), cmocka_unit_test(latent_heads),
        cmocka_unit_test(embeddings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
