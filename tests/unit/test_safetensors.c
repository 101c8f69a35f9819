/* Model folders of float safetensors: what the catalog says of good ones, and how bad ones are
 * refused. */
#include "fake/support.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fake/model_files.h"
#include "format/format.h"

static const mfi_tensor *tensor(const mfi_catalog *catalog, const char *name)
{
    uint32_t id = mfi_catalog_find(catalog, name);
    if (id == MFI_TENSOR_NONE)
        fail_msg("no tensor %s", name);
    assert_string_equal(mfi_catalog_name(catalog, id), name);
    return mfi_catalog_tensor(catalog, id);
}

static void check_dims(const mfi_tensor *t, uint32_t n, const uint32_t *dims)
{
    assert_int_equal(t->n_dims, n);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(t->dims[i], dims[i]);
}

static void valid_model(void **state)
{
    (void)state;
    const char *dir = mft_folder();
    const mft_tensor tensors[] = {
        {"model.embed.weight", "BF16", 2, {10, 6}, NULL},
        {"l.0.conv1d.weight", "F16", 3, {5, 1, 4}, NULL},
        {"l.0.A_log", "F32", 1, {7}, NULL},
        {"scalar", "F32", 0, {0}, NULL},
        {"empty", "BF16", 3, {2, 0, 3}, NULL},
        {"patch.kernel", "BF16", 5, {3, 2, 2, 4, 5}, NULL},
        {"ids", "I64", 2, {2, 3}, NULL},
        {"words", "U32", 2, {2, 3}, NULL},
        {"mask", "BOOL", 1, {3}, NULL},
        {"fp8", "F8_E4M3", 2, {4, 4}, NULL},
        {"experts", "BF16", 3, {4, 3, 2}, NULL},
    };
    mft_write_str(dir, "config.json", "{\"model_type\":\"x\"}");
    mft_write_tensors(dir, "model.safetensors", tensors, MFI_ARRAY_LEN(tensors));
    mfi_catalog *catalog;
    mf_error err;
    mft_ok(mfi_format_open(&catalog, dir, &err), &err);
    assert_int_equal(mfi_catalog_n_tensors(catalog), MFI_ARRAY_LEN(tensors));
    assert_int_equal(mfi_catalog_n_files(catalog), 1);
    assert_string_equal(mfi_catalog_path(catalog), dir);
    assert_string_equal(mfi_json_str(mfi_json_get(mfi_catalog_config(catalog), "model_type"), NULL),
                        "x");
    assert_int_equal(mfi_catalog_find(catalog, "experts."), MFI_TENSOR_NONE);
    assert_int_equal(mfi_catalog_find(catalog, ""), MFI_TENSOR_NONE);
    size_t size;
    unsigned char *bytes = mft_read(mft_path(dir, "model.safetensors"), &size);
    for (size_t i = 0; i < MFI_ARRAY_LEN(tensors); i++) {
        const mfi_tensor *t = tensor(catalog, tensors[i].name);
        uint64_t n = mfi_tensor_bytes(t, 0);
        assert_true(t->offset[0] + n <= size);
        for (uint64_t b = 0; b < n; b++) /* the pattern that the file was written with */
            assert_int_equal(bytes[t->offset[0] + b], (7 * b + strlen(tensors[i].name)) & 0xff);
    }
    free(bytes);
    check_dims(tensor(catalog, "model.embed.weight"), 2, (uint32_t[]){10, 6});
    check_dims(tensor(catalog, "l.0.conv1d.weight"), 3, (uint32_t[]){5, 1, 4});
    check_dims(tensor(catalog, "scalar"), 0, NULL);
    check_dims(tensor(catalog, "empty"), 3, (uint32_t[]){2, 0, 3});
    check_dims(tensor(catalog, "patch.kernel"), 4, (uint32_t[]){6, 2, 4, 5}); /* 3x2 folded */
    assert_int_equal(tensor(catalog, "model.embed.weight")->type.kind, MFI_Q_BF16);
    assert_int_equal(tensor(catalog, "l.0.conv1d.weight")->type.kind, MFI_Q_F16);
    assert_int_equal(tensor(catalog, "l.0.A_log")->type.kind, MFI_Q_F32);
    assert_int_equal(tensor(catalog, "ids")->type.kind, MFI_Q_OTHER);
    assert_int_equal(tensor(catalog, "ids")->type.bits, 64);
    assert_int_equal(tensor(catalog, "words")->type.kind, MFI_Q_OTHER);
    assert_int_equal(mfi_tensor_bytes(tensor(catalog, "scalar"), 0), 4);
    assert_int_equal(mfi_tensor_bytes(tensor(catalog, "empty"), 0), 0);
    assert_int_equal(mfi_tensor_bytes(tensor(catalog, "fp8"), 0), 16);
    const mfi_tensor *experts = tensor(catalog, "experts");
    assert_int_equal(mfi_tensor_rows(experts), 12);
    assert_int_equal(mfi_tensor_cols(experts), 2);
    mfi_extent e = mfi_tensor_extent(experts, 0, 2 * 3, 3); /* expert 2 */
    assert_int_equal(e.offset - experts->offset[0], 2 * 3 * 2 * 2);
    assert_int_equal(e.len, 3 * 2 * 2);
    mfi_catalog_close(&catalog);
    assert_null(catalog);
}

