/* The template parser: tokens into a tree of statements and expressions.
 *
 * Recursive descent with jinja2's precedences, of its subset in template.h. Refuses by name what it does not
 * know; the depth of the tree is bounded, so that the evaluator may recurse. */
#include "base/limits.h"
#include "text/template_int.h"

#include <string.h>

typedef struct parser {
    mfi_arena *arena;
    mfi_lexer lexer;
    mfi_lex_token tok; /* the next one */
    uint32_t depth;
    mf_error *err;
} parser;

static mf_status advance(parser *ps)
{
    return mfi_lexer_next(&ps->lexer, &ps->tok);
}

static bool is_text(const mfi_lex_token *tok, mfi_token_type type, const char *text)
{
    return tok->type == type && tok->len == strlen(text) && memcmp(tok->text, text, tok->len) == 0;
}

static bool at_op(const parser *ps, const char *op)
{
    return is_text(&ps->tok, MFI_TOK_OP, op);
}

static bool at_name(const parser *ps, const char *name)
{
    return is_text(&ps->tok, MFI_TOK_NAME, name);
}

static bool at_any_name(const parser *ps, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (at_name(ps, names[i]))
            return true;
    return false;
}

static mf_status malformed(const parser *ps, const char *what)
{
    return mfi_template_malformed(ps->err, ps->tok.line, what);
}

static mf_status unsupported(const parser *ps, const char *what)
{
    return mfi_template_unsupported(ps->err, ps->tok.line, what, ps->tok.text, ps->tok.len);
}

static mf_status enter(parser *ps)
{
    if (++ps->depth > MFI_MAX_TEMPLATE_DEPTH)
        return mfi_fail(ps->err, MF_ERR_LIMIT, "chat template line %u: nested too deeply",
                        ps->tok.line);
    return MF_OK;
}

static mf_status new_node(parser *ps, mfi_node_type type, mfi_node **node)
{
    mfi_node *n = mfi_arena_alloc(ps->arena, sizeof *n);
    if (!n)
        return mfi_template_no_memory(ps->err);
    *n = (mfi_node){.type = type, .line = ps->tok.line};
    *node = n;
    return MF_OK;
}

/* ---- expressions ---- */

static mf_status parse_or(parser *ps, mfi_node **node);

static mf_status parse_string(parser *ps, mfi_node *node)
{
    mfi_buf all = {0}; /* neighbouring literals are one */
    mf_status status = MF_OK;
    while (status == MF_OK && ps->tok.type == MFI_TOK_STR) {
        mfi_buf_append(&all, ps->tok.text, ps->tok.len);
        status = advance(ps);
    }
    char *copy = mfi_arena_alloc(ps->arena, all.len + 1);
    if (!copy || all.failed)
        status = mfi_template_no_memory(ps->err);
    else
        memcpy(copy, all.data, all.len);
    node->value = (mfi_value){.type = MFI_VALUE_STR, .str = copy, .n = all.len};
    mfi_buf_free(&all);
    return status;
}

static mf_status parse_name(parser *ps, mfi_node *node)
{
    static const char *const functions[] = {"range",  "dict",      "lipsum",          "cycler",
                                            "joiner", "namespace", "raise_exception", "strftime_now",
                                            "self",   "super",     "caller"};
    static const char *const keywords[] = {"and", "or", "in", "is", "if", "else", "not"};
    static const struct {
        const char *name;
        mfi_value value;
    } constants[] = {
        {"true", {.type = MFI_VALUE_BOOL, .boolean = true}},
        {"True", {.type = MFI_VALUE_BOOL, .boolean = true}},
        {"false", {.type = MFI_VALUE_BOOL}},
        {"False", {.type = MFI_VALUE_BOOL}},
        {"none", {.type = MFI_VALUE_NONE}},
        {"None", {.type = MFI_VALUE_NONE}},
    };
    if (at_any_name(ps, functions, MFI_ARRAY_LEN(functions)))
        return unsupported(ps, "function");
    if (at_any_name(ps, keywords, MFI_ARRAY_LEN(keywords)))
        return malformed(ps, "expression expected");
    node->type = MFI_NODE_NAME;
    for (size_t i = 0; i < MFI_ARRAY_LEN(constants); i++) {
        if (at_name(ps, constants[i].name)) {
            node->type = MFI_NODE_LITERAL;
            node->value = constants[i].value;
        }
    }
    node->str = ps->tok.text;
    node->len = ps->tok.len;
    return advance(ps);
}

