/* The converter's plan: every tensor that is written, where its rows come from and how it is
 * encoded. Made before a byte is written, so that what can't be converted is refused at once. */
#ifndef MFI_CONVERT_PLAN_H
#define MFI_CONVERT_PLAN_H

#include "convert/names.h"
#include "convert/st_write.h"
#include "format/catalog.h"

typedef enum mfi_cv_op { MFI_CV_OP_COPY, MFI_CV_OP_ADD_ONE, MFI_CV_OP_QUANTISE } mfi_cv_op;

/* Made of n_slices times slice_rows rows of the same length. Slice s lies in tensor source[s] from
 * row 0, or, if there is one source for all, in that from row first_row + s * row_stride. */
typedef struct mfi_cv_tensor {
    char *name; /* QUANTISE: without ".weight" */
    mfi_cv_op op;
    mfi_qtype in, out;
    uint32_t n_dims, dims[MFI_MAX_DIMS];
    uint32_t n_slices, n_sources;
    uint64_t slice_rows, cols, first_row, row_stride;
    uint32_t *sources;                 /* [n_sources] catalog ids */
    uint32_t shard, entry;             /* its planes are entries entry.. of that shard */
    char *plane_names[MFI_MAX_PLANES]; /* as written */
} mfi_cv_tensor;

typedef struct mfi_cv_shard {
    char name[48];
    mfi_st_entry *entries;
    uint32_t n_entries;
    uint64_t bytes;
} mfi_cv_shard;

typedef struct mfi_cv_plan {
    mfi_cv_tensor *tensors;
    uint32_t n_tensors, cap_tensors;
    mfi_cv_shard *shards;
    uint32_t n_shards;
    uint32_t bits, dense_bits, group;
    uint64_t in_bytes; /* that will be read */
} mfi_cv_plan;

/* bits, dense_bits and group are valid. Close the plan also after a failure. */
mf_status mfi_cv_plan_open(mfi_cv_plan *plan, const mfi_catalog *catalog, uint32_t bits,
                           uint32_t dense_bits, uint32_t group, uint64_t shard_bytes,
                           mf_error *err);
void mfi_cv_plan_close(mfi_cv_plan *plan);

#endif
