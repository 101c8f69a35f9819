/* The template evaluator: walks the tree with Python's meaning of truth, equality and addition.
 *
 * Entry point of the template language; called by the chat renderer, on any thread. All memory of a
 * rendering but the output is in one arena. */
#include "text/template.h"
#include "base/limits.h"
#include "text/template_int.h"

#include <string.h>

typedef struct frame frame;
struct frame { /* a variable of a loop */
    const frame *outer;
    const char *name; /* [len] */
    size_t len;
    const mfi_value *value;
};

typedef struct evaluator {
    mfi_arena *arena;
    const mfi_value *vars;
    const frame *frames;
    mfi_buf *out;
    size_t out_begin;
    uint64_t joined_bytes;
    uint32_t n_steps;
    mf_error *err;
} evaluator;

static const char *const type_names[] = {
    [MFI_VALUE_UNDEFINED] = "undefined", [MFI_VALUE_NONE] = "none",
    [MFI_VALUE_BOOL] = "a boolean",      [MFI_VALUE_INT] = "an integer",
    [MFI_VALUE_STR] = "a string",        [MFI_VALUE_LIST] = "a list",
    [MFI_VALUE_MAP] = "a mapping",       [MFI_VALUE_LOOP] = "loop",
    [MFI_VALUE_OPAQUE] = "a value",
};

/* The template did something that Python refuses, too. */
static mf_status failed(const evaluator *ev, const mfi_node *node, const char *what,
                        const mfi_value *v)
{
    return mfi_fail(ev->err, MF_ERR_ARGUMENT, "chat template line %u: %s %s", node->line, what,
                    type_names[v->type]);
}

static mf_status unsupported(const evaluator *ev, const mfi_node *node, const char *what,
                             const mfi_value *v)
{
    return mfi_template_unsupported(ev->err, node->line, what, type_names[v->type],
                                    strlen(type_names[v->type]));
}

static mf_status step(evaluator *ev, const mfi_node *node)
{
    if (++ev->n_steps > MFI_MAX_TEMPLATE_STEPS)
        return mfi_fail(ev->err, MF_ERR_LIMIT, "chat template line %u: too many steps", node->line);
    if (ev->out->len - ev->out_begin > MFI_MAX_TEMPLATE_OUT_BYTES)
        return mfi_fail(ev->err, MF_ERR_LIMIT, "chat template line %u: too much text", node->line);
    if (ev->out->failed)
        return mfi_template_no_memory(ev->err);
    return MF_OK;
}

/* ---- values ---- */

static bool same_text(const char *a, size_t a_len, const char *b, size_t b_len)
{
    return a_len == b_len && (!a_len || memcmp(a, b, a_len) == 0);
}

static const mfi_value *lookup(const mfi_value *map, const char *key, size_t len)
{
    for (size_t i = 0; i < map->n; i++)
        if (same_text(map->pairs[i].key, strlen(map->pairs[i].key), key, len))
            return &map->pairs[i].value;
    return NULL;
}

static mf_status truth(const evaluator *ev, const mfi_node *node, const mfi_value *v, bool *out)
{
    switch (v->type) {
    case MFI_VALUE_UNDEFINED:
    case MFI_VALUE_NONE:
        *out = false;
        return MF_OK;
    case MFI_VALUE_BOOL:
        *out = v->boolean;
        return MF_OK;
    case MFI_VALUE_INT:
        *out = v->integer != 0;
        return MF_OK;
    case MFI_VALUE_STR:
    case MFI_VALUE_LIST:
    case MFI_VALUE_MAP:
        *out = v->n != 0;
        return MF_OK;
    default:
        return unsupported(ev, node, "condition on", v);
    }
}

