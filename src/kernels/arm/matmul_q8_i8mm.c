/* Matrix products with 8-bit activations, NEON with I8MM: as with NEON, but codes stay unsigned,
 * and two tokens meet two rows in one instruction. Called through the kernel table on any thread.
 * The arithmetic is told in quant/int_form.h. */
#include "kernels/arm/int_neon.h"

#define PANEL_SIGNED 0
#define PANEL_FLIP   0u

PANEL_INLINE panel_i panel_dot4(panel_i sum, panel_u codes, uint32_t x, bool wide)
{
    (void)wide;
    return (panel_i)vusdotq_s32((int32x4_t)sum, (uint8x16_t)codes,
                                vreinterpretq_s8_u32(vdupq_n_u32(x)));
}

#define PANEL_PAIRS

/* Rows 0 and 1 of both tokens, in turn, then rows 2 and 3. */
PANEL_INLINE void panel_join(panel_i a, panel_i b, panel_i pair[2])
{
    pair[0] = (panel_i)vzip1q_s32((int32x4_t)a, (int32x4_t)b);
    pair[1] = (panel_i)vzip2q_s32((int32x4_t)a, (int32x4_t)b);
}

PANEL_INLINE void panel_part_pair(const panel_i pair[2], panel_i dot[2])
{
    dot[0] = (panel_i)vuzp1q_s32((int32x4_t)pair[0], (int32x4_t)pair[1]);
    dot[1] = (panel_i)vuzp2q_s32((int32x4_t)pair[0], (int32x4_t)pair[1]);
}

PANEL_INLINE void panel_mmla(panel_i pair[2], panel_u w0, panel_u w1, const int8_t *x0,
                             const int8_t *x1)
{
    const int8x16_t x = vcombine_s8(vld1_s8(x0), vld1_s8(x1));
    const uint8x16_t low = (uint8x16_t)vzip1q_u32((uint32x4_t)w0, (uint32x4_t)w1);
    const uint8x16_t high = (uint8x16_t)vzip2q_u32((uint32x4_t)w0, (uint32x4_t)w1);
    pair[0] = (panel_i)vusmmlaq_s32((int32x4_t)pair[0], low, x);
    pair[1] = (panel_i)vusmmlaq_s32((int32x4_t)pair[1], high, x);
}

#include "kernels/panel_tmpl.h"

#include "kernels/int_tmpl.h"

void mfi_i8mm_matmul_q8(const mfi_mat *w, const mfi_q8 *x, uint32_t n_tok, float *y, size_t ldy,
                        uint32_t row0, uint32_t row1)
{
    mfi_int_form form;
    MFI_ASSERT(w->cols % MFI_Q8_BLOCK == 0);
    if (mfi_int_form_of(w->type, &form))
        int_rows(w, x, n_tok, y, ldy, row0, row1);
    else
        mfi_neon_block_q8(w, x, n_tok, y, ldy, row0, row1);
}
