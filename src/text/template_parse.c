/* The template parser's statements: tokens into a tree.
 *
 * Entry point of everything that opens a template. Tags that need other templates, or that jinja2
 * doesn't know, are refused by name, also in branches that are not taken. The depth of the tree is
 * bounded, so that parser and evaluator may recurse. */
#include "text/template_int.h"

#include <stdlib.h>
#include <string.h>

/* ---- tokens ---- */

mf_status mfi_parser_advance(mfi_parser *ps)
{
    if (!ps->has_ahead)
        return mfi_lexer_next(&ps->lexer, &ps->tok);
    ps->tok = ps->ahead;
    ps->has_ahead = false;
    return MF_OK;
}

mf_status mfi_parser_look(mfi_parser *ps)
{
    if (ps->has_ahead)
        return MF_OK;
    ps->has_ahead = true;
    return mfi_lexer_next(&ps->lexer, &ps->ahead);
}

static bool is_text(const mfi_lex_token *tok, mfi_token_type type, const char *text)
{
    return tok->type == type && tok->len == strlen(text) && memcmp(tok->text, text, tok->len) == 0;
}

bool mfi_parser_at_op(const mfi_parser *ps, const char *op)
{
    return is_text(&ps->tok, MFI_TOK_OP, op);
}

bool mfi_parser_op_ahead(const mfi_parser *ps, const char *op)
{
    return ps->has_ahead && is_text(&ps->ahead, MFI_TOK_OP, op);
}

bool mfi_parser_at_name(const mfi_parser *ps, const char *name)
{
    return is_text(&ps->tok, MFI_TOK_NAME, name);
}

mf_status mfi_parser_malformed(const mfi_parser *ps, const char *what)
{
    const mfi_lex_token *tok = &ps->tok;
    if ((tok->type != MFI_TOK_NAME && tok->type != MFI_TOK_OP) || !tok->len)
        return mfi_template_malformed(ps->err, tok->line, what);
    return mfi_fail(ps->err, MF_ERR_FORMAT, "chat template line %u: %s, at %.*s", tok->line, what,
                    (int)MFI_MIN(tok->len, (size_t)60), tok->text);
}

mf_status mfi_parser_enter(mfi_parser *ps)
{
    if (++ps->depth > MFI_MAX_TEMPLATE_DEPTH)
        return mfi_fail(ps->err, MF_ERR_LIMIT, "chat template line %u: nested too deeply",
                        ps->tok.line);
    return MF_OK;
}

mf_status mfi_parser_node(mfi_parser *ps, mfi_node_type type, mfi_node **node)
{
    mfi_node *n = mfi_arena_alloc(ps->arena, sizeof *n);
    if (!n)
        return mfi_template_no_memory(ps->err);
    *n = (mfi_node){.type = (uint8_t)type, .line = ps->tok.line};
    *node = n;
    return MF_OK;
}

/* ---- names ---- */

static size_t name_slot(const mfi_parser *ps, const char *text, size_t len)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)text[i]) * 16777619u;
    size_t at = h & (ps->n_slots - 1);
    while (ps->names[at] &&
           !(ps->names[at]->n == len && memcmp(ps->names[at]->data, text, len) == 0))
        at = (at + 1) & (ps->n_slots - 1);
    return at;
}

static bool grow_names(mfi_parser *ps)
{
    const mfi_str **old = ps->names;
    size_t n_old = ps->n_slots;
    ps->n_slots = n_old ? 2 * n_old : 256;
    ps->names = calloc(ps->n_slots, sizeof(*ps->names));
    if (!ps->names) {
        ps->names = old;
        ps->n_slots = n_old;
        return false;
    }
    for (size_t i = 0; i < n_old; i++)
        if (old[i])
            ps->names[name_slot(ps, old[i]->data, old[i]->n)] = old[i];
    free(old);
    return true;
}

mf_status mfi_parser_name(mfi_parser *ps, const char *text, size_t len, const mfi_str **name)
{
    if (2 * ps->n_names >= ps->n_slots && !grow_names(ps))
        return mfi_template_no_memory(ps->err);
    size_t at = name_slot(ps, text, len);
    if (!ps->names[at]) {
        ps->names[at] = mfi_str_new(ps->arena, text, len, false);
        if (!ps->names[at])
            return mfi_template_no_memory(ps->err);
        ps->n_names++;
    }
    *name = ps->names[at];
    return MF_OK;
}

/* ---- statements ---- */

/* Names that end a body; the list ends with NULL. */
static mf_status parse_body(mfi_parser *ps, const char *const *ends, mfi_node **first);

