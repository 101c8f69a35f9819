/* Sources of conversion that are no float checkpoints: GGUF files and FP8. What is written must be
 * what the same weights give from Hugging Face's folder, or compute what the source computes. */
#include "fake/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/rng.h"
#include "fake/evaluate.h"
#include "fake/gguf_files.h"
#include "fake/model_files.h"
#include "fake/stored.h"

/* To GGUF (type) or to MLX (bits, groups of 32). */
static const char *convert(const char *in, const char *type, uint32_t bits)
{
    mf_error err;
    mf_convert_options o;
    mf_convert_options_default(&o);
    o.in_path = in;
    o.out_path = mft_fresh(type ? "m.gguf" : "mlx");
    o.type = type;
    o.bits = bits;
    o.group_size = 32;
    o.n_threads = 2;
    mft_ok(mf_convert(&o, &err), &err);
    return o.out_path;
}

/* ---- what is written ---- */

/* Vectors: GGUF has them in float32, where the folder rounds 1 + w to bfloat16. */
static void compare_floats(const char *name, const mfi_tensor *a, const mfi_tensor *b,
                           const unsigned char *x, const unsigned char *y)
{
    uint64_t n = mfi_tensor_rows(a) * mfi_tensor_cols(a);
    assert_int_equal(n, mfi_tensor_rows(b) * mfi_tensor_cols(b));
    for (uint64_t i = 0; i < n; i++) {
        float p, q;
        mfi_dequant_row(a->type, (const void *[]){x + i * a->type.bits / 8}, 1, &p);
        mfi_dequant_row(b->type, (const void *[]){y + i * b->type.bits / 8}, 1, &q);
        if (!(fabsf(p - q) <= 0x1p-8f * fabsf(q) + 1e-6f))
            fail_msg("%s: element %d is %g, not %g", name, (int)i, (double)p, (double)q);
    }
}

/* Two MLX folders hold the same: to the bit where quantised types agree. Returns how many did. */
static uint32_t compare_folders(const char *path_a, const char *path_b)
{
    mfi_catalog *a = mft_catalog_open(path_a), *b = mft_catalog_open(path_b);
    uint32_t n_equal = 0;
    assert_int_equal(mfi_catalog_n_tensors(a), mfi_catalog_n_tensors(b));
    for (uint32_t id = 0; id < mfi_catalog_n_tensors(a); id++) {
        const char *name = mfi_catalog_name(a, id);
        uint32_t other = mfi_catalog_find(b, name);
        if (other == MFI_TENSOR_NONE)
            fail_msg("%s is in one folder only", name);
        const mfi_tensor *ta = mfi_catalog_tensor(a, id), *tb = mfi_catalog_tensor(b, other);
        assert_int_equal(ta->type.kind == MFI_Q_MLX, tb->type.kind == MFI_Q_MLX);
        bool mlx = ta->type.kind == MFI_Q_MLX, same = mlx && mfi_qtype_equal(ta->type, tb->type);
        n_equal += same;
        for (uint32_t k = 0; k < mfi_quant_n_planes(ta->type); k++) {
            unsigned char *x = mft_read_plane(a, ta, k), *y = mft_read_plane(b, tb, k);
            if (same && memcmp(x, y, mfi_tensor_bytes(ta, k)) != 0)
                fail_msg("%s: plane %u differs", name, k);
            if (!mlx)
                compare_floats(name, ta, tb, x, y);
            free(x);
            free(y);
        }
    }
    mfi_catalog_close(&a);
    mfi_catalog_close(&b);
    return n_equal;
}

/* From the BF16 GGUF file of a checkpoint, whose value heads may be tiled, whose packed projections
 * are split and whose A_log is -exp(A_log), comes what comes from the checkpoint. */
static void gguf_of_every_family(void **state)
{
    (void)state;
    static const char *const families[] = {"qwen2_moe", "qwen3_moe", "qwen3_next",
                                           "qwen3_5_moe_text"};
    for (size_t f = 0; f < MFI_ARRAY_LEN(families); f++) {
        char name[64];
        snprintf(name, sizeof name, "hf/%s", families[f]);
        const char *in = mft_oracle(name);
        if (!in)
            mft_skip("no oracle");
        const char *want = convert(in, NULL, 6);
        const char *got = convert(convert(in, "bf16", 0), NULL, 6);
        uint32_t n = compare_folders(got, want);
        double e = mft_nmse_of(got, want, 2);
        printf("  %s: %u tensors to the bit; NMSE of the logits %.2g\n", families[f], n, e);
        assert_true(n > 20);
        assert_true(e < 0.02); /* routers have float32 scales in one, bfloat16 in the other */
    }
}

