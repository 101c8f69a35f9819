/* Upper and lower case of texts, with Python's full mappings: one character may become three.
 *
 * utf8proc knows the mappings of one character to one; the others are the table below (Unicode's
 * SpecialCasing without conditions). Called by the filters and methods for case. */
#include "text/template_int.h"
#include "text/unicode.h"

#include <string.h>
#include <utf8proc.h>

typedef struct long_case {
    uint16_t cp, upper[3], title[3]; /* title 0: as utf8proc says */
} long_case;

/* clang-format off */
static const long_case long_cases[] = {
    {0x00df, {0x53, 0x53, 0}, {0x53, 0x73, 0}},
    {0x0149, {0x2bc, 0x4e, 0}, {0x2bc, 0x4e, 0}},
    {0x01f0, {0x4a, 0x30c, 0}, {0x4a, 0x30c, 0}},
    {0x0390, {0x399, 0x308, 0x301}, {0x399, 0x308, 0x301}},
    {0x03b0, {0x3a5, 0x308, 0x301}, {0x3a5, 0x308, 0x301}},
    {0x0587, {0x535, 0x552, 0}, {0x535, 0x582, 0}},
    {0x1e96, {0x48, 0x331, 0}, {0x48, 0x331, 0}},
    {0x1e97, {0x54, 0x308, 0}, {0x54, 0x308, 0}},
    {0x1e98, {0x57, 0x30a, 0}, {0x57, 0x30a, 0}},
    {0x1e99, {0x59, 0x30a, 0}, {0x59, 0x30a, 0}},
    {0x1e9a, {0x41, 0x2be, 0}, {0x41, 0x2be, 0}},
    {0x1f50, {0x3a5, 0x313, 0}, {0x3a5, 0x313, 0}},
    {0x1f52, {0x3a5, 0x313, 0x300}, {0x3a5, 0x313, 0x300}},
    {0x1f54, {0x3a5, 0x313, 0x301}, {0x3a5, 0x313, 0x301}},
    {0x1f56, {0x3a5, 0x313, 0x342}, {0x3a5, 0x313, 0x342}},
    {0x1f80, {0x1f08, 0x399, 0}, {0, 0, 0}},
    {0x1f81, {0x1f09, 0x399, 0}, {0, 0, 0}},
    {0x1f82, {0x1f0a, 0x399, 0}, {0, 0, 0}},
    {0x1f83, {0x1f0b, 0x399, 0}, {0, 0, 0}},
    {0x1f84, {0x1f0c, 0x399, 0}, {0, 0, 0}},
    {0x1f85, {0x1f0d, 0x399, 0}, {0, 0, 0}},
    {0x1f86, {0x1f0e, 0x399, 0}, {0, 0, 0}},
    {0x1f87, {0x1f0f, 0x399, 0}, {0, 0, 0}},
    {0x1f88, {0x1f08, 0x399, 0}, {0, 0, 0}},
    {0x1f89, {0x1f09, 0x399, 0}, {0, 0, 0}},
    {0x1f8a, {0x1f0a, 0x399, 0}, {0, 0, 0}},
    {0x1f8b, {0x1f0b, 0x399, 0}, {0, 0, 0}},
    {0x1f8c, {0x1f0c, 0x399, 0}, {0, 0, 0}},
    {0x1f8d, {0x1f0d, 0x399, 0}, {0, 0, 0}},
    {0x1f8e, {0x1f0e, 0x399, 0}, {0, 0, 0}},
    {0x1f8f, {0x1f0f, 0x399, 0}, {0, 0, 0}},
    {0x1f90, {0x1f28, 0x399, 0}, {0, 0, 0}},
    {0x1f91, {0x1f29, 0x399, 0}, {0, 0, 0}},
    {0x1f92, {0x1f2a, 0x399, 0}, {0, 0, 0}},
    {0x1f93, {0x1f2b, 0x399, 0}, {0, 0, 0}},
    {0x1f94, {0x1f2c, 0x399, 0}, {0, 0, 0}},
    {0x1f95, {0x1f2d, 0x399, 0}, {0, 0, 0}},
    {0x1f96, {0x1f2e, 0x399, 0}, {0, 0, 0}},
    {0x1f97, {0x1f2f, 0x399, 0}, {0, 0, 0}},
    {0x1f98, {0x1f28, 0x399, 0}, {0, 0, 0}},
    {0x1f99, {0x1f29, 0x399, 0}, {0, 0, 0}},
    {0x1f9a, {0x1f2a, 0x399, 0}, {0, 0, 0}},
    {0x1f9b, {0x1f2b, 0x399, 0}, {0, 0, 0}},
    {0x1f9c, {0x1f2c, 0x399, 0}, {0, 0, 0}},
    {0x1f9d, {0x1f2d, 0x399, 0}, {0, 0, 0}},
    {0x1f9e, {0x1f2e, 0x399, 0}, {0, 0, 0}},
    {0x1f9f, {0x1f2f, 0x399, 0}, {0, 0, 0}},
    {0x1fa0, {0x1f68, 0x399, 0}, {0, 0, 0}},
    {0x1fa1, {0x1f69, 0x399, 0}, {0, 0, 0}},
    {0x1fa2, {0x1f6a, 0x399, 0}, {0, 0, 0}},
    {0x1fa3, {0x1f6b, 0x399, 0}, {0, 0, 0}},
    {0x1fa4, {0x1f6c, 0x399, 0}, {0, 0, 0}},
    {0x1fa5, {0x1f6d, 0x399, 0}, {0, 0, 0}},
    {0x1fa6, {0x1f6e, 0x399, 0}, {0, 0, 0}},
    {0x1fa7, {0x1f6f, 0x399, 0}, {0, 0, 0}},
    {0x1fa8, {0x1f68, 0x399, 0}, {0, 0, 0}},
    {0x1fa9, {0x1f69, 0x399, 0}, {0, 0, 0}},
    {0x1faa, {0x1f6a, 0x399, 0}, {0, 0, 0}},
    {0x1fab, {0x1f6b, 0x399, 0}, {0, 0, 0}},
    {0x1fac, {0x1f6c, 0x399, 0}, {0, 0, 0}},
    {0x1fad, {0x1f6d, 0x399, 0}, {0, 0, 0}},
    {0x1fae, {0x1f6e, 0x399, 0}, {0, 0, 0}},
    {0x1faf, {0x1f6f, 0x399, 0}, {0, 0, 0}},
    {0x1fb2, {0x1fba, 0x399, 0}, {0x1fba, 0x345, 0}},
    {0x1fb3, {0x391, 0x399, 0}, {0, 0, 0}},
    {0x1fb4, {0x386, 0x399, 0}, {0x386, 0x345, 0}},
    {0x1fb6, {0x391, 0x342, 0}, {0x391, 0x342, 0}},
    {0x1fb7, {0x391, 0x342, 0x399}, {0x391, 0x342, 0x345}},
    {0x1fbc, {0x391, 0x399, 0}, {0, 0, 0}},
    {0x1fc2, {0x1fca, 0x399, 0}, {0x1fca, 0x345, 0}},
    {0x1fc3, {0x397, 0x399, 0}, {0, 0, 0}},
    {0x1fc4, {0x389, 0x399, 0}, {0x389, 0x345, 0}},
    {0x1fc6, {0x397, 0x342, 0}, {0x397, 0x342, 0}},
    {0x1fc7, {0x397, 0x342, 0x399}, {0x397, 0x342, 0x345}},
    {0x1fcc, {0x397, 0x399, 0}, {0, 0, 0}},
    {0x1fd2, {0x399, 0x308, 0x300}, {0x399, 0x308, 0x300}},
    {0x1fd3, {0x399, 0x308, 0x301}, {0x399, 0x308, 0x301}},
    {0x1fd6, {0x399, 0x342, 0}, {0x399, 0x342, 0}},
    {0x1fd7, {0x399, 0x308, 0x342}, {0x399, 0x308, 0x342}},
    {0x1fe2, {0x3a5, 0x308, 0x300}, {0x3a5, 0x308, 0x300}},
    {0x1fe3, {0x3a5, 0x308, 0x301}, {0x3a5, 0x308, 0x301}},
    {0x1fe4, {0x3a1, 0x313, 0}, {0x3a1, 0x313, 0}},
    {0x1fe6, {0x3a5, 0x342, 0}, {0x3a5, 0x342, 0}},
    {0x1fe7, {0x3a5, 0x308, 0x342}, {0x3a5, 0x308, 0x342}},
    {0x1ff2, {0x1ffa, 0x399, 0}, {0x1ffa, 0x345, 0}},
    {0x1ff3, {0x3a9, 0x399, 0}, {0, 0, 0}},
    {0x1ff4, {0x38f, 0x399, 0}, {0x38f, 0x345, 0}},
    {0x1ff6, {0x3a9, 0x342, 0}, {0x3a9, 0x342, 0}},
    {0x1ff7, {0x3a9, 0x342, 0x399}, {0x3a9, 0x342, 0x345}},
    {0x1ffc, {0x3a9, 0x399, 0}, {0, 0, 0}},
    {0xfb00, {0x46, 0x46, 0}, {0x46, 0x66, 0}},
    {0xfb01, {0x46, 0x49, 0}, {0x46, 0x69, 0}},
    {0xfb02, {0x46, 0x4c, 0}, {0x46, 0x6c, 0}},
    {0xfb03, {0x46, 0x46, 0x49}, {0x46, 0x66, 0x69}},
    {0xfb04, {0x46, 0x46, 0x4c}, {0x46, 0x66, 0x6c}},
    {0xfb05, {0x53, 0x54, 0}, {0x53, 0x74, 0}},
    {0xfb06, {0x53, 0x54, 0}, {0x53, 0x74, 0}},
    {0xfb13, {0x544, 0x546, 0}, {0x544, 0x576, 0}},
    {0xfb14, {0x544, 0x535, 0}, {0x544, 0x565, 0}},
    {0xfb15, {0x544, 0x53b, 0}, {0x544, 0x56b, 0}},
    {0xfb16, {0x54e, 0x546, 0}, {0x54e, 0x576, 0}},
    {0xfb17, {0x544, 0x53d, 0}, {0x544, 0x56d, 0}},
};
/* clang-format on */

