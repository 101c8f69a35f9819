/* The matcher: a place in the table of states, and masks made by walking the vocabulary's trie
 * along it; see matcher.h. Owned by one generation on its thread. Allocates at open only.
 *
 * The walk takes a shortcut where a grammar takes about any text, within strings: if the characters
 * at and below a node of the trie all lead from the state at hand to one and the same state, and
 * from there on again, then the tokens there are allowed up to the length at which such a step
 * leads nowhere. */
#include "grammar/matcher.h"

#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "grammar/dfa.h"
#include "grammar/stretch.h"

#define MASKS_BYTES  ((uint64_t)4 << 20)
#define MASKS_MIN    4
#define MASKS_MAX    256
#define LOOK_AHEAD   128 /* characters, where each leads to another state */
#define N_STRETCHES  256
#define STRETCH_WAYS 8 /* that are looked at */

typedef struct place { /* of the walk */
    uint32_t state;
    uint32_t border;  /* the state before the last character */
    uint32_t n_chars; /* that have begun */
} place;

struct mfi_matcher {
    mfi_dfa dfa;
    const mfi_vocab_trie *trie;
    const int32_t *end_ids;
    uint32_t n_end_ids;
    uint32_t current; /* state */
    place *path;      /* [depth_max + 1] */
    uint32_t *masks;  /* [n_slots][n_words] */
    uint32_t *owner;  /* [n_slots] state, 0: free */
    uint32_t n_words, n_slots, next_slot;
    uint32_t n_flushes;
    mfi_stretch stretches[N_STRETCHES]; /* all zero: state 0 reads nothing */
};

static uint32_t n_slots(uint32_t n_words)
{
    uint64_t n = MASKS_BYTES / ((uint64_t)n_words * 4 + 1);
    return (uint32_t)MFI_MIN(MFI_MAX(n, MASKS_MIN), MASKS_MAX);
}

uint64_t mfi_matcher_bytes(uint32_t n_vocab)
{
    uint32_t n_words = (n_vocab + 31) / 32;
    return mfi_dfa_bytes() + (uint64_t)n_slots(n_words) * (n_words * 4ull + 4) +
           (MFI_MAX_TOKEN_BYTES + 1) * sizeof(place) + sizeof(mfi_matcher);
}

static mf_status fail(uint32_t what, mf_error *err)
{
    if (what == MFI_DFA_TANGLED)
        return mfi_fail(err, MF_ERR_LIMIT,
                        "the grammar is too ambiguous: more than %u ways to read the text",
                        MFI_MAX_GRAMMAR_CONFIGS);
    return mfi_fail(err, MF_ERR_LIMIT, "the grammar's tables are too small for it");
}

mf_status mfi_matcher_open(mfi_matcher **matcher, const mf_grammar *grammar,
                           const mfi_vocab_trie *trie, const int32_t *end_ids, uint32_t n_end_ids,
                           mf_error *err)
{
    mfi_matcher *m = calloc(1, sizeof *m);
    if (!m)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a matcher");
    m->trie = trie;
    m->end_ids = end_ids;
    m->n_end_ids = n_end_ids;
    m->n_words = (trie->n_vocab + 31) / 32;
    m->n_slots = n_slots(m->n_words);
    m->path = malloc(((size_t)trie->depth_max + 1) * sizeof *m->path);
    m->masks = malloc(((size_t)m->n_slots * m->n_words + 1) * sizeof *m->masks);
    m->owner = calloc(m->n_slots, sizeof *m->owner);
    mf_status status = mfi_dfa_open(&m->dfa, grammar, err);
    if (status == MF_OK && (!m->path || !m->masks || !m->owner))
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a matcher");
    if (status == MF_OK) {
        m->current = mfi_dfa_start(&m->dfa);
        if (m->current >= MFI_DFA_TANGLED)
            status = fail(m->current, err);
    }
    if (status != MF_OK)
        mfi_matcher_close(&m);
    else
        *matcher = m;
    return status;
}

void mfi_matcher_close(mfi_matcher **matcher)
{
    mfi_matcher *m = *matcher;
    if (!m)
        return;
    mfi_dfa_close(&m->dfa);
    free(m->path);
    free(m->masks);
    free(m->owner);
    free(m);
    *matcher = NULL;
}

/* Empties the tables but for the current state. */
static mf_status flush(mfi_matcher *m, mf_error *err)
{
    m->n_flushes++;
    memset(m->owner, 0, m->n_slots * sizeof *m->owner);
    uint32_t state = mfi_dfa_flush(&m->dfa, m->current);
    if (state >= MFI_DFA_TANGLED)
        return fail(state, err);
    m->current = state;
    return MF_OK;
}

