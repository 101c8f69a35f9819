/* A block of 64 positions by rows of 16 queries on the matrix units: what attention's kernels for
 * one token, few and many share, so that all give the same bits.
 *
 * Factors are sums of two parts in f16, 22 bits: rows of 64 columns (of a query, a key, a value)
 * are first scaled by a power of two of their own, so that their largest element has f16's largest
 * exponent but one. Three of the four products of parts are added, the small ones in a chain of
 * their own; what is left out is below 2^-21 of a product. Exponentials take the scales of the
 * values that they meet, then a scale of their row's.
 *
 * Orders of sums: a score is summed in segments of 64 columns, each from zero, then added in rising
 * order. A block's values are summed from zero, 16 positions at a time.
 *
 * A group of warps has 8: RG of them side by side have 16 queries each, and CG share these
 * queries' positions (scores) and columns (values). Keys and values come in pieces of 64 positions
 * by 64 columns: copied to shared memory as they are by the thread that then splits them, one piece
 * ahead of the products. */
#ifndef MFI_BACKEND_CUDA_ATTENTION_MMA_CUH
#define MFI_BACKEND_CUDA_ATTENTION_MMA_CUH

#include "backend/cuda/attention.cuh"

#define ATT_WARPS   8
#define ATT_THREADS (ATT_WARPS * 32)
#define ATT_COLS    64 /* of a piece */
#define ATT_PAIRS                                                                                  \
    72 /* words of a row of pairs of values: keeps a warp's loads in different banks */
#define ATT_RAW  (BLOCK * ATT_COLS * 4)          /* bytes of a piece as it is */
#define ATT_PART (2 * BLOCK / 2 * ATT_PAIRS * 4) /* and split, */
#define ATT_INV  (BLOCK * 4)                     /* with the scales of its rows */

#define ATT_EACH(i, n) _Pragma("unroll") for (int i = 0; i < (n); i++)

static __device__ __forceinline__ void att_sync(void)
{
    asm volatile("bar.sync 1, %0;" ::"n"(ATT_THREADS) : "memory");
}

static __device__ __forceinline__ void att_mma(float c[4], const uint32_t a[4], uint32_t b0,
                                               uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
        "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Two numbers as two parts in f16: pairs of the large and of the small ones. */
static __device__ __forceinline__ void att_split(float x, float y, uint32_t *hi, uint32_t *lo)
{
    uint32_t h;
    float hx, hy;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(h) : "f"(y), "f"(x));
    asm("{.reg .f16 a, b;\n mov.b32 {a, b}, %2;\n cvt.f32.f16 %0, a;\n cvt.f32.f16 %1, b;}"
        : "=f"(hx), "=f"(hy)
        : "r"(h));
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(*lo) : "f"(y - hy), "f"(x - hx));
    *hi = h;
}

/* The power of two that takes a row's largest magnitude to [2^14, 2^15), and its inverse. */
static __device__ __forceinline__ float att_scale(float most, float *inverse)
{
    uint32_t e = min(max(__float_as_uint(most) >> 23, 16u), 254u);
    *inverse = __uint_as_float((e - 14) << 23);
    return __uint_as_float((268 - e) << 23);
}

static __device__ __forceinline__ float att_most(float4 v)
{
    return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
}

/* Over the 16 lanes that have a row of a piece. */
static __device__ __forceinline__ float att_row_max(float v)
{
#pragma unroll
    for (int d = 8; d > 0; d /= 2)
        v = fmaxf(v, __shfl_xor_sync(0xffffffff, v, d));
    return v;
}

/* Four columns of a query or a key: where the thread that multiplies them finds both parts. */
static __device__ __forceinline__ uint4 att_unit(float4 v, float scale)
{
    uint4 u;
    att_split(v.x * scale, v.y * scale, &u.x, &u.z);
    att_split(v.z * scale, v.w * scale, &u.y, &u.w);
    return u;
}

