/* Products with q4_K, q5_K and q6_K weights. Called by the backend's thread; only queues work. */
#include "backend/cuda/matmul_one.cuh"

cudaError_t mfi_cuda_matmul_k(const mfi_cuda_mm *mm, cudaStream_t s)
{
    switch (mm->mat[0].type.bits) {
    case 12:
        return code_start<code_q4_k>(mm, s);
    case 13:
        return code_start<code_q5_k>(mm, s);
    default:
        return code_start<code_q6_k>(mm, s);
    }
}

cudaError_t mfi_cuda_down_k(const mfi_cuda_mm *mm, const mfi_cuda_combine *c, cudaStream_t s)
{
    switch (mm->mat[0].type.bits) {
    case 12:
        return down_start<code_q4_k>(mm, c, s);
    case 13:
        return down_start<code_q5_k>(mm, c, s);
    default:
        return down_start<code_q6_k>(mm, c, s);
    }
}
