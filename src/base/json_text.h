/* Inside a JSON string that is known to be well-formed: one decoding step, shared by the scanner
 * (keys), the reader and the cursor; the hex digits are for others as well. */
#ifndef MFI_BASE_JSON_TEXT_H
#define MFI_BASE_JSON_TEXT_H

#include <string.h>

#include "base/defs.h"
#include "base/utf8.h"

static inline int mfi_json_hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Four hex digits, or -1. */
static inline int mfi_json_hex4(const char *p)
{
    int v = 0;
    for (int i = 0; i < 4; i++) {
        int d = mfi_json_hex_digit(p[i]);
        if (d < 0)
            return -1;
        v = v * 16 + d;
    }
    return v;
}

/* Decodes the byte or the escape at *p into out, moves *p behind it and returns the bytes written.
 */
static inline size_t mfi_json_unescape(const char **p, char out[4])
{
    const char *s = *p;
    if (s[0] != '\\') {
        out[0] = s[0];
        *p = s + 1;
        return 1;
    }
    *p = s + 2;
    switch (s[1]) {
    case 'b':
        out[0] = '\b';
        return 1;
    case 'f':
        out[0] = '\f';
        return 1;
    case 'n':
        out[0] = '\n';
        return 1;
    case 'r':
        out[0] = '\r';
        return 1;
    case 't':
        out[0] = '\t';
        return 1;
    case 'u':
        break;
    default: /* quote, backslash, slash */
        out[0] = s[1];
        return 1;
    }
    uint32_t cp = (uint32_t)mfi_json_hex4(s + 2);
    *p = s + 6;
    if (cp >= 0xd800 && cp < 0xdc00) { /* the low half follows, the scanner saw to that */
        uint32_t low = (uint32_t)mfi_json_hex4(s + 8);
        cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
        *p = s + 12;
    }
    return mfi_utf8_encode(cp, out);
}

#endif
