/* What families make of their configuration, on headers without weights: variants that published
 * models of a family differ in, scaling of rotary frequencies in every way it is written down, and
 * what must be refused rather than computed wrongly. */
#include "fake/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "fake/header_model.h"
#include "model/model.h"

#define BF16 ((mfi_qtype){MFI_Q_BF16, 16, 0, 0})
#define F32  ((mfi_qtype){MFI_Q_F32, 32, 0, 0})

/* 2 layers, hidden 64, 4 heads and 2 K/V heads of 16, 96 tokens, 4 experts of 32, 2 chosen. */
#define SIZES                                                                                      \
    "\"num_hidden_layers\":2,\"hidden_size\":64,\"num_attention_heads\":4,"                        \
    "\"num_key_value_heads\":2,\"head_dim\":16,\"vocab_size\":96,"                                 \
    "\"max_position_embeddings\":8192,\"num_experts_per_tok\":2"

static void add(mft_headers *h, uint32_t i, const char *name, uint32_t d0, uint32_t d1)
{
    mft_headers_add(h, BF16, d0, d1, 0, "model.layers.%u.%s", i, name);
}

static void add_common(mft_headers *h, uint32_t n_layers)
{
    mft_headers_add(h, BF16, 96, 64, 0, "model.embed_tokens.weight");
    mft_headers_add(h, BF16, 64, 0, 0, "model.norm.weight");
    mft_headers_add(h, BF16, 96, 64, 0, "lm_head.weight");
    for (uint32_t i = 0; i < n_layers; i++) {
        add(h, i, "input_layernorm.weight", 64, 0);
        add(h, i, "post_attention_layernorm.weight", 64, 0);
        add(h, i, "self_attn.q_proj.weight", 64, 64);
        add(h, i, "self_attn.k_proj.weight", 32, 64);
        add(h, i, "self_attn.v_proj.weight", 32, 64);
        add(h, i, "self_attn.o_proj.weight", 64, 64);
    }
}

static void add_experts(mft_headers *h, uint32_t i, const char *each, const char *gate,
                        const char *up, const char *down)
{
    for (uint32_t e = 0; e < 4; e++) {
        mft_headers_add(h, BF16, 32, 64, 0, "model.layers.%u.%s.%u.%s.weight", i, each, e, gate);
        mft_headers_add(h, BF16, 32, 64, 0, "model.layers.%u.%s.%u.%s.weight", i, each, e, up);
        mft_headers_add(h, BF16, 64, 32, 0, "model.layers.%u.%s.%u.%s.weight", i, each, e, down);
    }
}

/* `more` begins with a comma where it isn't empty. */
static mft_headers *mixtral(const char *more)
{
    char config[2048];
    snprintf(config, sizeof config,
             "{\"model_type\":\"mixtral\"," SIZES
             ",\"num_local_experts\":4,\"intermediate_size\":32%s}",
             more);
    mft_headers *h = mft_headers_new(config);
    add_common(h, 2);
    for (uint32_t i = 0; i < 2; i++) {
        add(h, i, "block_sparse_moe.gate.weight", 4, 64);
        add_experts(h, i, "block_sparse_moe.experts", "w1", "w3", "w2");
    }
    return h;
}

/* Layer 0 dense of 48, layer 1 routed with a shared expert. */
static mft_headers *glm(const char *more, uint32_t n_layers, bool norms, bool biases)
{
    char config[2048];
    snprintf(config, sizeof config,
             "{\"model_type\":\"glm4_moe\"," SIZES
             ",\"n_routed_experts\":4,\"n_shared_experts\":1,\"moe_intermediate_size\":32,"
             "\"intermediate_size\":48,\"first_k_dense_replace\":1,\"n_group\":1,\"topk_group\":1"
             "%s}",
             more);
    mft_headers *h = mft_headers_new(config);
    add_common(h, n_layers);
    for (uint32_t i = 0; i < n_layers; i++) {
        if (norms) {
            add(h, i, "self_attn.q_norm.weight", 16, 0);
            add(h, i, "self_attn.k_norm.weight", 16, 0);
        }
        if (biases) {
            add(h, i, "self_attn.q_proj.bias", 64, 0);
            add(h, i, "self_attn.k_proj.bias", 32, 0);
            add(h, i, "self_attn.v_proj.bias", 32, 0);
        }
        const char *glu = i ? "mlp.shared_experts." : "mlp.";
        uint32_t width = i ? 32 : 48;
        mft_headers_add(h, BF16, width, 64, 0, "model.layers.%u.%sgate_proj.weight", i, glu);
        mft_headers_add(h, BF16, width, 64, 0, "model.layers.%u.%sup_proj.weight", i, glu);
        mft_headers_add(h, BF16, 64, width, 0, "model.layers.%u.%sdown_proj.weight", i, glu);
        if (i == 0)
            continue;
        add(h, i, "mlp.gate.weight", 4, 64);
        add(h, i, "mlp.gate.e_score_correction_bias", 4, 0);
        add_experts(h, i, "mlp.experts", "gate_proj", "up_proj", "down_proj");
    }
    return h;
}

