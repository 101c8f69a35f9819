/* The integer products of AVX-VNNI alone, which nobody had a processor for when they were written:
 * so that whether they ran shows in the list of tests. All levels together are in
 * test_kernels_matmul. */
#include "fake/support.h"

#include <string.h>

#include "fake/kernel_case.h"
#include "quant/int_form.h"
#if defined(__x86_64__)
#include "kernels/x86/x86.h"
#endif

#define ROWS 37
#define COLS 512
#define TOKS 5

static mfi_q8 quantized(mfi_rng *rng, bool fine)
{
    const float *x = mft_random_floats(rng, TOKS * COLS, 1);
    mfi_q8 q = {.q = mft_guard_alloc(TOKS * COLS, MFT_AT_END),
                .d = mft_floats(TOKS * COLS / 32, MFT_AT_END),
                .s = mft_floats(TOKS * COLS / 32, MFT_AT_END),
                .h = mft_guard_alloc(TOKS * COLS / 8, MFT_AT_END)};
    if (fine) {
        q.lo = mft_guard_alloc(TOKS * COLS, MFT_AT_END);
        q.d_fine = mft_floats(TOKS * COLS / 32, MFT_AT_END);
        q.s_fine = mft_floats(TOKS * COLS / 32, MFT_AT_END);
        q.h_lo = mft_guard_alloc(TOKS * COLS / 8, MFT_AT_END);
    }
    mfi_kernels_get(MFI_ISA_C)->quantize_q8(x, TOKS * COLS, &q);
    return q;
}

/* The table is in this build, on every machine. */
static void test_is_compiled(void **state)
{
    (void)state;
#if defined(__x86_64__)
    assert_int_equal(mfi_avxvnni_kernels.isa, MFI_ISA_AVX_VNNI);
    assert_true(mfi_avxvnni_kernels.matmul_q8 == mfi_avxvnni_matmul_q8);
    assert_true(mfi_avxvnni_kernels.matmul_q8 != mfi_avx2_kernels.matmul_q8);
    assert_false(mfi_isa_verified(MFI_ISA_AVX_VNNI));
    assert_true(mfi_isa_verified(MFI_ISA_AVX2));
#else
    mft_skip("not an x86-64 build");
#endif
}

static void test_bits_of_plain_c(void **state)
{
    (void)state;
    if (!mfi_cpu_has(MFI_ISA_AVX_VNNI))
        mft_skip("this processor has no AVX-VNNI: its kernels are compiled and unverified");
    const mfi_kernels *c = mfi_kernels_get(MFI_ISA_C), *k = mfi_kernels_get(MFI_ISA_AVX_VNNI);
    mfi_rng rng;
    for (uint32_t i = 0; i < 2 * MFT_N_TYPES; i++) {
        const mfi_qtype type = mft_type(i / 2);
        mfi_int_form form;
        mft_seed(&rng, 100 + i);
        if (!mfi_int_form_of(type, &form))
            continue;
        const mfi_mat w = mft_random_mat(&rng, type, ROWS, COLS, 0.05f);
        const mfi_q8 x = quantized(&rng, i % 2);
        for (uint32_t n_tok = 1; n_tok <= TOKS; n_tok++) {
            float wanted[TOKS * ROWS], found[TOKS * ROWS];
            c->matmul_q8(&w, &x, n_tok, wanted, ROWS, 0, ROWS);
            k->matmul_q8(&w, &x, n_tok, found, ROWS, 0, ROWS);
            if (memcmp(wanted, found, n_tok * ROWS * sizeof *wanted) != 0)
                fail_msg("kind %d, %d bits, %u tokens: not the bits of plain C (seed %llu)",
                         type.kind, type.bits, n_tok, (unsigned long long)mft_last_seed());
        }
        mft_guard_free();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_is_compiled),
    };
    const struct CMUnitTest on_such[] = {
        cmocka_unit_test(test_bits_of_plain_c),
    };
    if (cmocka_run_group_tests(tests, NULL, NULL) != 0)
        return 1;
    return mft_run(on_such); /* skipped as a whole where it can't run */
}
