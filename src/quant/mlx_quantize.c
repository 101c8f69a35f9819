/* Affine quantisation as MLX does it: the encoder of the MLX types.
 *
 * Called by the converter and by tests, on any thread; keeps no state, allocates nothing, can't
 * fail.
 *
 * The range of a group is cut into 2^bits - 1 steps from the end with the larger magnitude
 * ("edge"), which gets the bias; the scale's sign points away from it. The step is then adjusted so
 * that zero falls on a whole code: edge / q0 instead of range / steps, q0 = round(edge / step). The
 * order of the operations and their float32 rounding are part of the contract.
 *
 * The loops have no branches and keep a fixed number of lanes, so that the compiler vectorises them
 * without being allowed to reorder. */
#include "quant/quant.h"

#include <math.h>
#include <string.h>

#define LANES 8 /* divides every group size */

static void range(const float *x, uint32_t n, float *lo, float *hi)
{
    float l[LANES], h[LANES];
    for (int j = 0; j < LANES; j++) {
        l[j] = INFINITY;
        h[j] = -INFINITY;
    }
    for (uint32_t i = 0; i < n; i += LANES) {
        for (int j = 0; j < LANES; j++) { /* NaN compares false and is passed over */
            l[j] = x[i + j] < l[j] ? x[i + j] : l[j];
            h[j] = x[i + j] > h[j] ? x[i + j] : h[j];
        }
    }
    *lo = l[0];
    *hi = h[0];
    for (int j = 1; j < LANES; j++) {
        *lo = l[j] < *lo ? l[j] : *lo;
        *hi = h[j] > *hi ? h[j] : *hi;
    }
}

static float rounded(float f, mfi_qkind kind)
{
    switch (kind) {
    case MFI_Q_F16:
        return mfi_f16_to_f32(mfi_f32_to_f16(f));
    case MFI_Q_BF16:
        return mfi_bf16_to_f32(mfi_f32_to_bf16(f));
    default:
        return f;
    }
}

void mfi_mlx_quantize_group(const float *x, uint32_t group, uint32_t bits, mfi_qkind scale_kind,
                            uint8_t *codes, float *scale, float *bias)
{
    MFI_ASSERT(group % LANES == 0);
    float lo, hi;
    range(x, group, &lo, &hi);
    float n_bins = (float)((1u << bits) - 1);
    float step = (hi - lo) / n_bins;
    if (step < 1e-7f)
        step = 1e-7f;
    bool low_edge = fabsf(lo) > fabsf(hi);
    if (!low_edge)
        step = -step;
    float edge = low_edge ? lo : hi;
    float q0 = rintf(edge / step);
    float offset = 0;
    if (q0 != 0) {
        step = edge / q0;
        offset = edge;
    }
    for (uint32_t i = 0; i < group; i++) {
        float v = (x[i] - offset) / step;
        /* Clamped before rounding, which gives the same codes; adding 1.5 * 2^23 then rounds to the
         * nearest integer, even on ties, with the arithmetic that every machine has. */
        v = v > 0 ? v : 0;
        v = v < n_bins ? v : n_bins;
        v += 12582912.0f;
        uint32_t u;
        memcpy(&u, &v, sizeof u);
        codes[i] = (uint8_t)u;
    }
    *scale = rounded(step, scale_kind);
    *bias = rounded(offset, scale_kind);
}

void mfi_mlx_pack(const uint8_t *codes, uint64_t n, uint32_t bits, void *plane0)
{
    MFI_ASSERT(n * bits % 32 == 0);
    uint8_t *out = plane0;
    if (bits == 8) {
        memcpy(out, codes, n);
        return;
    }
    if (bits == 4) {
        for (uint64_t i = 0; i < n / 2; i++)
            out[i] = (uint8_t)(codes[2 * i] | codes[2 * i + 1] << 4);
        return;
    }
    /* Eight codes fill `bits` whole bytes. */
    for (uint64_t i = 0; i < n; i += 8) {
        uint64_t v = 0;
        for (uint32_t k = 0; k < 8; k++)
            v |= (uint64_t)codes[i + k] << (k * bits);
        for (uint32_t b = 0; b < bits; b++)
            *out++ = (uint8_t)(v >> (8 * b));
    }
}
