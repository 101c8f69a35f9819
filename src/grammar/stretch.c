/* Finds stretches of one class of characters in a grammar's automaton; see stretch.h. Called by the
 * matcher on its thread; holds no state.
 *
 * Followed is what repetitions are compiled to: from a character to the next over splits, whose
 * members share their edges, or from a call of a rule to the next call, the last of a rule among
 * them: right recursion, which chains of states as rules are. */
#include "grammar/stretch.h"

#include <string.h>

#include "base/defs.h"

#define SPLITS_DEEP 6

/* The state that reads a character of the class with these edges, reached without a byte; 0: none
 * was found. */
static uint32_t next_of_class(const mf_grammar *g, uint32_t state, const mfi_state *like,
                              uint32_t depth)
{
    const mfi_state *s = &g->states[state];
    if (s->kind == MFI_STATE_SET)
        return s->a == like->a && s->c == like->c && g->need[state] != MFI_NEED_NEVER ? state : 0;
    if (s->kind == MFI_STATE_CALL && !s->b && depth) /* right recursion */
        return next_of_class(g, g->entry[s->a], like, depth - 1);
    if (s->kind != MFI_STATE_SPLIT || !depth)
        return 0;
    for (uint32_t i = 0; i < s->b; i++) {
        uint32_t found = next_of_class(g, g->targets[s->a + i], like, depth - 1);
        if (found)
            return found;
    }
    return 0;
}

/* Whether bytes lo..hi are read, and behind each any `left` continuation bytes, to the character's
 * end. */
static bool covers(const mf_grammar *g, const mfi_state *s, uint32_t lo, uint32_t hi, uint32_t left)
{
    if (s->kind != MFI_STATE_SET)
        return false;
    for (uint32_t i = 0; i < s->c && lo <= hi; i++) {
        const mfi_edge *e = &g->edges[s->a + i];
        if (e->hi < lo)
            continue;
        if (e->lo > lo || (left == 0) != (e->target == 0))
            return false;
        if (left && !covers(g, &g->states[e->target], 0x80, 0xbf, left - 1))
            return false;
        lo = e->hi + 1u;
    }
    return lo > hi;
}

/* Whether all characters with that lead byte are read; second bytes are limited after some. */
static bool covers_lead(const mf_grammar *g, const mfi_state *s, uint32_t lead)
{
    uint32_t lo = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint32_t hi = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    uint32_t left = (lead >= 0xe0) + (lead >= 0xf0);
    for (uint32_t i = 0; i < s->c; i++) {
        const mfi_edge *e = &g->edges[s->a + i];
        if (e->lo <= lead && lead <= e->hi)
            return e->target && covers(g, &g->states[e->target], lo, hi, left);
    }
    return false;
}

/* A state and where its rule returns to; 0: it isn't known, or not of interest. */
typedef struct place {
    uint32_t state, ret;
} place;

static bool can_end(const mf_grammar *g, uint32_t state, uint32_t depth)
{
    const mfi_state *s = &g->states[state];
    if (s->kind == MFI_STATE_END)
        return true;
    if (s->kind == MFI_STATE_CALL && !s->b && depth)
        return can_end(g, g->entry[s->a], depth - 1);
    for (uint32_t i = 0; depth && s->kind == MFI_STATE_SPLIT && i < s->b; i++)
        if (can_end(g, g->targets[s->a + i], depth - 1))
            return true;
    return false;
}

/* The next character of the class by calling a rule. */
static place next_by_call(const mf_grammar *g, uint32_t state, const mfi_state *like,
                          uint32_t depth)
{
    const mfi_state *s = &g->states[state];
    place none = {0, 0}, found;
    if (s->kind == MFI_STATE_CALL && s->b && g->need[state] != MFI_NEED_NEVER) {
        found = (place){next_of_class(g, g->entry[s->a], like, SPLITS_DEEP), s->b};
        return found.state ? found : none;
    }
    for (uint32_t i = 0; depth && s->kind == MFI_STATE_SPLIT && i < s->b; i++) {
        found = next_by_call(g, g->targets[s->a + i], like, depth - 1);
        if (found.state)
            return found;
    }
    return none;
}

/* The next character within the rule or, where it ends, by the next call of the rule around it. */
static place next_place(const mf_grammar *g, place at, const mfi_state *like)
{
    uint32_t behind = g->states[at.state].b;
    uint32_t inside = next_of_class(g, behind, like, SPLITS_DEEP);
    if (inside)
        return (place){inside, at.ret};
    if (!at.ret || !can_end(g, behind, SPLITS_DEEP))
        return (place){0, 0};
    return next_by_call(g, at.ret, like, SPLITS_DEEP);
}

void mfi_stretch_find(const mf_grammar *g, uint32_t state, uint32_t ret, mfi_stretch *out)
{
    const mfi_state *first = &g->states[state];
    *out = (mfi_stretch){.state = state, .ret = ret};
    if (first->kind != MFI_STATE_SET || g->need[state] == MFI_NEED_NEVER)
        return;
    for (uint32_t i = 0; i < first->c; i++) {
        const mfi_edge *e = &g->edges[first->a + i];
        for (uint32_t b = e->lo; b <= e->hi && b < 0x80 && !e->target; b++)
            mfi_char_set_add(&out->chars, b);
    }
    out->at_state = state;
    out->at_ret = ret;
    out->run = 1;
    out->need = g->need[state];
}

void mfi_stretch_find_wide(const mf_grammar *g, mfi_stretch *s)
{
    for (uint32_t lead = 0xc2; lead <= 0xf4 && !s->wide; lead++)
        if (covers_lead(g, &g->states[s->state], lead))
            mfi_char_set_add(&s->chars, lead);
    s->wide = true;
}

bool mfi_stretch_reaches(const mf_grammar *g, mfi_stretch *s, uint32_t n)
{
    while (s->run < n && s->at_state) {
        place next = next_place(g, (place){s->at_state, s->at_ret}, &g->states[s->state]);
        s->at_state = next.state;
        s->at_ret = next.ret;
        if (!next.state)
            break;
        s->need = MFI_MAX(s->need, g->need[next.state]);
        if (next.ret)
            s->need = MFI_MAX(s->need, g->need[next.ret]);
        if (next.state == s->state && next.ret == s->ret)
            s->run = UINT32_MAX; /* and so on without end */
        else
            s->run++;
    }
    return s->run >= n;
}
