/* MLX-quantised folders: triples become logical tensors, whatever config.json says is held against
 * the shapes, and other quantisations are refused by name. */
#include "fake/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake/model_files.h"
#include "format/format.h"

static const mfi_tensor *tensor(const mfi_catalog *catalog, const char *name)
{
    uint32_t id = mfi_catalog_find(catalog, name);
    if (id == MFI_TENSOR_NONE)
        fail_msg("no tensor %s", name);
    return mfi_catalog_tensor(catalog, id);
}

/* Words a row, and groups a row, for 256 columns. */
#define COLS 256u
#define TRIPLE(path, bits, group, scale, rows)                                                     \
    {path ".weight", "U32", 2, {rows, COLS * bits / 32}, NULL},                                    \
        {path ".scales", scale, 2, {rows, COLS / group}, NULL},                                    \
    {                                                                                              \
        path ".biases", scale, 2, {rows, COLS / group}, NULL                                       \
    }

static const mft_tensor mixed[] = {
    TRIPLE("model.embed_tokens", 4, 64, "BF16", 10),
    TRIPLE("language_model.model.layers.0.mlp.gate", 8, 64, "BF16", 7),
    TRIPLE("model.layers.0.q_proj", 2, 128, "F16", 5),
    TRIPLE("model.layers.0.k_proj", 3, 32, "F32", 5),
    TRIPLE("model.layers.0.v_proj", 5, 32, "BF16", 5),
    TRIPLE("model.layers.0.o_proj", 6, 64, "BF16", 5),
    {"model.layers.0.mlp.switch_mlp.up_proj.weight", "U32", 3, {6, 5, 32}, NULL},
    {"model.layers.0.mlp.switch_mlp.up_proj.scales", "BF16", 3, {6, 5, 4}, NULL},
    {"model.layers.0.mlp.switch_mlp.up_proj.biases", "BF16", 3, {6, 5, 4}, NULL},
    {"model.norm.weight", "BF16", 1, {COLS}, NULL},
    {"model.layers.0.shared_gate.weight", "BF16", 2, {1, COLS}, NULL}, /* not quantised */
    {"vision.ids", "U32", 1, {3}, NULL},
    {"vision.scales", "F32", 1, {3}, NULL}, /* of nothing */
};

static const char mixed_config[] =
    "{\"model_type\":\"x\",\"quantization\":{\"group_size\":64,\"bits\":4,\"mode\":\"affine\","
    "\"model.layers.0.mlp.gate\":{\"group_size\":64,\"bits\":8},"
    "\"model.layers.0.q_proj\":{\"group_size\":128,\"bits\":2,\"mode\":\"affine\"},"
    "\"language_model.model.layers.0.k_proj\":{\"group_size\":32,\"bits\":3},"
    "\"layers.0.v_proj\":{\"group_size\":32,\"bits\":5},"
    "\"model.layers.0.o_proj\":{\"bits\":6},\"model.layers.0.mlp.switch_mlp.up_proj\":true,"
    "\"model.layers.0.shared_gate\":false},"
    "\"quantization_config\":{\"group_size\":64,\"bits\":4}}";

static void check_type(const mfi_catalog *catalog, const char *name, const char *type_name)
{
    char type[64];
    mfi_quant_name(tensor(catalog, name)->type, type, sizeof type);
    assert_string_equal(type, type_name);
}

