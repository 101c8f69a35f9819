/* Methods of strings in templates, after Python's str. Positions count code points; what comes out
 * keeps where its bytes came from. Called through the table at the end. */
#include "text/template_methods.h"
#include "text/unicode.h"

#include <string.h>

#define METHOD(name)                                                                               \
    static mf_status str_##name(mfi_tpl *t, const mfi_value *self, const mfi_args *args,           \
                                mfi_value *out)

/* A part of self, with its markup. */
static mf_status part(mfi_tpl *t, const mfi_value *self, size_t from, size_t to, mfi_value *out)
{
    MFI_TRY(mfi_str_sub(t, self->str, from, to, out));
    out->markup = self->markup;
    return MF_OK;
}

static mf_status push_part(mfi_tpl *t, const mfi_value *self, size_t from, size_t to,
                           mfi_value *list)
{
    mfi_value v;
    MFI_TRY(part(t, self, from, to, &v));
    return mfi_list_push(t, list->list, &v);
}

/* ---- stripping ---- */

static mf_status strip(mfi_tpl *t, const mfi_value *self, const mfi_args *args, bool left,
                       bool right, mfi_value *out)
{
    mfi_value arg[1];
    const mfi_str *chars = NULL;
    size_t from, to;
    MFI_TRY(mfi_bind(t, "strip", args, "chars", 0, arg));
    if (arg[0].type != MFI_V_ABSENT && arg[0].type != MFI_V_NONE)
        MFI_TRY(mfi_arg_str(t, "strip", &arg[0], &chars));
    mfi_str_strip(self->str, chars, left, right, &from, &to);
    return part(t, self, from, to, out);
}

METHOD(strip)
{
    return strip(t, self, args, true, true, out);
}

METHOD(lstrip)
{
    return strip(t, self, args, true, false, out);
}

METHOD(rstrip)
{
    return strip(t, self, args, false, true, out);
}

static mf_status remove_end(mfi_tpl *t, const mfi_value *self, const mfi_args *args, bool front,
                            mfi_value *out)
{
    mfi_value arg[1];
    const mfi_str *str = self->str, *end;
    MFI_TRY(mfi_bind(t, "removeprefix", args, "affix", 1, arg));
    MFI_TRY(mfi_arg_str(t, "removeprefix", &arg[0], &end));
    size_t rest = str->n - MFI_MIN(end->n, str->n);
    if (end->n > str->n || memcmp(str->data + (front ? 0 : rest), end->data, end->n) != 0)
        return part(t, self, 0, str->n, out);
    return front ? part(t, self, end->n, str->n, out) : part(t, self, 0, rest, out);
}

METHOD(removeprefix)
{
    return remove_end(t, self, args, true, out);
}

METHOD(removesuffix)
{
    return remove_end(t, self, args, false, out);
}

/* ---- splitting ---- */

/* At white space, from the left; n: the most cuts. */
static mf_status split_space(mfi_tpl *t, const mfi_value *self, int64_t n, mfi_value *out)
{
    const mfi_str *str = self->str;
    size_t at = 0, len, end;
    uint32_t cp;
    for (;;) {
        while (at < str->n && (len = mfi_utf8_decode(str->data + at, str->data + str->n, &cp)) &&
               mfi_space(cp))
            at += len;
        if (at == str->n)
            return MF_OK;
        if (n >= 0 && (int64_t)out->list->n == n)
            return push_part(t, self, at, str->n, out);
        for (end = at; end < str->n; end += len) {
            len = mfi_utf8_decode(str->data + end, str->data + str->n, &cp);
            if (!len || mfi_space(cp))
                break;
        }
        MFI_TRY(push_part(t, self, at, end, out));
        at = end;
    }
}

static mf_status split_at(mfi_tpl *t, const mfi_value *self, const mfi_str *sep, int64_t n,
                          mfi_value *out)
{
    const mfi_str *str = self->str;
    size_t at = 0;
    while (n < 0 || (int64_t)out->list->n < n) {
        size_t next = mfi_str_find(str, sep, at, str->n);
        if (next == SIZE_MAX)
            break;
        MFI_TRY(push_part(t, self, at, next, out));
        at = next + sep->n;
    }
    return push_part(t, self, at, str->n, out);
}

