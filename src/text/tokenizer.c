/* The tokenizer: opening, encoding, and looking tokens up.
 *
 * The facade of src/text. A tokenizer is immutable once open; encode keeps all its scratch on the
 * call, so any number of threads may use one tokenizer. */
#include "text/tokenizer.h"
#include "os/file.h"
#include "text/tokenizer_int.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

/* ---- opening ---- */

static mf_status open_file(mf_tokenizer *tokenizer, const char *file, mf_error *err)
{
    char *json;
    size_t len;
    MFI_TRY(mfi_file_read_all(file, MFI_MAX_JSON_BYTES, &json, &len, err));
    mf_status status = mfi_tokenizer_read(tokenizer, json, len, file, err);
    free(json);
    return status;
}

mf_status mfi_tokenizer_open_json(mf_tokenizer **tokenizer, const char *path, mf_error *err)
{
    mf_tokenizer *t = calloc(1, sizeof *t);
    char *inside = mfi_path_join(path, "tokenizer.json");
    char *dir = strdup(path);
    mf_status status;
    if (!t || !inside || !dir) {
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    } else if (mfi_file_exists(inside)) {
        status = open_file(t, inside, err);
    } else {
        char *slash = strrchr(dir, '/');
        *(slash ? slash + 1 : dir) = '\0'; /* the folder it lies in */
        status = open_file(t, path, err);
    }
    if (status == MF_OK)
        status = mfi_tokenizer_read_config(t, dir[0] ? dir : ".", err);
    free(inside);
    free(dir);
    if (status != MF_OK)
        mf_tokenizer_close(&t);
    else
        *tokenizer = t;
    return status;
}

void mf_tokenizer_close(mf_tokenizer **tokenizer)
{
    mf_tokenizer *t = tokenizer ? *tokenizer : NULL;
    if (!t)
        return;
    mfi_vocab_close(&t->vocab);
    mfi_bpe_close(&t->bpe);
    mfi_pretok_close(&t->pretok);
    mfi_added_close(&t->added);
    free(t->prefix.data);
    free(t->suffix.data);
    free(t->chat_template);
    for (size_t i = 0; i < MFI_N_NAMED_TOKENS; i++)
        free(t->named[i]);
    free(t);
    *tokenizer = NULL;
}

uint64_t mfi_tokenizer_bytes(const mf_tokenizer *tokenizer)
{
    return sizeof *tokenizer + mfi_vocab_bytes(&tokenizer->vocab) + mfi_bpe_bytes(&tokenizer->bpe) +
           mfi_pretok_bytes(&tokenizer->pretok) + mfi_added_bytes(&tokenizer->added) +
           tokenizer->chat_template_len +
           (tokenizer->prefix.cap + tokenizer->suffix.cap) * sizeof(int32_t);
}

/* ---- encoding ---- */

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
    mfi_buf normalized;
    mfi_pretok_scratch pretok;
    mfi_bpe_scratch bpe;
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

static mf_status encode_piece(encoder *e, const char *piece, size_t len)
{
    const mf_tokenizer *t = e->tokenizer;
    if (t->ignore_merges) {
        int32_t whole = mfi_vocab_find(&t->vocab, piece, len, MFI_TOKEN_BYTES);
        if (whole >= 0)
            return put_id(e, whole);
    }
    return mfi_bpe_encode(&t->bpe, &e->bpe, piece, len, &e->ids, e->err);
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
    MFI_TRY(encode_piece(e, piece, len));
    size_t n = e->ids.n - n_before;
    if (n && n <= CACHE_IDS) {
        memcpy(word->key, key.words, sizeof word->key);
        memcpy(word->ids, e->ids.data + n_before, n * sizeof *word->ids);
        word->n_ids = (uint32_t)n;
    }
    return MF_OK;
}

/* Normalised text without added tokens. */
static mf_status encode_plain(encoder *e, const char *text, size_t len)
{
    MFI_TRY(mfi_pretok_run(&e->tokenizer->pretok, &e->pretok, text, len, &text, e->err));
    for (size_t i = 0; i < e->pretok.pieces.n; i++) {
        mfi_piece piece = e->pretok.pieces.data[i];
        if (e->cache && piece.len <= CACHE_WORD_BYTES)
            MFI_TRY(encode_cached(e, text + piece.start, piece.len));
        else
            MFI_TRY(encode_piece(e, text + piece.start, piece.len));
    }
    return MF_OK;
}

