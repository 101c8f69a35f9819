/* Qwen2-MoE (Qwen1.5-MoE, Qwen2-57B-A14B): full attention with biases on q, k and v, routed experts
 * whose weights are not renormalised, and a gated shared expert. Name table and the reading of the
 * configuration; no arithmetic. */
#include "model/config.h"
#include "model/recipes.h"

static const char *const model_types[] = {"qwen2_moe", NULL};

static const mfi_name_rule attn_names[] = {
    MFI_VECTOR(NORM_MIXER, HIDDEN, "input_layernorm.weight", "attn_norm.weight"),
    MFI_NAMES_QKV,
    MFI_NAMES_QKV_BIAS,
    MFI_MATRIX(ATTN_O, HIDDEN, ATTN, "self_attn.o_proj.weight", "attn_output.weight"),
};

static const mfi_name_rule moe_names[] = {
    MFI_VECTOR(NORM_FFN, HIDDEN, "post_attention_layernorm.weight", "ffn_norm.weight"),
    MFI_MATRIX(ROUTER, EXPERTS, HIDDEN, "mlp.gate.weight", "ffn_gate_inp.weight"),
    MFI_NAMES_SHARED_GATED,
};

/* Where nothing lists them, every other layer of the first max_window_layers has a window. */
static mf_status read_windows(const mfi_config *c, mfi_model *model, mf_error *err)
{
    bool windows = false;
    uint32_t n;
    MFI_TRY(mfi_config_flag(c, "use_sliding_window", &windows, err));
    if (c->gguf_arch || !windows)
        return MF_OK;
    MFI_TRY(mfi_config_windows(c, model, 2, err));
    MFI_TRY(mfi_config_u32(c, "max_window_layers", 28, 0, MFI_MAX_LAYERS, &n, err));
    for (uint32_t i = n; i < model->shape.n_layers && !mfi_config_has(c, "layer_types"); i++)
        model->mixer[i] = MFI_MIXER_ATTN;
    return MF_OK;
}

static mf_status read_config(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    bool bias = true;
    s->routing.normalize = false;
    if (!c->gguf_arch) /* llama.cpp takes it for granted */
        MFI_TRY(mfi_config_flag(c, "norm_topk_prob", &s->routing.normalize, err));
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_flag(c, "qkv_bias", &bias, err));
    if (!bias)
        mfi_config_no_bias(model);
    MFI_TRY(read_windows(c, model, err));
    MFI_TRY(mfi_config_sparse(c, model, err));
    MFI_TRY(mfi_config_attention(c, s, err));
    MFI_TRY(mfi_config_rope(c, s, 1e4, MFI_ROPE_WHOLE, err));
    MFI_TRY(mfi_config_experts(c, s, "moe_intermediate_size", err));
    return mfi_config_u32(c, "shared_expert_intermediate_size", -1, 1, 1 << 20, &s->shared_width,
                          err);
}

static const mfi_evidence evidence[] = {
    MFI_EVIDENCE_FLOATS,
    MFI_EVIDENCE_FP8_VALUES,
    MFI_EVIDENCE_MLX,
    MFI_EVIDENCE_GGUF,
};

const mfi_arch mfi_arch_qwen2_moe = {
    .name = "qwen2_moe",
    .model_types = model_types,
    .gguf_arch = "qwen2moe",
    .begin = MFI_RECIPE(mfi_ops_begin, mfi_names_begin),
    .mixer = {[MFI_MIXER_ATTN] = MFI_RECIPE(mfi_ops_attn, attn_names),
              [MFI_MIXER_WINDOW] = MFI_RECIPE(mfi_ops_attn, attn_names)},
    .ffn = {[MFI_FFN_MOE] = MFI_RECIPE(mfi_ops_moe_shared_gated, moe_names),
            [MFI_FFN_DENSE] = MFI_RECIPE(mfi_ops_dense, mfi_names_deepseek_dense)},
    .head = MFI_RECIPE(mfi_ops_head, mfi_names_head_plain),
    .experts = &mfi_experts_mlp,
    .read_config = read_config,
    .evidence = evidence,
    .n_evidence = MFI_ARRAY_LEN(evidence),
};
