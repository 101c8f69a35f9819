/* A tokenizer's files as GGUF metadata: see gguf_keys.h. Called by the converter's driver once a
 * file. Everything read is foreign. Texts stay in the alphabets they are stored in, which are those
 * of the format: byte-level for the model's entries, plain for added ones. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "convert/gguf_keys.h"
#include "convert/gguf_vocab.h"
#include "os/file.h"
#include "text/pre_types.h"

typedef struct vocab {
    mfi_gguf_out *out;
    const char *path; /* tokenizer.json; of a SentencePiece model alone, tokenizer_config.json */
    char *json;
    size_t len;
    mfi_json_span model; /* its parts: */
    mfi_json_span vocab, merges, added;
    mfi_gv_token *tokens; /* [n] */
    uint32_t n;
    bool byte_level;
    mfi_gv_special special; /* of a SentencePiece model */
    mfi_buf scratch;
    mf_error *err;
} vocab;

static mf_status bad(const vocab *v, const char *what)
{
    return mfi_fail(v->err, MF_ERR_FORMAT, "%s: %s", v->path, what);
}

static mf_status no_memory(const vocab *v)
{
    return mfi_fail(v->err, MF_ERR_NO_MEMORY, "%s: out of memory", v->path);
}

/* The decoded text of a span, valid until the next call; NULL if it is no string or memory ran out.
 */
static const char *decoded(vocab *v, mfi_json_span span)
{
    v->scratch.len = 0;
    mfi_buf_append(&v->scratch, "", 0);
    if (!span.text || !mfi_json_span_str(span, &v->scratch) || v->scratch.failed)
        return NULL;
    return v->scratch.data;
}

/* ---- reading ---- */

static mf_status set_token(vocab *v, int64_t id, mfi_json_span text, int32_t type)
{
    if (id < 0 || id >= (int64_t)v->n)
        return mfi_fail(v->err, MF_ERR_FORMAT,
                        "%s: token %.*s has the id %" PRId64 ", but the model has %" PRIu32
                        " rows of embeddings",
                        v->path, (int)MFI_MIN(text.len, (size_t)60), text.text, id, v->n);
    v->tokens[id].text = text;
    v->tokens[id].type = type;
    return MF_OK;
}

static mf_status read_tokens(vocab *v)
{
    mfi_json_span key, value;
    int64_t id;
    if (!v->vocab.text || mfi_json_span_type(v->vocab) != MFI_JSON_OBJECT)
        return bad(v, "model.vocab is not an object");
    for (mfi_json_iter it = mfi_json_span_iter(v->vocab);
         mfi_json_object_next(&it, &key, &value);) {
        if (!mfi_json_span_i64(value, &id))
            return bad(v, "model.vocab has an id that is not an integer");
        MFI_TRY(set_token(v, id, key, MFI_GV_NORMAL));
    }
    return MF_OK;
}

static mf_status set_added(vocab *v, int64_t id, mfi_json_span entry)
{
    mfi_json_span special = mfi_json_span_get(entry, "special");
    mfi_json_span content = mfi_json_span_get(entry, "content");
    if (!content.text || mfi_json_span_type(content) != MFI_JSON_STRING)
        return bad(v, "an added token without content");
    return set_token(v, id, content,
                     special.text && special.text[0] == 't' ? MFI_GV_CONTROL : MFI_GV_USER_DEFINED);
}

/* tokenizer.json's list. */
static mf_status read_added(vocab *v)
{
    mfi_json_span value;
    int64_t id;
    if (!v->added.text || mfi_json_span_type(v->added) != MFI_JSON_ARRAY)
        return MF_OK;
    for (mfi_json_iter it = mfi_json_span_iter(v->added); mfi_json_array_next(&it, &value);) {
        if (mfi_json_span_type(value) != MFI_JSON_OBJECT)
            return bad(v, "added_tokens has an entry that is not an object");
        mfi_json_span number = mfi_json_span_get(value, "id");
        if (!number.text || !mfi_json_span_i64(number, &id))
            return bad(v, "added_tokens has an entry without id");
        MFI_TRY(set_added(v, id, value));
    }
    return MF_OK;
}

