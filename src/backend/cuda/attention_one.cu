/* A single token's attention in one kernel, or two where it looks at many positions: norms,
 * rotation and the cache's new row together with scores and values of blocks of 64 positions side
 * by side, with the bits of attention.cu. Called by the backend's thread; only queues work.
 *
 * What counts here is the time from the kernel in front to the one behind: older keys and values
 * are fetched and split before this one may see its token, so that only the token's own rows and
 * the products stand behind the wait. Up to ONE_CLUSTER blocks read each other's sums where they
 * lie. */
#include "backend/cuda/attention_mma.cuh"
#include "backend/cuda/launch.cuh"

#define ONE_THREADS (ATT_THREADS + 64) /* two more warps for the new key and value */
#define ONE_ROWS    16
#define ONE_PIECE   (ATT_PART + ATT_INV)
#define ONE_VALUES  4 /* warps that weight values */
#define ONE_HELD    4 /* blocks' sums that a thread has at a time */
#define ONE_CLUSTER 8 /* blocks of threads that every device with clusters has side by side */

/* Shared memory. Sums take the place of keys. */
struct one_room {
    char *parts;  /* split keys, then values: S pieces each */
    uint4 *q;     /* [8 * R][16 * S] units */
    float *q_inv; /* [8 * R][S] */
    float *swap;  /* [8][32][2 * R]: scores on their way */
    float *rows;  /* [16][64 * S]: what a warp turns */
    float *sums;  /* [8 * R][64 * S] of values, */
    float *stat;  /* [8 * R][2]: the maximum and the sum of exponentials */
    uint32_t bytes;
};

static __host__ __device__ __forceinline__ one_room one_room_of(void *at, uint32_t r, uint32_t s)
{
    one_room room;
    char *p = (char *)at;
    room.parts = p;
    room.sums = (float *)p;
    p += 2 * s * ONE_PIECE;
    room.q = (uint4 *)p;
    p += 8 * r * s * 16 * 16;
    room.q_inv = (float *)p;
    p += 8 * r * s * 4;
    room.swap = (float *)p;
    p += 8 * 32 * 2 * r * 4;
    room.rows = (float *)p;
    p += ONE_ROWS * s * ATT_COLS * 4;
    room.stat = (float *)p;
    p += 8 * r * 2 * 4;
    room.bytes = (uint32_t)(p - (char *)at);
    return room;
}

/* ---- before the kernel in front has ended ---- */

/* Keys and values of positions from the block's first to `end`, split; nothing behind them. */
template <int S>
static __device__ __forceinline__ void one_older(const mfi_cuda_attn &a, const one_room &room,
                                                 uint32_t kv_head, uint32_t block, uint32_t end)
{
    const int N = 2; /* pieces on their way at a time */
    ATT_EACH(base, 2 * S / N)
    {
        float4 v[N][4];
        ATT_EACH(k, N) ATT_EACH(i, 4)
        {
            bool keys = base * N + k < S;
            uint32_t pos = block * BLOCK + att_row(keys, i);
            uint32_t col = (base * N + k) % S * ATT_COLS + threadIdx.x % 16 * 4;
            uint32_t first = keys ? kv_head * a.k_stride : a.v_offset + kv_head * a.v_stride;
            v[k][i] = pos < end ? __ldcg((const float4 *)(position(a, pos) + first + col))
                                : make_float4(0, 0, 0, 0);
        }
        ATT_EACH(k, N)
        {
            char *parts = room.parts + (base * N + k) * ONE_PIECE;
            if (base * N + k < S)
                att_split_keys(v[k], parts);
            else
                att_split_values(v[k], parts);
        }
    }
}

/* What a warp needs to turn a head, a lane's share of it: elements lane, lane + 32 and so on. */
template <int S> struct one_turner {
    float norm[2 * S], cosines[S], sines[S];
    bool normed;
};

