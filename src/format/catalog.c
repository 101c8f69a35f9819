/* The catalog: owns the list of tensors, their names, the table that finds them, the open files and
 * the tree of config.json. Built by the readers on the thread that opens the model, immutable
 * afterwards. It reads no tensor data and knows no format. */
#include "format/catalog.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/room.h"
#include "format/catalog_build.h"

typedef struct named_array {
    char *key;
    mfi_meta_array array;
} named_array;

struct mfi_catalog {
    mfi_tensor *tensors; /* [n_tensors] */
    uint8_t *dtypes;     /* [n_tensors] mfi_dtype; NULL after finish */
    uint32_t n_tensors, cap_tensors;
    char *names; /* NUL-terminated, one after the other, in the order of ids */
    uint32_t names_len, cap_names;
    uint32_t *slots; /* [n_slots] id + 1 or 0, a power of two, at most 2/3 full */
    uint32_t n_slots;
    uint64_t seed;   /* of the slots: no file can be made of names that share one */
    mfi_file *files; /* [n_files] */
    uint32_t n_files;
    mfi_json *config;
    mfi_json *meta;      /* GGUF metadata, or NULL */
    named_array *arrays; /* [n_arrays] of that metadata */
    uint32_t n_arrays, cap_arrays;
    char *path;
};

static mf_status no_memory(const mfi_catalog *catalog, mf_error *err)
{
    return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: no memory for the list of tensors", catalog->path);
}

mf_status mfi_catalog_new_bare(mfi_catalog **out, const char *path, mf_error *err)
{
    *out = NULL;
    mfi_catalog *catalog = calloc(1, sizeof *catalog);
    if (!catalog || !(catalog->path = strdup(path))) {
        free(catalog);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    }
    catalog->seed = mfi_hash_bytes(&(const void *){catalog}, sizeof(void *)); /* it is randomised */
    *out = catalog;
    return MF_OK;
}

mf_status mfi_catalog_new(mfi_catalog **out, const char *path, mf_error *err)
{
    MFI_TRY(mfi_catalog_new_bare(out, path, err));
    mfi_catalog *catalog = *out;
    char *config = mfi_path_join(path, "config.json");
    mf_status status = MF_OK;
    if (!config)
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    else
        status = mfi_json_parse_file(config, MFI_MAX_CONFIG_BYTES, &catalog->config, err);
    if (status == MF_OK && mfi_json_typeof(catalog->config) != MFI_JSON_OBJECT)
        status = mfi_fail(err, MF_ERR_FORMAT, "%s: not a JSON object", config);
    free(config);
    if (status != MF_OK)
        mfi_catalog_close(out);
    return status;
}

void mfi_catalog_close(mfi_catalog **out)
{
    mfi_catalog *catalog = *out;
    if (!catalog)
        return;
    for (uint32_t i = 0; i < catalog->n_files; i++)
        mfi_file_close(&catalog->files[i]);
    free(catalog->files);
    free(catalog->tensors);
    free(catalog->dtypes);
    free(catalog->names);
    free(catalog->slots);
    mfi_json_free(&catalog->config);
    mfi_json_free(&catalog->meta);
    for (uint32_t i = 0; i < catalog->n_arrays; i++)
        free(catalog->arrays[i].key);
    free(catalog->arrays);
    free(catalog->path);
    free(catalog);
    *out = NULL;
}

/* ---- building ---- */

mf_status mfi_catalog_add_file(mfi_catalog *catalog, const char *path, uint32_t *file,
                               mf_error *err)
{
    if (catalog->n_files == MFI_MAX_FILES)
        return mfi_fail(err, MF_ERR_LIMIT, "%s: more than %d files", catalog->path, MFI_MAX_FILES);
    mfi_file *files = realloc(catalog->files, (catalog->n_files + 1) * sizeof *files);
    if (!files)
        return no_memory(catalog, err);
    catalog->files = files;
    MFI_TRY(mfi_file_open(&files[catalog->n_files], path, err));
    *file = catalog->n_files++;
    return MF_OK;
}

void mfi_catalog_set_meta(mfi_catalog *catalog, mfi_json *meta)
{
    MFI_ASSERT(!catalog->meta);
    catalog->meta = meta;
}

