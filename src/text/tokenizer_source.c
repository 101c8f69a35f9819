/* A tokenizer from a source that is not tokenizer.json (source.h): the vocabulary and the merges
 * come by callbacks, the small parts are written as tokenizer.json would have them and read by the
 * same code. Runs inside mf_tokenizer_open or while an engine is opened. Everything given is
 * foreign. */
#include "text/source.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "text/pre_types.h"
#include "text/tokenizer_int.h"
#include "text/unicode.h"

typedef struct builder {
    mf_tokenizer *tokenizer;
    const mfi_tokenizer_source *source;
    const mfi_pre_type *pre;
    uint8_t *kinds; /* [n_tokens] mfi_source_kind, UNUSED also for what repeats another */
    mf_error *err;
} builder;

static mf_status no_memory(mf_error *err)
{
    return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory");
}

static mf_status find_pre(builder *b)
{
    const char *name = b->source->pre ? b->source->pre : "default";
    b->pre = mfi_pre_type_find(name);
    if (b->pre)
        return MF_OK;
    mfi_buf known = {0};
    const mfi_pre_type *type;
    for (uint32_t i = 0; (type = mfi_pre_type_at(i)) != NULL; i++)
        mfi_buf_fmt(&known, "%s%s", i ? " " : "", type->names);
    mf_status status =
        mfi_fail(b->err, MF_ERR_UNSUPPORTED, "the pre-tokenizer %.64s is unknown; known are: %s",
                 name, known.failed ? "" : known.data);
    mfi_buf_free(&known);
    return status;
}

/* {"type": "Sequence", ...} */
static mf_status open_pretok(builder *b)
{
    mfi_buf json = {0};
    mfi_buf_str(&json, "{\"type\":\"Sequence\",\"pretokenizers\":[");
    for (size_t i = 0; i < MFI_PRE_MAX_SPLITS && b->pre->splits[i]; i++) {
        mfi_buf_str(&json, "{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":");
        mfi_json_put_str(&json, b->pre->splits[i], strlen(b->pre->splits[i]));
        mfi_buf_str(&json, "}},");
    }
    mfi_buf_fmt(&json, "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":%s}]}",
                b->pre->byte_level_split ? "true" : "false");
    mfi_json *tree = NULL;
    mf_status status =
        json.failed ? no_memory(b->err) : mfi_json_parse(json.data, json.len, "pre", &tree, b->err);
    if (status == MF_OK)
        status = mfi_pretok_open(&b->tokenizer->pretok, tree, b->err);
    mfi_json_free(&tree);
    mfi_buf_free(&json);
    return status;
}

static mf_status read_tokens(builder *b)
{
    const mfi_tokenizer_source *s = b->source;
    mfi_vocab *vocab = &b->tokenizer->vocab;
    if (s->n_tokens >= MFI_MAX_VOCAB)
        return mfi_fail(b->err, MF_ERR_LIMIT, "%" PRIu64 " tokens; at most %u are accepted",
                        s->n_tokens, MFI_MAX_VOCAB);
    uint32_t n = (uint32_t)s->n_tokens;
    MFI_TRY(mfi_vocab_open_empty(vocab, MFI_VOCAB_ALPHABET, n, n, b->err));
    b->kinds = malloc((size_t)n + 1);
    if (!b->kinds)
        return no_memory(b->err);
    s->rewind_tokens(s->ctx);
    for (uint32_t id = 0; id < n; id++) {
        const char *text;
        size_t len;
        bool repeats;
        mfi_source_kind kind;
        MFI_TRY(s->token(s->ctx, &text, &len, &kind, b->err));
        b->kinds[id] = (uint8_t)kind;
        if (kind == MFI_SOURCE_UNUSED) /* fills the vocabulary up to the embedding's rows */
            continue;
        MFI_TRY(mfi_vocab_put(vocab, id, text, len, &repeats, b->err));
        if (repeats) { /* never met in text, but still to be shown, or not */
            vocab->tokens[id].flags |= kind == MFI_SOURCE_CONTROL ? MFI_TOKEN_SPECIAL : 0;
            b->kinds[id] = MFI_SOURCE_UNUSED;
        }
    }
    return MF_OK;
}

static mf_status read_merges(builder *b)
{
    const mfi_tokenizer_source *s = b->source;
    if (s->n_merges >= UINT32_MAX / 2)
        return mfi_fail(b->err, MF_ERR_LIMIT, "%" PRIu64 " merges", s->n_merges);
    MFI_TRY(mfi_bpe_open(&b->tokenizer->bpe, s->n_merges, b->err));
    mfi_merge_reader r = {.tokenizer = b->tokenizer, .err = b->err};
    mf_status status = MF_OK;
    for (; status == MF_OK && r.rank < s->n_merges; r.rank++) {
        const char *text;
        size_t len;
        status = s->merge(s->ctx, &text, &len, b->err);
        if (status == MF_OK)
            status = mfi_merge_add_joined(&r, text, len);
    }
    mfi_merge_reader_free(&r);
    mfi_tokenizer_find_bytes(b->tokenizer);
    return status;
}

/* The "added_tokens" of a tokenizer.json. What isn't UTF-8 never stands in a text, so that it need
 * not be looked for. */
