/* Recipes that several families share: data, no code. Names are those of the published checkpoints
 * and of llama.cpp's files. */
#include "model/recipes.h"

const mfi_recipe_op mfi_ops_begin[2] = {
    {.code = MFI_OP_EMBED, .dst = {MFI_BUF_RES}, .w = {MFI_ROLE_EMBED}},
    {.code = MFI_OP_ROPE_TABLE, .dst = {MFI_BUF_ROPE}},
};

/* Pieces of attention. Operations whose weights a family's tables don't name are left out. */
#define ATTN_PREP(how)                                                                             \
    {                                                                                              \
        .code = MFI_OP_ATTN_PREP, .src = {MFI_BUF_Q, MFI_BUF_K, MFI_BUF_V, MFI_BUF_ROPE},          \
        .w = {MFI_ROLE_ATTN_Q_NORM, MFI_ROLE_ATTN_K_NORM}, .n = how                                \
    }
#define ATTN_OUT                                                                                   \
    {.code = MFI_OP_ATTN, .src = {MFI_BUF_Q}, .dst = {MFI_BUF_O}}, MFI_PRODUCT(O, Y, ATTN_O),      \
        {.code = MFI_OP_BIAS, .dst = {MFI_BUF_Y}, .w = {MFI_ROLE_ATTN_O_BIAS}, .n = 1}, MFI_ADD(Y)

const mfi_recipe_op mfi_ops_attn[8] = {
    MFI_ATTN_IN,
    ATTN_PREP(0),
    ATTN_OUT,
};

const mfi_recipe_op mfi_ops_attn_unrotated[8] = {
    MFI_ATTN_IN,
    ATTN_PREP(MFI_PREP_UNROTATED),
    ATTN_OUT,
};

const mfi_recipe_op mfi_ops_attn_norm_after[8] = {
    MFI_ATTN_IN,
    ATTN_PREP(MFI_PREP_NORM_AFTER),
    ATTN_OUT,
};

const mfi_recipe_op mfi_ops_attn_wide_norm[10] = {
    MFI_ATTN_IN,
    MFI_NORM(Q, Q, ATTN_Q_NORM),
    MFI_NORM(K, K, ATTN_K_NORM),
    {.code = MFI_OP_ATTN_PREP,
     .src = {MFI_BUF_Q, MFI_BUF_K, MFI_BUF_V, MFI_BUF_ROPE},
     .w = {MFI_ROLE_NONE, MFI_ROLE_NONE}},
    ATTN_OUT,
};

const mfi_recipe_op mfi_ops_gdn[6] = {
    MFI_NORM(RES, H, NORM_MIXER),
    {.code = MFI_OP_MATMUL,
     .src = {MFI_BUF_H},
     .dst = {MFI_BUF_QKV, MFI_BUF_Z, MFI_BUF_B, MFI_BUF_A},
     .w = {MFI_ROLE_GDN_QKV, MFI_ROLE_GDN_Z, MFI_ROLE_GDN_B, MFI_ROLE_GDN_A},
     .n = 4},
    {.code = MFI_OP_GDN_CONV, .src = {MFI_BUF_QKV}, .dst = {MFI_BUF_QKV}, .w = {MFI_ROLE_GDN_CONV}},
    {.code = MFI_OP_GDN,
     .src = {MFI_BUF_QKV, MFI_BUF_Z, MFI_BUF_B, MFI_BUF_A},
     .dst = {MFI_BUF_O},
     .w = {MFI_ROLE_GDN_A_LOG, MFI_ROLE_GDN_DT_BIAS, MFI_ROLE_GDN_NORM}},
    MFI_PRODUCT(O, Y, GDN_OUT),
    MFI_ADD(Y),
};

/* Up to the choice; router biases where there are any. */
#define ROUTE_IN                                                                                   \
    MFI_NORM(RES, H, NORM_FFN), MFI_PRODUCT(H, ROUTER, ROUTER),                                    \
        {.code = MFI_OP_BIAS, .dst = {MFI_BUF_ROUTER}, .w = {MFI_ROLE_ROUTER_BIAS}, .n = 1},       \
    {                                                                                              \
        .code = MFI_OP_ROUTE, .src = {MFI_BUF_ROUTER}, .dst = {MFI_BUF_IDS, MFI_BUF_WEIGHTS},      \
        .w = {                                                                                     \
            MFI_ROLE_ROUTER_CORRECTION                                                             \
        }                                                                                          \
    }
