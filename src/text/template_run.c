/* Statements of the template language: scopes, loops, macros, output; and rendering as a whole.
 *
 * Entry point of everything that renders. A scope holds what `set`, loops and parameters define;
 * loops, macros, blocks that make a text, and `generation` have one of their own, `if` has not. A
 * macro sees the scope it was defined in. */
#include "text/template_int.h"

#include <stdlib.h>
#include <string.h>

typedef struct variable {
    const mfi_str *name;
    mfi_value value;
} variable;

struct mfi_scope {
    mfi_scope *outer;
    variable *vars; /* [n] */
    uint32_t n, cap;
    variable first[4];
};

struct mfi_macro {
    const mfi_node *node; /* MACRO or CALL_BLOCK */
    mfi_scope *scope;
};

struct mfi_loop {
    const mfi_node *node;
    mfi_scope *outer;
    mfi_list *source; /* what is gone through */
    size_t next;      /* of the source, where there is a condition */
    mfi_list *items;  /* what meets the condition, as far as known; else the source */
    size_t index;
    int64_t depth;
    mfi_value changed; /* ABSENT: not asked for yet */
};

static mf_status run(mfi_tpl *t, const mfi_node *node);

/* ---- scopes ---- */

const mfi_value *mfi_scope_find(const mfi_tpl *t, const mfi_str *name)
{
    for (const mfi_scope *s = t->scope; s; s = s->outer)
        for (uint32_t i = 0; i < s->n; i++)
            if (s->vars[i].name == name)
                return &s->vars[i].value;
    return NULL;
}

static mf_status open_scope(mfi_tpl *t, mfi_scope *outer)
{
    mfi_scope *s = mfi_arena_alloc(&t->arena, sizeof *s);
    if (!s)
        return mfi_tpl_no_memory(t);
    s->outer = outer;
    s->vars = s->first;
    s->n = 0;
    s->cap = MFI_ARRAY_LEN(s->first);
    t->scope = s;
    return MF_OK;
}

/* In the innermost scope. */
static mf_status set_name(mfi_tpl *t, const mfi_str *name, const mfi_value *v)
{
    mfi_scope *s = t->scope;
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->vars[i].name == name) {
            s->vars[i].value = *v;
            return MF_OK;
        }
    }
    if (s->n == s->cap) {
        variable *grown = mfi_arena_alloc(&t->arena, 2 * s->cap * sizeof *grown);
        if (!grown)
            return mfi_tpl_no_memory(t);
        memcpy(grown, s->vars, s->n * sizeof *grown);
        s->vars = grown;
        s->cap *= 2;
    }
    s->vars[s->n++] = (variable){name, *v};
    return MF_OK;
}

static mf_status set_attr(mfi_tpl *t, const mfi_node *target, const mfi_value *v)
{
    const mfi_value *ns = mfi_scope_find(t, target->str);
    if (!ns || ns->type != MFI_V_NAMESPACE)
        return mfi_tpl_fail(t, "'%.60s' is no namespace, so that its attributes can't be set",
                            target->str->data);
    return mfi_dict_put(t, ns->dict, &target->a->value, v);
}

static mf_status assign(mfi_tpl *t, const mfi_node *target, const mfi_value *v)
{
    mfi_list *list;
    size_t n = 0;
    if (target->type == MFI_NODE_NAME)
        return set_name(t, target->str, v);
    if (target->type == MFI_NODE_NSREF)
        return set_attr(t, target, v);
    if (v->type == MFI_V_UNDEFINED)
        return mfi_fail_undefined(t, v);
    MFI_TRY(mfi_iterate(t, v, &list));
    for (const mfi_node *part = target->list; part; part = part->next)
        n++;
    if (list->n != n)
        return mfi_tpl_fail(t, "%zu values for %zu names", list->n, n);
    n = 0;
    for (const mfi_node *part = target->list; part; part = part->next)
        MFI_TRY(assign(t, part, &list->items[n++]));
    return MF_OK;
}

