/* Products with weights of integer types, on the matrix units in bf16: codes are exact in it, and a
 * token's columns are sums of three parts that keep all 24 bits, so that only sums round.
 *
 * Every output has one order of sums. A block of 32 columns (half of one, where a type has scales
 * for halves) is a chain from zero on the matrix units: the smallest parts' products first. Blocks
 * are scaled and added in rising order within a segment of 128 columns, each segment from zero,
 * then the segments in rising order. The kernel for few tokens deals segments out to the warps of a
 * block, the one for many walks over them; bits are the same, so a prompt's chunks and single
 * tokens agree. */
#ifndef MFI_BACKEND_CUDA_MATMUL_CODES_CUH
#define MFI_BACKEND_CUDA_MATMUL_CODES_CUH

#include "backend/cuda/codes.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/matmul.cuh"
#include "backend/cuda/reduce.cuh"

#define CODE_WARPS   8
#define CODE_THREADS (CODE_WARPS * 32)
#define CODE_BLOCKS  (CODE_SEG / 32)
#define CODE_ROUND   32 /* segments a round, for a single token, */
#define CODE_ROUND_8 8  /* and for eight */

#define ROOM_FREE (48u << 10) /* shared memory that needn't be asked for */

template <class K> static cudaError_t code_allow(K kernel, uint32_t room)
{
    if (room <= ROOM_FREE)
        return cudaSuccess;
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)room);
}

MFI_DEV void mma_pairs(float c[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                       uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
        "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* ---- a token's columns ---- */

/* Columns of tokens in shared memory, split: [block][part][token][t] of 16 bytes, and the sums of
 * blocks, [block][token]. */
struct code_x {
    uint4 *parts;
    float *sums;
    uint32_t n; /* tokens there is room for */
};

MFI_DEV uint32_t code_bf16_pair(float even, float odd)
{
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(odd), "f"(even));
    return r;
}

/* Takes the rounded pair off. */
MFI_DEV void code_rest(uint32_t pair, float *even, float *odd)
{
    *even -= __uint_as_float(pair << 16);
    *odd -= __uint_as_float(pair & 0xffff0000);
}

/* Columns 4 * quad .. of block `block`: eight neighbouring threads have a block's. */
template <class C>
MFI_DEV void code_split(const code_x &to, uint32_t block, uint32_t quad, uint32_t token, float4 v,
                        bool there)
{
    float sum = (v.x + v.y) + (v.z + v.w);
#pragma unroll
    for (int d = 1; d < 8; d *= 2)
        sum += __shfl_xor_sync(0xffffffff, sum, d);
    if (!there)
        return;
    if (quad == 0)
        to.sums[block * to.n + token] = sum;
    uint32_t t = C::fours ? quad % 4 : quad / 2, half = C::fours ? quad / 4 : quad % 2;
    if (C::tiny)
        v = make_float4(v.x * TINY_X, v.y * TINY_X, v.z * TINY_X, v.w * TINY_X);
#pragma unroll
    for (int part = 0; part < 3; part++) {
        uint2 r = make_uint2(code_bf16_pair(v.x, v.z), code_bf16_pair(v.y, v.w));
        uint2 *at = (uint2 *)(to.parts + ((block * 3 + part) * to.n + token) * 4 + t);
        at[half] = r;
        code_rest(r.x, &v.x, &v.z);
        code_rest(r.y, &v.y, &v.w);
    }
}

/* ---- a block ---- */

/* Products of 32 columns, all of them in c[0], or those of halves in each. */
template <class C>
MFI_DEV void code_products(const uint32_t a[4], const uint32_t b[4], const uint4 x[3],
                           float c[2][4])
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        c[0][i] = c[1][i] = 0;
#pragma unroll
    for (int part = 2; part >= 0; part--) {
        mma_pairs(c[0], a[0], b[0], a[1], b[1], x[part].x, x[part].y);
        mma_pairs(c[C::halves], a[2], b[2], a[3], b[3], x[part].z, x[part].w);
    }
}

/* A scaled block. */
template <class C> MFI_DEV float code_scaled(const code_scales &s, float p0, float p1, float x)
{
    if (C::halves)
        return fmaf(s.s[1], p1, s.s[0] * p0);
    return C::has_min ? fmaf(s.s[0], p0, s.min * x) : s.s[0] * p0;
}

