/* Methods of lists and dicts in templates, and the table of all methods; those of strings are in
 * template_strmethods.c.
 *
 * transformers' sandbox refuses what changes a list or a dict; some published templates need
 * append, extend, insert, pop, update and setdefault, and a rendering's variables are its own, so
 * these work here. Called by template_access.c. */
#include "text/template_methods.h"

#include <string.h>

/* ---- lists ---- */

static mf_status list_append(mfi_tpl *t, const mfi_value *self, const mfi_args *args,
                             mfi_value *out)
{
    mfi_value arg[1];
    MFI_TRY(mfi_bind(t, "append", args, "object", 1, arg));
    *out = mfi_none();
    return mfi_list_push(t, self->list, &arg[0]);
}

static mf_status list_extend(mfi_tpl *t, const mfi_value *self, const mfi_args *args,
                             mfi_value *out)
{
    mfi_value arg[1];
    mfi_list *more;
    MFI_TRY(mfi_bind(t, "extend", args, "iterable", 1, arg));
    MFI_TRY(mfi_iterate(t, &arg[0], &more));
    *out = mfi_none();
    for (size_t i = 0, n = more->n; i < n; i++) /* n: it may be the list itself */
        MFI_TRY(mfi_list_push(t, self->list, &more->items[i]));
    return MF_OK;
}

static mf_status list_insert(mfi_tpl *t, const mfi_value *self, const mfi_args *args,
                             mfi_value *out)
{
    mfi_value arg[2];
    int64_t at;
    mfi_list *list = self->list;
    MFI_TRY(mfi_bind(t, "insert", args, "index object", 2, arg));
    MFI_TRY(mfi_arg_int(t, "insert", &arg[0], 0, &at));
    int64_t n = (int64_t)list->n;
    at = at < 0 ? MFI_MAX(at, -n) + n : MFI_MIN(at, n);
    *out = mfi_none();
    MFI_TRY(mfi_tpl_charge(t, list->n / 32));
    MFI_TRY(mfi_list_push(t, list, &arg[1]));
    memmove(list->items + at + 1, list->items + at, (size_t)(n - at) * sizeof *list->items);
    list->items[at] = arg[1];
    return MF_OK;
}

static mf_status list_pop(mfi_tpl *t, const mfi_value *self, const mfi_args *args, mfi_value *out)
{
    mfi_value arg[1];
    int64_t at;
    mfi_list *list = self->list;
    MFI_TRY(mfi_bind(t, "pop", args, "index", 0, arg));
    MFI_TRY(mfi_arg_int(t, "pop", &arg[0], -1, &at));
    int64_t n = (int64_t)list->n;
    at += at < 0 ? n : 0;
    if (at < 0 || at >= n)
        return mfi_tpl_fail(t, "pop: the list has no such item");
    *out = list->items[at];
    MFI_TRY(mfi_tpl_charge(t, list->n / 32));
    /* Elsewhere: a loop may be going through the items. */
    mfi_value shorter;
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, list->n, &shorter));
    memcpy(shorter.list->items, list->items, (size_t)at * sizeof *list->items);
    memcpy(shorter.list->items + at, list->items + at + 1,
           (size_t)(n - at - 1) * sizeof *list->items);
    list->items = shorter.list->items;
    list->n--;
    return MF_OK;
}

static mf_status find_index(mfi_tpl *t, const mfi_value *self, const mfi_value *v, int64_t *at,
                            int64_t *n)
{
    *at = -1;
    *n = 0;
    for (size_t i = 0; i < self->list->n; i++) {
        bool same;
        MFI_TRY(mfi_equal(t, &self->list->items[i], v, &same));
        *at = same && *at < 0 ? (int64_t)i : *at;
        *n += same;
    }
    return MF_OK;
}

static mf_status list_index(mfi_tpl *t, const mfi_value *self, const mfi_args *args, mfi_value *out)
{
    mfi_value arg[1];
    int64_t at, n;
    MFI_TRY(mfi_bind(t, "index", args, "value", 1, arg));
    MFI_TRY(find_index(t, self, &arg[0], &at, &n));
    *out = mfi_int(at);
    return at >= 0 ? MF_OK : mfi_tpl_fail(t, "index: the value isn't there");
}

static mf_status list_count(mfi_tpl *t, const mfi_value *self, const mfi_args *args, mfi_value *out)
{
    mfi_value arg[1];
    int64_t at, n;
    MFI_TRY(mfi_bind(t, "count", args, "value", 1, arg));
    MFI_TRY(find_index(t, self, &arg[0], &at, &n));
    *out = mfi_int(n);
    return MF_OK;
}

static mf_status list_copy(mfi_tpl *t, const mfi_value *self, const mfi_args *args, mfi_value *out)
{
    MFI_TRY(mfi_bind(t, "copy", args, "", 0, NULL));
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, self->list->n, out));
    for (size_t i = 0; i < self->list->n; i++)
        MFI_TRY(mfi_list_push(t, out->list, &self->list->items[i]));
    return MF_OK;
}

