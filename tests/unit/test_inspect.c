/* Reading single tensors and describing models, through the public functions. */
#include "fake/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/rng.h"
#include "fake/gguf_files.h"
#include "fake/model_files.h"

static bool collect(void *user, const char *bytes, size_t len)
{
    assert_true(len <= 256 * 1024);
    mfi_buf_append(user, bytes, len);
    return true;
}

static bool refuse(void *user, const char *bytes, size_t len)
{
    (void)user, (void)bytes, (void)len;
    return false;
}

static mfi_buf read_tensor(const char *path, const char *name)
{
    mfi_buf out = {0};
    mf_error err;
    mft_ok(mf_tensor_read_f32(path, name, 2, collect, &out, NULL, &err), &err);
    return out;
}

static void expect(const char *path, const char *name, const void *want, size_t len)
{
    mfi_buf out = read_tensor(path, name);
    if (out.len != len || (len && memcmp(out.data, want, len) != 0))
        fail_msg("%s: %s differs (%zu bytes, wanted %zu)", path, name, out.len, len);
    mfi_buf_free(&out);
}

/* ---- every type of the oracle, through a file ---- */

static void quants(void **state)
{
    (void)state;
    const char *index_path = mft_oracle("gguf/quants/index.json");
    if (!index_path)
        mft_skip("no oracle");
    mfi_json *index = NULL;
    mf_error err;
    mft_ok(mfi_json_parse_file(index_path, 1 << 20, &index, &err), &err);
    const char *dir = mft_folder();
    mft_gguf g = {0};
    size_t n_types = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < mfi_json_len(index); i++) {
            const mfi_json *t = mfi_json_at(index, i);
            const char *key = mfi_json_str(mfi_json_get(t, "type"), NULL);
            int64_t number, n_elements;
            assert_non_null(key);
            assert_true(mfi_json_i64(mfi_json_get(t, "ggml_type"), &number));
            assert_true(mfi_json_i64(mfi_json_get(t, "elements"), &n_elements));
            char file[128];
            snprintf(file, sizeof file, "gguf/quants/%s.%s", key, pass ? "f32" : "bin");
            size_t len;
            unsigned char *bytes = mft_read(mft_oracle(file), &len);
            uint64_t dims[] = {(uint64_t)n_elements};
            if (pass)
                expect(dir, key, bytes, len);
            else
                mft_gguf_tensor(&g, key, (uint32_t)number, 1, dims, bytes, len);
            n_types += (size_t)pass;
            free(bytes);
        }
        if (!pass)
            mft_gguf_write(&g, dir, "q.gguf");
    }
    assert_int_equal(n_types, 27);
    mfi_json_free(&index);
}

/* ---- pieces ---- */

/* Rows shorter and longer than a piece; q8_0, whose blocks are easily made: value = d * q. */
static void pieces(void **state)
{
    (void)state;
    static const uint64_t shapes[][2] = {{32, 1}, {32, 5000}, {65536, 3}, {65568, 2}, {200000, 1}};
    for (size_t i = 0; i < MFI_ARRAY_LEN(shapes); i++) {
        uint64_t n = shapes[i][0] * shapes[i][1];
        unsigned char *blocks = malloc(n / 32 * 34);
        float *want = malloc(n * sizeof *want);
        assert_true(blocks && want);
        mfi_rng rng = {i};
        for (uint64_t at = 0; at < n; at++) {
            unsigned char *block = blocks + at / 32 * 34;
            block[0] = 0;
            block[1] = 0x38; /* 0.5 as float16 */
            block[2 + at % 32] = (unsigned char)mfi_rng_next(&rng);
            want[at] = 0.5f * (float)(int8_t)block[2 + at % 32];
        }
        const char *dir = mft_folder();
        mft_gguf g = {0};
        mft_gguf_tensor(&g, "w", 8, 2, shapes[i], blocks, n / 32 * 34);
        mft_gguf_tensor(&g, "f", 0, 2, shapes[i], want, n * sizeof *want);
        mft_gguf_write(&g, dir, "x.gguf");
        expect(dir, "w", want, n * sizeof *want);
        expect(dir, "f", want, n * sizeof *want);
        unlink(mft_path(dir, "x.gguf"));
        free(blocks);
        free(want);
    }
}

