/* Any bytes as a pack's weights, beside a small config.json. The header's checksum is put right
 * first, if the first byte's top bit is clear: else nothing behind it would be looked at. Opening
 * must end in a message or in a catalog whose every byte range lies inside its file; checking the
 * contents must end in any case. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checksum.h"
#include "format/format.h"
#include "format/pack.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[] = "/dev/shm/moeflux-fuzz-XXXXXX";

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

static void clean_up(void)
{
    take(MFI_PACK_FILE);
    take("config.json");
    rmdir(dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    check(mkdtemp(dir) != NULL);
    put("config.json", "{\"model_type\":\"qwen3_moe\"}", 26);
    atexit(clean_up);
    return 0;
}

/* The file's size and the header's checksum as they should be. */
static void seal(uint8_t *bytes, size_t size)
{
    uint64_t n = 0, value = size;
    if (size < MFI_PACK_FIXED_BYTES)
        return;
    memcpy(&n, bytes + MFI_PACK_AT_HEADER_BYTES, sizeof n);
    if (n < MFI_PACK_FIXED_BYTES || n > size)
        return;
    memcpy(bytes + MFI_PACK_AT_FILE_BYTES, &value, sizeof value);
    mfi_checksum *sum = mfi_checksum_open();
    check(sum != NULL);
    mfi_checksum_add(sum, bytes, MFI_PACK_AT_CHECKSUM);
    mfi_checksum_add(sum, bytes + MFI_PACK_FIXED_BYTES, n - MFI_PACK_FIXED_BYTES);
    value = mfi_checksum_value(sum);
    memcpy(bytes + MFI_PACK_AT_CHECKSUM, &value, sizeof value);
    mfi_checksum_close(&sum);
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
        uint64_t rows = mfi_tensor_rows(t), step = rows ? mfi_tensor_run(t, 0) : 1;
        for (uint32_t plane = 0; plane < mfi_quant_n_planes(t->type); plane++) {
            uint64_t size = mfi_catalog_file(catalog, t->file[plane])->size;
            const uint64_t firsts[] = {0, rows ? rows - step : 0};
            for (int i = 0; i < 2; i++) {
                mfi_extent e =
                    mfi_tensor_extent(t, plane, firsts[i], MFI_MIN(step, rows - firsts[i]));
                check(e.offset <= size && e.len <= size - e.offset);
            }
        }
    }
}

static bool swallow(void *user, const char *bytes, size_t len)
{
    (void)bytes;
    *(size_t *)user += len;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    uint8_t *bytes = malloc(size);
    check(bytes != NULL);
    memcpy(bytes, data + 1, size - 1);
    if (!(data[0] & 0x80))
        seal(bytes, size - 1);
    put(MFI_PACK_FILE, bytes, size - 1);
    free(bytes);
    mfi_catalog *catalog = NULL;
    mf_error err = {0};
    mf_status status = mfi_format_open(&catalog, dir, &err);
    if (status == MF_OK) {
        size_t n = 0;
        check_catalog(catalog);
        mfi_catalog_close(&catalog);
        check(mf_inspect_write(dir, true, swallow, &n, &err) == MF_OK && n > 0);
    } else {
        check(!catalog && err.message[0] && err.status == status);
    }
    status = mf_pack_verify(dir, NULL, NULL, &err);
    check(status == MF_OK || (err.message[0] && err.status == status));
    return 0;
}
