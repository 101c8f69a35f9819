/* The template parser's expressions, with jinja2's precedences.
 *
 * Recursive descent over the lexer's tokens; called by the statements (template_parse.c). Brackets
 * and prefixes are bounded by MFI_MAX_TEMPLATE_DEPTH; chains of operators are not recursive here,
 * and bounded where they are evaluated. */
#include "text/template_int.h"

#include <string.h>

static mf_status parse_or(mfi_parser *ps, mfi_node **node);
static mf_status parse_unary(mfi_parser *ps, bool with_filter, mfi_node **node);

static mf_status expect_op(mfi_parser *ps, const char *op, const char *what)
{
    if (!mfi_parser_at_op(ps, op))
        return mfi_parser_malformed(ps, what);
    return mfi_parser_advance(ps);
}

/* ---- literals and names ---- */

static mf_status parse_string(mfi_parser *ps, mfi_node *node)
{
    mfi_buf all = {0}; /* neighbouring literals are one */
    mf_status status = MF_OK;
    while (status == MF_OK && ps->tok.type == MFI_TOK_STR) {
        mfi_buf_append(&all, ps->tok.text, ps->tok.len);
        status = mfi_parser_advance(ps);
    }
    if (status == MF_OK) {
        mfi_str *str = all.failed ? NULL : mfi_str_new(ps->arena, all.data, all.len, false);
        if (!str)
            status = mfi_template_no_memory(ps->err);
        node->value = mfi_string(str, false);
    }
    mfi_buf_free(&all);
    return status;
}

static mf_status parse_name(mfi_parser *ps, mfi_node *node)
{
    static const struct {
        const char *name;
        mfi_value value;
    } constants[] = {
        {"true", {.type = MFI_V_BOOL, .boolean = true}},
        {"True", {.type = MFI_V_BOOL, .boolean = true}},
        {"false", {.type = MFI_V_BOOL}},
        {"False", {.type = MFI_V_BOOL}},
        {"none", {.type = MFI_V_NONE}},
        {"None", {.type = MFI_V_NONE}},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(constants); i++) {
        if (mfi_parser_at_name(ps, constants[i].name)) {
            node->value = constants[i].value;
            return mfi_parser_advance(ps);
        }
    }
    node->type = MFI_NODE_NAME;
    MFI_TRY(mfi_parser_name(ps, ps->tok.text, ps->tok.len, &node->str));
    const mfi_template_tree *tree = ps->tree;
    ps->uses |= (node->str == tree->caller ? MFI_USES_CALLER : 0) |
                (node->str == tree->varargs ? MFI_USES_VARARGS : 0) |
                (node->str == tree->kwargs ? MFI_USES_KWARGS : 0);
    return mfi_parser_advance(ps);
}

/* [a, b] and {a: b}; the opening bracket is the next token. */
static mf_status parse_display(mfi_parser *ps, mfi_node *node)
{
    bool dict = mfi_parser_at_op(ps, "{");
    const char *close = dict ? "}" : "]";
    mfi_node **link = &node->list;
    node->type = dict ? MFI_NODE_DICT : MFI_NODE_LIST;
    MFI_TRY(mfi_parser_enter(ps));
    MFI_TRY(mfi_parser_advance(ps));
    while (!mfi_parser_at_op(ps, close)) {
        if (node->list) {
            MFI_TRY(expect_op(ps, ",", "a comma or the end of a list expected"));
            if (mfi_parser_at_op(ps, close))
                break;
        }
        MFI_TRY(mfi_parse_expression(ps, link));
        link = &(*link)->next;
        if (dict) {
            MFI_TRY(expect_op(ps, ":", "a colon expected"));
            MFI_TRY(mfi_parse_expression(ps, link));
            link = &(*link)->next;
        }
    }
    ps->depth--;
    return mfi_parser_advance(ps);
}

static mf_status parse_parentheses(mfi_parser *ps, mfi_node **node)
{
    MFI_TRY(mfi_parser_enter(ps));
    MFI_TRY(mfi_parser_advance(ps));
    if (mfi_parser_at_op(ps, ")"))
        MFI_TRY(mfi_parser_node(ps, MFI_NODE_TUPLE, node));
    else
        MFI_TRY(mfi_parse_tuple(ps, MFI_TUPLE_FULL, node));
    ps->depth--;
    return expect_op(ps, ")", "a closing parenthesis expected");
}