mf_status mfi_catalog_add_meta_array(mfi_catalog *catalog, const char *key,
                                     const mfi_meta_array *array, mf_error *err)
{
    if (!MFI_ROOM(catalog->arrays, catalog->n_arrays, catalog->cap_arrays, 16))
        return no_memory(catalog, err);
    char *copy = strdup(key);
    if (!copy)
        return no_memory(catalog, err);
    catalog->arrays[catalog->n_arrays++] = (named_array){copy, *array};
    return MF_OK;
}

/* The slot that holds the name, or the empty one where it belongs. */
static uint32_t find_slot(const mfi_catalog *catalog, const char *name, size_t len)
{
    uint64_t hash = (mfi_hash_bytes(name, len) ^ catalog->seed) * 0x9e3779b97f4a7c15u;
    uint32_t slot = (uint32_t)(hash >> 32) & (catalog->n_slots - 1);
    for (; catalog->slots[slot]; slot = (slot + 1) & (catalog->n_slots - 1)) {
        const char *there = mfi_catalog_name(catalog, catalog->slots[slot] - 1);
        if (strncmp(there, name, len) == 0 && there[len] == 0)
            break;
    }
    return slot;
}

static bool rebuild_slots(mfi_catalog *catalog, uint32_t n_slots)
{
    free(catalog->slots);
    catalog->slots = calloc(n_slots, sizeof *catalog->slots);
    catalog->n_slots = catalog->slots ? n_slots : 0;
    if (!catalog->slots)
        return false;
    for (uint32_t id = 0; id < catalog->n_tensors; id++) {
        const char *name = mfi_catalog_name(catalog, id);
        catalog->slots[find_slot(catalog, name, strlen(name))] = id + 1;
    }
    return true;
}

/* Room for one more tensor with a name of name_len bytes. */
static bool grow(mfi_catalog *catalog, size_t name_len)
{
    if (catalog->n_tensors == catalog->cap_tensors) {
        uint32_t cap = catalog->cap_tensors ? catalog->cap_tensors + catalog->cap_tensors / 2 : 256;
        mfi_tensor *tensors = realloc(catalog->tensors, (size_t)cap * sizeof *tensors);
        if (!tensors)
            return false;
        catalog->tensors = tensors;
        uint8_t *dtypes = realloc(catalog->dtypes, cap);
        if (!dtypes)
            return false;
        catalog->dtypes = dtypes;
        catalog->cap_tensors = cap;
    }
    uint64_t names = (uint64_t)catalog->names_len + name_len + 1;
    if (names > catalog->cap_names) {
        uint64_t cap = MFI_MIN(names + names / 2 + 1024, (uint64_t)UINT32_MAX);
        char *pool = realloc(catalog->names, cap);
        if (!pool)
            return false;
        catalog->names = pool;
        catalog->cap_names = (uint32_t)cap;
    }
    if ((catalog->n_tensors + 1) * 3u > catalog->n_slots * 2u)
        return rebuild_slots(catalog, catalog->n_slots ? catalog->n_slots * 2 : 512);
    return true;
}

mf_status mfi_catalog_add(mfi_catalog *catalog, const mfi_tensor *tensor, mfi_dtype dtype,
                          const char *name, size_t name_len, mf_error *err)
{
    if (catalog->n_tensors == MFI_MAX_TENSORS)
        return mfi_fail(err, MF_ERR_LIMIT, "%s: more than %u tensors", catalog->path,
                        MFI_MAX_TENSORS);
    if ((uint64_t)catalog->names_len + name_len + 1 > UINT32_MAX)
        return mfi_fail(err, MF_ERR_LIMIT, "%s: tensor names of more than 4 GiB", catalog->path);
    if (!grow(catalog, name_len))
        return no_memory(catalog, err);
    uint32_t slot = find_slot(catalog, name, name_len);
    if (catalog->slots[slot]) {
        const mfi_tensor *other = &catalog->tensors[catalog->slots[slot] - 1];
        return mfi_fail(err, MF_ERR_FORMAT, "%s: tensor %.*s is also in %s",
                        catalog->files[tensor->file[0]].path, (int)MFI_MIN(name_len, (size_t)200),
                        name, mfi_catalog_file_name(catalog, other->file[0]));
    }
    uint32_t id = catalog->n_tensors++;
    catalog->slots[slot] = id + 1;
    catalog->tensors[id] = *tensor;
    catalog->tensors[id].name = catalog->names_len;
    catalog->dtypes[id] = (uint8_t)dtype;
    memcpy(catalog->names + catalog->names_len, name, name_len);
    catalog->names[catalog->names_len + name_len] = 0;
    catalog->names_len += (uint32_t)name_len + 1;
    return MF_OK;
}

