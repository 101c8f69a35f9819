/* Qwen3.5-MoE, text part: Gated DeltaNet layers with every fourth a gated full attention, each followed
 * by routed experts and one gated shared expert. Name table, recipes and the reading of config.json;
 * no arithmetic.
 *
 * The shapes and names are those of the published checkpoints (model_type qwen3_5_moe with a nested
 * text_config, or qwen3_5_moe_text alone). Norm weights are stored zero-centred (1 + w) except
 * linear_attn.norm; in MLX conversions the 1 is already added, which model.c knows from how the
 * experts are named. */
#include <string.h>

#include "model/model.h"

static const char *const model_types[] = {"qwen3_5_moe_text", "qwen3_5_moe", NULL};

static const mfi_name_rule begin_names[] = {
    {MFI_ROLE_EMBED, "embed_tokens.weight", MFI_DIM_VOCAB, MFI_DIM_HIDDEN, MFI_LOAD_MATRIX},
};
static const mfi_recipe_op begin_ops[] = {
    {.code = MFI_OP_EMBED, .dst = {MFI_BUF_RES}, .w = {MFI_ROLE_EMBED}},
    {.code = MFI_OP_ROPE_TABLE, .dst = {MFI_BUF_ROPE}},
};

static const mfi_name_rule attn_names[] = {
    {MFI_ROLE_NORM_MIXER, "input_layernorm.weight", MFI_DIM_1, MFI_DIM_HIDDEN, MFI_LOAD_F32_PLUS1},
    {MFI_ROLE_ATTN_Q, "self_attn.q_proj.weight", MFI_DIM_Q, MFI_DIM_HIDDEN, MFI_LOAD_MATRIX},
    {MFI_ROLE_ATTN_K, "self_attn.k_proj.weight", MFI_DIM_KV, MFI_DIM_HIDDEN, MFI_LOAD_MATRIX},
    {MFI_ROLE_ATTN_V, "self_attn.v_proj.weight", MFI_DIM_KV, MFI_DIM_HIDDEN, MFI_LOAD_MATRIX},
    {MFI_ROLE_ATTN_O, "self_attn.o_proj.weight", MFI_DIM_HIDDEN, MFI_DIM_ATTN, MFI_LOAD_MATRIX},
    {MFI_ROLE_ATTN_Q_NORM, "self_attn.q_norm.weight", MFI_DIM_1, MFI_DIM_HEAD, MFI_LOAD_F32_PLUS1},
    {MFI_ROLE_ATTN_K_NORM, "self_attn.k_norm.weight", MFI_DIM_1, MFI_DIM_HEAD, MFI_LOAD_F32_PLUS1},
};
static const mfi_recipe_op attn_ops[] = {
    {.code = MFI_OP_RMSNORM, .src = {MFI_BUF_RES}, .dst = {MFI_BUF_H}, .w = {MFI_ROLE_NORM_MIXER}},
    {.code = MFI_OP_MATMUL,
     .src = {MFI_BUF_H},
     .dst = {MFI_BUF_Q, MFI_BUF_K, MFI_BUF_V},
     .w = {MFI_ROLE_ATTN_Q, MFI_ROLE_ATTN_K, MFI_ROLE_ATTN_V},
     .n = 3},
    {.code = MFI_OP_ATTN_PREP,
     .src = {MFI_BUF_Q, MFI_BUF_K, MFI_BUF_V, MFI_BUF_ROPE},
     .w = {MFI_ROLE_ATTN_Q_NORM, MFI_ROLE_ATTN_K_NORM}},
    {.code = MFI_OP_ATTN, .src = {MFI_BUF_Q}, .dst = {MFI_BUF_O}},
    {.code = MFI_OP_MATMUL,
     .src = {MFI_BUF_O},
     .dst = {MFI_BUF_Y},
     .w = {MFI_ROLE_ATTN_O},
     .n = 1},
    {.code = MFI_OP_ADD, .src = {MFI_BUF_Y}, .dst = {MFI_BUF_RES}},
};

