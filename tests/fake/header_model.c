/* Models without weights; see header_model.h. Every tensor counts as lying at the start of its
 * config.json, which nobody reads weights from. */
#include "fake/header_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake/support.h"
#include "format/catalog_build.h"

struct mft_headers {
    mfi_catalog *catalog;
};

/* A file of that text, in static storage. */
static const char *write_text(const char *dir, const char *text)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0 && fclose(f) == 0);
    return path;
}

mft_headers *mft_headers_new(const char *config)
{
    mf_error err;
    uint32_t file;
    mft_headers *h = calloc(1, sizeof *h);
    const char *dir = mft_tmpdir(), *path = write_text(dir, config);
    mft_ok(mfi_catalog_new(&h->catalog, dir, &err), &err);
    mft_ok(mfi_catalog_add_file(h->catalog, path, &file, &err), &err);
    return h;
}

mft_headers *mft_headers_new_gguf(const char *meta)
{
    mf_error err;
    uint32_t file;
    mfi_json *tree = NULL;
    mft_headers *h = calloc(1, sizeof *h);
    mft_ok(mfi_catalog_new_bare(&h->catalog, "made-up.gguf", &err), &err);
    mft_ok(mfi_catalog_add_file(h->catalog, write_text(mft_tmpdir(), meta), &file, &err), &err);
    mft_ok(mfi_json_parse(meta, strlen(meta), "metadata", &tree, &err), &err);
    mfi_catalog_set_meta(h->catalog, tree);
    return h;
}

void mft_headers_free(mft_headers *h)
{
    mfi_catalog_close(&h->catalog);
    free(h);
}

void mft_headers_add(mft_headers *h, mfi_qtype type, uint32_t d0, uint32_t d1, uint32_t d2,
                     const char *format, ...)
{
    mf_error err;
    char name[256];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    mfi_tensor t = {.type = type, .dims = {d0, d1, d2}, .n_dims = d2 ? 3 : d1 ? 2 : 1};
    mft_ok(mfi_catalog_add(h->catalog, &t, MFI_DTYPE_FLOAT, name, strlen(name), &err), &err);
}

const mfi_catalog *mft_headers_catalog(const mft_headers *h)
{
    return h->catalog;
}
