/* UTF-8 by the Unicode standard: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef MFI_BASE_UTF8_H
#define MFI_BASE_UTF8_H

#include "base/defs.h"

/* Decodes the character at p, p < end; returns its length, or 0 if it is not valid UTF-8. */
size_t mfi_utf8_decode(const char *p, const char *end, uint32_t *cp);
/* Decodes the character that ends at p in valid UTF-8, begin < p; returns its length. */
size_t mfi_utf8_decode_before(const char *begin, const char *p, uint32_t *cp);
/* Writes 1 to 4 bytes; returns how many. cp must be a scalar value. */
size_t mfi_utf8_encode(uint32_t cp, char dst[4]);
/* The offset of the first byte that is not valid UTF-8, or len. */
size_t mfi_utf8_check(const char *text, size_t len);

#endif