static mf_status equal(const evaluator *ev, const mfi_node *node, const mfi_value *a,
                       const mfi_value *b, bool *out)
{
    if (a->type >= MFI_VALUE_LOOP)
        return unsupported(ev, node, "comparison of", a);
    if (b->type >= MFI_VALUE_LOOP)
        return unsupported(ev, node, "comparison of", b);
    bool a_number = a->type == MFI_VALUE_BOOL || a->type == MFI_VALUE_INT;
    bool b_number = b->type == MFI_VALUE_BOOL || b->type == MFI_VALUE_INT;
    if (a_number && b_number) { /* True == 1 */
        *out = (a->type == MFI_VALUE_BOOL ? a->boolean : a->integer) ==
               (b->type == MFI_VALUE_BOOL ? b->boolean : b->integer);
        return MF_OK;
    }
    if (a->type == b->type && (a->type == MFI_VALUE_LIST || a->type == MFI_VALUE_MAP))
        return unsupported(ev, node, "comparison of", a);
    *out =
        a->type == b->type && (a->type != MFI_VALUE_STR || same_text(a->str, a->n, b->str, b->n));
    return MF_OK;
}

static mf_status add(evaluator *ev, const mfi_node *node, const mfi_value *a, const mfi_value *b,
                     mfi_value *out)
{
    if (a->type == MFI_VALUE_STR && b->type == MFI_VALUE_STR) {
        ev->joined_bytes += a->n + b->n;
        if (ev->joined_bytes > 4 * MFI_MAX_TEMPLATE_OUT_BYTES)
            return mfi_fail(ev->err, MF_ERR_LIMIT, "chat template line %u: too much text",
                            node->line);
        char *str = mfi_arena_alloc(ev->arena, a->n + b->n + 1);
        if (!str)
            return mfi_template_no_memory(ev->err);
        if (a->n)
            memcpy(str, a->str, a->n);
        if (b->n)
            memcpy(str + a->n, b->str, b->n);
        *out = (mfi_value){.type = MFI_VALUE_STR, .str = str, .n = a->n + b->n};
        return MF_OK;
    }
    if (a->type == MFI_VALUE_INT && b->type == MFI_VALUE_INT) {
        *out = (mfi_value){.type = MFI_VALUE_INT};
        if (__builtin_add_overflow(a->integer, b->integer, &out->integer))
            return unsupported(ev, node, "so large a sum:", a);
        return MF_OK;
    }
    if (a->type <= MFI_VALUE_NONE)
        return failed(ev, node, "can't add to", a);
    if (b->type <= MFI_VALUE_NONE || a->type == MFI_VALUE_STR)
        return failed(ev, node, "can't add", b);
    return unsupported(ev, node, "addition to", a);
}

/* ---- attributes and items ---- */

static bool is_dict_method(const char *name, size_t len)
{
    static const char *const methods[] = {"clear",      "copy",   "fromkeys", "get",
                                          "items",      "keys",   "pop",      "popitem",
                                          "setdefault", "update", "values"};
    for (size_t i = 0; i < MFI_ARRAY_LEN(methods); i++)
        if (same_text(name, len, methods[i], strlen(methods[i])))
            return true;
    return len && name[0] == '_';
}

static mf_status loop_attr(const evaluator *ev, const mfi_node *node, const mfi_value *loop,
                           mfi_value *out)
{
    const struct {
        const char *name;
        mfi_value_type type;
        int64_t value;
    } attrs[] = {
        {"first", MFI_VALUE_BOOL, loop->index == 0},
        {"last", MFI_VALUE_BOOL, loop->index + 1 == loop->n},
        {"index", MFI_VALUE_INT, (int64_t)loop->index + 1},
        {"index0", MFI_VALUE_INT, (int64_t)loop->index},
        {"revindex", MFI_VALUE_INT, (int64_t)(loop->n - loop->index)},
        {"revindex0", MFI_VALUE_INT, (int64_t)(loop->n - loop->index) - 1},
        {"length", MFI_VALUE_INT, (int64_t)loop->n},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(attrs); i++) {
        if (!same_text(node->str, node->len, attrs[i].name, strlen(attrs[i].name)))
            continue;
        *out = (mfi_value){.type = attrs[i].type};
        if (attrs[i].type == MFI_VALUE_BOOL)
            out->boolean = attrs[i].value;
        else
            out->integer = attrs[i].value;
        return MF_OK;
    }
    return mfi_template_unsupported(ev->err, node->line, "loop attribute", node->str, node->len);
}

/* What a map gives for a name it has no item for, and none for any: a method, or nothing. */
static mf_status missing(const evaluator *ev, const mfi_node *node, const char *name, size_t len,
                         mfi_value *out)
{
    if (is_dict_method(name, len))
        return mfi_template_unsupported(ev->err, node->line, "method", name, len);
    *out = (mfi_value){.type = MFI_VALUE_UNDEFINED};
    return MF_OK;
}

