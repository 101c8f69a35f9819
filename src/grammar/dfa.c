/* The matcher's table of states; see dfa.h. Owned by a matcher, used on its thread, allocates at
 * open only. Knows no vocabulary. */
#include "grammar/dfa.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/limits.h"

/* Sizes of the tables; hash tables have twice as many places. */
#define N_FRAMES  65536u
#define N_CONFIGS 262144u
#define N_STATES  8192u
#define N_CELLS   (1u << 20) /* of all rows */

static uint32_t n_rows(uint32_t n_classes)
{
    return MFI_MIN(N_STATES, N_CELLS / n_classes);
}

uint64_t mfi_dfa_bytes(void)
{
    return N_FRAMES * (sizeof(mfi_frame) + 8) + N_CONFIGS * sizeof(mfi_config) +
           N_STATES * (sizeof(mfi_dstate) + 8) + N_CELLS * 4 +
           (uint64_t)MFI_MAX_GRAMMAR_CONFIGS * (2 * sizeof(mfi_config) + 16);
}

static void clear(mfi_dfa *d)
{
    memset(d->state_index, 0, N_STATES * 2 * sizeof *d->state_index);
    memset(d->rows, 0, d->g->n_classes * sizeof *d->rows); /* dead stays dead */
    d->states[0] = (mfi_dstate){.mask = -1, .filled = true};
    d->n_states = 1;
    d->n_configs = 0;
}

mf_status mfi_dfa_open(mfi_dfa *d, const mf_grammar *grammar, mf_error *err)
{
    *d = (mfi_dfa){.g = grammar, .cap_states = n_rows(grammar->n_classes)};
    d->frames = malloc(N_FRAMES * sizeof *d->frames);
    d->frame_index = calloc(N_FRAMES * 2, sizeof *d->frame_index);
    d->configs = malloc(N_CONFIGS * sizeof *d->configs);
    d->states = malloc(N_STATES * sizeof *d->states);
    d->state_index = malloc(N_STATES * 2 * sizeof *d->state_index);
    d->rows = malloc((size_t)d->cap_states * grammar->n_classes * sizeof *d->rows);
    d->work = malloc(MFI_MAX_GRAMMAR_CONFIGS * sizeof *d->work);
    d->out = malloc(MFI_MAX_GRAMMAR_CONFIGS * sizeof *d->out);
    d->seen = malloc(MFI_MAX_GRAMMAR_CONFIGS * 2 * sizeof *d->seen);
    d->stamps = calloc(MFI_MAX_GRAMMAR_CONFIGS * 2, sizeof *d->stamps);
    if (!d->frames || !d->frame_index || !d->configs || !d->states || !d->state_index || !d->rows ||
        !d->work || !d->out || !d->seen || !d->stamps) {
        mfi_dfa_close(d);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the tables of a grammar");
    }
    d->frames[0] = (mfi_frame){0};
    d->n_frames = 1;
    clear(d);
    return MF_OK;
}

void mfi_dfa_close(mfi_dfa *d)
{
    free(d->frames);
    free(d->frame_index);
    free(d->configs);
    free(d->states);
    free(d->state_index);
    free(d->rows);
    free(d->work);
    free(d->out);
    free(d->seen);
    free(d->stamps);
    *d = (mfi_dfa){0};
}

/* ---- stacks ---- */

static uint32_t mix(uint32_t a, uint32_t b)
{
    uint64_t h = ((uint64_t)a << 32 | b) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 32) ^ (uint32_t)h >> 7;
}

/* The stack with `ret` on top of `parent`; 0 with d->full set if there is no room. */
static uint32_t push(mfi_dfa *d, uint32_t ret, uint32_t parent)
{
    uint32_t at = mix(ret, parent);
    for (;; at++) {
        uint32_t known = d->frame_index[at & (N_FRAMES * 2 - 1)];
        if (!known)
            break;
        if (d->frames[known].ret == ret && d->frames[known].parent == parent)
            return known;
    }
    if (d->n_frames == N_FRAMES) {
        d->full = true;
        return 0;
    }
    d->frames[d->n_frames] = (mfi_frame){ret, parent, d->frames[parent].depth + 1};
    d->frame_index[at & (N_FRAMES * 2 - 1)] = d->n_frames;
    return d->n_frames++;
}

/* ---- closures ---- */

