/* Published models with latent attention, headers only: each opens, a plan is made, and what the
 * plan counts equals what was worked out by hand from the published config.json. The cache holds
 * float32; vectors (norms, corrections) are widened to float32 when loaded. FP8 has a byte a weight
 * and a float for each 128 x 128 of them; where it says "a x b" below, bytes are a * b in FP8 and
 * its ceil(a / 128) * ceil(b / 128) scales besides, or 2 * a * b in bfloat16. */
#include "fake/support.h"

#include "fake/published.h"

#define BF16 ((mfi_qtype){MFI_Q_BF16, 16, 0, 0})
#define F32  ((mfi_qtype){MFI_Q_F32, 32, 0, 0})
#define FP8  ((mfi_qtype){MFI_Q_FP8, 8, MFI_Q_F32, 0})

/* The numbers of a config.json that shapes depend on. */
typedef struct shape {
    mfi_qtype type;
    uint32_t n_layers, n_dense, hidden, n_vocab, n_head, q_rank, kv_rank, nope, rope, v_dim;
    uint32_t n_experts, width, n_shared, dense_width;
    bool correction;
    const char *config;
} shape;

#define LAYER "model.layers.%u."

static void add_attention(mft_headers *h, const shape *s, uint32_t i)
{
    uint32_t q = s->n_head * (s->nope + s->rope), kv = s->n_head * (s->nope + s->v_dim);
    mft_headers_add(h, BF16, s->hidden, 0, 0, LAYER "input_layernorm.weight", i);
    mft_headers_add(h, BF16, s->hidden, 0, 0, LAYER "post_attention_layernorm.weight", i);
    mft_headers_add(h, s->type, s->q_rank, s->hidden, 0, LAYER "self_attn.q_a_proj.weight", i);
    mft_headers_add(h, BF16, s->q_rank, 0, 0, LAYER "self_attn.q_a_layernorm.weight", i);
    mft_headers_add(h, s->type, q, s->q_rank, 0, LAYER "self_attn.q_b_proj.weight", i);
    mft_headers_add(h, s->type, s->kv_rank + s->rope, s->hidden, 0,
                    LAYER "self_attn.kv_a_proj_with_mqa.weight", i);
    mft_headers_add(h, BF16, s->kv_rank, 0, 0, LAYER "self_attn.kv_a_layernorm.weight", i);
    mft_headers_add(h, s->type, kv, s->kv_rank, 0, LAYER "self_attn.kv_b_proj.weight", i);
    mft_headers_add(h, s->type, s->hidden, s->n_head * s->v_dim, 0, LAYER "self_attn.o_proj.weight",
                    i);
}

static void add_feed_forward(mft_headers *h, const shape *s, uint32_t i)
{
    if (i < s->n_dense) {
        mft_add_glu(h, s->type, i, "", s->dense_width, s->hidden);
        return;
    }
    if (s->correction)
        mft_headers_add(h, F32, s->n_experts, 0, 0, LAYER "mlp.gate.e_score_correction_bias", i);
    mft_add_glu(h, s->type, i, "shared_experts.", s->n_shared * s->width, s->hidden);
    mft_add_experts(h, s->type, i, s->n_experts, s->width, s->hidden);
}

static mft_headers *headers_of(const shape *s, bool prediction)
{
    mft_headers *h = mft_headers_new(s->config);
    mft_add_outside(h, s->n_vocab, s->hidden, false);
    for (uint32_t i = 0; i < s->n_layers + prediction; i++) {
        add_attention(h, s, i);
        add_feed_forward(h, s, i);
    }
    if (prediction)
        mft_headers_add(h, BF16, s->hidden, 2 * s->hidden, 0, LAYER "eh_proj.weight", s->n_layers);
    return h;
}

static void check(const shape *s, bool prediction, const mft_hand *hand)
{
    mft_headers *headers = headers_of(s, prediction);
    mfi_model *model = mft_published_open(headers);
    assert_int_equal(model->n_mtp_layers, prediction);
    mft_published_check(model, hand);
    mfi_model_close(&model);
    mft_headers_free(headers);
}

