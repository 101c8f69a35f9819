/* The inside of the template language; for src/text/template*.c only.
 *
 * Everything that a rendering makes lives in its arena. A string is immutable and carries where
 * its bytes came from; lists, dicts and namespaces are shared by reference, as in Python. */
#ifndef MFI_TEXT_TEMPLATE_INT_H
#define MFI_TEXT_TEMPLATE_INT_H

#include "base/limits.h"
#include "text/template.h"

/* ---- memory ---- */

typedef struct mfi_arena_block mfi_arena_block;
typedef struct mfi_arena {
    mfi_arena_block *blocks;
    uint64_t bytes, max_bytes; /* max 0: unbounded */
} mfi_arena;

void *mfi_arena_alloc(mfi_arena *arena, size_t bytes); /* NULL: out of memory, or of the bound */
void mfi_arena_free(mfi_arena *arena);

/* ---- values ---- */

typedef struct mfi_str {
    size_t n, n_chars;          /* bytes, code points */
    const unsigned char *marks; /* [n] 1: foreign; NULL: all bytes are as `foreign` says */
    bool foreign;
    char data[]; /* NUL-terminated */
} mfi_str;

typedef enum mfi_value_type {
    MFI_V_ABSENT, /* an argument that was not given */
    MFI_V_UNDEFINED,
    MFI_V_NONE,
    MFI_V_BOOL,
    MFI_V_INT,
    MFI_V_FLOAT,
    MFI_V_STR,
    MFI_V_LIST,
    MFI_V_TUPLE,
    MFI_V_RANGE, /* its numbers are a list */
    MFI_V_VIEW,  /* of a dict: what keys(), values(), items() give */
    MFI_V_DICT,
    MFI_V_GEN, /* goes through its items once: what map, select and their like give */
    MFI_V_NAMESPACE,
    MFI_V_LOOP,
    MFI_V_MACRO,
    MFI_V_METHOD,
    MFI_V_FUNCTION,
    MFI_V_CYCLER,
    MFI_V_JOINER,
    MFI_V_N_TYPES
} mfi_value_type;

typedef struct mfi_value mfi_value;
typedef struct mfi_list mfi_list;
typedef struct mfi_dict mfi_dict;
typedef struct mfi_node mfi_node;
typedef struct mfi_tpl mfi_tpl;

typedef struct mfi_undefined { /* why it is */
    const mfi_str *name;
    const char *owner; /* "dict object"; NULL: it is a variable's name */
} mfi_undefined;

struct mfi_value {
    uint8_t type; /* mfi_value_type */
    bool markup;  /* STR: made by `safe` */
    union {
        bool boolean;
        int64_t integer;
        double number;
        const mfi_str *str;
        const mfi_undefined *undefined; /* NULL: unknown */
        mfi_list *list;                 /* LIST, TUPLE, RANGE, VIEW */
        mfi_dict *dict;                 /* DICT, NAMESPACE */
        struct mfi_gen *gen;
        struct mfi_loop *loop;
        struct mfi_macro *macro;
        struct mfi_method *method;
        const struct mfi_function *function;
        struct mfi_cycler *cycler; /* CYCLER, JOINER */
    };
};

struct mfi_list {
    mfi_value *items; /* [n] */
    size_t n, cap;
    const char *view;          /* VIEW: "dict_keys", ... */
    bool grouped;              /* TUPLE: has the attributes grouper and list */
    int64_t start, stop, step; /* RANGE */
};

typedef struct mfi_pair {
    mfi_value key, value;
} mfi_pair;

struct mfi_dict {
    mfi_pair *pairs; /* [n], in the order they came */
    size_t n, cap;
};

typedef struct mfi_kwarg {
    const mfi_str *name;
    mfi_value value;
} mfi_kwarg;

typedef struct mfi_args {
    const mfi_value *pos; /* [n] */
    size_t n;
    const mfi_kwarg *kw; /* [n_kw] */
    size_t n_kw;
} mfi_args;

typedef mf_status (*mfi_filter_fn)(mfi_tpl *t, const mfi_value *v, const mfi_args *args,
                                   mfi_value *out);

struct mfi_gen {
    mfi_list *list; /* NULL: not made yet: fn(v, args) makes it */
    size_t next;
    mfi_filter_fn fn;
    mfi_value v;
    mfi_args args;
};

