/* Values of the template language as text: Python's str() and repr().
 *
 * Called wherever a value is printed or joined to a text. The bytes of strings keep where they came
 * from, also inside the repr of a dict. */
#include "text/template_int.h"
#include "text/unicode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- numbers ---- */

/* The shortest decimal digits that give v back, and the exponent of the first. Every decimal of up
 * to 15 digits survives a double, so that more are tried only where these don't do. */
static size_t shortest_digits(double v, char digits[32], int *exponent)
{
    char text[64];
    for (int n = v < 0x1p-1022 ? 1 : 15; n <= 17; n++) {
        snprintf(text, sizeof text, "%.*e", n - 1, v);
        if (strtod(text, NULL) == v)
            break;
    }
    size_t n = 0;
    char *p = text;
    for (; *p && *p != 'e'; p++) /* whatever the locale's point is, it is no digit */
        if (*p >= '0' && *p <= '9')
            digits[n++] = *p;
    *exponent = *p ? (int)strtol(p + 1, NULL, 10) : 0;
    while (n > 1 && digits[n - 1] == '0')
        n--;
    return n;
}

void mfi_text_float(mfi_text *text, double v)
{
    char digits[32], out[64];
    int exponent;
    size_t k = 0;
    if (!isfinite(v)) {
        mfi_text_own(text, isnan(v) ? "nan" : v < 0 ? "-inf" : "inf");
        return;
    }
    if (signbit(v))
        mfi_text_own(text, "-");
    int n = (int)shortest_digits(fabs(v), digits, &exponent);
    if (exponent < -4 || exponent >= 16) {
        out[k++] = digits[0];
        if (n > 1)
            out[k++] = '.';
        for (int i = 1; i < n; i++)
            out[k++] = digits[i];
        mfi_text_put(text, out, k, false);
        snprintf(out, sizeof out, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        mfi_text_own(text, out);
        return;
    }
    for (int i = MFI_MIN(exponent, 0); i <= MFI_MAX(exponent + 1, n - 1); i++) {
        if (i == exponent + 1)
            out[k++] = '.';
        out[k++] = i >= 0 && i < n ? digits[i] : '0';
    }
    mfi_text_put(text, out, k, false);
}

static void put_int(mfi_text *text, int64_t i)
{
    char out[32];
    snprintf(out, sizeof out, "%lld", (long long)i);
    mfi_text_own(text, out);
}

/* ---- repr ---- */

static bool is_printable(uint32_t cp)
{
    static const uint32_t hidden = 1u << MFI_CAT_CC | 1u << MFI_CAT_CF | 1u << MFI_CAT_CS |
                                   1u << MFI_CAT_CO | 1u << MFI_CAT_CN | 1u << MFI_CAT_ZL |
                                   1u << MFI_CAT_ZP | 1u << MFI_CAT_ZS;
    return cp == ' ' || !(hidden >> mfi_unicode_category(cp) & 1);
}

static void put_repr_char(mfi_text *text, uint32_t cp, char quote, bool foreign)
{
    char out[16];
    if (cp == (uint32_t)quote || cp == '\\')
        snprintf(out, sizeof out, "\\%c", (char)cp);
    else if (cp == '\n' || cp == '\r' || cp == '\t')
        snprintf(out, sizeof out, "\\%c", cp == '\n' ? 'n' : cp == '\r' ? 'r' : 't');
    else if (cp < 0x100)
        snprintf(out, sizeof out, "\\x%02x", (unsigned)cp);
    else if (cp < 0x10000)
        snprintf(out, sizeof out, "\\u%04x", (unsigned)cp);
    else
        snprintf(out, sizeof out, "\\U%08x", (unsigned)cp);
    mfi_text_put(text, out, strlen(out), foreign);
}

static void put_string_repr(mfi_text *text, const mfi_str *str)
{
    bool single = memchr(str->data, '\'', str->n) != NULL;
    char quote = single && !memchr(str->data, '"', str->n) ? '"' : '\'';
    const char quotes[2] = {quote, 0};
    size_t done = 0, n;
    mfi_text_own(text, quotes);
    for (size_t at = 0; at < str->n; at += n) {
        uint32_t cp;
        n = mfi_utf8_decode(str->data + at, str->data + str->n, &cp);
        if (!n)
            break;
        if (cp != (uint32_t)quote && cp != '\\' && is_printable(cp))
            continue;
        mfi_text_slice(text, str, done, at);
        put_repr_char(text, cp, quote, mfi_str_foreign(str, at, at + n));
        done = at + n;
    }
    mfi_text_slice(text, str, done, str->n);
    mfi_text_own(text, quotes);
}

static void put_list(mfi_text *text, const mfi_value *v)
{
    const mfi_list *list = v->list;
    bool tuple = v->type == MFI_V_TUPLE;
    mfi_text_own(text, tuple ? "(" : "[");
    for (size_t i = 0; i < list->n; i++) {
        if (i)
            mfi_text_own(text, ", ");
        mfi_text_repr(text, &list->items[i]);
    }
    mfi_text_own(text, !tuple ? "]" : list->n == 1 ? ",)" : ")");
}

static void put_dict(mfi_text *text, const mfi_dict *dict)
{
    mfi_text_own(text, "{");
    for (size_t i = 0; i < dict->n; i++) {
        if (i)
            mfi_text_own(text, ", ");
        mfi_text_repr(text, &dict->pairs[i].key);
        mfi_text_own(text, ": ");
        mfi_text_repr(text, &dict->pairs[i].value);
    }
    mfi_text_own(text, "}");
}

static void put_range(mfi_text *text, const mfi_list *list)
{
    mfi_text_own(text, "range(");
    put_int(text, list->start);
    mfi_text_own(text, ", ");
    put_int(text, list->stop);
    if (list->step != 1) {
        mfi_text_own(text, ", ");
        put_int(text, list->step);
    }
    mfi_text_own(text, ")");
}

static void put_object(mfi_text *text, const mfi_value *v)
{
    mfi_text_own(text, "<");
    if (v->type == MFI_V_NAMESPACE) {
        mfi_text_own(text, "Namespace ");
        put_dict(text, v->dict);
    } else if (v->type == MFI_V_MACRO) {
        mfi_text_own(text, "Macro ");
        const mfi_str *name = mfi_macro_name(v->macro);
        if (name)
            put_string_repr(text, name);
        else
            mfi_text_own(text, "anonymous");
    } else {
        mfi_text_own(text, mfi_type_name(v));
    }
    mfi_text_own(text, ">");
}

static void put_compound(mfi_text *text, const mfi_value *v)
{
    mfi_tpl *t = text->t;
    if (++t->depth > MFI_MAX_TEMPLATE_NESTING) {
        text->too_long = true;
        return;
    }
    switch (v->type) {
    case MFI_V_LIST:
    case MFI_V_TUPLE:
        put_list(text, v);
        break;
    case MFI_V_VIEW:
        mfi_text_own(text, v->list->view);
        mfi_text_own(text, "(");
        put_list(text, &(mfi_value){.type = MFI_V_LIST, .list = v->list});
        mfi_text_own(text, ")");
        break;
    case MFI_V_RANGE:
        put_range(text, v->list);
        break;
    case MFI_V_DICT:
        put_dict(text, v->dict);
        break;
    default:
        put_object(text, v);
        break;
    }
    t->depth--;
}

void mfi_text_repr(mfi_text *text, const mfi_value *v)
{
    if (v->type == MFI_V_UNDEFINED) {
        mfi_text_own(text, "Undefined");
    } else if (v->type != MFI_V_STR) {
        mfi_text_value(text, v);
    } else if (v->markup) {
        mfi_text_own(text, "Markup(");
        put_string_repr(text, v->str);
        mfi_text_own(text, ")");
    } else {
        put_string_repr(text, v->str);
    }
}

void mfi_text_value(mfi_text *text, const mfi_value *v)
{
    switch (v->type) {
    case MFI_V_ABSENT:
    case MFI_V_UNDEFINED:
        return;
    case MFI_V_NONE:
        mfi_text_own(text, "None");
        return;
    case MFI_V_BOOL:
        mfi_text_own(text, v->boolean ? "True" : "False");
        return;
    case MFI_V_INT:
        put_int(text, v->integer);
        return;
    case MFI_V_FLOAT:
        mfi_text_float(text, v->number);
        return;
    case MFI_V_STR:
        mfi_text_str(text, v->str);
        return;
    default:
        put_compound(text, v);
    }
}

mf_status mfi_to_string(mfi_tpl *t, const mfi_value *v, mfi_value *out)
{
    if (v->type == MFI_V_STR) {
        *out = *v;
        return MF_OK;
    }
    mfi_text text = mfi_text_begin(t);
    mfi_text_value(&text, v);
    return mfi_text_done(&text, out);
}

mf_status mfi_repr(mfi_tpl *t, const mfi_value *v, mfi_value *out)
{
    mfi_text text = mfi_text_begin(t);
    mfi_text_repr(&text, v);
    return mfi_text_done(&text, out);
}
