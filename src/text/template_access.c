/* Attributes, items and calls in templates, and the binding of arguments.
 *
 * What transformers' sandbox lets a template reach: items of dicts and lists, the methods of
 * strings, lists and dicts (template_methods.c), attributes of namespaces and loops. Called by the
 * evaluator. */
#include "text/template_int.h"

#include <string.h>

/* ---- arguments ---- */

mf_status mfi_arg_int(mfi_tpl *t, const char *what, const mfi_value *v, int64_t absent,
                      int64_t *out)
{
    *out = absent;
    if (v->type == MFI_V_ABSENT || mfi_integer(v, out))
        return MF_OK;
    if (v->type == MFI_V_UNDEFINED)
        return mfi_fail_undefined(t, v);
    return mfi_tpl_fail(t, "%s: a %s is no integer", what, mfi_type_name(v));
}

mf_status mfi_arg_str(mfi_tpl *t, const char *what, const mfi_value *v, const mfi_str **out)
{
    if (v->type == MFI_V_UNDEFINED)
        return mfi_fail_undefined(t, v);
    if (v->type != MFI_V_STR)
        return mfi_tpl_fail(t, "%s: a %s is no string", what, mfi_type_name(v));
    *out = v->str;
    return MF_OK;
}

/* The place of a name among names with blanks between, or SIZE_MAX. */
static size_t find_name(const char *names, const mfi_str *name)
{
    size_t i = 0;
    for (const char *p = names; *p; i++) {
        size_t n = strcspn(p, " ");
        if (n == name->n && memcmp(p, name->data, n) == 0)
            return i;
        p += n + (p[n] == ' ');
    }
    return SIZE_MAX;
}

static size_t count_names(const char *names)
{
    size_t n = *names != 0;
    for (; *names; names++)
        n += *names == ' ';
    return n;
}

mf_status mfi_bind(mfi_tpl *t, const char *what, const mfi_args *args, const char *names,
                   size_t n_required, mfi_value *out)
{
    size_t n = count_names(names);
    if (args->n > n)
        return mfi_tpl_fail(t, "%s takes at most %zu arguments", what, n);
    for (size_t i = 0; i < n; i++)
        out[i] = i < args->n ? args->pos[i] : (mfi_value){.type = MFI_V_ABSENT};
    for (size_t i = 0; i < args->n_kw; i++) {
        size_t at = find_name(names, args->kw[i].name);
        if (at == SIZE_MAX)
            return mfi_tpl_fail(t, "%s has no argument '%.60s'", what, args->kw[i].name->data);
        if (out[at].type != MFI_V_ABSENT)
            return mfi_tpl_fail(t, "%s: '%.60s' is given twice", what, args->kw[i].name->data);
        out[at] = args->kw[i].value;
    }
    for (size_t i = 0; i < n_required; i++)
        if (out[i].type == MFI_V_ABSENT)
            return mfi_tpl_fail(t, "%s: argument %zu is missing", what, i + 1);
    return MF_OK;
}

/* ---- items ---- */

/* *found: the item is there; else *out is left alone. */
static mf_status find_item(mfi_tpl *t, const mfi_value *v, const mfi_value *key, mfi_value *out,
                           bool *found)
{
    int64_t i;
    size_t at;
    *found = false;
    if (v->type == MFI_V_DICT) {
        if (key->type == MFI_V_LIST || key->type == MFI_V_DICT || key->type == MFI_V_VIEW)
            return MF_OK;
        MFI_TRY(mfi_dict_find(t, v->dict, key, &at));
        if ((*found = at != SIZE_MAX))
            *out = v->dict->pairs[at].value;
        return MF_OK;
    }
    bool list = v->type == MFI_V_LIST || v->type == MFI_V_TUPLE || v->type == MFI_V_RANGE;
    if (!mfi_integer(key, &i) || !(list || v->type == MFI_V_STR))
        return MF_OK;
    int64_t n = (int64_t)(list ? v->list->n : v->str->n_chars);
    i += i < 0 ? n : 0;
    if (i < 0 || i >= n)
        return MF_OK;
    *found = true;
    if (list) {
        *out = v->list->items[i];
        return MF_OK;
    }
    MFI_TRY(mfi_str_sub(t, v->str, mfi_str_offset(v->str, (size_t)i),
                        mfi_str_offset(v->str, (size_t)i + 1), out));
    out->markup = v->markup;
    return MF_OK;
}

