/* Matrix products of every type and level: against double precision, for the same bits in every
 * cut by tokens and rows, and for touching nothing else. */
#include "fake/support.h"

#include <math.h>
#include <string.h>

#include "fake/kernel_case.h"
#include "quant/int_form.h"

#define MAX_TOK 13
#ifndef MFT_ROUNDS    /* fewer where the processor is emulated */
#define MFT_ROUNDS 12 /* random products of each type */
#endif
#define SENTINEL 12345.0f

/* One product to be checked. */
typedef struct problem {
    mfi_mat w;
    uint32_t n_tok;
    size_t ldx, ldy;
    const float *x; /* [n_tok][ldx] */
    mfi_q8 q8;      /* of x */
} problem;

static uint32_t random_cols(mfi_rng *rng, mfi_qtype type)
{
    static const uint16_t cols[] = {1,  2,  7,  8,   9,   15,  16,  17, 24,
                                    31, 33, 64, 100, 127, 128, 129, 301};
    uint32_t n_elements = 32, n_bytes;
    if (type.kind == MFI_Q_MLX)
        return type.group * mft_between(rng, 1, 13);
    if (type.kind == MFI_Q_GGML)
        mfi_ggml_block(type.bits, &n_elements, &n_bytes);
    if (type.kind == MFI_Q_GGML || type.kind == MFI_Q_MXFP4)
        return n_elements * mft_between(rng, 1, n_elements > 64 ? 4 : 27);
    if (type.kind == MFI_Q_FP8 && mft_below(rng, 2))
        return 32 * mft_between(rng, 1, 11);
    return cols[mft_below(rng, MFI_ARRAY_LEN(cols))];
}

/* Float weights always meet float activations. */
static bool has_q8(mfi_qtype type, uint32_t cols)
{
    return !mfi_qtype_is_float(type) && cols % MFI_Q8_BLOCK == 0;
}

static mfi_q8 q8_of(const problem *p, uint32_t t)
{
    return mfi_q8_from(p->q8, (size_t)t * p->w.cols);
}

static void quantize(const problem *p, uint32_t t)
{
    const mfi_q8 to = q8_of(p, t);
    mfi_kernels_get(MFI_ISA_C)->quantize_q8(p->x + t * p->ldx, p->w.cols, &to);
}

static problem random_problem(mfi_rng *rng, mfi_qtype type, float scale)
{
    static const uint8_t rows[] = {1, 2, 3, 4, 5, 7, 8, 16, 31, 33, 38};
    problem p;
    uint32_t cols = random_cols(rng, type), n_rows = rows[mft_below(rng, MFI_ARRAY_LEN(rows))];
    if (type.kind == MFI_Q_FP8) /* scales change at row 128 */
        n_rows += 120 * mft_below(rng, 2);
    p.w = mft_random_mat(rng, type, n_rows, cols, scale);
    p.n_tok = mft_between(rng, 1, MAX_TOK);
    p.ldx = cols + mft_below(rng, 2) * mft_below(rng, 20);
    p.ldy = p.w.rows + mft_below(rng, 5);
    p.x = mft_random_floats(rng, p.ldx * (p.n_tok - 1) + cols, 1);
    if (has_q8(type, cols)) {
        uint32_t n_blocks = cols / MFI_Q8_BLOCK;
        p.q8.q = mft_guard_alloc((size_t)p.n_tok * cols, mft_below(rng, MFT_N_PLACES));
        p.q8.d = mft_floats((size_t)p.n_tok * n_blocks, mft_below(rng, 2));
        p.q8.s = mft_floats((size_t)p.n_tok * n_blocks, mft_below(rng, 2));
        p.q8.h = mft_guard_alloc((size_t)p.n_tok * n_blocks * 4, mft_below(rng, 2));
        p.q8.lo = mft_guard_alloc((size_t)p.n_tok * cols, mft_below(rng, MFT_N_PLACES));
        p.q8.d_fine = mft_floats((size_t)p.n_tok * n_blocks, mft_below(rng, 2));
        p.q8.s_fine = mft_floats((size_t)p.n_tok * n_blocks, mft_below(rng, 2));
        p.q8.h_lo = mft_guard_alloc((size_t)p.n_tok * n_blocks * 4, mft_below(rng, 2));
        for (uint32_t t = 0; t < p.n_tok; t++)
            quantize(&p, t);
    }
    return p;
}

