/* The tokenizer: opening, and looking tokens up; encode.c encodes.
 *
 * The facade of src/text. A tokenizer is immutable once open, so any number of threads may use it.
 */
#include "text/tokenizer.h"
#include "os/file.h"
#include "text/tokenizer_int.h"

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
    mfi_symbols_close(&t->symbols);
    mfi_unigram_close(&t->unigram);
    mfi_normalizer_close(&t->normalizer);
    mfi_pretok_close(&t->pretok);
    mfi_decoder_close(&t->decoder);
    mfi_added_close(&t->added);
    free(t->prefix.data);
    free(t->suffix.data);
    free(t->chat_template);
    free(t->tool_template);
    for (size_t i = 0; i < MFI_N_NAMED_TOKENS; i++)
        free(t->named[i]);
    free(t);
    *tokenizer = NULL;
}

uint64_t mfi_tokenizer_bytes(const mf_tokenizer *tokenizer)
{
    return sizeof *tokenizer + mfi_vocab_bytes(&tokenizer->vocab) + mfi_bpe_bytes(&tokenizer->bpe) +
           mfi_symbols_bytes(&tokenizer->symbols) + mfi_unigram_bytes(&tokenizer->unigram) +
           mfi_normalizer_bytes(&tokenizer->normalizer) + mfi_pretok_bytes(&tokenizer->pretok) +
           mfi_added_bytes(&tokenizer->added) + tokenizer->chat_template_len +
           tokenizer->tool_template_len +
           (tokenizer->prefix.cap + tokenizer->suffix.cap) * sizeof(int32_t);
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
    return mfi_vocab_shown(&tokenizer->vocab, id, len);
}

uint32_t mfi_tokenizer_strip(const mf_tokenizer *tokenizer, int32_t before)
{
    if (before >= 0 && (uint32_t)before < tokenizer->vocab.n &&
        !(tokenizer->vocab.tokens[before].flags & MFI_TOKEN_SPECIAL))
        return 0;
    return tokenizer->decoder.strip;
}

/* What token id is decoded to where text begins, or NULL: as ever, without spaces in front. */
static const char *find_first(const mfi_vocab *vocab, int32_t id, size_t *len)
{
    uint32_t low = 0, high = vocab->n_first;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (vocab->first[mid].id < (uint32_t)id)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == vocab->n_first || vocab->first[low].id != (uint32_t)id)
        return NULL;
    *len = vocab->first[low].shown.len;
    return vocab->pool.data + vocab->first[low].shown.offset;
}

const char *mfi_tokenizer_show(const mf_tokenizer *tokenizer, int32_t id, bool special,
                               uint32_t *strip, size_t *len)
{
    const char *piece = mf_tokenizer_piece(tokenizer, id, special, len);
    bool all = *strip == UINT32_MAX; /* as many as the first token has */
    if (!*len)
        return piece;
    const char *first = all ? find_first(&tokenizer->vocab, id, len) : NULL;
    if (first) {
        *strip = 0;
        return first;
    }
    while (*strip && *len && *piece == ' ') {
        piece++;
        (*len)--;
        *strip -= !all;
    }
    if (*len || all)
        *strip = 0;
    return piece;
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
