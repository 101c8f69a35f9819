/* Small model folders for tests: safetensors files and JSON beside them, written byte by byte
 * without the engine's own code. */
#ifndef MFT_MODEL_FILES_H
#define MFT_MODEL_FILES_H

#include "base/buf.h"

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

/* A path below mft_tmpdir() where nothing is yet; in static storage until 64 more were asked for.
 */
const char *mft_fresh(const char *ending);
/* Entries of a folder, hidden ones aside. */
size_t mft_n_entries(const char *dir);

void mft_write(const char *dir, const char *name, const void *bytes, size_t len);
/* Releases the buffer. */
void mft_write_buf(const char *dir, const char *name, mfi_buf *bytes);
void mft_write_str(const char *dir, const char *name, const char *text);
/* A safetensors file from a header's text and n_data bytes of zeros. */
void mft_write_header(const char *dir, const char *name, const char *header, size_t n_data);
void mft_write_tensors(const char *dir, const char *name, const mft_tensor *tensors, size_t n);
/* The whole file in memory; release with free. */
unsigned char *mft_read(const char *path, size_t *len);
void mft_same_file(const char *path_a, const char *path_b);

/* Tensors of a model in the making; change them before they are written. */
typedef struct mft_tensor_list {
    mft_tensor list[1024];
    char names[1024][96];
    size_t n;
} mft_tensor_list;

/* The next one, of this name and type. */
mft_tensor *mft_add_tensor(mft_tensor_list *tensors, const char *name, const char *dtype);
/* Their data as well. */
void mft_free_tensors(mft_tensor_list *tensors);
/* "model.layers.N." and what follows; in static storage until the next call. */
const char *mft_in_layer(uint32_t layer, const char *name, ...)
    __attribute__((format(printf, 2, 3)));

#endif