static const mfi_name_rule gdn_names[] = {
    {MFI_ROLE_NORM_MIXER, "input_layernorm.weight", MFI_DIM_1, MFI_DIM_HIDDEN, MFI_LOAD_F32_PLUS1},
    {MFI_ROLE_GDN_QKV, "linear_attn.in_proj_qkv.weight", MFI_DIM_GDN_QKV, MFI_DIM_HIDDEN,
     MFI_LOAD_MATRIX},
    {MFI_ROLE_GDN_Z, "linear_attn.in_proj_z.weight", MFI_DIM_GDN_V, MFI_DIM_HIDDEN,
     MFI_LOAD_MATRIX},
    {MFI_ROLE_GDN_B, "linear_attn.in_proj_b.weight", MFI_DIM_GDN_HEADS, MFI_DIM_HIDDEN,
     MFI_LOAD_MATRIX},
    {MFI_ROLE_GDN_A, "linear_attn.in_proj_a.weight", MFI_DIM_GDN_HEADS, MFI_DIM_HIDDEN,
     MFI_LOAD_MATRIX},
    {MFI_ROLE_GDN_CONV, "linear_attn.conv1d.weight", MFI_DIM_GDN_QKV, MFI_DIM_CONV, MFI_LOAD_F32},
    {MFI_ROLE_GDN_A_LOG, "linear_attn.A_log", MFI_DIM_1, MFI_DIM_GDN_HEADS, MFI_LOAD_F32_NEG_EXP},
    {MFI_ROLE_GDN_DT_BIAS, "linear_attn.dt_bias", MFI_DIM_1, MFI_DIM_GDN_HEADS, MFI_LOAD_F32},
    {MFI_ROLE_GDN_NORM, "linear_attn.norm.weight", MFI_DIM_1, MFI_DIM_GDN_HEAD, MFI_LOAD_F32},
    {MFI_ROLE_GDN_OUT, "linear_attn.out_proj.weight", MFI_DIM_HIDDEN, MFI_DIM_GDN_V,
     MFI_LOAD_MATRIX},
};
static const mfi_recipe_op gdn_ops[] = {
    {.code = MFI_OP_RMSNORM, .src = {MFI_BUF_RES}, .dst = {MFI_BUF_H}, .w = {MFI_ROLE_NORM_MIXER}},
    {.code = MFI_OP_MATMUL,
     .src = {MFI_BUF_H},
     .dst = {MFI_BUF_QKV, MFI_BUF_Z, MFI_BUF_B, MFI_BUF_A},
     .w = {MFI_ROLE_GDN_QKV, MFI_ROLE_GDN_Z, MFI_ROLE_GDN_B, MFI_ROLE_GDN_A},
     .n = 4},
    {.code = MFI_OP_GDN_CONV,
     .src = {MFI_BUF_QKV},
     .dst = {MFI_BUF_QKV},
     .w = {MFI_ROLE_GDN_CONV}},
    {.code = MFI_OP_GDN,
     .src = {MFI_BUF_QKV, MFI_BUF_Z, MFI_BUF_B, MFI_BUF_A},
     .dst = {MFI_BUF_O},
     .w = {MFI_ROLE_GDN_A_LOG, MFI_ROLE_GDN_DT_BIAS, MFI_ROLE_GDN_NORM}},
    {.code = MFI_OP_MATMUL,
     .src = {MFI_BUF_O},
     .dst = {MFI_BUF_Y},
     .w = {MFI_ROLE_GDN_OUT},
     .n = 1},
    {.code = MFI_OP_ADD, .src = {MFI_BUF_Y}, .dst = {MFI_BUF_RES}},
};