/* Runs a body in a scope of its own and gives its text. */
static mf_status capture(mfi_tpl *t, const mfi_node *body, mfi_value *out)
{
    mfi_text text = mfi_text_begin(t), *before = t->out;
    mfi_scope *scope = t->scope;
    MFI_TRY(open_scope(t, scope));
    t->out = &text;
    MFI_TRY(run(t, body));
    t->out = before;
    t->scope = scope;
    return mfi_text_done(&text, out);
}

/* ---- loops ---- */

static mf_status meets_condition(mfi_tpl *t, struct mfi_loop *loop, const mfi_value *item,
                                 bool *yes)
{
    mfi_scope *scope = t->scope;
    mfi_value condition;
    MFI_TRY(open_scope(t, loop->outer));
    MFI_TRY(assign(t, loop->node->target, item));
    MFI_TRY(mfi_eval(t, loop->node->b, &condition));
    *yes = mfi_truth(&condition);
    t->scope = scope;
    return MF_OK;
}

/* Whether there is an item i; conditions are looked at when it is asked for. */
static mf_status has_item(mfi_tpl *t, struct mfi_loop *loop, size_t i, bool *has)
{
    while (loop->node->b && loop->items->n <= i && loop->next < loop->source->n) {
        mfi_value item = loop->source->items[loop->next++];
        bool yes = false;
        MFI_TRY(meets_condition(t, loop, &item, &yes));
        if (yes)
            MFI_TRY(mfi_list_push(t, loop->items, &item));
    }
    *has = i < loop->items->n;
    return MF_OK;
}

static mf_status run_rounds(mfi_tpl *t, struct mfi_loop *loop, bool *completed)
{
    mfi_value self = {.type = MFI_V_LOOP, .loop = loop};
    for (loop->index = 0;; loop->index++) {
        bool has;
        MFI_TRY(has_item(t, loop, loop->index, &has));
        if (!has)
            return MF_OK;
        mfi_value item = loop->items->items[loop->index];
        MFI_TRY(open_scope(t, loop->outer));
        MFI_TRY(set_name(t, t->tree->loop, &self));
        t->line = loop->node->line;
        MFI_TRY(assign(t, loop->node->target, &item));
        MFI_TRY(run(t, loop->node->body));
        bool leave = t->flow == MFI_FLOW_BREAK;
        *completed |= t->flow == MFI_FLOW_ON; /* jinja2's else also follows such rounds */
        t->flow = MFI_FLOW_ON;
        if (leave)
            return MF_OK;
    }
}

static mf_status run_loop(mfi_tpl *t, const mfi_node *node, mfi_scope *outer,
                          const mfi_value *iterable, int64_t depth)
{
    mfi_scope *scope = t->scope;
    bool completed = false;
    struct mfi_loop *loop = mfi_arena_alloc(&t->arena, sizeof *loop);
    if (!loop)
        return mfi_tpl_no_memory(t);
    *loop = (struct mfi_loop){.node = node, .outer = outer, .depth = depth};
    t->line = node->line;
    MFI_TRY(mfi_iterate(t, iterable, &loop->source));
    loop->items = loop->source;
    if (node->b) {
        mfi_value items;
        MFI_TRY(mfi_list_new(t, MFI_V_LIST, 0, &items));
        loop->items = items.list;
    }
    MFI_TRY(run_rounds(t, loop, &completed));
    if (!completed && node->other) {
        MFI_TRY(open_scope(t, outer));
        MFI_TRY(run(t, node->other));
    }
    t->scope = scope;
    return MF_OK;
}

mf_status mfi_loop_call(mfi_tpl *t, struct mfi_loop *loop, const mfi_args *args, mfi_value *out)
{
    mfi_value arg[1];
    mfi_text text = mfi_text_begin(t), *before = t->out;
    if (!loop->node->flag)
        return mfi_tpl_fail(t, "a loop that isn't recursive is called");
    MFI_TRY(mfi_bind(t, "loop", args, "iterable", 1, arg));
    t->out = &text;
    MFI_TRY(run_loop(t, loop->node, loop->outer, &arg[0], loop->depth + 1));
    t->out = before;
    return mfi_text_done(&text, out);
}

