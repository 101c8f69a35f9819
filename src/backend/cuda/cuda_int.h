/* The CUDA backend's inside, shared by its C files only. */
#ifndef MFI_BACKEND_CUDA_INT_H
#define MFI_BACKEND_CUDA_INT_H

#include "backend/backend.h"
#include "backend/cuda/cuda_kernels.h"

#define MFI_CUDA_EVENTS 512 /* copies under way at one time */
#define MFI_CUDA_GRAPHS 512
#define MFI_CUDA_SEQS   16 /* whose graphs are kept */

/* A span of ops recorded for single tokens. */
typedef struct mfi_cuda_graph {
    cudaGraphExec_t exec;
    uint32_t first, n;   /* ops */
    uint32_t n_blocks;   /* of positions that attention covers */
    uint32_t next;       /* 1 + that of the same first op, or 0 */
    uint64_t generation; /* of the sequence's memory that it was recorded for */
} mfi_cuda_graph;

typedef struct mfi_cuda_mapped mfi_cuda_mapped; /* a range of a file's mapping */

/* Copies on a stream of their own, counted by events. */
typedef struct mfi_cuda_queue {
    cudaStream_t stream;
    cudaEvent_t events[MFI_CUDA_EVENTS];
    uint64_t n_started, n_ended;
} mfi_cuda_queue;

typedef struct mfi_cuda {
    mfi_backend base;
    int device;
    cudaStream_t stream;
    char *mem[MFI_N_MEM_KINDS];
    uint64_t mem_bytes[MFI_N_MEM_KINDS];
    void *tier_map; /* what MFI_MEM_TIER is a part of */
    uint64_t tier_map_len;
    const mfi_program *p;
    mfi_cuda_mat *mats; /* [n_weights] */
    double *freq;       /* device, [n_rot / 2] */
    /* device: what differs from step to step */
    uint32_t *pos;       /* [chunk] of rows */
    uint32_t *head_rows; /* [n_logit_rows] */
    int32_t *tokens;     /* [chunk] */
    mfi_cuda_item *items;
    uint32_t *x_row, *pair_of;
    uint32_t *turn; /* zero between kernels: their blocks of threads count themselves */
    float *partial; /* of attention, for MFI_CUDA_ATTN_SPLIT_TOK tokens */
    uint4 *split;   /* columns of a product's tokens in parts */
    uint32_t n_items_max, n_blocks_max;
    uint32_t *known_pos, *known_heads; /* host: what pos and head_rows have */
    uint32_t n_known_pos, n_known_heads;
    /* host, pinned */
    char *mirror;                   /* of the buffers that can be looked at */
    uint64_t mirror_at[MFI_N_BUFS]; /* 1 + offset, or 0 */
    mfi_cuda_item *host_items;
    uint32_t *host_rows;            /* [chunk * top_k] of x_row, then pair_of */
    mfi_cuda_graph *graphs;         /* [MFI_CUDA_GRAPHS] */
    uint32_t *graph_of;             /* [n_ops] 1 + the first that begins there, or 0 */
    uint32_t n_graphs, n_graph_ops; /* ops of all graphs */
    mfi_layer_mem *layers; /* [MFI_CUDA_SEQS][n_layers] of sequences that single runs were of, */
    uint64_t generations[MFI_CUDA_SEQS]; /* numbered from 1; 0: none */
    uint64_t generation, n_generations;  /* of this run's first sequence; given so far */
    uint32_t n_blocks;                   /* of this run's attention */
    uint32_t last_rows, last_head;       /* rows of the last run */
    /* looking up */
    bool halted;                  /* where another backend is open: stopped at a router */
    bool told;                    /* kernels know the word that stops them */
    bool settled;                 /* every expert has its slot for good */
    uint32_t look_end;            /* of ops, of this run, whose routers look up; 0: none */
    uint32_t look_first, n_looks; /* layers from the first that looked to the last; n 0: none did */
    uint32_t look_tok;            /* tokens of them */
    uint64_t *slots, *host_slots; /* [n_layers][n_experts] addresses or 0; device, host (pinned) */
    uint32_t moved_first, n_moved;  /* layers whose slots the device doesn't know yet */
    uint16_t *chosen, *host_chosen; /* [n_layers][look_tok][top_k]; the same */
    /* copies, and fetches from the device's slots */
    mfi_cuda_queue copies, fetches;
    cudaEvent_t submitted;
    cudaEvent_t lists; /* host_items and host_rows have been copied */
    cudaStream_t small; /* copies of a few bytes */
    mfi_cuda_mapped *ranges; /* that the device reads */
    /* what each of the two streams of copies waits for already: runs, and fetches */
    uint64_t n_runs, n_runs_recorded, n_runs_seen[2], n_fetches_seen[2];
} mfi_cuda;

