/* The policies against naive models of time stamps and counts, and the cost of a victim. */
#include "fake/support.h"

#include <string.h>

#include "base/rng.h"
#include "experts/policy.h"

enum { MAX_SLOTS = 40, N_KEYS = 100, AGE_SLOTS = 8 };

typedef struct model {
    bool counts;              /* frequency first, then recency */
    uint64_t used[MAX_SLOTS]; /* 0: empty */
    uint32_t key[MAX_SLOTS];
    uint32_t count[N_KEYS];
    bool pinned[MAX_SLOTS];
    uint32_t n_slots;
    uint64_t time, n_uses;
} model;

static bool may_go(void *ctx, uint32_t slot)
{
    model *m = ctx;
    assert_true(slot < m->n_slots);
    assert_true(m->used[slot] != 0); /* an empty slot is never offered */
    return !m->pinned[slot];
}

static bool goes_first(const model *m, uint32_t a, uint32_t b)
{
    uint32_t count_a = m->count[m->key[a]], count_b = m->count[m->key[b]];
    return m->counts && count_a != count_b ? count_a < count_b : m->used[a] < m->used[b];
}

static uint32_t first_to_go(const model *m)
{
    uint32_t best = UINT32_MAX;
    for (uint32_t i = 0; i < m->n_slots; i++) {
        if (m->used[i] && !m->pinned[i] && (best == UINT32_MAX || goes_first(m, i, best)))
            best = i;
    }
    return best;
}

static void use(model *m, uint32_t slot)
{
    uint32_t *count = &m->count[m->key[slot]];
    m->used[slot] = ++m->time;
    *count = *count < 255 ? *count + 1 : 255;
    if (++m->n_uses < (uint64_t)AGE_SLOTS * m->n_slots)
        return;
    for (uint32_t i = 0; i < N_KEYS; i++)
        m->count[i] /= 2;
    m->n_uses = 0;
}

/* An expert that is in no slot. */
static uint32_t absent_key(const model *m, mfi_rng *rng)
{
    for (;;) {
        uint32_t key = (uint32_t)mfi_rng_below(rng, N_KEYS), i = 0;
        while (i < m->n_slots && (!m->used[i] || m->key[i] != key))
            i++;
        if (i == m->n_slots)
            return key;
    }
}

static void fill(model *m, const mfi_policy_ops *ops, mfi_policy *policy, uint32_t slot,
                 mfi_rng *rng)
{
    uint32_t key = absent_key(m, rng);
    ops->filled(policy, slot, key);
    m->key[slot] = key;
    use(m, slot);
}

static void step(model *m, const mfi_policy_ops *ops, mfi_policy *policy, mfi_rng *rng,
                 uint64_t seed)
{
    uint32_t slot = (uint32_t)mfi_rng_below(rng, m->n_slots);
    switch (mfi_rng_below(rng, 8)) {
    case 0:
        if (m->used[slot])
            ops->emptied(policy, slot);
        m->used[slot] = 0;
        break;
    case 1:
        m->pinned[slot] = !m->pinned[slot];
        break;
    case 2: {
        uint32_t want = first_to_go(m), got = ops->victim(policy, may_go, m);
        if (got != want)
            fail_msg("seed %d: victim %u, not %u", (int)seed, got, want);
        if (got != UINT32_MAX)
            fill(m, ops, policy, got, rng); /* reused at once, as the store does */
        break;
    }
    default:
        if (m->used[slot]) {
            ops->touched(policy, slot);
            use(m, slot);
        } else {
            fill(m, ops, policy, slot, rng);
        }
    }
}

static void matches_the_model(void **state)
{
    const mfi_policy_ops *ops = *state;
    assert_ptr_equal(mfi_policy_named(ops->name), ops);
    assert_null(mfi_policy_named("none"));
    for (uint64_t seed = 0; seed < 100; seed++) {
        mfi_rng rng = {seed};
        model m = {.counts = ops == &mfi_policy_lfu,
                   .n_slots = 1 + (uint32_t)mfi_rng_below(&rng, MAX_SLOTS)};
        mf_error err;
        mfi_policy *policy = NULL;
        mft_ok(ops->open(&policy, m.n_slots, 1, N_KEYS, &err), &err);
        assert_int_equal(ops->victim(policy, may_go, &m), UINT32_MAX);
        for (int i = 0; i < 2000; i++)
            step(&m, ops, policy, &rng, seed);
        ops->close(&policy);
        assert_null(policy);
    }
}

/* Victims look at the old end only: slots asked about for each victim don't grow with their number.
 */
static bool ask(void *ctx, uint32_t slot)
{
    uint64_t *counts = ctx; /* [0]: asked, [1]: first slot that is pinned */
    counts[0]++;
    return slot < counts[1];
}

