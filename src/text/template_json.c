/* JSON in templates: the variables, the filter tojson (Python's json.dumps with the arguments that
 * transformers gives it), and from_json, which some templates expect.
 *
 * Strings of the variables are foreign; tojson keeps that of every byte. */
#include "text/template_int.h"
#include "text/unicode.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- reading ---- */

static mf_status read_string(mfi_tpl *t, mfi_json_span span, bool foreign, mfi_value *out)
{
    mfi_buf text = {0};
    mfi_str *str = NULL;
    if (mfi_json_span_str(span, &text) && !text.failed)
        str = mfi_str_new(&t->arena, text.data, text.len, foreign);
    mfi_buf_free(&text);
    *out = mfi_string(str, false);
    return str ? MF_OK : mfi_tpl_no_memory(t);
}

static mf_status read_float(mfi_tpl *t, mfi_json_span span, mfi_value *out)
{
    mfi_str *str = mfi_str_new(&t->arena, span.text, span.len, false);
    if (!str)
        return mfi_tpl_no_memory(t);
    *out = mfi_float(0);
    mfi_parse_float(str, &out->number);
    return MF_OK;
}

static mf_status read_object(mfi_tpl *t, mfi_json_span span, bool foreign, mfi_value *out)
{
    mfi_json_iter it = mfi_json_span_iter(span);
    mfi_json_span key, value;
    MFI_TRY(mfi_dict_new(t, MFI_V_DICT, 0, out));
    while (mfi_json_object_next(&it, &key, &value)) { /* the scan saw that keys differ */
        mfi_value k, v;
        MFI_TRY(read_string(t, key, foreign, &k));
        MFI_TRY(mfi_value_from_json(t, value, foreign, &v));
        MFI_TRY(mfi_dict_append(t, out->dict, &k, &v));
    }
    return MF_OK;
}

static mf_status read_array(mfi_tpl *t, mfi_json_span span, bool foreign, mfi_value *out)
{
    mfi_json_iter it = mfi_json_span_iter(span);
    mfi_json_span value;
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, 0, out));
    while (mfi_json_array_next(&it, &value)) {
        mfi_value v;
        MFI_TRY(mfi_value_from_json(t, value, foreign, &v));
        MFI_TRY(mfi_list_push(t, out->list, &v));
    }
    return MF_OK;
}

/* The scan bounds the depth. */
mf_status mfi_value_from_json(mfi_tpl *t, mfi_json_span span, bool foreign, mfi_value *out)
{
    switch (mfi_json_span_type(span)) {
    case MFI_JSON_BOOL:
        *out = mfi_bool(span.text[0] == 't');
        return MF_OK;
    case MFI_JSON_INT:
        *out = mfi_int(0);
        if (mfi_json_span_i64(span, &out->integer))
            return MF_OK;
        return mfi_tpl_unsupported(t, "the integer %.*s", (int)MFI_MIN(span.len, (size_t)40),
                                   span.text);
    case MFI_JSON_FLOAT:
        return read_float(t, span, out);
    case MFI_JSON_STRING:
        return read_string(t, span, foreign, out);
    case MFI_JSON_ARRAY:
        return read_array(t, span, foreign, out);
    case MFI_JSON_OBJECT:
        return read_object(t, span, foreign, out);
    default:
        *out = mfi_none();
        return MF_OK;
    }
}

mf_status mfi_filter_from_json(mfi_tpl *t, const mfi_value *v, const mfi_args *args, mfi_value *out)
{
    const mfi_str *str;
    mf_error err;
    MFI_TRY(mfi_bind(t, "from_json", args, "", 0, NULL));
    MFI_TRY(mfi_arg_str(t, "from_json", v, &str));
    if (mfi_json_scan(str->data, str->n, "from_json", &err) != MF_OK)
        return mfi_tpl_fail(t, "%s", err.message);
    return mfi_value_from_json(t, mfi_json_root(str->data, str->n), mfi_str_foreign(str, 0, str->n),
                               out);
}

/* ---- writing ---- */

typedef struct dumper {
    mfi_tpl *t;
    mfi_text text;
    const mfi_str *item, *key; /* separators */
    const mfi_str *indent;     /* one level; NULL: all on one line */
    bool ascii, sorted;
    size_t level;
} dumper;