static mf_status loop_cycle(mfi_tpl *t, const mfi_value *self, const mfi_args *args, mfi_value *out)
{
    if (!args->n)
        return mfi_tpl_fail(t, "loop.cycle needs items");
    *out = args->pos[self->loop->index % args->n];
    return MF_OK;
}

static mf_status loop_changed(mfi_tpl *t, const mfi_value *self, const mfi_args *args,
                              mfi_value *out)
{
    mfi_value now;
    bool same = false;
    MFI_TRY(mfi_list_new(t, MFI_V_TUPLE, args->n, &now));
    for (size_t i = 0; i < args->n; i++)
        MFI_TRY(mfi_list_push(t, now.list, &args->pos[i]));
    if (self->loop->changed.type != MFI_V_ABSENT)
        MFI_TRY(mfi_equal(t, &self->loop->changed, &now, &same));
    self->loop->changed = now;
    *out = mfi_bool(!same);
    return MF_OK;
}

static mf_status loop_method(mfi_tpl *t, struct mfi_loop *loop, const mfi_str *name,
                             mfi_filter_fn fn, mfi_value *out)
{
    struct mfi_method *method = mfi_arena_alloc(&t->arena, sizeof *method);
    if (!method)
        return mfi_tpl_no_memory(t);
    *method =
        (struct mfi_method){.self = {.type = MFI_V_LOOP, .loop = loop}, .name = name, .fn = fn};
    *out = (mfi_value){.type = MFI_V_METHOD, .method = method};
    return MF_OK;
}

/* What needs to know what follows. */
static mf_status loop_ahead(mfi_tpl *t, struct mfi_loop *loop, const mfi_str *name, mfi_value *out)
{
    bool last = mfi_str_is(name, "last"), next = mfi_str_is(name, "nextitem"), has;
    bool reversed = mfi_str_is(name, "revindex"), reversed0 = mfi_str_is(name, "revindex0");
    *out = (mfi_value){.type = MFI_V_ABSENT};
    if (last || next) {
        MFI_TRY(has_item(t, loop, loop->index + 1, &has));
        if (last)
            *out = mfi_bool(!has);
        else if (has)
            *out = loop->items->items[loop->index + 1];
        else
            out->type = MFI_V_UNDEFINED;
        return MF_OK;
    }
    if (!reversed && !reversed0 && !mfi_str_is(name, "length"))
        return MF_OK;
    MFI_TRY(has_item(t, loop, SIZE_MAX - 1, &has));
    *out = mfi_int((int64_t)loop->items->n);
    if (reversed || reversed0)
        out->integer -= (int64_t)loop->index + reversed0;
    return MF_OK;
}

mf_status mfi_loop_attr(mfi_tpl *t, struct mfi_loop *loop, const mfi_str *name, mfi_value *out)
{
    int64_t index = (int64_t)loop->index;
    if (mfi_str_is(name, "index"))
        *out = mfi_int(index + 1);
    else if (mfi_str_is(name, "index0"))
        *out = mfi_int(index);
    else if (mfi_str_is(name, "first"))
        *out = mfi_bool(index == 0);
    else if (mfi_str_is(name, "depth"))
        *out = mfi_int(loop->depth + 1);
    else if (mfi_str_is(name, "depth0"))
        *out = mfi_int(loop->depth);
    else if (mfi_str_is(name, "previtem"))
        *out = index && loop->index - 1 < loop->items->n ? loop->items->items[index - 1]
                                                         : (mfi_value){.type = MFI_V_UNDEFINED};
    else if (mfi_str_is(name, "cycle"))
        return loop_method(t, loop, name, loop_cycle, out);
    else if (mfi_str_is(name, "changed"))
        return loop_method(t, loop, name, loop_changed, out);
    else
        return loop_ahead(t, loop, name, out);
    return MF_OK;
}

/* ---- macros ---- */

