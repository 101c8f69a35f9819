/* Products of many tokens with weights of integer types: matmul_codes.cuh's sums, a block of
 * threads for 128 tokens by 128 rows, or by 64 of two matrices.
 *
 * Tokens' columns are split once, by a kernel of its own, into memory that lends itself to copying:
 * [row][block][part][t] of 16 bytes, and sums [row][block]. They come in stages of two blocks, two
 * stages ahead of the products. Weights go from memory into registers, a segment ahead. A warp has
 * 32 rows (16 of either matrix) by 64 tokens, every other eight of them, so that warps of a tile
 * with few tokens have their share. */
#ifndef MFI_BACKEND_CUDA_MATMUL_MANY_CUH
#define MFI_BACKEND_CUDA_MATMUL_MANY_CUH

#include "backend/cuda/matmul_codes.cuh"

#ifndef MANY_BLOCKS
#define MANY_BLOCKS 1 /* a stage */
#define MANY_STAGES 4
#endif
#ifndef MANY_FULL
#define MANY_FULL 0
#endif
#define MANY_NT      (MFI_CUDA_TILE / 16)                  /* tiles of eight tokens of a warp */
#define MANY_PARTS   (MANY_BLOCKS * 3 * MFI_CUDA_TILE * 4) /* of 16 bytes */
#define MANY_BYTES   (MANY_PARTS * 16 + MANY_BLOCKS * MFI_CUDA_TILE * 4)
#define MANY_STEP(n) (128 / (n)) /* rows of a tile, of n matrices */

/* ---- splitting ---- */

/* Rows of x, by heads each head's part of one. */
template <class C>
__global__ void __launch_bounds__(256)
    code_split_rows(const __grid_constant__ mfi_cuda_mm mm, uint32_t n_heads)
{
    uint32_t cols = mm.mat[0].cols, blocks = cols / 32, row = blockIdx.x;
    uint32_t quad = blockIdx.y * 256 + threadIdx.x;
    bool there = quad < cols / 4;
    begin_wait();
    begin_next();
    const float *x = mm.x + (size_t)(row / n_heads) * mm.ldx + (row % n_heads) * mm.head_x;
    float4 v = there ? *(const float4 *)(x + quad * 4) : make_float4(0, 0, 0, 0);
    code_x to = {mm.split + (size_t)row * blocks * 12,
                 (float *)(mm.split + (size_t)gridDim.x * blocks * 12) + (size_t)row * blocks, 1};
    code_split<C>(to, quad / 8, quad % 8, 0, v, there);
}

/* ---- stages ---- */

/* What a thread copies: parts t of two tokens. */
struct many_copy {
    const uint4 *x[2]; /* at block 0, or NULL */
    const float *sums[2];
};

MFI_DEV void many_async16(void *to, const void *from)
{
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((uint32_t)__cvta_generic_to_shared(to)),
        "l"(from)
        : "memory");
}

MFI_DEV void many_async4(void *to, const void *from)
{
    asm volatile(
        "cp.async.ca.shared.global [%0], [%1], 4;" ::"r"((uint32_t)__cvta_generic_to_shared(to)),
        "l"(from)
        : "memory");
}

MFI_DEV many_copy many_rows(const mfi_cuda_mm &mm, const mm_place &at, uint32_t n_rows)
{
    uint32_t blocks = mm.mat[0].cols / 32,
             n_heads = mm.head_rows ? mm.mat[0].rows / mm.head_rows : 1;
    const float *sums = (const float *)(mm.split + (size_t)n_rows * blocks * 12);
    many_copy c;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        uint32_t token = threadIdx.x / 4 + i * (MFI_CUDA_TILE / 2), row = at.first + token;
        bool there = token < at.n;
        if (there && mm.x_row)
            row = mm.x_row[row];
        if (mm.head_rows)
            row = row * n_heads + at.row0 / mm.head_rows;
        c.x[i] = there ? mm.split + (size_t)row * blocks * 12 + threadIdx.x % 4 : NULL;
        c.sums[i] = there ? sums + (size_t)row * blocks : NULL;
    }
    return c;
}

/* Blocks from `block` on; of n. What isn't there stays what it was, and nobody's. */
template <class C>
MFI_DEV void many_fetch(const many_copy &c, uint32_t block, uint32_t n, char *stage)
{
    uint4 *parts = (uint4 *)stage + threadIdx.x;
    float *sums = (float *)(stage + MANY_PARTS * 16) + threadIdx.x / 4;
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int b = 0; b < MANY_BLOCKS; b++) {
            if (!c.x[i] || block + b >= n)
                break;
#pragma unroll
            for (int part = 0; part < 3; part++)
                many_async16(parts + (b * 3 + part) * MFI_CUDA_TILE * 4 + i * CODE_THREADS,
                             c.x[i] + (block + b) * 12 + part * 4);
            if (C::has_min && threadIdx.x % 4 == b)
                many_async4(sums + b * MFI_CUDA_TILE + i * (MFI_CUDA_TILE / 2),
                            c.sums[i] + block + b);
        }
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* ---- products ---- */

