/* Looking experts up on the device: the table of where each one is, what routers chose, and the
 * word that stops kernels behind a router that found nothing (route.cu). The host has a copy of the
 * table: from that and the choices it knows which router stopped, so nothing but the choices comes
 * back. Called on the engine's thread. */
#include <pthread.h>
#include <string.h>

#include "backend/cuda/cuda_int.h"

/* ---- one at a time ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static uint32_t n_open, n_looking; /* backends; looking: between run and stopped */

void mfi_cuda_enter(void)
{
    pthread_mutex_lock(&lock);
    n_open++;
    while (n_looking)
        pthread_cond_wait(&ended, &lock);
    pthread_mutex_unlock(&lock);
}

void mfi_cuda_leave(void)
{
    pthread_mutex_lock(&lock);
    n_open--;
    pthread_mutex_unlock(&lock);
}

static bool begin_looking(void)
{
    pthread_mutex_lock(&lock);
    bool alone = n_open == 1;
    n_looking += alone;
    pthread_mutex_unlock(&lock);
    return alone;
}

static void end_looking(void)
{
    pthread_mutex_lock(&lock);
    n_looking--;
    pthread_cond_broadcast(&ended);
    pthread_mutex_unlock(&lock);
}

/* ---- memory ---- */

static size_t n_places(const mfi_cuda *c)
{
    return (size_t)c->p->shape.n_layers * c->p->shape.n_experts;
}

mf_status mfi_cuda_lookup_open(mfi_cuda *c, mf_error *err)
{
    size_t places = n_places(c) * sizeof *c->slots;
    size_t chosen = (size_t)c->p->shape.n_layers * MFI_MIN(c->p->chunk, MFI_MAX_LOOKUP_TOK) *
                    c->p->shape.top_k * sizeof *c->chosen;
    if (places == 0 || chosen == 0)
        return MF_OK;
    MFI_CUDA_TRY(cudaMalloc((void **)&c->slots, places));
    MFI_CUDA_TRY(cudaMemset(c->slots, 0, places));
    MFI_CUDA_TRY(cudaHostAlloc((void **)&c->host_slots, places, 0));
    memset(c->host_slots, 0, places);
    MFI_CUDA_TRY(cudaMalloc((void **)&c->chosen, chosen));
    MFI_CUDA_TRY(cudaHostAlloc((void **)&c->host_chosen, chosen, 0));
    memset(c->host_chosen, 0, chosen);
    return MF_OK;
}

void mfi_cuda_lookup_close(mfi_cuda *c)
{
    (void)cudaFree(c->slots);
    (void)cudaFree(c->chosen);
    (void)cudaFreeHost(c->host_slots);
    (void)cudaFreeHost(c->host_chosen);
}

/* ---- of ops ---- */

bool mfi_cuda_looks(const mfi_cuda *c, const mfi_op *op)
{
    return c->settled || (size_t)(op - c->p->ops) + 1 < c->look_end;
}

static size_t chosen_of(const mfi_cuda *c, uint32_t layer)
{
    return (size_t)layer * c->look_tok * c->p->shape.top_k;
}

void mfi_cuda_look_as(const mfi_cuda *c, const mfi_op *op, mfi_cuda_route *r)
{
    if (!mfi_cuda_looks(c, op))
        return;
    r->slots = c->slots + (size_t)op->layer * c->p->shape.n_experts;
    if (c->settled)
        return;
    r->chosen = c->chosen + chosen_of(c, op->layer);
    r->anywhere = (const uint8_t *)c->mem[MFI_MEM_SLOTS];
}

/* ---- mfi_lookup_ops ---- */

static void place(mfi_backend *b, uint32_t layer, uint32_t expert, const void *data)
{
    mfi_cuda *c = (mfi_cuda *)b;
    uint32_t end = MFI_MAX(c->moved_first + c->n_moved, layer + 1);
    if (c->settled)
        return;
    c->host_slots[(size_t)layer * c->p->shape.n_experts + expert] = (uint64_t)(uintptr_t)data;
    c->moved_first = c->n_moved ? MFI_MIN(c->moved_first, layer) : layer;
    c->n_moved = c->n_moved ? end - c->moved_first : 1;
}

/* Tells the device where experts are, if a router will ask. */
static mf_status send_slots(mfi_cuda *c, mf_error *err)
{
    size_t n_experts = c->p->shape.n_experts, first = c->moved_first * n_experts;
    if (c->n_looks == 0 || c->n_moved == 0)
        return MF_OK;
    MFI_CUDA_TRY(cudaMemcpyAsync(c->slots + first, c->host_slots + first,
                                 c->n_moved * n_experts * sizeof *c->slots, cudaMemcpyHostToDevice,
                                 c->stream));
    c->n_moved = 0;
    return MF_OK;
}