/* ---- dicts ---- */

static mf_status dict_get(mfi_tpl *t, const mfi_value *self, const mfi_args *args, mfi_value *out)
{
    mfi_value arg[2];
    size_t at;
    MFI_TRY(mfi_bind(t, "get", args, "key default", 1, arg));
    MFI_TRY(mfi_dict_find(t, self->dict, &arg[0], &at));
    if (at != SIZE_MAX)
        *out = self->dict->pairs[at].value;
    else
        *out = arg[1].type == MFI_V_ABSENT ? mfi_none() : arg[1];
    return MF_OK;
}

enum { VIEW_KEYS = 1, VIEW_VALUES = 2, VIEW_ITEMS = 3 };

static mf_status view(mfi_tpl *t, const mfi_value *self, const mfi_args *args, int what,
                      mfi_value *out)
{
    static const char *const names[] = {"", "dict_keys", "dict_values", "dict_items"};
    const mfi_dict *dict = self->dict;
    MFI_TRY(mfi_bind(t, names[what], args, "", 0, NULL));
    MFI_TRY(mfi_list_new(t, MFI_V_VIEW, dict->n, out));
    out->list->view = names[what];
    for (size_t i = 0; i < dict->n; i++) {
        mfi_value item = what == VIEW_KEYS ? dict->pairs[i].key : dict->pairs[i].value;
        if (what == VIEW_ITEMS)
            MFI_TRY(mfi_tuple2(t, &dict->pairs[i].key, &dict->pairs[i].value, &item));
        MFI_TRY(mfi_list_push(t, out->list, &item));
    }
    return MF_OK;
}

static mf_status dict_keys(mfi_tpl *t, const mfi_value *self, const mfi_args *args, mfi_value *out)
{
    return view(t, self, args, VIEW_KEYS, out);
}

static mf_status dict_values(mfi_tpl *t, const mfi_value *self, const mfi_args *args,
                             mfi_value *out)
{
    return view(t, self, args, VIEW_VALUES, out);
}

static mf_status dict_items(mfi_tpl *t, const mfi_value *self, const mfi_args *args, mfi_value *out)
{
    return view(t, self, args, VIEW_ITEMS, out);
}

mf_status mfi_dict_update(mfi_tpl *t, mfi_dict *dict, const mfi_args *args)
{
    mfi_list *list;
    if (args->n > 1)
        return mfi_tpl_fail(t, "a dict is made of at most one mapping");
    if (args->n && args->pos[0].type == MFI_V_UNDEFINED)
        return mfi_fail_undefined(t, &args->pos[0]);
    if (args->n && args->pos[0].type == MFI_V_DICT) {
        const mfi_dict *from = args->pos[0].dict;
        for (size_t i = 0; i < from->n; i++)
            MFI_TRY(mfi_dict_put(t, dict, &from->pairs[i].key, &from->pairs[i].value));
    } else if (args->n) {
        MFI_TRY(mfi_iterate(t, &args->pos[0], &list));
        for (size_t i = 0; i < list->n; i++) {
            mfi_list *pair;
            MFI_TRY(mfi_iterate(t, &list->items[i], &pair));
            if (pair->n != 2)
                return mfi_tpl_fail(t, "a dict is made of pairs");
            MFI_TRY(mfi_dict_put(t, dict, &pair->items[0], &pair->items[1]));
        }
    }
    for (size_t i = 0; i < args->n_kw; i++) {
        mfi_value key = mfi_string(args->kw[i].name, false);
        MFI_TRY(mfi_dict_put(t, dict, &key, &args->kw[i].value));
    }
    return MF_OK;
}

static mf_status dict_update(mfi_tpl *t, const mfi_value *self, const mfi_args *args,
                             mfi_value *out)
{
    *out = mfi_none();
    return mfi_dict_update(t, self->dict, args);
}

static mf_status dict_copy(mfi_tpl *t, const mfi_value *self, const mfi_args *args, mfi_value *out)
{
    MFI_TRY(mfi_bind(t, "copy", args, "", 0, NULL));
    MFI_TRY(mfi_dict_new(t, MFI_V_DICT, self->dict->n, out));
    for (size_t i = 0; i < self->dict->n; i++)
        MFI_TRY(
            mfi_dict_append(t, out->dict, &self->dict->pairs[i].key, &self->dict->pairs[i].value));
    return MF_OK;
}

