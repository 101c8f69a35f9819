/* What a model's files hold; see stored.h. */
#include "fake/stored.h"
#include "fake/support.h"

#include <stdlib.h>

mfi_catalog *mft_catalog_open(const char *path)
{
    mf_error err;
    mfi_catalog *c = NULL;
    mft_ok(mfi_format_open(&c, path, &err), &err);
    return c;
}

unsigned char *mft_read_plane(const mfi_catalog *c, const mfi_tensor *t, uint32_t plane)
{
    mf_error err;
    mfi_extent e = mfi_tensor_extent(t, plane, 0, mfi_tensor_rows(t));
    unsigned char *data = malloc(e.len + 1);
    assert_non_null(data);
    mft_ok(mfi_file_read(mfi_catalog_file(c, e.file), data, e.len, e.offset, &err), &err);
    return data;
}