/* Block types through floats: 8 bits in groups of 32 keep nearly all of them. */
static void gguf_of_block_types(void **state)
{
    (void)state;
    static const char *const files[] = {"gguf/models/qwen3moe-Q4_K_M.gguf",
                                        "gguf/models/qwen3moe-MXFP4_MOE.gguf",
                                        "gguf/archs/deepseek2-grouped.gguf"};
    for (size_t i = 0; i < MFI_ARRAY_LEN(files); i++) {
        const char *in = mft_unpack(files[i], mft_folder());
        if (!in)
            mft_skip("no oracle, or no xz");
        double e = mft_nmse_of(convert(in, NULL, 8), in, 2);
        printf("  %s: NMSE %.2g\n", files[i], e);
        assert_true(e < 5e-3);
    }
}

/* ---- FP8 ---- */

/* Qwen3-Next as it is published in FP8: projections packed by key head, so that rows must be
 * moved: whole rows of scales at these sizes in qkvz, single rows in ba. */
enum { HIDDEN = 128, DIM = 128, K_HEADS = 2, V_HEADS = 4, WIDTH = 128, EXPERTS = 3, VOCAB = 40 };

typedef struct twins { /* the same weights in FP8 and, decoded here, in bfloat16 */
    mft_tensor fp8[128], bf16[128];
    char names[128][128];
    size_t n_fp8, n_bf16, n_names;
    mfi_rng rng;
} twins;

static const char *keep_name(twins *t, const char *a, const char *b)
{
    char *name = t->names[t->n_names++];
    assert_true(t->n_names <= MFI_ARRAY_LEN(t->names));
    snprintf(name, sizeof t->names[0], "%s%s", a, b);
    return name;
}

static void put_float(twins *t, const char *name, int n_dims, uint64_t d0, uint64_t d1, uint64_t d2)
{
    uint64_t n = d0 * d1 * d2;
    uint16_t *data = malloc(n * 2);
    for (uint64_t i = 0; i < n; i++)
        data[i] = mfi_f32_to_bf16((float)(mfi_rng_unit(&t->rng) - 0.5) * 0.2f);
    mft_tensor x = {keep_name(t, name, ""), "BF16", n_dims, {d0, d1, d2}, data};
    t->fp8[t->n_fp8++] = t->bf16[t->n_bf16++] = x;
}

/* E4M3 by its definition, with scales that are powers of two: bfloat16 holds the products. */
static void put_fp8(twins *t, const char *name, uint64_t rows, uint64_t cols)
{
    uint64_t row_blocks = (rows + 127) / 128, col_blocks = (cols + 127) / 128;
    unsigned char *codes = malloc(rows * cols);
    float *scales = malloc(row_blocks * col_blocks * sizeof *scales);
    uint16_t *values = malloc(rows * cols * 2);
    for (uint64_t i = 0; i < row_blocks * col_blocks; i++)
        scales[i] = ldexpf(1, -6 - (int)mfi_rng_below(&t->rng, 4));
    for (uint64_t i = 0; i < rows * cols; i++) {
        uint32_t code = (uint32_t)mfi_rng_below(&t->rng, 0x48) | (uint32_t)mfi_rng_below(&t->rng, 2)
                                                                     << 7;
        int exp = (int)(code >> 3 & 15), frac = (int)(code & 7);
        float v = exp ? ldexpf((float)(8 + frac), exp - 10) : ldexpf((float)frac, -9);
        v *= scales[i / cols / 128 * col_blocks + i % cols / 128];
        codes[i] = (unsigned char)code;
        values[i] = mfi_f32_to_bf16(code & 128 ? -v : v);
    }
    const char *kept = keep_name(t, name, "");
    t->bf16[t->n_bf16++] = (mft_tensor){kept, "BF16", 2, {rows, cols}, values};
    t->fp8[t->n_fp8++] = (mft_tensor){kept, "F8_E4M3", 2, {rows, cols}, codes};
    t->fp8[t->n_fp8++] =
        (mft_tensor){keep_name(t, name, "_scale_inv"), "F32", 2, {row_blocks, col_blocks}, scales};
}

