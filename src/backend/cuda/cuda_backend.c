/* The CUDA backend: the device, runs, and what the host sees of buffers. The module's only entry is
 * here. Called by forward and the engine, on one thread. Allocates at open and prepare only. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/cuda/cuda_int.h"
#include "backend/cuda/cuda_module.h"
#include "quant/ggml_iq_tables.h"

_Static_assert((int)MFI_CUDA_F32 == MFI_Q_F32 && (int)MFI_CUDA_F16 == MFI_Q_F16 &&
                   (int)MFI_CUDA_BF16 == MFI_Q_BF16 && (int)MFI_CUDA_MLX == MFI_Q_MLX &&
                   (int)MFI_CUDA_GGML == MFI_Q_GGML && (int)MFI_CUDA_FP8 == MFI_Q_FP8 &&
                   (int)MFI_CUDA_MXFP4 == MFI_Q_MXFP4,
               "kernels number types as quant does");
_Static_assert(sizeof(mfi_cuda_type) == sizeof(mfi_qtype), "and lay them out so");

#define CC_MAJOR_MIN     8    /* matrix units that take 19-bit floats */
#define EXPERTS_MAX      2048 /* a router's scores in shared memory */
#define GRAPH_BLOCKS_MIN 4
#define WEIGHT_ALIGN     16 /* so that the same kernels take them as in the device's memory */

mf_status mfi_cuda_fail(mf_error *err, cudaError_t error, const char *what)
{
    (void)cudaGetLastError(); /* what isn't sticky is reported once */
    return mfi_fail(err, MF_ERR_DEVICE, "CUDA: %s (%s)", cudaGetErrorString(error), what);
}

/* ---- what the host sees ---- */

static const void *view(mfi_backend *b, mfi_buf_id buf)
{
    mfi_cuda *c = (mfi_cuda *)b;
    MFI_ASSERT(c->mirror_at[buf]);
    char *at = c->mirror + c->mirror_at[buf] - 1;
    if (buf == MFI_BUF_IDS || buf == MFI_BUF_LOGITS)
        return at; /* run has sent them */
    const mfi_program_buf *pb = &c->p->bufs[buf];
    uint64_t bytes = (uint64_t)pb->rows * pb->width * sizeof(float);
    if (cudaMemcpy(at, mfi_cuda_row(c, (uint32_t)buf), bytes, cudaMemcpyDeviceToHost) !=
        cudaSuccess)
        memset(at, 0xff, bytes); /* NaN; the next run fails with the reason */
    return at;
}

/* Queues the copy of a buffer's rows of this run into its mirror. */
static mf_status reflect(mfi_cuda *c, uint32_t buf, mf_error *err)
{
    const mfi_program_buf *pb = &c->p->bufs[buf];
    bool head = buf == MFI_BUF_HN || buf == MFI_BUF_LOGITS;
    uint64_t bytes = (uint64_t)(head ? c->last_head : c->last_rows) * pb->width * sizeof(float);
    if (buf == MFI_BUF_IDS)
        bytes = (uint64_t)c->last_rows * c->p->shape.top_k * sizeof(uint16_t);
    MFI_CUDA_TRY(cudaMemcpyAsync(c->mirror + c->mirror_at[buf] - 1, mfi_cuda_row(c, buf), bytes,
                                 cudaMemcpyDeviceToHost, c->stream));
    return MF_OK;
}

static mf_status read_rows(mfi_backend *b, mfi_buf_id buf, uint32_t row, uint32_t n_rows, void *dst,
                           mf_error *err)
{
    mfi_cuda *c = (mfi_cuda *)b;
    const mfi_program_buf *pb = &c->p->bufs[buf];
    MFI_ASSERT(row + n_rows <= pb->rows);
    MFI_CUDA_TRY(cudaStreamSynchronize(c->stream));
    MFI_CUDA_TRY(cudaMemcpy(dst, mfi_cuda_row(c, buf) + (size_t)row * pb->width,
                            (size_t)n_rows * pb->width * sizeof(float), cudaMemcpyDeviceToHost));
    return MF_OK;
}

static mf_status sync_stream(mfi_backend *b, mf_error *err)
{
    mfi_cuda *c = (mfi_cuda *)b;
    MFI_CUDA_TRY(cudaStreamSynchronize(c->stream));
    return MF_OK;
}

/* ---- preparing ---- */

