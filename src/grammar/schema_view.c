/* What schemas say together: folds the keywords of a conjunction into a view. Part of the reader of
 * JSON schemas (schema.c). A keyword that is not understood is an error with its path; only those
 * that say nothing about a document are passed over. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/room.h"
#include "grammar/schema_int.h"

typedef struct folding {
    mfi_schema *s;
    mfi_view *v;
    const mfi_choices *choices;
    const mfi_json *node; /* the schema that is folded in */
    const char *path;
} folding;

#define FOLD_WORK 256u /* of looking for the keywords of one schema */

static mf_status fold(folding *f, const mfi_json *node, const char *path);

mf_status mfi_schema_no_memory(const mfi_schema *s)
{
    return mfi_fail(s->err, MF_ERR_NO_MEMORY, "no memory for a JSON schema");
}

mf_status mfi_schema_spend(mfi_schema *s, uint64_t steps, const char *path)
{
    s->work += steps;
    if (s->work <= MFI_MAX_SCHEMA_WORK)
        return MF_OK;
    return mfi_fail(s->err, MF_ERR_LIMIT, "JSON schema: %.400s: more work than one schema may make",
                    path);
}

static mf_status wrong(const folding *f, const char *keyword, const char *why)
{
    return mfi_fail(f->s->err, MF_ERR_ARGUMENT, "JSON schema: %.400s/%.60s: %s", f->path, keyword,
                    why);
}

static mf_status unsupported(const folding *f, const char *keyword, const char *why)
{
    return mfi_fail(f->s->err, MF_ERR_UNSUPPORTED, "JSON schema: %.400s/%.60s: %s", f->path,
                    keyword, why);
}

const char *mfi_schema_path(mfi_schema *s, const char *parent, const char *keyword, const char *key,
                            size_t number)
{
    mfi_buf path = {0};
    mfi_buf_fmt(&path, "%s/%s", parent, keyword);
    if (key) {
        mfi_buf_str(&path, "/");
        for (; *key; key++) { /* RFC 6901 */
            if (*key == '~' || *key == '/')
                mfi_buf_str(&path, *key == '~' ? "~0" : "~1");
            else
                mfi_buf_append(&path, key, 1);
        }
    } else if (number != SIZE_MAX) {
        mfi_buf_fmt(&path, "/%zu", number);
    }
    if (path.failed || !MFI_ROOM(s->texts, s->n_texts, s->cap_texts, 64)) {
        mfi_buf_free(&path);
        s->ast->bytes.failed = true;
        return parent;
    }
    return s->texts[s->n_texts++] = path.data;
}

mf_status mfi_conjunction_add(mfi_schema *s, mfi_conjunction *all, const mfi_json *node,
                              const char *path)
{
    for (uint32_t i = 0; i < all->n; i++)
        if (all->parts[i].node == node)
            return MF_OK;
    if (all->n == MFI_SCHEMA_MAX_PARTS)
        return mfi_fail(s->err, MF_ERR_LIMIT,
                        "JSON schema: %.400s: more than %d schemas hold at one place", path,
                        MFI_SCHEMA_MAX_PARTS);
    all->parts[all->n++] = (mfi_part){node, path};
    return MF_OK;
}

void mfi_view_free(mfi_view *v)
{
    for (uint32_t i = 0; i < MFI_SCHEMA_MAX_SAYS && v->patterned; i++)
        mfi_regular_close(&v->patterned[i].names);
    mfi_regular_close(&v->strings);
    free(v->prefix);
    free(v->properties);
    free(v->patterned);
    if (v->names)
        mfi_view_free(v->names);
    free(v->names);
    v->prefix = NULL;
    v->properties = NULL;
    v->patterned = NULL;
    v->names = NULL;
}

/* ---- keywords ---- */

static uint32_t type_bit(const char *name)
{
    static const struct {
        const char *name;
        uint32_t bits;
    } types[] = {{"null", MFI_TYPE_NULL},     {"boolean", MFI_TYPE_BOOL},
                 {"integer", MFI_TYPE_INT},   {"number", MFI_TYPE_INT | MFI_TYPE_FRACTION},
                 {"string", MFI_TYPE_STRING}, {"array", MFI_TYPE_ARRAY},
                 {"object", MFI_TYPE_OBJECT}};
    for (size_t i = 0; i < MFI_ARRAY_LEN(types); i++)
        if (name && strcmp(name, types[i].name) == 0)
            return types[i].bits;
    return 0;
}

