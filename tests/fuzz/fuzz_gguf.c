/* Any bytes as a GGUF file; if the first byte's top bit is set, as two shards cut at the middle.
 * Opening must end in a message or in a catalog whose every byte range lies inside its file, and
 * which can be described; its tokenizer opens or says why not. */
#include <string.h>

#include "fuzz_dir.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"m.gguf", "m-00001-of-00002.gguf", "m-00002-of-00002.gguf",
                                    NULL};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    fuzz_dir_make(names);
    return 0;
}

static void check_catalog(const mfi_catalog *catalog)
{
    fuzz_check_catalog(catalog);
    fuzz_check(mfi_json_typeof(mfi_catalog_meta(catalog)) == MFI_JSON_OBJECT);
    const char *key;
    for (size_t i = 0; i < mfi_json_len(mfi_catalog_meta(catalog)); i++) {
        mfi_meta_array array;
        mfi_json_member(mfi_catalog_meta(catalog), i, &key);
        if (mfi_catalog_meta_array(catalog, key, &array))
            fuzz_check(array.offset <= mfi_catalog_file(catalog, 0)->size);
    }
}

static bool swallow(void *user, const char *bytes, size_t len)
{
    (void)bytes;
    *(size_t *)user += len;
    return true;
}

/* What stands above the catalog: a description for every file, a tokenizer or a message. */
static void check_uses(const char *path)
{
    size_t n = 0;
    mf_error err = {0};
    fuzz_check(mf_inspect_write(path, true, swallow, &n, &err) == MF_OK && n > 0);
    mf_tokenizer *tokenizer = NULL;
    if (mf_tokenizer_open(&tokenizer, path, &err) != MF_OK) {
        fuzz_check(!tokenizer && err.message[0]);
        return;
    }
    int32_t *ids;
    size_t n_ids;
    if (mf_tokenizer_encode(tokenizer, "ab <e>a", 7, true, &ids, &n_ids, &err) == MF_OK) {
        for (size_t i = 0; i < n_ids; i++)
            fuzz_check(ids[i] >= 0 && ids[i] < mf_tokenizer_n_vocab(tokenizer));
        mf_free(ids);
    }
    mf_tokenizer_close(&tokenizer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    bool two = data[0] & 0x80;
    data++;
    size--;
    if (two) {
        fuzz_put(names[1], data, size / 2);
        fuzz_put(names[2], data + size / 2, size - size / 2);
    } else {
        fuzz_put(names[0], data, size);
    }
    char path[128];
    fuzz_path(path, names[two]);
    mfi_catalog *catalog = NULL;
    mf_error err = {0};
    mf_status status = mfi_format_open(&catalog, path, &err);
    if (status == MF_OK) {
        check_catalog(catalog);
        mfi_catalog_close(&catalog);
        check_uses(path);
    } else {
        fuzz_check(!catalog && err.message[0] && err.status == status);
    }
    return 0;
}
