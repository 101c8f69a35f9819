/* Products of a single token with weights of integer types, with the bits of matmul_codes.cuh: what
 * counts here is that weights come at the memory's rate, so kernels are short, fetch weights before
 * they may see x, and do what stands before and behind a product: norms, additions, the sum of
 * experts. Starts the kernels for more tokens as well. */
#ifndef MFI_BACKEND_CUDA_MATMUL_ONE_CUH
#define MFI_BACKEND_CUDA_MATMUL_ONE_CUH

#include "backend/cuda/combine.cuh"
#include "backend/cuda/matmul_down.cuh"
#include "backend/cuda/matmul_many.cuh"

/* Splits columns of x; with a norm, its products, which one block of threads keeps. */
template <class C>
MFI_DEV void one_take(const mfi_cuda_mm &mm, const float *row, uint32_t first_block,
                      uint32_t n_blocks, float factor, bool keep, const code_x &x)
{
#pragma unroll 1
    for (uint32_t base = 0; base < n_blocks * 8; base += CODE_THREADS) {
        uint32_t quad = base + threadIdx.x, col = first_block * 32 + quad * 4;
        float4 v = make_float4(0, 0, 0, 0);
        bool there = quad < n_blocks * 8;
        if (there)
            v = *(const float4 *)(row + col);
        if (there && mm.norm) {
            float4 w = *(const float4 *)(mm.norm + col);
            v = make_float4(v.x * factor * w.x, v.y * factor * w.y, v.z * factor * w.z,
                            v.w * factor * w.w);
            if (keep)
                *(float4 *)(mm.norm_out + col) = v;
        }
        code_split<C>(x, quad / 8, quad % 8, 0, v, there);
    }
}

/* The first segment of a warp in a round. */
template <class C, int NM>
MFI_DEV void one_first(const mfi_cuda_mm &mm, uint32_t m, const code_pair_of_rows at[NM],
                       uint32_t base, uint32_t n, code_rows<C> *rows)
{
    uint32_t warp = threadIdx.x / 32;
    if (warp < n * NM)
        code_load<C>(mm.mat[m], code_pick<NM>(at, warp >= n),
                     base + (NM == 2 && warp >= n ? warp - n : warp), rows);
}

template <int NM>
MFI_DEV void one_rows(const mfi_cuda_mm &mm, const mm_place &at, code_pair_of_rows rows[NM])
{
    uint32_t g = threadIdx.x % 32 / 4; /* rows beyond the matrix are its last one once more */
#pragma unroll
    for (int k = 0; k < NM; k++)
        rows[k] = code_find(mm.mat[at.m + k], at.data, min(at.row0 + g, at.row_end - 1),
                            min(at.row0 + g + 8, at.row_end - 1));
}

/* Blocks of threads walk over the tiles of rows. */
template <class C, int NM>
__global__ void __launch_bounds__(CODE_THREADS, 3)
    code_one(const __grid_constant__ mfi_cuda_mm mm, uint32_t n_tiles)
{
    extern __shared__ uint4 room[];
    __shared__ float norm_room[32];
    mm_place at;
    if (mm.items)
        begin_wait();
    if (!mm_find(mm, MM_ROWS, 1, &at, blockIdx.x))
        return;
    uint32_t cols = mm.mat[0].cols, n_seg = (cols + CODE_SEG - 1) / CODE_SEG;
    code_room r = code_room_of<true>(cols, NM);
    code_x x = {room, (float *)((char *)room + r.sums), 1};
    float *part = (float *)((char *)room + r.segs), factor = 1;
    code_pair_of_rows rows_at[NM];
    code_rows<C> rows;
    one_rows<NM>(mm, at, rows_at);
    one_first<C, NM>(mm, at.m, rows_at, 0, min(n_seg, r.round), &rows);
    if (!mm.items)
        begin_wait();
    begin_next();
    const float *row = mm_x_row(mm, at, 0);
    if (mm.norm)
        factor = norm_factor(row, cols, mm.norm_eps, norm_room);
    for (uint32_t tile = blockIdx.x;;) {
        float sum[NM];
#pragma unroll
        for (int k = 0; k < NM; k++)
            sum[k] = 0;
#pragma unroll 1
        for (uint32_t base = 0; base < n_seg; base += r.round) {
            uint32_t n = min(n_seg - base, r.round);
            if (base > 0)
                one_first<C, NM>(mm, at.m, rows_at, base, n, &rows);
            if (n < n_seg || tile == blockIdx.x) {
                one_take<C>(mm, row, base * CODE_BLOCKS,
                            min(n * CODE_BLOCKS, cols / 32 - base * CODE_BLOCKS), factor,
                            tile == 0 && blockIdx.y == 0, x);
                __syncthreads();
            }
            code_round<C, NM, true>(mm, at.m, rows_at, base, n, 1, x, part, &rows);
            __syncthreads();
            if (threadIdx.x < MM_ROWS)
#pragma unroll
                for (int k = 0; k < NM; k++)
#pragma unroll 4
                    for (uint32_t s = 0; s < n; s++)
                        sum[k] += part[(k * n + s) * MM_ROWS + threadIdx.x];
            __syncthreads();
        }
        mm_place done = at;
        tile += gridDim.x;
        if (tile < n_tiles) {
            mm_find(mm, MM_ROWS, 1, &at, tile);
            one_rows<NM>(mm, at, rows_at);
            one_first<C, NM>(mm, at.m, rows_at, 0, min(n_seg, r.round), &rows);
        }
        if (threadIdx.x < MM_ROWS && done.row0 + threadIdx.x < done.row_end)
            code_finish<NM>(mm, done, threadIdx.x, 0, sum);
        if (tile >= n_tiles)
            break;
    }
}