/* Block b of a segment of two tiles of 16 rows, as the products take it. */
template <class C> struct many_weights {
    uint32_t a[2][4], b[2][4];
    code_scales sa[2], sb[2];
};

template <class C>
MFI_DEV void many_decode(const code_rows<C> rows[2], uint32_t seg, int b, many_weights<C> *w)
{
#pragma unroll
    for (int k = 0; k < 2; k++) {
        C::codes(rows[k].a, b, w->a[k]);
        C::codes(rows[k].b, b, w->b[k]);
        w->sa[k] = C::scales(rows[k].a, seg, b);
        w->sb[k] = C::scales(rows[k].b, seg, b);
    }
}

/* Block `block` of a stage by two of this warp's tiles of eight tokens, from i on: four chains of
 * products side by side. Sums as code_block's. */
template <class C>
MFI_DEV void many_pair(const many_weights<C> &w, const uint4 *parts, const float *sums, int i,
                       float sum[2][MANY_NT][4])
{
    float c[2][2][2][4]; /* [token tile][row tile][half] */
#pragma unroll
    for (int k = 0; k < 32; k++)
        c[k / 16][k / 8 % 2][k / 4 % 2][k % 4] = 0;
#pragma unroll
    for (int part = 2; part >= 0; part--) {
        uint4 v[2];
#pragma unroll
        for (int j = 0; j < 2; j++)
            v[j] = parts[part * MFI_CUDA_TILE * 4 + (i + j) * 64];
#pragma unroll
        for (int k = 0; k < 4; k++)
            mma_pairs(c[k / 2][k % 2][0], w.a[k % 2][0], w.b[k % 2][0], w.a[k % 2][1],
                      w.b[k % 2][1], v[k / 2].x, v[k / 2].y);
#pragma unroll
        for (int k = 0; k < 4; k++)
            mma_pairs(c[k / 2][k % 2][C::halves], w.a[k % 2][2], w.b[k % 2][2], w.a[k % 2][3],
                      w.b[k % 2][3], v[k / 2].z, v[k / 2].w);
    }
#pragma unroll
    for (int j = 0; j < 2; j++) {
        float2 s = make_float2(0, 0);
        if (C::has_min)
            s = *(const float2 *)(sums + (i + j) * 16);
#pragma unroll
        for (int k = 0; k < 8; k++)
            sum[k / 4][i + j][k % 4] +=
                code_scaled<C>(k % 4 < 2 ? w.sa[k / 4] : w.sb[k / 4], c[j][k / 4][0][k % 4],
                               c[j][k / 4][1][k % 4], k % 2 ? s.y : s.x);
    }
}

/* By all of this warp's tokens. */
template <class C>
MFI_DEV void many_block(const many_weights<C> &w, const char *stage, int block, uint32_t n,
                        float sum[2][MANY_NT][4])
{
    uint32_t g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, odd = threadIdx.x / 32 % 2;
    const uint4 *parts =
        (const uint4 *)stage + block * 3 * MFI_CUDA_TILE * 4 + (odd * 8 + g) * 4 + t;
    const float *sums =
        (const float *)(stage + MANY_PARTS * 16) + block * MFI_CUDA_TILE + odd * 8 + 2 * t;
    if (MANY_FULL && n == MFI_CUDA_TILE) {
#pragma unroll
        for (int i = 0; i < MANY_NT; i += 2)
            many_pair<C>(w, parts, sums, i, sum);
        return;
    }
#pragma unroll
    for (int i = 0; i < MANY_NT; i += 2) {
        if (i * 16 + odd * 8 >= n)
            break;
        many_pair<C>(w, parts, sums, i, sum);
    }
}

/* The two tiles of 16 rows of a warp: of one matrix, or of both. */
template <class C, int NM> struct many_place {
    code_pair_of_rows at[2];
    const mfi_cuda_mat *mat;
};

template <class C, int NM>
MFI_DEV void many_load(const many_place<C, NM> &p, uint32_t seg, code_rows<C> rows[2])
{
#pragma unroll
    for (int k = 0; k < 2; k++)
        code_load<C>(*p.mat, p.at[k], seg, &rows[k]);
}

