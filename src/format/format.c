/* Opening a model: decides what lies there and has the right reader fill the catalog. Called
 * on the thread that opens the model. It looks at names and first bytes only. */
#include "format/format.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "format/catalog_build.h"
#include "format/pack.h"
#include "os/out.h"

#define WANTED "moeflux opens GGUF files and folders with config.json and safetensors files"

static bool ends_with(const char *name, const char *suffix)
{
    size_t n = strlen(name), s = strlen(suffix);
    return n >= s && strcmp(name + n - s, suffix) == 0;
}

/* Takes a catalog that was filled, or failed to be. */
static mf_status finish(mfi_catalog **catalog, const char *path, bool meta_only, mf_status status,
                        mf_error *err)
{
    if (status == MF_OK && !meta_only && mfi_catalog_n_tensors(*catalog) == 0)
        status = mfi_fail(err, MF_ERR_EMPTY_MANIFEST, "%s: holds no tensors", path);
    if (status == MF_OK)
        mfi_catalog_finish(*catalog);
    else
        mfi_catalog_close(catalog);
    return status;
}

static mf_status open_gguf(mfi_catalog **catalog, const char *path, const char *file,
                           bool meta_only, mf_error *err)
{
    MFI_TRY(mfi_catalog_new_bare(catalog, path, err));
    mf_status status = mfi_gguf_add(*catalog, file, meta_only, err);
    return finish(catalog, path, meta_only, status, err);
}

/* A file that isn't called so may still be GGUF. */
static mf_status sniff(const char *path, bool *gguf, mf_error *err)
{
    mfi_file file;
    MFI_TRY(mfi_file_open(&file, path, err));
    char magic[4];
    *gguf =
        ends_with(path, ".gguf") ||
        (file.size >= sizeof magic && mfi_file_read(&file, magic, sizeof magic, 0, NULL) == MF_OK &&
         memcmp(magic, "GGUF", 4) == 0);
    mfi_file_close(&file);
    return MF_OK;
}

static mf_status open_file(mfi_catalog **catalog, const char *path, bool meta_only, mf_error *err)
{
    bool gguf;
    MFI_TRY(sniff(path, &gguf, err));
    if (gguf)
        return open_gguf(catalog, path, path, meta_only, err);
    if (ends_with(path, ".safetensors") || ends_with(path, ".mfpack"))
        return mfi_fail(err, MF_ERR_UNSUPPORTED,
                        "%s: a file; give the folder that it lies in: " WANTED, path);
    return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: a file; " WANTED, path);
}

/* ---- GGUF in a folder ---- */

typedef struct gguf_names {
    char first[256]; /* the one model, or the first shard of it; empty: none */
    char other[256]; /* a second one */
    bool late_shard; /* there are shards that aren't the first */
} gguf_names;

static mf_status see_name(void *ctx, const char *name, mf_error *err)
{
    gguf_names *names = ctx;
    uint32_t no = 1, n;
    (void)err;
    /* mmproj: the projector of a vision model, not a language model */
    if (!ends_with(name, ".gguf") || strncmp(name, "mmproj", strlen("mmproj")) == 0)
        return MF_OK;
    if (mfi_gguf_shard_name(name, &no, &n) && no != 1)
        names->late_shard = true;
    else
        snprintf(names->first[0] ? names->other : names->first, sizeof names->first, "%s", name);
    return MF_OK;
}

/* Opens the model if the folder holds GGUF; *found says whether it does. */
static mf_status open_gguf_folder(mfi_catalog **catalog, const char *path, bool meta_only,
                                  bool *found, mf_error *err)
{
    gguf_names names = {0};
    *found = false;
    MFI_TRY(mfi_dir_each_file(path, see_name, &names, err));
    if (!names.first[0] && !names.late_shard)
        return MF_OK;
    *found = true;
    if (!names.first[0])
        return mfi_fail(err, MF_ERR_FILE_MISSING,
                        "%s: holds shards of a GGUF model, but not the first", path);
    if (names.other[0])
        return mfi_fail(err, MF_ERR_ARGUMENT,
                        "%s: holds several GGUF models (%s and %s): give the path of one file",
                        path, names.first, names.other);
    char *file = mfi_path_join(path, names.first);
    if (!file)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    mf_status status = open_gguf(catalog, path, file, meta_only, err);
    free(file);
    return status;
}

/* A folder that lacks `missing`: says what it holds instead, if that is known. */
static mf_status refuse_folder(const char *path, const char *missing, mf_error *err)
{
    DIR *dir = opendir(path);
    const char *found = NULL;
    for (struct dirent *entry; dir && !found && (entry = readdir(dir)) != NULL;) {
        if (strncmp(entry->d_name, "pytorch_model", strlen("pytorch_model")) == 0)
            found = "PyTorch";
    }
    if (dir)
        closedir(dir);
    if (found)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: holds %s files, but no %s; " WANTED, path,
                        found, missing);
    return mfi_fail(err, MF_ERR_FILE_MISSING, "%s: holds no %s; " WANTED, path, missing);
}