#define SHARED_OUT                                                                                 \
    {.code = MFI_OP_GLU, .src = {MFI_BUF_SG, MFI_BUF_SU}, .dst = {MFI_BUF_SG}},                    \
        MFI_PRODUCT(SG, Y, SHARED_DOWN),                                                           \
    {                                                                                              \
        .code = MFI_OP_EXPERTS, .src = {MFI_BUF_H}, .dst = { MFI_BUF_EY }                          \
    }

const mfi_recipe_op mfi_ops_moe[6] = {
    ROUTE_IN,
    {.code = MFI_OP_EXPERTS, .src = {MFI_BUF_H}, .dst = {MFI_BUF_EY}},
    {.code = MFI_OP_COMBINE,
     .src = {MFI_BUF_EY, MFI_BUF_WEIGHTS, MFI_BUF_Y, MFI_BUF_Y},
     .dst = {MFI_BUF_RES},
     .n = MFI_COMBINE_ROUTED},
};

/* The shared expert stands between the routing and the routed experts, so that it is computed while
 * missing experts are read. */
const mfi_recipe_op mfi_ops_moe_shared_gated[9] = {
    ROUTE_IN,
    {.code = MFI_OP_MATMUL,
     .src = {MFI_BUF_H},
     .dst = {MFI_BUF_SG, MFI_BUF_SU, MFI_BUF_SS},
     .w = {MFI_ROLE_SHARED_GATE, MFI_ROLE_SHARED_UP, MFI_ROLE_SHARED_SCALE},
     .n = 3},
    SHARED_OUT,
    {.code = MFI_OP_COMBINE,
     .src = {MFI_BUF_EY, MFI_BUF_WEIGHTS, MFI_BUF_Y, MFI_BUF_SS},
     .dst = {MFI_BUF_RES},
     .n = MFI_COMBINE_GATED},
};

const mfi_recipe_op mfi_ops_moe_shared[9] = {
    ROUTE_IN,
    {.code = MFI_OP_MATMUL,
     .src = {MFI_BUF_H},
     .dst = {MFI_BUF_SG, MFI_BUF_SU},
     .w = {MFI_ROLE_SHARED_GATE, MFI_ROLE_SHARED_UP},
     .n = 2},
    SHARED_OUT,
    {.code = MFI_OP_COMBINE,
     .src = {MFI_BUF_EY, MFI_BUF_WEIGHTS, MFI_BUF_Y, MFI_BUF_Y},
     .dst = {MFI_BUF_RES},
     .n = MFI_COMBINE_SHARED},
};

const mfi_recipe_op mfi_ops_dense[5] = {
    MFI_NORM(RES, H, NORM_FFN),
    {.code = MFI_OP_MATMUL,
     .src = {MFI_BUF_H},
     .dst = {MFI_BUF_DG, MFI_BUF_DU},
     .w = {MFI_ROLE_FFN_GATE, MFI_ROLE_FFN_UP},
     .n = 2},
    {.code = MFI_OP_GLU, .src = {MFI_BUF_DG, MFI_BUF_DU}, .dst = {MFI_BUF_DG}},
    MFI_PRODUCT(DG, Y, FFN_DOWN),
    MFI_ADD(Y),
};

const mfi_recipe_op mfi_ops_head[2] = {
    MFI_NORM(RES, HN, NORM_OUT),
    MFI_PRODUCT(HN, LOGITS, LM_HEAD),
};

const mfi_recipe_op mfi_ops_head_scaled[3] = {
    MFI_NORM(RES, HN, NORM_OUT),
    MFI_PRODUCT(HN, LOGITS, LM_HEAD),
    {.code = MFI_OP_SCALE, .src = {MFI_BUF_LOGITS}, .dst = {MFI_BUF_LOGITS}},
};

