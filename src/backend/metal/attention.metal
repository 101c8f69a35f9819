/* Attention, grouped or latent: prepares queries and keys, and attends.
 *
 * A threadgroup has up to 8 queries that share keys and values: heads of one token, or tokens of a
 * head. Positions come in blocks of 64 from multiples of 64 on; each block's softmax and sums start
 * from nothing and are merged in rising order, side by side for few tokens and one after another
 * for many, with the same bits. */
#include "backend/metal/common.metal"

#define QUERIES MFI_METAL_QUERIES
#define BLOCK   MFI_METAL_ATTN_BLOCK
#define THREADS MFI_METAL_ATTN_THREADS

/* ---- preparing ---- */

MFI_FN void norm_head(device const float *in, device const float *w, uint n, float eps,
                      device float *out, uint lane)
{
    float sq = 0;
    for (uint i = lane; i < n; i += 32)
        sq = fma(in[i], in[i], sq);
    float factor = 1 / precise::sqrt(simd_sum(sq) / (float)n + eps);
    for (uint i = lane; i < n; i += 32)
        out[i] = in[i] * factor * w[i];
}

/* Pairs (first, second) by the angles whose cosines and sines are given. */
MFI_FN void rotate(device const float *cosines, uint half_rot, bool neighbours, device float *x,
                   uint lane)
{
    for (uint i = lane; i < half_rot; i += 32) {
        uint first = neighbours ? 2 * i : i, second = neighbours ? 2 * i + 1 : i + half_rot;
        float p = x[first], q = x[second], c = cosines[i], s = cosines[half_rot + i];
        float pc = p * c, qs = q * s, qc = q * c, ps = p * s;
        x[first] = pc - qs;
        x[second] = qc + ps;
    }
}

/* A simdgroup's head: norm and rotation. Lanes read what others wrote, hence the barriers. */
MFI_FN void prep_head(constant mfi_metal_prep &a, bool normed, device const float *w,
                      device const float *cosines, device float *x, uint lane)
{
    if (normed && !a.norm_after) {
        norm_head(x, w, a.head_dim, a.eps, x, lane);
        simdgroup_barrier(mem_flags::mem_device);
    }
    if (!a.unrotated) {
        rotate(cosines, a.n_rot / 2, false, x, lane);
        simdgroup_barrier(mem_flags::mem_device);
    }
    if (normed && a.norm_after)
        norm_head(x, w, a.head_dim, a.eps, x, lane);
}

kernel void mfi_attn_prep(constant mfi_metal_prep &a [[buffer(0)]], device float *q [[buffer(1)]],
                          device const float *k [[buffer(2)]], device const float *v [[buffer(3)]],
                          device const float *rope [[buffer(4)]],
                          device const float *q_norm [[buffer(5)]],
                          device const float *k_norm [[buffer(6)]], device float *kv [[buffer(7)]],
                          MFI_AT)
{
    MFI_UNLESS_STOPPED;
    uint t = at.y, h = at.x * (size.x / 32) + sg, kvw = a.n_kv_head * a.head_dim;
    device const float *cosines = rope + (size_t)t * a.ldr;
    if (h < a.n_head) {
        prep_head(a, a.q_normed != 0, q_norm, cosines,
                  q + (size_t)t * a.ldq + (size_t)h * a.q_stride, lane);
        return;
    }
    h -= a.n_head;
    if (h >= a.n_kv_head)
        return;
    uint row = a.pos + t;
    device float *key = kv + (size_t)(a.ring ? row % a.ring : row) * 2 * kvw + h * a.head_dim;
    for (uint i = lane; i < a.head_dim; i += 32) {
        key[i] = k[(size_t)t * a.ldk + h * a.head_dim + i];
        key[kvw + i] = v[(size_t)t * a.ldv + h * a.head_dim + i];
    }
    simdgroup_barrier(mem_flags::mem_device);
    prep_head(a, a.k_normed != 0, k_norm, cosines, key, lane);
}

kernel void mfi_latent_prep(constant mfi_metal_latent &a [[buffer(0)]],
                            device float *q [[buffer(1)]], device const float *kva [[buffer(2)]],
                            device const float *rope [[buffer(3)]],
                            device const float *norm [[buffer(4)]], device float *kv [[buffer(5)]],
                            MFI_AT)
{
    MFI_UNLESS_STOPPED;
    uint t = at.y, h = at.x * (size.x / 32) + sg;
    device const float *cosines = rope + (size_t)t * a.ldr;
    bool neighbours = a.pairs != 0;
    if (h < a.n_head) {
        rotate(cosines, a.n_rot / 2, neighbours,
               q + (size_t)t * a.ldq + (size_t)h * a.head_dim + a.nope, lane);
        return;
    }
    if (h > a.n_head)
        return;
    device const float *in = kva + (size_t)t * a.ldk;
    device float *row = kv + (size_t)(a.pos + t) * (a.latent + a.n_rot);
    norm_head(in, norm, a.latent, a.eps, row, lane);
    for (uint i = lane; i < a.n_rot; i += 32)
        row[a.latent + i] = in[a.latent + i];
    simdgroup_barrier(mem_flags::mem_device);
    rotate(cosines, a.n_rot / 2, neighbours, row + a.latent, lane);
}

