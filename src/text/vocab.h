/* The vocabulary: ids and the bytes they stand for. */
#ifndef MFI_TEXT_VOCAB_H
#define MFI_TEXT_VOCAB_H

#include "base/buf.h"
#include "base/json.h"

enum {
    MFI_TOKEN_PRESENT = 1,
    MFI_TOKEN_BYTES = 2, /* of the model's vocabulary, and any bytes: byte-level BPE's */
    MFI_TOKEN_ADDED = 4,
    MFI_TOKEN_SPECIAL = 8
};

/* What the texts that are put into a vocabulary are. */
typedef enum mfi_vocab_form {
    MFI_VOCAB_ALPHABET, /* in the byte-level alphabet where possible; stored as the bytes */
    MFI_VOCAB_BYTES,    /* the bytes themselves */
    MFI_VOCAB_CHARS     /* text of characters, as SentencePiece writes it: U+2581 for a space */
} mfi_vocab_form;

typedef struct mfi_token {
    uint32_t offset; /* in the pool */
    uint16_t len;
    uint16_t flags;
} mfi_token;

typedef struct mfi_shown {
    uint32_t offset, len; /* in the pool */
} mfi_shown;

typedef struct mfi_shown_first {
    uint32_t id;
    mfi_shown shown;
} mfi_shown_first;

typedef struct mfi_vocab {
    mfi_vocab_form form;
    mfi_buf pool;
    mfi_token *tokens;      /* [n], by id; ids may have holes */
    mfi_shown *shown;       /* [n] what tokens are decoded to; NULL: to themselves */
    mfi_shown_first *first; /* [n_first] by id: what others than `shown` without spaces in front
                             * are decoded to where text begins */
    uint32_t n_first, first_cap;
    uint32_t n;
    uint32_t *index; /* hash of the bytes of the model's entries -> id; [n_index], a power of two */
    uint32_t n_index;
    uint64_t *filter; /* [n_index * 4] bits: those of the entries' hashes; most texts that are
                       * looked for are none, and this is dense enough to stay in a core's cache */
} mfi_vocab;

/* Reads the model's "vocab" object. Room is made for ids below n_min. */
mf_status mfi_vocab_open(mfi_vocab *vocab, mfi_vocab_form form, mfi_json_span object,
                         uint32_t n_min, mf_error *err);
/* Room for ids below n_ids, of which n_entries are to be put. */
mf_status mfi_vocab_open_empty(mfi_vocab *vocab, mfi_vocab_form form, uint32_t n_ids,
                               uint32_t n_entries, mf_error *err);
/* Enters text under an id below n that has none. *repeats: another id has this text, too, and stays
 * the one that is found. */
mf_status mfi_vocab_put(mfi_vocab *vocab, int64_t id, const char *text, size_t len, bool *repeats,
                        mf_error *err);
/* Makes the token the one that is found by its text. */
void mfi_vocab_prefer(mfi_vocab *vocab, int32_t id);
void mfi_vocab_close(mfi_vocab *vocab);
uint64_t mfi_vocab_bytes(const mfi_vocab *vocab);

/* Sets what an added token stands for; id < n. MF_ERR_FORMAT if the model knows the text or the id
 * otherwise. */
mf_status mfi_vocab_add(mfi_vocab *vocab, int32_t id, const char *text, size_t len, bool special,
                        mf_error *err);

/* The id of the model's entry for these bytes, or -1. flags: MFI_TOKEN_BYTES or 0, which kind. */
int32_t mfi_vocab_find(const mfi_vocab *vocab, const char *bytes, size_t len, uint32_t flags);

static inline const char *mfi_vocab_text(const mfi_vocab *vocab, int32_t id, size_t *len)
{
    const mfi_token *token = &vocab->tokens[id];
    *len = token->len;
    return vocab->pool.data + token->offset;
}

static inline const char *mfi_vocab_shown(const mfi_vocab *vocab, int32_t id, size_t *len)
{
    if (!vocab->shown)
        return mfi_vocab_text(vocab, id, len);
    *len = vocab->shown[id].len;
    return vocab->pool.data + vocab->shown[id].offset;
}

/* Decodes text in the byte-level alphabet (GPT-2: each byte is one visible character) into dst,
 * which has room for len bytes. False if a character is not in it. */
bool mfi_byte_level_decode(const char *text, size_t len, char *dst, size_t *n);

/* The string of a span: the span's own bytes if it has no escapes, else decoded into *scratch. */
bool mfi_span_text(mfi_json_span span, mfi_buf *scratch, const char **text, size_t *len);

#endif
