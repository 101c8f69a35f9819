/* Filters of the template language that make one value from one: text, numbers, defaults.
 *
 * Called by name (mfi_apply_filter), also from map, filter blocks and block sets. Semantics are
 * jinja2's; filters that Python would call in a shell or a browser (urlize, random, ...) are
 * unknown here. */
#include "text/template_methods.h"
#include "text/unicode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILTER(name)                                                                               \
    static mf_status filter_##name(mfi_tpl *t, const mfi_value *v, const mfi_args *args,           \
                                   mfi_value *out)

/* ---- text ---- */

static mf_status cased(mfi_tpl *t, const mfi_value *v, const mfi_args *args, mfi_case how,
                       mfi_value *out)
{
    mfi_value str;
    MFI_TRY(mfi_bind(t, "a filter for case", args, "", 0, NULL));
    MFI_TRY(mfi_to_string(t, v, &str));
    mfi_text text = mfi_text_begin(t);
    mfi_text_cased(&text, str.str, how);
    MFI_TRY(mfi_text_done(&text, out));
    out->markup = str.markup && how != MFI_CASE_WORDS;
    return MF_OK;
}

#define CASED(name, how)                                                                           \
    FILTER(name)                                                                                   \
    {                                                                                              \
        return cased(t, v, args, how, out);                                                        \
    }
CASED(lower, MFI_CASE_LOWER)
CASED(upper, MFI_CASE_UPPER)
CASED(title, MFI_CASE_WORDS)
CASED(capitalize, MFI_CASE_CAPITALIZE)

FILTER(trim)
{
    mfi_value arg[1], str;
    const mfi_str *chars = NULL;
    size_t from, to;
    MFI_TRY(mfi_bind(t, "trim", args, "chars", 0, arg));
    if (arg[0].type != MFI_V_ABSENT && arg[0].type != MFI_V_NONE)
        MFI_TRY(mfi_arg_str(t, "trim", &arg[0], &chars));
    MFI_TRY(mfi_to_string(t, v, &str));
    mfi_str_strip(str.str, chars, true, true, &from, &to);
    MFI_TRY(mfi_str_sub(t, str.str, from, to, out));
    out->markup = str.markup;
    return MF_OK;
}

FILTER(replace)
{
    mfi_value arg[3], str;
    int64_t count = -1;
    MFI_TRY(mfi_bind(t, "replace", args, "old new count", 2, arg));
    if (arg[2].type != MFI_V_NONE)
        MFI_TRY(mfi_arg_int(t, "replace", &arg[2], -1, &count));
    MFI_TRY(mfi_to_string(t, v, &str));
    MFI_TRY(mfi_to_string(t, &arg[0], &arg[0]));
    MFI_TRY(mfi_to_string(t, &arg[1], &arg[1]));
    MFI_TRY(mfi_str_replace(t, str.str, arg[0].str, arg[1].str, count, out));
    out->markup = false;
    return MF_OK;
}

/* The lines of str and what is put in front of them. */
static void put_indented(mfi_text *text, const mfi_list *lines, const mfi_str *blanks, bool blank)
{
    for (size_t i = 0; i < lines->n; i++) {
        const mfi_str *line = lines->items[i].str;
        if (i) {
            mfi_text_own(text, "\n");
            if (line->n || blank)
                mfi_text_str(text, blanks);
        }
        mfi_text_str(text, line);
    }
}

