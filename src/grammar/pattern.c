/* Regular expressions of JSON schemas ("pattern") as expressions over the text of JSON strings: the
 * regular part of ECMA-262 with the meaning it has with the flag u. Understood: characters and
 * their escapes, `.`, classes with ranges, negation and \d \w \s \D \W \S, groups, `|`, the
 * quantifiers (lazy ones are the same), and ^ and $ at the ends of the pattern or of its
 * alternatives, and for conjunctions (regular.h) look-ahead at the beginning. What remains (other
 * look-around, back references, \b, \p) is refused by name. Called while a schema is read; foreign
 * text, bounded in nesting and size. */
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/utf8.h"
#include "grammar/schema_text.h"

typedef struct regex {
    mfi_ast *ast;
    const char *p, *end;
    uint32_t depth;
    mfi_pattern_looks *looks; /* NULL: the text is written as it stands in JSON */
    const char *bad;          /* NULL: all is well */
} regex;

typedef struct set {
    mfi_range ranges[512];
    uint32_t n;
} set;

static void fail(regex *r, const char *why)
{
    if (!r->bad)
        r->bad = why;
    r->p = r->end; /* nothing more is read */
}

static bool at(const regex *r, char c)
{
    return r->p < r->end && *r->p == c;
}

static void put(regex *r, set *s, uint32_t lo, uint32_t hi)
{
    if (s->n == MFI_ARRAY_LEN(s->ranges))
        fail(r, "a class of too many parts");
    else
        s->ranges[s->n++] = (mfi_range){lo, hi};
}

/* One character of the class. */
static uint32_t char_of(regex *r, const mfi_range *ranges, uint32_t n, bool negated)
{
    return r->looks ? mfi_ast_class(r->ast, ranges, n, negated)
                    : mfi_text_char(r->ast, ranges, n, negated);
}

/* ---- classes ---- */

static const mfi_range digit[] = {{'0', '9'}};
static const mfi_range word[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
/* White space by ECMA-262 and by Python's re alike, and by either: \s is what both have, \S what
 * neither has, so that either validates the text. */
static const mfi_range space[] = {{'\t', '\r'},     {' ', ' '},       {0xa0, 0xa0},
                                  {0x1680, 0x1680}, {0x2000, 0x200a}, {0x2028, 0x2029},
                                  {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}};
static const mfi_range spaces[] = {{'\t', '\r'},     {0x1c, ' '},      {0x85, 0x85},
                                   {0xa0, 0xa0},     {0x1680, 0x1680}, {0x2000, 0x200a},
                                   {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f},
                                   {0x3000, 0x3000}, {0xfeff, 0xfeff}};

/* Adds what \d and the others stand for; false if c is none of them. */
static bool put_shorthand(regex *r, set *s, char c)
{
    static const struct {
        const mfi_range *ranges;
        uint32_t n;
    } lists[] = {{digit, MFI_ARRAY_LEN(digit)},
                 {word, MFI_ARRAY_LEN(word)},
                 {space, MFI_ARRAY_LEN(space)},
                 {spaces, MFI_ARRAY_LEN(spaces)}};
    int which = c == 'd' || c == 'D' ? 0 : c == 'w' || c == 'W' ? 1 : c == 's' ? 2 : 3;
    const mfi_range *ranges = lists[which].ranges;
    uint32_t n = lists[which].n;
    if (!c || !strchr("dDwWsS", c))
        return false;
    uint32_t from = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (c >= 'a')
            put(r, s, ranges[i].lo, ranges[i].hi);
        else if (ranges[i].lo > from)
            put(r, s, from, ranges[i].lo - 1);
        from = ranges[i].hi + 1;
    }
    if (c < 'a')
        put(r, s, from, 0x10ffff);
    return true;
}

