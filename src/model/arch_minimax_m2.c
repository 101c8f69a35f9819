/* MiniMax-M2: queries and keys normed over all heads at once, half of each head rotated, experts
 * routed by sigmoids with a correction. Name table and the reading of the configuration; no
 * arithmetic. */
#include "model/config.h"
#include "model/recipes.h"

static const char *const model_types[] = {"minimax_m2", NULL};

static const mfi_name_rule moe_names[] = {
    MFI_VECTOR(NORM_FFN, HIDDEN, "post_attention_layernorm.weight", "ffn_norm.weight"),
    MFI_RESAVED(ROUTER, EXPERTS, HIDDEN, MATRIX, "block_sparse_moe.gate.weight", "mlp.gate.weight",
                "ffn_gate_inp.weight"),
    MFI_RESAVED(ROUTER_CORRECTION, 1, EXPERTS, F32, "block_sparse_moe.e_score_correction_bias",
                "mlp.e_score_correction_bias", "exp_probs_b.bias"),
};

/* 1 a layer: full attention; their earlier models had another kind. */
static mf_status check_attention(const mfi_config *c, mf_error *err)
{
    const mfi_json *types = mfi_config_get(c, "attn_type_list");
    for (size_t i = 0; i < mfi_json_len(types); i++) {
        int64_t type = 0;
        if (!mfi_json_i64(mfi_json_at(types, i), &type) || type != 1)
            return mfi_fail(err, MF_ERR_UNSUPPORTED,
                            "%s: config.json: attn_type_list: layer %zu isn't 1, full attention",
                            c->path, i);
    }
    return MF_OK;
}

static mf_status read_config(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    uint32_t rotary, shared;
    s->routing.score = MFI_SCORE_SIGMOID;
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_require(c, "use_qk_norm", true, err));
    MFI_TRY(check_attention(c, err));
    mfi_config_no_bias(model);
    MFI_TRY(mfi_config_attention(c, s, err));
    /* config.json says rotary_dim, newer ones partial_rotary_factor as well. */
    MFI_TRY(mfi_config_u32(c, "rotary_dim", s->head_dim, 2, s->head_dim, &rotary, err));
    MFI_TRY(mfi_config_rope(c, s, 5e6, (double)rotary / s->head_dim, err));
    MFI_TRY(mfi_config_u32(c, "shared_intermediate_size", 0, 0, 0, &shared, err));
    MFI_TRY(mfi_config_experts(c, s, c->gguf_arch ? "moe_intermediate_size" : "intermediate_size",
                               err));
    MFI_TRY(mfi_config_routing(c, s, err));
    if (c->gguf_arch) { /* llama.cpp takes these two for granted */
        s->routing.normalize = true;
        s->routing.scale = 1;
    }
    return MF_OK;
}

static const mfi_evidence evidence[] = {
    MFI_EVIDENCE_FLOATS,
    MFI_EVIDENCE_MLX_CONVERTED,
    MFI_EVIDENCE_GGUF,
};

const mfi_arch mfi_arch_minimax_m2 = {
    .name = "minimax_m2",
    .model_types = model_types,
    .gguf_arch = "minimax-m2",
    .mlx = {.asks = {{"shared_intermediate_size", "0"}}},
    .begin = MFI_RECIPE(mfi_ops_begin, mfi_names_begin),
    .mixer = {[MFI_MIXER_ATTN] = MFI_RECIPE(mfi_ops_attn_wide_norm, mfi_names_attn_wide_norm)},
    .ffn = {[MFI_FFN_MOE] = MFI_RECIPE(mfi_ops_moe, moe_names)},
    .head = MFI_RECIPE(mfi_ops_head, mfi_names_head_plain),
    .experts = &mfi_experts_sparse,
    .read_config = read_config,
    .evidence = evidence,
    .n_evidence = MFI_ARRAY_LEN(evidence),
};
