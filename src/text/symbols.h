/* The characters of a piece as ids, for BPE and byte fallback over text of characters
 * (SentencePiece's kind), and the places where such a piece can be cut without changing its ids. */
#ifndef MFI_TEXT_SYMBOLS_H
#define MFI_TEXT_SYMBOLS_H

#include "text/bpe.h"
#include "text/vocab.h"

enum { MFI_UNK_NONE = -1, MFI_UNK_MISSING = -2 /* named, but not in the vocabulary */ };

typedef struct mfi_symbols {
    int32_t *direct;      /* ids of the first characters; -1: none */
    int32_t byte_id[256]; /* of "<0x00>" ..., -1: none */
    int32_t unk;
    bool byte_fallback;
    bool fuse_unk;
    bool no_cuts;
    uint8_t *joints; /* bits: hashes of the two characters where merges join */
} mfi_symbols;

/* The vocabulary is complete. byte_id is filled; unk, byte_fallback and fuse_unk are the caller's
 * to set. */
mf_status mfi_symbols_open(mfi_symbols *symbols, const mfi_vocab *vocab, mf_error *err);
void mfi_symbols_close(mfi_symbols *symbols);
uint64_t mfi_symbols_bytes(const mfi_symbols *symbols);
/* To be told of each merge. */
void mfi_symbols_note_merge(mfi_symbols *symbols, const mfi_vocab *vocab, int32_t left,
                            int32_t right);

/* Behind the last merge. */
void mfi_symbols_settle(mfi_symbols *symbols);

/* True if byte fallback never lacks one. */
bool mfi_symbols_has_all_bytes(const mfi_symbols *symbols);

/* Where the stretch that begins at `from` ends: no merge reaches over its ends. */
size_t mfi_symbols_cut(const mfi_symbols *symbols, const char *piece, size_t len, size_t from);
/* Appends the ids of valid UTF-8 that BPE makes of its characters. */
mf_status mfi_symbols_encode(const mfi_symbols *symbols, const mfi_vocab *vocab, const mfi_bpe *bpe,
                             mfi_bpe_scratch *scratch, const char *piece, size_t len, mfi_ids *ids,
                             mf_error *err);
/* Appends the bytes' ids; false if one lacks, and then nothing (or out of memory: *failed). */
bool mfi_symbols_put_bytes(const mfi_symbols *symbols, const char *text, size_t len, mfi_ids *ids,
                           bool *failed);

#endif