/* ---- names ---- */

const mfi_expert_names mfi_experts_mlp = {
    .each = "mlp.experts",
    .proj = {"gate_proj", "up_proj", "down_proj"},
    .stacked = "mlp.switch_mlp",
    .fused = "mlp.experts.gate_up_proj",
    .fused_down = "mlp.experts.down_proj",
};

const mfi_expert_names mfi_experts_mlp_kept = {
    .each = "mlp.experts",
    .proj = {"gate_proj", "up_proj", "down_proj"},
    .stacked = "mlp.experts",
    .fused = "mlp.experts.gate_up_proj",
    .fused_down = "mlp.experts.down_proj",
};

const mfi_expert_names mfi_experts_sparse = {
    .each = "block_sparse_moe.experts",
    .proj = {"w1", "w3", "w2"},
    .stacked = "block_sparse_moe.switch_mlp",
    .fused = "mlp.experts.gate_up_proj",
    .fused_down = "mlp.experts.down_proj",
};

#define LM_HEAD MFI_MATRIX(LM_HEAD, VOCAB, HIDDEN, "lm_head.weight", "output.weight")

const mfi_name_rule mfi_names_begin[1] = {
    MFI_MATRIX(EMBED, VOCAB, HIDDEN, "embed_tokens.weight", "token_embd.weight"),
};

const mfi_name_rule mfi_names_head_plain[2] = {
    MFI_VECTOR(NORM_OUT, HIDDEN, "norm.weight", "output_norm.weight"),
    LM_HEAD,
};

const mfi_name_rule mfi_names_head_centred[2] = {
    MFI_CENTRED(NORM_OUT, HIDDEN, "norm.weight", "output_norm.weight"),
    LM_HEAD,
};

const mfi_name_rule mfi_names_attn_paired[9] = {
    MFI_NAMES_ATTN_BIAS,
    MFI_VECTOR(NORM_MIXER, HIDDEN, "input_layernorm.weight", "attn_norm.weight"),
    MFI_MATRIX_PAIRED(ATTN_Q, Q, HIDDEN, "self_attn.q_proj.weight", "attn_q.weight"),
    MFI_MATRIX_PAIRED(ATTN_K, KV, HIDDEN, "self_attn.k_proj.weight", "attn_k.weight"),
    MFI_MATRIX(ATTN_V, KV, HIDDEN, "self_attn.v_proj.weight", "attn_v.weight"),
    MFI_MATRIX(ATTN_O, HIDDEN, ATTN, "self_attn.o_proj.weight", "attn_output.weight"),
};

const mfi_name_rule mfi_names_attn_norm[11] = {
    MFI_NAMES_ATTN_BIAS,
    MFI_VECTOR(NORM_MIXER, HIDDEN, "input_layernorm.weight", "attn_norm.weight"),
    MFI_NAMES_QKV,
    MFI_MATRIX(ATTN_O, HIDDEN, ATTN, "self_attn.o_proj.weight", "attn_output.weight"),
    MFI_VECTOR(ATTN_Q_NORM, HEAD, "self_attn.q_norm.weight", "attn_q_norm.weight"),
    MFI_VECTOR(ATTN_K_NORM, HEAD, "self_attn.k_norm.weight", "attn_k_norm.weight"),
};

const mfi_name_rule mfi_names_attn_wide_norm[11] = {
    MFI_NAMES_ATTN_BIAS,
    MFI_VECTOR(NORM_MIXER, HIDDEN, "input_layernorm.weight", "attn_norm.weight"),
    MFI_NAMES_QKV,
    MFI_MATRIX(ATTN_O, HIDDEN, ATTN, "self_attn.o_proj.weight", "attn_output.weight"),
    MFI_VECTOR(ATTN_Q_NORM, Q, "self_attn.q_norm.weight", "attn_q_norm.weight"),
    MFI_VECTOR(ATTN_K_NORM, KV, "self_attn.k_norm.weight", "attn_k_norm.weight"),
};

