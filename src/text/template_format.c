/* Formatting in templates: the operator % of strings and the method format, after Python's.
 *
 * Called by the operators, the filter `format` and the method. What is put in keeps where it came
 * from; padding is the template's own. */
#include "text/template_int.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define DIGITS_MAX 100 /* behind the point */
#define WIDTH_MAX  100000

typedef struct spec {
    const mfi_str *fill; /* one character; NULL: a blank */
    char align, sign;    /* "<>^=", "+- "; 0: the usual */
    bool alternate, zero;
    char grouping;         /* ',' or '_' */
    int64_t width, digits; /* digits -1: not given */
    char type;
} spec;

/* ---- a value by a spec ---- */

static void put_padding(mfi_text *text, const spec *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (s->fill)
            mfi_text_str(text, s->fill);
        else
            mfi_text_put(text, s->zero ? "0" : " ", 1, false);
    }
}

/* The first n_sign bytes of the body stand before padding that follows the sign. */
static void put_padded(mfi_text *text, const spec *s, const mfi_str *body, size_t n_sign,
                       char usual)
{
    char align = s->align ? s->align : usual;
    size_t n = body->n_chars, width = (size_t)s->width, room = width > n ? width - n : 0;
    size_t left = align == '>' || align == '=' ? room : align == '^' ? room / 2 : 0;
    if (align == '=')
        mfi_text_slice(text, body, 0, n_sign);
    put_padding(text, s, left);
    mfi_text_slice(text, body, align == '=' ? n_sign : 0, body->n);
    put_padding(text, s, room - left);
}

static mf_status put_number_text(mfi_tpl *t, mfi_text *text, const spec *s, const char *body,
                                 size_t n_sign)
{
    mfi_str *str = mfi_str_new(&t->arena, body, strlen(body), false);
    if (!str)
        return mfi_tpl_no_memory(t);
    put_padded(text, s, str, n_sign, s->zero && !s->fill ? '=' : '>');
    return MF_OK;
}

/* Puts separators between groups of the digits at the start of `digits`. */
static void group_digits(const char *digits, char separator, size_t size, char *out)
{
    size_t n = strspn(digits, "0123456789abcdefABCDEF"), k = 0;
    if (!separator)
        n = 0;
    for (size_t i = 0; i < n; i++) {
        if (i && (n - i) % size == 0)
            out[k++] = separator;
        out[k++] = digits[i];
    }
    memcpy(out + k, digits + n, strlen(digits + n) + 1);
}

static const char *sign_of(const spec *s, bool minus)
{
    return minus ? "-" : s->sign == '+' ? "+" : s->sign == ' ' ? " " : "";
}

static mf_status put_int(mfi_tpl *t, mfi_text *text, const spec *s, int64_t v)
{
    char digits[80], grouped[128], body[160];
    uint64_t size = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    const char *prefix = "";
    size_t k = sizeof digits - 1;
    unsigned base = s->type == 'b' ? 2 : s->type == 'o' ? 8 : (s->type | 32) == 'x' ? 16 : 10;
    const char *all = s->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    digits[k] = 0;
    do {
        digits[--k] = all[size % base];
        size /= base;
    } while (size);
    if (s->alternate && base != 10)
        prefix = base == 2 ? "0b" : base == 8 ? "0o" : s->type == 'X' ? "0X" : "0x";
    group_digits(digits + k, s->grouping, base == 10 ? 3 : 4, grouped);
    snprintf(body, sizeof body, "%s%s%s", sign_of(s, v < 0), prefix, grouped);
    return put_number_text(t, text, s, body, strlen(sign_of(s, v < 0)) + strlen(prefix));
}

