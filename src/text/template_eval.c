/* Expressions of the template language.
 *
 * Walks the tree; called by the statements (template_run.c). Depth and work are counted at every
 * node, so that no template recurses or runs without end. */
#include "text/template_int.h"

#include <string.h>

static mf_status eval_name(mfi_tpl *t, const mfi_node *node, mfi_value *out)
{
    const mfi_value *v = mfi_scope_find(t, node->str);
    if (!v)
        v = mfi_dict_get(t->vars, node->str);
    if (v) {
        *out = *v;
        return MF_OK;
    }
    const struct mfi_function *function = mfi_function_find(node->str);
    if (!function)
        return mfi_undefined_name(t, node->str, out);
    *out = (mfi_value){.type = MFI_V_FUNCTION, .function = function};
    return MF_OK;
}

static mf_status eval_list(mfi_tpl *t, const mfi_node *node, mfi_value *out)
{
    MFI_TRY(mfi_list_new(t, node->type == MFI_NODE_TUPLE ? MFI_V_TUPLE : MFI_V_LIST, 0, out));
    for (const mfi_node *item = node->list; item; item = item->next) {
        mfi_value v;
        MFI_TRY(mfi_eval(t, item, &v));
        MFI_TRY(mfi_list_push(t, out->list, &v));
    }
    return MF_OK;
}

static mf_status eval_dict(mfi_tpl *t, const mfi_node *node, mfi_value *out)
{
    MFI_TRY(mfi_dict_new(t, MFI_V_DICT, 0, out));
    for (const mfi_node *key = node->list; key; key = key->next->next) {
        mfi_value k, v;
        MFI_TRY(mfi_eval(t, key, &k));
        MFI_TRY(mfi_eval(t, key->next, &v));
        MFI_TRY(mfi_dict_put(t, out->dict, &k, &v));
    }
    return MF_OK;
}

/* ---- calls ---- */

static mf_status put_stars(mfi_tpl *t, const mfi_value *v, mfi_args *args, mfi_kwarg *kw)
{
    if (v->type != MFI_V_DICT)
        return mfi_tpl_fail(t, "** needs a mapping, not a %s", mfi_type_name(v));
    for (size_t i = 0; i < v->dict->n; i++) {
        const mfi_pair *pair = &v->dict->pairs[i];
        const mfi_str *name;
        MFI_TRY(mfi_arg_str(t, "**", &pair->key, &name));
        kw[args->n_kw++] = (mfi_kwarg){name, pair->value};
    }
    return MF_OK;
}

static mf_status eval_args(mfi_tpl *t, const mfi_node *list, const mfi_value *caller,
                           mfi_args *args)
{
    mfi_value pos, v, stars = {.type = MFI_V_ABSENT};
    size_t n_kw = 1;
    *args = (mfi_args){NULL, 0, NULL, 0};
    if (!list && !caller)
        return MF_OK;
    for (const mfi_node *a = list; a; a = a->next)
        n_kw += a->type == MFI_NODE_KEYWORD;
    MFI_TRY(mfi_list_new(t, MFI_V_LIST, 4, &pos));
    for (const mfi_node *a = list; a; a = a->next) { /* in their order */
        mfi_list *more;
        if (a->type == MFI_NODE_KEYWORD)
            continue;
        if (a->type != MFI_NODE_STAR && a->type != MFI_NODE_STARS) {
            MFI_TRY(mfi_eval(t, a, &v));
            MFI_TRY(mfi_list_push(t, pos.list, &v));
            continue;
        }
        MFI_TRY(mfi_eval(t, a->a, a->type == MFI_NODE_STARS ? &stars : &v));
        if (a->type == MFI_NODE_STARS)
            continue;
        MFI_TRY(mfi_iterate(t, &v, &more));
        for (size_t i = 0; i < more->n; i++)
            MFI_TRY(mfi_list_push(t, pos.list, &more->items[i]));
    }
    args->pos = pos.list->items;
    args->n = pos.list->n;
    n_kw += stars.type == MFI_V_DICT ? stars.dict->n : 0;
    mfi_kwarg *kw = mfi_arena_alloc(&t->arena, n_kw * sizeof *kw);
    if (!kw)
        return mfi_tpl_no_memory(t);
    args->kw = kw;
    for (const mfi_node *a = list; a; a = a->next) {
        if (a->type != MFI_NODE_KEYWORD)
            continue;
        MFI_TRY(mfi_eval(t, a->a, &v));
        kw[args->n_kw++] = (mfi_kwarg){a->str, v};
    }
    if (caller)
        kw[args->n_kw++] = (mfi_kwarg){t->tree->caller, *caller};
    return stars.type == MFI_V_ABSENT ? MF_OK : put_stars(t, &stars, args, kw);
}

