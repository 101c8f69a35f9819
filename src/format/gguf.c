/* Reads GGUF files, version 2 and 3, into the catalog: counts, metadata (gguf_meta.c), the list of
 * tensors, and the other shards of a split model. Called at open only. No tensor data is read;
 * every range is checked here, once, against its file. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/catalog_build.h"
#include "format/gguf_meta.h"

#define TENSOR_INFO_BYTES_MIN 24 /* name length, dimensions, type, offset */
#define SHARD_SUFFIX_BYTES    20 /* "-00001-of-00003.gguf" */

typedef struct shard {
    mfi_gguf_reader *r;
    mfi_catalog *catalog;
    uint32_t file;
    uint64_t n_tensors, n_kv;
    mfi_gguf_meta meta;
    mfi_buf name;
} shard;

/* ---- one file ---- */

static mf_status read_counts(shard *s)
{
    mfi_gguf_reader *r = s->r;
    char magic[4];
    uint32_t version;
    MFI_TRY(mfi_gguf_take(r, magic, sizeof magic));
    if (memcmp(magic, "GGUF", 4) != 0)
        return mfi_gguf_fail(r, MF_ERR_FORMAT, 0,
                             "not a GGUF file: it doesn't begin with \"GGUF\"");
    MFI_TRY(mfi_gguf_u32(r, &version));
    if (version && (version & 0xffff) == 0)
        return mfi_gguf_fail(r, MF_ERR_UNSUPPORTED, 4, "a big-endian GGUF file");
    if (version == 1)
        return mfi_gguf_fail(r, MF_ERR_UNSUPPORTED, 4, "GGUF version 1; 2 and 3 are supported");
    if (version < 2 || version > 3)
        return mfi_gguf_fail(r, MF_ERR_UNSUPPORTED, 4,
                             "GGUF version %" PRIu32 "; 2 and 3 are supported", version);
    MFI_TRY(mfi_gguf_u64(r, &s->n_tensors));
    MFI_TRY(mfi_gguf_u64(r, &s->n_kv));
    if (s->n_tensors > mfi_gguf_left(r) / TENSOR_INFO_BYTES_MIN)
        return mfi_gguf_fail(r, MF_ERR_FORMAT, 8,
                             "%" PRIu64 " tensors don't fit into the file, which ends at %" PRIu64,
                             s->n_tensors, r->file->size);
    if (s->n_tensors > MFI_MAX_TENSORS)
        return mfi_gguf_fail(r, MF_ERR_LIMIT, 8, "%" PRIu64 " tensors; at most %u are accepted",
                             s->n_tensors, MFI_MAX_TENSORS);
    return MF_OK;
}

/* The element type by the file's number. */
static mf_status find_type(const shard *s, uint32_t number, uint64_t at, mfi_tensor *tensor,
                           mfi_dtype *dtype)
{
    static const struct {
        uint8_t number, kind, bits;
    } plain[] = {{0, MFI_Q_F32, 32},    {1, MFI_Q_F16, 16},    {30, MFI_Q_BF16, 16},
                 {24, MFI_Q_OTHER, 8},  {25, MFI_Q_OTHER, 16}, {26, MFI_Q_OTHER, 32},
                 {27, MFI_Q_OTHER, 64}, {28, MFI_Q_OTHER, 64}};
    for (size_t i = 0; i < MFI_ARRAY_LEN(plain); i++) {
        if (plain[i].number == number) {
            tensor->type = (mfi_qtype){.kind = plain[i].kind, .bits = plain[i].bits};
            *dtype = plain[i].kind == MFI_Q_OTHER ? MFI_DTYPE_OTHER : MFI_DTYPE_FLOAT;
            return MF_OK;
        }
    }
    uint32_t n_elements, n_bytes;
    if (!mfi_ggml_block(number, &n_elements, &n_bytes))
        return mfi_gguf_fail(s->r, MF_ERR_UNSUPPORTED, at,
                             "tensor %.200s: unknown element type %" PRIu32, s->name.data, number);
    tensor->type = (mfi_qtype){.kind = MFI_Q_GGML, .bits = (uint8_t)number};
    *dtype = MFI_DTYPE_OTHER;
    return MF_OK;
}

/* The file has the innermost dimension first. */
static mf_status read_dims(const shard *s, mfi_tensor *tensor)
{
    mfi_gguf_reader *r = s->r;
    uint64_t at = r->at, volume = 1;
    uint32_t n_dims;
    MFI_TRY(mfi_gguf_u32(r, &n_dims));
    if (n_dims > MFI_MAX_DIMS)
        return mfi_gguf_fail(r, MF_ERR_FORMAT, at,
                             "tensor %.200s: %" PRIu32 " dimensions; at most %d are accepted",
                             s->name.data, n_dims, MFI_MAX_DIMS);
    tensor->n_dims = (uint8_t)n_dims;
    while (n_dims-- > 0) {
        uint64_t dim;
        at = r->at;
        MFI_TRY(mfi_gguf_u64(r, &dim));
        if (dim > MFI_MAX_DIM)
            return mfi_gguf_fail(r, MF_ERR_FORMAT, at,
                                 "tensor %.200s: a dimension of %" PRIu64 " is too large",
                                 s->name.data, dim);
        if ((dim > 0 && mfi_mul_overflow(volume, dim, &volume)) || volume > UINT64_MAX / 64)
            return mfi_gguf_fail(r, MF_ERR_FORMAT, at, "tensor %.200s: its dimensions overflow",
                                 s->name.data);
        tensor->dims[n_dims] = (uint32_t)dim;
    }
    return MF_OK;
}

