/* GLM-4.5 and 4.6: attention with biases on q, k, v (and norms per head in the large ones), half of
 * each head rotated; a first dense layer, then experts routed by sigmoids with a correction, and a
 * shared one. A layer for multi-token prediction stands behind the others and is left alone. Name
 * table and the reading of the configuration; no arithmetic. */
#include "model/config.h"
#include "model/recipes.h"

static const char *const model_types[] = {"glm4_moe", NULL};

static const mfi_name_rule attn_names[] = {
    MFI_VECTOR(NORM_MIXER, HIDDEN, "input_layernorm.weight", "attn_norm.weight"),
    MFI_NAMES_QKV,
    MFI_NAMES_QKV_BIAS,
    MFI_MATRIX(ATTN_O, HIDDEN, ATTN, "self_attn.o_proj.weight", "attn_output.weight"),
    MFI_VECTOR(ATTN_Q_NORM, HEAD, "self_attn.q_norm.weight", "attn_q_norm.weight"),
    MFI_VECTOR(ATTN_K_NORM, HEAD, "self_attn.k_norm.weight", "attn_k_norm.weight"),
};

#define NORM_FFN                                                                                   \
    MFI_VECTOR(NORM_FFN, HIDDEN, "post_attention_layernorm.weight", "post_attention_norm.weight")

#define ROUTED                                                                                     \
    NORM_FFN, MFI_MATRIX(ROUTER, EXPERTS, HIDDEN, "mlp.gate.weight", "ffn_gate_inp.weight"),       \
        MFI_VECTOR(ROUTER_CORRECTION, EXPERTS, "mlp.gate.e_score_correction_bias",                 \
                   "exp_probs_b.bias")

static const mfi_name_rule dense_names[] = {
    NORM_FFN,
    MFI_MATRIX(FFN_GATE, DENSE, HIDDEN, "mlp.gate_proj.weight", "ffn_gate.weight"),
    MFI_MATRIX(FFN_UP, DENSE, HIDDEN, "mlp.up_proj.weight", "ffn_up.weight"),
    MFI_MATRIX(FFN_DOWN, HIDDEN, DENSE, "mlp.down_proj.weight", "ffn_down.weight"),
};

static const mfi_name_rule moe_names[] = {ROUTED};

static const mfi_name_rule shared_names[] = {
    ROUTED,
    MFI_NAMES_SHARED("mlp.shared_experts"),
};

/* What only some have: biases, norms of queries and keys. */
static mf_status read_options(mfi_model *model, const mfi_config *c, mf_error *err)
{
    bool bias = mfi_config_has_tensor(model, "blk.0.attn_q.bias");
    bool norm = mfi_config_has_tensor(model, "blk.0.attn_q_norm.weight");
    if (!c->gguf_arch) {
        bias = norm = false; /* transformers' defaults */
        MFI_TRY(mfi_config_flag(c, "attention_bias", &bias, err));
        MFI_TRY(mfi_config_flag(c, "use_qk_norm", &norm, err));
    }
    model->omit[MFI_ROLE_ATTN_Q_BIAS] = model->omit[MFI_ROLE_ATTN_K_BIAS] =
        model->omit[MFI_ROLE_ATTN_V_BIAS] = !bias;
    model->omit[MFI_ROLE_ATTN_Q_NORM] = model->omit[MFI_ROLE_ATTN_K_NORM] = !norm;
    return MF_OK;
}

static mf_status read_config(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    s->eps = 1e-5f;
    s->routing.score = MFI_SCORE_SIGMOID;
    s->routing.group_best = 2;
    s->routing.normalize = !c->gguf_arch; /* where the file doesn't say */
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_attention(c, s, err));
    MFI_TRY(mfi_config_rope(c, s, 1e4, 0.5, err));
    MFI_TRY(mfi_config_experts(c, s, "moe_intermediate_size", err));
    MFI_TRY(mfi_config_routing(c, s, err));
    MFI_TRY(mfi_config_shared(c, model, err));
    MFI_TRY(mfi_config_dense(c, model, err));
    return read_options(model, c, err);
}

static const mfi_evidence evidence[] = {
    MFI_EVIDENCE_FLOATS,
    MFI_EVIDENCE_MLX_CONVERTED,
    MFI_EVIDENCE_GGUF,
};

const mfi_arch mfi_arch_glm4_moe = {
    .name = "glm4_moe",
    .model_types = model_types,
    .gguf_arch = "glm4moe",
    .mlx = {.float_router = true, .asks = {{"rope_scaling", "null"}}},
    .begin = MFI_RECIPE(mfi_ops_begin, mfi_names_begin),
    .mixer = {[MFI_MIXER_ATTN] = MFI_RECIPE(mfi_ops_attn, attn_names)},
    .ffn = {[MFI_FFN_MOE] = MFI_RECIPE(mfi_ops_moe, moe_names),
            [MFI_FFN_MOE_SHARED] = MFI_RECIPE(mfi_ops_moe_shared, shared_names),
            [MFI_FFN_DENSE] = MFI_RECIPE(mfi_ops_dense, dense_names)},
    .head = MFI_RECIPE(mfi_ops_head, mfi_names_head_plain),
    .experts = &mfi_experts_mlp,
    .read_config = read_config,
    .evidence = evidence,
    .n_evidence = MFI_ARRAY_LEN(evidence),
};
