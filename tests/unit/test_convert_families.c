/* Conversion to GGUF of every family and from every format: what is computed from the file is what
 * is computed from its source, to the bit where rows keep their order of summation. What has no
 * place in GGUF is refused. That llama.cpp reads the files, too: tools/llama_compare.py. */
#include "fake/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake/evaluate.h"
#include "fake/family_model.h"
#include "fake/gguf_files.h"
#include "fake/model_files.h"
#include "fake/oss_model.h"
#include "fake/rig.h"
#include "fake/tiny_latent.h"
#include "format/format.h"
#include "quant/quant.h"

static mf_status try_convert(const char *in, const char *out, const char *type, mf_error *err)
{
    mf_convert_options o;
    mf_convert_options_default(&o);
    o.in_path = in;
    o.out_path = out;
    o.type = type;
    o.n_threads = 2;
    return mf_convert(&o, err);
}

static const char *convert(const char *in, const char *type)
{
    mf_error err;
    const char *out = mft_fresh("m.gguf");
    mft_ok(try_convert(in, out, type, &err), &err);
    return out;
}

/* ---- what is computed ---- */

static void near(const char *what, const char *got, const char *want, double limit)
{
    double e = mft_nmse_of(got, want, 1);
    printf("  %s: NMSE %.2g\n", what, e);
    if (!(e <= limit))
        fail_msg("%s: NMSE %g, at most %g", what, e, limit);
}

/* ---- families ---- */

#define COMMON                                                                                     \
    "\"num_hidden_layers\":2,\"hidden_size\":64,\"vocab_size\":50,\"num_attention_heads\":4,"      \
    "\"max_position_embeddings\":512,\"num_experts_per_tok\":2,"
#define LATENT                                                                                     \
    "\"kv_lora_rank\":24,\"qk_nope_head_dim\":12,\"qk_rope_head_dim\":8,\"v_head_dim\":10,"        \
    "\"n_routed_experts\":8,\"moe_intermediate_size\":40,\"n_shared_experts\":1,"                  \
    "\"intermediate_size\":56,"
#define YARN                                                                                       \
    "\"rope_parameters\":{\"rope_type\":\"yarn\",\"rope_theta\":10000,\"factor\":8,"               \
    "\"original_max_position_embeddings\":16,\"mscale\":0.707,\"mscale_all_dim\":0.707}"

/* Where latents are split from kv_b, keys are summed in another order. */
#define SPLIT 1e-10

static const struct {
    const char *name, *config;
    double limit;
} families[] = {
    {"mixtral",
     "{\"model_type\":\"mixtral\"," COMMON
     "\"num_key_value_heads\":2,\"num_local_experts\":6,\"intermediate_size\":40}",
     0},
    {"mixtral, tied and linear",
     "{\"model_type\":\"mixtral\"," COMMON
     "\"num_key_value_heads\":2,\"num_local_experts\":6,\"intermediate_size\":40,"
     "\"tie_word_embeddings\":true,\"rope_scaling\":{\"type\":\"linear\",\"factor\":3}}",
     0},
    {"olmoe",
     "{\"model_type\":\"olmoe\"," COMMON "\"num_experts\":6,\"intermediate_size\":40,"
     "\"norm_topk_prob\":false}",
     0},
    {"glm4_moe",
     "{\"model_type\":\"glm4_moe\"," COMMON
     "\"num_key_value_heads\":2,\"n_routed_experts\":8,\"moe_intermediate_size\":40,"
     "\"n_shared_experts\":2,\"first_k_dense_replace\":1,\"intermediate_size\":56,"
     "\"attention_bias\":true,\"use_qk_norm\":true,\"routed_scaling_factor\":1.7,\"n_group\":4,"
     "\"topk_group\":2}",
     0},
    {"glm4_moe without biases, norms and shared experts",
     "{\"model_type\":\"glm4_moe\"," COMMON
     "\"num_key_value_heads\":4,\"n_routed_experts\":8,\"moe_intermediate_size\":40,"
     "\"n_shared_experts\":0,\"first_k_dense_replace\":0,\"norm_topk_prob\":false}",
     0},
    {"minimax_m2",
     "{\"model_type\":\"minimax_m2\"," COMMON
     "\"num_key_value_heads\":2,\"head_dim\":20,\"rotary_dim\":10,\"num_local_experts\":6,"
     "\"intermediate_size\":40}",
     0},
    {"granitemoe",
     "{\"model_type\":\"granitemoe\"," COMMON
     "\"num_key_value_heads\":2,\"num_local_experts\":6,\"intermediate_size\":40,"
     "\"attention_multiplier\":0.03,\"embedding_multiplier\":12,\"residual_multiplier\":0.22,"
     "\"logits_scaling\":13}",
     0},
    {"dots1",
     "{\"model_type\":\"dots1\"," COMMON
     "\"num_key_value_heads\":2,\"n_routed_experts\":8,\"moe_intermediate_size\":40,"
     "\"n_shared_experts\":2,\"first_k_dense_replace\":1,\"intermediate_size\":56,"
     "\"norm_topk_prob\":true,\"routed_scaling_factor\":2.5}",
     0},
    {"deepseek",
     "{\"model_type\":\"deepseek\"," COMMON
     "\"num_key_value_heads\":2,\"n_routed_experts\":8,\"moe_intermediate_size\":40,"
     "\"n_shared_experts\":2,\"first_k_dense_replace\":1,\"intermediate_size\":56}",
     0},
    {"deepseek_v2",
     "{\"model_type\":\"deepseek_v2\"," COMMON LATENT
     "\"q_lora_rank\":null,\"first_k_dense_replace\":1,\"topk_method\":\"group_limited_greedy\","
     "\"n_group\":4,\"topk_group\":2,\"norm_topk_prob\":false,\"routed_scaling_factor\":16," YARN
     "}",
     SPLIT},
    {"deepseek_v3",
     "{\"model_type\":\"deepseek_v3\"," COMMON LATENT
     "\"q_lora_rank\":20,\"first_k_dense_replace\":1,\"n_group\":4,\"topk_group\":2,"
     "\"norm_topk_prob\":true,\"routed_scaling_factor\":2.5," YARN "}",
     SPLIT},
    {"glm4_moe_lite",
     "{\"model_type\":\"glm4_moe_lite\"," COMMON LATENT
     "\"q_lora_rank\":20,\"mlp_layer_types\":[\"dense\",\"sparse\"],\"norm_topk_prob\":true,"
     "\"routed_scaling_factor\":1.8}",
     SPLIT},
};