typedef struct bad_case {
    const char *header;
    size_t n_data;
    mf_status status;
    const char *says; /* part of the message */
} bad_case;

#define T(dtype, shape, offsets)                                                                   \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static const bad_case bad_headers[] = {
    {"", 0, MF_ERR_FORMAT, "offset 0"},
    {"{", 0, MF_ERR_FORMAT, "offset"},
    {"[]", 0, MF_ERR_FORMAT, "not a JSON object"},
    {"7", 0, MF_ERR_FORMAT, "not a JSON object"},
    {"{}", 0, MF_ERR_EMPTY_MANIFEST, "no tensors"},
    {"{\"__metadata__\":{}}", 0, MF_ERR_EMPTY_MANIFEST, "no tensors"},
    {"{\"w\":1}", 0, MF_ERR_FORMAT, "w"},
    {"{\"w\":{}}", 0, MF_ERR_FORMAT, "no dtype"},
    {"{\"w\":{\"dtype\":\"F32\"}}", 0, MF_ERR_FORMAT, "no shape"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, MF_ERR_FORMAT, "no data_offsets"},
    {"{\"w\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, MF_ERR_FORMAT, "no dtype"},
    {"{\"w\":" T("F31", "[1]", "[0,4]") "}", 4, MF_ERR_UNSUPPORTED, "F31"},
    {"{\"w\":" T("f32", "[1]", "[0,4]") "}", 4, MF_ERR_UNSUPPORTED, "f32"},
    {"{\"w\":" T("F32", "1", "[0,4]") "}", 4, MF_ERR_FORMAT, "no shape"},
    {"{\"w\":" T("F32", "[-1]", "[0,4]") "}", 4, MF_ERR_FORMAT, "dimension"},
    {"{\"w\":" T("F32", "[1.0]", "[0,4]") "}", 4, MF_ERR_FORMAT, "dimension"},
    {"{\"w\":" T("F32", "[\"1\"]", "[0,4]") "}", 4, MF_ERR_FORMAT, "dimension"},
    {"{\"w\":" T("F32", "[null]", "[0,4]") "}", 4, MF_ERR_FORMAT, "dimension"},
    {"{\"w\":" T("F32", "[18446744073709551615]", "[0,4]") "}", 4, MF_ERR_FORMAT, "dimension"},
    {"{\"w\":" T("F32", "[2147483649]", "[0,4]") "}", 4, MF_ERR_FORMAT, "dimension"},
    {"{\"w\":" T("F32", "[2147483648,2147483648,2147483648]", "[0,4]") "}", 4, MF_ERR_FORMAT,
     "overflow"},
    {"{\"w\":" T("F32", "[2147483648,2147483648,4]", "[0,0]") "}", 4, MF_ERR_FORMAT, "overflow"},
    {"{\"w\":" T("F32", "[2147483648,2147483648,2147483648,0]", "[0,0]") "}", 4, MF_ERR_FORMAT,
     "overflow"},
    {"{\"w\":" T("F32", "[65536,65536,1,1,1]", "[0,4]") "}", 4, MF_ERR_FORMAT, "leading"},
    {"{\"w\":" T("F32", "[2]", "[0,4]") "}", 4, MF_ERR_FORMAT, "takes 8 bytes"},
    {"{\"w\":" T("F32", "[1]", "[0,8]") "}", 8, MF_ERR_FORMAT, "span 8"},
    {"{\"w\":" T("F32", "[]", "[0,0]") "}", 8, MF_ERR_FORMAT, "takes 4 bytes"},
    {"{\"w\":" T("F32", "[0]", "[0,4]") "}", 8, MF_ERR_FORMAT, "takes 0 bytes"},
    {"{\"w\":" T("F32", "[1]", "[4,0]") "}", 4, MF_ERR_FORMAT, "end before they begin"},
    {"{\"w\":" T("F32", "[1]", "[0]") "}", 4, MF_ERR_FORMAT, "two offsets"},
    {"{\"w\":" T("F32", "[1]", "[0,4,8]") "}", 4, MF_ERR_FORMAT, "two offsets"},
    {"{\"w\":" T("F32", "[1]", "[-4,0]") "}", 4, MF_ERR_FORMAT, "two offsets"},
    {"{\"w\":" T("F32", "[1]", "[0,\"4\"]") "}", 4, MF_ERR_FORMAT, "two offsets"},
    {"{\"w\":" T("F32", "[1]", "{}") "}", 4, MF_ERR_FORMAT, "data_offsets"},
    {"{\"w\":" T("F4", "[2,3]", "[0,3]") "}", 4, MF_ERR_UNSUPPORTED, "whole bytes"},
    {"{\"w\":" T("F32", "[1]", "[0,4]") "}", 3, MF_ERR_TENSOR_BOUNDS, "outside"},
    {"{\"w\":" T("F32", "[1]", "[1,5]") "}", 4, MF_ERR_TENSOR_BOUNDS, "outside"},
    {"{\"w\":" T("F32", "[0]", "[5,5]") "}", 4, MF_ERR_TENSOR_BOUNDS, "outside"},
    {"{\"w\":" T("U8", "[1]", "[9223372036854775806,9223372036854775807]") "}", 4,
     MF_ERR_TENSOR_BOUNDS, "outside"},
    {"{\"a\":" T("F32", "[2]", "[0,8]") ",\"b\":" T("F32", "[1]", "[4,8]") "}", 8, MF_ERR_FORMAT,
     "a and b overlap"},
    {"{\"b\":" T("F32", "[1]", "[7,11]") ",\"a\":" T("F32", "[2]", "[0,8]") "}", 11, MF_ERR_FORMAT,
     "a and b overlap"},
    {"{\"a\":" T("F32", "[1]", "[0,4]") ",\"b\":" T("F32", "[1]", "[0,4]") "}", 8, MF_ERR_FORMAT,
     "overlap"},
    {"{\"a\":" T("F32", "[1]", "[0,4]") ",\"a\":" T("F32", "[1]", "[4,8]") "}", 8, MF_ERR_FORMAT,
     "duplicate key"},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 8,
     MF_ERR_FORMAT, "duplicate key"},
    {"{\"a\\u0000b\":" T("F32", "[1]", "[0,4]") "}", 4, MF_ERR_FORMAT, "NUL"},
    {"{\"a\":" T("F32", "[1]", "[0,4]") "}}", 4, MF_ERR_FORMAT, "trailing"},
};

