/* The tokenizer of a model, wherever it stands: tokenizer.json beside the weights, or GGUF
 * metadata. Composes text and format, which don't know each other. Called at open, on the caller's
 * thread. */
#include <stdlib.h>
#include <string.h>

#include "engine_int.h"
#include "format/meta_array.h"
#include "text/source.h"
#include "text/tokenizer.h"

/* The arrays of a GGUF vocabulary, read side by side. */
typedef struct gguf_vocab {
    mfi_meta_cursor *tokens, *types, *scores, *merges; /* all but tokens may be NULL */
    mfi_buf charsmap;
} gguf_vocab;

static void rewind_tokens(void *ctx)
{
    gguf_vocab *v = ctx;
    mfi_meta_cursor_rewind(v->tokens);
    if (v->types)
        mfi_meta_cursor_rewind(v->types);
    if (v->scores)
        mfi_meta_cursor_rewind(v->scores);
}

static mf_status next_token(void *ctx, mfi_source_token *token, mf_error *err)
{
    /* llama.cpp: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte */
    static const mfi_source_kind kinds[] = {
        [2] = MFI_SOURCE_CONTROL, [3] = MFI_SOURCE_CONTROL, [4] = MFI_SOURCE_ADDED,
        [5] = MFI_SOURCE_UNUSED,  [6] = MFI_SOURCE_BYTE,
    };
    gguf_vocab *v = ctx;
    int64_t type = 1;
    if (v->types)
        MFI_TRY(mfi_meta_next_i64(v->types, &type, err));
    if (v->scores)
        MFI_TRY(mfi_meta_next_f64(v->scores, &token->score, err));
    token->kind =
        type > 0 && type < (int64_t)MFI_ARRAY_LEN(kinds) ? kinds[type] : MFI_SOURCE_NORMAL;
    return mfi_meta_next_str(v->tokens, &token->text, &token->len, err);
}

static mf_status next_merge(void *ctx, const char **text, size_t *len, mf_error *err)
{
    return mfi_meta_next_str(((gguf_vocab *)ctx)->merges, text, len, err);
}

static const char *string(const mfi_json *meta, const char *key)
{
    return mfi_json_str(mfi_json_get(meta, key), NULL);
}

static int8_t flag(const mfi_json *meta, const char *key)
{
    bool set;
    return mfi_json_bool(mfi_json_get(meta, key), &set) ? set : -1;
}

static int64_t id_of(const mfi_json *meta, const char *key)
{
    int64_t id;
    return mfi_json_i64(mfi_json_get(meta, key), &id) && id >= 0 && id != UINT32_MAX ? id : -1;
}

/* An array that goes with the tokens, one element each; *cursor stays NULL where there is none. */
static mf_status open_beside(mfi_meta_cursor **cursor, const gguf_vocab *v,
                             const mfi_catalog *catalog, const char *key, mfi_meta_kind kind,
                             mf_error *err)
{
    mfi_meta_array array;
    if (!mfi_catalog_meta_array(catalog, key, &array))
        return MF_OK;
    MFI_TRY(mfi_meta_cursor_open(cursor, catalog, key, kind, err));
    if (array.n != mfi_meta_cursor_n(v->tokens))
        return mfi_fail(err, MF_ERR_FORMAT, "%s: %s has %llu elements, tokens %llu",
                        mfi_catalog_path(catalog), key, (unsigned long long)array.n,
                        (unsigned long long)mfi_meta_cursor_n(v->tokens));
    return MF_OK;
}

/* The character map, bytes in an array. */
static mf_status read_charsmap(gguf_vocab *v, const mfi_catalog *catalog, mf_error *err)
{
    static const char key[] = "tokenizer.ggml.precompiled_charsmap";
    mfi_meta_array array;
    if (!mfi_catalog_meta_array(catalog, key, &array))
        return MF_OK;
    if (array.n > MFI_MAX_CHARSMAP_BYTES)
        return mfi_fail(err, MF_ERR_LIMIT, "%s: %s has %llu bytes", mfi_catalog_path(catalog), key,
                        (unsigned long long)array.n);
    mfi_meta_cursor *cursor = NULL;
    MFI_TRY(mfi_meta_cursor_open(&cursor, catalog, key, MFI_META_INTEGERS, err));
    mf_status status = MF_OK;
    for (uint64_t i = 0; i < array.n && status == MF_OK; i++) {
        int64_t value = 0;
        status = mfi_meta_next_i64(cursor, &value, err);
        char byte = (char)value;
        mfi_buf_append(&v->charsmap, &byte, 1);
    }
    mfi_meta_cursor_close(&cursor);
    if (status == MF_OK && v->charsmap.failed)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", mfi_catalog_path(catalog));
    return status;
}

static mf_status open_vocab(gguf_vocab *v, const mfi_catalog *catalog, mfi_source_model model,
                            mf_error *err)
{
    MFI_TRY(
        mfi_meta_cursor_open(&v->tokens, catalog, "tokenizer.ggml.tokens", MFI_META_STRINGS, err));
    MFI_TRY(
        open_beside(&v->types, v, catalog, "tokenizer.ggml.token_type", MFI_META_INTEGERS, err));
    if (model == MFI_SOURCE_BPE || model == MFI_SOURCE_CHARS)
        return mfi_meta_cursor_open(&v->merges, catalog, "tokenizer.ggml.merges", MFI_META_STRINGS,
                                    err);
    MFI_TRY(open_beside(&v->scores, v, catalog, "tokenizer.ggml.scores", MFI_META_FLOATS, err));
    if (!v->scores)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: its metadata has no array tokenizer.ggml.scores",
                        mfi_catalog_path(catalog));
    return read_charsmap(v, catalog, err);
}