const mfi_str *mfi_macro_name(const struct mfi_macro *macro)
{
    return macro->node->type == MFI_NODE_MACRO ? macro->node->str : NULL;
}

static mf_status make_macro(mfi_tpl *t, const mfi_node *node, mfi_value *out)
{
    struct mfi_macro *macro = mfi_arena_alloc(&t->arena, sizeof *macro);
    if (!macro)
        return mfi_tpl_no_memory(t);
    *macro = (struct mfi_macro){node, t->scope};
    *out = (mfi_value){.type = MFI_V_MACRO, .macro = macro};
    return MF_OK;
}

/* The argument of that name, taken out of what is left. */
static const mfi_value *take_kwarg(const mfi_args *args, bool *taken, const mfi_str *name)
{
    for (size_t i = 0; i < args->n_kw; i++) {
        if (!taken[i] && mfi_str_same(args->kw[i].name, name)) {
            taken[i] = true;
            return &args->kw[i].value;
        }
    }
    return NULL;
}

static mf_status bind_params(mfi_tpl *t, const mfi_node *node, const mfi_args *args, bool *taken,
                             size_t *n_params)
{
    size_t n = 0;
    for (const mfi_node *p = node->list; p; p = p->next, n++) {
        mfi_value v;
        const mfi_value *given = n < args->n ? &args->pos[n] : take_kwarg(args, taken, p->str);
        if (given)
            v = *given;
        else if (p->a)
            MFI_TRY(mfi_eval(t, p->a, &v));
        else
            MFI_TRY(mfi_undefined_name(t, p->str, &v));
        MFI_TRY(set_name(t, p->str, &v));
    }
    *n_params = n;
    return MF_OK;
}

/* caller, kwargs, varargs, where the body uses them; what is left over else fails. */
static mf_status bind_rest(mfi_tpl *t, const mfi_node *node, const mfi_args *args, bool *taken,
                           size_t n_params)
{
    mfi_value v;
    bool own = false; /* a parameter of that name */
    for (const mfi_node *p = node->list; p; p = p->next)
        own |= p->str == t->tree->caller;
    if ((node->uses & MFI_USES_CALLER) && !own) {
        const mfi_value *caller = take_kwarg(args, taken, t->tree->caller);
        if (caller)
            v = *caller;
        else
            MFI_TRY(mfi_undefined_name(t, t->tree->caller, &v));
        MFI_TRY(set_name(t, t->tree->caller, &v));
    }
    MFI_TRY(mfi_dict_new(t, MFI_V_DICT, 0, &v));
    for (size_t i = 0; i < args->n_kw; i++) {
        mfi_value key = mfi_string(args->kw[i].name, false);
        if (taken[i])
            continue;
        if (!(node->uses & MFI_USES_KWARGS))
            return mfi_tpl_fail(t, "the macro has no argument '%.60s'", args->kw[i].name->data);
        MFI_TRY(mfi_dict_put(t, v.dict, &key, &args->kw[i].value));
    }
    if (node->uses & MFI_USES_KWARGS)
        MFI_TRY(set_name(t, t->tree->kwargs, &v));
    if (args->n > n_params && !(node->uses & MFI_USES_VARARGS))
        return mfi_tpl_fail(t, "the macro takes at most %zu arguments", n_params);
    MFI_TRY(mfi_list_new(t, MFI_V_TUPLE, 0, &v));
    for (size_t i = n_params; i < args->n; i++)
        MFI_TRY(mfi_list_push(t, v.list, &args->pos[i]));
    return node->uses & MFI_USES_VARARGS ? set_name(t, t->tree->varargs, &v) : MF_OK;
}

