/* FP8 as DeepSeek publishes it: joins each tensor X of dtype F8_E4M3 with X_scale_inv, which has
 * one number to multiply with for each block of 128 x 128. (The name is that of the number which
 * the encoder divided by, seen from there.) Tensors of float dtypes, such as those of modules that
 * config.json leaves out, stay what they are. Called at open only; touches no tensor data. */
#include <inttypes.h>
#include <string.h>

#include "format/catalog_build.h"

#define SUFFIX "_scale_inv"

mf_status mfi_fp8_check(const mfi_catalog *catalog, const mfi_json *section, mf_error *err)
{
    const char *path = mfi_catalog_path(catalog);
    const char *fmt = mfi_json_str(mfi_json_get(section, "fmt"), NULL);
    if (fmt && strcmp(fmt, "e4m3") != 0)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s/config.json: fp8 fmt \"%.80s\"; %s", path, fmt,
                        MFI_QUANT_SUPPORTED);
    const mfi_json *block = mfi_json_get(section, "weight_block_size");
    int64_t rows = 0, cols = 0;
    if (mfi_json_len(block) != 2 || !mfi_json_i64(mfi_json_at(block, 0), &rows) ||
        !mfi_json_i64(mfi_json_at(block, 1), &cols))
        return mfi_fail(err, MF_ERR_UNSUPPORTED,
                        "%s/config.json: fp8 without a weight_block_size of two numbers; %s", path,
                        MFI_QUANT_SUPPORTED);
    if (rows != MFI_FP8_BLOCK || cols != MFI_FP8_BLOCK)
        return mfi_fail(err, MF_ERR_UNSUPPORTED,
                        "%s/config.json: fp8 in blocks of %" PRId64 " x %" PRId64 "; %s", path,
                        rows, cols, MFI_QUANT_SUPPORTED);
    return MF_OK;
}

static uint32_t n_blocks(uint32_t n)
{
    return n / MFI_FP8_BLOCK + (n % MFI_FP8_BLOCK != 0);
}

static mf_status check_shapes(const mfi_catalog *catalog, uint32_t id, uint32_t scales_id,
                              mf_error *err)
{
    const mfi_tensor *weight = mfi_catalog_tensor(catalog, id);
    const mfi_tensor *scales = mfi_catalog_tensor(catalog, scales_id);
    if (weight->n_dims < 2)
        return mfi_fold_bad_part(catalog, id, "FP8 weights must be matrices", err);
    if (!mfi_qtype_is_float(scales->type))
        return mfi_fold_bad_part(catalog, scales_id, "FP8 scales must be floats", err);
    uint32_t lead = weight->n_dims - 2u;
    if (scales->n_dims != weight->n_dims ||
        memcmp(scales->dims, weight->dims, lead * sizeof weight->dims[0]) != 0 ||
        scales->dims[lead] != n_blocks(weight->dims[lead]) ||
        scales->dims[lead + 1] != n_blocks(weight->dims[lead + 1]))
        return mfi_fold_bad_part(catalog, scales_id,
                                 "not one scale for each 128 x 128 block of its weight", err);
    /* Rows are counted on through stacked matrices, so blocks must not end inside a stack. */
    if (lead > 0 && weight->dims[lead] % MFI_FP8_BLOCK != 0)
        return mfi_fold_bad_part(catalog, id,
                                 "stacked FP8 matrices must have a multiple of 128 rows", err);
    return MF_OK;
}

static mf_status fold_one(mfi_catalog *catalog, uint32_t id, bool *drop, mfi_buf *name,
                          mf_error *err)
{
    if (mfi_catalog_dtype(catalog, id) != MFI_DTYPE_F8_E4M3)
        return MF_OK;
    name->len = 0;
    mfi_buf_str(name, mfi_catalog_name(catalog, id));
    mfi_buf_str(name, SUFFIX);
    uint32_t scales_id;
    MFI_TRY(mfi_fold_partner(catalog, name, &scales_id, err));
    MFI_TRY(check_shapes(catalog, id, scales_id, err));
    mfi_tensor *weight = mfi_catalog_edit(catalog, id);
    const mfi_tensor *scales = mfi_catalog_tensor(catalog, scales_id);
    weight->type = (mfi_qtype){.kind = MFI_Q_FP8, .bits = 8, .scale = scales->type.kind};
    weight->offset[1] = scales->offset[0];
    weight->file[1] = scales->file[0];
    drop[scales_id] = true;
    return MF_OK;
}

mf_status mfi_fp8_fold(mfi_catalog *catalog, mf_error *err)
{
    return mfi_fold_each(catalog, fold_one, err);
}
