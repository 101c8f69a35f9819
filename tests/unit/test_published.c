/* The largest published model of each family, headers only: it opens, a plan is made, and what the
 * plan counts equals what was worked out by hand from the published config.json. KV is float32;
 * vectors (norms, biases, corrections) are widened to float32 when loaded. */
#include "fake/support.h"

#include "fake/published.h"

#define BF16 ((mfi_qtype){MFI_Q_BF16, 16, 0, 0})
#define F32  ((mfi_qtype){MFI_Q_F32, 32, 0, 0})
#define FP8  ((mfi_qtype){MFI_Q_FP8, 8, MFI_Q_F32, 0})
#define MLX4 ((mfi_qtype){MFI_Q_MLX, 4, MFI_Q_BF16, 64})

static void check(mft_headers *headers, const mft_hand *hand)
{
    mfi_model *model = mft_published_open(headers);
    mft_published_check(model, hand);
    mfi_model_close(&model);
    mft_headers_free(headers);
}

/* ---- pieces of their layouts ---- */

#define ATTN "model.layers.%u.self_attn."

static void add_norms(mft_headers *h, uint32_t i, uint32_t q, uint32_t k)
{
    mft_headers_add(h, BF16, q, 0, 0, ATTN "q_norm.weight", i);
    mft_headers_add(h, BF16, k, 0, 0, ATTN "k_norm.weight", i);
}

static void add_sparse_experts(mft_headers *h, mfi_qtype type, uint32_t i, uint32_t n,
                               uint32_t width, uint32_t hidden)
{
#define SPARSE "model.layers.%u.block_sparse_moe."
    mft_headers_add(h, BF16, n, hidden, 0, SPARSE "gate.weight", i);
    for (uint32_t e = 0; e < n; e++) {
        mft_headers_add(h, type, width, hidden, 0, SPARSE "experts.%u.w1.weight", i, e);
        mft_headers_add(h, type, hidden, width, 0, SPARSE "experts.%u.w2.weight", i, e);
        mft_headers_add(h, type, width, hidden, 0, SPARSE "experts.%u.w3.weight", i, e);
    }
}

/* ---- models ---- */

/* An expert: 3 matrices of 1536 x 4096 in bfloat16. A layer beside them: q and o 8192 x 4096, k and
 * v 512 x 4096, a router of 128 x 4096, norms of 2 x 4096 and 2 x 128 floats: 143688704. Embedding
 * and head of 151936 x 4096 and the last norm: 2489335808. KV: 94 layers of 2 x 4 x 128 floats. */
static void qwen3_235b_a22b(void **state)
{
    (void)state;
    mft_headers *h = mft_headers_new(
        "{\"model_type\":\"qwen3_moe\",\"hidden_size\":4096,\"num_hidden_layers\":94,"
        "\"num_attention_heads\":64,\"num_key_value_heads\":4,\"head_dim\":128,"
        "\"vocab_size\":151936,\"max_position_embeddings\":40960,\"rms_norm_eps\":1e-6,"
        "\"rope_theta\":1000000.0,\"num_experts\":128,\"num_experts_per_tok\":8,"
        "\"moe_intermediate_size\":1536,\"norm_topk_prob\":true,\"decoder_sparse_step\":1,"
        "\"mlp_only_layers\":[],\"tie_word_embeddings\":false}");
    mft_add_outside(h, 151936, 4096, false);
    for (uint32_t i = 0; i < 94; i++) {
        mft_add_attention(h, BF16, i, 4096, 64 * 128, 4 * 128);
        add_norms(h, i, 128, 128);
        mft_add_experts(h, BF16, i, 128, 1536, 4096);
    }
    check(h, &(mft_hand){.expert_bytes = 37748736,
                         .token_bytes = 28387049472,    /* 94 layers x 8 */
                         .experts_bytes = 454192791552, /* 94 x 128 */
                         .dense_bytes = 15996073984,
                         .kv_bytes = 385024});
}

