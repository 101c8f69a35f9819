/* Encoding: added tokens, normaliser, pre-tokeniser and model, one after the other.
 *
 * All scratch lives on the call, so any number of threads may use one tokenizer. A text may come in
 * spans of which some are plain: what a user wrote is never taken for an added token, yet between
 * added tokens all is normalised and split as the one text that it is, so that plain text without
 * added tokens in it makes no difference at all. */
#include "text/tokenizer_int.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

/* Words come again and again: the ids of short pieces that this call met, by hash, the last one of
 * a slot wins. Lives on the call, so tokenizers stay free of shared state. */
#define CACHE_SLOTS          4096
#define CACHE_TEXT_BYTES_MIN 1024 /* shorter texts do without */
#define CACHE_WORD_BYTES     15
#define CACHE_IDS            7

typedef struct cached_word {
    uint64_t key[2]; /* the bytes, padded, and their number: never 0 if in use */
    int32_t ids[CACHE_IDS];
    uint32_t n_ids;
} cached_word;

typedef struct encoder {
    const mf_tokenizer *tokenizer;
    mfi_norm_scratch norm;
    mfi_pretok_scratch pretok;
    mfi_bpe_scratch bpe;
    mfi_unigram_scratch unigram;
    mfi_ids ids;
    cached_word *cache; /* [CACHE_SLOTS], or NULL */
    mf_error *err;
} encoder;

static mf_status put_id(encoder *e, int32_t id)
{
    if (!mfi_ids_push(&e->ids, id))
        return mfi_fail(e->err, MF_ERR_NO_MEMORY, "out of memory while encoding");
    return MF_OK;
}

static mf_status put_ids(encoder *e, const mfi_ids *ids)
{
    for (size_t i = 0; i < ids->n; i++)
        MFI_TRY(put_id(e, ids->data[i]));
    return MF_OK;
}

/* A piece, or a stretch that it was cut into; the same ids wherever it stands. */
static mf_status encode_word(encoder *e, const char *word, size_t len)
{
    const mf_tokenizer *t = e->tokenizer;
    if (t->kind == MFI_MODEL_UNIGRAM)
        return mfi_unigram_encode(&t->unigram, &t->symbols, &t->vocab, &e->unigram, word, len,
                                  &e->ids, e->err);
    if (t->kind == MFI_MODEL_CHARS)
        return mfi_symbols_encode(&t->symbols, &t->vocab, &t->bpe, &e->bpe, word, len, &e->ids,
                                  e->err);
    if (t->ignore_merges) {
        int32_t whole = mfi_vocab_find(&t->vocab, word, len, MFI_TOKEN_BYTES);
        if (whole >= 0)
            return put_id(e, whole);
    }
    return mfi_bpe_encode(&t->bpe, &e->bpe, word, len, &e->ids, e->err);
}

static mf_status encode_cached(encoder *e, const char *piece, size_t len)
{
    union {
        char bytes[16];
        uint64_t words[2];
    } key = {{0}};
    memcpy(key.bytes, piece, len);
    key.bytes[15] = (char)len;
    uint64_t h = (key.words[0] ^ key.words[1] * 0x9e3779b97f4a7c15u) * 0xd6e8feb86659fd93u;
    cached_word *word = &e->cache[h >> 52];
    _Static_assert(CACHE_SLOTS == 1 << (64 - 52), "the hash picks a slot");
    if (word->key[0] == key.words[0] && word->key[1] == key.words[1]) {
        for (uint32_t i = 0; i < word->n_ids; i++)
            MFI_TRY(put_id(e, word->ids[i]));
        return MF_OK;
    }
    size_t n_before = e->ids.n;
    MFI_TRY(encode_word(e, piece, len));
    size_t n = e->ids.n - n_before;
    if (n && n <= CACHE_IDS) {
        memcpy(word->key, key.words, sizeof word->key);
        memcpy(word->ids, e->ids.data + n_before, n * sizeof *word->ids);
        word->n_ids = (uint32_t)n;
    }
    return MF_OK;
}

static inline mf_status encode_short_or_long(encoder *e, const char *word, size_t len)
{
    if (e->cache && len <= CACHE_WORD_BYTES)
        return encode_cached(e, word, len);
    return encode_word(e, word, len);
}

static mf_status encode_chars(encoder *e, const char *piece, size_t len)
{
    const mf_tokenizer *t = e->tokenizer;
    if (t->ignore_merges) {
        int32_t whole = mfi_vocab_find(&t->vocab, piece, len, 0);
        if (whole >= 0)
            return put_id(e, whole);
    }
    for (size_t from = 0, end; from < len; from = end) {
        end = mfi_symbols_cut(&t->symbols, piece, len, from);
        MFI_TRY(encode_short_or_long(e, piece + from, end - from));
    }
    return MF_OK;
}

