/* tokenizer.json from GGUF metadata; see hf_vocab.h. Called by the converter's driver once a
 * folder, on its thread. Everything read is foreign. Only byte-level BPE has all it needs in the
 * metadata: vocabulary, merges, and the pre-tokeniser by a name whose patterns are known. */
#include "convert/hf_vocab.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "convert/sidecar.h"
#include "format/meta_array.h"
#include "text/pre_types.h"

enum { TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_USER_DEFINED = 4, TOKEN_UNUSED = 5 };

typedef struct vocab {
    const mfi_catalog *catalog;
    const mfi_json *meta;
    const mfi_pre_type *pre;
    mfi_meta_cursor *tokens, *types, *merges; /* types may be NULL */
    mfi_buf out;
    mf_error *err;
} vocab;

static const char *string(const vocab *v, const char *key)
{
    return mfi_json_str(mfi_json_get(v->meta, key), NULL);
}

static mf_status open_cursors(vocab *v)
{
    mfi_meta_array array;
    MFI_TRY(mfi_meta_cursor_open(&v->tokens, v->catalog, "tokenizer.ggml.tokens", MFI_META_STRINGS,
                                 v->err));
    MFI_TRY(mfi_meta_cursor_open(&v->merges, v->catalog, "tokenizer.ggml.merges", MFI_META_STRINGS,
                                 v->err));
    if (!mfi_catalog_meta_array(v->catalog, "tokenizer.ggml.token_type", &array))
        return MF_OK;
    MFI_TRY(mfi_meta_cursor_open(&v->types, v->catalog, "tokenizer.ggml.token_type",
                                 MFI_META_INTEGERS, v->err));
    if (array.n != mfi_meta_cursor_n(v->tokens))
        return mfi_fail(v->err, MF_ERR_FORMAT,
                        "%s: tokenizer.ggml.token_type has %" PRIu64 " elements, tokens %" PRIu64,
                        mfi_catalog_path(v->catalog), array.n, mfi_meta_cursor_n(v->tokens));
    return MF_OK;
}

static mf_status next_token(vocab *v, const char **text, size_t *len, int64_t *type)
{
    *type = 1;
    if (v->types)
        MFI_TRY(mfi_meta_next_i64(v->types, type, v->err));
    MFI_TRY(mfi_meta_next_str(v->tokens, text, len, v->err));
    if (mfi_utf8_check(*text, *len) < *len) /* no text that JSON could hold: never met, either */
        *type = TOKEN_UNUSED;
    return MF_OK;
}

static bool is_added(int64_t type)
{
    return type == TOKEN_UNKNOWN || type == TOKEN_CONTROL || type == TOKEN_USER_DEFINED;
}

/* Appends the tokens of the vocabulary, or the added ones. */
static mf_status put_tokens(vocab *v, bool added)
{
    const char *comma = "";
    mfi_meta_cursor_rewind(v->tokens);
    if (v->types)
        mfi_meta_cursor_rewind(v->types);
    for (uint64_t id = 0; id < mfi_meta_cursor_n(v->tokens); id++) {
        const char *text;
        size_t len;
        int64_t type;
        MFI_TRY(next_token(v, &text, &len, &type));
        if (type == TOKEN_UNUSED || is_added(type) != added)
            continue;
        mfi_buf_str(&v->out, comma);
        comma = ",\n";
        if (added)
            mfi_buf_fmt(&v->out, "{\"id\": %" PRIu64 ", \"content\": ", id);
        mfi_json_put_str(&v->out, text, len);
        if (added)
            mfi_buf_fmt(&v->out,
                        ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
                        "\"normalized\": false, \"special\": %s}",
                        type == TOKEN_USER_DEFINED ? "false" : "true");
        else
            mfi_buf_fmt(&v->out, ": %" PRIu64, id);
    }
    return MF_OK;
}

static mf_status put_merges(vocab *v)
{
    for (uint64_t i = 0; i < mfi_meta_cursor_n(v->merges); i++) {
        const char *text;
        size_t len;
        MFI_TRY(mfi_meta_next_str(v->merges, &text, &len, v->err));
        mfi_buf_str(&v->out, i ? ",\n" : "");
        mfi_json_put_str(&v->out, text, len);
    }
    return MF_OK;
}

