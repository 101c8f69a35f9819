/* Added tokens: reading them, and the leftmost-longest search for them.
 *
 * Opened with the tokenizer, only read afterwards. The search does what Hugging Face's
 * AddedVocabulary does, step by step, its oddities included: a match that single_word discards
 * still hides what lies inside it, and white space taken by rstrip may be taken again. */
#include "text/added.h"
#include "base/limits.h"
#include "base/room.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

/* ---- tries ---- */

static uint32_t new_node(mfi_trie *trie, unsigned char byte)
{
    if (!MFI_ROOM(trie->nodes, trie->n, trie->cap, 64))
        return 0;
    trie->nodes[trie->n] = (mfi_trie_node){.byte = byte};
    return trie->n++;
}

static uint32_t child_of(const mfi_trie *trie, uint32_t node, unsigned char byte)
{
    if (!node)
        return trie->first[byte];
    uint32_t child = trie->nodes[node].child;
    while (child && trie->nodes[child].byte != byte)
        child = trie->nodes[child].sibling;
    return child;
}

/* False if out of memory. The first of two equal keys stays. */
static bool trie_add(mfi_trie *trie, const char *key, size_t len, uint32_t token)
{
    if (!trie->n) {
        new_node(trie, 0);
        if (!trie->n)
            return false;
    }
    uint32_t node = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)key[i];
        uint32_t child = child_of(trie, node, byte);
        if (!child) {
            child = new_node(trie, byte);
            if (!child)
                return false;
            if (node) {
                trie->nodes[child].sibling = trie->nodes[node].child;
                trie->nodes[node].child = child;
            } else {
                trie->first[byte] = child;
            }
        }
        node = child;
    }
    if (node && !trie->nodes[node].token)
        trie->nodes[node].token = token + 1;
    return true;
}

/* The longest key at p: its length, or 0. */
static size_t trie_match(const mfi_trie *trie, const char *p, const char *end, uint32_t *token)
{
    size_t longest = 0;
    uint32_t node = 0;
    for (const char *q = p; q < end; q++) {
        node = child_of(trie, node, (unsigned char)*q);
        if (!node)
            break;
        if (trie->nodes[node].token) {
            *token = trie->nodes[node].token - 1;
            longest = (size_t)(q + 1 - p);
        }
    }
    return longest;
}

/* ---- opening ---- */

mf_status mfi_added_survey(const mfi_json *list, uint32_t *n_ids, mf_error *err)
{
    mfi_json_type type = mfi_json_typeof(list);
    if (type != MFI_JSON_ARRAY && type != MFI_JSON_NULL)
        return mfi_fail(err, MF_ERR_FORMAT, "added_tokens: not an array");
    *n_ids = 0;
    size_t n = mfi_json_len(list);
    if (n > MFI_MAX_ADDED_TOKENS)
        return mfi_fail(err, MF_ERR_LIMIT, "added_tokens: more than %d", MFI_MAX_ADDED_TOKENS);
    for (size_t i = 0; i < n; i++) {
        int64_t id;
        if (!mfi_json_i64(mfi_json_get(mfi_json_at(list, i), "id"), &id) || id < 0)
            return mfi_fail(err, MF_ERR_FORMAT, "added_tokens: entry %zu has no id", i);
        if (id >= MFI_MAX_VOCAB - 1)
            return mfi_fail(err, MF_ERR_LIMIT, "added_tokens: id %lld", (long long)id);
        *n_ids = MFI_MAX(*n_ids, (uint32_t)id + 1);
    }
    return MF_OK;
}

static mf_status read_token(const mfi_json *node, size_t i, mfi_added_token *token,
                            const char **text, size_t *len, mf_error *err)
{
    struct {
        const char *key;
        bool *value;
    } flags[] = {
        {"special", &token->special},       {"single_word", &token->single_word},
        {"lstrip", &token->lstrip},         {"rstrip", &token->rstrip},
        {"normalized", &token->normalized},
    };
    int64_t id = 0;
    mfi_json_i64(mfi_json_get(node, "id"), &id);
    token->id = (int32_t)id;
    *text = mfi_json_str(mfi_json_get(node, "content"), len);
    if (!*text)
        return mfi_fail(err, MF_ERR_FORMAT, "added_tokens: entry %zu has no content", i);
    if (*len > MFI_MAX_ADDED_TOKEN_BYTES)
        return mfi_fail(err, MF_ERR_LIMIT, "added_tokens: entry %zu is longer than %d bytes", i,
                        MFI_MAX_ADDED_TOKEN_BYTES);
    for (size_t k = 0; k < MFI_ARRAY_LEN(flags); k++)
        if (mfi_json_has(node, flags[k].key) &&
            !mfi_json_bool(mfi_json_get(node, flags[k].key), flags[k].value))
            return mfi_fail(err, MF_ERR_FORMAT, "added_tokens: entry %zu: %s is not a boolean", i,
                            flags[k].key);
    return MF_OK;
}

static mf_status add_token(mfi_added *added, const mfi_json *node, size_t i,
                           const mfi_normalizer *normalizer, mfi_vocab *vocab,
                           mfi_norm_scratch *scratch, mf_error *err)
{
    mfi_added_token token = {0};
    const char *text;
    size_t len;
    MFI_TRY(read_token(node, i, &token, &text, &len, err));
    if (!len) /* as Hugging Face: ignored */
        return MF_OK;
    MFI_TRY(mfi_vocab_add(vocab, token.id, text, len, token.special, err));
    if (token.normalized)
        MFI_TRY(mfi_normalizer_run(normalizer, text, len, scratch, &text, &len, err));
    mfi_trie *trie = token.normalized ? &added->normalized : &added->verbatim;
    if (!trie_add(trie, text, len, added->n))
        return mfi_fail(err, MF_ERR_NO_MEMORY, "added_tokens: out of memory");
    added->tokens[added->n++] = token;
    return MF_OK;
}

