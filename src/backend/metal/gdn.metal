/* Gated DeltaNet in its recurrent form: tokens in order, so that chunks change no bit. */
#include "backend/metal/common.metal"

/* A thread a channel. */
kernel void mfi_gdn_conv(constant mfi_metal_conv &a [[buffer(0)]],
                         device float *state [[buffer(1)]], device const float *w [[buffer(2)]],
                         device float *x [[buffer(3)]], MFI_AT)
{
    MFI_UNLESS_STOPPED;
    uint c = at.x * size.x + tid;
    if (c >= a.n_ch)
        return;
    device const float *taps = w + (size_t)c * a.n_taps;
    for (uint t = 0; t < a.n_tok; t++) {
        device float *in = x + (size_t)t * a.ldx + c;
        float now = *in, sum = 0;
        for (uint j = 0; j + 1 < a.n_taps; j++) {
            device float *old = state + (size_t)j * a.n_ch + c;
            sum = fma(taps[j], *old, sum);
            *old = j + 2 < a.n_taps ? old[a.n_ch] : now;
        }
        *in = silu(fma(taps[a.n_taps - 1], now, sum));
    }
}

/* What a head's tokens have. */
struct gdn_in {
    device const float *qkv, *z, *b, *a, *neg_exp_a, *dt, *norm;
};

/* A key or query in threadgroup memory, of unit length times scale. */
MFI_FN void load_unit(device const float *x, uint n, float scale, threadgroup float *to,
                      threadgroup float *room, uint tid, uint lane, uint sg, uint n_threads)
{
    float sq = 0;
    for (uint i = tid; i < n; i += n_threads)
        sq = fma(x[i], x[i], sq);
    float factor = scale / precise::sqrt(sum_all(sq, room, lane, sg, n_threads) + 1e-6f);
    for (uint i = tid; i < n; i += n_threads)
        to[i] = x[i] * factor;
}

/* log(1 + e) for e in [0, 1], without losing what is small. */
MFI_FN float log_1p(float e)
{
    float u = 1 + e;
    return u == 1 ? e : precise::log(u) * (e / (u - 1));
}

MFI_FN float decay_of(constant mfi_metal_gdn &g, gdn_in in, uint t, uint h)
{
    float x = in.a[(size_t)t * g.ld_a + h] + in.dt[h];
    float soft = (x > 0 ? x : 0.0f) + log_1p(precise::exp(-fabs(x)));
    return precise::exp(in.neg_exp_a[h] * soft);
}

MFI_FN uint key_head(constant mfi_metal_gdn &g, uint h)
{
    return g.tiled ? h % g.k_heads : h / (g.v_heads / g.k_heads);
}