/* e, f, g and %, of a number without its sign. */
static mf_status put_float(mfi_tpl *t, mfi_text *text, const spec *s, double v)
{
    char digits[512], grouped[768], body[800];
    double size = fabs(v);
    bool percent = s->type == '%';
    char type = percent || s->type == 0 || s->type == 'n' ? (percent ? 'f' : 'g') : s->type;
    int n = s->digits < 0 ? 6 : (int)s->digits;
    const char format[] = {'%',
                           s->alternate ? '#' : '.',
                           s->alternate ? '.' : '*',
                           s->alternate ? '*' : type,
                           s->alternate ? type : 0,
                           0};
    if (s->digits > DIGITS_MAX)
        return mfi_tpl_unsupported(t, "a format of so many digits");
    if (s->type == 0 && s->digits < 0) {
        mfi_value plain;
        mfi_text repr = mfi_text_begin(t);
        mfi_text_float(&repr, size);
        MFI_TRY(mfi_text_done(&repr, &plain));
        snprintf(digits, sizeof digits, "%s", plain.str->data);
    } else {
        snprintf(digits, sizeof digits, format, n, percent ? size * 100 : size);
        const char *point = localeconv()->decimal_point;
        char *at = strstr(digits, point);
        if (at) {
            *at = '.';
            memmove(at + 1, at + strlen(point), strlen(at + strlen(point)) + 1);
        }
    }
    group_digits(digits, s->grouping, 3, grouped);
    bool minus = signbit(v) && !isnan(v);
    snprintf(body, sizeof body, "%s%s%s", sign_of(s, minus), grouped, percent ? "%" : "");
    return put_number_text(t, text, s, body, strlen(sign_of(s, minus)));
}

static void put_string(mfi_text *text, const spec *s, const mfi_str *str, char usual)
{
    const mfi_str *body = str;
    mfi_value cut;
    if (s->digits >= 0 && (uint64_t)s->digits < str->n_chars &&
        mfi_str_sub(text->t, str, 0, mfi_str_offset(str, (size_t)s->digits), &cut) == MF_OK)
        body = cut.str;
    put_padded(text, s, body, 0, usual);
}

/* ---- numbers in a spec ---- */

static bool read_number(const mfi_str *str, size_t *at, int64_t *out)
{
    size_t begin = *at;
    *out = 0;
    while (*at < str->n && str->data[*at] >= '0' && str->data[*at] <= '9') {
        *out = MFI_MIN(*out * 10 + (str->data[*at] - '0'), (int64_t)WIDTH_MAX + 1);
        ++*at;
    }
    return *at > begin;
}

/* ---- % ---- */

typedef struct percent {
    mfi_tpl *t;
    const mfi_str *format;
    bool markup;
    const mfi_value *args; /* the right side */
    size_t n_used;
    mfi_text text;
} percent;

static mf_status next_arg(percent *p, mfi_value *out)
{
    if (p->args->type == MFI_V_TUPLE) {
        if (p->n_used == p->args->list->n)
            return mfi_tpl_fail(p->t, "not enough arguments for a format");
        *out = p->args->list->items[p->n_used++];
        return MF_OK;
    }
    if (p->n_used++)
        return mfi_tpl_fail(p->t, "not enough arguments for a format");
    *out = *p->args;
    return MF_OK;
}

/* At "(name)": the value of that name. */
static mf_status named_arg(percent *p, size_t *at, mfi_value *out)
{
    const char *close = memchr(p->format->data + *at, ')', p->format->n - *at);
    mfi_value name;
    size_t found, end = close ? (size_t)(close - p->format->data) : 0;
    if (!close || p->args->type != MFI_V_DICT)
        return mfi_tpl_fail(p->t, "a format with names needs a mapping");
    MFI_TRY(mfi_str_sub(p->t, p->format, *at + 1, end, &name));
    MFI_TRY(mfi_dict_find(p->t, p->args->dict, &name, &found));
    if (found == SIZE_MAX)
        return mfi_tpl_fail(p->t, "the format's '%.100s' is missing", name.str->data);
    *out = p->args->dict->pairs[found].value;
    *at = end + 1;
    return MF_OK;
}

static mf_status star_or_number(percent *p, size_t *at, int64_t *out)
{
    mfi_value v;
    if (*at >= p->format->n || p->format->data[*at] != '*') {
        read_number(p->format, at, out);
        return MF_OK;
    }
    ++*at;
    MFI_TRY(next_arg(p, &v));
    return mfi_arg_int(p->t, "a format's width", &v, 0, out);
}

