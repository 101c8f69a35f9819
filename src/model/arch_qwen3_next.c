/* Qwen3-Next: the hybrid that Qwen3.5 grew from. The same recipes; its DeltaNet projections come
 * packed by key head (qkvz and ba), in GGUF either split into qkv and z or, in old files, packed
 * too. Name table and the reading of the configuration; no arithmetic. */
#include "model/config.h"
#include "model/recipes.h"

static const char *const model_types[] = {"qwen3_next", NULL};

static const mfi_name_rule gdn_names[] = {
    MFI_CENTRED(NORM_MIXER, HIDDEN, "input_layernorm.weight", "attn_norm.weight"),
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
    MFI_NAMED(GDN_B, GDN_HEADS, HIDDEN, MATRIX, "linear_attn.in_proj_ba.weight", MFI_MAP_BA_B,
              "ssm_ba.weight", MFI_MAP_BA_B),
    MFI_NAMED(GDN_A, GDN_HEADS, HIDDEN, MATRIX, "linear_attn.in_proj_ba.weight", MFI_MAP_BA_A,
              "ssm_ba.weight", MFI_MAP_BA_A),
    MFI_NAMED(GDN_CONV, GDN_QKV, CONV, F32, "linear_attn.conv1d.weight", 0, "ssm_conv1d.weight", 0),
    MFI_NAMED(GDN_A_LOG, 1, GDN_HEADS, F32_NEG_EXP, "linear_attn.A_log", 0, "ssm_a", 0),
    MFI_VECTOR(GDN_DT_BIAS, GDN_HEADS, "linear_attn.dt_bias", "ssm_dt.bias"),
    MFI_VECTOR(GDN_NORM, GDN_HEAD, "linear_attn.norm.weight", "ssm_norm.weight"),
    MFI_MATRIX(GDN_OUT, HIDDEN, GDN_V, "linear_attn.out_proj.weight", "ssm_out.weight"),
};

static const mfi_name_rule dense_names[] = {
    MFI_CENTRED(NORM_FFN, HIDDEN, "post_attention_layernorm.weight", "post_attention_norm.weight"),
    MFI_MATRIX(FFN_GATE, DENSE, HIDDEN, "mlp.gate_proj.weight", "ffn_gate.weight"),
    MFI_MATRIX(FFN_UP, DENSE, HIDDEN, "mlp.up_proj.weight", "ffn_up.weight"),
    MFI_MATRIX(FFN_DOWN, HIDDEN, DENSE, "mlp.down_proj.weight", "ffn_down.weight"),
};

static mf_status read_config(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    s->attn_gate = true;
    s->routing.normalize = true;
    if (!c->gguf_arch) /* llama.cpp takes it for granted */
        MFI_TRY(mfi_config_flag(c, "norm_topk_prob", &s->routing.normalize, err));
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_bias(c, model, false, err));
    MFI_TRY(mfi_config_attention(c, s, err));
    MFI_TRY(mfi_config_rope(c, s, 1e4, 0.25, err));
    MFI_TRY(mfi_config_gdn(c, s, err));
    MFI_TRY(mfi_config_experts(c, s, "moe_intermediate_size", err));
    MFI_TRY(mfi_config_u32(c, "shared_expert_intermediate_size", -1, 1, 1 << 20, &s->shared_width,
                           err));
    MFI_TRY(mfi_config_sparse(c, model, err));
    return mfi_config_hybrid(c, s->n_layers, model->mixer, err);
}

static const mfi_evidence evidence[] = {
    MFI_EVIDENCE_FLOATS,
    {MFI_FORMAT_FP8,
     "a tiny model with packed projections, against its values decoded by other code"},
    MFI_EVIDENCE_MLX,
    MFI_EVIDENCE_GGUF,
};

const mfi_arch mfi_arch_qwen3_next = {
    .name = "qwen3_next",
    .model_types = model_types,
    .gguf_arch = "qwen3next",
    .begin = MFI_RECIPE(mfi_ops_begin, mfi_names_begin),
    .mixer = {[MFI_MIXER_ATTN] = MFI_RECIPE(mfi_ops_attn, mfi_names_hybrid_attn),
              [MFI_MIXER_GDN] = MFI_RECIPE(mfi_ops_gdn, gdn_names)},
    .ffn = {[MFI_FFN_MOE] = MFI_RECIPE(mfi_ops_moe_shared_gated, mfi_names_hybrid_moe),
            [MFI_FFN_DENSE] = MFI_RECIPE(mfi_ops_dense, dense_names)},
    .head = MFI_RECIPE(mfi_ops_head, mfi_names_head_centred),
    .experts = &mfi_experts_mlp,
    .read_config = read_config,
    .evidence = evidence,
    .n_evidence = MFI_ARRAY_LEN(evidence),
};
