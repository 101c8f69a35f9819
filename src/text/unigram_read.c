/* Reading a Unigram vocabulary from tokenizer.json. Runs while a tokenizer is opened; everything in
 * the file is foreign. */
#include "text/tokenizer_int.h"

#include <stdlib.h>

/* ["piece", score] */
static mf_status read_entry(mfi_json_span entry, size_t i, mfi_buf *scratch, const char **text,
                            size_t *len, double *score, mf_error *err)
{
    mfi_json_span piece, number, more;
    mfi_json *value = NULL;
    bool ok = mfi_json_span_type(entry) == MFI_JSON_ARRAY;
    if (ok) {
        mfi_json_iter it = mfi_json_span_iter(entry);
        ok = mfi_json_array_next(&it, &piece) && mfi_json_array_next(&it, &number) &&
             !mfi_json_array_next(&it, &more) && mfi_span_text(piece, scratch, text, len);
    }
    if (ok) {
        MFI_TRY(mfi_json_span_parse(number, &value, err));
        ok = mfi_json_f64(value, score);
        mfi_json_free(&value);
    }
    return ok ? MF_OK
              : mfi_fail(err, MF_ERR_FORMAT, "vocab: entry %zu is not a text and a score", i);
}

static mf_status read_entries(mf_tokenizer *t, mfi_json_span list, mfi_buf *scratch, mf_error *err)
{
    mfi_json_iter it = mfi_json_span_iter(list);
    mfi_json_span entry;
    for (uint32_t i = 0; mfi_json_array_next(&it, &entry); i++) {
        const char *text;
        size_t len;
        double score;
        bool repeats;
        MFI_TRY(read_entry(entry, i, scratch, &text, &len, &score, err));
        MFI_TRY(mfi_vocab_put(&t->vocab, i, text, len, &repeats, err));
        if (repeats)
            return mfi_fail(err, MF_ERR_UNSUPPORTED, "vocab: entry %u repeats another", i);
        MFI_TRY(mfi_unigram_add(&t->unigram, text, len, (int32_t)i, score, err));
    }
    return MF_OK;
}

mf_status mfi_unigram_read(mf_tokenizer *tokenizer, mfi_json_span list, mfi_json_span unk_id,
                           bool byte_fallback, uint32_t n_min, mf_error *err)
{
    tokenizer->kind = MFI_MODEL_UNIGRAM;
    if (!list.text || mfi_json_span_type(list) != MFI_JSON_ARRAY)
        return mfi_fail(err, MF_ERR_FORMAT, "vocab: not a list");
    uint32_t n = 0;
    int64_t unk = -1;
    mfi_json_span entry;
    mfi_json_iter it = mfi_json_span_iter(list);
    while (mfi_json_array_next(&it, &entry))
        if (++n >= MFI_MAX_VOCAB)
            return mfi_fail(err, MF_ERR_LIMIT, "vocab: more than %u ids", MFI_MAX_VOCAB);
    if (unk_id.text && mfi_json_span_type(unk_id) != MFI_JSON_NULL &&
        (!mfi_json_span_i64(unk_id, &unk) || unk < 0 || unk >= n))
        return mfi_fail(err, MF_ERR_FORMAT, "model: unk_id is outside the vocabulary");
    MFI_TRY(mfi_vocab_open_empty(&tokenizer->vocab, MFI_VOCAB_CHARS, MFI_MAX(n, n_min), n, err));
    MFI_TRY(mfi_unigram_open(&tokenizer->unigram, err));
    mfi_buf scratch = {0};
    mf_status status = read_entries(tokenizer, list, &scratch, err);
    mfi_buf_free(&scratch);
    if (status == MF_OK)
        status = mfi_symbols_open(&tokenizer->symbols, &tokenizer->vocab, err);
    if (status == MF_OK) {
        tokenizer->symbols.unk = unk < 0 ? MFI_UNK_NONE : (int32_t)unk;
        tokenizer->symbols.byte_fallback = byte_fallback;
    }
    return status;
}
