/* Attention on the device, grouped or latent: prepares queries and keys, and attends.
 *
 * A block of threads has up to 128 queries that share keys and values: heads of tokens in a row.
 * Positions come in blocks of 64 from multiples of 64 on; each block's softmax and sums start from
 * nothing (attention_mma.cuh) and are merged in rising order, side by side for few tokens and one
 * after another for many, with the same bits. Called by the backend's thread; only queues work. */
#include "backend/cuda/attention_mma.cuh"
#include "backend/cuda/launch.cuh"

#define MERGE_THREADS 128

/* ---- preparing ---- */

static __global__ void prep(mfi_cuda_prep p)
{
    begin_wait();
    begin_next();
    uint32_t t = blockIdx.y, h = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    uint32_t lane = threadIdx.x % 32, kvw = p.n_kv_head * p.head_dim;
    const float *cosines = p.rope + (size_t)t * p.ldr;
    if (h < p.n_head) {
        prep_head(p, p.q_norm, cosines, p.q + (size_t)t * p.ldq + (size_t)h * p.q_stride);
        return;
    }
    h -= p.n_head;
    if (h >= p.n_kv_head)
        return;
    uint32_t row = *p.pos + t;
    float *key = p.kv + (size_t)(p.ring ? row % p.ring : row) * 2 * kvw + h * p.head_dim;
    for (uint32_t i = lane; i < p.head_dim; i += 32) {
        key[i] = p.k[(size_t)t * p.ldk + h * p.head_dim + i];
        key[kvw + i] = p.v[(size_t)t * p.ldv + h * p.head_dim + i];
    }
    __syncwarp();
    prep_head(p, p.k_norm, cosines, key);
}

cudaError_t mfi_cuda_attn_prep(const mfi_cuda_prep *p, cudaStream_t s)
{
    return start_early(prep, dim3((p->n_head + p->n_kv_head + 3) / 4, p->n_tok), 128, 0, s, *p);
}

static __device__ void rotate(const mfi_cuda_latent &l, const float *cosines, float *x)
{
    uint32_t half = l.n_rot / 2;
    for (uint32_t i = threadIdx.x % 32; i < half; i += 32) {
        uint32_t first = l.pairs ? 2 * i : i, second = l.pairs ? 2 * i + 1 : i + half;
        float a = x[first], b = x[second], c = cosines[i], s = cosines[half + i];
        x[first] = a * c - b * s;
        x[second] = b * c + a * s;
    }
}

static __global__ void latent_prep(mfi_cuda_latent l)
{
    begin_wait();
    begin_next();
    uint32_t t = blockIdx.y, h = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    uint32_t lane = threadIdx.x % 32;
    const float *cosines = l.rope + (size_t)t * l.ldr;
    if (h < l.n_head) {
        rotate(l, cosines, l.q + (size_t)t * l.ldq + (size_t)h * l.head_dim + l.nope);
        return;
    }
    if (h > l.n_head)
        return;
    const float *in = l.kva + (size_t)t * l.ldk;
    float *row = l.kv + (size_t)(*l.pos + t) * (l.latent + l.n_rot), sq = 0;
    for (uint32_t i = lane; i < l.latent; i += 32)
        sq = fmaf(in[i], in[i], sq);
    float factor = 1.0f / sqrtf(warp_sum(sq) / (float)l.latent + l.eps);
    for (uint32_t i = lane; i < l.latent; i += 32)
        row[i] = in[i] * factor * l.norm[i];
    for (uint32_t i = lane; i < l.n_rot; i += 32)
        row[l.latent + i] = in[l.latent + i];
    __syncwarp();
    rotate(l, cosines, row + l.latent);
}

cudaError_t mfi_cuda_latent_prep(const mfi_cuda_latent *l, cudaStream_t s)
{
    return start_early(latent_prep, dim3((l->n_head + 4) / 4, l->n_tok), 128, 0, s, *l);
}

static __global__ void latent_tail(const float *q, uint32_t ldq, uint32_t head_dim, uint32_t nope,
                                   uint32_t n_rot, uint32_t latent, uint32_t n_head, float *y,
                                   uint32_t ldy)
{
    begin_wait();
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x, h = i / n_rot, k = i % n_rot;
    if (h < n_head)
        y[(size_t)blockIdx.y * ldy + (size_t)h * (latent + n_rot) + latent + k] =
            q[(size_t)blockIdx.y * ldq + (size_t)h * head_dim + nope + k];
}