/* A stretch without verbatim added tokens. */
static mf_status encode_stretch(encoder *e, const char *text, size_t len)
{
    const mf_tokenizer *t = e->tokenizer;
    MFI_TRY(mfi_normalizer_run(&t->normalizer, text, len, &e->normalized, &text, &len, e->err));
    if (len > MFI_MAX_TEXT_BYTES)
        return mfi_fail(e->err, MF_ERR_LIMIT, "text grows too long when normalised");
    mfi_added_iter it;
    size_t start, end;
    int32_t id;
    mfi_added_begin(&it, &t->added, &t->added.normalized, text, len);
    while (mfi_added_next(&it, &start, &end, &id)) {
        if (id >= 0)
            MFI_TRY(put_id(e, id));
        else
            MFI_TRY(encode_plain(e, text + start, end - start));
    }
    return MF_OK;
}

static mf_status encode(encoder *e, const char *text, size_t len, bool add_special)
{
    const mf_tokenizer *t = e->tokenizer;
    mfi_added_iter it;
    size_t start, end;
    int32_t id;
    if (add_special)
        MFI_TRY(put_ids(e, &t->prefix));
    mfi_added_begin(&it, &t->added, &t->added.verbatim, text, len);
    while (mfi_added_next(&it, &start, &end, &id)) {
        if (id >= 0)
            MFI_TRY(put_id(e, id));
        else
            MFI_TRY(encode_stretch(e, text + start, end - start));
    }
    return add_special ? put_ids(e, &t->suffix) : MF_OK;
}

mf_status mf_tokenizer_encode(const mf_tokenizer *tokenizer, const char *text, size_t len,
                              bool add_special, int32_t **ids, size_t *n_ids, mf_error *err)
{
    if (!tokenizer || (!text && len) || !ids || !n_ids)
        return mfi_fail(err, MF_ERR_ARGUMENT, "mf_tokenizer_encode: NULL argument");
    if (len > MFI_MAX_TEXT_BYTES)
        return mfi_fail(err, MF_ERR_LIMIT, "text of %zu bytes", len);
    if (!text)
        text = "";
    size_t bad = mfi_utf8_check(text, len);
    if (bad < len)
        return mfi_fail(err, MF_ERR_ARGUMENT, "text is not UTF-8 at byte %zu", bad);
    encoder e = {.tokenizer = tokenizer, .err = err};
    if (len >= CACHE_TEXT_BYTES_MIN)
        e.cache = calloc(CACHE_SLOTS, sizeof *e.cache); /* without it, it only takes longer */
    mf_status status = encode(&e, text, len, add_special);
    mfi_buf_free(&e.normalized);
    mfi_pretok_scratch_free(&e.pretok);
    mfi_bpe_scratch_free(&e.bpe);
    free(e.cache);
    if (status == MF_OK && !e.ids.data) {
        e.ids.data = malloc(sizeof *e.ids.data); /* so that *ids is never NULL */
        if (!e.ids.data)
            status = mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory while encoding");
    }
    if (status != MF_OK) {
        free(e.ids.data);
        return status;
    }
    *ids = e.ids.data;
    *n_ids = e.ids.n;
    return MF_OK;
}

/* ---- looking up ---- */

const char *mf_tokenizer_piece(const mf_tokenizer *tokenizer, int32_t id, bool special, size_t *len)
{
    *len = 0;
    if (id < 0 || (uint32_t)id >= tokenizer->vocab.n)
        return "";
    uint32_t flags = tokenizer->vocab.tokens[id].flags;
    if (!(flags & MFI_TOKEN_PRESENT) || ((flags & MFI_TOKEN_SPECIAL) && !special))
        return "";
    return mfi_vocab_text(&tokenizer->vocab, id, len);
}

int32_t mf_tokenizer_n_vocab(const mf_tokenizer *tokenizer)
{
    return (int32_t)tokenizer->vocab.n;
}

int32_t mfi_tokenizer_id(const mf_tokenizer *tokenizer, const char *text)
{
    const mfi_vocab *vocab = &tokenizer->vocab;
    size_t len = strlen(text), n;
    for (uint32_t i = 0; i < tokenizer->added.n; i++) {
        int32_t id = tokenizer->added.tokens[i].id;
        const char *content = mfi_vocab_text(vocab, id, &n);
        if (n == len && memcmp(content, text, len) == 0)
            return id;
    }
    int32_t id = mfi_vocab_find(vocab, text, len, MFI_TOKEN_BYTES);
    return id >= 0 ? id : mfi_vocab_find(vocab, text, len, 0);
}