static void triples_are_folded(void **state)
{
    (void)state;
    const char *dir = mft_folder();
    mft_write_str(dir, "config.json", mixed_config);
    mft_write_tensors(dir, "model.safetensors", mixed, MFI_ARRAY_LEN(mixed));
    mfi_catalog *catalog;
    mf_error err;
    mft_ok(mfi_format_open(&catalog, dir, &err), &err);
    assert_int_equal(mfi_catalog_n_tensors(catalog), MFI_ARRAY_LEN(mixed) - 2 * 7);
    assert_int_equal(mfi_catalog_find(catalog, "model.embed_tokens.scales"), MFI_TENSOR_NONE);
    assert_int_equal(mfi_catalog_find(catalog, "model.embed_tokens.biases"), MFI_TENSOR_NONE);
    check_type(catalog, "model.embed_tokens.weight", "mlx 4-bit group 64 (bf16)");
    check_type(catalog, "language_model.model.layers.0.mlp.gate.weight",
               "mlx 8-bit group 64 (bf16)");
    check_type(catalog, "model.layers.0.q_proj.weight", "mlx 2-bit group 128 (f16)");
    check_type(catalog, "model.layers.0.k_proj.weight", "mlx 3-bit group 32 (f32)");
    check_type(catalog, "model.layers.0.v_proj.weight", "mlx 5-bit group 32 (bf16)");
    check_type(catalog, "model.layers.0.o_proj.weight", "mlx 6-bit group 64 (bf16)");
    check_type(catalog, "model.norm.weight", "bf16");
    check_type(catalog, "vision.ids", "32-bit other");
    check_type(catalog, "vision.scales", "f32");
    /* every tensor that is left is found under its name, and its planes hold the pattern of its
     * parts */
    size_t size;
    unsigned char *bytes = mft_read(mft_path(dir, "model.safetensors"), &size);
    static const char *const suffixes[] = {".weight", ".scales", ".biases"};
    for (uint32_t id = 0; id < mfi_catalog_n_tensors(catalog); id++) {
        const char *name = mfi_catalog_name(catalog, id);
        assert_int_equal(mfi_catalog_find(catalog, name), id);
        const mfi_tensor *t = mfi_catalog_tensor(catalog, id);
        if (t->type.kind != MFI_Q_MLX)
            continue;
        assert_int_equal(mfi_tensor_cols(t), COLS);
        for (uint32_t plane = 0; plane < 3; plane++) {
            uint64_t n = mfi_tensor_bytes(t, plane);
            size_t len = strlen(name) - strlen(suffixes[0]) + strlen(suffixes[plane]);
            for (uint64_t b = 0; b < n; b++)
                assert_int_equal(bytes[t->offset[plane] + b], (7 * b + len) & 0xff);
        }
    }
    free(bytes);
    const mfi_tensor *up = tensor(catalog, "model.layers.0.mlp.switch_mlp.up_proj.weight");
    assert_int_equal(up->n_dims, 3);
    assert_int_equal(mfi_tensor_rows(up), 30);
    mfi_extent e = mfi_tensor_extent(up, 0, 5 * 5, 5); /* expert 5 */
    assert_int_equal(e.offset - up->offset[0], 5 * 5 * 32 * 4);
    assert_int_equal(e.len, 5 * 32 * 4);
    e = mfi_tensor_extent(up, 2, 5 * 5, 5);
    assert_int_equal(e.offset - up->offset[2], 5 * 5 * 4 * 2);
    assert_int_equal(e.len, 5 * 4 * 2);
    mfi_catalog_close(&catalog);
}

typedef struct bad_case {
    const char *quantization; /* config.json's member and its value */
    mft_tensor tensors[3];
    size_t n;
    mf_status status;
    const char *says;
} bad_case;

#define Q4 "\"quantization\":{\"group_size\":64,\"bits\":4}"
#define W                                                                                          \
    {                                                                                              \
        "l.weight", "U32", 2, {4, 32}, NULL                                                        \
    }
#define S                                                                                          \
    {                                                                                              \
        "l.scales", "BF16", 2, {4, 4}, NULL                                                        \
    }
#define B                                                                                          \
    {                                                                                              \
        "l.biases", "BF16", 2, {4, 4}, NULL                                                        \
    }