static mf_status parse_primary(parser *ps, mfi_node **node)
{
    if (at_op(ps, "(")) {
        MFI_TRY(enter(ps));
        MFI_TRY(advance(ps));
        MFI_TRY(parse_or(ps, node));
        if (!at_op(ps, ")"))
            return unsupported(ps, "in parentheses:");
        ps->depth--;
        return advance(ps);
    }
    MFI_TRY(new_node(ps, MFI_NODE_LITERAL, node));
    switch (ps->tok.type) {
    case MFI_TOK_STR:
        return parse_string(ps, *node);
    case MFI_TOK_NAME:
        return parse_name(ps, *node);
    case MFI_TOK_INT:
        (*node)->value = (mfi_value){.type = MFI_VALUE_INT, .integer = ps->tok.integer};
        return advance(ps);
    case MFI_TOK_OP:
        return unsupported(ps, "at the start of an expression:");
    default:
        return malformed(ps, "expression expected");
    }
}

/* a.name and a[item], any number of times. */
static mf_status parse_postfix(parser *ps, mfi_node **node)
{
    MFI_TRY(parse_primary(ps, node));
    uint32_t depth = ps->depth;
    while (at_op(ps, ".") || at_op(ps, "[")) {
        mfi_node *inner = *node;
        bool attr = at_op(ps, ".");
        MFI_TRY(enter(ps));
        MFI_TRY(advance(ps));
        MFI_TRY(new_node(ps, attr ? MFI_NODE_ATTR : MFI_NODE_ITEM, node));
        (*node)->a = inner;
        if (attr) {
            if (ps->tok.type != MFI_TOK_NAME)
                return unsupported(ps, "behind a dot:");
            (*node)->str = ps->tok.text;
            (*node)->len = ps->tok.len;
        } else {
            if (at_op(ps, ":"))
                return unsupported(ps, "slice");
            MFI_TRY(parse_or(ps, &(*node)->b));
            if (!at_op(ps, "]"))
                return unsupported(ps, "in an index:");
        }
        MFI_TRY(advance(ps));
    }
    ps->depth = depth;
    if (at_op(ps, "(")) {
        const mfi_node *n = *node;
        return mfi_template_unsupported(ps->err, ps->tok.line, "call of", n->str, n->len);
    }
    if (at_op(ps, "|")) {
        MFI_TRY(advance(ps));
        return unsupported(ps, "filter");
    }
    if (at_name(ps, "is")) {
        MFI_TRY(advance(ps));
        return unsupported(ps, "test");
    }
    return MF_OK;
}

/* Left-associative chains: each link makes the tree one deeper. */
static mf_status join(parser *ps, mfi_node_type type, mfi_node **node,
                      mf_status (*operand)(parser *, mfi_node **))
{
    mfi_node *left = *node;
    MFI_TRY(enter(ps));
    MFI_TRY(new_node(ps, type, node));
    MFI_TRY(advance(ps));
    (*node)->a = left;
    return operand(ps, &(*node)->b);
}

static mf_status parse_sum(parser *ps, mfi_node **node)
{
    uint32_t depth = ps->depth;
    MFI_TRY(parse_postfix(ps, node));
    while (at_op(ps, "+"))
        MFI_TRY(join(ps, MFI_NODE_ADD, node, parse_postfix));
    ps->depth = depth;
    return MF_OK;
}

static mf_status parse_compare(parser *ps, mfi_node **node)
{
    uint32_t depth = ps->depth;
    MFI_TRY(parse_sum(ps, node));
    bool equal = at_op(ps, "==");
    if (equal || at_op(ps, "!=")) {
        MFI_TRY(join(ps, equal ? MFI_NODE_EQ : MFI_NODE_NE, node, parse_sum));
        if (at_op(ps, "==") || at_op(ps, "!="))
            return unsupported(ps, "chained comparison");
    }
    ps->depth = depth;
    return MF_OK;
}

static mf_status parse_not(parser *ps, mfi_node **node)
{
    if (!at_name(ps, "not"))
        return parse_compare(ps, node);
    MFI_TRY(enter(ps));
    MFI_TRY(new_node(ps, MFI_NODE_NOT, node));
    MFI_TRY(advance(ps));
    MFI_TRY(parse_not(ps, &(*node)->a));
    ps->depth--;
    return MF_OK;
}

static mf_status parse_and(parser *ps, mfi_node **node)
{
    uint32_t depth = ps->depth;
    MFI_TRY(parse_not(ps, node));
    while (at_name(ps, "and"))
        MFI_TRY(join(ps, MFI_NODE_AND, node, parse_not));
    ps->depth = depth;
    return MF_OK;
}

static mf_status parse_or(parser *ps, mfi_node **node)
{
    uint32_t depth = ps->depth;
    MFI_TRY(parse_and(ps, node));
    while (at_name(ps, "or"))
        MFI_TRY(join(ps, MFI_NODE_OR, node, parse_and));
    ps->depth = depth;
    return MF_OK;
}

/* ---- statements ---- */

static mf_status close_tag(parser *ps, mfi_token_type type)
{
    if (ps->tok.type != type)
        return unsupported(ps, "in this tag:");
    return advance(ps);
}

static mf_status parse_body(parser *ps, const char *const *ends, size_t n_ends, mfi_node **first);

