/* The vocabulary's trie; see trie.h. Built once for a vocabulary when generating under a grammar is
 * first prepared for; read by matchers afterwards. Knows bytes and ids, no tokenizer. */
#include "grammar/trie.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/limits.h"

#define BELOW_MIN_NODES 4 /* smaller subtrees are walked anyway */

typedef struct entry {
    const char *bytes;
    uint32_t len;
    int32_t id;
} entry;

static int by_bytes(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    int order = memcmp(x->bytes, y->bytes, MFI_MIN(x->len, y->len));
    if (order == 0)
        order = x->len < y->len ? -1 : x->len > y->len;
    return order ? order : x->id < y->id ? -1 : x->id > y->id;
}

static uint32_t common(const entry *a, const entry *b)
{
    uint32_t n = 0;
    while (n < a->len && n < b->len && a->bytes[n] == b->bytes[n])
        n++;
    return n;
}

/* Nodes that the sorted entries take, the root among them; 0 if too many. */
static uint32_t count_nodes(const entry *entries, uint32_t n)
{
    uint64_t total = 1;
    for (uint32_t i = 0; i < n; i++)
        total += entries[i].len - (i ? common(&entries[i - 1], &entries[i]) : 0);
    return total < UINT32_MAX ? (uint32_t)total : 0;
}

/* 1 if the byte begins a character. */
static uint32_t begins(unsigned byte)
{
    return (byte & 0xc0) != 0x80;
}

static uint16_t length_of(const entry *e)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < e->len; i++)
        n += begins((unsigned char)e->bytes[i]);
    return (uint16_t)n;
}

/* Lays the nodes out; path: the open nodes by depth. */
static void lay_out(mfi_vocab_trie *t, const entry *entries, uint32_t n, uint32_t *path)
{
    uint32_t at = 0, open = 0;
    t->nodes[at++] = (mfi_vocab_node){0};
    path[0] = 0;
    for (uint32_t i = 0; i < n; i++) {
        const entry *e = &entries[i];
        uint32_t shared = i ? common(&entries[i - 1], e) : 0;
        for (; open > shared; open--)
            t->nodes[path[open]].skip = at;
        for (; open < e->len; at++) {
            t->nodes[at] = (mfi_vocab_node){
                .first = i, .depth = (uint16_t)(open + 1), .byte = (unsigned char)e->bytes[open]};
            path[++open] = at;
        }
        t->ids[i] = e->id;
        t->lengths[i] = length_of(e);
        t->depth_max = MFI_MAX(t->depth_max, e->len);
    }
    for (uint32_t d = 0; d <= open; d++)
        t->nodes[path[d]].skip = at;
    t->nodes[at] = (mfi_vocab_node){.first = n, .skip = at};
}

/* Where in a character a text stands: at its border, before 1 to 3 more bytes, or after a lead byte
 * whose second byte is limited (Unicode's table 3-7). */
enum { BORDER, MORE_1, MORE_2, MORE_3, AFTER_E0, AFTER_ED, AFTER_F0, AFTER_F4, NOWHERE };

static int after_lead(unsigned b)
{
    if (b < 0x80)
        return BORDER;
    if (b < 0xc2 || b > 0xf4)
        return NOWHERE;
    if (b < 0xe0)
        return MORE_1;
    if (b < 0xf0)
        return b == 0xe0 ? AFTER_E0 : b == 0xed ? AFTER_ED : MORE_2;
    return b == 0xf0 ? AFTER_F0 : b == 0xf4 ? AFTER_F4 : MORE_3;
}

static int after_byte(int place, unsigned b)
{
    static const struct {
        uint8_t lo, hi, next;
    } rest[] = {
        [MORE_1] = {0x80, 0xbf, BORDER},   [MORE_2] = {0x80, 0xbf, MORE_1},
        [MORE_3] = {0x80, 0xbf, MORE_2},   [AFTER_E0] = {0xa0, 0xbf, MORE_1},
        [AFTER_ED] = {0x80, 0x9f, MORE_1}, [AFTER_F0] = {0x90, 0xbf, MORE_2},
        [AFTER_F4] = {0x80, 0x8f, MORE_2},
    };
    if (place == BORDER)
        return after_lead(b);
    return b >= rest[place].lo && b <= rest[place].hi ? rest[place].next : NOWHERE;
}

/* What is gathered of the nodes of one depth, all below the next node of the depth above. */
typedef struct gathered {
    mfi_char_set sum;
    uint8_t from;   /* a bit a place: from there all of it is UTF-8 */
    uint8_t height; /* in characters, these nodes' own included */
} gathered;

/* Adds a node, below which `inner` was gathered, to what is gathered of its depth. */
static gathered with_node(gathered all, const gathered *inner, unsigned byte)
{
    uint8_t from = 0;
    for (int place = BORDER; place < NOWHERE; place++) {
        int next = after_byte(place, byte);
        if (next != NOWHERE && inner->from >> next & 1)
            from |= (uint8_t)(1u << place);
    }
    all.from &= from;
    for (int w = 0; w < 3; w++)
        all.sum.bits[w] |= inner->sum.bits[w];
    if (begins(byte))
        mfi_char_set_add(&all.sum, byte);
    all.height = MFI_MAX(all.height, (uint8_t)MFI_MIN(inner->height + begins(byte), 255u));
    return all;
}

/* Where a node's parent ends in a character. */
typedef struct border {
    uint8_t place;
    uint8_t first; /* byte of that character, or the node's own */
} border;