/* MLX, 4 bits in groups of 64: 0.5625 bytes a weight. An expert: 3 matrices of 1024 x 4096. 15
 * attention layers: q 16384 x 4096 (with gates), k and v 512 x 4096, o 4096 x 8192. 45 of Gated
 * DeltaNet: qkv 12288, z 8192, b and a 64 each x 4096, out 4096 x 8192, taps 12288 x 4, A and dt
 * 64, norm 128. All: router 512, shared expert 3 x 1024, its gate 1 x 4096, two norms. Embedding
 * and head 248320 x 4096. KV: 15 layers of 2 x 2 x 256 floats; state: 45 layers of 3 x 12288 + 64 x
 * 128 x 128 floats. */
static void qwen3_5_397b_a17b(void **state)
{
    (void)state;
    mft_headers *h = mft_headers_new(
        "{\"model_type\":\"qwen3_5_moe\",\"tie_word_embeddings\":false,\"text_config\":{"
        "\"model_type\":\"qwen3_5_moe_text\",\"hidden_size\":4096,\"num_hidden_layers\":60,"
        "\"num_attention_heads\":32,\"num_key_value_heads\":2,\"head_dim\":256,"
        "\"vocab_size\":248320,\"max_position_embeddings\":262144,\"rms_norm_eps\":1e-6,"
        "\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":10000000,"
        "\"partial_rotary_factor\":0.25},\"full_attention_interval\":4,"
        "\"linear_num_key_heads\":16,\"linear_num_value_heads\":64,\"linear_key_head_dim\":128,"
        "\"linear_value_head_dim\":128,\"linear_conv_kernel_dim\":4,\"num_experts\":512,"
        "\"num_experts_per_tok\":10,\"moe_intermediate_size\":1024,"
        "\"shared_expert_intermediate_size\":1024}}");
#define TEXT  "language_model.model."
#define LAYER TEXT "layers.%u."
    mft_headers_add(h, MLX4, 248320, 4096, 0, TEXT "embed_tokens.weight");
    mft_headers_add(h, BF16, 4096, 0, 0, TEXT "norm.weight");
    mft_headers_add(h, MLX4, 248320, 4096, 0, "language_model.lm_head.weight");
    for (uint32_t i = 0; i < 60; i++) {
        mft_headers_add(h, BF16, 4096, 0, 0, LAYER "input_layernorm.weight", i);
        mft_headers_add(h, BF16, 4096, 0, 0, LAYER "post_attention_layernorm.weight", i);
        if (i % 4 == 3) {
            mft_headers_add(h, MLX4, 16384, 4096, 0, LAYER "self_attn.q_proj.weight", i);
            mft_headers_add(h, MLX4, 512, 4096, 0, LAYER "self_attn.k_proj.weight", i);
            mft_headers_add(h, MLX4, 512, 4096, 0, LAYER "self_attn.v_proj.weight", i);
            mft_headers_add(h, MLX4, 4096, 8192, 0, LAYER "self_attn.o_proj.weight", i);
            mft_headers_add(h, BF16, 256, 0, 0, LAYER "self_attn.q_norm.weight", i);
            mft_headers_add(h, BF16, 256, 0, 0, LAYER "self_attn.k_norm.weight", i);
        } else {
            mft_headers_add(h, MLX4, 12288, 4096, 0, LAYER "linear_attn.in_proj_qkv.weight", i);
            mft_headers_add(h, MLX4, 8192, 4096, 0, LAYER "linear_attn.in_proj_z.weight", i);
            mft_headers_add(h, MLX4, 64, 4096, 0, LAYER "linear_attn.in_proj_b.weight", i);
            mft_headers_add(h, MLX4, 64, 4096, 0, LAYER "linear_attn.in_proj_a.weight", i);
            mft_headers_add(h, MLX4, 4096, 8192, 0, LAYER "linear_attn.out_proj.weight", i);
            mft_headers_add(h, BF16, 12288, 4, 1, LAYER "linear_attn.conv1d.weight", i);
            mft_headers_add(h, F32, 64, 0, 0, LAYER "linear_attn.A_log", i);
            mft_headers_add(h, BF16, 64, 0, 0, LAYER "linear_attn.dt_bias", i);
            mft_headers_add(h, BF16, 128, 0, 0, LAYER "linear_attn.norm.weight", i);
        }
        mft_headers_add(h, MLX4, 512, 4096, 0, LAYER "mlp.gate.weight", i);
        mft_headers_add(h, MLX4, 1, 4096, 0, LAYER "mlp.shared_expert_gate.weight", i);
        mft_headers_add(h, MLX4, 1024, 4096, 0, LAYER "mlp.shared_expert.gate_proj.weight", i);
        mft_headers_add(h, MLX4, 1024, 4096, 0, LAYER "mlp.shared_expert.up_proj.weight", i);
        mft_headers_add(h, MLX4, 4096, 1024, 0, LAYER "mlp.shared_expert.down_proj.weight", i);
        mft_headers_add(h, MLX4, 512, 1024, 4096, LAYER "mlp.switch_mlp.gate_proj.weight", i);
        mft_headers_add(h, MLX4, 512, 1024, 4096, LAYER "mlp.switch_mlp.up_proj.weight", i);
        mft_headers_add(h, MLX4, 512, 4096, 1024, LAYER "mlp.switch_mlp.down_proj.weight", i);
    }
    check(h, &(mft_hand){.expert_bytes = 7077888,
                         .token_bytes = 4246732800,     /* 60 x 10 */
                         .experts_bytes = 217432719360, /* 60 x 512 */
                         .dense_bytes = 5521475584,
                         .kv_bytes = 61440,
                         .state_bytes = 195379200});
}

