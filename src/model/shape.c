/* Sizes by name; see model.h. Pure. */
#include "model/model.h"

uint32_t mfi_dim_value(const mfi_shape *s, mfi_dim dim)
{
    switch (dim) {
    case MFI_DIM_1:
        return 1;
    case MFI_DIM_HIDDEN:
        return s->hidden;
    case MFI_DIM_VOCAB:
        return s->n_vocab;
    case MFI_DIM_Q:
        return s->n_head * s->head_dim * (s->attn_gate ? 2 : 1);
    case MFI_DIM_KV:
        return s->n_kv_head * s->head_dim;
    case MFI_DIM_ATTN:
        return s->n_head * (s->latent_kv ? s->v_dim : s->head_dim);
    case MFI_DIM_HEAD:
        return s->head_dim;
    case MFI_DIM_N_HEAD:
        return s->n_head;
    case MFI_DIM_ROT:
        return s->n_rot;
    case MFI_DIM_LATENT_Q:
        return s->latent_q;
    case MFI_DIM_LATENT_KV:
        return s->latent_kv;
    case MFI_DIM_LATENT_KV_A:
        return s->latent_kv + s->n_rot;
    case MFI_DIM_LATENT_K:
        return s->n_head * s->latent_kv;
    case MFI_DIM_LATENT_QL:
        return s->n_head * (s->latent_kv + s->n_rot);
    case MFI_DIM_NOPE:
        return s->nope_dim;
    case MFI_DIM_GDN_QKV:
        return 2 * s->gdn_k_heads * s->gdn_k_dim + s->gdn_v_heads * s->gdn_v_dim;
    case MFI_DIM_GDN_V:
        return s->gdn_v_heads * s->gdn_v_dim;
    case MFI_DIM_GDN_HEADS:
        return s->gdn_v_heads;
    case MFI_DIM_GDN_HEAD:
        return s->gdn_v_dim;
    case MFI_DIM_CONV:
        return s->conv_kernel;
    case MFI_DIM_EXPERTS:
        return s->n_experts;
    case MFI_DIM_TOP_K:
        return s->top_k;
    case MFI_DIM_EXPERT:
        return s->expert_width;
    case MFI_DIM_SHARED:
        return s->shared_width;
    case MFI_DIM_DENSE:
        return s->dense_width;
    }
    MFI_ASSERT(!"a dimension without a size");
    return 0;
}