static void hostile_headers(void **state)
{
    (void)state;
    const char *dir = mft_folder();
    mft_write_str(dir, "config.json", "{}");
    for (size_t i = 0; i < MFI_ARRAY_LEN(bad_headers); i++) {
        const bad_case *c = &bad_headers[i];
        mft_write_header(dir, "model.safetensors", c->header, c->n_data);
        mfi_catalog *catalog = (mfi_catalog *)&c;
        mf_error err = {0};
        mf_status status = mfi_format_open(&catalog, dir, &err);
        if (status != c->status || !strstr(err.message, c->says) || !strstr(err.message, dir))
            fail_msg("%s: %s: %s", c->header, mf_status_name(status), err.message);
        assert_null(catalog);
    }
}

/* What looks odd but is right. */
static void odd_headers(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t n_data;
        uint32_t n_tensors;
    } cases[] = {
        {"  {\"w\" : " T("F32", "[ 1 ]", "[ 0 , 4 ]") " }   ", 4, 1},
        {"{\"\":" T("F32", "[1]", "[0,4]") "}", 4, 1},
        {"{\"a\\nb\\u00e9\":" T("F32", "[1]", "[0,4]") "}", 4, 1},
        {"{\"w\":{\"shape\":[],\"x\":{},\"data_offsets\":[0,4],\"d\\u0074ype\":\"F32\"}}", 4, 1},
        {"{\"w\":" T("F32", "[1]", "[8,12]") "}", 20, 1}, /* bytes before and behind */
        {"{\"a\":" T("F32", "[0]", "[2,2]") ",\"b\":" T("F32", "[1]", "[0,4]") "}", 4, 2},
        {"{\"a\":" T("F4", "[3,2]", "[0,3]") ",\"b\":" T("F6_E2M3", "[4]", "[3,6]") "}", 6, 2},
        {"{\"a\":" T("F32", "[0,2147483648,16777216]", "[0,0]") "}", 0, 1},
        {"{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1,2]", "[0,8]") "}", 8, 1},
    };
    const char *dir = mft_folder();
    mft_write_str(dir, "config.json", "{}");
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        mft_write_header(dir, "model.safetensors", cases[i].header, cases[i].n_data);
        mfi_catalog *catalog;
        mf_error err;
        if (mfi_format_open(&catalog, dir, &err) != MF_OK)
            fail_msg("%s: %s", cases[i].header, err.message);
        assert_int_equal(mfi_catalog_n_tensors(catalog), cases[i].n_tensors);
        mfi_catalog_close(&catalog);
    }
}

