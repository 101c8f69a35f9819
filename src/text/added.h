/* Added tokens: found in the text before BPE sees it. */
#ifndef MFI_TEXT_ADDED_H
#define MFI_TEXT_ADDED_H

#include "base/json.h"
#include "text/normalizer.h"
#include "text/vocab.h"

typedef struct mfi_added_token {
    int32_t id;
    bool special, single_word, lstrip, rstrip, normalized;
} mfi_added_token;

typedef struct mfi_trie_node {
    uint32_t child, sibling; /* 0: none */
    uint32_t token;          /* index + 1; 0: no token ends here */
    unsigned char byte;
} mfi_trie_node;

typedef struct mfi_trie {
    mfi_trie_node *nodes; /* [n], nodes[0] is the root */
    uint32_t n, cap;
    uint32_t first[256]; /* the root's child for a byte; 0: none */
} mfi_trie;

typedef struct mfi_added {
    mfi_added_token *tokens;
    uint32_t n;
    mfi_trie verbatim;   /* looked for in the text as it is */
    mfi_trie normalized; /* looked for in what the normaliser made of the rest */
} mfi_added;

/* The number of ids that "added_tokens" needs (its highest id + 1). */
mf_status mfi_added_survey(const mfi_json *list, uint32_t *n_ids, mf_error *err);
/* Reads "added_tokens" and enters them into the vocabulary. */
mf_status mfi_added_open(mfi_added *added, const mfi_json *list, const mfi_normalizer *normalizer,
                         mfi_vocab *vocab, mf_error *err);
void mfi_added_close(mfi_added *added);
uint64_t mfi_added_bytes(const mfi_added *added);

/* A part of a text, in bytes. */
typedef struct mfi_extent {
    size_t start, end;
} mfi_extent;

/* Goes through a text: stretches without added tokens (id -1) and added tokens, in order. */
typedef struct mfi_added_iter {
    const mfi_added *added;
    const mfi_trie *trie;
    const char *text;
    size_t len;
    const mfi_extent *plain; /* [n_plain] where no token is looked for; ascending, not empty */
    size_t n_plain;
    size_t search; /* where to look for the next match */
    size_t done;   /* what was given out */
    size_t token_start, token_end;
    int32_t token_id; /* found but not given out; -1: none */
} mfi_added_iter;

void mfi_added_begin(mfi_added_iter *it, const mfi_added *added, const mfi_trie *trie,
                     const char *text, size_t len);
/* Behind mfi_added_begin: tokens that touch these parts are not found; the longest that ends in
 * front of them is. */
void mfi_added_set_plain(mfi_added_iter *it, const mfi_extent *plain, size_t n_plain);
bool mfi_added_next(mfi_added_iter *it, size_t *start, size_t *end, int32_t *id);

#endif
