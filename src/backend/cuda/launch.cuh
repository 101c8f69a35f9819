/* Kernels that begin before the one in front of them has ended (sm_90). Each that is started this
 * way calls begin_wait() in every thread before it reads what an earlier one wrote, and before it
 * writes anything; weights may be fetched earlier. Since begin_next() comes after it, what stands
 * before a begin_wait() can rely on all kernels but the one directly in front.
 *
 * Every kernel calls begin_wait() first, also one that is never started early: behind a router that
 * found an expert nowhere (route.cu) its threads end there, all of them, so that nothing changes
 * any more. Of that word, too, a kernel can rely on all but the one directly in front; a router
 * that may set it has the next kernel begin when it has. */
#ifndef MFI_BACKEND_CUDA_LAUNCH_CUH
#define MFI_BACKEND_CUDA_LAUNCH_CUH

#include <cuda_runtime.h>

/* Where the word is that ends kernels; 0: go on. Every file of kernels has it for itself and is
 * told by route.cu before the first router looks up; NULL until then. With one variable for all of
 * them, that is with relocatable device code, kernels spill registers. */
static __constant__ unsigned *stop_at;

static cudaError_t tell_stop(unsigned *word, cudaStream_t s)
{
    return cudaMemcpyToSymbolAsync(stop_at, &word, sizeof word, 0, cudaMemcpyHostToDevice, s);
}

void mfi_cuda_tell(cudaError_t (*tell)(unsigned *word, cudaStream_t s)); /* route.cu */

namespace
{
struct told {
    told()
    {
        mfi_cuda_tell(tell_stop);
    }
};
const told told_here;
} // namespace

static __device__ __forceinline__ void begin_wait(void)
{
    const volatile unsigned *word = stop_at;
    unsigned stop = word ? *word : 0; /* on its way while this waits */
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
    if (stop)
        asm volatile("exit;");
}

/* The same for a kernel that may set the word itself: whether the block has to end, as a whole. */
static __device__ __forceinline__ bool begin_wait_block(void)
{
    const volatile unsigned *word = stop_at;
    unsigned stop = word ? *word : 0;
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
    return __syncthreads_or(stop != 0);
}

static __device__ __forceinline__ void begin_next(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

static inline bool can_begin_early(void)
{
    int device = 0, major = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) ==
               cudaSuccess &&
           major >= 9;
}

/* As kernel<<<grid, threads, room, s>>>, early where the device can, and in clusters of `cluster`
 * blocks of threads if those are more than one (sm_90). */
template <class... P, class... A>
static cudaError_t start_early_in(dim3 cluster, void (*kernel)(P...), dim3 grid, dim3 threads,
                                  size_t room, cudaStream_t s, A... args)
{
    cudaLaunchAttribute attrs[2] = {};
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = threads;
    config.dynamicSmemBytes = room;
    config.stream = s;
    config.attrs = attrs;
    if (can_begin_early()) {
        cudaLaunchAttribute *early = &attrs[config.numAttrs++];
        early->id = cudaLaunchAttributeProgrammaticStreamSerialization;
        early->val.programmaticStreamSerializationAllowed = 1;
    }
    if (cluster.x * cluster.y * cluster.z > 1) {
        cudaLaunchAttribute *side = &attrs[config.numAttrs++];
        side->id = cudaLaunchAttributeClusterDimension;
        side->val.clusterDim.x = cluster.x;
        side->val.clusterDim.y = cluster.y;
        side->val.clusterDim.z = cluster.z;
    }
    return cudaLaunchKernelEx(&config, kernel, P(args)...);
}

template <class... P, class... A>
static cudaError_t start_early(void (*kernel)(P...), dim3 grid, dim3 threads, size_t room,
                               cudaStream_t s, A... args)
{
    return start_early_in(dim3(1), kernel, grid, threads, room, s, args...);
}

#endif
