/* Hyper-parameters by Hugging Face's names, from config.json or from GGUF metadata. */
#ifndef MFI_MODEL_CONFIG_H
#define MFI_MODEL_CONFIG_H

#include "model/model.h"

struct mfi_config {
    const mfi_json *root;  /* config.json's text part, or the GGUF metadata */
    const char *gguf_arch; /* general.architecture; NULL: config.json */
    const char *path;      /* for messages */
};

const mfi_json *mfi_config_get(const mfi_config *config, const char *key); /* NULL if absent */
/* What GGUF calls name i, after "<architecture>."; NULL behind the last. */
const char *mfi_config_alias(uint32_t i, const char **key);
bool mfi_config_has(const mfi_config *config, const char *key);
/* Whether it says null, which is more than to say nothing. */
bool mfi_config_is_null(const mfi_config *config, const char *key);

/* An integer in [min, max]; `fallback` if absent (negative: MF_ERR_FORMAT). */
mf_status mfi_config_u32(const mfi_config *config, const char *key, int64_t fallback, uint32_t min,
                         uint32_t max, uint32_t *out, mf_error *err);
/* A number in [min, max] over *out; absent (or null): as it was. `key` is for messages. */
mf_status mfi_config_number(const mfi_config *config, const mfi_json *v, const char *key,
                            double min, double max, double *out, mf_error *err);
/* Leaves *out where the flag is absent; MF_ERR_FORMAT if it is none. */
mf_status mfi_config_flag(const mfi_config *config, const char *key, bool *out, mf_error *err);
/* MF_ERR_UNSUPPORTED if the flag is there and not as wanted. */
mf_status mfi_config_require(const mfi_config *config, const char *key, bool want, mf_error *err);

/* Pieces that several families share. */
mf_status mfi_config_common(const mfi_config *c, mfi_shape *s, mf_error *err); /* eps, activation */
/* Granite's multipliers of embedding, scores and residual stream, its divisor of logits. */
mf_status mfi_config_scales(const mfi_config *c, mfi_shape *s, mf_error *err);
/* For GGUF, which leaves it to the tensors what a model has. */
bool mfi_config_has_tensor(const mfi_model *model, const char *name);
/* "blk.N." + name in any layer. */
bool mfi_config_has_layer_tensor(const mfi_model *model, const char *name);
mf_status mfi_config_attention(const mfi_config *c, mfi_shape *s, mf_error *err); /* heads */
/* Routed experts: how many, how many of them, and how wide (width_key). */
mf_status mfi_config_experts(const mfi_config *c, mfi_shape *s, const char *width_key,
                             mf_error *err);
/* Which of attention's biases this model has: those of q, k, v and o where config.json says
 * attention_bias; in GGUF those of q, k and v that are there, but where its pairs stand otherwise.
 */
void mfi_config_no_bias(mfi_model *model);
mf_status mfi_config_bias(const mfi_config *c, mfi_model *model, bool paired, mf_error *err);
mf_status mfi_config_gdn(const mfi_config *c, mfi_shape *s, mf_error *err);
mf_status mfi_config_hybrid(const mfi_config *c, uint32_t n_layers, uint8_t *mixer, mf_error *err);

/* config_moe.c */
/* What the file says over what the family has put into s->routing. */
mf_status mfi_config_routing(const mfi_config *c, mfi_shape *s, mf_error *err);
/* Groups of experts: part of the above, but llama.cpp knows them in every architecture. */
mf_status mfi_config_groups(const mfi_config *c, mfi_shape *s, mf_error *err);
/* n_shared_experts, each as wide as a routed one (0: none); GGUF may give the width. All layers get
 * them. */
mf_status mfi_config_shared(const mfi_config *c, mfi_model *model, mf_error *err);
/* Layers 0 to first_k_dense_replace - 1 are dense after all, of intermediate_size. */
mf_status mfi_config_dense(const mfi_config *c, mfi_model *model, mf_error *err);

/* mlp_only_layers and decoder_sparse_step: layers that are dense after all, of intermediate_size.
 */
mf_status mfi_config_sparse(const mfi_config *c, mfi_model *model, mf_error *err);

/* All layers have windows where config.json says one that is shorter than the context; `fallback`
 * (0: none) where it says nothing. Null is none. */
mf_status mfi_config_window(const mfi_config *c, mfi_model *model, uint32_t fallback,
                            mf_error *err);
/* config_window.c: which layers look back over a sliding window, and how far. Where the file has no
 * list, all but every period-th do. */
mf_status mfi_config_windows(const mfi_config *c, mfi_model *model, uint32_t period, mf_error *err);

/* config_rope.c: kind, frequencies and rotary dimensions; theta, partial: where config.json has
 * none (GGUF: llama.cpp's 10000, and a key of its own). MFI_ROPE_WHOLE: the family rotates whole
 * heads.
 */
#define MFI_ROPE_WHOLE 0.0
mf_status mfi_config_rope(const mfi_config *c, mfi_shape *s, double theta, double partial,
                          mf_error *err);

/* config_latent.c: heads, ranks and rotation of latent attention, all layers' mixers, and which of
 * its weights this model does without */
mf_status mfi_config_latent(const mfi_config *c, mfi_model *model, mf_error *err);

#endif
