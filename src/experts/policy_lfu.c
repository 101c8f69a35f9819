/* Least frequently used; see policy.h. Owns a count for every expert and a heap of the filled
 * slots, the next victim on top; called by the store on its thread. A slot's score is its expert's
 * count, then the time of its last use, so no two are equal and the order is one. */
#include <stdlib.h>
#include <string.h>

#include "experts/policy.h"

#define NONE      UINT32_MAX
#define COUNT_MAX 255
/* Uses after which all counts are halved: a multiple of the slots, so that a cache forgets in the
 * time in which it could have been filled so often. */
#define AGE_SLOTS 8

struct mfi_policy {
    uint32_t n_slots, n_keys, n_filled;
    uint64_t time;
    uint64_t n_uses;  /* since the counts were halved */
    uint8_t *counts;  /* [n_keys] */
    uint32_t *key;    /* [n_slots] of the expert there */
    uint64_t *used;   /* [n_slots] when */
    uint32_t *heap;   /* [n_slots] slots, n_filled of them */
    uint32_t *place;  /* [n_slots] in the heap, or NONE */
    uint32_t *passed; /* [n_slots] slots that may not go, while a victim is looked for */
};

static mf_status lfu_open(mfi_policy **policy, uint32_t n_slots, uint32_t n_layers,
                          uint32_t n_experts, mf_error *err)
{
    const uint32_t n_keys = n_layers * n_experts;
    mfi_policy *p = calloc(1, sizeof *p);
    if (p) {
        p->n_slots = n_slots;
        p->n_keys = n_keys;
        p->counts = calloc(n_keys, sizeof *p->counts);
        p->key = calloc(n_slots, sizeof *p->key);
        p->used = calloc(n_slots, sizeof *p->used);
        p->heap = calloc(n_slots, sizeof *p->heap);
        p->place = calloc(n_slots, sizeof *p->place);
        p->passed = calloc(n_slots, sizeof *p->passed);
    }
    if (!p || !p->counts || !p->key || !p->used || !p->heap || !p->place || !p->passed) {
        mfi_policy_lfu.close(&p);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory for %u expert slots", n_slots);
    }
    for (uint32_t i = 0; i < n_slots; i++)
        p->place[i] = NONE;
    *policy = p;
    return MF_OK;
}

static void lfu_close(mfi_policy **policy)
{
    mfi_policy *p = *policy;
    if (!p)
        return;
    free(p->counts);
    free(p->key);
    free(p->used);
    free(p->heap);
    free(p->place);
    free(p->passed);
    free(p);
    *policy = NULL;
}

/* ---- the heap ---- */

static bool goes_before(const mfi_policy *p, uint32_t a, uint32_t b)
{
    uint8_t count_a = p->counts[p->key[a]], count_b = p->counts[p->key[b]];
    return count_a != count_b ? count_a < count_b : p->used[a] < p->used[b];
}

static void put(mfi_policy *p, uint32_t at, uint32_t slot)
{
    p->heap[at] = slot;
    p->place[slot] = at;
}

static void sift_up(mfi_policy *p, uint32_t at)
{
    uint32_t slot = p->heap[at];
    for (; at > 0 && goes_before(p, slot, p->heap[(at - 1) / 2]); at = (at - 1) / 2)
        put(p, at, p->heap[(at - 1) / 2]);
    put(p, at, slot);
}

static void sift_down(mfi_policy *p, uint32_t at)
{
    uint32_t slot = p->heap[at];
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= p->n_filled)
            break;
        if (child + 1 < p->n_filled && goes_before(p, p->heap[child + 1], p->heap[child]))
            child++;
        if (!goes_before(p, p->heap[child], slot))
            break;
        put(p, at, p->heap[child]);
        at = child;
    }
    put(p, at, slot);
}

static void add(mfi_policy *p, uint32_t slot)
{
    put(p, p->n_filled++, slot);
    sift_up(p, p->n_filled - 1);
}

static void take_out(mfi_policy *p, uint32_t slot)
{
    uint32_t at = p->place[slot], last = p->heap[--p->n_filled];
    p->place[slot] = NONE;
    if (last == slot)
        return;
    put(p, at, last);
    sift_up(p, at);
    sift_down(p, p->place[last]);
}

/* ---- uses ---- */

static void age(mfi_policy *p)
{
    for (uint32_t i = 0; i < p->n_keys; i++)
        p->counts[i] /= 2;
    for (uint32_t i = p->n_filled / 2; i-- > 0;)
        sift_down(p, i);
    p->n_uses = 0;
}

static void count_use(mfi_policy *p, uint32_t slot)
{
    uint8_t *count = &p->counts[p->key[slot]];
    *count += *count < COUNT_MAX;
    p->used[slot] = ++p->time;
    p->n_uses++;
}

static void lfu_filled(mfi_policy *p, uint32_t slot, uint32_t key)
{
    MFI_ASSERT(slot < p->n_slots && key < p->n_keys);
    if (p->place[slot] != NONE)
        take_out(p, slot);
    p->key[slot] = key;
    count_use(p, slot);
    add(p, slot);
    if (p->n_uses >= (uint64_t)AGE_SLOTS * p->n_slots)
        age(p);
}

static void lfu_touched(mfi_policy *p, uint32_t slot)
{
    MFI_ASSERT(slot < p->n_slots && p->place[slot] != NONE);
    count_use(p, slot);
    sift_down(p, p->place[slot]);
    if (p->n_uses >= (uint64_t)AGE_SLOTS * p->n_slots)
        age(p);
}

static void lfu_emptied(mfi_policy *p, uint32_t slot)
{
    MFI_ASSERT(slot < p->n_slots);
    if (p->place[slot] != NONE)
        take_out(p, slot);
}

static uint32_t lfu_victim(mfi_policy *p, bool (*may_go)(void *ctx, uint32_t slot), void *ctx)
{
    uint32_t n_passed = 0, victim = NONE;
    while (p->n_filled > 0 && victim == NONE) {
        uint32_t slot = p->heap[0];
        if (may_go(ctx, slot)) {
            victim = slot;
        } else {
            take_out(p, slot);
            p->passed[n_passed++] = slot;
        }
    }
    while (n_passed > 0)
        add(p, p->passed[--n_passed]);
    return victim;
}

const mfi_policy_ops mfi_policy_lfu = {
    .name = "lfu",
    .open = lfu_open,
    .close = lfu_close,
    .filled = lfu_filled,
    .touched = lfu_touched,
    .emptied = lfu_emptied,
    .victim = lfu_victim,
};

const mfi_policy_ops *mfi_policy_named(const char *name)
{
    static const mfi_policy_ops *const all[] = {&mfi_policy_lru, &mfi_policy_lfu, &mfi_policy_odds};
    for (size_t i = 0; i < MFI_ARRAY_LEN(all); i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    return NULL;
}
