/* Sets of code points: union, complement, intersection, and their form as a PCRE2 class.
 *
 * Used by the pattern rewriter while a tokenizer is opened; nothing of it survives the rewriting.
 */
#include "text/charset.h"
#include "base/room.h"
#include "text/unicode.h"

#include <stdlib.h>

#define LAST_CODE_POINT 0x10ffffu

void mfi_charset_free(mfi_charset *set)
{
    free(set->ranges);
    *set = (mfi_charset){0};
}

void mfi_charset_add(mfi_charset *set, uint32_t first, uint32_t last)
{
    if (set->failed)
        return;
    if (!MFI_ROOM(set->ranges, set->n, set->cap, 64)) {
        set->failed = true;
        return;
    }
    set->ranges[set->n++] = (mfi_range){first, last};
}

void mfi_charset_add_set(mfi_charset *set, const mfi_charset *other)
{
    set->failed |= other->failed;
    for (size_t i = 0; i < other->n; i++)
        mfi_charset_add(set, other->ranges[i].first, other->ranges[i].last);
}

void mfi_charset_add_categories(mfi_charset *set, uint32_t mask)
{
    for (size_t i = 0; i < mfi_n_unicode_category_runs; i++) {
        uint32_t run = mfi_unicode_category_runs[i];
        if (!(mask >> (run & 0xff) & 1))
            continue;
        uint32_t last = i + 1 < mfi_n_unicode_category_runs
                            ? (mfi_unicode_category_runs[i + 1] >> 8) - 1
                            : LAST_CODE_POINT;
        mfi_charset_add(set, run >> 8, last);
    }
}

void mfi_charset_add_han(mfi_charset *set)
{
    for (size_t i = 0; i + 1 < mfi_n_unicode_han_edges; i += 2)
        mfi_charset_add(set, mfi_unicode_han_edges[i], mfi_unicode_han_edges[i + 1] - 1);
}

void mfi_charset_add_space(mfi_charset *set)
{
    for (uint32_t cp = 0; cp <= 0x3000; cp++)
        if (mfi_unicode_is_space(cp))
            mfi_charset_add(set, cp, cp);
}

void mfi_charset_add_word(mfi_charset *set, bool in_class)
{
    static const uint32_t mask = 1u << MFI_CAT_LU | 1u << MFI_CAT_LL | 1u << MFI_CAT_LT |
                                 1u << MFI_CAT_LM | 1u << MFI_CAT_LO | 1u << MFI_CAT_MN |
                                 1u << MFI_CAT_MC | 1u << MFI_CAT_ME | 1u << MFI_CAT_ND |
                                 1u << MFI_CAT_NL | 1u << MFI_CAT_PC;
    /* Symbols with Other_Alphabetic, and Latin-1's digits. */
    static const mfi_range further[] = {{0x24b6, 0x24e9},   {0x1f130, 0x1f149}, {0x1f150, 0x1f169},
                                        {0x1f170, 0x1f189}, {0xb2, 0xb3},       {0xb9, 0xb9},
                                        {0xbc, 0xbe}};
    mfi_charset_add_categories(set, mask);
    for (size_t i = 0; i < (in_class ? 4 : MFI_ARRAY_LEN(further)); i++)
        mfi_charset_add(set, further[i].first, further[i].last);
}

static int by_first(const void *a, const void *b)
{
    const mfi_range *x = a, *y = b;
    return x->first < y->first ? -1 : x->first > y->first;
}

void mfi_charset_settle(mfi_charset *set)
{
    if (!set->n)
        return;
    qsort(set->ranges, set->n, sizeof *set->ranges, by_first);
    size_t n = 0;
    for (size_t i = 1; i < set->n; i++) {
        mfi_range r = set->ranges[i];
        if (r.first <= set->ranges[n].last + 1) {
            if (r.last > set->ranges[n].last)
                set->ranges[n].last = r.last;
        } else {
            set->ranges[++n] = r;
        }
    }
    set->n = n + 1;
}

void mfi_charset_invert(mfi_charset *set)
{
    mfi_charset_settle(set);
    mfi_charset inverse = {.failed = set->failed};
    uint32_t next = 0;
    for (size_t i = 0; i < set->n; i++) {
        if (set->ranges[i].first > next)
            mfi_charset_add(&inverse, next, set->ranges[i].first - 1);
        next = set->ranges[i].last + 1;
    }
    if (next <= LAST_CODE_POINT)
        mfi_charset_add(&inverse, next, LAST_CODE_POINT);
    mfi_charset_free(set);
    *set = inverse;
}

void mfi_charset_intersect(mfi_charset *set, mfi_charset *other)
{
    /* A and B = not (not A or not B) */
    mfi_charset_invert(set);
    mfi_charset_invert(other);
    mfi_charset_add_set(set, other);
    mfi_charset_invert(set);
}

void mfi_charset_print(mfi_charset *set, bool negated, mfi_buf *out)
{
    mfi_charset_settle(set);
    if (set->failed)
        out->failed = true;
    size_t start = out->len;
    mfi_buf_str(out, negated ? "[^" : "[");
    size_t empty = out->len;
    for (size_t i = 0; i < set->n; i++) {
        uint32_t first = set->ranges[i].first, last = set->ranges[i].last;
        /* Surrogates are no characters; PCRE2 refuses them as ends of a range. */
        if (first >= 0xd800 && first <= 0xdfff)
            first = 0xe000;
        if (last >= 0xd800 && last <= 0xdfff)
            last = 0xd7ff;
        if (first > last)
            continue;
        if (first == last)
            mfi_buf_fmt(out, "\\x{%x}", first);
        else
            mfi_buf_fmt(out, "\\x{%x}-\\x{%x}", first, last);
    }
    if (!out->failed && out->len == empty) { /* PCRE2 has no empty class */
        out->len = start;
        mfi_buf_str(out, negated ? "[\\x{0}-\\x{10ffff}]" : "[^\\x{0}-\\x{10ffff}]");
        return;
    }
    mfi_buf_str(out, "]");
}
