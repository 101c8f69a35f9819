/* Filters of the template language that go through sequences.
 *
 * Called by name (mfi_apply_filter). Those that jinja2 writes as generators are marked lazy: they
 * run when somebody goes through what they gave, once. */
#include "text/template_int.h"

#include <string.h>

#define FILTER(name)                                                                               \
    static mf_status seq_##name(mfi_tpl *t, const mfi_value *v, const mfi_args *args,              \
                                mfi_value *out)

/* ---- attributes of items: "a.b.0" ---- */

/* *absent stands in for what is undefined; NULL: nothing does. */
static mf_status get_path(mfi_tpl *t, const mfi_value *v, const mfi_value *path,
                          const mfi_value *absent, mfi_value *out)
{
    *out = *v;
    if (path->type == MFI_V_ABSENT || path->type == MFI_V_NONE)
        return MF_OK;
    if (path->type == MFI_V_INT)
        MFI_TRY(mfi_get_item(t, v, path, out));
    const mfi_str *str = NULL;
    if (path->type != MFI_V_INT)
        MFI_TRY(mfi_arg_str(t, "an attribute's name", path, &str));
    for (size_t at = 0; str && at <= str->n;) {
        const char *dot = memchr(str->data + at, '.', str->n - at);
        size_t end = dot ? (size_t)(dot - str->data) : str->n;
        mfi_value part, index = mfi_int(0), inner = *out;
        bool large;
        MFI_TRY(mfi_str_sub(t, str, at, end, &part));
        bool number = end > at && strspn(str->data + at, "0123456789") >= end - at &&
                      mfi_parse_int(part.str, 10, &index.integer, &large) && !large;
        MFI_TRY(mfi_get_item(t, &inner, number ? &index : &part, out));
        if (absent && out->type == MFI_V_UNDEFINED)
            *out = *absent;
        at = end + 1;
    }
    if (absent && out->type == MFI_V_UNDEFINED)
        *out = *absent;
    return MF_OK;
}

/* Strings without their case, inside tuples, too. */
static mf_status fold(mfi_tpl *t, const mfi_value *v, bool case_sensitive, mfi_value *out)
{
    *out = *v;
    if (case_sensitive || v->type != MFI_V_STR)
        return MF_OK;
    mfi_text text = mfi_text_begin(t);
    mfi_text_cased(&text, v->str, MFI_CASE_LOWER);
    return mfi_text_done(&text, out);
}

static mf_status key_of(mfi_tpl *t, const mfi_value *v, const mfi_value *path, bool case_sensitive,
                        mfi_value *out)
{
    mfi_value item;
    MFI_TRY(get_path(t, v, path, NULL, &item));
    return fold(t, &item, case_sensitive, out);
}

/* For sort: a list of the attributes that stand in path with commas between. Lists are equal where
 * both have something undefined, which by itself has no order. */
static mf_status keys_of(mfi_tpl *t, const mfi_value *v, const mfi_value *path, bool case_sensitive,
                         mfi_value *out)
{
    mfi_value item, part = *path;
    const mfi_str *names = path->type == MFI_V_STR ? path->str : NULL;
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, 1, out));
    for (size_t at = 0; at <= (names ? names->n : 0);) {
        size_t end = 0;
        if (names) {
            const char *comma = memchr(names->data + at, ',', names->n - at);
            end = comma ? (size_t)(comma - names->data) : names->n;
            MFI_TRY(mfi_str_sub(t, names, at, end, &part));
        }
        MFI_TRY(key_of(t, v, &part, case_sensitive, &item));
        MFI_TRY(mfi_list_push(t, out->list, &item));
        at = end + 1;
    }
    return MF_OK;
}

/* ---- sorting ---- */

typedef struct keyed {
    mfi_value key, value;
} keyed;

/* Stable; equal items stay in their order also when sorted backwards, as in Python. */
static mf_status merge_sort(mfi_tpl *t, keyed *items, keyed *scratch, size_t n, bool backwards)
{
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t left = 0; left < n; left += 2 * width) {
            size_t middle = MFI_MIN(left + width, n), right = MFI_MIN(left + 2 * width, n);
            size_t i = left, k = middle;
            for (size_t at = left; at < right; at++) {
                int order = 0;
                bool unordered;
                if (i < middle && k < right) {
                    MFI_TRY(mfi_tpl_charge(t, 1));
                    MFI_TRY(mfi_compare(t, &items[k].key, &items[i].key, &order, &unordered));
                    order = unordered ? 0 : backwards ? -order : order;
                }
                bool take_right = i == middle || (k < right && order < 0);
                scratch[at] = take_right ? items[k++] : items[i++];
            }
        }
        memcpy(items, scratch, n * sizeof *items);
    }
    return MF_OK;
}

