/* config.json for a model whose file has none (GGUF): its hyper-parameters by Hugging Face's names.
 * Called by the converter, on its thread. Nothing is taken on trust: what was written is read by
 * the family's own reader, and must give the shape that the file gave. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"

typedef struct sayer {
    const mfi_model *model;
    const mfi_json *meta;
    mfi_buf *out;
} sayer;

static void put_u32(sayer *s, const char *key, uint32_t value)
{
    mfi_buf_fmt(s->out, "  \"%s\": %" PRIu32 ",\n", key, value);
}

static void put_f64(sayer *s, const char *key, double value)
{
    mfi_buf_fmt(s->out, "  \"%s\": ", key);
    mfi_json_put_f64(s->out, value);
    mfi_buf_str(s->out, ",\n");
}

/* One more member of an object on one line. */
static void put_member(sayer *s, const char *key, double value)
{
    mfi_buf_fmt(s->out, ", \"%s\": ", key);
    mfi_json_put_f64(s->out, value);
}

static void put_bool(sayer *s, const char *key, bool value)
{
    mfi_buf_fmt(s->out, "  \"%s\": %s,\n", key, value ? "true" : "false");
}

/* The decimal of a float32, which GGUF has, not that of the double it becomes. */
static double short_decimal(float value)
{
    for (int digits = 6; digits < 9; digits++) {
        char text[32];
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        double d = strtod(text, NULL);
        if ((float)d == value)
            return d;
    }
    return (double)value;
}

/* Members of rope_parameters beyond the base. */
static void put_scaling(sayer *s)
{
    static const char *const names[] = {
        [MFI_ROPE_PLAIN] = "default",
        [MFI_ROPE_LINEAR] = "linear",
        [MFI_ROPE_YARN] = "yarn",
        [MFI_ROPE_LLAMA3] = "llama3",
    };
    const mfi_rope *r = &s->model->shape.rope;
    bool yarn = r->kind == MFI_ROPE_YARN;
    mfi_buf_fmt(s->out, "\"rope_type\": \"%s\"", names[r->kind]);
    put_member(s, "rope_theta", r->theta);
    if (r->kind == MFI_ROPE_PLAIN)
        return;
    put_member(s, "factor", r->factor);
    if (r->original_ctx)
        put_member(s, "original_max_position_embeddings", r->original_ctx);
    if (r->kind != MFI_ROPE_LINEAR) {
        put_member(s, yarn ? "beta_fast" : "high_freq_factor", r->beta_fast);
        put_member(s, yarn ? "beta_slow" : "low_freq_factor", r->beta_slow);
    }
    if (yarn && r->mscale_all_dim > 0) {
        put_member(s, "mscale", r->mscale_all_dim);
        put_member(s, "mscale_all_dim", r->mscale_all_dim);
    } else if (yarn) {
        put_member(s, "attention_factor", r->attn_factor);
    }
    if (yarn && r->exact)
        mfi_buf_str(s->out, ", \"truncate\": false");
}

static void put_rope(sayer *s)
{
    const mfi_shape *shape = &s->model->shape;
    put_f64(s, "rope_theta", shape->rope.theta);
    mfi_buf_str(s->out, "  \"rope_parameters\": {");
    put_scaling(s);
    if (!shape->latent_kv) {
        /* Readers truncate the product. */
        double partial = (double)shape->n_rot / shape->head_dim;
        if ((uint32_t)((double)shape->head_dim * partial) != shape->n_rot)
            partial = (shape->n_rot + 0.25) / shape->head_dim;
        put_member(s, "partial_rotary_factor", partial);
        mfi_buf_str(s->out, "},\n");
        put_f64(s, "partial_rotary_factor", partial);
        put_u32(s, "rotary_dim", shape->n_rot);
    } else {
        mfi_buf_str(s->out, "},\n");
    }
    if (shape->rope.kind != MFI_ROPE_PLAIN) { /* where MLX looks for it */
        mfi_buf_str(s->out, "  \"rope_scaling\": {");
        put_scaling(s);
        mfi_buf_str(s->out, "},\n");
    }
}

