/* The merges that a vocabulary implies: SentencePiece and tiktoken have no list of them, but join
 * any two neighbours that make a token, the best token first and of equals the leftmost. With all
 * ways to make a token in the table, under the token's rank, the usual merging does the same. Runs
 * while a tokenizer is opened. */
#include "text/tokenizer_int.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

typedef struct ranked {
    double score;
    uint32_t id;
} ranked;

static int by_score(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

mf_status mfi_ranks_by_score(uint32_t *ranks, const double *scores, uint32_t n, mf_error *err)
{
    ranked *order = malloc(((size_t)n + 1) * sizeof *order);
    uint32_t n_ranked = 0, rank = 0;
    if (!order)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory");
    for (uint32_t id = 0; id < n; id++)
        if (ranks[id] != UINT32_MAX)
            order[n_ranked++] = (ranked){scores[id], id};
    qsort(order, n_ranked, sizeof *order, by_score);
    for (uint32_t i = 0; i < n_ranked; i++) {
        rank += i && order[i].score != order[i - 1].score;
        ranks[order[i].id] = rank;
    }
    free(order);
    return MF_OK;
}

typedef struct pair {
    uint32_t left, right, id;
} pair;

/* Appends the ways to make token id of two others. */
static void find_pairs(const mfi_vocab *vocab, const uint32_t *ranks, uint32_t n, uint32_t id,
                       mfi_buf *pairs)
{
    bool chars = vocab->form == MFI_VOCAB_CHARS;
    uint32_t flags = chars ? 0 : MFI_TOKEN_BYTES;
    size_t len;
    const char *text = mfi_vocab_text(vocab, (int32_t)id, &len);
    if (chars && mfi_utf8_check(text, len) < len)
        return;
    for (size_t cut = 1; cut < len; cut++) {
        if (chars && ((unsigned char)text[cut] & 0xc0) == 0x80)
            continue;
        int32_t left = mfi_vocab_find(vocab, text, cut, flags);
        if (left < 0 || (uint32_t)left >= n || ranks[left] == UINT32_MAX)
            continue;
        int32_t right = mfi_vocab_find(vocab, text + cut, len - cut, flags);
        if (right < 0 || (uint32_t)right >= n || ranks[right] == UINT32_MAX)
            continue;
        pair found = {(uint32_t)left, (uint32_t)right, id};
        mfi_buf_append(pairs, &found, sizeof found);
    }
}

mf_status mfi_merges_from_ranks(mf_tokenizer *tokenizer, const uint32_t *ranks, uint32_t n,
                                mf_error *err)
{
    const mfi_vocab *vocab = &tokenizer->vocab;
    mfi_buf pairs = {0};
    for (uint32_t id = 0; id < n; id++) {
        if (ranks[id] == UINT32_MAX)
            continue;
        if (vocab->tokens[id].len > MFI_MAX_RANKED_TOKEN_BYTES) {
            mfi_buf_free(&pairs);
            return mfi_fail(err, MF_ERR_LIMIT, "token %u is longer than %d bytes", id,
                            MFI_MAX_RANKED_TOKEN_BYTES);
        }
        find_pairs(vocab, ranks, n, id, &pairs);
    }
    size_t n_pairs = pairs.len / sizeof(pair);
    mf_status status = pairs.failed ? mfi_fail(err, MF_ERR_NO_MEMORY, "merges: out of memory")
                                    : mfi_bpe_open(&tokenizer->bpe, n_pairs, err);
    for (size_t i = 0; i < n_pairs && status == MF_OK; i++) {
        pair p;
        memcpy(&p, pairs.data + i * sizeof p, sizeof p);
        if (vocab->form == MFI_VOCAB_CHARS)
            mfi_symbols_note_merge(&tokenizer->symbols, vocab, (int32_t)p.left, (int32_t)p.right);
        mfi_bpe_add(&tokenizer->bpe, p.left, p.right, ranks[p.id], p.id);
    }
    mfi_buf_free(&pairs);
    return status;
}
