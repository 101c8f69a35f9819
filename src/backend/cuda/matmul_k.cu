/* Products with q4_K, q5_K and q6_K weights. Called by the backend's thread; only queues work. */
#include "backend/cuda/matmul.cuh"

cudaError_t mfi_cuda_matmul_k(const mfi_cuda_mm *mm, cudaStream_t s)
{
    switch (mm->mat[0].type.bits) {
    case 12:
        return mm_start<dec_q4_k>(mm, s);
    case 13:
        return mm_start<dec_ggml<256, 176, q5_k>>(mm, s);
    default:
        return mm_start<dec_q6_k>(mm, s);
    }
}
