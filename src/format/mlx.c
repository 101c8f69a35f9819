/* MLX quantisation: reads config.json's section about it, and joins each packed X.weight with its
 * X.scales and X.biases into one logical tensor. In mode "mxfp4" there are no biases, and the bytes
 * are those of gpt-oss's own files. Called at open only; touches no tensor data. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/catalog_build.h"

/* What config.json says about one module. */
typedef struct quant_param {
    bool quantised, mxfp4;
    int64_t bits, group;
} quant_param;

/* An override by its path without the wrappers' prefixes; points into the config tree. */
typedef struct short_override {
    const char *path;
    const mfi_json *value;
} short_override;

typedef struct mlx {
    const mfi_catalog *catalog;
    mfi_catalog *building;  /* the same, to be written; NULL while config.json is checked */
    const mfi_json *config; /* "quantization", or NULL */
    quant_param standard;
    short_override *overrides; /* [n_overrides] by path */
    size_t n_overrides;
    mfi_buf name; /* scratch: the module's path, or a tensor's name */
    bool *drop;   /* [n_tensors] */
    mf_error *err;
} mlx;

static mf_status unsupported(const mlx *m, const char *what, const char *value)
{
    return mfi_fail(m->err, MF_ERR_UNSUPPORTED,
                    "%s/config.json: %s \"%.80s\"; " MFI_QUANT_SUPPORTED,
                    mfi_catalog_path(m->catalog), what, value);
}

static mf_status no_memory(const mlx *m)
{
    return mfi_fail(m->err, MF_ERR_NO_MEMORY, "%s: out of memory", mfi_catalog_path(m->catalog));
}

/* ---- config.json ---- */

/* Reads an object {group_size, bits, mode} over *param, which holds the defaults. */
static mf_status read_param(const mlx *m, const mfi_json *v, const char *where, quant_param *param)
{
    const char *mode = mfi_json_str(mfi_json_get(v, "mode"), NULL);
    param->mxfp4 = mode && strcmp(mode, "mxfp4") == 0; /* the model's mode isn't its modules' */
    if (mode && !param->mxfp4 && strcmp(mode, "affine") != 0)
        return unsupported(m, "quantization mode", mode);
    if ((mfi_json_has(v, "bits") && !mfi_json_i64(mfi_json_get(v, "bits"), &param->bits)) ||
        (mfi_json_has(v, "group_size") &&
         !mfi_json_i64(mfi_json_get(v, "group_size"), &param->group)))
        return mfi_fail(
            m->err, MF_ERR_FORMAT,
            "%s/config.json: quantization of %.200s: bits and group_size must be integers",
            mfi_catalog_path(m->catalog), where);
    int64_t bits = param->bits, group = param->group;
    if (bits < 2 || bits > 8 || bits == 7 || (group != 32 && group != 64 && group != 128) ||
        (param->mxfp4 && (bits != 4 || group != 32)))
        return mfi_fail(m->err, MF_ERR_UNSUPPORTED,
                        "%s/config.json: quantization of %.200s with %" PRId64
                        " bits in groups of %" PRId64 "; " MFI_QUANT_SUPPORTED,
                        mfi_catalog_path(m->catalog), where, bits, group);
    param->quantised = true;
    return MF_OK;
}

/* Tensor names and overrides may differ in the prefixes of wrapping modules. */
static const char *without_wrappers(const char *path)
{
    static const char *const wrappers[] = {"language_model.", "model."};
    for (size_t i = 0; i < MFI_ARRAY_LEN(wrappers);) {
        size_t n = strlen(wrappers[i]);
        if (strncmp(path, wrappers[i], n) == 0) {
            path += n;
            i = 0;
        } else {
            i++;
        }
    }
    return path;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const short_override *)a)->path, ((const short_override *)b)->path);
}

static bool is_override(const mfi_json *v)
{
    mfi_json_type type = mfi_json_typeof(v);
    return type == MFI_JSON_OBJECT || type == MFI_JSON_BOOL;
}

static mf_status read_overrides(mlx *m)
{
    size_t n = mfi_json_len(m->config);
    m->overrides = malloc(n * sizeof *m->overrides + 1);
    if (!m->overrides)
        return no_memory(m);
    for (size_t i = 0; i < n; i++) {
        const char *key;
        const mfi_json *v = mfi_json_member(m->config, i, &key);
        if (is_override(v))
            m->overrides[m->n_overrides++] = (short_override){without_wrappers(key), v};
    }
    qsort(m->overrides, m->n_overrides, sizeof *m->overrides, by_path);
    return MF_OK;
}

