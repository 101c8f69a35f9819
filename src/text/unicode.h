/* Unicode 16.0: general categories, the Han script, white space, UTF-8.
 *
 * The pre-tokeniser's classes must follow the version that the tokenizers were made with, not the
 * one a regex library happens to have, so the tables are our own (tools/gen_unicode_tables.py). */
#ifndef MFI_TEXT_UNICODE_H
#define MFI_TEXT_UNICODE_H

#include "base/defs.h"

typedef enum mfi_category {
    MFI_CAT_LU, MFI_CAT_LL, MFI_CAT_LT, MFI_CAT_LM, MFI_CAT_LO,
    MFI_CAT_MN, MFI_CAT_MC, MFI_CAT_ME,
    MFI_CAT_ND, MFI_CAT_NL, MFI_CAT_NO,
    MFI_CAT_PC, MFI_CAT_PD, MFI_CAT_PS, MFI_CAT_PE, MFI_CAT_PI, MFI_CAT_PF, MFI_CAT_PO,
    MFI_CAT_SM, MFI_CAT_SC, MFI_CAT_SK, MFI_CAT_SO,
    MFI_CAT_ZS, MFI_CAT_ZL, MFI_CAT_ZP,
    MFI_CAT_CC, MFI_CAT_CF, MFI_CAT_CS, MFI_CAT_CO, MFI_CAT_CN,
    MFI_N_CATEGORIES
} mfi_category;

extern const uint32_t mfi_unicode_category_runs[]; /* first code point << 8 | mfi_category */
extern const size_t mfi_n_unicode_category_runs;
extern const uint32_t mfi_unicode_han_edges[];
extern const size_t mfi_n_unicode_han_edges;

/* A set of categories: 1 << MFI_CAT_LU | ... for "L", "Lu", "Nd", ...; 0 if the name is unknown. */
uint32_t mfi_unicode_category_mask(const char *name, size_t len);
mfi_category mfi_unicode_category(uint32_t cp);

/* White_Space: what \s means to Oniguruma, Rust and browsers (not U+180E, U+001C..1F, U+200B). */
bool mfi_unicode_is_space(uint32_t cp);
/* UTS #18 word characters, Rust's \w: alphabetic, marks, decimal digits, connectors, joiners. */
bool mfi_unicode_is_word(uint32_t cp);

/* Decodes the character at p, p < end; returns its length, or 0 if it is not valid UTF-8. */
size_t mfi_utf8_decode(const char *p, const char *end, uint32_t *cp);
/* Decodes the character that ends at p in valid UTF-8, begin < p; returns its length. */
size_t mfi_utf8_decode_before(const char *begin, const char *p, uint32_t *cp);
/* Writes 1 to 4 bytes; returns how many. cp must be a scalar value. */
size_t mfi_utf8_encode(uint32_t cp, char dst[4]);
/* The offset of the first byte that is not valid UTF-8, or len. */
size_t mfi_utf8_check(const char *text, size_t len);

#endif