#define PLAIN_GLM ",\"attention_bias\":true,\"use_qk_norm\":true"

/* GGUF metadata of an architecture in the same sizes; more as above. */
static mft_headers *gguf(const char *arch, const char *more)
{
    static const char *const keys[] = {
        "block_count\":2",          "embedding_length\":64",       "context_length\":4096",
        "attention.head_count\":4", "attention.head_count_kv\":2", "attention.key_length\":16",
        "expert_count\":4",         "expert_used_count\":2",       "feed_forward_length\":32"};
    char meta[4096];
    int n = snprintf(meta, sizeof meta, "{\"general.architecture\":\"%s\"", arch);
    for (size_t i = 0; i < MFI_ARRAY_LEN(keys); i++)
        n += snprintf(meta + n, sizeof meta - (size_t)n, ",\"%s.%s", arch, keys[i]);
    snprintf(meta + n, sizeof meta - (size_t)n, "%s}", more);
    mft_headers *h = mft_headers_new_gguf(meta);
    mft_headers_add(h, F32, 96, 64, 0, "token_embd.weight");
    mft_headers_add(h, F32, 64, 0, 0, "output_norm.weight");
    for (uint32_t i = 0; i < 2; i++) {
        mft_headers_add(h, F32, 64, 0, 0, "blk.%u.attn_norm.weight", i);
        mft_headers_add(h, F32, 64, 0, 0, "blk.%u.ffn_norm.weight", i);
        mft_headers_add(h, F32, 64, 64, 0, "blk.%u.attn_q.weight", i);
        mft_headers_add(h, F32, 32, 64, 0, "blk.%u.attn_k.weight", i);
        mft_headers_add(h, F32, 32, 64, 0, "blk.%u.attn_v.weight", i);
        mft_headers_add(h, F32, 64, 64, 0, "blk.%u.attn_output.weight", i);
        mft_headers_add(h, F32, 4, 64, 0, "blk.%u.ffn_gate_inp.weight", i);
        mft_headers_add(h, F32, 4, 32, 64, "blk.%u.ffn_gate_exps.weight", i);
        mft_headers_add(h, F32, 4, 32, 64, "blk.%u.ffn_up_exps.weight", i);
        mft_headers_add(h, F32, 4, 64, 32, "blk.%u.ffn_down_exps.weight", i);
    }
    return h;
}

static mfi_model *opened(mft_headers *h)
{
    mf_error err;
    mfi_model *model;
    mft_ok(mfi_model_open(&model, mft_headers_catalog(h), &err), &err);
    return model;
}

static void closed(mfi_model *model, mft_headers *h)
{
    mfi_model_close(&model);
    mft_headers_free(h);
}

static void refused(mft_headers *h, mf_status status, const char *names)
{
    mf_error err;
    mfi_model *model;
    mf_status got = mfi_model_open(&model, mft_headers_catalog(h), &err);
    if (got != status || !strstr(err.message, names))
        fail_msg("'%s': %s: %s", names, mf_status_name(got), got ? err.message : "");
    mft_headers_free(h);
}

/* ---- variants ---- */

