/* Models in several files: model.safetensors.index.json says which tensor lies in which file.
 * Called at open only. The index is read twice, for the files and, once their headers are in the
 * catalog, to hold the two against each other: in between its text is not kept. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/limits.h"
#include "format/catalog_build.h"

#define NAME_SLOTS (2 * MFI_MAX_FILES)

typedef struct shard_names {
    char **names; /* [n] */
    uint32_t n;
    uint16_t slots[NAME_SLOTS]; /* index + 1 or 0 */
} shard_names;

typedef struct index_text {
    char *text;
    size_t len;
    mfi_json_span map; /* tensor name -> file name */
} index_text;

static mf_status read_index(const char *path, index_text *index, mf_error *err)
{
    *index = (index_text){0};
    MFI_TRY(mfi_file_read_all(path, MFI_MAX_JSON_BYTES, &index->text, &index->len, err));
    MFI_TRY(mfi_json_scan(index->text, index->len, path, err));
    index->map = mfi_json_span_get(mfi_json_root(index->text, index->len), "weight_map");
    if (!index->map.text || mfi_json_span_type(index->map) != MFI_JSON_OBJECT)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: no \"weight_map\"", path);
    return MF_OK;
}

/* A shard lies in the model's own folder. */
static bool name_ok(const mfi_buf *name)
{
    return name->len > 0 && strlen(name->data) == name->len && !strchr(name->data, '/') &&
           !strstr(name->data, "..");
}

static mf_status add_name(shard_names *shards, const mfi_buf *name, const char *path, mf_error *err)
{
    uint32_t slot = (uint32_t)mfi_hash_bytes(name->data, name->len) % NAME_SLOTS;
    for (; shards->slots[slot]; slot = (slot + 1) % NAME_SLOTS) {
        if (strcmp(shards->names[shards->slots[slot] - 1], name->data) == 0)
            return MF_OK;
    }
    if (!name_ok(name))
        return mfi_fail(err, MF_ERR_FORMAT,
                        "%s: \"%.200s\" is not the name of a file in this folder", path,
                        name->data ? name->data : "");
    if (shards->n == MFI_MAX_FILES)
        return mfi_fail(err, MF_ERR_LIMIT, "%s: more than %d files", path, MFI_MAX_FILES);
    char *copy = strdup(name->data);
    if (!copy)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    shards->names[shards->n++] = copy;
    shards->slots[slot] = (uint16_t)shards->n;
    return MF_OK;
}

static mf_status collect_names(shard_names *shards, const char *path, mf_error *err)
{
    index_text index;
    mf_status status = read_index(path, &index, err);
    mfi_buf name = {0};
    if (status == MF_OK) {
        mfi_json_span key, value;
        mfi_json_iter it = mfi_json_span_iter(index.map);
        while (status == MF_OK && mfi_json_object_next(&it, &key, &value)) {
            name.len = 0;
            bool is_str = mfi_json_span_str(value, &name);
            mfi_buf_append(&name, "", 0);
            if (name.failed)
                status = mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
            else if (!is_str)
                status = mfi_fail(err, MF_ERR_FORMAT, "%s: %.*s: no file name", path,
                                  (int)MFI_MIN(key.len, (size_t)200), key.text);
            else
                status = add_name(shards, &name, path, err);
        }
    }
    mfi_buf_free(&name);
    free(index.text);
    return status;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static mf_status add_shards(mfi_catalog *catalog, const char *dir, const shard_names *shards,
                            mf_error *err)
{
    qsort(shards->names, shards->n, sizeof *shards->names, by_name); /* the slots are void now */
    for (uint32_t i = 0; i < shards->n; i++) {
        char *path = mfi_path_join(dir, shards->names[i]);
        mf_status status = path ? mfi_safetensors_add(catalog, path, err)
                                : mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", dir);
        free(path);
        MFI_TRY(status);
    }
    return MF_OK;
}

/* Every tensor that the index names must be where it says. */
static mf_status check_index(const mfi_catalog *catalog, const char *path, mf_error *err)
{
    index_text index;
    mf_status status = read_index(path, &index, err);
    mfi_buf name = {0};
    if (status == MF_OK) {
        mfi_json_span key, value;
        mfi_json_iter it = mfi_json_span_iter(index.map);
        while (status == MF_OK && mfi_json_object_next(&it, &key, &value)) {
            name.len = 0;
            mfi_json_span_str(key, &name);
            mfi_buf_append(&name, "", 0);
            if (name.failed) {
                status = mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
                break;
            }
            uint32_t id = mfi_catalog_find(catalog, name.data);
            uint32_t file = id == MFI_TENSOR_NONE ? 0 : mfi_catalog_tensor(catalog, id)->file[0];
            if (id == MFI_TENSOR_NONE ||
                !mfi_json_span_is(value, mfi_catalog_file_name(catalog, file)))
                status =
                    mfi_fail(err, MF_ERR_TENSOR_MISSING, "%s: tensor %.200s is not in %.*s", path,
                             name.data, (int)MFI_MIN(value.len, (size_t)200), value.text);
        }
    }
    mfi_buf_free(&name);
    free(index.text);
    return status;
}

mf_status mfi_shards_add(mfi_catalog *catalog, const char *dir, const char *index_path,
                         mf_error *err)
{
    shard_names *shards = calloc(1, sizeof *shards);
    mf_status status = MF_OK;
    if (!shards || !(shards->names = calloc(MFI_MAX_FILES, sizeof *shards->names)))
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", index_path);
    if (status == MF_OK)
        status = collect_names(shards, index_path, err);
    if (status == MF_OK)
        status = add_shards(catalog, dir, shards, err);
    if (shards && shards->names) {
        for (uint32_t i = 0; i < shards->n; i++)
            free(shards->names[i]);
        free(shards->names);
    }
    free(shards);
    return status == MF_OK ? check_index(catalog, index_path, err) : status;
}
