/* Replay of traces; see replay.h. Pure but for reading the file; any thread. */
#include "experts/replay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/limits.h"
#include "os/file.h"

#define NONE    UINT32_MAX
#define NO_PASS (-1)

/* ---- reading ---- */

static bool get_u32(mfi_json_span object, const char *key, uint32_t least, uint32_t most,
                    uint32_t *out)
{
    int64_t v;
    mfi_json_span span = mfi_json_span_get(object, key);
    if (!span.text || !mfi_json_span_i64(span, &v) || v < (int64_t)least || v > (int64_t)most)
        return false;
    *out = (uint32_t)v;
    return true;
}

static bool read_header(mfi_replay *r, mfi_json_span line)
{
    uint32_t schema;
    int64_t bytes = 0;
    mfi_json_span span = mfi_json_span_get(line, "expert_bytes");
    if (span.text && (!mfi_json_span_i64(span, &bytes) || bytes < 0))
        return false;
    r->expert_bytes = (uint64_t)bytes;
    return get_u32(line, "schema", 1, 1, &schema) &&
           get_u32(line, "layers", 1, MFI_MAX_LAYERS, &r->n_layers) &&
           get_u32(line, "experts", 1, MFI_MAX_EXPERTS, &r->n_experts) &&
           get_u32(line, "top_k", 1, MFI_MIN(MFI_MAX_TOP_K, r->n_experts), &r->top_k);
}

typedef struct reading {
    mfi_replay *r;
    int64_t pass; /* of the line before; NO_PASS: it says none */
    uint32_t layer;
    size_t n_tokens[MFI_MAX_LAYERS];
} reading;

/* A token's choices, which must be distinct. */
static bool read_ids(const mfi_replay *r, mfi_json_span span, uint32_t *ids, uint32_t *n)
{
    mfi_json_span id;
    if (!span.text || mfi_json_span_type(span) != MFI_JSON_ARRAY)
        return false;
    mfi_json_iter it = mfi_json_span_iter(span);
    for (*n = 0; mfi_json_array_next(&it, &id); (*n)++) {
        int64_t v;
        if (*n == r->top_k || !mfi_json_span_i64(id, &v) || v < 0 || v >= r->n_experts)
            return false;
        ids[*n] = (uint32_t)v;
        for (uint32_t i = 0; i < *n; i++)
            if (ids[i] == ids[*n])
                return false;
    }
    return *n > 0;
}

/* Adds a key to the step that ends the list, once; in the order in which the forward pass asks for
 * experts, which is that of their numbers. */
static void add_key(mfi_replay *r, uint32_t key)
{
    size_t begin = r->n_steps > 1 ? r->step_end[r->n_steps - 2] : 0, at = r->n_keys;
    while (at > begin && r->keys[at - 1] >= key)
        at--;
    if (at < r->n_keys && r->keys[at] == key)
        return;
    memmove(r->keys + at + 1, r->keys + at, (r->n_keys - at) * sizeof *r->keys);
    r->keys[at] = key;
    r->step_end[r->n_steps - 1] = ++r->n_keys;
}

/* A line is a step of its own, or belongs to that of the line before. */
static bool read_choice(reading *in, mfi_json_span line)
{
    mfi_replay *r = in->r;
    uint32_t layer, n, ids[MFI_MAX_TOP_K];
    int64_t pass = NO_PASS;
    mfi_json_span span = mfi_json_span_get(line, "pass");
    if (span.text && (!mfi_json_span_i64(span, &pass) || pass < 0))
        return false;
    if (!get_u32(line, "layer", 0, r->n_layers - 1, &layer) ||
        !read_ids(r, mfi_json_span_get(line, "ids"), ids, &n))
        return false;
    if (r->n_steps == 0 || pass == NO_PASS || pass != in->pass || layer != in->layer)
        r->step_end[r->n_steps++] = r->n_keys;
    in->pass = pass;
    in->layer = layer;
    for (uint32_t i = 0; i < n; i++)
        add_key(r, layer * r->n_experts + ids[i]);
    in->n_tokens[layer]++;
    r->n_tokens = MFI_MAX(r->n_tokens, in->n_tokens[layer]);
    return true;
}