/* From the right: the parts come backwards. */
static mf_status rsplit_space(mfi_tpl *t, const mfi_value *self, int64_t n, mfi_value *out)
{
    const mfi_str *str = self->str;
    size_t end = str->n, begin, len = 0;
    uint32_t cp;
    for (;;) {
        while (end && (len = mfi_utf8_decode_before(str->data, str->data + end, &cp)) &&
               mfi_space(cp))
            end -= len;
        if (!end)
            return MF_OK;
        if (n >= 0 && (int64_t)out->list->n == n)
            return push_part(t, self, 0, end, out);
        for (begin = end; begin; begin -= len) {
            len = mfi_utf8_decode_before(str->data, str->data + begin, &cp);
            if (mfi_space(cp))
                break;
        }
        MFI_TRY(push_part(t, self, begin, end, out));
        end = begin;
    }
}

static mf_status rsplit_at(mfi_tpl *t, const mfi_value *self, const mfi_str *sep, int64_t n,
                           mfi_value *out)
{
    const mfi_str *str = self->str;
    size_t end = str->n;
    while (n < 0 || (int64_t)out->list->n < n) {
        size_t at = mfi_str_rfind(str, sep, 0, end);
        if (at == SIZE_MAX)
            break;
        MFI_TRY(push_part(t, self, at + sep->n, end, out));
        end = at;
    }
    return push_part(t, self, 0, end, out);
}

static void turn_round(mfi_list *list)
{
    for (size_t i = 0; i < list->n / 2; i++) {
        mfi_value v = list->items[i];
        list->items[i] = list->items[list->n - 1 - i];
        list->items[list->n - 1 - i] = v;
    }
}

static mf_status split(mfi_tpl *t, const mfi_value *self, const mfi_args *args, bool right,
                       mfi_value *out)
{
    mfi_value arg[2];
    const mfi_str *sep = NULL;
    int64_t n;
    MFI_TRY(mfi_bind(t, "split", args, "sep maxsplit", 0, arg));
    if (arg[0].type != MFI_V_ABSENT && arg[0].type != MFI_V_NONE)
        MFI_TRY(mfi_arg_str(t, "split", &arg[0], &sep));
    MFI_TRY(mfi_arg_int(t, "split", &arg[1], -1, &n));
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, 0, out));
    if (sep && !sep->n)
        return mfi_tpl_fail(t, "split: the separator is empty");
    if (!right)
        return sep ? split_at(t, self, sep, n, out) : split_space(t, self, n, out);
    MFI_TRY(sep ? rsplit_at(t, self, sep, n, out) : rsplit_space(t, self, n, out));
    turn_round(out->list);
    return MF_OK;
}

METHOD(split)
{
    return split(t, self, args, false, out);
}

METHOD(rsplit)
{
    return split(t, self, args, true, out);
}

/* The length of a line's end at p, or 0. */
static size_t line_end(const char *p, const char *end)
{
    uint32_t cp;
    size_t n = mfi_utf8_decode(p, end, &cp);
    if (cp == '\r' && end - p > 1 && p[1] == '\n')
        return 2;
    bool is_end = (cp >= '\n' && cp <= '\r') || (cp >= 0x1c && cp <= 0x1e) || cp == 0x85 ||
                  cp == 0x2028 || cp == 0x2029;
    return is_end ? n : 0;
}

mf_status mfi_str_lines(mfi_tpl *t, const mfi_str *str, bool keep_ends, mfi_value *out)
{
    const mfi_value self = mfi_string(str, false);
    size_t begin = 0, n;
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, 0, out));
    for (size_t at = 0; at < str->n;) {
        n = line_end(str->data + at, str->data + str->n);
        if (!n) {
            at++;
            while (at < str->n && ((unsigned char)str->data[at] & 0xc0) == 0x80)
                at++;
            continue;
        }
        MFI_TRY(push_part(t, &self, begin, keep_ends ? at + n : at, out));
        begin = at += n;
    }
    return begin < str->n ? push_part(t, &self, begin, str->n, out) : MF_OK;
}

METHOD(splitlines)
{
    mfi_value arg[1];
    MFI_TRY(mfi_bind(t, "splitlines", args, "keepends", 0, arg));
    MFI_TRY(mfi_str_lines(t, self->str, mfi_truth(&arg[0]), out));
    for (size_t i = 0; i < out->list->n; i++)
        out->list->items[i].markup = self->markup;
    return MF_OK;
}