template <int S>
static __device__ __forceinline__ one_turner<S> one_turner_of(const mfi_cuda_prep &p, bool key)
{
    one_turner<S> t;
    const float *norm = key ? p.k_norm : p.q_norm;
    uint32_t lane = threadIdx.x % 32, half = p.unrotated ? 0 : p.n_rot / 2;
    t.normed = norm;
    ATT_EACH(i, 2 * S) t.norm[i] = norm ? norm[lane + 32 * i] : 0;
    ATT_EACH(i, S)
    {
        t.cosines[i] = lane + 32 * i < half ? __ldcg(p.rope + lane + 32 * i) : 0;
        t.sines[i] = lane + 32 * i < half ? __ldcg(p.rope + half + lane + 32 * i) : 0;
    }
    return t;
}

/* ---- the token's rows ---- */

template <int S, int H>
static __device__ __forceinline__ void one_rotate(const one_turner<S> &t, float x[2 * S])
{
    ATT_EACH(i, H)
    {
        float a = x[i], b = x[i + H], c = t.cosines[i], s = t.sines[i];
        x[i] = a * c - b * s;
        x[i + H] = b * c + a * s;
    }
}

template <int S>
static __device__ __forceinline__ void one_norm(const one_turner<S> &t, float eps, float x[2 * S])
{
    float sq = 0;
    ATT_EACH(i, 2 * S) sq = fmaf(x[i], x[i], sq);
    float factor = 1.0f / sqrtf(warp_sum(sq) / (float)(S * ATT_COLS) + eps);
    ATT_EACH(i, 2 * S) x[i] = x[i] * factor * t.norm[i];
}

/* prep_head, of a head in registers. */
template <int S>
static __device__ __forceinline__ void one_head(const mfi_cuda_prep &p, const one_turner<S> &t,
                                                float x[2 * S])
{
    if (t.normed && !p.norm_after)
        one_norm<S>(t, p.eps, x);
    if (!p.unrotated) {
        if (p.n_rot == 64)
            one_rotate<S, 1>(t, x);
        if constexpr (S >= 2)
            if (p.n_rot == 128)
                one_rotate<S, 2>(t, x);
        if constexpr (S >= 4)
            if (p.n_rot == 256)
                one_rotate<S, 4>(t, x);
    }
    if (t.normed && p.norm_after)
        one_norm<S>(t, p.eps, x);
}

/* Hands each lane four columns of a row, unit by unit, with its segment's scale and the inverse. */
template <int S, class F>
static __device__ __forceinline__ void one_units(const one_room &room, const float x[2 * S], F take)
{
    uint32_t lane = threadIdx.x % 32;
    float *row = room.rows + threadIdx.x / 32 * S * ATT_COLS;
    ATT_EACH(i, 2 * S) row[lane + 32 * i] = x[i];
    __syncwarp();
    ATT_EACH(i, (S + 1) / 2)
    {
        uint32_t unit = lane + 32 * i;
        float4 v = ((const float4 *)row)[unit % (16 * S)];
        float inverse, scale = att_scale(att_row_max(att_most(v)), &inverse);
        if (unit < 16 * S)
            take(unit, v, scale, inverse);
    }
    __syncwarp();
}

template <int S>
static __device__ __forceinline__ void one_query(const one_room &room, uint32_t row,
                                                 const float x[2 * S])
{
    one_units<S>(room, x, [&](uint32_t unit, float4 v, float scale, float inverse) {
        room.q[att_at(row, 16 * S, unit)] = att_unit(v, scale);
        if (unit % 16 == 0)
            room.q_inv[row * S + unit / 16] = inverse;
    });
}