static mf_status parse_primary(mfi_parser *ps, mfi_node **node)
{
    if (mfi_parser_at_op(ps, "("))
        return parse_parentheses(ps, node);
    MFI_TRY(mfi_parser_node(ps, MFI_NODE_LITERAL, node));
    switch (ps->tok.type) {
    case MFI_TOK_STR:
        return parse_string(ps, *node);
    case MFI_TOK_NAME:
        return parse_name(ps, *node);
    case MFI_TOK_INT:
        if (ps->tok.below)
            return mfi_template_unsupported(ps->err, ps->tok.line, "so large a number as",
                                            ps->tok.text, ps->tok.len);
        (*node)->value = mfi_int(ps->tok.integer);
        return mfi_parser_advance(ps);
    case MFI_TOK_FLOAT:
        (*node)->value = mfi_float(ps->tok.number);
        return mfi_parser_advance(ps);
    default:
        if (mfi_parser_at_op(ps, "[") || mfi_parser_at_op(ps, "{"))
            return parse_display(ps, *node);
        return mfi_parser_malformed(ps, "expression expected");
    }
}

/* ---- attributes, items, calls ---- */

/* The arguments in parentheses, which are the next token. */
static mf_status parse_args(mfi_parser *ps, mfi_node **list)
{
    mfi_node **link = list;
    mfi_node_type last = MFI_NODE_LITERAL; /* of a positional one */
    MFI_TRY(mfi_parser_enter(ps));
    MFI_TRY(mfi_parser_advance(ps));
    while (!mfi_parser_at_op(ps, ")")) {
        if (*list) {
            MFI_TRY(expect_op(ps, ",", "a comma or a closing parenthesis expected"));
            if (mfi_parser_at_op(ps, ")"))
                break;
        }
        mfi_node_type type = MFI_NODE_LITERAL;
        if (ps->tok.type == MFI_TOK_NAME) {
            MFI_TRY(mfi_parser_look(ps));
            type = mfi_parser_op_ahead(ps, "=") ? MFI_NODE_KEYWORD : type;
        } else if (mfi_parser_at_op(ps, "*") || mfi_parser_at_op(ps, "**")) {
            type = mfi_parser_at_op(ps, "*") ? MFI_NODE_STAR : MFI_NODE_STARS;
        }
        bool star_late = type == MFI_NODE_STAR && (last == MFI_NODE_STAR || last == MFI_NODE_STARS);
        if (last == MFI_NODE_STARS || star_late ||
            (type == MFI_NODE_LITERAL && last != MFI_NODE_LITERAL))
            return mfi_parser_malformed(ps, "arguments in a wrong order");
        if (type == MFI_NODE_LITERAL) {
            MFI_TRY(mfi_parse_expression(ps, link));
        } else {
            MFI_TRY(mfi_parser_node(ps, type, link));
            if (type == MFI_NODE_KEYWORD) {
                MFI_TRY(mfi_parser_name(ps, ps->tok.text, ps->tok.len, &(*link)->str));
                MFI_TRY(mfi_parser_advance(ps));
            }
            MFI_TRY(mfi_parser_advance(ps));
            MFI_TRY(mfi_parse_expression(ps, &(*link)->a));
        }
        last = type;
        link = &(*link)->next;
    }
    ps->depth--;
    return mfi_parser_advance(ps);
}

static mf_status parse_call(mfi_parser *ps, mfi_node **node)
{
    mfi_node *callee = *node;
    MFI_TRY(mfi_parser_node(ps, MFI_NODE_CALL, node));
    (*node)->a = callee;
    return parse_args(ps, &(*node)->list);
}

static bool at_slice_end(const mfi_parser *ps)
{
    return mfi_parser_at_op(ps, "]") || mfi_parser_at_op(ps, ",");
}