/* What is no item: namespaces, loops, methods, ... */
static mf_status find_attr(mfi_tpl *t, const mfi_value *v, const mfi_str *name, mfi_value *out,
                           bool *found)
{
    const mfi_value *item;
    *found = true;
    switch (v->type) {
    case MFI_V_NAMESPACE:
        item = mfi_dict_get(v->dict, name);
        *found = item != NULL;
        if (item)
            *out = *item;
        return MF_OK;
    case MFI_V_LOOP:
        MFI_TRY(mfi_loop_attr(t, v->loop, name, out));
        *found = out->type != MFI_V_ABSENT;
        return MF_OK;
    case MFI_V_MACRO:
        *found = mfi_str_is(name, "name") && mfi_macro_name(v->macro);
        if (*found)
            *out = mfi_string(mfi_macro_name(v->macro), false);
        return MF_OK;
    case MFI_V_TUPLE:
        if (v->list->grouped && mfi_str_is(name, "grouper")) {
            *out = v->list->items[0];
            return MF_OK;
        }
        if (v->list->grouped && mfi_str_is(name, "list")) {
            *out = v->list->items[1];
            return MF_OK;
        }
        return mfi_method_of(t, v, name, out, found);
    default:
        return mfi_method_of(t, v, name, out, found);
    }
}

mf_status mfi_get_attr(mfi_tpl *t, const mfi_value *v, const mfi_str *name, mfi_value *out)
{
    bool found;
    mfi_value key = mfi_string(name, false);
    if (v->type == MFI_V_UNDEFINED)
        return mfi_fail_undefined(t, v);
    MFI_TRY(find_attr(t, v, name, out, &found));
    if (!found)
        MFI_TRY(find_item(t, v, &key, out, &found));
    return found ? MF_OK : mfi_undefined_attr(t, v, &key, out);
}

mf_status mfi_get_item(mfi_tpl *t, const mfi_value *v, const mfi_value *key, mfi_value *out)
{
    bool found;
    if (v->type == MFI_V_UNDEFINED)
        return mfi_fail_undefined(t, v);
    MFI_TRY(find_item(t, v, key, out, &found));
    if (!found && key->type == MFI_V_STR)
        MFI_TRY(find_attr(t, v, key->str, out, &found));
    return found ? MF_OK : mfi_undefined_attr(t, v, key, out);
}

/* ---- calls ---- */

static mf_status call_joiner(mfi_tpl *t, const mfi_value *f, const mfi_args *args, mfi_value *out)
{
    struct mfi_cycler *c = f->cycler;
    MFI_TRY(mfi_bind(t, "joiner", args, "", 0, NULL));
    if (c->at++)
        *out = c->items[0];
    else
        return mfi_own_string(t, "", 0, out);
    return MF_OK;
}

mf_status mfi_call(mfi_tpl *t, const mfi_value *f, const mfi_args *args, mfi_value *out)
{
    mf_status status;
    MFI_TRY(mfi_tpl_enter(t));
    switch (f->type) {
    case MFI_V_UNDEFINED:
        return mfi_fail_undefined(t, f);
    case MFI_V_FUNCTION:
        status = f->function->fn(t, args, out);
        break;
    case MFI_V_METHOD:
        if (!f->method->fn)
            return mfi_tpl_unsupported(t, "the method %.60s of a %s", f->method->name->data,
                                       mfi_type_name(&f->method->self));
        status = f->method->fn(t, &f->method->self, args, out);
        break;
    case MFI_V_MACRO:
        status = mfi_macro_call(t, f->macro, args, out);
        break;
    case MFI_V_LOOP:
        status = mfi_loop_call(t, f->loop, args, out);
        break;
    case MFI_V_JOINER:
        status = call_joiner(t, f, args, out);
        break;
    default:
        return mfi_tpl_fail(t, "a %s can't be called", mfi_type_name(f));
    }
    t->depth--;
    return status;
}
