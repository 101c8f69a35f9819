/* Writing safetensors: the header is planned first, then each tensor's bytes go to their place in
 * any order. */
#ifndef MFI_CONVERT_ST_WRITE_H
#define MFI_CONVERT_ST_WRITE_H

#include "base/limits.h"
#include "os/out.h"

typedef struct mfi_st_entry {
    const char *name;
    const char *dtype;   /* "U32", "BF16", ...; must outlive the call only */
    uint32_t elem_bytes; /* 1, 2, 4 or 8 */
    uint32_t n_dims;
    uint32_t dims[MFI_MAX_DIMS];
    uint64_t offset; /* from the start of the file: set by mfi_st_create */
    uint64_t bytes;  /* set by mfi_st_create */
} mfi_st_entry;

/* Creates the file, writes its header, reserves its space, and sets where each tensor's bytes go:
 * the wider elements first, so that all are aligned to their size without holes, which the format
 * forbids. Data is then written with mfi_out_write at entry.offset. */
mf_status mfi_st_create(mfi_out *out, const char *path, mfi_st_entry *entries, uint32_t n,
                        mf_error *err);

#endif
