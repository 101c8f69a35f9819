/* Kernels that are wrong, to show that the shim says so. In each, args.how picks what is done. */
typedef struct mftm_fault {
    uint how;
} mftm_fault;

enum {
    FAULT_NONE,
    FAULT_SKIPS,
    FAULT_ENDS,
    FAULT_OTHER,
    FAULT_SIMDGROUP,
    FAULT_BEYOND,
    FAULT_RACE
};

kernel void mfi_fault(constant mftm_fault &a [[buffer(0)]], device float *y [[buffer(1)]], MFI_AT)
{
    float v = (float)tid;
    if (a.how == FAULT_ENDS && lane == 7) /* a thread ends, the others meet */
        return;
    if (a.how == FAULT_SIMDGROUP && sg == 1) /* a simdgroup ends, the other meets it at a barrier */
        return;
    if (a.how != FAULT_SKIPS || lane < 9) /* some meet here, some further down */
        v = simd_sum(v);
    if (a.how == FAULT_OTHER && lane == 3) /* the same function, another place */
        v = simd_max(v);
    else
        v = simd_max(v + 1);
    if (a.how == FAULT_BEYOND && tid == 0)
        room[64] = 1;
    room[tid] = v;
    if (a.how != FAULT_RACE)
        threadgroup_barrier(mem_flags::mem_threadgroup);
    y[tid] = room[tid ^ 33];
}