cudaError_t mfi_cuda_latent_tail(const float *q, uint32_t ldq, uint32_t head_dim, uint32_t nope,
                                 uint32_t n_rot, uint32_t latent, uint32_t n_head, uint32_t n_tok,
                                 float *y, uint32_t ldy, cudaStream_t s)
{
    if (n_rot > 0)
        latent_tail<<<dim3((n_head * n_rot + 127) / 128, n_tok), 128, 0, s>>>(
            q, ldq, head_dim, nope, n_rot, latent, n_head, y, ldy);
    return cudaGetLastError();
}

/* ---- attending ---- */

static __device__ __forceinline__ void split_queries(const mfi_cuda_attn &a, const queries &q,
                                                     const att_room &room, uint32_t n_rows)
{
    att_queries(a, room, n_rows, [&](uint32_t i) -> const float * {
        return i < q.n
                   ? a.q + (size_t)token_of(a, q, i) * a.ldq + (size_t)head_of(a, q, i) * a.q_stride
                   : NULL;
    });
}

/* Side by side: a block of positions a block of threads. */
static __global__ void __launch_bounds__(ATT_THREADS)
    attend_part(const __grid_constant__ mfi_cuda_attn a, uint32_t slots)
{
    extern __shared__ float4 shared[];
    begin_wait();
    begin_next();
    queries q = queries_of(a, blockIdx.x, 16);
    uint32_t last = *a.pos + token_of(a, q, q.n - 1);
    uint32_t block = first_block(a, *a.pos + token_of(a, q, 0)) + blockIdx.z;
    if (block * BLOCK > last)
        return;
    att_walk w;
    att_start(a, w, att_room_of(a, shared, 1, slots), q.kv_head, block, block, last + 1);
    split_queries(a, q, w.room, 16);
    att_part(a, w, q, block);
}

static __global__ void __launch_bounds__(MERGE_THREADS) attend_merge(mfi_cuda_attn a)
{
    uint32_t h = blockIdx.x, t = blockIdx.y, last = *a.pos + t;
    begin_wait();
    begin_next();
    uint32_t n = last / BLOCK + 1 - first_block(a, last);
    const float *from = a.partial + ((size_t)t * a.n_head + h) * a.n_blocks_max * (a.dim_v + 2);
    for (uint32_t c = threadIdx.x; c < a.dim_v; c += MERGE_THREADS) {
        float max = a.sinks ? a.sinks[h] : -CUDART_INF_F, sum = a.sinks ? 1 : 0, out = 0;
#pragma unroll 8
        for (uint32_t b = 0; b < n; b++) {
            const float *part = from + (size_t)b * (a.dim_v + 2);
            float old, fresh;
            merge(part[0], &max, &old, &fresh);
            sum = fmaf(part[1], fresh, sum * old);
            out = fmaf(part[2 + c], fresh, out * old);
        }
        finish(a, t, h, c, sum, out);
    }
}

/* One after another: CG warps share 16 queries, and have NT tiles of 8 of each piece's columns. */
template <int CHUNKS, int CG>
static __global__ void __launch_bounds__(ATT_THREADS)
    attend_walk(const __grid_constant__ mfi_cuda_attn a, uint32_t slots)
{
    const int RG = ATT_WARPS / CG, NT = 8 / CG, STEP = NT < 4 ? NT : 4;
    extern __shared__ float4 shared[];
    uint32_t warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, n = 0;
    uint32_t cg = warp % CG;
    begin_wait();
    /* The longest walks begin first. */
    queries q = queries_of(a, gridDim.x - 1 - blockIdx.x, 16 * RG);
    uint32_t last = *a.pos + token_of(a, q, q.n - 1);
    uint32_t block = first_block(a, *a.pos + token_of(a, q, 0));
    att_walk w;
    att_start(a, w, att_room_of(a, shared, RG, slots), q.kv_head, block, last / BLOCK, last + 1);
    split_queries(a, q, w.room, 16 * RG);
    att_pair pair = att_pair_of(a, q, warp / CG);
    float top[2], total[2], all[CHUNKS][NT][4];
    ATT_EACH(r, 2)
    {
        uint32_t i = warp / CG * 16 + g + r * 8;
        bool sink = a.sinks && i < q.n;
        top[r] = sink ? a.sinks[head_of(a, q, i)] : -CUDART_INF_F;
        total[r] = sink ? 1 : 0;
    }
    ATT_EACH(i, CHUNKS * NT * 4) all[i / 4 / NT][i / 4 % NT][i % 4] = 0;
    att_step(a, w);
    att_sync();
    for (; block <= w.last_block; block++) {
        float p[8][4], old[2], fresh[2];
        att_block<CG>(a, w, block, &n, pair, p);
        ATT_EACH(r, 2)
        {
            merge(pair.max[r], &top[r], &old[r], &fresh[r]);
            total[r] = fmaf(pair.sum[r], fresh[r], total[r] * old[r]);
        }
        ATT_EACH(c, CHUNKS)
        {
            if (c * ATT_COLS >= a.dim_v)
                break;
            const char *parts = w.room.parts + n++ % 2 * (ATT_PART + ATT_INV);
            uint32_t hi[4][4], lo[4][4];
            float inv[2], out[STEP][4];
            att_step(a, w);
            att_weights(p, parts, hi, lo, inv);
            ATT_EACH(j, NT / STEP)
            {
                att_values<STEP>(parts, cg * NT + j * STEP, hi, lo, inv, out);
                ATT_EACH(i, STEP * 4)
                {
                    float &sum = all[c][j * STEP + i / 4][i % 4];
                    sum = fmaf(out[i / 4][i % 4], fresh[i % 4 / 2], sum * old[i % 4 / 2]);
                }
            }
            att_sync();
        }
    }
    ATT_EACH(c, CHUNKS) ATT_EACH(j, NT) ATT_EACH(i, 4)
    {
        uint32_t u = warp / CG * 16 + g + i / 2 * 8;
        uint32_t col = c * ATT_COLS + (cg * NT + j) * 8 + 2 * t + i % 2;
        if (u < q.n && col < a.dim_v)
            finish(a, token_of(a, q, u), head_of(a, q, u), col, total[i / 2], all[c][j][i]);
    }
}