/* What stands in brackets: an expression, or the bounds of a slice, which go into *node. */
static mf_status parse_subscript(mfi_parser *ps, mfi_node *node)
{
    if (!mfi_parser_at_op(ps, ":")) {
        MFI_TRY(mfi_parse_expression(ps, &node->b));
        if (!mfi_parser_at_op(ps, ":"))
            return MF_OK;
    }
    node->type = MFI_NODE_SLICE;
    MFI_TRY(mfi_parser_advance(ps));
    if (!mfi_parser_at_op(ps, ":") && !at_slice_end(ps))
        MFI_TRY(mfi_parse_expression(ps, &node->c));
    if (!mfi_parser_at_op(ps, ":"))
        return MF_OK;
    MFI_TRY(mfi_parser_advance(ps));
    return at_slice_end(ps) ? MF_OK : mfi_parse_expression(ps, &node->d);
}

/* a[b, c] is a[(b, c)]. */
static mf_status parse_more_subscripts(mfi_parser *ps, mfi_node *node)
{
    mfi_node *tuple;
    if (node->type == MFI_NODE_SLICE)
        return mfi_parser_malformed(ps, "a slice among several items");
    MFI_TRY(mfi_parser_node(ps, MFI_NODE_TUPLE, &tuple));
    tuple->list = node->b;
    node->b = tuple;
    mfi_node **link = &tuple->list->next;
    while (!mfi_parser_at_op(ps, "]")) {
        MFI_TRY(expect_op(ps, ",", "a closing bracket expected"));
        if (mfi_parser_at_op(ps, "]"))
            break;
        MFI_TRY(mfi_parse_expression(ps, link));
        link = &(*link)->next;
    }
    return MF_OK;
}

static mf_status parse_brackets(mfi_parser *ps, mfi_node **node)
{
    mfi_node *inner = *node;
    MFI_TRY(mfi_parser_node(ps, MFI_NODE_ITEM, node));
    (*node)->a = inner;
    MFI_TRY(mfi_parser_enter(ps));
    MFI_TRY(mfi_parser_advance(ps));
    MFI_TRY(parse_subscript(ps, *node));
    if (mfi_parser_at_op(ps, ","))
        MFI_TRY(parse_more_subscripts(ps, *node));
    ps->depth--;
    return expect_op(ps, "]", "a closing bracket expected");
}

static mf_status parse_dot(mfi_parser *ps, mfi_node **node)
{
    mfi_node *inner = *node;
    MFI_TRY(mfi_parser_advance(ps));
    MFI_TRY(mfi_parser_node(ps, MFI_NODE_ATTR, node));
    (*node)->a = inner;
    if (ps->tok.type == MFI_TOK_INT) { /* x.0 is x[0] */
        (*node)->type = MFI_NODE_ITEM;
        MFI_TRY(mfi_parser_node(ps, MFI_NODE_LITERAL, &(*node)->b));
        (*node)->b->value = mfi_int(ps->tok.integer);
        return mfi_parser_advance(ps);
    }
    if (ps->tok.type != MFI_TOK_NAME)
        return mfi_parser_malformed(ps, "a name expected behind a dot");
    MFI_TRY(mfi_parser_name(ps, ps->tok.text, ps->tok.len, &(*node)->str));
    return mfi_parser_advance(ps);
}

static mf_status parse_postfix(mfi_parser *ps, mfi_node **node)
{
    for (;;) {
        if (mfi_parser_at_op(ps, "."))
            MFI_TRY(parse_dot(ps, node));
        else if (mfi_parser_at_op(ps, "["))
            MFI_TRY(parse_brackets(ps, node));
        else if (mfi_parser_at_op(ps, "("))
            MFI_TRY(parse_call(ps, node));
        else
            return MF_OK;
    }
}

/* ---- filters and tests ---- */

/* The name of a filter or test, which may have dots. */
static mf_status parse_dotted(mfi_parser *ps, const mfi_str **name)
{
    mfi_buf text = {0};
    mf_status status = MF_OK;
    for (bool more = true; more && status == MF_OK;) {
        if (ps->tok.type != MFI_TOK_NAME) {
            status = mfi_parser_malformed(ps, "the name of a filter or test expected");
            break;
        }
        mfi_buf_append(&text, ps->tok.text, ps->tok.len);
        status = mfi_parser_advance(ps);
        more = status == MF_OK && mfi_parser_at_op(ps, ".");
        if (more) {
            mfi_buf_str(&text, ".");
            status = mfi_parser_advance(ps);
        }
    }
    if (status == MF_OK)
        status = text.failed ? mfi_template_no_memory(ps->err)
                             : mfi_parser_name(ps, text.data, text.len, name);
    mfi_buf_free(&text);
    return status;
}

