/* A single token's attention in few kernels: norms, rotation and the cache's new row together with
 * scores and values of blocks of positions side by side, with the bits of attention.cu. Called by
 * the backend's thread; only queues work. */
#include <math_constants.h>

#include "backend/cuda/attention.cuh"
#include "backend/cuda/launch.cuh"

#define ONE_THREADS 512
#define ONE_COLUMNS 128 /* of values that threads have side by side */
#define ONE_SHARE   (QUERIES / (ONE_THREADS / ONE_COLUMNS)) /* queries of a thread there */

/* The token's queries of this block's heads in shared memory, and its key and value in the cache if
 * this block of positions has them. */
static __device__ void take_token(const mfi_cuda_prep &p, const queries &q, uint32_t group,
                                  bool newest, float *qs)
{
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, kvw = p.n_kv_head * p.head_dim;
    if (warp < QUERIES) {
        float *x = qs + warp * p.head_dim;
        uint32_t h = q.kv_head * group + q.first + warp;
        for (uint32_t i = lane; i < p.head_dim; i += 32)
            x[i] = warp < q.n ? p.q[(size_t)h * p.q_stride + i] : 0;
        __syncwarp();
        if (warp < q.n)
            prep_head(p, p.q_norm, p.rope, x);
    } else if (newest && warp < QUERIES + 2) {
        uint32_t row = *p.pos;
        float *to = p.kv + (size_t)(p.ring ? row % p.ring : row) * 2 * kvw + q.kv_head * p.head_dim;
        const float *from = (warp == QUERIES ? p.k : p.v) + q.kv_head * p.head_dim;
        to += warp == QUERIES ? 0 : kvw;
        for (uint32_t i = lane; i < p.head_dim; i += 32)
            to[i] = from[i];
        __syncwarp();
        if (warp == QUERIES)
            prep_head(p, p.k_norm, p.rope, to);
    }
    __syncthreads();
}

/* A thread has one query's score at one position. */
static __device__ void one_scores(const mfi_cuda_attn &a, const queries &q, const float *qs,
                                  uint32_t block, float (*p)[BLOCK], float *max, float *sum)
{
    uint32_t j = threadIdx.x % BLOCK, i = threadIdx.x / BLOCK, pos = block * BLOCK + j;
    uint32_t last = *a.pos, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const float *k = position(a, pos) + q.kv_head * a.k_stride, *x = qs + i * a.dim;
    bool seen = i < q.n && pos <= last && (!a.window || pos + a.window > last);
    float dot = 0;
    if (seen) {
#pragma unroll 8
        for (uint32_t d = 0; d < a.dim; d += 4) {
            float4 v = *(const float4 *)(k + d), w = *(const float4 *)(x + d);
            dot = fmaf(v.x, w.x, dot);
            dot = fmaf(v.y, w.y, dot);
            dot = fmaf(v.z, w.z, dot);
            dot = fmaf(v.w, w.w, dot);
        }
    }
    p[i][j] = seen ? a.scale * dot : -CUDART_INF_F;
    __syncthreads();
    if (warp < QUERIES)
        softmax_block(p[warp], &max[warp], &sum[warp], lane);
    __syncthreads();
}

template <int DV>
static __global__ void __launch_bounds__(ONE_THREADS)
    attend_one(const __grid_constant__ mfi_cuda_attn a, const __grid_constant__ mfi_cuda_prep prep)
{
    extern __shared__ float4 room[];
    __shared__ float p[QUERIES][BLOCK], max[QUERIES], sum[QUERIES];
    begin_wait();
    begin_next();
    queries q = queries_of(a);
    uint32_t last = *a.pos, from = first_block(a, last), block = from + blockIdx.z;
    if (block * BLOCK > last)
        return;
    take_token(prep, q, a.group, block == last / BLOCK, (float *)room);
    one_scores(a, q, (float *)room, block, p, max, sum);
    uint32_t n = min((uint32_t)BLOCK, last + 1 - block * BLOCK);
    uint32_t first = threadIdx.x / ONE_COLUMNS * ONE_SHARE;
    float out[ONE_SHARE][DV];
#pragma unroll
    for (int i = 0; i < ONE_SHARE * DV; i++)
        out[i / DV][i % DV] = 0;
#pragma unroll 8
    for (uint32_t j = 0; j < n; j++) {
        const float *v = position(a, block * BLOCK + j) + a.v_offset + q.kv_head * a.v_stride;
#pragma unroll
        for (int d = 0; d < DV; d++) {
            uint32_t c = threadIdx.x % ONE_COLUMNS + d * ONE_COLUMNS;
            float value = c < a.dim_v ? v[c] : 0;
#pragma unroll
            for (int i = 0; i < ONE_SHARE; i++)
                out[i][d] = fmaf(p[first + i][j], value, out[i][d]);
        }
    }
#pragma unroll
    for (int i = 0; i < ONE_SHARE; i++) {
        if (first + i >= q.n)
            break;
        uint32_t h = head_of(a, q, first + i), c = threadIdx.x % ONE_COLUMNS;
        float *to = a.partial + ((size_t)h * a.n_blocks_max + block - from) * (a.dim_v + 2);
        if (c == 0) {
            to[0] = max[first + i];
            to[1] = sum[first + i];
        }
#pragma unroll
        for (int d = 0; d < DV; d++)
            if (c + d * ONE_COLUMNS < a.dim_v)
                to[2 + c + d * ONE_COLUMNS] = out[i][d];
    }
}

bool mfi_cuda_attn_one_fits(const mfi_cuda_attn *a)
{
    /* The new key is turned where it lies in the cache, by one block of threads: more query heads
     * than it takes would bring a second. */
    return a->n_tok == 1 && a->group <= QUERIES && a->partial && a->dim % 4 == 0 && a->dim_v <= 2 * ONE_COLUMNS &&
           a->dim == a->dim_v && a->row % 4 == 0;
}

cudaError_t mfi_cuda_attn_one(const mfi_cuda_attn *a, const mfi_cuda_prep *p, cudaStream_t s)
{
    size_t room = QUERIES * (size_t)a->dim * sizeof(float);
    dim3 grid((a->group + QUERIES - 1) / QUERIES, a->n_head / a->group, a->n_blocks_max);
    cudaError_t e = a->dim_v <= ONE_COLUMNS
                        ? start_early(attend_one<1>, grid, ONE_THREADS, room, s, *a, *p)
                        : start_early(attend_one<2>, grid, ONE_THREADS, room, s, *a, *p);
    return e == cudaSuccess ? mfi_cuda_attn_merge(a, s) : e;
}