#define MFI_CUDA_TRY(call)                                                                         \
    do {                                                                                           \
        cudaError_t mfi_cuda_error_ = (call);                                                      \
        if (mfi_cuda_error_ != cudaSuccess)                                                        \
            return mfi_cuda_fail(err, mfi_cuda_error_, #call);                                     \
    } while (0)

mf_status mfi_cuda_fail(mf_error *err, cudaError_t error, const char *what);

/* Makes the backend's device the thread's: kernels, symbols and allocations go to that, and a
 * thread may have engines on several, or have taken one over. */
static inline mf_status mfi_cuda_use(const mfi_cuda *c, mf_error *err)
{
    MFI_CUDA_TRY(cudaSetDevice(c->device));
    return MF_OK;
}

static inline float *mfi_cuda_row(const mfi_cuda *c, uint32_t buf)
{
    return (float *)(c->mem[MFI_MEM_SCRATCH] + c->p->bufs[buf].offset);
}

/* cuda_backend.c: the backend's run. */
mf_status mfi_cuda_run(mfi_backend *b, uint32_t first, uint32_t n, const mfi_step *step,
                       mf_error *err);

/* cuda_graphs.c: queues ops [first, first + n), one by one or as graphs. */
mf_status mfi_cuda_enqueue(mfi_cuda *c, uint32_t first, uint32_t n, const mfi_step *step,
                           mf_error *err);
void mfi_cuda_graphs_drop(mfi_cuda *c);

/* cuda_lookup.c: where experts are. Whether a ROUTE looks up, and EXPERTS finds its lists there. */
bool mfi_cuda_looks(const mfi_cuda *c, const mfi_op *op);
void mfi_cuda_look_as(const mfi_cuda *c, const mfi_op *op, mfi_cuda_route *r);
mf_status mfi_cuda_lookup_open(mfi_cuda *c, mf_error *err);
void mfi_cuda_lookup_close(mfi_cuda *c);
/* Counts open backends: one looks up only while it is alone, since a word stops all kernels of the
 * process. */
void mfi_cuda_enter(void);
void mfi_cuda_leave(void);
mf_status mfi_cuda_bind_experts(mfi_backend *b, const uint64_t *slots, mf_error *err);
extern const mfi_lookup_ops mfi_cuda_lookup_ops;

/* cuda_ops.c: queues one op. */
mf_status mfi_cuda_op(mfi_cuda *c, const mfi_op *op, const mfi_step *step, mf_error *err);
mf_status mfi_cuda_op_failed(mf_error *err, cudaError_t e, const mfi_op *op);
mfi_cuda_route mfi_cuda_route_of(const mfi_cuda *c, const mfi_op *op, uint32_t n);
mfi_cuda_combine mfi_cuda_combine_of(const mfi_cuda *c, const mfi_op *op, uint32_t n);
/* MATMUL of a single token with what its first product does beside, and the BIAS behind it or NULL.
 */
cudaError_t mfi_cuda_matmul_op(mfi_cuda *c, const mfi_op *op, const mfi_cuda_mm *with,
                               const mfi_op *bias);
/* ATTN_PREP and the ATTN behind it, of a single token, if they go together. */
bool mfi_cuda_attn_op(mfi_cuda *c, const mfi_op *op, const mfi_step *step, cudaError_t *e);
mfi_cuda_mat mfi_cuda_mat_of(mfi_qtype type, uint32_t rows, uint32_t cols);

/* cuda_experts.c: takes a step's lists; queues EXPERTS. */
mf_status mfi_cuda_take_work(mfi_cuda *c, const mfi_step *step, uint32_t *n_items, mf_error *err);
/* combine: the op behind it that may be computed with it, and was if it is NULL afterwards. */
mf_status mfi_cuda_experts(mfi_cuda *c, const mfi_op *op, const mfi_op **combine,
                           const mfi_step *step, mf_error *err);
/* Items of the last level of tiles for n_tok tokens. */
uint32_t mfi_cuda_n_items(const mfi_cuda *c, uint32_t n_tok);
bool mfi_cuda_small_tiles(const mfi_cuda *c, uint32_t n_tok);

/* cuda_fuse.c: queues several of the n ops at once, if they are such; how many, or 0. */
uint32_t mfi_cuda_fuse(mfi_cuda *c, const mfi_op *op, uint32_t n, const mfi_step *step,
                       cudaError_t *e);

/* cuda_memory.c: memory and copies. */
mf_status mfi_cuda_queue_open(mfi_cuda_queue *q, mf_error *err);
void mfi_cuda_queue_close(mfi_cuda_queue *q);
void mfi_cuda_unpin(mfi_cuda *c); /* MFI_MEM_TIER */
extern const mfi_device_ops mfi_cuda_device_ops;
mf_status mfi_cuda_alloc(mfi_backend *b, mfi_mem_kind kind, uint64_t bytes, void **host,
                         mf_error *err);
mf_status mfi_cuda_write(mfi_backend *b, mfi_mem_kind kind, uint64_t offset, const void *src,
                         uint64_t len, mf_error *err);

#endif
