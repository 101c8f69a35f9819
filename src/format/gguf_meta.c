/* GGUF metadata as a JSON tree. Called by gguf.c while a file is opened. Values are written as JSON
 * text while they are read and parsed at the end; strings that are not UTF-8 get U+FFFD for what
 * isn't. Long arrays (vocabularies) are walked over and stay in the file. */
#include "format/gguf_meta.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/utf8.h"

typedef struct key_hash {
    uint64_t hash;
    uint64_t offset; /* of the key's length in the file */
} key_hash;

typedef struct builder {
    mfi_gguf_reader *r;
    mfi_gguf_meta *meta;
    mfi_buf json, key, str;
    uint64_t n_elements; /* of arrays in the tree so far */
    key_hash *keys;      /* [n_keys] */
    uint32_t n_keys;
} builder;

static void put_str(mfi_buf *json, const char *text, size_t len)
{
    size_t good = mfi_utf8_check(text, len);
    if (good == len) {
        mfi_json_put_str(json, text, len);
        return;
    }
    mfi_buf clean = {0};
    while (len > 0) {
        mfi_buf_append(&clean, text, good);
        if (good < len) {
            mfi_buf_str(&clean, "\xef\xbf\xbd");
            good++;
        }
        text += good;
        len -= good;
        good = mfi_utf8_check(text, len);
    }
    mfi_json_put_str(json, clean.data, clean.len);
    json->failed |= clean.failed;
    mfi_buf_free(&clean);
}

static void put_number(mfi_buf *json, const mfi_gguf_number *v)
{
    switch (v->type) {
    case MFI_GGUF_BOOL:
        mfi_buf_str(json, v->u ? "true" : "false");
        break;
    case MFI_GGUF_INT8:
    case MFI_GGUF_INT16:
    case MFI_GGUF_INT32:
    case MFI_GGUF_INT64:
        mfi_buf_fmt(json, "%" PRId64, v->i);
        break;
    case MFI_GGUF_FLOAT32:
    case MFI_GGUF_FLOAT64: {
        size_t before = json->len;
        mfi_json_put_f64(json, v->f);
        if (!json->failed && !strpbrk(json->data + before, ".en"))
            mfi_buf_str(json, ".0"); /* 1e7 must not come back as an integer */
        break;
    }
    default:
        mfi_buf_fmt(json, "%" PRIu64, v->u);
    }
}

static mf_status put_value(builder *b, uint32_t type, uint64_t at)
{
    mfi_gguf_number v;
    if (type == MFI_GGUF_STRING) {
        MFI_TRY(mfi_gguf_str(b->r, MFI_MAX_GGUF_META_BYTES, &b->str));
        put_str(&b->json, b->str.data, b->str.len);
    } else {
        MFI_TRY(mfi_gguf_take_number(b->r, type, &v));
        put_number(&b->json, &v);
    }
    if (b->json.failed)
        return mfi_gguf_fail(b->r, MF_ERR_NO_MEMORY, at, "no memory for the metadata");
    if (b->json.len > MFI_MAX_GGUF_META_BYTES)
        return mfi_gguf_fail(b->r, MF_ERR_LIMIT, at, "metadata of more than %" PRIu64 " bytes",
                             MFI_MAX_GGUF_META_BYTES);
    return MF_OK;
}

static mf_status skip_elements(builder *b, const mfi_meta_array *array)
{
    uint32_t n_bytes = mfi_gguf_type_bytes(array->type);
    if (n_bytes)
        return mfi_gguf_skip(b->r, array->n * n_bytes); /* held against the file before */
    for (uint64_t i = 0; i < array->n; i++) {
        uint64_t at = b->r->at, len;
        MFI_TRY(mfi_gguf_u64(b->r, &len));
        if (len > mfi_gguf_left(b->r))
            return mfi_gguf_fail(b->r, MF_ERR_FORMAT, at,
                                 "%s: string %" PRIu64 " of %" PRIu64
                                 " bytes doesn't fit into the file, which ends at %" PRIu64,
                                 b->key.data, i, len, b->r->file->size);
        MFI_TRY(mfi_gguf_skip(b->r, len));
    }
    return MF_OK;
}

static mf_status read_array(builder *b)
{
    mfi_gguf_reader *r = b->r;
    uint64_t at = r->at;
    mfi_meta_array array;
    MFI_TRY(mfi_gguf_u32(r, &array.type));
    MFI_TRY(mfi_gguf_u64(r, &array.n));
    array.offset = r->at;
    if (array.type == MFI_GGUF_ARRAY)
        return mfi_gguf_fail(r, MF_ERR_UNSUPPORTED, at, "%.200s: an array of arrays", b->key.data);
    if (array.type >= MFI_GGUF_N_TYPES)
        return mfi_gguf_fail(r, MF_ERR_FORMAT, at, "%.200s: an array of unknown type %" PRIu32,
                             b->key.data, array.type);
    uint32_t n_bytes = mfi_gguf_type_bytes(array.type); /* a string takes 8 and more */
    if (array.n > mfi_gguf_left(r) / (n_bytes ? n_bytes : 8))
        return mfi_gguf_fail(r, MF_ERR_FORMAT, at,
                             "%.200s: %" PRIu64
                             " elements don't fit into the file, which ends at %" PRIu64,
                             b->key.data, array.n, r->file->size);
    if (b->meta->arrays)
        MFI_TRY(mfi_catalog_add_meta_array(b->meta->arrays, b->key.data, &array, r->err));
    if (array.n > MFI_MAX_GGUF_ARRAY) {
        mfi_buf_fmt(&b->json, "{\"type\":\"%s\",\"count\":%" PRIu64 "}",
                    mfi_gguf_type_name(array.type), array.n);
        return skip_elements(b, &array);
    }
    b->n_elements += array.n;
    if (b->n_elements > MFI_MAX_GGUF_ELEMENTS)
        return mfi_gguf_fail(r, MF_ERR_LIMIT, at,
                             "metadata with arrays of more than %" PRIu64 " elements",
                             MFI_MAX_GGUF_ELEMENTS);
    mfi_buf_str(&b->json, "[");
    for (uint64_t i = 0; i < array.n; i++) {
        if (i)
            mfi_buf_str(&b->json, ",");
        MFI_TRY(put_value(b, array.type, r->at));
    }
    mfi_buf_str(&b->json, "]");
    return MF_OK;
}