typedef mf_status (*key_fn)(mfi_tpl *t, const mfi_value *v, const mfi_value *path,
                            bool case_sensitive, mfi_value *out);

static mf_status sort_by(mfi_tpl *t, const mfi_list *list, key_fn key, const mfi_value *path,
                         bool case_sensitive, bool backwards, keyed **out)
{
    keyed *items = mfi_arena_alloc(&t->arena, 2 * (list->n + 1) * sizeof *items);
    if (!items)
        return mfi_tpl_no_memory(t);
    for (size_t i = 0; i < list->n; i++) {
        items[i].value = list->items[i];
        MFI_TRY(key(t, &list->items[i], path, case_sensitive, &items[i].key));
    }
    *out = items;
    return merge_sort(t, items, items + list->n + 1, list->n, backwards);
}

FILTER(sort)
{
    mfi_value arg[3];
    mfi_list *list;
    keyed *items = NULL;
    MFI_TRY(mfi_bind(t, "sort", args, "reverse case_sensitive attribute", 0, arg));
    MFI_TRY(mfi_iterate(t, v, &list));
    MFI_TRY(sort_by(t, list, keys_of, &arg[2], mfi_truth(&arg[1]), mfi_truth(&arg[0]), &items));
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, list->n, out));
    for (size_t i = 0; i < list->n; i++)
        MFI_TRY(mfi_list_push(t, out->list, &items[i].value));
    return MF_OK;
}

FILTER(dictsort)
{
    mfi_value arg[3], all, pair, by;
    keyed *items = NULL;
    MFI_TRY(mfi_bind(t, "dictsort", args, "case_sensitive by reverse", 0, arg));
    bool value = arg[1].type == MFI_V_STR && mfi_str_is(arg[1].str, "value");
    if (arg[1].type != MFI_V_ABSENT && !value &&
        !(arg[1].type == MFI_V_STR && mfi_str_is(arg[1].str, "key")))
        return mfi_tpl_fail(t, "dictsort: by is key or value");
    if (v->type == MFI_V_UNDEFINED)
        return mfi_fail_undefined(t, v);
    if (v->type != MFI_V_DICT)
        return mfi_tpl_fail(t, "dictsort of a %s", mfi_type_name(v));
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, v->dict->n, &all));
    for (size_t i = 0; i < v->dict->n; i++) {
        MFI_TRY(mfi_tuple2(t, &v->dict->pairs[i].key, &v->dict->pairs[i].value, &pair));
        MFI_TRY(mfi_list_push(t, all.list, &pair));
    }
    by = mfi_int(value);
    MFI_TRY(sort_by(t, all.list, key_of, &by, mfi_truth(&arg[0]), mfi_truth(&arg[2]), &items));
    for (size_t i = 0; i < all.list->n; i++)
        all.list->items[i] = items[i].value;
    *out = all;
    return MF_OK;
}

FILTER(groupby)
{
    mfi_value arg[3], group = {.type = MFI_V_ABSENT}, last, key;
    mfi_list *list;
    MFI_TRY(mfi_bind(t, "groupby", args, "attribute default case_sensitive", 1, arg));
    bool sensitive = mfi_truth(&arg[2]);
    const mfi_value *absent = arg[1].type <= MFI_V_NONE ? NULL : &arg[1];
    MFI_TRY(mfi_iterate(t, v, &list));
    keyed *items = mfi_arena_alloc(&t->arena, 2 * (list->n + 1) * sizeof *items);
    if (!items)
        return mfi_tpl_no_memory(t);
    for (size_t i = 0; i < list->n; i++) {
        items[i].value = list->items[i];
        MFI_TRY(get_path(t, &list->items[i], &arg[0], absent, &key));
        MFI_TRY(fold(t, &key, sensitive, &items[i].key));
    }
    MFI_TRY(merge_sort(t, items, items + list->n + 1, list->n, false));
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, 0, out));
    for (size_t i = 0; i < list->n; i++) {
        bool same = false;
        if (i)
            MFI_TRY(mfi_equal(t, &last, &items[i].key, &same));
        if (!same) { /* the group goes by its first item's own spelling */
            mfi_value members;
            MFI_TRY(get_path(t, &items[i].value, &arg[0], absent, &key));
            MFI_TRY(mfi_list_new(t, MFI_V_LIST, 0, &members));
            MFI_TRY(mfi_tuple2(t, &key, &members, &group));
            group.list->grouped = true;
            MFI_TRY(mfi_list_push(t, out->list, &group));
        }
        last = items[i].key;
        MFI_TRY(mfi_list_push(t, group.list->items[1].list, &items[i].value));
    }
    return MF_OK;
}

