/* From the model's tensors to those of a file that is written, a block of rows at a time. */
#ifndef MFI_CONVERT_ENCODE_H
#define MFI_CONVERT_ENCODE_H

#include "base/pool.h"
#include "convert/gguf_plan.h"
#include "convert/imatrix_file.h"
#include "os/out.h"

typedef struct mfi_cv_progress {
    mf_progress_fn fn; /* may be NULL */
    void *user;
    uint64_t done, total, last_ns;
    const char *what; /* NULL: "converting" */
} mfi_cv_progress;

/* Counts `bytes` more; calls back at most five times a second, and at the end. MF_ERR_CANCELLED. */
mf_status mfi_cv_advance(mfi_cv_progress *progress, uint64_t bytes, mf_error *err);

/* Workers to convert with: n_threads, or as many as the machine has processors for us. */
mf_status mfi_cv_pool_open(mfi_pool **pool, uint32_t n_threads, mf_error *err);

typedef struct mfi_cv_encoder mfi_cv_encoder;

/* Buffers for all tensors of a plan. MF_ERR_BUDGET, with the smallest that would do, if
 * memory_bytes can't hold one row of each. imatrix may be NULL. */
mf_status mfi_cv_encoder_open(mfi_cv_encoder **encoder, const mfi_gp *plan, const mfi_model *model,
                              mfi_pool *pool, const mfi_im_file *imatrix, uint64_t memory_bytes,
                              mf_error *err);
void mfi_cv_encoder_close(mfi_cv_encoder **encoder);

/* Reads, encodes and writes one tensor; plane k goes to offsets[k] of the file. */
mf_status mfi_cv_encode(mfi_cv_encoder *encoder, const mfi_gp_tensor *t, mfi_out *out,
                        const uint64_t offsets[MFI_MAX_PLANES], mfi_cv_progress *progress,
                        mf_error *err);

#endif
