/* Reads one safetensors file's header into the catalog: 8 bytes of length, that much JSON, then the
 * tensors' bytes. Called at open only. The header is walked with the JSON cursor, one at a time,
 * and freed again; no tensor data is read. Every range is checked here, once, against the file. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "format/catalog_build.h"

typedef struct reader {
    mfi_catalog *catalog;
    const mfi_file *file;
    uint32_t file_id;
    uint64_t data; /* offset of the first tensor byte */
    mfi_buf name;
    mf_error *err;
} reader;

typedef struct dtype_info {
    const char *name;
    uint8_t kind, bits;
    uint8_t dtype;
} dtype_info;

static const dtype_info dtypes[] = {
    {"BF16", MFI_Q_BF16, 16, MFI_DTYPE_FLOAT},
    {"F16", MFI_Q_F16, 16, MFI_DTYPE_FLOAT},
    {"F32", MFI_Q_F32, 32, MFI_DTYPE_FLOAT},
    {"U32", MFI_Q_OTHER, 32, MFI_DTYPE_U32},
    {"F64", MFI_Q_OTHER, 64, MFI_DTYPE_OTHER},
    {"I64", MFI_Q_OTHER, 64, MFI_DTYPE_OTHER},
    {"U64", MFI_Q_OTHER, 64, MFI_DTYPE_OTHER},
    {"C64", MFI_Q_OTHER, 64, MFI_DTYPE_OTHER},
    {"I32", MFI_Q_OTHER, 32, MFI_DTYPE_OTHER},
    {"I16", MFI_Q_OTHER, 16, MFI_DTYPE_OTHER},
    {"U16", MFI_Q_OTHER, 16, MFI_DTYPE_OTHER},
    {"I8", MFI_Q_OTHER, 8, MFI_DTYPE_OTHER},
    {"U8", MFI_Q_OTHER, 8, MFI_DTYPE_U8},
    {"BOOL", MFI_Q_OTHER, 8, MFI_DTYPE_OTHER},
    {"F8_E4M3", MFI_Q_OTHER, 8, MFI_DTYPE_F8_E4M3},
    {"F8_E5M2", MFI_Q_OTHER, 8, MFI_DTYPE_OTHER},
    {"F8_E8M0", MFI_Q_OTHER, 8, MFI_DTYPE_OTHER},
    {"F8_E4M3FNUZ", MFI_Q_OTHER, 8, MFI_DTYPE_OTHER},
    {"F8_E5M2FNUZ", MFI_Q_OTHER, 8, MFI_DTYPE_OTHER},
    {"F6_E2M3", MFI_Q_OTHER, 6, MFI_DTYPE_OTHER},
    {"F6_E3M2", MFI_Q_OTHER, 6, MFI_DTYPE_OTHER},
    {"F4", MFI_Q_OTHER, 4, MFI_DTYPE_OTHER},
};

/* Names in messages are cut, so that what is wrong still fits behind them. */
static const char *shown(const reader *r)
{
    static const size_t max = 200;
    if (r->name.len > max)
        r->name.data[max] = 0;
    return r->name.data;
}

static mf_status bad(const reader *r, const char *why)
{
    return mfi_fail(r->err, MF_ERR_FORMAT, "%s: tensor %s: %s", r->file->path, shown(r), why);
}

static mf_status read_dtype(const reader *r, mfi_json_span v, const dtype_info **out)
{
    if (mfi_json_span_type(v) != MFI_JSON_STRING || !v.text)
        return bad(r, "no dtype");
    for (size_t i = 0; i < MFI_ARRAY_LEN(dtypes); i++) {
        if (mfi_json_span_is(v, dtypes[i].name)) {
            *out = &dtypes[i];
            return MF_OK;
        }
    }
    return mfi_fail(r->err, MF_ERR_UNSUPPORTED, "%s: tensor %s: element type %.*s", r->file->path,
                    shown(r), (int)MFI_MIN(v.len, (size_t)40), v.text);
}