static void put_pre(vocab *v)
{
    mfi_buf_str(&v->out, "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [\n");
    for (size_t i = 0; i < MFI_PRE_MAX_SPLITS && v->pre->splits[i]; i++) {
        mfi_buf_str(&v->out, "{\"type\": \"Split\", \"pattern\": {\"Regex\": ");
        mfi_json_put_str(&v->out, v->pre->splits[i], strlen(v->pre->splits[i]));
        mfi_buf_str(&v->out, "}, \"behavior\": \"Isolated\", \"invert\": false},\n");
    }
    mfi_buf_fmt(&v->out,
                "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": false, "
                "\"use_regex\": %s}]},\n",
                v->pre->byte_level_split ? "true" : "false");
}

/* The text of a special token; *id -1 if the metadata name none. */
static mf_status find_special(vocab *v, const char *name, int64_t *id, mfi_buf *text)
{
    char key[64];
    snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", name);
    text->len = 0;
    if (!mfi_json_i64(mfi_json_get(v->meta, key), id) || *id < 0 ||
        (uint64_t)*id >= mfi_meta_cursor_n(v->tokens)) {
        *id = -1;
        return MF_OK;
    }
    const char *token = "";
    size_t len = 0;
    mfi_meta_cursor_rewind(v->tokens);
    for (int64_t i = 0; i <= *id; i++)
        MFI_TRY(mfi_meta_next_str(v->tokens, &token, &len, v->err));
    mfi_buf_append(text, token, len);
    if (mfi_utf8_check(token, len) < len)
        *id = -1;
    return MF_OK;
}

static bool adds_bos(const vocab *v)
{
    bool add = v->pre->add_bos;
    mfi_json_bool(mfi_json_get(v->meta, "tokenizer.ggml.add_bos_token"), &add);
    return add;
}

/* What is put before texts. */
static mf_status put_around(vocab *v)
{
    mfi_buf text = {0};
    int64_t id = -1;
    mf_status status = adds_bos(v) ? find_special(v, "bos", &id, &text) : MF_OK;
    if (status == MF_OK && id >= 0) {
        mfi_buf_str(&v->out, "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": "
                             "[{\"SpecialToken\": {\"id\": ");
        mfi_json_put_str(&v->out, text.data, text.len);
        mfi_buf_str(&v->out, ", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}],"
                             " \"pair\": [{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, "
                             "{\"Sequence\": {\"id\": \"B\", \"type_id\": 1}}], "
                             "\"special_tokens\": {");
        mfi_json_put_str(&v->out, text.data, text.len);
        mfi_buf_str(&v->out, ": {\"id\": ");
        mfi_json_put_str(&v->out, text.data, text.len);
        mfi_buf_fmt(&v->out, ", \"ids\": [%" PRId64 "], \"tokens\": [", id);
        mfi_json_put_str(&v->out, text.data, text.len);
        mfi_buf_str(&v->out, "]}}},\n");
    } else {
        mfi_buf_str(&v->out, "\"post_processor\": null,\n");
    }
    mfi_buf_free(&text);
    return status;
}

static mf_status put_tokenizer(vocab *v)
{
    mfi_buf_str(&v->out, "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null,\n"
                         "\"added_tokens\": [\n");
    MFI_TRY(put_tokens(v, true));
    mfi_buf_fmt(&v->out, "],\n\"normalizer\": %s,\n", v->pre->nfc ? "{\"type\": \"NFC\"}" : "null");
    put_pre(v);
    MFI_TRY(put_around(v));
    mfi_buf_fmt(&v->out,
                "\"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
                "\"trim_offsets\": false, \"use_regex\": false},\n"
                "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
                "\"continuing_subword_prefix\": \"\", \"end_of_word_suffix\": \"\", "
                "\"fuse_unk\": false, \"byte_fallback\": false, \"ignore_merges\": %s,\n"
                "\"vocab\": {\n",
                v->pre->ignore_merges ? "true" : "false");
    MFI_TRY(put_tokens(v, false));
    mfi_buf_str(&v->out, "},\n\"merges\": [\n");
    MFI_TRY(put_merges(v));
    mfi_buf_str(&v->out, "]}}\n");
    return MF_OK;
}

