/* The integer form of a weight type: what products with 8-bit activations compute with.
 *
 * A row is cut into sub-blocks of 32 columns (16 with `halves`). In each,
 *   weight = scale * (code - offset) + min,
 * code a byte, offset one number for the type, scale and min floats: the very numbers that decoding
 * multiplies and adds. With activations d_x * q of a block, h the integer sums of 16 q's, and s =
 * d_x * (sum of the q's of the sub-block), an output is, sub-block after sub-block,
 *   acc = fma((float)(sum of code * q - offset * sum of q), scale * d_x, acc)
 *   acc = fma(min, s, acc)                                             where the type has min
 * With 16-bit activations 255 * q + lo stands for q, and d_fine and s_fine for d_x and s.
 * The integer part is exact, and there is one chain of float additions an output, in rising order
 * of columns; so every level that has an fma gives the same bits, for one token as for many. */
#ifndef MFI_QUANT_INT_FORM_H
#define MFI_QUANT_INT_FORM_H

#include "quant/quant.h"

typedef struct mfi_int_form {
    uint8_t offset;
    bool halves; /* sub-blocks of 16 */
    bool min;
    bool wide; /* codes above 128: two products don't fit 16 bits */
} mfi_int_form;

/* Columns [0, n) of a row at `planes`, n a multiple of 32 and at most 256. */
typedef struct mfi_int_codes {
    uint8_t code[256];
    float scale[16], min[16]; /* by sub-block */
} mfi_int_codes;

/* False if the type has none. */
bool mfi_int_form_of(mfi_qtype type, mfi_int_form *form);
/* In plain C: the specification of what faster levels unpack. */
void mfi_int_unpack(mfi_qtype type, const void *const planes[3], uint32_t n, mfi_int_codes *out);

#endif
