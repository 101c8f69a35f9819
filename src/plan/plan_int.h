/* What the files of the plan share. */
#ifndef MFI_PLAN_INT_H
#define MFI_PLAN_INT_H

#include "plan/plan.h"

/* Bytes of a sequence's KV and recurrent state, for all sessions, and of scratch. */
typedef struct mfi_plan_sizes {
    uint64_t kv, state, scratch;
} mfi_plan_sizes;

void mfi_plan_measure(const mfi_model *model, const mfi_program *p, uint32_t ctx,
                      uint32_t n_sessions, mfi_plan_sizes *z);
uint64_t mfi_plan_table_bytes(const mfi_program *p, uint32_t ctx, uint32_t n_slots,
                              uint32_t n_sessions);
uint64_t mfi_plan_process_bytes(const mfi_plan *plan, const mfi_machine *m);

/* Everything but slots, for n_slots of them. */
uint64_t mfi_plan_fixed_bytes(const mfi_plan *plan, const mfi_machine *m, const mfi_program *p,
                              const mfi_plan_sizes *z, uint32_t ctx, uint32_t n_slots);
/* The least that a plan with this context and program takes. */
uint64_t mfi_plan_room_least(const mfi_plan *plan, const mfi_model *model, const mfi_machine *m,
                             const mfi_program *p, uint32_t ctx);

/* Of one checkpoint of a session; 0: nothing is lost by cutting. */
uint64_t mfi_plan_checkpoint_bytes(const mfi_program *p);
/* As many checkpoints a session as were asked for, if they take a small part of what is free. */
void mfi_plan_choose_checkpoints(mfi_plan *plan, const mfi_plan_options *o, uint64_t free_bytes);
/* What readers hold while they read, and what writing holds. */
uint64_t mfi_plan_page_cache_min(const mfi_plan *plan);

/* What a chunk keeps to where none is asked for. */
typedef struct mfi_plan_bound {
    uint32_t auto_max; /* longer gains little */
    uint64_t most_bytes;
    /* Bytes that depend on plan->program, which is new. */
    mf_status (*measure)(mfi_plan *plan, const mfi_model *model, const mfi_machine *m,
                         const mfi_plan_options *o, uint64_t *bytes, mf_error *err);
    const char *why_less; /* for the user */
} mfi_plan_bound;

/* Sets plan->chunk to the one asked for, whose program is there; else to the longest that keeps to
 * the bound, and emits its program in the place of one with the smallest (plan_chunk.c). */
mf_status mfi_plan_longest_chunk(mfi_plan *plan, const mfi_model *model, const mfi_machine *m,
                                 const mfi_plan_options *o, const mfi_plan_bound *bound,
                                 uint32_t n_logit_rows, mf_error *err);
/* The same on the CPU, longer where that saves reads. */
mf_status mfi_plan_choose_chunk(mfi_plan *plan, const mfi_model *model, const mfi_machine *m,
                                const mfi_plan_options *o, uint32_t n_logit_rows, mf_error *err);

/* Everything from the context on, for a device: the budget, threads and the smallest program are
 * there. */
mf_status mfi_plan_for_device(mfi_plan *plan, const mfi_model *model, const mfi_machine *machine,
                              const mfi_plan_options *options, uint32_t n_logit_rows,
                              mf_error *err);

/* The same for a device that computes in the host's memory. */
mf_status mfi_plan_for_unified(mfi_plan *plan, const mfi_model *model, const mfi_machine *machine,
                               const mfi_plan_options *options, uint32_t n_logit_rows,
                               mf_error *err);
/* Bound and reason of the device's memory, and what a device doesn't take of options. */
mf_status mfi_plan_choose_vram(mfi_plan *plan, const mfi_plan_options *options, mf_error *err);

/* Marks the weights that a device can use where they lie in their files, lists the ranges of files
 * that hold them and experts, and lays out the other weights anew (in_place.c). */
mf_status mfi_plan_in_place(mfi_plan *plan, const mfi_model *model, const mfi_plan_device *device,
                            const mfi_in_place *which, mf_error *err);
/* Bytes of the resident weights that could be used in place and aren't. */
uint64_t mfi_plan_movable_bytes(const mfi_plan *plan, const mfi_model *model,
                                const mfi_plan_device *device);

#endif
