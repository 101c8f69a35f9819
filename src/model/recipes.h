/* Recipes and name tables that several families share. */
#ifndef MFI_MODEL_RECIPES_H
#define MFI_MODEL_RECIPES_H

#include "model/model.h"

extern const mfi_recipe_op mfi_ops_begin[2];
extern const mfi_recipe_op
    mfi_ops_attn[6]; /* q and k normed per head; gates if the shape has them */
extern const mfi_recipe_op mfi_ops_attn_bias[7]; /* biases on q, k, v; no norms */
extern const mfi_recipe_op mfi_ops_gdn[6];
extern const mfi_recipe_op mfi_ops_moe[5];        /* routed experts only */
extern const mfi_recipe_op mfi_ops_moe_shared[8]; /* and a gated shared expert */
extern const mfi_recipe_op mfi_ops_head[2];

extern const mfi_name_rule mfi_names_begin[1];
extern const mfi_name_rule mfi_names_head_plain[2];   /* norms stored as they multiply */
extern const mfi_name_rule mfi_names_head_centred[2]; /* norms stored zero-centred */

/* Names of Qwen's hybrids (Qwen3-Next, Qwen3.5), norms zero-centred. */
extern const mfi_name_rule mfi_names_hybrid_attn[7];
extern const mfi_name_rule mfi_names_hybrid_moe[6];

#endif