const mfi_name_rule mfi_names_hybrid_attn[11] = {
    MFI_NAMES_ATTN_BIAS,
    MFI_CENTRED(NORM_MIXER, HIDDEN, "input_layernorm.weight", "attn_norm.weight"),
    MFI_NAMES_QKV,
    MFI_MATRIX(ATTN_O, HIDDEN, ATTN, "self_attn.o_proj.weight", "attn_output.weight"),
    MFI_CENTRED(ATTN_Q_NORM, HEAD, "self_attn.q_norm.weight", "attn_q_norm.weight"),
    MFI_CENTRED(ATTN_K_NORM, HEAD, "self_attn.k_norm.weight", "attn_k_norm.weight"),
};

const mfi_name_rule mfi_names_hybrid_moe[6] = {
    MFI_CENTRED(NORM_FFN, HIDDEN, "post_attention_layernorm.weight", "post_attention_norm.weight"),
    MFI_MATRIX(ROUTER, EXPERTS, HIDDEN, "mlp.gate.weight", "ffn_gate_inp.weight"),
    MFI_NAMES_SHARED_GATED,
};

/* ---- names of llama.cpp's files alone ---- */

const mfi_name_rule mfi_names_gguf_attn[7] = {
    MFI_VECTOR(NORM_MIXER, HIDDEN, NULL, "attn_norm.weight"),
    MFI_MATRIX(ATTN_Q, Q, HIDDEN, NULL, "attn_q.weight"),
    MFI_MATRIX(ATTN_K, KV, HIDDEN, NULL, "attn_k.weight"),
    MFI_MATRIX(ATTN_V, KV, HIDDEN, NULL, "attn_v.weight"),
    MFI_MATRIX(ATTN_O, HIDDEN, ATTN, NULL, "attn_output.weight"),
    MFI_VECTOR(ATTN_Q_NORM, HEAD, NULL, "attn_q_norm.weight"),
    MFI_VECTOR(ATTN_K_NORM, HEAD, NULL, "attn_k_norm.weight"),
};

const mfi_name_rule mfi_names_gguf_attn_paired[5] = {
    MFI_VECTOR(NORM_MIXER, HIDDEN, NULL, "attn_norm.weight"),
    MFI_MATRIX_PAIRED(ATTN_Q, Q, HIDDEN, NULL, "attn_q.weight"),
    MFI_MATRIX_PAIRED(ATTN_K, KV, HIDDEN, NULL, "attn_k.weight"),
    MFI_MATRIX(ATTN_V, KV, HIDDEN, NULL, "attn_v.weight"),
    MFI_MATRIX(ATTN_O, HIDDEN, ATTN, NULL, "attn_output.weight"),
};

const mfi_name_rule mfi_names_gguf_dense[4] = {
    MFI_VECTOR(NORM_FFN, HIDDEN, NULL, "ffn_norm.weight"),
    MFI_MATRIX(FFN_GATE, DENSE, HIDDEN, NULL, "ffn_gate.weight"),
    MFI_MATRIX(FFN_UP, DENSE, HIDDEN, NULL, "ffn_up.weight"),
    MFI_MATRIX(FFN_DOWN, HIDDEN, DENSE, NULL, "ffn_down.weight"),
};

#define GGUF_ROUTER                                                                                \
    MFI_VECTOR(NORM_FFN, HIDDEN, NULL, "ffn_norm.weight"),                                         \
        MFI_MATRIX(ROUTER, EXPERTS, HIDDEN, NULL, "ffn_gate_inp.weight"),                          \
        MFI_VECTOR(ROUTER_CORRECTION, EXPERTS, NULL, "exp_probs_b.bias")

const mfi_name_rule mfi_names_gguf_moe[3] = {GGUF_ROUTER};

const mfi_name_rule mfi_names_gguf_moe_shared[6] = {
    GGUF_ROUTER,
    MFI_MATRIX(SHARED_GATE, SHARED, HIDDEN, NULL, "ffn_gate_shexp.weight"),
    MFI_MATRIX(SHARED_UP, SHARED, HIDDEN, NULL, "ffn_up_shexp.weight"),
    MFI_MATRIX(SHARED_DOWN, HIDDEN, SHARED, NULL, "ffn_down_shexp.weight"),
};
