/* Writing GGUF v3: metadata first, streamed; then the tensors' names, types and places; then their
 * bytes, in any order. The file appears whole or not at all.
 *
 *   mfi_gguf_out g;
 *   MFI_TRY(mfi_gguf_create(&g, path, err));
 *   mfi_gguf_key_str(&g, "general.architecture", "qwen3moe");        any number of keys; errors
 * stick mfi_gguf_array(&g, "tokenizer.ggml.tokens", MFI_GGUF_STRING, n); then n times
 * mfi_gguf_put_str status = mfi_gguf_layout(&g, tensors, n_tensors, err);        sets
 * tensors[i].offset status = mfi_gguf_write(&g, data, len, tensors[i].offset, err); status =
 * mfi_gguf_finish(&g, err); mfi_gguf_close(&g);                                           always;
 * removes what isn't finished
 */
#ifndef MFI_CONVERT_GGUF_WRITE_H
#define MFI_CONVERT_GGUF_WRITE_H

#include "base/limits.h"
#include "format/gguf_read.h" /* mfi_gguf_type */
#include "os/file.h"
#include "os/out.h"
#include "quant/quant.h"

#define MFI_GGUF_ALIGN          32 /* of the data; the format's default, so no key says so */
#define MFI_GGUF_NAME_BYTES_MAX 63 /* of a tensor; readers have room for no more */

typedef struct mfi_gguf_tensor {
    const char *name; /* must outlive layout only */
    mfi_qtype type;   /* F32, F16, BF16 or GGML */
    uint32_t n_dims;
    uint32_t dims[MFI_MAX_DIMS]; /* outermost first; the file has them the other way round */
    uint64_t offset;             /* from the start of the file: set by layout */
    uint64_t bytes;              /* set by layout */
} mfi_gguf_tensor;

typedef struct mfi_gguf_out {
    mfi_stage stage;
    mfi_out out;
    unsigned char *buffer; /* [BUFFER_BYTES] what isn't written yet, up to layout */
    size_t n_buffered;
    uint64_t at;             /* end of what was put */
    uint64_t n_keys, n_left; /* n_left: elements that the last array still wants */
    mfi_gguf_type element;   /* of that array */
    mf_status status;        /* of the first failure; nothing is put after it */
    mf_error error;
} mfi_gguf_out;

/* MF_ERR_ARGUMENT if `path` exists. On failure g is as after close. */
mf_status mfi_gguf_create(mfi_gguf_out *g, const char *path, mf_error *err);

/* One key each. Keys aren't checked for doubles. */
void mfi_gguf_key_u32(mfi_gguf_out *g, const char *key, uint32_t value);
void mfi_gguf_key_f32(mfi_gguf_out *g, const char *key, float value);
void mfi_gguf_key_bool(mfi_gguf_out *g, const char *key, bool value);
void mfi_gguf_key_str(mfi_gguf_out *g, const char *key, const char *value);
void mfi_gguf_key_strn(mfi_gguf_out *g, const char *key, const char *value, size_t len);
/* Starts an array; exactly n elements of that kind must be put before the next key. */
void mfi_gguf_array(mfi_gguf_out *g, const char *key, mfi_gguf_type element, uint64_t n);
void mfi_gguf_put_u32(mfi_gguf_out *g, uint32_t value);
void mfi_gguf_put_i32(mfi_gguf_out *g, int32_t value);
void mfi_gguf_put_f32(mfi_gguf_out *g, float value);
void mfi_gguf_put_str(mfi_gguf_out *g, const char *bytes, size_t len);

/* A key whose value, of that type, stands in another GGUF file: `len` bytes from `offset` on (of
 * arrays element type and count, too). */
mf_status mfi_gguf_key_copy(mfi_gguf_out *g, const char *key, mfi_gguf_type type,
                            const mfi_file *file, uint64_t offset, uint64_t len, mf_error *err);

/* Ends the metadata, writes the tensors' table, reserves the file's space and sets where each
 * tensor's bytes go: in the order given, each at a multiple of MFI_GGUF_ALIGN. Returns the first
 * failure of all that was put before. Names must differ: the caller sees to that. */
mf_status mfi_gguf_layout(mfi_gguf_out *g, mfi_gguf_tensor *tensors, uint32_t n, mf_error *err);
/* After layout: where the file stands before it has its name, with zeros for what isn't written
 * yet. NULL: no memory; release with free. */
char *mfi_gguf_staged_path(const mfi_gguf_out *g);
/* After layout; for bytes inside the tensors. */
mf_status mfi_gguf_write(mfi_gguf_out *g, const void *src, size_t len, uint64_t offset,
                         mf_error *err);
/* Flushes the file to the drive and gives it its name, unless something has taken that meanwhile.
 */
mf_status mfi_gguf_finish(mfi_gguf_out *g, mf_error *err);
void mfi_gguf_close(mfi_gguf_out *g);

/* The format's number of a type that GGUF can hold: F32 0, F16 1, BF16 30, GGML its own; -1 else.
 */
int mfi_gguf_type_number(mfi_qtype type);

#endif
