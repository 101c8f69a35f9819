/* FP8 and MXFP4 safetensors folders: what the parts mean together, against values computed by torch
 * and by the definition (tools/gen_fp_vectors.py), and the refusal of what doesn't fit together. */
#include "fake/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake/model_files.h"
#include "fake/tensors.h"
#include "format/format.h"

/* E4M3 by its definition: four bits of exponent, biased by 7, and three of fraction. */
static void every_e4m3(void **state)
{
    (void)state;
    for (int b = 0; b < 256; b++) {
        float got = mfi_e4m3_to_f32((uint8_t)b);
        int exp = b >> 3 & 15, frac = b & 7;
        if ((b & 127) == 127) {
            assert_true(isnan(got));
            continue;
        }
        double want = exp ? ldexp(8 + frac, exp - 10) : ldexp(frac, -9);
        assert_true((double)got == (b & 128 ? -want : want));
        assert_int_equal(signbit(got) != 0, b >> 7);
    }
    assert_true(mfi_e4m3_to_f32(0x7e) == 448);
}

static void read_rows(const mfi_catalog *catalog, const mfi_tensor *t, float *out)
{
    uint64_t rows = mfi_tensor_rows(t), cols = mfi_tensor_cols(t);
    unsigned char *planes[MFI_MAX_PLANES] = {0};
    mf_error err;
    for (uint32_t p = 0; p < mfi_quant_n_planes(t->type); p++) {
        mfi_extent e = mfi_tensor_extent(t, p, 0, rows);
        assert_int_equal(e.len, mfi_tensor_bytes(t, p));
        planes[p] = malloc(e.len);
        mft_ok(mfi_file_read(mfi_catalog_file(catalog, e.file), planes[p], e.len, e.offset, &err),
               &err);
    }
    for (uint64_t r = 0; r < rows; r++) {
        const void *row[MFI_MAX_PLANES] = {0};
        for (uint32_t p = 0; p < mfi_quant_n_planes(t->type); p++)
            row[p] = planes[p] +
                     r / mfi_quant_rows_per_row(t->type, p) * mfi_quant_row_bytes(t->type, p, cols);
        mfi_dequant_row(t->type, row, cols, out + r * cols);
    }
    for (uint32_t p = 0; p < MFI_MAX_PLANES; p++)
        free(planes[p]);
}

/* Every tensor of the folder equals the expected values; the code of minus zero in MXFP4 gives
 * plain zero, as it does in GGUF. */
static void compare_folder(const char *name, uint32_t n_tensors)
{
    char path[64];
    mfi_catalog *catalog;
    mft_tensors expected;
    mf_error err;
    snprintf(path, sizeof path, "tests/data/%s/expected.safetensors", name);
    mft_tensors_open(&expected, mft_source(path));
    snprintf(path, sizeof path, "tests/data/%s", name);
    mft_ok(mfi_format_open(&catalog, mft_source(path), &err), &err);
    assert_int_equal(mfi_catalog_n_tensors(catalog), n_tensors);
    for (uint32_t id = 0; id < n_tensors; id++) {
        const mfi_tensor *t = mfi_catalog_tensor(catalog, id);
        const char *tensor_name = mfi_catalog_name(catalog, id);
        assert_int_equal(mfi_catalog_find(catalog, tensor_name), id);
        size_t n;
        const float *want = mft_tensors_get(&expected, tensor_name, "F32", &n);
        if (!want)
            fail_msg("%s: tensor %s is not expected", name, tensor_name);
        assert_int_equal(n, mfi_tensor_rows(t) * mfi_tensor_cols(t));
        float *got = malloc(n * sizeof *got);
        read_rows(catalog, t, got);
        for (size_t i = 0; i < n; i++)
            if (isnan(want[i]) ? !isnan(got[i]) : got[i] != want[i])
                fail_msg("%s: %s: element %zu is %a, not %a", name, tensor_name, i, (double)got[i],
                         (double)want[i]);
        free(got);
    }
    mfi_catalog_close(&catalog);
    mft_tensors_close(&expected);
}

static void fp8_values(void **state)
{
    (void)state;
    compare_folder("fp8", 4);
}

static void mxfp4_values(void **state)
{
    (void)state;
    compare_folder("mxfp4", 2);
}

