/* JSON's texts as expressions; see schema_text.h. Part of the reader of JSON schemas. */
#include "grammar/schema_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#define DIGITS_MAX 20

static uint32_t digits(mfi_ast *ast, unsigned lo, unsigned hi)
{
    return mfi_ast_class(ast, &(mfi_range){'0' + lo, '0' + hi}, 1, false);
}

static bool needs_escape(uint32_t cp)
{
    return cp < 0x20 || cp == '"' || cp == '\\';
}

/* "\n", "\"", "\u001f" */
static const char *escape_of(uint32_t cp, char text[8])
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *at = cp ? strchr(from, (int)cp) : NULL;
    if (at)
        snprintf(text, 8, "\\%c", to[at - from]);
    else
        snprintf(text, 8, "\\u%04x", cp);
    return text;
}

uint32_t mfi_text_never(mfi_ast *ast)
{
    return mfi_ast_class(ast, NULL, 0, false);
}

static bool has(const mfi_ast *ast, uint32_t class_node, uint32_t cp)
{
    const mfi_ast_node *node = &ast->nodes[class_node];
    for (uint32_t i = 0; i < node->b; i++)
        if (cp >= ast->ranges[node->a + i].lo && cp <= ast->ranges[node->a + i].hi)
            return true;
    return false;
}

/* The class without what needs an escape. */
static uint32_t raw_part(mfi_ast *ast, uint32_t whole)
{
    static const mfi_range gaps[] = {{0, 0x1f}, {'"', '"'}, {'\\', '\\'}};
    mfi_buf ranges = {0};
    uint32_t first = ast->nodes[whole].a, n = ast->nodes[whole].b;
    for (uint32_t i = 0; i < n; i++) {
        mfi_range r = ast->ranges[first + i];
        for (size_t k = 0; k < MFI_ARRAY_LEN(gaps); k++) {
            if (r.lo > gaps[k].hi || r.hi < gaps[k].lo)
                continue;
            if (r.lo < gaps[k].lo)
                mfi_buf_append(&ranges, &(mfi_range){r.lo, gaps[k].lo - 1}, sizeof r);
            r.lo = gaps[k].hi + 1;
        }
        if (r.lo <= r.hi)
            mfi_buf_append(&ranges, &r, sizeof r);
    }
    if (ranges.failed)
        ast->bytes.failed = true;
    uint32_t node = mfi_ast_class(ast, (const mfi_range *)(const void *)ranges.data,
                                  (uint32_t)(ranges.len / sizeof(mfi_range)), false);
    mfi_buf_free(&ranges);
    return node;
}

uint32_t mfi_text_char(mfi_ast *ast, const mfi_range *ranges, uint32_t n, bool negated)
{
    mfi_ast_list list = {0};
    char text[8];
    uint32_t whole = mfi_ast_class(ast, ranges, n, negated);
    if (mfi_ast_failed(ast))
        return 0;
    mfi_ast_push(ast, &list, raw_part(ast, whole));
    for (uint32_t cp = 0; cp <= '\\'; cp++)
        if (needs_escape(cp) && !mfi_ast_failed(ast) && has(ast, whole, cp))
            mfi_ast_push(ast, &list, mfi_ast_str(ast, escape_of(cp, text)));
    return mfi_ast_alt(ast, list);
}

static void put_text(mfi_buf *out, const char *text, size_t len)
{
    char escape[8];
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (needs_escape(c))
            mfi_buf_str(out, escape_of(c, escape));
        else
            mfi_buf_append(out, &text[i], 1);
    }
}

static uint32_t literal(mfi_ast *ast, mfi_buf *text)
{
    if (text->failed)
        ast->bytes.failed = true;
    uint32_t node = mfi_ast_bytes(ast, text->data, text->len);
    mfi_buf_free(text);
    return node;
}

uint32_t mfi_text_plain(mfi_ast *ast, const char *text, size_t len)
{
    mfi_buf out = {0};
    put_text(&out, text, len);
    return literal(ast, &out);
}

uint32_t mfi_text_quoted(mfi_ast *ast, const char *text, size_t len)
{
    mfi_buf out = {0};
    mfi_buf_str(&out, "\"");
    put_text(&out, text, len);
    mfi_buf_str(&out, "\"");
    return literal(ast, &out);
}

/* ---- integers ---- */

