/* Recipes and name tables that several families share. */
#ifndef MFI_MODEL_RECIPES_H
#define MFI_MODEL_RECIPES_H

#include "model/model.h"

extern const mfi_recipe_op mfi_ops_begin[2];
/* Biases on q, k, v and norms of q and k per head, each where the name table has them; gates if the
 * shape has them. */
extern const mfi_recipe_op mfi_ops_attn[7];
extern const mfi_recipe_op mfi_ops_attn_wide_norm[9];  /* all heads of q, and of k, normed as one */
extern const mfi_recipe_op mfi_ops_latent[10];         /* queries by way of a latent of their own */
extern const mfi_recipe_op mfi_ops_latent_direct[8];   /* or at once */
extern const mfi_recipe_op mfi_ops_attn_unrotated[7];  /* the same without positions */
extern const mfi_recipe_op mfi_ops_attn_norm_after[7]; /* the same, norms after the rotation */
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
/* Mixtral's: block_sparse_moe.experts.E.w1, w3, w2. */
extern const mfi_expert_names mfi_experts_sparse;

/* Lines of a name table, stored in the same order everywhere. */
#define MFI_MATRIX(role, rows, cols, hf, gguf)                                                     \
    {                                                                                              \
        MFI_ROLE_##role, MFI_DIM_##rows, MFI_DIM_##cols, MFI_LOAD_MATRIX, {{hf, 0}},               \
        {                                                                                          \
            {                                                                                      \
                gguf, 0                                                                            \
            }                                                                                      \
        }                                                                                          \
    }
#define MFI_VECTOR(role, cols, hf, gguf)                                                           \
    {                                                                                              \
        MFI_ROLE_##role, MFI_DIM_1, MFI_DIM_##cols, MFI_LOAD_F32, {{hf, 0}},                       \
        {                                                                                          \
            {                                                                                      \
                gguf, 0                                                                            \
            }                                                                                      \
        }                                                                                          \
    }
/* Of queries and keys, whose rotated pairs GGUF has side by side. */
#define MFI_MATRIX_PAIRED(role, rows, cols, hf, gguf)                                              \
    {                                                                                              \
        MFI_ROLE_##role, MFI_DIM_##rows, MFI_DIM_##cols, MFI_LOAD_MATRIX, {{hf, 0}},               \
        {                                                                                          \
            {                                                                                      \
                gguf, MFI_MAP_ROPE_PAIRS                                                           \
            }                                                                                      \
        }                                                                                          \
    }

extern const mfi_name_rule mfi_names_begin[1];
extern const mfi_name_rule mfi_names_head_plain[2];   /* norms stored as they multiply */
extern const mfi_name_rule mfi_names_head_centred[2]; /* norms stored zero-centred */

/* Names of Qwen's hybrids (Qwen3-Next, Qwen3.5), norms zero-centred. */
extern const mfi_name_rule mfi_names_hybrid_attn[7];
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

#endif