/* How activations come: as floats, in 8 bits, in 16. */
enum { FLOATS, EIGHT, SIXTEEN };

static int last_form(mfi_qtype type, uint32_t cols)
{
    mfi_int_form form;
    return !has_q8(type, cols) ? FLOATS : mfi_int_form_of(type, &form) ? SIXTEEN : EIGHT;
}

/* Tokens [t0, t0 + n_tok) and rows [row0, row1) into y as a whole problem has it. */
static void run(const mfi_kernels *k, const problem *p, int q8, uint32_t t0, uint32_t n_tok,
                uint32_t row0, uint32_t row1, float *y)
{
    if (!q8) {
        k->matmul_f32(&p->w, p->x + t0 * p->ldx, p->ldx, n_tok, y + t0 * p->ldy, p->ldy, row0,
                      row1);
        return;
    }
    mfi_q8 part = q8_of(p, t0);
    if (q8 == EIGHT)
        part.lo = NULL;
    k->matmul_q8(&p->w, &part, n_tok, y + t0 * p->ldy, p->ldy, row0, row1);
}

static size_t y_bytes(const problem *p)
{
    return (p->ldy * (p->n_tok - 1) + p->w.rows) * sizeof(float);
}

static float *new_y(const problem *p)
{
    size_t n = y_bytes(p) / sizeof(float);
    float *y = mft_floats(n, MFT_AT_END);
    for (size_t i = 0; i < n; i++)
        y[i] = SENTINEL;
    return y;
}

/* The value in double precision, and the sum of magnitudes that rounding errors scale with. */
static double exact(const problem *p, int q8, uint32_t t, uint32_t r, double *magnitude)
{
    double sum = 0, product, offset;
    *magnitude = 0;
    for (uint32_t c = 0; c < p->w.cols; c++) {
        double x = (double)p->x[t * p->ldx + c];
        if (q8)
            x = (double)p->q8.d[t * (p->w.cols / 32) + c / 32] * p->q8.q[(size_t)t * p->w.cols + c];
        if (q8 == SIXTEEN)
            x = (double)p->q8.d_fine[t * (p->w.cols / 32) + c / 32] *
                (255 * p->q8.q[(size_t)t * p->w.cols + c] + p->q8.lo[(size_t)t * p->w.cols + c]);
        mft_element(&p->w, r, c, &product, &offset);
        sum += (product + offset) * x;
        *magnitude += (fabs(product) + fabs(offset)) * fabs(x);
    }
    return sum;
}

static void against_double(const mfi_kernels *k, const problem *p, int q8, const float *y)
{
    for (uint32_t t = 0; t < p->n_tok; t++) {
        for (uint32_t r = 0; r < p->w.rows; r++) {
            double magnitude, want = exact(p, q8, t, r, &magnitude);
            double got = (double)y[t * p->ldy + r];
            /* A handful of roundings an element and lane; sums grow slower than their bound. */
            double bound = magnitude * 0x1p-24 * (6 + p->w.cols / 16.0) + 0x1p-140;
            if (!(fabs(got - want) <= bound))
                fail_msg("level %s, kind %d, %d bits, %u x %u, token %u, row %u: %g, not %g +- %g "
                         "(seed %llu)",
                         mfi_isa_name(k->isa), p->w.type.kind, p->w.type.bits, p->w.rows, p->w.cols,
                         t, r, got, want, bound, (unsigned long long)mft_last_seed());
        }
        for (size_t r = p->w.rows; r < p->ldy && t + 1 < p->n_tok; r++)
            assert_true(y[t * p->ldy + r] == SENTINEL);
    }
}

