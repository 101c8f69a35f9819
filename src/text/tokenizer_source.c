/* A tokenizer from a source that is not tokenizer.json (source.h): the vocabulary and the merges
 * come by callbacks, the small parts are written as tokenizer.json would have them and read by the
 * same code. Runs inside mf_tokenizer_open or while an engine is opened. Everything given is
 * foreign. */
#include "text/source.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text/pre_types.h"
#include "text/tokenizer_int.h"
#include "text/unicode.h"

typedef struct builder {
    mf_tokenizer *tokenizer;
    const mfi_tokenizer_source *source;
    const mfi_pre_type *pre; /* NULL: not byte-level */
    double *scores;          /* [n_tokens], or NULL */
    uint8_t *kinds;          /* [n_tokens] mfi_source_kind, UNUSED also for what repeats another */
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

static bool over_bytes(const builder *b)
{
    return b->source->model == MFI_SOURCE_BPE || b->source->model == MFI_SOURCE_RANKS;
}

/* Takes the JSON over. */
static mf_status parse(builder *b, mfi_buf *json, mfi_json **tree)
{
    *tree = NULL;
    mf_status status = json->failed ? no_memory(b->err)
                                    : mfi_json_parse(json->data, json->len, "parts", tree, b->err);
    mfi_buf_free(json);
    return status;
}

/* {"type": "Sequence", ...} */
static mf_status open_pretok(builder *b)
{
    mfi_buf json = {0};
    mfi_buf_str(&json, "{\"type\":\"Sequence\",\"pretokenizers\":[");
    for (size_t i = 0; b->pre && i < MFI_PRE_MAX_SPLITS && b->pre->splits[i]; i++) {
        mfi_buf_str(&json, "{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":");
        mfi_json_put_str(&json, b->pre->splits[i], strlen(b->pre->splits[i]));
        mfi_buf_str(&json, "}},");
    }
    if (over_bytes(b))
        mfi_buf_fmt(&json, "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":%s}]}",
                    b->pre->byte_level_split ? "true" : "false");
    else if (b->source->prefix == MFI_PREFIX_FIRST)
        mfi_buf_str(&json,
                    "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":"
                    "\"first\",\"split\":false}]}");
    else if (b->source->model == MFI_SOURCE_CHARS)
        mfi_buf_str(&json, "{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":"
                           "\"[^\\n]+|[\\n]+\"}}]}");
    else
        mfi_buf_str(&json, "]}");
    mfi_json *tree;
    mf_status status = parse(b, &json, &tree);
    if (status == MF_OK)
        status = mfi_pretok_open(&b->tokenizer->pretok, tree, b->err);
    mfi_json_free(&tree);
    return status;
}

#define MARK "\xe2\x96\x81"

static mf_status open_normalizer(builder *b)
{
    mfi_normalizer *normalizer = &b->tokenizer->normalizer;
    const mfi_tokenizer_source *s = b->source;
    if (b->pre)
        return b->pre->nfc ? mfi_normalizer_add_form(normalizer, MFI_FORM_NFC, b->err) : MF_OK;
    if (s->charsmap)
        MFI_TRY(
            mfi_normalizer_add_charsmap(normalizer, s->charsmap, s->charsmap_len, false, b->err));
    if (s->collapse_spaces)
        MFI_TRY(mfi_normalizer_add_strip_spaces(normalizer, b->err));
    mfi_buf json = {0};
    mfi_buf_str(&json, "{\"type\":\"Sequence\",\"normalizers\":[");
    if (s->collapse_spaces)
        mfi_buf_str(&json,
                    "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\" \"},");
    if (s->prefix == MFI_PREFIX_ALWAYS)
        mfi_buf_str(&json, "{\"type\":\"Prepend\",\"prepend\":\"" MARK "\"},");
    mfi_buf_str(&json,
                "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" MARK "\"}]}");
    mfi_json *tree;
    mf_status status = parse(b, &json, &tree);
    if (status == MF_OK)
        status = mfi_normalizer_add(normalizer, tree, b->err);
    mfi_json_free(&tree);
    return status;
}

static mf_status open_decoder(builder *b)
{
    mfi_buf json = {0};
    if (over_bytes(b))
        mfi_buf_str(&json, "{\"type\":\"ByteLevel\"}");
    else
        mfi_buf_fmt(
            &json,
            "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":"
            "\"" MARK "\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},"
            "{\"type\":\"Strip\",\"content\":\" \",\"start\":%d,\"stop\":0}]}",
            b->source->prefix != MFI_PREFIX_NEVER);
    mfi_json *tree;
    mf_status status = parse(b, &json, &tree);
    if (status == MF_OK)
        status = mfi_decoder_open(&b->tokenizer->decoder, tree, b->err);
    mfi_json_free(&tree);
    return status;
}

