/* JSON's texts as expressions; see schema_text.h. Part of the reader of JSON schemas. */
#include "grammar/schema_text.h"

#include <stdio.h>
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

/* ---- formats ---- */

/* Years 1000 to 9999, the 29th of February in leap years that no century ends. RFC 3339. */
#define DATE                                                                                       \
    "([1-9][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])"                                    \
    "|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"                                \
    "|[1-9][0-9](0[48]|[2468][048]|[13579][26])-02-29)"
#define TIME                                                                                       \
    "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?"                                     \
    "(Z|[+\\-]([01][0-9]|2[0-3]):[0-5][0-9])"
#define UUID "[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"

bool mfi_text_format(mfi_ast *ast, const char *format, uint32_t *node)
{
    static const struct {
        const char *name, *pattern;
    } known[] = {
        {"date", "^" DATE "$"},
        {"time", "^" TIME "$"},
        {"date-time", "^" DATE "T" TIME "$"},
        {"uuid", "^" UUID "$"},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(known); i++) {
        const char *bad;
        if (strcmp(format, known[i].name) != 0)
            continue;
        *node = mfi_pattern_parse(ast, known[i].pattern, strlen(known[i].pattern), &bad);
        return true;
    }
    return false;
}
