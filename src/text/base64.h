/* Base64 with its usual alphabet. */
#ifndef MFI_TEXT_BASE64_H
#define MFI_TEXT_BASE64_H

#include "base/buf.h"

/* Appends the decoded bytes; padding may lack. False if the text is not base64. */
bool mfi_base64_decode(const char *text, size_t len, mfi_buf *out);

#endif
