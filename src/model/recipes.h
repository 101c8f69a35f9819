/* Recipes, name tables and lines of evidence that several families share. */
#ifndef MFI_MODEL_RECIPES_H
#define MFI_MODEL_RECIPES_H

#include "model/model.h"

extern const mfi_recipe_op mfi_ops_begin[2];
/* Biases on q, k, v and o and norms of q and k per head, each where the name table has them; gates
 * if the shape has them. */
extern const mfi_recipe_op mfi_ops_attn[8];
extern const mfi_recipe_op mfi_ops_attn_wide_norm[10]; /* all heads of q, and of k, normed as one */
extern const mfi_recipe_op mfi_ops_latent[10];         /* queries by way of a latent of their own */
extern const mfi_recipe_op mfi_ops_latent_direct[8];   /* or at once */
extern const mfi_recipe_op mfi_ops_attn_unrotated[8];  /* the same without positions */
extern const mfi_recipe_op mfi_ops_attn_norm_after[8]; /* the same, norms after the rotation */
extern const mfi_recipe_op mfi_ops_gdn[6];
/* Routed experts: a router's bias and its correction each where the name table has it. */
extern const mfi_recipe_op mfi_ops_moe[6];
extern const mfi_recipe_op mfi_ops_moe_shared_gated[9]; /* and a shared expert with a scalar gate */
extern const mfi_recipe_op mfi_ops_moe_shared[9];       /* and shared experts, added as they are */
extern const mfi_recipe_op mfi_ops_dense[5];            /* no experts */
extern const mfi_recipe_op mfi_ops_head[2];
extern const mfi_recipe_op mfi_ops_head_scaled[3]; /* logits times the shape's logit_scale */

/* Experts as most families call them: mlp.experts, mlp.switch_mlp, mlp.experts.gate_up_proj. */
extern const mfi_expert_names mfi_experts_mlp;
/* The same where mlx-lm stacks them under the name that they had, and takes gate and up apart. */
extern const mfi_expert_names mfi_experts_mlp_kept;
/* Mixtral's: block_sparse_moe.experts.E.w1, w3, w2. */
extern const mfi_expert_names mfi_experts_sparse;

/* ---- operations of a recipe ---- */

#define MFI_NORM(from, to, role)                                                                   \
    {                                                                                              \
        .code = MFI_OP_RMSNORM, .src = {MFI_BUF_##from}, .dst = {MFI_BUF_##to}, .w = {             \
            MFI_ROLE_##role                                                                        \
        }                                                                                          \
    }