FILTER(indent)
{
    mfi_value arg[3], width, lines, str, newline;
    int64_t n;
    const mfi_str *plain;
    MFI_TRY(mfi_bind(t, "indent", args, "width first blank", 0, arg));
    MFI_TRY(mfi_arg_str(t, "indent", v, &plain));
    if (arg[0].type == MFI_V_STR) {
        width = arg[0];
    } else {
        MFI_TRY(mfi_arg_int(t, "indent", &arg[0], 4, &n));
        MFI_TRY(mfi_own_string(t, " ", 1, &width));
        mfi_text blanks = mfi_text_begin(t);
        mfi_text_fill(&blanks, width.str, n > 0 ? (size_t)n : 0);
        MFI_TRY(mfi_text_done(&blanks, &width));
    }
    MFI_TRY(mfi_own_string(t, "\n", 1, &newline)); /* so that an empty last line counts */
    MFI_TRY(mfi_op_binary(t, MFI_OP_ADD, &(mfi_value){.type = MFI_V_STR, .str = plain}, &newline,
                          &str));
    MFI_TRY(mfi_str_lines(t, str.str, false, &lines));
    mfi_text text = mfi_text_begin(t);
    if (mfi_truth(&arg[1]))
        mfi_text_str(&text, width.str);
    put_indented(&text, lines.list, width.str, mfi_truth(&arg[2]));
    MFI_TRY(mfi_text_done(&text, out));
    out->markup = v->markup;
    return MF_OK;
}

FILTER(center)
{
    mfi_value arg[1], str;
    int64_t width;
    MFI_TRY(mfi_bind(t, "center", args, "width", 0, arg));
    MFI_TRY(mfi_arg_int(t, "center", &arg[0], 80, &width));
    MFI_TRY(mfi_to_string(t, v, &str));
    MFI_TRY(mfi_str_center(t, str.str, width, NULL, 0, out));
    out->markup = str.markup;
    return MF_OK;
}

FILTER(truncate)
{
    mfi_value arg[4], str, cut;
    int64_t length, leeway;
    const mfi_str *end;
    MFI_TRY(mfi_bind(t, "truncate", args, "length killwords end leeway", 0, arg));
    MFI_TRY(mfi_arg_int(t, "truncate", &arg[0], 255, &length));
    if (arg[3].type == MFI_V_NONE)
        arg[3].type = MFI_V_ABSENT;
    MFI_TRY(mfi_arg_int(t, "truncate", &arg[3], 5, &leeway));
    if (arg[2].type == MFI_V_ABSENT)
        MFI_TRY(mfi_own_string(t, "...", 3, &arg[2]));
    MFI_TRY(mfi_arg_str(t, "truncate", &arg[2], &end));
    if (length < (int64_t)end->n_chars || length > INT32_MAX || leeway < 0)
        return mfi_tpl_fail(t, "truncate: the length is too small or too large");
    str = *v;
    if (v->type != MFI_V_STR) { /* it may be short, whatever it is */
        int64_t n;
        MFI_TRY(mfi_length(t, v, &n));
        *out = *v;
        return n <= length + MFI_MIN(leeway, 1000)
                   ? MF_OK
                   : mfi_tpl_fail(t, "truncate of a %s", mfi_type_name(v));
    }
    if (leeway > INT64_MAX - length || (int64_t)str.str->n_chars <= length + leeway) {
        *out = str;
        return MF_OK;
    }
    size_t to = mfi_str_offset(str.str, (size_t)length - end->n_chars);
    if (!mfi_truth(&arg[1])) {
        MFI_TRY(mfi_own_string(t, " ", 1, &cut));
        size_t blank = mfi_str_rfind(str.str, cut.str, 0, to);
        to = blank == SIZE_MAX ? to : blank;
    }
    mfi_text text = mfi_text_begin(t);
    mfi_text_slice(&text, str.str, 0, to);
    mfi_text_str(&text, end);
    return mfi_text_done(&text, out);
}

FILTER(wordcount)
{
    mfi_value str;
    int64_t n = 0;
    bool inside = false;
    size_t len;
    MFI_TRY(mfi_bind(t, "wordcount", args, "", 0, NULL));
    MFI_TRY(mfi_to_string(t, v, &str));
    for (size_t at = 0; at < str.str->n; at += len) {
        uint32_t cp;
        len = mfi_utf8_decode(str.str->data + at, str.str->data + str.str->n, &cp);
        if (!len)
            break;
        bool word = mfi_unicode_is_word(cp);
        n += word && !inside;
        inside = word;
    }
    *out = mfi_int(n);
    return MF_OK;
}

