/* Least recently used; see policy.h. Owns a doubly linked list of slot numbers, most recent first;
 * called by the store on its thread. Every operation moves one link; a victim costs one step more
 * for each slot at the old end that may not go, and those are few: what is pinned was used just
 * now. */
#include "experts/policy.h"

#include <stdlib.h>

typedef struct lru_link {
    uint32_t prev, next; /* towards more and less recent; a slot outside the list links to itself */
} lru_link;

struct mfi_policy {
    uint32_t n_slots;
    lru_link links[]; /* [n_slots + 1]; the last one is the list's head */
};

static mf_status lru_open(mfi_policy **policy, uint32_t n_slots, uint32_t n_layers,
                          uint32_t n_experts, mf_error *err)
{
    (void)n_layers;
    (void)n_experts;
    mfi_policy *p = malloc(sizeof *p + ((size_t)n_slots + 1) * sizeof *p->links);
    if (!p)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory for %u expert slots", n_slots);
    p->n_slots = n_slots;
    for (uint32_t i = 0; i <= n_slots; i++)
        p->links[i] = (lru_link){i, i};
    *policy = p;
    return MF_OK;
}

static void lru_close(mfi_policy **policy)
{
    free(*policy);
    *policy = NULL;
}

static void unlink_slot(mfi_policy *p, uint32_t slot)
{
    lru_link *link = &p->links[slot];
    p->links[link->prev].next = link->next;
    p->links[link->next].prev = link->prev;
    *link = (lru_link){slot, slot};
}

static void put_first(mfi_policy *p, uint32_t slot)
{
    uint32_t head = p->n_slots, first = p->links[head].next;
    p->links[slot] = (lru_link){head, first};
    p->links[first].prev = slot;
    p->links[head].next = slot;
}

static void lru_used(mfi_policy *p, uint32_t slot)
{
    MFI_ASSERT(slot < p->n_slots);
    unlink_slot(p, slot);
    put_first(p, slot);
}

static void lru_filled(mfi_policy *p, uint32_t slot, uint32_t key)
{
    (void)key;
    lru_used(p, slot);
}

static void lru_emptied(mfi_policy *p, uint32_t slot)
{
    MFI_ASSERT(slot < p->n_slots);
    unlink_slot(p, slot);
}

static uint32_t lru_victim(mfi_policy *p, bool (*may_go)(void *ctx, uint32_t slot), void *ctx)
{
    for (uint32_t slot = p->links[p->n_slots].prev; slot != p->n_slots;
         slot = p->links[slot].prev) {
        if (may_go(ctx, slot))
            return slot;
    }
    return UINT32_MAX;
}

const mfi_policy_ops mfi_policy_lru = {
    .name = "lru",
    .open = lru_open,
    .close = lru_close,
    .filled = lru_filled,
    .touched = lru_used,
    .emptied = lru_emptied,
    .victim = lru_victim,
};