static mf_status expect_name(mfi_parser *ps, const char *name, const char *what)
{
    if (!mfi_parser_at_name(ps, name))
        return mfi_parser_malformed(ps, what);
    return mfi_parser_advance(ps);
}

static mf_status end_tag(mfi_parser *ps)
{
    if (ps->tok.type != MFI_TOK_CLOSE_BLOCK)
        return mfi_parser_malformed(ps, "the end of the tag expected");
    return mfi_parser_advance(ps);
}

/* The rest of a tag and the statements up to one that begins with one of `ends`. */
static mf_status parse_block_body(mfi_parser *ps, const char *const *ends, mfi_node **first)
{
    if (mfi_parser_at_op(ps, ":")) /* as Python has it */
        MFI_TRY(mfi_parser_advance(ps));
    MFI_TRY(end_tag(ps));
    MFI_TRY(mfi_parser_enter(ps));
    MFI_TRY(parse_body(ps, ends, first));
    ps->depth--;
    return MF_OK;
}

/* The same, and the end itself. */
static mf_status parse_whole_body(mfi_parser *ps, const char *end, mfi_node **first)
{
    const char *const ends[] = {end, NULL};
    MFI_TRY(parse_block_body(ps, ends, first));
    return mfi_parser_advance(ps);
}

static mf_status parse_if(mfi_parser *ps, mfi_node *node)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    mfi_node **link = &node->list;
    node->type = MFI_NODE_IF;
    do {
        MFI_TRY(mfi_parser_node(ps, MFI_NODE_BRANCH, link));
        MFI_TRY(mfi_parser_advance(ps)); /* if, elif */
        MFI_TRY(mfi_parse_tuple(ps, MFI_TUPLE_NO_IF, &(*link)->a));
        MFI_TRY(parse_block_body(ps, ends, &(*link)->body));
        link = &(*link)->next;
    } while (mfi_parser_at_name(ps, "elif"));
    bool other = mfi_parser_at_name(ps, "else");
    MFI_TRY(mfi_parser_advance(ps));
    return other ? parse_whole_body(ps, "endif", &node->other) : MF_OK;
}

static mf_status parse_for(mfi_parser *ps, mfi_node *node)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    node->type = MFI_NODE_FOR;
    MFI_TRY(mfi_parser_advance(ps));
    MFI_TRY(mfi_parse_target(ps, false, &node->target));
    if (node->target->type == MFI_NODE_NAME && node->target->str == ps->tree->loop)
        return mfi_parser_malformed(ps, "loop can't be the variable of a loop");
    MFI_TRY(expect_name(ps, "in", "in expected"));
    MFI_TRY(mfi_parse_tuple(ps, MFI_TUPLE_NO_IF, &node->a));
    if (mfi_parser_at_name(ps, "if")) {
        MFI_TRY(mfi_parser_advance(ps));
        MFI_TRY(mfi_parse_expression(ps, &node->b));
    }
    node->flag = mfi_parser_at_name(ps, "recursive");
    if (node->flag)
        MFI_TRY(mfi_parser_advance(ps));
    MFI_TRY(parse_block_body(ps, ends, &node->body));
    bool other = mfi_parser_at_name(ps, "else");
    MFI_TRY(mfi_parser_advance(ps));
    return other ? parse_whole_body(ps, "endfor", &node->other) : MF_OK;
}

static mf_status parse_set(mfi_parser *ps, mfi_node *node)
{
    node->type = MFI_NODE_SET;
    MFI_TRY(mfi_parser_advance(ps));
    MFI_TRY(mfi_parse_target(ps, true, &node->target));
    if (mfi_parser_at_op(ps, "=")) {
        MFI_TRY(mfi_parser_advance(ps));
        return mfi_parse_tuple(ps, MFI_TUPLE_FULL, &node->a);
    }
    node->type = MFI_NODE_SET_BLOCK;
    if (mfi_parser_at_op(ps, "|")) {
        MFI_TRY(mfi_parser_node(ps, MFI_NODE_HERE, &node->a));
        MFI_TRY(mfi_parse_filters(ps, false, &node->a));
    }
    return parse_whole_body(ps, "endset", &node->body);
}

static mf_status parse_with(mfi_parser *ps, mfi_node *node)
{
    mfi_node **link = &node->list;
    node->type = MFI_NODE_WITH;
    MFI_TRY(mfi_parser_advance(ps));
    while (ps->tok.type != MFI_TOK_CLOSE_BLOCK) {
        if (node->list) {
            if (!mfi_parser_at_op(ps, ","))
                return mfi_parser_malformed(ps, "a comma expected");
            MFI_TRY(mfi_parser_advance(ps));
        }
        MFI_TRY(mfi_parser_node(ps, MFI_NODE_SET, link));
        MFI_TRY(mfi_parse_target(ps, false, &(*link)->target));
        if (!mfi_parser_at_op(ps, "="))
            return mfi_parser_malformed(ps, "= expected");
        MFI_TRY(mfi_parser_advance(ps));
        MFI_TRY(mfi_parse_expression(ps, &(*link)->a));
        link = &(*link)->next;
    }
    return parse_whole_body(ps, "endwith", &node->body);
}

