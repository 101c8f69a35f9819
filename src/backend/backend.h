/* The executor of programs. A dozen entries, none per op: it knows ops, buffers and weights in its
 * memory, but no model, no files, no cache policy. One thread calls it. */
#ifndef MFI_BACKEND_BACKEND_H
#define MFI_BACKEND_BACKEND_H

#include "op/step.h"
#include "os/cpu.h"

typedef enum mfi_mem_kind {
    MFI_MEM_DENSE,   /* resident weights */
    MFI_MEM_SCRATCH, /* activation buffers */
    MFI_MEM_SLOTS    /* cached experts */
} mfi_mem_kind;

typedef struct mfi_backend mfi_backend;

struct mfi_backend {  /* first member of every implementation */
    const char *name; /* "cpu" */

    /* Memory of a kind, once each. What the host may write to (CPU: all of it) is returned in
     * *host, else NULL and `write` copies. */
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

#endif