#define MFI_PRODUCT(from, to, role)                                                                \
    {                                                                                              \
        .code = MFI_OP_MATMUL, .src = {MFI_BUF_##from}, .dst = {MFI_BUF_##to},                     \
        .w = {MFI_ROLE_##role}, .n = 1                                                             \
    }
#define MFI_ADD(from)                                                                              \
    {                                                                                              \
        .code = MFI_OP_ADD, .src = {MFI_BUF_##from}, .dst = { MFI_BUF_RES }                        \
    }
/* Norm, queries, keys and values; biases where there are any. */
#define MFI_ATTN_IN                                                                                \
    MFI_NORM(RES, H, NORM_MIXER),                                                                  \
        {.code = MFI_OP_MATMUL,                                                                    \
         .src = {MFI_BUF_H},                                                                       \
         .dst = {MFI_BUF_Q, MFI_BUF_K, MFI_BUF_V},                                                 \
         .w = {MFI_ROLE_ATTN_Q, MFI_ROLE_ATTN_K, MFI_ROLE_ATTN_V},                                 \
         .n = 3},                                                                                  \
    {                                                                                              \
        .code = MFI_OP_BIAS, .dst = {MFI_BUF_Q, MFI_BUF_K, MFI_BUF_V},                             \
        .w = {MFI_ROLE_ATTN_Q_BIAS, MFI_ROLE_ATTN_K_BIAS, MFI_ROLE_ATTN_V_BIAS}, .n = 3            \
    }

/* ---- lines of a name table, stored in the same order everywhere ---- */

#define MFI_NAMED(role_, rows_, cols_, load_, hf_, hf_map, gguf_, gguf_map)                        \
    {                                                                                              \
        .role = MFI_ROLE_##role_, .rows = MFI_DIM_##rows_, .cols = MFI_DIM_##cols_,                \
        .load = MFI_LOAD_##load_, .hf[0] = {hf_, hf_map}, .gguf[0] = {                             \
            gguf_,                                                                                 \
            gguf_map                                                                               \
        }                                                                                          \
    }
#define MFI_MATRIX(role, rows, cols, hf, gguf) MFI_NAMED(role, rows, cols, MATRIX, hf, 0, gguf, 0)
#define MFI_VECTOR(role, cols, hf, gguf)       MFI_NAMED(role, 1, cols, F32, hf, 0, gguf, 0)
/* The same under transformers' own name too, which it saves when it isn't to restore the published
 * one. */
#define MFI_RESAVED(role_, rows_, cols_, load_, hf_, own_, gguf_)                                  \
    {                                                                                              \
        .role = MFI_ROLE_##role_, .rows = MFI_DIM_##rows_, .cols = MFI_DIM_##cols_,                \
        .load = MFI_LOAD_##load_, .hf = {{hf_, 0}, {own_, 0}}, .gguf[0] = {                        \
            gguf_,                                                                                 \
            0                                                                                      \
        }                                                                                          \
    }
/* A norm that Hugging Face's files have zero-centred. */
#define MFI_CENTRED(role, cols, hf, gguf) MFI_NAMED(role, 1, cols, F32_PLUS1, hf, 0, gguf, 0)
/* Of queries and keys, whose rotated pairs GGUF has side by side. */
#define MFI_MATRIX_PAIRED(role, rows, cols, hf, gguf)                                              \
    MFI_NAMED(role, rows, cols, MATRIX, hf, 0, gguf, MFI_MAP_ROPE_PAIRS)

/* Runs of lines that several tables have. */
#define MFI_NAMES_QKV                                                                              \
    MFI_MATRIX(ATTN_Q, Q, HIDDEN, "self_attn.q_proj.weight", "attn_q.weight"),                     \
        MFI_MATRIX(ATTN_K, KV, HIDDEN, "self_attn.k_proj.weight", "attn_k.weight"),                \
        MFI_MATRIX(ATTN_V, KV, HIDDEN, "self_attn.v_proj.weight", "attn_v.weight")
#define MFI_NAMES_QKV_BIAS                                                                         \
    MFI_VECTOR(ATTN_Q_BIAS, Q, "self_attn.q_proj.bias", "attn_q.bias"),                            \
        MFI_VECTOR(ATTN_K_BIAS, KV, "self_attn.k_proj.bias", "attn_k.bias"),                       \
        MFI_VECTOR(ATTN_V_BIAS, KV, "self_attn.v_proj.bias", "attn_v.bias")
#define MFI_NAMES_ATTN_BIAS                                                                        \
    MFI_NAMES_QKV_BIAS, MFI_VECTOR(ATTN_O_BIAS, HIDDEN, "self_attn.o_proj.bias", "attn_output.bias")
#define MFI_NAMES_SHARED(where)                                                                    \
    MFI_MATRIX(SHARED_GATE, SHARED, HIDDEN, where ".gate_proj.weight", "ffn_gate_shexp.weight"),   \
        MFI_MATRIX(SHARED_UP, SHARED, HIDDEN, where ".up_proj.weight", "ffn_up_shexp.weight"),     \
        MFI_MATRIX(SHARED_DOWN, HIDDEN, SHARED, where ".down_proj.weight",                         \
                   "ffn_down_shexp.weight")
#define MFI_NAMES_SHARED_GATED                                                                     \
    MFI_NAMES_SHARED("mlp.shared_expert"),                                                         \
        MFI_MATRIX(SHARED_SCALE, 1, HIDDEN, "mlp.shared_expert_gate.weight",                       \
                   "ffn_gate_inp_shexp.weight")

extern const mfi_name_rule mfi_names_begin[1];
extern const mfi_name_rule mfi_names_head_plain[2];   /* norms stored as they multiply */
extern const mfi_name_rule mfi_names_head_centred[2]; /* norms stored zero-centred */

/* Attention with rotated pairs side by side in GGUF; with norms per head; and with all heads of q,
 * and of k, normed as one. Biases, which few models have: mfi_config_bias. */
extern const mfi_name_rule mfi_names_attn_paired[9];
extern const mfi_name_rule mfi_names_attn_norm[11];
extern const mfi_name_rule mfi_names_attn_wide_norm[11];

/* Names of Qwen's hybrids (Qwen3-Next, Qwen3.5), norms zero-centred. */
extern const mfi_name_rule mfi_names_hybrid_attn[11];
extern const mfi_name_rule mfi_names_hybrid_moe[6];

/* Latent attention, both kinds. */
extern const mfi_name_rule mfi_names_latent[10];
/* DeepSeek's experts with shared ones, and its dense layers. */
extern const mfi_name_rule mfi_names_deepseek_moe[6];
extern const mfi_name_rule mfi_names_deepseek_dense[4];
/* Names of families that are read from llama.cpp's files alone; models omit what they don't have.
 */
extern const mfi_name_rule mfi_names_gguf_attn[7];
extern const mfi_name_rule mfi_names_gguf_attn_paired[5]; /* rotated pairs side by side, no norms */
extern const mfi_name_rule mfi_names_gguf_dense[4];
extern const mfi_name_rule mfi_names_gguf_moe[3];
extern const mfi_name_rule mfi_names_gguf_moe_shared[6];

/* ---- lines of evidence ---- */

#define MFI_FORMAT_FLOATS "safetensors: bfloat16, float16, float32"
#define MFI_FORMAT_FP8    "safetensors: FP8 in blocks of 128 x 128"
#define MFI_FORMAT_MLX    "MLX: affine, 2, 3, 4, 5, 6 or 8 bits, also mixed"
#define MFI_EVIDENCE_FLOATS                                                                        \
    {                                                                                              \
        MFI_FORMAT_FLOATS,                                                                         \
            "a tiny model: logits, every layer's hidden states and greedy tokens of Hugging Face " \
            "transformers"                                                                         \
    }
#define MFI_EVIDENCE_FP8_VALUES                                                                    \
    {                                                                                              \
        MFI_FORMAT_FP8, "the decoded values of torch; no model of this family yet"                 \
    }
#define MFI_EVIDENCE_MLX                                                                           \
    {                                                                                              \
        MFI_FORMAT_MLX,                                                                            \
            "a tiny model: logits, every layer's hidden states and greedy tokens of mlx-lm"        \
    }
#define MFI_EVIDENCE_MLX_CONVERTED                                                                 \
    {                                                                                              \
        MFI_FORMAT_MLX,                                                                            \
            "a tiny model as mlx-lm converts it, 4 bits: its logits (tools/mlx_families.py)"       \
    }
#define MFI_EVIDENCE_GGUF                                                                          \
    {                                                                                              \
        "GGUF", "a tiny F32 model: logits of llama.cpp"                                            \
    }

#endif