static mf_status fold_type(folding *f, const char *key, const mfi_json *value)
{
    uint32_t bits = type_bit(mfi_json_str(value, NULL));
    bool nullable = false, list = mfi_json_typeof(value) == MFI_JSON_ARRAY;
    for (size_t i = 0; list && i < mfi_json_len(value); i++) {
        uint32_t one = type_bit(mfi_json_str(mfi_json_at(value, i), NULL));
        if (!one)
            return wrong(f, key, "an unknown type");
        bits |= one;
    }
    if (!bits)
        return wrong(f, key, "an unknown type");
    if (mfi_json_bool(mfi_json_get(f->node, "nullable"), &nullable) && nullable)
        bits |= MFI_TYPE_NULL; /* OpenAPI's way */
    f->v->types &= bits;
    return MF_OK;
}

static mf_status fold_values(folding *f, const char *key, const mfi_json *value)
{
    bool is_const = strcmp(key, "const") == 0;
    if (!is_const && mfi_json_typeof(value) != MFI_JSON_ARRAY)
        return wrong(f, key, "not an array");
    if (f->v->n_values == MFI_SCHEMA_MAX_PARTS)
        return unsupported(f, key, "too many of these hold at one place");
    f->v->values[f->v->n_values] = value;
    f->v->is_const[f->v->n_values++] = is_const;
    return MF_OK;
}

static mf_status fold_count(folding *f, const char *key, const mfi_json *value)
{
    struct {
        const char *key;
        int64_t *at;
        bool most;
    } counts[] = {{"minLength", &f->v->len_min, false},
                  {"maxLength", &f->v->len_max, true},
                  {"minItems", &f->v->items_min, false},
                  {"maxItems", &f->v->items_max, true},
                  {"minProperties", &f->v->properties_min, false},
                  {"maxProperties", &f->v->properties_max, true}};
    double n;
    if (!mfi_json_f64(value, &n) || n < 0 || n != floor(n))
        return wrong(f, key, "not a whole number of 0 or more");
    if (n > MFI_MAX_GRAMMAR_STATES)
        return mfi_fail(f->s->err, MF_ERR_LIMIT, "JSON schema: %.400s/%s: more than %u", f->path,
                        key, MFI_MAX_GRAMMAR_STATES);
    if (strstr(key, "Properties"))
        f->v->properties_path = mfi_schema_path(f->s, f->path, key, NULL, SIZE_MAX);
    for (size_t i = 0; i < MFI_ARRAY_LEN(counts); i++) {
        if (strcmp(key, counts[i].key) != 0)
            continue;
        int64_t *at = counts[i].at;
        if (*at < 0 || (counts[i].most ? n < (double)*at : n > (double)*at))
            *at = (int64_t)n;
    }
    return MF_OK;
}

static mf_status fold_bound(folding *f, const char *key, const mfi_json *value)
{
    mfi_view *v = f->v;
    bool open = key[0] == 'e', low = strstr(key, "inimum") != NULL;
    double n;
    if (!mfi_json_f64(value, &n))
        return wrong(f, key, "not a number");
    if (low && (n > v->lo || (n == v->lo && open))) {
        v->lo = n;
        v->lo_open = open;
    } else if (!low && (n < v->hi || (n == v->hi && open))) {
        v->hi = n;
        v->hi_open = open;
    }
    v->bound_path = mfi_schema_path(f->s, f->path, key, NULL, SIZE_MAX);
    return MF_OK;
}

static mf_status fold_multiple(folding *f, const char *key, const mfi_json *value)
{
    mfi_view *v = f->v;
    double n;
    if (!mfi_json_f64(value, &n) || !(n > 0))
        return wrong(f, key, "not a number above 0");
    if (v->n_multiples == MFI_SCHEMA_MAX_SAYS)
        return unsupported(f, key, "too many of these hold at one place");
    v->multiples[v->n_multiples++] = n;
    v->multiple_path = mfi_schema_path(f->s, f->path, key, NULL, SIZE_MAX);
    return MF_OK;
}