static void a_victim_costs_the_same_for_any_size(void **state)
{
    (void)state;
    const uint32_t sizes[] = {100, 10000, 1000000};
    for (size_t s = 0; s < 3; s++) {
        mf_error err;
        mfi_policy *policy = NULL;
        mft_ok(mfi_policy_lru.open(&policy, sizes[s], 1, sizes[s], &err), &err);
        for (uint32_t i = 0; i < sizes[s]; i++)
            mfi_policy_lru.filled(policy, i, i);
        /* The last 16 are pinned for good. As others are reused, these drift to the old end. */
        uint64_t counts[2] = {0, sizes[s] - 16};
        const uint32_t n_victims = 1000;
        for (uint32_t i = 0; i < n_victims; i++) {
            uint32_t slot = mfi_policy_lru.victim(policy, ask, counts);
            assert_int_equal(slot, i % (sizes[s] - 16));
            mfi_policy_lru.filled(policy, slot, slot);
        }
        assert_true(counts[0] <= (uint64_t)n_victims * 17);
        mfi_policy_lru.close(&policy);
    }
}

/* Visits of layers in turn, each of which wants `n_wanted` experts: the first n_hot of the layer,
 * then others at random. What fits is kept by the policy. Returns the part of the others that was
 * found; of the hot ones nothing may be missed once they are known. */
enum { LAYERS = 6, EXPERTS = 32, ROUNDS = 200, KNOWN = 40 };

typedef struct world {
    uint32_t slot_of[LAYERS * EXPERTS];
    bool pinned[LAYERS * EXPERTS]; /* of slots */
    uint32_t key_of[LAYERS * EXPERTS];
    uint32_t n_slots, n_filled;
} world;

static bool is_free(void *ctx, uint32_t slot)
{
    const world *w = ctx;
    assert_true(slot < w->n_filled);
    return !w->pinned[slot];
}

static bool use_expert(world *w, const mfi_policy_ops *ops, mfi_policy *policy, uint32_t key)
{
    uint32_t slot = w->slot_of[key];
    bool hit = slot != UINT32_MAX;
    if (hit) {
        ops->touched(policy, slot);
    } else {
        slot = w->n_filled < w->n_slots ? w->n_filled++ : ops->victim(policy, is_free, w);
        assert_true(slot < w->n_slots && !w->pinned[slot]);
        if (w->key_of[slot] != UINT32_MAX)
            w->slot_of[w->key_of[slot]] = UINT32_MAX;
        w->key_of[slot] = key;
        w->slot_of[key] = slot;
        ops->filled(policy, slot, key);
    }
    w->pinned[slot] = true;
    return hit;
}

static double found(const mfi_policy_ops *ops, uint32_t n_slots, uint32_t n_hot, uint32_t n_wanted,
                    bool told, uint32_t *hot_missed)
{
    world w = {.n_slots = n_slots};
    mfi_rng rng = {7};
    mf_error err;
    mfi_policy *policy = NULL;
    uint32_t n_found = 0, n_asked = 0;
    memset(w.slot_of, 0xff, sizeof w.slot_of);
    memset(w.key_of, 0xff, sizeof w.key_of);
    mft_ok(ops->open(&policy, n_slots, LAYERS, EXPERTS, &err), &err);
    *hot_missed = 0;
    for (uint32_t i = 0; i < ROUNDS * LAYERS; i++) {
        uint32_t layer = i % LAYERS, n = 0;
        uint16_t all[EXPERTS], wanted[EXPERTS];
        for (uint16_t e = 0; e < EXPERTS; e++)
            all[e] = e;
        for (; n < n_wanted; n++) { /* draws without putting back */
            uint32_t at = n < n_hot ? n : n + (uint32_t)mfi_rng_below(&rng, EXPERTS - n);
            wanted[n] = all[at];
            all[at] = all[n];
        }
        if (told && ops->visit)
            ops->visit(policy, layer, wanted, n);
        memset(w.pinned, 0, sizeof w.pinned);
        for (uint32_t k = 0; k < n; k++) /* what is there is pinned first */
            if (w.slot_of[layer * EXPERTS + wanted[k]] != UINT32_MAX)
                w.pinned[w.slot_of[layer * EXPERTS + wanted[k]]] = true;
        for (uint32_t k = 0; k < n; k++) {
            bool hit = use_expert(&w, ops, policy, layer * EXPERTS + wanted[k]);
            if (i < KNOWN * LAYERS)
                continue;
            *hot_missed += k < n_hot && !hit;
            n_found += k >= n_hot && hit;
            n_asked += k >= n_hot;
        }
    }
    ops->close(&policy);
    return (double)n_found / n_asked;
}

/* With nothing to learn but that a layer comes once a round, no policy can find more than the part
 * of all that is cached; least recently used finds nothing where a round wants more than fits. */
