/* Routing: a simdgroup a token chooses, a threadgroup groups the choices by expert. */
#include "backend/metal/common.metal"

enum { SCORE_SOFTMAX, SCORE_SIGMOID, SCORE_SOFTMAX_CHOSEN }; /* routing.h's mfi_score */

#define TAKEN 0xffffffffu /* bits of a value that isn't in the choice any more */

MFI_FN bool taken(float v)
{
    return as_type<uint>(v) == TAKEN;
}

/* The largest of what is left by value, of equal ones the first. Marks it. One is
 * left at least, and no NaN. */
MFI_FN uint take_best(threadgroup float *value, uint n, uint lane)
{
    float best = -INFINITY;
    uint where = TAKEN;
    for (uint i = lane; i < n; i += 32) {
        float v = value[i];
        if (!taken(v) && (where == TAKEN || v > best)) {
            best = v;
            where = i;
        }
    }
    float most = simd_max(best);
    uint first = simd_min(best == most ? where : TAKEN);
    if (lane == 0)
        value[first] = as_type<float>(TAKEN);
    simdgroup_barrier(mem_flags::mem_threadgroup);
    return first;
}

/* Takes experts of all but the best groups out of the choice. */
MFI_FN void keep_groups(constant mfi_metal_route &r, threadgroup float *value,
                        threadgroup float *groups, uint lane)
{
    uint each = r.n / r.n_groups;
    for (uint g = lane; g < r.n_groups; g += 32) {
        float first = -INFINITY, second = -INFINITY;
        for (uint i = g * each; i < (g + 1) * each; i++) {
            float v = value[i];
            second = v > first ? first : v > second ? v : second;
            first = v > first ? v : first;
        }
        float worth = r.group_best > 1 && each > 1 ? first + second : first;
        groups[g] = isnan(worth) ? -INFINITY : worth;
    }
    simdgroup_barrier(mem_flags::mem_threadgroup);
    for (uint k = 0; k < r.n_groups_used; k++)
        take_best(groups, r.n_groups, lane);
    for (uint i = lane; i < r.n; i += 32)
        if (!taken(groups[i / each]))
            value[i] = as_type<float>(TAKEN);
    simdgroup_barrier(mem_flags::mem_threadgroup);
}

/* Of all logits: their maximum, and the sum of exponentials. */
struct softmax_of {
    float top, sum;
};

MFI_FN float score_of(uint how, float logit, softmax_of all)
{
    if (how == SCORE_SIGMOID)
        return sigmoid(logit);
    return how == SCORE_SOFTMAX ? precise::exp(logit - all.top) / all.sum : logit;
}

MFI_FN softmax_of over_all(constant mfi_metal_route &r, device const float *logits, uint lane)
{
    softmax_of all;
    float top = -INFINITY, sum = 0;
    for (uint i = lane; i < r.n; i += 32)
        top = max(top, logits[i]);
    all.top = simd_max(top);
    for (uint i = lane; i < r.n; i += 32)
        sum += precise::exp(logits[i] - all.top);
    all.sum = simd_sum(sum);
    return all;
}

/* Softmax of the chosen, in place: few, so that every lane goes through all. */
MFI_FN void softmax_chosen(threadgroup float *v, uint n, uint lane)
{
    float top = -INFINITY, sum = 0;
    for (uint i = 0; i < n; i++)
        top = max(top, v[i]);
    for (uint i = 0; i < n; i++)
        sum += precise::exp(v[i] - top);
    simdgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = lane; i < n; i += 32)
        v[i] = precise::exp(v[i] - top) / sum;
    simdgroup_barrier(mem_flags::mem_threadgroup);
}

/* Threadgroup memory: what the choice goes by [n], groups' worth, scores of the chosen, their ids.
 */
