/* A tokenizer from something else than tokenizer.json: the caller, who knows that format, gives the
 * vocabulary and the merges through callbacks and the rest as plain values. */
#ifndef MFI_TEXT_SOURCE_H
#define MFI_TEXT_SOURCE_H

#include "base/json.h"
#include "text/pretok.h"

typedef enum mfi_source_model {
    MFI_SOURCE_BPE,    /* byte-level: tokens in its alphabet, merges */
    MFI_SOURCE_RANKS,  /* byte-level: tokens are bytes, merged lowest id first (tiktoken) */
    MFI_SOURCE_SPM,    /* of characters, U+2581 for spaces: merged highest score first */
    MFI_SOURCE_CHARS,  /* the same with merges */
    MFI_SOURCE_UNIGRAM /* the same, the highest sum of scores */
} mfi_source_model;

typedef enum mfi_source_kind {
    MFI_SOURCE_NORMAL,  /* of the model's vocabulary */
    MFI_SOURCE_CONTROL, /* found in text as it stands, not shown */
    MFI_SOURCE_ADDED,   /* found in text as it stands, shown */
    MFI_SOURCE_BYTE,    /* of characters: "<0x0A>"; never merged. Byte-level: normal */
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

typedef struct mfi_source_token {
    const char *text;
    size_t len;
    mfi_source_kind kind;
    double score;
} mfi_source_token;

typedef struct mfi_tokenizer_source {
    const char *what; /* names it in messages */
    mfi_source_model model;
    void *ctx;
    uint64_t n_tokens, n_merges;
    /* Tokens are asked for by rising id, n_tokens times; rewind_tokens begins anew. */
    void (*rewind_tokens)(void *ctx);
    mf_status (*token)(void *ctx, mfi_source_token *token, mf_error *err);
    /* "left right", best first; n_merges times */
    mf_status (*merge)(void *ctx, const char **text, size_t *len, mf_error *err);
    const char *pre; /* byte-level: the pre-tokenizer's name (pre_types.c); NULL: "default" */
    /* For characters, SentencePiece's normaliser: */
    mfi_prefix prefix;    /* where U+2581 is put in front */
    bool collapse_spaces; /* runs become one, none at the ends */
    const void *charsmap; /* [charsmap_len], NULL: none */
    size_t charsmap_len;
    /* More added tokens, as tokenizer.json lists them; they win over the tokens' kinds. NULL: none.
     */
    const mfi_json *added;
    bool added_normalized;   /* tokens of the kind ADDED are looked for in normalised text */
    int8_t add_bos, add_eos; /* -1: as models of this kind do */
    int64_t special[MFI_SOURCE_N_SPECIAL]; /* ids; -1: none */
    const char *chat_template;             /* NULL: none */
    const char *tool_template;             /* for conversations with tools; NULL: none */
} mfi_tokenizer_source;

/* MF_ERR_UNSUPPORTED names an unknown pre-tokenizer and lists the known ones. */
mf_status mfi_tokenizer_open_source(mf_tokenizer **tokenizer, const mfi_tokenizer_source *source,
                                    mf_error *err);

#endif
