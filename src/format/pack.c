/* Reads a pack's header into the catalog; see pack.h. Called at open, and by who checks a pack's
 * contents; reads no tensor data. Every range is checked here, once, against the file. */
#include "format/pack.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "format/catalog_build.h"

/* Numbers in files. */
_Static_assert(MFI_Q_F32 == 1 && MFI_Q_F16 == 2 && MFI_Q_BF16 == 3 && MFI_Q_MLX == 4 &&
                   MFI_Q_GGML == 5 && MFI_Q_FP8 == 6 && MFI_Q_MXFP4 == 7 && MFI_Q_OTHER == 8,
               "packs hold these");

#define TENSOR_BYTES_MIN 29 /* name of one byte, type, dimensions, stride, one offset */
#define RECORD_BYTES_MIN 44

/* ---- the fixed part ---- */

static mf_status check_sum(mfi_gguf_reader *r, uint64_t header_bytes, uint64_t want)
{
    mfi_checksum *sum = mfi_checksum_open();
    if (!sum)
        return mfi_gguf_fail(r, MF_ERR_NO_MEMORY, 0, "out of memory");
    mf_status status = MF_OK;
    const uint64_t parts[2][2] = {{0, MFI_PACK_AT_CHECKSUM}, {MFI_PACK_FIXED_BYTES, header_bytes}};
    uint8_t piece[4096];
    for (int i = 0; i < 2; i++) {
        r->at = parts[i][0];
        while (status == MF_OK && r->at < parts[i][1]) {
            size_t n = (size_t)MFI_MIN(parts[i][1] - r->at, (uint64_t)sizeof piece);
            status = mfi_gguf_take(r, piece, n);
            if (status == MF_OK)
                mfi_checksum_add(sum, piece, n);
        }
    }
    uint64_t got = mfi_checksum_value(sum);
    mfi_checksum_close(&sum);
    if (status == MF_OK && got != want)
        status =
            mfi_gguf_fail(r, MF_ERR_FORMAT, MFI_PACK_AT_CHECKSUM,
                          "the header's %" PRIu64
                          " bytes are damaged: their checksum is %016" PRIx64 ", not %016" PRIx64,
                          header_bytes, got, want);
    r->at = MFI_PACK_FIXED_BYTES;
    return status;
}

mf_status mfi_pack_read_head(mfi_gguf_reader *r, mfi_pack_head *head)
{
    char magic[8];
    uint32_t version, reserved;
    uint64_t file_bytes, checksum;
    MFI_TRY(mfi_gguf_take(r, magic, sizeof magic));
    if (memcmp(magic, MFI_PACK_MAGIC, sizeof magic) != 0)
        return mfi_gguf_fail(r, MF_ERR_FORMAT, 0, "not a pack: it doesn't begin with \"MFPACK\"");
    MFI_TRY(mfi_gguf_u32(r, &version));
    if (version != MFI_PACK_VERSION)
        return mfi_gguf_fail(r, MF_ERR_UNSUPPORTED, MFI_PACK_AT_VERSION,
                             "a pack of version %" PRIu32 "; %d is supported: pack the model anew",
                             version, MFI_PACK_VERSION);
    MFI_TRY(mfi_gguf_u32(r, &head->n_tensors));
    MFI_TRY(mfi_gguf_u32(r, &head->n_records));
    MFI_TRY(mfi_gguf_u32(r, &reserved));
    MFI_TRY(mfi_gguf_u64(r, &file_bytes));
    MFI_TRY(mfi_gguf_u64(r, &head->header_bytes));
    MFI_TRY(mfi_gguf_u64(r, &head->records_offset));
    MFI_TRY(mfi_gguf_u64(r, &checksum));
    uint64_t size = r->file->size;
    if (head->header_bytes < MFI_PACK_FIXED_BYTES ||
        head->header_bytes > MFI_MAX_PACK_HEADER_BYTES || head->header_bytes > size)
        return mfi_gguf_fail(r, MF_ERR_FORMAT, MFI_PACK_AT_HEADER_BYTES,
                             "a header of %" PRIu64 " bytes in a file of %" PRIu64,
                             head->header_bytes, size);
    MFI_TRY(check_sum(r, head->header_bytes, checksum));
    if (file_bytes != size)
        return mfi_gguf_fail(r, MF_ERR_TENSOR_BOUNDS, MFI_PACK_AT_FILE_BYTES,
                             "the file should have %" PRIu64 " bytes and has %" PRIu64, file_bytes,
                             size);
    uint64_t tensors = head->records_offset - MFI_PACK_FIXED_BYTES;
    if (head->records_offset < MFI_PACK_FIXED_BYTES || head->records_offset > head->header_bytes ||
        head->n_tensors > tensors / TENSOR_BYTES_MIN ||
        head->n_records > (head->header_bytes - head->records_offset) / RECORD_BYTES_MIN)
        return mfi_gguf_fail(r, MF_ERR_FORMAT, MFI_PACK_AT_TENSORS,
                             "%" PRIu32 " tensors and %" PRIu32
                             " records don't fit into the header of %" PRIu64 " bytes",
                             head->n_tensors, head->n_records, head->header_bytes);
    if (head->n_tensors > MFI_MAX_TENSORS)
        return mfi_gguf_fail(r, MF_ERR_LIMIT, MFI_PACK_AT_TENSORS,
                             "%" PRIu32 " tensors; at most %u are accepted", head->n_tensors,
                             MFI_MAX_TENSORS);
    return MF_OK;
}

