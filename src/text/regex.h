/* Patterns as Hugging Face tokenizers write them (Oniguruma), turned into what means the same to
 * PCRE2. */
#ifndef MFI_TEXT_REGEX_H
#define MFI_TEXT_REGEX_H

#include "base/buf.h"
#include "base/status.h"

/* Appends the rewritten pattern. Every class becomes explicit ranges of Unicode 16; a construct that
 * might mean something else to the two engines is MF_ERR_UNSUPPORTED, with its name and offset. */
mf_status mfi_regex_rewrite(const char *pattern, size_t len, mfi_buf *out, mf_error *err);

#endif