/* Flags, width and digits behind the percent sign. */
static mf_status read_percent_spec(percent *p, size_t *at, spec *s)
{
    const mfi_str *f = p->format;
    for (; *at < f->n && f->data[*at] && strchr("-+ #0", f->data[*at]); ++*at) {
        char c = f->data[*at];
        s->align = c == '-' ? '<' : s->align;
        s->sign = c == '+' || (c == ' ' && !s->sign) ? c : s->sign;
        s->alternate |= c == '#';
        s->zero |= c == '0';
    }
    MFI_TRY(star_or_number(p, at, &s->width));
    if (s->width < 0) {
        s->align = '<';
        s->width = s->width < -WIDTH_MAX ? WIDTH_MAX + 1 : -s->width;
    }
    if (*at < f->n && f->data[*at] == '.') {
        ++*at;
        MFI_TRY(star_or_number(p, at, &s->digits));
        s->digits = MFI_MAX(s->digits, 0);
    }
    while (*at < f->n && f->data[*at] && strchr("hlL", f->data[*at]))
        ++*at;
    if (s->width > WIDTH_MAX)
        return mfi_tpl_unsupported(p->t, "so wide a format");
    if (s->align == '<')
        s->zero = false;
    return MF_OK;
}

static mf_status put_percent_string(percent *p, spec *s, const mfi_value *v)
{
    mfi_value str;
    MFI_TRY(s->type == 's' ? mfi_to_string(p->t, v, &str) : mfi_repr(p->t, v, &str));
    if (p->markup && !(s->type == 's' && v->type == MFI_V_STR && v->markup)) {
        str.markup = false;
        MFI_TRY(mfi_str_escape(p->t, &str, &str));
    }
    s->zero = false;
    put_string(&p->text, s, str.str, '>');
    return MF_OK;
}

static mf_status put_percent(percent *p, spec *s, const mfi_value *v)
{
    int64_t i;
    double d;
    switch (s->type) {
    case 's':
    case 'r':
    case 'a':
        return put_percent_string(p, s, v);
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o':
        if (!mfi_integer(v, &i)) {
            bool whole = (s->type == 'd' || s->type == 'i' || s->type == 'u');
            if (v->type != MFI_V_FLOAT || !whole || !(fabs(v->number) < 0x1p63))
                return mfi_tpl_fail(p->t, "%%%c needs a number, not a %s", s->type,
                                    mfi_type_name(v));
            i = (int64_t)v->number;
        }
        return put_int(p->t, &p->text, s, i);
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
        if (!mfi_number(v, &d))
            return mfi_tpl_fail(p->t, "%%%c needs a number, not a %s", s->type, mfi_type_name(v));
        return put_float(p->t, &p->text, s, d);
    case 'c':
        if (v->type == MFI_V_STR && v->str->n_chars == 1) {
            put_string(&p->text, s, v->str, '>');
            return MF_OK;
        }
        return mfi_tpl_unsupported(p->t, "%%c of a %s", mfi_type_name(v));
    default:
        return mfi_tpl_fail(p->t, "a format with the unknown type %%%c", s->type);
    }
}

mf_status mfi_format_percent(mfi_tpl *t, const mfi_value *format, const mfi_value *args,
                             mfi_value *out)
{
    const mfi_str *f = format->str;
    percent p = {.t = t, .format = f, .markup = format->markup, .args = args};
    p.text = mfi_text_begin(t);
    for (size_t at = 0; at < f->n;) {
        const char *sign = memchr(f->data + at, '%', f->n - at);
        size_t end = sign ? (size_t)(sign - f->data) : f->n;
        mfi_text_slice(&p.text, f, at, end);
        at = end + 1;
        if (!sign)
            break;
        spec s = {.digits = -1};
        mfi_value v = {.type = MFI_V_ABSENT};
        if (at < f->n && f->data[at] == '(')
            MFI_TRY(named_arg(&p, &at, &v));
        MFI_TRY(read_percent_spec(&p, &at, &s));
        if (at == f->n)
            return mfi_tpl_fail(t, "a format is incomplete");
        s.type = f->data[at++];
        if (s.type == '%') {
            mfi_text_own(&p.text, "%");
            continue;
        }
        if (v.type == MFI_V_ABSENT)
            MFI_TRY(next_arg(&p, &v));
        MFI_TRY(put_percent(&p, &s, &v));
    }
    size_t n = args->type == MFI_V_TUPLE ? args->list->n : 1;
    bool mapping = args->type == MFI_V_DICT || args->type == MFI_V_LIST ||
                   args->type == MFI_V_RANGE || args->type == MFI_V_UNDEFINED;
    if (p.n_used < n && !mapping) /* to Python, what has items may have names */
        return mfi_tpl_fail(t, "not all arguments of a format are used");
    MFI_TRY(mfi_text_done(&p.text, out));
    out->markup = format->markup;
    return MF_OK;
}