static const mfi_name_rule ffn_names[] = {
    {MFI_ROLE_NORM_FFN, "post_attention_layernorm.weight", MFI_DIM_1, MFI_DIM_HIDDEN,
     MFI_LOAD_F32_PLUS1},
    {MFI_ROLE_ROUTER, "mlp.gate.weight", MFI_DIM_EXPERTS, MFI_DIM_HIDDEN, MFI_LOAD_MATRIX},
    {MFI_ROLE_SHARED_GATE, "mlp.shared_expert.gate_proj.weight", MFI_DIM_SHARED, MFI_DIM_HIDDEN,
     MFI_LOAD_MATRIX},
    {MFI_ROLE_SHARED_UP, "mlp.shared_expert.up_proj.weight", MFI_DIM_SHARED, MFI_DIM_HIDDEN,
     MFI_LOAD_MATRIX},
    {MFI_ROLE_SHARED_DOWN, "mlp.shared_expert.down_proj.weight", MFI_DIM_HIDDEN, MFI_DIM_SHARED,
     MFI_LOAD_MATRIX},
    {MFI_ROLE_SHARED_SCALE, "mlp.shared_expert_gate.weight", MFI_DIM_1, MFI_DIM_HIDDEN,
     MFI_LOAD_MATRIX},
};
/* The shared expert stands between the routing and the routed experts, so that it is computed while
 * missing experts are read. */
static const mfi_recipe_op ffn_ops[] = {
    {.code = MFI_OP_RMSNORM, .src = {MFI_BUF_RES}, .dst = {MFI_BUF_H}, .w = {MFI_ROLE_NORM_FFN}},
    {.code = MFI_OP_MATMUL,
     .src = {MFI_BUF_H},
     .dst = {MFI_BUF_ROUTER},
     .w = {MFI_ROLE_ROUTER},
     .n = 1},
    {.code = MFI_OP_ROUTE, .src = {MFI_BUF_ROUTER}, .dst = {MFI_BUF_IDS, MFI_BUF_WEIGHTS}},
    {.code = MFI_OP_MATMUL,
     .src = {MFI_BUF_H},
     .dst = {MFI_BUF_SG, MFI_BUF_SU, MFI_BUF_SS},
     .w = {MFI_ROLE_SHARED_GATE, MFI_ROLE_SHARED_UP, MFI_ROLE_SHARED_SCALE},
     .n = 3},
    {.code = MFI_OP_GLU, .src = {MFI_BUF_SG, MFI_BUF_SU}, .dst = {MFI_BUF_SG}},
    {.code = MFI_OP_MATMUL,
     .src = {MFI_BUF_SG},
     .dst = {MFI_BUF_Y},
     .w = {MFI_ROLE_SHARED_DOWN},
     .n = 1},
    {.code = MFI_OP_EXPERTS, .src = {MFI_BUF_H}, .dst = {MFI_BUF_EY}},
    {.code = MFI_OP_COMBINE,
     .src = {MFI_BUF_EY, MFI_BUF_WEIGHTS, MFI_BUF_Y, MFI_BUF_SS},
     .dst = {MFI_BUF_RES}},
};

static const mfi_name_rule head_names[] = {
    {MFI_ROLE_NORM_OUT, "norm.weight", MFI_DIM_1, MFI_DIM_HIDDEN, MFI_LOAD_F32_PLUS1},
    {MFI_ROLE_LM_HEAD, "lm_head.weight", MFI_DIM_VOCAB, MFI_DIM_HIDDEN, MFI_LOAD_MATRIX},
};
static const mfi_recipe_op head_ops[] = {
    {.code = MFI_OP_RMSNORM, .src = {MFI_BUF_RES}, .dst = {MFI_BUF_HN}, .w = {MFI_ROLE_NORM_OUT}},
    {.code = MFI_OP_MATMUL,
     .src = {MFI_BUF_HN},
     .dst = {MFI_BUF_LOGITS},
     .w = {MFI_ROLE_LM_HEAD},
     .n = 1},
};

