/* Look-ups in the Unicode tables, and UTF-8.
 *
 * Called by the pre-tokeniser, the normaliser, the added-token search and the template lexer, on
 * any thread. Holds no state and allocates nothing. */
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
    static const uint32_t mask = 1u << MFI_CAT_LU | 1u << MFI_CAT_LL | 1u << MFI_CAT_LT |
                                 1u << MFI_CAT_LM | 1u << MFI_CAT_LO | 1u << MFI_CAT_MN |
                                 1u << MFI_CAT_MC | 1u << MFI_CAT_ME | 1u << MFI_CAT_ND |
                                 1u << MFI_CAT_NL | 1u << MFI_CAT_PC;
    if (mask >> mfi_unicode_category(cp) & 1)
        return true;
    /* Symbols with Other_Alphabetic (circled and squared letters), and Join_Control. */
    return (cp >= 0x24b6 && cp <= 0x24e9) || (cp >= 0x1f130 && cp <= 0x1f149) ||
           (cp >= 0x1f150 && cp <= 0x1f169) || (cp >= 0x1f170 && cp <= 0x1f189) || cp == 0x200c ||
           cp == 0x200d;
}

bool mfi_unicode_is_inert(uint32_t cp)
{
    size_t low = 0, high = mfi_n_unicode_inert_edges; /* how many edges are at or below cp */
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (mfi_unicode_inert_edges[mid] <= cp)
            low = mid + 1;
        else
            high = mid;
    }
    return low & 1;
}
