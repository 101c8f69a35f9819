/* Classes of characters as states over bytes of UTF-8. Part of the compiler (compile.c). */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/utf8.h"
#include "grammar/compile_int.h"

#define MAX_EDGES 256 /* that lead out of one state */

/* Edges of a state that is being made: sorted, without overlap. */
typedef struct edges {
    mfi_edge list[MAX_EDGES];
    uint32_t n;
} edges;

static void put_edge(edges *e, uint32_t lo, uint32_t hi, uint32_t target)
{
    if (e->n && e->list[e->n - 1].target == target && e->list[e->n - 1].hi + 1u == lo)
        e->list[e->n - 1].hi = (uint8_t)hi;
    else if (e->n < MAX_EDGES)
        e->list[e->n++] = (mfi_edge){(uint8_t)lo, (uint8_t)hi, target};
}

static bool grow_memo(compiler *c)
{
    if (c->n_memo_used * 2 < c->n_memo)
        return true;
    uint32_t n = c->n_memo ? c->n_memo * 2 : 256;
    uint32_t *fresh = calloc(n, sizeof *fresh);
    if (!fresh) {
        c->no_memory = true;
        return false;
    }
    for (uint32_t i = 0; i < c->n_memo; i++) {
        if (!c->memo[i])
            continue;
        const mfi_state *s = &c->g->states[c->memo[i] - 1];
        const mfi_edge *first = s->c ? c->g->edges + s->a : NULL;
        uint64_t at = mfi_hash_bytes(first, s->c * sizeof *first);
        while (fresh[at & (n - 1)])
            at++;
        fresh[at & (n - 1)] = c->memo[i];
    }
    free(c->memo);
    c->memo = fresh;
    c->n_memo = n;
    return true;
}

/* The state with these edges, an old one if there is one. */
static uint32_t intern(compiler *c, edges *e, uint32_t next)
{
    mf_grammar *g = c->g;
    if (!grow_memo(c))
        return 0;
    mfi_edge clean[MAX_EDGES]; /* no stray bytes between the members */
    memset(clean, 0, e->n * sizeof *clean);
    for (uint32_t i = 0; i < e->n; i++) {
        clean[i].lo = e->list[i].lo;
        clean[i].hi = e->list[i].hi;
        clean[i].target = e->list[i].target;
    }
    size_t bytes = e->n * sizeof *clean;
    uint64_t at = mfi_hash_bytes(clean, bytes);
    uint32_t first;
    for (;; at++) {
        uint32_t known = c->memo[at & (c->n_memo - 1)];
        if (!known)
            break;
        const mfi_state *s = &g->states[known - 1];
        if (s->c != e->n || (bytes && memcmp(g->edges + s->a, clean, bytes) != 0))
            continue;
        if (s->b == next)
            return known - 1;
        /* The same edges in another place: they are shared, the state isn't. */
        return mfi_compile_state(c, (mfi_state){MFI_STATE_SET, s->a, next, e->n});
    }
    if (!mfi_compile_edges(c, clean, e->n, &first))
        return 0;
    uint32_t state = mfi_compile_state(c, (mfi_state){MFI_STATE_SET, first, next, e->n});
    if (c->too_large || c->no_memory)
        return 0;
    c->memo[at & (c->n_memo - 1)] = state + 1;
    c->n_memo_used++;
    return state;
}

/* The state after which `left` more continuation bytes follow, the first of them now, for the
 * values of ranges that lie in [base, base + 64^left). */
static uint32_t continuation(compiler *c, const mfi_range *ranges, uint32_t n, uint32_t base,
                             uint32_t left)
{
    if (left == 0)
        return 0;
    edges e = {.n = 0};
    uint32_t step = 1u << (6 * (left - 1));
    for (; n && ranges->hi < base; ranges++)
        n--;
    bool all = n && ranges->lo <= base && ranges->hi - base >= step * 64 - 1;
    if (all) /* one for all, as large classes would take a step for each of their characters */
        put_edge(&e, 0x80, 0xbf, continuation(c, ranges, n, base, left - 1));
    for (uint32_t i = 0; i < 64 && !all; i++) {
        uint32_t lo = base + i * step, hi = lo + step - 1;
        while (n && ranges->hi < lo) {
            ranges++;
            n--;
        }
        if (n && ranges->lo <= hi)
            put_edge(&e, 0x80 + i, 0x80 + i, continuation(c, ranges, n, lo, left - 1));
    }
    return intern(c, &e, 0);
}

/* Lead bytes of characters with `left` continuation bytes; `lead` is the first of them. */
static void put_leads(compiler *c, edges *e, const mfi_range *ranges, uint32_t n, uint32_t lead,
                      uint32_t n_leads, uint32_t left)
{
    uint32_t step = 1u << (6 * left);
    /* Overlong forms lie below these. */
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    for (uint32_t i = 0; i < n_leads; i++) {
        uint32_t lo = i * step, hi = lo + step - 1;
        while (n && (ranges->hi < lo || ranges->hi < least[left])) {
            ranges++;
            n--;
        }
        if (!n || ranges->lo > hi || hi < least[left])
            continue;
        mfi_range rest = {MFI_MAX(ranges->lo, least[left]), ranges->hi};
        if (rest.lo == ranges->lo) {
            put_edge(e, lead + i, lead + i, continuation(c, ranges, n, lo, left));
            continue;
        }
        /* Only the first lead byte has overlong forms below: a copy without them. */
        mfi_range *copy = malloc(n * sizeof *copy);
        if (!copy) {
            c->no_memory = true;
            return;
        }
        memcpy(copy, ranges, n * sizeof *copy);
        copy[0] = rest;
        put_edge(e, lead + i, lead + i, continuation(c, copy, n, lo, left));
        free(copy);
    }
}

uint32_t mfi_compile_class(compiler *c, const mfi_ast_node *node, uint32_t next)
{
    const mfi_range *ranges = node->b ? c->ast->ranges + node->a : NULL;
    edges e = {.n = 0};
    for (uint32_t i = 0; i < node->b && ranges[i].lo < 0x80; i++)
        put_edge(&e, ranges[i].lo, MFI_MIN(ranges[i].hi, 0x7fu), 0);
    put_leads(c, &e, ranges, node->b, 0xc0, 32, 1);
    put_leads(c, &e, ranges, node->b, 0xe0, 16, 2);
    put_leads(c, &e, ranges, node->b, 0xf0, 5, 3);
    return c->no_memory || c->too_large ? 0 : intern(c, &e, next);
}