/* ---- the end of a token's experts ---- */

#define DOWN_WARPS   16
#define DOWN_THREADS (DOWN_WARPS * 32)
#define DOWN_TOP_K   64

/* Shared memory: x of all pairs, sums of their blocks, of segments, and the pairs' outputs. */
struct down_room {
    uint32_t sums, segs, y, bytes;
};

static __host__ __device__ __forceinline__ down_room down_room_of(uint32_t cols, uint32_t top_k)
{
    down_room r;
    r.sums = cols / 32 * top_k * 3 * 64;
    r.segs = r.sums + cols / 32 * top_k * 4;
    r.y = r.segs + (cols + CODE_SEG - 1) / CODE_SEG * top_k * MM_ROWS * 4;
    r.bytes = r.y + top_k * MM_ROWS * 4;
    return r;
}

/* All chosen experts' last products and their sum, 16 rows a block of threads. */
template <class C>
__global__ void __launch_bounds__(DOWN_THREADS, 1)
    code_down(const __grid_constant__ mfi_cuda_mm mm, const __grid_constant__ mfi_cuda_combine c)
{
    extern __shared__ uint4 room[];
    __shared__ const uint8_t *data[DOWN_TOP_K];
    uint32_t g = threadIdx.x % 32 / 4, cols = mm.mat[0].cols;
    uint32_t n_seg = (cols + CODE_SEG - 1) / CODE_SEG, n_blocks = cols / 32;
    uint32_t row0 = blockIdx.x * MM_ROWS, end = mm.mat[0].rows;
    uint32_t row_a = min(row0 + g, end - 1), row_b = min(row0 + g + 8, end - 1);
    down_room r = down_room_of(cols, c.top_k);
    code_x x = {room, (float *)((char *)room + r.sums), 1};
    float *part = (float *)((char *)room + r.segs), *y = (float *)((char *)room + r.y);
    /* The choice is older than the kernel in front, which multiplies with gate and up. */
    if (threadIdx.x < c.top_k)
        data[threadIdx.x] = mm.items[threadIdx.x].data;
    __syncthreads();
    uint32_t pair = 0, seg = threadIdx.x / 32;
    for (; seg >= n_seg; seg -= n_seg)
        pair++;
    code_rows<C> rows;
    if (pair < c.top_k)
        code_load<C>(mm.mat[0], code_find(mm.mat[0], data[pair], row_a, row_b), seg, &rows);
    begin_wait();
    begin_next();
    uint32_t per = cols / 4, total = per * c.top_k;
#pragma unroll 1
    for (uint32_t base = 0; base < total; base += DOWN_THREADS) {
        uint32_t i = base + threadIdx.x, of = i / per, quad = i % per;
        float4 v = i < total ? *(const float4 *)(mm.x + (size_t)of * mm.ldx + quad * 4)
                             : make_float4(0, 0, 0, 0);
        code_split<C>(x, of * n_blocks + quad / 8, quad % 8, 0, v, i < total);
    }
    __syncthreads();
#pragma unroll 1
    while (pair < c.top_k) {
        code_rows<C> next;
        uint32_t now = pair, at = seg;
        for (seg += DOWN_WARPS; seg >= n_seg; seg -= n_seg)
            pair++;
        if (pair < c.top_k)
            code_load<C>(mm.mat[0], code_find(mm.mat[0], data[pair], row_a, row_b), seg, &next);
        float s[4];
        code_segment_one<C>(rows, at, cols, x, now * n_blocks + at * CODE_BLOCKS, s);
        code_keep<true>(part + (now * n_seg + at) * MM_ROWS, s);
        rows = next;
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < MM_ROWS * c.top_k; i += DOWN_THREADS) {
        uint32_t of = i / MM_ROWS, row = i % MM_ROWS;
        float sum = 0;
#pragma unroll 2
        for (uint32_t k = 0; k < n_seg; k++)
            sum += part[(of * n_seg + k) * MM_ROWS + row];
        if (mm.bias[0] && row0 + row < end)
            sum += mm_bias(mm, 0, data[of], row0 + row);
        y[i] = sum;
    }
    __syncthreads();
    uint32_t row = row0 + threadIdx.x;
    if (threadIdx.x < MM_ROWS && row < end)
        combine_one(c, 0, row, [&](uint32_t rank) { return y[rank * MM_ROWS + threadIdx.x]; });
}

