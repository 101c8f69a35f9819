/* Decoding base64, for character maps and tiktoken's ranks. Pure; any thread. */
#include "text/base64.h"

static int digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool mfi_base64_decode(const char *text, size_t len, mfi_buf *out)
{
    if (len % 4 == 0)
        for (int i = 0; i < 2 && len && text[len - 1] == '='; i++)
            len--;
    if (len % 4 == 1)
        return false;
    for (size_t i = 0; i < len; i += 4) {
        size_t n = len - i < 4 ? len - i : 4;
        uint32_t v = 0;
        for (size_t k = 0; k < 4; k++) {
            int d = k < n ? digit(text[i + k]) : 0;
            if (d < 0)
                return false;
            v = v << 6 | (uint32_t)d;
        }
        char bytes[3] = {(char)(v >> 16), (char)(v >> 8), (char)v};
        mfi_buf_append(out, bytes, n - 1);
    }
    return true;
}
