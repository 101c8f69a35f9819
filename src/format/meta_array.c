/* Streaming GGUF metadata arrays; see meta_array.h. The lengths were walked when the file was
 * opened, but the file may have changed since, so they are checked again. */
#include "format/meta_array.h"

#include <stdlib.h>

#include "format/gguf_read.h"

struct mfi_meta_cursor {
    mfi_gguf_reader reader;
    mfi_meta_array array;
    uint64_t next;
    mfi_buf text;
};

static bool is_float(uint32_t type)
{
    return type == MFI_GGUF_FLOAT32 || type == MFI_GGUF_FLOAT64;
}

static bool is_integer(uint32_t type)
{
    return mfi_gguf_type_bytes(type) > 0 && !is_float(type);
}

mf_status mfi_meta_cursor_open(mfi_meta_cursor **cursor, const mfi_catalog *catalog,
                               const char *key, mfi_meta_kind kind, mf_error *err)
{
    mfi_meta_array array;
    if (!mfi_catalog_meta_array(catalog, key, &array))
        return mfi_fail(err, MF_ERR_FORMAT, "%s: its metadata has no array %s",
                        mfi_catalog_path(catalog), key);
    bool fits = kind == MFI_META_STRINGS    ? array.type == MFI_GGUF_STRING
                : kind == MFI_META_INTEGERS ? is_integer(array.type)
                                            : is_float(array.type);
    if (!fits)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: %s is an array of %s", mfi_catalog_path(catalog),
                        key, mfi_gguf_type_name(array.type));
    mfi_meta_cursor *c = malloc(sizeof *c);
    if (!c)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", mfi_catalog_path(catalog));
    c->reader.file = mfi_catalog_file(catalog, 0);
    c->reader.buf_at = 0;
    c->reader.n_buf = 0;
    c->array = array;
    c->text = (mfi_buf){0};
    mfi_meta_cursor_rewind(c);
    *cursor = c;
    return MF_OK;
}

void mfi_meta_cursor_close(mfi_meta_cursor **cursor)
{
    if (!*cursor)
        return;
    mfi_buf_free(&(*cursor)->text);
    free(*cursor);
    *cursor = NULL;
}

uint64_t mfi_meta_cursor_n(const mfi_meta_cursor *cursor)
{
    return cursor->array.n;
}

void mfi_meta_cursor_rewind(mfi_meta_cursor *cursor)
{
    cursor->reader.at = cursor->array.offset;
    cursor->next = 0;
}

mf_status mfi_meta_next_str(mfi_meta_cursor *cursor, const char **text, size_t *len, mf_error *err)
{
    MFI_ASSERT(cursor->next < cursor->array.n && cursor->array.type == MFI_GGUF_STRING);
    cursor->reader.err = err;
    MFI_TRY(mfi_gguf_str(&cursor->reader, MFI_MAX_GGUF_META_BYTES, &cursor->text));
    cursor->next++;
    *text = cursor->text.data;
    *len = cursor->text.len;
    return MF_OK;
}

mf_status mfi_meta_next_i64(mfi_meta_cursor *cursor, int64_t *v, mf_error *err)
{
    MFI_ASSERT(cursor->next < cursor->array.n && is_integer(cursor->array.type));
    cursor->reader.err = err;
    mfi_gguf_number number;
    MFI_TRY(mfi_gguf_take_number(&cursor->reader, cursor->array.type, &number));
    cursor->next++;
    *v = number.i; /* an uint64 over INT64_MAX becomes negative: no count or id is */
    return MF_OK;
}

mf_status mfi_meta_next_f64(mfi_meta_cursor *cursor, double *v, mf_error *err)
{
    MFI_ASSERT(cursor->next < cursor->array.n && is_float(cursor->array.type));
    cursor->reader.err = err;
    mfi_gguf_number number;
    MFI_TRY(mfi_gguf_take_number(&cursor->reader, cursor->array.type, &number));
    cursor->next++;
    *v = number.f;
    return MF_OK;
}
