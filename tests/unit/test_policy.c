/* The LRU policy against a naive model of time stamps, and the cost of a victim. */
#include "fake/support.h"

#include <string.h>

#include "base/rng.h"
#include "experts/policy.h"

enum { MAX_SLOTS = 40 };

typedef struct model {
    uint64_t used[MAX_SLOTS]; /* 0: empty */
    bool pinned[MAX_SLOTS];
    uint32_t n_slots;
    uint64_t n_asked;
} model;

static bool may_go(void *ctx, uint32_t slot)
{
    model *m = ctx;
    assert_true(slot < m->n_slots);
    assert_true(m->used[slot] != 0); /* an empty slot is never offered */
    m->n_asked++;
    return !m->pinned[slot];
}

static uint32_t oldest(const model *m)
{
    uint32_t best = UINT32_MAX;
    for (uint32_t i = 0; i < m->n_slots; i++) {
        if (m->used[i] && !m->pinned[i] && (best == UINT32_MAX || m->used[i] < m->used[best]))
            best = i;
    }
    return best;
}

static void matches_the_model(void **state)
{
    (void)state;
    const mfi_policy_ops *ops = &mfi_policy_lru;
    assert_string_equal(ops->name, "lru");
    for (uint64_t seed = 0; seed < 100; seed++) {
        mfi_rng rng = {seed};
        model m = {.n_slots = 1 + (uint32_t)mfi_rng_below(&rng, MAX_SLOTS)};
        mf_error err;
        mfi_policy *policy = NULL;
        mft_ok(ops->open(&policy, m.n_slots, &err), &err);
        assert_int_equal(ops->victim(policy, may_go, &m), UINT32_MAX);
        for (uint64_t time = 1; time < 1000; time++) {
            uint32_t slot = (uint32_t)mfi_rng_below(&rng, m.n_slots);
            switch (mfi_rng_below(&rng, 6)) {
            case 0:
                if (m.used[slot])
                    ops->emptied(policy, slot);
                m.used[slot] = 0;
                break;
            case 1:
                m.pinned[slot] = !m.pinned[slot];
                break;
            case 2: {
                uint32_t want = oldest(&m), got = ops->victim(policy, may_go, &m);
                if (got != want)
                    fail_msg("seed %d, time %d: victim %u, not %u", (int)seed, (int)time, got,
                             want);
                if (got == UINT32_MAX)
                    break;
                ops->filled(policy, got); /* reused at once, as the store does */
                m.used[got] = time;
                break;
            }
            default:
                if (m.used[slot])
                    ops->touched(policy, slot);
                else
                    ops->filled(policy, slot);
                m.used[slot] = time;
            }
        }
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
        mft_ok(mfi_policy_lru.open(&policy, sizes[s], &err), &err);
        for (uint32_t i = 0; i < sizes[s]; i++)
            mfi_policy_lru.filled(policy, i);
        /* The last 16 are pinned for good. As others are reused, these drift to the old end. */
        uint64_t counts[2] = {0, sizes[s] - 16};
        const uint32_t n_victims = 1000;
        for (uint32_t i = 0; i < n_victims; i++) {
            uint32_t slot = mfi_policy_lru.victim(policy, ask, counts);
            assert_int_equal(slot, i % (sizes[s] - 16));
            mfi_policy_lru.filled(policy, slot);
        }
        assert_true(counts[0] <= (uint64_t)n_victims * 17);
        mfi_policy_lru.close(&policy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_the_model),
        cmocka_unit_test(a_victim_costs_the_same_for_any_size),
    };
    return mft_run(tests);
}
