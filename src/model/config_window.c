/* Sliding windows: layer by layer from config.json's layer_types or GGUF's pattern, else by a
 * period. Called while a model is opened; pure look-ups. */
#include <string.h>

#include "model/config.h"

/* What one element of the list says: a name (config.json), or a flag (GGUF). */
static bool says_window(const mfi_json *v, bool *window)
{
    const char *type = mfi_json_str(v, NULL);
    int64_t number;
    if (!type) {
        if (mfi_json_bool(v, window))
            return true;
        if (!mfi_json_i64(v, &number))
            return false;
        *window = number != 0;
        return true;
    }
    *window = strcmp(type, "sliding_attention") == 0;
    return *window || strcmp(type, "full_attention") == 0;
}

mf_status mfi_config_window(const mfi_config *c, mfi_model *model, uint32_t fallback, mf_error *err)
{
    uint32_t window;
    if (!fallback || mfi_config_is_null(c, "sliding_window"))
        fallback = model->ctx_model;
    MFI_TRY(mfi_config_u32(c, "sliding_window", fallback, 1, UINT32_MAX, &window, err));
    if (c->gguf_arch || window >= model->ctx_model)
        return MF_OK;
    memset(model->mixer, MFI_MIXER_WINDOW, model->shape.n_layers);
    model->shape.window = window;
    return MF_OK;
}

mf_status mfi_config_windows(const mfi_config *c, mfi_model *model, uint32_t period, mf_error *err)
{
    uint32_t n_layers = model->shape.n_layers, n_windows = 0;
    const mfi_json *list =
        mfi_config_get(c, c->gguf_arch ? "sliding_window_pattern" : "layer_types");
    int64_t given;
    if (c->gguf_arch && mfi_json_i64(list, &given)) { /* a period */
        if (given < 1 || given > MFI_MAX_LAYERS)
            return mfi_fail(err, MF_ERR_FORMAT, "%s: sliding_window_pattern is impossible",
                            c->path);
        period = (uint32_t)given;
        list = NULL;
    }
    bool listed = mfi_json_typeof(list) != MFI_JSON_NULL;
    if (listed && (mfi_json_typeof(list) != MFI_JSON_ARRAY || mfi_json_len(list) < n_layers))
        return mfi_fail(err, MF_ERR_FORMAT, "%s: layer types must be given for %u layers", c->path,
                        n_layers);
    for (uint32_t i = 0; i < n_layers; i++) {
        const mfi_json *v = mfi_json_at(list, i);
        bool window = (i + 1) % period != 0;
        if (listed && !says_window(v, &window))
            return mfi_fail(err, MF_ERR_UNSUPPORTED,
                            "%s: layer %u is '%s'; known are full_attention and sliding_attention",
                            c->path, i, mfi_json_str(v, NULL) ? mfi_json_str(v, NULL) : "?");
        model->mixer[i] = window ? MFI_MIXER_WINDOW : MFI_MIXER_ATTN;
        n_windows += window;
    }
    if (n_windows == 0)
        return MF_OK;
    return mfi_config_u32(c, "sliding_window", -1, 1, MFI_MAX_CTX, &model->shape.window, err);
}