mf_status mfi_macro_call(mfi_tpl *t, struct mfi_macro *macro, const mfi_args *args, mfi_value *out)
{
    mfi_text text = mfi_text_begin(t), *before = t->out;
    mfi_scope *scope = t->scope;
    const mfi_value *here = t->here;
    size_t n_params;
    bool *taken = mfi_arena_alloc(&t->arena, args->n_kw + 1);
    if (!taken)
        return mfi_tpl_no_memory(t);
    memset(taken, 0, args->n_kw + 1);
    MFI_TRY(open_scope(t, macro->scope));
    MFI_TRY(bind_params(t, macro->node, args, taken, &n_params));
    MFI_TRY(bind_rest(t, macro->node, args, taken, n_params));
    t->out = &text;
    MFI_TRY(run(t, macro->node->body));
    t->flow = MFI_FLOW_ON;
    t->out = before;
    t->scope = scope;
    t->here = here;
    return mfi_text_done(&text, out);
}

/* ---- statements ---- */

static mf_status run_if(mfi_tpl *t, const mfi_node *node)
{
    for (const mfi_node *branch = node->list; branch; branch = branch->next) {
        mfi_value condition;
        MFI_TRY(mfi_eval(t, branch->a, &condition));
        if (mfi_truth(&condition))
            return run(t, branch->body);
    }
    return run(t, node->other);
}

/* The text of a block through its filters. */
static mf_status filter_text(mfi_tpl *t, const mfi_node *filters, mfi_value *v)
{
    const mfi_value *here = t->here, text = *v;
    if (!filters)
        return MF_OK;
    t->here = &text;
    MFI_TRY(mfi_eval(t, filters, v));
    t->here = here;
    return MF_OK;
}

static mf_status run_with(mfi_tpl *t, const mfi_node *node)
{
    mfi_scope *outer = t->scope, *inner;
    MFI_TRY(open_scope(t, outer));
    inner = t->scope;
    for (const mfi_node *set = node->list; set; set = set->next) {
        mfi_value v;
        t->scope = outer;
        MFI_TRY(mfi_eval(t, set->a, &v));
        t->scope = inner;
        MFI_TRY(assign(t, set->target, &v));
    }
    MFI_TRY(run(t, node->body));
    t->scope = outer;
    return MF_OK;
}

static mf_status run_call_block(mfi_tpl *t, const mfi_node *node)
{
    mfi_value caller, v;
    MFI_TRY(make_macro(t, node, &caller));
    MFI_TRY(mfi_eval_call(t, node->a, &caller, &v));
    mfi_text_value(t->out, &v);
    return MF_OK;
}

/* Statements that make a text of their body. */
static mf_status run_block(mfi_tpl *t, const mfi_node *node)
{
    mfi_value v;
    MFI_TRY(capture(t, node->body, &v));
    if (node->type == MFI_NODE_SCOPE) {
        mfi_text_value(t->out, &v);
        return MF_OK;
    }
    if (t->flow != MFI_FLOW_ON)
        return MF_OK;
    MFI_TRY(filter_text(t, node->a, &v));
    if (node->type == MFI_NODE_SET_BLOCK)
        return assign(t, node->target, &v);
    if (v.type != MFI_V_STR)
        return mfi_tpl_fail(t, "a filter block gives a %s", mfi_type_name(&v));
    mfi_text_str(t->out, v.str);
    return MF_OK;
}

static mf_status run_statement(mfi_tpl *t, const mfi_node *node)
{
    mfi_value v;
    switch (node->type) {
    case MFI_NODE_TEXT:
        mfi_text_str(t->out, node->str);
        return MF_OK;
    case MFI_NODE_OUTPUT:
        MFI_TRY(mfi_eval(t, node->a, &v));
        mfi_text_value(t->out, &v);
        return MF_OK;
    case MFI_NODE_IF:
        return run_if(t, node);
    case MFI_NODE_FOR:
        MFI_TRY(mfi_eval(t, node->a, &v));
        return run_loop(t, node, t->scope, &v, 0);
    case MFI_NODE_SET:
        MFI_TRY(mfi_eval(t, node->a, &v));
        t->line = node->line;
        return assign(t, node->target, &v);
    case MFI_NODE_WITH:
        return run_with(t, node);
    case MFI_NODE_MACRO:
        MFI_TRY(make_macro(t, node, &v));
        return set_name(t, node->str, &v);
    case MFI_NODE_CALL_BLOCK:
        return run_call_block(t, node);
    case MFI_NODE_BREAK:
    case MFI_NODE_CONTINUE:
        t->flow = node->type == MFI_NODE_BREAK ? MFI_FLOW_BREAK : MFI_FLOW_CONTINUE;
        return MF_OK;
    default: /* SET_BLOCK, FILTER_BLOCK, SCOPE */
        return run_block(t, node);
    }
}

