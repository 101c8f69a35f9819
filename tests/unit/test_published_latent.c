/* Published models with latent attention, headers only: each opens, a plan is made, and what the
 * plan counts equals what was worked out by hand from the published config.json. The cache holds
 * float32; vectors (norms, corrections) are widened to float32 when loaded. FP8 has a byte a weight
 * and a float for each 128 x 128 of them; where it says "a x b" below, bytes are a * b in FP8 and
 * its ceil(a / 128) * ceil(b / 128) scales besides, or 2 * a * b in bfloat16. */
#include "fake/support.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fake/header_model.h"
#include "io/io.h"
#include "plan/plan.h"

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

typedef struct hand {
    uint64_t expert_bytes;  /* of one */
    uint64_t token_bytes;   /* experts that a token chooses, all layers */
    uint64_t experts_bytes; /* all there are */
    uint64_t dense_bytes;   /* resident */
    uint64_t kv_bytes;      /* of a position, all layers */
} hand;

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

static void add_glu(mft_headers *h, const shape *s, uint32_t i, const char *what, uint32_t width)
{
    mft_headers_add(h, s->type, width, s->hidden, 0, LAYER "mlp.%sgate_proj.weight", i, what);
    mft_headers_add(h, s->type, width, s->hidden, 0, LAYER "mlp.%sup_proj.weight", i, what);
    mft_headers_add(h, s->type, s->hidden, width, 0, LAYER "mlp.%sdown_proj.weight", i, what);
}

static void add_feed_forward(mft_headers *h, const shape *s, uint32_t i)
{
    if (i < s->n_dense) {
        add_glu(h, s, i, "", s->dense_width);
        return;
    }
    mft_headers_add(h, BF16, s->n_experts, s->hidden, 0, LAYER "mlp.gate.weight", i);
    if (s->correction)
        mft_headers_add(h, F32, s->n_experts, 0, 0, LAYER "mlp.gate.e_score_correction_bias", i);
    add_glu(h, s, i, "shared_experts.", s->n_shared * s->width);
    for (uint32_t e = 0; e < s->n_experts; e++) {
        char what[32];
        snprintf(what, sizeof what, "experts.%u.", e);
        add_glu(h, s, i, what, s->width);
    }
}

static mft_headers *headers_of(const shape *s, bool prediction)
{
    mft_headers *h = mft_headers_new(s->config);
    mft_headers_add(h, BF16, s->n_vocab, s->hidden, 0, "model.embed_tokens.weight");
    mft_headers_add(h, BF16, s->hidden, 0, 0, "model.norm.weight");
    mft_headers_add(h, BF16, s->n_vocab, s->hidden, 0, "lm_head.weight");
    for (uint32_t i = 0; i < s->n_layers + prediction; i++) {
        add_attention(h, s, i);
        add_feed_forward(h, s, i);
    }
    if (prediction)
        mft_headers_add(h, BF16, s->hidden, 2 * s->hidden, 0, LAYER "eh_proj.weight", s->n_layers);
    return h;
}

/* Dense weights, the cache of 512 positions, one token's experts of a layer in whole pages; the
 * process, what readers hold, scratch of one token and tables, which is what the plan says and
 * little; a 64th of it all, 64 MiB at most; in whole MiB. */
static uint64_t floor_by_hand(const hand *by_hand, const mfi_plan *plan)
{
    uint64_t readers =
        MFI_MAX(MFI_PAGE_CACHE_BYTES_MIN, plan->n_io_threads * MFI_IO_READER_CACHE_BYTES);
    uint64_t small = plan->bytes[MFI_PLAN_PROCESS] + plan->bytes[MFI_PLAN_SCRATCH] +
                     plan->bytes[MFI_PLAN_TABLES] + readers;
    assert_in_range(small, 2 * MFI_MIB, 24 * MFI_MIB);
    uint64_t sum = by_hand->dense_bytes + 512 * by_hand->kv_bytes + small +
                   plan->program.shape.top_k * mfi_align_up(by_hand->expert_bytes, 4096);
    return mfi_align_up(sum + MFI_MIN(sum / 64, 64 * MFI_MIB), MFI_MIB);
}

