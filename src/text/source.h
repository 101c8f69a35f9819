/* A byte-level BPE tokenizer from something else than tokenizer.json: the caller, who knows that
 * format, gives the vocabulary and the merges through callbacks and the rest as plain values. */
#ifndef MFI_TEXT_SOURCE_H
#define MFI_TEXT_SOURCE_H

#include "base/status.h"

typedef enum mfi_source_kind {
    MFI_SOURCE_NORMAL,  /* of the model's vocabulary, in the byte-level alphabet */
    MFI_SOURCE_CONTROL, /* found in text as it stands, not shown */
    MFI_SOURCE_ADDED,   /* found in text as it stands, shown */
    MFI_SOURCE_UNUSED
} mfi_source_kind;

typedef enum mfi_source_special {
    MFI_SOURCE_BOS,
    MFI_SOURCE_EOS,
    MFI_SOURCE_UNK,
    MFI_SOURCE_SEP,
    MFI_SOURCE_PAD,
    MFI_SOURCE_MASK,
    MFI_SOURCE_N_SPECIAL
} mfi_source_special;

typedef struct mfi_tokenizer_source {
    const char *what; /* names it in messages */
    void *ctx;
    uint64_t n_tokens, n_merges;
    /* Tokens are asked for by rising id, n_tokens times; rewind_tokens begins anew. */
    void (*rewind_tokens)(void *ctx);
    mf_status (*token)(void *ctx, const char **text, size_t *len, mfi_source_kind *kind,
                       mf_error *err);
    /* "left right", best first; n_merges times */
    mf_status (*merge)(void *ctx, const char **text, size_t *len, mf_error *err);
    const char *pre;         /* the pre-tokenizer's name (pre_types.c); NULL: "default" */
    int8_t add_bos, add_eos; /* -1: as the pre-tokenizer's models do */
    int64_t special[MFI_SOURCE_N_SPECIAL]; /* ids; -1: none */
    const char *chat_template;             /* NULL: none */
    const char *tool_template;             /* for conversations with tools; NULL: none */
} mfi_tokenizer_source;

/* MF_ERR_UNSUPPORTED names an unknown pre-tokenizer and lists the known ones. */
mf_status mfi_tokenizer_open_source(mf_tokenizer **tokenizer, const mfi_tokenizer_source *source,
                                    mf_error *err);

#endif