/* Each token alone, a few at once, each row range: all must give the bits of the whole. */
static void any_cut(mfi_rng *rng, const mfi_kernels *k, const problem *p, int q8, const float *y)
{
    float *part = new_y(p);
    for (uint32_t t = 0, n; t < p->n_tok; t += n) {
        n = mft_between(rng, 1, p->n_tok - t);
        for (uint32_t r = 0, m; r < p->w.rows; r += m) {
            m = mft_between(rng, 1, p->w.rows - r);
            run(k, p, q8, t, n, r, r + m, part);
            if (r + m < p->w.rows)
                assert_true(part[t * p->ldy + r + m] == SENTINEL);
        }
    }
    for (uint32_t t = 0; t < p->n_tok; t++) {
        if (memcmp(part + t * p->ldy, y + t * p->ldy, p->w.rows * sizeof *y) != 0)
            fail_msg("level %s, kind %d, %d bits: bits depend on the cut (seed %llu)",
                     mfi_isa_name(k->isa), p->w.type.kind, p->w.type.bits,
                     (unsigned long long)mft_last_seed());
    }
}

static void products(void **state)
{
    (void)state;
    mfi_rng rng;
    for (uint32_t i = 0; i < MFT_N_TYPES * MFT_ROUNDS; i++) {
        mfi_qtype type = mft_type(i % MFT_N_TYPES);
        mft_seed(&rng, 1000 + i);
        problem p = random_problem(&rng, type, 0.05f);
        mfi_int_form form;
        float *plain[3] = {NULL, new_y(&p), new_y(&p)}; /* integer forms: the same on every level */
        for (uint32_t level = 0; level < mft_n_levels(); level++) {
            const mfi_kernels *k = mft_level(level);
            for (int q8 = 0; q8 <= last_form(type, p.w.cols); q8++) {
                float *y = new_y(&p);
                run(k, &p, q8, 0, p.n_tok, 0, p.w.rows, y);
                against_double(k, &p, q8, y);
                if (q8 && level == 0)
                    memcpy(plain[q8], y, y_bytes(&p));
                else if (q8 && mfi_int_form_of(type, &form) &&
                         memcmp(plain[q8], y, y_bytes(&p)) != 0)
                    fail_msg("level %s, kind %d, %d bits: not the bits of plain C (seed %llu)",
                             mfi_isa_name(k->isa), type.kind, type.bits,
                             (unsigned long long)mft_last_seed());
                for (int cut = 0; cut < 3; cut++)
                    any_cut(&rng, k, &p, q8, y);
            }
        }
        mft_guard_free();
    }
}

/* Scales at the ends of the float range: subnormal products, large sums. */
static void extreme_scales(void **state)
{
    (void)state;
    static const float scales[] = {1e-44f, 1e-38f, 1e-30f, 1e30f};
    mfi_rng rng;
    for (uint32_t i = 0; i < MFT_N_TYPES * 4; i++) {
        mfi_qtype type = mft_type(i % MFT_N_TYPES);
        if (type.kind == MFI_Q_F16 || type.kind == MFI_Q_GGML ||
            (type.kind == MFI_Q_MLX && type.scale == MFI_Q_F16))
            continue;
        mft_seed(&rng, 2000 + i);
        problem p = random_problem(&rng, type, scales[i / MFT_N_TYPES]);
        for (uint32_t level = 0; level < mft_n_levels(); level++) {
            float *y = new_y(&p);
            run(mft_level(level), &p, FLOATS, 0, p.n_tok, 0, p.w.rows, y);
            against_double(mft_level(level), &p, false, y);
        }
        mft_guard_free();
    }
}

