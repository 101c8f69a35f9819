/* What joining the parts of quantised tensors has in common, whatever the notation: fp8.c and
 * mxfp4.c say which parts belong together. Called at open only; touches no tensor data. */
#include <stdlib.h>
#include <string.h>

#include "format/catalog_build.h"

mf_status mfi_fold_bad_part(const mfi_catalog *catalog, uint32_t id, const char *why, mf_error *err)
{
    const mfi_tensor *tensor = mfi_catalog_tensor(catalog, id);
    return mfi_fail(err, MF_ERR_TENSOR_SHAPE, "%s: tensor %.200s: %s",
                    mfi_catalog_file(catalog, tensor->file[0])->path, mfi_catalog_name(catalog, id),
                    why);
}

mf_status mfi_fold_partner(const mfi_catalog *catalog, const mfi_buf *name, uint32_t *id,
                           mf_error *err)
{
    if (name->failed)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", mfi_catalog_path(catalog));
    *id = mfi_catalog_find(catalog, name->data);
    if (*id == MFI_TENSOR_NONE)
        return mfi_fail(err, MF_ERR_TENSOR_MISSING, "%s: tensor %.200s is missing",
                        mfi_catalog_path(catalog), name->data);
    return MF_OK;
}

mf_status mfi_fold_each(mfi_catalog *catalog, mfi_fold_one *fold, mf_error *err)
{
    uint32_t n = mfi_catalog_n_tensors(catalog);
    mfi_buf name = {0};
    mf_status status = MF_OK;
    bool *drop = calloc((size_t)n + 1, sizeof *drop);
    if (!drop)
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", mfi_catalog_path(catalog));
    for (uint32_t id = 0; id < n && status == MF_OK; id++)
        status = fold(catalog, id, drop, &name, err);
    if (status == MF_OK && memchr(drop, true, n))
        status = mfi_catalog_drop(catalog, drop, err);
    free(drop);
    mfi_buf_free(&name);
    return status;
}