/* Queries and keys of a token: room is sums [32], q [k_dim], k [k_dim]. */
MFI_FN void load_token(constant mfi_metal_gdn &g, gdn_in in, uint t, uint h,
                       threadgroup float *room, uint tid, uint lane, uint sg, uint n_threads)
{
    device const float *row = in.qkv + (size_t)t * g.ld_qkv;
    uint k = key_head(g, h);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    load_unit(row + (size_t)k * g.k_dim, g.k_dim, g.q_scale, room + 32, room, tid, lane, sg,
              n_threads);
    load_unit(row + (size_t)(g.k_heads + k) * g.k_dim, g.k_dim, 1, room + 32 + g.k_dim, room, tid,
              lane, sg, n_threads);
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

MFI_FN float value_of(constant mfi_metal_gdn &g, gdn_in in, uint t, uint h, uint j)
{
    return in.qkv[(size_t)t * g.ld_qkv + (size_t)2 * g.k_heads * g.k_dim + (size_t)h * g.v_dim + j];
}

/* Norms and gates column j's output, if `mine`; the sum is over all threads. */
MFI_FN void put_column(constant mfi_metal_gdn &g, gdn_in in, uint t, uint h, uint j, bool mine,
                       float out, device float *to, threadgroup float *room, uint lane, uint sg,
                       uint n_threads)
{
    float sq = sum_all(mine ? out * out : 0.0f, room, lane, sg, n_threads);
    if (!mine)
        return;
    float factor = 1 / precise::sqrt(sq / (float)g.v_dim + g.eps);
    to[(size_t)t * g.ldo + (size_t)h * g.v_dim + j] =
        silu(in.z[(size_t)t * g.ld_z + (size_t)h * g.v_dim + j]) * (out * factor * in.norm[j]);
}

#define GDN_PARAMETERS                                                                             \
    constant mfi_metal_gdn &g [[buffer(0)]], device const float *qkv [[buffer(1)]],                \
        device const float *z [[buffer(2)]], device const float *b [[buffer(3)]],                  \
        device const float *a [[buffer(4)]], device const float *neg_exp_a [[buffer(5)]],          \
        device const float *dt [[buffer(6)]], device const float *norm [[buffer(7)]],              \
        device float *state [[buffer(8)]], device float *out [[buffer(9)]], MFI_AT

#define GDN_IN                                                                                     \
    gdn_in in;                                                                                     \
    in.qkv = qkv, in.z = z, in.b = b, in.a = a, in.neg_exp_a = neg_exp_a, in.dt = dt, in.norm = norm

/* A threadgroup a value head; four neighbouring threads share a column of its state, each with a
 * quarter of the rows in registers, every fourth one. */
template <int DK>
MFI_FN void heads(constant mfi_metal_gdn &g, gdn_in in, device float *state, device float *to,
                  threadgroup float *room, uint h, uint tid, uint lane, uint sg, uint n_threads)
{
    const int ROWS_HELD = DK / MFI_METAL_GDN_PARTS;
    uint j = tid / MFI_METAL_GDN_PARTS, part = tid % MFI_METAL_GDN_PARTS;
    bool there = j < g.v_dim;
    device float *column = state + ((size_t)h * DK + part) * g.v_dim + j;
    size_t step = (size_t)MFI_METAL_GDN_PARTS * g.v_dim;
    threadgroup const float *q = room + 32, *k = q + DK;
    float s[ROWS_HELD];
    for (int i = 0; i < ROWS_HELD; i++)
        s[i] = there ? column[i * step] : 0.0f;
    for (uint t = 0; t < g.n_tok; t++) {
        load_token(g, in, t, h, room, tid, lane, sg, n_threads);
        float decay = decay_of(g, in, t, h), beta = sigmoid(in.b[(size_t)t * g.ld_b + h]);
        float v = there ? value_of(g, in, t, h, j) : 0.0f, delta = 0, sum = 0;
        for (int i = 0; i < ROWS_HELD; i++) {
            s[i] *= decay;
            delta = fma(s[i], k[i * MFI_METAL_GDN_PARTS + part], delta);
        }
        delta += simd_shuffle_xor(delta, (ushort)1);
        delta += simd_shuffle_xor(delta, (ushort)2);
        delta = beta * (v - delta);
        for (int i = 0; i < ROWS_HELD; i++) {
            s[i] = fma(k[i * MFI_METAL_GDN_PARTS + part], delta, s[i]);
            sum = fma(s[i], q[i * MFI_METAL_GDN_PARTS + part], sum);
        }
        sum += simd_shuffle_xor(sum, (ushort)1);
        sum += simd_shuffle_xor(sum, (ushort)2);
        put_column(g, in, t, h, j, there && part == 0, sum, to, room, lane, sg, n_threads);
    }
    for (int i = 0; i < ROWS_HELD; i++)
        if (there)
            column[i * step] = s[i];
}

[[max_total_threads_per_threadgroup(512)]] kernel void mfi_gdn_64(GDN_PARAMETERS)
{
    MFI_UNLESS_STOPPED;
    GDN_IN;
    heads<64>(g, in, state, out, room, at.x, tid, lane, sg, size.x);
}

[[max_total_threads_per_threadgroup(512)]] kernel void mfi_gdn_128(GDN_PARAMETERS)
{
    MFI_UNLESS_STOPPED;
    GDN_IN;
    heads<128>(g, in, state, out, room, at.x, tid, lane, sg, size.x);
}

/* Any number of rows: a thread a column, its state in memory. */
[[max_total_threads_per_threadgroup(1024)]] kernel void mfi_gdn_any(GDN_PARAMETERS)
{
    MFI_UNLESS_STOPPED;
    GDN_IN;
    uint h = at.x, j = tid;
    bool there = j < g.v_dim;
    device float *s = state + (size_t)h * g.k_dim * g.v_dim + j;
    threadgroup const float *q = room + 32, *k = q + g.k_dim;
    for (uint t = 0; t < g.n_tok; t++) {
        load_token(g, in, t, h, room, tid, lane, sg, size.x);
        float decay = decay_of(g, in, t, h), beta = sigmoid(b[(size_t)t * g.ld_b + h]);
        float delta = 0, sum = 0;
        for (uint i = 0; there && i < g.k_dim; i++) {
            float now = s[(size_t)i * g.v_dim] * decay;
            s[(size_t)i * g.v_dim] = now;
            delta = fma(now, k[i], delta);
        }
        delta = there ? beta * (value_of(g, in, t, h, j) - delta) : 0.0f;
        for (uint i = 0; there && i < g.k_dim; i++) {
            float now = fma(k[i], delta, s[(size_t)i * g.v_dim]);
            s[(size_t)i * g.v_dim] = now;
            sum = fma(now, q[i], sum);
        }
        put_column(g, in, t, h, j, there, sum, out, room, lane, sg, size.x);
    }
}
