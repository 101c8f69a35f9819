/* The vocabulary: one pool of bytes, an entry an id, a hash from bytes to id.
 *
 * Filled while a tokenizer is opened, straight from the JSON text (a tree of it would take ten
 * times the room); only read afterwards, by any thread. */
#include "text/vocab.h"
#include "base/hash.h"
#include "base/limits.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

/* The byte that a character of the byte-level alphabet stands for, or -1: visible Latin-1
 * characters are themselves, the others follow from U+0100 on in order. */
static int byte_of(uint32_t cp)
{
    if ((cp >= 0x21 && cp <= 0x7e) || (cp >= 0xa1 && cp <= 0xac) || (cp >= 0xae && cp <= 0xff))
        return (int)cp;
    if (cp >= 0x100 && cp <= 0x120)
        return (int)(cp - 0x100); /* 00 to 20 */
    if (cp >= 0x121 && cp <= 0x142)
        return (int)(cp - 0x121 + 0x7f); /* 7f to a0 */
    return cp == 0x143 ? 0xad : -1;
}

bool mfi_byte_level_decode(const char *text, size_t len, char *dst, size_t *n)
{
    const char *p = text, *end = text + len;
    size_t out = 0;
    while (p < end) {
        uint32_t cp;
        size_t step = mfi_utf8_decode(p, end, &cp);
        int byte = step ? byte_of(cp) : -1;
        if (byte < 0)
            return false;
        dst[out++] = (char)byte;
        p += step;
    }
    *n = out;
    return true;
}

bool mfi_span_text(mfi_json_span span, mfi_buf *scratch, const char **text, size_t *len)
{
    if (!span.text || mfi_json_span_type(span) != MFI_JSON_STRING)
        return false;
    *text = span.text + 1;
    *len = span.len - 2;
    if (!memchr(*text, '\\', *len))
        return true;
    scratch->len = 0;
    if (!mfi_json_span_str(span, scratch) || scratch->failed)
        return false;
    *text = scratch->data ? scratch->data : "";
    *len = scratch->len;
    return true;
}

/* A slot is 0 or a token's id + 1 below 8 bits of its hash, which spare most vain looks at tokens.
 */
#define ID_BITS 24
#define ID_MASK (((uint32_t)1 << ID_BITS) - 1)
_Static_assert(MFI_MAX_VOCAB <= (uint32_t)1 << ID_BITS, "ids fit a slot");

static uint32_t *index_slot(const mfi_vocab *vocab, uint64_t hash, const char *bytes, size_t len,
                            uint32_t flags, uint32_t *tag)
{
    uint32_t mask = vocab->n_index - 1;
    *tag = (uint32_t)(hash >> 56) << ID_BITS;
    for (uint32_t i = (uint32_t)hash & mask;; i = (i + 1) & mask) {
        uint32_t *slot = &vocab->index[i];
        if (!*slot)
            return slot;
        if ((*slot & ~ID_MASK) != *tag)
            continue;
        const mfi_token *token = &vocab->tokens[(*slot & ID_MASK) - 1];
        if (token->len == len && (token->flags & MFI_TOKEN_BYTES) == flags &&
            memcmp(vocab->pool.data + token->offset, bytes, len) == 0)
            return slot;
    }
}

static uint32_t filter_bit(const mfi_vocab *vocab, uint64_t hash)
{
    return (uint32_t)(hash >> 24) & (vocab->n_index * 4 - 1);
}

int32_t mfi_vocab_find(const mfi_vocab *vocab, const char *bytes, size_t len, uint32_t flags)
{
    uint64_t hash = mfi_hash_bytes(bytes, len);
    uint32_t tag, bit = filter_bit(vocab, hash);
    if (!(vocab->filter[bit / 64] >> bit % 64 & 1))
        return -1;
    return (int32_t)(*index_slot(vocab, hash, bytes, len, flags, &tag) & ID_MASK) - 1;
}

/* Counts the entries and finds the highest id. */
static mf_status survey(mfi_json_span object, uint32_t *n_entries, uint32_t *n_ids, mf_error *err)
{
    mfi_json_iter it = mfi_json_span_iter(object);
    mfi_json_span key, value;
    while (mfi_json_object_next(&it, &key, &value)) {
        int64_t id;
        if (!mfi_json_span_i64(value, &id) || id < 0)
            return mfi_fail(err, MF_ERR_FORMAT, "vocab: entry %u has no id", *n_entries);
        if (id >= MFI_MAX_VOCAB - 1 || *n_entries == MFI_MAX_VOCAB)
            return mfi_fail(err, MF_ERR_LIMIT, "vocab: more than %u ids", MFI_MAX_VOCAB);
        *n_ids = MFI_MAX(*n_ids, (uint32_t)id + 1);
        (*n_entries)++;
    }
    return MF_OK;
}