cudaError_t mfi_cuda_attn_merge(const mfi_cuda_attn *a, cudaStream_t s)
{
    return start_early(attend_merge, dim3(a->n_head, a->n_tok), MERGE_THREADS, 0, s, *a);
}

template <int CHUNKS, int CG> static cudaError_t walk(const mfi_cuda_attn *a, cudaStream_t s)
{
    const uint32_t rows = 16 * (ATT_WARPS / CG);
    uint32_t slots = 1, room = att_room_of(*a, NULL, ATT_WARPS / CG, slots).bytes;
    cudaError_t e = mfi_cuda_attn_allow((const void *)attend_walk<CHUNKS, CG>, room);
    if (e != cudaSuccess)
        return e;
    dim3 grid((a->n_tok * a->group + rows - 1) / rows, a->n_head / a->group);
    attend_walk<CHUNKS, CG><<<grid, ATT_THREADS, room, s>>>(*a, slots);
    return cudaGetLastError();
}

/* More queries side by side where their parts have room. */
template <int CHUNKS, int CG, int CG_SMALL>
static cudaError_t start(const mfi_cuda_attn *a, cudaStream_t s)
{
    return att_room_of(*a, NULL, ATT_WARPS / CG, 1).bytes <= mfi_cuda_attn_room()
               ? walk<CHUNKS, CG>(a, s)
               : walk<CHUNKS, CG_SMALL>(a, s);
}

uint32_t mfi_cuda_attn_room(void)
{
    int device = 0, room = 0;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&room, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) !=
            cudaSuccess)
        return 0;
    return (uint32_t)room;
}

cudaError_t mfi_cuda_attn_allow(const void *kernel, uint32_t room)
{
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)room);
}

uint32_t mfi_cuda_attn_slots(const mfi_cuda_attn *a)
{
    uint32_t pieces = (a->dim + ATT_COLS - 1) / ATT_COLS + (a->dim_v + ATT_COLS - 1) / ATT_COLS;
    for (uint32_t slots = pieces > 4 ? 8 : 4; slots > 1; slots -= 4)
        if (att_room_of(*a, NULL, 1, slots).bytes <= mfi_cuda_attn_room())
            return slots;
    return 1;
}

static cudaError_t parts(const mfi_cuda_attn *a, cudaStream_t s)
{
    uint32_t slots = mfi_cuda_attn_slots(a), room = att_room_of(*a, NULL, 1, slots).bytes;
    dim3 grid((a->n_tok * a->group + 15) / 16, a->n_head / a->group, a->n_blocks_max);
    cudaError_t e = mfi_cuda_attn_allow((const void *)attend_part, room);
    if (e == cudaSuccess)
        e = start_early(attend_part, grid, ATT_THREADS, room, s, *a, slots);
    return e == cudaSuccess ? mfi_cuda_attn_merge(a, s) : e;
}

cudaError_t mfi_cuda_attn_run(const mfi_cuda_attn *a, cudaStream_t s)
{
    if (a->partial)
        return parts(a, s);
    if (a->dim_v <= ATT_COLS)
        return start<1, 1, 4>(a, s);
    if (a->dim_v <= 2 * ATT_COLS)
        return start<2, 1, 4>(a, s);
    if (a->dim_v <= 4 * ATT_COLS)
        return start<4, 2, 8>(a, s);
    if (a->dim_v <= 8 * ATT_COLS)
        return start<8, 4, 8>(a, s);
    return walk<16, 8>(a, s);
}