static const long_case *find_long(uint32_t cp)
{
    size_t low = 0, high = MFI_ARRAY_LEN(long_cases);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (long_cases[middle].cp < cp)
            low = middle + 1;
        else
            high = middle;
    }
    return low < MFI_ARRAY_LEN(long_cases) && long_cases[low].cp == cp ? &long_cases[low] : NULL;
}

bool mfi_is_upper(uint32_t cp)
{
    return utf8proc_tolower((utf8proc_int32_t)cp) != (utf8proc_int32_t)cp &&
           mfi_unicode_category(cp) != MFI_CAT_LT;
}

bool mfi_is_lower(uint32_t cp)
{
    return mfi_unicode_category(cp) == MFI_CAT_LL ||
           (utf8proc_toupper((utf8proc_int32_t)cp) != (utf8proc_int32_t)cp &&
            mfi_unicode_category(cp) != MFI_CAT_LT);
}

bool mfi_is_cased(uint32_t cp)
{
    return mfi_is_upper(cp) || mfi_is_lower(cp) || mfi_unicode_category(cp) == MFI_CAT_LU ||
           mfi_unicode_category(cp) == MFI_CAT_LT;
}

static void put_cp(mfi_text *text, uint32_t cp, bool foreign)
{
    char bytes[4];
    mfi_text_put(text, bytes, mfi_utf8_encode(cp, bytes), foreign);
}

