/* The executor of programs. A dozen entries, none per op: it knows ops, buffers and weights in its
 * memory, but no model, no files, no cache policy. One thread calls it. */
#ifndef MFI_BACKEND_BACKEND_H
#define MFI_BACKEND_BACKEND_H

#include "op/step.h"
#include "os/cpu.h"

typedef enum mfi_mem_kind {
    MFI_MEM_DENSE,   /* resident weights */
    MFI_MEM_SCRATCH, /* activation buffers */
    MFI_MEM_SLOTS,   /* cached experts */
    MFI_MEM_TIER,    /* devices: the host's memory that experts are copied from */
    MFI_N_MEM_KINDS
} mfi_mem_kind;

typedef struct mfi_backend mfi_backend;

/* What a device has that reads weights in the mapping of their files. */
typedef struct mfi_binding_ops {
    /* Wraps a page-aligned range of a mapping, which must outlive the handle (mfi_weight_device's
     * bind and unbind). With memory of its own: copies may begin in that range, too. */
    mf_status (*bind)(void *b, const void *address, uint64_t len, void **handle, mf_error *err);
    void (*unbind)(void *b, void *handle);
    /* After prepare: plane `plane` of a weight that is used in place lies there in a handle. */
    void (*place)(mfi_backend *b, uint32_t weight, uint32_t plane, void *handle, uint64_t offset);
} mfi_binding_ops;

/* What a device that computes in the host's memory has: experts are read into its slots without a
 * copy. */
typedef struct mfi_unified_ops {
    /* Sends what was run; *ticket counts such marks from 1. */
    mf_status (*mark)(mfi_backend *b, uint64_t *ticket, mf_error *err);
    /* How many marks have been passed; waits until `ticket` was. 0: waits for none. */
    mf_status (*passed)(mfi_backend *b, uint64_t ticket, uint64_t *n_passed, mf_error *err);
} mfi_unified_ops;

/* What a device has that looks experts up itself while some of them are in no slot: spans go on
 * over routers, and end by themselves where an expert is missing. */
typedef struct mfi_lookup_ops {
    /* An expert is at `data` in MFI_MEM_SLOTS from now on, or nowhere (NULL, and at first). Not to
     * be called between `run` and `stopped`. */
    void (*place)(mfi_backend *b, uint32_t layer, uint32_t expert, const void *data);
    /* Executes ops [first, first + n) of a step of at most MFI_MAX_LOOKUP_TOK tokens, with no pairs
     * and no work in it: each router, but for the last op, looks its experts up. Where one is
     * nowhere, no later op changes anything, be it of this call or of another, up to `stopped`. */
    mf_status (*run)(mfi_backend *b, uint32_t first, uint32_t n, const mfi_step *step,
                     mf_error *err);
    /* Waits. *layer: whose router stopped the ops behind it, or UINT32_MAX; they do something again
     * from now on, also after a failure. */
    mf_status (*stopped)(mfi_backend *b, uint32_t *layer, mf_error *err);
    /* [n_tok][top_k] What a router that looked up has chosen; after `stopped`, up to the next run.
     */
    const uint16_t *(*chosen)(mfi_backend *b, uint32_t layer);
    bool cautious; /* a span that looks up costs more than a stop: only where few layers miss */
} mfi_lookup_ops;

/* What a backend that isn't the CPU has in addition. */
typedef struct mfi_device_ops {
    /* Address of a kind's memory as ops see it (mfi_expert_work.data lies there). */
    void *(*address)(mfi_backend *b, mfi_mem_kind kind);
    /* State of a sequence (mfi_layer_mem), zeroed. */
    mf_status (*state_alloc)(mfi_backend *b, uint64_t bytes, void **mem, mf_error *err);
    mf_status (*state_clear)(mfi_backend *b, void *mem, uint64_t bytes, mf_error *err);
    void (*state_free)(mfi_backend *b, void *mem);
    /* Copies between memory of a sequence or of a kind and the host's, or within either, behind all
     * ops submitted so far; waits. NULL: the host reads and writes it. */
    mf_status (*move)(mfi_backend *b, void *dst, const void *src, uint64_t bytes, mf_error *err);
    /* Starts a copy out of MFI_MEM_TIER, behind all ops submitted so far, since they may read what
     * it overwrites. Copies end in order; *ticket counts them from 1. */
    mf_status (*copy)(void *b, void *dst, const void *src, uint64_t len, uint64_t *ticket,
                      mf_error *err);
    /* How many copies have ended; waits until `ticket` has. 0: waits for none. */
    mf_status (*copied)(void *b, uint64_t ticket, uint64_t *n_ended, mf_error *err);
    /* The same from MFI_MEM_SLOTS to MFI_MEM_TIER, with tickets of their own. A copy that starts
     * later, to where this one reads, waits for it. NULL: none are needed. */
    mf_status (*fetch)(void *b, void *dst, const void *src, uint64_t len, uint64_t *ticket,
                       mf_error *err);
    mf_status (*fetched)(void *b, uint64_t ticket, uint64_t *n_ended, mf_error *err);
    /* Where every expert is, [n_layers][n_experts], once and for good: spans may then run over
     * routers without a stop, with no pairs and no work in the step. */
    mf_status (*bind_experts)(mfi_backend *b, const uint64_t *slots, mf_error *err);
    const mfi_binding_ops *binding; /* NULL: no weights in place */
    const mfi_unified_ops *unified; /* NULL: memory of its own; else address and copies are NULL */
    const mfi_lookup_ops *lookup;   /* NULL: without bind_experts, spans end at routers */
} mfi_device_ops;

