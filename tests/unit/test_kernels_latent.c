/* What multi-head latent attention needs of the kernels, at every level: products with transposed
 * rows, attention of several heads over one cache, rotation of neighbouring pairs. Against their
 * definitions in double precision, for the same bits in every cut, between guard pages. */
#include "fake/support.h"

#include <math.h>
#include <string.h>

#include "fake/kernel_case.h"

#define SENTINEL 12345.0f

/* Columns that the type can have. */
static uint32_t random_cols(mfi_rng *rng, mfi_qtype type)
{
    static const uint16_t cols[] = {1, 7, 8, 9, 31, 64, 65, 72, 100, 255, 256, 257, 301, 512};
    uint32_t n_elements = 32, n_bytes;
    if (type.kind == MFI_Q_MLX)
        return type.group * mft_between(rng, 1, 5);
    if (type.kind == MFI_Q_GGML)
        mfi_ggml_block(type.bits, &n_elements, &n_bytes);
    if (type.kind == MFI_Q_GGML || type.kind == MFI_Q_MXFP4)
        return n_elements * mft_between(rng, 1, n_elements > 64 ? 3 : 11);
    return cols[mft_below(rng, MFI_ARRAY_LEN(cols))];
}

static void check_transposed(mfi_rng *rng, mfi_qtype type, uint32_t case_no)
{
    uint32_t cols = random_cols(rng, type), n_rows = mft_between(rng, 1, 40);
    uint32_t row0 = mft_below(rng, 3) * (type.kind == MFI_Q_FP8 ? 50 : 3);
    mfi_mat w = mft_random_mat(rng, type, row0 + n_rows + mft_below(rng, 3), cols, 0.05f);
    uint32_t n_tok = mft_between(rng, 1, 5);
    size_t ldx = n_rows + mft_below(rng, 4), ldy = cols + mft_below(rng, 4);
    size_t n_y = ldy * (n_tok - 1) + cols;
    float *x = mft_random_floats(rng, ldx * (n_tok - 1) + n_rows, 1);
    for (uint32_t level = 0; level < mft_n_levels(); level++) {
        const mfi_kernels *k = mft_level(level);
        float *y = mft_floats(n_y, MFT_AT_END), *one = mft_floats(cols, MFT_AT_END);
        for (size_t i = 0; i < n_y; i++)
            y[i] = SENTINEL;
        k->matmul_t(&w, x, ldx, n_tok, y, ldy, row0, n_rows);
        for (uint32_t t = 0; t < n_tok; t++) {
            for (uint32_t c = 0; c < cols; c++) {
                double want = 0, magnitude = 0, product, offset;
                for (uint32_t r = 0; r < n_rows; r++) {
                    double in = (double)x[t * ldx + r];
                    mft_element(&w, row0 + r, c, &product, &offset);
                    want += (product + offset) * in;
                    magnitude += (fabs(product) + fabs(offset)) * fabs(in);
                }
                double bound = magnitude * 0x1p-24 * (6 + n_rows) + 0x1p-140;
                if (!(fabs((double)y[t * ldy + c] - want) <= bound))
                    fail_msg("level %u, kind %d, %d bits, %u rows of %u, token %u, column %u: %g, "
                             "not %g (case %u)",
                             level, type.kind, type.bits, n_rows, cols, t, c,
                             (double)y[t * ldy + c], want, case_no);
            }
            for (size_t c = cols; c < ldy && t + 1 < n_tok; c++)
                assert_true(y[t * ldy + c] == SENTINEL);
            k->matmul_t(&w, x + t * ldx, ldx, 1, one, ldy, row0, n_rows);
            assert_memory_equal(one, y + t * ldy, cols * sizeof *y);
        }
    }
}

static void transposed(void **state)
{
    (void)state;
    mfi_rng rng;
    for (uint32_t i = 0; i < MFT_N_TYPES * 4; i++) {
        mft_seed(&rng, 4000 + i);
        check_transposed(&rng, mft_type(i % MFT_N_TYPES), i);
        mft_guard_free();
    }
}

/* Plain softmax over all positions at once. */
static void naive_attend(const float *q, const float *kv, size_t ld, uint32_t n_kv, uint32_t dim,
                         uint32_t dim_v, double scale, double *out)
{
    double p[256], max = -INFINITY, sum = 0;
    memset(out, 0, dim_v * sizeof *out);
    for (uint32_t j = 0; j < n_kv; j++) {
        p[j] = 0;
        for (uint32_t i = 0; i < dim; i++)
            p[j] += scale * (double)q[i] * (double)kv[j * ld + i];
        max = fmax(max, p[j]);
    }
    for (uint32_t j = 0; j < n_kv; j++) {
        p[j] = exp(p[j] - max);
        sum += p[j];
        for (uint32_t i = 0; i < dim_v; i++)
            out[i] += p[j] * (double)kv[j * ld + i];
    }
    for (uint32_t i = 0; i < dim_v; i++)
        out[i] /= sum;
}