static void small_and_wrong(void **state)
{
    (void)state;
    const char *dir = mft_folder();
    mft_gguf g = {0};
    mft_gguf_tensor(&g, "scalar", 0, 0, NULL, "\0\0\x80\x3f", 4);
    mft_gguf_tensor(&g, "none", 0, 2, (uint64_t[]){4, 0}, "", 0);
    mft_gguf_tensor(&g, "ints", 26, 1, (uint64_t[]){4}, NULL, 16);
    mft_gguf_write(&g, dir, "x.gguf");
    expect(dir, "scalar", "\0\0\x80\x3f", 4);
    expect(dir, "none", "", 0);
    mf_error err;
    assert_int_equal(mf_tensor_read_f32(dir, "ints", 1, refuse, NULL, NULL, &err),
                     MF_ERR_UNSUPPORTED);
    assert_int_equal(mf_tensor_read_f32(dir, "other", 1, refuse, NULL, NULL, &err),
                     MF_ERR_TENSOR_MISSING);
    assert_non_null(strstr(err.message, "other"));
    assert_int_equal(mf_tensor_read_f32(dir, "scalar", 1, refuse, NULL, NULL, &err),
                     MF_ERR_CANCELLED);
    assert_int_equal(mf_tensor_read_f32(NULL, "scalar", 1, refuse, NULL, NULL, &err),
                     MF_ERR_ARGUMENT);
    assert_int_equal(mf_inspect_write(dir, true, refuse, NULL, &err), MF_ERR_CANCELLED);
    assert_int_equal(mf_inspect_write("/nowhere", true, refuse, NULL, &err), MF_ERR_FILE_MISSING);
}

/* An MLX triple whose values are exact in float32: 4 bits, groups of 32, float32 scales. */
static void mlx(void **state)
{
    (void)state;
    enum { ROWS = 3, COLS = 64 };
    uint32_t words[ROWS * COLS / 8] = {0};
    float scales[ROWS * 2], biases[ROWS * 2], want[ROWS * COLS];
    mfi_rng rng = {7};
    for (int i = 0; i < ROWS * 2; i++) {
        scales[i] = 0.25f * (float)(i + 1);
        biases[i] = -1.0f * (float)i;
    }
    for (int i = 0; i < ROWS * COLS; i++) {
        uint32_t q = (uint32_t)mfi_rng_below(&rng, 16);
        words[i / 8] |= q << i % 8 * 4;
        want[i] = (float)q * scales[i / 32] + biases[i / 32];
    }
    const char *dir = mft_folder();
    const mft_tensor tensors[] = {{"w.weight", "U32", 2, {ROWS, COLS / 8}, words},
                                  {"w.scales", "F32", 2, {ROWS, 2}, scales},
                                  {"w.biases", "F32", 2, {ROWS, 2}, biases},
                                  {"plain", "F32", 2, {ROWS, COLS}, want}};
    mft_write_tensors(dir, "model.safetensors", tensors, 4);
    mft_write_str(dir, "config.json",
                  "{\"model_type\":\"nobody's\",\"quantization\":"
                  "{\"bits\":4,\"group_size\":32}}");
    expect(dir, "w.weight", want, sizeof want);
    expect(dir, "plain", want, sizeof want);

    mfi_buf out = {0};
    mf_error err;
    mft_ok(mf_inspect_write(dir, true, collect, &out, &err), &err);
    mfi_json *root = NULL;
    mft_ok(mfi_json_parse(out.data, out.len, "inspect", &root, &err), &err);
    assert_int_equal(mfi_json_typeof(mfi_json_get(root, "family")), MFI_JSON_NULL);
    assert_non_null(strstr(mfi_json_str(mfi_json_get(root, "family_reason"), NULL), "nobody's"));
    assert_string_equal(mfi_json_str(mfi_json_get(root, "format"), NULL), "safetensors");
    assert_int_equal(mfi_json_len(mfi_json_get(root, "tensors")), 2);
    const mfi_json *w = mfi_json_at(mfi_json_get(root, "tensors"), 0);
    assert_string_equal(mfi_json_str(mfi_json_get(w, "name"), NULL), "w.weight");
    assert_int_equal(mfi_json_len(mfi_json_get(w, "planes")), 3);
    int64_t total;
    assert_true(mfi_json_i64(mfi_json_get(root, "total_bytes"), &total));
    assert_int_equal(total, sizeof words + sizeof scales + sizeof biases + sizeof want);
    mfi_json_free(&root);
    mfi_buf_free(&out);
}

/* ---- a known family ---- */

static int64_t number(const mfi_json *object, const char *key)
{
    int64_t v = -1;
    assert_true(mfi_json_i64(mfi_json_get(object, key), &v));
    return v;
}

/* What stands at the place that is told is the tensor. */
static void check_places(const mfi_json *root, const char *path)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    for (size_t i = 0; i < mfi_json_len(mfi_json_get(root, "tensors")); i++) {
        const mfi_json *t = mfi_json_at(mfi_json_get(root, "tensors"), i);
        if (strcmp(mfi_json_str(mfi_json_get(t, "type"), NULL), "f32") != 0)
            continue;
        const mfi_json *plane = mfi_json_at(mfi_json_get(t, "planes"), 0);
        size_t len = (size_t)number(plane, "bytes");
        char *bytes = malloc(len);
        assert_non_null(bytes);
        assert_int_equal(fseek(f, (long)number(plane, "offset"), SEEK_SET), 0);
        assert_int_equal(fread(bytes, 1, len, f), len);
        expect(path, mfi_json_str(mfi_json_get(t, "name"), NULL), bytes, len);
        free(bytes);
    }
    fclose(f);
}