static void put_layer_types(sayer *s)
{
    uint32_t n = s->model->shape.n_layers, interval = 0;
    mfi_buf_str(s->out, "  \"layer_types\": [");
    for (uint32_t i = 0; i < n; i++) {
        bool attn = s->model->mixer[i] == MFI_MIXER_ATTN;
        interval = attn && !interval ? i + 1 : interval;
        mfi_buf_fmt(s->out, "%s\"%s_attention\"", i ? ", " : "", attn ? "full" : "linear");
    }
    mfi_buf_str(s->out, "],\n");
    put_u32(s, "full_attention_interval", interval ? interval : n + 1);
}

static void put_hybrid(sayer *s)
{
    const mfi_shape *shape = &s->model->shape;
    put_u32(s, "linear_num_key_heads", shape->gdn_k_heads);
    put_u32(s, "linear_num_value_heads", shape->gdn_v_heads);
    put_u32(s, "linear_key_head_dim", shape->gdn_k_dim);
    put_u32(s, "linear_value_head_dim", shape->gdn_v_dim);
    put_u32(s, "linear_conv_kernel_dim", shape->conv_kernel);
    put_layer_types(s);
}

static void put_latent(sayer *s)
{
    const mfi_shape *shape = &s->model->shape;
    if (shape->latent_q)
        put_u32(s, "q_lora_rank", shape->latent_q);
    else
        mfi_buf_str(s->out, "  \"q_lora_rank\": null,\n");
    put_u32(s, "kv_lora_rank", shape->latent_kv);
    put_u32(s, "qk_nope_head_dim", shape->nope_dim);
    put_u32(s, "qk_rope_head_dim", shape->n_rot);
    put_u32(s, "v_head_dim", shape->v_dim);
}

static void put_routing(sayer *s)
{
    const mfi_shape *shape = &s->model->shape;
    const mfi_routing *r = &shape->routing;
    put_bool(s, "norm_topk_prob", r->normalize);
    if (s->model->arch->mlx.float_router) { /* families whose configuration says how they route */
        put_u32(s, "n_routed_experts", shape->n_experts);
        if (shape->shared_width)
            put_u32(s, "n_shared_experts", shape->shared_width / shape->expert_width);
        put_u32(s, "n_group", r->n_groups ? r->n_groups : 1);
        put_u32(s, "topk_group", r->n_groups_used ? r->n_groups_used : 1);
        put_f64(s, "routed_scaling_factor", short_decimal(r->scale));
        mfi_buf_fmt(s->out, "  \"scoring_func\": \"%s\",\n",
                    r->score == MFI_SCORE_SIGMOID ? "sigmoid" : "softmax");
        mfi_buf_fmt(s->out, "  \"topk_method\": \"%s\",\n",
                    r->score == MFI_SCORE_SIGMOID ? "noaux_tc"
                    : r->n_groups > 1             ? "group_limited_greedy"
                                                  : "greedy");
        put_u32(s, "moe_layer_freq", 1);
    }
}

/* Parts of attention that some of a family's models have. */
static void put_parts(sayer *s)
{
    const mfi_model *model = s->model;
    const mfi_weight_src *first = model->weights + MFI_N_ROLES;
    bool said = model->arch->mlx.float_router && !model->shape.latent_kv;
    put_bool(s, "attention_bias", said && first[MFI_ROLE_ATTN_Q_BIAS].tensor != MFI_TENSOR_NONE);
    if (said)
        put_bool(s, "use_qk_norm", first[MFI_ROLE_ATTN_Q_NORM].tensor != MFI_TENSOR_NONE);
}

