/* Values of the template language: making them, truth, going through them, failing with them.
 *
 * Called by the evaluator and the built-ins. All memory is the rendering's. */
#include "text/template_int.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- failing, bounds ---- */

static mf_status fail_with(const mfi_tpl *t, mf_status status, const char *tail, const char *fmt,
                           va_list args)
{
    char message[MF_ERROR_MESSAGE_BYTES];
    vsnprintf(message, sizeof message, fmt, args);
    return mfi_fail(t->err, status, "chat template line %u: %s%s", t->line, message, tail);
}

mf_status mfi_tpl_fail(const mfi_tpl *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    mf_status status = fail_with(t, MF_ERR_ARGUMENT, "", fmt, args);
    va_end(args);
    return status;
}

mf_status mfi_tpl_unsupported(const mfi_tpl *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    mf_status status = fail_with(t, MF_ERR_UNSUPPORTED, " is not supported", fmt, args);
    va_end(args);
    return status;
}

mf_status mfi_tpl_no_memory(const mfi_tpl *t)
{
    if (t->arena.max_bytes && t->arena.bytes == t->arena.max_bytes)
        return mfi_fail(t->err, MF_ERR_LIMIT, "chat template line %u: too much memory", t->line);
    return mfi_fail(t->err, MF_ERR_NO_MEMORY, "chat template line %u: out of memory", t->line);
}

mf_status mfi_tpl_charge(mfi_tpl *t, uint64_t steps)
{
    t->n_steps += steps;
    if (t->n_steps > MFI_MAX_TEMPLATE_STEPS)
        return mfi_fail(t->err, MF_ERR_LIMIT, "chat template line %u: too many steps", t->line);
    return MF_OK;
}

mf_status mfi_tpl_enter(mfi_tpl *t)
{
    if (++t->depth > MFI_MAX_TEMPLATE_NESTING)
        return mfi_fail(t->err, MF_ERR_LIMIT, "chat template line %u: nested too deeply", t->line);
    return mfi_tpl_charge(t, 1);
}

const char *mfi_type_name(const mfi_value *v)
{
    static const char *const names[MFI_V_N_TYPES] = {
        [MFI_V_ABSENT] = "Undefined",   [MFI_V_UNDEFINED] = "Undefined",
        [MFI_V_NONE] = "None",          [MFI_V_BOOL] = "bool object",
        [MFI_V_INT] = "int object",     [MFI_V_FLOAT] = "float object",
        [MFI_V_STR] = "str object",     [MFI_V_LIST] = "list object",
        [MFI_V_TUPLE] = "tuple object", [MFI_V_RANGE] = "range object",
        [MFI_V_VIEW] = "dict view",     [MFI_V_DICT] = "dict object",
        [MFI_V_GEN] = "generator",      [MFI_V_NAMESPACE] = "namespace",
        [MFI_V_LOOP] = "loop",          [MFI_V_MACRO] = "macro",
        [MFI_V_METHOD] = "method",      [MFI_V_FUNCTION] = "function",
        [MFI_V_CYCLER] = "cycler",      [MFI_V_JOINER] = "joiner",
    };
    return names[v->type];
}

/* ---- undefined ---- */

mf_status mfi_undefined_name(mfi_tpl *t, const mfi_str *name, mfi_value *out)
{
    mfi_undefined *u = mfi_arena_alloc(&t->arena, sizeof *u);
    if (!u)
        return mfi_tpl_no_memory(t);
    *u = (mfi_undefined){.name = name};
    *out = (mfi_value){.type = MFI_V_UNDEFINED, .undefined = u};
    return MF_OK;
}

mf_status mfi_undefined_attr(mfi_tpl *t, const mfi_value *owner, const mfi_value *name,
                             mfi_value *out)
{
    mfi_value text;
    mfi_undefined *u = mfi_arena_alloc(&t->arena, sizeof *u);
    if (!u)
        return mfi_tpl_no_memory(t);
    MFI_TRY(mfi_to_string(t, name, &text));
    *u = (mfi_undefined){.name = text.str, .owner = mfi_type_name(owner)};
    *out = (mfi_value){.type = MFI_V_UNDEFINED, .undefined = u};
    return MF_OK;
}

mf_status mfi_fail_undefined(const mfi_tpl *t, const mfi_value *v)
{
    const mfi_undefined *u = v->type == MFI_V_UNDEFINED ? v->undefined : NULL;
    if (!u)
        return mfi_tpl_fail(t, "a value is undefined");
    if (u->owner)
        return mfi_tpl_fail(t, "'%s' has no attribute '%.200s'", u->owner, u->name->data);
    return mfi_tpl_fail(t, "'%.200s' is undefined", u->name->data);
}

/* ---- strings, lists ---- */

mf_status mfi_own_string(mfi_tpl *t, const char *text, size_t n, mfi_value *out)
{
    const mfi_str *str = mfi_str_new(&t->arena, text, n, false);
    if (!str)
        return mfi_tpl_no_memory(t);
    *out = mfi_string(str, false);
    return MF_OK;
}