/* Files of every length up to the whole one: an error each time, and the right kind. */
static void truncate_all(const unsigned char *bytes, size_t size)
{
    const char *dir = mft_folder();
    mft_write_str(dir, "config.json", "{}");
    size_t header = 0;
    for (int i = 7; i >= 0; i--)
        header = header << 8 | bytes[i];
    for (int percent = 0; percent <= 100; percent++) {
        size_t len = percent == 100 ? size - 1 : size * (size_t)percent / 100;
        mft_write(dir, "model.safetensors", bytes, len);
        mfi_catalog *catalog;
        mf_error err = {0};
        mf_status status = mfi_format_open(&catalog, dir, &err);
        assert_int_equal(status, len < 8 + header ? MF_ERR_FORMAT : MF_ERR_TENSOR_BOUNDS);
        assert_non_null(strstr(err.message, "model.safetensors"));
        if (status == MF_ERR_TENSOR_BOUNDS) {
            char says[64];
            snprintf(says, sizeof says, "outside the file of %zu bytes", len);
            assert_non_null(strstr(err.message, says));
        }
        assert_null(catalog);
    }
    mft_write(dir, "model.safetensors", bytes, size);
    mfi_catalog *catalog;
    mf_error err;
    mft_ok(mfi_format_open(&catalog, dir, &err), &err);
    mfi_catalog_close(&catalog);
}

static void truncated(void **state)
{
    (void)state;
    const char *dir = mft_folder();
    static const mft_tensor tensors[] = {{"a.weight", "BF16", 2, {10, 6}, NULL},
                                         {"b.weight", "F32", 2, {10, 20}, NULL},
                                         {"c.weight", "F16", 1, {50}, NULL}};
    mft_write_tensors(dir, "model.safetensors", tensors, 3);
    size_t size;
    unsigned char *bytes = mft_read(mft_path(dir, "model.safetensors"), &size);
    truncate_all(bytes, size);
    free(bytes);
}

static void truncated_oracle(void **state)
{
    (void)state;
    const char *path = mft_oracle("hf/qwen3_5_moe_text/model.safetensors");
    if (!path)
        mft_skip("no oracle");
    size_t size;
    unsigned char *bytes = mft_read(path, &size);
    truncate_all(bytes, size);
    free(bytes);
}

