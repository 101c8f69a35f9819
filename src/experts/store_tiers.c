/* What a tier above asks of the store below it, so that an expert needn't be in both: giving up
 * what is above, taking in what leaves it. Called on the store's thread; allocates nothing. Apart
 * from the store's other work since it begins no reads. */
#include "experts/store_int.h"

static uint32_t slot_of(const mfi_store *store, uint32_t layer, uint32_t expert)
{
    const mfi_expert_table *t = &store->config.table;
    MFI_ASSERT(layer < t->n_layers && expert < t->n_experts);
    return store->slot_of[layer * t->n_experts + expert];
}

uint32_t mfi_store_n_experts(const mfi_store *store)
{
    return store->config.table.n_experts;
}

void mfi_store_give_up(mfi_store *store, uint32_t layer, uint32_t expert)
{
    uint32_t s = slot_of(store, layer, expert);
    if (s == NONE)
        return;
    expert_slot *slot = &store->slots[s];
    if (slot->state != SLOT_READY || slot->n_pins > 0 || slot->hint || slot->given)
        return;
    store->config.policy->emptied(store->policy, s);
    slot->given = true;
    if (!slot->listed)
        store->given[store->n_given++] = s;
    slot->listed = true;
}

void mfi_store_take_back(mfi_store *store, uint32_t layer, uint32_t expert)
{
    uint32_t s = slot_of(store, layer, expert);
    if (s == NONE || !store->slots[s].given)
        return;
    store->slots[s].given = false;
    store->config.policy->filled(store->policy, s, store->slots[s].key);
}

bool mfi_store_adopt(mfi_store *store, uint32_t layer, uint32_t expert, mfi_expert_ref *ref,
                     void **data)
{
    MFI_ASSERT(slot_of(store, layer, expert) == NONE);
    if (store->n_refs == store->config.n_slots || store->n_refs == store->config.n_refs_max)
        return false;
    uint32_t s = mfi_store_take_slot(store, true);
    if (s == NONE)
        return false;
    expert_slot *slot = &store->slots[s];
    uint32_t key = layer * store->config.table.n_experts + expert;
    mfi_store_set_key(store, s, key);
    slot->state = SLOT_LOADING;
    slot->touched = true;
    slot->n_pins = 1;
    store->n_refs++;
    store->stats.adopted++;
    store->config.policy->filled(store->policy, s, key);
    *ref = (mfi_expert_ref){s, slot->generation, (uint16_t)layer, (uint16_t)expert, false};
    *data = (char *)store->config.slots + (uint64_t)s * store->config.slot_stride;
    return true;
}

void mfi_store_adopted(mfi_store *store, mfi_expert_ref *ref, bool good)
{
    uint32_t s = ref->slot;
    MFI_ASSERT(store->slots[s].generation == ref->generation);
    if (good)
        mfi_store_landed(store, s);
    else
        mfi_store_reload(store, s);
    mfi_store_release(store, ref, 1);
}