/* The new key or value among its block's split ones. */
template <int S>
static __device__ __forceinline__ void one_new(const one_room &room, bool key, uint32_t row,
                                               const float x[2 * S])
{
    one_units<S>(room, x, [&](uint32_t unit, float4 v, float scale, float inverse) {
        char *parts = room.parts + (unit / 16 + (key ? 0 : S)) * ONE_PIECE;
        if (unit % 16 == 0)
            ((float *)(parts + ATT_PART))[row] = inverse;
        if (key) {
            ((uint4 *)parts)[att_at(row, 16, unit % 16)] = att_unit(v, scale);
            return;
        }
        uint32_t hi[2], lo[2];
        att_split(v.x * scale, v.y * scale, &hi[0], &lo[0]);
        att_split(v.z * scale, v.w * scale, &hi[1], &lo[1]);
        uint16_t *to = (uint16_t *)parts + (row / 2 * ATT_PAIRS + unit % 16 * 4) * 2 + row % 2;
        ATT_EACH(i, 4)
        {
            to[2 * i] = (uint16_t)(hi[i / 2] >> (i % 2 * 16));
            to[BLOCK * ATT_PAIRS + 2 * i] = (uint16_t)(lo[i / 2] >> (i % 2 * 16));
        }
    });
}

/* Queries of this block's heads, and its key and value if it has the newest position. */
template <int S>
static __device__ __forceinline__ void one_take(const mfi_cuda_prep &p, const one_turner<S> &t,
                                                const one_room &room, uint32_t kv_head,
                                                uint32_t group, uint32_t pos, bool newest)
{
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float x[2 * S];
    if (warp < ATT_WARPS) {
#pragma unroll 1
        for (uint32_t h = warp; h < group; h += ATT_WARPS) {
            const float *q = p.q + (size_t)(kv_head * group + h) * p.q_stride;
            ATT_EACH(i, 2 * S) x[i] = __ldcg(q + lane + 32 * i);
            one_head<S>(p, t, x);
            one_query<S>(room, h, x);
        }
    } else if (newest) {
        bool key = warp == ATT_WARPS;
        const float *row = (key ? p.k : p.v) + kv_head * p.head_dim;
        uint32_t kvw = p.n_kv_head * p.head_dim;
        float *to = p.kv + (size_t)(p.ring ? pos % p.ring : pos) * 2 * kvw + kv_head * p.head_dim;
        ATT_EACH(i, 2 * S) x[i] = __ldcg(row + lane + 32 * i);
        if (key)
            one_head<S>(p, t, x);
        ATT_EACH(i, 2 * S) to[(key ? 0 : kvw) + lane + 32 * i] = x[i];
        one_new<S>(room, key, pos % BLOCK, x);
    }
}

/* ---- products ---- */

/* att_scores of one tile, its segments side by side. */
template <int R, int S>
static __device__ __forceinline__ void one_scores(const one_room &room, uint32_t tile, float s[4])
{
    uint32_t g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    float big[S][4], small[S][4];
    ATT_EACH(n, S) ATT_EACH(i, 4) big[n][i] = small[n][i] = 0;
    ATT_EACH(k, ATT_COLS / 16)
    {
        uint4 x[S], y[S], v[S];
        ATT_EACH(n, S)
        {
            x[n] = room.q[att_at(g, 16 * S, n * 16 + k * 4 + t)];
            y[n] =
                R > 1 ? room.q[att_at(g + 8, 16 * S, n * 16 + k * 4 + t)] : make_uint4(0, 0, 0, 0);
            v[n] =
                ((const uint4 *)(room.parts + n * ONE_PIECE))[att_at(tile * 8 + g, 16, k * 4 + t)];
        }
        ATT_EACH(n, S)
        {
            uint32_t hi[4] = {x[n].x, y[n].x, x[n].y, y[n].y};
            uint32_t lo[4] = {x[n].z, y[n].z, x[n].w, y[n].w};
            att_mma(small[n], lo, v[n].x, v[n].y);
            att_mma(big[n], hi, v[n].x, v[n].y);
            att_mma(small[n], hi, v[n].z, v[n].w);
        }
    }
    ATT_EACH(i, 4) s[i] = 0;
    ATT_EACH(n, S)
    {
        const float *inv = (const float *)(room.parts + n * ONE_PIECE + ATT_PART);
        float2 f = *(const float2 *)(inv + tile * 8 + 2 * t);
        float qa = room.q_inv[g * S + n], qb = R > 1 ? room.q_inv[(g + 8) * S + n] : 0;
        ATT_EACH(i, 4)
        s[i] += (big[n][i] + small[n][i]) * (i % 2 ? f.y : f.x) * (i < 2 ? qa : qb);
    }
}

