/* Calls while they are written, in the notations that write arguments key by key: makes the JSON
 * that mfi_calls_read will make of the whole call, as far as it can't become another one any more;
 * see output_int.h. Called by output_live.c on its thread. As lenient as that is: where it gets
 * lost the call comes out whole or not at all. */
#include <string.h>

#include "text/output_int.h"

static mfi_live_act lost(mfi_live *l)
{
    l->at = MFI_LIVE_LOST;
    return MFI_LIVE_NOTHING;
}

/* ---- the name ---- */

/* The head is whole: without any pair it must be a call. */
static bool read_head(mfi_live *l, const char *head, size_t len, const char *tail)
{
    mfi_buf text = {0};
    mfi_call_list list = {0};
    mfi_buf_append(&text, head, len);
    mfi_buf_str(&text, tail ? tail : "");
    bool ok =
        !text.failed && mfi_calls_read(l->notation, text.data, text.len, &list) && list.n == 1;
    if (ok)
        mfi_buf_append(&l->name, list.calls[0].name.data, list.calls[0].name.len);
    mfi_call_list_free(&list);
    mfi_buf_free(&text);
    return ok;
}

static mfi_live_act head_byte(mfi_live *l, const mfi_pair_form *f, const char *block, size_t len)
{
    if (!mfi_live_ends(block, l->from, len, f->head_end))
        return MFI_LIVE_NOTHING;
    l->pair_from = len;
    if (*f->head_end == *f->open) /* it is a pair's first byte */
        l->pair_from -= strlen(f->head_end);
    if (!read_head(l, block + l->from, l->pair_from - l->from, f->tail))
        return lost(l);
    l->at = MFI_LIVE_PAIR_KEY;
    l->open = true;
    mfi_buf_str(&l->made, "{");
    l->n_args = 1;
    return MFI_LIVE_OPEN;
}

/* ---- pairs ---- */

static size_t skip_space(const char *block, size_t at, size_t len)
{
    while (at < len && memchr(" \t\r\n", block[at], 4))
        at++;
    return at;
}

static mfi_live_act key_byte(mfi_live *l, const mfi_pair_form *f, const char *block, size_t len)
{
    size_t n = strlen(f->open), key = skip_space(block, l->pair_from, len);
    l->pair_from = key;
    if (f->tail && mfi_live_ends(block, l->pair_from, len, f->tail)) {
        if (f->head) { /* which has several in its brackets */
            l->end = len;
            return MFI_LIVE_END;
        }
        l->at = MFI_LIVE_DONE;
        return MFI_LIVE_NOTHING;
    }
    if (len - key < n || !mfi_live_ends(block, key + n, len, f->after_key))
        return MFI_LIVE_NOTHING;
    if (memcmp(block + key, f->open, n) != 0 || len - key - n == strlen(f->after_key))
        return lost(l);
    mfi_buf_str(&l->made, l->made.len > 1 ? ", " : "");
    mfi_json_put_str(&l->made, block + key + n, len - key - n - strlen(f->after_key));
    mfi_buf_str(&l->made, ": ");
    l->at = *f->before_value || f->typed ? MFI_LIVE_PAIR_BEFORE_VALUE : MFI_LIVE_PAIR_VALUE;
    l->pair_from = l->value_from = len;
    l->string = false;
    l->type = MFI_PAIR_ANY;
    return MFI_LIVE_MADE;
}

/* Behind a key comes what the value is. */
static mfi_live_act type_byte(mfi_live *l, const char *block, size_t len)
{
    static const char *const types[] = {
        [MFI_PAIR_STRING] = MFI_PAIR_TYPE_STRING, [MFI_PAIR_JSON] = MFI_PAIR_TYPE_JSON};
    size_t n = len - l->pair_from;
    bool may_be = false;
    for (int type = MFI_PAIR_STRING; type <= MFI_PAIR_JSON; type++) {
        size_t whole = strlen(types[type]);
        if (n > whole || memcmp(block + l->pair_from, types[type], n) != 0)
            continue;
        may_be = true;
        if (n == whole)
            l->type = (mfi_pair_type)type;
    }
    if (!may_be)
        return lost(l);
    if (l->type == MFI_PAIR_ANY)
        return MFI_LIVE_NOTHING;
    l->at = MFI_LIVE_PAIR_VALUE;
    l->pair_from = l->value_from = len;
    l->string = l->type == MFI_PAIR_STRING;
    if (!l->string)
        return MFI_LIVE_NOTHING;
    mfi_buf_str(&l->made, "\"");
    return MFI_LIVE_MADE;
}

