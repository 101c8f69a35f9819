/* Loading a tokenizer.json: which parts there are, and refusing what is not implemented.
 *
 * Runs inside mf_tokenizer_open. The vocabulary and the merges, nearly all of the file, are read
 * through the JSON cursor; the small parts as trees. Everything in the file is foreign. */
#include "text/tokenizer_int.h"

#include <stdlib.h>
#include <string.h>

static mf_status unsupported(mf_error *err, const char *part, const char *what)
{
    return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: %s", part, what);
}

/* ---- the model ---- */

/* Members of an object, found in one go: the object may be many megabytes long. */
typedef struct member {
    const char *key;
    mfi_json_span value; /* .text is NULL if absent */
} member;

static void find_members(mfi_json_span object, member *members, size_t n)
{
    mfi_json_iter it = mfi_json_span_iter(object);
    mfi_json_span key, value;
    while (mfi_json_object_next(&it, &key, &value))
        for (size_t i = 0; i < n; i++)
            if (mfi_json_span_is(key, members[i].key))
                members[i].value = value;
}

enum {
    MODEL_TYPE,
    MODEL_BYTE_FALLBACK,
    MODEL_DROPOUT,
    MODEL_PREFIX,
    MODEL_SUFFIX,
    MODEL_IGNORE_MERGES,
    MODEL_UNK,
    MODEL_UNK_ID,
    MODEL_FUSE_UNK,
    MODEL_VOCAB,
    MODEL_MERGES,
    N_MODEL
};

static bool is_true(mfi_json_span value)
{
    return value.text && value.text[0] == 't';
}

static bool is_set(mfi_json_span value)
{
    return value.text && value.text[0] != 'n';
}

/* Options of the model that are only known in their plain form. */
static mf_status check_model(const member *model, mf_error *err)
{
    mfi_json_span dropout = model[MODEL_DROPOUT].value;
    if (is_set(dropout) && strspn(dropout.text, "0.") < dropout.len)
        return unsupported(err, "model", "dropout");
    for (size_t i = MODEL_PREFIX; i <= MODEL_SUFFIX; i++)
        if (is_set(model[i].value) && !mfi_json_span_is(model[i].value, ""))
            return unsupported(err, "model", model[i].key);
    return MF_OK;
}

/* "a b" or ["a", "b"] */
static mf_status read_merge(mfi_merge_reader *r, mfi_json_span entry)
{
    const char *left, *right;
    size_t left_len, right_len;
    if (mfi_json_span_type(entry) == MFI_JSON_ARRAY) {
        mfi_json_iter it = mfi_json_span_iter(entry);
        mfi_json_span a, b, more;
        if (!mfi_json_array_next(&it, &a) || !mfi_json_array_next(&it, &b) ||
            mfi_json_array_next(&it, &more) || !mfi_span_text(a, &r->text[0], &left, &left_len) ||
            !mfi_span_text(b, &r->text[1], &right, &right_len))
            return mfi_merge_fail(r, "is not a pair of strings");
        return mfi_merge_add(r, left, left_len, right, right_len);
    }
    if (!mfi_span_text(entry, &r->text[0], &left, &left_len))
        return mfi_merge_fail(r, "is not a string");
    return mfi_merge_add_joined(r, left, left_len);
}

static mf_status read_merges(mf_tokenizer *tokenizer, mfi_json_span merges, mf_error *err)
{
    if (!merges.text || mfi_json_span_type(merges) != MFI_JSON_ARRAY)
        return mfi_fail(err, MF_ERR_FORMAT, "merges: not an array");
    size_t n = 0;
    mfi_json_span entry;
    mfi_json_iter it = mfi_json_span_iter(merges);
    while (mfi_json_array_next(&it, &entry))
        n++;
    MFI_TRY(mfi_bpe_open(&tokenizer->bpe, n, err));
    mfi_merge_reader r = {.tokenizer = tokenizer, .err = err};
    mf_status status = MF_OK;
    it = mfi_json_span_iter(merges);
    for (; status == MF_OK && mfi_json_array_next(&it, &entry); r.rank++)
        status = read_merge(&r, entry);
    mfi_merge_reader_free(&r);
    return status;
}