/* Its offset stays relative to the data until that is known to begin. */
static mf_status read_tensor(shard *s)
{
    mfi_gguf_reader *r = s->r;
    mfi_tensor tensor = {.file = {(uint16_t)s->file}};
    mfi_dtype dtype = MFI_DTYPE_OTHER;
    uint32_t number;
    MFI_TRY(mfi_gguf_name(r, MFI_MAX_GGUF_NAME_BYTES, &s->name));
    MFI_TRY(read_dims(s, &tensor));
    uint64_t at = r->at;
    MFI_TRY(mfi_gguf_u32(r, &number));
    MFI_TRY(find_type(s, number, at, &tensor, &dtype));
    if (!mfi_quant_cols_ok(tensor.type, mfi_tensor_cols(&tensor)))
        return mfi_gguf_fail(r, MF_ERR_FORMAT, at,
                             "tensor %.200s: rows of %" PRIu64
                             " elements are not whole blocks of %s",
                             s->name.data, mfi_tensor_cols(&tensor), mfi_ggml_name(number));
    at = r->at;
    MFI_TRY(mfi_gguf_u64(r, &tensor.offset[0]));
    if (tensor.offset[0] % s->meta.alignment != 0)
        return mfi_gguf_fail(r, MF_ERR_FORMAT, at,
                             "tensor %.200s: its data at %" PRIu64 " is not aligned to %" PRIu64
                             " bytes",
                             s->name.data, tensor.offset[0], s->meta.alignment);
    if (tensor.offset[0] > r->file->size)
        return mfi_gguf_fail(r, MF_ERR_TENSOR_BOUNDS, at,
                             "tensor %.200s: its data at %" PRIu64
                             " lies behind the end of the file at %" PRIu64,
                             s->name.data, tensor.offset[0], r->file->size);
    return mfi_catalog_add(s->catalog, &tensor, dtype, s->name.data, s->name.len, r->err);
}

/* Tensors [first, n) of the catalog are this file's. */
static mf_status place_tensors(const shard *s, uint32_t first)
{
    uint64_t data = mfi_align_up(s->r->at, s->meta.alignment), size = s->r->file->size;
    for (uint32_t id = first; id < mfi_catalog_n_tensors(s->catalog); id++) {
        mfi_tensor *tensor = mfi_catalog_edit(s->catalog, id);
        uint64_t begin = data + tensor->offset[0], n = mfi_tensor_bytes(tensor, 0);
        if (n > 0 && (begin > size || n > size - begin))
            return mfi_fail(s->r->err, MF_ERR_TENSOR_BOUNDS,
                            "%s: tensor %.200s: %" PRIu64 " bytes at offset %" PRIu64
                            " lie outside the file of %" PRIu64 " bytes",
                            s->r->file->path, mfi_catalog_name(s->catalog, id), n, begin, size);
        tensor->offset[0] = MFI_MIN(begin, size);
    }
    return mfi_catalog_check_overlap(s->catalog, first, s->r->err);
}

static mf_status read_shard(shard *s, bool meta_only)
{
    MFI_TRY(read_counts(s));
    MFI_TRY(mfi_gguf_meta_read(s->r, s->n_kv, &s->meta));
    uint32_t first = mfi_catalog_n_tensors(s->catalog);
    for (uint64_t i = 0; i < s->n_tensors && !meta_only; i++)
        MFI_TRY(read_tensor(s));
    return place_tensors(s, first);
}

/* Adds one file; *meta is its metadata, released by the caller, also after a failure. */
static mf_status add_file(mfi_catalog *catalog, const char *path, bool meta_only, mfi_json **meta,
                          mf_error *err)
{
    *meta = NULL;
    shard s = {.catalog = catalog};
    MFI_TRY(mfi_catalog_add_file(catalog, path, &s.file, err));
    s.r = malloc(sizeof *s.r);
    if (!s.r)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    mfi_gguf_reader_begin(s.r, mfi_catalog_file(catalog, s.file), err);
    s.meta.arrays = s.file == 0 ? catalog : NULL;
    mf_status status = read_shard(&s, meta_only);
    *meta = s.meta.tree;
    mfi_buf_free(&s.name);
    free(s.r);
    return status;
}

mf_status mfi_gguf_meta_end(const mfi_file *file, uint64_t *end, mf_error *err)
{
    shard s = {.r = malloc(sizeof *s.r)};
    if (!s.r)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", file->path);
    mfi_gguf_reader_begin(s.r, file, err);
    mf_status status = read_counts(&s);
    if (status == MF_OK)
        status = mfi_gguf_meta_read(s.r, s.n_kv, &s.meta);
    *end = s.r->at;
    mfi_json_free(&s.meta.tree);
    free(s.r);
    return status;
}