static mf_status fold_text(folding *f, const char *key, const mfi_json *value)
{
    mfi_view *v = f->v;
    size_t len;
    const char *text = mfi_json_str(value, &len);
    if (!text)
        return wrong(f, key, "not a string");
    if (strcmp(key, "format") == 0) {
        text = mfi_format_pattern(text);
        if (!text)
            return MF_OK; /* of no standard: an annotation */
        if (!text[0])
            return unsupported(f, key, "this format is not supported");
        len = strlen(text);
    }
    for (uint32_t i = 0; i < v->n_says; i++)
        if (strcmp(v->says[i].pattern, text) == 0)
            return MF_OK;
    if (v->n_says == MFI_SCHEMA_MAX_SAYS)
        return unsupported(f, key, "too many of these hold at one place");
    v->says[v->n_says++] =
        (mfi_saying){text, len, mfi_schema_path(f->s, f->path, key, NULL, SIZE_MAX)};
    return MF_OK;
}

static mf_status fold_prefix(folding *f, const char *key, const mfi_json *value)
{
    mfi_view *v = f->v;
    size_t n = mfi_json_len(value);
    if (mfi_json_typeof(value) != MFI_JSON_ARRAY)
        return wrong(f, key, "not an array");
    if (v->n_prefix || v->rest.n)
        return unsupported(f, key, "items and prefixItems of several schemas hold at one place");
    if (n > MFI_MAX_GRAMMAR_NESTING)
        return mfi_fail(f->s->err, MF_ERR_LIMIT, "JSON schema: %.400s/%s: more than %u", f->path,
                        key, MFI_MAX_GRAMMAR_NESTING);
    v->prefix = calloc(n ? n : 1, sizeof *v->prefix);
    if (!v->prefix)
        return mfi_schema_no_memory(f->s);
    for (v->n_prefix = 0; v->n_prefix < n; v->n_prefix++)
        MFI_TRY(mfi_conjunction_add(f->s, &v->prefix[v->n_prefix], mfi_json_at(value, v->n_prefix),
                                    mfi_schema_path(f->s, f->path, key, NULL, v->n_prefix)));
    return MF_OK;
}

/* "items" after "prefixItems" of the same schema, whichever stands first. */
static mf_status fold_items(folding *f, const char *key, const mfi_json *value)
{
    bool old = mfi_json_typeof(value) == MFI_JSON_ARRAY;
    const mfi_json *rest = old ? mfi_json_get(f->node, "additionalItems") : value;
    if (strcmp(key, "additionalItems") == 0)
        return MF_OK; /* says something beside an array of items only, which takes it */
    if (old)
        MFI_TRY(fold_prefix(f, key, value));
    else if (f->v->n_prefix && !mfi_json_has(f->node, "prefixItems"))
        return unsupported(f, key, "items and prefixItems of several schemas hold at one place");
    if (!rest)
        return MF_OK;
    return mfi_conjunction_add(
        f->s, &f->v->rest, rest,
        mfi_schema_path(f->s, f->path, old ? "additionalItems" : key, NULL, SIZE_MAX));
}

/* The property of that name, made if there is none; new ones are under what earlier schemas said of
 * properties they don't name. NULL: no memory, or too much work. */
static mfi_property *property(folding *f, const char *key)
{
    mfi_view *v = f->v;
    uint32_t at = 0;
    while (at < v->n_properties && strcmp(v->properties[at].key, key) != 0)
        at++;
    f->s->work += at * (1 + (uint64_t)strlen(key) / 16);
    if (f->s->work > MFI_MAX_SCHEMA_WORK)
        return NULL;
    if (at < v->n_properties)
        return &v->properties[at];
    if (!MFI_ROOM(v->properties, v->n_properties, v->cap_properties, 16))
        return NULL;
    mfi_property *p = &v->properties[v->n_properties++];
    *p = (mfi_property){.key = key, .all = v->additional};
    return p;
}

static mf_status no_property(const folding *f)
{
    MFI_TRY(mfi_schema_spend(f->s, 0, f->path));
    return mfi_schema_no_memory(f->s);
}

static mf_status fold_properties(folding *f, const char *name, const mfi_json *value)
{
    if (mfi_json_typeof(value) != MFI_JSON_OBJECT)
        return wrong(f, name, "not an object");
    f->v->says_properties = true;
    for (size_t i = 0; i < mfi_json_len(value); i++) {
        const char *key;
        const mfi_json *node = mfi_json_member(value, i, &key);
        mfi_property *p = property(f, key);
        if (!p)
            return no_property(f);
        MFI_TRY(
            mfi_conjunction_add(f->s, &p->all, node, mfi_schema_path(f->s, f->path, name, key, 0)));
    }
    return MF_OK;
}

