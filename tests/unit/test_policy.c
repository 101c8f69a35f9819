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
        mft_ok(ops->open(&policy, m.n_slots, N_KEYS, &err), &err);
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
        mft_ok(mfi_policy_lru.open(&policy, sizes[s], sizes[s], &err), &err);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"lru matches the model", matches_the_model, NULL, NULL, (void *)&mfi_policy_lru},
        {"lfu matches the model", matches_the_model, NULL, NULL, (void *)&mfi_policy_lfu},
        cmocka_unit_test(a_victim_costs_the_same_for_any_size),
    };
    return mft_run(tests);
}
