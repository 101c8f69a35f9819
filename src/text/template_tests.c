/* Tests of the template language (`is`), and its functions.
 *
 * Called by name from expressions and from select and its like; the functions are what a template
 * finds where no variable has the name. */
#include "text/template_methods.h"

#include <math.h>
#include <string.h>

#define RANGE_MAX 100000 /* as in jinja2's sandbox */

/* ---- tests ---- */

typedef enum test_kind {
    IS_DEFINED,
    IS_UNDEFINED,
    IS_NONE,
    IS_BOOLEAN,
    IS_TRUE,
    IS_FALSE,
    IS_INTEGER,
    IS_FLOAT,
    IS_NUMBER,
    IS_STRING,
    IS_MAPPING,
    IS_ITERABLE,
    IS_SEQUENCE,
    IS_CALLABLE,
    IS_ESCAPED,
    /* with an argument, or able to fail */
    IS_ODD,
    IS_EVEN,
    IS_DIVISIBLE,
    IS_LOWER,
    IS_UPPER,
    IS_IN,
    IS_SAME,
    IS_FILTER,
    IS_TEST,
    IS_EQ,
    IS_NE,
    IS_LT,
    IS_LE,
    IS_GT,
    IS_GE
} test_kind;

static const struct {
    const char *name;
    test_kind kind;
    bool has_arg;
} tests[] = {
    {"defined", IS_DEFINED, false},
    {"undefined", IS_UNDEFINED, false},
    {"none", IS_NONE, false},
    {"boolean", IS_BOOLEAN, false},
    {"true", IS_TRUE, false},
    {"false", IS_FALSE, false},
    {"integer", IS_INTEGER, false},
    {"float", IS_FLOAT, false},
    {"number", IS_NUMBER, false},
    {"string", IS_STRING, false},
    {"mapping", IS_MAPPING, false},
    {"iterable", IS_ITERABLE, false},
    {"sequence", IS_SEQUENCE, false},
    {"callable", IS_CALLABLE, false},
    {"escaped", IS_ESCAPED, false},
    {"odd", IS_ODD, false},
    {"even", IS_EVEN, false},
    {"divisibleby", IS_DIVISIBLE, true},
    {"lower", IS_LOWER, false},
    {"upper", IS_UPPER, false},
    {"in", IS_IN, true},
    {"sameas", IS_SAME, true},
    {"filter", IS_FILTER, false},
    {"test", IS_TEST, false},
    {"eq", IS_EQ, true},
    {"equalto", IS_EQ, true},
    {"==", IS_EQ, true},
    {"ne", IS_NE, true},
    {"!=", IS_NE, true},
    {"lt", IS_LT, true},
    {"lessthan", IS_LT, true},
    {"<", IS_LT, true},
    {"le", IS_LE, true},
    {"<=", IS_LE, true},
    {"gt", IS_GT, true},
    {"greaterthan", IS_GT, true},
    {">", IS_GT, true},
    {"ge", IS_GE, true},
    {">=", IS_GE, true},
};

static size_t find_test(const mfi_str *name)
{
    for (size_t i = 0; i < MFI_ARRAY_LEN(tests); i++)
        if (mfi_str_is(name, tests[i].name))
            return i;
    return SIZE_MAX;
}

bool mfi_has_test(const mfi_str *name)
{
    return find_test(name) != SIZE_MAX;
}

static bool of_type(const mfi_value *v, test_kind kind)
{
    switch (kind) {
    case IS_DEFINED:
        return v->type != MFI_V_UNDEFINED;
    case IS_UNDEFINED:
        return v->type == MFI_V_UNDEFINED;
    case IS_NONE:
        return v->type == MFI_V_NONE;
    case IS_BOOLEAN:
        return v->type == MFI_V_BOOL;
    case IS_TRUE:
        return v->type == MFI_V_BOOL && v->boolean;
    case IS_FALSE:
        return v->type == MFI_V_BOOL && !v->boolean;
    case IS_INTEGER:
        return v->type == MFI_V_INT;
    case IS_FLOAT:
        return v->type == MFI_V_FLOAT;
    case IS_NUMBER:
        return v->type >= MFI_V_BOOL && v->type <= MFI_V_FLOAT;
    case IS_STRING:
        return v->type == MFI_V_STR;
    case IS_MAPPING:
        return v->type == MFI_V_DICT;
    case IS_ITERABLE:
        return mfi_is_sized(v) || v->type == MFI_V_GEN || v->type == MFI_V_LOOP;
    case IS_SEQUENCE:
        return mfi_is_sized(v) && v->type != MFI_V_VIEW;
    case IS_CALLABLE:
        return v->type == MFI_V_UNDEFINED || v->type == MFI_V_MACRO || v->type == MFI_V_METHOD ||
               v->type == MFI_V_FUNCTION || v->type == MFI_V_JOINER || v->type == MFI_V_LOOP;
    default:
        return v->type == MFI_V_STR && v->markup;
    }
}