struct mfi_method {
    mfi_value self;
    const mfi_str *name;
    mfi_filter_fn fn; /* NULL: Python has it, but not this */
};

struct mfi_function {
    const char *name;
    mf_status (*fn)(mfi_tpl *t, const mfi_args *args, mfi_value *out);
};

struct mfi_cycler { /* JOINER: one item, the separator */
    const mfi_value *items;
    size_t n, at;
};

/* ---- the tree ---- */

typedef enum mfi_node_type {
    /* statements, linked by next */
    MFI_NODE_TEXT,         /* str */
    MFI_NODE_OUTPUT,       /* a */
    MFI_NODE_IF,           /* list: BRANCHes; other: else */
    MFI_NODE_BRANCH,       /* a: condition; body */
    MFI_NODE_FOR,          /* target; a: iterable; b: condition; body; other; flag: recursive */
    MFI_NODE_SET,          /* target, a */
    MFI_NODE_SET_BLOCK,    /* target; a: filters on NODE_HERE, or NULL; body */
    MFI_NODE_WITH,         /* list: SETs; body */
    MFI_NODE_MACRO,        /* str; list: PARAMs; body; uses */
    MFI_NODE_CALL_BLOCK,   /* a: CALL; list: PARAMs; body; uses */
    MFI_NODE_FILTER_BLOCK, /* a: filters on NODE_HERE; body */
    MFI_NODE_SCOPE,        /* body: generation */
    MFI_NODE_BREAK,
    MFI_NODE_CONTINUE,
    MFI_NODE_PARAM, /* str; a: default or NULL */
    /* expressions */
    MFI_NODE_LITERAL, /* value */
    MFI_NODE_HERE,    /* the text of the block around it */
    MFI_NODE_NAME,    /* str */
    MFI_NODE_NSREF,   /* target only: str names the namespace, a: its attribute (LITERAL) */
    MFI_NODE_LIST,    /* list */
    MFI_NODE_TUPLE,   /* list */
    MFI_NODE_DICT,    /* list: keys and values in turn */
    MFI_NODE_ATTR,    /* a.str */
    MFI_NODE_ITEM,    /* a[b] */
    MFI_NODE_SLICE,   /* a[b:c:d] */
    MFI_NODE_CALL,    /* a(list) */
    MFI_NODE_FILTER,  /* a | str(list) */
    MFI_NODE_TEST,    /* a is str(list) */
    MFI_NODE_KEYWORD, /* argument str=a */
    MFI_NODE_STAR,    /* argument *a */
    MFI_NODE_STARS,   /* argument **a */
    MFI_NODE_COND,    /* a if b else c; c may be NULL */
    MFI_NODE_AND,
    MFI_NODE_OR,
    MFI_NODE_NOT,
    MFI_NODE_COMPARE,   /* a, list: COMPARANDs */
    MFI_NODE_COMPARAND, /* op, a */
    MFI_NODE_CONCAT,    /* list */
    MFI_NODE_BINARY,    /* a op b */
    MFI_NODE_UNARY      /* op a */
} mfi_node_type;

enum { MFI_USES_CALLER = 1, MFI_USES_VARARGS = 2, MFI_USES_KWARGS = 4 };

typedef enum mfi_op {
    MFI_OP_ADD,
    MFI_OP_SUB,
    MFI_OP_MUL,
    MFI_OP_DIV,
    MFI_OP_FLOORDIV,
    MFI_OP_MOD,
    MFI_OP_POW,
    MFI_OP_EQ,
    MFI_OP_NE,
    MFI_OP_LT,
    MFI_OP_LE,
    MFI_OP_GT,
    MFI_OP_GE,
    MFI_OP_IN,
    MFI_OP_NOT_IN
} mfi_op;

struct mfi_node {
    uint8_t type, op, uses;
    bool flag;
    uint32_t line;
    mfi_node *next;
    mfi_node *a, *b, *c, *d;
    mfi_node *list, *body, *other, *target;
    const mfi_str *str; /* names are unique: the same name is the same pointer */
    mfi_value value;
};

struct mfi_template_tree {
    mfi_arena arena;
    mfi_node *root;
    const mfi_str *loop, *caller, *varargs, *kwargs; /* the names */
};

/* ---- lexer (template_lex.c) ---- */