static mf_status put_token(builder *b, uint32_t id, const mfi_source_token *token)
{
    mfi_vocab *vocab = &b->tokenizer->vocab;
    bool repeats;
    if (token->kind == MFI_SOURCE_UNUSED) /* fills the vocabulary up to the embedding's rows */
        return MF_OK;
    MFI_TRY(mfi_vocab_put(vocab, id, token->text, token->len, &repeats, b->err));
    if (repeats) { /* never met in text, but still to be shown, or not */
        vocab->tokens[id].flags |= token->kind == MFI_SOURCE_CONTROL ? MFI_TOKEN_SPECIAL : 0;
        b->kinds[id] = MFI_SOURCE_UNUSED;
    }
    return MF_OK;
}

static mf_status read_tokens(builder *b)
{
    static const mfi_vocab_form forms[] = {
        [MFI_SOURCE_BPE] = MFI_VOCAB_ALPHABET,  [MFI_SOURCE_RANKS] = MFI_VOCAB_BYTES,
        [MFI_SOURCE_SPM] = MFI_VOCAB_CHARS,     [MFI_SOURCE_CHARS] = MFI_VOCAB_CHARS,
        [MFI_SOURCE_UNIGRAM] = MFI_VOCAB_CHARS,
    };
    const mfi_tokenizer_source *s = b->source;
    mfi_vocab *vocab = &b->tokenizer->vocab;
    if (s->n_tokens >= MFI_MAX_VOCAB)
        return mfi_fail(b->err, MF_ERR_LIMIT, "%" PRIu64 " tokens; at most %u are accepted",
                        s->n_tokens, MFI_MAX_VOCAB);
    uint32_t n = (uint32_t)s->n_tokens, n_added;
    MFI_TRY(mfi_added_survey(s->added, &n_added, b->err));
    MFI_TRY(mfi_vocab_open_empty(vocab, forms[s->model], MFI_MAX(n, n_added), n, b->err));
    b->kinds = malloc((size_t)n + 1);
    if (s->model == MFI_SOURCE_SPM || s->model == MFI_SOURCE_UNIGRAM)
        b->scores = malloc(((size_t)n + 1) * sizeof *b->scores);
    if (!b->kinds || ((s->model == MFI_SOURCE_SPM || s->model == MFI_SOURCE_UNIGRAM) && !b->scores))
        return no_memory(b->err);
    s->rewind_tokens(s->ctx);
    for (uint32_t id = 0; id < n; id++) {
        mfi_source_token token = {0};
        MFI_TRY(s->token(s->ctx, &token, b->err));
        b->kinds[id] = (uint8_t)token.kind;
        if (b->scores)
            b->scores[id] = token.score;
        if (!isfinite(token.score))
            return mfi_fail(b->err, MF_ERR_FORMAT, "token %u has no finite score", id);
        MFI_TRY(put_token(b, id, &token));
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
    return status;
}

/* A rank for each token that merges may make: by id, or by score, equal ones alike. */
static mf_status merges_of_tokens(builder *b)
{
    uint32_t n = (uint32_t)b->source->n_tokens;
    uint32_t *ranks = malloc(((size_t)n + 1) * sizeof *ranks);
    if (!ranks)
        return no_memory(b->err);
    for (uint32_t id = 0; id < n; id++) {
        bool made = b->kinds[id] == MFI_SOURCE_NORMAL || b->kinds[id] == MFI_SOURCE_ADDED;
        ranks[id] = made ? id : UINT32_MAX;
    }
    mf_status status = MF_OK;
    if (b->scores)
        status = mfi_ranks_by_score(ranks, b->scores, n, b->err);
    if (status == MF_OK)
        status = mfi_merges_from_ranks(b->tokenizer, ranks, n, b->err);
    free(ranks);
    return status;
}

static mf_status read_unigram(builder *b)
{
    mf_tokenizer *t = b->tokenizer;
    MFI_TRY(mfi_unigram_open(&t->unigram, b->err));
    t->unigram.single = true;
    for (uint32_t id = 0; id < b->source->n_tokens; id++) {
        size_t len;
        const char *text = mfi_vocab_text(&t->vocab, (int32_t)id, &len);
        if ((b->kinds[id] == MFI_SOURCE_NORMAL || b->kinds[id] == MFI_SOURCE_ADDED) &&
            mfi_utf8_check(text, len) == len)
            MFI_TRY(mfi_unigram_add(&t->unigram, text, len, (int32_t)id, b->scores[id], b->err));
    }
    return MF_OK;
}

static mf_status read_model(builder *b)
{
    mf_tokenizer *t = b->tokenizer;
    const mfi_tokenizer_source *s = b->source;
    t->kind = over_bytes(b)                    ? MFI_MODEL_BYTES
              : s->model == MFI_SOURCE_UNIGRAM ? MFI_MODEL_UNIGRAM
                                               : MFI_MODEL_CHARS;
    if (!over_bytes(b)) {
        MFI_TRY(mfi_symbols_open(&t->symbols, &t->vocab, b->err));
        int64_t unk = s->special[MFI_SOURCE_UNK];
        t->symbols.unk = unk >= 0 && unk < t->vocab.n ? (int32_t)unk : MFI_UNK_NONE;
        t->symbols.byte_fallback = true;
        t->symbols.fuse_unk = true;
    }
    if (s->model == MFI_SOURCE_UNIGRAM)
        return read_unigram(b);
    MFI_TRY(s->model == MFI_SOURCE_BPE || s->model == MFI_SOURCE_CHARS ? read_merges(b)
                                                                       : merges_of_tokens(b));
    if (over_bytes(b))
        mfi_tokenizer_find_bytes(t);
    else
        mfi_symbols_settle(&t->symbols);
    return MF_OK;
}

/* True for the ids that the source's own list names. */
static void mark_listed(const builder *b, bool *listed)
{
    for (size_t i = 0; i < mfi_json_len(b->source->added); i++) {
        int64_t id = -1; /* held to the vocabulary by mfi_added_survey */
        mfi_json_i64(mfi_json_get(mfi_json_at(b->source->added, i), "id"), &id);
        if (id >= 0 && (uint64_t)id < b->source->n_tokens)
            listed[id] = true;
    }
}

/* The "added_tokens" of a tokenizer.json. What isn't UTF-8 never stands in a text, so that it need
 * not be looked for. */
static mf_status write_added(builder *b, const bool *listed, mfi_buf *json)
{
    const mfi_tokenizer_source *s = b->source;
    s->rewind_tokens(s->ctx);
    mfi_buf_str(json, "[");
    for (uint32_t id = 0; id < s->n_tokens; id++) {
        mfi_source_token token = {0};
        MFI_TRY(s->token(s->ctx, &token, b->err));
        mfi_source_kind kind = (mfi_source_kind)b->kinds[id];
        if ((kind != MFI_SOURCE_CONTROL && kind != MFI_SOURCE_ADDED) || listed[id] ||
            mfi_utf8_check(token.text, token.len) < token.len)
            continue;
        mfi_buf_fmt(json, "%s{\"id\":%" PRIu32 ",\"special\":%s,\"normalized\":%s,\"content\":",
                    json->len > 1 ? "," : "", id, kind == MFI_SOURCE_CONTROL ? "true" : "false",
                    kind == MFI_SOURCE_ADDED && s->added_normalized ? "true" : "false");
        mfi_json_put_str(json, token.text, token.len);
        mfi_buf_str(json, "}");
    }
    for (size_t i = 0; i < mfi_json_len(s->added); i++) {
        mfi_buf_str(json, json->len > 1 ? "," : "");
        mfi_json_put(json, mfi_json_at(s->added, i));
    }
    mfi_buf_str(json, "]");
    return json->failed ? no_memory(b->err) : MF_OK;
}

static mf_status read_added(builder *b)
{
    mfi_buf json = {0};
    mfi_json *tree = NULL;
    uint32_t n_ids;
    bool *listed = calloc(b->source->n_tokens + 1, sizeof *listed);
    mf_status status = no_memory(b->err);
    if (listed) {
        mark_listed(b, listed);
        status = write_added(b, listed, &json);
    }
    free(listed);
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
    bool usual_bos = b->pre ? b->pre->add_bos : s->model != MFI_SOURCE_UNIGRAM;
    MFI_TRY(put_around(b, MFI_SOURCE_BOS, s->add_bos, usual_bos, &t->prefix));
    return put_around(b, MFI_SOURCE_EOS, s->add_eos, s->model == MFI_SOURCE_UNIGRAM, &t->suffix);
}

static mf_status build(builder *b)
{
    mf_tokenizer *t = b->tokenizer;
    if (over_bytes(b)) {
        MFI_TRY(find_pre(b));
        t->ignore_merges = b->pre->ignore_merges || b->source->model == MFI_SOURCE_RANKS;
    }
    MFI_TRY(open_pretok(b));
    MFI_TRY(open_normalizer(b));
    MFI_TRY(open_decoder(b));
    MFI_TRY(read_tokens(b));
    MFI_TRY(read_model(b));
    MFI_TRY(read_added(b));
    MFI_TRY(mfi_decoder_apply(&t->decoder, &t->vocab, b->err));
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
    free(b.scores);
    if (status != MF_OK) {
        mf_tokenizer_close(&b.tokenizer);
        return mfi_fail(err, status, "%s: tokenizer: %s", source->what, inner.message);
    }
    *tokenizer = b.tokenizer;
    return MF_OK;
}
