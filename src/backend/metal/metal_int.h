/* The Metal backend's inside, shared by its C files only. */
#ifndef MFI_BACKEND_METAL_INT_H
#define MFI_BACKEND_METAL_INT_H

#include "backend/metal/metal_device.h"

#define MFI_METAL_RING 8 /* lists that the host has written and the device may still read */

/* A resident weight: where its planes are. */
typedef struct mfi_metal_weight {
    mfi_metal_mat mat;
    mfi_metal_ref plane[MFI_MAX_PLANES];
} mfi_metal_weight;

/* What the host writes for a step, or for some experts' work. The ring of them bounds how far the
 * host runs ahead. */
typedef struct mfi_metal_list {
    mfi_metal_buf buf;
    uint64_t ticket; /* the command buffer that reads it; 0: none */
} mfi_metal_list;

typedef struct mfi_metal {
    mfi_backend base;
    mfi_metal_device *device;
    mfi_metal_buf mem[MFI_N_MEM_KINDS];
    mfi_metal_buf *state; /* [n_state] of sequences; room for more */
    uint32_t n_state, n_state_max;
    const mfi_program *p;
    mfi_metal_weight *weights; /* [n_weights] */
    mfi_metal_buf freq, tables, partial;
    /* by the host: tokens [chunk], positions [chunk], head rows [n_logit_rows] */
    mfi_metal_list steps[MFI_METAL_RING];
    /* items, row of x [pairs], pair of a choice [pairs]: by the host, and the device's own for when
     * it looks experts up */
    mfi_metal_list works[MFI_METAL_RING];
    mfi_metal_buf own_work;
    uint32_t step_at, work_at;
    uint32_t n_items;
    bool own_lists; /* the device made the last ones */
    /* looking experts up (metal_lookup.c) */
    mfi_metal_buf slots;  /* uint64_t [n_layers][n_experts] */
    mfi_metal_buf chosen; /* ids [n_layers][tokens][top_k] */
    mfi_metal_buf stop;   /* metal_kernels.h's MFI_METAL_STOP */
    bool settled;         /* all experts have slots for good: every router looks them up */
    uint32_t look_end;    /* ops before this one look up as well */
    uint64_t n_sent;      /* the next command buffer's ticket is one more */
} mfi_metal;

/* metal_memory.c: buffers, what sequences keep, weights in place, lists. */
extern const mfi_device_ops mfi_metal_device_ops;
mf_status mfi_metal_alloc(mfi_backend *b, mfi_mem_kind kind, uint64_t bytes, void **host,
                          mf_error *err);
mf_status mfi_metal_write(mfi_backend *b, mfi_mem_kind kind, uint64_t offset, const void *src,
                          uint64_t len, mf_error *err);
mf_status mfi_metal_sync(mfi_backend *b, mf_error *err);
mf_status mfi_metal_send(mfi_metal *m, mf_error *err);
/* A list of the ring that nobody reads any more; *at moves on to it. */
mf_status mfi_metal_take(mfi_metal *m, mfi_metal_list *ring, uint32_t *at, mf_error *err);
/* The list at `at` is read by what is encoded now. */
void mfi_metal_use(mfi_metal *m, mfi_metal_list *ring, uint32_t at);
/* Where a sequence's memory is. */
mfi_metal_ref mfi_metal_state_ref(const mfi_metal *m, const void *at);

static inline mfi_metal_ref mfi_metal_at(const mfi_metal_buf *buf, uint64_t offset)
{
    return (mfi_metal_ref){buf->handle, offset};
}

/* metal_ops.c: encodes one op. */
mf_status mfi_metal_op(mfi_metal *m, const mfi_op *op, const mfi_step *step, mf_error *err);
mfi_metal_ref mfi_metal_row(const mfi_metal *m, uint32_t buf, uint32_t row);

/* metal_experts.c: EXPERTS, and where lists of work are. */
mf_status mfi_metal_experts(mfi_metal *m, const mfi_op *op, const mfi_step *step, mf_error *err);
typedef struct mfi_metal_work {
    mfi_metal_ref items, x_row, pair_of;
} mfi_metal_work;
mfi_metal_work mfi_metal_work_of(mfi_metal *m);
uint64_t mfi_metal_work_bytes(const mfi_program *p);

/* metal_lookup.c: experts that the device looks up itself. */
extern const mfi_lookup_ops mfi_metal_lookup_ops;
mf_status mfi_metal_bind_experts(mfi_backend *b, const uint64_t *slots, mf_error *err);
uint64_t mfi_metal_slots_bytes(const mfi_program *p);
uint64_t mfi_metal_chosen_bytes(const mfi_program *p);
void mfi_metal_slots_clear(mfi_metal *m); /* all nowhere */
mfi_metal_ref mfi_metal_slots_of(const mfi_metal *m, uint32_t layer);
mfi_metal_ref mfi_metal_chosen_of(const mfi_metal *m, uint32_t layer);

/* Whether this op, which is encoded now, works on what the device looks up. */
static inline bool mfi_metal_looks(const mfi_metal *m, const mfi_op *op)
{
    bool router_at_end = op->code == MFI_OP_ROUTE;
    return m->settled || (uint32_t)(op - m->p->ops) + router_at_end < m->look_end;
}

#endif