static void optional_norms_and_biases(void **state)
{
    (void)state;
    mft_headers *h = glm(PLAIN_GLM, 2, true, true);
    mfi_model *m = opened(h);
    assert_false(m->omit[MFI_ROLE_ATTN_Q_NORM] || m->omit[MFI_ROLE_ATTN_Q_BIAS]);
    assert_int_equal(m->ffn[0], MFI_FFN_DENSE);
    assert_int_equal(m->ffn[1], MFI_FFN_MOE_SHARED);
    assert_int_equal(mfi_model_n_routed(m), 1);
    assert_int_equal(m->shape.dense_width, 48);
    assert_int_equal(m->shape.shared_width, 32);
    assert_int_equal(m->shape.n_rot, 8); /* half, where the file doesn't say */
    closed(m, h);
    /* GLM-4.5-Air: no norms. */
    h = glm(",\"attention_bias\":true,\"use_qk_norm\":false", 2, false, true);
    m = opened(h);
    assert_true(m->omit[MFI_ROLE_ATTN_Q_NORM] && m->omit[MFI_ROLE_ATTN_K_NORM]);
    closed(m, h);
    h = glm(",\"attention_bias\":false,\"use_qk_norm\":true", 2, true, false);
    closed(opened(h), h);
    /* What the configuration doesn't promise has no place; what it promises must be there. */
    refused(glm(",\"attention_bias\":true", 2, true, true), MF_ERR_UNSUPPORTED, "_norm.weight");
    refused(glm(",\"use_qk_norm\":true", 2, true, true), MF_ERR_UNSUPPORTED, "_proj.bias");
    refused(glm(PLAIN_GLM, 2, false, true), MF_ERR_TENSOR_MISSING, "q_norm.weight");
    refused(glm(PLAIN_GLM, 2, true, false), MF_ERR_TENSOR_MISSING, "q_proj.bias");
}

/* Qwen3-MoE, layer 0 dense of 48, with biases or without. */
static mft_headers *qwen(const char *more, bool biases)
{
    char config[2048];
    snprintf(config, sizeof config,
             "{\"model_type\":\"qwen3_moe\"," SIZES
             ",\"num_experts\":4,\"moe_intermediate_size\":32,\"intermediate_size\":48%s}",
             more);
    mft_headers *h = mft_headers_new(config);
    add_common(h, 2);
    for (uint32_t i = 0; i < 2; i++) {
        add(h, i, "self_attn.q_norm.weight", 16, 0);
        add(h, i, "self_attn.k_norm.weight", 16, 0);
        for (uint32_t p = 0; biases && p < 4; p++)
            mft_headers_add(h, BF16, p % 3 ? 32 : 64, 0, 0,
                            "model.layers.%u.self_attn.%c_proj.bias", i, "qkvo"[p]);
    }
    add(h, 0, "mlp.gate_proj.weight", 48, 64);
    add(h, 0, "mlp.up_proj.weight", 48, 64);
    add(h, 0, "mlp.down_proj.weight", 64, 48);
    add(h, 1, "mlp.gate.weight", 4, 64);
    add_experts(h, 1, "mlp.experts", "gate_proj", "up_proj", "down_proj");
    return h;
}

static void dense_between(void **state)
{
    (void)state;
    static const char *const ways[] = {",\"mlp_only_layers\":[0]", ",\"decoder_sparse_step\":2",
                                       ",\"mlp_only_layers\":[0,7],\"decoder_sparse_step\":2",
                                       ",\"mlp_only_layers\":[-1,0,0,4294967297]"};
    for (size_t i = 0; i < MFI_ARRAY_LEN(ways); i++) {
        mft_headers *h = qwen(ways[i], false);
        mfi_model *m = opened(h);
        assert_int_equal(m->ffn[0], MFI_FFN_DENSE);
        assert_int_equal(m->ffn[1], MFI_FFN_MOE);
        assert_int_equal(m->shape.dense_width, 48);
        assert_true(m->omit[MFI_ROLE_ATTN_O_BIAS]);
        closed(m, h);
    }
    mft_headers *h = qwen(",\"mlp_only_layers\":[0],\"attention_bias\":true", true);
    mfi_model *m = opened(h);
    assert_true(m->weights[MFI_N_ROLES + MFI_ROLE_ATTN_O_BIAS].tensor != MFI_TENSOR_NONE);
    closed(m, h);
    refused(qwen(",\"mlp_only_layers\":[0]", true), MF_ERR_UNSUPPORTED, "_proj.bias");
    refused(qwen(",\"mlp_only_layers\":[0],\"attention_bias\":true", false), MF_ERR_TENSOR_MISSING,
            "q_proj.bias");
    refused(qwen(",\"mlp_only_layers\":[true]", false), MF_ERR_FORMAT, "mlp_only_layers");
    refused(qwen(",\"mlp_only_layers\":[0,1]", false), MF_ERR_UNSUPPORTED, "no layer");
}

