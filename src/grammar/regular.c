/* Conjunctions of regular languages; see regular.h. Each becomes a nondeterministic automaton over
 * characters; a state of their product is a set of states of each, and the length so far where that
 * is bounded. What can still come to an end becomes a rule, so that the product is written as a
 * right-recursive grammar. Called while a schema is read; sizes are bounded, as what is multiplied
 * is foreign. */
#include "grammar/regular.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/limits.h"
#include "base/room.h"
#include "base/utf8.h"
#include "grammar/schema_text.h"

#define PARTS_MAX  32
#define STATES_MAX 65536u  /* of the nondeterministic automata */
#define SETS_MAX   65536u  /* of their states */
#define PLACES_MAX 32768u  /* of the product */
#define EDGES_MAX  524288u /* of either */
#define READY_WORK 2048u   /* of making the tables */
#define CP_END     0x110000u
#define NONE       UINT32_MAX

typedef struct edge { /* over characters, or over nothing where n == 0 */
    uint32_t ranges, n, to, next;
} edge;

typedef struct state {
    uint32_t first; /* edge, or NONE */
    bool reads;     /* one of the edges is over characters */
} state;

typedef struct part {
    uint32_t start, end;
    bool negated;
} part;

typedef struct set { /* of states that read, sorted, and whether the part's end is among them */
    uint32_t first, n;
    bool accepting;
} set;

typedef struct step { /* of the product */
    uint32_t from, lo, hi, to;
} step;

typedef struct word { /* a class of characters that has a rule */
    uint32_t first, n, rule;
} word;

struct mfi_regular {
    mfi_ast raw;
    part parts[PARTS_MAX];
    uint32_t n_parts;
    uint32_t least, most; /* NONE: no bound */
    uint64_t *work;       /* comparisons and the like, of all that one schema asks for */
    bool too_large, no_memory;
    mfi_range *ranges;
    uint32_t n_ranges, cap_ranges;
    state *states;
    uint32_t n_states, cap_states;
    edge *edges;
    uint32_t n_edges, cap_edges;
    uint32_t *stamps, stamp, *todo; /* [n_states] while sets are made */
    set *sets;                      /* sets[0] is empty */
    uint32_t n_sets, cap_sets;
    uint32_t *members; /* of all sets */
    uint32_t n_members, cap_members;
    uint32_t *set_index; /* [SETS_MAX * 2] set + 1 */
    uint32_t *places;    /* [n_places][n_parts + 1]: a set of each part, and the length */
    uint32_t n_places, cap_places;
    uint32_t *place_index; /* [PLACES_MAX * 2] place + 1 */
    step *steps;
    uint32_t n_steps, cap_steps;
    uint32_t *cuts;
    uint32_t n_cuts, cap_cuts;
    mfi_range *class_ranges; /* of `words` */
    uint32_t n_class_ranges, cap_class_ranges;
    word *words;
    uint32_t n_words, cap_words;
};

/* Room for one more; false, and kept, if there is none. */
#define GROW(r, items, n, cap, limit)                                                              \
    ((n) >= (limit)                 ? !((r)->too_large = true)                                     \
     : MFI_ROOM(items, n, cap, 64u) ? true                                                         \
                                    : !((r)->no_memory = true))

mfi_regular *mfi_regular_open(uint64_t *work)
{
    mfi_regular *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    mfi_ast_open(&r->raw);
    r->most = NONE;
    r->work = work;
    return r;
}

void mfi_regular_close(mfi_regular **regular)
{
    mfi_regular *r = *regular;
    if (!r)
        return;
    mfi_ast_close(&r->raw);
    free(r->ranges);
    free(r->states);
    free(r->edges);
    free(r->stamps);
    free(r->todo);
    free(r->sets);
    free(r->members);
    free(r->set_index);
    free(r->places);
    free(r->place_index);
    free(r->steps);
    free(r->cuts);
    free(r->class_ranges);
    free(r->words);
    free(r);
    *regular = NULL;
}

mfi_ast *mfi_regular_ast(mfi_regular *r)
{
    return &r->raw;
}

static bool failed(const mfi_regular *r)
{
    return r->too_large || r->no_memory;
}

static void spend(mfi_regular *r, uint64_t steps)
{
    *r->work += steps;
    r->too_large = r->too_large || *r->work > MFI_MAX_SCHEMA_WORK;
}

/* ---- automata ---- */