static mf_status open_gguf(mf_tokenizer **tokenizer, const mfi_catalog *catalog,
                           mfi_source_model model, mf_error *err)
{
    const mfi_json *meta = mfi_catalog_meta(catalog);
    gguf_vocab v = {0};
    mf_status status = open_vocab(&v, catalog, model, err);
    if (status == MF_OK) {
        int8_t prefix = flag(meta, "tokenizer.ggml.add_space_prefix");
        bool marks = prefix < 0 ? model == MFI_SOURCE_SPM : prefix;
        mfi_tokenizer_source source = {
            .what = mfi_catalog_path(catalog),
            .model = model,
            .ctx = &v,
            .n_tokens = mfi_meta_cursor_n(v.tokens),
            .n_merges = v.merges ? mfi_meta_cursor_n(v.merges) : 0,
            .rewind_tokens = rewind_tokens,
            .token = next_token,
            .merge = next_merge,
            .pre = string(meta, "tokenizer.ggml.pre"),
            .prefix = marks && model != MFI_SOURCE_CHARS ? MFI_PREFIX_ALWAYS : MFI_PREFIX_NEVER,
            .collapse_spaces = flag(meta, "tokenizer.ggml.remove_extra_whitespaces") == 1 &&
                               model == MFI_SOURCE_UNIGRAM,
            .charsmap = v.charsmap.data,
            .charsmap_len = v.charsmap.len,
            .add_bos = flag(meta, "tokenizer.ggml.add_bos_token"),
            .add_eos = flag(meta, "tokenizer.ggml.add_eos_token"),
            .special = {[MFI_SOURCE_BOS] = id_of(meta, "tokenizer.ggml.bos_token_id"),
                        [MFI_SOURCE_EOS] = id_of(meta, "tokenizer.ggml.eos_token_id"),
                        [MFI_SOURCE_UNK] = id_of(meta, "tokenizer.ggml.unknown_token_id"),
                        [MFI_SOURCE_SEP] = id_of(meta, "tokenizer.ggml.seperator_token_id"),
                        [MFI_SOURCE_PAD] = id_of(meta, "tokenizer.ggml.padding_token_id"),
                        [MFI_SOURCE_MASK] = id_of(meta, "tokenizer.ggml.mask_token_id")},
            .chat_template = string(meta, "tokenizer.chat_template"),
            .tool_template = string(meta, "tokenizer.chat_template.tool_use"),
        };
        status = mfi_tokenizer_open_source(tokenizer, &source, err);
    }
    mfi_meta_cursor_close(&v.tokens);
    mfi_meta_cursor_close(&v.types);
    mfi_meta_cursor_close(&v.scores);
    mfi_meta_cursor_close(&v.merges);
    mfi_buf_free(&v.charsmap);
    return status;
}

/* *none: the file has no vocabulary, or a stand-in for one. */
static mf_status open_meta(mf_tokenizer **tokenizer, const mfi_catalog *catalog, bool *none,
                           mf_error *err)
{
    static const struct {
        const char *name;
        mfi_source_model model;
    } models[] = {{"gpt2", MFI_SOURCE_BPE},
                  {"llama", MFI_SOURCE_SPM},
                  {"t5", MFI_SOURCE_UNIGRAM},
                  {"gemma4", MFI_SOURCE_CHARS}};
    const char *model = string(mfi_catalog_meta(catalog), "tokenizer.ggml.model");
    *none = !model || strcmp(model, "none") == 0 || strcmp(model, "no_vocab") == 0 ||
            strcmp(model, "test") == 0;
    if (*none)
        return MF_OK;
    for (size_t i = 0; i < MFI_ARRAY_LEN(models); i++)
        if (strcmp(model, models[i].name) == 0)
            return open_gguf(tokenizer, catalog, models[i].model, err);
    return mfi_fail(err, MF_ERR_UNSUPPORTED,
                    "%s: a tokenizer of the kind %.64s; supported are gpt2 (byte-level BPE), llama "
                    "(SentencePiece BPE), t5 (Unigram) and gemma4",
                    mfi_catalog_path(catalog), model);
}

mf_status mfi_model_tokenizer_open(mf_tokenizer **tokenizer, const mfi_catalog *catalog,
                                   mf_error *err)
{
    bool none;
    if (mfi_catalog_meta(catalog))
        return open_meta(tokenizer, catalog, &none, err);
    return mfi_tokenizer_files_exist(mfi_catalog_path(catalog))
               ? mfi_tokenizer_open_files(tokenizer, mfi_catalog_path(catalog), err)
               : MF_OK;
}

mf_status mf_template_open(mf_template **chat_template, const char *path, mf_error *err)
{
    if (!chat_template || !path)
        return mfi_fail(err, MF_ERR_ARGUMENT, "mf_template_open: NULL argument");
    if (!mfi_format_is_gguf(path))
        return mfi_template_open_files(chat_template, path, err);
    mf_tokenizer *tokenizer = NULL;
    MFI_TRY(mf_tokenizer_open(&tokenizer, path, err));
    return mfi_template_open_tokenizer(chat_template, tokenizer, path, err);
}

mf_status mf_tokenizer_open(mf_tokenizer **tokenizer, const char *path, mf_error *err)
{
    if (!tokenizer || !path)
        return mfi_fail(err, MF_ERR_ARGUMENT, "mf_tokenizer_open: NULL argument");
    if (!mfi_format_is_gguf(path))
        return mfi_tokenizer_open_files(tokenizer, path, err);
    mfi_catalog *catalog = NULL;
    bool none = false;
    MFI_TRY(mfi_format_open_meta(&catalog, path, err));
    mf_status status = open_meta(tokenizer, catalog, &none, err);
    mfi_catalog_close(&catalog);
    if (status == MF_OK && none)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: has no tokenizer", path);
    return status;
}
