/* By the odds of being wanted when the layer comes again, over how far away that is; see policy.h.
 * Called by the store on its thread.
 *
 * The layers are visited one after the other, and what a layer's visit didn't want can't be wanted
 * before its next one. So a slot given to an expert of a layer that was just left earns nothing for
 * a whole round, one given to a layer that comes soon may earn at once; and what counts of an
 * expert's past is not when it was used, but in how many visits of its layer. Least recently used
 * gets both wrong: it gives up first what comes next.
 *
 * Owns what it has seen of every expert (how many visits ago it was wanted, and how often of late:
 * its class), how often experts of each class were wanted at the next visit, and for each layer a
 * list of its cached experts, the least likely first. The odds are learned from the run itself:
 * text that stays with its topic makes recency count, many conversations together make it
 * worthless. A layer's list is sorted when it is visited, so the next victim is the best of the
 * lists' heads. */
#include <stdlib.h>
#include <string.h>

#include "experts/policy.h"

#define NONE      UINT32_MAX
#define N_AGES    12
#define N_HEATS   6
#define N_CLASSES (N_AGES * N_HEATS)
#define AGE_MAX   UINT8_MAX
/* Heat: of 65,535 a 16th more at each visit that wants the expert, a 16th less at each. */
#define HEAT_SHIFT 4
/* Counts are halved when so many visits of each expert were seen: odds follow the run. */
#define MEMORY_VISITS 64
/* What is known of a class before it was seen: so many visits at the mean of all. */
#define PRIOR_VISITS 2.0F
/* Visits that want more than this part of a layer say nothing about which experts it will want. */
#define LEARN_NUM 3
#define LEARN_DEN 4

struct mfi_policy {
    uint32_t n_slots, n_layers, n_experts;
    uint32_t layer;     /* being visited; NONE: none was */
    bool told;          /* all that this visit wants; or it is seen bit by bit */
    uint8_t *age;       /* [n_keys] visits since the last that wanted it */
    uint16_t *heat;     /* [n_keys] */
    uint8_t *class_of;  /* [n_keys] by age and heat */
    uint8_t *was;       /* [n_experts] class before this visit */
    bool *wanted;       /* [n_experts] in this visit */
    uint32_t *key;      /* [n_slots] NONE: empty */
    uint32_t *lists;    /* [n_layers][n_experts] slots, the likeliest last */
    uint32_t *n_listed; /* [n_layers] */
    uint32_t *sorted;   /* [n_experts] a list while it is sorted */
    uint32_t seen[N_CLASSES], came[N_CLASSES]; /* visits of experts of a class, and those wanted */
    uint64_t n_seen, n_came;
    float odds[N_CLASSES];
    uint8_t rank[N_CLASSES]; /* of a class by its odds, the least first */
};

static mf_status odds_open(mfi_policy **policy, uint32_t n_slots, uint32_t n_layers,
                           uint32_t n_experts, mf_error *err)
{
    const size_t n_keys = (size_t)n_layers * n_experts;
    mfi_policy *p = calloc(1, sizeof *p);
    if (p) {
        *p = (mfi_policy){
            .n_slots = n_slots, .n_layers = n_layers, .n_experts = n_experts, .layer = NONE};
        p->age = malloc(n_keys);
        p->heat = calloc(n_keys, sizeof *p->heat);
        p->class_of = malloc(n_keys);
        p->was = calloc(n_experts, sizeof *p->was);
        p->sorted = malloc(n_experts * sizeof *p->sorted);
        p->wanted = calloc(n_experts, sizeof *p->wanted);
        p->key = malloc(n_slots * sizeof *p->key);
        p->lists = malloc(n_keys * sizeof *p->lists);
        p->n_listed = calloc(n_layers, sizeof *p->n_listed);
    }
    if (!p || !p->age || !p->heat || !p->class_of || !p->was || !p->sorted || !p->wanted ||
        !p->key || !p->lists || !p->n_listed) {
        mfi_policy_odds.close(&p);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory for %u expert slots", n_slots);
    }
    memset(p->age, AGE_MAX, n_keys);
    memset(p->class_of, N_CLASSES - N_HEATS, n_keys); /* oldest, coldest */
    memset(p->key, 0xff, n_slots * sizeof *p->key);
    *policy = p;
    return MF_OK;
}

