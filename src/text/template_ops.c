/* Operators of the template language, with Python's meaning: equality, order, membership,
 * arithmetic, slices. Integers are 64 bits wide; what Python would make longer is refused.
 *
 * Called by the evaluator, and by filters and tests that compare. */
#include "text/template_int.h"

#include <math.h>
#include <string.h>

static const char *const op_names[] = {
    [MFI_OP_ADD] = "+",       [MFI_OP_SUB] = "-", [MFI_OP_MUL] = "*",  [MFI_OP_DIV] = "/",
    [MFI_OP_FLOORDIV] = "//", [MFI_OP_MOD] = "%", [MFI_OP_POW] = "**",
};

/* ---- equality and order ---- */

/* Exact, also where the integer is no double. NaN gives 2. */
static int compare_int_float(int64_t i, double d)
{
    if (isnan(d))
        return 2;
    if (d >= 0x1p63)
        return -1;
    if (d < -0x1p63)
        return 1;
    int64_t whole = (int64_t)d;
    if (i != whole)
        return i < whole ? -1 : 1;
    double rest = d - (double)whole;
    return rest > 0 ? -1 : rest < 0 ? 1 : 0;
}

/* Both are numbers: -1, 0, 1; 2: one is not a number. */
static int compare_numbers(const mfi_value *a, const mfi_value *b)
{
    int64_t i, k;
    bool a_int = mfi_integer(a, &i), b_int = mfi_integer(b, &k);
    if (a_int && b_int)
        return (i > k) - (i < k);
    if (a_int)
        return compare_int_float(i, b->number);
    if (b_int) {
        int order = compare_int_float(k, a->number);
        return order == 2 ? 2 : -order;
    }
    if (isnan(a->number) || isnan(b->number))
        return 2;
    return (a->number > b->number) - (a->number < b->number);
}

static bool is_number(const mfi_value *v)
{
    return v->type == MFI_V_BOOL || v->type == MFI_V_INT || v->type == MFI_V_FLOAT;
}

static mf_status equal_lists(mfi_tpl *t, const mfi_list *a, const mfi_list *b, bool *out)
{
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n && i < b->n; i++)
        MFI_TRY(mfi_equal(t, &a->items[i], &b->items[i], out));
    return MF_OK;
}

static mf_status equal_dicts(mfi_tpl *t, const mfi_dict *a, const mfi_dict *b, bool *out)
{
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++) {
        size_t at;
        MFI_TRY(mfi_dict_find(t, b, &a->pairs[i].key, &at));
        *out = at != SIZE_MAX;
        if (*out)
            MFI_TRY(mfi_equal(t, &a->pairs[i].value, &b->pairs[at].value, out));
    }
    return MF_OK;
}

mf_status mfi_equal(mfi_tpl *t, const mfi_value *a, const mfi_value *b, bool *out)
{
    *out = false;
    if (is_number(a) && is_number(b)) {
        *out = compare_numbers(a, b) == 0;
        return MF_OK;
    }
    if (a->type != b->type)
        return MF_OK;
    mf_status status = MF_OK;
    MFI_TRY(mfi_tpl_enter(t));
    switch (a->type) {
    case MFI_V_ABSENT:
    case MFI_V_UNDEFINED:
    case MFI_V_NONE:
        *out = true;
        break;
    case MFI_V_STR:
        *out = mfi_str_same(a->str, b->str);
        break;
    case MFI_V_LIST:
    case MFI_V_TUPLE:
    case MFI_V_RANGE:
    case MFI_V_VIEW:
        status = equal_lists(t, a->list, b->list, out);
        break;
    case MFI_V_DICT:
        status = equal_dicts(t, a->dict, b->dict, out);
        break;
    default: /* the same object */
        *out = a->dict == b->dict;
        break;
    }
    t->depth--;
    return status;
}

static int compare_strings(const mfi_str *a, const mfi_str *b)
{
    int order = memcmp(a->data, b->data, MFI_MIN(a->n, b->n));
    return order ? order : (a->n > b->n) - (a->n < b->n);
}