/* The first router before op `end`, which is it if there is none. */
static uint32_t find_router(const mfi_cuda *c, uint32_t at, uint32_t end)
{
    while (at < end && c->p->ops[at].code != MFI_OP_ROUTE)
        at++;
    return at;
}

static mf_status run(mfi_backend *b, uint32_t first, uint32_t n, const mfi_step *step,
                     mf_error *err)
{
    mfi_cuda *c = (mfi_cuda *)b;
    uint32_t last = first + n - 1, i = find_router(c, first, last);
    MFI_ASSERT(step->n_tok <= MFI_MAX_LOOKUP_TOK && !c->settled && c->n_looks == 0);
    MFI_TRY(mfi_cuda_use(c, err));
    c->look_tok = step->n_tok;
    if (i == last) /* none looks up */
        return b->run(b, first, n, step, err);
    c->look_first = c->p->ops[i].layer;
    if (!begin_looking()) {
        mf_status status = b->run(b, first, i + 1 - first, step, err);
        c->halted = true;
        return status;
    }
    if (!c->told) {
        cudaError_t e = mfi_cuda_tell_files(c->stream);
        c->told = e == cudaSuccess;
        if (!c->told) {
            end_looking();
            return mfi_cuda_fail(err, e, "the word that stops kernels");
        }
    }
    for (; i < last; i = find_router(c, i + 1, last))
        c->n_looks = c->p->ops[i].layer + 1 - c->look_first;
    c->look_end = first + n;
    mf_status status = send_slots(c, err);
    if (status == MF_OK)
        status = b->run(b, first, n, step, err);
    c->look_end = 0;
    return status;
}

/* The first router of the last run that chose an expert which is nowhere. */
static uint32_t find_stop(const mfi_cuda *c)
{
    const mfi_shape *s = &c->p->shape;
    for (uint32_t layer = c->look_first; layer < c->look_first + c->n_looks; layer++) {
        const uint16_t *ids = c->host_chosen + chosen_of(c, layer);
        const uint64_t *slots = c->host_slots + (size_t)layer * s->n_experts;
        if (c->p->experts[layer].bytes == 0) /* no router there */
            continue;
        for (uint32_t i = 0; i < c->look_tok * s->top_k; i++)
            if (ids[i] >= s->n_experts || !slots[ids[i]])
                return layer;
    }
    return UINT32_MAX;
}

static mf_status read_choices(mfi_cuda *c, mf_error *err)
{
    size_t first = chosen_of(c, c->look_first);
    if (c->n_looks > 0)
        MFI_CUDA_TRY(cudaMemcpyAsync(c->host_chosen + first, c->chosen + first,
                                     chosen_of(c, c->n_looks) * sizeof *c->chosen,
                                     cudaMemcpyDeviceToHost, c->stream));
    MFI_CUDA_TRY(cudaStreamSynchronize(c->stream));
    return MF_OK;
}

static mf_status stopped(mfi_backend *b, uint32_t *layer, mf_error *err)
{
    mfi_cuda *c = (mfi_cuda *)b;
    mf_status status = read_choices(c, err);
    *layer = status == MF_OK ? find_stop(c) : UINT32_MAX;
    if (c->n_looks > 0 && (*layer != UINT32_MAX || status != MF_OK)) {
        cudaError_t e = mfi_cuda_go_on(c->stream);
        if (status == MF_OK && e != cudaSuccess)
            status = mfi_cuda_fail(err, e, "the word that stops kernels");
    }
    if (c->n_looks > 0)
        end_looking();
    if (c->halted && status == MF_OK) {
        *layer = c->look_first;
        memcpy(c->host_chosen + chosen_of(c, *layer), b->view(b, MFI_BUF_IDS),
               chosen_of(c, 1) * sizeof *c->host_chosen);
    }
    c->halted = false;
    c->n_looks = 0;
    return status;
}

static const uint16_t *chosen(mfi_backend *b, uint32_t layer)
{
    const mfi_cuda *c = (const mfi_cuda *)b;
    return c->host_chosen + chosen_of(c, layer);
}

mf_status mfi_cuda_bind_experts(mfi_backend *b, const uint64_t *slots, mf_error *err)
{
    mfi_cuda *c = (mfi_cuda *)b;
    MFI_ASSERT(!c->settled && c->slots);
    MFI_CUDA_TRY(cudaMemcpyAsync(c->slots, slots, n_places(c) * sizeof *slots,
                                 cudaMemcpyHostToDevice, c->stream));
    MFI_CUDA_TRY(cudaStreamSynchronize(c->stream));
    mfi_cuda_graphs_drop(c);
    c->settled = true;
    return MF_OK;
}

const mfi_lookup_ops mfi_cuda_lookup_ops = {
    .place = place, .run = run, .stopped = stopped, .chosen = chosen, .cautious = true};
