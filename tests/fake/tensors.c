/* Expected values from safetensors files; see tensors.h. Fails the test on anything odd. */
#include "fake/tensors.h"

#include <stdlib.h>
#include <string.h>

#include "fake/support.h"
#include "os/file.h"

void mft_tensors_open(mft_tensors *t, const char *path)
{
    mf_error err;
    uint64_t header;
    char *file;
    size_t len;
    mft_ok(mfi_file_read_all(path, 64 * MFI_MIB, &file, &len, &err), &err);
    assert_true(len > 8);
    memcpy(&header, file, 8);
    assert_true(header <= len - 8);
    mft_ok(mfi_json_parse(file + 8, header, path, &t->header, &err), &err);
    t->len = len - 8 - header;
    t->data = malloc(t->len + 1);
    assert_non_null(t->data);
    memcpy(t->data, file + 8 + header, t->len);
    free(file);
}

void mft_tensors_close(mft_tensors *t)
{
    mfi_json_free(&t->header);
    free(t->data);
}

const void *mft_tensors_get(const mft_tensors *t, const char *name, const char *dtype, size_t *n)
{
    const mfi_json *entry = mfi_json_get(t->header, name);
    const char *type = mfi_json_str(mfi_json_get(entry, "dtype"), NULL);
    const mfi_json *offsets = mfi_json_get(entry, "data_offsets");
    int64_t begin, end;
    if (!type || strcmp(type, dtype) != 0)
        return NULL;
    assert_true(mfi_json_i64(mfi_json_at(offsets, 0), &begin));
    assert_true(mfi_json_i64(mfi_json_at(offsets, 1), &end));
    assert_true(begin >= 0 && begin <= end && (size_t)end <= t->len);
    *n = (size_t)(end - begin) / 4;
    return t->data + begin;
}