static mf_status extreme(mfi_tpl *t, const mfi_value *v, const mfi_args *args, int sign,
                         mfi_value *out)
{
    mfi_value arg[2], best, key;
    mfi_list *list;
    MFI_TRY(mfi_bind(t, "min", args, "case_sensitive attribute", 0, arg));
    MFI_TRY(mfi_iterate(t, v, &list));
    *out = (mfi_value){.type = MFI_V_UNDEFINED};
    for (size_t i = 0; i < list->n; i++) {
        int order = -sign;
        bool unordered = false;
        MFI_TRY(key_of(t, &list->items[i], &arg[1], mfi_truth(&arg[0]), &key));
        if (i)
            MFI_TRY(mfi_compare(t, &key, &best, &order, &unordered));
        if (i && (unordered || order * sign >= 0))
            continue;
        best = key;
        *out = list->items[i];
    }
    return MF_OK;
}

FILTER(min)
{
    return extreme(t, v, args, 1, out);
}

FILTER(max)
{
    return extreme(t, v, args, -1, out);
}

/* Hashable values that differ, in the order they came. */
FILTER(unique)
{
    mfi_value arg[2], seen, key;
    mfi_list *list;
    MFI_TRY(mfi_bind(t, "unique", args, "case_sensitive attribute", 0, arg));
    MFI_TRY(mfi_iterate(t, v, &list));
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, 0, out));
    MFI_TRY(mfi_dict_new(t, MFI_V_DICT, 0, &seen));
    for (size_t i = 0; i < list->n; i++) {
        size_t at;
        MFI_TRY(key_of(t, &list->items[i], &arg[1], mfi_truth(&arg[0]), &key));
        MFI_TRY(mfi_dict_find(t, seen.dict, &key, &at));
        if (at != SIZE_MAX)
            continue;
        MFI_TRY(mfi_dict_append(t, seen.dict, &key, &key));
        MFI_TRY(mfi_list_push(t, out->list, &list->items[i]));
    }
    return MF_OK;
}

/* ---- ends, lengths, sums ---- */

FILTER(first)
{
    mfi_list *list;
    MFI_TRY(mfi_bind(t, "first", args, "", 0, NULL));
    MFI_TRY(mfi_iterate(t, v, &list));
    *out = list->n ? list->items[0] : (mfi_value){.type = MFI_V_UNDEFINED};
    if (v->type == MFI_V_GEN && list->n) /* only one is used up */
        v->gen->next = v->gen->list->n - list->n + 1;
    return MF_OK;
}

FILTER(last)
{
    mfi_list *list;
    MFI_TRY(mfi_bind(t, "last", args, "", 0, NULL));
    if (v->type == MFI_V_GEN)
        return mfi_tpl_fail(t, "last: a generator can't be reversed");
    MFI_TRY(mfi_iterate(t, v, &list));
    *out = list->n ? list->items[list->n - 1] : (mfi_value){.type = MFI_V_UNDEFINED};
    return MF_OK;
}

FILTER(length)
{
    *out = mfi_int(0);
    MFI_TRY(mfi_bind(t, "length", args, "", 0, NULL));
    return mfi_length(t, v, &out->integer);
}

FILTER(list)
{
    mfi_list *list;
    MFI_TRY(mfi_bind(t, "list", args, "", 0, NULL));
    MFI_TRY(mfi_iterate(t, v, &list));
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, list->n, out));
    for (size_t i = 0; i < list->n; i++)
        MFI_TRY(mfi_list_push(t, out->list, &list->items[i]));
    return MF_OK;
}

/* A reversed string is a string, anything else goes through once. */
FILTER(reverse)
{
    mfi_list *list;
    mfi_value all;
    MFI_TRY(mfi_bind(t, "reverse", args, "", 0, NULL));
    if (v->type == MFI_V_STR) {
        const mfi_value bounds[3] = {{.type = MFI_V_ABSENT}, {.type = MFI_V_ABSENT}, mfi_int(-1)};
        return mfi_slice(t, v, bounds, out);
    }
    MFI_TRY(mfi_iterate(t, v, &list));
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, list->n, &all));
    for (size_t i = list->n; i-- > 0;)
        MFI_TRY(mfi_list_push(t, all.list, &list->items[i]));
    *out = all;
    if (v->type == MFI_V_GEN)
        return MF_OK;
    struct mfi_gen *gen = mfi_arena_alloc(&t->arena, sizeof *gen);
    if (!gen)
        return mfi_tpl_no_memory(t);
    *gen = (struct mfi_gen){.list = all.list};
    *out = (mfi_value){.type = MFI_V_GEN, .gen = gen};
    return MF_OK;
}