mf_status mfi_vocab_put(mfi_vocab *vocab, int64_t id, const char *text, size_t len, bool *repeats,
                        mf_error *err)
{
    size_t n_bytes;
    char bytes[MFI_MAX_TOKEN_BYTES];
    MFI_ASSERT(id >= 0 && id < vocab->n);
    if (len > MFI_MAX_TOKEN_BYTES)
        return mfi_fail(err, MF_ERR_LIMIT, "vocab: id %lld is longer than %d bytes", (long long)id,
                        MFI_MAX_TOKEN_BYTES);
    mfi_token *token = &vocab->tokens[id];
    if (token->flags)
        return mfi_fail(err, MF_ERR_FORMAT, "vocab: two entries have id %lld", (long long)id);
    uint32_t flags = vocab->form == MFI_VOCAB_BYTES ? MFI_TOKEN_BYTES : 0;
    if (vocab->form == MFI_VOCAB_ALPHABET && mfi_byte_level_decode(text, len, bytes, &n_bytes)) {
        text = bytes;
        len = n_bytes;
        flags = MFI_TOKEN_BYTES;
    }
    uint64_t hash = mfi_hash_bytes(text, len);
    uint32_t tag, *slot = index_slot(vocab, hash, text, len, flags, &tag);
    uint32_t bit = filter_bit(vocab, hash);
    vocab->filter[bit / 64] |= (uint64_t)1 << bit % 64;
    *repeats = *slot != 0;
    *token = (mfi_token){.offset = (uint32_t)vocab->pool.len,
                         .len = (uint16_t)len,
                         .flags = (uint16_t)(MFI_TOKEN_PRESENT | flags)};
    mfi_buf_append(&vocab->pool, text, len);
    if (!*repeats)
        *slot = ((uint32_t)id + 1) | tag;
    if (vocab->pool.len > UINT32_MAX) /* offsets have 32 bits */
        return mfi_fail(err, MF_ERR_LIMIT, "vocab: more than 4 GiB of text");
    return vocab->pool.failed ? mfi_fail(err, MF_ERR_NO_MEMORY, "vocab: out of memory") : MF_OK;
}

void mfi_vocab_prefer(mfi_vocab *vocab, int32_t id)
{
    const mfi_token *token = &vocab->tokens[id];
    const char *text = vocab->pool.data + token->offset;
    uint32_t tag, *slot = index_slot(vocab, mfi_hash_bytes(text, token->len), text, token->len,
                                     token->flags & MFI_TOKEN_BYTES, &tag);
    *slot = ((uint32_t)id + 1) | tag;
}

static mf_status add_entry(mfi_vocab *vocab, mfi_json_span key, int64_t id, mfi_buf *scratch,
                           mf_error *err)
{
    const char *text;
    size_t len;
    bool repeats;
    if (!mfi_span_text(key, scratch, &text, &len))
        return mfi_fail(err, MF_ERR_FORMAT, "vocab: entry for id %lld has no text", (long long)id);
    MFI_TRY(mfi_vocab_put(vocab, id, text, len, &repeats, err));
    if (repeats) /* "a" and "\u0061" */
        return mfi_fail(err, MF_ERR_FORMAT, "vocab: two entries like that of id %lld",
                        (long long)id);
    return MF_OK;
}

static mf_status fill(mfi_vocab *vocab, mfi_json_span object, mf_error *err)
{
    mfi_buf scratch = {0};
    mfi_json_iter it = mfi_json_span_iter(object);
    mfi_json_span key, value;
    mf_status status = MF_OK;
    while (status == MF_OK && mfi_json_object_next(&it, &key, &value)) {
        int64_t id = -1;
        mfi_json_span_i64(value, &id);
        status = add_entry(vocab, key, id, &scratch, err);
    }
    mfi_buf_free(&scratch);
    return status;
}