static void dims_in_elements(void **state)
{
    (void)state;
    mfi_catalog *catalog;
    mf_error err;
    mft_ok(mfi_format_open(&catalog, mft_source("tests/data/mxfp4"), &err), &err);
    const mfi_tensor *t =
        mfi_catalog_tensor(catalog, mfi_catalog_find(catalog, "l.mlp.experts.gate_up_proj"));
    assert_int_equal(t->type.kind, MFI_Q_MXFP4);
    assert_int_equal(t->n_dims, 3);
    assert_int_equal(t->dims[0], 3);
    assert_int_equal(t->dims[1], 5);
    assert_int_equal(t->dims[2], 128);
    mfi_extent e = mfi_tensor_extent(t, 1, 5, 5); /* expert 1 */
    assert_int_equal(e.offset - t->offset[1], 5 * 4);
    assert_int_equal(e.len, 5 * 4);
    mfi_catalog_close(&catalog);
    mft_ok(mfi_format_open(&catalog, mft_source("tests/data/fp8"), &err), &err);
    t = mfi_catalog_tensor(catalog, mfi_catalog_find(catalog, "l.experts.down_proj"));
    assert_int_equal(t->type.kind, MFI_Q_FP8);
    e = mfi_tensor_extent(t, 1, 128, 128);
    assert_int_equal(e.offset - t->offset[1], 4);
    assert_int_equal(e.len, 4);
    mfi_catalog_close(&catalog);
}

typedef struct bad_case {
    const char *config; /* config.json's quantization_config */
    mft_tensor tensors[3];
    mf_status status;
    const char *says;
} bad_case;

#define FP8 "{\"quant_method\":\"fp8\",\"weight_block_size\":[128,128]}"
#define MX  "{\"quant_method\":\"mxfp4\"}"
#define T(...)                                                                                     \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }
#define W   T("l.weight", "F8_E4M3", 2, {200, 300})
#define B   T("l_blocks", "U8", 4, {2, 3, 4, 16})
#define S   T("l_scales", "U8", 3, {2, 3, 4})
#define ANY T("n.weight", "BF16", 1, {4})

static const bad_case bad_cases[] = {
    {FP8, {W, T("l.weight_scale_inv", "F32", 2, {2, 3})}, MF_OK, ""},
    {FP8, {W, T("l.weight_scale_inv", "F16", 2, {2, 3})}, MF_OK, ""},
    {FP8, {ANY}, MF_OK, ""},
    {FP8, {W}, MF_ERR_TENSOR_MISSING, "l.weight_scale_inv"},
    {FP8, {W, T("l.weight_scale_inv", "U32", 2, {2, 3})}, MF_ERR_TENSOR_SHAPE, "must be floats"},
    {FP8,
     {W, T("l.weight_scale_inv", "F8_E4M3", 2, {2, 3})},
     MF_ERR_TENSOR_SHAPE,
     "must be floats"},
    {FP8,
     {W, T("l.weight_scale_inv", "F32", 2, {3, 2})},
     MF_ERR_TENSOR_SHAPE,
     "_scale_inv: not one"},
    {FP8, {W, T("l.weight_scale_inv", "F32", 2, {1, 3})}, MF_ERR_TENSOR_SHAPE, "not one"},
    {FP8, {W, T("l.weight_scale_inv", "F32", 1, {6})}, MF_ERR_TENSOR_SHAPE, "not one"},
    {FP8,
     {T("l.weight", "F8_E4M3", 1, {128}), T("l.weight_scale_inv", "F32", 1, {1})},
     MF_ERR_TENSOR_SHAPE,
     "matrices"},
    {FP8,
     {T("l.weight", "F8_E4M3", 3, {2, 130, 128}), T("l.weight_scale_inv", "F32", 3, {2, 2, 1})},
     MF_ERR_TENSOR_SHAPE,
     "multiple of 128"},
    {FP8,
     {T("l.weight", "F8_E4M3", 3, {2, 128, 128}), T("l.weight_scale_inv", "F32", 3, {1, 2, 1})},
     MF_ERR_TENSOR_SHAPE,
     "not one"},
    {"{\"quant_method\":\"fp8\"}", {ANY}, MF_ERR_UNSUPPORTED, "without a weight_block_size"},
    {"{\"quant_method\":\"fp8\",\"weight_block_size\":null}",
     {ANY},
     MF_ERR_UNSUPPORTED,
     "without a weight_block_size"},
    {"{\"quant_method\":\"fp8\",\"weight_block_size\":[128,\"128\"]}",
     {ANY},
     MF_ERR_UNSUPPORTED,
     "without a weight_block_size"},
    {"{\"quant_method\":\"fp8\",\"weight_block_size\":[64,128]}",
     {ANY},
     MF_ERR_UNSUPPORTED,
     "blocks of 64 x 128"},
    {"{\"quant_method\":\"fp8\",\"fmt\":\"e5m2\",\"weight_block_size\":[128,128]}",
     {ANY},
     MF_ERR_UNSUPPORTED,
     "e5m2"},
    {MX, {B, S}, MF_OK, ""},
    {MX, {ANY}, MF_OK, ""},
    {MX, {T("l_blocks", "F32", 1, {4})}, MF_OK, ""}, /* of something else */
    {MX, {B}, MF_ERR_TENSOR_MISSING, "l_scales"},
    {MX,
     {B, T("l_scales", "F32", 3, {2, 3, 4})},
     MF_ERR_TENSOR_SHAPE,
     "l_scales: MXFP4 scales must"},
    {MX, {B, T("l_scales", "U8", 3, {2, 4, 3})}, MF_ERR_TENSOR_SHAPE, "not one scale"},
    {MX, {B, T("l_scales", "U8", 4, {2, 3, 4, 1})}, MF_ERR_TENSOR_SHAPE, "not one scale"},
    {MX, {T("l_blocks", "U8", 4, {2, 3, 4, 8}), S}, MF_ERR_TENSOR_SHAPE, "blocks of 16 bytes"},
    {MX, {T("l_blocks", "U8", 1, {16}), S}, MF_ERR_TENSOR_SHAPE, "blocks of 16 bytes"},
    {MX, {T("l", "F32", 1, {4}), B, S}, MF_ERR_TENSOR_SHAPE, "without _blocks"},
    {MX,
     {T("l_scales_blocks", "U8", 2, {4, 16}), B, T("l_scales_scales", "U8", 1, {4})},
     MF_ERR_TENSOR_MISSING,
     "l_scales"},
};