/* A lead byte or one below 0x80 begins anew, whatever stands before it. */
static void find_borders(const mfi_vocab_trie *t, border *before, border *path)
{
    path[0] = (border){BORDER, 0};
    for (uint32_t i = 1; i < t->n_nodes; i++) {
        const mfi_vocab_node *node = &t->nodes[i];
        border b = path[node->depth - 1];
        if (begins(node->byte))
            b = (border){BORDER, node->byte};
        before[i] = b;
        if (b.place != NOWHERE)
            b.place = (uint8_t)after_byte(b.place, node->byte);
        path[node->depth] = b;
    }
}

/* The number of a set. The same ones come often: kept once they stay in the caches. */
static uint32_t below_of(mfi_vocab_trie *t, const mfi_char_set *set, uint32_t *index, uint32_t size)
{
    uint32_t at = (uint32_t)mfi_hash_bytes(set, sizeof *set);
    for (;; at++) {
        uint32_t known = index[at & (size - 1)];
        if (known && memcmp(&t->below[known], set, sizeof *set) == 0)
            return known;
        if (known)
            continue;
        t->below[t->n_below] = *set;
        index[at & (size - 1)] = t->n_below;
        return t->n_below++;
    }
}

/* Sums up each node with what is below it, from the end, where children come before parents. */
static void sum_up(mfi_vocab_trie *t, const border *before, gathered *at, uint32_t *index,
                   uint32_t size)
{
    static const gathered nothing = {.from = 0xff};
    t->n_below = 1;
    for (uint32_t d = 0; d < t->depth_max + 2; d++)
        at[d] = nothing;
    for (uint32_t i = t->n_nodes; i-- > 1;) {
        mfi_vocab_node *node = &t->nodes[i];
        gathered *inner = &at[node->depth + 1];
        gathered own = with_node(nothing, inner, node->byte);
        node->height = own.height;
        if (node->skip - i >= BELOW_MIN_NODES && before[i].place != NOWHERE &&
            (own.from & 1u << before[i].place)) {
            mfi_char_set set = own.sum;
            mfi_char_set_add(&set, before[i].first);
            node->below = below_of(t, &set, index, size);
        }
        at[node->depth] = with_node(at[node->depth], inner, node->byte);
        *inner = nothing;
    }
}

static mf_status describe(mfi_vocab_trie *t, mf_error *err)
{
    gathered *at = malloc(((size_t)t->depth_max + 2) * sizeof *at); /* by depth */
    border *before = malloc(t->n_nodes * sizeof *before);
    border *path = malloc(((size_t)t->depth_max + 1) * sizeof *path);
    uint32_t n = 1, size = 2;
    for (uint32_t i = 0; i < t->n_nodes; i++)
        n += t->nodes[i].skip - i >= BELOW_MIN_NODES;
    while (size < 2 * n)
        size *= 2;
    uint32_t *index = calloc(size, sizeof *index); /* hash -> number; 0: free */
    t->below = calloc(n, sizeof *t->below);
    bool ok = at && before && path && index && t->below;
    if (ok) {
        find_borders(t, before, path);
        sum_up(t, before, at, index, size);
        mfi_char_set *fit = realloc(t->below, t->n_below * sizeof *fit);
        t->below = fit ? fit : t->below;
    }
    free(index);
    free(at);
    free(before);
    free(path);
    return ok ? MF_OK : mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the vocabulary's trie");
}

static mf_status build(mfi_vocab_trie *t, const entry *entries, uint32_t n, mf_error *err)
{
    t->n_nodes = count_nodes(entries, n);
    t->n_ids = n;
    if (t->n_nodes == 0)
        return mfi_fail(err, MF_ERR_LIMIT, "the vocabulary's tokens are too long for a trie");
    t->nodes = malloc(((size_t)t->n_nodes + 1) * sizeof *t->nodes);
    t->ids = malloc((n ? n : 1) * sizeof *t->ids);
    t->lengths = malloc((n ? n : 1) * sizeof *t->lengths);
    uint32_t *path = malloc(((size_t)MFI_MAX_TOKEN_BYTES + 1) * sizeof *path);
    mf_status status = MF_OK;
    if (t->nodes && t->ids && t->lengths && path)
        lay_out(t, entries, n, path);
    else
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the vocabulary's trie");
    free(path);
    return status == MF_OK ? describe(t, err) : status;
}

mf_status mfi_vocab_trie_open(mfi_vocab_trie **trie, const mfi_vocab_pieces *pieces, mf_error *err)
{
    if (pieces->n > MFI_MAX_VOCAB)
        return mfi_fail(err, MF_ERR_LIMIT, "a vocabulary of %u tokens", pieces->n);
    mfi_vocab_trie *t = calloc(1, sizeof *t);
    entry *entries = malloc((pieces->n ? pieces->n : 1) * sizeof *entries);
    if (!t || !entries) {
        free(t);
        free(entries);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the vocabulary's trie");
    }
    uint32_t n = 0;
    t->n_vocab = pieces->n;
    for (uint32_t id = 0; id < pieces->n; id++) {
        size_t len = 0;
        const char *bytes = pieces->piece(pieces->ctx, id, &len);
        if (len > 0 && len <= MFI_MAX_TOKEN_BYTES)
            entries[n++] = (entry){bytes, (uint32_t)len, (int32_t)id};
    }
    qsort(entries, n, sizeof *entries, by_bytes);
    mf_status status = build(t, entries, n, err);
    free(entries);
    if (status != MF_OK)
        mfi_vocab_trie_close(&t);
    else
        *trie = t;
    return status;
}

void mfi_vocab_trie_close(mfi_vocab_trie **trie)
{
    mfi_vocab_trie *t = *trie;
    if (!t)
        return;
    free(t->nodes);
    free(t->below);
    free(t->ids);
    free(t->lengths);
    free(t);
    *trie = NULL;
}