/* Scores of all tiles, as the warps that weight values take them. */
template <int R>
static __device__ __forceinline__ void one_swap(const one_room &room, uint32_t tile,
                                                const float s[4])
{
    uint32_t lane = threadIdx.x % 32;
    if (R > 1)
        ((float4 *)room.swap)[tile * 32 + lane] = make_float4(s[0], s[1], s[2], s[3]);
    else
        ((float2 *)room.swap)[tile * 32 + lane] = make_float2(s[0], s[1]);
}

template <int R>
static __device__ __forceinline__ void one_swapped(const one_room &room, float p[8][4])
{
    uint32_t lane = threadIdx.x % 32;
    ATT_EACH(n, 8)
    {
        float4 v = make_float4(0, 0, 0, 0);
        if (R > 1) {
            v = ((const float4 *)room.swap)[n * 32 + lane];
        } else {
            float2 u = ((const float2 *)room.swap)[n * 32 + lane];
            v.x = u.x, v.y = u.y;
        }
        p[n][0] = v.x, p[n][1] = v.y, p[n][2] = v.z, p[n][3] = v.w;
    }
}

/* Where a block's sums go: its own shared memory, or the partial sums that a merge takes. */
struct one_target {
    float *sums, *stat;
    uint32_t ld_sums, ld_stat;
};

template <int R, int S>
static __device__ __forceinline__ void one_values(const mfi_cuda_attn &a, const one_room &room,
                                                  uint32_t block, uint32_t last,
                                                  const one_target &to)
{
    const int TILES = 8 * S / ONE_VALUES, N = TILES < 2 ? TILES : 2; /* of 8 columns */
    uint32_t warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    uint32_t seg = warp * S / ONE_VALUES, first = warp * TILES % 8;
    const char *parts = room.parts + (S + seg) * ONE_PIECE;
    uint32_t hi[4][4], lo[4][4];
    float p[8][4], inv[2] = {0, 0}, out[N][4];
    att_pair pair;
    ATT_EACH(r, 2)
    {
        pair.there[r] = g + 8 * r < a.group;
        pair.last[r] = last;
    }
    one_swapped<R>(room, p);
    att_softmax<R>(a, block, pair, p);
    if (warp == 0 && t == 0)
        ATT_EACH(r, R)
    if (pair.there[r]) {
        to.stat[(g + 8 * r) * to.ld_stat] = pair.max[r];
        to.stat[(g + 8 * r) * to.ld_stat + 1] = pair.sum[r];
    }
    att_weights<R>(p, parts, hi, lo, inv);
    ATT_EACH(round, TILES / N)
    {
        att_values<N>(parts, first + round * N, hi, lo, inv, out);
        ATT_EACH(n, N)
        ATT_EACH(r, R)
            if (pair.there[r]) * (float2 *)(to.sums + (size_t)(g + 8 * r) * to.ld_sums +
                                            seg * ATT_COLS + (first + round * N + n) * 8 + 2 * t) =
            make_float2(out[n][2 * r], out[n][2 * r + 1]);
    }
}

/* ---- joining ---- */

static __device__ __forceinline__ void cluster_arrive(void)
{
    __syncwarp();
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.aligned;" ::: "memory");
#endif
}

static __device__ __forceinline__ void cluster_wait(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
#endif
}

