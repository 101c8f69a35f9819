/* Published models with sliding windows, headers only: they open, a plan is made, and what it
 * counts equals what was worked out by hand from the published config.json. Beside
 * test_published.c, since here a position's share of the KV cache depends on how many there are. */
#include "fake/support.h"

#include <stdio.h>
#include <string.h>

#include "fake/published.h"

#define BF16  ((mfi_qtype){MFI_Q_BF16, 16, 0, 0})
#define MXFP4 ((mfi_qtype){MFI_Q_MXFP4, 4, 0, 0})

static void check(mft_headers *headers, const mft_hand *h)
{
    mf_error err;
    mfi_plan plan;
    mfi_model *model = mft_published_open(headers);
    mft_published_check(model, h);

    /* The whole context, and a chunk as long as a window; then a context shorter than a ring. */
    mfi_plan_options o = {.ctx = model->ctx_model, .chunk = 128};
    mft_ok(mft_published_plan(&plan, model, o, &err), &err);
    assert_int_equal(plan.bytes[MFI_PLAN_KV], mft_kv_by_hand(h, model->ctx_model, 128));
    assert_int_equal(plan.n_slots, plan.n_experts_total);
    mfi_plan_free(&plan);
    o = (mfi_plan_options){.ctx = 64, .chunk = 64};
    mft_ok(mft_published_plan(&plan, model, o, &err), &err);
    assert_int_equal(plan.bytes[MFI_PLAN_KV], 64 * (h->kv_bytes + h->window_kv_bytes));
    mfi_plan_free(&plan);
    mfi_model_close(&model);
    mft_headers_free(headers);
}

#define LAYER "model.layers.%u."
#define ATTN  LAYER "self_attn."

static mft_headers *gpt_oss(uint32_t n_layers, uint32_t n_experts)
{
    char config[2048], types[1024] = "";
    for (uint32_t i = 0; i < n_layers; i++)
        snprintf(types + strlen(types), sizeof types - strlen(types), "%s\"%s_attention\"",
                 i ? "," : "", i % 2 ? "full" : "sliding");
    snprintf(config, sizeof config,
             "{\"model_type\":\"gpt_oss\",\"architectures\":[\"GptOssForCausalLM\"],"
             "\"attention_bias\":true,\"eos_token_id\":200002,\"experts_per_token\":4,"
             "\"head_dim\":64,\"hidden_act\":\"silu\",\"hidden_size\":2880,"
             "\"initial_context_length\":4096,\"intermediate_size\":2880,\"layer_types\":[%s],"
             "\"max_position_embeddings\":131072,\"num_attention_heads\":64,"
             "\"num_experts_per_tok\":4,\"num_hidden_layers\":%u,\"num_key_value_heads\":8,"
             "\"num_local_experts\":%u,\"rms_norm_eps\":1e-05,\"rope_scaling\":{"
             "\"beta_fast\":32.0,\"beta_slow\":1.0,\"factor\":32.0,"
             "\"original_max_position_embeddings\":4096,\"rope_type\":\"yarn\","
             "\"truncate\":false},\"rope_theta\":150000,\"sliding_window\":128,"
             "\"swiglu_limit\":7.0,\"tie_word_embeddings\":false,\"vocab_size\":201088}",
             types, n_layers, n_experts);
    mft_headers *h = mft_headers_new(config);
    mft_add_outside(h, 201088, 2880, false);
    for (uint32_t i = 0; i < n_layers; i++) {
        mft_add_attention(h, BF16, i, 2880, 4096, 512);
        mft_add_qkv_biases(h, i, 4096, 512);
        mft_headers_add(h, BF16, 2880, 0, 0, ATTN "o_proj.bias", i);
        mft_headers_add(h, BF16, 64, 0, 0, ATTN "sinks", i);
        mft_headers_add(h, BF16, n_experts, 2880, 0, LAYER "mlp.router.weight", i);
        mft_headers_add(h, BF16, n_experts, 0, 0, LAYER "mlp.router.bias", i);
        mft_headers_add(h, MXFP4, n_experts, 5760, 2880, LAYER "mlp.experts.gate_up_proj", i);
        mft_headers_add(h, BF16, n_experts, 5760, 0, LAYER "mlp.experts.gate_up_proj_bias", i);
        mft_headers_add(h, MXFP4, n_experts, 2880, 2880, LAYER "mlp.experts.down_proj", i);
        mft_headers_add(h, BF16, n_experts, 2880, 0, LAYER "mlp.experts.down_proj_bias", i);
    }
    return h;
}

/* An expert: 3 x 2880 x 2880 at 17 bytes for 32, and 3 x 2880 biases in bfloat16. A layer beside
 * them: q and o 4096 x 2880, k and v 512 x 2880 in bfloat16; as floats biases of 4096, 2 x 512 and
 * 2880, 64 sinks, two norms: 53139456; and a router of 32 x 2880 (128 x 2880) with a float for each
 * expert: 184448 (737792). Embedding and head of 201088 x 2880 and the last norm: 2316545280. KV of
 * a layer: 2 x 8 x 64 floats; every other layer looks back over 128 positions. */
static void gpt_oss_20b(void **state)
{
    (void)state;
    check(gpt_oss(24, 32), &(mft_hand){.expert_bytes = 13236480,
                                       .token_bytes = 1270702080,    /* 24 layers x 4 */
                                       .experts_bytes = 10165616640, /* 24 x 32 */
                                       .dense_bytes = 3596318976,
                                       .kv_bytes = 12 * 4096,
                                       .window_kv_bytes = 12 * 4096,
                                       .window = 128});
}

static void gpt_oss_120b(void **state)
{
    (void)state;
    check(gpt_oss(36, 128), &(mft_hand){.expert_bytes = 13236480,
                                        .token_bytes = 1906053120,    /* 36 x 4 */
                                        .experts_bytes = 60993699840, /* 36 x 128 */
                                        .dense_bytes = 4256126208,
                                        .kv_bytes = 18 * 4096,
                                        .window_kv_bytes = 18 * 4096,
                                        .window = 128});
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(gpt_oss_20b),
                                       cmocka_unit_test(gpt_oss_120b)};
    return mft_run(tests);
}