/* The body of a macro or of a call block: which of the special names does it use? */
static mf_status parse_macro_body(mfi_parser *ps, const char *end, mfi_node *node)
{
    uint8_t outer = ps->uses;
    ps->uses = 0;
    MFI_TRY(parse_whole_body(ps, end, &node->body));
    node->uses = ps->uses;
    ps->uses |= outer;
    return MF_OK;
}

static mf_status parse_macro(mfi_parser *ps, mfi_node *node)
{
    node->type = MFI_NODE_MACRO;
    MFI_TRY(mfi_parser_advance(ps));
    if (ps->tok.type != MFI_TOK_NAME)
        return mfi_parser_malformed(ps, "the name of a macro expected");
    MFI_TRY(mfi_parser_name(ps, ps->tok.text, ps->tok.len, &node->str));
    MFI_TRY(mfi_parser_advance(ps));
    MFI_TRY(mfi_parse_params(ps, &node->list));
    return parse_macro_body(ps, "endmacro", node);
}

static mf_status parse_call_block(mfi_parser *ps, mfi_node *node)
{
    node->type = MFI_NODE_CALL_BLOCK;
    MFI_TRY(mfi_parser_advance(ps));
    if (mfi_parser_at_op(ps, "("))
        MFI_TRY(mfi_parse_params(ps, &node->list));
    MFI_TRY(mfi_parse_expression(ps, &node->a));
    if (node->a->type != MFI_NODE_CALL)
        return mfi_parser_malformed(ps, "a call expected");
    return parse_macro_body(ps, "endcall", node);
}

static mf_status parse_filter_block(mfi_parser *ps, mfi_node *node)
{
    node->type = MFI_NODE_FILTER_BLOCK;
    MFI_TRY(mfi_parser_advance(ps));
    MFI_TRY(mfi_parser_node(ps, MFI_NODE_HERE, &node->a));
    MFI_TRY(mfi_parse_filters(ps, true, &node->a));
    return parse_whole_body(ps, "endfilter", &node->body);
}

static mf_status parse_generation(mfi_parser *ps, mfi_node *node)
{
    node->type = MFI_NODE_SCOPE;
    MFI_TRY(mfi_parser_advance(ps));
    return parse_whole_body(ps, "endgeneration", &node->body);
}

static mf_status parse_break(mfi_parser *ps, mfi_node *node)
{
    node->type = mfi_parser_at_name(ps, "break") ? MFI_NODE_BREAK : MFI_NODE_CONTINUE;
    return mfi_parser_advance(ps);
}

/* {% print a, b %} */
static mf_status parse_print(mfi_parser *ps, mfi_node *node)
{
    node->type = MFI_NODE_OUTPUT;
    MFI_TRY(mfi_parser_node(ps, MFI_NODE_CONCAT, &node->a));
    MFI_TRY(mfi_parser_advance(ps));
    for (mfi_node **link = &node->a->list; ps->tok.type != MFI_TOK_CLOSE_BLOCK;
         link = &(*link)->next) {
        if (node->a->list) {
            if (!mfi_parser_at_op(ps, ","))
                return mfi_parser_malformed(ps, "a comma expected");
            MFI_TRY(mfi_parser_advance(ps));
        }
        MFI_TRY(mfi_parse_expression(ps, link));
    }
    return MF_OK;
}

/* At a tag's name. */
static mf_status parse_statement(mfi_parser *ps, mfi_node **node)
{
    static const struct {
        const char *name;
        mf_status (*parse)(mfi_parser *ps, mfi_node *node);
    } tags[] = {
        {"if", parse_if},
        {"for", parse_for},
        {"set", parse_set},
        {"with", parse_with},
        {"macro", parse_macro},
        {"call", parse_call_block},
        {"filter", parse_filter_block},
        {"generation", parse_generation},
        {"break", parse_break},
        {"continue", parse_break},
        {"print", parse_print},
    };
    static const char *const strays[] = {"elif",      "else",    "endif",        "endfor",
                                         "endset",    "endwith", "endmacro",     "endcall",
                                         "endfilter", "endraw",  "endgeneration"};
    MFI_TRY(mfi_parser_node(ps, MFI_NODE_SCOPE, node));
    for (size_t i = 0; i < MFI_ARRAY_LEN(tags); i++) {
        if (mfi_parser_at_name(ps, tags[i].name)) {
            MFI_TRY(tags[i].parse(ps, *node));
            return end_tag(ps);
        }
    }
    for (size_t i = 0; i < MFI_ARRAY_LEN(strays); i++)
        if (mfi_parser_at_name(ps, strays[i]))
            return mfi_parser_malformed(ps, "tag out of place");
    if (ps->tok.type != MFI_TOK_NAME)
        return mfi_parser_malformed(ps, "the name of a tag expected");
    return mfi_template_unsupported(ps->err, ps->tok.line, "tag", ps->tok.text, ps->tok.len);
}