static void header_lengths(void **state)
{
    (void)state;
    const char *dir = mft_folder();
    mft_write_str(dir, "config.json", "{}");
    static const uint64_t lengths[] = {
        4, 100, (uint64_t)1 << 31, (uint64_t)1 << 62, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < MFI_ARRAY_LEN(lengths); i++) {
        unsigned char bytes[11] = {0};
        for (int b = 0; b < 8; b++)
            bytes[b] = (unsigned char)(lengths[i] >> 8 * b);
        mft_write(dir, "model.safetensors", bytes, sizeof bytes);
        mfi_catalog *catalog;
        mf_error err;
        assert_int_equal(mfi_format_open(&catalog, dir, &err), MF_ERR_FORMAT);
        assert_non_null(strstr(err.message, "doesn't fit"));
    }
    /* one that fits into a (sparse) file but is beyond all sense */
    unsigned char bytes[8] = {0, 0, 0, 0, 1, 0, 0, 0};
    mft_write(dir, "model.safetensors", bytes, sizeof bytes);
    assert_int_equal(truncate(mft_path(dir, "model.safetensors"), (off_t)1 << 33), 0);
    mfi_catalog *catalog;
    mf_error err;
    assert_int_equal(mfi_format_open(&catalog, dir, &err), MF_ERR_LIMIT);
}

/* ---- shards ---- */

static const mft_tensor shard_a[] = {{"a", "F32", 1, {3}, NULL}, {"b", "BF16", 2, {2, 2}, NULL}},
                        shard_b[] = {{"c", "F32", 1, {5}, NULL}};

static const char *sharded(const char *index)
{
    const char *dir = mft_folder();
    mft_write_str(dir, "config.json", "{}");
    mft_write_tensors(dir, "m-1.safetensors", shard_a, 2);
    mft_write_tensors(dir, "m-2.safetensors", shard_b, 1);
    mft_write_str(dir, "model.safetensors.index.json", index);
    return dir;
}

static void shards(void **state)
{
    (void)state;
    /* b is not in the index: it is there all the same */
    const char *dir =
        sharded("{\"metadata\":{\"total_size\":1},\"weight_map\":{\"c\":\"m-2.safetensors\","
                "\"a\":\"m-1.safetensors\"}}");
    mfi_catalog *catalog;
    mf_error err;
    mft_ok(mfi_format_open(&catalog, dir, &err), &err);
    assert_int_equal(mfi_catalog_n_files(catalog), 2);
    assert_int_equal(mfi_catalog_n_tensors(catalog), 3);
    assert_int_equal(tensor(catalog, "a")->file[0], 0); /* files are in the order of their names */
    assert_int_equal(tensor(catalog, "b")->file[0], 0);
    assert_int_equal(tensor(catalog, "c")->file[0], 1);
    assert_string_equal(mfi_catalog_file(catalog, 1)->path, mft_path(dir, "m-2.safetensors"));
    mfi_catalog_close(&catalog);
}

