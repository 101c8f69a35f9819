/* The template lexer: data, tags, and the white space between them.
 *
 * White space follows jinja2's lexer with trim_blocks and lstrip_blocks: a line end right behind a
 * block or comment goes, blanks between a line start and a block or comment go, `-` strips a whole
 * side, `+` keeps it. Used by the parser; memory comes from the rendering's arena. */
#include "text/template_int.h"
#include "text/unicode.h"

#include <string.h>

/* ---- failing ---- */

mf_status mfi_template_unsupported(mf_error *err, uint32_t line, const char *what, const char *name,
                                   size_t name_len)
{
    return mfi_fail(err, MF_ERR_UNSUPPORTED, "chat template line %u: %s%s%.*s is not supported",
                    line, what, name_len ? " " : "", (int)MFI_MIN(name_len, (size_t)60),
                    name ? name : "");
}

mf_status mfi_template_malformed(mf_error *err, uint32_t line, const char *what)
{
    return mfi_fail(err, MF_ERR_FORMAT, "chat template line %u: %s", line, what);
}

mf_status mfi_template_no_memory(mf_error *err)
{
    return mfi_fail(err, MF_ERR_NO_MEMORY, "chat template: out of memory");
}

/* ---- data ---- */

static size_t space_len(const char *p, const char *end)
{
    uint32_t cp;
    size_t n = p < end ? mfi_utf8_decode(p, end, &cp) : 0;
    return n && mfi_space(cp) ? n : 0;
}

static void skip_space(mfi_lexer *lexer)
{
    size_t n;
    while ((n = space_len(lexer->p, lexer->end))) {
        lexer->line += *lexer->p == '\n';
        lexer->p += n;
    }
}

static const char *strip_right(const char *begin, const char *end)
{
    uint32_t cp;
    while (end > begin) {
        size_t n = mfi_utf8_decode_before(begin, end, &cp);
        if (!mfi_space(cp))
            break;
        end -= n;
    }
    return end;
}

/* The end of the data in front of a block or comment once the blanks of its line are gone. */
static const char *strip_line(const char *begin, const char *end, bool line_starting)
{
    const char *start = end;
    while (start > begin && start[-1] != '\n')
        start--;
    if (start == begin && !line_starting)
        return end;
    const char *p = start;
    size_t n;
    while (p < end && (n = space_len(p, end)))
        p += n;
    return p == end ? start : end;
}

mf_status mfi_lexer_begin(mfi_lexer *lexer, mfi_arena *arena, const char *source, size_t len,
                          mf_error *err)
{
    size_t bad = mfi_utf8_check(source, len), n = 0;
    if (bad < len)
        return mfi_fail(err, MF_ERR_FORMAT, "chat template: not UTF-8 at byte %zu", bad);
    char *copy = mfi_arena_alloc(arena, len + 1);
    if (!copy)
        return mfi_template_no_memory(err);
    for (size_t i = 0; i < len; i++) { /* all line ends become \n */
        if (source[i] == '\r' && i + 1 < len && source[i + 1] == '\n')
            continue;
        copy[n++] = source[i] == '\r' ? '\n' : source[i];
    }
    if (n && copy[n - 1] == '\n') /* keep_trailing_newline is off */
        n--;
    *lexer = (mfi_lexer){.arena = arena,
                         .p = copy,
                         .begin = copy,
                         .end = copy + n,
                         .line = 1,
                         .state = MFI_LEX_DATA,
                         .line_starting = true,
                         .err = err};
    return MF_OK;
}

static uint32_t count_lines(const char *p, const char *end)
{
    uint32_t n = 0;
    for (; p < end; p++)
        n += *p == '\n';
    return n;
}

/* Behind the end of a block or comment: what it strips, and whether a line starts. */
static void strip_behind(mfi_lexer *lexer, char sign)
{
    if (sign == '-') {
        skip_space(lexer);
    } else if (sign != '+' && lexer->p < lexer->end && *lexer->p == '\n') {
        lexer->p++;
        lexer->line++;
    }
    lexer->line_starting = lexer->p[-1] == '\n';
}

