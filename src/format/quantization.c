/* Which way of quantising config.json names, and who reads it. The place that refuses all others.
 * Called at open only; touches no tensor data. */
#include <string.h>

#include "format/catalog_build.h"

typedef enum method { METHOD_MLX, METHOD_FP8, METHOD_MXFP4 } method;

/* The section of config.json, NULL if there is none: then the method is MLX's, which has some words
 * for packed tensors without one. */
static mf_status find(const mfi_catalog *catalog, const mfi_json **section, method *out,
                      mf_error *err)
{
    const mfi_json *config = mfi_catalog_config(catalog);
    const mfi_json *q = mfi_json_get(config, "quantization");
    *section = NULL;
    *out = METHOD_MLX;
    if (!q)
        q = mfi_json_get(config, "quantization_config");
    if (!q)
        q = mfi_json_get(mfi_json_get(config, "text_config"), "quantization_config");
    if (!q)
        return MF_OK;
    if (mfi_json_typeof(q) != MFI_JSON_OBJECT)
        return mfi_fail(err, MF_ERR_FORMAT, "%s/config.json: quantization is not an object",
                        mfi_catalog_path(catalog));
    *section = q;
    const char *name = mfi_json_str(mfi_json_get(q, "quant_method"), NULL);
    if (!name)
        return MF_OK;
    if (strcmp(name, "fp8") == 0)
        *out = METHOD_FP8;
    else if (strcmp(name, "mxfp4") == 0)
        *out = METHOD_MXFP4;
    else
        return mfi_fail(err, MF_ERR_UNSUPPORTED,
                        "%s/config.json: quantization method \"%.80s\"; " MFI_QUANT_SUPPORTED,
                        mfi_catalog_path(catalog), name);
    return MF_OK;
}

mf_status mfi_quantization_check(const mfi_catalog *catalog, mf_error *err)
{
    const mfi_json *section;
    method m;
    MFI_TRY(find(catalog, &section, &m, err));
    switch (m) {
    case METHOD_FP8:
        return mfi_fp8_check(catalog, section, err);
    case METHOD_MXFP4:
        return MF_OK; /* it has no parameters */
    default:
        return mfi_mlx_check(catalog, section, err);
    }
}

mf_status mfi_quantization_fold(mfi_catalog *catalog, mf_error *err)
{
    const mfi_json *section;
    method m;
    MFI_TRY(find(catalog, &section, &m, err));
    switch (m) {
    case METHOD_FP8:
        return mfi_fp8_fold(catalog, err);
    case METHOD_MXFP4:
        return mfi_mxfp4_fold(catalog, err);
    default:
        return mfi_mlx_fold(catalog, section, err);
    }
}
