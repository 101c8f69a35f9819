/* Conjunctions of regular languages: what is to hold of one text at once (a pattern, a format, a
 * length, being a multiple), written as one expression.
 *
 * Running out of memory or over a limit is kept and told by mfi_regular_emit. */
#ifndef MFI_GRAMMAR_REGULAR_H
#define MFI_GRAMMAR_REGULAR_H

#include "grammar/ast.h"

typedef struct mfi_regular mfi_regular;

/* Steps are added to *work, and it is over its limit beyond MFI_MAX_SCHEMA_WORK. NULL: no memory.
 */
mfi_regular *mfi_regular_open(uint64_t *work);
void mfi_regular_close(mfi_regular **regular);

/* Where expressions over plain characters are made for it: without rules. */
mfi_ast *mfi_regular_ast(mfi_regular *regular);
/* The text is one of an expression of that tree; negated: it is none. */
void mfi_regular_is(mfi_regular *regular, uint32_t node, bool negated);
/* It has so many characters; -1: no bound. */
void mfi_regular_length(mfi_regular *regular, int64_t least, int64_t most);
/* It is a decimal integer that can be divided by `of` with so many zeros behind. */
void mfi_regular_multiple(mfi_regular *regular, uint32_t of, uint32_t zeros);

/* Whether all of it holds of a text; may be asked of any number of texts. */
mf_status mfi_regular_takes(mfi_regular *regular, const char *text, size_t len, bool *yes,
                            mf_error *err);
/* The texts of which all of it holds, as they stand in JSON strings without their quotes. */
mf_status mfi_regular_emit(mfi_regular *regular, mfi_ast *ast, uint32_t *node, mf_error *err);

#endif
