/* A single token's products whose weights go through shared memory, with the bits of
 * matmul_codes.cuh: all that a block of threads multiplies with is asked for at once, before it may
 * see x, so that of a kernel in a row of them only the way from x to y takes time. For types whose
 * rows are blocks at multiples of 16 bytes (code_stages). */
#ifndef MFI_BACKEND_CUDA_MATMUL_STAGED_CUH
#define MFI_BACKEND_CUDA_MATMUL_STAGED_CUH

#include "backend/cuda/matmul_codes.cuh"
#include "backend/cuda/stage.cuh"

#define STAGED_COLS (CODE_ROUND * CODE_SEG)          /* of a round */
#define STAGED_HELD (STAGED_COLS / 4 / CODE_THREADS) /* fours of x that a thread has */

static_assert(CODE_THREADS == NORM_THREADS, "a norm's sums have one order");

/* From row to row: the 32 bytes of neighbouring rows that a warp reads are in different banks. */
static __host__ __device__ __forceinline__ uint32_t staged_pitch(uint32_t bytes)
{
    while (bytes / 16 % 4 != 2)
        bytes += 16;
    return bytes;
}

/* Shared memory: `stages` times the rows of a round, x, sums of its blocks, sums of segments. */
struct staged_room {
    uint32_t round, pitch, stage, x, sums, segs, bytes;
};

template <class C>
static __host__ __device__ __forceinline__ staged_room staged_room_of(uint32_t cols,
                                                                      uint32_t n_mats,
                                                                      uint32_t stages)
{
    staged_room r;
    uint32_t n_seg = cols / CODE_SEG; /* rows are whole blocks of 256 */
    r.round = n_seg < CODE_ROUND ? n_seg : CODE_ROUND;
    r.pitch = staged_pitch(r.round / 2 * C::block_bytes);
    r.stage = n_mats * MM_ROWS * r.pitch;
    r.x = stages * r.stage;
    r.sums = r.x + r.round * CODE_BLOCKS * 3 * 64;
    r.segs = r.sums + r.round * CODE_BLOCKS * 4;
    r.bytes = r.segs + n_mats * r.round * MM_ROWS * 4;
    return r;
}

/* Asks for 16 rows' `size` bytes from `from` on; rows beyond the last are that one once more. */
template <int WARPS>
MFI_DEV void staged_rows(const uint8_t *from, uint64_t row_bytes, uint32_t row0, uint32_t row_end,
                         uint32_t size, uint32_t pitch, uint8_t *to)
{
#pragma unroll
    for (uint32_t i = 0; i < (MM_ROWS + WARPS - 1) / WARPS; i++) {
        uint32_t r = threadIdx.x / 32 + i * WARPS;
        const uint8_t *row = from + min(row0 + r, row_end - 1) * row_bytes;
#pragma unroll 4
        for (uint32_t u = threadIdx.x % 32 * 16; r < MM_ROWS && u < size; u += 32 * 16)
            stage_copy(to + r * pitch + u, row + u);
    }
}

/* Asks for a round's part of a tile's rows. */
template <class C, int NM>
MFI_DEV void staged_fetch(const mfi_cuda_mm &mm, const mm_place &at, uint32_t base, uint32_t n,
                          uint32_t pitch, uint8_t *to)
{
#pragma unroll
    for (int k = 0; k < NM; k++) {
        const mfi_cuda_mat &m = mm.mat[at.m + k];
        staged_rows<CODE_WARPS>(m.plane[0] + (uintptr_t)at.data + base / 2 * C::block_bytes,
                                m.row_bytes[0], at.row0, at.row_end, n / 2 * C::block_bytes, pitch,
                                to + k * MM_ROWS * pitch);
    }
    stage_group();
}

/* A thread's columns of a round in registers; `norm` are the weights they are normed with. */
struct staged_x {
    float4 v[STAGED_HELD], norm[STAGED_HELD];
};

MFI_DEV void staged_load(const float *from, uint32_t n_quads, float4 v[STAGED_HELD])
{
#pragma unroll
    for (int i = 0; i < STAGED_HELD; i++) {
        uint32_t quad = i * CODE_THREADS + threadIdx.x;
        v[i] = quad < n_quads ? *(const float4 *)(from + quad * 4) : make_float4(0, 0, 0, 0);
    }
}