static uint32_t new_state(mfi_regular *r)
{
    if (!GROW(r, r->states, r->n_states, r->cap_states, STATES_MAX))
        return 0;
    r->states[r->n_states] = (state){.first = NONE};
    return r->n_states++;
}

static void add_edge(mfi_regular *r, uint32_t from, uint32_t to, const mfi_range *ranges,
                     uint32_t n)
{
    uint32_t first = r->n_ranges;
    spend(r, 1 + n);
    if (failed(r) || !GROW(r, r->edges, r->n_edges, r->cap_edges, EDGES_MAX))
        return;
    for (uint32_t i = 0; i < n; i++) {
        if (!GROW(r, r->ranges, r->n_ranges, r->cap_ranges, EDGES_MAX))
            return;
        r->ranges[r->n_ranges++] = ranges[i];
    }
    state *s = &r->states[from];
    r->edges[r->n_edges] = (edge){first, n, to, s->first};
    s->reads = s->reads || n;
    s->first = r->n_edges++;
}

static void skip(mfi_regular *r, uint32_t from, uint32_t to)
{
    add_edge(r, from, to, NULL, 0);
}

static void build(mfi_regular *r, uint32_t node, uint32_t from, uint32_t to);

static void build_bytes(mfi_regular *r, const mfi_ast_node *node, uint32_t from, uint32_t to)
{
    const char *p = r->raw.bytes.data + node->a, *end = p + node->b;
    while (p < end && !failed(r)) {
        uint32_t cp = 0;
        size_t len = mfi_utf8_decode(p, end, &cp);
        if (len == 0)
            return; /* schemas are UTF-8 */
        p += len;
        uint32_t next = p < end ? new_state(r) : to;
        add_edge(r, from, next, &(mfi_range){cp, cp}, 1);
        from = next;
    }
    if (node->b == 0)
        skip(r, from, to);
}

static void build_repeat(mfi_regular *r, const mfi_ast_node *node, uint32_t from, uint32_t to)
{
    const uint32_t child = node->a, least = node->b, most = node->c;
    for (uint32_t i = 0; i < least && !failed(r); i++) {
        uint32_t next = new_state(r);
        build(r, child, from, next);
        from = next;
    }
    if (most == MFI_AST_UNBOUNDED) {
        uint32_t loop = new_state(r), end = new_state(r);
        skip(r, from, loop);
        build(r, child, loop, end);
        skip(r, end, loop);
        skip(r, loop, to);
        return;
    }
    for (uint32_t i = least; i < most && !failed(r); i++) {
        uint32_t next = new_state(r);
        skip(r, from, to);
        build(r, child, from, next);
        from = next;
    }
    skip(r, from, to);
}

/* What the node stands for leads from one state to the other. */
static void build(mfi_regular *r, uint32_t index, uint32_t from, uint32_t to)
{
    const mfi_ast_node node = r->raw.nodes[index];
    if (failed(r))
        return;
    switch (node.kind) {
    case MFI_AST_EMPTY:
    case MFI_AST_RULE: /* there are none */
        skip(r, from, to);
        break;
    case MFI_AST_BYTES:
        build_bytes(r, &node, from, to);
        break;
    case MFI_AST_CLASS:
        if (node.b)
            add_edge(r, from, to, r->raw.ranges + node.a, node.b);
        break;
    case MFI_AST_SEQ:
        for (uint32_t i = node.a; i && !failed(r); i = r->raw.nodes[i].next) {
            uint32_t next = r->raw.nodes[i].next ? new_state(r) : to;
            build(r, i, from, next);
            from = next;
        }
        if (!node.a)
            skip(r, from, to);
        break;
    case MFI_AST_ALT:
        for (uint32_t i = node.a; i && !failed(r); i = r->raw.nodes[i].next)
            build(r, i, from, to);
        if (!node.a)
            skip(r, from, to);
        break;
    case MFI_AST_REPEAT:
        build_repeat(r, &node, from, to);
        break;
    }
}

static part *new_part(mfi_regular *r, bool negated)
{
    if (r->n_parts == PARTS_MAX) {
        r->too_large = true;
        return NULL;
    }
    part *p = &r->parts[r->n_parts];
    p->start = new_state(r);
    p->end = new_state(r);
    p->negated = negated;
    if (failed(r))
        return NULL;
    r->n_parts++;
    return p;
}