static mf_status device_array(void **to, uint64_t n, size_t size, mf_error *err)
{
    MFI_CUDA_TRY(cudaMalloc(to, MFI_MAX(n, 1) * size));
    MFI_CUDA_TRY(cudaMemset(*to, 0, MFI_MAX(n, 1) * size));
    return MF_OK;
}

static mf_status alloc_mirror(mfi_cuda *c, mf_error *err)
{
    static const uint8_t seen[] = {MFI_BUF_IDS, MFI_BUF_RES, MFI_BUF_HN, MFI_BUF_LOGITS};
    uint64_t bytes = 0;
    for (size_t i = 0; i < MFI_ARRAY_LEN(seen); i++) {
        const mfi_program_buf *b = &c->p->bufs[seen[i]];
        c->mirror_at[seen[i]] = bytes + 1;
        bytes += mfi_align_up((uint64_t)b->rows * b->width * sizeof(float), 64);
    }
    MFI_CUDA_TRY(cudaHostAlloc((void **)&c->mirror, MFI_MAX(bytes, 1), 0));
    return MF_OK;
}

static mf_status alloc_lists(mfi_cuda *c, mf_error *err)
{
    const mfi_shape *s = &c->p->shape;
    uint64_t pairs = (uint64_t)c->p->chunk * s->top_k;
    c->n_items_max = 0;
    for (uint32_t t = 1; t <= c->p->chunk; t++)
        c->n_items_max = MFI_MAX(c->n_items_max, mfi_cuda_n_items(c, t));
    c->n_items_max = MFI_MAX(c->n_items_max, s->top_k);
    MFI_TRY(device_array((void **)&c->items, c->n_items_max, sizeof *c->items, err));
    MFI_TRY(device_array((void **)&c->x_row, pairs, sizeof *c->x_row, err));
    MFI_TRY(device_array((void **)&c->pair_of, pairs, sizeof *c->pair_of, err));
    MFI_CUDA_TRY(cudaHostAlloc((void **)&c->host_items, c->n_items_max * sizeof *c->host_items, 0));
    MFI_CUDA_TRY(cudaHostAlloc((void **)&c->host_rows, 2 * pairs * sizeof *c->host_rows, 0));
    return MF_OK;
}

/* Room for what blocks of positions add up, of the tokens that run side by side. */
static mf_status alloc_partial(mfi_cuda *c, mf_error *err)
{
    const mfi_shape *s = &c->p->shape;
    uint32_t dim_v = s->latent_kv ? s->latent_kv : s->head_dim;
    uint64_t tokens = MFI_MIN(c->p->chunk, MFI_CUDA_ATTN_SPLIT_TOK);
    c->n_blocks_max = c->p->ctx / MFI_CUDA_ATTN_BLOCK + 2;
    return device_array((void **)&c->partial,
                        tokens * s->n_head * c->n_blocks_max * (uint64_t)(dim_v + 2),
                        sizeof *c->partial, err);
}

static mf_status check_limits(const mfi_program *p, mf_error *err)
{
    const mfi_shape *s = &p->shape;
    if (s->n_experts > EXPERTS_MAX)
        return mfi_fail(err, MF_ERR_LIMIT, "%u experts a layer: CUDA kernels take at most %u",
                        s->n_experts, EXPERTS_MAX);
    if (s->head_dim > MFI_MAX_HEAD_DIM || s->latent_kv + s->n_rot > MFI_MAX_HEAD_DIM ||
        s->gdn_k_dim > MFI_MAX_HEAD_DIM || s->gdn_v_dim > MFI_MAX_HEAD_DIM)
        return mfi_fail(err, MF_ERR_LIMIT, "heads of %u, %u and %u elements: at most %u",
                        s->head_dim, s->gdn_k_dim, s->gdn_v_dim, MFI_MAX_HEAD_DIM);
    return MF_OK;
}

