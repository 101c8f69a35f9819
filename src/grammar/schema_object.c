/* Objects and arrays as expressions. Part of the reader of JSON schemas (schema.c).
 *
 * Properties come in the order in which the schemas name them, those that are not required may be
 * left out, and others, where they are allowed, follow. */
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/utf8.h"
#include "grammar/schema_int.h"

#define KEY_MAX_BYTES 512 /* of a property's name, where others are allowed beside it */
#define UNIQUE_MAX    8   /* values of items of which none may occur twice */

static uint32_t text(mfi_schema *s, const char *str)
{
    return mfi_ast_str(s->ast, str);
}

/* ---- keys that are none of the named ---- */

/* Readers of JSON, ours too, have no use for U+0000 in keys. */
static uint32_t key_char(mfi_ast *ast)
{
    return mfi_text_char(ast, &(mfi_range){0, 0}, 1, true);
}

/* The names from..to, sorted, that share their first `at` bytes; expressions for what may follow.
 */
static uint32_t other_key(mfi_schema *s, const char *const *names, uint32_t n, size_t at)
{
    mfi_ast *ast = s->ast;
    mfi_ast_list list = {0};
    mfi_buf first = {0}; /* characters that names go on with */
    bool ends = names[0][at] == 0;
    for (uint32_t i = ends; i < n && !mfi_ast_failed(ast);) {
        uint32_t cp = 0, same = i + 1;
        size_t len = mfi_utf8_decode(names[i] + at, names[i] + strlen(names[i]), &cp);
        if (len == 0) /* the schema is UTF-8 */
            break;
        while (same < n && strncmp(names[i] + at, names[same] + at, len) == 0)
            same++;
        mfi_range one = {cp, cp};
        mfi_buf_append(&first, &one, sizeof one);
        mfi_ast_push(ast, &list,
                     mfi_ast_seq_of(ast, mfi_text_plain(ast, names[i] + at, len),
                                    other_key(s, names + i, same - i, at + len), MFI_AST_END));
        i = same;
    }
    uint32_t rest = mfi_ast_repeat(ast, key_char(ast), 0, MFI_AST_UNBOUNDED);
    mfi_range nul = {0, 0};
    mfi_buf_append(&first, &nul, sizeof nul);
    uint32_t other = mfi_text_char(ast, (const mfi_range *)(const void *)first.data,
                                   (uint32_t)(first.len / sizeof(mfi_range)), true);
    mfi_ast_push(ast, &list, mfi_ast_seq_of(ast, other, rest, text(s, "\""), MFI_AST_END));
    if (!ends)
        mfi_ast_push(ast, &list, text(s, "\""));
    ast->bytes.failed = ast->bytes.failed || first.failed;
    mfi_buf_free(&first);
    return mfi_ast_alt(ast, list);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static mf_status key_of_others(mfi_schema *s, const mfi_view *v, uint32_t *node)
{
    mfi_ast *ast = s->ast;
    const char **names = malloc((v->n_properties + 1) * sizeof *names);
    if (!names)
        return mfi_schema_no_memory(s);
    mf_status status = MF_OK;
    for (uint32_t i = 0; i < v->n_properties; i++) {
        names[i] = v->properties[i].key;
        if (strlen(names[i]) > KEY_MAX_BYTES)
            status =
                mfi_fail(s->err, MF_ERR_LIMIT,
                         "JSON schema: a property's name has more than %d bytes", KEY_MAX_BYTES);
    }
    if (status == MF_OK && v->n_properties) {
        qsort(names, v->n_properties, sizeof *names, by_name);
        *node = mfi_ast_seq_of(ast, text(s, "\""), other_key(s, names, v->n_properties, 0),
                               MFI_AST_END);
    } else if (status == MF_OK) {
        uint32_t any = key_char(ast);
        *node = mfi_ast_seq_of(ast, text(s, "\""), mfi_ast_repeat(ast, any, 0, MFI_AST_UNBOUNDED),
                               text(s, "\""), MFI_AST_END);
    }
    free(names);
    return status;
}

/* ---- objects ---- */

static uint32_t call_ws(mfi_schema *s)
{
    return mfi_ast_call(s->ast, mfi_schema_ws(s));
}

static uint32_t colon(mfi_schema *s)
{
    return mfi_ast_seq_of(s->ast, text(s, ":"), mfi_ast_optional(s->ast, text(s, " ")),
                          MFI_AST_END);
}

static uint32_t comma(mfi_schema *s)
{
    return mfi_ast_seq_of(s->ast, text(s, ","), call_ws(s), MFI_AST_END);
}

/* A rule of that body, and a call of it wherever it is wanted. */
static uint32_t as_rule(mfi_schema *s, const char *name, uint32_t body)
{
    uint32_t rule = mfi_ast_rule_new(s->ast, name);
    mfi_ast_define(s->ast, rule, body);
    return rule;
}

static bool takes_additional(const mfi_view *v)
{
    return !v->closed && !v->names_listed &&
           (v->says_additional || !(v->says_properties || v->n_patterned));
}

/* One member that is not named; *there is false if there may be none. */
static mf_status other(mfi_schema *s, const mfi_view *v, uint32_t *member, bool *there)
{
    mfi_ast *ast = s->ast;
    mfi_ast_list list = {0};
    uint32_t key = 0, value = 0;
    for (uint32_t i = 0; i < v->n_patterned && !v->names_listed; i++) {
        MFI_TRY(mfi_schema_key(s, v, i, &key));
        MFI_TRY(mfi_schema_call(s, &v->patterned[i].all, &value));
        mfi_ast_push(ast, &list, mfi_ast_seq_of(ast, key, colon(s), value, MFI_AST_END));
    }
    if (takes_additional(v)) {
        MFI_TRY(v->n_patterned || v->names ? mfi_schema_key(s, v, UINT32_MAX, &key)
                                           : key_of_others(s, v, &key));
        MFI_TRY(mfi_schema_call(s, &v->additional, &value));
        mfi_ast_push(ast, &list, mfi_ast_seq_of(ast, key, colon(s), value, MFI_AST_END));
    }
    *there = list.first != 0;
    *member = as_rule(s, "other", mfi_ast_alt(ast, list));
    return MF_OK;
}

/* What may stand after the named properties: rules for where none has been written, and some. */
static mf_status others(mfi_schema *s, const mfi_view *v, bool wanted, int64_t most, uint32_t *none,
                        uint32_t *some)
{
    mfi_ast *ast = s->ast;
    uint32_t member = 0, up_to = most < 0 ? MFI_AST_UNBOUNDED : (uint32_t)most;
    bool there = false;
    if (most != 0)
        MFI_TRY(other(s, v, &member, &there));
    if (!there) {
        *some = as_rule(s, "end", 0);
        *none = wanted ? as_rule(s, "end", mfi_text_never(ast)) : *some;
        return MF_OK;
    }
    uint32_t more = mfi_ast_seq_of(ast, comma(s), mfi_ast_call(ast, member), MFI_AST_END);
    *some = as_rule(s, "others", mfi_ast_repeat(ast, more, 0, up_to));
    more = mfi_ast_seq_of(ast, comma(s), mfi_ast_call(ast, member), MFI_AST_END);
    uint32_t first =
        mfi_ast_seq_of(ast, mfi_ast_call(ast, member),
                       mfi_ast_repeat(ast, more, 0, most < 0 ? up_to : up_to - 1), MFI_AST_END);
    *none = as_rule(s, "others", wanted ? first : mfi_ast_optional(ast, first));
    return MF_OK;
}

/* How many others there may be at most (-1: any number), and whether something must be there at
 * all. Keys may repeat and then count once, so that no more than one can be made sure of. */
static mf_status count(mfi_schema *s, const mfi_view *v, bool *wanted, int64_t *most)
{
    int64_t required = 0, named = 0;
    for (uint32_t i = 0; i < v->n_properties; i++) {
        required += v->properties[i].required;
        named += !v->properties[i].forbidden;
    }
    *wanted = v->properties_min > required;
    *most = v->properties_max < 0 ? -1 : v->properties_max - named;
    if (*wanted && (v->properties_min > 1 || required))
        return mfi_fail(s->err, MF_ERR_UNSUPPORTED,
                        "JSON schema: %.400s: more than 1, and more than are required, is not "
                        "supported",
                        v->properties_path);
    if (v->properties_max >= 0 && *most < 0)
        return mfi_fail(s->err, MF_ERR_UNSUPPORTED,
                        "JSON schema: %.400s: fewer than have names is not supported",
                        v->properties_path);
    return MF_OK;
}

mf_status mfi_schema_object(mfi_schema *s, const mfi_view *v, uint32_t *node)
{
    mfi_ast *ast = s->ast;
    uint32_t none, some; /* rules for the rest, after no property and after some */
    bool wanted;
    int64_t most;
    MFI_TRY(count(s, v, &wanted, &most));
    MFI_TRY(others(s, v, wanted, most, &none, &some));
    for (uint32_t i = v->n_properties; i-- > 0;) {
        const mfi_property *p = &v->properties[i];
        uint32_t value = 0;
        if (p->forbidden && !p->required)
            continue;
        if (p->forbidden) {
            *node = mfi_text_never(ast);
            return MF_OK;
        }
        MFI_TRY(mfi_schema_call(s, &p->all, &value));
        uint32_t member = as_rule(s, p->key,
                                  mfi_ast_seq_of(ast, mfi_text_quoted(ast, p->key, strlen(p->key)),
                                                 colon(s), value, MFI_AST_END));
        uint32_t first =
            mfi_ast_seq_of(ast, mfi_ast_call(ast, member), mfi_ast_call(ast, some), MFI_AST_END);
        uint32_t next = mfi_ast_seq_of(ast, comma(s), mfi_ast_call(ast, member),
                                       mfi_ast_call(ast, some), MFI_AST_END);
        if (!p->required) {
            first = mfi_ast_alt_of(ast, first, mfi_ast_call(ast, none), MFI_AST_END);
            next = mfi_ast_alt_of(ast, next, mfi_ast_call(ast, some), MFI_AST_END);
        }
        none = as_rule(s, p->key, first);
        some = as_rule(s, p->key, next);
        if (mfi_ast_failed(ast))
            return mfi_ast_check(ast, s->err);
    }
    *node = mfi_ast_seq_of(ast, text(s, "{"), call_ws(s), mfi_ast_call(ast, none), call_ws(s),
                           text(s, "}"), MFI_AST_END);
    return MF_OK;
}

/* ---- arrays ---- */

/* least..most elements; first: no comma before the first of them. */
static mf_status elements(mfi_schema *s, const mfi_conjunction *all, int64_t least, int64_t most,
                          bool first, uint32_t *node)
{
    mfi_ast *ast = s->ast;
    uint32_t value = 0, head = 0;
    *node = 0;
    if (most == 0)
        return MF_OK;
    MFI_TRY(mfi_schema_call(s, all, &value));
    uint32_t more = mfi_ast_seq_of(ast, comma(s), value, MFI_AST_END);
    int64_t done = first;
    uint32_t up_to = most < 0 ? MFI_AST_UNBOUNDED : (uint32_t)(most - done);
    *node = mfi_ast_repeat(ast, more, (uint32_t)MFI_MAX(least - done, 0), up_to);
    if (!first)
        return MF_OK;
    MFI_TRY(mfi_schema_call(s, all, &head));
    *node = mfi_ast_seq_of(ast, head, *node, MFI_AST_END);
    if (least <= 0)
        *node = mfi_ast_optional(ast, *node);
    return MF_OK;
}

/* Items of few values, none twice: a rule for each set of those that have been written. */
static uint32_t unique_values(mfi_schema *s, const mfi_json *const *values, uint32_t n,
                              int64_t least, int64_t most)
{
    mfi_ast *ast = s->ast;
    uint32_t rules[1 << UNIQUE_MAX];
    for (uint32_t used = 1u << n; used-- > 0;) { /* larger sets first */
        mfi_ast_list list = {0};
        int count = __builtin_popcount(used);
        if (count >= least)
            mfi_ast_push(ast, &list, mfi_ast_bytes(ast, "", 0));
        for (uint32_t i = 0; i < n && (most < 0 || count < most); i++) {
            mfi_buf text = {0};
            if (used >> i & 1)
                continue;
            mfi_json_put(&text, values[i]);
            ast->bytes.failed = ast->bytes.failed || text.failed;
            mfi_ast_push(ast, &list,
                         mfi_ast_seq_of(ast, used ? comma(s) : 0,
                                        mfi_ast_bytes(ast, text.data, text.len),
                                        mfi_ast_call(ast, rules[used | 1u << i]), MFI_AST_END));
            mfi_buf_free(&text);
        }
        rules[used] =
            as_rule(s, "items", list.first ? mfi_ast_alt(ast, list) : mfi_text_never(ast));
    }
    return mfi_ast_call(ast, rules[0]);
}

static mf_status unique_items(mfi_schema *s, const mfi_view *v, int64_t least, int64_t most,
                              uint32_t *node)
{
    static const mfi_choices none = {.n = 0};
    const mfi_json *values[UNIQUE_MAX];
    mfi_view item = {0};
    mf_status status = mfi_view_make(s, &v->rest, &none, &item);
    const mfi_json *all = item.n_values && !item.is_const[0] ? item.values[0] : NULL;
    uint32_t n = 0;
    bool few = all && !item.open && !v->n_prefix && mfi_json_len(all) <= UNIQUE_MAX, unsure = false;
    for (size_t i = 0; few && i < mfi_json_len(all); i++) {
        const mfi_json *value = mfi_json_at(all, i);
        bool again = !mfi_value_is_left(&item, value, &unsure);
        for (uint32_t k = 0; k < n && !again; k++)
            again = mfi_values_equal(values[k], value, &s->work);
        if (!again)
            values[n++] = value;
    }
    mfi_view_free(&item);
    MFI_TRY(status);
    if (!few || unsure)
        return mfi_fail(s->err, MF_ERR_UNSUPPORTED,
                        "JSON schema: %.400s: only items from an enum of at most %d values are "
                        "supported (or maxItems 1): a grammar can't remember others",
                        v->unique_path, UNIQUE_MAX);
    uint32_t inner = unique_values(s, values, n, least, most);
    *node = mfi_ast_seq_of(s->ast, text(s, "["), call_ws(s), inner, call_ws(s), text(s, "]"),
                           MFI_AST_END);
    return MF_OK;
}

mf_status mfi_schema_array(mfi_schema *s, const mfi_view *v, uint32_t *node)
{
    mfi_ast *ast = s->ast;
    int64_t least = MFI_MAX(v->items_min, 0), most = v->items_max, n = v->n_prefix;
    uint32_t inner = 0;
    if (most >= 0 && least > most) {
        *node = mfi_text_never(ast);
        return MF_OK;
    }
    if (v->unique_path && (most < 0 || most > 1))
        return unique_items(s, v, least, most, node);
    if (most >= 0 && most < n)
        n = most;
    MFI_TRY(elements(s, &v->rest, least - n, most < 0 ? -1 : most - n, n == 0, &inner));
    for (int64_t i = n; i-- > 0;) { /* the element i, then what follows it */
        uint32_t value = 0;
        MFI_TRY(mfi_schema_call(s, &v->prefix[i], &value));
        inner = mfi_ast_seq_of(ast, i ? comma(s) : 0, value, inner, MFI_AST_END);
        if (i >= least)
            inner = mfi_ast_optional(ast, inner);
    }
    *node =
        mfi_ast_seq_of(ast, text(s, "["), call_ws(s), inner, call_ws(s), text(s, "]"), MFI_AST_END);
    return MF_OK;
}
