/* GGUF files; see gguf_write.h. Called by whoever makes one (converter, importance matrix,
 * synthetic models), on one thread. Metadata goes through one small buffer, so that a vocabulary of
 * any size costs no memory here. Knows no keys and no tensor names. */
#include "convert/gguf_write.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER_BYTES  (64 * MFI_KIB)
#define VERSION       3
#define HEADER_BYTES  24 /* magic, version, number of tensors, number of keys */
#define STAGED_NAME   "gguf"
#define KEY_BYTES_MAX 65535

int mfi_gguf_type_number(mfi_qtype type)
{
    switch (type.kind) {
    case MFI_Q_F32:
        return 0;
    case MFI_Q_F16:
        return 1;
    case MFI_Q_BF16:
        return 30;
    case MFI_Q_GGML:
        return type.bits;
    default:
        return -1;
    }
}

mf_status mfi_gguf_create(mfi_gguf_out *g, const char *path, mf_error *err)
{
    *g = (mfi_gguf_out){.out.fd = -1, .at = HEADER_BYTES};
    g->buffer = malloc(BUFFER_BYTES);
    if (!g->buffer)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: no memory for a buffer", path);
    mf_status status = mfi_stage_open(&g->stage, path, err);
    char *staged = status == MF_OK ? mfi_path_join(g->stage.dir, STAGED_NAME) : NULL;
    if (status == MF_OK && !staged)
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    if (status == MF_OK)
        status = mfi_out_create(&g->out, staged, 0, err);
    free(staged);
    if (status != MF_OK)
        mfi_gguf_close(g);
    return status;
}

void mfi_gguf_close(mfi_gguf_out *g)
{
    mfi_out_close(&g->out);
    mfi_stage_close(&g->stage);
    free(g->buffer);
    *g = (mfi_gguf_out){.out.fd = -1};
}

/* ---- bytes ---- */

static void flush(mfi_gguf_out *g)
{
    if (g->status == MF_OK && g->n_buffered)
        g->status =
            mfi_out_write(&g->out, g->buffer, g->n_buffered, g->at - g->n_buffered, &g->error);
    g->n_buffered = 0;
}

static void put(mfi_gguf_out *g, const void *bytes, size_t len)
{
    const unsigned char *p = bytes;
    while (len > 0 && g->status == MF_OK) {
        size_t n = MFI_MIN(len, BUFFER_BYTES - g->n_buffered);
        memcpy(g->buffer + g->n_buffered, p, n);
        g->n_buffered += n;
        g->at += n;
        p += n;
        len -= n;
        if (g->n_buffered == BUFFER_BYTES)
            flush(g);
    }
}

/* Little-endian, `width` bytes. */
static void put_int(mfi_gguf_out *g, uint64_t value, uint32_t width)
{
    unsigned char bytes[8];
    for (uint32_t i = 0; i < width; i++)
        bytes[i] = (unsigned char)(value >> (8 * i));
    put(g, bytes, width);
}

static void put_float(mfi_gguf_out *g, float value)
{
    uint32_t u;
    memcpy(&u, &value, sizeof u);
    put_int(g, u, 4);
}

static void put_string(mfi_gguf_out *g, const char *bytes, size_t len)
{
    put_int(g, len, 8);
    put(g, bytes, len);
}

/* ---- metadata ---- */

static void put_key(mfi_gguf_out *g, const char *key, mfi_gguf_type kind)
{
    size_t len = strlen(key);
    MFI_ASSERT(g->n_left == 0 && len > 0 && len <= KEY_BYTES_MAX);
    g->n_keys++;
    put_string(g, key, len);
    put_int(g, kind, 4);
}

void mfi_gguf_key_u32(mfi_gguf_out *g, const char *key, uint32_t value)
{
    put_key(g, key, MFI_GGUF_UINT32);
    put_int(g, value, 4);
}

void mfi_gguf_key_f32(mfi_gguf_out *g, const char *key, float value)
{
    put_key(g, key, MFI_GGUF_FLOAT32);
    put_float(g, value);
}

void mfi_gguf_key_bool(mfi_gguf_out *g, const char *key, bool value)
{
    put_key(g, key, MFI_GGUF_BOOL);
    put_int(g, value, 1);
}

void mfi_gguf_key_str(mfi_gguf_out *g, const char *key, const char *value)
{
    mfi_gguf_key_strn(g, key, value, strlen(value));
}

void mfi_gguf_key_strn(mfi_gguf_out *g, const char *key, const char *value, size_t len)
{
    put_key(g, key, MFI_GGUF_STRING);
    put_string(g, value, len);
}

void mfi_gguf_array(mfi_gguf_out *g, const char *key, mfi_gguf_type element, uint64_t n)
{
    put_key(g, key, MFI_GGUF_ARRAY);
    put_int(g, element, 4);
    put_int(g, n, 8);
    g->element = element;
    g->n_left = n;
}

static void take(mfi_gguf_out *g, mfi_gguf_type kind)
{
    MFI_ASSERT(g->n_left > 0 && g->element == kind);
    g->n_left--;
}

void mfi_gguf_put_u32(mfi_gguf_out *g, uint32_t value)
{
    take(g, MFI_GGUF_UINT32);
    put_int(g, value, 4);
}

void mfi_gguf_put_i32(mfi_gguf_out *g, int32_t value)
{
    take(g, MFI_GGUF_INT32);
    put_int(g, (uint32_t)value, 4);
}

void mfi_gguf_put_f32(mfi_gguf_out *g, float value)
{
    take(g, MFI_GGUF_FLOAT32);
    put_float(g, value);
}