static mf_status prepare(mfi_backend *b, const mfi_program *p, mf_error *err)
{
    mfi_cuda *c = (mfi_cuda *)b;
    MFI_ASSERT(!c->p && c->mem[MFI_MEM_DENSE] && c->mem[MFI_MEM_SCRATCH]);
    MFI_TRY(mfi_cuda_use(c, err));
    MFI_TRY(check_limits(p, err));
    c->p = p;
    c->mats = calloc(p->n_weights, sizeof *c->mats);
    c->graphs = calloc(MFI_CUDA_GRAPHS, sizeof *c->graphs);
    c->graph_of = calloc(p->n_ops, sizeof *c->graph_of);
    c->layers = calloc(MFI_CUDA_SEQS * (size_t)p->shape.n_layers, sizeof *c->layers);
    c->known_pos = calloc(2 * (size_t)p->chunk, sizeof *c->known_pos);
    c->known_heads = calloc(p->n_logit_rows, sizeof *c->known_heads);
    double *freq = calloc(p->shape.n_rot / 2 + 1, sizeof *freq);
    mf_status status = MF_OK;
    if (!c->mats || !c->graphs || !c->graph_of || !c->layers || !c->known_pos || !c->known_heads ||
        !freq)
        status =
            mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for %u weight descriptors", p->n_weights);
    for (uint32_t i = 0; status == MF_OK && i < p->n_weights; i++) {
        const mfi_program_weight *w = &p->weights[i];
        MFI_ASSERT(w->x_bits == 0);
        c->mats[i] = mfi_cuda_mat_of(w->type, w->rows, w->cols);
        for (uint32_t k = 0; k < mfi_quant_n_planes(w->type); k++)
            c->mats[i].plane[k] = (const uint8_t *)c->mem[MFI_MEM_DENSE] + w->offset[k];
    }
    if (status == MF_OK) {
        mfi_rope_frequencies(&p->shape.rope, p->shape.n_rot, freq);
        status = device_array((void **)&c->freq, p->shape.n_rot / 2, sizeof *freq, err);
    }
    if (status == MF_OK && cudaMemcpy(c->freq, freq, p->shape.n_rot / 2 * sizeof *freq,
                                      cudaMemcpyHostToDevice) != cudaSuccess)
        status = mfi_fail(err, MF_ERR_DEVICE, "CUDA: rotary frequencies can't be copied");
    free(freq);
    MFI_TRY(status);
    MFI_TRY(device_array((void **)&c->pos, p->chunk, sizeof *c->pos, err));
    MFI_TRY(device_array((void **)&c->head_rows, p->n_logit_rows, sizeof *c->head_rows, err));
    MFI_TRY(device_array((void **)&c->tokens, p->chunk, sizeof *c->tokens, err));
    MFI_TRY(device_array((void **)&c->turn, 1, sizeof *c->turn, err));
    MFI_TRY(alloc_mirror(c, err));
    MFI_TRY(alloc_lists(c, err));
    MFI_TRY(device_array((void **)&c->split, mfi_program_input_columns(p) / 32 + 1,
                         MFI_CUDA_SPLIT_BYTES, err));
    MFI_TRY(mfi_cuda_lookup_open(c, err));
    MFI_TRY(alloc_partial(c, err));
    /* What was cleared and copied went to another stream than kernels do, which wait for none. */
    MFI_CUDA_TRY(cudaDeviceSynchronize());
    return MF_OK;
}

/* ---- running ---- */

/* Sends numbers unless the device has them. */
static mf_status send(mfi_cuda *c, uint32_t *device, uint32_t *known, uint32_t *n_known,
                      const uint32_t *now, uint32_t n, mf_error *err)
{
    if (n <= *n_known && memcmp(known, now, n * sizeof *now) == 0)
        return MF_OK;
    /* From pageable memory: taken when the call returns. */
    MFI_CUDA_TRY(cudaMemcpyAsync(device, now, n * sizeof *now, cudaMemcpyHostToDevice, c->stream));
    memmove(known, now, n * sizeof *now);
    *n_known = n;
    return MF_OK;
}

/* Brings the device's idea of the step up to date. */
static mf_status send_step(mfi_cuda *c, uint32_t first, const mfi_step *step, mf_error *err)
{
    uint32_t *pos = c->known_pos + c->p->chunk; /* room behind */
    for (uint32_t t = 0; t < step->n_tok; t++)
        pos[t] = mfi_step_pos(step, t);
    if (first == 0)
        MFI_CUDA_TRY(cudaMemcpyAsync(c->tokens, step->tokens, step->n_tok * sizeof *step->tokens,
                                     cudaMemcpyHostToDevice, c->stream));
    MFI_TRY(send(c, c->pos, c->known_pos, &c->n_known_pos, pos, step->n_tok, err));
    return send(c, c->head_rows, c->known_heads, &c->n_known_heads, step->head_rows, step->n_head,
                err);
}