static void odds_close(mfi_policy **policy)
{
    mfi_policy *p = *policy;
    if (!p)
        return;
    free(p->age);
    free(p->heat);
    free(p->class_of);
    free(p->was);
    free(p->sorted);
    free(p->wanted);
    free(p->key);
    free(p->lists);
    free(p->n_listed);
    free(p);
    *policy = NULL;
}

/* ---- what is known of an expert ---- */

static void set_class(mfi_policy *p, uint32_t key)
{
    static const uint8_t age_ends[N_AGES - 1] = {1, 2, 3, 4, 6, 9, 14, 20, 32, 64, AGE_MAX};
    static const uint16_t heat_ends[N_HEATS - 1] = {2048, 5000, 10000, 20000, 36000};
    uint32_t age = 0, heat = 0;
    while (age < N_AGES - 1 && p->age[key] >= age_ends[age])
        age++;
    while (heat < N_HEATS - 1 && p->heat[key] >= heat_ends[heat])
        heat++;
    p->class_of[key] = (uint8_t)(age * N_HEATS + heat);
}

/* Ranks from odds: as many others as have less, or as much and come first. */
static void rank_classes(mfi_policy *p)
{
    uint8_t order[N_CLASSES];
    for (uint32_t c = 0; c < N_CLASSES; c++) {
        uint32_t at = c;
        for (; at > 0 && p->odds[order[at - 1]] > p->odds[c]; at--)
            order[at] = order[at - 1];
        order[at] = (uint8_t)c;
    }
    for (uint32_t i = 0; i < N_CLASSES; i++)
        p->rank[order[i]] = (uint8_t)i;
}

static void learn_odds(mfi_policy *p)
{
    if (p->n_seen > (uint64_t)MEMORY_VISITS * p->n_layers * p->n_experts) {
        p->n_seen = p->n_came = 0;
        for (uint32_t c = 0; c < N_CLASSES; c++) {
            p->n_seen += p->seen[c] /= 2;
            p->n_came += p->came[c] /= 2;
        }
    }
    float mean = p->n_seen ? (float)p->n_came / (float)p->n_seen : 0;
    for (uint32_t c = 0; c < N_CLASSES; c++)
        p->odds[c] = ((float)p->came[c] + mean * PRIOR_VISITS) / ((float)p->seen[c] + PRIOR_VISITS);
    rank_classes(p);
}

static void note_wanted(mfi_policy *p, uint32_t key)
{
    uint32_t e = key % p->n_experts;
    if (p->wanted[e])
        return;
    p->wanted[e] = true;
    p->age[key] = 0;
    p->heat[key] = (uint16_t)(p->heat[key] + (UINT16_MAX >> HEAT_SHIFT));
    set_class(p, key);
}

/* ---- lists ---- */

static uint32_t *list_of(const mfi_policy *p, uint32_t layer)
{
    return p->lists + (size_t)layer * p->n_experts;
}

static uint32_t slot_rank(const mfi_policy *p, uint32_t slot)
{
    return p->rank[p->class_of[p->key[slot]]];
}

/* By rank, otherwise as it was. */
static void sort_list(mfi_policy *p, uint32_t layer)
{
    uint32_t *list = list_of(p, layer), n = p->n_listed[layer], begin[N_CLASSES + 1] = {0};
    for (uint32_t i = 0; i < n; i++)
        begin[slot_rank(p, list[i]) + 1]++;
    for (uint32_t r = 0; r < N_CLASSES; r++)
        begin[r + 1] += begin[r];
    for (uint32_t i = 0; i < n; i++)
        p->sorted[begin[slot_rank(p, list[i])]++] = list[i];
    memcpy(list, p->sorted, n * sizeof *list);
}

static void put_in(mfi_policy *p, uint32_t slot)
{
    uint32_t layer = p->key[slot] / p->n_experts, at = p->n_listed[layer]++;
    uint32_t *list = list_of(p, layer), rank = slot_rank(p, slot);
    for (; at > 0 && slot_rank(p, list[at - 1]) > rank; at--)
        list[at] = list[at - 1];
    list[at] = slot;
}

static void take_out(mfi_policy *p, uint32_t slot)
{
    uint32_t layer = p->key[slot] / p->n_experts, at = 0, n = --p->n_listed[layer];
    uint32_t *list = list_of(p, layer);
    while (list[at] != slot)
        at++;
    memmove(list + at, list + at + 1, (n - at) * sizeof *list);
}