/* A dots.llm1 whose layers from 1 on have windows, if any. */
static mft_headers *dots(const char *more)
{
    char config[2048];
    snprintf(config, sizeof config,
             "{\"model_type\":\"dots1\"," SIZES
             ",\"n_routed_experts\":4,\"n_shared_experts\":1,\"moe_intermediate_size\":32,"
             "\"intermediate_size\":48,\"first_k_dense_replace\":1,\"n_group\":1,"
             "\"topk_group\":1,\"max_window_layers\":1%s}",
             more);
    mft_headers *h = mft_headers_new(config);
    add_common(h, 2);
    for (uint32_t i = 0; i < 2; i++) {
        const char *glu = i ? "mlp.shared_experts." : "mlp.";
        uint32_t width = i ? 32 : 48;
        add(h, i, "self_attn.q_norm.weight", 16, 0);
        add(h, i, "self_attn.k_norm.weight", 16, 0);
        mft_headers_add(h, BF16, width, 64, 0, "model.layers.%u.%sgate_proj.weight", i, glu);
        mft_headers_add(h, BF16, width, 64, 0, "model.layers.%u.%sup_proj.weight", i, glu);
        mft_headers_add(h, BF16, 64, width, 0, "model.layers.%u.%sdown_proj.weight", i, glu);
    }
    add(h, 1, "mlp.gate.weight", 4, 64);
    add(h, 1, "mlp.gate.e_score_correction_bias", 4, 0);
    add_experts(h, 1, "mlp.experts", "gate_proj", "up_proj", "down_proj");
    return h;
}

/* Layer 1's window, 0 for none. */
static void window_is(mft_headers *h, uint32_t window)
{
    mfi_model *m = opened(h);
    assert_int_equal(m->mixer[1], window ? MFI_MIXER_WINDOW : MFI_MIXER_ATTN);
    assert_int_equal(m->shape.window, window);
    closed(m, h);
}

/* To say nothing is the class's default of transformers, null is no window. */
static void windows_unsaid(void **state)
{
    (void)state;
#define USED ",\"mlp_only_layers\":[0],\"use_sliding_window\":true"
    window_is(dots(""), 4096);
    window_is(dots(",\"sliding_window\":1024"), 1024);
    window_is(dots(",\"sliding_window\":null"), 0);
    window_is(qwen(USED, false), 4096);
    window_is(qwen(USED ",\"sliding_window\":1024", false), 1024);
    window_is(qwen(USED ",\"sliding_window\":null", false), 0);
    window_is(qwen(",\"mlp_only_layers\":[0],\"sliding_window\":1024", false), 0);
    window_is(mixtral(""), 0);
    window_is(mixtral(",\"sliding_window\":1024"), 1024);
    window_is(mixtral(",\"sliding_window\":null"), 0);
#undef USED
}

static void layers_behind_the_last(void **state)
{
    (void)state;
    mft_headers *h = glm(PLAIN_GLM, 4, true, true);
    mfi_model *m = opened(h);
    assert_int_equal(m->shape.n_layers, 2);
    assert_int_equal(m->n_mtp_layers, 2);
    assert_int_equal(m->n_ignored, 2 * (6 + 2 + 3 + 3 + 2 + 12));
    closed(m, h);
    h = glm(PLAIN_GLM, 2, true, true);
    m = opened(h);
    assert_int_equal(m->n_mtp_layers, 0);
    assert_int_equal(m->n_ignored, 0);
    closed(m, h);
}