kernel void mfi_latent_tail(constant mfi_metal_latent &a [[buffer(0)]],
                            device const float *q [[buffer(1)]], device float *y [[buffer(2)]],
                            MFI_AT)
{
    MFI_UNLESS_STOPPED;
    uint i = at.x * size.x + tid, h = i / a.n_rot, k = i % a.n_rot;
    if (h < a.n_head)
        y[(size_t)at.y * a.ldy + (size_t)h * (a.latent + a.n_rot) + a.latent + k] =
            q[(size_t)at.y * a.ldq + (size_t)h * a.head_dim + a.nope + k];
}

/* ---- attending ---- */

/* Queries of a group of heads: number i is head (first + i) % group of token (first + i) / group.
 */
struct queries {
    uint first, n, kv_head;
};

/* Threadgroup memory: queries, then weights [QUERIES][BLOCK] of a block, then each query's maximum
 * and sum. */
struct scratch {
    threadgroup float *q, *p, *top, *sum;
};

MFI_FN scratch scratch_of(constant mfi_metal_attn &a, threadgroup float *room)
{
    scratch s;
    s.p = room; /* what is read as float4 comes first, or behind multiples of 4 */
    s.top = s.p + QUERIES * BLOCK;
    s.sum = s.top + QUERIES;
    s.q = s.sum + QUERIES;
    return s;
}

MFI_FN queries queries_of(constant mfi_metal_attn &a, uint3 at)
{
    uint most = mfi_metal_attn_queries(a.dim);
    queries q;
    q.first = at.x * most;
    q.n = min(a.n_tok * a.group - q.first, most);
    q.kv_head = at.y;
    return q;
}

MFI_FN uint token_of(constant mfi_metal_attn &a, queries q, uint i)
{
    return (q.first + i) / a.group;
}

MFI_FN uint head_of(constant mfi_metal_attn &a, queries q, uint i)
{
    return q.kv_head * a.group + (q.first + i) % a.group;
}

MFI_FN device const float *position(constant mfi_metal_attn &a, device const float *kv, uint pos)
{
    return kv + (size_t)(a.ring ? pos % a.ring : pos) * a.row;
}

/* The first block of positions that the token at `last` looks at. */
MFI_FN uint first_block(constant mfi_metal_attn &a, uint last)
{
    return a.window && last >= a.window ? (last - a.window + 1) / BLOCK : 0;
}