static mf_status read_lines(mfi_replay *r, const char *text, size_t len, const char *what,
                            mf_error *err)
{
    size_t number = 0;
    reading in = {.r = r};
    for (const char *line = text, *end = text + len, *next; line < end; line = next) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        if (!stop)
            break; /* cut off while it was written */
        next = stop + 1;
        number++;
        char place[64];
        snprintf(place, sizeof place, "line %zu", number);
        mf_error inner = {0};
        bool good = mfi_json_scan(line, (size_t)(stop - line), place, &inner) == MF_OK;
        if (good) {
            mfi_json_span root = mfi_json_root(line, (size_t)(stop - line));
            good = mfi_json_span_type(root) == MFI_JSON_OBJECT &&
                   (number == 1 ? read_header(r, root) : read_choice(&in, root));
        }
        if (!good)
            return mfi_fail(err, MF_ERR_FORMAT, "%s: line %zu is no line of a trace%s%s", what,
                            number, inner.message[0] ? ": " : "", inner.message);
    }
    if (r->n_steps == 0)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: a trace without a choice", what);
    return MF_OK;
}

void mfi_replay_count_tokens(mfi_replay *r)
{
    size_t n[MFI_MAX_LAYERS] = {0}, begin = 0;
    for (size_t i = 0; i < r->n_steps; i++) {
        size_t *of_layer = &n[r->keys[begin] / r->n_experts];
        begin = r->step_end[i];
        if (++*of_layer > r->n_tokens)
            r->n_tokens = *of_layer;
    }
}

mf_status mfi_replay_parse(mfi_replay *r, const char *text, size_t len, const char *what,
                           mf_error *err)
{
    *r = (mfi_replay){0};
    size_t n_lines = 0, n_commas = 0;
    for (size_t i = 0; i < len; i++) {
        n_lines += text[i] == '\n';
        n_commas += text[i] == ',';
    }
    /* Every key follows a bracket or a comma; a line that holds more than top_k is refused after
     * top_k of them. */
    r->keys = malloc((n_commas + n_lines + MFI_MAX_TOP_K) * sizeof *r->keys);
    r->step_end = malloc((n_lines + 1) * sizeof *r->step_end);
    mf_status status = MF_OK;
    if (!r->keys || !r->step_end)
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "%s: no memory for %zu choices", what, n_lines);
    else
        status = read_lines(r, text, len, what, err);
    if (status != MF_OK)
        mfi_replay_close(r);
    return status;
}

mf_status mfi_replay_open(mfi_replay *r, const char *path, mf_error *err)
{
    char *text;
    size_t len;
    *r = (mfi_replay){0};
    MFI_TRY(mfi_file_read_all(path, MFI_MAX_TRACE_BYTES, &text, &len, err));
    mf_status status = mfi_replay_parse(r, text, len, path, err);
    free(text);
    return status;
}

void mfi_replay_close(mfi_replay *r)
{
    free(r->keys);
    free(r->step_end);
    *r = (mfi_replay){0};
}

/* ---- a policy ---- */

typedef struct cache {
    uint32_t *slot_of; /* [n_layers * n_experts] */
    uint32_t *key_of;  /* [n_slots] */
    size_t *wanted_in; /* [n_slots] the last round that wants it, counted from 1 */
    uint32_t *order;   /* [n_experts] keys of the step, cached ones first */
    uint16_t *experts; /* [n_experts] of the step */
    uint32_t n_slots, n_filled;
    size_t round;
} cache;

static bool may_go(void *ctx, uint32_t slot)
{
    const cache *c = ctx;
    return c->wanted_in[slot] != c->round;
}

