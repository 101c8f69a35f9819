/* Reading BPE merges into the table, whatever they are written in. Runs while a tokenizer is
 * opened, behind the vocabulary. */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_int.h"

mf_status mfi_merge_fail(mfi_merge_reader *r, const char *why)
{
    return mfi_fail(r->err, MF_ERR_FORMAT, "merges: entry %u %s", r->rank, why);
}

/* One side of a merge: its id, or -1 if it is no byte-level text and so never met. */
static mf_status find_side(mfi_merge_reader *r, const char *text, size_t len, int32_t *id)
{
    char bytes[MFI_MAX_TOKEN_BYTES];
    size_t n;
    if (len > MFI_MAX_TOKEN_BYTES)
        return mfi_merge_fail(r, "is too long");
    if (r->tokenizer->vocab.form == MFI_VOCAB_CHARS) {
        *id = mfi_vocab_find(&r->tokenizer->vocab, text, len, 0);
    } else if (mfi_byte_level_decode(text, len, bytes, &n)) {
        *id = mfi_vocab_find(&r->tokenizer->vocab, bytes, n, MFI_TOKEN_BYTES);
    } else {
        *id = -1;
        return MF_OK;
    }
    return *id < 0 ? mfi_merge_fail(r, "is not in the vocabulary") : MF_OK;
}

mf_status mfi_merge_add(mfi_merge_reader *r, const char *left, size_t left_len, const char *right,
                        size_t right_len)
{
    const mfi_vocab *vocab = &r->tokenizer->vocab;
    int32_t a, b;
    MFI_TRY(find_side(r, left, left_len, &a));
    MFI_TRY(find_side(r, right, right_len, &b));
    if (a < 0 || b < 0)
        return MF_OK;
    r->joined.len = 0;
    mfi_buf_append(&r->joined, vocab->pool.data + vocab->tokens[a].offset, vocab->tokens[a].len);
    mfi_buf_append(&r->joined, vocab->pool.data + vocab->tokens[b].offset, vocab->tokens[b].len);
    if (r->joined.failed)
        return mfi_fail(r->err, MF_ERR_NO_MEMORY, "merges: out of memory");
    int32_t id = mfi_vocab_find(vocab, r->joined.data, r->joined.len,
                                vocab->form == MFI_VOCAB_CHARS ? 0 : MFI_TOKEN_BYTES);
    if (id < 0)
        return mfi_merge_fail(r, "makes a token that is not in the vocabulary");
    if (vocab->form == MFI_VOCAB_CHARS)
        mfi_symbols_note_merge(&r->tokenizer->symbols, vocab, a, b);
    mfi_bpe_add(&r->tokenizer->bpe, (uint32_t)a, (uint32_t)b, r->rank, (uint32_t)id);
    return MF_OK;
}

mf_status mfi_merge_add_joined(mfi_merge_reader *r, const char *text, size_t len)
{
    const char *space = memchr(text, ' ', len);
    if (!space)
        return mfi_merge_fail(r, "has no space");
    const char *right = space + 1;
    size_t left_len = (size_t)(space - text), right_len = len - left_len - 1;
    if (memchr(right, ' ', right_len))
        return mfi_merge_fail(r, "has two spaces");
    return mfi_merge_add(r, text, left_len, right, right_len);
}

void mfi_merge_reader_free(mfi_merge_reader *r)
{
    mfi_buf_free(&r->text[0]);
    mfi_buf_free(&r->text[1]);
    mfi_buf_free(&r->joined);
}

bool mfi_tokenizer_find_bytes(mf_tokenizer *tokenizer)
{
    bool complete = true;
    for (int b = 0; b < 256; b++) {
        char byte = (char)b;
        tokenizer->bpe.byte_id[b] = mfi_vocab_find(&tokenizer->vocab, &byte, 1, MFI_TOKEN_BYTES);
        complete &= tokenizer->bpe.byte_id[b] >= 0;
    }
    return complete;
}
