/* gpt-oss: attention with biases everywhere and sinks, every other layer over a sliding window; a
 * router with biases whose weights are the softmax of the chosen; experts with biases and a clamped
 * activation. Name table and the reading of the configuration; no arithmetic.
 *
 * Hugging Face's files have gate and up in one tensor, their rows in turn: MXFP4 as published
 * ([expert][output], with _blocks and _scales), or floats, and those transposed. llama.cpp's have
 * three tensors. */
#include "model/config.h"
#include "model/recipes.h"

static const char *const model_types[] = {"gpt_oss", NULL};

static const mfi_recipe_op attn_ops[] = {
    MFI_ATTN_IN,
    {.code = MFI_OP_ATTN_PREP,
     .src = {MFI_BUF_Q, MFI_BUF_K, MFI_BUF_V, MFI_BUF_ROPE},
     .w = {MFI_ROLE_NONE, MFI_ROLE_NONE}},
    {.code = MFI_OP_ATTN,
     .src = {MFI_BUF_Q},
     .dst = {MFI_BUF_O},
     .w = {MFI_ROLE_ATTN_SINKS},
     .n = 1},
    MFI_PRODUCT(O, Y, ATTN_O),
    {.code = MFI_OP_BIAS, .dst = {MFI_BUF_Y}, .w = {MFI_ROLE_ATTN_O_BIAS}, .n = 1},
    MFI_ADD(Y),
};

static const mfi_name_rule attn_names[] = {
    MFI_VECTOR(NORM_MIXER, HIDDEN, "input_layernorm.weight", "attn_norm.weight"),
    MFI_NAMES_QKV,
    MFI_MATRIX(ATTN_O, HIDDEN, ATTN, "self_attn.o_proj.weight", "attn_output.weight"),
    MFI_NAMES_QKV_BIAS,
    MFI_VECTOR(ATTN_O_BIAS, HIDDEN, "self_attn.o_proj.bias", "attn_output.bias"),
    MFI_VECTOR(ATTN_SINKS, N_HEAD, "self_attn.sinks", "attn_sinks.weight"),
};

static const mfi_name_rule moe_names[] = {
    MFI_VECTOR(NORM_FFN, HIDDEN, "post_attention_layernorm.weight", "post_attention_norm.weight"),
    MFI_MATRIX(ROUTER, EXPERTS, HIDDEN, "mlp.router.weight", "ffn_gate_inp.weight"),
    MFI_VECTOR(ROUTER_BIAS, EXPERTS, "mlp.router.bias", "ffn_gate_inp.bias"),
};

/* What transformers takes where config.json has no word of rotation. */
static void default_rope(const mfi_config *c, mfi_rope *rope)
{
    if (c->gguf_arch || mfi_config_get(c, "rope_parameters") || mfi_config_get(c, "rope_scaling"))
        return;
    rope->kind = MFI_ROPE_YARN;
    rope->factor = 32;
    rope->original_ctx = 4096;
    rope->beta_fast = 32;
    rope->beta_slow = 1;
    rope->exact = true;
    rope->attn_factor = mfi_rope_mscale(rope->factor, 1);
}

/* llama.cpp would rotate layers with windows by a base of their own. */
static mf_status check_bases(const mfi_config *c, const mfi_shape *s, mf_error *err)
{
    double theta = s->rope.theta;
    MFI_TRY(mfi_config_number(c, mfi_config_get(c, "rope_theta_windows"), "rope_theta_windows", 0,
                              1e30, &theta, err));
    if (theta != s->rope.theta)
        return mfi_fail(err, MF_ERR_UNSUPPORTED,
                        "%s: rope.freq_base_swa %g beside rope.freq_base %g: one base is supported",
                        c->path, theta, s->rope.theta);
    return MF_OK;
}

static mf_status read_config(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    bool bias = true;
    double limit = 7, alpha = 1.702;
    s->routing.score = MFI_SCORE_SOFTMAX_CHOSEN;
    s->glu = MFI_GLU_CLAMPED;
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_flag(c, "attention_bias", &bias, err));
    if (!bias)
        mfi_config_no_bias(model);
    MFI_TRY(mfi_config_attention(c, s, err));
    MFI_TRY(mfi_config_rope(c, s, 150000, MFI_ROPE_WHOLE, err));
    default_rope(c, &s->rope);
    MFI_TRY(check_bases(c, s, err));
    MFI_TRY(mfi_config_experts(c, s, c->gguf_arch ? "moe_intermediate_size" : "intermediate_size",
                               err));
    MFI_TRY(mfi_config_number(c, mfi_config_get(c, "swiglu_limit"), "swiglu_limit", 1e-3, 1e6,
                              &limit, err));
    MFI_TRY(mfi_config_number(c, mfi_config_get(c, "swiglu_alpha"), "swiglu_alpha", 1e-3, 1e6,
                              &alpha, err)); /* published files leave it out */
    s->glu_limit = (float)limit;
    s->glu_alpha = (float)alpha;
    return mfi_config_windows(c, model, 2, err);
}

static const mfi_evidence evidence[] = {
    {"safetensors: bfloat16, float16, float32 experts",
     "a tiny model: logits, every layer's hidden states and greedy tokens of Hugging Face "
     "transformers"},
    {"safetensors: MXFP4 experts, as published",
     "the same model quantised, against its own experts decoded to floats"},
    {"MLX: mxfp4 and affine",
     "a tiny model, experts mxfp4, all else 8 bits: logits, every layer's hidden states and greedy "
     "tokens of mlx-lm"},
    {"GGUF", "tiny F32 models: logits of llama.cpp"},
};

const mfi_arch mfi_arch_gpt_oss = {
    .name = "gpt_oss",
    .model_types = model_types,
    .gguf_arch = "gpt-oss",
    .begin = MFI_RECIPE(mfi_ops_begin, mfi_names_begin),
    .mixer = {[MFI_MIXER_ATTN] = MFI_RECIPE(attn_ops, attn_names),
              [MFI_MIXER_WINDOW] = MFI_RECIPE(attn_ops, attn_names)},
    .ffn = {[MFI_FFN_MOE] = MFI_RECIPE(mfi_ops_moe, moe_names)},
    .head = MFI_RECIPE(mfi_ops_head, mfi_names_head_plain),
    .experts = &mfi_experts_mlp_kept,
    .read_config = read_config,
    .expert_bias = true,
    .interleaved = true,
    .evidence = evidence,
    .n_evidence = MFI_ARRAY_LEN(evidence),
};
