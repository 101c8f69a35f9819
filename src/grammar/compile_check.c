/* What makes an automaton usable: no left recursion, a root that can end, and for every state how
 * deep a stack it takes to end from there. Part of the compiler (compile.c). */
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "grammar/compile_int.h"

#define MAX_ROUNDS 1024
#define NONE       UINT32_MAX

static uint32_t plus_one(uint32_t need)
{
    return need == MFI_NEED_NEVER ? need : need + 1;
}

/* Frames that a state needs to end, by what its successors need. */
static uint32_t need_of(const mf_grammar *g, const mfi_state *s)
{
    uint32_t best = MFI_NEED_NEVER;
    switch ((mfi_state_kind)s->kind) {
    case MFI_STATE_END:
        return 0;
    case MFI_STATE_BYTE:
        return g->need[s->b];
    case MFI_STATE_SET:
        for (uint32_t i = 0; i < s->c; i++) {
            uint32_t target = g->edges[s->a + i].target;
            uint32_t inner = !target || !s->b ? g->need[target] : plus_one(g->need[target]);
            best = MFI_MIN(best, inner);
        }
        return MFI_MAX(best, g->need[s->b]);
    case MFI_STATE_SPLIT:
        for (uint32_t i = 0; i < s->b; i++)
            best = MFI_MIN(best, g->need[g->targets[s->a + i]]);
        return best;
    case MFI_STATE_CALL:
        best = g->need[g->entry[s->a]];
        return s->b == 0 ? best : MFI_MAX(plus_one(best), g->need[s->b]);
    }
    return best;
}

/* Goes over 0..n - 1, up and down in turn, until nothing changes. False if that takes too long:
 * chains in order take two rounds, only tangles take many. */
typedef struct rounds {
    uint32_t n, done;
    bool changed;
} rounds;

static bool another(rounds *r)
{
    bool on = (r->done == 0 || r->changed) && r->done < MAX_ROUNDS;
    r->done += on;
    if (on)
        r->changed = false;
    return on;
}

static uint32_t in_turn(const rounds *r, uint32_t i)
{
    return r->done & 1 ? i : r->n - 1 - i;
}

/* The least solution, from above: values only fall. */
static bool find_needs(mf_grammar *g)
{
    rounds r = {.n = g->n_states};
    while (another(&r)) {
        for (uint32_t k = 0; k < r.n; k++) {
            uint32_t i = in_turn(&r, k), need = need_of(g, &g->states[i]);
            if (need > MFI_MAX_GRAMMAR_DEPTH)
                need = MFI_NEED_NEVER;
            if (need < g->need[i]) {
                g->need[i] = (uint16_t)need;
                r.changed = true;
            }
        }
    }
    return !r.changed;
}

/* ---- left recursion ---- */

typedef struct left {
    const mf_grammar *g;
    bool *nullable;  /* [n_rules] */
    uint32_t *stamp; /* [n_states] rule + 1 that met the state last */
    uint32_t *todo;  /* [n_states] */
    uint32_t *first; /* [n_rules + 1] of a rule's calls in `calls` */
    uint32_t *calls; /* [n_states] rules that are called before any byte */
    uint32_t n_calls;
} left;

static void meet(left *l, uint32_t state, uint32_t rule, uint32_t *n)
{
    if (l->stamp[state] == rule + 1)
        return;
    l->stamp[state] = rule + 1;
    l->todo[(*n)++] = state;
}

/* Walks what a rule can do without reading; true if it can end so. Notes its calls if wanted. */
static bool walk(left *l, uint32_t rule, bool note)
{
    uint32_t n = 0;
    bool ends = false;
    meet(l, l->g->entry[rule], rule, &n);
    while (n) {
        const mfi_state *s = &l->g->states[l->todo[--n]];
        if (s->kind == MFI_STATE_END) {
            ends = true;
        } else if (s->kind == MFI_STATE_SPLIT) {
            for (uint32_t i = 0; i < s->b; i++)
                meet(l, l->g->targets[s->a + i], rule, &n);
        } else if (s->kind == MFI_STATE_CALL) {
            if (note)
                l->calls[l->n_calls++] = s->a;
            if (l->nullable[s->a])
                meet(l, s->b, rule, &n);
        }
    }
    return ends;
}

/* Takes rules away that call no others which are left; false if there is no end to it. */
static bool take_away(const left *l, bool *gone)
{
    rounds r = {.n = l->g->n_rules};
    while (another(&r)) {
        for (uint32_t k = 0; k < r.n; k++) {
            uint32_t rule = in_turn(&r, k);
            bool free_of = !gone[rule];
            for (uint32_t i = l->first[rule]; free_of && i < l->first[rule + 1]; i++)
                free_of = gone[l->calls[i]];
            if (free_of)
                gone[rule] = r.changed = true;
        }
    }
    return !r.changed;
}