/* Parameters of the module whose path is in m->name. */
static mf_status module_param(const mlx *m, quant_param *param)
{
    *param = m->standard;
    const char *path = m->name.data;
    const mfi_json *v = mfi_json_get(m->config, path);
    if (!is_override(v)) {
        short_override key = {without_wrappers(path), NULL};
        const short_override *found =
            bsearch(&key, m->overrides, m->n_overrides, sizeof *m->overrides, by_path);
        v = found ? found->value : NULL;
    }
    bool on;
    if (mfi_json_bool(v, &on)) {
        param->quantised = on;
        return MF_OK;
    }
    return v ? read_param(m, v, path, param) : MF_OK;
}

static mf_status read_config(mlx *m, const mfi_json *section)
{
    if (!section)
        return MF_OK;
    const char *mode = mfi_json_str(mfi_json_get(section, "mode"), NULL);
    if (mode && strcmp(mode, "affine") != 0 && strcmp(mode, "mxfp4") != 0)
        return unsupported(m, "quantization mode", mode);
    if (!mfi_json_has(section, "bits") || !mfi_json_has(section, "group_size"))
        return mfi_fail(
            m->err, MF_ERR_UNSUPPORTED,
            "%s/config.json: a quantization without bits and group_size; " MFI_QUANT_SUPPORTED,
            mfi_catalog_path(m->catalog));
    m->config = section;
    MFI_TRY(read_param(m, section, "the model", &m->standard));
    return read_overrides(m);
}

/* ---- tensors ---- */

/* The tensor of the module in m->name with this suffix, or MFI_TENSOR_NONE. m->name is kept. */
static uint32_t find_part(mlx *m, const char *suffix)
{
    size_t len = m->name.len;
    mfi_buf_str(&m->name, suffix);
    uint32_t id = m->name.failed ? MFI_TENSOR_NONE : mfi_catalog_find(m->catalog, m->name.data);
    m->name.len = len;
    if (m->name.data)
        m->name.data[len] = 0;
    return id;
}

static mf_status bad_part(const mlx *m, uint32_t id, const char *why)
{
    const mfi_tensor *tensor = mfi_catalog_tensor(m->catalog, id);
    return mfi_fail(m->err, MF_ERR_TENSOR_SHAPE, "%s: tensor %.200s: %s",
                    mfi_catalog_file(m->catalog, tensor->file[0])->path,
                    mfi_catalog_name(m->catalog, id), why);
}

/* Scales or biases must have the weight's dims with one element a group in the last. */
static mf_status check_part(const mlx *m, uint32_t id, const mfi_tensor *weight, uint64_t n_groups,
                            bool mxfp4)
{
    const mfi_tensor *part = mfi_catalog_tensor(m->catalog, id);
    if (mxfp4 && mfi_catalog_dtype(m->catalog, id) != MFI_DTYPE_U8)
        return bad_part(m, id, "scales of mode mxfp4 must be of dtype U8");
    if (!mxfp4 && !mfi_qtype_is_float(part->type))
        return bad_part(m, id, "scales and biases must be floats");
    uint32_t last = weight->n_dims - 1u;
    if (part->n_dims != weight->n_dims ||
        memcmp(part->dims, weight->dims, last * sizeof weight->dims[0]) != 0)
        return bad_part(m, id, "its rows are not those of its packed weight");
    if (part->dims[last] != n_groups) {
        char why[160];
        snprintf(why, sizeof why,
                 "%" PRIu32 " groups a row, but its packed weight has %" PRIu64
                 " by the bits and group_size in config.json",
                 part->dims[last], n_groups);
        return bad_part(m, id, why);
    }
    return MF_OK;
}

/* What mode "mxfp4" says with two planes. */
static void fold_mxfp4(mlx *m, mfi_tensor *weight, uint32_t scales_id)
{
    const mfi_tensor *scales = mfi_catalog_tensor(m->catalog, scales_id);
    weight->type = (mfi_qtype){.kind = MFI_Q_MXFP4, .bits = 4};
    weight->offset[1] = scales->offset[0];
    weight->file[1] = scales->file[0];
    m->drop[scales_id] = true;
}

