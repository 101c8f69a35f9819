/* Safetensors headers; see st_write.h. Called by the converter, on its thread. Knows no model. */
#include "convert/st_write.h"

#include <inttypes.h>

#include "base/json.h"

#define DATA_ALIGN 64 /* of the first tensor; the format asks for 8 */

static mf_status entry_bytes(mfi_st_entry *e, const char *path, mf_error *err)
{
    uint64_t bytes = e->elem_bytes;
    for (uint32_t d = 0; d < e->n_dims; d++)
        if (mfi_mul_overflow(bytes, e->dims[d], &bytes))
            return mfi_fail(err, MF_ERR_LIMIT, "%s: tensor %s: size overflows", path, e->name);
    e->bytes = bytes;
    return MF_OK;
}

static void put_entry(mfi_buf *header, const mfi_st_entry *e)
{
    mfi_buf_str(header, ",");
    mfi_json_put_str(header, e->name, __builtin_strlen(e->name));
    mfi_buf_fmt(header, ":{\"dtype\":\"%s\",\"shape\":[", e->dtype);
    for (uint32_t d = 0; d < e->n_dims; d++)
        mfi_buf_fmt(header, "%s%" PRIu32, d ? "," : "", e->dims[d]);
    mfi_buf_fmt(header, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", e->offset,
                e->offset + e->bytes);
}

/* Sets offsets from the start of the data and appends the header; *total is the end of the data. */
static mf_status layout(const char *path, mfi_st_entry *entries, uint32_t n, mfi_buf *header,
                        uint64_t *total, mf_error *err)
{
    uint64_t at = 0;
    mfi_buf_str(header, "{\"__metadata__\":{\"format\":\"mlx\"}");
    for (uint32_t width = 8; width > 0; width /= 2) {
        for (uint32_t i = 0; i < n; i++) {
            if (entries[i].elem_bytes != width)
                continue;
            MFI_TRY(entry_bytes(&entries[i], path, err));
            entries[i].offset = at;
            if (mfi_add_overflow(at, entries[i].bytes, &at))
                return mfi_fail(err, MF_ERR_LIMIT, "%s: size overflows", path);
            put_entry(header, &entries[i]);
        }
    }
    mfi_buf_str(header, "}");
    while (!header->failed && (8 + header->len) % DATA_ALIGN)
        mfi_buf_str(header, " ");
    if (header->failed)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: no memory for its header", path);
    *total = at;
    return MF_OK;
}

mf_status mfi_st_create(mfi_out *out, const char *path, mfi_st_entry *entries, uint32_t n,
                        mf_error *err)
{
    mfi_buf header = {0};
    uint64_t total = 0;
    mf_status status = layout(path, entries, n, &header, &total, err);
    mfi_out file = {.fd = -1};
    if (status == MF_OK)
        status = mfi_out_create(&file, path, 8 + header.len + total, err);
    if (status == MF_OK) {
        uint8_t size[8];
        for (int i = 0; i < 8; i++)
            size[i] = (uint8_t)((uint64_t)header.len >> (8 * i));
        status = mfi_out_write(&file, size, sizeof size, 0, err);
    }
    if (status == MF_OK)
        status = mfi_out_write(&file, header.data, header.len, 8, err);
    if (status == MF_OK) {
        for (uint32_t i = 0; i < n; i++)
            entries[i].offset += 8 + header.len;
        *out = file;
    } else {
        mfi_out_close(&file);
    }
    mfi_buf_free(&header);
    return status;
}
