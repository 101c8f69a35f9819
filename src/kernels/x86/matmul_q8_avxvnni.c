/* Matrix products with 8-bit activations, AVX-VNNI: 8 rows a panel, as with AVX2, but one
 * instruction for four products. Called through the kernel table on any thread. The arithmetic is
 * told in quant/int_form.h. */
#include "kernels/x86/int_avx2.h"
#include "kernels/x86/x86.h"

#define PANEL_SIGNED 0
#define PANEL_FLIP   0u

PANEL_INLINE panel_i panel_dot4(panel_i sum, panel_u codes, uint32_t x, bool wide)
{
    (void)wide;
    return (panel_i)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)codes,
                                            _mm256_set1_epi32((int)x));
}

PANEL_INLINE panel_i panel_dot2(panel_i sum, uint32_t a, uint32_t b)
{
    return (panel_i)_mm256_dpwssd_avx_epi32((__m256i)sum, _mm256_set1_epi32((int)a),
                                            _mm256_set1_epi32((int)b));
}

#include "kernels/panel_tmpl.h"

#include "kernels/x86/rows_avx2.h"

#include "kernels/int_tmpl.h"

void mfi_avxvnni_matmul_q8(const mfi_mat *w, const mfi_q8 *x, uint32_t n_tok, float *y, size_t ldy,
                           uint32_t row0, uint32_t row1)
{
    mfi_int_form form;
    MFI_ASSERT(w->cols % MFI_Q8_BLOCK == 0);
    if (mfi_int_form_of(w->type, &form))
        int_rows(w, x, n_tok, y, ldy, row0, row1);
    else
        mfi_avx2_block_q8(w, x, n_tok, y, ldy, row0, row1);
}
