/* Products with float weights. Called by the backend's thread; only queues work. */
#include "backend/cuda/matmul.cuh"

cudaError_t mfi_cuda_matmul_float(const mfi_cuda_mm *mm, cudaStream_t s)
{
    switch (mm->mat[0].type.kind) {
    case MFI_CUDA_F16:
        return mm_start<dec_float<MFI_CUDA_F16>>(mm, s);
    case MFI_CUDA_BF16:
        return mm_start<dec_float<MFI_CUDA_BF16>>(mm, s);
    default:
        return mm_start<dec_float<MFI_CUDA_F32>>(mm, s);
    }
}