static mf_status read_char_options(mf_tokenizer *tokenizer, const member *model, mf_error *err)
{
    mfi_symbols *symbols = &tokenizer->symbols;
    MFI_TRY(mfi_symbols_open(symbols, &tokenizer->vocab, err));
    symbols->byte_fallback = is_true(model[MODEL_BYTE_FALLBACK].value);
    symbols->fuse_unk = is_true(model[MODEL_FUSE_UNK].value);
    if (!is_set(model[MODEL_UNK].value))
        return MF_OK;
    mfi_buf scratch = {0};
    const char *text;
    size_t len;
    if (!mfi_span_text(model[MODEL_UNK].value, &scratch, &text, &len)) {
        mfi_buf_free(&scratch);
        return mfi_fail(err, MF_ERR_FORMAT, "model: unk_token is not a string");
    }
    symbols->unk = mfi_vocab_find(&tokenizer->vocab, text, len, 0);
    if (symbols->unk < 0)
        symbols->unk = MFI_UNK_MISSING;
    mfi_buf_free(&scratch);
    return MF_OK;
}

static mf_status read_bpe(mf_tokenizer *tokenizer, const member *model, uint32_t n_min,
                          mf_error *err)
{
    bool bytes = tokenizer->pretok.byte_level;
    tokenizer->kind = bytes ? MFI_MODEL_BYTES : MFI_MODEL_CHARS;
    MFI_TRY(check_model(model, err));
    tokenizer->ignore_merges = is_true(model[MODEL_IGNORE_MERGES].value);
    MFI_TRY(mfi_vocab_open(&tokenizer->vocab, bytes ? MFI_VOCAB_ALPHABET : MFI_VOCAB_CHARS,
                           model[MODEL_VOCAB].value, n_min, err));
    if (!bytes)
        MFI_TRY(read_char_options(tokenizer, model, err));
    MFI_TRY(read_merges(tokenizer, model[MODEL_MERGES].value, err));
    if (!bytes) {
        mfi_symbols_settle(&tokenizer->symbols);
        return MF_OK;
    }
    bool complete = mfi_tokenizer_find_bytes(tokenizer);
    if (!complete && is_true(model[MODEL_BYTE_FALLBACK].value))
        return unsupported(err, "model", "byte_fallback with a vocabulary that lacks bytes");
    if (!complete && is_set(model[MODEL_UNK].value))
        return unsupported(err, "model", "unk_token with a vocabulary that lacks bytes");
    return MF_OK;
}

static mf_status read_model(mf_tokenizer *tokenizer, mfi_json_span object, uint32_t n_min,
                            mf_error *err)
{
    member model[N_MODEL] = {
        [MODEL_TYPE] = {.key = "type"},
        [MODEL_BYTE_FALLBACK] = {.key = "byte_fallback"},
        [MODEL_DROPOUT] = {.key = "dropout"},
        [MODEL_PREFIX] = {.key = "continuing_subword_prefix"},
        [MODEL_SUFFIX] = {.key = "end_of_word_suffix"},
        [MODEL_IGNORE_MERGES] = {.key = "ignore_merges"},
        [MODEL_UNK] = {.key = "unk_token"},
        [MODEL_UNK_ID] = {.key = "unk_id"},
        [MODEL_FUSE_UNK] = {.key = "fuse_unk"},
        [MODEL_VOCAB] = {.key = "vocab"},
        [MODEL_MERGES] = {.key = "merges"},
    };
    if (!object.text || mfi_json_span_type(object) != MFI_JSON_OBJECT)
        return mfi_fail(err, MF_ERR_FORMAT, "model: not an object");
    find_members(object, model, N_MODEL);
    mfi_json_span type = model[MODEL_TYPE].value;
    bool unigram = type.text && mfi_json_span_is(type, "Unigram");
    if (type.text && !unigram && !mfi_json_span_is(type, "BPE"))
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "model: type %.*s",
                        (int)MFI_MIN(type.len, (size_t)40), type.text);
    /* Files of old have no types: Unigram's vocabulary is a list. */
    mfi_json_span vocab = model[MODEL_VOCAB].value;
    unigram |= !type.text && vocab.text && mfi_json_span_type(vocab) == MFI_JSON_ARRAY;
    if (!unigram)
        return read_bpe(tokenizer, model, n_min, err);
    if (tokenizer->pretok.byte_level)
        return unsupported(err, "model", "Unigram over ByteLevel");
    return mfi_unigram_read(tokenizer, vocab, model[MODEL_UNK_ID].value,
                            is_true(model[MODEL_BYTE_FALLBACK].value), n_min, err);
}

