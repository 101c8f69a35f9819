/* Sums and maxima over a warp or a block of threads, in one order. */
#ifndef MFI_BACKEND_CUDA_REDUCE_CUH
#define MFI_BACKEND_CUDA_REDUCE_CUH

#include <stdint.h>

static __device__ __forceinline__ float warp_sum(float v)
{
#pragma unroll
    for (int d = 16; d > 0; d /= 2)
        v += __shfl_xor_sync(0xffffffff, v, d);
    return v;
}

static __device__ __forceinline__ float warp_max(float v)
{
#pragma unroll
    for (int d = 16; d > 0; d /= 2)
        v = fmaxf(v, __shfl_xor_sync(0xffffffff, v, d));
    return v;
}

/* 32 sums at a time, each with the bits of warp_sum: lane i gets that of v[i]. */
template <int D = 16> static __device__ __forceinline__ float warp_sums(float v[32])
{
    bool upper = threadIdx.x & D;
#pragma unroll
    for (int i = 0; i < D; i++) {
        float mine = upper ? v[i + D] : v[i], other = upper ? v[i] : v[i + D];
        v[i] = mine + __shfl_xor_sync(0xffffffff, other, D);
    }
    if constexpr (D > 1)
        return warp_sums<D / 2>(v);
    return v[0];
}

/* Over all threads, a multiple of 32 of them; `room` has 32 floats of shared memory. */
static __device__ __forceinline__ float block_sum(float v, float *room)
{
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    v = warp_sum(v);
    __syncthreads();
    if (lane == 0)
        room[warp] = v;
    __syncthreads();
    return warp_sum(lane < blockDim.x / 32 ? room[lane] : 0);
}

static __device__ __forceinline__ float4 load_x4(const float *x)
{
    if (((uintptr_t)x & 15) == 0)
        return *(const float4 *)x;
    return make_float4(x[0], x[1], x[2], x[3]);
}

#define NORM_THREADS 256

/* What a row of n floats is multiplied with, by NORM_THREADS threads. */
static __device__ __forceinline__ float norm_factor(const float *x, uint32_t n, float eps,
                                                    float *room)
{
    float sq = 0;
#pragma unroll 2
    for (uint32_t i = threadIdx.x * 4; i + 3 < n; i += NORM_THREADS * 4) {
        float4 v = load_x4(x + i);
        sq = fmaf(v.x, v.x, sq);
        sq = fmaf(v.y, v.y, sq);
        sq = fmaf(v.z, v.z, sq);
        sq = fmaf(v.w, v.w, sq);
    }
    if (threadIdx.x < n % 4)
        sq = fmaf(x[n / 4 * 4 + threadIdx.x], x[n / 4 * 4 + threadIdx.x], sq);
    return 1.0f / sqrtf(block_sum(sq, room) / (float)n + eps);
}

#endif
