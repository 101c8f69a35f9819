/* Attention on the device, grouped or latent: prepares queries and keys, and attends.
 *
 * A block of threads has up to 8 queries that share keys and values: heads of one token, or tokens
 * of a head. Positions come in blocks of 64 from multiples of 64 on; each block's softmax and sums
 * start from nothing and are merged in rising order, side by side for few tokens and one after
 * another for many, with the same bits. Called by the backend's thread; only queues work. */
#include "backend/cuda/attention.cuh"
#include "backend/cuda/launch.cuh"

#define THREADS 128

/* ---- preparing ---- */

static __global__ void prep(mfi_cuda_prep p)
{
    begin_wait();
    begin_next();
    uint32_t t = blockIdx.y, h = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    uint32_t lane = threadIdx.x % 32, kvw = p.n_kv_head * p.head_dim;
    const float *cosines = p.rope + (size_t)t * p.ldr;
    if (h < p.n_head) {
        prep_head(p, p.q_norm, cosines, p.q + (size_t)t * p.ldq + (size_t)h * p.q_stride);
        return;
    }
    h -= p.n_head;
    if (h >= p.n_kv_head)
        return;
    uint32_t row = *p.pos + t;
    float *key = p.kv + (size_t)(p.ring ? row % p.ring : row) * 2 * kvw + h * p.head_dim;
    for (uint32_t i = lane; i < p.head_dim; i += 32) {
        key[i] = p.k[(size_t)t * p.ldk + h * p.head_dim + i];
        key[kvw + i] = p.v[(size_t)t * p.ldv + h * p.head_dim + i];
    }
    __syncwarp();
    prep_head(p, p.k_norm, cosines, key);
}

cudaError_t mfi_cuda_attn_prep(const mfi_cuda_prep *p, cudaStream_t s)
{
    return start_early(prep, dim3((p->n_head + p->n_kv_head + 3) / 4, p->n_tok), 128, 0, s, *p);
}

static __device__ void rotate(const mfi_cuda_latent &l, const float *cosines, float *x)
{
    uint32_t half = l.n_rot / 2;
    for (uint32_t i = threadIdx.x % 32; i < half; i += 32) {
        uint32_t first = l.pairs ? 2 * i : i, second = l.pairs ? 2 * i + 1 : i + half;
        float a = x[first], b = x[second], c = cosines[i], s = cosines[half + i];
        x[first] = a * c - b * s;
        x[second] = b * c + a * s;
    }
}

static __global__ void latent_prep(mfi_cuda_latent l)
{
    begin_wait();
    begin_next();
    uint32_t t = blockIdx.y, h = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    uint32_t lane = threadIdx.x % 32;
    const float *cosines = l.rope + (size_t)t * l.ldr;
    if (h < l.n_head) {
        rotate(l, cosines, l.q + (size_t)t * l.ldq + (size_t)h * l.head_dim + l.nope);
        return;
    }
    if (h > l.n_head)
        return;
    const float *in = l.kva + (size_t)t * l.ldk;
    float *row = l.kv + (size_t)(*l.pos + t) * (l.latent + l.n_rot), sq = 0;
    for (uint32_t i = lane; i < l.latent; i += 32)
        sq = fmaf(in[i], in[i], sq);
    float factor = 1.0f / sqrtf(warp_sum(sq) / (float)l.latent + l.eps);
    for (uint32_t i = lane; i < l.latent; i += 32)
        row[i] = in[i] * factor * l.norm[i];
    for (uint32_t i = lane; i < l.n_rot; i += 32)
        row[l.latent + i] = in[l.latent + i];
    __syncwarp();
    rotate(l, cosines, row + l.latent);
}

cudaError_t mfi_cuda_latent_prep(const mfi_cuda_latent *l, cudaStream_t s)
{
    return start_early(latent_prep, dim3((l->n_head + 4) / 4, l->n_tok), 128, 0, s, *l);
}