/* FP8. An expert: 3 of 2048 x 7168. Attention: q_a 1536 x 7168, q_b 24576 x 1536, kv_a 576 x 7168
 * (5 rows of 56 scales, in 18 whole cache lines), kv_b 32768 x 512, o 7168 x 16384; norms of 1536,
 * 512 and 2 x 7168 floats: 187216640 a layer. Three dense layers of 3 x 18432 x 7168 (396458496);
 * in the other 58 a router of 256 x 7168 in bfloat16, 256 corrections, a shared expert. Embedding
 * and head 129280 x 7168 in bfloat16 and the last norm: 3706744832. KV: 61 layers of 512 + 64
 * floats. Layer 61 is multi-token prediction. */
static void deepseek_v3(void **state)
{
    (void)state;
    static const char config[] =
        "{\"model_type\":\"deepseek_v3\",\"attention_bias\":false,\"first_k_dense_replace\":3,"
        "\"hidden_act\":\"silu\",\"hidden_size\":7168,\"intermediate_size\":18432,"
        "\"kv_lora_rank\":512,\"max_position_embeddings\":163840,\"moe_intermediate_size\":2048,"
        "\"moe_layer_freq\":1,\"n_group\":8,\"n_routed_experts\":256,\"n_shared_experts\":1,"
        "\"norm_topk_prob\":true,\"num_attention_heads\":128,\"num_experts_per_tok\":8,"
        "\"num_hidden_layers\":61,\"num_key_value_heads\":128,\"num_nextn_predict_layers\":1,"
        "\"q_lora_rank\":1536,\"qk_nope_head_dim\":128,\"qk_rope_head_dim\":64,"
        "\"quantization_config\":{\"activation_scheme\":\"dynamic\",\"fmt\":\"e4m3\","
        "\"quant_method\":\"fp8\",\"weight_block_size\":[128,128]},\"rms_norm_eps\":1e-6,"
        "\"rope_scaling\":{\"beta_fast\":32,\"beta_slow\":1,\"factor\":40,\"mscale\":1.0,"
        "\"mscale_all_dim\":1.0,\"original_max_position_embeddings\":4096,\"type\":\"yarn\"},"
        "\"rope_theta\":10000,\"routed_scaling_factor\":2.5,\"scoring_func\":\"sigmoid\","
        "\"tie_word_embeddings\":false,\"topk_group\":4,\"topk_method\":\"noaux_tc\","
        "\"v_head_dim\":128,\"vocab_size\":129280}";
    const shape s = {.type = FP8,
                     .n_layers = 61,
                     .n_dense = 3,
                     .hidden = 7168,
                     .n_vocab = 129280,
                     .n_head = 128,
                     .q_rank = 1536,
                     .kv_rank = 512,
                     .nope = 128,
                     .rope = 64,
                     .v_dim = 128,
                     .n_experts = 256,
                     .width = 2048,
                     .n_shared = 1,
                     .dense_width = 18432,
                     .correction = true,
                     .config = config};
    check(&s, true,
          &(mft_hand){.expert_bytes = 44050944,      /* 3 * (2048 * 7168 + 16 * 56 * 4) */
                      .token_bytes = 20439638016,    /* 58 layers x 8 */
                      .experts_bytes = 654068416512, /* 58 x 256 */
                      .dense_bytes = 19084210432,
                      .kv_bytes = 140544});
}

/* bfloat16. An expert: 3 of 1536 x 5120. Attention: q_a 1536 x 5120, q_b 24576 x 1536, kv_a 576 x
 * 5120, kv_b 32768 x 512, o 5120 x 16384; norms of 1536, 512 and 2 x 5120 floats: 298500096 a
 * layer. One dense layer of 3 x 12288 x 5120; in the other 59 a router of 160 x 5120 and two shared
 * experts in one of 3 x 3072 x 5120. Embedding and head 102400 x 5120 and the last norm. KV: 60
 * layers of 512 + 64 floats. */