FILTER(string)
{
    MFI_TRY(mfi_bind(t, "string", args, "", 0, NULL));
    return mfi_to_string(t, v, out);
}

FILTER(safe)
{
    MFI_TRY(mfi_bind(t, "safe", args, "", 0, NULL));
    MFI_TRY(mfi_to_string(t, v, out));
    out->markup = true;
    return MF_OK;
}

FILTER(escape)
{
    MFI_TRY(mfi_bind(t, "escape", args, "", 0, NULL));
    return mfi_str_escape(t, v, out);
}

FILTER(forceescape)
{
    mfi_value str;
    MFI_TRY(mfi_bind(t, "forceescape", args, "", 0, NULL));
    MFI_TRY(mfi_to_string(t, v, &str));
    str.markup = false;
    return mfi_str_escape(t, &str, out);
}

FILTER(urlencode)
{
    static const char safe[] = "_.-~/";
    mfi_value str;
    MFI_TRY(mfi_bind(t, "urlencode", args, "", 0, NULL));
    if (v->type == MFI_V_DICT || mfi_is_list(v))
        return mfi_tpl_unsupported(t, "urlencode of a %s", mfi_type_name(v));
    MFI_TRY(mfi_to_string(t, v, &str));
    mfi_text text = mfi_text_begin(t);
    for (size_t i = 0; i < str.str->n; i++) {
        char c = str.str->data[i], hex[4];
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                     (c && strchr(safe, c));
        snprintf(hex, sizeof hex, "%%%02X", (unsigned char)c);
        mfi_text_put(&text, plain ? &c : hex, plain ? 1 : 3, mfi_str_foreign(str.str, i, i + 1));
    }
    return mfi_text_done(&text, out);
}

FILTER(format)
{
    mfi_value str, right;
    if (args->n && args->n_kw)
        return mfi_tpl_fail(t, "format takes arguments by place or by name, not both");
    MFI_TRY(mfi_to_string(t, v, &str));
    if (args->n_kw) {
        MFI_TRY(mfi_dict_new(t, MFI_V_DICT, args->n_kw, &right));
        for (size_t i = 0; i < args->n_kw; i++) {
            mfi_value key = mfi_string(args->kw[i].name, false);
            MFI_TRY(mfi_dict_put(t, right.dict, &key, &args->kw[i].value));
        }
    } else {
        MFI_TRY(mfi_list_new(t, MFI_V_TUPLE, args->n, &right));
        for (size_t i = 0; i < args->n; i++)
            MFI_TRY(mfi_list_push(t, right.list, &args->pos[i]));
    }
    return mfi_format_percent(t, &str, &right, out);
}

/* ---- numbers ---- */

/* int(a float), as far as it goes. */
static mf_status whole(mfi_tpl *t, double d, mfi_value *out)
{
    if (!isfinite(d))
        return mfi_tpl_fail(t, "int: infinity and NaN are no integers");
    if (fabs(d) >= 0x1p63)
        return mfi_tpl_unsupported(t, "an integer of more than 64 bits");
    *out = mfi_int((int64_t)d);
    return MF_OK;
}

FILTER(int)
{
    mfi_value arg[2];
    int64_t base, i;
    double d;
    bool large = false;
    MFI_TRY(mfi_bind(t, "int", args, "default base", 0, arg));
    MFI_TRY(mfi_arg_int(t, "int", &arg[1], 10, &base));
    if (v->type == MFI_V_UNDEFINED)
        return mfi_fail_undefined(t, v);
    if (v->type == MFI_V_FLOAT && isfinite(v->number))
        return whole(t, v->number, out);
    if (v->type == MFI_V_FLOAT && isinf(v->number))
        return whole(t, v->number, out);
    if (mfi_integer(v, &i) ||
        (v->type == MFI_V_STR && mfi_parse_int(v->str, (int)MFI_MIN(base, 37), &i, &large))) {
        *out = mfi_int(i);
        return large ? mfi_tpl_unsupported(t, "an integer of more than 64 bits") : MF_OK;
    }
    if (v->type == MFI_V_STR && mfi_parse_float(v->str, &d) && isfinite(d))
        return whole(t, d, out);
    *out = arg[0].type == MFI_V_ABSENT ? mfi_int(0) : arg[0];
    return MF_OK;
}

