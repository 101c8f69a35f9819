/* Any bytes as a grammar in GBNF, and a walk along it: what is allowed must be accepted. */
#include <stdlib.h>

#include "base/rng.h"
#include "grammar/matcher.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *piece(void *ctx, uint32_t id, size_t *len)
{
    static char bytes[256][2];
    static const char *const words[] = {"ab",     "abc", "\"a", "\xe2\x82",
                                        "\xac\"", "}}",  "  ",  "aa1"};
    (void)ctx;
    if (id >= 256) {
        *len = id == 256 + 4 ? 2 : id == 256 + 1 || id == 256 + 7 ? 3 : 2;
        return words[id - 256];
    }
    bytes[id][0] = (char)id;
    *len = 1;
    return bytes[id];
}

static void walk(mfi_matcher *m, const mfi_vocab_trie *trie, size_t size)
{
    mfi_rng rng = {size};
    for (int step = 0; step < 40; step++) {
        const uint32_t *mask;
        bool alive = false;
        size_t len;
        if (mfi_matcher_mask(m, &mask, NULL) != MF_OK)
            return;
        uint32_t at = (uint32_t)mfi_rng_below(&rng, trie->n_vocab), id = at;
        while (!(mask[id >> 5] >> (id & 31) & 1)) {
            id = (id + 1) % trie->n_vocab;
            if (id == at) {
                if (!mfi_matcher_must_end(m))
                    abort(); /* bytes are tokens, so that something is allowed */
                return;
            }
        }
        const char *bytes = piece(NULL, id, &len);
        if (mfi_matcher_accept(m, bytes, len, &alive, NULL) == MF_OK && !alive)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static mfi_vocab_trie *trie;
    mf_grammar *g = NULL;
    mfi_matcher *m = NULL;
    mf_error err = {0};
    if (!trie && mfi_vocab_trie_open(&trie, &(mfi_vocab_pieces){NULL, 264, piece}, &err) != MF_OK)
        abort();
    if (size > 4096)
        return 0;
    if (mf_grammar_open(&g, (const char *)data, size, &err) != MF_OK) {
        if (!err.message[0] || g)
            abort();
        return 0;
    }
    if (mfi_matcher_open(&m, g, trie, NULL, 0, &err) == MF_OK)
        walk(m, trie, size);
    mfi_matcher_close(&m);
    mf_grammar_close(&g);
    return 0;
}