mf_status mfi_parse_filters(mfi_parser *ps, bool at_name, mfi_node **node)
{
    while (at_name || mfi_parser_at_op(ps, "|")) {
        mfi_node *inner = *node;
        if (!at_name)
            MFI_TRY(mfi_parser_advance(ps));
        at_name = false;
        MFI_TRY(mfi_parser_node(ps, MFI_NODE_FILTER, node));
        (*node)->a = inner;
        MFI_TRY(parse_dotted(ps, &(*node)->str));
        if (mfi_parser_at_op(ps, "("))
            MFI_TRY(parse_args(ps, &(*node)->list));
    }
    return MF_OK;
}

/* Whether an argument without parentheses follows a test's name. */
static bool at_test_arg(const mfi_parser *ps)
{
    switch (ps->tok.type) {
    case MFI_TOK_NAME:
        return !mfi_parser_at_name(ps, "else") && !mfi_parser_at_name(ps, "or") &&
               !mfi_parser_at_name(ps, "and");
    case MFI_TOK_STR:
    case MFI_TOK_INT:
    case MFI_TOK_FLOAT:
        return true;
    default:
        return mfi_parser_at_op(ps, "[") || mfi_parser_at_op(ps, "{");
    }
}

static mf_status parse_test(mfi_parser *ps, mfi_node **node)
{
    mfi_node *inner = *node, *test;
    MFI_TRY(mfi_parser_node(ps, MFI_NODE_TEST, &test));
    MFI_TRY(mfi_parser_advance(ps));
    bool negated = mfi_parser_at_name(ps, "not");
    if (negated)
        MFI_TRY(mfi_parser_advance(ps));
    test->a = inner;
    MFI_TRY(parse_dotted(ps, &test->str));
    if (mfi_parser_at_op(ps, "(")) {
        MFI_TRY(parse_args(ps, &test->list));
    } else if (at_test_arg(ps)) {
        if (mfi_parser_at_name(ps, "is"))
            return mfi_parser_malformed(ps, "a test of a test");
        MFI_TRY(parse_primary(ps, &test->list));
        MFI_TRY(parse_postfix(ps, &test->list));
    }
    *node = test;
    if (negated) {
        MFI_TRY(mfi_parser_node(ps, MFI_NODE_NOT, node));
        (*node)->line = test->line;
        (*node)->a = test;
    }
    return MF_OK;
}

static mf_status parse_filters_and_tests(mfi_parser *ps, mfi_node **node)
{
    for (;;) {
        if (mfi_parser_at_op(ps, "|"))
            MFI_TRY(mfi_parse_filters(ps, false, node));
        else if (mfi_parser_at_name(ps, "is"))
            MFI_TRY(parse_test(ps, node));
        else if (mfi_parser_at_op(ps, "("))
            MFI_TRY(parse_call(ps, node));
        else
            return MF_OK;
    }
}

/* ---- operators ---- */

static mf_status parse_unary(mfi_parser *ps, bool with_filter, mfi_node **node)
{
    if (mfi_parser_at_op(ps, "-") || mfi_parser_at_op(ps, "+")) {
        MFI_TRY(mfi_parser_enter(ps));
        MFI_TRY(mfi_parser_node(ps, MFI_NODE_UNARY, node));
        (*node)->op = mfi_parser_at_op(ps, "-") ? MFI_OP_SUB : MFI_OP_ADD;
        MFI_TRY(mfi_parser_advance(ps));
        bool least = ps->tok.type == MFI_TOK_INT && ps->tok.below && (*node)->op == MFI_OP_SUB;
        ps->tok.below &= !least;
        MFI_TRY(parse_unary(ps, false, &(*node)->a));
        if (least) /* the token has its sign already */
            *node = (*node)->a;
        ps->depth--;
    } else {
        MFI_TRY(parse_primary(ps, node));
    }
    MFI_TRY(parse_postfix(ps, node));
    return with_filter ? parse_filters_and_tests(ps, node) : MF_OK;
}