static void routers(void **state)
{
    (void)state;
    mft_headers *h =
        glm(PLAIN_GLM ",\"routed_scaling_factor\":2.5,\"norm_topk_prob\":false", 2, true, true);
    mfi_model *m = opened(h);
    assert_int_equal(m->shape.routing.score, MFI_SCORE_SIGMOID);
    assert_true(m->shape.routing.scale == 2.5f && !m->shape.routing.normalize);
    closed(m, h);
    h = mixtral("");
    m = opened(h);
    assert_int_equal(m->shape.routing.score, MFI_SCORE_SOFTMAX);
    assert_true(m->shape.routing.scale == 1 && m->shape.routing.normalize);
    closed(m, h);
    refused(glm(PLAIN_GLM ",\"scoring_func\":\"entmax\"", 2, true, true), MF_ERR_UNSUPPORTED,
            "entmax");
    refused(glm(PLAIN_GLM ",\"routed_scaling_factor\":\"2\"", 2, true, true), MF_ERR_FORMAT,
            "routed_scaling_factor");
    refused(glm(PLAIN_GLM ",\"moe_layer_freq\":2", 2, true, true), MF_ERR_FORMAT, "moe_layer_freq");
    refused(glm(PLAIN_GLM ",\"num_local_experts\":99999", 2, true, true), MF_ERR_FORMAT,
            "num_local_experts");
}

static void granite_in_gguf(void **state)
{
    (void)state;
    mft_headers *h = gguf("granitemoe", ",\"granitemoe.logit_scale\":6.0,"
                                        "\"granitemoe.residual_scale\":0.22,"
                                        "\"granitemoe.embedding_scale\":12.0,"
                                        "\"granitemoe.attention.scale\":0.015625");
    mfi_model *m = opened(h);
    assert_true(m->shape.embed_scale == 12 && m->shape.residual_scale == 0.22f);
    assert_true(m->shape.logit_scale == 1 / 6.0f && m->shape.attn_scale == 0.015625f);
    assert_int_equal(m->ffn[0], MFI_FFN_MOE);
    assert_true(m->tied);
    closed(m, h);
    h = gguf("granitemoe", ",\"granitemoe.logit_scale\":1.0");
    m = opened(h);
    assert_true(m->shape.embed_scale == 1 && m->shape.residual_scale == 1);
    assert_true(m->shape.attn_scale == 0.25f); /* 1 / sqrt(16) */
    closed(m, h);
    refused(gguf("granitemoe", ",\"granitemoe.rope.scaling.finetuned\":false"), MF_ERR_UNSUPPORTED,
            "rope.scaling.finetuned");
}

/* ---- rotary frequencies ---- */

static void check_rope(mft_headers *h, const mfi_rope *want)
{
    mfi_model *m = opened(h);
    const mfi_rope *r = &m->shape.rope;
    assert_int_equal(r->kind, want->kind);
    assert_true(r->theta == want->theta && r->factor == want->factor);
    assert_int_equal(r->original_ctx, want->original_ctx);
    assert_true(r->beta_fast == want->beta_fast && r->beta_slow == want->beta_slow);
    assert_int_equal(r->exact, want->exact);
    assert_true(fabs(r->attn_factor - want->attn_factor) < 1e-7);
    assert_true(fabs(r->mscale_all_dim - want->mscale_all_dim) < 1e-7);
    closed(m, h);
}

/* Attention factors as transformers 5.17 gives them: 0.1 ln 4 + 1; 1.25; the ratio for 0.707 / 1.
 */