/* Notes a configuration that is to be followed, unless it is known or can't end within the depth
 * that is allowed: so whatever is followed can come to an end. */
static void add(mfi_dfa *d, uint32_t state, uint32_t frame)
{
    uint32_t at = mix(state, frame), mask = MFI_MAX_GRAMMAR_CONFIGS * 2 - 1;
    if (d->g->need[state] == MFI_NEED_NEVER ||
        d->frames[frame].depth + d->g->need[state] > MFI_MAX_GRAMMAR_DEPTH)
        return;
    for (; d->stamps[at & mask] == d->stamp; at++) {
        const mfi_config *c = &d->work[d->seen[at & mask]];
        if (c->state == state && c->frame == frame)
            return;
    }
    if (d->n_work == MFI_MAX_GRAMMAR_CONFIGS) {
        d->tangled = true;
        return;
    }
    d->stamps[at & mask] = d->stamp;
    d->seen[at & mask] = d->n_work;
    d->work[d->n_work++] = (mfi_config){state, frame};
}

/* State `to` in a rule after which `ret` follows. */
static void enter(mfi_dfa *d, uint32_t to, uint32_t ret, uint32_t frame)
{
    if (ret != 0) {
        if (d->frames[frame].depth == MFI_MAX_GRAMMAR_DEPTH)
            return;
        frame = push(d, ret, frame);
        if (d->full)
            return;
    }
    add(d, to, frame);
}

static void begin(mfi_dfa *d)
{
    d->n_work = d->n_out = 0;
    d->accepting = d->full = d->tangled = false;
    if (++d->stamp == 0) {
        memset(d->stamps, 0, MFI_MAX_GRAMMAR_CONFIGS * 2 * sizeof *d->stamps);
        d->stamp = 1;
    }
}

/* Follows everything that needs no byte. */
static void follow(mfi_dfa *d)
{
    const mf_grammar *g = d->g;
    for (uint32_t i = 0; i < d->n_work && !d->full && !d->tangled; i++) {
        mfi_config c = d->work[i];
        const mfi_state *s = &g->states[c.state];
        switch ((mfi_state_kind)s->kind) {
        case MFI_STATE_END:
            if (c.frame == 0)
                d->accepting = true;
            else
                add(d, d->frames[c.frame].ret, d->frames[c.frame].parent);
            break;
        case MFI_STATE_SPLIT:
            for (uint32_t k = 0; k < s->b; k++)
                add(d, g->targets[s->a + k], c.frame);
            break;
        case MFI_STATE_CALL:
            enter(d, g->entry[s->a], s->b, c.frame);
            break;
        case MFI_STATE_BYTE:
        case MFI_STATE_SET:
            d->out[d->n_out++] = c;
            break;
        }
    }
}

static int by_config(const void *a, const void *b)
{
    const mfi_config *x = a, *y = b;
    if (x->state != y->state)
        return x->state < y->state ? -1 : 1;
    return x->frame < y->frame ? -1 : x->frame > y->frame;
}

/* ---- states ---- */

static uint32_t add_state(mfi_dfa *d, uint32_t at)
{
    if (d->n_states == d->cap_states || N_CONFIGS - d->n_configs < d->n_out)
        return MFI_DFA_FULL;
    uint32_t state = d->n_states++;
    memcpy(d->configs + d->n_configs, d->out, d->n_out * sizeof *d->out);
    d->states[state] =
        (mfi_dstate){.first = d->n_configs, .n = d->n_out, .mask = -1, .accepting = d->accepting};
    d->n_configs += d->n_out;
    uint32_t *row = d->rows + (size_t)state * d->g->n_classes;
    for (uint32_t i = 0; i < d->g->n_classes; i++)
        row[i] = MFI_DFA_UNKNOWN;
    d->state_index[at & (N_STATES * 2 - 1)] = state;
    return state;
}

/* The state that stands for what was followed. */
static uint32_t intern(mfi_dfa *d)
{
    if (d->full)
        return MFI_DFA_FULL;
    if (d->tangled)
        return MFI_DFA_TANGLED;
    if (d->n_out == 0 && !d->accepting)
        return MFI_DFA_DEAD;
    qsort(d->out, d->n_out, sizeof *d->out, by_config);
    size_t bytes = d->n_out * sizeof *d->out;
    uint32_t at = (uint32_t)mfi_hash_bytes(d->out, bytes) + d->accepting;
    for (;; at++) {
        uint32_t known = d->state_index[at & (N_STATES * 2 - 1)];
        if (!known)
            return add_state(d, at);
        const mfi_dstate *s = &d->states[known];
        if (s->n == d->n_out && s->accepting == d->accepting &&
            memcmp(d->configs + s->first, d->out, bytes) == 0)
            return known;
    }
}

