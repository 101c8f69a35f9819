/* The end of a single token's experts where weights go through shared memory (code_stages), with
 * the bits of matmul_codes.cuh: each warp asks for the weights that it will multiply with itself,
 * before the kernel in front has ended, so that none waits for another's. */
#ifndef MFI_BACKEND_CUDA_MATMUL_DOWN_CUH
#define MFI_BACKEND_CUDA_MATMUL_DOWN_CUH

#include "backend/cuda/combine.cuh"
#include "backend/cuda/matmul_staged.cuh"

#define PIECE_WARPS   12
#define PIECE_THREADS (PIECE_WARPS * 32)
#define PIECE_DEPTH   3  /* that a warp has asked for */
#define PIECE_SEGS    2  /* a piece: 16 rows of a block of 256 columns */
#define PIECE_HELD    4  /* fours of x that a thread fetches at a time */
#define PIECE_TOP_K   64 /* DOWN_TOP_K */

template <class C> static __host__ __device__ __forceinline__ uint32_t piece_pitch(void)
{
    return staged_pitch(C::block_bytes);
}

/* Asks for a piece whose first row would begin at `from` if it were row 0; rows from row_end on are
 * the last one. */
template <class C>
MFI_DEV void piece_fetch(const uint8_t *from, uint64_t row_bytes, uint32_t row0, uint32_t row_end,
                         uint8_t *to)
{
    const uint32_t per = C::block_bytes / 16;
#pragma unroll
    for (uint32_t i = 0; i < (MM_ROWS * per + 31) / 32; i++) {
        uint32_t u = i * 32 + threadIdx.x % 32, r = u / per, at = u % per * 16;
        if (u < MM_ROWS * per)
            stage_copy(to + r * piece_pitch<C>() + at,
                       from + min(row0 + r, row_end - 1) * row_bytes + at);
    }
}

/* Shared memory: pieces, x of all pairs, sums of its blocks, of segments, and the pairs' outputs.
 */
struct pieces_room {
    uint32_t x, sums, segs, y, bytes;
};

template <class C>
static __host__ __device__ __forceinline__ pieces_room pieces_room_of(uint32_t cols, uint32_t top_k)
{
    pieces_room r;
    r.x = PIECE_WARPS * PIECE_DEPTH * MM_ROWS * piece_pitch<C>();
    r.sums = r.x + cols / 32 * top_k * 3 * 64;
    r.segs = r.sums + cols / 32 * top_k * 4;
    r.y = r.segs + cols / CODE_SEG * top_k * MM_ROWS * 4;
    r.bytes = r.y + top_k * MM_ROWS * 4;
    return r;
}

/* Splits x of all pairs. */
template <class C> MFI_DEV void pieces_take(const mfi_cuda_mm &mm, uint32_t top_k, const code_x &x)
{
    uint32_t per = mm.mat[0].cols / 4, total = per * top_k;
#pragma unroll 1
    for (uint32_t base = 0; base < total; base += PIECE_HELD * PIECE_THREADS) {
        float4 v[PIECE_HELD];
#pragma unroll
        for (int k = 0; k < PIECE_HELD; k++) {
            uint32_t i = base + k * PIECE_THREADS + threadIdx.x;
            v[k] = i < total ? *(const float4 *)(mm.x + (size_t)(i / per) * mm.ldx + i % per * 4)
                             : make_float4(0, 0, 0, 0);
        }
#pragma unroll
        for (int k = 0; k < PIECE_HELD; k++) {
            uint32_t i = base + k * PIECE_THREADS + threadIdx.x;
            if (base + k * PIECE_THREADS < total)
                code_split<C>(x, i / 8, i % 8, 0, v[k], i < total);
        }
    }
}

/* Rows of each pair, of the sums of their segments. */
MFI_DEV void pieces_add(const mfi_cuda_mm &mm, uint32_t top_k, uint32_t row0, const float *part,
                        float *y)
{
    uint32_t n_seg = mm.mat[0].cols / CODE_SEG;
    for (uint32_t i = threadIdx.x; i < MM_ROWS * top_k; i += PIECE_THREADS) {
        uint32_t of = i / MM_ROWS, row = i % MM_ROWS;
        float sum = 0;
#pragma unroll 8
        for (uint32_t k = 0; k < n_seg; k++)
            sum += part[(of * n_seg + k) * MM_ROWS + row];
        if (mm.bias[0] && row0 + row < mm.mat[0].rows)
            sum += mm_bias(mm, 0, mm.items[of].data, row0 + row);
        y[i] = sum;
    }
}