static mf_status get_attr(const evaluator *ev, const mfi_node *node, const mfi_value *v,
                          mfi_value *out)
{
    if (v->type == MFI_VALUE_UNDEFINED)
        return failed(ev, node, "attribute of", v);
    if (v->type == MFI_VALUE_LOOP)
        return loop_attr(ev, node, v, out);
    if (v->type != MFI_VALUE_MAP && v->type != MFI_VALUE_NONE)
        return unsupported(ev, node, "attribute of", v);
    const mfi_value *item = NULL;
    if (v->type == MFI_VALUE_MAP && !is_dict_method(node->str, node->len)) /* those go first */
        item = lookup(v, node->str, node->len);
    if (!item)
        return missing(ev, node, node->str, node->len, out);
    *out = *item;
    return MF_OK;
}

static mf_status get_item(const evaluator *ev, const mfi_node *node, const mfi_value *v,
                          const mfi_value *key, mfi_value *out)
{
    *out = (mfi_value){.type = MFI_VALUE_UNDEFINED};
    if (v->type == MFI_VALUE_UNDEFINED)
        return failed(ev, node, "item of", v);
    if (v->type == MFI_VALUE_MAP && key->type == MFI_VALUE_STR) {
        const mfi_value *item = lookup(v, key->str, key->n);
        if (!item)
            return missing(ev, node, key->str, key->n, out);
        *out = *item;
        return MF_OK;
    }
    if (v->type == MFI_VALUE_LIST && key->type == MFI_VALUE_INT) {
        if (key->integer >= 0 && (uint64_t)key->integer < v->n)
            *out = v->items[key->integer];
        return MF_OK;
    }
    return unsupported(ev, node, "this kind of item of", v);
}

/* ---- expressions ---- */

static mf_status eval(evaluator *ev, const mfi_node *node, mfi_value *out);

static void eval_name(const evaluator *ev, const mfi_node *node, mfi_value *out)
{
    for (const frame *f = ev->frames; f; f = f->outer) {
        if (same_text(f->name, f->len, node->str, node->len)) {
            *out = *f->value;
            return;
        }
    }
    const mfi_value *v = lookup(ev->vars, node->str, node->len);
    *out = v ? *v : (mfi_value){.type = MFI_VALUE_UNDEFINED};
}

/* and, or: the operand that decides. */
static mf_status eval_logic(evaluator *ev, const mfi_node *node, mfi_value *out)
{
    bool yes = false;
    MFI_TRY(eval(ev, node->a, out));
    MFI_TRY(truth(ev, node, out, &yes));
    return yes == (node->type == MFI_NODE_AND) ? eval(ev, node->b, out) : MF_OK;
}

static mf_status eval_binary(evaluator *ev, const mfi_node *node, mfi_value *out)
{
    mfi_value a, b;
    bool same = false;
    MFI_TRY(eval(ev, node->a, &a));
    MFI_TRY(eval(ev, node->b, &b));
    switch (node->type) {
    case MFI_NODE_ADD:
        return add(ev, node, &a, &b, out);
    case MFI_NODE_ITEM:
        return get_item(ev, node, &a, &b, out);
    default:
        MFI_TRY(equal(ev, node, &a, &b, &same));
        *out = (mfi_value){.type = MFI_VALUE_BOOL, .boolean = same == (node->type == MFI_NODE_EQ)};
        return MF_OK;
    }
}

static mf_status eval(evaluator *ev, const mfi_node *node, mfi_value *out)
{
    mfi_value a;
    bool yes = false;
    MFI_TRY(step(ev, node));
    switch (node->type) {
    case MFI_NODE_LITERAL:
        *out = node->value;
        return MF_OK;
    case MFI_NODE_NAME:
        eval_name(ev, node, out);
        return MF_OK;
    case MFI_NODE_ATTR:
        MFI_TRY(eval(ev, node->a, &a));
        return get_attr(ev, node, &a, out);
    case MFI_NODE_NOT:
        MFI_TRY(eval(ev, node->a, &a));
        MFI_TRY(truth(ev, node, &a, &yes));
        *out = (mfi_value){.type = MFI_VALUE_BOOL, .boolean = !yes};
        return MF_OK;
    case MFI_NODE_AND:
    case MFI_NODE_OR:
        return eval_logic(ev, node, out);
    default:
        return eval_binary(ev, node, out);
    }
}

