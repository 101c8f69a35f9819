/* Byte arithmetic and names of element types. Pure functions, for any thread; conversions and
 * decoding are in dequant.c. */
#include "quant/quant.h"

#include <stdio.h>

static const char *float_name(uint8_t kind)
{
    switch (kind) {
    case MFI_Q_F32:
        return "f32";
    case MFI_Q_F16:
        return "f16";
    case MFI_Q_BF16:
        return "bf16";
    default:
        return "?";
    }
}

uint32_t mfi_quant_n_planes(mfi_qtype type)
{
    return type.kind == MFI_Q_MLX ? 3 : 1;
}

bool mfi_quant_cols_ok(mfi_qtype type, uint64_t cols)
{
    if (type.kind == MFI_Q_MLX) /* groups are multiples of 32, so that words are whole, too */
        return cols % type.group == 0;
    return cols * type.bits % 8 == 0;
}

uint64_t mfi_quant_row_bytes(mfi_qtype type, uint32_t plane, uint64_t cols)
{
    MFI_ASSERT(plane < mfi_quant_n_planes(type));
    if (plane > 0)
        return cols / type.group * (type.scale == MFI_Q_F32 ? 4 : 2);
    return cols * type.bits / 8;
}

void mfi_quant_name(mfi_qtype type, char *name, size_t cap)
{
    if (type.kind == MFI_Q_MLX)
        snprintf(name, cap, "mlx %d-bit group %d (%s)", type.bits, type.group,
                 float_name(type.scale));
    else if (type.kind == MFI_Q_OTHER)
        snprintf(name, cap, "%d-bit other", type.bits);
    else
        snprintf(name, cap, "%s", type.kind == MFI_Q_NONE ? "none" : float_name(type.kind));
}
