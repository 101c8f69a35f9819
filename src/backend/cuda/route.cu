/* Routing on the device: a warp a token chooses, a block groups the choices by expert, slots are
 * looked up, and a word stops what is behind a router that found an expert nowhere. Called by
 * the backend's thread; only queues work. */
#include <math_constants.h>

#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/reduce.cuh"
#include "backend/cuda/rows.cuh"

enum { SOFTMAX, SIGMOID, SOFTMAX_CHOSEN }; /* routing.h's mfi_score */

#define MAX_GROUPS 64
#define MAX_TOP_K  64

#define TAKEN 0xffffffffu /* bits of a value that isn't in the choice any more */

/* The largest of what is left by value, of equal ones the first. Marks it. */
static __device__ uint32_t take_best(float *value, uint32_t n)
{
    float best = -CUDART_INF_F;
    uint32_t at = UINT32_MAX, lane = threadIdx.x;
    for (uint32_t i = lane; i < n; i += 32) {
        float v = value[i];
        if (__float_as_uint(v) != TAKEN && (at == UINT32_MAX || v > best)) {
            best = v;
            at = i;
        }
    }
#pragma unroll
    for (int d = 16; d > 0; d /= 2) {
        float other = __shfl_xor_sync(0xffffffff, best, d);
        uint32_t other_at = __shfl_xor_sync(0xffffffff, at, d);
        if (other_at != UINT32_MAX &&
            (at == UINT32_MAX || other > best || (other == best && other_at < at))) {
            best = other;
            at = other_at;
        }
    }
    __syncwarp();
    if (lane == 0)
        value[at] = __uint_as_float(TAKEN);
    __syncwarp();
    return at;
}

/* Takes experts of all but the best groups out of the choice. */
static __device__ void keep_groups(const mfi_cuda_route &r, float *value, float *groups)
{
    uint32_t size = r.n / r.n_groups;
    for (uint32_t g = threadIdx.x; g < r.n_groups; g += 32) {
        float first = -CUDART_INF_F, second = -CUDART_INF_F;
        for (uint32_t i = g * size; i < (g + 1) * size; i++) {
            float v = value[i];
            second = v > first ? first : v > second ? v : second;
            first = v > first ? v : first;
        }
        groups[g] = r.group_best > 1 && size > 1 ? first + second : first;
    }
    __syncwarp();
    for (uint32_t k = 0; k < r.n_groups_used; k++)
        take_best(groups, r.n_groups);
    for (uint32_t i = threadIdx.x; i < r.n; i += 32)
        if (__float_as_uint(groups[i / size]) != TAKEN)
            value[i] = __uint_as_float(TAKEN);
    __syncwarp();
}

/* Softmax of n values in shared memory, in place. */
static __device__ void softmax(float *v, uint32_t n)
{
    float max = -CUDART_INF_F, sum = 0;
    for (uint32_t i = threadIdx.x; i < n; i += 32)
        max = fmaxf(max, v[i]);
    max = warp_max(max);
    for (uint32_t i = threadIdx.x; i < n; i += 32) {
        v[i] = expf(v[i] - max);
        sum += v[i];
    }
    sum = warp_sum(sum);
    for (uint32_t i = threadIdx.x; i < n; i += 32)
        v[i] /= sum;
    __syncwarp();
}

/* ---- looking up ---- */

static __device__ unsigned stop_word;

#define FILES_MAX 64

static cudaError_t (*tell_files[FILES_MAX])(unsigned *word,
                                            cudaStream_t s); /* filled while the module loads */
static unsigned n_files;

void mfi_cuda_tell(cudaError_t (*tell)(unsigned *word, cudaStream_t s))
{
    if (n_files < FILES_MAX)
        tell_files[n_files] = tell;
    n_files++;
}

cudaError_t mfi_cuda_tell_files(cudaStream_t s)
{
    void *word;
    cudaError_t e =
        n_files > FILES_MAX ? cudaErrorInvalidValue : cudaGetSymbolAddress(&word, stop_word);
    for (unsigned i = 0; e == cudaSuccess && i < n_files; i++)
        e = tell_files[i]((unsigned *)word, s);
    return e;
}

