/* The normalisation forms of Unicode, and what else turns characters into characters. */
#ifndef MFI_TEXT_FORMS_H
#define MFI_TEXT_FORMS_H

#include "base/buf.h"
#include "base/status.h"

typedef enum mfi_form { MFI_FORM_NFC, MFI_FORM_NFD, MFI_FORM_NFKC, MFI_FORM_NFKD } mfi_form;

/* Appends the normalised text to out; *changed is false, and out is as it was, if that is the text
 * itself. */
mf_status mfi_form_put(mfi_form form, const char *text, size_t len, mfi_buf *out, bool *changed,
                       mf_error *err);
/* Character by character, without regard to what stands around it. */
void mfi_lowercase_put(const char *text, size_t len, mfi_buf *out);

#endif