static void odds_find_what_is_cached(void **state)
{
    (void)state;
    const uint32_t total = LAYERS * EXPERTS;
    uint32_t missed;
    for (uint32_t n_slots = total / 4; n_slots < total / 2; n_slots += total / 8) {
        /* The layer before has its 16 in slots still; the others share the rest. */
        double part = (n_slots - 16.0) / (LAYERS - 16.0 / EXPERTS) / EXPERTS;
        assert_true(found(&mfi_policy_lru, n_slots, 0, 16, true, &missed) < 0.1);
        for (int told = 0; told < 2; told++) {
            double odds = found(&mfi_policy_odds, n_slots, 0, 16, told, &missed);
            if (odds < 0.9 * part || odds > 1.15 * part)
                fail_msg("%d slots: %f, not %f", (int)n_slots, odds, part);
        }
    }
}

/* Those that every visit wants stay, and the rest of the cache goes to the others: half of 26. */
static void odds_learn_who_is_popular(void **state)
{
    (void)state;
    uint32_t missed;
    for (int told = 0; told < 2; told++) {
        double odds = found(&mfi_policy_odds, LAYERS * (6 + 13), 6, 14, told, &missed);
        assert_int_equal(missed, 0);
        if (odds < 0.44 || odds > 0.56)
            fail_msg("%f, not 0.5", odds);
    }
}

/* Any sequence of calls: who may not go never does, and somebody goes who may. */
static bool any(void *ctx, uint32_t slot)
{
    (void)ctx, (void)slot;
    return true;
}

/* What comes back from elsewhere is as likely as it was: that wants nothing, and is no visit. */
static void odds_of_the_returned(void **state)
{
    (void)state;
    mf_error err;
    mfi_policy *p;
    const mfi_policy_ops *ops = &mfi_policy_odds;
    mft_ok(ops->open(&p, 3, 2, 8, &err), &err);
    const uint16_t often[] = {1, 2}, once[] = {5};
    ops->visit(p, 0, once, 1);
    ops->filled(p, 0, 5);
    ops->emptied(p, 0);
    for (int i = 0; i < 40; i++) { /* 1 and 2 are wanted each time, 5 never again */
        ops->visit(p, 0, often, 2);
        for (uint32_t k = 0; k < 2; k++)
            if (i == 0)
                ops->filled(p, 1 + k, often[k]);
            else
                ops->touched(p, 1 + k);
        ops->visit(p, 1, NULL, 0);
    }
    ops->returned(p, 0, 5);
    assert_int_equal(ops->victim(p, any, NULL), 0);
    ops->emptied(p, 0);
    ops->filled(p, 0, 5); /* a use: the last that was wanted of its layer */
    ops->returned(p, 1, 8 + 3);
    assert_int_equal(ops->victim(p, any, NULL), 1);
    ops->close(&p);
}

static void odds_keep_the_rules(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        mfi_rng rng = {seed};
        model m = {.n_slots = 1 + (uint32_t)mfi_rng_below(&rng, MAX_SLOTS)};
        mf_error err;
        mfi_policy *policy = NULL;
        mft_ok(mfi_policy_odds.open(&policy, m.n_slots, 10, N_KEYS / 10, &err), &err);
        for (int i = 0; i < 2000; i++) {
            uint32_t slot = (uint32_t)mfi_rng_below(&rng, m.n_slots);
            uint16_t wanted[] = {(uint16_t)mfi_rng_below(&rng, 5), 7};
            switch (mfi_rng_below(&rng, 8)) {
            case 0:
                if (m.used[slot])
                    mfi_policy_odds.emptied(policy, slot);
                m.used[slot] = 0;
                break;
            case 1:
                m.pinned[slot] = !m.pinned[slot];
                break;
            case 2:
                mfi_policy_odds.visit(policy, (uint32_t)mfi_rng_below(&rng, 10), wanted, 2);
                break;
            case 3:
                slot = mfi_policy_odds.victim(policy, may_go, &m);
                assert_int_equal(slot == UINT32_MAX, first_to_go(&m) == UINT32_MAX);
                assert_true(slot == UINT32_MAX || !m.pinned[slot]);
                if (slot != UINT32_MAX)
                    fill(&m, &mfi_policy_odds, policy, slot, &rng);
                break;
            default:
                if (m.used[slot])
                    mfi_policy_odds.touched(policy, slot);
                else
                    fill(&m, &mfi_policy_odds, policy, slot, &rng);
            }
        }
        mfi_policy_odds.close(&policy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"lru matches the model", matches_the_model, NULL, NULL, (void *)&mfi_policy_lru},
        {"lfu matches the model", matches_the_model, NULL, NULL, (void *)&mfi_policy_lfu},
        cmocka_unit_test(a_victim_costs_the_same_for_any_size),
        cmocka_unit_test(odds_find_what_is_cached),
        cmocka_unit_test(odds_learn_who_is_popular),
        cmocka_unit_test(odds_of_the_returned),
        cmocka_unit_test(odds_keep_the_rules),
    };
    return mft_run(tests);
}