typedef enum mfi_token_type {
    MFI_TOK_END,
    MFI_TOK_DATA,      /* text outside of tags */
    MFI_TOK_OPEN_VAR,  /* {{ */
    MFI_TOK_CLOSE_VAR, /* }} */
    MFI_TOK_OPEN_BLOCK,
    MFI_TOK_CLOSE_BLOCK,
    MFI_TOK_NAME,
    MFI_TOK_STR, /* decoded */
    MFI_TOK_INT,
    MFI_TOK_FLOAT,
    MFI_TOK_OP
} mfi_token_type;

typedef struct mfi_lex_token {
    mfi_token_type type;
    uint32_t line;
    const char *text; /* [len] */
    size_t len;
    int64_t integer;
    double number;
    bool below; /* `integer` is INT64_MIN, and a minus must stand before it */
} mfi_lex_token;

typedef struct mfi_lexer {
    mfi_arena *arena;
    const char *p, *begin, *end; /* line ends are \n */
    uint32_t line;
    enum { MFI_LEX_DATA, MFI_LEX_RAW, MFI_LEX_VAR, MFI_LEX_BLOCK } state;
    bool line_starting;                /* what came before ended with a line end */
    char open[MFI_MAX_TEMPLATE_DEPTH]; /* [n_open] brackets inside a tag */
    uint32_t n_open;
    mf_error *err;
} mfi_lexer;

/* The source is copied. */
mf_status mfi_lexer_begin(mfi_lexer *lexer, mfi_arena *arena, const char *source, size_t len,
                          mf_error *err);
mf_status mfi_lexer_next(mfi_lexer *lexer, mfi_lex_token *token);

mf_status mfi_template_unsupported(mf_error *err, uint32_t line, const char *what, const char *name,
                                   size_t name_len);
mf_status mfi_template_malformed(mf_error *err, uint32_t line, const char *what);
mf_status mfi_template_no_memory(mf_error *err);

/* ---- parser (template_parse.c, template_expr.c) ---- */

typedef struct mfi_parser {
    mfi_arena *arena;
    mfi_lexer lexer;
    mfi_lex_token tok, ahead; /* the next one; the one behind it, if has_ahead */
    bool has_ahead;
    uint32_t depth;
    const mfi_str **names; /* [n_slots], a hash table */
    size_t n_names, n_slots;
    mfi_template_tree *tree;
    uint8_t uses; /* which of caller, varargs, kwargs was met */
    mf_error *err;
} mfi_parser;

mf_status mfi_parser_advance(mfi_parser *ps);
mf_status mfi_parser_look(mfi_parser *ps); /* fills `ahead` */
bool mfi_parser_at_op(const mfi_parser *ps, const char *op);
bool mfi_parser_at_name(const mfi_parser *ps, const char *name);
bool mfi_parser_op_ahead(const mfi_parser *ps, const char *op);
mf_status mfi_parser_malformed(const mfi_parser *ps, const char *what);
mf_status mfi_parser_enter(mfi_parser *ps);
mf_status mfi_parser_node(mfi_parser *ps, mfi_node_type type, mfi_node **node);
/* The name in ps->tok. */
mf_status mfi_parser_name(mfi_parser *ps, const char *text, size_t len, const mfi_str **name);

/* in_for: ends at `recursive`, and `if` begins the condition. */
typedef enum mfi_tuple_kind { MFI_TUPLE_FULL, MFI_TUPLE_NO_IF, MFI_TUPLE_TARGET } mfi_tuple_kind;
mf_status mfi_parse_tuple(mfi_parser *ps, mfi_tuple_kind kind, mfi_node **node);
mf_status mfi_parse_expression(mfi_parser *ps, mfi_node **node);
mf_status mfi_parse_target(mfi_parser *ps, bool namespaces, mfi_node **node);
/* At "|", or at the filter's name: filters on *node, any number of them. */
mf_status mfi_parse_filters(mfi_parser *ps, bool at_name, mfi_node **node);
mf_status mfi_parse_params(mfi_parser *ps, mfi_node **list);

/* ---- a rendering ---- */

typedef struct mfi_scope mfi_scope;

/* A text that grows. Failing is sticky, and told by mfi_text_done. */
typedef struct mfi_text {
    mfi_tpl *t;
    char *data;
    unsigned char *marks;
    size_t n, cap;
    bool some_own, some_foreign;
    bool no_memory, too_long;
} mfi_text;

