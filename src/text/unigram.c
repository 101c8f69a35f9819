/* Unigram: a trie of the entries, and the best path through a piece.
 *
 * The trie is filled while a tokenizer is opened and only read afterwards; a call brings its own
 * scratch. The path is SentencePiece's: forward over the characters, at each the best score of all
 * entries that end there; of equal ones the first found stays. Scores are doubles as in Hugging
 * Face's tokenizers, or what is kept of them is rounded as in SentencePiece. */
#include "text/unigram.h"
#include "base/limits.h"
#include "base/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define UNK_PENALTY 10.0
#define NO_START    UINT32_MAX

typedef struct mfi_unigram_best {
    double score;
    uint32_t start; /* of the entry that ends here; NO_START: nothing does */
    int32_t id;     /* -1: unknown */
} mfi_unigram_best;

/* ---- the trie ---- */

static mf_status no_memory(mf_error *err)
{
    return mfi_fail(err, MF_ERR_NO_MEMORY, "vocab: out of memory");
}

static bool new_node(mfi_unigram *u)
{
    if (u->n_nodes == u->node_cap) {
        uint32_t cap = u->node_cap ? u->node_cap * 2 : 256;
        if (cap > (uint32_t)1 << 30)
            return false;
        int32_t *ids = realloc(u->ids, cap * sizeof *ids);
        if (!ids)
            return false;
        u->ids = ids;
        double *scores = realloc(u->scores, cap * sizeof *scores);
        if (!scores)
            return false;
        u->scores = scores;
        u->node_cap = cap;
    }
    u->ids[u->n_nodes] = -1;
    u->scores[u->n_nodes++] = 0;
    return true;
}

static inline mfi_unigram_edge *edge_slot(mfi_unigram_edge *edges, size_t n, uint32_t parent,
                                          uint32_t byte)
{
    uint64_t h = ((uint64_t)parent << 8 | byte) * 0x9e3779b97f4a7c15u;
    for (size_t i = (size_t)(h >> 20) & (n - 1);; i = (i + 1) & (n - 1))
        if (!edges[i].child || (edges[i].parent == parent && edges[i].byte == byte))
            return &edges[i];
}

static bool grow_edges(mfi_unigram *u)
{
    size_t n = u->n_edges ? u->n_edges * 2 : 1024;
    mfi_unigram_edge *edges = calloc(n, sizeof *edges);
    if (!edges)
        return false;
    for (size_t i = 0; i < u->n_edges; i++)
        if (u->edges[i].child)
            *edge_slot(edges, n, u->edges[i].parent, u->edges[i].byte) = u->edges[i];
    free(u->edges);
    u->edges = edges;
    u->n_edges = n;
    return true;
}

mf_status mfi_unigram_open(mfi_unigram *unigram, mf_error *err)
{
    *unigram = (mfi_unigram){.fuse_unk = true, .min_score = INFINITY};
    if (new_node(unigram) && grow_edges(unigram))
        return MF_OK;
    mfi_unigram_close(unigram);
    return no_memory(err);
}

mf_status mfi_unigram_add(mfi_unigram *unigram, const char *text, size_t len, int32_t id,
                          double score, mf_error *err)
{
    uint32_t node = 0;
    unigram->min_score = MFI_MIN(unigram->min_score, score);
    for (size_t i = 0; i < len; i++) {
        if (unigram->n_used >= unigram->n_edges / 2 && !grow_edges(unigram))
            return no_memory(err);
        uint32_t byte = (unsigned char)text[i];
        mfi_unigram_edge *edge = edge_slot(unigram->edges, unigram->n_edges, node, byte);
        if (!edge->child) {
            if (!new_node(unigram))
                return no_memory(err);
            *edge = (mfi_unigram_edge){node, unigram->n_nodes - 1, byte};
            unigram->n_used++;
        }
        node = edge->child;
    }
    if (!node)
        return MF_OK;
    unigram->ids[node] = id;
    unigram->scores[node] = score;
    return MF_OK;
}

void mfi_unigram_close(mfi_unigram *unigram)
{
    free(unigram->edges);
    free(unigram->ids);
    free(unigram->scores);
    *unigram = (mfi_unigram){0};
}