/* With scale 1, bias 0 and d 1 the product is the integer sum itself; all of it fits a float. */
static void integer_sums(void **state)
{
    (void)state;
    static const float one = 1, zero = 0;
    mfi_rng rng;
    for (uint32_t i = 3; i < MFT_N_TYPES * 4; i++) {
        mfi_qtype type = mft_type(i % MFT_N_TYPES);
        if (type.kind != MFI_Q_MLX || type.scale != MFI_Q_F32)
            continue;
        mft_seed(&rng, 3000 + i);
        problem p = random_problem(&rng, type, 1);
        uint32_t n_blocks = p.w.cols / MFI_Q8_BLOCK;
        bool largest = mft_below(&rng, 2) == 0; /* the codes and values that saturate first */
        for (size_t j = 0; j < (size_t)p.w.rows * p.w.cols / type.group; j++) {
            memcpy((char *)(uintptr_t)p.w.planes[1] + j * 4, &one, 4);
            memcpy((char *)(uintptr_t)p.w.planes[2] + j * 4, &zero, 4);
        }
        if (largest)
            memset((void *)(uintptr_t)p.w.planes[0], 255,
                   (size_t)p.w.rows * p.w.cols * type.bits / 8);
        for (size_t j = 0; j < (size_t)p.n_tok * p.w.cols; j++)
            p.q8.q[j] =
                (int8_t)(largest ? (j / 64 % 2 ? -127 : 127) : (int)mft_below(&rng, 255) - 127);
        for (size_t j = 0; j < (size_t)p.n_tok * n_blocks; j++)
            p.q8.d[j] = 1;
        for (size_t j = 0; j < (size_t)p.n_tok * p.w.cols; j += 16) {
            p.q8.h[j / 16] = 0;
            for (size_t c = j; c < j + 16; c++)
                p.q8.h[j / 16] = (int16_t)(p.q8.h[j / 16] + p.q8.q[c]);
        }
        for (uint32_t level = 0; level < mft_n_levels(); level++) {
            float *y = new_y(&p);
            run(mft_level(level), &p, EIGHT, 0, p.n_tok, 0, p.w.rows, y);
            for (uint32_t t = 0; t < p.n_tok; t++) {
                for (uint32_t r = 0; r < p.w.rows; r++) {
                    int64_t want = 0;
                    for (uint32_t c = 0; c < p.w.cols; c++)
                        want += (int64_t)mft_code(&p.w, r, c) * p.q8.q[(size_t)t * p.w.cols + c];
                    if (y[t * p.ldy + r] != (float)want)
                        fail_msg("level %u, %d bits: %g, not %lld (seed %llu)", level, type.bits,
                                 (double)y[t * p.ldy + r], (long long)want,
                                 (unsigned long long)mft_last_seed());
                }
            }
        }
        mft_guard_free();
    }
}

