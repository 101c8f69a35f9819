/* What the reader of JSON schemas shares between its files.
 *
 * A place in a document may be under several schemas at once (allOf, $ref with siblings): a
 * `conjunction`, a list of nodes of the schema's tree. What they say together is a `view`. Where
 * anyOf and oneOf occur, a view depends on the alternatives that are chosen. */
#ifndef MFI_GRAMMAR_SCHEMA_INT_H
#define MFI_GRAMMAR_SCHEMA_INT_H

#include "base/json.h"
#include "grammar/regular.h"
#include "grammar/schema_text.h"

enum {
    MFI_TYPE_NULL = 1,
    MFI_TYPE_BOOL = 2,
    MFI_TYPE_INT = 4,
    MFI_TYPE_FRACTION = 8, /* numbers that are no integers */
    MFI_TYPE_STRING = 16,
    MFI_TYPE_ARRAY = 32,
    MFI_TYPE_OBJECT = 64,
    MFI_TYPE_ANY = 127
};

#define MFI_SCHEMA_MAX_PARTS   32 /* of a conjunction */
#define MFI_SCHEMA_MAX_CHOICES 16 /* anyOf within anyOf */
#define MFI_SCHEMA_MAX_REFS    32 /* one leading to the next */
#define MFI_SCHEMA_MAX_SAYS    8  /* patterns and formats of a string, and the like */

typedef struct mfi_part {
    const mfi_json *node;
    const char *path; /* "#/properties/a" */
} mfi_part;

typedef struct mfi_conjunction {
    mfi_part parts[MFI_SCHEMA_MAX_PARTS];
    uint32_t n;
} mfi_conjunction;

typedef struct mfi_choices {
    uint16_t at[MFI_SCHEMA_MAX_CHOICES];
    const char *tag[MFI_SCHEMA_MAX_CHOICES]; /* a property that is to be there, or NULL */
    uint32_t n;
} mfi_choices;

typedef struct mfi_saying { /* a pattern, or a format's */
    const char *pattern;
    size_t len;
    const char *path;
} mfi_saying;

typedef struct mfi_property {
    const char *key;
    mfi_conjunction all;
    bool required, forbidden;
} mfi_property;

typedef struct mfi_patterned { /* properties whose names fit a pattern */
    mfi_saying key;
    mfi_conjunction all;
    mfi_regular *names; /* of the pattern, made when a name is held against it */
} mfi_patterned;

typedef struct mfi_view mfi_view;
struct mfi_view {
    uint32_t types;
    const mfi_json *values[MFI_SCHEMA_MAX_PARTS]; /* of const, as it is, or enum, an array */
    bool is_const[MFI_SCHEMA_MAX_PARTS];
    uint32_t n_values;
    int64_t len_min, len_max;             /* of strings; -1: no bound */
    mfi_saying says[MFI_SCHEMA_MAX_SAYS]; /* of strings */
    uint32_t n_says;
    mfi_regular *strings; /* what is said of strings, made when one is held against it */
    uint64_t *work;       /* the schema's */
    double lo, hi;        /* of numbers; infinite: no bound */
    double multiples[MFI_SCHEMA_MAX_SAYS];
    uint32_t n_multiples;
    const char *multiple_path;
    bool lo_open, hi_open;
    const char *bound_path;       /* of one of them; NULL: there are none */
    int64_t items_min, items_max; /* -1: no bound */
    mfi_conjunction *prefix;      /* [n_prefix] */
    uint32_t n_prefix;
    mfi_conjunction rest;    /* of items; n == 0: anything */
    const char *unique_path; /* no item may occur twice; NULL: it may */
    mfi_property *properties;
    uint32_t n_properties, cap_properties;
    bool closed;          /* additionalProperties: false somewhere */
    bool says_additional; /* additionalProperties stands somewhere */
    bool says_properties;
    mfi_conjunction additional; /* of other properties; n == 0: anything */
    mfi_patterned *patterned;   /* [MFI_SCHEMA_MAX_SAYS], made if it is wanted */
    uint32_t n_patterned;
    const mfi_json *patterned_in, *additional_in; /* the schemas that say so; additional: the last
                                                   * but that one */
    mfi_conjunction name_parts;                   /* of properties' names */
    mfi_view *names;                              /* what they say together; NULL: nothing */
    bool names_listed;                      /* all that are allowed are among the properties */
    int64_t properties_min, properties_max; /* -1: no bound */
    const char *properties_path;
    /* The anyOf or oneOf for which no alternative is chosen yet. */
    const mfi_json *open;
    const char *open_path;
    bool open_is_one;
    /* While it is made: */
    uint32_t n_chosen;
    const mfi_json *refs[MFI_SCHEMA_MAX_REFS];
    uint32_t n_refs;
};