static void bad_shards(void **state)
{
    (void)state;
    static const struct {
        const char *index;
        mf_status status;
        const char *says;
    } cases[] = {
        {"", MF_ERR_FORMAT, "index.json"},
        {"[]", MF_ERR_FORMAT, "weight_map"},
        {"{}", MF_ERR_FORMAT, "weight_map"},
        {"{\"weight_map\":[]}", MF_ERR_FORMAT, "weight_map"},
        {"{\"weight_map\":{}}", MF_ERR_EMPTY_MANIFEST, "no tensors"},
        {"{\"weight_map\":{\"a\":1}}", MF_ERR_FORMAT, "no file name"},
        {"{\"weight_map\":{\"a\":\"\"}}", MF_ERR_FORMAT, "not the name"},
        {"{\"weight_map\":{\"a\":\"../m-1.safetensors\"}}", MF_ERR_FORMAT, "not the name"},
        {"{\"weight_map\":{\"a\":\"..\"}}", MF_ERR_FORMAT, "not the name"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", MF_ERR_FORMAT, "not the name"},
        {"{\"weight_map\":{\"a\":\"\\u002e./x\"}}", MF_ERR_FORMAT, "not the name"},
        {"{\"weight_map\":{\"a\":\"m-1.safetensors\\u0000\"}}", MF_ERR_FORMAT, "not the name"},
        {"{\"weight_map\":{\"a\":\"m-3.safetensors\"}}", MF_ERR_FILE_MISSING, "m-3.safetensors"},
        {"{\"weight_map\":{\"a\":\"config.json\"}}", MF_ERR_FORMAT, "config.json"},
        {"{\"weight_map\":{\"a\":\".\"}}", MF_ERR_FORMAT, "not a regular file"},
        {"{\"weight_map\":{\"a\":\"m-1.safetensors\",\"x\":\"m-1.safetensors\"}}",
         MF_ERR_TENSOR_MISSING, "tensor x"},
        {"{\"weight_map\":{\"a\":\"m-1.safetensors\",\"c\":\"m-1.safetensors\"}}",
         MF_ERR_TENSOR_MISSING, "tensor c"},
        {"{\"weight_map\":{\"a\":\"m-2.safetensors\",\"b\":\"m-1.safetensors\"}}",
         MF_ERR_TENSOR_MISSING, "tensor a"},
        {"{\"weight_map\":{\"a\":\"m-1.safetensors\",\"a\":\"m-1.safetensors\"}}", MF_ERR_FORMAT,
         "duplicate key"},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        const char *dir = sharded(cases[i].index);
        mfi_catalog *catalog;
        mf_error err = {0};
        mf_status status = mfi_format_open(&catalog, dir, &err);
        if (status != cases[i].status || !strstr(err.message, cases[i].says))
            fail_msg("%s: %s: %s", cases[i].index, mf_status_name(status), err.message);
        assert_null(catalog);
    }
    const char *dir =
        sharded("{\"weight_map\":{\"a\":\"m-1.safetensors\",\"c\":\"m-2.safetensors\"}}");
    mft_write_tensors(dir, "m-2.safetensors", shard_a, 2);
    mfi_catalog *catalog;
    mf_error err;
    assert_int_equal(mfi_format_open(&catalog, dir, &err), MF_ERR_FORMAT);
    assert_non_null(strstr(err.message, "m-2.safetensors: tensor a is also in m-1.safetensors"));
}

/* ---- not our folders ---- */

static void other_formats(void **state)
{
    (void)state;
    mfi_catalog *catalog;
    mf_error err;
    const char *dir = mft_folder();
    assert_int_equal(mfi_format_open(&catalog, dir, &err), MF_ERR_FILE_MISSING);
    assert_non_null(strstr(err.message, "config.json"));
    mft_write_str(dir, "x.gguf", "GGUF....");
    assert_int_equal(mfi_format_open(&catalog, dir, &err), MF_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "GGUF"));
    assert_int_equal(mfi_format_open(&catalog, mft_path(dir, "x.gguf"), &err), MF_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "GGUF"));
    mft_write_str(dir, "blob", "GGUF....");
    assert_int_equal(mfi_format_open(&catalog, mft_path(dir, "blob"), &err), MF_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "GGUF"));
    assert_int_equal(mfi_format_open(&catalog, mft_path(dir, "none"), &err), MF_ERR_FILE_MISSING);
    dir = mft_folder();
    mft_write_str(dir, "config.json", "{}");
    assert_int_equal(mfi_format_open(&catalog, dir, &err), MF_ERR_FILE_MISSING);
    assert_non_null(strstr(err.message, "model.safetensors"));
    mft_write_str(dir, "pytorch_model.bin", "");
    assert_int_equal(mfi_format_open(&catalog, dir, &err), MF_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "PyTorch"));
    mft_write_tensors(dir, "model.safetensors", shard_a, 2);
    mft_write_str(dir, "config.json", "[]");
    assert_int_equal(mfi_format_open(&catalog, dir, &err), MF_ERR_FORMAT);
    mft_write_str(dir, "config.json", "{\"a\":NaN}");
    assert_int_equal(mfi_format_open(&catalog, dir, &err), MF_ERR_FORMAT);
    assert_non_null(strstr(err.message, "config.json: offset 5"));
}