static mf_status parse_operand(mfi_parser *ps, mfi_node **node)
{
    return parse_unary(ps, true, node);
}

typedef struct operator
{
    const char *text;
    mfi_op op;
}
operator;

typedef mf_status (*parse_fn)(mfi_parser *ps, mfi_node **node);

/* operand op operand ..., to the left; ops ends with a NULL text. */
static mf_status parse_chain(mfi_parser *ps, const operator* ops, parse_fn operand, mfi_node **node)
{
    MFI_TRY(operand(ps, node));
    for (;;) {
        const operator* o = ops;
        while (o->text && !mfi_parser_at_op(ps, o->text))
            o++;
        if (!o->text)
            return MF_OK;
        mfi_node *left = *node;
        MFI_TRY(mfi_parser_node(ps, MFI_NODE_BINARY, node));
        (*node)->op = (uint8_t)o->op;
        (*node)->a = left;
        MFI_TRY(mfi_parser_advance(ps));
        MFI_TRY(operand(ps, &(*node)->b));
    }
}

static mf_status parse_power(mfi_parser *ps, mfi_node **node)
{
    static const operator ops[] = {{"**", MFI_OP_POW}, {NULL, MFI_OP_ADD}};
    return parse_chain(ps, ops, parse_operand, node);
}

static mf_status parse_product(mfi_parser *ps, mfi_node **node)
{
    static const operator ops[] = {{"*", MFI_OP_MUL},
                                   {"/", MFI_OP_DIV},
                                   {"//", MFI_OP_FLOORDIV},
                                   {"%", MFI_OP_MOD},
                                   {NULL, MFI_OP_ADD}};
    return parse_chain(ps, ops, parse_power, node);
}

static mf_status parse_concat(mfi_parser *ps, mfi_node **node)
{
    MFI_TRY(parse_product(ps, node));
    if (!mfi_parser_at_op(ps, "~"))
        return MF_OK;
    mfi_node *first = *node, **link = &first->next;
    MFI_TRY(mfi_parser_node(ps, MFI_NODE_CONCAT, node));
    (*node)->list = first;
    while (mfi_parser_at_op(ps, "~")) {
        MFI_TRY(mfi_parser_advance(ps));
        MFI_TRY(parse_product(ps, link));
        link = &(*link)->next;
    }
    return MF_OK;
}

static mf_status parse_sum(mfi_parser *ps, mfi_node **node)
{
    static const operator ops[] = {{"+", MFI_OP_ADD}, {"-", MFI_OP_SUB}, {NULL, MFI_OP_ADD}};
    return parse_chain(ps, ops, parse_concat, node);
}

/* Whether a comparison follows, which is then taken from the tokens. */
static mf_status take_comparison(mfi_parser *ps, mfi_op *op, bool *found)
{
    static const operator ops[] = {{"==", MFI_OP_EQ}, {"!=", MFI_OP_NE}, {"<", MFI_OP_LT},
                                   {"<=", MFI_OP_LE}, {">", MFI_OP_GT},  {">=", MFI_OP_GE}};
    *found = true;
    for (size_t i = 0; i < MFI_ARRAY_LEN(ops); i++) {
        if (mfi_parser_at_op(ps, ops[i].text)) {
            *op = ops[i].op;
            return mfi_parser_advance(ps);
        }
    }
    if (mfi_parser_at_name(ps, "in")) {
        *op = MFI_OP_IN;
        return mfi_parser_advance(ps);
    }
    *found = false;
    if (!mfi_parser_at_name(ps, "not"))
        return MF_OK;
    MFI_TRY(mfi_parser_look(ps));
    if (ps->ahead.type != MFI_TOK_NAME || ps->ahead.len != 2 ||
        memcmp(ps->ahead.text, "in", 2) != 0)
        return MF_OK;
    *found = true;
    *op = MFI_OP_NOT_IN;
    MFI_TRY(mfi_parser_advance(ps));
    return mfi_parser_advance(ps);
}

