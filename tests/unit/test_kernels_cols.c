/* Products with transposed matrices at every level: against double precision, between guard pages;
 * and the same bits for every range of columns and number of tokens. */
#include "fake/support.h"

#include <math.h>
#include <string.h>

#include "fake/kernel_case.h"

/* Random floats as `type` stores them, and what they are then. */
static unsigned char *stored(mfi_rng *rng, mfi_qtype type, size_t n, mft_place place, float *exact)
{
    size_t element = type.bits / 8;
    unsigned char *out = mft_guard_alloc(n * element, place);
    for (size_t i = 0; i < n; i++) {
        float x = (float)(2 * mfi_rng_unit(rng) - 1);
        const void *at = out + i * element;
        mfi_quant_encode_row(type, &x, NULL, 1, out + i * element);
        mfi_dequant_row(type, &at, 1, &exact[i]);
    }
    return out;
}

static void one(uint32_t seed)
{
    static const mfi_qkind kinds[] = {MFI_Q_F32, MFI_Q_F16, MFI_Q_BF16};
    mfi_rng rng;
    mft_seed(&rng, seed);
    mfi_qtype type = mfi_qtype_float(kinds[seed % 3]);
    uint32_t rows = mft_between(&rng, 1, 41), cols = mft_between(&rng, 1, 90);
    uint32_t n_tok = mft_between(&rng, 1, 5), c0 = mft_below(&rng, cols);
    uint32_t c1 = c0 + 1 + mft_below(&rng, cols - c0);
    size_t ldx = rows + mft_below(&rng, 3), ldy = cols + mft_below(&rng, 3);
    float exact[41 * 90];
    mfi_mat w = {.type = type, .rows = rows, .cols = cols};
    w.planes[0] = stored(&rng, type, (size_t)rows * cols, seed % MFT_N_PLACES, exact);
    float *x = mft_random_floats(&rng, ldx * (n_tok - 1) + rows, 1);
    for (uint32_t level = 0; level < mft_n_levels(); level++) {
        const mfi_kernels *k = mft_level(level);
        float *y = mft_floats(ldy * (n_tok - 1) + cols, MFT_AT_END);
        float *single = mft_floats(cols, MFT_AT_END);
        memset(y, 0x7f, (ldy * (n_tok - 1) + cols) * sizeof *y);
        k->matmul_cols(&w, x, ldx, n_tok, y, ldy, c0, c1);
        for (uint32_t t = 0; t < n_tok; t++) {
            for (uint32_t c = 0; c < cols; c++) {
                double want = 0;
                for (uint32_t r = 0; r < rows; r++)
                    want += (double)exact[r * cols + c] * (double)x[t * ldx + r];
                uint32_t bits;
                memcpy(&bits, &y[t * ldy + c], sizeof bits);
                if (c < c0 || c >= c1) /* not touched */
                    assert_int_equal(bits, 0x7f7f7f7f);
                else if (!(fabs((double)y[t * ldy + c] - want) <= 1e-5))
                    fail_msg("level %u, %u x %u: [%u][%u] %g, not %g (seed %u)", level, rows, cols,
                             t, c, (double)y[t * ldy + c], want, seed);
            }
            k->matmul_cols(&w, x + t * ldx, ldx, 1, single, ldy, 0, cols);
            assert_memory_equal(single + c0, y + t * ldy + c0, (c1 - c0) * sizeof *y);
        }
    }
    mft_guard_free();
}

static void products(void **state)
{
    (void)state;
    for (uint32_t seed = 0; seed < 300; seed++)
        one(9000 + seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(products)};
    return mft_run(tests);
}