static void parts_that_do_not_fit(void **state)
{
    (void)state;
    const char *dir = mft_folder();
    for (size_t i = 0; i < MFI_ARRAY_LEN(bad_cases); i++) {
        const bad_case *c = &bad_cases[i];
        char config[256];
        size_t n = 0;
        while (n < MFI_ARRAY_LEN(c->tensors) && c->tensors[n].name)
            n++;
        snprintf(config, sizeof config, "{\"quantization_config\":%s}", c->config);
        mft_write_str(dir, "config.json", config);
        mft_write_tensors(dir, "model.safetensors", c->tensors, n);
        mfi_catalog *catalog;
        mf_error err = {0};
        mf_status status = mfi_format_open(&catalog, dir, &err);
        if (status != c->status || !strstr(err.message, c->says))
            fail_msg("case %zu, %s: %s: %s", i, config, mf_status_name(status), err.message);
        mfi_catalog_close(&catalog);
    }
}

/* Byte arithmetic, against hand-made figures. */
static void plane_bytes(void **state)
{
    (void)state;
    const mfi_qtype fp8 = {MFI_Q_FP8, 8, MFI_Q_F32, 0}, bf16 = {MFI_Q_FP8, 8, MFI_Q_BF16, 0};
    const mfi_qtype mx = {.kind = MFI_Q_MXFP4}, q4_k = {.kind = MFI_Q_GGML, .bits = 12};
    char name[64];
    assert_int_equal(mfi_quant_plane_bytes(fp8, 0, 576, 7168), 576 * 7168);
    assert_int_equal(mfi_quant_plane_bytes(fp8, 1, 576, 7168), 5 * 56 * 4);
    assert_int_equal(mfi_quant_plane_bytes(bf16, 1, 129, 129), 2 * 2 * 2);
    assert_int_equal(mfi_quant_plane_bytes(mx, 0, 5760, 2880), 5760 * 90 * 16);
    assert_int_equal(mfi_quant_plane_bytes(mx, 1, 5760, 2880), 5760 * 90);
    assert_int_equal(mfi_quant_plane_bytes(q4_k, 0, 3, 512), 3 * 288);
    assert_int_equal(mfi_quant_n_planes(fp8), 2);
    assert_int_equal(mfi_quant_n_planes(mx), 2);
    assert_true(mfi_quant_cols_ok(fp8, 1));
    assert_false(mfi_quant_cols_ok(mx, 48));
    assert_false(mfi_quant_cols_ok(q4_k, 128));
    mfi_quant_name(bf16, name, sizeof name);
    assert_string_equal(name, "fp8 e4m3 128x128 (bf16)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_e4m3),   cmocka_unit_test(fp8_values),
        cmocka_unit_test(mxfp4_values), cmocka_unit_test(dims_in_elements),
        cmocka_unit_test(plane_bytes),  cmocka_unit_test(parts_that_do_not_fit),
    };
    return mft_run(tests);
}
