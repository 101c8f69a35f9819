/* Reading importance matrices; see imatrix_file.h. Called by the converter, a slice at a time, so
 * that the matrix of a large model needs no memory. The file is foreign: what it says is checked.
 */
#include "convert/imatrix_file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "format/format.h"

mf_status mfi_im_open(mfi_im_file *file, const char *path, mf_error *err)
{
    *file = (mfi_im_file){0};
    MFI_TRY(mfi_format_open(&file->catalog, path, err));
    const mfi_json *meta = mfi_catalog_meta(file->catalog);
    const char *type = mfi_json_str(mfi_json_get(meta, "general.type"), NULL);
    if (type && strcmp(type, "imatrix") == 0)
        return MF_OK;
    mfi_im_close(file);
    return mfi_fail(err, MF_ERR_FORMAT,
                    "%s: not an importance matrix (metadata general.type is not \"imatrix\")",
                    path);
}

void mfi_im_close(mfi_im_file *file)
{
    mfi_catalog_close(&file->catalog);
}

/* Tensor "<weight>.<part>" with rows of `cols`; *t is NULL if it isn't there. */
static mf_status find(const mfi_im_file *file, const char *weight, const char *part,
                      uint32_t n_slices, uint32_t cols, const mfi_tensor **t, mf_error *err)
{
    char name[128];
    snprintf(name, sizeof name, "%s.%s", weight, part);
    uint32_t id = mfi_catalog_find(file->catalog, name);
    *t = id == MFI_TENSOR_NONE ? NULL : mfi_catalog_tensor(file->catalog, id);
    if (!*t)
        return MF_OK;
    uint64_t n = mfi_tensor_rows(*t) * mfi_tensor_cols(*t);
    if ((*t)->type.kind != MFI_Q_F32 || n != (uint64_t)n_slices * cols)
        return mfi_fail(err, MF_ERR_TENSOR_SHAPE,
                        "%s: tensor %s has %llu elements, but the model's weight asks for %u x %u "
                        "float32",
                        mfi_catalog_path(file->catalog), name, (unsigned long long)n, n_slices,
                        cols);
    return MF_OK;
}

static mf_status read_floats(const mfi_im_file *file, const mfi_tensor *t, uint64_t first,
                             uint32_t n, float *out, mf_error *err)
{
    const mfi_file *f = mfi_catalog_file(file->catalog, t->file[0]);
    MFI_TRY(mfi_file_read(f, out, n * sizeof *out, t->offset[0] + first * sizeof *out, err));
    const void *planes[MFI_MAX_PLANES] = {out};
    mfi_dequant_row(t->type, planes, n, out); /* the file's byte order */
    return MF_OK;
}

mf_status mfi_im_read(const mfi_im_file *file, const char *weight, uint32_t s, uint32_t n_slices,
                      uint32_t cols, float *out, bool *found, mf_error *err)
{
    const mfi_tensor *sums, *counts;
    float count = 0;
    *found = false;
    MFI_TRY(find(file, weight, "in_sum2", n_slices, cols, &sums, err));
    MFI_TRY(find(file, weight, "counts", n_slices, 1, &counts, err));
    if (!sums || !counts)
        return MF_OK;
    MFI_TRY(read_floats(file, counts, s, 1, &count, err));
    MFI_TRY(read_floats(file, sums, (uint64_t)s * cols, cols, out, err));
    if (!(count > 0))
        return MF_OK;
    for (uint32_t i = 0; i < cols; i++) {
        out[i] /= count;
        if (!(out[i] >= 0) || isinf(out[i]))
            return mfi_fail(err, MF_ERR_FORMAT,
                            "%s: tensor %s.in_sum2: column %u of slice %u is negative or not "
                            "finite",
                            mfi_catalog_path(file->catalog), weight, i, s);
    }
    *found = true;
    return MF_OK;
}