/* Norms the columns, as norm_factor does, and keeps them if this block of threads is to. */
MFI_DEV void staged_norm(const mfi_cuda_mm &mm, uint32_t n_quads, float *room, staged_x *x)
{
    float sq = 0;
#pragma unroll
    for (int i = 0; i < STAGED_HELD; i++) { /* zeros change nothing */
        sq = fmaf(x->v[i].x, x->v[i].x, sq);
        sq = fmaf(x->v[i].y, x->v[i].y, sq);
        sq = fmaf(x->v[i].z, x->v[i].z, sq);
        sq = fmaf(x->v[i].w, x->v[i].w, sq);
    }
    float factor = 1.0f / sqrtf(block_sum(sq, room) / (float)(n_quads * 4) + mm.norm_eps);
#pragma unroll
    for (int i = 0; i < STAGED_HELD; i++) {
        uint32_t quad = i * CODE_THREADS + threadIdx.x;
        float4 v = x->v[i], w = x->norm[i];
        x->v[i] = make_float4(v.x * factor * w.x, v.y * factor * w.y, v.z * factor * w.z,
                              v.w * factor * w.w);
        if (blockIdx.x == 0 && blockIdx.y == 0 && quad < n_quads)
            *(float4 *)(mm.norm_out + quad * 4) = x->v[i];
    }
}

/* A round's x: fetched if it isn't `there`, normed if it is to be, and split. */
template <class C>
MFI_DEV void staged_take(const mfi_cuda_mm &mm, const float *from, uint32_t n_quads, float *room,
                         staged_x *x, bool there, const code_x &to)
{
    if (!there)
        staged_load(from, n_quads, x->v);
    if (mm.norm)
        staged_norm(mm, n_quads, room, x);
#pragma unroll
    for (int i = 0; i < STAGED_HELD; i++) {
        uint32_t quad = i * CODE_THREADS + threadIdx.x;
        if (i * CODE_THREADS < n_quads)
            code_split<C>(to, quad / 8, quad % 8, 0, x->v[i], quad < n_quads);
    }
}

/* A segment of the 16 rows at `rows` by the blocks of x from `block` on. */
template <class C>
MFI_DEV void staged_segment(const uint8_t *rows, uint32_t pitch, uint32_t seg, uint32_t cols,
                            const code_x &x, uint32_t block, float *part)
{
    const uint8_t *row = rows + threadIdx.x % 32 / 4 * pitch;
    code_rows<C> r;
    C::template take<true>(row, seg, &r.a);
    C::template take<true>(row + 8 * pitch, seg, &r.b);
    float s[4];
    code_segment_one<C>(r, seg, cols, x, block, s);
    code_keep<true>(part, s);
}

/* Segments of the rows at `w`, dealt out to warps. */
template <class C, int NM>
MFI_DEV void staged_round(const uint8_t *w, uint32_t pitch, uint32_t cols, uint32_t n,
                          const code_x &x, float *part)
{
#pragma unroll 1
    for (uint32_t i = threadIdx.x / 32; i < n * NM; i += CODE_WARPS) {
        bool second = NM == 2 && i >= n;
        uint32_t seg = second ? i - n : i;
        staged_segment<C>(w + (second ? MM_ROWS * pitch : 0), pitch, seg, cols, x,
                          seg * CODE_BLOCKS, part + i * MM_ROWS);
    }
}

/* Adds segments to what the first threads have of a tile's rows. */
template <int NM> MFI_DEV void staged_add(const float *part, uint32_t n, bool first, float sum[NM])
{
#pragma unroll
    for (int k = 0; k < NM; k++) {
        sum[k] = first ? 0 : sum[k];
#pragma unroll 8
        for (uint32_t s = 0; s < n; s++)
            sum[k] += part[(k * n + s) * MM_ROWS + threadIdx.x];
    }
}

/* Blocks of threads walk over the tiles of rows, and over rounds of their columns: while one is
 * multiplied, the next one comes. */
