/* Chat templates as callers see them: opened from a model folder or a file, parsed once, rendered
 * with variables that come as JSON.
 *
 * A template is immutable after open and may be rendered by several threads; everything of a
 * rendering lives in an arena of its own. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/limits.h"
#include "os/file.h"
#include "text/chat.h"
#include "text/template_int.h"
#include "text/tokenizer_int.h"
#include "text/unicode.h"

struct mf_template {
    mf_tokenizer *files; /* holds what lies beside the weights: sources and named tokens */
    mfi_chat_trees trees;
};

/* ---- opening ---- */

static mf_status parse(mfi_template_tree **tree, const char *source, size_t len, const char *path,
                       mf_error *err)
{
    if (!source)
        return MF_OK;
    size_t bad = mfi_utf8_check(source, len);
    if (bad < len)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: the chat template is not UTF-8 at byte %zu", path,
                        bad);
    return mfi_template_parse(tree, source, len, err);
}

mf_status mfi_chat_trees_parse(mfi_chat_trees *trees, const mf_tokenizer *files, const char *path,
                               mf_error *err)
{
    *trees = (mfi_chat_trees){0};
    if (!files->chat_template && !files->tool_template)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s has no chat template", path);
    mf_status status =
        parse(&trees->usual, files->chat_template, files->chat_template_len, path, err);
    if (status == MF_OK)
        status = parse(&trees->tools, files->tool_template, files->tool_template_len, path, err);
    if (status != MF_OK)
        mfi_chat_trees_free(trees);
    return status;
}

void mfi_chat_trees_free(mfi_chat_trees *trees)
{
    mfi_template_free(&trees->usual);
    mfi_template_free(&trees->tools);
}

static mf_status read_source(mf_tokenizer *files, const char *path, mf_error *err)
{
    /* Only a folder has something below it. */
    char *inside = mfi_path_join(path, ".");
    if (!inside)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    bool folder = mfi_file_exists(inside);
    free(inside);
    if (folder)
        return mfi_tokenizer_read_config(files, path, err);
    return mfi_file_read_all(path, MFI_MAX_TEMPLATE_BYTES, &files->chat_template,
                             &files->chat_template_len, err);
}

static mf_status open_template(mf_template *t, const char *path, mf_error *err)
{
    t->files = calloc(1, sizeof *t->files);
    if (!t->files)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    MFI_TRY(read_source(t->files, path, err));
    return mfi_chat_trees_parse(&t->trees, t->files, path, err);
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
    mf_status status = mfi_chat_trees_parse(&t->trees, tokenizer, what, err);
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
    mfi_chat_trees_free(&t->trees);
    mf_tokenizer_close(&t->files);
    free(t);
    *template = NULL;
}

const mfi_chat_trees *mfi_template_trees(const mf_template *t)
{
    return &t->trees;
}

const mf_tokenizer *mfi_template_files(const mf_template *t)
{
    return t->files;
}

/* ---- rendering ---- */

mf_status mfi_chat_trees_render(const mfi_chat_trees *trees, const mf_tokenizer *names,
                                const char *vars, size_t len, const char *now, mf_rendering *out,
                                mf_error *err)
{
    static const char *const token_names[] = {
#define NAME(name) #name,
        MFI_TOKEN_NAMES(NAME)
#undef NAME
    };
    mfi_template_name named[MFI_N_NAMED_TOKENS];
    if (now && !mfi_is_time(now))
        return mfi_fail(err, MF_ERR_ARGUMENT, "%.60s is no time like 2025-03-09T14:05:07", now);
    MFI_TRY(mfi_json_scan(vars, len, "variables", err));
    mfi_template_input input = {.vars = mfi_json_root(vars, len), .named = named, .now = now};
    if (mfi_json_span_type(input.vars) != MFI_JSON_OBJECT)
        return mfi_fail(err, MF_ERR_FORMAT, "variables: not an object");
    for (size_t i = 0; names && i < MFI_N_NAMED_TOKENS; i++)
        named[input.n_named++] = (mfi_template_name){token_names[i], names->named[i]};
    mfi_json_span tools = mfi_json_span_get(input.vars, "tools");
    bool with_tools = tools.text && mfi_json_span_type(tools) != MFI_JSON_NULL;
    const mfi_template_tree *tree = with_tools && trees->tools ? trees->tools : trees->usual;
    if (!tree)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "the only chat template is for tools");
    return mfi_template_render(tree, &input, out, err);
}

mf_status mf_template_render(const mf_template *t, const char *vars_json, size_t vars_len,
                             const char *now, mf_rendering *rendering, mf_error *err)
{
    if (!t || (!vars_json && vars_len) || !rendering)
        return mfi_fail(err, MF_ERR_ARGUMENT, "mf_template_render: NULL argument");
    return mfi_chat_trees_render(&t->trees, t->files, vars_json ? vars_json : "", vars_len, now,
                                 rendering, err);
}