/* At the condition; reads up to and including endif. */
static mf_status parse_if(parser *ps, mfi_node **node)
{
    static const char *const ends[] = {"elif", "else", "endif"};
    MFI_TRY(enter(ps));
    MFI_TRY(new_node(ps, MFI_NODE_IF, node));
    MFI_TRY(parse_or(ps, &(*node)->a));
    MFI_TRY(close_tag(ps, MFI_TOK_CLOSE_BLOCK));
    MFI_TRY(parse_body(ps, ends, 3, &(*node)->body));
    if (at_name(ps, "elif")) {
        MFI_TRY(advance(ps));
        MFI_TRY(parse_if(ps, &(*node)->other));
        ps->depth--;
        return MF_OK;
    }
    if (at_name(ps, "else")) {
        MFI_TRY(advance(ps));
        MFI_TRY(close_tag(ps, MFI_TOK_CLOSE_BLOCK));
        MFI_TRY(parse_body(ps, ends + 2, 1, &(*node)->other));
    }
    ps->depth--;
    MFI_TRY(advance(ps));
    return close_tag(ps, MFI_TOK_CLOSE_BLOCK);
}

/* At the target; reads up to and including endfor. */
static mf_status parse_for(parser *ps, mfi_node **node)
{
    static const char *const ends[] = {"else", "endfor"};
    MFI_TRY(enter(ps));
    MFI_TRY(new_node(ps, MFI_NODE_FOR, node));
    if (ps->tok.type != MFI_TOK_NAME || at_name(ps, "loop"))
        return unsupported(ps, "loop target");
    (*node)->str = ps->tok.text;
    (*node)->len = ps->tok.len;
    MFI_TRY(advance(ps));
    if (!at_name(ps, "in"))
        return unsupported(ps, "loop target with");
    MFI_TRY(advance(ps));
    MFI_TRY(parse_or(ps, &(*node)->a));
    MFI_TRY(close_tag(ps, MFI_TOK_CLOSE_BLOCK));
    MFI_TRY(parse_body(ps, ends, 2, &(*node)->body));
    if (at_name(ps, "else")) {
        MFI_TRY(advance(ps));
        MFI_TRY(close_tag(ps, MFI_TOK_CLOSE_BLOCK));
        MFI_TRY(parse_body(ps, ends + 1, 1, &(*node)->other));
    }
    ps->depth--;
    MFI_TRY(advance(ps));
    return close_tag(ps, MFI_TOK_CLOSE_BLOCK);
}

static mf_status parse_block(parser *ps, mfi_node **node)
{
    static const char *const strays[] = {"elif", "else", "endif", "endfor"};
    if (ps->tok.type != MFI_TOK_NAME || at_any_name(ps, strays, MFI_ARRAY_LEN(strays)))
        return malformed(ps, "tag out of place");
    bool is_if = at_name(ps, "if");
    if (!is_if && !at_name(ps, "for"))
        return unsupported(ps, "tag");
    MFI_TRY(advance(ps));
    return is_if ? parse_if(ps, node) : parse_for(ps, node);
}

/* Statements up to a block that starts with one of `ends` (ps->tok is then that name), or, without
 * ends, to the end of the template. */
static mf_status parse_body(parser *ps, const char *const *ends, size_t n_ends, mfi_node **first)
{
    mfi_node **link = first;
    *link = NULL;
    for (;;) {
        switch (ps->tok.type) {
        case MFI_TOK_END:
            return n_ends ? malformed(ps, "block without end") : MF_OK;
        case MFI_TOK_DATA:
            MFI_TRY(new_node(ps, MFI_NODE_TEXT, link));
            (*link)->str = ps->tok.text;
            (*link)->len = ps->tok.len;
            MFI_TRY(advance(ps));
            break;
        case MFI_TOK_OPEN_VAR:
            MFI_TRY(new_node(ps, MFI_NODE_OUTPUT, link));
            MFI_TRY(advance(ps));
            MFI_TRY(parse_or(ps, &(*link)->a));
            MFI_TRY(close_tag(ps, MFI_TOK_CLOSE_VAR));
            break;
        default:
            MFI_TRY(advance(ps)); /* it is OPEN_BLOCK: nothing else starts in data */
            if (at_any_name(ps, ends, n_ends))
                return MF_OK;
            MFI_TRY(parse_block(ps, link));
            break;
        }
        link = &(*link)->next;
    }
}

mf_status mfi_template_parse(mfi_arena *arena, const char *source, size_t len, mfi_node **root,
                             mf_error *err)
{
    parser ps = {.arena = arena, .err = err};
    if (len > MFI_MAX_TEMPLATE_BYTES)
        return mfi_fail(err, MF_ERR_LIMIT, "chat template of %zu bytes", len);
    MFI_TRY(mfi_lexer_begin(&ps.lexer, arena, source, len, err));
    MFI_TRY(advance(&ps));
    return parse_body(&ps, NULL, 0, root);
}
