/* Any bytes as model.safetensors. The first byte picks config.json; with its top bit the file is
 * two shards cut at the middle, behind an index that names a tensor of each. Opening must end in a
 * message or in a catalog whose every byte range lies inside its file. */
#include <string.h>

#include "fuzz_dir.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define OVERRIDES "\"a\":{\"bits\":8},\"model.b\":{\"bits\":2},\"c\":false"

static const char *const configs[] = {
    "{}",
    "{\"quantization\":{\"group_size\":64,\"bits\":4}}",
    ("{\"quantization\":{\"group_size\":32,\"bits\":3," OVERRIDES "}}"),
    "{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[128,128]}}",
    "{\"quantization_config\":{\"quant_method\":\"mxfp4\"}}",
};

static const char *const names[] = {
    "config.json",   "model.safetensors", "model.safetensors.index.json",
    "a.safetensors", "b.safetensors",     NULL};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    fuzz_dir_make(names);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    bool two = data[0] & 0x80;
    const char *config = configs[(data[0] & 0x7f) % MFI_ARRAY_LEN(configs)];
    data++;
    size--;
    fuzz_put("config.json", config, strlen(config));
    if (two) {
        static const char index[] =
            "{\"weight_map\":{\"a.weight\":\"a.safetensors\",\"b.weight\":\"b.safetensors\"}}";
        fuzz_take("model.safetensors");
        fuzz_put("model.safetensors.index.json", index, sizeof index - 1);
        fuzz_put("a.safetensors", data, size / 2);
        fuzz_put("b.safetensors", data + size / 2, size - size / 2);
    } else {
        fuzz_put("model.safetensors", data, size);
    }
    mfi_catalog *catalog = NULL;
    mf_error err = {0};
    mf_status status = mfi_format_open(&catalog, fuzz_dir, &err);
    if (status == MF_OK) {
        fuzz_check_catalog(catalog);
        mfi_catalog_close(&catalog);
    } else {
        fuzz_check(!catalog && err.message[0] && err.status == status);
    }
    return 0;
}
