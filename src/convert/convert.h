/* The converter's driver; mf_convert of the public header with what only tests vary. */
#ifndef MFI_CONVERT_CONVERT_H
#define MFI_CONVERT_CONVERT_H

#include "base/status.h"

#define MFI_CV_SHARD_BYTES MFI_GIB

mf_status mfi_convert(const mf_convert_options *options, uint64_t shard_bytes, mf_error *err);

#endif
