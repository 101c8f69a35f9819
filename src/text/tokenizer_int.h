/* What a tokenizer is made of; for src/text only. */
#ifndef MFI_TEXT_TOKENIZER_INT_H
#define MFI_TEXT_TOKENIZER_INT_H

#include "text/added.h"
#include "text/bpe.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/pretok.h"
#include "text/symbols.h"
#include "text/tokenizer.h"
#include "text/unigram.h"
#include "text/vocab.h"

/* The special tokens that templates see by name, as transformers passes them. */
#define MFI_TOKEN_NAMES(X)                                                                         \
    X(bos_token)                                                                                   \
    X(eos_token)                                                                                   \
    X(unk_token)                                                                                   \
    X(sep_token)                                                                                   \
    X(pad_token)                                                                                   \
    X(cls_token)                                                                                   \
    X(mask_token)

enum {
#define MFI_TOKEN_NAME_ENUM(name) MFI_NAMED_##name,
    MFI_TOKEN_NAMES(MFI_TOKEN_NAME_ENUM)
#undef MFI_TOKEN_NAME_ENUM
        MFI_N_NAMED_TOKENS
};

typedef enum mfi_model_kind {
    MFI_MODEL_BYTES,  /* BPE over bytes */
    MFI_MODEL_CHARS,  /* BPE over characters: symbols */
    MFI_MODEL_UNIGRAM /* unigram, and symbols for what it lacks */
} mfi_model_kind;

struct mf_tokenizer {
    mfi_vocab vocab;
    mfi_model_kind kind;
    mfi_bpe bpe;
    mfi_symbols symbols;
    mfi_unigram unigram;
    bool ignore_merges;
    mfi_normalizer normalizer;
    mfi_pretok pretok;
    mfi_decoder decoder;
    mfi_added added;
    mfi_ids prefix, suffix; /* what the post-processor puts around a text */
    /* From tokenizer_config.json and chat_template.jinja: */
    char *chat_template; /* NULL: none */
    size_t chat_template_len;
    char *tool_template; /* for conversations with tools; NULL: the other */
    size_t tool_template_len;
    char *named[MFI_N_NAMED_TOKENS]; /* NULL: not set */
};

/* Fills *tokenizer, which is zero, from the text of a tokenizer.json. What was filled before a
 * failure is the caller's to close. */
mf_status mfi_tokenizer_read(mf_tokenizer *tokenizer, const char *json, size_t len,
                             const char *what, mf_error *err);
/* Opens what was read from `path`: a SentencePiece model or ranks; dir has a tokenizer_config.json,
 * or not. */
mf_status mfi_tokenizer_open_bytes(mf_tokenizer **tokenizer, const char *path, const char *dir,
                                   const char *bytes, size_t len, mf_error *err);
/* Reads tokenizer_config.json and chat_template.jinja in the folder, as far as they are there. */
mf_status mfi_tokenizer_read_config(mf_tokenizer *tokenizer, const char *dir, mf_error *err);

/* Reads a Unigram model's vocabulary, [["piece", score], ...], into vocab, symbols and unigram
 * (unigram_read.c). unk_id: .text is NULL if absent. */
mf_status mfi_unigram_read(mf_tokenizer *tokenizer, mfi_json_span list, mfi_json_span unk_id,
                           bool byte_fallback, uint32_t n_min, mf_error *err);

/* ---- merges (merges.c) ---- */

typedef struct mfi_merge_reader {
    mf_tokenizer *tokenizer; /* with its vocabulary; its table has room */
    mfi_buf text[2], joined; /* text: the caller's scratch */
    uint32_t rank;           /* of the next merge; counted by the caller */
    mf_error *err;
} mfi_merge_reader;

mf_status mfi_merge_add(mfi_merge_reader *r, const char *left, size_t left_len, const char *right,
                        size_t right_len);
/* "left right" */
mf_status mfi_merge_add_joined(mfi_merge_reader *r, const char *text, size_t len);
/* "merges: entry 17 ..." */
mf_status mfi_merge_fail(mfi_merge_reader *r, const char *why);
void mfi_merge_reader_free(mfi_merge_reader *r);

/* ---- merges that a vocabulary implies (ranks.c) ---- */

/* Orders the tokens that have a rank (not UINT32_MAX) by score, the highest first. */
mf_status mfi_ranks_by_score(uint32_t *ranks, const double *scores, uint32_t n, mf_error *err);
/* Opens the table and fills it: each token with a rank is made of any two that have one, or that
 * are single. */
mf_status mfi_merges_from_ranks(mf_tokenizer *tokenizer, const uint32_t *ranks, uint32_t n,
                                mf_error *err);

/* Fills bpe.byte_id; false if the vocabulary lacks bytes. */
bool mfi_tokenizer_find_bytes(mf_tokenizer *tokenizer);

#endif
