/* What schemas say of strings, and of the keys of objects, as expressions. Part of the reader of
 * JSON schemas (schema.c). A pattern or a length alone is written as it is; several things at once
 * go through their conjunction (regular.h). */
#include <string.h>

#include "base/limits.h"
#include "grammar/regular.h"
#include "grammar/schema_int.h"

static mf_status bad_pattern(mf_error *err, const mfi_saying *what, const char *bad)
{
    return mfi_fail(err, MF_ERR_UNSUPPORTED, "JSON schema: %.400s: %s", what->path, bad);
}

/* How many characters an expression has, at least and at most (-1: without bound). */
typedef struct lengths {
    int64_t least, most;
} lengths;

static lengths lengths_of(const mfi_ast *ast, uint32_t index)
{
    const mfi_ast_node *node = &ast->nodes[index];
    lengths all = {0, 0};
    bool first = true;
    if (node->kind == MFI_AST_CLASS)
        return (lengths){1, 1};
    if (node->kind == MFI_AST_BYTES)
        return (lengths){0, node->b}; /* at most a character a byte */
    if (node->kind == MFI_AST_REPEAT) {
        lengths one = lengths_of(ast, node->a);
        all.least = one.least * node->b;
        all.most = node->c == MFI_AST_UNBOUNDED || one.most < 0 ? -1 : one.most * node->c;
    }
    if (node->kind != MFI_AST_SEQ && node->kind != MFI_AST_ALT)
        return all;
    for (uint32_t i = node->a; i; i = ast->nodes[i].next, first = false) {
        lengths one = lengths_of(ast, i);
        bool open = one.most < 0 || all.most < 0;
        if (node->kind == MFI_AST_SEQ)
            all = (lengths){all.least + one.least, open ? -1 : all.most + one.most};
        else if (first)
            all = one;
        else
            all = (lengths){MFI_MIN(all.least, one.least), open ? -1 : MFI_MAX(all.most, one.most)};
        all.least = MFI_MIN(all.least, (int64_t)UINT32_MAX);
        if (all.most > UINT32_MAX)
            all.most = -1;
    }
    return all;
}

mf_status mfi_saying_add(mfi_regular *r, const mfi_saying *what, bool negated, mf_error *err)
{
    mfi_ast *raw = mfi_regular_ast(r);
    mfi_pattern_looks looks;
    const char *bad;
    uint32_t node = mfi_pattern_parse(raw, what->pattern, what->len, &looks, &bad);
    if (!bad && negated && looks.n)
        bad = "look-ahead beside others of patternProperties";
    if (bad)
        return bad_pattern(err, what, bad);
    mfi_regular_is(r, node, negated);
    for (uint32_t i = 0; i < looks.n; i++)
        mfi_regular_is(r, looks.nodes[i], looks.negated[i]);
    return MF_OK;
}

/* All that the view says of strings; a length that follows from a pattern need not be counted. */
static mf_status say(const mfi_view *v, mfi_regular *r, mf_error *err)
{
    bool least = v->len_min > 0, most = v->len_max >= 0;
    for (uint32_t i = 0; i < v->n_says; i++) {
        const char *bad;
        mfi_pattern_looks looks;
        mfi_ast *raw = mfi_regular_ast(r);
        MFI_TRY(mfi_saying_add(r, &v->says[i], false, err));
        uint32_t node = mfi_pattern_parse(raw, v->says[i].pattern, v->says[i].len, &looks, &bad);
        lengths n = mfi_ast_failed(raw) ? (lengths){0, -1} : lengths_of(raw, node);
        least = least && n.least < v->len_min;
        most = most && (n.most < 0 || n.most > v->len_max);
    }
    mfi_regular_length(r, least ? v->len_min : -1, most ? v->len_max : -1);
    return MF_OK;
}

