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
    MFI_CENTRED(NORM_MIXER, HIDDEN, "input_layernorm.weight", "attn_norm.weight"),
    MFI_NAMED(GDN_QKV, GDN_QKV, HIDDEN, MATRIX, "linear_attn.in_proj_qkv.weight", 0,
              "attn_qkv.weight", MFI_MAP_TILED_QKV),
    MFI_NAMED(GDN_Z, GDN_V, HIDDEN, MATRIX, "linear_attn.in_proj_z.weight", 0, "attn_gate.weight",
              MFI_MAP_TILED_V),
    MFI_NAMED(GDN_B, GDN_HEADS, HIDDEN, MATRIX, "linear_attn.in_proj_b.weight", 0,
              "ssm_beta.weight", MFI_MAP_TILED_HEADS),
    MFI_NAMED(GDN_A, GDN_HEADS, HIDDEN, MATRIX, "linear_attn.in_proj_a.weight", 0,
              "ssm_alpha.weight", MFI_MAP_TILED_HEADS),
    MFI_NAMED(GDN_CONV, GDN_QKV, CONV, F32, "linear_attn.conv1d.weight", 0, "ssm_conv1d.weight",
              MFI_MAP_TILED_QKV),
    MFI_NAMED(GDN_A_LOG, 1, GDN_HEADS, F32_NEG_EXP, "linear_attn.A_log", 0, "ssm_a",
              MFI_MAP_TILED_HEADS),
    MFI_NAMED(GDN_DT_BIAS, 1, GDN_HEADS, F32, "linear_attn.dt_bias", 0, "ssm_dt.bias",
              MFI_MAP_TILED_HEADS),
    MFI_VECTOR(GDN_NORM, GDN_HEAD, "linear_attn.norm.weight", "ssm_norm.weight"),
    MFI_NAMED(GDN_OUT, HIDDEN, GDN_V, MATRIX, "linear_attn.out_proj.weight", 0, "ssm_out.weight",
              MFI_MAP_TILED_COLS),
};

static mf_status read_config(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    s->attn_gate = true;
    s->routing.normalize = true;
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_bias(c, model, false, err));
    MFI_TRY(mfi_config_require(c, "attn_output_gate", true, err));
    MFI_TRY(mfi_config_attention(c, s, err));
    MFI_TRY(mfi_config_rope(c, s, 1e4, 0.25, err));
    MFI_TRY(mfi_config_gdn(c, s, err));
    MFI_TRY(mfi_config_experts(c, s, "moe_intermediate_size", err));
    MFI_TRY(mfi_config_u32(c, "shared_expert_intermediate_size", -1, 1, 1 << 20, &s->shared_width,
                           err));
    return mfi_config_hybrid(c, s->n_layers, model->mixer, err);
}

static const mfi_evidence evidence[] = {
    MFI_EVIDENCE_FLOATS,
    MFI_EVIDENCE_FP8_VALUES,
    {MFI_FORMAT_MLX,
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