static void dump_escape(dumper *d, uint32_t cp, bool foreign)
{
    static const char shorts[] = "\"\"\\\\\nn\rr\tt\bb\ff";
    char out[16];
    for (size_t i = 0; i + 1 < sizeof shorts; i += 2) {
        if ((uint32_t)shorts[i] == cp) {
            snprintf(out, sizeof out, "\\%c", shorts[i + 1]);
            mfi_text_put(&d->text, out, 2, foreign);
            return;
        }
    }
    if (cp < 0x10000)
        snprintf(out, sizeof out, "\\u%04x", (unsigned)cp);
    else
        snprintf(out, sizeof out, "\\u%04x\\u%04x", (unsigned)(0xd7c0 + (cp >> 10)),
                 (unsigned)(0xdc00 + (cp & 0x3ff)));
    mfi_text_put(&d->text, out, strlen(out), foreign);
}

static void dump_string(dumper *d, const mfi_str *str)
{
    size_t done = 0, n;
    mfi_text_own(&d->text, "\"");
    for (size_t at = 0; at < str->n; at += n) {
        uint32_t cp = (unsigned char)str->data[at];
        n = 1;
        if (cp >= 0x20 && cp < 0x7f && cp != '"' && cp != '\\')
            continue;
        if (cp >= 0x7f && !d->ascii)
            continue;
        n = mfi_utf8_decode(str->data + at, str->data + str->n, &cp);
        if (!n)
            break;
        mfi_text_slice(&d->text, str, done, at);
        dump_escape(d, cp, mfi_str_foreign(str, at, at + n));
        done = at + n;
    }
    mfi_text_slice(&d->text, str, done, str->n);
    mfi_text_own(&d->text, "\"");
}

static void dump_line(dumper *d)
{
    if (!d->indent)
        return;
    mfi_text_own(&d->text, "\n");
    mfi_text_fill(&d->text, d->indent, d->level);
}

static void dump_float(dumper *d, double v)
{
    if (isfinite(v))
        mfi_text_float(&d->text, v);
    else
        mfi_text_own(&d->text, isnan(v) ? "NaN" : v < 0 ? "-Infinity" : "Infinity");
}

static mf_status dump(dumper *d, const mfi_value *v);

static mf_status dump_key(dumper *d, const mfi_value *key)
{
    if (key->type == MFI_V_STR) {
        dump_string(d, key->str);
        return MF_OK;
    }
    if (key->type < MFI_V_NONE || key->type > MFI_V_FLOAT)
        return mfi_tpl_fail(d->t, "tojson: a %s is no key", mfi_type_name(key));
    mfi_text_own(&d->text, "\"");
    MFI_TRY(dump(d, key));
    mfi_text_own(&d->text, "\"");
    return MF_OK;
}

static mf_status dump_list(dumper *d, const mfi_list *list)
{
    if (!list->n) {
        mfi_text_own(&d->text, "[]");
        return MF_OK;
    }
    mfi_text_own(&d->text, "[");
    d->level++;
    for (size_t i = 0; i < list->n; i++) {
        if (i)
            mfi_text_str(&d->text, d->item);
        dump_line(d);
        MFI_TRY(dump(d, &list->items[i]));
    }
    d->level--;
    dump_line(d);
    mfi_text_own(&d->text, "]");
    return MF_OK;
}

/* The pairs by rising keys, in memory of their own. */
static mf_status sort_pairs(dumper *d, const mfi_dict *dict, mfi_pair **out)
{
    mfi_pair *pairs = mfi_arena_alloc(&d->t->arena, (dict->n + 1) * sizeof *pairs);
    if (!pairs)
        return mfi_tpl_no_memory(d->t);
    for (size_t i = 0; i < dict->n; i++) {
        size_t at = i;
        for (; at > 0; at--) {
            int order;
            bool unordered;
            MFI_TRY(mfi_tpl_charge(d->t, 1));
            MFI_TRY(mfi_compare(d->t, &dict->pairs[i].key, &pairs[at - 1].key, &order, &unordered));
            if (order >= 0)
                break;
            pairs[at] = pairs[at - 1];
        }
        pairs[at] = dict->pairs[i];
    }
    *out = pairs;
    return MF_OK;
}