void mfi_regular_is(mfi_regular *r, uint32_t node, bool negated)
{
    part *p = new_part(r, negated);
    if (mfi_ast_failed(&r->raw))
        r->no_memory = true;
    if (p && !failed(r))
        build(r, node, p->start, p->end);
}

void mfi_regular_length(mfi_regular *r, int64_t least, int64_t most)
{
    if (least > 0)
        r->least = (uint32_t)MFI_MAX(least, (int64_t)r->least);
    if (most >= 0)
        r->most = (uint32_t)MFI_MIN(most, (int64_t)r->most);
}

/* So many zeros lead from one state to the other. */
static void build_zeros(mfi_regular *r, uint32_t zeros, uint32_t from, uint32_t to)
{
    for (uint32_t i = 0; i < zeros && !failed(r); i++) {
        uint32_t next = i + 1 < zeros ? new_state(r) : to;
        add_edge(r, from, next, &(mfi_range){'0', '0'}, 1);
        from = next;
    }
    if (zeros == 0)
        skip(r, from, to);
}

void mfi_regular_multiple(mfi_regular *r, uint32_t of, uint32_t zeros)
{
    part *p = new_part(r, false);
    uint32_t zero = new_state(r), first = r->n_states;
    for (uint32_t i = 0; p && i < of && !failed(r); i++)
        new_state(r);
    if (!p || failed(r))
        return;
    add_edge(r, p->start, zero, &(mfi_range){'-', '-'}, 1);
    skip(r, p->start, zero);
    for (uint32_t i = 0; i <= of && !failed(r); i++) {
        uint32_t from = i < of ? first + i : zero;
        for (uint32_t d = 0; d < 10; d++)
            add_edge(r, from, first + ((i < of ? i : 0) * 10 + d) % of,
                     &(mfi_range){'0' + d, '0' + d}, 1);
    }
    build_zeros(r, zeros, first, p->end);
    build_zeros(r, 1, zero, p->end); /* 0 itself */
}

/* ---- sets of states ---- */

static bool ready(mfi_regular *r)
{
    if (failed(r) || r->stamps)
        return !failed(r);
    r->stamps = calloc(r->n_states + 1, sizeof *r->stamps);
    r->todo = malloc((r->n_states + 1) * sizeof *r->todo);
    r->set_index = calloc(SETS_MAX * 2, sizeof *r->set_index);
    r->no_memory = !r->stamps || !r->todo || !r->set_index;
    spend(r, READY_WORK + r->n_states / 16);
    if (!r->no_memory && GROW(r, r->sets, r->n_sets, r->cap_sets, SETS_MAX))
        r->sets[r->n_sets++] = (set){0, 0, false};
    return !failed(r);
}

/* The states in todo[0..n) and what they lead to without a character: those that read go behind
 * r->members, the rest of what they are is returned. */
