/* The pack: a model with one aligned record an expert, in a folder. docs/formats.md has the layout.
 *
 *   model.mfpack                weights: a header, the experts' records, what is resident
 *   config.json, or             as in the source; the latter is a GGUF file without tensors, and
 *   metadata.gguf               called metadata-00001-of-0000N.gguf where the source was split
 *   tokenizer.json, ...         what else stood beside the weights
 *
 * Reading fills the catalog as any other format does; the writer and the check of the contents are
 * convert's. */
#ifndef MFI_FORMAT_PACK_H
#define MFI_FORMAT_PACK_H

#include "format/gguf_read.h"

#define MFI_PACK_FILE    "model.mfpack"
#define MFI_PACK_MAGIC   "MFPACK\r\n"
#define MFI_PACK_VERSION 1
#define MFI_PACK_ALIGN   4096 /* of records, of large resident planes, and of the file's end */

/* Places in the header. */
enum {
    MFI_PACK_AT_VERSION = 8,
    MFI_PACK_AT_TENSORS = 12,
    MFI_PACK_AT_RECORDS = 16,
    MFI_PACK_AT_RESERVED = 20,
    MFI_PACK_AT_FILE_BYTES = 24,
    MFI_PACK_AT_HEADER_BYTES = 32,
    MFI_PACK_AT_RECORDS_OFFSET = 40,
    MFI_PACK_AT_CHECKSUM = 48,
    MFI_PACK_FIXED_BYTES = 56
};

/* The fixed part of the header. */
typedef struct mfi_pack_head {
    uint32_t n_tensors, n_records;
    uint64_t header_bytes, records_offset;
} mfi_pack_head;

typedef enum mfi_pack_kind {
    MFI_PACK_EXPERT, /* of layer and expert; no name */
    MFI_PACK_PLANE,  /* of the resident tensor `name`; `layer` is the plane */
    MFI_PACK_BESIDE, /* a file in the folder; its offset is 0 */
    MFI_PACK_N_KINDS
} mfi_pack_kind;

/* What has a checksum of its own. */
typedef struct mfi_pack_record {
    uint32_t kind, layer, expert;
    uint64_t offset, bytes, checksum;
} mfi_pack_record;

/* Reads the fixed part and holds all of the header against its checksum; r stands at the first
 * tensor then. MF_ERR_UNSUPPORTED: another version. MF_ERR_FORMAT: no pack, or its header is
 * damaged. MF_ERR_TENSOR_BOUNDS: cut off behind it. */
mf_status mfi_pack_read_head(mfi_gguf_reader *r, mfi_pack_head *head);
/* The next record; *name is empty for experts. */
mf_status mfi_pack_read_record(mfi_gguf_reader *r, mfi_pack_record *record, mfi_buf *name);

#endif