static mfi_live_act before_value_byte(mfi_live *l, const mfi_pair_form *f, const char *block,
                                      size_t len)
{
    size_t at = skip_space(block, l->pair_from, len), n = strlen(f->before_value);
    l->pair_from = at;
    if (memcmp(block + at, f->before_value, MFI_MIN(len - at, n)) != 0)
        return lost(l);
    if (len - at == n) {
        l->at = MFI_LIVE_PAIR_VALUE;
        l->pair_from = l->value_from = len;
    }
    return MFI_LIVE_NOTHING;
}

/* How many bytes at the end may yet belong to what ends the value. */
static size_t held_back(const mfi_pair_form *f, const char *text, size_t len)
{
    size_t n = strlen(f->close);
    for (size_t k = MFI_MIN(n - 1, len); k > 0; k--)
        if (memcmp(text + len - k, f->close, k) == 0)
            return k + (f->newlines && len > k && text[len - k - 1] == '\n');
    return f->newlines && len && text[len - 1] == '\n';
}

/* Whether no JSON but a string can begin with these bytes; see mfi_pair_put_value. */
static bool must_be_string(const char *text, size_t len)
{
    static const char *const words[] = {"true", "false", "null"};
    if (!len || memchr("{[", *text, 2))
        return false;
    for (size_t i = 0; i < MFI_ARRAY_LEN(words); i++)
        if (len <= strlen(words[i]) && memcmp(text, words[i], len) == 0)
            return false;
    if (!memchr("-0123456789", *text, 11))
        return true;
    for (size_t i = 0; i < len; i++)
        if (!memchr("-+.eE0123456789", text[i], 15))
            return true;
    return false;
}

/* Appends a string's inside. */
static void put_inside(mfi_buf *out, const char *text, size_t len)
{
    mfi_buf quoted = {0};
    mfi_json_put_str(&quoted, text, len);
    if (!quoted.failed)
        mfi_buf_append(out, quoted.data + 1, quoted.len - 2);
    out->failed |= quoted.failed;
    mfi_buf_free(&quoted);
}

static mfi_live_act end_value(mfi_live *l, const mfi_pair_form *f, const char *block, size_t len)
{
    size_t from = l->value_from, end = len - strlen(f->close);
    if (f->newlines && end > from && block[end - 1] == '\n')
        end--;
    if (l->string) {
        put_inside(&l->made, block + from, end - from);
        mfi_buf_str(&l->made, "\"");
    } else {
        mfi_pair_put_value(&l->made, l->type, block + from, end - from);
    }
    l->at = MFI_LIVE_PAIR_KEY;
    l->pair_from = len;
    return MFI_LIVE_MADE;
}

static mfi_live_act value_byte(mfi_live *l, const mfi_pair_form *f, const char *block, size_t len)
{
    if (f->newlines && len - l->pair_from == 1 && block[len - 1] == '\n')
        l->value_from = len;
    if (mfi_live_ends(block, l->pair_from, len, f->close))
        return end_value(l, f, block, len);
    const char *text = block + l->value_from;
    size_t n = len - l->value_from, sure = n - held_back(f, text, n);
    if (!l->string && l->type == MFI_PAIR_ANY && must_be_string(text, sure)) {
        l->string = true;
        mfi_buf_str(&l->made, "\"");
    }
    if (!l->string || !sure)
        return MFI_LIVE_NOTHING;
    put_inside(&l->made, text, sure);
    l->value_from += sure;
    return MFI_LIVE_MADE;
}

mfi_live_act mfi_live_pair_byte(mfi_live *l, const char *block, size_t len)
{
    const mfi_pair_form *f = mfi_pair_form_of(l->notation);
    switch (l->at) {
    case MFI_LIVE_PAIR_HEAD:
        return head_byte(l, f, block, len);
    case MFI_LIVE_PAIR_KEY:
        return key_byte(l, f, block, len);
    case MFI_LIVE_PAIR_BEFORE_VALUE:
        return f->typed ? type_byte(l, block, len) : before_value_byte(l, f, block, len);
    default:
        return value_byte(l, f, block, len);
    }
}
