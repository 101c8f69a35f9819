/* The template lexer: data, tags, and the white space between them.
 *
 * White space follows jinja2's lexer with trim_blocks and lstrip_blocks: a line end right behind a
 * block or comment goes, blanks between a line start and a block or comment go, `-` strips a whole
 * side, `+` keeps it. Used by the parser; memory comes from the rendering's arena. */
#include "text/template_int.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

/* ---- the arena ---- */

#define ARENA_BLOCK_BYTES 16384

struct mfi_arena_block {
    mfi_arena_block *next;
    size_t used, cap;
    _Alignas(16) unsigned char bytes[];
};

void *mfi_arena_alloc(mfi_arena *arena, size_t bytes)
{
    if (bytes > SIZE_MAX / 2)
        return NULL;
    bytes = (size_t)mfi_align_up(bytes, 16);
    mfi_arena_block *block = arena->blocks;
    if (!block || block->cap - block->used < bytes) {
        size_t cap = MFI_MAX(bytes, (size_t)ARENA_BLOCK_BYTES);
        block = malloc(sizeof *block + cap);
        if (!block)
            return NULL;
        block->next = arena->blocks;
        block->used = 0;
        block->cap = cap;
        arena->blocks = block;
    }
    void *p = block->bytes + block->used;
    block->used += bytes;
    return p;
}

void mfi_arena_free(mfi_arena *arena)
{
    while (arena->blocks) {
        mfi_arena_block *next = arena->blocks->next;
        free(arena->blocks);
        arena->blocks = next;
    }
}

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

/* Python's str.isspace(), which the regexes of jinja2 use too. */
static bool is_space(uint32_t cp)
{
    return mfi_unicode_is_space(cp) || (cp >= 0x1c && cp <= 0x1f);
}

static size_t space_len(const char *p, const char *end)
{
    uint32_t cp;
    size_t n = p < end ? mfi_utf8_decode(p, end, &cp) : 0;
    return n && is_space(cp) ? n : 0;
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
        if (!is_space(cp))
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
    *lexer = (mfi_lexer){.arena = arena, .p = copy, .end = copy + n, .line = 1,
                         .state = MFI_LEX_DATA, .line_starting = true, .err = err};
    return MF_OK;
}

static uint32_t count_lines(const char *p, const char *end)
{
    uint32_t n = 0;
    for (; p < end; p++)
        n += *p == '\n';
    return n;
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
    if (sign == '-') {
        skip_space(lexer);
    } else if (sign != '+' && lexer->p < lexer->end && *lexer->p == '\n') {
        lexer->p++;
        lexer->line++;
    }
    lexer->line_starting = lexer->p[-1] == '\n';
    return MF_OK;
}

/* In data: the text up to the next tag, or, if there is none, what opens the tag. Comments yield
 * nothing. */
static mf_status lex_data(mfi_lexer *lexer, mfi_lex_token *token)
{
    for (;;) {
        const char *begin = lexer->p, *tag = begin;
        while (tag < lexer->end &&
               !(*tag == '{' && lexer->end - tag >= 2 && memchr("{%#", tag[1], 3)))
            tag++;
        token->line = lexer->line;
        token->text = begin;
        token->type = MFI_TOK_DATA;
        if (tag == lexer->end) {
            token->len = (size_t)(tag - begin);
            token->type = token->len ? MFI_TOK_DATA : MFI_TOK_END;
            lexer->p = tag;
            return MF_OK;
        }
        char kind = tag[1];
        char sign = lexer->end - tag > 2 && memchr("-+", tag[2], 2) ? tag[2] : 0;
        const char *end = tag;
        if (sign == '-')
            end = strip_right(begin, tag);
        else if (sign != '+' && kind != '{')
            end = strip_line(begin, tag, lexer->line_starting);
        if (tag > begin) {
            lexer->line += count_lines(begin, tag);
            lexer->p = tag;
            /* Come back to the tag itself with nothing in front of it. The data decided already
             * what is stripped, so line_starting no longer matters for this tag. */
            if (end > begin) {
                token->len = (size_t)(end - begin);
                return MF_OK;
            }
            token->line = lexer->line;
        }
        lexer->p = tag + 2 + (sign ? 1 : 0);
        if (kind == '#') {
            MFI_TRY(skip_comment(lexer));
            continue;
        }
        lexer->line_starting = false;
        lexer->state = kind == '{' ? MFI_LEX_VAR : MFI_LEX_BLOCK;
        token->type = kind == '{' ? MFI_TOK_OPEN_VAR : MFI_TOK_OPEN_BLOCK;
        token->len = 0;
        return MF_OK;
    }
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

static bool is_name(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static mf_status lex_number(mfi_lexer *lexer, mfi_lex_token *token)
{
    const char *p = lexer->p;
    int64_t value = 0;
    while (p < lexer->end && is_digit(*p)) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, *p - '0', &value))
            return mfi_template_unsupported(lexer->err, lexer->line, "large integer", NULL, 0);
        p++;
    }
    size_t len = (size_t)(p - lexer->p);
    bool fraction = lexer->end - p > 1 && *p == '.' && is_digit(p[1]);
    if (fraction || (p < lexer->end && is_name(*p)) || (len > 1 && *lexer->p == '0'))
        return mfi_template_unsupported(lexer->err, lexer->line, "number", lexer->p, len + 1);
    token->type = MFI_TOK_INT;
    token->text = lexer->p;
    token->len = len;
    token->integer = value;
    lexer->p = p;
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
    return left >= n + 2 && p[n] == close && p[n + 1] == '}' ? n + 2 : 0;
}

static mf_status lex_tag(mfi_lexer *lexer, mfi_lex_token *token)
{
    static const char *const ops[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*",
                                      "%",  "~",  "[",  "]",  "(",  ")",  "{", "}", ">", "<",
                                      "=",  ".",  ":",  "|",  ",",  ";"};
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
        if (sign == '-') {
            skip_space(lexer);
        } else if (block && sign != '+' && lexer->p < lexer->end && *lexer->p == '\n') {
            lexer->p++;
            lexer->line++;
        }
        lexer->line_starting = lexer->p[-1] == '\n';
        lexer->state = MFI_LEX_DATA;
        return MF_OK;
    }
    char c = *lexer->p;
    if (c == '\'' || c == '"')
        return lex_string(lexer, token);
    if (is_digit(c))
        return lex_number(lexer, token);
    if (is_name(c)) {
        while (lexer->p < lexer->end && is_name(*lexer->p))
            lexer->p++;
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
            return MF_OK;
        }
    }
    uint32_t cp;
    return mfi_template_unsupported(lexer->err, lexer->line, "character", lexer->p,
                                    mfi_utf8_decode(lexer->p, lexer->end, &cp));
}

mf_status mfi_lexer_next(mfi_lexer *lexer, mfi_lex_token *token)
{
    *token = (mfi_lex_token){0};
    if (lexer->state == MFI_LEX_DATA)
        return lex_data(lexer, token);
    return lex_tag(lexer, token);
}
