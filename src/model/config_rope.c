/* Rotary hyper-parameters: Hugging Face's rope_parameters (or rope_scaling with rope_theta beside
 * it) and GGUF's rope.* keys. Called while a model is opened; pure look-ups. */
#include <string.h>

#include "model/config.h"

/* A number: in the object of config.json, beside it, or in GGUF's metadata under a name of its own.
 */
typedef struct rope_key {
    const char *hf, *gguf;
    double min, max;
} rope_key;

static const rope_key key_theta = {"rope_theta", "rope_theta", 1, 1e30};
static const rope_key key_partial = {"partial_rotary_factor", NULL, 0, 1};
static const rope_key key_factor = {"factor", "rope_factor", 1e-3, 1e6};
static const rope_key key_original = {"original_max_position_embeddings", "rope_original_ctx", 1,
                                      MFI_MAX_CTX};
static const rope_key key_attn = {"attention_factor", "rope_attn_factor", 1e-3, 1e3};
static const rope_key key_fast = {"beta_fast", "rope_beta_fast", 1e-3, 1e6};
static const rope_key key_slow = {"beta_slow", "rope_beta_slow", 1e-3, 1e6};
static const rope_key key_high = {"high_freq_factor", NULL, 1e-3, 1e6};
static const rope_key key_low = {"low_freq_factor", NULL, 1e-3, 1e6};
static const rope_key key_mscale = {"mscale", NULL, 0, 1e3};
static const rope_key key_mscale_all = {"mscale_all_dim", NULL, 0, 1e3};
static const rope_key key_log_mul = {NULL, "rope_log_multiplier", 0, 1e2};
/* llama.cpp's readers take 0 for absent, and know an older name. */
static const rope_key key_gguf_factor = {NULL, "rope_factor", 0, 1e6};
static const rope_key key_gguf_older = {NULL, "rope_scale_linear", 0, 1e6};
static const rope_key key_gguf_original = {NULL, "rope_original_ctx", 0, MFI_MAX_CTX};

typedef struct reader {
    const mfi_config *c;
    const mfi_json *object; /* NULL in GGUF */
    mf_error *err;
} reader;

/* Over *out; as it was where the file doesn't say. */
static mf_status read_key(const reader *r, const rope_key *key, double *out)
{
    const char *name = r->c->gguf_arch ? key->gguf : key->hf;
    if (!name)
        return MF_OK;
    const mfi_json *v = mfi_json_get(r->object, name);
    if (mfi_json_typeof(v) == MFI_JSON_NULL)
        v = mfi_config_get(r->c, name);
    return mfi_config_number(r->c, v, name, key->min, key->max, out, r->err);
}

static mf_status read_original(const reader *r, mfi_rope *rope)
{
    double original = 0;
    uint32_t most;
    MFI_TRY(mfi_config_u32(r->c, "max_position_embeddings", 32768, 1, MFI_MAX_CTX, &most, r->err));
    MFI_TRY(read_key(r, r->c->gguf_arch ? &key_gguf_original : &key_original, &original));
    rope->original_ctx = original > 0 ? (uint32_t)original : most;
    return MF_OK;
}

/* What the cosines and sines are multiplied by, where the file doesn't say: YaRN's scale, or the
 * ratio of two such scales (DeepSeek). llama.cpp's files tell of the latter by the logarithm's
 * weight alone, a tenth of mscale_all_dim, and take the ratio for 1. */