/* An expert's slot. Where it has none, kernels behind are stopped; what is already under way finds
 * memory of a slot's size. */
static __device__ __forceinline__ const uint8_t *found(const mfi_cuda_route &r, uint64_t in)
{
    const uint8_t *slot = (const uint8_t *)in;
    if (slot || !r.chosen)
        return slot;
    *(volatile unsigned *)&stop_word = 1;
    __threadfence();
    return r.anywhere;
}

static __device__ __forceinline__ const uint8_t *find(const mfi_cuda_route &r, uint32_t expert)
{
    return found(r, r.slots[expert]);
}

cudaError_t mfi_cuda_go_on(cudaStream_t s)
{
    void *word;
    cudaError_t e = cudaGetSymbolAddress(&word, stop_word);
    return e == cudaSuccess ? cudaMemsetAsync(word, 0, sizeof stop_word, s) : e;
}

/* What EXPERTS works on for a single token: a pair a rank, in order. */
static __device__ __forceinline__ void list_item(const mfi_cuda_route &r, uint32_t k,
                                                 uint32_t expert, const uint8_t *slot)
{
    mfi_cuda_item item = {slot, k, 1};
    r.items[k] = item;
    r.x_row[k] = 0;
    r.pair_of[k] = k;
    if (r.chosen)
        r.chosen[k] = (uint16_t)expert;
}

/* A router that may stop what is behind it has that begin when it has ended. */
static __device__ __forceinline__ void begin_next_of(const mfi_cuda_route &r)
{
    if (!r.chosen)
        begin_next();
}

/* ---- choosing ---- */

/* Bits whose order as integers is that of numbers; none is 0. */
static __device__ __forceinline__ uint32_t ordered(float v)
{
    uint32_t b = __float_as_uint(v + 0.0f); /* one zero */
    return b & 0x80000000 ? ~b : b | 0x80000000;
}

/* choose_for where a lane has up to L experts, and one of the chosen, in registers: lane, lane + 32
 * and so on. The same bits; what it has to fetch is on its way from the start. */
template <int L> static __device__ void choose_held(const mfi_cuda_route &r, uint32_t t)
{
    const float *logits = r.logits + (size_t)t * r.ld;
    const bool listed = r.slots && r.items;
    uint32_t lane = threadIdx.x, key[L], id = 0;
    uint64_t slot[L], in = 0;
    float score[L], add[L], max = -CUDART_INF_F, sum = 0, mine = 0;
#pragma unroll
    for (int i = 0; i < L; i++) {
        uint32_t e = lane + 32 * i;
        score[i] = e < r.n ? __ldcg(logits + e) : -CUDART_INF_F;
        add[i] = e < r.n && r.correction ? r.correction[e] : 0;
        slot[i] = e < r.n && listed ? r.slots[e] : 0;
    }
    if (r.score == SIGMOID) {
#pragma unroll
        for (int i = 0; i < L; i++)
            score[i] = 1 / (1 + expf(-score[i]));
    } else if (r.score == SOFTMAX) { /* softmax() */
#pragma unroll
        for (int i = 0; i < L; i++)
            max = fmaxf(max, score[i]);
        max = warp_max(max);
#pragma unroll
        for (int i = 0; i < L; i++) {
            score[i] = expf(score[i] - max);
            sum += lane + 32 * i < r.n ? score[i] : 0;
        }
        sum = warp_sum(sum);
#pragma unroll
        for (int i = 0; i < L; i++)
            score[i] /= sum;
    }
#pragma unroll
    for (int i = 0; i < L; i++) {
        float v = r.correction ? score[i] + add[i] : score[i];
        key[i] = lane + 32 * i < r.n ? ordered(isnan(v) ? -CUDART_INF_F : v) : 0;
    }
    sum = r.score == SIGMOID ? 1e-20f : 0;
    for (uint32_t k = 0; k < r.top_k; k++) {
        uint32_t most = 0, at = UINT32_MAX;
        uint64_t its_slot = 0;
        float its_score = 0;
#pragma unroll
        for (int i = 0; i < L; i++)
            most = umax(most, key[i]);
        most = __reduce_max_sync(0xffffffff, most);
#pragma unroll
        for (int i = L - 1; i >= 0; i--)
            at = key[i] == most ? lane + 32 * i : at;
        at = __reduce_min_sync(0xffffffff, at);
#pragma unroll
        for (int i = 0; i < L; i++)
            if (lane + 32 * i == at) {
                key[i] = 0;
                its_score = score[i];
                its_slot = slot[i];
            }
        its_score = __shfl_sync(0xffffffff, its_score, at % 32);
        its_slot = __shfl_sync(0xffffffff, its_slot, at % 32);
        sum += its_score;
        if (lane == k) {
            id = at;
            mine = its_score;
            in = its_slot;
        }
    }
    if (r.score == SOFTMAX_CHOSEN) {
        max = warp_max(lane < r.top_k ? mine : -CUDART_INF_F);
        mine = expf(mine - max);
        mine /= warp_sum(lane < r.top_k ? mine : 0);
        sum = 0;
        for (uint32_t k = 0; k < r.top_k; k++)
            sum += __shfl_sync(0xffffffff, mine, k);
    }
    if (lane >= r.top_k)
        return;
    r.ids[(size_t)t * r.top_k + lane] = (uint16_t)id;
    r.weights[(size_t)t * r.ldw + lane] = (r.normalize ? mine / sum : mine) * r.scale;
    if (listed)
        list_item(r, lane, id, found(r, in));
}

