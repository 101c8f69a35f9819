/* The gated delta rule and its convolution in plain C. Called through the kernel table on any
 * thread; each call works on one head or one range of channels. */
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

void mfi_ref_conv_silu(float *state, const float *w, const float *x, uint32_t n_ch, uint32_t kernel,
                       uint32_t c0, uint32_t c1, float *y)
{
    for (uint32_t c = c0; c < c1; c++) {
        const float *taps = w + (size_t)c * kernel;
        float sum = 0;
        for (uint32_t j = 0; j + 1 < kernel; j++) {
            float *in = state + (size_t)j * n_ch + c;
            sum += taps[j] * *in;
            *in = j + 2 < kernel ? in[n_ch] : x[c];
        }
        sum += taps[kernel - 1] * x[c];
        y[c] = sum / (1 + expf(-sum));
    }
}

void mfi_ref_gdn_step(float *s, const float *q, const float *k, const float *v, float g, float beta,
                      uint32_t dk, uint32_t dv, float *out)
{
    float delta[MFI_GDN_DIM_MAX];
    MFI_ASSERT(dv <= MFI_GDN_DIM_MAX);
    memset(delta, 0, dv * sizeof *delta);
    memset(out, 0, dv * sizeof *out);
    for (uint32_t i = 0; i < dk; i++) {
        float *row = s + (size_t)i * dv;
        for (uint32_t j = 0; j < dv; j++) {
            row[j] *= g;
            delta[j] += row[j] * k[i];
        }
    }
    for (uint32_t j = 0; j < dv; j++)
        delta[j] = beta * (v[j] - delta[j]);
    for (uint32_t i = 0; i < dk; i++) {
        float *row = s + (size_t)i * dv;
        for (uint32_t j = 0; j < dv; j++) {
            row[j] += k[i] * delta[j];
            out[j] += row[j] * q[i];
        }
    }
}
