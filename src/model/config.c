/* Reading hyper-parameters: one set of names (Hugging Face's) over config.json and over GGUF
 * metadata. Called while a model is opened; pure look-ups. */
#include "model/config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* What GGUF calls it, after "<architecture>.". */
static const struct {
    const char *key, *gguf;
} aliases[] = {
    {"num_hidden_layers", "block_count"},
    {"hidden_size", "embedding_length"},
    {"max_position_embeddings", "context_length"},
    {"num_attention_heads", "attention.head_count"},
    {"num_key_value_heads", "attention.head_count_kv"},
    {"head_dim", "attention.key_length"},
    {"rms_norm_eps", "attention.layer_norm_rms_epsilon"},
    {"rope_theta", "rope.freq_base"},
    {"rope_theta_windows", "rope.freq_base_swa"},
    {"rope_dims", "rope.dimension_count"},
    {"rope_type", "rope.scaling.type"},
    {"rope_factor", "rope.scaling.factor"},
    {"rope_scale_linear", "rope.scale_linear"},
    {"causal", "attention.causal"},
    {"rope_original_ctx", "rope.scaling.original_context_length"},
    {"rope_attn_factor", "rope.scaling.attn_factor"},
    {"rope_log_multiplier", "rope.scaling.yarn_log_multiplier"},
    {"rope_beta_fast", "rope.scaling.yarn_beta_fast"},
    {"rope_beta_slow", "rope.scaling.yarn_beta_slow"},
    {"rope_truncate", "rope.scaling.yarn_truncate"}, /* our own: llama.cpp has none */
    {"vocab_size", "vocab_size"},
    {"num_experts", "expert_count"},
    {"num_experts_per_tok", "expert_used_count"},
    {"moe_intermediate_size", "expert_feed_forward_length"},
    {"shared_expert_intermediate_size", "expert_shared_feed_forward_length"},
    {"intermediate_size", "feed_forward_length"},
    {"rope_finetuned", "rope.scaling.finetuned"},
    {"clip_qkv", "attention.clamp_kqv"},
    {"first_k_dense_replace", "leading_dense_block_count"},
    {"n_shared_experts", "expert_shared_count"},
    {"gating_func", "expert_gating_func"},
    {"norm_topk_prob", "expert_weights_norm"},
    {"routed_scaling_factor", "expert_weights_scale"},
    {"n_group", "expert_group_count"},
    {"topk_group", "expert_group_used_count"},
    {"attention_multiplier", "attention.scale"},
    {"embedding_multiplier", "embedding_scale"},
    {"residual_multiplier", "residual_scale"},
    {"logits_scaling", "logit_scale"},
    {"q_lora_rank", "attention.q_lora_rank"},
    {"kv_lora_rank", "attention.kv_lora_rank"},
    {"key_length_mla", "attention.key_length_mla"},
    {"value_length_mla", "attention.value_length_mla"},
    {"value_length", "attention.value_length"},
    {"temperature_scale", "attention.temperature_scale"},
    {"moe_layer_interval", "interleave_moe_layer_step"},
    {"sliding_window", "attention.sliding_window"},
    {"sliding_window_pattern", "attention.sliding_window_pattern"},
    {"linear_num_key_heads", "ssm.group_count"},
    {"linear_num_value_heads", "ssm.time_step_rank"},
    {"linear_key_head_dim", "ssm.state_size"},
    {"linear_inner_size", "ssm.inner_size"},
    {"linear_conv_kernel_dim", "ssm.conv_kernel"},
    {"full_attention_interval", "full_attention_interval"},
    {"recurrent_layers", "attention.recurrent_layers"},
    {"mtp_layers", "nextn_predict_layers"},
};

const char *mfi_config_alias(uint32_t i, const char **key)
{
    if (i >= MFI_ARRAY_LEN(aliases))
        return NULL;
    *key = aliases[i].key;
    return aliases[i].gguf;
}

const mfi_json *mfi_config_get(const mfi_config *config, const char *key)
{
    if (!config->gguf_arch)
        return mfi_json_get(config->root, key);
    for (size_t i = 0; i < MFI_ARRAY_LEN(aliases); i++) {
        char name[160];
        if (strcmp(aliases[i].key, key) != 0)
            continue;
        snprintf(name, sizeof name, "%.64s.%s", config->gguf_arch, aliases[i].gguf);
        return mfi_json_get(config->root, name);
    }
    return NULL;
}

bool mfi_config_has(const mfi_config *config, const char *key)
{
    return mfi_json_typeof(mfi_config_get(config, key)) != MFI_JSON_NULL;
}