/* The contract of quantize_q8 by its words, then all levels the same bits. */
static void q8_blocks(void **state)
{
    (void)state;
    static const float deviations[] = {1, 1e-44f, 3e-43f, 1e-38f, 1e30f, 0};
    mfi_rng rng;
    for (uint32_t i = 0; i < 300; i++) {
        uint32_t n_blocks, n, first = 0;
        mft_seed(&rng, 4000 + i);
        n_blocks = mft_between(&rng, 1, 5);
        n = n_blocks * MFI_Q8_BLOCK;
        float *x = mft_random_floats(&rng, n, deviations[i % MFI_ARRAY_LEN(deviations)]);
        if (i % 7 == 3)
            x[mft_below(&rng, n)] = 1000; /* the others become few codes */
        if (i % 11 == 5)
            x[first = mft_below(&rng, n)] = i % 2 ? -INFINITY : NAN;
        int8_t *q[MFI_N_ISA] = {0};
        float *d[MFI_N_ISA], *s[MFI_N_ISA];
        int16_t *h[MFI_N_ISA], *h_lo[MFI_N_ISA];
        int8_t *lo[MFI_N_ISA];
        float *d_fine[MFI_N_ISA], *s_fine[MFI_N_ISA];
        for (uint32_t level = 0; level < mft_n_levels(); level++) {
            q[level] = mft_guard_alloc(n, mft_below(&rng, MFT_N_PLACES));
            d[level] = mft_floats(n_blocks, MFT_AT_END);
            s[level] = mft_floats(n_blocks, MFT_AT_END);
            h[level] = mft_guard_alloc(n_blocks * 2 * sizeof(int16_t), MFT_AT_END);
            lo[level] = mft_guard_alloc(n, mft_below(&rng, MFT_N_PLACES));
            d_fine[level] = mft_floats(n_blocks, MFT_AT_END);
            s_fine[level] = mft_floats(n_blocks, MFT_AT_END);
            h_lo[level] = mft_guard_alloc(n_blocks * 2 * sizeof(int16_t), MFT_AT_END);
            const mfi_q8 to = {q[level],  d[level],      s[level],      h[level],
                               lo[level], d_fine[level], s_fine[level], h_lo[level]};
            mft_level(level)->quantize_q8(x, n, &to);
            assert_memory_equal(lo[level], lo[0], n);
            assert_memory_equal(d_fine[level], d_fine[0], n_blocks * sizeof(float));
            assert_memory_equal(s_fine[level], s_fine[0], n_blocks * sizeof(float));
            assert_memory_equal(h_lo[level], h_lo[0], n_blocks * 2 * sizeof(int16_t));
            assert_memory_equal(h[level], h[0], n_blocks * 2 * sizeof(int16_t));
            assert_memory_equal(q[level], q[0], n);
            assert_memory_equal(d[level], d[0], n_blocks * sizeof(float));
            assert_memory_equal(s[level], s[0], n_blocks * sizeof(float));
        }
        for (uint32_t b = 0; b < n_blocks; b++) {
            float max = 0;
            int sum = 0, halves[2] = {0};
            bool finite = true;
            for (uint32_t j = b * 32; j < b * 32 + 32; j++) {
                max = fmaxf(max, fabsf(x[j]));
                finite = finite && isfinite(x[j]);
            }
            if (!finite) {
                assert_true(isnan(d[0][b]) && isnan(s[0][b]) && q[0][b * 32] == 0);
                continue;
            }
            assert_true(d[0][b] == max / 127);
            for (uint32_t j = b * 32; j < b * 32 + 32; j++) {
                double code = d[0][b] == 0 ? 0 : rint((double)(x[j] / d[0][b]));
                assert_int_equal(q[0][j], (int)fmax(-127, fmin(127, code)));
                sum += q[0][j];
                halves[j / 16 % 2] += q[0][j];
            }
            for (uint32_t j = b * 32; j < b * 32 + 32; j++) { /* half a step of 16 bits */
                double got = (double)d_fine[0][b] * (255 * q[0][j] + lo[0][j]);
                assert_true(fabs(got - (double)x[j]) <= 0.51 * (double)d_fine[0][b] +
                                                            1e-6 * (double)max +
                                                            127 * 255 * 0x1p-149);
                assert_true(lo[0][j] >= -127);
            }
            assert_int_equal(h[0][2 * b], halves[0]);
            assert_int_equal(h[0][2 * b + 1], halves[1]);
            assert_true(s[0][b] == d[0][b] * (float)sum);
        }
        mft_guard_free();
    }
}

/* One NaN among the activations must reach every output of its token and no other. */
static void nan_spreads(void **state)
{
    (void)state;
    mfi_rng rng;
    for (uint32_t i = 0; i < MFT_N_TYPES; i++) {
        mfi_qtype type = mft_type(i);
        mft_seed(&rng, 5000 + i);
        problem p = random_problem(&rng, type, 1);
        float *x = (float *)(uintptr_t)p.x;
        uint32_t t_bad = mft_below(&rng, p.n_tok), c = mft_below(&rng, p.w.cols);
        x[t_bad * p.ldx + c] = NAN;
        if (has_q8(type, p.w.cols))
            quantize(&p, t_bad);
        for (uint32_t level = 0; level < mft_n_levels(); level++) {
            for (int q8 = 0; q8 <= last_form(type, p.w.cols); q8++) {
                float *y = new_y(&p);
                run(mft_level(level), &p, q8, 0, p.n_tok, 0, p.w.rows, y);
                for (uint32_t t = 0; t < p.n_tok; t++)
                    for (uint32_t r = 0; r < p.w.rows; r++)
                        assert_int_equal(isnan(y[t * p.ldy + r]) != 0, t == t_bad);
            }
        }
        mft_guard_free();
    }
}