mf_status mfi_list_new(mfi_tpl *t, mfi_value_type type, size_t cap, mfi_value *out)
{
    mfi_list *list = mfi_arena_alloc(&t->arena, sizeof *list);
    mfi_value *items = NULL;
    if (cap && cap <= SIZE_MAX / 2 / sizeof *items)
        items = mfi_arena_alloc(&t->arena, cap * sizeof *items);
    if (!list || (cap && !items))
        return mfi_tpl_no_memory(t);
    *list = (mfi_list){.items = items, .cap = cap};
    *out = (mfi_value){.type = (uint8_t)type, .list = list};
    return MF_OK;
}

mf_status mfi_list_push(mfi_tpl *t, mfi_list *list, const mfi_value *v)
{
    if (list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 8;
        mfi_value *items = mfi_arena_alloc(&t->arena, cap * sizeof *items);
        if (!items)
            return mfi_tpl_no_memory(t);
        if (list->n)
            memcpy(items, list->items, list->n * sizeof *items);
        list->items = items;
        list->cap = cap;
    }
    list->items[list->n++] = *v;
    return mfi_tpl_charge(t, 1);
}

mf_status mfi_tuple2(mfi_tpl *t, const mfi_value *a, const mfi_value *b, mfi_value *out)
{
    MFI_TRY(mfi_list_new(t, MFI_V_TUPLE, 2, out));
    out->list->items[0] = *a;
    out->list->items[1] = *b;
    out->list->n = 2;
    return MF_OK;
}

/* ---- dicts ---- */

mf_status mfi_dict_new(mfi_tpl *t, mfi_value_type type, size_t cap, mfi_value *out)
{
    mfi_dict *dict = mfi_arena_alloc(&t->arena, sizeof *dict);
    mfi_pair *pairs = NULL;
    if (cap && cap <= SIZE_MAX / 2 / sizeof *pairs)
        pairs = mfi_arena_alloc(&t->arena, cap * sizeof *pairs);
    if (!dict || (cap && !pairs))
        return mfi_tpl_no_memory(t);
    *dict = (mfi_dict){.pairs = pairs, .cap = cap};
    *out = (mfi_value){.type = (uint8_t)type, .dict = dict};
    return MF_OK;
}

mf_status mfi_dict_append(mfi_tpl *t, mfi_dict *dict, const mfi_value *key, const mfi_value *v)
{
    if (dict->n == dict->cap) {
        size_t cap = dict->cap ? 2 * dict->cap : 8;
        mfi_pair *pairs = mfi_arena_alloc(&t->arena, cap * sizeof *pairs);
        if (!pairs)
            return mfi_tpl_no_memory(t);
        if (dict->n)
            memcpy(pairs, dict->pairs, dict->n * sizeof *pairs);
        dict->pairs = pairs;
        dict->cap = cap;
    }
    dict->pairs[dict->n++] = (mfi_pair){*key, *v};
    return mfi_tpl_charge(t, 1);
}

const mfi_value *mfi_dict_get(const mfi_dict *dict, const mfi_str *key)
{
    for (size_t i = 0; i < dict->n; i++)
        if (dict->pairs[i].key.type == MFI_V_STR && mfi_str_same(dict->pairs[i].key.str, key))
            return &dict->pairs[i].value;
    return NULL;
}

/* What Python can hash. */
mf_status mfi_check_key(mfi_tpl *t, const mfi_value *key)
{
    if (key->type == MFI_V_LIST || key->type == MFI_V_DICT || key->type == MFI_V_VIEW)
        return mfi_tpl_fail(t, "a %s can't be a key", mfi_type_name(key));
    if (key->type != MFI_V_TUPLE)
        return MF_OK;
    MFI_TRY(mfi_tpl_enter(t));
    for (size_t i = 0; i < key->list->n; i++)
        MFI_TRY(mfi_check_key(t, &key->list->items[i]));
    t->depth--;
    return MF_OK;
}

mf_status mfi_dict_find(mfi_tpl *t, const mfi_dict *dict, const mfi_value *key, size_t *at)
{
    *at = SIZE_MAX;
    MFI_TRY(mfi_check_key(t, key));
    MFI_TRY(mfi_tpl_charge(t, dict->n / 32));
    for (size_t i = 0; i < dict->n; i++) {
        bool same;
        if (key->type == MFI_V_STR && dict->pairs[i].key.type == MFI_V_STR)
            same = mfi_str_same(dict->pairs[i].key.str, key->str);
        else
            MFI_TRY(mfi_equal(t, &dict->pairs[i].key, key, &same));
        if (same) {
            *at = i;
            return MF_OK;
        }
    }
    return MF_OK;
}

