/* Attention, the gated delta rule and its convolution in plain C. Called through the kernel table
 * on any thread; each call works on one head or one range of channels. */
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

#include "kernels/lanes.h"

static float dot(const float *a, const float *b, uint32_t n)
{
    float acc[MFI_LANES] = {0};
    uint32_t i = 0;
    for (; n - i >= MFI_LANES; i += MFI_LANES) {
        for (int j = 0; j < MFI_LANES; j++)
            acc[j] += a[i + j] * b[i + j];
    }
    for (int j = 0; i < n; i++, j++)
        acc[j] += a[i] * b[i];
    return mfi_add_lanes(acc);
}

/* Row of position j <= ring, counted from `first`. */
static size_t ring_row(uint32_t first, uint32_t j, uint32_t ring)
{
    return j < ring - first ? first + j : j - (ring - first);
}

void mfi_ref_attend_ring(const float *q, const float *k, size_t ldk, const float *v, size_t ldv,
                         uint32_t first, uint32_t n_kv, uint32_t ring, uint32_t dim, uint32_t dim_v,
                         float scale, float sink, float *out)
{
    float max = sink, sum = sink == -INFINITY ? 0 : 1; /* exp(sink - max) */
    MFI_ASSERT(n_kv > 0 && n_kv <= ring && first < ring);
    MFI_ASSERT(dim <= MFI_ATTN_DIM_MAX && dim_v <= MFI_ATTN_DIM_MAX);
    memset(out, 0, dim_v * sizeof *out);
    for (uint32_t j0 = 0; j0 < n_kv; j0 += MFI_ATTN_BLOCK) {
        uint32_t n = MFI_MIN(n_kv - j0, MFI_ATTN_BLOCK);
        float p[MFI_ATTN_BLOCK], block_max = max;
        for (uint32_t j = 0; j < n; j++) {
            p[j] = scale * dot(q, k + ring_row(first, j0 + j, ring) * ldk, dim);
            block_max = MFI_MAX(block_max, p[j]);
        }
        if (block_max > max) { /* what was summed so far was relative to the old maximum */
            float shrink = expf(max - block_max);
            sum *= shrink;
            for (uint32_t i = 0; i < dim_v; i++)
                out[i] *= shrink;
            max = block_max;
        }
        for (uint32_t j = 0; j < n; j++) {
            const float *row = v + ring_row(first, j0 + j, ring) * ldv;
            float weight = expf(p[j] - max);
            sum += weight;
            for (uint32_t i = 0; i < dim_v; i++)
                out[i] += weight * row[i];
        }
    }
    for (uint32_t i = 0; i < dim_v; i++)
        out[i] /= sum;
}

void mfi_ref_attend(const float *q, const float *k, size_t ldk, const float *v, size_t ldv,
                    uint32_t n_kv, uint32_t dim, uint32_t dim_v, float scale, float *out)
{
    mfi_ref_attend_ring(q, k, ldk, v, ldv, 0, n_kv, n_kv, dim, dim_v, scale, -INFINITY, out);
}

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
