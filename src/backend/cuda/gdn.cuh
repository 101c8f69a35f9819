/* The delta rule for heads of the usual sizes.
 *
 * A head's state is [k_dim][v_dim], and its columns don't know of each other: a block of threads
 * has some of them, GDN_LANES threads a pair of columns. What is between two steps is a product of
 * key and state, summed over the lanes; the query's product waits for nothing and is done in its
 * shade, a step late. Rows of k and q stay as they are in shared memory: the factor that gives them
 * unit length goes to the sums.
 *
 * Order of sums, for one token as for many: a lane's rows are 4l .. 4l + 3 of each 4 * GDN_LANES,
 * summed in four chains by row mod 4, (0 + 1) + (2 + 3), then over the lanes pairwise, (l, l ^ 4),
 * (l, l ^ 2), (l, l ^ 1). */
#ifndef MFI_BACKEND_CUDA_GDN_CUH
#define MFI_BACKEND_CUDA_GDN_CUH

#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/reduce.cuh"
#include "backend/cuda/stage.cuh"

#define GDN_LANES      8
#define GDN_BLOCK_COLS 16  /* columns of a block of threads */
#define GDN_MAX_COLS   128 /* of a head */
#define GDN_TILE       32  /* tokens in shared memory at a time */

static __device__ __forceinline__ float gdn_silu(float x)
{
    return x / (1 + expf(-x));
}

static __device__ __forceinline__ float gdn_decay(float a, float dt, float neg_exp_a)
{
    float x = a + dt, soft = (x > 0 ? x : 0) + log1pf(expf(-fabsf(x)));
    return expf(neg_exp_a * soft);
}

static __device__ __forceinline__ float gdn_beta(float b)
{
    return 1 / (1 + expf(-b));
}

static __device__ __forceinline__ uint32_t gdn_k_head(const mfi_cuda_gdn &g, uint32_t h)
{
    return g.tiled ? h % g.k_heads : h / (g.v_heads / g.k_heads);
}

/* Norm and gate of outputs, a warp a token and head. */
static __global__ void __launch_bounds__(128) gdn_gates(mfi_cuda_gdn g)
{
    constexpr uint32_t N = GDN_MAX_COLS / 32;
    begin_wait();
    begin_next();
    uint32_t i = blockIdx.x * 4 + threadIdx.x / 32, t = i / g.v_heads, h = i % g.v_heads;
    uint32_t lane = threadIdx.x % 32;
    if (t >= g.n_tok)
        return;
    const float *z = g.z + (size_t)t * g.ld_z + (size_t)h * g.v_dim + lane;
    float *out = g.out + (size_t)t * g.ldo + (size_t)h * g.v_dim + lane;
    float v[N], gate[N], sq = 0;
#pragma unroll
    for (uint32_t c = 0; c < N; c++) {
        bool there = c * 32 + lane < g.v_dim;
        v[c] = there ? out[c * 32] : 0;
        gate[c] = there ? z[c * 32] : 0;
    }
#pragma unroll
    for (uint32_t c = 0; c < N; c++)
        sq = fmaf(v[c], v[c], sq);
    float factor = 1.0f / sqrtf(warp_sum(sq) / (float)g.v_dim + g.eps);
#pragma unroll
    for (uint32_t c = 0; c < N; c++)
        if (c * 32 + lane < g.v_dim)
            out[c * 32] = gdn_silu(gate[c]) * (v[c] * factor * g.norm[c * 32 + lane]);
}

static __device__ __forceinline__ void gdn_copy_float(float *to, const float *from)
{
    asm volatile(
        "cp.async.ca.shared.global [%0], [%1], 4;" ::"r"((uint32_t)__cvta_generic_to_shared(to)),
        "l"(from)
        : "memory");
}

/* Tokens in shared memory. Rows are 8 floats longer than q and k: threads that read the same
 * columns of neighbouring rows meet no common bank. */
template <int DK> struct gdn_tile {
    float qk[GDN_TILE][2 * DK + 8], v[GDN_TILE][GDN_BLOCK_COLS];
    float a[GDN_TILE], b[GDN_TILE];
    float4 step[GDN_TILE]; /* decay; minus decay * unit; beta * unit, k's; q's unit */
};