mf_status mfi_compare(mfi_tpl *t, const mfi_value *a, const mfi_value *b, int *order,
                      bool *unordered)
{
    *unordered = false;
    if (a->type == MFI_V_UNDEFINED || b->type == MFI_V_UNDEFINED)
        return mfi_fail_undefined(t, a->type == MFI_V_UNDEFINED ? a : b);
    if (is_number(a) && is_number(b)) {
        *order = compare_numbers(a, b);
        *unordered = *order == 2;
        return MF_OK;
    }
    if (a->type == MFI_V_STR && b->type == MFI_V_STR) {
        *order = compare_strings(a->str, b->str);
        return mfi_tpl_charge(t, MFI_MIN(a->str->n, b->str->n) / 64);
    }
    if (a->type != b->type || (a->type != MFI_V_LIST && a->type != MFI_V_TUPLE))
        return mfi_tpl_fail(t, "a %s and a %s have no order", mfi_type_name(a), mfi_type_name(b));
    MFI_TRY(mfi_tpl_enter(t));
    const mfi_list *x = a->list, *y = b->list;
    *order = (x->n > y->n) - (x->n < y->n);
    for (size_t i = 0; i < x->n && i < y->n; i++) {
        bool same;
        MFI_TRY(mfi_equal(t, &x->items[i], &y->items[i], &same));
        if (same)
            continue;
        MFI_TRY(mfi_compare(t, &x->items[i], &y->items[i], order, unordered));
        break;
    }
    t->depth--;
    return MF_OK;
}

mf_status mfi_contains(mfi_tpl *t, const mfi_value *item, const mfi_value *in, bool *out)
{
    mfi_list *list;
    size_t at;
    *out = false;
    if (in->type == MFI_V_STR) {
        if (item->type != MFI_V_STR)
            return mfi_tpl_fail(t, "a %s can't be in a str object", mfi_type_name(item));
        *out = mfi_str_find(in->str, item->str, 0, in->str->n) != SIZE_MAX;
        return mfi_tpl_charge(t, in->str->n / 64);
    }
    if (in->type == MFI_V_DICT) {
        MFI_TRY(mfi_dict_find(t, in->dict, item, &at));
        *out = at != SIZE_MAX;
        return MF_OK;
    }
    MFI_TRY(mfi_iterate(t, in, &list));
    for (size_t i = 0; i < list->n && !*out; i++)
        MFI_TRY(mfi_equal(t, &list->items[i], item, out));
    return MF_OK;
}

mf_status mfi_op_compare(mfi_tpl *t, mfi_op op, const mfi_value *a, const mfi_value *b, bool *out)
{
    int order = 0;
    bool unordered = false, yes = false;
    switch (op) {
    case MFI_OP_EQ:
    case MFI_OP_NE:
        MFI_TRY(mfi_equal(t, a, b, &yes));
        *out = yes == (op == MFI_OP_EQ);
        return MF_OK;
    case MFI_OP_IN:
    case MFI_OP_NOT_IN:
        MFI_TRY(mfi_contains(t, a, b, &yes));
        *out = yes == (op == MFI_OP_IN);
        return MF_OK;
    default:
        MFI_TRY(mfi_compare(t, a, b, &order, &unordered));
        yes = op == MFI_OP_LT   ? order < 0
              : op == MFI_OP_LE ? order <= 0
              : op == MFI_OP_GT ? order > 0
                                : order >= 0;
        *out = yes && !unordered;
        return MF_OK;
    }
}

/* ---- arithmetic ---- */

static mf_status too_large(mfi_tpl *t)
{
    return mfi_tpl_unsupported(t, "an integer of more than 64 bits");
}

static mf_status zero_division(mfi_tpl *t)
{
    return mfi_tpl_fail(t, "division by zero");
}

/* Python rounds towards minus infinity. */
static mf_status divide_ints(mfi_tpl *t, int64_t a, int64_t b, bool remainder, mfi_value *out)
{
    if (!b)
        return zero_division(t);
    if (b == -1) {
        *out = mfi_int(0);
        return !remainder && __builtin_sub_overflow((int64_t)0, a, &out->integer) ? too_large(t)
                                                                                  : MF_OK;
    }
    int64_t quotient = a / b, rest = a % b;
    if (rest && (rest < 0) != (b < 0)) {
        quotient--;
        rest += b;
    }
    *out = mfi_int(remainder ? rest : quotient);
    return MF_OK;
}