static set follow(mfi_regular *r, uint32_t n, uint32_t end)
{
    set s = {.first = r->n_members};
    while (n && !failed(r)) {
        uint32_t i = r->todo[--n], skips = 0;
        s.accepting = s.accepting || i == end;
        if (r->states[i].reads &&
            GROW(r, r->members, r->n_members + s.n, r->cap_members, 8 * EDGES_MAX))
            r->members[s.first + s.n++] = i;
        for (uint32_t e = r->states[i].first; e != NONE; e = r->edges[e].next, skips++) {
            uint32_t to = r->edges[e].to;
            if (r->edges[e].n || r->stamps[to] == r->stamp)
                continue;
            r->stamps[to] = r->stamp;
            r->todo[n++] = to;
        }
        spend(r, 4 + skips); /* its place among the sorted ones, too */
    }
    return s;
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* The number of a set whose members stand behind r->members. */
static uint32_t intern(mfi_regular *r, set s)
{
    if (failed(r) || (s.n == 0 && !s.accepting))
        return 0;
    uint32_t *members = r->members + s.first;
    if (s.n)
        qsort(members, s.n, sizeof *members, by_number);
    uint32_t at = s.n ? (uint32_t)mfi_hash_bytes(members, s.n * sizeof *members) : 0;
    for (at += s.accepting;; at++) {
        uint32_t known = r->set_index[at & (SETS_MAX * 2 - 1)];
        if (!known)
            break;
        const set *k = &r->sets[known - 1];
        if (k->n == s.n && k->accepting == s.accepting &&
            (s.n == 0 || memcmp(r->members + k->first, members, s.n * sizeof *members) == 0))
            return known - 1;
    }
    if (!GROW(r, r->sets, r->n_sets, r->cap_sets, SETS_MAX))
        return 0;
    r->n_members += s.n;
    r->sets[r->n_sets] = s;
    r->set_index[at & (SETS_MAX * 2 - 1)] = r->n_sets + 1;
    return r->n_sets++;
}

static uint32_t start_of(mfi_regular *r, const part *p)
{
    r->stamp++;
    r->stamps[p->start] = r->stamp;
    r->todo[0] = p->start;
    return intern(r, follow(r, 1, p->end));
}

static bool within(const mfi_regular *r, const edge *e, uint32_t cp)
{
    for (uint32_t i = 0; i < e->n; i++)
        if (cp >= r->ranges[e->ranges + i].lo && cp <= r->ranges[e->ranges + i].hi)
            return true;
    return false;
}

static uint32_t after(mfi_regular *r, const part *p, uint32_t from, uint32_t cp)
{
    const set s = r->sets[from];
    uint32_t n = 0;
    uint64_t steps = 0;
    r->stamp++;
    for (uint32_t i = 0; i < s.n; i++) {
        for (uint32_t e = r->states[r->members[s.first + i]].first; e != NONE;
             e = r->edges[e].next) {
            uint32_t to = r->edges[e].to;
            steps += 1 + r->edges[e].n;
            if (r->stamps[to] == r->stamp || !within(r, &r->edges[e], cp))
                continue;
            r->stamps[to] = r->stamp;
            r->todo[n++] = to;
        }
    }
    spend(r, steps);
    return intern(r, follow(r, n, p->end));
}

/* ---- the product ---- */

static bool ends_at(const mfi_regular *r, const uint32_t *place)
{
    for (uint32_t i = 0; i < r->n_parts; i++)
        if (r->sets[place[i]].accepting == r->parts[i].negated)
            return false;
    return place[r->n_parts] >= r->least;
}

/* What a place becomes by a character; false if nothing can come of it. */
static bool move(mfi_regular *r, const uint32_t *place, uint32_t cp, uint32_t *to)
{
    uint32_t len = place[r->n_parts];
    if (r->most != NONE && len == r->most)
        return false;
    for (uint32_t i = 0; i < r->n_parts; i++) {
        to[i] = place[i] ? after(r, &r->parts[i], place[i], cp) : 0;
        if (to[i] == 0 && !r->parts[i].negated)
            return false;
    }
    to[r->n_parts] = r->most == NONE ? MFI_MIN(len + 1, r->least) : len + 1;
    return !failed(r);
}

static void first_place(mfi_regular *r, uint32_t *place)
{
    for (uint32_t i = 0; i < r->n_parts; i++)
        place[i] = start_of(r, &r->parts[i]);
    place[r->n_parts] = 0;
}

static uint32_t place_of(mfi_regular *r, const uint32_t *what)
{
    uint32_t width = r->n_parts + 1, n = r->n_places;
    uint32_t at = (uint32_t)mfi_hash_bytes(what, width * sizeof *what);
    for (;; at++) {
        uint32_t known = r->place_index[at & (PLACES_MAX * 2 - 1)];
        if (!known)
            break;
        if (memcmp(r->places + (size_t)(known - 1) * width, what, width * sizeof *what) == 0)
            return known - 1;
    }
    if (n == PLACES_MAX) {
        r->too_large = true;
        return 0;
    }
    if (n == r->cap_places) {
        uint32_t cap = n ? n * 2 : 64;
        uint32_t *more = realloc(r->places, (size_t)cap * width * sizeof *more);
        if (!more) {
            r->no_memory = true;
            return 0;
        }
        r->places = more;
        r->cap_places = cap;
    }
    memcpy(r->places + (size_t)n * width, what, width * sizeof *what);
    r->place_index[at & (PLACES_MAX * 2 - 1)] = n + 1;
    return r->n_places++;
}

static void add_cut(mfi_regular *r, uint32_t cp)
{
    if (GROW(r, r->cuts, r->n_cuts, r->cap_cuts, EDGES_MAX))
        r->cuts[r->n_cuts++] = cp;
}

/* The characters at which a place may begin to lead elsewhere, sorted. */
static void find_cuts(mfi_regular *r, const uint32_t *place)
{
    r->n_cuts = 0;
    add_cut(r, 0);
    for (uint32_t i = 0; i < r->n_parts; i++) {
        const set *s = &r->sets[place[i]];
        for (uint32_t k = 0; k < s->n; k++) {
            uint32_t e = r->states[r->members[s->first + k]].first;
            for (; e != NONE; e = r->edges[e].next)
                for (uint32_t j = 0; j < r->edges[e].n; j++) {
                    add_cut(r, r->ranges[r->edges[e].ranges + j].lo);
                    add_cut(r, r->ranges[r->edges[e].ranges + j].hi + 1);
                }
        }
    }
    spend(r, 8ull * r->n_cuts);
    if (!failed(r))
        qsort(r->cuts, r->n_cuts, sizeof *r->cuts, by_number);
}

static void add_step(mfi_regular *r, uint32_t from, uint32_t lo, uint32_t hi, uint32_t to)
{
    step *last = r->n_steps ? &r->steps[r->n_steps - 1] : NULL;
    if (last && last->from == from && last->to == to && last->hi + 1 == lo)
        last->hi = hi;
    else if (GROW(r, r->steps, r->n_steps, r->cap_steps, EDGES_MAX))
        r->steps[r->n_steps++] = (step){from, lo, hi, to};
}

static void explore(mfi_regular *r)
{
    uint32_t place[PARTS_MAX + 1], to[PARTS_MAX + 1];
    r->place_index = calloc(PLACES_MAX * 2, sizeof *r->place_index);
    r->no_memory = !r->place_index;
    if (failed(r))
        return;
    first_place(r, to);
    place_of(r, to);
    for (uint32_t at = 0; at < r->n_places && !failed(r); at++) {
        memcpy(place, r->places + (size_t)at * (r->n_parts + 1), (r->n_parts + 1) * sizeof *place);
        find_cuts(r, place);
        for (uint32_t i = 0; i < r->n_cuts && !failed(r); i++) {
            uint32_t lo = r->cuts[i], next = i + 1 < r->n_cuts ? r->cuts[i + 1] : CP_END;
            if (lo < next && lo < CP_END && move(r, place, lo, to))
                add_step(r, at, lo, next - 1, place_of(r, to));
        }
    }
}

static mf_status told(const mfi_regular *r, mf_error *err)
{
    if (*r->work > MFI_MAX_SCHEMA_WORK)
        return mfi_fail(err, MF_ERR_LIMIT, "more work than one schema may make");
    if (r->too_large)
        return mfi_fail(err, MF_ERR_LIMIT, "what holds here together makes more than %u cases",
                        PLACES_MAX);
    if (r->no_memory)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a JSON schema");
    return MF_OK;
}

/* Texts before may have left so many sets that this one finds no room. */
static void forget_sets(mfi_regular *r)
{
    if (r->n_sets <= SETS_MAX / 2 && r->n_members <= 2 * EDGES_MAX)
        return;
    memset(r->set_index, 0, SETS_MAX * 2 * sizeof *r->set_index);
    r->n_sets = 1;
    r->n_members = 0;
}

mf_status mfi_regular_takes(mfi_regular *r, const char *text, size_t len, bool *yes, mf_error *err)
{
    uint32_t place[PARTS_MAX + 1], to[PARTS_MAX + 1];
    *yes = ready(r);
    if (!*yes)
        return told(r, err);
    forget_sets(r);
    first_place(r, place);
    for (const char *p = text, *end = text + len; p < end && *yes;) {
        uint32_t cp = 0;
        size_t n = mfi_utf8_decode(p, end, &cp);
        spend(r, 1 + r->n_parts);
        *yes = n != 0 && move(r, place, cp, to);
        if (*yes)
            memcpy(place, to, (r->n_parts + 1) * sizeof *place);
        p += n;
    }
    *yes = *yes && !failed(r) && ends_at(r, place);
    return told(r, err);
}

/* ---- writing it ---- */

/* Marks the places from which the end can be reached. */
static void find_live(mfi_regular *r, bool *live)
{
    bool changed = true;
    for (uint32_t i = 0; i < r->n_places; i++)
        live[i] = ends_at(r, r->places + (size_t)i * (r->n_parts + 1));
    while (changed && !failed(r)) {
        changed = false;
        spend(r, r->n_steps);
        for (uint32_t i = r->n_steps; i-- > 0;) {
            const step *s = &r->steps[i];
            if (live[s->to] && !live[s->from])
                live[s->from] = changed = true;
        }
    }
}

/* A character of the last ranges of class_ranges, from `first` on. Classes of which some members
 * need escapes are rules. */
static uint32_t put_class(mfi_regular *r, mfi_ast *ast, uint32_t first)
{
    const mfi_range *ranges = r->class_ranges + first;
    uint32_t n = r->n_class_ranges - first;
    bool plain = ranges[0].lo >= 0x20;
    for (uint32_t i = 0; i < n; i++)
        plain = plain && !(ranges[i].lo <= '"' && ranges[i].hi >= '"') &&
                !(ranges[i].lo <= '\\' && ranges[i].hi >= '\\');
    for (uint32_t i = 0; i < r->n_words && !plain; i++)
        if (r->words[i].n == n &&
            memcmp(r->class_ranges + r->words[i].first, ranges, n * sizeof *ranges) == 0) {
            r->n_class_ranges = first;
            return mfi_ast_call(ast, r->words[i].rule);
        }
    uint32_t node = mfi_text_char(ast, ranges, n, false);
    if (plain || !GROW(r, r->words, r->n_words, r->cap_words, EDGES_MAX)) {
        r->n_class_ranges = first;
        return node;
    }
    uint32_t rule = mfi_ast_rule_new(ast, "character");
    mfi_ast_define(ast, rule, node);
    r->words[r->n_words++] = (word){first, n, rule};
    return mfi_ast_call(ast, rule);
}

/* The steps from..to, all from one place: one alternative for each place that they lead to. */
static void put_steps(mfi_regular *r, mfi_ast *ast, mfi_ast_list *list, uint32_t from, uint32_t to,
                      const bool *live, const uint32_t *rules)
{
    for (uint32_t i = from; i < to && !failed(r) && !mfi_ast_failed(ast); i++) {
        uint32_t target = r->steps[i].to, first = r->n_class_ranges;
        bool done = !live[target];
        spend(r, to - from);
        for (uint32_t k = from; k < i && !done; k++)
            done = r->steps[k].to == target;
        if (done)
            continue;
        for (uint32_t k = i; k < to; k++)
            if (r->steps[k].to == target &&
                GROW(r, r->class_ranges, r->n_class_ranges, r->cap_class_ranges, EDGES_MAX))
                r->class_ranges[r->n_class_ranges++] = (mfi_range){r->steps[k].lo, r->steps[k].hi};
        if (!failed(r))
            mfi_ast_push(ast, list,
                         mfi_ast_seq_of(ast, put_class(r, ast, first),
                                        mfi_ast_call(ast, rules[target]), MFI_AST_END));
    }
}

static void put_rules(mfi_regular *r, mfi_ast *ast, const bool *live, uint32_t *rules)
{
    for (uint32_t i = 0; i < r->n_places; i++)
        rules[i] = live[i] ? mfi_ast_rule_new(ast, "text") : 0;
    for (uint32_t i = 0, at = 0; i < r->n_places && !failed(r) && !mfi_ast_failed(ast); i++) {
        uint32_t end = at;
        mfi_ast_list list = {0};
        while (end < r->n_steps && r->steps[end].from == i)
            end++;
        if (live[i]) {
            if (ends_at(r, r->places + (size_t)i * (r->n_parts + 1)))
                mfi_ast_push(ast, &list, mfi_ast_bytes(ast, "", 0));
            put_steps(r, ast, &list, at, end, live, rules);
            mfi_ast_define(ast, rules[i], mfi_ast_alt(ast, list));
        }
        at = end;
    }
}

mf_status mfi_regular_emit(mfi_regular *r, mfi_ast *ast, uint32_t *node, mf_error *err)
{
    if (ready(r))
        explore(r);
    bool *live = failed(r) ? NULL : calloc(r->n_places, sizeof *live);
    uint32_t *rules = failed(r) ? NULL : calloc(r->n_places, sizeof *rules);
    r->no_memory = r->no_memory || (!r->too_large && (!live || !rules));
    if (!failed(r)) {
        find_live(r, live);
        if (live[0])
            put_rules(r, ast, live, rules);
        *node = live[0] ? mfi_ast_call(ast, rules[0]) : mfi_text_never(ast);
    }
    free(live);
    free(rules);
    MFI_TRY(told(r, err));
    return mfi_ast_check(ast, err);
}