struct mfi_tpl {
    mfi_arena arena;
    mf_error *err;
    const mfi_template_tree *tree;
    uint32_t line, depth;
    uint64_t n_steps;
    mfi_dict *vars;
    mfi_scope *scope; /* the innermost */
    mfi_text *out;
    const mfi_value *here; /* the text of a filter block */
    enum { MFI_FLOW_ON, MFI_FLOW_BREAK, MFI_FLOW_CONTINUE } flow;
    const char *now;
};

/* ---- failing, bounds (template_value.c) ---- */

/* The template did something that Python refuses, too. */
mf_status mfi_tpl_fail(const mfi_tpl *t, const char *fmt, ...) MFI_PRINTF(2, 3);
mf_status mfi_tpl_unsupported(const mfi_tpl *t, const char *fmt, ...) MFI_PRINTF(2, 3);
mf_status mfi_tpl_no_memory(const mfi_tpl *t);
/* Counts work; fails where there was too much. */
mf_status mfi_tpl_charge(mfi_tpl *t, uint64_t steps);
mf_status mfi_tpl_enter(mfi_tpl *t); /* one deeper; the caller takes t->depth back */

/* ---- strings (template_str.c) ---- */

mfi_text mfi_text_begin(mfi_tpl *t);
void mfi_text_put(mfi_text *text, const char *bytes, size_t n, bool foreign);
void mfi_text_own(mfi_text *text, const char *str);
void mfi_text_str(mfi_text *text, const mfi_str *str);
void mfi_text_slice(mfi_text *text, const mfi_str *str, size_t from, size_t to); /* bytes */
void mfi_text_fill(mfi_text *text, const mfi_str *unit, size_t times);
mf_status mfi_text_check(const mfi_text *text);
mf_status mfi_text_done(mfi_text *text, mfi_value *out);

/* NULL: out of memory. n_chars is counted. */
mfi_str *mfi_str_new(mfi_arena *arena, const char *bytes, size_t n, bool foreign);
mf_status mfi_str_sub(mfi_tpl *t, const mfi_str *str, size_t from, size_t to, mfi_value *out);
size_t mfi_str_offset(const mfi_str *str, size_t char_index); /* of a code point, in bytes */
size_t mfi_str_index(const mfi_str *str, size_t offset);      /* the other way round */
bool mfi_str_is(const mfi_str *str, const char *text);
bool mfi_str_same(const mfi_str *a, const mfi_str *b);
/* The first or last place in [from, to), or SIZE_MAX. */
size_t mfi_str_find(const mfi_str *str, const mfi_str *what, size_t from, size_t to);
size_t mfi_str_rfind(const mfi_str *str, const mfi_str *what, size_t from, size_t to);
/* Whether any byte is foreign. */
bool mfi_str_foreign(const mfi_str *str, size_t from, size_t to);
bool mfi_space(uint32_t cp); /* str.isspace */
/* The stretch without white space, or without the code points in `chars`, at its ends. */
void mfi_str_strip(const mfi_str *str, const mfi_str *chars, bool left, bool right, size_t *from,
                   size_t *to);
/* < & > ' " as in HTML. */
void mfi_text_escaped(mfi_text *text, const mfi_str *str);
mf_status mfi_str_escape(mfi_tpl *t, const mfi_value *v, mfi_value *out);

typedef enum mfi_case {
    MFI_CASE_LOWER,
    MFI_CASE_UPPER,
    MFI_CASE_TITLE, /* of words */
    MFI_CASE_CAPITALIZE,
    MFI_CASE_WORDS, /* the filter title: words begin behind blanks, "-" and brackets */
    MFI_CASE_SWAP
} mfi_case;
/* template_case.c */
void mfi_text_cased(mfi_text *text, const mfi_str *str, mfi_case how);
bool mfi_is_cased(uint32_t cp);
bool mfi_is_upper(uint32_t cp);
bool mfi_is_lower(uint32_t cp);

/* ---- values (template_value.c) ---- */

static inline mfi_value mfi_none(void)
{
    return (mfi_value){.type = MFI_V_NONE};
}

static inline mfi_value mfi_bool(bool b)
{
    return (mfi_value){.type = MFI_V_BOOL, .boolean = b};
}