/* ---- split models ---- */

static bool digits(const char *p, uint32_t *v)
{
    *v = 0;
    for (int i = 0; i < 5; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        *v = *v * 10 + (uint32_t)(p[i] - '0');
    }
    return true;
}

bool mfi_gguf_shard_name(const char *name, uint32_t *no, uint32_t *n)
{
    size_t len = strlen(name);
    if (len < SHARD_SUFFIX_BYTES)
        return false;
    const char *p = name + len - SHARD_SUFFIX_BYTES;
    return p[0] == '-' && digits(p + 1, no) && memcmp(p + 6, "-of-", 4) == 0 && digits(p + 10, n) &&
           strcmp(p + 15, ".gguf") == 0;
}

static int64_t number(const mfi_json *meta, const char *key, int64_t fallback)
{
    int64_t v;
    return mfi_json_i64(mfi_json_get(meta, key), &v) ? v : fallback;
}

/* What a file says of its place among `count` shards must be what its name and the first say. */
static mf_status check_shard(const mfi_json *meta, const char *path, uint32_t i, uint32_t count,
                             mf_error *err)
{
    int64_t no = number(meta, "split.no", -1), n = number(meta, "split.count", -1);
    if (no != (int64_t)i || n != (int64_t)count)
        return mfi_fail(err, MF_ERR_FORMAT,
                        "%s: offset 24: its metadata says split.no %" PRId64
                        ", split.count %" PRId64 "; expected are %" PRIu32 " and %" PRIu32,
                        path, no, n, i, count);
    return MF_OK;
}

static mf_status add_shard(mfi_catalog *catalog, const char *first_path, uint32_t i, uint32_t count,
                           mf_error *err)
{
    char *path = strdup(first_path);
    if (!path)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", first_path);
    char suffix[SHARD_SUFFIX_BYTES + 16];
    snprintf(suffix, sizeof suffix, "-%05" PRIu32 "-of-%05" PRIu32 ".gguf", i + 1, count);
    memcpy(path + strlen(path) - SHARD_SUFFIX_BYTES, suffix, SHARD_SUFFIX_BYTES);
    mf_status status;
    mfi_json *meta = NULL;
    if (!mfi_file_exists(path))
        status = mfi_fail(err, MF_ERR_FILE_MISSING,
                          "%s: no such file; it is shard %" PRIu32 " of %" PRIu32 " of %s", path,
                          i + 1, count, first_path);
    else
        status = add_file(catalog, path, false, &meta, err);
    if (status == MF_OK)
        status = check_shard(meta, path, i, count, err);
    mfi_json_free(&meta);
    free(path);
    return status;
}

/* The path must be the first shard's, and named as one. */
static mf_status check_first(const mfi_json *meta, const char *path, int64_t count, mf_error *err)
{
    uint32_t no, n;
    bool named = mfi_gguf_shard_name(path, &no, &n);
    if (count < 1 || count > MFI_MAX_FILES)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: offset 24: its metadata says split.count %" PRId64,
                        path, count);
    if (number(meta, "split.no", 0) != 0) {
        int stem = named ? (int)(strlen(path) - SHARD_SUFFIX_BYTES) : 0;
        return mfi_fail(err, MF_ERR_UNSUPPORTED,
                        "%s: offset 24: shard %" PRId64 " of %" PRId64
                        " of a split model; open the first, %.*s-00001-of-%05" PRId64 ".gguf",
                        path, number(meta, "split.no", 0) + 1, count, stem, path, count);
    }
    if (count > 1 && (!named || no != 1 || n != (uint32_t)count))
        return mfi_fail(err, MF_ERR_FORMAT,
                        "%s: offset 24: the first of %" PRId64
                        " shards must be named ...-00001-of-%05" PRId64 ".gguf",
                        path, count, count);
    return MF_OK;
}

mf_status mfi_gguf_add(mfi_catalog *catalog, const char *path, bool meta_only, mf_error *err)
{
    mfi_json *meta;
    mf_status status = add_file(catalog, path, meta_only, &meta, err);
    if (status != MF_OK) {
        mfi_json_free(&meta);
        return status;
    }
    mfi_catalog_set_meta(catalog, meta);
    int64_t count = number(meta, "split.count", 1);
    count = count == 0 ? 1 : count; /* some writers say so of a whole file */
    MFI_TRY(check_first(meta, path, count, err));
    if (meta_only)
        return MF_OK;
    for (uint32_t i = 1; i < (uint32_t)count; i++)
        MFI_TRY(add_shard(catalog, path, i, (uint32_t)count, err));
    int64_t n_all = number(meta, "split.tensors.count", -1);
    if (count > 1 && n_all >= 0 && n_all != (int64_t)mfi_catalog_n_tensors(catalog))
        return mfi_fail(err, MF_ERR_TENSOR_MISSING,
                        "%s: offset 24: its metadata says split.tensors.count %" PRId64
                        ", but its %" PRId64 " shards hold %" PRIu32,
                        path, n_all, count, mfi_catalog_n_tensors(catalog));
    return MF_OK;
}