/* An expert: 3 x 1536 x 5120 in bfloat16. Attention: q and o 12288 x 5120, k and v 1024 x 5120,
 * biases 14336, norms 2 x 128 and 2 x 5120 floats. Three dense layers of 3 x 12288 x 5120; in the
 * other 89 a router 160 x 5120 with 160 corrections and a shared expert of 3 x 1536 x 5120.
 * Embedding and head 151552 x 5120. KV: 92 layers of 2 x 8 x 128 floats. Layer 92 is multi-token
 * prediction. */
static void glm_4_6(void **state)
{
    (void)state;
    mft_headers *h = mft_headers_new(
        "{\"model_type\":\"glm4_moe\",\"attention_bias\":true,\"hidden_size\":5120,"
        "\"num_hidden_layers\":92,\"num_attention_heads\":96,\"num_key_value_heads\":8,"
        "\"head_dim\":128,\"vocab_size\":151552,\"max_position_embeddings\":202752,"
        "\"rms_norm_eps\":1e-5,\"rope_theta\":1000000,\"rope_scaling\":null,"
        "\"partial_rotary_factor\":0.5,\"intermediate_size\":12288,\"first_k_dense_replace\":3,"
        "\"n_routed_experts\":160,\"n_shared_experts\":1,\"num_experts_per_tok\":8,"
        "\"moe_intermediate_size\":1536,\"n_group\":1,\"topk_group\":1,\"norm_topk_prob\":true,"
        "\"routed_scaling_factor\":2.5,\"use_qk_norm\":true,\"num_nextn_predict_layers\":1,"
        "\"hidden_act\":\"silu\",\"tie_word_embeddings\":false}");
    mft_add_outside(h, 151552, 5120, false);
    for (uint32_t i = 0; i < 93; i++) {
        mft_add_attention(h, BF16, i, 5120, 96 * 128, 8 * 128);
        add_norms(h, i, 128, 128);
        mft_add_qkv_biases(h, i, 12288, 1024);
        if (i < 3) {
            mft_add_glu(h, BF16, i, "", 12288, 5120);
        } else {
            mft_add_experts(h, BF16, i, 160, 1536, 5120);
            mft_headers_add(h, F32, 160, 0, 0, "model.layers.%u.mlp.gate.e_score_correction_bias",
                            i);
            mft_add_glu(h, BF16, i, "shared_experts.", 1536, 5120);
        }
    }
    mft_headers_add(h, BF16, 5120, 10240, 0, "model.layers.92.eh_proj.weight");
    mft_headers_add(h, BF16, 5120, 0, 0, "model.layers.92.enorm.weight");
    check(h, &(mft_hand){.expert_bytes = 47185920,
                         .token_bytes = 33596375040,    /* 89 x 8 */
                         .experts_bytes = 671927500800, /* 89 x 160 */
                         .dense_bytes = 33672765056,
                         .kv_bytes = 753664});
}

