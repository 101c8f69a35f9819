/* Products with q8_0, MLX's 4 and 8 bits, and MXFP4. Called by the backend's thread; only queues
 * work. */
#include "backend/cuda/matmul_one.cuh"

#define MXFP4_BLOCKS 39 /* GGML's number */

cudaError_t mfi_cuda_matmul_packed(const mfi_cuda_mm *mm, cudaStream_t s)
{
    mfi_cuda_type type = mm->mat[0].type;
    if (type.kind == MFI_CUDA_MXFP4)
        return code_start<code_mxfp4>(mm, s);
    if (type.kind == MFI_CUDA_MLX)
        return type.bits == 4 ? code_start<code_mlx<4>>(mm, s) : code_start<code_mlx<8>>(mm, s);
    return type.bits == MXFP4_BLOCKS ? code_start<code_mxfp4_block>(mm, s)
                                     : code_start<code_q8_0>(mm, s);
}

cudaError_t mfi_cuda_down_packed(const mfi_cuda_mm *mm, const mfi_cuda_combine *c, cudaStream_t s)
{
    mfi_cuda_type type = mm->mat[0].type;
    if (type.kind == MFI_CUDA_MXFP4)
        return down_start<code_mxfp4>(mm, c, s);
    if (type.kind == MFI_CUDA_MLX)
        return type.bits == 4 ? down_start<code_mlx<4>>(mm, c, s)
                              : down_start<code_mlx<8>>(mm, c, s);
    return type.bits == MXFP4_BLOCKS ? down_start<code_mxfp4_block>(mm, c, s)
                                     : down_start<code_q8_0>(mm, c, s);
}
