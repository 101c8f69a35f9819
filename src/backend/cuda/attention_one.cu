/* A single token's attention in few kernels: norms, rotation and the cache's new row together with
 * scores and values of blocks of positions side by side, with the bits of attention.cu. Called by
 * the backend's thread; only queues work. */
#include "backend/cuda/attention_mma.cuh"
#include "backend/cuda/launch.cuh"

#define ONE_ROWS    16
#define ONE_WARPS   (ATT_WARPS + 2) /* two more for the new key and value */
#define ONE_THREADS (ONE_WARPS * 32)
#define ONE_DIM     256

/* What is there before the kernel in front has ended, and where the token's rows are made: in room
 * that split pieces take later. */
struct one_room {
    float *q_norm, *k_norm, *rope, *kv; /* rope: a row for each warp */
    float *queries;
    uint32_t ld_rope;
};

static __device__ __forceinline__ one_room one_room_of(const att_room &room, uint32_t dim,
                                                       uint32_t n_rot)
{
    one_room r;
    r.q_norm = (float *)room.parts;
    r.k_norm = r.q_norm + dim;
    r.kv = r.k_norm + dim;
    r.rope = r.kv + 2 * dim;
    r.ld_rope = n_rot;
    r.queries = (float *)(room.parts + ATT_PART + ATT_INV);
    return r;
}

static __device__ void take_norms(const mfi_cuda_prep &p, const one_room &r)
{
    for (uint32_t i = threadIdx.x; i < p.head_dim; i += ONE_THREADS) {
        r.q_norm[i] = p.q_norm ? p.q_norm[i] : 0;
        r.k_norm[i] = p.k_norm ? p.k_norm[i] : 0;
    }
    __syncthreads();
}

/* The new key or value: into the cache, and where a piece of the block's would be copied to. */
static __device__ void take_row(const mfi_cuda_prep &p, const one_room &r, uint32_t kv_head,
                                bool key, const float *rope, const att_room &room, bool direct)
{
    uint32_t lane = threadIdx.x % 32, kvw = p.n_kv_head * p.head_dim, pos = *p.pos;
    float *to = p.kv + (size_t)(p.ring ? pos % p.ring : pos) * 2 * kvw + kv_head * p.head_dim;
    float *x = r.kv + (key ? 0 : p.head_dim);
    const float *from = (key ? p.k : p.v) + kv_head * p.head_dim;
    to += key ? 0 : kvw;
    for (uint32_t i = lane; i < p.head_dim; i += 32)
        x[i] = from[i];
    __syncwarp();
    if (key)
        prep_head(p, p.k_norm ? r.k_norm : NULL, rope, x);
    for (uint32_t i = lane; i < p.head_dim; i += 32) {
        to[i] = x[i];
        if (direct)
            ((float *)att_raw_at(room, key, pos % BLOCK, i))[i % 4] = x[i];
    }
}

/* The token's queries of this block's heads in shared memory, and its key and value if this block
 * of positions has them. */
static __device__ void take_token(const mfi_cuda_prep &p, const one_room &r, const queries &q,
                                  uint32_t group, bool newest, const att_room &room, bool direct)
{
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float *rope = r.rope + warp * r.ld_rope;
    for (uint32_t i = lane; !p.unrotated && i < p.n_rot; i += 32)
        rope[i] = p.rope[i];
    for (uint32_t i = warp; warp < ATT_WARPS && i < q.n; i += ATT_WARPS) {
        float *x = r.queries + i * p.head_dim;
        uint32_t h = q.kv_head * group + q.first + i;
        for (uint32_t c = lane; c < p.head_dim; c += 32)
            x[c] = p.q[(size_t)h * p.q_stride + c];
        __syncwarp();
        prep_head(p, p.q_norm ? r.q_norm : NULL, rope, x);
    }
    __syncwarp();
    if (newest && warp >= ATT_WARPS)
        take_row(p, r, q.kv_head, warp == ATT_WARPS, rope, room, direct);
    __syncthreads();
}

static __global__ void __launch_bounds__(ONE_THREADS)
    attend_one(const __grid_constant__ mfi_cuda_attn a, const __grid_constant__ mfi_cuda_prep prep,
               uint32_t slots)
{
    extern __shared__ float4 shared[];
    queries q = queries_of(a, 0, ONE_ROWS);
    uint32_t last = *a.pos, block = first_block(a, last) + blockIdx.z;
    if (block * BLOCK > last)
        return;
    att_room room = att_room_of(a, shared, 1, slots);
    one_room r = one_room_of(room, a.dim, prep.n_rot);
    bool newest = block == last / BLOCK, mine = threadIdx.x < ATT_THREADS;
    /* Older positions needn't wait, and the newest comes by itself if all pieces have a slot. */
    bool direct = room.n_seg * 2 <= slots;
    att_walk w;
    if (mine && (direct || !newest))
        att_start(a, w, room, q.kv_head, block, block, last + 1, last);
    take_norms(prep, r);
    begin_wait();
    begin_next();
    take_token(prep, r, q, a.group, newest, room, direct);
    if (!mine)
        return;
    if (!direct && newest)
        att_start(a, w, room, q.kv_head, block, block, last + 1);
    att_queries(a, room, ONE_ROWS, [&](uint32_t i) -> const float * {
        return i < q.n ? r.queries + i * a.dim : NULL;
    });
    att_part(a, w, q, block);
}

bool mfi_cuda_attn_one_fits(const mfi_cuda_attn *a)
{
    /* The new key is turned where it lies in the cache, by one block of threads: more query heads
     * than it takes would bring a second. */
    return a->n_tok == 1 && a->group <= ONE_ROWS && a->partial && a->dim == a->dim_v &&
           a->dim % 4 == 0 && a->dim <= ONE_DIM;
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