/* ---- safetensors ---- */

static mf_status add_tensors(mfi_catalog *catalog, const char *path, mf_error *err)
{
    char *single = mfi_path_join(path, "model.safetensors");
    char *index = mfi_path_join(path, "model.safetensors.index.json");
    mf_status status;
    if (!single || !index)
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    else if (mfi_file_exists(single)) /* an index beside it is of no use, and may be stale */
        status = mfi_safetensors_add(catalog, single, err);
    else if (mfi_file_exists(index))
        status = mfi_shards_add(catalog, path, index, err);
    else
        status = refuse_folder(path, "model.safetensors and no model.safetensors.index.json", err);
    free(single);
    free(index);
    return status;
}

static mf_status fill(mfi_catalog *catalog, const char *path, mf_error *err)
{
    /* before the user waits for files that are of no use */
    MFI_TRY(mfi_quantization_check(catalog, err));
    MFI_TRY(add_tensors(catalog, path, err));
    if (mfi_catalog_n_tensors(catalog) == 0)
        return mfi_fail(err, MF_ERR_EMPTY_MANIFEST, "%s: its files hold no tensors", path);
    MFI_TRY(mfi_quantization_fold(catalog, err));
    mfi_catalog_finish(catalog);
    return MF_OK;
}

static bool holds(const char *dir, const char *name)
{
    char *path = mfi_path_join(dir, name);
    bool there = path && mfi_file_exists(path);
    free(path);
    return there;
}

/* A pack's description is that of its source: a GGUF file without tensors, or config.json. */
static mf_status open_pack(mfi_catalog **catalog, const char *path, mf_error *err)
{
    bool gguf;
    MFI_TRY(open_gguf_folder(catalog, path, true, &gguf, err));
    if (!gguf)
        MFI_TRY(mfi_catalog_new(catalog, path, err));
    char *file = mfi_path_join(path, MFI_PACK_FILE);
    mf_status status = file ? mfi_pack_add(*catalog, file, err)
                            : mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    free(file);
    return finish(catalog, path, false, status, err);
}

bool mfi_format_is_pack(const char *path)
{
    return holds(path, MFI_PACK_FILE);
}

static bool holds_safetensors(const char *path)
{
    return holds(path, "config.json") &&
           (holds(path, "model.safetensors") || holds(path, "model.safetensors.index.json"));
}

mf_status mfi_format_open(mfi_catalog **catalog, const char *path, mf_error *err)
{
    *catalog = NULL;
    struct stat st;
    if (stat(path, &st) != 0)
        return mfi_fail(err, MF_ERR_FILE_MISSING, "%s: no such file or folder", path);
    if (!S_ISDIR(st.st_mode))
        return open_file(catalog, path, false, err);
    if (mfi_format_is_pack(path))
        return open_pack(catalog, path, err);
    bool found = false;
    if (!holds_safetensors(path)) /* a GGUF folder may have a config.json for other programs */
        MFI_TRY(open_gguf_folder(catalog, path, false, &found, err));
    if (found)
        return MF_OK;
    if (!holds(path, "config.json"))
        return refuse_folder(path, "config.json", err);
    MFI_TRY(mfi_catalog_new(catalog, path, err));
    mf_status status = fill(*catalog, path, err);
    if (status != MF_OK)
        mfi_catalog_close(catalog);
    return status;
}

mf_status mfi_format_open_meta(mfi_catalog **catalog, const char *path, mf_error *err)
{
    *catalog = NULL;
    struct stat st;
    bool found;
    if (stat(path, &st) != 0)
        return mfi_fail(err, MF_ERR_FILE_MISSING, "%s: no such file or folder", path);
    if (!S_ISDIR(st.st_mode))
        return open_file(catalog, path, true, err);
    MFI_TRY(open_gguf_folder(catalog, path, true, &found, err));
    return found ? MF_OK : mfi_fail(err, MF_ERR_FILE_MISSING, "%s: holds no GGUF file", path);
}

bool mfi_format_is_gguf(const char *path)
{
    struct stat st;
    gguf_names names = {0};
    bool gguf = false;
    if (stat(path, &st) != 0)
        return false;
    if (!S_ISDIR(st.st_mode))
        return sniff(path, &gguf, NULL) == MF_OK && gguf;
    return !holds_safetensors(path) && mfi_dir_each_file(path, see_name, &names, NULL) == MF_OK &&
           (names.first[0] || names.late_shard);
}