bool mfi_config_is_null(const mfi_config *config, const char *key)
{
    return !config->gguf_arch && mfi_json_has(config->root, key) && !mfi_config_has(config, key);
}

/* The name as the file has it, for messages. */
static const char *shown_key(const mfi_config *config, const char *key, char *name, size_t cap)
{
    snprintf(name, cap, "config.json: %s", key);
    for (size_t i = 0; config->gguf_arch && i < MFI_ARRAY_LEN(aliases); i++)
        if (strcmp(aliases[i].key, key) == 0)
            snprintf(name, cap, "metadata %.64s.%s", config->gguf_arch, aliases[i].gguf);
    return name;
}

/* GGUF writes some sizes a layer, with 0 where the layer has none: the largest speaks for all. */
static const mfi_json *largest(const mfi_json *v)
{
    const mfi_json *best = NULL;
    int64_t most = INT64_MIN, n;
    if (mfi_json_typeof(v) != MFI_JSON_ARRAY)
        return v;
    for (size_t i = 0; i < mfi_json_len(v); i++)
        if (mfi_json_i64(mfi_json_at(v, i), &n) && n > most) {
            most = n;
            best = mfi_json_at(v, i);
        }
    return best;
}

mf_status mfi_config_u32(const mfi_config *config, const char *key, int64_t fallback, uint32_t min,
                         uint32_t max, uint32_t *out, mf_error *err)
{
    char name[192];
    const mfi_json *v = mfi_config_get(config, key);
    if (config->gguf_arch)
        v = largest(v);
    int64_t n = fallback;
    if (mfi_json_typeof(v) == MFI_JSON_NULL) {
        if (fallback < 0)
            return mfi_fail(err, MF_ERR_FORMAT, "%s: %s is missing", config->path,
                            shown_key(config, key, name, sizeof name));
    } else if (!mfi_json_i64(v, &n)) {
        return mfi_fail(err, MF_ERR_FORMAT, "%s: %s is not an integer", config->path,
                        shown_key(config, key, name, sizeof name));
    }
    if (n < (int64_t)min || n > (int64_t)max)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: %s is %" PRId64 "; from %u to %u is possible",
                        config->path, shown_key(config, key, name, sizeof name), n, min, max);
    *out = (uint32_t)n;
    return MF_OK;
}

mf_status mfi_config_number(const mfi_config *config, const mfi_json *v, const char *key,
                            double min, double max, double *out, mf_error *err)
{
    char name[192];
    double n;
    if (mfi_json_typeof(v) == MFI_JSON_NULL)
        return MF_OK;
    if (!mfi_json_f64(v, &n))
        return mfi_fail(err, MF_ERR_FORMAT, "%s: %s is not a number", config->path,
                        shown_key(config, key, name, sizeof name));
    if (!(n >= min && n <= max))
        return mfi_fail(err, MF_ERR_FORMAT, "%s: %s is %g; from %g to %g is possible", config->path,
                        shown_key(config, key, name, sizeof name), n, min, max);
    *out = n;
    return MF_OK;
}

mf_status mfi_config_flag(const mfi_config *config, const char *key, bool *out, mf_error *err)
{
    char name[192];
    const mfi_json *v = mfi_config_get(config, key);
    if (mfi_json_typeof(v) != MFI_JSON_NULL && !mfi_json_bool(v, out))
        return mfi_fail(err, MF_ERR_FORMAT, "%s: %s is neither true nor false", config->path,
                        shown_key(config, key, name, sizeof name));
    return MF_OK;
}

mf_status mfi_config_require(const mfi_config *config, const char *key, bool want, mf_error *err)
{
    char name[192];
    bool value = want;
    MFI_TRY(mfi_config_flag(config, key, &value, err));
    if (value != want)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: %s %s is not supported", config->path,
                        shown_key(config, key, name, sizeof name), value ? "true" : "false");
    return MF_OK;
}

/* ---- pieces that several families share ---- */

mf_status mfi_config_attention(const mfi_config *c, mfi_shape *s, mf_error *err)
{
    MFI_TRY(mfi_config_u32(c, "num_attention_heads", -1, 1, 4096, &s->n_head, err));
    MFI_TRY(mfi_config_u32(c, "num_key_value_heads", s->n_head, 1, 4096, &s->n_kv_head, err));
    MFI_TRY(mfi_config_u32(c, "head_dim", s->hidden / s->n_head, 2, MFI_MAX_HEAD_DIM, &s->head_dim,
                           err));
    if (s->n_head % s->n_kv_head != 0)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: %u attention heads don't divide over %u KV heads",
                        c->path, s->n_head, s->n_kv_head);
    return MF_OK;
}