/* Fills dims and n_dims, and counts the elements. More dims than fit are folded into the first. */
static mf_status read_shape(const reader *r, mfi_json_span v, mfi_tensor *tensor, uint64_t *n_elems)
{
    if (!v.text || mfi_json_span_type(v) != MFI_JSON_ARRAY)
        return bad(r, "no shape");
    uint32_t n_dims = 0;
    mfi_json_span item;
    for (mfi_json_iter it = mfi_json_span_iter(v); mfi_json_array_next(&it, &item);)
        n_dims++;
    uint32_t n_fold = n_dims > MFI_MAX_DIMS ? n_dims - MFI_MAX_DIMS : 0;
    uint64_t first = 1, volume = 1; /* without the zeros: products of dims are safe ever after */
    bool empty = false;
    uint32_t i = 0;
    for (mfi_json_iter it = mfi_json_span_iter(v); mfi_json_array_next(&it, &item); i++) {
        int64_t dim;
        if (!mfi_json_span_i64(item, &dim) || dim < 0)
            return bad(r, "a dimension is not a count");
        if ((uint64_t)dim > MFI_MAX_DIM)
            return bad(r, "a dimension is too large");
        empty |= dim == 0;
        if (dim > 0 && mfi_mul_overflow(volume, (uint64_t)dim, &volume))
            return bad(r, "its shape overflows");
        if (i <= n_fold)
            first *= (uint64_t)dim; /* <= volume, or 0 */
        if (i == n_fold && first > MFI_MAX_DIM)
            return bad(r, "its leading dimensions are too large");
        if (i >= n_fold)
            tensor->dims[i - n_fold] = (uint32_t)(i == n_fold ? first : (uint64_t)dim);
    }
    if (volume > UINT64_MAX / 64)
        return bad(r, "its shape overflows");
    tensor->n_dims = (uint8_t)(n_dims - n_fold);
    *n_elems = empty ? 0 : volume;
    return MF_OK;
}

static mf_status read_range(const reader *r, mfi_json_span v, uint64_t *begin, uint64_t *end)
{
    if (!v.text || mfi_json_span_type(v) != MFI_JSON_ARRAY)
        return bad(r, "no data_offsets");
    int64_t ends[2];
    size_t n = 0;
    mfi_json_span item;
    for (mfi_json_iter it = mfi_json_span_iter(v); mfi_json_array_next(&it, &item); n++) {
        if (n == 2 || !mfi_json_span_i64(item, &ends[n]) || ends[n] < 0)
            return bad(r, "data_offsets are not two offsets");
    }
    if (n != 2)
        return bad(r, "data_offsets are not two offsets");
    if (ends[0] > ends[1])
        return bad(r, "data_offsets end before they begin");
    *begin = (uint64_t)ends[0];
    *end = (uint64_t)ends[1];
    return MF_OK;
}

static mf_status add_tensor(reader *r, mfi_json_span info)
{
    if (mfi_json_span_type(info) != MFI_JSON_OBJECT)
        return bad(r, "not described by an object");
    mfi_json_span dtype_span = {0}, shape = {0}, offsets = {0}, key, value;
    for (mfi_json_iter it = mfi_json_span_iter(info); mfi_json_object_next(&it, &key, &value);) {
        if (mfi_json_span_is(key, "dtype"))
            dtype_span = value;
        else if (mfi_json_span_is(key, "shape"))
            shape = value;
        else if (mfi_json_span_is(key, "data_offsets"))
            offsets = value;
    }
    const dtype_info *dtype = NULL;
    mfi_tensor tensor = {.file = {(uint16_t)r->file_id}};
    uint64_t n_elems = 0, begin = 0, end = 0;
    MFI_TRY(read_dtype(r, dtype_span, &dtype));
    MFI_TRY(read_shape(r, shape, &tensor, &n_elems));
    MFI_TRY(read_range(r, offsets, &begin, &end));
    tensor.type = (mfi_qtype){.kind = dtype->kind, .bits = dtype->bits};
    uint64_t n_bits = n_elems * dtype->bits; /* fits, see read_shape */
    if (!mfi_quant_cols_ok(tensor.type, mfi_tensor_cols(&tensor)))
        return mfi_fail(r->err, MF_ERR_UNSUPPORTED,
                        "%s: tensor %s: rows of %" PRIu64
                        " elements of %d bits are not whole bytes",
                        r->file->path, shown(r), mfi_tensor_cols(&tensor), dtype->bits);
    if (n_bits / 8 != end - begin)
        return mfi_fail(r->err, MF_ERR_FORMAT,
                        "%s: tensor %s: its shape takes %" PRIu64
                        " bytes, its data_offsets span %" PRIu64,
                        r->file->path, shown(r), n_bits / 8, end - begin);
    if (end > r->file->size - r->data)
        return mfi_fail(r->err, MF_ERR_TENSOR_BOUNDS,
                        "%s: tensor %s: bytes %" PRIu64 " to %" PRIu64
                        " lie outside the file of %" PRIu64 " bytes",
                        r->file->path, shown(r), r->data + begin, r->data + end, r->file->size);
    tensor.offset[0] = r->data + begin;
    return mfi_catalog_add(r->catalog, &tensor, (mfi_dtype)dtype->dtype, r->name.data, r->name.len,
                           r->err);
}

