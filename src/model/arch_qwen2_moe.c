/* Qwen2-MoE (Qwen1.5-MoE, Qwen2-57B-A14B): full attention with biases on q, k and v, routed experts
 * whose weights are not renormalised, and a gated shared expert. Name table and the reading of the
 * configuration; no arithmetic. */
#include "model/config.h"
#include "model/recipes.h"

static const char *const model_types[] = {"qwen2_moe", NULL};

static const mfi_name_rule attn_names[] = {
    {MFI_ROLE_NORM_MIXER,
     MFI_DIM_1,
     MFI_DIM_HIDDEN,
     MFI_LOAD_F32,
     {{"input_layernorm.weight", 0}},
     {{"attn_norm.weight", 0}}},
    {MFI_ROLE_ATTN_Q,
     MFI_DIM_Q,
     MFI_DIM_HIDDEN,
     MFI_LOAD_MATRIX,
     {{"self_attn.q_proj.weight", 0}},
     {{"attn_q.weight", 0}}},
    {MFI_ROLE_ATTN_K,
     MFI_DIM_KV,
     MFI_DIM_HIDDEN,
     MFI_LOAD_MATRIX,
     {{"self_attn.k_proj.weight", 0}},
     {{"attn_k.weight", 0}}},
    {MFI_ROLE_ATTN_V,
     MFI_DIM_KV,
     MFI_DIM_HIDDEN,
     MFI_LOAD_MATRIX,
     {{"self_attn.v_proj.weight", 0}},
     {{"attn_v.weight", 0}}},
    {MFI_ROLE_ATTN_Q_BIAS,
     MFI_DIM_1,
     MFI_DIM_Q,
     MFI_LOAD_F32,
     {{"self_attn.q_proj.bias", 0}},
     {{"attn_q.bias", 0}}},
    {MFI_ROLE_ATTN_K_BIAS,
     MFI_DIM_1,
     MFI_DIM_KV,
     MFI_LOAD_F32,
     {{"self_attn.k_proj.bias", 0}},
     {{"attn_k.bias", 0}}},
    {MFI_ROLE_ATTN_V_BIAS,
     MFI_DIM_1,
     MFI_DIM_KV,
     MFI_LOAD_F32,
     {{"self_attn.v_proj.bias", 0}},
     {{"attn_v.bias", 0}}},
    {MFI_ROLE_ATTN_O,
     MFI_DIM_HIDDEN,
     MFI_DIM_ATTN,
     MFI_LOAD_MATRIX,
     {{"self_attn.o_proj.weight", 0}},
     {{"attn_output.weight", 0}}},
};

static const mfi_name_rule moe_names[] = {
    {MFI_ROLE_NORM_FFN,
     MFI_DIM_1,
     MFI_DIM_HIDDEN,
     MFI_LOAD_F32,
     {{"post_attention_layernorm.weight", 0}},
     {{"ffn_norm.weight", 0}}},
    {MFI_ROLE_ROUTER,
     MFI_DIM_EXPERTS,
     MFI_DIM_HIDDEN,
     MFI_LOAD_MATRIX,
     {{"mlp.gate.weight", 0}},
     {{"ffn_gate_inp.weight", 0}}},
    {MFI_ROLE_SHARED_GATE,
     MFI_DIM_SHARED,
     MFI_DIM_HIDDEN,
     MFI_LOAD_MATRIX,
     {{"mlp.shared_expert.gate_proj.weight", 0}},
     {{"ffn_gate_shexp.weight", 0}}},
    {MFI_ROLE_SHARED_UP,
     MFI_DIM_SHARED,
     MFI_DIM_HIDDEN,
     MFI_LOAD_MATRIX,
     {{"mlp.shared_expert.up_proj.weight", 0}},
     {{"ffn_up_shexp.weight", 0}}},
    {MFI_ROLE_SHARED_DOWN,
     MFI_DIM_HIDDEN,
     MFI_DIM_SHARED,
     MFI_LOAD_MATRIX,
     {{"mlp.shared_expert.down_proj.weight", 0}},
     {{"ffn_down_shexp.weight", 0}}},
    {MFI_ROLE_SHARED_SCALE,
     MFI_DIM_1,
     MFI_DIM_HIDDEN,
     MFI_LOAD_MATRIX,
     {{"mlp.shared_expert_gate.weight", 0}},
     {{"ffn_gate_inp_shexp.weight", 0}}},
};

static mf_status read_config(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    s->routing.normalize = false;
    MFI_TRY(mfi_config_flag(c, "norm_topk_prob", &s->routing.normalize, err));
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_require(c, "attention_bias", false, err));
    MFI_TRY(mfi_config_require(c, "qkv_bias", true, err));
    MFI_TRY(mfi_config_require(c, "use_sliding_window", false, err));
    MFI_TRY(mfi_config_attention(c, s, err));
    MFI_TRY(mfi_config_rope(c, s, 1e6, 1.0, err));
    MFI_TRY(mfi_config_experts(c, s, "moe_intermediate_size", err));
    return mfi_config_u32(c, "shared_expert_intermediate_size", -1, 1, 1 << 20, &s->shared_width,
                          err);
}

static const mfi_evidence evidence[] = {
    {"safetensors: bfloat16, float16, float32", "a tiny model: logits, every layer's hidden states "
                                                "and greedy tokens of Hugging Face transformers"},
    {"safetensors: FP8 in blocks of 128 x 128",
     "the decoded values of torch; no model of this family yet"},
    {"MLX: affine, 2, 3, 4, 5, 6 or 8 bits, also mixed",
     "a tiny model: logits, every layer's hidden states and greedy tokens of mlx-lm"},
    {"GGUF", "a tiny F32 model: logits of llama.cpp"},
};

const mfi_arch mfi_arch_qwen2_moe = {
    .name = "qwen2_moe",
    .model_types = model_types,
    .gguf_arch = "qwen2moe",
    .begin = MFI_RECIPE(mfi_ops_begin, mfi_names_begin),
    .mixer = {[MFI_MIXER_ATTN] = MFI_RECIPE(mfi_ops_attn, attn_names)},
    .ffn = {[MFI_FFN_MOE] = MFI_RECIPE(mfi_ops_moe_shared_gated, moe_names)},
    .head = MFI_RECIPE(mfi_ops_head, mfi_names_head_plain),
    .experts = &mfi_experts_mlp,
    .read_config = read_config,
    .evidence = evidence,
    .n_evidence = MFI_ARRAY_LEN(evidence),
};
