/* BPE: the merge table and the merging.
 *
 * The table is filled while a tokenizer is opened and only read afterwards; a call brings its own
 * scratch. Short pieces are merged by scanning an array, long ones with a heap, so that a hostile
 * run of a million letters stays cheap. Both give the same ids. */
#include "text/bpe.h"
#include "base/room.h"

#include <stdlib.h>
#include <string.h>

#define SHORT_SYMBOLS 24 /* up to here scanning beats the heap */
#define NO_RANK       UINT32_MAX
#define NO_NODE       UINT32_MAX

mf_status mfi_bpe_open(mfi_bpe *bpe, size_t n_merges, mf_error *err)
{
    *bpe = (mfi_bpe){0};
    uint64_t n_slots = (uint64_t)n_merges + n_merges / 2 + 8;
    if (n_slots >= UINT32_MAX)
        return mfi_fail(err, MF_ERR_LIMIT, "too many merges");
    bpe->filter_bits = 6;
    while ((uint64_t)1 << bpe->filter_bits < (uint64_t)n_merges * 8)
        bpe->filter_bits++;
    bpe->slots = malloc(n_slots * sizeof *bpe->slots);
    bpe->filter = calloc((size_t)1 << (bpe->filter_bits - 6), sizeof *bpe->filter);
    if (!bpe->slots || !bpe->filter) {
        mfi_bpe_close(bpe);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for %zu merges", n_merges);
    }
    memset(bpe->slots, 0xff, n_slots * sizeof *bpe->slots);
    bpe->n_slots = (uint32_t)n_slots;
    return MF_OK;
}

void mfi_bpe_close(mfi_bpe *bpe)
{
    free(bpe->slots);
    free(bpe->filter);
    *bpe = (mfi_bpe){0};
}

uint64_t mfi_bpe_bytes(const mfi_bpe *bpe)
{
    uint64_t filter = bpe->filter ? (uint64_t)1 << (bpe->filter_bits - 3) : 0;
    return bpe->n_slots * sizeof *bpe->slots + filter;
}

static inline uint64_t hash_of(uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;
    h ^= h >> 32;
    return h * 0xd6e8feb86659fd93u;
}

static inline uint32_t home_of(const mfi_bpe *bpe, uint64_t hash)
{
    return (uint32_t)((hash >> 32) * bpe->n_slots >> 32);
}

static inline uint64_t filter_bit(const mfi_bpe *bpe, uint64_t hash)
{
    return hash & (((uint64_t)1 << bpe->filter_bits) - 1);
}

static inline bool maybe(const mfi_bpe *bpe, uint64_t hash)
{
    uint64_t bit = filter_bit(bpe, hash);
    return bpe->filter[bit >> 6] >> (bit & 63) & 1;
}

/* The slot of a pair, or the empty one where it belongs. */
static inline mfi_merge *find_slot(const mfi_bpe *bpe, uint64_t hash, uint32_t left, uint32_t right)
{
    uint32_t i = home_of(bpe, hash);
    while (bpe->slots[i].left != UINT32_MAX &&
           (bpe->slots[i].left != left || bpe->slots[i].right != right))
        i = i + 1 == bpe->n_slots ? 0 : i + 1;
    return &bpe->slots[i];
}

void mfi_bpe_add(mfi_bpe *bpe, uint32_t left, uint32_t right, uint32_t rank, uint32_t id)
{
    uint64_t hash = hash_of(left, right), bit = filter_bit(bpe, hash);
    bpe->filter[bit >> 6] |= (uint64_t)1 << (bit & 63);
    *find_slot(bpe, hash, left, right) = (mfi_merge){left, right, rank, id};
}

/* What a merge makes, and its rank; rank NO_RANK: there is none. */
typedef struct made {
    uint32_t rank, id;
} made;

static inline made merge_of(const mfi_bpe *bpe, uint64_t hash, uint32_t left, uint32_t right)
{
    if (!maybe(bpe, hash))
        return (made){NO_RANK, 0};
    const mfi_merge *m = find_slot(bpe, hash, left, right);
    return m->left == left ? (made){m->rank, m->id} : (made){NO_RANK, 0};
}