mf_status mfi_pack_read_record(mfi_gguf_reader *r, mfi_pack_record *record, mfi_buf *name)
{
    uint64_t at = r->at;
    MFI_TRY(mfi_gguf_u32(r, &record->kind));
    MFI_TRY(mfi_gguf_u32(r, &record->layer));
    MFI_TRY(mfi_gguf_u32(r, &record->expert));
    MFI_TRY(mfi_gguf_u64(r, &record->offset));
    MFI_TRY(mfi_gguf_u64(r, &record->bytes));
    MFI_TRY(mfi_gguf_u64(r, &record->checksum));
    MFI_TRY(mfi_gguf_name(r, MFI_MAX_PACK_NAME_BYTES, name));
    if (record->kind >= MFI_PACK_N_KINDS)
        return mfi_gguf_fail(r, MF_ERR_FORMAT, at, "a record of unknown kind %" PRIu32,
                             record->kind);
    uint64_t size = r->file->size;
    if (record->kind != MFI_PACK_BESIDE &&
        (record->offset > size || record->bytes > size - record->offset))
        return mfi_gguf_fail(r, MF_ERR_TENSOR_BOUNDS, at,
                             "a record of %" PRIu64 " bytes at offset %" PRIu64
                             " lies outside the file of %" PRIu64 " bytes",
                             record->bytes, record->offset, size);
    return MF_OK;
}

/* ---- tensors ---- */

static bool float_kind(uint8_t kind)
{
    return kind == MFI_Q_F32 || kind == MFI_Q_F16 || kind == MFI_Q_BF16;
}

/* Whether a reader can have made this type. */
static bool type_ok(mfi_qtype t)
{
    uint32_t n, bytes;
    switch (t.kind) {
    case MFI_Q_F32:
    case MFI_Q_F16:
    case MFI_Q_BF16:
        return mfi_qtype_equal(t, mfi_qtype_float((mfi_qkind)t.kind));
    case MFI_Q_MLX:
        return t.bits >= 2 && t.bits <= 8 && t.bits != 7 && float_kind(t.scale) &&
               (t.group == 32 || t.group == 64 || t.group == 128);
    case MFI_Q_GGML:
        return mfi_ggml_block(t.bits, &n, &bytes) && !t.scale && !t.group;
    case MFI_Q_FP8:
        return t.bits == 8 && float_kind(t.scale) && !t.group;
    case MFI_Q_MXFP4:
        return t.bits == 4 && !t.scale && !t.group;
    case MFI_Q_OTHER:
        return (t.bits == 4 || t.bits == 6 || (t.bits && t.bits % 8 == 0 && t.bits <= 64)) &&
               !t.scale && !t.group;
    default:
        return false;
    }
}