static inline mfi_value mfi_int(int64_t i)
{
    return (mfi_value){.type = MFI_V_INT, .integer = i};
}

static inline mfi_value mfi_float(double d)
{
    return (mfi_value){.type = MFI_V_FLOAT, .number = d};
}

static inline mfi_value mfi_string(const mfi_str *str, bool markup)
{
    return (mfi_value){.type = MFI_V_STR, .markup = markup, .str = str};
}

static inline bool mfi_is_list(const mfi_value *v)
{
    return v->type >= MFI_V_LIST && v->type <= MFI_V_VIEW;
}

/* Python's name of the type, as in "'int' object". */
const char *mfi_type_name(const mfi_value *v);
mf_status mfi_own_string(mfi_tpl *t, const char *text, size_t n, mfi_value *out);
mf_status mfi_list_new(mfi_tpl *t, mfi_value_type type, size_t cap, mfi_value *out);
mf_status mfi_list_push(mfi_tpl *t, mfi_list *list, const mfi_value *v);
mf_status mfi_tuple2(mfi_tpl *t, const mfi_value *a, const mfi_value *b, mfi_value *out);
mf_status mfi_dict_new(mfi_tpl *t, mfi_value_type type, size_t cap, mfi_value *out);
/* Replaces or appends; a key that can't be one fails. */
mf_status mfi_dict_put(mfi_tpl *t, mfi_dict *dict, const mfi_value *key, const mfi_value *v);
mf_status mfi_dict_append(mfi_tpl *t, mfi_dict *dict, const mfi_value *key, const mfi_value *v);
/* *at: the pair's index, or SIZE_MAX. */
mf_status mfi_dict_find(mfi_tpl *t, const mfi_dict *dict, const mfi_value *key, size_t *at);
const mfi_value *mfi_dict_get(const mfi_dict *dict, const mfi_str *key);
mf_status mfi_check_key(mfi_tpl *t, const mfi_value *key);

mf_status mfi_undefined_name(mfi_tpl *t, const mfi_str *name, mfi_value *out);
mf_status mfi_undefined_attr(mfi_tpl *t, const mfi_value *owner, const mfi_value *name,
                             mfi_value *out);
mf_status mfi_fail_undefined(const mfi_tpl *t, const mfi_value *v);

bool mfi_truth(const mfi_value *v);
bool mfi_number(const mfi_value *v, double *out);   /* bool, int, float */
bool mfi_integer(const mfi_value *v, int64_t *out); /* bool, int */
/* All items, the rest of a generator; *list is not to be changed. Fails for what can't be gone
 * through. */
mf_status mfi_iterate(mfi_tpl *t, const mfi_value *v, mfi_list **list);
mf_status mfi_length(mfi_tpl *t, const mfi_value *v, int64_t *n);
bool mfi_is_sized(const mfi_value *v);

/* ---- operators (template_ops.c) ---- */

mf_status mfi_equal(mfi_tpl *t, const mfi_value *a, const mfi_value *b, bool *out);
/* <0, 0, >0; *unordered: one is not a number. Fails for types without an order. */
mf_status mfi_compare(mfi_tpl *t, const mfi_value *a, const mfi_value *b, int *order,
                      bool *unordered);
mf_status mfi_contains(mfi_tpl *t, const mfi_value *item, const mfi_value *in, bool *out);
mf_status mfi_op_compare(mfi_tpl *t, mfi_op op, const mfi_value *a, const mfi_value *b, bool *out);
mf_status mfi_op_binary(mfi_tpl *t, mfi_op op, const mfi_value *a, const mfi_value *b,
                        mfi_value *out);
mf_status mfi_op_unary(mfi_tpl *t, mfi_op op, const mfi_value *a, mfi_value *out);
mf_status mfi_slice(mfi_tpl *t, const mfi_value *v, const mfi_value bounds[3], mfi_value *out);

/* ---- attributes, items, calls (template_access.c) ---- */