mf_status mfi_vocab_open_empty(mfi_vocab *vocab, mfi_vocab_form form, uint32_t n_ids,
                               uint32_t n_entries, mf_error *err)
{
    *vocab = (mfi_vocab){.form = form, .n = n_ids, .n_index = 16};
    while (vocab->n_index < n_entries + n_entries / 2)
        vocab->n_index *= 2;
    vocab->tokens = calloc(n_ids ? n_ids : 1, sizeof *vocab->tokens);
    vocab->index = calloc(vocab->n_index, sizeof *vocab->index);
    vocab->filter = calloc(vocab->n_index / 16, sizeof *vocab->filter);
    mfi_buf_append(&vocab->pool, "", 0);
    if (vocab->tokens && vocab->index && vocab->filter && !vocab->pool.failed)
        return MF_OK;
    mfi_vocab_close(vocab);
    return mfi_fail(err, MF_ERR_NO_MEMORY, "vocab: no memory for %u entries", n_entries);
}

mf_status mfi_vocab_open(mfi_vocab *vocab, mfi_vocab_form form, mfi_json_span object,
                         uint32_t n_min, mf_error *err)
{
    *vocab = (mfi_vocab){0};
    uint32_t n_entries = 0, n_ids = n_min;
    if (!object.text || mfi_json_span_type(object) != MFI_JSON_OBJECT)
        return mfi_fail(err, MF_ERR_FORMAT, "vocab: not an object");
    MFI_TRY(survey(object, &n_entries, &n_ids, err));
    MFI_TRY(mfi_vocab_open_empty(vocab, form, n_ids, n_entries, err));
    mf_status status = fill(vocab, object, err);
    if (status != MF_OK)
        mfi_vocab_close(vocab);
    return status;
}

void mfi_vocab_close(mfi_vocab *vocab)
{
    mfi_buf_free(&vocab->pool);
    free(vocab->tokens);
    free(vocab->shown);
    free(vocab->first);
    free(vocab->index);
    free(vocab->filter);
    *vocab = (mfi_vocab){0};
}

uint64_t mfi_vocab_bytes(const mfi_vocab *vocab)
{
    return vocab->pool.cap + (uint64_t)vocab->n * sizeof *vocab->tokens +
           (vocab->shown ? (uint64_t)vocab->n * sizeof *vocab->shown : 0) +
           vocab->first_cap * sizeof *vocab->first +
           (uint64_t)vocab->n_index * sizeof *vocab->index + vocab->n_index / 2;
}

/* The id the model's vocabulary has for a token written as `text`, or -1. */
static int32_t find_written(const mfi_vocab *vocab, const char *text, size_t len)
{
    char bytes[MFI_MAX_ADDED_TOKEN_BYTES];
    size_t n;
    if (vocab->form == MFI_VOCAB_ALPHABET && mfi_byte_level_decode(text, len, bytes, &n))
        return mfi_vocab_find(vocab, bytes, n, MFI_TOKEN_BYTES);
    return mfi_vocab_find(vocab, text, len, vocab->form == MFI_VOCAB_BYTES ? MFI_TOKEN_BYTES : 0);
}

mf_status mfi_vocab_add(mfi_vocab *vocab, int32_t id, const char *text, size_t len, bool special,
                        mf_error *err)
{
    MFI_ASSERT(len <= MFI_MAX_ADDED_TOKEN_BYTES && id >= 0 && (uint32_t)id < vocab->n);
    mfi_token *token = &vocab->tokens[id];
    int32_t known = find_written(vocab, text, len);
    if (known != (token->flags ? id : -1) || (token->flags & MFI_TOKEN_ADDED))
        return mfi_fail(err, MF_ERR_FORMAT, "added token %d does not fit the vocabulary", id);
    token->flags |= (uint16_t)(MFI_TOKEN_PRESENT | MFI_TOKEN_ADDED);
    token->flags |= special ? MFI_TOKEN_SPECIAL : 0;
    if (known >= 0 && token->len == len && memcmp(vocab->pool.data + token->offset, text, len) == 0)
        return MF_OK;
    /* An added token is decoded as its own text, whatever that means as byte-level text. */
    token->flags &= (uint16_t)~MFI_TOKEN_BYTES;
    token->offset = (uint32_t)vocab->pool.len;
    token->len = (uint16_t)len;
    mfi_buf_append(&vocab->pool, text, len);
    return vocab->pool.failed ? mfi_fail(err, MF_ERR_NO_MEMORY, "vocab: out of memory") : MF_OK;
}