/* tokenizer_config.json's object: ids are its keys. */
static mf_status read_decoder(vocab *v)
{
    mfi_json_span root = mfi_json_root(v->json, v->len), key, value;
    mfi_json_span list = mfi_json_span_get(root, "added_tokens_decoder");
    if (!list.text || mfi_json_span_type(list) != MFI_JSON_OBJECT)
        return MF_OK;
    for (mfi_json_iter it = mfi_json_span_iter(list); mfi_json_object_next(&it, &key, &value);) {
        const char *digits = decoded(v, key);
        if (!digits)
            return no_memory(v);
        char *end;
        long long id = strtoll(digits, &end, 10);
        if (end == digits || *end || mfi_json_span_type(value) != MFI_JSON_OBJECT)
            return bad(v, "added_tokens_decoder has an entry that is no token");
        MFI_TRY(set_added(v, id, value));
    }
    return MF_OK;
}

/* ---- how text is split ---- */

/* What tokenizer.json says, in the terms of GGUF's names for it. */
typedef struct split_list {
    const char *patterns[MFI_PRE_MAX_SPLITS];
    uint32_t n;
    bool byte_level_split, ignore_merges, nfc;
    bool other; /* something that no name stands for */
} split_list;

static void add_split(split_list *s, const char *pattern)
{
    if (!pattern || s->n == MFI_PRE_MAX_SPLITS)
        s->other = true;
    else
        s->patterns[s->n++] = pattern;
}

static bool is_str(const mfi_json *object, const char *key, const char *want)
{
    const char *text = mfi_json_str(mfi_json_get(object, key), NULL);
    return text && strcmp(text, want) == 0;
}

/* The nesting is limited by the reader of JSON. */
static void collect_splits(const mfi_json *pre, split_list *s)
{
    bool flag = true, invert = false;
    const mfi_json *list = mfi_json_get(pre, "pretokenizers");
    if (is_str(pre, "type", "Sequence")) {
        for (size_t i = 0; i < mfi_json_len(list); i++)
            collect_splits(mfi_json_at(list, i), s);
    } else if (is_str(pre, "type", "Split")) {
        mfi_json_bool(mfi_json_get(pre, "invert"), &invert);
        s->other |= invert || !is_str(pre, "behavior", "Isolated");
        add_split(s, mfi_json_str(mfi_json_get(mfi_json_get(pre, "pattern"), "Regex"), NULL));
    } else if (is_str(pre, "type", "Digits")) {
        flag = false;
        mfi_json_bool(mfi_json_get(pre, "individual_digits"), &flag);
        add_split(s, flag ? "\\p{N}" : "\\p{N}+");
    } else if (is_str(pre, "type", "ByteLevel")) {
        mfi_json_bool(mfi_json_get(pre, "use_regex"), &flag);
        s->byte_level_split |= flag;
    } else {
        s->other = true;
    }
}

/* The next character of a pattern, whether it is written as itself or as \x{4e00}, \r or \n; an
 * escaped backslash is none of these. */
static uint32_t next_char(const char **p, const char *end)
{
    uint32_t c = 0;
    char *behind;
    if (strncmp(*p, "\\\\", 2) == 0) {
        *p += 2;
        return UINT32_MAX;
    }
    if (strncmp(*p, "\\r", 2) == 0 || strncmp(*p, "\\n", 2) == 0) {
        c = (*p)[1] == 'r' ? '\r' : '\n';
        *p += 2;
        return c;
    }
    if (strncmp(*p, "\\x{", 3) == 0) {
        c = (uint32_t)strtoul(*p + 3, &behind, 16);
        *p = behind + (*behind == '}');
        return c;
    }
    *p += MFI_MAX(mfi_utf8_decode(*p, end, &c), (size_t)1);
    return c;
}

static bool same_pattern(const char *a, const char *b)
{
    const char *a_end = a + strlen(a), *b_end = b + strlen(b);
    while (a < a_end && b < b_end)
        if (next_char(&a, a_end) != next_char(&b, b_end))
            return false;
    return a == a_end && b == b_end;
}

/* 0: splits otherwise; else how much of the rest is the same, too. */
static int likeness(const mfi_pre_type *type, const split_list *s)
{
    uint32_t n = 0;
    while (n < MFI_PRE_MAX_SPLITS && type->splits[n])
        n++;
    if (s->other || n != s->n || type->byte_level_split != s->byte_level_split)
        return 0;
    for (uint32_t i = 0; i < n; i++)
        if (!same_pattern(s->patterns[i], type->splits[i]))
            return 0;
    if (n == 0 && !s->byte_level_split)
        return 0;
    return 1 + 2 * (type->ignore_merges == s->ignore_merges) + (type->nfc == s->nfc);
}