static mf_status write_added(builder *b, mfi_buf *json)
{
    const mfi_tokenizer_source *s = b->source;
    s->rewind_tokens(s->ctx);
    mfi_buf_str(json, "[");
    for (uint32_t id = 0; id < s->n_tokens; id++) {
        const char *text;
        size_t len;
        mfi_source_kind kind;
        MFI_TRY(s->token(s->ctx, &text, &len, &kind, b->err));
        kind = (mfi_source_kind)b->kinds[id];
        if ((kind != MFI_SOURCE_CONTROL && kind != MFI_SOURCE_ADDED) ||
            mfi_utf8_check(text, len) < len)
            continue;
        mfi_buf_fmt(json,
                    "%s{\"id\":%" PRIu32 ",\"special\":%s,\"content\":", json->len > 1 ? "," : "",
                    id, kind == MFI_SOURCE_CONTROL ? "true" : "false");
        mfi_json_put_str(json, text, len);
        mfi_buf_str(json, "}");
    }
    mfi_buf_str(json, "]");
    return json->failed ? no_memory(b->err) : MF_OK;
}

static mf_status read_added(builder *b)
{
    mfi_buf json = {0};
    mfi_json *tree = NULL;
    uint32_t n_ids;
    mf_status status = write_added(b, &json);
    if (status == MF_OK)
        status = mfi_json_parse(json.data, json.len, "added tokens", &tree, b->err);
    if (status == MF_OK)
        status = mfi_added_survey(tree, &n_ids, b->err); /* holds their number to its limit */
    if (status == MF_OK)
        status = mfi_added_open(&b->tokenizer->added, tree, &b->tokenizer->normalizer,
                                &b->tokenizer->vocab, b->err);
    mfi_json_free(&tree);
    mfi_buf_free(&json);
    return status;
}

static mf_status put_around(builder *b, mfi_source_special which, int8_t wanted, bool usual,
                            mfi_ids *ids)
{
    int64_t id = b->source->special[which];
    if (wanted < 0 ? !usual || id < 0 : !wanted)
        return MF_OK;
    if (id < 0)
        return mfi_fail(b->err, MF_ERR_FORMAT,
                        "a token is to be put around texts, but none is named");
    return mfi_ids_push(ids, (int32_t)id) ? MF_OK : no_memory(b->err);
}

static mf_status name_specials(builder *b)
{
    static const uint8_t names[MFI_SOURCE_N_SPECIAL] = {
        [MFI_SOURCE_BOS] = MFI_NAMED_bos_token, [MFI_SOURCE_EOS] = MFI_NAMED_eos_token,
        [MFI_SOURCE_UNK] = MFI_NAMED_unk_token, [MFI_SOURCE_SEP] = MFI_NAMED_sep_token,
        [MFI_SOURCE_PAD] = MFI_NAMED_pad_token, [MFI_SOURCE_MASK] = MFI_NAMED_mask_token,
    };
    mf_tokenizer *t = b->tokenizer;
    for (size_t i = 0; i < MFI_SOURCE_N_SPECIAL; i++) {
        int64_t id = b->source->special[i];
        if (id < 0)
            continue;
        if (id >= t->vocab.n)
            return mfi_fail(b->err, MF_ERR_FORMAT,
                            "the special token %" PRId64 " is outside the vocabulary of %u", id,
                            t->vocab.n);
        size_t len;
        const char *text = mfi_vocab_text(&t->vocab, (int32_t)id, &len);
        t->named[names[i]] = strndup(text, len);
        if (!t->named[names[i]])
            return no_memory(b->err);
    }
    const mfi_tokenizer_source *s = b->source;
    MFI_TRY(put_around(b, MFI_SOURCE_BOS, s->add_bos, b->pre->add_bos, &t->prefix));
    return put_around(b, MFI_SOURCE_EOS, s->add_eos, false, &t->suffix);
}

static mf_status build(builder *b)
{
    mf_tokenizer *t = b->tokenizer;
    MFI_TRY(find_pre(b));
    MFI_TRY(open_pretok(b));
    t->ignore_merges = b->pre->ignore_merges;
    if (b->pre->nfc)
        MFI_TRY(mfi_normalizer_add_form(&t->normalizer, MFI_FORM_NFC, b->err));
    MFI_TRY(read_tokens(b));
    MFI_TRY(read_merges(b));
    MFI_TRY(read_added(b));
    MFI_TRY(name_specials(b));
    if (b->source->chat_template) {
        t->chat_template = strdup(b->source->chat_template);
        if (!t->chat_template)
            return no_memory(b->err);
        t->chat_template_len = strlen(t->chat_template);
    }
    if (b->source->tool_template) {
        t->tool_template = strdup(b->source->tool_template);
        if (!t->tool_template)
            return no_memory(b->err);
        t->tool_template_len = strlen(t->tool_template);
    }
    return MF_OK;
}

mf_status mfi_tokenizer_open_source(mf_tokenizer **tokenizer, const mfi_tokenizer_source *source,
                                    mf_error *err)
{
    mf_error inner = {0};
    builder b = {.tokenizer = calloc(1, sizeof *b.tokenizer), .source = source, .err = &inner};
    mf_status status = b.tokenizer ? build(&b) : no_memory(&inner);
    free(b.kinds);
    if (status != MF_OK) {
        mf_tokenizer_close(&b.tokenizer);
        return mfi_fail(err, status, "%s: tokenizer: %s", source->what, inner.message);
    }
    *tokenizer = b.tokenizer;
    return MF_OK;
}