/* A template for tools makes a list of them, of names and texts. */
static void put_templates(vocab *v)
{
    static const char *const templates[][2] = {{"default", "tokenizer.chat_template"},
                                               {"tool_use", "tokenizer.chat_template.tool_use"}};
    bool list = mfi_json_str(mfi_json_get(v->meta, templates[1][1]), NULL) != NULL, any = false;
    for (size_t i = 0; i < MFI_ARRAY_LEN(templates); i++) {
        size_t len;
        const char *text = mfi_json_str(mfi_json_get(v->meta, templates[i][1]), &len);
        if (!text)
            continue;
        mfi_buf_str(&v->out, any ? ",\n    " : ",\n  \"chat_template\": ");
        if (list && !any)
            mfi_buf_str(&v->out, "[\n    ");
        if (list)
            mfi_buf_fmt(&v->out, "{\"name\": \"%s\", \"template\": ", templates[i][0]);
        mfi_json_put_str(&v->out, text, len);
        mfi_buf_str(&v->out, list ? "}" : "");
        any = true;
    }
    mfi_buf_str(&v->out, list ? "\n  ]" : "");
}

static mf_status put_config(vocab *v)
{
    static const char *const names[][2] = {{"bos", "bos_token"},
                                           {"eos", "eos_token"},
                                           {"padding", "pad_token"},
                                           {"unknown", "unk_token"}};
    mfi_buf text = {0};
    mf_status status = MF_OK;
    mfi_buf_fmt(&v->out,
                "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n"
                "  \"clean_up_tokenization_spaces\": false,\n  \"add_bos_token\": %s",
                adds_bos(v) ? "true" : "false");
    for (size_t i = 0; i < MFI_ARRAY_LEN(names) && status == MF_OK; i++) {
        int64_t id = -1;
        status = find_special(v, names[i][0], &id, &text);
        if (status != MF_OK || id < 0)
            continue;
        mfi_buf_fmt(&v->out, ",\n  \"%s\": ", names[i][1]);
        mfi_json_put_str(&v->out, text.data, text.len);
    }
    put_templates(v);
    mfi_buf_str(&v->out, "\n}\n");
    mfi_buf_free(&text);
    return status;
}

static mf_status write_files(vocab *v, const char *dir)
{
    const char *name = string(v, "tokenizer.ggml.pre");
    v->pre = mfi_pre_type_find(name ? name : "default");
    if (!v->pre)
        return mfi_fail(v->err, MF_ERR_UNSUPPORTED, "%s: the pre-tokenizer %.64s is unknown",
                        mfi_catalog_path(v->catalog), name);
    MFI_TRY(open_cursors(v));
    MFI_TRY(put_tokenizer(v));
    MFI_TRY(mfi_cv_write_text(&v->out, dir, "tokenizer.json", v->err));
    v->out.len = 0;
    MFI_TRY(put_config(v));
    return mfi_cv_write_text(&v->out, dir, "tokenizer_config.json", v->err);
}

mf_status mfi_hv_write(const mfi_catalog *catalog, const char *dir, mf_error *err)
{
    vocab v = {.catalog = catalog, .meta = mfi_catalog_meta(catalog), .err = err};
    const char *model = string(&v, "tokenizer.ggml.model");
    if (!model || strcmp(model, "none") == 0 || strcmp(model, "no_vocab") == 0 ||
        strcmp(model, "test") == 0)
        return MF_OK;
    if (strcmp(model, "gpt2") != 0)
        return mfi_fail(err, MF_ERR_UNSUPPORTED,
                        "%s: a tokenizer of the kind %.64s; tokenizer.json can be written for gpt2 "
                        "(byte-level BPE)",
                        mfi_catalog_path(catalog), model);
    mf_status status = write_files(&v, dir);
    mfi_meta_cursor_close(&v.tokens);
    mfi_meta_cursor_close(&v.types);
    mfi_meta_cursor_close(&v.merges);
    mfi_buf_free(&v.out);
    return status;
}
