/* Recipes and names of multi-head latent attention, and names of DeepSeek's feed-forward: data, no
 * code. Names are those of the published checkpoints, of MLX's conversions and of llama.cpp's
 * files.
 *
 * kv_b comes whole (Hugging Face, older conversions), or split: then its keys' part stands
 * transposed, a head's rows by latent. What isn't split is taken apart by rows while loading. */
#include "model/recipes.h"

#define LATENT_OUT                                                                                 \
    {.code = MFI_OP_LATENT_PREP,                                                                   \
     .src = {MFI_BUF_Q, MFI_BUF_KVA, MFI_BUF_ROPE},                                                \
     .w = {MFI_ROLE_LATENT_KV_NORM}},                                                              \
        {.code = MFI_OP_LATENT_ABSORB,                                                             \
         .src = {MFI_BUF_Q},                                                                       \
         .dst = {MFI_BUF_QL},                                                                      \
         .w = {MFI_ROLE_LATENT_K}},                                                                \
        {.code = MFI_OP_LATENT_ATTN, .src = {MFI_BUF_QL}, .dst = {MFI_BUF_OL}},                    \
        {.code = MFI_OP_LATENT_EXPAND,                                                             \
         .src = {MFI_BUF_OL},                                                                      \
         .dst = {MFI_BUF_O},                                                                       \
         .w = {MFI_ROLE_LATENT_V}},                                                                \
        MFI_PRODUCT(O, Y, ATTN_O), MFI_ADD(Y)

const mfi_recipe_op mfi_ops_latent[10] = {
    MFI_NORM(RES, H, NORM_MIXER),
    {.code = MFI_OP_MATMUL,
     .src = {MFI_BUF_H},
     .dst = {MFI_BUF_QA, MFI_BUF_KVA},
     .w = {MFI_ROLE_LATENT_Q_A, MFI_ROLE_LATENT_KV_A},
     .n = 2},
    {.code = MFI_OP_RMSNORM,
     .src = {MFI_BUF_QA},
     .dst = {MFI_BUF_QA},
     .w = {MFI_ROLE_LATENT_Q_NORM},
     .n = 1},
    MFI_PRODUCT(QA, Q, LATENT_Q_B),
    LATENT_OUT,
};

const mfi_recipe_op mfi_ops_latent_direct[8] = {
    MFI_NORM(RES, H, NORM_MIXER),
    {.code = MFI_OP_MATMUL,
     .src = {MFI_BUF_H},
     .dst = {MFI_BUF_Q, MFI_BUF_KVA},
     .w = {MFI_ROLE_ATTN_Q, MFI_ROLE_LATENT_KV_A},
     .n = 2},
    LATENT_OUT,
};

/* ---- names ---- */

const mfi_name_rule mfi_names_latent[10] = {
    MFI_VECTOR(NORM_MIXER, HIDDEN, "input_layernorm.weight", "attn_norm.weight"),
    MFI_MATRIX(ATTN_Q, Q, HIDDEN, "self_attn.q_proj.weight", "attn_q.weight"),
    MFI_MATRIX(LATENT_Q_A, LATENT_Q, HIDDEN, "self_attn.q_a_proj.weight", "attn_q_a.weight"),
    MFI_VECTOR(LATENT_Q_NORM, LATENT_Q, "self_attn.q_a_layernorm.weight", "attn_q_a_norm.weight"),
    MFI_MATRIX(LATENT_Q_B, Q, LATENT_Q, "self_attn.q_b_proj.weight", "attn_q_b.weight"),
    MFI_MATRIX(LATENT_KV_A, LATENT_KV_A, HIDDEN, "self_attn.kv_a_proj_with_mqa.weight",
               "attn_kv_a_mqa.weight"),
    MFI_VECTOR(LATENT_KV_NORM, LATENT_KV, "self_attn.kv_a_layernorm.weight",
               "attn_kv_a_norm.weight"),
    {MFI_ROLE_LATENT_K,
     MFI_DIM_LATENT_K,
     MFI_DIM_NOPE,
     MFI_LOAD_MATRIX,
     {{"self_attn.kv_b_proj.weight", MFI_MAP_KVB_K}, {"self_attn.embed_q.weight", 0}},
     {{"attn_k_b.weight", 0}, {"attn_kv_b.weight", MFI_MAP_KVB_K}}},
    {MFI_ROLE_LATENT_V,
     MFI_DIM_ATTN,
     MFI_DIM_LATENT_KV,
     MFI_LOAD_MATRIX,
     {{"self_attn.kv_b_proj.weight", MFI_MAP_KVB_V}, {"self_attn.unembed_out.weight", 0}},
     {{"attn_v_b.weight", 0}, {"attn_kv_b.weight", MFI_MAP_KVB_V}}},
    MFI_MATRIX(ATTN_O, HIDDEN, ATTN, "self_attn.o_proj.weight", "attn_output.weight"),
};

const mfi_name_rule mfi_names_deepseek_moe[6] = {
    MFI_VECTOR(NORM_FFN, HIDDEN, "post_attention_layernorm.weight", "ffn_norm.weight"),
    MFI_MATRIX(ROUTER, EXPERTS, HIDDEN, "mlp.gate.weight", "ffn_gate_inp.weight"),
    MFI_VECTOR(ROUTER_CORRECTION, EXPERTS, "mlp.gate.e_score_correction_bias", "exp_probs_b.bias"),
    MFI_NAMES_SHARED("mlp.shared_experts"),
};

const mfi_name_rule mfi_names_deepseek_dense[4] = {
    MFI_VECTOR(NORM_FFN, HIDDEN, "post_attention_layernorm.weight", "ffn_norm.weight"),
    MFI_MATRIX(FFN_GATE, DENSE, HIDDEN, "mlp.gate_proj.weight", "ffn_gate.weight"),
    MFI_MATRIX(FFN_UP, DENSE, HIDDEN, "mlp.up_proj.weight", "ffn_up.weight"),
    MFI_MATRIX(FFN_DOWN, HIDDEN, DENSE, "mlp.down_proj.weight", "ffn_down.weight"),
};
