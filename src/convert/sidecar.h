/* The files beside the weights: config.json with the quantisation in it, the index of the shards,
 * and what is copied as it is. */
#ifndef MFI_CONVERT_SIDECAR_H
#define MFI_CONVERT_SIDECAR_H

#include "convert/mlx_plan.h"

/* From the input's config.json or, if it is GGUF, from its metadata. */
mf_status mfi_cv_write_config(const mfi_mp *plan, const mfi_model *model, const char *in_path,
                              const char *out_path, mf_error *err);
/* Nothing if there is one shard only. */
mf_status mfi_cv_write_index(const mfi_mp *plan, const char *out_path, mf_error *err);
/* Tokenizer, chat template, generation settings, licences, read-me. */
mf_status mfi_cv_copy_files(const char *in_path, const char *out_path, mf_error *err);
/* One of them, whatever its name. */
mf_status mfi_cv_copy_file(const char *in_path, const char *out_path, const char *name,
                           mf_error *err);
/* Writes one small file. */
mf_status mfi_cv_write_text(const mfi_buf *text, const char *dir, const char *name, mf_error *err);

#endif
