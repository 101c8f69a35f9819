/* From the model's tensors to a GGUF file's, a block of rows at a time. */
#ifndef MFI_CONVERT_GGUF_ENCODE_H
#define MFI_CONVERT_GGUF_ENCODE_H

#include "base/pool.h"
#include "convert/encode.h" /* mfi_cv_progress */
#include "convert/gguf_plan.h"
#include "convert/imatrix_file.h"

typedef struct mfi_ge mfi_ge;

/* Buffers for all tensors of a plan. MF_ERR_BUDGET, with the smallest that would do, if
 * memory_bytes can't hold one row of each. imatrix may be NULL. */
mf_status mfi_ge_open(mfi_ge **encoder, const mfi_gp *plan, const mfi_model *model, mfi_pool *pool,
                      const mfi_im_file *imatrix, uint64_t memory_bytes, mf_error *err);
void mfi_ge_close(mfi_ge **encoder);

/* Reads, encodes and writes one tensor to its place in the file. */
mf_status mfi_ge_tensor(mfi_ge *encoder, const mfi_gp_tensor *t, mfi_gguf_out *out, uint64_t offset,
                        mfi_cv_progress *progress, mf_error *err);

#endif