template <int DK>
static __device__ __forceinline__ void gdn_fetch(gdn_tile<DK> *tile, const mfi_cuda_gdn &g,
                                                 uint32_t h, uint32_t col0, uint32_t t0)
{
    uint32_t n = t0 < g.n_tok ? min(g.n_tok - t0, (uint32_t)GDN_TILE) : 0;
    size_t k_head = gdn_k_head(g, h);
    const float *rows = g.qkv + (size_t)t0 * g.ld_qkv;
    for (uint32_t i = threadIdx.x; i < n * (DK / 2); i += blockDim.x) {
        uint32_t t = i / (DK / 2), c = i % (DK / 2) * 4;
        size_t at = c < DK ? k_head * DK + c : (g.k_heads + k_head) * DK + c - DK;
        stage_copy(&tile->qk[t][c], rows + (size_t)t * g.ld_qkv + at);
    }
    const float *v = rows + (size_t)2 * g.k_heads * DK + (size_t)h * g.v_dim + col0;
    for (uint32_t i = threadIdx.x; i < n * (GDN_BLOCK_COLS / 4); i += blockDim.x) {
        uint32_t t = i / (GDN_BLOCK_COLS / 4), c = i % (GDN_BLOCK_COLS / 4) * 4;
        stage_copy(&tile->v[t][c], v + (size_t)t * g.ld_qkv + c);
    }
    if (threadIdx.x < n) {
        uint32_t t = threadIdx.x;
        gdn_copy_float(&tile->a[t], g.a + (size_t)(t0 + t) * g.ld_a + h);
        gdn_copy_float(&tile->b[t], g.b + (size_t)(t0 + t) * g.ld_b + h);
    }
    stage_group();
}

/* Factors of a tile's steps: two threads a row of q or k, which take every other four columns. */
template <int DK>
static __device__ __forceinline__ void gdn_prepare(gdn_tile<DK> *tile, float dt, float neg_exp_a)
{
    static_assert(GDN_TILE % 8 == 0, "a warp's threads are all in, or none is");
    for (uint32_t i = threadIdx.x; i < 4 * GDN_TILE; i += blockDim.x) {
        uint32_t t = i / 2 % GDN_TILE;
        bool key = i / 2 >= GDN_TILE;
        const float *x = &tile->qk[t][(key ? DK : 0) + i % 2 * 4];
        float s[4] = {0, 0, 0, 0};
#pragma unroll
        for (int c = 0; c < DK; c += 8) {
            float4 four = *(const float4 *)(x + c);
            s[0] = fmaf(four.x, four.x, s[0]);
            s[1] = fmaf(four.y, four.y, s[1]);
            s[2] = fmaf(four.z, four.z, s[2]);
            s[3] = fmaf(four.w, four.w, s[3]);
        }
        float sq = (s[0] + s[1]) + (s[2] + s[3]);
        sq += __shfl_xor_sync(0xffffffff, sq, 1);
        float unit = 1.0f / sqrtf(sq + 1e-6f);
        if (key && i % 2 == 0) {
            float decay = gdn_decay(tile->a[t], dt, neg_exp_a);
            tile->step[t].x = decay;
            tile->step[t].y = -(decay * unit);
            tile->step[t].z = gdn_beta(tile->b[t]) * unit;
        } else if (!key && i % 2 == 0) {
            tile->step[t].w = (float)(1.0 / sqrt((double)DK)) * unit;
        }
    }
}

/* A lane's part of a row of k or q. */
template <int ROWS>
static __device__ __forceinline__ void gdn_load(float (&to)[ROWS], const float *row, uint32_t lane)
{
#pragma unroll
    for (int r = 0; r < ROWS; r += 4) {
        float4 four = *(const float4 *)(row + r * GDN_LANES + lane * 4);
        to[r] = four.x, to[r + 1] = four.y, to[r + 2] = four.z, to[r + 3] = four.w;
    }
}

template <int ROWS>
static __device__ __forceinline__ float gdn_dot(const float (&s)[ROWS], const float (&x)[ROWS])
{
    float sum[4] = {0, 0, 0, 0};
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        sum[r % 4] = fmaf(s[r], x[r], sum[r % 4]);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* Sums over the lanes: of m0 and m1 for all of them, of y0 for the lower and of y1 for the upper.
 */
static __device__ __forceinline__ float gdn_sums(float &m0, float &m1, float y0, float y1,
                                                 uint32_t lane)
{
    bool upper = lane & (GDN_LANES / 2);
    float y = upper ? y1 : y0, give = upper ? y0 : y1;
#pragma unroll
    for (int d = GDN_LANES / 2; d > 0; d /= 2) {
        float of_m0 = __shfl_xor_sync(0xffffffff, m0, d);
        float of_m1 = __shfl_xor_sync(0xffffffff, m1, d);
        y += __shfl_xor_sync(0xffffffff, d == GDN_LANES / 2 ? give : y, d);
        m0 += of_m0;
        m1 += of_m1;
    }
    return y;
}

/* A thread's rows of two columns of the state. */
template <int DK> struct gdn_state {
    static constexpr int ROWS = DK / GDN_LANES;
    float s0[ROWS], s1[ROWS];

    static __device__ __forceinline__ size_t row(int r, uint32_t lane)
    {
        return r / 4 * 4 * GDN_LANES + lane * 4 + r % 4;
    }

    __device__ __forceinline__ void load(const float *from, size_t ld, uint32_t lane)
    {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float2 both = *(const float2 *)(from + row(r, lane) * ld);
            s0[r] = both.x;
            s1[r] = both.y;
        }
    }

    __device__ __forceinline__ void store(float *to, size_t ld, uint32_t lane) const
    {
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            *(float2 *)(to + row(r, lane) * ld) = make_float2(s0[r], s1[r]);
    }
};

