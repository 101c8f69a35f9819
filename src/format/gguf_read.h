/* Reading the header of a GGUF file or of a pack front to back, for format/ and the writers of
 * these files. Every failure names the file and
 * the byte offset at which what is wrong begins. */
#ifndef MFI_FORMAT_GGUF_READ_H
#define MFI_FORMAT_GGUF_READ_H

#include "base/buf.h"
#include "os/file.h"

/* Types of metadata values, as the file numbers them. */
typedef enum mfi_gguf_type {
    MFI_GGUF_UINT8,
    MFI_GGUF_INT8,
    MFI_GGUF_UINT16,
    MFI_GGUF_INT16,
    MFI_GGUF_UINT32,
    MFI_GGUF_INT32,
    MFI_GGUF_FLOAT32,
    MFI_GGUF_BOOL,
    MFI_GGUF_STRING,
    MFI_GGUF_ARRAY,
    MFI_GGUF_UINT64,
    MFI_GGUF_INT64,
    MFI_GGUF_FLOAT64,
    MFI_GGUF_N_TYPES
} mfi_gguf_type;

#define MFI_GGUF_BUFFER_BYTES 65536

typedef struct mfi_gguf_reader {
    const mfi_file *file;
    uint64_t at; /* offset of the next byte */
    mf_error *err;
    uint64_t buf_at; /* offset of buf[0] */
    uint32_t n_buf;
    uint8_t buf[MFI_GGUF_BUFFER_BYTES];
} mfi_gguf_reader;

/* A reader of the file from its first byte on. */
void mfi_gguf_reader_begin(mfi_gguf_reader *r, const mfi_file *file, mf_error *err);

/* Fails with "FILE: offset AT: ...". */
mf_status mfi_gguf_fail(const mfi_gguf_reader *r, mf_status status, uint64_t at, const char *fmt,
                        ...) MFI_PRINTF(4, 5);

static inline uint64_t mfi_gguf_left(const mfi_gguf_reader *r)
{
    return r->file->size - r->at;
}

/* A file that ends earlier is MF_ERR_FORMAT. */
mf_status mfi_gguf_take(mfi_gguf_reader *r, void *dst, size_t len);
mf_status mfi_gguf_skip(mfi_gguf_reader *r, uint64_t len);
mf_status mfi_gguf_u32(mfi_gguf_reader *r, uint32_t *v);
mf_status mfi_gguf_u64(mfi_gguf_reader *r, uint64_t *v);
/* A length and that many bytes, in place of what *out held; at most max. NUL-terminated. */
mf_status mfi_gguf_str(mfi_gguf_reader *r, uint64_t max, mfi_buf *out);
/* The same, but must be UTF-8 without NULs: a key or a name. */
mf_status mfi_gguf_name(mfi_gguf_reader *r, uint64_t max, mfi_buf *out);

/* Bytes of a value of fixed size; 0 for strings, arrays and unknown types. */
uint32_t mfi_gguf_type_bytes(uint32_t type);
const char *mfi_gguf_type_name(uint32_t type);

/* Where the metadata of a GGUF file ends (gguf.c). */
mf_status mfi_gguf_meta_end(const mfi_file *file, uint64_t *end, mf_error *err);

/* A value of fixed size: integers of either sign, floats and bools. */
typedef struct mfi_gguf_number {
    mfi_gguf_type type;
    union {
        uint64_t u; /* unsigned types and bool */
        int64_t i;  /* signed types */
        double f;
    };
} mfi_gguf_number;

mf_status mfi_gguf_take_number(mfi_gguf_reader *r, uint32_t type, mfi_gguf_number *v);

#endif
