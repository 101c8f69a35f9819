/* Unigram: the likeliest way to write a piece as vocabulary entries. */
#ifndef MFI_TEXT_UNIGRAM_H
#define MFI_TEXT_UNIGRAM_H

#include "text/symbols.h"

typedef struct mfi_unigram_edge {
    uint32_t parent, child; /* child 0: an empty slot */
    uint32_t byte;
} mfi_unigram_edge;

/* All ways to begin an entry, as a trie. */
typedef struct mfi_unigram {
    mfi_unigram_edge *edges; /* open addressing, [n_edges], a power of two */
    size_t n_edges, n_used;
    int32_t *ids;   /* [n_nodes] of the entry that ends here, -1: none */
    double *scores; /* [n_nodes] */
    uint32_t n_nodes, node_cap;
    double min_score;
    bool fuse_unk;
    bool single; /* sums are rounded to single precision, as SentencePiece's: it decides ties */
} mfi_unigram;

typedef struct mfi_unigram_scratch {
    struct mfi_unigram_best *best;
    size_t cap;
    mfi_ids spans; /* ends of the best path, last first */
} mfi_unigram_scratch;

mf_status mfi_unigram_open(mfi_unigram *unigram, mf_error *err);
/* Of two entries with one text the later one stays. */
mf_status mfi_unigram_add(mfi_unigram *unigram, const char *text, size_t len, int32_t id,
                          double score, mf_error *err);
void mfi_unigram_close(mfi_unigram *unigram);
uint64_t mfi_unigram_bytes(const mfi_unigram *unigram);

/* Appends the ids of valid UTF-8; what no entry covers becomes bytes or the unknown token, by what
 * `symbols` says. */
mf_status mfi_unigram_encode(const mfi_unigram *unigram, const mfi_symbols *symbols,
                             const mfi_vocab *vocab, mfi_unigram_scratch *scratch,
                             const char *piece, size_t len, mfi_ids *ids, mf_error *err);
void mfi_unigram_scratch_free(mfi_unigram_scratch *scratch);

#endif
