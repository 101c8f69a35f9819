/* Matrix products with 8-bit activations, NEON with dot products of bytes: 4 rows a panel. Called
 * through the kernel table on any thread. The arithmetic is told in quant/int_form.h. Both factors
 * of the instruction are signed, so codes of eight bits are stored as signed bytes. */
#include "kernels/arm/int_neon.h"

#define PANEL_SIGNED 128
#define PANEL_FLIP   0x80808080u

PANEL_INLINE panel_i panel_dot4(panel_i sum, panel_u codes, uint32_t x, bool wide)
{
    (void)wide;
    return (panel_i)vdotq_s32((int32x4_t)sum, (int8x16_t)codes,
                              vreinterpretq_s8_u32(vdupq_n_u32(x)));
}

#include "kernels/panel_tmpl.h"

#include "kernels/int_tmpl.h"

void mfi_neon_matmul_q8(const mfi_mat *w, const mfi_q8 *x, uint32_t n_tok, float *y, size_t ldy,
                        uint32_t row0, uint32_t row1)
{
    mfi_int_form form;
    MFI_ASSERT(w->cols % MFI_Q8_BLOCK == 0);
    if (mfi_int_form_of(w->type, &form))
        int_rows(w, x, n_tok, y, ldy, row0, row1);
    else
        mfi_neon_block_q8(w, x, n_tok, y, ldy, row0, row1);
}