/* The tokens of a tile. While the sums of a key's product are on their way from lane to lane, the
 * product of the query before is made; its sums go with those of the next key. Outputs go to `out`,
 * rows of `ldo`, by the lanes that `writes` is for. */
template <int DK>
static __device__ __forceinline__ void gdn_steps(gdn_state<DK> &s, const gdn_tile<DK> *tile,
                                                 uint32_t n, uint32_t lane, uint32_t col,
                                                 float *out, size_t ldo, bool writes)
{
    constexpr int ROWS = gdn_state<DK>::ROWS;
    float k[ROWS], q[ROWS] = {0}, y0 = 0, y1 = 0, y, unit = 0;
    gdn_load(k, &tile->qk[0][DK], lane);
    out -= 2 * ldo;
#pragma unroll 2
    for (uint32_t t = 0; t < n; t++, out += ldo) {
        float4 step = tile->step[t];
        float2 v = *(const float2 *)&tile->v[t][col];
        float next_k[ROWS], next_q[ROWS];
        gdn_load(next_k, &tile->qk[min(t + 1, n - 1)][DK], lane);
        gdn_load(next_q, &tile->qk[t][0], lane);
        float m0 = gdn_dot(s.s0, k), m1 = gdn_dot(s.s1, k);
        y = gdn_sums(m0, m1, y0, y1, lane);
        if (writes && t > 1)
            *out = y;
        y0 = gdn_dot(s.s0, q) * unit, y1 = gdn_dot(s.s1, q) * unit;
        float d0 = step.z * fmaf(step.y, m0, v.x), d1 = step.z * fmaf(step.y, m1, v.y);
        unit = step.w;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            s.s0[r] = fmaf(k[r], d0, step.x * s.s0[r]);
            s.s1[r] = fmaf(k[r], d1, step.x * s.s1[r]);
            k[r] = next_k[r], q[r] = next_q[r];
        }
    }
    float none0 = 0, none1 = 0;
    y = gdn_sums(none0, none1, y0, y1, lane);
    if (writes && n > 1)
        *out = y;
    y0 = gdn_dot(s.s0, q) * unit, y1 = gdn_dot(s.s1, q) * unit;
    y = gdn_sums(none0, none1, y0, y1, lane);
    if (writes)
        out[ldo] = y;
}

template <int DK>
static __global__ void __launch_bounds__(GDN_LANES / 2 * GDN_BLOCK_COLS) gdn_heads(mfi_cuda_gdn g)
{
    extern __shared__ __align__(16) char gdn_room[];
    gdn_tile<DK> *tiles = (gdn_tile<DK> *)gdn_room;
    uint32_t lane = threadIdx.x % GDN_LANES, col = threadIdx.x / GDN_LANES * 2;
    uint32_t h = blockIdx.y, col0 = blockIdx.x * GDN_BLOCK_COLS;
    float *state = g.state + (size_t)h * DK * g.v_dim + col0 + col;
    float dt = g.dt[h], neg_exp_a = g.neg_exp_a[h];
    /* The kernel in front is the convolution, which doesn't touch this. */
    gdn_state<DK> s;
    s.load(state, g.v_dim, lane);
    begin_wait();
    begin_next();
    gdn_fetch(&tiles[0], g, h, col0, 0);
    /* The first of the lower lanes has one column's output, the first of the upper the other's. */
    bool writes = lane % (GDN_LANES / 2) == 0;
    float *out = g.out + (size_t)h * g.v_dim + col0 + col + lane / (GDN_LANES / 2);
    for (uint32_t t0 = 0, turn = 0; t0 < g.n_tok; t0 += GDN_TILE, turn ^= 1) {
        gdn_fetch(&tiles[turn ^ 1], g, h, col0, t0 + GDN_TILE);
        stage_wait<1>();
        __syncthreads();
        gdn_prepare(&tiles[turn], dt, neg_exp_a);
        __syncthreads();
        gdn_steps(s, &tiles[turn], min(g.n_tok - t0, (uint32_t)GDN_TILE), lane, col,
                  out + (size_t)t0 * g.ldo, (size_t)g.ldo, writes);
        __syncthreads();
    }
    s.store(state, g.v_dim, lane);
}

template <int DK> static cudaError_t gdn_run(const mfi_cuda_gdn *g, cudaStream_t s)
{
    size_t room = 2 * sizeof(gdn_tile<DK>);
    cudaError_t e =
        cudaFuncSetAttribute(gdn_heads<DK>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)room);
    if (e)
        return e;
    e = start_early(gdn_heads<DK>, dim3(g->v_dim / GDN_BLOCK_COLS, g->v_heads),
                    GDN_LANES / 2 * GDN_BLOCK_COLS, room, s, *g);
    if (e)
        return e;
    return start_early(gdn_gates, (g->n_tok * g->v_heads + 3) / 4, 128, 0, s, *g);
}

#endif