static void put_layer(twins *t, int layer, bool attention)
{
    char name[96];
#define NAME(suffix) (snprintf(name, sizeof name, "model.layers.%d.%s", layer, suffix), name)
    put_float(t, NAME("input_layernorm.weight"), 1, HIDDEN, 1, 1);
    put_float(t, NAME("post_attention_layernorm.weight"), 1, HIDDEN, 1, 1);
    if (attention) {
        put_fp8(t, NAME("self_attn.q_proj.weight"), 2 * 2 * 32, HIDDEN);
        put_fp8(t, NAME("self_attn.k_proj.weight"), 32, HIDDEN);
        put_fp8(t, NAME("self_attn.v_proj.weight"), 32, HIDDEN);
        put_fp8(t, NAME("self_attn.o_proj.weight"), HIDDEN, 64);
        put_float(t, NAME("self_attn.q_norm.weight"), 1, 32, 1, 1);
        put_float(t, NAME("self_attn.k_norm.weight"), 1, 32, 1, 1);
    } else {
        put_fp8(t, NAME("linear_attn.in_proj_qkvz.weight"), 2 * (K_HEADS + V_HEADS) * DIM, HIDDEN);
        put_fp8(t, NAME("linear_attn.in_proj_ba.weight"), 2 * V_HEADS, HIDDEN);
        put_fp8(t, NAME("linear_attn.out_proj.weight"), HIDDEN, V_HEADS * DIM);
        put_float(t, NAME("linear_attn.conv1d.weight"), 3, (2 * K_HEADS + V_HEADS) * DIM, 1, 4);
        put_float(t, NAME("linear_attn.A_log"), 1, V_HEADS, 1, 1);
        put_float(t, NAME("linear_attn.dt_bias"), 1, V_HEADS, 1, 1);
        put_float(t, NAME("linear_attn.norm.weight"), 1, DIM, 1, 1);
    }
    put_float(t, NAME("mlp.gate.weight"), 2, EXPERTS, HIDDEN, 1);
    put_float(t, NAME("mlp.shared_expert_gate.weight"), 2, 1, HIDDEN, 1);
    for (int e = -1; e < EXPERTS; e++) {
        static const char *const projs[] = {"gate_proj", "up_proj", "down_proj"};
        for (int p = 0; p < 3; p++) {
            char suffix[64], number[16] = "";
            snprintf(number, sizeof number, "s.%d", e);
            snprintf(suffix, sizeof suffix, "mlp.%sexpert%s.%s.weight", e < 0 ? "shared_" : "",
                     e < 0 ? "" : number, projs[p]);
            put_fp8(t, NAME(suffix), p == 2 ? HIDDEN : WIDTH, p == 2 ? WIDTH : HIDDEN);
        }
    }
#undef NAME
}

static void write_twin(const char *dir, const mft_tensor *tensors, size_t n, const char *quantised)
{
    char config[1500];
    snprintf(config, sizeof config,
             "{\"model_type\":\"qwen3_next\",\"num_hidden_layers\":2,\"hidden_size\":128,"
             "\"vocab_size\":40,\"num_attention_heads\":2,\"num_key_value_heads\":1,"
             "\"head_dim\":32,\"linear_num_key_heads\":2,\"linear_num_value_heads\":4,"
             "\"linear_key_head_dim\":128,\"linear_value_head_dim\":128,"
             "\"linear_conv_kernel_dim\":4,\"num_experts\":3,\"num_experts_per_tok\":2,"
             "\"moe_intermediate_size\":128,\"shared_expert_intermediate_size\":128,"
             "\"full_attention_interval\":2,\"tie_word_embeddings\":true%s}",
             quantised);
    mft_write_str(dir, "config.json", config);
    mft_write_tensors(dir, "model.safetensors", tensors, n);
}

static void packed_fp8(void **state)
{
    (void)state;
    static twins t;
    t = (twins){.rng = {11}};
    put_float(&t, "model.embed_tokens.weight", 2, VOCAB, HIDDEN, 1);
    put_float(&t, "model.norm.weight", 1, HIDDEN, 1, 1);
    put_layer(&t, 0, false);
    put_layer(&t, 1, true);
    char fp8[512], bf16[512];
    snprintf(fp8, sizeof fp8, "%s", mft_folder());
    snprintf(bf16, sizeof bf16, "%s", mft_folder());
    write_twin(fp8, t.fp8, t.n_fp8,
               ",\"quantization_config\":{\"quant_method\":\"fp8\","
               "\"weight_block_size\":[128,128]}");
    write_twin(bf16, t.bf16, t.n_bf16, "");
    double e = mft_nmse_of(fp8, bf16, 2);
    printf("  FP8 against its values: NMSE %.2g\n", e);
    assert_true(e < 1e-12);
    compare_folders(convert(fp8, NULL, 4), convert(bf16, NULL, 4));
    e = mft_nmse_of(convert(fp8, "f32", 0), bf16, 2);
    assert_true(e < 1e-12);
    for (size_t i = 0; i < t.n_bf16; i++)
        free((void *)t.bf16[i].data);
    for (size_t i = 0; i < t.n_fp8; i++)
        if (strcmp(t.fp8[i].dtype, "BF16") != 0)
            free((void *)t.fp8[i].data);
}

/* ---- what can't be written ---- */

static void refusals(void **state)
{
    (void)state;
    struct stat st;
    mf_error err;
    mf_convert_options o;
    mft_gguf g = {0};
    const char *dir = mft_folder();
    mft_gguf_str(&g, "general.architecture", "unheard-of");
    mft_gguf_write(&g, dir, "a.gguf");
    mf_convert_options_default(&o);
    o.in_path = mft_path(dir, "a.gguf");
    o.out_path = mft_fresh("no");
    mf_status status = mf_convert(&o, &err);
    assert_true(status == MF_ERR_UNSUPPORTED || status == MF_ERR_EMPTY_MANIFEST);
    assert_non_null(strstr(err.message, "a.gguf"));
    assert_null(strstr(err.message, "config.json"));
    assert_int_equal(stat(o.out_path, &st), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_of_every_family),
        cmocka_unit_test(gguf_of_block_types),
        cmocka_unit_test(packed_fp8),
        cmocka_unit_test(refusals),
    };
    return mft_run(tests);
}