static mf_status read_attn_factor(const reader *r, mfi_rope *rope)
{
    double mscale = 0, log_mul = 0, given = 0;
    MFI_TRY(read_key(r, &key_mscale, &mscale));
    MFI_TRY(read_key(r, &key_mscale_all, &rope->mscale_all_dim));
    if (r->c->gguf_arch && strcmp(r->c->gguf_arch, "deepseek2") == 0)
        MFI_TRY(read_key(r, &key_log_mul, &log_mul)); /* others don't read it */
    MFI_TRY(read_key(r, &key_attn, &given));
    if (log_mul > 0)
        mscale = rope->mscale_all_dim = 10 * log_mul;
    rope->attn_factor = mfi_rope_mscale(rope->factor, 1);
    if (mscale > 0 && rope->mscale_all_dim > 0)
        rope->attn_factor = mfi_rope_mscale(rope->factor, mscale) /
                            mfi_rope_mscale(rope->factor, rope->mscale_all_dim);
    if (given > 0) /* in GGUF on top of the scale, in config.json in its place */
        rope->attn_factor = r->c->gguf_arch ? rope->attn_factor * given : given;
    return MF_OK;
}

static mf_status read_yarn(const reader *r, mfi_rope *rope)
{
    bool truncate = true;
    rope->beta_fast = 32;
    rope->beta_slow = 1;
    MFI_TRY(read_key(r, &key_fast, &rope->beta_fast));
    MFI_TRY(read_key(r, &key_slow, &rope->beta_slow));
    MFI_TRY(read_original(r, rope));
    const mfi_json *v = r->c->gguf_arch ? mfi_config_get(r->c, "rope_truncate")
                                        : mfi_json_get(r->object, "truncate");
    if (mfi_json_typeof(v) != MFI_JSON_NULL && !mfi_json_bool(v, &truncate))
        return mfi_fail(r->err, MF_ERR_FORMAT,
                        "%s: config.json: truncate is neither true nor false", r->c->path);
    rope->exact = !truncate;
    return read_attn_factor(r, rope);
}

static mf_status read_llama3(const reader *r, mfi_rope *rope)
{
    rope->beta_fast = 4;
    rope->beta_slow = 1;
    MFI_TRY(read_key(r, &key_high, &rope->beta_fast));
    MFI_TRY(read_key(r, &key_low, &rope->beta_slow));
    if (!(rope->beta_fast > rope->beta_slow))
        return mfi_fail(r->err, MF_ERR_FORMAT,
                        "%s: config.json: high_freq_factor must be larger than low_freq_factor",
                        r->c->path);
    return read_original(r, rope);
}

static mf_status unknown_kind(const reader *r, const char *type)
{
    return mfi_fail(r->err, MF_ERR_UNSUPPORTED, "%s: rope type '%s' (known here: %s)", r->c->path,
                    type, r->c->gguf_arch ? "none, linear, yarn" : "default, linear, yarn, llama3");
}

/* llama.cpp's readers: a factor without a type is linear, a type without a factor scales by 1, and
 * attn_factor counts whatever the type. */
static mf_status read_gguf_kind(const reader *r, mfi_rope *rope)
{
    const mfi_json *v = mfi_config_get(r->c, "rope_type");
    const char *type = mfi_json_typeof(v) == MFI_JSON_NULL ? "linear" : mfi_json_str(v, NULL);
    double factor = 0;
    if (!type)
        return mfi_fail(r->err, MF_ERR_FORMAT, "%s: rope.scaling.type is not text", r->c->path);
    if (strcmp(type, "none") != 0 && strcmp(type, "linear") != 0 && strcmp(type, "yarn") != 0)
        return unknown_kind(r, type);
    rope->kind = MFI_ROPE_PLAIN;
    rope->factor = 1;
    MFI_TRY(read_key(r, &key_attn, &rope->attn_factor));
    if (strcmp(type, "none") == 0)
        return MF_OK;
    MFI_TRY(read_key(r, &key_gguf_older, &factor));
    MFI_TRY(read_key(r, &key_gguf_factor, &factor));
    if (factor > 0)
        rope->factor = factor;
    if (strcmp(type, "yarn") == 0) {
        rope->kind = MFI_ROPE_YARN;
        return read_yarn(r, rope);
    }
    rope->kind = rope->factor != 1 ? MFI_ROPE_LINEAR : MFI_ROPE_PLAIN;
    return MF_OK;
}