mfi_tensor *mfi_catalog_edit(mfi_catalog *catalog, uint32_t id)
{
    MFI_ASSERT(id < catalog->n_tensors && catalog->dtypes);
    return &catalog->tensors[id];
}

mfi_dtype mfi_catalog_dtype(const mfi_catalog *catalog, uint32_t id)
{
    MFI_ASSERT(id < catalog->n_tensors && catalog->dtypes);
    return (mfi_dtype)catalog->dtypes[id];
}

void mfi_catalog_cut_name(mfi_catalog *catalog, uint32_t id, size_t name_len)
{
    MFI_ASSERT(id < catalog->n_tensors && name_len <= strlen(mfi_catalog_name(catalog, id)));
    catalog->names[catalog->tensors[id].name + name_len] = 0;
}

mf_status mfi_catalog_drop(mfi_catalog *catalog, const bool *drop, mf_error *err)
{
    uint32_t n = 0, names_len = 0;
    for (uint32_t id = 0; id < catalog->n_tensors; id++) {
        if (drop[id])
            continue;
        mfi_tensor tensor = catalog->tensors[id];
        uint32_t bytes = (uint32_t)strlen(catalog->names + tensor.name) + 1;
        memmove(catalog->names + names_len, catalog->names + tensor.name, bytes);
        tensor.name = names_len;
        names_len += bytes;
        catalog->dtypes[n] = catalog->dtypes[id];
        catalog->tensors[n++] = tensor;
    }
    catalog->n_tensors = n;
    catalog->names_len = names_len;
    uint32_t n_slots = 512;
    while (n * 3u > n_slots * 2u)
        n_slots *= 2;
    return rebuild_slots(catalog, n_slots) ? MF_OK : no_memory(catalog, err);
}

typedef struct placed {
    uint64_t offset;
    uint32_t id;
} placed;

static int by_offset(const void *a, const void *b)
{
    uint64_t x = ((const placed *)a)->offset, y = ((const placed *)b)->offset;
    return x < y ? -1 : x > y;
}

mf_status mfi_catalog_check_overlap(const mfi_catalog *catalog, uint32_t first, mf_error *err)
{
    uint32_t n_all = catalog->n_tensors, n = 0;
    placed *list = malloc((size_t)(n_all - first) * sizeof *list + 1);
    if (!list)
        return no_memory(catalog, err);
    for (uint32_t id = first; id < n_all; id++) {
        const mfi_tensor *tensor = mfi_catalog_tensor(catalog, id);
        if (mfi_tensor_bytes(tensor, 0) > 0)
            list[n++] = (placed){tensor->offset[0], id};
    }
    qsort(list, n, sizeof *list, by_offset);
    mf_status status = MF_OK;
    for (uint32_t i = 1; i < n && status == MF_OK; i++) {
        const mfi_tensor *before = mfi_catalog_tensor(catalog, list[i - 1].id);
        if (list[i].offset - list[i - 1].offset < mfi_tensor_bytes(before, 0))
            status = mfi_fail(err, MF_ERR_FORMAT,
                              "%s: tensors %.120s and %.120s overlap at offset %" PRIu64,
                              mfi_catalog_file(catalog, before->file[0])->path,
                              mfi_catalog_name(catalog, list[i - 1].id),
                              mfi_catalog_name(catalog, list[i].id), list[i].offset);
    }
    free(list);
    return status;
}

void mfi_catalog_finish(mfi_catalog *catalog)
{
    free(catalog->dtypes);
    catalog->dtypes = NULL;
    if (catalog->n_tensors == 0)
        return;
    mfi_tensor *tensors =
        realloc(catalog->tensors, (size_t)catalog->n_tensors * sizeof *catalog->tensors);
    if (tensors)
        catalog->tensors = tensors;
    char *names = realloc(catalog->names, catalog->names_len);
    if (names)
        catalog->names = names;
}

/* ---- reading ---- */

uint32_t mfi_catalog_n_tensors(const mfi_catalog *catalog)
{
    return catalog->n_tensors;
}

