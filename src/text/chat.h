/* The chat templates of a model, and rendering with them; for src/text only. */
#ifndef MFI_TEXT_CHAT_H
#define MFI_TEXT_CHAT_H

#include "text/template.h"

typedef struct mfi_chat_trees {
    mfi_template_tree *usual; /* NULL: there is only the other */
    mfi_template_tree *tools; /* for conversations with tools; NULL: as usual */
} mfi_chat_trees;

/* Parses what is in the tokenizer; `path` names it in messages. */
mf_status mfi_chat_trees_parse(mfi_chat_trees *trees, const mf_tokenizer *files, const char *path,
                               mf_error *err);
void mfi_chat_trees_free(mfi_chat_trees *trees);
const mfi_chat_trees *mfi_template_trees(const mf_template *chat_template);
/* Its sources. */
const mf_tokenizer *mfi_template_files(const mf_template *chat_template);

/* vars is the text of a JSON object; `names` holds the named tokens, and may be NULL. */
mf_status mfi_chat_trees_render(const mfi_chat_trees *trees, const mf_tokenizer *names,
                                const char *vars, size_t len, const char *now, mf_rendering *out,
                                mf_error *err);

#endif