static mf_status put_pre(vocab *v)
{
    mfi_json_span root = mfi_json_root(v->json, v->len);
    mfi_json_span span = mfi_json_span_get(root, "pre_tokenizer");
    mfi_json_span normalizer = mfi_json_span_get(root, "normalizer");
    mfi_json_span ignore = mfi_json_span_get(v->model, "ignore_merges");
    mfi_json *pre = NULL;
    split_list s = {.ignore_merges = ignore.text && ignore.text[0] == 't',
                    .nfc = normalizer.text && normalizer.text[0] == '{'};
    if (span.text)
        MFI_TRY(mfi_json_span_parse(span, &pre, v->err));
    collect_splits(pre, &s);
    const mfi_pre_type *best = NULL, *type;
    for (uint32_t i = 0; (type = mfi_pre_type_at(i)) != NULL; i++)
        if (likeness(type, &s) > (best ? likeness(best, &s) : 0))
            best = type;
    mf_status status = MF_OK;
    if (best) { /* the first of its names */
        const char *names = best->names;
        mfi_gguf_key_strn(v->out, "tokenizer.ggml.pre", names, strcspn(names, " "));
    } else {
        status = mfi_fail(v->err, MF_ERR_UNSUPPORTED,
                          "%s: GGUF knows pre-tokenisers by name, and has none known here for "
                          "\"%.200s\"",
                          v->path, s.n ? s.patterns[0] : "(no pattern)");
    }
    mfi_json_free(&pre);
    return status;
}

/* ---- writing ---- */

static mf_status put_tokens(vocab *v)
{
    char unused[32];
    mfi_gguf_array(v->out, "tokenizer.ggml.tokens", MFI_GGUF_STRING, v->n);
    for (uint32_t i = 0; i < v->n; i++) {
        if (!v->tokens[i].text.text) {
            int n = snprintf(unused, sizeof unused, "[PAD%" PRIu32 "]", i);
            mfi_gguf_put_str(v->out, unused, (size_t)n);
        } else if (!decoded(v, v->tokens[i].text)) {
            return no_memory(v);
        } else {
            mfi_gguf_put_str(v->out, v->scratch.data, v->scratch.len);
        }
    }
    mfi_gguf_array(v->out, "tokenizer.ggml.token_type", MFI_GGUF_INT32, v->n);
    for (uint32_t i = 0; i < v->n; i++)
        mfi_gguf_put_i32(v->out, v->tokens[i].type);
    return MF_OK;
}

/* "a b", whether it is stored so or as ["a", "b"]. */
static mf_status decode_merge(vocab *v, mfi_json_span entry)
{
    mfi_json_span a, b, more;
    if (mfi_json_span_type(entry) == MFI_JSON_STRING)
        return decoded(v, entry) ? MF_OK : no_memory(v);
    if (mfi_json_span_type(entry) != MFI_JSON_ARRAY)
        return bad(v, "model.merges has an entry that is no pair");
    mfi_json_iter it = mfi_json_span_iter(entry);
    if (!mfi_json_array_next(&it, &a) || !mfi_json_array_next(&it, &b) ||
        mfi_json_array_next(&it, &more) || mfi_json_span_type(a) != MFI_JSON_STRING ||
        mfi_json_span_type(b) != MFI_JSON_STRING)
        return bad(v, "model.merges has an entry that is no pair of strings");
    if (!decoded(v, a))
        return no_memory(v);
    mfi_buf_append(&v->scratch, " ", 1);
    mfi_json_span_str(b, &v->scratch);
    return v->scratch.failed ? no_memory(v) : MF_OK;
}

static mf_status put_merges(vocab *v)
{
    mfi_json_span entry;
    uint64_t n = 0;
    if (!v->merges.text || mfi_json_span_type(v->merges) != MFI_JSON_ARRAY)
        return bad(v, "model.merges is not an array");
    for (mfi_json_iter it = mfi_json_span_iter(v->merges); mfi_json_array_next(&it, &entry);)
        n++;
    mfi_gguf_array(v->out, "tokenizer.ggml.merges", MFI_GGUF_STRING, n);
    for (mfi_json_iter it = mfi_json_span_iter(v->merges); mfi_json_array_next(&it, &entry);) {
        MFI_TRY(decode_merge(v, entry));
        mfi_gguf_put_str(v->out, v->scratch.data, v->scratch.len);
    }
    return MF_OK;
}