static mf_status add_header(reader *r, mfi_json_span root)
{
    mfi_json_span key, value;
    for (mfi_json_iter it = mfi_json_span_iter(root); mfi_json_object_next(&it, &key, &value);) {
        if (mfi_json_span_is(key, "__metadata__"))
            continue;
        r->name.len = 0;
        mfi_json_span_str(key, &r->name);
        mfi_buf_append(&r->name, "", 0); /* an empty name is a string, too */
        if (r->name.failed)
            return mfi_fail(r->err, MF_ERR_NO_MEMORY, "%s: out of memory", r->file->path);
        MFI_TRY(add_tensor(r, value));
    }
    return MF_OK;
}

/* Reads the length and the header's text; *text is NULL or released by the caller. */
static mf_status read_header(reader *r, char **text, size_t *len)
{
    const mfi_file *file = r->file;
    unsigned char bytes[8];
    if (file->size < sizeof bytes)
        return mfi_fail(r->err, MF_ERR_FORMAT, "%s: %" PRIu64 " bytes are too few for safetensors",
                        file->path, file->size);
    MFI_TRY(mfi_file_read(file, bytes, sizeof bytes, 0, r->err));
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | bytes[i];
    if (n > file->size - sizeof bytes)
        return mfi_fail(r->err, MF_ERR_FORMAT,
                        "%s: a header of %" PRIu64 " bytes doesn't fit into the file of %" PRIu64
                        " bytes",
                        file->path, n, file->size);
    if (n > MFI_MAX_JSON_BYTES)
        return mfi_fail(r->err, MF_ERR_LIMIT,
                        "%s: a header of %" PRIu64 " bytes; at most %" PRIu64 " are accepted",
                        file->path, n, (uint64_t)MFI_MAX_JSON_BYTES);
    *text = malloc(n + 1);
    if (!*text)
        return mfi_fail(r->err, MF_ERR_NO_MEMORY, "%s: no memory for its header", file->path);
    *len = n;
    r->data = sizeof bytes + n;
    MFI_TRY(mfi_file_read(file, *text, n, sizeof bytes, r->err));
    return mfi_json_scan(*text, n, file->path, r->err);
}

mf_status mfi_safetensors_add(mfi_catalog *catalog, const char *path, mf_error *err)
{
    reader r = {.catalog = catalog, .err = err};
    MFI_TRY(mfi_catalog_add_file(catalog, path, &r.file_id, err));
    r.file = mfi_catalog_file(catalog, r.file_id);
    uint32_t first = mfi_catalog_n_tensors(catalog);
    char *text = NULL;
    size_t len = 0;
    mf_status status = read_header(&r, &text, &len);
    if (status == MF_OK) {
        mfi_json_span root = mfi_json_root(text, len);
        if (mfi_json_span_type(root) == MFI_JSON_OBJECT)
            status = add_header(&r, root);
        else
            status = mfi_fail(err, MF_ERR_FORMAT, "%s: its header is not a JSON object", path);
    }
    free(text);
    mfi_buf_free(&r.name);
    return status == MF_OK ? mfi_catalog_check_overlap(catalog, first, err) : status;
}
