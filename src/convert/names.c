/* Names of Qwen3.5-MoE tensors: Hugging Face's to MLX's; see names.h.
 *
 * Called by the converter's plan, on its thread. Pure: text in, text out; no file, no weight. Other
 * families get tables of their own when they can be converted. */
#include "convert/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name; /* after "layers.N." */
    mfi_cv_kind kind;
} layer_names[] = {
    {"input_layernorm.weight", MFI_CV_NORM},
    {"post_attention_layernorm.weight", MFI_CV_NORM},
    {"self_attn.q_proj.weight", MFI_CV_MATRIX},
    {"self_attn.k_proj.weight", MFI_CV_MATRIX},
    {"self_attn.v_proj.weight", MFI_CV_MATRIX},
    {"self_attn.o_proj.weight", MFI_CV_MATRIX},
    {"self_attn.q_proj.bias", MFI_CV_PLAIN},
    {"self_attn.k_proj.bias", MFI_CV_PLAIN},
    {"self_attn.v_proj.bias", MFI_CV_PLAIN},
    {"self_attn.o_proj.bias", MFI_CV_PLAIN},
    {"self_attn.q_norm.weight", MFI_CV_NORM},
    {"self_attn.k_norm.weight", MFI_CV_NORM},
    {"linear_attn.in_proj_qkv.weight", MFI_CV_MATRIX},
    {"linear_attn.in_proj_z.weight", MFI_CV_MATRIX},
    {"linear_attn.in_proj_a.weight", MFI_CV_MATRIX},
    {"linear_attn.in_proj_b.weight", MFI_CV_MATRIX},
    {"linear_attn.out_proj.weight", MFI_CV_MATRIX},
    {"linear_attn.conv1d.weight", MFI_CV_CONV},
    {"linear_attn.A_log", MFI_CV_PLAIN},
    {"linear_attn.dt_bias", MFI_CV_PLAIN},
    {"linear_attn.norm.weight", MFI_CV_PLAIN}, /* this one is not zero-centred */
    {"mlp.gate.weight", MFI_CV_ROUTER},
    {"mlp.shared_expert_gate.weight", MFI_CV_ROUTER},
    {"mlp.shared_expert.gate_proj.weight", MFI_CV_MATRIX},
    {"mlp.shared_expert.up_proj.weight", MFI_CV_MATRIX},
    {"mlp.shared_expert.down_proj.weight", MFI_CV_MATRIX},
    {"mlp.experts.gate_up_proj", MFI_CV_GATE_UP},
    {"mlp.experts.down_proj", MFI_CV_EXPERTS},
    {"mlp.switch_mlp.gate_proj.weight", MFI_CV_EXPERTS},
    {"mlp.switch_mlp.up_proj.weight", MFI_CV_EXPERTS},
    {"mlp.switch_mlp.down_proj.weight", MFI_CV_EXPERTS},
};

static const char *after(const char *s, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(s, prefix, n) == 0 ? s + n : NULL;
}

/* Reads a number without sign or leading zeros that is followed by a dot; NULL if there is none. */
static const char *number(const char *s, uint32_t *value)
{
    uint64_t v = 0;
    const char *p = s;
    for (; *p >= '0' && *p <= '9' && p - s < 6; p++)
        v = v * 10 + (uint64_t)(*p - '0');
    if (p == s || *p != '.' || (*s == '0' && p - s > 1))
        return NULL;
    *value = (uint32_t)v;
    return p + 1;
}

/* Writes the output name; quantised tensors lose ".weight", since three names grow from it. */
static void set_out(mfi_cv_name *r, mfi_cv_kind kind, const char *prefix, const char *rest)
{
    int n = snprintf(r->out, sizeof r->out, "%s%s", prefix, rest);
    if (n < 0 || (size_t)n >= sizeof r->out)
        return; /* no name of ours is that long: unknown */
    r->kind = kind;
    if (kind < MFI_CV_MATRIX)
        return;
    size_t suffix = strlen(".weight");
    if ((size_t)n > suffix && strcmp(r->out + n - suffix, ".weight") == 0)
        r->out[(size_t)n - suffix] = 0;
}

static void map_expert(mfi_cv_name *r, const char *name, const char *layer, const char *rest)
{
    uint32_t expert;
    const char *proj = number(rest, &expert);
    if (!proj || (strcmp(proj, "gate_proj.weight") != 0 && strcmp(proj, "up_proj.weight") != 0 &&
                  strcmp(proj, "down_proj.weight") != 0))
        return;
    char prefix[96];
    snprintf(prefix, sizeof prefix, "%smlp.switch_mlp.", layer);
    set_out(r, MFI_CV_EXPERT, prefix, proj);
    r->expert = expert;
    r->head = (uint32_t)(rest - name);
    r->tail = (uint32_t)(proj - 1 - name);
}

static void map_layer(mfi_cv_name *r, const char *name, const char *rest)
{
    uint32_t layer;
    const char *own = number(rest, &layer);
    if (!own)
        return;
    char prefix[64];
    snprintf(prefix, sizeof prefix, "language_model.model.layers.%u.", layer);
    const char *expert = after(own, "mlp.experts.");
    if (expert && *expert >= '0' && *expert <= '9') {
        map_expert(r, name, prefix, expert);
        return;
    }
    for (size_t i = 0; i < MFI_ARRAY_LEN(layer_names); i++) {
        if (strcmp(own, layer_names[i].name) != 0)
            continue;
        if (layer_names[i].kind == MFI_CV_GATE_UP)
            own = "mlp.switch_mlp.gate_proj";
        else if (strcmp(own, "mlp.experts.down_proj") == 0)
            own = "mlp.switch_mlp.down_proj";
        set_out(r, layer_names[i].kind, prefix, own);
        return;
    }
}

static bool dropped(const char *name)
{
    static const char *const prefixes[] = {
        "model.visual.", "visual.",    "vision_tower.",       "model.vision_tower.",
        "mtp.",          "model.mtp.", "language_model.mtp.", "model.language_model.mtp."};
    for (size_t i = 0; i < MFI_ARRAY_LEN(prefixes); i++)
        if (after(name, prefixes[i]))
            return true;
    return false;
}

mfi_cv_name mfi_cv_map(const char *name)
{
    mfi_cv_name r = {.kind = MFI_CV_UNKNOWN};
    if (dropped(name)) {
        r.kind = MFI_CV_DROP;
        return r;
    }
    const char *head = after(name, "language_model.");
    if (strcmp(head ? head : name, "lm_head.weight") == 0) {
        set_out(&r, MFI_CV_HEAD, "language_model.", "lm_head.weight");
        return r;
    }
    const char *rest = after(name, "model.language_model.");
    if (!rest)
        rest = after(name, "language_model.model.");
    if (!rest)
        rest = after(name, "model.");
    if (!rest)
        return r;
    if (strcmp(rest, "embed_tokens.weight") == 0)
        set_out(&r, MFI_CV_MATRIX, "language_model.model.", rest);
    else if (strcmp(rest, "norm.weight") == 0)
        set_out(&r, MFI_CV_NORM, "language_model.model.", rest);
    else if (after(rest, "layers."))
        map_layer(&r, name, after(rest, "layers."));
    return r;
}

bool mfi_cv_supports(const char *model_type)
{
    return strcmp(model_type, "qwen3_5_moe") == 0 || strcmp(model_type, "qwen3_5_moe_text") == 0;
}
