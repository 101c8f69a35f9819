/* What lies beside the weights: sampling defaults and end tokens. Called at open; pure but for
 * reading the files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine_int.h"
#include "text/tokenizer.h"

static void add_eos(mfi_gen_config *c, const mfi_json *v)
{
    int64_t id;
    if (mfi_json_typeof(v) == MFI_JSON_ARRAY) {
        for (size_t i = 0; i < mfi_json_len(v); i++)
            add_eos(c, mfi_json_at(v, i));
        return;
    }
    if (!mfi_json_i64(v, &id) || id < 0 || id > INT32_MAX || c->n_eos == MFI_ARRAY_LEN(c->eos))
        return;
    for (uint32_t i = 0; i < c->n_eos; i++)
        if (c->eos[i] == (int32_t)id)
            return;
    c->eos[c->n_eos++] = (int32_t)id;
}

static void number(const mfi_json *root, const char *key, float *out)
{
    double v;
    if (mfi_json_f64(mfi_json_get(root, key), &v))
        *out = (float)v;
}

static void lay_over(mfi_gen_config *c, const mfi_json *root)
{
    bool do_sample = true;
    int64_t top_k;
    number(root, "temperature", &c->sampling.temperature);
    number(root, "top_p", &c->sampling.top_p);
    number(root, "min_p", &c->sampling.min_p);
    number(root, "repetition_penalty", &c->sampling.repeat_penalty);
    number(root, "presence_penalty", &c->sampling.presence_penalty);
    number(root, "frequency_penalty", &c->sampling.frequency_penalty);
    if (mfi_json_i64(mfi_json_get(root, "top_k"), &top_k) && top_k >= 0 && top_k <= INT32_MAX)
        c->sampling.top_k = (int32_t)top_k;
    if (mfi_json_bool(mfi_json_get(root, "do_sample"), &do_sample) && !do_sample)
        c->sampling.temperature = 0;
    add_eos(c, mfi_json_get(root, "eos_token_id"));
}

/* What GGUF files say of sampling. */
static void lay_over_meta(mfi_gen_config *c, const mfi_json *meta)
{
    static const char *const eos[] = {"eos", "eot", "eom"};
    char key[64];
    int64_t top_k;
    number(meta, "general.sampling.temp", &c->sampling.temperature);
    number(meta, "general.sampling.top_p", &c->sampling.top_p);
    number(meta, "general.sampling.min_p", &c->sampling.min_p);
    number(meta, "general.sampling.penalty_repeat", &c->sampling.repeat_penalty);
    if (mfi_json_i64(mfi_json_get(meta, "general.sampling.top_k"), &top_k) && top_k >= 0 &&
        top_k <= INT32_MAX)
        c->sampling.top_k = (int32_t)top_k;
    for (size_t i = 0; i < MFI_ARRAY_LEN(eos); i++) {
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", eos[i]);
        add_eos(c, mfi_json_get(meta, key));
    }
}

mf_status mfi_gen_config_read(mfi_gen_config *c, const mfi_catalog *catalog,
                              const mf_tokenizer *tokenizer, mf_error *err)
{
    *c = (mfi_gen_config){0};
    mf_sampling_default(&c->sampling);
    char *path = mfi_path_join(mfi_catalog_path(catalog), "generation_config.json");
    if (!path)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a path");
    mf_status status = MF_OK;
    if (mfi_file_exists(path)) {
        mfi_json *root = NULL;
        status = mfi_json_parse_file(path, MFI_MIB, &root, err);
        if (status == MF_OK)
            lay_over(c, root);
        mfi_json_free(&root);
    }
    free(path);
    const mfi_json *config = mfi_catalog_config(catalog);
    add_eos(c, mfi_json_get(config, "eos_token_id"));
    add_eos(c, mfi_json_get(mfi_json_get(config, "text_config"), "eos_token_id"));
    lay_over_meta(c, mfi_catalog_meta(catalog));
    /* Chat models end a turn with this token even where the files name only the end of text. */
    int32_t im_end = tokenizer ? mfi_tokenizer_id(tokenizer, "<|im_end|>") : -1;
    if (im_end >= 0 && c->n_eos < MFI_ARRAY_LEN(c->eos))
        c->eos[c->n_eos++] = im_end;
    return status;
}
