/* What attention's kernels share: heads' norms and rotation, and which queries a block of threads
 * has. */
#ifndef MFI_BACKEND_CUDA_ATTENTION_CUH
#define MFI_BACKEND_CUDA_ATTENTION_CUH

#include <math_constants.h>

#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/reduce.cuh"

#define BLOCK MFI_CUDA_ATTN_BLOCK

/* A warp's head: norm and rotation. */
static __device__ __forceinline__ void prep_head(const mfi_cuda_prep &p, const float *w,
                                                 const float *cosines, float *x)
{
    uint32_t lane = threadIdx.x % 32, half = p.n_rot / 2;
    for (int step = 0; step < 3; step++) {
        if (step == 1 && !p.unrotated) {
            for (uint32_t i = lane; i < half; i += 32) {
                float a = x[i], b = x[i + half], c = cosines[i], s = cosines[half + i];
                x[i] = a * c - b * s;
                x[i + half] = b * c + a * s;
            }
        } else if (step != 1 && w && p.norm_after == (step == 2)) {
            float sq = 0;
            for (uint32_t i = lane; i < p.head_dim; i += 32)
                sq = fmaf(x[i], x[i], sq);
            float factor = 1.0f / sqrtf(warp_sum(sq) / (float)p.head_dim + p.eps);
            for (uint32_t i = lane; i < p.head_dim; i += 32)
                x[i] = x[i] * factor * w[i];
        }
        __syncwarp();
    }
}

/* Queries of a group of heads: number u is head u % group of token u / group. */
struct queries {
    uint32_t first, n, kv_head;
};

static __device__ __forceinline__ uint32_t token_of(const mfi_cuda_attn &a, const queries &q,
                                                    uint32_t i)
{
    return (q.first + i) / a.group;
}

static __device__ __forceinline__ uint32_t head_of(const mfi_cuda_attn &a, const queries &q,
                                                   uint32_t i)
{
    return q.kv_head * a.group + (q.first + i) % a.group;
}

static __device__ __forceinline__ const float *position(const mfi_cuda_attn &a, uint32_t pos)
{
    return a.kv + (size_t)(a.ring ? pos % a.ring : pos) * a.row;
}

/* Those of tile `tile` of n_rows queries. */
static __device__ __forceinline__ queries queries_of(const mfi_cuda_attn &a, uint32_t tile,
                                                     uint32_t n_rows)
{
    uint32_t first = tile * n_rows;
    queries q = {first, min(a.n_tok * a.group - first, n_rows), blockIdx.y};
    return q;
}

/* The first block of positions that any query looks at. */
static __device__ __forceinline__ uint32_t first_block(const mfi_cuda_attn &a, uint32_t last)
{
    return a.window && last >= a.window ? (last - a.window + 1) / BLOCK : 0;
}

/* Joins a block's (m, l, o) to what is there; every version of a sum goes through here. */
static __device__ __forceinline__ void merge(float m, float *max, float *old, float *fresh)
{
    float top = fmaxf(*max, m);
    *old = *max == -CUDART_INF_F ? 0 : expf(*max - top);
    *fresh = m == -CUDART_INF_F ? 0 : expf(m - top);
    *max = top;
}

static __device__ __forceinline__ void finish(const mfi_cuda_attn &a, uint32_t t, uint32_t h,
                                              uint32_t c, float sum, float v)
{
    v = v / sum;
    if (a.gated) {
        float g = a.q[(size_t)t * a.ldq + (size_t)h * a.q_stride + a.dim + c];
        v *= 1 / (1 + expf(-g));
    }
    a.out[(size_t)t * a.ldo + (size_t)h * a.dim_v + c] = v;
}

#endif
