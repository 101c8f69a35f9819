/* Growing byte buffer; see buf.h. Used at open and on output paths only. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(mfi_buf *buf, size_t more)
{
    if (buf->failed)
        return false;
    size_t need = buf->len + more + 1;
    if (need < more) {
        buf->failed = true;
        return false;
    }
    if (need <= buf->cap)
        return true;
    size_t cap = buf->cap ? buf->cap : 256;
    while (cap < need)
        cap += cap / 2 + 1;
    char *data = realloc(buf->data, cap);
    if (!data) {
        buf->failed = true;
        return false;
    }
    buf->data = data;
    buf->cap = cap;
    return true;
}

void mfi_buf_append(mfi_buf *buf, const void *bytes, size_t len)
{
    if (!reserve(buf, len))
        return;
    if (len)
        memcpy(buf->data + buf->len, bytes, len);
    buf->len += len;
    buf->data[buf->len] = 0;
}

void mfi_buf_str(mfi_buf *buf, const char *str)
{
    mfi_buf_append(buf, str, strlen(str));
}

void mfi_buf_fmt(mfi_buf *buf, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n >= 0 && reserve(buf, (size_t)n)) {
        vsnprintf(buf->data + buf->len, (size_t)n + 1, fmt, again);
        buf->len += (size_t)n;
    } else {
        buf->failed = true;
    }
    va_end(again);
}

void mfi_buf_free(mfi_buf *buf)
{
    free(buf->data);
    *buf = (mfi_buf){0};
}
