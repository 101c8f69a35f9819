/* Qwen3-Next: the hybrid that Qwen3.5 grew from. The same recipes; its DeltaNet projections come
 * packed by key head (qkvz and ba), in GGUF either split into qkv and z or, in old files, packed
 * too. Name table and the reading of the configuration; no arithmetic. */
#include "model/config.h"
#include "model/recipes.h"

static const char *const model_types[] = {"qwen3_next", NULL};

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
     {{"linear_attn.in_proj_qkvz.weight", MFI_MAP_QKVZ_QKV}},
     {{"attn_qkv.weight", 0}, {"ssm_in.weight", MFI_MAP_QKVZ_QKV}}},
    {MFI_ROLE_GDN_Z,
     MFI_DIM_GDN_V,
     MFI_DIM_HIDDEN,
     MFI_LOAD_MATRIX,
     {{"linear_attn.in_proj_qkvz.weight", MFI_MAP_QKVZ_Z}},
     {{"attn_gate.weight", 0}, {"ssm_in.weight", MFI_MAP_QKVZ_Z}}},
    {MFI_ROLE_GDN_B,
     MFI_DIM_GDN_HEADS,
     MFI_DIM_HIDDEN,
     MFI_LOAD_MATRIX,
     {{"linear_attn.in_proj_ba.weight", MFI_MAP_BA_B}},
     {{"ssm_ba.weight", MFI_MAP_BA_B}}},
    {MFI_ROLE_GDN_A,
     MFI_DIM_GDN_HEADS,
     MFI_DIM_HIDDEN,
     MFI_LOAD_MATRIX,
     {{"linear_attn.in_proj_ba.weight", MFI_MAP_BA_A}},
     {{"ssm_ba.weight", MFI_MAP_BA_A}}},
    {MFI_ROLE_GDN_CONV,
     MFI_DIM_GDN_QKV,
     MFI_DIM_CONV,
     MFI_LOAD_F32,
     {{"linear_attn.conv1d.weight", 0}},
     {{"ssm_conv1d.weight", 0}}},
    {MFI_ROLE_GDN_A_LOG,
     MFI_DIM_1,
     MFI_DIM_GDN_HEADS,
     MFI_LOAD_F32_NEG_EXP,
     {{"linear_attn.A_log", 0}},
     {{"ssm_a", 0}}},
    {MFI_ROLE_GDN_DT_BIAS,
     MFI_DIM_1,
     MFI_DIM_GDN_HEADS,
     MFI_LOAD_F32,
     {{"linear_attn.dt_bias", 0}},
     {{"ssm_dt.bias", 0}}},
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
     {{"ssm_out.weight", 0}}},
};

static mf_status read_config(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    s->attn_gate = true;
    s->routing.normalize = true;
    MFI_TRY(mfi_config_flag(c, "norm_topk_prob", &s->routing.normalize, err));
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_require(c, "attention_bias", false, err));
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
     "a tiny model with packed projections, against its values decoded by other code"},
    {"MLX: affine, 2, 3, 4, 5, 6 or 8 bits, also mixed",
     "a tiny model: logits, every layer's hidden states and greedy tokens of mlx-lm"},
    {"GGUF", "a tiny F32 model: logits of llama.cpp"},
};

const mfi_arch mfi_arch_qwen3_next = {
    .name = "qwen3_next",
    .model_types = model_types,
    .gguf_arch = "qwen3next",
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