static void every_family(void **state)
{
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(families); i++) {
        const char *in = mft_family_write(families[i].config, i + 1);
        const char *f32 = convert(in, "f32");
        near(families[i].name, f32, in, families[i].limit);
        near("  bf16, from the file before", convert(f32, "bf16"), f32, 0);
        near("  q8_0", convert(in, "q8_0"), in, 0.05);
    }
}

/* The same from the oracle's checkpoints. */
static void every_checkpoint(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double limit;
    } folders[] = {
        {"mixtral", 0},         {"olmoe", 0},           {"glm4_moe", 0},
        {"minimax_m2", 0},      {"granitemoe", 0},      {"dots1", 0},
        {"deepseek_v2", SPLIT}, {"deepseek_v3", SPLIT}, {"glm4_moe_lite", SPLIT},
        {"gpt_oss", 1e-10}, /* its experts are transposed there */
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(folders); i++) {
        char name[64];
        snprintf(name, sizeof name, "hf/%s", folders[i].name);
        const char *in = mft_oracle(name);
        if (!in)
            mft_skip("no oracle");
        near(folders[i].name, convert(in, "f32"), in, folders[i].limit);
    }
}

/* ---- formats ---- */

static void from_fp8_and_mlx(void **state)
{
    (void)state;
    mft_latent s;
    mft_latent_default(&s);
    s.fp8 = true;
    near("FP8", convert(mft_latent_write(&s), "f32"), mft_latent_write(&s), SPLIT);
    s.fp8 = false;
    s.split = true;
    near("split kv_b", convert(mft_latent_write(&s), "f32"), mft_latent_write(&s), 0);
    const char *mlx = mft_source("tests/data/latent-tiny/mlx-v3");
    near("MLX", convert(mlx, "f32"), mlx, SPLIT);
}

/* Names, metadata and block types as llama.cpp's own files have them, families that are known from
 * GGUF alone among them. */
static void from_gguf(void **state)
{
    (void)state;
    static const char *const archs[] = {"llama",
                                        "olmoe",
                                        "glm4moe",
                                        "minimax-m2",
                                        "granitemoe",
                                        "dots1",
                                        "deepseek2",
                                        "deepseek2-grouped",
                                        "deepseek2-softmax",
                                        "deepseek",
                                        "gpt-oss",
                                        "ernie4_5-moe",
                                        "hunyuan-moe",
                                        "exaone-moe",
                                        "bailingmoe",
                                        "bailingmoe2",
                                        "bailingmoe2-grouped"};
    for (size_t i = 0; i < MFI_ARRAY_LEN(archs); i++) {
        char name[64];
        snprintf(name, sizeof name, "gguf/archs/%s.gguf", archs[i]);
        const char *in = mft_unpack(name, mft_folder());
        if (!in)
            mft_skip("no oracle, or no xz");
        near(archs[i], convert(in, "f32"), in, 0);
        unlink(in);
    }
}

/* ---- gpt-oss ---- */