static mf_status parse_compare(mfi_parser *ps, mfi_node **node)
{
    mfi_op op;
    bool found;
    MFI_TRY(parse_sum(ps, node));
    MFI_TRY(take_comparison(ps, &op, &found));
    if (!found)
        return MF_OK;
    mfi_node *first = *node;
    MFI_TRY(mfi_parser_node(ps, MFI_NODE_COMPARE, node));
    (*node)->a = first;
    for (mfi_node **link = &(*node)->list; found; link = &(*link)->next) {
        MFI_TRY(mfi_parser_node(ps, MFI_NODE_COMPARAND, link));
        (*link)->op = (uint8_t)op;
        MFI_TRY(parse_sum(ps, &(*link)->a));
        MFI_TRY(take_comparison(ps, &op, &found));
    }
    return MF_OK;
}

static mf_status parse_not(mfi_parser *ps, mfi_node **node)
{
    if (!mfi_parser_at_name(ps, "not"))
        return parse_compare(ps, node);
    MFI_TRY(mfi_parser_enter(ps));
    MFI_TRY(mfi_parser_node(ps, MFI_NODE_NOT, node));
    MFI_TRY(mfi_parser_advance(ps));
    MFI_TRY(parse_not(ps, &(*node)->a));
    ps->depth--;
    return MF_OK;
}

static mf_status parse_logic(mfi_parser *ps, const char *word, mfi_node_type type, parse_fn operand,
                             mfi_node **node)
{
    MFI_TRY(operand(ps, node));
    while (mfi_parser_at_name(ps, word)) {
        mfi_node *left = *node;
        MFI_TRY(mfi_parser_node(ps, type, node));
        (*node)->a = left;
        MFI_TRY(mfi_parser_advance(ps));
        MFI_TRY(operand(ps, &(*node)->b));
    }
    return MF_OK;
}

static mf_status parse_and(mfi_parser *ps, mfi_node **node)
{
    return parse_logic(ps, "and", MFI_NODE_AND, parse_not, node);
}

static mf_status parse_or(mfi_parser *ps, mfi_node **node)
{
    return parse_logic(ps, "or", MFI_NODE_OR, parse_and, node);
}

mf_status mfi_parse_expression(mfi_parser *ps, mfi_node **node)
{
    MFI_TRY(mfi_parser_enter(ps));
    MFI_TRY(parse_or(ps, node));
    while (mfi_parser_at_name(ps, "if")) {
        mfi_node *yes = *node;
        MFI_TRY(mfi_parser_node(ps, MFI_NODE_COND, node));
        (*node)->a = yes;
        MFI_TRY(mfi_parser_advance(ps));
        MFI_TRY(parse_or(ps, &(*node)->b));
        if (mfi_parser_at_name(ps, "else")) {
            MFI_TRY(mfi_parser_advance(ps));
            MFI_TRY(mfi_parse_expression(ps, &(*node)->c));
        }
    }
    ps->depth--;
    return MF_OK;
}

/* ---- tuples and targets ---- */

static bool at_tuple_end(const mfi_parser *ps, mfi_tuple_kind kind)
{
    return ps->tok.type == MFI_TOK_CLOSE_VAR || ps->tok.type == MFI_TOK_CLOSE_BLOCK ||
           mfi_parser_at_op(ps, ")") ||
           (kind == MFI_TUPLE_NO_IF && mfi_parser_at_name(ps, "recursive")) ||
           (kind == MFI_TUPLE_TARGET && mfi_parser_at_name(ps, "in"));
}

static mf_status parse_target_part(mfi_parser *ps, bool namespaces, mfi_node **node);

static mf_status parse_part(mfi_parser *ps, mfi_tuple_kind kind, bool namespaces, mfi_node **node)
{
    switch (kind) {
    case MFI_TUPLE_FULL:
        return mfi_parse_expression(ps, node);
    case MFI_TUPLE_NO_IF:
        return parse_or(ps, node);
    default:
        return parse_target_part(ps, namespaces, node);
    }
}