template <class C, int NM>
__global__ void __launch_bounds__(CODE_THREADS, 3)
    code_staged(const __grid_constant__ mfi_cuda_mm mm, uint32_t n_tiles, uint32_t stages)
{
    extern __shared__ uint4 room[];
    __shared__ float norm_room[32];
    mm_place at, next;
    if (mm.items) {
        begin_wait();
        begin_next();
    }
    if (!mm_find(mm, MM_ROWS, 1, &at, blockIdx.x))
        return;
    uint32_t cols = mm.mat[0].cols, n_seg = cols / CODE_SEG, stage = 0;
    staged_room r = staged_room_of<C>(cols, NM, stages);
    uint8_t *shared = (uint8_t *)room;
    code_x x = {(uint4 *)(shared + r.x), (float *)(shared + r.sums), 1};
    float *part = (float *)(shared + r.segs), sum[NM];
    staged_x held;
    /* All experts have the same x, which is asked for before what it is multiplied with. */
    bool there = mm.items && mm.x_row && !mm.n_x;
    if (there)
        staged_load(mm.x + at.x_col, min(n_seg, r.round) * CODE_SEG / 4, held.v);
    staged_fetch<C, NM>(mm, at, 0, r.round, r.pitch, shared);
    if (mm.norm)
        staged_load(mm.norm, cols / 4, held.norm);
    if (!mm.items) {
        begin_wait();
        begin_next();
    }
    const float *row = there ? mm.x + at.x_col : mm_x_row(mm, at, 0);
    for (uint32_t tile = blockIdx.x, base = 0;;) {
        uint32_t n = min(n_seg - base, r.round), to = base + n, after = tile;
        if (to == n_seg) {
            to = 0;
            after += gridDim.x;
        }
        bool more = after < n_tiles, end = to == 0, mine = threadIdx.x < MM_ROWS;
        next = at;
        if (more && after != tile)
            mm_find(mm, MM_ROWS, 1, &next, after);
        if (more)
            staged_fetch<C, NM>(mm, next, to, min(n_seg - to, r.round), r.pitch,
                                shared + (1 - stage) * r.stage);
        mine = mine && at.row0 + threadIdx.x < at.row_end;
        float old = mm.res && mine && end ? *code_res(mm, at, threadIdx.x, 0) : 0;
        if (n < n_seg || tile == blockIdx.x)
            staged_take<C>(mm, row + base * CODE_SEG, n * CODE_SEG / 4, norm_room, &held, there, x);
        there = false;
        if (more)
            stage_wait<1>();
        else
            stage_wait<0>();
        __syncthreads();
        staged_round<C, NM>(shared + stage * r.stage, r.pitch, cols, n, x, part);
        __syncthreads();
        if (mine)
            staged_add<NM>(part, n, base == 0, sum);
        if (mine && end)
            code_finish<NM>(mm, at, threadIdx.x, 0, sum, old);
        if (!more)
            break;
        stage = 1 - stage;
        base = to;
        tile = after;
        at = next;
    }
}

static inline uint32_t staged_stages(const mfi_cuda_mm *mm, bool walks)
{
    return walks || mm->mat[0].cols > STAGED_COLS ? 2 : 1;
}

/* What a block of this device may have of shared memory: 99 KB on sm_86 and sm_89. */
static uint32_t staged_room_max(void)
{
    int device = 0, bytes = 0;
    (void)cudaGetDevice(&device);
    (void)cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    return (uint32_t)bytes;
}

template <class C, int NM> static bool staged_fits(const mfi_cuda_mm *mm, bool walks)
{
    uint32_t cols = mm->mat[0].cols;
    return (!mm->norm || cols <= STAGED_COLS) &&
           staged_room_of<C>(cols, NM, staged_stages(mm, walks)).bytes <= staged_room_max();
}

template <class C, int NM>
static cudaError_t staged_start(const mfi_cuda_mm *mm, dim3 grid, uint32_t n_tiles, cudaStream_t s)
{
    uint32_t stages = staged_stages(mm, grid.x < n_tiles);
    uint32_t room = staged_room_of<C>(mm->mat[0].cols, NM, stages).bytes;
    cudaError_t e = code_allow(code_staged<C, NM>, room);
    if (e != cudaSuccess)
        return e;
    return start_early(code_staged<C, NM>, grid, CODE_THREADS, room, s, *mm, n_tiles, stages);
}

#endif
