/* What all kernels have in common. The kernels keep to what Metal 2.3 and C++14 share, so that the
 * tests compile them for the CPU (tests/metal/shim): no pointers cast to integers, no threadgroup
 * variables but the bytes of index 0, no lambdas, no doubles. Simdgroups have 32 threads; the host
 * checks that. Barriers and simdgroup functions stand where all threads come by. */
#ifndef MFI_METAL_COMMON
#define MFI_METAL_COMMON

#include "backend/metal/metal_kernels.h"

/* A product and a sum are one rounding where the source says fma, and only there. */
#pragma METAL fp contract(off)
#pragma STDC FP_CONTRACT OFF

/* The last parameters of every kernel. (Where address spaces are empty macros, so is this.) */
#ifndef MFI_ROOM
#define MFI_ROOM [[threadgroup(0)]]
#endif
#define MFI_AT                                                                                     \
    device uint *stop [[buffer(MFI_METAL_STOP)]], threadgroup float *room MFI_ROOM,                \
        uint3 at [[threadgroup_position_in_grid]],                                                 \
        uint tid [[thread_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]],         \
        uint sg [[simdgroup_index_in_threadgroup]], uint3 size [[threads_per_threadgroup]]

/* Begins every kernel: behind a router that found no place for an expert nothing is changed. */
#define MFI_UNLESS_STOPPED                                                                         \
    if (*stop)                                                                                     \
    return

#define MFI_FN   static inline
#define EACH8(i) for (int i = 0; i < 8; i++)

/* Over all threads; room has 32 floats, and the order is by the number of threads alone. */
MFI_FN float sum_all(float v, threadgroup float *room, uint lane, uint sg, uint n_threads)
{
    v = simd_sum(v);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (lane == 0)
        room[sg] = v;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return simd_sum(lane < n_threads / 32 ? room[lane] : 0.0f);
}

MFI_FN float sigmoid(float v)
{
    return 1 / (1 + precise::exp(-v));
}

MFI_FN float silu(float v)
{
    return v / (1 + precise::exp(-v));
}

/* kernels.h's silu_mul and glu_clamped. */
MFI_FN float glu_of(uint kind, float alpha, float limit, float gate, float up)
{
    if (kind != MFI_METAL_GLU_CLAMPED)
        return silu(gate) * up;
    float g = gate > limit ? limit : gate;
    float u = up > limit ? limit : up < -limit ? -limit : up;
    return (u + 1) * (g / (1 + precise::exp(-alpha * g)));
}

#endif