static mf_status divide_floats(mfi_tpl *t, double a, double b, bool remainder, mfi_value *out)
{
    if (b == 0)
        return zero_division(t);
    double rest = fmod(a, b), quotient = (a - rest) / b;
    if (rest != 0) {
        if ((rest < 0) != (b < 0)) {
            rest += b;
            quotient -= 1;
        }
    } else {
        rest = copysign(0, b);
    }
    double whole = floor(quotient);
    if (quotient == 0)
        whole = copysign(0, a / b);
    else if (quotient - whole > 0.5)
        whole += 1;
    *out = mfi_float(remainder ? rest : whole);
    return MF_OK;
}

static mf_status power_ints(mfi_tpl *t, int64_t base, int64_t exponent, mfi_value *out)
{
    int64_t result = 1;
    while (exponent > 0) {
        if ((exponent & 1) && __builtin_mul_overflow(result, base, &result))
            return too_large(t);
        exponent >>= 1;
        if (exponent && __builtin_mul_overflow(base, base, &base))
            return too_large(t);
    }
    *out = mfi_int(result);
    return MF_OK;
}

static mf_status power_floats(mfi_tpl *t, double a, double b, mfi_value *out)
{
    if (a == 0 && b < 0)
        return zero_division(t);
    if (a < 0 && isfinite(a) && isfinite(b) && b != floor(b))
        return mfi_tpl_unsupported(t, "a complex number");
    double result = pow(a, b);
    if (isinf(result) && isfinite(a) && isfinite(b))
        return mfi_tpl_fail(t, "the result is too large");
    *out = mfi_float(result);
    return MF_OK;
}

static mf_status calculate_ints(mfi_tpl *t, mfi_op op, int64_t a, int64_t b, mfi_value *out)
{
    bool overflow = false;
    *out = mfi_int(0);
    switch (op) {
    case MFI_OP_ADD:
        overflow = __builtin_add_overflow(a, b, &out->integer);
        break;
    case MFI_OP_SUB:
        overflow = __builtin_sub_overflow(a, b, &out->integer);
        break;
    case MFI_OP_MUL:
        overflow = __builtin_mul_overflow(a, b, &out->integer);
        break;
    case MFI_OP_DIV:
        if (!b)
            return zero_division(t);
        *out = mfi_float((double)a / (double)b);
        break;
    case MFI_OP_POW:
        return b < 0 ? power_floats(t, (double)a, (double)b, out) : power_ints(t, a, b, out);
    default:
        return divide_ints(t, a, b, op == MFI_OP_MOD, out);
    }
    return overflow ? too_large(t) : MF_OK;
}

static mf_status calculate_floats(mfi_tpl *t, mfi_op op, double a, double b, mfi_value *out)
{
    switch (op) {
    case MFI_OP_ADD:
        *out = mfi_float(a + b);
        return MF_OK;
    case MFI_OP_SUB:
        *out = mfi_float(a - b);
        return MF_OK;
    case MFI_OP_MUL:
        *out = mfi_float(a * b);
        return MF_OK;
    case MFI_OP_DIV:
        if (b == 0)
            return zero_division(t);
        *out = mfi_float(a / b);
        return MF_OK;
    case MFI_OP_POW:
        return power_floats(t, a, b, out);
    default:
        return divide_floats(t, a, b, op == MFI_OP_MOD, out);
    }
}

/* ---- texts and lists ---- */

/* Markup escapes a plain neighbour. */
static mf_status add_strings(mfi_tpl *t, const mfi_value *a, const mfi_value *b, mfi_value *out)
{
    mfi_text text = mfi_text_begin(t);
    bool markup = a->markup || b->markup;
    const mfi_value *both[] = {a, b};
    for (int i = 0; i < 2; i++) {
        if (markup && !both[i]->markup)
            mfi_text_escaped(&text, both[i]->str);
        else
            mfi_text_str(&text, both[i]->str);
    }
    MFI_TRY(mfi_text_done(&text, out));
    out->markup = markup;
    return MF_OK;
}