/* Digit strings of n digits from lo to hi, which are such strings. */
static uint32_t same_length(mfi_ast *ast, const char *lo, const char *hi, int n)
{
    static const char zeros[] = "00000000000000000000", nines[] = "99999999999999999999";
    if (n == 0)
        return 0;
    if (memcmp(lo, zeros, (size_t)n) == 0 && memcmp(hi, nines, (size_t)n) == 0)
        return mfi_ast_repeat(ast, digits(ast, 0, 9), (uint32_t)n, (uint32_t)n);
    unsigned a = (unsigned)(*lo - '0'), b = (unsigned)(*hi - '0');
    if (a == b)
        return mfi_ast_seq_of(ast, digits(ast, a, a), same_length(ast, lo + 1, hi + 1, n - 1),
                              MFI_AST_END);
    mfi_ast_list list = {0};
    mfi_ast_push(ast, &list,
                 mfi_ast_seq_of(ast, digits(ast, a, a), same_length(ast, lo + 1, nines, n - 1),
                                MFI_AST_END));
    if (b - a > 1)
        mfi_ast_push(ast, &list,
                     mfi_ast_seq_of(ast, digits(ast, a + 1, b - 1),
                                    same_length(ast, zeros, nines, n - 1), MFI_AST_END));
    mfi_ast_push(ast, &list,
                 mfi_ast_seq_of(ast, digits(ast, b, b), same_length(ast, zeros, hi + 1, n - 1),
                                MFI_AST_END));
    return mfi_ast_alt(ast, list);
}

static uint32_t not_negative(mfi_ast *ast, uint64_t lo, uint64_t hi)
{
    mfi_ast_list list = {0};
    while (lo <= hi) { /* one length at a time */
        char a[DIGITS_MAX + 2], b[DIGITS_MAX + 2];
        int n = snprintf(a, sizeof a, "%llu", (unsigned long long)lo);
        uint64_t most = 9;
        for (int i = 1; i < n; i++)
            most = most > UINT64_MAX / 10 - 1 ? UINT64_MAX : most * 10 + 9;
        most = MFI_MIN(most, hi);
        snprintf(b, sizeof b, "%llu", (unsigned long long)most);
        mfi_ast_push(ast, &list, same_length(ast, a, b, n));
        if (most == hi)
            break;
        lo = most + 1;
    }
    return mfi_ast_alt(ast, list);
}

uint32_t mfi_text_integer(mfi_ast *ast, int64_t lo, int64_t hi)
{
    mfi_ast_list list = {0};
    if (lo > hi)
        return mfi_text_never(ast);
    if (hi >= 0)
        mfi_ast_push(ast, &list, not_negative(ast, lo > 0 ? (uint64_t)lo : 0, (uint64_t)hi));
    if (lo < 0)
        mfi_ast_push(ast, &list,
                     mfi_ast_seq_of(ast, mfi_ast_str(ast, "-"),
                                    not_negative(ast, hi < 0 ? 0 - (uint64_t)hi : 1,
                                                 (uint64_t) - (lo + 1) + 1),
                                    MFI_AST_END));
    return mfi_ast_alt(ast, list);
}

/* ---- fractions ---- */

#define FRACTION_DIGITS     6 /* where the bounds don't ask for more */
#define FRACTION_DIGITS_MAX 12
#define SIGNIFICANT_DIGITS  15 /* that all doubles keep */

typedef struct fraction { /* the digits behind the point, n of them */
    char lo[FRACTION_DIGITS_MAX + 1], hi[FRACTION_DIGITS_MAX + 1];
    int n;
} fraction;

static uint32_t fraction_from(mfi_ast *ast, const fraction *f, int i, bool low, bool high);

/* What follows i digits, if anything: with a lower bound it may be nothing only if all that the
 * bound has left is zeros. */
static uint32_t fraction_rest(mfi_ast *ast, const fraction *f, int i, bool low, bool high)
{
    if (i == f->n)
        return 0;
    if (!low && !high)
        return mfi_ast_repeat(ast, digits(ast, 0, 9), 0, (uint32_t)(f->n - i));
    uint32_t node = fraction_from(ast, f, i, low, high);
    bool zeros = (int)strspn(f->lo + i, "0") >= f->n - i;
    return low && !zeros ? node : mfi_ast_optional(ast, node);
}

/* Digits from the i-th on, one at least, that are not below lo and not above hi where these count.
 */