/* ---- str.format ---- */

typedef struct braces {
    mfi_tpl *t;
    const mfi_str *format;
    bool markup;
    const mfi_args *args;
    int64_t n_auto;
    mfi_text text;
} braces;

static mf_status find_arg(braces *b, const mfi_str *name, mfi_value *out)
{
    int64_t index = b->n_auto;
    bool large, number = mfi_parse_int(name, 10, &index, &large);
    if (!name->n)
        index = b->n_auto++;
    if (!name->n || number) {
        if (large || index < 0 || (uint64_t)index >= b->args->n)
            return mfi_tpl_fail(b->t, "format: argument %lld is missing", (long long)index);
        *out = b->args->pos[index];
        return MF_OK;
    }
    for (size_t i = 0; i < b->args->n_kw; i++) {
        if (mfi_str_same(b->args->kw[i].name, name)) {
            *out = b->args->kw[i].value;
            return MF_OK;
        }
    }
    return mfi_tpl_fail(b->t, "format: '%.100s' is missing", name->data);
}

/* name, then any number of .attribute and [item], in [from, to) */
static mf_status find_field(braces *b, size_t from, size_t to, mfi_value *out)
{
    const mfi_str *f = b->format;
    mfi_value part;
    size_t at = from;
    while (at < to && f->data[at] != '.' && f->data[at] != '[')
        at++;
    MFI_TRY(mfi_str_sub(b->t, f, from, at, &part));
    MFI_TRY(find_arg(b, part.str, out));
    while (at < to) {
        mfi_value inner = *out;
        bool item = f->data[at] == '[', large;
        size_t begin = ++at;
        while (at < to && (item ? f->data[at] != ']' : f->data[at] != '.' && f->data[at] != '['))
            at++;
        MFI_TRY(mfi_str_sub(b->t, f, begin, at, &part));
        if (!item) {
            MFI_TRY(mfi_get_attr(b->t, &inner, part.str, out));
            continue;
        }
        at += at < to;
        mfi_value index = mfi_int(0);
        bool number = mfi_parse_int(part.str, 10, &index.integer, &large) && !large;
        MFI_TRY(mfi_get_item(b->t, &inner, number ? &index : &part, out));
    }
    return MF_OK;
}

/* [[fill]align][sign][#][0][width][grouping][.digits][type] */
static mf_status read_spec(braces *b, const mfi_str *f, spec *s)
{
    size_t at = 0, next = mfi_str_offset(f, 1);
    mfi_value fill;
    if (next < f->n && strchr("<>^=", f->data[next])) {
        MFI_TRY(mfi_str_sub(b->t, f, 0, next, &fill));
        s->fill = fill.str;
        s->align = f->data[next];
        at = next + 1;
    } else if (at < f->n && strchr("<>^=", f->data[at])) {
        s->align = f->data[at++];
    }
    if (at < f->n && strchr("+- ", f->data[at]))
        s->sign = f->data[at++];
    if (at < f->n && f->data[at] == '#') {
        s->alternate = true;
        at++;
    }
    if (at < f->n && f->data[at] == '0') {
        s->zero = true;
        at++;
    }
    read_number(f, &at, &s->width);
    if (at < f->n && strchr(",_", f->data[at]))
        s->grouping = f->data[at++];
    if (at < f->n && f->data[at] == '.') {
        at++;
        if (!read_number(f, &at, &s->digits))
            return mfi_tpl_fail(b->t, "format: digits are missing behind the point");
    }
    if (at < f->n)
        s->type = f->data[at++];
    if (at < f->n)
        return mfi_tpl_fail(b->t, "format: the specifier '%.40s' is invalid", f->data);
    if (s->width > WIDTH_MAX)
        return mfi_tpl_unsupported(b->t, "so wide a format");
    return MF_OK;
}