static mf_status partition(mfi_tpl *t, const mfi_value *self, const mfi_args *args, bool right,
                           mfi_value *out)
{
    mfi_value arg[1];
    const mfi_str *sep, *str = self->str;
    MFI_TRY(mfi_bind(t, "partition", args, "sep", 1, arg));
    MFI_TRY(mfi_arg_str(t, "partition", &arg[0], &sep));
    if (!sep->n)
        return mfi_tpl_fail(t, "partition: the separator is empty");
    size_t at = right ? mfi_str_rfind(str, sep, 0, str->n) : mfi_str_find(str, sep, 0, str->n);
    size_t cuts[4] = {0, at, at + sep->n, str->n};
    if (at == SIZE_MAX)
        cuts[1] = cuts[2] = right ? 0 : str->n;
    MFI_TRY(mfi_list_new(t, MFI_V_TUPLE, 3, out));
    for (int i = 0; i < 3; i++)
        MFI_TRY(push_part(t, self, cuts[i], cuts[i + 1], out));
    return MF_OK;
}

METHOD(partition)
{
    return partition(t, self, args, false, out);
}

METHOD(rpartition)
{
    return partition(t, self, args, true, out);
}

/* ---- searching ---- */

/* A bound in code points as an offset. */
static mf_status offset_arg(mfi_tpl *t, const mfi_str *str, const mfi_value *v, size_t absent,
                            size_t *out)
{
    int64_t i, n = (int64_t)str->n_chars;
    *out = absent;
    if (v->type == MFI_V_ABSENT || v->type == MFI_V_NONE)
        return MF_OK;
    MFI_TRY(mfi_arg_int(t, "a string's bound", v, 0, &i));
    i = i < -n ? 0 : i < 0 ? i + n : i;
    *out = i > n ? str->n + 1 : mfi_str_offset(str, (size_t)i);
    return MF_OK;
}

typedef struct range {
    const mfi_str *what;
    size_t from, to;
} range;

static mf_status find_args(mfi_tpl *t, const mfi_value *self, const mfi_args *args, range *r)
{
    mfi_value arg[3];
    MFI_TRY(mfi_bind(t, "find", args, "sub start end", 1, arg));
    MFI_TRY(mfi_arg_str(t, "find", &arg[0], &r->what));
    MFI_TRY(offset_arg(t, self->str, &arg[1], 0, &r->from));
    MFI_TRY(offset_arg(t, self->str, &arg[2], self->str->n, &r->to));
    r->to = MFI_MIN(r->to, self->str->n);
    return MF_OK;
}

static mf_status find(mfi_tpl *t, const mfi_value *self, const mfi_args *args, bool right,
                      bool needed, mfi_value *out)
{
    range r;
    MFI_TRY(find_args(t, self, args, &r));
    size_t at = right ? mfi_str_rfind(self->str, r.what, r.from, r.to)
                      : mfi_str_find(self->str, r.what, r.from, r.to);
    if (at == SIZE_MAX && needed)
        return mfi_tpl_fail(t, "index: the substring isn't there");
    *out = mfi_int(at == SIZE_MAX ? -1 : (int64_t)mfi_str_index(self->str, at));
    return mfi_tpl_charge(t, self->str->n / 64);
}

METHOD(find)
{
    return find(t, self, args, false, false, out);
}

METHOD(rfind)
{
    return find(t, self, args, true, false, out);
}

METHOD(index)
{
    return find(t, self, args, false, true, out);
}

METHOD(rindex)
{
    return find(t, self, args, true, true, out);
}

METHOD(count)
{
    range r;
    int64_t n = 0;
    MFI_TRY(find_args(t, self, args, &r));
    if (!r.what->n) {
        if (r.from <= r.to)
            n = (int64_t)(mfi_str_index(self->str, r.to) - mfi_str_index(self->str, r.from)) + 1;
    } else {
        for (size_t at; (at = mfi_str_find(self->str, r.what, r.from, r.to)) != SIZE_MAX; n++)
            r.from = at + r.what->n;
    }
    *out = mfi_int(n);
    return mfi_tpl_charge(t, self->str->n / 64);
}

