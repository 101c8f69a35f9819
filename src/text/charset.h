/* Sets of code points as sorted ranges, for the classes of the pre-tokeniser's patterns. */
#ifndef MFI_TEXT_CHARSET_H
#define MFI_TEXT_CHARSET_H

#include "base/buf.h"

typedef struct mfi_range {
    uint32_t first, last;
} mfi_range;

typedef struct mfi_charset {
    mfi_range *ranges; /* sorted, disjoint, not adjacent after mfi_charset_settle */
    size_t n, cap;
    bool failed; /* out of memory; sticky, as in mfi_buf */
} mfi_charset;

void mfi_charset_free(mfi_charset *set);
void mfi_charset_add(mfi_charset *set, uint32_t first, uint32_t last);
void mfi_charset_add_set(mfi_charset *set, const mfi_charset *other);
/* Every code point whose category is in the mask. */
void mfi_charset_add_categories(mfi_charset *set, uint32_t mask);
void mfi_charset_add_han(mfi_charset *set);
void mfi_charset_add_space(mfi_charset *set);
/* Oniguruma's \w: outside of classes it has six digits of Latin-1 more. */
void mfi_charset_add_word(mfi_charset *set, bool in_class);
/* Sorts and joins; the functions below do it themselves. */
void mfi_charset_settle(mfi_charset *set);
void mfi_charset_invert(mfi_charset *set);
void mfi_charset_intersect(mfi_charset *set, mfi_charset *other);
/* Appends a PCRE2 class (or, with `negated`, its complement) that matches exactly the set. */
void mfi_charset_print(mfi_charset *set, bool negated, mfi_buf *out);

#endif