template <class C>
static cudaError_t down_start(const mfi_cuda_mm *mm, const mfi_cuda_combine *c, cudaStream_t s)
{
    if constexpr (code_stages<C>::value)
        if (pieces_fit<C>(mm, c))
            return pieces_start<C>(mm, c, s);
    uint32_t room = down_room_of(mm->mat[0].cols, c->top_k).bytes;
    cudaError_t e = code_allow(code_down<C>, room);
    if (e != cudaSuccess)
        return e;
    return start_early(code_down<C>, dim3((mm->mat[0].rows + MM_ROWS - 1) / MM_ROWS), DOWN_THREADS,
                       room, s, *mm, *c);
}

/* ---- starting ---- */

#define ONE_BLOCKS 396 /* of threads, that walk over tiles; three for each of an H100's units */

template <class C, int NM>
static cudaError_t code_start_one(const mfi_cuda_mm *mm, dim3 grid, cudaStream_t s)
{
    uint32_t n_tiles = grid.x;
    if (!mm->items && !mm->head_rows && grid.x > ONE_BLOCKS)
        grid.x = ONE_BLOCKS;
    if constexpr (code_stages<C>::value)
        if (staged_fits<C, NM>(mm, n_tiles > grid.x))
            return staged_start<C, NM>(mm, grid, n_tiles, s);
    uint32_t room = code_room_of<true>(mm->mat[0].cols, NM).bytes;
    cudaError_t e = code_allow(code_one<C, NM>, room);
    if (e != cudaSuccess)
        return e;
    return start_early(code_one<C, NM>, grid, CODE_THREADS, room, s, *mm, n_tiles);
}

template <class C, int NM>
static cudaError_t code_start_as(const mfi_cuda_mm *mm, bool few, dim3 grid, cudaStream_t s)
{
    if (!few)
        return code_start_many<C, NM>(mm, grid, s);
    if (mm->n_tok == 1)
        return code_start_one<C, NM>(mm, grid, s);
    uint32_t room = code_room_of<false>(mm->mat[0].cols, NM).bytes;
    cudaError_t e = code_allow(code_few<C, NM>, room);
    if (e != cudaSuccess)
        return e;
    return start_early(code_few<C, NM>, grid, CODE_THREADS, room, s, *mm);
}

/* Columns come in blocks of 32 here. */
template <class C> static cudaError_t code_start(const mfi_cuda_mm *mm, cudaStream_t s)
{
    bool few = mm->items ? mm->small_tiles : mm->n_tok <= MFI_CUDA_TILE_SMALL * 2;
    uint32_t step = few ? MM_ROWS : MANY_STEP(mm->glu ? 2 : 1);
    uint32_t tok = few ? MFI_CUDA_TILE_SMALL : MFI_CUDA_TILE, tiles = 0;
    for (uint32_t m = 0; m < (mm->glu ? 1 : mm->n_mats); m++) {
        uint32_t head_rows = mm->head_rows ? mm->head_rows : mm->mat[m].rows;
        tiles += (head_rows + step - 1) / step * (mm->mat[m].rows / head_rows);
    }
    dim3 grid(tiles, mm->items ? mm->n_items : (mm->n_tok + tok - 1) / tok);
    if (grid.x == 0 || grid.y == 0)
        return cudaSuccess;
    return mm->glu ? code_start_as<C, 2>(mm, few, grid, s) : code_start_as<C, 1>(mm, few, grid, s);
}

#endif