struct mfi_backend {              /* first member of every implementation */
    const char *name;             /* "cpu", "cuda", "metal" */
    const mfi_device_ops *device; /* NULL: computes in the host's memory */

    /* Memory of a kind, once each. What the host may write to (CPU: all of it) is returned in
     * *host, else NULL and `write` copies, behind the ops submitted so far. */
    mf_status (*alloc)(mfi_backend *b, mfi_mem_kind kind, uint64_t bytes, void **host,
                       mf_error *err);
    mf_status (*write)(mfi_backend *b, mfi_mem_kind kind, uint64_t offset, const void *src,
                       uint64_t len, mf_error *err);
    /* Copies an activation buffer's rows to the host. */
    mf_status (*read)(mfi_backend *b, mfi_buf_id buf, uint32_t row, uint32_t n_rows, void *dst,
                      mf_error *err);
    /* Host address of a buffer, if the host can read it in place, else NULL. Rows have the width of
     * the program's buffer. */
    const void *(*view)(mfi_backend *b, mfi_buf_id buf);

    /* Takes a program, which must outlive its use; memory must be allocated. */
    mf_status (*prepare)(mfi_backend *b, const mfi_program *program, mf_error *err);
    /* Executes ops [first, first + n). */
    mf_status (*run)(mfi_backend *b, uint32_t first, uint32_t n, const mfi_step *step,
                     mf_error *err);
    /* Waits for everything submitted; CPU: nothing to wait for. */
    mf_status (*sync)(mfi_backend *b, mf_error *err);
    void (*close)(mfi_backend *b);
};

/* The CPU: kernels of one ISA level on a pool of workers. */
mf_status mfi_backend_cpu_open(mfi_backend **backend, mfi_isa isa, uint32_t n_threads,
                               mf_error *err);

/* A CUDA device, by the module that is opened at run time (docs/cuda.md). `index` counts the
 * driver's devices. MF_ERR_UNSUPPORTED: no module, no driver, or too old a device; MF_ERR_DEVICE:
 * it doesn't answer. */
typedef struct mfi_device_facts {
    char name[96];
    uint32_t index, n_devices;
    uint32_t cc_major, cc_minor; /* CUDA's compute capability */
    uint64_t total_bytes, free_bytes;
    bool unified; /* it computes in the host's memory */
    /* Weights in place: how they must lie (0: it has none), and what its buffers take at least and
     * at most. */
    uint32_t weight_align;
    uint64_t page_bytes, max_buf_bytes;
    /* What its backend allocates for a program beside what the plan has it allocate. Pure; told by
     * opening only, and only by these devices. */
    uint64_t (*own_bytes)(const mfi_program *p, uint32_t ctx);
} mfi_device_facts;

mf_status mfi_backend_cuda_open(mfi_backend **backend, uint32_t index, mfi_device_facts *facts,
                                mf_error *err);
/* Facts of one device without opening it; n_devices is right even where index is beyond. */
mf_status mfi_backend_cuda_facts(uint32_t index, mfi_device_facts *facts, mf_error *err);

/* The same of Metal (docs/metal.md). MF_ERR_UNSUPPORTED: no module, or no device. */
mf_status mfi_backend_metal_open(mfi_backend **backend, uint32_t index, mfi_device_facts *facts,
                                 mf_error *err);
mf_status mfi_backend_metal_facts(uint32_t index, mfi_device_facts *facts, mf_error *err);

#endif
