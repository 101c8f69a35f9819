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

/* An integer in [min, max]; `fallback` if absent (negative: MF_ERR_FORMAT). */
mf_status mfi_config_u32(const mfi_config *config, const char *key, int64_t fallback, uint32_t min,
                         uint32_t max, uint32_t *out, mf_error *err);
/* Leaves *out where the flag is absent; MF_ERR_FORMAT if it is none. */
mf_status mfi_config_flag(const mfi_config *config, const char *key, bool *out, mf_error *err);
/* MF_ERR_UNSUPPORTED if the flag is there and not as wanted. */
mf_status mfi_config_require(const mfi_config *config, const char *key, bool want, mf_error *err);

/* Pieces that several families share. */
mf_status mfi_config_common(const mfi_config *c, mfi_shape *s, mf_error *err); /* eps, activation */
mf_status mfi_config_attention(const mfi_config *c, mfi_shape *s, mf_error *err); /* heads */
mf_status mfi_config_rope(const mfi_config *c, mfi_shape *s, double theta, double partial,
                          mf_error *err); /* theta, partial: where absent */
mf_status mfi_config_experts(const mfi_config *c, mfi_shape *s, mf_error *err); /* routed ones */
mf_status mfi_config_gdn(const mfi_config *c, mfi_shape *s, mf_error *err);
mf_status mfi_config_hybrid(const mfi_config *c, uint32_t n_layers, uint8_t *mixer, mf_error *err);

#endif