/* v % arg == rest */
static mf_status has_rest(mfi_tpl *t, const mfi_value *v, const mfi_value *arg, int64_t rest,
                          bool *out)
{
    mfi_value left, want = mfi_int(rest);
    MFI_TRY(mfi_op_binary(t, MFI_OP_MOD, v, arg, &left));
    return mfi_equal(t, &left, &want, out);
}

static mf_status in_case(mfi_tpl *t, const mfi_value *v, const char *method, bool *out)
{
    mfi_value str, name, fn, result;
    bool found;
    const mfi_args none = {NULL, 0, NULL, 0};
    MFI_TRY(mfi_to_string(t, v, &str));
    MFI_TRY(mfi_own_string(t, method, strlen(method), &name));
    MFI_TRY(mfi_method_of(t, &str, name.str, &fn, &found));
    MFI_TRY(mfi_call(t, &fn, &none, &result));
    *out = mfi_truth(&result);
    return MF_OK;
}

/* The same object. Of what has no identity here, equal values of one type are. */
static mf_status is_same(mfi_tpl *t, const mfi_value *a, const mfi_value *b, bool *out)
{
    if (a->type != b->type || a->type <= MFI_V_STR) {
        *out = false;
        return a->type == b->type ? mfi_equal(t, a, b, out) : MF_OK;
    }
    *out = a->dict == b->dict;
    return MF_OK;
}

static mf_status check(mfi_tpl *t, test_kind kind, const mfi_value *v, const mfi_value *arg,
                       bool *out)
{
    const mfi_value two = mfi_int(2);
    static const mfi_op ops[] = {MFI_OP_EQ, MFI_OP_NE, MFI_OP_LT, MFI_OP_LE, MFI_OP_GT, MFI_OP_GE};
    const mfi_str *name;
    switch (kind) {
    case IS_ODD:
        return has_rest(t, v, &two, 1, out);
    case IS_EVEN:
        return has_rest(t, v, &two, 0, out);
    case IS_DIVISIBLE:
        return has_rest(t, v, arg, 0, out);
    case IS_LOWER:
        return in_case(t, v, "islower", out);
    case IS_UPPER:
        return in_case(t, v, "isupper", out);
    case IS_IN:
        return mfi_contains(t, v, arg, out);
    case IS_SAME:
        return is_same(t, v, arg, out);
    case IS_FILTER:
    case IS_TEST:
        MFI_TRY(mfi_arg_str(t, "the name of a filter or test", v, &name));
        *out = kind == IS_FILTER ? mfi_has_filter(name) : mfi_has_test(name);
        return MF_OK;
    default:
        if (kind >= IS_EQ)
            return mfi_op_compare(t, ops[kind - IS_EQ], v, arg, out);
        *out = of_type(v, kind);
        return MF_OK;
    }
}

mf_status mfi_apply_test(mfi_tpl *t, const mfi_str *name, const mfi_value *v, const mfi_args *args,
                         bool *out)
{
    mfi_value arg[1] = {{.type = MFI_V_ABSENT}};
    size_t i = find_test(name);
    if (i == SIZE_MAX)
        return mfi_tpl_unsupported(t, "the test %.60s", name->data);
    MFI_TRY(
        mfi_bind(t, tests[i].name, args, tests[i].has_arg ? "other" : "", tests[i].has_arg, arg));
    return check(t, tests[i].kind, v, arg, out);
}

/* ---- functions ---- */