const mfi_tensor *mfi_catalog_tensor(const mfi_catalog *catalog, uint32_t id)
{
    MFI_ASSERT(id < catalog->n_tensors);
    return &catalog->tensors[id];
}

const char *mfi_catalog_name(const mfi_catalog *catalog, uint32_t id)
{
    MFI_ASSERT(id < catalog->n_tensors);
    return catalog->names + catalog->tensors[id].name;
}

uint32_t mfi_catalog_find(const mfi_catalog *catalog, const char *name)
{
    if (catalog->n_tensors == 0)
        return MFI_TENSOR_NONE;
    uint32_t id = catalog->slots[find_slot(catalog, name, strlen(name))];
    return id ? id - 1 : MFI_TENSOR_NONE;
}

uint32_t mfi_catalog_n_files(const mfi_catalog *catalog)
{
    return catalog->n_files;
}

const mfi_file *mfi_catalog_file(const mfi_catalog *catalog, uint32_t file)
{
    MFI_ASSERT(file < catalog->n_files);
    return &catalog->files[file];
}

const char *mfi_catalog_file_name(const mfi_catalog *catalog, uint32_t file)
{
    const char *path = mfi_catalog_file(catalog, file)->path;
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

const char *mfi_catalog_path(const mfi_catalog *catalog)
{
    return catalog->path;
}

const mfi_json *mfi_catalog_config(const mfi_catalog *catalog)
{
    return catalog->config;
}

const mfi_json *mfi_catalog_meta(const mfi_catalog *catalog)
{
    return catalog->meta;
}

bool mfi_catalog_meta_array(const mfi_catalog *catalog, const char *key, mfi_meta_array *array)
{
    for (uint32_t i = 0; i < catalog->n_arrays; i++) {
        if (strcmp(catalog->arrays[i].key, key) == 0) {
            *array = catalog->arrays[i].array;
            return true;
        }
    }
    return false;
}

uint64_t mfi_tensor_rows(const mfi_tensor *tensor)
{
    uint64_t rows = 1;
    for (uint32_t i = 0; i + 1 < tensor->n_dims; i++)
        rows *= tensor->dims[i];
    return rows;
}

uint64_t mfi_tensor_cols(const mfi_tensor *tensor)
{
    return tensor->n_dims ? tensor->dims[tensor->n_dims - 1] : 1;
}

uint64_t mfi_tensor_bytes(const mfi_tensor *tensor, uint32_t plane)
{
    return mfi_quant_plane_bytes(tensor->type, plane, mfi_tensor_rows(tensor),
                                 mfi_tensor_cols(tensor));
}

/* Rows of a slice of the first dimension, if these lie apart; else all. */
static uint64_t rows_together(const mfi_tensor *tensor)
{
    uint64_t rows = mfi_tensor_rows(tensor);
    return tensor->stride ? rows / tensor->dims[0] : rows;
}

uint64_t mfi_tensor_span(const mfi_tensor *tensor, uint32_t plane)
{
    if (!tensor->stride)
        return mfi_tensor_bytes(tensor, plane);
    return (tensor->dims[0] - 1) * tensor->stride + mfi_quant_plane_bytes(tensor->type, plane,
                                                                          rows_together(tensor),
                                                                          mfi_tensor_cols(tensor));
}

uint64_t mfi_tensor_run(const mfi_tensor *tensor, uint64_t row)
{
    uint64_t together = rows_together(tensor);
    return together ? together - row % together : 0;
}

mfi_extent mfi_tensor_extent(const mfi_tensor *tensor, uint32_t plane, uint64_t row,
                             uint64_t n_rows)
{
    uint64_t rows = mfi_tensor_rows(tensor), at = 0;
    MFI_ASSERT(row <= rows && n_rows <= rows - row);
    if (tensor->stride) {
        uint64_t together = rows_together(tensor);
        at = row / together * tensor->stride;
        row %= together;
        rows = together;
        MFI_ASSERT(n_rows <= rows - row);
    }
    uint64_t row_bytes = mfi_quant_row_bytes(tensor->type, plane, mfi_tensor_cols(tensor));
    uint64_t per = mfi_quant_rows_per_row(tensor->type, plane);
    MFI_ASSERT(row % per == 0 && (n_rows % per == 0 || row + n_rows == rows));
    return (mfi_extent){tensor->file[plane], tensor->offset[plane] + at + row / per * row_bytes,
                        (n_rows + per - 1) / per * row_bytes};
}
