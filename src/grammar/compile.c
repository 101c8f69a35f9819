/* From expressions to the automaton; see nfa.h. Called when a grammar is opened, on that thread.
 *
 * An expression is compiled from its end to its beginning, each part to states that go on to the
 * part behind it, so that nothing has to be patched but loops. Characters become byte sequences
 * as in "Regular Expression Matching in the Wild" (Cox 2010): a class is a small tree of ranges of
 * bytes, whose equal branches are one state. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/limits.h"
#include "grammar/compile_int.h"

#define VISITS_MAX (8 * MFI_MAX_GRAMMAR_STATES)

/* Room for n more elements; false, and noted, if there is none. */
static bool grow(compiler *c, void *items, uint32_t n, uint32_t more, uint32_t *cap, size_t size)
{
    void *p;
    if (n + more <= *cap)
        return true;
    if (n + more > MFI_MAX_GRAMMAR_STATES) {
        c->too_large = true;
        return false;
    }
    uint32_t want = MFI_MAX(*cap ? *cap * 2 : 256, n + more);
    memcpy(&p, items, sizeof p);
    p = realloc(p, want * size);
    if (!p) {
        c->no_memory = true;
        return false;
    }
    memcpy(items, &p, sizeof p);
    *cap = want;
    return true;
}

uint32_t mfi_compile_state(compiler *c, mfi_state state)
{
    mf_grammar *g = c->g;
    if (c->too_large || c->no_memory ||
        !grow(c, &g->states, g->n_states, 1, &c->cap_states, sizeof *g->states))
        return 0;
    g->states[g->n_states] = state;
    return g->n_states++;
}

static uint32_t split(compiler *c, const uint32_t *targets, uint32_t n)
{
    mf_grammar *g = c->g;
    if (!grow(c, &g->targets, g->n_targets, n, &c->cap_targets, sizeof *g->targets))
        return 0;
    if (n)
        memcpy(g->targets + g->n_targets, targets, n * sizeof *targets);
    g->n_targets += n;
    return mfi_compile_state(c, (mfi_state){MFI_STATE_SPLIT, g->n_targets - n, n, 0});
}

bool mfi_compile_edges(compiler *c, const mfi_edge *edges, uint32_t n, uint32_t *at)
{
    mf_grammar *g = c->g;
    *at = g->n_edges;
    if (!grow(c, &g->edges, g->n_edges, n, &c->cap_edges, sizeof *g->edges))
        return false;
    if (n)
        memcpy(g->edges + g->n_edges, edges, n * sizeof *edges);
    g->n_edges += n;
    return true;
}

/* ---- expressions ---- */

static uint32_t compile(compiler *c, uint32_t node, uint32_t next);

static uint32_t push_children(compiler *c, uint32_t first)
{
    uint32_t n = 0;
    for (uint32_t i = first; i; i = c->ast->nodes[i].next, n++) {
        if (!grow(c, &c->stack, c->n_stack, 1, &c->cap_stack, sizeof *c->stack))
            break;
        c->stack[c->n_stack++] = i;
    }
    return n;
}

static uint32_t compile_seq(compiler *c, uint32_t first, uint32_t next)
{
    uint32_t n = push_children(c, first);
    while (n--) {
        uint32_t child = c->stack[c->n_stack - 1];
        c->n_stack--;
        next = compile(c, child, next);
    }
    return next;
}

static uint32_t compile_alt(compiler *c, uint32_t first, uint32_t next)
{
    uint32_t n = push_children(c, first), base = c->n_stack - n;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t target = compile(c, c->stack[base + i], next);
        c->stack[base + i] = target;
    }
    c->n_stack = base;
    return n == 1 ? c->stack[base] : n ? split(c, c->stack + base, n) : next;
}

static uint32_t compile_bytes(compiler *c, const mfi_ast_node *node, uint32_t next)
{
    for (uint32_t i = node->b; i-- > 0;) {
        unsigned char b = (unsigned char)c->ast->bytes.data[node->a + i];
        next = mfi_compile_state(c, (mfi_state){MFI_STATE_BYTE, b, next, 0});
    }
    return next;
}

/* What is repeated is compiled once, as a rule, unless it is small or stands alone. */
static bool wants_rule(const compiler *c, const mfi_ast_node *repeat)
{
    const mfi_ast_node *child = &c->ast->nodes[repeat->a];
    uint32_t copies = repeat->c == MFI_AST_UNBOUNDED ? repeat->b + 1 : repeat->c;
    bool small = child->kind == MFI_AST_CLASS || child->kind == MFI_AST_RULE ||
                 child->kind == MFI_AST_EMPTY || (child->kind == MFI_AST_BYTES && child->b == 1);
    return copies > 2 && !small;
}

/* The child once, by the rule made for it or in place. */
static uint32_t compile_copy(compiler *c, uint32_t child, uint32_t rule, uint32_t next)
{
    return rule ? mfi_compile_state(c, (mfi_state){MFI_STATE_CALL, rule, next, 0})
                : compile(c, child, next);
}