/* Unit `step * 4 + t` of a row; neighbouring rows in different banks. */
static __device__ __forceinline__ uint32_t att_at(uint32_t row, uint32_t units, uint32_t unit)
{
    return row * units + (unit ^ (row & 1) * 4);
}

/* ---- pieces ---- */

struct att_room {
    uint4 *q;     /* [16 * RG][units] */
    float *q_inv; /* [16 * RG][n_seg] */
    float4 *swap; /* [RG][8][32]: scores on their way, where CG > 1 */
    char *parts;  /* two split pieces, each with the scales of its rows, */
    char *raw;    /* and as they are, `slots` of them */
    uint32_t n_seg, slots, bytes;
};

static __host__ __device__ __forceinline__ att_room att_room_of(const mfi_cuda_attn &a, void *at,
                                                                uint32_t rg, uint32_t slots)
{
    att_room r;
    r.n_seg = (a.dim + ATT_COLS - 1) / ATT_COLS;
    r.slots = slots;
    char *p = (char *)at;
    r.raw = p;
    p += slots * ATT_RAW;
    r.parts = p;
    p += 2 * (ATT_PART + ATT_INV);
    r.swap = (float4 *)p;
    p += rg < ATT_WARPS ? rg * 8 * 32 * 16 : 0;
    r.q = (uint4 *)p;
    p += 16 * rg * r.n_seg * 16 * 16;
    r.q_inv = (float *)p;
    p += 16 * rg * r.n_seg * 4;
    r.bytes = (uint32_t)(p - (char *)at);
    return r;
}

/* Which piece comes next: of a block first the keys', then the values'. */
struct att_next {
    uint32_t block, piece, n;
};

/* What all pieces of a walk have in common. */
struct att_walk {
    att_room room;
    uint32_t kv_head, end, last_block, per_block; /* positions end before `end` */
    bool wide;
    att_next copied, split;
};

static __device__ __forceinline__ void att_advance(att_next *at, uint32_t per_block)
{
    at->n++;
    if (++at->piece == per_block) {
        at->piece = 0;
        at->block++;
    }
}

/* The thread's i-th row of a piece: of keys two rows a warp at a time, of values pairs of rows. */
static __device__ __forceinline__ uint32_t att_row(bool keys, int i)
{
    uint32_t warp = threadIdx.x / 32, half = threadIdx.x % 32 / 16;
    return warp * 8 + (keys ? i * 2 + half : i / 2 * 4 + half * 2 + i % 2);
}

static __device__ __forceinline__ void att_copy16(void *to, const void *from, bool there)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
}

static __device__ __forceinline__ void att_copy4(void *to, const void *from, bool there)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(to);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(at), "l"(from),
                 "r"(there ? 4 : 0)
                 : "memory");
}

