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

static uint32_t float_bytes(uint8_t kind)
{
    return kind == MFI_Q_F32 ? 4 : 2;
}

uint32_t mfi_quant_n_planes(mfi_qtype type)
{
    switch (type.kind) {
    case MFI_Q_MLX:
        return 3;
    case MFI_Q_FP8:
    case MFI_Q_MXFP4:
        return 2;
    default:
        return 1;
    }
}

bool mfi_quant_cols_ok(mfi_qtype type, uint64_t cols)
{
    uint32_t n = 1, bytes;
    switch (type.kind) {
    case MFI_Q_MLX: /* groups are multiples of 32, so that words are whole, too */
        return cols % type.group == 0;
    case MFI_Q_GGML:
        return mfi_ggml_block(type.bits, &n, &bytes) && cols % n == 0;
    case MFI_Q_FP8:
        return true;
    case MFI_Q_MXFP4:
        return cols % 32 == 0;
    default:
        return cols * type.bits % 8 == 0;
    }
}

uint64_t mfi_quant_row_bytes(mfi_qtype type, uint32_t plane, uint64_t cols)
{
    uint32_t n = 1, bytes = 0;
    MFI_ASSERT(plane < mfi_quant_n_planes(type));
    switch (type.kind) {
    case MFI_Q_MLX:
        return plane > 0 ? cols / type.group * float_bytes(type.scale) : cols * type.bits / 8;
    case MFI_Q_GGML:
        MFI_ASSERT(mfi_ggml_block(type.bits, &n, &bytes));
        return cols / n * bytes;
    case MFI_Q_FP8:
        return plane > 0 ? (cols + MFI_FP8_BLOCK - 1) / MFI_FP8_BLOCK * float_bytes(type.scale)
                         : cols;
    case MFI_Q_MXFP4:
        return plane > 0 ? cols / 32 : cols / 2;
    default:
        return cols * type.bits / 8;
    }
}

uint32_t mfi_quant_rows_per_row(mfi_qtype type, uint32_t plane)
{
    return type.kind == MFI_Q_FP8 && plane == 1 ? MFI_FP8_BLOCK : 1;
}

uint64_t mfi_quant_plane_bytes(mfi_qtype type, uint32_t plane, uint64_t rows, uint64_t cols)
{
    uint32_t per = mfi_quant_rows_per_row(type, plane);
    return (rows + per - 1) / per * mfi_quant_row_bytes(type, plane, cols);
}

bool mfi_quant_multiplies(mfi_qtype type)
{
    return type.kind != MFI_Q_NONE && type.kind != MFI_Q_OTHER;
}

void mfi_quant_name(mfi_qtype type, char *name, size_t cap)
{
    if (type.kind == MFI_Q_MLX)
        snprintf(name, cap, "mlx %d-bit group %d (%s)", type.bits, type.group,
                 float_name(type.scale));
    else if (type.kind == MFI_Q_GGML)
        snprintf(name, cap, "%s", mfi_ggml_name(type.bits));
    else if (type.kind == MFI_Q_FP8)
        snprintf(name, cap, "fp8 e4m3 128x128 (%s)", float_name(type.scale));
    else if (type.kind == MFI_Q_MXFP4)
        snprintf(name, cap, "mxfp4");
    else if (type.kind == MFI_Q_OTHER)
        snprintf(name, cap, "%d-bit other", type.bits);
    else
        snprintf(name, cap, "%s", type.kind == MFI_Q_NONE ? "none" : float_name(type.kind));
}
