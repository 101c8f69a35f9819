/* MLX's affine quantisation decoded by its definition: code times scale plus bias, codes in 32-bit
 * words from their low bits up. Shares no code with the engine's. Called by tests. */
#include "fake/decoded_mlx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake/model_files.h"
#include "fake/support.h"
#include "fake/tensors.h"

#define N_MAX 512

typedef struct twin {
    mft_tensors from;
    mft_tensor to[N_MAX];
    size_t n;
} twin;

static const char *kept(const char *text)
{
    char *copy = strdup(text);
    assert_non_null(copy);
    return copy;
}

static const mfi_json *entry_of(const twin *t, const char *name, const char **data)
{
    int64_t at = -1;
    const mfi_json *entry = mfi_json_get(t->from.header, name);
    assert_true(mfi_json_i64(mfi_json_at(mfi_json_get(entry, "data_offsets"), 0), &at));
    *data = t->from.data + at;
    return entry;
}

static float bf16(const char *data, size_t i)
{
    uint16_t half;
    memcpy(&half, data + 2 * i, 2);
    uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* The planes beside x.weight. */
static const char *plane(const twin *t, const char *name, const char *which)
{
    char other[160];
    const char *data;
    snprintf(other, sizeof other, "%.*s%s", (int)(strlen(name) - strlen("weight")), name, which);
    entry_of(t, other, &data);
    return data;
}

static float *decode(const twin *t, const char *name, bool quantised, const char *data, size_t n)
{
    float *x = malloc(n * sizeof *x);
    assert_non_null(x);
    const char *scales = quantised ? plane(t, name, "scales") : NULL;
    const char *biases = quantised ? plane(t, name, "biases") : NULL;
    for (size_t i = 0; i < n; i++) {
        uint32_t word;
        if (!quantised) {
            x[i] = bf16(data, i);
            continue;
        }
        memcpy(&word, data + 4 * (i / 8), 4);
        x[i] = (float)(word >> 4 * (i % 8) & 15) * bf16(scales, i / 32) + bf16(biases, i / 32);
    }
    return x;
}

static void add(twin *t, const char *name, int n_dims, const uint64_t *dims, const float *data)
{
    assert_true(t->n < N_MAX);
    t->to[t->n++] =
        (mft_tensor){kept(name), "F32", n_dims, {dims[0], n_dims > 1 ? dims[1] : 0}, data};
}

static void add_tensor(twin *t, const char *name, const mfi_json *entry)
{
    const char *data, *dtype = mfi_json_str(mfi_json_get(entry, "dtype"), NULL);
    const mfi_json *shape = mfi_json_get(entry, "shape");
    int n_dims = (int)mfi_json_len(shape);
    uint64_t dims[3] = {1, 1, 1}, n = 1;
    bool quantised = strcmp(dtype, "U32") == 0;
    for (int i = 0; i < n_dims && i < 3; i++) {
        int64_t d = 0;
        assert_true(mfi_json_i64(mfi_json_at(shape, (size_t)i), &d));
        dims[i] = (uint64_t)d * (quantised && i + 1 == n_dims ? 8 : 1);
        n *= dims[i];
    }
    entry_of(t, name, &data);
    float *x = decode(t, name, quantised, data, n);
    const char *stack = strstr(name, "switch_mlp.");
    if (!stack) {
        add(t, name, n_dims, dims, x);
        return;
    }
    assert_int_equal(n_dims, 3);
    for (uint64_t e = 0; e < dims[0]; e++) {
        char one[160];
        snprintf(one, sizeof one, "%.*sexperts.%u.%s", (int)(stack - name), name, (unsigned)e,
                 stack + strlen("switch_mlp."));
        add(t, one, 2, dims + 1, x + e * dims[1] * dims[2]);
    }
}

/* The configuration without what it says of quantisation. */
static void write_config(const char *folder, const char *dir)
{
    char from[1024];
    size_t len;
    snprintf(from, sizeof from, "%s/config.json", folder);
    char *text = (char *)mft_read(from, &len), *at, *end;
    text[len] = 0; /* there is room */
    at = strstr(text, "\"quantization\"");
    assert_non_null(at);
    end = strchr(at, '}');
    assert_non_null(end);
    end = strchr(end, ',');
    assert_non_null(end);
    memmove(at, end + 1, len - (size_t)(end + 1 - text));
    mft_write(dir, "config.json", text, len - (size_t)(end + 1 - at));
    free(text);
}

const char *mft_decode_mlx(const char *folder)
{
    static twin t; /* what is written stays until the program ends */
    char path[1024], link[1024];
    const char *dir = mft_folder(), *name;
    t = (twin){0};
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    mft_tensors_open(&t.from, path);
    for (size_t i = 0; i < mfi_json_len(t.from.header); i++) {
        const mfi_json *entry = mfi_json_member(t.from.header, i, &name);
        size_t len = strlen(name);
        bool beside = len > 7 && (strcmp(name + len - 7, ".scales") == 0 ||
                                  strcmp(name + len - 7, ".biases") == 0);
        if (strcmp(name, "__metadata__") != 0 && !beside)
            add_tensor(&t, name, entry);
    }
    mft_write_tensors(dir, "model.safetensors", t.to, t.n);
    mft_tensors_close(&t.from);
    write_config(folder, dir);
    snprintf(path, sizeof path, "%s/expected.safetensors", folder);
    snprintf(link, sizeof link, "%s/expected.safetensors", dir);
    assert_int_equal(symlink(path, link), 0);
    return dir;
}