mf_status mfi_matcher_reset(mfi_matcher *m, mf_error *err)
{
    uint32_t state = mfi_dfa_start(&m->dfa);
    if (state == MFI_DFA_FULL) {
        MFI_TRY(flush(m, err));
        state = mfi_dfa_start(&m->dfa);
    }
    if (state >= MFI_DFA_TANGLED)
        return fail(state, err);
    m->current = state;
    return MF_OK;
}

static uint32_t run(mfi_matcher *m, const char *bytes, size_t len)
{
    uint32_t state = m->current;
    for (size_t i = 0; i < len && state != MFI_DFA_DEAD && state < MFI_DFA_TANGLED; i++)
        state = mfi_dfa_next(&m->dfa, state, m->dfa.g->class_of[(unsigned char)bytes[i]]);
    return state;
}

mf_status mfi_matcher_accept(mfi_matcher *m, const char *bytes, size_t len, bool *alive,
                             mf_error *err)
{
    uint32_t state = run(m, bytes, len);
    if (state == MFI_DFA_FULL) {
        MFI_TRY(flush(m, err));
        state = run(m, bytes, len);
    }
    if (state >= MFI_DFA_TANGLED)
        return fail(state, err);
    *alive = state != MFI_DFA_DEAD;
    if (*alive)
        m->current = state;
    return MF_OK;
}

/* ---- masks ---- */

static mfi_stretch *stretch_of(mfi_matcher *m, uint32_t state, uint32_t ret)
{
    mfi_stretch *s = &m->stretches[(state + 31 * ret) % N_STRETCHES];
    if (s->state != state || s->ret != ret)
        mfi_stretch_find(m->dfa.g, state, ret, s);
    return s;
}

/* Whether one of the ways to read the text goes on over characters of one class for as long as any
 * token at or below a node. That needs no other state, so that a text of bounded length costs no
 * more than an endless one. */
static bool in_stretch(mfi_matcher *m, const mfi_vocab_node *node, uint32_t state, uint32_t height)
{
    const mfi_char_set *below = &m->trie->below[node->below];
    const mfi_dstate *d = &m->dfa.states[state];
    for (uint32_t i = 0; i < d->n && i < STRETCH_WAYS; i++) {
        const mfi_config *c = &m->dfa.configs[d->first + i];
        mfi_stretch *s = stretch_of(m, c->state, c->frame ? m->dfa.frames[c->frame].ret : 0);
        if (!s->run)
            continue;
        if (below->bits[2])
            mfi_stretch_find_wide(m->dfa.g, s);
        if (!mfi_char_set_within(below, &s->chars))
            continue;
        /* The last bytes of a wide character are in a frame of their own. */
        if (mfi_stretch_reaches(m->dfa.g, s, height) &&
            m->dfa.frames[c->frame].depth + MFI_MAX(s->need, 1u) + 1 <= MFI_MAX_GRAMMAR_DEPTH)
            return true;
    }
    return false;
}

/* How many characters of those at and below a node can be read after `state`, at a character's
 * border, whichever they are, so that the tokens of as many are allowed and longer ones are not:
 * EVERY if all, MIXED if it depends on the characters, or FULL or TANGLED. */
#define EVERY (MFI_DFA_TANGLED - 1)
#define MIXED (MFI_DFA_TANGLED - 2)
static uint32_t readable(mfi_matcher *m, const mfi_vocab_node *node, uint32_t state)
{
    const mfi_char_set *below = &m->trie->below[node->below];
    uint32_t height = node->height < UINT8_MAX ? node->height : MFI_MAX_TOKEN_BYTES;
    height += (node->byte & 0xc0) == 0x80; /* the character that it is in */
    for (uint32_t i = 0; i < MFI_MIN(height, LOOK_AHEAD); i++) {
        uint32_t wrong = mfi_dfa_fill(&m->dfa, state);
        if (!wrong && below->bits[2])
            wrong = mfi_dfa_fill_wide(&m->dfa, state);
        if (wrong)
            return wrong;
        const mfi_dstate *s = &m->dfa.states[state];
        if (!mfi_char_set_meets(below, &s->live))
            return i;
        if (i == 0 && mfi_char_set_within(below, &s->live) && in_stretch(m, node, state, height))
            return EVERY;
        if (!mfi_char_set_within(below, &s->plain))
            return MIXED;
        if (s->major == state)
            return EVERY;
        state = s->major;
    }
    return height <= LOOK_AHEAD ? EVERY : MIXED;
}

