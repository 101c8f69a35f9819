/* A folder in memory with a few files that are written anew for every input; for fuzz targets whose
 * subject opens files by name. */
#ifndef MFT_FUZZ_DIR_H
#define MFT_FUZZ_DIR_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "format/format.h"

static char fuzz_dir[] = "/dev/shm/moeflux-fuzz-XXXXXX";

static inline void fuzz_check(bool ok)
{
    if (!ok)
        abort();
}

static inline void fuzz_path(char path[128], const char *name)
{
    snprintf(path, 128, "%s/%s", fuzz_dir, name);
}

static inline void fuzz_put(const char *name, const void *bytes, size_t len)
{
    char path[128];
    fuzz_path(path, name);
    FILE *f = fopen(path, "wb");
    fuzz_check(f && fwrite(bytes, 1, len, f) == len && fclose(f) == 0);
}

static inline void fuzz_take(const char *name)
{
    char path[128];
    fuzz_path(path, name);
    unlink(path);
}

static const char *const *fuzz_names;

static inline void fuzz_clean_up(void)
{
    for (const char *const *name = fuzz_names; *name; name++)
        fuzz_take(*name);
    rmdir(fuzz_dir);
}

/* Makes the folder; at the end it goes, with the files of these names (NULL behind the last). */
static inline void fuzz_dir_make(const char *const *names)
{
    fuzz_names = names;
    fuzz_check(mkdtemp(fuzz_dir) != NULL);
    atexit(fuzz_clean_up);
}

/* What holds for every tensor of a catalog that opened: every byte range lies inside its file. */
static inline void fuzz_check_catalog(const mfi_catalog *catalog)
{
    uint32_t n = mfi_catalog_n_tensors(catalog);
    fuzz_check(n > 0);
    for (uint32_t id = 0; id < n; id++) {
        const mfi_tensor *t = mfi_catalog_tensor(catalog, id);
        fuzz_check(mfi_catalog_find(catalog, mfi_catalog_name(catalog, id)) == id);
        fuzz_check(t->n_dims <= MFI_MAX_DIMS);
        fuzz_check(mfi_quant_cols_ok(t->type, mfi_tensor_cols(t)));
        uint64_t rows = mfi_tensor_rows(t), step = rows ? mfi_tensor_run(t, 0) : 1;
        for (uint32_t plane = 0; plane < mfi_quant_n_planes(t->type); plane++) {
            uint64_t size = mfi_catalog_file(catalog, t->file[plane])->size;
            const uint64_t firsts[] = {0, rows ? rows - step : 0};
            for (int i = 0; i < 2; i++) {
                uint64_t n_rows = MFI_MIN(step, rows - firsts[i]);
                mfi_extent e = mfi_tensor_extent(t, plane, firsts[i], n_rows);
                fuzz_check(n_rows < rows || e.len == mfi_tensor_bytes(t, plane));
                fuzz_check(e.offset <= size && e.len <= size - e.offset);
            }
        }
    }
}

#endif
