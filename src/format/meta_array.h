/* Elements of GGUF metadata arrays, one after the other from the file: vocabularies have hundreds
 * of thousands, which nobody needs to hold twice. One thread a cursor; the catalog must outlive
 * it. */
#ifndef MFI_FORMAT_META_ARRAY_H
#define MFI_FORMAT_META_ARRAY_H

#include "format/catalog.h"

typedef struct mfi_meta_cursor mfi_meta_cursor;

typedef enum mfi_meta_kind { MFI_META_STRINGS, MFI_META_INTEGERS, MFI_META_FLOATS } mfi_meta_kind;

/* MF_ERR_FORMAT if there is no array of that key, or not one of what is asked for. */
mf_status mfi_meta_cursor_open(mfi_meta_cursor **cursor, const mfi_catalog *catalog,
                               const char *key, mfi_meta_kind kind, mf_error *err);
void mfi_meta_cursor_close(mfi_meta_cursor **cursor);
uint64_t mfi_meta_cursor_n(const mfi_meta_cursor *cursor);
/* Back to the first element. */
void mfi_meta_cursor_rewind(mfi_meta_cursor *cursor);
/* The next element, of n; the text (any bytes, NUL-terminated) is valid until the next call. */
mf_status mfi_meta_next_str(mfi_meta_cursor *cursor, const char **text, size_t *len, mf_error *err);
mf_status mfi_meta_next_i64(mfi_meta_cursor *cursor, int64_t *v, mf_error *err);
mf_status mfi_meta_next_f64(mfi_meta_cursor *cursor, double *v, mf_error *err);

#endif
