/* Memory of the CUDA backend: allocations, what a sequence keeps, and copies of experts on a stream
 * of their own. Called on the engine's thread. Copies start behind the ops that were submitted
 * before them; who asked learns by tickets that they ended, and submits ops on them after that. */
#include <inttypes.h>

#include "backend/cuda/cuda_int.h"

mf_status mfi_cuda_alloc(mfi_backend *b, mfi_mem_kind kind, uint64_t bytes, void **host,
                         mf_error *err)
{
    mfi_cuda *c = (mfi_cuda *)b;
    MFI_ASSERT(!c->mem[kind]);
    bytes = MFI_MAX(bytes, 1);
    *host = NULL;
    cudaError_t e = kind == MFI_MEM_TIER ? cudaHostAlloc((void **)&c->mem[kind], bytes, 0)
                                         : cudaMalloc((void **)&c->mem[kind], bytes);
    if (e != cudaSuccess) {
        c->mem[kind] = NULL;
        (void)cudaGetLastError();
        return mfi_fail(err, MF_ERR_NO_MEMORY, "CUDA device %d: no room for %" PRIu64 " MiB of %s",
                        c->device, bytes / MFI_MIB,
                        kind == MFI_MEM_TIER ? "pinned memory" : "device memory");
    }
    c->mem_bytes[kind] = bytes;
    if (kind == MFI_MEM_TIER)
        *host = c->mem[kind];
    return MF_OK;
}

mf_status mfi_cuda_write(mfi_backend *b, mfi_mem_kind kind, uint64_t offset, const void *src,
                         uint64_t len, mf_error *err)
{
    mfi_cuda *c = (mfi_cuda *)b;
    MFI_ASSERT(offset <= c->mem_bytes[kind] && len <= c->mem_bytes[kind] - offset);
    MFI_CUDA_TRY(cudaMemcpy(c->mem[kind] + offset, src, len, cudaMemcpyHostToDevice));
    return MF_OK;
}

static void *address(mfi_backend *b, mfi_mem_kind kind)
{
    return ((mfi_cuda *)b)->mem[kind];
}

static mf_status state_clear(mfi_backend *b, void *mem, uint64_t bytes, mf_error *err)
{
    mfi_cuda *c = (mfi_cuda *)b;
    MFI_CUDA_TRY(cudaMemsetAsync(mem, 0, bytes, c->stream));
    return MF_OK;
}

static mf_status state_alloc(mfi_backend *b, uint64_t bytes, void **mem, mf_error *err)
{
    *mem = NULL;
    if (cudaMalloc(mem, MFI_MAX(bytes, 1)) != cudaSuccess) {
        (void)cudaGetLastError();
        return mfi_fail(err, MF_ERR_NO_MEMORY,
                        "CUDA device %d: no room for %" PRIu64 " MiB of a sequence's state",
                        ((mfi_cuda *)b)->device, bytes / MFI_MIB);
    }
    return state_clear(b, *mem, bytes, err);
}

static void state_free(mfi_backend *b, void *mem)
{
    mfi_cuda *c = (mfi_cuda *)b;
    (void)cudaStreamSynchronize(c->stream);
    (void)cudaFree(mem);
}

static mf_status move(mfi_backend *b, void *dst, const void *src, uint64_t bytes, mf_error *err)
{
    mfi_cuda *c = (mfi_cuda *)b;
    MFI_CUDA_TRY(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, c->stream));
    MFI_CUDA_TRY(cudaStreamSynchronize(c->stream));
    return MF_OK;
}

static mf_status copied(void *b, uint64_t ticket, uint64_t *n_ended, mf_error *err)
{
    mfi_cuda *c = b;
    MFI_ASSERT(ticket <= c->n_started);
    while (c->n_ended < c->n_started) {
        cudaEvent_t event = c->events[c->n_ended % MFI_CUDA_EVENTS];
        cudaError_t e = c->n_ended < ticket ? cudaEventSynchronize(event) : cudaEventQuery(event);
        if (e == cudaErrorNotReady)
            break;
        MFI_CUDA_TRY(e);
        c->n_ended++;
    }
    *n_ended = c->n_ended;
    return MF_OK;
}

static mf_status copy(void *b, void *dst, const void *src, uint64_t len, uint64_t *ticket,
                      mf_error *err)
{
    mfi_cuda *c = b;
    uint64_t n_ended;
    if (c->n_started - c->n_ended == MFI_CUDA_EVENTS)
        MFI_TRY(copied(b, c->n_ended + 1, &n_ended, err));
    if (c->n_runs_seen != c->n_runs) {
        MFI_CUDA_TRY(cudaEventRecord(c->submitted, c->stream));
        MFI_CUDA_TRY(cudaStreamWaitEvent(c->copy_stream, c->submitted, 0));
        c->n_runs_seen = c->n_runs;
    }
    MFI_CUDA_TRY(cudaMemcpyAsync(dst, src, len, cudaMemcpyHostToDevice, c->copy_stream));
    MFI_CUDA_TRY(cudaEventRecord(c->events[c->n_started % MFI_CUDA_EVENTS], c->copy_stream));
    *ticket = ++c->n_started;
    return MF_OK;
}

const mfi_device_ops mfi_cuda_device_ops = {.address = address,
                                            .state_alloc = state_alloc,
                                            .state_clear = state_clear,
                                            .state_free = state_free,
                                            .move = move,
                                            .copy = copy,
                                            .copied = copied,
                                            .bind_experts = mfi_cuda_bind_experts,
                                            .lookup = &mfi_cuda_lookup_ops};