static mf_status parse_parts(mfi_parser *ps, mfi_tuple_kind kind, bool namespaces, mfi_node **node)
{
    MFI_TRY(parse_part(ps, kind, namespaces, node));
    if (!mfi_parser_at_op(ps, ","))
        return MF_OK;
    mfi_node *first = *node, **link = &first->next;
    MFI_TRY(mfi_parser_node(ps, MFI_NODE_TUPLE, node));
    (*node)->list = first;
    while (mfi_parser_at_op(ps, ",")) {
        MFI_TRY(mfi_parser_advance(ps));
        if (at_tuple_end(ps, kind))
            break;
        MFI_TRY(parse_part(ps, kind, namespaces, link));
        link = &(*link)->next;
    }
    return MF_OK;
}

mf_status mfi_parse_tuple(mfi_parser *ps, mfi_tuple_kind kind, mfi_node **node)
{
    return parse_parts(ps, kind, false, node);
}

/* name, name.name, or a tuple of them in parentheses */
static mf_status parse_target_part(mfi_parser *ps, bool namespaces, mfi_node **node)
{
    static const char *const constants[] = {"true", "True", "false", "False", "none", "None"};
    if (mfi_parser_at_op(ps, "(")) {
        MFI_TRY(mfi_parser_enter(ps));
        MFI_TRY(mfi_parser_advance(ps));
        MFI_TRY(parse_parts(ps, MFI_TUPLE_TARGET, namespaces, node));
        ps->depth--;
        return expect_op(ps, ")", "a closing parenthesis expected");
    }
    for (size_t i = 0; i < MFI_ARRAY_LEN(constants); i++)
        if (mfi_parser_at_name(ps, constants[i]))
            return mfi_parser_malformed(ps, "a constant can't be set");
    if (ps->tok.type != MFI_TOK_NAME)
        return mfi_parser_malformed(ps, "a name to be set expected");
    MFI_TRY(mfi_parser_node(ps, MFI_NODE_NAME, node));
    MFI_TRY(mfi_parser_name(ps, ps->tok.text, ps->tok.len, &(*node)->str));
    MFI_TRY(mfi_parser_advance(ps));
    if (!namespaces || !mfi_parser_at_op(ps, "."))
        return MF_OK;
    MFI_TRY(mfi_parser_advance(ps));
    if (ps->tok.type != MFI_TOK_NAME)
        return mfi_parser_malformed(ps, "a name expected behind a dot");
    const mfi_str *attr;
    (*node)->type = MFI_NODE_NSREF;
    MFI_TRY(mfi_parser_node(ps, MFI_NODE_LITERAL, &(*node)->a));
    MFI_TRY(mfi_parser_name(ps, ps->tok.text, ps->tok.len, &attr));
    (*node)->a->value = mfi_string(attr, false);
    return mfi_parser_advance(ps);
}

mf_status mfi_parse_target(mfi_parser *ps, bool namespaces, mfi_node **node)
{
    return parse_parts(ps, MFI_TUPLE_TARGET, namespaces, node);
}

mf_status mfi_parse_params(mfi_parser *ps, mfi_node **list)
{
    mfi_node **link = list;
    bool defaults = false;
    MFI_TRY(expect_op(ps, "(", "parameters in parentheses expected"));
    while (!mfi_parser_at_op(ps, ")")) {
        if (*list)
            MFI_TRY(expect_op(ps, ",", "a comma or a closing parenthesis expected"));
        if (ps->tok.type != MFI_TOK_NAME)
            return mfi_parser_malformed(ps, "the name of a parameter expected");
        MFI_TRY(mfi_parser_node(ps, MFI_NODE_PARAM, link));
        MFI_TRY(mfi_parser_name(ps, ps->tok.text, ps->tok.len, &(*link)->str));
        MFI_TRY(mfi_parser_advance(ps));
        if (mfi_parser_at_op(ps, "=")) {
            MFI_TRY(mfi_parser_advance(ps));
            MFI_TRY(mfi_parse_expression(ps, &(*link)->a));
            defaults = true;
        } else if (defaults) {
            return mfi_parser_malformed(ps, "a parameter without default behind one with");
        }
        link = &(*link)->next;
    }
    return mfi_parser_advance(ps);
}