static mf_status add_lists(mfi_tpl *t, const mfi_value *a, const mfi_value *b, mfi_value *out)
{
    MFI_TRY(mfi_list_new(t, a->type, a->list->n + b->list->n, out));
    for (size_t i = 0; i < a->list->n; i++)
        MFI_TRY(mfi_list_push(t, out->list, &a->list->items[i]));
    for (size_t i = 0; i < b->list->n; i++)
        MFI_TRY(mfi_list_push(t, out->list, &b->list->items[i]));
    return MF_OK;
}

static bool can_repeat(const mfi_value *v)
{
    return v->type == MFI_V_STR || v->type == MFI_V_LIST || v->type == MFI_V_TUPLE;
}

static mf_status repeat(mfi_tpl *t, const mfi_value *v, int64_t times, mfi_value *out)
{
    if (times < 0)
        times = 0;
    if (v->type == MFI_V_STR) {
        mfi_text text = mfi_text_begin(t);
        mfi_text_fill(&text, v->str, (size_t)times);
        MFI_TRY(mfi_text_done(&text, out));
        out->markup = v->markup;
        return MF_OK;
    }
    MFI_TRY(mfi_list_new(t, v->type, 0, out));
    for (int64_t k = 0; k < times && v->list->n; k++)
        for (size_t i = 0; i < v->list->n; i++)
            MFI_TRY(mfi_list_push(t, out->list, &v->list->items[i]));
    return MF_OK;
}

mf_status mfi_op_binary(mfi_tpl *t, mfi_op op, const mfi_value *a, const mfi_value *b,
                        mfi_value *out)
{
    int64_t i, k;
    double x, y;
    bool a_int = mfi_integer(a, &i), b_int = mfi_integer(b, &k);
    if (a_int && b_int)
        return calculate_ints(t, op, i, k, out);
    if (mfi_number(a, &x) && mfi_number(b, &y))
        return calculate_floats(t, op, x, y, out);
    if (op == MFI_OP_MOD && a->type == MFI_V_STR)
        return mfi_format_percent(t, a, b, out);
    if (a->type == MFI_V_UNDEFINED || b->type == MFI_V_UNDEFINED)
        return mfi_fail_undefined(t, a->type == MFI_V_UNDEFINED ? a : b);
    if (op == MFI_OP_ADD && a->type == b->type) {
        if (a->type == MFI_V_STR)
            return add_strings(t, a, b, out);
        if (a->type == MFI_V_LIST || a->type == MFI_V_TUPLE)
            return add_lists(t, a, b, out);
    }
    if (op == MFI_OP_MUL && can_repeat(a) && b_int)
        return repeat(t, a, k, out);
    if (op == MFI_OP_MUL && can_repeat(b) && a_int)
        return repeat(t, b, i, out);
    return mfi_tpl_fail(t, "%s can't join a %s and a %s", op_names[op], mfi_type_name(a),
                        mfi_type_name(b));
}

mf_status mfi_op_unary(mfi_tpl *t, mfi_op op, const mfi_value *a, mfi_value *out)
{
    int64_t i;
    if (mfi_integer(a, &i)) {
        *out = mfi_int(i);
        return op == MFI_OP_SUB && __builtin_sub_overflow((int64_t)0, i, &out->integer)
                   ? too_large(t)
                   : MF_OK;
    }
    if (a->type == MFI_V_FLOAT) {
        *out = mfi_float(op == MFI_OP_SUB ? -a->number : a->number);
        return MF_OK;
    }
    if (a->type == MFI_V_UNDEFINED)
        return mfi_fail_undefined(t, a);
    return mfi_tpl_fail(t, "a %s has no sign", mfi_type_name(a));
}

/* ---- slices ---- */

static mf_status bound(mfi_tpl *t, const mfi_value *v, int64_t absent, int64_t *out)
{
    *out = absent;
    if (v->type == MFI_V_ABSENT || v->type == MFI_V_NONE || mfi_integer(v, out))
        return MF_OK;
    return mfi_tpl_fail(t, "a slice's bound is a %s", mfi_type_name(v));
}

