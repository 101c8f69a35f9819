/* Any bytes as a pack's weights, beside a small config.json. The header's checksum is put right
 * first, if the first byte's top bit is clear: else nothing behind it would be looked at. Opening
 * must end in a message or in a catalog whose every byte range lies inside its file; checking the
 * contents must end in any case. */
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "format/pack.h"
#include "fuzz_dir.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {MFI_PACK_FILE, "config.json", NULL};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    fuzz_dir_make(names);
    fuzz_put("config.json", "{\"model_type\":\"qwen3_moe\"}", 26);
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
    fuzz_check(sum != NULL);
    mfi_checksum_add(sum, bytes, MFI_PACK_AT_CHECKSUM);
    mfi_checksum_add(sum, bytes + MFI_PACK_FIXED_BYTES, n - MFI_PACK_FIXED_BYTES);
    value = mfi_checksum_value(sum);
    memcpy(bytes + MFI_PACK_AT_CHECKSUM, &value, sizeof value);
    mfi_checksum_close(&sum);
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
    fuzz_check(bytes != NULL);
    memcpy(bytes, data + 1, size - 1);
    if (!(data[0] & 0x80))
        seal(bytes, size - 1);
    fuzz_put(MFI_PACK_FILE, bytes, size - 1);
    free(bytes);
    mfi_catalog *catalog = NULL;
    mf_error err = {0};
    mf_status status = mfi_format_open(&catalog, fuzz_dir, &err);
    if (status == MF_OK) {
        size_t n = 0;
        fuzz_check_catalog(catalog);
        mfi_catalog_close(&catalog);
        fuzz_check(mf_inspect_write(fuzz_dir, true, swallow, &n, &err) == MF_OK && n > 0);
    } else {
        fuzz_check(!catalog && err.message[0] && err.status == status);
    }
    status = mf_pack_verify(fuzz_dir, NULL, NULL, &err);
    fuzz_check(status == MF_OK || (err.message[0] && err.status == status));
    return 0;
}
