/* Normalisation before anything else looks at the text: the steps of a tokenizer.json. */
#ifndef MFI_TEXT_NORMALIZER_H
#define MFI_TEXT_NORMALIZER_H

#include "base/buf.h"
#include "base/json.h"
#include "base/limits.h"
#include "text/charsmap.h"
#include "text/forms.h"
#include "text/pretok.h"

typedef enum mfi_norm_kind {
    MFI_NORM_FORM,    /* NFC, NFD, NFKC, NFKD */
    MFI_NORM_PREPEND, /* in front of text that is not empty */
    MFI_NORM_REPLACE,
    MFI_NORM_LOWERCASE,
    MFI_NORM_STRIP,
    MFI_NORM_STRIP_ACCENTS,
    MFI_NORM_CHARSMAP
} mfi_norm_kind;

typedef struct mfi_norm_step {
    mfi_norm_kind kind;
    mfi_form form;
    bool left, right; /* where Strip strips */
    bool spaces;      /* Strip: U+0020 alone, and U+2581 at the right, as SentencePiece does */
    mfi_regex *regex; /* what Replace looks for */
    char *text;       /* [len] what is put */
    size_t len;
    char one; /* Replace: the pattern if it is this one character, else 0 */
    mfi_charsmap *charsmap;
} mfi_norm_step;

typedef struct mfi_normalizer {
    mfi_norm_step steps[MFI_MAX_NORM_STEPS];
    uint32_t n_steps;
} mfi_normalizer;

/* What one call needs; zero to start, one thread. */
typedef struct mfi_norm_scratch {
    mfi_buf text[2];
    mfi_regex_match *match;
    bool cut_front; /* set by each run: what the text began with was taken away */
} mfi_norm_scratch;

/* Reads the "normalizer" of a tokenizer.json. */
mf_status mfi_normalizer_open(mfi_normalizer *normalizer, const mfi_json *node, mf_error *err);
void mfi_normalizer_close(mfi_normalizer *normalizer);
uint64_t mfi_normalizer_bytes(const mfi_normalizer *normalizer);
/* Further steps: nodes as in tokenizer.json, or from other sources. The caller closes on failure.
 */
mf_status mfi_normalizer_add(mfi_normalizer *normalizer, const mfi_json *node, mf_error *err);
mf_status mfi_normalizer_add_form(mfi_normalizer *normalizer, mfi_form form, mf_error *err);
mf_status mfi_normalizer_add_strip_spaces(mfi_normalizer *normalizer, mf_error *err);
mf_status mfi_normalizer_add_charsmap(mfi_normalizer *normalizer, const void *blob, size_t len,
                                      bool by_grapheme, mf_error *err);

/* Normalises valid UTF-8. *out and *out_len are the text itself if nothing changes, else part of
 * the scratch, until its next use. */
mf_status mfi_normalizer_run(const mfi_normalizer *normalizer, const char *text, size_t len,
                             mfi_norm_scratch *scratch, const char **out, size_t *out_len,
                             mf_error *err);
/* The same for a part of a text; what is put in front of texts is put only where is_first. */
mf_status mfi_normalizer_run_part(const mfi_normalizer *normalizer, const char *text, size_t len,
                                  bool is_first, mfi_norm_scratch *scratch, const char **out,
                                  size_t *out_len, mf_error *err);
void mfi_norm_scratch_free(mfi_norm_scratch *scratch);

#endif
