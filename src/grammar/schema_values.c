/* Values that schemas name (const, enum), and telling alternatives of oneOf apart. Part of the
 * reader of JSON schemas (schema.c). */
#include <math.h>
#include <string.h>

#include "base/limits.h"
#include "base/utf8.h"
#include "grammar/schema_int.h"

uint32_t mfi_value_type_of(const mfi_json *value)
{
    double n;
    switch (mfi_json_typeof(value)) {
    case MFI_JSON_NULL:
        return MFI_TYPE_NULL;
    case MFI_JSON_BOOL:
        return MFI_TYPE_BOOL;
    case MFI_JSON_INT:
        return MFI_TYPE_INT;
    case MFI_JSON_FLOAT:
        return mfi_json_f64(value, &n) && n == floor(n) ? MFI_TYPE_INT : MFI_TYPE_FRACTION;
    case MFI_JSON_STRING:
        return MFI_TYPE_STRING;
    case MFI_JSON_ARRAY:
        return MFI_TYPE_ARRAY;
    case MFI_JSON_OBJECT:
        return MFI_TYPE_OBJECT;
    }
    return 0;
}

bool mfi_values_equal(const mfi_json *a, const mfi_json *b, uint64_t *work)
{
    double x, y;
    *work += 12;
    if (*work > MFI_MAX_SCHEMA_WORK)
        return false; /* which is found before this is used */
    size_t n = mfi_json_len(a);
    if (mfi_json_f64(a, &x) && mfi_json_f64(b, &y))
        return x == y;
    if (mfi_json_typeof(a) != mfi_json_typeof(b) || n != mfi_json_len(b))
        return false;
    if (mfi_json_typeof(a) == MFI_JSON_ARRAY) {
        for (size_t i = 0; i < n; i++)
            if (!mfi_values_equal(mfi_json_at(a, i), mfi_json_at(b, i), work))
                return false;
        return true;
    }
    if (mfi_json_typeof(a) == MFI_JSON_OBJECT) {
        for (size_t i = 0; i < n; i++) {
            const char *key;
            const mfi_json *one = mfi_json_member(a, i, &key);
            if (!mfi_json_has(b, key) || !mfi_values_equal(one, mfi_json_get(b, key), work))
                return false;
        }
        return true;
    }
    size_t len_a, len_b;
    const char *str_a = mfi_json_str(a, &len_a), *str_b = mfi_json_str(b, &len_b);
    if (str_a && str_b) {
        *work += len_a == len_b ? len_a / 8 : 0;
        return len_a == len_b && memcmp(str_a, str_b, len_a) == 0;
    }
    mfi_buf text_a = {0}, text_b = {0};
    mfi_json_put(&text_a, a);
    mfi_json_put(&text_b, b);
    bool same = !text_a.failed && !text_b.failed && text_a.len == text_b.len &&
                memcmp(text_a.data, text_b.data, text_a.len) == 0;
    *work += 32 + (text_a.len + text_b.len) / 2;
    mfi_buf_free(&text_a);
    mfi_buf_free(&text_b);
    return same;
}

static bool among(const mfi_json *values, bool is_const, const mfi_json *value, uint64_t *work)
{
    if (is_const)
        return mfi_values_equal(values, value, work);
    for (size_t i = 0; i < mfi_json_len(values) && *work <= MFI_MAX_SCHEMA_WORK; i++)
        if (mfi_values_equal(mfi_json_at(values, i), value, work))
            return true;
    return false;
}

/* The characters of a string. */
static int64_t length_of(const char *text, size_t len)
{
    int64_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)text[i] & 0xc0) != 0x80;
    return n;
}

/* As mfi_value_is_left, of the lists of values those behind the first `from`. */
static bool is_left(mfi_view *v, uint32_t from, const mfi_json *value, bool *unsure)
{
    uint32_t type = mfi_value_type_of(value);
    double n;
    size_t len;
    if (!(v->types & type))
        return false;
    for (uint32_t i = from; i < v->n_values; i++)
        if (!among(v->values[i], v->is_const[i], value, v->work))
            return false;
    if (mfi_json_f64(value, &n)) {
        for (uint32_t i = 0; i < v->n_multiples; i++)
            if (v->multiples[i] != floor(v->multiples[i]))
                *unsure = true;
            else if (fmod(n, v->multiples[i]) != 0)
                return false;
        return (n > v->lo || (n == v->lo && !v->lo_open)) &&
               (n < v->hi || (n == v->hi && !v->hi_open));
    }
    const char *text = mfi_json_str(value, &len);
    if (text) {
        int64_t length = length_of(text, len);
        return length >= v->len_min && (v->len_max < 0 || length <= v->len_max) &&
               mfi_view_takes(v, text, len, unsure);
    }
    if (type == MFI_TYPE_ARRAY)
        *unsure = *unsure || v->n_prefix || v->rest.n || v->items_min >= 0 || v->items_max >= 0 ||
                  v->unique_path;
    if (type == MFI_TYPE_OBJECT)
        *unsure = *unsure || v->n_properties || v->additional.n || v->n_patterned || v->names ||
                  v->properties_path;
    return true;
}

bool mfi_value_is_left(mfi_view *v, const mfi_json *value, bool *unsure)
{
    return is_left(v, 0, value, unsure);
}