/* Values are the first part of the keys, as in the latent cache. */
static void shared_cache(void **state)
{
    (void)state;
    static const uint16_t dims[] = {1, 7, 8, 16, 17, 72, 96, 100, 192, 576, 1024};
    static const uint16_t lengths[] = {1, 2, 3, 63, 64, 65, 128, 129, 200};
    mfi_rng rng;
    for (uint32_t i = 0; i < 66; i++) {
        mft_seed(&rng, 5000 + i);
        uint32_t dim = dims[i % 11], dim_v = mft_between(&rng, 1, dim);
        uint32_t n_kv = lengths[i % 9], n_q = mft_between(&rng, 1, 19);
        size_t ld = dim, ldq = dim + mft_below(&rng, 3), ldo = dim_v + mft_below(&rng, 3);
        float scale = (i % 3 ? 1.0f : 20.0f) / sqrtf((float)dim);
        float *q = mft_random_floats(&rng, ldq * (n_q - 1) + dim, 1);
        float *kv = mft_random_floats(&rng, ld * n_kv, 1);
        for (uint32_t j = 0; i % 2 && j < dim; j++) /* the largest score comes last */
            kv[(n_kv - 1) * ld + j] = q[j] * 2;
        for (uint32_t level = 0; level < mft_n_levels(); level++) {
            const mfi_kernels *k = mft_level(level);
            float *out = mft_floats(ldo * (n_q - 1) + dim_v, MFT_AT_END);
            float *one = mft_floats(dim_v, MFT_AT_END);
            k->attend_shared(q, ldq, n_q, kv, ld, kv, ld, n_kv, dim, dim_v, scale, out, ldo);
            for (uint32_t h = 0; h < n_q; h++) {
                double want[1024];
                naive_attend(q + h * ldq, kv, ld, n_kv, dim, dim_v, (double)scale, want);
                for (uint32_t j = 0; j < dim_v; j++)
                    if (!(fabs((double)out[h * ldo + j] - want[j]) <= 1e-4))
                        fail_msg("level %u, dim %u, %u, %u positions: head %u, [%u] %g, not %g "
                                 "(case %u)",
                                 level, dim, dim_v, n_kv, h, j, (double)out[h * ldo + j], want[j],
                                 i);
                k->attend_shared(q + h * ldq, ldq, 1, kv, ld, kv, ld, n_kv, dim, dim_v, scale, one,
                                 ldo);
                assert_memory_equal(one, out + h * ldo, dim_v * sizeof *one);
            }
        }
        mft_guard_free();
    }
}

/* Scores far beyond what exp can take, and one that is not a number: in one head only. */
static void shared_extremes(void **state)
{
    (void)state;
    for (uint32_t level = 0; level < mft_n_levels(); level++) {
        const mfi_kernels *k = mft_level(level);
        float q[3][2] = {{1, 0}, {0, 1}, {0, 0}}, kv[130][2], out[3];
        for (int j = 0; j < 130; j++) {
            kv[j][0] = j == 100 ? 1e30f : (float)j * -1e28f;
            kv[j][1] = j == 70 ? 3e38f : 0;
        }
        k->attend_shared(q[0], 2, 2, kv[0], 2, kv[0] + 1, 2, 130, 2, 1, 1, out, 1);
        assert_true(out[0] == 0);
        assert_true(out[1] == 3e38f);
        kv[70][0] = NAN;
        k->attend_shared(q[0], 2, 3, kv[0], 2, kv[0] + 1, 2, 60, 2, 1, 1, out, 1);
        assert_true(out[0] == 0 && out[1] == 0 && out[2] == 0);
        k->attend_shared(q[0], 2, 1, kv[0], 2, kv[0] + 1, 2, 130, 2, 1, 1, out, 1);
        assert_true(isnan(out[0]));
    }
}

static void rotations(void **state)
{
    (void)state;
    mfi_rng rng;
    for (uint32_t i = 0; i < 100; i++) {
        mft_seed(&rng, 6000 + i);
        uint32_t n_rot = 2 * mft_between(&rng, 1, 40);
        float *y0 = mft_random_floats(&rng, n_rot, 1), *y = mft_floats(n_rot, MFT_AT_END);
        float *cosines = mft_floats(n_rot / 2, MFT_AT_END);
        float *sines = mft_floats(n_rot / 2, MFT_AT_END);
        for (uint32_t j = 0; j < n_rot / 2; j++) {
            cosines[j] = (float)cos(j * 0.7 + i);
            sines[j] = (float)sin(j * 0.7 + i);
        }
        for (uint32_t level = 0; level < mft_n_levels(); level++) {
            memcpy(y, y0, n_rot * sizeof *y);
            mft_level(level)->rope_pairs(y, n_rot, cosines, sines);
            for (uint32_t j = 0; j < n_rot / 2; j++) {
                double angle = j * 0.7 + i, u = (double)y0[2 * j], v = (double)y0[2 * j + 1];
                assert_true(fabs((double)y[2 * j] - (u * cos(angle) - v * sin(angle))) < 1e-6);
                assert_true(fabs((double)y[2 * j + 1] - (u * sin(angle) + v * cos(angle))) < 1e-6);
            }
        }
        mft_guard_free();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transposed),
        cmocka_unit_test(shared_cache),
        cmocka_unit_test(shared_extremes),
        cmocka_unit_test(rotations),
    };
    return mft_run(tests);
}
