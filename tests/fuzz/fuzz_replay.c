/* Any bytes as a trace: refused with a line's number, or replayed within the bound. */
#include <stdlib.h>

#include "experts/replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mfi_replay r;
    mf_error err = {0};
    mf_status status = mfi_replay_parse(&r, (const char *)data, size, "fuzz", &err);
    if (status != MF_OK) {
        if (!err.message[0] || r.keys || r.step_end)
            abort();
        return 0;
    }
    uint64_t lru = 0, lfu = 0, odds = 0, bound = 0;
    if (mfi_replay_run(&r, &mfi_policy_lru, r.top_k, &lru, &err) != MF_OK ||
        mfi_replay_run(&r, &mfi_policy_lfu, r.top_k, &lfu, &err) != MF_OK ||
        mfi_replay_run(&r, &mfi_policy_odds, r.top_k, &odds, &err) != MF_OK ||
        mfi_replay_bound(&r, r.top_k, &bound, &err) != MF_OK || lru > bound || lfu > bound ||
        odds > bound || bound > r.n_keys)
        abort();
    mfi_replay_close(&r);
    return 0;
}