static const bad_case bad_cases[] = {
    {Q4, {W, S, B}, 3, MF_OK, ""},
    {"\"quantization\":null,\"quantization_config\":{\"group_size\":64,\"bits\":4}",
     {W, S, B},
     3,
     MF_OK,
     ""},
    {Q4 ",\"quantization_config\":{\"quant_method\":\"fp8\"}", {W, S, B}, 3, MF_OK, ""},
    {Q4, {W}, 1, MF_ERR_TENSOR_MISSING, "l.scales"},
    {Q4, {W, S}, 2, MF_ERR_TENSOR_MISSING, "l.biases"},
    {"\"x\":1", {W, S, B}, 3, MF_ERR_TENSOR_SHAPE, "l.weight"},
    {"\"quantization\":{\"group_size\":64,\"bits\":8}",
     {W, S, B},
     3,
     MF_ERR_TENSOR_SHAPE,
     "l.scales"},
    {"\"quantization\":{\"group_size\":32,\"bits\":4}",
     {W, S, B},
     3,
     MF_ERR_TENSOR_SHAPE,
     "l.scales"},
    {"\"quantization\":{\"group_size\":64,\"bits\":3}",
     {W, S, B},
     3,
     MF_ERR_TENSOR_SHAPE,
     "l.weight"},
    {"\"quantization\":{\"group_size\":64,\"bits\":4,\"l\":{\"bits\":2,\"group_size\":64}}",
     {W, S, B},
     3,
     MF_ERR_TENSOR_SHAPE,
     "l.scales"},
    {"\"quantization\":{\"group_size\":64,\"bits\":4,\"model.l\":{\"bits\":2,\"group_size\":64}}",
     {W, S, B},
     3,
     MF_ERR_TENSOR_SHAPE,
     "l.scales"},
    {"\"quantization\":{\"group_size\":64,\"bits\":4,\"l\":false}",
     {W, S, B},
     3,
     MF_ERR_TENSOR_SHAPE,
     "l.weight"},
    {Q4, {W, {"l.scales", "BF16", 2, {4, 5}, NULL}, B}, 3, MF_ERR_TENSOR_SHAPE, "l.scales"},
    {Q4, {W, {"l.scales", "BF16", 2, {3, 4}, NULL}, B}, 3, MF_ERR_TENSOR_SHAPE, "l.scales"},
    {Q4, {W, {"l.scales", "BF16", 1, {16}, NULL}, B}, 3, MF_ERR_TENSOR_SHAPE, "l.scales"},
    {Q4, {W, {"l.scales", "BF16", 3, {1, 4, 4}, NULL}, B}, 3, MF_ERR_TENSOR_SHAPE, "l.scales"},
    {Q4, {W, {"l.scales", "U8", 2, {4, 4}, NULL}, B}, 3, MF_ERR_TENSOR_SHAPE, "l.scales"},
    {Q4, {W, S, {"l.biases", "BF16", 2, {4, 3}, NULL}}, 3, MF_ERR_TENSOR_SHAPE, "l.biases"},
    {Q4, {W, S, {"l.biases", "F16", 2, {4, 4}, NULL}}, 3, MF_ERR_TENSOR_SHAPE, "l.biases"},
    {Q4, {{"l.weight", "U32", 0, {0}, NULL}, S, B}, 3, MF_ERR_TENSOR_SHAPE, "l.weight"},
    {Q4, {{"l.weight", "U32", 2, {4, 33}, NULL}, S, B}, 3, MF_ERR_TENSOR_SHAPE, "l.weight"},
    {"\"quantization\":7", {W, S, B}, 3, MF_ERR_FORMAT, "not an object"},
    {"\"quantization\":{\"bits\":4}", {W, S, B}, 3, MF_ERR_UNSUPPORTED, "group_size"},
    {"\"quantization\":{\"group_size\":64,\"bits\":7}", {W, S, B}, 3, MF_ERR_UNSUPPORTED, "7 bits"},
    {"\"quantization\":{\"group_size\":64,\"bits\":-4}",
     {W, S, B},
     3,
     MF_ERR_UNSUPPORTED,
     "-4 bits"},
    {"\"quantization\":{\"group_size\":0,\"bits\":4}",
     {W, S, B},
     3,
     MF_ERR_UNSUPPORTED,
     "groups of 0"},
    {"\"quantization\":{\"group_size\":16,\"bits\":4}",
     {W, S, B},
     3,
     MF_ERR_UNSUPPORTED,
     "groups of 16"},
    {"\"quantization\":{\"group_size\":64,\"bits\":\"4\"}",
     {W, S, B},
     3,
     MF_ERR_FORMAT,
     "integers"},
    {"\"quantization\":{\"group_size\":64,\"bits\":4,\"l\":{\"bits\":9}}",
     {W, S, B},
     3,
     MF_ERR_UNSUPPORTED,
     "quantization of l with 9 bits"},
    {"\"quantization\":{\"group_size\":32,\"bits\":4,\"mode\":\"mxfp8\"}",
     {W, S, B},
     3,
     MF_ERR_UNSUPPORTED,
     "mode \"mxfp8\""},
    {"\"quantization\":{\"group_size\":64,\"bits\":4,\"mode\":\"mxfp4\"}",
     {W, S, B},
     3,
     MF_ERR_UNSUPPORTED,
     "groups of 64"},
    {"\"quantization\":{\"group_size\":32,\"bits\":4,\"mode\":\"mxfp4\"}",
     {W, S, B},
     3,
     MF_ERR_TENSOR_SHAPE,
     "dtype U8"},
    {"\"quantization\":{\"group_size\":64,\"bits\":4,\"l\":{\"mode\":\"nvfp4\"}}",
     {W, S, B},
     3,
     MF_ERR_UNSUPPORTED,
     "mode \"nvfp4\""},
    {"\"quantization_config\":{\"quant_method\":\"bitnet\"}",
     {S},
     1,
     MF_ERR_UNSUPPORTED,
     "method \"bitnet\"; supported are"},
    {"\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":64}",
     {S},
     1,
     MF_ERR_UNSUPPORTED,
     "gptq"},
    {"\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":64}",
     {S},
     1,
     MF_ERR_UNSUPPORTED,
     "awq"},
    {"\"text_config\":{\"quantization_config\":{\"quant_method\":\"compressed-tensors\"}}",
     {S},
     1,
     MF_ERR_UNSUPPORTED,
     "compressed-tensors"},
};