/* ---- the post-processor ---- */

static mf_status add_template_token(const mfi_json *node, const mfi_json *special, mfi_ids *ids,
                                    mf_error *err)
{
    const char *name = mfi_json_str(mfi_json_get(node, "id"), NULL);
    const mfi_json *list = name ? mfi_json_get(mfi_json_get(special, name), "ids") : NULL;
    if (!mfi_json_len(list))
        return mfi_fail(err, MF_ERR_FORMAT, "post_processor: unknown special token");
    for (size_t i = 0; i < mfi_json_len(list); i++) {
        int64_t id;
        if (!mfi_json_i64(mfi_json_at(list, i), &id) || id < 0 || id >= MFI_MAX_VOCAB)
            return mfi_fail(err, MF_ERR_FORMAT, "post_processor: bad id for %s", name);
        if (!mfi_ids_push(ids, (int32_t)id))
            return mfi_fail(err, MF_ERR_NO_MEMORY, "post_processor: out of memory");
    }
    return MF_OK;
}

/* TemplateProcessing: its "single" form. */
static mf_status read_template(mf_tokenizer *tokenizer, const mfi_json *node, mf_error *err)
{
    const mfi_json *single = mfi_json_get(node, "single");
    const mfi_json *special = mfi_json_get(node, "special_tokens");
    bool have_text = false;
    mf_status status = MF_OK;
    for (size_t i = 0; i < mfi_json_len(single) && status == MF_OK; i++) {
        const mfi_json *item = mfi_json_at(single, i);
        const char *sequence =
            mfi_json_str(mfi_json_get(mfi_json_get(item, "Sequence"), "id"), NULL);
        if (mfi_json_has(item, "SpecialToken"))
            status = add_template_token(mfi_json_get(item, "SpecialToken"), special,
                                        have_text ? &tokenizer->suffix : &tokenizer->prefix, err);
        else if (sequence && strcmp(sequence, "A") == 0 && !have_text)
            have_text = true;
        else
            status = unsupported(err, "post_processor", "this TemplateProcessing");
    }
    if (status == MF_OK && !have_text)
        status = mfi_fail(err, MF_ERR_FORMAT, "post_processor: TemplateProcessing without text");
    return status;
}

/* RobertaProcessing and BertProcessing: a token in front of all, one behind. */
static mf_status read_pair(mf_tokenizer *tokenizer, const mfi_json *node, mf_error *err)
{
    int64_t cls, sep;
    if (!mfi_json_i64(mfi_json_at(mfi_json_get(node, "cls"), 1), &cls) || cls < 0 ||
        cls >= MFI_MAX_VOCAB || !mfi_json_i64(mfi_json_at(mfi_json_get(node, "sep"), 1), &sep) ||
        sep < 0 || sep >= MFI_MAX_VOCAB)
        return mfi_fail(err, MF_ERR_FORMAT, "post_processor: bad cls or sep");
    if (!mfi_ids_push(&tokenizer->prefix, (int32_t)cls) ||
        !mfi_ids_push(&tokenizer->suffix, (int32_t)sep))
        return mfi_fail(err, MF_ERR_NO_MEMORY, "post_processor: out of memory");
    return MF_OK;
}