static void deepseek_v2(void **state)
{
    (void)state;
    static const char config[] =
        "{\"model_type\":\"deepseek_v2\",\"attention_bias\":false,\"first_k_dense_replace\":1,"
        "\"hidden_act\":\"silu\",\"hidden_size\":5120,\"intermediate_size\":12288,"
        "\"kv_lora_rank\":512,\"max_position_embeddings\":163840,\"moe_intermediate_size\":1536,"
        "\"moe_layer_freq\":1,\"n_group\":8,\"n_routed_experts\":160,\"n_shared_experts\":2,"
        "\"norm_topk_prob\":false,\"num_attention_heads\":128,\"num_experts_per_tok\":6,"
        "\"num_hidden_layers\":60,\"num_key_value_heads\":128,\"q_lora_rank\":1536,"
        "\"qk_nope_head_dim\":128,\"qk_rope_head_dim\":64,\"rms_norm_eps\":1e-6,"
        "\"rope_scaling\":{\"beta_fast\":32,\"beta_slow\":1,\"factor\":40,\"mscale\":1.0,"
        "\"mscale_all_dim\":1.0,\"original_max_position_embeddings\":4096,\"type\":\"yarn\"},"
        "\"rope_theta\":10000,\"routed_scaling_factor\":16.0,\"scoring_func\":\"softmax\","
        "\"tie_word_embeddings\":false,\"topk_group\":3,\"topk_method\":\"group_limited_greedy\","
        "\"v_head_dim\":128,\"vocab_size\":102400}";
    const shape s = {.type = BF16,
                     .n_layers = 60,
                     .n_dense = 1,
                     .hidden = 5120,
                     .n_vocab = 102400,
                     .n_head = 128,
                     .q_rank = 1536,
                     .kv_rank = 512,
                     .nope = 128,
                     .rope = 64,
                     .v_dim = 128,
                     .n_experts = 160,
                     .width = 1536,
                     .n_shared = 2,
                     .dense_width = 12288,
                     .correction = false,
                     .config = config};
    check(&s, false,
          &(mft_hand){.expert_bytes = 47185920,
                      .token_bytes = 16703815680,    /* 59 x 6 */
                      .experts_bytes = 445435084800, /* 59 x 160 */
                      .dense_bytes = 26049269760,
                      .kv_bytes = 138240});
}

/* FP8, as DeepSeek-V3 with 64 heads: q_b 12288 x 1536, kv_b 16384 x 512, o 7168 x 8192: 101212416 a
 * layer. One dense layer; in the other 60 a router of 384 x 7168 with 384 corrections and a shared
 * expert. Embedding and head 163840 x 7168. */
static void kimi_k2(void **state)
{
    (void)state;
    static const char config[] =
        "{\"model_type\":\"kimi_k2\",\"attention_bias\":false,\"first_k_dense_replace\":1,"
        "\"hidden_act\":\"silu\",\"hidden_size\":7168,\"intermediate_size\":18432,"
        "\"kv_lora_rank\":512,\"max_position_embeddings\":131072,\"moe_intermediate_size\":2048,"
        "\"moe_layer_freq\":1,\"n_group\":1,\"n_routed_experts\":384,\"n_shared_experts\":1,"
        "\"norm_topk_prob\":true,\"num_attention_heads\":64,\"num_experts_per_tok\":8,"
        "\"num_hidden_layers\":61,\"num_key_value_heads\":64,\"num_nextn_predict_layers\":0,"
        "\"q_lora_rank\":1536,\"qk_nope_head_dim\":128,\"qk_rope_head_dim\":64,"
        "\"quantization_config\":{\"activation_scheme\":\"dynamic\",\"fmt\":\"e4m3\","
        "\"quant_method\":\"fp8\",\"weight_block_size\":[128,128]},\"rms_norm_eps\":1e-6,"
        "\"rope_scaling\":{\"beta_fast\":1.0,\"beta_slow\":1.0,\"factor\":32.0,\"mscale\":1.0,"
        "\"mscale_all_dim\":1.0,\"original_max_position_embeddings\":4096,\"type\":\"yarn\"},"
        "\"rope_theta\":50000.0,\"routed_scaling_factor\":2.827,\"scoring_func\":\"sigmoid\","
        "\"tie_word_embeddings\":false,\"topk_group\":1,\"topk_method\":\"noaux_tc\","
        "\"v_head_dim\":128,\"vocab_size\":163840}";
    const shape s = {.type = FP8,
                     .n_layers = 61,
                     .n_dense = 1,
                     .hidden = 7168,
                     .n_vocab = 163840,
                     .n_head = 64,
                     .q_rank = 1536,
                     .kv_rank = 512,
                     .nope = 128,
                     .rope = 64,
                     .v_dim = 128,
                     .n_experts = 384,
                     .width = 2048,
                     .n_shared = 1,
                     .dense_width = 18432,
                     .correction = true,
                     .config = config};
    check(&s, false,
          &(mft_hand){.expert_bytes = 44050944,
                      .token_bytes = 21144453120,     /* 60 x 8 */
                      .experts_bytes = 1014933749760, /* 60 x 384 */
                      .dense_bytes = 14241515264,
                      .kv_bytes = 140544});
}

