/* What multi-head latent attention needs of the kernels, at every level: products with transposed
 * rows, rotation of neighbouring pairs. Against their definitions in double precision, for the same
 * bits in every cut, between guard pages. */
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
        cmocka_unit_test(rotations),
    };
    return mft_run(tests);
}
