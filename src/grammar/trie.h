/* A vocabulary as a trie over bytes, laid out in the order of a walk. Immutable after open, so that
 * any number of matchers may use it. */
#ifndef MFI_GRAMMAR_TRIE_H
#define MFI_GRAMMAR_TRIE_H

#include "base/status.h"

/* What a trie is made of. */
typedef struct mfi_vocab_pieces {
    void *ctx;
    uint32_t n;
    /* The bytes of a token; length 0: one that never stands for text. */
    const char *(*piece)(void *ctx, uint32_t id, size_t *len);
} mfi_vocab_pieces;

/* Characters by their first byte: those below 0x80, then lead bytes from 0xC0. */
typedef struct mfi_char_set {
    uint64_t bits[3];
} mfi_char_set;

static inline void mfi_char_set_add(mfi_char_set *set, unsigned first)
{
    set->bits[first < 0x80 ? first >> 6 : 2] |= (uint64_t)1 << (first & 63);
}

static inline bool mfi_char_set_meets(const mfi_char_set *a, const mfi_char_set *b)
{
    return (a->bits[0] & b->bits[0]) | (a->bits[1] & b->bits[1]) | (a->bits[2] & b->bits[2]);
}

static inline bool mfi_char_set_within(const mfi_char_set *a, const mfi_char_set *b)
{
    return !((a->bits[0] & ~b->bits[0]) | (a->bits[1] & ~b->bits[1]) | (a->bits[2] & ~b->bits[2]));
}

typedef struct mfi_vocab_node {
    uint32_t skip;  /* the first node that is not below this one */
    uint32_t first; /* of its tokens in `ids`; those of all below follow */
    uint32_t below; /* index in `below`; 0: none (little below, or not UTF-8 from its border on) */
    uint16_t depth; /* bytes from the root, whose depth is 0 */
    uint8_t byte;   /* that leads here */
    uint8_t height; /* characters that begin on the way down that has most; 255: that or more */
} mfi_vocab_node;

typedef struct mfi_vocab_trie {
    mfi_vocab_node *nodes; /* [n_nodes + 1]; the last only ends the ranges */
    mfi_char_set *below;   /* characters at and below a node, that which it is in the midst of
                            * among them; below[0] is unused */
    int32_t *ids;          /* [n_ids] in the order of the walk */
    uint16_t *lengths;     /* [n_ids] bytes of each that begin a character */
    uint32_t n_nodes, n_below, n_ids;
    uint32_t n_vocab;
    uint32_t depth_max;
} mfi_vocab_trie;

mf_status mfi_vocab_trie_open(mfi_vocab_trie **trie, const mfi_vocab_pieces *pieces, mf_error *err);
void mfi_vocab_trie_close(mfi_vocab_trie **trie);

#endif
