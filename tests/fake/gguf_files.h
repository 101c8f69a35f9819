/* GGUF files for tests: written by hand from the format's description, so that nothing of the
 * reader is used, and the oracle's packed files. */
#ifndef MFT_GGUF_FILES_H
#define MFT_GGUF_FILES_H

#include "base/buf.h"

typedef struct mft_gguf {
    mfi_buf kv, infos, data;
    uint64_t n_kv, n_tensors;
    uint32_t version, alignment; /* 0: 3 and 32 */
} mft_gguf;

void mft_gguf_key(mft_gguf *g, const char *key, uint32_t type); /* its value follows in g->kv */
void mft_gguf_put(mfi_buf *buf, uint64_t v, int n_bytes);
void mft_gguf_put_str(mfi_buf *buf, const char *text, size_t len);
void mft_gguf_u32(mft_gguf *g, const char *key, uint32_t v);
void mft_gguf_i32(mft_gguf *g, const char *key, int32_t v);
void mft_gguf_u16(mft_gguf *g, const char *key, uint16_t v);
void mft_gguf_u64(mft_gguf *g, const char *key, uint64_t v);
void mft_gguf_f32(mft_gguf *g, const char *key, float v);
void mft_gguf_bool(mft_gguf *g, const char *key, bool v);
void mft_gguf_str(mft_gguf *g, const char *key, const char *v);
/* The head of an array; the caller puts n elements. */
void mft_gguf_array(mft_gguf *g, const char *key, uint32_t type, uint64_t n);
/* dims[0] is the innermost, as in the file. */
void mft_gguf_tensor(mft_gguf *g, const char *name, uint32_t type, int n_dims,
                     const uint64_t dims[], const void *data, size_t n_bytes);
/* Writes the file and releases what g holds. */
void mft_gguf_write(mft_gguf *g, const char *dir, const char *name);

/* Unpacks PATH.xz of the oracle ("gguf/models/x.gguf") to dir/<its name>; the path in static
 * storage, or NULL if there is no oracle or no xz. */
const char *mft_unpack(const char *path, const char *dir);

#endif