/* An address of this block's shared memory as that of block `rank` of the cluster. */
static __device__ __forceinline__ uint32_t cluster_at(const void *at, uint32_t rank)
{
    uint32_t there = (uint32_t)__cvta_generic_to_shared(at);
#if __CUDA_ARCH__ >= 900
    asm("mapa.shared::cluster.u32 %0, %0, %1;" : "+r"(there) : "r"(rank));
#endif
    return there;
}

static __device__ __forceinline__ float4 cluster_float4(uint32_t at)
{
    float4 v = make_float4(0, 0, 0, 0);
#if __CUDA_ARCH__ >= 900
    asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(at)
                 : "memory");
#endif
    return v;
}

static __device__ __forceinline__ float2 cluster_float2(uint32_t at)
{
    float2 v = make_float2(0, 0);
#if __CUDA_ARCH__ >= 900
    asm volatile("ld.shared::cluster.v2.f32 {%0,%1}, [%2];"
                 : "=f"(v.x), "=f"(v.y)
                 : "r"(at)
                 : "memory");
#endif
    return v;
}

/* This block's share of the heads' outputs, of n blocks' sums. */
template <int S>
static __device__ __forceinline__ void one_join(const mfi_cuda_attn &a, const one_room &room,
                                                uint32_t kv_head, uint32_t rank, uint32_t n)
{
    uint32_t quads = a.group * S * 16, per = (quads + n - 1) / n;
    uint32_t end = min(quads, (rank + 1) * per);
#pragma unroll 1
    for (uint32_t i = rank * per + threadIdx.x; i < end; i += ONE_THREADS) {
        uint32_t row = i / (S * 16), col = i % (S * 16) * 4, h = kv_head * a.group + row;
        float max = a.sinks ? a.sinks[h] : -CUDART_INF_F, sum = a.sinks ? 1 : 0;
        float out[4] = {0, 0, 0, 0};
#pragma unroll 1
        for (uint32_t base = 0; base < n; base += ONE_HELD) {
            float4 v[ONE_HELD];
            float2 stat[ONE_HELD];
            ATT_EACH(b, ONE_HELD)
            if (base + b < n) {
                v[b] = cluster_float4(cluster_at(room.sums + row * S * ATT_COLS + col, base + b));
                stat[b] = cluster_float2(cluster_at(room.stat + row * 2, base + b));
            }
            ATT_EACH(b, ONE_HELD)
            if (base + b < n) {
                float old, fresh;
                merge(stat[b].x, &max, &old, &fresh);
                sum = fmaf(stat[b].y, fresh, sum * old);
                out[0] = fmaf(v[b].x, fresh, out[0] * old);
                out[1] = fmaf(v[b].y, fresh, out[1] * old);
                out[2] = fmaf(v[b].z, fresh, out[2] * old);
                out[3] = fmaf(v[b].w, fresh, out[3] * old);
            }
        }
        ATT_EACH(k, 4) finish(a, 0, h, col + k, sum, out[k]);
    }
}

/* ---- the kernel ---- */