static void allow(uint32_t *mask, const int32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        mask[(uint32_t)ids[i] >> 5] |= 1u << (ids[i] & 31);
}

/* Allows the tokens at and below a node that have up to n characters there, behind `before`. */
static void allow_up_to(const mfi_vocab_trie *t, uint32_t *mask, const mfi_vocab_node *node,
                        uint32_t n, uint32_t before)
{
    uint32_t end = t->nodes[node->skip].first;
    if (n == EVERY)
        allow(mask, t->ids + node->first, end - node->first);
    for (uint32_t i = node->first; i < end && n && n != EVERY; i++) {
        uint32_t id = (uint32_t)t->ids[i];
        mask[id >> 5] |= (uint32_t)(t->lengths[i] <= before + n) << (id & 31);
    }
}

/* Goes along one byte: returns the state behind it. */
static uint32_t step(mfi_matcher *m, const mfi_vocab_node *node, bool begins)
{
    const place *before = &m->path[node->depth - 1];
    uint32_t state = mfi_dfa_next(&m->dfa, before->state, m->dfa.g->class_of[node->byte]);
    m->path[node->depth] =
        (place){state, begins ? before->state : before->border, before->n_chars + begins};
    return state;
}

/* Returns 0, FULL or TANGLED. */
static uint32_t walk(mfi_matcher *m, uint32_t *mask)
{
    const mfi_vocab_node *nodes = m->trie->nodes;
    m->path[0] = (place){m->current, m->current, 0};
    for (uint32_t i = 1; i < m->trie->n_nodes;) {
        const mfi_vocab_node *node = &nodes[i];
        bool begins = (node->byte & 0xc0) != 0x80;
        __builtin_prefetch(&nodes[node->skip]); /* memory is what a walk waits for */
        if (node->below) {
            const place *before = &m->path[node->depth - 1];
            uint32_t n = readable(m, node, begins ? before->state : before->border);
            if (n >= MFI_DFA_TANGLED)
                return n;
            if (n != MIXED) {
                allow_up_to(m->trie, mask, node, n, before->n_chars - !begins);
                i = node->skip;
                continue;
            }
        }
        uint32_t state = step(m, node, begins);
        if (state >= MFI_DFA_TANGLED)
            return state;
        if (state == MFI_DFA_DEAD) {
            i = node->skip;
            continue;
        }
        /* A node's own tokens end where those of the next node begin. */
        i++;
        allow(mask, m->trie->ids + node->first, nodes[i].first - node->first);
    }
    return 0;
}

static mf_status make_mask(mfi_matcher *m, uint32_t *mask, mf_error *err)
{
    memset(mask, 0, m->n_words * sizeof *mask);
    uint32_t wrong = walk(m, mask);
    if (wrong == MFI_DFA_FULL) {
        MFI_TRY(flush(m, err));
        memset(mask, 0, m->n_words * sizeof *mask);
        wrong = walk(m, mask);
    }
    if (wrong)
        return fail(wrong, err);
    if (m->dfa.states[m->current].accepting)
        for (uint32_t i = 0; i < m->n_end_ids; i++)
            if (m->end_ids[i] >= 0 && (uint32_t)m->end_ids[i] < m->trie->n_vocab)
                allow(mask, &m->end_ids[i], 1);
    return MF_OK;
}

mf_status mfi_matcher_mask(mfi_matcher *m, const uint32_t **mask, mf_error *err)
{
    int32_t slot = m->dfa.states[m->current].mask;
    if (slot < 0) {
        slot = (int32_t)m->next_slot;
        uint32_t *words = m->masks + (size_t)slot * m->n_words;
        if (m->owner[slot])
            m->dfa.states[m->owner[slot]].mask = -1;
        m->owner[slot] = 0;
        MFI_TRY(make_mask(m, words, err));
        m->next_slot = (m->next_slot + 1) % m->n_slots;
        m->owner[slot] = m->current;
        m->dfa.states[m->current].mask = slot;
    }
    *mask = m->masks + (size_t)slot * m->n_words;
    return MF_OK;
}

bool mfi_matcher_can_end(const mfi_matcher *m)
{
    return m->dfa.states[m->current].accepting;
}

bool mfi_matcher_must_end(const mfi_matcher *m)
{
    const mfi_dstate *s = &m->dfa.states[m->current];
    return s->accepting && s->n == 0;
}

uint32_t mfi_matcher_n_flushes(const mfi_matcher *m)
{
    return m->n_flushes;
}