/* An embedding row is the decoded row, at any place in the matrix. */
static void rows_are_decoded(void **state)
{
    (void)state;
    mfi_rng rng;
    for (uint32_t i = 0; i < MFT_N_TYPES; i++) {
        mft_seed(&rng, 6000 + i);
        problem p = random_problem(&rng, mft_type(i), 1);
        uint32_t row = p.w.rows - 1;
        float *out = mft_floats(p.w.cols, MFT_AT_END);
        for (uint32_t level = 0; level < mft_n_levels(); level++) {
            memset(out, 0, p.w.cols * sizeof *out);
            mft_level(level)->get_row(&p.w, row, out);
            for (uint32_t c = 0; c < p.w.cols; c++) {
                double product, offset;
                mft_element(&p.w, row, c, &product, &offset);
                uint32_t kind = p.w.type.kind == MFI_Q_MLX ? p.w.type.scale : (uint32_t)MFI_Q_F32;
                double ulp = kind == MFI_Q_F32 ? 0x1p-24 : kind == MFI_Q_F16 ? 0x1p-11 : 0x1p-8;
                double bound = (fabs(product) + fabs(product + offset)) * ulp * 1.01;
                assert_true(fabs((double)out[c] - (product + offset)) <= bound);
            }
        }
        mft_guard_free();
    }
}

/* A weight of the other types counts as exactly what it decodes to: one-hot activations bring it
 * out on every level. */
static void weights_are_exact(void **state)
{
    (void)state;
    mfi_rng rng;
    for (uint32_t i = 0; i < 2 * MFT_N_TYPES; i++) {
        mfi_qtype type = mft_type(i % MFT_N_TYPES);
        if (type.kind == MFI_Q_MLX)
            continue;
        mft_seed(&rng, 7000 + i);
        problem p = random_problem(&rng, type, 1);
        float *x = mft_floats((size_t)MAX_TOK * p.w.cols, MFT_AT_END);
        float *y = mft_floats((size_t)MAX_TOK * p.w.rows, MFT_AT_END);
        for (uint32_t c0 = 0; c0 < p.w.cols; c0 += MAX_TOK) {
            uint32_t n = MFI_MIN(p.w.cols - c0, MAX_TOK);
            memset(x, 0, (size_t)MAX_TOK * p.w.cols * sizeof *x);
            for (uint32_t t = 0; t < n; t++)
                x[(size_t)t * p.w.cols + c0 + t] = 1;
            for (uint32_t level = 0; level < mft_n_levels(); level++) {
                mft_level(level)->matmul_f32(&p.w, x, p.w.cols, n, y, p.w.rows, 0, p.w.rows);
                for (uint32_t t = 0; t < n; t++) {
                    for (uint32_t r = 0; r < p.w.rows; r++) {
                        double product, offset;
                        mft_element(&p.w, r, c0 + t, &product, &offset);
                        if ((double)y[(size_t)t * p.w.rows + r] != product)
                            fail_msg(
                                "level %u, kind %d, %d: element %u, %u is %a, not %a (seed %llu)",
                                level, type.kind, type.bits, r, c0 + t,
                                (double)y[(size_t)t * p.w.rows + r], product,
                                (unsigned long long)mft_last_seed());
                    }
                }
            }
        }
        mft_guard_free();
    }
}

/* Float weights: what is summed in which order is the same on the x86 levels. */
static void levels_agree_on_floats(void **state)
{
    (void)state;
    mfi_rng rng;
    for (uint32_t i = 0; i < 120; i++) {
        mft_seed(&rng, 9000 + i);
        const uint32_t rows = mft_between(&rng, 1, 40), cols = mft_between(&rng, 1, 150);
        const uint32_t n_tok = mft_between(&rng, 1, 11);
        const mfi_mat w = mft_random_mat(&rng, mft_type(i % 3), rows, cols, 0.05f);
        const float *x = mft_random_floats(&rng, (size_t)n_tok * cols, 1);
        const size_t n_y = (size_t)n_tok * rows;
        const float *first = NULL;
        for (uint32_t level = 1; level < mft_n_levels(); level++) {
            float *y = mft_floats(n_y, MFT_AT_END);
            mft_level(level)->matmul_f32(&w, x, cols, n_tok, y, rows, 0, rows);
            first = first ? first : y;
            assert_memory_equal(y, first, n_y * sizeof *y);
        }
        mft_guard_free();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products),          cmocka_unit_test(extreme_scales),
        cmocka_unit_test(integer_sums),      cmocka_unit_test(q8_blocks),
        cmocka_unit_test(nan_spreads),       cmocka_unit_test(rows_are_decoded),
        cmocka_unit_test(weights_are_exact), cmocka_unit_test(levels_agree_on_floats),
    };
    return mft_run(tests);
}
