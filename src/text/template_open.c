/* Chat templates as callers see them: opened from a model folder or a file, parsed once, rendered
 * with variables that come as JSON.
 *
 * A template is immutable after open and may be rendered by several threads; the variables of a
 * rendering live in an arena of their own. Floating-point numbers and integers outside of int64 are
 * values that the subset can't look into. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/limits.h"
#include "os/file.h"
#include "text/template_int.h"
#include "text/tokenizer_int.h"
#include "text/unicode.h"

struct mf_template {
    mf_tokenizer *files; /* holds what lies beside the weights: source and named tokens */
    mfi_arena arena;     /* of the tree */
    mfi_node *root;
};

/* ---- opening ---- */

static mf_status parse(mf_template *t, const char *path, mf_error *err)
{
    size_t len = t->files->chat_template_len;
    size_t bad = mfi_utf8_check(t->files->chat_template, len);
    if (bad < len)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: the chat template is not UTF-8 at byte %zu", path,
                        bad);
    return mfi_template_parse(&t->arena, t->files->chat_template, len, &t->root, err);
}

static mf_status read_source(mf_tokenizer *files, const char *path, mf_error *err)
{
    /* Only a folder has something below it. */
    char *inside = mfi_path_join(path, ".");
    if (!inside)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    bool folder = mfi_file_exists(inside);
    free(inside);
    if (!folder)
        return mfi_file_read_all(path, MFI_MAX_TEMPLATE_BYTES, &files->chat_template,
                                 &files->chat_template_len, err);
    MFI_TRY(mfi_tokenizer_read_config(files, path, err));
    if (!files->chat_template)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s has no chat template", path);
    return MF_OK;
}

static mf_status open_template(mf_template *t, const char *path, mf_error *err)
{
    t->files = calloc(1, sizeof *t->files);
    if (!t->files)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    MFI_TRY(read_source(t->files, path, err));
    return parse(t, path, err);
}

mf_status mfi_template_open_files(mf_template **out, const char *path, mf_error *err)
{
    mf_template *t = calloc(1, sizeof *t);
    if (!t)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    mf_status status = open_template(t, path, err);
    if (status != MF_OK)
        mf_template_close(&t);
    else
        *out = t;
    return status;
}

mf_status mfi_template_open_tokenizer(mf_template **out, mf_tokenizer *tokenizer, const char *what,
                                      mf_error *err)
{
    mf_template *t = calloc(1, sizeof *t);
    if (!t) {
        mf_tokenizer_close(&tokenizer);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", what);
    }
    t->files = tokenizer;
    mf_status status = tokenizer->chat_template
                           ? parse(t, what, err)
                           : mfi_fail(err, MF_ERR_UNSUPPORTED, "%s has no chat template", what);
    if (status != MF_OK)
        mf_template_close(&t);
    else
        *out = t;
    return status;
}

void mf_template_close(mf_template **template)
{
    mf_template *t = template ? *template : NULL;
    if (!t)
        return;
    mfi_arena_free(&t->arena);
    mf_tokenizer_close(&t->files);
    free(t);
    *template = NULL;
}

/* ---- variables ---- */

/* Decodes a string into the arena. */
static bool take_string(mfi_arena *arena, mfi_json_span span, mfi_buf *scratch, const char **str,
                        size_t *len)
{
    scratch->len = 0;
    if (!mfi_json_span_str(span, scratch) || scratch->failed)
        return false;
    char *copy = mfi_arena_alloc(arena, scratch->len + 1);
    if (!copy)
        return false;
    if (scratch->len)
        memcpy(copy, scratch->data, scratch->len);
    copy[scratch->len] = 0;
    *str = copy;
    *len = scratch->len;
    return true;
}

static size_t count(mfi_json_span v, bool object)
{
    mfi_json_iter it = mfi_json_span_iter(v);
    mfi_json_span key, value;
    size_t n = 0;
    while (object ? mfi_json_object_next(&it, &key, &value) : mfi_json_array_next(&it, &value))
        n++;
    return n;
}

static bool take(mfi_arena *arena, mfi_json_span span, mfi_buf *scratch, mfi_value *out);

/* Room for `extra` more pairs is left behind the object's own. */
static bool take_object(mfi_arena *arena, mfi_json_span span, size_t extra, mfi_buf *scratch,
                        mfi_value *out)
{
    size_t n = count(span, true), key_len;
    mfi_value_pair *pairs = mfi_arena_alloc(arena, (n + extra + 1) * sizeof *pairs);
    mfi_json_iter it = mfi_json_span_iter(span);
    mfi_json_span key, value;
    if (!pairs)
        return false;
    for (size_t i = 0; i < n && mfi_json_object_next(&it, &key, &value); i++)
        if (!take_string(arena, key, scratch, &pairs[i].key, &key_len) ||
            !take(arena, value, scratch, &pairs[i].value))
            return false;
    *out = (mfi_value){.type = MFI_VALUE_MAP, .pairs = pairs, .n = n};
    return true;
}

