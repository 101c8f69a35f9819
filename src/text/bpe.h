/* BPE: the symbols of a piece (bytes, or characters: symbols.h) into ids by merging neighbours,
 * lowest rank first. */
#ifndef MFI_TEXT_BPE_H
#define MFI_TEXT_BPE_H

#include "base/status.h"

typedef struct mfi_merge {
    uint32_t left, right; /* ids; left UINT32_MAX: an empty slot */
    uint32_t rank, id;    /* id: what the two become */
} mfi_merge;

typedef struct mfi_bpe {
    int32_t byte_id[256]; /* -1: the vocabulary lacks the byte, which is then dropped */
    mfi_merge *slots;     /* open addressing, [n_slots] */
    uint64_t *filter;     /* a bit for the hash of each merge: most pairs that are asked for are
                           * none, and this is dense enough to stay in a core's cache */
    uint32_t filter_bits; /* of a hash that number one of them */
    uint32_t n_slots;
} mfi_bpe;

typedef struct mfi_ids {
    int32_t *data;
    size_t n, cap;
} mfi_ids;

typedef struct mfi_bpe_node {
    uint32_t id;
    uint32_t rank, made; /* of the merge with the next node; rank UINT32_MAX: none */
    uint32_t prev, next;
} mfi_bpe_node;

/* What one call to encode needs; zero to start, one thread. */
typedef struct mfi_bpe_scratch {
    mfi_bpe_node *nodes;
    uint64_t *heap; /* rank << 32 | node: the lowest rank, then the leftmost */
    uint32_t *symbols;
    size_t n_heap, node_cap, heap_cap, symbol_cap;
} mfi_bpe_scratch;

/* Makes room for n_merges; byte_id is the caller's to fill. */
mf_status mfi_bpe_open(mfi_bpe *bpe, size_t n_merges, mf_error *err);
void mfi_bpe_close(mfi_bpe *bpe);
uint64_t mfi_bpe_bytes(const mfi_bpe *bpe);
/* A pair that is there already gets the new rank, as in Hugging Face's loader. */
void mfi_bpe_add(mfi_bpe *bpe, uint32_t left, uint32_t right, uint32_t rank, uint32_t id);

bool mfi_ids_push(mfi_ids *ids, int32_t id);
/* Appends the ids of symbols, which it overwrites; n < 2^31. O(n log n) whatever they are. Equal
 * ranks: the leftmost first. */
mf_status mfi_bpe_merge(const mfi_bpe *bpe, mfi_bpe_scratch *scratch, uint32_t *symbols, size_t n,
                        mfi_ids *ids, mf_error *err);
/* Room for n symbols, until the next call; NULL: out of memory. */
uint32_t *mfi_bpe_symbols(mfi_bpe_scratch *scratch, size_t n);
/* The same for the bytes of a piece; len < 2^31. */
mf_status mfi_bpe_encode(const mfi_bpe *bpe, mfi_bpe_scratch *scratch, const char *piece,
                         size_t len, mfi_ids *ids, mf_error *err);
void mfi_bpe_scratch_free(mfi_bpe_scratch *scratch);

#endif
