/* Memory of the CUDA backend: allocations, what a sequence keeps, and copies of experts on a stream
 * of their own. Called on the engine's thread. Copies start behind the ops that were submitted
 * before them; who asked learns by tickets that they ended, and submits ops on them after that. */
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "backend/cuda/cuda_int.h"

#define HUGE_PAGE (2 * MFI_MIB)

/* Pinned memory of large pages where the system has them: the driver's own allocation took 0.7 s a
 * GiB on an H100's host. */
static cudaError_t pin(mfi_cuda *c, uint64_t bytes)
{
    uint64_t len = mfi_align_up(bytes, HUGE_PAGE) + HUGE_PAGE;
    void *map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return cudaErrorMemoryAllocation;
    char *at = (char *)mfi_align_up((uintptr_t)map, HUGE_PAGE);
    (void)madvise(at, len - HUGE_PAGE, MADV_HUGEPAGE); /* without them it only takes longer */
    cudaError_t e = cudaHostRegister(at, len - HUGE_PAGE, cudaHostRegisterDefault);
    if (e != cudaSuccess) {
        (void)munmap(map, len);
        return e;
    }
    c->mem[MFI_MEM_TIER] = at;
    c->tier_map = map;
    c->tier_map_len = len;
    return cudaSuccess;
}

void mfi_cuda_unpin(mfi_cuda *c)
{
    if (!c->tier_map)
        return;
    (void)cudaHostUnregister(c->mem[MFI_MEM_TIER]);
    (void)munmap(c->tier_map, c->tier_map_len);
}

