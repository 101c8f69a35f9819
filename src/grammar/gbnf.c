/* Reads GBNF, llama.cpp's notation for grammars: `name ::= alternatives`, literals in quotes,
 * character classes in brackets, `.`, groups in parentheses, `|`, `* + ? {m} {m,} {m,n}`, comments
 * after `#`. A line ends a rule unless a parenthesis is open or a `|` or `::=` stands before its
 * end or a `|` begins the next. Escapes are \x41, \u0041, \U00000041, \n \r \t \\ \" \[ \] \-.
 *
 * Called when a grammar is opened, on that thread. The text is foreign: nesting, size and
 * repetition are bounded, and messages name line and column. */
#include "grammar/ast.h"

#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/utf8.h"
#include "base/room.h"

typedef struct parser {
    mfi_ast *ast;
    const char *begin, *p, *end;
    const char *mark; /* whose line and column are known; NULL: none yet */
    uint32_t line, column;
    uint32_t depth;
    mfi_range *ranges; /* scratch of one class */
    uint32_t n_ranges, cap_ranges;
    mf_error *err;
} parser;

static void position(parser *g, const char *at, uint32_t *line, uint32_t *column)
{
    if (!g->mark || at < g->mark) {
        g->mark = g->begin;
        g->line = g->column = 1;
    }
    for (; g->mark < at; g->mark++) {
        if (*g->mark == '\n') {
            g->line++;
            g->column = 1;
        } else {
            g->column += ((unsigned char)*g->mark & 0xc0) != 0x80;
        }
    }
    *line = g->line;
    *column = g->column;
}

static mf_status fail_at(parser *g, const char *at, const char *why)
{
    uint32_t line, column;
    position(g, at, &line, &column);
    return mfi_fail(g->err, MF_ERR_ARGUMENT, "grammar: line %u, column %u: %s", line, column, why);
}

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

static bool at(const parser *g, char c)
{
    return g->p < g->end && *g->p == c;
}

/* Skips white space and comments; newlines only where they mean nothing. */
static void skip_space(parser *g, bool newlines)
{
    while (g->p < g->end) {
        char c = *g->p;
        if (c == '#') {
            while (g->p < g->end && *g->p != '\n' && *g->p != '\r')
                g->p++;
        } else if (c == ' ' || c == '\t' || (newlines && (c == '\n' || c == '\r'))) {
            g->p++;
        } else {
            return;
        }
    }
}

/* ---- characters ---- */

static mf_status parse_hex(parser *g, const char *start, int digits, uint32_t *cp)
{
    *cp = 0;
    for (int i = 0; i < digits; i++, g->p++) {
        char c = g->p < g->end ? *g->p : 0;
        uint32_t v = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                     : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                     : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                            : 16;
        if (v == 16)
            return fail_at(g, g->p, "a hexadecimal digit is missing");
        *cp = *cp << 4 | v;
    }
    if (*cp > 0x10ffff || (*cp >= 0xd800 && *cp <= 0xdfff))
        return fail_at(g, start, "this number is no character");
    return MF_OK;
}

/* One character of a literal or class, escapes included. */
static mf_status parse_char(parser *g, uint32_t *cp)
{
    const char *start = g->p;
    if (*g->p != '\\') {
        g->p += mfi_utf8_decode(g->p, g->end, cp);
        return MF_OK; /* the text was checked */
    }
    g->p++;
    char c = g->p < g->end ? *g->p++ : 0;
    switch (c) {
    case 'x':
        return parse_hex(g, start, 2, cp);
    case 'u':
        return parse_hex(g, start, 4, cp);
    case 'U':
        return parse_hex(g, start, 8, cp);
    case 't':
        *cp = '\t';
        return MF_OK;
    case 'r':
        *cp = '\r';
        return MF_OK;
    case 'n':
        *cp = '\n';
        return MF_OK;
    case '\\':
    case '"':
    case '[':
    case ']':
    case '-':
    case '^':
        *cp = (unsigned char)c;
        return MF_OK;
    default:
        return fail_at(g, start, "an unknown escape");
    }
}

static mf_status parse_literal(parser *g, uint32_t *node)
{
    const char *start = g->p++;
    mfi_buf text = {0};
    mf_status status = MF_OK;
    while (status == MF_OK && g->p < g->end && *g->p != '"' && *g->p != '\n') {
        uint32_t cp;
        char utf8[4];
        status = parse_char(g, &cp);
        if (status == MF_OK)
            mfi_buf_append(&text, utf8, mfi_utf8_encode(cp, utf8));
    }
    if (status == MF_OK && !at(g, '"'))
        status = fail_at(g, start, "the literal that begins here isn't closed");
    g->p++;
    if (text.failed)
        g->ast->bytes.failed = true;
    *node = status == MF_OK ? mfi_ast_bytes(g->ast, text.data, text.len) : 0;
    mfi_buf_free(&text);
    return status;
}

