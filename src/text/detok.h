/* Streaming detokeniser: pieces in, text out that is cut only between characters.
 *
 * Incomplete UTF-8 sequences are held back (at most 3 bytes) until the rest arrives; bytes that
 * can't become valid UTF-8 come out as U+FFFD, one for each maximal bad part, as Hugging Face and
 * browsers do. */
#ifndef MFI_TEXT_DETOK_H
#define MFI_TEXT_DETOK_H

#include "base/buf.h"

typedef struct mfi_detok {
    unsigned char held[4];
    uint32_t n_held;
} mfi_detok; /* zero to start */

/* Appends to out what can be shown after these bytes. */
void mfi_detok_push(mfi_detok *detok, const char *bytes, size_t len, mfi_buf *out);
/* The end: held bytes come out as U+FFFD. */
void mfi_detok_end(mfi_detok *detok, mfi_buf *out);

#endif