static void put_shape(sayer *s)
{
    const mfi_shape *shape = &s->model->shape;
    put_u32(s, "num_hidden_layers", shape->n_layers);
    put_u32(s, "hidden_size", shape->hidden);
    put_u32(s, "vocab_size", shape->n_vocab);
    put_u32(s, "max_position_embeddings", s->model->ctx_model);
    put_u32(s, "num_attention_heads", shape->n_head);
    put_u32(s, "num_key_value_heads", shape->n_kv_head);
    if (shape->latent_kv)
        put_latent(s);
    else
        put_u32(s, "head_dim", shape->head_dim);
    put_f64(s, "rms_norm_eps", short_decimal(shape->eps));
    put_parts(s);
    put_rope(s);
    put_bool(s, "tie_word_embeddings", s->model->tied);
    mfi_buf_str(s->out, "  \"hidden_act\": \"silu\",\n");
    if (shape->attn_gate)
        put_bool(s, "attn_output_gate", true);
    if (shape->gdn_v_heads)
        put_hybrid(s);
    put_u32(s, "num_experts", shape->n_experts);
    put_u32(s, "num_local_experts", shape->n_experts); /* some families' word for it */
    put_u32(s, "num_experts_per_tok", shape->top_k);
    put_u32(s, "moe_intermediate_size", shape->expert_width);
    put_u32(s, "intermediate_size", shape->dense_width ? shape->dense_width : shape->expert_width);
    if (shape->shared_width)
        put_u32(s, "shared_expert_intermediate_size", shape->shared_width);
    put_routing(s);
    put_u32(s, "decoder_sparse_step", 1);
    mfi_buf_str(s->out, "  \"mlp_only_layers\": [],\n");
}

static bool is_said(const sayer *s, const char *key)
{
    char quoted[96];
    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    return s->out->data && strstr(s->out->data, quoted);
}

/* What a family asks for beyond the shape that all share: as it stands, under its name. */
static void put_rest(sayer *s)
{
    static const char *const told[] = {
        "rope_dims",      "rope_type",         "rope_factor",         "rope_original_ctx",
        "rope_truncate",  "rope_attn_factor",  "rope_log_multiplier", "rope_beta_fast",
        "rope_beta_slow", "linear_inner_size", "recurrent_layers",    "mtp_layers",
        "gating_func",    "key_length_mla",    "value_length_mla",    "value_length",
        "head_dim",       "q_lora_rank",       "n_shared_experts",    "temperature_scale"};
    const mfi_config gguf = {.root = s->meta, .gguf_arch = s->model->arch->gguf_arch};
    const char *key;
    for (uint32_t i = 0; mfi_config_alias(i, &key); i++) {
        const mfi_json *v = mfi_config_get(&gguf, key);
        bool skip = mfi_json_typeof(v) == MFI_JSON_NULL || is_said(s, key);
        for (size_t k = 0; k < MFI_ARRAY_LEN(told); k++)
            skip |= strcmp(told[k], key) == 0;
        if (skip)
            continue;
        mfi_buf_fmt(s->out, "  \"%s\": ", key);
        mfi_json_put(s->out, v);
        mfi_buf_str(s->out, ",\n");
    }
    static const char *const ids[] = {"bos", "eos"};
    for (size_t i = 0; i < MFI_ARRAY_LEN(ids); i++) {
        char name[64];
        int64_t id;
        snprintf(name, sizeof name, "tokenizer.ggml.%s_token_id", ids[i]);
        if (!mfi_json_i64(mfi_json_get(s->meta, name), &id))
            continue;
        snprintf(name, sizeof name, "%s_token_id", ids[i]);
        put_u32(s, name, (uint32_t)id);
    }
}

#define SAME(field) (x->field == y->field)

/* GGUF has float32 where config.json has decimals. */
static bool near(double x, double y)
{
    return fabs(x - y) <= 1e-6 * fmax(fabs(x), fabs(y));
}

#define NEAR(field) near((double)x->field, (double)y->field)

/* What a kind doesn't use may differ. */
static bool same_rope(const mfi_rope *x, const mfi_rope *y)
{
    if (!SAME(kind) || !NEAR(theta) || !NEAR(attn_factor) || x->kind == MFI_ROPE_PLAIN)
        return SAME(kind) && NEAR(theta) && NEAR(attn_factor);
    if (!NEAR(factor) || x->kind == MFI_ROPE_LINEAR)
        return NEAR(factor);
    return SAME(original_ctx) && NEAR(beta_fast) && NEAR(beta_slow) && SAME(exact) &&
           NEAR(mscale_all_dim);
}

static bool same_routing(const mfi_routing *x, const mfi_routing *y)
{
    bool groups = SAME(n_groups) && SAME(n_groups_used);
    bool none = x->n_groups < 2 && y->n_groups < 2; /* 0 and 1 are the same: no groups */
    return SAME(score) && (groups || none) && (SAME(group_best) || none) && SAME(normalize) &&
           SAME(scale);
}