static mf_status put_by_spec(braces *b, const mfi_value *v, const mfi_str *text)
{
    spec s = {.digits = -1};
    int64_t i;
    double d;
    mfi_value str;
    MFI_TRY(read_spec(b, text, &s));
    bool number = mfi_number(v, &d), integer = mfi_integer(v, &i);
    if (v->type == MFI_V_BOOL && !s.type && !text->n)
        number = false;
    if (number && integer && (!s.type || strchr("bdoxXn", s.type)))
        return put_int(b->t, &b->text, &s, i);
    if (number && (!s.type || strchr("eEfFgGn%", s.type)))
        return put_float(b->t, &b->text, &s, d);
    if (s.type && s.type != 's')
        return mfi_tpl_fail(b->t, "format: unknown type '%c' for a %s", s.type, mfi_type_name(v));
    if (text->n && v->type != MFI_V_STR)
        return mfi_tpl_fail(b->t, "format: a %s takes no specifier", mfi_type_name(v));
    MFI_TRY(mfi_to_string(b->t, v, &str));
    if (b->markup)
        MFI_TRY(mfi_str_escape(b->t, &str, &str));
    put_string(&b->text, &s, str.str, '<');
    return MF_OK;
}

/* The field in braces, whose inside is [from, to). */
static mf_status put_field(braces *b, size_t from, size_t to)
{
    const mfi_str *f = b->format;
    const char *colon = memchr(f->data + from, ':', to - from);
    size_t end = colon ? (size_t)(colon - f->data) : to, name_end = end;
    mfi_value v, text;
    char conversion = 0;
    if (end - from >= 2 && f->data[end - 2] == '!') {
        conversion = f->data[end - 1];
        name_end = end - 2;
        if (conversion != 's' && conversion != 'r')
            return mfi_tpl_unsupported(b->t, "format: conversion !%c", conversion);
    }
    MFI_TRY(find_field(b, from, name_end, &v));
    if (conversion)
        MFI_TRY(conversion == 's' ? mfi_to_string(b->t, &v, &v) : mfi_repr(b->t, &v, &v));
    MFI_TRY(mfi_str_sub(b->t, f, MFI_MIN(end + 1, to), to, &text));
    if (memchr(text.str->data, '{', text.str->n))
        return mfi_tpl_unsupported(b->t, "format: a specifier with fields");
    return put_by_spec(b, &v, text.str);
}

mf_status mfi_format_braces(mfi_tpl *t, const mfi_value *self, const mfi_args *args, mfi_value *out)
{
    const mfi_str *f = self->str;
    braces b = {.t = t, .format = f, .markup = self->markup, .args = args};
    b.text = mfi_text_begin(t);
    for (size_t at = 0; at < f->n;) {
        char c = f->data[at];
        bool twice = at + 1 < f->n && f->data[at + 1] == c;
        if ((c != '{' && c != '}') || twice) {
            mfi_text_slice(&b.text, f, at, at + 1);
            at += 1 + ((c == '{' || c == '}') && twice);
            continue;
        }
        const char *close = c == '{' ? memchr(f->data + at, '}', f->n - at) : NULL;
        if (!close)
            return mfi_tpl_fail(t, "format: single '%c' in the format", c);
        size_t end = (size_t)(close - f->data);
        MFI_TRY(put_field(&b, at + 1, end));
        at = end + 1;
    }
    MFI_TRY(mfi_text_done(&b.text, out));
    out->markup = self->markup;
    return MF_OK;
}