static mf_status read_kind(const reader *r, mfi_rope *rope)
{
    const mfi_json *v = mfi_json_get(r->object, "rope_type");
    if (r->c->gguf_arch)
        return read_gguf_kind(r, rope);
    if (mfi_json_typeof(v) == MFI_JSON_NULL)
        v = mfi_json_get(r->object, "type");
    const char *type = mfi_json_str(v, NULL);
    if (!type && (mfi_json_typeof(v) != MFI_JSON_NULL ||
                  mfi_json_typeof(mfi_json_get(r->object, "factor")) != MFI_JSON_NULL))
        return mfi_fail(r->err, MF_ERR_FORMAT,
                        "%s: rotary scaling without a rope_type that is text", r->c->path);
    rope->kind = MFI_ROPE_PLAIN;
    rope->factor = 1;
    if (!type || strcmp(type, "default") == 0 || strcmp(type, "none") == 0)
        return MF_OK;
    if (strcmp(type, "linear") == 0)
        rope->kind = MFI_ROPE_LINEAR;
    else if (strcmp(type, "yarn") == 0)
        rope->kind = MFI_ROPE_YARN;
    else if (strcmp(type, "llama3") == 0)
        rope->kind = MFI_ROPE_LLAMA3;
    else
        return unknown_kind(r, type);
    rope->factor = 0;
    MFI_TRY(read_key(r, &key_factor, &rope->factor));
    if (rope->factor == 0)
        return mfi_fail(r->err, MF_ERR_FORMAT, "%s: rope type '%s' without a factor", r->c->path,
                        type);
    if (rope->kind == MFI_ROPE_YARN)
        return read_yarn(r, rope);
    return rope->kind == MFI_ROPE_LLAMA3 ? read_llama3(r, rope) : MF_OK;
}

/* r->object, or NULL if the file has none of this name. */
static mf_status find_object(reader *r, const char *name)
{
    const mfi_json *v = mfi_config_get(r->c, name);
    r->object = mfi_json_typeof(v) == MFI_JSON_OBJECT ? v : NULL;
    if (!r->object && mfi_json_typeof(v) != MFI_JSON_NULL)
        return mfi_fail(r->err, MF_ERR_FORMAT, "%s: %s is no object", r->c->path, name);
    return MF_OK;
}

mf_status mfi_config_rope(const mfi_config *c, mfi_shape *s, double theta, double partial,
                          mf_error *err)
{
    reader r = {c, NULL, err};
    double dims = 0;
    s->rope = (mfi_rope){.theta = c->gguf_arch ? 1e4 : theta, .attn_factor = 1};
    MFI_TRY(find_object(&r, "rope_parameters"));
    if (!r.object)
        MFI_TRY(find_object(&r, "rope_scaling"));
    MFI_TRY(read_key(&r, &key_theta, &s->rope.theta));
    if (partial == MFI_ROPE_WHOLE || c->gguf_arch)
        partial = 1; /* what else is said isn't read by the families' own code */
    else
        MFI_TRY(read_key(&r, &key_partial, &partial));
    MFI_TRY(read_kind(&r, &s->rope));
    double n_rot = (double)s->head_dim * partial;
    MFI_TRY(mfi_config_number(c, mfi_config_get(c, "rope_dims"), "rope_dims", 0, MFI_MAX_HEAD_DIM,
                              &dims, err));
    n_rot = dims > 0 ? dims : n_rot;
    if (!(s->rope.theta > 1) || !(n_rot >= 2) || n_rot > s->head_dim || (uint32_t)n_rot % 2 != 0)
        return mfi_fail(err, MF_ERR_FORMAT,
                        "%s: %g rotary dimensions of %u with base %g are impossible", c->path,
                        n_rot, s->head_dim, s->rope.theta);
    s->n_rot = (uint32_t)n_rot;
    if (!s->latent_kv)
        s->rope.mscale_all_dim = 0; /* has done its part in attn_factor */
    return MF_OK;
}