/* ---- visits ---- */

static void learn_visit(mfi_policy *p)
{
    uint32_t n = 0;
    for (uint32_t e = 0; e < p->n_experts; e++)
        n += p->wanted[e];
    if (n * LEARN_DEN > p->n_experts * LEARN_NUM)
        return;
    for (uint32_t e = 0; e < p->n_experts; e++) {
        p->seen[p->was[e]]++;
        p->came[p->was[e]] += p->wanted[e];
    }
    p->n_seen += p->n_experts;
    p->n_came += n;
    learn_odds(p);
}

/* Everything in the layer is a visit older; who is wanted follows. */
static void begin_visit(mfi_policy *p, uint32_t layer, bool told)
{
    if (p->layer != NONE && !p->told)
        learn_visit(p);
    p->layer = layer;
    p->told = told;
    for (uint32_t e = 0; e < p->n_experts; e++) {
        uint32_t key = layer * p->n_experts + e;
        p->was[e] = p->class_of[key];
        p->wanted[e] = false;
        p->age[key] = (uint8_t)(p->age[key] + (p->age[key] < AGE_MAX));
        p->heat[key] = (uint16_t)(p->heat[key] - (p->heat[key] >> HEAT_SHIFT));
        set_class(p, key);
    }
}

static void odds_visit(mfi_policy *p, uint32_t layer, const uint16_t *experts, uint32_t n)
{
    MFI_ASSERT(layer < p->n_layers && n <= p->n_experts);
    begin_visit(p, layer, true);
    for (uint32_t i = 0; i < n; i++)
        note_wanted(p, layer * p->n_experts + experts[i]);
    learn_visit(p);
    sort_list(p, layer);
}

static void odds_filled(mfi_policy *p, uint32_t slot, uint32_t key)
{
    MFI_ASSERT(slot < p->n_slots && key < p->n_layers * p->n_experts);
    if (p->key[slot] != NONE)
        take_out(p, slot);
    if (key / p->n_experts != p->layer) {
        begin_visit(p, key / p->n_experts, false);
        sort_list(p, p->layer);
    }
    note_wanted(p, key);
    p->key[slot] = key;
    put_in(p, slot);
}

/* Who wants nothing visits nothing. */
static void odds_returned(mfi_policy *p, uint32_t slot, uint32_t key)
{
    MFI_ASSERT(slot < p->n_slots && key < p->n_layers * p->n_experts);
    if (p->key[slot] != NONE)
        take_out(p, slot);
    p->key[slot] = key;
    put_in(p, slot);
}

static void odds_touched(mfi_policy *p, uint32_t slot)
{
    MFI_ASSERT(slot < p->n_slots && p->key[slot] != NONE);
    uint32_t key = p->key[slot];
    if (key / p->n_experts == p->layer && p->wanted[key % p->n_experts])
        return;
    odds_filled(p, slot, key);
}

static void odds_emptied(mfi_policy *p, uint32_t slot)
{
    MFI_ASSERT(slot < p->n_slots);
    if (p->key[slot] != NONE)
        take_out(p, slot);
    p->key[slot] = NONE;
}

static uint32_t odds_victim(mfi_policy *p, bool (*may_go)(void *ctx, uint32_t slot), void *ctx)
{
    uint32_t victim = NONE;
    float least = 0;
    for (uint32_t i = 0; i < p->n_layers; i++) {
        /* Layer by layer backwards from the one visited, which comes last again. */
        uint32_t ahead = p->n_layers - i;
        uint32_t layer = p->layer == NONE ? i : (p->layer + ahead) % p->n_layers, at = 0;
        const uint32_t *list = list_of(p, layer);
        while (at < p->n_listed[layer] && !may_go(ctx, list[at]))
            at++;
        if (at == p->n_listed[layer])
            continue;
        float worth = p->odds[p->class_of[p->key[list[at]]]] / (float)ahead;
        if (victim == NONE || worth < least) {
            victim = list[at];
            least = worth;
        }
    }
    return victim;
}

const mfi_policy_ops mfi_policy_odds = {
    .name = "odds",
    .open = odds_open,
    .close = odds_close,
    .visit = odds_visit,
    .filled = odds_filled,
    .returned = odds_returned,
    .touched = odds_touched,
    .emptied = odds_emptied,
    .victim = odds_victim,
};