static void check(const shape *s, bool prediction, const hand *by_hand)
{
    mf_error err;
    mfi_model *model;
    mfi_plan plan;
    uint64_t kv = 0;
    mft_headers *h = headers_of(s, prediction);
    mft_ok(mfi_model_open(&model, mft_headers_catalog(h), &err), &err);
    assert_int_equal(model->n_mtp_layers, prediction);
    const mfi_machine machine = {.n_cpus = 8,
                                 .mem_total = (uint64_t)1 << 41,
                                 .mem_available = (uint64_t)1 << 41,
                                 .cgroup_limit = UINT64_MAX};
    mfi_plan_options o = {.ctx = 512, .chunk = 1, .isa = MFI_ISA_C, .memory_bytes = 1};
    assert_int_equal(mfi_plan_make(&plan, model, &machine, &o, &err), MF_ERR_BUDGET);
    uint64_t least = plan.floor_bytes;
    mfi_plan_free(&plan);
    o.memory_bytes = least - 2 * MFI_MIB;
    assert_int_equal(mfi_plan_make(&plan, model, &machine, &o, &err), MF_ERR_BUDGET);
    mfi_plan_free(&plan);
    o.memory_bytes = least;
    mft_ok(mfi_plan_make(&plan, model, &machine, &o, &err), &err);
    for (uint32_t i = 0; i < s->n_layers; i++)
        kv += plan.program.state[i].kv_pos_bytes;
    const mfi_expert_layout *l = &plan.program.experts[mfi_program_expert_layer(&plan.program)];
    assert_int_equal(l->bytes - l->gap_bytes, by_hand->expert_bytes);
    assert_int_equal(plan.token_expert_bytes, by_hand->token_bytes);
    assert_int_equal(plan.expert_bytes_total, by_hand->experts_bytes);
    assert_int_equal(plan.bytes[MFI_PLAN_DENSE] - plan.program.dense_gap_bytes,
                     by_hand->dense_bytes);
    assert_int_equal(kv, by_hand->kv_bytes);
    assert_int_equal(plan.bytes[MFI_PLAN_KV], 512 * kv);
    assert_int_equal(plan.bytes[MFI_PLAN_STATE], 0);
    printf("  %s: smallest budget %" PRIu64 " MiB\n", model->family, least / MFI_MIB);
    assert_in_range(floor_by_hand(by_hand, &plan), least, least + MFI_MIB);
    mfi_plan_free(&plan);
    mfi_model_close(&model);
    mft_headers_free(h);
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
    const shape s = {
        FP8,
        61,
        3,
        7168,
        129280,
        128,
        1536,
        512,
        128,
        64,
        128,
        256,
        2048,
        1,
        18432,
        true,
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
        "\"v_head_dim\":128,\"vocab_size\":129280}"};
    check(&s, true,
          &(hand){.expert_bytes = 44050944,      /* 3 * (2048 * 7168 + 16 * 56 * 4) */
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
    const shape s = {
        BF16,
        60,
        1,
        5120,
        102400,
        128,
        1536,
        512,
        128,
        64,
        128,
        160,
        1536,
        2,
        12288,
        false,
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
        "\"v_head_dim\":128,\"vocab_size\":102400}"};
    check(&s, false,
          &(hand){.expert_bytes = 47185920,
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
    const shape s = {
        FP8,
        61,
        1,
        7168,
        163840,
        64,
        1536,
        512,
        128,
        64,
        128,
        384,
        2048,
        1,
        18432,
        true,
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
        "\"v_head_dim\":128,\"vocab_size\":163840}"};
    check(&s, false,
          &(hand){.expert_bytes = 44050944,
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
    const shape s = {
        BF16,
        47,
        1,
        2048,
        154880,
        20,
        768,
        512,
        192,
        64,
        256,
        64,
        1536,
        1,
        10240,
        true,
        "{\"model_type\":\"glm4_moe_lite\",\"attention_bias\":false,\"first_k_dense_replace\":1,"
        "\"hidden_act\":\"silu\",\"hidden_size\":2048,\"intermediate_size\":10240,"
        "\"kv_lora_rank\":512,\"max_position_embeddings\":202752,\"moe_intermediate_size\":1536,"
        "\"n_group\":1,\"n_routed_experts\":64,\"n_shared_experts\":1,\"norm_topk_prob\":true,"
        "\"num_attention_heads\":20,\"num_experts_per_tok\":4,\"num_hidden_layers\":47,"
        "\"num_key_value_heads\":20,\"num_nextn_predict_layers\":1,"
        "\"partial_rotary_factor\":1.0,\"q_lora_rank\":768,\"qk_nope_head_dim\":192,"
        "\"qk_rope_head_dim\":64,\"rms_norm_eps\":1e-5,\"rope_scaling\":null,"
        "\"rope_theta\":1000000,\"routed_scaling_factor\":1.8,\"tie_word_embeddings\":false,"
        "\"topk_group\":1,\"topk_method\":\"noaux_tc\",\"v_head_dim\":256,\"vocab_size\":154880}"};
    check(&s, true,
          &(hand){.expert_bytes = 18874368,
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
