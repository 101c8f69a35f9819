/* Finds stretches of one class of characters in a grammar's automaton; see stretch.h. Called by the
 * matcher on its thread; holds no state.
 *
 * Only what stays within a rule is followed, from a character to the next over splits. That is what
 * repetitions are compiled to, whose members share their edges. */
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

/* The same for one lead byte whose second byte is limited. */
static bool covers_lead(const mf_grammar *g, const mfi_state *s, uint32_t lead, uint32_t lo,
                        uint32_t hi, uint32_t left)
{
    for (uint32_t i = 0; i < s->c; i++) {
        const mfi_edge *e = &g->edges[s->a + i];
        if (e->lo <= lead && lead <= e->hi)
            return e->target && covers(g, &g->states[e->target], lo, hi, left);
    }
    return false;
}

static bool is_wide(const mf_grammar *g, const mfi_state *s)
{
    return covers(g, s, 0xc2, 0xdf, 1) && covers_lead(g, s, 0xe0, 0xa0, 0xbf, 1) &&
           covers(g, s, 0xe1, 0xec, 2) && covers_lead(g, s, 0xed, 0x80, 0x9f, 1) &&
           covers(g, s, 0xee, 0xef, 2) && covers_lead(g, s, 0xf0, 0x90, 0xbf, 2) &&
           covers(g, s, 0xf1, 0xf3, 3) && covers_lead(g, s, 0xf4, 0x80, 0x8f, 2);
}

void mfi_stretch_find(const mf_grammar *g, uint32_t state, mfi_stretch *out)
{
    const mfi_state *first = &g->states[state];
    *out = (mfi_stretch){.state = state};
    if (first->kind != MFI_STATE_SET || g->need[state] == MFI_NEED_NEVER)
        return;
    for (uint32_t i = 0; i < first->c; i++) {
        const mfi_edge *e = &g->edges[first->a + i];
        for (uint32_t b = e->lo; b <= e->hi && b < 0x80 && !e->target; b++)
            out->plain[b >> 6] |= (uint64_t)1 << (b & 63);
    }
    out->wide = is_wide(g, first);
    uint32_t at = state;
    while (at && out->run < MFI_STRETCH_ENDLESS - 1) {
        out->run++;
        out->need = MFI_MAX(out->need, g->need[at]);
        uint32_t next = next_of_class(g, g->states[at].b, first, SPLITS_DEEP);
        if (next == at || next == state) {
            out->run = MFI_STRETCH_ENDLESS;
            return;
        }
        at = next;
    }
}
