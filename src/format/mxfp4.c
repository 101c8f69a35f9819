/* MXFP4 as gpt-oss is published: joins X_blocks, 16 bytes for each 32 elements, and X_scales, an
 * exponent byte for each, both of dtype U8, into one tensor X. Tensors of other dtypes stay what
 * they are. Called at open only; touches no tensor data. */
#include <string.h>

#include "format/catalog_build.h"

#define BLOCKS "_blocks"
#define SCALES "_scales"

/* blocks [..., n, 16], scales [..., n]: n blocks make a row. */
static mf_status check_shapes(const mfi_catalog *catalog, uint32_t id, uint32_t scales_id,
                              mf_error *err)
{
    const mfi_tensor *blocks = mfi_catalog_tensor(catalog, id);
    const mfi_tensor *scales = mfi_catalog_tensor(catalog, scales_id);
    /* Blocks that were folded already may have got that very name. */
    if (mfi_catalog_dtype(catalog, scales_id) != MFI_DTYPE_U8 || scales->type.kind != MFI_Q_OTHER)
        return mfi_fold_bad_part(catalog, scales_id, "MXFP4 scales must be of dtype U8", err);
    if (blocks->n_dims < 2 || blocks->dims[blocks->n_dims - 1] != 16)
        return mfi_fold_bad_part(catalog, id, "not blocks of 16 bytes", err);
    if (scales->n_dims != blocks->n_dims - 1 ||
        memcmp(scales->dims, blocks->dims, scales->n_dims * sizeof scales->dims[0]) != 0)
        return mfi_fold_bad_part(catalog, scales_id, "not one scale for each of its blocks", err);
    if ((uint64_t)scales->dims[scales->n_dims - 1] * 32 > MFI_MAX_DIM)
        return mfi_fold_bad_part(catalog, id, "its rows are too long", err);
    return MF_OK;
}

static mf_status fold_one(mfi_catalog *catalog, uint32_t id, bool *drop, mfi_buf *name,
                          mf_error *err)
{
    const size_t suffix = sizeof BLOCKS - 1;
    const char *full = mfi_catalog_name(catalog, id);
    size_t len = strlen(full);
    if (mfi_catalog_dtype(catalog, id) != MFI_DTYPE_U8 || len <= suffix ||
        strcmp(full + len - suffix, BLOCKS) != 0)
        return MF_OK;
    name->len = 0;
    mfi_buf_append(name, full, len - suffix);
    if (!name->failed && mfi_catalog_find(catalog, name->data) != MFI_TENSOR_NONE)
        return mfi_fold_bad_part(catalog, id,
                                 "there is a tensor of that name without " BLOCKS ", too", err);
    mfi_buf_str(name, SCALES);
    uint32_t scales_id;
    MFI_TRY(mfi_fold_partner(catalog, name, &scales_id, err));
    MFI_TRY(check_shapes(catalog, id, scales_id, err));
    mfi_tensor *tensor = mfi_catalog_edit(catalog, id);
    const mfi_tensor *scales = mfi_catalog_tensor(catalog, scales_id);
    tensor->type = (mfi_qtype){.kind = MFI_Q_MXFP4, .bits = 4};
    tensor->n_dims = scales->n_dims;
    tensor->dims[tensor->n_dims - 1] *= 32;
    tensor->dims[tensor->n_dims] = 0;
    tensor->offset[1] = scales->offset[0];
    tensor->file[1] = scales->file[0];
    mfi_catalog_cut_name(catalog, id, len - suffix);
    drop[scales_id] = true;
    return MF_OK;
}

mf_status mfi_mxfp4_fold(mfi_catalog *catalog, mf_error *err)
{
    return mfi_fold_each(catalog, fold_one, err);
}