mf_status mfi_eval_call(mfi_tpl *t, const mfi_node *node, const mfi_value *caller, mfi_value *out)
{
    mfi_value callee;
    mfi_args args;
    MFI_TRY(mfi_eval(t, node->a, &callee));
    if (callee.type == MFI_V_UNDEFINED) {
        t->line = node->line;
        return mfi_fail_undefined(t, &callee);
    }
    MFI_TRY(eval_args(t, node->list, caller, &args));
    t->line = node->line;
    return mfi_call(t, &callee, &args, out);
}

static mf_status eval_filter(mfi_tpl *t, const mfi_node *node, mfi_value *out)
{
    mfi_value v;
    mfi_args args;
    MFI_TRY(mfi_eval(t, node->a, &v));
    MFI_TRY(eval_args(t, node->list, NULL, &args));
    t->line = node->line;
    return mfi_apply_filter(t, node->str, &v, &args, out);
}

static mf_status eval_test(mfi_tpl *t, const mfi_node *node, mfi_value *out)
{
    mfi_value v;
    mfi_args args;
    bool yes = false;
    MFI_TRY(mfi_eval(t, node->a, &v));
    MFI_TRY(eval_args(t, node->list, NULL, &args));
    t->line = node->line;
    MFI_TRY(mfi_apply_test(t, node->str, &v, &args, &yes));
    *out = mfi_bool(yes);
    return MF_OK;
}

/* ---- attributes and items ---- */

static mf_status eval_attr(mfi_tpl *t, const mfi_node *node, mfi_value *out)
{
    mfi_value v;
    MFI_TRY(mfi_eval(t, node->a, &v));
    t->line = node->line;
    return mfi_get_attr(t, &v, node->str, out);
}

static mf_status eval_item(mfi_tpl *t, const mfi_node *node, mfi_value *out)
{
    mfi_value v, key;
    MFI_TRY(mfi_eval(t, node->a, &v));
    MFI_TRY(mfi_eval(t, node->b, &key));
    t->line = node->line;
    return mfi_get_item(t, &v, &key, out);
}

static mf_status eval_slice(mfi_tpl *t, const mfi_node *node, mfi_value *out)
{
    mfi_value v, bounds[3];
    const mfi_node *const nodes[3] = {node->b, node->c, node->d};
    MFI_TRY(mfi_eval(t, node->a, &v));
    for (int i = 0; i < 3; i++) {
        bounds[i] = (mfi_value){.type = MFI_V_ABSENT};
        if (nodes[i])
            MFI_TRY(mfi_eval(t, nodes[i], &bounds[i]));
    }
    t->line = node->line;
    return mfi_slice(t, &v, bounds, out);
}

/* ---- operators ---- */

/* and, or: the operand that decides. */
static mf_status eval_logic(mfi_tpl *t, const mfi_node *node, mfi_value *out)
{
    MFI_TRY(mfi_eval(t, node->a, out));
    return mfi_truth(out) == (node->type == MFI_NODE_AND) ? mfi_eval(t, node->b, out) : MF_OK;
}