static uint32_t fraction_from(mfi_ast *ast, const fraction *f, int i, bool low, bool high)
{
    mfi_ast_list list = {0};
    unsigned a = low ? (unsigned)(f->lo[i] - '0') : 0, b = high ? (unsigned)(f->hi[i] - '0') : 9;
    if (low && high && a == b)
        return mfi_ast_seq_of(ast, digits(ast, a, a), fraction_rest(ast, f, i + 1, true, true),
                              MFI_AST_END);
    if (low)
        mfi_ast_push(ast, &list,
                     mfi_ast_seq_of(ast, digits(ast, a, a),
                                    fraction_rest(ast, f, i + 1, true, false), MFI_AST_END));
    if (a + low + high <= b)
        mfi_ast_push(ast, &list,
                     mfi_ast_seq_of(ast, digits(ast, a + low, b - high),
                                    fraction_rest(ast, f, i + 1, false, false), MFI_AST_END));
    if (high)
        mfi_ast_push(ast, &list,
                     mfi_ast_seq_of(ast, digits(ast, b, b),
                                    fraction_rest(ast, f, i + 1, false, true), MFI_AST_END));
    return mfi_ast_alt(ast, list);
}

static int64_t power_of_ten(int n)
{
    int64_t p = 1;
    while (n-- > 0)
        p *= 10;
    return p;
}

static void put_digits(char *text, int n, int64_t value)
{
    text[n] = 0;
    for (; n-- > 0; value /= 10)
        text[n] = (char)('0' + value % 10);
}

/* Numbers from lo to hi in units of the last of n digits, neither negative. */
static uint32_t fractions_between(mfi_ast *ast, int64_t lo, int64_t hi, int n)
{
    int64_t unit = power_of_ten(n), a = lo / unit, b = hi / unit;
    uint32_t point = mfi_ast_str(ast, ".");
    mfi_ast_list list = {0};
    fraction f = {.n = n};
    put_digits(f.lo, n, lo % unit);
    put_digits(f.hi, n, hi % unit);
    if (lo > hi)
        return mfi_text_never(ast);
    if (a == b)
        return mfi_ast_seq_of(ast, mfi_text_integer(ast, a, a), point,
                              fraction_from(ast, &f, 0, true, true), MFI_AST_END);
    mfi_ast_push(ast, &list,
                 mfi_ast_seq_of(ast, mfi_text_integer(ast, a, a), point,
                                fraction_from(ast, &f, 0, true, false), MFI_AST_END));
    if (b - a > 1)
        mfi_ast_push(ast, &list,
                     mfi_ast_seq_of(ast, mfi_text_integer(ast, a + 1, b - 1), mfi_ast_str(ast, "."),
                                    mfi_ast_repeat(ast, digits(ast, 0, 9), 1, (uint32_t)n),
                                    MFI_AST_END));
    mfi_ast_push(ast, &list,
                 mfi_ast_seq_of(ast, mfi_text_integer(ast, b, b), mfi_ast_str(ast, "."),
                                fraction_from(ast, &f, 0, false, true), MFI_AST_END));
    return mfi_ast_alt(ast, list);
}

/* The bound in units of the last of n digits, moved inwards where it isn't a multiple of one. */
static int64_t scaled(double bound, bool open, int n, int inwards)
{
    char text[64], plain[64];
    const int64_t most = power_of_ten(SIGNIFICANT_DIGITS) - 1;
    size_t k = 0;
    if (fabs(bound) >= (double)most / (double)power_of_ten(n))
        return bound < 0 ? -most : most;
    snprintf(text, sizeof text, "%.*f", n, bound);
    for (size_t i = 0; text[i]; i++)
        if (text[i] != '.')
            plain[k++] = text[i];
    plain[k] = 0;
    int64_t units = strtoll(plain, NULL, 10);
    double value = strtod(text, NULL);
    bool outside = inwards > 0 ? value < bound : value > bound;
    return units + (outside || (value == bound && open) ? inwards : 0);
}

static bool is_decimal(double x, int n)
{
    char text[512];
    if (isinf(x))
        return true;
    snprintf(text, sizeof text, "%.*f", n, x);
    return strtod(text, NULL) == x;
}

uint32_t mfi_text_fraction(mfi_ast *ast, double lo, bool lo_open, double hi, bool hi_open)
{
    int n = FRACTION_DIGITS;
    while (n < FRACTION_DIGITS_MAX && (!is_decimal(lo, n) || !is_decimal(hi, n)))
        n++;
    int64_t from = scaled(lo, lo_open, n, 1), to = scaled(hi, hi_open, n, -1);
    mfi_ast_list list = {0};
    if (to >= 0)
        mfi_ast_push(ast, &list, fractions_between(ast, MFI_MAX(from, 0), to, n));
    if (from < 0)
        mfi_ast_push(ast, &list,
                     mfi_ast_seq_of(ast, mfi_ast_str(ast, "-"),
                                    fractions_between(ast, to < 0 ? -to : 1, -from, n),
                                    MFI_AST_END));
    return list.first ? mfi_ast_alt(ast, list) : mfi_text_never(ast);
}