static mf_status dump_dict(dumper *d, const mfi_dict *dict)
{
    mfi_pair *pairs = dict->pairs;
    if (!dict->n) {
        mfi_text_own(&d->text, "{}");
        return MF_OK;
    }
    if (d->sorted)
        MFI_TRY(sort_pairs(d, dict, &pairs));
    mfi_text_own(&d->text, "{");
    d->level++;
    for (size_t i = 0; i < dict->n; i++) {
        if (i)
            mfi_text_str(&d->text, d->item);
        dump_line(d);
        MFI_TRY(dump_key(d, &pairs[i].key));
        mfi_text_str(&d->text, d->key);
        MFI_TRY(dump(d, &pairs[i].value));
    }
    d->level--;
    dump_line(d);
    mfi_text_own(&d->text, "}");
    return MF_OK;
}

static mf_status dump(dumper *d, const mfi_value *v)
{
    mf_status status = MF_OK;
    MFI_TRY(mfi_tpl_enter(d->t));
    switch (v->type) {
    case MFI_V_NONE:
        mfi_text_own(&d->text, "null");
        break;
    case MFI_V_BOOL:
        mfi_text_own(&d->text, v->boolean ? "true" : "false");
        break;
    case MFI_V_INT:
        mfi_text_value(&d->text, v);
        break;
    case MFI_V_FLOAT:
        dump_float(d, v->number);
        break;
    case MFI_V_STR:
        dump_string(d, v->str);
        break;
    case MFI_V_LIST:
    case MFI_V_TUPLE:
        status = dump_list(d, v->list);
        break;
    case MFI_V_DICT:
        status = dump_dict(d, v->dict);
        break;
    case MFI_V_UNDEFINED:
        status = mfi_fail_undefined(d->t, v);
        break;
    default:
        status = mfi_tpl_fail(d->t, "tojson: a %s is no JSON", mfi_type_name(v));
        break;
    }
    d->t->depth--;
    return status == MF_OK ? mfi_text_check(&d->text) : status;
}

/* None, a number of blanks, or a text. */
static mf_status take_indent(dumper *d, const mfi_value *v)
{
    int64_t n;
    mfi_value text;
    if (v->type == MFI_V_ABSENT || v->type == MFI_V_NONE)
        return MF_OK;
    if (!mfi_integer(v, &n))
        return mfi_arg_str(d->t, "tojson", v, &d->indent);
    MFI_TRY(mfi_own_string(d->t, " ", 1, &text));
    mfi_text blanks = mfi_text_begin(d->t);
    mfi_text_fill(&blanks, text.str, n > 0 ? (size_t)n : 0);
    MFI_TRY(mfi_text_done(&blanks, &text));
    d->indent = text.str;
    return MF_OK;
}

static mf_status take_separators(dumper *d, const mfi_value *v)
{
    mfi_value item, key;
    mfi_list *list;
    if (v->type == MFI_V_ABSENT || v->type == MFI_V_NONE) {
        MFI_TRY(mfi_own_string(d->t, ", ", d->indent ? 1 : 2, &item));
        MFI_TRY(mfi_own_string(d->t, ": ", 2, &key));
    } else {
        MFI_TRY(mfi_iterate(d->t, v, &list));
        if (list->n != 2)
            return mfi_tpl_fail(d->t, "tojson: separators are two");
        item = list->items[0];
        key = list->items[1];
    }
    MFI_TRY(mfi_arg_str(d->t, "tojson", &item, &d->item));
    return mfi_arg_str(d->t, "tojson", &key, &d->key);
}

mf_status mfi_filter_tojson(mfi_tpl *t, const mfi_value *v, const mfi_args *args, mfi_value *out)
{
    mfi_value arg[4];
    MFI_TRY(mfi_bind(t, "tojson", args, "ensure_ascii indent separators sort_keys", 0, arg));
    dumper d = {.t = t, .ascii = mfi_truth(&arg[0]), .sorted = mfi_truth(&arg[3])};
    d.text = mfi_text_begin(t);
    MFI_TRY(take_indent(&d, &arg[1]));
    MFI_TRY(take_separators(&d, &arg[2]));
    MFI_TRY(dump(&d, v));
    return mfi_text_done(&d.text, out);
}
