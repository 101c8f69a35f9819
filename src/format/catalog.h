/* The catalog: what a model's files hold, in one neutral form for every format.
 *
 * It knows bytes, not experts: logical tensors with an element type, dimensions (outermost first,
 * as Hugging Face writes them) and 1 to 3 planes, each a byte range of one file. A byte range for
 * any leading index follows by arithmetic, since the planes are row-major (in packs with a stride
 * between slices). Every range was checked
 * against its file's size at open. Immutable after open; any thread may read. */
#ifndef MFI_FORMAT_CATALOG_H
#define MFI_FORMAT_CATALOG_H

#include "base/json.h"
#include "os/file.h"
#include "quant/quant.h"
#include "base/limits.h"

typedef struct mfi_extent {
    uint32_t file; /* index into the catalog's files */
    uint64_t offset, len;
} mfi_extent;

typedef struct mfi_tensor {
    uint64_t offset[MFI_MAX_PLANES]; /* from the start of the file */
    uint64_t stride; /* bytes from a slice of the first dimension to the next, in every plane; 0:
                        they follow each other */
    uint32_t dims[MFI_MAX_DIMS]; /* elements, also where the file counts packed words */
    uint32_t name;               /* offset into the name pool: mfi_catalog_name */
    uint16_t file[MFI_MAX_PLANES];
    mfi_qtype type;
    uint8_t n_dims;
} mfi_tensor;

typedef struct mfi_catalog mfi_catalog;

#define MFI_TENSOR_NONE UINT32_MAX

void mfi_catalog_close(mfi_catalog **catalog);

uint32_t mfi_catalog_n_tensors(const mfi_catalog *catalog);
const mfi_tensor *mfi_catalog_tensor(const mfi_catalog *catalog, uint32_t id);
const char *mfi_catalog_name(const mfi_catalog *catalog, uint32_t id);
/* MFI_TENSOR_NONE if there is none of that name. */
uint32_t mfi_catalog_find(const mfi_catalog *catalog, const char *name);

uint32_t mfi_catalog_n_files(const mfi_catalog *catalog);
const mfi_file *mfi_catalog_file(const mfi_catalog *catalog, uint32_t file);
const char *mfi_catalog_path(const mfi_catalog *catalog);       /* as given to open */
const mfi_json *mfi_catalog_config(const mfi_catalog *catalog); /* config.json's root; NULL: GGUF */
/* GGUF metadata as one object of key -> value; arrays of more than 4096 elements stand for
 * themselves as {"type", "count"} only. NULL: not GGUF. */
const mfi_json *mfi_catalog_meta(const mfi_catalog *catalog);

/* An array of GGUF metadata where it lies in the catalog's first file; meta_array.h reads it. */
typedef struct mfi_meta_array {
    uint32_t type;   /* of the elements: mfi_gguf_type (gguf_read.h) */
    uint64_t n;      /* elements */
    uint64_t offset; /* of the first */
} mfi_meta_array;

/* False if there is no array of that key. */
bool mfi_catalog_meta_array(const mfi_catalog *catalog, const char *key, mfi_meta_array *array);

/* Rows below the leading index: for dims [E, r, c] and n_lead 1 a slice has r rows of c elements;
 * for n_lead 0 it is the whole tensor. Rows are counted over all dims but the last. */
uint64_t mfi_tensor_rows(const mfi_tensor *tensor);
uint64_t mfi_tensor_cols(const mfi_tensor *tensor);
uint64_t mfi_tensor_bytes(const mfi_tensor *tensor, uint32_t plane);

/* From the first byte of a plane to its last: more than its bytes where slices lie apart. */
uint64_t mfi_tensor_span(const mfi_tensor *tensor, uint32_t plane);
/* Rows from `row` on that lie together: to the end of the tensor, or of the slice. */
uint64_t mfi_tensor_run(const mfi_tensor *tensor, uint64_t row);

/* The bytes of rows [row, row + n_rows) of a plane (rows as mfi_tensor_rows counts them). Asserts
 * that they lie inside the tensor, and together. */
mfi_extent mfi_tensor_extent(const mfi_tensor *tensor, uint32_t plane, uint64_t row,
                             uint64_t n_rows);

#endif
