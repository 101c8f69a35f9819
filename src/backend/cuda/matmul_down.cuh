/* The end of a single token's experts: all chosen experts' last products and their sum, 16 rows a
 * block of threads, with the bits of the product and the sum one after the other. */
#ifndef MFI_BACKEND_CUDA_MATMUL_DOWN_CUH
#define MFI_BACKEND_CUDA_MATMUL_DOWN_CUH

#include "backend/cuda/combine.cuh"
#include "backend/cuda/matmul_codes.cuh"

#define DOWN_WARPS   16
#define DOWN_THREADS (DOWN_WARPS * 32)

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

template <class C>
MFI_DEV void down_load(const mfi_cuda_mm &mm, uint32_t pair, uint32_t seg, uint32_t row_a,
                       uint32_t row_b, code_rows<C> *rows)
{
    const uint8_t *p[3];
    mm_planes(mm.mat[0], mm.items[pair].data, p);
    C::load(mm.mat[0], p, row_a, seg, &rows->a);
    C::load(mm.mat[0], p, row_b, seg, &rows->b);
}

template <class C>
__global__ void __launch_bounds__(DOWN_THREADS, 1)
    down(const __grid_constant__ mfi_cuda_mm mm, const __grid_constant__ mfi_cuda_combine c)
{
    extern __shared__ uint4 room[];
    uint32_t warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    uint32_t cols = mm.mat[0].cols, n_seg = (cols + CODE_SEG - 1) / CODE_SEG;
    uint32_t row0 = blockIdx.x * MM_ROWS, end = mm.mat[0].rows, n = n_seg * c.top_k;
    uint32_t row_a = min(row0 + g, end - 1), row_b = min(row0 + g + 8, end - 1);
    down_room r = down_room_of(cols, c.top_k);
    code_x x = {room, (float *)((char *)room + r.sums), 1};
    float *part = (float *)((char *)room + r.segs), *y = (float *)((char *)room + r.y);
    code_rows<C> rows[2];
    /* The choice is older than the kernel in front, which multiplies with gate and up. */
#pragma unroll
    for (int k = 0; k < 2; k++)
        if (warp + k * DOWN_WARPS < n)
            down_load<C>(mm, (warp + k * DOWN_WARPS) / n_seg, (warp + k * DOWN_WARPS) % n_seg,
                         row_a, row_b, &rows[k]);
    begin_wait();
    begin_next();
    uint32_t per = cols / 4, total = per * c.top_k;
    for (uint32_t base = 0; base < total; base += DOWN_THREADS) {
        uint32_t i = base + threadIdx.x, pair = i / per, quad = i % per;
        float4 v =
            i < total ? load_x4(mm.x + (size_t)pair * mm.ldx + quad * 4) : make_float4(0, 0, 0, 0);
        code_split<C::fours>(x, pair * (cols / 32) + quad / 8, quad % 8, 0, v, i < total);
    }
    __syncthreads();
    for (uint32_t i = warp; i < n; i += 2 * DOWN_WARPS) {
#pragma unroll
        for (int k = 0; k < 2; k++) {
            uint32_t now = i + k * DOWN_WARPS, next = now + 2 * DOWN_WARPS;
            if (now >= n)
                break;
            float s[4];
            uint32_t pair = now / n_seg, seg = now % n_seg;
            code_segment<C>(rows[k], seg, cols, x, pair * (cols / 32) + seg * CODE_BLOCKS, 1, s);
            if (next < n)
                down_load<C>(mm, next / n_seg, next % n_seg, row_a, row_b, &rows[k]);
            if (t == 0) {
                part[now * MM_ROWS + g] = s[0];
                part[now * MM_ROWS + g + 8] = s[2];
            }
        }
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < MM_ROWS * c.top_k; i += DOWN_THREADS) {
        uint32_t pair = i / MM_ROWS, row = i % MM_ROWS;
        float sum = 0;
        for (uint32_t s = 0; s < n_seg; s++)
            sum += part[(pair * n_seg + s) * MM_ROWS + row];
        if (mm.bias[0] && row0 + row < end)
            sum += mm_bias(mm, 0, mm.items[pair].data, row0 + row);
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
    uint32_t room = down_room_of(mm->mat[0].cols, c->top_k).bytes;
    cudaError_t e = code_allow(down<C>, room);
    if (e != cudaSuccess)
        return e;
    return start_early(down<C>, dim3((mm->mat[0].rows + MM_ROWS - 1) / MM_ROWS), DOWN_THREADS, room,
                       s, *mm, *c);
}

#endif