bool mfi_view_allows(mfi_view *v, const char *text, bool *unsure)
{
    size_t len = strlen(text);
    int64_t length = length_of(text, len);
    for (uint32_t i = 0; i < v->n_values; i++) {
        const mfi_json *values = v->values[i];
        bool found = false;
        for (size_t k = 0; k < (v->is_const[i] ? 1 : mfi_json_len(values)) && !found; k++) {
            size_t n;
            const char *s = mfi_json_str(v->is_const[i] ? values : mfi_json_at(values, k), &n);
            found = s && n == len && memcmp(s, text, len) == 0;
            *v->work += 2 + (found || n == len ? len / 16 : 0);
        }
        if (!found)
            return false;
    }
    return (v->types & MFI_TYPE_STRING) && length >= v->len_min &&
           (v->len_max < 0 || length <= v->len_max) && mfi_view_takes(v, text, len, unsure);
}

static uint32_t literal(mfi_ast *ast, const mfi_json *value)
{
    mfi_buf text = {0};
    mfi_json_put(&text, value);
    if (text.failed)
        ast->bytes.failed = true;
    uint32_t node = text.failed ? 0 : mfi_ast_bytes(ast, text.data, text.len);
    mfi_buf_free(&text);
    return node;
}

mf_status mfi_schema_values(mfi_schema *s, mfi_view *v, uint32_t *node)
{
    mfi_ast_list list = {0};
    const mfi_json *values = v->values[0];
    size_t n = v->is_const[0] ? 1 : mfi_json_len(values);
    bool unsure = false;
    for (size_t i = 0; i < n; i++) {
        const mfi_json *value = v->is_const[0] ? values : mfi_json_at(values, i);
        if (is_left(v, 1, value, &unsure)) /* it is of the first */
            mfi_ast_push(s->ast, &list, literal(s->ast, value));
    }
    MFI_TRY(mfi_schema_spend(s, n, "#"));
    if (unsure)
        return mfi_fail(s->err, MF_ERR_UNSUPPORTED,
                        "JSON schema: %.400s: const or enum beside what speaks of items or "
                        "properties, and the like, is not supported",
                        v->n_says ? v->says[0].path : "#");
    *node = list.first ? mfi_ast_alt(s->ast, list) : mfi_text_never(s->ast);
    return MF_OK;
}

/* ---- telling apart ---- */

static bool values_disjoint(mfi_view *a, mfi_view *b)
{
    const mfi_json *values = a->values[0];
    bool unsure = false;
    if (!a->n_values || !b->n_values)
        return false;
    for (size_t i = 0; i < (a->is_const[0] ? 1 : mfi_json_len(values)); i++) {
        const mfi_json *value = a->is_const[0] ? values : mfi_json_at(values, i);
        if (is_left(a, 1, value, &unsure) && mfi_value_is_left(b, value, &unsure))
            return false;
    }
    return true;
}

static const mfi_property *find(const mfi_view *v, const char *key)
{
    for (uint32_t i = 0; i < v->n_properties; i++)
        if (strcmp(v->properties[i].key, key) == 0)
            return &v->properties[i];
    return NULL;
}

static bool takes_others(const mfi_view *v)
{
    return v->n_patterned || (!v->closed && (v->says_additional || !v->says_properties));
}

/* Objects written for `a` never satisfy `b`: they lack what b requires, or have what b forbids. */
static bool fails(const mfi_view *a, const mfi_view *b)
{
    for (uint32_t i = 0; i < b->n_properties; i++)
        if (b->properties[i].required && !find(a, b->properties[i].key) && !takes_others(a))
            return true;
    for (uint32_t i = 0; i < a->n_properties; i++)
        if (a->properties[i].required && !find(b, a->properties[i].key) && b->closed &&
            !b->n_patterned)
            return true;
    return false;
}

bool mfi_views_tagged(mfi_schema *s, const mfi_view *a, const mfi_view *b, const char *key)
{
    static const mfi_choices none = {.n = 0};
    const mfi_property *p = find(a, key), *q = find(b, key);
    mfi_view x = {0}, y = {0};
    mf_error *err = s->err;
    bool apart = false;
    if (!p || !q)
        return false;
    s->err = NULL; /* what is wrong there is reported when it is compiled */
    if (mfi_view_make(s, &p->all, &none, &x) == MF_OK &&
        mfi_view_make(s, &q->all, &none, &y) == MF_OK)
        apart = !(x.types & y.types) || values_disjoint(&x, &y);
    s->err = err;
    mfi_view_free(&x);
    mfi_view_free(&y);
    return apart;
}

/* A property that both require and that has other values in each. */
static bool tagged(mfi_schema *s, const mfi_view *a, const mfi_view *b)
{
    bool apart = false;
    for (uint32_t i = 0; i < a->n_properties && !apart; i++) {
        const mfi_property *q = find(b, a->properties[i].key);
        if (q && a->properties[i].required && q->required)
            apart = mfi_views_tagged(s, a, b, q->key);
    }
    return apart;
}

bool mfi_views_disjoint(mfi_schema *s, mfi_view *a, mfi_view *b)
{
    uint32_t both = a->types & b->types;
    if (!both || values_disjoint(a, b))
        return true;
    if ((both & ~(uint32_t)MFI_TYPE_OBJECT) || a->open || b->open)
        return false;
    return tagged(s, a, b) || (fails(a, b) && fails(b, a));
}