static void put_upper(mfi_text *text, uint32_t cp, bool title, bool foreign)
{
    const long_case *all = find_long(cp);
    const uint16_t *to = !all ? NULL : title ? all->title : all->upper;
    if (!to || !to[0]) {
        utf8proc_int32_t c = (utf8proc_int32_t)cp;
        put_cp(text, (uint32_t)(title ? utf8proc_totitle(c) : utf8proc_toupper(c)), foreign);
        return;
    }
    for (int i = 0; i < 3 && to[i]; i++)
        put_cp(text, to[i], foreign);
}

/* Whether the sigma at [at, at + n) ends a word: letters in front, none behind. */
static bool is_final(const mfi_str *str, size_t at, size_t n)
{
    uint32_t before = 0, behind = 0;
    if (at)
        mfi_utf8_decode_before(str->data, str->data + at, &before);
    if (at + n < str->n)
        mfi_utf8_decode(str->data + at + n, str->data + str->n, &behind);
    return mfi_is_cased(before) && !mfi_is_cased(behind);
}

static void put_lower(mfi_text *text, const mfi_str *str, size_t at, size_t n, uint32_t cp,
                      bool foreign)
{
    if (cp == 0x3a3 && is_final(str, at, n)) {
        put_cp(text, 0x3c2, foreign);
    } else if (cp == 0x130) { /* I with a dot */
        put_cp(text, 'i', foreign);
        put_cp(text, 0x307, foreign);
    } else {
        put_cp(text, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp), foreign);
    }
}

void mfi_text_cased(mfi_text *text, const mfi_str *str, mfi_case how)
{
    bool inside = false; /* a word, or behind the first character */
    size_t n;
    for (size_t at = 0; at < str->n; at += n) {
        uint32_t cp;
        n = mfi_utf8_decode(str->data + at, str->data + str->n, &cp);
        if (!n)
            return;
        bool foreign = mfi_str_foreign(str, at, at + n);
        if (how == MFI_CASE_UPPER || (how == MFI_CASE_SWAP && mfi_is_lower(cp)))
            put_upper(text, cp, false, foreign);
        else if (how == MFI_CASE_WORDS && !inside)
            put_upper(text, cp, false, foreign);
        else if (how == MFI_CASE_LOWER || inside || (how == MFI_CASE_SWAP && mfi_is_upper(cp)))
            put_lower(text, str, at, n, cp, foreign);
        else if (how == MFI_CASE_SWAP)
            put_cp(text, cp, foreign);
        else
            put_upper(text, cp, true, foreign);
        inside =
            how == MFI_CASE_CAPITALIZE || (how == MFI_CASE_TITLE && mfi_is_cased(cp)) ||
            (how == MFI_CASE_WORDS && !mfi_space(cp) && !(cp < 0x80 && strchr("-({[<", (int)cp)));
    }
}