static mf_status read_post_processor(mf_tokenizer *tokenizer, const mfi_json *node, uint32_t depth,
                                     mf_error *err)
{
    if (mfi_json_typeof(node) == MFI_JSON_NULL)
        return MF_OK;
    const char *type = mfi_json_str(mfi_json_get(node, "type"), NULL);
    if (!type)
        return mfi_fail(err, MF_ERR_FORMAT, "post_processor: no type");
    if (strcmp(type, "ByteLevel") == 0) /* moves offsets, not ids */
        return MF_OK;
    /* The second would put its tokens around each of the first one's. */
    if (strcmp(type, "Sequence") != 0 && (tokenizer->prefix.n || tokenizer->suffix.n))
        return unsupported(err, "post_processor", "more than one that adds tokens");
    if (strcmp(type, "TemplateProcessing") == 0)
        return read_template(tokenizer, node, err);
    if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0)
        return read_pair(tokenizer, node, err);
    if (strcmp(type, "Sequence") != 0)
        return unsupported(err, "post_processor", type);
    if (depth == 8)
        return mfi_fail(err, MF_ERR_LIMIT, "post_processor: sequences nested too deeply");
    const mfi_json *list = mfi_json_get(node, "processors");
    for (size_t i = 0; i < mfi_json_len(list); i++) {
        if (mfi_json_typeof(mfi_json_at(list, i)) == MFI_JSON_NULL)
            return mfi_fail(err, MF_ERR_FORMAT, "post_processor: no type");
        MFI_TRY(read_post_processor(tokenizer, mfi_json_at(list, i), depth + 1, err));
    }
    return MF_OK;
}

/* ---- the whole ---- */

enum {
    PART_NORMALIZER,
    PART_PRE,
    PART_POST,
    PART_DECODER,
    PART_ADDED,
    N_TREES,
    PART_MODEL = N_TREES
};

static mf_status read_parts(mf_tokenizer *tokenizer, const member *parts, mfi_json **trees,
                            mf_error *err)
{
    uint32_t n_ids;
    for (size_t i = 0; i < N_TREES; i++)
        if (parts[i].value.text)
            MFI_TRY(mfi_json_span_parse(parts[i].value, &trees[i], err));
    MFI_TRY(mfi_normalizer_open(&tokenizer->normalizer, trees[PART_NORMALIZER], err));
    MFI_TRY(mfi_pretok_open(&tokenizer->pretok, trees[PART_PRE], err));
    MFI_TRY(mfi_decoder_open(&tokenizer->decoder, trees[PART_DECODER], err));
    if (tokenizer->decoder.byte_level != tokenizer->pretok.byte_level)
        return unsupported(err, "decoder", "not ByteLevel exactly where the pre_tokenizer is");
    MFI_TRY(read_post_processor(tokenizer, trees[PART_POST], 0, err));
    MFI_TRY(mfi_added_survey(trees[PART_ADDED], &n_ids, err));
    MFI_TRY(read_model(tokenizer, parts[PART_MODEL].value, n_ids, err));
    MFI_TRY(mfi_added_open(&tokenizer->added, trees[PART_ADDED], &tokenizer->normalizer,
                           &tokenizer->vocab, err));
    return mfi_decoder_apply(&tokenizer->decoder, &tokenizer->vocab, err);
}

mf_status mfi_tokenizer_read(mf_tokenizer *tokenizer, const char *json, size_t len,
                             const char *what, mf_error *err)
{
    member parts[N_TREES + 1] = {
        [PART_NORMALIZER] = {.key = "normalizer"}, [PART_PRE] = {.key = "pre_tokenizer"},
        [PART_POST] = {.key = "post_processor"},   [PART_DECODER] = {.key = "decoder"},
        [PART_ADDED] = {.key = "added_tokens"},    [PART_MODEL] = {.key = "model"},
    };
    MFI_TRY(mfi_json_scan(json, len, what, err));
    mfi_json_span root = mfi_json_root(json, len);
    if (mfi_json_span_type(root) != MFI_JSON_OBJECT)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: not an object", what);
    find_members(root, parts, MFI_ARRAY_LEN(parts));
    mfi_json *trees[N_TREES] = {0}; /* the small parts */
    mf_error inner;
    mf_status status = read_parts(tokenizer, parts, trees, &inner);
    for (size_t i = 0; i < N_TREES; i++)
        mfi_json_free(&trees[i]);
    if (status != MF_OK)
        return mfi_fail(err, status, "%s: %s", what, inner.message);
    return MF_OK;
}
