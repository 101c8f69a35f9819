/* JSON schemas as grammars: every conjunction of schemas becomes a rule, so that references may be
 * recursive; rules wait in a list for their bodies, so that chains of them need no stack. The texts
 * that come of it are JSON which the schema validates:
 *   - white space: none around the document; after `{`, `[`, `,` and before `}`, `]` nothing, a
 *     space, or a newline and up to 32 spaces; after `:` nothing or a space;
 *   - numbers have as many digits as schema_number.c says;
 *   - the keys of properties that a schema doesn't name may repeat: a grammar can't count them.
 * Called when a grammar is opened, on that thread. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/limits.h"
#include "grammar/schema_int.h"

/* ---- the rules that all schemas share ---- */

static uint32_t text(mfi_schema *s, const char *str)
{
    return mfi_ast_str(s->ast, str);
}

static uint32_t class_of(mfi_schema *s, char lo, char hi)
{
    return mfi_ast_class(s->ast, &(mfi_range){(unsigned char)lo, (unsigned char)hi}, 1, false);
}

static uint32_t made(mfi_schema *s, uint32_t *rule, const char *name)
{
    *rule = mfi_ast_rule_new(s->ast, name);
    return *rule;
}

uint32_t mfi_schema_ws(mfi_schema *s)
{
    mfi_ast *ast = s->ast;
    if (s->ws)
        return s->ws;
    uint32_t line =
        mfi_ast_seq_of(ast, text(s, "\n"), mfi_ast_repeat(ast, text(s, " "), 0, 32), MFI_AST_END);
    uint32_t body = mfi_ast_optional(ast, mfi_ast_alt_of(ast, text(s, " "), line, MFI_AST_END));
    mfi_ast_define(ast, made(s, &s->ws, "white space"), body);
    return s->ws;
}

static uint32_t hex(mfi_schema *s, uint32_t n)
{
    mfi_range ranges[] = {{'0', '9'}, {'a', 'f'}, {'A', 'F'}};
    return mfi_ast_repeat(s->ast, mfi_ast_class(s->ast, ranges, 3, false), n, n);
}

/* A character of a string: as it is, or by any escape that stands for one character. */
static uint32_t string_char(mfi_schema *s)
{
    mfi_ast *ast = s->ast;
    static const mfi_range special[] = {{0, 0x1f}, {'"', '"'}, {'\\', '\\'}};
    static const mfi_range escapes[] = {{'"', '"'}, {'\\', '\\'}, {'/', '/'}, {'b', 'b'},
                                        {'f', 'f'}, {'n', 'n'},   {'r', 'r'}, {'t', 't'}};
    static const mfi_range high[] = {{'0', '9'}, {'a', 'c'}, {'A', 'C'}, {'e', 'f'}, {'E', 'F'}};
    static const mfi_range d[] = {{'d', 'd'}, {'D', 'D'}}, lead[] = {{'8', '9'}, {'a', 'b'}},
                           trail[] = {{'c', 'f'}};
    uint32_t plain = mfi_ast_seq_of(ast, text(s, "u"), mfi_ast_class(ast, high, 5, false),
                                    hex(s, 3), MFI_AST_END);
    uint32_t low = mfi_ast_seq_of(ast, text(s, "u"), mfi_ast_class(ast, d, 2, false),
                                  class_of(s, '0', '7'), hex(s, 2), MFI_AST_END);
    uint32_t pair = mfi_ast_seq_of(ast, text(s, "u"), mfi_ast_class(ast, d, 2, false),
                                   mfi_ast_class(ast, lead, 2, false), hex(s, 2), text(s, "\\u"),
                                   mfi_ast_class(ast, d, 2, false),
                                   mfi_ast_class(ast, trail, 1, false), hex(s, 2), MFI_AST_END);
    uint32_t escaped = mfi_ast_seq_of(
        ast, text(s, "\\"),
        mfi_ast_alt_of(ast, mfi_ast_class(ast, escapes, 8, false), plain, low, pair, MFI_AST_END),
        MFI_AST_END);
    return mfi_ast_alt_of(ast, mfi_ast_class(ast, special, 3, true), escaped, MFI_AST_END);
}

uint32_t mfi_schema_character(mfi_schema *s)
{
    if (s->string)
        return s->string;
    mfi_ast_define(s->ast, made(s, &s->string, "character"), string_char(s));
    return s->string;
}

/* ---- one type at a time ---- */

static mf_status put_types(mfi_schema *s, const mfi_view *v, uint32_t *node)
{
    mfi_ast *ast = s->ast;
    mfi_ast_list list = {0};
    uint32_t one = 0;
    if (v->types & MFI_TYPE_OBJECT) {
        MFI_TRY(mfi_schema_object(s, v, &one));
        mfi_ast_push(ast, &list, one);
    }
    if (v->types & MFI_TYPE_ARRAY) {
        MFI_TRY(mfi_schema_array(s, v, &one));
        mfi_ast_push(ast, &list, one);
    }
    if (v->types & MFI_TYPE_STRING) {
        MFI_TRY(mfi_schema_string(s, v, &one));
        mfi_ast_push(ast, &list, one);
    }
    if (v->types & (MFI_TYPE_INT | MFI_TYPE_FRACTION)) {
        MFI_TRY(mfi_schema_number(s, v, &one));
        mfi_ast_push(ast, &list, one);
    }
    if (v->types & MFI_TYPE_BOOL) {
        mfi_ast_push(ast, &list, text(s, "true"));
        mfi_ast_push(ast, &list, text(s, "false"));
    }
    if (v->types & MFI_TYPE_NULL)
        mfi_ast_push(ast, &list, text(s, "null"));
    *node = list.first ? mfi_ast_alt(ast, list) : mfi_text_never(ast);
    return MF_OK;
}

