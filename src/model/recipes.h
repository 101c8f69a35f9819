/* Recipes and name tables that several families share. */
#ifndef MFI_MODEL_RECIPES_H
#define MFI_MODEL_RECIPES_H

#include "model/model.h"

extern const mfi_recipe_op mfi_ops_begin[2];
/* Biases on q, k, v and norms of q and k per head, each where the name table has them; gates if the
 * shape has them. */
extern const mfi_recipe_op mfi_ops_attn[7];
extern const mfi_recipe_op mfi_ops_attn_wide_norm[9]; /* all heads of q, and of k, normed as one */
extern const mfi_recipe_op mfi_ops_latent[10];        /* queries by way of a latent of their own */
extern const mfi_recipe_op mfi_ops_latent_direct[8];  /* or at once */
extern const mfi_recipe_op mfi_ops_gdn[6];
/* Routed experts: a router's bias and its correction each where the name table has it. */
extern const mfi_recipe_op mfi_ops_moe[6];
extern const mfi_recipe_op mfi_ops_moe_shared_gated[9]; /* and a shared expert with a scalar gate */
extern const mfi_recipe_op mfi_ops_moe_shared[9];       /* and shared experts, added as they are */
extern const mfi_recipe_op mfi_ops_dense[5];            /* no experts */
extern const mfi_recipe_op mfi_ops_head[2];
extern const mfi_recipe_op mfi_ops_head_scaled[3]; /* logits times the shape's logit_scale */

extern const mfi_name_rule mfi_names_begin[1];
extern const mfi_name_rule mfi_names_head_plain[2];   /* norms stored as they multiply */
extern const mfi_name_rule mfi_names_head_centred[2]; /* norms stored zero-centred */

/* Names of Qwen's hybrids (Qwen3-Next, Qwen3.5), norms zero-centred. */
extern const mfi_name_rule mfi_names_hybrid_attn[7];
extern const mfi_name_rule mfi_names_hybrid_moe[6];

/* Latent attention, both kinds. */
extern const mfi_name_rule mfi_names_latent[10];

#endif
