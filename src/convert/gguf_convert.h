/* The driver of conversions to GGUF. */
#ifndef MFI_CONVERT_GGUF_CONVERT_H
#define MFI_CONVERT_GGUF_CONVERT_H

#include "base/status.h"

/* options->type is set; the common options are valid. */
mf_status mfi_convert_gguf(const mf_convert_options *options, mf_error *err);

#endif
