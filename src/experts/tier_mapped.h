/* The files' mapping as the tier below a device, as a reader: where a device can copy from ranges
 * of it, an expert's parts are copied from where they lie, and the drive is the system's affair. */
#ifndef MFI_EXPERTS_TIER_MAPPED_H
#define MFI_EXPERTS_TIER_MAPPED_H

#include "experts/tier.h"

/* Bytes [offset, offset + len) of a file lie at `at`. */
typedef struct mfi_mapped_range {
    uint32_t file;
    uint64_t offset, len;
    const char *at;
} mfi_mapped_range;

/* ranges[n], by file and offset, and the mover are borrowed and must outlive it. A read outside of
 * them fails with MF_ERR_TENSOR_BOUNDS. */
mf_status mfi_tier_mapped_open(mfi_io **io, const mfi_mapped_range *ranges, uint32_t n,
                               const mfi_mover *mover, mf_error *err);

#endif
