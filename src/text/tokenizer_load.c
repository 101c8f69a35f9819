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

/* Options of the model that are only known in their plain form. */
static mf_status check_model(mfi_json_span model, bool *ignore_merges, mf_error *err)
{
    static const char *const empty_strings[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    if (mfi_json_span_type(model) != MFI_JSON_OBJECT)
        return mfi_fail(err, MF_ERR_FORMAT, "model: not an object");
    mfi_json_span type = mfi_json_span_get(model, "type");
    if (type.text && !mfi_json_span_is(type, "BPE"))
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "model: type %.*s",
                        (int)MFI_MIN(type.len, (size_t)40), type.text);
    mfi_json_span value = mfi_json_span_get(model, "byte_fallback");
    if (value.text && value.text[0] == 't')
        return unsupported(err, "model", "byte_fallback");
    value = mfi_json_span_get(model, "dropout");
    if (value.text && value.text[0] != 'n' && value.text[0] != '0')
        return unsupported(err, "model", "dropout");
    for (size_t i = 0; i < MFI_ARRAY_LEN(empty_strings); i++) {
        value = mfi_json_span_get(model, empty_strings[i]);
        if (value.text && value.text[0] != 'n' && !mfi_json_span_is(value, ""))
            return unsupported(err, "model", empty_strings[i]);
    }
    value = mfi_json_span_get(model, "ignore_merges");
    *ignore_merges = value.text && value.text[0] == 't';
    return MF_OK;
}

typedef struct merge_reader {
    mf_tokenizer *tokenizer;
    mfi_buf scratch[2];
    mfi_buf joined;
    uint32_t rank;
    mf_error *err;
} merge_reader;

static mf_status bad_merge(merge_reader *r, const char *why)
{
    return mfi_fail(r->err, MF_ERR_FORMAT, "merges: entry %u %s", r->rank, why);
}

/* One side of a merge: its id, or -1 if it is no byte-level text and so never met. */
static mf_status find_side(merge_reader *r, const char *text, size_t len, int32_t *id)
{
    char bytes[MFI_MAX_TOKEN_BYTES];
    size_t n;
    if (len > MFI_MAX_TOKEN_BYTES)
        return bad_merge(r, "is too long");
    if (!mfi_byte_level_decode(text, len, bytes, &n)) {
        *id = -1;
        return MF_OK;
    }
    *id = mfi_vocab_find(&r->tokenizer->vocab, bytes, n, MFI_TOKEN_BYTES);
    return *id < 0 ? bad_merge(r, "is not in the vocabulary") : MF_OK;
}

static mf_status add_merge(merge_reader *r, const char *left, size_t left_len, const char *right,
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
    int32_t id = mfi_vocab_find(vocab, r->joined.data, r->joined.len, MFI_TOKEN_BYTES);
    if (id < 0)
        return bad_merge(r, "makes a token that is not in the vocabulary");
    mfi_bpe_add(&r->tokenizer->bpe, (uint32_t)a, (uint32_t)b, r->rank, (uint32_t)id);
    return MF_OK;
}

/* "a b" or ["a", "b"] */
static mf_status read_merge(merge_reader *r, mfi_json_span entry)
{
    const char *left, *right;
    size_t left_len, right_len;
    if (mfi_json_span_type(entry) == MFI_JSON_ARRAY) {
        mfi_json_iter it = mfi_json_span_iter(entry);
        mfi_json_span a, b, more;
        if (!mfi_json_array_next(&it, &a) || !mfi_json_array_next(&it, &b) ||
            mfi_json_array_next(&it, &more) ||
            !mfi_span_text(a, &r->scratch[0], &left, &left_len) ||
            !mfi_span_text(b, &r->scratch[1], &right, &right_len))
            return bad_merge(r, "is not a pair of strings");
        return add_merge(r, left, left_len, right, right_len);
    }
    if (!mfi_span_text(entry, &r->scratch[0], &left, &left_len))
        return bad_merge(r, "is not a string");
    const char *space = memchr(left, ' ', left_len);
    if (!space)
        return bad_merge(r, "has no space");
    right = space + 1;
    right_len = left_len - (size_t)(right - left);
    left_len = (size_t)(space - left);
    if (memchr(right, ' ', right_len))
        return bad_merge(r, "has two spaces");
    return add_merge(r, left, left_len, right, right_len);
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
    merge_reader r = {.tokenizer = tokenizer, .err = err};
    mf_status status = MF_OK;
    it = mfi_json_span_iter(merges);
    for (; status == MF_OK && mfi_json_array_next(&it, &entry); r.rank++)
        status = read_merge(&r, entry);
    mfi_buf_free(&r.scratch[0]);
    mfi_buf_free(&r.scratch[1]);
    mfi_buf_free(&r.joined);
    return status;
}

static mf_status read_model(mf_tokenizer *tokenizer, mfi_json_span model, uint32_t n_min,
                            mf_error *err)
{
    MFI_TRY(check_model(model, &tokenizer->ignore_merges, err));
    MFI_TRY(mfi_vocab_open(&tokenizer->vocab, mfi_json_span_get(model, "vocab"), n_min, err));
    MFI_TRY(read_merges(tokenizer, mfi_json_span_get(model, "merges"), err));
    bool complete = true;
    for (int b = 0; b < 256; b++) {
        char byte = (char)b;
        tokenizer->bpe.byte_id[b] = mfi_vocab_find(&tokenizer->vocab, &byte, 1, MFI_TOKEN_BYTES);
        complete &= tokenizer->bpe.byte_id[b] >= 0;
    }
    mfi_json_span unk = mfi_json_span_get(model, "unk_token");
    if (!complete && unk.text && mfi_json_span_type(unk) == MFI_JSON_STRING)
        return unsupported(err, "model", "unk_token with a vocabulary that lacks bytes");
    return MF_OK;
}