static __global__ void latent_tail(const float *q, uint32_t ldq, uint32_t head_dim, uint32_t nope,
                                   uint32_t n_rot, uint32_t latent, uint32_t n_head, float *y,
                                   uint32_t ldy)
{
    begin_wait();
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x, h = i / n_rot, k = i % n_rot;
    if (h < n_head)
        y[(size_t)blockIdx.y * ldy + (size_t)h * (latent + n_rot) + latent + k] =
            q[(size_t)blockIdx.y * ldq + (size_t)h * head_dim + nope + k];
}

cudaError_t mfi_cuda_latent_tail(const float *q, uint32_t ldq, uint32_t head_dim, uint32_t nope,
                                 uint32_t n_rot, uint32_t latent, uint32_t n_head, uint32_t n_tok,
                                 float *y, uint32_t ldy, cudaStream_t s)
{
    if (n_rot > 0)
        latent_tail<<<dim3((n_head * n_rot + 127) / 128, n_tok), 128, 0, s>>>(
            q, ldq, head_dim, nope, n_rot, latent, n_head, y, ldy);
    return cudaGetLastError();
}

/* ---- attending ---- */

/* Scores of one block of positions, -inf where a query doesn't look, into p[query][position]; then
 * their exponentials. Maxima and sums into max[], sum[]. */
static __device__ void scores(const mfi_cuda_attn &a, const queries &q, const float *qs,
                              uint32_t block, uint32_t end, float (*p)[BLOCK], float *max,
                              float *sum)
{
    uint32_t tid = threadIdx.x, j = tid % BLOCK, pos = block * BLOCK + j, now = *a.pos;
    const float *k = position(a, pos) + q.kv_head * a.k_stride;
    bool wide = a.dim % 4 == 0 && ((uintptr_t)k & 15) == 0;
    for (uint32_t i = tid / BLOCK * (QUERIES / 2); i < (tid / BLOCK + 1) * (QUERIES / 2); i += 4) {
        float dot[4] = {0, 0, 0, 0};
        if (pos < end && i < q.n) {
            if (wide) {
#pragma unroll 8
                for (uint32_t d = 0; d < a.dim; d += 4) {
                    float4 v = *(const float4 *)(k + d);
#pragma unroll
                    for (int n = 0; n < 4; n++) {
                        float4 w = *(const float4 *)(qs + (i + n) * a.dim + d);
                        dot[n] = fmaf(v.x, w.x, dot[n]);
                        dot[n] = fmaf(v.y, w.y, dot[n]);
                        dot[n] = fmaf(v.z, w.z, dot[n]);
                        dot[n] = fmaf(v.w, w.w, dot[n]);
                    }
                }
            } else {
                for (uint32_t d = 0; d < a.dim; d++)
#pragma unroll
                    for (int n = 0; n < 4; n++)
                        dot[n] = fmaf(k[d], qs[(i + n) * a.dim + d], dot[n]);
            }
        }
#pragma unroll
        for (int n = 0; n < 4; n++) {
            uint32_t last = i + n < q.n ? now + token_of(a, q, i + n) : 0;
            bool seen = i + n < q.n && pos <= last && (!a.window || pos + a.window > last);
            p[i + n][j] = seen ? a.scale * dot[n] : -CUDART_INF_F;
        }
    }
    __syncthreads();
    for (uint32_t i = tid / 32; i < QUERIES; i += THREADS / 32)
        softmax_block(p[i], &max[i], &sum[i], tid % 32);
    __syncthreads();
}

