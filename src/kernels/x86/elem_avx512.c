/* The table of the AVX-512 level. Called through it, on any thread. */
#include "kernels/elem_tmpl.h"
#include "kernels/ref/ref.h"
#include "kernels/x86/x86.h"

const mfi_kernels mfi_avx512_kernels = {
    .isa = MFI_ISA_AVX512,
    .matmul_f32 = mfi_avx512_matmul_f32,
    .matmul_cols = mfi_avx2_matmul_cols,
    .matmul_t = mfi_avx2_matmul_t,
    .matmul_q8 = mfi_avx512_matmul_q8,
    .quantize_q8 = mfi_avx2_quantize_q8,
    .get_row = mfi_ref_get_row,
    ELEM_ENTRIES,
    .silu_mul = mfi_avx2_silu_mul,
    .glu_clamped = mfi_avx2_glu_clamped,
    .sigmoid_mul = mfi_avx2_sigmoid_mul,
    .attend = mfi_avx512_attend,
    .store_row = mfi_avx2_store_row,
    .conv_silu = mfi_avx2_conv_silu,
    .gdn_step = mfi_avx2_gdn_step,
    .route = mfi_ref_route,
};