/* FP8 as published: a byte a weight and a float for 128 x 128 of them, so 1 + 4/16384 bytes a
 * weight. An expert: 3 x 1536 x 3072. A layer beside them: q and o 6144 x 3072, k and v 1024 x 3072
 * in FP8, norms of 6144, 1024 and 2 x 3072 floats, a router of 256 x 3072 in bfloat16 with 256
 * corrections. Embedding and head 200064 x 3072 in bfloat16. KV: 62 layers of 2 x 8 x 128 floats.
 */
static void minimax_m2(void **state)
{
    (void)state;
    mft_headers *h = mft_headers_new(
        "{\"model_type\":\"minimax_m2\",\"hidden_size\":3072,\"num_hidden_layers\":62,"
        "\"num_attention_heads\":48,\"num_key_value_heads\":8,\"head_dim\":128,"
        "\"vocab_size\":200064,\"max_position_embeddings\":196608,\"rms_norm_eps\":1e-6,"
        "\"rope_theta\":5000000,\"rotary_dim\":64,\"use_qk_norm\":true,"
        "\"qk_norm_type\":\"per_layer\",\"intermediate_size\":1536,\"num_local_experts\":256,"
        "\"num_experts_per_tok\":8,\"scoring_func\":\"sigmoid\",\"use_routing_bias\":true,"
        "\"shared_intermediate_size\":0,\"use_mtp\":true,\"num_mtp_modules\":3,"
        "\"hidden_act\":\"silu\",\"tie_word_embeddings\":false}");
    mft_add_outside(h, 200064, 3072, false);
    for (uint32_t i = 0; i < 62; i++) {
        mft_add_attention(h, FP8, i, 3072, 48 * 128, 8 * 128);
        add_norms(h, i, 48 * 128, 8 * 128);
        add_sparse_experts(h, FP8, i, 256, 1536, 3072);
        mft_headers_add(h, F32, 256, 0, 0, SPARSE "e_score_correction_bias", i);
    }
    check(h, &(mft_hand){.expert_bytes = 14159232,
                         .token_bytes = 7022979072,     /* 62 x 8 */
                         .experts_bytes = 224735330304, /* 62 x 256 */
                         .dense_bytes = 5290439680,
                         .kv_bytes = 507904});
}

/* An expert: 3 x 16384 x 6144 in bfloat16. A layer beside them: q and o 6144 x 6144, k and v 1024 x
 * 6144, a router of 8 x 6144, two norms of floats. Embedding and head 32768 x 6144. KV: 56 layers
 * of 2 x 8 x 128 floats. */
static void mixtral_8x22b(void **state)
{
    (void)state;
    mft_headers *h = mft_headers_new(
        "{\"model_type\":\"mixtral\",\"hidden_size\":6144,\"num_hidden_layers\":56,"
        "\"num_attention_heads\":48,\"num_key_value_heads\":8,\"vocab_size\":32768,"
        "\"max_position_embeddings\":65536,\"rms_norm_eps\":1e-5,\"rope_theta\":1000000.0,"
        "\"intermediate_size\":16384,\"num_local_experts\":8,\"num_experts_per_tok\":2,"
        "\"sliding_window\":null,\"hidden_act\":\"silu\",\"tie_word_embeddings\":false}");
    mft_add_outside(h, 32768, 6144, false);
    for (uint32_t i = 0; i < 56; i++) {
        mft_add_attention(h, BF16, i, 6144, 48 * 128, 8 * 128);
        add_sparse_experts(h, BF16, i, 8, 16384, 6144);
    }
    check(h, &(mft_hand){.expert_bytes = 603979776,
                         .token_bytes = 67645734912,    /* 56 x 2 */
                         .experts_bytes = 270582939648, /* 56 x 8 */
                         .dense_bytes = 10678591488,
                         .kv_bytes = 458752});
}

/* An expert: 3 x 1408 x 4096 in bfloat16. Attention: q, k, v, o 4096 x 4096, norms 2 x 128 and 2 x
 * 4096 floats. One dense layer of 3 x 10944 x 4096; in the other 61 a router 128 x 4096 with 128
 * corrections and two shared experts in one of 3 x 2816 x 4096. Embedding and head 152064 x 4096.
 * KV: 62 layers of 2 x 32 x 128 floats. */