static void rope_in_config(void **state)
{
    (void)state;
    mfi_rope want = {.kind = MFI_ROPE_PLAIN, .theta = 5e5, .factor = 1, .attn_factor = 1};
    check_rope(mixtral(",\"rope_theta\":500000,\"rope_scaling\":null"), &want);
    check_rope(mixtral(",\"rope_parameters\":{\"rope_theta\":500000,\"rope_type\":\"default\"}"),
               &want);
    want = (mfi_rope){.kind = MFI_ROPE_LINEAR, .theta = 1e6, .factor = 4, .attn_factor = 1};
    check_rope(mixtral(",\"rope_scaling\":{\"type\":\"linear\",\"factor\":4.0}"), &want);
    want = (mfi_rope){.kind = MFI_ROPE_LLAMA3,
                      .theta = 1e6,
                      .factor = 8,
                      .original_ctx = 1024,
                      .beta_fast = 4,
                      .beta_slow = 1,
                      .attn_factor = 1};
    check_rope(mixtral(",\"rope_parameters\":{\"rope_type\":\"llama3\",\"factor\":8.0,"
                       "\"high_freq_factor\":4.0,\"low_freq_factor\":1.0,"
                       "\"original_max_position_embeddings\":1024}"),
               &want);
    want = (mfi_rope){.kind = MFI_ROPE_YARN,
                      .theta = 1e6,
                      .factor = 4,
                      .original_ctx = 1024,
                      .beta_fast = 32,
                      .beta_slow = 1,
                      .attn_factor = 1.13862943611};
    check_rope(mixtral(",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,"
                       "\"original_max_position_embeddings\":1024}"),
               &want);
    want.attn_factor = 1.25;
    want.beta_fast = 16;
    want.exact = true;
    check_rope(mixtral(",\"rope_parameters\":{\"rope_theta\":1000000.0,\"rope_type\":\"yarn\","
                       "\"factor\":4.0,\"original_max_position_embeddings\":1024,"
                       "\"attention_factor\":1.25,\"beta_fast\":16,\"truncate\":false}"),
               &want);
    want = (mfi_rope){.kind = MFI_ROPE_YARN,
                      .theta = 1e4,
                      .factor = 40,
                      .original_ctx = 8192, /* the model's own, where the file doesn't say */
                      .beta_fast = 32,
                      .beta_slow = 1,
                      .attn_factor = 0.921042355};
    check_rope(mixtral(",\"rope_parameters\":{\"rope_theta\":10000.0,\"rope_type\":\"yarn\","
                       "\"factor\":40,\"mscale\":0.707,\"mscale_all_dim\":1.0}"),
               &want);
}

static void rope_in_gguf(void **state)
{
    (void)state;
    mfi_rope want = {.kind = MFI_ROPE_YARN,
                     .theta = 1e5,
                     .factor = 4,
                     .original_ctx = 1024,
                     .beta_fast = 32,
                     .beta_slow = 1,
                     .attn_factor = 1.13862943611};
#define YARN                                                                                       \
    ",\"llama.rope.freq_base\":100000.0,\"llama.rope.scaling.type\":\"yarn\","                     \
    "\"llama.rope.scaling.factor\":4.0,\"llama.rope.scaling.original_context_length\":1024"
    check_rope(gguf("llama", YARN), &want);
    want.attn_factor *= 0.5;
    check_rope(gguf("llama", YARN ",\"llama.rope.scaling.attn_factor\":0.5"), &want);
    want.attn_factor = 1.13862943611;
    check_rope(gguf("llama", YARN ",\"llama.rope.scaling.yarn_log_multiplier\":0.0707"), &want);
    /* What llama.cpp's readers take where a key is missing: base 10000, linear, no scaling. */
    want = (mfi_rope){.kind = MFI_ROPE_LINEAR, .theta = 1e4, .factor = 2, .attn_factor = 1};
    check_rope(gguf("llama", ",\"llama.rope.scaling.type\":\"linear\","
                             "\"llama.rope.scaling.factor\":2.0"),
               &want);
    check_rope(gguf("llama", ",\"llama.rope.scaling.factor\":2.0"), &want);
    check_rope(gguf("llama", ",\"llama.rope.scale_linear\":2.0"), &want);
    want.attn_factor = 1.5;
    check_rope(gguf("llama", ",\"llama.rope.scaling.factor\":2.0,"
                             "\"llama.rope.scaling.attn_factor\":1.5"),
               &want);
    want = (mfi_rope){.kind = MFI_ROPE_PLAIN, .theta = 1e4, .factor = 1, .attn_factor = 1};
    check_rope(gguf("llama", ",\"llama.rope.scaling.type\":\"none\","
                             "\"llama.rope.scaling.factor\":2.0"),
               &want);
    want.attn_factor = 1.5;
    check_rope(gguf("llama", ",\"llama.rope.scaling.attn_factor\":1.5"), &want);
}

