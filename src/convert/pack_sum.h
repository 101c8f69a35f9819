/* Reading back what a pack holds. */
#ifndef MFI_CONVERT_PACK_SUM_H
#define MFI_CONVERT_PACK_SUM_H

#include "base/checksum.h"
#include "convert/encode.h"
#include "os/file.h"

#define MFI_PS_PIECE_BYTES ((uint64_t)4 << 20)

/* The checksum of bytes [offset, offset + bytes) of a file; `piece` has MFI_PS_PIECE_BYTES. */
mf_status mfi_ps_sum(mfi_checksum *sum, const mfi_file *file, uint64_t offset, uint64_t bytes,
                     void *piece, mfi_cv_progress *progress, uint64_t *value, mf_error *err);

#endif