FILTER(sum)
{
    mfi_value arg[2], item, total;
    mfi_list *list;
    MFI_TRY(mfi_bind(t, "sum", args, "attribute start", 0, arg));
    MFI_TRY(mfi_iterate(t, v, &list));
    total = arg[1].type == MFI_V_ABSENT ? mfi_int(0) : arg[1];
    if (total.type == MFI_V_STR)
        return mfi_tpl_fail(t, "sum can't join strings");
    for (size_t i = 0; i < list->n; i++) {
        mfi_value before = total;
        MFI_TRY(get_path(t, &list->items[i], &arg[0], NULL, &item));
        MFI_TRY(mfi_op_binary(t, MFI_OP_ADD, &before, &item, &total));
    }
    *out = total;
    return MF_OK;
}

FILTER(join)
{
    mfi_value arg[2], item;
    mfi_list *list;
    mfi_text text = mfi_text_begin(t);
    MFI_TRY(mfi_bind(t, "join", args, "d attribute", 0, arg));
    if (arg[0].type == MFI_V_ABSENT)
        MFI_TRY(mfi_own_string(t, "", 0, &arg[0]));
    MFI_TRY(mfi_to_string(t, &arg[0], &arg[0]));
    MFI_TRY(mfi_iterate(t, v, &list));
    for (size_t i = 0; i < list->n; i++) {
        MFI_TRY(get_path(t, &list->items[i], &arg[1], NULL, &item));
        if (i)
            mfi_text_str(&text, arg[0].str);
        mfi_text_value(&text, &item);
        MFI_TRY(mfi_tpl_charge(t, 1));
    }
    return mfi_text_done(&text, out);
}

FILTER(items)
{
    mfi_value pair;
    MFI_TRY(mfi_bind(t, "items", args, "", 0, NULL));
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, 0, out));
    if (v->type == MFI_V_UNDEFINED)
        return MF_OK;
    if (v->type != MFI_V_DICT)
        return mfi_tpl_fail(t, "items of a %s", mfi_type_name(v));
    for (size_t i = 0; i < v->dict->n; i++) {
        MFI_TRY(mfi_tuple2(t, &v->dict->pairs[i].key, &v->dict->pairs[i].value, &pair));
        MFI_TRY(mfi_list_push(t, out->list, &pair));
    }
    return MF_OK;
}

/* ---- map, select, reject ---- */

/* What follows the first n of the arguments. */
static mfi_args behind(const mfi_args *args, size_t n)
{
    return (mfi_args){n ? args->pos + n : args->pos, args->n - n, args->kw, args->n_kw};
}

static mf_status map_attribute(mfi_tpl *t, const mfi_list *list, const mfi_args *args,
                               mfi_value *out)
{
    mfi_value arg[2], item;
    MFI_TRY(mfi_bind(t, "map", args, "attribute default", 1, arg));
    const mfi_value *absent = arg[1].type <= MFI_V_NONE ? NULL : &arg[1];
    for (size_t i = 0; i < list->n; i++) {
        MFI_TRY(get_path(t, &list->items[i], &arg[0], absent, &item));
        MFI_TRY(mfi_list_push(t, out->list, &item));
    }
    return MF_OK;
}

FILTER(map)
{
    mfi_value item;
    mfi_list *list;
    const mfi_str *name;
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, 0, out));
    if (!mfi_truth(v)) /* also of none, and of whatever the arguments are */
        return MF_OK;
    MFI_TRY(mfi_iterate(t, v, &list));
    if (!args->n)
        return map_attribute(t, list, args, out);
    MFI_TRY(mfi_arg_str(t, "map", &args->pos[0], &name));
    mfi_args rest = behind(args, 1);
    for (size_t i = 0; i < list->n; i++) {
        MFI_TRY(mfi_apply_filter(t, name, &list->items[i], &rest, &item));
        MFI_TRY(mfi_list_push(t, out->list, &item));
    }
    return MF_OK;
}