/* A warp's choice for token t; `room` has two floats an expert. */
static __device__ void choose_for(const mfi_cuda_route &r, uint32_t t, float *room)
{
    __shared__ float groups[MAX_GROUPS], chosen[MAX_TOP_K];
    __shared__ uint16_t ids[MAX_TOP_K];
    float *score = room, *value = room + r.n;
    const float *logits = r.logits + (size_t)t * r.ld;
    uint32_t lane = threadIdx.x;
    if (r.n_groups <= 1 && r.n <= 256 && r.top_k <= 32) {
        if (r.n <= 128)
            choose_held<4>(r, t);
        else
            choose_held<8>(r, t);
        return;
    }
    for (uint32_t i = lane; i < r.n; i += 32)
        score[i] = r.score == SIGMOID ? 1 / (1 + expf(-__ldcg(logits + i))) : __ldcg(logits + i);
    __syncwarp();
    if (r.score == SOFTMAX)
        softmax(score, r.n);
    for (uint32_t i = lane; i < r.n; i += 32) {
        float v = r.correction ? score[i] + r.correction[i] : score[i];
        value[i] = isnan(v) ? -CUDART_INF_F : v;
    }
    __syncwarp();
    if (r.n_groups > 1)
        keep_groups(r, value, groups);
    for (uint32_t k = 0; k < r.top_k; k++) {
        uint32_t best = take_best(value, r.n);
        if (lane == 0)
            ids[k] = (uint16_t)best;
    }
    __syncwarp();
    for (uint32_t k = lane; k < r.top_k; k += 32)
        chosen[k] = score[ids[k]];
    __syncwarp();
    if (r.score == SOFTMAX_CHOSEN)
        softmax(chosen, r.top_k);
    float sum = r.score == SIGMOID ? 1e-20f : 0; /* all sigmoids can vanish */
    for (uint32_t k = 0; k < r.top_k; k++)
        sum += chosen[k];
    for (uint32_t k = lane; k < r.top_k; k += 32) {
        r.ids[(size_t)t * r.top_k + k] = ids[k];
        r.weights[(size_t)t * r.ldw + k] = (r.normalize ? chosen[k] / sum : chosen[k]) * r.scale;
    }
    for (uint32_t k = lane; r.slots && r.items && k < r.top_k; k += 32)
        list_item(r, k, ids[k], find(r, ids[k]));
}

static __global__ void __launch_bounds__(32) choose(mfi_cuda_route r)
{
    extern __shared__ float room[];
    begin_wait();
    begin_next_of(r);
    choose_for(r, blockIdx.x, room);
}

cudaError_t mfi_cuda_route_run(const mfi_cuda_route *r, cudaStream_t s)
{
    return start_early(choose, dim3(r->n_tok), 32, 2 * r->n * sizeof(float), s, *r);
}