/* Experts that are wanted at once: hits are pinned first. Returns how many there are. */
static uint32_t run_round(cache *c, const mfi_policy_ops *ops, mfi_policy *policy,
                          const uint32_t *keys, uint32_t n)
{
    uint32_t hits = 0;
    c->round++;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t slot = c->slot_of[keys[i]];
        if (slot == NONE)
            continue;
        c->wanted_in[slot] = c->round;
        ops->touched(policy, slot);
        hits++;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (c->slot_of[keys[i]] != NONE)
            continue;
        uint32_t slot = c->n_filled < c->n_slots ? c->n_filled++ : ops->victim(policy, may_go, c);
        MFI_ASSERT(slot < c->n_slots);
        if (c->key_of[slot] != NONE)
            c->slot_of[c->key_of[slot]] = NONE;
        c->key_of[slot] = keys[i];
        c->slot_of[keys[i]] = slot;
        c->wanted_in[slot] = c->round;
        ops->filled(policy, slot, keys[i]);
    }
    return hits;
}

/* As the store has it: cached experts first, and no more at once than the forward pass holds. */
static uint64_t run_steps(const mfi_replay *r, const mfi_policy_ops *ops, mfi_policy *policy,
                          cache *c)
{
    uint64_t hits = 0;
    size_t begin = 0;
    uint32_t most = MFI_MIN(c->n_slots, MFI_MAX_HELD);
    for (size_t i = 0; i < r->n_steps; begin = r->step_end[i++]) {
        const uint32_t *keys = r->keys + begin;
        uint32_t n = (uint32_t)(r->step_end[i] - begin), at = 0;
        for (uint32_t cached = 2; cached-- > 0;)
            for (uint32_t k = 0; k < n; k++)
                if ((c->slot_of[keys[k]] != NONE) == (cached == 1))
                    c->order[at++] = keys[k];
        for (uint32_t k = 0; k < n; k++)
            c->experts[k] = (uint16_t)(c->order[k] % r->n_experts);
        if (ops->visit)
            ops->visit(policy, keys[0] / r->n_experts, c->experts, n);
        for (uint32_t k = 0; k < n; k += most)
            hits += run_round(c, ops, policy, c->order + k, MFI_MIN(most, n - k));
    }
    return hits;
}

static void free_cache(cache *c)
{
    free(c->slot_of);
    free(c->key_of);
    free(c->wanted_in);
    free(c->order);
    free(c->experts);
}

mf_status mfi_replay_run(const mfi_replay *r, const mfi_policy_ops *ops, uint32_t n_slots,
                         uint64_t *hits, mf_error *err)
{
    uint32_t n_keys = r->n_layers * r->n_experts;
    if (n_slots < r->top_k)
        return mfi_fail(err, MF_ERR_ARGUMENT, "a cache of %u experts; a token wants %u at once",
                        n_slots, r->top_k);
    n_slots = MFI_MIN(n_slots, n_keys);
    cache c = {.n_slots = n_slots,
               .slot_of = malloc(n_keys * sizeof *c.slot_of),
               .key_of = malloc(n_slots * sizeof *c.key_of),
               .wanted_in = calloc(n_slots, sizeof *c.wanted_in),
               .order = malloc(r->n_experts * sizeof *c.order),
               .experts = malloc(r->n_experts * sizeof *c.experts)};
    mfi_policy *policy = NULL;
    mf_status status = MF_OK;
    if (!c.slot_of || !c.key_of || !c.wanted_in || !c.order || !c.experts)
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a cache of %u experts", n_slots);
    else
        status = ops->open(&policy, n_slots, r->n_layers, r->n_experts, err);
    if (status == MF_OK) {
        memset(c.slot_of, 0xff, n_keys * sizeof *c.slot_of);
        memset(c.key_of, 0xff, n_slots * sizeof *c.key_of);
        *hits = run_steps(r, ops, policy, &c);
        ops->close(&policy);
    }
    free_cache(&c);
    return status;
}

/* ---- the bound ---- */

/* Cached experts in a heap, on top the one that is wanted last; an entry whose expert was wanted
 * again since is stale and passed over. */
typedef struct entry {
    size_t next; /* step that wants it next; SIZE_MAX: none */
    uint32_t key;
} entry;

