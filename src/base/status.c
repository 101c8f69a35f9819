/* Status names and messages. Called from anywhere, on any thread; allocates nothing. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

const char *mf_status_name(mf_status status)
{
    switch (status) {
#define MF_STATUS_NAME(name, value, text)                                                          \
    case MF_##name:                                                                                \
        return "MF_" #name;
        MF_STATUS_LIST(MF_STATUS_NAME)
#undef MF_STATUS_NAME
    }
    return "MF_ERR_?";
}

const char *mf_status_text(mf_status status)
{
    switch (status) {
#define MF_STATUS_TEXT(name, value, text)                                                          \
    case MF_##name:                                                                                \
        return text;
        MF_STATUS_LIST(MF_STATUS_TEXT)
#undef MF_STATUS_TEXT
    }
    return "?";
}

mf_status mfi_fail(mf_error *err, mf_status status, const char *fmt, ...)
{
    if (err) {
        /* Formatted aside, since an argument may be err->message itself. */
        char message[MF_ERROR_MESSAGE_BYTES];
        va_list args;
        va_start(args, fmt);
        vsnprintf(message, sizeof message, fmt, args);
        va_end(args);
        err->status = status;
        for (size_t i = 0; i < sizeof message; i++) {
            /* One line: names come out of foreign files. */
            unsigned char c = (unsigned char)message[i];
            err->message[i] = (char)(c != 0 && (c < 0x20 || c == 0x7f) ? '?' : c);
            if (c == 0)
                break;
        }
    }
    return status;
}

void mfi_assert_failed(const char *file, int line, const char *cond)
{
    fprintf(stderr, "moeflux: internal error at %s:%d: %s\n", file, line, cond);
    abort();
}