/* Brings a bound into [low, high], counting from the end where it is negative. */
static int64_t clamp(int64_t at, int64_t n, int64_t low, int64_t high)
{
    if (at < 0)
        at = at < -n ? low : at + n;
    return at < low ? low : at > high ? high : at;
}

typedef struct span {
    int64_t from, step;
    size_t n;
} span;

static mf_status find_span(mfi_tpl *t, const mfi_value bounds[3], int64_t n, span *s)
{
    int64_t to;
    MFI_TRY(bound(t, &bounds[2], 1, &s->step));
    if (!s->step)
        return mfi_tpl_fail(t, "a slice's step is zero");
    bool down = s->step < 0;
    int64_t low = down ? -1 : 0, high = down ? n - 1 : n;
    MFI_TRY(bound(t, &bounds[0], down ? INT64_MAX : 0, &s->from));
    MFI_TRY(bound(t, &bounds[1], down ? INT64_MIN : INT64_MAX, &to));
    s->from = clamp(s->from, n, low, high);
    to = clamp(to, n, low, high);
    int64_t distance = down ? s->from - to : to - s->from;
    if (s->step == INT64_MIN)
        s->step++; /* as good as any that long */
    int64_t stride = down ? -s->step : s->step;
    s->n = distance > 0 ? (size_t)((distance - 1) / stride + 1) : 0;
    return MF_OK;
}

static mf_status slice_string(mfi_tpl *t, const mfi_str *str, const span *s, mfi_value *out)
{
    if (s->step == 1 || s->n <= 1) {
        size_t from = mfi_str_offset(str, (size_t)MFI_MAX(s->from, 0));
        size_t to = mfi_str_offset(str, (size_t)MFI_MAX(s->from, 0) + s->n);
        return mfi_str_sub(t, str, from, s->n ? to : from, out);
    }
    size_t *offsets = mfi_arena_alloc(&t->arena, (str->n_chars + 1) * sizeof *offsets);
    if (!offsets)
        return mfi_tpl_no_memory(t);
    size_t k = 0;
    for (size_t i = 0; i < str->n; i++)
        if (((unsigned char)str->data[i] & 0xc0) != 0x80)
            offsets[k++] = i;
    offsets[k] = str->n;
    mfi_text text = mfi_text_begin(t);
    for (size_t i = 0; i < s->n; i++) {
        size_t at = (size_t)(s->from + (int64_t)i * s->step);
        mfi_text_slice(&text, str, offsets[at], offsets[at + 1]);
    }
    return mfi_text_done(&text, out);
}

mf_status mfi_slice(mfi_tpl *t, const mfi_value *v, const mfi_value bounds[3], mfi_value *out)
{
    span s;
    if (v->type == MFI_V_UNDEFINED)
        return mfi_fail_undefined(t, v);
    if (v->type == MFI_V_STR) {
        MFI_TRY(find_span(t, bounds, (int64_t)v->str->n_chars, &s));
        MFI_TRY(slice_string(t, v->str, &s, out));
        out->markup = v->markup;
        return MF_OK;
    }
    if (v->type != MFI_V_LIST && v->type != MFI_V_TUPLE && v->type != MFI_V_RANGE)
        return mfi_tpl_fail(t, "a %s has no slices", mfi_type_name(v));
    MFI_TRY(find_span(t, bounds, (int64_t)v->list->n, &s));
    MFI_TRY(mfi_list_new(t, v->type, s.n, out));
    for (size_t i = 0; i < s.n; i++)
        MFI_TRY(mfi_list_push(t, out->list, &v->list->items[s.from + (int64_t)i * s.step]));
    if (v->type == MFI_V_RANGE && s.n) {
        mfi_list *made = out->list;
        const mfi_list *from = v->list;
        made->start = made->items[0].integer;
        made->step = s.n > 1 ? made->items[1].integer - made->start : from->step;
        made->stop = made->items[s.n - 1].integer + (made->step > 0 ? 1 : -1);
    }
    return MF_OK;
}