static bool at_any_name(const mfi_parser *ps, const char *const *names)
{
    for (; names && *names; names++)
        if (mfi_parser_at_name(ps, *names))
            return true;
    return false;
}

static mf_status parse_data(mfi_parser *ps, mfi_node **node)
{
    MFI_TRY(mfi_parser_node(ps, MFI_NODE_TEXT, node));
    mfi_str *str = mfi_str_new(ps->arena, ps->tok.text, ps->tok.len, false);
    if (!str)
        return mfi_template_no_memory(ps->err);
    (*node)->str = str;
    return mfi_parser_advance(ps);
}

static mf_status parse_output(mfi_parser *ps, mfi_node **node)
{
    MFI_TRY(mfi_parser_node(ps, MFI_NODE_OUTPUT, node));
    MFI_TRY(mfi_parser_advance(ps));
    MFI_TRY(mfi_parse_tuple(ps, MFI_TUPLE_FULL, &(*node)->a));
    if (ps->tok.type != MFI_TOK_CLOSE_VAR)
        return mfi_parser_malformed(ps, "the end of the expression expected");
    return mfi_parser_advance(ps);
}

/* Statements up to a tag that begins with one of `ends` (ps->tok is then that name), or, without
 * ends, to the end of the template. */
static mf_status parse_body(mfi_parser *ps, const char *const *ends, mfi_node **first)
{
    mfi_node **link = first;
    *link = NULL;
    for (;;) {
        switch (ps->tok.type) {
        case MFI_TOK_END:
            if (!ends)
                return MF_OK;
            return mfi_fail(ps->err, MF_ERR_FORMAT,
                            "chat template line %u: block without end: %s expected", ps->tok.line,
                            ends[0]);
        case MFI_TOK_DATA:
            if (!ps->tok.len) {
                MFI_TRY(mfi_parser_advance(ps));
                continue;
            }
            MFI_TRY(parse_data(ps, link));
            break;
        case MFI_TOK_OPEN_VAR:
            MFI_TRY(parse_output(ps, link));
            break;
        default:
            MFI_TRY(mfi_parser_advance(ps)); /* it is OPEN_BLOCK: nothing else starts in data */
            if (at_any_name(ps, ends))
                return MF_OK;
            MFI_TRY(parse_statement(ps, link));
            break;
        }
        link = &(*link)->next;
    }
}

static mf_status parse_tree(mfi_parser *ps, const char *source, size_t len)
{
    mfi_template_tree *tree = ps->tree;
    MFI_TRY(mfi_parser_name(ps, "loop", 4, &tree->loop));
    MFI_TRY(mfi_parser_name(ps, "caller", 6, &tree->caller));
    MFI_TRY(mfi_parser_name(ps, "varargs", 7, &tree->varargs));
    MFI_TRY(mfi_parser_name(ps, "kwargs", 6, &tree->kwargs));
    MFI_TRY(mfi_lexer_begin(&ps->lexer, ps->arena, source, len, ps->err));
    MFI_TRY(mfi_parser_advance(ps));
    return parse_body(ps, NULL, &tree->root);
}

mf_status mfi_template_parse(mfi_template_tree **tree, const char *source, size_t len,
                             mf_error *err)
{
    if (len > MFI_MAX_TEMPLATE_BYTES)
        return mfi_fail(err, MF_ERR_LIMIT, "chat template of %zu bytes", len);
    mfi_template_tree *t = calloc(1, sizeof *t);
    if (!t)
        return mfi_template_no_memory(err);
    mfi_parser ps = {.arena = &t->arena, .tree = t, .err = err};
    mf_status status = parse_tree(&ps, source, len);
    free(ps.names);
    if (status != MF_OK)
        mfi_template_free(&t);
    else
        *tree = t;
    return status;
}

void mfi_template_free(mfi_template_tree **tree)
{
    if (!*tree)
        return;
    mfi_arena_free(&(*tree)->arena);
    free(*tree);
    *tree = NULL;
}