static mf_status read_json(const char *dir, const char *name, mfi_json **root, mf_error *err)
{
    char *path = mfi_path_join(dir, name), *text = NULL;
    size_t len;
    mf_status status = MF_OK;
    if (!path)
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "%s/%s: out of memory", dir, name);
    if (status == MF_OK && mfi_file_exists(path)) {
        status = mfi_file_read_all(path, MFI_MAX_CONFIG_BYTES, &text, &len, err);
        if (status == MF_OK) /* it may say that there is no limit */
            status = mfi_json_scan_any_int(text, len, path, err);
        if (status == MF_OK)
            status = mfi_json_span_parse(mfi_json_root(text, len), root, err);
    }
    free(text);
    free(path);
    return status;
}

/* The id of a token that is named by its text, or -1. */
static int64_t find_token(vocab *v, const char *text)
{
    for (uint32_t i = v->n; text && i-- > 0;) /* special ones stand last */
        if (v->tokens[i].text.text && mfi_json_span_is(v->tokens[i].text, text))
            return i;
    return -1;
}

static void put_special(vocab *v, const mfi_json *config, const mfi_json *numbers, const char *what,
                        const char *what_gguf, int64_t own)
{
    char name[32], number[32], key[64];
    snprintf(name, sizeof name, "%s_token", what);
    snprintf(number, sizeof number, "%s_token_id", what);
    snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", what_gguf);
    const mfi_json *text = mfi_json_get(config, name);
    if (mfi_json_has(text, "content"))
        text = mfi_json_get(text, "content");
    int64_t id = find_token(v, mfi_json_str(text, NULL));
    const mfi_json *value = mfi_json_get(numbers, number);
    if (mfi_json_len(value) > 0)
        value = mfi_json_at(value, 0);
    if (id < 0 && (!mfi_json_i64(value, &id) || id >= (int64_t)v->n))
        id = own;
    if (id >= 0 && id < (int64_t)v->n)
        mfi_gguf_key_u32(v->out, key, (uint32_t)id);
}

/* One chat template: the file, or what the configuration has by that name; a text that isn't in a
 * list is the default. */
static mf_status put_template(vocab *v, const char *dir, const mfi_json *config, const char *file,
                              const char *name, const char *key)
{
    char *path = mfi_path_join(dir, file), *text = NULL;
    size_t len = 0;
    if (!path)
        return no_memory(v);
    mf_status status = MF_OK;
    if (mfi_file_exists(path))
        status = mfi_file_read_all(path, MFI_MAX_TEMPLATE_BYTES, &text, &len, v->err);
    free(path);
    const mfi_json *value = mfi_json_get(config, "chat_template"), *found = NULL;
    if (mfi_json_typeof(value) == MFI_JSON_STRING && strcmp(name, "default") == 0)
        found = value;
    for (size_t i = 0; !found && i < mfi_json_len(value); i++) {
        const mfi_json *item = mfi_json_at(value, i);
        const char *item_name = mfi_json_str(mfi_json_get(item, "name"), NULL);
        if (item_name && strcmp(item_name, name) == 0)
            found = mfi_json_get(item, "template");
    }
    const char *from = text ? text : mfi_json_str(found, &len);
    if (status == MF_OK && from)
        mfi_gguf_key_strn(v->out, key, from, len);
    free(text);
    return status;
}

static mf_status put_named(vocab *v, const mfi_model *model)
{
    const char *dir = mfi_catalog_path(model->catalog);
    const mfi_json *root = mfi_catalog_config(model->catalog);
    const mfi_json *text = mfi_json_get(root, "text_config");
    const mfi_json *numbers = mfi_json_has(text, "eos_token_id") ? text : root;
    mfi_json *config = NULL;
    bool add_bos = !v->byte_level, add_eos = false; /* SentencePiece's users add it */
    MFI_TRY(read_json(dir, "tokenizer_config.json", &config, v->err));
    put_special(v, config, numbers, "bos", "bos", v->special.bos);
    put_special(v, config, numbers, "eos", "eos", v->special.eos);
    put_special(v, config, numbers, "pad", "padding", v->special.pad);
    mfi_json_bool(mfi_json_get(config, "add_bos_token"), &add_bos);
    mfi_gguf_key_bool(v->out, "tokenizer.ggml.add_bos_token", add_bos);
    if (mfi_json_bool(mfi_json_get(config, "add_eos_token"), &add_eos))
        mfi_gguf_key_bool(v->out, "tokenizer.ggml.add_eos_token", add_eos);
    mf_status status =
        put_template(v, dir, config, "chat_template.jinja", "default", "tokenizer.chat_template");
    if (status == MF_OK)
        status = put_template(v, dir, config, "additional_chat_templates/tool_use.jinja",
                              "tool_use", "tokenizer.chat_template.tool_use");
    mfi_json_free(&config);
    return status;
}

