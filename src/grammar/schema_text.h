/* JSON's texts as expressions: strings and their characters, integers of a range, patterns. */
#ifndef MFI_GRAMMAR_SCHEMA_TEXT_H
#define MFI_GRAMMAR_SCHEMA_TEXT_H

#include "grammar/ast.h"

/* One character of the class as it stands in a JSON string, in one way only: as it is where that is
 * allowed, else by the short escape or \u00XX. */
uint32_t mfi_text_char(mfi_ast *ast, const mfi_range *ranges, uint32_t n, bool negated);
/* A string's text without its quotes, or with them, written that way. */
uint32_t mfi_text_plain(mfi_ast *ast, const char *text, size_t len);
uint32_t mfi_text_quoted(mfi_ast *ast, const char *text, size_t len);
/* An integer of lo..hi without leading zeros; the class without members if lo > hi. */
uint32_t mfi_text_integer(mfi_ast *ast, int64_t lo, int64_t hi);
/* What no text is. */
uint32_t mfi_text_never(mfi_ast *ast);

/* What else holds of texts that a pattern with look-ahead at its beginning finds something in. */
#define MFI_PATTERN_LOOKS 8
typedef struct mfi_pattern_looks {
    uint32_t nodes[MFI_PATTERN_LOOKS];
    bool negated[MFI_PATTERN_LOOKS];
    uint32_t n;
} mfi_pattern_looks;

/* The text of strings (without quotes) that a regular expression finds something in. With `looks`
 * as plain characters, without it as JSON, look-ahead refused. *bad is the reason why it isn't
 * understood, or NULL. */
uint32_t mfi_pattern_parse(mfi_ast *ast, const char *pattern, size_t len, mfi_pattern_looks *looks,
                           const char **bad);
/* Whether there may be look-ahead in it. */
bool mfi_pattern_looks_ahead(const char *pattern);

/* A pattern for the texts of a "format": NULL: nothing is known of it; "": it isn't supported. */
const char *mfi_format_pattern(const char *format);

/* Numbers with a fraction, of 15 digits at most, from lo to hi. */
uint32_t mfi_text_fraction(mfi_ast *ast, double lo, bool lo_open, double hi, bool hi_open);

#endif