MFI_FN void load_queries(constant mfi_metal_attn &a, queries q, device const float *from, scratch s,
                         uint tid)
{
    for (uint i = 0; i < q.n; i++) {
        device const float *row =
            from + (size_t)token_of(a, q, i) * a.ldq + (size_t)head_of(a, q, i) * a.q_stride;
        for (uint d = tid; d < a.dim; d += THREADS)
            s.q[i * a.dim + d] = row[d];
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

/* Products of one key with every query: eight neighbouring lanes share a key, each has four columns
 * in every 32, and they add up in pairs. */
MFI_FN void key_dots(constant mfi_metal_attn &a, queries q, device const float *key, bool there,
                     scratch s, uint lane, thread float4 *dots)
{
    float dot[QUERIES];
    for (uint i = 0; i < QUERIES; i++)
        dot[i] = 0;
    if (there && a.dim % 4 == 0) {
        for (uint d = lane % 8 * 4; d < a.dim; d += 32) {
            float4 k = *(device const packed_float4 *)(key + d);
#pragma unroll
            for (uint i = 0; i < QUERIES; i++) { /* to the end, so that sums stay in registers */
                if (i >= q.n)
                    continue;
                float4 w = *(threadgroup const float4 *)(s.q + i * a.dim + d);
                dot[i] = fma(k.w, w.w, fma(k.z, w.z, fma(k.y, w.y, fma(k.x, w.x, dot[i]))));
            }
        }
    } else if (there) {
        for (uint d = lane % 8; d < a.dim; d += 8)
#pragma unroll
            for (uint i = 0; i < QUERIES; i++)
                dot[i] = i >= q.n ? 0 : fma(key[d], s.q[i * a.dim + d], dot[i]);
    }
    dots[0] = float4(dot[0], dot[1], dot[2], dot[3]);
    dots[1] = float4(dot[4], dot[5], dot[6], dot[7]);
    for (ushort mask = 1; mask < 8; mask *= 2) {
        dots[0] += simd_shuffle_xor(dots[0], mask);
        dots[1] += simd_shuffle_xor(dots[1], mask);
    }
}

/* Scores of one block of positions, -inf where a query doesn't look; then their exponentials,
 * maxima and sums. */
MFI_FN void scores(constant mfi_metal_attn &a, queries q, device const float *kv, uint block,
                   uint end, scratch s, uint tid, uint lane, uint sg)
{
    for (uint j = tid / 8; j < BLOCK; j += THREADS / 8) {
        uint pos = block * BLOCK + j, i = lane % 8;
        float4 dots[2];
        bool there = pos < end;
        key_dots(a, q, position(a, kv, there ? pos : end - 1) + q.kv_head * a.k_stride, there, s,
                 lane, dots);
        /* Each of the eight lanes has one query's. */
        float4 mine = i < 4 ? dots[0] : dots[1];
        float dot = i % 4 == 0 ? mine.x : i % 4 == 1 ? mine.y : i % 4 == 2 ? mine.z : mine.w;
        uint last = i < q.n ? a.pos + token_of(a, q, i) : 0;
        bool seen = i < q.n && pos <= last && (!a.window || pos + a.window > last);
        s.p[i * BLOCK + j] = seen ? a.scale * dot : -INFINITY;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = sg; i < QUERIES; i += THREADS / 32) {
        float x = s.p[i * BLOCK + lane], y = s.p[i * BLOCK + lane + 32];
        float m = simd_max(max(x, y));
        x = m == -INFINITY ? 0.0f : precise::exp(x - m);
        y = m == -INFINITY ? 0.0f : precise::exp(y - m);
        s.p[i * BLOCK + lane] = x;
        s.p[i * BLOCK + lane + 32] = y;
        float total = simd_sum(x + y);
        if (lane == 0) {
            s.top[i] = m;
            s.sum[i] = total;
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

/* Weighted values of the block; a thread has every 128th column. */
template <int DV>
MFI_FN void values(constant mfi_metal_attn &a, queries q, device const float *kv, uint block,
                   uint end, scratch s, uint tid, thread float (&out)[QUERIES][DV])
{
    for (int i = 0; i < QUERIES; i++)
        for (int d = 0; d < DV; d++)
            out[i][d] = 0;
    uint n = min((uint)BLOCK, end - block * BLOCK);
    for (uint j = 0; j < n; j++) {
        device const float *v =
            position(a, kv, block * BLOCK + j) + a.v_offset + q.kv_head * a.v_stride;
        float value[DV];
        for (int d = 0; d < DV; d++) {
            uint c = tid + d * THREADS;
            value[d] = c < a.dim_v ? v[c] : 0.0f;
        }
        for (int i = 0; i < QUERIES; i++) {
            float w = s.p[i * BLOCK + j];
            for (int d = 0; d < DV; d++)
                out[i][d] = fma(w, value[d], out[i][d]);
        }
    }
}

/* Joins a block's maximum to what is there: both sides' factors. Every version of a sum goes
 * through here. */
MFI_FN void merge(float m, thread float *top, thread float *old, thread float *fresh)
{
    float most = max(*top, m);
    *old = *top == -INFINITY ? 0.0f : precise::exp(*top - most);
    *fresh = m == -INFINITY ? 0.0f : precise::exp(m - most);
    *top = most;
}

MFI_FN void finish(constant mfi_metal_attn &a, device const float *q, uint t, uint h, uint c,
                   float sum, float v, device float *out)
{
    v = v / sum;
    if (a.gated)
        v *= sigmoid(q[(size_t)t * a.ldq + (size_t)h * a.q_stride + a.dim + c]);
    out[(size_t)t * a.ldo + (size_t)h * a.dim_v + c] = v;
}

/* Side by side: a block of positions a threadgroup. Blocks count from the first one that the
 * query's token looks at. */
template <int DV>
MFI_FN void attend_part(constant mfi_metal_attn &a, device const float *q, device const float *kv,
                        device float *partial, threadgroup float *room, uint3 at, uint tid,
                        uint lane, uint sg)
{
    queries u = queries_of(a, at);
    scratch s = scratch_of(a, room);
    uint end = a.pos + token_of(a, u, u.n - 1) + 1;
    uint block = first_block(a, a.pos + token_of(a, u, 0)) + at.z;
    if (block * BLOCK >= end)
        return;
    load_queries(a, u, q, s, tid);
    scores(a, u, kv, block, end, s, tid, lane, sg);
    float out[QUERIES][DV];
    values<DV>(a, u, kv, block, end, s, tid, out);
    for (uint i = 0; i < QUERIES; i++) {
        if (i >= u.n)
            break;
        uint last = a.pos + token_of(a, u, i), from = first_block(a, last);
        if (block < from || block * BLOCK > last)
            continue;
        size_t row = (size_t)token_of(a, u, i) * a.n_head + head_of(a, u, i);
        device float *to = partial + (row * a.n_blocks + (block - from)) * (a.dim_v + 2);
        if (tid == 0) {
            to[0] = s.top[i];
            to[1] = s.sum[i];
        }
        for (int d = 0; d < DV; d++)
            if (tid + d * THREADS < a.dim_v)
                to[2 + tid + d * THREADS] = out[i][d];
    }
}

/* One after another. */
template <int DV>
MFI_FN void attend_walk(constant mfi_metal_attn &a, device const float *q, device const float *kv,
                        device const float *sinks, device float *result, threadgroup float *room,
                        uint3 at, uint tid, uint lane, uint sg)
{
    queries u = queries_of(a, at);
    scratch s = scratch_of(a, room);
    uint end = a.pos + token_of(a, u, u.n - 1) + 1;
    load_queries(a, u, q, s, tid);
    float top[QUERIES], total[QUERIES], all[QUERIES][DV], out[QUERIES][DV];
    for (uint i = 0; i < QUERIES; i++) {
        bool sink = a.with_sinks && i < u.n;
        top[i] = sink ? sinks[head_of(a, u, i)] : -INFINITY;
        total[i] = sink ? 1 : 0;
        for (int d = 0; d < DV; d++)
            all[i][d] = 0;
    }
    for (uint b = first_block(a, a.pos + token_of(a, u, 0)); b * BLOCK < end; b++) {
        scores(a, u, kv, b, end, s, tid, lane, sg);
        values<DV>(a, u, kv, b, end, s, tid, out);
        for (uint i = 0; i < QUERIES; i++) {
            float old, fresh;
            merge(s.top[i], &top[i], &old, &fresh);
            total[i] = fma(s.sum[i], fresh, total[i] * old);
            for (int d = 0; d < DV; d++)
                all[i][d] = fma(out[i][d], fresh, all[i][d] * old);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    for (uint i = 0; i < QUERIES; i++)
        for (int d = 0; d < DV; d++)
            if (i < u.n && tid + d * THREADS < a.dim_v)
                finish(a, q, token_of(a, u, i), head_of(a, u, i), tid + d * THREADS, total[i],
                       all[i][d], result);
}

#define ATTN_PARAMETERS                                                                            \
    constant mfi_metal_attn &a [[buffer(0)]], device const float *q [[buffer(1)]],                 \
        device const float *kv [[buffer(2)]], device const float *sinks [[buffer(3)]],             \
        device float *partial [[buffer(4)]], device float *out [[buffer(5)]], MFI_AT

#define ATTN_KERNELS(DV)                                                                           \
    kernel void mfi_attn_part_##DV(ATTN_PARAMETERS)                                                \
    {                                                                                              \
        MFI_UNLESS_STOPPED;                                                                        \
        attend_part<DV>(a, q, kv, partial, room, at, tid, lane, sg);                               \
    }                                                                                              \
    kernel void mfi_attn_walk_##DV(ATTN_PARAMETERS)                                                \
    {                                                                                              \
        MFI_UNLESS_STOPPED;                                                                        \
        attend_walk<DV>(a, q, kv, sinks, out, room, at, tid, lane, sg);                            \
    }
ATTN_KERNELS(1)
ATTN_KERNELS(2)
ATTN_KERNELS(4)
ATTN_KERNELS(8)

kernel void mfi_attn_merge(ATTN_PARAMETERS)
{
    MFI_UNLESS_STOPPED;
    uint h = at.x, t = at.y, last = a.pos + t, n = last / BLOCK + 1 - first_block(a, last);
    device const float *from = partial + ((size_t)t * a.n_head + h) * a.n_blocks * (a.dim_v + 2);
    for (uint c = tid; c < a.dim_v; c += THREADS) {
        float top = a.with_sinks ? sinks[h] : -INFINITY, sum = a.with_sinks ? 1 : 0, all = 0;
        for (uint b = 0; b < n; b++) {
            device const float *part = from + (size_t)b * (a.dim_v + 2);
            float old, fresh;
            merge(part[0], &top, &old, &fresh);
            sum = fma(part[1], fresh, sum * old);
            all = fma(part[2 + c], fresh, all * old);
        }
        finish(a, q, t, h, c, sum, all, out);
    }
}

#undef QUERIES
#undef BLOCK
#undef THREADS