/* Adds 32 columns: rows g (a) and g + 8 (b) by eight tokens, of which this thread has 2t, 2t + 1.
 */
template <class C>
MFI_DEV void code_block(const uint32_t a[4], const uint32_t b[4], const code_scales &sa,
                        const code_scales &sb, const uint4 x[3], float x0, float x1, float sum[4])
{
    float c[2][4];
    code_products<C>(a, b, x, c);
#pragma unroll
    for (int i = 0; i < 4; i++)
        sum[i] += code_scaled<C>(i < 2 ? sa : sb, c[0][i], c[1][i], i % 2 ? x1 : x0);
}

template <class C> struct code_rows {
    typename C::raw_t a, b;
};

/* One segment of 16 rows by the n tokens at x, whose first block of the segment is `block`. What is
 * summed for tokens beyond them is nobody's. */
template <class C>
MFI_DEV void code_segment(const code_rows<C> &rows, uint32_t seg, uint32_t cols, const code_x &x,
                          uint32_t block, uint32_t n, float sum[4])
{
    uint32_t t = threadIdx.x % 4, g = min(threadIdx.x % 32 / 4, n - 1);
    uint32_t t0 = min(2 * t, n - 1), t1 = min(2 * t + 1, n - 1);
#pragma unroll
    for (int i = 0; i < 4; i++)
        sum[i] = 0;
#pragma unroll
    for (int b = 0; b < CODE_BLOCKS; b++) {
        if (!C::whole && seg * CODE_SEG + b * 32 >= cols)
            break;
        uint32_t a[4], c[4];
        uint4 v[3];
        C::codes(rows.a, b, a);
        C::codes(rows.b, b, c);
#pragma unroll
        for (int part = 0; part < 3; part++)
            v[part] = x.parts[(((block + b) * 3 + part) * x.n + g) * 4 + t];
        float x0 = 0, x1 = 0;
        if (C::has_min) {
            x0 = x.sums[(block + b) * x.n + t0];
            x1 = x.sums[(block + b) * x.n + t1];
        }
        code_block<C>(a, c, C::scales(rows.a, seg, b), C::scales(rows.b, seg, b), v, x0, x1, sum);
    }
}

/* The same of a single token, which stands in all eight columns of the products: so each thread of
 * four has all blocks' sums, and scales one of them. */
template <class C>
MFI_DEV void code_segment_one(const code_rows<C> &rows, uint32_t seg, uint32_t cols,
                              const code_x &x, uint32_t block, float sum[4])
{
    const uint32_t t = threadIdx.x % 4;
    const uint4 *at = x.parts + block * 12 + t;
    float p[2][2][CODE_BLOCKS]; /* [row][half] */
#pragma unroll
    for (int b = 0; b < CODE_BLOCKS; b++) {
        float c[2][4];
        uint32_t a[4], d[4];
        uint4 v[3];
        if (C::whole || seg * CODE_SEG + b * 32 < cols) {
            C::codes(rows.a, b, a);
            C::codes(rows.b, b, d);
#pragma unroll
            for (int part = 0; part < 3; part++)
                v[part] = at[b * 12 + part * 4];
            code_products<C>(a, d, v, c);
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            p[0][h][b] = c[h][0];
            p[1][h][b] = c[h][2];
        }
    }
    bool there = C::whole || seg * CODE_SEG + t * 32 < cols;
    float xs = C::has_min && there ? x.sums[block + t] : 0;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float u = code_scaled<C>(C::scales(r ? rows.b : rows.a, seg, (int)t), of_four(p[r][0], t),
                                 of_four(p[r][1], t), xs);
        float all = 0.0f + u; /* in thread 0 of four */
#pragma unroll
        for (int b = 1; b < CODE_BLOCKS; b++) {
            float other = __shfl_down_sync(0xffffffff, u, b, 4);
            if (C::whole || seg * CODE_SEG + b * 32 < cols)
                all += other;
        }
        sum[2 * r] = all;
    }
}

/* ---- few tokens ---- */

