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

/* The text of strings (without quotes) that a regular expression finds something in. *bad is the
 * reason why it isn't understood, or NULL. */
uint32_t mfi_pattern_parse(mfi_ast *ast, const char *pattern, size_t len, const char **bad);

/* The text of a "format" (without quotes); false if it isn't known. */
bool mfi_text_format(mfi_ast *ast, const char *format, uint32_t *node);

#endif
