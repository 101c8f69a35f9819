/* Sums and maxima over a warp or a block of threads, in one order. */
#ifndef MFI_BACKEND_CUDA_REDUCE_CUH
#define MFI_BACKEND_CUDA_REDUCE_CUH

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

#endif