/* Weighted values of the block; a thread has every 128th column. */
template <int DV>
static __device__ void values(const mfi_cuda_attn &a, const queries &q, uint32_t block,
                              uint32_t end, const float (*p)[BLOCK], float out[QUERIES][DV])
{
#pragma unroll
    for (int i = 0; i < QUERIES; i++)
#pragma unroll
        for (int d = 0; d < DV; d++)
            out[i][d] = 0;
    uint32_t n = min((uint32_t)BLOCK, end - block * BLOCK);
#pragma unroll(DV <= 2 ? 8 : 4)
    for (uint32_t j = 0; j < n; j++) {
        const float *v = position(a, block * BLOCK + j) + a.v_offset + q.kv_head * a.v_stride;
        float value[DV];
#pragma unroll
        for (int d = 0; d < DV; d++) {
            uint32_t c = threadIdx.x + d * THREADS;
            value[d] = c < a.dim_v ? v[c] : 0;
        }
#pragma unroll
        for (int i = 0; i < QUERIES; i++) {
            float w = p[i][j];
#pragma unroll
            for (int d = 0; d < DV; d++)
                out[i][d] = fmaf(w, value[d], out[i][d]);
        }
    }
}

/* Joins a block's (m, l, o) to what is there; every version of a sum goes through here. */
static __device__ __forceinline__ void merge(float m, float *max, float *old, float *fresh)
{
    float top = fmaxf(*max, m);
    *old = *max == -CUDART_INF_F ? 0 : expf(*max - top);
    *fresh = m == -CUDART_INF_F ? 0 : expf(m - top);
    *max = top;
}

static __device__ void finish(const mfi_cuda_attn &a, uint32_t t, uint32_t h, uint32_t c, float sum,
                              float v)
{
    v = v / sum;
    if (a.gated) {
        float g = a.q[(size_t)t * a.ldq + (size_t)h * a.q_stride + a.dim + c];
        v *= 1 / (1 + expf(-g));
    }
    a.out[(size_t)t * a.ldo + (size_t)h * a.dim_v + c] = v;
}

static __device__ void load_queries(const mfi_cuda_attn &a, const queries &q, float *qs)
{
    for (uint32_t i = 0; i < QUERIES; i++)
        for (uint32_t d = threadIdx.x; d < a.dim; d += THREADS)
            qs[i * a.dim + d] = i < q.n ? a.q[(size_t)token_of(a, q, i) * a.ldq +
                                              (size_t)head_of(a, q, i) * a.q_stride + d]
                                        : 0;
    __syncthreads();
}

/* Side by side: a block of positions a block of threads. */
template <int DV> static __global__ void __launch_bounds__(THREADS) attend_part(mfi_cuda_attn a)
{
    extern __shared__ float4 room[];
    __shared__ float p[QUERIES][BLOCK], max[QUERIES], sum[QUERIES];
    begin_wait();
    begin_next();
    queries q = queries_of(a);
    uint32_t last = *a.pos + token_of(a, q, q.n - 1);
    uint32_t block = first_block(a, *a.pos + token_of(a, q, 0)) + blockIdx.z;
    if (block * BLOCK > last)
        return;
    load_queries(a, q, (float *)room);
    scores(a, q, (float *)room, block, last + 1, p, max, sum);
    float out[QUERIES][DV];
    values<DV>(a, q, block, last + 1, p, out);
    for (int i = 0; i < QUERIES; i++) {
        if (i >= q.n)
            break;
        size_t u = (size_t)token_of(a, q, i) * a.n_head + head_of(a, q, i);
        /* Blocks count from the first one that the query's token looks at. */
        uint32_t from = first_block(a, *a.pos + token_of(a, q, i));
        if (block < from)
            continue;
        float *to = a.partial + (u * a.n_blocks_max + block - from) * (a.dim_v + 2);
        if (threadIdx.x == 0) {
            to[0] = max[i];
            to[1] = sum[i];
        }
#pragma unroll
        for (int d = 0; d < DV; d++)
            if (threadIdx.x + d * THREADS < a.dim_v)
                to[2 + threadIdx.x + d * THREADS] = out[i][d];
    }
}