static uint32_t new_rule(compiler *c)
{
    if (!grow(c, &c->g->entry, c->g->n_rules, 1, &c->cap_rules, sizeof *c->g->entry))
        return 0;
    c->g->entry[c->g->n_rules] = 0;
    return c->g->n_rules++;
}

static uint32_t compile_loop(compiler *c, uint32_t child, uint32_t rule, uint32_t next)
{
    uint32_t both[2] = {0, next};
    uint32_t loop = split(c, both, 2);
    uint32_t body = compile_copy(c, child, rule, loop);
    if (!c->too_large && !c->no_memory)
        c->g->targets[c->g->states[loop].a] = body;
    return loop;
}

static uint32_t compile_repeat(compiler *c, const mfi_ast_node *node, uint32_t next)
{
    uint32_t rule = 0, child = node->a;
    if (wants_rule(c, node)) {
        rule = new_rule(c);
        uint32_t entry = compile(c, child, 0);
        if (c->too_large || c->no_memory)
            return 0;
        c->g->entry[rule] = entry;
    }
    uint32_t end = next;
    if (node->c == MFI_AST_UNBOUNDED)
        next = compile_loop(c, child, rule, next);
    else
        for (uint32_t i = node->b; i < node->c && !c->too_large && !c->no_memory; i++) {
            uint32_t both[2] = {compile_copy(c, child, rule, next), end};
            next = split(c, both, 2);
        }
    for (uint32_t i = 0; i < node->b && !c->too_large && !c->no_memory; i++)
        next = compile_copy(c, child, rule, next);
    return next;
}

static uint32_t compile(compiler *c, uint32_t index, uint32_t next)
{
    const mfi_ast_node *node = &c->ast->nodes[index];
    c->too_large = c->too_large || ++c->n_visits > VISITS_MAX;
    if (c->too_large || c->no_memory)
        return 0;
    switch (node->kind) {
    case MFI_AST_EMPTY:
        return next;
    case MFI_AST_BYTES:
        return compile_bytes(c, node, next);
    case MFI_AST_CLASS:
        return mfi_compile_class(c, node, next);
    case MFI_AST_SEQ:
        return compile_seq(c, node->a, next);
    case MFI_AST_ALT:
        return compile_alt(c, node->a, next);
    case MFI_AST_REPEAT:
        return compile_repeat(c, node, next);
    case MFI_AST_RULE:
        return mfi_compile_state(c, (mfi_state){MFI_STATE_CALL, node->a, next, 0});
    }
    return next;
}

/* ---- the whole ---- */

/* Bytes that no state tells apart become one class. */
static void classify_bytes(mf_grammar *g)
{
    bool cut[257] = {true};
    for (uint32_t i = 0; i < g->n_states; i++) {
        if (g->states[i].kind == MFI_STATE_BYTE)
            cut[g->states[i].a] = cut[g->states[i].a + 1] = true;
    }
    for (uint32_t i = 0; i < g->n_edges; i++)
        cut[g->edges[i].lo] = cut[g->edges[i].hi + 1] = true;
    g->n_classes = 0;
    for (uint32_t b = 0; b < 256; b++) {
        if (cut[b])
            g->byte_of[g->n_classes++] = (uint8_t)b;
        g->class_of[b] = (uint8_t)(g->n_classes - 1);
    }
}

static mf_status compile_rules(compiler *c, mf_error *err)
{
    mf_grammar *g = c->g;
    mfi_compile_state(c, (mfi_state){MFI_STATE_END, 0, 0, 0});
    for (uint32_t i = 0; i < c->ast->n_rules; i++)
        new_rule(c);
    for (uint32_t i = 0; i < c->ast->n_rules && !c->too_large && !c->no_memory; i++) {
        uint32_t entry = compile(c, c->ast->rules[i].body, 0);
        if (!c->no_memory && !c->too_large)
            g->entry[i] = entry;
    }
    if (c->too_large)
        return mfi_fail(err, MF_ERR_LIMIT,
                        "the grammar's automaton has more than %u states (large repetitions?)",
                        MFI_MAX_GRAMMAR_STATES);
    if (c->no_memory)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a grammar");
    return MF_OK;
}

mf_status mfi_grammar_compile(mf_grammar **grammar, const mfi_ast *ast, mf_error *err)
{
    compiler c = {.ast = ast, .g = calloc(1, sizeof *c.g)};
    if (!c.g)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a grammar");
    mf_status status = mfi_ast_check(ast, err);
    if (status == MF_OK)
        status = compile_rules(&c, err);
    if (status == MF_OK)
        status = mfi_grammar_check(&c, err);
    if (status == MF_OK) {
        classify_bytes(c.g);
        *grammar = c.g;
        c.g = NULL;
    }
    free(c.stack);
    free(c.memo);
    mf_grammar_close(&c.g);
    return status;
}
