/* Strings of the template language, and the memory of a rendering.
 *
 * A string is immutable and says of each byte whether it is the template's own or foreign; the
 * marks are only stored where both occur. Texts grow in the arena, too: nothing has to be released
 * on the way out. Called by the evaluator and by everything that makes strings for it. */
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
        if (arena->max_bytes && cap > arena->max_bytes - arena->bytes) {
            arena->bytes = arena->max_bytes; /* told by mfi_tpl_no_memory */
            return NULL;
        }
        block = malloc(sizeof *block + cap);
        if (!block)
            return NULL;
        block->next = arena->blocks;
        block->used = 0;
        block->cap = cap;
        arena->blocks = block;
        arena->bytes += cap;
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

/* ---- making strings ---- */

static size_t count_chars(const char *bytes, size_t n)
{
    size_t chars = 0;
    for (size_t i = 0; i < n; i++)
        chars += ((unsigned char)bytes[i] & 0xc0) != 0x80;
    return chars;
}

static mfi_str *alloc_str(mfi_arena *arena, size_t n)
{
    mfi_str *str = n < SIZE_MAX / 2 ? mfi_arena_alloc(arena, sizeof *str + n + 1) : NULL;
    if (str) {
        *str = (mfi_str){.n = n};
        str->data[n] = 0;
    }
    return str;
}

mfi_str *mfi_str_new(mfi_arena *arena, const char *bytes, size_t n, bool foreign)
{
    mfi_str *str = alloc_str(arena, n);
    if (!str)
        return NULL;
    if (n)
        memcpy(str->data, bytes, n);
    str->foreign = foreign;
    str->n_chars = count_chars(bytes, n);
    return str;
}

mf_status mfi_str_sub(mfi_tpl *t, const mfi_str *str, size_t from, size_t to, mfi_value *out)
{
    if (from >= to)
        return mfi_own_string(t, "", 0, out);
    if (from == 0 && to == str->n) {
        *out = mfi_string(str, false);
        return MF_OK;
    }
    mfi_str *sub = mfi_str_new(&t->arena, str->data + from, to - from, str->foreign);
    if (!sub)
        return mfi_tpl_no_memory(t);
    if (str->marks)
        sub->marks = str->marks + from; /* lives as long */
    *out = mfi_string(sub, false);
    return mfi_tpl_charge(t, (to - from) / 64);
}

/* ---- growing texts ---- */

mfi_text mfi_text_begin(mfi_tpl *t)
{
    return (mfi_text){.t = t};
}

/* Room for n more bytes. */
static bool grow(mfi_text *text, size_t n)
{
    if (text->no_memory || text->too_long)
        return false;
    if (n > MFI_MAX_TEMPLATE_OUT_BYTES || text->n + n > MFI_MAX_TEMPLATE_OUT_BYTES) {
        text->too_long = true;
        return false;
    }
    if (text->n + n <= text->cap)
        return true;
    size_t cap = MFI_MAX(MFI_MAX(2 * text->cap, text->n + n), (size_t)64);
    char *data = mfi_arena_alloc(&text->t->arena, cap);
    unsigned char *marks = mfi_arena_alloc(&text->t->arena, cap);
    if (!data || !marks) {
        text->no_memory = true;
        return false;
    }
    if (text->n) {
        memcpy(data, text->data, text->n);
        memcpy(marks, text->marks, text->n);
    }
    text->data = data;
    text->marks = marks;
    text->cap = cap;
    return true;
}

void mfi_text_put(mfi_text *text, const char *bytes, size_t n, bool foreign)
{
    if (!n || !grow(text, n))
        return;
    memcpy(text->data + text->n, bytes, n);
    memset(text->marks + text->n, foreign, n);
    text->n += n;
    text->some_foreign |= foreign;
    text->some_own |= !foreign;
}

void mfi_text_own(mfi_text *text, const char *str)
{
    mfi_text_put(text, str, strlen(str), false);
}

void mfi_text_slice(mfi_text *text, const mfi_str *str, size_t from, size_t to)
{
    if (from >= to)
        return;
    if (!str->marks) {
        mfi_text_put(text, str->data + from, to - from, str->foreign);
        return;
    }
    size_t at = text->n;
    mfi_text_put(text, str->data + from, to - from, true);
    if (text->n > at)
        memcpy(text->marks + at, str->marks + from, to - from);
    text->some_own = true; /* perhaps: the marks tell */
}

void mfi_text_str(mfi_text *text, const mfi_str *str)
{
    mfi_text_slice(text, str, 0, str->n);
}

void mfi_text_fill(mfi_text *text, const mfi_str *unit, size_t times)
{
    if (unit->n && times > MFI_MAX_TEMPLATE_OUT_BYTES / unit->n)
        text->too_long = true;
    for (size_t i = 0; unit->n && i < times && !text->too_long && !text->no_memory; i++)
        mfi_text_str(text, unit);
}