mf_status mfi_dict_put(mfi_tpl *t, mfi_dict *dict, const mfi_value *key, const mfi_value *v)
{
    size_t at;
    MFI_TRY(mfi_dict_find(t, dict, key, &at));
    if (at == SIZE_MAX)
        return mfi_dict_append(t, dict, key, v);
    dict->pairs[at].value = *v;
    return MF_OK;
}

/* ---- properties ---- */

bool mfi_truth(const mfi_value *v)
{
    switch (v->type) {
    case MFI_V_ABSENT:
    case MFI_V_UNDEFINED:
    case MFI_V_NONE:
        return false;
    case MFI_V_BOOL:
        return v->boolean;
    case MFI_V_INT:
        return v->integer != 0;
    case MFI_V_FLOAT:
        return v->number != 0;
    case MFI_V_STR:
        return v->str->n != 0;
    case MFI_V_LIST:
    case MFI_V_TUPLE:
    case MFI_V_RANGE:
    case MFI_V_VIEW:
        return v->list->n != 0;
    case MFI_V_DICT:
        return v->dict->n != 0;
    default:
        return true;
    }
}

bool mfi_integer(const mfi_value *v, int64_t *out)
{
    if (v->type != MFI_V_BOOL && v->type != MFI_V_INT)
        return false;
    *out = v->type == MFI_V_BOOL ? v->boolean : v->integer;
    return true;
}

bool mfi_number(const mfi_value *v, double *out)
{
    int64_t integer;
    if (v->type == MFI_V_FLOAT)
        *out = v->number;
    else if (mfi_integer(v, &integer))
        *out = (double)integer;
    else
        return false;
    return true;
}

bool mfi_is_sized(const mfi_value *v)
{
    return v->type == MFI_V_UNDEFINED || v->type == MFI_V_STR || mfi_is_list(v) ||
           v->type == MFI_V_DICT;
}

/* ---- going through ---- */

static mf_status iterate_chars(mfi_tpl *t, const mfi_str *str, mfi_list **list)
{
    mfi_value all, c;
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, str->n_chars, &all));
    for (size_t at = 0; at < str->n;) {
        size_t next = at + 1;
        while (next < str->n && ((unsigned char)str->data[next] & 0xc0) == 0x80)
            next++;
        MFI_TRY(mfi_str_sub(t, str, at, next, &c));
        MFI_TRY(mfi_list_push(t, all.list, &c));
        at = next;
    }
    *list = all.list;
    return MF_OK;
}

static mf_status iterate_keys(mfi_tpl *t, const mfi_dict *dict, mfi_list **list)
{
    mfi_value all;
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, dict->n, &all));
    for (size_t i = 0; i < dict->n; i++)
        MFI_TRY(mfi_list_push(t, all.list, &dict->pairs[i].key));
    *list = all.list;
    return MF_OK;
}

/* The rest of it; then it is used up. */
static mf_status iterate_gen(mfi_tpl *t, struct mfi_gen *gen, mfi_list **list)
{
    mfi_value all;
    if (!gen->list) {
        MFI_TRY(mfi_tpl_enter(t));
        MFI_TRY(gen->fn(t, &gen->v, &gen->args, &all));
        t->depth--;
        gen->list = all.list;
    }
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, 0, &all));
    if (gen->next < gen->list->n) {
        all.list->items = gen->list->items + gen->next;
        all.list->n = all.list->cap = gen->list->n - gen->next;
        gen->next = gen->list->n;
    }
    *list = all.list;
    return MF_OK;
}

mf_status mfi_iterate(mfi_tpl *t, const mfi_value *v, mfi_list **list)
{
    mfi_value empty;
    switch (v->type) {
    case MFI_V_UNDEFINED:
        MFI_TRY(mfi_list_new(t, MFI_V_LIST, 0, &empty));
        *list = empty.list;
        return MF_OK;
    case MFI_V_STR:
        return iterate_chars(t, v->str, list);
    case MFI_V_LIST:
    case MFI_V_TUPLE:
    case MFI_V_RANGE:
    case MFI_V_VIEW:
        *list = v->list;
        return MF_OK;
    case MFI_V_DICT:
        return iterate_keys(t, v->dict, list);
    case MFI_V_GEN:
        return iterate_gen(t, v->gen, list);
    default:
        return mfi_tpl_fail(t, "a %s can't be iterated over", mfi_type_name(v));
    }
}

mf_status mfi_length(mfi_tpl *t, const mfi_value *v, int64_t *n)
{
    switch (v->type) {
    case MFI_V_UNDEFINED:
        *n = 0;
        return MF_OK;
    case MFI_V_STR:
        *n = (int64_t)v->str->n_chars;
        return MF_OK;
    case MFI_V_DICT:
        *n = (int64_t)v->dict->n;
        return MF_OK;
    default:
        if (!mfi_is_list(v))
            return mfi_tpl_fail(t, "a %s has no length", mfi_type_name(v));
        *n = (int64_t)v->list->n;
        return MF_OK;
    }
}