#define HELD 4 /* of a row's columns, in fours, that a thread has in registers */

/* Four columns of the normed input. */
static __device__ __forceinline__ float4 normed(float4 v, float4 w, float factor)
{
    return make_float4(v.x * factor * w.x, v.y * factor * w.y, v.z * factor * w.z,
                       v.w * factor * w.w);
}

/* The first block of threads keeps it. */
static __device__ void keep_normed(const mfi_cuda_mm &mm, float4 v, uint32_t col, uint32_t left)
{
    const float out[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int k = 0; k < 4; k++)
        if (blockIdx.x == 0 && k < left)
            mm.norm_out[col + k] = out[k];
}

/* Weights of a thread's columns, and the norm's: they are older than the kernel in front. */
static __device__ __forceinline__ void fetch_older(const mfi_cuda_mm &mm, const uint8_t *row,
                                                   float4 weights[HELD], float4 norm[HELD])
{
    const mfi_cuda_mat &m = mm.mat[0];
    bool mine = threadIdx.x < ROWS_THREADS;
    const float4 none = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        uint32_t col = (threadIdx.x + i * ROWS_THREADS) * 4;
        bool there = mine && col < m.cols;
        weights[i] = there ? rows_weights(m.type.kind, row, col, m.cols - col) : none;
        norm[i] = there ? rows_x(mm.norm + col, m.cols - col) : none;
    }
}

/* This block's logit, by the first threads of it. */
static __device__ __forceinline__ float one_logit(const mfi_cuda_mm &mm, const uint8_t *row,
                                                  const float4 weights[HELD],
                                                  const float4 norm[HELD], float *sums)
{
    const mfi_cuda_mat &m = mm.mat[0];
    bool mine = threadIdx.x < ROWS_THREADS;
    float4 x[HELD];
    const float4 none = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        uint32_t col = (threadIdx.x + i * ROWS_THREADS) * 4;
        x[i] = mine && col < m.cols ? rows_x(mm.x + col, m.cols - col) : none;
    }
    float factor = norm_factor(mm.x, m.cols, mm.norm_eps, sums), sum = 0;
    __syncthreads();
    if (mine) {
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            uint32_t col = (threadIdx.x + i * ROWS_THREADS) * 4;
            x[i] = normed(x[i], norm[i], factor);
            if (col < m.cols) {
                sum = rows_dot(weights[i], x[i], sum);
                keep_normed(mm, x[i], col, m.cols - col);
            }
        }
        for (uint32_t col = (threadIdx.x + HELD * ROWS_THREADS) * 4; col < m.cols;
             col += ROWS_THREADS * 4) {
            uint32_t left = m.cols - col;
            float4 v = normed(rows_x(mm.x + col, left), rows_x(mm.norm + col, left), factor);
            sum = rows_dot(rows_weights(m.type.kind, row, col, left), v, sum);
            keep_normed(mm, v, col, left);
        }
        sum = warp_sum(sum);
        if (threadIdx.x % 32 == 0)
            sums[threadIdx.x / 32] = sum;
    }
    __syncthreads();
    return rows_sum(sums);
}

/* A single token's norm, a logit a block of threads, and in the block that ends last the choice. */
static __global__ void __launch_bounds__(NORM_THREADS)
    logits_and_choice(const __grid_constant__ mfi_cuda_mm mm,
                      const __grid_constant__ mfi_cuda_route r, uint32_t *turn)
{
    extern __shared__ float room[];
    __shared__ float sums[32];
    __shared__ bool last;
    for (uint32_t i = threadIdx.x * 16; r.slots && blockIdx.x == 0 && i < r.n;
         i += 16 * NORM_THREADS)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(r.slots + i)); /* a line each */
    const uint8_t *row = mm.mat[0].plane[0] + blockIdx.x * mm.mat[0].row_bytes[0];
    float4 weights[HELD], norm[HELD];
    float bias = 0;
    fetch_older(mm, row, weights, norm);
    if (mm.bias[0] && threadIdx.x == 0)
        bias = load_float(mm.bias_type[0].kind, (const uint8_t *)mm.bias_offset[0], blockIdx.x);
    begin_wait();
    begin_next_of(r);
    float logit = one_logit(mm, row, weights, norm, sums);
    if (threadIdx.x == 0) {
        mm.y[0][blockIdx.x] = mm.bias[0] ? logit + bias : logit;
        __threadfence();
        last = atomicAdd(turn, 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last || threadIdx.x >= 32)
        return;
    __threadfence();
    if (threadIdx.x == 0)
        *turn = 0;
    choose_for(r, 0, room);
}

