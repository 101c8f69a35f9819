/* Opening a model folder: decides what lies there and has the right reader fill the catalog. Called
 * on the thread that opens the model. It looks at names and first bytes only. */
#include "format/format.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "format/catalog_build.h"

#define WANTED "moeflux opens folders with config.json and safetensors files"

static bool ends_with(const char *name, const char *suffix)
{
    size_t n = strlen(name), s = strlen(suffix);
    return n >= s && strcmp(name + n - s, suffix) == 0;
}

static mf_status refuse_file(const char *path, mf_error *err)
{
    mfi_file file;
    MFI_TRY(mfi_file_open(&file, path, err));
    char magic[4];
    bool gguf =
        ends_with(path, ".gguf") ||
        (file.size >= sizeof magic && mfi_file_read(&file, magic, sizeof magic, 0, NULL) == MF_OK &&
         memcmp(magic, "GGUF", 4) == 0);
    mfi_file_close(&file);
    if (gguf)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: a GGUF file; " WANTED, path);
    if (ends_with(path, ".safetensors"))
        return mfi_fail(err, MF_ERR_UNSUPPORTED,
                        "%s: a file; give the folder that it lies in: " WANTED, path);
    return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: a file; " WANTED, path);
}

/* A folder that lacks `missing`: says what it holds instead, if that is known. */
static mf_status refuse_folder(const char *path, const char *missing, mf_error *err)
{
    DIR *dir = opendir(path);
    const char *found = NULL;
    for (struct dirent *entry; dir && !found && (entry = readdir(dir)) != NULL;) {
        if (ends_with(entry->d_name, ".gguf"))
            found = "GGUF";
        else if (strncmp(entry->d_name, "pytorch_model", strlen("pytorch_model")) == 0)
            found = "PyTorch";
    }
    if (dir)
        closedir(dir);
    if (found)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: holds %s files, but no %s; " WANTED, path,
                        found, missing);
    return mfi_fail(err, MF_ERR_FILE_MISSING, "%s: holds no %s; " WANTED, path, missing);
}

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
    MFI_TRY(mfi_mlx_check(catalog, err)); /* before the user waits for files that are of no use */
    MFI_TRY(add_tensors(catalog, path, err));
    if (mfi_catalog_n_tensors(catalog) == 0)
        return mfi_fail(err, MF_ERR_EMPTY_MANIFEST, "%s: its files hold no tensors", path);
    MFI_TRY(mfi_mlx_fold(catalog, err));
    mfi_catalog_finish(catalog);
    return MF_OK;
}

mf_status mfi_format_open(mfi_catalog **catalog, const char *path, mf_error *err)
{
    *catalog = NULL;
    struct stat st;
    if (stat(path, &st) != 0)
        return mfi_fail(err, MF_ERR_FILE_MISSING, "%s: no such file or folder", path);
    if (!S_ISDIR(st.st_mode))
        return refuse_file(path, err);
    char *config = mfi_path_join(path, "config.json");
    if (!config)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    bool has_config = mfi_file_exists(config);
    free(config);
    if (!has_config)
        return refuse_folder(path, "config.json", err);
    MFI_TRY(mfi_catalog_new(catalog, path, err));
    mf_status status = fill(*catalog, path, err);
    if (status != MF_OK)
        mfi_catalog_close(catalog);
    return status;
}