/* Blocks of positions that a step's tokens may see, in few sizes so that graphs last. */
static uint32_t blocks_of(const mfi_cuda *c, const mfi_step *step)
{
    uint32_t end = 0, n = GRAPH_BLOCKS_MIN;
    for (uint32_t i = 0; i < step->n_seqs; i++)
        end = MFI_MAX(end, step->seqs[i].pos + step->seqs[i].n);
    uint32_t need = end / MFI_CUDA_ATTN_BLOCK + 2;
    while (n < need)
        n *= 2;
    return MFI_MIN(n, c->n_blocks_max);
}

/* Graphs have a sequence's memory in them. */
static uint64_t generation_of(mfi_cuda *c, const mfi_layer_mem *mem)
{
    size_t n = c->p->shape.n_layers;
    for (uint32_t i = 0; i < MFI_CUDA_SEQS; i++)
        if (c->generations[i] && memcmp(c->layers + i * n, mem, n * sizeof *mem) == 0)
            return c->generations[i];
    uint32_t at = c->n_generations++ % MFI_CUDA_SEQS;
    memcpy(c->layers + at * n, mem, n * sizeof *mem);
    return c->generations[at] = c->n_generations;
}

mf_status mfi_cuda_run(mfi_backend *b, uint32_t first, uint32_t n, const mfi_step *step,
                       mf_error *err)
{
    mfi_cuda *c = (mfi_cuda *)b;
    const mfi_program *p = c->p;
    MFI_ASSERT(first + n <= p->n_ops && step->n_tok > 0 && step->n_tok <= p->chunk);
    MFI_TRY(mfi_cuda_use(c, err));
    c->generation = generation_of(c, step->seqs[0].mem);
    c->n_blocks = blocks_of(c, step);
    c->n_runs++;
    c->last_rows = step->n_tok;
    c->last_head = step->n_head;
    MFI_TRY(send_step(c, first, step, err));
    if (n == 0 || c->halted)
        return MF_OK;
    MFI_TRY(mfi_cuda_enqueue(c, first, n, step, err));
    /* What forward looks at next is on its way before it asks. */
    if (p->ops[first + n - 1].code == MFI_OP_ROUTE)
        return reflect(c, MFI_BUF_IDS, err);
    return first + n == p->n_ops ? reflect(c, MFI_BUF_LOGITS, err) : MF_OK;
}

/* ---- open and close ---- */

static void close_backend(mfi_backend *b)
{
    mfi_cuda *c = (mfi_cuda *)b;
    (void)mfi_cuda_use(c, NULL);
    (void)cudaDeviceSynchronize();
    mfi_cuda_graphs_drop(c);
    mfi_cuda_lookup_close(c);
    mfi_cuda_leave();
    mfi_cuda_queue_close(&c->copies);
    mfi_cuda_queue_close(&c->fetches);
    if (c->small)
        (void)cudaStreamDestroy(c->small);
    if (c->submitted)
        (void)cudaEventDestroy(c->submitted);
    if (c->lists)
        (void)cudaEventDestroy(c->lists);
    void *const on_device[] = {c->freq,  c->pos,     c->head_rows, c->tokens, c->items,
                               c->x_row, c->pair_of, c->partial,   c->turn,   c->split};
    for (size_t i = 0; i < MFI_ARRAY_LEN(on_device); i++)
        (void)cudaFree(on_device[i]);
    for (uint32_t i = 0; i < MFI_N_MEM_KINDS; i++)
        (void)(i == MFI_MEM_TIER ? cudaSuccess : cudaFree(c->mem[i]));
    mfi_cuda_unpin(c);
    void *const on_host[] = {c->mirror, c->host_items, c->host_rows};
    for (size_t i = 0; i < MFI_ARRAY_LEN(on_host); i++)
        (void)cudaFreeHost(on_host[i]);
    if (c->stream)
        (void)cudaStreamDestroy(c->stream);
    free(c->mats);
    free(c->graphs);
    free(c->graph_of);
    free(c->layers);
    free(c->known_pos);
    free(c->known_heads);
    free(c);
}

/* The driver's own words for why there is no device. */
static mf_status count_devices(uint32_t *n, mf_error *err)
{
    int count = 0, driver = 0;
    cudaError_t e = cudaGetDeviceCount(&count);
    *n = e == cudaSuccess ? (uint32_t)count : 0;
    if (e == cudaSuccess && count > 0)
        return MF_OK;
    (void)cudaGetLastError();
    (void)cudaDriverGetVersion(&driver);
    if (e == cudaErrorInsufficientDriver && driver > 0)
        return mfi_fail(err, MF_ERR_UNSUPPORTED,
                        "no CUDA: the driver is for CUDA %d.%d, and this build needs %d.%d",
                        driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000,
                        CUDART_VERSION % 1000 / 10);
    bool no_driver = e == cudaErrorInsufficientDriver; /* of version 0 */
    return mfi_fail(err, MF_ERR_UNSUPPORTED, "no CUDA: %s",
                    e == cudaSuccess || e == cudaErrorNoDevice ? "there is no device"
                    : no_driver                                ? "there is no driver"
                                                               : cudaGetErrorString(e));
}