/* Normalised text without added tokens. */
static mf_status encode_plain(encoder *e, const char *text, size_t len, bool at_start)
{
    e->pretok.at_start = at_start;
    MFI_TRY(mfi_pretok_run(&e->tokenizer->pretok, &e->pretok, text, len, &text, e->err));
    for (size_t i = 0; i < e->pretok.pieces.n; i++) {
        mfi_piece piece = e->pretok.pieces.data[i];
        if (e->tokenizer->kind == MFI_MODEL_CHARS)
            MFI_TRY(encode_chars(e, text + piece.start, piece.len));
        else
            MFI_TRY(encode_short_or_long(e, text + piece.start, piece.len));
    }
    return MF_OK;
}

/* The plain parts of a text, where no added token is looked for. */
typedef struct extents {
    mfi_extent *data;
    size_t n;
} extents;

/* Where the plain parts of text[start..end) are in what the normaliser made of it, norm_len bytes:
 * each part is normalised by itself. Where that doesn't add up, all counts as plain. */
static mf_status map_extents(encoder *e, const char *text, size_t start, size_t end,
                             const extents *plain, size_t norm_len, extents *mapped)
{
    const mf_tokenizer *t = e->tokenizer;
    mfi_norm_scratch scratch = {0};
    mf_status status = MF_OK;
    size_t at = start, norm_at = 0, i = 0;
    mapped->data = malloc((plain->n + 1) * sizeof *mapped->data);
    if (!mapped->data)
        return mfi_fail(e->err, MF_ERR_NO_MEMORY, "out of memory while encoding");
    while (i < plain->n && plain->data[i].end <= start)
        i++;
    while (at < end && status == MF_OK) {
        bool in = i < plain->n && plain->data[i].start <= at;
        size_t stop = i == plain->n ? end : in ? plain->data[i].end : plain->data[i].start;
        stop = MFI_MIN(stop, end);
        const char *out;
        size_t n;
        status = mfi_normalizer_run_part(&t->normalizer, text + at, stop - at, at == start,
                                         &scratch, &out, &n, e->err);
        if (status == MF_OK && in && n)
            mapped->data[mapped->n++] = (mfi_extent){norm_at, norm_at + n};
        norm_at += status == MF_OK ? n : 0;
        at = stop;
        i += in;
    }
    mfi_norm_scratch_free(&scratch);
    if (status == MF_OK && norm_at != norm_len && mapped->n && norm_len) {
        mapped->data[0] = (mfi_extent){0, norm_len};
        mapped->n = 1;
    }
    return status;
}

/* The stretch text[start..end), without verbatim added tokens. */
static mf_status encode_stretch(encoder *e, const char *text, size_t start, size_t end,
                                const extents *plain)
{
    const mf_tokenizer *t = e->tokenizer;
    const char *out;
    size_t len, from, to;
    extents mapped = {0};
    int32_t id;
    mf_status status =
        mfi_normalizer_run(&t->normalizer, text + start, end - start, &e->norm, &out, &len, e->err);
    if (status == MF_OK && len > MFI_MAX_TEXT_BYTES)
        status = mfi_fail(e->err, MF_ERR_LIMIT, "text grows too long when normalised");
    if (status == MF_OK && plain->n && t->added.normalized.n)
        status = map_extents(e, text, start, end, plain, len, &mapped);
    mfi_added_iter it;
    mfi_added_begin(&it, &t->added, &t->added.normalized, out, len);
    mfi_added_set_plain(&it, mapped.data, mapped.n);
    while (status == MF_OK && mfi_added_next(&it, &from, &to, &id))
        status = id >= 0 ? put_id(e, id)
                         : encode_plain(e, out + from, to - from,
                                        start == 0 && from == 0 && !e->norm.cut_front);
    free(mapped.data);
    return status;
}

static mf_status encode(encoder *e, const char *text, size_t len, const extents *plain,
                        bool add_special)
{
    const mf_tokenizer *t = e->tokenizer;
    mfi_added_iter it;
    size_t start, end;
    int32_t id;
    if (add_special)
        MFI_TRY(put_ids(e, &t->prefix));
    mfi_added_begin(&it, &t->added, &t->added.verbatim, text, len);
    mfi_added_set_plain(&it, plain->data, plain->n);
    while (mfi_added_next(&it, &start, &end, &id)) {
        if (id >= 0)
            MFI_TRY(put_id(e, id));
        else
            MFI_TRY(encode_stretch(e, text, start, end, plain));
    }
    return add_special ? put_ids(e, &t->suffix) : MF_OK;
}