static mf_status fold_required(folding *f, const char *key, const mfi_json *value)
{
    if (mfi_json_typeof(value) != MFI_JSON_ARRAY)
        return wrong(f, key, "not an array");
    for (size_t i = 0; i < mfi_json_len(value); i++) {
        const char *name = mfi_json_str(mfi_json_at(value, i), NULL);
        mfi_property *p = name ? property(f, name) : NULL;
        if (!p)
            return name ? no_property(f) : wrong(f, key, "not a list of strings");
        p->required = true;
    }
    return MF_OK;
}

static bool fits(const folding *f, mfi_patterned *p, const char *key, mf_status *status)
{
    mf_error inner = {0};
    bool yes = false;
    if (!p->names) {
        p->names = mfi_regular_open(&f->s->work);
        *status = p->names ? mfi_saying_add(p->names, &p->key, false, f->s->err)
                           : mfi_schema_no_memory(f->s);
    }
    if (*status != MF_OK)
        return false;
    *status = mfi_regular_takes(p->names, key, strlen(key), &yes, &inner);
    if (*status != MF_OK)
        mfi_fail(f->s->err, *status, "JSON schema: %.400s: %s", p->key.path, inner.message);
    return yes;
}

static mf_status fold_patterned(folding *f, const char *name, const mfi_json *value)
{
    mfi_view *v = f->v;
    if (mfi_json_typeof(value) != MFI_JSON_OBJECT)
        return wrong(f, name, "not an object");
    if (v->patterned_in && v->patterned_in != f->node)
        return unsupported(f, name, "patternProperties of several schemas hold at one place");
    if (mfi_json_len(value) > MFI_SCHEMA_MAX_SAYS)
        return unsupported(f, name, "too many patterns");
    if (!v->patterned)
        v->patterned = calloc(MFI_SCHEMA_MAX_SAYS, sizeof *v->patterned);
    if (!v->patterned)
        return mfi_schema_no_memory(f->s);
    v->patterned_in = f->node;
    for (v->n_patterned = 0; v->n_patterned < mfi_json_len(value); v->n_patterned++) {
        const char *key;
        const mfi_json *node = mfi_json_member(value, v->n_patterned, &key);
        mfi_patterned *p = &v->patterned[v->n_patterned];
        mfi_regular_close(&p->names); /* folded before, by another way */
        *p = (mfi_patterned){
            .key = {key, strlen(key), mfi_schema_path(f->s, f->path, name, key, 0)}};
        MFI_TRY(mfi_conjunction_add(f->s, &p->all, node, p->key.path));
    }
    return MF_OK;
}

static mf_status fold_names(folding *f, const char *key, const mfi_json *value)
{
    return mfi_conjunction_add(f->s, &f->v->name_parts, value,
                               mfi_schema_path(f->s, f->path, key, NULL, SIZE_MAX));
}

/* Whether a schema names a property, or one of its patterns does. */
static bool speaks_of(const folding *f, const char *key, mf_status *status)
{
    const mfi_view *v = f->v;
    bool yes = mfi_json_has(mfi_json_get(f->node, "properties"), key);
    for (uint32_t i = 0; i < v->n_patterned && v->patterned_in == f->node && !yes; i++)
        yes = fits(f, &v->patterned[i], key, status);
    return yes;
}

/* Says something of all properties that this schema doesn't name, those of earlier schemas too. */
static mf_status fold_additional(folding *f, const char *key, const mfi_json *value)
{
    const char *path = mfi_schema_path(f->s, f->path, key, NULL, SIZE_MAX);
    bool allowed = true, plain = mfi_json_bool(value, &allowed);
    mf_status status = MF_OK;
    f->v->says_additional = true;
    if (plain && allowed)
        return MF_OK;
    f->v->closed = f->v->closed || plain;
    if (!mfi_json_has(f->node, "patternProperties"))
        f->v->additional_in = f->node;
    for (uint32_t i = 0; i < f->v->n_properties && status == MF_OK; i++)
        if (!speaks_of(f, f->v->properties[i].key, &status) && status == MF_OK)
            status = mfi_conjunction_add(f->s, &f->v->properties[i].all, value, path);
    MFI_TRY(status);
    return mfi_conjunction_add(f->s, &f->v->additional, value, path);
}