cudaError_t mfi_cuda_route_rows(const mfi_cuda_mm *mm, const mfi_cuda_route *r, uint32_t *turn,
                                cudaStream_t s)
{
    return start_early(logits_and_choice, dim3(mm->mat[0].rows), NORM_THREADS,
                       2 * r->n * sizeof(float), s, *mm, *r, turn);
}

/* ---- grouping ---- */

#define GROUP_THREADS 1024

/* A block an expert: it counts all pairs, places its own behind those of the experts before it, and
 * writes them in order of tokens. */
static __global__ void __launch_bounds__(GROUP_THREADS)
    group(const __grid_constant__ mfi_cuda_route r, uint32_t tile, mfi_cuda_item *items,
          uint32_t n_items)
{
    extern __shared__ uint32_t count[]; /* [n_experts] */
    __shared__ uint32_t pairs, tiles, all_tiles, in_warp[GROUP_THREADS / 32];
    const uint16_t *ids = r.ids;
    uint32_t e = blockIdx.x, n_experts = r.n, n = r.n_tok * r.top_k;
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (begin_wait_block()) /* another block has found an expert nowhere by now */
        return;
    begin_next_of(r);
    for (uint32_t i = threadIdx.x; i < n_experts; i += GROUP_THREADS)
        count[i] = 0;
    if (threadIdx.x == 0)
        pairs = tiles = all_tiles = 0;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n; i += GROUP_THREADS)
        atomicAdd(&count[ids[i]], 1);
    /* Every block: those that begin late may have ended. */
    for (uint32_t i = threadIdx.x; r.chosen && i < n; i += GROUP_THREADS)
        r.chosen[i] = ids[i];
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n_experts; i += GROUP_THREADS) {
        uint32_t t = (count[i] + tile - 1) / tile;
        if (i < e && count[i]) {
            atomicAdd(&pairs, count[i]);
            atomicAdd(&tiles, t);
        }
        atomicAdd(&all_tiles, t);
    }
    __syncthreads();
    uint32_t at = pairs, end = at + count[e];
    for (uint32_t i = all_tiles + e * GROUP_THREADS + threadIdx.x; i < n_items;
         i += n_experts * GROUP_THREADS)
        items[i].n = 0;
    for (uint32_t t = threadIdx.x; t * tile < count[e]; t += GROUP_THREADS) {
        mfi_cuda_item item = {find(r, e), at + t * tile, min(count[e] - t * tile, tile)};
        items[tiles + t] = item;
    }
    for (uint32_t base = 0; base < n && at < end; base += GROUP_THREADS) {
        uint32_t i = base + threadIdx.x;
        bool mine = i < n && ids[i] == e;
        uint32_t mask = __ballot_sync(0xffffffff, mine);
        if (lane == 0)
            in_warp[warp] = __popc(mask);
        __syncthreads();
        uint32_t there = in_warp[lane], before = lane < warp ? there : 0;
#pragma unroll
        for (int d = 16; d > 0; d /= 2) {
            there += __shfl_xor_sync(0xffffffff, there, d);
            before += __shfl_xor_sync(0xffffffff, before, d);
        }
        if (mine) {
            uint32_t p = at + before + __popc(mask & ((1u << lane) - 1));
            r.x_row[p] = i / r.top_k;
            r.pair_of[i] = p;
        }
        at += there;
        __syncthreads();
    }
}

cudaError_t mfi_cuda_group(const mfi_cuda_route *r, uint32_t tile, mfi_cuda_item *items,
                           uint32_t n_items, cudaStream_t s)
{
    return start_early(group, dim3(r->n), GROUP_THREADS, r->n * sizeof(uint32_t), s, *r, tile,
                       items, n_items);
}