/* Sums of this warp's rows and tokens. */
template <class C, int NM>
MFI_DEV void many_walk(const mfi_cuda_mm &mm, const mm_place &at, uint32_t row, uint32_t n_rows,
                       char *room, float tot[2][MANY_NT][4])
{
    uint32_t blocks = mm.mat[0].cols / 32, stage = 0;
    many_copy copy = many_rows(mm, at, n_rows);
#pragma unroll
    for (int i = 0; i < MANY_STAGES - 1; i++)
        many_fetch<C>(copy, i * MANY_BLOCKS, blocks, room + i * MANY_BYTES);
    many_place<C, NM> place;
    place.mat = &mm.mat[at.m];
#pragma unroll
    for (int k = 0; k < 2; k++) {
        uint32_t r = row + (NM == 1 ? k * 16 : 0);
        place.at[k] = code_find(mm.mat[at.m + (NM == 2 ? k : 0)], at.data, min(r, at.row_end - 1),
                                min(r + 8, at.row_end - 1));
    }
    code_rows<C> rows[2];
    many_load(place, 0, rows);
#pragma unroll
    for (int i = 0; i < 2 * MANY_NT * 4; i++)
        tot[i / 4 / MANY_NT][i / 4 % MANY_NT][i % 4] = 0;
    for (uint32_t seg = 0; seg * CODE_BLOCKS < blocks; seg++) {
        float sum[2][MANY_NT][4];
#pragma unroll
        for (int i = 0; i < 2 * MANY_NT * 4; i++)
            sum[i / 4 / MANY_NT][i / 4 % MANY_NT][i % 4] = 0;
#pragma unroll
        for (int b = 0; b < CODE_BLOCKS; b++) {
            uint32_t block = seg * CODE_BLOCKS + b;
            if (b % MANY_BLOCKS == 0) {
                asm volatile("cp.async.wait_group %0;" ::"n"(MANY_STAGES - 2) : "memory");
                __syncthreads();
                many_fetch<C>(copy, block + (MANY_STAGES - 1) * MANY_BLOCKS, blocks,
                              room + (stage + MANY_STAGES - 1) % MANY_STAGES * MANY_BYTES);
            }
            many_weights<C> w;
            many_decode<C>(rows, seg, b, &w);
            if (b == CODE_BLOCKS - 1 && block + 1 < blocks)
                many_load(place, seg + 1, rows);
            if (C::whole || block < blocks)
                many_block<C>(w, room + stage * MANY_BYTES, b % MANY_BLOCKS, at.n, sum);
            if (b % MANY_BLOCKS == MANY_BLOCKS - 1)
                stage = (stage + 1) % MANY_STAGES;
        }
#pragma unroll
        for (int i = 0; i < 2 * MANY_NT * 4; i++)
            tot[i / 4 / MANY_NT][i / 4 % MANY_NT][i % 4] +=
                sum[i / 4 / MANY_NT][i / 4 % MANY_NT][i % 4];
    }
}

template <class C, int NM>
__global__ void __launch_bounds__(CODE_THREADS)
    code_many(const __grid_constant__ mfi_cuda_mm mm, uint32_t n_rows)
{
    extern __shared__ uint4 room[];
    mm_place at;
    begin_wait();
    begin_next();
    if (!mm_find(mm, MANY_STEP(NM), MFI_CUDA_TILE, &at, blockIdx.x))
        return;
    uint32_t warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    uint32_t first = warp / 2 * (32 / NM) + g;
    float tot[2][MANY_NT][4];
    many_walk<C, NM>(mm, at, at.row0 + first, n_rows, (char *)room, tot);
#pragma unroll
    for (int n = 0; n < MANY_NT; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t token = n * 16 + warp % 2 * 8 + 2 * t + i % 2;
            if (token >= at.n)
                continue;
#pragma unroll
            for (int k = 0; k < 2 / NM; k++) {
                uint32_t row = first + k * 16 + i / 2 * 8;
                float sum[NM];
                sum[0] = tot[k][n][i];
                if (NM == 2)
                    sum[NM - 1] = tot[1][n][i];
                if (at.row0 + row < at.row_end)
                    code_finish<NM>(mm, at, row, token, sum);
            }
        }
    }
}

/* ---- starting ---- */

template <class C, int NM>
static cudaError_t code_start_many(const mfi_cuda_mm *mm, dim3 grid, cudaStream_t s)
{
    uint32_t heads = mm->head_rows ? mm->mat[0].rows / mm->head_rows : 1;
    uint32_t n_rows = (mm->n_x ? mm->n_x : mm->n_tok) * heads, room = MANY_STAGES * MANY_BYTES;
    cudaError_t e = start_early(code_split_rows<C>, dim3(n_rows, (mm->mat[0].cols / 4 + 255) / 256),
                                256, 0, s, *mm, heads);
    if (e == cudaSuccess)
        e = code_allow(code_many<C, NM>, room);
    return e == cudaSuccess
               ? start_early(code_many<C, NM>, grid, CODE_THREADS, room, s, *mm, n_rows)
               : e;
}

#endif
