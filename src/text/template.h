/* Chat templates: the part of Jinja that plain ones use.
 *
 * Understood: text, comments, {{ expressions }}, for over a list (with else and the loop variables), if/elif/else,
 * whitespace control, string and integer literals, names, attributes and items, + == != and or not.
 * White space follows trim_blocks and lstrip_blocks, as Hugging Face renders templates. Everything else
 * is MF_ERR_UNSUPPORTED with its name and line, also in branches that are not taken. What fails
 * by the template's own meaning (adding a string and nothing, say) is MF_ERR_ARGUMENT.
 *
 * Templates are foreign: size, nesting, steps and output are bounded. */
#ifndef MFI_TEXT_TEMPLATE_H
#define MFI_TEXT_TEMPLATE_H

#include "base/buf.h"
#include "base/status.h"

typedef enum mfi_value_type {
    MFI_VALUE_UNDEFINED,
    MFI_VALUE_NONE,
    MFI_VALUE_BOOL,
    MFI_VALUE_INT,
    MFI_VALUE_STR,
    MFI_VALUE_LIST,
    MFI_VALUE_MAP,
    MFI_VALUE_LOOP,  /* the variable `loop`; made by `for` only */
    MFI_VALUE_OPAQUE /* something that templates may test for presence, but not look into */
} mfi_value_type;

typedef struct mfi_value mfi_value;
typedef struct mfi_value_pair mfi_value_pair;

/* Borrowed: whoever makes a value owns what it points to. */
struct mfi_value {
    mfi_value_type type;
    bool boolean;
    int64_t integer;
    const char *str; /* [n] */
    const mfi_value *items; /* [n] */
    const mfi_value_pair *pairs; /* [n] */
    size_t n;
    size_t index; /* of a loop */
};

struct mfi_value_pair {
    const char *key;
    mfi_value value;
};

/* Appends the rendered text. vars is a map. On failure out is unspecified. */
mf_status mfi_template_render(const char *source, size_t len, const mfi_value *vars, mfi_buf *out,
                              mf_error *err);

#endif