static bool put_range(parser *g, uint32_t lo, uint32_t hi)
{
    if (!MFI_ROOM(g->ranges, g->n_ranges, g->cap_ranges, 32))
        return false;
    g->ranges[g->n_ranges++] = (mfi_range){lo, hi};
    return true;
}

static mf_status parse_class(parser *g, uint32_t *node)
{
    const char *start = g->p++;
    bool negated = at(g, '^');
    g->p += negated;
    g->n_ranges = 0;
    while (g->p < g->end && *g->p != ']' && *g->p != '\n') {
        const char *first = g->p;
        uint32_t lo, hi;
        MFI_TRY(parse_char(g, &lo));
        hi = lo;
        if (at(g, '-') && g->p + 1 < g->end && g->p[1] != ']' && g->p[1] != '\n') {
            g->p++;
            MFI_TRY(parse_char(g, &hi));
        }
        if (hi < lo)
            return fail_at(g, first, "a range that ends before it begins");
        if (!put_range(g, lo, hi))
            g->ast->bytes.failed = true;
    }
    if (!at(g, ']'))
        return fail_at(g, start, "the class that begins here isn't closed");
    g->p++;
    *node = mfi_ast_class(g->ast, g->ranges, g->n_ranges, negated);
    return MF_OK;
}

/* ---- expressions ---- */

static mf_status parse_alternatives(parser *g, bool nested, uint32_t *node);

static mf_status parse_count(parser *g, uint32_t *n)
{
    if (g->p >= g->end || *g->p < '0' || *g->p > '9')
        return fail_at(g, g->p, "a number is missing");
    for (*n = 0; g->p < g->end && *g->p >= '0' && *g->p <= '9'; g->p++) {
        *n = *n * 10 + (uint32_t)(*g->p - '0');
        if (*n > MFI_MAX_GRAMMAR_STATES)
            return fail_at(g, g->p, "a repetition that is too large");
    }
    return MF_OK;
}

/* After an element: its repetition, if it has one. */
static mf_status parse_repeat(parser *g, bool nested, uint32_t *node)
{
    uint32_t least = 0, most = MFI_AST_UNBOUNDED;
    const char *start = g->p;
    switch (*g->p++) {
    case '*':
        break;
    case '+':
        least = 1;
        break;
    case '?':
        most = 1;
        break;
    default: /* { */
        skip_space(g, nested);
        MFI_TRY(parse_count(g, &least));
        skip_space(g, nested);
        most = least;
        if (at(g, ',')) {
            g->p++;
            skip_space(g, nested);
            most = MFI_AST_UNBOUNDED;
            if (!at(g, '}'))
                MFI_TRY(parse_count(g, &most));
            skip_space(g, nested);
        }
        if (!at(g, '}'))
            return fail_at(g, g->p, "expected } after a repetition");
        g->p++;
        if (most < least)
            return fail_at(g, start, "a repetition that ends before it begins");
    }
    *node = mfi_ast_repeat(g->ast, *node, least, most);
    return MF_OK;
}

static mf_status parse_reference(parser *g, uint32_t *node)
{
    const char *name = g->p;
    while (g->p < g->end && is_name(*g->p))
        g->p++;
    uint32_t rule = mfi_ast_rule_named(g->ast, name, (size_t)(g->p - name));
    if (!mfi_ast_failed(g->ast) && g->ast->rules[rule].line == 0)
        position(g, name, &g->ast->rules[rule].line, &g->ast->rules[rule].column);
    *node = mfi_ast_call(g->ast, rule);
    return MF_OK;
}

static mf_status parse_group(parser *g, uint32_t *node)
{
    const char *start = g->p++;
    if (g->depth == MFI_MAX_GRAMMAR_NESTING)
        return fail_at(g, start, "groups are nested too deeply");
    g->depth++;
    skip_space(g, true);
    MFI_TRY(parse_alternatives(g, true, node));
    if (!at(g, ')'))
        return fail_at(g, g->p, g->p == g->end ? "the text ends within a group" : "expected )");
    g->depth--;
    g->p++;
    return MF_OK;
}