mf_status mfi_text_check(const mfi_text *text)
{
    const mfi_tpl *t = text->t;
    if (text->no_memory)
        return mfi_tpl_no_memory(t);
    if (text->too_long)
        return mfi_fail(t->err, MF_ERR_LIMIT, "chat template line %u: too much text", t->line);
    return MF_OK;
}

mf_status mfi_text_done(mfi_text *text, mfi_value *out)
{
    MFI_TRY(mfi_text_check(text));
    mfi_str *str = mfi_str_new(&text->t->arena, text->data, text->n, text->some_foreign);
    if (!str)
        return mfi_tpl_no_memory(text->t);
    if (text->some_foreign && text->some_own)
        str->marks = text->marks; /* the text is done and doesn't write there any more */
    *out = mfi_string(str, false);
    return mfi_tpl_charge(text->t, text->n / 64);
}

/* ---- looking into strings ---- */

size_t mfi_str_offset(const mfi_str *str, size_t char_index)
{
    if (char_index >= str->n_chars)
        return str->n;
    if (str->n == str->n_chars)
        return char_index;
    size_t at = 0;
    while (at < str->n) {
        if (((unsigned char)str->data[at] & 0xc0) != 0x80 && char_index-- == 0)
            return at;
        at++;
    }
    return at;
}

size_t mfi_str_index(const mfi_str *str, size_t offset)
{
    return str->n == str->n_chars ? offset : count_chars(str->data, offset);
}

bool mfi_str_is(const mfi_str *str, const char *text)
{
    return strlen(text) == str->n && memcmp(str->data, text, str->n) == 0;
}

bool mfi_str_same(const mfi_str *a, const mfi_str *b)
{
    return a == b || (a->n == b->n && memcmp(a->data, b->data, a->n) == 0);
}

size_t mfi_str_find(const mfi_str *str, const mfi_str *what, size_t from, size_t to)
{
    if (from > to || to - from < what->n)
        return SIZE_MAX;
    const char *at = memmem(str->data + from, to - from, what->data, what->n);
    return at ? (size_t)(at - str->data) : SIZE_MAX;
}

size_t mfi_str_rfind(const mfi_str *str, const mfi_str *what, size_t from, size_t to)
{
    if (from > to || to - from < what->n)
        return SIZE_MAX;
    for (size_t at = to - what->n + 1; at-- > from;)
        if (memcmp(str->data + at, what->data, what->n) == 0)
            return at;
    return SIZE_MAX;
}

bool mfi_str_foreign(const mfi_str *str, size_t from, size_t to)
{
    if (!str->marks)
        return str->foreign;
    return memchr(str->marks + from, 1, to - from) != NULL;
}

bool mfi_space(uint32_t cp)
{
    return mfi_unicode_is_space(cp) || (cp >= 0x1c && cp <= 0x1f);
}

static bool in_set(uint32_t cp, const mfi_str *chars)
{
    if (!chars)
        return mfi_space(cp);
    char bytes[4];
    size_t n = mfi_utf8_encode(cp, bytes);
    return memmem(chars->data, chars->n, bytes, n) != NULL;
}

void mfi_str_strip(const mfi_str *str, const mfi_str *chars, bool left, bool right, size_t *from,
                   size_t *to)
{
    const char *p = str->data, *end = str->data + str->n;
    uint32_t cp;
    size_t n;
    while (left && p < end && (n = mfi_utf8_decode(p, end, &cp)) && in_set(cp, chars))
        p += n;
    while (right && p < end && (n = mfi_utf8_decode_before(p, end, &cp)) && in_set(cp, chars))
        end -= n;
    *from = (size_t)(p - str->data);
    *to = (size_t)(end - str->data);
}

/* ---- markup ---- */

void mfi_text_escaped(mfi_text *text, const mfi_str *str)
{
    static const struct {
        char c;
        const char *text;
    } escapes[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'\'', "&#39;"}, {'"', "&#34;"}};
    size_t done = 0;
    for (size_t i = 0; i < str->n; i++) {
        for (size_t k = 0; k < MFI_ARRAY_LEN(escapes); k++) {
            if (str->data[i] != escapes[k].c)
                continue;
            mfi_text_slice(text, str, done, i);
            mfi_text_put(text, escapes[k].text, strlen(escapes[k].text),
                         mfi_str_foreign(str, i, i + 1));
            done = i + 1;
        }
    }
    mfi_text_slice(text, str, done, str->n);
}

mf_status mfi_str_escape(mfi_tpl *t, const mfi_value *v, mfi_value *out)
{
    mfi_value str;
    MFI_TRY(mfi_to_string(t, v, &str));
    *out = str;
    if (!str.markup) {
        mfi_text text = mfi_text_begin(t);
        mfi_text_escaped(&text, str.str);
        MFI_TRY(mfi_text_done(&text, out));
    }
    out->markup = true;
    return MF_OK;
}
