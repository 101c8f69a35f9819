/* The public face of trace replay: see moeflux.h. Any thread; a replay is read-only once open. */
#include "experts/replay.h"

#include <stdlib.h>
#include <string.h>

#include "engine_int.h"

struct mf_replay {
    mfi_replay trace;
};

/* From a file, or, if `path` is NULL, of an engine. */
static mf_status open_replay(mf_replay **replay, const char *path, const mf_engine *engine,
                             mf_error *err)
{
    mf_replay *r = calloc(1, sizeof *r);
    if (!r)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a replay");
    mf_status status =
        path ? mfi_replay_open(&r->trace, path, err) : mfi_engine_replay(engine, &r->trace, err);
    if (status != MF_OK) {
        free(r);
        return status;
    }
    *replay = r;
    return MF_OK;
}

mf_status mf_replay_open(mf_replay **replay, const char *path, mf_error *err)
{
    return open_replay(replay, path, NULL, err);
}

mf_status mf_replay_recent(mf_replay **replay, const mf_engine *engine, mf_error *err)
{
    return open_replay(replay, NULL, engine, err);
}

void mf_replay_close(mf_replay **replay)
{
    if (!*replay)
        return;
    mfi_replay_close(&(*replay)->trace);
    free(*replay);
    *replay = NULL;
}

void mf_replay_info_get(const mf_replay *replay, mf_replay_info *info)
{
    const mfi_replay *t = &replay->trace;
    *info = (mf_replay_info){.struct_size = sizeof *info,
                             .n_layers = t->n_layers,
                             .n_experts = t->n_experts,
                             .top_k = t->top_k,
                             .expert_bytes = t->expert_bytes,
                             .n_tokens = t->n_tokens,
                             .n_choices = t->n_keys};
}

mf_status mf_replay_hits(const mf_replay *replay, const char *policy, uint32_t n_slots,
                         uint64_t *hits, mf_error *err)
{
    if (!policy)
        return mfi_replay_bound(&replay->trace, n_slots, hits, err);
    const mfi_policy_ops *ops = mfi_policy_named(policy);
    if (!ops)
        return mfi_fail(err, MF_ERR_ARGUMENT, "unknown cache policy '%s' (known: lru, lfu, odds)",
                        policy);
    return mfi_replay_run(&replay->trace, ops, n_slots, hits, err);
}
