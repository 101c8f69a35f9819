/* A single token's attention in few kernels: norms, rotation and the cache's new row together with
 * scores and values of blocks of positions side by side, with the bits of attention.cu. Called by
 * the backend's thread; only queues work. */
#include "backend/cuda/attention_mma.cuh"
#include "backend/cuda/launch.cuh"

#define ONE_ROWS    16
#define ONE_THREADS (ATT_THREADS + 64) /* two warps more for the new key and value */
#define ONE_DIM     256

/* The token's queries of this block's heads in shared memory, and its key and value in the cache if
 * this block of positions has them. */
static __device__ void take_token(const mfi_cuda_prep &p, const queries &q, uint32_t group,
                                  bool newest, float *qs)
{
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, kvw = p.n_kv_head * p.head_dim;
    for (uint32_t i = warp; warp < ATT_WARPS && i < q.n; i += ATT_WARPS) {
        float *x = qs + i * p.head_dim;
        uint32_t h = q.kv_head * group + q.first + i;
        for (uint32_t c = lane; c < p.head_dim; c += 32)
            x[c] = p.q[(size_t)h * p.q_stride + c];
        __syncwarp();
        prep_head(p, p.q_norm, p.rope, x);
    }
    if (newest && warp >= ATT_WARPS) {
        uint32_t row = *p.pos;
        float *to = p.kv + (size_t)(p.ring ? row % p.ring : row) * 2 * kvw + q.kv_head * p.head_dim;
        const float *from = (warp == ATT_WARPS ? p.k : p.v) + q.kv_head * p.head_dim;
        to += warp == ATT_WARPS ? 0 : kvw;
        for (uint32_t c = lane; c < p.head_dim; c += 32)
            to[c] = from[c];
        __syncwarp();
        if (warp == ATT_WARPS)
            prep_head(p, p.k_norm, p.rope, to);
    }
    __syncthreads();
}

static __global__ void __launch_bounds__(ONE_THREADS)
    attend_one(const __grid_constant__ mfi_cuda_attn a, const __grid_constant__ mfi_cuda_prep prep,
               uint32_t slots)
{
    extern __shared__ float4 shared[];
    begin_wait();
    begin_next();
    queries q = queries_of(a, 0, ONE_ROWS);
    uint32_t last = *a.pos, block = first_block(a, last) + blockIdx.z;
    if (block * BLOCK > last)
        return;
    bool newest = block == last / BLOCK, mine = threadIdx.x < ATT_THREADS;
    att_room room = att_room_of(a, shared, 1, slots);
    att_walk w;
    /* Split queries are elsewhere, and the second piece is split when nobody needs these. */
    float *qs = (float *)(room.parts + ATT_PART + ATT_INV);
    if (!newest && mine)
        att_start(a, w, room, q.kv_head, block, block, last + 1);
    take_token(prep, q, a.group, newest, qs);
    if (!mine)
        return;
    if (newest)
        att_start(a, w, room, q.kv_head, block, block, last + 1);
    att_queries(a, room, ONE_ROWS,
                [&](uint32_t i) -> const float * { return i < q.n ? qs + i * a.dim : NULL; });
    att_part(a, w, q, block);
}

bool mfi_cuda_attn_one_fits(const mfi_cuda_attn *a)
{
    /* The new key is turned where it lies in the cache, by one block of threads: more query heads
     * than it takes would bring a second. */
    return a->n_tok == 1 && a->group <= ONE_ROWS && a->partial && a->dim == a->dim_v &&
           a->dim <= ONE_DIM;
}

cudaError_t mfi_cuda_attn_one(const mfi_cuda_attn *a, const mfi_cuda_prep *p, cudaStream_t s)
{
    uint32_t slots = mfi_cuda_attn_slots(a), room = att_room_of(*a, NULL, 1, slots).bytes;
    dim3 grid(1, a->n_head / a->group, a->n_blocks_max);
    cudaError_t e = mfi_cuda_attn_allow((const void *)attend_one, room);
    if (e == cudaSuccess)
        e = start_early(attend_one, grid, ONE_THREADS, room, s, *a, *p, slots);
    return e == cudaSuccess ? mfi_cuda_attn_merge(a, s) : e;
}