/* Special ones go first, as in Hugging Face's search: of two tokens that normalisation makes equal
 * it finds the special one. */
mf_status mfi_added_open(mfi_added *added, const mfi_json *list, const mfi_normalizer *normalizer,
                         mfi_vocab *vocab, mf_error *err)
{
    *added = (mfi_added){0};
    size_t n = mfi_json_len(list);
    if (!n)
        return MF_OK;
    added->tokens = calloc(n, sizeof *added->tokens);
    if (!added->tokens)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "added_tokens: out of memory");
    mfi_norm_scratch scratch = {0};
    mf_status status = MF_OK;
    for (int plain = 0; plain < 2; plain++) {
        for (size_t i = 0; i < n && status == MF_OK; i++) {
            const mfi_json *node = mfi_json_at(list, i);
            bool special = false;
            mfi_json_bool(mfi_json_get(node, "special"), &special);
            if (special == !plain)
                status = add_token(added, node, i, normalizer, vocab, &scratch, err);
        }
    }
    mfi_norm_scratch_free(&scratch);
    if (status != MF_OK)
        mfi_added_close(added);
    return status;
}

void mfi_added_close(mfi_added *added)
{
    free(added->tokens);
    free(added->verbatim.nodes);
    free(added->normalized.nodes);
    *added = (mfi_added){0};
}

uint64_t mfi_added_bytes(const mfi_added *added)
{
    return added->n * sizeof *added->tokens +
           ((uint64_t)added->verbatim.cap + added->normalized.cap) * sizeof(mfi_trie_node);
}

/* ---- searching ---- */

void mfi_added_begin(mfi_added_iter *it, const mfi_added *added, const mfi_trie *trie,
                     const char *text, size_t len)
{
    *it = (mfi_added_iter){.added = added, .trie = trie, .text = text, .len = len, .token_id = -1};
}

void mfi_added_set_plain(mfi_added_iter *it, const mfi_extent *plain, size_t n_plain)
{
    it->plain = plain;
    it->n_plain = n_plain;
}

/* Moves it->search out of plain parts; returns where the next one begins. */
static size_t next_plain(mfi_added_iter *it)
{
    while (it->n_plain && it->plain->end <= it->search) {
        it->plain++;
        it->n_plain--;
    }
    while (it->n_plain && it->plain->start <= it->search) {
        it->search = it->plain->end;
        it->plain++;
        it->n_plain--;
    }
    return it->n_plain ? it->plain->start : it->len;
}

static bool is_single_word(const mfi_added_iter *it, size_t start, size_t end)
{
    uint32_t cp;
    if (start) {
        mfi_utf8_decode_before(it->text, it->text + start, &cp);
        if (mfi_unicode_is_word(cp))
            return false;
    }
    if (end < it->len) {
        mfi_utf8_decode(it->text + end, it->text + it->len, &cp);
        if (mfi_unicode_is_word(cp))
            return false;
    }
    return true;
}

static void strip(mfi_added_iter *it, const mfi_added_token *token)
{
    uint32_t cp;
    if (token->lstrip) {
        size_t start = it->token_start;
        while (start > it->done) {
            size_t n = mfi_utf8_decode_before(it->text, it->text + start, &cp);
            if (!mfi_unicode_is_space(cp))
                break;
            start -= n;
        }
        /* What an earlier match took stays taken, also where that reaches behind our own start. */
        it->token_start = MFI_MAX(start, it->done);
    }
    while (token->rstrip && it->token_end < it->len) {
        size_t n = mfi_utf8_decode(it->text + it->token_end, it->text + it->len, &cp);
        if (!mfi_unicode_is_space(cp))
            break;
        it->token_end += n;
    }
}

/* Finds the next match from it->search on. */
static bool find(mfi_added_iter *it)
{
    if (!it->trie->n)
        return false;
    while (it->search < it->len) {
        const char *end = it->text + next_plain(it), *p = it->text + it->search;
        while (p < end && !it->trie->first[(unsigned char)*p])
            p++;
        it->search = (size_t)(p - it->text);
        if (p == end)
            continue;
        uint32_t index;
        size_t len = trie_match(it->trie, p, end, &index);
        if (!len) {
            it->search++;
            continue;
        }
        it->token_start = it->search;
        it->search += len;
        it->token_end = it->search;
        const mfi_added_token *token = &it->added->tokens[index];
        if (token->single_word && !is_single_word(it, it->token_start, it->token_end))
            continue;
        strip(it, token);
        it->token_id = token->id;
        return true;
    }
    return false;
}

bool mfi_added_next(mfi_added_iter *it, size_t *start, size_t *end, int32_t *id)
{
    if (it->token_id < 0 && !find(it)) {
        if (it->done >= it->len)
            return false;
        *start = it->done;
        *end = it->done = it->len;
        *id = -1;
        return true;
    }
    if (it->done < it->token_start) {
        *start = it->done;
        *end = it->done = it->token_start;
        *id = -1;
        return true;
    }
    *start = it->token_start;
    *end = it->done = it->token_end;
    *id = it->token_id;
    it->token_id = -1;
    return true;
}