/* ---- composition ---- */

static const mfi_json *child(const mfi_json *node, const char *token, size_t len)
{
    char key[512];
    size_t n = 0;
    for (size_t i = 0; i < len && n < sizeof key - 1; i++) {
        char c = token[i];
        if (c == '~' && i + 1 < len)
            c = token[++i] == '0' ? '~' : '/';
        else if (c == '%' && i + 2 < len) {
            char hex[3] = {token[i + 1], token[i + 2], 0};
            c = (char)strtoul(hex, NULL, 16);
            i += 2;
        }
        key[n++] = c;
    }
    key[n] = 0;
    if (mfi_json_typeof(node) == MFI_JSON_OBJECT)
        return mfi_json_get(node, key);
    if (mfi_json_typeof(node) == MFI_JSON_ARRAY && n && strspn(key, "0123456789") == n)
        return mfi_json_at(node, strtoul(key, NULL, 10));
    return NULL;
}

static mf_status fold_ref(folding *f, const char *key, const mfi_json *value)
{
    const char *ref = mfi_json_str(value, NULL);
    if (!ref)
        return wrong(f, key, "not a string");
    if (ref[0] != '#' || (ref[1] && ref[1] != '/'))
        return unsupported(f, key, "only references within the schema, # and #/..., are");
    const mfi_json *node = f->s->root;
    for (const char *p = ref + 1; *p && node;) {
        size_t len = strcspn(p + 1, "/");
        node = child(node, p + 1, len);
        p += 1 + len;
    }
    if (!node)
        return wrong(f, key, "refers to nothing");
    mfi_view *v = f->v;
    for (uint32_t i = 0; i < v->n_refs; i++)
        if (v->refs[i] == node)
            return wrong(f, key, "references go in circles");
    if (v->n_refs == MFI_SCHEMA_MAX_REFS)
        return unsupported(f, key, "references lead to references too often");
    v->refs[v->n_refs++] = node;
    mf_status status = fold(f, node, ref);
    v->n_refs--;
    return status;
}

static mf_status fold_all(folding *f, const char *key, const mfi_json *value)
{
    const char *path = f->path;
    if (mfi_json_typeof(value) != MFI_JSON_ARRAY || mfi_json_len(value) == 0)
        return wrong(f, key, "not a list of schemas");
    for (size_t i = 0; i < mfi_json_len(value); i++)
        MFI_TRY(fold(f, mfi_json_at(value, i), mfi_schema_path(f->s, path, key, NULL, i)));
    return MF_OK;
}

static mf_status fold_any(folding *f, const char *key, const mfi_json *value)
{
    mfi_view *v = f->v;
    if (mfi_json_typeof(value) != MFI_JSON_ARRAY || mfi_json_len(value) == 0)
        return wrong(f, key, "not a list of schemas");
    if (mfi_json_len(value) > UINT16_MAX)
        return wrong(f, key, "too many alternatives");
    if (v->n_chosen < f->choices->n) {
        const char *tag = f->choices->tag[v->n_chosen];
        size_t i = f->choices->at[v->n_chosen++];
        MFI_TRY(fold(f, mfi_json_at(value, i), mfi_schema_path(f->s, f->path, key, NULL, i)));
        mfi_property *p = tag ? property(f, tag) : NULL;
        if (tag && !p)
            return no_property(f);
        if (p)
            p->required = true;
        return MF_OK;
    }
    if (!v->open) {
        v->open = value;
        v->open_path = mfi_schema_path(f->s, f->path, key, NULL, SIZE_MAX);
        v->open_is_one = strcmp(key, "oneOf") == 0;
    }
    return MF_OK;
}

static mf_status fold_unique(folding *f, const char *key, const mfi_json *value)
{
    bool on;
    if (!mfi_json_bool(value, &on))
        return wrong(f, key, "neither true nor false");
    if (on)
        f->v->unique_path = mfi_schema_path(f->s, f->path, key, NULL, SIZE_MAX);
    return MF_OK;
}