/* ---- alternatives ---- */

/* Two alternatives of a oneOf: whether nothing is of both, if both have the property `tag` (NULL:
 * none need be there). */
static mf_status are_apart(mfi_schema *s, const mfi_conjunction *all, const mfi_choices *choices,
                           size_t i, size_t k, const char *tag, bool *apart)
{
    mfi_choices one = *choices, other = *choices;
    mfi_view a = {0}, b = {0};
    one.tag[one.n] = other.tag[other.n] = NULL;
    one.at[one.n++] = (uint16_t)i;
    other.at[other.n++] = (uint16_t)k;
    mf_status status = mfi_view_make(s, all, &one, &a);
    if (status == MF_OK)
        status = mfi_view_make(s, all, &other, &b);
    if (status == MF_OK)
        *apart = mfi_views_disjoint(s, &a, &b) || (tag && (a.types | b.types) == MFI_TYPE_OBJECT &&
                                                   mfi_views_tagged(s, &a, &b, tag));
    mfi_view_free(&a);
    mfi_view_free(&b);
    return status;
}

/* Whether all alternatives are apart from each other; *i and *k are two that are not. */
static mf_status all_apart(mfi_schema *s, const mfi_conjunction *all, const mfi_choices *choices,
                           const mfi_view *v, const char *tag, size_t *i, size_t *k, bool *apart)
{
    size_t n = mfi_json_len(v->open);
    *apart = true;
    for (*i = 0; *i < n; ++*i)
        for (*k = *i + 1; *k < n; ++*k) {
            MFI_TRY(are_apart(s, all, choices, *i, *k, tag, apart));
            MFI_TRY(mfi_schema_spend(s, 1, v->open_path));
            if (!*apart)
                return MF_OK;
        }
    return MF_OK;
}

/* Finds what tells the alternatives of a oneOf apart: nothing further, or a property with other
 * values in each, which then must be there (*tag). */
static mf_status find_tag(mfi_schema *s, const mfi_conjunction *all, const mfi_choices *choices,
                          const mfi_view *v, const char **tag)
{
    mfi_choices first = *choices;
    mfi_view a = {0};
    size_t i, k, x, y;
    bool apart;
    *tag = NULL;
    MFI_TRY(all_apart(s, all, choices, v, NULL, &i, &k, &apart));
    if (apart)
        return MF_OK;
    first.tag[first.n] = NULL;
    first.at[first.n++] = (uint16_t)i;
    mf_status status = mfi_view_make(s, all, &first, &a);
    for (uint32_t p = 0; p < a.n_properties && status == MF_OK && !apart; p++) {
        *tag = a.properties[p].key;
        status = all_apart(s, all, choices, v, *tag, &x, &y, &apart);
    }
    mfi_view_free(&a);
    if (status == MF_OK && !apart)
        status = mfi_fail(s->err, MF_ERR_UNSUPPORTED,
                          "JSON schema: %.400s: something may be of both %zu and %zu, which "
                          "a grammar can't exclude; use anyOf",
                          v->open_path, i, k);
    return status;
}

static mf_status put_conjunction(mfi_schema *s, const mfi_conjunction *all,
                                 const mfi_choices *choices, uint32_t *node);

static mf_status put_alternatives(mfi_schema *s, const mfi_conjunction *all,
                                  const mfi_choices *choices, const mfi_view *v, uint32_t *node)
{
    mfi_ast_list list = {0};
    const char *tag = NULL;
    if (choices->n == MFI_SCHEMA_MAX_CHOICES)
        return mfi_fail(s->err, MF_ERR_LIMIT,
                        "JSON schema: %.400s: alternatives within alternatives, without end or "
                        "more than %d deep",
                        v->open_path, MFI_SCHEMA_MAX_CHOICES);
    if (v->open_is_one)
        MFI_TRY(find_tag(s, all, choices, v, &tag));
    for (size_t i = 0; i < mfi_json_len(v->open) && !mfi_ast_failed(s->ast); i++) {
        mfi_choices more = *choices;
        uint32_t one = 0;
        more.tag[more.n] = tag;
        more.at[more.n++] = (uint16_t)i;
        MFI_TRY(put_conjunction(s, all, &more, &one));
        mfi_ast_push(s->ast, &list, one);
    }
    *node = mfi_ast_alt(s->ast, list);
    return MF_OK;
}