static void rope_refused(void **state)
{
    (void)state;
#define SCALING(text) mixtral(",\"rope_scaling\":{" text "}")
    refused(SCALING("\"type\":\"dynamic\",\"factor\":2"), MF_ERR_UNSUPPORTED, "dynamic");
    refused(SCALING("\"rope_type\":\"longrope\",\"factor\":2"), MF_ERR_UNSUPPORTED, "longrope");
    refused(SCALING("\"type\":\"yarn\""), MF_ERR_FORMAT, "without a factor");
    refused(SCALING("\"type\":\"yarn\",\"factor\":0"), MF_ERR_FORMAT, "factor");
    refused(SCALING("\"type\":\"yarn\",\"factor\":\"4\""), MF_ERR_FORMAT, "factor");
    refused(SCALING("\"type\":\"yarn\",\"factor\":4,\"truncate\":1"), MF_ERR_FORMAT, "truncate");
    refused(SCALING("\"type\":\"yarn\",\"factor\":4,\"beta_fast\":-1"), MF_ERR_FORMAT, "beta_fast");
    refused(SCALING("\"type\":\"llama3\",\"factor\":4,\"high_freq_factor\":1"), MF_ERR_FORMAT,
            "high_freq_factor");
    refused(gguf("llama", ",\"llama.rope.scaling.type\":\"longrope\""), MF_ERR_UNSUPPORTED,
            "longrope");
    mft_headers *h = gguf("llama", "");
    mft_headers_add(h, F32, 8, 0, 0, "rope_freqs.weight");
    refused(h, MF_ERR_UNSUPPORTED, "rope_freqs.weight");
}

/* ---- what would be computed wrongly ---- */

static void refusals(void **state)
{
    (void)state;
    refused(gguf("olmoe", ",\"olmoe.attention.clamp_kqv\":8.0"), MF_ERR_UNSUPPORTED, "clip_qkv 8");
    refused(mft_headers_new("{\"model_type\":\"minimax_m2\"," SIZES
                            ",\"num_local_experts\":4,\"intermediate_size\":32,"
                            "\"attn_type_list\":[1,0]}"),
            MF_ERR_UNSUPPORTED, "layer 1 isn't 1");
    refused(mft_headers_new("{\"model_type\":\"minimax_m2\"," SIZES
                            ",\"num_local_experts\":4,\"intermediate_size\":32,"
                            "\"shared_intermediate_size\":64}"),
            MF_ERR_FORMAT, "shared_intermediate_size");
    refused(mft_headers_new("{\"model_type\":\"dots1\"," SIZES ",\"layer_types\":"
                            "[\"full_attention\",\"chunked_attention\"]}"),
            MF_ERR_UNSUPPORTED, "layer 1 is 'chunked_attention'");
    refused(mixtral(",\"mlp_only_layers\":[0]"), MF_ERR_UNSUPPORTED, "mlp_only_layers");
    refused(mixtral(",\"decoder_sparse_step\":2"), MF_ERR_UNSUPPORTED, "decoder_sparse_step");
    refused(mft_headers_new("{\"model_type\":\"dots1\"," SIZES ",\"n_routed_experts\":4,"
                            "\"moe_intermediate_size\":32,\"intermediate_size\":48,"
                            "\"first_k_dense_replace\":2}"),
            MF_ERR_UNSUPPORTED, "no layer has routed experts");
    /* Dense Llama: no experts. */
    refused(mft_headers_new_gguf("{\"general.architecture\":\"llama\",\"llama.block_count\":1,"
                                 "\"llama.embedding_length\":64}"),
            MF_ERR_TENSOR_MISSING, "token_embd.weight");
}

static void unknown(void **state)
{
    (void)state;
    refused(mft_headers_new("{\"model_type\":\"nobody\"}"), MF_ERR_UNSUPPORTED, "'nobody'");
    refused(mft_headers_new("{\"model_type\":\"nobody\"}"), MF_ERR_UNSUPPORTED, "glm4_moe");
    refused(mft_headers_new_gguf("{\"general.architecture\":\"nobody\"}"), MF_ERR_UNSUPPORTED,
            "glm4moe");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(optional_norms_and_biases),
        cmocka_unit_test(dense_between),
        cmocka_unit_test(windows_unsaid),
        cmocka_unit_test(layers_behind_the_last),
        cmocka_unit_test(routers),
        cmocka_unit_test(granite_in_gguf),
        cmocka_unit_test(rope_in_config),
        cmocka_unit_test(rope_in_gguf),
        cmocka_unit_test(rope_refused),
        cmocka_unit_test(refusals),
        cmocka_unit_test(unknown),
    };
    return mft_run(tests);
}