template <int R, int S>
static __global__ void __launch_bounds__(320)
    attend_one(const __grid_constant__ mfi_cuda_attn a, const __grid_constant__ mfi_cuda_prep prep,
               bool joined)
{
    extern __shared__ float4 shared[];
    uint32_t warp = threadIdx.x / 32, last = *a.pos, from = first_block(a, last);
    uint32_t kv_head = blockIdx.y, block = from + blockIdx.z;
    if (block * BLOCK > last)
        return;
    one_room room = one_room_of(shared, R, S);
    bool newest = block == last / BLOCK;
    uint32_t n_blocks = last / BLOCK + 1 - from;
    if (warp < ATT_WARPS)
        one_older<S>(a, room, kv_head, block, last);
    one_target to = {room.sums, room.stat, S * ATT_COLS, 2};
    if (!joined) {
        uint32_t ld = a.n_blocks_max * (a.dim_v + 2);
        to.stat = a.partial + (size_t)kv_head * a.group * ld + (block - from) * (a.dim_v + 2);
        to.sums = to.stat + 2;
        to.ld_sums = to.ld_stat = ld;
    }
    /* Rows of no head have nothing in them. */
    for (uint32_t i = threadIdx.x; i < 8 * R * 16 * S; i += ONE_THREADS)
        room.q[i] = make_uint4(0, 0, 0, 0);
    for (uint32_t i = threadIdx.x; i < 8 * R * S; i += ONE_THREADS)
        room.q_inv[i] = 0;
    __syncthreads();
    one_turner<S> turner = one_turner_of<S>(prep, warp == ATT_WARPS);
    begin_wait();
    begin_next();
    one_take<S>(prep, turner, room, kv_head, a.group, last, newest);
    __syncthreads();
    if (warp < ATT_WARPS) {
        float s[4];
        one_scores<R, S>(room, warp, s);
        one_swap<R>(room, warp, s);
        att_sync();
        if (warp < ONE_VALUES)
            one_values<R, S>(a, room, block, last, to);
    }
    if (!joined)
        return;
    cluster_arrive();
    cluster_wait();
    one_join<S>(a, room, kv_head, block - from, n_blocks);
    cluster_arrive(); /* others may still read what is here */
    cluster_wait();
}

/* ---- starting ---- */

typedef void (*one_kernel)(const mfi_cuda_attn, const mfi_cuda_prep, bool);

static one_kernel kernel_of(const mfi_cuda_attn *a)
{
    static const one_kernel of[2][3] = {{attend_one<1, 1>, attend_one<1, 2>, attend_one<1, 4>},
                                        {attend_one<2, 1>, attend_one<2, 2>, attend_one<2, 4>}};
    return of[a->group > 8][a->dim / (2 * ATT_COLS)];
}

static uint32_t bytes_of(const mfi_cuda_attn *a)
{
    return one_room_of(NULL, a->group > 8 ? 2 : 1, a->dim / ATT_COLS).bytes;
}

bool mfi_cuda_attn_one_fits(const mfi_cuda_attn *a, const mfi_cuda_prep *p)
{
    /* One block of threads has a position's key: more query heads than it takes would bring a
     * second. */
    bool dim = a->dim == a->dim_v && (a->dim == 64 || a->dim == 128 || a->dim == 256);
    bool turns = p->unrotated ||
                 (p->n_rot <= a->dim && (p->n_rot == 64 || p->n_rot == 128 || p->n_rot == 256));
    bool wide = ((uintptr_t)a->kv & 15) == 0 &&
                ((a->row | a->v_offset | a->k_stride | a->v_stride) & 3) == 0;
    return a->n_tok == 1 && a->group <= ONE_ROWS && a->partial && dim && turns && wide &&
           bytes_of(a) <= mfi_cuda_attn_room();
}

/* Blocks of threads of a cluster, in which blocks of positions are joined; 0: they are not. */
static uint32_t cluster_of(const mfi_cuda_attn *a)
{
    uint32_t n = 1;
    while (n < a->n_blocks_max)
        n *= 2;
    return can_begin_early() && n <= ONE_CLUSTER ? n : 0;
}

cudaError_t mfi_cuda_attn_one(const mfi_cuda_attn *a, const mfi_cuda_prep *p, cudaStream_t s)
{
    uint32_t room = bytes_of(a), cluster = cluster_of(a);
    one_kernel kernel = kernel_of(a);
    cudaError_t e = mfi_cuda_attn_allow((const void *)kernel, room);
    if (e != cudaSuccess)
        return e;
    dim3 grid(1, a->n_head / a->group, cluster ? cluster : a->n_blocks_max);
    e = start_early_in(dim3(1, 1, cluster ? cluster : 1), kernel, grid, ONE_THREADS, room, s, *a,
                       *p, cluster > 0);
    return e == cudaSuccess && !cluster ? mfi_cuda_attn_merge(a, s) : e;
}