static mf_status has_affix(mfi_tpl *t, const mfi_value *self, const mfi_args *args, bool front,
                           mfi_value *out)
{
    mfi_value arg[3];
    size_t from, to;
    MFI_TRY(mfi_bind(t, "startswith", args, "affix start end", 1, arg));
    MFI_TRY(offset_arg(t, self->str, &arg[1], 0, &from));
    MFI_TRY(offset_arg(t, self->str, &arg[2], self->str->n, &to));
    to = MFI_MIN(to, self->str->n);
    const mfi_value *list = &arg[0];
    size_t n = 1;
    if (arg[0].type == MFI_V_TUPLE) {
        list = arg[0].list->items;
        n = arg[0].list->n;
    }
    *out = mfi_bool(false);
    for (size_t i = 0; i < n; i++) {
        const mfi_str *affix;
        MFI_TRY(mfi_arg_str(t, "startswith", &list[i], &affix));
        if (from <= to && affix->n <= to - from &&
            memcmp(self->str->data + (front ? from : to - affix->n), affix->data, affix->n) == 0)
            *out = mfi_bool(true);
    }
    return MF_OK;
}

METHOD(startswith)
{
    return has_affix(t, self, args, true, out);
}

METHOD(endswith)
{
    return has_affix(t, self, args, false, out);
}

/* ---- replacing, joining, padding ---- */

/* Between all characters, too. */
static mf_status replace_empty(mfi_text *text, const mfi_str *str, const mfi_str *to, int64_t count,
                               mfi_value *out)
{
    size_t at = 0;
    for (; count && at < str->n && !text->too_long && !text->no_memory; count--) {
        size_t next = at + 1;
        while (next < str->n && ((unsigned char)str->data[next] & 0xc0) == 0x80)
            next++;
        mfi_text_str(text, to);
        mfi_text_slice(text, str, at, next);
        at = next;
    }
    mfi_text_slice(text, str, at, str->n);
    if (count && at == str->n)
        mfi_text_str(text, to);
    return mfi_text_done(text, out);
}

mf_status mfi_str_replace(mfi_tpl *t, const mfi_str *str, const mfi_str *from, const mfi_str *to,
                          int64_t count, mfi_value *out)
{
    mfi_text text = mfi_text_begin(t);
    size_t at = 0, next;
    if (!from->n)
        return replace_empty(&text, str, to, count, out);
    for (; count && (next = mfi_str_find(str, from, at, str->n)) != SIZE_MAX; count--) {
        if (text.too_long || text.no_memory)
            break;
        mfi_text_slice(&text, str, at, next);
        mfi_text_str(&text, to);
        at = next + from->n;
    }
    if (!at && !text.n)
        return mfi_str_sub(t, str, 0, str->n, out);
    mfi_text_slice(&text, str, at, str->n);
    return mfi_text_done(&text, out);
}

METHOD(replace)
{
    mfi_value arg[3];
    const mfi_str *from, *to;
    int64_t count;
    MFI_TRY(mfi_bind(t, "replace", args, "old new count", 2, arg));
    MFI_TRY(mfi_arg_str(t, "replace", &arg[0], &from));
    MFI_TRY(mfi_arg_str(t, "replace", &arg[1], &to));
    MFI_TRY(mfi_arg_int(t, "replace", &arg[2], -1, &count));
    if (self->markup) {
        MFI_TRY(mfi_str_escape(t, &arg[1], &arg[1]));
        to = arg[1].str;
    }
    MFI_TRY(mfi_str_replace(t, self->str, from, to, count, out));
    out->markup = self->markup;
    return MF_OK;
}

METHOD(join)
{
    mfi_value arg[1];
    mfi_list *list;
    mfi_text text = mfi_text_begin(t);
    MFI_TRY(mfi_bind(t, "join", args, "iterable", 1, arg));
    MFI_TRY(mfi_iterate(t, &arg[0], &list));
    for (size_t i = 0; i < list->n; i++) {
        mfi_value item = list->items[i];
        const mfi_str *str;
        if (self->markup)
            MFI_TRY(mfi_str_escape(t, &item, &item));
        MFI_TRY(mfi_arg_str(t, "join", &item, &str));
        if (i)
            mfi_text_str(&text, self->str);
        mfi_text_str(&text, str);
    }
    MFI_TRY(mfi_text_done(&text, out));
    out->markup = self->markup;
    return MF_OK;
}