/* A rule that can call itself before it reads, or NONE. */
static uint32_t find_cycle(const left *l, const bool *gone)
{
    uint32_t n = l->g->n_rules, r = 0;
    while (r < n && gone[r])
        r++;
    if (r == n)
        return NONE;
    for (uint32_t step = 0; step < n; step++) { /* into the cycle */
        uint32_t i = l->first[r];
        while (gone[l->calls[i]])
            i++;
        r = l->calls[i];
    }
    return r;
}

static bool find_nullable(left *l)
{
    rounds r = {.n = l->g->n_rules};
    while (another(&r)) {
        memset(l->stamp, 0, l->g->n_states * sizeof *l->stamp);
        for (uint32_t k = 0; k < r.n; k++) {
            uint32_t rule = in_turn(&r, k);
            if (!l->nullable[rule] && walk(l, rule, false))
                l->nullable[rule] = r.changed = true;
        }
    }
    return !r.changed;
}

/* False if the rules are too tangled. */
static bool left_recursive(left *l, bool *gone, uint32_t *rule)
{
    uint32_t n = l->g->n_rules;
    if (!find_nullable(l))
        return false;
    memset(l->stamp, 0, l->g->n_states * sizeof *l->stamp);
    for (uint32_t r = 0; r < n; r++) {
        l->first[r] = l->n_calls;
        walk(l, r, true);
    }
    l->first[n] = l->n_calls;
    if (!take_away(l, gone))
        return false;
    *rule = find_cycle(l, gone);
    return true;
}

/* ---- the check ---- */

/* A rule that is called on the way through another and can't end either; NONE if there is none. */
static uint32_t endless_call(left *l, uint32_t rule, uint32_t stamp)
{
    const mf_grammar *g = l->g;
    uint32_t n = 0;
    meet(l, g->entry[rule], stamp, &n);
    while (n) {
        const mfi_state *s = &g->states[l->todo[--n]];
        if (s->kind == MFI_STATE_CALL && g->need[g->entry[s->a]] == MFI_NEED_NEVER)
            return s->a;
        if (s->kind == MFI_STATE_SPLIT)
            for (uint32_t i = 0; i < s->b; i++)
                meet(l, g->targets[s->a + i], stamp, &n);
        else if (s->kind != MFI_STATE_END)
            meet(l, s->b, stamp, &n);
    }
    return NONE;
}

/* Why the root can't end: follows the calls that can't either. In a schema rules have names that
 * are paths. */
static uint32_t find_endless(left *l, const mfi_ast *ast)
{
    uint32_t rule = 0, named = 0;
    memset(l->stamp, 0, l->g->n_states * sizeof *l->stamp);
    for (uint32_t i = 0; i < l->g->n_rules && rule != NONE; i++) {
        if (rule < ast->n_rules)
            named = rule;
        rule = endless_call(l, rule, i);
    }
    return named;
}

static mf_status fail_rule(const compiler *c, uint32_t rule, const char *why, mf_error *err)
{
    /* Rules beyond the text's are repetitions within one of them. */
    if (rule >= c->ast->n_rules)
        return mfi_fail(err, MF_ERR_ARGUMENT, "grammar: a repetition %s", why);
    const mfi_ast_rule *r = &c->ast->rules[rule];
    const char *name = c->ast->bytes.data + r->name;
    int len = (int)MFI_MIN(r->name_len, 200u);
    if (r->line)
        return mfi_fail(err, MF_ERR_ARGUMENT, "grammar: line %u, column %u: the rule %.*s %s",
                        r->line, r->column, len, name, why);
    return mfi_fail(err, MF_ERR_ARGUMENT, "grammar: %.*s %s", len, name, why);
}

mf_status mfi_grammar_check(compiler *c, mf_error *err)
{
    mf_grammar *g = c->g;
    left l = {
        .g = g,
        .nullable = calloc(g->n_rules, sizeof *l.nullable),
        .stamp = calloc(g->n_states, sizeof *l.stamp),
        .todo = malloc(g->n_states * sizeof *l.todo),
        .first = calloc((size_t)g->n_rules + 1, sizeof *l.first),
        .calls = malloc(g->n_states * sizeof *l.calls),
    };
    bool *gone = calloc(g->n_rules, sizeof *gone);
    g->need = malloc(g->n_states * sizeof *g->need);
    mf_status status = MF_OK;
    if (!l.nullable || !l.stamp || !l.todo || !l.first || !l.calls || !gone || !g->need) {
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a grammar");
    } else {
        memset(g->need, 0xff, g->n_states * sizeof *g->need);
        uint32_t rule = NONE;
        if (!find_needs(g) || !left_recursive(&l, gone, &rule))
            status = mfi_fail(err, MF_ERR_LIMIT, "the grammar's rules are too tangled");
        else if (rule != NONE)
            status = fail_rule(c, rule, "is left-recursive: it calls itself before it reads", err);
        else if (g->need[g->entry[0]] == MFI_NEED_NEVER)
            status = fail_rule(c, find_endless(&l, c->ast), "can never end", err);
    }
    free(l.nullable);
    free(l.stamp);
    free(l.todo);
    free(l.first);
    free(l.calls);
    free(gone);
    return status;
}
