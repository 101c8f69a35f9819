/* Products with q8_0, MLX's 4 and 8 bits, and MXFP4 in two planes. Called by the backend's thread;
 * only queues work. */
#include "backend/cuda/matmul.cuh"

cudaError_t mfi_cuda_matmul_packed(const mfi_cuda_mm *mm, cudaStream_t s)
{
    mfi_cuda_type type = mm->mat[0].type;
    if (type.kind == MFI_CUDA_MXFP4)
        return mm_start<dec_mxfp4>(mm, s);
    if (type.kind == MFI_CUDA_GGML)
        return mm_start<dec_ggml<32, 34, q8_0>>(mm, s);
    return type.bits == 4 ? mm_start<dec_mlx<4>>(mm, s) : mm_start<dec_mlx<8>>(mm, s);
}