/* What is written has no properties but those that are named, and others where that is said. */
static mf_status fold_unevaluated(folding *f, const char *key, const mfi_json *value)
{
    bool allowed;
    if (!mfi_json_bool(value, &allowed))
        return unsupported(f, key, "a schema is not supported here, only true and false are");
    if (!allowed && !f->v->says_additional)
        f->v->says_properties = true;
    return MF_OK;
}

/* Nothing at all, or none of some types. */
static mf_status fold_not(folding *f, const char *key, const mfi_json *value)
{
    const mfi_json *type = mfi_json_get(value, "type");
    bool yes;
    if (mfi_json_bool(value, &yes)) {
        f->v->types &= yes ? 0 : MFI_TYPE_ANY;
        return MF_OK;
    }
    if (mfi_json_typeof(value) != MFI_JSON_OBJECT || mfi_json_len(value) > 1 ||
        (mfi_json_len(value) == 1 && !type))
        return unsupported(f, key, "only types are supported here");
    uint32_t bits = type ? type_bit(mfi_json_str(type, NULL)) : MFI_TYPE_ANY;
    for (size_t i = 0; type && i < mfi_json_len(type); i++)
        bits |= type_bit(mfi_json_str(mfi_json_at(type, i), NULL));
    f->v->types &= ~bits;
    return MF_OK;
}

static mf_status fold_nothing(folding *f, const char *key, const mfi_json *value)
{
    (void)f, (void)key, (void)value;
    return MF_OK;
}

static const struct keyword {
    const char *name;
    mf_status (*fold)(folding *f, const char *key, const mfi_json *value);
} keywords[] = {
    /* properties before what speaks of the others, prefixItems before items */
    {"type", fold_type},
    {"const", fold_values},
    {"enum", fold_values},
    {"minLength", fold_count},
    {"maxLength", fold_count},
    {"minItems", fold_count},
    {"maxItems", fold_count},
    {"pattern", fold_text},
    {"format", fold_text},
    {"minimum", fold_bound},
    {"maximum", fold_bound},
    {"exclusiveMinimum", fold_bound},
    {"exclusiveMaximum", fold_bound},
    {"multipleOf", fold_multiple},
    {"prefixItems", fold_prefix},
    {"items", fold_items},
    {"additionalItems", fold_items},
    {"properties", fold_properties},
    {"patternProperties", fold_patterned},
    {"propertyNames", fold_names},
    {"required", fold_required},
    {"additionalProperties", fold_additional},
    {"minProperties", fold_count},
    {"maxProperties", fold_count},
    {"not", fold_not},
    {"$ref", fold_ref},
    {"allOf", fold_all},
    {"anyOf", fold_any},
    {"oneOf", fold_any},
    {"unevaluatedProperties", fold_unevaluated},
    {"uniqueItems", fold_unique},
    {"nullable", fold_nothing}, /* with "type" */
    {"$schema", fold_nothing},
    {"$id", fold_nothing},
    {"$comment", fold_nothing},
    {"$defs", fold_nothing},
    {"definitions", fold_nothing},
    {"title", fold_nothing},
    {"description", fold_nothing},
    {"default", fold_nothing},
    {"example", fold_nothing},
    {"examples", fold_nothing},
    {"deprecated", fold_nothing},
    {"readOnly", fold_nothing},
    {"writeOnly", fold_nothing},
    {"contentEncoding", fold_nothing},
    {"contentMediaType", fold_nothing},
    {"contentSchema", fold_nothing},
    {"discriminator", fold_nothing}, /* OpenAPI's; what it says oneOf and anyOf say, too */
    {"externalDocs", fold_nothing},
    {"xml", fold_nothing},
    {"$anchor", fold_nothing},
    {"$vocabulary", fold_nothing},
    {"strict", fold_nothing},
    {"propertyOrdering", fold_nothing},
};