static void dots_llm1(void **state)
{
    (void)state;
    mft_headers *h = mft_headers_new(
        "{\"model_type\":\"dots1\",\"attention_bias\":false,\"hidden_size\":4096,"
        "\"num_hidden_layers\":62,\"num_attention_heads\":32,\"num_key_value_heads\":32,"
        "\"head_dim\":128,\"vocab_size\":152064,\"max_position_embeddings\":32768,"
        "\"rms_norm_eps\":1e-5,\"rope_theta\":10000000,\"intermediate_size\":10944,"
        "\"first_k_dense_replace\":1,\"n_routed_experts\":128,\"n_shared_experts\":2,"
        "\"num_experts_per_tok\":6,\"moe_intermediate_size\":1408,\"n_group\":1,"
        "\"topk_group\":1,\"norm_topk_prob\":true,\"routed_scaling_factor\":2.5,"
        "\"scoring_func\":\"noaux_tc\",\"moe_layer_freq\":1,\"hidden_act\":\"silu\","
        "\"tie_word_embeddings\":false}");
    mft_add_outside(h, 152064, 4096, false);
    for (uint32_t i = 0; i < 62; i++) {
        mft_add_attention(h, BF16, i, 4096, 32 * 128, 32 * 128);
        add_norms(h, i, 128, 128);
        if (i < 1) {
            mft_add_glu(h, BF16, i, "", 10944, 4096);
        } else {
            mft_add_experts(h, BF16, i, 128, 1408, 4096);
            mft_headers_add(h, BF16, 128, 0, 0, "model.layers.%u.mlp.gate.e_score_correction_bias",
                            i);
            mft_add_glu(h, BF16, i, "shared_experts.", 2816, 4096);
        }
    }
    check(h, &(mft_hand){.expert_bytes = 34603008,
                         .token_bytes = 12664700928,    /* 61 x 6 */
                         .experts_bytes = 270180286464, /* 61 x 128 */
                         .dense_bytes = 15369548288,
                         .kv_bytes = 2031616});
}

/* An expert: 3 x 512 x 1536 in bfloat16. A layer beside them: q and o 1536 x 1536, k and v 512 x
 * 1536, a router of 40 x 1536, two norms of floats. One table of 49155 x 1536 is embedding and
 * head. KV: 32 layers of 2 x 8 x 64 floats. */
static void granite_3b_a800m(void **state)
{
    (void)state;
    mft_headers *h = mft_headers_new(
        "{\"model_type\":\"granitemoe\",\"attention_bias\":false,\"hidden_size\":1536,"
        "\"num_hidden_layers\":32,\"num_attention_heads\":24,\"num_key_value_heads\":8,"
        "\"vocab_size\":49155,\"max_position_embeddings\":131072,\"rms_norm_eps\":1e-6,"
        "\"rope_theta\":10000000.0,\"rope_scaling\":null,\"intermediate_size\":512,"
        "\"num_local_experts\":40,\"num_experts_per_tok\":8,\"embedding_multiplier\":12.0,"
        "\"residual_multiplier\":0.22,\"attention_multiplier\":0.015625,"
        "\"logits_scaling\":6.0,\"hidden_act\":\"silu\",\"tie_word_embeddings\":true}");
    mft_add_outside(h, 49155, 1536, true);
    for (uint32_t i = 0; i < 32; i++) {
        mft_add_attention(h, BF16, i, 1536, 24 * 64, 8 * 64);
        mft_headers_add(h, BF16, 40, 1536, 0, SPARSE "router.layer.weight", i);
        mft_headers_add(h, BF16, 40, 1024, 1536, SPARSE "input_linear.weight", i);
        mft_headers_add(h, BF16, 40, 1536, 512, SPARSE "output_linear.weight", i);
    }
    check(h, &(mft_hand){.expert_bytes = 4718592,
                         .token_bytes = 1207959552,   /* 32 x 8 */
                         .experts_bytes = 6039797760, /* 32 x 40 */
                         .dense_bytes = 557988864,
                         .kv_bytes = 131072});
}

