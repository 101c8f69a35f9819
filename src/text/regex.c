/* The pattern rewriter: reads Oniguruma syntax, writes PCRE2 syntax.
 *
 * Called when a tokenizer is opened. Works by a list of what is known to mean the same: literals, a
 * few escapes, groups, quantifiers. Classes (\s, \p{L}, [...], with && and nesting) are evaluated
 * to sets of code points here, because the engines differ in what they contain: PCRE2 takes && as
 * two literals, counts U+180E as space, reads \p{Han} as Script_Extensions, and has the Unicode
 * version it was built with. Everything else is refused by name, never passed through. */
#include "text/regex.h"
#include "base/limits.h"
#include "text/charset.h"
#include "text/unicode.h"

#include <string.h>

#define MAX_NESTING 64

typedef struct rewriter {
    const char *begin, *p, *end;
    mfi_buf *out;
    mf_error *err;
    /* What a quantifier would apply to: the output from `atom` on. */
    size_t atom;
    enum { ATOM_NONE, ATOM_PLAIN, ATOM_QUANTIFIED } atom_state;
    bool caseless;
    struct {
        size_t atom;
        bool caseless;
    } groups[MAX_NESTING];
    uint32_t n_groups;
} rewriter;

static mf_status unsupported(const rewriter *rw, const char *at, const char *what)
{
    return mfi_fail(rw->err, MF_ERR_UNSUPPORTED, "pattern: %s at offset %zu is not supported", what,
                    (size_t)(at - rw->begin));
}

static mf_status malformed(const rewriter *rw, const char *at, const char *what)
{
    return mfi_fail(rw->err, MF_ERR_FORMAT, "pattern: %s at offset %zu", what,
                    (size_t)(at - rw->begin));
}

static void begin_atom(rewriter *rw)
{
    rw->atom = rw->out->len;
    rw->atom_state = ATOM_PLAIN;
}

static void put_literal(rewriter *rw, uint32_t cp)
{
    char bytes[4];
    bool plain = (cp >= '0' && cp <= '9') || (cp >= 'A' && cp <= 'Z') || (cp >= 'a' && cp <= 'z');
    if (plain || cp >= 0xa0)
        mfi_buf_append(rw->out, bytes, mfi_utf8_encode(cp, bytes));
    else
        mfi_buf_fmt(rw->out, "\\x{%x}", cp);
}

/* ---- escapes and classes ---- */