/* layer_types says it layer by layer; without it every full_attention_interval-th is attention. */
static mf_status read_mixers(mfi_model *model, const mfi_json *config, mf_error *err)
{
    const char *path = mfi_catalog_path(model->catalog);
    uint32_t n_layers = model->shape.n_layers, interval;
    MFI_TRY(mfi_config_u32(config, "full_attention_interval", 4, 1, MFI_MAX_LAYERS, &interval, err));
    const mfi_json *types = mfi_json_get(config, "layer_types");
    if (types && (mfi_json_typeof(types) != MFI_JSON_ARRAY || mfi_json_len(types) != n_layers))
        return mfi_fail(err, MF_ERR_FORMAT, "%s: config.json: layer_types must list %u layers", path,
                        n_layers);
    for (uint32_t i = 0; i < n_layers; i++) {
        if (!types) {
            model->mixer[i] = (i + 1) % interval == 0 ? MFI_MIXER_ATTN : MFI_MIXER_GDN;
            continue;
        }
        const char *type = mfi_json_str(mfi_json_at(types, i), NULL);
        if (type && strcmp(type, "full_attention") == 0)
            model->mixer[i] = MFI_MIXER_ATTN;
        else if (type && strcmp(type, "linear_attention") == 0)
            model->mixer[i] = MFI_MIXER_GDN;
        else
            return mfi_fail(err, MF_ERR_UNSUPPORTED,
                            "%s: config.json: layer_types[%u] is '%s'; known are full_attention "
                            "and linear_attention",
                            path, i, type ? type : "not a string");
    }
    return MF_OK;
}

/* Things that would change the arithmetic and that this family's recipe doesn't have. */
static mf_status refuse_unknown(mfi_model *model, const mfi_json *config, mf_error *err)
{
    const char *path = mfi_catalog_path(model->catalog);
    bool flag = false;
    const char *act = mfi_json_str(mfi_json_get(config, "hidden_act"), NULL);
    if (act && strcmp(act, "silu") != 0)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: config.json: hidden_act '%s' (known: silu)",
                        path, act);
    if (mfi_json_bool(mfi_json_get(config, "attention_bias"), &flag) && flag)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: config.json: attention_bias", path);
    if (mfi_json_len(mfi_json_get(config, "mlp_only_layers")) > 0)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: config.json: mlp_only_layers", path);
    if (mfi_json_bool(mfi_json_get(config, "attn_output_gate"), &flag) && !flag)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: config.json: attn_output_gate false", path);
    return MF_OK;
}

static mf_status read_rope(mfi_model *model, const mfi_json *config, mf_error *err)
{
    const char *path = mfi_catalog_path(model->catalog);
    mfi_shape *s = &model->shape;
    const mfi_json *rope = mfi_json_get(config, "rope_parameters");
    if (!rope)
        rope = mfi_json_get(config, "rope_scaling");
    const char *type = mfi_json_str(mfi_json_get(rope, "rope_type"), NULL);
    if (type && strcmp(type, "default") != 0)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: config.json: rope_type '%s' (known: default)",
                        path, type);
    double partial = 0.25;
    s->rope_theta = 1e7;
    if (!mfi_json_f64(mfi_json_get(rope, "rope_theta"), &s->rope_theta))
        mfi_json_f64(mfi_json_get(config, "rope_theta"), &s->rope_theta);
    if (!mfi_json_f64(mfi_json_get(rope, "partial_rotary_factor"), &partial))
        mfi_json_f64(mfi_json_get(config, "partial_rotary_factor"), &partial);
    double n_rot = (double)s->head_dim * partial;
    if (!(s->rope_theta > 1) || !(n_rot >= 2) || n_rot > s->head_dim || (uint32_t)n_rot % 2 != 0)
        return mfi_fail(err, MF_ERR_FORMAT,
                        "%s: config.json: rope_theta %g with partial_rotary_factor %g", path,
                        s->rope_theta, partial);
    s->n_rot = (uint32_t)n_rot;
    return MF_OK;
}