/* attribute: args begins with the name of one. */
static mf_status pick(mfi_tpl *t, const mfi_value *v, const mfi_args *args, bool attribute,
                      bool wanted, mfi_value *out)
{
    mfi_list *list;
    mfi_value item;
    const mfi_str *test = NULL;
    size_t n = attribute ? 1 : 0;
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, 0, out));
    if (!mfi_truth(v))
        return MF_OK;
    if (args->n < n)
        return mfi_tpl_fail(t, "the attribute to select by is missing");
    if (args->n > n)
        MFI_TRY(mfi_arg_str(t, "the name of a test", &args->pos[n], &test));
    mfi_args rest = behind(args, test ? n + 1 : n);
    MFI_TRY(mfi_iterate(t, v, &list));
    for (size_t i = 0; i < list->n; i++) {
        item = list->items[i];
        if (attribute)
            MFI_TRY(get_path(t, &list->items[i], &args->pos[0], NULL, &item));
        bool yes = mfi_truth(&item);
        if (test)
            MFI_TRY(mfi_apply_test(t, test, &item, &rest, &yes));
        if (yes == wanted)
            MFI_TRY(mfi_list_push(t, out->list, &list->items[i]));
        MFI_TRY(mfi_tpl_charge(t, 1));
    }
    return MF_OK;
}

FILTER(select)
{
    return pick(t, v, args, false, true, out);
}

FILTER(reject)
{
    return pick(t, v, args, false, false, out);
}

FILTER(selectattr)
{
    return pick(t, v, args, true, true, out);
}

FILTER(rejectattr)
{
    return pick(t, v, args, true, false, out);
}

/* ---- batch, slice ---- */

/* list[from, to) as a list of its own, filled up to `size` unless fill is absent or none. */
static mf_status push_part(mfi_tpl *t, const mfi_list *list, size_t from, size_t to, size_t size,
                           const mfi_value *fill, mfi_value *out)
{
    mfi_value part;
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, 0, &part));
    for (size_t i = from; i < to; i++)
        MFI_TRY(mfi_list_push(t, part.list, &list->items[i]));
    while (fill->type != MFI_V_ABSENT && fill->type != MFI_V_NONE && part.list->n < size)
        MFI_TRY(mfi_list_push(t, part.list, fill));
    return mfi_list_push(t, out->list, &part);
}

FILTER(batch)
{
    mfi_value arg[2];
    mfi_list *list;
    int64_t size;
    MFI_TRY(mfi_bind(t, "batch", args, "linecount fill_with", 1, arg));
    MFI_TRY(mfi_arg_int(t, "batch", &arg[0], 1, &size));
    MFI_TRY(mfi_iterate(t, v, &list));
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, 0, out));
    if (size < 1)
        return mfi_tpl_fail(t, "batch: the size is %lld", (long long)size);
    for (size_t at = 0; at < list->n;) {
        size_t to = list->n - at > (uint64_t)size ? at + (size_t)size : list->n;
        MFI_TRY(push_part(t, list, at, to, (size_t)size, &arg[1], out));
        at = to;
    }
    return MF_OK;
}

FILTER(slice)
{
    mfi_value arg[2];
    mfi_list *list;
    int64_t n;
    MFI_TRY(mfi_bind(t, "slice", args, "slices fill_with", 1, arg));
    MFI_TRY(mfi_arg_int(t, "slice", &arg[0], 1, &n));
    MFI_TRY(mfi_iterate(t, v, &list));
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, 0, out));
    if (n < 1)
        return mfi_tpl_fail(t, "slice: the number is %lld", (long long)n);
    size_t each = list->n / (uint64_t)n, more = list->n % (uint64_t)n, at = 0;
    for (size_t i = 0; i < (uint64_t)n; i++) {
        size_t to = at + each + (i < more);
        mfi_value fill = i >= more ? arg[1] : (mfi_value){.type = MFI_V_ABSENT};
        MFI_TRY(push_part(t, list, at, to, each + 1, &fill, out));
        at = to;
    }
    return MF_OK;
}

const mfi_filter mfi_seq_filters[] = {
#define ENTRY(name, lazy)                                                                          \
    {                                                                                              \
#name, seq_##name, lazy                                                                    \
    }
    ENTRY(sort, false),
    ENTRY(dictsort, false),
    ENTRY(groupby, false),
    ENTRY(min, false),
    ENTRY(max, false),
    ENTRY(unique, true),
    ENTRY(first, false),
    ENTRY(last, false),
    ENTRY(length, false),
    ENTRY(list, false),
    ENTRY(reverse, false),
    ENTRY(sum, false),
    ENTRY(join, false),
    ENTRY(items, true),
    ENTRY(map, true),
    ENTRY(select, true),
    ENTRY(reject, true),
    ENTRY(selectattr, true),
    ENTRY(rejectattr, true),
    ENTRY(batch, true),
    ENTRY(slice, true),
#undef ENTRY
    {"count", seq_length, false},
    {NULL, NULL, false},
};