FILTER(float)
{
    mfi_value arg[1];
    double d;
    MFI_TRY(mfi_bind(t, "float", args, "default", 0, arg));
    if (v->type == MFI_V_UNDEFINED)
        return mfi_fail_undefined(t, v);
    if (mfi_number(v, &d) || (v->type == MFI_V_STR && mfi_parse_float(v->str, &d)))
        *out = mfi_float(d);
    else
        *out = arg[0].type == MFI_V_ABSENT ? mfi_float(0) : arg[0];
    return MF_OK;
}

FILTER(abs)
{
    int64_t i;
    MFI_TRY(mfi_bind(t, "abs", args, "", 0, NULL));
    if (v->type == MFI_V_FLOAT) {
        *out = mfi_float(fabs(v->number));
        return MF_OK;
    }
    if (v->type == MFI_V_UNDEFINED)
        return mfi_fail_undefined(t, v);
    if (!mfi_integer(v, &i))
        return mfi_tpl_fail(t, "abs of a %s", mfi_type_name(v));
    *out = mfi_int(i);
    return i < 0 ? mfi_op_unary(t, MFI_OP_SUB, v, out) : MF_OK;
}

/* Python's round(): the decimal that is nearest to the double's exact value, halves to even. */
static double round_decimal(double d, int64_t digits)
{
    char text[512];
    if (!isfinite(d) || digits > 22)
        return d;
    if (digits >= 0) {
        snprintf(text, sizeof text, "%.*f", (int)digits, d);
        return strtod(text, NULL); /* the same locale wrote it */
    }
    double scale = pow(10, -(double)digits);
    return isfinite(scale) ? nearbyint(d / scale) * scale : copysign(0, d);
}

static mf_status round_int(mfi_tpl *t, int64_t i, int64_t digits, mfi_value *out)
{
    *out = mfi_int(i);
    if (digits >= 0)
        return MF_OK;
    int64_t scale = 1;
    for (; digits < 0 && scale; digits++)
        scale = __builtin_mul_overflow(scale, (int64_t)10, &scale) ? 0 : scale;
    if (!scale)
        return mfi_tpl_unsupported(t, "round to so few digits");
    int64_t rest = i % scale, base = i - rest, half = scale / 2, size = rest < 0 ? -rest : rest;
    bool away = size > half || (size == half && base / scale % 2 != 0);
    out->integer = base + (away ? (rest < 0 ? -scale : scale) : 0);
    return MF_OK;
}

FILTER(round)
{
    mfi_value arg[2];
    int64_t digits, i;
    double d;
    MFI_TRY(mfi_bind(t, "round", args, "precision method", 0, arg));
    MFI_TRY(mfi_arg_int(t, "round", &arg[0], 0, &digits));
    bool up = arg[1].type == MFI_V_STR && mfi_str_is(arg[1].str, "ceil");
    bool down = arg[1].type == MFI_V_STR && mfi_str_is(arg[1].str, "floor");
    bool common = arg[1].type == MFI_V_ABSENT ||
                  (arg[1].type == MFI_V_STR && mfi_str_is(arg[1].str, "common"));
    if (!up && !down && !common)
        return mfi_tpl_fail(t, "round: the method is common, ceil or floor");
    if (v->type == MFI_V_UNDEFINED)
        return mfi_fail_undefined(t, v);
    if (!mfi_number(v, &d))
        return mfi_tpl_fail(t, "round of a %s", mfi_type_name(v));
    if (common && mfi_integer(v, &i))
        return round_int(t, i, digits, out);
    if (common) {
        *out = mfi_float(round_decimal(d, digits));
        return MF_OK;
    }
    if (!isfinite(d))
        return mfi_tpl_fail(t, "round of infinity or NaN");
    double scale = pow(10, (double)digits);
    *out = mfi_float((up ? ceil(d * scale) : floor(d * scale)) / scale);
    return MF_OK;
}