static __global__ void __launch_bounds__(THREADS) attend_merge(mfi_cuda_attn a)
{
    begin_wait();
    begin_next();
    uint32_t h = blockIdx.x, t = blockIdx.y, last = *a.pos + t;
    uint32_t n = last / BLOCK + 1 - first_block(a, last);
    const float *from = a.partial + ((size_t)t * a.n_head + h) * a.n_blocks_max * (a.dim_v + 2);
    for (uint32_t c = threadIdx.x; c < a.dim_v; c += THREADS) {
        float max = a.sinks ? a.sinks[h] : -CUDART_INF_F, sum = a.sinks ? 1 : 0, out = 0;
        for (uint32_t b = 0; b < n; b++) {
            const float *part = from + (size_t)b * (a.dim_v + 2);
            float old, fresh;
            merge(part[0], &max, &old, &fresh);
            sum = fmaf(part[1], fresh, sum * old);
            out = fmaf(part[2 + c], fresh, out * old);
        }
        finish(a, t, h, c, sum, out);
    }
}

/* One after another. */
template <int DV> static __global__ void __launch_bounds__(THREADS) attend_walk(mfi_cuda_attn a)
{
    extern __shared__ float4 room[];
    __shared__ float p[QUERIES][BLOCK], max[QUERIES], sum[QUERIES];
    begin_wait();
    queries q = queries_of(a);
    uint32_t last = *a.pos + token_of(a, q, q.n - 1);
    load_queries(a, q, (float *)room);
    float top[QUERIES], total[QUERIES], all[QUERIES][DV], out[QUERIES][DV];
#pragma unroll
    for (int i = 0; i < QUERIES; i++) {
        bool sink = a.sinks && i < q.n;
        top[i] = sink ? a.sinks[head_of(a, q, i)] : -CUDART_INF_F;
        total[i] = sink ? 1 : 0;
#pragma unroll
        for (int d = 0; d < DV; d++)
            all[i][d] = 0;
    }
    for (uint32_t b = first_block(a, *a.pos + token_of(a, q, 0)); b * BLOCK <= last; b++) {
        scores(a, q, (float *)room, b, last + 1, p, max, sum);
        values<DV>(a, q, b, last + 1, p, out);
#pragma unroll
        for (int i = 0; i < QUERIES; i++) {
            float old, fresh;
            merge(max[i], &top[i], &old, &fresh);
            total[i] = fmaf(sum[i], fresh, total[i] * old);
#pragma unroll
            for (int d = 0; d < DV; d++)
                all[i][d] = fmaf(out[i][d], fresh, all[i][d] * old);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < QUERIES; i++)
#pragma unroll
        for (int d = 0; d < DV; d++)
            if (i < q.n && threadIdx.x + d * THREADS < a.dim_v)
                finish(a, token_of(a, q, i), head_of(a, q, i), threadIdx.x + d * THREADS, total[i],
                       all[i][d]);
}

cudaError_t mfi_cuda_attn_merge(const mfi_cuda_attn *a, cudaStream_t s)
{
    return start_early(attend_merge, dim3(a->n_head, a->n_tok), THREADS, 0, s, *a);
}

template <int DV> static cudaError_t start(const mfi_cuda_attn *a, cudaStream_t s)
{
    uint32_t groups = a->n_head / a->group;
    size_t room = QUERIES * (size_t)a->dim * sizeof(float);
    dim3 grid((a->n_tok * a->group + QUERIES - 1) / QUERIES, groups);
    if (!a->partial) {
        attend_walk<DV><<<grid, THREADS, room, s>>>(*a);
        return cudaGetLastError();
    }
    grid.z = a->n_blocks_max;
    cudaError_t e = start_early(attend_part<DV>, grid, THREADS, room, s, *a);
    if (e != cudaSuccess)
        return e;
    return mfi_cuda_attn_merge(a, s);
}

cudaError_t mfi_cuda_attn_run(const mfi_cuda_attn *a, cudaStream_t s)
{
    if (a->dim_v <= THREADS)
        return start<1>(a, s);
    if (a->dim_v <= 2 * THREADS)
        return start<2>(a, s);
    return a->dim_v <= 4 * THREADS ? start<4>(a, s) : start<8>(a, s);
}
