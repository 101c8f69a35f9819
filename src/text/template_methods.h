/* The methods of template values; for src/text/template_*.c only. */
#ifndef MFI_TEXT_TEMPLATE_METHODS_H
#define MFI_TEXT_TEMPLATE_METHODS_H

#include "text/template_int.h"

typedef struct mfi_method_entry {
    const char *name;
    mfi_filter_fn fn; /* the value is the object */
} mfi_method_entry;

extern const mfi_method_entry mfi_str_methods[]; /* end with a NULL name */

/* dict(...) and dict.update(...) */
mf_status mfi_dict_update(mfi_tpl *t, mfi_dict *dict, const mfi_args *args);

/* Shared with the filters of the same names. */
mf_status mfi_str_replace(mfi_tpl *t, const mfi_str *str, const mfi_str *from, const mfi_str *to,
                          int64_t count, mfi_value *out);
mf_status mfi_str_center(mfi_tpl *t, const mfi_str *str, int64_t width, const mfi_str *fill,
                         int side, mfi_value *out); /* side: -1 ljust, 0 center, 1 rjust */
mf_status mfi_str_lines(mfi_tpl *t, const mfi_str *str, bool keep_ends, mfi_value *out);

#endif
