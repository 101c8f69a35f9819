/* What the files that take answers apart share. */
#ifndef MFI_TEXT_OUTPUT_INT_H
#define MFI_TEXT_OUTPUT_INT_H

#include "text/output.h"

/* How a family brackets its calls; close NULL: the end of the answer. */
typedef struct mfi_brackets {
    const char *name;
    const char *open, *close;
} mfi_brackets;

extern const mfi_brackets mfi_output_brackets[MFI_N_NOTATIONS];

/* One call, as it is read: spans of its text, or of what was made of it. */
typedef struct mfi_call_text {
    mfi_buf name, id, arguments;
} mfi_call_text;

typedef struct mfi_call_list {
    mfi_call_text *calls;
    size_t n, cap;
    bool failed;
} mfi_call_list;

mfi_call_text *mfi_call_add(mfi_call_list *list);
void mfi_call_list_free(mfi_call_list *list);

/* Reads what stands between the brackets; false if it isn't calls and nothing else. */
bool mfi_calls_read(mfi_notation notation, const char *body, size_t len, mfi_call_list *list);

#endif