mf_status mfi_str_center(mfi_tpl *t, const mfi_str *str, int64_t width, const mfi_str *fill,
                         int side, mfi_value *out)
{
    int64_t room = width - (int64_t)str->n_chars;
    mfi_value blank;
    if (width <= 0 || room <= 0)
        return mfi_str_sub(t, str, 0, str->n, out);
    if (!fill) {
        MFI_TRY(mfi_own_string(t, " ", 1, &blank));
        fill = blank.str;
    }
    if (fill->n_chars != 1)
        return mfi_tpl_fail(t, "the fill character is %zu characters", fill->n_chars);
    mfi_text text = mfi_text_begin(t);
    /* Python puts the odd one to the left where the width is odd, too. */
    int64_t left = side < 0 ? 0 : side > 0 ? room : room / 2 + (room & width & 1);
    mfi_text_fill(&text, fill, (size_t)left);
    mfi_text_str(&text, str);
    mfi_text_fill(&text, fill, (size_t)(room - left));
    return mfi_text_done(&text, out);
}

static mf_status pad(mfi_tpl *t, const mfi_value *self, const mfi_args *args, int side,
                     mfi_value *out)
{
    mfi_value arg[2];
    const mfi_str *fill = NULL;
    int64_t width;
    MFI_TRY(mfi_bind(t, "center", args, "width fillchar", 1, arg));
    MFI_TRY(mfi_arg_int(t, "center", &arg[0], 0, &width));
    if (arg[1].type != MFI_V_ABSENT)
        MFI_TRY(mfi_arg_str(t, "center", &arg[1], &fill));
    MFI_TRY(mfi_str_center(t, self->str, width, fill, side, out));
    out->markup = self->markup;
    return MF_OK;
}

METHOD(center)
{
    return pad(t, self, args, 0, out);
}

METHOD(ljust)
{
    return pad(t, self, args, -1, out);
}

METHOD(rjust)
{
    return pad(t, self, args, 1, out);
}

METHOD(zfill)
{
    mfi_value arg[1], zero;
    int64_t width;
    const mfi_str *str = self->str;
    MFI_TRY(mfi_bind(t, "zfill", args, "width", 1, arg));
    MFI_TRY(mfi_arg_int(t, "zfill", &arg[0], 0, &width));
    MFI_TRY(mfi_own_string(t, "0", 1, &zero));
    size_t sign = str->n && strchr("+-", str->data[0]) && str->data[0] ? 1 : 0;
    int64_t room = width > 0 ? width - (int64_t)str->n_chars : 0;
    mfi_text text = mfi_text_begin(t);
    mfi_text_slice(&text, str, 0, sign);
    mfi_text_fill(&text, zero.str, room > 0 ? (size_t)room : 0);
    mfi_text_slice(&text, str, sign, str->n);
    MFI_TRY(mfi_text_done(&text, out));
    out->markup = self->markup;
    return MF_OK;
}

METHOD(format)
{
    return mfi_format_braces(t, self, args, out);
}

/* ---- case ---- */

static mf_status change_case(mfi_tpl *t, const mfi_value *self, const mfi_args *args, mfi_case how,
                             mfi_value *out)
{
    mfi_text text = mfi_text_begin(t);
    MFI_TRY(mfi_bind(t, "a method for case", args, "", 0, NULL));
    mfi_text_cased(&text, self->str, how);
    MFI_TRY(mfi_text_done(&text, out));
    out->markup = self->markup;
    return MF_OK;
}

#define CASED(name, how)                                                                           \
    METHOD(name)                                                                                   \
    {                                                                                              \
        return change_case(t, self, args, how, out);                                               \
    }
CASED(lower, MFI_CASE_LOWER)
CASED(upper, MFI_CASE_UPPER)
CASED(title, MFI_CASE_TITLE)
CASED(capitalize, MFI_CASE_CAPITALIZE)
CASED(swapcase, MFI_CASE_SWAP)

/* ---- properties of all characters ---- */

static bool in_categories(uint32_t cp, uint32_t mask)
{
    return mask >> mfi_unicode_category(cp) & 1;
}

#define LETTERS                                                                                    \
    (1u << MFI_CAT_LU | 1u << MFI_CAT_LL | 1u << MFI_CAT_LT | 1u << MFI_CAT_LM | 1u << MFI_CAT_LO)

static bool is_alpha(uint32_t cp)
{
    return in_categories(cp, LETTERS);
}

static bool is_digit(uint32_t cp) /* decimal ones, and superscripts */
{
    return in_categories(cp, 1u << MFI_CAT_ND) || cp == 0xb2 || cp == 0xb3 || cp == 0xb9;
}

static bool is_decimal(uint32_t cp)
{
    return in_categories(cp, 1u << MFI_CAT_ND);
}