uint32_t mfi_dfa_start(mfi_dfa *d)
{
    begin(d);
    add(d, d->g->entry[0], 0);
    follow(d);
    return intern(d);
}

static void read_byte(mfi_dfa *d, mfi_config c, uint32_t byte)
{
    const mfi_state *s = &d->g->states[c.state];
    if (s->kind == MFI_STATE_BYTE) {
        if (s->a == byte)
            add(d, s->b, c.frame);
        return;
    }
    const mfi_edge *edges = d->g->edges + s->a;
    uint32_t lo = 0, hi = s->c;
    while (lo < hi) { /* the first edge that ends at the byte or behind it */
        uint32_t mid = (lo + hi) / 2;
        if (edges[mid].hi < byte)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == s->c || edges[lo].lo > byte)
        return;
    if (edges[lo].target)
        enter(d, edges[lo].target, s->b, c.frame);
    else
        add(d, s->b, c.frame);
}

uint32_t mfi_dfa_step(mfi_dfa *d, uint32_t state, uint32_t byte_class)
{
    uint32_t byte = d->g->byte_of[byte_class];
    begin(d);
    for (uint32_t i = 0; i < d->states[state].n; i++)
        read_byte(d, d->configs[d->states[state].first + i], byte);
    follow(d);
    uint32_t next = intern(d);
    if (next < MFI_DFA_TANGLED)
        d->rows[(size_t)state * d->g->n_classes + byte_class] = next;
    return next;
}

/* Where most bytes below 0x80 lead, which do, and which lead anywhere. */
static void find_major(mfi_dstate *s, const uint32_t to[128])
{
    uint32_t best = 0;
    s->major = MFI_DFA_DEAD;
    for (uint32_t b = 0; b < 128; b++) {
        uint32_t n = 0;
        if (to[b] == MFI_DFA_DEAD || to[b] == s->major || (b > 0 && to[b] == to[b - 1]))
            continue;
        for (uint32_t k = 0; k < 128; k++)
            n += to[k] == to[b];
        if (n > best) {
            best = n;
            s->major = to[b];
        }
    }
    for (uint32_t b = 0; b < 128 && best; b++) {
        if (to[b] == s->major)
            mfi_char_set_add(&s->plain, b);
        if (to[b] != MFI_DFA_DEAD)
            mfi_char_set_add(&s->live, b);
    }
}

/* Whether bytes lo..hi and then `left` continuation bytes all lead from `state` to `to`: 1, 0, or
 * FULL or TANGLED. */
static uint32_t all_lead(mfi_dfa *d, uint32_t state, uint32_t lo, uint32_t hi, uint32_t left,
                         uint32_t to)
{
    const uint8_t *class_of = d->g->class_of;
    for (uint32_t b = lo; b <= hi; b++) {
        if (b > lo && class_of[b] == class_of[b - 1])
            continue;
        uint32_t next = mfi_dfa_next(d, state, class_of[b]);
        uint32_t ok = next == to;
        if (next >= MFI_DFA_TANGLED)
            return next;
        if (left)
            ok = next == MFI_DFA_DEAD ? 0 : all_lead(d, next, 0x80, 0xbf, left - 1, to);
        if (ok != 1)
            return ok;
    }
    return 1;
}

/* Whether all characters with that lead byte lead to `to`. Second bytes are limited after some lead
 * bytes (Unicode's table 3-7). */
static uint32_t lead_to(mfi_dfa *d, uint32_t state, uint32_t lead, uint32_t to)
{
    uint32_t next = mfi_dfa_next(d, state, d->g->class_of[lead]);
    uint32_t lo = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint32_t hi = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (next >= MFI_DFA_TANGLED || next == MFI_DFA_DEAD)
        return next;
    return all_lead(d, next, lo, hi, (lead >= 0xe0) + (lead >= 0xf0), to);
}

static bool limits_second(uint32_t lead)
{
    return lead == 0xe0 || lead == 0xed || lead == 0xf0 || lead == 0xf4;
}