static uint32_t parse_hex(regex *r, int n)
{
    uint32_t cp = 0;
    for (int i = 0; i < n; i++, r->p++) {
        char c = r->p < r->end ? *r->p : 0;
        if (c >= '0' && c <= '9')
            cp = cp << 4 | (uint32_t)(c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            cp = cp << 4 | (uint32_t)((c | 32) - 'a' + 10);
        else
            fail(r, "an escape without its hexadecimal digits");
        if (r->bad)
            return 0;
    }
    return cp;
}

/* After a backslash: a single character. */
static uint32_t parse_escape(regex *r)
{
    static const char names[] = "tnvfr0", values[] = "\t\n\v\f\r";
    char c = r->p < r->end ? *r->p++ : 0;
    const char *name = c ? strchr(names, c) : NULL;
    if (name)
        return c == '0' ? 0 : (unsigned char)values[name - names];
    if (c == 'x')
        return parse_hex(r, 2);
    if (c == 'u' && !at(r, '{')) {
        uint32_t cp = parse_hex(r, 4);
        if (cp >= 0xd800 && cp <= 0xdfff)
            fail(r, "an escape that is no character");
        return cp;
    }
    if (c && strchr("^$\\.*+?()[]{}|/-", c))
        return (unsigned char)c;
    fail(r, c >= '1' && c <= '9'   ? "a back reference"
            : c == 'b' || c == 'B' ? "a word border (\\b)"
            : c == 'p' || c == 'P' ? "a Unicode property (\\p)"
                                   : "an unknown escape");
    return 0;
}

static uint32_t parse_char(regex *r)
{
    uint32_t cp = 0;
    size_t len = r->p < r->end ? mfi_utf8_decode(r->p, r->end, &cp) : 0;
    if (len == 0)
        fail(r, "not UTF-8");
    else
        r->p += len;
    return cp;
}

static bool shorthand_here(const regex *r)
{
    return r->end - r->p >= 2 && *r->p == '\\' && r->p[1] && strchr("dDwWsS", r->p[1]);
}

static uint32_t parse_member(regex *r)
{
    if (!at(r, '\\'))
        return parse_char(r);
    r->p++;
    if (at(r, 'b')) { /* within a class it is a backspace */
        r->p++;
        return '\b';
    }
    return parse_escape(r);
}

static uint32_t parse_class(regex *r)
{
    set s = {.n = 0};
    bool negated = at(r, '^');
    r->p += negated;
    while (r->p < r->end && *r->p != ']') {
        if (shorthand_here(r)) {
            put_shorthand(r, &s, r->p[1]);
            r->p += r->bad ? 0 : 2;
            continue;
        }
        uint32_t lo = parse_member(r), hi = lo;
        if (at(r, '-') && r->end - r->p > 1 && r->p[1] != ']') {
            r->p++;
            if (shorthand_here(r))
                fail(r, "a range without its end");
            else
                hi = parse_member(r);
        }
        if (hi < lo)
            fail(r, "a range that ends before it begins");
        put(r, &s, lo, hi);
    }
    if (!r->bad && !at(r, ']'))
        fail(r, "a class that isn't closed");
    r->p += !r->bad;
    return char_of(r, s.ranges, s.n, negated);
}

/* ---- expressions ---- */

/* What may have anything before it and behind it, where ^ and $ don't stand. */
typedef enum pattern_reach {
    INNER,
    LOOK, /* begins where it stands */
    TOP
} pattern_reach;

static uint32_t parse_alternatives(regex *r, pattern_reach reach);

static uint32_t parse_group(regex *r)
{
    if (at(r, '?')) {
        if (r->end - r->p < 2 || r->p[1] != ':') {
            fail(r, "a group of another kind than ( ) and (?: )");
            return 0;
        }
        r->p += 2;
    }
    if (r->depth++ == MFI_MAX_GRAMMAR_NESTING)
        fail(r, "groups nested too deeply");
    uint32_t node = r->bad ? 0 : parse_alternatives(r, INNER);
    r->depth--;
    if (!r->bad && !at(r, ')'))
        fail(r, "a group that isn't closed");
    r->p += !r->bad;
    return node;
}

static uint32_t parse_atom(regex *r)
{
    static const mfi_range ends[] = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
    set s = {.n = 0};
    switch (*r->p) {
    case '(':
        r->p++;
        return parse_group(r);
    case '[':
        r->p++;
        return parse_class(r);
    case '.':
        r->p++;
        return char_of(r, ends, MFI_ARRAY_LEN(ends), true);
    case '^':
    case '$':
        fail(r, "^ or $ within the pattern");
        return 0;
    case '*':
    case '+':
    case '?':
    case '{':
        fail(r, "a quantifier with nothing before it");
        return 0;
    case '\\':
        if (shorthand_here(r)) {
            put_shorthand(r, &s, r->p[1]);
            r->p += 2;
            return char_of(r, s.ranges, s.n, false);
        }
        r->p++;
        s.ranges[0].lo = s.ranges[0].hi = parse_escape(r);
        return char_of(r, s.ranges, 1, false);
    default:
        s.ranges[0].lo = s.ranges[0].hi = parse_char(r);
        return char_of(r, s.ranges, 1, false);
    }
}

static uint32_t parse_number(regex *r)
{
    uint32_t n = 0;
    if (r->p >= r->end || *r->p < '0' || *r->p > '9')
        fail(r, "a quantifier without its number");
    for (; r->p < r->end && *r->p >= '0' && *r->p <= '9'; r->p++) {
        n = n * 10 + (uint32_t)(*r->p - '0');
        if (n > MFI_MAX_GRAMMAR_STATES)
            fail(r, "a quantifier that is too large");
    }
    return n;
}

static uint32_t parse_quantifier(regex *r, uint32_t node)
{
    uint32_t least = 0, most = MFI_AST_UNBOUNDED;
    char c = *r->p++;
    if (c == '+') {
        least = 1;
    } else if (c == '?') {
        most = 1;
    } else if (c == '{') {
        least = most = parse_number(r);
        if (at(r, ',')) {
            r->p++;
            most = at(r, '}') ? MFI_AST_UNBOUNDED : parse_number(r);
        }
        if (!r->bad && (!at(r, '}') || most < least))
            fail(r, "a quantifier that isn't right");
        r->p += !r->bad;
    }
    if (at(r, '?')) /* lazy: the same strings */
        r->p++;
    return mfi_ast_repeat(r->ast, node, least, most);
}

static uint32_t anything(regex *r)
{
    return mfi_ast_repeat(r->ast, char_of(r, NULL, 0, true), 0, MFI_AST_UNBOUNDED);
}

static bool look_here(const regex *r)
{
    return r->end - r->p > 2 && r->p[0] == '(' && r->p[1] == '?' &&
           (r->p[2] == '=' || r->p[2] == '!');
}

/* Look-ahead at the beginning: what else holds of the text. */
static void parse_looks(regex *r)
{
    while (look_here(r) && r->looks && !r->bad) {
        bool negated = r->p[2] == '!';
        r->p += 3;
        uint32_t node = parse_alternatives(r, LOOK);
        if (!r->bad && !at(r, ')'))
            fail(r, "a group that isn't closed");
        r->p += !r->bad;
        if (r->looks->n == MFI_PATTERN_LOOKS) {
            fail(r, "too many look-aheads");
            return;
        }
        r->looks->nodes[r->looks->n] = node;
        r->looks->negated[r->looks->n++] = negated;
    }
}

static uint32_t parse_sequence(regex *r, pattern_reach reach)
{
    mfi_ast_list list = {0};
    bool closed = false, looks = reach == TOP && r->looks != NULL;
    if (reach == TOP && at(r, '^')) {
        r->p++;
        looks = looks && look_here(r);
    } else if (looks && look_here(r)) { /* it might begin later, too, but need not */
    } else if (reach == TOP) {
        mfi_ast_push(r->ast, &list, anything(r));
        looks = false;
    }
    if (looks)
        parse_looks(r);
    if (reach == LOOK && at(r, '^')) /* where it stands anyway */
        r->p++;
    while (r->p < r->end && *r->p != '|' && *r->p != ')' && !mfi_ast_failed(r->ast)) {
        if (reach != INNER && *r->p == '$' &&
            (r->p + 1 == r->end || r->p[1] == '|' || r->p[1] == ')')) {
            r->p++;
            closed = true;
            break;
        }
        uint32_t node = parse_atom(r);
        while (r->p < r->end && *r->p && strchr("*+?{", *r->p))
            node = parse_quantifier(r, node);
        mfi_ast_push(r->ast, &list, node);
    }
    if (reach != INNER && !closed)
        mfi_ast_push(r->ast, &list, anything(r));
    return mfi_ast_seq(r->ast, list);
}

static uint32_t parse_alternatives(regex *r, pattern_reach reach)
{
    mfi_ast_list list = {0};
    mfi_ast_push(r->ast, &list, parse_sequence(r, reach));
    for (bool several = false;; several = true) {
        /* it would have to hold of the others' texts, too */
        if (reach == TOP && r->looks && r->looks->n && (several || at(r, '|')))
            fail(r, "look-ahead in one of several alternatives");
        if (!at(r, '|'))
            break;
        r->p++;
        mfi_ast_push(r->ast, &list, parse_sequence(r, reach));
    }
    return mfi_ast_alt(r->ast, list);
}

bool mfi_pattern_looks_ahead(const char *pattern)
{
    return strstr(pattern, "(?=") || strstr(pattern, "(?!");
}

uint32_t mfi_pattern_parse(mfi_ast *ast, const char *pattern, size_t len, mfi_pattern_looks *looks,
                           const char **bad)
{
    regex r = {.ast = ast, .p = pattern, .end = pattern + len, .looks = looks};
    uint32_t node = 0;
    if (looks)
        looks->n = 0;
    if (len > MFI_MAX_PATTERN_BYTES)
        fail(&r, "too long");
    else
        node = parse_alternatives(&r, TOP);
    if (!r.bad && r.p < r.end && !mfi_ast_failed(ast))
        fail(&r, "a closing parenthesis too many");
    *bad = r.bad;
    return node;
}
