/* A growing byte buffer for text that is assembled at open or on output paths, never in forward.
 * Errors are sticky: after a failed growth `failed` is set and appends do nothing. */
#ifndef MFI_BASE_BUF_H
#define MFI_BASE_BUF_H

#include "base/defs.h"

typedef struct mfi_buf {
    char *data; /* NUL-terminated once anything was appended; release with mfi_buf_free */
    size_t len, cap;
    bool failed;
} mfi_buf;

void mfi_buf_append(mfi_buf *buf, const void *bytes, size_t len);
void mfi_buf_str(mfi_buf *buf, const char *str);
void mfi_buf_fmt(mfi_buf *buf, const char *fmt, ...) MFI_PRINTF(2, 3);
void mfi_buf_free(mfi_buf *buf);

#endif