/* All chosen experts' last products and their sum, 16 rows a block of threads. */
template <class C>
__global__ void __launch_bounds__(PIECE_THREADS)
    down_pieces(const __grid_constant__ mfi_cuda_mm mm, const __grid_constant__ mfi_cuda_combine c)
{
    extern __shared__ uint4 room[];
    __shared__ float weights[PIECE_TOP_K];
    const mfi_cuda_mat &m = mm.mat[0];
    const uint32_t pitch = piece_pitch<C>(), size = MM_ROWS * pitch;
    uint32_t warp = threadIdx.x / 32, per = m.cols / 256, n = per * c.top_k, ahead = warp, slot = 0;
    uint32_t row0 = blockIdx.x * MM_ROWS, row = row0 + threadIdx.x;
    bool mine = threadIdx.x < MM_ROWS && row < m.rows;
    pieces_room r = pieces_room_of<C>(m.cols, c.top_k);
    uint8_t *shared = (uint8_t *)room, *pieces = shared + warp * PIECE_DEPTH * size;
    code_x x = {(uint4 *)(shared + r.x), (float *)(shared + r.sums), 1};
    float *part = (float *)(shared + r.segs), *y = (float *)(shared + r.y);
    auto fetch = [&](uint8_t *to) {
        if (ahead < n)
            piece_fetch<C>(mm.items[ahead / per].data + (uintptr_t)m.plane[0] +
                               ahead % per * C::block_bytes,
                           m.row_bytes[0], row0, m.rows, to);
        ahead += PIECE_WARPS;
        stage_group();
    };
    /* The choice is older than the kernel in front, which multiplies with gate and up. */
#pragma unroll 1
    for (int i = 0; i < PIECE_DEPTH; i++)
        fetch(pieces + i * size);
    begin_wait();
    begin_next();
    if (threadIdx.x < c.top_k)
        weights[threadIdx.x] = c.weights[threadIdx.x];
    combine_held held = combine_hold(c, 0, row, mine);
    pieces_take<C>(mm, c.top_k, x);
    __syncthreads();
#pragma unroll 1
    for (uint32_t i = warp; i < n; i += PIECE_WARPS) {
        stage_wait<PIECE_DEPTH - 1>();
        __syncwarp();
#pragma unroll 1
        for (uint32_t seg = i * PIECE_SEGS; seg < (i + 1) * PIECE_SEGS; seg++)
            staged_segment<C>(pieces + slot * size, pitch, seg % PIECE_SEGS, m.cols, x,
                              seg * CODE_BLOCKS, part + seg * MM_ROWS);
        __syncwarp();
        fetch(pieces + slot * size);
        slot = slot + 1 == PIECE_DEPTH ? 0 : slot + 1;
    }
    __syncthreads();
    pieces_add(mm, c.top_k, row0, part, y);
    __syncthreads();
    if (mine)
        combine_held_one(c, 0, row, held, weights,
                         [&](uint32_t rank) { return y[rank * MM_ROWS + threadIdx.x]; });
}

template <class C> static bool pieces_fit(const mfi_cuda_mm *mm, const mfi_cuda_combine *c)
{
    return c->top_k <= PIECE_TOP_K &&
           pieces_room_of<C>(mm->mat[0].cols, c->top_k).bytes <= staged_room_max();
}

template <class C>
static cudaError_t pieces_start(const mfi_cuda_mm *mm, const mfi_cuda_combine *c, cudaStream_t s)
{
    uint32_t room = pieces_room_of<C>(mm->mat[0].cols, c->top_k).bytes;
    cudaError_t e = code_allow(down_pieces<C>, room);
    if (e != cudaSuccess)
        return e;
    return start_early(down_pieces<C>, dim3((mm->mat[0].rows + MM_ROWS - 1) / MM_ROWS),
                       PIECE_THREADS, room, s, *mm, *c);
}

#endif