static bool is_numeric(uint32_t cp)
{
    return in_categories(cp, 1u << MFI_CAT_ND | 1u << MFI_CAT_NL | 1u << MFI_CAT_NO);
}

static bool is_alnum(uint32_t cp)
{
    return is_alpha(cp) || is_numeric(cp);
}

static bool is_ascii(uint32_t cp)
{
    return cp < 0x80;
}

static mf_status all_are(mfi_tpl *t, const mfi_value *self, const mfi_args *args,
                         bool (*is)(uint32_t), bool empty, mfi_value *out)
{
    const mfi_str *str = self->str;
    size_t n;
    uint32_t cp;
    MFI_TRY(mfi_bind(t, "a method for characters", args, "", 0, NULL));
    *out = mfi_bool(str->n ? true : empty);
    for (size_t at = 0; at < str->n && out->boolean; at += n) {
        n = mfi_utf8_decode(str->data + at, str->data + str->n, &cp);
        out->boolean = n && is(cp);
    }
    return mfi_tpl_charge(t, str->n / 64);
}

#define PROPERTY(name, is, empty)                                                                  \
    METHOD(name)                                                                                   \
    {                                                                                              \
        return all_are(t, self, args, is, empty, out);                                             \
    }

PROPERTY(isalpha, is_alpha, false)
PROPERTY(isdigit, is_digit, false)
PROPERTY(isdecimal, is_decimal, false)
PROPERTY(isnumeric, is_numeric, false)
PROPERTY(isalnum, is_alnum, false)
PROPERTY(isascii, is_ascii, true)
PROPERTY(isspace, mfi_space, false)

/* At least one cased character, and none of the other case. */
static mf_status cased_as(mfi_tpl *t, const mfi_value *self, const mfi_args *args,
                          bool (*is)(uint32_t), mfi_value *out)
{
    const mfi_str *str = self->str;
    size_t n;
    uint32_t cp;
    bool any = false, other = false;
    MFI_TRY(mfi_bind(t, "a method for case", args, "", 0, NULL));
    for (size_t at = 0; at < str->n; at += n) {
        n = mfi_utf8_decode(str->data + at, str->data + str->n, &cp);
        if (!n)
            break;
        any |= is(cp);
        other |= !is(cp) && mfi_is_cased(cp);
    }
    *out = mfi_bool(any && !other);
    return mfi_tpl_charge(t, str->n / 64);
}

METHOD(islower)
{
    return cased_as(t, self, args, mfi_is_lower, out);
}

METHOD(isupper)
{
    return cased_as(t, self, args, mfi_is_upper, out);
}

METHOD(istitle)
{
    mfi_value titled;
    bool any = false;
    const mfi_str *str = self->str;
    MFI_TRY(change_case(t, self, args, MFI_CASE_TITLE, &titled));
    for (size_t at = 0, n; at < str->n; at += n) {
        uint32_t cp;
        n = mfi_utf8_decode(str->data + at, str->data + str->n, &cp);
        if (!n)
            break;
        any |= mfi_is_cased(cp);
    }
    *out = mfi_bool(any && mfi_str_same(str, titled.str));
    return MF_OK;
}

const mfi_method_entry mfi_str_methods[] = {
#define ENTRY(name) {#name, str_##name},
    ENTRY(strip) ENTRY(lstrip) ENTRY(rstrip) ENTRY(removeprefix) ENTRY(removesuffix) ENTRY(split)
        ENTRY(rsplit) ENTRY(splitlines) ENTRY(partition) ENTRY(rpartition) ENTRY(find) ENTRY(rfind)
            ENTRY(index) ENTRY(rindex) ENTRY(count) ENTRY(startswith) ENTRY(endswith) ENTRY(replace)
                ENTRY(join) ENTRY(center) ENTRY(ljust) ENTRY(rjust) ENTRY(zfill) ENTRY(format)
                    ENTRY(lower) ENTRY(upper) ENTRY(title) ENTRY(capitalize) ENTRY(swapcase)
                        ENTRY(isalpha) ENTRY(isdigit) ENTRY(isdecimal) ENTRY(isnumeric)
                            ENTRY(isalnum) ENTRY(isascii) ENTRY(isspace) ENTRY(islower)
                                ENTRY(isupper) ENTRY(istitle)
#undef ENTRY
    /* for want of a table of its own: the same for nearly all characters */
    {"casefold", str_lower},
    {NULL, NULL},
};