/* An expert: 3 x 512 x 2048 in bfloat16. 12 attention layers: q 8192 x 2048 (with gates), k and v
 * 512 x 2048, o 2048 x 4096, norms of 2 x 256 floats: 54528000. 36 of Gated DeltaNet: q and k 2048
 * each, v and z 4096 each, b and a 32 each x 2048, out 2048 x 4096; taps 8192 x 4, A and dt 32 and
 * a norm of 128 floats: 67502848. All: router 512 x 2048, shared expert 3 x 512 x 2048, its gate
 * 2048, two norms of 2048 floats: 8409088. Embedding and head 151936 x 2048 and the last norm:
 * 1244667904. KV: 12 layers of 2 x 2 x 256 floats; state: 36 layers of 3 x 8192 + 32 x 128 x 128
 * floats. */
static void qwen3_next_80b_a3b(void **state)
{
    (void)state;
    mft_headers *h = mft_headers_new(
        "{\"model_type\":\"qwen3_next\",\"attention_bias\":false,\"hidden_size\":2048,"
        "\"num_hidden_layers\":48,\"num_attention_heads\":16,\"num_key_value_heads\":2,"
        "\"head_dim\":256,\"vocab_size\":151936,\"max_position_embeddings\":262144,"
        "\"rms_norm_eps\":1e-6,\"rope_theta\":10000000,\"rope_scaling\":null,"
        "\"partial_rotary_factor\":0.25,\"full_attention_interval\":4,"
        "\"intermediate_size\":5120,\"linear_num_key_heads\":16,"
        "\"linear_num_value_heads\":32,\"linear_key_head_dim\":128,"
        "\"linear_value_head_dim\":128,\"linear_conv_kernel_dim\":4,\"num_experts\":512,"
        "\"num_experts_per_tok\":10,\"moe_intermediate_size\":512,\"norm_topk_prob\":true,"
        "\"shared_expert_intermediate_size\":512,\"decoder_sparse_step\":1,"
        "\"mlp_only_layers\":[],\"hidden_act\":\"silu\",\"tie_word_embeddings\":false}");
#define DELTA "model.layers.%u.linear_attn."
    mft_add_outside(h, 151936, 2048, false);
    for (uint32_t i = 0; i < 48; i++) {
        mft_headers_add(h, BF16, 2048, 0, 0, "model.layers.%u.input_layernorm.weight", i);
        mft_headers_add(h, BF16, 2048, 0, 0, "model.layers.%u.post_attention_layernorm.weight", i);
        if (i % 4 == 3) {
            mft_headers_add(h, BF16, 8192, 2048, 0, ATTN "q_proj.weight", i);
            mft_headers_add(h, BF16, 512, 2048, 0, ATTN "k_proj.weight", i);
            mft_headers_add(h, BF16, 512, 2048, 0, ATTN "v_proj.weight", i);
            mft_headers_add(h, BF16, 2048, 4096, 0, ATTN "o_proj.weight", i);
            add_norms(h, i, 256, 256);
        } else {
            mft_headers_add(h, BF16, 12288, 2048, 0, DELTA "in_proj_qkvz.weight", i);
            mft_headers_add(h, BF16, 64, 2048, 0, DELTA "in_proj_ba.weight", i);
            mft_headers_add(h, BF16, 2048, 4096, 0, DELTA "out_proj.weight", i);
            mft_headers_add(h, BF16, 8192, 1, 4, DELTA "conv1d.weight", i);
            mft_headers_add(h, BF16, 32, 0, 0, DELTA "A_log", i);
            mft_headers_add(h, BF16, 32, 0, 0, DELTA "dt_bias", i);
            mft_headers_add(h, BF16, 128, 0, 0, DELTA "norm.weight", i);
        }
        mft_add_experts(h, BF16, i, 512, 512, 2048);
        mft_add_glu(h, BF16, i, "shared_expert.", 512, 2048);
        mft_headers_add(h, BF16, 1, 2048, 0, "model.layers.%u.mlp.shared_expert_gate.weight", i);
    }
    check(h, &(mft_hand){.expert_bytes = 6291456,
                         .token_bytes = 3019898880,     /* 48 x 10 */
                         .experts_bytes = 154618822656, /* 48 x 512 */
                         .dense_bytes = 4732742656,
                         .kv_bytes = 49152,
                         .state_bytes = 79036416});
}

/* An expert: 3 x 2560 x 3584 in bfloat16. A layer beside them: q and o 3584 x 3584, k and v 512 x
 * 3584, biases of 3584 + 2 x 512 floats, a router of 64 x 3584, a shared expert of 3 x 20480 x 3584
 * with a gate of 3584, two norms of floats: 499635200. Embedding and head 151936 x 3584 and
 * the last norm: 2178168832. KV: 28 layers of 2 x 4 x 128 floats. */