uint32_t mfi_dfa_fill_wide(mfi_dfa *d, uint32_t state)
{
    mfi_dstate *s = &d->states[state];
    const uint32_t *row = d->rows + (size_t)state * d->g->n_classes;
    const uint8_t *class_of = d->g->class_of;
    uint32_t plain = 0;
    if (s->wide)
        return 0;
    for (uint32_t b = 0xc2; b <= 0xf4; b++) {
        bool same = b != 0xc2 && class_of[b] == class_of[b - 1] && !limits_second(b) &&
                    !limits_second(b - 1);
        if (!same)
            plain = lead_to(d, state, b, s->major);
        if (plain >= MFI_DFA_TANGLED)
            return plain;
        if (plain && s->major)
            mfi_char_set_add(&s->plain, b);
        if (row[class_of[b]] != MFI_DFA_DEAD)
            mfi_char_set_add(&s->live, b);
    }
    s->wide = true;
    return 0;
}

/* Marks the bytes below 0x80 at which a state may begin to lead elsewhere. */
static void find_cuts(const mfi_dfa *d, const mfi_dstate *s, bool cut[129])
{
    for (uint32_t i = 0; i < s->n; i++) {
        const mfi_state *q = &d->g->states[d->configs[s->first + i].state];
        if (q->kind == MFI_STATE_BYTE) {
            if (q->a < 128)
                cut[q->a] = cut[q->a + 1] = true;
            continue;
        }
        const mfi_edge *edges = d->g->edges + q->a;
        for (uint32_t k = 0; k < q->c && edges[k].lo < 128; k++)
            cut[edges[k].lo] = cut[MFI_MIN(edges[k].hi, 127) + 1] = true;
    }
}

uint32_t mfi_dfa_fill(mfi_dfa *d, uint32_t state)
{
    mfi_dstate *s = &d->states[state];
    if (s->filled)
        return 0;
    bool cut[129] = {true};
    uint32_t to[128];
    uint32_t *row = d->rows + (size_t)state * d->g->n_classes;
    find_cuts(d, s, cut);
    for (uint32_t b = 0; b < 128; b++) {
        uint8_t c = d->g->class_of[b];
        to[b] = cut[b] ? mfi_dfa_next(d, state, c) : to[b - 1];
        if (to[b] >= MFI_DFA_TANGLED)
            return to[b];
        row[c] = to[b];
    }
    find_major(s, to);
    s->filled = true;
    return 0;
}

/* ---- forgetting ---- */

/* Keeps the stacks that d->out refers to. A stack's parent is older than it, so one pass down marks
 * and one pass up moves. */
static void keep_frames(mfi_dfa *d)
{
    uint32_t *moved = d->frame_index; /* what becomes of each; it is filled anew below */
    memset(moved, 0, N_FRAMES * 2 * sizeof *moved);
    for (uint32_t i = 0; i < d->n_out; i++)
        moved[d->out[i].frame] = 1;
    for (uint32_t i = d->n_frames; i-- > 1;)
        if (moved[i])
            moved[d->frames[i].parent] = 1;
    uint32_t n = 1;
    moved[0] = 0;
    for (uint32_t i = 1; i < d->n_frames; i++) {
        if (!moved[i])
            continue;
        mfi_frame frame = d->frames[i];
        frame.parent = moved[frame.parent];
        d->frames[n] = frame;
        moved[i] = n++;
    }
    for (uint32_t i = 0; i < d->n_out; i++)
        d->out[i].frame = moved[d->out[i].frame];
    d->n_frames = n;
    memset(d->frame_index, 0, N_FRAMES * 2 * sizeof *d->frame_index);
    for (uint32_t i = 1; i < n; i++) {
        uint32_t at = mix(d->frames[i].ret, d->frames[i].parent);
        while (d->frame_index[at & (N_FRAMES * 2 - 1)])
            at++;
        d->frame_index[at & (N_FRAMES * 2 - 1)] = i;
    }
}

uint32_t mfi_dfa_flush(mfi_dfa *d, uint32_t keep)
{
    const mfi_dstate *s = &d->states[keep];
    begin(d);
    d->n_out = s->n;
    d->accepting = s->accepting;
    memcpy(d->out, d->configs + s->first, s->n * sizeof *d->out);
    keep_frames(d);
    clear(d);
    return intern(d);
}