static bool take_array(mfi_arena *arena, mfi_json_span span, mfi_buf *scratch, mfi_value *out)
{
    size_t n = count(span, false);
    mfi_value *items = mfi_arena_alloc(arena, (n + 1) * sizeof *items);
    mfi_json_iter it = mfi_json_span_iter(span);
    mfi_json_span value;
    if (!items)
        return false;
    for (size_t i = 0; i < n && mfi_json_array_next(&it, &value); i++)
        if (!take(arena, value, scratch, &items[i]))
            return false;
    *out = (mfi_value){.type = MFI_VALUE_LIST, .items = items, .n = n};
    return true;
}

/* False: out of memory. The scan bounds the depth. */
static bool take(mfi_arena *arena, mfi_json_span span, mfi_buf *scratch, mfi_value *out)
{
    *out = (mfi_value){.type = MFI_VALUE_OPAQUE};
    switch (mfi_json_span_type(span)) {
    case MFI_JSON_NULL:
        out->type = MFI_VALUE_NONE;
        return true;
    case MFI_JSON_BOOL:
        out->type = MFI_VALUE_BOOL;
        out->boolean = span.text[0] == 't';
        return true;
    case MFI_JSON_INT:
        if (mfi_json_span_i64(span, &out->integer))
            out->type = MFI_VALUE_INT;
        return true;
    case MFI_JSON_FLOAT:
        return true;
    case MFI_JSON_STRING:
        out->type = MFI_VALUE_STR;
        return take_string(arena, span, scratch, &out->str, &out->n);
    case MFI_JSON_ARRAY:
        return take_array(arena, span, scratch, out);
    case MFI_JSON_OBJECT:
        return take_object(arena, span, 0, scratch, out);
    }
    return true;
}

static bool has(const mfi_value *map, const char *name)
{
    for (size_t i = 0; i < map->n; i++)
        if (strcmp(map->pairs[i].key, name) == 0)
            return true;
    return false;
}

/* The model's named tokens, where the caller doesn't name them. */
static void add_named(const mf_template *t, mfi_value *map, mfi_value_pair *pairs)
{
    static const char *const names[] = {
#define NAME(name) #name,
        MFI_TOKEN_NAMES(NAME)
#undef NAME
    };
    size_t own = map->n;
    for (size_t i = 0; i < MFI_N_NAMED_TOKENS; i++) {
        const char *text = t->files->named[i];
        mfi_value given = {.type = MFI_VALUE_MAP, .pairs = pairs, .n = own};
        if (text && !has(&given, names[i]))
            pairs[map->n++] =
                (mfi_value_pair){names[i], {.type = MFI_VALUE_STR, .str = text, .n = strlen(text)}};
    }
}

static mf_status render(const mf_template *t, mfi_arena *arena, mfi_json_span root, mfi_buf *out,
                        mf_error *err)
{
    mfi_buf scratch = {0};
    mfi_value vars;
    bool ok = take_object(arena, root, MFI_N_NAMED_TOKENS, &scratch, &vars);
    mfi_buf_free(&scratch);
    if (!ok)
        return mfi_template_no_memory(err);
    add_named(t, &vars, (mfi_value_pair *)vars.pairs); /* made above, with room behind */
    return mfi_template_run(t->root, &vars, out, err);
}

mf_status mf_template_render(const mf_template *t, const char *vars_json, size_t vars_len,
                             char **text, size_t *len, mf_error *err)
{
    if (!t || (!vars_json && vars_len) || !text || !len)
        return mfi_fail(err, MF_ERR_ARGUMENT, "mf_template_render: NULL argument");
    MFI_TRY(mfi_json_scan(vars_json ? vars_json : "", vars_len, "variables", err));
    mfi_json_span root = mfi_json_root(vars_json, vars_len);
    if (mfi_json_span_type(root) != MFI_JSON_OBJECT)
        return mfi_fail(err, MF_ERR_FORMAT, "variables: not an object");
    mfi_arena arena = {0};
    mfi_buf out = {0};
    mfi_buf_append(&out, "", 0); /* so that *text is never NULL */
    mf_status status = render(t, &arena, root, &out, err);
    mfi_arena_free(&arena);
    if (status != MF_OK) {
        mfi_buf_free(&out);
        return status;
    }
    *text = out.data;
    *len = out.len;
    return MF_OK;
}
