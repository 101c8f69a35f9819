/* What a model becomes as a pack: its records, the parts that they are made of, and the header.
 * Made from the bound model, so that any readable format is a source; nothing is read yet. */
#ifndef MFI_CONVERT_PACK_PLAN_H
#define MFI_CONVERT_PACK_PLAN_H

#include "format/pack.h"
#include "model/model.h"

/* Rows of a plane of the source, and where they go in the record. */
typedef struct mfi_pp_part {
    uint32_t tensor, plane;
    uint64_t row, n_rows;
    uint64_t at;
} mfi_pp_part;

typedef struct mfi_pp_record {
    mfi_pack_record r;
    const char *name; /* borrowed */
    uint32_t first_part, n_parts;
} mfi_pp_record;

typedef struct mfi_pp {
    const mfi_model *model;
    mfi_pp_record *records;
    uint32_t n_records, cap_records;
    mfi_pp_part *parts;
    uint32_t n_parts, cap_parts;
    struct mfi_pp_place *places; /* [tensors of the catalog] */
    uint64_t at;                 /* end of what is placed */
    uint64_t bytes;              /* of all records */
    uint64_t file_bytes;
} mfi_pp;

/* beside: names of the files in the folder, with their sizes; borrowed. Close the plan also after a
 * failure. */
typedef struct mfi_pp_beside {
    char *name;
    uint64_t bytes;
} mfi_pp_beside;

mf_status mfi_pp_open(mfi_pp *plan, const mfi_model *model, const mfi_pp_beside *beside,
                      uint32_t n_beside, mf_error *err);
void mfi_pp_close(mfi_pp *plan);

/* The header with the records' checksums as they stand in the plan, and its own. */
mf_status mfi_pp_header(const mfi_pp *plan, mfi_buf *out, mf_error *err);

#endif