/* *found: there was an element. */
static mf_status parse_element(parser *g, uint32_t *node, bool *found)
{
    *found = true;
    char c = g->p < g->end ? *g->p : 0;
    if (c == '"')
        return parse_literal(g, node);
    if (c == '[')
        return parse_class(g, node);
    if (c == '(')
        return parse_group(g, node);
    if (c == '<' || c == '!')
        return fail_at(g, g->p, "references to tokens are not supported");
    if (c == '.') {
        g->p++;
        *node = mfi_ast_class(g->ast, NULL, 0, true);
        return MF_OK;
    }
    *found = g->p < g->end && is_name(c);
    return *found ? parse_reference(g, node) : MF_OK;
}

static mf_status parse_sequence(parser *g, bool nested, uint32_t *node)
{
    mfi_ast_list list = {0};
    for (;;) {
        uint32_t element = 0;
        bool found;
        MFI_TRY(parse_element(g, &element, &found));
        if (!found)
            break;
        skip_space(g, nested);
        while (g->p < g->end && strchr("*+?{", *g->p) && *g->p) {
            MFI_TRY(parse_repeat(g, nested, &element));
            skip_space(g, nested);
        }
        mfi_ast_push(g->ast, &list, element);
    }
    *node = mfi_ast_seq(g->ast, list);
    return MF_OK;
}

/* A `|` that begins the next line goes on with the rule. */
static bool goes_on(parser *g)
{
    const char *here = g->p;
    skip_space(g, true);
    if (at(g, '|'))
        return true;
    g->p = here;
    return false;
}

static mf_status parse_alternatives(parser *g, bool nested, uint32_t *node)
{
    mfi_ast_list list = {0};
    for (;;) {
        uint32_t one = 0;
        MFI_TRY(parse_sequence(g, nested, &one));
        mfi_ast_push(g->ast, &list, one);
        if (!goes_on(g))
            break;
        g->p++;
        skip_space(g, true);
    }
    *node = mfi_ast_alt(g->ast, list);
    return MF_OK;
}

/* ---- rules ---- */

static mf_status parse_rule(parser *g)
{
    const char *name = g->p;
    uint32_t body = 0;
    while (g->p < g->end && is_name(*g->p))
        g->p++;
    if (g->p == name)
        return fail_at(g, name, "expected the name of a rule");
    size_t len = (size_t)(g->p - name);
    uint32_t rule = mfi_ast_rule_named(g->ast, name, len);
    skip_space(g, false);
    if (g->end - g->p < 3 || memcmp(g->p, "::=", 3) != 0)
        return fail_at(g, g->p, "expected ::=");
    g->p += 3;
    skip_space(g, true);
    if (mfi_ast_failed(g->ast))
        return MF_OK;
    if (g->ast->rules[rule].defined)
        return fail_at(g, name, "this rule is defined a second time");
    position(g, name, &g->ast->rules[rule].line, &g->ast->rules[rule].column);
    MFI_TRY(parse_alternatives(g, false, &body));
    mfi_ast_define(g->ast, rule, body);
    if (g->p < g->end && *g->p != '\n' && *g->p != '\r')
        return fail_at(g, g->p, "expected an element, | or the end of the line");
    return MF_OK;
}

static mf_status check_rules(const parser *g)
{
    const mfi_ast *ast = g->ast;
    if (mfi_ast_failed(ast))
        return mfi_ast_check(ast, g->err);
    for (uint32_t i = 1; i < ast->n_rules; i++) {
        const mfi_ast_rule *rule = &ast->rules[i];
        if (!rule->defined)
            return mfi_fail(g->err, MF_ERR_ARGUMENT,
                            "grammar: line %u, column %u: the rule %.*s is not defined", rule->line,
                            rule->column, (int)MFI_MIN(rule->name_len, 64u),
                            ast->bytes.data + rule->name);
    }
    if (!ast->rules[0].defined)
        return mfi_fail(g->err, MF_ERR_ARGUMENT, "grammar: there is no rule named root");
    return MF_OK;
}

mf_status mfi_gbnf_parse(mfi_ast *ast, const char *text, size_t len, mf_error *err)
{
    parser g = {.ast = ast, .begin = text, .p = text, .end = text + len, .err = err};
    if (len > MFI_MAX_GRAMMAR_BYTES)
        return mfi_fail(err, MF_ERR_LIMIT, "grammar: %zu bytes; at most %u are accepted", len,
                        MFI_MAX_GRAMMAR_BYTES);
    size_t bad = mfi_utf8_check(text, len);
    if (bad < len)
        return fail_at(&g, text + bad, "not UTF-8");
    mf_status status = MF_OK;
    skip_space(&g, true);
    while (status == MF_OK && g.p < g.end && !mfi_ast_failed(ast)) {
        status = parse_rule(&g);
        skip_space(&g, true);
    }
    if (status == MF_OK)
        status = check_rules(&g);
    free(g.ranges);
    return status;
}
