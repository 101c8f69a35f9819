/* Look-ups in the Unicode tables, and UTF-8.
 *
 * Called by the pre-tokeniser, the normaliser, the added-token search and the template lexer, on any
 * thread. Holds no state and allocates nothing. */
#include "text/unicode.h"

#include <string.h>

static const char category_names[MFI_N_CATEGORIES][3] = {
    "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe",
    "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn",
};

uint32_t mfi_unicode_category_mask(const char *name, size_t len)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < MFI_N_CATEGORIES; i++) {
        bool major = len == 1 && name[0] == category_names[i][0];
        bool minor = len == 2 && memcmp(name, category_names[i], 2) == 0;
        if (major || minor)
            mask |= (uint32_t)1 << i;
    }
    return mask;
}

mfi_category mfi_unicode_category(uint32_t cp)
{
    size_t low = 0, high = mfi_n_unicode_category_runs; /* the run lies in [low, high) */
    while (high - low > 1) {
        size_t mid = low + (high - low) / 2;
        if (mfi_unicode_category_runs[mid] >> 8 <= cp)
            low = mid;
        else
            high = mid;
    }
    return (mfi_category)(mfi_unicode_category_runs[low] & 0xff);
}

bool mfi_unicode_is_space(uint32_t cp)
{
    return (cp >= 0x09 && cp <= 0x0d) || cp == 0x20 || cp == 0x85 || cp == 0xa0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 || cp == 0x202f ||
           cp == 0x205f || cp == 0x3000;
}

bool mfi_unicode_is_word(uint32_t cp)
{
    static const uint32_t mask =
        1u << MFI_CAT_LU | 1u << MFI_CAT_LL | 1u << MFI_CAT_LT | 1u << MFI_CAT_LM |
        1u << MFI_CAT_LO | 1u << MFI_CAT_MN | 1u << MFI_CAT_MC | 1u << MFI_CAT_ME |
        1u << MFI_CAT_ND | 1u << MFI_CAT_NL | 1u << MFI_CAT_PC;
    if (mask >> mfi_unicode_category(cp) & 1)
        return true;
    /* Symbols with Other_Alphabetic (circled and squared letters), and Join_Control. */
    return (cp >= 0x24b6 && cp <= 0x24e9) || (cp >= 0x1f130 && cp <= 0x1f149) ||
           (cp >= 0x1f150 && cp <= 0x1f169) || (cp >= 0x1f170 && cp <= 0x1f189) || cp == 0x200c ||
           cp == 0x200d;
}

size_t mfi_utf8_decode(const char *p, const char *end, uint32_t *cp)
{
    const unsigned char *u = (const unsigned char *)p;
    size_t left = (size_t)(end - p);
    if (u[0] < 0x80) {
        *cp = u[0];
        return 1;
    }
    if (u[0] < 0xc2 || u[0] > 0xf4)
        return 0;
    size_t len = u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;
    if (left < len)
        return 0;
    uint32_t value = u[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((u[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (u[i] & 0x3f);
    }
    static const uint32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000};
    if (value < smallest[len] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
        return 0;
    *cp = value;
    return len;
}

size_t mfi_utf8_decode_before(const char *begin, const char *p, uint32_t *cp)
{
    const char *start = p - 1;
    while (start > begin && ((unsigned char)*start & 0xc0) == 0x80)
        start--;
    size_t len = mfi_utf8_decode(start, p, cp);
    return len ? len : 1;
}

size_t mfi_utf8_encode(uint32_t cp, char dst[4])
{
    if (cp < 0x80) {
        dst[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        dst[0] = (char)(0xc0 | cp >> 6);
        dst[1] = (char)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        dst[0] = (char)(0xe0 | cp >> 12);
        dst[1] = (char)(0x80 | (cp >> 6 & 0x3f));
        dst[2] = (char)(0x80 | (cp & 0x3f));
        return 3;
    }
    dst[0] = (char)(0xf0 | cp >> 18);
    dst[1] = (char)(0x80 | (cp >> 12 & 0x3f));
    dst[2] = (char)(0x80 | (cp >> 6 & 0x3f));
    dst[3] = (char)(0x80 | (cp & 0x3f));
    return 4;
}

size_t mfi_utf8_check(const char *text, size_t len)
{
    size_t i = 0;
    while (i < len) {
        uint64_t eight;
        if (len - i >= 8 && (memcpy(&eight, text + i, 8), !(eight & 0x8080808080808080u))) {
            i += 8;
            continue;
        }
        uint32_t cp;
        size_t n = mfi_utf8_decode(text + i, text + len, &cp);
        if (!n)
            return i;
        i += n;
    }
    return len;
}
