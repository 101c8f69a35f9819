/* Qwen3.5-MoE, text part: Gated DeltaNet layers with every fourth a gated full attention, each
 * followed by routed experts and one gated shared expert. Name table and the reading of the
 * configuration; no arithmetic.
 *
 * The shapes and names are those of the published checkpoints (model_type qwen3_5_moe with a nested
 * text_config, or qwen3_5_moe_text alone). Norm weights are stored zero-centred (1 + w) except
 * linear_attn.norm; in MLX conversions and in GGUF the 1 is already added. GGUF has the value heads
 * tiled, A_log as -exp(A_log). */
#include "model/config.h"
#include "model/recipes.h"

static const char *const model_types[] = {"qwen3_5_moe_text", "qwen3_5_moe", NULL};

static const mfi_name_rule gdn_names[] = {
    {MFI_ROLE_NORM_MIXER,
     MFI_DIM_1,
     MFI_DIM_HIDDEN,
     MFI_LOAD_F32_PLUS1,
     {{"input_layernorm.weight", 0}},
     {{"attn_norm.weight", 0}}},
    {MFI_ROLE_GDN_QKV,
     MFI_DIM_GDN_QKV,
     MFI_DIM_HIDDEN,
     MFI_LOAD_MATRIX,
     {{"linear_attn.in_proj_qkv.weight", 0}},
     {{"attn_qkv.weight", MFI_MAP_TILED_QKV}}},
    {MFI_ROLE_GDN_Z,
     MFI_DIM_GDN_V,
     MFI_DIM_HIDDEN,
     MFI_LOAD_MATRIX,
     {{"linear_attn.in_proj_z.weight", 0}},
     {{"attn_gate.weight", MFI_MAP_TILED_V}}},
    {MFI_ROLE_GDN_B,
     MFI_DIM_GDN_HEADS,
     MFI_DIM_HIDDEN,
     MFI_LOAD_MATRIX,
     {{"linear_attn.in_proj_b.weight", 0}},
     {{"ssm_beta.weight", MFI_MAP_TILED_HEADS}}},
    {MFI_ROLE_GDN_A,
     MFI_DIM_GDN_HEADS,
     MFI_DIM_HIDDEN,
     MFI_LOAD_MATRIX,
     {{"linear_attn.in_proj_a.weight", 0}},
     {{"ssm_alpha.weight", MFI_MAP_TILED_HEADS}}},
    {MFI_ROLE_GDN_CONV,
     MFI_DIM_GDN_QKV,
     MFI_DIM_CONV,
     MFI_LOAD_F32,
     {{"linear_attn.conv1d.weight", 0}},
     {{"ssm_conv1d.weight", MFI_MAP_TILED_QKV}}},
    {MFI_ROLE_GDN_A_LOG,
     MFI_DIM_1,
     MFI_DIM_GDN_HEADS,
     MFI_LOAD_F32_NEG_EXP,
     {{"linear_attn.A_log", 0}},
     {{"ssm_a", MFI_MAP_TILED_HEADS}}},
    {MFI_ROLE_GDN_DT_BIAS,
     MFI_DIM_1,
     MFI_DIM_GDN_HEADS,
     MFI_LOAD_F32,
     {{"linear_attn.dt_bias", 0}},
     {{"ssm_dt.bias", MFI_MAP_TILED_HEADS}}},
    {MFI_ROLE_GDN_NORM,
     MFI_DIM_1,
     MFI_DIM_GDN_HEAD,
     MFI_LOAD_F32,
     {{"linear_attn.norm.weight", 0}},
     {{"ssm_norm.weight", 0}}},
    {MFI_ROLE_GDN_OUT,
     MFI_DIM_HIDDEN,
     MFI_DIM_GDN_V,
     MFI_LOAD_MATRIX,
     {{"linear_attn.out_proj.weight", 0}},
     {{"ssm_out.weight", MFI_MAP_TILED_COLS}}},
};

static mf_status read_config(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    s->attn_gate = true;
    s->routing.normalize = true;
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_require(c, "attention_bias", false, err));
    MFI_TRY(mfi_config_require(c, "attn_output_gate", true, err));
    MFI_TRY(mfi_config_attention(c, s, err));
    MFI_TRY(mfi_config_rope(c, s, 1e7, 0.25, err));
    MFI_TRY(mfi_config_gdn(c, s, err));
    MFI_TRY(mfi_config_experts(c, s, "moe_intermediate_size", err));
    MFI_TRY(mfi_config_u32(c, "shared_expert_intermediate_size", -1, 1, 1 << 20, &s->shared_width,
                           err));
    return mfi_config_hybrid(c, s->n_layers, model->mixer, err);
}

static const mfi_evidence evidence[] = {
    {"safetensors: bfloat16, float16, float32", "a tiny model: logits, every layer's hidden states "
                                                "and greedy tokens of Hugging Face transformers"},
    {"safetensors: FP8 in blocks of 128 x 128",
     "the decoded values of torch; no model of this family yet"},
    {"MLX: affine, 2, 3, 4, 5, 6 or 8 bits, also mixed",
     "tiny models: logits, every layer's hidden states and greedy tokens of mlx-lm"},
    {"GGUF", "tiny F32 models, one with grouped-query attention: logits of llama.cpp"},
};

const mfi_arch mfi_arch_qwen3_5_moe = {
    .name = "qwen3_5_moe",
    .model_types = model_types,
    .gguf_arch = "qwen35moe",
    .mlx = {.root = "language_model.", .model_type = "qwen3_5_moe"},
    .begin = MFI_RECIPE(mfi_ops_begin, mfi_names_begin),
    .mixer = {[MFI_MIXER_ATTN] = MFI_RECIPE(mfi_ops_attn, mfi_names_hybrid_attn),
              [MFI_MIXER_GDN] = MFI_RECIPE(mfi_ops_gdn, gdn_names)},
    .ffn = {[MFI_FFN_MOE] = MFI_RECIPE(mfi_ops_moe_shared_gated, mfi_names_hybrid_moe)},
    .head = MFI_RECIPE(mfi_ops_head, mfi_names_head_centred),
    .experts = &mfi_experts_mlp,
    .read_config = read_config,
    .evidence = evidence,
    .n_evidence = MFI_ARRAY_LEN(evidence),
};