static mf_status read_alignment(builder *b, uint32_t type)
{
    uint64_t at = b->r->at;
    mfi_gguf_number v = {0};
    if (type == MFI_GGUF_UINT32)
        MFI_TRY(mfi_gguf_take_number(b->r, type, &v));
    if (v.u == 0 || (v.u & (v.u - 1)) != 0)
        return mfi_gguf_fail(b->r, MF_ERR_FORMAT, at,
                             "general.alignment is not a uint32 power of two");
    b->meta->alignment = v.u;
    mfi_buf_fmt(&b->json, "%" PRIu64, v.u);
    return MF_OK;
}

static mf_status read_pair(builder *b)
{
    mfi_gguf_reader *r = b->r;
    b->keys[b->n_keys].offset = r->at;
    MFI_TRY(mfi_gguf_name(r, MFI_MAX_GGUF_KEY_BYTES, &b->key));
    b->keys[b->n_keys++].hash = mfi_hash_bytes(b->key.data, b->key.len);
    if (b->json.len > 1)
        mfi_buf_str(&b->json, ",");
    mfi_json_put_str(&b->json, b->key.data, b->key.len);
    mfi_buf_str(&b->json, ":");
    uint64_t at = r->at;
    uint32_t type;
    MFI_TRY(mfi_gguf_u32(r, &type));
    if (type >= MFI_GGUF_N_TYPES)
        return mfi_gguf_fail(r, MF_ERR_FORMAT, at, "%.200s: unknown type %" PRIu32, b->key.data,
                             type);
    if (strcmp(b->key.data, "general.alignment") == 0)
        return read_alignment(b, type);
    return type == MFI_GGUF_ARRAY ? read_array(b) : put_value(b, type, at);
}

static int by_hash(const void *a, const void *b)
{
    const key_hash *x = a, *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Keys of one hash are taken for one key: the tree's parser refuses what slips through. */
static mf_status check_keys(builder *b)
{
    qsort(b->keys, b->n_keys, sizeof *b->keys, by_hash);
    for (uint32_t i = 1; i < b->n_keys; i++) {
        if (b->keys[i].hash != b->keys[i - 1].hash)
            continue;
        b->r->at = b->keys[i].offset;
        MFI_TRY(mfi_gguf_name(b->r, MFI_MAX_GGUF_KEY_BYTES, &b->key));
        return mfi_gguf_fail(b->r, MF_ERR_FORMAT, b->keys[i].offset,
                             "the key %.200s is there already, at offset %" PRIu64, b->key.data,
                             b->keys[i - 1].offset);
    }
    return MF_OK;
}

static mf_status read_all(builder *b, uint64_t n_kv)
{
    mfi_buf_str(&b->json, "{");
    for (uint64_t i = 0; i < n_kv; i++)
        MFI_TRY(read_pair(b));
    mfi_buf_str(&b->json, "}");
    uint64_t end = b->r->at;
    if (b->json.failed)
        return mfi_gguf_fail(b->r, MF_ERR_NO_MEMORY, end, "no memory for the metadata");
    MFI_TRY(check_keys(b));
    return mfi_json_parse(b->json.data, b->json.len, b->r->file->path, &b->meta->tree, b->r->err);
}

mf_status mfi_gguf_meta_read(mfi_gguf_reader *r, uint64_t n_kv, mfi_gguf_meta *meta)
{
    meta->tree = NULL;
    meta->alignment = 32;
    uint64_t at = r->at - 8;          /* where the count stands */
    if (n_kv > mfi_gguf_left(r) / 13) /* a key's length, a type, a byte */
        return mfi_gguf_fail(r, MF_ERR_FORMAT, at,
                             "%" PRIu64
                             " metadata entries don't fit into the file, which ends at %" PRIu64,
                             n_kv, r->file->size);
    if (n_kv > MFI_MAX_GGUF_KEYS)
        return mfi_gguf_fail(r, MF_ERR_LIMIT, at,
                             "%" PRIu64 " metadata entries; at most %d are accepted", n_kv,
                             MFI_MAX_GGUF_KEYS);
    builder b = {.r = r, .meta = meta, .keys = malloc((size_t)n_kv * sizeof *b.keys + 1)};
    mf_status status =
        b.keys ? read_all(&b, n_kv) : mfi_gguf_fail(r, MF_ERR_NO_MEMORY, at, "out of memory");
    mfi_buf_free(&b.json);
    mfi_buf_free(&b.key);
    mfi_buf_free(&b.str);
    free(b.keys);
    return status;
}
