/* Reading a Unigram vocabulary from tokenizer.json. Runs while a tokenizer is opened; everything in
 * the file is foreign. */
#include "text/tokenizer_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Powers of ten that are doubles. */
static double power_of_ten(int n)
{
    double p = 1;
    for (; n > 22; n -= 22)
        p *= 1e22;
    for (; n > 0; n--)
        p *= 10;
    return p;
}

/* A number as Hugging Face's tokenizers read it (serde_json): the digits as an integer, then one
 * multiplication or division, which now and then is off by the last bit; and ties between paths are
 * decided by the last bit. */
static bool read_score(mfi_json_span number, double *score)
{
    if (!number.len || !strchr("-0123456789", number.text[0]))
        return false;
    const char *p = number.text, *end = p + number.len;
    bool negative = *p == '-', behind_point = false, full = false;
    uint64_t digits = 0;
    int exponent = 0;
    for (p += negative; p < end && *p != 'e' && *p != 'E'; p++) {
        if (*p == '.') {
            behind_point = true;
            continue;
        }
        uint64_t digit = (uint64_t)(*p - '0');
        full |= digits > (UINT64_MAX - digit) / 10;
        if (!full)
            digits = digits * 10 + digit;
        exponent += full && !behind_point ? 1 : !full && behind_point ? -1 : 0;
        if (exponent < -10000 || exponent > 10000)
            return false;
    }
    int written = 0;
    bool minus = p + 1 < end && p[1] == '-';
    for (p += p < end; p < end; p++)
        if (*p >= '0' && *p <= '9' && written < 10000)
            written = written * 10 + (*p - '0');
    exponent += minus ? -written : written;
    double value = (double)digits;
    for (; exponent < -308 && value != 0; exponent += 308)
        value /= 1e308;
    if (value != 0 && exponent < 0)
        value /= power_of_ten(-exponent);
    else if (value != 0)
        value *= power_of_ten(MFI_MIN(exponent, 400));
    *score = negative ? -value : value;
    return isfinite(value);
}

/* ["piece", score] */
static mf_status read_entry(mfi_json_span entry, size_t i, mfi_buf *scratch, const char **text,
                            size_t *len, double *score, mf_error *err)
{
    mfi_json_span piece, number, more;
    bool ok = mfi_json_span_type(entry) == MFI_JSON_ARRAY;
    if (ok) {
        mfi_json_iter it = mfi_json_span_iter(entry);
        ok = mfi_json_array_next(&it, &piece) && mfi_json_array_next(&it, &number) &&
             !mfi_json_array_next(&it, &more) && mfi_span_text(piece, scratch, text, len) &&
             read_score(number, score);
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
        double score = 0;
        bool repeats;
        MFI_TRY(read_entry(entry, i, scratch, &text, &len, &score, err));
        MFI_TRY(mfi_vocab_put(&t->vocab, i, text, len, &repeats, err));
        if (repeats) /* Hugging Face takes the last one, and so does the trie */
            mfi_vocab_prefer(&t->vocab, (int32_t)i);
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