/* bfloat16. An expert: 3 of 1536 x 2048. Attention: q_a 768 x 2048, q_b 5120 x 768, kv_a 576 x
 * 2048, kv_b 8960 x 512, o 2048 x 5120; norms of 768, 512 and 2 x 2048 floats: 43537408 a layer.
 * One dense layer of 3 x 10240 x 2048; in the other 46 a router of 64 x 2048 with 64 corrections
 * and a shared expert. Embedding and head 154880 x 2048 and the last norm. KV: 47 layers of 512 +
 * 64 floats. Layer 47 is multi-token prediction. */
static void glm_4_7_flash(void **state)
{
    (void)state;
    static const char config[] =
        "{\"model_type\":\"glm4_moe_lite\",\"attention_bias\":false,\"first_k_dense_replace\":1,"
        "\"hidden_act\":\"silu\",\"hidden_size\":2048,\"intermediate_size\":10240,"
        "\"kv_lora_rank\":512,\"max_position_embeddings\":202752,\"moe_intermediate_size\":1536,"
        "\"n_group\":1,\"n_routed_experts\":64,\"n_shared_experts\":1,\"norm_topk_prob\":true,"
        "\"num_attention_heads\":20,\"num_experts_per_tok\":4,\"num_hidden_layers\":47,"
        "\"num_key_value_heads\":20,\"num_nextn_predict_layers\":1,"
        "\"partial_rotary_factor\":1.0,\"q_lora_rank\":768,\"qk_nope_head_dim\":192,"
        "\"qk_rope_head_dim\":64,\"rms_norm_eps\":1e-5,\"rope_scaling\":null,"
        "\"rope_theta\":1000000,\"routed_scaling_factor\":1.8,\"tie_word_embeddings\":false,"
        "\"topk_group\":1,\"topk_method\":\"noaux_tc\",\"v_head_dim\":256,\"vocab_size\":154880}";
    const shape s = {.type = BF16,
                     .n_layers = 47,
                     .n_dense = 1,
                     .hidden = 2048,
                     .n_vocab = 154880,
                     .n_head = 20,
                     .q_rank = 768,
                     .kv_rank = 512,
                     .nope = 192,
                     .rope = 64,
                     .v_dim = 256,
                     .n_experts = 64,
                     .width = 1536,
                     .n_shared = 1,
                     .dense_width = 10240,
                     .correction = true,
                     .config = config};
    check(&s, true,
          &(mft_hand){.expert_bytes = 18874368,
                      .token_bytes = 3472883712,    /* 46 x 4 */
                      .experts_bytes = 55566139392, /* 46 x 64 */
                      .dense_bytes = 4321163776,
                      .kv_bytes = 108288});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deepseek_v3),
        cmocka_unit_test(deepseek_v2),
        cmocka_unit_test(kimi_k2),
        cmocka_unit_test(glm_4_7_flash),
    };
    return mft_run(tests);
}
