/* A product with a row of floats by a block of threads, in float32: columns in fours, thread after
 * thread, then over the block. The same order for any number of rows and tokens. */
#ifndef MFI_BACKEND_CUDA_ROWS_CUH
#define MFI_BACKEND_CUDA_ROWS_CUH

#include "backend/cuda/decode.cuh"
#include "backend/cuda/reduce.cuh"

#define ROWS_THREADS 128
#define ROWS_WARPS   (ROWS_THREADS / 32)

MFI_DEV float4 rows_weights(uint32_t kind, const uint8_t *row, uint32_t col, uint32_t left)
{
    uint32_t size = kind == MFI_CUDA_F32 ? 4 : 2;
    const uint8_t *at = row + (size_t)col * size;
    if (left >= 4 && ((uintptr_t)at & (4 * size - 1)) == 0) {
        if (kind == MFI_CUDA_F32)
            return *(const float4 *)at;
        uint2 v = *(const uint2 *)at;
        if (kind == MFI_CUDA_BF16)
            return make_float4(__uint_as_float(v.x << 16), __uint_as_float(v.x & 0xffff0000),
                               __uint_as_float(v.y << 16), __uint_as_float(v.y & 0xffff0000));
        float2 a = __half22float2(*(const __half2 *)&v.x),
               b = __half22float2(*(const __half2 *)&v.y);
        return make_float4(a.x, a.y, b.x, b.y);
    }
    float w[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        w[i] = i < left ? load_float(kind, row, col + i) : 0;
    return make_float4(w[0], w[1], w[2], w[3]);
}

MFI_DEV float4 rows_x(const float *x, uint32_t left)
{
    if (left >= 4)
        return load_x4(x);
    return make_float4(x[0], left > 1 ? x[1] : 0, left > 2 ? x[2] : 0, 0);
}

MFI_DEV float rows_dot(float4 w, float4 x, float sum)
{
    sum = fmaf(w.x, x.x, sum);
    sum = fmaf(w.y, x.y, sum);
    sum = fmaf(w.z, x.z, sum);
    return fmaf(w.w, x.w, sum);
}

/* Over the block's threads, to every thread; `room` has ROWS_WARPS floats. */
MFI_DEV float rows_sum(const float *room)
{
    float sum = room[0];
#pragma unroll
    for (int i = 1; i < ROWS_WARPS; i++)
        sum += room[i];
    return sum;
}

#endif
