/* Element-wise ops, norms and rotary tables. A row's sums have one order, by its length alone. */
#include "backend/metal/common.metal"

/* Angles are turns in units of 2^-64, exact but for the frequency's own rounding: whole turns fall
 * out of the product at the top. What is left of a quarter turn meets a short polynomial. */
kernel void mfi_rope_table(constant mfi_metal_rope_table &a [[buffer(0)]],
                           device const uint64_t *freq [[buffer(1)]],
                           device const uint *pos [[buffer(2)]], device float *y [[buffer(3)]],
                           MFI_AT)
{
    MFI_UNLESS_STOPPED;
    device float *row = y + (size_t)at.x * a.ldy;
    for (uint i = tid; i < a.n_pairs; i += size.x) {
        uint64_t turns = (uint64_t)pos[at.x] * freq[i];
        uint quarter = (uint)((turns + ((uint64_t)1 << 61)) >> 62) & 3;
        int64_t rest = (int64_t)(turns - ((uint64_t)quarter << 62));
        float r = (float)rest * 5.42101086e-20f * 6.28318531f, z = r * r;
        float s =
            fma(fma(fma(z, -1.9515295891e-4f, 8.3321608736e-3f), z, -1.6666654611e-1f), z * r, r);
        float c = fma(
            fma(fma(z, 2.443315711809948e-5f, -1.388731625493765e-3f), z, 4.166664568298827e-2f),
            z * z, fma(z, -0.5f, 1.0f));
        float cosine = quarter == 0 ? c : quarter == 1 ? -s : quarter == 2 ? -c : s;
        float sine = quarter == 0 ? s : quarter == 1 ? c : quarter == 2 ? -s : -c;
        row[i] = cosine * a.factor;
        row[a.n_pairs + i] = sine * a.factor;
    }
}

kernel void mfi_rmsnorm(constant mfi_metal_rmsnorm &a [[buffer(0)]],
                        device const float *x [[buffer(1)]], device const float *w [[buffer(2)]],
                        device const uint *head_rows [[buffer(3)]], device float *y [[buffer(4)]],
                        MFI_AT)
{
    MFI_UNLESS_STOPPED;
    device const float *in = x + (size_t)(a.by_head ? head_rows[at.x] : at.x) * a.ldx;
    device float *out = y + (size_t)at.x * a.ldy;
    float sq = 0;
    for (uint i = tid; i < a.n; i += size.x)
        sq = fma(in[i], in[i], sq);
    float mean = sum_all(sq, room, lane, sg, size.x) / (float)a.n;
    float factor = 1 / precise::sqrt(mean + a.eps);
    for (uint i = tid; i < a.n; i += size.x)
        out[i] = in[i] * factor * w[i];
}

kernel void mfi_add(constant mfi_metal_add &a [[buffer(0)]], device const float *x [[buffer(1)]],
                    device float *y [[buffer(2)]], MFI_AT)
{
    MFI_UNLESS_STOPPED;
    uint i = at.x * size.x + tid;
    if (i >= a.n)
        return;
    float more = a.factor * x[(size_t)at.y * a.ldx + i];
    y[(size_t)at.y * a.ldy + i] += more;
}

kernel void mfi_scale(constant mfi_metal_scale &a [[buffer(0)]], device float *y [[buffer(1)]],
                      MFI_AT)
{
    MFI_UNLESS_STOPPED;
    uint64_t i = (uint64_t)at.x * size.x + tid;
    if (i < a.n)
        y[i] *= a.factor;
}

kernel void mfi_glu(constant mfi_metal_glu &a [[buffer(0)]], device const float *gate [[buffer(1)]],
                    device const float *up [[buffer(2)]], device float *y [[buffer(3)]], MFI_AT)
{
    MFI_UNLESS_STOPPED;
    uint i = at.x * size.x + tid;
    if (i >= a.n)
        return;
    device const float *g = gate + (size_t)at.y * a.ldg;
    float first = a.interleaved ? g[2 * i] : g[i];
    float second = a.interleaved ? g[2 * i + 1] : up[(size_t)at.y * a.ldu + i];
    y[(size_t)at.y * a.ldy + i] = glu_of(a.kind, a.alpha, a.limit, first, second);
}

/* The shared expert first, then ranks in order; a rounding for the product and one for the sum. */
kernel void mfi_combine(constant mfi_metal_combine &a [[buffer(0)]],
                        device float *res [[buffer(1)]], device float *sum [[buffer(2)]],
                        device const float *y [[buffer(3)]],
                        device const float *weights [[buffer(4)]],
                        device const float *gate [[buffer(5)]],
                        device const uint *pair_of [[buffer(6)]], MFI_AT)
{
    MFI_UNLESS_STOPPED;
    uint i = at.x * size.x + tid, t = at.y;
    if (i >= a.hidden)
        return;
    device float *to = sum + (size_t)t * a.ld_sum + i;
    float all = 0;
    if (a.how == 1) /* MFI_COMBINE_GATED */
        all = *to * sigmoid(gate[(size_t)t * a.ldg]);
    else if (a.how == 2) /* MFI_COMBINE_SHARED */
        all = *to;
    for (uint r = 0; r < a.top_k; r++) {
        float one = weights[(size_t)t * a.ldw + r] *
                    y[(size_t)pair_of[(size_t)t * a.top_k + r] * a.ldy + i];
        all += one;
    }
    *to = all;
    float more = a.factor * all;
    res[(size_t)t * a.ld_res + i] += more;
}