/* ---- real models ---- */

/* Holds the catalog against the file's header as json-c reads it. */
static void compare_with_header(const mfi_catalog *catalog, const char *path)
{
    size_t size;
    unsigned char *bytes = mft_read(path, &size);
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | bytes[i];
    mfi_json *root;
    mf_error err;
    mft_ok(mfi_json_parse((const char *)bytes + 8, n, path, &root, &err), &err);
    for (size_t i = 0; i < mfi_json_len(root); i++) {
        const char *name;
        const mfi_json *info = mfi_json_member(root, i, &name);
        if (strcmp(name, "__metadata__") == 0)
            continue;
        const mfi_tensor *t = tensor(catalog, name);
        const mfi_json *shape = mfi_json_get(info, "shape"),
                       *at = mfi_json_get(info, "data_offsets");
        int64_t begin = 0, end = 0, dim = 0;
        assert_int_equal(mfi_json_len(shape), t->n_dims);
        for (size_t d = 0; d < t->n_dims; d++)
            assert_true(mfi_json_i64(mfi_json_at(shape, d), &dim) && dim == t->dims[d]);
        assert_true(mfi_json_i64(mfi_json_at(at, 0), &begin));
        assert_true(mfi_json_i64(mfi_json_at(at, 1), &end));
        assert_int_equal(t->offset[0], 8 + n + (uint64_t)begin);
        assert_int_equal(mfi_tensor_bytes(t, 0), end - begin);
        assert_string_equal(mfi_catalog_file(catalog, t->file[0])->path, path);
        const char *dtype = mfi_json_str(mfi_json_get(info, "dtype"), NULL);
        assert_int_equal(t->type.kind, strcmp(dtype, "BF16") == 0 ? MFI_Q_BF16 : MFI_Q_F32);
    }
    mfi_json_free(&root);
    free(bytes);
}

static void real_models(void **state)
{
    (void)state;
    static const char *const names[] = {"hf/deepseek_v2", "hf/deepseek_v3",   "hf/dots1",
                                        "hf/glm4_moe",    "hf/glm4_moe_lite", "hf/gpt_oss",
                                        "hf/granitemoe",  "hf/mixtral",       "hf/minimax_m2",
                                        "hf/olmoe",       "hf/qwen2_moe",     "hf/qwen3_5_moe_text",
                                        "hf/qwen3_moe",   "hf/qwen3_next"};
    if (!mft_oracle(names[0]))
        mft_skip("no oracle");
    for (size_t i = 0; i < MFI_ARRAY_LEN(names); i++) {
        const char *dir = mft_oracle(names[i]);
        mfi_catalog *catalog;
        mf_error err;
        mft_ok(mfi_format_open(&catalog, dir, &err), &err);
        compare_with_header(catalog, mft_path(dir, "model.safetensors"));
        mfi_catalog_close(&catalog);
    }
}

static void real_shards(void **state)
{
    (void)state;
    const char *dir = mft_oracle("../models/pocket-dictionary");
    if (!dir)
        mft_skip("no pocket-dictionary");
    mfi_catalog *catalog;
    mf_error err;
    mft_ok(mfi_format_open(&catalog, dir, &err), &err);
    assert_int_equal(mfi_catalog_n_files(catalog), 5);
    assert_int_equal(mfi_catalog_n_tensors(catalog), 892);
    for (uint32_t i = 0; i < 5; i++)
        compare_with_header(catalog, mfi_catalog_file(catalog, i)->path);
    mfi_catalog_close(&catalog);
}

/* ---- many tensors ---- */

#define N_MANY 140000