/* ---- statements ---- */

static mf_status run(evaluator *ev, const mfi_node *node);

static mf_status print(evaluator *ev, const mfi_node *node, const mfi_value *v)
{
    switch (v->type) {
    case MFI_VALUE_UNDEFINED:
        return MF_OK;
    case MFI_VALUE_NONE:
        mfi_buf_str(ev->out, "None");
        return MF_OK;
    case MFI_VALUE_BOOL:
        mfi_buf_str(ev->out, v->boolean ? "True" : "False");
        return MF_OK;
    case MFI_VALUE_INT:
        mfi_buf_fmt(ev->out, "%lld", (long long)v->integer);
        return MF_OK;
    case MFI_VALUE_STR:
        mfi_buf_append(ev->out, v->str, v->n);
        return MF_OK;
    default:
        return unsupported(ev, node, "printing", v);
    }
}

static mf_status run_for(evaluator *ev, const mfi_node *node)
{
    mfi_value list;
    MFI_TRY(eval(ev, node->a, &list));
    if (list.type == MFI_VALUE_NONE || list.type == MFI_VALUE_BOOL || list.type == MFI_VALUE_INT)
        return failed(ev, node, "can't loop over", &list);
    if (list.type != MFI_VALUE_LIST && list.type != MFI_VALUE_UNDEFINED)
        return unsupported(ev, node, "loop over", &list);
    size_t n = list.type == MFI_VALUE_LIST ? list.n : 0;
    if (!n)
        return run(ev, node->other);
    mfi_value loop = {.type = MFI_VALUE_LOOP, .n = n};
    frame loop_frame = {.outer = ev->frames, .name = "loop", .len = 4, .value = &loop};
    frame target = {.outer = &loop_frame, .name = node->str, .len = node->len};
    const frame *outer = ev->frames;
    mf_status status = MF_OK;
    ev->frames = &target;
    for (size_t i = 0; i < n && status == MF_OK; i++) {
        loop.index = i;
        target.value = &list.items[i];
        status = run(ev, node->body);
    }
    ev->frames = outer;
    return status;
}

static mf_status run(evaluator *ev, const mfi_node *node)
{
    for (; node; node = node->next) {
        mfi_value v;
        bool yes = false;
        MFI_TRY(step(ev, node));
        switch (node->type) {
        case MFI_NODE_TEXT:
            mfi_buf_append(ev->out, node->str, node->len);
            break;
        case MFI_NODE_OUTPUT:
            MFI_TRY(eval(ev, node->a, &v));
            MFI_TRY(print(ev, node, &v));
            break;
        case MFI_NODE_IF:
            MFI_TRY(eval(ev, node->a, &v));
            MFI_TRY(truth(ev, node, &v, &yes));
            MFI_TRY(run(ev, yes ? node->body : node->other));
            break;
        default:
            MFI_TRY(run_for(ev, node));
            break;
        }
    }
    return MF_OK;
}

mf_status mfi_template_run(const mfi_node *root, const mfi_value *vars, mfi_buf *out, mf_error *err)
{
    MFI_ASSERT(vars->type == MFI_VALUE_MAP);
    mfi_arena arena = {0};
    evaluator ev = {.arena = &arena, .vars = vars, .out = out, .out_begin = out->len, .err = err};
    mf_status status = run(&ev, root);
    if (status == MF_OK && out->failed)
        status = mfi_template_no_memory(err);
    mfi_arena_free(&arena);
    return status;
}

mf_status mfi_template_render(const char *source, size_t len, const mfi_value *vars, mfi_buf *out,
                              mf_error *err)
{
    mfi_arena arena = {0};
    mfi_node *root = NULL;
    mf_status status = mfi_template_parse(&arena, source, len, &root, err);
    if (status == MF_OK)
        status = mfi_template_run(root, vars, out, err);
    mfi_arena_free(&arena);
    return status;
}
