/* Any bytes as a GGUF file; if the first byte's top bit is set, as two shards cut at the middle.
 * Opening must end in a message or in a catalog whose every byte range lies inside its file, and
 * which can be described; its tokenizer opens or says why not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "format/format.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[] = "/dev/shm/moeflux-fuzz-XXXXXX";

static const char *const names[] = {"m.gguf", "m-00001-of-00002.gguf", "m-00002-of-00002.gguf"};

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void path_of(char *path, size_t cap, const char *name)
{
    snprintf(path, cap, "%s/%s", dir, name);
}

static void put(const char *name, const void *bytes, size_t len)
{
    char path[128];
    path_of(path, sizeof path, name);
    FILE *f = fopen(path, "wb");
    check(f && fwrite(bytes, 1, len, f) == len && fclose(f) == 0);
}

static void take(const char *name)
{
    char path[128];
    path_of(path, sizeof path, name);
    unlink(path);
}

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
    check(n > 0 && mfi_json_typeof(mfi_catalog_meta(catalog)) == MFI_JSON_OBJECT);
    for (uint32_t id = 0; id < n; id++) {
        const mfi_tensor *t = mfi_catalog_tensor(catalog, id);
        check(mfi_catalog_find(catalog, mfi_catalog_name(catalog, id)) == id);
        check(t->n_dims <= MFI_MAX_DIMS);
        check(mfi_quant_cols_ok(t->type, mfi_tensor_cols(t)));
        mfi_extent e = mfi_tensor_extent(t, 0, 0, mfi_tensor_rows(t));
        check(e.len == mfi_tensor_bytes(t, 0));
        uint64_t size = mfi_catalog_file(catalog, e.file)->size;
        check(e.offset <= size && e.len <= size - e.offset);
    }
    const char *key;
    for (size_t i = 0; i < mfi_json_len(mfi_catalog_meta(catalog)); i++) {
        mfi_meta_array array;
        mfi_json_member(mfi_catalog_meta(catalog), i, &key);
        if (mfi_catalog_meta_array(catalog, key, &array))
            check(array.offset <= mfi_catalog_file(catalog, 0)->size);
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
    check(mf_inspect_write(path, true, swallow, &n, &err) == MF_OK && n > 0);
    mf_tokenizer *tokenizer = NULL;
    if (mf_tokenizer_open(&tokenizer, path, &err) != MF_OK) {
        check(!tokenizer && err.message[0]);
        return;
    }
    int32_t *ids;
    size_t n_ids;
    if (mf_tokenizer_encode(tokenizer, "ab <e>a", 7, true, &ids, &n_ids, &err) == MF_OK) {
        for (size_t i = 0; i < n_ids; i++)
            check(ids[i] >= 0 && ids[i] < mf_tokenizer_n_vocab(tokenizer));
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
        put(names[1], data, size / 2);
        put(names[2], data + size / 2, size - size / 2);
    } else {
        put(names[0], data, size);
    }
    char path[128];
    path_of(path, sizeof path, names[two]);
    mfi_catalog *catalog = NULL;
    mf_error err = {0};
    mf_status status = mfi_format_open(&catalog, path, &err);
    if (status == MF_OK) {
        check_catalog(catalog);
        mfi_catalog_close(&catalog);
        check_uses(path);
    } else {
        check(!catalog && err.message[0] && err.status == status);
    }
    return 0;
}