/* A sparse model of N_MANY tensors in n_files files, with names as long as real ones. */
static const char *make_many(int n_files)
{
    const char *dir = mft_folder();
    mft_write_str(dir, "config.json", "{}");
    FILE *index = n_files > 1 ? fopen(mft_path(dir, "model.safetensors.index.json"), "w") : NULL;
    if (index)
        fputs("{\"metadata\":{},\"weight_map\":{", index);
    for (int f = 0; f < n_files; f++) {
        char name[64];
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", f + 1, n_files);
        const char *path = mft_path(dir, index ? name : "model.safetensors");
        FILE *out = fopen(path, "w");
        assert_non_null(out);
        fseek(out, 8, SEEK_SET);
        int first = N_MANY / n_files * f,
            last = f + 1 == n_files ? N_MANY : N_MANY / n_files * (f + 1);
        uint64_t at = 0, bytes = 2048 * 768 * 2;
        for (int i = first; i < last; i++) {
            fprintf(out,
                    "%s\"model.layers.%d.mlp.experts.%d.%s_proj.weight\":{\"dtype\":\"BF16\","
                    "\"shape\":[2048,768],\"data_offsets\":[%llu,%llu]}",
                    i > first ? "," : "{", i / 1536, i / 3 % 512, &"gate\0up\0\0\0down"[i % 3 * 5],
                    (unsigned long long)at, (unsigned long long)(at + bytes));
            at += bytes;
            if (index)
                fprintf(index, "%s\"model.layers.%d.mlp.experts.%d.%s_proj.weight\":\"%s\"",
                        i ? "," : "", i / 1536, i / 3 % 512, &"gate\0up\0\0\0down"[i % 3 * 5],
                        name);
        }
        fputs("}", out);
        uint64_t len = (uint64_t)ftell(out) - 8;
        rewind(out);
        for (int b = 0; b < 8; b++)
            fputc((int)(len >> 8 * b & 0xff), out);
        fclose(out);
        assert_int_equal(truncate(path, (off_t)(8 + len + at)), 0);
    }
    if (index) {
        fputs("}}", index);
        fclose(index);
    }
    return dir;
}

static long peak_kib(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

/* Opens in a child, whose peak starts from what it has now. Returns the growth of it in KiB. */
static long open_in_child(const char *dir, double *ms)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    malloc_trim(0); /* what the heap kept of earlier tests would hide a part */
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        long before = peak_kib();
        clock_t begin = clock(); /* of the processor: other people's load is no fault of ours */
        mfi_catalog *catalog;
        mf_error err;
        long result[2] = {-1, 0};
        if (mfi_format_open(&catalog, dir, &err) == MF_OK &&
            mfi_catalog_n_tensors(catalog) == N_MANY &&
            mfi_catalog_find(catalog, "model.layers.7.mlp.experts.3.down_proj.weight") ==
                7 * 1536 + 3 * 3 + 2) {
            result[1] = (long)((double)(clock() - begin) * 1e6 / CLOCKS_PER_SEC);
            result[0] = peak_kib() - before;
        } else {
            fprintf(stderr, "%s\n", err.message);
        }
        ssize_t n = write(fds[1], result, sizeof result);
        _exit(n == sizeof result ? 0 : 1);
    }
    long result[2] = {-1, 0};
    assert_int_equal(read(fds[0], result, sizeof result), sizeof result);
    close(fds[0]);
    close(fds[1]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    *ms = (double)result[1] / 1000;
    return result[0];
}

static void many_tensors(void **state)
{
    (void)state;
    static const struct {
        int n_files;
        long max_mib;
    } cases[] = {{1, 64}, {94, 40}};
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        const char *dir = make_many(cases[i].n_files);
        double ms;
        long kib = open_in_child(dir, &ms);
        print_message("%d tensors in %d files: %.0f ms, %.1f MiB\n", N_MANY, cases[i].n_files, ms,
                      (double)kib / 1024);
        assert_true(kib >= 0);
        if (!MFT_SANITIZED)
            assert_in_range(kib, 1, cases[i].max_mib * 1024);
        if (ms > 10000) /* about 0.3 s; anything quadratic takes minutes */
            fail_msg("%.0f ms", ms);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valid_model),      cmocka_unit_test(hostile_headers),
        cmocka_unit_test(odd_headers),      cmocka_unit_test(truncated),
        cmocka_unit_test(truncated_oracle), cmocka_unit_test(header_lengths),
        cmocka_unit_test(shards),           cmocka_unit_test(bad_shards),
        cmocka_unit_test(other_formats),    cmocka_unit_test(real_models),
        cmocka_unit_test(real_shards),      cmocka_unit_test(many_tensors),
    };
    return mft_run(tests);
}