/* But gdn_tiled, which is how a model is bound and not what it is, and latent_eps: GGUF has one
 * number for all norms. */
static bool same_numbers(const mfi_shape *x, const mfi_shape *y)
{
    return SAME(n_layers) && SAME(hidden) && SAME(n_vocab) && SAME(eps) && SAME(n_head) &&
           SAME(n_kv_head) && SAME(head_dim) && SAME(n_rot) && SAME(attn_gate) &&
           NEAR(attn_scale) && SAME(embed_scale) && SAME(residual_scale) && SAME(logit_scale) &&
           SAME(latent_q) && SAME(latent_kv) && SAME(nope_dim) && SAME(v_dim) && SAME(rope_pairs) &&
           SAME(gdn_k_heads) && SAME(gdn_v_heads) && SAME(gdn_k_dim) && SAME(gdn_v_dim) &&
           SAME(conv_kernel) && SAME(n_experts) && SAME(top_k) && SAME(expert_width) &&
           SAME(shared_width) && SAME(dense_width) && SAME(glu) && SAME(glu_alpha) &&
           SAME(glu_limit) && SAME(window) && same_rope(&x->rope, &y->rope) &&
           same_routing(&x->routing, &y->routing);
}

bool mfi_model_same_shape(const mfi_model *a, const mfi_model *b)
{
    uint32_t n = a->shape.n_layers;
    return same_numbers(&a->shape, &b->shape) &&
           memcmp(a->mixer, b->mixer, n * sizeof *a->mixer) == 0 &&
           memcmp(a->ffn, b->ffn, n * sizeof *a->ffn) == 0 &&
           memcmp(a->omit, b->omit, sizeof a->omit) == 0 && a->ctx_model == b->ctx_model &&
           a->tied == b->tied;
}

/* Reads what was said as the family reads any config.json. */
static mf_status read_back(const mfi_model *model, const mfi_arch *arch, const mfi_buf *said,
                           mf_error *err)
{
    mfi_buf text = {0};
    mfi_json *root = NULL;
    mfi_model *back = calloc(1, sizeof *back);
    mfi_buf_fmt(&text, "{%.*s \"end\": 0}", (int)said->len, said->data);
    mf_status status = MF_OK;
    if (!back || text.failed)
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for config.json");
    if (status == MF_OK)
        status = mfi_json_parse(text.data, text.len, "config.json as written", &root, err);
    if (status == MF_OK) {
        const mfi_config c = {.root = root, .path = "as written"};
        back->arch = arch;
        back->catalog = model->catalog;
        status = mfi_model_read_shape(back, &c, root, err);
    }
    if (status == MF_OK && !mfi_model_same_shape(model, back))
        status = mfi_fail(err, MF_ERR_UNSUPPORTED,
                          "%s: config.json can't say what the metadata of this %s model say",
                          mfi_catalog_path(model->catalog), model->family);
    mfi_json_free(&root);
    mfi_buf_free(&text);
    mfi_model_close(&back);
    return status;
}

/* One architecture of GGUF may be several families: the one that was recognised. */
static const mfi_arch *arch_of(const mfi_model *model)
{
    for (uint32_t i = 0; i < mfi_n_archs; i++)
        if (strcmp(mfi_archs[i]->name, model->family) == 0)
            return mfi_archs[i];
    return model->arch;
}

mf_status mfi_model_say_config(const mfi_model *model, mfi_buf *out, mf_error *err)
{
    const mfi_arch *arch = arch_of(model);
    sayer s = {model, mfi_catalog_meta(model->catalog), out};
    MFI_ASSERT(s.meta);
    if (!arch->model_types || !arch->model_types[0])
        return mfi_fail(err, MF_ERR_UNSUPPORTED,
                        "%s: family %s is known from GGUF only: no config.json can be written",
                        mfi_catalog_path(model->catalog), model->family);
    mfi_buf_fmt(out, "  \"model_type\": \"%s\",\n",
                arch->mlx.model_type ? arch->mlx.model_type : arch->model_types[0]);
    put_shape(&s);
    put_rest(&s);
    if (out->failed)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for config.json");
    return read_back(model, arch, out, err);
}