/* The hash of a pair; where its merge would be is on the way from memory, so that several take
 * hardly longer than one. */
static inline uint64_t ask(const mfi_bpe *bpe, uint32_t left, uint32_t right)
{
    uint64_t hash = hash_of(left, right);
    if (maybe(bpe, hash))
        __builtin_prefetch(&bpe->slots[home_of(bpe, hash)]);
    return hash;
}

static bool ids_reserve(mfi_ids *ids, size_t more)
{
    if (ids->cap - ids->n >= more)
        return true;
    size_t cap = ids->cap ? ids->cap : 64;
    while (cap - ids->n < more) {
        if (cap > SIZE_MAX / 2 / sizeof *ids->data)
            return false;
        cap *= 2;
    }
    int32_t *data = realloc(ids->data, cap * sizeof *data);
    if (!data)
        return false;
    ids->data = data;
    ids->cap = cap;
    return true;
}

bool mfi_ids_push(mfi_ids *ids, int32_t id)
{
    if (!ids_reserve(ids, 1))
        return false;
    ids->data[ids->n++] = id;
    return true;
}

/* ---- few symbols ---- */

/* id: [n <= SHORT_SYMBOLS], overwritten. */
static mf_status merge_few(const mfi_bpe *bpe, uint32_t *id, size_t n, mfi_ids *ids, mf_error *err)
{
    made next[SHORT_SYMBOLS]; /* next[i]: of i and i + 1 */
    uint64_t hash[SHORT_SYMBOLS];
    for (size_t i = 0; i + 1 < n; i++)
        hash[i] = ask(bpe, id[i], id[i + 1]);
    for (size_t i = 0; i + 1 < n; i++)
        next[i] = merge_of(bpe, hash[i], id[i], id[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (next[i].rank < next[best].rank)
                best = i;
        if (next[best].rank == NO_RANK)
            break;
        id[best] = next[best].id;
        n--;
        for (size_t i = best + 1; i < n; i++) {
            id[i] = id[i + 1];
            next[i - 1] = next[i];
        }
        if (best + 1 < n)
            hash[best] = ask(bpe, id[best], id[best + 1]);
        if (best > 0)
            hash[best - 1] = ask(bpe, id[best - 1], id[best]);
        if (best + 1 < n)
            next[best] = merge_of(bpe, hash[best], id[best], id[best + 1]);
        if (best > 0)
            next[best - 1] = merge_of(bpe, hash[best - 1], id[best - 1], id[best]);
    }
    if (!ids_reserve(ids, n))
        return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory while encoding");
    for (size_t i = 0; i < n; i++)
        ids->data[ids->n++] = (int32_t)id[i];
    return MF_OK;
}

/* ---- many symbols ---- */

static bool heap_push(mfi_bpe_scratch *s, uint64_t item)
{
    if (!MFI_ROOM(s->heap, s->n_heap, s->heap_cap, 256))
        return false;
    size_t i = s->n_heap++;
    while (i && s->heap[(i - 1) / 2] > item) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = item;
    return true;
}

static uint64_t heap_pop(mfi_bpe_scratch *s)
{
    uint64_t top = s->heap[0], item = s->heap[--s->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= s->n_heap)
            break;
        if (child + 1 < s->n_heap && s->heap[child + 1] < s->heap[child])
            child++;
        if (s->heap[child] >= item)
            break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = item;
    return top;
}

/* Ranks node i with its next one and queues the merge if there is one. */
static bool queue(const mfi_bpe *bpe, mfi_bpe_scratch *s, uint32_t i)
{
    mfi_bpe_node *node = &s->nodes[i];
    made next = {NO_RANK, 0};
    if (node->next != NO_NODE) {
        uint32_t right = s->nodes[node->next].id;
        next = merge_of(bpe, hash_of(node->id, right), node->id, right);
    }
    node->rank = next.rank;
    node->made = next.id;
    return node->rank == NO_RANK || heap_push(s, (uint64_t)node->rank << 32 | i);
}

static bool merge_all(const mfi_bpe *bpe, mfi_bpe_scratch *s, uint32_t n)
{
    s->n_heap = 0;
    for (uint32_t i = 0; i < n; i++)
        if (!queue(bpe, s, i))
            return false;
    while (s->n_heap) {
        uint64_t top = heap_pop(s);
        uint32_t i = (uint32_t)top;
        mfi_bpe_node *node = &s->nodes[i];
        if (node->rank != (uint32_t)(top >> 32)) /* merged meanwhile; dead nodes have NO_RANK */
            continue;
        mfi_bpe_node *right = &s->nodes[node->next];
        node->id = node->made;
        right->rank = NO_RANK;
        node->next = right->next;
        if (node->next != NO_NODE)
            s->nodes[node->next].prev = i;
        if (!queue(bpe, s, i) || (node->prev != NO_NODE && !queue(bpe, s, node->prev)))
            return false;
    }
    return true;
}

static mf_status merge_many(const mfi_bpe *bpe, mfi_bpe_scratch *s, const uint32_t *symbols,
                            size_t n, mfi_ids *ids, mf_error *err)
{
    if (s->node_cap < n) {
        free(s->nodes);
        s->nodes = malloc(n * sizeof *s->nodes);
        s->node_cap = s->nodes ? n : 0;
        if (!s->nodes)
            return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory while encoding");
    }
    for (uint32_t i = 0; i < n; i++)
        s->nodes[i] = (mfi_bpe_node){.id = symbols[i], .prev = i - 1, .next = i + 1};
    s->nodes[n - 1].next = NO_NODE; /* the first one's prev is NO_NODE by wrapping */
    if (!merge_all(bpe, s, (uint32_t)n))
        return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory while encoding");
    for (uint32_t i = 0; i != NO_NODE; i = s->nodes[i].next)
        if (!mfi_ids_push(ids, (int32_t)s->nodes[i].id))
            return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory while encoding");
    return MF_OK;
}

mf_status mfi_bpe_merge(const mfi_bpe *bpe, mfi_bpe_scratch *scratch, uint32_t *symbols, size_t n,
                        mfi_ids *ids, mf_error *err)
{
    MFI_ASSERT(n < (size_t)1 << 31);
    if (n <= SHORT_SYMBOLS)
        return merge_few(bpe, symbols, n, ids, err);
    return merge_many(bpe, scratch, symbols, n, ids, err);
}

uint32_t *mfi_bpe_symbols(mfi_bpe_scratch *scratch, size_t n)
{
    if (scratch->symbol_cap < n) {
        free(scratch->symbols);
        scratch->symbols = malloc(n * sizeof *scratch->symbols);
        scratch->symbol_cap = scratch->symbols ? n : 0;
    }
    return scratch->symbols;
}

mf_status mfi_bpe_encode(const mfi_bpe *bpe, mfi_bpe_scratch *scratch, const char *piece,
                         size_t len, mfi_ids *ids, mf_error *err)
{
    uint32_t few[SHORT_SYMBOLS], *symbols = few;
    size_t n = 0;
    if (len > SHORT_SYMBOLS) {
        symbols = mfi_bpe_symbols(scratch, len);
        if (!symbols)
            return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory while encoding");
    }
    for (size_t i = 0; i < len; i++) {
        int32_t first = bpe->byte_id[(unsigned char)piece[i]];
        if (first >= 0)
            symbols[n++] = (uint32_t)first;
    }
    return mfi_bpe_merge(bpe, scratch, symbols, n, ids, err);
}

void mfi_bpe_scratch_free(mfi_bpe_scratch *scratch)
{
    free(scratch->symbols);
    free(scratch->nodes);
    free(scratch->heap);
    *scratch = (mfi_bpe_scratch){0};
}