static mf_status range(mfi_tpl *t, const mfi_args *args, mfi_value *out)
{
    mfi_value arg[3];
    int64_t start, stop, step;
    MFI_TRY(mfi_bind(t, "range", args, "start stop step", 1, arg));
    MFI_TRY(mfi_arg_int(t, "range", &arg[0], 0, &start));
    MFI_TRY(mfi_arg_int(t, "range", &arg[1], 0, &stop));
    MFI_TRY(mfi_arg_int(t, "range", &arg[2], 1, &step));
    if (arg[1].type == MFI_V_ABSENT) {
        stop = start;
        start = 0;
    }
    if (!step)
        return mfi_tpl_fail(t, "range: the step is zero");
    MFI_TRY(mfi_list_new(t, MFI_V_RANGE, 0, out));
    *out->list = (mfi_list){.start = start, .stop = stop, .step = step};
    for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
        mfi_value v = mfi_int(i);
        if (out->list->n == RANGE_MAX)
            return mfi_fail(t->err, MF_ERR_LIMIT, "chat template line %u: a range of more than %d",
                            t->line, RANGE_MAX);
        MFI_TRY(mfi_list_push(t, out->list, &v));
        if (__builtin_add_overflow(i, step, &i))
            break;
    }
    return MF_OK;
}

static mf_status dict(mfi_tpl *t, const mfi_args *args, mfi_value *out)
{
    MFI_TRY(mfi_dict_new(t, MFI_V_DICT, 0, out));
    return mfi_dict_update(t, out->dict, args);
}

static mf_status namespace(mfi_tpl *t, const mfi_args *args, mfi_value *out)
{
    MFI_TRY(mfi_dict_new(t, MFI_V_NAMESPACE, 0, out));
    return mfi_dict_update(t, out->dict, args);
}

static mf_status cycler(mfi_tpl *t, const mfi_args *args, mfi_value *out)
{
    struct mfi_cycler *c = mfi_arena_alloc(&t->arena, sizeof *c);
    if (!c)
        return mfi_tpl_no_memory(t);
    if (!args->n || args->n_kw)
        return mfi_tpl_fail(t, "cycler needs items");
    *c = (struct mfi_cycler){.items = args->pos, .n = args->n};
    *out = (mfi_value){.type = MFI_V_CYCLER, .cycler = c};
    return MF_OK;
}

static mf_status joiner(mfi_tpl *t, const mfi_args *args, mfi_value *out)
{
    mfi_value arg[1];
    struct mfi_cycler *c = mfi_arena_alloc(&t->arena, sizeof *c);
    mfi_value *item = mfi_arena_alloc(&t->arena, sizeof *item);
    if (!c || !item)
        return mfi_tpl_no_memory(t);
    MFI_TRY(mfi_bind(t, "joiner", args, "sep", 0, arg));
    *item = arg[0];
    if (item->type == MFI_V_ABSENT)
        MFI_TRY(mfi_own_string(t, ", ", 2, item));
    *c = (struct mfi_cycler){.items = item, .n = 1};
    *out = (mfi_value){.type = MFI_V_JOINER, .cycler = c};
    return MF_OK;
}

static mf_status raise_exception(mfi_tpl *t, const mfi_args *args, mfi_value *out)
{
    mfi_value arg[1], text;
    (void)out;
    MFI_TRY(mfi_bind(t, "raise_exception", args, "message", 1, arg));
    MFI_TRY(mfi_to_string(t, &arg[0], &text));
    return mfi_tpl_fail(t, "%s", text.str->data);
}

static mf_status strftime_now(mfi_tpl *t, const mfi_args *args, mfi_value *out)
{
    mfi_value arg[1];
    const mfi_str *format;
    MFI_TRY(mfi_bind(t, "strftime_now", args, "format", 1, arg));
    MFI_TRY(mfi_arg_str(t, "strftime_now", &arg[0], &format));
    return mfi_strftime(t, format, out);
}

static mf_status lipsum(mfi_tpl *t, const mfi_args *args, mfi_value *out)
{
    (void)args;
    (void)out;
    return mfi_tpl_unsupported(t, "the function lipsum");
}

const struct mfi_function *mfi_function_find(const mfi_str *name)
{
    static const struct mfi_function functions[] = {
        {"range", range},
        {"dict", dict},
        {"namespace", namespace},
        {"cycler", cycler},
        {"joiner", joiner},
        {"raise_exception", raise_exception},
        {"strftime_now", strftime_now},
        {"lipsum", lipsum},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(functions); i++)
        if (mfi_str_is(name, functions[i].name))
            return &functions[i];
    return NULL;
}