static mf_status run(mfi_tpl *t, const mfi_node *node)
{
    MFI_TRY(mfi_tpl_enter(t));
    for (; node && t->flow == MFI_FLOW_ON; node = node->next) {
        t->line = node->line;
        MFI_TRY(mfi_tpl_charge(t, 1));
        MFI_TRY(run_statement(t, node));
        MFI_TRY(mfi_text_check(t->out));
    }
    t->depth--;
    return MF_OK;
}

/* ---- rendering ---- */

static mf_status make_vars(mfi_tpl *t, const mfi_template_input *input)
{
    mfi_value vars, name, text;
    MFI_TRY(mfi_value_from_json(t, input->vars, true, &vars));
    for (size_t i = 0; i < input->n_named; i++) {
        const mfi_template_name *n = &input->named[i];
        MFI_TRY(mfi_own_string(t, n->name, strlen(n->name), &name));
        if (!n->text || mfi_dict_get(vars.dict, name.str))
            continue;
        MFI_TRY(mfi_own_string(t, n->text, strlen(n->text), &text));
        MFI_TRY(mfi_dict_append(t, vars.dict, &name, &text));
    }
    t->vars = vars.dict;
    /* A variable `now` sets the clock, too. */
    MFI_TRY(mfi_own_string(t, "now", 3, &name));
    const mfi_value *now = mfi_dict_get(vars.dict, name.str);
    t->now =
        now && now->type == MFI_V_STR && mfi_is_time(now->str->data) ? now->str->data : input->now;
    return MF_OK;
}

static mf_status take_rendering(const mfi_text *text, mf_rendering *out, mf_error *err)
{
    mf_rendering r = {.len = text->n};
    size_t n_spans = 0;
    MFI_TRY(mfi_text_check(text));
    for (size_t i = 0; i < text->n; i++)
        n_spans += !i || text->marks[i] != text->marks[i - 1];
    r.text = malloc(text->n + 1);
    r.spans = malloc((n_spans + 1) * sizeof *r.spans);
    if (!r.text || !r.spans) {
        mf_rendering_free(&r);
        return mfi_template_no_memory(err);
    }
    if (text->n)
        memcpy(r.text, text->data, text->n);
    r.text[text->n] = 0;
    for (size_t i = 0; i < text->n; i++) {
        if (!i || text->marks[i] != text->marks[i - 1])
            r.spans[r.n_spans++] = (mf_text_span){r.text + i, 0, text->marks[i]};
        r.spans[r.n_spans - 1].len++;
    }
    *out = r;
    return MF_OK;
}

mf_status mfi_template_render(const mfi_template_tree *tree, const mfi_template_input *input,
                              mf_rendering *out, mf_error *err)
{
    mfi_tpl t = {.arena = {.max_bytes = MFI_MAX_TEMPLATE_MEM_BYTES}, .err = err, .tree = tree};
    mfi_text text = mfi_text_begin(&t);
    t.out = &text;
    mf_status status = make_vars(&t, input);
    /* What a template may take grows with what it renders, so that none takes memory that no budget
     * knows of. */
    t.arena.max_bytes = MFI_MIN(t.arena.max_bytes, MFI_TEMPLATE_MEM_BASE_BYTES +
                                                       t.arena.bytes * MFI_TEMPLATE_MEM_FACTOR);
    if (status == MF_OK)
        status = open_scope(&t, NULL);
    if (status == MF_OK)
        status = run(&t, tree->root);
    if (status == MF_OK)
        status = take_rendering(&text, out, err);
    mfi_arena_free(&t.arena);
    return status;
}
