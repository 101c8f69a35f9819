/* Chat templates: the language Jinja as Hugging Face transformers sets it up, without what needs
 * other files (include, import, extends, block).
 *
 * The meaning of expressions is Python's; white space follows trim_blocks and lstrip_blocks. What
 * is not understood is MF_ERR_UNSUPPORTED, or MF_ERR_FORMAT where it isn't Jinja, with the line of
 * the template. What fails by the template's own meaning (adding a string and nothing,
 * raise_exception) is MF_ERR_ARGUMENT.
 *
 * Every byte of every string knows whether it is the template's own or foreign, that is: came from
 * a variable. Filters, methods, slices and concatenation keep that, so that the text of a user
 * never turns into a special token, whatever the template did to it.
 *
 * Templates are foreign too: size, nesting, steps, memory and output are bounded. */
#ifndef MFI_TEXT_TEMPLATE_H
#define MFI_TEXT_TEMPLATE_H

#include "base/json.h"
#include "base/status.h"

/* A parsed template; immutable, so that several threads may render it. */
typedef struct mfi_template_tree mfi_template_tree;

mf_status mfi_template_parse(mfi_template_tree **tree, const char *source, size_t len,
                             mf_error *err);
void mfi_template_free(mfi_template_tree **tree);

/* A variable of the template's side (bos_token, ...): its text may turn into special tokens. */
typedef struct mfi_template_name {
    const char *name, *text; /* text NULL: there is none */
} mfi_template_name;

typedef struct mfi_template_input {
    mfi_json_span vars;             /* a scanned JSON object: the variables, foreign */
    const mfi_template_name *named; /* [n_named] seen unless vars has one of the name */
    size_t n_named;
    const char *now; /* "2025-03-09T14:05:07", what strftime_now tells; NULL: the clock */
} mfi_template_input;

/* *out is to be released with mf_rendering_free; left alone on failure. */
mf_status mfi_template_render(const mfi_template_tree *tree, const mfi_template_input *input,
                              mf_rendering *out, mf_error *err);

#endif