static mf_status read_shape(mfi_gguf_reader *r, const char *name, mfi_tensor *t)
{
    uint64_t at = r->at, volume = 1;
    uint32_t type, n_dims;
    MFI_TRY(mfi_gguf_u32(r, &type));
    MFI_TRY(mfi_gguf_u32(r, &n_dims));
    t->type = (mfi_qtype){(uint8_t)type, (uint8_t)(type >> 8), (uint8_t)(type >> 16),
                          (uint8_t)(type >> 24)};
    if (!type_ok(t->type))
        return mfi_gguf_fail(r, MF_ERR_FORMAT, at, "tensor %.200s: unknown element type %08" PRIx32,
                             name, type);
    if (n_dims > MFI_MAX_DIMS)
        return mfi_gguf_fail(r, MF_ERR_FORMAT, at,
                             "tensor %.200s: %" PRIu32 " dimensions; at most %d are accepted", name,
                             n_dims, MFI_MAX_DIMS);
    t->n_dims = (uint8_t)n_dims;
    for (uint32_t i = 0; i < n_dims; i++) {
        MFI_TRY(mfi_gguf_u32(r, &t->dims[i]));
        if (t->dims[i] > MFI_MAX_DIM ||
            (t->dims[i] > 0 && mfi_mul_overflow(volume, (uint64_t)t->dims[i], &volume)) ||
            volume > UINT64_MAX / 64)
            return mfi_gguf_fail(r, MF_ERR_FORMAT, at, "tensor %.200s: its dimensions overflow",
                                 name);
    }
    if (!mfi_quant_cols_ok(t->type, mfi_tensor_cols(t)))
        return mfi_gguf_fail(r, MF_ERR_FORMAT, at,
                             "tensor %.200s: rows of %" PRIu64 " elements are not whole", name,
                             mfi_tensor_cols(t));
    return MF_OK;
}

/* Bytes from the first of a plane to its last; false if that overflows. */
static bool span_ok(const mfi_tensor *t, uint32_t plane, uint64_t *span)
{
    uint64_t slices = t->dims[0], apart;
    *span = mfi_tensor_bytes(t, plane);
    if (!t->stride)
        return true;
    uint64_t per = mfi_quant_rows_per_row(t->type, plane), rows = mfi_tensor_rows(t) / slices;
    uint64_t slice = mfi_quant_plane_bytes(t->type, plane, rows, mfi_tensor_cols(t));
    return rows % per == 0 && t->stride >= slice &&
           !mfi_mul_overflow(slices - 1, t->stride, &apart) &&
           !mfi_add_overflow(apart, slice, span);
}

static mf_status read_tensor(mfi_gguf_reader *r, mfi_catalog *catalog, uint32_t file, mfi_buf *name)
{
    mfi_tensor t = {.file = {(uint16_t)file, (uint16_t)file, (uint16_t)file}};
    MFI_TRY(mfi_gguf_name(r, MFI_MAX_PACK_NAME_BYTES, name));
    MFI_TRY(read_shape(r, name->data, &t));
    uint64_t at = r->at, span, size = r->file->size;
    MFI_TRY(mfi_gguf_u64(r, &t.stride));
    if (t.stride && (t.n_dims < 2 || mfi_tensor_rows(&t) == 0))
        return mfi_gguf_fail(r, MF_ERR_FORMAT, at, "tensor %.200s: no slices to be apart",
                             name->data);
    for (uint32_t p = 0; p < mfi_quant_n_planes(t.type); p++) {
        at = r->at;
        MFI_TRY(mfi_gguf_u64(r, &t.offset[p]));
        if (!span_ok(&t, p, &span))
            return mfi_gguf_fail(r, MF_ERR_FORMAT, at,
                                 "tensor %.200s: slices %" PRIu64 " bytes apart", name->data,
                                 t.stride);
        if (span > 0 && (t.offset[p] > size || span > size - t.offset[p]))
            return mfi_gguf_fail(r, MF_ERR_TENSOR_BOUNDS, at,
                                 "tensor %.200s: %" PRIu64 " bytes at offset %" PRIu64
                                 " lie outside the file of %" PRIu64 " bytes",
                                 name->data, span, t.offset[p], size);
        t.offset[p] = MFI_MIN(t.offset[p], size);
    }
    return mfi_catalog_add(catalog, &t, MFI_DTYPE_OTHER, name->data, name->len, r->err);
}

static mf_status read_header(mfi_gguf_reader *r, mfi_catalog *catalog, uint32_t file)
{
    mfi_pack_head head;
    mfi_buf name = {0};
    mf_status status = mfi_pack_read_head(r, &head);
    for (uint32_t i = 0; i < head.n_tensors && status == MF_OK; i++)
        status = read_tensor(r, catalog, file, &name);
    mfi_buf_free(&name);
    if (status == MF_OK && r->at != head.records_offset)
        status =
            mfi_gguf_fail(r, MF_ERR_FORMAT, r->at, "the records should begin here, not at %" PRIu64,
                          head.records_offset);
    return status;
}

mf_status mfi_pack_add(mfi_catalog *catalog, const char *path, mf_error *err)
{
    uint32_t file;
    MFI_TRY(mfi_catalog_add_file(catalog, path, &file, err));
    mfi_gguf_reader *r = malloc(sizeof *r);
    if (!r)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    mfi_gguf_reader_begin(r, mfi_catalog_file(catalog, file), err);
    mf_status status = read_header(r, catalog, file);
    free(r);
    return status;
}