kernel void mfi_route(constant mfi_metal_route &r [[buffer(0)]],
                      device const float *logits [[buffer(1)]],
                      device const float *correction [[buffer(2)]],
                      device ushort *ids [[buffer(3)]], device float *weights [[buffer(4)]],
                      device const uint64_t *slots [[buffer(5)]],
                      device mfi_metal_item *items [[buffer(6)]], device uint *x_row [[buffer(7)]],
                      device uint *pair_of [[buffer(8)]], MFI_AT)
{
    MFI_UNLESS_STOPPED;
    threadgroup float *value = room, *groups = value + r.n;
    threadgroup float *chosen = groups + MFI_METAL_MAX_EXPERT_GROUPS;
    threadgroup uint *best = (threadgroup uint *)(chosen + MFI_METAL_MAX_TOP_K);
    device const float *in = logits + (size_t)at.x * r.ld;
    softmax_of all;
    all.top = 0, all.sum = 1;
    if (r.score == SCORE_SOFTMAX)
        all = over_all(r, in, lane);
    for (uint i = lane; i < r.n; i += 32) {
        float v = score_of(r.score, in[i], all);
        v = r.corrected ? v + correction[i] : v;
        value[i] = isnan(v) ? -INFINITY : v;
    }
    simdgroup_barrier(mem_flags::mem_threadgroup);
    if (r.n_groups > 1)
        keep_groups(r, value, groups, lane);
    for (uint k = 0; k < r.top_k; k++) {
        uint one = take_best(value, r.n, lane);
        if (lane == 0) {
            best[k] = one;
            chosen[k] = score_of(r.score, in[one], all);
        }
    }
    simdgroup_barrier(mem_flags::mem_threadgroup);
    if (r.score == SCORE_SOFTMAX_CHOSEN)
        softmax_chosen(chosen, r.top_k, lane);
    float sum = r.score == SCORE_SIGMOID ? 1e-20f : 0.0f; /* all sigmoids can vanish */
    for (uint k = 0; k < r.top_k; k++)
        sum += chosen[k];
    for (uint k = lane; k < r.top_k; k += 32) {
        ids[(size_t)at.x * r.top_k + k] = (ushort)best[k];
        weights[(size_t)at.x * r.ldw + k] = (r.normalize ? chosen[k] / sum : chosen[k]) * r.scale;
        if (r.list) {
            uint64_t slot = slots[best[k]];
            if (slot == MFI_METAL_NOWHERE)
                *stop = r.layer + 1;
            items[k].slot = slot;
            items[k].first = k;
            items[k].n = 1;
            x_row[k] = 0;
            pair_of[k] = k;
        }
    }
}

/* ---- grouping ---- */

/* A simdgroup's prefix sums of n numbers in place: before[i] is the sum of those before i,
 * before[n] of all. Each counts as ceil(number / unit). */
MFI_FN void prefix(threadgroup const uint *count, uint n, uint unit, threadgroup uint *before,
                   uint lane)
{
    uint sum = 0;
    for (uint base = 0; base < n; base += 32) {
        uint i = base + lane, mine = i < n ? (count[i] + unit - 1) / unit : 0;
        uint here = sum + simd_prefix_exclusive_sum(mine);
        simdgroup_barrier(mem_flags::mem_threadgroup);
        if (i < n)
            before[i] = here;
        sum += simd_sum(mine);
    }
    if (lane == 0)
        before[n] = sum;
    simdgroup_barrier(mem_flags::mem_threadgroup);
}

/* One threadgroup. Threads count all pairs; a simdgroup has experts of its own, and writes each
 * one's items and, in order of tokens, its pairs. */
[[max_total_threads_per_threadgroup(1024)]] kernel void mfi_group(
    constant mfi_metal_group &a [[buffer(0)]], device const ushort *ids [[buffer(1)]],
    device const uint64_t *slots [[buffer(2)]], device mfi_metal_item *items [[buffer(3)]],
    device uint *x_row [[buffer(4)]], device uint *pair_of [[buffer(5)]], MFI_AT)
{
    MFI_UNLESS_STOPPED;
    threadgroup uint *pairs = (threadgroup uint *)room; /* [n_experts + 1] pairs before, */
    threadgroup uint *tiles = pairs + a.n_experts + 1;  /* and items */
    uint n = a.n_tok * a.top_k;
    for (uint e = tid; e < a.n_experts; e += size.x)
        pairs[e] = 0;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = tid; i < n; i += size.x)
        atomic_fetch_add_explicit((threadgroup atomic_uint *)(pairs + ids[i]), 1u,
                                  memory_order_relaxed);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (sg == 0) {
        prefix(pairs, a.n_experts, a.tile, tiles, lane);
        prefix(pairs, a.n_experts, 1, pairs, lane);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = tiles[a.n_experts] + tid; i < a.n_items; i += size.x)
        items[i].n = 0;
    for (uint e = sg; e < a.n_experts; e += size.x / 32) {
        uint next = pairs[e], count = pairs[e + 1] - next;
        if (lane == 0 && count && slots[e] == MFI_METAL_NOWHERE)
            *stop = a.layer + 1;
        for (uint t = lane; t * a.tile < count; t += 32) {
            device mfi_metal_item *to = items + tiles[e] + t;
            to->slot = slots[e];
            to->first = next + t * a.tile;
            to->n = min(count - t * a.tile, a.tile);
        }
        for (uint base = 0; base < n && next < pairs[e + 1]; base += 32) {
            uint i = base + lane, mine = i < n && ids[i] == e ? 1 : 0;
            uint before = simd_prefix_exclusive_sum(mine);
            if (mine) {
                x_row[next + before] = i / a.top_k;
                pair_of[i] = next + before;
            }
            next += simd_sum(mine);
        }
    }
}
