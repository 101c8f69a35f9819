/* Any bytes as model.safetensors. The first byte picks config.json; with its top bit the file is
 * two shards cut at the middle, behind an index that names a tensor of each. Opening must end in a
 * message or in a catalog whose every byte range lies inside its file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format/format.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[] = "/dev/shm/moeflux-fuzz-XXXXXX";

#define OVERRIDES "\"a\":{\"bits\":8},\"model.b\":{\"bits\":2},\"c\":false"

static const char *const configs[] = {
    "{}",
    "{\"quantization\":{\"group_size\":64,\"bits\":4}}",
    ("{\"quantization\":{\"group_size\":32,\"bits\":3," OVERRIDES "}}"),
    "{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[128,128]}}",
    "{\"quantization_config\":{\"quant_method\":\"mxfp4\"}}",
};

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void put(const char *name, const void *bytes, size_t len)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    check(f && fwrite(bytes, 1, len, f) == len && fclose(f) == 0);
}

static void take(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    unlink(path);
}

static const char *const names[] = {"config.json", "model.safetensors",
                                    "model.safetensors.index.json", "a.safetensors",
                                    "b.safetensors"};

static void clean_up(void)
{
    for (size_t i = 0; i < MFI_ARRAY_LEN(names); i++)
        take(names[i]);
    rmdir(dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    check(mkdtemp(dir) != NULL);
    atexit(clean_up);
    return 0;
}

static void check_catalog(const mfi_catalog *catalog)
{
    uint32_t n = mfi_catalog_n_tensors(catalog);
    check(n > 0);
    for (uint32_t id = 0; id < n; id++) {
        const mfi_tensor *t = mfi_catalog_tensor(catalog, id);
        check(mfi_catalog_find(catalog, mfi_catalog_name(catalog, id)) == id);
        check(t->n_dims <= MFI_MAX_DIMS);
        check(mfi_quant_cols_ok(t->type, mfi_tensor_cols(t)));
        for (uint32_t plane = 0; plane < mfi_quant_n_planes(t->type); plane++) {
            mfi_extent e = mfi_tensor_extent(t, plane, 0, mfi_tensor_rows(t));
            check(e.len == mfi_tensor_bytes(t, plane));
            uint64_t size = mfi_catalog_file(catalog, e.file)->size;
            check(e.offset <= size && e.len <= size - e.offset);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    bool two = data[0] & 0x80;
    const char *config = configs[(data[0] & 0x7f) % MFI_ARRAY_LEN(configs)];
    data++;
    size--;
    put("config.json", config, strlen(config));
    if (two) {
        static const char index[] =
            "{\"weight_map\":{\"a.weight\":\"a.safetensors\",\"b.weight\":\"b.safetensors\"}}";
        take("model.safetensors");
        put("model.safetensors.index.json", index, sizeof index - 1);
        put("a.safetensors", data, size / 2);
        put("b.safetensors", data + size / 2, size - size / 2);
    } else {
        put("model.safetensors", data, size);
    }
    mfi_catalog *catalog = NULL;
    mf_error err = {0};
    mf_status status = mfi_format_open(&catalog, dir, &err);
    if (status == MF_OK) {
        check_catalog(catalog);
        mfi_catalog_close(&catalog);
    } else {
        check(!catalog && err.message[0] && err.status == status);
    }
    return 0;
}
