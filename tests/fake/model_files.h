/* Small model folders for tests: safetensors files and JSON beside them, written byte by byte
 * without the engine's own code. */
#ifndef MFT_MODEL_FILES_H
#define MFT_MODEL_FILES_H

#include <stddef.h>
#include <stdint.h>

typedef struct mft_tensor {
    const char *name, *dtype;
    int n_dims;
    uint64_t dims[6];
    const void *data; /* NULL: byte i is (7 * i + length of the name) mod 256 */
} mft_tensor;

/* A fresh folder below mft_tmpdir(); in static storage until four more were asked for. */
const char *mft_folder(void);
/* "dir/name" in static storage until eight more were asked for. */
const char *mft_path(const char *dir, const char *name);

void mft_write(const char *dir, const char *name, const void *bytes, size_t len);
void mft_write_str(const char *dir, const char *name, const char *text);
/* A safetensors file from a header's text and n_data bytes of zeros. */
void mft_write_header(const char *dir, const char *name, const char *header, size_t n_data);
void mft_write_tensors(const char *dir, const char *name, const mft_tensor *tensors, size_t n);
/* The whole file in memory; release with free. */
unsigned char *mft_read(const char *path, size_t *len);

#endif