/* Starts to copy the next piece, zeros where there is nothing. */
static __device__ __forceinline__ void att_copy(const mfi_cuda_attn &a, att_walk &w)
{
    bool keys = w.copied.piece < w.room.n_seg;
    uint32_t seg = keys ? w.copied.piece : w.copied.piece - w.room.n_seg;
    uint32_t col = seg * ATT_COLS + threadIdx.x % 16 * 4, width = keys ? a.dim : a.dim_v;
    uint32_t first = keys ? w.kv_head * a.k_stride : a.v_offset + w.kv_head * a.v_stride;
    char *to = w.room.raw + w.copied.n % w.room.slots * ATT_RAW + threadIdx.x * 16;
    if (w.copied.block <= w.last_block) {
        ATT_EACH(i, 4)
        {
            uint32_t pos = w.copied.block * BLOCK + att_row(keys, i);
            bool there = pos < w.end && col < width;
            const float *from = there ? position(a, pos) + first + col : a.kv;
            if (w.wide)
                att_copy16(to + i * ATT_THREADS * 16, from, there);
            else
                ATT_EACH(k, 4)
            att_copy4(to + i * ATT_THREADS * 16 + k * 4, there && col + k < width ? from + k : a.kv,
                      there && col + k < width);
        }
        att_advance(&w.copied, w.per_block);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* The thread's four rows of a piece: of keys, */
static __device__ __forceinline__ void att_split_keys(const float4 v[4], char *parts)
{
    uint4 *to = (uint4 *)parts;
    float *inv = (float *)(parts + ATT_PART);
    ATT_EACH(i, 4)
    {
        uint32_t row = att_row(true, i);
        float inverse, scale = att_scale(att_row_max(att_most(v[i])), &inverse);
        to[att_at(row, 16, threadIdx.x % 16)] = att_unit(v[i], scale);
        if (threadIdx.x % 16 == 0)
            inv[row] = inverse;
    }
}

/* and of values. */
static __device__ __forceinline__ void att_split_values(const float4 rows[4], char *parts)
{
    float *inv = (float *)(parts + ATT_PART);
    ATT_EACH(i, 2)
    {
        float4 v = rows[2 * i], w = rows[2 * i + 1];
        uint32_t row = att_row(false, 2 * i);
        float iv, iw, sv = att_scale(att_row_max(att_most(v)), &iv);
        float sw = att_scale(att_row_max(att_most(w)), &iw);
        uint4 hi, lo;
        att_split(v.x * sv, w.x * sw, &hi.x, &lo.x);
        att_split(v.y * sv, w.y * sw, &hi.y, &lo.y);
        att_split(v.z * sv, w.z * sw, &hi.z, &lo.z);
        att_split(v.w * sv, w.w * sw, &hi.w, &lo.w);
        uint32_t *to = (uint32_t *)parts + row / 2 * ATT_PAIRS + threadIdx.x % 16 * 4;
        *(uint4 *)to = hi;
        *(uint4 *)(to + BLOCK / 2 * ATT_PAIRS) = lo;
        if (threadIdx.x % 16 == 0)
            *(float2 *)(inv + row) = make_float2(iv, iw);
    }
}

/* Splits the next piece, once this thread's share of it has come, and lets another one come. */
static __device__ __forceinline__ void att_step(const mfi_cuda_attn &a, att_walk &w)
{
    if (w.room.slots == 1)
        asm volatile("cp.async.wait_group 0;" ::: "memory");
    else if (w.room.slots == 4)
        asm volatile("cp.async.wait_group 3;" ::: "memory");
    else
        asm volatile("cp.async.wait_group 7;" ::: "memory"); /* of eight slots */
    if (w.split.block <= w.last_block) {
        const float4 *raw =
            (const float4 *)(w.room.raw + w.split.n % w.room.slots * ATT_RAW) + threadIdx.x;
        char *parts = w.room.parts + w.split.n % 2 * (ATT_PART + ATT_INV);
        float4 v[4];
        ATT_EACH(i, 4) v[i] = raw[i * ATT_THREADS];
        if (w.split.piece < w.room.n_seg)
            att_split_keys(v, parts);
        else
            att_split_values(v, parts);
        att_advance(&w.split, w.per_block);
    }
    att_copy(a, w);
}

/* ---- products ---- */

/* Splits 16 * rg queries; row i's are at from(i), or nowhere. */
template <class F>
static __device__ __forceinline__ void att_queries(const mfi_cuda_attn &a, const att_room &r,
                                                   uint32_t n_rows, F from)
{
    uint32_t n_units = n_rows * r.n_seg * 16;
    for (uint32_t u = threadIdx.x; u < n_units; u += ATT_THREADS) {
        uint32_t row = u / (r.n_seg * 16), unit = u % (r.n_seg * 16);
        const float *x = from(row);
        float v[4];
        ATT_EACH(k, 4) v[k] = x && unit * 4 + k < a.dim ? x[unit * 4 + k] : 0;
        float4 f = make_float4(v[0], v[1], v[2], v[3]);
        float inverse, scale = att_scale(att_row_max(att_most(f)), &inverse);
        r.q[att_at(row, r.n_seg * 16, unit)] = att_unit(f, scale);
        if (unit % 16 == 0)
            r.q_inv[row * r.n_seg + unit / 16] = inverse;
    }
}

/* Adds a segment of columns to the scores of N tiles of 8 positions from `first` on. */
template <int N>
static __device__ __forceinline__ void att_scores(const att_room &r, const char *parts,
                                                  uint32_t row0, uint32_t seg, uint32_t first,
                                                  float s[N][4])
{
    uint32_t g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, units = r.n_seg * 16;
    const uint4 *keys = (const uint4 *)parts;
    const float *inv = (const float *)(parts + ATT_PART);
    float big[N][4], small[N][4];
    ATT_EACH(n, N) ATT_EACH(i, 4) big[n][i] = small[n][i] = 0;
    const int M = N < 4 ? N : 4; /* chains side by side */
#pragma unroll
    for (int k = 0; k < ATT_COLS / 16; k++) {
        uint4 x = r.q[att_at(row0 + g, units, seg * 16 + k * 4 + t)];
        uint4 y = r.q[att_at(row0 + g + 8, units, seg * 16 + k * 4 + t)];
        uint32_t hi[4] = {x.x, y.x, x.y, y.y}, lo[4] = {x.z, y.z, x.w, y.w};
#pragma unroll
        for (int n = 0; n < N; n += M) {
            uint4 v[M];
            ATT_EACH(i, M) v[i] = keys[att_at((first + n + i) * 8 + g, 16, k * 4 + t)];
            ATT_EACH(i, M) att_mma(small[n + i], lo, v[i].x, v[i].y);
            ATT_EACH(i, M) att_mma(big[n + i], hi, v[i].x, v[i].y);
            ATT_EACH(i, M) att_mma(small[n + i], hi, v[i].z, v[i].w);
        }
    }
    float qa = r.q_inv[(row0 + g) * r.n_seg + seg], qb = r.q_inv[(row0 + g + 8) * r.n_seg + seg];
    ATT_EACH(n, N)
    {
        float2 f = *(const float2 *)(inv + (first + n) * 8 + 2 * t);
        ATT_EACH(i, 4)
        s[n][i] += (big[n][i] + small[n][i]) * (i % 2 ? f.y : f.x) * (i < 2 ? qa : qb);
    }
}

/* What a thread knows of its two queries. */
struct att_pair {
    uint32_t last[2]; /* position */
    bool there[2];
    float max[2], sum[2];
};

static __device__ __forceinline__ float att_quad_max(float v)
{
    v = fmaxf(v, __shfl_xor_sync(0xffffffff, v, 1));
    return fmaxf(v, __shfl_xor_sync(0xffffffff, v, 2));
}

/* Scores become exponentials below the block's maximum; of the thread's two queries the first R are
 * looked at. */
template <int R = 2>
static __device__ __forceinline__ void att_softmax(const mfi_cuda_attn &a, uint32_t block,
                                                   att_pair &q, float s[8][4])
{
    uint32_t t = threadIdx.x % 4;
    ATT_EACH(r, R)
    {
        float m = -CUDART_INF_F, sum = 0;
        ATT_EACH(n, 8) ATT_EACH(i, 2)
        {
            uint32_t pos = block * BLOCK + n * 8 + 2 * t + i;
            bool seen = q.there[r] && pos <= q.last[r] && (!a.window || pos + a.window > q.last[r]);
            float &x = s[n][2 * r + i];
            x = seen ? a.scale * x : -CUDART_INF_F;
            m = fmaxf(m, x);
        }
        m = att_quad_max(m);
        ATT_EACH(n, 8) ATT_EACH(i, 2)
        {
            float &x = s[n][2 * r + i];
            x = m == -CUDART_INF_F ? 0 : expf(x - m);
            sum += x;
        }
        sum += __shfl_xor_sync(0xffffffff, sum, 1);
        sum += __shfl_xor_sync(0xffffffff, sum, 2);
        q.max[r] = m;
        q.sum[r] = sum;
    }
}

/* Exponentials times the scales of a piece's values, split; what its sums come times, into inv. */
template <int R = 2>
static __device__ __forceinline__ void att_weights(const float p[8][4], const char *parts,
                                                   uint32_t hi[4][4], uint32_t lo[4][4],
                                                   float inv[2])
{
    const float *scales = (const float *)(parts + ATT_PART);
    uint32_t t = threadIdx.x % 4;
    float most[2] = {0, 0}, f[2];
    float2 v[8];
    ATT_EACH(n, 8)
    {
        v[n] = *(const float2 *)(scales + n * 8 + 2 * t);
        ATT_EACH(r, R)
        most[r] = fmaxf(most[r], fmaxf(p[n][2 * r] * v[n].x, p[n][2 * r + 1] * v[n].y));
    }
    ATT_EACH(r, R) f[r] = att_scale(att_quad_max(most[r]), &inv[r]);
    ATT_EACH(k, 4) ATT_EACH(i, 4)
    {
        int n = 2 * k + i / 2, r = i % 2;
        hi[k][i] = lo[k][i] = 0;
        if (r < R)
            att_split(p[n][2 * r] * v[n].x * f[r], p[n][2 * r + 1] * v[n].y * f[r], &hi[k][i],
                      &lo[k][i]);
    }
}

/* Weighted values of a piece: of N tiles of 8 columns from `first` on. */
template <int N>
static __device__ __forceinline__ void att_values(const char *parts, uint32_t first,
                                                  const uint32_t hi[4][4], const uint32_t lo[4][4],
                                                  const float inv[2], float out[N][4])
{
    uint32_t g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const uint32_t *v = (const uint32_t *)parts + t * ATT_PAIRS + first * 8 + g;
    const uint32_t *w = v + BLOCK / 2 * ATT_PAIRS;
    float small[N][4];
    ATT_EACH(n, N) ATT_EACH(i, 4) out[n][i] = small[n][i] = 0;
    ATT_EACH(k, 4)
    {
        uint32_t x[N][2], y[N][2];
        ATT_EACH(i, 2 * N)
        {
            uint32_t at = (k * 8 + i % 2 * 4) * ATT_PAIRS + i / 2 * 8;
            x[i / 2][i % 2] = v[at];
            y[i / 2][i % 2] = w[at];
        }
        ATT_EACH(n, N) att_mma(small[n], lo[k], x[n][0], x[n][1]);
        ATT_EACH(n, N) att_mma(out[n], hi[k], x[n][0], x[n][1]);
        ATT_EACH(n, N) att_mma(small[n], hi[k], y[n][0], y[n][1]);
    }
    ATT_EACH(n, N) ATT_EACH(i, 4) out[n][i] = (out[n][i] + small[n][i]) * inv[i / 2];
}

/* ---- a block ---- */

/* All pieces of keys of a block: the exponentials of this warp's queries at all 64 positions. */
template <int CG>
static __device__ __forceinline__ void att_block(const mfi_cuda_attn &a, att_walk &w,
                                                 uint32_t block, uint32_t *n, att_pair &q,
                                                 float p[8][4])
{
    const int N = 8 / CG;
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, rg = warp / CG, cg = warp % CG;
    float s[N][4];
    ATT_EACH(i, N) ATT_EACH(k, 4) s[i][k] = 0;
    for (uint32_t seg = 0; seg < w.room.n_seg; seg++, ++*n) {
        att_step(a, w);
        att_scores<N>(w.room, w.room.parts + *n % 2 * (ATT_PART + ATT_INV), rg * 16, seg, cg * N,
                      s);
        if (CG > 1 && seg + 1 == w.room.n_seg)
            ATT_EACH(i, N)
        w.room.swap[(rg * 8 + cg * N + i) * 32 + lane] =
            make_float4(s[i][0], s[i][1], s[i][2], s[i][3]);
        att_sync();
    }
    ATT_EACH(i, 8)
    {
        float4 v = CG > 1 ? w.room.swap[(rg * 8 + i) * 32 + lane]
                          : make_float4(s[i % N][0], s[i % N][1], s[i % N][2], s[i % N][3]);
        p[i][0] = v.x, p[i][1] = v.y, p[i][2] = v.z, p[i][3] = v.w;
    }
    att_softmax(a, block, q, p);
}

/* Begins a walk over blocks: up to all slots' pieces on their way. */
static __device__ __forceinline__ void att_start(const mfi_cuda_attn &a, att_walk &w,
                                                 const att_room &room, uint32_t kv_head,
                                                 uint32_t block, uint32_t last_block, uint32_t end)
{
    uint32_t any = (uint32_t)(uintptr_t)a.kv / 4 | a.row | a.v_offset | a.k_stride | a.v_stride;
    w.room = room;
    w.kv_head = kv_head;
    w.end = end;
    w.last_block = last_block;
    w.per_block = room.n_seg + (a.dim_v + ATT_COLS - 1) / ATT_COLS;
    w.wide = ((any | a.dim | a.dim_v) & 3) == 0;
    w.copied.block = w.split.block = block;
    w.copied.piece = w.split.piece = w.copied.n = w.split.n = 0;
    for (uint32_t i = 0; i < room.slots; i++)
        att_copy(a, w);
}

/* The thread's two queries of row group rg. */
static __device__ __forceinline__ att_pair att_pair_of(const mfi_cuda_attn &a, const queries &q,
                                                       uint32_t rg)
{
    att_pair p;
    ATT_EACH(r, 2)
    {
        uint32_t i = rg * 16 + threadIdx.x % 32 / 4 + r * 8;
        p.there[r] = i < q.n;
        p.last[r] = p.there[r] ? *a.pos + token_of(a, q, i) : 0;
    }
    return p;
}

/* One block's partial sums of up to 16 queries, by a group of warps; the walk has begun. */
static __device__ __forceinline__ void att_part(const mfi_cuda_attn &a, att_walk &w,
                                                const queries &q, uint32_t block)
{
    uint32_t warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, n = 0;
    att_pair pair = att_pair_of(a, q, 0);
    float p[8][4], out[1][4];
    att_step(a, w);
    att_sync();
    att_block<ATT_WARPS>(a, w, block, &n, pair, p);
    for (uint32_t c = 0; c * ATT_COLS < a.dim_v; c++, n++) {
        const char *parts = w.room.parts + n % 2 * (ATT_PART + ATT_INV);
        uint32_t hi[4][4], lo[4][4], col = c * ATT_COLS + warp * 8 + 2 * t;
        float inv[2];
        att_step(a, w);
        att_weights(p, parts, hi, lo, inv);
        att_values<1>(parts, warp, hi, lo, inv, out);
        ATT_EACH(r, 2)
        {
            uint32_t i = g + r * 8;
            if (i >= q.n)
                break;
            /* Blocks count from the first one that the query's token looks at. */
            uint32_t from = first_block(a, pair.last[r]);
            if (block < from)
                continue;
            size_t u = (size_t)token_of(a, q, i) * a.n_head + head_of(a, q, i);
            float *to = a.partial + (u * a.n_blocks_max + block - from) * (a.dim_v + 2);
            if (col == 0) {
                to[0] = pair.max[r];
                to[1] = pair.sum[r];
            }
            if (col < a.dim_v)
                to[2 + col] = out[0][2 * r];
            if (col + 1 < a.dim_v)
                to[3 + col] = out[0][2 * r + 1];
        }
        att_sync();
    }
}

/* ---- starting ---- */

/* Shared memory that a block of threads may have; asks for it. */
uint32_t mfi_cuda_attn_room(void);
cudaError_t mfi_cuda_attn_allow(const void *kernel, uint32_t room);
/* Pieces on their way at a time in a kernel for few tokens: 1, 4 or 8. */
uint32_t mfi_cuda_attn_slots(const mfi_cuda_attn *a);

#endif