mf_status mfi_get_attr(mfi_tpl *t, const mfi_value *v, const mfi_str *name, mfi_value *out);
mf_status mfi_get_item(mfi_tpl *t, const mfi_value *v, const mfi_value *key, mfi_value *out);
mf_status mfi_call(mfi_tpl *t, const mfi_value *f, const mfi_args *args, mfi_value *out);
/* Parameters by their names, separated by blanks; out: one a name, ABSENT where not given. */
mf_status mfi_bind(mfi_tpl *t, const char *what, const mfi_args *args, const char *names,
                   size_t n_required, mfi_value *out);
/* The argument as an integer, or `absent` where it isn't given. */
mf_status mfi_arg_int(mfi_tpl *t, const char *what, const mfi_value *v, int64_t absent,
                      int64_t *out);
mf_status mfi_arg_str(mfi_tpl *t, const char *what, const mfi_value *v, const mfi_str **out);
mf_status mfi_method_of(mfi_tpl *t, const mfi_value *v, const mfi_str *name, mfi_value *out,
                        bool *found);
const struct mfi_function *mfi_function_find(const mfi_str *name);

/* ---- loops and macros (template_run.c) ---- */

mf_status mfi_loop_attr(mfi_tpl *t, struct mfi_loop *loop, const mfi_str *name, mfi_value *out);
mf_status mfi_loop_call(mfi_tpl *t, struct mfi_loop *loop, const mfi_args *args, mfi_value *out);
mf_status mfi_macro_call(mfi_tpl *t, struct mfi_macro *macro, const mfi_args *args, mfi_value *out);
const mfi_str *mfi_macro_name(const struct mfi_macro *macro);
/* The variable, or NULL. */
const mfi_value *mfi_scope_find(const mfi_tpl *t, const mfi_str *name);

/* ---- expressions (template_eval.c) ---- */

mf_status mfi_eval(mfi_tpl *t, const mfi_node *node, mfi_value *out);
/* A call, with `caller` as one more argument unless it is NULL. */
mf_status mfi_eval_call(mfi_tpl *t, const mfi_node *node, const mfi_value *caller, mfi_value *out);

/* ---- text of values (template_print.c, template_json.c) ---- */

void mfi_text_value(mfi_text *text, const mfi_value *v); /* str() */
void mfi_text_repr(mfi_text *text, const mfi_value *v);
void mfi_text_float(mfi_text *text, double v);
/* str() as a value; strings stay as they are, with their markup. */
mf_status mfi_to_string(mfi_tpl *t, const mfi_value *v, mfi_value *out);
mf_status mfi_repr(mfi_tpl *t, const mfi_value *v, mfi_value *out);
mf_status mfi_filter_tojson(mfi_tpl *t, const mfi_value *v, const mfi_args *args, mfi_value *out);
mf_status mfi_filter_from_json(mfi_tpl *t, const mfi_value *v, const mfi_args *args,
                               mfi_value *out);
mf_status mfi_value_from_json(mfi_tpl *t, mfi_json_span span, bool foreign, mfi_value *out);

/* ---- formatting (template_format.c) ---- */

mf_status mfi_format_percent(mfi_tpl *t, const mfi_value *format, const mfi_value *args,
                             mfi_value *out);
mf_status mfi_format_braces(mfi_tpl *t, const mfi_value *self, const mfi_args *args,
                            mfi_value *out);
/* Whether it is "2025-03-09T14:05:07" or the like. */
bool mfi_is_time(const char *text);
mf_status mfi_strftime(mfi_tpl *t, const mfi_str *format, mfi_value *out);
/* Python's int() and float() of a text; false: not one. */
bool mfi_parse_int(const mfi_str *str, int base, int64_t *out, bool *too_large);
bool mfi_parse_float(const mfi_str *str, double *out);

/* ---- filters and tests (template_filters.c, template_seq.c, template_tests.c) ---- */

typedef struct mfi_filter {
    const char *name;
    mfi_filter_fn fn;
    bool lazy; /* gives a generator: fn is called when somebody goes through it */
} mfi_filter;

extern const mfi_filter mfi_text_filters[], mfi_seq_filters[]; /* end with a NULL name */

mf_status mfi_apply_filter(mfi_tpl *t, const mfi_str *name, const mfi_value *v,
                           const mfi_args *args, mfi_value *out);
mf_status mfi_apply_test(mfi_tpl *t, const mfi_str *name, const mfi_value *v, const mfi_args *args,
                         bool *out);
bool mfi_has_filter(const mfi_str *name);
bool mfi_has_test(const mfi_str *name);

#endif
