/* Normalisation before anything else looks at the text: none, or NFC. */
#ifndef MFI_TEXT_NORMALIZER_H
#define MFI_TEXT_NORMALIZER_H

#include "base/buf.h"
#include "base/json.h"

typedef struct mfi_normalizer {
    bool nfc;
} mfi_normalizer;

/* Reads the "normalizer" of a tokenizer.json. */
mf_status mfi_normalizer_open(mfi_normalizer *normalizer, const mfi_json *node, mf_error *err);

/* Normalises valid UTF-8. *out and *out_len are the text itself if nothing changes, else *scratch's
 * content, which is overwritten. */
mf_status mfi_normalizer_run(const mfi_normalizer *normalizer, const char *text, size_t len,
                             mfi_buf *scratch, const char **out, size_t *out_len, mf_error *err);

#endif
