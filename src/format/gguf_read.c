/* The bytes of a GGUF header: buffered reads, lengths held against the file, numbers and strings.
 * Used by the readers in format/ on the thread that opens the model. It knows no key. */
#include "format/gguf_read.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

static const struct {
    const char *name;
    uint32_t n_bytes;
} types[MFI_GGUF_N_TYPES] = {
    [MFI_GGUF_UINT8] = {"uint8", 1},     [MFI_GGUF_INT8] = {"int8", 1},
    [MFI_GGUF_UINT16] = {"uint16", 2},   [MFI_GGUF_INT16] = {"int16", 2},
    [MFI_GGUF_UINT32] = {"uint32", 4},   [MFI_GGUF_INT32] = {"int32", 4},
    [MFI_GGUF_FLOAT32] = {"float32", 4}, [MFI_GGUF_BOOL] = {"bool", 1},
    [MFI_GGUF_STRING] = {"string", 0},   [MFI_GGUF_ARRAY] = {"array", 0},
    [MFI_GGUF_UINT64] = {"uint64", 8},   [MFI_GGUF_INT64] = {"int64", 8},
    [MFI_GGUF_FLOAT64] = {"float64", 8},
};

void mfi_gguf_reader_begin(mfi_gguf_reader *r, const mfi_file *file, mf_error *err)
{
    r->file = file;
    r->err = err;
    r->at = r->buf_at = 0;
    r->n_buf = 0;
}

uint32_t mfi_gguf_type_bytes(uint32_t type)
{
    return type < MFI_GGUF_N_TYPES ? types[type].n_bytes : 0;
}

const char *mfi_gguf_type_name(uint32_t type)
{
    return type < MFI_GGUF_N_TYPES ? types[type].name : "?";
}

mf_status mfi_gguf_fail(const mfi_gguf_reader *r, mf_status status, uint64_t at, const char *fmt,
                        ...)
{
    char why[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    return mfi_fail(r->err, status, "%s: offset %" PRIu64 ": %s", r->file->path, at, why);
}

static mf_status ends(const mfi_gguf_reader *r, uint64_t len)
{
    return mfi_gguf_fail(r, MF_ERR_FORMAT, r->at,
                         "%" PRIu64 " bytes are to follow, but the file ends at %" PRIu64, len,
                         r->file->size);
}

mf_status mfi_gguf_take(mfi_gguf_reader *r, void *dst, size_t len)
{
    if (len > mfi_gguf_left(r))
        return ends(r, len);
    char *p = dst;
    while (len > 0) {
        uint64_t in = r->at - r->buf_at; /* large if at lies before the buffer */
        if (in >= r->n_buf) {
            uint64_t n = MFI_MIN(mfi_gguf_left(r), (uint64_t)sizeof r->buf);
            r->n_buf = 0;
            MFI_TRY(mfi_file_read(r->file, r->buf, n, r->at, r->err));
            r->buf_at = r->at;
            r->n_buf = (uint32_t)n;
            in = 0;
        }
        size_t n = MFI_MIN(len, (size_t)(r->n_buf - in));
        memcpy(p, r->buf + in, n);
        p += n;
        len -= n;
        r->at += n;
    }
    return MF_OK;
}

mf_status mfi_gguf_skip(mfi_gguf_reader *r, uint64_t len)
{
    if (len > mfi_gguf_left(r))
        return ends(r, len);
    r->at += len;
    return MF_OK;
}

static uint64_t little(const uint8_t *bytes, uint32_t n)
{
    uint64_t v = 0;
    while (n-- > 0)
        v = v << 8 | bytes[n];
    return v;
}

mf_status mfi_gguf_u32(mfi_gguf_reader *r, uint32_t *v)
{
    uint8_t bytes[4];
    MFI_TRY(mfi_gguf_take(r, bytes, sizeof bytes));
    *v = (uint32_t)little(bytes, sizeof bytes);
    return MF_OK;
}

mf_status mfi_gguf_u64(mfi_gguf_reader *r, uint64_t *v)
{
    uint8_t bytes[8];
    MFI_TRY(mfi_gguf_take(r, bytes, sizeof bytes));
    *v = little(bytes, sizeof bytes);
    return MF_OK;
}

mf_status mfi_gguf_str(mfi_gguf_reader *r, uint64_t max, mfi_buf *out)
{
    uint64_t at = r->at, len;
    MFI_TRY(mfi_gguf_u64(r, &len));
    if (len > mfi_gguf_left(r))
        return mfi_gguf_fail(r, MF_ERR_FORMAT, at,
                             "a string of %" PRIu64
                             " bytes doesn't fit into the file, which ends at %" PRIu64,
                             len, r->file->size);
    if (len > max)
        return mfi_gguf_fail(r, MF_ERR_LIMIT, at,
                             "a string of %" PRIu64 " bytes; at most %" PRIu64 " are accepted", len,
                             max);
    out->len = 0;
    while (len > 0) {
        char piece[4096];
        size_t n = MFI_MIN(len, (uint64_t)sizeof piece);
        MFI_TRY(mfi_gguf_take(r, piece, n));
        mfi_buf_append(out, piece, n);
        len -= n;
    }
    mfi_buf_append(out, "", 0);
    return out->failed ? mfi_gguf_fail(r, MF_ERR_NO_MEMORY, at, "out of memory") : MF_OK;
}

mf_status mfi_gguf_name(mfi_gguf_reader *r, uint64_t max, mfi_buf *out)
{
    uint64_t at = r->at;
    MFI_TRY(mfi_gguf_str(r, max, out));
    if (memchr(out->data, 0, out->len) || mfi_utf8_check(out->data, out->len) != out->len)
        return mfi_gguf_fail(r, MF_ERR_FORMAT, at, "a name that is not UTF-8 text");
    return MF_OK;
}

mf_status mfi_gguf_take_number(mfi_gguf_reader *r, uint32_t type, mfi_gguf_number *v)
{
    uint8_t bytes[8];
    uint32_t n = mfi_gguf_type_bytes(type);
    MFI_ASSERT(n > 0);
    MFI_TRY(mfi_gguf_take(r, bytes, n));
    uint64_t u = little(bytes, n);
    v->type = (mfi_gguf_type)type;
    switch (v->type) {
    case MFI_GGUF_BOOL:
        v->u = u != 0;
        break;
    case MFI_GGUF_INT8:
        v->i = (int8_t)u;
        break;
    case MFI_GGUF_INT16:
        v->i = (int16_t)u;
        break;
    case MFI_GGUF_INT32:
        v->i = (int32_t)u;
        break;
    case MFI_GGUF_INT64:
        v->i = (int64_t)u;
        break;
    case MFI_GGUF_FLOAT32: {
        uint32_t half = (uint32_t)u;
        float f;
        memcpy(&f, &half, sizeof f);
        v->f = (double)f;
        break;
    }
    case MFI_GGUF_FLOAT64:
        memcpy(&v->f, &u, sizeof v->f);
        break;
    default:
        v->u = u;
    }
    return MF_OK;
}