static mf_status put_conjunction(mfi_schema *s, const mfi_conjunction *all,
                                 const mfi_choices *choices, uint32_t *node)
{
    mfi_view v = {0};
    mf_status status = mfi_view_make(s, all, choices, &v);
    if (status == MF_OK && v.open)
        status = put_alternatives(s, all, choices, &v, node);
    else if (status == MF_OK && v.n_values)
        status = mfi_schema_values(s, &v, node);
    else if (status == MF_OK)
        status = put_types(s, &v, node);
    mfi_view_free(&v);
    return status;
}

/* ---- rules ---- */

static uint64_t hash_of(const mfi_conjunction *all)
{
    const void *nodes[MFI_SCHEMA_MAX_PARTS];
    for (uint32_t i = 0; i < all->n; i++)
        nodes[i] = all->parts[i].node;
    return mfi_hash_bytes(nodes, all->n * sizeof *nodes);
}

static bool same(const mfi_conjunction *a, const mfi_conjunction *b)
{
    bool equal = a->n == b->n;
    for (uint32_t i = 0; equal && i < a->n; i++)
        equal = a->parts[i].node == b->parts[i].node;
    return equal;
}

static bool grow_jobs(mfi_schema *s)
{
    if (s->n_jobs < s->cap_jobs)
        return true;
    uint32_t cap = s->cap_jobs ? s->cap_jobs * 2 : 64;
    mfi_schema_job *jobs = realloc(s->jobs, cap * sizeof *jobs);
    if (jobs)
        s->jobs = jobs;
    uint32_t *index = jobs ? calloc((size_t)cap * 2, sizeof *index) : NULL;
    if (!index)
        return false;
    free(s->index);
    s->index = index;
    s->n_index = cap * 2;
    s->cap_jobs = cap;
    for (uint32_t i = 0; i < s->n_jobs; i++) {
        uint64_t at = hash_of(&s->jobs[i].all);
        while (index[at & (s->n_index - 1)])
            at++;
        index[at & (s->n_index - 1)] = i + 1;
    }
    return true;
}

mf_status mfi_schema_call(mfi_schema *s, const mfi_conjunction *all, uint32_t *node)
{
    if (!grow_jobs(s))
        return mfi_schema_no_memory(s);
    uint64_t at = hash_of(all);
    for (;; at++) {
        uint32_t known = s->index[at & (s->n_index - 1)];
        if (!known)
            break;
        if (same(&s->jobs[known - 1].all, all)) {
            *node = mfi_ast_call(s->ast, s->jobs[known - 1].rule);
            return MF_OK;
        }
    }
    uint32_t rule = mfi_ast_rule_new(s->ast, all->n ? all->parts[0].path : "anything");
    if (mfi_ast_failed(s->ast))
        return mfi_ast_check(s->ast, s->err);
    s->jobs[s->n_jobs] = (mfi_schema_job){*all, rule};
    s->index[at & (s->n_index - 1)] = ++s->n_jobs;
    *node = mfi_ast_call(s->ast, rule);
    return MF_OK;
}

static mf_status put_rules(mfi_schema *s)
{
    static const mfi_choices none = {.n = 0};
    mfi_conjunction root = {.n = 0};
    uint32_t node = 0;
    MFI_TRY(mfi_conjunction_add(s, &root, s->root, "#"));
    MFI_TRY(mfi_schema_call(s, &root, &node));
    mfi_ast_define(s->ast, 0, node);
    for (; s->n_done < s->n_jobs; s->n_done++) {
        mfi_schema_job job = s->jobs[s->n_done];
        MFI_TRY(put_conjunction(s, &job.all, &none, &node));
        mfi_ast_define(s->ast, job.rule, node);
        MFI_TRY(mfi_ast_check(s->ast, s->err));
        MFI_TRY(mfi_schema_spend(s, 1, job.all.n ? job.all.parts[0].path : "#"));
    }
    return MF_OK;
}

mf_status mfi_schema_parse(mfi_ast *ast, const char *json, size_t len, mf_error *err)
{
    uint64_t work;
    return mfi_schema_parse_counted(ast, json, len, &work, err);
}

mf_status mfi_schema_parse_counted(mfi_ast *ast, const char *json, size_t len, uint64_t *work,
                                   mf_error *err)
{
    *work = 0;
    mfi_schema s = {.ast = ast, .err = err};
    mfi_json *root = NULL;
    if (len > MFI_MAX_GRAMMAR_BYTES)
        return mfi_fail(err, MF_ERR_LIMIT, "JSON schema: %zu bytes; at most %u are accepted", len,
                        MFI_MAX_GRAMMAR_BYTES);
    mf_status status = mfi_json_parse(json, len, "JSON schema", &root, err);
    if (status == MF_ERR_FORMAT) {
        status = MF_ERR_ARGUMENT; /* no file of the model's */
        if (err)
            err->status = status;
    }
    s.root = root;
    if (status == MF_OK)
        status = put_rules(&s);
    *work = s.work;
    for (uint32_t i = 0; i < s.n_texts; i++)
        free(s.texts[i]);
    free(s.texts);
    free(s.jobs);
    free(s.index);
    mfi_json_free(&root);
    return status;
}