static mf_status read_config(mfi_model *model, const mfi_json *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    double eps = 1e-6;
    mfi_json_f64(mfi_json_get(c, "rms_norm_eps"), &eps);
    s->eps = (float)eps;
    s->attn_gate = true;
    s->norm_top_k = true;
    MFI_TRY(refuse_unknown(model, c, err));
    MFI_TRY(mfi_config_u32(c, "num_attention_heads", -1, 1, 4096, &s->n_head, err));
    MFI_TRY(mfi_config_u32(c, "num_key_value_heads", -1, 1, 4096, &s->n_kv_head, err));
    MFI_TRY(mfi_config_u32(c, "head_dim", 256, 2, MFI_MAX_HEAD_DIM, &s->head_dim, err));
    MFI_TRY(mfi_config_u32(c, "linear_num_key_heads", -1, 1, 4096, &s->gdn_k_heads, err));
    MFI_TRY(mfi_config_u32(c, "linear_num_value_heads", -1, 1, 4096, &s->gdn_v_heads, err));
    MFI_TRY(mfi_config_u32(c, "linear_key_head_dim", -1, 1, MFI_MAX_HEAD_DIM, &s->gdn_k_dim, err));
    MFI_TRY(mfi_config_u32(c, "linear_value_head_dim", -1, 1, MFI_MAX_HEAD_DIM, &s->gdn_v_dim, err));
    MFI_TRY(mfi_config_u32(c, "linear_conv_kernel_dim", 4, 1, 16, &s->conv_kernel, err));
    MFI_TRY(mfi_config_u32(c, "num_experts", -1, 1, MFI_MAX_EXPERTS, &s->n_experts, err));
    MFI_TRY(mfi_config_u32(c, "num_experts_per_tok", -1, 1, MFI_MAX_TOP_K, &s->top_k, err));
    MFI_TRY(mfi_config_u32(c, "moe_intermediate_size", -1, 1, 1 << 20, &s->expert_width, err));
    MFI_TRY(mfi_config_u32(c, "shared_expert_intermediate_size", -1, 1, 1 << 20, &s->shared_width,
                           err));
    MFI_TRY(read_rope(model, c, err));
    if (s->n_head % s->n_kv_head != 0 || s->gdn_v_heads % s->gdn_k_heads != 0 ||
        s->top_k > s->n_experts)
        return mfi_fail(err, MF_ERR_FORMAT,
                        "%s: config.json: %u heads over %u, %u value heads over %u, top-%u of %u "
                        "experts don't divide",
                        mfi_catalog_path(model->catalog), s->n_head, s->n_kv_head, s->gdn_v_heads,
                        s->gdn_k_heads, s->top_k, s->n_experts);
    return read_mixers(model, c, err);
}

#define RECIPE(ops, names) {ops, MFI_ARRAY_LEN(ops), names, MFI_ARRAY_LEN(names)}

static const mfi_evidence evidence[] = {
    {"safetensors, bfloat16, float16 or float32",
     "a tiny model: logits, every layer's hidden states and greedy tokens of Hugging Face transformers"},
    {"safetensors, MLX-quantised with 2, 3, 4, 5, 6 or 8 bits, also mixed",
     "tiny models: logits, every layer's hidden states and greedy tokens of mlx-lm"},
};

const mfi_arch mfi_arch_qwen3_5_moe = {
    .name = "qwen3_5_moe",
    .model_types = model_types,
    .begin = RECIPE(begin_ops, begin_names),
    .mixer = {[MFI_MIXER_ATTN] = RECIPE(attn_ops, attn_names),
              [MFI_MIXER_GDN] = RECIPE(gdn_ops, gdn_names)},
    .ffn = RECIPE(ffn_ops, ffn_names),
    .head = RECIPE(head_ops, head_names),
    .read_config = read_config,
    .evidence = evidence,
    .n_evidence = MFI_ARRAY_LEN(evidence),
};
