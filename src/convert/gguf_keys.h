/* The metadata of a GGUF file: what the model is, and its tokenizer. */
#ifndef MFI_CONVERT_GGUF_KEYS_H
#define MFI_CONVERT_GGUF_KEYS_H

#include "convert/gguf_plan.h"

/* general.* and the architecture's sizes. */
mf_status mfi_gk_model(mfi_gguf_out *out, const mfi_model *model, const mfi_gp_target *target,
                       mf_error *err);
/* tokenizer.*, from the tokenizer's files beside the weights (gguf_vocab.c). Without any the file
 * says that it has none. */
mf_status mfi_gk_vocab(mfi_gguf_out *out, const mfi_model *model, mf_error *err);

#endif