/* a < b <= c: as long as it holds. */
static mf_status eval_compare(mfi_tpl *t, const mfi_node *node, mfi_value *out)
{
    mfi_value left, right;
    bool yes = true;
    MFI_TRY(mfi_eval(t, node->a, &left));
    for (const mfi_node *c = node->list; c && yes; c = c->next) {
        MFI_TRY(mfi_eval(t, c->a, &right));
        t->line = node->line;
        MFI_TRY(mfi_op_compare(t, (mfi_op)c->op, &left, &right, &yes));
        left = right;
    }
    *out = mfi_bool(yes);
    return MF_OK;
}

static mf_status eval_concat(mfi_tpl *t, const mfi_node *node, mfi_value *out)
{
    mfi_text text = mfi_text_begin(t);
    for (const mfi_node *part = node->list; part; part = part->next) {
        mfi_value v;
        MFI_TRY(mfi_eval(t, part, &v));
        mfi_text_value(&text, &v);
    }
    t->line = node->line;
    return mfi_text_done(&text, out);
}

static mf_status eval_binary(mfi_tpl *t, const mfi_node *node, mfi_value *out)
{
    mfi_value a, b;
    MFI_TRY(mfi_eval(t, node->a, &a));
    MFI_TRY(mfi_eval(t, node->b, &b));
    t->line = node->line;
    return mfi_op_binary(t, (mfi_op)node->op, &a, &b, out);
}

static mf_status eval_unary(mfi_tpl *t, const mfi_node *node, mfi_value *out)
{
    mfi_value a;
    MFI_TRY(mfi_eval(t, node->a, &a));
    t->line = node->line;
    if (node->type == MFI_NODE_UNARY)
        return mfi_op_unary(t, (mfi_op)node->op, &a, out);
    *out = mfi_bool(!mfi_truth(&a));
    return MF_OK;
}

static mf_status eval_cond(mfi_tpl *t, const mfi_node *node, mfi_value *out)
{
    mfi_value condition;
    MFI_TRY(mfi_eval(t, node->b, &condition));
    if (mfi_truth(&condition))
        return mfi_eval(t, node->a, out);
    if (node->c)
        return mfi_eval(t, node->c, out);
    *out = (mfi_value){.type = MFI_V_UNDEFINED};
    return MF_OK;
}

static mf_status eval_operator(mfi_tpl *t, const mfi_node *node, mfi_value *out)
{
    switch (node->type) {
    case MFI_NODE_COND:
        return eval_cond(t, node, out);
    case MFI_NODE_AND:
    case MFI_NODE_OR:
        return eval_logic(t, node, out);
    case MFI_NODE_COMPARE:
        return eval_compare(t, node, out);
    case MFI_NODE_CONCAT:
        return eval_concat(t, node, out);
    case MFI_NODE_BINARY:
        return eval_binary(t, node, out);
    default: /* NOT, UNARY */
        return eval_unary(t, node, out);
    }
}

mf_status mfi_eval(mfi_tpl *t, const mfi_node *node, mfi_value *out)
{
    mf_status status = MF_OK;
    t->line = node->line;
    MFI_TRY(mfi_tpl_enter(t));
    switch (node->type) {
    case MFI_NODE_LITERAL:
        *out = node->value;
        break;
    case MFI_NODE_HERE:
        *out = *t->here;
        break;
    case MFI_NODE_NAME:
        status = eval_name(t, node, out);
        break;
    case MFI_NODE_LIST:
    case MFI_NODE_TUPLE:
        status = eval_list(t, node, out);
        break;
    case MFI_NODE_DICT:
        status = eval_dict(t, node, out);
        break;
    case MFI_NODE_ATTR:
        status = eval_attr(t, node, out);
        break;
    case MFI_NODE_ITEM:
        status = eval_item(t, node, out);
        break;
    case MFI_NODE_SLICE:
        status = eval_slice(t, node, out);
        break;
    case MFI_NODE_CALL:
        status = mfi_eval_call(t, node, NULL, out);
        break;
    case MFI_NODE_FILTER:
        status = eval_filter(t, node, out);
        break;
    case MFI_NODE_TEST:
        status = eval_test(t, node, out);
        break;
    default:
        status = eval_operator(t, node, out);
        break;
    }
    t->depth--;
    return status;
}