static void qwen2_57b_a14b(void **state)
{
    (void)state;
    mft_headers *h = mft_headers_new(
        "{\"model_type\":\"qwen2_moe\",\"hidden_size\":3584,\"num_hidden_layers\":28,"
        "\"num_attention_heads\":28,\"num_key_value_heads\":4,\"vocab_size\":151936,"
        "\"max_position_embeddings\":131072,\"rms_norm_eps\":1e-6,\"rope_theta\":1000000.0,"
        "\"intermediate_size\":18944,\"num_experts\":64,\"num_experts_per_tok\":8,"
        "\"moe_intermediate_size\":2560,\"shared_expert_intermediate_size\":20480,"
        "\"norm_topk_prob\":false,\"decoder_sparse_step\":1,\"use_sliding_window\":false,"
        "\"sliding_window\":65536,\"max_window_layers\":28,\"hidden_act\":\"silu\","
        "\"tie_word_embeddings\":false}");
    mft_add_outside(h, 151936, 3584, false);
    for (uint32_t i = 0; i < 28; i++) {
        mft_add_attention(h, BF16, i, 3584, 28 * 128, 4 * 128);
        mft_add_qkv_biases(h, i, 3584, 512);
        mft_add_experts(h, BF16, i, 64, 2560, 3584);
        mft_add_glu(h, BF16, i, "shared_expert.", 20480, 3584);
        mft_headers_add(h, BF16, 1, 3584, 0, "model.layers.%u.mlp.shared_expert_gate.weight", i);
    }
    check(h, &(mft_hand){.expert_bytes = 55050240,
                         .token_bytes = 12331253760,   /* 28 x 8 */
                         .experts_bytes = 98650030080, /* 28 x 64 */
                         .dense_bytes = 16167954432,
                         .kv_bytes = 114688});
}

/* An expert: 3 x 1024 x 2048 in bfloat16. A layer beside them: q, k, v, o 2048 x 2048, a router of
 * 64 x 2048, four norms of 2048 floats: 33849344. Embedding and head 50304 x 2048 and the last
 * norm: 412098560. KV: 16 layers of 2 x 16 x 128 floats. */
static void olmoe_1b_7b(void **state)
{
    (void)state;
    mft_headers *h = mft_headers_new(
        "{\"model_type\":\"olmoe\",\"attention_bias\":false,\"clip_qkv\":null,"
        "\"hidden_size\":2048,\"num_hidden_layers\":16,\"num_attention_heads\":16,"
        "\"num_key_value_heads\":16,\"vocab_size\":50304,\"max_position_embeddings\":4096,"
        "\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"rope_scaling\":null,"
        "\"intermediate_size\":1024,\"num_experts\":64,\"num_experts_per_tok\":8,"
        "\"norm_topk_prob\":false,\"hidden_act\":\"silu\",\"tie_word_embeddings\":false}");
    mft_add_outside(h, 50304, 2048, false);
    for (uint32_t i = 0; i < 16; i++) {
        mft_add_attention(h, BF16, i, 2048, 16 * 128, 16 * 128);
        add_norms(h, i, 2048, 2048);
        mft_add_experts(h, BF16, i, 64, 1024, 2048);
    }
    check(h, &(mft_hand){.expert_bytes = 12582912,
                         .token_bytes = 1610612736,    /* 16 x 8 */
                         .experts_bytes = 12884901888, /* 16 x 64 */
                         .dense_bytes = 953688064,
                         .kv_bytes = 262144});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qwen3_235b_a22b),  cmocka_unit_test(qwen3_5_397b_a17b),
        cmocka_unit_test(glm_4_6),          cmocka_unit_test(minimax_m2),
        cmocka_unit_test(mixtral_8x22b),    cmocka_unit_test(dots_llm1),
        cmocka_unit_test(granite_3b_a800m), cmocka_unit_test(qwen3_next_80b_a3b),
        cmocka_unit_test(qwen2_57b_a14b),   cmocka_unit_test(olmoe_1b_7b),
    };
    return mft_run(tests);
}
