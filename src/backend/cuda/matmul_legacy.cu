/* Products with q4_0, q4_1, q5_0 and q5_1 weights. Called by the backend's thread; only queues
 * work. */
#include "backend/cuda/matmul_one.cuh"

cudaError_t mfi_cuda_matmul_legacy(const mfi_cuda_mm *mm, cudaStream_t s)
{
    switch (mm->mat[0].type.bits) {
    case 2:
        return code_start<code_legacy<4, false>>(mm, s);
    case 3:
        return code_start<code_legacy<4, true>>(mm, s);
    case 6:
        return code_start<code_legacy<5, false>>(mm, s);
    default:
        return code_start<code_legacy<5, true>>(mm, s);
    }
}

cudaError_t mfi_cuda_down_legacy(const mfi_cuda_mm *mm, const mfi_cuda_combine *c, cudaStream_t s)
{
    switch (mm->mat[0].type.bits) {
    case 2:
        return down_start<code_legacy<4, false>>(mm, c, s);
    case 3:
        return down_start<code_legacy<4, true>>(mm, c, s);
    case 6:
        return down_start<code_legacy<5, false>>(mm, c, s);
    default:
        return down_start<code_legacy<5, true>>(mm, c, s);
    }
}
