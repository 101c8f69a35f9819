/* The published shapes that synthetic models can have: numbers only, no weights, no names of
 * tensors. */
#ifndef MFI_SYNTH_SHAPES_H
#define MFI_SYNTH_SHAPES_H

#include "base/status.h"

typedef enum mfi_synth_kind {
    MFI_SYNTH_QWEN3_MOE,
    MFI_SYNTH_QWEN2_MOE,
    MFI_SYNTH_QWEN3_NEXT,
    MFI_SYNTH_QWEN3_5_MOE,
    MFI_SYNTH_GPT_OSS,
    MFI_SYNTH_DEEPSEEK_V3,
    MFI_SYNTH_DEEPSEEK_V2,
    MFI_SYNTH_KIMI_K2,
    MFI_SYNTH_GLM4_MOE_LITE,
    MFI_SYNTH_MIXTRAL,
    MFI_SYNTH_OLMOE,
    MFI_SYNTH_GLM4_MOE,
    MFI_SYNTH_MINIMAX_M2,
    MFI_SYNTH_GRANITEMOE,
    MFI_SYNTH_DOTS1
} mfi_synth_kind;

/* Fields that an architecture doesn't have are 0. */
typedef struct mfi_synth_shape {
    mfi_synth_kind kind;
    const char *name; /* "30b-a3b" */
    uint32_t n_layers, hidden, n_vocab, ctx;
    uint32_t n_head, n_kv_head, head_dim, n_rot;
    float rope_theta, eps;
    uint32_t n_experts, top_k, expert_width;
    uint32_t shared_width; /* of all shared experts together */
    uint32_t ffn_width;    /* of dense layers; metadata only where there are none */
    uint32_t n_dense;      /* leading layers without experts */
    bool qk_norm;          /* where some sizes of an architecture have norms and others don't */
    float routed_scale;    /* of the routed experts' sum */
    struct {
        float embed, residual, attn, logits; /* multipliers; logits are divided */
    } scale;
    struct {
        uint32_t k_heads, v_heads, dim, conv, interval; /* every interval-th layer is attention */
    } gdn;
    struct {
        uint32_t q_rank, kv_rank, nope, v_dim; /* q_rank 0: queries without a latent */
        uint32_t n_groups, top_groups;
    } mla;
    struct {
        float factor, log_mul;
        uint32_t ctx;    /* before scaling */
        float beta_fast; /* 0: 32, which is usual */
    } yarn;
    uint32_t window; /* of every other layer */
} mfi_synth_shape;

/* "qwen3_moe", as model_type says it, and "qwen3moe", as GGUF does. */
const char *mfi_synth_arch_name(mfi_synth_kind kind);
const char *mfi_synth_arch_gguf(mfi_synth_kind kind);

/* In any case and with any of "-_." between; arch may be NULL where the name is whole.
 * MF_ERR_ARGUMENT with what there is, if there is no such one. */
mf_status mfi_synth_shape_find(const char *arch, const char *name, const mfi_synth_shape **shape,
                               mf_error *err);
/* The i-th of the table, or NULL behind its end. */
const mfi_synth_shape *mfi_synth_shape_at(size_t i);

#endif