void mfi_gguf_put_str(mfi_gguf_out *g, const char *bytes, size_t len)
{
    take(g, MFI_GGUF_STRING);
    put_string(g, bytes, len);
}

mf_status mfi_gguf_key_copy(mfi_gguf_out *g, const char *key, mfi_gguf_type type,
                            const mfi_file *file, uint64_t offset, uint64_t len, mf_error *err)
{
    char piece[4096];
    put_key(g, key, type);
    for (uint64_t n; len > 0; len -= n, offset += n) {
        n = MFI_MIN(len, sizeof piece);
        MFI_TRY(mfi_file_read(file, piece, n, offset, err));
        put(g, piece, n);
    }
    return MF_OK;
}

/* ---- tensors ---- */

static mf_status measure(const mfi_gguf_out *g, mfi_gguf_tensor *t, mf_error *err)
{
    const char *path = g->stage.final;
    int number = mfi_gguf_type_number(t->type);
    size_t len = strlen(t->name);
    MFI_ASSERT(t->n_dims >= 1 && t->n_dims <= MFI_MAX_DIMS);
    if (number < 0)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: tensor %.200s: GGUF has no such type", path,
                        t->name);
    if (len == 0 || len > MFI_GGUF_NAME_BYTES_MAX)
        return mfi_fail(err, MF_ERR_LIMIT, "%s: tensor %.200s: a name has 1 to %d bytes", path,
                        t->name, MFI_GGUF_NAME_BYTES_MAX);
    uint64_t rows = 1, cols = t->dims[t->n_dims - 1];
    bool overflow = false;
    for (uint32_t d = 0; d + 1 < t->n_dims; d++)
        overflow |= mfi_mul_overflow(rows, t->dims[d], &rows);
    if (!mfi_quant_cols_ok(t->type, cols))
        return mfi_fail(err, MF_ERR_TENSOR_SHAPE,
                        "%s: tensor %s: rows of %" PRIu64 " elements are not whole blocks", path,
                        t->name, cols);
    if (overflow || mfi_mul_overflow(rows, mfi_quant_row_bytes(t->type, 0, cols), &t->bytes) ||
        t->bytes > INT64_MAX)
        return mfi_fail(err, MF_ERR_LIMIT, "%s: tensor %s: size overflows", path, t->name);
    return MF_OK;
}

/* Offsets from the start of the data, and the table; *total is the end of the data. */
static mf_status put_table(mfi_gguf_out *g, mfi_gguf_tensor *tensors, uint32_t n, uint64_t *total,
                           mf_error *err)
{
    uint64_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        mfi_gguf_tensor *t = &tensors[i];
        MFI_TRY(measure(g, t, err));
        t->offset = at;
        if (mfi_add_overflow(at, mfi_align_up(t->bytes, MFI_GGUF_ALIGN), &at) || at > INT64_MAX)
            return mfi_fail(err, MF_ERR_LIMIT, "%s: size overflows", g->stage.final);
        put_string(g, t->name, strlen(t->name));
        put_int(g, t->n_dims, 4);
        for (uint32_t d = t->n_dims; d-- > 0;)
            put_int(g, t->dims[d], 8);
        put_int(g, (uint64_t)mfi_gguf_type_number(t->type), 4);
        put_int(g, t->offset, 8);
    }
    *total = at;
    return MF_OK;
}

/* What precedes the keys, known only now. */
static mf_status write_header(mfi_gguf_out *g, uint32_t n_tensors, mf_error *err)
{
    unsigned char header[HEADER_BYTES] = {'G', 'G', 'U', 'F', VERSION};
    for (int i = 0; i < 8; i++) {
        header[8 + i] = (unsigned char)((uint64_t)n_tensors >> (8 * i));
        header[16 + i] = (unsigned char)(g->n_keys >> (8 * i));
    }
    return mfi_out_write(&g->out, header, sizeof header, 0, err);
}

mf_status mfi_gguf_layout(mfi_gguf_out *g, mfi_gguf_tensor *tensors, uint32_t n, mf_error *err)
{
    static const unsigned char zeros[MFI_GGUF_ALIGN];
    uint64_t total = 0;
    MFI_ASSERT(g->n_left == 0);
    MFI_TRY(put_table(g, tensors, n, &total, err));
    put(g, zeros, mfi_align_up(g->at, MFI_GGUF_ALIGN) - g->at);
    flush(g);
    if (g->status != MF_OK)
        return mfi_fail(err, g->status, "%s", g->error.message);
    MFI_TRY(write_header(g, n, err));
    for (uint32_t i = 0; i < n; i++)
        tensors[i].offset += g->at;
    if (mfi_add_overflow(g->at, total, &total))
        return mfi_fail(err, MF_ERR_LIMIT, "%s: size overflows", g->stage.final);
    return mfi_out_resize(&g->out, total, err);
}

char *mfi_gguf_staged_path(const mfi_gguf_out *g)
{
    return mfi_path_join(g->stage.dir, STAGED_NAME);
}

mf_status mfi_gguf_write(mfi_gguf_out *g, const void *src, size_t len, uint64_t offset,
                         mf_error *err)
{
    return mfi_out_write(&g->out, src, len, offset, err);
}

mf_status mfi_gguf_finish(mfi_gguf_out *g, mf_error *err)
{
    MFI_TRY(mfi_out_finish(&g->out, err));
    return mfi_stage_commit_file(&g->stage, STAGED_NAME, err);
}