static mf_status read_facts(uint32_t index, mfi_device_facts *facts, mf_error *err)
{
    struct cudaDeviceProp prop;
    size_t free_bytes, total_bytes;
    *facts = (mfi_device_facts){.index = index};
    MFI_TRY(count_devices(&facts->n_devices, err));
    if (index >= facts->n_devices)
        return mfi_fail(err, MF_ERR_ARGUMENT, "there is no CUDA device %u; there are %u, from 0 on",
                        index, facts->n_devices);
    MFI_CUDA_TRY(cudaGetDeviceProperties(&prop, (int)index));
    snprintf(facts->name, sizeof facts->name, "%.*s", (int)sizeof facts->name - 1, prop.name);
    facts->cc_major = (uint32_t)prop.major;
    facts->cc_minor = (uint32_t)prop.minor;
    facts->total_bytes = facts->free_bytes = prop.totalGlobalMem;
    if (facts->cc_major < CC_MAJOR_MIN)
        return mfi_fail(err, MF_ERR_UNSUPPORTED,
                        "CUDA device %u, %s, has compute capability %u.%u; %u.0 is needed", index,
                        facts->name, facts->cc_major, facts->cc_minor, CC_MAJOR_MIN);
    MFI_CUDA_TRY(cudaSetDevice((int)index));
    MFI_CUDA_TRY(cudaMemGetInfo(&free_bytes, &total_bytes));
    facts->total_bytes = total_bytes;
    facts->free_bytes = free_bytes;
    facts->weight_align = WEIGHT_ALIGN;
    facts->page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    return MF_OK;
}

static mf_status open_device(mfi_cuda *c, mf_error *err)
{
    MFI_CUDA_TRY(cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking));
    MFI_TRY(mfi_cuda_queue_open(&c->copies, err));
    MFI_TRY(mfi_cuda_queue_open(&c->fetches, err));
    MFI_CUDA_TRY(cudaStreamCreateWithFlags(&c->small, cudaStreamNonBlocking));
    MFI_CUDA_TRY(cudaEventCreateWithFlags(&c->submitted, cudaEventDisableTiming));
    MFI_CUDA_TRY(cudaEventCreateWithFlags(&c->lists, cudaEventDisableTiming));
    MFI_CUDA_TRY(cudaDeviceSynchronize()); /* nobody's word stops kernels from now on */
    MFI_CUDA_TRY(mfi_cuda_set_tables(mfi_iq2_xxs_grid, mfi_iq2_xs_grid, mfi_iq2_s_grid,
                                     mfi_iq1_grid, mfi_iq3_xxs_grid, mfi_iq3_s_grid));
    return MF_OK;
}

static mf_status open_backend(mfi_backend **backend, uint32_t index, mfi_device_facts *facts,
                              mf_error *err)
{
    MFI_TRY(read_facts(index, facts, err));
    mfi_cuda *c = calloc(1, sizeof *c);
    if (!c)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the CUDA backend");
    c->device = (int)index;
    c->base = (mfi_backend){.name = "cuda",
                            .device = &mfi_cuda_device_ops,
                            .alloc = mfi_cuda_alloc,
                            .write = mfi_cuda_write,
                            .read = read_rows,
                            .view = view,
                            .prepare = prepare,
                            .run = mfi_cuda_run,
                            .sync = sync_stream,
                            .close = close_backend};
    mfi_cuda_enter();
    mf_status status = open_device(c, err);
    if (status != MF_OK) {
        close_backend(&c->base);
        return status;
    }
    *backend = &c->base;
    return MF_OK;
}

/* The module's entry. */
__attribute__((visibility("default"))) const mfi_cuda_module *mfi_cuda_module_v1(void);

const mfi_cuda_module *mfi_cuda_module_v1(void)
{
    static const mfi_cuda_module module = {.facts = read_facts, .open = open_backend};
    return &module;
}

__attribute__((visibility("default"))) uint64_t mfi_cuda_module_layout(void);

uint64_t mfi_cuda_module_layout(void)
{
    return mfi_cuda_layout();
}
