/* Kernels on guarded memory; see rig.h. Called by the tests of tests/metal. */
#include "rig.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *rig_alloc(size_t bytes)
{
    return mft_guard_alloc((bytes + 3) / 4 * 4, MFT_AT_END);
}

float *rig_floats(size_t n)
{
    return rig_alloc(n * sizeof(float));
}

void *rig_copy(const void *from, size_t bytes)
{
    void *to = rig_alloc(bytes);
    memcpy(to, from, bytes);
    return to;
}

static uint32_t stop;

uint32_t rig_stop(void)
{
    return stop;
}

static void dispatch(const rig *r, const mfi_metal_call *call, const void *args, mftm_order order)
{
    static uint64_t nothing;
    const mfi_metal_kernel_info *info = &mfi_metal_kernels[call->kernel];
    void *buffers[RIG_BUFFERS];
    char message[256];
    mftm_grid grid = {{call->groups[0], call->groups[1], call->groups[2]},
                      call->threads,
                      call->shared_bytes,
                      &stop};
    stop = 0;
    for (int i = 0; i < RIG_BUFFERS; i++)
        buffers[i] = r->buffer[i] ? r->buffer[i] : &nothing;
    if (!mftm_dispatch(info->name, args, info->args_bytes, buffers, info->n_buffers, &grid, order,
                       message, sizeof message))
        fail_msg("seed %llu: %s", (unsigned long long)mft_last_seed(), message);
}

void rig_run(const rig *r, const mfi_metal_call *call, const void *args)
{
    void *before[RIG_BUFFERS] = {0}, *after[RIG_BUFFERS] = {0};
    for (int i = 0; i < RIG_BUFFERS; i++)
        if (r->out_bytes[i]) {
            before[i] = malloc(r->out_bytes[i]);
            after[i] = malloc(r->out_bytes[i]);
            memcpy(before[i], r->buffer[i], r->out_bytes[i]);
        }
    dispatch(r, call, args, MFTM_BACKWARD);
    for (int i = 0; i < RIG_BUFFERS; i++)
        if (before[i]) {
            memcpy(after[i], r->buffer[i], r->out_bytes[i]);
            memcpy(r->buffer[i], before[i], r->out_bytes[i]);
        }
    dispatch(r, call, args, MFTM_FORWARD);
    for (int i = 0; i < RIG_BUFFERS; i++) {
        if (before[i] && memcmp(after[i], r->buffer[i], r->out_bytes[i]) != 0)
            fail_msg("seed %llu: %s: buffer %d depends on the order of threads",
                     (unsigned long long)mft_last_seed(), mfi_metal_kernels[call->kernel].name,
                     i + 1);
        free(before[i]);
        free(after[i]);
    }
}

void rig_planes(rig *r, const mfi_mat *m)
{
    for (uint32_t p = 0; p < mfi_quant_n_planes(m->type); p++)
        r->buffer[p] = rig_copy(m->planes[p], mfi_quant_plane_bytes(m->type, p, m->rows, m->cols));
}

uint16_t *rig_tables(void)
{
    uint16_t *tables = rig_alloc(MFI_METAL_N_TABLES * sizeof *tables);
    mfi_metal_fill_tables(tables);
    return tables;
}

void rig_near(const char *what, float got, double want, double bound, size_t at)
{
    if (isnan(want) ? !isnan(got) : !(fabs(got - want) <= bound))
        fail_msg("%s, seed %llu: element %zu: %.9g instead of %.9g, bound %g", what,
                 (unsigned long long)mft_last_seed(), at, got, want, bound);
}