mf_status mfi_config_experts(const mfi_config *c, mfi_shape *s, const char *width_key,
                             mf_error *err)
{
    static const char *const names[] = {"num_local_experts", "n_routed_experts"};
    const char *n = "num_experts";
    for (size_t i = 0; i < MFI_ARRAY_LEN(names); i++)
        if (mfi_config_has(c, names[i]) && !mfi_config_has(c, n))
            n = names[i];
    MFI_TRY(mfi_config_u32(c, n, -1, 1, MFI_MAX_EXPERTS, &s->n_experts, err));
    MFI_TRY(mfi_config_u32(c, "num_experts_per_tok", -1, 1, MFI_MAX_TOP_K, &s->top_k, err));
    MFI_TRY(mfi_config_u32(c, width_key, -1, 1, 1 << 20, &s->expert_width, err));
    if (s->top_k > s->n_experts)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: top-%u of %u experts is impossible", c->path,
                        s->top_k, s->n_experts);
    return c->gguf_arch ? mfi_config_groups(c, s, err) : MF_OK;
}

mf_status mfi_config_gdn(const mfi_config *c, mfi_shape *s, mf_error *err)
{
    uint32_t inner = 0;
    MFI_TRY(mfi_config_u32(c, "linear_num_key_heads", -1, 1, 4096, &s->gdn_k_heads, err));
    MFI_TRY(mfi_config_u32(c, "linear_num_value_heads", -1, 1, 4096, &s->gdn_v_heads, err));
    MFI_TRY(mfi_config_u32(c, "linear_key_head_dim", -1, 1, MFI_MAX_HEAD_DIM, &s->gdn_k_dim, err));
    if (c->gguf_arch) {
        MFI_TRY(mfi_config_u32(c, "linear_inner_size", -1, 1, 1 << 22, &inner, err));
        s->gdn_v_dim = inner / s->gdn_v_heads;
        if (inner % s->gdn_v_heads != 0 || s->gdn_v_dim > MFI_MAX_HEAD_DIM)
            return mfi_fail(err, MF_ERR_FORMAT, "%s: ssm.inner_size %u over %u heads is impossible",
                            c->path, inner, s->gdn_v_heads);
    } else {
        MFI_TRY(mfi_config_u32(c, "linear_value_head_dim", -1, 1, MFI_MAX_HEAD_DIM, &s->gdn_v_dim,
                               err));
    }
    MFI_TRY(mfi_config_u32(c, "linear_conv_kernel_dim", 4, 1, 16, &s->conv_kernel, err));
    if (s->gdn_v_heads % s->gdn_k_heads != 0)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: %u value heads don't divide over %u key heads",
                        c->path, s->gdn_v_heads, s->gdn_k_heads);
    return MF_OK;
}

/* Keys that not every family reads; where one stands it must be what it is elsewhere. */
static mf_status check_types(const mfi_config *c, mf_error *err)
{
    static const char *const integers[] = {"n_group", "topk_group", "sliding_window"};
    const mfi_json *dense = mfi_config_get(c, "mlp_only_layers");
    double number;
    int64_t integer;
    for (size_t i = 0; i < MFI_ARRAY_LEN(integers); i++)
        if (mfi_config_has(c, integers[i]) &&
            !mfi_json_i64(mfi_config_get(c, integers[i]), &integer))
            return mfi_fail(err, MF_ERR_FORMAT, "%s: config.json: %s is not an integer", c->path,
                            integers[i]);
    if (mfi_json_typeof(dense) != MFI_JSON_NULL && mfi_json_typeof(dense) != MFI_JSON_ARRAY)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: config.json: mlp_only_layers is not a list",
                        c->path);
    if (!mfi_config_has(c, "routed_scaling_factor"))
        return MF_OK;
    if (!mfi_json_f64(mfi_config_get(c, "routed_scaling_factor"), &number))
        return mfi_fail(err, MF_ERR_FORMAT,
                        "%s: config.json: routed_scaling_factor is not a number", c->path);
    return number != 0 ? MF_OK
                       : mfi_fail(err, MF_ERR_FORMAT,
                                  "%s: config.json: routed_scaling_factor is 0: that would be a "
                                  "model without routed experts",
                                  c->path);
}

mf_status mfi_config_common(const mfi_config *c, mfi_shape *s, mf_error *err)
{
    if (!c->gguf_arch)
        MFI_TRY(check_types(c, err));
    double eps = s->eps > 0 ? (double)s->eps : 1e-6;
    MFI_TRY(
        mfi_config_number(c, mfi_config_get(c, "rms_norm_eps"), "rms_norm_eps", 0, 1, &eps, err));
    s->eps = (float)eps;
    const mfi_json *act_json = mfi_config_get(c, "hidden_act");
    const char *act = mfi_json_str(act_json, NULL);
    if (mfi_json_typeof(act_json) != MFI_JSON_NULL && (!act || strcmp(act, "silu") != 0))
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: config.json: hidden_act '%s' (known: silu)",
                        c->path, act ? act : "?");
    return MF_OK;
}

