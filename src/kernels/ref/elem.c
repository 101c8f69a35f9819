/* Activations, and the table of the plain level. Called through it, on any thread. */
#include "kernels/ref/ref.h"

#include <math.h>

#include "kernels/elem_tmpl.h"

float mfi_softplus(float x)
{
    /* max(x, 0) + log1p(exp(-|x|)): the argument of exp is never positive, and log1p keeps what is
     * small. A NaN comes out of the second term. */
    return (x > 0 ? x : 0) + log1pf(expf(-fabsf(x)));
}

float mfi_sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

void mfi_ref_silu_mul(const float *gate, const float *up, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
}

void mfi_ref_glu_clamped(const float *gate, const float *up, float alpha, float limit, uint32_t n,
                         float *y)
{
    for (uint32_t i = 0; i < n; i++) {
        float g = gate[i] > limit ? limit : gate[i];
        float u = up[i] > limit ? limit : up[i] < -limit ? -limit : up[i];
        y[i] = (u + 1) * (g / (1 + expf(-alpha * g)));
    }
}

void mfi_ref_sigmoid_mul(float *y, const float *g, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] *= mfi_sigmoid(g[i]);
}

const mfi_kernels mfi_ref_kernels = {
    .isa = MFI_ISA_C,
    .matmul_f32 = mfi_ref_matmul_f32,
    .matmul_q8 = mfi_ref_matmul_q8,
    .matmul_cols = mfi_ref_matmul_cols,
    .quantize_q8 = mfi_ref_quantize_q8,
    .get_row = mfi_ref_get_row,
    ELEM_ENTRIES,
    .silu_mul = mfi_ref_silu_mul,
    .glu_clamped = mfi_ref_glu_clamped,
    .sigmoid_mul = mfi_ref_sigmoid_mul,
    .attend = mfi_ref_attend,
    .store_row = mfi_ref_store_row,
    .matmul_t = mfi_ref_matmul_t,
    .conv_silu = mfi_ref_conv_silu,
    .gdn_step = mfi_ref_gdn_step,
    .route = mfi_ref_route,
};
