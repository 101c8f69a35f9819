/* The files beside the weights: config.json with the quantisation in it, the index of the shards,
 * and what is copied as it is. */
#ifndef MFI_CONVERT_SIDECAR_H
#define MFI_CONVERT_SIDECAR_H

#include "convert/encode.h"

mf_status mfi_cv_write_config(const mfi_cv_plan *plan, const char *in_path, const char *out_path,
                              mf_error *err);
/* Nothing if there is one shard only. */
mf_status mfi_cv_write_index(const mfi_cv_plan *plan, const char *out_path, mf_error *err);
/* Tokenizer, chat template, generation settings, licences, read-me. */
mf_status mfi_cv_copy_files(const char *in_path, const char *out_path,
                            const mfi_cv_buffers *buffers, mf_error *err);

#endif
