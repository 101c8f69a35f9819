/* Ling (bailing_moe) and Ling 2.0 (bailing_moe2), from llama.cpp's files. The first: plain
 * attention, experts by softmax, and shared ones. The second: q, k and v in one tensor, queries and
 * keys normed per head; dense layers first, then experts routed by sigmoids with a correction, from
 * the best groups, and shared ones. Name table and the reading of the configuration; no arithmetic.
 */
#include "model/config.h"
#include "model/recipes.h"

static const char *const no_model_types[] = {NULL};

#define FUSED(role, rows)                                                                          \
    MFI_NAMED(ATTN_##role, rows, HIDDEN, MATRIX, NULL, 0, "attn_qkv.weight", MFI_MAP_FUSED_##role)

static const mfi_name_rule attn2_names[] = {
    MFI_VECTOR(NORM_MIXER, HIDDEN, NULL, "attn_norm.weight"),
    FUSED(Q, Q),
    FUSED(K, KV),
    FUSED(V, KV),
    MFI_MATRIX(ATTN_O, HIDDEN, ATTN, NULL, "attn_output.weight"),
    MFI_VECTOR(ATTN_Q_NORM, HEAD, NULL, "attn_q_norm.weight"),
    MFI_VECTOR(ATTN_K_NORM, HEAD, NULL, "attn_k_norm.weight"),
};

static mf_status read_common(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    s->routing.normalize = false; /* where the file doesn't say */
    s->routing.group_best = 2;
    MFI_TRY(mfi_config_common(c, s, err));
    MFI_TRY(mfi_config_attention(c, s, err));
    MFI_TRY(mfi_config_rope(c, s, 1e4, MFI_ROPE_WHOLE, err));
    MFI_TRY(mfi_config_experts(c, s, "moe_intermediate_size", err));
    MFI_TRY(mfi_config_routing(c, s, err));
    return mfi_config_shared(c, model, err);
}

static mf_status read_config(mfi_model *model, const mfi_config *c, mf_error *err)
{
    model->omit[MFI_ROLE_ROUTER_CORRECTION] = true;
    MFI_TRY(read_common(model, c, err));
    model->shape.routing.score = MFI_SCORE_SOFTMAX; /* llama.cpp takes it for granted */
    return MF_OK;
}

static mf_status read_config2(mfi_model *model, const mfi_config *c, mf_error *err)
{
    mfi_shape *s = &model->shape;
    uint32_t n, width;
    s->routing.score = MFI_SCORE_SIGMOID;
    model->omit[MFI_ROLE_ROUTER_CORRECTION] =
        !mfi_config_has_layer_tensor(model, "exp_probs_b.bias");
    MFI_TRY(read_common(model, c, err));
    /* The width that the file gives is one shared expert's. */
    MFI_TRY(mfi_config_u32(c, "n_shared_experts", 1, 1, MFI_MAX_EXPERTS, &n, err));
    MFI_TRY(mfi_config_u32(c, "shared_expert_intermediate_size", 0, 0, (1 << 20) / n, &width, err));
    if (width > 0)
        s->shared_width = n * width;
    return mfi_config_dense(c, model, err);
}

static const mfi_evidence evidence[] = {
    MFI_EVIDENCE_GGUF,
};

const mfi_arch mfi_arch_bailing_moe = {
    .name = "bailing_moe",
    .model_types = no_model_types,
    .gguf_arch = "bailingmoe",
    .begin = MFI_RECIPE(mfi_ops_begin, mfi_names_begin),
    .mixer = {[MFI_MIXER_ATTN] = MFI_RECIPE(mfi_ops_attn, mfi_names_gguf_attn_paired)},
    .ffn = {[MFI_FFN_MOE] = MFI_RECIPE(mfi_ops_moe, mfi_names_gguf_moe),
            [MFI_FFN_MOE_SHARED] = MFI_RECIPE(mfi_ops_moe_shared, mfi_names_gguf_moe_shared)},
    .head = MFI_RECIPE(mfi_ops_head, mfi_names_head_plain),
    .experts = &mfi_experts_mlp,
    .read_config = read_config,
    .evidence = evidence,
    .n_evidence = MFI_ARRAY_LEN(evidence),
};

static const mfi_evidence evidence2[] = {
    {"GGUF", "tiny F32 models, one with expert groups: logits of llama.cpp"},
};

const mfi_arch mfi_arch_bailing_moe2 = {
    .name = "bailing_moe2",
    .model_types = no_model_types,
    .gguf_arch = "bailingmoe2",
    .begin = MFI_RECIPE(mfi_ops_begin, mfi_names_begin),
    .mixer = {[MFI_MIXER_ATTN] = MFI_RECIPE(mfi_ops_attn, attn2_names)},
    .ffn = {[MFI_FFN_MOE_SHARED] = MFI_RECIPE(mfi_ops_moe_shared, mfi_names_gguf_moe_shared),
            [MFI_FFN_DENSE] = MFI_RECIPE(mfi_ops_dense, mfi_names_gguf_dense)},
    .head = MFI_RECIPE(mfi_ops_head, mfi_names_head_plain),
    .experts = &mfi_experts_mlp,
    .read_config = read_config2,
    .evidence = evidence2,
    .n_evidence = MFI_ARRAY_LEN(evidence2),
};
