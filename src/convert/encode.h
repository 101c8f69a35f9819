/* From a tensor of the input to its place in the output, a block of rows at a time. */
#ifndef MFI_CONVERT_ENCODE_H
#define MFI_CONVERT_ENCODE_H

#include "convert/plan.h"

typedef struct mfi_cv_progress {
    mf_progress_fn fn; /* may be NULL */
    void *user;
    uint64_t done, total, last_ns;
} mfi_cv_progress;

/* Counts `bytes` more; calls back at most five times a second, and at the end. MF_ERR_CANCELLED. */
mf_status mfi_cv_advance(mfi_cv_progress *progress, uint64_t bytes, mf_error *err);

/* Buffers that all tensors of a plan share. */
typedef struct mfi_cv_buffers {
    unsigned char *base;
    uint64_t bytes;
} mfi_cv_buffers;

/* MF_ERR_BUDGET, with the smallest that would do, if memory_bytes can't hold one row of each
 * tensor. */
mf_status mfi_cv_buffers_open(mfi_cv_buffers *buffers, const mfi_cv_plan *plan,
                              uint64_t memory_bytes, mf_error *err);
void mfi_cv_buffers_close(mfi_cv_buffers *buffers);

/* Reads, encodes and writes one tensor into its shard's file. */
mf_status mfi_cv_encode(const mfi_cv_plan *plan, const mfi_cv_tensor *tensor,
                        const mfi_catalog *catalog, const mfi_cv_buffers *buffers, mfi_out *out,
                        mfi_cv_progress *progress, mf_error *err);

#endif