static void known_family(void **state)
{
    (void)state;
    const char *path = mft_unpack("gguf/archs/qwen2moe.gguf", mft_folder());
    if (!path)
        mft_skip("no oracle or no xz");
    mfi_buf out = {0}, text = {0};
    mf_error err;
    mft_ok(mf_inspect_write(path, true, collect, &out, &err), &err);
    mfi_json *root = NULL;
    mft_ok(mfi_json_parse(out.data, out.len, "inspect", &root, &err), &err);
    assert_string_equal(mfi_json_str(mfi_json_get(root, "family"), NULL), "qwen2_moe");
    assert_non_null(strstr(mfi_json_str(mfi_json_get(root, "family_reason"), NULL), "qwen2moe"));
    assert_string_equal(
        mfi_json_str(mfi_json_get(mfi_json_get(root, "metadata"), "general.architecture"), NULL),
        "qwen2moe");
    const mfi_json *roles = mfi_json_get(root, "bytes_by_role");
    int64_t sum = 0;
    for (size_t i = 0; i < mfi_json_len(roles); i++) {
        const char *key;
        mfi_json_member(roles, i, &key);
        sum += number(roles, key);
    }
    assert_int_equal(sum, number(root, "total_bytes"));
    int64_t experts = 0, router = 0; /* by llama.cpp's names */
    for (size_t i = 0; i < mfi_json_len(mfi_json_get(root, "tensors")); i++) {
        const mfi_json *t = mfi_json_at(mfi_json_get(root, "tensors"), i);
        const char *name = mfi_json_str(mfi_json_get(t, "name"), NULL);
        if (strstr(name, "_exps.weight"))
            experts += number(t, "bytes");
        if (strstr(name, "ffn_gate_inp.weight"))
            router += number(t, "bytes");
    }
    assert_true(experts > 0 && router > 0);
    assert_int_equal(number(roles, "experts"), experts);
    assert_int_equal(number(roles, "router"), router);
    check_places(root, path);
    mfi_json_free(&root);
    mfi_buf_free(&out);
    mft_ok(mf_inspect_write(path, false, collect, &text, &err), &err);
    assert_non_null(strstr(text.data, "qwen2_moe"));
    assert_non_null(strstr(text.data, "blk.0.ffn_gate_exps.weight"));
    mfi_buf_free(&text);
}

/* GLM's tiny checkpoint with its last layer declared to be beyond the model: as checkpoints with
 * multi-token prediction have it. */
static void layers_left_alone(void **state)
{
    (void)state;
    const char *folder = mft_oracle("hf/glm4_moe");
    if (!folder)
        mft_skip("no oracle hf/glm4_moe");
    char config[4096], target[1024];
    const char *dir = mft_folder();
    size_t len;
    snprintf(target, sizeof target, "%s/config.json", folder);
    unsigned char *text = mft_read(target, &len);
    assert_true(len < sizeof config);
    memcpy(config, text, len);
    config[len] = 0;
    free(text);
    char *at = strstr(config, "\"num_hidden_layers\": 3");
    assert_non_null(at);
    at[strlen("\"num_hidden_layers\": ")] = '2';
    FILE *f = fopen(mft_path(dir, "config.json"), "w");
    assert_non_null(f);
    assert_true(fputs(config, f) >= 0 && fclose(f) == 0);
    snprintf(target, sizeof target, "%s/model.safetensors", folder);
    assert_int_equal(symlink(target, mft_path(dir, "model.safetensors")), 0);

    mfi_buf out = {0}, people = {0};
    mfi_json *root = NULL;
    mf_error err;
    mft_ok(mf_inspect_write(dir, true, collect, &out, &err), &err);
    mft_ok(mfi_json_parse(out.data, out.len, "inspect", &root, &err), &err);
    assert_int_equal(number(root, "mtp_layers"), 1);
    int64_t dense = 0, left = 0;
    for (size_t i = 0; i < mfi_json_len(mfi_json_get(root, "tensors")); i++) {
        const mfi_json *t = mfi_json_at(mfi_json_get(root, "tensors"), i);
        const char *name = mfi_json_str(mfi_json_get(t, "name"), NULL);
        const char *role = mfi_json_str(mfi_json_get(t, "role"), NULL);
        if (strstr(name, "layers.0.mlp.")) {
            assert_string_equal(role, "dense");
            dense += number(t, "bytes");
        }
        if (strstr(name, "layers.2.")) {
            assert_string_equal(role, "other");
            left += number(t, "bytes");
        }
    }
    assert_int_equal(dense, 3 * 128 * 256 * 2);
    assert_true(left > 0);
    assert_int_equal(number(mfi_json_get(root, "bytes_by_role"), "dense"), dense);
    mfi_json_free(&root);
    mft_ok(mf_inspect_write(dir, false, collect, &people, &err), &err);
    assert_non_null(strstr(people.data, "1 layer for multi-token prediction, from layer 2 on"));
    mfi_buf_free(&out);
    mfi_buf_free(&people);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quants),          cmocka_unit_test(pieces),
        cmocka_unit_test(small_and_wrong), cmocka_unit_test(mlx),
        cmocka_unit_test(known_family),    cmocka_unit_test(layers_left_alone),
    };
    return mft_run(tests);
}