uint64_t mfi_unigram_bytes(const mfi_unigram *unigram)
{
    return unigram->n_edges * sizeof *unigram->edges +
           (uint64_t)unigram->node_cap * (sizeof *unigram->ids + sizeof *unigram->scores);
}

/* ---- encoding ---- */

static inline void offer(mfi_unigram_best *best, double score, bool single, size_t start,
                         int32_t id)
{
    if (single)
        score = (float)score;
    if (best->start == NO_START || score > best->score)
        *best = (mfi_unigram_best){score, (uint32_t)start, id};
}

/* Fills best[1..len]. */
static void find_path(const mfi_unigram *u, int32_t unk, const char *piece, size_t len,
                      mfi_unigram_best *best)
{
    double unk_score = u->min_score - UNK_PENALTY;
    if (u->single)
        unk_score = (float)unk_score;
    for (size_t i = 0; i <= len; i++)
        best[i] = (mfi_unigram_best){0, NO_START, -1};
    size_t step;
    for (size_t start = 0; start < len; start += step) {
        uint32_t cp, node = 0;
        double here = best[start].score;
        bool whole = false; /* the character alone is an entry */
        step = mfi_utf8_decode(piece + start, piece + len, &cp);
        for (size_t i = start; i < len; i++) {
            node = edge_slot(u->edges, u->n_edges, node, (unsigned char)piece[i])->child;
            if (!node)
                break;
            if (u->ids[node] < 0)
                continue;
            offer(&best[i + 1], u->scores[node] + here, u->single, start,
                  u->ids[node] == unk ? -1 : u->ids[node]);
            whole |= i + 1 == start + step;
        }
        if (!whole)
            offer(&best[start + step], unk_score + here, u->single, start, -1);
    }
}

/* What no entry covers. */
static mf_status put_unknown(const mfi_symbols *symbols, const mfi_vocab *vocab, const char *text,
                             size_t len, mfi_ids *ids, mf_error *err)
{
    bool failed = false;
    int32_t id = mfi_vocab_find(vocab, text, len, 0); /* fused, it may be one after all */
    if (id < 0 && symbols->byte_fallback && mfi_symbols_put_bytes(symbols, text, len, ids, &failed))
        return failed ? mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory while encoding") : MF_OK;
    if (id < 0)
        id = symbols->unk;
    if (id < 0)
        return mfi_fail(err, MF_ERR_FORMAT,
                        "text needs the unknown token, which the vocabulary lacks");
    if (!mfi_ids_push(ids, id))
        return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory while encoding");
    return MF_OK;
}

mf_status mfi_unigram_encode(const mfi_unigram *unigram, const mfi_symbols *symbols,
                             const mfi_vocab *vocab, mfi_unigram_scratch *scratch,
                             const char *piece, size_t len, mfi_ids *ids, mf_error *err)
{
    MFI_ASSERT(len < NO_START);
    if (scratch->cap < len + 1) {
        free(scratch->best);
        scratch->best = malloc((len + 1) * sizeof *scratch->best);
        scratch->cap = scratch->best ? len + 1 : 0;
        if (!scratch->best)
            return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory while encoding");
    }
    mfi_unigram_best *best = scratch->best;
    find_path(unigram, symbols->unk, piece, len, best);
    scratch->spans.n = 0;
    bool ok = true;
    for (size_t end = len; end && ok; end = best[end].start)
        ok = mfi_ids_push(&scratch->spans, (int32_t)end);
    if (!ok)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory while encoding");
    size_t start = 0;
    for (size_t k = scratch->spans.n; k--;) {
        size_t end = (size_t)scratch->spans.data[k];
        if (best[end].id >= 0) {
            if (!mfi_ids_push(ids, best[end].id))
                return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory while encoding");
        } else {
            while (unigram->fuse_unk && k && best[scratch->spans.data[k - 1]].id < 0)
                end = (size_t)scratch->spans.data[--k];
            MFI_TRY(put_unknown(symbols, vocab, piece + start, end - start, ids, err));
        }
        start = end;
    }
    return MF_OK;
}

void mfi_unigram_scratch_free(mfi_unigram_scratch *scratch)
{
    free(scratch->best);
    free(scratch->spans.data);
    *scratch = (mfi_unigram_scratch){0};
}