static mf_status read_hex(rewriter *rw, const char *at, size_t n_min, size_t n_max, uint32_t *cp)
{
    uint32_t value = 0;
    size_t n = 0;
    for (; n < n_max && rw->p < rw->end; n++, rw->p++) {
        char c = *rw->p;
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                : 16;
        if (digit == 16)
            break;
        value = value << 4 | digit;
    }
    if (n < n_min)
        return malformed(rw, at, "bad hexadecimal escape");
    if (value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
        return malformed(rw, at, "escape is no character");
    *cp = value;
    return MF_OK;
}

/* \p{Name}, \p{^Name}, \P{Name}; rw->p is behind the p. */
static mf_status read_property(rewriter *rw, const char *at, bool negated, mfi_charset *set)
{
    if (rw->p == rw->end || *rw->p != '{')
        return unsupported(rw, at, "\\p without braces");
    const char *name = ++rw->p;
    const char *close = memchr(name, '}', (size_t)(rw->end - name));
    if (!close)
        return malformed(rw, at, "\\p without end");
    rw->p = close + 1;
    if (*name == '^') {
        negated = !negated;
        name++;
    }
    size_t len = (size_t)(close - name);
    uint32_t mask = mfi_unicode_category_mask(name, len);
    if (mask)
        mfi_charset_add_categories(set, mask);
    else if (len == 3 && memcmp(name, "Han", 3) == 0)
        mfi_charset_add_han(set);
    else
        return mfi_fail(rw->err, MF_ERR_UNSUPPORTED,
                        "pattern: \\p{%.*s} at offset %zu is not supported", (int)MFI_MIN(len, 40),
                        name, (size_t)(at - rw->begin));
    if (negated)
        mfi_charset_invert(set);
    return MF_OK;
}

/* Reads an escape, rw->p behind the backslash: *is_set tells whether it is one character (*cp) or
 * a class (added to an empty *set). */
static mf_status read_escape(rewriter *rw, bool in_class, mfi_charset *set, uint32_t *cp,
                             bool *is_set)
{
    const char *at = rw->p - 1;
    if (rw->p == rw->end)
        return malformed(rw, at, "backslash at the end");
    char c = *rw->p++;
    *is_set = false;
    static const char controls[] = "t\tn\nr\rf\fv\va\ae\x1b"; /* \v: to PCRE2 a class */
    for (size_t i = 0; i + 1 < sizeof controls; i += 2) {
        if (c == controls[i]) {
            *cp = (unsigned char)controls[i + 1];
            return MF_OK;
        }
    }
    switch (c) {
    case 'u':
        return read_hex(rw, at, 4, 4, cp);
    case 'x':
        if (rw->p < rw->end && *rw->p == '{') {
            rw->p++;
            MFI_TRY(read_hex(rw, at, 1, 8, cp));
            if (rw->p == rw->end || *rw->p++ != '}')
                return malformed(rw, at, "bad hexadecimal escape");
            return MF_OK;
        }
        MFI_TRY(read_hex(rw, at, 2, 2, cp));
        /* Oniguruma takes \x80 to \xff as bytes of the encoding. */
        return *cp < 0x80 ? MF_OK : unsupported(rw, at, "\\x with a byte above 7f");
    case 's':
    case 'S':
        *is_set = true;
        mfi_charset_add_space(set);
        if (c == 'S')
            mfi_charset_invert(set);
        return MF_OK;
    case 'd':
    case 'D':
        *is_set = true;
        mfi_charset_add_categories(set, (uint32_t)1 << MFI_CAT_ND);
        if (c == 'D')
            mfi_charset_invert(set);
        return MF_OK;
    case 'w':
    case 'W':
        *is_set = true;
        mfi_charset_add_word(set, in_class);
        if (c == 'W')
            mfi_charset_invert(set);
        return MF_OK;
    case 'p':
    case 'P':
        *is_set = true;
        return read_property(rw, at, c == 'P', set);
    default:
        break;
    }
    bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    if (alnum || (unsigned char)c >= 0x80) {
        char what[8] = {'\\', alnum ? c : '?', 0};
        return unsupported(rw, at, what);
    }
    *cp = (unsigned char)c;
    return MF_OK;
}

static void read_char(rewriter *rw, uint32_t *cp)
{
    rw->p += mfi_utf8_decode(rw->p, rw->end, cp); /* checked by mfi_regex_rewrite */
}

static mf_status read_class(rewriter *rw, mfi_charset *set, bool *negated, bool *plain,
                            uint32_t depth);

/* One member of a class: a character, a range, an escape or a nested class. */
static mf_status read_member(rewriter *rw, mfi_charset *set, bool *plain, uint32_t depth)
{
    const char *at = rw->p;
    mfi_charset inner = {0};
    bool is_set = false;
    uint32_t first, last;
    mf_status status = MF_OK;
    if (*rw->p == '[') {
        bool negated;
        if (rw->end - rw->p > 1 && rw->p[1] == ':')
            return unsupported(rw, at, "POSIX bracket");
        rw->p++;
        is_set = true;
        status = read_class(rw, &inner, &negated, plain, depth + 1);
        if (status == MF_OK && negated)
            mfi_charset_invert(&inner);
    } else if (*rw->p == '\\') {
        rw->p++;
        status = read_escape(rw, true, &inner, &first, &is_set);
    } else {
        read_char(rw, &first);
    }
    bool dash = rw->end - rw->p > 1 && rw->p[0] == '-' && rw->p[1] != ']';
    if (status == MF_OK && is_set) {
        *plain = false;
        mfi_charset_add_set(set, &inner);
        if (dash)
            status = unsupported(rw, rw->p, "range that starts with a class");
    }
    mfi_charset_free(&inner);
    if (status != MF_OK || is_set)
        return status;
    last = first;
    if (dash) {
        rw->p++;
        if (*rw->p == '[' || (*rw->p == '&' && rw->end - rw->p > 1 && rw->p[1] == '&'))
            return unsupported(rw, at, "range that ends with a class");
        if (*rw->p == '\\') {
            rw->p++;
            status = read_escape(rw, true, &inner, &last, &is_set);
            mfi_charset_free(&inner);
            MFI_TRY(status);
            if (is_set)
                return unsupported(rw, at, "range that ends with a class");
        } else {
            read_char(rw, &last);
        }
        if (last < first)
            return malformed(rw, at, "range in the wrong order");
    }
    mfi_charset_add(set, first, last);
    return MF_OK;
}

/* A class, rw->p behind its bracket. *set gets what it lists, without the outer negation. *plain
 * stays true if it has only characters and ranges. */
static mf_status read_class(rewriter *rw, mfi_charset *set, bool *negated, bool *plain,
                            uint32_t depth)
{
    const char *at = rw->p - 1;
    if (depth > MAX_NESTING)
        return mfi_fail(rw->err, MF_ERR_LIMIT, "pattern: classes nested too deeply");
    *negated = rw->p < rw->end && *rw->p == '^';
    rw->p += *negated;
    if (rw->p < rw->end && *rw->p == ']')
        return unsupported(rw, at, "class that starts with ]");
    mfi_charset part = {0}; /* since the last && */
    bool have_parts = false;
    mf_status status = MF_OK;
    while (status == MF_OK) {
        if (rw->p == rw->end) {
            status = malformed(rw, at, "class without end");
            break;
        }
        bool both = *rw->p == '&' && rw->end - rw->p > 1 && rw->p[1] == '&';
        if (*rw->p != ']' && !both) {
            status = read_member(rw, &part, plain, depth);
            continue;
        }
        if (have_parts)
            mfi_charset_intersect(set, &part);
        else
            mfi_charset_add_set(set, &part);
        mfi_charset_free(&part);
        have_parts = true;
        rw->p += both ? 2 : 1;
        if (!both)
            break;
        *plain = false;
    }
    mfi_charset_free(&part);
    if (status == MF_OK && set->failed)
        status = mfi_fail(rw->err, MF_ERR_NO_MEMORY, "pattern: out of memory");
    return status;
}

static mf_status put_set(rewriter *rw, const char *at, mfi_charset *set, bool negated, bool plain)
{
    /* Letters that only a set brings in would be folded differently by the two engines. */
    if (rw->caseless && !plain)
        return unsupported(rw, at, "class in a case-insensitive group");
    begin_atom(rw);
    mfi_charset_print(set, negated, rw->out);
    return MF_OK;
}

static mf_status rewrite_class(rewriter *rw)
{
    const char *at = rw->p++;
    mfi_charset set = {0};
    bool negated, plain = true;
    mf_status status = read_class(rw, &set, &negated, &plain, 0);
    if (status == MF_OK)
        status = put_set(rw, at, &set, negated, plain);
    mfi_charset_free(&set);
    return status;
}

/* \b and \B: PCRE2 has other word characters. */
static mf_status rewrite_boundary(rewriter *rw)
{
    static const char *const forms[2][4] = {{"(?:(?<=", ")(?!", ")|(?<!", ")(?="},
                                            {"(?:(?<=", ")(?=", ")|(?<!", ")(?!"}};
    if (rw->caseless)
        return unsupported(rw, rw->p, "word boundary in a case-insensitive group");
    mfi_charset set = {0};
    mfi_charset_add_word(&set, false);
    for (size_t i = 0; i < 4; i++) {
        mfi_buf_str(rw->out, forms[rw->p[1] == 'B'][i]);
        mfi_charset_print(&set, false, rw->out);
    }
    mfi_buf_str(rw->out, "))");
    mfi_charset_free(&set);
    rw->p += 2;
    rw->atom_state = ATOM_NONE; /* not to be repeated */
    return MF_OK;
}

static mf_status rewrite_escape(rewriter *rw)
{
    if (rw->end - rw->p > 1 && (rw->p[1] == 'b' || rw->p[1] == 'B'))
        return rewrite_boundary(rw);
    const char *at = rw->p++;
    mfi_charset set = {0};
    uint32_t cp = 0;
    bool is_set;
    mf_status status = read_escape(rw, false, &set, &cp, &is_set);
    if (status == MF_OK && is_set) {
        status = put_set(rw, at, &set, false, false);
    } else if (status == MF_OK) {
        begin_atom(rw);
        put_literal(rw, cp);
    }
    mfi_charset_free(&set);
    return status;
}

/* ---- groups and quantifiers ---- */

static mf_status open_group(rewriter *rw)
{
    static const char *const openers[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:"};
    const char *at = rw->p;
    size_t left = (size_t)(rw->end - rw->p);
    const char *opener = "(";
    if (left > 1 && at[1] == '*')
        return unsupported(rw, at, "(*");
    if (left > 1 && at[1] == '?') {
        opener = NULL;
        for (size_t i = 0; i < MFI_ARRAY_LEN(openers) && !opener; i++)
            if (left >= strlen(openers[i]) && memcmp(at, openers[i], strlen(openers[i])) == 0)
                opener = openers[i];
        if (!opener)
            return unsupported(rw, at, "this kind of group");
    }
    if (rw->n_groups == MAX_NESTING)
        return mfi_fail(rw->err, MF_ERR_LIMIT, "pattern: groups nested too deeply");
    rw->groups[rw->n_groups].atom = rw->out->len;
    rw->groups[rw->n_groups++].caseless = rw->caseless;
    rw->caseless |= opener[strlen(opener) - 1] == ':' && opener[2] == 'i';
    rw->atom_state = ATOM_NONE;
    rw->p += strlen(opener);
    mfi_buf_str(rw->out, strcmp(opener, "(") == 0 ? "(?:" : opener);
    return MF_OK;
}

static mf_status close_group(rewriter *rw)
{
    if (!rw->n_groups)
        return malformed(rw, rw->p, "unmatched )");
    rw->n_groups--;
    rw->atom = rw->groups[rw->n_groups].atom;
    rw->caseless = rw->groups[rw->n_groups].caseless;
    rw->atom_state = ATOM_PLAIN;
    mfi_buf_str(rw->out, ")");
    rw->p++;
    return MF_OK;
}

/* {n}, {n,} or {n,m}: its length at p, or 0. */
static size_t interval_len(const char *p, const char *end)
{
    const char *q = p + 1;
    size_t n_low = 0, n_high = 0;
    for (; q < end && *q >= '0' && *q <= '9'; q++)
        n_low++;
    if (q < end && *q == ',')
        for (q++; q < end && *q >= '0' && *q <= '9'; q++)
            n_high++;
    bool ok = n_low >= 1 && n_low <= 4 && n_high <= 4 && q < end && *q == '}';
    return ok ? (size_t)(q + 1 - p) : 0;
}

static mf_status rewrite_quantifier(rewriter *rw)
{
    const char *at = rw->p;
    if (rw->atom_state == ATOM_NONE)
        return malformed(rw, at, "nothing to repeat");
    if (rw->atom_state == ATOM_QUANTIFIED)
        return unsupported(rw, at, "quantifier behind a quantifier");
    size_t len = 1;
    if (*at == '{') {
        len = interval_len(at, rw->end);
        if (!len)
            return unsupported(rw, at, "{ that is no quantifier");
    }
    mfi_buf_append(rw->out, at, len);
    rw->p += len;
    rw->atom_state = ATOM_QUANTIFIED;
    if (rw->p == rw->end || (*rw->p != '+' && *rw->p != '?'))
        return MF_OK;
    char suffix = *rw->p++;
    if (*at != '{') { /* possessive and lazy mean the same to both */
        mfi_buf_append(rw->out, &suffix, 1);
        return MF_OK;
    }
    if (suffix == '?')
        return unsupported(rw, at, "{...}?");
    /* To Oniguruma a{n,m}+ is not possessive but (?:a{n,m})+. */
    mfi_buf tail = {0};
    mfi_buf_append(&tail, rw->out->data + rw->atom, rw->out->len - rw->atom);
    rw->out->len = rw->atom;
    mfi_buf_str(rw->out, "(?:");
    mfi_buf_append(rw->out, tail.data, tail.len);
    mfi_buf_str(rw->out, ")+");
    rw->out->failed |= tail.failed;
    mfi_buf_free(&tail);
    return MF_OK;
}

static mf_status rewrite_anchor(rewriter *rw, const char *form)
{
    mfi_buf_str(rw->out, form);
    rw->atom_state = ATOM_NONE; /* not to be repeated */
    rw->p++;
    return MF_OK;
}

static mf_status rewrite_one(rewriter *rw)
{
    uint32_t cp;
    switch (*rw->p) {
    case '(':
        return open_group(rw);
    case ')':
        return close_group(rw);
    case '[':
        return rewrite_class(rw);
    case '\\':
        return rewrite_escape(rw);
    case '*':
    case '+':
    case '?':
    case '{':
        return rewrite_quantifier(rw);
    case '^': /* of a line, but not behind the text's last newline */
        return rewrite_anchor(rw, "(?:\\A|(?<=\\n)(?!\\z))");
    case '$':
        return rewrite_anchor(rw, "(?=\\n|\\z)");
    case '|':
        mfi_buf_str(rw->out, "|");
        rw->atom_state = ATOM_NONE;
        rw->p++;
        return MF_OK;
    case '.':
        begin_atom(rw);
        mfi_buf_str(rw->out, "[^\\n]");
        rw->p++;
        return MF_OK;
    default:
        begin_atom(rw);
        read_char(rw, &cp);
        put_literal(rw, cp);
        return MF_OK;
    }
}

mf_status mfi_regex_rewrite(const char *pattern, size_t len, mfi_buf *out, mf_error *err)
{
    rewriter rw = {.begin = pattern, .p = pattern, .end = pattern + len, .out = out, .err = err};
    if (len > MFI_MAX_PATTERN_BYTES)
        return mfi_fail(err, MF_ERR_LIMIT, "pattern: longer than %d bytes", MFI_MAX_PATTERN_BYTES);
    size_t bad = mfi_utf8_check(pattern, len);
    if (bad < len)
        return mfi_fail(err, MF_ERR_FORMAT, "pattern: not UTF-8 at offset %zu", bad);
    while (rw.p < rw.end && !out->failed)
        MFI_TRY(rewrite_one(&rw));
    if (out->failed)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "pattern: out of memory");
    if (rw.n_groups)
        return mfi_fail(err, MF_ERR_FORMAT, "pattern: group without end");
    return MF_OK;
}