typedef struct mfi_schema_job {
    mfi_conjunction all;
    uint32_t rule;
} mfi_schema_job;

typedef struct mfi_schema {
    mfi_ast *ast;
    const mfi_json *root;
    mfi_schema_job *jobs; /* rules by what they stand for; those from n_done have no body yet */
    uint32_t n_jobs, n_done, cap_jobs;
    uint32_t *index; /* hash -> job + 1; [n_index] */
    uint32_t n_index;
    char **texts; /* paths, for as long as the schema is read */
    uint32_t n_texts, cap_texts;
    uint32_t ws, string, number; /* rules; 0: not made yet */
    bool in_names;               /* while names' own view is made */
    uint64_t work;               /* steps so far; at most MFI_MAX_SCHEMA_WORK */
    mf_error *err;
} mfi_schema;

/* ---- schema_view.c ---- */

/* What a conjunction says with these choices. Released in every case with mfi_view_free. */
mf_status mfi_view_make(mfi_schema *s, const mfi_conjunction *all, const mfi_choices *choices,
                        mfi_view *view);
void mfi_view_free(mfi_view *view);
mf_status mfi_schema_no_memory(const mfi_schema *s);
/* Counts work, and is the error if that is too much for one schema. */
mf_status mfi_schema_spend(mfi_schema *s, uint64_t steps, const char *path);
/* A path below another: "/properties/" and an escaped key, or a number where key is NULL. */
const char *mfi_schema_path(mfi_schema *s, const char *parent, const char *keyword, const char *key,
                            size_t number);
mf_status mfi_conjunction_add(mfi_schema *s, mfi_conjunction *all, const mfi_json *node,
                              const char *path);

/* ---- schema_values.c ---- */

uint32_t mfi_value_type_of(const mfi_json *value);
bool mfi_values_equal(const mfi_json *a, const mfi_json *b, uint64_t *work);
/* The values that const and enum leave, each as an alternative; *n how many. */
mf_status mfi_schema_values(mfi_schema *s, mfi_view *view, uint32_t *node);
/* Whether the view's other keywords leave one of its values. *unsure: that can't be said here. */
bool mfi_value_is_left(mfi_view *view, const mfi_json *value, bool *unsure);
/* Whether a string is among what the view says. *unsure: that can't be said. */
bool mfi_view_allows(mfi_view *view, const char *text, bool *unsure);
/* Whether no document of the one can be one of the other. */
bool mfi_views_disjoint(mfi_schema *s, mfi_view *a, mfi_view *b);

/* Whether the properties of that name have nothing in common. */
bool mfi_views_tagged(mfi_schema *s, const mfi_view *a, const mfi_view *b, const char *key);

/* ---- schema_string.c ---- */

mf_status mfi_schema_string(mfi_schema *s, const mfi_view *view, uint32_t *node);
/* A key in quotes that is none of the named properties', and of the patterned those of `which`
 * only, or none if that is UINT32_MAX. */
mf_status mfi_schema_key(mfi_schema *s, const mfi_view *view, uint32_t which, uint32_t *node);
/* Whether a string satisfies patterns and formats; *unsure is set where that can't be said. */
bool mfi_view_takes(mfi_view *view, const char *text, size_t len, bool *unsure);
mf_status mfi_saying_add(mfi_regular *regular, const mfi_saying *what, bool negated, mf_error *err);
/* mfi_regular_emit with the path in its message. */
mf_status mfi_schema_regular(mfi_schema *s, mfi_regular *regular, const char *path, uint32_t *node);

/* ---- schema_number.c ---- */

mf_status mfi_schema_number(mfi_schema *s, const mfi_view *view, uint32_t *node);

/* ---- schema_object.c ---- */

mf_status mfi_schema_object(mfi_schema *s, const mfi_view *view, uint32_t *node);
mf_status mfi_schema_array(mfi_schema *s, const mfi_view *view, uint32_t *node);

/* ---- schema.c ---- */

/* A call of the rule for a conjunction; n == 0 is anything. */
mf_status mfi_schema_call(mfi_schema *s, const mfi_conjunction *all, uint32_t *node);
uint32_t mfi_schema_ws(mfi_schema *s);
/* The rule of any character of a string, by any escape. */
uint32_t mfi_schema_character(mfi_schema *s);

#endif