/* Every matrix of a tensor, decoded. */
static float *decode(const char *path, const char *name, uint64_t *n)
{
    mf_error err;
    mfi_catalog *c = NULL;
    mft_ok(mfi_format_open(&c, path, &err), &err);
    uint32_t id = mfi_catalog_find(c, name);
    assert_int_not_equal(id, MFI_TENSOR_NONE);
    const mfi_tensor *t = mfi_catalog_tensor(c, id);
    uint64_t cols = mfi_tensor_cols(t), bytes = mfi_tensor_bytes(t, 0);
    *n = mfi_tensor_rows(t) * cols;
    unsigned char *raw = malloc(bytes);
    float *out = malloc(*n * sizeof *out);
    mft_ok(mfi_file_read(mfi_catalog_file(c, t->file[0]), raw, bytes, t->offset[0], &err), &err);
    for (uint64_t r = 0; r < mfi_tensor_rows(t); r++) {
        const void *planes[MFI_MAX_PLANES] = {raw + r * mfi_quant_row_bytes(t->type, 0, cols)};
        mfi_dequant_row(t->type, planes, cols, out + r * cols);
    }
    free(raw);
    mfi_catalog_close(&c);
    return out;
}

/* As published, and as transformers keeps it: transposed. Both come to the same file. */
static void gpt_oss(void **state)
{
    (void)state;
    static const char *const names[] = {"ffn_gate_exps.weight", "ffn_up_exps.weight",
                                        "ffn_down_exps.weight", "ffn_gate_exps.bias",
                                        "ffn_up_exps.bias",     "ffn_down_exps.bias"};
    mft_oss s;
    mft_oss_default(&s);
    s.n_layers = 4;
    char in[512];
    snprintf(in, sizeof in, "%s", mft_oss_write(&s));
    s.mxfp4 = false;
    const char *floats = mft_oss_write(&s);
    char exact[512], kept[512], turned[512];
    snprintf(exact, sizeof exact, "%s", convert(in, "f32"));
    snprintf(kept, sizeof kept, "%s", convert(in, "mxfp4"));
    snprintf(turned, sizeof turned, "%s", convert(floats, "mxfp4"));
    near("MXFP4 as published", exact, in, 1e-10);
    near("floats, transposed", convert(floats, "f32"), exact, 0);
    near("mxfp4", kept, in, 0.02);
    near("mxfp4 of floats", turned, kept, 0);
    near("mxfp4, to floats again", convert(kept, "f32"), kept, 1e-10);
    for (size_t i = 0; i < MFI_ARRAY_LEN(names); i++) {
        char name[64];
        uint64_t n, m;
        snprintf(name, sizeof name, "blk.1.%s", names[i]);
        float *a = decode(exact, name, &n), *b = decode(kept, name, &m);
        assert_int_equal(n, m);
        for (uint64_t k = 0; k < n; k++)
            assert_true(a[k] == b[k]);
        free(a);
        free(b);
    }
}

/* ---- what GGUF can't say ---- */

static void refused(const char *in)
{
    mf_error err;
    const char *out = mft_fresh("m.gguf");
    assert_int_equal(try_convert(in, out, "f32", &err), MF_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "GGUF can't hold"));
    assert_int_equal(access(out, F_OK), -1);
    printf("  %s\n", err.message);
}

static void refusals(void **state)
{
    (void)state;
    static const char *const configs[] = {
        /* llama.cpp takes them for not normalised */
        "{\"model_type\":\"olmoe\"," COMMON "\"num_experts\":6,\"intermediate_size\":40,"
        "\"norm_topk_prob\":true}",
        "{\"model_type\":\"mixtral\"," COMMON "\"num_local_experts\":6,\"intermediate_size\":40,"
        "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}}",
        /* a temperature that GGUF's one number for it can't give */
        "{\"model_type\":\"deepseek_v3\"," COMMON LATENT
        "\"q_lora_rank\":20,\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":8,"
        "\"original_max_position_embeddings\":16,\"mscale\":1,\"mscale_all_dim\":0.5}}",
        "{\"model_type\":\"deepseek_v3\"," COMMON LATENT
        "\"q_lora_rank\":20,\"rope_interleave\":false}",
        "{\"model_type\":\"glm4_moe_lite\"," COMMON LATENT
        "\"q_lora_rank\":20,\"mlp_layer_types\":[\"sparse\",\"dense\"]}",
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(configs); i++)
        refused(mft_family_write(configs[i], 1));
    mft_oss s; /* every other layer's window is what readers expect */
    mft_oss_default(&s);
    const char *dir = mft_oss_write(&s);
    mft_oss_write_config(dir, &s, "layer_types",
                         "[\"full_attention\",\"sliding_attention\",\"full_attention\"]");
    refused(dir);
    mft_oss_write_config(dir, &s, "swiglu_limit", "5");
    refused(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family),     cmocka_unit_test(every_checkpoint),
        cmocka_unit_test(from_fp8_and_mlx), cmocka_unit_test(from_gguf),
        cmocka_unit_test(gpt_oss),          cmocka_unit_test(refusals),
    };
    return mft_run(tests);
}