/* Splits a round's columns of all tokens. */
template <class C>
MFI_DEV void code_take(const mfi_cuda_mm &mm, const mm_place &at, uint32_t first_block,
                       uint32_t n_blocks, const code_x &x)
{
    uint32_t per = n_blocks * 8, total = per * at.n;
    for (uint32_t base = 0; base < total; base += blockDim.x) {
        uint32_t i = base + threadIdx.x, token = i / per, quad = i % per;
        float4 v = make_float4(0, 0, 0, 0);
        if (i < total)
            v = *(const float4 *)(mm_x_row(mm, at, token) + first_block * 32 + quad * 4);
        code_split<C>(x, quad / 8, quad % 8, token, v, i < total);
    }
}

/* Where the two rows of a thread are, in matrix k. */
struct code_pair_of_rows {
    code_row a, b;
};

MFI_DEV code_pair_of_rows code_find(const mfi_cuda_mat &m, const uint8_t *data, uint32_t row_a,
                                    uint32_t row_b)
{
    const uint8_t *p[3];
    code_pair_of_rows at;
    mm_planes(m, data, p);
#pragma unroll
    for (int i = 0; i < 3; i++) {
        at.a.p[i] = p[i] + row_a * m.row_bytes[i];
        at.b.p[i] = p[i] + row_b * m.row_bytes[i];
    }
    return at;
}

/* Of two matrices' rows those of the second, or not; in registers. */
template <int NM> MFI_DEV code_pair_of_rows code_pick(const code_pair_of_rows at[NM], bool second)
{
    code_pair_of_rows of = at[0];
#pragma unroll
    for (int i = 0; i < 3 && NM == 2; i++) {
        of.a.p[i] = second ? at[NM - 1].a.p[i] : of.a.p[i];
        of.b.p[i] = second ? at[NM - 1].b.p[i] : of.b.p[i];
    }
    return of;
}

template <class C>
MFI_DEV void code_load(const mfi_cuda_mat &m, const code_pair_of_rows &at, uint32_t seg,
                       code_rows<C> *rows)
{
    C::load(m, at.a, seg, &rows->a);
    C::load(m, at.b, seg, &rows->b);
}

/* What an output is added to. */
MFI_DEV float *code_res(const mfi_cuda_mm &mm, const mm_place &at, uint32_t row, uint32_t token)
{
    return mm.res + (size_t)(at.first + token) * mm.ld_res + at.y_col + row;
}

/* Writes what the sums of an output come to; `old` is what it is added to, if it is. */
template <int NM>
MFI_DEV void code_finish(const mfi_cuda_mm &mm, const mm_place &at, uint32_t row, uint32_t token,
                         float sum[NM], float old)
{
#pragma unroll
    for (int k = 0; k < NM; k++)
        if (mm.bias[at.m + k])
            sum[k] += mm_bias(mm, at.m + k, at.data, at.row0 + row);
    float y = NM == 2 ? mm_glu(mm, sum[0], sum[NM - 1]) : sum[0];
    size_t i = (size_t)(at.first + token) * mm.ldy[at.m] + at.y_col + row;
    mm.y[at.m][i] = y;
    if (mm.res)
        *code_res(mm, at, row, token) = old + mm.res_factor * y;
}

template <int NM>
MFI_DEV void code_finish(const mfi_cuda_mm &mm, const mm_place &at, uint32_t row, uint32_t token,
                         float sum[NM])
{
    code_finish<NM>(mm, at, row, token, sum, mm.res ? *code_res(mm, at, row, token) : 0);
}

/* Shared memory: x of a round, then the sums of its segments, [matrix][segment][row][token]. */
struct code_room {
    uint32_t round, sums, segs, bytes; /* segments; offsets */
};

template <bool ONE>
static __host__ __device__ __forceinline__ code_room code_room_of(uint32_t cols, uint32_t n_mats)
{
    const uint32_t n = ONE ? 1 : MFI_CUDA_TILE_SMALL;
    code_room r;
    uint32_t n_seg = (cols + CODE_SEG - 1) / CODE_SEG;
    r.round = ONE ? CODE_ROUND : CODE_ROUND_8;
    r.round = n_seg < r.round ? n_seg : r.round;
    r.sums = r.round * CODE_BLOCKS * 3 * n * 64;
    r.segs = r.sums + r.round * CODE_BLOCKS * n * 4;
    r.bytes = r.segs + n_mats * r.round * MM_ROWS * n * 4;
    return r;
}