typedef struct future {
    size_t *next;   /* [n_keys of the trace] the step that wants the same expert next */
    size_t *wanted; /* [experts] of what is cached: when next; 0: not cached */
    entry *heap;    /* [n_keys of the trace] */
    size_t n_heap;
} future;

static void heap_push(future *f, entry e)
{
    size_t at = f->n_heap++;
    for (; at > 0 && f->heap[(at - 1) / 2].next < e.next; at = (at - 1) / 2)
        f->heap[at] = f->heap[(at - 1) / 2];
    f->heap[at] = e;
}

static entry heap_pop(future *f)
{
    entry top = f->heap[0], last = f->heap[--f->n_heap];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= f->n_heap)
            break;
        if (child + 1 < f->n_heap && f->heap[child + 1].next > f->heap[child].next)
            child++;
        if (f->heap[child].next <= last.next)
            break;
        f->heap[at] = f->heap[child];
        at = child;
    }
    f->heap[at] = last;
    return top;
}

static void look_ahead(const mfi_replay *r, future *f)
{
    size_t end = r->n_keys; /* wanted holds each expert's next step, on the way back */
    for (size_t i = 0; i < (size_t)r->n_layers * r->n_experts; i++)
        f->wanted[i] = SIZE_MAX;
    for (size_t i = r->n_steps; i-- > 0;) {
        size_t begin = i ? r->step_end[i - 1] : 0;
        for (size_t k = begin; k < end; k++) {
            f->next[k] = f->wanted[r->keys[k]];
            f->wanted[r->keys[k]] = i + 1;
        }
        end = begin;
    }
    memset(f->wanted, 0, (size_t)r->n_layers * r->n_experts * sizeof *f->wanted);
}

static void evict_last_wanted(future *f, size_t *n_cached, uint32_t n_slots)
{
    while (*n_cached > n_slots) {
        entry e = heap_pop(f);
        if (f->wanted[e.key] != e.next)
            continue;
        f->wanted[e.key] = 0;
        (*n_cached)--;
    }
}

/* A step's own experts can't go for each other: their next use is set after it. Of more than there
 * is room for, any may be left in the end. */
static uint64_t run_future(const mfi_replay *r, uint32_t n_slots, future *f)
{
    uint64_t hits = 0;
    size_t begin = 0, n_cached = 0;
    for (size_t i = 0; i < r->n_steps; i++) {
        size_t end = r->step_end[i];
        for (size_t k = begin; k < end; k++) {
            hits += f->wanted[r->keys[k]] != 0;
            n_cached += f->wanted[r->keys[k]] == 0;
            f->wanted[r->keys[k]] = i + 1; /* makes its entry stale */
        }
        if (end - begin <= n_slots)
            evict_last_wanted(f, &n_cached, n_slots);
        for (size_t k = begin; k < end; k++) {
            f->wanted[r->keys[k]] = f->next[k];
            heap_push(f, (entry){f->next[k], r->keys[k]});
        }
        evict_last_wanted(f, &n_cached, n_slots);
        begin = end;
    }
    return hits;
}

mf_status mfi_replay_bound(const mfi_replay *r, uint32_t n_slots, uint64_t *hits, mf_error *err)
{
    if (n_slots < r->top_k)
        return mfi_fail(err, MF_ERR_ARGUMENT, "a cache of %u experts; a token wants %u at once",
                        n_slots, r->top_k);
    future f = {.next = malloc(r->n_keys * sizeof *f.next),
                .wanted = malloc((size_t)r->n_layers * r->n_experts * sizeof *f.wanted),
                .heap = malloc(r->n_keys * sizeof *f.heap)};
    mf_status status = MF_OK;
    if (!f.next || !f.wanted || !f.heap) {
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for %zu choices", r->n_keys);
    } else {
        look_ahead(r, &f);
        *hits = run_future(r, n_slots, &f);
    }
    free(f.next);
    free(f.wanted);
    free(f.heap);
    return status;
}
