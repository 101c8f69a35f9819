/* Unicode 16.0: general categories, the Han script, white space, UTF-8.
 *
 * The pre-tokeniser's classes must follow the version that the tokenizers were made with, not the
 * one a regex library happens to have, so the tables are our own (tools/gen_unicode_tables.py). */
#ifndef MFI_TEXT_UNICODE_H
#define MFI_TEXT_UNICODE_H

#include "base/defs.h"
#include "base/utf8.h"

typedef enum mfi_category {
    MFI_CAT_LU,
    MFI_CAT_LL,
    MFI_CAT_LT,
    MFI_CAT_LM,
    MFI_CAT_LO,
    MFI_CAT_MN,
    MFI_CAT_MC,
    MFI_CAT_ME,
    MFI_CAT_ND,
    MFI_CAT_NL,
    MFI_CAT_NO,
    MFI_CAT_PC,
    MFI_CAT_PD,
    MFI_CAT_PS,
    MFI_CAT_PE,
    MFI_CAT_PI,
    MFI_CAT_PF,
    MFI_CAT_PO,
    MFI_CAT_SM,
    MFI_CAT_SC,
    MFI_CAT_SK,
    MFI_CAT_SO,
    MFI_CAT_ZS,
    MFI_CAT_ZL,
    MFI_CAT_ZP,
    MFI_CAT_CC,
    MFI_CAT_CF,
    MFI_CAT_CS,
    MFI_CAT_CO,
    MFI_CAT_CN,
    MFI_N_CATEGORIES
} mfi_category;

extern const uint32_t mfi_unicode_category_runs[]; /* first code point << 8 | mfi_category */
extern const size_t mfi_n_unicode_category_runs;
extern const uint32_t mfi_unicode_han_edges[];
extern const size_t mfi_n_unicode_han_edges;
extern const uint32_t mfi_unicode_inert_edges[];
extern const size_t mfi_n_unicode_inert_edges;

/* A set of categories: 1 << MFI_CAT_LU | ... for "L", "Lu", "Nd", ...; 0 if the name is unknown. */
uint32_t mfi_unicode_category_mask(const char *name, size_t len);
mfi_category mfi_unicode_category(uint32_t cp);

/* White_Space: what \s means to Oniguruma, Rust and browsers (not U+180E, U+001C..1F, U+200B). */
bool mfi_unicode_is_space(uint32_t cp);
/* UTS #18 word characters, Rust's \w: alphabetic, marks, decimal digits, connectors, joiners. */
bool mfi_unicode_is_word(uint32_t cp);

/* True if NFC leaves the character alone and text can be normalised in parts cut before it. */
bool mfi_unicode_is_inert(uint32_t cp);

#endif