/* Keeps a segment's sums. */
template <bool ONE> MFI_DEV void code_keep(float *to, const float s[4])
{
    uint32_t g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    if (ONE && t == 0) {
        to[g] = s[0];
        to[g + 8] = s[2];
    }
    if (!ONE) {
        *(float2 *)(to + g * 8 + 2 * t) = make_float2(s[0], s[1]);
        *(float2 *)(to + (g + 8) * 8 + 2 * t) = make_float2(s[2], s[3]);
    }
}

/* The segments of a round dealt out to warps. The first is in rows already. */
template <class C, int NM, bool ONE>
MFI_DEV void code_round(const mfi_cuda_mm &mm, uint32_t m, const code_pair_of_rows at[NM],
                        uint32_t base, uint32_t n, uint32_t n_tok, const code_x &x, float *part,
                        code_rows<C> *rows)
{
    const uint32_t size = MM_ROWS * (ONE ? 1 : MFI_CUDA_TILE_SMALL);
    uint32_t cols = mm.mat[0].cols;
#pragma unroll 1
    for (uint32_t i = threadIdx.x / 32; i < n * NM; i += CODE_WARPS) {
        code_rows<C> next;
        uint32_t k = i + CODE_WARPS;
        if (k < n * NM)
            code_load<C>(mm.mat[m], code_pick<NM>(at, k >= n),
                         base + (NM == 2 && k >= n ? k - n : k), &next);
        float s[4];
        uint32_t seg = NM == 2 && i >= n ? i - n : i;
        if (ONE)
            code_segment_one<C>(*rows, base + seg, cols, x, seg * CODE_BLOCKS, s);
        else
            code_segment<C>(*rows, base + seg, cols, x, seg * CODE_BLOCKS, n_tok, s);
        code_keep<ONE>(part + i * size, s);
        *rows = next;
    }
}

template <class C, int NM>
__global__ void __launch_bounds__(CODE_THREADS, 2) code_few(const __grid_constant__ mfi_cuda_mm mm)
{
    extern __shared__ uint4 room[];
    mm_place at;
    begin_wait();
    begin_next();
    if (!mm_find(mm, MM_ROWS, MFI_CUDA_TILE_SMALL, &at, blockIdx.x))
        return;
    const uint32_t width = MFI_CUDA_TILE_SMALL;
    uint32_t warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4;
    uint32_t cols = mm.mat[0].cols, n_seg = (cols + CODE_SEG - 1) / CODE_SEG;
    code_room r = code_room_of<false>(cols, NM);
    code_x x = {room, (float *)((char *)room + r.sums), width};
    float *part = (float *)((char *)room + r.segs), sum[NM];
    /* Rows beyond the matrix are its last one once more; their outputs go nowhere. */
    code_pair_of_rows rows_at[NM];
#pragma unroll
    for (int k = 0; k < NM; k++) {
        rows_at[k] = code_find(mm.mat[at.m + k], at.data, min(at.row0 + g, at.row_end - 1),
                               min(at.row0 + g + 8, at.row_end - 1));
        sum[k] = 0;
    }
    uint32_t row = threadIdx.x / width, token = threadIdx.x % width; /* of the output to add up */
    for (uint32_t base = 0; base < n_seg; base += r.round) {
        uint32_t n = min(n_seg - base, r.round);
        uint32_t blocks = min(n * CODE_BLOCKS, cols / 32 - base * CODE_BLOCKS);
        code_rows<C> rows;
        if (warp < n * NM)
            code_load<C>(mm.mat[at.m], code_pick<NM>(rows_at, warp >= n),
                         base + (NM == 2 && warp >= n ? warp - n : warp), &rows);
        code_take<C>(mm, at, base * CODE_BLOCKS, blocks, x);
        __syncthreads();
        code_round<C, NM, false>(mm, at.m, rows_at, base, n, at.n, x, part, &rows);
        __syncthreads();
        if (row < MM_ROWS && token < at.n)
#pragma unroll
            for (int k = 0; k < NM; k++)
                for (uint32_t s = 0; s < n; s++)
                    sum[k] += part[((k * n + s) * MM_ROWS + row) * width + token];
        __syncthreads();
    }
    if (row < MM_ROWS && at.row0 + row < at.row_end && token < at.n)
        code_finish<NM>(mm, at, row, token, sum);
}

#endif
