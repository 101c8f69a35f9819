/* Qwen3-MoE: full attention with normed queries and keys, routed experts, no shared one. Name table
 * and the reading of the configuration; no arithmetic. */
#include "model/config.h"
#include "model/recipes.h"

static const char *const model_types[] = {"qwen3_moe", NULL};

static const mfi_name_rule moe_names[] = {
    MFI_VECTOR(NORM_FFN, HIDDEN, "post_attention_layernorm.weight", "ffn_norm.weight"),
    MFI_MATRIX(ROUTER, EXPERTS, HIDDEN, "mlp.gate.weight", "ffn_gate_inp.weight"),
};

static mf_status read_config(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    bool windows = false;
    /* Hugging Face's default is false, llama.cpp's for this family true; published files say true.
     */
    s->routing.normalize = c->gguf_arch != NULL;
    if (!c->gguf_arch) /* llama.cpp takes it for granted */
        MFI_TRY(mfi_config_flag(c, "norm_topk_prob", &s->routing.normalize, err));
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_bias(c, model, false, err));
    MFI_TRY(mfi_config_flag(c, "use_sliding_window", &windows, err));
    if (windows)
        MFI_TRY(mfi_config_window(c, model, 4096, err));
    MFI_TRY(mfi_config_sparse(c, model, err));
    MFI_TRY(mfi_config_attention(c, s, err));
    MFI_TRY(mfi_config_rope(c, s, 1e4, MFI_ROPE_WHOLE, err));
    return mfi_config_experts(c, s, "moe_intermediate_size", err);
}

static const mfi_evidence evidence[] = {
    MFI_EVIDENCE_FLOATS,
    MFI_EVIDENCE_FP8_VALUES,
    MFI_EVIDENCE_MLX,
    {"GGUF", "tiny models in 18 file types, MXFP4 and NVFP4 among them, one in shards: logits of "
             "llama.cpp"},
};

const mfi_arch mfi_arch_qwen3_moe = {
    .name = "qwen3_moe",
    .model_types = model_types,
    .gguf_arch = "qwen3moe",
    .begin = MFI_RECIPE(mfi_ops_begin, mfi_names_begin),
    .mixer = {[MFI_MIXER_ATTN] = MFI_RECIPE(mfi_ops_attn, mfi_names_attn_norm),
              [MFI_MIXER_WINDOW] = MFI_RECIPE(mfi_ops_attn, mfi_names_attn_norm)},
    .ffn = {[MFI_FFN_MOE] = MFI_RECIPE(mfi_ops_moe, moe_names),
            [MFI_FFN_DENSE] = MFI_RECIPE(mfi_ops_dense, mfi_names_deepseek_dense)},
    .head = MFI_RECIPE(mfi_ops_head, mfi_names_head_plain),
    .experts = &mfi_experts_mlp,
    .read_config = read_config,
    .evidence = evidence,
    .n_evidence = MFI_ARRAY_LEN(evidence),
};
