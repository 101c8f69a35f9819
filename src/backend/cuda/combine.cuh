/* The sum of a token's experts, for the kernels that take it. */
#ifndef MFI_BACKEND_CUDA_COMBINE_CUH
#define MFI_BACKEND_CUDA_COMBINE_CUH

#include "backend/cuda/cuda_kernels.h"

/* What is there of an element before the experts' outputs, fetched ahead of its use. */
struct combine_held {
    float sum, res;
};

static __device__ __forceinline__ combine_held combine_hold(const mfi_cuda_combine &c, uint32_t t,
                                                            uint32_t i, bool there)
{
    combine_held h = {0, 0};
    if (there)
        h.res = c.res[(size_t)t * c.ld_res + i];
    if (there && c.shared) {
        float gate = c.gate ? 1 / (1 + expf(-c.gate[(size_t)t * c.ldg])) : 1;
        h.sum = c.sum[(size_t)t * c.ld_sum + i] * gate;
    }
    return h;
}

/* As combine_one; `weights` are the token's. */
template <class Y>
static __device__ __forceinline__ void combine_held_one(const mfi_cuda_combine &c, uint32_t t,
                                                        uint32_t i, const combine_held &h,
                                                        const float *weights, Y y_of)
{
    float sum = h.sum;
#pragma unroll 4
    for (uint32_t r = 0; r < c.top_k; r++)
        sum += weights[r] * y_of(r);
    c.sum[(size_t)t * c.ld_sum + i] = sum;
    c.res[(size_t)t * c.ld_res + i] = h.res + c.factor * sum;
}

/* Element i of token t; y_of(rank) is the output of the expert of that rank. */
template <class Y>
static __device__ __forceinline__ void combine_one(const mfi_cuda_combine &c, uint32_t t,
                                                   uint32_t i, Y y_of)
{
    float *sum_at = c.sum + (size_t)t * c.ld_sum + i, sum = 0;
    if (c.shared) {
        float gate = c.gate ? 1 / (1 + expf(-c.gate[(size_t)t * c.ldg])) : 1;
        sum = *sum_at * gate;
    }
    for (uint32_t r = 0; r < c.top_k; r++) {
        float w = c.weights[(size_t)t * c.ldw + r];
        sum += w * y_of(r);
    }
    *sum_at = sum;
    c.res[(size_t)t * c.ld_res + i] += c.factor * sum;
}

#endif