static void bad_triples(void **state)
{
    (void)state;
    const char *dir = mft_folder();
    for (size_t i = 0; i < MFI_ARRAY_LEN(bad_cases); i++) {
        const bad_case *c = &bad_cases[i];
        char config[512];
        snprintf(config, sizeof config, "{%s}", c->quantization);
        mft_write_str(dir, "config.json", config);
        mft_write_tensors(dir, "model.safetensors", c->tensors, c->n);
        mfi_catalog *catalog;
        mf_error err = {0};
        mf_status status = mfi_format_open(&catalog, dir, &err);
        if (status != c->status || !strstr(err.message, c->says))
            fail_msg("case %zu, %s: %s: %s", i, config, mf_status_name(status), err.message);
        assert_true((status == MF_OK) == (catalog != NULL));
        mfi_catalog_close(&catalog);
    }
}

/* Unsupported quantisations are refused before their files are looked at. */
static void refused_without_files(void **state)
{
    (void)state;
    const char *dir = mft_folder();
    mft_write_str(dir, "config.json", "{\"quantization_config\":{\"quant_method\":\"fp8\"}}");
    mfi_catalog *catalog;
    mf_error err;
    assert_int_equal(mfi_format_open(&catalog, dir, &err), MF_ERR_UNSUPPORTED);
}

static void truncated(void **state)
{
    (void)state;
    const char *dir = mft_folder();
    mft_write_str(dir, "config.json", mixed_config);
    mft_write_tensors(dir, "model.safetensors", mixed, MFI_ARRAY_LEN(mixed));
    size_t size;
    unsigned char *bytes = mft_read(mft_path(dir, "model.safetensors"), &size);
    for (size_t percent = 0; percent < 100; percent++) {
        mft_write(dir, "model.safetensors", bytes, size * percent / 100);
        mfi_catalog *catalog;
        mf_error err;
        mf_status status = mfi_format_open(&catalog, dir, &err);
        assert_true(status == MF_ERR_FORMAT || status == MF_ERR_TENSOR_BOUNDS);
        assert_null(catalog);
    }
    free(bytes);
}

/* Row sizes of every type, against hand-made figures. */
static void row_bytes(void **state)
{
    (void)state;
    static const struct {
        mfi_qtype type;
        uint64_t cols, bytes[3];
        bool ok;
    } cases[] = {
        {{MFI_Q_F32, 32, 0, 0}, 7, {28}, true},
        {{MFI_Q_BF16, 16, 0, 0}, 7, {14}, true},
        {{MFI_Q_F16, 16, 0, 0}, 0, {0}, true},
        {{MFI_Q_OTHER, 64, 0, 0}, 3, {24}, true},
        {{MFI_Q_OTHER, 4, 0, 0}, 3, {0}, false},
        {{MFI_Q_OTHER, 4, 0, 0}, 4, {2}, true},
        {{MFI_Q_MLX, 4, MFI_Q_BF16, 64}, 4096, {2048, 128, 128}, true},
        {{MFI_Q_MLX, 3, MFI_Q_F32, 32}, 96, {36, 12, 12}, true},
        {{MFI_Q_MLX, 5, MFI_Q_F16, 128}, 128, {80, 2, 2}, true},
        {{MFI_Q_MLX, 6, MFI_Q_BF16, 64}, 96, {0}, false},
        {{MFI_Q_MLX, 8, MFI_Q_BF16, 64},
         (uint64_t)1 << 31,
         {(uint64_t)1 << 31, 1 << 26, 1 << 26},
         true},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        assert_int_equal(mfi_quant_cols_ok(cases[i].type, cases[i].cols), cases[i].ok);
        uint32_t n = mfi_quant_n_planes(cases[i].type);
        assert_int_equal(n, cases[i].type.kind == MFI_Q_MLX ? 3 : 1);
        for (uint32_t plane = 0; plane < n && cases[i].ok; plane++)
            assert_int_equal(mfi_quant_row_bytes(cases[i].type, plane, cases[i].cols),
                             cases[i].bytes[plane]);
    }
    char name[8];
    mfi_quant_name(cases[6].type, name, sizeof name);
    assert_string_equal(name, "mlx 4-b");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(triples_are_folded),
        cmocka_unit_test(bad_triples),
        cmocka_unit_test(refused_without_files),
        cmocka_unit_test(truncated),
        cmocka_unit_test(row_bytes),
    };
    return mft_run(tests);
}