static mf_status fold(folding *f, const mfi_json *node, const char *path)
{
    folding inner = *f;
    bool yes;
    inner.node = node;
    inner.path = path;
    if (mfi_json_bool(node, &yes)) {
        f->v->types &= yes ? MFI_TYPE_ANY : 0;
        return MF_OK;
    }
    if (mfi_json_typeof(node) != MFI_JSON_OBJECT)
        return mfi_fail(f->s->err, MF_ERR_ARGUMENT,
                        "JSON schema: %.400s: a schema is an object, true or false", path);
    MFI_TRY(mfi_schema_spend(f->s, FOLD_WORK + 8 * (uint64_t)mfi_json_len(node), path));
    for (size_t i = 0; i < mfi_json_len(node); i++) {
        const char *key;
        size_t k = 0;
        mfi_json_member(node, i, &key);
        while (k < MFI_ARRAY_LEN(keywords) && strcmp(keywords[k].name, key) != 0)
            k++;
        if (k == MFI_ARRAY_LEN(keywords) && strncmp(key, "x-", 2) != 0)
            return unsupported(&inner, key, "this keyword is not supported");
    }
    for (size_t k = 0; k < MFI_ARRAY_LEN(keywords); k++)
        if (mfi_json_has(node, keywords[k].name))
            MFI_TRY(
                keywords[k].fold(&inner, keywords[k].name, mfi_json_get(node, keywords[k].name)));
    return MF_OK;
}

/* ---- names ---- */

/* Names that are listed become properties; whatever else is said of names is kept for keys that are
 * not named. */
static mf_status list_names(folding *f)
{
    mfi_view *names = f->v->names;
    bool unsure = false;
    for (uint32_t i = 0; i < names->n_values && !f->v->names_listed; i++) {
        const mfi_json *values = names->values[i];
        size_t n = names->is_const[i] ? 1 : mfi_json_len(values);
        f->v->names_listed = true;
        for (size_t k = 0; k < n; k++) {
            const char *key =
                mfi_json_str(names->is_const[i] ? values : mfi_json_at(values, k), NULL);
            if (key && !property(f, key))
                return no_property(f);
        }
    }
    for (uint32_t i = 0; i < f->v->n_properties; i++) {
        mfi_property *p = &f->v->properties[i];
        p->forbidden = !mfi_view_allows(names, p->key, &unsure);
        MFI_TRY(mfi_schema_spend(f->s, 1, f->path));
    }
    return unsure ? unsupported(f, "propertyNames", "what is said here is not supported") : MF_OK;
}

static mf_status fold_all_names(folding *f)
{
    static const mfi_choices none = {.n = 0};
    mfi_view *v = f->v;
    if (!v->name_parts.n || f->s->in_names)
        return MF_OK;
    v->names = calloc(1, sizeof *v->names);
    if (!v->names)
        return mfi_schema_no_memory(f->s);
    f->s->in_names = true;
    mf_status status = mfi_view_make(f->s, &v->name_parts, &none, v->names);
    f->s->in_names = false;
    MFI_TRY(status);
    if (v->names->open)
        return unsupported(f, "propertyNames", "alternatives are not supported here");
    return list_names(f);
}

/* Patterns speak of named properties, too. */
static mf_status fold_all_patterned(folding *f)
{
    mfi_view *v = f->v;
    mf_status status = MF_OK;
    if (v->n_patterned && v->additional_in)
        return unsupported(f, "additionalProperties",
                           "beside another schema's patternProperties this is not supported");
    for (uint32_t i = 0; i < v->n_properties; i++)
        for (uint32_t k = 0; k < v->n_patterned && status == MF_OK; k++)
            if (fits(f, &v->patterned[k], v->properties[i].key, &status))
                for (uint32_t j = 0; j < v->patterned[k].all.n && status == MF_OK; j++)
                    status = mfi_conjunction_add(f->s, &v->properties[i].all,
                                                 v->patterned[k].all.parts[j].node,
                                                 v->patterned[k].all.parts[j].path);
    return status;
}

mf_status mfi_view_make(mfi_schema *s, const mfi_conjunction *all, const mfi_choices *choices,
                        mfi_view *v)
{
    *v = (mfi_view){.types = MFI_TYPE_ANY,
                    .work = &s->work,
                    .len_min = -1,
                    .len_max = -1,
                    .items_min = -1,
                    .items_max = -1,
                    .properties_min = -1,
                    .properties_max = -1,
                    .lo = -INFINITY,
                    .hi = INFINITY};
    MFI_TRY(mfi_schema_spend(s, FOLD_WORK / 4, all->n ? all->parts[0].path : "#"));
    folding f = {.s = s, .v = v, .choices = choices, .path = all->n ? all->parts[0].path : "#"};
    for (uint32_t i = 0; i < all->n; i++)
        MFI_TRY(fold(&f, all->parts[i].node, all->parts[i].path));
    MFI_TRY(fold_all_names(&f));
    return fold_all_patterned(&f);
}