/* Behind "{#": skips the comment. */
static mf_status skip_comment(mfi_lexer *lexer)
{
    uint32_t line = lexer->line;
    const char *close = lexer->p;
    while (lexer->end - close >= 2 && !(close[0] == '#' && close[1] == '}'))
        close++;
    if (lexer->end - close < 2)
        return mfi_template_malformed(lexer->err, line, "comment without end");
    char sign = close > lexer->p ? close[-1] : 0;
    lexer->line += count_lines(lexer->p, close);
    lexer->p = close + 2;
    strip_behind(lexer, sign);
    return MF_OK;
}

/* The length of "{% NAME %}" at p with its signs, or 0; closing: what stands before its end. */
static size_t raw_tag(const char *p, const char *end, const char *name, char *closing)
{
    const char *start = p;
    size_t n, name_len = strlen(name);
    if (end - p < 2 || p[0] != '{' || p[1] != '%')
        return 0;
    p += 2;
    p += p < end && (*p == '-' || *p == '+');
    while ((n = space_len(p, end)))
        p += n;
    if ((size_t)(end - p) < name_len || memcmp(p, name, name_len) != 0)
        return 0;
    p += name_len;
    while ((n = space_len(p, end)))
        p += n;
    *closing = p < end && (*p == '-' || *p == '+') ? *p : 0;
    p += *closing != 0;
    return end - p >= 2 && p[0] == '%' && p[1] == '}' ? (size_t)(p + 2 - start) : 0;
}

/* The end of the data from begin in front of the tag: what the tag strips. */
static const char *strip_before(const mfi_lexer *lexer, const char *begin, const char *tag)
{
    char sign = lexer->end - tag > 2 ? tag[2] : 0;
    if (sign == '-')
        return strip_right(begin, tag);
    if (sign != '+' && tag[1] != '{')
        return strip_line(begin, tag, lexer->line_starting);
    return tag;
}

static void set_data(mfi_lexer *lexer, mfi_lex_token *token, const char *begin, const char *end)
{
    token->type = MFI_TOK_DATA;
    token->line = lexer->line;
    token->text = begin;
    token->len = (size_t)(end - begin);
}

/* Between raw and endraw: all of it is data. */
static mf_status lex_raw(mfi_lexer *lexer, mfi_lex_token *token)
{
    const char *begin = lexer->p;
    for (const char *tag = begin; tag < lexer->end; tag++) {
        char sign;
        size_t n = *tag == '{' ? raw_tag(tag, lexer->end, "endraw", &sign) : 0;
        if (!n)
            continue;
        set_data(lexer, token, begin, strip_before(lexer, begin, tag));
        lexer->line += count_lines(begin, tag + n);
        lexer->p = tag + n;
        strip_behind(lexer, sign);
        lexer->state = MFI_LEX_DATA;
        return MF_OK;
    }
    return mfi_template_malformed(lexer->err, lexer->line, "raw block without end");
}

/* Behind the data in front of a tag: enters the tag. *again: it gave no token. */
static mf_status enter_tag(mfi_lexer *lexer, mfi_lex_token *token, bool *again)
{
    char kind = lexer->p[1], closing;
    size_t n = raw_tag(lexer->p, lexer->end, "raw", &closing);
    *again = true;
    if (n && closing != '+') {
        lexer->line += count_lines(lexer->p, lexer->p + n);
        lexer->p += n;
        if (closing == '-')
            skip_space(lexer);
        lexer->line_starting = lexer->p[-1] == '\n';
        lexer->state = MFI_LEX_RAW;
        return MF_OK;
    }
    lexer->p += 2;
    lexer->p += lexer->p < lexer->end && (*lexer->p == '-' || *lexer->p == '+');
    if (kind == '#')
        return skip_comment(lexer);
    *again = false;
    lexer->line_starting = false;
    lexer->state = kind == '{' ? MFI_LEX_VAR : MFI_LEX_BLOCK;
    lexer->n_open = 0;
    token->line = lexer->line;
    token->type = kind == '{' ? MFI_TOK_OPEN_VAR : MFI_TOK_OPEN_BLOCK;
    return MF_OK;
}

