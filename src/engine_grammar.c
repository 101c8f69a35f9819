/* The vocabulary as grammars see it. Composes text and grammar, which don't know each other. Called
 * at open, on the caller's thread. */
#include "engine_int.h"

typedef struct vocabulary {
    const mf_tokenizer *tokenizer;
    const int32_t *eos;
    uint32_t n_eos;
} vocabulary;

static const char *piece(void *ctx, uint32_t id, size_t *len)
{
    const vocabulary *v = ctx;
    *len = 0;
    for (uint32_t i = 0; i < v->n_eos; i++)
        if (v->eos[i] == (int32_t)id)
            return "";
    /* Special tokens have no text here: they never stand for it. */
    return mf_tokenizer_piece(v->tokenizer, (int32_t)id, false, len);
}

mf_status mfi_engine_trie_open(mfi_vocab_trie **trie, const mf_tokenizer *tokenizer,
                               uint32_t n_vocab, const int32_t *eos, uint32_t n_eos, mf_error *err)
{
    vocabulary v = {tokenizer, eos, n_eos};
    return mfi_vocab_trie_open(trie, &(mfi_vocab_pieces){&v, n_vocab, piece}, err);
}