bool mfi_view_takes(mfi_view *v, const char *text, size_t len, bool *unsure)
{
    bool yes = true;
    if (v->n_says == 0)
        return true;
    if (!v->strings) {
        v->strings = mfi_regular_open(v->work);
        if (v->strings && say(v, v->strings, NULL) != MF_OK)
            mfi_regular_close(&v->strings);
    }
    if (!v->strings || mfi_regular_takes(v->strings, text, len, &yes, NULL) != MF_OK)
        *unsure = true;
    return yes;
}

mf_status mfi_schema_regular(mfi_schema *s, mfi_regular *r, const char *path, uint32_t *node)
{
    mf_error inner = {0};
    mf_status status = mfi_regular_emit(r, s->ast, node, &inner);
    if (status == MF_OK)
        return status;
    return mfi_fail(s->err, status, "JSON schema: %.400s: %s", path, inner.message);
}

mf_status mfi_schema_key(mfi_schema *s, const mfi_view *v, uint32_t which, uint32_t *node)
{
    mfi_regular *r = mfi_regular_open(&s->work);
    if (!r)
        return mfi_schema_no_memory(s);
    mfi_ast *raw = mfi_regular_ast(r);
    mfi_ast_list named = {0};
    mf_status status = MF_OK;
    /* Readers of JSON, ours too, have no use for U+0000 in keys. */
    uint32_t plain = mfi_ast_class(raw, &(mfi_range){0, 0}, 1, true);
    mfi_regular_is(r, mfi_ast_repeat(raw, plain, 0, MFI_AST_UNBOUNDED), false);
    for (uint32_t i = 0; i < v->n_properties; i++)
        mfi_ast_push(raw, &named, mfi_ast_str(raw, v->properties[i].key));
    if (named.first)
        mfi_regular_is(r, mfi_ast_alt(raw, named), true);
    for (uint32_t i = 0; i < v->n_patterned && status == MF_OK; i++)
        status = mfi_saying_add(r, &v->patterned[i].key, i != which, s->err);
    if (status == MF_OK && v->names)
        status = say(v->names, r, s->err);
    if (status == MF_OK)
        status = mfi_schema_regular(s, r, "the keys of an object", node);
    *node = mfi_ast_seq_of(s->ast, mfi_ast_str(s->ast, "\""), *node, mfi_ast_str(s->ast, "\""),
                           MFI_AST_END);
    mfi_regular_close(&r);
    return status;
}

static mf_status put_conjunction(mfi_schema *s, const mfi_view *v, uint32_t *inner)
{
    mfi_regular *r = mfi_regular_open(&s->work);
    if (!r)
        return mfi_schema_no_memory(s);
    mf_status status = say(v, r, s->err);
    if (status == MF_OK)
        status = mfi_schema_regular(s, r, v->says[0].path, inner);
    mfi_regular_close(&r);
    return status;
}

mf_status mfi_schema_string(mfi_schema *s, const mfi_view *v, uint32_t *node)
{
    mfi_ast *ast = s->ast;
    uint32_t inner = 0;
    if (v->len_max >= 0 && v->len_min > v->len_max) {
        *node = mfi_text_never(ast);
        return MF_OK;
    }
    if (v->n_says == 0) {
        uint32_t most = v->len_max < 0 ? MFI_AST_UNBOUNDED : (uint32_t)v->len_max;
        inner = mfi_ast_repeat(ast, mfi_ast_call(ast, mfi_schema_character(s)),
                               (uint32_t)MFI_MAX(v->len_min, 0), most);
    } else if (v->n_says == 1 && v->len_min <= 0 && v->len_max < 0 &&
               !mfi_pattern_looks_ahead(v->says[0].pattern)) {
        const char *bad;
        inner = mfi_pattern_parse(ast, v->says[0].pattern, v->says[0].len, NULL, &bad);
        if (bad)
            return bad_pattern(s->err, &v->says[0], bad);
    } else {
        MFI_TRY(put_conjunction(s, v, &inner));
    }
    *node = mfi_ast_seq_of(ast, mfi_ast_str(ast, "\""), inner, mfi_ast_str(ast, "\""), MFI_AST_END);
    return MF_OK;
}