/* ---- others ---- */

FILTER(default)
{
    mfi_value arg[2];
    MFI_TRY(mfi_bind(t, "default", args, "default_value boolean", 0, arg));
    *out = *v;
    if (v->type != MFI_V_UNDEFINED && !(mfi_truth(&arg[1]) && !mfi_truth(v)))
        return MF_OK;
    if (arg[0].type == MFI_V_ABSENT)
        return mfi_own_string(t, "", 0, out);
    *out = arg[0];
    return MF_OK;
}

FILTER(attr)
{
    mfi_value arg[1];
    const mfi_str *name;
    MFI_TRY(mfi_bind(t, "attr", args, "name", 1, arg));
    MFI_TRY(mfi_arg_str(t, "attr", &arg[0], &name));
    if (v->type == MFI_V_DICT || v->type == MFI_V_LIST || v->type == MFI_V_STR) { /* no items */
        bool found;
        MFI_TRY(mfi_method_of(t, v, name, out, &found));
        return found ? MF_OK : mfi_undefined_attr(t, v, &arg[0], out);
    }
    return mfi_get_attr(t, v, name, out);
}

const mfi_filter mfi_text_filters[] = {
#define ENTRY(name)                                                                                \
    {                                                                                              \
#name, filter_##name, false                                                                \
    }
    ENTRY(lower),
    ENTRY(upper),
    ENTRY(title),
    ENTRY(capitalize),
    ENTRY(trim),
    ENTRY(replace),
    ENTRY(indent),
    ENTRY(center),
    ENTRY(truncate),
    ENTRY(wordcount),
    ENTRY(string),
    ENTRY(safe),
    ENTRY(escape),
    ENTRY(forceescape),
    ENTRY(urlencode),
    ENTRY(format),
    ENTRY(int),
    ENTRY(float),
    ENTRY(abs),
    ENTRY(round),
    ENTRY(default),
    ENTRY(attr),
#undef ENTRY
    {"d", filter_default, false},
    {"e", filter_escape, false},
    {"tojson", mfi_filter_tojson, false},
    {"from_json", mfi_filter_from_json, false},
    {NULL, NULL, false},
};

/* ---- by name ---- */

static const mfi_filter *find(const mfi_str *name)
{
    const mfi_filter *const tables[] = {mfi_text_filters, mfi_seq_filters};
    for (size_t i = 0; i < MFI_ARRAY_LEN(tables); i++)
        for (const mfi_filter *f = tables[i]; f->name; f++)
            if (mfi_str_is(name, f->name))
                return f;
    return NULL;
}

bool mfi_has_filter(const mfi_str *name)
{
    return find(name) != NULL;
}

mf_status mfi_apply_filter(mfi_tpl *t, const mfi_str *name, const mfi_value *v,
                           const mfi_args *args, mfi_value *out)
{
    const mfi_filter *filter = find(name);
    if (!filter)
        return mfi_tpl_unsupported(t, "the filter %.60s", name->data);
    if (!filter->lazy)
        return filter->fn(t, v, args, out);
    struct mfi_gen *gen = mfi_arena_alloc(&t->arena, sizeof *gen);
    if (!gen)
        return mfi_tpl_no_memory(t);
    *gen = (struct mfi_gen){.fn = filter->fn, .v = *v, .args = *args};
    *out = (mfi_value){.type = MFI_V_GEN, .gen = gen};
    return MF_OK;
}