/* In data: the text up to the next tag, or, if there is none, what opens the tag. Comments yield
 * nothing. */
static mf_status lex_data(mfi_lexer *lexer, mfi_lex_token *token)
{
    for (bool again = true; again;) {
        if (lexer->state == MFI_LEX_RAW)
            return lex_raw(lexer, token);
        const char *begin = lexer->p, *tag = begin;
        while (tag < lexer->end &&
               !(*tag == '{' && lexer->end - tag >= 2 && memchr("{%#", tag[1], 3)))
            tag++;
        if (tag == lexer->end) {
            set_data(lexer, token, begin, tag);
            token->type = token->len ? MFI_TOK_DATA : MFI_TOK_END;
            lexer->p = tag;
            return MF_OK;
        }
        const char *end = strip_before(lexer, begin, tag);
        if (tag > begin) {
            /* Come back to the tag itself with nothing in front of it, whose stripping is done. */
            set_data(lexer, token, begin, end);
            lexer->line += count_lines(begin, tag);
            lexer->p = tag;
            if (token->len)
                return MF_OK;
        }
        MFI_TRY(enter_tag(lexer, token, &again));
    }
    return MF_OK;
}

/* ---- inside tags ---- */

static mf_status put_escape(mfi_lexer *lexer, const char **p, const char *end, char *dst, size_t *n)
{
    static const char plain[] = "\\\\''\"\"a\ab\bf\fn\nr\rt\tv\v";
    char c = *(*p)++;
    uint32_t cp = 0;
    size_t n_digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    for (size_t i = 0; i + 1 < sizeof plain; i += 2) {
        if (plain[i] == c) {
            dst[(*n)++] = plain[i + 1];
            return MF_OK;
        }
    }
    if (c == '\n') /* a continued line */
        return MF_OK;
    if (c == 'N')
        return mfi_template_unsupported(lexer->err, lexer->line, "\\N", NULL, 0);
    if (c >= '0' && c <= '7') {
        cp = (uint32_t)(c - '0');
        for (int i = 0; i < 2 && *p < end && **p >= '0' && **p <= '7'; i++)
            cp = cp * 8 + (uint32_t)(*(*p)++ - '0');
    } else if (n_digits) {
        for (size_t i = 0; i < n_digits; i++, (*p)++) {
            static const char digits[] = "0123456789abcdefABCDEF";
            const char *digit = *p < end && **p ? strchr(digits, **p) : NULL;
            if (!digit)
                return mfi_template_malformed(lexer->err, lexer->line, "bad escape in a string");
            size_t value = (size_t)(digit - digits);
            cp = cp << 4 | (uint32_t)(value > 15 ? value - 6 : value);
        }
    } else if ((unsigned char)c >= 0x80) { /* jinja2's decoding turns it into something odd */
        return mfi_template_unsupported(lexer->err, lexer->line, "escape", NULL, 0);
    } else { /* not an escape to Python: both characters stay */
        dst[(*n)++] = '\\';
        dst[(*n)++] = c;
        return MF_OK;
    }
    if (cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
        return mfi_template_unsupported(lexer->err, lexer->line, "surrogate escape", NULL, 0);
    *n += mfi_utf8_encode(cp, dst + *n);
    return MF_OK;
}

/* A string literal as Python decodes it; no escape makes it longer. */
static mf_status lex_string(mfi_lexer *lexer, mfi_lex_token *token)
{
    char quote = *lexer->p;
    const char *p = lexer->p + 1, *close = p;
    while (close < lexer->end && *close != quote)
        close += *close == '\\' && lexer->end - close > 1 ? 2 : 1;
    if (close >= lexer->end)
        return mfi_template_malformed(lexer->err, lexer->line, "string without end");
    char *dst = mfi_arena_alloc(lexer->arena, (size_t)(close - p) + 4);
    if (!dst)
        return mfi_template_no_memory(lexer->err);
    size_t n = 0;
    token->type = MFI_TOK_STR;
    token->text = dst;
    while (p < close) {
        lexer->line += *p == '\n';
        if (*p != '\\') {
            dst[n++] = *p++;
            continue;
        }
        p++;
        MFI_TRY(put_escape(lexer, &p, close, dst, &n));
    }
    token->len = n;
    lexer->p = close + 1;
    return MF_OK;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The length of a name's character at p, or 0. */
static size_t name_char(const char *p, const char *end)
{
    uint32_t cp;
    size_t n = p < end ? mfi_utf8_decode(p, end, &cp) : 0;
    return n && mfi_unicode_is_word(cp) ? n : 0;
}

/* Digits of a base with single underscores between; *end is behind them. False: none, or too many
 * for int64. */
static bool read_digits(const char *p, const char *end, unsigned base, int64_t *value,
                        const char **behind, bool *too_large)
{
    static const char digits[] = "0123456789abcdef";
    bool any = false;
    *value = 0;
    for (;; p++) {
        const char *q = p + (any && p < end && *p == '_');
        char c = q < end ? *q : 0;
        c = c >= 'A' && c <= 'F' ? (char)(c - 'A' + 'a') : c;
        const char *digit = c ? memchr(digits, c, base) : NULL;
        if (!digit)
            break;
        if (__builtin_mul_overflow(*value, (int64_t)base, value) ||
            __builtin_add_overflow(*value, digit - digits, value))
            *too_large = true;
        any = true;
        p = q;
    }
    *behind = p;
    return any;
}

/* The end of "1.5", "1e5", "1.5e-5" at p, or NULL. */
static const char *float_end(const mfi_lexer *lexer)
{
    const char *p = lexer->p, *end = lexer->end, *whole;
    int64_t value;
    bool large = false, fraction = false;
    if (p > lexer->begin && p[-1] == '.') /* x.0.1 is two items */
        return NULL;
    if (!read_digits(p, end, 10, &value, &whole, &large))
        return NULL;
    p = whole;
    if (p < end && *p == '.' && read_digits(p + 1, end, 10, &value, &whole, &large)) {
        fraction = true;
        p = whole;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        const char *q = p + 1;
        q += q < end && (*q == '+' || *q == '-');
        if (read_digits(q, end, 10, &value, &whole, &large))
            return whole;
    }
    return fraction ? p : NULL;
}

#define LEAST "9223372036854775808" /* that is one number only with a minus before it */

static mf_status lex_number(mfi_lexer *lexer, mfi_lex_token *token)
{
    static const char *const prefixes[] = {"0b", "0o", "0x"};
    static const unsigned bases[] = {2, 8, 16};
    const char *p = lexer->p, *end = float_end(lexer), *behind;
    bool too_large = false;
    token->text = p;
    if (end) {
        mfi_str *str = mfi_str_new(lexer->arena, p, (size_t)(end - p), false);
        if (!str)
            return mfi_template_no_memory(lexer->err);
        token->type = MFI_TOK_FLOAT;
        mfi_parse_float(str, &token->number);
    } else {
        token->type = MFI_TOK_INT;
        for (size_t i = 0; i < 3 && !end; i++)
            if (lexer->end - p > 2 && p[0] == '0' && (p[1] | 32) == prefixes[i][1] &&
                read_digits(p + 2 + (p[2] == '_'), lexer->end, bases[i], &token->integer, &behind,
                            &too_large))
                end = behind;
        if (!end && *p == '0') { /* 0, 00, 0_0 */
            token->integer = 0;
            for (end = p + 1; end < lexer->end && (*end == '0' || *end == '_'); end++)
                ;
            end -= end[-1] == '_';
        }
        if (!end)
            read_digits(p, lexer->end, 10, &token->integer, &end, &too_large);
    }
    token->len = (size_t)(end - p);
    token->below = too_large && token->len == sizeof LEAST - 1 && memcmp(p, LEAST, token->len) == 0;
    if (token->below)
        token->integer = INT64_MIN;
    else if (too_large)
        return mfi_template_unsupported(lexer->err, lexer->line, "so large a number as", p,
                                        token->len);
    lexer->p = end;
    return MF_OK;
}

/* Follows the brackets inside a tag. */
static mf_status count_bracket(mfi_lexer *lexer, char c)
{
    static const char opening[] = "([{", closing[] = ")]}";
    const char *open = strchr(opening, c), *close = strchr(closing, c);
    if (open) {
        if (lexer->n_open == MFI_MAX_TEMPLATE_DEPTH)
            return mfi_fail(lexer->err, MF_ERR_LIMIT, "chat template line %u: nested too deeply",
                            lexer->line);
        lexer->open[lexer->n_open++] = closing[open - opening];
    } else if (close && (!lexer->n_open || lexer->open[--lexer->n_open] != c)) {
        return mfi_template_malformed(lexer->err, lexer->line, "a bracket closes nothing");
    }
    return MF_OK;
}

/* The end of a tag at p: its length without what it strips, or 0. */
static size_t tag_end(const mfi_lexer *lexer, char *sign)
{
    const char *p = lexer->p;
    size_t left = (size_t)(lexer->end - p);
    char close = lexer->state == MFI_LEX_VAR ? '}' : '%';
    *sign = left && (*p == '-' || (*p == '+' && close == '%')) ? *p : 0;
    size_t n = *sign ? 1 : 0;
    if (lexer->n_open) /* "}}" may close two dicts */
        return 0;
    return left >= n + 2 && p[n] == close && p[n + 1] == '}' ? n + 2 : 0;
}

static mf_status lex_tag(mfi_lexer *lexer, mfi_lex_token *token)
{
    static const char *const ops[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                      "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                      ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    skip_space(lexer);
    token->line = lexer->line;
    token->text = lexer->p;
    token->len = 0;
    if (lexer->p == lexer->end)
        return mfi_template_malformed(lexer->err, lexer->line, "tag without end");
    char sign;
    size_t n = tag_end(lexer, &sign);
    if (n) {
        bool block = lexer->state == MFI_LEX_BLOCK;
        token->type = block ? MFI_TOK_CLOSE_BLOCK : MFI_TOK_CLOSE_VAR;
        lexer->p += n;
        strip_behind(lexer, block || sign == '-' ? sign : '+');
        lexer->state = MFI_LEX_DATA;
        return MF_OK;
    }
    char c = *lexer->p;
    if (c == '\'' || c == '"')
        return lex_string(lexer, token);
    if (is_digit(c))
        return lex_number(lexer, token);
    if (name_char(lexer->p, lexer->end)) {
        while ((n = name_char(lexer->p, lexer->end)))
            lexer->p += n;
        token->type = MFI_TOK_NAME;
        token->len = (size_t)(lexer->p - token->text);
        return MF_OK;
    }
    for (size_t i = 0; i < MFI_ARRAY_LEN(ops); i++) {
        size_t len = strlen(ops[i]);
        if ((size_t)(lexer->end - lexer->p) >= len && memcmp(lexer->p, ops[i], len) == 0) {
            token->type = MFI_TOK_OP;
            token->text = ops[i];
            token->len = len;
            lexer->p += len;
            return len == 1 ? count_bracket(lexer, *ops[i]) : MF_OK;
        }
    }
    uint32_t cp;
    return mfi_template_unsupported(lexer->err, lexer->line, "character", lexer->p,
                                    mfi_utf8_decode(lexer->p, lexer->end, &cp));
}

mf_status mfi_lexer_next(mfi_lexer *lexer, mfi_lex_token *token)
{
    *token = (mfi_lex_token){0};
    if (lexer->state <= MFI_LEX_RAW)
        return lex_data(lexer, token);
    return lex_tag(lexer, token);
}