/* A multiplier (0 and absent: none). */
static mf_status read_scale(const mfi_config *c, const char *key, float *out, mf_error *err)
{
    double scale = 0;
    MFI_TRY(mfi_config_number(c, mfi_config_get(c, key), key, 0, 1e6, &scale, err));
    if (scale != 0)
        *out = (float)scale;
    return MF_OK;
}

mf_status mfi_config_scales(const mfi_config *c, mfi_shape *s, mf_error *err)
{
    float divisor = 1;
    MFI_TRY(read_scale(c, "attention_multiplier", &s->attn_scale, err));
    MFI_TRY(read_scale(c, "embedding_multiplier", &s->embed_scale, err));
    MFI_TRY(read_scale(c, "residual_multiplier", &s->residual_scale, err));
    MFI_TRY(read_scale(c, "logits_scaling", &divisor, err));
    s->logit_scale = 1 / divisor;
    return MF_OK;
}

bool mfi_config_has_tensor(const mfi_model *model, const char *name)
{
    return mfi_catalog_find(model->catalog, name) != MFI_TENSOR_NONE;
}

bool mfi_config_has_layer_tensor(const mfi_model *model, const char *name)
{
    for (uint32_t i = 0; i < model->shape.n_layers; i++) {
        char full[160];
        snprintf(full, sizeof full, "blk.%u.%s", i, name);
        if (mfi_config_has_tensor(model, full))
            return true;
    }
    return false;
}

void mfi_config_no_bias(mfi_model *model)
{
    model->omit[MFI_ROLE_ATTN_Q_BIAS] = model->omit[MFI_ROLE_ATTN_K_BIAS] =
        model->omit[MFI_ROLE_ATTN_V_BIAS] = model->omit[MFI_ROLE_ATTN_O_BIAS] = true;
}

mf_status mfi_config_bias(const mfi_config *c, mfi_model *model, bool paired, mf_error *err)
{
    bool bias = !paired && c->gguf_arch && mfi_config_has_layer_tensor(model, "attn_q.bias");
    if (!c->gguf_arch)
        MFI_TRY(mfi_config_flag(c, "attention_bias", &bias, err));
    if (!bias)
        mfi_config_no_bias(model);
    model->omit[MFI_ROLE_ATTN_O_BIAS] = !bias || c->gguf_arch;
    return MF_OK;
}

/* Hybrid models: which layers are attention. Said layer by layer or by an interval. */
mf_status mfi_config_hybrid(const mfi_config *c, uint32_t n_layers, uint8_t *mixer, mf_error *err)
{
    uint32_t interval;
    MFI_TRY(mfi_config_u32(c, "full_attention_interval", 4, 1, MFI_MAX_LAYERS, &interval, err));
    const mfi_json *recurrent = mfi_config_get(c, "recurrent_layers");
    const mfi_json *types = c->gguf_arch ? recurrent : mfi_config_get(c, "layer_types");
    if (types && (mfi_json_typeof(types) != MFI_JSON_ARRAY || mfi_json_len(types) < n_layers))
        return mfi_fail(err, MF_ERR_FORMAT, "%s: layer types must be given for %u layers", c->path,
                        n_layers);
    for (uint32_t i = 0; i < n_layers; i++) {
        const mfi_json *v = mfi_json_at(types, i);
        const char *type = mfi_json_str(v, NULL);
        int64_t number = 0;
        bool flag = false;
        if (!types) {
            mixer[i] = (i + 1) % interval == 0 ? MFI_MIXER_ATTN : MFI_MIXER_GDN;
        } else if (type && strcmp(type, "full_attention") == 0) {
            mixer[i] = MFI_MIXER_ATTN;
        } else if (type && strcmp(type, "linear_attention") == 0) {
            mixer[i] = MFI_MIXER_GDN;
        } else if (!type && (mfi_json_bool(v, &flag) || mfi_json_i64(v, &number))) {
            mixer[i] = flag || number ? MFI_MIXER_GDN : MFI_MIXER_ATTN;
        } else {
            return mfi_fail(err, MF_ERR_UNSUPPORTED,
                            "%s: layer %u is '%s'; known are full_attention and linear_attention",
                            c->path, i, type ? type : "?");
        }
    }
    return MF_OK;
}