/* ---- */

static mf_status open_json(vocab *v)
{
    MFI_TRY(mfi_file_read_all(v->path, MFI_MAX_JSON_BYTES, &v->json, &v->len, v->err));
    MFI_TRY(mfi_json_scan(v->json, v->len, v->path, v->err));
    mfi_json_span root = mfi_json_root(v->json, v->len), key, value;
    if (mfi_json_span_type(root) != MFI_JSON_OBJECT)
        return bad(v, "not an object");
    v->model = mfi_json_span_get(root, "model");
    v->added = mfi_json_span_get(root, "added_tokens");
    if (!v->model.text || mfi_json_span_type(v->model) != MFI_JSON_OBJECT)
        return bad(v, "no model");
    mfi_json_span type = {0}, bytes = {0};
    for (mfi_json_iter it = mfi_json_span_iter(v->model);
         mfi_json_object_next(&it, &key, &value);) {
        if (mfi_json_span_is(key, "vocab"))
            v->vocab = value;
        else if (mfi_json_span_is(key, "merges"))
            v->merges = value;
        else if (mfi_json_span_is(key, "type"))
            type = value;
        else if (mfi_json_span_is(key, "byte_fallback"))
            bytes = value;
    }
    v->byte_level =
        (!type.text || mfi_json_span_is(type, "BPE")) && !(bytes.text && bytes.text[0] == 't');
    return MF_OK;
}

static mf_status put_byte_level(vocab *v)
{
    MFI_TRY(read_tokens(v));
    MFI_TRY(read_added(v));
    mfi_gguf_key_str(v->out, "tokenizer.ggml.model", "gpt2");
    MFI_TRY(put_pre(v));
    MFI_TRY(put_tokens(v));
    return put_merges(v);
}

/* spm: tokenizer.model; what was added to it is in tokenizer.json, else in the configuration. */
static mf_status put_spm(vocab *v, const char *spm, bool json)
{
    if (!mfi_file_exists(spm))
        return mfi_fail(v->err, MF_ERR_UNSUPPORTED,
                        "%s: a tokenizer that is no byte-level BPE; GGUF has it by SentencePiece's "
                        "scores, and there is no tokenizer.model beside it",
                        v->path);
    MFI_TRY(json ? read_added(v) : read_decoder(v));
    return mfi_gv_spm(v->out, spm, v->tokens, v->n, &v->special, v->err);
}

static mf_status put_vocab(vocab *v, const mfi_model *model, const char *spm, bool json)
{
    v->tokens = calloc(v->n, sizeof *v->tokens);
    if (!v->tokens)
        return no_memory(v);
    for (uint32_t i = 0; i < v->n; i++)
        v->tokens[i].type = MFI_GV_UNUSED;
    if (json)
        MFI_TRY(open_json(v));
    else if (mfi_file_exists(v->path))
        MFI_TRY(mfi_file_read_all(v->path, MFI_MAX_CONFIG_BYTES, &v->json, &v->len, v->err));
    if (!json && v->json)
        MFI_TRY(mfi_json_scan_any_int(v->json, v->len, v->path, v->err));
    MFI_TRY(v->byte_level ? put_byte_level(v) : put_spm(v, spm, json));
    return put_named(v, model);
}

mf_status mfi_gk_vocab(mfi_gguf_out *out, const mfi_model *model, mf_error *err)
{
    const char *dir = mfi_catalog_path(model->catalog);
    char *path = mfi_path_join(dir, "tokenizer.json"), *spm = mfi_path_join(dir, "tokenizer.model");
    bool json = path && mfi_file_exists(path);
    mf_status status = MF_OK;
    if (!json) {
        free(path);
        path = mfi_path_join(dir, "tokenizer_config.json");
    }
    if (!path || !spm) {
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "tokenizer.json: out of memory");
    } else if (json || mfi_file_exists(spm)) {
        vocab v = {.out = out, .path = path, .n = model->shape.n_vocab, .err = err};
        v.special = (mfi_gv_special){-1, -1, -1};
        status = put_vocab(&v, model, spm, json);
        mfi_buf_free(&v.scratch);
        free(v.tokens);
        free(v.json);
    } else {
        mfi_gguf_key_str(out, "tokenizer.ggml.model", "none");
    }
    free(spm);
    free(path);
    return status;
}