static mf_status fold(mlx *m, uint32_t id, uint32_t scales_id, const quant_param *param)
{
    mfi_tensor *weight = mfi_catalog_edit(m->building, id);
    uint32_t biases_id = find_part(m, ".biases");
    if (biases_id == MFI_TENSOR_NONE && !param->mxfp4)
        return mfi_fail(m->err, MF_ERR_TENSOR_MISSING, "%s: tensor %.200s.biases is missing",
                        mfi_catalog_path(m->catalog), m->name.data);
    if (weight->n_dims == 0)
        return bad_part(m, id, "a packed weight must have rows");
    uint64_t n_bits = mfi_tensor_cols(weight) * 32;
    uint64_t cols = n_bits / (uint64_t)param->bits;
    if (n_bits % (uint64_t)param->bits != 0 || cols % (uint64_t)param->group != 0 ||
        cols > MFI_MAX_DIM)
        return bad_part(m, id,
                        "its rows are not whole groups by the bits and group_size in config.json");
    uint64_t n_groups = cols / (uint64_t)param->group;
    MFI_TRY(check_part(m, scales_id, weight, n_groups, param->mxfp4));
    if (param->mxfp4) {
        weight->dims[weight->n_dims - 1] = (uint32_t)cols;
        fold_mxfp4(m, weight, scales_id);
        return MF_OK;
    }
    MFI_TRY(check_part(m, biases_id, weight, n_groups, false));
    const mfi_tensor *scales = mfi_catalog_tensor(m->catalog, scales_id);
    const mfi_tensor *biases = mfi_catalog_tensor(m->catalog, biases_id);
    if (scales->type.kind != biases->type.kind)
        return bad_part(m, biases_id, "its type is not that of the scales");
    weight->dims[weight->n_dims - 1] = (uint32_t)cols;
    weight->type =
        (mfi_qtype){MFI_Q_MLX, (uint8_t)param->bits, scales->type.kind, (uint8_t)param->group};
    weight->offset[1] = scales->offset[0];
    weight->file[1] = scales->file[0];
    weight->offset[2] = biases->offset[0];
    weight->file[2] = biases->file[0];
    m->drop[scales_id] = true;
    m->drop[biases_id] = true;
    return MF_OK;
}

/* Sets m->name to the module's path if tensor `id` is a packed X.weight. */
static bool is_packed(mlx *m, uint32_t id)
{
    static const char suffix[] = ".weight";
    const size_t n = sizeof suffix - 1;
    if (mfi_catalog_dtype(m->catalog, id) != MFI_DTYPE_U32)
        return false;
    const char *name = mfi_catalog_name(m->catalog, id);
    size_t len = strlen(name);
    if (len <= n || strcmp(name + len - n, suffix) != 0)
        return false;
    m->name.len = 0;
    mfi_buf_append(&m->name, name, len - n);
    return true;
}

static mf_status fold_one(mlx *m, uint32_t id)
{
    if (!is_packed(m, id))
        return MF_OK;
    uint32_t scales_id = find_part(m, ".scales");
    if (m->name.failed)
        return no_memory(m);
    if (!m->config && scales_id == MFI_TENSOR_NONE)
        return MF_OK; /* some integers */
    if (!m->config)
        return bad_part(m, id, "is packed and has scales, but config.json has no \"quantization\"");
    quant_param param;
    MFI_TRY(module_param(m, &param));
    if (!param.quantised)
        return bad_part(m, id, "is packed, but config.json says that it is not quantised");
    if (scales_id == MFI_TENSOR_NONE)
        return mfi_fail(m->err, MF_ERR_TENSOR_MISSING, "%s: tensor %.200s.scales is missing",
                        mfi_catalog_path(m->catalog), m->name.data);
    return fold(m, id, scales_id, &param);
}

mf_status mfi_mlx_check(const mfi_catalog *catalog, const mfi_json *section, mf_error *err)
{
    mlx m = {.catalog = catalog, .err = err};
    mf_status status = read_config(&m, section);
    free(m.overrides);
    return status;
}

mf_status mfi_mlx_fold(mfi_catalog *catalog, const mfi_json *section, mf_error *err)
{
    mlx m = {.catalog = catalog, .building = catalog, .err = err};
    mf_status status = read_config(&m, section);
    uint32_t n = mfi_catalog_n_tensors(catalog);
    if (status == MF_OK && !(m.drop = calloc((size_t)n + 1, sizeof *m.drop)))
        status = no_memory(&m);
    for (uint32_t id = 0; id < n && status == MF_OK; id++)
        status = fold_one(&m, id);
    if (status == MF_OK && memchr(m.drop, true, n))
        status = mfi_catalog_drop(catalog, m.drop, err);
    free(m.drop);
    free(m.overrides);
    mfi_buf_free(&m.name);
    return status;
}
