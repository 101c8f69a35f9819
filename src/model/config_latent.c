/* Hyper-parameters of multi-head latent attention. Called while a model is opened; pure look-ups.
 */
#include <math.h>

#include "model/config.h"

/* GGUF has a head's sizes as they are in the latent space, and beside them those of the model; in
 * files from before kv_b was split there are only the latter, under the plain names. */
static mf_status read_gguf_dims(const mfi_config *c, mfi_shape *s, uint32_t *rope, mf_error *err)
{
    uint32_t head;
    double temperature = 0;
    bool split = mfi_config_has(c, "key_length_mla");
    MFI_TRY(mfi_config_u32(c, "rope_dims", -1, 2, MFI_MAX_HEAD_DIM, rope, err));
    MFI_TRY(mfi_config_u32(c, split ? "key_length_mla" : "head_dim", -1, *rope + 1,
                           2 * MFI_MAX_HEAD_DIM, &head, err));
    s->nope_dim = head - *rope;
    MFI_TRY(mfi_config_u32(c, split ? "value_length_mla" : "value_length", -1, 1, MFI_MAX_HEAD_DIM,
                           &s->v_dim, err));
    MFI_TRY(mfi_config_number(c, mfi_config_get(c, "temperature_scale"), "temperature_scale", -1e9,
                              1e9, &temperature, err));
    if (temperature != 0)
        return mfi_fail(err, MF_ERR_UNSUPPORTED,
                        "%s: attention.temperature_scale %g: attention whose temperature depends "
                        "on the position",
                        c->path, temperature);
    return MF_OK;
}

static mf_status read_hf_dims(const mfi_config *c, mfi_shape *s, uint32_t *rope, mf_error *err)
{
    MFI_TRY(mfi_config_u32(c, "qk_rope_head_dim", -1, 2, MFI_MAX_HEAD_DIM, rope, err));
    MFI_TRY(mfi_config_u32(c, "qk_nope_head_dim", -1, 1, MFI_MAX_HEAD_DIM, &s->nope_dim, err));
    MFI_TRY(mfi_config_u32(c, "v_head_dim", -1, 1, MFI_MAX_HEAD_DIM, &s->v_dim, err));
    return mfi_config_flag(c, "rope_interleave", &s->rope_pairs, err);
}

mf_status mfi_config_latent(const mfi_config *c, mfi_model *model, mf_error *err)
{
    mfi_shape *s = &model->shape;
    uint32_t rope = 0;
    s->rope_pairs = true;
    MFI_TRY(mfi_config_u32(c, "num_attention_heads", -1, 1, 4096, &s->n_head, err));
    s->n_kv_head = 1;
    MFI_TRY(mfi_config_u32(c, "q_lora_rank", 0, 0, 1 << 20, &s->latent_q, err));
    MFI_TRY(mfi_config_u32(c, "kv_lora_rank", -1, 1, MFI_MAX_HEAD_DIM, &s->latent_kv, err));
    MFI_TRY(c->gguf_arch ? read_gguf_dims(c, s, &rope, err) : read_hf_dims(c, s, &rope, err));
    if (s->latent_kv + rope > MFI_MAX_HEAD_DIM || s->nope_dim + rope > MFI_MAX_HEAD_DIM)
        return mfi_fail(err, MF_ERR_LIMIT,
                        "%s: heads of %u and %u, with a latent of %u: at most %u together", c->path,
                        s->nope_dim, rope, s->latent_kv, MFI_MAX_HEAD_DIM);
    s->head_dim = rope; /* what is rotated is a head of its own */
    MFI_TRY(mfi_config_rope(c, s, 1e4, MFI_ROPE_WHOLE, err));
    if (s->n_rot != rope)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: %u of %u rotary columns rotated", c->path,
                        s->n_rot, rope);
    s->head_dim = s->nope_dim + rope;
    /* DeepSeek-V3's modelling code: with YaRN the softmax is sharpened by the square of its scale.
     */
    double m = s->rope.kind == MFI_ROPE_PLAIN || s->rope.mscale_all_dim == 0
                   ? 1
                   : mfi_rope_mscale(s->rope.factor, s->rope.mscale_all_dim);
    if (c->gguf_arch) /* llama.cpp: and of what rotated keys are multiplied by, or ought to be */
        m *= s->rope.attn_factor *
             (s->rope.kind == MFI_ROPE_LINEAR ? mfi_rope_mscale(s->rope.factor, 1) : 1);
    s->attn_scale = (float)(m * m / sqrt((double)s->head_dim));
    /* transformers and MLX norm latents with their default; llama.cpp has one number for all. */
    s->latent_eps = c->gguf_arch ? s->eps : 1e-6f;
    for (uint32_t i = 0; i < s->n_layers; i++)
        model->mixer[i] = s->latent_q ? MFI_MIXER_LATENT : MFI_MIXER_LATENT_DIRECT;
    model->omit[s->latent_q ? MFI_ROLE_ATTN_Q : MFI_ROLE_LATENT_Q_A] = true;
    model->omit[MFI_ROLE_LATENT_Q_NORM] = model->omit[MFI_ROLE_LATENT_Q_B] = s->latent_q == 0;
    return MF_OK;
}