/* ---- the post-processor and the decoder ---- */

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

/* TemplateProcessing: its "single" form. Each one wraps what those in front of it made. */
static mf_status read_template(mf_tokenizer *tokenizer, const mfi_json *node, mf_error *err)
{
    const mfi_json *single = mfi_json_get(node, "single");
    const mfi_json *special = mfi_json_get(node, "special_tokens");
    mfi_ids prefix = {0};
    bool have_text = false;
    mf_status status = MF_OK;
    for (size_t i = 0; i < mfi_json_len(single) && status == MF_OK; i++) {
        const mfi_json *item = mfi_json_at(single, i);
        const char *sequence = mfi_json_str(mfi_json_get(mfi_json_get(item, "Sequence"), "id"), NULL);
        if (mfi_json_has(item, "SpecialToken"))
            status = add_template_token(mfi_json_get(item, "SpecialToken"), special,
                                        have_text ? &tokenizer->suffix : &prefix, err);
        else if (sequence && strcmp(sequence, "A") == 0 && !have_text)
            have_text = true;
        else
            status = unsupported(err, "post_processor", "this TemplateProcessing");
    }
    for (size_t i = 0; i < tokenizer->prefix.n && status == MF_OK; i++)
        if (!mfi_ids_push(&prefix, tokenizer->prefix.data[i]))
            status = mfi_fail(err, MF_ERR_NO_MEMORY, "post_processor: out of memory");
    if (status == MF_OK && !have_text)
        status = mfi_fail(err, MF_ERR_FORMAT, "post_processor: TemplateProcessing without text");
    mfi_ids old = tokenizer->prefix;
    tokenizer->prefix = prefix;
    free(old.data);
    return status;
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
    if (strcmp(type, "TemplateProcessing") == 0)
        return read_template(tokenizer, node, err);
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

/* ByteLevel, perhaps inside a Sequence with Fuse, which changes nothing behind it. */
static mf_status check_decoder(const mfi_json *node, mf_error *err)
{
    const char *type = mfi_json_str(mfi_json_get(node, "type"), NULL);
    if (!type)
        return unsupported(err, "decoder", "none");
    if (strcmp(type, "ByteLevel") == 0)
        return MF_OK;
    if (strcmp(type, "Sequence") != 0)
        return unsupported(err, "decoder", type);
    const mfi_json *list = mfi_json_get(node, "decoders");
    for (size_t i = 0; i < mfi_json_len(list); i++) {
        type = mfi_json_str(mfi_json_get(mfi_json_at(list, i), "type"), NULL);
        if (!type || strcmp(type, i ? "Fuse" : "ByteLevel") != 0)
            return unsupported(err, "decoder", type ? type : "no type");
    }
    return mfi_json_len(list) ? MF_OK : unsupported(err, "decoder", "none");
}

/* ---- the whole ---- */

/* The small parts, as trees. */
typedef struct parts {
    mfi_json *normalizer, *pre_tokenizer, *post_processor, *decoder, *added_tokens;
} parts;

static mf_status parse_part(mfi_json_span root, const char *key, mfi_json **tree, mf_error *err)
{
    mfi_json_span span = mfi_json_span_get(root, key);
    return span.text ? mfi_json_span_parse(span, tree, err) : MF_OK;
}

static mf_status read_parts(mf_tokenizer *tokenizer, mfi_json_span root, parts *p, mf_error *err)
{
    uint32_t n_ids;
    MFI_TRY(parse_part(root, "normalizer", &p->normalizer, err));
    MFI_TRY(parse_part(root, "pre_tokenizer", &p->pre_tokenizer, err));
    MFI_TRY(parse_part(root, "post_processor", &p->post_processor, err));
    MFI_TRY(parse_part(root, "decoder", &p->decoder, err));
    MFI_TRY(parse_part(root, "added_tokens", &p->added_tokens, err));
    MFI_TRY(mfi_normalizer_open(&tokenizer->normalizer, p->normalizer, err));
    MFI_TRY(mfi_pretok_open(&tokenizer->pretok, p->pre_tokenizer, err));
    if (!tokenizer->pretok.byte_level)
        return unsupported(err, "pre_tokenizer", "none that is ByteLevel");
    MFI_TRY(check_decoder(p->decoder, err));
    MFI_TRY(read_post_processor(tokenizer, p->post_processor, 0, err));
    MFI_TRY(mfi_added_survey(p->added_tokens, &n_ids, err));
    mfi_json_span model = mfi_json_span_get(root, "model");
    if (!model.text)
        return mfi_fail(err, MF_ERR_FORMAT, "no model");
    MFI_TRY(read_model(tokenizer, model, n_ids, err));
    return mfi_added_open(&tokenizer->added, p->added_tokens, &tokenizer->normalizer,
                          &tokenizer->vocab, err);
}

mf_status mfi_tokenizer_read(mf_tokenizer *tokenizer, const char *json, size_t len,
                             const char *what, mf_error *err)
{
    MFI_TRY(mfi_json_scan(json, len, what, err));
    mfi_json_span root = mfi_json_root(json, len);
    if (mfi_json_span_type(root) != MFI_JSON_OBJECT)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: not an object", what);
    parts p = {0};
    mf_error inner;
    mf_status status = read_parts(tokenizer, root, &p, &inner);
    mfi_json_free(&p.normalizer);
    mfi_json_free(&p.pre_tokenizer);
    mfi_json_free(&p.post_processor);
    mfi_json_free(&p.decoder);
    mfi_json_free(&p.added_tokens);
    if (status != MF_OK)
        return mfi_fail(err, status, "%s: %s", what, inner.message);
    return MF_OK;
}
