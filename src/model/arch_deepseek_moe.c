/* DeepSeekMoE (deepseek-moe-16b), before latent attention: plain attention, a first dense layer,
 * then experts routed by softmax and shared ones that are added as they are. Name table and the
 * reading of the configuration; no arithmetic. */
#include "model/config.h"
#include "model/recipes.h"

static const char *const model_types[] = {"deepseek", NULL};

static const mfi_name_rule attn_names[] = {
    MFI_VECTOR(NORM_MIXER, HIDDEN, "input_layernorm.weight", "attn_norm.weight"),
    MFI_MATRIX_PAIRED(ATTN_Q, Q, HIDDEN, "self_attn.q_proj.weight", "attn_q.weight"),
    MFI_MATRIX_PAIRED(ATTN_K, KV, HIDDEN, "self_attn.k_proj.weight", "attn_k.weight"),
    MFI_MATRIX(ATTN_V, KV, HIDDEN, "self_attn.v_proj.weight", "attn_v.weight"),
    MFI_MATRIX(ATTN_O, HIDDEN, ATTN, "self_attn.o_proj.weight", "attn_output.weight"),
};

static mf_status read_config(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    s->routing.normalize = false;
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_attention(c, s, err));
    MFI_TRY(mfi_config_rope(c, s, 1e4, 1.0, err));
    MFI_TRY(mfi_config_experts(c, s, "moe_intermediate_size", err));
    MFI_TRY(mfi_config_routing(c, s, err));
    MFI_TRY(mfi_config_shared(c, model, err));
    model->omit[MFI_ROLE_ROUTER_CORRECTION] = true;
    return mfi_config_dense(c, model, err);
}

static const mfi_evidence evidence[] = {
    {"safetensors: bfloat16, float16, float32",
     "the tiny MLX model's weights decoded by other code: logits, every layer's hidden states and "
     "greedy tokens of mlx-lm"},
    {"MLX: affine, 2, 3, 4, 5, 6 or 8 bits, also mixed",
     "a tiny 4-bit model: logits, every layer's hidden states and greedy tokens of mlx-lm"},
    {"GGUF", "a tiny F32 model: logits of llama.cpp"},
};

const mfi_arch mfi_arch_deepseek = {
    .name = "deepseek",
    .model_types = model_types,
    .gguf_arch = "deepseek",
    .mlx = {.float_router = true},
    .begin = MFI_RECIPE(mfi_ops_begin, mfi_names_begin),
    .mixer = {[MFI_MIXER_ATTN] = MFI_RECIPE(mfi_ops_attn, attn_names)},
    .ffn = {[MFI_FFN_MOE_SHARED] = MFI_RECIPE(mfi_ops_moe_shared, mfi_names_deepseek_moe),
            [MFI_FFN_DENSE] = MFI_RECIPE(mfi_ops_dense, mfi_names_deepseek_dense)},
    .head = MFI_RECIPE(mfi_ops_head, mfi_names_head_plain),
    .experts = &mfi_experts_mlp,
    .read_config = read_config,
    .evidence = evidence,
    .n_evidence = MFI_ARRAY_LEN(evidence),
};