static mf_status encode_text(const mf_tokenizer *tokenizer, const char *text, size_t len,
                             const extents *plain, bool add_special, int32_t **ids, size_t *n_ids,
                             mf_error *err)
{
    if (len > MFI_MAX_TEXT_BYTES)
        return mfi_fail(err, MF_ERR_LIMIT, "text of %zu bytes", len);
    size_t bad = mfi_utf8_check(text, len);
    if (bad < len)
        return mfi_fail(err, MF_ERR_ARGUMENT, "text is not UTF-8 at byte %zu", bad);
    mf_error inner = {0}; /* so that the status of a failure deep inside is known */
    encoder e = {.tokenizer = tokenizer, .err = &inner};
    if (len >= CACHE_TEXT_BYTES_MIN)
        e.cache = calloc(CACHE_SLOTS, sizeof *e.cache); /* without it, it only takes longer */
    mf_status status = encode(&e, text, len, plain, add_special);
    mfi_norm_scratch_free(&e.norm);
    mfi_pretok_scratch_free(&e.pretok);
    mfi_bpe_scratch_free(&e.bpe);
    mfi_unigram_scratch_free(&e.unigram);
    free(e.cache);
    if (status == MF_OK && !e.ids.data) {
        e.ids.data = malloc(sizeof *e.ids.data); /* so that *ids is never NULL */
        if (!e.ids.data)
            status = mfi_fail(&inner, MF_ERR_NO_MEMORY, "out of memory while encoding");
    }
    if (status != MF_OK) {
        free(e.ids.data);
        return mfi_fail(err, status, "%s", inner.message);
    }
    *ids = e.ids.data;
    *n_ids = e.ids.n;
    return MF_OK;
}

mf_status mf_tokenizer_encode(const mf_tokenizer *tokenizer, const char *text, size_t len,
                              bool add_special, int32_t **ids, size_t *n_ids, mf_error *err)
{
    if (!tokenizer || (!text && len) || !ids || !n_ids)
        return mfi_fail(err, MF_ERR_ARGUMENT, "mf_tokenizer_encode: NULL argument");
    extents none = {0};
    return encode_text(tokenizer, text ? text : "", len, &none, add_special, ids, n_ids, err);
}

static mf_status join_spans(const mf_text_span *spans, size_t n_spans, mfi_buf *text,
                            extents *plain, mf_error *err)
{
    mfi_buf_append(text, "", 0);
    for (size_t i = 0; i < n_spans; i++) {
        if (!spans[i].text && spans[i].len)
            return mfi_fail(err, MF_ERR_ARGUMENT, "mf_tokenizer_encode_spans: NULL argument");
        if (spans[i].len > MFI_MAX_TEXT_BYTES - text->len)
            return mfi_fail(err, MF_ERR_LIMIT, "text of more than %llu bytes",
                            (unsigned long long)MFI_MAX_TEXT_BYTES);
        size_t start = text->len;
        if (spans[i].len)
            mfi_buf_append(text, spans[i].text, spans[i].len);
        if (text->failed)
            return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory while encoding");
        if (!spans[i].plain || !spans[i].len)
            continue;
        if (plain->n && plain->data[plain->n - 1].end == start)
            plain->data[plain->n - 1].end = text->len;
        else
            plain->data[plain->n++] = (mfi_extent){start, text->len};
    }
    return MF_OK;
}

mf_status mf_tokenizer_encode_spans(const mf_tokenizer *tokenizer, const mf_text_span *spans,
                                    size_t n_spans, bool add_special, int32_t **ids, size_t *n_ids,
                                    mf_error *err)
{
    if (!tokenizer || (!spans && n_spans) || !ids || !n_ids)
        return mfi_fail(err, MF_ERR_ARGUMENT, "mf_tokenizer_encode_spans: NULL argument");
    mfi_buf text = {0};
    extents plain = {.data = calloc(n_spans + 1, sizeof *plain.data)};
    mf_status status = plain.data ? join_spans(spans, n_spans, &text, &plain, err)
                                  : mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory while encoding");
    if (status == MF_OK)
        status = encode_text(tokenizer, text.data, text.len, &plain, add_special, ids, n_ids, err);
    free(plain.data);
    mfi_buf_free(&text);
    return status;
}
