/* Copies from device memory to shared memory that threads don't wait for. */
#ifndef MFI_BACKEND_CUDA_STAGE_CUH
#define MFI_BACKEND_CUDA_STAGE_CUH

#include <stdint.h>

/* 16 bytes, aligned on both sides. */
static __device__ __forceinline__ void stage_copy(void *to, const void *from)
{
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((uint32_t)__cvta_generic_to_shared(to)),
        "l"(from)
        : "memory");
}

/* What has been copied since the last one is a group. */
static __device__ __forceinline__ void stage_group(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until all of this thread's groups but the newest N are there. */
template <int N> static __device__ __forceinline__ void stage_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

#endif