mf_status mfi_cuda_alloc(mfi_backend *b, mfi_mem_kind kind, uint64_t bytes, void **host,
                         mf_error *err)
{
    mfi_cuda *c = (mfi_cuda *)b;
    MFI_ASSERT(!c->mem[kind]);
    MFI_TRY(mfi_cuda_use(c, err));
    bytes = MFI_MAX(bytes, 1);
    *host = NULL;
    cudaError_t e =
        kind == MFI_MEM_TIER ? pin(c, bytes) : cudaMalloc((void **)&c->mem[kind], bytes);
    if (e != cudaSuccess) {
        c->mem[kind] = NULL;
        (void)cudaGetLastError();
        return mfi_fail(err, e == cudaErrorMemoryAllocation ? MF_ERR_NO_MEMORY : MF_ERR_DEVICE,
                        "CUDA device %d: no %" PRIu64 " MiB of %s: %s", c->device, bytes / MFI_MIB,
                        kind == MFI_MEM_TIER ? "pinned memory" : "device memory",
                        cudaGetErrorString(e));
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
    /* In the ops' order. From pageable memory: taken when the call returns. */
    MFI_CUDA_TRY(
        cudaMemcpyAsync(c->mem[kind] + offset, src, len, cudaMemcpyHostToDevice, c->stream));
    return MF_OK;
}

static void *address(mfi_backend *b, mfi_mem_kind kind)
{
    return ((mfi_cuda *)b)->mem[kind];
}

static mf_status state_clear(mfi_backend *b, void *mem, uint64_t bytes, mf_error *err)
{
    mfi_cuda *c = (mfi_cuda *)b;
    MFI_TRY(mfi_cuda_use(c, err));
    MFI_CUDA_TRY(cudaMemsetAsync(mem, 0, bytes, c->stream));
    return MF_OK;
}

static mf_status state_alloc(mfi_backend *b, uint64_t bytes, void **mem, mf_error *err)
{
    *mem = NULL;
    MFI_TRY(mfi_cuda_use((mfi_cuda *)b, err));
    cudaError_t e = cudaMalloc(mem, MFI_MAX(bytes, 1));
    if (e != cudaSuccess) {
        *mem = NULL;
        (void)cudaGetLastError();
        return mfi_fail(err, e == cudaErrorMemoryAllocation ? MF_ERR_NO_MEMORY : MF_ERR_DEVICE,
                        "CUDA device %d: no %" PRIu64 " MiB for a sequence's state: %s",
                        ((mfi_cuda *)b)->device, bytes / MFI_MIB, cudaGetErrorString(e));
    }
    mf_status status = state_clear(b, *mem, bytes, err);
    if (status != MF_OK) {
        (void)cudaFree(*mem);
        *mem = NULL;
    }
    return status;
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

/* ---- copies of experts ---- */

#define SMALL_COPY (64u << 10)

struct mfi_cuda_mapped {
    void *host;
    const uint8_t *device;
    uint64_t len;
    mfi_cuda_mapped *next;
};

/* Where the device sees bytes of a mapping, or NULL. */
static const uint8_t *find_mapped(const mfi_cuda *c, const void *at, uint64_t len)
{
    for (const mfi_cuda_mapped *m = c->ranges; m; m = m->next) {
        uint64_t offset = (uintptr_t)at - (uintptr_t)m->host; /* large where it lies before */
        if (offset < m->len && len <= m->len - offset)
            return m->device + offset;
    }
    return NULL;
}

mf_status mfi_cuda_queue_open(mfi_cuda_queue *q, mf_error *err)
{
    MFI_CUDA_TRY(cudaStreamCreateWithFlags(&q->stream, cudaStreamNonBlocking));
    for (size_t i = 0; i < MFI_ARRAY_LEN(q->events); i++)
        MFI_CUDA_TRY(cudaEventCreateWithFlags(&q->events[i], cudaEventDisableTiming));
    return MF_OK;
}

void mfi_cuda_queue_close(mfi_cuda_queue *q)
{
    for (size_t i = 0; i < MFI_ARRAY_LEN(q->events); i++)
        if (q->events[i])
            (void)cudaEventDestroy(q->events[i]);
    if (q->stream)
        (void)cudaStreamDestroy(q->stream);
}

static mf_status ended(mfi_cuda_queue *q, uint64_t ticket, uint64_t *n_ended, mf_error *err)
{
    MFI_ASSERT(ticket <= q->n_started);
    while (q->n_ended < q->n_started) {
        cudaEvent_t event = q->events[q->n_ended % MFI_CUDA_EVENTS];
        cudaError_t e = q->n_ended < ticket ? cudaEventSynchronize(event) : cudaEventQuery(event);
        if (e == cudaErrorNotReady)
            break;
        MFI_CUDA_TRY(e);
        q->n_ended++;
    }
    *n_ended = q->n_ended;
    return MF_OK;
}

/* Waits for the oldest where there is no event left. */
static mf_status make_room(mfi_cuda_queue *q, mf_error *err)
{
    uint64_t n_ended;
    return q->n_started - q->n_ended < MFI_CUDA_EVENTS ? MF_OK
                                                       : ended(q, q->n_ended + 1, &n_ended, err);
}

/* What was started last on a stream has the next ticket. */
static mf_status give_ticket(mfi_cuda_queue *q, cudaStream_t s, uint64_t *ticket, mf_error *err)
{
    MFI_CUDA_TRY(cudaEventRecord(q->events[q->n_started % MFI_CUDA_EVENTS], s));
    *ticket = ++q->n_started;
    return MF_OK;
}

static mf_status copied(void *b, uint64_t ticket, uint64_t *n_ended, mf_error *err)
{
    return ended(&((mfi_cuda *)b)->copies, ticket, n_ended, err);
}

static mf_status fetched(void *b, uint64_t ticket, uint64_t *n_ended, mf_error *err)
{
    return ended(&((mfi_cuda *)b)->fetches, ticket, n_ended, err);
}

/* A stream of copies behind all ops and fetches so far: 0 large ones, 1 small ones. */
static mf_status stay_behind(mfi_cuda *c, cudaStream_t s, int which, mf_error *err)
{
    if (c->n_runs_recorded != c->n_runs) {
        MFI_CUDA_TRY(cudaEventRecord(c->submitted, c->stream));
        c->n_runs_recorded = c->n_runs;
    }
    if (c->n_runs_seen[which] != c->n_runs)
        MFI_CUDA_TRY(cudaStreamWaitEvent(s, c->submitted, 0));
    c->n_runs_seen[which] = c->n_runs;
    if (c->n_fetches_seen[which] != c->fetches.n_started)
        MFI_CUDA_TRY(cudaStreamWaitEvent(
            s, c->fetches.events[(c->fetches.n_started - 1) % MFI_CUDA_EVENTS], 0));
    c->n_fetches_seen[which] = c->fetches.n_started;
    return MF_OK;
}

/* Few bytes of a mapping that the device reads itself: a copy would stop the link's for longer than
 * they take. Tickets are in order, whichever stream a copy is on. */
static mf_status copy(void *b, void *dst, const void *src, uint64_t len, uint64_t *ticket,
                      mf_error *err)
{
    mfi_cuda *c = b;
    const uint8_t *seen = len <= SMALL_COPY ? find_mapped(c, src, len) : NULL;
    MFI_TRY(make_room(&c->copies, err));
    MFI_TRY(stay_behind(c, seen ? c->small : c->copies.stream, seen != NULL, err));
    if (seen)
        MFI_CUDA_TRY(mfi_cuda_fetch_bytes(dst, seen, len, c->small));
    else
        MFI_CUDA_TRY(cudaMemcpyAsync(dst, src, len, cudaMemcpyHostToDevice, c->copies.stream));
    return give_ticket(&c->copies, seen ? c->small : c->copies.stream, ticket, err);
}

/* What it reads came by a copy that has ended, and ops don't write there. */
static mf_status fetch(void *b, void *dst, const void *src, uint64_t len, uint64_t *ticket,
                       mf_error *err)
{
    mfi_cuda *c = b;
    MFI_TRY(make_room(&c->fetches, err));
    MFI_CUDA_TRY(cudaMemcpyAsync(dst, src, len, cudaMemcpyDeviceToHost, c->fetches.stream));
    return give_ticket(&c->fetches, c->fetches.stream, ticket, err);
}

/* ---- weights in the mapping of their files ---- */

/* Pins the range's pages, and reads those that aren't in memory: a page at a time, so that who
 * wants it fast has them read before. Only for reading: the files' mapping is no other. */
static mf_status bind(void *b, const void *address, uint64_t len, void **handle, mf_error *err)
{
    void *device;
    MFI_TRY(mfi_cuda_use(b, err));
    mfi_cuda_mapped *m = calloc(1, sizeof *m);
    if (!m)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a range of weights");
    *m = (mfi_cuda_mapped){.host = (void *)(uintptr_t)address, .len = len};
    cudaError_t e =
        cudaHostRegister(m->host, len, cudaHostRegisterReadOnly | cudaHostRegisterMapped);
    if (e == cudaSuccess) {
        e = cudaHostGetDevicePointer(&device, m->host, 0);
        m->device = device;
        if (e != cudaSuccess)
            (void)cudaHostUnregister(m->host);
    }
    if (e != cudaSuccess) {
        free(m);
        (void)cudaGetLastError();
        return mfi_fail(err, MF_ERR_DEVICE, "CUDA device %d: %s", ((mfi_cuda *)b)->device,
                        cudaGetErrorString(e));
    }
    m->next = ((mfi_cuda *)b)->ranges;
    ((mfi_cuda *)b)->ranges = m;
    *handle = m;
    return MF_OK;
}

static void unbind(void *b, void *handle)
{
    mfi_cuda_mapped *m = handle;
    mfi_cuda *c = b;
    mfi_cuda_mapped **link = &c->ranges;
    (void)cudaStreamSynchronize(c->copies.stream);
    (void)cudaStreamSynchronize(c->small);
    while (*link != m)
        link = &(*link)->next;
    *link = m->next;
    (void)cudaHostUnregister(m->host);
    free(m);
}

static void place(mfi_backend *b, uint32_t weight, uint32_t plane, void *handle, uint64_t offset)
{
    mfi_cuda *c = (mfi_cuda *)b;
    const mfi_cuda_mapped *m = handle;
    const mfi_program_weight *w = &c->p->weights[weight];
    uint64_t len = mfi_quant_plane_bytes(w->type, plane, w->rows, w->cols);
    MFI_ASSERT(w->in_place && offset <= m->len && len <= m->len - offset);
    c->mats[weight].plane[plane] = m->device + offset;
}

static const mfi_binding_ops binding_ops = {.bind = bind, .unbind = unbind, .place = place};

const mfi_device_ops mfi_cuda_device_ops = {.address = address,
                                            .state_alloc = state_alloc,
                                            .state_clear = state_clear,
                                            .state_free = state_free,
                                            .move = move,
                                            .copy = copy,
                                            .copied = copied,
                                            .fetch = fetch,
                                            .fetched = fetched,
                                            .bind_experts = mfi_cuda_bind_experts,
                                            .binding = &binding_ops,
                                            .lookup = &mfi_cuda_lookup_ops};