static mf_status dict_pop(mfi_tpl *t, const mfi_value *self, const mfi_args *args, mfi_value *out)
{
    mfi_value arg[2];
    size_t at;
    mfi_dict *dict = self->dict;
    MFI_TRY(mfi_bind(t, "pop", args, "key default", 1, arg));
    MFI_TRY(mfi_dict_find(t, dict, &arg[0], &at));
    if (at == SIZE_MAX) {
        *out = arg[1];
        return arg[1].type != MFI_V_ABSENT ? MF_OK : mfi_tpl_fail(t, "pop: no such key");
    }
    *out = dict->pairs[at].value;
    dict->n--;
    memmove(dict->pairs + at, dict->pairs + at + 1, (dict->n - at) * sizeof *dict->pairs);
    return MF_OK;
}

static mf_status dict_setdefault(mfi_tpl *t, const mfi_value *self, const mfi_args *args,
                                 mfi_value *out)
{
    mfi_value arg[2];
    size_t at;
    MFI_TRY(mfi_bind(t, "setdefault", args, "key default", 1, arg));
    MFI_TRY(mfi_dict_find(t, self->dict, &arg[0], &at));
    if (at != SIZE_MAX) {
        *out = self->dict->pairs[at].value;
        return MF_OK;
    }
    *out = arg[1].type == MFI_V_ABSENT ? mfi_none() : arg[1];
    return mfi_dict_append(t, self->dict, &arg[0], out);
}

/* ---- cyclers ---- */

static mf_status cycler_next(mfi_tpl *t, const mfi_value *self, const mfi_args *args,
                             mfi_value *out)
{
    struct mfi_cycler *c = self->cycler;
    MFI_TRY(mfi_bind(t, "next", args, "", 0, NULL));
    *out = c->items[c->at];
    c->at = (c->at + 1) % c->n;
    return MF_OK;
}

static mf_status cycler_reset(mfi_tpl *t, const mfi_value *self, const mfi_args *args,
                              mfi_value *out)
{
    MFI_TRY(mfi_bind(t, "reset", args, "", 0, NULL));
    self->cycler->at = 0;
    *out = mfi_none();
    return MF_OK;
}

/* ---- looking up ---- */

static const mfi_method_entry list_methods[] = {
    {"append", list_append}, {"extend", list_extend}, {"insert", list_insert}, {"pop", list_pop},
    {"index", list_index},   {"count", list_count},   {"copy", list_copy},     {NULL, NULL},
};

static const mfi_method_entry tuple_methods[] = {
    {"index", list_index}, {"count", list_count}, {NULL, NULL}};

static const mfi_method_entry dict_methods[] = {
    {"get", dict_get},
    {"keys", dict_keys},
    {"values", dict_values},
    {"items", dict_items},
    {"copy", dict_copy},
    {"update", dict_update},
    {"pop", dict_pop},
    {"setdefault", dict_setdefault},
    {NULL, NULL},
};

static const mfi_method_entry cycler_methods[] = {
    {"next", cycler_next}, {"reset", cycler_reset}, {NULL, NULL}};

/* What Python has and the sandbox, or this, refuses. */
static bool is_refused(const mfi_value *v, const mfi_str *name)
{
    static const char *const of_lists[] = {"remove", "clear", "reverse", "sort", NULL};
    static const char *const of_dicts[] = {"clear", "popitem", "fromkeys", NULL};
    static const char *const of_strings[] = {"encode",    "format_map", "translate",
                                             "maketrans", "expandtabs", NULL};
    const char *const *names = v->type == MFI_V_LIST   ? of_lists
                               : v->type == MFI_V_DICT ? of_dicts
                               : v->type == MFI_V_STR  ? of_strings
                                                       : NULL;
    for (; names && *names; names++)
        if (mfi_str_is(name, *names))
            return true;
    return false;
}

mf_status mfi_method_of(mfi_tpl *t, const mfi_value *v, const mfi_str *name, mfi_value *out,
                        bool *found)
{
    const mfi_method_entry *entry = v->type == MFI_V_STR      ? mfi_str_methods
                                    : v->type == MFI_V_LIST   ? list_methods
                                    : v->type == MFI_V_TUPLE  ? tuple_methods
                                    : v->type == MFI_V_RANGE  ? tuple_methods
                                    : v->type == MFI_V_DICT   ? dict_methods
                                    : v->type == MFI_V_CYCLER ? cycler_methods
                                                              : NULL;
    while (entry && entry->name && !mfi_str_is(name, entry->name))
        entry++;
    mfi_filter_fn fn = entry && entry->name ? entry->fn : NULL;
    *found = fn || is_refused(v, name);
    if (v->type == MFI_V_CYCLER && mfi_str_is(name, "current")) {
        *found = true;
        *out = v->cycler->items[v->cycler->at];
    } else if (*found) {
        struct mfi_method *method = mfi_arena_alloc(&t->arena, sizeof *method);
        if (!method)
            return mfi_tpl_no_memory(t);
        *method = (struct mfi_method){.self = *v, .fn = fn, .name = name};
        *out = (mfi_value){.type = MFI_V_METHOD, .method = method};
    }
    return MF_OK;
}
